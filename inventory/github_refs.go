package inventory

import (
	"slices"
	"strconv"
	"strings"
)

// refKind is what an expression of GitHub Actions refers to.
type refKind uint8

const (
	refSecret  refKind = iota // name
	refToken                  // the job's token, by any of its names
	refAll                    // toJSON(secrets), or the whole context in another way
	refDynamic                // secrets[expression] that no literal settles
	refOutput                 // an output of a step: name is "step.output"
	refEnv                    // env.name
	refInput                  // inputs.name
)

// ghRef is one reference in a text.
type ghRef struct {
	kind   refKind
	name   string
	offset int // of its placeholder in the text
}

// platformTokens are the names under which the job's own token is a secret.
func isPlatformToken(ci CI, name string) bool {
	switch strings.ToUpper(name) {
	case "GITHUB_TOKEN":
		return true
	case "GITEA_TOKEN", "FORGEJO_TOKEN", "ACTIONS_TOKEN":
		return ci == Forgejo
	}
	return false
}

// refsIn gives what the placeholders of a text refer to. bare reads the whole
// text as an expression when it has no placeholder, as `if:` allows.
func (w *ghWorkflow) refsIn(text string, bare bool, matrix matrixValues) []ghRef {
	if !strings.Contains(text, "${{") {
		if !bare || text == "" {
			return nil
		}
		return w.exprRefs(parseExpr(text), 0, matrix, nil)
	}
	var out []ghRef
	for _, p := range placeholders(text) {
		if !strings.ContainsAny(p.body, ".[(") && !strings.Contains(p.body, "secrets") {
			continue
		}
		out = w.exprRefs(parseExpr(p.body), p.start, matrix, out)
	}
	return out
}

// exprRefs appends the references of an expression.
func (w *ghWorkflow) exprRefs(e *expr, offset int, matrix matrixValues, out []ghRef) []ghRef {
	e.each(func(x *expr) bool {
		switch x.op {
		case opVar:
			if strings.EqualFold(x.name, "secrets") {
				out = append(out, ghRef{refAll, "*", offset})
			}
		case opStar:
			if p := x.path(); strings.EqualFold(p, "secrets.*") {
				out = append(out, ghRef{refAll, "*", offset})
				return false
			}
		case opProp, opIndex:
			if path := x.path(); path != "" {
				if ref, ok := w.pathRef(path, offset); ok {
					out = append(out, ref)
				}
				return false
			}
			if x.op == opIndex && strings.EqualFold(x.args[0].path(), "secrets") {
				out = append(out, w.dynamicRefs(x.args[1], offset, matrix)...)
				return false
			}
		}
		return true
	})
	return out
}

// pathRef reads a dotted name.
func (w *ghWorkflow) pathRef(path string, offset int) (ghRef, bool) {
	base, rest, ok := strings.Cut(path, ".")
	if !ok {
		return ghRef{}, false
	}
	switch strings.ToLower(base) {
	case "secrets":
		if isPlatformToken(w.r.ci, rest) {
			return ghRef{refToken, strings.ToUpper(rest), offset}, true
		}
		return ghRef{refSecret, rest, offset}, true
	case "github", "gitea", "forge", "forgejo":
		if strings.EqualFold(rest, "token") {
			return ghRef{refToken, "GITHUB_TOKEN", offset}, true
		}
	case "env":
		return ghRef{refEnv, rest, offset}, true
	case "inputs":
		return ghRef{refInput, rest, offset}, true
	case "steps":
		if id, out, ok := strings.Cut(rest, "."); ok {
			return ghRef{refOutput, id + "." + strings.TrimPrefix(out, "outputs."), offset}, true
		}
	}
	return ghRef{}, false
}

// dynamicRefs settles secrets[expression]: the values of the matrix, the string
// literals of a choice, or format() over them; else the name is dynamic.
func (w *ghWorkflow) dynamicRefs(ix *expr, offset int, matrix matrixValues) []ghRef {
	var out []ghRef
	for _, name := range candidates(ix, matrix) {
		if !isEnvName(name) {
			continue
		}
		if isPlatformToken(w.r.ci, name) {
			out = append(out, ghRef{refToken, name, offset})
			continue
		}
		out = append(out, ghRef{refSecret, name, offset})
	}
	if len(out) == 0 {
		return []ghRef{{refDynamic, firstOf(computedName(ix), unknown), offset}}
	}
	return out
}

// computedName writes a name that only a run settles with what it is made of: APP_${{ inputs.target }}_KEY.
func computedName(ix *expr) string {
	if p := ix.path(); strings.Contains(p, ".") {
		return "${{ " + p + " }}"
	}
	if ix.op != opCall || ix.name != "format" || len(ix.args) == 0 || ix.args[0].op != opString {
		return ""
	}
	out := ix.args[0].name
	for i, a := range ix.args[1:] {
		part := computedName(a)
		if a.op == opString {
			part = a.name
		}
		if part == "" {
			return ""
		}
		out = strings.ReplaceAll(out, "{"+strconv.Itoa(i)+"}", part)
	}
	return out
}

// computed reports whether the name of a credential is settled when the job runs.
func (c *Credential) computed() bool {
	return c.Name == unknown || strings.Contains(c.Name, "${{")
}

// maxCandidates bounds what an expression may expand to.
const maxCandidates = 64

// candidates gives the values that an expression can have, as far as literals and the matrix tell.
func candidates(e *expr, matrix matrixValues) []string {
	switch e.op {
	case opString:
		return []string{e.name}
	case opOr:
		return append(candidates(e.args[0], matrix), candidates(e.args[1], matrix)...)
	case opAnd:
		return candidates(e.args[1], matrix)
	case opProp, opIndex:
		path := strings.TrimPrefix(e.path(), "github.event.")
		if name, ok := strings.CutPrefix(path, "matrix."); ok {
			return matrix[name]
		}
		if strings.HasPrefix(path, "inputs.") || strings.HasPrefix(path, "env.") {
			return matrix[path]
		}
	case opCall:
		if e.name != "format" || len(e.args) == 0 {
			return nil
		}
		out := candidates(e.args[0], matrix)
		for i, a := range e.args[1:] {
			hole := "{" + string(rune('0'+i)) + "}"
			values := candidates(a, matrix)
			var next []string
			for _, f := range out {
				if !strings.Contains(f, hole) {
					next = append(next, f)
					continue
				}
				for _, v := range values {
					if len(next) < maxCandidates {
						next = append(next, strings.ReplaceAll(f, hole, v))
					}
				}
			}
			out = next
		}
		return out
	}
	return nil
}

// matrixValues are the values of each key of a job's matrix, and of what else has known ones.
type matrixValues map[string][]string

// readMatrix collects the values of a matrix, from its lists and its includes.
func (v *view) readMatrix(strategy *node) matrixValues {
	m := v.get(strategy, "matrix")
	if !v.isMap(m) {
		return nil
	}
	out := make(matrixValues)
	for k, val := range v.pairs(m) {
		switch k.Value {
		case "include":
			for inc := range v.items(val) {
				for ik, iv := range v.pairs(inc) {
					v.matrixValue(out, ik.Value, iv)
				}
			}
		case "exclude":
		default:
			for item := range v.items(val) {
				v.matrixValue(out, k.Value, item)
			}
		}
	}
	return out
}

// matrixValue adds one value; a mapping adds its fields as key.field.
func (v *view) matrixValue(out matrixValues, key string, val *node) {
	if v.isMap(val) {
		for k, x := range v.pairs(val) {
			if s := v.str(x); s != "" && len(out[key+"."+k.Value]) < maxCandidates {
				out[key+"."+k.Value] = append(out[key+"."+k.Value], s)
			}
		}
		return
	}
	for _, s := range v.strs(val) {
		if len(out[key]) < maxCandidates {
			out[key] = append(out[key], s)
		}
	}
}

// settle adds what else has known values to those of the matrix: what a choice
// of an input offers, and literals of the environment, under their whole names.
func (j *ghJob) settle() {
	r, known := j.w.r, make(matrixValues)
	for k, v := range j.matrix {
		known[k] = v
	}
	called := make(map[string]bool) // with a text, which may be any
	for _, e := range j.w.events {
		for k := range r.pairs(r.get(e.node, "inputs")) {
			called[k.Value] = called[k.Value] || e.name == "workflow_call"
		}
	}
	for _, e := range j.w.events {
		for k, in := range r.pairs(r.get(e.node, "inputs")) {
			if e.name == "workflow_dispatch" && !called[k.Value] && r.str(r.get(in, "type")) == "choice" {
				r.matrixValue(known, "inputs."+k.Value, r.get(in, "options"))
			}
		}
	}
	for _, e := range slices.Concat(j.w.env, j.env) {
		if v := r.str(e.node); v != "" && !strings.Contains(v, "${{") {
			known["env."+e.name] = []string{v}
		}
	}
	j.matrix = known
}
