package inventory

import (
	"slices"
	"strings"
)

// links are what one file says about others; join follows them when all files are read.
type links struct {
	workflow string     // the name that workflow_run refers to
	events   []string   // its triggers
	reusable bool       // it can be called
	follows  []string   // workflows whose runs start it
	calls    []callLink // local reusable workflows that it calls
}

// callLink is a call of a reusable workflow of the same tree.
type callLink struct {
	job, callee string
	expo        exposure
	scopes      string
	mints       truth
}

// join resolves what needs more than one file: who calls a reusable workflow
// and so who can start it, and whether the workflow that a workflow_run follows
// can be started by an outsider.
func join(_ *tree, results []*result) {
	byFile := make(map[string]*result)
	byName := make(map[string][]*result)
	for _, r := range results {
		if r == nil {
			continue
		}
		byFile[r.file.File] = r
		if r.link.workflow != "" {
			key := repoOf(r.file.File) + "\x00" + r.link.workflow
			byName[key] = append(byName[key], r)
		}
	}
	for _, r := range results {
		if r != nil && len(r.link.follows) > 0 {
			joinFollowed(r, byName)
		}
	}
	joinCalls(results, byFile)
}

// joinFollowed closes a workflow_run for outsiders when none of the workflows
// that it follows can be started by one. When they are not in the tree, the
// file alone can't tell.
func joinFollowed(r *result, byName map[string][]*result) {
	reachable, missing := false, false
	for _, name := range r.link.follows {
		found := byName[repoOf(r.file.File)+"\x00"+name]
		if len(found) == 0 {
			missing = missing || true
			continue
		}
		for _, f := range found {
			reachable = reachable || slices.ContainsFunc(f.link.events, func(e string) bool {
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
		if missing && looksLikeCheck(r.link.follows) {
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

// joinCalls gives the paths of a reusable workflow the reach of its callers.
// A workflow that has other triggers too keeps the wider of the two.
func joinCalls(results []*result, byFile map[string]*result) {
	callers := make(map[string][]callLink)
	for _, r := range results {
		if r == nil {
			continue
		}
		for _, c := range r.link.calls {
			callers[c.callee] = append(callers[c.callee], c)
		}
	}
	// A caller may itself be called; a few rounds settle chains, circles end with the rounds.
	for range 4 {
		for callee, calls := range callers {
			r := byFile[callee]
			if r == nil || !r.link.reusable {
				continue
			}
			for i := range r.paths {
				joinReach(&r.paths[i], calls)
			}
		}
	}
}

// joinReach widens or settles the reach of one path of a called workflow.
func joinReach(p *Path, calls []callLink) {
	if p.Reach.Trust != TrustUnknown || !slices.Contains(p.Reach.Events, "workflow_call") {
		return
	}
	trust := Protected
	events := slices.DeleteFunc(slices.Clone(p.Reach.Events), func(e string) bool { return e == "workflow_call" })
	var scopes []string
	for _, c := range calls {
		reach := c.expo.reach(p.Credential.Kind)
		switch reach.Trust {
		case ForkReachable:
			trust = ForkReachable
		case TrustUnknown:
			if trust == Protected {
				trust = TrustUnknown
			}
		}
		for _, e := range reach.Events {
			if !slices.Contains(events, e) {
				events = append(events, e)
			}
		}
		if !slices.Contains(scopes, c.scopes) {
			scopes = append(scopes, c.scopes)
		}
	}
	if trust == TrustUnknown {
		return
	}
	p.Reach.Trust, p.Reach.Events = trust, events
	if p.Permission == "inherited from the caller" && len(scopes) == 1 {
		p.Permission = scopes[0]
	}
}
