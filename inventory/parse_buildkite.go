package inventory

import (
	_ "embed"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Buildkite. Agents belong to the owner, so every queue brings an identity;
// hooks of the agent may set any variable, so a variable that a command uses
// and nothing defines is a credential that somebody keeps there.

//go:embed tables/plugins.tbl
var pluginsTable string

var pluginRows = sync.OnceValue(func() *table { return parseTable(pluginsTable) })

// bkEnv is the job of what the environment of the whole pipeline holds.
const bkEnv = "(env)"

// bkFile is one pipeline.
type bkFile struct {
	r      *reader
	agents *node
	env    *node
	// approved is set behind a block step, which somebody with access must
	// release; released are the keys of such steps and of what waits for them.
	approved bool
	released map[string]bool
	within   string // the label of the step whose plugin adds the steps that are read
}

func readBuildkite(r *reader, docs []*node) {
	for _, root := range docs {
		f := &bkFile{r: r, released: make(map[string]bool)}
		steps := root
		if r.isMap(root) {
			f.agents, f.env = r.get(root, "agents"), r.get(root, "env")
			steps = r.get(root, "steps")
			f.encrypted()
		}
		f.steps(steps, "", 0)
	}
}

// steps reads a list of steps; cond is what holds for all of them.
func (f *bkFile) steps(list *node, cond string, depth int) {
	if depth > 6 {
		return
	}
	r := f.r
	for s := range r.items(list) {
		if !r.isMap(s) {
			continue
		}
		own := strings.TrimSpace(cond + " " + r.str(r.get(s, "if")))
		before := f.approved
		if f.waits(s); r.get(s, "block") == nil {
			f.approved = f.approves(s, before)
		}
		switch {
		case r.get(s, "group") != nil:
			f.steps(r.get(s, "steps"), own, depth+1)
		case r.get(s, "block") != nil, r.get(s, "input") != nil && r.get(s, "command") == nil:
			before = before || r.get(s, "block") != nil
		case r.get(s, "wait") != nil, r.get(s, "waiter") != nil:
		case r.get(s, "trigger") != nil:
			name := r.str(r.get(s, "trigger"))
			r.open(place{job: f.label(s)}, s.Line, "triggered pipeline", name, "the steps of the triggered pipeline are not in this file")
		default:
			f.step(s, own)
		}
		f.approved = before
	}
}

// waits notes a block step, whose key others may wait for.
func (f *bkFile) waits(s *node) {
	if key := f.r.str(f.r.get(s, "key")); key != "" && f.r.get(s, "block") != nil {
		f.released[key] = true
	}
}

// approves reports whether somebody must release a step: one that says what it depends on waits for nothing else.
func (f *bkFile) approves(s *node, before bool) bool {
	r := f.r
	deps := r.get(s, "depends_on")
	if deps == nil {
		return before
	}
	ok := false
	for item := range r.flat(deps) {
		ok = ok || f.released[firstOf(r.str(item), r.str(r.get(item, "step")))]
	}
	if key := r.str(r.get(s, "key")); ok && key != "" {
		f.released[key] = true
	}
	return ok
}

// encrypted records the values of the pipeline's environment that were
// encrypted for a plugin of the agents: SECRET_NAME: key;text.
func (f *bkFile) encrypted() {
	r := f.r
	for k, v := range r.pairs(f.env) {
		name, ok := strings.CutPrefix(k.Value, "SECRET_")
		if key, text, two := strings.Cut(r.str(v), ";"); ok && two && len(key) > 100 && len(text) > 20 {
			u := envUse(name)
			r.add(place{job: bkEnv, reach: Reach{Trust: TrustUnknown}}, k.Line, Credential{Kind: StaticSecret, Name: k.Value, Nature: NatureCredential, Source: "encrypted in the file"}, u, "env")
		}
	}
}

// label gives the name of a step.
func (f *bkFile) label(s *node) string {
	r := f.r
	return firstOf(r.str(r.get(s, "label")), r.str(r.get(s, "name")), r.str(r.get(s, "key")), r.str(r.get(s, "id")), f.within, firstLineOf(firstOf(append(r.strs(r.get(s, "command")), r.strs(r.get(s, "commands"))...)...)), "step")
}

func firstLineOf(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

var bkGuard = regexp.MustCompile(`build\.branch\s*==\s*|build\.branch\s*=~\s*/\^?\(?(main|master|release)|build\.tag\s*(!=|=~)|build\.source\s*==\s*['"](schedule|ui|api)|build\.pull_request\.id\s*==\s*null|build\.branch\s*==\s*pipeline\.default_branch|build\.env\(['"]BUILDKITE_PULL_REQUEST['"]\)\s*==\s*['"]false`)

// reach tells who can start a step: whether forks are built is a setting of the pipeline.
func (f *bkFile) reach(s *node, cond string) Reach {
	out := Reach{Trust: TrustUnknown, Events: []string{}}
	var branches []string
	for _, b := range f.r.strs(f.r.get(s, "branches")) {
		branches = append(branches, strings.Fields(b)...)
	}
	if len(branches) > 0 && !slices.ContainsFunc(branches, func(b string) bool { return strings.HasPrefix(b, "!") || strings.HasPrefix(b, "*") }) {
		out.Trust = Protected
	}
	if cond != "" && bkGuard.MatchString(cond) && !strings.Contains(cond, "||") {
		out.Trust = Protected
	}
	if f.approved {
		out.Trust = Protected
		out.Events = append(out.Events, "block")
	}
	return out
}

// bkStep is one command step while it is read.
type bkStep struct {
	f     *bkFile
	node  *node
	at    place
	scope *scope
	queue string
	// identity is the kind of identity that plugins gave the step, by family.
	identity map[string]Kind
	logins   bool
}

func (f *bkFile) step(n *node, cond string) {
	r := f.r
	s := &bkStep{f: f, node: n, identity: make(map[string]Kind)}
	s.at = place{job: f.label(n), line: n.Line, reach: f.reach(n, cond)}
	s.agents()
	s.scope = &scope{r: r, place: func(Kind) place { return s.at }, alias: make(map[string][]string), predefined: bkPredefined, special: s.special, actor: s.actor, exchange: s.exchange, fetch: s.fetch, via: "command"}
	s.matrix()
	s.scope.env(f.env, "env")
	s.scope.env(r.get(n, "env"), "env")
	s.secrets(r.get(n, "secrets"))
	for _, p := range s.pluginList(r.get(n, "plugins")) {
		s.plugin(p.name, p.key, p.config)
	}
	s.scope.via = "command"
	for _, key := range []string{"command", "commands"} {
		s.scope.nodes(r.get(n, key))
		s.uploads(r.get(n, key))
	}
	s.defaultQueue()
}

// bkUpload matches the command that adds steps at run time, with the file that it names.
var bkUpload = regexp.MustCompile(`buildkite-agent\s+pipeline\s+upload((?:\s+--?[a-z-]+)*)(?:\s+([^\s|;&"']+))?`)

// uploads records pipelines that a step adds: a file of the tree is read by itself, anything else is made at run time.
func (s *bkStep) uploads(n *node) {
	r := s.f.r
	for item := range r.flat(n) {
		for _, m := range bkUpload.FindAllStringSubmatchIndex(item.Value, 8) {
			name := "standard input"
			if m[4] >= 0 {
				name = item.Value[m[4]:m[5]]
			} else if before := strings.TrimRight(item.Value[:m[0]], " \t\n"); !strings.HasSuffix(before, "|") && !strings.HasSuffix(before, "<") {
				name = ".buildkite/pipeline.yml"
			}
			if !strings.ContainsAny(name, "$ ") && r.tree.has(path.Join(r.src.repo, name)) {
				continue
			}
			r.open(s.at, r.lineOf(item, m[0], "pipeline"), "generated pipeline", name, "the steps that are added at run time are not in the scanned tree")
		}
	}
}

// defaultQueue records the queue of the pipeline for the steps that reach
// something: their machine's identity comes with what they use.
func (s *bkStep) defaultQueue() {
	r := s.f.r
	if s.queue == "" || r.get(s.node, "agents") != nil || r.get(s.node, "agent_query_rules") != nil {
		return
	}
	for _, i := range r.ofJob[s.at.job] {
		if r.paths[i].Job == s.at.job {
			r.ambient(s.at, s.f.agents.Line, s.queue, use{res: Resource{"runner/self-hosted", "queue " + s.queue}}, "agents")
			return
		}
	}
}

// agents records the queue that runs the step.
func (s *bkStep) agents() {
	r := s.f.r
	n := r.get(s.node, "agents")
	if n == nil {
		n = r.get(s.node, "agent_query_rules") // its older name
	}
	own := n != nil
	if n == nil {
		n = s.f.agents
	}
	s.at.runner = Runner{Kind: RunnerUnknown}
	if n == nil {
		return
	}
	var labels []string
	line := n.Line
	for k, v := range r.pairs(n) {
		labels = append(labels, k.Value+"="+r.str(v))
		if k.Value == "queue" {
			s.queue, line = r.str(v), k.Line
		}
	}
	for _, item := range r.strs(n) {
		labels = append(labels, item)
		if q, ok := strings.CutPrefix(item, "queue="); ok {
			s.queue = q
		}
	}
	s.at.runner = Runner{Kind: RunnerSelfHosted, Labels: labels}
	if s.queue == "" || !own {
		return
	}
	r.ambient(s.at, line, s.queue, use{res: Resource{"runner/self-hosted", "queue " + s.queue}}, "agents")
}

// matrix defines the placeholders of a matrix.
func (s *bkStep) matrix() {
	r := s.f.r
	for k := range r.pairs(r.at(s.node, "matrix", "setup")) {
		s.scope.alias[k.Value] = []string{}
	}
}

// secrets reads the secrets of the cluster: a list, or a mapping from variables.
func (s *bkStep) secrets(n *node) {
	r := s.f.r
	add := func(env, name string, line int) {
		s.scope.alias[env] = []string{}
		u := s.usedFor(env).or(envUse(env))
		r.static(s.at, line, name, use{res: u.res, nature: firstNature(natureOf(env), natureOf(name), NatureCredential)}, "secrets")
	}
	for k, v := range r.pairs(n) {
		add(k.Value, firstOf(r.str(v), k.Value), k.Line)
	}
	if r.isList(n) {
		for item := range r.items(n) {
			if name := r.str(item); name != "" {
				add(name, name, item.Line)
			} else if key := r.str(r.get(item, "key")); key != "" {
				add(firstOf(r.str(r.get(item, "environment_variable")), key), key, item.Line)
			}
		}
	}
}

// usedFor says what the commands of the step do with a variable.
func (s *bkStep) usedFor(name string) use {
	for _, key := range []string{"command", "commands"} {
		for item := range s.f.r.flat(s.f.r.get(s.node, key)) {
			for _, u := range readScript(s.f.r.str(item), nil).uses {
				if u.name == name && u.use.known() {
					return u.use
				}
			}
		}
	}
	return use{}
}

// bkPlugin is one plugin with its configuration.
type bkPlugin struct {
	name   string
	key    *node
	config *node
}
