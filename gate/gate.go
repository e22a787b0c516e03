// Package gate is the last arrow of the flow: the resource checks the token.
// It is what customers link, or run beside a web server as `proviso gate`, so it
// imports nothing that decides, mints or records.
//
// A gate checks offline. It knows its issuer's URL and fetches the keys that
// the issuer publishes; an outage of the broker doesn't stop a resource until
// the last good keys are older than the configured bound. What it can't check
// it refuses: there is no setting under which a request without a valid token
// passes, and a request that matches no rule is refused.
//
// # As a library
//
// [Gate.Middleware] wraps a handler. The token comes in exactly one
// Authorization header, as Bearer (RFC 6750) or DPoP (RFC 9449), never in a
// query or a form. A token bound to a DPoP key needs a proof for this method
// and URL; one bound to a client certificate (RFC 8705) needs that certificate
// in the TLS handshake. The handler finds the verified claims with
// [FromContext], and can demand more scope with [RequireScope].
//
// # Beside a web server
//
// [Gate.ForwardAuth] answers the sub-requests of nginx's auth_request, of
// Caddy's forward_auth and of Traefik's forwardAuth. It believes the headers
// that describe the original request only from the configured addresses, and
// only those of the configured proxy. Rules give audience and scope by path and
// method; the rule with the longest path decides alone. A path that two servers
// could read differently ("//", "..", "%2f", ";", "\") is refused, because the
// one that is checked must be the one that is served. Answers are 200 with
// X-Proviso-* headers, 401 or 403, and 503 when the gate can't check at all.
package gate

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/keyset"
	"github.com/proviso-ci/proviso/pass"
)

// Problem is one thing that is wrong in a configuration.
type Problem = pass.Problem

func problem(path, message string, args ...any) Problem {
	return Problem{Path: path, Message: fmt.Sprintf(message, args...)}
}

// Config says whose tokens are accepted, and for what.
type Config struct {
	// Issuer is Proviso's URL, byte for byte as in its tokens. It must be set.
	Issuer string `yaml:"issuer,omitempty"`
	// JWKS is where the issuer's keys are. By default the issuer's discovery
	// document says so.
	JWKS string `yaml:"jwks,omitempty"`
	// CA is a PEM file with the authorities for the TLS certificate of Issuer, by
	// default those of the system.
	CA string `yaml:"ca,omitempty"`
	// MaxStale is for how long the last good keys serve when the issuer can't be
	// reached: 1 hour to 7 days, by default 24 hours.
	MaxStale time.Duration `yaml:"max_stale,omitempty"`
	// Audience is this resource's own name: the audience of the grants that are
	// for it. Middleware needs it; rules have their own.
	Audience string `yaml:"audience,omitempty"`
	// Scope are the words that every request needs. Middleware only.
	Scope []string `yaml:"scope,omitempty"`
	// Origin is how clients see this resource, as https://deploy.acme.example. It
	// is what a DPoP proof must name, so it is never read from a request. Without
	// it, tokens that are bound to a DPoP key are refused.
	Origin string `yaml:"origin,omitempty"`
	// DPoPNonce is when a proof needs a nonce of this gate: start (the default)
	// demands one for the first minute and a half, because the memory of proofs
	// seen doesn't survive a restart; always; or never.
	DPoPNonce string `yaml:"dpop_nonce,omitempty"`
	// Proxies are the addresses (10.0.0.5, 10.1.0.0/16) whose headers are
	// believed. None is believed by default, not even loopback.
	Proxies []string `yaml:"proxies,omitempty"`
	// ClientCertificate is the header in which such a proxy hands on the
	// certificate that the client proved to it.
	ClientCertificate CertificateHeader `yaml:"client_certificate,omitempty"`
	// Proxy says which headers describe the original request of a forward-auth
	// sub-request: nginx (X-Original-URI and X-Original-Method) or forwarded
	// (X-Forwarded-Uri, X-Forwarded-Method and X-Forwarded-Host: Caddy, Traefik).
	Proxy string `yaml:"proxy,omitempty"`
	// Rules say what a forward-auth request needs.
	Rules []Rule `yaml:"rules,omitempty"`
}

// Options are what a gate needs of its surroundings.
type Options struct {
	// Keys finds the issuer's keys; nil fetches them as Config says.
	Keys pass.KeySource
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what the operator should know of the issuer's keys; nil is nowhere.
	Log *slog.Logger
	// Refused hears of each refusal, for a log or a metric; nil is nobody. It gets
	// no token.
	Refused func(r *http.Request, refusal *proviso.Refusal)
}

// Gate checks requests. It may be used by many goroutines.
type Gate struct {
	cfg      Config
	opt      Options
	keys     *keyset.Source // nil when the caller has the keys
	verifier *pass.Verifier
	proofs   *pass.ProofChecker // nil without an origin
	proxies  []netip.Prefix
	rules    ruleSet
	want     pass.Wanted
}

// Validate gives what is wrong, by the path of the member.
func (c Config) Validate() []Problem {
	var out []Problem
	if !isOrigin(c.Issuer, true) {
		out = append(out, problem("issuer", "%q is not an https URL without query and fragment (http on loopback only)", c.Issuer))
	}
	if c.JWKS != "" && !isOrigin(c.JWKS, true) {
		out = append(out, problem("jwks", "%q is not an https URL without query and fragment (http on loopback only)", c.JWKS))
	}
	if c.Origin != "" && !isOrigin(c.Origin, false) {
		out = append(out, problem("origin", "%q is not scheme and host alone, as https://deploy.acme.example", c.Origin))
	}
	if c.Audience == "" && len(c.Rules) == 0 {
		out = append(out, problem("audience", "no audience and no rules: a gate without an audience would accept what was meant for others"))
	}
	if nonceMode(c.DPoPNonce) == "?" {
		out = append(out, problem("dpop_nonce", "%q is not start, always or never", c.DPoPNonce))
	}
	for i, s := range c.Proxies {
		if _, err := parsePrefix(s); err != nil {
			out = append(out, problem(fmt.Sprintf("proxies[%d]", i), "%q is not an address or a prefix such as 10.1.0.0/16", s))
		}
	}
	out = append(out, c.ClientCertificate.validate(len(c.Proxies) > 0)...)
	for i, s := range c.Scope {
		if !pass.ValidScope(s) {
			out = append(out, problem(fmt.Sprintf("scope[%d]", i), "%q is empty or has a space, quote or backslash", s))
		}
	}
	if c.MaxStale != 0 && (c.MaxStale < time.Hour || c.MaxStale > 7*24*time.Hour) {
		out = append(out, problem("max_stale", "%v is not between 1h and 168h (7 days); write 24h", c.MaxStale))
	}
	return append(out, c.validateRules()...)
}

func (c Config) validateRules() []Problem {
	if len(c.Rules) == 0 {
		if c.Proxy != "" {
			return []Problem{problem("rules", "a proxy is set but no rule: everything would be refused")}
		}
		return nil
	}
	var out []Problem
	if c.Proxy != proxyNginx && c.Proxy != proxyForwarded {
		out = append(out, problem("proxy", "%q is not nginx or forwarded: say whose headers describe the original request", c.Proxy))
	}
	if len(c.Proxies) == 0 {
		out = append(out, problem("proxies", "no address: say whose headers are believed, as 127.0.0.1"))
	}
	_, problems := newRuleSet(c.Rules)
	return append(out, problems...)
}

// New makes a gate.
func New(cfg Config, opt Options) (*Gate, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("gate: %s", problems[0])
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Refused == nil {
		opt.Refused = func(*http.Request, *proviso.Refusal) {}
	}
	g := &Gate{cfg: cfg, opt: opt, want: pass.Wanted{Audience: cfg.Audience, Scope: cfg.Scope}}
	g.rules, _ = newRuleSet(cfg.Rules)
	for _, s := range cfg.Proxies {
		p, err := parsePrefix(s)
		if err != nil {
			return nil, err
		}
		g.proxies = append(g.proxies, p)
	}
	if cfg.Origin != "" {
		g.proofs = pass.NewProofChecker(pass.ProofConfig{Nonce: nonceMode(cfg.DPoPNonce), Now: opt.Now})
	}
	var err error
	if opt.Keys == nil {
		if g.keys, err = newKeySource(cfg, opt); err != nil {
			return nil, fmt.Errorf("gate: %w", err)
		}
		opt.Keys = g.keys.Key
	}
	g.verifier, err = pass.NewVerifier(pass.VerifierConfig{Issuer: cfg.Issuer, Keys: opt.Keys, Proofs: g.proofs, Now: opt.Now})
	return g, err
}

// newKeySource fetches the issuer's keys. The broker may be in a private network,
// as resources are; on this machine only if its address says so.
func newKeySource(cfg Config, opt Options) (*keyset.Source, error) {
	k := keyset.Config{Issuer: cfg.Issuer, JWKSURL: cfg.JWKS, Algorithms: pass.Algorithms, MaxStale: cfg.MaxStale,
		AllowPrivate: true, AllowLoopback: isLoopback(cmp.Or(cfg.JWKS, cfg.Issuer)), Now: opt.Now, Log: opt.Log}
	if cfg.CA != "" {
		data, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		k.RootCAs = x509.NewCertPool()
		if !k.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("ca: %s has no PEM certificate", cfg.CA)
		}
	}
	return keyset.New(k)
}

// Start fetches the keys before the first request needs them, and keeps them
// fresh until ctx ends or Close.
func (g *Gate) Start(ctx context.Context) {
	if g.keys != nil {
		g.keys.Start(ctx)
	}
}

// Close ends what Start began. A gate without fresh keys refuses in time.
func (g *Gate) Close() {
	if g.keys != nil {
		g.keys.Close()
	}
}

// Ready says why the gate can't check anything now, or nil.
func (g *Gate) Ready() error {
	if g.keys == nil {
		return nil
	}
	if s := g.keys.Status(); !s.Usable {
		return errors.Join(errors.New("no usable keys of the issuer"), s.Failure)
	}
	return nil
}

func nonceMode(s string) pass.NonceMode {
	switch s {
	case "", "start":
		return pass.NonceAtStart
	case "always":
		return pass.NonceAlways
	case "never":
		return pass.NonceNever
	}
	return "?"
}

// isOrigin reports whether s is an absolute https URL, http on loopback only,
// without userinfo, query and fragment; without a path unless one is allowed.
func isOrigin(s string, path bool) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(s, "?#") || u.Opaque != "" {
		return false
	}
	if u.Path != "" && !path {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && isLoopback(s)
}

func isLoopback(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}

func parsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

type contextKey struct{}

// FromContext gives the verified access of a request that came through a gate.
func FromContext(ctx context.Context) (pass.Access, bool) {
	a, ok := ctx.Value(contextKey{}).(pass.Access)
	return a, ok && !a.IsZero()
}

// Middleware lets requests with a valid token through to next, which finds the
// claims with FromContext. It takes Authorization, DPoP and X-Proviso-* headers
// off the request: next can neither leak the token nor believe a client's
// word about it.
func (g *Gate) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, refusal := g.admit(r, r.Method, r.URL.EscapedPath(), r.URL.RawQuery, g.want)
		if refusal != nil {
			g.answer(w, r, refusal, g.want, false)
			return
		}
		through := r.WithContext(context.WithValue(r.Context(), contextKey{}, a))
		through.Header = withoutCredentials(r.Header)
		next.ServeHTTP(w, through)
	})
}

// admit checks a request that is, as the client sees it, method and path at the
// configured origin.
func (g *Gate) admit(r *http.Request, method, path, query string, want pass.Wanted) (pass.Access, *proviso.Refusal) {
	p, refusal := presented(r.Header, query)
	if refusal != nil {
		return pass.Access{}, refusal
	}
	p.Method, p.URL = method, g.cfg.Origin+path
	if p.Certificate, refusal = g.clientCertificate(r); refusal != nil {
		return pass.Access{}, refusal
	}
	a, err := g.verifier.Verify(r.Context(), p, want)
	if err != nil {
		return pass.Access{}, proviso.AsRefusal(err, pass.StageAccess, proviso.CodeJWKSStale)
	}
	return a, nil
}

func withoutCredentials(h http.Header) http.Header {
	out := make(http.Header, len(h))
	for name, values := range h {
		if name == "Authorization" || name == "Dpop" || strings.HasPrefix(name, headerPrefix) {
			continue
		}
		out[name] = values
	}
	return out
}

// RequireScope demands more scope for a part of a resource behind Middleware.
func (g *Gate) RequireScope(next http.Handler, scope ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := FromContext(r.Context())
		want := pass.Wanted{Audience: g.cfg.Audience, Scope: scope}
		if !ok {
			g.answer(w, r, refuse(CodeTokenMissing, "this handler stands behind no gate"), want, false)
			return
		}
		for _, s := range scope {
			if !a.Has(s) {
				g.answer(w, r, refuse(pass.CodeScopeInsufficient, "the token's scope is %q, and this needs %q; ask the broker for that scope",
					strings.Join(a.Scope(), " "), s), want, false)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
