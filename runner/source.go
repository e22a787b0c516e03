package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
)

// Refusals and problems of bundles that the shared list has no word for.
const (
	// CodeBundleUnavailable: no bundle of the trust domain could be had yet.
	CodeBundleUnavailable proviso.Code = "bundle_unavailable" // 503 server_error
	// CodeBundleStale: the last good bundle is older than max_stale.
	CodeBundleStale proviso.Code = "bundle_stale" // 503 server_error
	// CodeBundleEndpoint: the bundle endpoint, or the Workload API, gave nothing.
	CodeBundleEndpoint proviso.Code = "bundle_endpoint" // bundle
	// CodeBundleEndpointIdentity: the bundle endpoint didn't prove itself.
	CodeBundleEndpointIdentity proviso.Code = "bundle_endpoint_identity" // bundle
)

// origin is where a trust domain's bundle comes from: a file, a bundle endpoint,
// the Workload API. It feeds one source.
type origin interface {
	// look is called whenever the bundle is asked for; it waits for nobody else's
	// answer.
	look()
	// run keeps the source fresh until ctx ends.
	run(ctx context.Context)
	// refresh asks now, and waits.
	refresh(ctx context.Context) error
	// String names the origin for the operator.
	String() string
}

// source keeps a trust domain's current bundle, and knows until when it may be
// believed. It is one domain's own: what becomes of it is nothing to any other.
type source struct {
	domain   spiffeid.TrustDomain
	name     string // of the configuration entry
	maxStale time.Duration
	now      func() time.Time
	log      *slog.Logger
	origin   origin
	// floor is a bundle that none may fall behind, although it verifies nothing;
	// nil without one.
	floor *bundle
	// kept is where the highest sequence outlives a restart; nil keeps none.
	kept *store.DB
	// distinct reports a key that another trust domain's bundle holds too.
	distinct func(*source, *bundle) error

	current   atomic.Pointer[bundle]
	confirmed atomic.Int64 // Unix nanoseconds: when the origin last stood by current
	live      atomic.Bool  // the origin stands by it at this moment: an open stream
	tooOld    atomic.Bool  // that it is too old has been said

	mu      sync.Mutex // one change at a time; guards what follows
	loaded  time.Time
	problem error
}

// usable gives the bundle to verify with. Without one, and with one that its
// origin has not stood by for too long, every SVID of the domain is refused:
// what was withdrawn meanwhile could not be known.
func (s *source) usable() (*bundle, error) {
	s.origin.look()
	b := s.current.Load()
	if b == nil {
		return nil, refuse(CodeBundleUnavailable, "the keys of the trust domain %s are not known here at present, so nothing of it can be verified; "+
			"the broker's operator sees why with proviso doctor", s.domain.Name())
	}
	if age := s.age(); age > s.maxStale {
		if !s.tooOld.Swap(true) {
			s.log.Error("trust domain's bundle is too old, its SVIDs are refused from now on", "runner", s.name,
				"trust_domain", s.domain.Name(), "code", CodeBundleStale, "age", age.Round(time.Second).String(), "max_stale", s.maxStale.String())
		}
		return nil, refuse(CodeBundleStale, "the keys of the trust domain %s could not be renewed for %s, and are believed for %s; "+
			"the broker's operator sees why with proviso doctor", s.domain.Name(), age.Round(time.Second), s.maxStale)
	}
	return b, nil
}

// age is how long ago the origin stood by the current bundle.
func (s *source) age() time.Duration {
	if s.live.Load() {
		return 0
	}
	return s.now().Sub(time.Unix(0, s.confirmed.Load()))
}

// confirm notes that the origin stands by the current bundle now.
func (s *source) confirm() {
	s.confirmed.Store(s.now().UnixNano())
	if s.tooOld.Swap(false) {
		s.log.Info("trust domain's bundle is fresh again", "runner", s.name, "trust_domain", s.domain.Name())
	}
}

// take reads a bundle that the origin gave and takes it over if it may follow
// the current one; otherwise the last good one stays, and the log says so once
// per cause.
func (s *source) take(data []byte) error {
	fresh, err := parseBundle(s.domain, data)
	if err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.current.Load()
	if old != nil && fresh.same(old) {
		s.problem = nil
		s.confirm() // what was verified with it stays known
		return nil
	}
	last := old
	if last == nil {
		last = s.floor
	}
	if last != nil {
		if err := fresh.follows(last); err != nil {
			return s.keep(err)
		}
	}
	if err := s.remembered(old, fresh); err != nil {
		return s.keep(err)
	}
	if err := s.distinct(s, fresh); err != nil {
		return s.keep(err)
	}
	s.remember(fresh)
	s.problem, s.loaded = nil, s.now()
	s.current.Store(fresh)
	s.confirm()
	say := s.log.Info
	if len(fresh.keys) == 0 {
		say = s.log.Warn // allowed: it is how a domain withdraws everything
	}
	say("trust domain's bundle is in use", "runner", s.name, "trust_domain", s.domain.Name(), "source", s.origin.String(),
		"sequence", fresh.sequence, "x509_authorities", len(fresh.x509.X509Authorities()), "jwt_authorities", len(fresh.jwt))
	return nil
}

// remembered holds a process's first bundle to the newest that an earlier one
// took from the same source: a restart is no occasion to come with an older one.
func (s *source) remembered(old, fresh *bundle) error {
	if s.kept == nil || old != nil {
		return nil
	}
	f, known, err := s.kept.BundleFloor(context.Background(), s.domain.Name(), s.origin.String())
	if err != nil || !known {
		return err
	}
	if err := fresh.notBefore(f.Sequence, f.Keys); err != nil {
		return fmt.Errorf("%w; that was seen here before the last start, at %s. If the domain's authority was made anew, have it forgotten: proviso runner bundle forget %s",
			err, stamp(f.Seen), s.domain.Name())
	}
	return nil
}

// remember keeps a bundle's sequence. One that can't be kept serves all the same:
// the broker whose store can't be written issues nothing anyway.
func (s *source) remember(b *bundle) {
	if s.kept == nil || !b.hasSequence {
		return
	}
	err := s.kept.RaiseBundleFloor(context.Background(), s.domain.Name(), s.origin.String(), store.BundleFloor{Sequence: b.sequence, Keys: b.keysHash(), Seen: s.now()})
	if err != nil {
		s.log.Error("the sequence of a trust domain's bundle is not kept: after a restart an older one would be taken", "runner", s.name, "trust_domain", s.domain.Name(), "error", err)
	}
}

// fail notes why the origin gave no bundle. The last good one stays.
func (s *source) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keep(err)
}

// withdraw takes the bundle out of use: the origin says that there is none.
func (s *source) withdraw(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(nil)
	return s.keep(err)
}

// keep says what is wrong, once per cause. Called with mu held.
func (s *source) keep(err error) error {
	if s.problem == nil || s.problem.Error() != err.Error() {
		now := "trust domain's bundle is refused, the last good one stays in use"
		if s.current.Load() == nil {
			now = "trust domain has no bundle, its SVIDs are refused"
		}
		s.log.Error(now, "runner", s.name, "trust_domain", s.domain.Name(), "source", s.origin.String(), "code", codeOf(err), "error", err)
	}
	s.problem = err
	return err
}

func codeOf(err error) proviso.Code {
	var be *bundleError
	if errors.As(err, &be) {
		return be.code
	}
	return proviso.CodeBundleMalformed
}

// Status is the state of one trust domain, for doctor and metrics.
type Status struct {
	Name, TrustDomain string
	// Source says where the bundle comes from.
	Source string
	// Usable: SVIDs of the domain can be verified now.
	Usable bool
	// Sequence of the bundle in use; -1 if it has none.
	Sequence int64
	// X509Authorities and JWTAuthorities count its keys.
	X509Authorities, JWTAuthorities int
	// Loaded is when the bundle in use was read first, zero without one.
	Loaded time.Time
	// Age is how long ago the source stood by it, and MaxStale how old it may get.
	Age, MaxStale time.Duration
	// Problem is why what the source has now is not in use, nil if it is.
	Problem error
	// Code is the problem in one word.
	Code proviso.Code
}

func (s *source) status() Status {
	_, err := s.usable()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Name: s.name, TrustDomain: s.domain.Name(), Source: s.origin.String(), Usable: err == nil,
		Sequence: -1, MaxStale: s.maxStale, Problem: s.problem}
	if b := s.current.Load(); b != nil {
		if b.hasSequence {
			st.Sequence = b.sequence
		}
		st.X509Authorities, st.JWTAuthorities = len(b.x509.X509Authorities()), len(b.jwt)
		st.Loaded, st.Age = s.loaded, s.age()
	}
	if s.problem != nil {
		st.Code = codeOf(s.problem)
	}
	return st
}
