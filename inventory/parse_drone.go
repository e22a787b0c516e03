package inventory

import (
	_ "embed"
	"path"
	"slices"
	"strings"
	"sync"
)

// Drone and Woodpecker. Both name their secrets in the file (from_secret), so
// nothing has to be guessed; neither gives a job an identity token. Whether
// pull requests of forks get secrets is a setting of the server or of the secret.

//go:embed tables/images.tbl
var imagesTable string

var imageRows = sync.OnceValue(func() *table { return parseTable(imagesTable) })

// drFile is one pipeline of either.
type drFile struct {
	r       *reader
	job     string
	events  []string // of the pipeline; nil is all
	sources map[string]drSource
	runner  Runner
}

// drSource is where an external secret of Drone comes from.
type drSource struct{ source, path string }

func readDrone(r *reader, docs []*node) {
	sources := make(map[string]drSource)
	for _, root := range docs {
		if r.str(r.get(root, "kind")) != "secret" {
			continue
		}
		if get := r.get(root, "get"); get != nil {
			sources[r.str(r.get(root, "name"))] = drSource{"external", firstOf(r.str(r.get(get, "path")), r.str(get)) + "/" + r.str(r.get(get, "name"))}
		}
	}
	unnamed := 0
	for _, root := range docs {
		if !r.isMap(root) {
			continue
		}
		kind := r.str(r.get(root, "kind"))
		legacy := kind == "" && r.get(root, "pipeline") != nil
		if kind != "pipeline" && !legacy {
			continue
		}
		f := &drFile{r: r, job: r.str(r.get(root, "name")), sources: sources}
		if f.job == "" {
			f.job = numberedPipeline(unnamed)
			unnamed++
		}
		f.events = drEvents(&r.view, r.get(root, "trigger"))
		if n := r.get(root, "node"); n != nil {
			var labels []string
			for k, v := range r.pairs(n) {
				labels = append(labels, k.Value+"="+r.str(v))
			}
			f.runner = Runner{Kind: RunnerSelfHosted, Labels: labels}
		} else {
			f.runner = Runner{Kind: RunnerSelfHosted}
		}
		f.pipeline(root, legacy)
	}
}

func numberedPipeline(i int) string {
	if i == 0 {
		return "default"
	}
	return numbered("default", i+1)
}

func readWoodpecker(r *reader, docs []*node) {
	base := path.Base(r.src.path)
	stem := strings.TrimPrefix(strings.TrimSuffix(base, path.Ext(base)), ".")
	for _, root := range docs {
		if !r.isMap(root) {
			continue
		}
		f := &drFile{r: r, job: stem, runner: Runner{Kind: RunnerSelfHosted}}
		for k, v := range r.pairs(r.get(root, "labels")) {
			f.runner.Labels = append(f.runner.Labels, k.Value+"="+r.str(v))
		}
		f.events = drEvents(&r.view, r.get(root, "when"))
		f.pipeline(root, r.get(root, "pipeline") != nil)
	}
}

// drEvents gives the events of a trigger or a when; nil when it names none.
// Woodpecker allows a list of conditions, of which one is enough.
func drEvents(v *view, n *node) []string {
	var out []string
	for item := range v.items(n) {
		ev := v.get(item, "event")
		if v.isMap(ev) {
			if inc := v.get(ev, "include"); inc != nil {
				out = append(out, v.strs(inc)...)
			}
			if exc := v.strs(v.get(ev, "exclude")); slices.Contains(exc, "pull_request") {
				out = append(out, "push", "tag", "cron", "custom")
			}
			continue
		}
		events := v.strs(ev)
		if len(events) == 0 {
			if v.get(item, "cron") != nil {
				events = []string{"cron"}
			} else if refs := v.strs(v.get(item, "ref")); len(refs) > 0 && !slices.ContainsFunc(refs, func(s string) bool { return strings.Contains(s, "pull") || strings.HasPrefix(s, "*") }) {
				events = []string{"push"}
			} else if v.isMap(item) {
				return nil
			}
		}
		out = append(out, events...)
	}
	return out
}

// reach narrows the events of the pipeline by those of a step.
func (f *drFile) reach(own []string) Reach {
	events := f.events
	switch {
	case events == nil:
		events = own
	case own != nil:
		var both []string
		for _, e := range own {
			if slices.Contains(events, e) {
				both = append(both, e)
			}
		}
		events = both
	}
	trust := Protected
	if events == nil || slices.ContainsFunc(events, func(e string) bool { return strings.HasPrefix(e, "pull_request") }) {
		trust = TrustUnknown
	}
	return Reach{Trust: trust, Events: slices.Clone(events)}
}

// pipeline reads clone, services and steps.
func (f *drFile) pipeline(root *node, legacy bool) {
	r := f.r
	at := place{job: f.job, reach: f.reach(nil), runner: f.runner}
	for item := range r.flat(r.get(root, "image_pull_secrets")) {
		r.static(at, item.Line, r.str(item), secretUse("registry/container", ""), "image_pull_secrets")
	}
	f.machines(root, at)
	hosts := make(map[string]int)
	for v := range r.items(r.get(root, "volumes")) {
		if p := r.at(v, "host", "path"); r.str(p) == "/var/run/docker.sock" {
			hosts[r.str(r.get(v, "name"))] = p.Line
		}
	}
	for k, v := range r.pairs(r.get(root, "server")) {
		f.ref(v, at, use{res: Resource{"ssh/host", unknown}, nature: natureOf(k.Value)}, "server: "+k.Value)
	}
	f.env(r.get(root, "environment"), at, nil, use{})
	for _, key := range []string{"clone", "services", "steps", "pipeline"} {
		if key == "pipeline" && !legacy {
			continue
		}
		f.steps(r.get(root, key), hosts)
	}
}

// steps reads a list or a mapping of steps.
func (f *drFile) steps(n *node, hosts map[string]int) {
	r := f.r
	if r.isMap(n) {
		for k, s := range r.pairs(n) {
			if r.isMap(s) {
				f.step(k.Value, s, hosts)
			}
		}
		return
	}
	for s := range r.items(n) {
		if r.isMap(s) {
			f.step(firstOf(r.str(r.get(s, "name")), r.str(r.get(s, "image"))), s, hosts)
		}
	}
}

// step reads one step: settings of a plugin, environment, and the old list of secrets.
func (f *drFile) step(name string, n *node, hosts map[string]int) {
	r := f.r
	at := place{job: f.job, step: name, reach: f.reach(drEvents(&r.view, r.get(n, "when"))), runner: f.runner}
	image := r.str(r.get(n, "image"))
	row := imageRows().find(imageName(image))
	settings := r.get(n, "settings")
	if settings == nil {
		settings = n // Drone 0.8 and old Woodpecker keep settings beside the image
	}
	get := func(in string) string {
		v := r.get(settings, in)
		return firstOf(r.str(v), strings.Join(r.strs(v), ", "))
	}
	res := Resource{}
	if row != nil && row.known {
		res = row.resource(get)
		if res.Kind == "storage/s3-compatible" && get("endpoint") == "" {
			res.Kind = "cloud/aws" // without an endpoint the plugins talk to AWS
		}
	}
	commands := f.commandUses(n)
	before := len(r.paths)
	for k, v := range r.pairs(settings) {
		switch k.Value {
		case "when", "commands", "image", "environment", "secrets", "volumes", "depends_on", "name", "settings", "pull", "backend_options":
			continue
		}
		f.setting(k.Value, v, at, row, res, get, 0)
	}
	f.env(r.get(n, "environment"), at, commands, use{res: res})
	f.secretsList(r.get(n, "secrets"), at, row, res, commands)
	f.backend(n, at, commands)
	for v := range r.items(r.get(n, "volumes")) {
		line, ok := hosts[r.str(r.get(v, "name"))]
		if ok || strings.HasPrefix(r.str(v), "/var/run/docker.sock") {
			if !ok {
				line = v.Line
			}
			r.ambient(at, line, "docker.sock", use{res: Resource{"runner/host", "docker socket"}}, "volumes")
		}
	}
	if row != nil && row.push != "" && len(r.paths) == before && get("dry_run") != "true" && get("dry-run") != "true" && get("push") != "false" && (row.push != "docker" || row.res.Kind != "registry/container") {
		r.ambient(at, n.Line, "runner", use{res: res}, "plugin without a login")
	}
}

// imageName cuts the tag and the host of Docker Hub from an image.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	for _, host := range []string{"docker.io/", "index.docker.io/", "quay.io/thegeeklab/"} {
		if rest, ok := strings.CutPrefix(image, host); ok {
			if strings.HasPrefix(host, "quay.io/") {
				rest = "thegeeklab/" + rest
			}
			image = rest
		}
	}
	return image
}

// setting records the secrets in one setting of a plugin, at any depth.
func (f *drFile) setting(key string, v *node, at place, row *consumerRow, res Resource, get func(string) string, depth int) {
	r := f.r
	if depth > 8 || v == nil {
		return
	}
	if r.get(v, "from_secret") != nil {
		u := use{res: res, nature: natureOf(key)}
		if row != nil && row.known {
			if x := row.inputUse(strings.ReplaceAll(key, "-", "_"), get); x.nature != "" {
				u.nature = x.nature
			}
			if e := envUse(strings.ReplaceAll(key, "-", "_")); e.known() && !(strings.HasPrefix(res.Kind, "vcs/") && strings.HasPrefix(e.res.Kind, "ssh/")) && family(e.res.Kind) != family(res.Kind) {
				u.res = e.res // a plugin that also writes to the forge, or asks a model
			}
			if strings.HasPrefix(u.res.Kind, "vcs/") {
				u.res.Kind = forgeKind(u.res, firstOf(get("forge_type"), get("forge-type"), r.str(r.get(v, "from_secret"))))
			}
		} else if e := envUse(key); e.known() {
			u = e
		}
		f.ref(v, at, u, "settings: "+key)
		return
	}
	if r.isMap(v) {
		inner := res
		if reg := r.str(r.get(v, "registry")); reg != "" {
			inner = imageRegistry(reg)
		}
		for k, x := range r.pairs(v) {
			f.setting(k.Value, x, at, row, inner, get, depth+1)
		}
		return
	}
	if r.isList(v) {
		for x := range r.items(v) {
			if r.isMap(x) || r.isList(x) {
				f.setting(key, x, at, row, res, get, depth+1)
			}
		}
	}
}

// ref records a from_secret; its value is a name, or a mapping with path and name.
func (f *drFile) ref(v *node, at place, u use, via string) {
	r := f.r
	n := r.get(v, "from_secret")
	if n == nil {
		return
	}
	name := firstOf(r.str(n), r.str(r.get(n, "name")))
	if u.nature == "" {
		u.nature = natureOf(name)
	} else if u.nature == NatureCredential && natureOf(name) == NatureIdentifier && natureOf(strings.TrimPrefix(via, "settings: ")) == "" {
		u.nature = NatureIdentifier
	}
	if !u.known() {
		u = u.or(use{res: envNames[strings.ToUpper(name)].res})
	}
	source := f.sources[name]
	r.add(at, n.Line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature, Source: source.source}, u, via)
}

// server gives the address of the cluster that an environment names beside the token for it.
func (f *drFile) server(env *node) string {
	for _, name := range []string{"KUBE_SERVER", "KUBE_API_SERVER", "KUBERNETES_SERVER", "KUBE_URL"} {
		if s := f.r.str(f.r.get(env, name)); strings.HasPrefix(s, "https://") {
			return hostResource(s).Name
		}
	}
	return ""
}

// env records the secrets in an environment.
func (f *drFile) env(n *node, at place, commands map[string]use, tool use) {
	for k, v := range f.r.pairs(n) {
		if f.r.get(v, "from_secret") == nil {
			continue
		}
		u := commands[k.Value].or(envUse(k.Value))
		if !u.known() && tool.known() {
			u.res = tool.res
		}
		if u.res.Kind == "k8s/cluster" && (u.res.Name == "" || u.res.Name == unknown) {
			u.res.Name = f.server(n)
		}
		f.ref(v, at, u, "environment: "+k.Value)
	}
}

// commandUses says what the commands of a step do with variables.
func (f *drFile) commandUses(n *node) map[string]use {
	out := make(map[string]use)
	for c := range f.r.flat(f.r.get(n, "commands")) {
		for _, u := range readScript(f.r.str(c), nil).uses {
			if old, ok := out[u.name]; (u.slot || u.use.known()) && (!ok || !old.known()) {
				out[u.name] = u.use
			}
		}
	}
	return out
}

// secretsList reads the old form: secrets: [name, {source: a, target: B}].
func (f *drFile) secretsList(n *node, at place, row *consumerRow, res Resource, commands map[string]use) {
	r := f.r
	for item := range r.flat(n) {
		name, target := r.str(item), r.str(item)
		if r.isMap(item) {
			name, target = r.str(r.get(item, "source")), r.str(r.get(item, "target"))
		}
		if name == "" {
			continue
		}
		u := commands[strings.ToUpper(target)].or(commands[target]).or(envUse(target))
		if row != nil && row.known {
			plain := strings.TrimPrefix(strings.ToLower(target), "plugin_")
			x := row.inputUse(strings.TrimPrefix(plain, "docker_"), func(string) string { return "" })
			u.res, u.nature = firstResource(res, u.res), firstNature(u.nature, x.nature)
		}
		if u.nature == "" {
			u.nature = natureOf(name)
		}
		r.static(at, item.Line, name, u, "secrets")
	}
}

// family gives the first part of a kind of resource.
func family(kind string) string {
	f, _, _ := strings.Cut(kind, "/")
	return f
}

// forgeKind gives the forge that a plugin for all of them writes to: the one that a setting or the secret's name tells.
func forgeKind(res Resource, hint string) string {
	if res.Kind != "vcs/forgejo" && res.Kind != "vcs/git" || res.Name != "" && res.Name != unknown {
		return res.Kind
	}
	for _, forge := range []string{"github", "gitlab", "bitbucket"} {
		if strings.Contains(strings.ToLower(hint), forge) {
			return "vcs/" + forge
		}
	}
	return res.Kind
}
