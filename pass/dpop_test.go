package pass

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// The example of RFC 9449 section 4.1, and the thumbprint of its key from
// section 6.1.
const rfc9449Proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19." +
	"eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ." +
	"2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"

func TestTheExampleOfTheRFC(t *testing.T) {
	at := time.Unix(1562262616, 0)
	c := NewProofChecker(ProofConfig{Now: func() time.Time { return at }})
	jkt, err := c.Check(rfc9449Proof, ProofRequest{Method: "POST", URL: "https://server.example.com/token"})
	must(t, err)
	if jkt != testJKT {
		t.Errorf("thumbprint %s, want %s", jkt, testJKT)
	}
}

// bench is a prover and a checker with one clock.
type proofScene struct {
	*testClock
	prover  *Prover
	checker *ProofChecker
}

const proofURL = "https://deploy.acme.example/v1/deploy"

func newProofScene(t testing.TB, cfg ProofConfig) *proofScene {
	t.Helper()
	s := &proofScene{testClock: newClock()}
	cfg.Now = s.now
	s.checker = NewProofChecker(cfg)
	var err error
	s.prover, err = NewProverWithKey(mustKey(t), jose.ES256, s.now)
	must(t, err)
	return s
}

func (s *proofScene) proof(t testing.TB, token, nonce string) string {
	t.Helper()
	p, err := s.prover.Proof("POST", proofURL, token, nonce)
	must(t, err)
	return p
}

func (s *proofScene) check(proof, token string) error {
	_, err := s.checker.Check(proof, ProofRequest{Method: "POST", URL: proofURL, Token: token})
	return err
}

func TestAProofOfEachAlgorithm(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	must(t, err)
	s := newProofScene(t, ProofConfig{})
	for alg, key := range map[jose.Alg]crypto.Signer{jose.ES256: mustKey(t), jose.ES384: p384, jose.EdDSA: ed, jose.RS256: rsaKey, jose.PS256: rsaKey} {
		p, err := NewProverWithKey(key, alg, s.now)
		must(t, err)
		proof, err := p.Proof("POST", proofURL, "", "")
		must(t, err)
		jkt, err := s.checker.Check(proof, ProofRequest{Method: "POST", URL: proofURL})
		if err != nil || jkt != p.Thumbprint() {
			t.Errorf("%s: %v", alg, err)
		}
	}
	p, err := NewProverWithKey(p521, jose.ES512, s.now)
	must(t, err)
	proof, err := p.Proof("POST", proofURL, "", "")
	must(t, err)
	wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof) // not on the list
}

// One line for each check of RFC 9449 section 4.3.
func TestProofsThatAreRefused(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	key := mustKey(t)
	public, err := jose.NewKey("", jose.ES256, key.Public())
	must(t, err)
	jwk := public.BareJWK().String()
	iat := s.now().Unix()
	const header = `{"alg":"ES256","jwk":JWK,"typ":"dpop+jwt"}`
	const payload = `{"htm":"POST","htu":"https://deploy.acme.example/v1/deploy","iat":IAT,"jti":"JTI"}`
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	weak := base64.RawURLEncoding.EncodeToString(rsaKey.N.Bytes()[:128])
	n := 0
	for name, test := range map[string]struct{ header, payload string }{
		"typ JWT":             {`{"alg":"ES256","jwk":JWK,"typ":"JWT"}`, payload},
		"no typ":              {`{"alg":"ES256","jwk":JWK}`, payload},
		"typ of a pass":       {`{"alg":"ES256","jwk":JWK,"typ":"at+jwt"}`, payload},
		"no jwk":              {`{"alg":"ES256","typ":"dpop+jwt"}`, payload},
		"jwk is a text":       {`{"alg":"ES256","jwk":"x","typ":"dpop+jwt"}`, payload},
		"private key in jwk":  {strings.Replace(header, "JWK", strings.Replace(jwk, "{", `{"d":"AAAA",`, 1), 1), payload},
		"alg none":            {`{"alg":"none","jwk":JWK,"typ":"dpop+jwt"}`, payload},
		"alg HS256":           {`{"alg":"HS256","jwk":JWK,"typ":"dpop+jwt"}`, payload},
		"alg of another key":  {`{"alg":"EdDSA","jwk":JWK,"typ":"dpop+jwt"}`, payload},
		"symmetric key":       {`{"alg":"ES256","jwk":{"kty":"oct","k":"AAAA"},"typ":"dpop+jwt"}`, payload},
		"weak key":            {`{"alg":"RS256","jwk":{"kty":"RSA","e":"AQAB","n":"` + weak + `"},"typ":"dpop+jwt"}`, payload},
		"another key's jwk":   {strings.Replace(header, "JWK", `{"crv":"P-256","kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}`, 1), payload},
		"jku":                 {`{"alg":"ES256","jku":"https://evil.example","jwk":JWK,"typ":"dpop+jwt"}`, payload},
		"crit":                {`{"alg":"ES256","crit":["x"],"jwk":JWK,"typ":"dpop+jwt"}`, payload},
		"no jti":              {header, strings.Replace(payload, `,"jti":"JTI"`, ``, 1)},
		"empty jti":           {header, strings.Replace(payload, `"JTI"`, `""`, 1)},
		"jti is a number":     {header, strings.Replace(payload, `"JTI"`, `1`, 1)},
		"jti too long":        {header, strings.Replace(payload, `JTI`, strings.Repeat("x", 257), 1)},
		"no htm":              {header, strings.Replace(payload, `"htm":"POST",`, ``, 1)},
		"other method":        {header, strings.Replace(payload, `POST`, `GET`, 1)},
		"method in lowercase": {header, strings.Replace(payload, `POST`, `post`, 1)},
		"no htu":              {header, strings.Replace(payload, `"htu":"https://deploy.acme.example/v1/deploy",`, ``, 1)},
		"other host":          {header, strings.Replace(payload, `deploy.acme`, `evil.acme`, 1)},
		"other path":          {header, strings.Replace(payload, `/v1/deploy`, `/v1/deploy/`, 1)},
		"other scheme":        {header, strings.Replace(payload, `https:`, `http:`, 1)},
		"other port":          {header, strings.Replace(payload, `.example`, `.example:444`, 1)},
		"htu with userinfo":   {header, strings.Replace(payload, `https://`, `https://evil@`, 1)},
		"htu is a path":       {header, strings.Replace(payload, `https://deploy.acme.example`, ``, 1)},
		"no iat":              {header, strings.Replace(payload, `"iat":IAT,`, ``, 1)},
		"iat as text":         {header, strings.Replace(payload, `IAT`, `"IAT"`, 1)},
		"iat as float":        {header, strings.Replace(payload, `IAT`, `IAT.5`, 1)},
		"too old":             {header, strings.Replace(payload, `IAT`, fmt.Sprint(iat-61), 1)},
		"in the future":       {header, strings.Replace(payload, `IAT`, fmt.Sprint(iat+31), 1)},
		"duplicate claim":     {header, strings.Replace(payload, `{`, `{"htm":"GET",`, 1)},
		"not JSON":            {header, `x`},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			h := strings.ReplaceAll(test.header, "JWK", jwk)
			p := strings.NewReplacer("IAT", fmt.Sprint(iat), "JTI", fmt.Sprintf("proof-%d", n)).Replace(test.payload)
			wantCode(t, s.check(forge(t, h, p, key), ""), proviso.CodeDPoPProof)
		})
	}
	// The frame of the table is a good proof, and its edges are good too.
	for i, at := range []int64{iat, iat - 60, iat + 30} {
		p := strings.NewReplacer("IAT", fmt.Sprint(at), "JTI", fmt.Sprintf("good-%d", i)).Replace(payload)
		must(t, s.check(forge(t, strings.ReplaceAll(header, "JWK", jwk), p, key), ""))
	}
	for name, proof := range map[string]string{"nothing": "", "a word": "x", "too long": strings.Repeat("x", maxProofBytes+1), "changed": s.proof(t, "", "") + "x"} {
		if err := s.check(proof, ""); err == nil {
			t.Errorf("%s was taken", name)
		} else {
			wantCode(t, err, proviso.CodeDPoPProof)
		}
	}
}

func TestAProofIsGoodOnce(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	proof := s.proof(t, "", "")
	must(t, s.check(proof, ""))
	for range 70 { // through all of its life, across generations of the cache
		wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof)
		s.advance(time.Second)
	}
	must(t, s.check(s.proof(t, "", ""), ""))
}

// The longest life of a proof: made by a clock that is ahead, shown at the end.
func TestAProofFromAheadIsRememberedToItsEnd(t *testing.T) {
	for offset := range 120 { // wherever the generations of the cache begin
		s := newProofScene(t, ProofConfig{})
		s.advance(time.Duration(offset) * time.Second)
		s.advance(30 * time.Second)
		proof := s.proof(t, "", "")
		s.advance(-30 * time.Second)
		must(t, s.check(proof, ""))
		s.advance(90 * time.Second) // the last second at which its iat is taken
		wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof)
		if err := s.check(proof, ""); !strings.Contains(err.Error(), "used before") {
			t.Fatalf("offset %d: refused for another reason: %v", offset, err)
		}
	}
}

// A clock that is set back over the turn of a generation makes the memory of
// proofs no smaller, and neither does a caller that read it just before the turn.
func TestAClockThatIsSetBackForgetsNoProof(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	window := int64(s.checker.window())
	s.advance(time.Duration(window - s.now().UnixNano()%window)) // to the turn
	proof := s.proof(t, "", "")
	must(t, s.check(proof, ""))
	s.advance(-time.Second)
	wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof)
	s.advance(time.Second)
	wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof)
	s.advance(-2 * time.Second)
	early := s.proof(t, "", "")
	must(t, s.check(early, ""))
	s.advance(time.Second)
	wantCode(t, s.check(early, ""), proviso.CodeDPoPProof)
	wantCode(t, s.check(proof, ""), proviso.CodeDPoPProof)
}

func TestOfManyCopiesOneWins(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	proof := s.proof(t, "", "")
	var wg sync.WaitGroup
	won := make(chan bool, 200)
	for range cap(won) {
		wg.Go(func() { won <- s.check(proof, "") == nil })
	}
	wg.Wait()
	close(won)
	n := 0
	for ok := range won {
		if ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d copies were accepted", n)
	}
}

func TestTwoClientsMayUseOneJTI(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	for range 2 {
		key := mustKey(t)
		public, err := jose.NewKey("", jose.ES256, key.Public())
		must(t, err)
		must(t, s.check(forge(t, `{"alg":"ES256","jwk":`+public.BareJWK().String()+`,"typ":"dpop+jwt"}`,
			fmt.Sprintf(`{"htm":"POST","htu":"%s","iat":%d,"jti":"same"}`, proofURL, s.now().Unix()), key), ""))
	}
}

// A full cache refuses: forgetting would let a proof in twice.
func TestAFullCacheRefuses(t *testing.T) {
	s := newProofScene(t, ProofConfig{Remember: 64})
	first := s.proof(t, "", "")
	must(t, s.check(first, ""))
	full := 0
	for range 200 {
		var r *proviso.Refusal
		if err := s.check(s.proof(t, "", ""), ""); errors.As(err, &r) {
			if r.Code != proviso.CodeReplayStoreFull {
				t.Fatal(err)
			}
			full++
		}
	}
	if full < 200-64 {
		t.Errorf("%d of 200 were refused by a cache of 64", full)
	}
	wantCode(t, s.check(first, ""), proviso.CodeDPoPProof)
	s.advance(4 * time.Minute)
	must(t, s.check(s.proof(t, "", ""), ""))
}

func TestAProofOfARefusedRequestTakesNoPlace(t *testing.T) {
	s := newProofScene(t, ProofConfig{Remember: 16})
	for range 100 {
		if err := s.check(s.proof(t, "another token", ""), "token"); err == nil {
			t.Fatal("a proof for another token was taken")
		}
	}
	for i := range s.checker.seen {
		if n := len(s.checker.seen[i].current); n > 0 {
			t.Errorf("shard %d remembers %d proofs that were refused", i, n)
		}
	}
}

func TestNonces(t *testing.T) {
	s := newProofScene(t, ProofConfig{Nonce: NonceAlways})
	wantCode(t, s.check(s.proof(t, "", ""), ""), proviso.CodeDPoPNonce)
	nonce := s.checker.Nonce()
	must(t, s.check(s.proof(t, "", nonce), ""))
	s.advance(2 * time.Minute)
	if s.checker.Nonce() == nonce {
		t.Error("the nonce doesn't change")
	}
	must(t, s.check(s.proof(t, "", nonce), "")) // the previous one still serves
	s.advance(2 * time.Minute)
	wantCode(t, s.check(s.proof(t, "", nonce), ""), proviso.CodeDPoPNonce)
	other := newProofScene(t, ProofConfig{Nonce: NonceAlways})
	for name, bad := range map[string]string{"another server's": other.checker.Nonce(), "changed": "A" + s.checker.Nonce()[1:], "empty": "", "long": strings.Repeat("A", 1000)} {
		if bad == s.checker.Nonce() {
			continue
		}
		if err := s.check(s.proof(t, "", bad), ""); err == nil {
			t.Errorf("%s nonce was taken", name)
		}
	}
}

// The cache is empty after a restart; a proof from before must not get in.
func TestARestartForgetsNothingThatCounts(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	proof := s.proof(t, "", "")
	must(t, s.check(proof, ""))
	s.advance(2 * time.Second)
	s.checker = NewProofChecker(ProofConfig{Nonce: NonceAtStart, Now: s.now})
	wantCode(t, s.check(proof, ""), proviso.CodeDPoPNonce)
	must(t, s.check(s.proof(t, "", s.checker.Nonce()), ""))
	s.advance(89 * time.Second)
	wantCode(t, s.check(s.proof(t, "", ""), ""), proviso.CodeDPoPNonce)
	s.advance(time.Second)
	must(t, s.check(s.proof(t, "", ""), ""))
	if err := s.check(proof, ""); err == nil || !strings.Contains(err.Error(), "ago") {
		t.Errorf("the old proof: %v", err)
	}
}

func TestTheStageOfAProofsRefusalIsConfigured(t *testing.T) {
	s := newProofScene(t, ProofConfig{Stage: proviso.StageRequest})
	var r *proviso.Refusal
	if err := s.check("x", ""); !errors.As(err, &r) || r.Stage != proviso.StageRequest {
		t.Errorf("refusal %v", err)
	}
}

func TestTargetURIs(t *testing.T) {
	const same = "https://server.example.com/a/b"
	for _, spelling := range []string{
		same, same + "?q=1", same + "#f", same + "?q#f", "HTTPS://SERVER.example.COM/a/b", "https://server.example.com:443/a/b", "https://server.example.com:/a/b",
		"https://server.example.com:0443/a/b", "https://server.example.com/%61/b", "https://server.example.com/a/./b", "https://server.example.com/x/../a/b", "https://server.example.com/../a/b",
	} {
		if got, err := targetURI(spelling); got != same || err != nil {
			t.Errorf("%s becomes %q, %v", spelling, got, err)
		}
	}
	for in, want := range map[string]string{
		"http://h":              "http://h/",
		"http://h:80":           "http://h/",
		"http://h:8080/":        "http://h:8080/",
		"https://h:80/":         "https://h:80/",
		"https://[::1]/x":       "https://[::1]/x",
		"https://[::1]:8443/x":  "https://[::1]:8443/x",
		"https://h/a%2fb":       "https://h/a%2Fb",
		"https://h/%7euser":     "https://h/~user",
		"https://h/a/..":        "https://h/",
		"https://h/a/.":         "https://h/a/",
		"https://h/a/b/../":     "https://h/a/",
		"https://h/a//b":        "https://h/a//b",
		"https://h/..a/.b/c..":  "https://h/..a/.b/c..",
		"https://h/%2e%2e/a":    "https://h/a",
		"https://h/:@!$&'()*+,": "https://h/:@!$&'()*+,",
	} {
		if got, err := targetURI(in); got != want || err != nil {
			t.Errorf("%s becomes %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "/a", "h/a", "ftp://h/", "https://", "https:///a", "https://u@h/", "https://u:p@h/", "https://h:x/", "https://h:99999999/", "https://h/a b",
		"https://h/%", "https://h/%zz", "https://h/%1", "https://münchen.example/", "https://h/\x00", "https://h/\\", "https://[::1/", "https://h]/", "https://h:0/", "https:h", "https://h /"} {
		if got, err := targetURI(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}

func TestProofsAreNotMadeForNoURL(t *testing.T) {
	p, err := NewProver()
	must(t, err)
	if _, err := p.Proof("POST", "/token", "", ""); err == nil {
		t.Error("a proof for a path")
	}
	if _, err := NewProverWithKey(mustKey(t), jose.EdDSA, time.Now); err == nil {
		t.Error("a prover whose key can't sign its algorithm")
	}
}

// Whatever comes as a proof is answered with a refusal, and nothing but a proof
// signed over exactly this request is taken.
func FuzzDPoP(f *testing.F) {
	s := newProofScene(f, ProofConfig{})
	key := mustKey(f)
	public, err := jose.NewKey("", jose.ES256, key.Public())
	must(f, err)
	f.Add(s.proof(f, "", ""), "POST", proofURL, true)
	f.Add(rfc9449Proof, "POST", "https://server.example.com/token", false)
	f.Add(`{"htm":"POST","htu":"https://deploy.acme.example/v1/deploy","iat":1795510800,"jti":"x"}`, "POST", proofURL, true)
	f.Fuzz(func(t *testing.T, proof, method, url string, sign bool) {
		checker := NewProofChecker(ProofConfig{Now: s.now})
		if sign { // the fuzzer's claims under a good signature
			proof = forge(t, `{"alg":"ES256","jwk":`+public.BareJWK().String()+`,"typ":"dpop+jwt"}`, proof, key)
		}
		jkt, err := checker.Check(proof, ProofRequest{Method: method, URL: url})
		if err != nil {
			var r *proviso.Refusal
			if !errors.As(err, &r) || r.Code == "" || r.Public == "" {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !isThumbprint(jkt) {
			t.Fatalf("thumbprint %q", jkt)
		}
		claims, err := document.Parse(payloadOf(t, proof), document.Limits{})
		must(t, err)
		if htm, _ := claims.Get("htm").Text(); htm != method {
			t.Fatalf("htm %q for %q", htm, method)
		}
		if _, err := checker.Check(proof, ProofRequest{Method: method, URL: url}); err == nil {
			t.Fatal("the same proof twice")
		}
	})
}

// Normalising is idempotent, and two URLs that become one have the same host.
func FuzzTargetURI(f *testing.F) {
	for _, s := range []string{proofURL, "http://h:80/%7e/../a?b#c", "https://[::1]:8443/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, err := targetURI(s)
		if err != nil {
			return
		}
		two, err := targetURI(one)
		if err != nil || one != two {
			t.Fatalf("%q becomes %q, then %q, %v", s, one, two, err)
		}
	})
}
