package inventory

import (
	"slices"
	"strings"
)

// actionPaths records what a known action does beyond taking values: it
// exchanges the identity token, acts with an identity that the job has, and reads secrets managers.
func (j *ghJob) actionPaths(s *ghStep) {
	r, get := j.w.r, j.input(s)
	row := s.row
	res := row.resource(get)
	line := s.node.Line
	if n := r.get(s.node, "uses"); n != nil {
		line = n.Line
	}
	if row.isAmbient(get) {
		r.ambient(j.placeFor(Ambient, s), line, firstOf(get("auth-type"), "runner"), use{res: res}, "uses: "+actionName(s.uses))
	} else if row.federates(get) && !j.hasTokenEnv(s, row) {
		j.federate(s, res, line, "uses: "+actionName(s.uses))
	}
	if row.gives != "" {
		j.gives(s, get)
	} else if row.as != "" {
		j.actAs(s, row.as, res, line, "uses: "+actionName(s.uses))
	}
	for _, in := range row.fetch {
		if in == "*" {
			s.fetchedAll = row.source
			continue
		}
		j.fetch(s, get(in), sourceName(row.source, res.Name))
	}
	if actionName(s.uses) == "actions/setup-java" {
		j.mavenSettings(s, get)
	}
}

// sourceName gives where a value comes from, with the vault's name where there are many.
func sourceName(source, name string) string {
	if source == "azure-key-vault" && name != "" && name != unknown {
		return source + ":" + name
	}
	return source
}

// federate records an exchange of the job's identity token, when the job may have one.
func (j *ghJob) federate(s *ghStep, res Resource, line int, via string) {
	if j.idToken == no {
		if j.selfHost && res.Kind == "cloud/aws" {
			j.w.r.ambient(j.placeFor(Ambient, s), line, "runner", use{res: res}, via)
			j.identity["aws"] = ghIdentity{Ambient, "runner"}
		}
		return
	}
	j.federated, s.fedRow = true, true
	j.w.r.federated(j.placeFor(Federated, s), line, j.issuer(), use{res: res}, via)
}

// hasTokenEnv reports whether a step that could federate has a token of its own in its environment: CODECOV_TOKEN, GEM_HOST_API_KEY.
func (j *ghJob) hasTokenEnv(s *ghStep, row *consumerRow) bool {
	if len(row.fed) == 0 || row.fed[0] != "always" || row.res.Kind == "signing/sigstore" || row.res.Kind == "signing/slsa" || row.res.Kind == "vcs/github-pages" {
		return false
	}
	for _, e := range s.env {
		if u := envUse(e.name); u.nature == NatureCredential && u.res.Kind == row.res.Kind && strings.Contains(j.w.r.str(e.node), "secrets.") {
			return true
		}
	}
	return false
}

// gives remembers the identity that a step gave the job.
func (j *ghJob) gives(s *ghStep, get func(string) string) {
	fam := s.row.gives
	switch {
	case s.fedRow:
		j.identity[fam] = ghIdentity{Federated, j.issuer()}
	case s.row.as != "":
		if id, ok := j.identity[s.row.as]; ok {
			j.identity[fam] = id
		}
		j.actAs(s, s.row.as, s.row.resource(get), s.node.Line, "uses: "+actionName(s.uses))
	case fam == "docker":
		if reg := s.row.resource(get); reg.Kind == "registry/ecr" && get("password") == "" {
			j.actAs(s, "aws", reg, s.node.Line, "uses: "+actionName(s.uses))
		}
	default:
		j.identity[fam] = ghIdentity{StaticSecret, ""}
	}
}

// actAs records that a step reaches a resource with the identity that the job
// has: the exchanged one, or the machine's. A static key has its path where it is set.
func (j *ghJob) actAs(s *ghStep, family string, res Resource, line int, via string) {
	id, ok := j.identity[family]
	switch {
	case ok && id.kind == Federated:
		j.w.r.federated(j.placeFor(Federated, s), line, id.name, use{res: res}, via)
	case ok && id.kind == Ambient, !ok && j.selfHost && !j.hasKeys(s, family):
		j.w.r.ambient(j.placeFor(Ambient, s), line, "runner", use{res: res}, via)
	}
}

// hasKeys reports whether the environment holds static keys of a family of clouds.
func (j *ghJob) hasKeys(s *ghStep, family string) bool {
	kind := "cloud/" + family
	for _, env := range [][]ghEnv{s.env, j.env, j.w.env} {
		for _, e := range env {
			if u := envUse(e.name); u.nature == NatureCredential && u.res.Kind == kind {
				return true
			}
		}
	}
	return false
}

// fetch records what a step reads from a secrets manager. A value that a later
// step names is a path there; the others are paths here, where they are exposed.
func (j *ghJob) fetch(s *ghStep, list, source string) {
	r := j.w.r
	if s.fetched == nil {
		s.fetched = make(map[string]string)
	}
	if j.outputs == nil {
		var b strings.Builder
		for _, other := range j.steps {
			b.WriteString(stepText(r, other.node))
		}
		lower := strings.ToLower(b.String())
		j.outputs = &lower
	}
	id := r.str(r.get(s.node, "id"))
	for _, name := range fetchedNames(list) {
		s.fetched[strings.ToLower(name)] = source
		if id != "" && strings.Contains(*j.outputs, strings.ToLower("steps."+id+".outputs."+name)) {
			continue
		}
		n := r.get(s.with, "secrets")
		line := s.node.Line
		if n != nil {
			line = r.lineOf(n, -1, name)
		}
		r.add(j.placeFor(StaticSecret, s), line, Credential{Kind: StaticSecret, Name: name, Nature: natureOf(name), Source: source}, j.usesOf[name].or(envUse(name)), "fetched by "+actionName(s.uses))
	}
}

// stepText gives the scalars of a step as one text.
func stepText(r *reader, n *node) string {
	var b strings.Builder
	r.scalars(n, func(_ string, s *node) {
		if strings.Contains(s.Value, "outputs.") {
			b.WriteString(s.Value)
			b.WriteByte('\n')
		}
	})
	return b.String()
}

// fetchedNames reads the lists of the actions that fetch secrets:
//
//	a, b                           names
//	secret/data/ci key | NAME ;    Vault: path, key, and the variable
//	NAME=path:key                  a variable and its place
//	output:project/secret          an output and its place
//	ALIAS, arn:...                 an alias and its secret
func fetchedNames(list string) []string {
	if strings.Contains(list, "${{") && !strings.Contains(list, "\n") {
		return []string{unknown}
	}
	var out []string
	cut := func(r rune) bool { return r == '\n' || r == ';' }
	if !strings.ContainsAny(list, "|=\n") {
		cut = func(r rune) bool { return r == ',' }
	}
	for _, item := range strings.FieldsFunc(list, cut) {
		item = strings.Trim(strings.TrimSpace(item), `"',`)
		if item == "" || strings.HasPrefix(item, "#") {
			continue
		}
		switch {
		case strings.Contains(item, "|"):
			item = item[strings.LastIndexByte(item, '|')+1:]
		case strings.Contains(item, "=") && !strings.HasPrefix(item, "arn:"):
			item, _, _ = strings.Cut(item, "=")
		case strings.Contains(item, " ") && strings.Contains(item, "/"):
			item = item[strings.LastIndexByte(item, ' ')+1:]
		case strings.Contains(item, ":") && strings.Contains(item, "/") && !strings.HasPrefix(item, "arn:"):
			item = item[strings.LastIndexByte(item, '/')+1:]
		case strings.Contains(item, ","):
			item, _, _ = strings.Cut(item, ",")
		}
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// mavenSettings reads actions/setup-java, whose inputs name variables of later steps.
func (j *ghJob) mavenSettings(s *ghStep, get func(string) string) {
	for _, in := range []string{"server-username", "server-password", "gpg-passphrase"} {
		if name := get(in); name != "" {
			res := Resource{"registry/maven", firstOf(get("server-id"), unknown)}
			if in == "gpg-passphrase" {
				res = Resource{"signing/gpg", unknown}
			}
			nature := NatureCredential
			if in == "server-username" {
				nature = NatureIdentifier
			}
			j.noteUse(name, use{res: res, nature: nature})
		}
	}
}

// scriptPaths records what a script of the step does.
func (j *ghJob) scriptPaths(s *ghStep) {
	r := j.w.r
	text := r.str(s.run)
	seen := make(map[string]bool)
	for _, u := range s.facts.uses {
		refs, ok := s.holes[u.name]
		if !ok || seen[u.name] {
			continue
		}
		best := u.use
		if !u.slot || !best.known() {
			for _, v := range s.facts.uses {
				if v.name == u.name && v.slot && v.use.known() {
					best = v.use
					break
				}
			}
		}
		seen[u.name] = true
		for _, ref := range refs {
			j.ref(s, ref, r.lineOf(s.run, ref.offset, ref.name), "run", best)
		}
	}
	// What the parser did not take for a variable is still a reference: a placeholder in a comment of a here-document, in a name.
	for _, name := range sortedKeys(s.holes) {
		if seen[name] {
			continue
		}
		for _, ref := range s.holes[name] {
			if !inComment(text, ref.offset) {
				j.ref(s, ref, r.lineOf(s.run, ref.offset, ref.name), "run", use{})
			}
		}
	}
	if r.ci == Forgejo {
		j.heldToken(s)
	}
	for _, x := range s.facts.exchanges {
		line := r.scriptLine(s.run, x.line, "")
		if !strings.Contains(text, "ACTIONS_ID_TOKEN_REQUEST") && x.token == "" && j.idToken != yes {
			continue
		}
		if refs, ok := s.holes[x.token]; ok && len(refs) > 0 && refs[0].kind == refSecret {
			continue
		}
		j.federate(s, x.res, line, x.via)
	}
	for _, f := range s.facts.fetched {
		j.scriptFetch(s, f)
	}
	j.handedToScript(s)
	for _, h := range s.facts.held {
		r.held(j.placeFor(StaticSecret, s), r.scriptLine(s.run, h.line, ""), h, "run")
	}
	for _, a := range s.facts.actors {
		j.actorPaths(s, a)
	}
}

// heldToken records uses of the job's token by the variables that runners of
// Forgejo and Gitea set in every step.
func (j *ghJob) heldToken(s *ghStep) {
	for _, u := range s.facts.uses {
		switch u.name {
		case "FORGEJO_TOKEN", "GITEA_TOKEN", "GITHUB_TOKEN":
			if slices.ContainsFunc(slices.Concat(s.env, j.env, j.w.env), func(e ghEnv) bool { return e.name == u.name }) {
				continue // the file gives it another value
			}
			j.w.r.platform(j.placeFor(PlatformToken, s), j.w.r.scriptLine(s.run, u.line, u.name), tokenName, u.use.or(use{res: j.forge()}), "run")
		}
	}
}

// inComment reports whether an offset stands behind a # that begins a word of its line.
func inComment(text string, offset int) bool {
	start := strings.LastIndexByte(text[:offset], '\n') + 1
	line := text[start:offset]
	for i := 0; i < len(line); i++ {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') && strings.Count(line[:i], `"`)%2 == 0 && strings.Count(line[:i], "'")%2 == 0 {
			return true
		}
	}
	return false
}

// scriptFetch records a value that a script reads from a secrets manager: the access, and the value.
func (j *ghJob) scriptFetch(s *ghStep, f fetched) {
	r := j.w.r
	line := r.scriptLine(s.run, f.line, "")
	j.actAs(s, f.family, f.res, line, "run")
	r.add(j.placeFor(StaticSecret, s), line, Credential{Kind: StaticSecret, Name: f.name, Nature: natureOf(f.name), Source: f.source}, f.purpose(), "run")
}

// actorPaths records commands that act with an identity token: keyless
// signatures and trusted publishing, when no token of their own is in sight.
func (j *ghJob) actorPaths(s *ghStep, a actor) {
	r := j.w.r
	line := r.scriptLine(s.run, a.line, "")
	switch a.family {
	case "sigstore", "provenance":
		if j.idToken != no && !(a.family == "sigstore" && j.inScope(s, "COSIGN_PRIVATE_KEY")) {
			j.federate(s, a.res, line, a.via)
		}
	case "npm", "pypi", "cargo", "gem", "nuget":
		if j.idToken == yes && !j.credentialFor(s, a.res.Kind) {
			j.federate(s, a.res, line, a.via)
		}
	case "aws", "gcp", "azure":
		if a.res.Kind == "registry/ecr" || a.res.Kind == "registry/gar" || a.res.Kind == "registry/acr" {
			j.actAs(s, a.family, a.res, line, a.via)
			return
		}
		if _, ok := j.identity[a.family]; ok {
			return // the step that got it has the path
		}
		fallthrough
	case "k8s", "iac":
		if j.selfHost && !j.hasKeys(s, a.family) {
			r.machineActs(j.placeFor(Ambient, s), line, "runner", a)
		}
	}
}

// inScope reports whether a variable is set in an environment of the step.
func (j *ghJob) inScope(s *ghStep, name string) bool {
	for _, env := range [][]ghEnv{s.env, j.env, j.w.env} {
		for _, e := range env {
			if e.name == name {
				return true
			}
		}
	}
	return false
}

// credentialFor reports whether a secret for a kind of resource is in an environment of the step, or in its script.
func (j *ghJob) credentialFor(s *ghStep, kind string) bool {
	for _, env := range [][]ghEnv{s.env, j.env, j.w.env} {
		for _, e := range env {
			if u := envUse(e.name); u.res.Kind == kind && u.nature == NatureCredential && strings.Contains(j.w.r.str(e.node), "${{") {
				return true
			}
		}
	}
	for _, u := range s.facts.uses {
		if refs := s.holes[u.name]; len(refs) > 0 && u.slot && u.use.res.Kind == kind {
			return true
		}
	}
	return false
}

// localPaths records what a local composite action does with the identity of the job that calls it.
func (j *ghJob) localPaths(s *ghStep) {
	line := s.node.Line
	for _, f := range s.local.federated {
		if f.row == nil && j.inScope(s, "COSIGN_PRIVATE_KEY") {
			continue // the action's commands sign with the caller's key
		}
		j.federate(s, f.resource(j.input(s)), line, "uses: "+s.uses)
		if f.gives != "" && s.fedRow {
			j.identity[f.gives] = ghIdentity{Federated, j.issuer()}
		}
	}
	for _, name := range s.local.missing {
		j.w.r.open(j.at.at(s.label), line, "action", name, "an action inside of a local action is not in the scanned tree")
	}
}
