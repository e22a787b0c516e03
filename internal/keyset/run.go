package keyset

import (
	"context"
	"time"
)

// shortestPause keeps the loop from spinning when a clock jumps.
const shortestPause = time.Second

// Start fetches the set now and then always before it is old, until ctx ends or
// Close. Without it a set is refreshed when a job comes.
func (s *Source) Start(ctx context.Context) {
	if s.fixed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.tasks.Go(func() {
		for {
			s.refreshIfDue(ctx)
			timer := time.NewTimer(s.pause())
			select {
			case <-ctx.Done():
			case <-s.root.Done():
			case <-timer.C:
				continue
			}
			timer.Stop()
			return
		}
	})
}

func (s *Source) refreshIfDue(ctx context.Context) {
	snap := s.current.Load()
	if now := s.cfg.Now(); snap.due(now) {
		s.begin(snap, now)
	}
	s.mu.Lock()
	f := s.flight
	s.mu.Unlock()
	if f != nil {
		_ = f.wait(ctx) // the outcome is in current, and was logged
	}
}

func (s *Source) pause() time.Duration {
	snap := s.current.Load()
	if snap == nil {
		return shortestPause
	}
	next := snap.refresh
	if snap.failed != nil {
		next = snap.retry
	}
	return max(next.Sub(s.cfg.Now()), shortestPause)
}

// Refresh fetches the set now, and tells how that went: for doctor, and for a
// start that wants to know. It has no cool-down, so it is not for requests.
func (s *Source) Refresh(ctx context.Context) error {
	if s.fixed {
		return nil
	}
	s.mu.Lock()
	f := s.flight
	if f == nil {
		f = s.launch(true)
	}
	s.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return err
	}
	snap, now := s.current.Load(), s.cfg.Now()
	if snap == nil || snap.set == nil {
		return snap.why(now)
	}
	return snap.failed
}

// Close ends what is under way and waits for it. Keys are not given any more
// once the set is old.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
}

// Status is what is known of an issuer's keys, for doctor, console and metrics.
type Status struct {
	Issuer  string
	JWKSURL string // "" before discovery, and for a set from a file
	Fixed   bool   // from a file
	Usable  bool   // a token could be verified now
	Keys    []KeyStatus
	// Problems says of each published key that is not used why.
	Problems []string
	Fetched  time.Time // zero if never
	Next     time.Time // when the issuer is asked again
	Stale    time.Time // when the set is of no use any more
	// Failure is what went wrong in the last attempt, nil if nothing; Failures
	// is how many failed in a row.
	Failure  error
	Failures int

	// Since the start: all fetches, those that failed, tokens with unknown kids.
	TotalFetches, TotalFailures, TotalUnknown uint64
}

// KeyStatus is one usable or quarantined key.
type KeyStatus struct {
	KID, Alg, Thumbprint string
	Reused, Leaked       bool // published, but not accepted
}

// Status tells how things are.
func (s *Source) Status() Status {
	now := s.cfg.Now()
	st := Status{Issuer: s.cfg.Issuer, JWKSURL: s.cfg.JWKSURL, Fixed: s.fixed,
		TotalFetches: s.fetches.Load(), TotalFailures: s.failures.Load(), TotalUnknown: s.unknown.Load()}
	snap := s.current.Load()
	if snap == nil {
		return st
	}
	st.Usable = s.fixed || snap.usable(now)
	st.Fetched, st.Next, st.Stale, st.Failure, st.Failures = snap.fetched, snap.refresh, snap.stale, snap.failed, snap.failures
	if snap.failed != nil {
		st.Next = snap.retry
	}
	if snap.jwksURL != "" {
		st.JWKSURL = snap.jwksURL
	}
	if snap.set == nil {
		return st
	}
	st.Problems = snap.set.Problems()
	for _, k := range snap.set.Keys() {
		st.Keys = append(st.Keys, KeyStatus{KID: k.KeyID(), Alg: string(k.Alg()), Thumbprint: k.Thumbprint(),
			Reused: snap.reused[k.KeyID()], Leaked: snap.leaked[k.Thumbprint()]})
	}
	return st
}
