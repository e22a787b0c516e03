package gate

import (
	"strings"

	"net/http"
	"net/url"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

// Causes that only a gate has.
const (
	CodeTokenMissing           proviso.Code = "token_missing"           // 401, a challenge without error
	CodeAuthorizationMalformed proviso.Code = "authorization_malformed" // 400 invalid_request
	CodeRouteUnmatched         proviso.Code = "route_unmatched"         // 403
	CodePathAmbiguous          proviso.Code = "path_ambiguous"          // 403
	CodeProxyUntrusted         proviso.Code = "proxy_untrusted"         // 403
	CodeProxyHeaders           proviso.Code = "proxy_headers"           // 403
)

func refuse(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(pass.StageAccess, code, public, args...)
}

// presented reads the token out of exactly one Authorization header. Two
// headers, or a second token in the query, are two answers to "who are you",
// and a server behind this one could believe the other (RFC 6750 section 2).
func presented(h http.Header, query string) (p pass.Presented, refusal *proviso.Refusal) {
	values := h["Authorization"]
	if hasQueryToken(query) {
		return p, refuse(CodeAuthorizationMalformed, "a token in the query ends up in logs and is never taken; send it in the Authorization header")
	}
	switch len(values) {
	case 0:
		return p, refuse(CodeTokenMissing, "this needs a token of the broker's in the Authorization header")
	case 1:
	default:
		return p, refuse(CodeAuthorizationMalformed, "the request has %d Authorization headers; send one", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	switch lowerASCII(scheme) {
	case "bearer":
		p.Scheme = pass.SchemeBearer
	case "dpop":
		p.Scheme = pass.SchemeDPoP
	default:
		return p, refuse(CodeTokenMissing, "the Authorization header is neither Bearer nor DPoP")
	}
	if !isToken68(token) {
		return p, refuse(CodeAuthorizationMalformed, "the Authorization header is not its scheme, one space and one token")
	}
	p.Token = token
	switch proofs := h["Dpop"]; len(proofs) {
	case 0:
	case 1:
		p.Proof = proofs[0]
	default:
		return p, refuse(proviso.CodeDPoPProof, "the request has %d DPoP headers; send one (RFC 9449 section 4.3)", len(proofs))
	}
	return p, nil
}

func hasQueryToken(query string) bool {
	if !strings.Contains(query, "access") && !strings.Contains(query, "%") {
		return false
	}
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil && decoded == "access_token" {
			return true
		}
	}
	return false
}

// isToken68 is RFC 9110 section 11.2.
func isToken68(s string) bool {
	body := strings.TrimRight(s, "=")
	for i := 0; i < len(body); i++ {
		c := body[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return body != ""
}

// lowerASCII is not strings.ToLower, which makes "K" (U+212A) a k.
func lowerASCII(s string) string {
	if len(s) > 16 {
		return ""
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
