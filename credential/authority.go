package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/pass"
)

// CAConfig is the section "ca" of the configuration: the embedded authority
// that signs client certificates.
type CAConfig struct {
	// Name is the common name of the authority's certificate, "Proviso CA" by
	// default. It can't change later: resources know the authority by it.
	Name string `yaml:"name,omitempty"`
	// Life is how long the authority's certificate is valid: 30 days to 20 years,
	// by default 10 years. No certificate outlives it.
	Life time.Duration `yaml:"life,omitempty"`
}

const (
	day           = 24 * time.Hour
	defaultCALife = 3653 * day
	// backdate makes up for clocks that are slow (at most 60 s).
	backdate = pass.MaxSkew
)

func (c CAConfig) withDefaults() CAConfig {
	if c.Name == "" {
		c.Name = "Proviso CA"
	}
	if c.Life == 0 {
		c.Life = defaultCALife
	}
	return c
}

// Validate gives what is wrong, by the path of the member.
func (c CAConfig) Validate() []Problem {
	c = c.withDefaults()
	var out []Problem
	if len(c.Name) > 64 || !isPrintableASCII(c.Name) || strings.ContainsAny(c.Name, `"\,+<>;=#`) {
		out = append(out, problem("name", "%q is not a common name of at most 64 plain characters", c.Name))
	}
	if c.Life < 30*day || c.Life > 20*366*day {
		out = append(out, problem("life", "%v is not between 720h (30 days) and 20 years; write 87600h for 10 years", c.Life))
	}
	return out
}

// The authority's files. The certificate is public, but stands beside the key.
const (
	caKeyFile  = "ca-key.pem"
	caCertFile = "ca-cert.pem"
)

// Authority is the embedded certificate authority. It may be used by many
// goroutines.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte

	// The rehearsal: the same authority under a key that nobody trusts and that
	// dies with the process.
	stage    *x509.Certificate
	stageKey crypto.Signer
	now      func() time.Time
}

// OpenAuthority reads the authority in dir, or makes it at first start.
func OpenAuthority(dir string, cfg CAConfig, now func() time.Time) (*Authority, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("ca.%s", problems[0])
	}
	if now == nil {
		now = time.Now
	}
	a := &Authority{now: now}
	if err := a.load(dir, cfg.withDefaults()); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	return a, a.prepareRehearsal()
}

func (a *Authority) load(dir string, cfg CAConfig) error {
	data, err := pass.ReadSecret(filepath.Join(dir, caKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(dir, caCertFile)); err == nil {
			return fmt.Errorf("%s is there, but not %s; restore the key, or remove both for a new authority", caCertFile, caKeyFile)
		}
		data, err = createCAKey(dir)
	}
	if err != nil {
		return err
	}
	if a.key, err = pass.ParsePrivateKey(data); err != nil {
		return fmt.Errorf("%s: %w", caKeyFile, err)
	}
	if a.pem, err = pass.ReadSecret(filepath.Join(dir, caCertFile)); errors.Is(err, os.ErrNotExist) {
		// First start, or a crash in the middle of it: the key never signed anything.
		a.pem, err = createCACertificate(dir, cfg, a.key, a.now())
	}
	if err != nil {
		return err
	}
	return a.check()
}

func createCAKey(dir string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := pass.MarshalPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return data, pass.WriteSecret(dir, caKeyFile, data)
}

func createCACertificate(dir string, cfg CAConfig, key crypto.Signer, now time.Time) ([]byte, error) {
	serial, ok := new(big.Int).SetString(newID(), 16)
	if !ok {
		return nil, errors.New("no serial number")
	}
	now = now.UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cfg.Name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(cfg.Life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// An authority for clients only: it can't be used to impersonate a server.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return data, pass.WriteSecret(dir, caCertFile, data)
}

// check holds what was read to what createCACertificate writes.
func (a *Authority) check() error {
	block, rest := pem.Decode(a.pem)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("%s is not one PEM certificate", caCertFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w", caCertFile, err)
	}
	public, ok := a.key.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() || !public.Equal(cert.PublicKey) {
		return fmt.Errorf("%s is not of the P-256 key in %s", caCertFile, caKeyFile)
	}
	if !cert.IsCA || !cert.MaxPathLenZero || cert.KeyUsage&x509.KeyUsageCertSign == 0 || len(cert.SubjectKeyId) == 0 || cert.CheckSignatureFrom(cert) != nil {
		return fmt.Errorf("%s is not an authority's certificate as Proviso makes it", caCertFile)
	}
	if !a.now().Before(cert.NotAfter) {
		return fmt.Errorf("%s expired at %s; move both files away for a new authority, and tell the resources", caCertFile, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	a.cert = cert
	return nil
}

// prepareRehearsal makes the twin that signs only for the lint.
func (a *Authority) prepareRehearsal() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	twin := *a.cert
	twin.PublicKey = key.Public()
	a.stage, a.stageKey = &twin, key
	return nil
}

// CertificatePEM is what resources trust; it is public.
func (a *Authority) CertificatePEM() []byte { return bytes.Clone(a.pem) }

// Expires is when the authority's own certificate does.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// issue signs the one certificate that the terms describe: a rehearsal, the
// lint, the real signature, and a comparison of what was signed.
func (a *Authority) issue(t *audit.Terms, public crypto.PublicKey) ([]byte, error) {
	template, err := certificateOf(t, public)
	if err != nil {
		return nil, err
	}
	return a.sign(template, t, public)
}

func (a *Authority) sign(template *x509.Certificate, t *audit.Terms, public crypto.PublicKey) ([]byte, error) {
	rehearsal, err := x509.CreateCertificate(rand.Reader, template, a.stage, public, a.stageKey)
	if err != nil {
		return nil, fault("the rehearsal can't be signed", err)
	}
	read, err := x509.ParseCertificate(rehearsal)
	if err != nil {
		return nil, fault("the rehearsal can't be read", err)
	}
	if err := lintCertificate(read, t, a); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fault("the certificate can't be signed", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil || !bytes.Equal(cert.RawTBSCertificate, read.RawTBSCertificate) {
		return nil, fault("the certificate is not the one that was rehearsed", err)
	}
	return der, nil
}

func fault(what string, err error) *proviso.Refusal {
	return proviso.Refuse(proviso.StageCredential, CodeCertificateLint,
		"the broker refused to sign this certificate, because it is not what was decided; its operator finds the cause in the log").Because(
		fmt.Errorf("%s: %w", what, err))
}

// certificateOf builds the certificate of the terms.
func certificateOf(t *audit.Terms, public crypto.PublicKey) (*x509.Certificate, error) {
	serial, ok := new(big.Int).SetString(t.ID, 16)
	keyID, err := keyIDOf(public)
	if !ok || err != nil {
		return nil, fault("serial number or key", err)
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    t.NotBefore.UTC(),
		NotAfter:     t.Expires.UTC().Add(-time.Second), // both ends count (RFC 5280 section 4.1.2.5)
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
		SubjectKeyId:          keyID,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}
	for _, name := range t.Names {
		form, value, _ := strings.Cut(name, ":")
		switch form {
		case "uri":
			u, err := url.Parse(value)
			if err != nil {
				return nil, fault("a name", err)
			}
			c.URIs = append(c.URIs, u)
		case "dns":
			c.DNSNames = append(c.DNSNames, value)
		case "cn":
			c.Subject.CommonName = value
		default:
			return nil, fault("a name", errors.New("unknown form "+form))
		}
	}
	return c, nil
}

// keyIDOf is RFC 7093 section 2 method 1: the first 160 bits of the SHA-256 of
// the subjectPublicKey.
func keyIDOf(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki.Key.RightAlign())
	return sum[:20], nil
}
