package inventory

import (
	"fmt"
	"slices"
	"strings"
)

var ruleStaticCloudKey = Rule{
	Name:       habitCloudKey,
	Title:      "A long-lived key for a cloud that can federate",
	What:       "A job uses an access key, a service account key or a client secret that the CI platform keeps. It works from anywhere, for anybody who copies it, until somebody deletes it. The CI system has identity tokens and the cloud accepts them, so no key needs to exist.",
	Remedy:     "Let the cloud trust the CI's issuer (or Proviso), pinned to repository and environment or protected branch; exchange the job's identity token; delete the key. `proviso plan` writes the steps out.",
	References: []string{credHygiene, accessManagement, nistGoals},
	check:      checkStaticCloudKey,
}

// The rules about habits: each static secret belongs to one of them at most.
const (
	habitCloudKey = "static-cloud-key"
	habitRegistry = "registry-token"
	habitManager  = "secret-zero"
	habitForge    = "static-forge-token"
	habitOther    = "long-lived-secret"
)

// withoutIdentity are the systems whose jobs have no identity token.
var withoutIdentity = []CI{Drone, Woodpecker, Travis}

func checkStaticCloudKey(s *subject) {
	if slices.Contains(withoutIdentity, s.file.CI) {
		return
	}
	s.habit(func(p *Path) bool { return habitOf(p) == habitCloudKey }, func(group []*Path) found {
		first := group[0]
		return found{
			severity: severityOf(group...).within(SeverityMedium, SeverityCritical), about: cloudOf(first.Resource.Kind),
			message: fmt.Sprintf("%s for %s in %s: long-lived, although %s can give a job an identity that the cloud accepts.", listOf(namesOf(group)), target(first), jobsOf(group), s.file.CI),
			fix:     first.Migration,
		}
	})
}

// habit reports static secrets that could be replaced, one finding for each
// job, step and resource, so that a key and its id are one.
func (s *subject) habit(keep func(*Path) bool, say func([]*Path) found) {
	beside := make(map[*Path]bool)
	for _, group := range s.besideRole() {
		for _, p := range group {
			beside[p] = true // reported by keys-beside-role
		}
	}
	paths := s.pathsWhere(func(p *Path) bool { return isSecret(p) && !beside[p] && keep(p) })
	where := func(p *Path) string {
		if everyJob(p) {
			return p.Resource.Kind // one finding for all jobs
		}
		return p.Job + "\x00" + p.Step + "\x00" + p.Resource.Kind
	}
	for _, group := range groupBy(paths, where) {
		f := say(group)
		f.line, f.paths = group[0].Line, group
		if !everyJob(group[0]) {
			f.job, f.step = group[0].Job, group[0].Step
		}
		f.about += " " + strings.Join(namesOf(group), ",")
		s.report(f)
	}
}

// habitOf gives the one rule about habits that a static secret belongs to, "" when none does.
func habitOf(p *Path) string {
	kind := p.Resource.Kind
	switch {
	case p.Credential.Name == "*" || p.Credential.computed() || strings.HasPrefix(kind, "secret-set/") || strings.HasPrefix(kind, "reusable-workflow"):
		return "" // a whole set has rules of its own; what is passed on is judged where it is used
	case p.Job == compositeJob || strings.HasPrefix(p.Credential.Name, "context:") || strings.HasPrefix(p.Credential.Name, "group:"):
		return "" // the caller of an action decides what its inputs hold
	case p.Credential.Source != "" && p.Credential.Source != "kubernetes":
		return "" // fetched at run time from a manager that can rotate it
	case cloudOf(kind) != "" && !strings.HasPrefix(kind, "secrets-manager/") && !slices.Contains(withoutIdentity, p.CI):
		return habitCloudKey
	case publishes(p.CI, p.Resource):
		return habitRegistry
	case strings.HasPrefix(kind, "secrets-manager/"):
		return habitManager
	case strings.HasPrefix(kind, "vcs/"):
		return habitForge
	case weightOf(p) == powerful:
		return habitOther
	}
	return ""
}
