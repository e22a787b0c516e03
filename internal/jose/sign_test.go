package jose_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/internal/jose"
)

func rsaKeyOrDie(bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

func mustSigner(key crypto.Signer, alg jose.Alg) *jose.Signer {
	s, err := jose.NewSigner(key, alg, "k", "JWT", false)
	if err != nil {
		panic(err)
	}
	return s
}

var p256Private = func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}()

// rawES256 signs by hand, beside the code under test.
func rawES256(t testing.TB, signed string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, p256Private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig
}

func derES256(t testing.TB, signed string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(signed))
	der, err := ecdsa.SignASN1(rand.Reader, p256Private, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Every algorithm: what is signed is verified, what was changed is not.
func TestSignAndVerify(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	private := rsaKey(t)
	for alg, key := range map[jose.Alg]crypto.Signer{
		jose.RS256: private, jose.RS384: private, jose.RS512: private, jose.PS256: private, jose.PS384: private, jose.PS512: private,
		jose.ES256: ecKey(t, elliptic.P256()), jose.ES384: ecKey(t, elliptic.P384()), jose.ES512: ecKey(t, elliptic.P521()), jose.EdDSA: ed,
	} {
		s, err := jose.NewSigner(key, alg, "kid-1", "at+jwt", false)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // an ECDSA integer is short once in 128
			compact, err := s.Sign([]byte(goodClaims))
			if err != nil {
				t.Fatal(err)
			}
			token, err := jose.Parse(compact, jose.Profile{Typ: []string{"at+jwt"}})
			if err != nil {
				t.Fatal(err)
			}
			if token.Header.Kid != "kid-1" || token.Header.Alg != alg || token.Claims.String() != goodClaims {
				t.Fatalf("%s: read back %+v %s", alg, token.Header, token.Claims)
			}
			if err := token.Verify(s.Key()); err != nil {
				t.Fatalf("%s: %v", alg, err)
			}
			at := strings.LastIndexByte(compact, '.') + 5
			changed := compact[:at] + string(compact[at]^1) + compact[at+1:]
			if other, err := jose.Parse(changed, jose.Profile{Typ: []string{"at+jwt"}}); err == nil && other.Verify(s.Key()) == nil {
				t.Fatalf("%s: a changed signature is accepted", alg)
			}
		}
	}
}

func TestSignerWithKeyInHeader(t *testing.T) {
	s, err := jose.NewSigner(p256Private, jose.ES256, "", "dpop+jwt", true)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := s.Sign([]byte(goodClaims))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jose.Parse(compact, jose.Profile{Typ: []string{"dpop+jwt"}, AllowJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Verify(token.Header.JWK); err != nil {
		t.Fatal(err)
	}
	if !token.Header.JWK.Equal(s.Key()) || token.Header.Kid != "" {
		t.Errorf("header %+v", token.Header)
	}
}

// brokenSigner is a key in hardware that misbehaves.
type brokenSigner struct {
	public crypto.PublicKey
	sig    []byte
	err    error
}

func (b brokenSigner) Public() crypto.PublicKey { return b.public }
func (b brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return b.sig, b.err
}

// A signature that isn't one never leaves.
func TestBrokenSigningKey(t *testing.T) {
	der := derES256(t, "x")
	long := append([]byte{0x30, 0x46, 2, 33, 1}, bytes.Repeat([]byte{1}, 32)...)
	long = append(append(long, 2, 33, 1), bytes.Repeat([]byte{1}, 32)...)
	negative := []byte{0x30, 6, 2, 1, 0xff, 2, 1, 1}
	for name, b := range map[string]brokenSigner{
		"error":         {p256Private.Public(), nil, errors.New("the card is gone")},
		"empty":         {p256Private.Public(), nil, nil},
		"not DER":       {p256Private.Public(), make([]byte, 64), nil},
		"trailing byte": {p256Private.Public(), append(bytes.Clone(der), 0), nil},
		"too long":      {p256Private.Public(), long, nil},
		"negative":      {p256Private.Public(), negative, nil},
		"RSA too short": {rsa2048().Key().Public(), make([]byte, 255), nil},
	} {
		alg := jose.ES256
		if _, ok := b.public.(*rsa.PublicKey); ok {
			alg = jose.RS256
		}
		if token, err := jose.Sign(b, alg, "k", "JWT", []byte(goodClaims)); err == nil || token != "" {
			t.Errorf("%s: signed %q", name, token)
		}
	}
}

func TestSignerRefusals(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key crypto.Signer
		alg jose.Alg
	}{
		"no key":          {nil, jose.ES256},
		"weak RSA":        {small, jose.RS256},
		"another curve":   {ecKey(t, elliptic.P384()), jose.ES256},
		"P-224":           {ecKey(t, elliptic.P224()), jose.ES256},
		"another type":    {p256Private, jose.EdDSA},
		"none":            {p256Private, "none"},
		"HMAC":            {p256Private, "HS256"},
		"exponent of two": {fixedKey{&rsa.PublicKey{N: rsaKey(t).N, E: 2}}, jose.RS256},
		"exponent 3":      {fixedKey{&rsa.PublicKey{N: rsaKey(t).N, E: 3}}, jose.RS256},
		"even modulus":    {fixedKey{&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}}, jose.RS256},
		"huge modulus":    {fixedKey{&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}}, jose.RS256},
		"something else":  {fixedKey{"a text"}, jose.RS256},
	} {
		if _, err := jose.NewSigner(tt.key, tt.alg, "k", "JWT", false); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// fixedKey is a signing key of which only the public half matters.
type fixedKey struct{ public crypto.PublicKey }

func (f fixedKey) Public() crypto.PublicKey { return f.public }
func (f fixedKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("unused")
}
