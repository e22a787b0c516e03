package report

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/plan"
	"github.com/proviso-ci/proviso/trust"
)

// pageData is the inventory as the page's script reads it. Most texts of an
// estate repeat thousands of times, so each stands once in Texts, and paths
// hold their numbers: a page of 2,000 paths stays under half a megabyte.
type pageData struct {
	Texts []string `json:"texts"`
	// Paths are rows of numbers in the order of pathColumns; the line is itself.
	Columns    []string      `json:"columns"`
	Paths      [][]int       `json:"paths"`
	Findings   []pageFinding `json:"findings"`
	Rules      []pageRule    `json:"rules"`
	Unresolved []pageGap     `json:"unresolved"`
	Unread     []pageGap     `json:"unread"`
	Aside      []pageAside   `json:"aside"`
	// GonePaths and GoneFinds count what only the earlier inventory has.
	Since     bool `json:"since"`
	GonePaths int  `json:"gonePaths"`
	GoneFinds int  `json:"goneFindings"`
	Files     int  `json:"files"`
	// Trusts are the other ends; Edges join them with paths by their numbers.
	Trusts []pageTrust `json:"trusts"`
	Edges  []pageEdge  `json:"edges"`
	Plan   *pagePlan   `json:"plan,omitempty"`
}

type pageFinding struct {
	ID       string   `json:"id"`
	Rule     string   `json:"rule"`
	Severity string   `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Job      string   `json:"job,omitempty"`
	Step     string   `json:"step,omitempty"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"`
	Refs     []string `json:"refs,omitempty"`
	Paths    []int    `json:"paths,omitempty"`
	New      bool     `json:"new,omitempty"`
	CI       string   `json:"ci,omitempty"`
}

type pageRule struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// pageGap is a part that was not seen.
type pageGap struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	CI   string `json:"ci"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

type pageAside struct {
	pageFinding
	By      string `json:"by"`
	Reason  string `json:"reason,omitempty"`
	Expires string `json:"expires,omitempty"`
}

// pagePlan is the plan with its generated files by name.
type pagePlan struct {
	Summary     plan.Summary      `json:"summary"`
	Waves       []plan.Wave       `json:"waves"`
	Foundations []plan.Foundation `json:"foundations"`
	Items       []plan.Item       `json:"items"`
	Variables   []plan.Variable   `json:"variables"`
	Files       map[string]string `json:"files"`
}

// maxPlanText bounds the patches and policies in the page; beyond it `proviso
// plan --write` has them.
const maxPlanText = 4 << 20

func planOf(p *plan.Plan) *pagePlan {
	if p == nil {
		return nil
	}
	out := &pagePlan{p.Summary, p.Waves, p.Foundations, p.Items, p.Variables, make(map[string]string)}
	sum := 0
	for _, f := range p.Files {
		if sum += len(f.Text); sum > maxPlanText {
			break
		}
		out.Files[f.Name] = f.Text
	}
	return out
}

// pathColumns are the members of a path in the page's data.
var pathColumns = []string{
	"id", "file", "ci", "dir", "job", "step", "kind", "name", "nature", "source", "rkind", "rname", "permission", "via", "trust", "events", "environment",
	"runner", "labels", "migration", "repository", "live", "line", "risk", "new",
}

// dataOf makes the page's data.
func dataOf(r *Report) *pageData {
	inv := r.Inventory
	d := &pageData{Columns: pathColumns, Paths: make([][]int, 0, len(inv.Paths)), Findings: []pageFinding{}, Rules: []pageRule{}, Unresolved: []pageGap{}, Unread: []pageGap{}, Aside: []pageAside{}, Trusts: []pageTrust{}, Edges: []pageEdge{}, Files: len(inv.Files), Plan: planOf(r.Plan)}
	index := make(map[string]int)
	text := func(s string) int {
		s = printable(s)
		i, ok := index[s]
		if !ok {
			i = len(d.Texts)
			index[s] = i
			d.Texts = append(d.Texts, s)
		}
		return i
	}
	isNew := make(map[string]bool)
	if s := inv.Since; s != nil {
		d.Since, d.GonePaths, d.GoneFinds = true, len(s.GonePaths), len(s.GoneFindings)
		for _, id := range s.NewPaths {
			isNew[id] = true
		}
	}
	number := make(map[string]int, len(inv.Paths))
	system := make(map[string]string, len(inv.Files))
	for i := range inv.Paths {
		p := &inv.Paths[i]
		number[p.ID] = i
		system[p.File] = string(p.CI)
		fresh := 0
		if isNew[p.ID] {
			fresh = 1
		}
		d.Paths = append(d.Paths, []int{
			text(p.ID), text(p.File), text(string(p.CI)), text(topDirectory(p.File)), text(p.Job), text(p.Step), text(string(p.Credential.Kind)), text(p.Credential.Name), text(string(p.Credential.Nature)), text(p.Credential.Source),
			text(p.Resource.Kind), text(p.Resource.Name), text(p.Permission), text(p.ExposedVia), text(string(p.Reach.Trust)), text(strings.Join(p.Reach.Events, ", ")), text(p.Reach.Environment),
			text(p.Runner.Kind), text(strings.Join(p.Runner.Labels, ", ")), text(p.Migration), text(p.Repository), text(liveWords(p.Live)), p.Line, p.Risk(), fresh,
		})
	}
	for _, f := range inv.Files {
		system[f.File] = string(f.CI)
		if f.Status != inventory.StatusRead {
			d.Unread = append(d.Unread, pageGap{File: printable(f.File), Line: f.Line, CI: string(f.CI), Kind: string(f.Status), Name: printable(f.File), Why: printable(f.Detail)})
		}
	}
	for _, u := range inv.Unresolved {
		d.Unresolved = append(d.Unresolved, pageGap{printable(u.File), u.Line, string(u.CI), u.Kind, printable(u.Name), printable(u.Why)})
	}
	d.findings(inv, number, system)
	d.trusts(inv, number)
	return d
}

// pageTrust is one trust, its conditions in words.
type pageTrust struct {
	File       string   `json:"file"`
	Line       int      `json:"line"`
	Kind       string   `json:"kind"`
	Target     string   `json:"target"`
	Issuer     string   `json:"issuer"`
	Conditions []string `json:"conditions"`
	Open       []string `json:"open,omitempty"`
}

// pageEdge says whether a path can use a trust.
type pageEdge struct {
	Path  int      `json:"path"`
	Trust int      `json:"trust"`
	Can   string   `json:"can"`
	Why   []string `json:"why,omitempty"`
}

// liveWords says that a running Proviso serves a path; "" when it doesn't.
func liveWords(l *inventory.Live) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("grant %s, %s, last on %s", l.Grant, plural(l.Uses, "use"), l.LastUsed.UTC().Format("2006-01-02 15:04"))
}

// trusts adds the other ends and what leads to them.
func (d *pageData) trusts(inv *inventory.Inventory, number map[string]int) {
	index := make(map[string]int, len(inv.Trusts))
	for i := range inv.Trusts {
		t := &inv.Trusts[i]
		index[t.ID] = i
		out := pageTrust{File: printable(t.File), Line: t.Line, Kind: string(t.Kind), Target: printable(t.Target.Name + " (" + t.Target.Kind + ")"), Issuer: printable(t.Issuer), Conditions: []string{}}
		switch {
		case t.NoAudience:
			out.Conditions = append(out.Conditions, "any audience")
		case len(t.Audiences) > 0:
			out.Conditions = append(out.Conditions, printable("aud is "+strings.Join(t.Audiences, " or ")))
		}
		for _, c := range t.Conditions {
			is := map[bool]string{false: " is ", true: " is not "}[c.Not]
			if c.Match != trust.Exact {
				is += string(c.Match) + " "
			}
			out.Conditions = append(out.Conditions, printable(c.Claim+is+strings.Join(c.Values, " or ")))
		}
		for _, u := range t.Unresolved {
			out.Open = append(out.Open, printable(u.Why))
		}
		d.Trusts = append(d.Trusts, out)
	}
	for _, e := range inv.Edges {
		p, known := number[e.Path]
		if t, ok := index[e.Trust]; ok && known {
			d.Edges = append(d.Edges, pageEdge{p, t, string(e.Can), e.Why})
		}
	}
}

// findings adds the findings, worst first, with the rules that made them.
func (d *pageData) findings(inv *inventory.Inventory, number map[string]int, system map[string]string) {
	seen := make(map[string]bool)
	convert := func(f *inventory.Finding) pageFinding {
		out := pageFinding{
			ID: f.ID, Rule: f.Rule, Severity: string(f.Severity), File: printable(f.File), Line: f.Line, Job: printable(f.Job), Step: printable(f.Step),
			Message: printable(f.Message), Fix: printable(f.Fix), Refs: f.References, CI: system[f.File], New: inv.Since != nil && inv.Since.IsNew(f),
		}
		for _, id := range f.Paths {
			if n, ok := number[id]; ok {
				out.Paths = append(out.Paths, n)
			}
		}
		if !seen[f.Rule] {
			seen[f.Rule] = true
			r := inventory.RuleOf(f.Rule)
			d.Rules = append(d.Rules, pageRule{r.Name, r.Title, r.What, r.Remedy})
		}
		return out
	}
	list := worstFirst(inv.Findings)
	for i := range list {
		d.Findings = append(d.Findings, convert(&list[i]))
	}
	for i := range inv.Suppressed {
		s := &inv.Suppressed[i]
		d.Aside = append(d.Aside, pageAside{convert(&s.Finding), s.By, printable(s.Reason), s.Expires})
	}
}
