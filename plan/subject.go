package plan

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/inventory"
)

// subject is what a target may trust of a repository: one environment, one
// branch, or tags. The narrowest that all runs of a job share is taken.
type subject struct {
	kind  string // "environment", "branch", "tag"
	name  string
	exact bool // false: name is a pattern with *
}

// claim is the tail of GitHub's sub.
func (s subject) claim() string {
	switch s.kind {
	case "environment":
		return "environment:" + strings.ReplaceAll(s.name, ":", "%3A")
	case "tag":
		return "ref:refs/tags/" + s.name
	}
	return "ref:refs/heads/" + s.name
}

// say names it in a sentence.
func (s subject) say() string { return s.kind + " " + oneLine(s.name) }

// safeRef is what may stand in a trust policy: no wildcard of any target's, no quote.
func safeRef(s string) bool {
	return s != "" && len(s) <= 200 && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./+@ ", r)
	}) < 0
}

// subjects finds what the target has to trust so that the item's jobs get in, and no others.
func (d *draft) subjects() {
	if bySubject(d.item.CI) { // the token names the job or the account, and no branch
		return
	}
	add := func(s subject) {
		if !slices.Contains(d.trusts, s) {
			d.trusts = append(d.trusts, s)
		}
	}
	known := make(map[job]bool)
	for _, j := range d.jobs() {
		var env string
		var events []string
		for _, p := range d.group.paths {
			if p.File == j.file && p.Job == j.id {
				env, events = p.Reach.Environment, p.Reach.Events
			}
		}
		switch {
		case env != "" && safeRef(env):
			add(subject{"environment", env, true})
			known[j] = true
			continue
		case env != "":
			d.note("The environment of job %s has a name that only a run can tell or that no trust policy should hold: add it by hand.", oneLine(j.id))
			continue
		}
		for _, s := range d.refs(j, events) {
			add(s)
			known[j] = true
		}
	}
	for _, j := range d.jobs() {
		if !known[j] {
			d.strangers = append(d.strangers, j)
		}
	}
	slices.SortFunc(d.trusts, func(a, b subject) int { return strings.Compare(a.kind+a.name, b.kind+b.name) })
	if d.item.Reach == inventory.ForkReachable && d.item.Via == ViaDirect {
		d.note("An outsider can start this job, and its identity looks like one of the branch %s. The target can't tell; Proviso can (identity.event). Change the trigger first, or use --route proviso.", oneLine(d.repo.branch))
	}
}

// refs gives the branches and tags on which a job runs by its triggers.
func (d *draft) refs(j job, events []string) (out []subject) {
	on := d.triggers(j.file)
	home := subject{"branch", d.repo.branch, true}
	list := func(m *yaml.Node, key, kind string) bool {
		v := value(m, key)
		if v == nil {
			return false
		}
		walkScalars(v, 0, func(n *yaml.Node) {
			name := n.Value
			switch {
			case strings.HasPrefix(name, "!"):
			case safeRef(name):
				out = append(out, subject{kind, name, true})
			case safeRef(strings.TrimRight(name, "*")) && !strings.ContainsAny(strings.TrimRight(name, "*"), "*?[]!+"):
				out = append(out, subject{kind, strings.TrimRight(name, "*") + "*", false})
				d.note("%s %s of %s is a pattern: whoever can push such a name gets the credential. Protect the names by a ruleset, or give the job an environment.", strings.ToUpper(kind[:1])+kind[1:], oneLine(name), oneLine(j.file))
			default:
				d.note("%s %s of %s is a pattern that no target can express: runs on it will be refused until you name them.", strings.ToUpper(kind[:1])+kind[1:], oneLine(name), oneLine(j.file))
			}
		})
		return true
	}
	for _, e := range events {
		switch e {
		case "push":
			m := deref(value(on, "push"))
			branches, tags := list(m, "branches", "branch"), list(m, "tags", "tag")
			if !branches && !tags {
				out = append(out, home)
				d.note("Job %s runs on every branch, and only %s is trusted: on the others its new step is refused. Limit the trigger, or name the branches.", oneLine(j.id), oneLine(home.name))
			}
		case "release":
			out = append(out, subject{"tag", "*", false})
			d.note("Job %s runs on releases, whose tags have any name: give it an environment, so that the trust is exact.", oneLine(j.id))
		case "pull_request":
			d.note("Pull requests are left out: a run of one could use the credential before anybody has looked at its code.")
		default:
			out = append(out, home)
		}
	}
	if len(events) == 0 {
		out = append(out, home)
	}
	return out
}

// triggers gives the "on" of a workflow, nil when it has none or can't be read.
func (d *draft) triggers(file string) *yaml.Node {
	text, err := d.p.read(d.repo.tree, file)
	if err != nil {
		return nil
	}
	doc, err := parseDoc(text)
	if err != nil {
		return nil
	}
	if on := value(doc.root, "on"); on != nil {
		return deref(on)
	}
	return deref(value(doc.root, "true"))
}
