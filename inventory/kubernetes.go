package inventory

import (
	"regexp"
	"strings"
)

// What Tekton and Argo have in common: containers of Kubernetes with secrets in
// their environment, their volumes and their images, and a service account.

// k8s reads containers of one template or task.
type k8s struct {
	r *reader
	// text puts the defaults of parameters into a name.
	text func(string) string
	// at gives the place of a container.
	at func(step string) place
	// volumes are the volumes of the pod that hold a secret or a token, by name.
	volumes map[string]k8sVolume
	mounted map[string]bool
	account string
}

// k8sVolume is a volume with what it holds.
type k8sVolume struct {
	secret   string
	audience string // of a projected token
	token    bool
	line     int
	also     []k8sVolume // what else is projected into it
}

// k8sHole is a parameter in a name that nothing fills in.
var k8sHole = regexp.MustCompile(`\$\(|\{\{`)

// k8sParam takes the name of a parameter that holds the name of a secret, without the words that say so.
var k8sParam = regexp.MustCompile(`(?i)param(?:eter)?s\.([\w-]+?)(?:[-_]secret)?(?:[-_]?(?:ref|name))?\s*(?:\)|\}\})`)

// noSecret are defaults that stand for no secret at all.
var noSecret = set("does-not-exist", "none", "null", "unset", "placeholder", "changeme", "change-me", "not-set", "optional")

// secret records a Kubernetes secret.
func (k *k8s) secret(at place, line int, name string, u use, via string) {
	raw := name
	if name = k.text(name); name == "" {
		return
	}
	if noSecret[strings.ToLower(name)] {
		name = raw // the default says only that nothing is given
	}
	if strings.Contains(name, "git_auth_secret") {
		k.r.platform(at, line, "git_auth_secret", use{res: Resource{"vcs/git", "source repository"}}, via)
		return
	}
	if k8sHole.MatchString(name) {
		k.r.open(at, line, "secret name", raw, "the name of the secret is a parameter without a default")
	}
	if u.nature == "" {
		u.nature = NatureCredential
	}
	if !u.known() { // the secret's own name may tell: "snyk-secret", "gitlab"
		word := strings.ReplaceAll(name, "-", "_")
		if u.res = envUse(word).res; u.res.Kind == "" && !strings.Contains(word, "_") {
			u.res = envUse(word + "_TOKEN").res
		}
		if m := k8sParam.FindStringSubmatch(raw); m != nil && u.res.Kind == "" { // or the parameter that hands it over
			u.res = envUse(strings.ReplaceAll(m[1], "-", "_")).res
		}
	}
	k.r.add(at, line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature, Source: "kubernetes"}, u, via)
}

// readVolumes collects the volumes of a pod.
func (k *k8s) readVolumes(list *node) {
	r := k.r
	if k.volumes == nil {
		k.volumes = make(map[string]k8sVolume)
	}
	if k.mounted == nil {
		k.mounted = make(map[string]bool)
	}
	for v := range r.items(list) {
		name := r.str(r.get(v, "name"))
		var held []k8sVolume
		if s := r.at(v, "secret", "secretName"); s != nil {
			held = append(held, k8sVolume{secret: r.str(s), line: s.Line})
		}
		if c := r.at(v, "csi", "driver"); strings.Contains(r.str(c), "spiffe") {
			held = append(held, k8sVolume{token: true, audience: "spiffe", line: c.Line})
		} else if class := r.at(v, "csi", "volumeAttributes", "secretProviderClass"); class != nil {
			held = append(held, k8sVolume{secret: r.str(class), line: class.Line})
		}
		for src := range r.items(r.at(v, "projected", "sources")) {
			if t := r.get(src, "serviceAccountToken"); t != nil {
				held = append(held, k8sVolume{token: true, audience: r.str(r.get(t, "audience")), line: t.Line})
			} else if s := r.at(src, "secret", "name"); s != nil {
				held = append(held, k8sVolume{secret: r.str(s), line: s.Line})
			}
		}
		if len(held) > 0 {
			held[0].also = held[1:]
			k.volumes[name] = held[0]
		}
	}
}

// container reads one container: environment, mounts and script.
func (k *k8s) container(n *node, step string) {
	r := k.r
	at := k.at(step)
	uses := k.scriptUses(n)
	for e := range r.items(r.get(n, "env")) {
		name := r.str(r.get(e, "name"))
		ref := r.at(e, "valueFrom", "secretKeyRef")
		if ref == nil {
			continue
		}
		u := uses[name].or(envUse(name))
		if u.nature == NatureIdentifier && natureOf(r.str(r.get(ref, "key"))) == NatureCredential {
			u.nature = NatureCredential
		}
		line := ref.Line
		if nm := r.get(ref, "name"); nm != nil {
			line = nm.Line
		}
		k.secret(at, line, r.str(r.get(ref, "name")), u, "env: "+name)
	}
	for e := range r.items(r.get(n, "envFrom")) {
		if s := r.at(e, "secretRef", "name"); s != nil {
			k.secret(at, s.Line, r.str(s), use{}, "envFrom")
		}
	}
	for m := range r.items(r.get(n, "volumeMounts")) {
		name := r.str(r.get(m, "name"))
		v, ok := k.volumes[name]
		if !ok {
			continue
		}
		k.mounted[name] = true
		path := r.str(r.get(m, "mountPath"))
		k.volume(v, at, m.Line, path, k.pointed(n, path))
	}
	k.actors(n, at)
	k.buckets(n, at)
}

// pointed says what the variables of a container that hold a path below a mount are for.
func (k *k8s) pointed(n *node, mount string) Resource {
	for e := range k.r.items(k.r.get(n, "env")) {
		if mount != "" && mount != "/" && strings.HasPrefix(k.r.str(k.r.get(e, "value")), mount) {
			name := k.r.str(k.r.get(e, "name"))
			for _, tail := range []string{"_PATH", "_FILE", "_DIR"} {
				name = strings.TrimSuffix(name, tail)
			}
			if u := envUse(name); u.known() {
				return u.res
			}
		}
	}
	return Resource{}
}

// volume records what a mounted volume holds; the path, or what points to it, tells what for.
func (k *k8s) volume(v k8sVolume, at place, line int, path string, pointed Resource) {
	for _, other := range v.also {
		k.volume(other, at, line, path, pointed)
	}
	if v.token {
		name := "oidc:kubernetes"
		if v.audience == "spiffe" {
			name = "spiffe"
		}
		k.r.federated(at, line, name, use{res: audienceResource(firstOf(v.audience, "kubernetes"))}, "projected volume")
		return
	}
	res, _ := fileResource(path, "")
	if res.Kind == "" && strings.Contains(path, "docker") {
		res = Resource{"registry/container", ""}
	}
	if res.Kind == "" {
		res = pointed
	}
	k.secret(at, line, v.secret, use{res: res}, "volume")
}

// handed records the volumes that a step which is defined elsewhere gets by name, as a parameter.
func (k *k8s) handed(params *node, step string) {
	r := k.r
	for p := range r.items(params) {
		value := r.get(p, "value")
		if v, ok := k.volumes[r.str(value)]; ok {
			k.mounted[r.str(value)] = true
			k.volume(v, k.at(step), value.Line, "", Resource{})
		}
	}
}

// unmounted records the volumes that no container mounts by name: a template of steps does, or all of them.
func (k *k8s) unmounted() {
	for _, name := range sortedKeys(k.volumes) {
		if v := k.volumes[name]; !k.mounted[name] {
			k.volume(v, k.at(""), v.line, "", Resource{})
		}
	}
}

// scriptUses says what the script or the command of a container does with its variables.
func (k *k8s) scriptUses(n *node) map[string]use {
	out := make(map[string]use)
	for _, text := range k.scripts(n) {
		for _, u := range readScript(text, nil).uses {
			if old, ok := out[u.name]; (u.slot || u.use.known()) && (!ok || !old.known()) {
				out[u.name] = u.use
			}
		}
	}
	return out
}

// scripts gives the script, and the arguments of a shell.
func (k *k8s) scripts(n *node) []string {
	r := k.r
	var out []string
	for _, key := range []string{"script", "source"} {
		if s := r.str(r.get(n, key)); s != "" {
			out = append(out, s)
		}
	}
	words := append(r.strs(r.get(n, "command")), r.strs(r.get(n, "args"))...)
	for i, w := range words {
		if (w == "-c" || w == "-ce" || w == "-ec" || w == "-exc" || w == "-cx" || w == "-xc") && i+1 < len(words) {
			return append(out, words[i+1])
		}
	}
	if len(words) > 0 {
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// actors records commands that act on the cluster as the service account.
func (k *k8s) actors(n *node, at place) {
	for _, text := range k.scripts(n) {
		facts := readScript(text, nil)
		for _, v := range facts.fetched {
			k.r.add(at, n.Line, Credential{Kind: StaticSecret, Name: v.name, Nature: storedNature(v.name), Source: v.source}, v.purpose(), "script")
			if v.family == "aws" || v.family == "gcp" || v.family == "azure" {
				k.r.ambient(at, n.Line, firstOf(k.account, "service account"), use{res: v.res}, "script")
			}
		}
		for _, h := range facts.held {
			k.r.held(at, n.Line, h, "script")
		}
		for _, x := range facts.exchanges {
			if x.res.Kind == "broker/proviso" {
				k.r.federated(at, n.Line, "oidc:kubernetes", use{res: x.res}, x.via)
			}
		}
		for _, a := range facts.actors {
			switch a.family {
			case "k8s":
				if a.res.Kind != "k8s/cluster" || strings.Contains(strings.ToLower(text), "kubeconfig") || k.sets(n, "KUBECONFIG") {
					continue // another server, or another cluster's configuration
				}
				k.r.ambient(at, n.Line, firstOf(k.account, "service account"), use{res: Resource{"k8s/cluster", "this cluster"}}, a.via)
			case "aws", "gcp", "azure":
				if !k.hasKeys(a.family, at.job) {
					k.r.ambient(at, n.Line, firstOf(k.account, "service account"), use{res: a.res}, a.via)
				}
			}
		}
	}
}

// k8sBucket takes a bucket from an argument or a value: all of it, or behind the = of an option.
var k8sBucket = regexp.MustCompile(`^(?:--?[\w-]+=)?(s3|gs)://([\w.-]+)`)

// buckets records the storage that a container gets by its address: without a key of the job the pod's own identity opens it.
func (k *k8s) buckets(n *node, at place) {
	r := k.r
	words := append(r.strs(r.get(n, "command")), r.strs(r.get(n, "args"))...)
	for e := range r.items(r.get(n, "env")) {
		name := r.str(r.get(e, "name"))
		if strings.Contains(name, "ENDPOINT") || strings.Contains(name, "ACCESS_KEY") {
			return // another server, or a key that is written out
		}
		words = append(words, r.str(r.get(e, "value")))
	}
	for _, w := range words {
		m := k8sBucket.FindStringSubmatch(k.text(w))
		if m == nil {
			continue
		}
		family := "aws"
		if m[1] == "gs" {
			family = "gcp"
		}
		if !k.hasKeys(family, at.job) {
			k.r.ambient(at, n.Line, firstOf(k.account, "service account"), use{res: Resource{"cloud/" + family, m[1] + "://" + m[2]}}, m[1]+"://")
		}
	}
}

// sets reports whether the environment of a container sets a variable.
func (k *k8s) sets(n *node, name string) bool {
	for e := range k.r.items(k.r.get(n, "env")) {
		if k.r.str(k.r.get(e, "name")) == name {
			return true
		}
	}
	return false
}

// hasKeys reports whether a job has a credential already that a command of a cloud will take.
func (k *k8s) hasKeys(family, job string) bool {
	for _, i := range k.r.ofJob[job] {
		p := &k.r.paths[i]
		if p.Job == job && (p.Credential.Kind == StaticSecret || p.Credential.Kind == Federated) && (strings.HasPrefix(p.Resource.Kind, "cloud/"+family) || p.Resource.Kind == unknown || strings.HasPrefix(p.ExposedVia, "volume")) {
			return true
		}
	}
	return false
}
