package gate

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/pass"
)

// site is a resource behind the real nginx, with the gate as its auth_request.
type site struct {
	t      *testing.T
	issuer *issuer
	socket string
	roots  *x509.CertPool

	mu    sync.Mutex
	paths []string // that reached the resource
}

// saw gives the paths that reached the resource since the last call.
func (s *site) saw() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.paths
	s.paths = nil
	return out
}

func newSite(t *testing.T) *site {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(nginx); err != nil {
		t.Fatal("this test needs the real nginx; `make system` installs it")
	}
	s := &site{t: t, issuer: newIssuer(t)}
	resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths = append(s.paths, r.RequestURI)
		s.mu.Unlock()
		for _, name := range []string{"Authorization", "DPoP", "X-Proviso-Subject", "X-Proviso-Decision", "X-Proviso-Scope", "X-Proviso-Runner"} {
			fmt.Fprintf(w, "%s=%s\n", name, r.Header.Get(name))
		}
	}))
	t.Cleanup(resource.Close)
	cfg := forwardConfig("nginx")
	cfg.ClientCertificate = CertificateHeader{Header: "X-Client-Cert", Encoding: "url-pem"}
	cfg.DPoPNonce = "always"
	gate := httptest.NewServer(s.issuer.gate(cfg).ForwardAuth())
	t.Cleanup(gate.Close)

	// A unix socket: its path is short, and no port can be taken by somebody else.
	dir, err := os.MkdirTemp("", "gate")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.socket = filepath.Join(dir, "nginx.sock")
	s.roots = serverCertificate(t, dir)
	template, err := os.ReadFile("testdata/nginx.conf")
	must(t, err)
	conf := strings.NewReplacer("@DIR@", dir, "@GATE@", gate.Listener.Addr().String(), "@APP@", resource.Listener.Addr().String()).Replace(string(template))
	must(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o600))
	s.start(nginx, dir)
	return s
}

func (s *site) start(nginx, dir string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, nginx, "-c", filepath.Join(dir, "nginx.conf"), "-p", dir)
	var out strings.Builder
	cmd.Stderr = &out
	must(s.t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	s.t.Cleanup(func() { cancel(); <-done })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("unix", s.socket); err == nil {
			conn.Close()
			return
		}
		select {
		case err := <-done:
			done <- err
			s.t.Fatalf("nginx ended: %v\n%s", err, out.String())
		case <-tick.C:
		}
	}
}

func serverCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "deploy.acme.example"}, DNSNames: []string{"deploy.acme.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	secret, err := pass.MarshalPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "server.key"), secret, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "server.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// raw sends a request line and headers as they are: clients in Go would tidy
// the paths that attackers send.
func (s *site) raw(pair *tls.Certificate, method, target string, headers ...string) *http.Response {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket)
	must(s.t, err)
	cfg := &tls.Config{RootCAs: s.roots, ServerName: "deploy.acme.example"}
	if pair != nil {
		cfg.Certificates = []tls.Certificate{*pair}
	}
	client := tls.Client(conn, cfg)
	s.t.Cleanup(func() { client.Close() })
	fmt.Fprintf(client, "%s %s HTTP/1.1\r\nHost: deploy.acme.example\r\nConnection: close\r\n%s\r\n", method, target, strings.Join(append(headers, ""), "\r\n"))
	res, err := http.ReadResponse(bufio.NewReader(client), nil)
	must(s.t, err)
	return res
}

// The seed's last arrow, with a web server that knows nothing of Proviso.
func TestNginxLetsThroughWhatTheGateAllows(t *testing.T) {
	s := newSite(t)
	token := s.issuer.token(nil)
	res := s.raw(nil, "GET", "/api/status?version=1.2.3", "Authorization: Bearer "+token, "X-Proviso-Subject: admin", "X-Proviso-Runner: me", "X-Original-URI: /other", "X-Forwarded-Uri: /other")
	body, _ := read(t, res)
	const want = "Authorization=\nDPoP=\nX-Proviso-Subject=job:github:acme:61200123\nX-Proviso-Decision=01KAV7Q3S5C3M4GQ4Z7Z1V2W3X\nX-Proviso-Scope=deploy read\nX-Proviso-Runner=spiffe://runners.acme.example/r-17\n"
	if res.StatusCode != 200 || body != want {
		t.Errorf("status %d\n%s", res.StatusCode, body)
	}
	if paths := s.saw(); !slices.Equal(paths, []string{"/api/status?version=1.2.3"}) {
		t.Errorf("the resource saw %v", paths)
	}
	// A token without runner: the client's word must not take its place.
	res = s.raw(nil, "GET", "/api", "Authorization: Bearer "+s.issuer.token(func(c *pass.Claims) { c.Actor = "" }), "X-Proviso-Runner: me")
	if body, _ := read(t, res); !strings.Contains(body, "X-Proviso-Runner=\n") {
		t.Errorf("the resource believes the client: %s", body)
	}
}

func TestNginxRefusesWhatTheGateRefuses(t *testing.T) {
	s := newSite(t)
	good := "Authorization: Bearer " + s.issuer.token(nil)
	for name, test := range map[string]struct {
		method, target string
		headers        []string
		status         int
		challenge      string
	}{
		"no token":               {"GET", "/api/x", nil, 401, `Bearer realm="proviso"`},
		"not a token":            {"GET", "/api/x", []string{"Authorization: Bearer x"}, 401, `error="invalid_token"`},
		"malformed":              {"GET", "/api/x", []string{"Authorization: Bearer"}, 401, `error="invalid_request"`},
		"another audience":       {"GET", "/other", []string{good}, 401, `error="invalid_token"`},
		"too little scope":       {"POST", "/api/admin", []string{good}, 403, ""},
		"no rule":                {"GET", "/elsewhere", []string{good}, 403, ""},
		"no rule for method":     {"DELETE", "/api/x", []string{good}, 403, ""},
		"dot segments":           {"GET", "/other/../api/x", []string{good}, 403, ""},
		"to a stronger rule":     {"POST", "/api/x/../admin", []string{good}, 403, ""},
		"encoded dots":           {"POST", "/api/x/%2e%2e/admin", []string{good}, 403, ""},
		"encoded slash":          {"POST", "/api%2fadmin", []string{good}, 403, ""},
		"double slash":           {"POST", "//api/admin", []string{good}, 403, ""},
		"inner double slash":     {"POST", "/api//admin", []string{good}, 403, ""},
		"path parameter":         {"POST", "/api/admin;x=1", []string{good}, 403, ""},
		"encoded letter":         {"POST", "/api/%61dmin", []string{good}, 403, ""},
		"double encoding":        {"POST", "/api/%2561dmin", []string{good}, 403, ""},
		"backslash":              {"POST", `/api\admin`, []string{good}, 403, ""},
		"the sub-request itself": {"GET", "/_proviso", []string{good}, 404, ""},
		"token in the query":     {"GET", "/api/x?access_token=x", nil, 401, `error="invalid_request"`},
	} {
		res := s.raw(nil, test.method, test.target, test.headers...)
		body, _ := read(t, res)
		if res.StatusCode != test.status || !strings.Contains(res.Header.Get("WWW-Authenticate"), test.challenge) {
			t.Errorf("%s: status %d, WWW-Authenticate %q, want %d %q", name, res.StatusCode, res.Header.Get("WWW-Authenticate"), test.status, test.challenge)
		}
		if paths := s.saw(); len(paths) > 0 {
			t.Errorf("%s: the resource was reached at %v: %s", name, paths, body)
		}
	}
}

func TestNginxWithABoundToken(t *testing.T) {
	s := newSite(t)
	p, thief := newProver(t, s.issuer), newProver(t, s.issuer)
	token := s.issuer.token(func(c *pass.Claims) { c.Confirmation.JKT = p.Thumbprint() })
	send := func(p *pass.Prover, nonce string) *http.Response {
		proof, err := p.Proof("POST", testOrigin+"/api/x", token, nonce)
		must(t, err)
		return s.raw(nil, "POST", "/api/x", "Authorization: DPoP "+token, "DPoP: "+proof, "Content-Length: 0")
	}
	res := send(p, "")
	nonce := res.Header.Get("DPoP-Nonce")
	if res.StatusCode != 401 || !strings.Contains(res.Header.Get("WWW-Authenticate"), "use_dpop_nonce") || nonce == "" {
		t.Fatalf("without a nonce: status %d %v", res.StatusCode, res.Header)
	}
	if res := send(p, nonce); res.StatusCode != 200 {
		t.Errorf("with its nonce: status %d %v", res.StatusCode, res.Header)
	}
	if res := send(thief, nonce); res.StatusCode != 401 || len(s.saw()) != 1 {
		t.Errorf("stolen: status %d", res.StatusCode)
	}
	if res := s.raw(nil, "GET", "/api/x", "Authorization: Bearer "+token); res.StatusCode != 401 {
		t.Errorf("stolen, as bearer: status %d", res.StatusCode)
	}
}

func TestNginxWithAClientCertificate(t *testing.T) {
	s := newSite(t)
	cert, pair := clientCert(t)
	_, otherPair := clientCert(t)
	header := "Authorization: Bearer " + s.issuer.token(func(c *pass.Claims) { c.Confirmation.X5TS256 = pass.CertificateThumbprint(cert) })
	for name, test := range map[string]struct {
		pair   *tls.Certificate
		header []string
		want   int
	}{
		"its certificate":               {&pair, []string{header}, 200},
		"no certificate":                {nil, []string{header}, 401},
		"another":                       {&otherPair, []string{header}, 401},
		"a header of the client's own":  {nil, []string{header, "X-Client-Cert: " + escapedPEM(cert)}, 401},
		"another, and the right header": {&otherPair, []string{header, "X-Client-Cert: " + escapedPEM(cert)}, 401},
	} {
		if res := s.raw(test.pair, "GET", "/api/x", test.header...); res.StatusCode != test.want {
			t.Errorf("%s: status %d, want %d", name, res.StatusCode, test.want)
		}
	}
}

// When the gate can't check, nginx lets nobody through.
func TestNginxIsClosedWhenTheGateIsBlind(t *testing.T) {
	s := newSite(t)
	s.issuer.goDown()
	res := s.raw(nil, "GET", "/api/x", "Authorization: Bearer "+s.issuer.token(nil))
	if res.StatusCode != 500 || len(s.saw()) > 0 { // nginx's answer to a 503 of its sub-request
		t.Errorf("status %d", res.StatusCode)
	}
}
