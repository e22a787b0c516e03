package policy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/proviso-ci/proviso"
)

const goodPolicy = "package production\n\nallow if input.identity.role == \"ci\"\n"

// dirOf writes files below a new directory and gives it.
func dirOf(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	return dir
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	at := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// check loads files and gives the problems.
func check(t testing.TB, files map[string]string) Problems {
	t.Helper()
	problems, err := Check(context.Background(), Config{Dir: dirOf(t, files)}, Options{})
	if (err != nil) != (len(problems.Errors()) > 0) {
		t.Fatalf("error %v with problems %v", err, problems)
	}
	return problems
}

// Each directory that can't be used gets one clear problem: a code, a place
// and words.
func TestLoadRefuses(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.rego")
	if err := os.WriteFile(outside, []byte(goodPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, dir string)
		code  proviso.Code
		words string
	}{
		{"no directory", func(t *testing.T, dir string) { os.RemoveAll(dir) }, CodeFile, "can't be opened"},
		{"a link out of the tree", func(t *testing.T, dir string) { link(t, outside, filepath.Join(dir, "a.rego")) }, CodeFile, "leads out"},
		{"a relative link out of the tree", func(t *testing.T, dir string) {
			link(t, "../"+filepath.Base(filepath.Dir(outside))+"/secret.rego", filepath.Join(dir, "a.rego"))
		}, CodeFile, "leads out"},
		{"a link to nothing", func(t *testing.T, dir string) { link(t, "gone.rego", filepath.Join(dir, "a.rego")) }, CodeFile, "nowhere"},
		{"a linked folder", func(t *testing.T, dir string) {
			write(t, dir, "real/a.rego", goodPolicy)
			link(t, "real", filepath.Join(dir, "other"))
		}, CodeFile, "linked folder"},
		{"a pipe", func(t *testing.T, dir string) {
			if err := syscall.Mkfifo(filepath.Join(dir, "a.rego"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, CodeFile, "not a regular file"},
		{"a huge file", func(t *testing.T, dir string) {
			write(t, dir, "a.rego", goodPolicy+"# "+strings.Repeat("x", maxFileBytes))
		}, proviso.CodePolicySize, "at most"},
		{"too deep", func(t *testing.T, dir string) {
			write(t, dir, strings.Repeat("d/", maxDepth+1)+"a.rego", goodPolicy)
		}, proviso.CodePolicySize, "nested"},
		{"not UTF-8", func(t *testing.T, dir string) { write(t, dir, "a.rego", "package a\n# \xff\n") }, CodeFile, "UTF-8"},
		{"data that is a list", func(t *testing.T, dir string) { write(t, dir, "data.json", "[]") }, CodeFile, "one JSON object"},
		{"data with a member named twice", func(t *testing.T, dir string) { write(t, dir, "data.json", `{"a":1,"a":2}`) }, CodeFile, "named twice"},
		{"data that overlap", func(t *testing.T, dir string) {
			write(t, dir, "data.json", `{"a":{"b":1}}`)
			write(t, dir, "a/data.json", `{"b":2}`)
		}, CodeFile, "another data.json"},
		{"data where a rule is", func(t *testing.T, dir string) {
			write(t, dir, "a.rego", goodPolicy)
			write(t, dir, "data.json", `{"production":{"allow":true}}`)
		}, CodeTypeCheck, "conflict"},
		{"OPA's own package", func(t *testing.T, dir string) {
			write(t, dir, "a.rego", "package system.log\n\ndrop if true\n")
		}, proviso.CodePolicyScope, "no policy reaches the record"},
		{"a package that no grant can name", func(t *testing.T, dir string) {
			write(t, dir, "a.rego", "package a[\"b.c\"]\n\nallow if input.identity.role == \"x\"\n")
		}, CodeTypeCheck, "can't name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			_, err := Open(Config{Dir: dir}, Options{Log: silent})
			refused(t, err, c.code, c.words)
		})
	}
}

func TestLoadIsBoundedInFilesAndEntries(t *testing.T) {
	root, err := os.OpenRoot(dirOf(t, map[string]string{"a.rego": goodPolicy}))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, r := range []reader{{root: root, out: tree{files: make([]file, maxFiles)}}, {root: root, entries: maxEntries}, {root: root, bytes: maxAllBytes}} {
		r.folder(".", 0)
		if len(r.problems) != 1 || r.problems[0].Code != proviso.CodePolicySize || !r.full {
			t.Errorf("%v", r.problems)
		}
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// refused checks that err is a refusal with this code whose text has words.
func refused(t testing.TB, err error, code proviso.Code, words string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	no := proviso.AsRefusal(err, "", "")
	if no.Code != code || no.Stage != proviso.StagePolicy || !strings.Contains(err.Error(), words) {
		t.Errorf("stage %s, code %s, want %s with %q:\n%v", no.Stage, no.Code, code, words, err)
	}
}

// A Kubernetes volume shows its files as links within the tree, through a
// hidden folder; that works.
func TestLoadFollowsLinksInside(t *testing.T) {
	dir := dirOf(t, map[string]string{"..2026/production.rego": goodPolicy, "notes.txt": "x", "testdata/broken.rego": "no rego", ".hidden.rego": "no rego"})
	link(t, "..2026", filepath.Join(dir, "..data"))
	link(t, "..data/production.rego", filepath.Join(dir, "production.rego"))
	e := open(t, dir)
	if _, err := e.For("production"); err != nil {
		t.Error(err)
	}
	if got := e.Status().Ignored; len(got) != 1 || got[0] != "notes.txt" {
		t.Errorf("ignored %v", got)
	}
}

func TestData(t *testing.T) {
	dir := dirOf(t, map[string]string{
		"p.rego":           "package p\n\nallow if {\n\tinput.context.branch == data.settings.branch\n\tinput.identity.tenant in data.team.a.tenants\n}\n",
		"data.json":        `{"settings":{"branch":"main"},"team":{"x":1}}`,
		"team/a/data.json": `{"tenants":["acme"]}`,
	})
	p, err := open(t, dir).For("p")
	if err != nil {
		t.Fatal(err)
	}
	out, _ := p.Simulate(context.Background(), input(t, `{"context":{"branch":"main"},"identity":{"tenant":"acme"}}`))
	if !out.Allowed {
		t.Errorf("%+v", out)
	}
}

// The digest of a package covers what its decisions rest on, and nothing else.
func TestDigests(t *testing.T) {
	files := map[string]string{
		"a.rego":      "package a\n\nimport data.lib\n\nallow if lib.ok\n",
		"lib.rego":    "package lib\n\nok if input.identity.role == data.roles.ci\n",
		"b.rego":      "package b\n\nallow if input.identity.role == \"b\"\n",
		"data.json":   `{"roles":{"ci":"x"}}`,
		"o/data.json": `{"v":1}`,
	}
	digests := func() (all, a, b string) {
		e := open(t, dirOf(t, files))
		pa, _ := e.For("a")
		pb, _ := e.For("b")
		return e.Status().Digest, pa.Digest(), pb.Digest()
	}
	all, a, b := digests()
	if again, _, _ := digests(); again != all || a == b || !strings.HasPrefix(all, "sha256:") {
		t.Errorf("digests %s %s %s, again %s", all, a, b, again)
	}
	for name, changes := range map[string]struct{ a, b bool }{
		"lib.rego": {true, false}, "b.rego": {false, true}, "data.json": {true, false}, "o/data.json": {false, false}, "a.rego": {true, false},
	} {
		was := files[name]
		files[name] = was + "\n"
		all2, a2, b2 := digests()
		if all2 == all || (a2 != a) != changes.a || (b2 != b) != changes.b {
			t.Errorf("after a change of %s: all changed %v, a changed %v, b changed %v", name, all2 != all, a2 != a, b2 != b)
		}
		files[name] = was
	}
}
