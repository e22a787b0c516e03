package inventory

import "fmt"

var ruleDynamicSecret = Rule{
	Name:  "dynamic-secret",
	Title: "Which secret is used is decided at run time",
	What: "The name of a secret is computed (`secrets[...]`, a credential id with a variable in it, a variable that is expanded twice). Nobody can tell from the file which values the job can reach, " +
		"so none of them can be taken away, and whoever controls the computed name chooses.",
	Remedy:     "Write the names out, for instance one job or one environment per target, each with its own secret.",
	References: []string{credHygiene, visibility, nistGoals},
	check: func(s *subject) {
		for _, p := range s.paths {
			if p.Credential.Kind != StaticSecret || !p.Credential.computed() {
				continue
			}
			s.report(found{
				line: p.Line, job: p.Job, step: p.Step, severity: severityOf(p).within(SeverityLow, SeverityHigh), about: p.ExposedVia, paths: []*Path{p},
				message: fmt.Sprintf("Job %s takes a secret whose name is computed when it runs (%s): it may be any.", p.Job, p.ExposedVia),
				fix:     "Name the secret in the file.",
			})
		}
	},
}
