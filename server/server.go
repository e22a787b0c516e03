// Package server is the broker's HTTP face, and nothing else: it reads requests
// strictly, hands them to the flow, and writes what the flow said. It decides
// nothing about access.
//
// There is one door to a credential, POST /token (RFC 8693). The discovery
// documents (RFC 8414, OpenID Connect Discovery) and /jwks let any resource
// trust Proviso's tokens; /log serves the record's checkpoints and hash tiles
// (C2SP tlog-tiles) to whoever wants to watch it. Metrics, profiles and the
// record's entries, which can hold what is one tenant's business, are on a
// listener of their own that is off until it is configured.
//
// A refusal becomes a status and an OAuth error in one place, answers.go.
// Every answer to a caller is JSON, is never cached, and holds no secret but
// the credential itself.
//
// Everything is bounded: headers, bodies, connections, requests at a time, time
// for each part of a request. When the broker stops, it first says so on
// /readyz, then finishes what it has begun.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/pass"
)

// Config is the "server" part of the configuration.
type Config struct {
	// Listen is the address of the door, host:port. Without tls it must be a
	// loopback address: job tokens and credentials never cross a network in clear.
	Listen string `yaml:"listen"`
	// URL is how jobs reach the broker: the issuer of its tokens and the
	// audience that job tokens must carry. https, no path, query or fragment;
	// http only on loopback.
	URL string `yaml:"url"`
	// TLS is the door's certificate and key, as PEM files. They are read again
	// when they change, so that a renewed certificate needs no restart.
	TLS TLS `yaml:"tls,omitempty"`
	// Operations is the address of the listener for /metrics, /debug/pprof and
	// the record's entries. Off when empty. Loopback, or a network that only
	// operators reach: it has no authentication.
	Operations string `yaml:"operations,omitempty"`
	// Limits bound what callers can take.
	Limits Limits `yaml:"limits,omitempty"`
	// Drain is how long requests that have begun may go on when the broker
	// stops. Default 20s.
	Drain time.Duration `yaml:"drain,omitempty"`
}

// TLS names a certificate chain and its key.
type TLS struct {
	// Cert is a PEM file with the chain, leaf first.
	Cert string `yaml:"cert"`
	// Key is a PEM file with the leaf's private key.
	Key string `yaml:"key"`
}

// Limits of the door. Zero fields mean the defaults.
type Limits struct {
	// Connections that are open at once. Default 4096.
	Connections int `yaml:"connections,omitempty"`
	// Requests for a credential that are worked on at once; more are answered
	// 503 with Retry-After at once. Default 512.
	Requests int `yaml:"requests,omitempty"`
	// IssuerRate is how many verified requests a second each issuer may make,
	// with a burst of twice as many. Default 2000.
	IssuerRate float64 `yaml:"issuer_rate,omitempty"`
	// RequestTime bounds one request from its first byte to its answer. Default 15s.
	RequestTime time.Duration `yaml:"request_time,omitempty"`
}

// Defaults of Config.
const (
	defaultDrain       = 20 * time.Second
	defaultConnections = 4096
	defaultRequests    = 512
	defaultIssuerRate  = 2000
	defaultRequestTime = 15 * time.Second
	maxHeaderBytes     = 32 << 10
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Path    string // below "server", as "tls.cert"
	Message string // what was expected, what was found, what to write instead
}

// WithDefaults fills in what the configuration leaves open.
func (c Config) WithDefaults() Config {
	setDefault(&c.Drain, defaultDrain)
	setDefault(&c.Limits.Connections, defaultConnections)
	setDefault(&c.Limits.Requests, defaultRequests)
	setDefault(&c.Limits.IssuerRate, defaultIssuerRate)
	setDefault(&c.Limits.RequestTime, defaultRequestTime)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate checks the configuration without touching the network or a file.
func (c Config) Validate() []Problem {
	var problems []Problem
	add := func(path, format string, args ...any) {
		problems = append(problems, Problem{path, fmt.Sprintf(format, args...)})
	}
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case c.Listen == "":
		add("listen", "is missing; write where the broker listens, as 127.0.0.1:8080")
	case err != nil:
		add("listen", "%q is not host:port; write an address as 127.0.0.1:8080", c.Listen)
	case c.TLS == TLS{} && !isLoopback(host):
		add("listen", "%q is not a loopback address and there is no tls: tokens would cross the network in clear; add tls: {cert, key} or listen on 127.0.0.1", c.Listen)
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		add("tls", "needs both cert and key")
	}
	if why := checkURL(c.URL); why != "" {
		add("url", "%s", why)
	}
	if c.Operations != "" {
		if _, _, err := net.SplitHostPort(c.Operations); err != nil {
			add("operations", "%q is not host:port; write an address as 127.0.0.1:9090", c.Operations)
		}
	}
	for path, negative := range map[string]bool{
		"drain": c.Drain < 0, "limits.connections": c.Limits.Connections < 0, "limits.requests": c.Limits.Requests < 0,
		"limits.issuer_rate": c.Limits.IssuerRate < 0, "limits.request_time": c.Limits.RequestTime < 0,
	} {
		if negative {
			add(path, "is negative; leave it out for the default")
		}
	}
	return problems
}

// checkURL says what is wrong with the broker's own URL, or nothing.
func checkURL(s string) string {
	u, err := url.Parse(s)
	switch {
	case s == "":
		return "is missing; write the URL under which jobs reach the broker, as https://proviso.example.com"
	case err != nil || u.Host == "" || u.User != nil:
		return fmt.Sprintf("%q is not an absolute URL; write one as https://proviso.example.com", s)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s, "/") || strings.ContainsAny(s, "?#"):
		return fmt.Sprintf("%q must end after the host: it is an issuer identifier, compared byte for byte", s)
	case u.Scheme == "https":
	case u.Scheme == "http" && isLoopback(u.Hostname()):
	default:
		return fmt.Sprintf("%q must be https (http is taken on loopback only)", s)
	}
	if u.Host != strings.ToLower(u.Host) {
		return fmt.Sprintf("%q must be written in lower case: it is compared byte for byte", s)
	}
	return ""
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// Parts are what the server shows to the world.
type Parts struct {
	Broker *broker.Broker
	// JWKS is the public key set of Proviso's tokens as it is now, and for how
	// long others may keep it.
	JWKS func() (body []byte, maxAge time.Duration)
	// Algorithms that sign Proviso's tokens, for the discovery documents.
	Algorithms []string
	// Log serves checkpoint and hash tiles below /log/; Entries the entries too.
	Log, Entries http.Handler
	// Workloads: some deployed workloads may ask for themselves, without a job.
	Workloads bool
	// CA is the PEM certificate of the authority for kind x509; nil without one.
	CA func() []byte
	// Bundle is the bundle of the broker's own trust domain, and how often others
	// are asked to fetch it; nil without one.
	Bundle func() (body []byte, hint time.Duration)
	// Challenge gives a nonce for a runner's evidence, and for how long it counts;
	// nil without a runner's verifier.
	Challenge func() (nonce string, life time.Duration)
	// Ready says why the broker can't work now, nil if it can.
	Ready func() error
	// Proofs checks DPoP proofs.
	Proofs  *pass.ProofChecker
	Logger  *slog.Logger
	Metrics *Metrics
}

// Server is the HTTP face of one broker.
type Server struct {
	config    Config
	parts     Parts
	discovery []byte
	slots     chan struct{} // one for each request that is worked on
	draining  chan struct{} // closed when the server stops taking new work
}

// New builds a server. The configuration must be valid.
func New(config Config, parts Parts) (*Server, error) {
	config = config.WithDefaults()
	if problems := config.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("server.%s: %s", problems[0].Path, problems[0].Message)
	}
	s := &Server{
		config: config, parts: parts,
		slots:    make(chan struct{}, config.Limits.Requests),
		draining: make(chan struct{}),
	}
	s.discovery = s.discoveryDocument()
	return s, nil
}

// Handler is the door: what callers reach.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/token", s.token)
	mux.HandleFunc("GET /.well-known/openid-configuration", s.serveDiscovery)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.serveDiscovery)
	mux.HandleFunc("GET /jwks", s.serveJWKS)
	mux.HandleFunc("GET /ca.pem", s.serveCA)
	mux.HandleFunc("GET /spiffe/bundle", s.serveBundle)
	mux.HandleFunc("POST /runner/join", s.runnerJoin)
	mux.HandleFunc("POST /runner/renew", s.runnerRenew)
	mux.HandleFunc("/challenge", s.serveChallenge)
	mux.Handle("GET /log/", http.StripPrefix("/log", s.parts.Log))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("/", s.notFound)
	return secured(mux)
}

// secured sets what every answer carries.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"] = noSniff
		h["Referrer-Policy"] = noReferrer
		h["Content-Security-Policy"] = noContent
		next.ServeHTTP(w, r)
	})
}

// Header values are shared slices: setting them costs no allocation.
var (
	noSniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
	noContent  = []string{"default-src 'none'; frame-ancestors 'none'"}
	noStore    = []string{"no-store"}
	typeJSON   = []string{"application/json"}
)

// Run serves until ctx ends, then drains. It returns nil after a clean stop.
func (s *Server) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("can't listen on %s: %w", s.config.Listen, err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener that the caller has opened.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	listener = netutil.LimitListener(listener, s.config.Limits.Connections)
	door := s.newHTTPServer(s.Handler())
	serve := door.Serve
	if s.config.TLS != (TLS{}) {
		certificates, err := newReloadingCertificate(s.config.TLS, s.parts.Logger)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		door.TLSConfig = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: certificates.get,
			// A runner may show its X.509-SVID. Package runner verifies it, at
			// each request and against its trust domain's own bundle: TLS only
			// proves possession of the key.
			ClientAuth: tls.RequestClientCert,
		}
		serve = func(l net.Listener) error { return door.ServeTLS(l, "", "") }
	}
	failed := make(chan error, 2)
	go func() { failed <- serve(listener) }()
	operations, err := s.startOperations(failed)
	if err != nil {
		return errors.Join(err, door.Close())
	}
	s.parts.Logger.Info("serving", "listen", listener.Addr().String(), "url", s.config.URL, "tls", s.config.TLS != TLS{})
	select {
	case err = <-failed:
		err = fmt.Errorf("the listener failed: %w", err)
	case <-ctx.Done():
	}
	return errors.Join(err, s.drain(door, operations))
}

// drain finishes what has begun, and takes nothing new.
func (s *Server) drain(door, operations *http.Server) error {
	close(s.draining)
	s.parts.Logger.Info("draining", "at_most", s.config.Drain.String())
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Drain)
	defer cancel()
	err := door.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("requests were still running after %s and were cut off: %w", s.config.Drain, err)
		err = errors.Join(err, door.Close())
	}
	if operations != nil {
		err = errors.Join(err, operations.Close())
	}
	return err
}

func (s *Server) newHTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: min(5*time.Second, s.config.Limits.RequestTime),
		ReadTimeout:       s.config.Limits.RequestTime,
		WriteTimeout:      2 * s.config.Limits.RequestTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.parts.Logger.Handler(), slog.LevelDebug),
	}
}
