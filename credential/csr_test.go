package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
)

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// csr makes a request for key; change may spoil it.
func csr(t testing.TB, key crypto.Signer, change func(c *x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf(der)
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRequestsThatAreTaken(t *testing.T) {
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, key := range map[string]crypto.Signer{"RSA-2048": rsa2048, "P-256": ecKey(t), "P-384": p384, "Ed25519": ed} {
		r, err := readCSR(csr(t, key, nil))
		if err != nil || len(r.names) > 0 || len(r.hash) != 64 || len(r.keyHash) != 64 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := readCSR(csr(t, ecKey(t), func(c *x509.CertificateRequest) {
		c.Subject.CommonName, c.DNSNames, c.URIs = "job", []string{"a.example"}, []*url.URL{mustURL(t, "spiffe://a/b")}
	}))
	if err != nil || strings.Join(r.names, " ") != "cn:job dns:a.example uri:spiffe://a/b" {
		t.Errorf("names %v, %v", r.names, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	key := ecKey(t)
	rsa1024 := weakRSA(t)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	good := csr(t, key, nil)
	block, _ := pem.Decode(good)
	broken := bytes.Clone(block.Bytes)
	broken[len(broken)-5] ^= 1
	extension := func(id asn1.ObjectIdentifier, der ...byte) func(c *x509.CertificateRequest) {
		return func(c *x509.CertificateRequest) { c.ExtraExtensions = []pkix.Extension{{Id: id, Value: der}} }
	}
	for name, test := range map[string]struct {
		csr  []byte
		code proviso.Code
	}{
		"text":                      {[]byte("hello"), proviso.CodeCSRRejected},
		"too long":                  {append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxCSR)...), proviso.CodeCSRRejected},
		"DER":                       {block.Bytes, proviso.CodeCSRRejected},
		"two blocks":                {append(bytes.Clone(good), good...), proviso.CodeCSRRejected},
		"text before":               {append([]byte("x\n"), good...), proviso.CodeCSRRejected},
		"text after":                {append(bytes.Clone(good), "x"...), proviso.CodeCSRRejected},
		"newline before":            {append([]byte("\n"), good...), proviso.CodeCSRRejected},
		"another block":             {pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: block.Bytes}), proviso.CodeCSRRejected},
		"a certificate":             {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), proviso.CodeCSRRejected},
		"headers in the block":      {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Headers: map[string]string{"A": "b"}, Bytes: block.Bytes}), proviso.CodeCSRRejected},
		"not PKCS #10":              {pemOf([]byte{0x30, 0}), proviso.CodeCSRRejected},
		"bytes after it":            {pemOf(append(bytes.Clone(block.Bytes), 0)), proviso.CodeCSRRejected},
		"wrong signature":           {pemOf(broken), proviso.CodeCSRRejected},
		"another key's signature":   {pemOf(graft(t, csr(t, ecKey(t), nil), good)), proviso.CodeCSRRejected},
		"RSA-1024":                  {csr(t, rsa1024, nil), proviso.CodeCSRRejected},
		"P-224":                     {csr(t, p224, nil), proviso.CodeCSRRejected},
		"P-521":                     {csr(t, p521, nil), proviso.CodeCSRRejected},
		"subject with organisation": {csr(t, key, func(c *x509.CertificateRequest) { c.Subject.Organization = []string{"Acme"} }), proviso.CodeCSRNames},
		"an address":                {csr(t, key, func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }), proviso.CodeCSRNames},
		"a mail address":            {csr(t, key, func(c *x509.CertificateRequest) { c.EmailAddresses = []string{"root@acme.example"} }), proviso.CodeCSRNames},
		"an unknown kind of name":   {csr(t, key, extension(oidSAN, 0x30, 4, 0xa0, 2, 5, 0)), proviso.CodeCSRNames},
		"an empty list of names":    {csr(t, key, extension(oidSAN, 0x30, 0)), proviso.CodeCSRNames},
		"a name with a null byte":   {csr(t, key, extension(oidSAN, 0x30, 5, 0x82, 3, 'a', 0, 'b')), proviso.CodeCSRNames},
		"CA:TRUE":                   {csr(t, key, extension(oidBasicConstraints, 0x30, 3, 1, 1, 0xff)), proviso.CodeCSRRejected},
		"server authentication":     {csr(t, key, extension(asn1.ObjectIdentifier{2, 5, 29, 37}, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1)), proviso.CodeCSRRejected},
		"key usage":                 {csr(t, key, extension(oidKeyUsage, 3, 2, 1, 6)), proviso.CodeCSRRejected},
		"name constraints":          {csr(t, key, extension(asn1.ObjectIdentifier{2, 5, 29, 30}, 0x30, 0)), proviso.CodeCSRRejected},
		"an unknown extension":      {csr(t, key, extension(asn1.ObjectIdentifier{1, 2, 3}, 5, 0)), proviso.CodeCSRRejected},
		"a challenge password":      {withChallengePassword(t, key), proviso.CodeCSRRejected},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := readCSR(test.csr)
			wantCode(t, err, test.code)
			if r.public != nil {
				t.Error("a key came with the refusal")
			}
		})
	}
}

// withChallengePassword makes a request with an attribute that crypto/x509 no
// longer writes, by hand; it is signed with key.
func withChallengePassword(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	block, _ := pem.Decode(csr(t, key, nil))
	var outer struct {
		Body      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(block.Bytes, &outer)
	must(t, err)
	// The body ends with an empty [0] of attributes; one takes its place.
	attribute := []byte{0x30, 17, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7, 0x31, 4, 0x0c, 2, 'p', 'w'}
	content, ok := bytes.CutSuffix(outer.Body.Bytes, []byte{0xa0, 0})
	if !ok {
		t.Fatal("the request has no empty attributes")
	}
	content = append(append(bytes.Clone(content), 0xa0, byte(len(attribute))), attribute...)
	body, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	must(t, err)
	sum := sha256.Sum256(body)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	must(t, err)
	outer.Body = asn1.RawValue{FullBytes: body}
	outer.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(outer)
	must(t, err)
	if parsed, err := x509.ParseCertificateRequest(der); err != nil || parsed.CheckSignature() != nil {
		t.Fatalf("crypto/x509 would refuse it anyway: %v", err)
	}
	return pemOf(der)
}

// graft puts the body of one request under the signature of another.
func graft(t testing.TB, body, signature []byte) []byte {
	t.Helper()
	type request struct {
		Body      asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	var a, b request
	for to, from := range map[*request][]byte{&a: body, &b: signature} {
		block, _ := pem.Decode(from)
		if _, err := asn1.Unmarshal(block.Bytes, to); err != nil {
			t.Fatal(err)
		}
	}
	a.Signature = b.Signature
	der, err := asn1.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// weakRSA is a 1024-bit key, which crypto/rsa makes only when it is told to.
func weakRSA(t testing.TB) crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWeakKeysByThemselves(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	even, exponent := k.PublicKey, k.PublicKey
	even.N = new(bigInt).Lsh(k.N, 1)
	exponent.E = 3
	for name, public := range map[string]crypto.PublicKey{"even modulus": &even, "exponent 3": &exponent, "nil": nil, "by value": k.PublicKey} {
		if weakKey(public) == "" {
			t.Errorf("%s: taken", name)
		}
	}
}

// Whatever comes as a request: a refusal, or a request whose key signed it and
// whose names were all understood.
func FuzzCSR(f *testing.F) {
	key := ecKey(f)
	f.Add(csr(f, key, nil))
	f.Add(csr(f, key, func(c *x509.CertificateRequest) { c.Subject.CommonName, c.DNSNames = "job", []string{"a.example"} }))
	block, _ := pem.Decode(csr(f, key, nil))
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, text := range [][]byte{data, pemOf(data)} {
			r, err := readCSR(text)
			if err != nil {
				var refusal *proviso.Refusal
				if !errors.As(err, &refusal) || refusal.Code == "" {
					t.Fatalf("error %v", err)
				}
				continue
			}
			if weakKey(r.public) != "" || len(r.hash) != 64 {
				t.Fatalf("request %+v", r)
			}
		}
	})
}
