package inventory

import (
	"maps"
	"regexp"
	"strings"
)

// ccJob reads one invocation of a job.
type ccJob struct {
	f     *ccFile
	call  *ccCall
	owner *node // where its commands are looked up
	at    place
	scope *scope
	// step is the name of the step that is being read.
	step     string
	line     int // where it begins
	contexts bool
	depth    int
	// identity is the kind of cloud identity that earlier steps gave the job, by family.
	identity map[string]Kind
}

// job reads a job for one invocation.
func (f *ccFile) job(c *ccCall, owner, def *node, outer ccParams) {
	r := f.r
	params := f.bind(def, c.node, outer)
	j := &ccJob{f: f, call: c, owner: owner, at: place{job: c.name, reach: c.reach}, identity: make(map[string]Kind)}
	j.scope = &scope{r: r, place: j.place, alias: make(map[string][]string), predefined: ccPredefined, special: j.special, actor: j.actor, exchange: j.exchange, via: "run"}
	if c.lent {
		j.contexts = r.get(c.node, "context") != nil
	} else {
		j.readContexts(c.node, params)
	}
	j.machine(def, params)
	for _, p := range f.eachExecutor(r.get(def, "executor"), c.node, params) {
		exec := f.executor(r.get(def, "executor"), owner, p)
		j.machine(exec, p)
		j.environment(exec, p)
	}
	j.environment(def, params)
	for _, key := range []string{"pre-steps", "steps", "post-steps"} {
		from := def
		if key != "steps" {
			if from = c.node; c.lent {
				continue
			}
		}
		j.steps(r.get(from, key), params)
	}
}

// eachExecutor gives the parameters for each executor that a matrix chooses.
func (f *ccFile) eachExecutor(n, call *node, params ccParams) []ccParams {
	name := f.r.str(n)
	if f.r.isMap(n) {
		name = f.r.str(f.r.get(n, "name"))
	}
	hole := ccHole.FindStringSubmatch(name)
	if hole == nil || params.put(name) != name {
		return []ccParams{params}
	}
	var out []ccParams
	for _, value := range f.r.strs(f.r.at(call, "matrix", "parameters", hole[2])) {
		p := maps.Clone(params)
		p[hole[2]] = ccParam{text: value}
		out = append(out, p)
	}
	return out
}

// executor gives the definition of a named executor.
func (f *ccFile) executor(n, owner *node, params ccParams) *node {
	name := params.put(f.r.str(n))
	if f.r.isMap(n) {
		name = params.put(f.r.str(f.r.get(n, "name")))
	}
	if name == "" {
		return nil
	}
	return f.r.at(owner, "executors", name)
}

func (j *ccJob) place(Kind) place {
	p := j.at.at(j.step)
	p.line = j.line
	return p
}

// readContexts records the sets of secrets that an invocation opens.
func (j *ccJob) readContexts(n *node, params ccParams) {
	r := j.f.r
	for item := range r.flat(r.get(n, "context")) {
		name := params.put(r.str(item))
		if name == "" {
			continue
		}
		j.contexts = true
		r.static(j.at, item.Line, "context:"+name, use{res: Resource{"secret-set/context", name}, nature: NatureCredential}, "context")
	}
}

// machine reads what runs the job: a runner of the owner's brings its own
// identity; images of private registries need a login.
func (j *ccJob) machine(def *node, params ccParams) {
	r := j.f.r
	if class := r.get(def, "resource_class"); class != nil {
		name := params.put(r.str(class))
		if strings.Contains(name, "/") && !strings.Contains(name, "<<") {
			j.at.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{name}}
			r.ambient(j.at, class.Line, name, use{res: Resource{"runner/self-hosted", name}}, "resource_class")
		} else if name != "" {
			j.at.runner = Runner{Kind: RunnerHosted, Labels: []string{name}}
		}
	}
	if j.at.runner.Kind == "" && (r.get(def, "docker") != nil || r.get(def, "machine") != nil || r.get(def, "macos") != nil) {
		j.at.runner.Kind = RunnerHosted
	}
	for img := range r.items(r.get(def, "docker")) {
		res := imageRegistry(params.put(r.str(r.get(img, "image"))))
		for _, key := range []string{"auth", "aws_auth"} {
			auth := r.get(img, key)
			if auth == nil {
				continue
			}
			if role := r.get(auth, "oidc"); role != nil || r.get(auth, "role_arn") != nil {
				r.federated(j.at, auth.Line, "oidc:circleci", use{res: res}, key)
				continue
			}
			for k, v := range r.pairs(auth) {
				j.scope.via = key + ": " + k.Value
				for _, ref := range shellVars(params.put(r.str(v))) {
					u := use{res: res, nature: natureOf(k.Value), sure: true}
					j.scope.variable(ref.name, v.Line, u, true, true)
				}
			}
			j.scope.via = "run"
		}
	}
}

// environment defines the variables of a job or an executor.
func (j *ccJob) environment(def *node, params ccParams) {
	r := j.f.r
	j.scope.via = "environment"
	j.envOf(r.get(def, "environment"), params)
	for img := range r.items(r.get(def, "docker")) {
		j.envOf(r.get(img, "environment"), params)
	}
	j.scope.via = "run"
}

// envOf reads an environment: a mapping, or a list of mappings or of NAME=value.
func (j *ccJob) envOf(env *node, params ccParams) {
	r := j.f.r
	entries := env
	if r.isList(env) {
		for item := range r.items(env) {
			j.envOf(item, params)
		}
		return
	}
	for k, v := range r.pairs(entries) {
		text := params.put(r.str(v))
		if text != r.str(v) {
			n := *v
			n.Value = text
			j.scope.envEntry(k.Value, &n, "environment")
			continue
		}
		j.scope.envEntry(k.Value, v, "environment")
	}
}

// steps reads a list of steps.
func (j *ccJob) steps(list *node, params ccParams) {
	r := j.f.r
	if j.depth++; j.depth > 24 {
		j.depth--
		return
	}
	for item := range r.items(list) {
		if item == nil {
			continue
		}
		if r.isScalar(item) {
			j.oneStep(r.str(item), item, nil, params)
			continue
		}
		for k, v := range r.pairs(item) {
			j.oneStep(k.Value, k, v, params)
		}
	}
	j.depth--
}

// oneStep reads one step by its kind.
func (j *ccJob) oneStep(kind string, key, n *node, params ccParams) {
	r := j.f.r
	if hole := between(kind, "<<", ">>"); len(hole) == 1 && strings.HasPrefix(kind, "<<") && strings.HasSuffix(kind, ">>") {
		if name, ok := strings.CutPrefix(hole[0].name, "parameters."); ok {
			if p := params[name]; p.steps != nil {
				j.steps(p.steps, p.outer)
			}
		}
		return
	}
	switch kind = params.put(kind); kind { // install-<< parameters.os >>
	case "run":
		j.run(n, params)
	case "when", "unless":
		if j.runs(kind, n, params) {
			j.steps(r.get(n, "steps"), params)
		}
	case "add_ssh_keys":
		name := strings.Join(r.strs(r.get(n, "fingerprints")), ", ")
		r.static(j.at.at("add_ssh_keys"), key.Line, firstOf(params.put(name), "ssh keys of the project"), use{res: Resource{"ssh/host-or-git", unknown}, nature: NatureCredential}, "add_ssh_keys")
	case "checkout", "setup_remote_docker", "save_cache", "restore_cache", "store_artifacts", "store_test_results", "persist_to_workspace", "attach_workspace", "deploy":
		if kind == "deploy" {
			j.run(n, params)
		}
	default:
		j.command(kind, key, n, params)
	}
}

// run reads a run step.
func (j *ccJob) run(n *node, params ccParams) {
	r := j.f.r
	cmd := n
	saved := j.scope.alias
	outer, line := j.step, j.line
	j.line = n.Line
	j.scope.alias = cloneAlias(saved) // a shell of its own
	if r.isMap(n) {
		cmd = r.get(n, "command")
		if name := r.str(r.get(n, "name")); name != "" {
			j.step = params.put(name)
		}
		if env := r.get(n, "environment"); env != nil {
			j.scope.via = "step environment"
			j.envOf(env, params)
			j.scope.via = "run"
		}
	}
	if cmd != nil {
		j.scope.script(cmd, params.script(r.str(cmd)))
		for k, v := range j.scope.exported {
			saved[k] = v
		}
	}
	j.scope.alias, j.step, j.line = saved, outer, line
}

// script puts parameters into a script; what is not known is no here-document.
func (p ccParams) script(s string) string {
	return ccAnyHole.ReplaceAllLiteralString(p.put(s), "parameter")
}

var ccAnyHole = regexp.MustCompile(`<<[#/]?\s*(pipeline|parameters|matrix)\.[A-Za-z0-9_.-]+\s*>>`)

// command opens a command of the file or of an inline orb, or reads a step of a known orb.
func (j *ccJob) command(name string, key, n *node, params ccParams) {
	r := j.f.r
	if def := r.at(j.owner, "commands", name); def != nil {
		inner := j.f.bind(def, n, params)
		outer := j.step
		j.steps(r.get(def, "steps"), inner)
		j.step = outer
		return
	}
	if orb, inner, ok := strings.Cut(name, "/"); ok {
		if o := j.f.inline[orb]; o != nil {
			if def := r.at(o, "commands", inner); def != nil {
				saved := j.owner
				j.owner = o
				j.steps(r.get(def, "steps"), j.f.bind(def, n, params))
				j.owner = saved
				return
			}
		}
		j.orbStep(name, key, n, params)
	}
}

// special records the identity tokens of CircleCI.
func (j *ccJob) special(name string, line int, u use) bool {
	switch name {
	case "CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2":
		j.f.r.federated(j.place(Federated), line, "oidc:circleci", u.or(use{res: Resource{"oidc/issuer", unknown}}), "run")
		return true
	}
	return false
}

// exchange records an exchange of the identity token.
func (j *ccJob) exchange(x exchange, line int) {
	if x.token == "" || strings.HasPrefix(x.token, "CIRCLE_OIDC") {
		j.f.r.federated(j.place(Federated), line, "oidc:circleci", use{res: x.res}, x.via)
	}
}

// actor records commands that act with the identity of a machine of the owner's. A context may hold keys of its own.
func (j *ccJob) actor(a actor, line int) {
	switch a.family {
	case "aws", "gcp", "azure", "k8s", "iac":
	default:
		return
	}
	if j.identity[a.family] == Federated && strings.HasPrefix(a.res.Kind, "registry/") {
		j.f.r.federated(j.place(Federated), line, "oidc:circleci", use{res: a.res}, a.via)
		return
	}
	if j.at.runner.Kind == RunnerSelfHosted && !j.contexts && j.identity[a.family] == "" {
		j.f.r.machineActs(j.place(Ambient), line, "runner", a)
	}
}

// ccPredefined reports whether CircleCI sets a variable by itself.
func ccPredefined(name string) bool {
	return strings.HasPrefix(name, "CIRCLE_") && name != "CIRCLE_TOKEN" && !strings.HasSuffix(name, "_API_TOKEN") || strings.HasPrefix(name, "CIRCLE_PR_") || name == "CIRCLECI"
}
