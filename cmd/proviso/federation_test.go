package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

var ownDomain = spiffeid.RequireTrustDomainFromString("ci.acme.example")

// Others federate with the broker's own trust domain by either profile, and then
// believe the SVIDs that its grants give. go-spiffe's client stands for them.
func TestOthersFederateWithTheBroker(t *testing.T) {
	t.Parallel()
	endpoint := loopback() + ":8443"
	f := newOwnFleet(t, "1h", fmt.Sprintf(", refresh_hint: 2m, bundle_listen: %q", endpoint))
	stop := f.serveUntil()
	ctx := t.Context()

	web := made(federation.FetchBundle(ctx, ownDomain, f.url+"/spiffe/bundle", federation.WithWebPKIRoots(f.web.Pool())))(t)
	if hint, ok := web.RefreshHint(); !ok || hint != 2*time.Minute {
		t.Errorf("the refresh hint is %s", hint)
	}
	sequence, ok := web.SequenceNumber()
	if !ok || sequence == 0 {
		t.Errorf("the sequence is %d", sequence)
	}
	id := spiffeid.RequireFromString("spiffe://ci.acme.example/bundle-endpoint")
	spiffe := made(federation.FetchBundle(ctx, ownDomain, "https://"+endpoint, federation.WithSPIFFEAuth(web, id)))(t)
	if !spiffe.Equal(web) {
		t.Error("the two profiles serve different bundles")
	}
	// Who holds another domain's keys under the name gets nothing, and neither does
	// who expects another endpoint.
	impostor := made(lab.NewSPIFFE("ci.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = impostor.Close() })
	if _, err := federation.FetchBundle(ctx, ownDomain, "https://"+endpoint, federation.WithSPIFFEAuth(made(impostor.Bundle())(t), id)); err == nil {
		t.Error("a client with other keys took the bundle")
	}
	other := spiffeid.RequireFromString("spiffe://ci.acme.example/other")
	if _, err := federation.FetchBundle(ctx, ownDomain, "https://"+endpoint, federation.WithSPIFFEAuth(web, other)); err == nil {
		t.Error("a client of another endpoint took the bundle")
	}
	f.grantsSVIDs(web)

	// A restart changes nothing in the bundle, and nothing in its sequence.
	stop()
	f.serveUntil()
	again := made(federation.FetchBundle(ctx, ownDomain, f.url+"/spiffe/bundle", federation.WithWebPKIRoots(f.web.Pool())))(t)
	if !again.Equal(web) {
		t.Error("after a restart the bundle is another one")
	}
}

// grantsSVIDs asks for both kinds of SVID, and believes them by the bundle alone.
func (f *ownFleet) grantsSVIDs(bundle *spiffebundle.Bundle) {
	t := f.t
	t.Helper()
	csr, _ := request(t)
	r := f.ask(exchangeForm(f.token(lab.Job{}), "svid", "csr", csr, "requested_token_type", proviso.TokenTypeX509))
	if r.granted == nil || r.granted.TokenType != "N_A" || r.granted.Proviso.Credential.Kind != "x509-svid" {
		t.Fatalf("no X.509-SVID: %s", r)
	}
	block, _ := pem.Decode([]byte(r.granted.AccessToken))
	id, _, err := x509svid.Verify([]*x509.Certificate{made(x509.ParseCertificate(block.Bytes))(t)}, bundle)
	if err != nil || id.String() != "spiffe://ci.acme.example/job/github/741200456" {
		t.Errorf("%v %v", id, err)
	}
	r = f.ask(exchangeForm(f.token(lab.Job{}), "token", "requested_token_type", proviso.TokenTypeJWT))
	if r.granted == nil || r.granted.IssuedTokenType != proviso.TokenTypeJWT {
		t.Fatalf("no JWT-SVID: %s", r)
	}
	if svid, err := jwtsvid.ParseAndValidate(r.granted.AccessToken, bundle, []string{"https://db.acme.example"}); err != nil || svid.ID != id {
		t.Errorf("%v %v", svid, err)
	}
	held := r.granted.AccessToken
	// A JWT-SVID is no access token, and what is one is no JWT-SVID.
	if r := f.ask(exchangeForm(f.token(lab.Job{}), "token", "requested_token_type", proviso.TokenTypeAccessToken)); r.refused.Code != proviso.CodeTokenTypeMismatch {
		t.Errorf("a JWT-SVID as an access token: %s", r)
	}
	// A job with an SVID of the domain is no runner of its fleet.
	r = f.ask(exchangeForm(f.token(lab.Job{}), "deploy", "actor_token", held, "actor_token_type", proviso.TokenTypeJWT))
	if r.granted != nil || r.refused.Stage != proviso.StageRunner {
		t.Errorf("a job as its own runner: %s", r)
	}
}

// serveUntil runs the broker in this process until the function that it gives is
// called, or the test ends.
func (f *ownFleet) serveUntil() (stop func()) {
	f.t.Helper()
	config, _, err := readConfig(f.file)
	noError(f.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.t.Context()))
	b, err := start(ctx, config, slog.New(slog.DiscardHandler))
	if err != nil {
		cancel()
		f.t.Fatal(err)
	}
	listener := made(net.Listen("tcp", f.address))(f.t)
	ended := make(chan error, 1)
	go func() { ended <- b.server.Serve(ctx, listener) }()
	done := false
	stop = func() {
		if done {
			return
		}
		done = true
		f.client.CloseIdleConnections()
		cancel()
		if err := errors.Join(<-ended, b.close()); err != nil {
			f.t.Errorf("the broker did not end cleanly: %v", err)
		}
	}
	f.t.Cleanup(stop)
	return stop
}

// A broker that is started again knows how new a trust domain's bundle was, and
// takes no older one, until its operator says that the domain began anew.
func TestAnOlderBundleKeepsTheBrokerFromStarting(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	sequence := func(n int) {
		t.Helper()
		var bundle map[string]any
		noError(t, json.Unmarshal(made(os.ReadFile(y.fleet.BundleFile()))(t), &bundle))
		bundle["spiffe_sequence"] = n
		noError(t, os.WriteFile(y.fleet.BundleFile(), made(json.Marshal(bundle))(t), 0o600))
	}
	stop := func(p *process) {
		p.signal(syscall.SIGTERM)
		if code := p.ended(30 * time.Second); code != exitDone {
			t.Errorf("the broker ended with %d: %s", code, p.log.String())
		}
	}
	sequence(7)
	stop(y.spawn())
	sequence(6)
	p := y.launch()
	if code := p.ended(30 * time.Second); code != exitRefused || !strings.Contains(p.log.String(), "bundle_rollback: spiffe_sequence 6 is lower than the last one, 7") || !strings.Contains(p.log.String(), "proviso runner bundle forget runners.acme.example") {
		t.Errorf("the broker ended with %d: %s", code, p.log.String())
	}
	if code, said := cli(t, "runner", "bundle", "forget", "elsewhere.example", "-c", y.file); code != exitRefused || !strings.Contains(said, "no sequence of a bundle") {
		t.Errorf("%d: %s", code, said)
	}
	if code, said := cli(t, "runner", "bundle", "forget", "runners.acme.example", "--reason", "a new server", "-c", y.file); code != exitDone || !strings.Contains(said, "is forgotten") {
		t.Errorf("%d: %s", code, said)
	}
	stop(y.spawn())
	if _, said := cli(t, "audit", "search", "--store", filepath.Join(y.dir, "data"), "--output", "json"); !strings.Contains(said, "bundle-forgotten") || !strings.Contains(said, "a new server") {
		t.Error("the record has nothing of it")
	}
}

// A configuration whose grants could pass for runners, or whose trust domains
// overlap, keeps the broker from starting.
func TestOwnDomainsConfiguration(t *testing.T) {
	t.Parallel()
	good := newOwnFleet(t, "1h", "")
	text := string(made(readFile(good.file))(t))
	if _, _, err := parseConfig(good.file, []byte(text)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, change, says string }{
		{"a grant that names a runner", "/job/{issuer}/{repository_id}\"}}", "/region/{issuer}/runner/{repository_id}\"}}", "could pass for one"},
		{"a grant that names a workload", "/job/{issuer}/{repository_id}\"}}", "/region/{issuer}/runner/{repository_id}/workload/ci\"}}", "could pass for one"},
		{"a grant that names the endpoint", "/job/{issuer}/{repository_id}\"}}", "/bundle-endpoint\"}}", "could pass for one"},
		{"own keys from a file", "{own: true}", "{file: bundle.json}", "come from nowhere else"},
		{"own and a file", "{own: true}", "{own: true, file: bundle.json}", "beside another source"},
		{"another domain's own", "trust_domain: ci.acme.example, bundle", "trust_domain: other.example, bundle", "the broker's own trust domain is"},
		{"no trust domain", "trust_domain: {name: ci.acme.example}\n", "", "has no trust domain of its own"},
		{"a domain in upper case", "trust_domain: {name: ci.acme.example}", "trust_domain: {name: CI.acme.example}", "no trust domain's name"},
		{"a second's life", "ttl: 1h", "ttl: 1s", "5s to 24h"},
		{"a JWT-SVID of a day", "jwt_ttl: 30s", "jwt_ttl: 24h", "5s to 1h"},
		{"a hint of a second", "{name: ci.acme.example}", "{name: ci.acme.example, refresh_hint: 1s}", "refresh_hint"},
	} {
		changed := replaceOnce(t, text, c.old, c.change)
		_, _, err := parseConfig(filepath.Join(good.dir, "other.yaml"), []byte(changed))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func replaceOnce(t *testing.T, text, old, change string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in the good configuration", old)
	}
	return strings.Replace(text, old, change, 1)
}
