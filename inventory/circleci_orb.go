package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// orbName puts the registered name of an orb in the place of its alias: "ecr" -> "aws-ecr".
func (f *ccFile) orbName(name string) string {
	alias, inner, _ := strings.Cut(name, "/")
	source := f.orbs[alias]
	if source == "" {
		return name
	}
	source, _, _ = strings.Cut(source, "@")
	if ns, orb, ok := strings.Cut(source, "/"); ok {
		full := ns + "/" + orb + "/" + inner
		if row := orbRows().find(full); ns == "circleci" || row == nil || row == orbRows().find(ns+"/") {
			return orb + "/" + inner // a row for an orb of that name is none for a namespace of that name
		}
		return full
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
			if (isVariableName(r.str(v)) || ccPrefixedName.MatchString(r.str(v))) && looksSecret(r.str(v)) {
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
		if u.nature != NatureCredential && isVariableName(text) && looksSecret(text) {
			u = use{res: res, nature: NatureCredential} // sonar_token_variable_name: OUR_TOKEN
		}
		if u.nature == NatureCredential && isVariableName(text) {
			named = named || slices.Contains(row.secrets, k.Value) || len(row.env) == 1
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

// ccPrefixedName matches names of variables that begin with an environment's as people write it: Stage_AWS_SECRET_ACCESS_KEY.
var ccPrefixedName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(_[A-Z0-9]+){2,}$`)

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
			j.scope.script(v, params.script(r.str(v)))
		}
	}
	j.step, j.line = outer, was
}

// cloudFamily gives the cloud whose identity opens a kind of resource; "" when it is none's.
func cloudFamily(kind string) string {
	switch kind {
	case "cloud/aws", "registry/ecr", "registry/codeartifact", "secrets-manager/aws", "secrets-manager/ssm":
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
