package client

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// maxAnswer bounds an answer. A token has a few KiB, a certificate chain with a
// receipt some dozens.
const maxAnswer = 1 << 20

// answer is what came back, read strictly and not yet judged.
type answer struct {
	status     int
	doc        document.Value
	nonce      string // DPoP-Nonce
	hasRetry   bool
	retryAfter time.Duration
}

// readAnswer reads a response. A status of the broker's or a proxy's that comes
// without the broker's JSON leaves the outcome unknown, unless it can only mean
// that nothing there is a broker.
func readAnswer(resp *http.Response, now time.Time) (*answer, error) {
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, &notBrokerError{fmt.Sprintf("the answer is a redirect (status %d), which is never followed: it would carry the job's token elsewhere. Use the broker's final URL", resp.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("the answer (status %d) broke off: %w", resp.StatusCode, err)
	}
	if len(body) > maxAnswer {
		return nil, fmt.Errorf("the answer (status %d) is longer than %d bytes", resp.StatusCode, maxAnswer)
	}
	contentType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || contentType != "application/json" {
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
			return nil, &notBrokerError{fmt.Sprintf("no broker answers there (status %d)", resp.StatusCode)}
		}
		return nil, fmt.Errorf("the answer (status %d) is not JSON; something between here and the broker may have given it", resp.StatusCode)
	}
	doc, err := document.Parse(body, document.Limits{Bytes: maxAnswer, Depth: 24, Members: 32 << 10})
	if err != nil {
		return nil, fmt.Errorf("the answer (status %d): %w", resp.StatusCode, err)
	}
	if doc.Kind() != document.Object {
		return nil, fmt.Errorf("the answer (status %d) is no JSON object", resp.StatusCode)
	}
	a := &answer{status: resp.StatusCode, doc: doc, nonce: resp.Header.Get("DPoP-Nonce")}
	a.retryAfter, a.hasRetry = retryAfter(resp.Header.Get("Retry-After"), now)
	return a, nil
}

// retryAfter reads RFC 9110 section 10.2.3: seconds, or a date.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if n, err := strconv.Atoi(header); err == nil && n >= 0 && n < 1<<20 {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// text gives a member that is a string, as it was sent: see Printable.
func text(doc document.Value, path ...string) string {
	s, _ := doc.At(path...).Text()
	return s
}

func (a *answer) wantsNonce() bool {
	return a.status == http.StatusBadRequest && text(a.doc, "error") == "use_dpop_nonce" && a.nonce != ""
}

// mayAskAgain holds the second rule of the package comment.
func (a *answer) mayAskAgain(err error) bool {
	refused := new(RefusedError)
	return errors.As(err, &refused) && a.hasRetry &&
		(a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable)
}

// refusal reads an error answer (RFC 6749 section 5.2).
func (a *answer) refusal(broker string) error {
	word := text(a.doc, "error")
	if word == "" {
		if a.status >= 500 {
			return &UnknownOutcomeError{Broker: broker, Err: fmt.Errorf("the answer (status %d) is not the broker's", a.status)}
		}
		return &notBrokerError{fmt.Sprintf("the answer (status %d) is not that of a broker", a.status)}
	}
	e := &RefusedError{Status: a.status, Answer: proviso.TokenError{
		Error: word, Description: text(a.doc, "error_description"), Decision: text(a.doc, "decision"),
		Stage: proviso.Stage(text(a.doc, "stage")), Code: proviso.Code(text(a.doc, "code")),
	}}
	for _, r := range a.doc.Get("reasons").Items() {
		line, _ := r.Get("line").Integer()
		e.Answer.Reasons = append(e.Answer.Reasons, proviso.Reason{
			Message: text(r, "message"), Path: text(r, "path"), Found: text(r, "found"), Wanted: text(r, "wanted"),
			Rule: text(r, "rule"), File: text(r, "file"), Line: int(line),
		})
	}
	return e
}

// accept judges a granted exchange. The broker has issued something, so what is
// wrong here is not a reason to ask again with the same token.
func (c *Client) accept(req Request, a *answer) (*proviso.TokenResponse, error) {
	resp := readResponse(a.doc)
	if err := c.check(req, resp); err != nil {
		return nil, fmt.Errorf("the broker's answer can't be used: %w", err)
	}
	if c.conf.CheckReceipt != nil {
		if err := c.conf.CheckReceipt(resp); err != nil {
			return nil, fmt.Errorf("the receipt does not prove decision %s: %w", resp.Proviso.Decision, err)
		}
	}
	return resp, nil
}

func readResponse(doc document.Value) *proviso.TokenResponse {
	expiresIn, _ := doc.Get("expires_in").Integer()
	expires, _ := doc.At("proviso", "credential", "expires").Integer()
	r := &proviso.TokenResponse{
		AccessToken: text(doc, "access_token"), IssuedTokenType: text(doc, "issued_token_type"), TokenType: text(doc, "token_type"),
		ExpiresIn: expiresIn, Scope: text(doc, "scope"),
		Proviso: proviso.Issued{Decision: text(doc, "proviso", "decision"), Credential: proviso.CredentialInfo{
			Kind: text(doc, "proviso", "credential", "kind"), ID: text(doc, "proviso", "credential", "id"),
			Audience: text(doc, "proviso", "credential", "audience"), Expires: expires,
		}},
	}
	if receipt := doc.At("proviso", "receipt"); !receipt.IsAbsent() {
		r.Proviso.Receipt = document.AppendCanonical(nil, receipt)
	}
	for _, d := range doc.Get("authorization_details").Items() {
		ttl, _ := d.Get("requested_ttl").Integer()
		r.AuthorizationDetails = append(r.AuthorizationDetails, proviso.Intent{
			Type: text(d, "type"), Action: text(d, "action"), Purpose: text(d, "purpose"), Annotation: text(d, "annotation"),
			TicketID: text(d, "ticket_id"), RequestedTTL: int(ttl),
		})
	}
	return r
}

// check holds RFC 8693 section 2.2.1 and what was asked for.
func (c *Client) check(req Request, r *proviso.TokenResponse) error {
	want := "Bearer"
	switch {
	case r.IssuedTokenType == proviso.TokenTypeX509, r.IssuedTokenType == proviso.TokenTypeJWT:
		want = "N_A" // a certificate, or a JWT-SVID
	case c.conf.Prover != nil:
		want = "DPoP"
	}
	switch {
	case r.AccessToken == "":
		return errors.New("access_token is missing")
	case r.IssuedTokenType == "":
		return errors.New("issued_token_type is missing")
	case req.RequestedTokenType != "" && r.IssuedTokenType != req.RequestedTokenType:
		return fmt.Errorf("it issued %q, asked for was %q", r.IssuedTokenType, req.RequestedTokenType)
	case !strings.EqualFold(r.TokenType, want): // RFC 6749 section 5.1: case insensitive
		return fmt.Errorf("token_type is %q, it should be %q", r.TokenType, want)
	case r.ExpiresIn <= 0 || r.ExpiresIn > maxLife:
		return fmt.Errorf("expires_in is %d seconds; a credential that does not end, or has ended, is not one", r.ExpiresIn)
	case r.Proviso.Decision == "":
		return errors.New("the decision's id is missing")
	}
	if len(req.Scope) > 0 {
		for _, s := range strings.Fields(r.Scope) {
			if !slices.Contains(req.Scope, s) {
				return fmt.Errorf("scope %q was not asked for", s)
			}
		}
	}
	if r.IssuedTokenType == proviso.TokenTypeX509 {
		return checkChain(r.AccessToken, req.CSR)
	}
	if strings.ContainsFunc(r.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("access_token is no token: it holds white space or other characters that a header can't carry")
	}
	return nil
}

const maxLife = 7 * 24 * 3600 // seconds

// checkChain demands a chain whose leaf certifies the key of the request.
func checkChain(chain string, csr []byte) error {
	rest := []byte(chain)
	var leaf *x509.Certificate
	for n := 0; len(bytes.TrimSpace(rest)) > 0; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || n > 8 {
			return errors.New("access_token is no certificate chain in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("certificate %d of the chain can't be read", n+1)
		}
		if leaf == nil {
			leaf = cert
		}
	}
	block, _ := pem.Decode(csr)
	if leaf == nil || block == nil {
		return errors.New("a certificate came, and no certificate request was sent")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return errors.New("the certificate request can't be read")
	}
	if key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !key.Equal(asked.PublicKey) {
		return errors.New("the certificate is for another key than the one asked for")
	}
	return nil
}
