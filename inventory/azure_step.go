package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// azHostedPool matches pools that Microsoft runs.
var azHostedPool = regexp.MustCompile(`(?i)^(azure pipelines|hosted( |$)|default$|vmimage)`)

// jobPaths records what belongs to a job as a whole: its variable groups, its pool, its container.
func (f *azFile) jobPaths(n, pool *node, c *azCtx) {
	r := f.r
	f.pool(pool, c)
	f.groupPaths(*c)
	if cont := r.get(n, "container"); r.isMap(cont) {
		if e := r.get(cont, "endpoint"); e != nil {
			r.connection(c.at(""), e.Line, f.text(r.str(e)), use{res: imageRegistry(f.text(r.str(r.get(cont, "image"))))}, "container")
		}
	}
}

// groupPaths records the variable groups that a job has.
func (f *azFile) groupPaths(c azCtx) {
	for _, g := range c.groups {
		if f.grouped == nil {
			f.grouped = make(map[string]bool)
		}
		f.grouped[g.name] = true
		f.r.static(c.at(""), g.line, "group:"+g.name, use{res: Resource{"secret-set/variable-group", g.name}, nature: NatureCredential}, "variable group")
	}
}

// pool records the machines of a job: a pool of one's own may have an identity.
func (f *azFile) pool(n *node, c *azCtx) {
	r := f.r
	if c.onMachine {
		return
	}
	if n == nil {
		c.runner = Runner{Kind: RunnerUnknown}
		return
	}
	var name string
	image := r.get(n, "vmImage")
	for k, v := range r.pairs(n) {
		if strings.HasPrefix(k.Value, "${{") {
			// ${{ if }}: one of several pools.
			if name == "" {
				name = f.text(r.str(r.get(v, "name")))
			}
			if image == nil {
				image = r.get(v, "vmImage")
			}
		}
	}
	name = firstOf(f.text(r.str(n)), f.text(r.str(r.get(n, "name"))), name)
	name = f.put(name, c.vars)
	switch {
	case image != nil && (name == "" || azHostedPool.MatchString(name)):
		c.runner = Runner{Kind: RunnerHosted, Labels: []string{f.text(r.str(image))}}
		return
	case f.eachPool(name, n, c):
		return
	case name == "" || strings.Contains(name, "${{") || strings.EqualFold(name, "server"):
		c.runner = Runner{Kind: RunnerUnknown}
		return
	case azHostedPool.MatchString(name):
		c.runner = Runner{Kind: RunnerHosted, Labels: []string{name}}
		return
	}
	c.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{name}}
	r.ambient(c.at(""), n.Line, name, use{res: Resource{"runner/pool", name}}, "pool")
}

// steps reads a list of steps.
func (f *azFile) steps(n *node, c azCtx) {
	r := f.r
	// Steps may define variables for those behind them.
	vars := make(map[string]azVar, len(c.vars))
	for k, v := range c.vars {
		vars[k] = v
	}
	c.vars = vars
	for _, item := range f.list(n, "", 0) {
		s := c
		s.reach = guard(guard(c.reach, item.cond), r.str(r.get(item.node, "condition")))
		if t := r.get(item.node, "template"); t != nil {
			f.templateCall(item.node, t, s)
			continue
		}
		f.step(item.node, s)
	}
}

// azScripts are the keys that hold a script.
var azScripts = []string{"script", "bash", "pwsh", "powershell"}

// step reads one step.
func (f *azFile) step(n *node, c azCtx) {
	r := f.r
	task := r.str(r.get(n, "task"))
	label := firstOf(r.str(r.get(n, "displayName")), task, r.str(r.get(n, "name")))
	at := c.at(label)
	at.line = n.Line
	if co := r.get(n, "checkout"); co != nil {
		if at.step == "" {
			at.step = "checkout"
		}
		if r.isTrue(r.get(n, "persistCredentials")) {
			r.platform(at, r.get(n, "persistCredentials").Line, "System.AccessToken", use{res: Resource{"vcs/azure-devops", r.str(co)}}, "persistCredentials")
		}
		return
	}
	st := &azStep{f: f, c: c, at: at, node: n, vars: make(map[string]string), names: make(map[string]use)}
	st.inputs = r.get(n, "inputs")
	for _, key := range azScripts {
		if s := r.get(n, key); s != nil {
			st.readScript(s)
		}
	}
	name, _, _ := strings.Cut(task, "@")
	st.row = taskRows().find(name)
	if i := strings.LastIndexByte(name, '.'); st.row == nil && i > 0 {
		name = name[i+1:] // a task by its full name: publisher.extension.task
		st.row = taskRows().find(name)
	}
	st.task = name
	if name != "" {
		for _, key := range []string{"script", "inlineScript", "Inline", "inline", "InlineScript", "customCommand", "command"} {
			if s := f.input(st.inputs, key); s != nil && r.isScalar(s) && (key != "command" || strings.Contains(r.str(s), " ")) {
				st.readScript(s)
			}
		}
		st.readTask()
	}
	st.env(r.get(n, "env"))
	st.scriptPaths()
}

// input gives an input of a task; names are not case sensitive.
func (f *azFile) input(inputs *node, name string) *node {
	for k, v := range f.r.pairs(inputs) {
		if strings.EqualFold(k.Value, name) {
			return v
		}
	}
	return nil
}

// azStep is one step while it is read.
type azStep struct {
	f      *azFile
	c      azCtx
	at     place
	node   *node
	inputs *node
	task   string
	row    *consumerRow
	parts  []azScript
	vars   map[string]string // environment of the step: variable -> what it is made of
	names  map[string]use    // what scripts do with variables
}

// azScript is a script of a step with its facts.
type azScript struct {
	node  *node
	facts *facts
	macro map[string]string // of placeholders: variable -> macro name
}

// written gives a text of the script as the file has it, with macros for the placeholders.
func (s *azScript) written(text string) string {
	for v, name := range s.macro {
		text = strings.ReplaceAll(text, "${"+v+"}", "$("+name+")")
	}
	return text
}

// readScript reads a script with its macros turned into variables.
func (st *azStep) readScript(n *node) {
	text := st.f.r.str(n)
	s := azScript{node: n, macro: make(map[string]string)}
	for _, m := range macros(text) {
		if _, defined := st.c.vars[strings.ToLower(m.name)]; !defined && isCommandName(m.name) {
			continue
		}
		v := "__M_" + strings.Map(func(c rune) rune {
			if c < 128 && isWordByte(byte(c)) {
				return c
			}
			return '_'
		}, m.name)
		s.macro[v] = m.name
		text = strings.ReplaceAll(text, "$("+m.name+")", "${"+v+"}")
	}
	s.facts = readScript(text, nil)
	for k, made := range s.facts.exported {
		st.c.vars[strings.ToLower(k)] = azVar{source: s.written(fetchedSource(made))}
	}
	for _, u := range s.facts.uses {
		if u.slot || u.use.known() {
			if old, ok := st.names[u.name]; !ok || !old.known() {
				st.names[u.name] = u.use
			}
		}
	}
	st.parts = append(st.parts, s)
}

// isCommandName reports whether $(name) in a script is rather a command than a
// variable of the pipeline: $(pwd), $(mktemp).
func isCommandName(name string) bool {
	return name == "pwd" || strings.ToLower(name) == name && !strings.ContainsAny(name, "._-0123456789") && !looksSecret(name)
}

// fetchedSource gives the secrets manager that a value comes from; "" when it comes from none.
func fetchedSource(made []string) string {
	for _, n := range made {
		if mark, ok := strings.CutPrefix(n, fetchedMark); ok {
			source, _, _ := strings.Cut(mark, "\x00")
			return source
		}
	}
	return ""
}

// azSecretName matches variables of a pipeline that hold secrets by their name.
func azSecretName(name string) bool {
	if strings.Contains(name, ".") {
		head, _, _ := strings.Cut(name, ".")
		switch strings.ToLower(head) {
		case "system", "build", "agent", "release", "environment", "pipeline", "strategy", "checks", "resources", "tf_build":
			return false
		}
	}
	return looksSecret(name)
}

// macro records a $(Name): the job's token, a value fetched from a vault, or a
// secret variable of the pipeline. slot: its place takes a credential.
func (st *azStep) macro(name string, line int, u use, via string, slot bool) {
	r := st.f.r
	low := strings.ToLower(name)
	if low == "system.accesstoken" {
		if !u.known() || strings.HasPrefix(u.res.Kind, "cloud/") || u.res.Kind == "vcs/git" && (u.res.Name == "" || u.res.Name == unknown) {
			u.res = Resource{"vcs/azure-devops", "this project"}
		} else if u.res.Kind == "http/api" {
			u.res.Kind = "vcs/azure-devops" // wherever the address comes from: nothing else takes the job's token
		}
		r.platform(st.at, line, "System.AccessToken", u, via)
		return
	}
	if low == "system.oidcrequesturi" {
		r.federated(st.at, line, "oidc:azure-devops", use{res: Resource{"oidc/issuer", unknown}}, via)
		return
	}
	v, defined := st.c.vars[low]
	if defined && v.source != "" {
		r.add(st.at, line, Credential{Kind: StaticSecret, Name: name, Nature: firstNature(u.nature, natureOf(name)), Source: v.source}, u.or(envUse(name)), via)
		return
	}
	if defined {
		for _, m := range macros(v.text) {
			if !strings.EqualFold(m.name, name) {
				st.macro(m.name, line, u, via, slot)
			}
		}
		return
	}
	switch {
	case azSecretName(name):
		u.nature = NatureCredential
	case slot && u.nature == NatureCredential && !strings.Contains(name, ".") && natureOf(name) != NatureIdentifier:
	default:
		return
	}
	u = u.or(envUse(name))
	// Behind a task that fetched a whole vault, what nothing defines comes from there.
	r.add(st.at, line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature, Source: st.c.vars["*"].source}, u, via)
}

// env reads the environment of a step, where secrets have to be mapped to be seen by a script.
func (st *azStep) env(n *node) {
	r := st.f.r
	for k, v := range r.pairs(n) {
		text := r.str(v)
		u := envUse(k.Value)
		if best, ok := st.names[k.Value]; ok && best.known() {
			u = best.or(u)
		} else if !u.known() && st.row != nil && st.row.known {
			u.res = st.row.res
		}
		for _, m := range macros(text) {
			st.macro(m.name, r.lineOf(v, m.start, m.name), u, "env: "+k.Value, u.nature == NatureCredential)
		}
		if strings.EqualFold(k.Value, "SYSTEM_OIDCREQUESTURI") {
			r.federated(st.at, v.Line, "oidc:azure-devops", use{res: Resource{"oidc/issuer", unknown}}, "env: "+k.Value)
		}
	}
}

// scriptPaths records what the scripts of the step use.
func (st *azStep) scriptPaths() {
	r := st.f.r
	for _, s := range st.parts {
		for _, u := range s.facts.uses {
			line := r.scriptLine(s.node, u.line, firstOf(s.macro[u.name], u.name))
			if m, ok := s.macro[u.name]; ok {
				st.macro(m, line, u.use, "script", u.slot)
				continue
			}
			switch strings.ToUpper(u.name) {
			case "SYSTEM_ACCESSTOKEN":
				if r.get(st.node, "env") == nil {
					r.platform(st.at, line, "System.AccessToken", u.use.or(use{res: Resource{"vcs/azure-devops", "this project"}}), "script")
				}
			case "SYSTEM_OIDCREQUESTURI":
				r.federated(st.at, line, "oidc:azure-devops", use{res: Resource{"oidc/issuer", unknown}}, "script")
			}
		}
		r.tentative = true
		for _, u := range s.facts.handedOn {
			if m, ok := s.macro[u.name]; ok {
				st.macro(m, r.scriptLine(s.node, u.line, m), u.use, "script", false)
			}
		}
		r.tentative = false
		for _, v := range s.facts.fetched {
			v.name, v.source = s.written(v.name), s.written(v.source)
			line := r.scriptLine(s.node, v.line, v.name)
			r.add(st.at, line, Credential{Kind: StaticSecret, Name: v.name, Nature: storedNature(v.name), Source: v.source}, v.purpose(), "script")
		}
		for _, h := range s.facts.held {
			h.name, h.source = s.written(h.name), s.written(h.source)
			r.held(st.at, r.scriptLine(s.node, h.line, ""), h, "script")
		}
		st.act(s)
		for _, x := range s.facts.exchanges {
			if x.via == "az login --federated-token" || x.res.Kind == "broker/proviso" {
				r.federated(st.at, r.scriptLine(s.node, x.line, ""), "oidc:azure-devops", use{res: x.res}, x.via)
			}
		}
	}
}

// act records commands that act with the identity of a machine of the owner's:
// outside of the tasks that log in by a connection, with no credential in sight.
func (st *azStep) act(s azScript) {
	r := st.f.r
	if st.c.runner.Kind != RunnerSelfHosted || st.row != nil && len(st.row.conn) > 0 {
		return
	}
	for _, a := range s.facts.actors {
		switch a.family {
		case "aws", "gcp", "azure", "k8s", "iac":
			r.machineActs(st.at, r.scriptLine(s.node, a.line, ""), "runner", a)
		}
	}
}

// azConnection matches inputs that name a service connection, for tasks and templates that no table knows.
var azConnection = regexp.MustCompile(`(?i)^(azureSubscription|azureResourceManagerConnection|backendServiceArm|environmentServiceName(AzureRM|AWS|GCP)|connectedServiceName(ARM)?|containerRegistry(Connection)?|dockerRegistryServiceConnection|kubernetesServiceConnection|gitHubConnection|publishFeedCredentials|awsCredentials|customEndpoint|publishEndpoint|[a-z0-9_]*(connected[a-z]*serviceName|serviceEndpoint|serviceConnection(Name)?|connectedService(Name)?|armConnection|azureConnection|federatedServiceConnection|subscriptionEndpoint|signingConnection))$`)

// readTask reads the inputs of a task.
func (st *azStep) readTask() {
	r := st.f.r
	get := func(name string) string {
		return st.f.put(r.str(st.f.input(st.inputs, name)), st.c.vars)
	}
	res := Resource{unknown, st.task}
	var conns []string
	if st.row != nil {
		if !st.row.known {
			for k, v := range r.pairs(st.inputs) {
				st.inputRefs(k.Value, v, Resource{unknown, ""}) // options of a build tool
			}
			return
		}
		res, conns = st.row.resource(get), st.row.conn
	}
	connection := ""
	for k, v := range r.pairs(st.inputs) {
		isConn := slices.ContainsFunc(conns, func(c string) bool { return strings.EqualFold(c, k.Value) })
		if !isConn && st.row == nil {
			isConn = azConnection.MatchString(k.Value)
		} else if !isConn {
			isConn = azConnection.MatchString(k.Value) && !strings.EqualFold(k.Value, "containerRegistry")
		}
		if isConn {
			for _, name := range strings.Split(get(k.Value), ",") {
				if name = strings.TrimSpace(name); name != "" && st.needed(k.Value, get) {
					connection = name
					to := res
					if by := connectionResource(k.Value); st.row == nil && by.Kind != unknown {
						to = by // the task is in no table, and its input tells what it wants
					}
					r.connection(st.at, v.Line, name, use{res: to}, "input: "+k.Value)
				}
			}
			continue
		}
		st.inputRefs(k.Value, v, res)
	}
	st.feeds(get, res, connection)
	if r.isTrue(st.f.input(st.inputs, "addSpnToEnvironment")) {
		r.federated(st.at, st.f.input(st.inputs, "addSpnToEnvironment").Line, "oidc:azure-devops", use{res: Resource{"cloud/azure", firstOf(connection, unknown)}}, "addSpnToEnvironment")
	}
	st.files(res)
	if st.row == nil || len(st.row.fetch) == 0 {
		return
	}
	for _, in := range st.row.fetch {
		st.fetch(get(in), sourceName(st.row.source, res.Name), st.f.input(st.inputs, in))
	}
}

// needed reports whether an input counts with the others: Docker@2's containerRegistry is unused when Azure is chosen.
func (st *azStep) needed(key string, get func(string) string) bool {
	if strings.EqualFold(key, "publishFeedCredentials") && strings.EqualFold(get("nuGetFeedType"), "internal") {
		return false
	}
	return true
}

// inputRefs records macros in an input that is no connection.
func (st *azStep) inputRefs(key string, v *node, res Resource) {
	r := st.f.r
	switch strings.ToLower(key) {
	case "script", "inlinescript", "inline", "customcommand":
		return
	}
	if st.row != nil && slices.Contains(st.row.nameFrom, key) && natureOf(key) != NatureCredential {
		return // it names what is reached
	}
	r.scalars(v, func(_ string, leaf *node) {
		for _, m := range macros(leaf.Value) {
			u := use{res: res, nature: natureOf(key)}
			if st.row != nil && st.row.known {
				u = st.row.inputUse(key, func(string) string { return "" })
				u.res = res
			}
			st.macro(m.name, r.lineOf(leaf, m.start, m.name), u, "input: "+key, u.nature == NatureCredential)
		}
	})
}

// feeds records package feeds of the organisation, which the job's own token opens.
func (st *azStep) feeds(get func(string) string, res Resource, connection string) {
	if connection != "" {
		return
	}
	command := strings.ToLower(get("command"))
	internal := false
	switch strings.ToLower(st.task) {
	case "nugetauthenticate", "cargoauthenticate":
		internal = true
	case "npmauthenticate":
		internal = get("workingFile") != "" || true
	case "pipauthenticate", "twineauthenticate", "mavenauthenticate":
		internal = get("artifactFeeds") != "" || get("artifactFeed") != "" || get("artifactsFeeds") != ""
	case "nugetcommand", "dotnetcorecli":
		internal = command == "push" && (get("publishVstsFeed") != "" || strings.EqualFold(get("nuGetFeedType"), "internal")) ||
			command != "push" && (get("vstsFeed") != "" || strings.EqualFold(get("feedsToUse"), "config") && strings.HasPrefix(strings.ToLower(st.task), "nuget"))
	case "npm":
		internal = get("publishFeed") != "" || get("customFeed") != ""
	case "universalpackages":
		internal = true
	}
	if internal {
		st.f.r.platform(st.at, st.node.Line, "System.AccessToken", use{res: res}, "feed of the organisation")
	}
}

// files records secure files.
func (st *azStep) files(res Resource) {
	r := st.f.r
	for _, key := range []string{"secureFile", "sshKeySecureFile", "certSecureFile", "provProfileSecureFile", "secureVarsFile"} {
		if n := st.f.input(st.inputs, key); n != nil {
			r.add(st.at, n.Line, Credential{Kind: StaticSecret, Name: st.f.put(r.str(n), st.c.vars), Source: "secure file"}, use{res: res, nature: NatureCredential}, "input: "+key)
		}
	}
}

// fetch records the values that a task reads from a vault: at the steps that
// use them, or here when none is seen to.
func (st *azStep) fetch(list, source string, n *node) {
	r := st.f.r
	line := st.node.Line
	if n != nil {
		line = n.Line
	}
	for _, name := range strings.Split(list, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		st.c.vars[strings.ToLower(name)] = azVar{source: source}
		r.add(st.at, line, Credential{Kind: StaticSecret, Name: name, Nature: firstNature(natureOf(name), NatureCredential), Source: source}, envUse(name), "fetched")
	}
}
