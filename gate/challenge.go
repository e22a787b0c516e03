package gate

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
)

// outcome is what a refusal becomes on the wire.
type outcome struct {
	status int
	err    string // the error of RFC 6750 section 3.1 or RFC 9449; "" names none
	dpop   bool   // the challenge is for DPoP alone
}

// outcomes is the one place where a refusal becomes a status. What isn't here
// is the token's fault; what the gate can't check is a 503, because the client's
// token may be fine.
var outcomes = map[proviso.Code]outcome{
	CodeTokenMissing:                  {status: http.StatusUnauthorized},
	CodeAuthorizationMalformed:        {status: http.StatusBadRequest, err: "invalid_request"},
	proviso.CodeDPoPProof:             {status: http.StatusUnauthorized, err: "invalid_dpop_proof", dpop: true},
	proviso.CodeDPoPNonce:             {status: http.StatusUnauthorized, err: "use_dpop_nonce", dpop: true},
	pass.CodeScopeInsufficient:        {status: http.StatusForbidden, err: "insufficient_scope"},
	CodeRouteUnmatched:                {status: http.StatusForbidden},
	CodePathAmbiguous:                 {status: http.StatusForbidden},
	CodeProxyUntrusted:                {status: http.StatusForbidden},
	CodeProxyHeaders:                  {status: http.StatusForbidden},
	proviso.CodeReplayStoreFull:       {status: http.StatusServiceUnavailable},
	proviso.CodeConfigAudienceMissing: {status: http.StatusServiceUnavailable},
}

func outcomeOf(code proviso.Code) outcome {
	if o, ok := outcomes[code]; ok {
		return o
	}
	if strings.HasPrefix(string(code), "jwks_") || strings.HasPrefix(string(code), "discovery_") {
		return outcome{status: http.StatusServiceUnavailable}
	}
	return outcome{status: http.StatusUnauthorized, err: "invalid_token"}
}

// answer writes a refusal. A forward-auth answer is never a 400: nginx would
// make a 500 of it.
func (g *Gate) answer(w http.ResponseWriter, r *http.Request, refusal *proviso.Refusal, want pass.Wanted, forward bool) {
	g.opt.Refused(r, refusal)
	o := outcomeOf(refusal.Code)
	if forward && o.status == http.StatusBadRequest {
		o.status = http.StatusUnauthorized
	}
	h := w.Header()
	if o.status == http.StatusUnauthorized || o.err != "" {
		h.Set("WWW-Authenticate", g.challenge(o, refusal, want, strings.HasPrefix(lowerASCII(first(r.Header["Authorization"], 5)), "dpop")))
	}
	if refusal.Code == proviso.CodeDPoPNonce && g.proofs != nil {
		h.Set("DPoP-Nonce", g.proofs.Nonce())
	}
	if o.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	body := document.AppendCanonical(nil, document.ObjectOf(
		document.Member("code", document.StringOf(string(refusal.Code))),
		document.Member("error", document.StringOf(o.err)),
		document.Member("error_description", document.StringOf(refusal.Public)),
		document.Member("stage", document.StringOf(string(refusal.Stage)))))
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(o.status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, said to be JSON and not to be sniffed; a client that is gone misses nothing
}

// challenge is one header value, with both schemes where the client may choose:
// nginx hands on only one WWW-Authenticate header of a sub-request.
func (g *Gate) challenge(o outcome, refusal *proviso.Refusal, want pass.Wanted, askedDPoP bool) string {
	var b strings.Builder
	params := func() {
		if o.err != "" {
			b.WriteString(`, error="` + o.err + `", error_description="` + quotable(refusal.Public) + `"`)
		}
		if len(want.Scope) > 0 && (o.err == "" || o.err == "insufficient_scope") {
			b.WriteString(`, scope="` + strings.Join(want.Scope, " ") + `"`)
		}
	}
	if g.proofs != nil && (o.dpop || askedDPoP || o.err == "") {
		b.WriteString(`DPoP algs="` + proofAlgs + `"`)
		params()
		if o.err != "" {
			return b.String()
		}
		b.WriteString(", ")
	}
	b.WriteString(`Bearer realm="proviso"`)
	params()
	return b.String()
}

var proofAlgs = func() string {
	var names []string
	for _, a := range pass.ProofAlgorithms {
		names = append(names, string(a))
	}
	return strings.Join(names, " ")
}()

// quotable leaves what RFC 6750 section 3 allows in error_description, which
// keeps a claim's value from ending the header.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < 0x20 || r > 0x7e || r == '\\':
			return '?'
		}
		return r
	}, s)
}

func first(values []string, n int) string {
	if len(values) == 0 {
		return ""
	}
	return values[0][:min(n, len(values[0]))]
}
