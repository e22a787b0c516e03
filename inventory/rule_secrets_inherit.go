package inventory

import (
	"fmt"
	"strings"
)

var ruleSecretsInherit = Rule{
	Name:  "secrets-inherit",
	Title: "A called workflow gets every secret of the caller",
	What: "`secrets: inherit` hands all secrets to the reusable workflow, not only those that it declares. What it does with them is decided in the other file, and changes there without a change here. " +
		"A workflow of the same repository is a smaller risk than one of another owner, and one that isn't pinned to a commit a larger one.",
	Remedy:     "Pass by name what the called workflow declares: `secrets: {TOKEN: ${{ secrets.TOKEN }}}`; or let it take its own from an environment.",
	References: []string{credHygiene, pipelineAccess, thirdParties, nistGoals},
	Systems:    []CI{GitHub, Forgejo},
	check: func(s *subject) {
		for _, p := range s.paths {
			if p.Credential.Name != "*" || !strings.HasPrefix(p.ExposedVia, "secrets: inherit") {
				continue
			}
			target := strings.TrimPrefix(p.Resource.Name, "reusable workflow ")
			sev, whose := severityOf(p).within(SeverityMedium, SeverityCritical), "another repository's workflow "
			if _, local := localTarget(target); local {
				sev, whose = sev.shift(-1), "the workflow "
			}
			s.report(found{
				line: p.Line, job: p.Job, severity: sev, about: target, paths: []*Path{p},
				message: fmt.Sprintf("Job %s hands all secrets to %s%s.", p.Job, whose, target),
				fix:     "List under secrets: only what the called workflow declares.",
			})
		}
	},
}
