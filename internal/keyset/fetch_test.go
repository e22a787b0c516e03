package keyset

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// What an operator must not configure.
func TestConfigRefusals(t *testing.T) {
	good := Config{Issuer: "https://ci.example/org", Algorithms: []jose.Alg{jose.RS256}}
	if s, err := New(good); err != nil {
		t.Fatal(err)
	} else {
		s.Close()
	}
	for name, change := range map[string]func(*Config){
		"no issuer":              func(c *Config) { c.Issuer = "" },
		"issuer without scheme":  func(c *Config) { c.Issuer = "ci.example" },
		"issuer without host":    func(c *Config) { c.Issuer = "https:///org" },
		"issuer over http":       func(c *Config) { c.Issuer = "http://ci.example" },
		"http, loopback allowed": func(c *Config) { c.Issuer = "http://ci.example"; c.AllowLoopback = true },
		"loopback, not allowed":  func(c *Config) { c.Issuer = "http://127.0.0.1:8080" },
		"looks like loopback":    func(c *Config) { c.Issuer = "http://127.0.0.1.evil.example"; c.AllowLoopback = true },
		"looks like localhost":   func(c *Config) { c.Issuer = "http://localhost.evil.example"; c.AllowLoopback = true },
		"issuer with a query":    func(c *Config) { c.Issuer = "https://ci.example/?a=b" },
		"issuer with ?":          func(c *Config) { c.Issuer = "https://ci.example/?" },
		"issuer with a fragment": func(c *Config) { c.Issuer = "https://ci.example/#" },
		"issuer with a user":     func(c *Config) { c.Issuer = "https://u:p@ci.example" },
		"issuer a file":          func(c *Config) { c.Issuer = "file:///etc/passwd" },
		"jwks_url over http":     func(c *Config) { c.JWKSURL = "http://ci.example/jwks" },
		"jwks_url with a user":   func(c *Config) { c.JWKSURL = "https://token@ci.example/jwks" },
		"no algorithm":           func(c *Config) { c.Algorithms = nil },
		"algorithm none":         func(c *Config) { c.Algorithms = []jose.Alg{jose.RS256, "none"} },
		"HMAC":                   func(c *Config) { c.Algorithms = []jose.Alg{"HS256"} },
		"keys for ever":          func(c *Config) { c.MaxStale = 365 * 24 * time.Hour },
		"keys for a moment":      func(c *Config) { c.MaxStale = time.Minute },
		"negative cool-down":     func(c *Config) { c.Cooldown = -1 },
		"negative timeout":       func(c *Config) { c.Timeout = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "u:p") || strings.Contains(err.Error(), "token@") {
			t.Errorf("%s: the message shows a password: %v", name, err)
		}
	}
}

func TestDiscovery(t *testing.T) {
	k := newKey(t, "a")
	is := newIssuer(t, k)
	s := newSource(t, is, &clock{}, nil)
	wantKey(t, s, "a", k, "")
	if is.discoveries.Load() != 1 || is.jwks.Load() != 1 {
		t.Error("the well-known path is appended to the issuer with its path")
	}
	if got := discoveryURL("https://ci.example/a/"); got != "https://ci.example/a/.well-known/openid-configuration" {
		t.Errorf("a slash at the end: %s", got)
	}
	// Where the address of the keys is configured, nothing is discovered.
	direct := newSource(t, is, &clock{}, func(c *Config) { c.JWKSURL, c.Issuer = is.url()+"/jwks", "https://elsewhere.example" })
	wantKey(t, direct, "a", k, "")
	if is.discoveries.Load() != 1 {
		t.Error("discovered in spite of jwks_url")
	}
	if h := *is.lastHeader.Load(); h.Get("Cookie") != "" || h.Get("Authorization") != "" || h.Get("Accept-Encoding") != "" {
		t.Errorf("sent %v", h)
	}
}

func body(status int, header http.Header, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// chunks writes without a length, for as long as somebody reads.
func chunks(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat(" ", 32<<10)); err != nil {
			return
		}
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// hangInside sends headers and half a document, and then nothing.
func hangInside(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"keys":[`)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func truncated(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "500")
	_, _ = io.WriteString(w, `{"keys":[]}`)
}

func slam(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// Every way in which an issuer, or somebody in its place, may misbehave: a code
// of its own, no key, no hang, and no content of the answer in the message.
func TestMisbehaviour(t *testing.T) {
	k, other := newKey(t, "a"), newKey(t, "a")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(publish([]*jose.Key{k}))
	_ = z.Close()
	many := make([]*jose.Key, 65)
	for i := range many {
		many[i] = newKey(t, fmt.Sprint(i))
	}
	private := strings.Replace(string(publish([]*jose.Key{k})), `"x":`, `"d":"c2VjcmV0","x":`, 1)
	for _, tt := range []struct {
		name            string
		discovery, jwks func(is *issuer) http.HandlerFunc
		want            proviso.Code
	}{
		{"discovery redirects", func(*issuer) http.HandlerFunc { return body(302, http.Header{"Location": {"/elsewhere"}}, "") }, nil, proviso.CodeDiscoveryRedirect},
		{"discovery redirects for ever", func(*issuer) http.HandlerFunc { return body(308, http.Header{"Location": {"?"}}, "") }, nil, proviso.CodeDiscoveryRedirect},
		{"keys redirect", nil, func(*issuer) http.HandlerFunc {
			return body(301, http.Header{"Location": {"https://evil.example/"}}, "")
		}, proviso.CodeDiscoveryRedirect},
		{"not modified", nil, func(*issuer) http.HandlerFunc { return body(304, nil, "") }, proviso.CodeDiscoveryRedirect},
		{"another issuer", func(is *issuer) http.HandlerFunc { return is.names("https://evil.example", is.url()+"/jwks") }, nil, proviso.CodeDiscoveryIssuerMismatch},
		{"a slash more", func(is *issuer) http.HandlerFunc { return is.names(is.url()+"/", is.url()+"/jwks") }, nil, proviso.CodeDiscoveryIssuerMismatch},
		{"in capitals", func(is *issuer) http.HandlerFunc { return is.names(strings.ToUpper(is.url()), is.url()+"/jwks") }, nil, proviso.CodeDiscoveryIssuerMismatch},
		{"the host alone", func(is *issuer) http.HandlerFunc { return is.names(is.server.URL, is.url()+"/jwks") }, nil, proviso.CodeDiscoveryIssuerMismatch},
		{"issuer empty", func(is *issuer) http.HandlerFunc { return is.names("", is.url()+"/jwks") }, nil, proviso.CodeDiscoveryIssuerMismatch},
		{"issuer absent", func(is *issuer) http.HandlerFunc { return body(200, nil, `{"jwks_uri":"`+is.url()+`/jwks"}`) }, nil, proviso.CodeDiscoveryMalformed},
		{"issuer twice", func(is *issuer) http.HandlerFunc {
			return body(200, nil, `{"issuer":"`+is.url()+`","issuer":"https://evil.example","jwks_uri":"`+is.url()+`/jwks"}`)
		}, nil, proviso.CodeDiscoveryMalformed},
		{"issuer a list", func(is *issuer) http.HandlerFunc { return body(200, nil, `{"issuer":["`+is.url()+`"]}`) }, nil, proviso.CodeDiscoveryMalformed},
		{"no jwks_uri", func(is *issuer) http.HandlerFunc { return body(200, nil, `{"issuer":"`+is.url()+`"}`) }, nil, proviso.CodeDiscoveryMalformed},
		{"jwks_uri empty", func(is *issuer) http.HandlerFunc { return is.names(is.url(), "") }, nil, proviso.CodeDiscoveryMalformed},
		{"a list", func(*issuer) http.HandlerFunc { return body(200, nil, `[]`) }, nil, proviso.CodeDiscoveryMalformed},
		{"a login page", func(*issuer) http.HandlerFunc {
			return body(200, http.Header{"Content-Type": {"text/html"}}, "<html>login</html>")
		}, nil, proviso.CodeDiscoveryMalformed},
		{"nothing", func(*issuer) http.HandlerFunc { return body(200, nil, "") }, nil, proviso.CodeDiscoveryMalformed},
		{"keys on another host", func(is *issuer) http.HandlerFunc { return is.names(is.url(), "https://evil.example/jwks") }, nil, proviso.CodeJWKSURINotAllowed},
		{"keys on another port", func(is *issuer) http.HandlerFunc { return is.names(is.url(), "https://127.0.0.1:1/jwks") }, nil, proviso.CodeJWKSURINotAllowed},
		{"keys without TLS", func(is *issuer) http.HandlerFunc {
			return is.names(is.url(), strings.Replace(is.url(), "https", "http", 1)+"/jwks")
		}, nil, proviso.CodeJWKSURINotAllowed},
		{"keys with a user", func(is *issuer) http.HandlerFunc {
			return is.names(is.url(), strings.Replace(is.url(), "https://", "https://u:p@", 1)+"/jwks")
		}, nil, proviso.CodeJWKSURINotAllowed},
		{"keys in a file", func(is *issuer) http.HandlerFunc { return is.names(is.url(), "file:///etc/passwd") }, nil, proviso.CodeJWKSURINotAllowed},
		{"keys of a relative address", func(is *issuer) http.HandlerFunc { return is.names(is.url(), "/jwks") }, nil, proviso.CodeJWKSURINotAllowed},
		{"discovery 404", func(*issuer) http.HandlerFunc { return http.NotFound }, nil, proviso.CodeDiscoveryUnavailable},
		{"keys 500", nil, func(*issuer) http.HandlerFunc { return body(500, nil, string(publish([]*jose.Key{k}))) }, proviso.CodeDiscoveryUnavailable},
		{"keys 203", nil, func(*issuer) http.HandlerFunc { return body(203, nil, string(publish([]*jose.Key{k}))) }, proviso.CodeDiscoveryUnavailable},
		{"keys 206", nil, func(*issuer) http.HandlerFunc { return body(206, nil, string(publish([]*jose.Key{k}))) }, proviso.CodeDiscoveryUnavailable},
		{"discovery never answers", func(*issuer) http.HandlerFunc { return hang }, nil, proviso.CodeDiscoveryUnavailable},
		{"keys never end", nil, func(*issuer) http.HandlerFunc { return hangInside }, proviso.CodeDiscoveryUnavailable},
		{"keys cut off", nil, func(*issuer) http.HandlerFunc { return truncated }, proviso.CodeDiscoveryUnavailable},
		{"connection closed", nil, func(*issuer) http.HandlerFunc { return slam }, proviso.CodeDiscoveryUnavailable},
		{"discovery huge", func(*issuer) http.HandlerFunc { return chunks }, nil, proviso.CodeDiscoveryMalformed},
		{"keys huge", nil, func(*issuer) http.HandlerFunc { return chunks }, proviso.CodeDiscoveryMalformed},
		{"keys huge, and say so", nil, func(*issuer) http.HandlerFunc { return body(200, http.Header{"Content-Length": {"10000000"}}, "{") }, proviso.CodeDiscoveryMalformed},
		{"headers huge", nil, func(*issuer) http.HandlerFunc { return body(200, http.Header{"X": {strings.Repeat("a", 100<<10)}}, "") }, proviso.CodeDiscoveryUnavailable},
		{"keys compressed", nil, func(*issuer) http.HandlerFunc {
			return body(200, http.Header{"Content-Encoding": {"gzip"}}, zipped.String())
		}, jose.CodeJWKSMalformed},
		{"keys not JSON", nil, func(*issuer) http.HandlerFunc { return body(200, nil, "oops") }, jose.CodeJWKSMalformed},
		{"keys of another shape", nil, func(*issuer) http.HandlerFunc { return body(200, nil, `{"keys":{"a":{}}}`) }, jose.CodeJWKSMalformed},
		{"one kid twice", nil, func(*issuer) http.HandlerFunc { return body(200, nil, string(publish([]*jose.Key{k, other}))) }, proviso.CodeJWKSDuplicateKID},
		{"too many keys", nil, func(*issuer) http.HandlerFunc { return body(200, nil, string(publish(many))) }, proviso.CodeJWKSTooManyKeys},
		{"a private key", nil, func(*issuer) http.HandlerFunc { return body(200, nil, private) }, proviso.CodeJWKSPrivateKey},
		{"no keys", nil, func(*issuer) http.HandlerFunc { return body(200, nil, `{"keys":[]}`) }, proviso.CodeJWTUnknownKID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := newIssuer(t, k)
			if tt.discovery != nil {
				is.discoveryPage = tt.discovery(is)
			}
			if tt.jwks != nil {
				is.jwksPage = tt.jwks(is)
			}
			s := newSource(t, is, &clock{}, func(c *Config) {
				if tt.name == "discovery never answers" || tt.name == "keys never end" {
					c.Timeout = 100 * time.Millisecond
				}
			})
			got, err := s.Key(context.Background(), "a", jose.EdDSA)
			if got != nil || codeOf(t, err) != tt.want {
				t.Fatalf("%v, want %s", err, tt.want)
			}
			var e *jose.Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			if msg := e.Msg; strings.Contains(msg, "evil.example") || strings.Contains(msg, "127.0.0.1") {
				t.Errorf("the message for the caller says too much: %s", msg)
			}
			if s.Status().TotalFetches != 1 {
				t.Errorf("%d fetches for one job", s.Status().TotalFetches)
			}
		})
	}
}

func (is *issuer) names(issuer, jwksURI string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": jwksURI})
	}
}

// Transport: who can't show that he is the issuer is not asked.
func TestTransportRefusals(t *testing.T) {
	k := newKey(t, "a")
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	old := newIssuer(t, k)
	oldTLS := httptest.NewUnstartedServer(http.HandlerFunc(old.serve))
	oldTLS.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	oldTLS.Config.ErrorLog = old.server.Config.ErrorLog
	oldTLS.StartTLS()
	t.Cleanup(oldTLS.Close)
	for _, tt := range []struct {
		name   string
		change func(is *issuer, c *Config)
		want   proviso.Code
	}{
		{"unknown authority", func(_ *issuer, c *Config) { c.RootCAs = nil }, proviso.CodeDiscoveryTLS},
		{"another host's certificate", func(is *issuer, c *Config) { c.Issuer = strings.Replace(is.url(), "127.0.0.1", "localhost", 1) }, proviso.CodeDiscoveryTLS},
		{"TLS 1.1", func(_ *issuer, c *Config) { c.Issuer = oldTLS.URL }, proviso.CodeDiscoveryTLS},
		{"no TLS", func(_ *issuer, c *Config) { c.Issuer = strings.Replace(plain.URL, "http:", "https:", 1) }, proviso.CodeDiscoveryTLS},
		{"nobody listens", func(_ *issuer, c *Config) { c.Issuer = "https://" + closed.Addr().String() }, proviso.CodeDiscoveryUnavailable},
		{"loopback", func(_ *issuer, c *Config) { c.AllowLoopback = false }, CodeAddress},
		{"loopback, private allowed", func(_ *issuer, c *Config) { c.AllowLoopback, c.AllowPrivate = false, true }, CodeAddress},
		{"a name for loopback", func(is *issuer, c *Config) {
			c.Issuer, c.AllowLoopback = strings.Replace(is.url(), "127.0.0.1", "localhost", 1), false
		}, CodeAddress},
		{"metadata of a cloud", func(_ *issuer, c *Config) { c.Issuer, c.AllowPrivate = "https://169.254.169.254", true }, CodeAddress},
		{"private network", func(_ *issuer, c *Config) { c.Issuer = "https://10.1.2.3" }, CodeAddress},
		{"private network in IPv6", func(_ *issuer, c *Config) { c.Issuer = "https://[fd00::1]" }, CodeAddress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := newIssuer(t, k)
			s := newSource(t, is, &clock{}, func(c *Config) { tt.change(is, c) })
			if _, err := s.Key(context.Background(), "a", jose.EdDSA); codeOf(t, err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if is.jwks.Load() != 0 {
				t.Error("asked in spite of that")
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	public, private, loopback, plain := reach{}, reach{private: true}, reach{loopback: true}, reach{loopback: true, loopbackOnly: true}
	for _, tt := range []struct {
		addr string
		ok   []reach
	}{
		{"140.82.121.4", []reach{public, private, loopback}},
		{"2606:50c0:8000::153", []reach{public, private, loopback}},
		{"::ffff:140.82.121.4", []reach{public, private, loopback}},
		{"10.0.0.1", []reach{private}}, {"172.16.0.1", []reach{private}}, {"172.31.255.255", []reach{private}}, {"192.168.1.1", []reach{private}},
		{"172.32.0.1", []reach{public, private, loopback}},
		{"100.64.0.1", []reach{private}}, {"fd12::1", []reach{private}}, {"::ffff:10.0.0.1", []reach{private}},
		{"127.0.0.1", []reach{loopback, plain}}, {"127.8.8.8", []reach{loopback, plain}}, {"::1", []reach{loopback, plain}}, {"::ffff:127.0.0.1", []reach{loopback, plain}},
		{"0.0.0.0", nil}, {"::", nil}, {"0.1.2.3", nil}, {"169.254.169.254", nil}, {"fe80::1", nil}, {"fe80::1%eth0", nil}, {"::ffff:169.254.169.254", nil},
		{"224.0.0.1", nil}, {"239.1.1.1", nil}, {"ff02::1", nil}, {"255.255.255.255", nil}, {"240.0.0.1", nil}, {"192.0.2.1", nil}, {"198.18.0.1", nil},
		{"198.51.100.1", nil}, {"203.0.113.1", nil}, {"192.0.0.8", nil}, {"2001:db8::1", nil}, {"64:ff9b::a9fe:a9fe", nil}, {"64:ff9b::7f00:1", nil},
		{"2002:7f00:1::", nil}, {"2001::1", nil}, {"::7f00:1", nil}, {"fec0::1", nil},
	} {
		for _, r := range []reach{public, private, loopback, plain} {
			want := false
			for _, ok := range tt.ok {
				want = want || ok == r
			}
			if got := r.check(netip.MustParseAddr(tt.addr)) == nil; got != want {
				t.Errorf("%s with %+v: %v, want %v", tt.addr, r, got, want)
			}
		}
	}
	if public.control("tcp", "ci.example:443", nil) == nil {
		t.Error("an address that can't be read is dialled")
	}
}

// The environment chooses no proxy; the configuration may.
func TestProxy(t *testing.T) {
	k := newKey(t, "a")
	is := newIssuer(t, k)
	var tunnels atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tunnels.Add(1)
		if r.Method != http.MethodConnect {
			http.Error(w, "only tunnels", http.StatusBadRequest)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { _, _ = io.Copy(up, down); _ = up.Close(); close(done) }()
		_, _ = io.Copy(down, up)
		_ = down.Close()
		<-done
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("https_proxy", "http://127.0.0.1:1")
	wantKey(t, newSource(t, is, &clock{}, nil), "a", k, "")
	if tunnels.Load() != 0 {
		t.Error("a proxy was used that nobody configured")
	}
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	wantKey(t, newSource(t, is, &clock{}, func(c *Config) { c.Proxy = through }), "a", k, "")
	if tunnels.Load() != 2 {
		t.Errorf("%d tunnels, want one for each document", tunnels.Load())
	}
}

func TestMaxAge(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                                     5 * time.Minute,
		"max-age=600":                          10 * time.Minute,
		"public, max-age=600, must-revalidate": 10 * time.Minute,
		"Max-Age=\"600\"":                      10 * time.Minute,
		"max-age=0":                            time.Minute,
		"max-age=30":                           time.Minute,
		"max-age=31536000":                     time.Hour,
		"max-age=99999999999999999999":         5 * time.Minute,
		"max-age=-5":                           5 * time.Minute,
		"max-age=x":                            5 * time.Minute,
		"no-store":                             time.Minute,
		"max-age=600, no-cache":                time.Minute,
		"s-maxage=600":                         5 * time.Minute,
	} {
		if got := maxAge(http.Header{"Cache-Control": {header}}); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
	if got := maxAge(http.Header{"Cache-Control": {"max-age=600"}, "Age": {"400"}}); got != 200*time.Second {
		t.Errorf("with Age: %v", got)
	}
	if got := maxAge(http.Header{"Cache-Control": {"max-age=600"}, "Age": {"4000"}}); got != time.Minute {
		t.Errorf("with a great Age: %v", got)
	}
}
