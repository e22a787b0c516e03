package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/proviso-ci/proviso/lab"
)

// tutorial runs a page as its reader would: it writes the files that the page
// shows, and runs its commands one after the other. The CI platform is the lab's.
type tutorial struct {
	t      *testing.T
	dir    string
	github *lab.Issuer
	here   *strings.Replacer // the page's addresses to this test's
	page   *strings.Replacer // and back
	ended  []*exec.Cmd
	log    lockedBuffer // of what was started
}

func newTutorial(t *testing.T) *tutorial {
	t.Helper()
	tut := &tutorial{t: t, dir: t.TempDir(), github: made(lab.NewIssuer(lab.GitHub, lab.IssuerOptions{Keys: []*lab.Key{made(labKey())(t)}}))(t)}
	t.Cleanup(func() { _ = tut.github.Close() })
	host := loopback()
	const theirs = "https://token.actions.githubusercontent.com"
	tut.here = strings.NewReplacer("url: "+theirs, "url: "+tut.github.URL()+"\n    allow_private: true", "127.0.0.1:8080", host+":8080", "127.0.0.1:9000", host+":9000")
	tut.page = strings.NewReplacer(tut.github.URL(), theirs, host, "127.0.0.1", tut.dir+"/", "")
	t.Cleanup(func() {
		for _, cmd := range tut.ended {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		}
	})
	return tut
}

// console runs the commands of a block, each followed by what it printed.
func (tut *tutorial) console(b block) string {
	tut.t.Helper()
	env := os.Environ()
	if words := strings.Fields(b.info); len(words) > 1 && words[1] == "in-a-job" {
		job := lab.Job{Environment: "-"}
		for _, w := range words[2:] {
			job.Branch = strings.TrimPrefix(w, "branch=")
		}
		env = append(env, made(tut.github.Start(job).Environment(""))(tut.t)...)
		env = append(env, "PROVISO_URL="+tut.here.Replace("http://127.0.0.1:8080"))
	}
	var out strings.Builder
	for line := range strings.Lines(b.text) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		out.WriteString(line)
		command = tut.here.Replace(strings.TrimSpace(command))
		if background, ok := strings.CutSuffix(command, " &"); ok {
			tut.start(background, env)
			continue
		}
		cmd := exec.CommandContext(tut.t.Context(), "sh", "-c", command)
		cmd.Dir, cmd.Env = tut.dir, env
		said, err := cmd.CombinedOutput()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() == exitMisuse) {
			tut.t.Errorf("%s: %v: %s", command, err, said)
		}
		for line := range strings.Lines(tut.page.Replace(string(said))) {
			if !strings.HasPrefix(line, "::") { // GitHub acts on these, and shows them to nobody
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// start runs a command that goes on, and waits until it is ready.
func (tut *tutorial) start(command string, env []string) {
	tut.t.Helper()
	cmd := exec.Command("sh", "-c", "exec "+command)
	cmd.Dir, cmd.Env, cmd.Stderr = tut.dir, env, &tut.log
	noError(tut.t, cmd.Start())
	tut.ended = append(tut.ended, cmd)
	address := "127.0.0.1:8080"
	if strings.Contains(command, " gate ") {
		address = "127.0.0.1:9000"
	}
	eventually(tut.t, command+" is ready", func() bool {
		resp, err := http.Get("http://" + tut.here.Replace(address) + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
}

// changing are the parts of an output that differ from run to run, and how the
// page shows them.
var changing = []struct {
	found *regexp.Regexp
	shown string
}{
	{regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`), "01M8BN7Q2ZC5T0V9W3X4Y6A8DE"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "2026-11-26T10:04:05Z"},
	{regexp.MustCompile(`credential [0-9a-f]{32}\b`), "credential 5e2f9c1d7a3b48e6a0c4d8f2b6e09173"},
	{regexp.MustCompile(`root [A-Za-z0-9+/]{43}=`), "root Zm9yIHRoZSBwYWdlIG9ubHksIGRpZmZlcnMgYWx3YXk="},
	{regexp.MustCompile(`until \d\d:\d\d:\d\dZ`), "until 10:19:05Z"},
	{regexp.MustCompile(`\b\d+ characters`), "899 characters"},
}

func steady(text string) string {
	for _, c := range changing {
		text = c.found.ReplaceAllString(text, c.shown)
	}
	return text
}

// The first hour works: every file that the page shows is used as it stands,
// every command is run, and prints what the page says. With -update the page
// gets what they print.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	const name = "docs/quickstart.md"
	tut := newTutorial(t)
	playPage(t, name, 14, func(b block) (shown string, commands int) {
		words := strings.Fields(b.info)
		switch {
		case len(words) == 2 && words[0] != "console":
			path := filepath.Join(tut.dir, words[1])
			noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			_, replaced := os.Stat(path)
			noError(t, os.WriteFile(path, []byte(tut.here.Replace(b.text)), 0o600))
			if replaced == nil && strings.HasSuffix(path, ".rego") {
				tut.policiesAreActive()
			}
		case len(words) > 0 && words[0] == "console" && !strings.Contains(b.info, "elsewhere"):
			return steady(tut.console(b)), strings.Count("\n"+b.text, "\n$ ")
		}
		return b.text, 0
	})
}

// policiesAreActive waits until the broker says that the changed policy decides.
func (tut *tutorial) policiesAreActive() {
	tut.t.Helper()
	eventually(tut.t, "the changed policy decides", func() bool {
		return strings.Contains(tut.log.String(), `"msg":"policies are active","revision":2`)
	})
}
