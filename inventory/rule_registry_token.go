package inventory

import (
	"fmt"
	"slices"
	"strings"
)

var ruleRegistryToken = Rule{
	Name:       habitRegistry,
	Title:      "A long-lived token for a registry that knows trusted publishing",
	What:       "A job publishes with a token or a password, and the registry accepts the job's identity instead: npm, PyPI, crates.io, RubyGems and NuGet by trusted publishing, GitHub's own registry by the job's token. A stolen publishing token puts an attacker's code on everybody's machine that installs the package.",
	Remedy:     "Configure the trusted publisher (repository, workflow, environment) at the registry, publish once, then delete the token and forbid tokens for the package.",
	References: []string{credHygiene, artifactIntegrity, accessManagement, nistPullPush},
	check: func(s *subject) {
		s.habit(func(p *Path) bool { return habitOf(p) == habitRegistry }, func(group []*Path) found {
			first := group[0]
			return found{
				severity: severityOf(group...).within(SeverityMedium, SeverityCritical), about: first.Resource.Kind,
				message: fmt.Sprintf("%s in %s: a long-lived login to %s, which accepts the job's identity instead.", listOf(namesOf(group)), jobsOf(group), target(first)),
				fix:     first.Migration,
			}
		})
	},
}

// publishers are the registries that accept identity tokens of CI systems, by the vendors' documentation as of 2026.
var publishers = map[string][]CI{
	"registry/npm":       {GitHub, GitLab, CircleCI},
	"registry/pypi":      {GitHub, GitLab},
	"registry/crates.io": {GitHub, GitLab},
	"registry/rubygems":  {GitHub},
	"registry/nuget":     {GitHub},
	"registry/ghcr":      {GitHub},
}

// publishes reports whether a registry takes the identity of a system's jobs.
func publishes(ci CI, res Resource) bool {
	if res.Kind == "registry/container" && strings.HasPrefix(res.Name, "ghcr.io") {
		return ci == GitHub
	}
	return slices.Contains(publishers[res.Kind], ci)
}
