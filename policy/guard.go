package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

// Absence never widens anything. In most places that comes by itself: a
// condition on something absent is undefined and fails. It doesn't where the
// failure of a condition helps: under "not", in deny, before an else, in a
// comprehension whose members are counted. The values that a policy reads in
// such a place are its guards. A request that would be allowed while one of
// them is absent is refused.
//
// This is worked out from the policy's text, on the safe side: a value that is
// read both ways is a guard.

// guardWays is the two ways in which the truth of a condition can work.
type guardWays uint8

const (
	helps guardWays = 1 << iota // it is needed to be allowed
	harms                       // it keeps from being allowed
	both  = helps | harms
)

func (w guardWays) turned() guardWays {
	var out guardWays
	if w&helps != 0 {
		out |= harms
	}
	if w&harms != 0 {
		out |= helps
	}
	return out
}

// guardFinder walks the rules that a decision uses, as they were written.
type guardFinder struct {
	prog  *program
	seen  map[*ast.Rule]guardWays
	paths map[string]bool
}

// guardsOf lists the input paths that a package's decision reads in a place
// where their absence would help.
func (p *program) guardsOf(pkg ast.Ref) []string {
	g := &guardFinder{prog: p, seen: map[*ast.Rule]guardWays{}, paths: map[string]bool{}}
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("allow"))), helps, false)
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("deny"))), harms, false)
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("limits"))), helps, true)
	var out []string
	for path := range g.paths {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// rules walks all definitions of a rule. value: the rule's value is used, not
// only whether it is true.
func (g *guardFinder) rules(rules []*ast.Rule, ways guardWays, value bool) {
	falls := slices.ContainsFunc(rules, func(r *ast.Rule) bool {
		// Without any body that holds there is a value all the same.
		return r.Default && (value || r.Head.Value == nil || !isFalse(r.Head.Value))
	})
	for _, r := range rules {
		for ; r != nil; r = r.Else {
			w := ways
			switch {
			case falls || r.Else != nil || value && len(rules) > 1:
				w = both
			case r.Head.Value != nil && isFalse(r.Head.Value):
				w = ways.turned()
			}
			g.rule(r, w)
		}
	}
}

func (g *guardFinder) rule(r *ast.Rule, ways guardWays) {
	if g.seen[r]&ways == ways {
		return
	}
	g.seen[r] |= ways
	g.body(r.Body, ways)
	for _, t := range []*ast.Term{r.Head.Value, r.Head.Key} {
		if t != nil && !ast.IsConstant(t.Value) {
			g.term(t, ways)
		}
	}
}

func (g *guardFinder) body(b ast.Body, ways guardWays) {
	for _, e := range b {
		g.expr(e, ways)
	}
}

func (g *guardFinder) expr(e *ast.Expr, ways guardWays) {
	if e.Negated {
		ways = ways.turned()
	}
	for _, w := range e.With {
		g.term(w.Value, both)
	}
	switch t := e.Terms.(type) {
	case *ast.Term:
		if ref, ok := t.Value.(ast.Ref); ok {
			g.ref(ref, ways, false)
			return
		}
		g.term(t, ways)
	case []*ast.Term:
		g.call(t, ways)
	case *ast.Every:
		g.term(t.Domain, ways)
		g.body(t.Body, ways)
	case *ast.Not:
		g.body(t.Body, ways.turned())
	case *ast.LogicalAnd:
		g.body(t.Lhs, ways)
		g.body(t.Rhs, ways)
	case *ast.LogicalOr:
		g.body(t.Lhs, ways)
		g.body(t.Rhs, ways)
	}
}

// call: an argument without a value leaves the call without one, so it works
// as the call does. x == true asks only whether x is true.
func (g *guardFinder) call(t []*ast.Term, ways guardWays) {
	op := t[0].Value.String()
	if ref, ok := t[0].Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) {
		rules, _ := g.prog.rulesAt(ref)
		g.rules(rules, ways, len(rules) > 0 && rules[0].Head.Value != nil && !isTrue(rules[0].Head.Value))
	}
	for i, arg := range t[1:] {
		ref, isRef := arg.Value.(ast.Ref)
		switch {
		case isRef && (op == "equal" || op == "eq") && len(t) == 3 && isTrue(t[2-i]):
			g.ref(ref, ways, false)
		case isRef && op == "internal.member_2" && i == 1:
			g.ref(ref, ways, false)
		default:
			g.term(arg, ways)
		}
	}
	if op == "object.get" && len(t) == 4 {
		if ref, ok := t[1].Value.(ast.Ref); ok && ref[0].Equal(ast.InputRootDocument) {
			for _, key := range constants(t[2]) {
				g.read(append(constantPath(ref[1:]), key), harms)
			}
		}
	}
}

func isTrue(t *ast.Term) bool {
	b, ok := t.Value.(ast.Boolean)
	return ok && bool(b)
}

// term walks a value. Whether the members of a comprehension help or harm
// depends on what is done with them, so they do both.
func (g *guardFinder) term(t *ast.Term, ways guardWays) {
	switch v := t.Value.(type) {
	case ast.Ref:
		g.ref(v, ways, true)
	case ast.Call:
		g.call(v, ways)
	case *ast.ArrayComprehension:
		g.body(v.Body, both)
		g.term(v.Term, both)
	case *ast.SetComprehension:
		g.body(v.Body, both)
		g.term(v.Term, both)
	case *ast.ObjectComprehension:
		g.body(v.Body, both)
		g.term(v.Key, both)
		g.term(v.Value, both)
	case *ast.Array:
		v.Foreach(func(e *ast.Term) { g.term(e, ways) })
	case ast.Set:
		v.Foreach(func(e *ast.Term) { g.term(e, ways) })
	case ast.Object:
		v.Foreach(func(k, e *ast.Term) { g.term(k, ways); g.term(e, ways) })
	}
}

// ref: a path of the input, or rules. value: the rule's value is used.
func (g *guardFinder) ref(ref ast.Ref, ways guardWays, value bool) {
	for _, t := range ref[1:] {
		g.term(t, ways)
	}
	if ref[0].Equal(ast.InputRootDocument) {
		g.read(constantPath(ref[1:]), ways)
		return
	}
	rules, rest := g.prog.rulesAt(ref)
	if len(rules) == 0 {
		return
	}
	if rules[0].Head.RuleKind() == ast.MultiValue {
		// The whole set as a value can be counted, or searched for what it lacks.
		if value && len(rest) == 0 {
			ways = both
		}
		g.rules(rules, ways, false)
		return
	}
	g.rules(rules, ways, value || len(rest) > 0)
}

func (g *guardFinder) read(path []string, ways guardWays) {
	if ways&harms == 0 || len(path) < 2 {
		return
	}
	g.paths[strings.Join(path[:2], ".")] = true
}

// mustBeKnown are the values whose absence means "nobody knows", never "no".
// Others, as the tag of a job that runs on a branch, are rightly absent; they
// guard only when a source was asked for them and failed.
var mustBeKnown = words2set(`context.freeze context.on_call context.ticket_approved context.commit_signed context.commit_on_branch
	identity.on_call identity.pull_request identity.protected`)

// unguarded lists the guards that are absent from an input.
func (p *Policy) unguarded(input document.Value, absent []facts.Absence) []facts.Absence {
	var out []facts.Absence
	for _, path := range p.guards {
		missing := mustBeKnown[path] && input.At(strings.Split(path, ".")...).IsAbsent()
		for _, a := range absent {
			missing = missing || overlap(a.Key, path)
		}
		if missing {
			out = append(out, facts.Absence{Key: path})
		}
	}
	return out
}
