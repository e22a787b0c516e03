package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// buildkiteFile is a pipeline of Buildkite's.
type buildkiteFile struct{ *doc }

// usePlugin exchanges the job's identity token for the role before the command runs.
const usePlugin = "aws-assume-role-with-web-identity#v1.4.0"

func (f buildkiteFile) change(id string, d *draft) error {
	var found []*yaml.Node
	walkNodes(value(f.root, "steps"), 0, func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode && (text(value(n, "label")) == id || value(n, "label") == nil && text(value(n, "key")) == id) {
			found = append(found, n)
		}
	})
	if len(found) != 1 {
		return no(f.root, "there is not exactly one step %s in this file itself", oneLine(id))
	}
	step := found[0]
	if err := f.block(step, "the step"); err != nil {
		return err
	}
	if d.method.name == "aws" && !d.through() {
		return f.aws(step, d)
	}
	return f.commands(step, d)
}

// aws lets the plugin assume the role in the place of the step's keys.
func (f buildkiteFile) aws(step *yaml.Node, d *draft) error {
	for _, k := range usedIn(step, d.item.Secrets) {
		if k != "env" {
			return no(value(step, k), "the secret is used in %s", oneLine(k))
		}
	}
	key, env := find(step, "env")
	if env == nil || slices.ContainsFunc([]string{"command", "commands"}, func(k string) bool {
		return value(step, k) != nil && namesKey(value(step, k), nil)
	}) {
		return no(step, "the key is not in the step's own env, or a command names it")
	}
	if err := f.dropEntries(key, env, awsKeyNames...); err != nil {
		return err
	}
	role := d.role()
	entry := []string{"- " + usePlugin + ":", "    role-arn: " + role}
	pk, plugins := find(step, "plugins")
	if pk == nil {
		for i := range entry {
			entry[i] = "  " + entry[i]
		}
		return f.addIndented(key, append([]string{"plugins:"}, entry...)...)
	}
	list, err := f.script(step, "plugins")
	if err != nil {
		return err
	}
	line, blanks, err := list.dash(0)
	if err != nil {
		return no(plugins, "plugins is not written as one plugin a line")
	}
	for i := range entry {
		entry[i] = blanks + entry[i]
	}
	f.insertBefore(line, entry...)
	return nil
}

// escaped writes a shell's variables as a pipeline has them: what follows a single
// dollar is put in when the pipeline is uploaded.
func escaped(command string) string { return runtimeVariable.ReplaceAllString(command, "$$$$$1") }

var runtimeVariable = regexp.MustCompile(`\$([A-Za-z_{])`)

// contained finds plugins that run the command in a container of its own.
var contained = regexp.MustCompile(`(^|/)(docker|docker-compose|kubernetes)(#|$)`)

// commands puts a login, or the value, before what the step runs.
func (f buildkiteFile) commands(step *yaml.Node, d *draft) error {
	for _, p := range scalarKeys(value(step, "plugins")) {
		if contained.MatchString(p) {
			return no(value(step, "plugins"), "the command runs in a container (%s), where proviso and the agent's own token would have to be too", oneLine(p))
		}
	}
	for _, k := range usedIn(step, d.item.Secrets) {
		if !slices.Contains([]string{"env", "command", "commands"}, k) {
			return no(value(step, k), "the secret is used in %s", oneLine(k))
		}
	}
	var mapped []string
	envKey, env := find(step, "env")
	whole := regexp.MustCompile("^\\$?" + reference(d.item.Secrets) + "$")
	for i := 0; env != nil && i+1 < len(env.Content); i += 2 {
		switch v := text(env.Content[i+1]); {
		case whole.MatchString(v):
			mapped = append(mapped, env.Content[i].Value)
		case len(usedIn(&yaml.Node{Kind: yaml.MappingNode, Content: env.Content[i : i+2]}, d.item.Secrets)) > 0:
			return no(env.Content[i], "the secret is a part of a longer value")
		}
	}
	t, err := f.takeover(step, mapped, d)
	if err != nil {
		return err
	}
	if err := f.run(step, t, len(mapped) > 0); err != nil {
		return err
	}
	d.note("A dollar is written twice in the pipeline, because its upload takes one away: where it is uploaded with --no-interpolation, write one.")
	if len(mapped) == 0 {
		return nil
	}
	return f.dropEntries(envKey, env, mapped...)
}

// takeover is what becomes of the step's commands.
func (f buildkiteFile) takeover(step *yaml.Node, mapped []string, d *draft) (t *takeover, err error) {
	names := append(slices.Clone(mapped), d.item.Secrets...)
	switch {
	case d.method.fetch:
		if len(d.item.Secrets) != 1 {
			return nil, no(step, "two halves of one secret are not fetched together")
		}
		d.note(masksLittle)
		variables := mapped
		if len(variables) == 0 && variable(d.item.Secrets[0]).MatchString(allText(step)) {
			variables = d.item.Secrets
		}
		t = d.fetched(variables...)
		get := regexp.MustCompile(`"?\$\(buildkite-agent secret get "?` + regexp.QuoteMeta(d.item.Secrets[0]) + `"?\)"?`)
		t.change = func(c string) (string, bool) {
			return get.ReplaceAllLiteralString(c, `"$value"`), get.MatchString(c)
		}
	case d.logsIn() || d.method.name == "aws":
		for _, v := range mapped {
			if !slices.Contains(append(slices.Clone(handedOn), awsKeyNames...), v) && !variable(v).MatchString(allText(step)) {
				return nil, no(step, "the secret is handed on as %s", oneLine(v))
			}
		}
		if t, err = d.login("buildkite-agent oidc request-token --audience " + d.targetAudience()); err != nil {
			return nil, err
		}
		t.readFrom(d.method.name, names)
	default:
		return nil, no(step, "for Buildkite there are steps, and no patch, for this")
	}
	change := t.change
	t.change = func(c string) (string, bool) {
		with, ok := change(strings.ReplaceAll(c, "$$", "$"))
		return escaped(with), ok
	}
	for i, c := range t.before {
		t.before[i] = escaped(c)
	}
	return t, nil
}

// run changes the commands; all says that they need what comes before them even
// where none names the secret.
func (f buildkiteFile) run(step *yaml.Node, t *takeover, all bool) error {
	key, val := find(step, "command")
	if key == nil {
		key, val = find(step, "commands")
	}
	switch {
	case val == nil:
		return no(step, "the step has no command of its own")
	case val.Kind == yaml.ScalarNode:
		sh, err := f.shell(val, key.Column-1)
		if err != nil {
			return err
		}
		if all {
			return sh.force(t)
		}
		placed, err := sh.take(t, true)
		if err == nil && !placed {
			err = no(val, "no command of the step names the secret")
		}
		return err
	}
	list, err := f.script(step, key.Value)
	if err != nil {
		return err
	}
	if all {
		if err := list.before(0, t.before...); err != nil {
			return err
		}
	}
	placed, err := list.take(t, all)
	if err == nil && !placed {
		err = no(val, "no command of the step names the secret")
	}
	return err
}

// scalarKeys are the texts of a list, and the keys of its mappings.
func scalarKeys(n *yaml.Node) (out []string) {
	for i := 0; n != nil && i < len(n.Content); i++ {
		switch c := n.Content[i]; {
		case c.Kind == yaml.ScalarNode:
			out = append(out, c.Value)
		case c.Kind == yaml.MappingNode && len(c.Content) > 0:
			out = append(out, c.Content[0].Value)
		}
	}
	return out
}
