package inventory

import (
	"fmt"
	"strings"
)

var ruleAllSecrets = Rule{
	Name:  "all-secrets",
	Title: "A job takes every secret there is",
	What: "`toJSON(secrets)` (or the whole `secrets` context in another way) gives a step all secrets of the repository, the organisation and the environment at once, also those that are added tomorrow. " +
		"The platform then masks only the values it knows in the form it knows them.",
	Remedy:     "Name each secret that the step needs: `env: TOKEN: ${{ secrets.TOKEN }}`.",
	References: []string{credHygiene, pipelineAccess, nistGoals},
	Systems:    []CI{GitHub, Forgejo},
	check: func(s *subject) {
		for _, p := range s.paths {
			if p.Credential.Kind != StaticSecret || p.Credential.Name != "*" || strings.HasPrefix(p.ExposedVia, "secrets: inherit") {
				continue
			}
			s.report(found{
				line: p.Line, job: p.Job, step: p.Step, severity: severityOf(p).within(SeverityHigh, SeverityCritical), about: "*", paths: []*Path{p},
				message: fmt.Sprintf("Job %s takes every secret that it can see (%s).", p.Job, p.ExposedVia),
				fix:     "Name the secrets that are needed, one by one.",
			})
		}
	},
}
