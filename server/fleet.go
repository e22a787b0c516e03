package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/internal/document"
)

// What an agent says to the broker and hears of it, in JSON. Agents and brokers
// may be of different versions: members that are new here are optional.
const (
	maxFleetBody = 64 << 10
	maxEvidence  = 32 << 10
)

// runnerJoin is POST /runner/join: {"token", "csr"} or {"kind", "evidence", "csr"}.
func (s *Server) runnerJoin(w http.ResponseWriter, r *http.Request) {
	s.enrol(w, r, broker.RunnerJoin, []string{"token", "kind", "evidence", "csr"}, func(ctx context.Context, said map[string]string) (*broker.Enrolled, error) {
		if (said["token"] == "") == (said["kind"] == "") || (said["kind"] == "") != (said["evidence"] == "") {
			return nil, s.parts.Broker.Malformed(ctx, broker.RunnerJoin, requestRefusal(proviso.CodeRequestMalformed, "a join shows either a token, or a kind of evidence and the evidence"))
		}
		return s.parts.Broker.Join(ctx, broker.JoinRequest{Token: said["token"], Kind: said["kind"], Evidence: said["evidence"], CSR: []byte(said["csr"])})
	})
}

// runnerRenew is POST /runner/renew, by mutual TLS with the runner's SVID:
// {"csr"}, {"csr", "workload"} or {"workload", "audience"}.
func (s *Server) runnerRenew(w http.ResponseWriter, r *http.Request) {
	s.enrol(w, r, broker.RunnerRenewal, []string{"csr", "workload", "audience"}, func(ctx context.Context, said map[string]string) (*broker.Enrolled, error) {
		req := broker.RenewRequest{CSR: []byte(said["csr"]), Workload: said["workload"], Audience: said["audience"]}
		if r.TLS != nil {
			req.Certificates = r.TLS.PeerCertificates
		}
		return s.parts.Broker.Renew(ctx, req)
	})
}

func (s *Server) enrol(w http.ResponseWriter, r *http.Request, kind string, members []string, issue func(context.Context, map[string]string) (*broker.Enrolled, error)) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Limits.RequestTime)
	defer cancel()
	said, err := readFleetBody(w, r, members)
	if err != nil {
		s.refuse(w, begun, s.parts.Broker.Malformed(ctx, kind, err))
		return
	}
	leave, err := s.takePlace()
	if err != nil {
		s.refuse(w, begun, err)
		return
	}
	defer leave()
	got, err := issue(ctx, said)
	if err != nil {
		s.refuse(w, begun, err)
		return
	}
	w.Header()["Cache-Control"] = noStore
	writeJSON(w, http.StatusOK, append(document.AppendCanonical(nil, document.ObjectOf(
		document.Member("decision", document.StringOf(got.Decision)),
		document.Member("spiffe_id", document.StringOf(got.SPIFFEID)),
		document.Member("svid", document.StringOf(got.Credential.Reveal())),
		document.Member("expires", document.IntOf(got.Credential.Info.Expires)))), '\n'))
}

// readFleetBody reads one JSON object of texts, strictly.
func readFleetBody(w http.ResponseWriter, r *http.Request, members []string) (map[string]string, error) {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return nil, requestRefusal(proviso.CodeContentType, "the request's Content-Type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFleetBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, requestRefusal(proviso.CodeLimitsBodySize, "the request's body is over %d bytes", maxFleetBody)
	} else if err != nil {
		return nil, requestRefusal(proviso.CodeTimeoutBody, "the request's body did not arrive whole and in time").Because(err)
	}
	doc, err := document.Parse(body, document.Limits{Bytes: maxFleetBody, Depth: 2, Members: 16})
	if err != nil || doc.Kind() != document.Object {
		return nil, requestRefusal(proviso.CodeRequestMalformed, "one JSON object is expected")
	}
	said := map[string]string{}
	for _, name := range members {
		if value := doc.Get(name); !value.IsAbsent() {
			text, ok := value.Text()
			if !ok || text == "" || len(text) > maxEvidence {
				return nil, requestRefusal(proviso.CodeRequestMalformed, "%s must be a text that isn't empty, of at most %d bytes", name, maxEvidence)
			}
			said[name] = text
		}
	}
	if len(said) != len(doc.Fields()) {
		return nil, requestRefusal(proviso.CodeRequestMalformed, "the object has a member that isn't one of %v", members)
	}
	return said, nil
}

// serveBundle is the SPIFFE bundle endpoint by the profile https_web (SPIFFE
// Federation section 5.2.1): the web's certificate authorities vouch for it.
func (s *Server) serveBundle(w http.ResponseWriter, r *http.Request) {
	if s.parts.Bundle == nil {
		s.notFound(w, r)
		return
	}
	body, hint := s.parts.Bundle()
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(hint.Seconds())))
	writeJSON(w, http.StatusOK, body)
}

// ServeBundle serves the bundle by the profile https_spiffe (section 5.2.2)
// until ctx ends: certificate gives the endpoint's SVID of the moment. No client
// is authenticated, and no client can be: it may be one that has no bundle yet.
func (s *Server) ServeBundle(ctx context.Context, address string, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("can't listen for the bundle endpoint on %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.serveBundle)
	mux.HandleFunc("GET /spiffe/bundle", s.serveBundle)
	server := s.newHTTPServer(secured(mux))
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	s.parts.Logger.Info("serving the bundle endpoint", "listen", listener.Addr().String(), "profile", "https_spiffe")
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the bundle endpoint failed: %w", err)
	}
	return nil
}
