package lab

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// CMS is how a signed document of a cloud is put together (RFC 5652), and what
// can be wrong with it. The zero value is what AWS sends: BER of indefinite
// length, signed attributes, no certificate.
type CMS struct {
	// Certificates go into the message.
	Certificates []*x509.Certificate
	// Definite writes DER, as Azure does, and not a streaming signer's BER.
	Definite bool
	// Plain signs the content itself and no attributes.
	Plain bool
	// DigestIsSignature names the signature's algorithm where the digest's
	// belongs, as Azure does.
	DigestIsSignature bool
	// Time is the signing time in the attributes.
	Time time.Time

	// What can be wrong.
	Detached    bool   // the content is not in it
	OtherText   []byte // this content in the message, the right one's hash in the attributes
	SignedTwice bool   // two signers
	WrongOrder  bool   // the attributes not in DER's order, signed as they stand
	SHA1        bool   // another digest
	Trailing    []byte // after the message
}

var (
	cmsSignedData    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	cmsData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	cmsSHA1          = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	cmsSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	cmsRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	cmsContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	cmsMessageDigest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	cmsSigningTime   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
)

// Sign signs a content, and gives the message in base64 with line breaks, as
// metadata services do.
func (c CMS) Sign(content []byte, key *rsa.PrivateKey, cert *x509.Certificate) (string, error) {
	der, err := c.sign(content, key, cert)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	text := base64.StdEncoding.EncodeToString(der)
	var out []byte
	for len(text) > 64 {
		out, text = append(append(out, text[:64]...), '\n'), text[64:]
	}
	return string(append(out, text...)), nil
}

func (c CMS) sign(content []byte, key *rsa.PrivateKey, cert *x509.Certificate) ([]byte, error) {
	sum := sha256.Sum256(content)
	signed, attributes := content, []byte(nil)
	if !c.Plain {
		parts := [][]byte{
			seq(oid(cmsContentType), set(oid(cmsData))),
			seq(oid(cmsSigningTime), set(tlv(asn1.TagUTCTime, []byte(c.Time.UTC().Format("060102150405Z"))))),
			seq(oid(cmsMessageDigest), set(tlv(asn1.TagOctetString, sum[:]))),
		}
		if c.WrongOrder {
			slices.Reverse(parts)
		}
		attributes = slices.Concat(parts...)
		signed = set(attributes)
	}
	digest := sha256.Sum256(signed)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	named := cmsSHA256
	if c.DigestIsSignature {
		named = cmsRSA
	} else if c.SHA1 {
		named = cmsSHA1
	}
	info := [][]byte{integer(1), seq(cert.RawIssuer, tlv(asn1.TagInteger, signedBytes(cert.SerialNumber))), seq(oid(named), null())}
	if attributes != nil {
		info = append(info, tlv(0xa0, attributes))
	}
	signer := seq(append(info, seq(oid(cmsRSA), null()), tlv(asn1.TagOctetString, signature))...)
	if c.SignedTwice {
		signer = append(signer, signer...)
	}
	if c.OtherText != nil {
		content = c.OtherText
	}
	var chain []byte
	for _, cert := range c.Certificates {
		chain = append(chain, cert.Raw...)
	}
	if chain != nil {
		chain = tlv(0xa0, chain)
	}
	body := [][]byte{integer(1), set(seq(oid(named), null())), c.content(content), chain, set(signer)}
	if c.Definite {
		return append(seq(oid(cmsSignedData), tlv(0xa0, seq(body...))), c.Trailing...), nil
	}
	return append(open(0x30, oid(cmsSignedData), open(0xa0, open(0x30, body...))), c.Trailing...), nil
}

func (c CMS) content(content []byte) []byte {
	switch {
	case c.Detached:
		return seq(oid(cmsData))
	case c.Definite:
		return seq(oid(cmsData), tlv(0xa0, tlv(asn1.TagOctetString, content)))
	}
	half := len(content) / 2
	return open(0x30, oid(cmsData), open(0xa0, open(0x24, tlv(asn1.TagOctetString, content[:half]), tlv(asn1.TagOctetString, content[half:]))))
}

func tlv(tag int, contents []byte) []byte {
	out := []byte{byte(tag)}
	switch n := len(contents); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	return append(out, contents...)
}

func seq(parts ...[]byte) []byte { return tlv(0x30, slices.Concat(parts...)) }
func set(parts ...[]byte) []byte { return tlv(0x31, slices.Concat(parts...)) }
func integer(n byte) []byte      { return tlv(asn1.TagInteger, []byte{n}) }
func null() []byte               { return []byte{asn1.TagNull, 0} }

// open is an element of indefinite length.
func open(tag byte, parts ...[]byte) []byte {
	return append(append([]byte{tag, 0x80}, slices.Concat(parts...)...), 0, 0)
}

func oid(id asn1.ObjectIdentifier) []byte {
	der, err := asn1.Marshal(id)
	if err != nil {
		panic("lab: " + err.Error()) // ours are well-formed
	}
	return der
}

// signedBytes are an integer's bytes in two's complement.
func signedBytes(n *big.Int) []byte {
	b := n.Bytes()
	if len(b) == 0 || b[0] >= 0x80 {
		return append([]byte{0}, b...)
	}
	return b
}
