package inventory

import (
	"slices"
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
	j.readContexts(c.node, params)
	exec := f.executor(r.get(def, "executor"), owner, params)
	j.machine(def, params)
	j.machine(exec, params)
	j.environment(exec, params)
	j.environment(def, params)
	for _, key := range []string{"pre-steps", "steps", "post-steps"} {
		from := def
		if key != "steps" {
			from = c.node
		}
		j.steps(r.get(from, key), params)
	}
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
	if hole := between(kind, "<<", ">>"); len(hole) == 1 {
		if name, ok := strings.CutPrefix(hole[0].name, "parameters."); ok {
			if p := params[name]; p.steps != nil {
				j.steps(p.steps, p.outer)
			}
		}
		return
	}
	switch kind {
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
		j.scope.script(cmd, params.put(r.str(cmd)))
		for k, v := range j.scope.exported {
			saved[k] = v
		}
	}
	j.scope.alias, j.step, j.line = saved, outer, line
}

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

// orbName puts the registered name of an orb in the place of its alias: "ecr" -> "aws-ecr".
func (f *ccFile) orbName(name string) string {
	alias, inner, _ := strings.Cut(name, "/")
	source := f.orbs[alias]
	if source == "" {
		return name
	}
	source, _, _ = strings.Cut(source, "@")
	if ns, orb, ok := strings.Cut(source, "/"); ok {
		if ns == "circleci" || orbRows().find(ns+"/"+orb+"/"+inner) == nil {
			return orb + "/" + inner
		}
		return ns + "/" + orb + "/" + inner
	}
	return name
}

// orbStep reads a step of an orb by the table.
func (j *ccJob) orbStep(name string, key, n *node, params ccParams) {
	r := j.f.r
	row := orbRows().find(j.f.orbName(name))
	if row == nil {
		alias, _, _ := strings.Cut(name, "/")
		if !j.f.opened[alias] {
			j.f.opened[alias] = true
			r.open(j.at, key.Line, "orb", firstOf(j.f.orbs[alias], alias), "what the orb does with the variables of the job is defined in the orb registry")
		}
		j.orbParams(name, key, n, params, nil)
		return
	}
	if !row.known {
		row = nil
	}
	j.orbParams(name, key, n, params, row)
}

// orbParams records what an orb's step takes: the identity token, variables that its parameters name, and those it takes by default.
func (j *ccJob) orbParams(name string, key, n *node, params ccParams, row *consumerRow) {
	r := j.f.r
	step := firstOf(params.put(r.str(r.get(n, "name"))), name)
	at := j.at.at(step)
	at.line = key.Line
	get := func(in string) string { return params.put(r.str(r.get(n, in))) }
	// Steps that are handed in: auth: [aws-cli/setup: {...}]
	for k, v := range r.pairs(n) {
		if r.isList(v) && r.isMap(firstItem(r, v)) {
			j.steps(v, params)
			if k.Value == "auth" && row != nil {
				copied := *row
				copied.env = nil
				row = &copied
			}
		}
	}
	if row == nil {
		j.orbScripts(step, key.Line, n, params)
		for k, v := range r.pairs(n) {
			if ccScript(k.Value) {
				continue
			}
			for _, ref := range shellVars(params.put(r.str(v))) {
				if looksSecret(ref.name) || natureOf(k.Value) == NatureCredential {
					r.static(at, v.Line, ref.name, envUse(k.Value).or(envUse(ref.name)), "orb parameter: "+k.Value)
				}
			}
			if isVariableName(r.str(v)) && looksSecret(r.str(v)) {
				r.static(at, v.Line, r.str(v), envUse(r.str(v)), "orb parameter: "+k.Value)
			}
		}
		return
	}
	res := row.resource(get)
	family := cloudFamily(res.Kind)
	if row.federates(get) || j.identity[family] == Federated {
		j.identity[family] = Federated
		r.federated(at, key.Line, "oidc:circleci", use{res: res}, name)
		return
	}
	named := false
	for k, v := range r.pairs(n) {
		u := row.inputUse(k.Value, get)
		text := strings.Trim(params.put(r.str(v)), "${}")
		if u.nature == NatureCredential && isVariableName(text) {
			named = named || slices.Contains(row.secrets, k.Value)
			r.static(at, v.Line, text, u, "orb parameter: "+k.Value)
		}
	}
	if named {
		return
	}
	for _, env := range row.env {
		if name == "cypress/run" && get("record") == "" && !strings.Contains(get("cypress-command"), "--record") {
			continue
		}
		r.static(at, key.Line, env, use{res: res, nature: firstNature(natureOf(env), NatureCredential)}, name)
	}
}

// ccScript reports whether a parameter of an orb is a command.
func ccScript(key string) bool {
	return strings.Contains(key, "command") || strings.Contains(key, "script")
}

// orbScripts reads the commands that an orb's step is given to run.
func (j *ccJob) orbScripts(step string, line int, n *node, params ccParams) {
	r := j.f.r
	outer, was := j.step, j.line
	j.step, j.line = step, line
	for k, v := range r.pairs(n) {
		if ccScript(k.Value) && r.isScalar(v) {
			j.scope.script(v, params.put(r.str(v)))
		}
	}
	j.step, j.line = outer, was
}

// cloudFamily gives the cloud whose identity opens a kind of resource; "" when it is none's.
func cloudFamily(kind string) string {
	switch kind {
	case "cloud/aws", "registry/ecr", "secrets-manager/aws", "secrets-manager/ssm":
		return "aws"
	case "cloud/gcp", "registry/gar", "secrets-manager/gcp":
		return "gcp"
	case "cloud/azure", "registry/acr", "secrets-manager/azure-key-vault":
		return "azure"
	}
	return ""
}

func firstItem(r *reader, list *node) *node {
	for item := range r.items(list) {
		return item
	}
	return nil
}

// isVariableName reports whether a text is a name as variables have: capitals, digits, underscores.
func isVariableName(s string) bool {
	return len(s) > 2 && isEnvName(s) && strings.ToUpper(s) == s && strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

// orbJob reads a job of an orb: its contexts, and the credentials that its table row names.
func (f *ccFile) orbJob(c *ccCall) {
	j := &ccJob{f: f, call: c, owner: f.root, at: place{job: c.name, reach: c.reach, runner: Runner{Kind: RunnerHosted}}, identity: make(map[string]Kind)}
	j.scope = &scope{r: f.r, place: j.place, alias: make(map[string][]string), predefined: ccPredefined, special: j.special, exchange: j.exchange, via: "run"}
	j.readContexts(c.node, f.bind(nil, nil, nil))
	for _, key := range []string{"pre-steps", "post-steps"} {
		j.steps(f.r.get(c.node, key), nil)
	}
	if !strings.Contains(c.target, "/") {
		return
	}
	key := &node{Line: c.line, Value: c.target}
	row := orbRows().find(f.orbName(c.target))
	if row == nil {
		alias, _, _ := strings.Cut(c.target, "/")
		if !f.opened[alias] {
			f.opened[alias] = true
			f.r.open(j.at, c.line, "orb", firstOf(f.orbs[alias], alias), "what the orb does with the variables of the job is defined in the orb registry")
		}
	}
	before := len(f.r.paths)
	if row == nil || row.known {
		j.orbParams(c.target, key, c.node, nil, row)
	}
	for i := before; i < len(f.r.paths); i++ {
		if f.r.paths[i].Step == c.target || f.r.paths[i].Step == c.name {
			f.r.paths[i].Step = "" // the whole job is the orb's
		}
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
