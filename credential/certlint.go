package credential

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/audit"
)

// A certLint holds one property of a rehearsed certificate. It gives "", or
// what is wrong. Lints read the finished bytes and the terms, never the
// template that the certificate was made from: they exist to catch its mistakes.
type certLint struct {
	name  string
	check func(c *x509.Certificate, t *audit.Terms, a *Authority) string
}

// certLints are all of them; the tests break each property and show that its
// lint, by name, refuses.
var certLints = []certLint{
	{"version", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		return unless(c.Version == 3, "version %d", c.Version)
	}},
	{"signature", func(c *x509.Certificate, _ *audit.Terms, a *Authority) string {
		// Under the rehearsal's key, and not under the real one.
		switch {
		case c.SignatureAlgorithm != x509.ECDSAWithSHA256:
			return c.SignatureAlgorithm.String()
		case a.stage.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil:
			return "not by the rehearsal's key"
		case a.cert.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil:
			return "the rehearsal was signed with the real key"
		}
		return ""
	}},
	{"serial", func(c *x509.Certificate, t *audit.Terms, _ *Authority) string {
		ok := c.SerialNumber.Sign() > 0 && len(t.ID) == 32 && hex.EncodeToString(c.SerialNumber.Bytes()) == t.ID
		return unless(ok, "serial number is not the recorded 128-bit id")
	}},
	{"issuer", func(c *x509.Certificate, _ *audit.Terms, a *Authority) string {
		ok := bytes.Equal(c.RawIssuer, a.cert.RawSubject) && len(c.AuthorityKeyId) > 0 && bytes.Equal(c.AuthorityKeyId, a.cert.SubjectKeyId)
		return unless(ok, "issuer or authority key id is not the authority's")
	}},
	{"subject", lintSubject},
	{"names", lintNames},
	{"usage", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		ok := c.KeyUsage == x509.KeyUsageDigitalSignature && isCritical(c, oidKeyUsage)
		return unless(ok, "key usage is not digitalSignature alone, critical")
	}},
	{"extended usage", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		ok := slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) && len(c.UnknownExtKeyUsage) == 0
		return unless(ok, "extended key usage is not clientAuth alone")
	}},
	{"no authority", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		ok := c.BasicConstraintsValid && !c.IsCA && isCritical(c, oidBasicConstraints)
		return unless(ok, "it is an authority, or doesn't say that it is none")
	}},
	{"lifetime", lintLifetime},
	{"key", func(c *x509.Certificate, t *audit.Terms, a *Authority) string {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		switch {
		case hex.EncodeToString(sum[:]) != t.KeyHash:
			return "the key is not the recorded one"
		case bytes.Equal(c.RawSubjectPublicKeyInfo, a.cert.RawSubjectPublicKeyInfo):
			return "the key is the authority's own"
		}
		return weakKey(c.PublicKey)
	}},
	{"key id", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		want, err := keyIDOf(c.PublicKey)
		return unless(err == nil && bytes.Equal(c.SubjectKeyId, want), "subject key id is not the key's")
	}},
	{"extensions", func(c *x509.Certificate, _ *audit.Terms, _ *Authority) string {
		for i, e := range c.Extensions {
			if !slices.ContainsFunc(leafExtensions, e.Id.Equal) {
				return fmt.Sprintf("unexpected extension %v", e.Id)
			}
			if slices.ContainsFunc(c.Extensions[:i], func(o pkixExtension) bool { return o.Id.Equal(e.Id) }) {
				return fmt.Sprintf("extension %v is there twice", e.Id)
			}
		}
		return unless(len(c.Extensions) == len(leafExtensions), "an extension is missing")
	}},
}

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	// leafExtensions are all that a leaf has: key ids, usages, constraints, names.
	leafExtensions = []asn1.ObjectIdentifier{
		{2, 5, 29, 14}, oidKeyUsage, oidSAN, oidBasicConstraints, {2, 5, 29, 35}, {2, 5, 29, 37},
	}
)

// lintCertificate runs all lints, and refuses with all that they found.
func lintCertificate(c *x509.Certificate, t *audit.Terms, a *Authority) error {
	var found []error
	for _, l := range certLints {
		if why := l.check(c, t, a); why != "" {
			found = append(found, fmt.Errorf("lint %s: %s", l.name, why))
		}
	}
	if len(found) > 0 {
		return fault("the rehearsal is not what the terms say", errors.Join(found...))
	}
	return nil
}

func unless(ok bool, why string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(why, args...)
}

func isCritical(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Critical
		}
	}
	return false
}

// lintSubject: nothing, or the one common name of the terms.
func lintSubject(c *x509.Certificate, t *audit.Terms, _ *Authority) string {
	var want []string
	for _, n := range t.Names {
		if cn, ok := strings.CutPrefix(n, "cn:"); ok {
			want = append(want, cn)
		}
	}
	if len(want) == 0 {
		return unless(bytes.Equal(c.RawSubject, []byte{0x30, 0}), "the subject is not empty")
	}
	ok := len(want) == 1 && len(c.Subject.Names) == 1 && c.Subject.Names[0].Type.Equal(oidCommonName) && c.Subject.CommonName == want[0]
	return unless(ok, "the subject is not the recorded common name alone")
}

// lintNames: exactly one alternative name, the recorded one, byte for byte; and
// critical where the subject is empty (RFC 5280 section 4.2.1.6).
func lintNames(c *x509.Certificate, t *audit.Terms, _ *Authority) string {
	var want []string
	for _, n := range t.Names {
		if !strings.HasPrefix(n, "cn:") {
			want = append(want, n)
		}
	}
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidSAN) {
			continue
		}
		got, ok := readSAN(e.Value)
		empty := bytes.Equal(c.RawSubject, []byte{0x30, 0})
		return unless(ok && len(want) == 1 && slices.Equal(got, want) && (e.Critical || !empty), "the alternative name is not the recorded one, alone")
	}
	return "there is no alternative name"
}

// lintLifetime: the recorded one or less, inside of the authority's, and
// backdated by no more than what makes up for slow clocks.
func lintLifetime(c *x509.Certificate, t *audit.Terms, a *Authority) string {
	switch now := a.now(); {
	case c.NotBefore.Before(t.NotBefore), c.NotAfter.Add(time.Second).After(t.Expires):
		return "it is valid for longer than the terms say"
	case !c.NotAfter.After(c.NotBefore), !c.NotAfter.After(now):
		return "it is never valid"
	case c.NotBefore.Before(now.Add(-2 * backdate)):
		return "it is backdated too far"
	case c.NotBefore.Before(a.cert.NotBefore), c.NotAfter.After(a.cert.NotAfter):
		return "it outlives the authority"
	}
	return ""
}
