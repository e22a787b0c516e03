package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCorpus reads a folder of other people's pipelines, which this repository
// doesn't carry, where PROVISO_CORPUS names one; else the project's own truth,
// so that it always looks at something. Every file that is taken for a
// pipeline is read or explained, no reader fails, and every line lies in its file.
func TestCorpus(t *testing.T) {
	root, atLeast, systems := os.Getenv("PROVISO_CORPUS"), 500, 9
	if root == "" {
		t.Log("PROVISO_CORPUS names no folder of real pipelines: the project's own are read instead")
		root, atLeast, systems = "testdata/truth", 60, 15
	}
	inv, err := Scan(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[CI]int)
	explained := 0
	for _, f := range inv.Files {
		count[f.CI]++
		switch f.Status {
		case StatusRead:
		case StatusPartly, StatusUnreadable, StatusUnsupported:
			explained++
			if f.Detail == "" {
				t.Errorf("%s: %s, and nothing says why", f.File, f.Status)
			}
			t.Logf("%s (%s): %s, line %d: %s", f.File, f.CI, f.Status, f.Line, f.Detail)
		default:
			t.Errorf("%s has the status %q", f.File, f.Status)
		}
		if strings.Contains(f.Detail, "the reader failed") {
			t.Errorf("%s: %s", f.File, f.Detail)
		}
	}
	if len(inv.Files) < atLeast || len(count) < systems {
		t.Errorf("%d pipelines of %d systems were found below %s, expected %d of %d: this test looks at too little", len(inv.Files), len(count), root, atLeast, systems)
	}
	lines := make(map[string]int)
	for _, p := range inv.Paths {
		if _, ok := lines[p.File]; !ok {
			raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p.File)))
			if err != nil {
				t.Fatal(err)
			}
			text, err := decodeText(raw)
			if err != nil {
				t.Fatal(err)
			}
			lines[p.File] = 1 + strings.Count(text, "\n")
		}
		if p.Line < 1 || p.Line > lines[p.File] {
			t.Errorf("%s has %d lines, a path points at line %d: %+v", p.File, lines[p.File], p.Line, p.Credential)
		}
		if p.Credential.Name == "" || p.Resource.Kind == "" || p.Reach.Trust == "" || p.Runner.Kind == "" {
			t.Errorf("a path with a hole: %+v", p)
		}
	}
	t.Logf("%d pipelines, %d of them not wholly read and explained, %d paths, %d unresolved parts", len(inv.Files), explained, len(inv.Paths), len(inv.Unresolved))
	for _, ci := range sortedKeys(countNames(count)) {
		t.Logf("%-24s %5d", ci, count[CI(ci)])
	}
}

func countNames(m map[CI]int) map[string]int {
	out := make(map[string]int, len(m))
	for k, v := range m {
		out[string(k)] = v
	}
	return out
}
