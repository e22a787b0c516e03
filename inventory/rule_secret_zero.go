package inventory

import "fmt"

var ruleSecretZero = Rule{
	Name:       habitManager,
	Title:      "A static token opens the secrets manager",
	What:       "A job logs in to a secrets manager with a token, an AppRole secret or a service account key that itself lives in the CI settings. Whoever takes it reads everything that the manager gives to it, so the manager adds a step and takes no risk away.",
	Remedy:     "Log in with the job's identity token (JWT or OIDC auth with bound claims for repository and environment), and let the manager make short-lived credentials rather than hand out stored ones.",
	References: []string{credHygiene, accessManagement, nistGoals},
	check: func(s *subject) {
		s.habit(func(p *Path) bool { return habitOf(p) == habitManager }, func(group []*Path) found {
			first := group[0]
			return found{
				severity: severityOf(group...).within(SeverityMedium, SeverityCritical), about: first.Resource.Kind,
				message: fmt.Sprintf("%s in %s opens %s and is as static as what it protects.", listOf(namesOf(group)), jobsOf(group), target(first)),
				fix:     first.Migration,
			}
		})
	},
}
