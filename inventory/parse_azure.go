package inventory

import (
	_ "embed"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Azure Pipelines. Pipelines, and templates of steps, jobs, stages and
// variables, read each in its own file; `${{ if }}` keys are opened and their
// conditions kept. Whether a service connection is federated is known only to
// the server.

//go:embed tables/tasks.tbl
var tasksTable string

var taskRows = sync.OnceValue(func() *table { return parseTable(tasksTable) })

// azFile is one pipeline or template.
type azFile struct {
	r        *reader
	root     *node
	params   map[string]*node // defaults of parameters
	template bool             // it is a template: its caller decides who can start it
	base     Reach
	grouped  map[string]bool // the variable groups that a path was recorded for
	called   string          // what the last template was put in the place of: stages, jobs
}

// azCtx is what holds at one level and for all below it.
type azCtx struct {
	job    string
	reach  Reach
	runner Runner
	pool   *node
	vars   map[string]azVar
	groups []azGroup
	// onMachine is set when the job runs on a machine of its environment, not on a pool.
	onMachine bool
	each      string // the compile-time conditions and loops that it stands under
}

// azVar is a variable that the file defines.
type azVar struct {
	text   string
	source string // where its value comes from, when a step fetched it
}

// azGroup is a variable group with its line.
type azGroup struct {
	name string
	line int
}

// Names of jobs that have none.
const (
	azStepsTemplate = "(steps template)"
	azVarsTemplate  = "(variables template)"
	azStages        = "(stages template)"
	azJobs          = "(jobs template)"
	azResources     = "(resources)"
	azOnlyJob       = "Job"
)

func readAzure(r *reader, docs []*node) {
	for _, root := range docs {
		if !r.isMap(root) {
			if r.isList(root) {
				f := &azFile{r: r, root: root, template: true, base: Reach{Trust: TrustUnknown}}
				f.steps(root, f.start(azStepsTemplate))
			}
			continue
		}
		f := &azFile{r: r, root: root}
		f.read()
	}
}

// start gives the context of the whole file.
func (f *azFile) start(job string) azCtx {
	return azCtx{job: job, reach: f.base, vars: make(map[string]azVar)}
}

func (f *azFile) read() {
	r := f.r
	f.params = make(map[string]*node)
	params := r.get(f.root, "parameters")
	for k, v := range r.pairs(params) {
		f.params[k.Value] = v
	}
	for p := range r.items(params) {
		if name := r.str(r.get(p, "name")); name != "" {
			f.params[name] = r.get(p, "default")
		}
	}
	isPipeline := r.get(f.root, "trigger") != nil || r.get(f.root, "pr") != nil || r.get(f.root, "schedules") != nil || r.get(f.root, "resources") != nil || strings.HasPrefix(path.Base(r.src.path), "azure-pipelines")
	f.template = !isPipeline && r.get(f.root, "parameters") != nil
	f.base = f.triggers(isPipeline)
	f.resources()
	c := f.start(azOnlyJob)
	c.pool = r.get(f.root, "pool")
	c = f.variables(r.get(f.root, "variables"), c)
	ran := false
	for _, key := range []string{"stages", "jobs", "steps"} {
		if n := r.get(f.root, key); n != nil {
			ran = true
			f.level(key, n, c, isPipeline)
		}
	}
	if ext := r.get(f.root, "extends"); ext != nil {
		ran = true
		f.extends(ext, c)
	}
	if !ran && len(c.groups) > 0 {
		c.job = azVarsTemplate
		f.groupPaths(c)
	}
	f.groupsOfTemplates(c)
}

// level reads stages, jobs or steps.
func (f *azFile) level(key string, n *node, c azCtx, isPipeline bool) {
	switch key {
	case "stages":
		f.stages(n, c)
	case "jobs":
		f.jobs(n, c)
	case "steps":
		if !isPipeline && (f.template || f.r.get(f.root, "pool") == nil && f.r.get(f.root, "variables") == nil) {
			c.job = azStepsTemplate
		}
		f.jobPaths(f.root, c.pool, &c)
		f.steps(n, c)
	}
}

// triggers tells who can start the pipeline by the file alone.
func (f *azFile) triggers(isPipeline bool) Reach {
	r := f.r
	if !isPipeline {
		return Reach{Trust: TrustUnknown}
	}
	out := Reach{Trust: TrustUnknown}
	trig, pr := r.get(f.root, "trigger"), r.get(f.root, "pr")
	none := func(n *node) bool { return n != nil && strings.EqualFold(r.str(n), "none") }
	if trig == nil || !none(trig) {
		out.Events = append(out.Events, "push")
	}
	if !none(pr) {
		out.Events = append(out.Events, "pull_request")
	}
	if r.get(f.root, "schedules") != nil {
		out.Events = append(out.Events, "schedule")
	}
	if none(pr) {
		out.Trust = Protected
		if len(out.Events) == 0 {
			out.Events = []string{"manual"}
		}
	}
	return out
}

// azItem is an entry of a list, with the compile-time conditions that it stands under.
type azItem struct {
	node *node
	cond string
}

// list opens `${{ if }}:` and `${{ each }}:` keys of a list.
func (f *azFile) list(n *node, cond string, depth int) []azItem {
	var out []azItem
	if depth > 20 {
		return nil
	}
	for item := range f.r.items(n) {
		if item == nil {
			continue
		}
		if f.r.isMap(item) && len(item.Content) >= 2 && strings.HasPrefix(item.Content[0].Value, "${{") {
			for k, v := range f.r.pairs(item) {
				if strings.HasPrefix(k.Value, "${{") {
					out = append(out, f.list(v, cond+" "+k.Value, depth+1)...)
				}
			}
			continue
		}
		if f.r.isList(item) {
			out = append(out, f.list(item, cond, depth+1)...)
			continue
		}
		out = append(out, azItem{item, cond})
	}
	return out
}

// stages reads a list of stages.
func (f *azFile) stages(n *node, c azCtx) {
	for _, item := range f.list(n, "", 0) {
		s := c
		s.reach = guard(guard(c.reach, item.cond), c.condition(f.r.str(f.r.get(item.node, "condition"))))
		if t := f.r.get(item.node, "template"); t != nil {
			s.job = firstOf(f.r.str(f.r.get(item.node, "stage")), azStages)
			f.templateCall(item.node, t, s)
			continue
		}
		if p := f.r.get(item.node, "pool"); p != nil {
			s.pool = p
		}
		s = f.variables(f.r.get(item.node, "variables"), s)
		f.jobs(f.r.get(item.node, "jobs"), s)
		if own := s; len(s.groups) > len(c.groups) {
			own.groups = s.groups[len(c.groups):]
			f.groupsOfTemplates(own)
		}
		if steps := f.r.get(item.node, "steps"); steps != nil {
			s.job = firstOf(f.r.str(f.r.get(item.node, "stage")), azOnlyJob)
			f.jobPaths(item.node, s.pool, &s)
			f.steps(steps, s)
		}
	}
}

// jobs reads a list of jobs.
func (f *azFile) jobs(n *node, c azCtx) {
	r := f.r
	for i, item := range f.list(n, "", 0) {
		j := c
		j.reach = guard(guard(c.reach, item.cond), c.condition(r.str(r.get(item.node, "condition"))))
		if t := r.get(item.node, "template"); t != nil {
			j.job = azJobs
			f.templateCall(item.node, t, j)
			continue
		}
		j.job = firstOf(r.str(r.get(item.node, "job")), r.str(r.get(item.node, "deployment")), r.str(r.get(item.node, "displayName")), numbered(azOnlyJob, i+1))
		if env := r.get(item.node, "environment"); env != nil {
			name := firstOf(r.str(env), r.str(r.get(env, "name")))
			j.reach.Environment = f.text(name)
			f.machineOf(env, &j)
		}
		if p := r.get(item.node, "pool"); p != nil {
			j.pool = p
		}
		j.each += item.cond
		j = f.variables(r.get(item.node, "variables"), j)
		f.jobPaths(item.node, j.pool, &j)
		f.steps(r.get(item.node, "steps"), j)
		f.strategy(r.get(item.node, "strategy"), j)
		if p := r.get(item.node, azContext); p != nil {
			f.templateInputs(p, j.at(""), j.vars, azContext)
		}
	}
}

func numbered(s string, n int) string {
	if n == 1 {
		return s
	}
	return s + string(rune('0'+n%10))
}

// strategy reads the hooks of a deployment.
func (f *azFile) strategy(n *node, c azCtx) {
	for _, kind := range f.r.pairs(n) {
		for hook, h := range f.r.pairs(kind) {
			if steps := f.r.get(h, "steps"); steps != nil {
				f.steps(steps, c)
			} else if hook.Value == "on" {
				for _, o := range f.r.pairs(h) {
					f.steps(f.r.get(o, "steps"), c)
				}
			}
		}
	}
}

// at gives the place of a step.
func (c azCtx) at(step string) place {
	return place{job: c.job, step: step, reach: c.reach, runner: c.runner}
}

// variables adds a block of variables, in its list or its mapping form.
func (f *azFile) variables(n *node, c azCtx) azCtx {
	if n == nil {
		return c
	}
	r := f.r
	vars := make(map[string]azVar, len(c.vars)+8)
	for k, v := range c.vars {
		vars[k] = v
	}
	c.vars = vars
	c.groups = slices.Clip(c.groups)
	if r.isMap(n) {
		for k, v := range r.pairs(n) {
			if strings.HasPrefix(k.Value, "${{") {
				for k2, v2 := range r.pairs(v) {
					vars[strings.ToLower(k2.Value)] = azVar{text: r.str(v2)}
				}
				continue
			}
			vars[strings.ToLower(k.Value)] = azVar{text: r.str(v)}
		}
		return c
	}
	for _, item := range f.list(n, "", 0) {
		switch {
		case r.get(item.node, "group") != nil:
			g := r.get(item.node, "group")
			c.groups = append(c.groups, azGroup{f.text(r.str(g)), g.Line})
		case r.get(item.node, "template") != nil:
			t := r.get(item.node, "template")
			c = f.variableTemplate(t, c)
		default:
			vars[strings.ToLower(r.str(r.get(item.node, "name")))] = azVar{text: r.str(r.get(item.node, "value"))}
		}
	}
	return c
}

// variableTemplate takes the variables and groups of a template of the same tree.
func (f *azFile) variableTemplate(t *node, c azCtx) azCtx {
	p := f.local(f.r.str(t))
	if p == nil {
		f.r.open(place{job: c.job}, t.Line, "template", f.r.str(t), "the variables of the template are not in the scanned tree")
		return c
	}
	for _, root := range p.docs {
		vars := f.r.get(root, "variables")
		for k, v := range f.r.pairs(vars) {
			c.vars[strings.ToLower(k.Value)] = azVar{text: f.r.str(v)}
		}
		for _, item := range f.list(vars, "", 0) {
			if g := f.r.str(f.r.get(item.node, "group")); g != "" {
				c.groups = append(c.groups, azGroup{f.text(g), t.Line})
			} else if name := f.r.str(f.r.get(item.node, "name")); name != "" {
				c.vars[strings.ToLower(name)] = azVar{text: f.r.str(f.r.get(item.node, "value"))}
			}
		}
	}
	return c
}

// local gives a template of the same repository, parsed; nil when it is not there.
func (f *azFile) local(name string) *parsed {
	file, repo, ok := strings.Cut(name, "@")
	if ok && repo != "self" || strings.Contains(file, "${{") {
		return nil
	}
	if strings.HasPrefix(file, "/") || ok { // from the root of the repository, which may lie anywhere above
		for dir := path.Dir(f.r.src.path); ; dir = path.Dir(dir) {
			if p := f.r.tree.load(path.Join(dir, file)); p != nil {
				return p
			}
			if dir == "." || dir == "/" {
				return nil
			}
		}
	}
	return f.r.tree.load(path.Join(path.Dir(f.r.src.path), file))
}

// text puts literal variables and the defaults of parameters into a name.
func (f *azFile) text(s string) string {
	return strings.TrimSpace(f.put(s, nil))
}

var azParam = regexp.MustCompile(`\$\{\{\s*parameters(?:\.([A-Za-z0-9_]+)|\[['"]([A-Za-z0-9_]+)['"]\])\s*\}\}`)

func (f *azFile) put(s string, vars map[string]azVar) string {
	if strings.Contains(s, "${{") {
		s = azParam.ReplaceAllStringFunc(s, func(m string) string {
			g := azParam.FindStringSubmatch(m)
			if v := f.r.str(f.params[firstOf(g[1], g[2])]); v != "" && !strings.EqualFold(v, "none") && !strings.EqualFold(v, "null") {
				return v
			}
			return m
		})
	}
	for depth := 0; depth < 3 && strings.Contains(s, "$("); depth++ {
		before := s
		for _, m := range macros(s) {
			if v, ok := vars[strings.ToLower(m.name)]; ok && v.text != "" && v.source == "" && !strings.HasPrefix(v.text, "$[") {
				s = strings.ReplaceAll(s, "$("+m.name+")", v.text)
			}
		}
		if s == before {
			break
		}
	}
	return s
}

// resources records the connections of repositories and container registries that the pipeline pulls from.
func (f *azFile) resources() {
	r := f.r
	res := r.get(f.root, "resources")
	at := place{job: azResources, reach: f.base}
	for _, kind := range []string{"repositories", "containers", "pipelines", "builds", "packages"} {
		for _, item := range f.list(r.get(res, kind), "", 0) {
			for _, key := range []string{"endpoint", "connection", "azureSubscription"} {
				n := r.get(item.node, key)
				if n == nil {
					continue
				}
				target := Resource{"vcs/git", r.str(r.get(item.node, "name"))}
				switch {
				case kind == "containers" && strings.EqualFold(r.str(r.get(item.node, "type")), "ACR"):
					target = Resource{"registry/acr", firstOf(f.text(r.str(r.get(item.node, "registry"))), unknown)}
				case kind == "containers":
					target = imageRegistry(f.text(r.str(r.get(item.node, "image"))))
				case kind == "packages":
					target.Kind = "registry/" + strings.ToLower(firstOf(r.str(r.get(item.node, "type")), "package"))
				}
				r.connection(at, n.Line, f.text(r.str(n)), use{res: target}, "resources: "+kind)
			}
		}
	}
}
