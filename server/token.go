package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/internal/document"
)

// token is the only door to a credential.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Limits.RequestTime)
	defer cancel()
	// Read first, then take a place: a caller that sends slowly holds its own
	// connection, and nobody else's place.
	req, err := s.readRequest(r)
	if err != nil {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		s.refuse(w, begun, s.parts.Broker.Malformed(ctx, "", err))
		return
	}
	leave, err := s.takePlace()
	if err != nil {
		s.refuse(w, begun, err)
		return
	}
	defer leave()
	issued, err := s.parts.Broker.Exchange(ctx, req)
	if err != nil {
		s.refuseClient(w, begun, err, req.ClientAuth)
		return
	}
	s.parts.Metrics.granted(req.Grant, time.Since(begun))
	w.Header()["Cache-Control"] = noStore
	buffer := answerBuffers.Get().(*[]byte)
	*buffer = appendAnswer((*buffer)[:0], issued, time.Now())
	writeJSON(w, http.StatusOK, *buffer)
	clear(*buffer) // it held a credential
	answerBuffers.Put(buffer)
}

// takePlace takes one of the places for requests that are worked on, at every
// door, and never waits for one. leave gives it back.
func (s *Server) takePlace() (leave func(), err error) {
	select {
	case s.slots <- struct{}{}:
		s.parts.Metrics.inFlight.Inc()
		return func() { s.parts.Metrics.inFlight.Dec(); <-s.slots }, nil
	default:
		return nil, requestRefusal(proviso.CodeOverloaded, "the broker works on as many requests as it may; try again in a second")
	}
}

// answerBuffers are reused: an answer with its receipt has several kilobytes.
var answerBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 12<<10); return &b }}

// readRequest reads what is declared and shown.
func (s *Server) readRequest(r *http.Request) (broker.Request, error) {
	if len(r.TransferEncoding) > 0 {
		// net/http has dropped a Content-Length beside it, which a proxy in front
		// may have believed (RFC 9112 section 11.2): nobody can tell any more.
		return broker.Request{}, requestRefusal(CodeHTTPAmbiguous, "a token request is sent with Content-Length, and without Transfer-Encoding")
	}
	if r.Header.Get("Authorization") != "" {
		return broker.Request{}, requestRefusal(proviso.CodeClientAuthUnsupported,
			"this endpoint knows its callers by the job's token in subject_token; send no Authorization header")
	}
	f, err := readForm(r)
	if err != nil {
		return broker.Request{}, err
	}
	req := broker.Request{
		SubjectToken: f.subjectToken, Grant: f.grant, Scope: f.scope, Intent: f.intent,
		RequestedType: f.requestedType, CSR: []byte(f.csr), URL: s.config.URL + "/token",
		Evidence: f.evidence(),
	}
	if err := f.authenticate(r, &req); err != nil {
		return broker.Request{}, err
	}
	proofs := r.Header.Values("DPoP")
	if len(proofs) > 1 {
		return broker.Request{}, requestRefusal(proviso.CodeDPoPProof, "a request carries one DPoP proof, this one has %d", len(proofs))
	}
	if len(proofs) == 1 {
		req.Proof = proofs[0]
	}
	return req, nil
}

// refuse writes a "no". The cause in Refusal.Err is for the log, never for here.
func (s *Server) refuse(w http.ResponseWriter, begun time.Time, err error) {
	s.refuseClient(w, begun, err, false)
}

// refuseClient is refuse for who authenticated as an OAuth client: that its SVID
// is no good is then an error of its own (RFC 6749 section 5.2).
func (s *Server) refuseClient(w http.ResponseWriter, begun time.Time, err error, client bool) {
	refusal := proviso.AsRefusal(err, proviso.StageRequest, proviso.CodeInternal)
	var decision, grant string
	var out *broker.Refused
	if errors.As(err, &out) {
		decision, grant = out.Decision, out.Grant
	}
	s.parts.Metrics.refused(grant, refusal.Stage, refusal.Code, time.Since(begun))
	a := answerFor(refusal.Code)
	if client && a == badRequest && refusal.Stage == proviso.StageRunner {
		a = badClient
	}
	body, _ := json.Marshal(proviso.TokenError{
		Error: a.oauth, Description: refusal.Public, Decision: decision,
		Stage: refusal.Stage, Code: refusal.Code, Reasons: refusal.Reasons,
	})
	h := w.Header()
	h["Cache-Control"] = noStore
	if refusal.Code == proviso.CodeDPoPNonce {
		h.Set("DPoP-Nonce", s.parts.Proofs.Nonce())
	}
	if a.status == http.StatusMethodNotAllowed {
		h.Set("Allow", http.MethodPost)
	}
	if seconds, ok := passing[refusal.Code]; ok {
		h.Set("Retry-After", seconds)
	}
	writeJSON(w, a.status, append(body, '\n'))
}

// appendAnswer writes the answer of RFC 8693 section 2.2.1. It is written by
// hand because it is the one body on the hot path; a test holds it equal to
// proviso.TokenResponse.
func appendAnswer(b []byte, issued *broker.Issued, now time.Time) []byte {
	c := issued.Credential
	b = append(b, `{"access_token":`...)
	b = document.AppendString(b, c.Reveal())
	b = append(b, `,"issued_token_type":`...)
	b = document.AppendString(b, c.IssuedTokenType)
	b = append(b, `,"token_type":`...)
	b = document.AppendString(b, c.TokenType)
	b = append(b, `,"expires_in":`...)
	b = strconv.AppendInt(b, c.ExpiresIn(now), 10)
	if len(c.Scope) > 0 {
		b = append(b, `,"scope":`...)
		b = document.AppendString(b, strings.Join(c.Scope, " "))
	}
	if !c.Details.IsAbsent() {
		b = append(b, `,"authorization_details":`...)
		b = document.AppendCanonical(b, c.Details)
	}
	b = append(b, `,"proviso":{"decision":`...)
	b = document.AppendString(b, issued.Decision)
	b = append(b, `,"receipt":`...)
	b = append(b, issued.Receipt...)
	b = append(b, `,"credential":{"kind":`...)
	b = document.AppendString(b, c.Info.Kind)
	b = append(b, `,"id":`...)
	b = document.AppendString(b, c.Info.ID)
	if c.Info.Audience != "" {
		b = append(b, `,"audience":`...)
		b = document.AppendString(b, c.Info.Audience)
	}
	b = append(b, `,"expires":`...)
	b = strconv.AppendInt(b, c.Info.Expires, 10)
	return append(b, "}}}\n"...)
}
