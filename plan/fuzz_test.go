package plan

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzMake: whatever stands in a pipeline, planning ends, no editor fails on
// it, and each item says how its places are changed.
func FuzzMake(f *testing.F) {
	names := []string{".github/workflows/a.yml", ".gitlab-ci.yml", "bitbucket-pipelines.yml", ".circleci/config.yml", ".buildkite/pipeline.yml", "azure-pipelines.yml", ".forgejo/workflows/a.yml", "Jenkinsfile", ".tekton/a.yaml"}
	for _, set := range fixtures {
		a, err := txtar.ParseFile(filepath.Join("testdata", set+".txtar"))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			for i, n := range names {
				if filepath.Base(n) == filepath.Base(file.Name) || filepath.Dir(n) == filepath.Dir(file.Name) {
					f.Add(uint8(i), string(file.Data))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		dir := t.TempDir()
		put(t, dir, names[int(which)%len(names)], text)
		p, err := Make(context.Background(), []Tree{{Dir: dir, Inventory: scan(t, dir)}}, Options{Broker: "https://proviso.acme.example"})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range p.Items {
			if it.Patch == nil && len(it.Manual) == 0 {
				t.Errorf("%s has neither patch nor steps", it.ID)
			}
			for _, m := range it.Manual {
				if strings.Contains(m.Why, editorFailed) {
					t.Errorf("%s: %s", it.ID, m.Why)
				}
			}
		}
	})
}
