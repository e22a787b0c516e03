package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/proviso-ci/proviso/internal/document"
)

// Signer signs tokens of one type with one key. It can be used by many
// goroutines if its crypto.Signer can.
type Signer struct {
	key    *Key
	signer crypto.Signer
	prefix string // the encoded header and its dot
	hash   crypto.Hash
	opts   crypto.SignerOpts
	size   int // of a signature
}

// NewSigner makes a Signer for tokens with this kid and typ, each left out of
// the header when empty. withJWK puts the public key into the header (DPoP).
func NewSigner(signer crypto.Signer, alg Alg, kid, typ string, withJWK bool) (*Signer, error) {
	if signer == nil {
		return nil, errors.New("no key to sign with")
	}
	key, err := NewKey(kid, alg, signer.Public())
	if err != nil {
		return nil, err
	}
	header := document.ObjectOf(document.Member("alg", document.StringOf(string(alg))),
		document.Member("kid", document.StringOf(kid)), document.Member("typ", document.StringOf(typ)))
	if withJWK {
		header = header.With(document.Member("jwk", key.BareJWK()))
	}
	s := &Signer{key: key, signer: signer}
	s.prefix = base64.RawURLEncoding.EncodeToString(document.AppendCanonical(nil, header)) + "."
	switch alg {
	case RS256, PS256, ES256:
		s.hash = crypto.SHA256
	case RS384, PS384, ES384:
		s.hash = crypto.SHA384
	case RS512, PS512, ES512:
		s.hash = crypto.SHA512
	case EdDSA: // signs the message, not a digest of it
	}
	s.opts = s.hash
	if alg[0] == 'P' {
		s.opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
	}
	switch pub := key.pub.(type) {
	case *rsa.PublicKey:
		s.size = pub.Size()
	case *ecdsa.PublicKey:
		s.size = 2 * ((pub.Params().BitSize + 7) / 8)
	case ed25519.PublicKey:
		s.size = ed25519.SignatureSize
	}
	return s, nil
}

// Key is the public half.
func (s *Signer) Key() *Key { return s.key }

// Sign makes a token of claims, which are one JSON object in canonical form.
func (s *Signer) Sign(claims []byte) (string, error) {
	enc := base64.RawURLEncoding
	head := len(s.prefix) + enc.EncodedLen(len(claims))
	buf := make([]byte, 0, head+1+enc.EncodedLen(s.size))
	buf = append(buf, s.prefix...)
	buf = enc.AppendEncode(buf, claims)
	sig, err := s.signature(buf)
	if err != nil {
		return "", err
	}
	buf = append(buf, '.')
	return string(enc.AppendEncode(buf, sig)), nil
}

func (s *Signer) signature(signed []byte) ([]byte, error) {
	input := signed
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(signed)
		input = h.Sum(nil)
	}
	sig, err := s.signer.Sign(rand.Reader, input, s.opts)
	if err != nil {
		return nil, err
	}
	if _, ok := s.key.pub.(*ecdsa.PublicKey); ok {
		return fixedOf(sig, s.size/2)
	}
	if len(sig) != s.size {
		return nil, errors.New("the signing key gave a signature of the wrong length")
	}
	return sig, nil
}

// fixedOf writes the SEQUENCE that an ECDSA crypto.Signer gives as JWS wants it:
// two integers of exactly size bytes each.
func fixedOf(der []byte, size int) ([]byte, error) {
	var r, s []byte
	in := cryptobyte.String(der)
	var body cryptobyte.String
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1Integer(&r) || !body.ReadASN1Integer(&s) ||
		!body.Empty() || len(r) > size || len(s) > size {
		return nil, errors.New("the signing key gave a signature that is not ECDSA's")
	}
	sig := make([]byte, 2*size)
	copy(sig[size-len(r):], r)
	copy(sig[2*size-len(s):], s)
	return sig, nil
}

// Sign makes one token. Whoever signs many keeps a Signer.
func Sign(signer crypto.Signer, alg Alg, kid, typ string, claims []byte) (string, error) {
	s, err := NewSigner(signer, alg, kid, typ, false)
	if err != nil {
		return "", err
	}
	return s.Sign(claims)
}
