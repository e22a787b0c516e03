package runner_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/runner"
)

const (
	broker = "https://proviso.acme.example"
	domain = "runners.acme.example"
	goodID = "spiffe://" + domain + "/region/us-west-2/runner/trusted-runner-1"
)

// authority is a small SPIFFE authority that issues whatever a test asks for,
// with the standard library and go-jose: none of the code under test.
type authority struct {
	t      testing.TB
	domain string
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	jwtKey *ecdsa.PrivateKey
	kid    string
	file   string
	now    time.Time
}

func newAuthority(t testing.TB, td string, now time.Time) *authority {
	t.Helper()
	a := &authority{t: t, domain: td, kid: "jwt-1", now: now, file: filepath.Join(t.TempDir(), "bundle.json")}
	a.key, a.jwtKey = newECKey(t), newECKey(t)
	a.root = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "root of " + td}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: td}},
	}, nil, a.key, &a.key.PublicKey)
	a.write(1)
	return a
}

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate under a parent, by itself without one.
func (a *authority) sign(template, parent *x509.Certificate, by crypto.Signer, public crypto.PublicKey) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// leaf issues an X.509-SVID; edits change its template.
func (a *authority) leaf(id string, edits ...func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	return a.leafFor(id, &newECKey(a.t).PublicKey, edits...)
}

func (a *authority) leafFor(id string, public crypto.PublicKey, edits ...func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		URIs: []*url.URL{u}, KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		NotBefore:   a.now.Add(-time.Minute), NotAfter: a.now.Add(time.Hour),
	}
	for _, edit := range edits {
		edit(template)
	}
	return a.sign(template, a.root, a.key, public)
}

// bundle gives the authority's bundle as a document that a test may change.
func (a *authority) bundle(sequence any) map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	coordinates := func(key *ecdsa.PrivateKey) (x, y []byte) {
		point, err := key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			a.t.Fatal(err)
		}
		return point[1:33], point[33:]
	}
	x, y := coordinates(a.jwtKey)
	rx, ry := coordinates(a.key)
	doc := map[string]any{"keys": []any{
		map[string]any{"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": b64(rx), "y": b64(ry),
			"x5c": []any{base64.StdEncoding.EncodeToString(a.root.Raw)}},
		map[string]any{"use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": a.kid, "x": b64(x), "y": b64(y)},
	}}
	if sequence != nil {
		doc["spiffe_sequence"] = sequence
	}
	return doc
}

func (a *authority) write(sequence any) { a.writeDocument(a.bundle(sequence)) }

func (a *authority) writeDocument(doc any) {
	a.t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(a.file, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// claims are those of a good JWT-SVID.
func (a *authority) claims() map[string]any {
	return map[string]any{"sub": goodID, "aud": []string{broker}, "iat": a.now.Unix(), "exp": a.now.Add(5 * time.Minute).Unix()}
}

// token signs any claims under any header.
func (a *authority) token(claims any, header map[string]any) string {
	a.t.Helper()
	payload, ok := claims.([]byte)
	if !ok {
		var err error
		if payload, err = json.Marshal(claims); err != nil {
			a.t.Fatal(err)
		}
	}
	return a.tokenBy(a.jwtKey, payload, header)
}

func (a *authority) tokenBy(key *ecdsa.PrivateKey, payload []byte, header map[string]any) string {
	a.t.Helper()
	opts := &jose.SignerOptions{}
	kid := a.kid
	for name, value := range header {
		if name == "kid" {
			kid, _ = value.(string)
			continue
		}
		opts = opts.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		a.t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		a.t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		a.t.Fatal(err)
	}
	return compact
}

func (a *authority) config(name string) runner.Config {
	return runner.Config{Name: name, TrustDomain: a.domain, Bundle: runner.Bundle{File: a.file}, Path: "/region/{region}/runner/{id}"}
}

func (a *authority) verifier(edits ...func(*runner.Config)) *runner.Verifier {
	a.t.Helper()
	c := a.config("fleet")
	for _, edit := range edits {
		edit(&c)
	}
	return newVerifier(a.t, a.now, c)
}

func newVerifier(t testing.TB, now time.Time, configs ...runner.Config) *runner.Verifier {
	t.Helper()
	v, err := runner.New(configs, runner.Options{Audience: broker, Now: func() time.Time { return now }, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// verify shows evidence without a job.
func verify(v *runner.Verifier, ev runner.Evidence) (runner.Runner, error) {
	return v.Verify(context.Background(), ev, identity.Job{})
}

// wantRefusal checks the code and a word of the public sentence, and that no
// evidence is quoted anywhere.
func wantRefusal(t *testing.T, err error, code proviso.Code, word string, secrets ...string) {
	t.Helper()
	var r *proviso.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal with %s", err, code)
	}
	if r.Stage != proviso.StageRunner || r.Code != code {
		t.Errorf("got stage %s, code %s; want %s: %v", r.Stage, r.Code, code, r)
	}
	if !strings.Contains(r.Public, word) {
		t.Errorf("the sentence %q doesn't name %q", r.Public, word)
	}
	for _, s := range secrets {
		if len(s) > 20 && strings.Contains(r.Error(), s[len(s)/2:]) {
			t.Errorf("the refusal quotes the evidence: %v", r)
		}
	}
}

// joseKey gives a certificate as an entry of a bundle.
func joseKey(cert *x509.Certificate) jose.JSONWebKey {
	return jose.JSONWebKey{Key: cert.PublicKey, Certificates: []*x509.Certificate{cert}, Use: "x509-svid"}
}
