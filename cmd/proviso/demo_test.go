package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/proviso-ci/proviso/lab"
)

// The demo is a promise: it plays to its end, everything comes out as it must,
// the table says so in words, and no credential is in it.
func TestDemo(t *testing.T) {
	t.Parallel()
	code, said := cli(t, "demo")
	if code != exitDone {
		t.Fatalf("the demo ended with %d:\n%s", code, said)
	}
	for _, line := range []string{
		`(?m)^The six policies$`, `(?m)^The main attacks$`, `(?m)^The record$`,
		`(?m)^    deploy from main, signed, in office hours   granted  token for deploy\.acme\.example: deploy,$`,
		`(?m)^    the same from branch release/1\.2            refused  branch is release/1\.2, policy wants main$`,
		`(?m)^    globex's job, acme's data                   refused  identity\.tenant is globex, `,
		`(?m)^    the same token, a second time               refused  replay: `,
		`(?m)^    a thief shows it to the resource            refused  by the resource: 401 without a proof, 401$`,
		`(?m)^  8 receipts and the whole log of \d+ entries verified offline, with the log's public key alone:$`,
		`(?m)^8 granted, 15 refused, each as it must be, in \d+\.\d s\.$`,
	} {
		if !regexp.MustCompile(line).MatchString(said) {
			t.Errorf("the demo does not say %s:\n%s", line, said)
		}
	}
	if strings.Contains(said, "eyJ") || strings.Contains(said, "\x1b[") || strings.Contains(said, "WRONG") {
		t.Error("the demo prints a token, or colours into a pipe, or a failure")
	}
}

// A scene that comes out otherwise than it must is a failure of the demo.
func TestDemoNoticesWhatIsWrong(t *testing.T) {
	w := newTestWorld(t, testWriter{t})
	for _, s := range []scene{
		{asked: "a grant that had to be refused", issuer: github, job: lab.Job{Commit: w.signed}, grant: "read-tenant-data", want: "replay"},
		{asked: "a refusal that had to be granted", issuer: gitlab, job: lab.Job{Commit: w.signed}, grant: "read-tenant-data"},
		{asked: "another refusal than the one", issuer: gitlab, job: lab.Job{Commit: w.signed}, grant: "read-tenant-data", want: "replay"},
	} {
		if _, err := w.play(t.Context(), s); err == nil {
			t.Errorf("%s is not noticed", s.asked)
		}
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) { return len(p), nil }

// Whatever dev prints to try works as it is printed, for as long as dev runs;
// afterwards nothing of it is left.
func TestDevsCommandsWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	file := made(os.Create(out))(t)
	defer file.Close()
	dev := exec.Command("proviso", "dev", "--listen", loopback()+":8080")
	dev.Stdout, dev.Env = file, append(os.Environ(), "TMPDIR="+dir)
	noError(t, dev.Start())
	ended := make(chan error, 1)
	go func() { ended <- dev.Wait() }()
	t.Cleanup(func() { _ = dev.Process.Kill() })
	text := func() string { return string(made(os.ReadFile(out))(t)) }
	eventually(t, "dev has printed its commands", func() bool { return strings.Contains(text(), "The broker's log follows.") })

	blocks := strings.Split(text(), "  # ")[1:]
	want := []string{"service says 200", "branch is release/1.2, policy wants main", "event_not_allowed", "granted    deploy-from-fleet", "life       10m0s",
		"agrees with all receipts", "refused (event_not_allowed)"}
	if len(blocks) != len(want)+1 {
		t.Fatalf("dev prints %d commands:\n%s", len(blocks), text())
	}
	script := "set +e\n"
	for i, block := range blocks[:len(want)] {
		_, commands, _ := strings.Cut(block, "\n")
		script += fmt.Sprintf("echo '=== %d'\n%s\n", i, commands)
	}
	curl := regexp.MustCompile(`curl -s -X POST -H "Authorization: Bearer \$PROVISO_TOKEN" (\S+)/deploy`)
	if !curl.MatchString(script) {
		t.Errorf("dev shows no way to use the credential:\n%s", script)
	}
	sh := exec.Command("sh", "-c", curl.ReplaceAllString(script, "step use $1")) // not every machine has curl
	sh.Env = append(os.Environ(), "TMPDIR="+dir)
	said := string(made(sh.CombinedOutput())(t))
	for i, part := range strings.Split(said, "=== ")[1:] {
		if !strings.Contains(part, want[i]) {
			t.Errorf("command %d does not say %q:\n%s", i+1, want[i], part)
		}
	}
	noError(t, dev.Process.Signal(syscall.SIGINT))
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("dev ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("dev does not end")
	}
	if left := made(filepath.Glob(filepath.Join(dir, "proviso-*")))(t); len(left) > 0 {
		t.Errorf("dev has left %v", left)
	}
}

// The commands of operators and auditors, as they are typed, each script
// against a running broker of its own.
func TestCommands(t *testing.T) {
	both := deployOnly + strings.NewReplacer("deploy: {", "main: {", "policy: open", "policy: main_only").Replace(deployOnly)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/cli",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			s := newSite(t, plan{grants: both, policies: map[string]string{
				"open.rego": openPolicy, "main_only.rego": "package main_only\n\nallow if input.context.branch == \"main\"\n",
				"open_test.rego": "package open_test\n\nimport data.open\n\ntest_role if open.allow with input.identity.role as \"ci\"\n",
			}})
			s.serve()
			env.Values["site"] = s
			_, other, err := note.GenerateKey(rand.Reader, s.address+"/log")
			for name, value := range map[string]string{
				"PROVISO_URL": s.url, "OPS": s.ops, "STORE": filepath.Join(s.dir, "data"), "CONFIG": s.file, "OTHERKEY": other,
			} {
				env.Setenv(name, value)
			}
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"job": cmdSiteJob, "flip": cmdFlip},
	})
}

// cmdSiteJob starts a job of the script's own platform: job [branch=B] [event=E] [actor=A].
func cmdSiteJob(ts *testscript.TestScript, _ bool, args []string) {
	job := lab.Job{Environment: "-"}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		*map[string]*string{"branch": &job.Branch, "event": &job.Event, "actor": &job.Actor}[name] = value
	}
	env, err := ts.Value("site").(*site).github.Start(job).Environment(ts.Getenv("PROVISO_URL"))
	ts.Check(err)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		ts.Setenv(name, value)
	}
}

// cmdFlip changes one bit of a file: of the last letter of the first place that
// has a text.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at := strings.Index(string(data), args[1])
	if at < 0 {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	data[at+len(args[1])-1] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// Help is read by people: every command says in one line what it does, every
// flag what it is for, and no line is longer than a terminal is wide.
func TestHelp(t *testing.T) {
	flagLine := regexp.MustCompile(`^ +(-[a-z], )?--[a-z0-9-]+.*   ?[A-Za-z].{8,}[^.\s]\n$`)
	doubled := regexp.MustCompile(`(?i)\b(\w+)\s+(\w+)\b`)
	var visit func(*cobra.Command)
	commands := 0
	visit = func(c *cobra.Command) {
		commands++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Short[0] < 'A' || c.Short[0] > 'Z' {
			t.Errorf("%s: its one line is %q", c.CommandPath(), c.Short)
		}
		for line := range strings.Lines(c.Long + "\n" + c.Example) {
			line = strings.TrimRight(line, "\n")
			if len(line) > 90 && !strings.HasPrefix(line, "  ") || strings.TrimRight(line, " \t") != line {
				t.Errorf("%s: a line of its help is too long or ends with a space: %q", c.CommandPath(), line)
			}
			for rest := line; ; {
				at := doubled.FindStringSubmatchIndex(rest)
				if at == nil {
					break
				}
				if a, b := rest[at[2]:at[3]], rest[at[4]:at[5]]; strings.EqualFold(a, b) {
					t.Errorf("%s: its help says %q twice", c.CommandPath(), a)
				}
				rest = rest[at[3]:]
			}
		}
		for line := range strings.Lines(c.LocalFlags().FlagUsages()) {
			if !flagLine.MatchString(line) {
				t.Errorf("%s: a flag says nothing of itself: %q", c.CommandPath(), line)
			}
		}
		for _, child := range c.Commands() {
			if child.Name() != "help" && child.Name() != "completion" {
				visit(child)
			}
		}
	}
	visit(newRootCommand())
	if commands < 15 {
		t.Errorf("only %d commands were looked at", commands)
	}
}
