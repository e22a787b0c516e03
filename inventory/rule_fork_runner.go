package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var ruleForkRunner = Rule{
	Name:  "fork-on-own-runner",
	Title: "A stranger's code runs on a machine of yours",
	What: "A job that outsiders can start runs on a self-hosted runner. Its code runs on your machine, in your network, with what the machine may do: cloud metadata, other jobs' leftovers, a docker socket. " +
		"A runner that isn't thrown away after each job stays in the stranger's hands. Whether forks may run at all is a setting of the platform; for a private repository the finding is moot.",
	Remedy: "Run pull requests of outsiders on hosted machines. Where the machine is needed, require approval for every outside contributor, " +
		"use single-use runners without an identity of their own, and give the job what it may do by its own short-lived token.",
	References: []string{poisonedPipeline, systemConfig, pipelineAccess, nistBuild},
	check:      checkForkRunner,
}

// rented matches labels of machines that a vendor makes anew for each job.
var rented = regexp.MustCompile(`(?i)^(depot-|namespace-|nscloud|blacksmith-|buildjet-|warp-|ubicloud|codspeed|cirun|runs-on|gha-runner-|bare-metal-|github-ubuntu|github-windows)|(ubuntu|windows|macos)[a-z0-9.-]*-(\d+(-?cores?)?|x?large|x64|arm64|arm)$`)

func checkForkRunner(s *subject) {
	for _, p := range s.paths {
		if p.Reach.Trust != ForkReachable || p.Credential.Kind != Ambient || p.Runner.Kind != RunnerSelfHosted || p.Step != "" {
			continue
		}
		sev, what := SeverityMedium, "not one of the platform's standard machines"
		switch {
		case slices.ContainsFunc(p.Runner.Labels, func(l string) bool { return strings.Contains(strings.ToLower(l), "self-hosted") }):
			sev, what = SeverityHigh, "a machine of yours"
		case slices.ContainsFunc(p.Runner.Labels, rented.MatchString):
			sev, what = SeverityLow, "by its label a rented or larger machine"
		}
		s.report(found{
			line: p.Line, job: p.Job, severity: sev, about: p.Resource.Name, paths: []*Path{p},
			message: fmt.Sprintf("Job %s runs on %s, %s, and an outsider can start it (%s).", p.Job, quoted(p.Resource.Name, "a self-hosted runner"), what, listOf(p.Reach.Events)),
			fix:     "Run what outsiders can start on hosted or single-use machines that may do nothing by themselves.",
		})
	}
}
