package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// rulesAt gives the rules, as their authors wrote them, that a reference into
// data names or leads into, and what of the reference is left below them.
func (p *program) rulesAt(ref ast.Ref) (rules []*ast.Rule, rest ast.Ref) {
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return nil, nil
	}
	for n := 2; n <= len(ref); n++ {
		if rules := p.sourceRules(ref[:n]); len(rules) > 0 {
			return rules, ref[n:]
		}
	}
	return nil, nil
}

// sourceRules gives the rules with exactly this path.
func (p *program) sourceRules(ref ast.Ref) []*ast.Rule {
	return p.index[ref.String()]
}

// restsOn reports whether what a reference into data names is computed from
// the input, and whether from data.json.
func (p *program) restsOn(ref ast.Ref) (input, data bool) {
	r := &reach{paths: map[string]bool{}, rules: map[*ast.Rule]bool{}}
	for _, rule := range p.compiler.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true}) {
		p.walkRule(rule, r)
	}
	input = r.all || len(r.paths) > 0
	for _, path := range r.refs {
		data = data || p.hasData(path)
	}
	return input, data || p.hasData(ref)
}

// hasData reports whether a reference leads into data.json.
func (p *program) hasData(ref ast.Ref) bool {
	at := ast.NewTerm(p.data)
	for _, t := range ref[1:] {
		obj, ok := at.Value.(ast.Object)
		if !ok {
			return true
		}
		if _, named := t.Value.(ast.String); !named {
			return obj.Len() > 0
		}
		if at = obj.Get(t); at == nil {
			return false
		}
	}
	return true
}
