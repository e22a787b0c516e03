package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

// Google Cloud Build. Every step acts as the service account of the build;
// secrets come from Secret Manager or as ciphertext of a key, and reach the
// steps that list them. Triggers lie outside of the file.

// cbJob is the name of the one job.
const cbJob = "build"

// gbFile is one build.
type gbFile struct {
	r       *reader
	root    *node
	account string
	sources map[string]gbSecret
	subst   map[string]string
	runner  Runner
}

// gbSecret is where a variable of secretEnv comes from.
type gbSecret struct {
	source string
	line   int
}

func readCloudBuild(r *reader, docs []*node) {
	for _, root := range docs {
		if r.get(root, "steps") == nil {
			continue
		}
		f := &gbFile{r: r, root: root, sources: make(map[string]gbSecret), subst: make(map[string]string)}
		for k, v := range r.pairs(r.get(root, "substitutions")) {
			f.subst[k.Value] = r.str(v)
		}
		f.machine()
		f.secrets()
		f.outputs()
		i := 0
		for s := range r.items(r.get(root, "steps")) {
			i++
			if r.isMap(s) {
				f.step(s, i)
			}
		}
	}
}

func (f *gbFile) at(step string) place {
	return place{job: cbJob, step: step, reach: Reach{Trust: TrustUnknown}, runner: f.runner}
}

// machine records the identity of the build and its private pool.
func (f *gbFile) machine() {
	r := f.r
	f.runner = Runner{Kind: RunnerHosted}
	pool := r.at(f.root, "options", "pool", "name")
	if pool == nil {
		pool = r.at(f.root, "options", "workerPool")
	}
	if name := r.str(pool); name != "" {
		f.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{name}}
	}
	sa := r.get(f.root, "serviceAccount")
	f.account = r.str(sa)
	line := f.root.Line
	if f.account == "" {
		f.account = "default service account"
	} else {
		line = sa.Line
		if i := strings.LastIndexByte(f.account, '/'); i >= 0 {
			f.account = f.account[i+1:]
		}
	}
	r.ambient(f.at(""), line, f.account, use{res: Resource{"cloud/gcp", unknown}}, "service account")
	if pool != nil {
		name := r.str(pool)
		r.ambient(f.at(""), pool.Line, name, use{res: Resource{"runner/pool", name}}, "options.pool")
	}
}

var gbHole = regexp.MustCompile(`\$\{(_[A-Z0-9_]+)\}|\$(_[A-Z0-9_]+)`)

// expand puts the defaults of substitutions into a text. They are one line
// each, or they would move the lines behind them.
func (f *gbFile) expand(s string) string {
	for range 3 {
		if !strings.Contains(s, "$_") && !strings.Contains(s, "${_") {
			return s
		}
		s = gbHole.ReplaceAllStringFunc(s, func(m string) string {
			if v := f.subst[strings.Trim(m, "${}")]; v != "" && len(v) < 200 && !strings.Contains(v, "\n") {
				return v
			}
			return m
		})
	}
	return s
}

// secrets reads where the variables of secretEnv come from; opening a secret is an access of the service account.
func (f *gbFile) secrets() {
	r := f.r
	for s := range r.items(r.at(f.root, "availableSecrets", "secretManager")) {
		version := r.str(r.get(s, "versionName"))
		name := secretOfVersion(version)
		f.sources[r.str(r.get(s, "env"))] = gbSecret{"gcp-secret-manager:" + name, s.Line}
	}
	for s := range r.items(r.at(f.root, "availableSecrets", "inline")) {
		for k := range r.pairs(r.get(s, "envMap")) {
			f.sources[k.Value] = gbSecret{"cloud-kms", k.Line}
		}
	}
	for s := range r.items(r.get(f.root, "secrets")) {
		for k := range r.pairs(r.get(s, "secretEnv")) {
			f.sources[k.Value] = gbSecret{"cloud-kms", k.Line}
		}
	}
}

// secretOfVersion gives the name of projects/P/secrets/NAME/versions/V.
func secretOfVersion(version string) string {
	if _, rest, ok := strings.Cut(version, "/secrets/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	return firstOf(version, unknown)
}

// outputs records images and artifacts, which the build uploads itself.
func (f *gbFile) outputs() {
	r := f.r
	upload := func(n *node, res Resource, via string) {
		p := r.ambient(f.at(""), n.Line, f.account, use{res: res}, via)
		if p.Resource.Name == unknown {
			p.Resource, p.ExposedVia = res, via
			if r.get(f.root, "serviceAccount") == nil {
				p.Line = n.Line // nothing names the account: what it does is the place to look at
			}
		}
	}
	for img := range r.items(r.get(f.root, "images")) {
		res := imageRegistry(f.expand(r.str(img)))
		if res.Kind == "registry/container" {
			res.Kind = "registry/gar"
		}
		upload(img, res, "images")
		break
	}
	art := r.get(f.root, "artifacts")
	if loc := r.at(art, "objects", "location"); loc != nil {
		upload(loc, Resource{"storage/gcs", r.str(loc)}, "artifacts")
	}
	for oci := range r.items(r.get(art, "oci")) {
		if path := r.get(oci, "registry_path"); path != nil {
			upload(path, imageRegistry(f.expand(r.str(path))), "artifacts")
		}
	}
	for _, key := range []string{"mavenArtifacts", "pythonPackages", "npmPackages", "goModules"} {
		for p := range r.items(r.get(art, key)) {
			upload(p, Resource{"registry/gar", firstOf(r.str(r.get(p, "repository")), unknown)}, "artifacts")
		}
	}
}

// gbTools are builder images that act on Google Cloud by what they are.
var gbTools = []struct{ part, tool string }{
	{"cloud-builders/gcloud", "gcloud"}, {"cloudsdktool/cloud-sdk", "gcloud"}, {"cloudsdktool/google-cloud-cli", "gcloud"}, {"google/cloud-sdk", "gcloud"}, {"cloud-builders/gsutil", "gsutil"}, {"cloud-builders/kubectl", "kubectl"}, {"cloud-builders/gke-deploy", "gke-deploy"},
	{"cloud-builders/docker", "docker"}, {"kaniko-project/executor", "kaniko"}, {"k8s-skaffold/", "skaffold"}, {"hashicorp/terraform", "terraform"}, {"cloud-builders/git", "git"}, {"/helm", "helm"}, {"docker", "docker"}, {"cloud-builders/npm", "npm"}, {"cloud-builders/yarn", "yarn"}, {"firebase", "firebase"}, {"cloud-builders/bazel", "bazel"}, {"cloud-builders/mvn", "mvn"}, {"cloud-builders/gradle", "gradle"}, {"buildpacksio/pack", "pack"}, {"/packer", "packer"}, {"gcr.io/k8s-testimages/gcb-docker-gcloud", "gcb"},
}

// step reads one step: what it runs, and the secrets that it lists.
func (f *gbFile) step(n *node, i int) {
	r := f.r
	at := f.at(firstOf(r.str(r.get(n, "id")), fmt.Sprintf("#%d", i)))
	image := r.str(r.get(n, "name"))
	alias := make(map[string][]string)
	for k, v := range f.subst {
		if v != "" {
			alias[k] = []string{}
		}
	}
	for e := range r.items(r.get(n, "env")) {
		if name, ok := assignment(r.str(e)); ok {
			alias[name] = []string{}
			if stored := storedAt(r.str(e)[len(name)+1:]); stored != "" {
				r.add(at, e.Line, Credential{Kind: StaticSecret, Name: stored, Nature: storedNature(name), Source: "gcp-secret-manager"}, envUse(name), "env: "+name)
			}
			for _, v := range shellVars(r.str(e)[len(name)+1:]) {
				alias[name] = append(alias[name], v.name)
				if strings.HasPrefix(v.name, "_") && f.subst[v.name] == "" && looksSecret(v.name) {
					r.static(at, e.Line, v.name, envUse(name).or(envUse(v.name)), "env: "+name)
				}
			}
		}
	}
	text, script := f.commandOf(n, image)
	facts := readScript(f.expand(text), alias)
	for _, e := range r.strs(r.get(n, "secretEnv")) {
		f.secretEnv(e, n, at, facts)
	}
	if script == nil {
		script = n
	}
	acts := false
	for _, a := range facts.actors {
		switch a.family {
		case "gcp", "docker", "k8s", "iac", "s3-compatible":
			if a.family == "docker" && f.otherLogin(a.res) {
				continue
			}
			acts = true
			line := r.scriptLine(script, a.line, "")
			if a.res.Kind == "registry/container" && strings.Contains(a.res.Name, "$") {
				a.res.Kind = "registry/gar"
			}
			r.ambient(at, line, f.account, use{res: a.res}, a.via)
		}
	}
	for _, opened := range kmsDecrypt.FindAllString(strings.NewReplacer("'", "", "\\\n", " ").Replace(text), -1) {
		if m := kmsSealed.FindStringSubmatch(opened); m != nil {
			f.decrypted(at, n, script, m[1], kmsPlain.FindString(opened))
		}
	}
	for _, v := range facts.fetched {
		line := r.scriptLine(script, v.line, v.name)
		r.ambient(at, line, f.account, use{res: v.res}, "script")
		r.add(at, line, Credential{Kind: StaticSecret, Name: v.name, Nature: storedNature(v.name), Source: v.source}, envUse(v.name), "script")
	}
	for _, u := range facts.uses {
		if strings.HasPrefix(u.name, "_") && looksSecret(u.name) && f.subst[u.name] == "" && !namesFetched(facts, u.name) {
			r.static(at, r.scriptLine(script, u.line, u.name), u.name, u.use.or(envUse(u.name)), "substitution")
		}
	}
	if tool := f.tool(image); !acts && (tool == "kaniko" || tool == "gke-deploy" || tool == "skaffold" || tool == "pack" || tool == "gcb" || packerBuild.MatchString(text)) {
		res := Resource{"cloud/gcp", unknown}
		switch tool {
		case "kaniko", "pack":
			res = Resource{"registry/gar", firstOf(destination(text), unknown)}
		case "gke-deploy":
			res = Resource{"k8s/cluster", unknown}
		}
		r.ambient(at, n.Line, f.account, use{res: res}, image)
	}
}

// What a step opens with a key of Cloud KMS: a file of the source that is a secret once it is open. And what makes a machine's image.
var (
	kmsDecrypt  = regexp.MustCompile(`kms decrypt[^\n;&|]*`)
	kmsSealed   = regexp.MustCompile(`--ciphertext-file[= ](\S+)`)
	packerBuild = regexp.MustCompile(`\bpacker '?build\b`)
	kmsPlain    = regexp.MustCompile(`--plaintext-file[= ]\S+`)
)

// storedAt gives the name of the secret that an address names, with which a wrapper around a step's command fills a variable.
func storedAt(value string) string {
	_, path, ok := strings.Cut(value, "sm://")
	if !ok {
		_, path, ok = strings.Cut(value, "berglas://")
	}
	if !ok {
		return ""
	}
	path, _, _ = strings.Cut(path, "#")
	path = strings.TrimSuffix(path, "/latest")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// decrypted records it; the name of the plain file tells what it is for.
func (f *gbFile) decrypted(at place, n, script *node, sealed, plain string) {
	name := sealed[strings.LastIndexByte(sealed, '/')+1:]
	u := use{nature: NatureCredential}
	if res, ok := fileResource(plain, ""); ok {
		u.res = res
	}
	line := n.Line
	if script != nil {
		line = f.r.lineOf(script, -1, sealed)
	}
	f.r.add(at, line, Credential{Kind: StaticSecret, Name: name, Nature: NatureCredential, Source: "cloud-kms"}, u, "kms decrypt")
}

// namesFetched reports whether a variable holds the name of a secret that is read, not its value.
func namesFetched(f *facts, name string) bool {
	for _, v := range f.fetched {
		if strings.Contains(v.name, name) {
			return true
		}
	}
	return false
}

// destination gives the image that kaniko pushes to.
func destination(text string) string {
	if _, rest, ok := strings.Cut(text, "--destination="); ok {
		return imageRegistry(strings.Fields(rest + " ")[0]).Name
	}
	return ""
}

// otherLogin reports whether a registry is no Google one and a step has logged in to it.
func (f *gbFile) otherLogin(res Resource) bool {
	if res.Kind == "registry/gar" || strings.Contains(res.Name, "$") || strings.Contains(res.Name, "gcr.io") {
		return false
	}
	for i := range f.r.paths {
		if p := &f.r.paths[i]; p.Credential.Kind == StaticSecret && strings.HasPrefix(p.Resource.Kind, "registry/") {
			return true
		}
	}
	return true // a push to another registry uses a login that this file doesn't show
}

// tool gives the command that a builder image runs.
func (f *gbFile) tool(image string) string {
	for _, t := range gbTools {
		if strings.Contains(image, t.part) {
			return t.tool
		}
	}
	return ""
}

// commandOf gives what a step runs as one script: the image's tool with its
// arguments, or the script given to a shell. $$ is a dollar for the shell.
func (f *gbFile) commandOf(n *node, image string) (text string, at *node) {
	r := f.r
	if s := r.get(n, "script"); s != nil {
		return r.str(s), s
	}
	args := r.get(n, "args")
	words := r.strs(args)
	entry := r.str(r.get(n, "entrypoint"))
	if entry == "" {
		entry = f.tool(image)
	}
	base := entry[strings.LastIndexByte(entry, '/')+1:]
	if len(words) > 0 && strings.HasSuffix(words[0], "sh") && base == "" {
		base = words[0][strings.LastIndexByte(words[0], '/')+1:]
		words = words[1:]
	}
	if base == "bash" || base == "sh" {
		last := ""
		for item := range r.items(args) {
			if s := r.str(item); !strings.HasPrefix(s, "-") || strings.Contains(s, "\n") {
				last, at = s, item
			}
		}
		return strings.ReplaceAll(last, "$$", "$"), at
	}
	if len(words) > 1 && words[0] == base {
		words = words[1:] // an image without an entrypoint of its own is told the tool
	}
	var b strings.Builder
	b.WriteString(base)
	for _, w := range words {
		b.WriteString(" '" + strings.ReplaceAll(strings.ReplaceAll(w, "'", `'"'"'`), "\n", " ") + "'")
	}
	return strings.ReplaceAll(b.String(), "$$", "$"), args
}

// secretEnv records one variable that a step takes from a secret.
func (f *gbFile) secretEnv(name string, n *node, at place, facts *facts) {
	r := f.r
	u := use{}
	for _, x := range facts.uses {
		if x.name == name && (x.slot || x.use.known() && !u.known()) {
			u = x.use
			if x.slot {
				break
			}
		}
	}
	u = u.or(envUse(name))
	if u.nature == "" {
		u.nature = natureOf(name)
	}
	line := n.Line
	if se := r.get(n, "secretEnv"); se != nil {
		line = r.lineOf(se, -1, name)
		for item := range r.items(se) {
			if r.str(item) == name {
				line = item.Line
			}
		}
	}
	src, ok := f.sources[name]
	if !ok {
		r.open(at, line, "secret", name, "the step lists a secret that the file doesn't define")
	}
	r.add(at, line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature, Source: src.source}, u, "secretEnv")
}
