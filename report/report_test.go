package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/report"
)

// written gives an inventory in one of the formats.
func written(t *testing.T, inv *inventory.Inventory, format string) string {
	t.Helper()
	var out bytes.Buffer
	if err := (&report.Report{Inventory: inv, Version: "1.2.3"}).Write(&out, format); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// valid checks a document against a schema on the disk.
func valid(t *testing.T, schema, document string) error {
	t.Helper()
	c := jsonschema.NewCompiler()
	s, err := c.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// everything is an inventory with every member that the document can have.
func everything(t *testing.T) *inventory.Inventory {
	t.Helper()
	inv, _ := scanned(t, truth)
	earlier, _ := scanned(t, truth)
	earlier.Paths = earlier.Paths[5:]
	earlier.Findings = append(earlier.Findings[5:], inventory.Finding{ID: "finding-gone", Rule: "long-lived-secret", Severity: inventory.SeverityLow, File: "gone.yml", Line: 1, Message: "gone"})
	for i := range earlier.Findings[:4] {
		earlier.Findings[i].Severity = inventory.SeverityInfo
	}
	inv.Suppressed = []inventory.Suppressed{{Finding: inv.Findings[20], By: "ignore", Reason: "accepted", Expires: "2027-01-31"}, {Finding: inv.Findings[21], By: "baseline"}}
	inv.Findings = slices.Delete(inv.Findings, 20, 22)
	inv.Since = inv.Compare(earlier)
	inv.Files[0].Status, inv.Files[0].Detail, inv.Files[0].Line = inventory.StatusPartly, "broken here", 7
	return inv
}

func TestTheJSONFitsItsPublishedSchema(t *testing.T) {
	for name, inv := range map[string]*inventory.Inventory{"everything": everything(t), "nothing": largeInventory(0), "hostile": hostileInventory(), "large": largeInventory(200)} {
		if err := valid(t, "../docs/schema/inventory.schema.json", written(t, inv, "json")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := strings.Replace(written(t, largeInventory(3), "json"), `"static_secret"`, `"secret"`, 1)
	if valid(t, "../docs/schema/inventory.schema.json", broken) == nil {
		t.Error("an unknown kind of credential is valid: this test can't fail")
	}
}

func TestTheSARIFFitsTheStandardsSchema(t *testing.T) {
	const schema = "testdata/sarif/sarif-2.1.0.json"
	for name, inv := range map[string]*inventory.Inventory{"everything": everything(t), "nothing": largeInventory(0), "hostile": hostileInventory()} {
		if err := valid(t, schema, written(t, inv, "sarif")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if valid(t, schema, strings.Replace(written(t, everything(t), "sarif"), `"startLine": `, `"startLine": -`, 1)) == nil {
		t.Error("a negative line is valid: this test can't fail")
	}
}

// What code scanning services need beyond the schema.
func TestTheSARIFSaysWhereWhatAndWhy(t *testing.T) {
	inv := everything(t)
	var doc struct {
		Runs []struct {
			Tool struct {
				Driver struct {
					Name, Version string
					Rules         []struct {
						ID            string
						Help          struct{ Text string }
						Relationships []struct {
							Target struct {
								ID            string
								ToolComponent struct{ Name string }
							}
						}
						Properties struct {
							Tags  []string
							Score string `json:"security-severity"`
						}
					}
				}
			}
			Taxonomies []struct {
				Name string
				Taxa []struct{ ID string }
			}
			Invocations []struct {
				ToolExecutionNotifications []struct{ Message struct{ Text string } }
			}
			Results []struct {
				RuleID              string
				RuleIndex           int
				Level               string
				BaselineState       string
				Message             struct{ Text string }
				PartialFingerprints map[string]string
				Suppressions        []struct{ Justification string }
				Locations           []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(written(t, inv, "sarif")), &doc); err != nil {
		t.Fatal(err)
	}
	run := doc.Runs[0]
	if len(run.Results) != len(inv.Findings)+len(inv.Suppressed) || run.Tool.Driver.Version != "1.2.3" {
		t.Fatalf("%d results of version %q for %d findings", len(run.Results), run.Tool.Driver.Version, len(inv.Findings))
	}
	taxa := map[string]bool{}
	for _, x := range run.Taxonomies {
		for _, y := range x.Taxa {
			taxa[x.Name+y.ID] = true
		}
	}
	for _, r := range run.Tool.Driver.Rules {
		if r.Help.Text == "" || len(r.Relationships) == 0 || !regexp.MustCompile(`^\d+\.\d$`).MatchString(r.Properties.Score) {
			t.Errorf("the rule %s has no help, no reference or no score", r.ID)
		}
		for _, rel := range r.Relationships {
			if !taxa[rel.Target.ToolComponent.Name+rel.Target.ID] {
				t.Errorf("the rule %s refers to %s, which no taxonomy has", r.ID, rel.Target.ID)
			}
		}
	}
	seen := map[string]bool{}
	states := map[string]int{}
	suppressed := 0
	for i, r := range run.Results {
		fp := r.PartialFingerprints["provisoFindingId/v1"]
		if fp == "" || seen[fp] {
			t.Errorf("result %d has the fingerprint %q, which is none or not its own", i, fp)
		}
		seen[fp] = true
		states[r.BaselineState]++
		suppressed += len(r.Suppressions)
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("result %d names the rule %s and the index of another", i, r.RuleID)
		}
		if r.Locations[0].PhysicalLocation.Region.StartLine < 1 || strings.ContainsAny(r.Locations[0].PhysicalLocation.ArtifactLocation.URI, " <>\"\\") {
			t.Errorf("result %d is at %+v", i, r.Locations[0])
		}
	}
	if suppressed != 2 || states["new"] == 0 || states["updated"] == 0 || states["unchanged"] == 0 {
		t.Errorf("%d suppressions, states %v", suppressed, states)
	}
	if n := run.Invocations[0].ToolExecutionNotifications; len(n) == 0 || !strings.Contains(n[0].Message.Text, "broken here") {
		t.Errorf("what was not read is said as %+v", n)
	}
}

func TestTheCSVRunsNothing(t *testing.T) {
	inv := largeInventory(9)
	for i, h := range []string{`=1+1`, `+cmd|' /C calc'!A0`, `-2+3`, `@SUM(1)`, "\t=1", "\r=1", `a;=1+1`, ` =1`, `＝1`} {
		inv.Paths[i].Job, inv.Paths[i].Credential.Name, inv.Paths[i].Step = h, h, h
	}
	text := written(t, inv, "csv")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 10 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, row := range rows[1:] {
		for i, cell := range row {
			for _, part := range strings.FieldsFunc(cell, func(r rune) bool { return strings.ContainsRune(";\t\r\n", r) }) {
				if strings.IndexAny(strings.TrimSpace(part), "=+-@＝") == 0 {
					t.Errorf("%s: the cell %q calculates", rows[0][i], cell)
				}
			}
		}
	}
	if len(rows[0]) != len(rows[1]) || rows[0][0] != "id" {
		t.Errorf("the header is %q", rows[0])
	}
}

// The graph is drawn by dot itself; its answer holds every name as text.
func TestTheDOTIsDrawn(t *testing.T) {
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Fatal("there is no dot on this machine; make system-tests installs graphviz")
	}
	for name, inv := range map[string]*inventory.Inventory{"truth": everything(t), "hostile": hostileInventory(), "cut": withoutEdges(t), "nothing": largeInventory(0), "quotes": quotes()} {
		cmd := exec.CommandContext(t.Context(), dot, "-Tsvg")
		cmd.Stdin = strings.NewReader(written(t, inv, "dot"))
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil || strings.Contains(errs.String(), "rror") {
			t.Errorf("%s: dot says %v: %s", name, err, errs.String())
			continue
		}
		texts := svgTexts(t, out)
		if name == "quotes" && !slices.Contains(texts, `a"]; evil -> b; \N x [`) {
			t.Errorf("the name with quotes is drawn as %q", texts)
		}
		if name == "hostile" && !slices.Contains(texts, hostile[1]) {
			t.Errorf("the name with markup is drawn as %q", texts)
		}
	}
}

func quotes() *inventory.Inventory {
	inv := largeInventory(2)
	inv.Paths[0].Job = `a"]; evil -> b; \N x [`
	return inv
}

// svgTexts gives the texts of a picture.
func svgTexts(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		tok, err := d.Token()
		if err != nil {
			return out
		}
		if c, ok := tok.(xml.CharData); ok && strings.TrimSpace(string(c)) != "" {
			out = append(out, string(c))
		}
	}
}

// A Mermaid graph is bounded as its renderers are, and no name is more than text.
func TestTheMermaidIsBoundedAndPlain(t *testing.T) {
	line := regexp.MustCompile(`^(flowchart LR|  %% .*|  subgraph [a-z]+\["[A-Z][a-z]+"\]|  end|    [pcr]\d+(\[|\(\[|\[\[)"[-a-zA-Z0-9 ./:@,_#;<>]*"(\]|\]\)|\]\])|  [pcr]\d+ (==>|-\.->|-\.-o|-->|--x) [pcr]\d+)$`)
	for name, inv := range map[string]*inventory.Inventory{"truth": everything(t), "hostile": hostileInventory(), "cut": withoutEdges(t), "nothing": largeInventory(0), "large": largeInventory(2000), "quotes": quotes()} {
		text := written(t, inv, "mermaid")
		if len(text) > 50_000 {
			t.Errorf("%s: %d characters, renderers take 50,000", name, len(text))
		}
		edges := 0
		for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if !line.MatchString(l) || strings.Contains(strings.ReplaceAll(l, "<br/>", ""), "<") {
				t.Errorf("%s: the line %q is more than a node or an edge", name, l)
			}
			if regexp.MustCompile(`^  [pcr]\d+ `).MatchString(l) {
				edges++
			}
		}
		if edges > 500 {
			t.Errorf("%s: %d edges, renderers take 500", name, edges)
		}
		if name == "large" && !strings.Contains(text, "left out") {
			t.Errorf("the large graph doesn't say what it leaves out:\n%s", text[:200])
		}
	}
}

// withoutEdges is an inventory that has not all edges.
func withoutEdges(t *testing.T) *inventory.Inventory {
	inv := everything(t)
	inv.Unresolved = append(inv.Unresolved, inventory.Unresolved{File: "a.yml", Line: 1, Kind: inventory.KindEdges, Name: "1234567 edges", Why: "too many"})
	return inv
}

// What a document lacks is said to those who read the text, too.
func TestTheTextSaysThatEdgesAreLeftOut(t *testing.T) {
	const says = "Left out: 1234567 edges"
	if text := written(t, withoutEdges(t), "text"); !strings.Contains(text, says) {
		t.Errorf("%q isn't said:\n%s", says, text)
	}
	if text := written(t, everything(t), "text"); strings.Contains(text, "Left out") {
		t.Errorf("it is said of a whole document:\n%s", text)
	}
}

// The tree fits the screen that it is told of, whatever the names are.
func TestTheTreeFitsAScreen(t *testing.T) {
	for name, inv := range map[string]*inventory.Inventory{"truth": everything(t), "large": largeInventory(2000), "hostile": hostileInventory(), "cut": withoutEdges(t), "nothing": largeInventory(0)} {
		for _, size := range [][2]int{{80, 24}, {120, 40}, {200, 60}} {
			var out bytes.Buffer
			opt := report.TextOptions{Width: size[0], Height: size[1]}
			if err := errors.Join(report.Text(&out, inv, opt), report.Findings(&out, inv, opt)); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if len(lines) > size[1]-1 {
				t.Errorf("%s at %d columns: %d lines, the screen has %d and the prompt needs one", name, size[0], len(lines), size[1])
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > size[0] {
					t.Errorf("%s at %d columns: a line of %d: %q", name, size[0], n, l)
				}
			}
			if strings.ContainsAny(out.String(), "\x1b\u202e\u2066\u0007") {
				t.Errorf("%s: a control character gets through", name)
			}
		}
	}
}

// The same inventory gives the same bytes in each format.
func TestReportsAreStable(t *testing.T) {
	for _, format := range report.Formats {
		if a, b := written(t, everything(t), format), written(t, everything(t), format); a != b {
			t.Errorf("%s differs from one time to the next", format)
		}
	}
	var out bytes.Buffer
	if err := (&report.Report{Inventory: largeInventory(1)}).Write(&out, "pdf"); err == nil || !strings.Contains(err.Error(), "json, html, sarif") {
		t.Errorf("an unknown format gives %v", err)
	}
}

// canaries are made-up secrets in the documented forms.
var canaries = map[string]string{
	"a GitHub token":      "ghp_" + "w7Kq2LxV9bTz4RmN8cYd3PfG6hJs1QaE5uZo",
	"an AWS key":          "AKIA" + "Q3X7ZLMW2VKT5RNB",
	"a key behind a name": "q8Zt3LmX7vBn2KcR9wYp4HsD6fGj1TaE",
	"a password in a URL": "Zx9Kq3Lm7VtB2n",
	"a Slack webhook":     "B9q2Kx7LmZ4Vt8Rn3Wc6Yp1H",
}

// No format, whatever was found, holds the value of a secret that stands in a file.
func TestNoFormatHoldsAValue(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, ".github", "workflows")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	workflow := fmt.Sprintf(`on: push
env:
  GITHUB_PAT: %s
  AWS_ACCESS_KEY_ID: %s
  API_TOKEN: "%s"
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: |
          curl -H "Authorization: token %s" https://api.github.com/user
          psql postgres://app:%s@db.acme.io/shop
          curl https://hooks.slack.com/services/T12345678/B12345678/%s
          aws configure set aws_access_key_id %s
          docker login -u acme -p %s registry.acme.io
`, canaries["a GitHub token"], canaries["an AWS key"], canaries["a key behind a name"], canaries["a GitHub token"], canaries["a password in a URL"], canaries["a Slack webhook"], canaries["an AWS key"], canaries["a key behind a name"])
	if err := os.WriteFile(filepath.Join(dir, "ci.yml"), []byte(workflow), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, p := scanned(t, root)
	found := 0
	for _, f := range inv.Findings {
		if f.Rule == "secret-in-file" {
			found++
		}
	}
	if found < len(canaries) {
		t.Errorf("%d secrets were found in the file, expected at least %d", found, len(canaries))
	}
	check := func(name, text string) {
		for what, value := range canaries {
			if strings.Contains(text, value) {
				t.Errorf("%s holds %s", name, what)
			}
		}
	}
	for _, format := range report.Formats {
		var out bytes.Buffer
		if err := (&report.Report{Inventory: inv, Plan: p}).Write(&out, format); err != nil {
			t.Fatal(err)
		}
		check(format, out.String())
	}
	var out bytes.Buffer
	if err := report.Findings(&out, inv, report.TextOptions{Lines: -1}); err != nil {
		t.Fatal(err)
	}
	check("the findings as text", out.String())
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	check("the plan", string(data))
}
