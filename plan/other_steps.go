package plan

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// bitbucketFile is a bitbucket-pipelines.yml.
type bitbucketFile struct{ *doc }

func (f bitbucketFile) change(id string, d *draft) error {
	step, err := f.step(id, d)
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

// step finds the one mapping that holds the script of a job. It can be an anchor
// that several steps stand for: all of them have to be the item's.
func (f bitbucketFile) step(id string, d *draft) (*yaml.Node, error) {
	pipelines := value(f.root, "pipelines")
	users := make(map[*yaml.Node][]string) // the names under which each script runs
	var held []*yaml.Node
	walkSteps(pipelines, "", 0, func(pipeline string, n *yaml.Node) {
		own, name := deref(n), ""
		for _, from := range append([]*yaml.Node{own}, merged(own)...) {
			if name == "" {
				name = text(value(from, "name"))
			}
		}
		if name == "" {
			name = pipeline
		}
		holder := own
		for _, from := range merged(own) {
			if value(holder, "script") == nil {
				holder = from
			}
		}
		users[holder] = append(users[holder], name)
		if name == id && !slices.Contains(held, holder) {
			held = append(held, holder)
		}
	})
	held = slices.DeleteFunc(held, func(n *yaml.Node) bool {
		return len(held) > 1 && len(usedIn(n, d.item.Secrets)) == 0
	})
	switch {
	case len(held) == 0:
		return nil, no(pipelines, "the step %s is not in this file itself", oneLine(id))
	case len(held) > 1:
		return nil, no(held[1], "there are several steps of the name %s", oneLine(id))
	}
	for _, name := range users[held[0]] {
		if err := d.mine(name); err != nil {
			return nil, no(held[0], "the step %s has the same script, which the patch would change: %s", oneLine(name), err.Error())
		}
	}
	if held[0].Style&yaml.FlowStyle != 0 || len(merged(held[0])) > 0 {
		return nil, no(held[0], "the step is not written as one key a line, without entries of an anchor")
	}
	return held[0], nil
}

// walkSteps visits the steps of pipelines, with the name that a step without one has.
func walkSteps(n *yaml.Node, name string, depth int, visit func(name string, step *yaml.Node)) {
	if n = deref(n); n == nil || depth > 20 {
		return
	}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i].Value; key {
		case "step":
			visit(name, n.Content[i+1])
		case "parallel", "steps", "stage", "stages":
			walkSteps(n.Content[i+1], name, depth+1, visit)
		default:
			walkSteps(n.Content[i+1], key, depth+1, visit)
		}
	}
	for i := 0; n.Kind == yaml.SequenceNode && i < len(n.Content); i++ {
		walkSteps(n.Content[i], name, depth+1, visit)
	}
}

// merged are the mappings that one takes entries from (<<).
func merged(n *yaml.Node) (out []*yaml.Node) {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "<<" {
			if v := deref(n.Content[i+1]); v.Kind == yaml.MappingNode {
				out = append(out, v)
			}
		}
	}
	return out
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
	}
	entry := []string{"oidc: true"}
	if aud != "" {
		entry = []string{"oidc:", "  audiences:", "    - " + aud}
	}
	if first := k0(step); first.Value != "script" {
		return f.addEntry(first, entry...)
	}
	return f.addIndented(k0(step), entry...)
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
