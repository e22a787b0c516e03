package runner_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/runner"
)

func TestJWTSVIDRefused(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	other := newAuthority(t, "partner.example", frozen)
	v := newVerifier(t, frozen, a.config("fleet"), other.config("partner"))
	with := func(name string, value any) string {
		c := a.claims()
		c[name] = value
		return a.token(c, nil)
	}
	without := func(name string) string {
		c := a.claims()
		delete(c, name)
		return a.token(c, nil)
	}
	unix := func(d time.Duration) int64 { return frozen.Add(d).Unix() }
	good := a.token(a.claims(), nil)
	segments := strings.Split(good, ".")
	payload, err := json.Marshal(a.claims())
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"jwt-1"}`)) + "." + segments[1] + "."
	cases := []struct {
		name, token string
		code        proviso.Code
		word        string
	}{
		{"no audience", without("aud"), proviso.CodeAudMissing, "no aud"},
		{"empty audience", with("aud", []string{}), proviso.CodeAudMissing, "empty"},
		{"another audience", with("aud", "https://vault.example"), proviso.CodeAudMismatch, "vault.example"},
		{"two audiences", with("aud", []string{broker, "https://vault.example"}), proviso.CodeAudMultiple, "2 audiences"},
		{"the audience twice", with("aud", []string{broker, broker}), proviso.CodeAudMultiple, "2 audiences"},
		{"audience with a slash more", with("aud", broker+"/"), proviso.CodeAudMismatch, broker},
		{"audience of numbers", with("aud", []int{1}), proviso.CodeAudInvalid, "integer"},
		{"audience null", with("aud", nil), proviso.CodeAudInvalid, "null"},
		{"no sub", without("sub"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub without path", with("sub", "spiffe://"+domain), proviso.CodeSubInvalid, "has a path"},
		{"sub not SPIFFE", with("sub", "runner-1"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with dots", with("sub", "spiffe://"+domain+"/a/../b"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub percent-encoded", with("sub", "spiffe://"+domain+"/a/%2e%2e"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with an empty segment", with("sub", "spiffe://"+domain+"/region//runner/1"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with a slash at its end", with("sub", goodID+"/"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with a trust domain in capitals", with("sub", "spiffe://RUNNERS.acme.example/region/x/runner/1"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with an encoded slash", with("sub", "spiffe://"+domain+"/region/x%2Frunner/1"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub with a query", with("sub", goodID+"?x=1"), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub too long", with("sub", "spiffe://"+domain+"/"+strings.Repeat("a", 2048)), proviso.CodeSubInvalid, "no SPIFFE ID"},
		{"sub of another domain", with("sub", "spiffe://partner.example/region/x/runner/1"), proviso.CodeJWTSignature, ""},
		{"sub of an unknown domain", with("sub", "spiffe://stranger.example/runner/1"), runner.CodeTrustDomainUnknown, "stranger.example"},
		{"no runner's path", with("sub", "spiffe://"+domain+"/ns/prod/sa/web"), runner.CodeRunnerPath, "matches no template"},
		{"no exp", without("exp"), proviso.CodeExpMissing, "no exp"},
		{"exp null", with("exp", nil), proviso.CodeExpInvalid, "exp"},
		{"exp text", with("exp", "1795426500"), proviso.CodeExpInvalid, "exp"},
		{"exp float", a.token([]byte(`{"sub":"`+goodID+`","aud":"`+broker+`","exp":1795426500.5}`), nil), proviso.CodeExpInvalid, "exp"},
		{"exp far away", with("exp", unix(48*time.Hour)), proviso.CodeTokenLifetime, "at most"},
		{"expired a second ago", with("exp", unix(-time.Second)), proviso.CodeTokenExpired, "expired at"},
		{"expires now", with("exp", unix(0)), proviso.CodeTokenExpired, "expired at"},
		{"from the future", with("iat", unix(time.Minute)), proviso.CodeIatFuture, "clocks"},
		{"not yet", with("nbf", unix(time.Minute)), proviso.CodeNbfFuture, "only from"},
		{"issued long ago", with("iat", unix(-2*time.Hour)), proviso.CodeTokenLifetime, "lives for"},
		{"no kid", a.token(a.claims(), map[string]any{"kid": ""}), proviso.CodeJWTKIDMissing, "kid"},
		{"unknown kid", a.token(a.claims(), map[string]any{"kid": "jwt-2"}), proviso.CodeJWTUnknownKID, "no JWT authority"},
		{"jku", a.token(a.claims(), map[string]any{"jku": "https://evil.example/jwks"}), proviso.CodeJWTHeaderNotAllowed, "jku"},
		{"unknown header", a.token(a.claims(), map[string]any{"nonce": "x"}), proviso.CodeJWTHeaderNotAllowed, "nonce"},
		{"x5t", a.token(a.claims(), map[string]any{"x5t": "abc"}), proviso.CodeJWTHeaderNotAllowed, "x5t"},
		{"typ at+jwt", a.token(a.claims(), map[string]any{"typ": "at+jwt"}), proviso.CodeJWTTyp, "typ"},
		{"typ jwt in small letters", a.token(a.claims(), map[string]any{"typ": "jwt"}), proviso.CodeJWTTyp, "typ"},
		{"signed by another", a.tokenBy(newECKey(t), payload, nil), proviso.CodeJWTSignature, ""},
		{"alg none", none, proviso.CodeJWTAlgNotAllowed, ""},
		{"sub twice", a.token([]byte(`{"sub":"spiffe://`+domain+`/region/x/runner/evil","sub":"`+goodID+`","aud":"`+broker+`","exp":1795426500}`), nil), proviso.CodeJWTDuplicateMember, ""},
		{"SUB beside sub", with("SUB", "spiffe://"+domain+"/region/x/runner/evil"), proviso.CodeJWTAmbiguousMember, ""},
		{"trailing newline", good + "\n", proviso.CodeJWTMalformed, ""},
		{"two segments", segments[0] + "." + segments[1], proviso.CodeJWTMalformed, ""},
		{"five segments", good + ".e.f", proviso.CodeJWTIsJWE, ""},
		{"too long", good + strings.Repeat("A", 9<<10), proviso.CodeLimitsTokenSize, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := verify(v, runner.Evidence{JWTSVID: c.token})
			wantRefusal(t, err, c.code, c.word, c.token)
		})
	}
}

func TestJWTSVIDAccepted(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	for name, change := range map[string]func(c, h map[string]any){
		"as it is":          func(c, h map[string]any) {},
		"aud as a text":     func(c, h map[string]any) { c["aud"] = broker },
		"typ JWT":           func(c, h map[string]any) { h["typ"] = "JWT" },
		"typ JOSE":          func(c, h map[string]any) { h["typ"] = "JOSE" },
		"no iat":            func(c, h map[string]any) { delete(c, "iat") },
		"clock ahead":       func(c, h map[string]any) { c["iat"] = frozen.Add(20 * time.Second).Unix() },
		"claims of its own": func(c, h map[string]any) { c["team"] = map[string]any{"name": "shipping"} },
	} {
		t.Run(name, func(t *testing.T) {
			claims, header := a.claims(), map[string]any{}
			change(claims, header)
			r, err := verify(a.verifier(), runner.Evidence{JWTSVID: a.token(claims, header)})
			if err != nil {
				t.Fatal(err)
			}
			if r.Attestation() != runner.AttestationJWT || r.ID() != "trusted-runner-1" || r.Bound() || len(r.EvidenceHash()) != 64 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// The evidence's hash names what was signed, so another spelling of the same
// token is the same evidence.
func TestEvidenceHashIsOfTheSignedBytes(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	payload, err := json.Marshal(a.claims())
	if err != nil {
		t.Fatal(err)
	}
	v := a.verifier()
	one, err1 := verify(v, runner.Evidence{JWTSVID: a.token(payload, nil)})
	two, err2 := verify(v, runner.Evidence{JWTSVID: a.token(payload, nil)}) // another ECDSA signature
	if err1 != nil || err2 != nil || one.EvidenceHash() != two.EvidenceHash() {
		t.Errorf("%v %v: %s and %s", err1, err2, one.EvidenceHash(), two.EvidenceHash())
	}
}

// The second opinion: what Proviso's verifier takes, go-spiffe's takes too.
func FuzzJWTSVID(f *testing.F) {
	now := time.Now()
	a := newAuthority(f, domain, now)
	v := a.verifier()
	theirs := jwtbundle.FromJWTAuthorities(spiffeid.RequireTrustDomainFromString(domain), nil)
	if err := theirs.AddJWTAuthority(a.kid, &a.jwtKey.PublicKey); err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(a.claims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good), "", "", true)
	f.Add(string(good), "JWT", "", true)
	f.Add(string(good), "JOSE", "nonce", true)
	f.Add(`{"sub":"spiffe://`+domain+`","aud":"x","exp":9e18}`, "at+jwt", "jku", true)
	f.Add(`{"sub":"a","SUB":"b"}`, "", "", true)
	f.Add("a.b.c", "", "", false)
	f.Fuzz(func(t *testing.T, payload, typ, extra string, sign bool) {
		token := payload
		if sign {
			header := map[string]any{}
			if typ != "" {
				header["typ"] = typ
			}
			if extra != "" && extra != "alg" && extra != "kid" && extra != "typ" && extra != "b64" && extra != "crit" {
				header[extra] = "x"
			}
			signer := *a
			signer.t = t
			token = signer.tokenBy(a.jwtKey, []byte(payload), header)
		}
		r, err := verify(v, runner.Evidence{JWTSVID: token})
		if err != nil || token == "" {
			return // refused, or no evidence at all
		}
		svid, err := jwtsvid.ParseAndValidate(token, theirs, []string{broker})
		if err != nil {
			t.Fatalf("taken, and go-spiffe refuses: %v", err)
		}
		if svid.ID.String() != r.SPIFFEID() {
			t.Fatalf("read as %s, by go-spiffe as %s", r.SPIFFEID(), svid.ID)
		}
	})
}

// Other algorithms of JWT-SVID section 2.1 are taken when the bundle's key fits.
func TestKeysAndAlgorithms(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	doc := a.bundle(2)
	doc["keys"].([]any)[1].(map[string]any)["alg"] = "ES384" // does not fit a P-256 key
	a.writeDocument(doc)
	if _, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Log: quiet}); err == nil {
		t.Error("a key whose alg doesn't fit its curve was taken")
	}
	doc["keys"].([]any)[1].(map[string]any)["alg"] = "ES256"
	a.writeDocument(doc)
	if _, err := verify(a.verifier(), runner.Evidence{JWTSVID: a.token(a.claims(), nil)}); err != nil {
		t.Error(err)
	}
	unused := maps.Clone(doc)
	unused["keys"] = []any{doc["keys"].([]any)[0], func() any {
		k := maps.Clone(doc["keys"].([]any)[1].(map[string]any))
		k["use"] = "sig" // not a JWT authority: go-spiffe's jwtbundle would take it (M13)
		return k
	}()}
	unused["spiffe_sequence"] = 3
	a.writeDocument(unused)
	_, err := verify(a.verifier(), runner.Evidence{JWTSVID: a.token(a.claims(), nil)})
	wantRefusal(t, err, proviso.CodeJWTUnknownKID, "no JWT authority")
}
