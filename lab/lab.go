// Package lab holds the other parties of a zero trust pipeline, small but
// real: CI platforms that sign job tokens as the real ones do, a SPIFFE
// authority with a Workload API on a Unix socket, a certificate authority, a
// protected resource, ticket and on-call systems, and a git repository with
// signed and unsigned commits. The demo, `proviso dev` and the tests of every
// package use them, and so may anybody's.
//
// Nothing here is a mock. Every part speaks its protocol on a socket: HTTP or
// HTTPS on a port of its own on 127.0.0.1, gRPC on a Unix socket, git and
// ssh-keygen as programs. A test that passes against the lab has opened a
// connection, followed discovery, fetched keys and verified a signature.
//
// Every part can also misbehave on purpose, because a broker is judged by what
// it does then: [Faults] makes an issuer, a bundle endpoint or a ticket system
// slow, huge, down, redirecting or lying; an [Edit] forges one property of an
// otherwise good token; a [Flaw] breaks one rule of an SVID.
//
// The parts share nothing and keep no global state, so any number of them live
// side by side. Each is made by a New function that returns when it is ready,
// and is ended by Close, after which no goroutine, socket or file of it is
// left. Keys are fresh at each start and never leave the process, except into
// the directory that a caller names. The zero value of each options struct is
// ready for use. Nothing here imports testing; nothing but commands and tests
// imports lab.
package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// silent drops what net/http logs about connections that faults break.
var silent = log.New(io.Discard, "", 0)

// server is one HTTP server on a loopback port of its own.
type server struct {
	url  string // scheme://127.0.0.1:port
	http *http.Server
	done chan struct{} // closed when Serve has returned
}

// serve starts a server. A nil TLS configuration means plain HTTP.
func serve(h http.Handler, conf *tls.Config) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	s := &server{url: "http://" + l.Addr().String(), done: make(chan struct{})}
	s.http = &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: silent}
	if conf != nil {
		s.url = "https://" + l.Addr().String()
		l = tls.NewListener(l, conf)
	}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l) // always http.ErrServerClosed: nothing but Close ends it
	}()
	return s, nil
}

// Close ends the server and every connection to it, also the ones that a fault
// keeps waiting.
func (s *server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// wait waits for d, or until ctx ends; it reports whether the time is over.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// randomID gives an identifier in the form of a UUID (version 4).
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// randomSecret gives a bearer secret of 256 bits.
func randomSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
