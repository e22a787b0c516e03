package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/inventory"
)

// Each patch applies with the real git in the order of the plan; after it the
// static path of each patched place is gone, another way is there, nothing else
// has changed, and the pipelines are valid YAML.
func TestPatchesApplyAndDoWhatTheySay(t *testing.T) {
	for _, route := range []Route{Direct, ThroughProviso} {
		for _, name := range fixtures {
			t.Run(string(route)+"/"+name, func(t *testing.T) {
				dir := clone(t, name)
				p := planOf(t, dir, Options{Route: route, Broker: "https://proviso.acme.example"})
				files := write(t, p)
				patched := 0
				for _, it := range p.Items {
					if it.Patch == nil {
						if len(it.Manual) == 0 {
							t.Errorf("%s has neither patch nor steps", it.ID)
						}
						continue
					}
					patched++
					before := scan(t, dir)
					git(t, dir, "apply", "--check", filepath.Join(files, it.Patch.File))
					git(t, dir, "apply", filepath.Join(files, it.Patch.File))
					checkAfter(t, &it, before, scan(t, dir))
				}
				validYAML(t, dir)
				diff := git(t, dir, "diff", "--no-color")
				if patched == 0 {
					t.Error("no item has a patch")
				}
				golden(t, name+"."+string(route)+".diff", diff)
			})
		}
	}
}

// checkAfter compares the scans before and after one patch.
func checkAfter(t *testing.T, it *Item, before, after *inventory.Inventory) {
	t.Helper()
	var left []string
	for i := range before.Paths {
		p := &before.Paths[i]
		mine := slices.ContainsFunc(it.Places, func(pl Place) bool {
			return pl.Patched && pl.File == p.File && pl.Job == p.Job && pl.Secret == p.Credential.Name
		})
		if isStatic(p) && !mine {
			left = append(left, p.Job+" "+p.Credential.Name+" "+p.Resource.Kind)
		}
	}
	var now []string
	better := make(map[string]bool)
	for i := range after.Paths {
		p := &after.Paths[i]
		if isStatic(p) {
			now = append(now, p.Job+" "+p.Credential.Name+" "+p.Resource.Kind)
		}
		pod := p.Credential.Kind == inventory.Ambient && strings.HasPrefix(p.ExposedVia, "artifact ") // which a store finds by itself
		if p.Credential.Kind == inventory.Federated || pod || it.Via == ViaPlatform && p.Credential.Kind == inventory.PlatformToken {
			better[p.File+p.Job] = true
		}
	}
	slices.Sort(left)
	slices.Sort(now)
	if !slices.Equal(left, now) {
		t.Errorf("%s: the static paths after the patch are not those before without the item's:\nwant %q\nhave %q", it.ID, left, now)
	}
	for _, pl := range it.Places {
		if pl.Patched && !better[pl.File+pl.Job] {
			t.Errorf("%s: job %s has no federated path after the patch", it.ID, pl.Job)
		}
	}
	if n := len(after.Files) - len(before.Files); n != 0 {
		t.Errorf("%s: the scan sees %d files more", it.ID, n)
	}
	for _, f := range after.Files {
		if f.Status != inventory.StatusRead {
			t.Errorf("%s: %s is %s after the patch: %s", it.ID, f.File, f.Status, f.Detail)
		}
	}
}

func isStatic(p *inventory.Path) bool {
	return p.Credential.Kind == inventory.StaticSecret && p.Credential.Nature != inventory.NatureIdentifier && (p.Credential.Source == "" || p.Credential.Source == "kubernetes")
}

func validYAML(t *testing.T, dir string) {
	t.Helper()
	for _, f := range strings.Fields(git(t, dir, "ls-files")) {
		if ext := filepath.Ext(f); ext != ".yml" && ext != ".yaml" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		var v any // a key that stands twice in a mapping is an error when it is decoded
		if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%s is no valid YAML after the patches: %v", f, err)
		}
	}
}

// One item alone is patched against the files as they are.
func TestOneItemAlone(t *testing.T) {
	dir := clone(t, "github")
	all := planOf(t, dir, Options{})
	for _, it := range all.Items {
		if it.Patch == nil {
			continue
		}
		p := planOf(t, dir, Options{Only: []string{it.ID}})
		if len(p.Items) != 1 || p.Items[0].Patch == nil {
			t.Fatalf("--only %s gives %d items", it.ID, len(p.Items))
		}
		git(t, dir, "apply", "--check", filepath.Join(write(t, p), p.Items[0].Patch.File))
	}
}

// Where a patch would guess there is none, and the reason names the line.
func TestNoPatchThatGuesses(t *testing.T) {
	p := planOf(t, clone(t, "shapes"), Options{})
	want := map[string]string{
		"flow":         "not written as one key a line",
		"anchored":     "anchor",
		"alias":        "anchor",
		"whole-object": "all secrets",
		"longer":       "longer expression",
	}
	for _, it := range p.Items {
		for _, m := range it.Manual {
			if part, ok := want[m.Job]; !ok {
				t.Errorf("%s: job %s has no patch: %s", it.ID, m.Job, m.Why)
			} else if !strings.Contains(m.Why, part) {
				t.Errorf("%s: job %s: the reason is %q, it should say %q", it.ID, m.Job, m.Why, part)
			}
			if m.Line == 0 || len(m.Steps) == 0 {
				t.Errorf("%s: job %s: line %d, steps %q", it.ID, m.Job, m.Line, m.Steps)
			}
		}
		for _, pl := range it.Places {
			if _, ok := want[pl.Job]; ok && pl.Patched {
				t.Errorf("job %s was patched", pl.Job)
			}
		}
	}
}

// A pipeline that changed since the inventory was made gets no patch.
func TestAStaleInventoryGetsNoPatch(t *testing.T) {
	dir := clone(t, "gitlab")
	inv := scan(t, dir)
	put(t, dir, ".gitlab-ci.yml", "# changed\n")
	p, err := Make(t.Context(), []Tree{{Dir: dir, Inventory: inv}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range p.Items {
		if it.Patch != nil || !strings.Contains(it.Manual[0].Why, "has changed since") {
			t.Errorf("%s: patch %v, %v", it.ID, it.Patch, it.Manual)
		}
	}
	p, err = Make(t.Context(), []Tree{{Inventory: inv}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if it := p.Items[0]; it.Patch != nil || !strings.Contains(it.Manual[0].Why, "is not here") {
		t.Errorf("without the files: %v", it.Manual)
	}
}

// An inventory from elsewhere can't make the plan read outside of its tree.
func TestAForeignInventoryReadsNothingOutside(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "secret.yml", "jobs: {}\n")
	put(t, dir, "tree/.keep", "")
	for _, file := range []string{"../secret.yml", filepath.Join(dir, "secret.yml")} {
		inv := &inventory.Inventory{Version: 1, Root: "tree", Paths: []inventory.Path{{ID: "path-0000000000000001", File: file, Line: 1, CI: inventory.GitHub, Job: "a",
			Credential: inventory.Credential{Kind: inventory.StaticSecret, Name: "NPM_TOKEN"}, Resource: inventory.Resource{Kind: "registry/npm", Name: "unknown"}}}}
		p, err := Make(t.Context(), []Tree{{Dir: filepath.Join(dir, "tree"), Inventory: inv}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if why := p.Items[0].Manual[0].Why; !strings.Contains(why, "can't be opened") {
			t.Errorf("%s: %s", file, why)
		}
	}
}

// A patch that does something else than it says is not shown: the scan of the
// patched text is what decides, not the code that made it.
func TestAWrongPatchIsNotShown(t *testing.T) {
	right := methods["pypi"].github
	defer func() { methods["pypi"].github = right }()
	for name, c := range map[string]struct {
		patch func(*ghJob, *draft) error
		want  string
	}{
		"changes nothing": {func(j *ghJob, _ *draft) error { j.f.edits.put(0, 0, "# nothing"); return nil }, "would still use PYPI_API_TOKEN"},
		"adds no identity": {func(j *ghJob, d *draft) error {
			u := j.uses(d.names())[0]
			return j.f.dropEntries(u.mapKey, u.m, "user", "password")
		}, "does not see the new way"},
		"takes another secret out": {func(j *ghJob, d *draft) error {
			for i, s := range j.f.text {
				if strings.Contains(s, "secrets.NPM_TOKEN") {
					j.f.edits.put(i, i+1)
				}
			}
			return right(j, d)
		}, "another access path"},
		"breaks the YAML": {func(j *ghJob, d *draft) error { j.f.edits.put(0, 0, "a: ["); return right(j, d) }, "could not be read again"},
		"meets itself": {func(j *ghJob, d *draft) error {
			j.f.edits.put(0, 3, "x: y")
			j.f.edits.put(1, 2, "z: y")
			return nil
		}, "two changes meet"},
	} {
		methods["pypi"].github = c.patch
		p := planOf(t, clone(t, "github"), Options{Only: []string{"PYPI_API_TOKEN"}})
		it := p.Items[0]
		if it.Patch != nil || len(it.Manual) != 1 || !strings.Contains(it.Manual[0].Why, c.want) {
			t.Errorf("a patch that %s: patch %v, %+v; want %q", name, it.Patch, it.Manual, c.want)
		}
		if len(it.Proof) == 0 || len(it.Deletion) == 0 || it.Trust == nil {
			t.Errorf("a patch that %s: the rest of the item is missing", name)
		}
	}
}

// Files that are made to cost, or to break the maker of patches, cost their own
// patch and nothing else.
func TestHostileFilesCostLittle(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("on: push\nx0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&laughs, "x%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	many := strings.Repeat("      - run: x ${{ secrets.PYPI }}\n", 20_000)
	for name, text := range map[string]string{
		"laughs":    laughs.String() + "jobs:\n  a:\n    runs-on: ubuntu-latest\n    strategy: {matrix: {x: *a39}}\n    steps:\n      - uses: pypa/gh-action-pypi-publish@release/v1\n        with: {password: '${{ secrets.PYPI }}'}\n",
		"many":      "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n" + many,
		"deep":      "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: x ${{ secrets.PYPI }}\n        env: " + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "\n",
		"loop":      "on: push\njobs: &j\n  a: *j\n  b:\n    runs-on: ubuntu-latest\n    steps: [{run: 'x ${{ secrets.PYPI }}'}]\n",
		"empty":     "on: push\njobs:\n  a:\n    runs-on:\n    steps:\n      -\n      - \n        with:\n        env: {}\n      - run: x ${{ secrets.PYPI }}\n        env:\n",
		"umlaut":    "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - {name: 'äöü', run: 'ä ${{ secrets.PYPI }}'}\n      - env: {Ä: '${{ secrets.PYPI }}'}\n        run: ü\n",
		"two":       "on: push\njobs: {}\n---\non: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: x ${{ secrets.PYPI }}\n",
		"quoted":    "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: \"x \\\n          ${{ secrets.PYPI }}\"\n      - run: 'it''s ${{ secrets.PYPI }}'\n",
		"same line": "on: push\njobs:\n  a: {runs-on: ubuntu-latest, steps: [{run: 'x ${{ secrets.PYPI }}'}]}\n",
	} {
		dir := t.TempDir()
		put(t, dir, ".github/workflows/x.yml", text)
		p := planOf(t, dir, Options{}) // without a bound it would not come back
		wellFormed(t, p)
		for _, it := range p.Items {
			for _, m := range it.Manual {
				if strings.Contains(m.Why, "does not know") {
					t.Errorf("%s: the maker of patches panicked", name)
				}
			}
		}
	}
}
