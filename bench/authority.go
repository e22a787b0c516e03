package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/credential"
)

// fleetSize is how many agents rotate.
const fleetSize = 10_000

// measureAuthority signs the X.509-SVIDs of a whole fleet, and beside each the
// same certificate bare: both see the same machine at the same time, so that the
// ratio is the authority's own.
func measureAuthority() (ratio float64, each time.Duration, err error) {
	dir, err := os.MkdirTemp("", "proviso-bench")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	domain, err := credential.OpenDomain(filepath.Join(dir, "domain"), credential.DomainConfig{Name: "fleet.example"}, nil)
	if err != nil {
		return 0, 0, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return 0, 0, err
	}
	sum := sha256.Sum256(spki)
	root := *domain.X509Authorities()[0]
	root.PublicKey = key.Public() // the same root under a key that is at hand
	begun := time.Now().UTC().Truncate(time.Second)
	var bare, whole time.Duration
	for i := range fleetSize {
		id := fmt.Sprintf("spiffe://fleet.example/region/eu/runner/r%d", i)
		terms := audit.Terms{Kind: "x509-svid", ID: fmt.Sprintf("4%031x", i), Subject: id, Names: []string{"uri:" + id},
			KeyHash: hex.EncodeToString(sum[:]), NotBefore: begun.Add(-30 * time.Second), Expires: begun.Add(time.Hour)}
		at := time.Now()
		if _, err := domain.SignX509(&terms, key.Public()); err != nil {
			return 0, 0, err
		}
		whole += time.Since(at)
		uri, err := url.Parse(id)
		if err != nil {
			return 0, 0, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 1), URIs: []*url.URL{uri}, NotBefore: terms.NotBefore, NotAfter: terms.Expires,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
		at = time.Now()
		if _, err := x509.CreateCertificate(rand.Reader, template, &root, key.Public(), key); err != nil {
			return 0, 0, err
		}
		bare += time.Since(at)
	}
	return bare.Seconds() / whole.Seconds(), whole / fleetSize, nil
}
