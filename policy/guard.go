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
// read both ways is a guard. Where a policy hands on input or a whole part of it
// (to a function, to a built-in, under a key that it computes), what is read of
// it is not followed: then every name in the policy's text may be what is read.

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
	whole map[string]guardWays // parts of the input that are read as one: "context", "" for all
	alias aliasSet             // of the rule that is walked
}

// guardsOf lists the input paths that a package's decision reads in a place
// where their absence would help.
func (p *program) guardsOf(pkg ast.Ref) []string {
	g := &guardFinder{prog: p, seen: map[*ast.Rule]guardWays{}, paths: map[string]bool{}, whole: map[string]guardWays{}}
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("allow"))), helps, false)
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("deny"))), harms, false)
	g.rules(p.sourceRules(pkg.Append(ast.StringTerm("limits"))), helps, true)
	g.spread()
	var out []string
	for path := range g.paths {
		out = append(out, path)
	}
	slices.Sort(out)
	return out
}

// spread makes guards of what may be read of a part that is read as one: the
// part itself where its members are counted or searched, and each name that the
// policy's text holds, in a reference or as a text.
func (g *guardFinder) spread() {
	if len(g.whole) == 0 {
		return
	}
	names := map[string]bool{}
	for r := range g.seen {
		ast.WalkTerms(r, func(t *ast.Term) bool {
			if s, ok := t.Value.(ast.String); ok && len(s) <= 64 && s != "" && !strings.Contains(string(s), ".") {
				names[string(s)] = true
			}
			return false
		})
	}
	for part, ways := range g.whole {
		parts := []string{part}
		if part == "" {
			parts = []string{"context", "identity"}
		}
		for _, part := range parts {
			if ways&harms != 0 {
				g.paths[part] = true
			}
			for name := range names {
				g.paths[part+"."+name] = true
			}
		}
	}
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
	defer func(outer aliasSet) { g.alias = outer }(g.alias)
	g.alias = aliases(r)
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
		g.term(t.Domain, both) // of fewer members more is true
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
	looked := op == "object.get" && g.lookup(t)
	for i, arg := range t[1:] {
		ref, isRef := arg.Value.(ast.Ref)
		switch {
		case i == 0 && looked:
		case isRef && (op == "equal" || op == "eq") && len(t) == 3 && isTrue(t[2-i]):
			g.ref(ref, ways, false)
		case isRef && op == "internal.member_2" && i == 1:
			g.ref(ref, ways, false)
		default:
			g.term(arg, ways)
		}
	}
}

// lookup: object.get with a key, or a list of keys, that the text names reads
// one value, and has an answer without it.
func (g *guardFinder) lookup(t []*ast.Term) bool {
	if len(t) != 4 {
		return false
	}
	ref, ok := t[1].Value.(ast.Ref)
	if !ok || !ref[0].Equal(ast.InputRootDocument) || !ast.IsConstant(t[2].Value) || len(constantPath(ref[1:])) != len(ref)-1 {
		return false
	}
	g.read(append(constantPath(ref[1:]), constants(t[2])...), harms)
	return true
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
		if !g.alias.definitions[ref[0]] { // else its uses say what is read
			g.read(constantPath(ref[1:]), ways)
		}
		return
	}
	if v, ok := ref[0].Value.(ast.Var); ok && g.alias.paths[v] != "" {
		g.read(append(strings.Split(g.alias.paths[v], "."), constantPath(ref[1:])...), ways)
		return
	}
	rules, rest := g.prog.rulesAt(ref)
	if len(rules) == 0 {
		g.computed(ref)
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

// computed walks every rule that a reference under a computed key may name, as
// data.checks[name].failed, and those of a package that is read as one.
func (g *guardFinder) computed(ref ast.Ref) {
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return
	}
	for _, r := range g.prog.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true}) {
		g.rules(g.prog.sourceRules(r.Ref().GroundPrefix()), both, true)
	}
}

func (g *guardFinder) read(path []string, ways guardWays) {
	switch {
	case len(path) < 2:
		g.whole[strings.Join(path, ".")] |= ways
	case ways&harms != 0:
		g.paths[strings.Join(path[:2], ".")] = true
	}
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
