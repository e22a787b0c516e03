package policy

import (
	"errors"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// scope is what the words of an explanation need to know of a body: where its
// variables come from.
type scope struct {
	rule *ast.Rule
	// args describe a function's parameters in the words of its caller.
	args map[ast.Var]operand
	// origin is what a variable was set to in this body.
	origin map[ast.Var]*ast.Term
	// part is what a variable was taken out of by a pattern: [a, b] = split(x, "/").
	part  map[ast.Var]*ast.Term
	chain []string
}

func newScope(rule *ast.Rule, chain []string) *scope {
	sc := &scope{rule: rule, args: map[ast.Var]operand{}, origin: map[ast.Var]*ast.Term{}, part: map[ast.Var]*ast.Term{}, chain: chain}
	sc.learn(rule.Body)
	return sc
}

// learn notes what each variable of a body is set to.
func (sc *scope) learn(body ast.Body) {
	for _, e := range body {
		if e.Negated || !e.IsEquality() {
			continue
		}
		a, b := e.Operand(0), e.Operand(1)
		if v, ok := a.Value.(ast.Var); ok {
			sc.set(v, b)
		} else if v, ok := b.Value.(ast.Var); ok {
			sc.set(v, a)
		} else {
			sc.take(a, b)
			sc.take(b, a)
		}
	}
}

func (sc *scope) set(v ast.Var, t *ast.Term) {
	if _, known := sc.origin[v]; !known && !sc.leadsTo(t, v, 0) {
		sc.origin[v] = t
	}
}

// leadsTo reports whether a term rests on a variable, by way of what the
// variables in it were set to. A variable never comes from itself.
func (sc *scope) leadsTo(t *ast.Term, v ast.Var, depth int) bool {
	for u := range variables(t) {
		if u == v || depth > 50 {
			return true
		}
		for _, from := range []*ast.Term{sc.origin[u], sc.part[u]} {
			if from != nil && sc.leadsTo(from, v, depth+1) {
				return true
			}
		}
	}
	return false
}

func (sc *scope) take(pattern, from *ast.Term) {
	switch pattern.Value.(type) {
	case *ast.Array, ast.Object:
		ast.WalkVars(pattern, func(v ast.Var) bool {
			if sc.part[v] == nil && !sc.leadsTo(from, v, 0) {
				sc.part[v] = from
			}
			return false
		})
	}
}

// body evaluates every condition of a body. It gives those that failed, and the
// values of the variables for which all others hold. A condition whose variables
// got no value, because the one that sets them failed, is left out: it can't be
// told whether it would hold.
func (x *explainer) body(body ast.Body, sc *scope, envs []env, depth int) (failed []finding, out []env) {
	pending := slices.Clone([]*ast.Expr(body))
	for len(pending) > 0 {
		var later []*ast.Expr
		for _, cond := range pending {
			if _, decl := cond.Terms.(*ast.SomeDecl); decl {
				continue
			}
			next, err := x.each(cond, envs)
			switch {
			case errors.Is(err, errUnbound):
				later = append(later, cond)
			case errors.Is(err, errBudget):
				return failed, envs
			case err != nil:
				failed = append(failed, x.erroneous(cond, sc, err))
			case len(next) == 0:
				failed = append(failed, x.failing(cond, sc, envs, depth)...)
			default:
				envs = next
			}
		}
		if len(later) == len(pending) {
			break
		}
		pending = later
	}
	return failed, envs
}

// each evaluates a condition under every combination of variables.
func (x *explainer) each(cond *ast.Expr, envs []env) ([]env, error) {
	var out []env
	for _, e := range envs {
		more, err := x.solutions(cond, e)
		if err != nil {
			return nil, err
		}
		if out = append(out, more...); len(out) > explainEnvs {
			return out[:explainEnvs], nil
		}
	}
	return out, nil
}

// waysOf evaluates a rule and the rules of its else chain, each a way for the
// rule to be true. A rule that decides "false" here is told by what made it
// decide, and ends the chain.
func (x *explainer) waysOf(rule *ast.Rule, args []operand, chain []string, depth int) []way {
	var out []way
	for r := rule; r != nil; r = r.Else {
		sc := newScope(r, chain)
		w := way{rule: r}
		envs := []env{{}}
		if len(r.Head.Args) > 0 {
			w.failed, envs = x.bind(r, args, sc)
		}
		if len(w.failed) == 0 {
			var failed []finding
			failed, envs = x.body(r.Body, sc, envs, depth)
			w.failed = append(w.failed, failed...)
			w.held = len(r.Body) - len(failed)
		}
		if len(w.failed) > 0 {
			if r.Head.Value == nil || !isFalse(r.Head.Value) {
				out = append(out, w)
			}
			continue
		}
		w.failed = x.headFalse(r, sc, envs, depth)
		if len(w.failed) == 0 && !x.cut {
			w.failed = []finding{x.unexplained(r)}
		}
		return append(out, w)
	}
	return out
}

// headFalse explains a rule whose body holds and whose value is false or
// undefined: allow := input.a == 1, or allow := false if { ... }.
func (x *explainer) headFalse(r *ast.Rule, sc *scope, envs []env, depth int) []finding {
	value := r.Head.Value
	if value == nil {
		return nil
	}
	if isFalse(value) {
		return []finding{x.decidesFalse(r, sc, envs)}
	}
	cond := asCondition(value, r.Head.Location)
	if next, err := x.each(cond, envs); err != nil || len(next) > 0 {
		return nil
	}
	return x.failing(cond, sc, envs, depth)
}

// bind gives a function's parameters their values. A parameter that is a
// constant or a pattern is a condition too.
func (x *explainer) bind(r *ast.Rule, args []operand, sc *scope) ([]finding, []env) {
	e := env{}
	for i, param := range r.Head.Args {
		if i >= len(args) {
			return nil, []env{e}
		}
		arg := args[i]
		if v, ok := param.Value.(ast.Var); ok {
			sc.args[v] = arg
			if len(r.Head.Args) == 1 && len(arg.values) > 1 {
				return nil, each(v, arg.values)
			}
			if len(arg.values) > 0 {
				e[v] = arg.values[0]
			}
			continue
		}
		if len(arg.values) == 0 {
			return []finding{x.absence(arg, "", sc, r.Head.Location)}, []env{e}
		}
		pattern := ast.Equality.Expr(param, arg.values[0])
		next, err := x.solutions(pattern, e)
		if err != nil || len(next) == 0 {
			return []finding{x.compared("equal", arg, x.operand(param, sc, []env{e}), sc, r.Head.Location)}, []env{e}
		}
		e = next[0]
	}
	return nil, []env{e}
}

// each makes one combination of variables of every value.
func each(v ast.Var, values []*ast.Term) []env {
	var out []env
	for _, t := range values {
		out = append(out, env{v: t})
	}
	return out
}

// helper explains why a helper rule is not true: the conditions that failed in
// it, told as conditions of the rule that uses it.
func (x *explainer) helper(rules []*ast.Rule, args []operand, sc *scope, depth int) []finding {
	if depth >= explainDepth || len(rules) == 0 {
		return nil
	}
	name := ruleName(rules[0])
	chain := append([]string{name}, sc.chain...)
	var ways []way
	for _, r := range rules {
		if !r.Default {
			ways = append(ways, x.waysOf(r, args, chain, depth+1)...)
		}
	}
	for i := range ways {
		for j := range ways[i].failed {
			if ways[i].failed[j].chain == nil {
				ways[i].failed[j].chain = chain
			}
		}
	}
	return x.either(ways, chain)
}

// either puts alternatives into conditions of one body: a single one as it is,
// several as one condition that names them all.
func (x *explainer) either(ways []way, chain []string) []finding {
	ways = slices.DeleteFunc(ways, func(w way) bool { return len(w.failed) == 0 })
	switch len(ways) {
	case 0:
		return nil
	case 1:
		return ways[0].failed
	}
	if f, ok := merged(ways); ok {
		return []finding{f}
	}
	slices.SortStableFunc(ways, func(a, b way) int { return len(a.failed) - len(b.failed) })
	own := slices.DeleteFunc(slices.Clone(ways), isForeign)
	f := joined(ways)
	f.chain = chain
	if len(own) < len(ways) {
		if len(own) == 0 {
			f.foreign = true
		} else {
			g := joined(own)
			f.public, f.publicWanted = g.message, g.wanted
		}
	}
	return []finding{f}
}

func isForeign(w way) bool {
	return slices.ContainsFunc(w.failed, func(f finding) bool { return f.foreign })
}

// merged makes one condition of alternatives that each want another value of
// the same thing.
func merged(ways []way) (finding, bool) {
	first := ways[0].failed[0]
	var wanted, public []string
	for _, w := range ways {
		f := w.failed[0]
		if len(w.failed) != 1 || f.path == "" || f.path != first.path || f.found != first.found || f.foreign || !f.plain() || f.label() != first.label() {
			return finding{}, false
		}
		wanted = append(wanted, f.wanted)
		if f.public == "" {
			public = append(public, f.wanted)
		}
	}
	out := first
	out.wanted = "one of " + strings.Join(wanted, ", ")
	out.message = first.label() + ", policy wants " + out.wanted
	if len(public) < len(wanted) {
		out.publicWanted = "another"
		if len(public) > 0 {
			out.publicWanted = "one of " + strings.Join(public, ", ")
		}
		out.public = first.label() + ", policy wants " + out.publicWanted
	}
	return out, true
}

// plain: the condition wants one value.
func (f finding) plain() bool {
	return f.wanted != "" && strings.HasSuffix(f.message, ", policy wants "+f.wanted) && !strings.Contains(f.wanted, " ")
}

// label is the part of the message before what is wanted.
func (f finding) label() string {
	l, _, _ := strings.Cut(f.message, ", policy wants ")
	return l
}

// joined makes one condition of alternatives, told one after the other.
func joined(ways []way) finding {
	const most = 4
	var texts, wants, public []string
	changed := false
	f := finding{loc: ways[0].failed[0].loc, path: ways[0].failed[0].path, found: ways[0].failed[0].found}
	for i, w := range ways {
		if i == most {
			texts, public = append(texts, "..."), append(public, "...")
			break
		}
		var t, p, ww []string
		for _, one := range w.failed {
			t, ww = append(t, one.message), append(ww, one.wanted)
			if one.public != "" {
				changed = true
				p = append(p, one.public)
			} else {
				p = append(p, one.message)
			}
			if one.path != f.path {
				f.path, f.found = "", ""
			}
		}
		texts, public = append(texts, strings.Join(t, ", and ")), append(public, strings.Join(p, ", and "))
		wants = append(wants, strings.Join(ww, " and "))
	}
	f.message, f.wanted = strings.Join(texts, "; or "), strings.Join(wants, ", or ")
	if changed {
		f.public = strings.Join(public, "; or ")
	}
	return f
}

// ruleName is what a rule is called in the text, without its package.
func ruleName(r *ast.Rule) string {
	if ref := r.Head.Ref(); len(ref) > 0 {
		var parts []string
		for _, t := range ref {
			switch v := t.Value.(type) {
			case ast.String:
				parts = append(parts, string(v))
			case ast.Var:
				if len(parts) == 0 {
					parts = append(parts, string(v))
				}
			}
		}
		return strings.Join(parts, ".")
	}
	return string(r.Head.Name)
}
