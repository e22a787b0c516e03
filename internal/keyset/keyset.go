// Package keyset holds an issuer's public keys as the issuer publishes them:
// found by discovery (OpenID Connect Discovery 1.0) or under a configured
// address, read over HTTP, cached, and replaced before they are old.
//
// What is fetched. The issuer is one configured URL; nothing in a token says
// where keys lie. Discovery appends /.well-known/openid-configuration to the
// issuer with its path, and the document's issuer must be the configured one,
// byte for byte. Its jwks_uri must be HTTPS on the issuer's own host; an issuer
// whose keys lie elsewhere (Google's) needs Config.JWKSURL, and then nothing is
// discovered. Redirects are refused. The address is checked when it is dialled,
// after the name was resolved, so that a name can't lead into the broker's own
// network. Answers have at most 512 KiB, both requests together at most ten
// seconds, TLS 1.2 or newer, no cookie, and no proxy that the configuration
// doesn't name.
//
// What is kept. A newer set replaces the older; they are never merged, so a key
// that its issuer withdraws is gone at the next refresh. Times of one set:
//
//	refresh  about 3/4 of its max-age (Cache-Control, between 1 minute and 1
//	         hour, 5 minutes without): fetched again in the background
//	expired  max-age: a job waits for the fetch, unless the last one failed
//	stale    MaxStale after the fetch: nothing is accepted, jwks_stale
//
// Between expired and stale lies an outage: the last good keys serve, every
// failure is logged, and the next attempt waits for 10 seconds, then twice as
// long each time, up to one minute. MaxStale is a day: an outage of the issuer,
// or of our own way out, may last for a night without stopping anybody; and who
// wants to use a stolen and withdrawn key must, all that time, keep the broker
// from its issuer, while the broker says so in its log and metrics.
//
// A token with a kid that isn't in the set makes one fetch at once, for which
// all such tokens wait, so that a rotation refuses no job; then none for a
// cool-down of ten seconds, and a kid that was not found is remembered for
// thirty, so that invented kids can't make the broker hammer an issuer.
//
// A kid that names another key than it did before is refused (jwks_kid_reused)
// until the set has the first key again or the broker restarts: it is either a
// grave mistake of the issuer or somebody else's key. A set with a private key
// in it (jwks_private_key) takes all keys out of use at once, and that key stays
// out of use. A set that can't be read is like an outage.
package keyset

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// CodeAddress: the issuer's name led to an address that must not be dialled.
const CodeAddress proviso.Code = "discovery_address"

// Config says whose keys, and how far to go for them.
type Config struct {
	// Issuer is the exact URL, as it stands in the tokens' iss. Must be set.
	Issuer string
	// JWKSURL is where the keys lie, for issuers without discovery or with keys
	// on another host; empty means discovery.
	JWKSURL string
	// Algorithms are those that the issuer's tokens may use. Must not be empty.
	Algorithms []jose.Alg
	// AllowNoKID takes tokens without a kid while the set has exactly one key
	// for their algorithm. Such a token can't make a rotated set be fetched.
	AllowNoKID bool
	// AllowKIDReuse takes a new key under an old kid, for issuers whose kid names
	// something else than the key (a Jenkins credential). It is logged.
	AllowKIDReuse bool
	// AllowPrivate lets the issuer be in a private network (RFC 1918, fc00::/7,
	// 100.64/10): one's own GitLab. Link-local addresses, where clouds keep
	// their metadata, stay refused.
	AllowPrivate bool
	// AllowLoopback lets the issuer be on this machine, and then without TLS.
	AllowLoopback bool
	// RootCAs are the authorities for the issuer's TLS certificate; nil means
	// the system's.
	RootCAs *x509.CertPool
	// Proxy is the HTTP proxy on the way out; nil means none. HTTP_PROXY and its
	// like are not looked at: what the environment says must not decide where
	// trust comes from. Through a proxy it is the proxy that resolves the
	// issuer's name, so the check of dialled addresses sees only the proxy.
	Proxy *url.URL
	// Timeout bounds discovery and key set together; 0 means 10 seconds.
	Timeout time.Duration
	// MaxStale is how old the last good set may get; 0 means 24 hours.
	MaxStale time.Duration
	// Cooldown lies between two fetches for unknown kids; 0 means 10 seconds.
	Cooldown time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator should know; nil means nowhere.
	Log *slog.Logger
}

const (
	defaultTimeout  = 10 * time.Second
	defaultMaxStale = 24 * time.Hour
	longestStale    = 7 * 24 * time.Hour
	defaultCooldown = 10 * time.Second
)

// Source is the keys of one issuer. Its methods are for many goroutines.
type Source struct {
	cfg       Config
	discovery string // its address; "" when JWKSURL is configured
	fixed     bool   // a set from a file: never fetched
	client    *http.Client
	dial      func(ctx context.Context, network, address string) (net.Conn, error)

	// current is what jobs see. Key reads it without a lock; it is replaced,
	// never changed, under mu.
	current atomic.Pointer[snapshot]
	busy    atomic.Bool // a fetch is under way: don't even try to begin one

	mu         sync.Mutex // held for moments, never while something is fetched
	flight     *flight    // the one fetch under way, or nil
	nextForced time.Time  // no fetch for an unknown kid before
	missing    map[string]time.Time
	seen       map[string]string // kid to thumbprint of the first key under it
	leaked     map[string]bool   // thumbprints that are never trusted again
	closed     bool

	root   context.Context // of all fetches; ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	fetches, failures, unknown atomic.Uint64
}

// New makes a Source. Nothing is fetched before Start, Refresh or Key.
func New(cfg Config) (*Source, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxStale == 0 {
		cfg.MaxStale = defaultMaxStale
	}
	if cfg.Cooldown == 0 {
		cfg.Cooldown = defaultCooldown
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout < 0 || cfg.Cooldown < 0 || cfg.MaxStale < longestAge || cfg.MaxStale > longestStale {
		return nil, errors.New("key set: timeout and cool-down are positive, max_stale is between 1 hour and 7 days")
	}
	if len(cfg.Algorithms) == 0 {
		return nil, errors.New("key set: no algorithm is allowed, so no token could be verified; name the issuer's")
	}
	for _, a := range cfg.Algorithms {
		if !a.Known() {
			return nil, errors.New("key set: " + string(a) + " is not an algorithm that is taken; RS, PS and ES with 256, 384, 512 and EdDSA are")
		}
	}
	cfg.Log = cfg.Log.With("issuer", cfg.Issuer)
	s := &Source{cfg: cfg, missing: map[string]time.Time{}, seen: map[string]string{}, leaked: map[string]bool{}}
	issuer, err := cfg.checkURL("issuer", cfg.Issuer)
	if err != nil {
		return nil, err
	}
	target := issuer
	if cfg.JWKSURL == "" {
		s.discovery = discoveryURL(cfg.Issuer)
	} else if target, err = cfg.checkURL("jwks_url", cfg.JWKSURL); err != nil {
		return nil, err
	}
	s.root, s.cancel = context.WithCancel(context.Background())
	s.client = s.newClient(target.Scheme == "http")
	return s, nil
}

// Fixed makes a Source of a set that the operator has as a file. It is never
// fetched and never gets old; a new file is a new Source.
func Fixed(issuer string, set *jose.KeySet, allowNoKID bool) *Source {
	s := &Source{cfg: Config{Issuer: issuer, AllowNoKID: allowNoKID, Now: time.Now}, fixed: true}
	s.root, s.cancel = context.WithCancel(context.Background())
	s.current.Store(&snapshot{set: set})
	return s
}

// Key gives the key that a token names. With the key in the set it takes no
// lock and waits for nothing. The error is a *jose.Error.
func (s *Source) Key(ctx context.Context, kid string, alg jose.Alg) (*jose.Key, error) {
	snap := s.current.Load()
	if s.fixed {
		return s.find(snap, kid, alg)
	}
	now := s.cfg.Now()
	if !snap.usable(now) {
		var err error
		if snap, err = s.await(ctx, snap, now); err != nil {
			return nil, err
		}
		return s.find(snap, kid, alg)
	}
	if snap.due(now) && !s.busy.Load() {
		s.begin(snap, now)
	}
	key, err := s.find(snap, kid, alg)
	if err != nil && isUnknown(err) {
		return s.rotated(ctx, snap, kid, alg)
	}
	return key, err
}

// find looks into one set.
func (s *Source) find(snap *snapshot, kid string, alg jose.Alg) (*jose.Key, error) {
	var key *jose.Key
	var err error
	if kid == "" && s.cfg.AllowNoKID {
		key, err = snap.set.Sole(alg)
	} else {
		key, err = snap.set.Find(kid, alg)
	}
	if err != nil {
		return nil, err
	}
	if snap.reused[key.KeyID()] {
		return nil, failure(proviso.CodeJWKSKIDReused, nil,
			"the issuer published another key under the token's kid than before, so neither is accepted; the broker's operator has to look into it")
	}
	if len(snap.leaked) > 0 && snap.leaked[key.Thumbprint()] {
		return nil, failure(proviso.CodeJWKSPrivateKey, nil, "the issuer once published the private half of the key that signed this token")
	}
	return key, nil
}
