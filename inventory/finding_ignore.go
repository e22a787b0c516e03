package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Two files take findings out of the way. A baseline is a machine's list of
// what was there on the day of the introduction: it keeps old findings from
// failing a build, and has no reasons. An ignore is a person's decision: it
// names a finding, says why, and until when. An ignore that has expired
// ignores nothing, and what a file of ignores says wrongly is an error with
// its line: a typing mistake must not hide a finding, nor all of them.

// Suppressed is a finding that is known and was put aside.
type Suppressed struct {
	Finding
	// By is "baseline" or "ignore".
	By string `json:"by"`
	// Reason and Expires are those of the ignore.
	Reason  string `json:"reason,omitempty"`
	Expires string `json:"expires,omitempty"`
}

// Ignore is one decision. What is absent fits everything; Finding, or Rule and
// File, must be there.
type Ignore struct {
	// Finding is the id of one finding.
	Finding string
	// Rule is the name of a rule.
	Rule string
	// File is a path, or a pattern with * that doesn't cross a slash and ** that does.
	File string
	// Job is the exact name of a job.
	Job string
	// Reason says why it may stay.
	Reason string
	// Expires is the last day, as 2027-01-31.
	Expires time.Time
	// Line is the line in the file of ignores.
	Line int
}

// maxIgnoreYears bounds how far away the end of an ignore may be.
const maxIgnoreYears = 2

// ParseIgnores reads a file of ignores, in YAML:
//
//	ignore:
//	  - finding: finding-0123456789abcdef
//	    reason: the key is read-only and rotated each month, see OPS-12
//	    expires: 2027-01-31
//	  - rule: long-lived-secret
//	    file: legacy/**
//	    reason: ...
//	    expires: 2026-12-31
//
// name is for messages.
func ParseIgnores(name string, data []byte, now time.Time) ([]Ignore, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	fail := func(n *yaml.Node, format string, args ...any) error {
		return fmt.Errorf("%s:%d:%d: %s", name, n.Line, n.Column, fmt.Sprintf(format, args...))
	}
	if root.Kind != yaml.MappingNode {
		return nil, fail(root, "a mapping with the key ignore was expected")
	}
	var out []Ignore
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, list := root.Content[i], root.Content[i+1]
		if key.Value != "ignore" {
			return nil, fail(key, "the key %q is not known; write ignore", key.Value)
		}
		if list.Kind != yaml.SequenceNode {
			return nil, fail(list, "a list of ignores was expected")
		}
		for _, n := range list.Content {
			ig, err := parseIgnore(n, now, fail)
			if err != nil {
				return nil, err
			}
			out = append(out, ig)
		}
	}
	return out, nil
}

// parseIgnore reads one entry.
func parseIgnore(n *yaml.Node, now time.Time, fail func(*yaml.Node, string, ...any) error) (Ignore, error) {
	ig := Ignore{Line: n.Line}
	if n.Kind != yaml.MappingNode {
		return ig, fail(n, "an ignore is a mapping with finding (or rule and file), reason and expires")
	}
	texts := map[string]*string{"finding": &ig.Finding, "rule": &ig.Rule, "file": &ig.File, "job": &ig.Job, "reason": &ig.Reason}
	var expires string
	texts["expires"] = &expires
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		to, ok := texts[k.Value]
		if !ok {
			return ig, fail(k, "the key %q is not known; known are finding, rule, file, job, reason and expires", k.Value)
		}
		if v.Kind != yaml.ScalarNode || strings.TrimSpace(v.Value) == "" {
			return ig, fail(v, "%s needs a text", k.Value)
		}
		if *to != "" {
			return ig, fail(k, "%s is there twice", k.Value)
		}
		*to = strings.TrimSpace(v.Value)
	}
	switch {
	case ig.Finding == "" && (ig.Rule == "" || ig.File == ""):
		return ig, fail(n, "an ignore needs finding, or rule and file")
	case ig.Rule != "" && RuleOf(ig.Rule).What == "":
		return ig, fail(n, "there is no rule %q", ig.Rule)
	case ig.Reason == "":
		return ig, fail(n, "an ignore needs a reason: who reads it next year has to judge it")
	case expires == "":
		return ig, fail(n, "an ignore needs expires, as %s: what is accepted for ever belongs into the baseline", now.AddDate(0, 6, 0).Format(time.DateOnly))
	}
	day, err := time.ParseInLocation(time.DateOnly, expires, now.Location())
	if err != nil {
		return ig, fail(n, "expires is %q; write a day as %s", expires, now.AddDate(0, 6, 0).Format(time.DateOnly))
	}
	if day.After(now.AddDate(maxIgnoreYears, 0, 0)) {
		return ig, fail(n, "expires is more than %d years away", maxIgnoreYears)
	}
	ig.Expires = day
	return ig, nil
}

// expired reports whether the day of the ignore is over.
func (ig *Ignore) expired(now time.Time) bool { return !now.Before(ig.Expires.AddDate(0, 0, 1)) }

// fits reports whether a finding is meant.
func (ig *Ignore) fits(f *Finding) bool {
	return (ig.Finding == "" || ig.Finding == f.ID) && (ig.Rule == "" || ig.Rule == f.Rule) && (ig.Job == "" || ig.Job == f.Job) && (ig.File == "" || matchPath(ig.File, f.File))
}

// matchPath matches a path against a pattern with * within a segment and ** over segments.
func matchPath(pattern, name string) bool {
	return matchSegments(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

func matchSegments(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if matchSegments(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}

// Baseline is what a file of a baseline holds.
type Baseline struct {
	Version int `json:"version"`
	// Findings are the ids that are accepted, with what they were for people who read the file.
	Findings []BaselineEntry `json:"findings"`
}

// BaselineEntry is one accepted finding; only the id counts.
type BaselineEntry struct {
	ID   string `json:"id"`
	Rule string `json:"rule"`
	File string `json:"file"`
	Job  string `json:"job,omitempty"`
}

// BaselineOf accepts all findings of an inventory.
func BaselineOf(inv *Inventory) *Baseline {
	b := &Baseline{Version: Version, Findings: []BaselineEntry{}}
	for _, f := range inv.Findings {
		b.Findings = append(b.Findings, BaselineEntry{f.ID, f.Rule, f.File, f.Job})
	}
	slices.SortFunc(b.Findings, func(a, c BaselineEntry) int { return strings.Compare(a.ID, c.ID) })
	return b
}

// ParseBaseline reads a baseline.
func ParseBaseline(name string, data []byte) (*Baseline, error) {
	var b Baseline
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, fmt.Errorf("%s is not a baseline: %w", name, err)
	}
	if b.Version != Version {
		return nil, fmt.Errorf("%s has version %d; this proviso writes and reads version %d: write the baseline anew", name, b.Version, Version)
	}
	if b.Findings == nil {
		return nil, errors.New(name + " is not a baseline: it has no findings")
	}
	return &b, nil
}

// SetAside moves the findings that a baseline or an ignore names out of the
// inventory, and gives them back. notes are sentences for people about ignores
// that have expired or that fit nothing any more.
func (inv *Inventory) SetAside(base *Baseline, ignores []Ignore, now time.Time) (aside []Suppressed, notes []string) {
	accepted := make(map[string]bool)
	if base != nil {
		for _, e := range base.Findings {
			accepted[e.ID] = true
		}
	}
	used := make([]bool, len(ignores))
	kept := inv.Findings[:0:0]
	for _, f := range inv.Findings {
		by := -1
		for i := range ignores {
			if ignores[i].fits(&f) {
				used[i] = true
				if !ignores[i].expired(now) && by < 0 {
					by = i
				}
			}
		}
		switch {
		case by >= 0:
			aside = append(aside, Suppressed{Finding: f, By: "ignore", Reason: ignores[by].Reason, Expires: ignores[by].Expires.Format(time.DateOnly)})
		case accepted[f.ID]:
			aside = append(aside, Suppressed{Finding: f, By: "baseline"})
		default:
			kept = append(kept, f)
		}
	}
	inv.Findings = append([]Finding{}, kept...)
	for i := range ignores {
		ig := &ignores[i]
		switch {
		case !used[i]:
			notes = append(notes, fmt.Sprintf("the ignore on line %d fits no finding any more; remove it", ig.Line))
		case ig.expired(now):
			notes = append(notes, fmt.Sprintf("the ignore on line %d expired on %s: its findings are back", ig.Line, ig.Expires.Format(time.DateOnly)))
		}
	}
	return aside, notes
}
