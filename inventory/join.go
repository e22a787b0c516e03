package inventory

import (
	"slices"
	"strings"
)

// links are what one file says about others; join follows them when all files are read.
type links struct {
	Workflow string     `json:"workflow,omitempty"` // the name that workflow_run refers to
	Events   []string   `json:"events,omitempty"`   // its triggers
	Reusable bool       `json:"reusable,omitempty"` // it can be called
	Follows  []string   `json:"follows,omitempty"`  // workflows whose runs start it
	Calls    []callLink `json:"calls,omitempty"`    // reusable workflows of the tree that it calls
}

// callLink is a call of a reusable workflow of the same tree.
type callLink struct {
	Callee string `json:"callee"`
	// Reach is that of the calling job, by the kind of a credential.
	Reach map[Kind]Reach `json:"reach"`
	// Scopes is what the calling job's token may do.
	Scopes string `json:"scopes"`
}

// join resolves what needs more than one file: who calls a reusable workflow
// and so who can start it, and whether the workflow that a workflow_run follows
// can be started by an outsider.
func join(results []*result) {
	byName := make(map[string][]*result)
	for _, r := range results {
		if r == nil {
			continue
		}
		if r.link.Workflow != "" {
			key := repoOf(r.file.File) + "\x00" + r.link.Workflow
			byName[key] = append(byName[key], r)
		}
	}
	for _, r := range results {
		if r != nil && len(r.link.Follows) > 0 {
			joinFollowed(r, byName)
		}
	}
	joinCalls(results)
}

// joinFollowed closes a workflow_run for outsiders when none of the workflows
// that it follows can be started by one. When they are not in the tree, the
// file alone can't tell.
func joinFollowed(r *result, byName map[string][]*result) {
	reachable, missing := false, false
	for _, name := range r.link.Follows {
		found := byName[repoOf(r.file.File)+"\x00"+name]
		if len(found) == 0 {
			missing = missing || true
			continue
		}
		for _, f := range found {
			reachable = reachable || slices.ContainsFunc(f.link.Events, func(e string) bool {
				return strings.HasPrefix(e, "pull_request") || e == "issue_comment" || e == "workflow_run" || e == "issues"
			})
		}
	}
	if reachable {
		return
	}
	for i := range r.paths {
		p := &r.paths[i]
		if p.Reach.Trust != ForkReachable || !slices.Contains(p.Reach.Events, "workflow_run") {
			continue
		}
		if slices.ContainsFunc(p.Reach.Events, func(e string) bool {
			return e != "workflow_run" && (e == "pull_request_target" || e == "issue_comment" || e == "issues" || strings.HasPrefix(e, "discussion") ||
				strings.HasPrefix(e, "pull_request") && (p.Credential.Kind == PlatformToken || p.Credential.Kind == Ambient))
		}) {
			continue
		}
		if missing && looksLikeCheck(r.link.Follows) {
			continue
		}
		p.Reach.Trust = Protected
		if missing {
			p.Reach.Trust = TrustUnknown
		}
	}
}

// looksLikeCheck reports whether the names of followed workflows say that they run on pull requests.
func looksLikeCheck(names []string) bool {
	for _, n := range names {
		for _, tok := range nameTokens(n) {
			switch tok {
			case "CI", "PR", "TEST", "TESTS", "BUILD", "LINT", "CHECK", "CHECKS", "PULL", "VERIFY", "UNIT", "INTEGRATION", "E2E", "COVERAGE", "PREVIEW":
				return true
			}
		}
	}
	return false
}

// joinCalls gives the paths of a reusable workflow the reach of its callers, and
// of theirs where they are themselves called. A workflow that has other triggers
// too keeps the wider of the two.
func joinCalls(results []*result) {
	g := callGraph{callers: make(map[string][]caller), known: make(map[calledAs]*called)}
	for _, r := range results {
		if r == nil {
			continue
		}
		for _, c := range r.link.Calls {
			g.callers[c.Callee] = append(g.callers[c.Callee], caller{r.file.File, c})
		}
	}
	for _, r := range results {
		if r == nil || !r.link.Reusable || len(g.callers[r.file.File]) == 0 {
			continue
		}
		for i := range r.paths {
			p := &r.paths[i]
			by := g.of(r.file.File, p.Credential.Kind)
			reach, ok := by.settle(p.Reach)
			if !ok {
				continue
			}
			p.Reach = reach
			if p.Permission == inheritedScopes && len(by.scopes) == 1 {
				p.Permission = by.scopes[0]
			}
		}
	}
}

// callGraph knows who calls a workflow.
type callGraph struct {
	callers map[string][]caller
	known   map[calledAs]*called
}

// caller is a call with the workflow that it stands in.
type caller struct {
	file string
	callLink
}

// calledAs is a workflow, asked about one kind of credential.
type calledAs struct {
	file string
	kind Kind
}

// called is what all callers of a workflow give it together.
type called struct {
	trust  Trust
	events []string
	scopes []string
}

// of asks the callers of a workflow, and theirs. A circle of calls can't run; nothing is known of it.
func (g *callGraph) of(file string, kind Kind) *called {
	key := calledAs{file, kind}
	if c := g.known[key]; c != nil {
		return c
	}
	out := &called{trust: TrustUnknown}
	g.known[key] = out
	trust := Protected
	var events, scopes []string
	for _, c := range g.callers[file] {
		reach, above := c.Reach[kind], []string{c.Scopes}
		if len(g.callers[c.file]) > 0 {
			by := g.of(c.file, kind)
			reach, _ = by.settle(reach)
			if c.Scopes == inheritedScopes && len(by.scopes) > 0 {
				above = by.scopes
			}
		}
		switch {
		case reach.Trust == ForkReachable:
			trust = ForkReachable
		case reach.Trust == TrustUnknown && trust == Protected:
			trust = TrustUnknown
		}
		events, scopes = union(events, reach.Events), union(scopes, above)
	}
	out.trust, out.events, out.scopes = trust, events, scopes
	return out
}

// settle gives a reach that the callers decide; ok is false when it isn't theirs to decide, or they don't tell.
func (c *called) settle(r Reach) (Reach, bool) {
	if c.trust == TrustUnknown || r.Trust != TrustUnknown || !slices.Contains(r.Events, "workflow_call") {
		return r, false
	}
	r.Trust = c.trust
	own := slices.DeleteFunc(slices.Clone(r.Events), func(e string) bool { return e == "workflow_call" })
	r.Events = union(own, c.events)
	return r, true
}

// union appends what a list doesn't have yet.
func union(list, more []string) []string {
	for _, m := range more {
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	return list
}
