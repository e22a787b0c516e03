package runner_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/keyset"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

const partner = "partner.example"

// watch is a clock that a test turns.
type watch struct{ ahead atomic.Int64 }

func (w *watch) now() time.Time        { return time.Now().Add(time.Duration(w.ahead.Load())) }
func (w *watch) turn(by time.Duration) { w.ahead.Add(int64(by)) }

// federation is a verifier with a trust domain of its own, from a file, and a
// partner's, from wherever a test says.
type federation struct {
	*runner.Verifier
	t       *testing.T
	watch   *watch
	own     *authority
	partner *lab.SPIFFE
	web     *lab.CA
	dir     string
}

func newFederation(t *testing.T) *federation {
	t.Helper()
	f := &federation{t: t, watch: &watch{}, own: newAuthority(t, domain, time.Now()), dir: t.TempDir()}
	f.partner = made(lab.NewSPIFFE(partner, "", lab.SPIFFEOptions{Now: f.watch.now, X509Life: time.Minute}))(t)
	t.Cleanup(func() { _ = f.partner.Close() })
	f.web = made(lab.NewCA("the web"))(t)
	return f
}

func made[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (f *federation) open(b runner.Bundle, more ...runner.Config) {
	f.t.Helper()
	configs := append([]runner.Config{f.own.config("fleet"), {Name: "partner", TrustDomain: partner, Bundle: b, Path: "/runner/{id}"}}, more...)
	if problems := runner.Check(configs); len(problems) > 0 {
		f.t.Fatal(problems)
	}
	f.Verifier = made(runner.New(configs, runner.Options{Audience: broker, Now: f.watch.now, Log: quiet, EndpointCheck: 50 * time.Millisecond}))(f.t)
	f.t.Cleanup(f.Close)
}

// ask has the partner's bundle asked for once, and gives what came of it.
func (f *federation) ask() runner.Status {
	f.Refresh(f.t.Context())
	return f.Status()[1]
}

// show shows a fresh SVID of the partner, of both kinds, and wants one answer.
func (f *federation) show() error {
	f.t.Helper()
	cert := made(f.partner.X509SVID("/runner/one"))(f.t)
	_, err := verify(f.Verifier, runner.Evidence{Certificates: []*x509.Certificate{cert.Leaf}})
	token := made(f.partner.JWTSVID("/runner/one", broker))(f.t)
	if _, jwtErr := verify(f.Verifier, runner.Evidence{JWTSVID: token}); (err == nil) != (jwtErr == nil) {
		f.t.Errorf("the X.509-SVID: %v, the JWT-SVID: %v", err, jwtErr)
	}
	return err
}

// good reports whether SVIDs of both kinds are taken. For what changes meanwhile:
// the second may be shown to newer keys than the first.
func (f *federation) good() bool {
	f.t.Helper()
	cert := made(f.partner.X509SVID("/runner/one"))(f.t)
	_, err := verify(f.Verifier, runner.Evidence{Certificates: []*x509.Certificate{cert.Leaf}})
	token := made(f.partner.JWTSVID("/runner/one", broker))(f.t)
	_, jwtErr := verify(f.Verifier, runner.Evidence{JWTSVID: token})
	return err == nil && jwtErr == nil
}

// gone reports whether SVIDs of neither kind are taken.
func (f *federation) gone() bool {
	return !f.Status()[1].Usable
}

// ownStands: whatever becomes of the partner, the other domain is served.
func (f *federation) ownStands() {
	f.t.Helper()
	f.own.now = f.watch.now()
	if _, err := verify(f.Verifier, runner.Evidence{JWTSVID: f.own.token(f.own.claims(), nil)}); err != nil {
		f.t.Errorf("the other trust domain is taken down too: %v", err)
	}
}

func (f *federation) webEndpoint() runner.Bundle {
	ca := filepath.Join(f.dir, "web.pem")
	if err := f.web.WriteFile(ca); err != nil {
		f.t.Fatal(err)
	}
	return runner.Bundle{URL: made(f.partner.BundleEndpoint(f.web))(f.t), Profile: "https_web", CAFile: ca, AllowPrivate: true}
}

// A bundle endpoint that is down, slow or lies opens nothing; the last good
// bundle serves until max_stale and not longer; and nobody else is concerned.
func TestBundleEndpointThatFails(t *testing.T) {
	f := newFederation(t)
	b := f.webEndpoint()
	b.MaxStale = time.Hour
	f.open(b)
	f.partner.SetFaults(lab.Faults{Down: true})
	if st := f.ask(); st.Usable || st.Code != runner.CodeBundleEndpoint || st.Sequence != -1 {
		t.Fatalf("an endpoint that is down from the start: %+v", st)
	}
	wantRefusal(t, f.show(), runner.CodeBundleUnavailable, partner)
	f.ownStands()
	f.partner.SetFaults(lab.Faults{})
	if st := f.ask(); !st.Usable || st.Problem != nil || f.show() != nil {
		t.Fatalf("it came back: %+v", st)
	}
	elsewhere := made(f.partner.Impostor())(t) // trusted by the web as much
	t.Cleanup(func() { _ = elsewhere.Close() })
	for _, c := range []struct {
		name   string
		faults lab.Faults
		code   proviso.Code
	}{
		{"down", lab.Faults{Down: true}, runner.CodeBundleEndpoint},
		{"an error", lab.Faults{Status: 500}, runner.CodeBundleEndpoint},
		{"a redirect", lab.Faults{Redirect: made(elsewhere.BundleEndpoint(f.web))(t)}, runner.CodeBundleEndpoint},
		{"a login page", lab.Faults{NotJSON: true}, proviso.CodeBundleMalformed},
		{"without end", lab.Faults{Huge: 2 << 20}, proviso.CodeBundleMalformed},
	} {
		f.partner.SetFaults(c.faults)
		if st := f.ask(); st.Code != c.code || !st.Usable || f.show() != nil {
			t.Errorf("%s: %+v, want %s and the last good bundle", c.name, st, c.code)
		}
		f.ownStands()
	}
	f.watch.turn(59 * time.Minute)
	if err := f.show(); err != nil {
		t.Errorf("before max_stale: %v", err)
	}
	f.watch.turn(2 * time.Minute)
	wantRefusal(t, f.show(), runner.CodeBundleStale, "1h1m")
	if st := f.Status()[1]; st.Usable {
		t.Errorf("too old, and usable: %+v", st)
	}
	f.ownStands()
	f.partner.SetFaults(lab.Faults{})
	if st := f.ask(); !st.Usable || f.show() != nil {
		t.Errorf("it came back: %+v", st)
	}
}

// A slow endpoint holds up nobody: verifying never waits for it.
func TestSlowBundleEndpointHoldsUpNobody(t *testing.T) {
	f := newFederation(t)
	f.open(f.webEndpoint())
	f.partner.SetFaults(lab.Faults{Delay: time.Hour})
	f.Start(t.Context())
	begun := time.Now()
	wantRefusal(t, f.show(), runner.CodeBundleUnavailable, partner)
	f.ownStands()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("verifying took %s", took)
	}
}

// What an endpoint says is taken only if it may follow what it said before, and
// a sequence never falls. The key of another domain makes no bundle.
func TestBundleEndpointThatLies(t *testing.T) {
	f := newFederation(t)
	f.open(f.webEndpoint())
	if err := f.partner.SetSequence(7); err != nil {
		t.Fatal(err)
	}
	if st := f.ask(); !st.Usable || st.Sequence != 7 {
		t.Fatalf("%+v", st)
	}
	if err := f.partner.SetSequence(6); err != nil {
		t.Fatal(err)
	}
	if st := f.ask(); st.Code != proviso.CodeBundleRollback || st.Sequence != 7 {
		t.Errorf("a lower sequence: %+v", st)
	}
	if err := f.partner.SetSequence(7); err != nil {
		t.Fatal(err)
	}
	if err := f.partner.SetRefreshHint(time.Second); err != nil { // raises it to 8
		t.Fatal(err)
	}
	if st := f.ask(); st.Problem != nil || st.Sequence != 8 {
		t.Errorf("a higher one: %+v", st)
	}
	shared := f.own.bundle(9)
	f.own.writeDocument(shared)
	b := runner.Bundle{File: filepath.Join(f.dir, "shared.json")}
	data := made(os.ReadFile(f.own.file))(t)
	if err := os.WriteFile(b.File, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := runner.New([]runner.Config{f.own.config("fleet"), {Name: "partner", TrustDomain: partner, Bundle: b, Path: "/runner/{id}"}},
		runner.Options{Audience: broker, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), string(proviso.CodeBundleSharedKey)) {
		t.Errorf("one bundle under two names: %v", err)
	}
}

// Whoever isn't the configured endpoint gives no bundle.
func TestBundleEndpointThatIsSomebodyElse(t *testing.T) {
	f := newFederation(t)
	other := made(lab.NewCA("another authority"))(t)
	web := f.webEndpoint()
	web.URL = made(f.partner.BundleEndpoint(other))(t)
	far := f.webEndpoint()
	far.AllowPrivate = false
	impostor := made(f.partner.Impostor())(t)
	t.Cleanup(func() { _ = impostor.Close() })
	spiffe := runner.Bundle{URL: made(f.partner.BundleEndpoint(nil))(t), Profile: "https_spiffe", File: f.partner.BundleFile(),
		EndpointSPIFFEID: f.partner.BundleEndpointID(), AllowPrivate: true}
	rogue, name, plain := spiffe, spiffe, spiffe
	rogue.URL = made(impostor.BundleEndpoint(nil))(t)
	name.EndpointSPIFFEID = "spiffe://" + partner + "/another-endpoint"
	plain.URL = f.webEndpoint().URL // a certificate of the web is no SVID
	for _, c := range []struct {
		name   string
		bundle runner.Bundle
		code   proviso.Code
	}{
		{"a certificate of another authority", web, runner.CodeBundleEndpointIdentity},
		{"this machine, which isn't allowed", far, keyset.CodeAddress},
		{"an SVID of an impostor", rogue, runner.CodeBundleEndpointIdentity},
		{"another SPIFFE ID", name, runner.CodeBundleEndpointIdentity},
		{"no SVID at all", plain, runner.CodeBundleEndpointIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := *f
			g.t = t
			g.open(c.bundle)
			if st := g.ask(); st.Code != c.code || st.Usable {
				t.Errorf("%+v, want %s", st, c.code)
			}
			wantRefusal(t, g.show(), runner.CodeBundleUnavailable, partner)
			g.ownStands()
		})
	}
}

// The bundle that an https_spiffe endpoint is known by verifies no SVID by
// itself; the endpoint's own does, and follows a rotation of every key.
func TestSPIFFEBundleEndpoint(t *testing.T) {
	f := newFederation(t)
	f.open(runner.Bundle{URL: made(f.partner.BundleEndpoint(nil))(t), Profile: "https_spiffe", File: f.partner.BundleFile(),
		EndpointSPIFFEID: f.partner.BundleEndpointID(), AllowPrivate: true})
	wantRefusal(t, f.show(), runner.CodeBundleUnavailable, partner)
	for range 2 {
		if st := f.ask(); !st.Usable || st.Problem != nil || f.show() != nil {
			t.Fatalf("%+v", st)
		}
		for _, rotate := range []func() error{f.partner.RotateAuthorities, func() error { f.ask(); return f.partner.RetireAuthorities() }} {
			if err := rotate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.partner.SetSequence(1); err != nil {
		t.Fatal(err)
	}
	if st := f.ask(); st.Code != proviso.CodeBundleRollback {
		t.Errorf("%+v", st)
	}
}

// An endpoint may prove itself in another trust domain, which then has an entry
// of its own; as that one's bundle, so is this.
func TestBundleEndpointOfAnotherDomain(t *testing.T) {
	f := newFederation(t)
	host := made(lab.NewSPIFFE("host.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = host.Close() })
	entry := runner.Config{Name: "host", TrustDomain: "host.example", Bundle: runner.Bundle{File: host.BundleFile()}, Path: "/runner/{id}"}
	b := runner.Bundle{URL: made(host.BundleEndpoint(nil))(t), Profile: "https_spiffe", EndpointSPIFFEID: host.BundleEndpointID(), AllowPrivate: true}
	f.open(b, entry)
	// It gives host.example's bundle, whose keys are that domain's alone.
	if st := f.ask(); st.Code != proviso.CodeBundleSharedKey || st.Usable {
		t.Errorf("one domain's bundle under another's name: %+v", st)
	}
	problems := runner.Check([]runner.Config{{Name: "partner", TrustDomain: partner, Bundle: b, Path: "/runner/{id}"}})
	if len(problems) != 1 || problems[0].Path != "[0].bundle.endpoint_spiffe_id" {
		t.Errorf("without an entry for it: %v", problems)
	}
}

// A bundle endpoint is asked again by itself, as its hint says.
func TestBundleEndpointIsAskedByItsHint(t *testing.T) {
	f := newFederation(t)
	if err := f.partner.SetRefreshHint(time.Second); err != nil {
		t.Fatal(err)
	}
	f.open(f.webEndpoint())
	f.Start(t.Context())
	f.eventually("the first bundle", f.good)
	if err := f.partner.RotateAuthorities(); err != nil {
		t.Fatal(err)
	}
	f.eventually("the rotated one", f.good)
}

// eventually waits for what comes over a socket.
func (f *federation) eventually(what string, done func() bool) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case <-deadline:
			f.t.Fatalf("%s did not come: %+v", what, f.Status()[1])
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Bundles of the Workload API are live: a rotation, and the end of a federation,
// count at once; an agent that is gone leaves the last good bundle for max_stale.
func TestWorkloadAPIBundles(t *testing.T) {
	f := newFederation(t)
	agent := made(lab.NewSPIFFE("agents.example", f.short(), lab.SPIFFEOptions{}))(t)
	agent.Federate(f.partner)
	f.open(runner.Bundle{WorkloadAPI: agent.Socket(), MaxStale: time.Hour})
	f.Start(t.Context())
	f.eventually("the broker is told that it is no workload", func() bool {
		st := f.Status()[1]
		return st.Code == runner.CodeBundleEndpoint && strings.Contains(st.Problem.Error(), "register the broker")
	})
	wantRefusal(t, f.show(), runner.CodeBundleUnavailable, partner)
	f.ownStands()
	agent.Serve("/proviso")
	f.eventually("the first bundle", f.good)
	if err := f.partner.RotateAuthorities(); err != nil {
		t.Fatal(err)
	}
	if err := f.partner.RetireAuthorities(); err != nil {
		t.Fatal(err)
	}
	agent.RotateSVIDs() // tells its watchers
	f.eventually("the rotated one", f.good)
	f.watch.turn(2 * time.Hour)
	if err := f.show(); err != nil {
		t.Errorf("while the stream stands, its bundle is fresh: %v", err)
	}
	agent.Unfederate(f.partner)
	f.eventually("the end of the federation", f.gone)
	wantRefusal(t, f.show(), runner.CodeBundleUnavailable, partner)
	agent.Federate(f.partner)
	f.eventually("the federation again", f.good)
	if err := agent.Close(); err != nil {
		t.Fatal(err)
	}
	f.eventually("the loss of the agent", func() bool { return f.Status()[1].Problem != nil })
	if err := f.show(); err != nil {
		t.Errorf("the agent is gone, and with it the last good bundle: %v", err)
	}
	f.watch.turn(2 * time.Hour)
	wantRefusal(t, f.show(), runner.CodeBundleStale, partner)
	f.ownStands()
}

// short gives a directory whose name leaves room for a socket's.
func (f *federation) short() string {
	dir := made(os.MkdirTemp("", "wl"))(f.t)
	f.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// One trust domain can never speak for another: neither its X.509 authorities
// nor its JWT authorities make an SVID of the other's, in both directions.
func TestDomainsDontSpeakForEachOther(t *testing.T) {
	a, b := newAuthority(t, domain, frozen), newAuthority(t, partner, frozen)
	b.kid = "jwt-2"
	b.write(1)
	v := newVerifier(t, frozen, a.config("fleet"), b.config("partner"))
	for _, c := range []struct {
		by *authority
		of string
	}{{a, partner}, {b, domain}} {
		id := fmt.Sprintf("spiffe://%s/region/eu/runner/one", c.of)
		_, err := verify(v, runner.Evidence{Certificates: []*x509.Certificate{c.by.leaf(id)}})
		wantRefusal(t, err, proviso.CodeSVIDInvalid, "not issued by the trust domain "+c.of)
		claims := c.by.claims()
		claims["sub"] = id
		token := c.by.token(claims, nil)
		_, err = verify(v, runner.Evidence{JWTSVID: token})
		wantRefusal(t, err, proviso.CodeJWTUnknownKID, c.of, token)
		own := fmt.Sprintf("spiffe://%s/region/eu/runner/one", c.by.domain)
		if _, err := verify(v, runner.Evidence{Certificates: []*x509.Certificate{c.by.leaf(own)}}); err != nil {
			t.Errorf("its own: %v", err)
		}
	}
}

func TestBundleConfigProblems(t *testing.T) {
	endpoint := runner.Bundle{URL: "https://spire.partner.example:8443", Profile: "https_spiffe", File: "first.json", EndpointSPIFFEID: "spiffe://" + domain + "/spire/server"}
	with := func(change func(b *runner.Bundle)) runner.Bundle {
		b := endpoint
		change(&b)
		return b
	}
	for name, c := range map[string]struct {
		bundle runner.Bundle
		path   string
	}{
		"two sources":              {with(func(b *runner.Bundle) { b.WorkloadAPI = "unix:///a.sock" }), ""},
		"file and Workload API":    {runner.Bundle{File: "b.json", WorkloadAPI: "unix:///a.sock"}, ""},
		"a remote Workload API":    {runner.Bundle{WorkloadAPI: "tcp://10.0.0.1:8081"}, ".workload_api"},
		"a relative socket":        {runner.Bundle{WorkloadAPI: "agent.sock"}, ".workload_api"},
		"plain HTTP":               {with(func(b *runner.Bundle) { b.URL = "http://spire.partner.example" }), ".url"},
		"a user name":              {with(func(b *runner.Bundle) { b.URL = "https://me@spire.partner.example" }), ".url"},
		"no profile":               {with(func(b *runner.Bundle) { b.Profile = "" }), ".profile"},
		"no endpoint ID":           {with(func(b *runner.Bundle) { b.EndpointSPIFFEID = "" }), ".endpoint_spiffe_id"},
		"a domain as endpoint":     {with(func(b *runner.Bundle) { b.EndpointSPIFFEID = "spiffe://" + domain }), ".endpoint_spiffe_id"},
		"nothing to begin with":    {with(func(b *runner.Bundle) { b.File = "" }), ".file"},
		"an authority of the web":  {with(func(b *runner.Bundle) { b.CAFile = "ca.pem" }), ".ca_file"},
		"a bundle beside the web":  {with(func(b *runner.Bundle) { b.Profile, b.EndpointSPIFFEID = "https_web", "" }), ".file"},
		"an ID beside the web":     {with(func(b *runner.Bundle) { b.Profile, b.File = "https_web", "" }), ".endpoint_spiffe_id"},
		"too long":                 {with(func(b *runner.Bundle) { b.MaxStale = 999 * time.Hour }), ".max_stale"},
		"too short":                {with(func(b *runner.Bundle) { b.MaxStale = time.Second }), ".max_stale"},
		"a profile without a URL":  {runner.Bundle{File: "b.json", Profile: "https_web"}, ".profile"},
		"a permit without a URL":   {runner.Bundle{File: "b.json", AllowPrivate: true}, ".allow_private"},
		"an authority without URL": {runner.Bundle{File: "b.json", CAFile: "ca.pem"}, ".ca_file"},
	} {
		problems := runner.Check([]runner.Config{{Name: "fleet", TrustDomain: domain, Bundle: c.bundle, Path: "/runner/{id}"}})
		if len(problems) != 1 || problems[0].Path != "[0].bundle"+c.path {
			t.Errorf("%s: got %v, want one problem at .bundle%s", name, problems, c.path)
		}
	}
	if p := runner.Check([]runner.Config{{Name: "fleet", TrustDomain: domain, Bundle: endpoint, Path: "/runner/{id}"}}); len(p) > 0 {
		t.Error(p)
	}
}
