package inventory

import "strings"

// Service accounts of Tekton, and the listeners of its triggers. A run acts as
// its account, and gets the secrets that are linked to it.

// tkKinds are the manifests of one file that others of it refer to by name.
type tkKinds struct {
	tasks, accounts, secrets map[string]*node
}

// readKinds collects them.
func readKinds(r *reader, docs []*node) *tkKinds {
	k := &tkKinds{make(map[string]*node), make(map[string]*node), make(map[string]*node)}
	for _, d := range docs {
		name := r.str(r.at(d, "metadata", "name"))
		switch r.str(r.get(d, "kind")) {
		case "Task", "ClusterTask":
			k.tasks[name] = d
		case "ServiceAccount":
			k.accounts[name] = d
		case "Secret":
			k.secrets[name] = d
		}
	}
	return k
}

// account records that a run, a task of it or a listener acts as a service account, with the secrets that are linked to it.
func (f *tkFile) account(n *node, job string) {
	r := f.r
	name := f.text(r.str(n))
	if name == "" {
		return
	}
	r.ambient(f.at(job, ""), n.Line, name, use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
	account := f.kinds.accounts[name]
	k := f.pod(job, nil)
	for s := range r.items(r.get(account, "secrets")) {
		secret := r.str(r.get(s, "name"))
		k.secret(f.at(job, ""), s.Line, secret, f.linkedUse(secret), "secrets of the service account")
	}
	for s := range r.items(r.get(account, "imagePullSecrets")) {
		k.secret(f.at(job, ""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
	}
}

// linkedUse says what a linked secret is for: its annotations name the host that Tekton gives it to, its type the way.
func (f *tkFile) linkedUse(name string) use {
	r := f.r
	secret := f.kinds.secrets[name]
	for k, v := range r.pairs(r.at(secret, "metadata", "annotations")) {
		host := r.str(v)
		switch {
		case strings.HasPrefix(k.Value, "tekton.dev/git-"):
			res := hostResource(host)
			if res.Kind == "http/api" {
				res.Kind = "vcs/git"
			}
			return secretUse(res.Kind, res.Name)
		case strings.HasPrefix(k.Value, "tekton.dev/docker-"):
			res := imageRegistry(strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://"))
			return secretUse(res.Kind, res.Name)
		}
	}
	switch r.str(r.get(secret, "type")) {
	case "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg":
		return secretUse("registry/container", "")
	case "kubernetes.io/ssh-auth":
		return secretUse("ssh/host-or-git", "")
	case "kubernetes.io/basic-auth":
		return secretUse("vcs/git", "")
	}
	return use{}
}

// listener reads an EventListener: the account that it creates runs with, and the secrets by which it knows who calls.
func (f *tkFile) listener(spec *node, name string) {
	r := f.r
	for _, key := range []string{"triggers", "triggerGroups"} {
		for t := range r.items(r.get(spec, key)) {
			f.trigger(t, name)
		}
	}
	f.account(r.get(spec, "serviceAccountName"), name)
}

// trigger reads the interceptors of a trigger.
func (f *tkFile) trigger(t *node, name string) {
	r := f.r
	k := f.pod(name, nil)
	for i := range r.items(r.get(t, "interceptors")) {
		kind := r.str(r.at(i, "ref", "name"))
		for p := range r.items(r.get(i, "params")) {
			if r.str(r.get(p, "name")) == "secretRef" {
				f.hookSecret(k, r.get(p, "value"), kind, name)
			}
		}
		for _, old := range []string{"github", "gitlab", "bitbucket"} { // before interceptors were referred to
			f.hookSecret(k, r.at(i, old, "secretRef"), old, name)
		}
	}
	f.account(r.get(t, "serviceAccountName"), name)
}

// hookSecret records the secret that a forge and the listener share.
func (f *tkFile) hookSecret(k *k8s, ref *node, kind, job string) {
	n := f.r.get(ref, "secretName")
	if n == nil {
		return
	}
	res := Resource{"vcs/git", "webhook"}
	switch kind {
	case "github", "gitlab", "bitbucket":
		res.Kind = "vcs/" + kind
	}
	k.secret(f.at(job, ""), n.Line, f.r.str(n), use{res: res, nature: NatureCredential}, "interceptor secretRef")
}

// heldBy gives the names of the secrets that fill a workspace of a run.
func (f *tkFile) heldBy(w *node) []*node {
	r := f.r
	var out []*node
	for _, s := range []*node{r.at(w, "secret", "secretName"), r.at(w, "csi", "volumeAttributes", "secretProviderClass")} {
		if s != nil {
			out = append(out, s)
		}
	}
	for src := range r.items(r.at(w, "projected", "sources")) {
		if s := r.at(src, "secret", "name"); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// resolverToken records the secret with which a resolver fetches a definition from a private repository.
func (f *tkFile) resolverToken(ref *node, job string) {
	r := f.r
	if r.str(r.get(ref, "resolver")) != "git" {
		return
	}
	for p := range r.items(r.get(ref, "params")) {
		name := r.str(r.get(p, "name"))
		if v := r.get(p, "value"); v != nil && (name == "token" || name == "gitToken") {
			f.pod(job, nil).secret(f.at(job, ""), v.Line, r.str(v), secretUse("vcs/git", ""), "resolver: "+name)
		}
	}
}
