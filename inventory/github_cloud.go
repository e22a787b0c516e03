package inventory

import (
	"regexp"
	"strings"
)

// An action that no table knows, and that this tree doesn't hold, may still
// show by its inputs that it exchanges the job's identity token at a cloud: it
// takes the name of a role, an application or a provider, and no key.

var (
	awsRoleInput  = regexp.MustCompile(`^(aws_)?((oidc|iam|deploy|deployment|assume|github|ci)_)*role(_(to_assume|arn|oidc))*$`)
	gcpInput      = regexp.MustCompile(`(^|_)(workload_identity_provider|wif_provider|workload_provider|identity_provider)$`)
	azureInput    = regexp.MustCompile(`(^|_)client_?id$`)
	azureTenant   = regexp.MustCompile(`(^|_)tenant_?id$`)
	cloudKeyInput = regexp.MustCompile(`access_key|secret_key|client_secret|credentials_json|(^|_)creds$|service_account_key|password`)
)

// cloudOf tells from the inputs of a step at which cloud it exchanges the identity token; "" when nothing says so.
func (j *ghJob) cloudOf(s *ghStep) (res Resource, via string) {
	var aws, gcp, azure, tenant string
	for k, v := range j.w.r.pairs(s.with) {
		in := strings.ToLower(strings.ReplaceAll(k.Value, "-", "_"))
		switch text := j.expand(s, j.w.r.str(v)); {
		case text == "":
		case cloudKeyInput.MatchString(in):
			return Resource{}, ""
		case awsRoleInput.MatchString(in):
			aws = text
		case gcpInput.MatchString(in):
			gcp = text
		case azureInput.MatchString(in):
			azure = text
		case azureTenant.MatchString(in):
			tenant = text
		}
	}
	switch {
	case aws != "":
		return Resource{"cloud/aws", oneLine(aws)}, "with: a role"
	case gcp != "":
		return Resource{"cloud/gcp", oneLine(gcp)}, "with: a workload identity provider"
	case azure != "" && tenant != "":
		return Resource{"cloud/azure", oneLine(azure)}, "with: a client and a tenant"
	}
	return Resource{}, ""
}
