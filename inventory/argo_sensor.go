package inventory

import "strings"

// A Sensor of Argo Events starts workflows that stand in it, and calls others
// with tokens of its own.

// sensor reads the triggers of a sensor.
func (f *agFile) sensor(spec *node) {
	r := f.r
	if sa := r.at(spec, "template", "serviceAccountName"); sa != nil {
		r.ambient(f.at(f.name, ""), sa.Line, r.str(sa), use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
	}
	for t := range r.items(r.get(spec, "triggers")) {
		template := r.get(t, "template")
		for kind, n := range r.pairs(template) {
			if !r.isMap(n) {
				continue
			}
			f.call(kind.Value, n, firstOf(r.str(r.get(template, "name")), kind.Value))
			if started := r.at(n, "source", "resource"); started != nil {
				readArgoDocument(r, started)
			}
		}
	}
}

// call records the secrets with which a trigger reaches something else.
func (f *agFile) call(kind string, n *node, job string) {
	r := f.r
	u := envUse(kind + "_TOKEN")
	switch {
	case kind == "http":
		u = use{res: hostResource(r.str(r.get(n, "url")))}
	case strings.HasPrefix(kind, "aws"):
		u = use{res: Resource{"cloud/aws", ""}}
	}
	u.nature = NatureCredential
	k := f.pod(job, nil)
	r.scalarsOfSecretRefs(n, func(name string, line int) {
		k.secret(f.at(job, ""), line, name, u, "trigger "+kind)
	})
	for h := range r.items(r.get(n, "secureHeaders")) {
		if ref := r.at(h, "valueFrom", "secretKeyRef", "name"); ref != nil {
			k.secret(f.at(job, ""), ref.Line, r.str(ref), u, "trigger "+kind)
		}
	}
}
