package inventory

import "fmt"

var ruleForgeToken = Rule{
	Name:       habitForge,
	Title:      "A personal or app credential for the code host",
	What:       "A job uses a personal access token, a deploy key or an app's private key for the code host. A personal token may do what its owner may do, in all their repositories, and survives their next role; an app's key mints tokens for every repository where the app is installed.",
	Remedy:     "Use the job's own token where it reaches; else exchange the job's identity for an app token limited to one repository and the permissions needed, from a broker that keeps the app's key.",
	References: []string{credHygiene, accessManagement, nistCommits},
	check: func(s *subject) {
		s.habit(func(p *Path) bool { return habitOf(p) == habitForge }, func(group []*Path) found {
			first := group[0]
			return found{
				severity: severityOf(group...).shift(-1).within(SeverityLow, SeverityHigh), about: first.Resource.Kind,
				message: fmt.Sprintf("%s for %s in %s outlives the job and its owner's attention.", listOf(namesOf(group)), target(first), jobsOf(group)),
				fix:     first.Migration,
			}
		})
	},
}
