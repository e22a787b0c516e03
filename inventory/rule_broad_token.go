package inventory

import (
	"fmt"
	"strings"
)

var ruleBroadToken = Rule{
	Name:  "broad-token",
	Title: "The job's token may do more than it needs",
	What: "`permissions: write-all` gives the token of each job write access to code, packages, releases, deployments and an identity token. Without any `permissions:` block the repository's setting decides, which in older repositories is write for nearly everything; the file can't tell. " +
		"Every step of the job has this token, also the ones that others wrote.",
	Remedy:     "Write `permissions: {}` (or `contents: read`) at the top of the workflow and give each job the scopes that it needs.",
	References: []string{pipelineAccess, accessManagement, nistGoals},
	Systems:    []CI{GitHub},
	check:      checkBroadToken,
}

func checkBroadToken(s *subject) {
	tokens := s.pathsWhere(func(p *Path) bool { return p.Credential.Kind == PlatformToken && p.ExposedVia == "job token" })
	for _, group := range groupBy(tokens, func(p *Path) string { return p.Permission }) {
		first := group[0]
		switch {
		case first.Permission == "write-all":
			s.report(found{
				line: s.permissionsLine(first), severity: worst(reachOf(group), SeverityMedium), about: "write-all", paths: group,
				message: fmt.Sprintf("The token of %s may write to everything.", jobsOf(group)),
				fix:     "Replace write-all by the scopes that each job needs.",
			})
		case strings.HasPrefix(first.Permission, "default"):
			s.report(found{
				line: first.Line, severity: SeverityLow, about: "default", paths: group,
				message: fmt.Sprintf("No permissions block: what the token of %s may do is a setting that this file doesn't show, and may be write.", jobsOf(group)),
				fix:     "Put permissions: contents: read at the top, and more only where a job needs it.",
			})
		}
	}
}

// reachOf raises the severity of a token that writes and that an outsider reaches.
func reachOf(paths []*Path) Severity {
	for _, p := range paths {
		if p.Reach.Trust == ForkReachable && privileged(p.Reach.Events) {
			return SeverityHigh
		}
	}
	return SeverityMedium
}

// jobsOf names the jobs of paths.
func jobsOf(paths []*Path) string {
	var jobs []string
	for _, group := range groupBy(paths, func(p *Path) string { return p.Job }) {
		jobs = append(jobs, group[0].Job)
	}
	return verb(len(jobs), "job ", "jobs ") + listOf(jobs)
}

// permissionsLine gives the line of the block that decides for a path.
func (s *subject) permissionsLine(p *Path) int {
	f := s.workflow()
	for _, job := range f.jobs {
		if job.id == p.Job && job.perms != nil {
			return job.perms.Line
		}
	}
	if f.perms != nil {
		return f.perms.Line
	}
	return p.Line
}
