package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/pass"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"proviso": main, "step": step, "visit": visit, "curl": curl, "svid": callWorkloadAPI, "appraise": appraise})
}

// TestExecAndToken runs the scripts of testdata/exec with the real command as a
// process of its own, against the real broker.
func TestExecAndToken(t *testing.T) {
	w := newJobWorld(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/exec",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PROVISO_URL", w.url)
			env.Setenv("SHAKY", w.shaky)
			env.Setenv("RESOURCE", w.resource.URL())
			env.Setenv("LOGKEY", w.logKey)
			env.Setenv("STORE", w.store)
			_, other, err := note.GenerateKey(rand.Reader, strings.Split(w.logKey, "+")[0])
			if err != nil {
				return err
			}
			env.Setenv("OTHERKEY", other)
			env.Setenv("SOCKET", w.spiffe.Socket())
			env.Setenv("XDG_RUNTIME_DIR", filepath.Join(env.WorkDir, "runtime"))
			return os.Mkdir(filepath.Join(env.WorkDir, "runtime"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"job":      w.cmdJob,
			"lose":     func(ts *testscript.TestScript, _ bool, args []string) { w.lose.Store(int32(number(ts, args[0]))) },
			"waitfile": cmdWaitfile,
			"signal":   cmdSignal,
			"gone":     cmdGone,
			"nosecret": w.cmdNosecret,
		},
	})
}

// cmdJob starts a job: job PLATFORM [branch=NAME]. Its variables are set for the
// rest of the script.
func (w *jobWorld) cmdJob(ts *testscript.TestScript, _ bool, args []string) {
	job := lab.Job{Environment: "-"}
	for _, a := range args[1:] {
		if branch, ok := strings.CutPrefix(a, "branch="); ok {
			job.Branch = branch
		}
		if event, ok := strings.CutPrefix(a, "event="); ok {
			job.Event = event
		}
	}
	run := w.issuers[lab.Platform(args[0])].Start(job)
	w.mu.Lock()
	w.runs = append(w.runs, run)
	w.mu.Unlock()
	env, err := run.Environment(ts.Getenv("PROVISO_URL"))
	ts.Check(err)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		ts.Setenv(name, value)
	}
}

// cmdWaitfile waits until a file is there.
func cmdWaitfile(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "no file "+args[0], func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil
	})
}

func await(ts *testscript.TestScript, failure string, done func() bool) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		if done() {
			return
		}
	}
	ts.Fatalf("%s after 30 s", failure)
}

var signals = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "KILL": syscall.SIGKILL, "QUIT": syscall.SIGQUIT,
}

// cmdSignal sends a signal to the process whose id is in a file.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(syscall.Kill(pidIn(ts, args[1]), signals[args[0]]))
}

// cmdGone waits until the process whose id is in a file has ended.
func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	pid := pidIn(ts, args[0])
	await(ts, "still running", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z ")) // its parent may never ask for it
	})
}

func pidIn(ts *testscript.TestScript, file string) int {
	return number(ts, strings.TrimSpace(ts.ReadFile(file)))
}

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

// cmdNosecret demands that files (stdout and stderr too) show no job's token,
// no request token, and no credential: nothing that looks like a token at all.
func (w *jobWorld) cmdNosecret(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		text := ts.ReadFile(file)
		for _, s := range w.secrets() {
			if strings.Contains(text, s) {
				ts.Fatalf("%s shows a secret of the job", file)
			}
		}
		if tokenText.MatchString(text) || strings.Contains(text, "PRIVATE KEY") {
			ts.Fatalf("%s shows a credential", file)
		}
	}
}

// tokenText is what every JWT begins like. A hash in base64 can hold "eyJ" too,
// but no dot.
var tokenText = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.`)

// step is what a pipeline runs: a program that looks at what exec gave it.
func step() {
	if err := stepRun(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "step:", err)
		os.Exit(99)
	}
}

func stepRun(what string, args []string) error {
	switch what {
	case "env": // which variables are set
		for _, name := range args {
			_, set := os.LookupEnv(name)
			fmt.Printf("%s %v\n", name, set)
		}
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "args":
		fmt.Printf("%q\n", args)
	case "claims": // what is in the token, of a variable or of the file
		fmt.Println(claimsOf(tokenHere()))
	case "files": // where the credential is, and with which rights
		return stepFiles()
	case "use":
		return stepUse(args[0])
	case "until-renewed":
		return stepUntilRenewed()
	case "wait":
		return stepWait(args)
	default:
		return fmt.Errorf("no step %q", what)
	}
	return nil
}

func tokenHere() string {
	if file := os.Getenv(envCredentialFile); file != "" {
		data, _ := os.ReadFile(file)
		return string(data)
	}
	return os.Getenv(envCredential)
}

func claimsOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "no token"
	}
	payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var c map[string]any
	_ = json.Unmarshal(payload, &c)
	return fmt.Sprintf("aud=%v scope=%v act=%v bound=%v", c["aud"], c["scope"], c["act"] != nil, c["cnf"] != nil)
}

func stepFiles() error {
	for _, name := range []string{envCredentialFile, envCertFile, envKeyFile, envProofKeyFile} {
		path := os.Getenv(name)
		if path == "" {
			continue
		}
		file, err := os.Stat(path)
		if err != nil {
			return err
		}
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return err
		}
		fmt.Printf("%s %v in %v\n", name, file.Mode(), dir.Mode())
		if err := os.WriteFile("where."+name, []byte(path), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// stepUse uses the token at the service, with a proof when it has a key.
func stepUse(service string) error {
	req, err := http.NewRequest(http.MethodPost, service+"/deploy", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+tokenHere())
	if path := os.Getenv(envProofKeyFile); path != "" {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		key, err := pass.ParsePrivateKey(data)
		if err != nil {
			return err
		}
		prover, err := pass.NewProverWithKey(key, jose.ES256, time.Now)
		if err != nil {
			return err
		}
		proof, err := prover.Proof(http.MethodPost, service+"/deploy", tokenHere(), "")
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "DPoP "+tokenHere())
		req.Header.Set("DPoP", proof)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	fmt.Println("service says", resp.StatusCode)
	return nil
}

// stepUntilRenewed reads the token's file over and over: there must always be a
// whole token, and at last another one.
func stepUntilRenewed() error {
	path := os.Getenv(envCredentialFile)
	if path == "" {
		path = os.Getenv(envCertFile)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		now, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("for a moment there was no file: %w", err)
		}
		if len(now) < 100 {
			return fmt.Errorf("for a moment the file held %d bytes", len(now))
		}
		if !bytes.Equal(now, first) {
			fmt.Println("renewed")
			return nil
		}
	}
	return fmt.Errorf("not renewed in 30 s")
}

// stepWait says that it is there and waits for a signal: "wait CODE" catches it
// and ends with the code, "wait" lets it do what it does, "wait ignore" ignores
// all but the second.
func stepWait(args []string) error {
	ch := make(chan os.Signal, 8)
	if len(args) > 0 {
		signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGQUIT)
	}
	if err := stepFiles(); err != nil {
		return err
	}
	for name, pid := range map[string]int{"exec.pid": os.Getppid(), "step.pid": os.Getpid()} {
		if err := os.WriteFile(name+".new", []byte(strconv.Itoa(pid)), 0o600); err != nil {
			return err
		}
		if err := os.Rename(name+".new", name); err != nil {
			return err
		}
	}
	if err := os.WriteFile("ready", nil, 0o600); err != nil {
		return err
	}
	if len(args) == 0 {
		<-time.After(time.Hour) // the runtime ends a program that can wait for nothing
	}
	fmt.Println("got", <-ch)
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// What is withheld from CMD, kept on demand, or replaced.
func TestChildEnvironment(t *testing.T) {
	environ := []string{"PATH=/bin", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=s", "GITHUB_TOKEN=g", "DEPLOY=j", "PROVISO_TOKEN=old", "TFC_WORKLOAD_IDENTITY_TOKEN_X=t", "PROVISO_JOB_TOKEN=mine"}
	add := []string{"PROVISO_TOKEN=new"}
	for _, c := range []struct {
		keep, env, withheld []string
	}{
		{nil, []string{"PATH=/bin", "GITHUB_TOKEN=g", "PROVISO_TOKEN=new"}, []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "DEPLOY", "TFC_WORKLOAD_IDENTITY_TOKEN_X", "PROVISO_JOB_TOKEN"}},
		{[]string{"DEPLOY"}, []string{"PATH=/bin", "GITHUB_TOKEN=g", "DEPLOY=j", "PROVISO_TOKEN=new"}, []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "TFC_WORKLOAD_IDENTITY_TOKEN_X", "PROVISO_JOB_TOKEN"}},
		{[]string{"*"}, []string{"PATH=/bin", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=s", "GITHUB_TOKEN=g", "DEPLOY=j", "TFC_WORKLOAD_IDENTITY_TOKEN_X=t", "PROVISO_JOB_TOKEN=mine", "PROVISO_TOKEN=new"}, nil},
	} {
		env, withheld := childEnvironment(environ, c.keep, "DEPLOY", add)
		if !slices.Equal(env, c.env) || !slices.Equal(withheld, c.withheld) {
			t.Errorf("keep %v: %v, withheld %v", c.keep, env, withheld)
		}
	}
}

// What killed processes left is removed, what is in use or new is not.
func TestSweepTakesOnlyWhatNobodyHolds(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	base := os.Getenv("XDG_RUNTIME_DIR")
	held, unlock, err := privateDir()
	noError(t, err)
	defer unlock()
	left, release, err := privateDir()
	noError(t, err)
	noError(t, os.WriteFile(filepath.Join(left, "token"), []byte("x"), 0o600))
	release() // as the kernel does for a process that is killed
	other := filepath.Join(base, "not-ours")
	noError(t, os.Mkdir(other, 0o700))
	link := filepath.Join(base, privatePrefix+"link")
	noError(t, os.Symlink(other, link))

	there := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	sweep(base, time.Now())
	if !there(left) {
		t.Error("a directory of this second was taken: its owner may be about to lock it")
	}
	sweep(base, time.Now().Add(time.Minute))
	if there(left) || !there(held) || !there(other) || !there(link) {
		t.Errorf("left %v, held %v, other %v, link %v", there(left), there(held), there(other), there(link))
	}
}

// A file is never written through a link or over another file.
func TestWriteNewReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	noError(t, writeNew(path, []byte("a")))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := writeNew(path, []byte("b")); err == nil {
		t.Error("a file was replaced")
	}
	noError(t, os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "link")))
	if err := writeNew(filepath.Join(dir, "link"), []byte("b")); err == nil {
		t.Error("a link was followed")
	}
}

// A "no" to a renewal is said once, asked about again until the credential
// ends, and then no more; a fault is asked about as long as CMD runs.
func TestKeepAliveAfterANo(t *testing.T) {
	run := made(lab.NewIssuer(lab.GitHub, lab.IssuerOptions{}))(t)
	t.Cleanup(func() { _ = run.Close() })
	for _, kv := range made(run.Start(lab.Job{}).Environment("http://127.0.0.1"))(t) {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	var asked atomic.Int32
	answers := make(chan func(http.ResponseWriter), 1)
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		answer := <-answers
		answers <- answer
		answer(w)
	}))
	t.Cleanup(broker.Close)
	first := &proviso.TokenResponse{ExpiresIn: 3, AccessToken: "a.b.c"}
	file := filepath.Join(t.TempDir(), "token")

	alive := func(ctx context.Context, answer func(http.ResponseWriter)) string {
		asked.Store(0)
		answers <- answer
		defer func() { <-answers }()
		var stderr bytes.Buffer
		a := asking{grant: "g", broker: broker.URL, audience: broker.URL, runner: "none"}
		k, err := a.open(ctx, &stderr)
		noError(t, err)
		defer k.close()
		k.keepAlive(ctx, &delivery{file: file}, first, time.Now().Add(-3*time.Second)) // ends now
		return stderr.String()
	}

	said := alive(t.Context(), func(w http.ResponseWriter) {
		w.WriteHeader(400)
		_, _ = w.Write([]byte(`{"error":"invalid_request","stage":"policy","code":"policy_denied","reasons":[{"message":"the window is closed"}]}`))
	})
	if asked.Load() != 1 || strings.Count(said, "the window is closed") != 1 || !strings.Contains(said, "was not renewed; what CMD has ends at") {
		t.Errorf("asked %d times:\n%s", asked.Load(), said)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	defer cancel()
	said = alive(ctx, func(w http.ResponseWriter) {
		w.WriteHeader(503)
		_, _ = w.Write([]byte(`{"error":"server_error","code":"audit_unavailable","stage":"record"}`))
	})
	if asked.Load() < 2 || strings.Count(said, "was not renewed") != 1 {
		t.Errorf("asked %d times:\n%s", asked.Load(), said)
	}
}

// A renewal is one step: who has the old file open reads the old credential to
// its end, who opens it anew reads the new one, and nothing else lies beside.
func TestReplaceIsOneStep(t *testing.T) {
	dir := t.TempDir()
	d := &delivery{file: filepath.Join(dir, "token")}
	noError(t, writeNew(d.file, []byte("old")))
	reader := made(os.Open(d.file))(t)
	defer func() { _ = reader.Close() }()
	noError(t, d.replace("new"))
	if old := made(io.ReadAll(reader))(t); string(old) != "old" {
		t.Errorf("the open file reads %q", old)
	}
	if now := made(os.ReadFile(d.file))(t); string(now) != "new" {
		t.Errorf("the file reads %q", now)
	}
	if info := made(os.Stat(d.file))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v", info.Mode())
	}
	if all := made(os.ReadDir(dir))(t); len(all) != 1 {
		t.Errorf("%d files", len(all))
	}
	// What can't be replaced is left as it is.
	noError(t, os.Remove(d.file))
	noError(t, os.Mkdir(d.file, 0o700))
	if err := d.replace("newer"); err == nil {
		t.Error("a directory was replaced")
	}
	if all := made(os.ReadDir(dir))(t); len(all) != 1 {
		t.Errorf("a failed renewal left %d files", len(all))
	}
}
