package inventory

import "strings"

// Functions of a file that the pipeline loads: tools = load 'ci/tools.groovy'.
// The file is a pipeline of its own to this reader, but only the place that
// calls a function tells the stage, so what it does is told there too.

// jkLoaded is a loaded file.
type jkLoaded struct {
	text  string
	calls []*gCall
}

// Bounds of the calls of loaded functions that are read in one file: each looks
// over the whole loaded file again.
const (
	maxLent      = 200
	maxLentBytes = 16 << 20
)

// loads notes the name that a loaded file of the tree has.
func (f *jkFile) loads(c *gCall) {
	load := c.args[0].val.call
	if f.borrowed || load == nil || len(c.args[0].val.parts) > 0 || load.name != "load" || strings.Contains(c.assign, ".") {
		return
	}
	v := positional(load, 0)
	file := f.r.above(strings.TrimPrefix(v.str, "./"))
	if !v.isStr || v.gstr || file == "" || file == f.r.src.path || f.loaded[c.assign] != nil {
		return
	}
	text := f.r.tree.text(file)
	f.loaded[c.assign] = &jkLoaded{text, parseGroovy(text)}
}

// lent reads a function of a loaded file where it is called, and reports whether it is one.
func (f *jkFile) lent(c *gCall, ctx jkCtx) bool {
	of, name, ok := strings.Cut(c.name, ".")
	file := f.loaded[of]
	if !ok || file == nil || c.isDef {
		return false
	}
	if f.lentBytes += len(file.text); f.lend >= maxLent || f.lentBytes > maxLentBytes {
		f.r.open(ctx.place(), c.line, "loaded file", of, "more functions of loaded files are called than are followed from one file; the loaded file is read by itself")
		return false
	}
	r := &reader{src: &source{path: f.r.src.path, repo: f.r.src.repo, text: file.text}, ci: f.r.ci, tree: f.r.tree}
	lib := newJenkins(r, file.calls)
	lib.budget, lib.borrowed = f.budget, true
	lib.prepare()
	fn := lib.funcs[strings.TrimSuffix(name, ".call")]
	if fn == nil || !fn.isDef {
		return false
	}
	f.lend++
	inner := ctx
	inner.covered = ctx.covered || brings(fn.body, 0)
	f.arguments(c, ctx)
	f.nestedCalls(c, ctx)
	f.block(c.body, inner)
	lib.calls, lib.assigned = lib.within(fn), nil
	lib.invoke(name, fn, f.settled(c), ctx)
	lib.settle()
	f.budget = lib.budget
	for _, p := range r.paths {
		at := ctx.place()
		at.job, at.reach, at.runner = p.Job, p.Reach, p.Runner
		if p.Credential.Name == unknown {
			at.part = c.name
		}
		f.r.add(at, c.line, p.Credential, use{res: p.Resource}, c.name)
	}
	for _, u := range r.unresolved {
		if u.Kind == "credential id" {
			f.r.open(ctx.place(), c.line, u.Kind, u.Name, u.Why)
		}
	}
	return true
}

// settled gives a call with the texts that its arguments stand for: another file doesn't know its names.
func (f *jkFile) settled(c *gCall) *gCall {
	out := &gCall{name: c.name, line: c.line}
	for _, a := range c.args {
		a.val = f.settledValue(a.val)
		out.args = append(out.args, a)
	}
	return out
}

// settledValue gives the one text that a value stands for here, or the value as it is.
func (f *jkFile) settledValue(v gValue) gValue {
	if ids := f.ids(v); len(ids) == 1 {
		return gValue{str: ids[0], isStr: true, line: v.line}
	}
	return v
}

// within gives the calls of a file without the functions that one of them doesn't call: what those keep under a name is not meant.
func (f *jkFile) within(fn *gCall) []*gCall {
	used := make(map[*gCall]bool)
	var walk func([]*gCall, int)
	walk = func(calls []*gCall, depth int) {
		for _, c := range calls {
			if _, next := f.callee(c); next != nil && !used[next] && depth < 30 {
				used[next] = true
				walk(next.body, depth+1)
			}
			for _, a := range c.args {
				walk(a.val.calls(), depth+1)
			}
			walk(c.body, depth+1)
		}
	}
	used[fn] = true
	walk(fn.body, 0)
	var out []*gCall
	for _, c := range f.calls {
		if !c.isDef || used[c] {
			out = append(out, c)
		}
	}
	return out
}
