package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

// reach is what a package reads, found by walking its rules and all rules that
// they use: helper rules and functions in any package, comprehensions, "with".
type reach struct {
	all   bool            // reads input in a way that can't be told in advance
	paths map[string]bool // "context.branch"; "" never
	rules map[*ast.Rule]bool
	data  []string  // paths in data that may be base documents
	refs  []ast.Ref // the same as references
}

// reachOf walks from the given rules of a compiled program.
func (p *program) reachOf(roots []*ast.Rule) *reach {
	r := &reach{paths: map[string]bool{}, rules: map[*ast.Rule]bool{}}
	for _, rule := range roots {
		p.walkRule(rule, r)
	}
	return r
}

func (p *program) walkRule(rule *ast.Rule, r *reach) {
	if r.rules[rule] {
		return
	}
	r.rules[rule] = true
	alias := aliases(rule)
	ast.WalkRefs(rule, func(ref ast.Ref) bool {
		head := ref[0]
		switch {
		case head.Equal(ast.InputRootDocument):
			if at, ok := alias.definitions[ref[0]]; ok && at {
				break // only the alias is defined here; its uses say what is read
			}
			r.read("", ref[1:])
		case head.Equal(ast.DefaultRootDocument):
			r.data, r.refs = append(r.data, strings.Join(constantPath(ref[1:]), ".")), append(r.refs, ref)
			for _, used := range p.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true}) {
				p.walkRule(used, r)
			}
		default:
			if v, ok := head.Value.(ast.Var); ok {
				if base, ok := alias.paths[v]; ok {
					r.read(base, ref[1:])
				}
			}
		}
		return false
	})
}

func (r *reach) read(base string, rest []*ast.Term) {
	path := constantPath(rest)
	if base != "" {
		path = append(strings.Split(base, "."), path...)
	}
	if len(path) == 0 {
		r.all = true
		return
	}
	r.paths[strings.Join(path, ".")] = true
}

// constantPath gives the leading elements that are plain names. A name with a
// dot in it ends the path, since paths are written with dots.
func constantPath(ref []*ast.Term) []string {
	var out []string
	for _, t := range ref {
		s, ok := t.Value.(ast.String)
		if !ok || s == "" || strings.Contains(string(s), ".") {
			break
		}
		out = append(out, string(s))
	}
	return out
}

// aliasSet names the variables of a rule that stand for a part of the input and
// of which only members are used: c := input.context; c.branch == "main" reads
// context.branch, not the whole context.
type aliasSet struct {
	paths       map[ast.Var]string
	definitions map[*ast.Term]bool
}

func aliases(rule *ast.Rule) aliasSet {
	out := aliasSet{paths: map[ast.Var]string{}, definitions: map[*ast.Term]bool{}}
	heads := map[ast.Var]*ast.Term{}
	ast.WalkExprs(rule, func(e *ast.Expr) bool {
		if !e.IsEquality() && !e.IsAssignment() || e.Negated || len(e.With) > 0 {
			return false
		}
		v, isVar := e.Operand(0).Value.(ast.Var)
		ref, isRef := e.Operand(1).Value.(ast.Ref)
		if !isVar || !isRef || !ref[0].Equal(ast.InputRootDocument) || len(constantPath(ref[1:])) != len(ref)-1 || len(ref) < 2 {
			return false
		}
		if _, twice := heads[v]; twice {
			out.paths[v] = ""
			return false
		}
		heads[v] = ref[0]
		out.paths[v] = strings.Join(constantPath(ref[1:]), ".")
		return false
	})
	if len(heads) == 0 {
		return out
	}
	uses, members := map[ast.Var]int{}, map[ast.Var]int{}
	vis := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			if v, ok := x[0].Value.(ast.Var); ok && len(x) > 1 {
				if _, named := x[1].Value.(ast.String); named {
					members[v]++
				}
			}
		case ast.Var:
			uses[x]++
		}
		return false
	})
	vis.Walk(rule)
	for v, head := range heads {
		// One use is the definition itself; all others must name a member.
		if out.paths[v] == "" || uses[v] != members[v]+1 {
			delete(out.paths, v)
			continue
		}
		out.definitions[head] = true
	}
	return out
}

// needs gives the read set in the words of package facts. A path that lies
// below another one says nothing more and is left out.
func (r *reach) needs() facts.Needs {
	if r.all {
		return facts.Needs{All: true}
	}
	var paths []string
	for p := range r.paths {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	var out []string
	for _, p := range paths {
		covered := slices.ContainsFunc(paths, func(q string) bool { return strings.HasPrefix(p, q+".") })
		if !covered {
			out = append(out, p)
		}
	}
	return facts.Needs{Paths: out}
}

// picker copies the parts of an input that a package reads. Its key terms are
// made once; the rest is made for each request.
type picker struct {
	all      bool
	name     string
	key      *ast.Term
	children []*picker
}

func newPicker(n facts.Needs) *picker {
	root := &picker{all: n.All}
	for _, p := range n.Paths {
		at := root
		for _, name := range strings.Split(p, ".") {
			at = at.child(name)
		}
		at.all = true
	}
	return root
}

func (p *picker) child(name string) *picker {
	for _, c := range p.children {
		if c.name == name {
			return c
		}
	}
	c := &picker{name: name, key: ast.StringTerm(name)}
	p.children = append(p.children, c)
	return c
}

// pick gives the part of v that is read, nil if there is none.
func (p *picker) pick(v document.Value) *ast.Term {
	if p.all || v.Kind() != document.Object {
		return termOf(v)
	}
	obj := ast.NewObjectWithCapacity(len(p.children))
	for _, c := range p.children {
		if t := c.pick(v.Get(c.name)); t != nil {
			obj.Insert(c.key, t)
		}
	}
	return ast.NewTerm(obj)
}
