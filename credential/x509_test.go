package credential

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
)

type bigInt = big.Int

func certConfig() Config {
	return Config{Kind: "x509", URI: "spiffe://acme.example/job/{issuer}/{tenant}/{repository_id}"}
}

const certName = "spiffe://acme.example/job/github/acme/61200123"

func certRequest(t testing.TB, key crypto.Signer) PlanRequest {
	r := testRequest()
	r.CSR = csr(t, key, nil)
	return r
}

func chainOf(t testing.TB, c Credential) (leaf, root *x509.Certificate) {
	t.Helper()
	var certs []*x509.Certificate
	for rest := []byte(c.Reveal()); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			t.Fatal("not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	if len(certs) != 2 {
		t.Fatalf("%d certificates in the chain", len(certs))
	}
	return certs[0], certs[1]
}

func TestACertificateIsWhatItsWarrantSays(t *testing.T) {
	w := newWorld(t)
	cfg := certConfig()
	cfg.CommonName = "{grant}"
	o := w.offer(cfg, 10*time.Minute)
	key := ecKey(t)
	r := certRequest(t, key)
	terms, err := o.Plan(context.Background(), r)
	w.must(err)
	if terms.Subject != certName || strings.Join(terms.Names, " ") != "uri:"+certName+" cn:deploy-production" || terms.Kind != "x509" || len(terms.KeyHash) != 64 || len(terms.CSRHash) != 64 {
		t.Errorf("terms %+v", terms)
	}
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{CSR: r.CSR})
	w.must(err)
	leaf, root := chainOf(t, c)
	if hex.EncodeToString(leaf.SerialNumber.Bytes()) != terms.ID || len(leaf.URIs) != 1 || leaf.URIs[0].String() != certName || leaf.Subject.CommonName != "deploy-production" ||
		!leaf.NotBefore.Equal(terms.NotBefore) || leaf.NotAfter.After(terms.Expires) || !key.PublicKey.Equal(leaf.PublicKey) || leaf.IsCA {
		t.Errorf("leaf %+v", leaf)
	}
	if skew := w.now().Sub(leaf.NotBefore); skew < 0 || skew > time.Minute {
		t.Errorf("backdated by %v", skew)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: w.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("verify: %v", err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: w.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it can stand for a server")
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: w.now().Add(10 * time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("it is valid after its time")
	}
	if c.TokenType != "N_A" || c.IssuedTokenType != proviso.TokenTypeX509 || c.Info.Kind != "x509" || c.ExpiresIn(w.now()) != 600 || !bytes.HasSuffix([]byte(c.Reveal()), w.ca.CertificatePEM()) {
		t.Errorf("credential %+v", c)
	}
}

// A TLS server of the standard library, and OpenSSL, are the stock verifiers.
func TestStockVerifiersTakeACertificate(t *testing.T) {
	w := newWorld(t)
	w.set(time.Now())
	var err error
	w.ca, err = OpenAuthority(filepath.Join(t.TempDir(), "ca"), CAConfig{Name: "Acme Jobs"}, time.Now)
	w.must(err)
	w.minter, err = New(Options{Issuer: testIssuer, Keys: w.keys, Authority: w.ca})
	w.must(err)
	o := w.offer(certConfig(), 10*time.Minute)
	key := ecKey(t)
	r := certRequest(t, key)
	terms, err := o.Plan(context.Background(), r)
	w.must(err)
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{CSR: r.CSR})
	w.must(err)

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.ca.CertificatePEM())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Write([]byte(r.TLS.VerifiedChains[0][0].URIs[0].String()))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	transport := client.Transport.(*http.Transport)
	secret, err := pass.MarshalPrivateKey(key)
	w.must(err)
	pair, err := tls.X509KeyPair([]byte(c.Reveal()), secret)
	w.must(err)
	transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	res, err := client.Get(server.URL)
	w.must(err)
	defer res.Body.Close()
	body := make([]byte, 100)
	n, _ := res.Body.Read(body)
	if string(body[:n]) != certName {
		t.Errorf("the server saw %q", body[:n])
	}

	if _, err := exec.LookPath("openssl"); err != nil {
		t.Log("openssl is not installed: its opinion is not asked")
		return
	}
	dir := t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, "ca.pem"), w.ca.CertificatePEM(), 0o600))
	w.must(os.WriteFile(filepath.Join(dir, "leaf.pem"), []byte(c.Reveal()), 0o600))
	out, err := exec.Command("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", filepath.Join(dir, "ca.pem"), filepath.Join(dir, "leaf.pem")).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

func TestARequestMayAskForNothingButItsNames(t *testing.T) {
	w := newWorld(t)
	cfg := certConfig()
	cfg.CommonName = "{grant}"
	o := w.offer(cfg, 0)
	key := ecKey(t)
	for name, test := range map[string]struct {
		change func(c *x509.CertificateRequest)
		code   proviso.Code
	}{
		"nothing":         {nil, ""},
		"its own name":    {func(c *x509.CertificateRequest) { c.URIs = append(c.URIs, mustURL(t, certName)) }, ""},
		"its common name": {func(c *x509.CertificateRequest) { c.Subject.CommonName = "deploy-production" }, ""},
		"another URI":     {func(c *x509.CertificateRequest) { c.URIs = append(c.URIs, mustURL(t, certName+"4")) }, proviso.CodeCSRNames},
		"one name more": {func(c *x509.CertificateRequest) {
			c.URIs = append(c.URIs, mustURL(t, certName), mustURL(t, "spiffe://acme.example/admin"))
		}, proviso.CodeCSRNames},
		"a DNS name":    {func(c *x509.CertificateRequest) { c.DNSNames = []string{"acme.example"} }, proviso.CodeCSRNames},
		"an address":    {func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{{10, 0, 0, 1}} }, proviso.CodeCSRNames},
		"a common name": {func(c *x509.CertificateRequest) { c.Subject.CommonName = "admin" }, proviso.CodeCSRNames},
		"in another case": {func(c *x509.CertificateRequest) {
			c.URIs = append(c.URIs, mustURL(t, strings.Replace(certName, "acme/6", "ACME/6", 1)))
		}, proviso.CodeCSRNames},
		"the name as a CN": {func(c *x509.CertificateRequest) { c.Subject.CommonName = certName }, proviso.CodeCSRNames},
		"to be an authority": {func(c *x509.CertificateRequest) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidBasicConstraints, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}, proviso.CodeCSRRejected},
	} {
		r := testRequest()
		r.CSR = csr(t, key, test.change)
		_, err := o.Plan(context.Background(), r)
		if test.code == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		t.Run(name, func(t *testing.T) { wantCode(t, err, test.code) })
	}
	_, err := o.Plan(context.Background(), testRequest())
	wantCode(t, err, CodeCSRMissing)
}

func TestValuesThatMakeNoName(t *testing.T) {
	w := newWorld(t)
	uri := w.offer(certConfig(), 0)
	dns := w.offer(Config{Kind: "x509", DNS: "{tenant}.{issuer}.acme.example"}, 0)
	for _, test := range []struct {
		offer *Offer
		value string
		ok    bool
	}{
		{uri, "acme", true}, {uri, "a.b_c~d-e", true}, {uri, "...", true},
		{uri, "a/b", false}, {uri, "..", false}, {uri, ".", false}, {uri, "a%2fb", false}, {uri, "a b", false}, {uri, "é", false}, {uri, "a?b", false}, {uri, "a\x00", false}, {uri, "", false},
		{uri, "a,b", false}, {uri, "{x}", false}, {uri, strings.Repeat("x", 300), false},
		{dns, "acme", true}, {dns, "a-1", true},
		{dns, "a.b", false}, {dns, "Acme", false}, {dns, "-a", false}, {dns, "a-", false}, {dns, "*", false}, {dns, "a_b", false}, {dns, strings.Repeat("x", 64), false}, {dns, "", false},
	} {
		r := certRequest(t, ecKey(t))
		r.Job = r.Job.With(document.Member("tenant", text(test.value)))
		terms, err := test.offer.Plan(context.Background(), r)
		if test.ok && err != nil {
			t.Errorf("%q: %v", test.value, err)
		} else if !test.ok {
			if err == nil {
				t.Errorf("%q made the name %v", test.value, terms.Names)
			} else {
				wantCode(t, err, proviso.CodeTemplateValue)
			}
		}
	}
}

// Minting believes the record: another request, another key, other terms than
// those of this grant give nothing.
func TestACertificateThatIsNotTheRecordedOneIsRefused(t *testing.T) {
	key := ecKey(t)
	again := func(t testing.TB) []byte { return csr(t, key, nil) } // the same key, another signature
	for name, test := range map[string]struct {
		spoil func(t *audit.Terms)
		csr   func(t testing.TB) []byte
		code  proviso.Code
	}{
		"another request of the key": {nil, again, CodeTermsMismatch},
		"another key's request":      {nil, func(t testing.TB) []byte { return csr(t, ecKey(t), nil) }, CodeTermsMismatch},
		"no request":                 {nil, func(testing.TB) []byte { return nil }, proviso.CodeCSRRejected},
		"recorded for another key":   {func(t *audit.Terms) { t.KeyHash = strings.Repeat("0", 64) }, nil, CodeTermsMismatch},
		"a serial that is none":      {func(t *audit.Terms) { t.ID = "xyz" }, nil, CodeCertificateLint},
		"a short serial":             {func(t *audit.Terms) { t.ID = "01" }, nil, CodeCertificateLint},
		"no name":                    {func(t *audit.Terms) { t.Names = nil }, nil, CodeCertificateLint},
		"two names":                  {func(t *audit.Terms) { t.Names = append(t.Names, "uri:spiffe://acme.example/admin") }, nil, CodeCertificateLint},
		"two common names":           {func(t *audit.Terms) { t.Names = append(t.Names, "cn:a", "cn:b") }, nil, CodeCertificateLint},
		"an unknown form of name":    {func(t *audit.Terms) { t.Names = []string{"ip:127.0.0.1"} }, nil, CodeCertificateLint},
		"a name that is no URI":      {func(t *audit.Terms) { t.Names = []string{"uri:%zz"} }, nil, CodeCertificateLint},
		"a URI that is rewritten":    {func(t *audit.Terms) { t.Names = []string{"uri:SPIFFE://a/b c"} }, nil, CodeCertificateLint},
		"backdated too far":          {func(t *audit.Terms) { t.NotBefore = t.NotBefore.Add(-2 * time.Minute) }, nil, CodeCertificateLint},
		"kind of a token":            {func(t *audit.Terms) { t.Kind = "jwt" }, nil, CodeTermsMismatch},
		"longer than the grant":      {func(t *audit.Terms) { t.Expires = t.Expires.Add(time.Hour) }, nil, CodeTermsMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.offer(certConfig(), 0)
			r := testRequest()
			r.CSR = csr(t, key, nil)
			terms, err := o.Plan(context.Background(), r)
			w.must(err)
			if test.spoil != nil {
				test.spoil(&terms)
			}
			material := Material{CSR: r.CSR}
			if test.csr != nil {
				material.CSR = test.csr(t)
			}
			c, err := o.Mint(context.Background(), w.warrant(terms), material)
			wantCode(t, err, test.code)
			if c.Reveal() != "" {
				t.Error("a certificate came with the refusal")
			}
		})
	}
}

func TestNoCertificateOutlivesTheAuthority(t *testing.T) {
	w := newWorld(t)
	o := w.offer(certConfig(), time.Hour)
	w.set(w.ca.Expires().Add(-30 * time.Minute))
	_, err := o.Plan(context.Background(), certRequest(t, ecKey(t)))
	wantCode(t, err, proviso.CodeTokenLifetime)
	r := certRequest(t, ecKey(t))
	r.AskedTTL = 10 * time.Minute
	_, err = o.Plan(context.Background(), r)
	w.must(err)
}

// Every lint, by name, refuses the mistake that it is for. What is broken is
// the template between the terms and the signature: a fault of our own.
func TestEachLintRefusesItsMistake(t *testing.T) {
	other := ecKey(t)
	type change struct {
		lint string
		do   func(c *x509.Certificate, t *audit.Terms, a *Authority)
	}
	extra := func(id asn1.ObjectIdentifier, der ...byte) func(*x509.Certificate, *audit.Terms, *Authority) {
		return func(c *x509.Certificate, _ *audit.Terms, _ *Authority) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Value: der})
		}
	}
	of := func(f func(c *x509.Certificate)) func(*x509.Certificate, *audit.Terms, *Authority) {
		return func(c *x509.Certificate, _ *audit.Terms, _ *Authority) { f(c) }
	}
	terms := func(f func(t *audit.Terms)) func(*x509.Certificate, *audit.Terms, *Authority) {
		return func(_ *x509.Certificate, t *audit.Terms, _ *Authority) { f(t) }
	}
	policyOID, err := x509.OIDFromInts([]uint64{1, 2, 3})
	must(t, err)
	seen := map[string]bool{}
	for name, test := range map[string]change{
		"another serial":          {"serial", of(func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) })},
		"another id recorded":     {"serial", terms(func(t *audit.Terms) { t.ID = newID() })},
		"organisation":            {"subject", of(func(c *x509.Certificate) { c.Subject.Organization = []string{"Acme"} })},
		"common name":             {"subject", of(func(c *x509.Certificate) { c.Subject.CommonName = "admin" })},
		"common name not there":   {"subject", terms(func(t *audit.Terms) { t.Names = append(t.Names, "cn:job") })},
		"second URI":              {"names", of(func(c *x509.Certificate) { c.URIs = append(c.URIs, mustURL(t, "spiffe://acme.example/admin")) })},
		"another URI":             {"names", of(func(c *x509.Certificate) { c.URIs[0] = mustURL(t, certName+"/x") })},
		"DNS name beside":         {"names", of(func(c *x509.Certificate) { c.DNSNames = []string{"acme.example"} })},
		"address beside":          {"names", of(func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} })},
		"mail address beside":     {"names", of(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} })},
		"no name":                 {"names", of(func(c *x509.Certificate) { c.URIs = nil })},
		"name not critical":       {"names", of(func(c *x509.Certificate) { c.URIs = nil; extra(oidSAN, sanOf(certName)...)(c, nil, nil) })},
		"an unknown kind of name": {"names", of(func(c *x509.Certificate) { c.URIs = nil; extra(oidSAN, 0x30, 4, 0xa0, 2, 5, 0)(c, nil, nil) })},
		"signs certificates":      {"usage", of(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign })},
		"no usage":                {"usage", of(func(c *x509.Certificate) { c.KeyUsage = 0 })},
		"stands for a server":     {"extended usage", of(func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) })},
		"signs code": {"extended usage", of(func(c *x509.Certificate) {
			c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 311, 10, 3, 13}}
		})},
		"any usage":            {"extended usage", of(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })},
		"no extended usage":    {"extended usage", of(func(c *x509.Certificate) { c.ExtKeyUsage = nil })},
		"an authority":         {"no authority", of(func(c *x509.Certificate) { c.IsCA = true })},
		"no basic constraints": {"no authority", of(func(c *x509.Certificate) { c.BasicConstraintsValid = false })},
		"valid for longer":     {"lifetime", of(func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) })},
		"valid from earlier":   {"lifetime", of(func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Second) })},
		"never valid":          {"lifetime", of(func(c *x509.Certificate) { c.NotAfter = c.NotBefore })},
		"backdated": {"lifetime", func(c *x509.Certificate, t *audit.Terms, _ *Authority) {
			t.NotBefore = t.NotBefore.Add(-time.Hour)
			c.NotBefore = t.NotBefore
		}},
		"valid from earlier than recorded": {"lifetime", terms(func(t *audit.Terms) { t.NotBefore = t.NotBefore.Add(time.Second) })},
		"backdated, by an old authority": {"lifetime", func(c *x509.Certificate, t *audit.Terms, a *Authority) {
			old := *a.cert
			old.NotBefore = old.NotBefore.AddDate(-1, 0, 0)
			a.cert = &old
			t.NotBefore = t.NotBefore.Add(-time.Hour)
			c.NotBefore = t.NotBefore
		}},
		"begins before the authority": {"lifetime", func(c *x509.Certificate, _ *audit.Terms, a *Authority) {
			young := *a.cert
			young.NotBefore = c.NotBefore.Add(time.Second)
			a.cert = &young
		}},
		"outlives the authority": {"lifetime", func(c *x509.Certificate, t *audit.Terms, a *Authority) {
			t.Expires = a.Expires().Add(time.Hour)
			c.NotAfter = a.Expires().Add(time.Minute)
		}},
		"recorded for another key":    {"key", terms(func(t *audit.Terms) { t.KeyHash = strings.Repeat("0", 64) })},
		"another key id":              {"key id", of(func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3} })},
		"no key id":                   {"key id", of(func(c *x509.Certificate) { c.SubjectKeyId = nil })},
		"unknown extension":           {"extensions", extra(asn1.ObjectIdentifier{1, 2, 3}, 5, 0)},
		"name constraints":            {"extensions", of(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"acme.example"} })},
		"revocation list":             {"extensions", of(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://acme.example/crl"} })},
		"policy":                      {"extensions", of(func(c *x509.Certificate) { c.Policies = []x509.OID{policyOID} })},
		"SHA-384":                     {"signature", of(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 })},
		"rehearsed with the real key": {"signature", func(_ *x509.Certificate, _ *audit.Terms, a *Authority) { a.stage, a.stageKey = a.cert, a.key }},
		"rehearsed by another": {"signature", func(_ *x509.Certificate, _ *audit.Terms, a *Authority) {
			twin := *a.cert
			twin.PublicKey = other.Public()
			a.cert = &twin
			a.stageKey, a.stage = other, &twin
		}},
		"another authority's id": {"issuer", func(_ *x509.Certificate, _ *audit.Terms, a *Authority) {
			twin := *a.stage
			twin.SubjectKeyId = []byte{9}
			a.stage = &twin
		}},
		"another authority's name": {"issuer", func(_ *x509.Certificate, _ *audit.Terms, a *Authority) {
			twin := *a.stage
			twin.RawSubject = []byte{0x30, 0}
			a.stage = &twin
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.offer(certConfig(), 0)
			r := certRequest(t, ecKey(t))
			plan, err := o.Plan(context.Background(), r)
			w.must(err)
			req, err := readCSR(r.CSR)
			w.must(err)
			template, err := certificateOf(&plan, req.public)
			w.must(err)
			if _, err := w.ca.sign(template, &plan, req.public); err != nil {
				t.Fatalf("the usual certificate: %v", err)
			}
			test.do(template, &plan, w.ca)
			der, err := w.ca.sign(template, &plan, req.public)
			wantCode(t, err, CodeCertificateLint)
			if !strings.Contains(err.Error(), "lint "+test.lint+":") || der != nil {
				t.Errorf("refused by %v, want lint %q", err, test.lint)
			}
			var refusal *proviso.Refusal
			if errors.As(err, &refusal) && strings.Contains(refusal.Public, "lint") {
				t.Error("the caller is told of our lints")
			}
			seen[test.lint] = true
		})
	}
	for _, l := range certLints {
		if !seen[l.name] && l.name != "version" { // crypto/x509 can't make another version
			t.Errorf("no mistake of this test is for lint %q", l.name)
		}
	}
}

// sanOf writes one URI as GeneralNames.
func sanOf(uri string) []byte {
	return append([]byte{0x30, byte(len(uri) + 2), 0x86, byte(len(uri))}, uri...)
}

func TestLintsThatNoTemplateReaches(t *testing.T) {
	w := newWorld(t)
	plan := &audit.Terms{}
	for lint, c := range map[string]*x509.Certificate{
		"version":    {Version: 1, SerialNumber: big.NewInt(1)},
		"key":        {RawSubjectPublicKeyInfo: w.ca.cert.RawSubjectPublicKeyInfo, SerialNumber: big.NewInt(1)},
		"extensions": {SerialNumber: big.NewInt(1), Extensions: []pkix.Extension{{Id: oidSAN, Value: []byte{0x30, 0}}, {Id: oidSAN, Value: []byte{0x30, 0}}}},
	} {
		err := lintCertificate(c, plan, w.ca)
		if err == nil || !strings.Contains(err.Error(), "lint "+lint+":") {
			t.Errorf("lint %s: %v", lint, err)
		}
	}
	own := &x509.Certificate{RawSubjectPublicKeyInfo: w.ca.cert.RawSubjectPublicKeyInfo}
	plan.KeyHash = hexSum(own.RawSubjectPublicKeyInfo)
	for _, l := range certLints {
		if l.name == "key" && !strings.Contains(l.check(own, plan, w.ca), "authority's own") {
			t.Error("the authority's own key would be certified")
		}
	}
}

func TestWhatIsSignedIsWhatWasRehearsed(t *testing.T) {
	w := newWorld(t)
	o := w.offer(certConfig(), 0)
	r := certRequest(t, ecKey(t))
	plan, err := o.Plan(context.Background(), r)
	w.must(err)
	req, err := readCSR(r.CSR)
	w.must(err)
	template, err := certificateOf(&plan, req.public)
	w.must(err)
	// The authority changes between rehearsal and signature: a lint passes, the comparison refuses.
	twin := *w.ca.cert
	twin.RawSubject = []byte{0x30, 0}
	honest := w.ca.cert
	w.ca.cert = &twin
	w.ca.stage.RawSubject = honest.RawSubject
	_, err = w.ca.sign(template, &plan, req.public)
	wantCode(t, err, CodeCertificateLint)
}

func TestTheAuthorityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	a, err := OpenAuthority(dir, CAConfig{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenAuthority(dir, CAConfig{}, nil)
	if err != nil || !bytes.Equal(a.CertificatePEM(), b.CertificatePEM()) {
		t.Fatalf("a restart made another authority: %v", err)
	}
	if info, _ := os.Stat(filepath.Join(dir, caKeyFile)); info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v", info.Mode())
	}
	c := a.cert
	if !c.IsCA || !c.MaxPathLenZero || c.Subject.CommonName != "Proviso CA" || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign ||
		len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || time.Until(a.Expires()) < 3650*day {
		t.Errorf("certificate %+v", c)
	}
	a.CertificatePEM()[0] = 'x'
	if a.CertificatePEM()[0] == 'x' {
		t.Error("a caller can change the certificate")
	}
	// A crash after the key, before the certificate: nothing was signed yet.
	must(t, os.Remove(filepath.Join(dir, caCertFile)))
	d, err := OpenAuthority(dir, CAConfig{}, nil)
	if err != nil || !d.key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(a.key.Public()) {
		t.Errorf("after a crash: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnAuthorityThatIsNotOursIsRefused(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	_, err := OpenAuthority(other, CAConfig{}, nil)
	must(t, err)
	for name, spoil := range map[string]func(dir string){
		"key readable by others": func(dir string) { must(t, os.Chmod(filepath.Join(dir, caKeyFile), 0o644)) },
		"key lost":               func(dir string) { must(t, os.Remove(filepath.Join(dir, caKeyFile))) },
		"key of another":         func(dir string) { copyFile(t, other, dir, caKeyFile) },
		"certificate of another": func(dir string) { copyFile(t, other, dir, caCertFile) },
		"key is text":            func(dir string) { must(t, os.WriteFile(filepath.Join(dir, caKeyFile), []byte("x"), 0o600)) },
		"certificate is text":    func(dir string) { must(t, os.WriteFile(filepath.Join(dir, caCertFile), []byte("x"), 0o600)) },
		"certificate is a leaf":  func(dir string) { leafInPlace(t, dir) },
		"broken certificate": func(dir string) {
			must(t, os.WriteFile(filepath.Join(dir, caCertFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}}), 0o600))
		},
	} {
		dir := filepath.Join(t.TempDir(), "keys")
		_, err := OpenAuthority(dir, CAConfig{}, nil)
		must(t, err)
		spoil(dir)
		if _, err := OpenAuthority(dir, CAConfig{}, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	dir := filepath.Join(t.TempDir(), "keys")
	_, err = OpenAuthority(dir, CAConfig{}, nil)
	must(t, err)
	if _, err := OpenAuthority(dir, CAConfig{}, func() time.Time { return time.Now().Add(11 * 366 * day) }); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired authority: %v", err)
	}
	for _, cfg := range []CAConfig{{Life: time.Hour}, {Life: 30 * 366 * day}, {Name: strings.Repeat("x", 65)}, {Name: "a,b"}, {Name: "é"}} {
		if _, err := OpenAuthority(t.TempDir(), cfg, nil); err == nil {
			t.Errorf("%+v: taken", cfg)
		}
	}
}

func copyFile(t testing.TB, from, to, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(from, name))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(to, name), data, 0o600))
}

func leafInPlace(t testing.TB, dir string) {
	t.Helper()
	a, err := OpenAuthority(dir, CAConfig{}, nil)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, caCertFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

func hexSum(b []byte) string {
	sum := crypto.SHA256.New()
	sum.Write(b)
	return hex.EncodeToString(sum.Sum(nil))
}
