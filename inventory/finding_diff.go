package inventory

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Diff is what changed since an earlier inventory. Ids don't hold lines, so a
// file that only moved its lines has no differences.
type Diff struct {
	// Paths and Findings that are new, by id: they stand in the document itself.
	NewPaths    []string `json:"new_paths"`
	NewFindings []string `json:"new_findings"`
	// GonePaths and GoneFindings were in the earlier document only.
	GonePaths    []Path    `json:"gone_paths"`
	GoneFindings []Finding `json:"gone_findings"`
	// ChangedPaths are there in both, with another reach, runner, permission or way.
	ChangedPaths []PathChange `json:"changed_paths"`
	// ChangedFindings are there in both, with another severity.
	ChangedFindings []FindingChange `json:"changed_findings"`
}

// PathChange is a path that is not what it was.
type PathChange struct {
	ID string `json:"id"`
	// Was holds what changed, as it was: "trust", "events", "environment",
	// "runner", "permission", "exposed_via", "nature", "source". Another line is no change.
	Was map[string]string `json:"was"`
}

// FindingChange is a finding that is more or less severe than it was.
type FindingChange struct {
	ID  string   `json:"id"`
	Was Severity `json:"was"`
}

// Parse reads an inventory that was written as JSON. name is for messages.
func Parse(name string, data []byte) (*Inventory, error) {
	var inv Inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("%s is not an inventory: %w", name, err)
	}
	if inv.Version != Version {
		return nil, fmt.Errorf("%s has version %d; this proviso reads version %d: scan the earlier commit again", name, inv.Version, Version)
	}
	return &inv, nil
}

// Compare compares with an earlier inventory. Findings that were set aside then
// or are now count as they stand in the two documents.
func (inv *Inventory) Compare(old *Inventory) *Diff {
	d := &Diff{NewPaths: []string{}, NewFindings: []string{}, GonePaths: []Path{}, GoneFindings: []Finding{}, ChangedPaths: []PathChange{}, ChangedFindings: []FindingChange{}}
	was := make(map[string]*Path, len(old.Paths))
	for i := range old.Paths {
		was[old.Paths[i].ID] = &old.Paths[i]
	}
	now := make(map[string]bool, len(inv.Paths))
	for i := range inv.Paths {
		p := &inv.Paths[i]
		now[p.ID] = true
		if o := was[p.ID]; o == nil {
			d.NewPaths = append(d.NewPaths, p.ID)
		} else if c := p.changedFrom(o); len(c) > 0 {
			d.ChangedPaths = append(d.ChangedPaths, PathChange{p.ID, c})
		}
	}
	for _, p := range old.Paths {
		if !now[p.ID] {
			d.GonePaths = append(d.GonePaths, p)
		}
	}
	d.findings(inv.Findings, old.Findings)
	return d
}

// findings compares the findings.
func (d *Diff) findings(list, old []Finding) {
	was := make(map[string]Severity, len(old))
	for _, f := range old {
		was[f.ID] = f.Severity
	}
	now := make(map[string]bool, len(list))
	for _, f := range list {
		now[f.ID] = true
		if sev, ok := was[f.ID]; !ok {
			d.NewFindings = append(d.NewFindings, f.ID)
		} else if sev != f.Severity {
			d.ChangedFindings = append(d.ChangedFindings, FindingChange{f.ID, sev})
		}
	}
	for _, f := range old {
		if !now[f.ID] {
			d.GoneFindings = append(d.GoneFindings, f)
		}
	}
}

// changedFrom gives what a path was where it is something else now.
func (p *Path) changedFrom(o *Path) map[string]string {
	out := make(map[string]string)
	note := func(name, was, is string) {
		if was != is {
			out[name] = was
		}
	}
	events := func(r Reach) string { return strings.Join(slices.Sorted(slices.Values(r.Events)), ", ") }
	note("trust", string(o.Reach.Trust), string(p.Reach.Trust))
	note("events", events(o.Reach), events(p.Reach))
	note("environment", o.Reach.Environment, p.Reach.Environment)
	note("runner", o.Runner.Kind, p.Runner.Kind)
	note("permission", o.Permission, p.Permission)
	note("exposed_via", o.ExposedVia, p.ExposedVia)
	note("nature", string(o.Credential.Nature), string(p.Credential.Nature))
	note("source", o.Credential.Source, p.Credential.Source)
	return out
}

// IsNew reports whether a finding was not there before, or was less severe.
func (d *Diff) IsNew(f *Finding) bool {
	if slices.Contains(d.NewFindings, f.ID) {
		return true
	}
	return slices.ContainsFunc(d.ChangedFindings, func(c FindingChange) bool { return c.ID == f.ID && f.Severity.rank() > c.Was.rank() })
}

// Empty reports whether nothing changed.
func (d *Diff) Empty() bool {
	return len(d.NewPaths)+len(d.NewFindings)+len(d.GonePaths)+len(d.GoneFindings)+len(d.ChangedPaths)+len(d.ChangedFindings) == 0
}

// CountAtLeast counts the findings that are at least as severe as asked; after
// a comparison only those that are new or have become worse.
func (inv *Inventory) CountAtLeast(s Severity) int {
	n := 0
	for i := range inv.Findings {
		f := &inv.Findings[i]
		if f.Severity.AtLeast(s) && (inv.Since == nil || inv.Since.IsNew(f)) {
			n++
		}
	}
	return n
}
