package keyset

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is a CI platform on a real socket. Its two documents can be replaced by
// handlers that misbehave.
type issuer struct {
	server *httptest.Server
	path   string // of the issuer, below the host

	mu            sync.Mutex
	discoveryPage http.HandlerFunc // nil: the right one
	jwksPage      http.HandlerFunc
	keys          []*jose.Key
	cacheControl  string

	discoveries, jwks atomic.Int64 // requests
	lastHeader        atomic.Pointer[http.Header]
}

func newIssuer(t testing.TB, keys ...*jose.Key) *issuer {
	t.Helper()
	is := &issuer{path: "/org/42", keys: keys}
	is.server = httptest.NewUnstartedServer(http.HandlerFunc(is.serve))
	is.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	is.server.StartTLS()
	t.Cleanup(is.server.Close)
	return is
}

func (is *issuer) url() string { return is.server.URL + is.path }

func (is *issuer) serve(w http.ResponseWriter, r *http.Request) {
	is.mu.Lock()
	page := is.discoveryPage
	if r.URL.Path == is.path+"/jwks" {
		page = is.jwksPage
	}
	is.mu.Unlock()
	header := r.Header.Clone()
	is.lastHeader.Store(&header)
	w.Header().Set("Set-Cookie", "tracking=1")
	switch r.URL.Path {
	case is.path + discoverySuffix:
		is.discoveries.Add(1)
		if page == nil {
			page = is.serveDiscovery
		}
	case is.path + "/jwks":
		is.jwks.Add(1)
		if page == nil {
			page = is.serveKeys
		}
	default:
		page = http.NotFound
	}
	page(w, r)
}

func (is *issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]any{"issuer": is.url(), "jwks_uri": is.url() + "/jwks", "id_token_signing_alg_values_supported": []string{"none", "HS256"}})
}

func (is *issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.cacheControl != "" {
		w.Header().Set("Cache-Control", is.cacheControl)
	}
	_, _ = w.Write(publish(is.keys))
}

// publish writes keys as an issuer may, also ones that no set may have.
func publish(keys []*jose.Key) []byte {
	var list []string
	for _, k := range keys {
		list = append(list, string(jose.AppendJWK(nil, k)))
	}
	return []byte(`{"keys":[` + strings.Join(list, ",") + `]}`)
}

func (is *issuer) set(change func()) {
	is.mu.Lock()
	defer is.mu.Unlock()
	change()
}

// down makes the issuer answer 503 to everything, or work again.
func (is *issuer) down(yes bool) {
	var page http.HandlerFunc
	if yes {
		page = func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
		}
	}
	is.set(func() { is.discoveryPage, is.jwksPage = page, page })
}

func (is *issuer) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(is.server.Certificate())
	return pool
}

// clock is a clock that a test moves.
type clock struct{ offset atomic.Int64 }

var clockStart = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func (c *clock) now() time.Time          { return clockStart.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

func newSource(t testing.TB, is *issuer, c *clock, change func(*Config)) *Source {
	t.Helper()
	cfg := Config{Issuer: is.url(), Algorithms: []jose.Alg{jose.EdDSA}, AllowLoopback: true, RootCAs: is.roots(), Now: c.now}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// settle waits for the fetch that is under way, if one is.
func (s *Source) settle() {
	s.mu.Lock()
	f := s.flight
	s.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

var keyNumber atomic.Int64

// newKey makes a key of its own under a kid.
func newKey(t testing.TB, kid string) *jose.Key {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, fmt.Sprint(keyNumber.Add(1)))
	k, err := jose.NewKey(kid, jose.EdDSA, ed25519.NewKeyFromSeed(seed).Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func codeOf(t *testing.T, err error) proviso.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *jose.Error
	if !errors.As(err, &e) || e.Msg == "" {
		t.Fatalf("error %T is not a *jose.Error: %v", err, err)
	}
	return e.Code
}

// wantKey demands that s gives exactly this key, or refuses with this code.
func wantKey(t *testing.T, s *Source, kid string, want *jose.Key, code proviso.Code) {
	t.Helper()
	k, err := s.Key(context.Background(), kid, jose.EdDSA)
	if codeOf(t, err) != code {
		t.Fatalf("kid %s: %v, want code %q", kid, err, code)
	}
	if (k == nil) != (want == nil) || k != nil && !k.Equal(want) {
		t.Fatalf("kid %s: another key than wanted", kid)
	}
}

func wantFetches(t *testing.T, is *issuer, want int64) {
	t.Helper()
	if got := is.jwks.Load(); got != want {
		t.Fatalf("the issuer was asked for its keys %d times, want %d", got, want)
	}
}
