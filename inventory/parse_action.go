package inventory

import (
	"path"
	"strings"
)

// Composite actions. They have no secrets of their own: credentials come as
// inputs. Read by itself, an action shows which inputs it uses as credentials;
// read for a caller, what it does with them.

// compositeJob is the job name of the paths of a composite action.
const compositeJob = "(composite action)"

// actionSummary is what a caller needs to know of a local action.
type actionSummary struct {
	inputs    map[string]use // by lower-case name
	federated []innerFed
	missing   []string
}

// innerFed is a step of an action that exchanges the caller's identity token.
type innerFed struct {
	res   Resource
	row   *consumerRow      // nil for a command that signs without a key
	with  map[string]string // its inputs, which may name inputs of the action
	gives string
}

// resource gives what is reached, with the caller's inputs put in.
func (f innerFed) resource(get func(string) string) Resource {
	if f.row == nil {
		return f.res
	}
	return f.row.resource(func(name string) string {
		v := f.with[strings.ToLower(name)]
		for _, p := range placeholders(v) {
			if in, ok := strings.CutPrefix(parseExpr(p.body).path(), "inputs."); ok {
				return get(in)
			}
		}
		return v
	})
}

// summary reads a local action; nil when it is not in the tree.
func (l *looks) summary(dir string, depth int) *actionSummary {
	var p *parsed
	for _, name := range []string{"action.yml", "action.yaml"} {
		if p = l.load(path.Join(dir, name)); p != nil {
			break
		}
	}
	if p == nil || len(p.docs) == 0 || depth > 4 {
		return nil
	}
	v := &view{}
	root := p.docs[0]
	sum := &actionSummary{inputs: make(map[string]use)}
	w := &ghWorkflow{r: &reader{src: p.src, ci: GitHub, tree: l}}
	for step := range v.items(v.at(root, "runs", "steps")) {
		l.summariseStep(w, v, p, step, sum, depth)
	}
	return sum
}

// summariseStep adds what one step of an action does with its inputs.
func (l *looks) summariseStep(w *ghWorkflow, v *view, p *parsed, step *node, sum *actionSummary, depth int) {
	uses := v.str(v.get(step, "uses"))
	row := findAction(uses)
	with := make(map[string]string)
	for k, val := range v.pairs(v.get(step, "with")) {
		with[strings.ToLower(k.Value)] = v.str(val)
	}
	get := func(name string) string { return with[strings.ToLower(name)] }
	var inner *actionSummary
	if strings.HasPrefix(uses, "./") {
		if inner = l.summary(path.Join(p.src.repo, uses), depth+1); inner == nil {
			sum.missing = append(sum.missing, uses)
		} else {
			sum.federated = append(sum.federated, inner.federated...)
		}
	}
	note := func(text string, u use) {
		for _, ref := range w.refsIn(text, false, nil) {
			if ref.kind == refInput {
				name := strings.ToLower(ref.name)
				sum.inputs[name] = sum.inputs[name].or(u)
			}
		}
	}
	if row != nil && row.known && row.federates(get) {
		sum.federated = append(sum.federated, innerFed{res: row.res, row: row, with: with, gives: row.gives})
	}
	if v.get(v.get(step, "env"), "COSIGN_PRIVATE_KEY") == nil {
		for _, a := range readScript(v.str(v.get(step, "run")), nil).actors {
			if a.family == "sigstore" {
				sum.federated = append(sum.federated, innerFed{res: a.res})
			}
		}
	}
	for key, text := range with {
		switch {
		case row != nil && row.known:
			note(text, row.inputUse(key, get))
		case inner != nil:
			note(text, inner.inputs[key])
		default:
			note(text, envUse(key))
		}
	}
	for k, val := range v.pairs(v.get(step, "env")) {
		note(v.str(val), envUse(k.Value))
	}
}

// readAction reads a composite action by itself.
func readAction(r *reader, root *node) {
	if !strings.EqualFold(r.str(r.at(root, "runs", "using")), "composite") {
		return
	}
	w := &ghWorkflow{r: r, root: root, callee: true, exposures: make(map[string]exposure)}
	w.events = []ghEvent{{name: "workflow_call", open: elsewhen}}
	j := &ghJob{w: w, id: compositeJob, node: root, byID: make(map[string]*ghStep), identity: make(map[string]ghIdentity), usesOf: make(map[string]use), idToken: maybe}
	j.at = place{job: compositeJob}
	j.expo = exposure{events: w.events}
	for s := range r.items(r.at(root, "runs", "steps")) {
		if r.isMap(s) {
			j.prepare(s)
		}
	}
	for _, s := range j.steps {
		j.readStep(s)
		j.inputPaths(root, s)
	}
}

// inputPaths records the inputs that a step of an action uses as credentials.
// An input whose default is the job's token stands for that token.
func (j *ghJob) inputPaths(root *node, s *ghStep) {
	r := j.w.r
	record := func(leaf *node, via string, u use) {
		for _, ref := range j.w.refsIn(leaf.Value, false, nil) {
			if ref.kind != refInput {
				continue
			}
			if u.nature != NatureCredential {
				continue
			}
			line := r.lineOf(leaf, ref.offset, ref.name)
			def := r.str(r.at(root, "inputs", ref.name, "default"))
			if strings.Contains(def, "github.token") || strings.Contains(def, "GITHUB_TOKEN") {
				p := r.platform(j.placeFor(PlatformToken, s), line, tokenName, u.or(use{res: j.forge()}), via)
				p.Permission = j.scopes()
				continue
			}
			r.static(j.placeFor(StaticSecret, s), line, ref.name, u, via)
		}
	}
	for k, v := range r.pairs(s.with) {
		u := j.withUse(s, k.Value)
		r.scalars(v, func(_ string, leaf *node) { record(leaf, "with: "+k.Value, u) })
	}
	for _, e := range s.env {
		if r.isScalar(e.node) {
			record(e.node, "step env: "+e.name, j.envUse(s, e.name))
		}
	}
	if s.facts == nil {
		return
	}
	for _, u := range s.facts.uses {
		for _, ref := range s.holes[u.name] {
			if ref.kind == refInput && (u.use.nature == NatureCredential && u.slot || looksSecret(ref.name)) {
				x := u.use
				x.nature = NatureCredential
				r.static(j.placeFor(StaticSecret, s), r.lineOf(s.run, ref.offset, ref.name), ref.name, x, "run")
			}
		}
	}
}
