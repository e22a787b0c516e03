package runner

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// Bounds of how often a bundle endpoint is asked, whatever its hint says.
const (
	defaultRefresh  = 5 * time.Minute // without a hint (SPIFFE Federation section 5.1)
	shortestRefresh = 10 * time.Second
	longestRefresh  = time.Hour
	fetchTimeout    = 10 * time.Second
	firstRetry      = 2 * time.Second
	longestRetry    = time.Minute
)

// endpoint is a bundle endpoint (SPIFFE Federation section 5). go-spiffe
// verifies the SVID of one that has the profile https_spiffe, and reads the
// bundle. The request is our own: go-spiffe's follows redirects, asks any
// address that a name leads to, takes a proxy from the environment, and reads
// without end.
type endpoint struct {
	to       *source
	url      string
	shortest time.Duration
	client   *http.Client
}

// newEndpoint makes the origin of a checked configuration. bundleOf gives the
// bundle that an endpoint's own SVID of another trust domain is verified with.
func newEndpoint(to *source, b Bundle, shortest time.Duration, bundleOf func(spiffeid.TrustDomain) (*bundle, error)) (*endpoint, error) {
	e := &endpoint{to: to, url: b.URL, shortest: shortest}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if b.Profile == profileSPIFFE {
		id := spiffeid.RequireFromString(b.EndpointSPIFFEID) // checked by Check
		if b.File != "" {
			data, err := readFile(b.File, maxBundle)
			if err != nil {
				return nil, err
			}
			if to.floor, err = parseBundle(to.domain, data); err != nil {
				return nil, err
			}
		}
		verify := tlsconfig.VerifyPeerCertificate(endpointKeys{to, bundleOf}, tlsconfig.AuthorizeID(id))
		conf.InsecureSkipVerify = true // of the web's names and authorities, which have no say here
		conf.VerifyConnection = func(state tls.ConnectionState) error {
			if err := checkServer(state.PeerCertificates); err != nil {
				return &identityError{err}
			}
			var raw [][]byte
			for _, c := range state.PeerCertificates {
				raw = append(raw, c.Raw)
			}
			if err := verify(raw, nil); err != nil {
				return &identityError{err}
			}
			return nil
		}
	} else if b.CAFile != "" {
		pem, err := os.ReadFile(b.CAFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("there is no PEM certificate in %s", b.CAFile)
		}
	}
	u, err := url.Parse(b.URL)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(u.Hostname())
	here := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	dialer := &net.Dialer{Timeout: fetchTimeout, Control: keyset.DialControl(b.AllowPrivate, b.AllowPrivate && here)}
	e.client = &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: conf,
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e, nil
}

// endpointKeys are the bundles that an endpoint's SVID is verified with: of its
// own domain the one in use or, until there is one, the one that the operator
// brought; of another domain that domain's.
type endpointKeys struct {
	to       *source
	bundleOf func(spiffeid.TrustDomain) (*bundle, error)
}

// GetX509BundleForTrustDomain makes endpointKeys go-spiffe's x509bundle.Source.
func (k endpointKeys) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td != k.to.domain {
		b, err := k.bundleOf(td)
		if err != nil {
			return nil, err
		}
		return b.x509.GetX509BundleForTrustDomain(td)
	}
	b := k.to.current.Load()
	if b == nil {
		b = k.to.floor
	}
	if b == nil {
		return nil, fmt.Errorf("there is no bundle of %s to verify its endpoint with", td.Name())
	}
	return b.x509.GetX509BundleForTrustDomain(td)
}

// checkServer holds of an endpoint's SVID what go-spiffe leaves open.
func checkServer(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("it showed no certificate")
	}
	leaf := chain[0]
	if _, err := spiffeIDOf(leaf); err != nil {
		return err
	}
	return checkLeaf(leaf, longestStale, x509.ExtKeyUsageServerAuth)
}

// identityError is why an endpoint is not the one that it should be.
type identityError struct{ err error }

func (e *identityError) Error() string { return e.err.Error() }
func (e *identityError) Unwrap() error { return e.err }

func (e *endpoint) String() string { return e.url }

func (e *endpoint) look() {}

// run asks as often as the bundle's hint says, and sooner after a failure.
func (e *endpoint) run(ctx context.Context) {
	failures := 0
	for {
		err := e.refresh(ctx) // said in the log and in the status
		wait := e.hint()
		if err != nil {
			wait = min(wait, firstRetry<<min(failures, 10), longestRetry)
			failures++
		} else {
			failures = 0
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hint is how long the bundle in use asks its readers to wait, within bounds.
func (e *endpoint) hint() time.Duration {
	hint := defaultRefresh
	if b := e.to.current.Load(); b != nil && b.hint > 0 {
		hint = b.hint
	}
	return min(max(hint, e.shortest), longestRefresh)
}

func (e *endpoint) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	data, err := e.get(ctx)
	if err != nil {
		return e.to.fail(err)
	}
	return e.to.take(data)
}

func (e *endpoint) get(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url, nil)
	if err != nil {
		return nil, unheard("%v", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "proviso")
	res, err := e.client.Do(req)
	if err != nil {
		return nil, transportProblem(err)
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, unheard("%s redirects (%s), which is not followed; configure the address where the bundle lies", e.url, res.Status)
	case res.StatusCode != http.StatusOK:
		return nil, unheard("%s answers %s", e.url, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxBundle+1))
	if err == nil {
		err = ctx.Err() // an end that came with the deadline may be no end
	}
	if err != nil {
		return nil, unheard("reading %s: %v", e.url, err)
	}
	if len(data) > maxBundle {
		return nil, malformed("%s answers more than %d bytes", e.url, maxBundle)
	}
	return data, nil
}

func unheard(format string, args ...any) error {
	return &bundleError{CodeBundleEndpoint, fmt.Sprintf(format, args...)}
}

// transportProblem tells an endpoint that is somebody else from one that is down.
func transportProblem(err error) error {
	var (
		identity *identityError
		verify   *tls.CertificateVerificationError
	)
	code := CodeBundleEndpoint
	switch {
	case errors.As(err, &identity), errors.As(err, &verify), strings.Contains(err.Error(), "tls: "):
		code = CodeBundleEndpointIdentity
	case keyset.IsAddressError(err):
		code = keyset.CodeAddress
	}
	text := err.Error()
	var refused *proviso.Refusal
	if errors.As(err, &refused) {
		text = "the endpoint's certificate: " + refused.Public
	}
	return &bundleError{code, text}
}
