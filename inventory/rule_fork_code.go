package inventory

import (
	"fmt"
	"slices"
	"strings"
)

var ruleForkCode = Rule{
	Name:  "fork-code-with-secrets",
	Title: "Code of a stranger runs beside credentials",
	What: "A job that runs in the context of the base repository (`pull_request_target`, `workflow_run`, `issue_comment`, or a copy of pull requests as branches) checks out the code of a pull request and runs something of it. " +
		"Whoever opens a pull request then runs code of their choice in a job that holds secrets, an identity token or a token with write permissions. A maintainer's label or comment before it is a guard against strangers, not against a change that is pushed after the approval.",
	Remedy: "Run the code of pull requests in a workflow on `pull_request`, which has no secrets; hand its result over as an artifact to a second workflow on `workflow_run` that has the credentials and runs nothing of the artifact. " +
		"Where that can't be, pin the checkout to the commit that was approved, put the job in an environment with required reviewers, and give it an empty `permissions:` block.",
	References: []string{poisonedPipeline, pipelineAccess, nistBuild},
	Systems:    []CI{GitHub, Forgejo},
	check:      checkForkCode,
}

// privilegedEvents run with the secrets of the base repository although a stranger caused them.
var privilegedEvents = []string{"pull_request_target", "workflow_run", "issue_comment", "issues", "pull_request_comment", "discussion", "discussion_comment", "fork", "watch", "gollum"}

// privileged reports whether one of the events gives a stranger's run the token and the secrets of the base repository.
func privileged(events []string) bool {
	return slices.ContainsFunc(events, func(e string) bool { return slices.Contains(privilegedEvents, e) })
}

func checkForkCode(s *subject) {
	if !s.mentions("pull_request_target", "workflow_run", "issue_comment", "pull-request/", "repository_dispatch") {
		return
	}
	f := s.workflow()
	copied := s.copiesPullRequests(f)
	for _, job := range f.jobs {
		at := s.forkCheckout(job)
		if at == nil && copied {
			at = firstCheckout(job)
		}
		if at == nil {
			continue
		}
		held, events := s.heldBy(job.id, copied)
		if len(held) == 0 {
			continue
		}
		run := s.runsCode(job, at)
		sev, what := forkCodeSeverity(held, run != nil)
		line, then := at.line, "; nothing is seen to run it, but any later step that builds or tests would"
		if run != nil {
			then = "; " + stepWords(run) + " then runs something of it"
		}
		s.report(found{
			line: line, job: job.id, step: at.label, severity: sev, about: "checkout", paths: held,
			message: fmt.Sprintf("Job %s checks out the code of a pull request on %s while it holds %s%s.", job.id, listOf(events), what, then),
			fix:     "Move the part that needs the pull request's code to a workflow on pull_request, and keep the credentials in one that runs none of it.",
		})
	}
}

// copiesPullRequests reports whether the workflow runs on branches that a bot
// makes of pull requests: pull-request/123.
func (s *subject) copiesPullRequests(f *flow) bool {
	return slices.ContainsFunc(s.strs(s.get(f.events["push"], "branches")), func(b string) bool { return strings.HasPrefix(b, "pull-request/") })
}

func firstCheckout(job *flowJob) *flowStep {
	for _, st := range job.steps {
		if strings.HasSuffix(st.action(), "/checkout") {
			return st
		}
	}
	return nil
}

// heldBy gives what a job holds when a stranger's pull request makes it run:
// secrets, identities, and a token that can write.
func (s *subject) heldBy(job string, copied bool) (held []*Path, events []string) {
	for _, p := range s.jobPaths(job) {
		var hit []string
		for _, e := range p.Reach.Events {
			if slices.Contains(privilegedEvents, e) || e == "repository_dispatch" || copied && e == "push" {
				hit = append(hit, e)
			}
		}
		switch {
		case len(hit) == 0, p.Credential.Nature == NatureIdentifier:
			continue
		case p.Credential.Kind == PlatformToken && (p.Step != "" || !writes(p.Permission)):
			continue
		case p.Credential.Kind == Ambient && p.ExposedVia != "runs-on":
			continue
		}
		held = append(held, p)
		for _, e := range hit {
			if !slices.Contains(events, e) {
				events = append(events, e)
			}
		}
	}
	return held, events
}

// forkCodeSeverity says how bad it is, and what is held in words.
func forkCodeSeverity(held []*Path, runs bool) (Severity, string) {
	trust := Protected
	var names []string
	for _, p := range held {
		switch {
		case p.Reach.Trust == ForkReachable:
			trust = ForkReachable
		case p.Reach.Trust == TrustUnknown && trust == Protected:
			trust = TrustUnknown
		}
		switch {
		case p.Credential.Kind == PlatformToken:
			names = append(names, "a job token with "+p.Permission)
		case p.Credential.Kind == Federated:
			names = append(names, "an identity token")
		case p.Credential.Kind == Ambient:
			names = append(names, "the machine "+p.Resource.Name)
		case p.Credential.Name == "*":
			names = append(names, "all secrets")
		case p.Credential.computed():
			names = append(names, "a secret whose name is computed")
		case p.Credential.Kind == ServiceConnection:
			names = append(names, "the service connection "+p.Credential.Name)
		default:
			names = append(names, p.Credential.Name)
		}
	}
	slices.Sort(names)
	sev := SeverityMedium // somebody with write access has to let it in
	switch trust {
	case ForkReachable:
		sev = SeverityCritical
	case TrustUnknown:
		sev = SeverityHigh
	}
	if !runs {
		sev = sev.shift(-1)
	}
	return sev, listOf(slices.Compact(names))
}

// quoted gives a name in quotation marks, or other words when there is none.
func quoted(name, otherwise string) string {
	if name == "" {
		return otherwise
	}
	return `"` + name + `"`
}

// stepWords names a step in a sentence.
func stepWords(st *flowStep) string {
	if st.label == "" {
		return fmt.Sprintf("the step on line %d", st.line)
	}
	return "the step " + quoted(st.label, "")
}
