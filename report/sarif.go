package report

import (
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// SARIF 2.1.0 (OASIS): one run, one result for each finding. The fingerprint of
// a result is the finding's stable id, so that a code scanning service knows it
// again when lines move. What could not be read is a notification of the run.

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool        sarifTool            `json:"tool"`
	Invocations []sarifInvocation    `json:"invocations"`
	Bases       map[string]sarifText `json:"originalUriBaseIds"`
	Results     []sarifResult        `json:"results"`
	Taxonomies  []sarifComponent     `json:"taxonomies"`
	ColumnKind  string               `json:"columnKind"`
	Properties  map[string]any       `json:"properties,omitempty"`
	Automation  *sarifAutomation     `json:"automationDetails,omitempty"`
}

type sarifAutomation struct {
	ID string `json:"id"`
}

type sarifTool struct {
	Driver sarifComponent `json:"driver"`
}

type sarifComponent struct {
	Name         string           `json:"name"`
	Version      string           `json:"version,omitempty"`
	Organization string           `json:"organization,omitempty"`
	URI          string           `json:"informationUri,omitempty"`
	Short        *sarifMessage    `json:"shortDescription,omitempty"`
	Rules        []sarifRule      `json:"rules,omitempty"`
	Taxa         []sarifTaxon     `json:"taxa,omitempty"`
	Supported    []sarifComponent `json:"supportedTaxonomies,omitempty"`
}

type sarifTaxon struct {
	ID   string        `json:"id"`
	Name string        `json:"name,omitempty"`
	Text *sarifMessage `json:"shortDescription,omitempty"`
}

type sarifRule struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	Short      sarifMessage        `json:"shortDescription"`
	Full       sarifMessage        `json:"fullDescription"`
	Help       sarifMessage        `json:"help"`
	Default    sarifLevel          `json:"defaultConfiguration"`
	Relations  []sarifRelationship `json:"relationships,omitempty"`
	Properties map[string]any      `json:"properties"`
}

type sarifLevel struct {
	Level string `json:"level"`
}

type sarifRelationship struct {
	Target sarifTarget `json:"target"`
	Kinds  []string    `json:"kinds"`
}

type sarifTarget struct {
	ID        string    `json:"id"`
	Component sarifName `json:"toolComponent"`
}

type sarifName struct {
	Name string `json:"name"`
}

type sarifMessage struct {
	Text     string `json:"text"`
	Markdown string `json:"markdown,omitempty"`
}

type sarifText struct {
	Description sarifMessage `json:"description"`
}

type sarifInvocation struct {
	Successful    bool                `json:"executionSuccessful"`
	Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
}

type sarifNotification struct {
	Level     string          `json:"level"`
	Message   sarifMessage    `json:"message"`
	Locations []sarifLocation `json:"locations,omitempty"`
}

type sarifResult struct {
	RuleID       string             `json:"ruleId"`
	RuleIndex    int                `json:"ruleIndex"`
	Level        string             `json:"level"`
	Message      sarifMessage       `json:"message"`
	Locations    []sarifLocation    `json:"locations"`
	Fingerprints map[string]string  `json:"partialFingerprints"`
	Baseline     string             `json:"baselineState,omitempty"`
	Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	Properties   map[string]any     `json:"properties,omitempty"`
}

type sarifSuppression struct {
	Kind          string `json:"kind"`
	Status        string `json:"status"`
	Justification string `json:"justification,omitempty"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
	Region   *sarifRegion  `json:"region,omitempty"`
}

type sarifArtifact struct {
	URI  string `json:"uri"`
	Base string `json:"uriBaseId"`
}

type sarifRegion struct {
	StartLine int `json:"startLine"`
}

type sarifLogical struct {
	Name      string `json:"name"`
	Qualified string `json:"fullyQualifiedName,omitempty"`
	Kind      string `json:"kind"`
}

const (
	sarifSchema   = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	sarifBase     = "SRCROOT"
	fingerprint   = "provisoFindingId/v1"
	owaspTaxonomy = "OWASP Top 10 CI/CD Security Risks"
	nistTaxonomy  = "NIST SP 800-204D"
	// sarifResults is what code scanning services take in one run; the worst go first.
	sarifResults = 25_000
)

// SARIF writes the findings as SARIF 2.1.0.
func (r *Report) SARIF(w io.Writer) error {
	s := sarifWriter{report: r, index: make(map[string]int)}
	run := sarifRun{
		Invocations: []sarifInvocation{{Successful: true, Notifications: notRead(r.Inventory)}},
		Bases:       map[string]sarifText{sarifBase: {sarifMessage{Text: "the directory that was scanned"}}},
		Automation:  &sarifAutomation{ID: "proviso/inventory/"},
		ColumnKind:  "unicodeCodePoints",
		Results:     s.results(),
	}
	run.Taxonomies = s.taxonomies()
	run.Tool.Driver = sarifComponent{
		Name: "proviso", Version: r.Version, URI: "https://proviso-ci.dev", Rules: s.rules,
		Short:     &sarifMessage{Text: "Access paths of CI pipelines: which job reaches which resource, with which credential."},
		Supported: []sarifComponent{{Name: owaspTaxonomy}, {Name: nistTaxonomy}},
	}
	if run.Tool.Driver.Rules == nil {
		run.Tool.Driver.Rules = []sarifRule{}
	}
	if left := len(r.Inventory.Findings) + len(r.Inventory.Suppressed) - len(run.Results); left > 0 {
		run.Properties = map[string]any{"findingsLeftOut": left}
	}
	return JSON(w, sarifLog{Schema: sarifSchema, Version: "2.1.0", Runs: []sarifRun{run}})
}

// sarifWriter collects the rules that the results name.
type sarifWriter struct {
	report *Report
	rules  []sarifRule
	index  map[string]int
}

// results gives all findings, the worst first, those put aside at the end.
func (s *sarifWriter) results() []sarifResult {
	list := worstFirst(s.report.Inventory.Findings)
	out := make([]sarifResult, 0, min(len(list), sarifResults))
	for i := range list {
		res := s.result(&list[i])
		if d := s.report.Inventory.Since; d != nil {
			res.Baseline = "unchanged"
			if slices.Contains(d.NewFindings, list[i].ID) {
				res.Baseline = "new"
			} else if slices.ContainsFunc(d.ChangedFindings, func(c inventory.FindingChange) bool { return c.ID == list[i].ID }) {
				res.Baseline = "updated"
			}
		}
		out = append(out, res)
	}
	aside := s.report.Inventory.Suppressed
	for i := range aside {
		a := &aside[i]
		res := s.result(&a.Finding)
		why := a.Reason
		if a.Expires != "" {
			why += " (until " + a.Expires + ")"
		}
		if a.By == "baseline" {
			why = "it was there when the baseline was written"
		}
		res.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: why}}
		out = append(out, res)
	}
	return out[:min(len(out), sarifResults)]
}

// worstFirst orders findings for readers that stop somewhere.
func worstFirst(list []inventory.Finding) []inventory.Finding {
	out := slices.Clone(list)
	slices.SortStableFunc(out, moreSevere)
	return out
}

// moreSevere orders findings, the worst first.
func moreSevere(a, b inventory.Finding) int {
	switch {
	case a.Severity == b.Severity:
		return 0
	case a.Severity.AtLeast(b.Severity):
		return -1
	}
	return 1
}

func (s *sarifWriter) result(f *inventory.Finding) sarifResult {
	text := f.Message
	if f.Fix != "" {
		text += " Fix: " + f.Fix
	}
	res := sarifResult{
		RuleID: f.Rule, RuleIndex: s.rule(f), Level: level(f.Severity), Message: sarifMessage{Text: text},
		Locations:    []sarifLocation{location(f.File, f.Line)},
		Fingerprints: map[string]string{fingerprint: f.ID},
		Properties:   map[string]any{"severity": string(f.Severity)},
	}
	if f.Job != "" {
		l := sarifLogical{Name: f.Job, Qualified: f.Job, Kind: "function"}
		if f.Step != "" {
			l = sarifLogical{Name: f.Step, Qualified: f.Job + "/" + f.Step, Kind: "function"}
		}
		res.Locations[0].Logical = []sarifLogical{l}
	}
	if len(f.Paths) > 0 {
		res.Properties["accessPaths"] = f.Paths
	}
	return res
}

// rule gives the index of a finding's rule, which it lists on first use.
func (s *sarifWriter) rule(f *inventory.Finding) int {
	if i, ok := s.index[f.Rule]; ok {
		return i
	}
	r := inventory.RuleOf(f.Rule)
	i := len(s.rules)
	s.index[f.Rule] = i
	orTitle := func(text string) string {
		if text == "" {
			return r.Title
		}
		return text
	}
	refs := r.References
	if len(refs) == 0 {
		refs = f.References
	}
	out := sarifRule{
		ID: r.Name, Name: camel(r.Name), Short: sarifMessage{Text: r.Title + "."}, Full: sarifMessage{Text: orTitle(r.What)},
		Help:    sarifMessage{Text: orTitle(r.What) + "\n\n" + r.Remedy, Markdown: orTitle(r.What) + "\n\n**What to do.** " + r.Remedy},
		Default: sarifLevel{level(f.Severity)},
		// The first finding of a rule is its worst: results go worst first.
		Properties: map[string]any{"tags": append([]string{"security", "ci-cd"}, refs...), "security-severity": score(f.Severity), "precision": "high", "problem.severity": problem(f.Severity)},
	}
	for _, ref := range refs {
		if name, id, ok := taxon(ref); ok {
			out.Relations = append(out.Relations, sarifRelationship{Target: sarifTarget{ID: id, Component: sarifName{name}}, Kinds: []string{"relevant"}})
		}
	}
	s.rules = append(s.rules, out)
	return i
}

// taxonomies lists the controls that the rules refer to.
func (s *sarifWriter) taxonomies() []sarifComponent {
	owasp := sarifComponent{Name: owaspTaxonomy, Organization: "OWASP", URI: "https://owasp.org/www-project-top-10-ci-cd-security-risks/"}
	nist := sarifComponent{Name: nistTaxonomy, Organization: "NIST", URI: "https://doi.org/10.6028/NIST.SP.800-204D"}
	seen := make(map[string]bool)
	for i := range s.rules {
		for _, rel := range s.rules[i].Relations {
			key := rel.Target.Component.Name + rel.Target.ID
			if seen[key] {
				continue
			}
			seen[key] = true
			to := &nist
			if rel.Target.Component.Name == owaspTaxonomy {
				to = &owasp
			}
			to.Taxa = append(to.Taxa, sarifTaxon{ID: rel.Target.ID, Name: rel.Target.ID})
		}
	}
	for _, c := range []*sarifComponent{&owasp, &nist} {
		slices.SortFunc(c.Taxa, func(a, b sarifTaxon) int { return strings.Compare(a.ID, b.ID) })
	}
	return []sarifComponent{owasp, nist}
}

// taxon tells which taxonomy a reference belongs to: "OWASP CICD-SEC-6", "NIST SP 800-204D 5.1.1".
func taxon(ref string) (name, id string, ok bool) {
	if id, ok = strings.CutPrefix(ref, "OWASP "); ok {
		return owaspTaxonomy, id, true
	}
	if id, ok = strings.CutPrefix(ref, nistTaxonomy+" "); ok {
		return nistTaxonomy, "section-" + id, true
	}
	return "", "", false
}

// notRead says of each file that was not wholly read what is missing.
func notRead(inv *inventory.Inventory) []sarifNotification {
	var out []sarifNotification
	for _, f := range inv.Files {
		if f.Status == inventory.StatusRead {
			continue
		}
		out = append(out, sarifNotification{Level: "warning", Message: sarifMessage{Text: f.File + ": " + string(f.Status) + ": " + f.Detail}, Locations: []sarifLocation{location(f.File, f.Line)}})
	}
	return out
}

// location gives a place; the URI of RFC 3986 has its odd bytes escaped.
func location(file string, line int) sarifLocation {
	l := sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{URI: (&url.URL{Path: file}).String(), Base: sarifBase}}}
	if line > 0 {
		l.Physical.Region = &sarifRegion{StartLine: line}
	}
	return l
}

// level, score and problem translate a severity into the words of SARIF and of code scanning.
func level(s inventory.Severity) string {
	switch s {
	case inventory.SeverityCritical, inventory.SeverityHigh:
		return "error"
	case inventory.SeverityMedium:
		return "warning"
	default:
		return "note"
	}
}

func score(s inventory.Severity) string {
	switch s {
	case inventory.SeverityCritical:
		return "9.5"
	case inventory.SeverityHigh:
		return "8.0"
	case inventory.SeverityMedium:
		return "5.5"
	case inventory.SeverityLow:
		return "2.5"
	default:
		return "0.5"
	}
}

func problem(s inventory.Severity) string {
	switch level(s) {
	case "error":
		return "error"
	case "warning":
		return "warning"
	}
	return "recommendation"
}

// camel turns "fork-code" into "ForkCode", the form that SARIF asks of a rule's name.
func camel(s string) string {
	var b strings.Builder
	for _, word := range strings.Split(s, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return b.String()
}
