package inventory

import (
	"slices"
	"strings"
)

// Functions and closures of a pipeline's own file. Both are read where they
// are called, with what they are given there: only that place tells the stage,
// its conditions, and the ids that were passed. What nothing calls is read
// where it stands.

// jkClosure is a closure with a name: name = { ... }.
type jkClosure struct {
	name string
	at   *jkCtx // where it was met; nil before
}

// value reports whether a call stands for the value of a statement: what is
// assigned, or given back. "return { ... }" is a call like any other.
func (c *gCall) value() bool { return (c.name == "=" || c.name == "return") && len(c.args) > 0 }

// closureOf gives the closure of a value that is nothing else.
func closureOf(v gValue) *gCall {
	if c := v.call; c != nil && c.name == "" && c.args == nil && c.body != nil && v.parts == nil && v.list == nil {
		return c
	}
	return nil
}

// define notes a function, or a closure that is kept under a plain name. A name
// that is given several closures may be any of them.
func (f *jkFile) define(name string, c *gCall) {
	if old := f.funcs[name]; old != nil && old != c {
		both := *old
		both.body = append(slices.Clone(old.body), c.body...)
		if both.params == nil {
			both.params = c.params
		}
		c = &both
	}
	f.funcs[name] = c
}

// callee gives the function of the file that a call means.
func (f *jkFile) callee(c *gCall) (string, *gCall) {
	name := strings.TrimSuffix(strings.TrimPrefix(c.name, "this."), ".call")
	if fn := f.funcs[name]; fn != nil && name != "call" && name != "main" && !c.isDef {
		return name, fn
	}
	return name, nil
}

// invoke reads a function where it is called. The names of its parameters
// stand for what it is given, for as long as it is read.
func (f *jkFile) invoke(name string, fn, c *gCall, ctx jkCtx) {
	f.called[name] = true
	if f.active[name] {
		return // it calls itself
	}
	f.active[name] = true
	restore := f.bind(fn, c)
	f.block(fn.body, ctx)
	restore()
	delete(f.active, name)
}

// bind gives parameters their values; what it gives back takes them away again.
func (f *jkFile) bind(fn, c *gCall) (restore func()) {
	if len(fn.params) == 0 {
		return func() {}
	}
	given := make(map[string][]string)
	i := 0
	for _, p := range fn.params {
		if c.line > 0 { // nobody calls it here: what the file says of the name may hold
			given[p.name] = nil
		}
		if p.def != "" {
			given[p.name] = []string{p.def}
		}
	}
	first := fn.params[0].name
	entry := func(key string, v gValue) {
		if ids := f.ids(v); len(ids) > 0 {
			given[first+"."+key] = ids
		}
	}
	for _, a := range c.args {
		switch {
		case a.key != "": // named arguments are a map, the first parameter
			entry(a.key, a.val)
			i = max(i, 1)
		case i < len(fn.params):
			if ids := f.ids(a.val); len(ids) > 0 || fn.params[i].def == "" {
				given[fn.params[i].name] = ids
			}
			for _, l := range a.val.list {
				if l.key != "" && i == 0 {
					entry(l.key, l.val)
				}
			}
			i++
		}
	}
	old := make(map[string][]string, len(given))
	for name, ids := range given {
		old[name] = f.consts[name]
		f.consts[name] = ids
	}
	return func() {
		for name, ids := range old {
			if f.consts[name] = ids; ids == nil {
				delete(f.consts, name)
			}
		}
	}
}

// results gives the texts that a function can give back.
func (f *jkFile) results(name string, fn *gCall) []string {
	if f.active["result of "+name] {
		return nil
	}
	f.active["result of "+name] = true
	defer delete(f.active, "result of "+name)
	var out []string
	for _, v := range answers(fn) {
		for _, s := range f.ids(v) {
			out = appendNew(out, s)
		}
	}
	return out
}

// answers gives the values that a function can give back.
func answers(fn *gCall) []gValue {
	var out []gValue
	var walk func([]*gCall, int)
	walk = func(calls []*gCall, depth int) {
		for i, c := range calls {
			if c.name == "return" && c.value() && (c.text == "return" || i == len(calls)-1) {
				out = append(out, c.args[0].val)
			}
			if depth < 10 && closureOf(gValue{call: c}) == nil {
				walk(c.body, depth+1)
			}
		}
	}
	walk(fn.body, 0)
	return out
}

// step gives the function behind a step of the library that the file belongs to: vars/name.groovy above it.
func (f *jkFile) step(name string) *gCall {
	if fn, ok := f.library[name]; ok {
		return fn
	}
	if f.library == nil {
		f.library = make(map[string]*gCall)
	}
	f.library[name] = nil
	if name == "" || strings.ContainsAny(name, "./") {
		return nil
	}
	if file := f.r.above("vars/" + name + ".groovy"); file != "" {
		for _, c := range parseGroovy(f.r.tree.text(file)) {
			if c.isDef && c.name == "call" {
				f.library[name] = c
			}
		}
	}
	return f.library[name]
}

// brings gives the bindings that a function or a step of the library gives back, at the line where they are taken.
func (f *jkFile) brings(c *gCall) []gValue {
	_, fn := f.callee(c)
	if fn == nil {
		fn = f.step(c.name)
	}
	if fn == nil {
		return nil
	}
	out := answers(fn)
	for i := range out {
		out[i] = out[i].moved(c.line, 0)
	}
	return out
}

// moved gives a value as if it stood on another line.
func (v gValue) moved(line, depth int) gValue {
	v.line = line
	if depth > 20 {
		return v
	}
	v.list, v.parts = slices.Clone(v.list), slices.Clone(v.parts)
	for i := range v.list {
		v.list[i].val = v.list[i].val.moved(line, depth+1)
	}
	for i := range v.parts {
		v.parts[i] = v.parts[i].moved(line, depth+1)
	}
	if v.call != nil {
		c := *v.call
		c.line = line
		c.args = slices.Clone(c.args)
		for i := range c.args {
			c.args[i].val = c.args[i].val.moved(line, depth+1)
		}
		v.call = &c
	}
	return v
}

// inOrder gives the functions as they stand in the file.
func (f *jkFile) inOrder() []string {
	names := sortedKeys(f.funcs)
	slices.SortStableFunc(names, func(a, b string) int { return f.funcs[a].line - f.funcs[b].line })
	return names
}

// uncalled reads the functions that nothing in the file calls, and the
// closures that are handed on by their name, where they stand.
func (f *jkFile) uncalled(ctx jkCtx) {
	met := make(map[string]*gCall)
	for body, c := range f.closures {
		if first := met[c.name]; c.at != nil && (first == nil || body.line < first.line) {
			met[c.name] = body
		}
	}
	for _, roots := range []bool{true, false} { // who calls others comes first
		for _, name := range f.inOrder() {
			if f.called[name] || roots && f.mentioned[name] {
				continue
			}
			at := ctx
			if body := met[name]; body != nil {
				at = *f.closures[body].at
			}
			f.invoke(name, f.funcs[name], &gCall{}, at)
		}
	}
}
