package inventory

import "strings"

// Names of the targets of a migration, by the resource that a credential is
// for. The sentences say what to do; `proviso plan` writes it out.
var migrations = []struct{ prefix, text string }{
	{"cloud/aws", "Trust the CI's OIDC issuer in IAM and assume a role whose trust policy pins repository and environment or ref; delete the access keys."},
	{"registry/ecr", "Log in with a role that the job assumes by OIDC."},
	{"registry/codeartifact", "Ask for the token with a role that the job assumes by OIDC."},
	{"cloud/gcp", "Use workload identity federation with a condition on repository and ref; delete the service account key."},
	{"registry/gar", "Log in with workload identity federation."},
	{"cloud/azure", "Add a federated identity credential for this repository and environment; delete the client secret."},
	{"registry/acr", "Log in through a federated Azure identity."},
	{"registry/npm", "Use trusted publishing where the CI is supported (GitHub, GitLab.com, CircleCI); else a short-lived token from Proviso."},
	{"registry/pypi", "Use a trusted publisher; delete the API token."},
	{"registry/crates.io", "Use trusted publishing; delete the token."},
	{"registry/rubygems", "Use trusted publishing; delete the API key."},
	{"registry/nuget", "Use trusted publishing on GitHub; elsewhere a scoped key from Proviso, just in time."},
	{"registry/maven", "Maven Central knows no federation: keep the token in a protected environment, or have Proviso hand it out just in time."},
	{"registry/container", "Use the registry's own federation, or the platform's token for its own registry; else a short-lived login from Proviso."},
	{"vcs/", "Exchange the job's identity for an App token that is limited to one repository and the permissions needed."},
	{"secrets-manager/", "Log in with the job's identity token and bound claims; replace the values by dynamic ones."},
	{"iac/terraform-cloud", "Use a short-lived team token, and workload identity for the providers."},
	{"iac/pulumi-cloud", "Exchange the job's identity token at Pulumi Cloud."},
	{"k8s/", "Let the cluster trust the CI's issuer, or the cloud's IAM."},
	{"ssh/", "Use a certificate of an SSH CA that is issued per job."},
	{"database", "Use a database engine of a vault, or IAM authentication."},
	{"signing/sigstore", "Sign keyless with the job's identity token."},
	{"signing/", "Keep the key in a KMS that the job reaches by OIDC, or sign keyless."},
	{"network/tailscale", "Use workload identity federation of the network."},
	{"scan/codecov", "Set use_oidc: true."},
	{"reusable-workflow", "Pass secrets by name, and only those that the workflow needs; move them to its environment."},
}

// migration says what replaces a credential; "" when it is as it should be.
func migration(ci CI, c Credential, res Resource) string {
	switch c.Kind {
	case Federated:
		return ""
	case PlatformToken:
		if ci == GitHub && c.Name == "GITHUB_TOKEN" {
			return "Grant each job only the scopes that it needs; start from permissions: {}."
		}
		return "Limit what the job's token may reach."
	case Ambient:
		return "Give the runner an identity of its own (SPIFFE), and the job a short-lived token for what it does."
	case ServiceConnection:
		return "Convert the connection to workload identity federation, and restrict who may use it."
	}
	if c.Nature == NatureIdentifier {
		return "An identifier is no secret: keep it as a plain variable."
	}
	if c.Name == "*" && !strings.HasPrefix(res.Kind, "reusable-workflow") {
		return "Name each secret that is needed; nothing needs all of them."
	}
	for _, m := range migrations {
		if strings.HasPrefix(res.Kind, m.prefix) {
			return m.text
		}
	}
	return "Have the job prove its identity to Proviso, and hand the value out just in time."
}
