package inventory

import (
	"fmt"
	"strings"
)

var ruleWorkflowSecret = Rule{
	Name:  "workflow-wide-secret",
	Title: "A secret is in the environment of every job",
	What: "A secret in the environment of the whole workflow (or in the global variables of a pipeline) is there in each step of each job: also in those that install packages, run tests and third-party actions, and also in jobs that are added later. " +
		"It is reported when the file has several jobs.",
	Remedy:     "Move the secret to the `env:` of the one step that uses it.",
	References: []string{credHygiene, pipelineAccess, nistGoals},
	check:      checkWorkflowSecret,
}

// everyJob reports whether a path stands in an environment that all jobs of its file have.
func everyJob(p *Path) bool {
	for _, via := range []string{"workflow env", "global variables", "pipeline env"} {
		if strings.HasPrefix(p.ExposedVia, via) {
			return true
		}
	}
	return false
}

func checkWorkflowSecret(s *subject) {
	wide := s.pathsWhere(func(p *Path) bool {
		return isSecret(p) && everyJob(p)
	})
	for _, group := range groupBy(wide, func(p *Path) string { return p.Credential.Name }) {
		jobs := len(groupBy(group, func(p *Path) string { return p.Job }))
		if jobs < 2 {
			continue
		}
		first := group[0]
		s.report(found{
			line: first.Line, severity: severityOf(group...), about: first.Credential.Name, paths: group,
			message: fmt.Sprintf("The secret %s is in the environment of all %d jobs of this file.", first.Credential.Name, jobs),
			fix:     "Give it to the step that needs it, in that step's env.",
		})
	}
}
