package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/lab"
)

// docs/inventory.md is what the program does: its files are written, its
// commands are run against them and a forge, and what they print is compared.
// With -update the page is written anew.
func TestInventorysPageIsTrue(t *testing.T) {
	t.Parallel()
	const name = "docs/inventory.md"
	const token = "ghp_example"
	dir := t.TempDir()
	forge := made(lab.NewForge(t.Context(), t.TempDir(), ""))(t)
	t.Cleanup(func() { _ = forge.Close() })
	host := strings.TrimPrefix(forge.URL(), "http://")
	here := strings.NewReplacer("https://git.acme.example", forge.URL())
	page := strings.NewReplacer(forge.URL(), "https://git.acme.example", host, "git.acme.example", strings.ReplaceAll(host, ":", "_"), "git.acme.example", dir+"/", "")
	playPage(t, name, 10, func(b block) (shown string, commands int) {
		words := strings.Fields(b.info)
		if len(words) == 2 {
			path := filepath.Join(dir, words[1])
			noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			noError(t, os.WriteFile(path, []byte(here.Replace(b.text)), 0o600))
			if words[1] == "repos.txt" { // what the forge has is what the page has shown
				noError(t, forge.AddRepository(t.Context(), "acme/shop", filesBelow(t, filepath.Join(dir, "shop"))))
				noError(t, forge.AddRepository(t.Context(), "acme/legacy", map[string]string{"Jenkinsfile": "node {\n  withCredentials([string(credentialsId: 'deploy-key', variable: 'KEY')]) { sh 'ssh -i $KEY prod.acme.example' }\n}\n"}))
			}
		}
		if b.info != "console" {
			return b.text, 0
		}
		var out strings.Builder
		for line := range strings.Lines(b.text) {
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			commands++
			cmd := exec.CommandContext(t.Context(), "sh", "-c", here.Replace(command))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GITHUB_TOKEN=", "GH_TOKEN=", "GITLAB_TOKEN=")
			said, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v: %s", command, err, said)
			}
			if strings.Contains(string(said), token) {
				t.Errorf("%s prints the token", command)
			}
			out.WriteString(line + page.Replace(string(said)))
		}
		return out.String(), commands
	})
}

// filesBelow reads a directory.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	noError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[filepath.ToSlash(rel)] = string(data)
		return err
	}))
	return out
}
