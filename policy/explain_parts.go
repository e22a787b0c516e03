package policy

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// lookup explains a reference into data or into a rule's value whose end is
// not there. at is how many elements name the collection for certain.
func (x *explainer) lookup(ref ast.Ref, at int, rules []*ast.Rule, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	for n := max(at, 1); n < len(ref); n++ {
		prefix := ast.NewTerm(ref[:n:n])
		in := x.operand(prefix, sc, envs)
		if len(in.values) == 0 {
			if len(rules) > 0 {
				if out := x.helper(rules, nil, sc, depth); len(out) > 0 {
					return out
				}
			}
			return []finding{{loc: loc, message: fmt.Sprintf("the policy's %s is not there", in.label), wanted: in.label}}
		}
		if len(x.operand(ast.NewTerm(ref[:n+1:n+1]), sc, envs).values) > 0 {
			continue
		}
		key := x.operand(ref[n], sc, envs)
		if v, ok := ref[n].Value.(ast.Var); ok && unbound(v, envs) {
			return []finding{{loc: loc, message: fmt.Sprintf("the policy's %s is empty", in.label), wanted: in.label}}
		}
		if key.constant {
			return []finding{{loc: loc, message: fmt.Sprintf("the policy's %s has no entry %s", in.label, key.label), wanted: in.label}}
		}
		if len(key.values) == 0 {
			return x.undefined([]*ast.Term{ref[n]}, sc, envs, loc, depth, always("one of "+in.label))
		}
		if len(rules) > 0 && isEmpty(in.values[0]) {
			if out := x.helper(rules, nil, sc, depth); len(out) > 0 {
				return out
			}
		}
		return []finding{x.membership(key, keysOf(in), loc)}
	}
	o := x.operand(ast.NewTerm(ref), sc, envs)
	return []finding{x.found(o, want{text: "true"}, loc)}
}

// every explains "every x in xs { ... }": the first elements that don't pass.
func (x *explainer) every(ev *ast.Every, sc *scope, envs []env, depth int) []finding {
	domain := x.operand(ev.Domain, sc, envs)
	if len(domain.values) == 0 {
		return x.undefined([]*ast.Term{ev.Domain}, sc, envs, ev.Location, depth, always("a list"))
	}
	var out []finding
	sc.learn(ev.Body)
	label := domain.label
	eachMember(domain.values[0], func(k, v *ast.Term) bool {
		e := envs[0]
		more := env{}
		if name, ok := keyOf(ev).(ast.Var); ok {
			more[name] = k
			sc.args[name] = operand{label: "the key of " + label, values: []*ast.Term{k}, fromInput: domain.fromInput, fromData: domain.fromData, hidden: domain.hidden, many: domain.fromData}
		}
		if name, ok := ev.Value.Value.(ast.Var); ok {
			more[name] = v
			element := operand{label: label + "[" + shown(k) + "]", path: domain.path, values: []*ast.Term{v}, fromInput: domain.fromInput, fromData: domain.fromData, hidden: domain.hidden, many: domain.fromData}
			if domain.constant {
				element = operand{label: shown(v), constant: true, values: []*ast.Term{v}}
			}
			sc.args[name] = element
		}
		failed, _ := x.body(ev.Body, sc, []env{e.with(more)}, depth)
		if listed := conditionOf(ev, sc, k); len(failed) > 0 && listed != nil {
			failed = x.failing(listed, sc, envs, depth)
		}
		for i := range failed {
			failed[i].loc = orLocation(failed[i].loc, ev.Location)
		}
		out = append(out, failed...)
		return len(out) < 3
	})
	return out
}

// conditionOf gives the condition itself where conditions are collected in a
// list and each has to hold: every c in [input.a == 1, input.b == 2] { c }.
func conditionOf(ev *ast.Every, sc *scope, key *ast.Term) *ast.Expr {
	list := ev.Domain
	if v, ok := list.Value.(ast.Var); ok && sc.origin[v] != nil {
		list = sc.origin[v]
	}
	t, ok := ev.Body[0].Terms.(*ast.Term)
	if !ok || len(ev.Body) != 1 || ev.Body[0].Negated || !t.Equal(ev.Value) {
		return nil
	}
	if element := member(list, key); element != nil && !ast.IsConstant(element.Value) {
		return asCondition(element, ev.Location)
	}
	return nil
}

// asCondition makes a condition of a value.
func asCondition(t *ast.Term, loc *ast.Location) *ast.Expr {
	cond := &ast.Expr{Location: loc, Terms: t}
	if call, ok := t.Value.(ast.Call); ok {
		cond.Terms = []*ast.Term(call)
	}
	return cond
}

func keyOf(ev *ast.Every) ast.Value {
	if ev.Key == nil {
		return nil
	}
	return ev.Key.Value
}

func orLocation(a, b *ast.Location) *ast.Location {
	if a != nil {
		return a
	}
	return b
}

// eachMember visits a collection's members until visit says false; the key of a
// set's member is the member.
func eachMember(t *ast.Term, visit func(k, v *ast.Term) bool) {
	switch c := t.Value.(type) {
	case *ast.Array:
		for i := range c.Len() {
			if !visit(ast.InternedTerm(i), c.Elem(i)) {
				return
			}
		}
	case ast.Set:
		for _, e := range c.Slice() {
			if !visit(e, e) {
				return
			}
		}
	case ast.Object:
		c.Until(func(k, v *ast.Term) bool { return !visit(k, v) })
	}
}

func isEmpty(t *ast.Term) bool {
	empty := true
	eachMember(t, func(_, _ *ast.Term) bool { empty = false; return false })
	return empty
}
