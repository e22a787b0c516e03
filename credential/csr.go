package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// maxCSR is enough for RSA-4096 and all names that a template gives.
const maxCSR = 8 << 10

// request is a certificate signing request that proved its key. Its names are
// only ever compared with those of the plan.
type request struct {
	public  crypto.PublicKey
	keyHash string // hex SHA-256 of the SubjectPublicKeyInfo
	hash    string // hex SHA-256 of the request
	names   []string
}

// readCSR takes exactly one PEM block, signed by its own key (RFC 2986), that
// asks for nothing beyond names: which usages, lifetime and constraints a
// certificate gets is not for a request to say.
func readCSR(text []byte) (request, error) {
	if len(text) > maxCSR {
		return request{}, rejected("it has %d bytes, at most %d are taken", len(text), maxCSR)
	}
	// pem.Decode skips what stands before a block, headers too; a request is the
	// block and nothing else.
	block, rest := pem.Decode(text)
	if block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN CERTIFICATE REQUEST-----")) || block.Type != "CERTIFICATE REQUEST" ||
		len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return request{}, rejected("it is not exactly one PEM block CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return request{}, rejected("it can't be read as PKCS #10").Because(err)
	}
	if !slices.Contains(csrSignatures, csr.SignatureAlgorithm) {
		return request{}, rejected("it is signed with %v; use SHA-256 or better", csr.SignatureAlgorithm)
	}
	if why := weakKey(csr.PublicKey); why != "" {
		return request{}, rejected("%s", why)
	}
	if err := csr.CheckSignature(); err != nil {
		return request{}, rejected("its signature is not by its own key").Because(err)
	}
	names, err := requestedNames(csr)
	if err != nil {
		return request{}, err
	}
	keySum, sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo), sha256.Sum256(csr.Raw)
	return request{public: csr.PublicKey, keyHash: hex.EncodeToString(keySum[:]), hash: hex.EncodeToString(sum[:]), names: names}, nil
}

// RequestKey is the RFC 7638 thumbprint of the key that a request proves.
func RequestKey(csr []byte) (string, error) {
	if len(csr) == 0 {
		return "", proviso.Refuse(proviso.StageCredential, CodeCSRMissing, "a certificate signing request (PEM) is missing")
	}
	req, err := readCSR(csr)
	if err != nil {
		return "", err
	}
	for _, alg := range []jose.Alg{jose.ES256, jose.ES384, jose.EdDSA, jose.RS256} {
		if key, err := jose.NewKey("", alg, req.public); err == nil {
			return key.Thumbprint(), nil
		}
	}
	return "", rejected("its key has no thumbprint")
}

func rejected(why string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageCredential, proviso.CodeCSRRejected, "the certificate signing request isn't taken: "+why, args...)
}

var csrSignatures = []x509.SignatureAlgorithm{
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
}

// weakKey says why a key isn't certified, or "".
func weakKey(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 || k.N.Bit(0) == 0 || k.E != 65537 {
			return "an RSA key needs 2048 to 4096 bits and the exponent 65537"
		}
		return ""
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return "an EC key needs the curve P-256 or P-384"
		}
		return ""
	case ed25519.PublicKey:
		return ""
	}
	return "the key is none of RSA, P-256, P-384 and Ed25519"
}

var (
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
)

// requestedNames lists the names that the request asks for, as in audit.Terms.
// crypto/x509 passes over kinds of names it doesn't know, so the names are read
// from the bytes here, and an unknown kind is refused.
func requestedNames(csr *x509.CertificateRequest) ([]string, error) {
	if err := onlyExtensionRequest(csr.RawTBSCertificateRequest); err != nil {
		return nil, err
	}
	var names []string
	for _, rdn := range csr.Subject.Names {
		text, ok := rdn.Value.(string)
		if !ok || !rdn.Type.Equal(oidCommonName) {
			return nil, badNames("its subject has more than a common name; leave the subject empty")
		}
		names = append(names, "cn:"+text)
	}
	if len(names) == 0 && !bytes.Equal(csr.RawSubject, []byte{0x30, 0}) {
		return nil, badNames("its subject can't be read; leave the subject empty")
	}
	for i, e := range csr.Extensions {
		if !e.Id.Equal(oidSAN) || i > 0 {
			return nil, rejected("it asks for an extension (%v); only a subject alternative name may be there, since the grant says the rest", e.Id)
		}
		alternative, ok := readSAN(e.Value)
		if !ok {
			return nil, badNames("its subject alternative name has a kind of name other than URI and DNS, or can't be read")
		}
		names = append(names, alternative...)
	}
	return names, nil
}

// onlyExtensionRequest refuses attributes that crypto/x509 doesn't show, as a
// challenge password.
func onlyExtensionRequest(tbs []byte) error {
	in := cryptobyte.String(tbs)
	var body, attributes cryptobyte.String
	var present bool
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.SkipASN1(cbasn1.INTEGER) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.SkipASN1(cbasn1.SEQUENCE) || !body.ReadOptionalASN1(&attributes, &present, cbasn1.Tag(0).ContextSpecific().Constructed()) || !body.Empty() {
		return rejected("it can't be read as PKCS #10")
	}
	for seen := 0; !attributes.Empty(); seen++ {
		var attribute cryptobyte.String
		var id asn1.ObjectIdentifier
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidExtensionRequest) || seen > 0 {
			return rejected("it has an attribute other than one request for extensions")
		}
	}
	return nil
}

// readSAN reads GeneralNames of URIs and DNS names (RFC 5280 section 4.2.1.6).
func readSAN(der []byte) (names []string, ok bool) {
	in := cryptobyte.String(der)
	var list cryptobyte.String
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() || list.Empty() {
		return nil, false
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) || !isPrintableASCII(string(value)) {
			return nil, false
		}
		switch tag {
		case cbasn1.Tag(6).ContextSpecific():
			names = append(names, "uri:"+string(value))
		case cbasn1.Tag(2).ContextSpecific():
			names = append(names, "dns:"+string(value))
		default:
			return nil, false
		}
	}
	return names, true
}

func badNames(why string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageCredential, proviso.CodeCSRNames, "the certificate signing request isn't taken: "+why, args...)
}
