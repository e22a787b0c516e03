package inventory

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// ghStep is one step while it is read.
type ghStep struct {
	node   *node
	label  string
	uses   string
	expo   exposure
	with   *node
	env    []ghEnv
	run    *node
	row    *consumerRow
	facts  *facts
	holes  map[string][]ghRef // of placeholders in the script
	asked  map[string]bool    // placeholders that only compare
	fedRow bool               // it exchanged the identity token
	// fetched are outputs that hold values of a secrets manager.
	fetched map[string]string
	// fetchedAll is the source of whatever else it may have read: an environment of a vault without a list.
	fetchedAll string
	local      *actionSummary
	gave       map[string]ghHanded // by its script to later steps, in lower case
}

// prepare reads what a step is, and its script, so that the environment of the
// job can be judged by what all its steps do with it.
func (j *ghJob) prepare(n *node) {
	r := j.w.r
	s := &ghStep{node: n, uses: r.str(r.get(n, "uses")), with: r.get(n, "with"), run: r.get(n, "run")}
	s.label = firstOf(r.str(r.get(n, "name")), s.uses, r.str(r.get(n, "id")))
	s.expo = j.expo.narrow(j.w, r.parseCondition(r.get(n, "if")))
	if s.expo.never() && len(j.w.events) > 0 {
		return
	}
	s.env = j.w.envOf(n)
	if s.uses != "" {
		s.row = findAction(s.uses)
		if strings.HasPrefix(s.uses, "./") {
			s.local = r.tree.summary(path.Join(r.src.repo, s.uses), 0)
			if s.local == nil {
				r.open(j.at.at(s.label), n.Line, "action", s.uses, "the local action is not in the scanned tree")
			}
		}
	}
	if s.run != nil {
		j.prepareScript(s)
	}
	if id := r.str(r.get(n, "id")); id != "" {
		j.byID[id] = s
	}
	j.steps = append(j.steps, s)
}

// noteUse remembers what a variable of the surroundings is used for; the first consumer that tells counts.
func (j *ghJob) noteUse(name string, u use) {
	if old, ok := j.usesOf[name]; !ok || !old.known() && u.known() {
		j.usesOf[name] = u
	}
}

// ownEnv records the credentials in the environment of the workflow and of the job.
func (j *ghJob) ownEnv() {
	for _, s := range j.steps {
		// ${{ env.X }} in an input says what X is used for.
		for k, v := range j.w.r.pairs(s.with) {
			for _, ref := range j.w.refsIn(j.w.r.str(v), false, nil) {
				if ref.kind == refEnv {
					j.noteUse(ref.name, j.withUse(s, k.Value))
				}
			}
		}
		if s.row != nil && s.row.known {
			for _, e := range slices.Concat(j.w.env, j.env) {
				if u := envUse(e.name); u.res.Kind == s.row.res.Kind {
					j.noteUse(e.name, u.or(use{res: s.row.res}))
				}
			}
		}
	}
	for _, scope := range []struct {
		env []ghEnv
		via string
	}{{j.env, "job env"}, {j.w.env, "workflow env"}} {
		for _, e := range scope.env {
			j.refs(nil, e.node, scope.via+": "+e.name, j.envUse(nil, e.name), false)
		}
	}
}

// envUse says what an entry of an environment is for: what scripts do with it
// counts most, then the action of the step, then the tool that documents the name.
func (j *ghJob) envUse(s *ghStep, name string) use {
	u := envUse(name)
	if j.endpoint != "" && strings.HasPrefix(name, "AWS_") && u.nature == NatureCredential {
		return secretUse("storage/s3-compatible", j.endpoint)
	}
	var best use
	if s != nil && s.facts != nil {
		for _, x := range s.facts.uses {
			if x.name == name && (x.slot && x.use.known() || !best.known() && x.use.known() && !u.known()) {
				best = x.use
				if x.slot {
					break
				}
			}
		}
	} else if s == nil {
		best = j.usesOf[name]
	}
	if s != nil && s.row != nil && s.row.known && !u.known() && !best.known() {
		best = best.or(use{res: s.row.res})
		best.guess = true
	}
	if u.nature != "" && best.nature == "" {
		best.nature = u.nature
	}
	return best.or(u)
}

// readStep records the paths of one step.
func (j *ghJob) readStep(s *ghStep) {
	r := j.w.r
	switch {
	case s.row != nil && !strings.HasPrefix(s.uses, "docker://"):
		j.actionPaths(s)
	case s.uses != "" && s.local == nil && j.idToken != no:
		if res, via := j.cloudOf(s); res.Kind != "" {
			j.federate(s, res, s.node.Line, via)
		}
	}
	for _, e := range s.env {
		if strings.HasPrefix(strings.ToUpper(e.name), "AWS_ENDPOINT_URL") && j.endpoint == "" {
			j.endpoint = r.str(e.node)
			defer func() { j.endpoint = "" }()
		}
	}
	for _, e := range s.env {
		j.refs(s, e.node, "step env: "+e.name, j.envUse(s, e.name), false)
		if op := r.str(e.node); strings.HasPrefix(op, "op://") {
			r.add(j.placeFor(StaticSecret, s), e.node.Line, Credential{Kind: StaticSecret, Name: e.name, Source: "1password"}, envUse(e.name), "step env: "+e.name)
		}
	}
	for k, v := range r.pairs(s.with) {
		j.refs(s, v, "with: "+k.Value, j.withUse(s, k.Value), false)
	}
	j.refs(s, r.get(s.node, "if"), "if", use{}, true)
	if s.uses != "" {
		j.refs(s, r.get(s.node, "uses"), "uses", use{}, false)
	}
	if s.facts != nil {
		j.scriptPaths(s)
	}
	if s.local != nil {
		j.localPaths(s)
	}
}

// unknownAction begins the resource of an input to an action that the table doesn't know.
const unknownAction = "action "

// withUse says what an input of the step's action is for.
func (j *ghJob) withUse(s *ghStep, key string) use {
	get := j.input(s)
	var u use
	switch {
	case s.local != nil:
		u = s.local.inputs[strings.ToLower(key)]
		if u.nature == "" {
			u.nature = natureOf(key)
		}
	case s.row != nil && s.row.known:
		u = s.row.inputUse(key, get)
		if u.nature == "" {
			u.nature = natureOf(key)
		}
		u.guess = strings.EqualFold(key, "script") // which does what it wants
		if strings.EqualFold(actionName(s.uses), "actions/checkout") && strings.EqualFold(key, "ssh-key") {
			u.res = Resource{"ssh/host-or-git", u.res.Name}
		} else if u.res.Kind == "vcs/git" && j.w.r.ci == GitHub && get("github-server-url") == "" {
			u.res.Kind = "vcs/github"
		}
	default:
		u = envUse(key)
		if nature := natureOf(key); nature != "" {
			u.nature = nature
		}
		if !u.known() && s.uses != "" && !strings.HasPrefix(s.uses, "./") {
			u.res = Resource{unknown, unknownAction + actionName(s.uses)}
		}
	}
	u.via = "with: " + key
	return u
}

// input gives the text of an input of a step, with the variables that the file itself sets.
func (j *ghJob) input(s *ghStep) func(string) string {
	return func(name string) string {
		if v := j.w.r.get(s.with, name); v != nil {
			return j.expand(s, j.w.r.str(v))
		}
		if env, ok := strings.CutPrefix(name, "env."); ok {
			return j.variable(s, env)
		}
		for k, v := range j.w.r.pairs(s.with) {
			if strings.EqualFold(k.Value, name) {
				return j.expand(s, j.w.r.str(v))
			}
		}
		return ""
	}
}

// expand puts the variables into a text that an environment of the file sets to a literal.
func (j *ghJob) expand(s *ghStep, text string) string {
	if !strings.Contains(text, "${{") {
		return text
	}
	var b strings.Builder
	last := 0
	for _, p := range placeholders(text) {
		name, ok := strings.CutPrefix(parseExpr(p.body).path(), "env.")
		value := j.variable(s, name)
		if !ok || value == "" || strings.Contains(value, "${{") {
			continue
		}
		b.WriteString(text[last:p.start] + value)
		last = p.end
	}
	return b.String() + text[last:]
}

// variable gives the text of a variable of a step's surroundings.
func (j *ghJob) variable(s *ghStep, name string) string {
	for _, env := range [][]ghEnv{s.env, j.env, j.w.env} {
		for _, e := range env {
			if e.name == name {
				return j.w.r.str(e.node)
			}
		}
	}
	return ""
}

// refs records the references of one scalar (or of all below a node) of a step, or of the job when s is nil.
func (j *ghJob) refs(s *ghStep, n *node, via string, u use, bare bool) {
	if n == nil {
		return
	}
	j.w.r.scalars(n, func(_ string, leaf *node) {
		refs := j.w.refsIn(leaf.Value, bare, j.matrix)
		for _, ref := range refs {
			x := u
			if n := natureOf(ref.name); n != "" && (len(refs) > 1 || !strings.HasPrefix(strings.TrimSpace(leaf.Value), "${{") || !strings.HasSuffix(strings.TrimSpace(leaf.Value), "}}")) {
				x.nature = n // a part of the value: its own name says more than the place of the whole
			}
			if x.nature == NatureIdentifier && accessKeyID(ref.name) {
				x.nature = NatureCredential // a registry's user name that is half of a key
			}
			j.ref(s, ref, j.w.r.lineOf(leaf, ref.offset, ref.name), via, x)
		}
	})
}

// ref records one reference.
func (j *ghJob) ref(s *ghStep, ref ghRef, line int, via string, u use) {
	r := j.w.r
	switch ref.kind {
	case refSecret:
		if u.nature == "" {
			u.nature = natureOf(ref.name)
		}
		if named := envUse(ref.name); named.known() && (u.guess && family(named.res.Kind) != family(u.res.Kind) || !u.known() && (u.res.Name == "" || strings.HasPrefix(u.res.Name, unknownAction))) {
			u.res = named.res
		}
		r.static(j.placeFor(StaticSecret, s), line, ref.name, u, via)
	case refAll:
		r.static(j.placeFor(StaticSecret, s), line, "*", use{res: u.res}, via+" toJSON(secrets)")
	case refDynamic:
		if named := envUse(ref.name); !u.known() && named.known() {
			u.res = named.res
		}
		r.static(j.placeFor(StaticSecret, s), line, ref.name, u, via)
		r.open(j.at, line, "secret name", "secrets[...]", "the name of the secret is computed at run time")
	case refToken:
		if !u.known() || u.res.Kind == "vcs/git" {
			u.res = j.forge()
		}
		p := r.platform(j.placeFor(PlatformToken, s), line, tokenName, u, via)
		if p.Permission == "" {
			p.Permission = j.scopes()
		}
	case refEnv:
		j.envRef(s, ref.name, line, via, u)
	case refOutput:
		j.outputRef(s, ref.name, line, via, u)
	}
}

// envRef follows ${{ env.X }} to where X is declared. What the job or the
// workflow declares is one path of the job, which learns its resource here.
func (j *ghJob) envRef(s *ghStep, name string, line int, via string, u use) {
	if s == nil {
		return
	}
	if j.handed(s, name, line, via, u) {
		return
	}
	if u.nature == NatureCredential && u.known() && looksSecret(name) && j.variable(s, name) == "" && j.strangerBefore(s) {
		// Only an action that isn't in the tree can have put it there: from where can't be told.
		j.w.r.static(j.placeFor(StaticSecret, s), line, name, u, via)
		return
	}
	for _, e := range s.env {
		if e.name != name {
			continue
		}
		for _, ref := range j.w.refsIn(j.w.r.str(e.node), false, j.matrix) {
			if ref.kind != refEnv {
				j.ref(s, ref, j.w.r.lineOf(e.node, ref.offset, ref.name), "step env: "+name, u)
			}
		}
	}
}

// strangerBefore reports whether an action from elsewhere that nobody knows ran
// before a step: it may have put variables into the environment.
func (j *ghJob) strangerBefore(s *ghStep) bool {
	for _, before := range j.steps {
		if before == s {
			return false
		}
		if before.uses != "" && before.local == nil && (before.row == nil || !before.row.known) {
			return true
		}
	}
	return false
}

// value records a use of a value that an earlier step read from a secrets manager.
func (j *ghJob) value(s *ghStep, name, source string, line int, via string, u use) {
	if u.nature == "" {
		u.nature = natureOf(name)
	}
	if !u.known() {
		u.res = envUse(name).res
	}
	j.w.r.add(j.placeFor(StaticSecret, s), line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature, Source: source}, u, via)
}

// outputRef follows an output of an earlier step: a token that it got for the
// job's identity, or a value that it read from a secrets manager.
func (j *ghJob) outputRef(s *ghStep, name string, line int, via string, u use) {
	id, out, _ := strings.Cut(name, ".")
	from := j.byID[id]
	if from == nil || from == s {
		return
	}
	source, ok := from.fetched[strings.ToLower(out)]
	if !ok && from.fetchedAll != "" {
		source, ok = from.fetchedAll, true
	}
	if ok {
		j.value(s, out, source, line, via, u)
		return
	}
	for _, ref := range from.gave[strings.ToLower(out)].refs {
		if ref.kind == refSecret && via != "if" && (u.known() || looksSecret(out)) {
			j.ref(s, ref, line, via, u)
		}
	}
	if from.fedRow && u.nature != NatureIdentifier && (u.nature == NatureCredential || looksSecret(out)) {
		j.w.r.federated(j.placeFor(Federated, s), line, j.issuer(), u, via)
	}
}

// ownFields records references in the remaining fields of the job: containers, services, outputs, environment.
func (j *ghJob) ownFields() {
	r := j.w.r
	for k, v := range r.pairs(j.node) {
		switch k.Value {
		case "steps", "env", "permissions", "runs-on", "needs", "uses", "secrets", "with":
			continue
		case "container":
			j.containerRefs(v)
			continue
		case "services":
			for _, svc := range r.pairs(v) {
				j.containerRefs(svc)
			}
			continue
		}
		j.refs(nil, v, k.Value, use{}, k.Value == "if")
	}
}

// containerRefs reads a job container or a service: its registry login and its environment.
func (j *ghJob) containerRefs(n *node) {
	r := j.w.r
	if r.isScalar(n) {
		j.refs(nil, n, "container", use{}, false)
		return
	}
	res := imageRegistry(r.str(r.get(n, "image")))
	for k, v := range r.pairs(n) {
		switch k.Value {
		case "credentials":
			for ck, cv := range r.pairs(v) {
				j.refs(nil, cv, "container credentials: "+ck.Value, use{res: res, nature: natureOf(ck.Value)}, false)
			}
		case "env":
			for ek, ev := range r.pairs(v) {
				j.refs(nil, ev, "container env: "+ek.Value, envUse(ek.Value), false)
			}
		default:
			j.refs(nil, v, "container", use{}, false)
		}
	}
}

// sortedKeys gives the keys of a map in order, for stable output.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
