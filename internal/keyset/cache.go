package keyset

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// snapshot is what is known of an issuer at one moment. It is never changed.
type snapshot struct {
	set        *jose.KeySet    // nil: there are no keys to use
	reused     map[string]bool // kids that name another key than they did before
	leaked     map[string]bool // thumbprints whose private half was published
	jwksURL    string
	discovered time.Time
	fetched    time.Time // when set came
	refresh    time.Time // see the package comment
	expired    time.Time
	stale      time.Time

	failed   error // of the last attempt, if that was after fetched
	failures int   // in a row
	retry    time.Time
}

// usable reports whether a job may be served from the set without waiting.
func (p *snapshot) usable(now time.Time) bool {
	return p != nil && p.set != nil && now.Before(p.stale) && (now.Before(p.expired) || p.failed != nil)
}

// due reports whether the issuer should be asked again.
func (p *snapshot) due(now time.Time) bool {
	if p == nil {
		return true
	}
	if p.failed != nil {
		return !now.Before(p.retry)
	}
	return !now.Before(p.refresh)
}

// flight is one fetch under way; done is closed when its outcome is in current.
type flight struct{ done chan struct{} }

const (
	firstRetry   = 10 * time.Second
	longestRetry = time.Minute
	missingFor   = 30 * time.Second
	maxMissing   = 256
	maxSeen      = 1024
)

// begin starts a fetch in the background, if none is under way.
func (s *Source) begin(seen *snapshot, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && s.current.Load() == seen && seen.due(now) {
		s.launch(false)
	}
}

// launch starts the one fetch. The caller holds mu.
func (s *Source) launch(forced bool) *flight {
	f := &flight{done: make(chan struct{})}
	if s.closed {
		close(f.done)
		return f
	}
	s.flight = f
	s.busy.Store(true)
	s.tasks.Go(func() {
		got, err := s.fetch(s.root, s.current.Load(), forced)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.install(got, err)
		s.flight = nil
		s.busy.Store(false)
		close(f.done)
	})
	return f
}

// await is for a job that can't be served from what is there: the first use, a
// set that expired unrefreshed, or one that is stale. All such jobs wait for one
// fetch; after a failed one they are refused at once until the next is due.
func (s *Source) await(ctx context.Context, snap *snapshot, now time.Time) (*snapshot, error) {
	s.mu.Lock()
	f := s.flight
	if f == nil {
		if current := s.current.Load(); current != snap {
			snap = current
		}
		if snap.usable(now) {
			s.mu.Unlock()
			return snap, nil
		}
		if snap != nil && snap.failed != nil && now.Before(snap.retry) {
			s.mu.Unlock()
			return nil, snap.why(now)
		}
		f = s.launch(false)
	}
	s.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	if snap = s.current.Load(); !snap.usable(now) {
		return nil, snap.why(now)
	}
	return snap, nil
}

func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return failure(proviso.CodeDiscoveryUnavailable, ctx.Err(), "the request ended before the issuer's keys came")
	}
}

// why says why there is no key to use.
func (p *snapshot) why(now time.Time) error {
	switch {
	case p == nil: // closed before anything was fetched
		return failure(proviso.CodeDiscoveryUnavailable, nil, "the issuer's keys were never fetched")
	case p.set != nil && !now.Before(p.stale):
		return failure(proviso.CodeJWKSStale, p.failed,
			fmt.Sprintf("the issuer's keys could not be fetched since %s, which is too long to go on with the last ones", p.fetched.UTC().Format(time.RFC3339)))
	case p.failed != nil:
		return p.failed
	}
	return failure(proviso.CodeDiscoveryUnavailable, nil, "the issuer's keys are not there")
}

// rotated is for a token whose kid is not in the set that the caller looked
// into: its issuer may have a new key since.
func (s *Source) rotated(ctx context.Context, looked *snapshot, kid string, alg jose.Alg) (*jose.Key, error) {
	for range 2 {
		snap, own, err := s.newer(ctx, looked, kid)
		if err != nil {
			return nil, err
		}
		now := s.cfg.Now()
		if !snap.usable(now) {
			return nil, snap.why(now)
		}
		key, err := s.find(snap, kid, alg)
		if !isUnknown(err) {
			return key, err
		}
		if snap.failed != nil {
			// It may be a new key or an invented one: there is no telling now.
			return nil, snap.failed
		}
		if own {
			break
		}
		// A fetch that was under way already may have begun before the rotation,
		// so the next round may make one more.
		looked = snap
	}
	s.remember(kid)
	return nil, s.notFound()
}

// newer gives a newer snapshot than the one that was looked into, and waits for
// it; own says that the fetch began for this very kid.
func (s *Source) newer(ctx context.Context, looked *snapshot, kid string) (snap *snapshot, own bool, err error) {
	now := s.cfg.Now()
	s.mu.Lock()
	f := s.flight
	if f == nil {
		if snap = s.current.Load(); snap != looked {
			s.mu.Unlock()
			return snap, false, nil
		}
		if err := s.mayFetchFor(snap, kid, now); err != nil {
			s.mu.Unlock()
			return nil, false, err
		}
		s.nextForced = now.Add(s.cfg.Cooldown)
		f, own = s.launch(true), true
	}
	s.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return nil, false, err
	}
	return s.current.Load(), own, nil
}

// mayFetchFor keeps tokens with invented kids from making the broker hammer
// their issuer. The caller holds mu.
func (s *Source) mayFetchFor(snap *snapshot, kid string, now time.Time) error {
	switch {
	case snap.failed != nil:
		if now.Before(snap.retry) {
			return snap.failed
		}
	case now.Before(s.missing[kid]), now.Before(s.nextForced):
		return s.notFound()
	}
	return nil
}

func (s *Source) notFound() error {
	s.unknown.Add(1)
	return failure(proviso.CodeJWTUnknownKID, nil,
		"the issuer publishes no key with the token's kid; if the key is new, try again in half a minute")
}

// remember keeps a kid that the issuer doesn't have. The memory is bounded; when
// it is full of kids that still count, the cool-down alone has to do.
func (s *Source) remember(kid string) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.missing) >= maxMissing {
		maps.DeleteFunc(s.missing, func(_ string, until time.Time) bool { return !now.Before(until) })
	}
	if len(s.missing) < maxMissing {
		s.missing[kid] = now.Add(missingFor)
	}
}

// install makes the outcome of a fetch what jobs see. The caller holds mu.
func (s *Source) install(got fetched, err error) {
	s.fetches.Add(1)
	now := s.cfg.Now()
	last := s.current.Load()
	if err != nil {
		s.current.Store(s.afterFailure(last, err, now))
		return
	}
	early := got.age/5 + rand.N(got.age/10) // #nosec G404 -- so that replicas don't ask together; no secret
	next := &snapshot{set: got.set, jwksURL: got.jwksURL, discovered: got.discovered, fetched: now,
		refresh: now.Add(got.age - early), expired: now.Add(got.age), stale: now.Add(s.cfg.MaxStale)}
	s.judge(next)
	s.report(last, next)
	s.current.Store(next)
}

func (s *Source) afterFailure(last *snapshot, err error, now time.Time) *snapshot {
	s.failures.Add(1)
	next := &snapshot{}
	if last != nil {
		*next = *last
	}
	var e *jose.Error
	if errors.As(err, &e) && e.Code == proviso.CodeJWKSPrivateKey {
		for _, thumbprint := range e.Leaked {
			s.leaked[thumbprint] = true
		}
		next.set = nil
		s.cfg.Log.Error("the issuer published a private key; no token of it is accepted until its key set is clean again", "error", err)
	}
	next.failed = err
	next.failures++
	next.retry = now.Add(min(firstRetry<<min(next.failures-1, 8), longestRetry))
	about := []any{"error", err, "in_a_row", next.failures, "retry", next.retry}
	if !next.fetched.IsZero() {
		about = append(about, "last_good", next.fetched, "stale", next.stale)
	}
	s.cfg.Log.Warn("the issuer's keys could not be refreshed", about...)
	return next
}

// judge looks for keys in a new set that must not be used. The caller holds mu.
func (s *Source) judge(next *snapshot) {
	if len(s.seen) >= maxSeen {
		// Only an issuer that invents kids gets here. What it has now is
		// remembered, what it had is not.
		clear(s.seen)
	}
	for _, key := range next.set.Keys() {
		kid, thumbprint := key.KeyID(), key.Thumbprint()
		if s.leaked[thumbprint] {
			if next.leaked == nil {
				next.leaked = map[string]bool{}
			}
			next.leaked[thumbprint] = true
			s.cfg.Log.Error("the issuer publishes a key whose private half it once published too; the key is not accepted", "kid", kid)
		}
		if kid == "" {
			continue
		}
		first, known := s.seen[kid]
		switch {
		case !known:
			s.seen[kid] = thumbprint
		case first == thumbprint:
		case s.cfg.AllowKIDReuse:
			s.seen[kid] = thumbprint
			s.cfg.Log.Warn("the issuer published a new key under an old kid, which the configuration allows", "kid", kid, "was", first, "is", thumbprint)
		default:
			if next.reused == nil {
				next.reused = map[string]bool{}
			}
			next.reused[kid] = true
			s.cfg.Log.Error("the issuer published another key under a known kid; neither is accepted", "kid", kid, "was", first, "is", thumbprint)
		}
	}
}

// report tells the operator of a rotation and of the end of an outage.
func (s *Source) report(last, next *snapshot) {
	for _, p := range next.set.Problems() {
		s.cfg.Log.Debug("a key of the issuer is not used", "why", p)
	}
	if last == nil || last.set == nil {
		s.cfg.Log.Info("the issuer's keys were fetched", "keys", len(next.set.Keys()), "from", next.jwksURL)
		return
	}
	if last.failed != nil {
		s.cfg.Log.Info("the issuer gives its keys again", "failed", last.failures)
	}
	added, gone := difference(next.set, last.set), difference(last.set, next.set)
	if len(added)+len(gone) > 0 {
		s.cfg.Log.Info("the issuer rotated its keys", "added", added, "gone", gone)
	}
}

// difference gives the kids of a's keys that are not in b.
func difference(a, b *jose.KeySet) []string {
	var kids []string
	for _, k := range a.Keys() {
		found := false
		for _, other := range b.Keys() {
			found = found || k.KeyID() == other.KeyID() && k.Equal(other)
		}
		if !found {
			kids = append(kids, k.KeyID())
		}
	}
	return kids
}

func isUnknown(err error) bool {
	var e *jose.Error
	return errors.As(err, &e) && e.Code == proviso.CodeJWTUnknownKID
}
