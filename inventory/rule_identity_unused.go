package inventory

import "fmt"

var ruleIdentityUnused = Rule{
	Name:       "identity-without-consumer",
	Title:      "A job may mint identity tokens, and no use of them is seen",
	What:       "A job has `id-token: write` and no step that is known to exchange the token. The consumer is often inside of a composite action, a script or a test, so this is a note, not a verdict; but each trust policy that names this repository without the workflow or the environment can be used from this job.",
	Remedy:     "Remove the permission where nothing needs it; else name the consumer in a comment, and pin trust policies to workflow or environment.",
	References: []string{pipelineAccess, accessManagement, nistGoals},
	Systems:    []CI{GitHub, Forgejo},
	check: func(s *subject) {
		for _, p := range s.paths {
			if p.Credential.Kind != Federated || p.Resource.Kind != "oidc/issuer" || p.ExposedVia != "permissions: id-token" {
				continue
			}
			s.report(found{
				line: p.Line, job: p.Job, severity: SeverityInfo, about: p.Credential.Name, paths: []*Path{p},
				message: fmt.Sprintf("Job %s may mint identity tokens, and no step is known to use one.", p.Job),
				fix:     "Remove id-token: write if nothing in the job exchanges the token.",
			})
		}
	},
}
