package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
)

// Key is a signing key with the name under which a key set lists it. The lab
// signs with crypto/* directly and shares no code with Proviso's verifier: two
// readings of RFC 7515 have to agree.
type Key struct {
	ID     string
	Alg    string // RS256, ES256 or EdDSA
	signer crypto.Signer
}

// NewKey makes a key for RS256 (RSA, 2,048 bits), ES256 or EdDSA.
func NewKey(alg string) (*Key, error) {
	k := &Key{ID: randomID(), Alg: alg}
	var err error
	switch alg {
	case "RS256":
		k.signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		k.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k.signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("lab: no keys for algorithm %q, only RS256, ES256 and EdDSA", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return k, nil
}

// Public gives the public key.
func (k *Key) Public() crypto.PublicKey { return k.signer.Public() }

// JWK gives the key as a member of a key set would be: public, for signatures.
func (k *Key) JWK() map[string]any {
	m := map[string]any{"kid": k.ID, "alg": k.Alg, "use": "sig"}
	switch pub := k.signer.Public().(type) {
	case *rsa.PublicKey:
		m["kty"] = "RSA"
		m["n"] = b64(pub.N.Bytes())
		m["e"] = b64(big.NewInt(int64(pub.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil || len(point) != 65 {
			panic("lab: a P-256 key has no 65 byte point") // NewKey makes no other curve
		}
		m["kty"], m["crv"] = "EC", "P-256"
		m["x"], m["y"] = b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(pub)
	}
	return m
}

// privateJWK adds the private half, which no issuer may publish.
func (k *Key) privateJWK() map[string]any {
	m := k.JWK()
	switch key := k.signer.(type) {
	case *rsa.PrivateKey:
		m["d"] = b64(key.D.Bytes())
	case *ecdsa.PrivateKey:
		d, err := key.Bytes()
		if err != nil {
			panic("lab: a P-256 key has no bytes")
		}
		m["d"] = b64(d)
	case ed25519.PrivateKey:
		m["d"] = b64(key.Seed())
	}
	return m
}

// Sign signs any two byte strings as a compact JWS, whether or not they are
// JSON: this is how a duplicate member or a broken claim gets a good signature.
func (k *Key) Sign(header, payload []byte) (string, error) {
	input := b64(header) + "." + b64(payload)
	sig, err := k.signature([]byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + b64(sig), nil
}

// Token signs claims as a JWT under the key's own name.
func (k *Key) Token(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	header, err := json.Marshal(map[string]string{"alg": k.Alg, "kid": k.ID, "typ": "JWT"})
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	return k.Sign(header, payload)
}

func (k *Key) signature(input []byte) ([]byte, error) {
	digest := sha256.Sum256(input)
	switch key := k.signer.(type) {
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey: // RFC 7518 section 3.4: R and S, 32 bytes each
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			return nil, err
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return sig, nil
	case ed25519.PrivateKey:
		return ed25519.Sign(key, input), nil
	}
	return nil, errors.New("lab: no such key")
}

// Draft is a token before it is signed.
type Draft struct {
	Header map[string]any
	Claims map[string]any
	Key    *Key // signs; an Edit may put another one here

	mode string // "", "none" or "hmac"
}

// Edit changes one property of an otherwise good token.
type Edit func(*Draft)

// Claim sets a claim to any JSON value.
func Claim(name string, value any) Edit { return func(d *Draft) { d.Claims[name] = value } }

// NoClaim removes claims.
func NoClaim(names ...string) Edit {
	return func(d *Draft) {
		for _, n := range names {
			delete(d.Claims, n)
		}
	}
}

// Header sets a header parameter; nil removes it.
func Header(name string, value any) Edit {
	return func(d *Draft) {
		if value == nil {
			delete(d.Header, name)
			return
		}
		d.Header[name] = value
	}
}

// SignedBy signs with another key under the good key's name.
func SignedBy(k *Key) Edit { return func(d *Draft) { d.Key = k; d.Header["alg"] = k.Alg } }

// Unsigned makes the token that RFC 8725 section 2.1 warns of: alg none, no signature.
func Unsigned() Edit { return func(d *Draft) { d.mode = "none"; d.Header["alg"] = "none" } }

// KeyConfusion signs by HMAC with the issuer's public key as the secret.
func KeyConfusion() Edit { return func(d *Draft) { d.mode = "hmac"; d.Header["alg"] = "HS256" } }

func (d *Draft) seal() (string, error) {
	header, err := json.Marshal(d.Header)
	if err != nil {
		return "", fmt.Errorf("lab: header: %w", err)
	}
	claims, err := json.Marshal(d.Claims)
	if err != nil {
		return "", fmt.Errorf("lab: claims: %w", err)
	}
	input := b64(header) + "." + b64(claims)
	switch d.mode {
	case "none":
		return input + ".", nil
	case "hmac":
		der, err := x509.MarshalPKIXPublicKey(d.Key.Public())
		if err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
		mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil)), nil
	}
	return d.Key.Sign(header, claims)
}

func sealed(key *Key, typ string, claims map[string]any, edits []Edit) (string, error) {
	d := &Draft{Header: map[string]any{"alg": key.Alg, "kid": key.ID}, Claims: maps.Clone(claims), Key: key}
	if typ != "" {
		d.Header["typ"] = typ
	}
	for _, e := range edits {
		e(d)
	}
	return d.seal()
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
