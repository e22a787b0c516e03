package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// circleFile is a .circleci/config.yml.
type circleFile struct{ *doc }

func (f circleFile) change(id string, d *draft) error {
	name, err := f.definition(id)
	if err != nil {
		return err
	}
	_, node := find(value(f.root, "jobs"), name)
	for _, other := range f.invocations(name) {
		if err := d.mine(other); err != nil {
			return no(node, "the job is invoked as %s too, which the patch would change: %s", oneLine(other), err.Error())
		}
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
		done, err := f.fetch(steps, d)
		if err == nil && !done {
			err = no(node, "the secret is not named in the steps of the job")
		}
		return err
	}
	if d.logsIn() {
		return f.login(steps, d)
	}
	if d.method.name != "aws" {
		return no(node, "for CircleCI there are steps, and no patch, for this")
	}
	return f.aws(steps, d)
}

// definition finds the job that is invoked by a name.
func (f circleFile) definition(id string) (string, error) {
	if _, node := find(value(f.root, "jobs"), id); node != nil {
		return id, nil
	}
	var jobs []string
	if jobNodes := value(f.root, "jobs"); jobNodes != nil {
		for i := 0; i < len(jobNodes.Content); i += 2 {
			jobs = append(jobs, jobNodes.Content[i].Value)
		}
	}
	for _, name := range jobs {
		if slices.Contains(f.invocations(name), id) {
			return name, nil
		}
	}
	return "", no(f.root, "the job %s is not in this file itself", oneLine(id))
}

// invocations are the names that the workflows give to a job.
func (f circleFile) invocations(job string) (out []string) {
	walkNodes(value(f.root, "workflows"), 0, func(n *yaml.Node) {
		list := value(n, "jobs")
		for i := 0; list != nil && i < len(list.Content); i++ {
			switch e := deref(list.Content[i]); {
			case text(e) == job:
				out = append(out, job)
			case e.Kind == yaml.MappingNode && len(e.Content) > 0 && e.Content[0].Value == job:
				name := text(value(deref(e.Content[1]), "name"))
				if name == "" {
					name = job
				}
				out = append(out, name)
			}
		}
	})
	return out
}

// fetch puts the commands before those of each step that uses the secret, so
// that no other step of the job has the value.
func (f circleFile) fetch(steps *scriptList, d *draft) (done bool, err error) {
	for _, st := range steps.list.Content {
		if inner, err := f.conditional(st); inner != nil || err != nil {
			if err == nil {
				var some bool
				some, err = f.fetch(inner, d)
				done = done || some
			}
			if err != nil {
				return false, err
			}
			continue
		}
		if len(usedIn(st, d.item.Secrets)) == 0 {
			shared, err := f.command(st, d)
			if err != nil {
				return false, err
			}
			done = done || shared
			continue
		}
		key, val := find(st, "run")
		if val != nil && val.Kind == yaml.MappingNode {
			for _, k := range usedIn(val, d.item.Secrets) {
				if k != "command" {
					return false, no(value(val, k), "the secret is used in %s of a step", oneLine(k))
				}
			}
			key, val = find(val, "command")
		}
		if key == nil || len(d.item.Secrets) != 1 {
			return false, no(st, "the secret is used by a step that is no command")
		}
		if handsOn(d.item.Secrets[0]).MatchString(text(val)) {
			return false, no(val, "the command hands the variable on to later steps by its name (BASH_ENV)")
		}
		commands, err := d.fetchCommands(text(val))
		if err == nil {
			err = f.prefix(key, val, commands)
		}
		if err != nil {
			return false, err
		}
		done = true
	}
	return done, nil
}

// handsOn finds a variable in single quotes that goes into the environment of later steps.
func handsOn(name string) *regexp.Regexp {
	return regexp.MustCompile(`'[^'\n]*\$\{?` + regexp.QuoteMeta(name) + `\b[^'\n]*'[^\n]*BASH_ENV`)
}

// conditional gives the steps below when or unless, nil when a step is none.
func (f circleFile) conditional(st *yaml.Node) (*scriptList, error) {
	for _, key := range []string{"when", "unless"} {
		if v := value(st, key); v != nil && value(v, "steps") != nil {
			if err := f.own(v, key); err != nil {
				return nil, err
			}
			return f.script(v, "steps")
		}
	}
	return nil, nil
}

// command changes the steps of a reusable command that a job's step names, where
// all that name it use the secret.
func (f circleFile) command(st *yaml.Node, d *draft) (done bool, err error) {
	name := text(st)
	if st.Kind == yaml.MappingNode && len(st.Content) > 0 {
		name = st.Content[0].Value
	}
	_, node := find(value(f.root, "commands"), name)
	if node == nil || len(usedIn(node, d.item.Secrets)) == 0 {
		return false, nil
	}
	for _, where := range []string{"jobs", "commands"} {
		all := value(f.root, where)
		for i := 0; all != nil && i+1 < len(all.Content); i += 2 {
			if !names(value(deref(all.Content[i+1]), "steps"), name) {
				continue
			}
			if where == "commands" {
				return false, no(node, "the command %s, which uses the secret, is a part of the command %s", oneLine(name), oneLine(all.Content[i].Value))
			}
			for _, other := range f.invocations(all.Content[i].Value) {
				if err := d.mine(other); err != nil {
					return false, no(node, "the command %s is used by the job %s too, which the patch would change: %s", oneLine(name), oneLine(other), err.Error())
				}
			}
		}
	}
	if err := f.block(node, "the command"); err != nil {
		return false, err
	}
	steps, err := f.script(node, "steps")
	if err != nil {
		return false, err
	}
	return f.fetch(steps, d)
}

// names reports whether a list of steps, or one below it, names a command.
func names(steps *yaml.Node, command string) (found bool) {
	walkNodes(steps, 0, func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			return
		}
		for _, c := range n.Content {
			c = deref(c)
			found = found || text(c) == command || c.Kind == yaml.MappingNode && len(c.Content) > 0 && c.Content[0].Value == command
		}
	})
	return found
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
