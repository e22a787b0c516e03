package lab

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// SPIFFEOptions are ready for use when zero.
type SPIFFEOptions struct {
	// Now is the authority's clock; nil is the real one.
	Now func() time.Time
	// X509Life and JWTLife say how long SVIDs live; default 1 h and 5 min.
	X509Life, JWTLife time.Duration
	// RefreshHint is what the bundle asks its readers for; default 5 min.
	RefreshHint time.Duration
}

// SPIFFE is the authority of one trust domain: it signs SVIDs, publishes its
// bundle as a file and at an endpoint, and serves the Workload API to the
// processes of this machine.
type SPIFFE struct {
	td   spiffeid.TrustDomain
	opts SPIFFEOptions
	dir  string
	own  bool // dir was made here, and goes with Close
	api  *workloadAPI

	mu        sync.Mutex // guards everything below
	cas       []*authority
	jwtKeys   []*Key // the last one signs
	sequence  uint64
	served    []string // SPIFFE IDs that the Workload API gives out
	federated map[spiffeid.TrustDomain]*SPIFFE
	faults    Faults        // of the bundle endpoint
	changed   chan struct{} // closed at each change, then replaced
	endpoints []*server
}

// authority is one X.509 root; the last one of a trust domain signs.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewSPIFFE starts the authority of a trust domain. Its socket and its bundle
// file lie in dir; "" makes a directory of its own, which Close removes.
func NewSPIFFE(trustDomain, dir string, o SPIFFEOptions) (*SPIFFE, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.X509Life = cmp.Or(o.X509Life, time.Hour)
	o.JWTLife = cmp.Or(o.JWTLife, 5*time.Minute)
	o.RefreshHint = cmp.Or(o.RefreshHint, 5*time.Minute)
	s := &SPIFFE{td: td, opts: o, dir: dir, changed: make(chan struct{}), federated: map[spiffeid.TrustDomain]*SPIFFE{}}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "lab-spiffe-"); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
		s.own = true
	}
	if err := s.RotateAuthorities(); err != nil {
		return nil, err
	}
	if s.api, err = serveWorkloadAPI(s, filepath.Join(s.dir, "workload.sock")); err != nil {
		return nil, err
	}
	return s, nil
}

// TrustDomain gives the trust domain's name.
func (s *SPIFFE) TrustDomain() string { return s.td.Name() }

// ID gives the SPIFFE ID of a path in the trust domain.
func (s *SPIFFE) ID(path string) string { return s.td.IDString() + path }

// Socket is the value for SPIFFE_ENDPOINT_SOCKET.
func (s *SPIFFE) Socket() string { return "unix://" + s.api.path }

// BundleFile is the path of the bundle, written again at each change.
func (s *SPIFFE) BundleFile() string { return filepath.Join(s.dir, "bundle.json") }

// Close ends the Workload API and the bundle endpoints.
func (s *SPIFFE) Close() error {
	s.api.close()
	s.mu.Lock()
	endpoints := s.endpoints
	s.endpoints = nil
	s.mu.Unlock()
	var err error
	for _, e := range endpoints {
		err = cmp.Or(err, e.Close())
	}
	if s.own {
		err = cmp.Or(err, os.RemoveAll(s.dir))
	}
	return err
}

// Serve says for which paths of the trust domain ("/ci/job") the Workload API
// gives SVIDs to whoever asks. None means that it knows nobody.
func (s *SPIFFE) Serve(paths ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served = nil
	for _, p := range paths {
		s.served = append(s.served, s.ID(p))
	}
	s.notify()
}

// Federate makes the Workload API hand out another domain's bundle too.
func (s *SPIFFE) Federate(other *SPIFFE) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.federated[other.td] = other
	s.notify()
}

// Unfederate ends Federate: the other domain's bundle is handed out no more.
func (s *SPIFFE) Unfederate(other *SPIFFE) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.federated, other.td)
	s.notify()
}

// RotateSVIDs gives every process that watches the Workload API fresh SVIDs.
func (s *SPIFFE) RotateSVIDs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify()
}

// RotateAuthorities makes a new root and a new JWT key and signs with them from
// now on; the older ones stay in the bundle until RetireAuthorities.
func (s *SPIFFE) RotateAuthorities() error {
	ca, err := s.newAuthority()
	if err != nil {
		return err
	}
	key, err := NewKey("ES256")
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cas, s.jwtKeys = append(s.cas, ca), append(s.jwtKeys, key)
	s.notify()
	return s.writeBundle()
}

// RetireAuthorities withdraws every root and key but those that sign.
func (s *SPIFFE) RetireAuthorities() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cas, s.jwtKeys = s.cas[len(s.cas)-1:], s.jwtKeys[len(s.jwtKeys)-1:]
	s.notify()
	return s.writeBundle()
}

// Impostor starts another authority that claims the same trust domain: its
// SVIDs look right and are signed by nobody whom the bundle knows.
func (s *SPIFFE) Impostor() (*SPIFFE, error) { return NewSPIFFE(s.td.Name(), "", s.opts) }

// notify wakes every watcher. Called with mu held.
func (s *SPIFFE) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *SPIFFE) newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	now := s.opts.Now()
	cert, err := certify(&x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"lab"}, CommonName: s.td.Name()},
		URIs:      []*url.URL{s.td.ID().URL()},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, key, key.Public())
	if err != nil {
		return nil, err
	}
	return &authority{cert, key}, nil
}

// Bundle gives the trust domain's bundle as it is now.
func (s *SPIFFE) Bundle() (*spiffebundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bundle()
}

func (s *SPIFFE) bundle() (*spiffebundle.Bundle, error) {
	b := spiffebundle.New(s.td)
	for _, ca := range s.cas {
		b.AddX509Authority(ca.cert)
	}
	for _, k := range s.jwtKeys {
		if err := b.AddJWTAuthority(k.ID, k.Public()); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
	}
	b.SetSequenceNumber(s.sequence)
	b.SetRefreshHint(s.opts.RefreshHint)
	return b, nil
}

// writeBundle puts the bundle into its file in one step. Called with mu held.
func (s *SPIFFE) writeBundle() error {
	s.sequence++
	b, err := s.bundle()
	if err != nil {
		return err
	}
	data, err := b.Marshal()
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	next := s.BundleFile() + ".next"
	if err := os.WriteFile(next, data, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return os.Rename(next, s.BundleFile())
}

// X509SVID signs an X.509-SVID for a path, by default as the SPIFFE standard
// wants it; edits change the template before it is signed.
func (s *SPIFFE) X509SVID(path string, edits ...func(*x509.Certificate)) (tls.Certificate, error) {
	s.mu.Lock()
	ca := s.cas[len(s.cas)-1]
	s.mu.Unlock()
	return s.x509SVID(ca, path, edits)
}

func (s *SPIFFE) x509SVID(ca *authority, path string, edits []func(*x509.Certificate)) (tls.Certificate, error) {
	id, err := url.Parse(s.ID(path))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab: %w", err)
	}
	now := s.opts.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"lab"}},
		URIs:      []*url.URL{id},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(s.opts.X509Life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, e := range edits {
		e(template)
	}
	leaf, err := certify(template, ca.cert, ca.key, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// JWTSVID signs a JWT-SVID for a path and one audience; edits forge it.
func (s *SPIFFE) JWTSVID(path, audience string, edits ...Edit) (string, error) {
	return s.jwtSVID(s.ID(path), []string{audience}, edits)
}

func (s *SPIFFE) jwtSVID(id string, audience []string, edits []Edit) (string, error) {
	now := s.opts.Now().Truncate(time.Second)
	s.mu.Lock()
	key := s.jwtKeys[len(s.jwtKeys)-1]
	s.mu.Unlock()
	claims := map[string]any{
		"sub": id, "aud": slices.Clone(audience),
		"iat": now.Unix(), "exp": now.Add(s.opts.JWTLife).Unix(),
	}
	return sealed(key, "JWT", claims, edits)
}
