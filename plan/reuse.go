package plan

import (
	"fmt"
	"path"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/trust"
)

// Reuse is a trust of the scanned files that takes the item's jobs already:
// nothing new has to be set up at the target.
type Reuse struct {
	// Trust is its id in the inventory, Target what it opens: a role, a service account.
	Trust  string `json:"trust"`
	Target string `json:"target"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	// Gives are the permissions that come with it, as far as the files say.
	Gives []string `json:"gives,omitempty"`
	// Broad is true when it takes other branches of the repository, too.
	Broad bool `json:"broad"`
}

// where says in which file a trust stands.
func (r *Reuse) where() string { return fmt.Sprintf("%s:%d", oneLine(r.File), r.Line) }

// reusable are the kinds of trust that stand for a method's own.
var reusable = map[string]trust.Kind{"aws": trust.AWSRole, "gcp": trust.GCPBinding, "azure": trust.AzureCredential, "vault": trust.VaultRole}

// reuse looks for the one trust that takes all of the item's jobs, and nobody of
// another repository. Several are a choice that no file makes: they are named,
// and the item keeps a trust of its own.
func (d *draft) reuse() {
	kind, ok := reusable[d.method.name]
	if !ok || d.item.Via != ViaDirect || len(d.trusts) == 0 || len(d.strangers) > 0 || d.repo.name == "" {
		return
	}
	f := d.federation()
	var found []*Reuse
	for _, t := range d.p.trees {
		for i := range t.Inventory.Trusts {
			tr := &t.Inventory.Trusts[i]
			if tr.Kind != kind || !sameIssuer(tr, f.url) || !d.takes(tr, f, d.item.Repository) {
				continue
			}
			if d.takes(tr, f, d.repo.owner()+"/another-repository-of-theirs") {
				d.note("%s (%s:%d) takes these jobs already, and those of other repositories too: narrow it, and plan again to use it.", oneLine(tr.Target.Name), oneLine(tr.File), tr.Line)
				continue
			}
			r := &Reuse{Trust: tr.ID, Target: tr.Target.Name, File: tr.File, Line: tr.Line, Gives: tr.Gives}
			if len(d.p.trees) > 1 {
				r.File = path.Join(t.Inventory.Root, tr.File)
			}
			r.Broad = tr.Accepts(d.shown(tr, f, d.item.Repository, subject{"branch", "a-branch-of-nobodys", true})).Answer == trust.Yes
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		d.item.Reuse = found[0]
	case len(found) > 1:
		var names []string
		for _, r := range found {
			names = append(names, oneLine(r.Target)+" ("+r.where()+")")
		}
		d.note("These take the jobs already: %s. Where one of them has the rights, use it in place of the trust that this plan writes.", strings.Join(names, ", "))
	}
}

func sameIssuer(t *trust.Trust, url string) bool {
	norm := func(s string) string { return strings.TrimSuffix(strings.ToLower(s), "/") }
	return t.Issuer != "" && norm(t.Issuer) == norm(url)
}

// takes reports whether a trust takes every subject of the item, as if it were of a repository.
func (d *draft) takes(t *trust.Trust, f *federation, repository string) bool {
	for _, s := range d.trusts {
		if !s.exact { // a trust of one such name is none of all of them
			s.name = strings.ReplaceAll(s.name, "*", "any-of-these")
		}
		if t.Accepts(d.shown(t, f, repository, s)).Answer != trust.Yes {
			return false
		}
	}
	return true
}

// shown is what a job of a repository shows to a target.
func (d *draft) shown(t *trust.Trust, f *federation, repository string, s subject) trust.Identity {
	owner, name, _ := strings.Cut(repository, "/")
	id := trust.Identity{Issuer: f.url, Audiences: []string{f.audience}, Claims: make(map[string][]string)}
	switch {
	case d.method.name == "azure":
		id.Audiences = []string{entraAudience}
	case d.method.name != "aws":
		id.Audiences = t.Audiences // the job asks for the one that the target wants
	}
	for _, c := range []string{"repository_id", "repository_owner_id", "project_id", "namespace_id"} {
		if id.Claims[c] = []string{"*"}; repository != d.item.Repository {
			id.Claims[c] = []string{"another"}
		}
	}
	ref := strings.TrimPrefix(s.claim(), "ref:")
	if s.kind == "environment" {
		id.Claims["environment"] = []string{s.name}
		ref = "refs/heads/" + d.repo.branch
	} else {
		id.Absent = []string{"environment"}
	}
	id.Claims["ref"] = []string{ref}
	if d.item.CI == inventory.GitLab {
		kind, short := s.kind, strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
		if kind == "environment" {
			kind = "branch"
		}
		id.Claims["sub"] = []string{"project_path:" + repository + ":ref_type:" + kind + ":ref:" + short}
		id.Claims["project_path"], id.Claims["namespace_path"] = []string{repository}, []string{path.Dir(repository)}
		id.Claims["ref"], id.Claims["ref_type"] = []string{short}, []string{kind}
		return id
	}
	// Which of the two forms of the subject the repository has, no file tells: either may be the one.
	id.Claims["sub"] = []string{"repo:" + repository + ":" + s.claim(), "repo:" + owner + "@*/" + name + "@*:" + s.claim()}
	id.Claims["repository"], id.Claims["repository_owner"] = []string{repository}, []string{owner}
	return id
}

// already says that a target of a kind trusts an issuer by the scanned files, "" when none does.
func (p *planner) already(kind trust.Kind, url string) string {
	for _, t := range p.trees {
		for i := range t.Inventory.Trusts {
			if tr := &t.Inventory.Trusts[i]; tr.Kind == kind && sameIssuer(tr, url) {
				return fmt.Sprintf("; %s:%d trusts this issuer already: where that is the same target, leave these files out and name what is there", oneLine(tr.File), tr.Line)
			}
		}
	}
	return ""
}

// useExisting says in place of a new trust which one there is.
func (d *draft) useExisting() {
	r := d.item.Reuse
	d.item.Trust = &Trust{Summary: "There is one already: " + oneLine(r.Target) + " (" + r.where() + ") takes " + d.who() + ".", Files: []string{}}
	gives := "What it gives, the files don't say"
	if len(r.Gives) > 0 {
		var list []string
		for _, g := range r.Gives {
			list = append(list, oneLine(g))
		}
		gives = "It gives " + strings.Join(list, ", ")
	}
	d.item.Prepare = append(d.item.Prepare, Step{Do: gives + ": compare with what the old credential may do, and add what the jobs need."})
	if r.Broad {
		d.note("%s (%s) takes other branches of the repository too: name those of these jobs in it.", oneLine(r.Target), r.where())
	}
}
