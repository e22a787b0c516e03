package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/inventory"
)

// kubeFile is a manifest of Tekton or Argo Workflows. Its jobs are pods: a pod
// shows the token of its service account, which Kubernetes writes into a volume
// for one audience and renews.
type kubeFile struct {
	*doc
	ci inventory.CI
}

// kubeTask is what holds containers and their volumes: the spec of a task, a template.
type kubeTask struct {
	node       *yaml.Node
	first      *yaml.Node // the key before which volumes: goes
	containers []*yaml.Node
	root       *yaml.Node        // of the document
	names      map[string]string // what parameters stand for where nobody passes another value
}

func (f kubeFile) change(id string, d *draft) error {
	done := false
	for _, t := range f.tasks(id) {
		for _, c := range t.containers {
			switch used, err := f.uses(t, c, d); {
			case err != nil:
				return err
			case used:
				if err := firstError(f.container(t, c, d), f.forget(t, d)); err != nil {
					return err
				}
				done = true
			}
		}
		changed, err := f.artifacts(t.node, d)
		if err != nil {
			return err
		}
		done = done || changed
	}
	if !done {
		return no(f.root, "no container of %s takes the secret by itself: a workspace or a parameter hands it to a task of another file, or the secret is the service account's", oneLine(id))
	}
	return nil
}

// tasks finds what has a job's name.
func (f kubeFile) tasks(id string) (out []kubeTask) {
	for _, root := range f.docs {
		from := len(out)
		name := text(value(value(root, "metadata"), "name"))
		if name == "" {
			name = strings.TrimSuffix(text(value(value(root, "metadata"), "generateName")), "-")
		}
		spec := value(root, "spec")
		switch text(value(root, "kind")) {
		case "Task", "ClusterTask":
			if name == id {
				out = append(out, taskOf(spec))
			}
		case "TaskRun":
			if name == id {
				out = append(out, taskOf(value(spec, "taskSpec")))
			}
		default:
			out = append(out, f.inline(spec, id)...)
		}
		for i := from; i < len(out); i++ {
			out[i].root, out[i].names = root, parameters(root)
		}
	}
	return out
}

// inline finds the tasks and templates of a name in a pipeline or a workflow.
func (f kubeFile) inline(spec *yaml.Node, id string) (out []kubeTask) {
	walkNodes(spec, 0, func(n *yaml.Node) {
		if n.Kind != yaml.MappingNode || text(value(n, "name")) != id {
			return
		}
		if ts := value(n, "taskSpec"); ts != nil {
			out = append(out, taskOf(ts))
		}
		for _, key := range []string{"container", "script"} {
			if k, c := find(n, key); c != nil && c.Kind == yaml.MappingNode && f.ci == inventory.Argo {
				out = append(out, kubeTask{node: n, first: k, containers: []*yaml.Node{c}})
			}
		}
		if f.ci == inventory.Argo && value(n, "container") == nil && value(n, "script") == nil {
			out = append(out, kubeTask{node: n})
		}
	})
	return out
}

func taskOf(spec *yaml.Node) kubeTask {
	k, steps := find(spec, "steps")
	t := kubeTask{node: spec, first: k}
	if steps != nil && steps.Kind == yaml.SequenceNode {
		t.containers = steps.Content
	}
	return t
}

// envRef is an entry of a container's environment that takes a key of a secret.
type envRef struct {
	entry     *yaml.Node
	name, key string
}

func (t kubeTask) secretEnv(c *yaml.Node, secrets []string) (out []envRef) {
	env := value(c, "env")
	if env == nil || env.Kind != yaml.SequenceNode {
		return nil
	}
	for _, e := range env.Content {
		ref := value(value(e, "valueFrom"), "secretKeyRef")
		if ref != nil && slices.Contains(secrets, t.named(value(ref, "name"))) {
			out = append(out, envRef{e, text(value(e, "name")), text(value(ref, "key"))})
		}
	}
	return out
}

// identity is how a container finds the token of its pod.
type identity struct {
	volume, path string // the volume's name, and where it is mounted
	audience     string
	env          [][2]string // name, and the value as YAML
	before       []string    // commands of the script
}

// identity says what takes the place of the secret in a container.
func (f kubeFile) identity(t kubeTask, c *yaml.Node, refs []envRef, d *draft) (*identity, error) {
	var names []string
	region := ""
	for _, r := range refs {
		if r.name == "AWS_REGION" || r.name == "AWS_DEFAULT_REGION" { // of the same Kubernetes secret, and no secret by itself
			region = r.name
			continue
		}
		names = append(names, r.name)
	}
	from := d.fromConfigMap
	if volumes, err := f.volumesOf(t, c, d.item.Secrets); err != nil || len(volumes) > 0 && !d.method.fetch {
		return nil, firstError(err, no(c, "the secret is a volume of files, for which there are steps, and no patch"))
	}
	switch {
	case d.method.name == "aws" && !d.through():
		if slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(awsKeyNames, n) }) {
			return nil, no(c, "the key is handed on as %s, which the AWS tools don't read by themselves", oneLine(strings.Join(names, ", ")))
		}
		if namesKey(f.script(c), nil) {
			return nil, no(c, "the script names the variables of the key itself; with a role there is a session token beside them, which has to go along")
		}
		i := &identity{volume: "aws-identity", path: "/var/run/aws-identity", audience: d.targetAudience(), env: [][2]string{
			{"AWS_ROLE_ARN", from(upper(d.item.ID)+"_ROLE", d.roleIs())},
			{"AWS_WEB_IDENTITY_TOKEN_FILE", "value: /var/run/aws-identity/token"}}}
		for _, e := range t.environments(c, d.item.Secrets) {
			if err := f.dropEntry(c, "envFrom", e); err != nil {
				return nil, err
			}
			d.note("The environment took all keys of the Kubernetes secret: write what else it held (a region) into env.")
		}
		if region != "" {
			i.env = append(i.env, [2]string{region, from(upper(d.item.ID)+"_REGION", "the region, which the Kubernetes secret has held so far")})
		}
		return i, nil
	case d.method.name == "azure" && !d.through():
		if !slices.Contains(names, "AZURE_CLIENT_SECRET") || variable("AZURE_CLIENT_SECRET").MatchString(allText(f.script(c))) {
			return nil, no(c, "the client secret is handed on in a way that the SDKs of Azure don't read by themselves; log in with az login --federated-token, and plan again")
		}
		i := &identity{volume: "azure-identity", path: "/var/run/azure-identity", audience: entraAudience, env: [][2]string{{"AZURE_FEDERATED_TOKEN_FILE", "value: /var/run/azure-identity/token"}}}
		for _, n := range names { // of the same Kubernetes secret, and no secret by itself
			if n == "AZURE_CLIENT_ID" || n == "AZURE_TENANT_ID" {
				i.env = append(i.env, [2]string{n, from(upper(d.item.ID)+strings.TrimPrefix(n, "AZURE"), "the "+map[string]string{"AZURE_CLIENT_ID": "application's (client)", "AZURE_TENANT_ID": "directory's (tenant)"}[n]+" id")})
			}
		}
		return i, nil
	case !d.method.fetch:
		return nil, no(c, "for %s there are steps, and no patch, for this", d.item.CI)
	}
	return f.broker(t, c, refs, d)
}

// container puts the identity of the pod in the place of a secret.
func (f kubeFile) container(t kubeTask, c *yaml.Node, d *draft) error {
	if err := firstError(f.block(t.node, "the task"), f.block(c, "the container")); err != nil {
		return err
	}
	refs := t.secretEnv(c, d.item.Secrets)
	i, err := f.identity(t, c, refs, d)
	if err != nil {
		return err
	}
	if len(i.before) > 0 {
		if err := f.prefixScript(c, i.before); err != nil {
			return err
		}
	}
	if len(refs) == 0 {
		err = f.addEnvironment(c, i)
	} else {
		err = f.environment(c, refs, i)
	}
	return firstError(err, f.mount(c, i), f.volume(t, i))
}

// script gives the node of a container's shell script, nil when it has none.
func (f kubeFile) script(c *yaml.Node) *yaml.Node {
	for _, key := range []string{"script", "source"} {
		if v := value(c, key); v != nil && v.Kind == yaml.ScalarNode {
			return v
		}
	}
	return value(c, "args")
}

func allText(n *yaml.Node) string {
	var b strings.Builder
	walkScalars(n, 0, func(c *yaml.Node) { b.WriteString(c.Value + "\n") })
	return b.String()
}

var shellCommand = regexp.MustCompile(`^((/usr)?/bin/)?(ba|da|a)?sh$`)

// prefixScript puts commands before those of a container.
func (f kubeFile) prefixScript(c *yaml.Node, before []string) error {
	command := append(words(value(c, "command")), words(value(c, "args"))...)
	t := &takeover{before: before, all: true, change: leave, loose: f.ci == inventory.Argo && !slices.ContainsFunc(command, func(w string) bool { return bangStops(" " + w) })}
	for _, key := range []string{"script", "source"} {
		k, v := find(c, key)
		if v == nil || v.Kind != yaml.ScalarNode {
			continue
		}
		if key == "source" && !slices.ContainsFunc(words(value(c, "command")), shellCommand.MatchString) {
			return no(v, "the script is not a shell's: command is %s", oneLine(strings.Join(words(value(c, "command")), " ")))
		}
		sh, err := f.shell(v, k.Column-1)
		if err != nil {
			return err
		}
		return sh.force(t)
	}
	args := value(c, "args")
	if args == nil || args.Style&yaml.FlowStyle != 0 || len(args.Content) == 0 || len(command) < 3 || !shellCommand.MatchString(command[0]) || !strings.HasPrefix(command[1], "-") || !strings.HasSuffix(command[1], "c") || len(words(value(c, "command"))) < 2 {
		return no(c, "the container runs a program of its image and no script, so that nothing could fetch the value before it")
	}
	list := &scriptList{f.doc, find1(c, "args"), args}
	_, blanks, err := list.dash(0)
	if err != nil {
		return err
	}
	sh, err := f.shell(args.Content[0], len(blanks))
	if err != nil {
		return err
	}
	return sh.force(t)
}

// words are the texts of a list.
func words(n *yaml.Node) (out []string) {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	for _, c := range n.Content {
		out = append(out, c.Value)
	}
	return out
}

// environment puts the entries for the identity in the place of those for the secret.
func (f kubeFile) environment(c *yaml.Node, refs []envRef, i *identity) error {
	list, err := f.doc.script(c, "env")
	if err != nil {
		return err
	}
	have := make(map[string]bool)
	for _, e := range list.list.Content {
		have[text(value(e, "name"))] = true
	}
	for _, r := range refs {
		have[r.name] = false
	}
	for n, r := range refs {
		at := slices.Index(list.list.Content, r.entry)
		line, blanks, err := list.dash(at)
		if err != nil {
			return err
		}
		end, err := f.entryEnd(r.entry)
		if err != nil {
			return err
		}
		var with []string
		if n == 0 {
			for _, e := range i.env {
				if !have[e[0]] {
					with = append(with, blanks+"- name: "+e[0], blanks+"  "+e[1])
				}
			}
			if len(with) == 0 && len(refs) == len(list.list.Content) {
				return no(r.entry, "nothing would be left of env")
			}
		}
		f.edits.put(line-1, end, with...)
	}
	return nil
}

// entryEnd gives the index of the line behind a node.
func (f kubeFile) entryEnd(n *yaml.Node) (end int, err error) {
	walkNodes(n, 0, func(c *yaml.Node) {
		if c.Kind != yaml.ScalarNode {
			end = max(end, c.Line)
			return
		}
		if c.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			err = no(c, "the entry holds a text of several lines")
		} else if _, ok := f.valueEnd(c); !ok {
			err = no(c, "the entry holds a text of several lines")
		}
		end = max(end, c.Line)
	})
	return end, err
}

// add puts an entry at the head of a list of a mapping, or makes the list before a key.
func (f kubeFile) add(m *yaml.Node, name string, before *yaml.Node, entry ...string) error {
	key, list := find(m, name)
	if key == nil {
		if before == nil {
			return no(m, "there is no place for %s", name)
		}
		lines := []string{name + ":"}
		for i, s := range entry {
			lines = append(lines, map[bool]string{true: "  - ", false: "    "}[i == 0]+s)
		}
		return f.addIndented(before, lines...)
	}
	for _, e := range list.Content {
		if "name: "+text(value(e, "name")) == entry[0] {
			return nil // an earlier patch put it there
		}
	}
	l, err := f.doc.script(m, name)
	if err != nil {
		return err
	}
	line, blanks, err := l.dash(0)
	if err != nil {
		return err
	}
	out := make([]string, len(entry))
	for i, s := range entry {
		out[i] = blanks + map[bool]string{true: "- ", false: "  "}[i == 0] + s
	}
	f.insertBefore(line, out...)
	return nil
}

func (f kubeFile) mount(c *yaml.Node, i *identity) error {
	return f.add(c, "volumeMounts", firstKey(c, "env", "script", "source", "args", "image"), "name: "+i.volume, "mountPath: "+i.path, "readOnly: true")
}

func (f kubeFile) volume(t kubeTask, i *identity) error {
	return f.add(t.node, "volumes", t.first, "name: "+i.volume, "projected:", "  sources:", "    - serviceAccountToken: {audience: "+quoted(i.audience)+", path: token, expirationSeconds: 600}")
}

// artifactKeys are what stores of artifacts take out of secrets.
var artifactKeys = map[string][]string{"s3": {"accessKeySecret", "secretKeySecret"}, "gcs": {"serviceAccountKeySecret"}, "azure": {"accountKeySecret"}}

// artifacts let the stores of artifacts take the identity of the pod.
func (f kubeFile) artifacts(n *yaml.Node, d *draft) (changed bool, err error) {
	walkNodes(n, 0, func(m *yaml.Node) {
		if err != nil || m.Kind != yaml.MappingNode {
			return
		}
		for _, store := range []string{"azure", "gcs", "s3"} {
			s, keys := value(m, store), artifactKeys[store]
			if s == nil || !slices.ContainsFunc(keys, func(k string) bool { return slices.Contains(d.item.Secrets, text(value(value(s, k), "name"))) }) {
				continue
			}
			if err = f.artifact(s, store, keys, d); err != nil {
				return
			}
			changed = true
		}
	})
	return changed, err
}

// artifact takes the keys out of one store.
func (f kubeFile) artifact(s *yaml.Node, store string, keys []string, d *draft) error {
	if err := f.block(s, store); err != nil {
		return err
	}
	host := text(value(s, "endpoint"))
	switch {
	case d.through() || !slices.Contains([]string{"aws", "gcp", "azure"}, d.method.name):
		return no(s, "the store of an artifact takes the pod's own identity only, and no token of Proviso's")
	case store == "s3" && host != "" && !strings.HasSuffix(host, ".amazonaws.com"):
		return no(s, "the store is not Amazon's (%s) and knows no identity of pods", oneLine(host))
	}
	done := store == "gcs" // without a key it is the pod's identity anyway
	for _, name := range keys {
		k, v := find(s, name)
		if k == nil {
			continue
		}
		at, dashed, err := f.keyLine(k)
		if err != nil || dashed {
			return no(k, "%s does not begin its line", name)
		}
		end, err := f.entryEnd(v)
		if err != nil {
			return err
		}
		var with []string
		if !done && value(s, "useSDKCreds") == nil {
			with, done = []string{indent(k) + "useSDKCreds: true"}, true
		}
		f.edits.put(at, end, with...)
	}
	d.note("The store finds the pod's identity by the webhook of the cloud (EKS: eks.amazonaws.com/role-arn; GKE: iam.gke.io/gcp-service-account; AKS: azure.workload.identity/client-id, on the service account): write it there first.")
	return nil
}
