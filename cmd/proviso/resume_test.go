package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// A TLS session that is resumed carries the certificate of the first handshake
// along. It proves no more than a fresh one would: a runner whose authority was
// withdrawn is refused, and so is one whose SVID has ended.
func TestResumedSessionOutlivesNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.serve()
	lived := made(f.spiffe.X509SVID("/runner/short", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(3 * time.Second) }))(t)
	svid := made(f.spiffe.X509SVID("/runner/one"))(t)
	ask := func(holder *tls.Config) (resumed bool, r reply) {
		t.Helper()
		conn := made(tls.Dial("tcp", f.address, holder))(t)
		transport := &http.Transport{DialTLSContext: dialed(conn), DisableKeepAlives: true}
		defer transport.CloseIdleConnections()
		r = made(f.askWith(&http.Client{Transport: transport, Timeout: 30 * time.Second}, exchangeForm(f.token(lab.Job{}), "mtls")))(t)
		return conn.ConnectionState().DidResume, r
	}
	holder := func(cert tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: f.web.Pool(), MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert},
			ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	}
	short, long := holder(lived), holder(svid)
	for _, h := range []*tls.Config{short, long} {
		if resumed, r := ask(h); resumed || r.granted == nil {
			t.Fatalf("the first handshake: resumed %t, %s", resumed, r)
		}
		if resumed, r := ask(h); !resumed || r.granted == nil {
			t.Fatalf("the second: resumed %t, %s", resumed, r)
		}
	}
	// crypto/tls may no longer resume a session whose certificate has ended; what
	// counts is that neither kind of handshake brings a credential.
	eventually(t, "the SVID that has ended is refused", func() bool {
		_, r := ask(short)
		return r.refused.Code == proviso.CodeSVIDInvalid && strings.Contains(r.refused.Description, "expired")
	})
	noError(t, f.spiffe.RotateAuthorities())
	noError(t, f.spiffe.RetireAuthorities())
	eventually(t, "the withdrawn authority's runner is refused", func() bool {
		resumed, r := ask(long)
		return resumed && r.refused.Code == proviso.CodeSVIDInvalid && strings.Contains(r.refused.Description, "not issued by")
	})
}

// dialed gives a connection that is open already.
func dialed(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}
