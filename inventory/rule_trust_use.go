package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

var ruleTrustForks = Rule{
	Name:       "trust-reached-by-forks",
	Title:      "A stranger's pull request reaches a cloud",
	What:       "A job that somebody without write access can make run (`pull_request_target`, `issue_comment`, `workflow_run` after a pull request) may mint an identity token, and a trust of these files accepts it. Both ends are in the tree: this is not what could be, it is the way from a stranger to the target.",
	Remedy:     "Take `id-token: write` out of the job or keep outsiders out of it, and name an environment or the workflow in the trust.",
	References: []string{poisonedPipeline, pipelineAccess, accessManagement, nistBuild, nistDeploy},
}

func checkTrustForks(v *trustView) {
	if v.authenticatesOnly() {
		return
	}
	var open []*Path
	for _, e := range v.edges {
		if p := v.paths[e.Path]; e.Can == trust.Yes && p != nil && p.Reach.Trust == ForkReachable {
			open = append(open, p)
		}
	}
	if len(open) == 0 {
		return
	}
	line := v.t.Line
	if c := v.t.Condition("sub"); c != nil {
		line = v.at(c)
	}
	first := open[0]
	v.report(line, severity(ForkReachable, v.weight()), "fork", fmt.Sprintf("%s accepts the token of job %s (%s:%d), which an outsider can make run (%s).", v.name(), first.Job, first.File, first.Line, listOf(first.Reach.Events)),
		"Take the identity token out of that job, or name in the trust an environment with reviewers that the job doesn't use.")
}

var ruleTrustRefuses = Rule{
	Name:  "trust-refuses-job",
	Title: "A job names a target that refuses it",
	What: "A job names a role, a provider, a grant or an identity, and every trust of that name in these files refuses the job: another repository, another branch, another environment, another audience. The exchange fails when the job runs, and most targets don't say why. " +
		"It is reported at the job's line; the reason names the line of the trust.",
	Remedy:     "Correct the one of the two ends that is wrong. When it is the trust: widen it by exactly this job, not by a star.",
	References: []string{accessManagement, visibility, nistDeploy},
}

// checkTrustRefuses looks at one trust, but reports a job only at the first of
// the trusts that it may have meant, when all of them refuse.
func checkTrustRefuses(v *trustView) {
	for _, e := range v.edges {
		if e.Can != trust.No || !e.Named {
			continue
		}
		p := v.paths[e.Path]
		if p == nil || !v.allRefuse(p, e) {
			continue
		}
		*v.found = append(*v.found, Finding{
			ID:   stableID("finding", v.rule.Name, p.File, p.Job, p.Step, v.t.Target.Kind, v.t.Target.Name),
			Rule: v.rule.Name, Severity: SeverityMedium, File: p.File, Line: p.Line, Job: p.Job, Step: p.Step,
			Message:    oneParagraph(fmt.Sprintf("Job %s names %s, which refuses it: %s (%s:%d).", p.Job, lowerFirst(v.name()), strings.Join(e.Why, "; "), v.t.File, v.refusedAt(e))),
			Fix:        "Correct the end that is wrong: the job's repository, branch, environment or audience, or the condition of the trust.",
			Paths:      []string{p.ID},
			References: slices.Clone(v.rule.References),
		})
	}
}

// allRefuse reports whether no trust that a path names lets it in, and this edge is the first of them.
func (v *trustView) allRefuse(p *Path, edge *Edge) bool {
	for id := range v.cut {
		if other := v.trusts[id]; other.Kind == v.t.Kind && other.Target == v.t.Target {
			return false // an edge that was left out may say yes
		}
	}
	first := ""
	for _, e := range v.named[p.ID] {
		other := v.trusts[e.Trust]
		if other == nil || other.Kind != v.t.Kind || other.Target != v.t.Target {
			continue
		}
		if e.Can != trust.No {
			return false
		}
		if first == "" {
			first = e.Trust
		}
	}
	return first == edge.Trust
}

// refusedAt gives the line of the condition that refuses.
func (v *trustView) refusedAt(e *Edge) int {
	if p := v.paths[e.Path]; p != nil && p.Identity != nil {
		if why := v.t.Accepts(p.Identity.Identity).Why; len(why) > 0 {
			return why[0].Line
		}
	}
	return v.t.Line
}

// lowerFirst begins a name within a sentence.
func lowerFirst(s string) string {
	if rest, ok := strings.CutPrefix(s, "The "); ok {
		return "the " + rest
	}
	return s
}

var ruleTrustUnused = Rule{
	Name:       "trust-unused",
	Title:      "No pipeline of this estate uses it",
	What:       "A trust accepts jobs of a CI platform, and no job of the scanned trees can use it. Either its pipeline is gone, and the trust is a door that nobody watches; or the pipeline isn't in the scan. It is only said where the scan has jobs of that platform with identity tokens.",
	Remedy:     "Scan the repository that it names as well; if nothing uses it, look at the last use at the target, then delete it.",
	References: []string{accessManagement, visibility, nistGoals},
}

func checkTrustUnused(v *trustView) {
	if v.authenticatesOnly() || v.t.Kind == trust.ProvisoGrant || v.cut[v.t.ID] {
		return
	}
	for _, e := range v.edges {
		if e.Can != trust.No {
			return
		}
	}
	platform := v.t.Platform()
	if platform == "" || !slices.ContainsFunc(v.jobs, func(j *federatedJob) bool { return platformOf(j.ci) == platform }) {
		return
	}
	sev, why := SeverityInfo, "no job of the scanned trees"
	for _, slug := range v.slugs {
		if v.mentionsRepository(slug) {
			sev, why = SeverityLow, "its repository "+slug+" is in the scan, and no job of it"
			break
		}
	}
	v.report(v.t.Line, sev, "unused", fmt.Sprintf("%s: %s can use it.", v.name(), why), "If its last use at the target confirms it, delete it; else scan the repository that uses it, too.")
}

// mentionsRepository reports whether a condition names a repository.
func (v *trustView) mentionsRepository(slug string) bool {
	for i := range v.t.Conditions {
		for _, value := range v.t.Conditions[i].Values {
			if strings.Contains(value, slug+":") || value == slug {
				return true
			}
		}
	}
	return false
}
