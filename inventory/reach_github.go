package inventory

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Reach on GitHub and Forgejo.
//
// An event is open when somebody without write access can cause it and the
// job then runs with its secrets; it is open for reading when the platform
// withholds secrets and identity tokens from forks but still starts the job
// with a read-only token (pull_request). A job's `if`, its needs, and the
// types and branches of an event may take the outsider out.

type openness uint8

const (
	closed   openness = iota // needs write access
	readOnly                 // an outsider can start it, without secrets
	open                     // an outsider can start it, with secrets
	elsewhen                 // decided by a caller (workflow_call)
)

// ghEvent is one trigger of a workflow.
type ghEvent struct {
	name string
	node *node // its settings, nil when it has none
	open openness
}

// maintainersDo are the activities of an event that need rights in the repository.
var maintainersDo = set("labeled", "unlabeled", "assigned", "unassigned", "milestoned", "demilestoned", "locked", "unlocked", "pinned", "unpinned", "transferred", "enqueued", "dequeued", "auto_merge_enabled", "auto_merge_disabled")

// eventOpenness tells who can cause an event, before conditions.
func (w *ghWorkflow) eventOpenness(name string, n *node) openness {
	types := w.r.strs(w.r.get(n, "types"))
	maintainers := len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return !maintainersDo[t] })
	switch name {
	case "pull_request_target", "issue_comment", "issues", "discussion", "discussion_comment", "watch", "fork", "gollum", "pull_request_comment":
		if maintainers {
			return closed
		}
		return open
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		if maintainers {
			return closed
		}
		return readOnly
	case "workflow_run":
		return w.workflowRun(n)
	case "workflow_call":
		return elsewhen
	}
	return closed
}

var branchWildcard = regexp.MustCompile(`[*?\[\]+]`)

// workflowRun tells whether a workflow_run follows a run that an outsider can start. A filter
// of plain branches keeps forks out by the file; otherwise the followed
// workflow decides, which join looks up by its name.
func (w *ghWorkflow) workflowRun(n *node) openness {
	if b := w.r.strs(w.r.get(n, "branches")); len(b) > 0 && !slices.ContainsFunc(b, branchWildcard.MatchString) {
		return closed
	}
	w.r.link.Follows = w.r.strs(w.r.get(n, "workflows"))
	return open
}

// guardWords make a needed job or a step a check of who started the run.
var guardWords = regexp.MustCompile(`(?i)check[-_]run|authori[sz]e|check[-_]perm|permission[-_]check|check[-_]user[-_]permission|check[-_]actor|repo[-_]permission|is[-_]?org[-_]?member|check[-_]membership|safe[-_]to[-_]test|is[-_]collaborator`)

// guardOutput matches outputs of a job or a step that say whether who started the run may.
var guardOutput = regexp.MustCompile(`(?i)^(needs|steps)\..*\.outputs\.[\w-]*(maintainer|member|collaborator|authori[sz]ed|trusted|permission|permitted|has[-_]?access|is[-_]?allowed)[\w-]*$`)

// outsiderNames gives what an outsider's run has in the names that guards look at.
func (w *ghWorkflow) outsiderNames(event string) lookup {
	return func(p string) (string, bool) {
		switch strings.ToLower(p) {
		case "github.event_name", "gitea.event_name", "forge.event_name", "forgejo.event_name":
			return event, event != "workflow_call"
		case "github.ref", "github.ref_name":
			if event == "pull_request" {
				return "refs/pull/0/merge", true
			}
		case "github.ref_type":
			return "branch", true
		case "github.event.pull_request.merged":
			return "false", event != "workflow_call"
		case "github.event.pull_request.head.repo.fork":
			return "true", strings.HasPrefix(event, "pull_request")
		case "github.event.workflow_run.event":
			return "pull_request", true
		}
		return "", false
	}
}

// insiderNames gives what is fixed for any run of an event.
func insiderNames(event string) lookup {
	return func(p string) (string, bool) {
		switch strings.ToLower(p) {
		case "github.event_name", "gitea.event_name", "forge.event_name", "forgejo.event_name":
			return event, event != "workflow_call"
		case "github.ref", "github.ref_name":
			return "refs/pull/0/merge", event == "pull_request"
		}
		return "", false
	}
}

// outsiderHook decides the forms of guards for an outsider: comparisons of the
// head repository with this one, of an actor with a name, of an association, and labels.
func outsiderHook(event string) func(*expr) truth {
	return func(e *expr) truth {
		switch e.op {
		case opEq, opNe:
			l, r := strings.ToLower(e.args[0].path()), strings.ToLower(e.args[1].path())
			for _, p := range []string{l, r} {
				if outsiderDiffers(p, event) {
					return truthOf(e.op == opNe)
				}
			}
			for i, p := range []string{l, r} {
				if asked := e.args[1-i]; p == "github.event.action" && asked.op == opString && maintainersDo[asked.name] {
					return truthOf(e.op == opNe)
				}
				if asked := e.args[1-i]; guardOutput.MatchString(p) && asked.op == opString && event != "workflow_call" {
					return truthOf((strings.EqualFold(asked.name, "true")) != (e.op == opEq))
				}
			}
		case opCall:
			if e.name == "contains" || e.name == "startswith" {
				for _, a := range e.args {
					p := strings.ToLower(a.path())
					if strings.HasSuffix(p, ".author_association") || strings.HasSuffix(p, "labels.*.name") || outsiderDiffers(p, event) && p != "github.ref" {
						return no
					}
				}
				if len(e.args) == 2 && e.name == "startswith" && strings.EqualFold(e.args[0].path(), "github.ref") && strings.HasPrefix(e.args[1].name, "refs/tags") && event != "workflow_call" {
					return no
				}
			}
		}
		return maybe
	}
}

// outsiderDiffers reports whether a name has another value in an outsider's run than any that a guard would ask for.
func outsiderDiffers(p, event string) bool {
	if event == "workflow_call" {
		return false
	}
	switch {
	case strings.HasPrefix(p, "github.event.pull_request.head.repo.") && !strings.HasSuffix(p, ".fork"),
		strings.HasPrefix(p, "github.event.pull_request.head.user."),
		strings.HasPrefix(p, "github.event.workflow_run.head_repository."),
		strings.HasPrefix(p, "github.event.workflow_run.actor."), strings.HasPrefix(p, "github.event.workflow_run.triggering_actor."),
		p == "github.actor", p == "github.triggering_actor", p == "github.actor_id",
		strings.HasPrefix(p, "github.event.sender."), strings.HasSuffix(p, ".user.login") && strings.HasPrefix(p, "github.event."),
		strings.HasSuffix(p, ".author_association"), p == "github.event.label.name":
		return true
	}
	return false
}

// condition evaluates an `if` for an event: can it run at all, and can an outsider make it run?
func (w *ghWorkflow) condition(cond *expr, event string) (any, outsider truth) {
	if cond == nil {
		return yes, yes
	}
	return cond.eval(insiderNames(event), nil).truth, cond.eval(w.outsiderNames(event), outsiderHook(event)).truth
}

// parseCondition reads the `if` of a job or a step; nil when there is none.
func (v *view) parseCondition(n *node) *expr {
	text := strings.TrimSpace(v.str(n))
	if text == "" {
		return nil
	}
	if p := placeholders(text); len(p) == 1 && p[0].start == 0 && p[0].end == len(text) {
		text = p[0].body
	} else if len(p) > 0 {
		text = strings.NewReplacer("${{", "(", "}}", ")").Replace(text)
	}
	return parseExpr(text)
}

// runsAnyway reports whether a condition makes a job run although one that it needs was skipped:
// failure() doesn't, for a skipped job is none that failed.
func runsAnyway(cond *expr) bool {
	found := false
	cond.each(func(x *expr) bool {
		if x.op == opCall && (x.name == "always" || x.name == "cancelled") {
			found = true
		}
		return true
	})
	return found
}

// exposure is who can start a job or a step, per event.
type exposure struct {
	events []ghEvent // those on which it can run; open is what is left for an outsider
	// outside is set when an environment or an external check, which the file doesn't show, may keep outsiders out.
	outside bool
	env     string
}

// narrow applies a further condition.
func (x exposure) narrow(w *ghWorkflow, cond *expr) exposure {
	if cond == nil {
		return x
	}
	out := exposure{outside: x.outside, env: x.env}
	for _, e := range x.events {
		runs, outsider := w.condition(cond, e.name)
		if runs == no {
			continue
		}
		if outsider == no && e.open != elsewhen {
			e.open = closed
		}
		out.events = append(out.events, e)
	}
	return out
}

// never reports whether no event can start it.
func (x exposure) never() bool { return len(x.events) == 0 }

// reach gives the answer for a kind of credential.
func (x exposure) reach(kind Kind) Reach {
	r := Reach{Trust: Protected, Environment: x.env}
	called := false
	for _, e := range x.events {
		r.Events = append(r.Events, e.name)
		switch {
		case e.open == open, e.open == readOnly && (kind == PlatformToken || kind == Ambient):
			if x.outside && e.open == open {
				if r.Trust == Protected {
					r.Trust = TrustUnknown
				}
			} else {
				r.Trust = ForkReachable
			}
		case e.open == elsewhen:
			called = true
		}
	}
	if called && r.Trust == Protected {
		r.Trust = TrustUnknown
	}
	return r
}

// byKind gives the answers for all kinds.
func (x exposure) byKind() map[Kind]Reach {
	out := make(map[Kind]Reach, 5)
	for _, k := range []Kind{StaticSecret, Federated, PlatformToken, Ambient, ServiceConnection} {
		out[k] = x.reach(k)
	}
	return out
}

// jobExposure gives who can start a job: its own condition, then those of the jobs that it needs.
func (w *ghWorkflow) jobExposure(id string, depth int) exposure {
	if x, ok := w.exposures[id]; ok {
		return x
	}
	job := w.byID[id]
	w.exposures[id] = exposure{events: w.events} // for circles of needs
	cond := w.r.parseCondition(w.r.get(job, "if"))
	x := exposure{events: w.events}.narrow(w, cond)
	if env := w.r.get(job, "environment"); env != nil {
		x.env = firstOf(w.r.str(env), w.r.str(w.r.get(env, "name")))
		x.outside = x.env != ""
	}
	if cond == nil || !runsAnyway(cond) {
		for _, need := range w.r.strs(w.r.get(job, "needs")) {
			if depth > 30 || w.byID[need] == nil {
				continue
			}
			n := w.jobExposure(need, depth+1)
			if asks(cond, need) {
				x.events = intersect(x.events, n.events) // its condition says for whom
				x.outside = x.outside || n.outside
				continue
			}
			x.outside = x.outside || n.outside || guardWords.MatchString(need) || guardWords.MatchString(path.Base(w.r.str(w.r.get(w.byID[need], "uses"))))
			x.events = intersect(x.events, n.events)
		}
	}
	w.exposures[id] = x
	return x
}

// asks reports whether a condition looks at what a guard said.
func asks(cond *expr, need string) bool {
	found := false
	cond.each(func(x *expr) bool {
		if x.op == opProp || x.op == opIndex {
			p := x.path()
			found = found || strings.HasPrefix(p, "needs."+need+".") && guardOutput.MatchString(p)
		}
		return true
	})
	return found
}

// intersect keeps the events that both have, with the smaller openness.
func intersect(a, b []ghEvent) []ghEvent {
	var out []ghEvent
	for _, e := range a {
		for _, f := range b {
			if e.name == f.name {
				if f.open == closed && e.open != elsewhen {
					e.open = closed
				}
				out = append(out, e)
				break
			}
		}
	}
	return out
}
