package keyset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// A set is fetched once, kept, and replaced in the background before it is old.
func TestRefreshInTheBackground(t *testing.T) {
	k := newKey(t, "a")
	is, c := newIssuer(t, k), &clock{}
	s := newSource(t, is, c, nil)
	for range 1000 {
		wantKey(t, s, "a", k, "")
	}
	wantFetches(t, is, 1)
	c.advance(3 * time.Minute)
	wantKey(t, s, "a", k, "")
	wantFetches(t, is, 1)
	// Due, but not expired: the job that notices is served from what is there,
	// while the issuer hangs.
	release := make(chan struct{})
	is.set(func() {
		is.jwksPage = func(w http.ResponseWriter, r *http.Request) { <-release; is.serveKeys(w, r) }
	})
	c.advance(70 * time.Second)
	for range 100 {
		wantKey(t, s, "a", k, "")
	}
	close(release)
	s.settle()
	wantFetches(t, is, 2)
	if is.discoveries.Load() != 1 {
		t.Error("the address of the keys is asked for once an hour, not with each refresh")
	}
	c.advance(time.Hour)
	wantKey(t, s, "a", k, "")
	if is.discoveries.Load() != 2 {
		t.Error("after an hour the address of the keys is asked for again")
	}
}

// A key that its issuer withdraws is gone with the next set: sets are replaced.
func TestWithdrawnKey(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	is, c := newIssuer(t, a, b), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "a", a, "")
	is.set(func() { is.keys = []*jose.Key{b} })
	// Nobody asked for an hour, so that nothing was refreshed: the first job
	// waits for the new set and is not served from the old one.
	c.advance(time.Hour)
	wantKey(t, s, "a", nil, proviso.CodeJWTUnknownKID)
	wantKey(t, s, "b", b, "")
	is.set(func() { is.keys = nil })
	c.advance(time.Hour)
	wantKey(t, s, "b", nil, proviso.CodeJWTUnknownKID)
}

// During an outage the last good keys serve for MaxStale, and no longer; the
// issuer is asked rarely; when it is back, all is well by itself.
func TestOutage(t *testing.T) {
	k := newKey(t, "a")
	is, c := newIssuer(t, k), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "a", k, "")
	is.down(true)
	start := is.discoveries.Load() + is.jwks.Load()
	for elapsed := time.Duration(0); elapsed < 23*time.Hour+50*time.Minute; elapsed += 10 * time.Minute {
		c.advance(10 * time.Minute)
		for range 5 {
			wantKey(t, s, "a", k, "")
		}
		s.settle()
	}
	if asked := is.discoveries.Load() + is.jwks.Load() - start; asked < 100 || asked > 150 {
		t.Errorf("asked %d times in 143 rounds", asked)
	}
	wantKey(t, s, "new", nil, proviso.CodeDiscoveryUnavailable) // it can't be known now
	c.advance(10 * time.Minute)
	for range 5 {
		wantKey(t, s, "a", nil, proviso.CodeJWKSStale)
	}
	if st := s.Status(); st.Usable || st.Failures < 100 || codeOf(t, st.Failure) != proviso.CodeDiscoveryUnavailable {
		t.Errorf("status %+v", st)
	}
	is.down(false)
	c.advance(2 * time.Minute)
	wantKey(t, s, "a", k, "")
	if st := s.Status(); !st.Usable || st.Failures != 0 || st.Failure != nil || len(st.Keys) != 1 {
		t.Errorf("status %+v", st)
	}
}

// At the first start there are no last good keys: refused, and after the pause
// tried again.
func TestOutageAtTheStart(t *testing.T) {
	k := newKey(t, "a")
	is, c := newIssuer(t, k), &clock{}
	is.down(true)
	s := newSource(t, is, c, nil)
	for range 50 {
		wantKey(t, s, "a", nil, proviso.CodeDiscoveryUnavailable)
	}
	if is.discoveries.Load() != 1 {
		t.Errorf("asked %d times within a moment", is.discoveries.Load())
	}
	if err := s.Refresh(context.Background()); codeOf(t, err) != proviso.CodeDiscoveryUnavailable {
		t.Errorf("refresh: %v", err)
	}
	is.down(false)
	c.advance(30 * time.Second)
	wantKey(t, s, "a", k, "")
	if err := s.Refresh(context.Background()); err != nil {
		t.Error(err)
	}
}

// An answer that can't be used is like an outage: it takes no good key away.
func TestBadSetKeepsTheLastGoodOne(t *testing.T) {
	k := newKey(t, "a")
	is, c := newIssuer(t, k), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "a", k, "")
	for _, text := range []string{"oops", `{"keys":[{"kid":"a"},{"kid":"a"}]}`, `{"keys":[1]}`} {
		is.set(func() { is.jwksPage = body(200, nil, text) })
		c.advance(10 * time.Minute)
		wantKey(t, s, "a", k, "")
		if s.Status().Failure == nil {
			t.Errorf("%s: no failure", text)
		}
	}
}

// A published private key ends all trust at once, and never comes back itself.
func TestPrivateKeyPublished(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	is, c := newIssuer(t, a, b), &clock{}
	var log bytes.Buffer
	s := newSource(t, is, c, func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	wantKey(t, s, "a", a, "")
	leak := strings.Replace(string(publish([]*jose.Key{a})), `"x":`, `"d":"c2VjcmV0LWhhbGY","x":`, 1)
	is.set(func() { is.jwksPage = body(200, nil, leak) })
	c.advance(10 * time.Minute)
	wantKey(t, s, "a", nil, proviso.CodeJWKSPrivateKey)
	wantKey(t, s, "b", nil, proviso.CodeJWKSPrivateKey)
	// The issuer takes the private half out again, renames the key even.
	renamed, err := jose.NewKey("c", jose.EdDSA, a.Public())
	if err != nil {
		t.Fatal(err)
	}
	is.set(func() { is.jwksPage = nil; is.keys = []*jose.Key{a, b, renamed} })
	c.advance(2 * time.Minute)
	wantKey(t, s, "b", b, "")
	wantKey(t, s, "a", nil, proviso.CodeJWKSPrivateKey)
	wantKey(t, s, "c", nil, proviso.CodeJWKSPrivateKey)
	if !strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "c2VjcmV0") {
		t.Errorf("log: %s", &log)
	}
}

// A kid that names another key than before: neither is accepted, also when the
// kid was away in between; with the first key it is well again.
func TestKIDReused(t *testing.T) {
	a, b, evil := newKey(t, "a"), newKey(t, "b"), newKey(t, "a")
	is, c := newIssuer(t, a, b), &clock{}
	var log bytes.Buffer
	s := newSource(t, is, c, func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	wantKey(t, s, "a", a, "")
	next := func(keys ...*jose.Key) {
		is.set(func() { is.keys = keys })
		c.advance(10 * time.Minute)
	}
	next(evil, b)
	wantKey(t, s, "a", nil, proviso.CodeJWKSKIDReused)
	wantKey(t, s, "b", b, "")
	if st := s.Status(); len(st.Keys) != 2 || !st.Keys[0].Reused || st.Keys[1].Reused {
		t.Errorf("status %+v", st.Keys)
	}
	next(b)
	wantKey(t, s, "a", nil, proviso.CodeJWTUnknownKID)
	next(evil, b)
	wantKey(t, s, "a", nil, proviso.CodeJWKSKIDReused)
	next(a, b)
	wantKey(t, s, "a", a, "")
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Error("the operator isn't told loudly")
	}

	allowing := newSource(t, is, c, func(cfg *Config) { cfg.AllowKIDReuse = true })
	wantKey(t, allowing, "a", a, "")
	next(evil)
	wantKey(t, allowing, "a", evil, "")
}

// Invented kids make one fetch for a cool-down, however many they are, and the
// issuer's real jobs go on.
func TestInventedKIDs(t *testing.T) {
	k := newKey(t, "a")
	is, c := newIssuer(t, k), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "a", k, "")
	wantFetches(t, is, 1)
	for i := range 1000 {
		wantKey(t, s, fmt.Sprint("invented-", i), nil, proviso.CodeJWTUnknownKID)
	}
	wantFetches(t, is, 2)
	c.advance(11 * time.Second)
	wantKey(t, s, "invented-0", nil, proviso.CodeJWTUnknownKID) // remembered
	wantFetches(t, is, 2)
	wantKey(t, s, "invented-x", nil, proviso.CodeJWTUnknownKID)
	wantFetches(t, is, 3)
	// The memory of invented kids is bounded, and makes room when they are old.
	for i := range 2 * maxMissing {
		s.remember(fmt.Sprint("more-", i))
	}
	if len(s.missing) != maxMissing {
		t.Errorf("%d kids are remembered", len(s.missing))
	}
	c.advance(time.Minute)
	s.remember("another")
	if len(s.missing) != 1 {
		t.Errorf("%d kids are remembered a minute later", len(s.missing))
	}
	wantKey(t, s, "a", k, "")
}

// Rotation while jobs come: none is refused, and all that carry the new kid wait
// for one fetch.
func TestRotationRefusesNobody(t *testing.T) {
	keys := []*jose.Key{newKey(t, "k0")}
	is, c := newIssuer(t, keys[0]), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "k0", keys[0], "")
	for round := 1; round <= 5; round++ {
		c.advance(20 * time.Second)
		next := newKey(t, fmt.Sprint("k", round))
		keys = append(keys, next)
		is.set(func() { is.keys = keys[len(keys)-2:] })
		before := is.jwks.Load()
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for _, want := range keys[len(keys)-2:] {
					if k, err := s.Key(context.Background(), want.KeyID(), jose.EdDSA); err != nil || !k.Equal(want) {
						refused.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if refused.Load() != 0 {
			t.Fatalf("round %d: %d jobs refused", round, refused.Load())
		}
		if got := is.jwks.Load() - before; got != 1 {
			t.Errorf("round %d: %d fetches, want 1", round, got)
		}
	}
}

// A fetch that began before the rotation brings the old set; who waited for it
// with a new kid gets one more.
func TestRotationDuringAFetch(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	is, c := newIssuer(t, a), &clock{}
	s := newSource(t, is, c, nil)
	wantKey(t, s, "a", a, "")
	arrived, release := make(chan struct{}), make(chan struct{})
	is.set(func() {
		is.jwksPage = func(w http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-release
			_, _ = w.Write(publish([]*jose.Key{a})) // from before the rotation
		}
	})
	c.advance(4*time.Minute + 50*time.Second)
	wantKey(t, s, "a", a, "") // begins the refresh
	<-arrived
	result := make(chan error, 1)
	go func() {
		_, err := s.Key(context.Background(), "b", jose.EdDSA)
		result <- err
	}()
	is.set(func() { is.jwksPage = nil; is.keys = []*jose.Key{a, b} })
	close(release)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	wantFetches(t, is, 3)
}

// The first jobs after a start wait for one fetch; one that gives up takes it
// from nobody.
func TestFirstUse(t *testing.T) {
	k := newKey(t, "a")
	is := newIssuer(t, k)
	arrived, release := make(chan struct{}), make(chan struct{})
	is.jwksPage = func(w http.ResponseWriter, r *http.Request) { close(arrived); <-release; is.serveKeys(w, r) }
	s := newSource(t, is, &clock{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := s.Key(ctx, "a", jose.EdDSA)
		gaveUp <- err
	}()
	<-arrived
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 100 {
		wg.Go(func() {
			if _, err := s.Key(context.Background(), "a", jose.EdDSA); err != nil {
				refused.Add(1)
			}
		})
	}
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) || codeOf(t, err) != proviso.CodeDiscoveryUnavailable {
		t.Errorf("the one that gave up: %v", err)
	}
	close(release)
	wg.Wait()
	if refused.Load() != 0 || is.jwks.Load() != 1 {
		t.Errorf("%d refused, %d fetches", refused.Load(), is.jwks.Load())
	}
}

func TestTokensWithoutKID(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	is, c := newIssuer(t, a), &clock{}
	wantKey(t, newSource(t, is, c, nil), "", nil, proviso.CodeJWTKIDMissing)
	s := newSource(t, is, c, func(cfg *Config) { cfg.AllowNoKID = true })
	wantKey(t, s, "", a, "")
	is.set(func() { is.keys = []*jose.Key{a, b} })
	c.advance(10 * time.Minute)
	wantKey(t, s, "", nil, proviso.CodeJWTKIDMissing)
}

func TestFixed(t *testing.T) {
	k := newKey(t, "a")
	set, err := jose.NewKeySet(k)
	if err != nil {
		t.Fatal(err)
	}
	s := Fixed("https://ci.example", set, false)
	s.Start(context.Background())
	defer s.Close()
	wantKey(t, s, "a", k, "")
	wantKey(t, s, "b", nil, proviso.CodeJWTUnknownKID)
	wantKey(t, s, "", nil, proviso.CodeJWTKIDMissing)
	if err := s.Refresh(context.Background()); err != nil {
		t.Error(err)
	}
	if st := s.Status(); !st.Fixed || !st.Usable || len(st.Keys) != 1 {
		t.Errorf("status %+v", st)
	}
}

// After Close nothing is fetched and nothing waits.
func TestClosed(t *testing.T) {
	is := newIssuer(t, newKey(t, "a"))
	s := newSource(t, is, &clock{}, nil)
	s.Close()
	s.Start(context.Background())
	wantKey(t, s, "a", nil, proviso.CodeDiscoveryUnavailable)
	if codeOf(t, s.Refresh(context.Background())) != proviso.CodeDiscoveryUnavailable {
		t.Error("refreshed after Close")
	}
	wantFetches(t, is, 0)

	hanging := newIssuer(t, newKey(t, "a"))
	arrived := make(chan struct{})
	hanging.discoveryPage = func(w http.ResponseWriter, r *http.Request) { close(arrived); hang(w, r) }
	s = newSource(t, hanging, &clock{}, nil)
	s.Start(context.Background())
	<-arrived
	s.Close() // ends the fetch
}

// pipes is a listener whose connections lie in memory, for tests in a bubble of
// time, where a socket would let the clock stand still.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }
func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.conns <- far
	return near, nil
}

// With Start the set is always fresh, for a day in which an outage lies, and no
// job ever waits: each Key here finds its answer at once.
func TestStartKeepsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, "a")
		var asked, failing atomic.Int64
		mux := http.NewServeMux()
		mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			if failing.Load() != 0 {
				http.Error(w, "maintenance", http.StatusBadGateway)
				return
			}
			_, _ = w.Write(publish([]*jose.Key{k}))
		})
		p := &pipes{make(chan net.Conn), make(chan struct{})}
		server := &http.Server{Handler: mux}
		go func() { _ = server.Serve(p) }()
		s, err := New(Config{Issuer: "http://localhost", JWKSURL: "http://localhost/jwks", Algorithms: []jose.Alg{jose.EdDSA}, AllowLoopback: true})
		if err != nil {
			t.Fatal(err)
		}
		s.dial = p.dial
		ctx, cancel := context.WithCancel(context.Background())
		s.Start(ctx)
		synctest.Wait()
		if !s.Status().Usable {
			t.Fatal("nothing fetched at the start")
		}
		minutes := func(n int) {
			for range n {
				timer := time.NewTimer(time.Minute)
				<-timer.C
				synctest.Wait()
				before := time.Now()
				wantKey(t, s, "a", k, "")
				if waited := time.Since(before); waited != 0 {
					t.Fatalf("a job waited %v", waited)
				}
				if age := time.Since(s.Status().Fetched); failing.Load() == 0 && age > 5*time.Minute {
					t.Fatalf("the set is %v old", age)
				}
			}
		}
		minutes(60)
		if n := asked.Load(); n < 12 || n > 18 {
			t.Errorf("asked %d times in an hour", n)
		}
		failing.Store(1)
		asked.Store(0)
		minutes(120)
		if n := asked.Load(); n < 100 || n > 125 {
			t.Errorf("asked %d times in an outage of two hours", n)
		}
		failing.Store(0)
		timer := time.NewTimer(2 * time.Minute)
		<-timer.C
		minutes(60)
		cancel()
		s.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The hot path: no lock, no allocation.
func BenchmarkKey(b *testing.B) {
	is := newIssuer(b, newKey(b, "a"))
	s := newSource(b, is, &clock{}, func(c *Config) { c.Now = time.Now })
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Key(context.Background(), "a", jose.EdDSA); err != nil {
				b.Fatal(err)
			}
		}
	})
}
