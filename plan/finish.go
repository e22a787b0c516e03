package plan

import (
	"slices"
)

// finish writes what needs all items: foundations, variables, the whole
// configuration, PLAN.md.
func (p *planner) finish(_ []Tree) {
	for _, write := range p.last {
		write()
	}
	p.configuration()
	p.variablesRego()
	if tf := p.variablesTF(); tf != "" {
		p.file("trust/variables.tf", tf, false)
	}
	p.plan.Foundations = []Foundation{}
	for _, id := range sortedKeys(p.fronts) {
		p.plan.Foundations = append(p.plan.Foundations, *p.fronts[id])
	}
	for _, key := range sortedKeys(p.vars) {
		v := *p.vars[key]
		if len(v.In) == 0 {
			continue
		}
		slices.Sort(v.In)
		v.In = slices.Compact(v.In)
		p.plan.Variables = append(p.plan.Variables, v)
	}
	p.listWaves()
	p.file("PLAN.md", p.plan.Markdown(), false)
	for _, name := range sortedKeys(p.files) {
		p.plan.Files = append(p.plan.Files, *p.files[name])
	}
}
