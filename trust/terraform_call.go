package trust

import (
	"path"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A module of the same tree is read with what each of its callers gives it. One
// that nobody here calls is read with the defaults of its variables. Modules
// from elsewhere are not read.

const (
	maxCallDepth = 8    // of modules that call modules
	maxCalls     = 2000 // of a scan
)

// localSource finds calls of modules of the same tree, also in files that can't be parsed.
var localSource = regexp.MustCompile(`(?m)^\s*source\s*=\s*"(\.\.?/[^"$]*)"`)

// roots gives the directories that are read by themselves: those that have a
// trust, or call a module that has, and that no other of them calls.
func (s *scan) roots() []*directory {
	callers := make(map[string][]*directory)
	var queue []*directory
	for _, name := range sortedKeys(s.dirs) {
		d := s.dirs[name]
		for _, callee := range d.calls {
			callers[callee] = append(callers[callee], d)
		}
		if d.interesting {
			d.wanted = true
			queue = append(queue, d)
		}
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		for _, c := range callers[d.name] {
			if !c.wanted {
				c.wanted = true
				queue = append(queue, c)
			}
		}
	}
	var out []*directory
	reached := make(map[*directory]bool)
	var reach func(d *directory)
	reach = func(d *directory) {
		if d == nil || reached[d] {
			return
		}
		reached[d] = true
		for _, callee := range d.calls {
			reach(s.dirs[callee])
		}
	}
	take := func(root func(*directory) bool) {
		for _, name := range sortedKeys(s.dirs) {
			if d := s.dirs[name]; d.wanted && !reached[d] && root(d) {
				out = append(out, d)
				reach(d)
			}
		}
	}
	take(func(d *directory) bool { return len(callers[d.name]) == 0 })
	take(func(*directory) bool { return true }) // of a circle of calls, one
	return out
}

// instance makes a module of a directory. What is read by itself is parsed for that alone.
func (s *scan) instance(d *directory, parent *module) *module {
	if parent == nil {
		return newModule(s, d, s.parsed(d), nil)
	}
	d.once.Do(func() { d.code = s.parsed(d) })
	return newModule(s, d, d.code, parent)
}

func newModule(s *scan, d *directory, c *code, parent *module) *module {
	return &module{code: c, dir: d, s: s, parent: parent, values: make(map[string]cty.Value), busy: make(map[string]bool), children: make(map[string]*module)}
}

// callee gives the directory of the module that a block calls; nil when it is not in the tree.
func (m *module) callee(b *hclsyntax.Block) *directory {
	source := m.str(b.Body, "source")
	if !strings.HasPrefix(source, "./") && !strings.HasPrefix(source, "../") {
		return nil
	}
	d := m.s.dirs[path.Join(m.dir.name, source)]
	depth := 0
	for up := m; up != nil; up = up.parent {
		if depth++; up.dir == d || depth > maxCallDepth { // Terraform refuses circles
			return nil
		}
	}
	return d
}

// called makes an instance of a module, with what a block gives it.
func (m *module) called(d *directory, b *hclsyntax.Block) *module {
	child := m.s.instance(d, m)
	child.args, child.argsEach = make(map[string]hclsyntax.Expression), m.each
	for k, a := range b.Body.Attributes {
		child.args[k] = a.Expr
	}
	return child
}

// callModules reads the modules that this one calls.
func (m *module) callModules() {
	for _, b := range m.kinds["module"] {
		m.instances(b, (*module).callModule)
	}
}

// callModule reads one call.
func (m *module) callModule(b *hclsyntax.Block) {
	d := m.callee(b)
	switch {
	case d == nil:
		m.foreign(b)
		return
	case !d.wanted:
		return
	}
	switch n := m.s.calls.Add(1); {
	case n > maxCalls+1: // said already
	case n > maxCalls:
		m.s.problem(b.TypeRange.Filename, b.TypeRange.Start.Line, "there are too many calls of modules; the trusts that this one and those behind it make were not looked at")
	default:
		m.called(d, b).evaluate()
	}
}

// variable gives what a module's variable is.
func (m *module) variable(name string) cty.Value {
	key := "var." + name
	if v, ok := m.values[key]; ok {
		return v
	}
	if e := m.args[name]; e != nil && !m.busy[key] {
		m.busy[key] = true
		each := m.parent.each
		m.parent.each = m.argsEach
		v := m.parent.value(e)
		m.parent.each = each
		delete(m.busy, key)
		if v.IsNull() {
			return m.fallback(name)
		}
		if !v.IsKnown() {
			v = m.opaque(key)
		}
		m.values[key] = v
		return v
	}
	if e := m.tfvars[name]; e != nil && m.parent == nil {
		return m.once(key, e)
	}
	return m.fallback(name)
}

// fallback gives the default of a variable.
func (m *module) fallback(name string) cty.Value {
	if b := m.blocks["variable."+name]; b != nil && b.Body.Attributes["default"] != nil {
		if v := m.once("var."+name, b.Body.Attributes["default"].Expr); !v.IsNull() {
			return v
		}
	}
	return m.opaque("var." + name)
}

// output gives an output of a module that this one calls. Instances of one call are alike here.
func (m *module) output(path []string) cty.Value {
	name, attr := path[1], path[len(path)-1]
	child, known := m.children[name]
	if b := m.blocks["module."+name]; !known && b != nil {
		if d := m.callee(b); d != nil {
			each := m.each
			m.each = nil
			child = m.called(d, b)
			m.each = each
		}
		m.children[name] = child
	}
	if child == nil || child.outputs[attr] == nil || len(path) < 3 {
		return m.opaque(strings.Join(path, "."))
	}
	if v := child.once("output."+attr, child.outputs[attr]); v.IsKnown() && !v.IsNull() {
		return v
	}
	return m.opaque(strings.Join(path, "."))
}

// find looks up a resource by its address where a value may have come from: in
// the module, in those that call it, and in those that these have asked for an
// output. A name that two of them have for different things is nobody's.
func (m *module) find(address string) (owner *module, b *hclsyntax.Block) {
	if b := m.blocks[address]; b != nil {
		return m, b
	}
	for up := m; up != nil; up = up.parent {
		if b := up.blocks[address]; b != nil {
			return up, b
		}
		for _, name := range sortedKeys(up.children) {
			child := up.children[name]
			if child == nil || child.blocks[address] == nil {
				continue
			}
			if b != nil && b != child.blocks[address] {
				return nil, nil
			}
			owner, b = child, child.blocks[address]
		}
		if b != nil {
			return owner, b
		}
	}
	return nil, nil
}

// foreign records the call of a module from elsewhere that is handed what looks
// like a trust: what it makes of it can't be seen.
func (m *module) foreign(b *hclsyntax.Block) {
	source := m.str(b.Body, "source")
	r := b.Range()
	body := m.within(hcl.RangeBetween(b.TypeRange, b.CloseBraceRange))
	if !strings.Contains(body, "repo:") && !strings.Contains(body, "token.actions.githubusercontent.com") && !strings.Contains(source, "oidc") {
		return
	}
	t := Trust{File: r.Filename, Line: r.Start.Line, Kind: AWSRole, Target: Target{"unknown", "module " + b.Labels[0]}}
	if strings.Contains(source, "/aws//") || strings.HasSuffix(source, "/aws") { // of the registry: NAMESPACE/NAME/PROVIDER
		t.Target.Kind = "cloud/aws"
		if name := firstOf(m.str(b.Body, "role_name"), m.str(b.Body, "name")); name != "" && !hole(name) {
			t.Target.Name = name
		}
	}
	for _, name := range []string{"oidc_subjects", "subjects", "oidc_fully_qualified_subjects", "oidc_subjects_with_wildcards", "oidc_wildcard_subjects"} {
		for _, v := range m.strs(b.Body, name) {
			if !strings.Contains(v, ":") || !strings.HasPrefix(v, "repo:") && strings.Contains(source, "github-oidc") {
				v = "repo:" + v
			}
			t.add(Condition{Claim: "sub", Match: Glob, Values: []string{v}, Line: line(b, name)})
		}
	}
	t.open(r.Start.Line, "the module "+firstOf(source, m.dir.name)+" isn't read: what it makes of these values can't be seen")
	t.add(Condition{Match: Expression, Values: []string{"module " + source}, Line: r.Start.Line})
	m.s.add(t)
}
