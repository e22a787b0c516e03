package jose_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	gojose "github.com/go-jose/go-jose/v4"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

var edPrivate = ed25519.NewKeyFromSeed(make([]byte, 32))

var seeds = []struct{ header, payload string }{
	{`{"alg":"EdDSA","kid":"k","typ":"JWT"}`, githubLike},
	{`{"alg":"EdDSA"}`, `{}`},
	{`{"typ":"JWT","alg":"EdDSA","x5t":"eBZ_","kid":"k"}`, `{"exp":1790000300,"iat":1790000000,"aud":["a","b"],"n":-0,"f":1.5e3,"t":"é\u0000\ud83d\ude00"}`},
	{`{"alg":"EdDSA","ALG":"none"}`, `{"sub":"good","ſub":"evil"}`},
	{`{"alg":"none"}`, `{"a":{"b":[null,true,false,{"c":1e-7}]}}`},
	{`{"alg":"EdDSA","crit":["b64"],"b64":false}`, `{"sub":"a","sub":"b"}`},
	{`{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}`, `[1]`},
}

// FuzzParse: whatever a stranger sends, Parse ends, without panic, with a token
// or with an error of its own that shows nothing of the token's content.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add(b64(s.header) + "." + b64(s.payload) + "." + b64("signature"))
	}
	f.Add("..")
	f.Add("a.b.c.d.e")
	f.Fuzz(func(t *testing.T, compact string) {
		token, err := jose.Parse(compact, jose.Profile{Typ: []string{"", "JWT"}, AllowJWK: strings.HasSuffix(compact, "w")})
		if err != nil {
			var e *jose.Error
			if !errors.As(err, &e) || e.Code == "" || e.Msg == "" || len(e.Msg) > 500 {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !token.Header.Alg.Known() || token.Claims.Kind() != document.Object {
			t.Fatalf("parsed %+v", token)
		}
		// One spelling: what was taken is what its parts are written as.
		parts := strings.Split(compact, ".")
		for _, p := range parts {
			raw, err := base64.RawURLEncoding.DecodeString(p)
			if err != nil || base64.RawURLEncoding.EncodeToString(raw) != p {
				t.Fatalf("another spelling of %q was taken", p)
			}
		}
	})
}

// FuzzKeySet: whatever an issuer publishes, only keys come out that can be
// written and read again as the same keys, under different names.
func FuzzKeySet(f *testing.F) {
	k, err := jose.NewKey("k", jose.EdDSA, edPrivate.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(setOf(k.JWK().String()))
	f.Add(setOf(p256().Key().JWK().String(), `{"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"}`))
	f.Add(setOf(`{"kty":"oct","k":"AA"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := jose.ParseKeySet(data, allAlgs)
		if err != nil {
			return
		}
		again, err := jose.ParseKeySet(set.AppendJSON(nil), allAlgs)
		if err != nil || len(again.Keys()) != len(set.Keys()) {
			t.Fatalf("%v: %d keys of %d can be read again", err, len(again.Keys()), len(set.Keys()))
		}
		for i, k := range set.Keys() {
			if !again.Keys()[i].Equal(k) || again.Keys()[i].Alg() != k.Alg() {
				t.Fatalf("key %d is another one when read again", i)
			}
		}
	})
}

// FuzzDifferential signs what the fuzzer invents and asks three libraries too.
//
// What Proviso accepts, each library must accept as the same signed bytes, and
// must read the same claims out of. The other direction is the point of this
// package and no error: the libraries accept duplicate and ambiguous members
// (golang-jwt, jwx), bytes after the claims (jwx), unknown and dangerous header
// members, any typ, payloads that are no claims (go-jose, jwx as JWS),
// integers beyond 2^53, and invalid UTF-8; TestRefusals has a row for each.
func FuzzDifferential(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s.header), []byte(s.payload))
	}
	key, err := jose.NewKey("k", jose.EdDSA, edPrivate.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header, payload []byte) {
		signed := b64(string(header)) + "." + b64(string(payload))
		compact := signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(edPrivate, []byte(signed)))
		token, err := jose.Parse(compact, jose.Profile{Typ: []string{"", "JWT"}, IgnoreUnknown: true})
		if err != nil {
			return
		}
		if err := token.Verify(key); err != nil {
			if token.Header.Alg == jose.EdDSA {
				t.Fatalf("its own signature is refused: %v", err)
			}
			return
		}
		ours := canonical(t, token.Claims.String())
		for name, read := range map[string]func(string, crypto.PublicKey) ([]byte, error){"go-jose": readGoJose, "jwx": readJWX, "golang-jwt": readGolangJWT} {
			theirs, err := read(compact, edPrivate.Public())
			if err != nil {
				t.Fatalf("%s refuses %s %s: %v", name, header, payload, err)
			}
			if got := canonical(t, string(theirs)); got != ours {
				t.Fatalf("%s reads %s, Proviso %s", name, got, ours)
			}
		}
	})
}

// canonical is how encoding/json, a reader of its own, understands a text.
func canonical(t *testing.T, text string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	positiveZero(v)
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// positiveZero writes 0 for -0: as numbers they are equal, and canonical JSON has
// no other way.
func positiveZero(v any) any {
	switch v := v.(type) {
	case float64:
		if v == 0 {
			return 0.0
		}
	case map[string]any:
		for name, member := range v {
			v[name] = positiveZero(member)
		}
	case []any:
		for i, item := range v {
			v[i] = positiveZero(item)
		}
	}
	return v
}

func readGoJose(compact string, key crypto.PublicKey) ([]byte, error) {
	object, err := gojose.ParseSignedCompact(compact, []gojose.SignatureAlgorithm{gojose.EdDSA})
	if err != nil {
		return nil, err
	}
	return object.Verify(key)
}

func readJWX(compact string, key crypto.PublicKey) ([]byte, error) {
	return jws.Verify([]byte(compact), jws.WithKey(jwa.EdDSA(), key))
}

func readGolangJWT(compact string, key crypto.PublicKey) ([]byte, error) {
	claims := gojwt.MapClaims{}
	parser := gojwt.NewParser(gojwt.WithValidMethods([]string{"EdDSA"}), gojwt.WithoutClaimsValidation(), gojwt.WithStrictDecoding())
	if _, err := parser.ParseWithClaims(compact, claims, func(*gojwt.Token) (any, error) { return key, nil }); err != nil {
		return nil, err
	}
	return json.Marshal(claims)
}
