package keyset

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
	"strconv"
	"strings"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// Bounds of how long a set is fresh, whatever its issuer says.
const (
	shortestAge = time.Minute
	defaultAge  = 5 * time.Minute
	longestAge  = time.Hour
	// rediscoverAfter is how long a jwks_uri is believed without asking again.
	rediscoverAfter = time.Hour
)

const discoverySuffix = "/.well-known/openid-configuration"

// discoveryURL appends, as OpenID Connect Discovery 1.0 section 4 does; RFC 8414
// inserts before the path instead, and no CI platform follows it.
func discoveryURL(issuer string) string { return strings.TrimSuffix(issuer, "/") + discoverySuffix }

// checkURL takes what may be asked for keys: HTTPS, or this machine if allowed.
func (cfg *Config) checkURL(what, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is not a URL", what)
	}
	switch {
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%s %q names no host; write https://host/path", what, raw)
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user name in it; keys are public, leave it out", what)
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, fmt.Errorf("%s %q has a fragment; leave it out", what, raw)
	case what == "issuer" && (u.RawQuery != "" || u.ForceQuery):
		return nil, fmt.Errorf("issuer %q has a query; leave it out", raw)
	}
	switch {
	case u.Scheme == "https":
		return u, nil
	case u.Scheme == "http" && cfg.AllowLoopback && isLoopbackName(u.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%s %q is not https; without TLS anybody on the way could choose the keys", what, raw)
}

func isLoopbackName(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newClient makes a client of this one issuer. Connections are not kept: there
// is one request in minutes, and each is to be checked anew.
func (s *Source) newClient(plain bool) *http.Client {
	r := reach{private: s.cfg.AllowPrivate, loopback: s.cfg.AllowLoopback, loopbackOnly: plain}
	if s.cfg.Proxy != nil {
		r = reach{private: true, loopback: true}
	}
	dialer := &net.Dialer{Timeout: s.cfg.Timeout, Control: r.control}
	s.dial = dialer.DialContext
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.dial(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.cfg.RootCAs},
		DisableKeepAlives:      true,
		DisableCompression:     true, // half a megabyte is half a megabyte
		MaxResponseHeaderBytes: 64 << 10,
	}
	if s.cfg.Proxy != nil {
		transport.Proxy = http.ProxyURL(s.cfg.Proxy)
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetched is one answer of an issuer.
type fetched struct {
	set        *jose.KeySet
	jwksURL    string
	discovered time.Time
	age        time.Duration // how long the set is fresh
}

// fetch asks the issuer. last is what is known from before, or nil.
func (s *Source) fetch(ctx context.Context, last *snapshot, forced bool) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	now := s.cfg.Now()
	f := fetched{jwksURL: s.cfg.JWKSURL, discovered: now}
	switch {
	case s.discovery == "":
	case last != nil && last.jwksURL != "" && last.failed == nil && now.Sub(last.discovered) < rediscoverAfter:
		f.jwksURL, f.discovered = last.jwksURL, last.discovered
	default:
		var err error
		if f.jwksURL, err = s.discover(ctx); err != nil {
			return f, err
		}
	}
	body, header, err := s.get(ctx, f.jwksURL, forced)
	if err != nil {
		return f, err
	}
	if f.set, err = jose.ParseKeySet(body, s.cfg.Algorithms); err != nil {
		return f, err
	}
	f.age = maxAge(header)
	return f, nil
}

// discover reads the issuer's discovery document for its jwks_uri. Nothing else
// in it is believed: algorithms come from the configuration.
func (s *Source) discover(ctx context.Context) (string, error) {
	body, _, err := s.get(ctx, s.discovery, false)
	if err != nil {
		return "", err
	}
	doc, err := document.Parse(body, document.Limits{Bytes: jose.MaxSetBytes})
	if err != nil {
		return "", failure(proviso.CodeDiscoveryMalformed, err, "the issuer's discovery document is not acceptable JSON")
	}
	issuer, ok := doc.Get("issuer").Text()
	if !ok {
		return "", failure(proviso.CodeDiscoveryMalformed, nil, "the issuer's discovery document names no issuer")
	}
	if issuer != s.cfg.Issuer {
		return "", failure(proviso.CodeDiscoveryIssuerMismatch, fmt.Errorf("it names %.200q", issuer),
			"the issuer's discovery document names another issuer; they must be equal byte for byte")
	}
	uri, ok := doc.Get("jwks_uri").Text()
	if !ok || uri == "" {
		return "", failure(proviso.CodeDiscoveryMalformed, nil, "the issuer's discovery document has no jwks_uri")
	}
	if err := s.checkJWKSURI(uri); err != nil {
		return "", failure(proviso.CodeJWKSURINotAllowed, err, "the issuer's discovery document sends to another place for its keys than is allowed")
	}
	return uri, nil
}

// checkJWKSURI keeps a discovery document from pointing elsewhere: at another
// host, which the operator has not chosen to trust, or out of TLS.
func (s *Source) checkJWKSURI(uri string) error {
	u, err := s.cfg.checkURL("jwks_uri", uri)
	if err != nil {
		return err
	}
	own, err := url.Parse(s.cfg.Issuer)
	if err != nil {
		return err
	}
	if u.Scheme != own.Scheme || !strings.EqualFold(u.Hostname(), own.Hostname()) || portOf(u) != portOf(own) {
		return fmt.Errorf("jwks_uri %.200q is not on the issuer's own host %s; if it is right, configure it as jwks_url", uri, own.Host)
	}
	return nil
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

// get reads one document. fresh asks caches on the way to ask the issuer.
func (s *Source) get(ctx context.Context, address string, fresh bool) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, failure(proviso.CodeDiscoveryUnavailable, err, "the issuer's keys could not be asked for")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	req.Header.Set("User-Agent", "proviso")
	if fresh {
		req.Header.Set("Cache-Control", "no-cache")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, nil, transportFailure(err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, nil, failure(proviso.CodeDiscoveryRedirect, fmt.Errorf("%s answered %s", address, res.Status),
			"the issuer redirects to another address for its keys, which is not followed")
	case res.StatusCode != http.StatusOK:
		return nil, nil, failure(proviso.CodeDiscoveryUnavailable, fmt.Errorf("%s answered %s", address, res.Status),
			"the issuer does not give its keys at present")
	}
	tooLong := failure(proviso.CodeDiscoveryMalformed, fmt.Errorf("%s answered more than %d bytes", address, jose.MaxSetBytes),
		"the issuer's answer is longer than is read")
	if res.ContentLength > jose.MaxSetBytes {
		return nil, nil, tooLong
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, jose.MaxSetBytes+1))
	if err == nil {
		err = ctx.Err() // an end that came with the deadline may be no end
	}
	if err != nil {
		return nil, nil, transportFailure(fmt.Errorf("reading %s: %w", address, err))
	}
	if len(body) > jose.MaxSetBytes {
		return nil, nil, tooLong
	}
	return body, res.Header, nil
}

// transportFailure tells why nothing came: each way has its code.
func transportFailure(err error) error {
	var (
		address  *addressError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &address):
		return failure(CodeAddress, err, "the issuer's name leads to an address that is not asked for keys")
	case errors.As(err, &verify), errors.As(err, &record), errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid),
		// Alerts, and an answer without TLS, have no type to ask for.
		strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return failure(proviso.CodeDiscoveryTLS, err, "the connection to the issuer could not be trusted")
	}
	return failure(proviso.CodeDiscoveryUnavailable, err, "the issuer could not be asked for its keys")
}

// maxAge reads how long the issuer lets its set be kept (RFC 9111 section 5.2.2),
// less what it has already lain in a cache on the way.
func maxAge(h http.Header) time.Duration {
	age := defaultAge
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return shortestAge
			case "max-age":
				if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
					age = time.Duration(n) * time.Second
				}
			}
		}
	}
	if n, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		age -= time.Duration(n) * time.Second
	}
	return min(max(age, shortestAge), longestAge)
}

// failure makes this package's error: msg for the caller, cause for the log.
func failure(code proviso.Code, cause error, msg string) error {
	return &jose.Error{Code: code, Msg: msg, Err: cause}
}
