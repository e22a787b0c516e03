package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ghFile is a workflow of GitHub while it is edited.
type ghFile struct {
	*doc
	jobs *yaml.Node
}

func openGitHub(text string) (*ghFile, error) {
	d, err := parseDoc(text)
	if err != nil {
		return nil, err
	}
	f := &ghFile{doc: d}
	if f.jobs = value(d.root, "jobs"); f.jobs == nil {
		return nil, no(d.root, "a composite action has no jobs: change the workflows that pass it the secret, then its inputs")
	}
	return f, d.block(f.jobs, "jobs")
}

// ghJob is a job of it.
type ghJob struct {
	f        *ghFile
	id       string
	key      *yaml.Node
	node     *yaml.Node
	stepsKey *yaml.Node
	steps    []*yaml.Node
	forgejo  bool // has another switch for identity tokens, and no scopes
	everyRun bool // the steps that use the secret run under several conditions
}

// job finds a job that can be edited.
func (f *ghFile) job(id string) (*ghJob, error) {
	key, node := find(f.jobs, id)
	if key == nil {
		return nil, no(f.jobs, "the job %s is not in the file as it is now", oneLine(id))
	}
	if err := f.block(node, "the job"); err != nil {
		return nil, err
	}
	j := &ghJob{f: f, id: id, key: key, node: node}
	if u := value(node, "uses"); u != nil {
		return nil, no(u, "the job calls the reusable workflow %s: its own steps have to change first, then its secrets: can go", oneLine(u.Value))
	}
	stepsKey, steps := find(node, "steps")
	if err := f.own(steps, "steps"); err != nil {
		return nil, err
	}
	if steps.Kind != yaml.SequenceNode || steps.Style&yaml.FlowStyle != 0 {
		return nil, no(steps, "steps is not written as one step a line")
	}
	j.stepsKey, j.steps = stepsKey, steps.Content
	return j, nil
}

// ghUse is one reference to a secret in a job.
type ghUse struct {
	name   string     // the secret's
	step   int        // index; -1: the job itself
	in     string     // "env", "with", "run", or what else
	mapKey *yaml.Node // the key "env" or "with"
	m      *yaml.Node
	key    *yaml.Node // the entry's
	val    *yaml.Node
	exact  bool // the value is the reference and nothing else
}

var secretRef = regexp.MustCompile(`(?i)secrets\s*(?:\.\s*([A-Za-z_][A-Za-z0-9_-]*)|\[\s*'([^']*)'\s*\])`)
var exactRef = regexp.MustCompile(`^\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}$`)

// maxUses bounds the references to a secret in one job; with more of them the
// patched text still names it, and there is no patch.
const maxUses = 500

// uses lists the references to some secrets in a job, in the order of the file.
func (j *ghJob) uses(names []string) []ghUse {
	var out []ghUse
	scan := func(u ghUse) {
		for _, m := range secretRef.FindAllStringSubmatch(text(u.val), -1) {
			name := m[1] + m[2]
			if len(out) >= maxUses {
				return
			}
			if i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) }); i >= 0 {
				u.name = names[i]
				e := exactRef.FindStringSubmatch(strings.TrimSpace(u.val.Value))
				u.exact = e != nil
				out = append(out, u)
			}
		}
	}
	entries := func(u ghUse, mapKey, m *yaml.Node) {
		for i := 0; m != nil && i+1 < len(m.Content); i += 2 {
			u.mapKey, u.m, u.key, u.val = mapKey, m, m.Content[i], m.Content[i+1]
			scan(u)
		}
	}
	for i := 0; i+1 < len(j.node.Content); i += 2 {
		k, v := j.node.Content[i], j.node.Content[i+1]
		switch k.Value {
		case "steps":
		case "env":
			entries(ghUse{step: -1, in: "env"}, k, deref(v))
		default:
			walkScalars(v, 0, func(n *yaml.Node) { scan(ghUse{step: -1, in: k.Value, key: k, val: n}) })
		}
	}
	for s, st := range j.steps {
		st = deref(st)
		for i := 0; i+1 < len(st.Content); i += 2 {
			k, v := st.Content[i], st.Content[i+1]
			switch k.Value {
			case "env", "with":
				entries(ghUse{step: s, in: k.Value}, k, deref(v))
			default:
				walkScalars(v, 0, func(n *yaml.Node) { scan(ghUse{step: s, in: k.Value, key: k, val: n}) })
			}
		}
	}
	return out
}

func deref(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode && i < 8; i++ {
		n = n.Alias
	}
	return n
}

// maxNodes bounds a walk that follows aliases: they can stand for each other
// until the text would fill the universe. What a walk leaves out is found by
// the scan of the patched text.
const maxNodes = 100_000

// walkScalars visits the scalars below a node, those that aliases stand for too.
func walkScalars(n *yaml.Node, depth int, visit func(*yaml.Node)) {
	left := maxNodes
	var walk func(n *yaml.Node, depth int)
	walk = func(n *yaml.Node, depth int) {
		if n = deref(n); n == nil || depth > 50 || left <= 0 {
			return
		}
		left--
		if n.Kind == yaml.ScalarNode {
			visit(n)
		}
		for _, c := range n.Content {
			walk(c, depth+1)
		}
	}
	walk(n, depth)
}

// step gives a step that can be edited.
func (j *ghJob) step(i int) (*yaml.Node, error) {
	st := j.steps[i]
	return st, j.f.block(st, "the step")
}

// action gives the name of a step's action without its version.
func action(step *yaml.Node) string {
	name, _, _ := strings.Cut(text(value(deref(step), "uses")), "@")
	return strings.ToLower(name)
}

// input gives an input of a step as it is written.
func input(step *yaml.Node, name string) string {
	return strings.TrimSpace(text(value(deref(value(deref(step), "with")), name)))
}

// dashLine gives the line of a step's dash and its indentation.
func (j *ghJob) dashLine(st *yaml.Node) (line int, blanks string, err error) {
	line = st.Line
	s := j.f.text[line-1]
	trim := strings.TrimLeft(s, " ")
	if !strings.HasPrefix(trim, "- ") || byteAt(s, st.Column-1) <= len(s)-len(trim) {
		return 0, "", no(st, "the step's dash is not on the line of its first key")
	}
	return line, s[:len(s)-len(trim)], nil
}

// insertStep puts a step before another one, for the runs in which that one
// runs: it takes over its condition. Its first line gets the dash.
func (j *ghJob) insertStep(before int, with ...string) error {
	line, blanks, err := j.dashLine(j.steps[before])
	if err != nil {
		return err
	}
	with = slices.Clone(with)
	if k, v := find(deref(j.steps[before]), "if"); k != nil && !j.everyRun {
		if _, _, err := j.f.oneLineEntry(k, v); err != nil {
			return no(k, "the step's condition goes over several lines, and a step before it needs the same")
		}
		end, _ := j.f.valueEnd(v)
		at := j.f.text[v.Line-1]
		with = slices.Insert(with, 1, "if: "+at[byteAt(at, v.Column-1):end])
	}
	for i := range with {
		switch {
		case i == 0:
			with[i] = blanks + "- " + with[i]
		case with[i] != "":
			with[i] = blanks + "  " + with[i]
		}
	}
	j.f.insertBefore(line, with...)
	return nil
}

// ids are the ids that steps of the job have, to stay clear of them.
func (j *ghJob) hasStepID(id string) bool {
	return slices.ContainsFunc(j.steps, func(st *yaml.Node) bool { return text(value(deref(st), "id")) == id })
}

// text of the whole job below its key, for what can hide anywhere.
func (j *ghJob) mentions(words ...string) (line int, word string) {
	walkNodes(j.node, 0, func(n *yaml.Node) {
		for _, w := range words {
			if line == 0 && n.Kind == yaml.ScalarNode && strings.Contains(n.Value, w) {
				line, word = n.Line, w
			}
		}
	})
	return line, word
}

func walkNodes(n *yaml.Node, depth int, visit func(*yaml.Node)) {
	if n == nil || depth > 50 {
		return
	}
	visit(n)
	for _, c := range n.Content {
		walkNodes(c, depth+1, visit)
	}
}

// quietActions use the job's own token for nothing but reading the repository,
// so a job of them needs contents: read and no more.
var quietActions = []string{
	"actions/checkout", "actions/setup-", "actions/cache", "actions/upload-artifact", "actions/download-artifact", "actions/create-github-app-token",
	"aws-actions/", "google-github-actions/auth", "google-github-actions/setup-gcloud", "google-github-actions/deploy-", "google-github-actions/get-",
	"azure/login", "azure/cli", "azure/webapps-deploy", "azure/functions-action", "azure/k8s-", "azure/aks-", "azure/setup-", "azure/docker-login",
	"docker/", "hashicorp/", "pypa/gh-action-pypi-publish", "codecov/codecov-action", "slackapi/", "sonarsource/", "webfactory/ssh-agent",
	"appleboy/", "rubygems/", "rust-lang/crates-io-auth-action", "nuget/login", "dtolnay/rust-toolchain", "ruby/setup-ruby", "pnpm/action-setup",
	"gradle/actions/setup-gradle", "astral-sh/setup-uv", "octo-sts/action", "superfly/", "cachix/", "cloudflare/wrangler-action", "snyk/actions",
}

// needsOnlyContents reports whether the job's own token is used for nothing but
// reading the repository, as far as the file tells; else where it might be.
func (j *ghJob) needsOnlyContents() (line int, what string, ok bool) {
	for _, st := range j.steps {
		st = deref(st)
		if u := text(value(st, "uses")); u != "" {
			name := action(st)
			if !slices.ContainsFunc(quietActions, func(q string) bool {
				return name == q || strings.HasSuffix(q, "/") && strings.HasPrefix(name, q) || strings.HasSuffix(q, "-") && strings.HasPrefix(name, q) || strings.HasPrefix(name, q+"/")
			}) {
				return st.Line, u, false
			}
		}
	}
	// With a token of its own name in the environment, gh and others act for the job.
	walkNodes(j.node, 0, func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && line == 0 && tokenUse.MatchString(n.Value) {
			line, what = n.Line, "the job's token"
		}
	})
	return line, what, line == 0
}

var tokenUse = regexp.MustCompile(`(?i)secrets\.github_token|github\.token|\$\{?(GITHUB|GH)_TOKEN`)

// sameCondition refuses a value that is fetched once for steps with several
// conditions, unless one of them runs always.
func (j *ghJob) sameCondition(uses []ghUse) error {
	conds := make(map[string]bool)
	for _, u := range uses {
		if u.step >= 0 {
			conds[text(value(deref(j.steps[u.step]), "if"))] = true
		} else {
			conds[""] = true
		}
	}
	if j.everyRun = conds[""]; len(conds) > 1 && (!conds[""] || conds["always()"] || conds["failure()"]) {
		return no(j.node, "the steps that use the secret run under different conditions, and the step that fetches it would need all of them")
	}
	return nil
}

// permit makes sure that the job's token has some scopes, and takes none away.
func (j *ghJob) permit(scopes ...[2]string) error {
	if j.forgejo {
		return j.openIDConnect()
	}
	key, p := find(j.node, "permissions")
	if key != nil {
		return j.widen(key, p, scopes)
	}
	_, top := find(j.f.root, "permissions")
	switch {
	case top == nil:
		line, what, ok := j.needsOnlyContents()
		if !ok {
			return &whyNot{line, "the job has no permissions block, so its token has what the repository's settings say; a block would take away what " + oneLine(what) + " may need: write the block with the scopes that the job needs, and plan again"}
		}
		return j.addPermissions(append([][2]string{{"contents", "read"}}, scopes...))
	case top.Kind == yaml.ScalarNode && top.Value == "write-all":
		return nil
	case top.Kind != yaml.MappingNode:
		return no(top, "the workflow's permissions are %s: write the scopes that the job needs into a block of the job, and plan again", oneLine(top.Value))
	}
	// The job's block replaces the workflow's, so it begins with what that gives.
	var all [][2]string
	for i := 0; i+1 < len(top.Content); i += 2 {
		k, v := top.Content[i].Value, text(top.Content[i+1])
		if !scopeName.MatchString(k) || !scopeName.MatchString(v) {
			return no(top.Content[i], "the workflow's permissions hold something unusual")
		}
		all = append(all, [2]string{k, v})
	}
	missing := false
	for _, s := range scopes {
		i := slices.IndexFunc(all, func(a [2]string) bool { return a[0] == s[0] })
		switch {
		case i < 0:
			all, missing = append(all, s), true
		case all[i][1] != s[1]:
			all[i][1], missing = s[1], true
		}
	}
	if !missing {
		return nil
	}
	return j.addPermissions(all)
}

// openIDConnect lets a job of Forgejo's have identity tokens.
func (j *ghJob) openIDConnect() error {
	const name = "enable-openid-connect"
	if text(value(j.node, name)) == "true" || text(value(j.f.root, name)) == "true" {
		return nil
	}
	if k, _ := find(j.node, name); k != nil {
		return no(k, "the job says %s: %s", name, oneLine(text(value(j.node, name))))
	}
	key, _ := find(j.node, "runs-on")
	if key == nil {
		return no(j.node, "the job has no runs-on")
	}
	return j.f.addIndented(key, name+": true")
}

var scopeName = regexp.MustCompile(`^[a-z-]{1,40}$`)

// addPermissions writes a block before the job's first key that says where it runs.
func (j *ghJob) addPermissions(scopes [][2]string) error {
	key, _ := find(j.node, "runs-on")
	if key == nil {
		return no(j.node, "the job has no runs-on")
	}
	at, dashed, err := j.f.keyLine(key)
	if err != nil || dashed {
		return no(key, "runs-on does not begin its line")
	}
	out := []string{indent(key) + "permissions:"}
	for _, s := range scopes {
		out = append(out, indent(key)+"  "+s[0]+": "+s[1])
	}
	j.f.edits.put(at, at, out...)
	return nil
}

// widen adds scopes to the block that a job has.
func (j *ghJob) widen(key, p *yaml.Node, scopes [][2]string) error {
	if err := j.f.own(p, "permissions"); err != nil {
		return err
	}
	switch {
	case p.Kind == yaml.ScalarNode && p.Value == "write-all":
		return nil
	case p.Kind == yaml.ScalarNode:
		return no(p, "the job's permissions are %s, which can't be added to: write the scopes that it needs, and plan again", oneLine(p.Value))
	case p.Kind != yaml.MappingNode:
		return no(p, "the job's permissions are not a mapping")
	}
	var missing []string
	for _, s := range scopes {
		k, v := find(p, s[0])
		switch {
		case k == nil:
			missing = append(missing, s[0]+": "+s[1])
		case text(v) == s[1]:
		case p.Style&yaml.FlowStyle != 0:
			return no(v, "%s is %s in a list on one line", oneLine(s[0]), oneLine(text(v)))
		default:
			if err := j.f.setValue(k, v, s[1]); err != nil {
				return err
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if p.Style&yaml.FlowStyle == 0 {
		return j.f.addEntry(p.Content[len(p.Content)-2], missing...)
	}
	at := p.Line - 1
	line := j.f.text[at]
	end := strings.IndexByte(line[byteAt(line, p.Column-1):], '}') + byteAt(line, p.Column-1)
	if p.Line != key.Line || end < byteAt(line, p.Column-1) {
		return no(p, "the job's permissions go over several lines")
	}
	add := strings.Join(missing, ", ")
	if len(p.Content) > 0 {
		add = ", " + add
	}
	head := strings.TrimRight(line[:end], " ")
	pad := line[len(head):end]
	j.f.edits.put(at, at+1, head+add+pad+line[end:])
	return nil
}
