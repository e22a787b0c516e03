package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// ownFleet is a site whose broker has a trust domain of its own, and one machine
// with an agent.
type ownFleet struct {
	*site
	machine string // the agent's directory
}

const ownSections = `trust_domain: {name: ci.acme.example%s}
fleet: {ttl: %s, jwt_ttl: 30s}
runners: [{name: fleet, trust_domain: ci.acme.example, bundle: {own: true}, path: "/region/{region}/runner/{id}"}]
`

const ownGrants = `  deploy: {policy: open, runner: required, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  svid: {policy: open, runner: none, resource: {service: shipping}, credential: {kind: x509-svid, uri: "spiffe://ci.acme.example/job/{issuer}/{repository_id}"}}
  token: {policy: open, runner: none, resource: {service: shipping}, credential: {kind: jwt-svid, uri: "spiffe://ci.acme.example/job/{issuer}/{repository_id}", audience: "https://db.acme.example"}}
`

func newOwnFleet(t *testing.T, ttl, more string) *ownFleet {
	t.Helper()
	f := &ownFleet{site: newSite(t, plan{https: true, grants: ownGrants, sections: fmt.Sprintf(ownSections, more, ttl)})}
	f.write("web.pem", string(f.web.PEM()))
	f.machine = f.dir
	return f
}

// joinToken makes a join token as an operator does.
func (f *ownFleet) joinToken(id string) string {
	f.t.Helper()
	cmd := exec.Command("proviso", "runner", "token", "create", "-c", f.file, "--id", id, "--set", "region=eu")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("no join token: %v: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

const agentFile = `broker: %s
ca: %s
state: state
socket: agent.sock
%s
log: {level: info}
workloads:
  - {name: ci, uid: %d, path: %s}
  - {name: strangers, uid: 4711}
`

// agent starts the agent and waits until its workloads have SVIDs.
func (f *ownFleet) agent() *process {
	f.t.Helper()
	p := f.launchAgent("join_token_file: join.token")
	f.waitForSVID()
	return p
}

func (f *ownFleet) waitForSVID() {
	f.t.Helper()
	eventually(f.t, "the agent gives a workload its SVID", func() bool {
		svid, err := f.fetchX509()
		return err == nil && svid != nil
	})
}

// launchAgent starts the agent, which is to join as its file says.
func (f *ownFleet) launchAgent(join string, env ...string) *process {
	f.t.Helper()
	program := made(exec.LookPath("proviso"))(f.t)
	file := filepath.Join(f.machine, "runner.yaml")
	noError(f.t, os.MkdirAll(f.machine, 0o755))
	noError(f.t, os.WriteFile(file, fmt.Appendf(nil, agentFile, f.url, filepath.Join(f.dir, "web.pem"), join, os.Getuid(), made(filepath.EvalSymlinks(program))(f.t)), 0o600))
	p := &process{t: f.t, cmd: exec.Command("proviso", "runner", "run", "-c", file), serving: make(chan struct{}), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	stderr := made(p.cmd.StderrPipe())(f.t)
	noError(f.t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintf(&p.log, "%s\n", lines.Bytes())
		}
		_ = p.cmd.Wait()
	}()
	f.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.exited })
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Log("the agent's log:\n" + p.log.String())
		}
	})
	return p
}

func (f *ownFleet) socket() workloadapi.ClientOption {
	return workloadapi.WithAddr("unix://" + filepath.Join(f.machine, "agent.sock"))
}

func (f *ownFleet) fetchX509() (*x509svid.SVID, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	return workloadapi.FetchX509SVID(ctx, f.socket())
}

// exec runs proviso exec in a job on the machine.
func (f *ownFleet) exec(program string, more ...string) (int, string) {
	f.t.Helper()
	env := made(f.github.Start(lab.Job{}).Environment(f.url))(f.t)
	args := append([]string{"exec", "--broker", f.url, "--ca", filepath.Join(f.dir, "web.pem"), "--grant", "deploy"}, more...)
	cmd := exec.Command(program, append(args, "--", "true")...)
	cmd.Env = append(append(os.Environ(), env...), "SPIFFE_ENDPOINT_SOCKET=unix://"+filepath.Join(f.machine, "agent.sock"), "XDG_RUNTIME_DIR="+f.dir)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	noError(f.t, err)
	return 0, string(out)
}

// request makes a certificate request for a new key.
func request(t *testing.T) (string, *ecdsa.PrivateKey) {
	t.Helper()
	key := made(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	der := made(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(t)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), key
}

// post sends what an agent sends; it can be called from any goroutine.
func (f *ownFleet) post(client *http.Client, path string, body any) (status int, answer struct {
	SVID        string       `json:"svid"`
	SPIFFEID    string       `json:"spiffe_id"`
	Code        proviso.Code `json:"code"`
	Stage       string       `json:"stage"`
	Description string       `json:"error_description"`
}) {
	data, err := json.Marshal(body)
	if err != nil {
		f.t.Error(err)
		return
	}
	resp, err := client.Post(f.url+path, "application/json", bytes.NewReader(data))
	if err != nil {
		f.t.Error(err)
		return
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(data, &answer)
	}
	if err != nil {
		f.t.Errorf("%s: %v", data, err)
	}
	return resp.StatusCode, answer
}

// A fleet from its first join token to its ban: a broker and an agent as
// programs of their own, jobs that run on the agent's machine.
func TestAFleetOfItsOwn(t *testing.T) {
	t.Parallel()
	f := newOwnFleet(t, "10s", "")
	broker := f.spawn()
	first := f.joinToken("r1")
	f.write("join.token", first)
	agent := f.agent()

	// A job on the machine: its runner is proved by the agent's socket.
	if code, said := f.exec("proviso"); code != 0 {
		t.Fatalf("a job on the runner's machine: %d: %s\n%s", code, said, agent.log.String())
	}
	f.tellsWhoCalls(agent)
	f.servesTheWorkloadAPI()
	f.refusesWhatIsntAJoin(first)
	f.pacesARunner()

	// The agent starts again, and needs no new join.
	agent.signal(syscall.SIGTERM)
	if code := agent.ended(30 * time.Second); code != exitDone {
		t.Fatalf("the agent ended with %d: %s", code, agent.log.String())
	}
	agent = f.agent()
	if !strings.Contains(agent.log.String(), "the SVID of an earlier run is used") || strings.Contains(agent.log.String(), `"msg":"joined"`) {
		t.Errorf("after a restart: %s", agent.log.String())
	}

	// The broker is away: what is there serves, and is renewed when it is back.
	broker.signal(syscall.SIGTERM)
	broker.ended(30 * time.Second)
	before, err := f.fetchX509()
	noError(t, err)
	eventually(t, "the agent notices that the broker is away", func() bool { return strings.Contains(agent.log.String(), "not renewed") })
	if again, err := f.fetchX509(); err != nil || again.Certificates[0].SerialNumber.Cmp(before.Certificates[0].SerialNumber) != 0 {
		t.Errorf("while the broker is away: %v", err)
	}
	broker = f.spawn()
	eventually(t, "the agent renews when the broker is back", func() bool {
		now, err := f.fetchX509()
		return err == nil && now.Certificates[0].SerialNumber.Cmp(before.Certificates[0].SerialNumber) != 0
	})
	if strings.Contains(agent.log.String(), `"msg":"joined"`) {
		t.Error("the agent had to join again")
	}
	f.bansAndReadmits(agent)

	// All of it is in the record.
	broker.signal(syscall.SIGTERM)
	broker.ended(30 * time.Second)
	_, said := cli(t, "audit", "search", "--store", filepath.Join(f.dir, "data"), "--output", "json")
	for _, event := range []string{"join-token", "runner-join", "runner-renewal", "runner-banned", "runner-unbanned", "runner-reattest", "runner_banned", "spiffe://ci.acme.example/region/eu/runner/r1/workload/ci"} {
		if !strings.Contains(said, event) {
			t.Errorf("the record has nothing of %s", event)
		}
	}
	for _, secret := range []string{first, "BEGIN"} {
		if strings.Contains(said, secret) || strings.Contains(agent.log.String()+broker.log.String(), secret) {
			t.Error("a secret is in the record or in a log")
		}
	}
	// And the bans hold while no broker runs.
	if code, said := cli(t, "runner", "ban", "r1", "-c", f.file); code != exitDone {
		t.Errorf("a ban without a broker: %d: %s", code, said)
	}
	if code, said := cli(t, "runner", "list", "-c", f.file); code != exitDone || !regexp.MustCompile(`runner/r1 +banned 2`).MatchString(said) {
		t.Errorf("%d: %s", code, said)
	}
}

// tellsWhoCalls: the program that isn't the registered file is a stranger, also
// when it is a copy of it under its name.
func (f *ownFleet) tellsWhoCalls(agent *process) {
	f.t.Helper()
	copied := filepath.Join(f.t.TempDir(), "proviso")
	program := made(os.ReadFile(made(exec.LookPath("proviso"))(f.t)))(f.t)
	noError(f.t, os.WriteFile(copied, program, 0o700))
	code, said := f.exec(copied)
	if code != exitRefused || !strings.Contains(said, "no identity") || !strings.Contains(said, "runner_required") {
		f.t.Errorf("a stranger: %d: %s", code, said)
	}
	if log := agent.log.String(); !strings.Contains(log, "an unregistered process asked for an SVID") || !strings.Contains(log, copied) {
		f.t.Errorf("the agent's log says nothing of the stranger: %s", log)
	}
}

// servesTheWorkloadAPI: go-spiffe's own client, and a rotation under its eyes.
func (f *ownFleet) servesTheWorkloadAPI() {
	t := f.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bundles := made(workloadapi.FetchX509Bundles(ctx, f.socket()))(t)
	seen := make(chan *x509svid.SVID, 16)
	watching, stop := context.WithCancel(ctx)
	var watched sync.WaitGroup
	watched.Go(func() { _ = workloadapi.WatchX509Context(watching, x509Watcher{seen}, f.socket()) })
	first, second := <-seen, <-seen
	stop()
	watched.Wait()
	for _, svid := range []*x509svid.SVID{first, second} {
		if svid.ID.String() != "spiffe://ci.acme.example/region/eu/runner/r1/workload/ci" {
			t.Errorf("the workload is called %s", svid.ID)
		}
		if _, _, err := x509svid.Verify(svid.Certificates, bundles); err != nil {
			t.Error(err)
		}
	}
	same := first.Certificates[0].PublicKey.(*ecdsa.PublicKey).Equal(second.Certificates[0].PublicKey)
	if left := time.Until(first.Certificates[0].NotAfter); same || left < 2*time.Second { // of the five that it should be: the machine may be busy
		t.Errorf("same key %v, and only %s was left of ten seconds", same, left)
	}
	svid := made(workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "https://db.acme.example"}, f.socket()))(t)
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), made(workloadapi.FetchJWTBundles(ctx, f.socket()))(t), []string{"https://db.acme.example"}); err != nil {
		t.Error(err)
	}
	if got, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "https://db.acme.example", f.socket()); err != nil || got.ID != first.ID {
		t.Errorf("%v %v", got, err)
	}
	if _, err := workloadapi.ValidateJWTSVID(ctx, svid.Marshal(), "https://other.acme.example", f.socket()); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another audience: %v", err)
	}
	if _, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "a", ExtraAudiences: []string{"b"}}, f.socket()); status.Code(err) != codes.InvalidArgument {
		t.Errorf("two audiences: %v", err)
	}
	// What a workload holds proves it, and renews nothing.
	key := &tls.Certificate{Certificate: [][]byte{second.Certificates[0].Raw}, PrivateKey: second.PrivateKey}
	csr, _ := request(t)
	if code, answer := f.post(f.holding(key), "/runner/renew", map[string]string{"csr": csr}); code != 400 || answer.Code != "runner_path" {
		t.Errorf("a workload renews the runner: %d %+v", code, answer)
	}
}

// pacesARunner: an SVID that asks for others without end is refused before it
// fills the record, and renews itself nevertheless.
func (f *ownFleet) pacesARunner() {
	t := f.t
	t.Helper()
	csr, key := request(t)
	code, answer := f.post(f.holding(nil), "/runner/join", map[string]string{"token": f.joinToken("hasty"), "csr": csr})
	if code != 200 {
		t.Fatalf("%d %+v", code, answer)
	}
	block, _ := pem.Decode([]byte(answer.SVID))
	hasty := f.holding(&tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key})
	granted := 0
	for code = 200; code == 200 && granted < 1000; granted++ {
		code, answer = f.post(hasty, "/runner/renew", map[string]string{"workload": "ci", "audience": "https://db.acme.example"})
	}
	if code != 429 || answer.Code != proviso.CodeRateLimited || answer.Stage != string(proviso.StageRequest) {
		t.Errorf("after %d SVIDs for a workload: %d %+v", granted, code, answer)
	}
	if code, answer := f.post(hasty, "/runner/renew", map[string]string{"csr": csr}); code != 200 {
		t.Errorf("its own renewal: %d %+v", code, answer)
	}
}

type x509Watcher struct{ seen chan *x509svid.SVID }

func (w x509Watcher) OnX509ContextUpdate(c *workloadapi.X509Context) { w.seen <- c.DefaultSVID() }
func (w x509Watcher) OnX509ContextWatchError(error)                  {}

// refusesWhatIsntAJoin: a token that was used, one that isn't one, one that many
// use at the same instant, and renewals without an SVID of the fleet.
func (f *ownFleet) refusesWhatIsntAJoin(used string) {
	t := f.t
	t.Helper()
	nobody := f.holding(nil)
	csr, _ := request(t)
	expired := f.joinToken("late")
	for name, c := range map[string]struct {
		path string
		body map[string]string
		code proviso.Code
	}{
		"a token again":     {"/runner/join", map[string]string{"token": used, "csr": csr}, "join_token"},
		"a guessed token":   {"/runner/join", map[string]string{"token": "proviso_join_AAAA", "csr": csr}, "join_token"},
		"no token":          {"/runner/join", map[string]string{"csr": csr}, "request_malformed"},
		"no request":        {"/runner/join", map[string]string{"token": expired}, "csr_missing"},
		"a broken request":  {"/runner/join", map[string]string{"token": expired, "csr": "x"}, "csr_rejected"},
		"evidence":          {"/runner/join", map[string]string{"kind": "aws", "evidence": "x", "csr": csr}, "token_type_unsupported"},
		"another member":    {"/runner/join", map[string]string{"token": expired, "csr": csr, "spiffe_id": "spiffe://ci.acme.example/admin"}, "request_malformed"},
		"no SVID":           {"/runner/renew", map[string]string{"csr": csr}, "runner_required"},
		"no SVID, workload": {"/runner/renew", map[string]string{"csr": csr, "workload": "ci"}, "runner_required"},
	} {
		if code, answer := f.post(nobody, c.path, c.body); code != 400 || answer.Code != c.code {
			t.Errorf("%s: %d %+v", name, code, answer)
		}
	}
	token := f.joinToken("many")
	won := make(chan int, 24)
	var wg sync.WaitGroup
	for range cap(won) {
		mine, _ := request(t)
		wg.Go(func() {
			code, answer := f.post(nobody, "/runner/join", map[string]string{"token": token, "csr": mine})
			if code != 200 && answer.Code != proviso.CodeReplay && answer.Code != "join_token" {
				t.Errorf("%d %+v", code, answer)
			}
			won <- code
		})
	}
	wg.Wait()
	close(won)
	joined := 0
	for code := range won {
		if code == 200 {
			joined++
		}
	}
	if joined != 1 {
		t.Errorf("%d of 24 joined at once with one token", joined)
	}
	for _, bad := range []string{"../r1", "a/b", "", "..", "-f", "r%31"} {
		if code, said := cli(t, "runner", "token", "create", "-c", f.file, "--set", "region=eu", "--set", "id="+bad); code != exitRefused {
			t.Errorf("a runner called %q: %d %s", bad, code, said)
		}
	}
}

// bansAndReadmits: a ban is in force when the command ends, also for what the
// runner holds already; a runner whose ban was lifted, and one that is to be
// attested again, join anew, and what they held is worth nothing then.
func (f *ownFleet) bansAndReadmits(agent *process) {
	t := f.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	held := made(workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: f.url}, f.socket()))(t).Marshal()
	ask := func() reply {
		return made(f.askWith(f.holding(nil), exchangeForm(f.token(lab.Job{}), "deploy", "actor_token", held, "actor_token_type", proviso.TokenTypeJWT)))(t)
	}
	if r := ask(); r.granted == nil {
		t.Fatalf("before the ban: %s", r)
	}
	if code, said := cli(t, "runner", "ban", "r1", "--reason", "taken over", "-c", f.file); code != exitDone || !strings.Contains(said, "spiffe://ci.acme.example/region/eu/runner/r1 is banned") {
		t.Fatalf("%d: %s", code, said)
	}
	if r := ask(); r.refused.Code != "runner_banned" || r.refused.Stage != proviso.StageRunner || !strings.Contains(r.refused.Description, "taken over") {
		t.Errorf("after the ban: %s", r)
	}
	eventually(t, "the agent gives nothing out any more", func() bool {
		_, err := f.fetchX509()
		return status.Code(err) == codes.PermissionDenied
	})
	if code, said := cli(t, "runner", "token", "create", "-c", f.file, "--id", "r1", "--set", "region=eu"); code != exitRefused || !strings.Contains(said, "is banned") {
		t.Errorf("a token for a banned runner: %d: %s", code, said)
	}
	if code, said := cli(t, "runner", "unban", "r1", "-c", f.file); code != exitDone {
		t.Fatalf("%d: %s", code, said)
	}
	if r := ask(); r.refused.Code != "runner_must_join" {
		t.Errorf("after the ban was lifted: %s", r)
	}
	rejoin := func() {
		joins := func() int { return strings.Count(agent.log.String(), `"msg":"joined"`) }
		before := joins()
		f.write("join.token", f.joinToken("r1"))
		eventually(t, "the agent joins by the new token", func() bool {
			_, err := f.fetchX509()
			return err == nil && joins() > before
		})
	}
	rejoin()
	if r := ask(); r.refused.Code != "runner_superseded" {
		t.Errorf("what was held before the join: %s", r)
	}
	if code, said := f.exec("proviso"); code != 0 {
		t.Errorf("after the new join: %d: %s\n%s", code, said, agent.log.String())
	}
	if code, said := cli(t, "runner", "reattest", "r1", "-c", f.file); code != exitDone {
		t.Fatalf("%d: %s", code, said)
	}
	if code, said := f.exec("proviso"); code != exitRefused {
		t.Errorf("before it was attested again: %d: %s", code, said)
	}
	rejoin()
	for _, by := range []string{"jwt", "x509"} { // the certificate is backdated, and counts nevertheless
		if code, said := f.exec("proviso", "--runner", by); code != 0 {
			t.Errorf("by %s after the new join: %d: %s", by, code, said)
		}
	}
}
