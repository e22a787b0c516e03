package runner

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/proviso-ci/proviso"
)

// maxChain is the longest chain that is looked at: every certificate more is a
// signature that an outsider lets us verify.
const maxChain = 6

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
)

func svidInvalid(public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRunner, proviso.CodeSVIDInvalid, public, args...)
}

// verifyX509 verifies an X.509-SVID (X509-SVID section 5.2). Leaf first; that
// the caller holds the leaf's key is the TLS handshake's matter.
func (v *Verifier) verifyX509(chain []*x509.Certificate, now time.Time) (attested, error) {
	if len(chain) > maxChain {
		return attested{}, svidInvalid("the X.509-SVID's chain has %d certificates, at most %d are taken", len(chain), maxChain)
	}
	leaf := chain[0]
	id, err := spiffeIDOf(leaf)
	if err != nil {
		return attested{}, err
	}
	d, err := v.domainOf(id)
	if err != nil {
		return attested{}, err
	}
	b, err := d.source.usable()
	if err != nil {
		return attested{}, err
	}
	key := chainKey(chain)
	proved, known := b.chains.get(key)
	if !known {
		if err := checkLeaf(leaf, d.cfg.MaxX509Lifetime, x509.ExtKeyUsageClientAuth); err != nil {
			return attested{}, err
		}
		// Before the chain, so that the most common cause is told from the worst.
		if err := validAt(now, leaf.NotBefore, leaf.NotAfter); err != nil {
			return attested{}, err
		}
		if proved, err = verifyChain(chain, id, b, now); err != nil {
			return attested{}, err
		}
		b.chains.put(key, proved)
	}
	if err := validAt(now, proved.from, proved.through); err != nil {
		return attested{}, err
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	return attested{
		domain: d, id: id, kind: AttestationX509,
		hash: hex.EncodeToString(fingerprint[:]), digest: fingerprint, issued: leaf.NotBefore, expires: proved.through, chain: leaf,
	}, nil
}

// validAt judges the time, without leeway: an agent rotates long before the end.
func validAt(now, from, through time.Time) error {
	switch {
	case now.Before(from):
		return svidInvalid("the X.509-SVID is valid only from %s, it is %s; check the clocks", stamp(from), stamp(now))
	case !now.Before(through):
		return svidInvalid("the X.509-SVID expired at %s, it is %s; let the agent rotate it", stamp(through), stamp(now))
	}
	return nil
}

// spiffeIDOf reads the one URI SAN of a certificate as a SPIFFE ID with a path.
// It compares what was parsed with the certificate's own bytes, because a URL
// that is parsed and written again may lose something (an empty fragment).
func spiffeIDOf(cert *x509.Certificate) (spiffeid.ID, error) {
	raw, err := uriNames(cert)
	if err != nil {
		return spiffeid.ID{}, svidInvalid("the certificate's subject alternative names are malformed").Because(err)
	}
	if len(raw) != 1 || len(cert.URIs) != 1 {
		return spiffeid.ID{}, svidInvalid("an X.509-SVID has exactly one URI SAN, this certificate has %d", len(raw))
	}
	id, err := x509svid.IDFromCert(cert)
	if err != nil || id.String() != raw[0] || len(raw[0]) > maxID {
		return spiffeid.ID{}, svidInvalid("the certificate's URI SAN is no SPIFFE ID").Because(err)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, svidInvalid("the X.509-SVID names the trust domain %s itself and no workload in it: a leaf has a path", id.TrustDomain().Name())
	}
	return id, nil
}

// uriNames gives the URI SANs of a certificate as they stand in it.
func uriNames(cert *x509.Certificate) ([]string, error) {
	var names []string
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(oidSubjectAltName) {
			continue
		}
		der := cryptobyte.String(ext.Value)
		var list cryptobyte.String
		if !der.ReadASN1(&list, cbasn1.SEQUENCE) || !der.Empty() {
			return nil, asn1.SyntaxError{Msg: "subjectAltName"}
		}
		for !list.Empty() {
			var name cryptobyte.String
			var tag cbasn1.Tag
			if !list.ReadAnyASN1(&name, &tag) {
				return nil, asn1.SyntaxError{Msg: "subjectAltName"}
			}
			if tag == cbasn1.Tag(6).ContextSpecific() {
				names = append(names, string(name))
			}
		}
	}
	return names, nil
}

// checkLeaf holds what the standard asks of a leaf (X509-SVID sections 4 and 5)
// and go-spiffe doesn't, and bounds its lifetime. role is the side of a TLS
// connection that it is shown on.
func checkLeaf(leaf *x509.Certificate, maxLifetime time.Duration, role x509.ExtKeyUsage) error {
	side := "clientAuth"
	if role == x509.ExtKeyUsageServerAuth {
		side = "serverAuth"
	}
	switch {
	case leaf.IsCA:
		return svidInvalid("the X.509-SVID is a CA certificate; a workload's has CA=false")
	case leaf.KeyUsage&x509.KeyUsageCertSign != 0:
		return svidInvalid("the X.509-SVID may sign certificates (keyCertSign); a workload's must not")
	case leaf.KeyUsage&x509.KeyUsageCRLSign != 0:
		return svidInvalid("the X.509-SVID may sign revocation lists (cRLSign); a workload's must not")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return svidInvalid("the X.509-SVID lacks the key usage digitalSignature")
	case !hasCriticalKeyUsage(leaf):
		return svidInvalid("the X.509-SVID's key usage is not marked critical")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, role):
		return svidInvalid("the X.509-SVID has extended key usages, and %s is not among them", side)
	case leaf.NotAfter.Sub(leaf.NotBefore) > maxLifetime:
		return svidInvalid("the X.509-SVID lives for %s, at most %s is taken here; issue shorter ones", leaf.NotAfter.Sub(leaf.NotBefore), maxLifetime)
	}
	if err := checkStrength(leaf.PublicKey); err != nil {
		return svidInvalid("the X.509-SVID's key is too weak: %v", err)
	}
	return nil
}

func hasCriticalKeyUsage(cert *x509.Certificate) bool {
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(oidKeyUsage) {
			return ext.Critical
		}
	}
	return false
}

// verifyChain has go-spiffe verify the chain against the domain's own bundle,
// at the given time, and says in which time the chain that it found holds.
func verifyChain(chain []*x509.Certificate, id spiffeid.ID, b *bundle, now time.Time) (verifiedChain, error) {
	verified, paths, err := x509svid.Verify(chain, b, x509svid.WithTime(now))
	if err != nil {
		return verifiedChain{}, svidInvalid("the X.509-SVID was not issued by the trust domain %s, or is not valid now", id.TrustDomain().Name()).Because(err)
	}
	if verified != id {
		return verifiedChain{}, svidInvalid("the X.509-SVID can be read as two SPIFFE IDs")
	}
	// Of several paths the one that lasts longest counts. A signing certificate
	// may name its trust domain; one that names another has no business here.
	var best verifiedChain
	for _, path := range paths {
		from, through, ok := span(path, id.TrustDomain())
		if ok && (best.id == "" || through.After(best.through)) {
			best = verifiedChain{id: id.String(), from: from, through: through}
		}
	}
	if best.id == "" {
		return verifiedChain{}, svidInvalid("the X.509-SVID's issuer belongs to another trust domain than %s", id.TrustDomain().Name())
	}
	return best, nil
}

// span gives the time in which every certificate of a path is valid; ok is
// false if a signing certificate names another trust domain, or a workload.
func span(path []*x509.Certificate, td spiffeid.TrustDomain) (from, through time.Time, ok bool) {
	for i, cert := range path {
		if i == 0 || cert.NotBefore.After(from) {
			from = cert.NotBefore
		}
		if i == 0 || cert.NotAfter.Before(through) {
			through = cert.NotAfter
		}
		if i > 0 && len(cert.URIs) > 0 {
			id, err := x509svid.IDFromCert(cert)
			if err != nil || !id.MemberOf(td) || id.Path() != "" {
				return from, through, false
			}
		}
	}
	return from, through, true
}

// chainKey names a chain by all of its bytes.
func chainKey(chain []*x509.Certificate) [32]byte {
	h := sha256.New()
	var n [8]byte
	for _, cert := range chain {
		binary.BigEndian.PutUint64(n[:], uint64(len(cert.Raw)))
		h.Write(n[:])
		h.Write(cert.Raw)
	}
	return [32]byte(h.Sum(nil))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
