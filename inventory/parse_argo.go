package inventory

import (
	"regexp"
	"strings"
)

// Argo Workflows. Templates with their containers, scripts and artifacts; an
// artifact without a key is read and written with the identity of the pod.

// agFile is one workflow while it is read.
type agFile struct {
	r       *reader
	name    string
	params  map[string]string
	reach   Reach
	account string
	volumes *node
}

func readArgo(r *reader, docs []*node) {
	for _, d := range docs {
		readArgoDocument(r, d)
	}
}

// readArgoDocument reads one manifest, also one that stands inside of another.
func readArgoDocument(r *reader, d *node) {
	v := r.get(d, "apiVersion")
	if !strings.HasPrefix(r.str(v), "argoproj.io/") {
		return
	}
	r.version(v, "argoproj.io/v1alpha1")
	f := &agFile{r: r, params: make(map[string]string), reach: Reach{Trust: TrustUnknown}}
	f.name = firstOf(r.str(r.at(d, "metadata", "name")), strings.TrimSuffix(r.str(r.at(d, "metadata", "generateName")), "-"), "workflow")
	spec := r.get(d, "spec")
	switch r.str(r.get(d, "kind")) {
	case "CronWorkflow":
		f.reach = Reach{Trust: Protected, Events: []string{"schedule"}}
		f.read(r.get(spec, "workflowSpec"))
	case "Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate":
		f.read(spec)
	case "Sensor":
		f.sensor(spec)
	}
}

func (f *agFile) at(job, step string) place {
	return place{job: job, step: step, reach: f.reach, runner: Runner{Kind: RunnerSelfHosted}}
}

// read reads the spec of a workflow.
func (f *agFile) read(spec *node) {
	r := f.r
	for p := range r.items(r.at(spec, "arguments", "parameters")) {
		f.params["workflow.parameters."+r.str(r.get(p, "name"))] = r.str(r.get(p, "value"))
	}
	f.volumes = r.get(spec, "volumes")
	if sa := r.get(spec, "serviceAccountName"); sa != nil {
		f.account = r.str(sa)
		r.ambient(f.at(f.name, ""), sa.Line, f.text(f.account), use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
	}
	f.executor(spec, f.name)
	k := f.pod(f.name, nil)
	for s := range r.items(r.get(spec, "imagePullSecrets")) {
		k.secret(f.at(f.name, ""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
	}
	for a := range r.items(r.at(spec, "arguments", "artifacts")) {
		f.artifact(a, f.at(f.name, ""))
	}
	if ref := r.get(spec, "workflowTemplateRef"); ref != nil {
		r.open(f.at(f.name, ""), ref.Line, "template", r.str(r.get(ref, "name")), "the templates are defined in another manifest")
	}
	if t := r.get(spec, "templateDefaults"); t != nil {
		f.template(t, f.name)
	}
	for t := range r.items(r.get(spec, "templates")) {
		f.template(t, firstOf(r.str(r.get(t, "name")), f.name))
	}
}

var agHole = regexp.MustCompile(`\{\{\s*=?\s*([A-Za-z0-9_.-]+)\s*\}\}`)

// text puts known parameters into a name.
func (f *agFile) text(s string) string {
	if !strings.Contains(s, "{{") {
		return s
	}
	return agHole.ReplaceAllStringFunc(s, func(m string) string {
		if v := f.params[agHole.FindStringSubmatch(m)[1]]; v != "" {
			return v
		}
		return m
	})
}

// pod gives the reader for the containers of a template.
func (f *agFile) pod(job string, extra *node) *k8s {
	k := &k8s{r: f.r, text: f.text, at: func(step string) place { return f.at(job, step) }, account: f.account}
	k.readVolumes(f.volumes)
	k.readVolumes(extra)
	return k
}

// executor records the account that Argo's own helper in the pods of a job has.
func (f *agFile) executor(n *node, job string) {
	if sa := f.r.at(n, "executor", "serviceAccountName"); sa != nil {
		f.r.ambient(f.at(job, ""), sa.Line, f.text(f.r.str(sa)), use{res: Resource{"k8s/cluster", "service account"}}, "executor.serviceAccountName")
	}
}

// template reads one template.
func (f *agFile) template(t *node, job string) {
	r := f.r
	for p := range r.items(r.at(t, "inputs", "parameters")) {
		f.params["inputs.parameters."+r.str(r.get(p, "name"))] = firstOf(r.str(r.get(p, "value")), r.str(r.get(p, "default")))
	}
	account := f.account
	if sa := r.get(t, "serviceAccountName"); sa != nil {
		f.account = r.str(sa)
		r.ambient(f.at(job, ""), sa.Line, f.text(f.account), use{res: Resource{"k8s/cluster", "service account"}}, "serviceAccountName")
	}
	for s := range r.items(r.get(t, "imagePullSecrets")) {
		f.pod(job, nil).secret(f.at(job, ""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
	}
	f.executor(t, job)
	k := f.pod(job, r.get(t, "volumes"))
	for _, key := range []string{"container", "script"} {
		if c := r.get(t, key); c != nil {
			k.container(c, "")
		}
	}
	for _, list := range []*node{r.at(t, "containerSet", "containers"), r.get(t, "initContainers"), r.get(t, "sidecars")} {
		for c := range r.items(list) {
			k.container(c, r.str(r.get(c, "name")))
		}
	}
	f.artifact(r.get(t, "archiveLocation"), f.at(job, ""))
	for _, dir := range []string{"inputs", "outputs"} {
		for a := range r.items(r.at(t, dir, "artifacts")) {
			f.artifact(a, f.at(job, ""))
		}
	}
	for group := range r.items(r.get(t, "steps")) {
		for s := range r.items(group) {
			f.handed(k, s, job)
		}
	}
	for s := range r.items(r.at(t, "dag", "tasks")) {
		f.handed(k, s, job)
	}
	if res := r.get(t, "resource"); res != nil {
		r.ambient(f.at(job, ""), res.Line, firstOf(f.account, "service account"), use{res: Resource{"k8s/cluster", "this cluster"}}, "resource: "+r.str(r.get(res, "action")))
		f.created(r.get(res, "manifest"), job)
	}
	if h := r.get(t, "http"); h != nil {
		for hd := range r.items(r.get(h, "headers")) {
			if ref := r.at(hd, "valueFrom", "secretKeyRef"); ref != nil {
				k.secret(f.at(job, ""), ref.Line, r.str(r.get(ref, "name")), use{res: hostResource(r.str(r.get(h, "url"))), nature: NatureCredential}, "http header")
			}
		}
	}
	f.account = account
}

// handed records secrets that a step names for a template which is defined elsewhere.
func (f *agFile) handed(k *k8s, step *node, job string) {
	r := f.r
	if r.get(step, "templateRef") == nil {
		return
	}
	for p := range r.items(r.at(step, "arguments", "parameters")) {
		name, v := r.str(r.get(p, "name")), r.get(p, "value")
		if text := f.text(r.str(v)); tkSecretParam.MatchString(name) && text != "" && !strings.ContainsAny(text, " {/\n") {
			k.secret(f.at(job, ""), v.Line, text, use{res: envUse(strings.ReplaceAll(name, "-", "_")).res}, "parameter: "+name)
		}
	}
}

// agSecretKeys are the keys of artifacts that select a secret.
var agSecretKeys = []string{"accessKeySecret", "secretKeySecret", "sessionTokenSecret", "serviceAccountKeySecret", "usernameSecret", "passwordSecret", "sshPrivateKeySecret", "accountKeySecret", "krbKeytabSecret", "krbCCacheSecret", "caSecret"}

// artifact reads where an artifact is kept, and with what.
func (f *agFile) artifact(a *node, at place) {
	r := f.r
	for _, store := range []struct{ key, kind string }{{"s3", "storage/s3"}, {"gcs", "storage/gcs"}, {"git", "vcs/git"}, {"oss", "storage/oss"}, {"azure", "cloud/azure"}, {"artifactory", "registry/artifactory"}, {"hdfs", "storage/hdfs"}, {"http", "http/api"}} {
		n := r.get(a, store.key)
		if n == nil {
			continue
		}
		res := Resource{store.kind, f.text(firstOf(r.str(r.get(n, "bucket")), r.str(r.get(n, "repo")), r.str(r.get(n, "url")), r.str(r.get(n, "endpoint")), r.str(r.get(n, "container")), unknown))}
		k := f.pod(at.job, nil)
		found := false
		for _, key := range agSecretKeys {
			s := r.get(n, key)
			if s == nil {
				continue
			}
			found = true
			line := s.Line
			if nm := r.get(s, "name"); nm != nil {
				line = nm.Line
			}
			nature := NatureCredential
			k.secret(at, line, r.str(r.get(s, "name")), use{res: res, nature: nature}, "artifact "+store.key+": "+key)
		}
		r.scalarsOfSecretRefs(r.get(n, "auth"), func(name string, line int) {
			found = true
			k.secret(at, line, name, use{res: res, nature: NatureCredential}, "artifact "+store.key)
		})
		for h := range r.items(r.get(n, "headers")) {
			if ref := r.at(h, "valueFrom", "secretKeyRef"); ref != nil {
				found = true
				k.secret(at, ref.Line, r.str(r.get(ref, "name")), use{res: res, nature: NatureCredential}, "artifact http header")
			}
		}
		if !found && (r.isTrue(r.get(n, "useSDKCreds")) || store.key == "gcs" && r.get(n, "bucket") != nil) {
			r.ambient(at, r.key(a, store.key).Line, firstOf(f.account, "service account"), use{res: res}, "artifact "+store.key)
		}
	}
}

// scalarsOfSecretRefs visits selectors {name, key} below a node.
func (r *reader) scalarsOfSecretRefs(n *node, visit func(name string, line int)) {
	for _, v := range r.pairs(n) {
		if name := r.get(v, "name"); name != nil && r.get(v, "key") != nil {
			visit(r.str(name), name.Line)
			continue
		}
		if r.isMap(v) {
			r.scalarsOfSecretRefs(v, visit)
		}
	}
}
