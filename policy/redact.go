package policy

import "strings"

// One answer for outsiders: what a refusal tells the job is about the job. A
// policy can hold the ways of several tenants, and its text names them. So:
//
//   - A way that fails because the job is another tenant's is for somebody else:
//     it is neither told nor counted, unless there is no other.
//   - Where the name of a repository, subject or workflow is wanted, names of
//     another owner than the job's are left out.
//   - Collections in data.json are named, never listed.
//
// The log has everything.

// tenantPaths are compared to say whose job or resource it is.
var tenantPaths = map[string]bool{"identity.tenant": true, "identity.owner_id": true, "resource.tenant": true}

// ownedPaths are names that begin with their owner.
var ownedPaths = map[string]bool{"identity.repository": true, "identity.subject": true, "identity.workflow": true, "identity.job_workflow": true}

// redact sets what of f the job may read.
func (x *explainer) redact(f *finding, o operand, w want, say func(string) string) {
	if w.shuns && (tenantPaths[o.path] || ownedPaths[o.path]) {
		f.publicWanted = "another"
		f.public = say(f.publicWanted)
		return
	}
	if !w.matches || !o.fromInput || len(w.items) == 0 {
		return
	}
	switch {
	case tenantPaths[o.path]:
		f.foreign = true
		f.publicWanted = another(w)
		f.public = say(f.publicWanted)
	case ownedPaths[o.path]:
		var mine []string
		for _, item := range w.items {
			if x.sameOwner(o, item) {
				mine = append(mine, item)
			}
		}
		switch {
		case len(mine) == len(w.items):
			return
		case len(mine) == 0:
			f.foreign = true
			f.publicWanted = another(w)
		case w.does:
			f.publicWanted = verbOf(w.text) + " " + quote(mine[0], 60)
		case len(mine) == 1:
			f.publicWanted = mine[0]
		default:
			f.publicWanted = "one of " + strings.Join(mine, ", ")
		}
		f.public = say(f.publicWanted)
	}
}

// another is what is wanted, without saying what.
func another(w want) string {
	if w.does {
		return verbOf(w.text) + " something else"
	}
	return "another"
}

// verbOf is "to start with" of `to start with "acme/"`.
func verbOf(text string) string {
	verb, _, _ := strings.Cut(text, ` "`)
	verb, _, _ = strings.Cut(verb, " [")
	return verb
}

// sameOwner reports whether a name that the policy has begins with the owner
// that the job's own value begins with. A name without an owner is nobody's.
func (x *explainer) sameOwner(o operand, item string) bool {
	owner, _, named := strings.Cut(strings.TrimLeft(item, `^\A(`), "/")
	if !named {
		return true
	}
	for _, v := range o.values {
		own, _, _ := strings.Cut(strings.Trim(v.Value.String(), `"`), "/")
		if own == owner {
			return true
		}
	}
	return false
}

// ownWays leaves out the ways that are for somebody else. If all are, one is
// told, without its other conditions: they are somebody else's too.
func ownWays(ways []way) []way {
	var own []way
	for _, w := range ways {
		if !w.foreign {
			own = append(own, w)
		}
	}
	if len(own) > 0 || len(ways) == 0 {
		return own
	}
	w := ways[0]
	for _, f := range w.failed {
		if f.foreign {
			w.failed = []finding{f}
			break
		}
	}
	w.title = ""
	return []way{w}
}
