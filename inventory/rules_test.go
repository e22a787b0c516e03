package inventory

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var updateRules = flag.Bool("update-findings", false, "write docs/findings.md")

// ruleExample is the archive of a rule: files that it reports, with the place
// and the severity of each finding, and files that it leaves alone.
type ruleExample struct {
	want      []string
	bad, good *txtar.Archive
}

func readExample(t *testing.T, rule string) ruleExample {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", "rules", rule+".txtar"))
	if err != nil {
		t.Fatalf("every rule has an example: %v", err)
	}
	ex := ruleExample{bad: &txtar.Archive{}, good: &txtar.Archive{}}
	for line := range strings.Lines(string(a.Comment)) {
		if w, ok := strings.CutPrefix(strings.TrimSpace(line), "want: "); ok {
			ex.want = append(ex.want, w)
		}
	}
	for _, f := range a.Files {
		to := ex.good
		name, bad := strings.CutPrefix(f.Name, "bad/")
		if bad {
			to = ex.bad
		}
		to.Files = append(to.Files, txtar.File{Name: strings.TrimPrefix(name, "good/"), Data: f.Data})
	}
	return ex
}

// inspect scans the files of an archive as the command does.
func inspect(t *testing.T, a *txtar.Archive) *Inventory {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := Scan(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), inv, dir, Options{}); err != nil {
		t.Fatal(err)
	}
	return Merge([]*Inventory{inv})
}

// Every rule reports its example at the exact line with the right severity, and
// leaves alone what is right; and what it says is fit to be read.
func TestRules(t *testing.T) {
	schema := documentSchema(t)
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			ex := readExample(t, r.Name)
			inv := inspect(t, ex.bad)
			var got []string
			for _, f := range inv.Findings {
				if f.Rule == r.Name {
					got = append(got, fmt.Sprintf("%s:%d %s", f.File, f.Line, f.Severity))
					readAloud(t, f)
				}
			}
			slices.Sort(got)
			slices.Sort(ex.want)
			if diff := cmp.Diff(ex.want, got); diff != "" || len(ex.want) == 0 {
				t.Errorf("the example (-want +got):\n%s", diff)
			}
			if len(ex.good.Files) == 0 {
				t.Error("nothing shows what the rule leaves alone")
			}
			for _, f := range inspect(t, ex.good).Findings {
				if f.Rule == r.Name {
					t.Errorf("the good example is reported at %s:%d: %s", f.File, f.Line, f.Message)
				}
			}
			var doc any
			data, err := json.Marshal(inv)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &doc); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(doc); err != nil {
				t.Errorf("the document isn't valid by docs/schema: %v", err)
			}
		})
	}
}

func documentSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	schema, err := c.Compile("../docs/schema/inventory.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// readAloud holds what a finding says against what people need.
func readAloud(t *testing.T, f Finding) {
	t.Helper()
	for what, s := range map[string]string{"message": f.Message, "fix": f.Fix} {
		if s == "" || strings.ContainsAny(s, "\n\t") || strings.Contains(s, "  ") || strings.Contains(s, "%!") || !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "...") && f.Rule != ruleCouldNotRead.Name {
			t.Errorf("the %s of %s is no sentence: %q", what, f.Rule, s)
		}
	}
	owasp, nist := false, false
	for _, r := range f.References {
		owasp, nist = owasp || strings.HasPrefix(r, "OWASP CICD-SEC-"), nist || strings.HasPrefix(r, "NIST SP 800-204D ")
	}
	if !owasp || !nist {
		t.Errorf("a finding of %s refers to %v: one risk of OWASP's and one section of NIST's are wanted", f.Rule, f.References)
	}
}

// The rules' texts are their manual.
func TestRulesAreDocumented(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	seen := make(map[string]bool)
	for _, r := range Rules() {
		if !name.MatchString(r.Name) || seen[r.Name] || r.Title == "" || strings.HasSuffix(r.Title, ".") || len(r.What) < 100 || !strings.HasSuffix(r.What, ".") || len(r.Remedy) < 30 || !strings.HasSuffix(strings.TrimSuffix(r.Remedy, "`"), ".") && !strings.HasSuffix(r.Remedy, "`.") && !strings.HasSuffix(r.Remedy, "`") {
			t.Errorf("the rule %q doesn't say what it is: %+v", r.Name, r)
		}
		seen[r.Name] = true
	}
}

// docs/findings.md is made of the rules and their examples; it can't say something else.
func TestFindingsPage(t *testing.T) {
	const page = "../docs/findings.md"
	var b bytes.Buffer
	b.WriteString(findingsHead)
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", r.Name, r.Name, r.Title)
	}
	for _, r := range Rules() {
		rulePage(t, &b, r)
	}
	if *updateRules {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(was), b.String()); diff != "" {
		t.Errorf("docs/findings.md isn't what the rules say; run go test ./inventory -run TestFindingsPage -update-findings\n%s", diff)
	}
}

const findingsHead = `# Findings

This page is made of the rules and of the examples that test them
(` + "`inventory/testdata/rules`" + `); a test compares it with them.

` + "`proviso inventory`" + ` prints findings below its tree, in JSON under
"findings", and as SARIF. A finding's id depends on rule, file, job, step and
credential, never on a line: it stays the same while a file is edited above it.

Severity is reach times resource. What an outsider can reach is worst; what
needs write access is less so; what only a setting outside of the file decides
lies between. A cloud, a cluster or a registry weighs more than a chat channel:

| | changes production, or what others install | holds something | holds little |
|---|---|---|---|
| an outsider, by the file alone | critical | high | medium |
| decided outside of the file | high | medium | low |
| needs write access or an approval | medium | low | info |

A rule about habits rather than holes is a step lower; each says so in its
example.

| option | what it does |
|---|---|
| ` + "`--fail-on high`" + ` | exit code 1 when a finding is at least that severe; without it the command only looks |
| ` + "`--write-baseline FILE`" + ` | accepts all findings of today |
| ` + "`--baseline FILE`" + ` | sets those aside, and no others |
| ` + "`--since OLD.json`" + ` | compares with an earlier inventory; only what is new, or worse, counts for --fail-on |
| ` + "`--ignore-file FILE`" + ` | a person's decisions, by default .proviso-ignore.yaml in each directory: |

` + "```yaml" + `
ignore:
  - rule: long-lived-secret        # or finding: finding-0123456789abcdef
    file: legacy/**                # * within a directory, ** over several
    job: deploy                    # optional
    reason: the vendor has no federation, see OPS-12
    expires: 2027-01-31            # at most two years away; afterwards it is back
` + "```" + `

An ignore without reason or end is an error, and so is one for a rule that
doesn't exist; one that has expired, or that fits nothing any more, is said.
For trees of people you don't know, --no-ignore-file reads none of theirs.

| rule | what is wrong |
|---|---|
`

func rulePage(t *testing.T, b *bytes.Buffer, r Rule) {
	t.Helper()
	ex := readExample(t, r.Name)
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n%s\n\n**What to do.** %s\n\n", r.Name, r.Title, r.What, r.Remedy)
	if len(r.Systems) > 0 {
		var systems []string
		for _, s := range r.Systems {
			systems = append(systems, string(s))
		}
		fmt.Fprintf(b, "Systems: %s. ", strings.Join(systems, ", "))
	}
	fmt.Fprintf(b, "References: %s.\n\n", strings.Join(r.References, ", "))
	inv := inspect(t, ex.bad)
	for _, f := range ex.bad.Files {
		if strings.HasPrefix(f.Name, ".git/") {
			continue
		}
		fmt.Fprintf(b, "`%s`\n\n```%s\n%s```\n\n", f.Name, strings.TrimPrefix(filepath.Ext(f.Name), "."), f.Data)
	}
	for _, f := range inv.Findings {
		if f.Rule == r.Name {
			fmt.Fprintf(b, "> `%s:%d` **%s**: %s *%s*\n>\n", f.File, f.Line, f.Severity, strings.ReplaceAll(f.Message, "*", `\*`), strings.ReplaceAll(f.Fix, "*", `\*`))
		}
	}
	b.Truncate(b.Len() - len(">\n"))
}
