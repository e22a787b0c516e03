// Package client is the job's side of a broker: it finds the job's own token on
// the CI platform that runs it, the runner's SVID at the SPIFFE Workload API,
// and exchanges them at POST /token (RFC 8693) for a credential.
//
// The client is careful with what it holds. It speaks HTTPS, or plain HTTP to
// a loopback address and nothing else, checked again when it dials; it follows
// no redirect, because a redirect would carry the job's token to somebody the
// job never named; every answer is bounded in size and time and read strictly;
// no token, key or request secret is ever part of an error.
//
// A job token buys one credential per grant, so asking again is not harmless.
// The rule is:
//
//   - Nothing was sent (the connection was refused, the name not resolved):
//     ask again.
//   - The broker answered 429 or 503 and said when to come back (Retry-After):
//     ask again then, with the same token. Such an answer grants nothing; if
//     the broker had already used up the token, it says so (replay).
//   - The broker answered anything else: that is the answer.
//   - The request was sent, and no answer of the broker came back (the
//     connection broke, the time was over, a proxy answered for it): nobody
//     knows whether a credential was issued. The same token is never sent
//     again; the error is an [UnknownOutcomeError], and who can get a fresh job
//     token may ask anew. What was perhaps issued is in the broker's record
//     and ends by itself.
//
// What comes back is checked before it is handed on: the kind and the binding
// that were asked for, a scope no wider than asked, a lifetime, a decision, and
// for a certificate that it certifies the caller's own key. A caller can also
// demand that the receipt proves the decision ([Config.CheckReceipt]).
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

// Config of a Client. Only BrokerURL must be set.
type Config struct {
	// BrokerURL is the broker's own URL, as server.url in its configuration: it
	// is also the audience that the job's token must be for.
	BrokerURL string
	// RootCAs verify the broker's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// Certificate gives the TLS client certificate, asked at each handshake so
	// that a rotation is followed: the runner's X.509-SVID. Nil shows none.
	Certificate func() (*tls.Certificate, error)
	// Prover binds the credential to its key (RFC 9449): the broker must then
	// answer with token_type DPoP. Nil asks for a bearer token.
	Prover *pass.Prover
	// CheckReceipt looks at an answer that is otherwise good; its error makes
	// the exchange fail. Nil leaves the receipt to others.
	CheckReceipt func(*proviso.TokenResponse) error
	// Timeout bounds one attempt, connection included; default 30 s.
	Timeout time.Duration
	// Patience bounds the waiting between attempts, all together; default 60 s.
	Patience time.Duration
	// Now is a clock; default time.Now.
	Now func() time.Time
}

// Client asks one broker. It is safe for concurrent use, and keeps nothing open
// between exchanges.
type Client struct {
	conf     Config
	broker   *url.URL
	endpoint string
	http     *http.Client
}

// New checks the configuration.
func New(conf Config) (*Client, error) {
	u, err := brokerURL(conf.BrokerURL)
	if err != nil {
		return nil, err
	}
	if conf.Timeout == 0 {
		conf.Timeout = 30 * time.Second
	}
	if conf.Patience == 0 {
		conf.Patience = time.Minute
	}
	if conf.Now == nil {
		conf.Now = time.Now
	}
	t := newTransport(u.Scheme == "http")
	t.TLSClientConfig = &tls.Config{RootCAs: conf.RootCAs, MinVersion: tls.VersionTLS12}
	if conf.Certificate != nil {
		if u.Scheme != "https" {
			return nil, errors.New("a client certificate needs an https URL of the broker")
		}
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return conf.Certificate() }
	}
	return &Client{conf: conf, broker: u, endpoint: strings.TrimSuffix(u.String(), "/") + "/token", http: newHTTPClient(t)}, nil
}

// BrokerURL gives the broker's URL.
func (c *Client) BrokerURL() string { return c.conf.BrokerURL }

func brokerURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("the broker's URL is missing")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the broker's URL must be as https://proviso.example, without user, query and fragment")
	}
	if err := checkScheme(u); err != nil {
		return nil, fmt.Errorf("the broker's URL: %w", err)
	}
	return u, nil
}

// checkScheme demands HTTPS, except to this machine.
func checkScheme(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && isLoopbackName(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("https is required, except to a loopback address; this is %s to %s", u.Scheme, u.Hostname())
}

func isLoopbackName(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// newTransport makes a transport for one request at a time: no idle connection
// stays behind, and each handshake shows the certificate that is valid then.
func newTransport(loopbackOnly bool) *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second}
	t := &http.Transport{
		DialContext: d.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		Proxy: http.ProxyFromEnvironment,
	}
	if loopbackOnly { // also when the name localhost points elsewhere, and never through a proxy
		t.Proxy = nil
		d.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || !ap.Addr().Unmap().IsLoopback() {
				return errors.New("plain HTTP goes to a loopback address only")
			}
			return nil
		}
	}
	return t
}

func newHTTPClient(t *http.Transport) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Request is what a job asks for.
type Request struct {
	// Grant is the grant's name.
	Grant string
	// SubjectToken is the job's own token, or of what SubjectTokenType says.
	SubjectToken string
	// SubjectTokenType says what it is; "" is a job's token, and
	// proviso.TokenTypeJWTSVID the JWT-SVID of a workload that asks for itself.
	SubjectTokenType string
	// ClientID is the SPIFFE ID of a workload that asks for itself by mutual TLS
	// (Config.Certificate), in the place of a subject token.
	ClientID string
	// ActorToken is the runner's JWT-SVID, or other evidence of ActorTokenType, or "".
	ActorToken, ActorTokenType string
	// Scope narrows; none means what the grant gives.
	Scope []string
	// Intent is declared to the policy.
	Intent proviso.Intent
	// CSR is a PEM certificate request for a kind that certifies the caller's key.
	CSR []byte
	// RequestedTokenType is "" for the grant's own kind.
	RequestedTokenType string
}

// Exchange asks for a credential. A "no" of the broker is a [*RefusedError]; an
// attempt whose outcome nobody knows is an [*UnknownOutcomeError].
func (c *Client) Exchange(ctx context.Context, req Request) (*proviso.TokenResponse, error) {
	form, err := req.form()
	if err != nil {
		return nil, err
	}
	patience := c.conf.Patience
	nonce := ""
	for attempt := 1; ; attempt++ {
		a, err := c.send(ctx, form, nonce)
		var pause time.Duration
		switch {
		case err != nil:
			var unsent *unsentError
			if !errors.As(err, &unsent) || !unsent.mayPass {
				return nil, err
			}
			pause = backoff(attempt)
		case a.status == http.StatusOK:
			return c.accept(req, a)
		case a.wantsNonce() && nonce == "": // RFC 9449 section 8: nothing was decided yet
			nonce = a.nonce
			continue
		default:
			if err = a.refusal(c.conf.BrokerURL); !a.mayAskAgain(err) {
				return nil, err
			}
			pause = a.retryAfter + backoff(1)/4 // late, and not all at once
		}
		if pause > patience || attempt >= maxAttempts {
			return nil, err
		}
		patience -= pause
		if !sleep(ctx, pause) {
			return nil, err
		}
	}
}

const maxAttempts = 5

// send makes one attempt.
func (c *Client) send(ctx context.Context, form url.Values, nonce string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.conf.Timeout)
	defer cancel()
	var connected atomic.Bool // from then on bytes may have left
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the broker's URL can't be asked")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "proviso")
	if c.conf.Prover != nil {
		proof, err := c.conf.Prover.Proof(http.MethodPost, c.endpoint, "", nonce)
		if err != nil {
			return nil, fmt.Errorf("no DPoP proof: %w", err)
		}
		r.Header.Set("DPoP", proof)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		if connected.Load() {
			return nil, &UnknownOutcomeError{Broker: c.conf.BrokerURL, Err: cause(err)}
		}
		return nil, &unsentError{broker: c.conf.BrokerURL, mayPass: mayPass(err), err: cause(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	a, err := readAnswer(resp, c.conf.Now())
	if err != nil {
		if definite := new(notBrokerError); errors.As(err, &definite) {
			return nil, fmt.Errorf("%s: %w", c.conf.BrokerURL, err)
		}
		return nil, &UnknownOutcomeError{Broker: c.conf.BrokerURL, Err: err}
	}
	return a, nil
}

// cause takes off the wrapper that repeats method and URL.
func cause(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// mayPass reports whether a connection that did not come about may do so in a
// moment. A certificate that does not hold will not hold then either.
func mayPass(err error) bool {
	if dns := new(net.DNSError); errors.As(err, &dns) {
		return dns.IsTimeout || dns.IsTemporary
	}
	op := new(net.OpError)
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, syscall.ECONNRESET)
}
