package pass

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// Algorithms are what a pass can be signed with, the default first.
var Algorithms = []jose.Alg{jose.ES256, jose.EdDSA}

// KeyringConfig is the section "keys" of the configuration.
type KeyringConfig struct {
	// Rotate is how long a key signs before the next one takes over: 1 hour to
	// 1 year, by default 30 days. Shorter bounds what a stolen key is good for;
	// resources notice nothing, because keys overlap.
	Rotate time.Duration `yaml:"rotate,omitempty"`
	// MaxAge is for how long others may keep /jwks without asking again, which
	// is also how long a new key is published before it signs: 1 minute to a day,
	// by default 15 minutes.
	MaxAge time.Duration `yaml:"max_age,omitempty"`
}

func (c KeyringConfig) withDefaults() KeyringConfig {
	if c.Rotate == 0 {
		c.Rotate = 30 * 24 * time.Hour
	}
	if c.MaxAge == 0 {
		c.MaxAge = 15 * time.Minute
	}
	return c
}

// Validate gives what is wrong, by the path of the member.
func (c KeyringConfig) Validate() []Problem {
	c = c.withDefaults()
	var out []Problem
	if c.Rotate < time.Hour || c.Rotate > 366*24*time.Hour {
		out = append(out, Problem{"rotate", fmt.Sprintf("%v is not between 1h and 8784h (a year); write 720h for 30 days", c.Rotate)})
	}
	if c.MaxAge < time.Minute || c.MaxAge > 24*time.Hour || c.MaxAge > c.Rotate/2 {
		out = append(out, Problem{"max_age", fmt.Sprintf("%v is not between 1m and 24h, and at most half of rotate; write 15m", c.MaxAge)})
	}
	return out
}

// Problem is one thing that is wrong in a configuration: where, and what to
// write instead.
type Problem struct{ Path, Message string }

func (p Problem) String() string { return p.Path + ": " + p.Message }

// Keyring holds the signing keys. Signing and publishing take no lock: both
// read one immutable set, which Maintain replaces.
type Keyring struct {
	dir  string
	cfg  KeyringConfig
	now  func() time.Time
	keep time.Duration // how long a retired key stays published
	tick time.Duration // of Run

	maintain sync.Mutex // held by Maintain alone, while it writes files
	set      atomic.Pointer[keySet]
}

// keySet is what is true until the next Maintain.
type keySet struct {
	byAlg [2][]*signingKey // in the order of Algorithms; each sorted by from
	all   *jose.KeySet
	jwks  []byte
}

type signingKey struct {
	from   time.Time // signs from then on, until the next key's from
	file   string
	signer *Signer
}

// OpenKeyring reads the keys in dir, which is made if it doesn't exist, and
// makes what is missing. It refuses a directory or a key that others may read:
// a key that was readable once is a key that somebody has.
func OpenKeyring(dir string, cfg KeyringConfig, now func() time.Time) (*Keyring, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("keys: %v", problems[0])
	}
	if now == nil {
		now = time.Now
	}
	cfg = cfg.withDefaults()
	k := &Keyring{dir: dir, cfg: cfg, now: now, keep: MaxTTL + 2*MaxSkew, tick: cfg.MaxAge / 4}
	if err := removeLeftovers(dir); err != nil {
		return nil, err
	}
	if err := k.Maintain(); err != nil {
		return nil, err
	}
	return k, nil
}

// Signer gives the signer whose time it is.
func (k *Keyring) Signer(alg jose.Alg) (*Signer, error) {
	i := slices.Index(Algorithms, alg)
	if i < 0 {
		return nil, proviso.Refuse(proviso.StageCredential, CodeKeyring, "a token can't be signed with %s; ES256 and EdDSA can", alg)
	}
	now := k.now()
	keys := k.set.Load().byAlg[i]
	for j := len(keys) - 1; j >= 0; j-- {
		if !keys[j].from.After(now) {
			return keys[j].signer, nil
		}
	}
	return nil, proviso.Refuse(proviso.StageCredential, CodeKeyring, "no signing key's time has come; the broker's clock was set back")
}

// JWKS is the published key set, and how long others may keep it.
func (k *Keyring) JWKS() (body []byte, maxAge time.Duration) {
	return k.set.Load().jwks, k.cfg.MaxAge
}

// Key finds a published key; it has the shape that a Verifier wants.
func (k *Keyring) Key(_ context.Context, kid string, alg jose.Alg) (*jose.Key, error) {
	return k.set.Load().all.Find(kid, alg)
}

// Maintain makes the next key when its time is near, deletes keys whose last
// token has expired, and publishes the result. Run calls it; tests may.
func (k *Keyring) Maintain() error {
	k.maintain.Lock()
	defer k.maintain.Unlock()
	now := k.now()
	var set keySet
	var public []*jose.Key
	for i, alg := range Algorithms {
		keys, err := loadKeys(k.dir, alg)
		if err != nil {
			return err
		}
		if keys, err = k.extend(keys, alg, now); err != nil {
			return err
		}
		if keys, err = k.prune(keys, now); err != nil {
			return err
		}
		set.byAlg[i] = keys
		for _, key := range keys {
			public = append(public, key.signer.Key())
		}
	}
	all, err := jose.NewKeySet(public...)
	if err != nil {
		return fmt.Errorf("signing keys in %s: %w", k.dir, err)
	}
	set.all, set.jwks = all, all.AppendJSON(nil)
	k.set.Store(&set)
	return nil
}

// extend makes the first key, which signs at once because nobody can have an
// older /jwks, and the next one, which signs only after every copy of /jwks
// without it has run out.
func (k *Keyring) extend(keys []*signingKey, alg jose.Alg, now time.Time) ([]*signingKey, error) {
	from := now
	if n := len(keys); n > 0 {
		due := keys[n-1].from.Add(k.cfg.Rotate)
		if now.Before(due.Add(-2 * k.cfg.MaxAge)) {
			return keys, nil
		}
		from = now.Add(k.cfg.MaxAge + MaxSkew)
		if due.After(from) {
			from = due
		}
	}
	key, err := createKey(k.dir, alg, from)
	if err != nil {
		return nil, err
	}
	return append(keys, key), nil
}

// prune deletes the keys that no living token can have been signed with.
func (k *Keyring) prune(keys []*signingKey, now time.Time) ([]*signingKey, error) {
	for len(keys) > 1 && keys[1].from.Add(k.keep).Before(now) {
		if err := removeKey(k.dir, keys[0].file); err != nil {
			return nil, err
		}
		keys = keys[1:]
	}
	return keys, nil
}

// Run maintains the keyring until ctx ends. A failure is given to report and
// tried again: the keys that are there go on signing, which is safe, and an old
// key is a lesser evil than a broker that stands still.
func (k *Keyring) Run(ctx context.Context, report func(error)) {
	tick := time.NewTicker(k.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := k.Maintain(); err != nil {
				report(err)
			}
		}
	}
}

// newSigningKey joins a private key with its kid, the RFC 7638 thumbprint: a
// name that can't be reused for another key.
func newSigningKey(private crypto.Signer, alg jose.Alg, from time.Time, file string) (*signingKey, error) {
	bare, err := jose.NewKey("", alg, private.Public())
	if err != nil {
		return nil, err
	}
	s, err := jose.NewSigner(private, alg, bare.Thumbprint(), Typ, false)
	if err != nil {
		return nil, err
	}
	return &signingKey{from: from, file: file, signer: &Signer{jose: s}}, rehearse(s)
}

// rehearse shows that the key signs, that its public half verifies, and that
// the header is what a verifier demands: before a token depends on it.
func rehearse(s *jose.Signer) error {
	token, err := s.Sign([]byte("{}")) // no claims: worth nothing anywhere
	if err != nil {
		return err
	}
	t, err := jose.Parse(token, jose.Profile{Typ: []string{Typ}})
	if err != nil {
		return err
	}
	if t.Header.Kid != s.Key().Thumbprint() || t.Header.Typ != Typ {
		return errors.New("the header of a token is not as it should be")
	}
	return t.Verify(s.Key())
}
