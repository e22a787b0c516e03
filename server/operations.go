package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"sync"
	"time"
)

// OperationsHandler is what operators reach, on a listener of its own.
func (s *Server) OperationsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.parts.Metrics.Handler())
	mux.Handle("GET /log/", http.StripPrefix("/log", s.parts.Entries))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return secured(mux)
}

func (s *Server) startOperations(failed chan<- error) (*http.Server, error) {
	if s.config.Operations == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", s.config.Operations)
	if err != nil {
		return nil, fmt.Errorf("can't listen for operations on %s: %w", s.config.Operations, err)
	}
	server := s.newHTTPServer(s.OperationsHandler())
	server.WriteTimeout = 2 * time.Minute // a CPU profile takes its time
	go func() { failed <- server.Serve(listener) }()
	s.parts.Logger.Info("serving operations", "listen", listener.Addr().String())
	return server, nil
}

// reloadingCertificate reads the door's certificate again when its file has
// changed. A renewal that can't be read leaves the last good one, loudly.
type reloadingCertificate struct {
	files  TLS
	logger *slog.Logger
	now    func() time.Time

	mu      sync.Mutex // guards what follows, for the time of a stat or a reload
	current *tls.Certificate
	read    [2]int64 // modification times of both files
	checked time.Time
	said    time.Time // when the log was last told that a renewal can't be read
}

const (
	certificateCheckEvery = time.Second // two stats: nothing beside a handshake
	certificateSayEvery   = time.Minute
)

func newReloadingCertificate(files TLS, logger *slog.Logger) (*reloadingCertificate, error) {
	c := &reloadingCertificate{files: files, logger: logger, now: time.Now}
	changed, err := c.changed()
	if err != nil {
		return nil, err
	}
	return c, c.load(changed)
}

func (c *reloadingCertificate) changed() (times [2]int64, err error) {
	for i, name := range []string{c.files.Cert, c.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return times, fmt.Errorf("server.tls: %w", err)
		}
		times[i] = info.ModTime().UnixNano()
	}
	return times, nil
}

func (c *reloadingCertificate) load(changed [2]int64) error {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("server.tls: the certificate %s and the key %s can't be used: %w", c.files.Cert, c.files.Key, err)
	}
	c.current, c.read = &pair, changed
	return nil
}

func (c *reloadingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.checked) < certificateCheckEvery {
		return c.current, nil
	}
	c.checked = now
	changed, err := c.changed()
	if err == nil && changed == c.read {
		return c.current, nil
	}
	if err == nil {
		err = c.load(changed)
	}
	switch {
	case err == nil:
		c.logger.Info("the renewed TLS certificate is in use", "cert", c.files.Cert, "until", c.current.Leaf.NotAfter)
	case now.Sub(c.said) >= certificateSayEvery:
		c.said = now
		c.logger.Error("the renewed TLS certificate can't be read; the last good one stays in use", "error", err)
	}
	return c.current, nil
}
