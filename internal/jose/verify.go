package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha512"

	proviso "github.com/proviso-ci/proviso"
)

// Verify checks the signature with k, by the one algorithm that k is for.
func (t *Token) Verify(k *Key) error {
	if k == nil {
		return refuse(proviso.CodeJWTUnknownKID, "there is no key to verify the token with")
	}
	if t.Header.Alg != k.alg {
		return refuse(proviso.CodeJWTKeyAlgMismatch, "the token says %s, but the key is for %s", shown(string(t.Header.Alg)), k.alg)
	}
	if !k.verifies(t) {
		return refuse(proviso.CodeJWTSignature, "the token's signature is not the key's")
	}
	return nil
}

func (k *Key) verifies(t *Token) bool {
	switch pub := k.pub.(type) {
	case *rsa.PublicKey:
		digest, hash := t.digest()
		if len(t.sig) != pub.Size() {
			return false
		}
		if k.alg[0] == 'P' {
			// RFC 7518 section 3.5: the salt is as long as the hash.
			return rsa.VerifyPSS(pub, hash, digest, t.sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(pub, hash, digest, t.sig) == nil
	case *ecdsa.PublicKey:
		digest, _ := t.digest()
		der, ok := derOf(t.sig, (pub.Params().BitSize+7)/8)
		return ok && ecdsa.VerifyASN1(pub, digest, der)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, t.signed, t.sig)
	}
	return false
}

// digest hashes what was signed as the algorithm wants; SHA-256 is there
// already.
func (t *Token) digest() ([]byte, crypto.Hash) {
	switch t.Header.Alg {
	case RS384, PS384, ES384:
		d := sha512.Sum384(t.signed)
		return d[:], crypto.SHA384
	case RS512, PS512, ES512:
		d := sha512.Sum512(t.signed)
		return d[:], crypto.SHA512
	default:
		return t.hash[:], crypto.SHA256
	}
}

// derOf writes a JWS signature, two integers of exactly size bytes each, as the
// SEQUENCE that crypto/ecdsa takes.
func derOf(sig []byte, size int) ([]byte, bool) {
	if len(sig) != 2*size {
		return nil, false
	}
	der := make([]byte, 3, 3+2*(3+size))
	der = appendInteger(der, sig[:size])
	der = appendInteger(der, sig[size:])
	body := len(der) - 3
	if body < 0x80 {
		der = der[1:]
		der[0], der[1] = 0x30, byte(body)
		return der, true
	}
	der[0], der[1], der[2] = 0x30, 0x81, byte(body)
	return der, true
}

func appendInteger(der, n []byte) []byte {
	for len(n) > 1 && n[0] == 0 {
		n = n[1:]
	}
	if n[0] >= 0x80 {
		der = append(der, 2, byte(len(n)+1), 0)
		return append(der, n...)
	}
	der = append(der, 2, byte(len(n)))
	return append(der, n...)
}
