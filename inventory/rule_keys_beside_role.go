package inventory

import (
	"fmt"
	"strings"
)

var ruleKeysBesideRole = Rule{
	Name:       "keys-beside-role",
	Title:      "The federated way is there, and the keys still are",
	What:       "A job exchanges its identity token at a cloud and holds long-lived keys for the same cloud, or assumes a role with keys instead of with its token. The keys gain nothing and can still be stolen; often they are left over from a migration that was never finished.",
	Remedy:     "Finish it: remove the keys from the step, watch the key's last use for a dual-run period, then delete the key and the secret.",
	References: []string{credHygiene, accessManagement, nistGoals},
	check:      checkKeysBesideRole,
}

// cloudOf gives the cloud that a resource belongs to: "aws", "gcp", "azure"; "" for others.
func cloudOf(kind string) string {
	switch kind {
	case "registry/ecr", "registry/codeartifact", "secrets-manager/aws", "secrets-manager/ssm":
		return "aws"
	case "registry/gar", "secrets-manager/gcp", "kms/gcp":
		return "gcp"
	case "registry/acr", "secrets-manager/azure-key-vault":
		return "azure"
	}
	cloud, ok := strings.CutPrefix(kind, "cloud/")
	if ok && (cloud == "aws" || cloud == "gcp" || cloud == "azure") {
		return cloud
	}
	return ""
}

func checkKeysBesideRole(s *subject) {
	for _, group := range s.besideRole() {
		first := group[0]
		s.report(found{
			line: first.Line, job: first.Job, step: first.Step, severity: severityOf(group...).within(SeverityMedium, SeverityHigh), about: cloudOf(first.Resource.Kind), paths: group,
			message: fmt.Sprintf("Job %s can use its identity at %s and still holds %s.", first.Job, first.Resource.Kind, listOf(namesOf(group))),
			fix:     "Remove the keys from the job, then delete them.",
		})
	}
}

// besideRole gives the keys of each job for a cloud where the job also federates, or names a role.
func (s *subject) besideRole() [][]*Path {
	federates := make(map[string]bool)
	for _, p := range s.paths {
		c := cloudOf(p.Resource.Kind)
		if c == "" {
			continue
		}
		role := p.Credential.Nature == NatureIdentifier && (strings.HasSuffix(p.ExposedVia, "role-to-assume") || strings.HasSuffix(p.ExposedVia, "workload_identity_provider"))
		if p.Credential.Kind == Federated || role {
			federates[p.Job+"\x00"+c] = true
		}
	}
	s.rolesBesideKeys(federates)
	keys := s.pathsWhere(func(p *Path) bool {
		return isSecret(p) && p.Job != compositeJob && p.Credential.Source == "" && federates[p.Job+"\x00"+cloudOf(p.Resource.Kind)]
	})
	return groupBy(keys, func(p *Path) string { return p.Job + "\x00" + cloudOf(p.Resource.Kind) })
}

// rolesBesideKeys adds the jobs whose AWS login names a role and keys.
func (s *subject) rolesBesideKeys(federates map[string]bool) {
	if s.file.CI != GitHub && s.file.CI != Forgejo || !s.mentions("role-to-assume") || !s.mentions("aws-access-key-id") {
		return
	}
	for _, job := range s.workflow().jobs {
		for _, st := range job.steps {
			if st.input("role-to-assume") != "" && st.input("aws-access-key-id") != "" {
				federates[job.id+"\x00aws"] = true
			}
		}
	}
}
