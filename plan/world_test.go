package plan

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/proviso-ci/proviso/inventory"
)

var update = flag.Bool("update", false, "write the golden files anew")

// clone unpacks a fixture as a real clone: files, a commit, a remote.
func clone(t *testing.T, name string) string {
	t.Helper()
	ar, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	remote, _, _ := strings.Cut(strings.TrimPrefix(string(ar.Comment), "remote: "), "\n")
	for _, f := range ar.Files {
		text := string(f.Data)
		switch filepath.Base(f.Name) {
		case "crlf.yml":
			text = strings.ReplaceAll(text, "\n", "\r\n")
		case "bom.yml":
			text = byteOrderMark + text
		case "noend.yml":
			text = strings.TrimSuffix(text, "\n")
		}
		put(t, dir, f.Name, text)
	}
	git(t, dir, "init", "-q", "-b", "main", ".")
	git(t, dir, "remote", "add", "origin", remote)
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "before")
	return dir
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	full := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// git runs the real git, without anybody's configuration.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t.example", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t.example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// planOf scans a directory and plans.
func planOf(t *testing.T, dir string, opt Options) *Plan {
	t.Helper()
	p, err := Make(context.Background(), []Tree{{Dir: dir, Inventory: scan(t, dir)}}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func scan(t *testing.T, dir string) *inventory.Inventory {
	t.Helper()
	inv, err := inventory.Scan(context.Background(), dir, inventory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// write puts the files of a plan into a directory.
func write(t *testing.T, p *Plan) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range p.Files {
		put(t, dir, f.Name, f.Text)
	}
	return dir
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the patches make; read the difference with -update and git diff.\n%s", file, got)
	}
}

var fixtures = []string{"github", "shapes", "gitlab", "bitbucket", "circleci", "buildkite", "azure", "forgejo", "jenkins", "kube"}

// blocksOf names the blocks of a Terraform file.
func blocksOf(t *testing.T, file *hcl2.File) (out []string) {
	t.Helper()
	body, ok := file.Body.(*hclsyntax.Body)
	if !ok {
		t.Fatal("this is not native syntax")
	}
	for _, b := range body.Blocks {
		out = append(out, strings.Join(append([]string{b.Type}, b.Labels...), " "))
	}
	return out
}
