package inventory

import (
	"slices"
	"strings"
)

// templateCall reads a use of a template: connections and secrets that are
// passed to it. The template itself is read as a file of its own when it is in the tree.
func (f *azFile) templateCall(n, t *node, c azCtx) {
	name := f.r.str(t)
	at := c.at("")
	if c.job == azStages || c.job == azJobs {
		f.called = c.job
		at.line = t.Line // another stage's jobs, whatever they are called in the template
	} else {
		at.step = name
	}
	if p := f.local(name); p == nil {
		f.r.open(at, t.Line, "template", name, "the template is not in the scanned tree: its steps, connections and machines can't be seen")
	} else if p.src != nil {
		f.setBy(p.src.text, c)
	}
	f.templateInputs(f.r.get(n, "parameters"), at, c.vars, name)
	f.nested(f.r.get(n, "parameters"), c, 0)
}

// groupsOfTemplates records the variable groups that only jobs of templates have.
func (f *azFile) groupsOfTemplates(c azCtx) {
	if f.called == "" {
		return
	}
	c.groups = slices.DeleteFunc(slices.Clone(c.groups), func(g azGroup) bool { return f.grouped[g.name] })
	c.job = f.called
	f.groupPaths(c)
}

// setBy defines the variables that the scripts of a template's steps set for the
// steps behind it: what they hold is made there, and kept nowhere.
func (f *azFile) setBy(text string, c azCtx) {
	for _, at := range setsVariable.FindAllStringIndex(text, -1) {
		name, _, ok := strings.Cut(text[at[1]:min(len(text), at[1]+100)], ";")
		if short, _, found := strings.Cut(name, "]"); found {
			name, ok = short, true
		}
		low := strings.ToLower(name)
		if _, defined := c.vars[low]; ok && !defined && c.vars != nil {
			c.vars[low] = azVar{}
		}
	}
}

// templateInputs records parameters that name connections or pass secrets; vars are those of the steps before.
func (f *azFile) templateInputs(params *node, at place, vars map[string]azVar, name string) {
	st := &azStep{f: f, at: at, c: azCtx{vars: vars}}
	f.templateInput(st, params, name, 0)
}

// azContext is where a job tells the template that it is put into what to publish for it.
const azContext = "templateContext"

// templateInput reads one level of parameters; lists of steps, jobs and stages are read as what they are, elsewhere.
func (f *azFile) templateInput(st *azStep, params *node, name string, depth int) {
	r, at := f.r, st.at
	to := f.oneHost(params)
	for k, v := range r.pairs(params) {
		if r.isMap(v) && depth < 6 && k.Value != "sdl" && k.Value != "pool" && (depth > 0 || k.Value != "parameters") {
			f.templateInput(st, v, name, depth+1)
		}
		if name == azContext && r.isList(v) && depth < 6 {
			for _, item := range f.list(v, "", 0) {
				f.templateInput(st, item.node, name, depth+1)
			}
		}
		if !r.isScalar(v) {
			continue
		}
		text := strings.TrimSpace(f.put(r.str(v), st.c.vars))
		if azConnection.MatchString(k.Value) && text != "" && !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			r.connection(at, v.Line, text, use{res: connectionResource(k.Value)}, "template parameter: "+k.Value)
			continue
		}
		for _, m := range macros(text) {
			st.macro(m.name, r.lineOf(v, m.start, m.name), envUse(k.Value).or(to), "template parameter: "+k.Value, natureOf(k.Value) == NatureCredential)
		}
	}
}

// oneHost gives what the only address among parameters leads to: where the secrets beside it are sent.
func (f *azFile) oneHost(params *node) use {
	var out use
	for _, v := range f.r.pairs(params) {
		text := f.r.str(v)
		if !strings.HasPrefix(text, "https://") || strings.ContainsAny(text, "$ ") {
			continue
		}
		if out.res.Kind != "" {
			return use{}
		}
		out.res = hostResource(text)
	}
	return out
}

// connectionResource tells from an input's name what its connection is to.
func connectionResource(key string) Resource {
	low := strings.ToLower(key)
	switch {
	case strings.Contains(low, "azure"), strings.Contains(low, "arm"), low == "connectedservicename":
		return Resource{"cloud/azure", unknown}
	case strings.Contains(low, "docker"), strings.Contains(low, "registry"):
		return Resource{"registry/container", unknown}
	case strings.Contains(low, "kubernetes"):
		return Resource{"k8s/cluster", unknown}
	case strings.Contains(low, "github"):
		return Resource{"vcs/github", unknown}
	case strings.Contains(low, "aws"):
		return Resource{"cloud/aws", unknown}
	case strings.Contains(low, "feed"), strings.Contains(low, "endpoint") && strings.Contains(low, "publish"):
		return Resource{"registry/package", unknown}
	}
	return Resource{unknown, unknown}
}

// nested reads stages, jobs and steps that are passed to a template.
func (f *azFile) nested(n *node, c azCtx, depth int) {
	if depth > 10 {
		return
	}
	for k, v := range f.r.pairs(n) {
		switch {
		case k.Value == "stages" && f.r.isList(v):
			f.stages(v, c)
		case k.Value == "jobs" && f.r.isList(v):
			f.jobs(v, c)
		case f.r.isList(v) && f.listOf(v, "stage"):
			f.stages(v, c)
		case f.r.isList(v) && f.listOf(v, "job", "deployment"):
			f.jobs(v, c)
		case (k.Value == "steps" || strings.HasSuffix(k.Value, "Steps") || strings.HasSuffix(k.Value, "_steps")) && f.r.isList(v):
			f.steps(v, c)
		case strings.HasPrefix(k.Value, "${{"), k.Value == "sdl", k.Value == "parameters":
			f.nested(v, c, depth+1)
		case k.Value == "pool" && depth == 0:
			c.pool = v
		}
	}
}

// listOf reports whether the items of a list are what one of the keys begins: stages, jobs.
func (f *azFile) listOf(n *node, keys ...string) bool {
	for item := range f.r.items(n) {
		for k := range f.r.pairs(item) {
			if slices.Contains(keys, k.Value) {
				return true
			}
			break
		}
	}
	return false
}

// extends reads a pipeline that extends a template: what it passes is the pipeline.
func (f *azFile) extends(ext *node, c azCtx) {
	t := f.r.get(ext, "template")
	if t == nil {
		return
	}
	name := f.r.str(t)
	if f.local(name) == nil {
		f.r.open(c.at(""), t.Line, "template", name, "the template that the pipeline extends is not in the scanned tree: its steps, connections and machines can't be seen")
	}
	params := f.r.get(ext, "parameters")
	if p := f.r.get(params, "pool"); p != nil {
		c.pool = p
	}
	top := c
	top.job = "(extends)"
	f.templateInputs(params, top.at(""), nil, name)
	if sdl := f.r.get(params, "sdl"); sdl != nil {
		f.templateInputs(sdl, top.at(""), nil, name)
	}
	f.nested(params, c, 0)
	if !slices.ContainsFunc(f.r.paths, func(p Path) bool { return p.Credential.Kind == Ambient }) {
		f.pool(c.pool, &top) // jobs that templates bring run there
	}
	if len(f.r.paths) == 0 && len(c.groups) > 0 {
		f.groupPaths(top)
	}
}
