package jose_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// b64 is the encoding that every segment must have.
func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Keys that all tests share: making RSA keys is slow.
var (
	rsa2048 = sync.OnceValue(func() *jose.Signer { return mustSigner(rsaKeyOrDie(2048), jose.RS256) })
	p256    = sync.OnceValue(func() *jose.Signer { return mustSigner(p256Private, jose.ES256) })
)

// forged makes a token of any header and payload, signed by the test's P-256
// key: what is wrong with it is never the signature.
func forged(t testing.TB, header, payload string) string {
	t.Helper()
	signed := b64(header) + "." + b64(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(rawES256(t, signed))
}

func codeOf(t testing.TB, err error) proviso.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *jose.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %T is not a *jose.Error: %v", err, err)
	}
	return e.Code
}

// check parses and verifies as a caller does.
func check(compact string, p jose.Profile, k *jose.Key) error {
	token, err := jose.Parse(compact, p)
	if err != nil {
		return err
	}
	return token.Verify(k)
}

const (
	goodHeader = `{"alg":"ES256","kid":"k","typ":"JWT"}`
	goodClaims = `{"iss":"https://issuer.example","sub":"s"}`
)

// Each row is one promise of RFC 8725 or of the package comment. Every token is
// signed by the right key, so nothing but the row's reason can refuse it.
func TestRefusals(t *testing.T) {
	jwt := jose.Profile{Typ: []string{"JWT"}}
	ignoring := jose.Profile{Typ: []string{"JWT"}, IgnoreUnknown: true}
	good := forged(t, goodHeader, goodClaims)
	parts := strings.Split(good, ".")
	rsaPublic, err := x509.MarshalPKIXPublicKey(rsa2048().Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	hs := func(header string, key []byte) string {
		signed := b64(header) + "." + b64(goodClaims)
		m := hmac.New(sha256.New, key)
		m.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	header := func(h string) string { return forged(t, h, goodClaims) }
	claims := func(c string) string { return forged(t, goodHeader, c) }
	ownKey := string(jose.AppendJWK(nil, p256().Key()))
	if err := check(good, jwt, p256().Key()); err != nil {
		t.Fatalf("the token that all others are made of is refused: %v", err)
	}

	for _, tt := range []struct {
		name    string
		token   string
		profile jose.Profile
		want    proviso.Code
	}{
		// RFC 8725 section 2.1, 3.1: weak and missing algorithms.
		{"alg none", b64(`{"alg":"none","typ":"JWT"}`) + "." + b64(goodClaims) + ".", jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg none with a signature", header(`{"alg":"none","typ":"JWT"}`), jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg nOnE", header(`{"alg":"nOnE","typ":"JWT"}`), jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg in another case", header(`{"alg":"es256","typ":"JWT"}`), jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg absent", header(`{"typ":"JWT"}`), jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg empty", header(`{"alg":"","typ":"JWT"}`), jwt, proviso.CodeJWTMalformed},
		{"alg a list", header(`{"alg":["ES256"],"typ":"JWT"}`), jwt, proviso.CodeJWTMalformed},
		{"alg null", header(`{"alg":null,"typ":"JWT"}`), jwt, proviso.CodeJWTMalformed},
		{"alg unknown", header(`{"alg":"ES256K","typ":"JWT"}`), jwt, proviso.CodeJWTAlgNotAllowed},
		{"public key as HMAC secret", hs(`{"alg":"HS256","typ":"JWT"}`, rsaPublic), jwt, proviso.CodeJWTAlgNotAllowed},
		{"HMAC with an empty secret", hs(`{"alg":"HS512","typ":"JWT"}`, nil), jwt, proviso.CodeJWTAlgNotAllowed},
		{"alg of another key type", header(`{"alg":"RS256","kid":"k","typ":"JWT"}`), jwt, proviso.CodeJWTKeyAlgMismatch},
		{"alg of another curve", header(`{"alg":"ES384","kid":"k","typ":"JWT"}`), jwt, proviso.CodeJWTKeyAlgMismatch},

		// Sections 3.9, 3.10 and 2.10: a header must not choose the key.
		{"jwk", header(`{"alg":"ES256","typ":"JWT","jwk":` + ownKey + `}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"jku", header(`{"alg":"ES256","typ":"JWT","jku":"https://evil.example/jwks"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"x5u", header(`{"alg":"ES256","typ":"JWT","x5u":"https://evil.example/x"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"x5c", header(`{"alg":"ES256","typ":"JWT","x5c":["MIIB"]}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"crit", header(`{"alg":"ES256","typ":"JWT","crit":["exp"],"exp":1}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"crit empty", header(`{"alg":"ES256","typ":"JWT","crit":[]}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"crit null", header(`{"alg":"ES256","typ":"JWT","crit":null}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"b64", header(`{"alg":"ES256","typ":"JWT","b64":false}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"b64 true", header(`{"alg":"ES256","typ":"JWT","b64":true}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"zip", header(`{"alg":"ES256","typ":"JWT","zip":"DEF"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"enc", header(`{"alg":"ES256","typ":"JWT","enc":"A256GCM"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"cty, a token within", header(`{"alg":"ES256","typ":"JWT","cty":"JWT"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"a claim in the header", header(`{"alg":"ES256","typ":"JWT","iss":"https://issuer.example"}`), ignoring, proviso.CodeJWTHeaderNotAllowed},
		{"unknown member", header(`{"alg":"ES256","typ":"JWT","foo":1}`), jwt, proviso.CodeJWTHeaderNotAllowed},
		{"kid a number", header(`{"alg":"ES256","typ":"JWT","kid":7}`), jwt, proviso.CodeJWTMalformed},
		{"kid empty", header(`{"alg":"ES256","typ":"JWT","kid":""}`), jwt, proviso.CodeJWTMalformed},
		{"kid very long", header(`{"alg":"ES256","typ":"JWT","kid":"` + strings.Repeat("k", 257) + `"}`), jwt, proviso.CodeJWTMalformed},
		{"x5t not a text", header(`{"alg":"ES256","typ":"JWT","x5t":{}}`), jwt, proviso.CodeJWTMalformed},

		// Section 3.11: one kind of token is not another.
		{"typ absent", header(`{"alg":"ES256"}`), jwt, proviso.CodeJWTTyp},
		{"typ of a DPoP proof", header(`{"alg":"ES256","typ":"dpop+jwt"}`), jwt, proviso.CodeJWTTyp},
		{"typ of an access token", header(`{"alg":"ES256","typ":"at+jwt"}`), jwt, proviso.CodeJWTTyp},
		{"typ empty", header(`{"alg":"ES256","typ":""}`), jose.Profile{Typ: []string{"", "JWT"}}, proviso.CodeJWTMalformed},
		{"typ not a text", header(`{"alg":"ES256","typ":true}`), jwt, proviso.CodeJWTMalformed},
		{"typ with a parameter", header(`{"alg":"ES256","typ":"JWT;v=1"}`), jwt, proviso.CodeJWTTyp},
		{"typ with white space", header(`{"alg":"ES256","typ":"JWT "}`), jwt, proviso.CodeJWTTyp},
		{"typ of another tree", header(`{"alg":"ES256","typ":"text/jwt"}`), jwt, proviso.CodeJWTTyp},
		{"typ application twice", header(`{"alg":"ES256","typ":"application/application/jwt"}`), jwt, proviso.CodeJWTTyp},
		{"typ equal only beyond ASCII", header(`{"alg":"ES256","typ":"wor\u212Aload"}`), jose.Profile{Typ: []string{"workload"}}, proviso.CodeJWTTyp},
		{"typ where none is taken", good, jose.Profile{}, proviso.CodeJWTTyp},

		// Two readers must not read two tokens.
		{"header member twice", header(`{"alg":"ES256","alg":"ES256","typ":"JWT"}`), jwt, proviso.CodeJWTDuplicateMember},
		{"header member twice, escaped", header(`{"alg":"ES256","a\u006cg":"none","typ":"JWT"}`), jwt, proviso.CodeJWTDuplicateMember},
		{"header ALG", header(`{"alg":"ES256","ALG":"none","typ":"JWT"}`), ignoring, proviso.CodeJWTAmbiguousMember},
		{"header Jku", header(`{"alg":"ES256","Jku":"https://evil.example","typ":"JWT"}`), jwt, proviso.CodeJWTHeaderNotAllowed},
		{"header \u212Aid", header(`{"alg":"ES256","kid":"k","\u212Aid":"x","typ":"JWT"}`), ignoring, proviso.CodeJWTAmbiguousMember},
		{"claim twice", claims(`{"sub":"good","sub":"evil"}`), jwt, proviso.CodeJWTDuplicateMember},
		{"claim twice within", claims(`{"sub":"s","cnf":{"jkt":"a","jkt":"b"}}`), jwt, proviso.CodeJWTDuplicateMember},
		{"claim SUB", claims(`{"sub":"good","SUB":"evil"}`), jwt, proviso.CodeJWTAmbiguousMember},
		{"claim \u017Fub", claims(`{"sub":"good","ſub":"evil"}`), jwt, proviso.CodeJWTAmbiguousMember},
		{"claim \u017Fub, escaped", claims(`{"sub":"good","\u017fub":"evil"}`), jwt, proviso.CodeJWTAmbiguousMember},
		{"claims without the plain one", claims(`{"SUB":"evil","ſub":"evil"}`), jwt, proviso.CodeJWTAmbiguousMember},

		// One spelling only.
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"padded signature", good + "==", jwt, proviso.CodeJWTMalformed},
		{"trailing newline", good + "\n", jwt, proviso.CodeJWTMalformed},
		{"newline within the payload", parts[0] + "." + parts[1][:8] + "\r\n" + parts[1][8:] + "." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"leading space", " " + good, jwt, proviso.CodeJWTMalformed},
		{"space within the signature", parts[0] + "." + parts[1] + "." + parts[2][:9] + " " + parts[2][9:], jwt, proviso.CodeJWTMalformed},
		{"standard alphabet", forged(t, `{"alg":"ES256","typ":"JWT","kid":"???"}`, goodClaims), jwt, ""},
		{"standard alphabet, slash", strings.Replace(forged(t, `{"alg":"ES256","typ":"JWT","kid":"???"}`, goodClaims), "_", "/", 1), jwt, proviso.CodeJWTMalformed},
		{"unused bits in the signature", parts[0] + "." + parts[1] + "." + otherSpareBits(parts[2]), jwt, proviso.CodeJWTMalformed},
		{"length that no bytes have", parts[0] + "." + parts[1] + "." + parts[2] + "AAA", jwt, proviso.CodeJWTMalformed},
		{"NUL", parts[0] + ".\x00" + parts[1] + "." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"not ASCII", parts[0] + "." + parts[1] + "é." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"two segments", parts[0] + "." + parts[1], jwt, proviso.CodeJWTMalformed},
		{"one segment", parts[0], jwt, proviso.CodeJWTMalformed},
		{"nothing", "", jwt, proviso.CodeJWTMalformed},
		{"two dots", "..", jwt, proviso.CodeJWTMalformed},
		{"four segments", good + ".AAAA", jwt, proviso.CodeJWTMalformed},
		{"a JWE's five segments", good + ".AAAA.AAAA", jwt, proviso.CodeJWTIsJWE},
		{"many dots", strings.Repeat(".", 9000), jwt, proviso.CodeJWTMalformed},
		{"header empty", "." + parts[1] + "." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"payload empty", parts[0] + ".." + parts[2], jwt, proviso.CodeJWTMalformed},
		{"signature empty", parts[0] + "." + parts[1] + ".", jwt, proviso.CodeJWTMalformed},
		{"JSON serialisation", `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`, jwt, proviso.CodeJWTMalformed},
		{"Bearer before it", "Bearer " + good, jwt, proviso.CodeJWTMalformed},

		// What is no set of claims.
		{"payload a list", claims(`["a"]`), jwt, proviso.CodeJWTMalformed},
		{"payload a text", claims(`"a"`), jwt, proviso.CodeJWTMalformed},
		{"payload null", claims(`null`), jwt, proviso.CodeJWTMalformed},
		{"payload with something after it", claims(goodClaims + ` {}`), jwt, proviso.CodeJWTMalformed},
		{"payload with a byte order mark", claims("\uFEFF" + goodClaims), jwt, proviso.CodeJWTMalformed},
		{"payload not UTF-8", claims("{\"sub\":\"\xff\"}"), jwt, proviso.CodeJWTMalformed},
		{"payload with half a surrogate pair", claims(`{"sub":"\ud800"}`), jwt, proviso.CodeJWTMalformed},
		{"payload with a comment", claims(`{"sub":"s"/**/}`), jwt, proviso.CodeJWTMalformed},
		{"payload in UTF-16", claims("\xfe\xff\x00{\x00}"), jwt, proviso.CodeJWTMalformed},
		{"payload nested deeply", claims(`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`), jwt, proviso.CodeJWTMalformed},
		{"payload with an integer beyond 2^53", claims(`{"exp":9223372036854775807}`), jwt, proviso.CodeJWTMalformed},
		{"payload with a number out of range", claims(`{"exp":1e400}`), jwt, proviso.CodeJWTMalformed},
		{"header a list", forged(t, `[]`, goodClaims), jwt, proviso.CodeJWTMalformed},
		{"header nested deeply", header(`{"alg":"ES256","typ":"JWT","x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`), ignoring, proviso.CodeJWTMalformed},
		{"huge", claims(`{"sub":"` + strings.Repeat("a", 1<<20) + `"}`), jwt, proviso.CodeLimitsTokenSize},
		{"over the profile's size", good, jose.Profile{Typ: []string{"JWT"}, MaxBytes: len(good) - 1}, proviso.CodeLimitsTokenSize},

		// The signature itself.
		{"payload of another token", parts[0] + "." + b64(`{"sub":"evil"}`) + "." + parts[2], jwt, proviso.CodeJWTSignature},
		{"header of another token", b64(`{"alg":"ES256","kid":"x","typ":"JWT"}`) + "." + parts[1] + "." + parts[2], jwt, proviso.CodeJWTSignature},
		{"signature one byte short", parts[0] + "." + parts[1] + "." + b64(string(rawBytes(t, parts[2])[:63])), jwt, proviso.CodeJWTSignature},
		{"signature one byte long", parts[0] + "." + parts[1] + "." + b64("\x00"+string(rawBytes(t, parts[2]))), jwt, proviso.CodeJWTSignature},
		{"signature of zeros", parts[0] + "." + parts[1] + "." + b64(string(make([]byte, 64))), jwt, proviso.CodeJWTSignature},
		{"signature in DER", parts[0] + "." + parts[1] + "." + b64(string(derES256(t, parts[0]+"."+parts[1]))), jwt, proviso.CodeJWTSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := check(tt.token, tt.profile, p256().Key())
			if got := codeOf(t, err); got != tt.want {
				t.Errorf("code %q, want %q (%v)", got, tt.want, err)
			}
			if err != nil && (strings.Contains(err.Error(), parts[2]) || strings.Contains(err.Error(), "evil.example") || len(err.Error()) > 400) {
				t.Errorf("the message says too much: %v", err)
			}
		})
	}
}

// otherSpareBits changes the bits that a base64 text's last character has over.
func otherSpareBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[last|1])
}

func rawBytes(t testing.TB, segment string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What stands in a token is what is read, and nothing else is needed.
func TestAccepted(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		profile      jose.Profile
		want         jose.Header
	}{
		{"as GitHub sends it", `{"typ":"JWT","alg":"ES256","x5t":"eBZ_cn3sXYAd0ch4THBKHIgOwOE","kid":"k"}`, jose.Profile{Typ: []string{"JWT"}},
			jose.Header{Alg: jose.ES256, Kid: "k", Typ: "JWT", Ignored: []string{"x5t"}}},
		{"without typ", `{"alg":"ES256"}`, jose.Profile{}, jose.Header{Alg: jose.ES256}},
		{"typ in another case", `{"alg":"ES256","typ":"jwt"}`, jose.Profile{Typ: []string{"", "JWT"}}, jose.Header{Alg: jose.ES256, Typ: "jwt"}},
		{"typ in full", `{"alg":"ES256","typ":"application/AT+jwt"}`, jose.Profile{Typ: []string{"at+jwt"}}, jose.Header{Alg: jose.ES256, Typ: "application/AT+jwt"}},
		{"unknown member ignored", `{"alg":"ES256","env":"prod"}`, jose.Profile{IgnoreUnknown: true}, jose.Header{Alg: jose.ES256, Ignored: []string{"env"}}},
		{"white space and order", " {\n\t\"typ\" : \"JWT\" , \"alg\":\"ES256\"} ", jose.Profile{Typ: []string{"JWT"}}, jose.Header{Alg: jose.ES256, Typ: "JWT"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token, err := jose.Parse(forged(t, tt.header, goodClaims), tt.profile)
			if err != nil {
				t.Fatal(err)
			}
			if err := token.Verify(p256().Key()); err != nil {
				t.Fatal(err)
			}
			got, want := token.Header, tt.want
			if got.Alg != want.Alg || got.Kid != want.Kid || got.Typ != want.Typ || strings.Join(got.Ignored, " ") != strings.Join(want.Ignored, " ") || got.JWK != nil {
				t.Errorf("header %+v, want %+v", got, want)
			}
			if token.Claims.String() != goodClaims {
				t.Errorf("claims %s, want %s", token.Claims, goodClaims)
			}
		})
	}
}

// An ECDSA signature's twin is another spelling of one valid token. It is
// accepted, and has the same identity, so it can't be used a second time.
func TestTwinHasTheSameIdentity(t *testing.T) {
	good := forged(t, goodHeader, goodClaims)
	parts := strings.Split(good, ".")
	sig := rawBytes(t, parts[2])
	s := new(big.Int).SetBytes(sig[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	twin := parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(sig)
	profile := jose.Profile{Typ: []string{"JWT"}}
	var hashes [2][32]byte
	for i, compact := range []string{good, twin} {
		token, err := jose.Parse(compact, profile)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Verify(p256().Key()); err != nil {
			t.Fatal(err)
		}
		hashes[i] = token.SignedHash()
	}
	if good == twin || hashes[0] != hashes[1] {
		t.Error("the twin has another identity")
	}
	if hashes[0] != sha256.Sum256([]byte(parts[0]+"."+parts[1])) {
		t.Error("the identity is not the hash of the signed bytes")
	}
}

// A token must not be verified by a key of the wrong kind, whatever it says.
func TestKeyConfusion(t *testing.T) {
	profile := jose.Profile{Typ: []string{"JWT"}}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := []*jose.Key{p256().Key(), rsa2048().Key(), mustSigner(other, jose.EdDSA).Key()}
	pss, err := jose.NewKey("k", jose.PS256, rsa2048().Key().Public())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*jose.Signer{p256(), rsa2048(), mustSigner(other, jose.EdDSA)} {
		compact, err := s.Sign([]byte(goodClaims))
		if err != nil {
			t.Fatal(err)
		}
		for j, k := range append(keys, pss) {
			err := check(compact, profile, k)
			if (err == nil) != (i == j) {
				t.Errorf("signer %d, key %d: %v", i, j, err)
			}
			if i != j && codeOf(t, err) != proviso.CodeJWTKeyAlgMismatch {
				t.Errorf("signer %d, key %d: %v", i, j, err)
			}
		}
		if codeOf(t, check(compact, profile, nil)) != proviso.CodeJWTUnknownKID {
			t.Error("no key verifies nothing")
		}
	}
}

// Proofs bring their key; nothing else may.
func TestHeaderKey(t *testing.T) {
	profile := jose.Profile{Typ: []string{"dpop+jwt"}, AllowJWK: true}
	bare := p256().Key().BareJWK().String()
	token, err := jose.Parse(forged(t, `{"alg":"ES256","typ":"dpop+jwt","jwk":`+bare+`}`, goodClaims), profile)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Verify(token.Header.JWK); err != nil {
		t.Fatal(err)
	}
	if got, want := token.Header.JWK.Thumbprint(), p256().Key().Thumbprint(); got != want {
		t.Errorf("thumbprint %s, want %s", got, want)
	}
	var private map[string]any
	if err := json.Unmarshal([]byte(bare), &private); err != nil {
		t.Fatal(err)
	}
	private["d"] = "AAAA"
	withPrivate, err := json.Marshal(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		header string
		want   proviso.Code
	}{
		"none":            {`{"alg":"ES256","typ":"dpop+jwt"}`, proviso.CodeJWTMalformed},
		"null":            {`{"alg":"ES256","typ":"dpop+jwt","jwk":null}`, proviso.CodeJWTMalformed},
		"a text":          {`{"alg":"ES256","typ":"dpop+jwt","jwk":"k"}`, proviso.CodeJWTMalformed},
		"private":         {`{"alg":"ES256","typ":"dpop+jwt","jwk":` + string(withPrivate) + `}`, proviso.CodeJWTHeaderNotAllowed},
		"symmetric":       {`{"alg":"ES256","typ":"dpop+jwt","jwk":{"kty":"oct","k":"AAAA"}}`, proviso.CodeJWTHeaderNotAllowed},
		"of another type": {`{"alg":"RS256","typ":"dpop+jwt","jwk":` + bare + `}`, proviso.CodeJWTAlgNotAllowed},
		"member twice":    {`{"alg":"ES256","typ":"dpop+jwt","jwk":{"kty":"EC","kty":"EC"}}`, proviso.CodeJWTDuplicateMember},
	} {
		if _, err := jose.Parse(forged(t, tt.header, goodClaims), profile); codeOf(t, err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}
