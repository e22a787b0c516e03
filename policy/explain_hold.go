package policy

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// unwanted explains a negation that failed: what holds, and should not.
func (x *explainer) unwanted(body ast.Body, loc *ast.Location, sc *scope, envs []env, depth int) []finding {
	if len(body) == 1 {
		if out := x.undecided(body[0], loc, sc, envs, depth); len(out) > 0 {
			return out
		}
		if or, ok := body[0].Terms.(*ast.LogicalOr); ok && !body[0].Negated && len(body[0].With) == 0 {
			return x.unwantedEither(or, loc, sc, envs, depth)
		}
		if f, ok := x.unwantedOne(body[0], sc, envs, loc, depth); ok {
			f.loc = loc
			return []finding{f}
		}
	}
	text := strings.TrimSpace(strings.TrimPrefix(source(loc), "not "))
	f := finding{loc: loc, message: fmt.Sprintf("`%s` holds, policy wants it not to", text), wanted: "not " + text}
	if now := x.states(body, sc, envs); now != "" {
		f.message += ": " + now
	}
	return []finding{f}
}

// undecided explains a negation that fails although what it negates doesn't
// hold: Rego evaluates the arguments of a call before "not", so one that has
// no value leaves the whole condition without one.
func (x *explainer) undecided(cond *ast.Expr, loc *ast.Location, sc *scope, envs []env, depth int) []finding {
	terms, ok := cond.Terms.([]*ast.Term)
	if !ok {
		return nil
	}
	if holding, err := x.each(cond, envs); err != nil || len(holding) > 0 {
		return nil
	}
	return x.undefined(terms[1:], sc, envs, loc, depth, always("a known value"))
}

// unwantedEither tells those sides of "a or b" that hold.
func (x *explainer) unwantedEither(or *ast.LogicalOr, loc *ast.Location, sc *scope, envs []env, depth int) []finding {
	var out []finding
	for _, side := range []ast.Body{or.Lhs, or.Rhs} {
		if failed, inside := x.body(side, sc, envs, depth); len(failed) == 0 {
			out = append(out, x.unwanted(side, loc, sc, inside, depth)...)
		}
	}
	return out
}

func (x *explainer) unwantedOne(cond *ast.Expr, sc *scope, envs []env, loc *ast.Location, depth int) (finding, bool) {
	if len(cond.With) > 0 || cond.Negated {
		return finding{}, false
	}
	switch t := cond.Terms.(type) {
	case *ast.Term:
		if rules, rest := x.rulesOf(t, sc); len(rules) > 0 && len(rest) == 0 {
			return x.holds(rules, nil, loc, depth)
		}
		o := x.operand(t, sc, envs)
		if !o.fromInput || o.fromData || len(o.values) == 0 {
			return finding{}, false
		}
		text := "false"
		if _, isBool := o.values[0].Value.(ast.Boolean); !isBool {
			text = "none"
		}
		f := x.found(o, want{text: text}, loc)
		return f, true
	case []*ast.Term:
		return x.unwantedCall(t, sc, envs, loc, depth)
	}
	return finding{}, false
}

// opposite is the comparison that holds where another one doesn't.
var opposite = map[string]string{"equal": "neq", "eq": "neq", "neq": "equal", "lt": "gte", "lte": "gt", "gt": "lte", "gte": "lt"}

func (x *explainer) unwantedCall(t []*ast.Term, sc *scope, envs []env, loc *ast.Location, depth int) (finding, bool) {
	op := t[0].Value.String()
	args := t[1:]
	if ref, ok := t[0].Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) {
		rules, _ := x.prog.rulesAt(ref)
		return x.holds(rules, x.arguments(args, sc, envs), loc, depth)
	}
	at := func(i int) operand { return x.operand(args[i], sc, envs) }
	switch {
	case isComparison(op) && len(args) == 2:
		a, b := at(0), at(1)
		if a.many || b.many || len(a.values) > 1 || len(b.values) > 1 {
			return finding{}, false
		}
		return x.compared(opposite[op], a, b, sc, loc), true
	case op == "internal.member_2" && len(args) == 2:
		o, in := at(0), at(1)
		if o.many || len(o.values) != 1 || len(in.values) != 1 || !o.fromInput {
			return finding{}, false
		}
		w := want{text: "none of those in " + in.label, shuns: true}
		if !in.fromData {
			text, _ := oneOf(in.values[0])
			w.text = "none of " + strings.TrimPrefix(text, "one of ")
		}
		if in.fromInput {
			w.text += " (" + in.label + ")"
		}
		return x.found(o, w, loc), true
	}
	f, ok := x.text(op, args, sc, envs, loc)
	if !ok {
		return finding{}, false
	}
	for _, s := range []*string{&f.message, &f.wanted, &f.public, &f.publicWanted} {
		*s = strings.Replace(*s, "wants it to ", "wants it not to ", 1)
		if strings.HasPrefix(*s, "to ") {
			*s = "not " + *s
		}
	}
	return f, true
}

// holds explains a helper that is true and should not be, by the input values
// that make it so.
func (x *explainer) holds(rules []*ast.Rule, args []operand, loc *ast.Location, depth int) (finding, bool) {
	if len(rules) == 0 || depth >= explainDepth {
		return finding{}, false
	}
	name := ruleName(rules[0])
	f := finding{loc: loc, message: fmt.Sprintf("%s holds, policy wants it not to", name), wanted: "not " + name}
	for _, rule := range rules {
		for r := rule; r != nil; r = r.Else {
			sc := newScope(r, nil)
			envs := []env{{}}
			var failed []finding
			if len(r.Head.Args) > 0 {
				failed, envs = x.bind(r, args, sc)
			}
			if len(failed) == 0 && !r.Default {
				failed, envs = x.body(r.Body, sc, envs, depth+1)
			}
			if len(failed) > 0 || r.Default {
				continue
			}
			body := r.Body
			if r.Head.Value != nil && !ast.IsConstant(r.Head.Value.Value) {
				body = append(append(ast.Body{}, body...), ast.NewExpr(r.Head.Value))
			}
			if now := x.states(body, sc, envs); now != "" {
				f.message += ": " + now
			}
			return f, true
		}
	}
	return f, true
}

// decidesFalse explains a rule that says false here.
func (x *explainer) decidesFalse(r *ast.Rule, sc *scope, envs []env) finding {
	f := finding{loc: r.Location, message: fmt.Sprintf("%s is false here", ruleName(r))}
	if now := x.states(r.Body, sc, envs); now != "" {
		f.message = fmt.Sprintf("%s is false because %s", ruleName(r), now)
	}
	return f
}

// states says what the input is where a body looks at it: "freeze is true and
// branch is main". Only the input is told, never data.
func (x *explainer) states(body ast.Body, sc *scope, envs []env) string {
	var parts []string
	seen := map[string]bool{}
	tell := func(o operand) {
		if !o.fromInput || o.fromData || o.label == "" || seen[o.label] || len(parts) == 5 || o.hidden {
			return
		}
		seen[o.label] = true
		if len(o.values) == 0 {
			parts = append(parts, o.label+" is absent")
			return
		}
		parts = append(parts, o.label+" is "+shownOf(o))
	}
	var seeRule func(ref ast.Ref, depth int)
	see := func(node any, depth int) {
		ast.WalkRefs(node, func(ref ast.Ref) bool {
			head, isVar := ref[0].Value.(ast.Var)
			switch {
			case ref[0].Equal(ast.InputRootDocument):
				tell(x.operand(ast.NewTerm(ref), sc, envs))
			case ref[0].Equal(ast.DefaultRootDocument):
				seeRule(ref, depth)
			case isVar && (sc.origin[head] != nil || sc.args[head].label != ""):
				tell(x.operand(ast.NewTerm(ref), sc, envs))
			}
			return false
		})
		ast.WalkVars(node, func(v ast.Var) bool {
			if arg, ok := sc.args[v]; ok {
				tell(arg)
			}
			return false
		})
	}
	seeRule = func(ref ast.Ref, depth int) {
		if depth >= 3 {
			return
		}
		rules, _ := x.prog.rulesAt(ref)
		for _, r := range rules {
			if len(r.Head.Args) > 0 {
				continue // its parameters are seen at the call
			}
			ast.WalkRefs(r, func(inner ast.Ref) bool {
				if inner[0].Equal(ast.InputRootDocument) && inner.IsGround() {
					tell(x.operand(ast.NewTerm(inner), sc, envs))
				}
				return false
			})
		}
	}
	see(body, 0)
	return strings.Join(parts, " and ")
}
