package pass

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// scene is a keyring, a verifier and a clock.
type scene struct {
	*testClock
	keys     *Keyring
	proofs   *ProofChecker
	verifier *Verifier
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{testClock: newClock()}
	s.keys = testKeyring(t, s.testClock)
	s.proofs = NewProofChecker(ProofConfig{Now: s.now})
	var err error
	s.verifier, err = NewVerifier(VerifierConfig{Issuer: testIssuer, Keys: s.keys.Key, Proofs: s.proofs, Now: s.now})
	must(t, err)
	return s
}

// token signs the usual claims after change.
func (s *scene) token(t testing.TB, change func(c *Claims)) string {
	t.Helper()
	c := testClaims(s.now())
	if change != nil {
		change(&c)
	}
	token, err := testSigner(t, s.keys, "ES256").Sign(&c, MaxTTL)
	must(t, err)
	return token
}

// signRaw signs any payload with a real key: the issuer gone wrong.
func (s *scene) signRaw(t testing.TB, payload string) string {
	t.Helper()
	token, err := testSigner(t, s.keys, "ES256").jose.Sign([]byte(payload))
	must(t, err)
	return token
}

var wanted = Wanted{Audience: testAudience, Scope: []string{"deploy"}}

func bearer(token string) Presented { return Presented{Token: token, Scheme: SchemeBearer} }

func TestAGoodTokenIsAccepted(t *testing.T) {
	s := newScene(t)
	for _, alg := range Algorithms {
		c := testClaims(s.now())
		token, err := testSigner(t, s.keys, string(alg)).Sign(&c, time.Hour)
		must(t, err)
		a, err := s.verifier.Verify(context.Background(), bearer(token), wanted)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if a.IsZero() || a.Subject() != c.Subject || a.ID() != c.ID || a.Runner() != c.Actor || !a.Has("rollback") || a.Has("admin") ||
			a.Decision() != "01KAV7Q3S5C3M4GQ4Z7Z1V2W3X" || a.Grant() != "deploy-production" || !a.Expires().Equal(c.Expires) || len(a.Scope()) != 2 ||
			a.Claims().Details.String() != c.Details.String() {
			t.Errorf("%s: access %+v", alg, a)
		}
	}
	if (Access{}).IsZero() != true {
		t.Error("the zero Access is something")
	}
}

// One line for each thing that makes a token worthless. Payloads are signed by
// the real key: what refuses is the check, not the signature.
func TestClaimsThatAreRefused(t *testing.T) {
	s := newScene(t)
	c := testClaims(s.now())
	good := string(appendClaims(nil, &c))
	for name, test := range map[string]struct {
		old, new string
		code     proviso.Code
	}{
		"other issuer":          {`"iss":"https://proviso.acme.example"`, `"iss":"https://proviso.acme.example/"`, proviso.CodeIssuerUnknown},
		"no issuer":             {`"iss":"https://proviso.acme.example",`, ``, proviso.CodeIssuerUnknown},
		"issuer list":           {`"iss":"https://proviso.acme.example"`, `"iss":["https://proviso.acme.example"]`, proviso.CodeIssuerUnknown},
		"other audience":        {`"aud":"https://deploy.acme.example"`, `"aud":"https://deploy.acme.example/"`, proviso.CodeAudMismatch},
		"audience list":         {`"aud":"https://deploy.acme.example"`, `"aud":["https://deploy.acme.example"]`, proviso.CodeClaimType},
		"no audience":           {`"aud":"https://deploy.acme.example",`, ``, proviso.CodeClaimType},
		"empty audience":        {`"aud":"https://deploy.acme.example"`, `"aud":""`, proviso.CodeClaimType},
		"no subject":            {`,"sub":"job:github:acme:61200123"`, ``, proviso.CodeClaimType},
		"no jti":                {`"jti":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11",`, ``, proviso.CodeClaimType},
		"no client_id":          {`"client_id":"job:github:acme:61200123",`, ``, proviso.CodeClaimType},
		"expired":               {`"exp":1795511700`, `"exp":1795510790`, proviso.CodeTokenExpired},
		"no exp":                {`"exp":1795511700,`, ``, proviso.CodeExpMissing},
		"exp as text":           {`"exp":1795511700`, `"exp":"1795511700"`, proviso.CodeExpInvalid},
		"exp far away":          {`"exp":1795511700`, `"exp":4102444801`, proviso.CodeExpInvalid},
		"lives for a day more":  {`"exp":1795511700`, `"exp":1795597201`, proviso.CodeTokenLifetime},
		"no iat":                {`"iat":1795510800,`, ``, proviso.CodeIatMissing},
		"iat in the future":     {`"iat":1795510800`, `"iat":1795510811`, proviso.CodeIatFuture},
		"scope list":            {`"scope":"deploy rollback"`, `"scope":["deploy"]`, proviso.CodeClaimType},
		"scope with two spaces": {`"scope":"deploy rollback"`, `"scope":"deploy  rollback"`, proviso.CodeClaimType},
		"scope is missing":      {`"scope":"deploy rollback",`, ``, CodeScopeInsufficient},
		"scope is another":      {`"scope":"deploy rollback"`, `"scope":"deploys rollback"`, CodeScopeInsufficient},
		"cnf is a text":         {`"exp"`, `"cnf":"x","exp"`, proviso.CodeTokenBinding},
		"cnf is null":           {`"exp"`, `"cnf":null,"exp"`, proviso.CodeTokenBinding},
		"cnf is empty":          {`"exp"`, `"cnf":{},"exp"`, proviso.CodeTokenBinding},
		"cnf of another kind":   {`"exp"`, `"cnf":{"jwk":{}},"exp"`, proviso.CodeTokenBinding},
		"cnf of two kinds":      {`"exp"`, `"cnf":{"jkt":"` + testJKT + `","x5t#S256":"` + testJKT + `"},"exp"`, proviso.CodeTokenBinding},
		"act is a text":         {`"act":{"sub":"spiffe://runners.acme.example/region/eu-1/runner/r-17"}`, `"act":"x"`, proviso.CodeClaimType},
		"act has a chain":       {`r-17"}`, `r-17","act":{"sub":"x"}}`, proviso.CodeClaimType},
		"details are an object": {`"authorization_details":[`, `"authorization_details":{"x":[`, proviso.CodeJWTMalformed},
		"proviso is a text":     {`,"sub"`, `,"proviso":"x","sub"`, proviso.CodeJWTDuplicateMember},
		"a member twice":        {`"aud":`, `"aud":"x","aud":`, proviso.CodeJWTDuplicateMember},
		"a member in two cases": {`"aud":`, `"AUD":"x","aud":`, proviso.CodeJWTAmbiguousMember},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(good, test.old) {
				t.Fatalf("the payload has no %s", test.old)
			}
			token := s.signRaw(t, strings.Replace(good, test.old, test.new, 1))
			a, err := s.verifier.Verify(context.Background(), bearer(token), wanted)
			wantCode(t, err, test.code)
			if !a.IsZero() {
				t.Error("an access came with the refusal")
			}
			var r *proviso.Refusal
			if errors.As(err, &r) && (r.Stage != StageAccess || strings.Contains(err.Error(), token)) {
				t.Errorf("refusal %v", err)
			}
		})
	}
}

func TestDetailsAndProvisoHaveTheirTypes(t *testing.T) {
	for _, o := range []document.Value{
		document.ObjectOf(document.Member("authorization_details", document.ObjectOf())),
		document.ObjectOf(document.Member("proviso", document.StringOf("x"))),
	} {
		c := newClock()
		claims := testClaims(c.now())
		claims.Details, claims.Proviso = document.Value{}, document.Value{}
		base, err := document.Parse(appendClaims(nil, &claims), document.Limits{})
		must(t, err)
		_, err = readClaims(base.With(o.Fields()...))
		wantCode(t, err, proviso.CodeClaimType)
	}
}

// forge makes a token with any header and payload, signed by key or not at all.
func forge(t testing.TB, header, payload string, key crypto.Signer) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(payload))
	sum := crypto.SHA256.New()
	sum.Write([]byte(signed))
	sig := []byte{1}
	if key != nil {
		var err error
		switch k := key.(type) {
		case *ecdsa.PrivateKey:
			var r, s *big.Int
			r, s, err = ecdsa.Sign(rand.Reader, k, sum.Sum(nil))
			sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		case *rsa.PrivateKey:
			sig, err = k.Sign(rand.Reader, sum.Sum(nil), crypto.SHA256)
		case ed25519.PrivateKey:
			sig = ed25519.Sign(k, []byte(signed))
		}
		must(t, err)
	}
	return signed + "." + b64(sig)
}

func TestTokensThatAreNotOfThisMake(t *testing.T) {
	s := newScene(t)
	c := testClaims(s.now())
	payload := string(appendClaims(nil, &c))
	kid := testSigner(t, s.keys, "ES256").Key().KeyID()
	edKID := testSigner(t, s.keys, "EdDSA").Key().KeyID()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	good := s.token(t, nil)
	header := func(s string) string { return strings.ReplaceAll(s, "KID", kid) }
	for name, test := range map[string]struct {
		token string
		code  proviso.Code
	}{
		"empty":                   {"", proviso.CodeJWTMalformed},
		"no token":                {"hello", proviso.CodeJWTMalformed},
		"too long":                {good + strings.Repeat("A", MaxBytes), proviso.CodeLimitsTokenSize},
		"five segments":           {"a.b.c.d.e", proviso.CodeJWTIsJWE},
		"alg none":                {forge(t, header(`{"alg":"none","kid":"KID","typ":"at+jwt"}`), payload, nil), proviso.CodeJWTAlgNotAllowed},
		"HS256 with public key":   {forge(t, header(`{"alg":"HS256","kid":"KID","typ":"at+jwt"}`), payload, nil), proviso.CodeJWTAlgNotAllowed},
		"RS256":                   {forge(t, header(`{"alg":"RS256","kid":"KID","typ":"at+jwt"}`), payload, rsaKey), proviso.CodeJWTAlgNotAllowed},
		"key of another alg":      {forge(t, `{"alg":"ES256","kid":"`+edKID+`","typ":"at+jwt"}`, payload, stranger), proviso.CodeJWTKeyAlgMismatch},
		"a stranger's key":        {forge(t, header(`{"alg":"ES256","kid":"KID","typ":"at+jwt"}`), payload, stranger), proviso.CodeJWTSignature},
		"unknown kid":             {forge(t, `{"alg":"ES256","kid":"x","typ":"at+jwt"}`, payload, stranger), proviso.CodeJWTUnknownKID},
		"no kid":                  {forge(t, `{"alg":"ES256","typ":"at+jwt"}`, payload, stranger), proviso.CodeJWTKIDMissing},
		"brings its own key":      {forge(t, `{"alg":"ES256","jwk":{"kty":"EC"},"typ":"at+jwt"}`, payload, stranger), proviso.CodeJWTHeaderNotAllowed},
		"names its key's address": {forge(t, `{"alg":"ES256","jku":"https://evil.example","typ":"at+jwt"}`, payload, stranger), proviso.CodeJWTHeaderNotAllowed},
		"unknown header":          {forge(t, header(`{"alg":"ES256","foo":1,"kid":"KID","typ":"at+jwt"}`), payload, stranger), proviso.CodeJWTHeaderNotAllowed},
		"typ JWT":                 {forge(t, header(`{"alg":"ES256","kid":"KID","typ":"JWT"}`), payload, stranger), proviso.CodeJWTTyp},
		"no typ":                  {forge(t, header(`{"alg":"ES256","kid":"KID"}`), payload, stranger), proviso.CodeJWTTyp},
		"typ as media type":       {forge(t, header(`{"alg":"ES256","kid":"KID","typ":"application/at+jwt"}`), payload, stranger), proviso.CodeJWTTyp},
		"typ in capitals":         {forge(t, header(`{"alg":"ES256","kid":"KID","typ":"AT+JWT"}`), payload, stranger), proviso.CodeJWTTyp},
		"typ of a DPoP proof":     {forge(t, header(`{"alg":"ES256","kid":"KID","typ":"dpop+jwt"}`), payload, stranger), proviso.CodeJWTTyp},
		"changed payload":         {strings.Replace(good, ".", ".e", 1), proviso.CodeJWTMalformed},
		"newline at the end":      {good + "\n", proviso.CodeJWTMalformed},
		"padding":                 {good + "==", proviso.CodeJWTMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.verifier.Verify(context.Background(), bearer(test.token), wanted)
			wantCode(t, err, test.code)
		})
	}
}

func TestTimesAreComparedWithTheConfiguredSkew(t *testing.T) {
	s := newScene(t)
	token := s.token(t, nil) // 15 minutes
	for _, test := range []struct {
		at   time.Duration
		code proviso.Code
	}{{-10 * time.Second, ""}, {-11 * time.Second, proviso.CodeIatFuture}, {15*time.Minute + 9*time.Second, ""}, {15*time.Minute + 10*time.Second, proviso.CodeTokenExpired}} {
		v, err := NewVerifier(VerifierConfig{Issuer: testIssuer, Keys: s.keys.Key, Now: func() time.Time { return s.now().Add(test.at) }})
		must(t, err)
		_, err = v.Verify(context.Background(), bearer(token), wanted)
		if test.code == "" && err != nil {
			t.Errorf("at %v: %v", test.at, err)
		} else if test.code != "" {
			wantCode(t, err, test.code)
		}
	}
}

func TestAVerifierNeedsWhatMakesItOne(t *testing.T) {
	keys := testKeyring(t, newClock()).Key
	for name, cfg := range map[string]VerifierConfig{
		"no issuer":     {Keys: keys},
		"no keys":       {Issuer: testIssuer},
		"skew too wide": {Issuer: testIssuer, Keys: keys, Skew: MaxSkew + 1},
		"skew negative": {Issuer: testIssuer, Keys: keys, Skew: -1},
	} {
		if _, err := NewVerifier(cfg); err == nil {
			t.Errorf("%s: a verifier was made", name)
		}
	}
	s := newScene(t)
	_, err := s.verifier.Verify(context.Background(), bearer(s.token(t, nil)), Wanted{})
	wantCode(t, err, proviso.CodeConfigAudienceMissing)
}

func TestAFailingKeySourceIsNoKey(t *testing.T) {
	s := newScene(t)
	token := s.token(t, nil)
	for name, test := range map[string]struct {
		err  error
		code proviso.Code
	}{
		"an outage":        {&jose.Error{Code: proviso.CodeJWKSStale, Msg: "the keys are too old"}, proviso.CodeJWKSStale},
		"an unnamed error": {errors.New("dial tcp 10.1.2.3: refused"), proviso.CodeJWKSStale},
		"no key, no error": {nil, proviso.CodeJWTUnknownKID},
	} {
		v, err := NewVerifier(VerifierConfig{Issuer: testIssuer, Now: s.now,
			Keys: func(context.Context, string, jose.Alg) (*jose.Key, error) { return nil, test.err }})
		must(t, err)
		_, err = v.Verify(context.Background(), bearer(token), wanted)
		wantCode(t, err, test.code)
		var r *proviso.Refusal
		if errors.As(err, &r) && strings.Contains(r.Public, "10.1.2.3") {
			t.Errorf("%s: the caller is told %q", name, r.Public)
		}
	}
}

// A stranger's token makes nobody look for keys.
func TestForeignIssuersCostNoLookUp(t *testing.T) {
	s := newScene(t)
	looked := false
	v, err := NewVerifier(VerifierConfig{Issuer: "https://other.example", Now: s.now,
		Keys: func(context.Context, string, jose.Alg) (*jose.Key, error) { looked = true; return nil, nil }})
	must(t, err)
	_, err = v.Verify(context.Background(), bearer(s.token(t, nil)), wanted)
	wantCode(t, err, proviso.CodeIssuerUnknown)
	if looked {
		t.Error("keys were looked for")
	}
}

func TestBoundTokensNeedTheirKey(t *testing.T) {
	s := newScene(t)
	prover, err := NewProverWithKey(mustKey(t), jose.ES256, s.now)
	must(t, err)
	other, err := NewProverWithKey(mustKey(t), jose.ES256, s.now)
	must(t, err)
	cert, otherCert := testCertificate(t), testCertificate(t)
	plain := s.token(t, nil)
	dpop := s.token(t, func(c *Claims) { c.Confirmation.JKT = prover.Thumbprint() })
	mtls := s.token(t, func(c *Claims) { c.Confirmation.X5TS256 = CertificateThumbprint(cert) })
	const method, url = "POST", "https://deploy.acme.example/v1/deploy"
	prove := func(p *Prover, token string) string {
		proof, err := p.Proof(method, url, token, "")
		must(t, err)
		return proof
	}
	noProofs, err := NewVerifier(VerifierConfig{Issuer: testIssuer, Keys: s.keys.Key, Now: s.now})
	must(t, err)
	for name, test := range map[string]struct {
		v    *Verifier
		p    Presented
		code proviso.Code
	}{
		"plain as bearer":                   {s.verifier, Presented{Token: plain, Scheme: SchemeBearer}, ""},
		"plain, certificate there":          {s.verifier, Presented{Token: plain, Scheme: SchemeBearer, Certificate: cert}, ""},
		"plain as DPoP":                     {s.verifier, Presented{Token: plain, Scheme: SchemeDPoP, Proof: prove(prover, plain)}, proviso.CodeTokenBinding},
		"plain as bearer with a proof":      {s.verifier, Presented{Token: plain, Scheme: SchemeBearer, Proof: prove(prover, plain)}, proviso.CodeTokenBinding},
		"no scheme":                         {s.verifier, Presented{Token: plain}, proviso.CodeTokenBinding},
		"another scheme":                    {s.verifier, Presented{Token: plain, Scheme: "Basic"}, proviso.CodeTokenBinding},
		"DPoP with its proof":               {s.verifier, Presented{Token: dpop, Scheme: SchemeDPoP, Proof: prove(prover, dpop)}, ""},
		"stolen, as bearer":                 {s.verifier, Presented{Token: dpop, Scheme: SchemeBearer}, proviso.CodeTokenBinding},
		"stolen, as bearer with a proof":    {s.verifier, Presented{Token: dpop, Scheme: SchemeBearer, Proof: prove(prover, dpop)}, proviso.CodeTokenBinding},
		"stolen, with the thief's proof":    {s.verifier, Presented{Token: dpop, Scheme: SchemeDPoP, Proof: prove(other, dpop)}, proviso.CodeTokenBinding},
		"DPoP without proof":                {s.verifier, Presented{Token: dpop, Scheme: SchemeDPoP}, proviso.CodeDPoPProof},
		"proof for another token":           {s.verifier, Presented{Token: dpop, Scheme: SchemeDPoP, Proof: prove(prover, plain)}, proviso.CodeDPoPProof},
		"proof without token hash":          {s.verifier, Presented{Token: dpop, Scheme: SchemeDPoP, Proof: prove(prover, "")}, proviso.CodeDPoPProof},
		"resource that can't check":         {noProofs, Presented{Token: dpop, Scheme: SchemeDPoP, Proof: prove(prover, dpop)}, proviso.CodeTokenBinding},
		"certificate":                       {s.verifier, Presented{Token: mtls, Scheme: SchemeBearer, Certificate: cert}, ""},
		"stolen, without certificate":       {s.verifier, Presented{Token: mtls, Scheme: SchemeBearer}, proviso.CodeTokenBinding},
		"stolen, the thief's certificate":   {s.verifier, Presented{Token: mtls, Scheme: SchemeBearer, Certificate: otherCert}, proviso.CodeTokenBinding},
		"certificate-bound, shown as DPoP":  {s.verifier, Presented{Token: mtls, Scheme: SchemeDPoP, Certificate: cert, Proof: prove(prover, mtls)}, proviso.CodeTokenBinding},
		"DPoP-bound, only the certificate":  {s.verifier, Presented{Token: dpop, Scheme: SchemeBearer, Certificate: cert}, proviso.CodeTokenBinding},
		"certificate-bound with stray DPoP": {s.verifier, Presented{Token: mtls, Scheme: SchemeBearer, Certificate: cert, Proof: prove(prover, mtls)}, proviso.CodeTokenBinding},
	} {
		t.Run(name, func(t *testing.T) {
			test.p.Method, test.p.URL = method, url
			_, err := test.v.Verify(context.Background(), test.p, wanted)
			if test.code == "" {
				must(t, err)
				return
			}
			wantCode(t, err, test.code)
		})
	}
}

func mustKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func testCertificate(t testing.TB) *x509.Certificate {
	t.Helper()
	key := mustKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

// Inspect is for introspection: it says nothing of who shows the token.
func TestInspectChecksTheTokenAlone(t *testing.T) {
	s := newScene(t)
	a, err := s.verifier.Inspect(context.Background(), s.token(t, func(c *Claims) { c.Confirmation.JKT = testJKT }))
	must(t, err)
	if a.Claims().Confirmation.JKT != testJKT {
		t.Errorf("claims %+v", a.Claims())
	}
	s.advance(time.Hour)
	a, err = s.verifier.Inspect(context.Background(), s.token(t, func(c *Claims) { c.IssuedAt, c.Expires = c.IssuedAt.Add(-time.Hour), c.IssuedAt.Add(-time.Minute) }))
	wantCode(t, err, proviso.CodeTokenExpired)
	if !a.IsZero() {
		t.Error("an expired token gave an access")
	}
}

// Whatever bytes come, the verifier answers: it accepts nothing that the
// keyring didn't sign, and nothing panics.
func FuzzPassVerify(f *testing.F) {
	s := newScene(f)
	good := s.token(f, nil)
	f.Add(good)
	f.Add(forge(f, `{"alg":"none","typ":"at+jwt"}`, `{}`, nil))
	f.Add(s.signRaw(f, `{"iss":"https://proviso.acme.example","exp":1}`))
	f.Add(good[:len(good)-4])
	f.Fuzz(func(t *testing.T, token string) {
		a, err := s.verifier.Verify(context.Background(), bearer(token), wanted)
		if err != nil {
			var r *proviso.Refusal
			if !errors.As(err, &r) || r.Code == "" || r.Public == "" || !a.IsZero() {
				t.Fatalf("error %v, access %v", err, a)
			}
			return
		}
		if strings.Join(strings.Split(token, ".")[:2], ".") != strings.Join(strings.Split(good, ".")[:2], ".") {
			t.Fatalf("accepted a token that was not signed: %s", token)
		}
	})
}
