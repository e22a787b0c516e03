package inventory

import (
	"fmt"
	"regexp"
)

var ruleUnknownProtection = Rule{
	Name:  "unknown-protection",
	Title: "Nothing in the file protects a production credential",
	What: "A job that deploys or publishes uses a credential, and the file doesn't show who can make it run with it: that is a setting of the platform (protected variables and environments of GitLab, restricted contexts of CircleCI, approvals of an Azure service connection, fork settings). " +
		"An unprotected variable is there on every branch that anybody with push access creates.",
	Remedy:     "Turn the setting on, and write it into the file where the file can say it: rules for protected branches only, an environment, a branch filter. Then note it with an ignore and its reason.",
	References: []string{flowControl, pipelineAccess, nistDeploy},
	Systems:    []CI{GitLab, CircleCI, Azure, Bitbucket, Buildkite, Jenkins, Drone, Woodpecker, Travis, CloudBuild, CodeBuild},
	check:      checkUnknownProtection,
}

var production = regexp.MustCompile(`(?i)(^|[^a-z])(prod|production|deploy|deployment|release|publish|live|promote)`)

// harmlessJob matches names of jobs that only look at a release.
var harmlessJob = regexp.MustCompile(`(?i)(^|[^a-z])(check|test|lint|verify|validate|notify|report|generate|dev|notes)([^a-z]|$)`)

// protections says what to look for, per system.
var protections = map[CI]string{
	GitLab:     "Mark the variables as protected (and masked), protect the environment, and limit the job by rules to protected branches or tags.",
	CircleCI:   "Restrict the context to a security group or by expression, and filter the job to the release branch or tags.",
	Azure:      "Add approvals and a branch control check to the service connection, the variable group and the environment, and keep secrets from builds of forks.",
	Bitbucket:  "Use deployment variables of an environment that only the main branch and admins may deploy to.",
	Buildkite:  "Run the step on a queue whose agents take only protected branches, and keep builds of forks off.",
	Jenkins:    "Keep the credential in the folder of the job, restrict who can build it, and limit the stage by when { branch }.",
	Drone:      "Keep secrets from pull requests, protect the repository, and limit the step by its trigger.",
	Woodpecker: "Limit the secret to events and plugins in its settings, and the step by when.",
	Travis:     "Keep encrypted variables from pull requests, and deploy on tags only.",
	CloudBuild: "Require approval on the trigger, and limit it to the release branch or tags.",
	CodeBuild:  "Limit the webhook's filters to the release branch, and keep builds of forks off.",
}

func checkUnknownProtection(s *subject) {
	open := s.pathsWhere(func(p *Path) bool {
		if p.Reach.Trust != TrustUnknown || weightOf(p) != powerful || p.Credential.Nature == NatureIdentifier {
			return false
		}
		return p.Credential.Kind == StaticSecret || p.Credential.Kind == Federated || p.Credential.Kind == ServiceConnection
	})
	for _, group := range groupBy(open, func(p *Path) string { return p.Job }) {
		first := group[0]
		where := first.Reach.Environment
		switch {
		case production.MatchString(where):
			where = "to the environment " + where
		case production.MatchString(first.Job) && !harmlessJob.MatchString(first.Job):
			where = "by its name"
		default:
			continue
		}
		s.report(found{
			line: first.Line, job: first.Job, severity: severityOf(group...).shift(-1), about: "protection", paths: group,
			message: fmt.Sprintf("Job %s deploys or publishes (%s) with %s; the file doesn't show who can make it run with %s.", first.Job, where, heldWords(group), verb(len(namesOf(group)), "it", "them")),
			fix:     protections[s.file.CI],
		})
	}
}
