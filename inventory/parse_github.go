package inventory

import (
	"regexp"
	"slices"
	"sort"
	"strings"
)

// GitHub Actions and Forgejo/Gitea Actions: workflows, reusable workflows and
// composite actions. The same reader serves both; what differs is the names of
// the job's token, who may mint an identity token, and what a runner's label means.

// ghWorkflow is one workflow while it is read.
type ghWorkflow struct {
	r         *reader
	root      *node
	jobs      *node
	byID      map[string]*node // jobs
	events    []ghEvent
	callee    bool // it can be called as a reusable workflow
	perms     *permissions
	idToken   truth // on Forgejo: enable-openid-connect of the workflow
	env       []ghEnv
	exposures map[string]exposure
}

// ghEnv is one entry of an `env:` block.
type ghEnv struct {
	name string
	node *node
}

// tokenName is what the job's token is called in a path.
const tokenName = "GITHUB_TOKEN"

// thisRepository names the repository of the workflow, which the file doesn't.
var thisRepository = Resource{"vcs/github", "this repository"}

func readGitHub(r *reader, docs []*node) {
	for _, root := range docs {
		if !r.isMap(root) {
			continue
		}
		if runs := r.get(root, "runs"); runs != nil && r.get(root, "jobs") == nil {
			readAction(r, root)
			continue
		}
		readWorkflow(r, root)
	}
}

// readWorkflow reads one workflow file.
func readWorkflow(r *reader, root *node) {
	w := &ghWorkflow{r: r, root: root, jobs: r.get(root, "jobs"), exposures: make(map[string]exposure), byID: make(map[string]*node)}
	for k, job := range r.pairs(w.jobs) {
		w.byID[k.Value] = job
	}
	w.readEvents()
	w.perms = readPermissions(&r.view, r.get(root, "permissions"))
	if r.ci == Forgejo {
		w.idToken = w.openID(root, no)
	}
	w.env = w.envOf(root)
	r.link.Workflow = firstOf(r.str(r.get(root, "name")), r.src.path)
	for k, job := range r.pairs(w.jobs) {
		if r.isMap(job) {
			w.readJob(k, job)
		}
	}
}

// readEvents reads `on:`, which YAML 1.1 may have turned into the key true.
func (w *ghWorkflow) readEvents() {
	on := w.r.get(w.root, "on")
	if on == nil {
		on = w.r.get(w.root, "true")
	}
	add := func(name string, n *node) {
		if name == "" {
			return
		}
		e := ghEvent{name: name, node: n, open: w.eventOpenness(name, n)}
		if e.open == elsewhen {
			w.callee = true
			w.r.link.Reusable = true
		}
		w.events = append(w.events, e)
	}
	if w.r.isMap(on) {
		for k, n := range w.r.pairs(on) {
			add(k.Value, n)
		}
	} else {
		for n := range w.r.items(on) {
			add(w.r.str(n), nil)
		}
	}
	for _, e := range w.events {
		w.r.link.Events = append(w.r.link.Events, e.name)
	}
}

// envOf reads the `env:` of a workflow, job or step.
func (w *ghWorkflow) envOf(n *node) []ghEnv {
	var out []ghEnv
	for k, v := range w.r.pairs(w.r.get(n, "env")) {
		out = append(out, ghEnv{k.Value, v})
	}
	return out
}

// openID reads Forgejo's enable-openid-connect.
func (w *ghWorkflow) openID(n *node, otherwise truth) truth {
	v := w.r.get(n, "enable-openid-connect")
	if v == nil {
		return otherwise
	}
	return truthOf(w.r.isTrue(v))
}

// permissions are the scopes of a job's token; nil is "no block".
type permissions struct {
	all    string // "read-all", "write-all"
	scopes map[string]string
	line   int
}

// readPermissions reads a `permissions:` block; nil when there is none.
func readPermissions(v *view, n *node) *permissions {
	if n == nil {
		return nil
	}
	p := &permissions{line: n.Line}
	if v.isScalar(n) {
		p.all = v.str(n)
		return p
	}
	p.scopes = make(map[string]string)
	for k, val := range v.pairs(n) {
		p.scopes[k.Value] = v.str(val)
	}
	return p
}

// String gives the effective scopes; one named scope sets all others to none.
func (p *permissions) String() string {
	if p.all != "" {
		return p.all
	}
	var out []string
	for k, v := range p.scopes {
		if v != "none" && v != "" {
			out = append(out, k+": "+v)
		}
	}
	if len(out) == 0 {
		return "none"
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// mints reports whether the job may mint an identity token.
func (p *permissions) mints() bool {
	return p.all == "write-all" || p.scopes["id-token"] == "write"
}

// ghJob is one job while it is read.
type ghJob struct {
	w       *ghWorkflow
	id      string
	node    *node
	at      place // reach is that of a static secret; see placeFor
	expo    exposure
	perms   *permissions
	idToken truth
	matrix  matrixValues
	env     []ghEnv
	steps   []*ghStep
	byID    map[string]*ghStep
	// identity is the cloud identity that earlier steps gave the job, by family.
	identity map[string]ghIdentity
	// usesOf says what scripts and inputs of the job do with variables of its environment.
	usesOf    map[string]use
	federated bool // a consumer of the identity token was found
	selfHost  bool
	given     map[string]ghHanded // by earlier steps, in lower case
	givenAll  string              // the source of variables that an earlier step fetched without naming them
	outputs   *string             // the texts of the steps that name outputs; made on first use
	endpoint  string              // AWS_ENDPOINT_URL: its keys are not for AWS
}

// ghIdentity is an identity that a step gave to those behind it.
type ghIdentity struct {
	kind Kind
	name string
}

func (w *ghWorkflow) readJob(k, n *node) {
	j := &ghJob{w: w, id: k.Value, node: n, byID: make(map[string]*ghStep), identity: make(map[string]ghIdentity), usesOf: make(map[string]use)}
	j.expo = w.jobExposure(j.id, 0)
	if j.expo.never() && len(w.events) > 0 {
		return // its condition is never true: it is not a path
	}
	j.perms = readPermissions(&w.r.view, w.r.get(n, "permissions"))
	if j.perms == nil {
		j.perms = w.perms
	}
	j.idToken = j.mayMint()
	j.matrix = w.r.readMatrix(w.r.get(n, "strategy"))
	j.env = w.envOf(n)
	j.settle()
	j.at = place{job: j.id}
	j.readRunner()
	j.tokenPath(k)
	if uses := w.r.get(n, "uses"); uses != nil {
		j.readCall(uses)
		return
	}
	for _, e := range slices.Concat(w.env, j.env) {
		if strings.HasPrefix(strings.ToUpper(e.name), "AWS_ENDPOINT_URL") {
			j.endpoint = w.r.str(e.node)
		}
	}
	for s := range w.r.items(w.r.get(n, "steps")) {
		if w.r.isMap(s) {
			j.prepare(s)
		}
	}
	j.ownEnv()
	guarded := false
	for _, s := range j.steps {
		if guarded {
			s.expo = closedOff(s.expo)
		}
		j.readStep(s)
		j.handOn(s)
		guarded = guarded || guardWords.MatchString(s.uses) && !strings.HasPrefix(s.uses, "./")
	}
	j.ownFields()
	if j.idToken == yes && !j.federated {
		j.capability()
	}
}

// closedOff is the exposure behind a step that ends the job for outsiders.
func closedOff(x exposure) exposure {
	x.events = slices.Clone(x.events)
	for i := range x.events {
		if x.events[i].open == open || x.events[i].open == readOnly {
			x.events[i].open = closed
		}
	}
	return x
}

// mayMint tells whether the job can ask for an identity token. A called workflow without a block depends on its caller.
func (j *ghJob) mayMint() truth {
	if j.w.r.ci == Forgejo {
		return j.w.openID(j.node, j.w.idToken)
	}
	switch {
	case j.perms != nil:
		return truthOf(j.perms.mints())
	case j.w.callee:
		return maybe
	}
	return no
}

// placeFor gives the place of a path in the job, with the reach for its kind.
func (j *ghJob) placeFor(kind Kind, s *ghStep) place {
	p, x := j.at, j.expo
	if s != nil {
		p.step, p.line, x = s.label, s.node.Line, s.expo
	}
	p.reach = x.reach(kind)
	return p
}

// tokenPath records the job's own token with its effective scopes.
func (j *ghJob) tokenPath(k *node) {
	p := j.w.r.platform(j.placeFor(PlatformToken, nil), k.Line, tokenName, use{res: j.forge()}, "job token")
	p.Permission = j.scopes()
}

// inheritedScopes is the permission of a reusable workflow that doesn't limit its token.
const inheritedScopes = "inherited from the caller"

// scopes gives the effective permissions of the job's token.
func (j *ghJob) scopes() string {
	switch {
	case j.perms != nil:
		return j.perms.String()
	case j.w.callee:
		return inheritedScopes
	}
	return "default (repository setting)"
}

// forge is the repository that the job's token is for.
func (j *ghJob) forge() Resource {
	if j.w.r.ci == Forgejo {
		return Resource{"vcs/forgejo", thisRepository.Name}
	}
	return thisRepository
}

// issuer names the identity token.
func (j *ghJob) issuer() string {
	if j.w.r.ci == Forgejo {
		return "oidc:forgejo"
	}
	return "oidc:github"
}

// capability records that the job may mint identity tokens although nothing
// here is known to use one: the consumer is often a script or a composite action.
func (j *ghJob) capability() {
	line := j.node.Line
	if j.perms != nil {
		line = j.perms.line
	}
	for _, at := range []*node{j.node, j.w.root} {
		if n := j.w.r.get(j.w.r.get(at, "permissions"), "id-token"); n != nil {
			line = n.Line
			break
		} else if n := j.w.r.get(at, "enable-openid-connect"); n != nil {
			line = n.Line
			break
		}
	}
	j.w.r.federated(j.placeFor(Federated, nil), line, j.issuer(), use{res: Resource{"oidc/issuer", unknown}}, "permissions: id-token")
}

// hostedLabel matches the labels of machines that GitHub runs.
var hostedLabel = regexp.MustCompile(`^(ubuntu|windows|macos)-(latest|slim|\d)[a-z0-9.-]*$`)

// codebergLabel matches the labels of machines that Codeberg runs.
var codebergLabel = regexp.MustCompile(`^codeberg-`)

// readRunner tells what machine the job runs on; a machine of the owner's brings its own identity.
func (j *ghJob) readRunner() {
	r := j.w.r
	n := r.get(j.node, "runs-on")
	if n == nil {
		j.at.runner = Runner{Kind: RunnerUnknown}
		return
	}
	var labels []string
	grouped := false
	if r.isMap(n) {
		for _, g := range r.strs(r.get(n, "group")) {
			labels, grouped = append(labels, "group:"+g), true
		}
		labels = append(labels, r.strs(r.get(n, "labels"))...)
	} else {
		labels = r.strs(n)
	}
	j.at.runner.Labels = labels
	if j.runnerByEvent(n, labels) {
		return
	}
	own, unsure := j.ownLabels(labels, grouped)
	switch {
	case len(own) > 0:
		j.at.runner.Kind, j.selfHost = RunnerSelfHosted, true
	case unsure:
		j.at.runner.Kind = RunnerUnknown
		r.open(j.at, n.Line, "runner", strings.Join(labels, ", "), "the machine is chosen at run time; it may be one with an identity of its own")
		return
	default:
		j.at.runner.Kind = RunnerHosted
		return
	}
	name := strings.Join(own, ", ")
	r.ambient(j.placeFor(Ambient, nil), n.Line, name, use{res: Resource{"runner/self-hosted", name}}, "runs-on")
}

// runnerByEvent reads a label that depends on what started the run:
// ${{ github.event_name == 'push' && 'deploy-box' || 'ubuntu-latest' }}. Only the
// events that choose a machine of the owner's reach its identity.
func (j *ghJob) runnerByEvent(n *node, labels []string) bool {
	if len(labels) != 1 || !strings.Contains(labels[0], "event_name") {
		return false
	}
	p := placeholders(labels[0])
	if len(p) != 1 || p[0].start != 0 || p[0].end != len(labels[0]) {
		return false
	}
	e := parseExpr(p[0].body)
	var own []string
	at := j.expo
	at.events = nil
	for _, ev := range j.expo.events {
		values := []string{e.eval(insiderNames(ev.name), nil).text}
		if v := values[0]; v == "" || v == "true" || v == "false" {
			// The event is a caller's: any of the machines.
			var ok bool
			if values, ok = j.labelValues(labels[0]); !ok {
				return false
			}
		}
		values = slices.DeleteFunc(values, j.hosted)
		if len(values) > 0 {
			own, at.events = append(own, values...), append(at.events, ev)
		}
	}
	j.at.runner.Kind = RunnerHosted
	if len(own) == 0 {
		return true
	}
	j.at.runner.Kind, j.selfHost = RunnerSelfHosted, true
	slices.Sort(own)
	name := strings.Join(slices.Compact(own), ", ")
	place := j.at
	place.reach = at.reach(Ambient)
	j.w.r.ambient(place, n.Line, name, use{res: Resource{"runner/self-hosted", name}}, "runs-on")
	return true
}

// ownLabels gives the labels that name machines of the owner's; unsure when only a run can tell.
func (j *ghJob) ownLabels(labels []string, grouped bool) (own []string, unsure bool) {
	for _, l := range labels {
		if strings.Contains(l, "${{") {
			values, ok := j.labelValues(l)
			if !ok {
				unsure = true
			}
			for _, v := range values {
				if !j.hosted(v) {
					own = append(own, v)
				}
			}
			continue
		}
		if grouped || !j.hosted(l) {
			own = append(own, l)
		}
	}
	slices.Sort(own)
	return slices.Compact(own), unsure
}

func (j *ghJob) hosted(label string) bool {
	low := strings.ToLower(strings.TrimSpace(label))
	if j.w.r.ci == Forgejo {
		return codebergLabel.MatchString(low)
	}
	return hostedLabel.MatchString(low) || low == ""
}

// labelValues gives what an expression in runs-on can be: the matrix, the
// literals of a choice, or the default of an input.
func (j *ghJob) labelValues(label string) (values []string, ok bool) {
	for _, p := range placeholders(label) {
		e := parseExpr(p.body)
		got := candidates(e, j.matrix)
		if name, isInput := strings.CutPrefix(e.path(), "inputs."); isInput && len(got) == 0 {
			for _, ev := range j.w.events {
				if d := j.w.r.str(j.w.r.at(ev.node, "inputs", name, "default")); d != "" {
					got = append(got, d)
				}
			}
		}
		if len(got) == 0 {
			got = e.literals()
		}
		if len(got) == 0 {
			return nil, false
		}
		for _, g := range got {
			// fromJSON('["self-hosted", "linux"]') and a whole label around the placeholder.
			g = strings.Trim(label[:p.start]+g+label[p.end:], "[]")
			for _, part := range strings.Split(g, ",") {
				if part = strings.Trim(part, ` "'`); part != "" && !strings.Contains(part, "${{") {
					values = append(values, part)
				}
			}
		}
	}
	return values, len(values) > 0
}
