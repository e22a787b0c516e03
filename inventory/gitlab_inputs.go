package inventory

import (
	"regexp"
	"sort"
	"strings"
)

// Inputs of configurations that are included: $[[ inputs.name ]] stands for what
// the include gives, or for the default of the specification.

var glInput = regexp.MustCompile(`\$\[\[\s*inputs\.([A-Za-z0-9_-]+)\s*(\|[^\]]*)?\]\]`)

// withInputs puts the inputs into the documents of a file.
func (f *glFile) withInputs(src *source, docs []*node, given *node) []*node {
	if !strings.Contains(src.text, "$[[") {
		return docs
	}
	values := make(map[string]string)
	for _, root := range docs {
		for k, v := range f.r.pairs(f.r.at(root, "spec", "inputs")) {
			if d := f.r.get(v, "default"); f.r.isScalar(d) {
				values[k.Value] = f.r.str(d)
			}
		}
	}
	for k, v := range f.r.pairs(given) {
		if f.r.isScalar(v) {
			values[k.Value] = f.r.str(v)
		}
	}
	if len(values) == 0 {
		return docs
	}
	out := make([]*node, 0, len(docs))
	done := make(map[*node]*node)
	for _, root := range docs {
		out = append(out, putInputs(root, values, done))
	}
	return out
}

// putInputs copies a node with the inputs put in; parsed files are shared.
func putInputs(n *node, values map[string]string, done map[*node]*node) *node {
	if n == nil {
		return nil
	}
	if c := done[n]; c != nil {
		return c
	}
	c := *n
	done[n] = &c
	if strings.Contains(c.Value, "$[[") {
		c.Value = glInput.ReplaceAllStringFunc(c.Value, func(m string) string {
			if v, ok := values[glInput.FindStringSubmatch(m)[1]]; ok && !strings.Contains(v, "\n") {
				return v
			}
			return m
		})
	}
	c.Alias = putInputs(n.Alias, values, done)
	c.Content = make([]*node, len(n.Content))
	for i, sub := range n.Content {
		c.Content[i] = putInputs(sub, values, done)
	}
	return &c
}

// inputText tells one set of inputs from another.
func (f *glFile) inputText(given *node) string {
	var parts []string
	for k, v := range f.r.pairs(given) {
		parts = append(parts, k.Value+"="+f.r.str(v))
	}
	sort.Strings(parts)
	return strings.Join(parts, "\x00")
}

// handedInputs records secrets that are handed to a configuration that is not here.
func (f *glFile) handedInputs(src *source, given *node) {
	s := &scope{r: f.r, place: func(Kind) place { return place{job: "(include)", file: src.path} }, predefined: glPredefined, via: "include: inputs"}
	for k, v := range f.r.pairs(given) {
		u := envUse(k.Value)
		for _, ref := range shellVars(f.r.str(v)) {
			s.variable(ref.name, v.Line, u, u.nature == NatureCredential, false)
		}
	}
}

// keywords reads what a job does by a keyword: a release is made with the job's
// token, and identity gives it one for a cloud.
func (g *glRead) keywords() {
	r := g.f.r
	if v := g.job.keys["release"]; v.node != nil && r.isMap(v.node) {
		g.within(v.src, func() {
			r.platform(g.place(PlatformToken), v.node.Line, "CI_JOB_TOKEN", use{res: Resource{"vcs/gitlab", "this project"}}, "release")
		})
	}
	if v := g.f.value(g.job, "identity"); v.node != nil && r.str(v.node) == "google_cloud" {
		g.within(v.src, func() {
			r.federated(g.place(Federated), v.node.Line, "oidc:gitlab", use{res: Resource{"cloud/gcp", unknown}}, "identity")
		})
	}
}
