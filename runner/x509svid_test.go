package runner_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/runner"
)

var frozen = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// Every way in which an X.509-SVID can be bad is a refusal of its own. The last
// column says whether go-spiffe alone would have let it through.
func TestX509SVIDRefused(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	other := newAuthority(t, "partner.example", frozen)
	impostor := newAuthority(t, domain, frozen)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	set := func(f func(c *x509.Certificate)) *x509.Certificate { return a.leaf(goodID, f) }
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Log("no 1,024-bit RSA on this machine:", err)
	}
	// rawSAN puts URI names into the certificate as they are.
	rawSAN := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			var list []asn1.RawValue
			for _, n := range names {
				list = append(list, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(n)})
			}
			der, err := asn1.Marshal(list)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs, c.ExtraExtensions = nil, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der}}
		}
	}
	cases := []struct {
		name      string
		leaf      *x509.Certificate
		code      proviso.Code
		word      string
		goSPIFFE  bool // lets it through
		moreChain []*x509.Certificate
	}{
		{name: "two URI SANs", word: "exactly one URI SAN",
			leaf: set(func(c *x509.Certificate) { c.URIs = append(c.URIs, uri(goodID)) })},
		{name: "no URI SAN", word: "has 0", leaf: set(func(c *x509.Certificate) { c.URIs = nil })},
		{name: "no path", word: "has a path", goSPIFFE: true, leaf: a.leaf("spiffe://" + domain)},
		{name: "other scheme", word: "no SPIFFE ID", leaf: a.leaf("https://" + domain + "/runner/1")},
		{name: "empty fragment", word: "no SPIFFE ID", goSPIFFE: true, leaf: set(rawSAN(goodID + "#"))},
		{name: "dot segments", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + "/region/x/runner/../runner/1"))},
		{name: "percent-encoding", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + "/region/x/runner/%2e%2e"))},
		{name: "single dot", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + "/region/./runner/1"))},
		{name: "empty segment", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + "/region//runner/1"))},
		{name: "trailing slash", word: "no SPIFFE ID", leaf: set(rawSAN(goodID + "/"))},
		{name: "an encoded slash", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + "/region/x%2Frunner/1"))},
		{name: "a query", word: "no SPIFFE ID", leaf: set(rawSAN(goodID + "?x=1"))},
		{name: "a port", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://" + domain + ":8443/region/x/runner/1"))},
		{name: "a user", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://me@" + domain + "/region/x/runner/1"))},
		{name: "the scheme in capitals", word: "no SPIFFE ID", goSPIFFE: true, leaf: set(rawSAN("SPIFFE://" + domain + "/region/x/runner/1"))},
		{name: "upper-case trust domain", word: "no SPIFFE ID", leaf: set(rawSAN("spiffe://RUNNERS.acme.example/region/x/runner/1"))},
		{name: "CA leaf", word: "CA certificate",
			leaf: set(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign })},
		{name: "keyCertSign", word: "keyCertSign", leaf: set(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
		{name: "cRLSign", word: "cRLSign", leaf: set(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign })},
		{name: "no digitalSignature", word: "digitalSignature", goSPIFFE: true,
			leaf: set(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })},
		{name: "no key usage", word: "digitalSignature", goSPIFFE: true, leaf: set(func(c *x509.Certificate) { c.KeyUsage = 0 })},
		{name: "key usage not critical", word: "critical", goSPIFFE: true, leaf: set(func(c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: []byte{3, 2, 7, 0x80}}}
		})},
		{name: "code signing only", word: "clientAuth", goSPIFFE: true,
			leaf: set(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })},
		{name: "server only", word: "clientAuth", goSPIFFE: true,
			leaf: set(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		{name: "lives for years", word: "lives for", goSPIFFE: true,
			leaf: set(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(100 * 365 * 24 * time.Hour) })},
		{name: "expired", word: "expired at", leaf: set(func(c *x509.Certificate) { c.NotAfter = frozen.Add(-time.Second) })},
		{name: "expires now", word: "expired at", goSPIFFE: true, leaf: set(func(c *x509.Certificate) { c.NotAfter = frozen })},
		{name: "from the future", word: "only from", leaf: set(func(c *x509.Certificate) { c.NotBefore = frozen.Add(time.Second) })},
		{name: "unknown authority", word: "not issued by", leaf: impostor.leaf(goodID)},
		{name: "another domain's authority", word: "not issued by", leaf: other.leaf(goodID)},
		{name: "unknown trust domain", code: runner.CodeTrustDomainUnknown, word: "stranger.example", leaf: a.leaf("spiffe://stranger.example/region/x/runner/1")},
		{name: "no runner's path", code: runner.CodeRunnerPath, word: "matches no template", goSPIFFE: true, leaf: a.leaf("spiffe://" + domain + "/ns/prod/sa/web")},
		{name: "path with one segment more", code: runner.CodeRunnerPath, word: "matches no template", goSPIFFE: true, leaf: a.leaf(goodID + "/more")},
		{name: "value like an option", code: runner.CodeRunnerPath, word: "matches no template", goSPIFFE: true, leaf: a.leaf("spiffe://" + domain + "/region/x/runner/-f")},
		{name: "value of dots", code: runner.CodeRunnerPath, word: "matches no template", goSPIFFE: true, leaf: a.leaf("spiffe://" + domain + "/region/x/runner/...")},
		{name: "chain too long", word: "at most", goSPIFFE: true, leaf: a.leaf(goodID),
			moreChain: []*x509.Certificate{a.root, a.root, a.root, a.root, a.root, a.root}},
	}
	if weak != nil {
		cases = append(cases, cases[0])
		last := &cases[len(cases)-1]
		last.name, last.word, last.goSPIFFE, last.leaf = "weak RSA key", "too weak", true, a.leafFor(goodID, &weak.PublicKey)
	}
	v := newVerifier(t, frozen, a.config("fleet"), other.config("partner"))
	spiffe := x509bundle.FromX509Authorities(spiffeid.RequireTrustDomainFromString(domain), []*x509.Certificate{a.root})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.code == "" {
				c.code = proviso.CodeSVIDInvalid
			}
			chain := append([]*x509.Certificate{c.leaf}, c.moreChain...)
			_, err := verify(v, runner.Evidence{Certificates: chain})
			wantRefusal(t, err, c.code, c.word)
			if _, _, err := x509svid.Verify(chain, spiffe, x509svid.WithTime(frozen)); (err == nil) != c.goSPIFFE {
				t.Errorf("go-spiffe alone: %v; the table says otherwise", err)
			}
		})
	}
}

func TestX509SVIDAccepted(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier()
	leaf := a.leaf(goodID)
	for range 2 { // verified, then remembered
		r, err := verify(v, runner.Evidence{Certificates: []*x509.Certificate{leaf}})
		if err != nil {
			t.Fatal(err)
		}
		want := `{"assurance":3,"attestation":"spiffe-x509","bound":false,"environment":"self-hosted","id":"trusted-runner-1","region":"us-west-2",` +
			`"spiffe_id":"` + goodID + `","trust_domain":"` + domain + `"}`
		if got := r.Document().String(); got != want {
			t.Errorf("document\n got %s\nwant %s", got, want)
		}
		if r.Name() != "fleet" || r.ID() != "trusted-runner-1" || r.Region() != "us-west-2" || r.SPIFFEID() != goodID || r.TrustDomain() != domain ||
			r.Attestation() != runner.AttestationX509 || r.Bound() || len(r.EvidenceHash()) != 64 || !r.Expires().Equal(leaf.NotAfter) || r.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	if n := v.Remembered(); n != 1 {
		t.Errorf("%d chains remembered, want 1", n)
	}
}

func TestNoEvidenceIsTheZeroRunner(t *testing.T) {
	r, err := verify(newAuthority(t, domain, frozen).verifier(), runner.Evidence{})
	if err != nil || !r.IsZero() || !r.Document().IsAbsent() {
		t.Errorf("got %v, %v", r, err)
	}
}

// Evidence without any configured domain is refused: it can't be verified.
func TestEvidenceWithoutConfiguration(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := newVerifier(t, frozen)
	_, err := verify(v, runner.Evidence{JWTSVID: a.token(a.claims(), nil)})
	wantRefusal(t, err, runner.CodeTrustDomainUnknown, domain)
}

// An intermediate may name its trust domain; another domain's name in it, or a
// workload's, ends the chain, and so does its expiry.
func TestIntermediates(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	issue := func(edit func(*x509.Certificate)) []*x509.Certificate {
		key := newECKey(t)
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, NotBefore: frozen.Add(-time.Hour), NotAfter: frozen.Add(30 * time.Minute),
			URIs: []*url.URL{{Scheme: "spiffe", Host: domain}}}
		if edit != nil {
			edit(template)
		}
		middle := a.sign(template, a.root, a.key, &key.PublicKey)
		sub := &authority{t: t, domain: domain, root: middle, key: key, now: frozen}
		return []*x509.Certificate{sub.leaf(goodID), middle}
	}
	v := a.verifier()
	r, err := verify(v, runner.Evidence{Certificates: issue(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Expires().Equal(frozen.Add(30 * time.Minute)) {
		t.Errorf("the chain ends with its intermediate, not at %s", r.Expires())
	}
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		word string
	}{
		"another domain": {func(c *x509.Certificate) { c.URIs[0].Host = "partner.example" }, "belongs to another"},
		"a workload":     {func(c *x509.Certificate) { c.URIs[0].Path = "/region/x/runner/1" }, "belongs to another"},
		"no CA":          {func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }, "not issued by"},
		"no certSign":    {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, "not issued by"},
		"expired":        {func(c *x509.Certificate) { c.NotAfter = frozen.Add(-time.Minute) }, "not issued by"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(v, runner.Evidence{Certificates: issue(c.edit)})
			wantRefusal(t, err, proviso.CodeSVIDInvalid, c.word)
		})
	}
}

// What is remembered of a chain outlives neither its time nor its authority.
func TestRememberedChainEnds(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	now := frozen
	v, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Now: func() time.Time { return now }, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ev := runner.Evidence{Certificates: []*x509.Certificate{a.leaf(goodID)}}
	if _, err := verify(v, ev); err != nil {
		t.Fatal(err)
	}
	now = frozen.Add(2 * time.Hour)
	_, err = verify(v, ev)
	wantRefusal(t, err, proviso.CodeSVIDInvalid, "expired at")
	now = frozen
	fresh := newAuthority(t, domain, frozen) // the domain replaces its authority
	a.key, a.root = fresh.key, fresh.root
	a.write(2)
	if err := v.ReloadNow(); err != nil {
		t.Fatal(err)
	}
	_, err = verify(v, ev)
	wantRefusal(t, err, proviso.CodeSVIDInvalid, "not issued by")
}

// Both kinds of evidence together must name one runner.
func TestTwoKindsOfEvidence(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier()
	ev := runner.Evidence{JWTSVID: a.token(a.claims(), nil), Certificates: []*x509.Certificate{a.leaf(goodID)}}
	r, err := verify(v, ev)
	if err != nil {
		t.Fatal(err)
	}
	if r.Attestation() != runner.AttestationX509 || !r.Expires().Equal(frozen.Add(5*time.Minute)) {
		t.Errorf("attestation %s until %s: want the stronger kind and the earlier end", r.Attestation(), r.Expires())
	}
	ev.Certificates = []*x509.Certificate{a.leaf(goodID + "2")}
	_, err = verify(v, ev)
	wantRefusal(t, err, proviso.CodeActorMismatch, "one runner", ev.JWTSVID)
	ev = runner.Evidence{JWTSVID: "rubbish", Certificates: []*x509.Certificate{a.leaf(goodID)}}
	if _, err := verify(v, ev); err == nil {
		t.Error("bad evidence beside good evidence was let through")
	}
}
