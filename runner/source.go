package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/proviso-ci/proviso"
)

// source keeps a trust domain's current bundle and looks after its file: at
// most once per interval, and only when the bundle is asked for.
type source struct {
	domain spiffeid.TrustDomain
	name   string // of the configuration entry
	path   string
	own    func() []byte // of the broker's own trust domain, instead of path
	every  time.Duration
	now    func() time.Time
	log    *slog.Logger
	// distinct reports a key that another trust domain's bundle holds too.
	distinct func(*source, *bundle) error

	current atomic.Pointer[bundle]
	next    atomic.Int64 // Unix nanoseconds of the next look at the file

	mu      sync.Mutex // one reading at a time; guards what follows
	raw     []byte     // the file as it was read last, good or bad
	loaded  time.Time
	problem error
}

// bundle gives the current bundle. Whoever comes first after the interval reads
// the file; nobody waits for it.
func (s *source) bundle() *bundle {
	now := s.now().UnixNano()
	if due := s.next.Load(); now >= due && s.next.CompareAndSwap(due, now+int64(s.every)) {
		_ = s.reload() // said in the log and in the status; the last good bundle serves
	}
	return s.current.Load()
}

// reload reads the file and takes its bundle over if it may follow the current
// one; otherwise the last good one stays, and the log says so once per cause.
func (s *source) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := s.read()
	if err != nil {
		s.raw = nil
		return s.keep(err)
	}
	if s.raw != nil && bytes.Equal(data, s.raw) {
		return s.problem
	}
	fresh, err := parseBundle(s.domain, data)
	if err != nil {
		s.raw = data
		return s.keep(err)
	}
	old := s.current.Load()
	if old != nil {
		if err := fresh.follows(old); err != nil {
			s.raw = data
			return s.keep(err)
		}
	}
	if err := s.distinct(s, fresh); err != nil {
		s.raw = nil // looked at again: the other bundle may change
		return s.keep(err)
	}
	s.raw, s.problem, s.loaded = data, nil, s.now()
	s.current.Store(fresh)
	say := s.log.Info
	if len(fresh.keys) == 0 {
		say = s.log.Warn // allowed: it is how a domain withdraws everything
	}
	say("trust domain's bundle is in use", "runner", s.name, "trust_domain", s.domain.Name(),
		"sequence", fresh.sequence, "x509_authorities", len(fresh.x509.X509Authorities()), "jwt_authorities", len(fresh.jwt))
	return nil
}

func (s *source) read() ([]byte, error) {
	if s.own != nil {
		return s.own(), nil
	}
	return readFile(s.path, maxBundle)
}

func (s *source) keep(err error) error {
	if s.problem == nil || s.problem.Error() != err.Error() {
		s.log.Error("trust domain's bundle is refused, the last good one stays in use", "runner", s.name,
			"trust_domain", s.domain.Name(), "code", codeOf(err), "error", err)
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

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// Status is the state of one trust domain, for doctor and metrics.
type Status struct {
	Name, TrustDomain string
	// Sequence of the bundle in use; -1 if it has none.
	Sequence int64
	// X509Authorities and JWTAuthorities count its keys.
	X509Authorities, JWTAuthorities int
	// Loaded is when the bundle in use was read.
	Loaded time.Time
	// Problem is why the newest file is not in use, nil if it is.
	Problem error
	// Code is the problem in one word.
	Code proviso.Code
}

func (s *source) status() Status {
	b := s.bundle()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Name: s.name, TrustDomain: s.domain.Name(), Sequence: -1, Loaded: s.loaded, Problem: s.problem}
	if b != nil {
		if b.hasSequence {
			st.Sequence = b.sequence
		}
		st.X509Authorities, st.JWTAuthorities = len(b.x509.X509Authorities()), len(b.jwt)
	}
	if s.problem != nil {
		st.Code = codeOf(s.problem)
	}
	return st
}
