package plan

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// bitbucketFile is a bitbucket-pipelines.yml.
type bitbucketFile struct{ *doc }

func (f bitbucketFile) change(id string, d *draft) error {
	step, err := f.only(value(f.root, "pipelines"), "step", "name", id)
	if err != nil {
		return err
	}
	script, err := f.script(step, "script")
	if err != nil {
		return err
	}
	switch {
	case d.method.name == "aws":
		err = f.aws(script, d)
	case d.method.fetch:
		at := script.first(d.item.Secrets...)
		if at < 0 || len(d.item.Secrets) != 1 || script.list.Content[at].Kind != yaml.ScalarNode {
			return no(step, "the secret is not named in a command of the step")
		}
		err = script.before(at, d.fetchCommands()...)
	case d.logsIn():
		err = f.login(step, script, d)
	default:
		return no(step, "for Bitbucket there are steps, and no patch, for this")
	}
	if err != nil {
		return err
	}
	return f.oidc(step, d)
}

// oidc gives the step an identity token, with Proviso's audience where it is for Proviso.
func (f bitbucketFile) oidc(step *yaml.Node, d *draft) error {
	key, val := find(step, "oidc")
	aud := ""
	switch {
	case d.asks:
		aud = "$PROVISO_URL"
	case d.method.name == "vault":
		aud = d.audience()
	}
	switch {
	case key != nil && text(val) == "true" && aud == "":
		return nil
	case key != nil && aud != "" && isList(value(val, "audiences"), aud):
		return nil
	case key != nil:
		return no(key, "the step has an oidc setting already")
	case aud != "":
		return f.addEntry(k0(step), "oidc:", "  audiences:", "    - "+aud)
	}
	return f.addEntry(k0(step), "oidc: true")
}

// login puts the step's token in the place of the secret.
func (f bitbucketFile) login(step *yaml.Node, script *scriptList, d *draft) error {
	for _, n := range script.list.Content {
		if n.Kind != yaml.ScalarNode && len(usedIn(n, d.item.Secrets)) > 0 {
			return no(n, "the secret is used by a pipe")
		}
	}
	t, err := d.login(`printf '%s' "$BITBUCKET_STEP_OIDC_TOKEN"`)
	if err != nil {
		return err
	}
	placed, err := script.take(t, false)
	if err == nil && !placed {
		err = no(step, "the secret is not named in a command of the step")
	}
	return err
}

// isList reports whether a list holds exactly one text.
func isList(n *yaml.Node, only string) bool {
	return n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 1 && n.Content[0].Value == only
}

func (f bitbucketFile) aws(script *scriptList, d *draft) error {
	if err := script.drop(awsExport(d.item.Secrets)); err != nil {
		return err
	}
	first, done := -1, false
	for i, n := range script.list.Content {
		switch {
		case n.Kind == yaml.MappingNode && value(n, "pipe") != nil:
			k, vars := find(n, "variables")
			if vars == nil || len(usedIn(vars, d.item.Secrets)) == 0 {
				continue
			}
			if d.through() {
				return no(n, "a pipe takes Bitbucket's own token only")
			}
			key, val := find(vars, "AWS_ACCESS_KEY_ID")
			if key == nil || !strings.HasPrefix(text(value(n, "pipe")), "atlassian/aws-") {
				return no(n, "the pipe is not known to take a role")
			}
			role := d.role()
			if err := firstError(f.setEntry(key, val, "AWS_OIDC_ROLE_ARN", role), f.dropEntries(k, vars, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")); err != nil {
				return err
			}
			done = true
		case awsExport(d.item.Secrets).MatchString(strings.TrimSpace(n.Value)):
			if first < 0 {
				first = i
			}
		case namesKey(n, d.item.Secrets):
			return no(n, "a command names the variables of the key itself; with a role there is a session token beside them, which has to go along")
		}
	}
	if first >= 0 {
		return script.before(first, d.awsCommands("$BITBUCKET_STEP_OIDC_TOKEN")...)
	}
	if !done {
		return no(script.key, "the key is read from a variable that no command names")
	}
	return nil
}

// only finds the one mapping below a key whose entry has a value.
func (d *doc) only(n *yaml.Node, key, entry, want string) (*yaml.Node, error) {
	var found []*yaml.Node
	var walk func(n *yaml.Node, depth int)
	walk = func(n *yaml.Node, depth int) {
		if n == nil || depth > 50 {
			return
		}
		if n.Kind == yaml.MappingNode {
			if v := value(n, key); v != nil && text(value(deref(v), entry)) == want {
				found = append(found, v)
			}
		}
		for _, c := range n.Content {
			walk(c, depth+1)
		}
	}
	walk(n, 0)
	switch {
	case len(found) == 0:
		return nil, no(n, "the %s %s is not in this file itself", key, oneLine(want))
	case len(found) > 1:
		return nil, no(found[1], "there are several steps of the name %s", oneLine(want))
	}
	return found[0], d.block(found[0], "the step")
}

// circleFile is a .circleci/config.yml.
type circleFile struct{ *doc }

func (f circleFile) change(id string, d *draft) error {
	_, node := find(value(f.root, "jobs"), id)
	if node == nil {
		return no(f.root, "the job %s is not in this file itself, or has another name where it is invoked", oneLine(id))
	}
	if err := f.block(node, "the job"); err != nil {
		return err
	}
	steps, err := f.script(node, "steps")
	if err != nil {
		return err
	}
	for _, k := range usedIn(node, d.item.Secrets) {
		if k != "steps" {
			return no(value(node, k), "the secret is used in %s", oneLine(k))
		}
	}
	if d.method.fetch {
		return f.fetch(node, steps, d)
	}
	if d.logsIn() {
		return f.login(steps, d)
	}
	if d.method.name != "aws" {
		return no(node, "for CircleCI there are steps, and no patch, for this")
	}
	return f.aws(steps, d)
}

// fetch puts the commands before those of each step that uses the secret, so
// that no other step of the job has the value.
func (f circleFile) fetch(node *yaml.Node, steps *scriptList, d *draft) error {
	done := false
	for _, st := range steps.list.Content {
		if len(usedIn(st, d.item.Secrets)) == 0 {
			continue
		}
		key, val := find(st, "run")
		if val != nil && val.Kind == yaml.MappingNode {
			for _, k := range usedIn(val, d.item.Secrets) {
				if k != "command" {
					return no(value(val, k), "the secret is used in %s of a step", oneLine(k))
				}
			}
			key, val = find(val, "command")
		}
		if key == nil || len(d.item.Secrets) != 1 {
			return no(st, "the secret is used by a step that is no command")
		}
		if err := f.prefix(key, val, d.fetchCommands()); err != nil {
			return err
		}
		done = true
	}
	if !done {
		return no(node, "the secret is not named in the steps of the job")
	}
	return nil
}

// kept are variables that a login leaves for the steps behind it.
const kept = `export -p | grep -E '^(declare -x|export) (GOOGLE_APPLICATION_CREDENTIALS|CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE|AZURE_FEDERATED_TOKEN_FILE|ARM_USE_OIDC|ARM_OIDC_TOKEN_FILE_PATH|VAULT_TOKEN)=' >> "$BASH_ENV"`

// login logs in by a step of its own, before the first that used the secret.
func (f circleFile) login(steps *scriptList, d *draft) error {
	t, err := d.login(`circleci run oidc get --claims '{"aud": "` + d.targetAudience() + `"}'`)
	if err != nil {
		return err
	}
	first := -1
	for i, st := range steps.list.Content {
		if len(usedIn(st, d.item.Secrets)) == 0 {
			continue
		}
		key, val := find(st, "run")
		if val != nil && val.Kind == yaml.MappingNode {
			for _, k := range usedIn(val, d.item.Secrets) {
				if k != "command" {
					return no(value(val, k), "the secret is used in %s of a step", oneLine(k))
				}
			}
			key, val = find(val, "command")
		}
		if key == nil {
			return no(st, "the secret is used by a step that is no command")
		}
		sh, err := f.shell(val, key.Column-1)
		if err != nil {
			return err
		}
		if _, err := sh.take(t, false); err != nil {
			return err
		}
		if first < 0 {
			first = i
		}
	}
	if first < 0 {
		return no(steps.key, "the secret is not named in the steps of the job")
	}
	var commands []string
	for _, c := range t.before {
		if strings.HasPrefix(c, "trap ") {
			continue // the steps behind this one need the file
		}
		if strings.HasPrefix(c, "unset ") {
			commands = append(commands, "echo '"+c+`' >> "$BASH_ENV"`)
		}
		commands = append(commands, c)
	}
	return f.run(steps, first, "Log in as "+d.item.ID, append(commands, kept))
}

// prefix puts commands before those of a script.
func (d *doc) prefix(key, val *yaml.Node, commands []string) error {
	if val.Kind == yaml.ScalarNode && val.Style&yaml.LiteralStyle != 0 && val.Anchor == "" {
		for at := val.Line; at < len(d.text); at++ {
			if trim := strings.TrimLeft(d.text[at], " "); trim != "" {
				in := d.text[at][:len(d.text[at])-len(trim)]
				var out []string
				for _, c := range commands {
					out = append(out, in+c)
				}
				d.edits.put(at, at, out...)
				return nil
			}
		}
	}
	at, _, err := d.oneLineEntry(key, val)
	if err != nil {
		return err
	}
	in := strings.Repeat(" ", key.Column+1)
	out := []string{d.text[at][:key.Column-1] + key.Value + ": |"}
	for _, c := range append(commands, val.Value) {
		out = append(out, in+c)
	}
	d.edits.put(at, at+1, out...)
	return nil
}

// run inserts a step that runs commands.
func (f circleFile) run(steps *scriptList, before int, name string, commands []string) error {
	line, blanks, err := steps.dash(before)
	if err != nil {
		return err
	}
	out := []string{blanks + "- run:", blanks + "    name: " + name, blanks + "    command: |"}
	for _, c := range commands {
		out = append(out, blanks+"      "+c)
	}
	f.insertBefore(line, out...)
	return nil
}

func (f circleFile) aws(steps *scriptList, d *draft) error {
	first := -1
	for i, st := range steps.list.Content {
		if st.Kind != yaml.MappingNode || len(st.Content) < 2 {
			if namesKey(st, d.item.Secrets) {
				return no(st, "a command names the variables of the key itself; with a role there is a session token beside them, which has to go along")
			}
			continue
		}
		kind, body := st.Content[0], st.Content[1]
		k, env := find(body, "environment")
		switch {
		case strings.HasPrefix(kind.Value, "aws-cli/") && find1(body, "aws_access_key_id") != nil:
			if d.through() {
				return no(st, "the orb takes CircleCI's own token only")
			}
			role := d.role()
			key, val := find(body, "aws_access_key_id")
			return firstError(f.block(body, "the step"), f.setEntry(key, val, "role_arn", role), f.dropEntries(kind, body, "aws_secret_access_key"))
		case env != nil && len(usedIn(env, d.item.Secrets)) > 0:
			if err := f.dropEntries(k, env, awsKeyNames...); err != nil {
				return err
			}
			if first < 0 {
				first = i
			}
		case namesKey(st, d.item.Secrets):
			return no(st, "a step names the variables of the key itself; with a role there is a session token beside them, which has to go along")
		}
	}
	if first < 0 {
		return no(steps.key, "the key is read from a variable that no step names")
	}
	var commands []string
	for _, c := range d.awsCommands("$CIRCLE_OIDC_TOKEN_V2") {
		switch {
		case strings.HasPrefix(c, "trap "): // the steps behind this one need the file
		case strings.HasPrefix(c, "unset "), strings.HasPrefix(c, "export AWS_ROLE_ARN"):
			commands = append(commands, "echo '"+c+`' >> "$BASH_ENV"`)
		case strings.HasPrefix(c, "export "):
			commands = append(commands, `echo "export AWS_WEB_IDENTITY_TOKEN_FILE=$AWS_WEB_IDENTITY_TOKEN_FILE" >> "$BASH_ENV"`)
		default:
			commands = append(commands, c)
		}
	}
	return f.run(steps, first, "Assume the role of "+d.item.ID, commands)
}
