package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// remote makes a repository that can be fetched, and gives its URL.
func remote(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "acme", "shop")
	for name, text := range files {
		full := filepath.Join(dir, name)
		noError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		noError(t, os.WriteFile(full, []byte(text), 0o644))
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main", "."}, {"add", "-A"}, {"commit", "-q", "-m", "x"}, {"config", "uploadpack.allowFilter", "true"}, {"config", "uploadpack.allowAnySHA1InWant", "true"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@t.example", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@t.example")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return "file://" + dir
}

const leaky = "on: pull_request_target\njobs:\n  x:\n    runs-on: ubuntu-latest\n    steps:\n      - run: sonar-scanner\n        env:\n          SONAR_TOKEN: ${{ secrets.SONAR_TOKEN }}\n"

// silence is a file that ignores a repository's own finding.
func silence() string {
	return "ignore:\n  - {rule: fork-reachable-secret, file: '**', reason: says the repository itself, expires: " + time.Now().AddDate(1, 0, 0).Format(time.DateOnly) + "}\n"
}

// list writes a list of URLs.
func list(t *testing.T, urls ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "repos.txt")
	noError(t, os.WriteFile(name, []byte(strings.Join(urls, "\n")+"\n"), 0o644))
	return name
}

// findingsOf lists the files with a finding of a rule, and those that were set aside.
func findingsOf(t *testing.T, rule string, args ...string) (open, aside []string) {
	t.Helper()
	code, out, stderr := runCLI(t, append([]string{"inventory", "-q", "-o", "json"}, args...)...)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var doc struct {
		Findings, Suppressed []struct{ Rule, File string }
	}
	noError(t, json.Unmarshal([]byte(out), &doc))
	for _, f := range doc.Findings {
		if f.Rule == rule {
			open = append(open, f.File)
		}
	}
	for _, f := range doc.Suppressed {
		if f.Rule == rule {
			aside = append(aside, f.File)
		}
	}
	return open, aside
}

// A repository that was fetched can't silence its own findings, and no tree
// those of another one; the directory that somebody names is asked.
func TestWhoMaySilenceFindings(t *testing.T) {
	const rule = "fork-reachable-secret"
	url := remote(t, map[string]string{".github/workflows/x.yml": leaky, ignoreFile: silence()})
	mine := t.TempDir()
	for name, text := range map[string]string{".github/workflows/mine.yml": leaky, ignoreFile: silence()} {
		noError(t, os.MkdirAll(filepath.Dir(filepath.Join(mine, name)), 0o755))
		noError(t, os.WriteFile(filepath.Join(mine, name), []byte(text), 0o644))
	}
	if open, aside := findingsOf(t, rule, mine); len(open) != 0 || len(aside) != 1 {
		t.Errorf("the named directory's own decisions: open %v, aside %v", open, aside)
	}
	if open, aside := findingsOf(t, rule, "--no-ignore-file", mine); len(open) != 1 || len(aside) != 0 {
		t.Errorf("--no-ignore-file: open %v, aside %v", open, aside)
	}
	fetch := []string{"--repos", list(t, url), "--allow-file-urls", "--cache", t.TempDir()}
	if open, aside := findingsOf(t, rule, fetch...); len(open) != 1 || len(aside) != 0 {
		t.Errorf("a fetched repository silenced itself: open %v, aside %v", open, aside)
	}
	open, aside := findingsOf(t, rule, append(fetch, mine)...)
	if len(open) != 1 || !strings.HasSuffix(open[0], "x.yml") || len(aside) != 1 || !strings.HasSuffix(aside[0], "mine.yml") {
		t.Errorf("the named directory beside a fetched one: open %v, aside %v", open, aside)
	}
}

// A plan is made of an estate as of directories, and what is in its way is said.
func TestPlanOfAnEstate(t *testing.T) {
	url := remote(t, map[string]string{".github/workflows/tell.yml": "on: {push: {branches: [main]}}\njobs:\n  tell:\n    runs-on: ubuntu-latest\n    steps:\n      - run: sentry-cli releases new 1\n        env:\n          SENTRY_AUTH_TOKEN: ${{ secrets.SENTRY_AUTH_TOKEN }}\n"})
	cache, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := runCLI(t, "plan", "--repos", list(t, url, "file://"+filepath.Join(t.TempDir(), "none")), "--allow-file-urls", "--cache", cache, "--write", out)
	if code != exitDone || !strings.Contains(stdout, "sentry") || !strings.Contains(stdout, "patch") || !strings.Contains(stderr, "not seen: 1") {
		t.Fatalf("exit %d\n%s\n%s", code, stdout, stderr)
	}
	patches, err := filepath.Glob(filepath.Join(out, "patches", "*.patch"))
	if err != nil || len(patches) != 1 {
		t.Fatalf("patches: %v %v", patches, err)
	}
	cmd := exec.Command("git", "apply", "--check", patches[0])
	cmd.Dir = strings.TrimPrefix(url, "file://")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the patch doesn't apply in the repository: %v\n%s", err, text)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"plan", "--repos", "none.txt"}, "--repos"},
		{[]string{"plan", "--repos", list(t, url), "--github-org", "acme"}, "name one"},
		{[]string{"plan", "--inventory", "x.json", "--github-org", "acme"}, "two sources of one plan"},
	} {
		if code, _, stderr := runCLI(t, c.args...); code == exitDone || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %q; want %q", c.args, code, stderr, c.want)
		}
	}
}
