package inventory

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// Severity is reach times resource; this is the whole table.
func TestSeverityTable(t *testing.T) {
	want := map[Trust][3]Severity{ // minor, moderate, powerful
		ForkReachable: {SeverityMedium, SeverityHigh, SeverityCritical},
		TrustUnknown:  {SeverityLow, SeverityMedium, SeverityHigh},
		Protected:     {SeverityInfo, SeverityLow, SeverityMedium},
	}
	for reach, row := range want {
		for w, sev := range row {
			if got := severity(reach, weight(w)); got != sev {
				t.Errorf("%s x %d is %s, want %s", reach, w, got, sev)
			}
		}
	}
	for kind, w := range map[string]weight{"cloud/aws": powerful, "registry/npm": powerful, "k8s/cluster": powerful, "secrets-manager/vault": powerful,
		"notify/slack": minor, "scan/codecov": minor, "unknown": moderate, "saas/whatever": moderate, "iac/infracost": minor} {
		if got := weightOf(&Path{Resource: Resource{Kind: kind}}); got != w {
			t.Errorf("%s weighs %d, want %d", kind, got, w)
		}
	}
	if weightOf(&Path{Credential: Credential{Name: "*"}, Resource: Resource{Kind: "notify/slack"}}) != powerful {
		t.Error("all secrets are worth their most valuable one")
	}
	if !SeverityHigh.AtLeast(SeverityHigh) || SeverityMedium.AtLeast(SeverityHigh) || !SeverityCritical.AtLeast(SeverityInfo) {
		t.Error("the order of severities")
	}
	if _, ok := ParseSeverity("severe"); ok {
		t.Error("a word that is no severity was read")
	}
}

// A mistake in a file of ignores is an error with its line, never a hidden finding.
func TestIgnoresRefuse(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"ignore:\n  - rule: broad-token\n    file: x\n    expires: 2027-01-01\n":                  "x.yaml:2:5: an ignore needs a reason",
		"ignore:\n  - rule: broad-token\n    file: x\n    reason: y\n":                            "x.yaml:2:5: an ignore needs expires, as 2027-05-26",
		"ignore:\n  - rule: broad-tokn\n    file: x\n    reason: y\n    expires: 2027-01-01\n":    `x.yaml:2:5: there is no rule "broad-tokn"`,
		"ignore:\n  - rule: broad-token\n    reason: y\n    expires: 2027-01-01\n":                "an ignore needs finding, or rule and file",
		"ignore:\n  - rule: broad-token\n    file: x\n    reason: y\n    expires: soon\n":         `expires is "soon"; write a day as`,
		"ignore:\n  - rule: broad-token\n    file: x\n    reason: y\n    expires: 2030-01-01\n":   "expires is more than 2 years away",
		"ignore:\n  - rule: broad-token\n    file: x\n    reason: ' '\n    expires: 2027-01-01\n": "reason needs a text",
		"ignore:\n  - rule: broad-token\n    rules: x\n":                                          `x.yaml:3:5: the key "rules" is not known`,
		"ignore:\n  - rule: broad-token\n    rule: broad-token\n":                                 "rule is there twice",
		"ignores: []\n":              `the key "ignores" is not known`,
		"ignore: broad-token\n":      "a list of ignores was expected",
		"- rule: x\n":                "a mapping with the key ignore was expected",
		"ignore:\n  - broad-token\n": "an ignore is a mapping",
		"ignore: [":                  "x.yaml: ",
	} {
		list, err := ParseIgnores("x.yaml", []byte(text), now)
		if err == nil || !strings.Contains(err.Error(), want) || list != nil {
			t.Errorf("%q\n got %v\nwant %s", text, err, want)
		}
	}
	if list, err := ParseIgnores("x.yaml", nil, now); err != nil || len(list) != 0 {
		t.Errorf("an empty file is %v, %v", list, err)
	}
}

func finding(rule, file, job string) Finding {
	return Finding{ID: stableID("finding", rule, file, job), Rule: rule, File: file, Job: job, Line: 3, Severity: SeverityHigh, Message: "m."}
}

// An ignore counts until the end of its day and not a second longer; a baseline
// takes the findings it names and no others.
func TestSetAside(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	ignores, err := ParseIgnores("x.yaml", []byte(`ignore:
  - {rule: broad-token, file: "legacy/**", reason: it is archived, expires: 2026-11-26}
  - {rule: secret-zero, file: "*/deploy.yml", job: old, reason: OPS-12, expires: 2027-01-01}
  - {rule: all-secrets, file: nowhere, reason: gone, expires: 2027-01-01}
`), now)
	if err != nil {
		t.Fatal(err)
	}
	all := func() *Inventory {
		return &Inventory{Version: Version, Findings: []Finding{
			finding("broad-token", "legacy/a/ci.yml", "build"), finding("broad-token", "new/ci.yml", "build"),
			finding("secret-zero", "new/deploy.yml", "old"), finding("secret-zero", "new/deploy.yml", "new"), finding("secret-zero", "new/deep/deploy.yml", "old"),
		}}
	}
	left := func(inv *Inventory) (out []string) {
		for _, f := range inv.Findings {
			out = append(out, f.Rule+" "+f.File+" "+f.Job)
		}
		return out
	}
	inv := all()
	aside, notes := inv.SetAside(nil, ignores, now.Add(11*time.Hour))
	want := []string{"broad-token new/ci.yml build", "secret-zero new/deploy.yml new", "secret-zero new/deep/deploy.yml old"}
	if diff := cmp.Diff(want, left(inv)); diff != "" || len(aside) != 2 || aside[0].Reason != "it is archived" || aside[0].By != "ignore" || aside[0].Expires != "2026-11-26" {
		t.Errorf("%s%+v", diff, aside)
	}
	if diff := cmp.Diff([]string{"the ignore on line 4 fits no finding any more; remove it"}, notes); diff != "" {
		t.Error(diff)
	}

	inv = all()
	aside, notes = inv.SetAside(nil, ignores, now.Add(12*time.Hour)) // midnight: the day is over
	if len(aside) != 1 || !slices.Contains(left(inv), "broad-token legacy/a/ci.yml build") || !strings.Contains(strings.Join(notes, "\n"), "the ignore on line 2 expired on 2026-11-26: its findings are back") {
		t.Errorf("an expired ignore still ignores: %+v, %q", aside, notes)
	}

	inv = all()
	data, err := json.Marshal(BaselineOf(&Inventory{Findings: inv.Findings[:2]}))
	if err != nil {
		t.Fatal(err)
	}
	base, err := ParseBaseline("base.json", data)
	if err != nil {
		t.Fatal(err)
	}
	if aside, _ = inv.SetAside(base, nil, now); len(aside) != 2 || len(inv.Findings) != 3 || aside[0].By != "baseline" {
		t.Errorf("the baseline: %+v", aside)
	}
	for text, want := range map[string]string{`{"version": 2, "findings": []}`: "version 2", `{"version": 1}`: "no findings", `[]`: "is not a baseline"} {
		if _, err := ParseBaseline("base.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is read as a baseline: %v", text, err)
		}
	}
}

// Ids and comparison follow the thing, not the line: a file that only moved its
// lines has no differences, and a job that becomes reachable is worse.
func TestCompare(t *testing.T) {
	text := func(head, event string) *txtar.Archive {
		return &txtar.Archive{Files: []txtar.File{{Name: ".github/workflows/w.yml", Data: fmt.Appendf(nil, `%son: %s
permissions: {}
jobs:
  deploy:
    runs-on: ubuntu-latest
    steps:
      - name: log in
        uses: aws-actions/configure-aws-credentials@v5
        with:
          aws-access-key-id: ${{ secrets.AWS_ACCESS_KEY_ID }}
          aws-secret-access-key: ${{ secrets.AWS_SECRET_ACCESS_KEY }}
`, head, event)}}}
	}
	old := inspect(t, text("", "push"))
	data, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if old, err = Parse("old.json", data); err != nil {
		t.Fatal(err)
	}
	if d := inspect(t, text("# a comment\n\n", "push")).Compare(old); !d.Empty() {
		t.Errorf("moved lines are a difference: %+v", d)
	}
	now := inspect(t, text("", "pull_request_target"))
	d := now.Compare(old)
	if len(d.NewPaths)+len(d.GonePaths) != 0 || len(d.ChangedPaths) == 0 || d.ChangedPaths[0].Was["trust"] != "protected" {
		t.Errorf("the change of the event is %+v", d)
	}
	worse := false
	for i := range now.Findings {
		f := &now.Findings[i]
		if f.Rule == ruleStaticCloudKey.Name {
			worse = d.IsNew(f) // it was there, and is more severe now
		}
	}
	if now.Since = d; !worse || now.CountAtLeast(SeverityCritical) == 0 {
		t.Errorf("a finding that became worse isn't counted: %+v", d.ChangedFindings)
	}
	back := old.Compare(now)
	old.Since = back
	if n := old.CountAtLeast(SeverityInfo); n != 0 || len(back.GoneFindings) == 0 {
		t.Errorf("%d findings count although nothing became worse: %+v", n, back)
	}
	for text, want := range map[string]string{`{"version": 7}`: "version 7", `x`: "is not an inventory"} {
		if _, err := Parse("old.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is read as an inventory: %v", text, err)
		}
	}
}

// A rule that fails on a file is said, and the rest of the scan goes on.
func TestARuleThatFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".travis.yml"), []byte("language: go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &subject{file: File{File: ".travis.yml", CI: Travis}}
	tree, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	s.open(tree, defaultMaxBytes)
	s.run([]Rule{{Name: "one", check: func(*subject) { panic("broken") }}, {Name: "two", check: func(s *subject) { s.report(found{line: 1, message: "still here."}) }}})
	if len(s.findings) != 2 || s.findings[0].Rule != ruleCouldNotRead.Name || !strings.Contains(s.findings[0].Message, "the rule one failed on this file: broken") || s.findings[1].Rule != "two" {
		t.Errorf("%+v", s.findings)
	}
}
