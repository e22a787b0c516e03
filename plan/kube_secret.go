package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parameters are what the parameters of a document stand for by default, as
// templates write them. One that has two defaults stands for nothing.
func parameters(root *yaml.Node) map[string]string {
	out, twice := make(map[string]string), make(map[string]bool)
	note := func(list *yaml.Node, forms ...string) {
		for i := 0; list != nil && list.Kind == yaml.SequenceNode && i < len(list.Content); i++ {
			p := list.Content[i]
			given := text(value(p, "default"))
			if given == "" {
				given = text(value(p, "value"))
			}
			for _, form := range forms {
				name := fmt.Sprintf(form, text(value(p, "name")))
				twice[name] = twice[name] || out[name] != "" && out[name] != given
				out[name] = given
			}
		}
	}
	walkNodes(root, 0, func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			note(value(n, "params"), "$(params.%s)")
			note(value(value(n, "inputs"), "parameters"), "{{inputs.parameters.%s}}")
		}
	})
	note(value(value(value(root, "spec"), "arguments"), "parameters"), "{{workflow.parameters.%s}}")
	for name := range twice {
		if twice[name] {
			delete(out, name)
		}
	}
	return out
}

// named gives a name, or what its parameter stands for.
func (t kubeTask) named(n *yaml.Node) string {
	if given := t.names[strings.ReplaceAll(text(n), " ", "")]; given != "" {
		return given
	}
	return text(n)
}

// uses reports whether a container takes the secret.
func (f kubeFile) uses(t kubeTask, c *yaml.Node, d *draft) (bool, error) {
	volumes, err := f.volumesOf(t, c, d.item.Secrets)
	return len(t.secretEnv(c, d.item.Secrets)) > 0 || len(volumes) > 0 || len(t.environments(c, d.item.Secrets)) > 0, err
}

// forget empties the defaults of parameters that have named the secret: callers
// that pass one can go on to do so, and nothing reads it.
func (f kubeFile) forget(t kubeTask, d *draft) (err error) {
	for form, given := range t.names {
		if !slices.Contains(d.item.Secrets, given) {
			continue
		}
		name := form[strings.LastIndexByte(form, '.')+1 : strings.IndexAny(form, ")}")]
		walkNodes(t.root, 0, func(n *yaml.Node) {
			if n.Kind != yaml.MappingNode || text(value(n, "name")) != name || err != nil {
				return
			}
			for _, key := range []string{"default", "value"} {
				if k, v := find(n, key); v != nil && text(v) == given {
					err = f.setValue(k, v, `""`)
					d.note("The parameter %s has named the secret, and nothing reads it any more: whoever has passed another name needs a task and a grant of its own.", oneLine(name))
				}
			}
		})
	}
	return err
}

// fromConfigMap is an entry of an environment that reads a setting.
func (d *draft) fromConfigMap(name, what string) string {
	return "valueFrom: {configMapKeyRef: {name: proviso, key: " + strings.TrimPrefix(d.shared(name, what), "$") + "}}"
}

// secretVolume is a volume of a secret's files in a container.
type secretVolume struct {
	entry *yaml.Node // of volumes
	mount *yaml.Node // of the container's volumeMounts
}

// volumesOf finds the volumes of a container that hold the secret.
func (f kubeFile) volumesOf(t kubeTask, c *yaml.Node, secrets []string) (out []secretVolume, err error) {
	volumes, mounts := value(t.node, "volumes"), value(c, "volumeMounts")
	for i := 0; volumes != nil && mounts != nil && i < len(volumes.Content); i++ {
		v := volumes.Content[i]
		if !slices.Contains(secrets, t.named(value(value(v, "secret"), "secretName"))) {
			continue
		}
		for _, m := range mounts.Content {
			switch {
			case text(value(m, "name")) != text(value(v, "name")):
			case value(m, "subPath") != nil:
				return nil, no(m, "the file of the secret is mounted by itself (subPath), and a pod can't put another in its place")
			default:
				out = append(out, secretVolume{v, m})
			}
		}
	}
	return out, nil
}

// environments are the entries of envFrom that take all keys of the secret.
func (t kubeTask) environments(c *yaml.Node, secrets []string) (out []*yaml.Node) {
	list := value(c, "envFrom")
	for i := 0; list != nil && list.Kind == yaml.SequenceNode && i < len(list.Content); i++ {
		e := list.Content[i]
		if slices.Contains(secrets, t.named(value(value(e, "secretRef"), "name"))) && value(e, "prefix") == nil {
			out = append(out, e)
		}
	}
	return out
}

// broker has a container ask Proviso for the values of the secret's keys, and
// leave them where they were: in variables, or in files that only memory holds.
func (f kubeFile) broker(t kubeTask, c *yaml.Node, refs []envRef, d *draft) (*identity, error) {
	url := d.p.broker()
	if strings.Contains(url, "{{") {
		return nil, no(c, "the audience of the pod's token, Proviso's URL, has to stand in the file itself: plan with --broker URL")
	}
	d.provisoURL()
	i := &identity{volume: "proviso-identity", path: "/var/run/proviso", audience: url, env: [][2]string{
		{"PROVISO_URL", d.fromConfigMap("PROVISO_URL", d.settings["PROVISO_URL"])},
		{"VAULT_ADDR", d.fromConfigMap("VAULT_ADDR", vaultAddress)},
		{"PROVISO_JOB_TOKEN_FILE", "value: /var/run/proviso/token"}}}
	i.before = append([]string{stopAtOnce}, d.fetchScript()[:3]...)
	read := func(field string) string {
		return "vault kv get -mount=ci -field=" + field + " " + d.secretPath()
	}
	keys := false
	for _, r := range refs {
		field := "value"
		if len(refs) > 1 {
			field, keys = r.key, true
		}
		if !variableName.MatchString(r.name) || !credentialID.MatchString(field) {
			return nil, no(r.entry, "the variable or the key has an unusual name")
		}
		i.before = append(i.before, r.name+`="$(`+read(field)+`)"`, "export "+r.name)
	}
	for _, e := range t.environments(c, d.item.Secrets) {
		if err := f.dropEntry(c, "envFrom", e); err != nil {
			return nil, err
		}
		keys = true
		i.before = append(i.before, `eval "$(vault kv get -mount=ci -format=json `+d.secretPath()+` | jq -r '.data.data | to_entries[] | select(.key | test("^[A-Za-z_][A-Za-z0-9_]*$")) | "export \(.key)=\(.value | @sh)"')"`)
		d.note("The environment takes all keys of the Kubernetes secret: the image needs jq for that.")
	}
	volumes, err := f.volumesOf(t, c, d.item.Secrets)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		files, err := f.memory(v, c)
		if err != nil {
			return nil, err
		}
		keys = true
		for _, file := range files {
			i.before = append(i.before, "(umask 077 && "+read(file.key)+" > "+sh(file.path)+")")
		}
	}
	if keys {
		d.note("The Kubernetes secret has several keys: put each into the secrets manager under its own name.")
	}
	i.before = append(i.before, d.fetchScript()[4])
	d.note("The image of the step needs the commands proviso and vault, and nothing that the script prints is masked.")
	return i, nil
}

// keyFile is a key of a secret and the file that a script reads it from.
type keyFile struct{ key, path string }

// memory puts a volume in memory in the place of one of a secret, and gives the
// files of it that the container's script names.
func (f kubeFile) memory(v secretVolume, c *yaml.Node) (files []keyFile, err error) {
	dir := strings.TrimSuffix(text(value(v.mount, "mountPath")), "/")
	script := allText(f.script(c))
	items := make(map[string]string) // the key of each file
	if list := value(value(v.entry, "secret"), "items"); list != nil {
		for _, item := range list.Content {
			items[text(value(item, "path"))] = text(value(item, "key"))
		}
	}
	named := regexp.MustCompile(regexp.QuoteMeta(dir) + `(/[A-Za-z0-9_.-]+)?`)
	for _, m := range named.FindAllStringSubmatch(script, -1) {
		name := strings.TrimPrefix(m[1], "/")
		key := name
		if len(items) > 0 {
			key = items[name]
		}
		if !credentialID.MatchString(key) {
			return nil, no(v.mount, "the script reads the directory %s, and which files it needs of it can't be told", oneLine(dir))
		}
		if file := (keyFile{key, dir + "/" + name}); !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	if len(files) == 0 || dir == "" {
		return nil, no(v.mount, "the script names no file of %s: the program finds the secret's files by itself", oneLine(dir))
	}
	if k, _ := find(v.mount, "readOnly"); k != nil {
		if err := f.dropEntries(k, v.mount, "readOnly"); err != nil {
			return nil, err
		}
	}
	key, val := find(v.entry, "secret")
	at, dashed, err := f.keyLine(key)
	switch {
	case err != nil:
		return nil, err
	case dashed:
		return nil, no(key, "secret stands behind the dash of its list")
	}
	end, err := f.entryEnd(val)
	if err != nil {
		return nil, err
	}
	f.edits.put(at, end, indent(key)+"emptyDir: {medium: Memory}")
	return files, nil
}

// dropEntry takes an entry out of a list, and the list with its last one.
func (f kubeFile) dropEntry(m *yaml.Node, name string, e *yaml.Node) error {
	list, err := f.doc.script(m, name)
	if err != nil {
		return err
	}
	line, _, err := list.dash(slices.Index(list.list.Content, e))
	if err != nil {
		return err
	}
	end, err := f.entryEnd(e)
	if err != nil {
		return err
	}
	if len(list.list.Content) == 1 {
		at, dashed, err := f.keyLine(list.key)
		if err != nil || dashed || at != line-2 {
			return no(list.key, "nothing would be left of %s", name)
		}
		line--
	}
	f.edits.put(line-1, end)
	return nil
}

// firstKey gives the first of some keys that a mapping has.
func firstKey(m *yaml.Node, names ...string) *yaml.Node {
	for _, n := range names {
		if k := find1(m, n); k != nil {
			return k
		}
	}
	return nil
}

// addEnvironment puts the entries for the identity before those that there are.
func (f kubeFile) addEnvironment(c *yaml.Node, i *identity) error {
	if find1(c, "env") != nil {
		for _, e := range i.env {
			if err := f.add(c, "env", nil, "name: "+e[0], e[1]); err != nil {
				return err
			}
		}
		return nil
	}
	lines := []string{"env:"}
	for _, e := range i.env {
		lines = append(lines, "  - name: "+e[0], "    "+e[1])
	}
	before := firstKey(c, "script", "source", "args", "volumeMounts", "image")
	if before == nil {
		return no(c, "there is no place for env")
	}
	return f.addIndented(before, lines...)
}
