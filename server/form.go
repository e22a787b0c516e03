package server

import (
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Limits of the token endpoint's form. A job token of the most talkative
// platform (GitLab with many groups) stays under 16 KiB, an SVID under 4, a CSR
// under 8; nobody needs more parameters than RFC 8693 and RFC 9396 have.
const (
	maxFormBytes  = 64 << 10
	maxParameters = 32
	maxText       = 1024 // bytes of one declared text
	maxScopes     = 64
	maxScope      = 256 // bytes of one word
)

// form is a token request as it was sent: well-formed, and nothing more.
type form struct {
	subjectToken, subjectTokenType string
	actorToken, actorTokenType     string
	clientAssertion, clientID      string
	workload                       bool // that asks for itself: there is no job
	grant                          string
	scope                          []string
	requestedType                  string
	intent                         proviso.Intent
	csr                            string
}

// readForm reads the body of a token request strictly: one content type, a
// bounded body, no parameter twice (RFC 6749 section 3.2; audience and resource
// may repeat in RFC 8693, and are then more targets than one grant).
func readForm(r *http.Request) (*form, error) {
	values, err := readValues(r)
	if err != nil {
		return nil, err
	}
	f := &form{
		subjectToken: values.Get("subject_token"), subjectTokenType: values.Get("subject_token_type"),
		actorToken: values.Get("actor_token"), actorTokenType: values.Get("actor_token_type"),
		grant: values.Get("audience"), requestedType: values.Get("requested_token_type"), csr: values.Get("csr"),
	}
	grantType := values.Get("grant_type")
	switch grantType {
	case proviso.GrantTypeTokenExchange, proviso.GrantTypeClientCredentials:
	case "":
		return nil, requestRefusal(proviso.CodeRequestMalformed, "grant_type is missing; this endpoint takes %s", proviso.GrantTypeTokenExchange)
	default:
		return nil, requestRefusal(proviso.CodeGrantUnsupported, "this grant_type isn't served here; this endpoint takes %s", proviso.GrantTypeTokenExchange)
	}
	if err := f.readClient(values); err != nil {
		return nil, err
	}
	if err := f.readWorkload(grantType); err != nil {
		return nil, err
	}
	if err := f.checkTokens(); err != nil {
		return nil, err
	}
	if values.Has("resource") {
		return nil, requestRefusal(proviso.CodeTargetUnknown, "resource is not how a grant is named here: name one grant in audience")
	}
	if f.grant == "" {
		return nil, requestRefusal(proviso.CodeTargetMissing, "audience is missing: it names the grant that is asked for")
	}
	if f.scope, err = splitScope(values.Get("scope")); err != nil {
		return nil, err
	}
	if f.intent, err = readIntent(values.Get("authorization_details")); err != nil {
		return nil, err
	}
	return f, nil
}

func requestRefusal(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRequest, code, public, args...)
}

func readValues(r *http.Request) (url.Values, error) {
	if r.Method != http.MethodPost {
		return nil, requestRefusal(proviso.CodeMethod, "a token is asked for with POST, this was %s", shown(r.Method))
	}
	if types := r.Header.Values("Content-Type"); len(types) != 1 {
		return nil, requestRefusal(proviso.CodeContentType, "exactly one Content-Type is expected: application/x-www-form-urlencoded")
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset, ok := params["charset"]; err != nil || mediaType != "application/x-www-form-urlencoded" || ok && !strings.EqualFold(charset, "utf-8") {
		return nil, requestRefusal(proviso.CodeContentType, "the request's Content-Type must be application/x-www-form-urlencoded")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, requestRefusal(proviso.CodeContentEncoding, "a compressed request is not read; send it without Content-Encoding")
	}
	if r.URL.RawQuery != "" {
		return nil, requestRefusal(proviso.CodeRequestMalformed, "parameters belong in the body: a query string ends up in access logs")
	}
	body, err := readBody(r)
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, requestRefusal(proviso.CodeLimitsBodySize, "the request's body is over %d bytes", maxFormBytes)
	} else if err != nil {
		return nil, requestRefusal(proviso.CodeTimeoutBody, "the request's body did not arrive whole and in time").Because(err)
	}
	if strings.Count(body, "&")+1 > maxParameters {
		return nil, requestRefusal(proviso.CodeLimitsParams, "a token request has at most %d parameters", maxParameters)
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return nil, requestRefusal(proviso.CodeRequestMalformed, "the body is not a well-formed form (application/x-www-form-urlencoded)")
	}
	for name, all := range values {
		if len(all) == 1 {
			continue
		}
		if name == "audience" || name == "resource" {
			return nil, requestRefusal(proviso.CodeTargetMultiple, "one request asks for one grant: send one audience")
		}
		return nil, requestRefusal(proviso.CodeRequestDuplicateParam, "the parameter %q is sent %d times; each may be sent once (RFC 6749 section 3.2)", shown(name), len(all))
	}
	return values, nil
}

// readBody reads a bounded body, in one piece where its length is announced
// (net/http gives no more than that).
func readBody(r *http.Request) (string, error) {
	if n := r.ContentLength; n >= 0 && n <= maxFormBytes {
		body := make([]byte, n)
		_, err := io.ReadFull(r.Body, body)
		return string(body), err
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxFormBytes))
	return string(body), err
}

// checkTokens holds RFC 8693 section 2.1: which tokens must and mustn't be there.
func (f *form) checkTokens() error {
	if f.workload && f.subjectTokenType == "" {
		return f.checkRequested()
	}
	if f.subjectToken == "" {
		return requestRefusal(proviso.CodeRequestMalformed, "subject_token is missing: it carries the job's OIDC token")
	}
	switch f.subjectTokenType {
	case proviso.TokenTypeJWT, proviso.TokenTypeIDToken, proviso.TokenTypeJWTSVID:
	case "":
		return requestRefusal(proviso.CodeRequestMalformed, "subject_token_type is missing; a job's token is %s", proviso.TokenTypeJWT)
	default:
		return requestRefusal(proviso.CodeTokenTypeUnsupported, "subject_token_type must be %s or %s, or %s for a workload that asks for itself", proviso.TokenTypeJWT, proviso.TokenTypeIDToken, proviso.TokenTypeJWTSVID)
	}
	switch {
	case f.actorToken == "" && f.actorTokenType != "":
		return requestRefusal(proviso.CodeRequestMalformed, "actor_token_type is sent without an actor_token (RFC 8693 section 2.1)")
	case f.actorToken != "" && f.actorTokenType == "":
		return requestRefusal(proviso.CodeRequestMalformed, "actor_token is sent without its actor_token_type; a JWT-SVID is %s", proviso.TokenTypeJWT)
	case f.actorToken != "" && f.actorTokenType != proviso.TokenTypeJWT && proviso.EvidenceKinds[f.actorTokenType] == "":
		return requestRefusal(proviso.CodeTokenTypeUnsupported, "actor_token_type must be %s, for a runner's JWT-SVID, or one of %s",
			proviso.TokenTypeJWT, strings.Join(slices.Sorted(maps.Keys(proviso.EvidenceKinds)), ", "))
	}
	return f.checkRequested()
}

func (f *form) checkRequested() error {
	switch f.requestedType {
	case "", proviso.TokenTypeAccessToken, proviso.TokenTypeJWT, proviso.TokenTypeX509:
		return nil
	}
	return requestRefusal(proviso.CodeTokenTypeUnsupported, "requested_token_type must be %s, %s or %s", proviso.TokenTypeAccessToken, proviso.TokenTypeJWT, proviso.TokenTypeX509)
}

// splitScope reads RFC 6749 section 3.3's list: tokens of printable ASCII
// without quote and backslash, one space apart, none twice.
func splitScope(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	scopes := strings.Split(s, " ")
	if len(scopes) > maxScopes {
		return nil, requestRefusal(proviso.CodeScopeNotAllowed, "at most %d scopes may be asked for at once", maxScopes)
	}
	for i, scope := range scopes {
		if !isScopeToken(scope) || tokenLike.MatchString(scope) || slices.Contains(scopes[:i], scope) {
			return nil, requestRefusal(proviso.CodeScopeNotAllowed, "scope must be a list of different words, one space between two (RFC 6749 section 3.3)")
		}
	}
	return scopes, nil
}

func isScopeToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= maxScope
}

// readIntent reads authorization_details (RFC 9396): at most one object, of
// Proviso's type, with no member that Proviso doesn't know (section 5).
func readIntent(raw string) (proviso.Intent, error) {
	intent := proviso.Intent{Type: proviso.IntentType}
	if raw == "" {
		return intent, nil
	}
	malformed := func(why string, args ...any) (proviso.Intent, error) {
		r := requestRefusal(proviso.CodeContextMalformed, "authorization_details: "+why, args...)
		return proviso.Intent{}, r
	}
	doc, err := document.Parse([]byte(raw), document.Limits{Bytes: 16 << 10, Depth: 4, Members: 64})
	if errors.Is(err, document.ErrLimit) {
		return proviso.Intent{}, requestRefusal(proviso.CodeLimitsContextSize, "authorization_details is over 16 KiB, or nested too deeply")
	} else if err != nil {
		return malformed("%v", err)
	}
	if doc.Kind() != document.Array || len(doc.Items()) != 1 {
		return malformed("a list of exactly one object of type %q is expected", proviso.IntentType)
	}
	texts := map[string]*string{"action": &intent.Action, "purpose": &intent.Purpose, "annotation": &intent.Annotation, "ticket_id": &intent.TicketID}
	detail := doc.Items()[0]
	if kind, _ := detail.Get("type").Text(); kind != proviso.IntentType {
		return malformed("the object's type must be %q", proviso.IntentType)
	}
	for _, member := range detail.Fields() {
		switch target := texts[member.Name]; {
		case member.Name == "type":
		case target != nil:
			text, ok := member.Value.Text()
			if !ok || len(text) > maxText || !isOneLine(text) {
				return malformed("%s must be one line of at most %d bytes, of printable characters without direction marks", member.Name, maxText)
			}
			if tokenLike.MatchString(text) {
				return malformed("%s holds something that looks like a token; what is declared is recorded as it is, and a token must not be", member.Name)
			}
			*target = text
		case member.Name == "requested_ttl":
			n, ok := member.Value.Integer()
			if !ok {
				return proviso.Intent{}, requestRefusal(proviso.CodeTTLMalformed, "authorization_details: requested_ttl must be a whole number of minutes")
			}
			if n < 1 || n > 1440 {
				return proviso.Intent{}, requestRefusal(proviso.CodeTTLOutOfRange, "authorization_details: requested_ttl is %d minutes; 1 to 1440 can be asked for", n)
			}
			intent.RequestedTTL = int(n)
		default:
			// What is declared can't reach what is verified: an unknown name is
			// an error, not an input.
			return proviso.Intent{}, requestRefusal(proviso.CodeContextReservedKey, "authorization_details: %q is not something that a job can declare; known are action, purpose, annotation, ticket_id and requested_ttl", shown(member.Name))
		}
	}
	return intent, nil
}

func isOneLine(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// tokenLike finds a JWT that went into the wrong parameter
// (docs/decisions/0015-declared-texts.md).
var tokenLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)

// shown makes a caller's name fit for a message: short, printable, and no token
// that went into the wrong place.
func shown(name string) string {
	if tokenLike.MatchString(name) {
		return "(something that looks like a token)"
	}
	if len(name) > 40 {
		name = name[:40]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name)
}
