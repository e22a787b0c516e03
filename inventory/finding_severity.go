package inventory

import "strings"

// Severity is reach times resource:
//
//	                 powerful   moderate   minor
//	fork_reachable   critical   high       medium
//	unknown          high       medium     low
//	protected        medium     low        info
//
// Powerful resources change production or what others install; minor ones
// hold little (a chat channel, a coverage report); the rest, and what is not
// known, is moderate. A rule about habits rather than holes lowers the result.

// weight is how much a resource is worth to an attacker.
type weight int

const (
	minor weight = iota
	moderate
	powerful
)

// weights are the classes by the beginning of a resource's kind; the first that fits counts.
var weights = []struct {
	prefix string
	weight weight
}{
	{"vcs/github-code-scanning", minor}, {"scan/", minor}, {"notify/", minor}, {"notify-or-scan", minor}, {"build/", minor},
	{"cloud/", powerful}, {"k8s/", powerful}, {"secrets-manager/", powerful}, {"iac/infracost", minor}, {"iac/", powerful}, {"signing/", powerful},
	{"registry/", powerful}, {"vcs/", powerful}, {"ssh/", powerful}, {"database", powerful}, {"store/", powerful}, {"runner/", powerful},
	{"network/", powerful}, {"paas/", powerful}, {"cdn/", powerful}, {"kms/", powerful}, {"platform/", powerful}, {"storage", powerful},
	{"reusable-workflow", powerful}, {"secret-set/", powerful}, {"oidc/", powerful},
}

// weightOf gives the class of what a path reaches.
func weightOf(p *Path) weight {
	if p.Credential.Name == "*" || strings.HasPrefix(p.Credential.Name, "context:") || strings.HasPrefix(p.Credential.Name, "group:") {
		return powerful // a set of secrets is worth its most valuable one
	}
	for _, w := range weights {
		if strings.HasPrefix(p.Resource.Kind, w.prefix) {
			return w.weight
		}
	}
	return moderate
}

// severities are the severities from the lowest to the highest.
var severities = []Severity{SeverityInfo, SeverityLow, SeverityMedium, SeverityHigh, SeverityCritical}

// rank gives the place of a severity, 0 for info; an unknown word is 0.
func (s Severity) rank() int {
	for i, x := range severities {
		if x == s {
			return i
		}
	}
	return 0
}

// AtLeast reports whether s is as severe as other, or more.
func (s Severity) AtLeast(other Severity) bool { return s.rank() >= other.rank() }

// ParseSeverity reads the name of a severity.
func ParseSeverity(name string) (Severity, bool) {
	for _, x := range severities {
		if string(x) == name {
			return x, true
		}
	}
	return "", false
}

// severity is the table.
func severity(trust Trust, w weight) Severity {
	rank := int(w)
	switch trust {
	case ForkReachable:
		rank += 2
	case TrustUnknown:
		rank++
	}
	return severities[rank]
}

// severityOf gives the highest severity of paths.
func severityOf(paths ...*Path) Severity {
	out := SeverityInfo
	for _, p := range paths {
		if s := severity(p.Reach.Trust, weightOf(p)); s.rank() > out.rank() {
			out = s
		}
	}
	return out
}

// shift moves a severity by steps, within the scale.
func (s Severity) shift(steps int) Severity {
	return severities[min(max(s.rank()+steps, 0), len(severities)-1)]
}

// within keeps a severity between two others.
func (s Severity) within(low, high Severity) Severity {
	return severities[min(max(s.rank(), low.rank()), high.rank())]
}

// worst gives the highest of severities.
func worst(list ...Severity) Severity {
	out := SeverityInfo
	for _, s := range list {
		if s.rank() > out.rank() {
			out = s
		}
	}
	return out
}

// Risk orders paths for reports that can't show all: reach, then resource, then kind of credential.
func (p *Path) Risk() int {
	r := severity(p.Reach.Trust, weightOf(p)).rank() * 10
	switch p.Credential.Kind {
	case StaticSecret:
		if p.Credential.Nature != NatureIdentifier {
			r += 4
		} else {
			r -= 20
		}
	case Ambient:
		r += 3
	case Federated, ServiceConnection:
		r += 2
	case PlatformToken:
		if p.Permission == "write-all" || strings.Contains(p.Permission, ": write") {
			r += 2
		} else {
			r -= 10 // it reads, or nobody can tell
		}
	}
	return r
}
