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
		commands, why := d.fetchCommands(allText(script.list))
		err = firstError(why, script.before(at, commands...))
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
