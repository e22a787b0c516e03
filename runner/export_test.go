package runner

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Doors for tests outside of the package, which may import the lab.

// MatchPath parses a template and matches a path with it.
func MatchPath(text, path string) (bound map[string]string, matched bool, err error) {
	t, err := parseTemplate(text)
	if err != nil {
		return nil, false, err
	}
	bound = map[string]string{}
	return bound, t.match(path, func(name, value string) { bound[name] = value }), nil
}

// ParseBundle reads a bundle and counts its keys.
func ParseBundle(td string, data []byte) (x509s, jwts int, err error) {
	b, err := parseBundle(spiffeid.RequireTrustDomainFromString(td), data)
	if err != nil {
		return 0, 0, err
	}
	return len(b.x509.X509Authorities()), len(b.jwt), nil
}

// CheckLeaf holds a leaf against the standard, without its issuer and the time.
func CheckLeaf(leaf *x509.Certificate) error {
	if _, err := spiffeIDOf(leaf); err != nil {
		return err
	}
	return checkLeaf(leaf, 100*365*24*time.Hour, x509.ExtKeyUsageClientAuth)
}

// SubjectID reads a text as the sub of a JWT-SVID.
func SubjectID(text string) (id string, err error) {
	got, err := parseSubject(text)
	return got.String(), err
}

// ReloadNow looks at every bundle's file, whatever the interval.
func (v *Verifier) ReloadNow() error {
	for _, s := range v.sources {
		if err := s.origin.refresh(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// Remembered counts the chains that a trust domain's current bundle has verified.
func (v *Verifier) Remembered() int {
	n := 0
	for _, s := range v.sources {
		n += len(s.current.Load().chains.known)
	}
	return n
}

// Forget empties what the bundles remember of chains.
func (v *Verifier) Forget() {
	for _, s := range v.sources {
		c := &s.current.Load().chains
		c.known, c.ring, c.next = nil, nil, 0
	}
}

// VerifyCMS verifies a message with one certificate, and gives what was signed.
func VerifyCMS(data []byte, cert *x509.Certificate) ([]byte, error) {
	s, err := parseSignedData(data)
	if err != nil {
		return nil, err
	}
	if !s.isSigner(cert) {
		return nil, errors.New("somebody else's")
	}
	return s.content, s.verify(cert)
}

// ReadCMS reads a message, and gives what its signature is to cover.
func ReadCMS(data []byte) ([]byte, error) {
	s, err := parseSignedData(data)
	if err != nil {
		return nil, err
	}
	return s.content, nil
}

// ReadTPM reads bytes as each of the structures that come from strangers.
func ReadTPM(data []byte) {
	_, _ = attestationKey(data)
	_, _, _ = readAttested(data, nil)
	_ = verifyTPM(nil, nil, data)
}
