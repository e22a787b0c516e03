package inventory

import (
	"strings"
)

// Pods as agents: secrets of Kubernetes in the environment and the volumes of
// their containers, the logins for their images, and the account that they run as.

func init() {
	jkReaders["podTemplate"] = jkPodTemplate
	jkReaders["yaml"], jkReaders["yamlFile"] = jkPodYAML, jkPodYAML
	for _, word := range []string{"serviceAccount", "serviceAccountName", "imagePullSecrets", "secretVolume", "secretEnvVar", "hostPathVolume"} {
		jkReaders[word] = jkPodPart
	}
}

// jkPodTemplate reads podTemplate(...) { ... } of scripted pipelines.
func jkPodTemplate(f *jkFile, c *gCall, ctx jkCtx) {
	for _, a := range c.args {
		if read := jkReaders[a.key]; a.key != "" && read != nil {
			read(f, &gCall{name: a.key, args: []gArg{{"", a.val}}, line: a.val.line}, ctx)
		}
	}
	f.nestedCalls(c, ctx)
	f.block(c.body, ctx)
}

// jkPodYAML reads the manifest of a pod: in the file, under a name, or in a file of its own.
func jkPodYAML(f *jkFile, c *gCall, ctx jkCtx) {
	v := positional(c, 0)
	switch {
	case c.name == "yamlFile":
		if file := f.r.above(v.str); v.isStr && !v.gstr && file != "" {
			f.pod(f.r.tree.text(file), 1, file, ctx)
			return
		}
	case v.isStr:
		f.pod(v.str, v.line, "", ctx)
		return
	case v.ident != "" && v.call == nil:
		found := false
		for _, known := range f.lists(v.ident) {
			if known.isStr && strings.Contains(known.str, "\n") {
				f.pod(known.str, known.line, "", ctx)
				found = true
			}
		}
		if found {
			return
		}
	}
	f.r.open(ctx.place(), c.line, "pod template", firstOf(v.str, v.ident, "expression"), "what the pod holds is defined elsewhere")
}

// kubernetes gives the reader of secrets of Kubernetes.
func (f *jkFile) kubernetes(file string, ctx jkCtx) *k8s {
	at := ctx.place()
	at.file = file
	return &k8s{r: f.r, at: func(string) place { return at }, text: func(s string) string {
		if known := f.expand(s); len(known) == 1 {
			return known[0]
		}
		return s
	}}
}

// pod reads the manifest of a pod that begins on a line.
func (f *jkFile) pod(text string, line int, file string, ctx jkCtx) {
	docs, _ := parseYAML(text)
	r, k := f.r, f.kubernetes(file, ctx)
	for _, root := range docs {
		moveDown(root, line-1)
		spec := r.get(root, "spec")
		for _, key := range []string{"serviceAccountName", "serviceAccount"} {
			if sa := r.get(spec, key); sa != nil {
				f.account(k, sa.Line, r.str(sa))
			}
		}
		for s := range r.items(r.get(spec, "imagePullSecrets")) {
			k.secret(k.at(""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
		}
		for v := range r.items(r.get(spec, "volumes")) {
			if p := r.at(v, "hostPath", "path"); strings.HasSuffix(r.str(p), "/docker.sock") {
				r.ambient(k.at(""), p.Line, "docker.sock", dockerSocket, "volumes")
			}
		}
		k.readVolumes(r.get(spec, "volumes"))
		for _, key := range []string{"initContainers", "containers"} {
			for c := range r.items(r.get(spec, key)) {
				k.container(c, "")
			}
		}
		k.unmounted()
	}
}

// moveDown adds lines to the nodes of a document that stands inside of a file.
func moveDown(n *node, lines int) {
	n.Line += lines
	for _, c := range n.Content {
		moveDown(c, lines)
	}
}

// account records the service account of a pod.
func (f *jkFile) account(k *k8s, line int, name string) {
	if name = k.text(name); name != "" {
		f.r.ambient(k.at(""), line, name, use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccount")
	}
}

// jkPodPart reads the parts of a pod that have words of their own.
func jkPodPart(f *jkFile, c *gCall, ctx jkCtx) {
	k := f.kubernetes("", ctx)
	first := positional(c, 0)
	switch name := named(c, "secretName"); c.name {
	case "secretVolume":
		k.volume(k8sVolume{secret: name.str}, k.at(""), c.line, named(c, "mountPath").str, Resource{})
	case "secretEnvVar":
		env := named(c, "key").str
		k.secret(k.at(""), c.line, name.str, f.names[env].or(envUse(env)), "env: "+env)
	case "hostPathVolume":
		f.socket(c.args, ctx, 0)
	case "imagePullSecrets":
		for _, v := range append(first.list, gArg{val: first}) {
			k.secret(k.at(""), c.line, v.val.str, secretUse("registry/container", ""), c.name)
		}
	default:
		f.account(k, c.line, first.str)
	}
}
