package inventory

import (
	"fmt"
	"slices"
)

var ruleLongLived = Rule{
	Name:       habitOther,
	Title:      "A static secret that a short-lived credential can replace",
	What:       "A job uses a static secret for something that changes production or what others install: a cluster, a host, a database, a signing key, a registry, a deployment service. No more is wrong with it here than that it never ends; it is listed so that the way out can be planned. Chat, coverage and the like are left out.",
	Remedy:     "See the migration of the path, and `proviso plan`: where the target can't trust an issuer, Proviso hands the value out just in time, to the job that policy names.",
	References: []string{credHygiene, nistGoals},
	check: func(s *subject) {
		s.habit(func(p *Path) bool { return habitOf(p) == habitOther }, func(group []*Path) found {
			first := group[0]
			message := fmt.Sprintf("%s for %s in %s: nothing ends %s.", listOf(namesOf(group)), target(first), jobsOf(group), verb(len(namesOf(group)), "it", "them"))
			if cloudOf(first.Resource.Kind) != "" && slices.Contains(withoutIdentity, s.file.CI) {
				message += " " + string(s.file.CI) + " gives its jobs no identity token, so the runner's identity has to stand in."
			}
			return found{
				severity: severityOf(group...).shift(-1).within(SeverityLow, SeverityHigh), about: first.Resource.Kind,
				message: message,
				fix:     first.Migration,
			}
		})
	},
}
