package credential

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
)

const (
	testDomain = "ci.acme.example"
	svidName   = "spiffe://ci.acme.example/job/github/61200123"
)

func svidConfig() Config {
	return Config{Kind: "x509-svid", URI: "spiffe://ci.acme.example/job/{issuer}/{repository_id}"}
}

func jwtSVIDConfig() Config {
	return Config{Kind: "jwt-svid", URI: "spiffe://ci.acme.example/job/{issuer}/{repository_id}", Audience: "https://db.acme.example"}
}

// withDomain gives the world a trust domain of its own.
func (w *world) withDomain(dir string) *Domain {
	w.t.Helper()
	d, err := OpenDomain(dir, DomainConfig{Name: testDomain, Rotate: 24 * time.Hour, RefreshHint: 5 * time.Minute}, w.now)
	w.must(err)
	w.minter, err = New(Options{Issuer: testIssuer, Keys: w.keys, Authority: w.ca, Domain: d, Now: w.now})
	w.must(err)
	return d
}

// bundleOf reads the published bundle as go-spiffe does.
func bundleOf(t testing.TB, d *Domain) *spiffebundle.Bundle {
	t.Helper()
	b, err := spiffebundle.Parse(spiffeid.RequireTrustDomainFromString(d.Name()), d.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) issueX509(o *Offer) *x509.Certificate {
	w.t.Helper()
	r := certRequest(w.t, ecKey(w.t))
	terms, err := o.Plan(context.Background(), r)
	w.must(err)
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{CSR: r.CSR})
	w.must(err)
	block, rest := pem.Decode([]byte(c.Reveal()))
	if block == nil || len(rest) > 0 {
		w.t.Fatal("not one certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	w.must(err)
	return cert
}

func (w *world) issueJWT(o *Offer) string {
	w.t.Helper()
	terms, err := o.Plan(context.Background(), testRequest())
	w.must(err)
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{})
	w.must(err)
	return c.Reveal()
}

// SVIDs of both kinds are taken by go-spiffe, with the published bundle alone.
func TestSVIDsAreTakenByGoSPIFFE(t *testing.T) {
	w := newWorld(t)
	w.set(time.Now()) // go-spiffe's JWT check has no clock of its own
	d := w.withDomain(t.TempDir() + "/domain")
	b := bundleOf(t, d)

	cert := w.issueX509(w.offer(svidConfig(), 10*time.Minute))
	id, _, err := x509svid.Verify([]*x509.Certificate{cert}, b.X509Bundle())
	if err != nil || id.String() != svidName {
		t.Errorf("%v: %v", id, err)
	}
	if len(cert.URIs) != 1 || len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) > 0 || cert.IsCA || len(cert.Subject.Names) > 0 {
		t.Errorf("%+v", cert)
	}
	if life := cert.NotAfter.Sub(w.now()); life > 10*time.Minute || life < 9*time.Minute {
		t.Errorf("it lives for %s", life)
	}

	token := w.issueJWT(w.offer(jwtSVIDConfig(), 5*time.Minute))
	svid, err := jwtsvid.ParseAndValidate(token, b.JWTBundle(), []string{"https://db.acme.example"})
	if err != nil || svid.ID.String() != svidName || len(svid.Audience) != 1 {
		t.Errorf("%+v: %v", svid, err)
	}
	if _, err := jwtsvid.ParseAndValidate(token, b.JWTBundle(), []string{"https://other.acme.example"}); err == nil {
		t.Error("it is good for another audience")
	}
}

// A runner gets SVIDs of its verified ID alone, for the audience that it names.
func TestARunnersSVIDIsItsOwn(t *testing.T) {
	w := newWorld(t)
	w.set(time.Now())
	d := w.withDomain(t.TempDir() + "/domain")
	o, err := w.minter.RunnerOffer("jwt-svid", 5*time.Minute)
	w.must(err)
	r := PlanRequest{Runner: d.ID("/region/eu/runner/r1"), Audience: testIssuer}
	terms, err := o.Plan(context.Background(), r)
	w.must(err)
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{})
	w.must(err)
	if svid, err := jwtsvid.ParseAndValidate(c.Reveal(), bundleOf(t, d).JWTBundle(), []string{testIssuer}); err != nil || svid.ID.Path() != "/region/eu/runner/r1" {
		t.Errorf("%v %v", svid, err)
	}
	for _, bad := range []string{"", "spiffe://other.example/region/eu/runner/r1", "spiffe://ci.acme.example", "spiffe://ci.acme.example/",
		"spiffe://ci.acme.example/a/../b", "spiffe://ci.acme.example/a//b", "spiffe://ci.acme.example/a%2fb", "spiffe://ci.acme.example/a~b",
		"spiffe://ci.acme.example.evil/a", "spiffe://ci.acme.example/" + strings.Repeat("x", 2048), "https://ci.acme.example/a"} {
		r.Runner = bad
		if _, err := o.Plan(context.Background(), r); err == nil {
			t.Errorf("%q got an SVID", bad)
		} else {
			wantCode(t, err, proviso.CodeTemplateValue)
		}
	}
	r.Runner = d.ID("/r")
	for _, bad := range []string{"", "two words", strings.Repeat("x", 256), "a\x00"} {
		r.Audience = bad
		_, err := o.Plan(context.Background(), r)
		wantCode(t, err, proviso.CodeAudInvalid)
	}
}

func TestValuesThatMakeNoSPIFFEID(t *testing.T) {
	w := newWorld(t)
	w.withDomain(t.TempDir() + "/domain")
	o := w.offer(Config{Kind: "x509-svid", URI: "spiffe://ci.acme.example/job/{issuer}/{tenant}"}, 0)
	for value, good := range map[string]bool{
		"acme": true, "a.b_c-d": true, "...": true,
		"a/b": false, "..": false, ".": false, "a%2fb": false, "a~b": false, "a b": false, "é": false, "": false, "a\x00": false, "a?b": false,
		strings.Repeat("x", 3000): false,
	} {
		r := certRequest(t, ecKey(t))
		r.Job = r.Job.With(document.Member("tenant", text(value)))
		terms, err := o.Plan(context.Background(), r)
		if good && err != nil {
			t.Errorf("%q: %v", value, err)
		} else if !good && err == nil {
			t.Errorf("%q made the name %v", value, terms.Names)
		} else if !good {
			wantCode(t, err, proviso.CodeTemplateValue)
		}
	}
	// A request that wants to be somebody else is refused, not corrected.
	r := testRequest()
	r.CSR = csr(t, ecKey(t), func(c *x509.CertificateRequest) {
		c.URIs = []*url.URL{mustURL(t, "spiffe://ci.acme.example/job/github/other")}
	})
	_, err := o.Plan(context.Background(), r)
	wantCode(t, err, proviso.CodeCSRNames)
}

func TestSVIDGrantsThatCantBe(t *testing.T) {
	w := newWorld(t)
	if _, err := w.minter.Offer("g", svidConfig(), 0); err == nil || !strings.Contains(err.Error(), "trust_domain") {
		t.Errorf("without a trust domain: %v", err)
	}
	w.withDomain(t.TempDir() + "/domain")
	for name, cfg := range map[string]Config{
		"no template":          {Kind: "x509-svid"},
		"another trust domain": {Kind: "x509-svid", URI: "spiffe://other.example/job/{issuer}/{repository_id}"},
		"a domain of a value":  {Kind: "x509-svid", URI: "spiffe://{issuer}/job/{repository_id}"},
		"half a segment":       {Kind: "x509-svid", URI: "spiffe://ci.acme.example/job-{issuer}/{repository_id}"},
		"half, at its end":     {Kind: "x509-svid", URI: "spiffe://ci.acme.example/{issuer}-job/{repository_id}"},
		"no issuer":            {Kind: "x509-svid", URI: "spiffe://ci.acme.example/job/{repository_id}"},
		"no path":              {Kind: "x509-svid", URI: "spiffe://ci.acme.example/"},
		"dots":                 {Kind: "x509-svid", URI: "spiffe://ci.acme.example/../{issuer}"},
		"percent":              {Kind: "x509-svid", URI: "spiffe://ci.acme.example/a%2f/{issuer}"},
		"https":                {Kind: "x509-svid", URI: "https://ci.acme.example/{issuer}"},
		"an audience":          {Kind: "x509-svid", URI: svidConfig().URI, Audience: "https://db.acme.example"},
		"no audience":          {Kind: "jwt-svid", URI: svidConfig().URI},
		"a declared value":     {Kind: "jwt-svid", URI: "spiffe://ci.acme.example/{purpose}", Audience: "https://db.acme.example"},
		"a scope":              {Kind: "jwt-svid", URI: svidConfig().URI, Audience: "https://db.acme.example", Scope: []string{"a"}},
	} {
		if _, err := w.minter.Offer("g", cfg, 0); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Each property of an X.509-SVID is broken once, in the template behind the
// lint's back or in the terms, and its lint refuses before anything is signed.
func TestEachSVIDLintRefusesItsMistake(t *testing.T) {
	w := newWorld(t)
	d := w.withDomain(t.TempDir() + "/domain")
	key := ecKey(t)
	for name, test := range map[string]struct {
		lint   string
		change func(c *x509.Certificate, t *audit.Terms)
	}{
		"a second URI": {"names", func(c *x509.Certificate, _ *audit.Terms) { c.URIs = append(c.URIs, mustURL(t, svidName+"4")) }},
		"another URI":  {"names", func(c *x509.Certificate, _ *audit.Terms) { c.URIs = []*url.URL{mustURL(t, svidName+"4")} }},
		"a DNS name":   {"names", func(c *x509.Certificate, _ *audit.Terms) { c.DNSNames = []string{"acme.example"} }},
		"another domain in terms and template": {"spiffe id", func(c *x509.Certificate, terms *audit.Terms) {
			c.URIs, terms.Names = []*url.URL{mustURL(t, "spiffe://other.example/a")}, []string{"uri:spiffe://other.example/a"}
		}},
		"no path": {"spiffe id", func(c *x509.Certificate, terms *audit.Terms) {
			c.URIs, terms.Names = []*url.URL{mustURL(t, "spiffe://ci.acme.example")}, []string{"uri:spiffe://ci.acme.example"}
		}},
		"an authority":       {"no authority", func(c *x509.Certificate, _ *audit.Terms) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }},
		"may sign others":    {"usage", func(c *x509.Certificate, _ *audit.Terms) { c.KeyUsage |= x509.KeyUsageCertSign }},
		"for clients only":   {"svid usage", func(c *x509.Certificate, _ *audit.Terms) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }},
		"a subject":          {"subject", func(c *x509.Certificate, _ *audit.Terms) { c.Subject = pkix.Name{CommonName: "admin"} }},
		"a longer life":      {"lifetime", func(c *x509.Certificate, _ *audit.Terms) { c.NotAfter = c.NotAfter.Add(time.Hour) }},
		"backdated":          {"lifetime", func(c *x509.Certificate, _ *audit.Terms) { c.NotBefore = c.NotBefore.Add(-time.Hour) }},
		"another key":        {"key", func(_ *x509.Certificate, terms *audit.Terms) { terms.KeyHash = strings.Repeat("0", 64) }},
		"another serial":     {"serial", func(_ *x509.Certificate, terms *audit.Terms) { terms.ID = newID() }},
		"another algorithm":  {"algorithm", func(c *x509.Certificate, _ *audit.Terms) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }},
		"a policy extension": {"extensions", func(c *x509.Certificate, _ *audit.Terms) { c.CRLDistributionPoints = []string{"http://crl.example"} }},
	} {
		r := certRequest(t, key)
		terms, err := w.offer(svidConfig(), 0).Plan(context.Background(), r)
		w.must(err)
		template, err := certificateOf(&terms, key.Public())
		w.must(err)
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		test.change(template, &terms)
		k, err := d.signing(d.set.Load().x509)
		w.must(err)
		_, err = d.signTemplate(k, template, &terms, key.Public())
		t.Run(name, func(t *testing.T) { wantCode(t, err, CodeCertificateLint) })
		if err == nil || !strings.Contains(err.Error(), "lint "+test.lint+":") && name != "another algorithm" {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, _ := d.signing(d.set.Load().x509)
	if _, err := (&lintedSigner{Signer: k.key}).Sign(nil, make([]byte, 32), nil); err == nil {
		t.Error("a bare digest was signed")
	}
}

// Keys overlap: the next one is published long before it signs, the last one
// until its last SVID has ended; the sequence grows with every change, and only
// with a change, and all of it holds across restarts.
func TestTheAuthoritysKeysOverlap(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir() + "/domain"
	d := w.withDomain(dir)
	begun := w.now()
	published := map[string]time.Time{} // subject key id → first seen in the bundle
	see := func() {
		for _, ca := range bundleOf(t, d).X509Authorities() {
			if _, known := published[string(ca.SubjectKeyId)]; !known {
				published[string(ca.SubjectKeyId)] = w.now()
			}
		}
	}
	see()
	type issued struct {
		cert  *x509.Certificate
		token string
	}
	var alive []issued
	signers := map[string]bool{}
	last, raw := d.Sequence(), d.Bundle()
	for step := 0; w.now().Before(begun.Add(5 * 24 * time.Hour)); step++ {
		w.set(w.now().Add(7 * time.Minute))
		if step%50 == 49 { // a restart
			d = w.withDomain(dir)
		} else {
			w.must(d.Maintain())
		}
		see()
		switch changed := !bytes.Equal(raw, d.Bundle()); {
		case changed && d.Sequence() <= last, !changed && d.Sequence() != last:
			t.Fatalf("sequence %d after %d, changed %v", d.Sequence(), last, changed)
		}
		last, raw = d.Sequence(), d.Bundle()
		if step%40 == 0 {
			o, err := w.minter.Offer("g", svidConfig(), pass.MaxTTL)
			w.must(err)
			j, err := w.minter.Offer("g", jwtSVIDConfig(), pass.MaxTTL)
			w.must(err)
			svid := issued{w.issueX509(o), w.issueJWT(j)}
			alive = append(alive, svid)
			by := string(svid.cert.AuthorityKeyId)
			signers[by] = true
			if len(signers) > 1 && published[by] != begun && w.now().Sub(published[by]) < 15*time.Minute {
				t.Errorf("a key signed %s after it was published", w.now().Sub(published[by]))
			}
		}
		if step%10 != 0 {
			continue
		}
		b := bundleOf(t, d)
		for _, svid := range alive {
			if svid.cert.NotAfter.Before(w.now()) {
				continue
			}
			if _, _, err := x509svid.Verify([]*x509.Certificate{svid.cert}, b.X509Bundle(), x509svid.WithTime(w.now())); err != nil {
				t.Fatalf("a living X.509-SVID is refused: %v", err)
			}
			parsed, err := jose.Parse(svid.token, jose.Profile{Typ: []string{"JWT"}})
			w.must(err)
			if public, known := b.FindJWTAuthority(parsed.Header.Kid); !known {
				t.Fatal("the key of a living JWT-SVID is not published")
			} else if key, err := jose.NewKey(parsed.Header.Kid, jose.ES256, public); err != nil || parsed.Verify(key) != nil {
				t.Fatal("a living JWT-SVID is not by its key")
			}
		}
	}
	if len(signers) < 5 {
		t.Errorf("%d keys signed in five days of daily rotation", len(signers))
	}
	if n := len(bundleOf(t, d).X509Authorities()); n > 3 {
		t.Errorf("%d authorities are published: old keys are not forgotten", n)
	}
	if n := len(bundleOf(t, d).JWTAuthorities()); n > 3 {
		t.Errorf("%d JWT authorities are published", n)
	}
	// Without its file the sequence still grows.
	w.must(os.Remove(filepath.Join(dir, bundleFile)))
	w.set(w.now().Add(time.Minute))
	if d = w.withDomain(dir); d.Sequence() <= last {
		t.Errorf("sequence %d after %d: the lost file made it fall", d.Sequence(), last)
	}
}

// A key that a crash kept from being published never signs: it is replaced by
// one that is published for as long as it must be.
func TestAKeyThatNobodyHeardOfDoesntSign(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir() + "/domain"
	d := w.withDomain(dir)
	before, err := os.ReadFile(filepath.Join(dir, bundleFile))
	w.must(err)
	w.set(w.now().Add(24*time.Hour - d.lead() - time.Minute))
	w.must(d.Maintain())
	if n := len(d.X509Authorities()); n != 2 {
		t.Fatalf("%d authorities before the turn", n)
	}
	unheard := d.X509Authorities()[1]
	w.must(os.WriteFile(filepath.Join(dir, bundleFile), before, 0o600)) // the crash came before this was written
	w.set(w.now().Add(time.Hour))                                       // its time came while nobody ran
	d = w.withDomain(dir)
	cert := w.issueX509(w.offer(svidConfig(), 0))
	if bytes.Equal(cert.AuthorityKeyId, unheard.SubjectKeyId) {
		t.Error("it signed at once")
	}
	for _, ca := range d.X509Authorities() {
		if ca.Equal(unheard) {
			t.Error("it is still there")
		}
	}
}

func TestTheDomainsFilesAreHeldToWhatTheyWere(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir() + "/domain"
	w.withDomain(dir)
	open := func(name string) error {
		_, err := OpenDomain(dir, DomainConfig{Name: name}, w.now)
		return err
	}
	if err := open("other.example"); err == nil || !strings.Contains(err.Error(), testDomain) {
		t.Errorf("another name: %v", err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	w.must(err)
	if len(keys) != 2 {
		t.Fatalf("%v", keys)
	}
	for _, key := range keys {
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", key, info.Mode(), err)
		}
	}
	w.must(os.Chmod(keys[0], 0o644))
	if err := open(testDomain); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a readable key: %v", err)
	}
	w.must(os.Chmod(keys[0], 0o600))
	w.must(os.WriteFile(filepath.Join(dir, bundleFile), []byte("{}"), 0o600))
	if err := open(testDomain); err == nil || !strings.Contains(err.Error(), "sequence") {
		t.Errorf("a torn bundle: %v", err)
	}
	for _, c := range []DomainConfig{{Name: "Acme.example"}, {Name: "a/b"}, {Name: ""}, {Rotate: time.Hour}, {Name: "a", Rotate: time.Minute},
		{Name: "a", RefreshHint: time.Second}, {Name: "a", RefreshHint: 10500 * time.Millisecond}, {Name: "a", Rotate: time.Hour, RefreshHint: 30 * time.Minute}} {
		if _, err := OpenDomain(t.TempDir()+"/d", c, w.now); err == nil {
			t.Errorf("%+v: taken", c)
		}
	}
}
