package runner

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"

	"github.com/proviso-ci/proviso"
)

// signedData is a CMS SignedData (RFC 5652 section 5; PKCS#7) as the clouds
// make it: one signer, RSA with SHA-256, the content inside. It is read here
// and not by a library because those that there are read more than was signed:
// they put BER into another form before they verify it, verify signed
// attributes in an encoding of their own making, go on after a part that can't
// be read, and let the message choose SHA-1. This reader refuses whatever it
// would have to interpret, and gives only the bytes that the signature covers.
type signedData struct {
	content      []byte
	certificates []*x509.Certificate

	issuer, serial []byte // of the signer's certificate, as DER
	attributes     []byte // the signed attributes as a SET, nil without any
	digest         []byte // what the attributes say that the content's hash is
	signature      []byte
}

// Bounds of a SignedData: no cloud's has a tenth of them.
const (
	maxBERDepth        = 12
	maxCMSCertificates = 8
	maxCMSAttributes   = 16
)

// Identifiers as the DER of their contents.
var (
	oidSignedData    = oidBytes(1, 2, 840, 113549, 1, 7, 2)
	oidData          = oidBytes(1, 2, 840, 113549, 1, 7, 1)
	oidSHA256        = oidBytes(2, 16, 840, 1, 101, 3, 4, 2, 1)
	oidRSA           = oidBytes(1, 2, 840, 113549, 1, 1, 1)
	oidSHA256WithRSA = oidBytes(1, 2, 840, 113549, 1, 1, 11)
	oidContentType   = oidBytes(1, 2, 840, 113549, 1, 9, 3)
	oidMessageDigest = oidBytes(1, 2, 840, 113549, 1, 9, 4)
)

func oidBytes(arcs ...int) []byte {
	der, err := asn1.Marshal(asn1.ObjectIdentifier(arcs))
	if err != nil {
		panic("runner: an object identifier of our own can't be written: " + err.Error())
	}
	return der[2:]
}

// Tags of BER (X.690) in their one-byte form.
const (
	tagInteger     = 0x02
	tagOctets      = 0x04
	tagNull        = 0x05
	tagOID         = 0x06
	tagSequence    = 0x30
	tagSet         = 0x31
	tagOctetsParts = 0x24 // an OCTET STRING in pieces, which streaming signers write
	tagContext0    = 0xa0
	tagContext1    = 0xa1
	constructed    = 0x20
)

// ber is a cursor over a sequence of BER elements.
type ber struct {
	rest  []byte
	depth int
}

// element is one BER element. def says that its length, and all lengths within,
// are definite and as short as can be: then its bytes are the DER that was signed.
type element struct {
	tag      byte
	contents []byte // without header and end-of-contents
	full     []byte
	def      bool
}

func malformedCMS(format string, args ...any) error {
	return refuse(CodeEvidenceMalformed, "the document's PKCS#7 signature can't be read: "+format, args...)
}

// next reads one element, with everything that is in it.
func (b *ber) next() (element, error) {
	in := b.rest
	if b.depth > maxBERDepth {
		return element{}, malformedCMS("it is nested too deeply")
	}
	if len(in) < 2 {
		return element{}, malformedCMS("it is cut off")
	}
	e := element{tag: in[0], def: true}
	if e.tag&0x1f == 0x1f {
		return element{}, malformedCMS("it has a tag of several bytes, which CMS has not")
	}
	length, header := int(in[1]), 2
	switch {
	case in[1] == 0x80: // indefinite: up to two zero bytes
		if e.tag&constructed == 0 {
			return element{}, malformedCMS("a primitive element has no length")
		}
		return b.indefinite(e)
	case in[1] > 0x80:
		n := int(in[1] & 0x7f)
		if n > 3 || len(in) < 2+n {
			return element{}, malformedCMS("a length is cut off or too large")
		}
		length, header = 0, 2+n
		for _, c := range in[2:header] {
			length = length<<8 | int(c)
		}
		e.def = length >= 0x80 && in[2] != 0
	}
	if length > len(in)-header {
		return element{}, malformedCMS("it is cut off")
	}
	e.contents, e.full, b.rest = in[header:header+length], in[:header+length], in[header+length:]
	if e.tag&constructed != 0 {
		for inner := (ber{e.contents, b.depth + 1}); len(inner.rest) > 0; {
			part, err := inner.next()
			if err != nil {
				return element{}, err
			}
			e.def = e.def && part.def
		}
	}
	return e, nil
}

func (b *ber) indefinite(e element) (element, error) {
	e.def = false
	inner := ber{b.rest[2:], b.depth + 1}
	for {
		if len(inner.rest) < 2 {
			return element{}, malformedCMS("it is cut off")
		}
		if inner.rest[0] == 0 && inner.rest[1] == 0 {
			break
		}
		if _, err := inner.next(); err != nil {
			return element{}, err
		}
	}
	size := len(b.rest) - len(inner.rest)
	e.contents, e.full, b.rest = b.rest[2:size], b.rest[:size+2], inner.rest[2:]
	return e, nil
}

// want reads one element of a tag.
func (b *ber) want(tag byte, what string) (element, error) {
	e, err := b.next()
	if err == nil && e.tag != tag {
		err = malformedCMS("%s is expected, and something else stands there", what)
	}
	return e, err
}

// enter reads one element of a tag and gives a cursor over what is in it.
func (b *ber) enter(tag byte, what string) (ber, error) {
	e, err := b.want(tag, what)
	return ber{e.contents, b.depth + 1}, err
}

func (b *ber) at(tag byte) bool { return len(b.rest) > 0 && b.rest[0] == tag }

// end demands that nothing follows: bytes that nobody reads are bytes that
// somebody else might.
func (b *ber) end(what string) error {
	if len(b.rest) > 0 {
		return malformedCMS("something follows %s", what)
	}
	return nil
}

// parseCMS reads a SignedData in base64, as metadata services give it: with or
// without line breaks, without PEM's lines.
func parseCMS(encoded string) (*signedData, error) {
	compact := make([]byte, 0, len(encoded))
	for _, c := range []byte(encoded) {
		if c != '\n' && c != '\r' {
			compact = append(compact, c)
		}
	}
	der := make([]byte, base64.StdEncoding.DecodedLen(len(compact)))
	n, err := base64.StdEncoding.Strict().Decode(der, compact)
	if err != nil {
		return nil, malformedCMS("it is not base64")
	}
	return parseSignedData(der[:n])
}

func parseSignedData(data []byte) (*signedData, error) {
	top := ber{rest: data}
	info, err := top.enter(tagSequence, "a ContentInfo")
	if err != nil {
		return nil, err
	}
	if err := top.end("the ContentInfo"); err != nil {
		return nil, err
	}
	if err := info.oid(oidSignedData, "signedData"); err != nil {
		return nil, err
	}
	wrapped, err := info.enter(tagContext0, "the content")
	if err != nil {
		return nil, err
	}
	body, err := wrapped.enter(tagSequence, "a SignedData")
	if err != nil {
		return nil, err
	}
	if wrapped.end("the SignedData") != nil || info.end("the content") != nil {
		return nil, malformedCMS("something follows the SignedData")
	}
	s := &signedData{}
	if _, err := body.want(tagInteger, "a version"); err != nil {
		return nil, err
	}
	if _, err := body.want(tagSet, "the digest algorithms"); err != nil { // repeated in the signer's info, which counts
		return nil, err
	}
	if err := s.readContent(&body); err != nil {
		return nil, err
	}
	if err := s.readCertificates(&body); err != nil {
		return nil, err
	}
	if body.at(tagContext1) {
		return nil, malformedCMS("it carries revocation lists, which no cloud sends")
	}
	signers, err := body.enter(tagSet, "the signers")
	if err != nil {
		return nil, err
	}
	if err := body.end("the signers"); err != nil {
		return nil, err
	}
	signer, err := signers.enter(tagSequence, "a signer")
	if err != nil {
		return nil, err
	}
	if err := signers.end("the one signer"); err != nil {
		return nil, malformedCMS("it has several signers, and one is expected")
	}
	return s, s.readSigner(&signer)
}

func (b *ber) oid(want []byte, what string) error {
	e, err := b.want(tagOID, "an identifier")
	if err == nil && !bytes.Equal(e.contents, want) {
		err = malformedCMS("it is no %s", what)
	}
	return err
}

// readContent reads the EncapsulatedContentInfo; a detached signature covers
// bytes that the message doesn't bring.
func (s *signedData) readContent(body *ber) error {
	info, err := body.enter(tagSequence, "the encapsulated content")
	if err != nil {
		return err
	}
	if err := info.oid(oidData, "data"); err != nil {
		return err
	}
	if len(info.rest) == 0 {
		return malformedCMS("the document itself is not in it")
	}
	wrapped, err := info.enter(tagContext0, "the document")
	if err != nil {
		return err
	}
	e, err := wrapped.next()
	if err != nil {
		return err
	}
	switch e.tag {
	case tagOctets:
		s.content = e.contents
	case tagOctetsParts:
		for parts := (ber{e.contents, wrapped.depth + 1}); len(parts.rest) > 0; {
			part, err := parts.want(tagOctets, "a piece of the document")
			if err != nil {
				return err
			}
			s.content = append(s.content, part.contents...)
		}
	default:
		return malformedCMS("the document is no octet string")
	}
	if wrapped.end("") != nil || info.end("") != nil {
		return malformedCMS("something follows the document")
	}
	return nil
}

func (s *signedData) readCertificates(body *ber) error {
	if !body.at(tagContext0) {
		return nil
	}
	list, err := body.enter(tagContext0, "the certificates")
	if err != nil {
		return err
	}
	for len(list.rest) > 0 {
		e, err := list.want(tagSequence, "a certificate")
		if err != nil {
			return err
		}
		if len(s.certificates) == maxCMSCertificates {
			return malformedCMS("it has more than %d certificates", maxCMSCertificates)
		}
		cert, err := x509.ParseCertificate(e.full)
		if err != nil {
			return malformedCMS("a certificate in it is malformed")
		}
		s.certificates = append(s.certificates, cert)
	}
	return nil
}

// readSigner reads the SignerInfo (RFC 5652 section 5.3).
func (s *signedData) readSigner(b *ber) error {
	if _, err := b.want(tagInteger, "the signer's version"); err != nil {
		return err
	}
	id, err := b.enter(tagSequence, "the signer's issuer and serial number")
	if err != nil {
		return err
	}
	issuer, err := id.want(tagSequence, "an issuer")
	if err != nil {
		return err
	}
	serial, err := id.want(tagInteger, "a serial number")
	if err != nil {
		return err
	}
	if err := id.end("the serial number"); err != nil {
		return err
	}
	s.issuer, s.serial = issuer.full, serial.contents
	// Azure names the signature's algorithm where the digest's belongs.
	if err := b.algorithm(oidSHA256, oidSHA256WithRSA); err != nil {
		return err
	}
	if b.at(tagContext0) {
		attributes, err := b.want(tagContext0, "the signed attributes")
		if err != nil {
			return err
		}
		if err := s.readAttributes(attributes, b.depth); err != nil {
			return err
		}
	}
	if err := b.algorithm(oidRSA, oidSHA256WithRSA); err != nil {
		return err
	}
	signature, err := b.want(tagOctets, "the signature")
	if err != nil {
		return err
	}
	s.signature = signature.contents
	return b.end("the signature")
}

// algorithm reads an AlgorithmIdentifier without parameters that is one of a few.
func (b *ber) algorithm(allowed ...[]byte) error {
	id, err := b.enter(tagSequence, "an algorithm")
	if err != nil {
		return err
	}
	e, err := id.want(tagOID, "an algorithm's identifier")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(allowed, func(oid []byte) bool { return bytes.Equal(oid, e.contents) }) {
		return refuse(proviso.CodeJWTAlgNotAllowed, "the document is signed with another algorithm than RSA with SHA-256; on AWS, send what the metadata service gives as rsa2048")
	}
	if id.at(tagNull) {
		if e, err := id.next(); err != nil || len(e.contents) > 0 {
			return malformedCMS("an algorithm has parameters")
		}
	}
	return id.end("an algorithm")
}

// readAttributes reads the signed attributes. They are signed in DER, as a SET;
// if they don't stand in the message in that form they are refused, and never
// written anew: what is verified is what was sent.
func (s *signedData) readAttributes(e element, depth int) error {
	if !e.def {
		return malformedCMS("its signed attributes are not in DER")
	}
	var kind []byte
	seen := map[string]bool{}
	for list := (ber{e.contents, depth + 1}); len(list.rest) > 0; {
		attribute, err := list.enter(tagSequence, "an attribute")
		if err != nil {
			return err
		}
		name, err := attribute.want(tagOID, "an attribute's identifier")
		if err != nil {
			return err
		}
		if seen[string(name.contents)] || len(seen) == maxCMSAttributes {
			return malformedCMS("an attribute stands there twice, or there are too many")
		}
		seen[string(name.contents)] = true
		values, err := attribute.want(tagSet, "an attribute's values")
		if err != nil {
			return err
		}
		if err := attribute.end("an attribute"); err != nil {
			return err
		}
		var one *[]byte
		var tag byte
		switch {
		case bytes.Equal(name.contents, oidContentType):
			one, tag = &kind, tagOID
		case bytes.Equal(name.contents, oidMessageDigest):
			one, tag = &s.digest, tagOctets
		default: // signed with the rest, and without influence
			continue
		}
		inner := ber{values.contents, depth + 3}
		value, err := inner.want(tag, "an attribute's value")
		if err != nil || inner.end("") != nil {
			return malformedCMS("an attribute has not exactly one value")
		}
		*one = value.contents
	}
	if !bytes.Equal(kind, oidData) || len(s.digest) != sha256.Size {
		return malformedCMS("its signed attributes don't name the document's type and hash")
	}
	s.attributes = bytes.Clone(e.full)
	s.attributes[0] = tagSet // section 5.4: signed under the tag of a SET
	return nil
}

// isSigner reports whether a certificate is the one that the message names as
// its signer's.
func (s *signedData) isSigner(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, s.issuer) && new(big.Int).SetBytes(s.serial).Cmp(cert.SerialNumber) == 0
}

// signer gives the certificate in the message that the signature is to be
// verified with.
func (s *signedData) signer() *x509.Certificate {
	for _, cert := range s.certificates {
		if s.isSigner(cert) {
			return cert
		}
	}
	return nil
}

// verify verifies the signature over the content with one certificate's key.
// That the certificate is to be believed is another question.
func (s *signedData) verify(cert *x509.Certificate) error {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < minRSABits {
		return refuse(CodeEvidenceSigner, "the certificate that signed the document has no RSA key of %d bits or more", minRSABits)
	}
	signed := s.content
	if s.attributes == nil && len(signed) > 0 && signed[0] == tagSet {
		// The signature over a document's attributes is also one over a "document"
		// that is those attributes. No cloud signs a SET.
		return malformedCMS("the document is a SET of attributes")
	}
	if s.attributes != nil {
		sum := sha256.Sum256(s.content)
		if subtle.ConstantTimeCompare(sum[:], s.digest) != 1 {
			return refuse(CodeEvidenceSignature, "the document is not the one that was signed: its hash is another one")
		}
		signed = s.attributes
	}
	sum := sha256.Sum256(signed)
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.signature) != nil {
		return refuse(CodeEvidenceSignature, "the document's signature is not the signer's")
	}
	return nil
}
