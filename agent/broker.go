package agent

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// brokerClient speaks to the broker's door for runners.
type brokerClient struct {
	url   string
	roots *x509.CertPool
}

const (
	brokerTimeout = 10 * time.Second
	maxAnswer     = 1 << 20
)

func newBrokerClient(url, caFile string) (*brokerClient, error) {
	c := &brokerClient{url: url}
	if caFile == "" {
		return c, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	c.roots = x509.NewCertPool()
	if !c.roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("ca: %s holds no certificate in PEM", caFile)
	}
	return c, nil
}

// refusal is a "no" of the broker: it would be the same a second later.
type refusal struct {
	code proviso.Code
	text string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the broker refuses (%s): %s", r.code, bounded(r.text))
}

func bounded(s string) string {
	if len(s) > 500 {
		s = s[:500] + "..."
	}
	return s
}

// call makes one request on a connection of its own: a connection that was made
// with an older SVID would go on showing it.
func (c *brokerClient) call(ctx context.Context, method, path string, body any, cert *tls.Certificate) (document.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return document.Value{}, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, reader)
	if err != nil {
		return document.Value{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.roots}
	if cert != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: brokerTimeout, MaxResponseHeaderBytes: 32 << 10}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it redirects, and no SVID is fetched from elsewhere")
	}}
	resp, err := client.Do(req)
	if err != nil {
		return document.Value{}, fmt.Errorf("the broker can't be reached: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return document.Value{}, fmt.Errorf("the broker's answer did not arrive whole: %w", err)
	}
	doc, err := document.Parse(data, document.Limits{Bytes: maxAnswer, Depth: 8, Members: 16384})
	if err != nil {
		return document.Value{}, fmt.Errorf("the broker's answer (%s) is not JSON", resp.Status)
	}
	if resp.StatusCode == http.StatusOK {
		return doc, nil
	}
	code, _ := doc.Get("code").Text()
	text, _ := doc.Get("error_description").Text()
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || code == "" {
		return document.Value{}, fmt.Errorf("the broker failed (%s): %s", resp.Status, bounded(text))
	}
	return document.Value{}, &refusal{proviso.Code(code), text}
}

// svid is an X.509-SVID with its key.
type svid struct {
	id      spiffeid.ID
	cert    *x509.Certificate
	key     crypto.Signer
	renewAt time.Time
}

func (s *svid) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key, Leaf: s.cert}
}

// evidence gets what the machine can show of itself, tied to the key that the
// SVID is asked for, where its kind can be tied to one.
func (c *brokerClient) evidence(ctx context.Context, kind string, key crypto.Signer) (string, error) {
	named, err := jose.NewKey("", jose.ES256, key.Public())
	if err != nil {
		return "", err
	}
	challenge := ""
	if evidence.NeedsChallenge(kind) {
		doc, err := c.call(ctx, http.MethodPost, "/challenge", nil, nil)
		if err != nil {
			return "", err
		}
		if challenge, _ = doc.Get("attestation_challenge").Text(); challenge == "" {
			return "", errors.New("the broker gives no challenge for evidence")
		}
	}
	made, err := evidence.Make(ctx, kind, c.url, challenge, named.Thumbprint())
	return made.Text, err
}

// fetch asks for an X.509-SVID for a key that is made here.
func (c *brokerClient) fetch(ctx context.Context, path string, body map[string]string, cert *tls.Certificate, now func() time.Time) (*svid, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return c.fetchFor(ctx, key, path, body, cert, now)
}

// fetchFor is fetch for a key that is there.
func (c *brokerClient) fetchFor(ctx context.Context, key crypto.Signer, path string, body map[string]string, cert *tls.Certificate, now func() time.Time) (*svid, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	if kind := body["kind"]; kind != "" && body["evidence"] == "" {
		if body["evidence"], err = c.evidence(ctx, kind, key); err != nil {
			return nil, err
		}
	}
	body["csr"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	doc, err := c.call(ctx, http.MethodPost, path, body, cert)
	if err != nil {
		return nil, err
	}
	text, _ := doc.Get("svid").Text()
	return readSVID([]byte(text), key, now())
}

// readSVID holds an SVID to what it has to be before it is used.
func readSVID(text []byte, key crypto.Signer, now time.Time) (*svid, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the broker's answer holds no certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("the broker's answer holds a certificate that can't be read")
	}
	id, err := x509svid.IDFromCert(cert)
	if err != nil || id.Path() == "" {
		return nil, errors.New("the broker's answer holds a certificate that is no SVID")
	}
	public, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("the broker's answer certifies another key")
	}
	left := cert.NotAfter.Sub(now)
	if left <= 0 {
		return nil, fmt.Errorf("the SVID ended at %s, and it is %s here; check the clocks", cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return &svid{id: id, cert: cert, key: key, renewAt: now.Add(renewAfter(left))}, nil
}

// bundle is the trust domain's bundle, in the forms that the Workload API wants.
type bundle struct {
	domain spiffeid.TrustDomain
	parsed *spiffebundle.Bundle
	x509   []byte // DER, one after the other
	jwt    []byte // a JWK set
	again  time.Time
}

// fetchBundle fetches the trust domain's bundle by the profile https_web. What
// the domain is called the SVID says, never the bundle.
func (c *brokerClient) fetchBundle(ctx context.Context, domain spiffeid.TrustDomain, now time.Time) (*bundle, error) {
	doc, err := c.call(ctx, http.MethodGet, "/spiffe/bundle", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("the trust domain's bundle: %w", err)
	}
	parsed, err := spiffebundle.Parse(domain, document.AppendCanonical(nil, doc))
	if err != nil {
		return nil, fmt.Errorf("the trust domain's bundle can't be read: %w", err)
	}
	if len(parsed.X509Authorities()) == 0 {
		return nil, errors.New("the trust domain's bundle has no authority")
	}
	b := &bundle{domain: domain, parsed: parsed}
	for _, ca := range parsed.X509Authorities() {
		b.x509 = append(b.x509, ca.Raw...)
	}
	if b.jwt, err = parsed.JWTBundle().Marshal(); err != nil {
		return nil, err
	}
	hint, ok := parsed.RefreshHint()
	if !ok {
		hint = 5 * time.Minute
	}
	b.again = now.Add(min(max(hint, time.Second), time.Hour))
	return b, nil
}

// follows reports whether a bundle may take the place of an older one.
func (b *bundle) follows(old *bundle) error {
	if old == nil || old.domain != b.domain {
		return nil
	}
	was, had := old.parsed.SequenceNumber()
	is, has := b.parsed.SequenceNumber()
	if had && (!has || is < was) {
		return fmt.Errorf("the trust domain's bundle has the sequence %d, and %d was there before: an older one is not taken", is, was)
	}
	return nil
}

// jwt is a JWT-SVID.
type jwt struct {
	id, token string
	fetchAt   time.Time // from then on a newer one is fetched
	expires   time.Time
}

func (c *brokerClient) fetchJWT(ctx context.Context, own *svid, workload, audience string, now time.Time) (jwt, error) {
	doc, err := c.call(ctx, http.MethodPost, "/runner/renew", map[string]string{"workload": workload, "audience": audience}, own.tls())
	if err != nil {
		return jwt{}, err
	}
	token, _ := doc.Get("svid").Text()
	id, _ := doc.Get("spiffe_id").Text()
	seconds, _ := doc.Get("expires").Integer()
	expires := time.Unix(seconds, 0)
	if token == "" || id != own.id.String()+"/workload/"+workload || !expires.After(now) {
		return jwt{}, errors.New("the broker's answer holds no JWT-SVID of this workload")
	}
	return jwt{id: id, token: token, expires: expires, fetchAt: now.Add(expires.Sub(now) / 2)}, nil
}
