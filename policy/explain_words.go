package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// operand is one side of a condition: what it is called, and its values.
type operand struct {
	label string
	// path is the one value of the input that it is, or is computed from; "" if
	// there is none or more than one.
	path   string
	values []*ast.Term
	// direct: it is the value at path itself, not computed from it.
	direct    bool
	constant  bool // written in the policy
	fromInput bool
	fromData  bool // rests on data.json, which may hold what isn't the job's
	many      bool // one of several: an element of a list, an iteration
	hidden    bool // rests on raw claims, whose values are never told
	computed  bool // the result of a function or operator
	lookup    bool // found in data or in a rule's value, by way of the input
	own       bool // data that is kept under the job's own name
}

// operand describes a term and gives its values under all of envs.
func (x *explainer) operand(t *ast.Term, sc *scope, envs []env) operand {
	o := x.describe(t, sc)
	for _, e := range envs {
		for _, v := range x.values(t, e, 10) {
			if len(o.values) < 20 && !slices.ContainsFunc(o.values, v.Equal) {
				o.values = append(o.values, v)
			}
		}
	}
	return o
}

// describe names a term without evaluating it.
func (x *explainer) describe(t *ast.Term, sc *scope) operand {
	switch v := t.Value.(type) {
	case ast.Var:
		if arg, ok := sc.args[v]; ok {
			if !arg.constant {
				arg.values = nil // they are found again, under the variables of now
			}
			return arg
		}
		if from := sc.origin[v]; from != nil {
			return x.describe(from, sc)
		}
		name := v
		if was, ok := x.prog.compiler.RewrittenVars[v]; ok {
			name = was
		}
		o := operand{}
		if from := sc.part[v]; from != nil {
			o = x.describe(from, sc)
		}
		o.label, o.direct, o.computed = strings.TrimPrefix(string(name), "$"), false, o.fromInput
		return o
	case ast.Ref:
		return x.describeRef(v, sc)
	case ast.Call:
		return x.describeCall(t, sc)
	}
	if ast.IsConstant(t.Value) {
		return operand{label: shown(t), constant: true, values: []*ast.Term{t}}
	}
	o := operand{label: clip(strings.Join(strings.Fields(t.String()), " "), 80)}
	if text := source(t.Location); len(text) > 3 {
		o.label = clip(text, 80)
	}
	x.uses(t, sc, &o)
	return o
}

// uses sets what a composite term rests on.
func (x *explainer) uses(t *ast.Term, sc *scope, o *operand) {
	paths := map[string]bool{}
	ast.WalkRefs(t, func(r ast.Ref) bool {
		if _, isVar := r[0].Value.(ast.Var); isVar {
			part := x.describeRef(r, sc)
			o.fromInput = o.fromInput || part.fromInput
			o.fromData = o.fromData || part.fromData
			o.hidden = o.hidden || part.hidden
			if part.path != "" {
				paths[part.path] = true
			}
		}
		return false
	})
	ast.WalkVars(t, func(v ast.Var) bool {
		arg, ok := sc.args[v]
		if from := sc.origin[v]; !ok && from != nil {
			arg, ok = x.describe(from, sc), true
		}
		if ok {
			o.fromInput, o.fromData, o.hidden = o.fromInput || arg.fromInput, o.fromData || arg.fromData, o.hidden || arg.hidden
			if arg.path != "" {
				paths[arg.path] = true
			}
		}
		return false
	})
	if len(paths) == 1 {
		for p := range paths {
			o.path = p
		}
	}
}

func (x *explainer) describeRef(ref ast.Ref, sc *scope) operand {
	o, rest := x.describeHead(ref, sc)
	for _, t := range rest {
		x.describeStep(&o, t, sc)
	}
	if o.fromInput {
		o.label = shortPath(o.label)
	}
	o.hidden = o.hidden || isClaim(o.path)
	return o
}

// describeHead names where a reference begins, and gives what is left of it.
func (x *explainer) describeHead(ref ast.Ref, sc *scope) (operand, ast.Ref) {
	head, isVar := ref[0].Value.(ast.Var)
	switch {
	case !isVar:
		if t, rest := spelledOut(ref[0], ref[1:]); len(rest) < len(ref)-1 {
			return x.describe(t, sc), rest
		}
		o := x.describe(ref[0], sc)
		o.constant = false
		return o, ref[1:]
	case ref[0].Equal(ast.InputRootDocument):
		return operand{fromInput: true, direct: true}, ref[1:]
	case ref[0].Equal(ast.DefaultRootDocument):
		return x.describeData(ref, sc)
	}
	if from := sc.origin[head]; from != nil {
		if t, rest := spelledOut(from, ref[1:]); len(rest) < len(ref)-1 {
			return x.describe(t, sc), rest
		}
	}
	o := x.describe(ast.NewTerm(head), sc)
	o.constant = false
	return o, ref[1:]
}

// spelledOut follows a reference into an object or list that the policy spells
// out, as z.branch where z := {"branch": input.context.branch}.
func spelledOut(t *ast.Term, rest ast.Ref) (*ast.Term, ast.Ref) {
	for len(rest) > 0 && ast.IsScalar(rest[0].Value) && !ast.IsConstant(t.Value) {
		switch t.Value.(type) {
		case ast.Object, *ast.Array:
		default:
			return t, rest
		}
		next := member(t, rest[0])
		if next == nil {
			break
		}
		t, rest = next, rest[1:]
	}
	return t, rest
}

// describeData names a rule, or a place in data.json.
func (x *explainer) describeData(ref ast.Ref, sc *scope) (operand, ast.Ref) {
	var o operand
	o.fromInput, o.fromData = x.prog.restsOn(ref)
	o.lookup = o.fromInput
	rules, rest := x.prog.rulesAt(ref)
	if len(rules) == 0 {
		o.label, o.fromData = "data", true
		return o, ref[1:]
	}
	if len(rules) == 1 && alwaysTrue(rules[0].Body) && rules[0].Head.Value != nil {
		if value, ok := rules[0].Head.Value.Value.(ast.Ref); ok && value[0].Equal(ast.DefaultRootDocument) {
			o.own = x.describeRef(value, newScope(rules[0], nil)).own
		}
	}
	o.label = ruleName(rules[0])
	return o, rest
}

// describeStep adds one element of a reference to its name.
func (x *explainer) describeStep(o *operand, t *ast.Term, sc *scope) {
	key := operand{label: "", many: true}
	switch v := t.Value.(type) {
	case ast.String:
		if o.direct && !strings.Contains(string(v), ".") {
			o.path = joinPath(o.path, string(v))
		} else {
			o.direct = false
		}
		o.label = joinPath(o.label, string(v))
		return
	case ast.Var:
		if arg, ok := sc.args[v]; ok {
			key = arg
		} else if sc.origin[v] != nil {
			key = x.describe(t, sc)
		}
	default:
		key = x.describe(t, sc)
	}
	if s, ok := constantText(key); ok {
		x.describeStep(o, ast.StringTerm(s), sc)
		return
	}
	o.label += "[" + key.label + "]"
	o.direct, o.many, o.hidden = false, o.many || key.many, o.hidden || key.hidden
	o.own = o.own || o.fromData && ownKeys[key.path]
	if key.fromInput && !o.fromInput {
		o.fromInput, o.lookup = true, true
	}
	if o.path == "" && key.path != "" {
		o.path, o.computed = key.path, true
	}
}

// constantText gives the text of an operand that is one, written in the policy.
func constantText(o operand) (string, bool) {
	if !o.constant || len(o.values) != 1 {
		return "", false
	}
	s, ok := o.values[0].Value.(ast.String)
	return string(s), ok
}

// ownKeys are the values under which data is kept that is the job's own.
var ownKeys = words2set("identity.tenant identity.owner_id identity.repository identity.repository_id resource.tenant resource.name resource.service")

// shortPath is what people call a value: context.branch is "branch".
func shortPath(path string) string { return strings.TrimPrefix(path, "context.") }

var infix = map[string]string{"plus": "+", "minus": "-", "mul": "*", "div": "/", "rem": "%", "and": "&", "or": "|",
	"equal": "==", "eq": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "internal.member_2": "in"}

func (x *explainer) describeCall(t *ast.Term, sc *scope) operand {
	call := t.Value.(ast.Call)
	name := call[0].Value.String()
	args := make([]operand, len(call)-1)
	o := operand{computed: true}
	paths := map[string]bool{}
	for i, t := range call[1:] {
		args[i] = x.describe(t, sc)
		o.fromInput, o.fromData, o.many = o.fromInput || args[i].fromInput, o.fromData || args[i].fromData, o.many || args[i].many
		o.hidden = o.hidden || args[i].hidden
		if args[i].path != "" {
			paths[args[i].path] = true
			o.path = args[i].path
		}
	}
	if len(paths) > 1 {
		o.path = ""
	}
	labels := make([]string, len(args))
	for i := range args {
		if labels[i] = args[i].label; args[i].constant {
			labels[i] = clip(call[i+1].String(), 60)
		}
	}
	ref, _ := call[0].Value.(ast.Ref)
	switch sign := infix[name]; {
	case sign != "" && len(args) == 2:
		o.label = labels[0] + " " + sign + " " + labels[1]
	case name == "count" && len(args) == 1:
		o.label, o.many, o.computed = "the number of "+strings.TrimSuffix(labels[0], "[]"), false, false
		if args[0].direct && fieldKind(o.path) == reflect.String {
			o.label = "the length of " + labels[0]
		}
	case name == "object.get" && len(args) == 3 && args[1].constant:
		key := strings.NewReplacer(`", "`, ".", `"`, "", "[", "", "]", "").Replace(labels[1])
		o.computed = false
		o.label, o.path = shortPath(joinPath(args[0].path, key)), joinPath(args[0].path, key)
		if args[0].path == "" {
			o.label = joinPath(args[0].label, key)
		}
	case name == "internal.template_string":
		o.label, o.computed = "the text "+source(t.Location), false
	case len(ref) > 0 && ref[0].Equal(ast.DefaultRootDocument):
		in, data := x.prog.restsOn(ref)
		o.fromInput, o.fromData = o.fromInput || in, o.fromData || data
		o.label = strings.Trim(ref[len(ref)-1].Value.String(), `"`) + "(" + strings.Join(labels, ", ") + ")"
	default:
		o.label = name + "(" + strings.Join(labels, ", ") + ")"
	}
	return o
}

// want is what a policy wants of a value.
type want struct {
	text string // after "policy wants"
	does bool   // text is "to start with ...", not a value
	// items are the texts that would have done, for redact.go.
	items   []string
	matches bool // the value has to be (or begin with) one of items
	shuns   bool // it must be none of several
}

// wantText names the values of the wanted side.
func (x *explainer) wantText(o operand) want {
	if o.fromData && !o.own && (o.many || len(o.values) != 1 || !ast.IsScalar(o.values[0].Value)) {
		return want{text: "one of those in " + o.label}
	}
	if o.fromInput && !o.constant {
		w := want{text: o.label}
		if len(o.values) == 1 && !o.many && !o.hidden {
			if w.text = shown(o.values[0]); !o.computed || o.lookup {
				w.text += " (" + o.label + ")"
			}
		}
		return w
	}
	var parts []string
	w := want{}
	for _, v := range o.values {
		parts = append(parts, shown(v))
		if s, ok := v.Value.(ast.String); ok {
			w.items = append(w.items, string(s))
		}
	}
	w.text = strings.Join(parts, ", ")
	if len(parts) > 1 {
		w.text = "one of " + w.text
	}
	if len(parts) == 0 {
		w.text = o.label
	}
	return w
}

// phrases of the comparisons, for the side that is found.
var phrases = map[string]string{"equal": "", "eq": "", "neq": "anything but ", "lt": "less than ", "lte": "at most ", "gt": "more than ", "gte": "at least "}

// mirrored is the comparison as the other side sees it.
var mirrored = map[string]string{"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte"}

// compared explains a comparison of two values.
func (x *explainer) compared(op string, a, b operand, _ *scope, loc *ast.Location) finding {
	if a.fromInput && b.fromInput && !a.constant && !b.constant && !a.lookup && !b.lookup && len(a.values) == 1 && len(b.values) == 1 && !a.many && !b.many {
		return x.pair(op, a, b, loc)
	}
	if !a.fromInput && (b.fromInput || a.constant) || a.lookup && b.fromInput && !b.lookup {
		a, b = b, a
		if m, ok := mirrored[op]; ok {
			op = m
		}
	}
	w := x.wantText(b)
	if w.text = phrases[op] + w.text; op == "neq" && w.text == "anything but null" {
		w.text = "a value"
	}
	w.matches = op == "equal" || op == "eq"
	return x.found(a, w, loc)
}

// pair explains two values of the input that don't fit each other.
func (x *explainer) pair(op string, a, b operand, loc *ast.Location) finding {
	w := "them equal"
	switch op {
	case "neq":
		w = "them to differ"
	case "lt", "lte", "gt", "gte":
		w = a.label + " to be " + phrases[op] + b.label
	}
	if a.hidden || b.hidden {
		return finding{loc: loc, message: fmt.Sprintf("%s and %s are not as the policy wants %s (raw claims are not shown)", a.label, b.label, w), wanted: w}
	}
	f := finding{loc: loc, path: a.path, found: jsonText(a), wanted: w}
	if op == "equal" || op == "eq" {
		f.wanted = b.label + " (" + shownOf(b) + ")"
	}
	f.message = fmt.Sprintf("%s is %s, %s is %s: policy wants %s", a.label, shownOf(a), b.label, shownOf(b), w)
	if a.path == "resource.tenant" || b.path == "resource.tenant" {
		// Whose the resource is, is not for the job of another tenant.
		own, foreign := a, b
		if a.path == "resource.tenant" {
			own, foreign = b, a
		}
		f.path, f.found, f.publicWanted = own.path, jsonText(own), foreign.label
		f.public = fmt.Sprintf("%s is %s, %s is another: policy wants %s", own.label, shownOf(own), foreign.label, w)
	}
	return f
}

// membership explains a value that isn't in a collection.
func (x *explainer) membership(o, in operand, loc *ast.Location) finding {
	if in.fromInput && !o.fromInput {
		w := x.wantText(o)
		w.text, w.does = "to contain "+w.text, true
		return x.found(in, w, loc)
	}
	w := want{matches: true}
	switch {
	case in.fromData && !in.own:
		w.text, w.matches = "one of those in "+in.label, false
	case len(in.values) == 0:
		w.text = "one of " + in.label
	default:
		w.text, w.items = oneOf(in.values[0])
	}
	if in.fromInput && !(in.fromData && !in.own) {
		w.text += " (" + in.label + ")"
	}
	return x.found(o, w, loc)
}

// oneOf lists a collection's members in words.
func oneOf(collection *ast.Term) (text string, items []string) {
	var parts []string
	n := 0
	eachMember(collection, func(_, v *ast.Term) bool {
		if n++; n <= 10 {
			parts = append(parts, shown(v))
		}
		if s, ok := v.Value.(ast.String); ok {
			items = append(items, string(s))
		}
		return true
	})
	switch {
	case n == 0:
		return "one of an empty list", nil
	case n == 1:
		return parts[0], items
	case n > 10:
		return fmt.Sprintf("one of %s and %d more", strings.Join(parts, ", "), n-10), items
	}
	return "one of " + strings.Join(parts, ", "), items
}

// keysOf makes the collection of an object's keys; arrays and sets stay.
func keysOf(o operand) operand {
	if len(o.values) == 0 {
		return o
	}
	if obj, ok := o.values[0].Value.(ast.Object); ok {
		o.values = []*ast.Term{ast.ArrayTerm(obj.Keys()...)}
	}
	return o
}

// found makes the finding: what was found, and what was wanted.
func (x *explainer) found(o operand, w want, loc *ast.Location) finding {
	f := finding{loc: loc, path: o.path, wanted: w.text, found: jsonText(o)}
	what := o.label + " is " + shownOf(o)
	several := o.many || len(o.values) > 1
	switch {
	case o.hidden:
		what, f.found = o.label+" has another value (raw claims are not shown)", ""
	case len(o.values) == 0:
		what = o.label + " has no value"
	case strings.HasSuffix(o.label, "[]"):
		what = strings.TrimSuffix(o.label, "[]") + " has " + shownOf(o)
	case o.computed && !several:
		what += x.insideOf(o)
	}
	say := func(text string) string {
		switch {
		case several && w.does:
			return what + ", policy wants one of them " + text
		case several && strings.HasPrefix(text, "one of "):
			return what + ", policy wants one of them to be any of " + strings.TrimPrefix(text, "one of ")
		case several:
			return what + ", policy wants one of them to be " + text
		case w.does:
			return what + ", policy wants it " + text
		}
		return what + ", policy wants " + text
	}
	f.message = say(w.text)
	x.redact(&f, o, w, say)
	return f
}

// insideOf adds the value of the input that a computed value comes from.
func (x *explainer) insideOf(o operand) string {
	if o.path == "" || o.hidden {
		return ""
	}
	v := termOf(x.document.At(strings.Split(o.path, ".")...))
	if v == nil || !ast.IsScalar(v.Value) || len(o.values) == 1 && v.Equal(o.values[0]) {
		return ""
	}
	return fmt.Sprintf(" (%s is %s)", shortPath(o.path), shown(v))
}

func isClaim(path string) bool {
	return path == "identity.claims" || strings.HasPrefix(path, "identity.claims.")
}
