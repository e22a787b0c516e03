package inventory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

// The rules about trusts look at a document, not at a file: a trust and the
// jobs that can use it may stand in different repositories. trustRules lists
// them; each has its check in a file of its own.

// trustRule is a rule over one trust, with the jobs that can use it.
type trustCheck func(*trustView)

// trustView is what a rule about trusts sees.
type trustView struct {
	inv    *Inventory
	t      *trust.Trust
	bounds trust.Bounds
	// edges are those of the trust, paths their access paths.
	edges []*Edge
	cut   map[string]bool // trusts of which edges were left out
	paths map[string]*Path
	// named are the edges of each path that name their target; trusts are all, by id; slugs are the repositories of the scan.
	named  map[string][]*Edge
	trusts map[string]*trust.Trust
	slugs  []string
	jobs   []*federatedJob
	rule   *Rule
	found  *[]Finding
}

// trustRules are the rules about trusts, in the order of the documentation.
func trustRules() []Rule {
	return []Rule{
		ruleTrustForks,
		ruleTrustAnyone,
		ruleTrustOpenPattern,
		ruleTrustAbsent,
		ruleTrustOwner,
		ruleTrustAnyRef,
		ruleTrustPullRequests,
		ruleTrustAudience,
		ruleTrustOldSubject,
		ruleTrustByName,
		ruleTrustRefuses,
		ruleTrustUnused,
	}
}

// trustChecks are the checks of the rules, by their names.
func trustChecks() map[string]trustCheck {
	return map[string]trustCheck{
		ruleTrustForks.Name:        checkTrustForks,
		ruleTrustAnyone.Name:       checkTrustAnyone,
		ruleTrustOpenPattern.Name:  checkTrustOpenPattern,
		ruleTrustAbsent.Name:       checkTrustAbsent,
		ruleTrustOwner.Name:        checkTrustOwner,
		ruleTrustAnyRef.Name:       checkTrustAnyRef,
		ruleTrustPullRequests.Name: checkTrustPullRequests,
		ruleTrustAudience.Name:     checkTrustAudience,
		ruleTrustOldSubject.Name:   checkTrustOldSubject,
		ruleTrustByName.Name:       checkTrustByName,
		ruleTrustRefuses.Name:      checkTrustRefuses,
		ruleTrustUnused.Name:       checkTrustUnused,
	}
}

// trustFindings runs the rules over all trusts. cut are those of which edges were left out.
func (inv *Inventory) trustFindings(jobs []*federatedJob, cut map[string]bool) {
	paths := make(map[string]*Path, len(inv.Paths))
	for i := range inv.Paths {
		paths[inv.Paths[i].ID] = &inv.Paths[i]
	}
	edges, named := make(map[string][]*Edge), make(map[string][]*Edge)
	for i := range inv.Edges {
		e := &inv.Edges[i]
		edges[e.Trust] = append(edges[e.Trust], e)
		if e.Named {
			named[e.Path] = append(named[e.Path], e)
		}
	}
	trusts := make(map[string]*trust.Trust, len(inv.Trusts))
	for i := range inv.Trusts {
		trusts[inv.Trusts[i].ID] = &inv.Trusts[i]
	}
	var slugs []string
	for i := range inv.Paths {
		if s := inv.Paths[i].Repository; s != "" && (len(slugs) == 0 || slugs[len(slugs)-1] != s) {
			slugs = append(slugs, s)
		}
	}
	slices.Sort(slugs)
	slugs = slices.Compact(slugs)
	checks := trustChecks()
	var found []Finding
	for i := range inv.Trusts {
		t := &inv.Trusts[i]
		v := &trustView{inv: inv, t: t, bounds: t.Bounds(), edges: edges[t.ID], cut: cut, paths: paths, jobs: jobs, found: &found, named: named, trusts: trusts, slugs: slugs}
		for _, r := range trustRules() {
			v.rule = &r
			checks[r.Name](v)
		}
	}
	seen := make(map[string]int)
	for i := range found {
		id := found[i].ID
		if seen[id]++; seen[id] > 1 {
			found[i].ID = stableID("finding", id, fmt.Sprint(seen[id]))
		}
	}
	inv.Findings = append(inv.Findings, found...)
}

// weight gives how much the target of the trust is worth.
func (v *trustView) weight() weight { return weightOf(&Path{Resource: Resource{v.t.Target.Kind, ""}}) }

// report records a finding at a line of the trust.
func (v *trustView) report(line int, sev Severity, about, message, fix string) {
	f := Finding{
		ID:   stableID("finding", v.rule.Name, v.t.File, v.t.Target.Kind, v.t.Target.Name, about),
		Rule: v.rule.Name, Severity: sev, File: v.t.File, Line: max(line, 1),
		Message: oneParagraph(message), Fix: oneParagraph(fix), References: slices.Clone(v.rule.References),
	}
	for _, e := range v.edges {
		if e.Can != trust.No && len(f.Paths) < 20 {
			f.Paths = append(f.Paths, e.Path)
		}
	}
	*v.found = append(*v.found, f)
}

// name names the target of the trust in a sentence.
func (v *trustView) name() string {
	name := v.t.Target.Name
	switch v.t.Kind {
	case trust.AWSRole:
		return "The role " + name
	case trust.GCPProvider:
		return "The provider " + lastOf(name) + " of the pool " + strings.TrimSuffix(strings.TrimPrefix(name, "workloadIdentityPools/"), "/providers/"+lastOf(name))
	case trust.GCPBinding:
		return "The binding of " + name + " (" + strings.Join(v.t.Gives, ", ") + ")"
	case trust.AzureCredential:
		return "The federated credential (" + name + ")"
	case trust.VaultRole:
		return "The Vault role " + name
	case trust.OctoSTS:
		return "The octo-sts identity " + name
	case trust.Kubernetes:
		return strings.ToUpper(name[:1]) + name[1:]
	case trust.KubernetesRole:
		return "The binding of the " + name
	case trust.ProvisoGrant:
		return "The grant " + name
	}
	return name
}

// users names the jobs that can use the trust, for the end of a sentence.
func (v *trustView) users() string {
	var jobs []string
	for _, e := range v.edges {
		if p := v.paths[e.Path]; p != nil && e.Can == trust.Yes {
			jobs = append(jobs, p.Job)
		}
	}
	if len(jobs) == 0 {
		return ""
	}
	slices.Sort(jobs)
	jobs = slices.Compact(jobs)
	return " Here, " + verb(len(jobs), "job ", "jobs ") + listOf(jobs) + " can use it."
}

// at gives the line of a condition in the file of the trust.
func (v *trustView) at(c *trust.Condition) int {
	if c.Inherited {
		return v.t.Line
	}
	return c.Line
}

// values joins the values of a condition for a sentence.
func values(c *trust.Condition) string { return listOf(c.Values) }

// authenticatesOnly reports whether the trust lets nobody do anything by itself: a binding, which is looked at by itself, has to follow.
func (v *trustView) authenticatesOnly() bool {
	if v.t.Kind == trust.Kubernetes {
		return true
	}
	if v.t.Kind != trust.GCPProvider {
		return false
	}
	pool, _, _ := strings.Cut(strings.TrimPrefix(v.t.Target.Name, "workloadIdentityPools/"), "/providers/")
	return slices.ContainsFunc(v.inv.Trusts, func(o trust.Trust) bool { return o.Kind == trust.GCPBinding && o.PoolID == pool })
}
