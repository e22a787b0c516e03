package inventory

// created reads the manifest that a template creates: the pods of a job or of a
// workflow take secrets too.
func (f *agFile) created(manifest *node, job string) {
	r := f.r
	if manifest == nil || !isBlock(manifest) {
		return
	}
	docs, _ := parseYAML(r.str(manifest))
	for _, d := range docs {
		shiftLines(d, manifest.Line, 0)
		readArgoDocument(r, d)
		for _, path := range [][]string{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}, {"spec"}} {
			pod := r.at(d, path...)
			if r.get(pod, "containers") == nil {
				continue
			}
			if sa := r.get(pod, "serviceAccountName"); sa != nil {
				r.ambient(f.at(job, ""), sa.Line, f.text(r.str(sa)), use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
			}
			k := f.pod(job, r.get(pod, "volumes"))
			for _, list := range []string{"initContainers", "containers"} {
				for c := range r.items(r.get(pod, list)) {
					k.container(c, r.str(r.get(c, "name")))
				}
			}
			for s := range r.items(r.get(pod, "imagePullSecrets")) {
				k.secret(f.at(job, ""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
			}
		}
	}
}

// shiftLines moves the lines of a text that stands in a literal block to those of the file.
func shiftLines(n *node, by, depth int) {
	if n == nil || depth > maxDepth {
		return
	}
	n.Line += by
	for _, c := range n.Content {
		shiftLines(c, by, depth+1)
	}
}
