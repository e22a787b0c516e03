package policy

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

var update = flag.Bool("update", false, "write what is generated instead of comparing it")

// Each file of testdata/explain is a policy, an input and the reasons that a
// refusal must give: what the job reads, and under it, where it differs, what
// only the log has. Where old.rego is there, the same policy in the syntax
// from before Rego 1.0 has to be explained in the same words.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d cases found, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c := readCase(t, a)
			out := c.simulate(t, "policy.rego")
			got := Text(out.Reasons)
			if detail := Text(out.Detail); detail != got {
				got += "only in the log:\n" + detail
			}
			if *update {
				a.Files = append(c.rest, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(c.want), got); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if len(out.Reasons) == 0 || out.Allowed {
				t.Errorf("a refusal without a reason, allowed %v", out.Allowed)
			}
			if c.files["old.rego"] != "" {
				old := c.simulate(t, "old.rego")
				if diff := cmp.Diff(messages(out.Reasons), messages(old.Reasons)); diff != "" {
					t.Errorf("the older syntax is explained in other words (-new +old):\n%s", diff)
				}
			}
		})
	}
}

func messages(rs []proviso.Reason) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Rule+": "+r.Message)
	}
	return out
}

type explainCase struct {
	files  map[string]string
	input  document.Value
	absent []facts.Absence
	want   []byte
	rest   []txtar.File
}

func readCase(t *testing.T, a *txtar.Archive) explainCase {
	t.Helper()
	c := explainCase{files: map[string]string{}}
	for _, f := range a.Files {
		switch f.Name {
		case "want":
			c.want = f.Data
			continue
		case "input.json":
			v, err := document.Parse(f.Data, document.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			c.input = v
		case "absent.json":
			if err := json.Unmarshal(f.Data, &c.absent); err != nil {
				t.Fatal(err)
			}
		default:
			c.files[f.Name] = string(f.Data)
		}
		c.rest = append(c.rest, f)
	}
	return c
}

func (c explainCase) simulate(t *testing.T, main string) Outcome {
	t.Helper()
	files := map[string]string{}
	for name, text := range c.files {
		switch name {
		case main:
			files["policy.rego"] = text
		case "policy.rego", "old.rego":
		default:
			files[name] = text
		}
	}
	p := onePolicy(t, "p", files)
	return p.simulate(context.Background(), c.input, c.absent)
}

// onePolicy compiles files and gives one package, without the checks of an
// activation: cases may be about policies that nobody should have.
func onePolicy(t testing.TB, pkg string, files map[string]string) *Policy {
	t.Helper()
	prog, problems := compile(treeOf(files), nil)
	if prog == nil {
		t.Fatal(problems)
	}
	p, err := prog.policy(pkg)
	if err != nil || p == nil {
		t.Fatalf("package %s: %v, %v", pkg, p, err)
	}
	p.revision = &revision{program: prog, number: 1}
	p.timeout, p.patience = 10*time.Second, 10*time.Second
	return p
}

func treeOf(files map[string]string) tree {
	var t tree
	for name, text := range files {
		t.files = append(t.files, file{name, text})
	}
	t.sort()
	return t
}
