package trust

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzScan: whatever stands in a file that can be a trust, and in the module
// that it calls, reading it ends, no reader fails on it, and what is found has a place in it.
func FuzzScan(f *testing.F) {
	names := []string{"main.tf", "trust.json", "roles.yaml", ".github/chainguard/ci.sts.yaml", "main.bicep", "terraform.tfvars"}
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			for i, n := range names {
				if filepath.Ext(n) == filepath.Ext(file.Name) {
					f.Add(uint8(i), string(file.Data))
				}
			}
		}
	}
	f.Add(uint8(0), "module \"x\" {\n  source = \"./m\"\n  y = module.x.z\n}\noutput \"z\" {\n  value = var.y\n}\n# oidc\n")
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		dir := t.TempDir()
		for _, name := range []string{names[int(which)%len(names)], "m/main.tf"} {
			full := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		found, err := Scan(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range found.Problems {
			if strings.Contains(p.Why, "the reader failed") {
				t.Errorf("%s: %s", p.File, p.Why)
			}
		}
		for _, tr := range found.Trusts {
			if tr.ID == "" || tr.Kind == "" || tr.Line < 1 || tr.Line > lines {
				t.Errorf("a trust without a place: %+v", tr)
			}
		}
	})
}
