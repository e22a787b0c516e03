package inventory

import (
	"fmt"
	"strings"
)

var ruleAmbientIdentity = Rule{
	Name:  "ambient-identity",
	Title: "A job acts with the identity of its machine",
	What: "A job reaches a cloud, a registry or a secrets manager without a credential of its own: the machine that runs it may do so, and with it every other job that ever runs there, whatever repository and branch it comes from. " +
		"Nobody can tell afterwards which job did what, and a taken-over runner has all of it.",
	Remedy:     "Give the job an identity of its own (the platform's identity token, exchanged for a short-lived credential), give the machine one that proves only which machine it is (SPIFFE), and take the rest away from it.",
	References: []string{pipelineAccess, accessManagement, visibility, nistGoals},
	check: func(s *subject) {
		paths := s.pathsWhere(func(p *Path) bool {
			return p.Credential.Kind == Ambient && !strings.HasPrefix(p.Resource.Kind, "runner/") && p.Resource.Kind != unknown
		})
		for _, group := range groupBy(paths, func(p *Path) string { return p.Job + "\x00" + p.Resource.Kind }) {
			first := group[0]
			sev := severityOf(group...).shift(-1)
			if first.Runner.Kind != RunnerSelfHosted || s.file.CI == CloudBuild || s.file.CI == CodeBuild {
				sev = sev.within(SeverityInfo, SeverityLow) // the platform's own way, one identity for each project
			}
			s.report(found{
				line: first.Line, job: first.Job, step: first.Step, severity: sev, about: first.Resource.Kind, paths: group,
				message: fmt.Sprintf("Job %s reaches %s with the identity of its machine, which every other job there has too.", first.Job, target(first)),
				fix:     firstOf(first.Migration, "Exchange the job's own identity token for a short-lived credential."),
			})
		}
	},
}

// target names what a path reaches.
func target(p *Path) string {
	if p.Resource.Name == "" || p.Resource.Name == unknown {
		return p.Resource.Kind
	}
	return p.Resource.Kind + " (" + p.Resource.Name + ")"
}
