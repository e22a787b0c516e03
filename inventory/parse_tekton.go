package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// Tekton, with the annotations of Pipelines as Code. Tasks, pipelines, their
// runs and the templates of triggers; a task that is referred to elsewhere is unresolved.

// tkFile is one manifest while it is read.
type tkFile struct {
	r      *reader
	params map[string]string // defaults and values of parameters
	reach  Reach
	kinds  *tkKinds
	spaces map[string]use // what a task does with the secret in a workspace, by job and workspace
	runner Runner
}

func readTekton(r *reader, docs []*node) {
	kinds := readKinds(r, docs)
	for _, d := range docs {
		tkDocument(r, d, kinds)
		if !r.isList(d) {
			continue
		}
		for op := range r.items(d) { // a patch: what it puts into a manifest is one, too
			for v := range r.items(r.get(op, "value")) {
				tkDocument(r, v, kinds)
			}
		}
	}
}

// tkVersions are the versions of Tekton's manifests.
var tkVersions = []string{"v1alpha1", "v1beta1", "v1"}

// tkDocument reads one manifest by its kind.
func tkDocument(r *reader, d *node, kinds *tkKinds) {
	if !strings.HasPrefix(r.str(r.get(d, "apiVersion")), "tekton.dev/") && !strings.HasPrefix(r.str(r.get(d, "apiVersion")), "triggers.tekton.dev/") {
		return
	}
	_, version, _ := strings.Cut(r.str(r.get(d, "apiVersion")), "/")
	if !slices.Contains(tkVersions, version) {
		r.version(r.get(d, "apiVersion"), "tekton.dev/v1alpha1", "tekton.dev/v1beta1", "tekton.dev/v1")
	}
	f := &tkFile{r: r, params: make(map[string]string), kinds: kinds, runner: Runner{Kind: RunnerSelfHosted}}
	f.reach = tkReach(r, r.at(d, "metadata", "annotations"))
	name := f.nameOf(d)
	spec := r.get(d, "spec")
	switch r.str(r.get(d, "kind")) {
	case "Task", "ClusterTask":
		f.task(spec, name, f.volumesOf(nil))
	case "StepAction":
		f.bind(r.get(spec, "params"))
		k := f.pod(name, nil)
		k.container(spec, name)
	case "TaskRun":
		f.run(spec, name)
		if ts := r.get(spec, "taskSpec"); ts != nil {
			f.task(ts, name, nil)
		}
		f.workspaceUses(f.specOf(spec), name, r.get(spec, "workspaces"))
		f.taskRef(r.get(spec, "taskRef"), name)
		f.runWorkspaces(r.get(spec, "workspaces"), nil, name)
	case "Pipeline":
		f.pipeline(spec, nil, name)
	case "PipelineRun":
		f.run(spec, name)
		if ps := r.get(spec, "pipelineSpec"); ps != nil {
			f.pipeline(ps, r.get(spec, "workspaces"), name)
		} else {
			f.runWorkspaces(r.get(spec, "workspaces"), nil, name)
			if ref := r.get(spec, "pipelineRef"); ref != nil {
				f.resolverToken(ref, name)
				f.secretParams(r.get(spec, "params"), name, "value", true)
				r.open(f.at(name, ""), ref.Line, "pipeline", tkRefName(r, ref), "the pipeline is defined in another manifest")
			}
		}
	case "EventListener":
		f.listener(spec, name)
	case "Trigger":
		f.trigger(spec, name)
	case "TriggerTemplate":
		for t := range r.items(r.get(spec, "resourcetemplates")) {
			tkDocument(r, t, kinds)
		}
	}
}

// nameOf gives the name of a manifest, generated ones without their dash.
func (f *tkFile) nameOf(d *node) string {
	r := f.r
	return firstOf(r.str(r.at(d, "metadata", "name")), strings.TrimSuffix(r.str(r.at(d, "metadata", "generateName")), "-"), strings.ToLower(r.str(r.get(d, "kind"))))
}

var tkPullRequest = regexp.MustCompile(`pull_request|merge_request|on-comment|pull-request`)

// tkReach reads the annotations of Pipelines as Code: pushes need write access,
// pull requests are subject to the policy of the installation.
func tkReach(r *reader, ann *node) Reach {
	event := r.str(r.get(ann, "pipelinesascode.tekton.dev/on-event"))
	cel := r.str(r.get(ann, "pipelinesascode.tekton.dev/on-cel-expression"))
	if event == "" && cel == "" {
		return Reach{Trust: TrustUnknown}
	}
	out := Reach{Trust: TrustUnknown}
	for _, e := range []string{"pull_request", "push", "incoming"} {
		if strings.Contains(event, e) || strings.Contains(cel, `"`+e+`"`) || strings.Contains(cel, "'"+e+"'") {
			out.Events = append(out.Events, e)
		}
	}
	if !tkPullRequest.MatchString(event+cel) && len(out.Events) > 0 {
		out.Trust = Protected
	}
	return out
}

func (f *tkFile) at(job, step string) place {
	return place{job: job, step: step, reach: f.reach, runner: f.runner}
}

// bind takes the defaults of declared parameters.
func (f *tkFile) bind(params *node) {
	for p := range f.r.items(params) {
		name := f.r.str(f.r.get(p, "name"))
		if d := f.r.get(p, "default"); d != nil {
			f.params[name] = f.r.str(d)
		} else if v := f.r.get(p, "value"); v != nil {
			f.params[name] = f.r.str(v)
		}
	}
}

var tkHole = regexp.MustCompile(`\$\((?:inputs\.)?(?:params|tt\.params|context)\.([A-Za-z0-9_.-]+)\)|\$\((?:inputs\.)?params\[["']([^"']+)["']\]\)`)

// text puts known parameters into a name.
func (f *tkFile) text(s string) string {
	for range 3 {
		if !strings.Contains(s, "$(") {
			return s
		}
		s = tkHole.ReplaceAllStringFunc(s, func(m string) string {
			g := tkHole.FindStringSubmatch(m)
			if v := f.params[firstOf(g[1], g[2])]; v != "" {
				return v
			}
			return m
		})
	}
	return s
}

// pod gives the reader for the containers of a task.
func (f *tkFile) pod(job string, volumes *node) *k8s {
	k := &k8s{r: f.r, text: f.text, at: func(step string) place { return f.at(job, step) }}
	k.readVolumes(volumes)
	return k
}

func (f *tkFile) volumesOf(n *node) *node { return n }

// run reads what a run sets for all: its parameters, its service account and the secrets of its pods.
func (f *tkFile) run(spec *node, job string) {
	r := f.r
	f.bind(r.get(spec, "params"))
	for _, n := range []*node{r.get(spec, "serviceAccountName"), r.at(spec, "taskRunTemplate", "serviceAccountName")} {
		f.account(n, job)
	}
	for _, key := range []string{"taskRunSpecs", "taskRunSpec"} {
		for t := range r.items(r.get(spec, key)) {
			for _, sa := range []string{"serviceAccountName", "taskServiceAccountName"} {
				f.account(r.get(t, sa), firstOf(r.str(r.get(t, "pipelineTaskName")), job))
			}
		}
	}
	for _, pod := range []*node{r.get(spec, "podTemplate"), r.at(spec, "taskRunTemplate", "podTemplate")} {
		for s := range r.items(r.get(pod, "imagePullSecrets")) {
			k := f.pod(job, nil)
			k.secret(f.at(job, ""), s.Line, r.str(r.get(s, "name")), secretUse("registry/container", ""), "imagePullSecrets")
		}
		f.pod(job, nil).container(pod, "") // it has an environment too, which is that of all pods
	}
}

// pipeline reads the tasks of a pipeline; workspaces are those of its run.
func (f *tkFile) pipeline(spec, workspaces *node, name string) {
	r := f.r
	f.bindDefaults(r.get(spec, "params"))
	used := make(map[string][]string)
	for _, key := range []string{"tasks", "finally"} {
		for t := range r.items(r.get(spec, key)) {
			job := r.str(r.get(t, "name"))
			for w := range r.items(r.get(t, "workspaces")) {
				ws := firstOf(r.str(r.get(w, "workspace")), r.str(r.get(w, "name")))
				used[ws] = append(used[ws], job)
			}
			f.secretParams(r.get(t, "params"), job, "value", f.specOf(t) == nil)
			if ts := r.get(t, "taskSpec"); ts != nil {
				inner := &tkFile{r: r, params: cloneMap(f.params), reach: f.reach, kinds: f.kinds, runner: f.runner}
				inner.bind(r.get(t, "params"))
				inner.task(ts, job, nil)
			}
			f.workspaceUses(f.specOf(t), job, r.get(t, "workspaces"))
			f.taskRef(r.get(t, "taskRef"), job)
		}
	}
	f.runWorkspaces(workspaces, used, name)
	f.secretParams(r.get(spec, "params"), name, "default", false)
}

func cloneMap(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// bindDefaults takes defaults that a run did not set.
func (f *tkFile) bindDefaults(params *node) {
	for p := range f.r.items(params) {
		name := f.r.str(f.r.get(p, "name"))
		if _, set := f.params[name]; !set {
			if d := f.r.str(f.r.get(p, "default")); d != "" {
				f.params[name] = d
			}
		}
	}
}

// taskRef records a task that is defined elsewhere, unless this file has it.
func (f *tkFile) taskRef(ref *node, job string) {
	if ref == nil {
		return
	}
	name := tkRefName(f.r, ref)
	if f.kinds.tasks[name] != nil {
		return
	}
	f.resolverToken(ref, job)
	f.r.open(f.at(job, ""), ref.Line, "task", name, "the task is defined in another manifest, bundle or repository")
}

// tkRefName gives the name in a taskRef or a pipelineRef, also of a resolver.
func tkRefName(r *reader, ref *node) string {
	name := firstOf(r.str(r.get(ref, "name")), r.str(r.get(ref, "bundle")))
	if name != "" {
		return name
	}
	parts := []string{r.str(r.get(ref, "resolver"))}
	for p := range r.items(r.get(ref, "params")) {
		switch r.str(r.get(p, "name")) {
		case "name", "bundle", "url", "pathInRepo":
			parts = append(parts, r.str(r.get(p, "value")))
		}
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// runWorkspaces records secrets that a run hands to tasks as workspaces.
func (f *tkFile) runWorkspaces(n *node, used map[string][]string, name string) {
	r := f.r
	k := f.pod(name, nil)
	for w := range r.items(n) {
		held := f.heldBy(w)
		ws := r.str(r.get(w, "name"))
		u := workspaceUse(ws)
		jobs := used[ws]
		if len(jobs) == 0 {
			jobs = []string{name}
		}
		slices.Sort(jobs)
		for _, job := range slices.Compact(jobs) {
			for _, s := range held {
				k.secret(f.at(job, ""), s.Line, r.str(s), f.spaces[job+"\x00"+ws].or(u), "workspace: "+ws)
			}
		}
	}
}

// specOf gives the spec of a task that stands in a run or a pipeline, or in a manifest of the same file.
func (f *tkFile) specOf(n *node) *node {
	if ts := f.r.get(n, "taskSpec"); ts != nil {
		return ts
	}
	return f.r.get(f.kinds.tasks[f.r.str(f.r.at(n, "taskRef", "name"))], "spec")
}

var tkWorkspacePath = regexp.MustCompile(`\$\(workspaces\.([A-Za-z0-9_-]+)\.path\)`)

// workspaceUses remembers what the steps of a task do with files of its workspaces: a variable that holds
// the path of one is named for its tool, or a script hands it to one.
func (f *tkFile) workspaceUses(spec *node, job string, given *node) {
	r := f.r
	outer := make(map[string]string) // the pipeline's or the run's name of a workspace, by the task's
	for w := range r.items(given) {
		name := r.str(r.get(w, "name"))
		outer[name] = firstOf(r.str(r.get(w, "workspace")), name)
	}
	if f.spaces == nil {
		f.spaces = make(map[string]use)
	}
	k := f.pod(job, nil)
	template := r.at(spec, "stepTemplate", "env")
	for s := range r.items(r.get(spec, "steps")) {
		uses := k.scriptUses(s)
		for _, env := range []*node{r.get(s, "env"), template} {
			for e := range r.items(env) {
				m := tkWorkspacePath.FindStringSubmatch(r.str(r.get(e, "value")))
				if m == nil {
					continue
				}
				name := r.str(r.get(e, "name"))
				u := uses[name]
				if !u.known() {
					u = knownEnv(name)
				}
				if key := job + "\x00" + outer[m[1]]; u.known() && u.nature == NatureCredential && !f.spaces[key].known() {
					f.spaces[key] = u
				}
			}
		}
	}
}

// workspaceUse tells from the name of a workspace what its secret is for, as the tasks of the catalog name them.
func workspaceUse(name string) use {
	low := strings.ToLower(name)
	switch {
	case strings.Contains(low, "docker"), strings.Contains(low, "registry"):
		return secretUse("registry/container", "")
	case strings.Contains(low, "ssh"):
		return secretUse("ssh/host-or-git", "")
	case strings.Contains(low, "github"), strings.Contains(low, "gitlab"):
		return envUse(strings.ReplaceAll(name, "-", "_") + "_TOKEN")
	case strings.Contains(low, "git"), strings.Contains(low, "basic-auth"):
		return secretUse("vcs/git", "")
	case strings.Contains(low, "kube"):
		return secretUse("k8s/cluster", "")
	}
	return envUse(strings.ReplaceAll(name, "-", "_"))
}

// tkSecretParam matches parameters that hold the name of a secret.
var tkSecretParam = regexp.MustCompile(`(?i)(secret[-_]?name|[-_]secret$|^secret$|(?-i:[a-z0-9]Secret$)|credentials?$|_SECRET_NAME$|secret-ref|^secret-?key-?ref$)`)

// tkChosen matches a value that is the result of a task: a name which the run only learns on its way.
var tkChosen = regexp.MustCompile(`^\$\(tasks\.[A-Za-z0-9_-]+\.results\.[A-Za-z0-9_.-]+\)$`)

// secretParams records parameters whose value or default names a secret. What
// takes them may be elsewhere: then nothing of this file shows the use.
func (f *tkFile) secretParams(params *node, job, key string, elsewhere bool) {
	r := f.r
	k := f.pod(job, nil)
	for p := range r.items(params) {
		name := r.str(r.get(p, "name"))
		v := r.get(p, key)
		text := r.str(v)
		if strings.Contains(text, "git_auth_secret") {
			text = "git_auth_secret"
		}
		if text == "" || noSecret[strings.ToLower(text)] || !tkSecretParam.MatchString(name) || strings.Contains(text, "$(") && !(elsewhere && tkChosen.MatchString(text)) || strings.ContainsAny(text, " /\n") || strings.HasSuffix(strings.ToLower(name), "key") {
			continue
		}
		if !elsewhere && f.recorded(text) {
			continue // a task of this file uses it: that is the path
		}
		k.secret(f.at(job, ""), v.Line, text, use{res: envUse(strings.ReplaceAll(name, "-", "_")).res}, "param: "+name)
	}
}

// recorded reports whether the file has a path for a Kubernetes secret already.
func (f *tkFile) recorded(name string) bool {
	return slices.ContainsFunc(f.r.paths, func(p Path) bool { return p.Credential.Source == "kubernetes" && p.Credential.Name == name })
}

// task reads the steps of a task.
func (f *tkFile) task(spec *node, job string, _ *node) {
	r := f.r
	f.bindDefaults(r.get(spec, "params"))
	f.bindDefaults(r.at(spec, "inputs", "params"))
	f.slots(r.get(spec, "workspaces"), job)
	k := f.pod(job, r.get(spec, "volumes"))
	template := r.get(spec, "stepTemplate")
	n := 0
	for _, key := range []string{"steps", "sidecars"} {
		for s := range r.items(r.get(spec, key)) {
			n++
			name := firstOf(r.str(r.get(s, "name")), r.str(r.at(s, "ref", "name")))
			k.container(s, name)
			if ref := r.get(s, "ref"); ref != nil {
				k.handed(r.get(s, "params"), name)
				r.open(f.at(job, name), ref.Line, "step action", tkRefName(r, ref), "the step is defined in another manifest")
			}
		}
	}
	if template != nil && n > 0 {
		k.container(template, "")
	}
	k.unmounted()
	f.unusedParams(spec, job)
}

// tkSecretSlot matches workspaces that a task wants filled with a secret.
var tkSecretSlot = regexp.MustCompile(`(?i)secret|credential|docker-?config|kube-?config|ssh-(directory|creds|key)|basic-auth|netrc|pypirc|npmrc`)

// slots reports the workspaces of a task that a secret is meant for: which one, only a run says.
func (f *tkFile) slots(workspaces *node, job string) {
	for w := range f.r.items(workspaces) {
		if name := f.r.str(f.r.get(w, "name")); tkSecretSlot.MatchString(name) || tkSecretSlot.MatchString(f.r.str(f.r.get(w, "description"))) {
			f.r.open(f.at(job, ""), w.Line, "workspace", name, "the secret that fills the workspace is chosen by the run")
		}
	}
}

// unusedParams records parameters of a task that name a secret by default, when no reference in it used that name.
func (f *tkFile) unusedParams(spec *node, job string) {
	r := f.r
	known := make(map[string]bool)
	for _, i := range r.ofJob[job] {
		if r.paths[i].Job == job {
			known[r.paths[i].Credential.Name] = true
		}
	}
	for p := range r.items(r.get(spec, "params")) {
		if d := r.str(r.get(p, "default")); known[f.text(d)] || known[d] {
			return
		}
	}
	f.secretParams(r.get(spec, "params"), job, "default", false)
}
