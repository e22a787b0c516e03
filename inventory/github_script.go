package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

// Scripts of steps, with what their placeholders refer to.

// prepareScript reads a script with its placeholders turned into variables.
func (j *ghJob) prepareScript(s *ghStep) {
	r := j.w.r
	text := r.str(s.run)
	s.holes, s.asked = make(map[string][]ghRef), make(map[string]bool)
	if strings.Contains(text, "${{") {
		var b strings.Builder
		last := 0
		for i, p := range placeholders(text) {
			refs := j.w.exprRefs(parseExpr(p.body), p.start, j.matrix, nil)
			b.WriteString(text[last:p.start])
			if text := j.expand(s, text[p.start:p.end]); len(refs) == 1 && plainHost.MatchString(text) {
				b.WriteString(text)
			} else if len(refs) > 0 {
				name := holeName(i, refs)
				s.holes[name] = refs
				s.asked[name] = compares(p.body)
				b.WriteString("${" + name + "}")
			} else {
				b.WriteString("X")
			}
			b.WriteString(strings.Repeat("\n", strings.Count(text[p.start:p.end], "\n")))
			last = p.end
		}
		b.WriteString(text[last:])
		text = b.String()
	}
	s.facts = readScriptIn(text, nil, j.literals(s))
	s.facts.nameHoles()
	for _, u := range s.facts.uses {
		if !u.slot && !u.use.known() {
			continue
		}
		j.noteUse(u.name, u.use)
		for _, ref := range s.holes[u.name] {
			if ref.kind == refEnv {
				j.noteUse(ref.name, u.use)
			}
		}
	}
}

// literals gives the variables that the environments of a step set to a literal.
func (j *ghJob) literals(s *ghStep) map[string]string {
	out := make(map[string]string)
	for _, env := range [][]ghEnv{j.w.env, j.env, s.env} {
		for _, e := range env {
			if text := j.w.r.str(e.node); !strings.Contains(text, "${{") {
				out[e.name] = text
			} else {
				delete(out, e.name)
			}
		}
	}
	return out
}

// holeName names the variable that stands in a script for a placeholder: its number, and what it refers to.
func holeName(i int, refs []ghRef) string {
	name := fmt.Sprintf("__G%d", i)
	if len(refs) == 1 {
		name += "__" + notName.ReplaceAllString(refs[0].name[strings.LastIndexByte(refs[0].name, '.')+1:], "_")
	}
	return name
}

var (
	notName  = regexp.MustCompile(`\W`)
	holeText = regexp.MustCompile(`\$\{__G\d+(?:__(\w+))?\}`)
)

// nameHoles gives resources that are named by a placeholder the name of what it refers to.
func (f *facts) nameHoles() {
	fix := func(res *Resource) {
		if strings.Contains(res.Name, "${__G") {
			res.Name = holeText.ReplaceAllString(res.Name, "$$$1")
		}
	}
	for i := range f.uses {
		fix(&f.uses[i].use.res)
	}
	for i := range f.actors {
		fix(&f.actors[i].res)
	}
	for i := range f.exchanges {
		fix(&f.exchanges[i].res)
	}
	for i := range f.fetched {
		fix(&f.fetched[i].res)
	}
}
