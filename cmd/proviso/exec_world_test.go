package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/proviso-ci/proviso/gate"
	"github.com/proviso-ci/proviso/lab"
)

// jobWorld is what a job finds outside: CI platforms, a runner's authority, the
// real broker with its policies, and a service behind a gate. Nothing in it is
// a stand-in but the platforms.
type jobWorld struct {
	url      string // of the broker
	shaky    string // the same through a proxy that loses an answer when told
	lose     atomic.Int32
	logKey   string // of the broker's log
	store    string // the broker's store
	issuers  map[lab.Platform]*lab.Issuer
	spiffe   *lab.SPIFFE
	resource *lab.Resource

	mu   sync.Mutex
	runs []*lab.Run
}

const execPolicies = `package open
import rego.v1
allow if input.identity.role == "ci"
---
package main_only
import rego.v1
allow if {
	input.identity.role == "ci"
	input.context.branch == "main"
	input.context.purpose == "ship"
}
`

const execConfig = `
server: {listen: %[1]s, url: "http://%[1]s"}
store: %[2]s/data
log: {level: error}
issuers:
  - {name: github, platform: github, url: "%[3]s", require: {repository_owner_id: "61200123"}, tenant: acme, role: ci, events: [push], allow_private: true}
  - {name: gitlab, platform: gitlab, url: "%[4]s", require: {namespace_id: "61200123"}, tenant: acme, role: ci, events: [push], allow_private: true}
runners:
  - {name: fleet, trust_domain: runners.acme.example, bundle: {file: %[5]s}, path: "/region/{region}/runner/{id}"}
policy: {dir: %[2]s/policy}
grants:
  deploy:   {policy: open, runner: optional, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy, rollback]}, max_ttl: 15m}
  short:    {policy: open, runner: optional, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example"}, max_ttl: 2s}
  branch:   {policy: main_only, runner: optional, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example"}}
  trusted:  {policy: open, runner: required, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example"}}
  cluster:  {policy: open, runner: optional, resource: {service: shipping}, credential: {kind: x509, uri: "spiffe://acme.example/job/{issuer}/{repository_id}"}, max_ttl: 15m}
  shop-slack: {policy: open, runner: optional, resource: {service: shop}, credential: {kind: jwt, audience: "vault:shop-slack"}}
  shop-sentry: {policy: open, runner: optional, resource: {service: shop}, credential: {kind: jwt, audience: "vault:shop-sentry"}}
  brief:    {policy: open, runner: optional, resource: {service: shipping}, credential: {kind: x509, uri: "spiffe://acme.example/job/{issuer}/{repository_id}"}, max_ttl: 3s}
`

func newJobWorld(t *testing.T) *jobWorld {
	t.Helper()
	dir := t.TempDir()
	w := &jobWorld{issuers: map[lab.Platform]*lab.Issuer{}}
	key := made(lab.NewKey("RS256"))(t)
	for _, p := range []lab.Platform{lab.GitHub, lab.GitLab} {
		i := made(lab.NewIssuer(p, lab.IssuerOptions{Keys: []*lab.Key{key}}))(t)
		t.Cleanup(func() { _ = i.Close() })
		w.issuers[p] = i
	}
	w.spiffe = made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = w.spiffe.Close() })
	w.spiffe.Serve("/region/us-west-2/runner/one")

	noError(t, os.MkdirAll(filepath.Join(dir, "policy"), 0o755))
	for i, module := range strings.Split(execPolicies, "---\n") {
		noError(t, os.WriteFile(filepath.Join(dir, "policy", fmt.Sprintf("p%d.rego", i)), []byte(module), 0o644))
	}
	listener := made(net.Listen("tcp", "127.0.0.1:0"))(t)
	address := listener.Addr().String()
	w.url, w.store = "http://"+address, filepath.Join(dir, "data")
	file := filepath.Join(dir, "proviso.yaml")
	noError(t, os.WriteFile(file, fmt.Appendf(nil, execConfig, address, dir, w.issuers[lab.GitHub].URL(), w.issuers[lab.GitLab].URL(), w.spiffe.BundleFile()), 0o644))
	config, _, err := readConfig(file)
	noError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	b, err := start(ctx, config, slog.New(slog.DiscardHandler))
	noError(t, err)
	w.logKey = b.log.VerifierKey()
	ended := make(chan error, 1)
	go func() { ended <- b.server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	w.addResource(t, ctx)
	w.addProxy(t)
	return w
}

// addResource puts a service behind the gate that customers use.
func (w *jobWorld) addResource(t *testing.T, ctx context.Context) {
	var guard atomic.Pointer[gate.Gate]
	var err error
	w.resource, err = lab.NewResource(lab.ResourceOptions{Guard: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { guard.Load().Middleware(next).ServeHTTP(rw, r) })
	}})
	noError(t, err)
	t.Cleanup(func() { _ = w.resource.Close() })
	g, err := gate.New(gate.Config{Issuer: w.url, Audience: "https://deploy.acme.example", Origin: w.resource.URL(), DPoPNonce: "never"}, gate.Options{})
	noError(t, err)
	g.Start(ctx)
	t.Cleanup(func() { g.Close() })
	guard.Store(g)
}

// addProxy makes a way to the broker that loses an answer when it is told to.
func (w *jobWorld) addProxy(t *testing.T) {
	target, err := url.Parse(w.url)
	noError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(*http.Response) error {
		if w.lose.Add(-1) >= 0 {
			return fmt.Errorf("lost")
		}
		return nil
	}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	l := made(net.Listen("tcp", "127.0.0.1:0"))(t)
	s := &http.Server{Handler: proxy, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-ended })
	w.shaky = "http://" + l.Addr().String()
}

// secrets lists what no output may show: request tokens and job tokens.
func (w *jobWorld) secrets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, r := range w.runs {
		all = append(all, r.Secret())
		all = append(all, r.Minted()...)
	}
	return all
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// made gives what a New function made.
func made[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		noError(t, err)
		return v
	}
}
