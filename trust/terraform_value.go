package trust

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// unresolved is a value that only an apply can tell.
var unresolved = cty.DynamicVal

// value evaluates an expression. What it refers to is evaluated first, each
// value bounded in size, so that locals that double each other end early.
func (m *module) value(e hclsyntax.Expression) (v cty.Value) {
	if m.depth > maxDepth || comprehensions(e) > 1 {
		return unresolved
	}
	m.depth++
	defer func() {
		m.depth--
		if recover() != nil {
			v = unresolved
		}
	}()
	refs := e.Variables()
	if len(refs) > 200 {
		return unresolved
	}
	root := &branch{}
	size := 0
	for _, ref := range refs {
		value := m.reference(ref)
		if size += sizeOf(value); size > maxValue {
			return unresolved
		}
		root.put(steps(ref), value)
	}
	ctx := &hcl.EvalContext{Variables: make(map[string]cty.Value), Functions: functions}
	for name, b := range root.children {
		ctx.Variables[name] = b.value()
	}
	out, diags := e.Value(ctx)
	if diags.HasErrors() || sizeOf(out) > maxValue {
		return unresolved
	}
	out, _ = out.UnmarkDeep()
	return out
}

// comprehensions counts nested for expressions: each multiplies the work.
func comprehensions(e hclsyntax.Expression) int {
	c := &forCounter{}
	_ = hclsyntax.Walk(e, c)
	return c.most
}

type forCounter struct{ now, most int }

// Enter and Exit count the for expressions that are open.
func (c *forCounter) Enter(n hclsyntax.Node) hcl.Diagnostics {
	if _, ok := n.(*hclsyntax.ForExpr); ok {
		c.now++
		c.most = max(c.most, c.now)
	}
	return nil
}

// Exit closes one.
func (c *forCounter) Exit(n hclsyntax.Node) hcl.Diagnostics {
	if _, ok := n.(*hclsyntax.ForExpr); ok {
		c.now--
	}
	return nil
}

// branch is a part of the tree of names that an expression refers to.
type branch struct {
	children map[string]*branch
	leaf     *cty.Value
}

func (b *branch) put(path []string, v cty.Value) {
	for _, p := range path {
		if b.leaf != nil {
			return // a shorter reference holds the whole
		}
		if b.children == nil {
			b.children = make(map[string]*branch)
		}
		if b.children[p] == nil {
			b.children[p] = &branch{}
		}
		b = b.children[p]
	}
	b.leaf, b.children = &v, nil
}

// value makes an object of a branch; indexes make a tuple.
func (b *branch) value() cty.Value {
	if b.leaf != nil {
		return *b.leaf
	}
	attrs := make(map[string]cty.Value)
	most := -1
	for name, c := range b.children {
		attrs[name] = c.value()
		if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < 16 {
			most = max(most, n)
		}
	}
	if most < 0 || most+1 < len(attrs) {
		return cty.ObjectVal(attrs)
	}
	list := make([]cty.Value, most+1)
	for i := range list {
		list[i] = cty.DynamicVal
		if v, ok := attrs[strconv.Itoa(i)]; ok {
			list[i] = v
		}
	}
	return cty.TupleVal(list)
}

// steps gives the names on the way of a reference, as far as they are fixed:
// two for locals and variables, whose values have the rest in them, and three for
// the outputs of modules, with an index before the last.
func steps(t hcl.Traversal) []string {
	var out []string
	indexes := 0
	for _, s := range t {
		switch s := s.(type) {
		case hcl.TraverseRoot:
			out = append(out, s.Name)
		case hcl.TraverseAttr:
			out = append(out, s.Name)
		case hcl.TraverseIndex:
			indexes++
			if s.Key.Type() == cty.String {
				out = append(out, s.Key.AsString())
			} else if n, _ := s.Key.AsBigFloat().Int64(); n >= 0 && n < 16 {
				out = append(out, strconv.FormatInt(n, 10))
			} else {
				return out
			}
		default:
			return out
		}
		if len(out) == 2 && (out[0] == "var" || out[0] == "local" || out[0] == "each") {
			return out
		}
		if out[0] == "module" && len(out) == 3+indexes {
			return out // an output, whose value has the rest in it
		}
	}
	return out
}

// reference gives the value of what an expression refers to.
func (m *module) reference(t hcl.Traversal) cty.Value {
	path := steps(t)
	name := strings.Join(path, ".")
	if len(path) < 2 {
		return cty.StringVal("${" + name + "}")
	}
	switch path[0] {
	case "local":
		return m.once(name, m.locals[path[1]])
	case "var":
		return m.variable(path[1])
	case "module":
		return m.output(path)
	case "each":
		if v, ok := m.each[path[1]]; ok {
			return v
		}
		return m.opaque(name)
	}
	return m.attribute(path)
}

// opaque stands for a variable without a value: a text where a text is wanted.
func (m *module) opaque(name string) cty.Value { return cty.StringVal("${" + name + "}") }

// once evaluates a local or a default, and guards against circles.
func (m *module) once(name string, e hclsyntax.Expression) cty.Value {
	if v, ok := m.values[name]; ok {
		return v
	}
	if e == nil || m.busy[name] {
		return m.opaque(name)
	}
	m.busy[name] = true
	each := m.each
	m.each = nil
	v := m.value(e)
	m.each = each
	delete(m.busy, name)
	if !v.IsKnown() {
		v = m.opaque(name)
	}
	m.values[name] = v
	return v
}

// attribute gives an attribute of a resource of the same module: what the file
// sets is known; what the provider computes is ${type.name.attribute}.
func (m *module) attribute(path []string) cty.Value {
	key, rest := path[0]+"."+path[1], path[2:]
	if path[0] == "data" && len(path) > 2 {
		key, rest = "data."+path[1]+"."+path[2], path[3:]
	}
	b := m.blocks[key]
	for len(rest) > 1 { // aws_x.y[0].url: every instance is alike here
		rest = rest[1:]
	}
	if b == nil || len(rest) == 0 || m.busy[key] {
		return m.opaque(strings.Join(path, "."))
	}
	attr := rest[0]
	if a := b.Body.Attributes[attr]; a != nil {
		m.busy[key] = true
		defer delete(m.busy, key)
		if v := m.value(a.Expr); v.IsKnown() {
			return v
		}
	}
	return cty.StringVal("${" + key + "." + attr + "}")
}

// scalar gives the text of a text, a number or a truth value.
func scalar(v cty.Value) (string, bool) {
	if v.IsNull() || !v.IsKnown() {
		return "", false
	}
	switch v.Type() {
	case cty.String:
		return v.AsString(), true
	case cty.Bool:
		return strconv.FormatBool(v.True()), true
	case cty.Number:
		return v.AsBigFloat().Text('f', -1), true
	}
	return "", false
}

// sizeOf says about how large a value is, and stops counting beyond the bound.
func sizeOf(v cty.Value) int { return size(v, maxValue+1) }

func size(v cty.Value, left int) int {
	if left <= 0 || v.IsNull() || !v.IsKnown() {
		return 8
	}
	v, _ = v.Unmark()
	if v.Type() == cty.String {
		return 8 + len(v.AsString())
	}
	if !v.CanIterateElements() {
		return 8
	}
	n := 8
	for it := v.ElementIterator(); it.Next() && n <= left; {
		_, e := it.Element()
		n += size(e, left-n)
	}
	return n
}

// functions are those that are evaluated. None reads a file, and none makes much of little.
var functions = map[string]function.Function{
	"jsonencode": jsonEncode, "jsondecode": stdlib.JSONDecodeFunc, "lower": stdlib.LowerFunc, "upper": stdlib.UpperFunc, "trimspace": stdlib.TrimSpaceFunc,
	"trimprefix": stdlib.TrimPrefixFunc, "trimsuffix": stdlib.TrimSuffixFunc, "split": stdlib.SplitFunc, "join": stdlib.JoinFunc, "concat": stdlib.ConcatFunc,
	"merge": stdlib.MergeFunc, "keys": stdlib.KeysFunc, "values": stdlib.ValuesFunc, "lookup": stdlib.LookupFunc, "compact": stdlib.CompactFunc, "distinct": stdlib.DistinctFunc,
	"element": stdlib.ElementFunc, "length": stdlib.LengthFunc, "coalesce": stdlib.CoalesceFunc, "flatten": stdlib.FlattenFunc, "sort": stdlib.SortFunc,
	"toset": toSet, "tolist": toList, "tostring": stdlib.MakeToFunc(cty.String), "replace": replaceText, "format": formatText,
}

func passing(convert func(cty.Value) cty.Value) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "v", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true}},
		Type:   func(args []cty.Value) (cty.Type, error) { return convert(args[0]).Type(), nil },
		Impl:   func(args []cty.Value, _ cty.Type) (cty.Value, error) { return convert(args[0]), nil },
	})
}

// elements gives the elements of anything that has some.
func elements(v cty.Value) []cty.Value {
	if v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		return nil
	}
	return v.AsValueSlice()
}

// toSet and toList keep the elements as they are: their types need not agree here.
var (
	toSet = passing(func(v cty.Value) cty.Value {
		var texts []cty.Value
		for _, e := range elements(v) {
			s, ok := scalar(e)
			if !ok {
				return unresolved
			}
			texts = append(texts, cty.StringVal(s))
		}
		if len(texts) == 0 {
			return unresolved
		}
		return cty.SetVal(texts)
	})
	toList = passing(func(v cty.Value) cty.Value {
		if e := elements(v); len(e) > 0 {
			return cty.TupleVal(e)
		}
		return unresolved
	})
)

// jsonEncode writes unknown parts as ${...} rather than giving up on the whole.
var jsonEncode = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "v", Type: cty.DynamicPseudoType, AllowUnknown: true, AllowDynamicType: true, AllowNull: true}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v, err := cty.Transform(args[0], func(_ cty.Path, v cty.Value) (cty.Value, error) {
			if !v.IsKnown() {
				return cty.StringVal("${unknown}"), nil
			}
			return v, nil
		})
		if err != nil {
			return cty.NilVal, err
		}
		data, err := ctyjson.Marshal(v, v.Type())
		return cty.StringVal(string(data)), err
	},
})

func textFunction(params int, variadic bool, do func([]string) (string, error)) function.Function {
	spec := &function.Spec{Type: function.StaticReturnType(cty.String), Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var texts []string
		for _, a := range args {
			s, ok := scalar(a)
			if !ok {
				return cty.NilVal, errors.New("not a text")
			}
			texts = append(texts, s)
		}
		out, err := do(texts)
		return cty.StringVal(out), err
	}}
	for range params {
		spec.Params = append(spec.Params, function.Parameter{Name: "s", Type: cty.DynamicPseudoType, AllowDynamicType: true})
	}
	if variadic {
		spec.VarParam = &function.Parameter{Name: "more", Type: cty.DynamicPseudoType, AllowDynamicType: true}
	}
	return function.New(spec)
}

// replaceText replaces plain texts; a pattern between slashes is not evaluated.
// What replaces the empty text would grow the value.
var replaceText = textFunction(3, false, func(a []string) (string, error) {
	if a[1] == "" || len(a[1]) > 1 && strings.HasPrefix(a[1], "/") && strings.HasSuffix(a[1], "/") || strings.Count(a[0], a[1])*len(a[2]) > maxValue {
		return "", errors.New("not evaluated")
	}
	return strings.ReplaceAll(a[0], a[1], a[2]), nil
})

// formatText knows %s, %d, %v and %q without widths, which could ask for any length.
var formatText = textFunction(1, true, func(a []string) (string, error) {
	var b strings.Builder
	args := a[1:]
	for i := 0; i < len(a[0]); i++ {
		if a[0][i] != '%' || i+1 == len(a[0]) {
			b.WriteByte(a[0][i])
			continue
		}
		i++
		switch verb := a[0][i]; {
		case verb == '%':
			b.WriteByte('%')
		case strings.IndexByte("sdvq", verb) < 0 || len(args) == 0:
			return "", errors.New("not evaluated")
		default:
			if verb == 'q' {
				quoted, _ := json.Marshal(args[0])
				args[0] = string(quoted)
			}
			b.WriteString(args[0])
			args = args[1:]
		}
		if b.Len() > maxValue {
			return "", errors.New("too long")
		}
	}
	return b.String(), nil
})
