package policy

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// failing says why a condition doesn't hold under any of envs.
func (x *explainer) failing(cond *ast.Expr, sc *scope, envs []env, depth int) []finding {
	if len(cond.With) > 0 {
		return []finding{x.plainly(cond, sc, envs)}
	}
	if cond.Negated {
		inner := cond.Copy()
		inner.Negated = false
		return x.unwanted(ast.Body{inner}, cond.Location, sc, envs, depth)
	}
	var out []finding
	switch t := cond.Terms.(type) {
	case *ast.Term:
		out = x.notTrue(t, sc, envs, cond.Location, depth)
	case []*ast.Term:
		out = x.call(t, sc, envs, cond.Location, depth)
	case *ast.Every:
		out = x.every(t, sc, envs, depth)
	case *ast.Not:
		out = x.unwanted(t.Body, cond.Location, sc, envs, depth)
	case *ast.LogicalAnd:
		a, _ := x.body(t.Lhs, sc, envs, depth)
		b, _ := x.body(t.Rhs, sc, envs, depth)
		out = append(a, b...)
	case *ast.LogicalOr:
		a, _ := x.body(t.Lhs, sc, envs, depth)
		b, _ := x.body(t.Rhs, sc, envs, depth)
		out = x.either([]way{{failed: a}, {failed: b}}, sc.chain)
	}
	if len(out) == 0 {
		out = []finding{x.plainly(cond, sc, envs)}
	}
	for i := range out {
		if out[i].loc == nil {
			out[i].loc = cond.Location
		}
		if out[i].chain == nil {
			out[i].chain = sc.chain
		}
	}
	return out
}

// notTrue explains a condition that is one value: false or undefined.
func (x *explainer) notTrue(t *ast.Term, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	if v, ok := t.Value.(ast.Var); ok {
		if from := sc.origin[v]; from != nil {
			if call, ok := from.Value.(ast.Call); ok {
				return x.call(call, sc, envs, loc, depth)
			}
			return x.notTrue(from, sc, envs, loc, depth)
		}
	}
	ref, ok := t.Value.(ast.Ref)
	if !ok {
		return nil
	}
	if rules, rest := x.prog.rulesAt(ref); len(rules) > 0 {
		if len(rest) > 0 {
			return x.lookup(ref, len(ref)-len(rest), rules, sc, envs, loc, depth)
		}
		return x.helper(rules, nil, sc, depth)
	}
	if ref[0].Equal(ast.DefaultRootDocument) {
		return x.lookup(ref, 0, nil, sc, envs, loc, depth)
	}
	o := x.operand(t, sc, envs)
	if len(o.values) == 0 {
		wanted := "a value"
		if fieldKind(o.path) == reflect.Bool {
			wanted = "true"
		}
		return []finding{x.missing(ref, o, wanted, sc, envs, loc)}
	}
	return []finding{x.found(o, want{text: "true"}, loc)}
}

// call explains a condition that is a call: an operator, a built-in function,
// or a function of the policy's own.
func (x *explainer) call(t []*ast.Term, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	op := t[0].Value.String()
	args := t[1:]
	if ref, ok := t[0].Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) {
		if missing := x.undefined(args, sc, envs, loc, depth, always("")); len(missing) > 0 {
			return missing
		}
		rules, _ := x.prog.rulesAt(ref)
		return x.helper(rules, x.arguments(args, sc, envs), sc, depth)
	}
	wanted := func(i int) string { return x.wantedOf(op, args, i, sc, envs) }
	if missing := x.undefined(args, sc, envs, loc, depth, wanted); len(missing) > 0 {
		return missing
	}
	switch {
	case isComparison(op) && len(args) == 2:
		return x.comparison(op, args, sc, envs, loc, depth)
	case op == "internal.member_2" && len(args) == 2:
		return []finding{x.membership(x.operand(args[0], sc, envs), x.operand(args[1], sc, envs), loc)}
	case op == "internal.member_3" && len(args) == 3:
		return []finding{x.membership(x.operand(args[1], sc, envs), x.operand(args[2], sc, envs), loc)}
	}
	if f, ok := x.text(op, args, sc, envs, loc); ok {
		return []finding{f}
	}
	return nil
}

func (x *explainer) arguments(args []*ast.Term, sc *scope, envs []env) []operand {
	if len(args) > 1 && len(envs) > 1 {
		envs = envs[:1]
	}
	out := make([]operand, len(args))
	for i, a := range args {
		out[i] = x.operand(a, sc, envs)
	}
	return out
}

// comparison explains two values that don't compare as the policy wants.
func (x *explainer) comparison(op string, args []*ast.Term, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	// A rule that is compared with true or false is a helper like any other.
	for i, t := range args {
		other := args[1-i]
		rules, rest := x.rulesOf(t, sc)
		if len(rules) == 0 || len(rest) > 0 || op != "equal" && op != "eq" {
			continue
		}
		if b, ok := other.Value.(ast.Boolean); ok && bool(b) {
			if out := x.helper(rules, nil, sc, depth); len(out) > 0 {
				return out
			}
		}
		if b, ok := other.Value.(ast.Boolean); ok && !bool(b) {
			return x.unwanted(ast.Body{ast.NewExpr(t)}, loc, sc, envs, depth)
		}
	}
	f := x.compared(op, x.operand(args[0], sc, envs), x.operand(args[1], sc, envs), sc, loc)
	for _, t := range args {
		if entries := x.entries(t, sc, loc); len(entries) > 0 {
			return entries
		}
		x.addMembers(&f, t, sc, envs)
		if why := x.filteredOut(t, sc, envs, depth); why != "" {
			f.message += ": " + why
			if f.public != "" {
				f.public += ": " + why
			}
		}
	}
	return []finding{f}
}

// entries tells the messages of a set of messages that the policy counts:
// count(violation) == 0 fails because of each of them.
func (x *explainer) entries(t *ast.Term, sc *scope, loc *ast.Location) []finding {
	call, ok := x.callOf(t, sc)
	if !ok || call[0].Value.String() != "count" {
		return nil
	}
	rules, rest := x.rulesOf(call[1], sc)
	if len(rules) == 0 || len(rest) > 0 || rules[0].Head.RuleKind() != ast.MultiValue {
		return nil
	}
	var out []finding
	for _, v := range x.values(call[1], env{}, 1) {
		eachMember(v, func(_, e *ast.Term) bool {
			s, ok := e.Value.(ast.String)
			if ok && len(out) < 5 {
				out = append(out, finding{loc: loc, message: clean(string(s), 500), chain: append([]string{ruleName(rules[0])}, sc.chain...)})
			}
			return ok
		})
	}
	return out
}

// addMembers names the few members of what is counted, behind their number.
func (x *explainer) addMembers(f *finding, t *ast.Term, sc *scope, envs []env) {
	call, ok := x.callOf(t, sc)
	if !ok || call[0].Value.String() != "count" {
		return
	}
	in := x.operand(call[1], sc, envs)
	if in.fromData || in.hidden || len(in.values) != 1 {
		return
	}
	var parts []string
	eachMember(in.values[0], func(_, v *ast.Term) bool { parts = append(parts, shown(v)); return len(parts) < 6 })
	if len(parts) == 0 || len(parts) > 5 {
		return
	}
	head, tail, ok := strings.Cut(f.message, ", policy wants ")
	if ok && f.public == "" {
		f.message = head + " (" + clip(strings.Join(parts, ", "), 160) + "), policy wants " + tail
	}
}

// callOf gives the call that a term is, by itself or as the origin of a variable.
func (x *explainer) callOf(t *ast.Term, sc *scope) (ast.Call, bool) {
	if v, ok := t.Value.(ast.Var); ok && sc.origin[v] != nil {
		t = sc.origin[v]
	}
	call, ok := t.Value.(ast.Call)
	return call, ok
}

// filteredOut says what keeps a comprehension empty whose members are counted.
func (x *explainer) filteredOut(t *ast.Term, sc *scope, envs []env, depth int) string {
	call, ok := x.callOf(t, sc)
	if !ok || call[0].Value.String() != "count" || depth >= explainDepth {
		return ""
	}
	from := call[1]
	if v, ok := from.Value.(ast.Var); ok && sc.origin[v] != nil {
		from = sc.origin[v]
	}
	var body ast.Body
	switch c := from.Value.(type) {
	case *ast.ArrayComprehension:
		body = c.Body
	case *ast.SetComprehension:
		body = c.Body
	case *ast.ObjectComprehension:
		body = c.Body
	}
	if body == nil {
		return ""
	}
	sc.learn(body)
	failed, _ := x.body(body, sc, envs[:1], depth+1)
	if len(failed) == 0 || failed[0].foreign || failed[0].public != "" {
		return ""
	}
	return failed[0].message
}

// rulesOf gives the rules that a term names, by itself or as the origin of a
// variable.
func (x *explainer) rulesOf(t *ast.Term, sc *scope) (rules []*ast.Rule, rest ast.Ref) {
	if v, ok := t.Value.(ast.Var); ok && sc.origin[v] != nil {
		t = sc.origin[v]
	}
	ref, ok := t.Value.(ast.Ref)
	if !ok {
		return nil, nil
	}
	return x.prog.rulesAt(ref)
}

// undefined explains the operands that have no value: absent from the input,
// not in data, or a rule that is not true.
func (x *explainer) undefined(args []*ast.Term, sc *scope, envs []env, loc *ast.Location, depth int, wanted func(i int) string) []finding {
	for i, t := range args {
		if v, ok := t.Value.(ast.Var); ok && unbound(v, envs) {
			continue // it would get its value here
		}
		o := x.operand(t, sc, envs)
		if len(o.values) > 0 || x.cut {
			continue
		}
		if out := x.noValue(t, o, wanted(i), sc, envs, loc, depth); len(out) > 0 {
			return out
		}
	}
	return nil
}

func always(s string) func(int) string { return func(int) string { return s } }

func unbound(v ast.Var, envs []env) bool {
	for _, e := range envs {
		if e[v] != nil {
			return false
		}
	}
	return true
}

// noValue looks for the innermost part of a term that has no value.
func (x *explainer) noValue(t *ast.Term, o operand, wanted string, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	switch v := t.Value.(type) {
	case ast.Var:
		if from := sc.origin[v]; from != nil {
			return x.noValue(from, o, wanted, sc, envs, loc, depth)
		}
		if arg, ok := sc.args[v]; ok && len(arg.values) == 0 {
			return []finding{x.absence(arg, wanted, sc, loc)}
		}
	case ast.Ref:
		if rules, rest := x.prog.rulesAt(v); len(rules) > 0 {
			if len(rest) > 0 {
				return x.lookup(v, len(v)-len(rest), rules, sc, envs, loc, depth)
			}
			return x.helper(rules, nil, sc, depth)
		}
		if v[0].Equal(ast.DefaultRootDocument) {
			return x.lookup(v, 0, nil, sc, envs, loc, depth)
		}
		return []finding{x.missing(v, o, wanted, sc, envs, loc)}
	case ast.Call:
		return x.insideCall(v, sc, envs, loc, depth)
	case *ast.Array:
		var parts []*ast.Term
		v.Foreach(func(e *ast.Term) { parts = append(parts, e) })
		return x.undefined(parts, sc, envs, loc, depth, always(""))
	case ast.Object:
		var parts []*ast.Term
		v.Foreach(func(_, e *ast.Term) { parts = append(parts, e) })
		return x.undefined(parts, sc, envs, loc, depth, always(""))
	}
	return nil
}

// insideCall explains a call that has no value: one of its arguments has none,
// or it is a function of the policy's own that has none for these arguments.
func (x *explainer) insideCall(call ast.Call, sc *scope, envs []env, loc *ast.Location, depth int) []finding {
	if out := x.undefined(call[1:], sc, envs, loc, depth, always("")); len(out) > 0 {
		return out
	}
	if ref, ok := call[0].Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) {
		rules, _ := x.prog.rulesAt(ref)
		return x.helper(rules, x.arguments(call[1:], sc, envs), sc, depth)
	}
	return nil
}

// text explains the built-in functions that look into text.
func (x *explainer) text(op string, args []*ast.Term, sc *scope, envs []env, loc *ast.Location) (finding, bool) {
	at := func(i int) operand { return x.operand(args[i], sc, envs) }
	var subject, object operand
	var verb string
	switch {
	case op == "startswith" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to start with"
	case op == "endswith" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to end with"
	case op == "contains" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to contain"
	case op == "regex.match" && len(args) == 2:
		subject, object, verb = at(1), at(0), "to match the pattern"
	case op == "glob.match" && len(args) == 3:
		subject, object, verb = at(2), at(0), "to match"
	case op == "strings.any_prefix_match" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to start with one of"
	case op == "strings.any_suffix_match" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to end with one of"
	case op == "object.subset" && len(args) == 2:
		subject, object, verb = at(0), at(1), "to have all of"
	default:
		return finding{}, false
	}
	w := x.wantText(object)
	w.matches = op == "startswith" || op == "glob.match" || op == "regex.match" || op == "strings.any_prefix_match"
	if op == "strings.any_prefix_match" && len(object.values) == 1 {
		_, w.items = oneOf(object.values[0])
	}
	w.text = verb + " " + quoteText(object, w.text)
	w.does = true
	return x.found(subject, w, loc), true
}

// quoteText puts text that is looked for between quotes: where it begins and
// ends matters.
func quoteText(o operand, shown string) string {
	if o.constant && len(o.values) == 1 && !strings.HasPrefix(shown, `"`) {
		if s, ok := o.values[0].Value.(ast.String); ok {
			return quote(string(s), 60)
		}
	}
	return shown
}

// plainly is the last resort: the condition in the policy's own words, with
// the values of the input that it looks at.
func (x *explainer) plainly(cond *ast.Expr, sc *scope, envs []env) finding {
	text := source(cond.Location)
	if text == "" {
		text = clip(cond.String(), 120)
	}
	f := finding{loc: cond.Location, message: "`" + text + "` does not hold", wanted: text, chain: sc.chain}
	now := x.states(ast.Body{cond}, sc, envs)
	if now != "" {
		now = " (" + now + ")"
	}
	f.message += now
	if about := x.ownership(cond, sc); about != "" {
		f.public, f.publicWanted = "a condition on "+about+" does not hold"+now, "another "+about
	}
	return f
}

// ownership names the value of a condition that says whose something is; the
// text of such a condition can name others.
func (x *explainer) ownership(cond *ast.Expr, sc *scope) string {
	found := ""
	ast.WalkRefs(cond, func(ref ast.Ref) bool {
		if o := x.describeRef(ref, sc); tenantPaths[o.path] || ownedPaths[o.path] {
			found = o.path
		}
		return false
	})
	return found
}

func (x *explainer) erroneous(cond *ast.Expr, sc *scope, err error) finding {
	f := x.plainly(cond, sc, nil)
	// What OPA says of it can quote a value; that is for the log.
	f.public, f.publicWanted = "`"+f.wanted+"` can't be evaluated", f.wanted
	f.message = f.public + ": " + clip(firstLine(err.Error()), 160)
	return f
}

func (x *explainer) unexplained(r *ast.Rule) finding {
	return finding{loc: r.Location, message: fmt.Sprintf("the rule %s did not hold, and it could not be found out which of its conditions failed", ruleName(r))}
}

// source is a condition as its author wrote it, on one line.
func source(loc *ast.Location) string {
	if loc == nil {
		return ""
	}
	return clip(strings.Join(strings.Fields(clean(string(loc.Text), 400)), " "), 120)
}

func firstLine(s string) string {
	l, _, _ := strings.Cut(s, "\n")
	return l
}
