package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/internal/document"
)

// vectors reads a file of the vectors that others wrote. They are not part of
// this repository: PROVISO_SHARED names their folder, which lies beside the
// checkout otherwise. Without them the test says so and ends, or fails where
// PROVISO_REQUIRE_SHARED=1 says that they must be there.
func vectors(t *testing.T, path string, into any) bool {
	t.Helper()
	root := os.Getenv("PROVISO_SHARED")
	if root == "" {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				root = filepath.Join(filepath.Dir(dir), "shared")
				break
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				t.Fatal("no go.mod above the test")
			}
			dir = parent
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "vectors", path))
	if err != nil {
		if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
			t.Fatalf("the vectors must be there: %v", err)
		}
		t.Logf("NOT TESTED, vectors are absent: %v", err)
		return false
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
	return true
}

// lenient takes what the vectors have in their headers beside the signature.
var lenient = Profile{Typ: []string{"", "JWT", "JOSE"}, IgnoreUnknown: true}

// verifyBy opens a token of any payload and verifies it by a JWK.
func verifyBy(compact string, jwk document.Value) error {
	alg, _ := jwk.Get("alg").Text()
	allowed := []Alg{Alg(alg)}
	if alg == "" {
		allowed = []Alg{RS256, ES256}
	}
	k, err := keyOf(jwk, allowed)
	if err != nil {
		return err
	}
	token, _, err := open(compact, lenient)
	if err != nil {
		return err
	}
	return token.Verify(k)
}

func parsed(t *testing.T, raw json.RawMessage) document.Value {
	t.Helper()
	if len(raw) == 0 {
		return document.Value{}
	}
	v, err := document.Parse(raw, document.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Where Wycheproof calls a vector valid and Proviso refuses it, with the reason.
// Nothing that it calls invalid is accepted.
var refusedThoughValid = map[string]string{
	"JWS 1":   "HMAC: a shared secret can't tell the issuer from the verifier",
	"JWS 348": "HMAC", "JWS 352": "HMAC",
	"JWS 357": "HMAC", "JWS 358": "HMAC", "JWS 359": "HMAC", "JWS 360": "HMAC",
	"JWS 372": "HMAC, and malformed base64 that is called valid", "JWS 373": "HMAC, and malformed base64 that is called valid",
	"JWS 376": "HMAC", "JWS 377": "HMAC",
	"JWS 346": "the JWK says PS256, the token PS384: a key has one algorithm", "JWS 350": "the JWK says PS256, the token PS384",
	"JWS 347": "the JWK says ES521, which is no algorithm's name", "JWS 351": "the JWK says ES521, which is no algorithm's name",
	"JWK 2": "HMAC, and a set of shared secrets", "JWK 13": "HMAC", "JWK 14": "HMAC", "JWK 15": "HMAC",
}

type wycheproofGroup struct {
	Comment         string
	Public, Private json.RawMessage
	Tests           []struct {
		TcID    int
		Comment string
		JWS     json.RawMessage
		Result  string
	}
}

func TestWycheproofSignatures(t *testing.T) {
	var file struct{ TestGroups []wycheproofGroup }
	if !vectors(t, "wycheproof/json_web_signature_test.json", &file) {
		return
	}
	used, n := map[string]bool{}, 0
	for _, g := range file.TestGroups {
		jwk := parsed(t, g.Public)
		if jwk.IsAbsent() {
			jwk = parsed(t, g.Private) // a shared secret
		}
		for _, tt := range g.Tests {
			n++
			name := fmt.Sprint("JWS ", tt.TcID)
			var compact string
			if err := json.Unmarshal(tt.JWS, &compact); err != nil {
				compact = string(tt.JWS) // JSON serialisation
			}
			judge(t, name+" "+g.Comment+" "+tt.Comment, name, tt.Result, verifyBy(compact, jwk), used)
		}
	}
	allUsed(t, "JWS", used)
	t.Logf("%d vectors", n)
}

func TestWycheproofKeys(t *testing.T) {
	var file struct{ TestGroups []wycheproofGroup }
	if !vectors(t, "wycheproof/json_web_key_test.json", &file) {
		return
	}
	used := map[string]bool{}
	for _, g := range file.TestGroups {
		set := g.Public
		if len(set) == 0 {
			set = g.Private
		}
		for _, tt := range g.Tests {
			var compact string
			if err := json.Unmarshal(tt.JWS, &compact); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprint("JWK ", tt.TcID)
			judge(t, name+" "+g.Comment+" "+tt.Comment, name, tt.Result, verifyBySet(compact, set), used)
		}
	}
	allUsed(t, "JWK", used)
}

func verifyBySet(compact string, data []byte) error {
	set, err := ParseKeySet(data, []Alg{RS256, ES256, ES384, ES512, EdDSA})
	if err != nil {
		return err
	}
	token, _, err := open(compact, lenient)
	if err != nil {
		return err
	}
	k, err := set.Find(token.Header.Kid, token.Header.Alg)
	if err != nil {
		return err
	}
	return token.Verify(k)
}

func judge(t *testing.T, title, name, want string, err error, used map[string]bool) {
	t.Helper()
	reason, known := refusedThoughValid[name]
	switch {
	case want == "invalid" && err == nil:
		t.Errorf("%s: accepted", title)
	case want == "valid" && err != nil && !known:
		t.Errorf("%s: refused: %v", title, err)
	case want == "valid" && err == nil && known:
		t.Errorf("%s: accepted, though the table says %q", title, reason)
	case known:
		used[name] = true
	}
}

func allUsed(t *testing.T, kind string, used map[string]bool) {
	t.Helper()
	for name := range refusedThoughValid {
		if strings.HasPrefix(name, kind+" ") && !used[name] {
			t.Errorf("%s is in the table without need", name)
		}
	}
}

// The signature schemes themselves, in the form that JWS gives them.
func TestWycheproofPrimitives(t *testing.T) {
	for file, alg := range map[string]Alg{
		"ecdsa_secp256r1_sha256_p1363_test.json": ES256,
		"ecdsa_secp384r1_sha384_p1363_test.json": ES384,
		"ecdsa_secp521r1_sha512_p1363_test.json": ES512,
		"ed25519_test.json":                      EdDSA,
		"rsa_signature_2048_sha256_test.json":    RS256,
		"rsa_signature_3072_sha256_test.json":    RS256,
		"rsa_signature_4096_sha256_test.json":    RS256,
		"rsa_signature_4096_sha512_test.json":    RS512,
		"rsa_pss_2048_sha256_mgf1_32_test.json":  PS256,
		"rsa_pss_2048_sha384_mgf1_48_test.json":  PS384,
		"rsa_pss_4096_sha512_mgf1_64_test.json":  PS512,
	} {
		var f struct {
			TestGroups []struct {
				PublicKeyJWK, PublicKeyJwk json.RawMessage
				PublicKey                  struct{ Modulus, PublicExponent, Uncompressed, Pk string }
				Tests                      []struct {
					TcID              int
					Comment, Msg, Sig string
					Result            string
					Flags             []string
				}
			}
		}
		if !vectors(t, "wycheproof/"+file, &f) {
			return
		}
		n, refused := 0, 0
		for _, g := range f.TestGroups {
			k, err := primitiveKey(alg, g.PublicKey.Modulus, g.PublicKey.PublicExponent, g.PublicKey.Uncompressed, g.PublicKey.Pk)
			for _, tt := range g.Tests {
				n++
				if err != nil {
					refused++ // a key that is not taken accepts nothing
					continue
				}
				msg, sig := unhex(t, tt.Msg), unhex(t, tt.Sig)
				token := &Token{Header: Header{Alg: alg}, signed: msg, sig: sig}
				token.hash = sum256(msg)
				got := token.Verify(k)
				// "acceptable" are RSA signatures with sloppy padding.
				if want := tt.Result == "valid"; (got == nil) != want {
					t.Errorf("%s %d (%s %v, %s): %v", file, tt.TcID, tt.Comment, tt.Flags, tt.Result, got)
				}
			}
		}
		t.Logf("%s: %d vectors, %d of them under keys that are not taken", file, n, refused)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 7520 and RFC 8037: what they sign with public keys is verified; what they
// do otherwise (HMAC, detached, JSON, unencoded, encrypted) is refused.
func TestCookbook(t *testing.T) {
	type example struct {
		Input struct {
			Key json.RawMessage
			Alg json.RawMessage
		}
		Output struct{ Compact string }
	}
	for file, accepted := range map[string]bool{
		"jws/4_1.rsa_v15_signature.json":                 true,
		"jws/4_2.rsa-pss_signature.json":                 true,
		"jws/4_3.ecdsa_signature.json":                   true,
		"curve25519/jws.json":                            true,
		"jws/4_4.hmac-sha2_integrity_protection.json":    false,
		"jws/4_5.signature_with_detached_content.json":   false,
		"jws/4_6.protecting_specific_header_fields.json": false,
		"jws/4_7.protecting_content_only.json":           false,
		"rfc7797/4.2.hmac-sha2_b64_false.json":           false,
		"jwe/5_9.compressed_content.json":                false,
		"jwe/5_6.direct_encryption_using_aes-gcm.json":   false,
		"6.nesting_signatures_and_encryption.json":       false,
	} {
		var e example
		if !vectors(t, "jose-cookbook/"+file, &e) {
			return
		}
		if !accepted {
			if _, _, err := open(e.Output.Compact, lenient); err == nil {
				t.Errorf("%s: opened", file)
			}
			continue
		}
		jwk := parsed(t, e.Input.Key).With(document.Member("d", document.Value{}))
		token, payload, err := open(e.Output.Compact, lenient)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		k, err := keyOf(jwk, []Alg{token.Header.Alg})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := token.Verify(k); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := readObject(payload, "payload"); err == nil {
			t.Errorf("%s: its text is taken for claims", file)
		}
	}
}

// primitiveKey makes a key of Wycheproof's hexadecimal parts.
func primitiveKey(alg Alg, modulus, exponent, uncompressed, pk string) (*Key, error) {
	raw := func(h string) []byte {
		b, err := hex.DecodeString(h)
		if err != nil {
			panic(err)
		}
		return b
	}
	switch {
	case modulus != "":
		return NewKey("", alg, &rsa.PublicKey{N: new(big.Int).SetBytes(raw(modulus)), E: int(new(big.Int).SetBytes(raw(exponent)).Int64())})
	case uncompressed != "":
		curve := map[Alg]elliptic.Curve{ES256: elliptic.P256(), ES384: elliptic.P384(), ES512: elliptic.P521()}[alg]
		pub, err := ecdsa.ParseUncompressedPublicKey(curve, raw(uncompressed))
		if err != nil {
			return nil, err
		}
		return NewKey("", alg, pub)
	}
	return NewKey("", alg, ed25519.PublicKey(raw(pk)))
}

func sum256(b []byte) [32]byte { return sha256.Sum256(b) }
