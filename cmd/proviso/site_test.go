package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/store"
)

// site is a place where a broker runs: the files of an operator, and one CI
// platform. Everything beyond is a test's own. The broker in it is started in
// this process (serve) or as a program of its own (spawn).
type site struct {
	t       *testing.T
	dir     string
	file    string // the configuration
	address string // of the door, on a loopback address of its own
	ops     string // of the operations listener
	url     string
	github  *lab.Issuer
	web     *lab.CA // of the door's certificate; nil is plain HTTP
	client  *http.Client
}

// plan says what a site has. The zero plan is a broker with one grant, deploy,
// that is open to every job of the platform.
type plan struct {
	https    bool
	server   string // more members of server, as "limits: {requests: 1}"
	sections string // more sections
	grants   string // in place of deploy
	policies map[string]string
	issuer   lab.IssuerOptions
	issuers  string // more of them
}

const (
	openPolicy = "package open\n\nallow if input.identity.role == \"ci\"\n"
	deployOnly = `  deploy: {policy: open, runner: none, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy, rollback]}}` + "\n"
)

// labKey is shared: making an RSA key takes a tenth of a second.
var labKey = sync.OnceValues(func() (*lab.Key, error) { return lab.NewKey("RS256") })

func newSite(t *testing.T, p plan) *site {
	t.Helper()
	if len(p.issuer.Keys) == 0 {
		p.issuer.Keys = []*lab.Key{made(labKey())(t)}
	}
	s := &site{t: t, dir: t.TempDir(), github: made(lab.NewIssuer(lab.GitHub, p.issuer))(t)}
	t.Cleanup(func() { _ = s.github.Close() })
	host := loopback()
	s.address, s.ops, s.url = host+":8080", host+":9090", "http://"+host+":8080"
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	if p.https {
		s.web = made(lab.NewCA("the web's"))(t)
		s.url = "https://" + s.address
		s.certify("tls")
		p.server += "\n  tls: {cert: tls.crt, key: tls.key}"
		transport.TLSClientConfig = &tls.Config{RootCAs: s.web.Pool()}
	}
	s.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)
	if p.grants == "" {
		p.grants = deployOnly
	}
	if p.policies == nil {
		p.policies = map[string]string{"open.rego": openPolicy}
	}
	for name, text := range p.policies {
		s.write("policy/"+name, text)
	}
	s.file = s.write("proviso.yaml", fmt.Sprintf(siteConfig, s.address, s.ops, s.url, p.server, s.github.URL(), p.issuers, p.sections, p.grants))
	return s
}

const siteConfig = `server:
  listen: %s
  operations: %s
  url: %s
  %s
store: data
issuers:
  - name: github
    platform: github
    url: %s
    allow_private: true
    require: {repository_owner_id: "61200123"}
    tenant: acme
    role: ci
    events: [push]
%s
policy: {dir: policy, zone: UTC}
%s
grants:
%s`

// loopback gives a loopback address that nobody else listens on, so that a
// broker can be started again on its port, and no client's own port is in the way.
func loopback() string {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("127.%d.%d.%d", b[0], b[1], 2+b[2]%250)
}

// write puts a file into the site, in one step, and gives its path.
func (s *site) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	noError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	next := filepath.Join(s.dir, ".next")
	noError(s.t, os.WriteFile(next, []byte(text), 0o600))
	noError(s.t, os.Rename(next, path))
	return path
}

// certify makes a certificate of the door and its key, as NAME.crt and NAME.key.
func (s *site) certify(name string) *x509.Certificate {
	s.t.Helper()
	host, _, err := net.SplitHostPort(s.address)
	noError(s.t, err)
	cert := made(s.web.ServerCertificate(host))(s.t)
	key := made(x509.MarshalPKCS8PrivateKey(cert.PrivateKey))(s.t)
	s.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	s.write(name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	return cert.Leaf
}

// serve runs the broker in this process until the test ends. What it logs goes
// into the buffer.
func (s *site) serve() (*running, *lockedBuffer) {
	s.t.Helper()
	config, _, err := readConfig(s.file)
	noError(s.t, err)
	log := &lockedBuffer{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	b, err := start(ctx, config, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	listener := made(net.Listen("tcp", s.address))(s.t)
	ended := make(chan error, 1)
	go func() { ended <- b.server.Serve(ctx, listener) }()
	s.t.Cleanup(func() {
		s.client.CloseIdleConnections()
		cancel()
		if err := errors.Join(<-ended, b.close()); err != nil {
			s.t.Errorf("the broker did not end cleanly: %v", err)
		}
	})
	return b, log
}

// process is a broker as a program of its own.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     lockedBuffer
	serving chan struct{} // closed when it says that it is
	exited  chan struct{} // closed when it has ended
}

// spawn starts the real program and waits until it serves.
func (s *site) spawn() *process {
	s.t.Helper()
	p := s.launch()
	select {
	case <-p.serving:
	case <-p.exited:
		s.t.Fatalf("the broker did not start: %s", p.log.String())
	case <-time.After(time.Minute):
		s.t.Fatalf("the broker says nothing of serving: %s", p.log.String())
	}
	return p
}

// launch starts the real program.
func (s *site) launch() *process {
	s.t.Helper()
	p := &process{t: s.t, cmd: exec.Command("proviso", "serve", "--config", s.file), serving: make(chan struct{}), exited: make(chan struct{})}
	stderr := made(p.cmd.StderrPipe())(s.t)
	noError(s.t, p.cmd.Start())
	go func() {
		defer close(p.exited)
		serving := false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintf(&p.log, "%s\n", lines.Bytes())
			if !serving && bytes.Contains(lines.Bytes(), []byte(`"msg":"serving"`)) {
				serving = true
				close(p.serving)
			}
		}
		_ = p.cmd.Wait() // its outcome is in ProcessState
	}()
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.exited })
	return p
}

// signal sends a signal.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	noError(p.t, p.cmd.Process.Signal(sig))
}

// ended waits for the end and gives the exit code, -1 for a killed one.
func (p *process) ended(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(within):
		p.t.Fatalf("the broker still runs after %s: %s", within, p.log.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// token makes a job's token for the broker.
func (s *site) token(job lab.Job, edits ...lab.Edit) string {
	s.t.Helper()
	return made(s.github.Token(job, s.url, edits...))(s.t)
}

// exchangeForm is what a job sends; more are further parameters, by name and value.
func exchangeForm(token, grant string, more ...string) url.Values {
	form := url.Values{"grant_type": {proviso.GrantTypeTokenExchange}, "subject_token": {token},
		"subject_token_type": {proviso.TokenTypeJWT}, "audience": {grant}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return form
}

// reply is what came of a request.
type reply struct {
	status  int
	header  http.Header
	granted *proviso.TokenResponse // nil unless the status is 200
	refused proviso.TokenError
}

func (r reply) String() string {
	if r.granted != nil {
		return "granted by decision " + r.granted.Proviso.Decision
	}
	return fmt.Sprintf("%d %s at %s: %s", r.status, r.refused.Code, r.refused.Stage, r.refused.Description)
}

// askWith posts a form with a client. An error means that no answer came.
func (s *site) askWith(client *http.Client, form url.Values) (reply, error) {
	resp, err := client.PostForm(s.url+"/token", form)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	r := reply{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode == http.StatusOK {
		r.granted = &proviso.TokenResponse{}
		err = json.Unmarshal(data, r.granted)
	} else {
		err = json.Unmarshal(data, &r.refused)
	}
	if err != nil {
		err = fmt.Errorf("the answer is not JSON: %w: %s", err, data)
	}
	return r, err
}

// ask posts a form. No answer is a failure of the test; it can be called from
// any goroutine.
func (s *site) ask(form url.Values) reply {
	s.t.Helper()
	r, err := s.askWith(s.client, form)
	if err != nil {
		s.t.Errorf("no answer: %v", err)
	}
	return r
}

// get gives the status and the body of a page of the operations listener.
func (s *site) get(path string) (int, string) {
	s.t.Helper()
	resp := made(s.client.Get("http://" + s.ops + path))(s.t)
	defer resp.Body.Close()
	return resp.StatusCode, string(made(io.ReadAll(resp.Body))(s.t))
}

// metric reads one number of /metrics.
func (s *site) metric(name string) string {
	s.t.Helper()
	_, text := s.get("/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "absent"
}

// eventually waits until something is so; it looks again and again, because
// nobody tells.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("after 30 s it is still not so that %s", what)
		}
	}
}

// tickets is a ticket system that knows every ticket as approved, and answers
// when it is told to: it holds a request in the middle of its flow.
type tickets struct {
	url   string
	asked chan struct{} // one for each question that has come in
	free  chan struct{} // closed or sent to: answer
}

func newTickets(t *testing.T) *tickets {
	t.Helper()
	k := &tickets{asked: make(chan struct{}, 64), free: make(chan struct{}, 64)}
	k.url = serveText(t, func(w http.ResponseWriter, r *http.Request) {
		k.asked <- struct{}{}
		select {
		case <-k.free:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"status":"approved"}`)
	})
	return k
}

// facts is the section that names the ticket system as a source.
func (k *tickets) facts() string {
	return fmt.Sprintf("facts:\n  timeout: 40s\n  http:\n    - {name: tickets, url: \"%s/{intent.ticket_id}\", allow_private: true, timeout: 30s, keys: {ticket_approved: {pointer: /status, equals: approved}}}", k.url)
}

const (
	ticketPolicy = "package ticket\n\nallow if input.context.ticket_approved == true\n"
	ticketGrant  = `  change: {policy: ticket, runner: none, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}` + "\n"
	ticketIntent = `[{"type":"proviso_intent","ticket_id":"CHG-42"}]`
)

// wait waits for a question to have come in.
func (k *tickets) wait(t *testing.T) {
	t.Helper()
	select {
	case <-k.asked:
	case <-time.After(30 * time.Second):
		t.Fatal("after 30 s nobody has asked the ticket system")
	}
}

// decisions lists the ids of all decisions in the record.
func (s *site) decisions() (ids []string) {
	s.t.Helper()
	db := made(store.OpenReadOnly(filepath.Join(s.dir, "data")))(s.t)
	defer db.Close()
	for e, err := range audit.Search(s.t.Context(), db, audit.Query{}) {
		noError(s.t, err)
		ids = append(ids, e.Decision)
	}
	return ids
}

// serveText runs a small HTTP server on loopback until the test ends.
func serveText(t *testing.T, handle http.HandlerFunc) (url string) {
	t.Helper()
	listener := made(net.Listen("tcp", "127.0.0.1:0"))(t)
	server := &http.Server{Handler: handle}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return "http://" + listener.Addr().String()
}
