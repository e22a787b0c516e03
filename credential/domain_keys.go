package credential

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
)

// The two uses of a bundle's key. They are never the same key: whatever one of
// the two formats could be made to sign is worth nothing in the other.
const (
	useX509 = "x509-svid"
	useJWT  = "jwt-svid"
)

// A key's file is named after its use and the time it signs from, which is all
// of the state there is: jwt-svid-20261124T034100Z.pem. Beside a key of X.509
// lies its certificate, in .crt.
const keyTimeLayout = "20060102T150405Z"

// domainKey is one key of the authority.
type domainKey struct {
	use    string
	from   time.Time // signs from then on, until the next key's from
	file   string    // without .pem
	key    crypto.Signer
	public *jose.Key

	cert *x509.Certificate // use x509-svid
	lint *Authority        // the certificate, as the lints want it
	jwt  *jose.Signer      // use jwt-svid
}

// loadKeys reads all keys of one use, oldest first.
func (d *Domain) loadKeys(use string) ([]*domainKey, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var keys []*domainKey
	for _, e := range entries {
		stamp, ours := strings.CutPrefix(e.Name(), use+"-")
		stamp, isKey := strings.CutSuffix(stamp, ".pem")
		if !ours || !isKey {
			continue
		}
		from, err := time.Parse(keyTimeLayout, stamp)
		if err != nil {
			return nil, fmt.Errorf("%s is named like a key, but not %s-YYYYMMDDThhmmssZ.pem", e.Name(), use)
		}
		data, err := pass.ReadSecret(filepath.Join(d.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		private, err := pass.ParsePrivateKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		key, err := d.newKey(use, from, private)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b *domainKey) int { return a.from.Compare(b.from) })
	return keys, nil
}

func (d *Domain) createKey(use string, from time.Time) (*domainKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := pass.MarshalPrivateKey(private)
	if err != nil {
		return nil, err
	}
	from = from.UTC().Truncate(time.Second)
	if err := pass.WriteSecret(d.dir, use+"-"+from.Format(keyTimeLayout)+".pem", data); err != nil {
		return nil, fmt.Errorf("a new key can't be kept: %w", err)
	}
	return d.newKey(use, from, private)
}

func (d *Domain) newKey(use string, from time.Time, private crypto.Signer) (*domainKey, error) {
	public, ok := private.Public().(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("is not a P-256 key, as Proviso makes them")
	}
	k := &domainKey{use: use, from: from, file: use + "-" + from.Format(keyTimeLayout), key: private}
	bare, err := jose.NewKey("", jose.ES256, public)
	if err != nil {
		return nil, err
	}
	if use == useJWT {
		// The kid is the thumbprint: a name that can't be another key's.
		if k.jwt, err = jose.NewSigner(private, jose.ES256, bare.Thumbprint(), "JWT", false); err == nil {
			k.public = k.jwt.Key()
		}
		return k, err
	}
	k.public = bare
	if k.cert, err = d.rootOf(k); err != nil {
		return nil, err
	}
	k.lint = &Authority{cert: k.cert, key: private, now: d.now}
	return k, nil
}

// rootOf reads the key's certificate, or makes it: at once after the key, or
// after a crash between the two.
func (d *Domain) rootOf(k *domainKey) (*x509.Certificate, error) {
	name := k.file + ".crt"
	data, err := pass.ReadSecret(filepath.Join(d.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		if data, err = d.createRoot(k); err == nil {
			err = pass.WriteSecret(d.dir, name, data)
		}
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is not a PEM certificate", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	public, ok := k.key.Public().(*ecdsa.PublicKey)
	id := len(cert.URIs) == 1 && cert.URIs[0].String() == d.ID("")
	if !ok || !public.Equal(cert.PublicKey) || !cert.IsCA || !id || len(cert.SubjectKeyId) == 0 {
		return nil, fmt.Errorf("%s is not the root of %s with the key beside it", name, d.ID(""))
	}
	return cert, nil
}

// createRoot signs the root: an authority's certificate with the trust domain's
// own SPIFFE ID (X509-SVID section 3), which lives until the last SVID that it
// can sign has ended, and once more its time, should the next key be late.
func (d *Domain) createRoot(k *domainKey) ([]byte, error) {
	serial := newID()
	number, _ := new(big.Int).SetString(serial, 16)
	template := &x509.Certificate{
		SerialNumber: number, URIs: []*url.URL{{Scheme: "spiffe", Host: d.cfg.Name}},
		Subject:   pkix.Name{CommonName: "Proviso SPIFFE authority", SerialNumber: serial[:16]},
		NotBefore: d.now().UTC().Truncate(time.Second).Add(-backdate), NotAfter: k.from.Add(2*d.cfg.Rotate + keepKeys),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.key.Public(), k.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// removeKey deletes the certificate first: a key without one is made whole again
// by the next start, and deleted by it.
func (d *Domain) removeKey(k *domainKey) error {
	if err := os.Remove(filepath.Join(d.dir, k.file+".crt")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Remove(filepath.Join(d.dir, k.file+".pem"))
}

// replaceFile writes a public file in one step.
func replaceFile(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has its other name by then, or is worthless
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	at, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(at.Sync(), at.Close())
}
