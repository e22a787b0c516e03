package inventory

// What pipelines of Drone and steps of Woodpecker take from the machines that
// run them: accounts and secrets of a cluster, tokens for virtual machines.

// machines reads the account of a pipeline in a cluster, and the credentials with which Drone makes machines.
func (f *drFile) machines(root *node, at place) {
	r := f.r
	if sa := r.get(root, "service_account_name"); sa != nil {
		r.ambient(at, sa.Line, r.str(sa), use{res: Resource{"k8s/cluster", "service account"}}, "service_account_name")
	}
	kind := r.str(r.get(root, "type"))
	if kind != "digitalocean" && kind != "aws" {
		return
	}
	u := use{res: Resource{"cloud/" + kind, unknown}, nature: NatureCredential}
	f.ref(r.get(root, "token"), at, u, "token")
	for k, v := range r.pairs(r.get(root, "account")) {
		f.ref(v, at, u, "account: "+k.Value)
	}
}

// backend reads what a step of Woodpecker gets from the cluster that it runs in.
func (f *drFile) backend(n *node, at place, commands map[string]use) {
	r := f.r
	cluster := r.at(n, "backend_options", "kubernetes")
	if sa := r.get(cluster, "serviceAccountName"); sa != nil {
		r.ambient(at, sa.Line, r.str(sa), use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
	}
	k := &k8s{r: r, text: func(s string) string { return s }}
	for s := range r.items(r.get(cluster, "secrets")) {
		name := r.get(s, "name")
		if name == nil {
			continue
		}
		env := r.str(r.at(s, "target", "env"))
		u := commands[env].or(envUse(env))
		if u.res.Kind == "" {
			u.res, _ = fileResource(r.str(r.at(s, "target", "file")), "")
		}
		k.secret(at, name.Line, r.str(name), u, "backend_options: secrets")
	}
}
