package jose_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

var allAlgs = []jose.Alg{jose.RS256, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// member gives a key's JWK with members set, or removed where the value is "".
func jwkWith(k *jose.Key, changes ...string) string {
	v := k.JWK().String()
	for i := 0; i+1 < len(changes); i += 2 {
		v = setMember(v, changes[i], changes[i+1])
	}
	return v
}

// setMember works on the text, so that it can write what no JSON writer would.
func setMember(object, name, value string) string {
	if at := strings.Index(object, `"`+name+`":`); at >= 0 {
		end := at + len(name) + 3
		if object[end] == '"' {
			end += strings.IndexByte(object[end+1:], '"') + 2
		}
		object = strings.Replace(object[:at]+object[end:], ",}", "}", 1)
		object = strings.Replace(strings.Replace(object, "{,", "{", 1), ",,", ",", 1)
	}
	if value == "" {
		return object
	}
	return object[:len(object)-1] + `,"` + name + `":` + value + "}"
}

func setOf(jwks ...string) []byte { return []byte(`{"keys":[` + strings.Join(jwks, ",") + `]}`) }

// What condemns a whole set, and what must not.
func TestKeySetRefusals(t *testing.T) {
	ec, rs := p256().Key(), rsa2048().Key()
	second := jwkWith(ec, "kid", `"k2"`)
	for _, tt := range []struct {
		name string
		set  []byte
		want proviso.Code
	}{
		{"private EC key", setOf(jwkWith(ec, "d", `"AAAA"`)), proviso.CodeJWKSPrivateKey},
		{"private RSA key", setOf(jwkWith(rs, "p", `"AAAA"`)), proviso.CodeJWKSPrivateKey},
		{"private key for encryption", setOf(second, jwkWith(ec, "use", `"enc"`, "d", `"AAAA"`)), proviso.CodeJWKSPrivateKey},
		{"private member null", setOf(jwkWith(ec, "d", `null`)), proviso.CodeJWKSPrivateKey},
		{"symmetric key", setOf(second, `{"kty":"oct","kid":"s","k":"AAAA"}`), proviso.CodeJWKSPrivateKey},
		{"one kid twice", setOf(jwkWith(ec), jwkWith(rs)), proviso.CodeJWKSDuplicateKID},
		{"one key twice", setOf(jwkWith(ec), jwkWith(ec)), proviso.CodeJWKSDuplicateKID},
		{"one kid twice, once not usable", setOf(jwkWith(ec, "use", `"enc"`), jwkWith(rs)), proviso.CodeJWKSDuplicateKID},
		{"too many keys", setOf(strings.Split(strings.Repeat(second+"|", 64)+second, "|")...), proviso.CodeJWKSTooManyKeys},
		{"no keys member", []byte(`{"Keys":[]}`), jose.CodeJWKSMalformed},
		{"keys not a list", []byte(`{"keys":{}}`), jose.CodeJWKSMalformed},
		{"a key that is no object", []byte(`{"keys":["k"]}`), jose.CodeJWKSMalformed},
		{"a single key", []byte(jwkWith(ec)), jose.CodeJWKSMalformed},
		{"keys twice", []byte(`{"keys":[],"keys":[]}`), jose.CodeJWKSMalformed},
		{"a key's member twice", setOf(`{"kty":"EC","kty":"RSA"}`), jose.CodeJWKSMalformed},
		{"not JSON", []byte("<html>"), jose.CodeJWKSMalformed},
		{"empty", nil, jose.CodeJWKSMalformed},
		{"truncated", setOf(second)[:60], jose.CodeJWKSMalformed},
		{"two documents", append(setOf(second), setOf()...), jose.CodeJWKSMalformed},
		{"huge", setOf(jwkWith(ec, "x5c", `["`+strings.Repeat("A", jose.MaxSetBytes)+`"]`)), jose.CodeJWKSMalformed},
		{"nested deeply", setOf(jwkWith(ec, "x", strings.Repeat("[", 500)+strings.Repeat("]", 500))), jose.CodeJWKSMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if set, err := jose.ParseKeySet(tt.set, allAlgs); codeOf(t, err) != tt.want || set != nil {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	if set, err := jose.ParseKeySet(setOf(), allAlgs); err != nil || len(set.Keys()) != 0 {
		t.Errorf("a set that withdraws all keys is a set: %v", err)
	}
}

// The leaked key is named, so that it stays out of use when the set is cleaned.
func TestLeakedKeyIsNamed(t *testing.T) {
	_, err := jose.ParseKeySet(setOf(jwkWith(p256().Key(), "d", `"AAAA"`), `{"kty":"oct","k":"AAAA"}`), allAlgs)
	var e *jose.Error
	if !errors.As(err, &e) || len(e.Leaked) != 1 || e.Leaked[0] != p256().Key().Thumbprint() {
		t.Errorf("leaked %+v", err)
	}
}

// A key that can't be used is left out; the token that names it hears why, and
// the others go on.
func TestKeysLeftOut(t *testing.T) {
	ec, rs := p256().Key(), rsa2048().Key()
	encode := func(b []byte) string { return `"` + base64.RawURLEncoding.EncodeToString(b) + `"` }
	n := func(change func(*big.Int)) string {
		v := new(big.Int).SetBytes(rawBytes(t, textOf(t, rs, "n")))
		change(v)
		return encode(v.Bytes())
	}
	x := rawBytes(t, textOf(t, ec, "x"))
	for _, tt := range []struct {
		name, jwk string
		want      proviso.Code
	}{
		{"use enc", jwkWith(ec, "use", `"enc"`), proviso.CodeJWTKeyUse},
		{"use of another kind", jwkWith(ec, "use", `"jwt-svid"`), proviso.CodeJWTKeyUse},
		{"key_ops encrypt", jwkWith(ec, "key_ops", `["encrypt"]`), proviso.CodeJWTKeyUse},
		{"key_ops sign", jwkWith(ec, "key_ops", `["sign"]`), proviso.CodeJWTKeyUse},
		{"key_ops empty", jwkWith(ec, "key_ops", `[]`), proviso.CodeJWTKeyUse},
		{"key_ops a text", jwkWith(ec, "key_ops", `"verify"`), proviso.CodeJWKSKeyRejected},
		{"key_ops twice", jwkWith(ec, "key_ops", `["verify","verify"]`), proviso.CodeJWKSKeyRejected},
		{"key_ops of numbers", jwkWith(ec, "key_ops", `[1]`), proviso.CodeJWKSKeyRejected},
		{"use a number", jwkWith(ec, "use", `1`), proviso.CodeJWKSKeyRejected},
		{"another algorithm", jwkWith(rs, "alg", `"RS512"`), proviso.CodeJWTAlgNotAllowed},
		{"algorithm for encryption", jwkWith(rs, "alg", `"RSA-OAEP"`), proviso.CodeJWTAlgNotAllowed},
		{"HMAC on an RSA key", jwkWith(rs, "alg", `"HS256"`), proviso.CodeJWTAlgNotAllowed},
		{"algorithm of another curve", jwkWith(ec, "alg", `"ES384"`), proviso.CodeJWTKeyAlgMismatch},
		{"algorithm of another type", jwkWith(ec, "alg", `"RS256"`), proviso.CodeJWTKeyAlgMismatch},
		{"alg null", jwkWith(ec, "alg", `null`), proviso.CodeJWKSKeyRejected},
		{"kty absent", jwkWith(ec, "kty", ""), proviso.CodeJWKSKeyRejected},
		{"kty of another type", jwkWith(ec, "kty", `"RSA"`), proviso.CodeJWKSKeyRejected},
		{"kty in another case", jwkWith(ec, "kty", `"ec"`), proviso.CodeJWKSKeyRejected},
		{"kty unknown", jwkWith(ec, "kty", `"AKP"`), proviso.CodeJWKSKeyRejected},
		{"curve absent", jwkWith(ec, "crv", ""), proviso.CodeJWKSKeyRejected},
		{"curve secp256k1", jwkWith(ec, "crv", `"secp256k1"`), proviso.CodeJWKSKeyRejected},
		{"curve Ed448", `{"kty":"OKP","crv":"Ed448","x":"AAAA","kid":"k"}`, proviso.CodeJWKSKeyRejected},
		{"curve X25519", `{"kty":"OKP","crv":"X25519","x":` + encode(make([]byte, 32)) + `,"kid":"k"}`, proviso.CodeJWKSKeyRejected},
		{"Ed25519 too short", `{"kty":"OKP","crv":"Ed25519","x":` + encode(make([]byte, 31)) + `,"kid":"k"}`, proviso.CodeJWKSKeyRejected},
		{"point not on the curve", jwkWith(ec, "y", encode(x)), proviso.CodeJWKSKeyRejected},
		{"coordinate too short", jwkWith(ec, "x", encode(x[1:])), proviso.CodeJWKSKeyRejected},
		{"coordinate too long", jwkWith(ec, "x", encode(append([]byte{0}, x...))), proviso.CodeJWKSKeyRejected},
		{"coordinate absent", jwkWith(ec, "y", ""), proviso.CodeJWKSKeyRejected},
		{"coordinate padded", jwkWith(ec, "x", `"`+textOf(t, ec, "x")+`="`), proviso.CodeJWKSKeyRejected},
		{"coordinate a number", jwkWith(ec, "x", `5`), proviso.CodeJWKSKeyRejected},
		{"point at infinity", jwkWith(ec, "x", encode(make([]byte, 32)), "y", encode(make([]byte, 32))), proviso.CodeJWKSKeyRejected},
		{"RSA of 1024 bits", jwkWith(rs, "n", n(func(v *big.Int) { v.Rsh(v, 1024).SetBit(v, 0, 1) })), proviso.CodeJWKSKeyRejected},
		{"RSA of 2047 bits", jwkWith(rs, "n", n(func(v *big.Int) { v.SetBit(v, 2047, 0) })), proviso.CodeJWKSKeyRejected},
		{"RSA of 16384 bits", jwkWith(rs, "n", encode(bytes.Repeat([]byte{0xff}, 2048))), proviso.CodeJWKSKeyRejected},
		{"RSA with an even modulus", jwkWith(rs, "n", n(func(v *big.Int) { v.SetBit(v, 0, 0) })), proviso.CodeJWKSKeyRejected},
		{"RSA with a small factor", jwkWith(rs, "n", n(func(v *big.Int) { v.Mul(v, big.NewInt(3)) })), proviso.CodeJWKSKeyRejected},
		{"RSA of a generator that leaves a mark (ROCA)", jwkWith(rs, "n", n(roca)), proviso.CodeJWKSKeyRejected},
		{"RSA n with a zero octet", jwkWith(rs, "n", encode(append([]byte{0}, rawBytes(t, textOf(t, rs, "n"))...))), proviso.CodeJWKSKeyRejected},
		{"RSA exponent 1", jwkWith(rs, "e", encode([]byte{1})), proviso.CodeJWKSKeyRejected},
		{"RSA exponent 3", jwkWith(rs, "e", encode([]byte{3})), proviso.CodeJWKSKeyRejected},
		{"RSA exponent even", jwkWith(rs, "e", encode([]byte{1, 0, 0})), proviso.CodeJWKSKeyRejected},
		{"RSA exponent of 2^31", jwkWith(rs, "e", encode([]byte{0x80, 0, 0, 1})), proviso.CodeJWKSKeyRejected},
		{"RSA exponent of five bytes", jwkWith(rs, "e", encode([]byte{1, 0, 0, 0, 1})), proviso.CodeJWKSKeyRejected},
		{"RSA exponent absent", jwkWith(rs, "e", ""), proviso.CodeJWKSKeyRejected},
		{"kid too long", jwkWith(ec, "kid", `"`+strings.Repeat("k", 257)+`"`), proviso.CodeJWTUnknownKID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := jose.ParseKeySet(setOf(tt.jwk, jwkWith(ec, "kid", `"other"`)), allAlgs)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := set.Find("k", jose.ES256); codeOf(t, err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if _, err := set.Find("other", jose.ES256); err != nil || len(set.Keys()) != 1 || len(set.Problems()) != 1 {
				t.Errorf("the other key must go on: %v, %v", err, set.Problems())
			}
		})
	}
}

// roca gives a modulus the mark of CVE-2017-15361: it is a power of 65537 modulo
// the product of the first 39 primes.
func roca(v *big.Int) {
	product := big.NewInt(1)
	for p := int64(2); p <= 167; p++ {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	v.Sub(v, new(big.Int).Mod(v, product))
	v.Add(v, new(big.Int).Exp(big.NewInt(65537), big.NewInt(1_000_003), product))
}

// A key that another document names is read as strictly.
func TestParseJWK(t *testing.T) {
	ec := p256().Key()
	if k, err := jose.ParseJWK(ec.JWK()); err != nil || k.Thumbprint() != ec.Thumbprint() {
		t.Errorf("a good key: %v", err)
	}
	for text, want := range map[string]proviso.Code{
		`"a text"`:                 proviso.CodeJWKSKeyRejected,
		`{}`:                       proviso.CodeJWKSKeyRejected,
		jwkWith(ec, "d", `"AAAA"`): proviso.CodeJWKSPrivateKey,
		jwkWith(ec, "y", ""):       proviso.CodeJWKSKeyRejected,
	} {
		doc, err := document.Parse([]byte(text), document.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jose.ParseJWK(doc); codeOf(t, err) != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func textOf(t testing.TB, k *jose.Key, name string) string {
	t.Helper()
	s, ok := k.JWK().Get(name).Text()
	if !ok {
		t.Fatalf("no member %s", name)
	}
	return s
}

// A token names its key, and the key its algorithm.
func TestFind(t *testing.T) {
	ec, rs := p256().Key(), rsa2048().Key()
	set, err := jose.ParseKeySet(setOf(jwkWith(ec, "kid", `"a"`), jwkWith(rs, "kid", `"b"`, "alg", ""), jwkWith(ec, "kid", "")), allAlgs)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := set.Find("b", jose.RS256); err != nil || k.Alg() != jose.RS256 || k.KeyID() != "b" {
		t.Errorf("the one allowed algorithm that fits is the key's: %v", err)
	}
	for _, tt := range []struct {
		kid  string
		alg  jose.Alg
		want proviso.Code
	}{
		{"", jose.ES256, proviso.CodeJWTKIDMissing},
		{"A", jose.ES256, proviso.CodeJWTUnknownKID},
		{"a ", jose.ES256, proviso.CodeJWTUnknownKID},
		{"a", jose.RS256, proviso.CodeJWTKeyAlgMismatch},
		{"b", jose.PS256, proviso.CodeJWTKeyAlgMismatch},
		{"b", jose.RS512, proviso.CodeJWTKeyAlgMismatch},
	} {
		if _, err := set.Find(tt.kid, tt.alg); codeOf(t, err) != tt.want {
			t.Errorf("%q %s: %v, want %s", tt.kid, tt.alg, err, tt.want)
		}
	}
	// Without a kid: two keys for ES256, so none; one for RS256; none for EdDSA.
	for alg, want := range map[jose.Alg]proviso.Code{jose.ES256: proviso.CodeJWTKIDMissing, jose.RS256: "", jose.EdDSA: proviso.CodeJWTUnknownKID} {
		if _, err := set.Sole(alg); codeOf(t, err) != want {
			t.Errorf("sole %s: %v, want %q", alg, err, want)
		}
	}
	// A key without alg that could be used with two has none.
	set, err = jose.ParseKeySet(setOf(jwkWith(rs, "alg", "")), []jose.Alg{jose.RS256, jose.PS256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Find("k", jose.RS256); codeOf(t, err) != proviso.CodeJWKSKeyRejected {
		t.Errorf("%v", err)
	}
	if _, err := jose.NewKeySet(ec, ec); codeOf(t, err) != proviso.CodeJWKSDuplicateKID {
		t.Errorf("%v", err)
	}
}

// What is published is what was meant, and can be read again.
func TestPublish(t *testing.T) {
	var keys []*jose.Key
	for i, s := range []*jose.Signer{p256(), rsa2048(), mustSigner(ecKey(t, elliptic.P384()), jose.ES384), mustSigner(ecKey(t, elliptic.P521()), jose.ES512)} {
		k, err := jose.NewKey(fmt.Sprint("key-", i), s.Key().Alg(), s.Key().Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	set, err := jose.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := jose.ParseKeySet(set.AppendJSON(nil), []jose.Alg{jose.RS256, jose.ES256, jose.ES384, jose.ES512})
	if err != nil || len(again.Problems()) > 0 {
		t.Fatal(err, again.Problems())
	}
	for _, k := range keys {
		found, err := again.Find(k.KeyID(), k.Alg())
		if err != nil || !found.Equal(k) || found.Thumbprint() != k.Thumbprint() {
			t.Errorf("%s: %v", k.KeyID(), err)
		}
	}
}

// The thumbprint of RFC 7638 section 3.1 and of RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	for want, jwk := range map[string]string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"2011-04-29"}`,
	} {
		set, err := jose.ParseKeySet(setOf(jwk), allAlgs)
		if err != nil || len(set.Keys()) != 1 {
			t.Fatal(err, set.Problems())
		}
		if got := set.Keys()[0].Thumbprint(); got != want {
			t.Errorf("thumbprint %s, want %s", got, want)
		}
	}
}

// In the flow an error keeps its code, its sentence, and its cause apart.
func TestRefusal(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.1:443")
	r := jose.Refusal(fmt.Errorf("wrapped: %w", &jose.Error{Code: proviso.CodeDiscoveryUnavailable, Msg: "for people", Err: cause}), proviso.StageJob, "other")
	if r.Code != proviso.CodeDiscoveryUnavailable || r.Public != "for people" || r.Stage != proviso.StageJob || !errors.Is(r, cause) {
		t.Errorf("%+v", r)
	}
	r = jose.Refusal(cause, proviso.StageJob, "other")
	if r.Code != "other" || strings.Contains(r.Public, "10.0.0.1") || !errors.Is(r, cause) {
		t.Errorf("%+v", r)
	}
}
