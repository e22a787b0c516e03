package credential

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/audit"
)

// svidLints are those of any certificate of ours, but for the two that a
// client certificate under a rehearsal has, and what X509-SVID demands beyond.
var svidLints = append(slices.DeleteFunc(slices.Clone(certLints), func(l certLint) bool {
	return l.name == "signature" || l.name == "extended usage"
}),
	certLint{"algorithm", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		return unless(c.SignatureAlgorithm == x509.ECDSAWithSHA256, "%v", c.SignatureAlgorithm)
	}},
	certLint{"svid usage", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		want := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		return unless(slices.Equal(c.ExtKeyUsage, want) && len(c.UnknownExtKeyUsage) == 0, "extended key usage is not clientAuth and serverAuth alone")
	}},
	// The authority's certificate names the trust domain: the leaf's ID lies in it.
	certLint{"spiffe id", func(c *x509.Certificate, t *audit.Terms, a *Authority) string {
		if len(c.URIs) != 1 || len(a.cert.URIs) != 1 {
			return "there is not exactly one URI"
		}
		id, ok := strings.CutPrefix(strings.Join(t.Names, " "), "uri:")
		if err := checkSPIFFEID(id, a.cert.URIs[0].Host); err != nil || !ok || c.URIs[0].String() != id {
			return "the URI is not the recorded SPIFFE ID of the authority's own trust domain"
		}
		return ""
	}},
)

// ecdsaWithSHA256 is the AlgorithmIdentifier of RFC 5758 section 3.2.
var ecdsaWithSHA256 = []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}

// lintSVID reads what is about to be signed as a stranger will read it, and
// holds it to the terms.
func (d *Domain) lintSVID(tbs []byte, t *audit.Terms, k *domainKey) error {
	der, err := asn1.Marshal(unsigned{asn1.RawValue{FullBytes: tbs}, asn1.RawValue{FullBytes: ecdsaWithSHA256}, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
	if err != nil {
		return fault("the X.509-SVID can't be read before it is signed", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fault("the X.509-SVID can't be read before it is signed", err)
	}
	var found []error
	for _, l := range svidLints {
		if why := l.check(c, t, k.lint); why != "" {
			found = append(found, fmt.Errorf("lint %s: %s", l.name, why))
		}
	}
	if len(found) > 0 {
		return fault("the X.509-SVID is not what the terms say", errors.Join(found...))
	}
	return nil
}
