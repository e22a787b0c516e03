package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/gate"
	"github.com/proviso-ci/proviso/lab"
)

// svidSite is a site with a door under TLS and runners with SVIDs.
type svidSite struct {
	*site
	spiffe *lab.SPIFFE
}

const fleetGrants = `  mtls: {policy: open, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy], binding: mtls}}
  any: {policy: open, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy], binding: any}}
  plain: {policy: open, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  cluster: {policy: open, runner: none, resource: {service: shipping}, credential: {kind: x509, uri: "spiffe://acme.example/job/{issuer}/{repository_id}", common_name: "{issuer}-{repository_id}"}}
`

func newFleet(t *testing.T) *svidSite {
	t.Helper()
	authority := made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = authority.Close() })
	return &svidSite{spiffe: authority, site: newSite(t, plan{https: true, grants: fleetGrants,
		sections: "runners: [{name: fleet, trust_domain: runners.acme.example, bundle: {file: " + authority.BundleFile() + "}, path: \"/runner/{id}\"}]"})}
}

// holding gives a client that shows a certificate, nil for none.
func (s *site) holding(cert *tls.Certificate) *http.Client {
	conf := &tls.Config{RootCAs: s.web.Pool(), MinVersion: tls.VersionTLS12}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	transport := &http.Transport{TLSClientConfig: conf}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// The runner's X.509-SVID, shown in the handshake, is its evidence and the key
// that its credential is bound to: the resource takes the credential from who
// holds that key, and from nobody else.
func TestRunnersProveThemselvesByTheirCertificate(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve()
	svid := made(f.spiffe.X509SVID("/runner/one"))(t)
	thief := made(f.spiffe.X509SVID("/runner/two"))(t)
	resource := f.guarded()
	for _, c := range []struct {
		grant string
		bound bool
	}{{"mtls", true}, {"any", true}, {"plain", false}} {
		r := made(f.askWith(f.holding(&svid), exchangeForm(f.token(lab.Job{}), c.grant)))(t)
		if r.granted == nil || r.granted.TokenType != "Bearer" {
			t.Errorf("%s: %s", c.grant, r)
			continue
		}
		if said := claimsOf(r.granted.AccessToken); !strings.Contains(said, "act=true") || !strings.Contains(said, fmt.Sprintf("bound=%v", c.bound)) {
			t.Errorf("%s: the token says %s", c.grant, said)
		}
		for _, holder := range []struct {
			name string
			cert *tls.Certificate
			ok   bool
		}{{"its holder", &svid, true}, {"a thief with a certificate", &thief, !c.bound}, {"a thief without one", nil, !c.bound}} {
			if status := f.deploy(resource, holder.cert, r.granted.AccessToken); (status == http.StatusOK) != holder.ok {
				t.Errorf("%s, shown by %s: the resource says %d", c.grant, holder.name, status)
			}
		}
	}
}

// guarded starts a resource under TLS, behind a gate of the broker's tokens.
func (f *svidSite) guarded() *lab.Resource {
	var guarded http.Handler
	resource := made(lab.NewResource(lab.ResourceOptions{TLS: f.web, Guard: func(service http.Handler) http.Handler {
		guarded = service
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { guarded.ServeHTTP(w, r) })
	}}))(f.t)
	f.t.Cleanup(func() { _ = resource.Close() })
	ca := f.write("web.pem", string(f.web.PEM()))
	g := made(gate.New(gate.Config{Issuer: f.url, Audience: "https://deploy.acme.example", CA: ca}, gate.Options{}))(f.t)
	g.Start(f.t.Context())
	f.t.Cleanup(g.Close)
	guarded = g.Middleware(guarded)
	return resource
}

func (f *svidSite) deploy(resource *lab.Resource, cert *tls.Certificate, token string) int {
	req := made(http.NewRequest(http.MethodPost, resource.URL()+"/deploy", nil))(f.t)
	req.Header.Set("Authorization", "Bearer "+token)
	resp := made(f.holding(cert).Do(req))(f.t)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Certificates that prove no runner of ours get nothing, and neither does a
// request that names two runners.
func TestCertificatesThatProveNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve()
	svid := made(f.spiffe.X509SVID("/runner/one"))(t)
	impostor := made(f.spiffe.Impostor())(t)
	t.Cleanup(func() { _ = impostor.Close() })
	flawed := func(flaw lab.Flaw) *tls.Certificate {
		cert := made(f.spiffe.RogueX509SVID("/runner/one", flaw))(t)
		return &cert
	}
	rogue := made(impostor.X509SVID("/runner/one"))(t)
	web := made(f.web.ClientCertificate("runner one"))(t)
	stray := made(f.spiffe.X509SVID("/database/one"))(t)
	jwt := func(path string) []string {
		return []string{"actor_token", made(f.spiffe.JWTSVID(path, f.url))(t), "actor_token_type", proviso.TokenTypeJWT}
	}
	for _, c := range []struct {
		name  string
		cert  *tls.Certificate
		grant string
		more  []string
		code  proviso.Code
		stage proviso.Stage
	}{
		{"none", nil, "mtls", nil, proviso.CodeRunnerRequired, proviso.StageRunner},
		{"an impostor's", &rogue, "mtls", nil, proviso.CodeSVIDInvalid, proviso.StageRunner},
		{"the web's", &web, "mtls", nil, proviso.CodeSVIDInvalid, proviso.StageRunner},
		{"an expired one", flawed(lab.ExpiredSVID), "mtls", nil, proviso.CodeSVIDInvalid, proviso.StageRunner},
		{"an authority's", flawed(lab.AuthorityLeaf), "mtls", nil, proviso.CodeSVIDInvalid, proviso.StageRunner},
		{"another domain's name", flawed(lab.ForeignDomain), "mtls", nil, "trust_domain_unknown", proviso.StageRunner},
		{"a database's", &stray, "mtls", nil, "runner_path", proviso.StageRunner},
		{"one runner's, and another's JWT-SVID", &svid, "mtls", jwt("/runner/two"), proviso.CodeActorMismatch, proviso.StageRunner},
		{"one where none is taken", &svid, "cluster", nil, proviso.CodeRunnerNotAllowed, proviso.StageRunner},
		{"none, and a JWT-SVID for a bound grant", nil, "mtls", jwt("/runner/one"), proviso.CodeConstraintRequired, proviso.StageCredential},
	} {
		r := made(f.askWith(f.holding(c.cert), exchangeForm(f.token(lab.Job{}), c.grant, c.more...)))(t)
		if r.granted != nil || r.refused.Code != c.code || r.refused.Stage != c.stage {
			t.Errorf("%s: got %s, want %s at %s", c.name, r, c.code, c.stage)
		}
	}
	if r := made(f.askWith(f.holding(&svid), exchangeForm(f.token(lab.Job{}), "mtls", jwt("/runner/one")...)))(t); r.granted == nil {
		t.Errorf("one runner's certificate and its own JWT-SVID: %s", r)
	}
}

// A runner is believed for as long as its trust domain's bundle says so, also
// over a connection that is open already.
func TestWithdrawnAuthorityOverAnOpenConnection(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve()
	svid := made(f.spiffe.X509SVID("/runner/one"))(t)
	holder := f.holding(&svid)
	if r := made(f.askWith(holder, exchangeForm(f.token(lab.Job{}), "mtls")))(t); r.granted == nil {
		t.Fatalf("before: %s", r)
	}
	noError(t, f.spiffe.RotateAuthorities())
	noError(t, f.spiffe.RetireAuthorities())
	eventually(t, "the withdrawn authority's runner is refused", func() bool {
		r := made(f.askWith(holder, exchangeForm(f.token(lab.Job{}), "mtls")))(t)
		return r.refused.Code == proviso.CodeSVIDInvalid
	})
}

// A certificate of the door that is renewed on disk is shown without a restart.
func TestRenewedCertificateIsShown(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{https: true})
	s.serve()
	shown := func() *x509.Certificate {
		conn := made(tls.Dial("tcp", s.address, &tls.Config{RootCAs: s.web.Pool()}))(t)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	first := shown()
	renewed := s.certify("tls")
	eventually(t, "the renewed certificate is shown", func() bool { return shown().Equal(renewed) })
	if first.Equal(renewed) {
		t.Error("the certificate was not renewed")
	}
	if _, err := tls.Dial("tcp", s.address, &tls.Config{RootCAs: s.web.Pool(), MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is taken")
	}
}

// proviso exec --x509 gives a command a certificate that a TLS server of its
// own accepts, which knows nothing of Proviso but /ca.pem; without it, and with
// the authority's word alone, nobody gets in.
func TestCertificateOpensATLSServer(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve()
	resp := made(f.client.Get(f.url + "/ca.pem"))(t)
	ca := made(io.ReadAll(resp.Body))(t)
	_ = resp.Body.Close()
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(ca) {
		t.Fatalf("/ca.pem is no certificate: %s", ca)
	}
	server := made(f.web.ServerCertificate())(t)
	listener := made(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: trusted, MinVersion: tls.VersionTLS13}))(t)
	cluster := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaf := r.TLS.PeerCertificates[0]
		fmt.Fprintf(w, "%s %s", leaf.URIs, leaf.Subject)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cluster.Serve(listener) }()
	t.Cleanup(func() { _ = cluster.Close(); <-ended })
	url := "https://" + listener.Addr().String()
	web := f.write("web.pem", string(f.web.PEM()))

	job := f.github.Start(lab.Job{})
	cmd := exec.CommandContext(t.Context(), "proviso", "exec", "--grant", "cluster", "--x509", "--runner", "none", "--ca", web, "--broker", f.url, "--", "visit", url, web)
	cmd.Env = append(os.Environ(), made(job.Environment(f.url))(t)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	said, err := cmd.Output()
	if want := "[spiffe://acme.example/job/github/741200456] CN=github-741200456"; err != nil || string(said) != want {
		t.Errorf("the server says %q, want %q (%v): %s", said, want, err, stderr.String())
	}
	// Without a certificate, and with one that another authority signed.
	other := made(f.web.ClientCertificate("741200456"))(t)
	for name, cert := range map[string]*tls.Certificate{"without a certificate": nil, "with another authority's": &other} {
		if resp, err := f.holding(cert).Get(url); err == nil {
			t.Errorf("%s: the server answers %s", name, resp.Status)
		}
	}
}

// visit is what a job runs: it opens a TLS server with the certificate that
// exec gave it, and prints what the server says.
func visit() {
	pair, err := tls.LoadX509KeyPair(os.Getenv(envCertFile), os.Getenv(envKeyFile))
	pool := x509.NewCertPool()
	pem, err2 := os.ReadFile(os.Args[2])
	if err = errors.Join(err, err2); err == nil && !pool.AppendCertsFromPEM(pem) {
		err = errors.New("no authority")
	}
	var resp *http.Response
	if err == nil {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool}}}
		resp, err = c.Get(os.Args[1])
	}
	if err == nil {
		_, err = io.Copy(os.Stdout, resp.Body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "visit:", err)
		os.Exit(1)
	}
}
