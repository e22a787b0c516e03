package trust

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files")

// extract writes the files of an archive, all but the golden one, and scans them.
func extract(t *testing.T, a *txtar.Archive) *Found {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		if f.Name == "want" {
			continue
		}
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Scan(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every form is read with its conditions, their lines, and what it binds: the
// golden part of each archive was read line by line against the files.
func TestEveryFormIsRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d archives: %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := describe(extract(t, a))
			last := &a.Files[len(a.Files)-1]
			if *update {
				if last.Name != "want" {
					a.Files = append(a.Files, txtar.File{Name: "want"})
					last = &a.Files[len(a.Files)-1]
				}
				last.Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(last.Data), got); last.Name != "want" || diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// describe prints what was found, one line for each fact.
func describe(found *Found) string {
	var b strings.Builder
	for _, tr := range found.Trusts {
		fmt.Fprintf(&b, "%s:%d %s %s %s\n", tr.File, tr.Line, tr.Kind, tr.Target.Kind, tr.Target.Name)
		fmt.Fprintf(&b, "\tissuer %q platform %q audiences %q any audience %v\n", tr.Issuer, tr.Platform(), tr.Audiences, tr.NoAudience)
		if len(tr.Gives) > 0 {
			fmt.Fprintf(&b, "\tgives %q\n", tr.Gives)
		}
		for _, c := range tr.Conditions {
			fmt.Fprintf(&b, "\t%d: %s %s %q", c.Line, c.Claim, c.Match, c.Values)
			if c.Not {
				b.WriteString(" not")
			}
			if c.AbsentPasses {
				b.WriteString(" absent passes")
			}
			b.WriteString("\n")
		}
		for _, u := range tr.Unresolved {
			fmt.Fprintf(&b, "\t%d: unresolved: %s\n", u.Line, u.Why)
		}
		w := tr.Bounds()
		fmt.Fprintf(&b, "\tbounds:")
		for _, p := range []struct {
			name string
			is   bool
		}{{"tenant", w.Tenant}, {"project", w.Project}, {"part", w.Part}, {"ids", w.IDs}, {"old subject", w.OldSubject != nil}, {"by name", w.ByName != nil},
			{"open", w.Open != nil}, {"open tenant", w.OpenTenant}, {"pull requests", w.PullRequests != nil}, {"opaque", w.Opaque}} {
			if p.is {
				fmt.Fprintf(&b, " %s,", p.name)
			}
		}
		b.WriteString("\n")
	}
	for _, p := range found.Problems {
		fmt.Fprintf(&b, "problem %s:%d: %s\n", p.File, p.Line, p.Why)
	}
	return b.String()
}
