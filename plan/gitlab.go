package plan

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// gitlabFile is a .gitlab-ci.yml.
type gitlabFile struct{ *doc }

func (f gitlabFile) change(id string, d *draft) error {
	key, node := find(f.root, id)
	if key == nil {
		return no(f.root, "the job %s is not in this file itself", oneLine(id))
	}
	if err := f.block(node, "the job"); err != nil {
		return err
	}
	// What runs before the script might use the credential already.
	if value(node, "before_script") == nil {
		if err := f.inherited(node, d.item.Secrets); err != nil {
			return err
		}
	}
	if value(node, "script") == nil && value(node, "extends") != nil {
		var err error
		if node, err = f.holder(node, d); err != nil {
			return err
		}
	}
	used := usedIn(node, d.item.Secrets)
	logs := d.logsIn()
	for _, k := range used {
		if k != "script" && (k != "variables" || d.method.name != "aws" && !logs) && (k != "before_script" || !logs) {
			return no(value(node, k), "the secret is used in %s", oneLine(k))
		}
	}
	if value(value(f.root, "default"), "id_tokens") != nil && value(node, "id_tokens") == nil {
		return no(node, "the job has its id_tokens from default:, which tokens of its own would replace")
	}
	if val := value(node, "script"); val != nil && val.Kind == yaml.ScalarNode {
		return f.oneText(node, val, d)
	}
	script, err := f.script(node, "script")
	if err != nil {
		return err
	}
	switch {
	case d.method.name == "aws":
		return f.aws(node, script, d)
	case logs:
		return f.login(node, script, d)
	case d.method.fetch:
		at := script.first(d.item.Secrets...)
		if at < 0 || len(d.item.Secrets) != 1 {
			return no(node, "the secret is not named in the job's script")
		}
		commands, err := d.fetchCommands(allText(script.list))
		return firstError(err, f.idToken(node, "PROVISO_ID_TOKEN", "$PROVISO_URL"), script.before(at, commands...))
	}
	return no(node, "for GitLab there are steps, and no patch, for this")
}

// holder finds the job whose script another one extends. All that extend it have
// to be the item's.
func (f gitlabFile) holder(node *yaml.Node, d *draft) (*yaml.Node, error) {
	if used := usedIn(node, d.item.Secrets); len(used) > 0 {
		return nil, no(node, "the secret is used in %s of a job whose script is another one's", oneLine(used[0]))
	}
	held := f.scriptOf(node)
	if held == nil {
		return nil, no(node, "the job has no script of its own, and what it extends is not one job of this file")
	}
	for i := 0; i+1 < len(f.root.Content); i += 2 {
		name, job := f.root.Content[i].Value, deref(f.root.Content[i+1])
		if strings.HasPrefix(name, ".") || job.Kind != yaml.MappingNode || f.scriptOf(job) != held {
			continue
		}
		if err := d.mine(name); err != nil {
			return nil, no(held, "the job %s has the same script, which the patch would change: %s", oneLine(name), err.Error())
		}
	}
	return held, f.block(held, "the job")
}

// scriptOf follows extends to the job with the script, nil when that leads out of the file.
func (f gitlabFile) scriptOf(job *yaml.Node) *yaml.Node {
	held, known := f.from(job, "script", 0)
	if !known {
		return nil
	}
	return held
}

// from gives the job that another one has a key from: itself, or what it extends,
// the last of several first. False when that leads out of the file.
func (f gitlabFile) from(job *yaml.Node, key string, depth int) (held *yaml.Node, known bool) {
	extends := value(job, "extends")
	switch {
	case value(job, key) != nil:
		return job, true
	case extends == nil:
		return nil, true
	case depth > 10:
		return nil, false
	}
	parents := words(extends)
	if extends.Kind == yaml.ScalarNode {
		parents = []string{extends.Value}
	}
	for _, name := range slices.Backward(parents) {
		_, parent := find(f.root, name)
		if parent == nil {
			return nil, false
		}
		if held, known := f.from(deref(parent), key, depth+1); held != nil || !known {
			return held, known
		}
	}
	return nil, true
}

// inherited refuses a job whose before_script is that of another one, and may
// need the credential already.
func (f gitlabFile) inherited(node *yaml.Node, secrets []string) error {
	const why = "the job has a before_script from elsewhere, which might need the credential already"
	from, known := f.from(node, "before_script", 0)
	if !known {
		return no(node, why)
	}
	for _, before := range []*yaml.Node{value(from, "before_script"), value(value(f.root, "default"), "before_script"), value(f.root, "before_script")} {
		if before == nil {
			continue
		}
		unknown := false
		walkNodes(before, 0, func(n *yaml.Node) { unknown = unknown || n.Tag == "!reference" })
		if unknown || len(usedIn(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{before, before}}, secrets)) > 0 {
			return no(node, why)
		}
		break
	}
	return nil
}

// oneText changes a script that is one text of several lines.
func (f gitlabFile) oneText(node, val *yaml.Node, d *draft) error {
	sh, err := f.shell(val, find1(node, "script").Column-1)
	if err != nil {
		return err
	}
	name, aud, err := f.tokenFor(node, d)
	if err != nil {
		return err
	}
	var t *takeover
	switch {
	case d.method.fetch && len(d.item.Secrets) == 1:
		d.note(masksLittle)
		if t = d.fetched(d.item.Secrets[0]); readsFile(d.item.Secrets[0], val.Value) {
			t = d.fetchedFile(d.item.Secrets[0])
		}
	case d.logsIn():
		if t, err = d.login(`printf '%s' "$` + name + `"`); err != nil {
			return err
		}
	default:
		return no(val, "the script is one text: write one command a line, and plan again")
	}
	dropped := false
	if k, vars := find(node, "variables"); vars != nil && d.logsIn() {
		if dropped, err = f.dropHandOn(k, vars, d.item.Secrets); err != nil {
			return err
		}
	}
	if dropped {
		err = sh.force(t)
	} else if placed, why := sh.take(t, true); why != nil || !placed {
		err = firstError(why, no(node, "the secret is not named in the job's script"))
	}
	if err != nil {
		return err
	}
	return f.idToken(node, name, aud)
}

// tokenFor is the id token that takes the secret's place: its variable, and its audience.
func (f gitlabFile) tokenFor(node *yaml.Node, d *draft) (name, aud string, err error) {
	switch {
	case d.method.fetch, d.through():
		return "PROVISO_ID_TOKEN", "$PROVISO_URL", nil
	case d.method.name == "gcp":
		return "GCP_ID_TOKEN", "https://iam.googleapis.com/" + d.setting("PROVIDER", providerName), nil
	case d.method.name == "aws":
		name, aud = "AWS_ID_TOKEN", d.federation().url // names, no tokens
	default:
		name, aud = map[string]string{"azure": "AZURE_ID_TOKEN", "vault": "VAULT_ID_TOKEN"}[d.method.name], d.targetAudience()
	}
	if strings.Contains(aud, "{{") {
		return "", "", no(node, "the audience of the token is not known")
	}
	return name, aud, nil
}

// login puts the job's token for the target in the place of the secret.
func (f gitlabFile) login(node *yaml.Node, script *scriptList, d *draft) error {
	name, aud, err := f.tokenFor(node, d)
	if err != nil {
		return err
	}
	t, err := d.login(`printf '%s' "$` + name + `"`)
	if err != nil {
		return err
	}
	lists := []*scriptList{script}
	if value(node, "before_script") != nil {
		before, err := f.script(node, "before_script")
		if err != nil {
			return err
		}
		lists = []*scriptList{before, script}
	}
	dropped := false
	if k, vars := find(node, "variables"); vars != nil {
		if dropped, err = f.dropHandOn(k, vars, d.item.Secrets); err != nil {
			return err
		}
	}
	placed := false
	for _, l := range lists {
		if placed, err = l.take(t, placed); err != nil {
			return err
		}
	}
	switch {
	case placed:
	case dropped:
		if err := lists[0].before(0, t.before...); err != nil {
			return err
		}
	default:
		return no(node, "the secret is not named in the job's script")
	}
	return f.idToken(node, name, aud)
}

func (f gitlabFile) aws(node *yaml.Node, script *scriptList, d *draft) error {
	if err := script.drop(awsExport(d.item.Secrets)); err != nil {
		return err
	}
	dropped := false
	for _, n := range script.list.Content {
		if awsExport(d.item.Secrets).MatchString(strings.TrimSpace(n.Value)) {
			dropped = true
		} else if line := namesKey(n, d.item.Secrets); line {
			return no(n, "a command names the variables of the key itself; with a role there is a session token beside them, which has to go along")
		}
	}
	if k, vars := find(node, "variables"); vars != nil {
		var names []string
		for i := 0; i+1 < len(vars.Content); i += 2 {
			if slices.Contains(awsKeyNames, vars.Content[i].Value) {
				names = append(names, vars.Content[i].Value)
			}
		}
		if err := f.dropEntries(k, vars, names...); err != nil {
			return err
		}
		dropped = dropped || len(names) > 0
	}
	if !dropped && script.first("AWS_ACCESS_KEY_ID") >= 0 {
		return no(node, "the job reads the key from a variable of the project, and names it in its script")
	}
	variable, aud, err := f.tokenFor(node, d)
	if err != nil {
		return err
	}
	return firstError(f.idToken(node, variable, aud), script.before(0, d.awsCommands("$"+variable)...))
}

// idToken gives the job an identity token for an audience.
func (f gitlabFile) idToken(node *yaml.Node, name, aud string) error {
	key, have := find(node, "id_tokens")
	if key != nil {
		if err := f.block(have, "id_tokens"); err != nil {
			return err
		}
		if text(value(value(have, name), "aud")) == aud {
			return nil
		}
		if value(have, name) != nil {
			return no(have, "there is an id token %s already", name)
		}
		return f.addIndented(have.Content[0], name+":", "  aud: "+aud)
	}
	at, dashed, err := f.keyLine(find1(node, "script"))
	if err != nil || dashed {
		return no(node, "script does not begin its line")
	}
	in := indent(find1(node, "script"))
	f.insertBefore(at+1, in+"id_tokens:", in+"  "+name+":", in+"    aud: "+aud)
	return nil
}
