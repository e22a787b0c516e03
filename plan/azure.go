package plan

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/inventory"
)

// azureFile is a pipeline of Azure DevOps. A secret variable is seen by a script
// only where a step maps it (env: X: $(SECRET)) or where the agent writes it
// into the text, so each step that needs it is known.
type azureFile struct{ *doc }

// azureToken prints the token that the pipeline gets without a service
// connection. The access token goes by a pipe: arguments are seen by all on the machine.
const azureToken = `printf 'Authorization: Bearer %s' "$SYSTEM_ACCESSTOKEN" | curl -fsS -X POST -H @- -H 'Content-Length: 0' "$SYSTEM_OIDCREQUESTURI?api-version=7.1-preview.1" | jq -er .oidcToken`

// azureMask has the agent hide the value in the log of this step and of those behind it.
const azureMask = `while IFS= read -r line; do if [ -n "$line" ]; then echo "##vso[task.setsecret]$line"; fi; done <<< "$value"`

func (f azureFile) change(id string, d *draft) error {
	nodes, err := f.jobs(id)
	if err != nil {
		return err
	}
	var lists []azureSteps
	for _, n := range nodes {
		lists = append(lists, f.users(n, d.item.Secrets)...)
	}
	if len(lists) == 0 {
		return no(nodes[0], "no step of the job names the secret itself: a template, or a variable of another place does")
	}
	was, settings := len(f.edits), maps.Clone(d.settings)
	for _, l := range lists {
		for _, n := range l.steps {
			if err = f.step(n, id, d); err != nil {
				break
			}
		}
	}
	if err == nil || len(d.item.Secrets) != 1 || !d.method.fetch && d.method.name != "azure" && d.method.name != "vault" {
		return err
	}
	// Where a step takes no command before it, one of its own comes before all that use the value.
	f.edits, d.settings = f.edits[:was], settings
	for _, l := range lists {
		if why := f.before(l, d); why != nil {
			return why
		}
	}
	return nil
}

// azureSteps are steps of one list that name the secret.
type azureSteps struct {
	list  *yaml.Node
	steps []*yaml.Node
}

// users finds the steps that name a secret, by the list that they stand in.
func (f azureFile) users(job *yaml.Node, secrets []string) (out []azureSteps) {
	walkNodes(job, 0, func(list *yaml.Node) {
		if list.Kind != yaml.SequenceNode {
			return
		}
		l := azureSteps{list: list}
		for _, n := range list.Content {
			if n.Kind == yaml.MappingNode && isStep(n) && f.uses(n, secrets) {
				l.steps = append(l.steps, n)
			}
		}
		if len(l.steps) > 0 {
			out = append(out, l)
		}
	})
	return out
}

// jobs finds the mappings that hold the steps of a job; stages can have jobs of one name.
func (f azureFile) jobs(id string) (found []*yaml.Node, err error) {
	if value(f.root, "steps") != nil && value(f.root, "jobs") == nil && value(f.root, "stages") == nil {
		return []*yaml.Node{f.root}, nil
	}
	walkNodes(f.root, 0, func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode && (text(value(n, "job")) == id || text(value(n, "deployment")) == id) {
			found = append(found, n)
		}
	})
	if len(found) == 0 {
		return nil, no(f.root, "the job %s is not in this file itself", oneLine(id))
	}
	return found, nil
}

// azureKeys are the keys that make an entry a step.
var azureKeys = []string{"bash", "script", "pwsh", "powershell", "task", "template"}

func isStep(n *yaml.Node) bool {
	return slices.ContainsFunc(azureKeys, func(k string) bool { return value(n, k) != nil })
}

// uses reports whether a step names one of the secrets. Names with other capitals
// are the same variable to the agent, and items of their own here.
func (f azureFile) uses(n *yaml.Node, names []string) bool {
	found := false
	walkScalars(n, 0, func(c *yaml.Node) {
		for _, name := range names {
			found = found || strings.Contains(c.Value, "$("+name+")")
		}
	})
	return found
}

// step changes one step.
func (f azureFile) step(n *yaml.Node, job string, d *draft) error {
	if err := f.block(n, "the step"); err != nil {
		return err
	}
	key, val, err := f.commands(n, job, d)
	if err != nil {
		return err
	}
	envKey, env := find(n, "env")
	if env != nil {
		if err := f.block(env, "env"); err != nil {
			return err
		}
	}
	var variables, mapped []string // of the shell, and the entries of env
	for i := 0; env != nil && i+1 < len(env.Content); i += 2 {
		switch name, v := env.Content[i].Value, env.Content[i+1]; {
		case !f.uses(v, d.item.Secrets):
		case !exactMacro(text(v), d.item.Secrets):
			return no(v, "the secret is a part of a longer value")
		case !variableName.MatchString(name):
			return no(v, "the variable has an unusual name")
		default:
			variables, mapped = append(variables, name), append(mapped, name)
		}
	}
	for _, k := range n.Content {
		if k != envKey && k != env && k != val && k.Kind != yaml.ScalarNode && k != value(n, "inputs") && f.uses(k, d.item.Secrets) {
			return no(k, "the secret is used outside of the step's script and env")
		}
	}
	for _, s := range d.item.Secrets {
		if strings.Contains(text(val), "$("+s+")") && !slices.Contains(variables, shellName(s)) {
			variables = append(variables, shellName(s))
		}
	}
	t, err := f.takeover(variables, mapped, n, d)
	if err != nil {
		return err
	}
	sh, err := f.shell(val, key.Column-1)
	if err != nil {
		return err
	}
	t.loose = true
	if err := sh.force(t); err != nil {
		return err
	}
	return f.accessToken(key, envKey, env, mapped)
}

// takeover is what becomes of the commands of one step.
func (f azureFile) takeover(variables, mapped []string, n *yaml.Node, d *draft) (t *takeover, err error) {
	macros := f.macros(d.item.Secrets)
	switch {
	case d.method.fetch:
		if len(d.item.Secrets) != 1 {
			return nil, no(n, "two halves of one secret are not fetched together")
		}
		t = d.fetched(variables...)
		t.before = slices.Insert(t.before, len(t.before)-len(variables), azureMask)
		t.change = macros
		return t, nil
	case d.method.name == "aws":
		if slices.ContainsFunc(mapped, func(v string) bool { return !slices.Contains(awsKeyNames, v) }) || len(mapped) != len(variables) {
			return nil, no(n, "the key is handed on in a way that the AWS tools don't read by themselves")
		}
		if namesKey(n, nil) && strings.Contains(scriptOf(n), "AWS_SECRET_ACCESS_KEY") {
			return nil, no(n, "a command names the variables of the key itself; with a role there is a session token beside them, which has to go along")
		}
	case d.logsIn():
		for _, v := range mapped {
			if !slices.Contains(handedOn, v) && !variable(v).MatchString(scriptOf(n)) {
				return nil, no(n, "the secret is handed on as %s", oneLine(v))
			}
		}
	default:
		return nil, no(n, "for Azure Pipelines there are steps, and no patch, for this")
	}
	t, err = d.login(azureToken)
	if err != nil {
		return nil, err
	}
	// The commands may name the variable of env in place of the secret.
	t.readFrom(d.method.name, append(slices.Clone(d.item.Secrets), mapped...))
	return t, nil
}

func scriptOf(n *yaml.Node) string {
	var b strings.Builder
	for _, k := range []string{"bash", "script"} {
		b.WriteString(text(value(n, k)))
	}
	b.WriteString(text(value(value(n, "inputs"), "script")))
	return b.String()
}

// shellName is what a shell can call a variable of a pipeline.
func shellName(name string) string {
	if variableName.MatchString(name) {
		return name
	}
	return upper(name)
}

// macros puts a shell's variable in the place of what the agent wrote into the
// text: the agent no longer knows the value.
func (f azureFile) macros(secrets []string) func(string) (string, bool) {
	var forms []*regexp.Regexp
	for _, s := range secrets {
		forms = append(forms, regexp.MustCompile(`\$\(`+regexp.QuoteMeta(s)+`\)`))
	}
	return func(c string) (string, bool) {
		out := c
		for i, re := range forms {
			if strings.Contains(c, "'") {
				continue // within single quotes a shell's variable is text; the scan says that the secret is still there
			}
			out = re.ReplaceAllString(out, "$${"+shellName(secrets[i])+"}")
		}
		return out, out != c
	}
}

func exactMacro(s string, names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.TrimSpace(s) == "$("+n+")" })
}

// commands finds the script of a step that a POSIX shell runs.
func (f azureFile) commands(n *yaml.Node, job string, d *draft) (key, val *yaml.Node, err error) {
	if key, val = find(n, "bash"); key != nil {
		return key, val, nil
	}
	if key, val = find(n, "script"); key != nil {
		if !d.posix(job) {
			return nil, nil, no(key, "script: is the command line of the agent's system, and which one that is isn't in the file; write bash:, and plan again")
		}
		return key, val, nil
	}
	if strings.EqualFold(text(value(n, "task")), "Bash@3") && strings.EqualFold(text(value(value(n, "inputs"), "targetType")), "inline") {
		inputs := value(n, "inputs")
		if err := f.block(inputs, "inputs"); err != nil {
			return nil, nil, err
		}
		if key, val = find(inputs, "script"); key != nil {
			return key, val, nil
		}
	}
	what := "a task"
	for _, k := range azureKeys {
		switch v := text(value(n, k)); {
		case v == "":
		case k == "task", k == "template":
			what = k + " " + oneLine(v)
		default:
			what = "a script of " + k
		}
	}
	return nil, nil, no(n, "the secret is used by %s, which takes no command before it", what)
}

// posix reports whether all places of a job run on Linux or macOS, by their image.
func (d *draft) posix(job string) bool {
	for _, p := range d.group.paths {
		if p.Job != job {
			continue
		}
		if p.Runner.Kind != inventory.RunnerHosted || !slices.ContainsFunc(p.Runner.Labels, func(l string) bool {
			return strings.HasPrefix(strings.ToLower(l), "ubuntu") || strings.HasPrefix(strings.ToLower(l), "macos")
		}) {
			return false
		}
	}
	return true
}

// accessToken gives the step what it asks for its token with, in the place of the secret.
func (f azureFile) accessToken(key, envKey, env *yaml.Node, mapped []string) error {
	const name, macro = "SYSTEM_ACCESSTOKEN", "$(System.AccessToken)"
	if k, v := find(env, name); k != nil {
		if !strings.EqualFold(text(v), macro) {
			return no(v, "the step has another %s", name)
		}
		return f.dropEntries(envKey, env, mapped...)
	}
	if len(mapped) > 0 {
		k, v := find(env, mapped[0])
		return firstError(f.setEntry(k, v, name, macro), f.dropEntries(envKey, env, mapped[1:]...))
	}
	if env != nil {
		return f.addIndented(env.Content[0], name+": "+macro)
	}
	// env: goes before the script's key, unless that has the dash.
	at, dashed, err := f.keyLine(key)
	switch {
	case err != nil:
		return err
	case !dashed:
		return f.addIndented(key, "env:", "  "+name+": "+macro)
	}
	in := strings.Repeat(" ", key.Column-1)
	end := at + 1
	for end < len(f.text) && (strings.TrimSpace(f.text[end]) == "" || strings.HasPrefix(f.text[end], in+" ")) {
		end++
	}
	for end > at+1 && strings.TrimSpace(f.text[end-1]) == "" {
		end--
	}
	f.edits.put(end, end, in+"env:", in+"  "+name+": "+macro)
	return nil
}
