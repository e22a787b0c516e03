package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2/google/externalaccount"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/lab"
)

// newTestWorld starts the demo's world for a test, and ends it.
func newTestWorld(t *testing.T, log io.Writer) *world {
	t.Helper()
	w, err := newWorld(t.Context(), "127.0.0.1:0", slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	noError(t, err)
	t.Cleanup(func() { noError(t, w.close()) })
	return w
}

// goodForm is a request that is granted.
func goodForm(t *testing.T, w *world) url.Values {
	t.Helper()
	return url.Values{
		"grant_type":         {proviso.GrantTypeTokenExchange},
		"subject_token":      {made(w.github.Token(lab.Job{Commit: w.signed}, w.url))(t)},
		"subject_token_type": {proviso.TokenTypeJWT},
		"audience":           {"read-tenant-data"},
	}
}

const formType = "application/x-www-form-urlencoded"

// post sends a body to /token and gives the status and the error, if it is one.
func post(t *testing.T, w *world, contentType, body string, headers ...string) (int, http.Header, proviso.TokenError) {
	t.Helper()
	req := made(http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/token", strings.NewReader(body)))(t)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp := made(http.DefaultClient.Do(req))(t)
	defer resp.Body.Close()
	data := made(io.ReadAll(resp.Body))(t)
	var answer proviso.TokenError
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatalf("the refusal is not JSON: %v: %s", err, data)
		}
	}
	return resp.StatusCode, resp.Header, answer
}

func TestTokenRefusesWhatIsNotARequest(t *testing.T) {
	w := newTestWorld(t, io.Discard)
	set := func(name string, values ...string) func(url.Values) {
		return func(v url.Values) { v[name] = values }
	}
	without := func(name string) func(url.Values) { return func(v url.Values) { v.Del(name) } }
	for _, c := range []struct {
		name   string
		change func(url.Values)
		code   proviso.Code
		oauth  string
		status int
	}{
		{"no grant_type", without("grant_type"), proviso.CodeRequestMalformed, "invalid_request", 400},
		{"another grant_type", set("grant_type", "authorization_code"), proviso.CodeGrantUnsupported, "unsupported_grant_type", 400},
		{"no subject_token", without("subject_token"), proviso.CodeRequestMalformed, "invalid_request", 400},
		{"no subject_token_type", without("subject_token_type"), proviso.CodeRequestMalformed, "invalid_request", 400},
		{"a SAML subject", set("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), proviso.CodeTokenTypeUnsupported, "invalid_request", 400},
		{"subject_token twice", func(v url.Values) { v.Add("subject_token", "x") }, proviso.CodeRequestDuplicateParam, "invalid_request", 400},
		{"an actor of another kind", func(v url.Values) {
			v.Set("actor_token", "x.y.z")
			v.Set("actor_token_type", "urn:ietf:params:oauth:token-type:saml2")
		}, proviso.CodeTokenTypeUnsupported, "invalid_request", 400},
		{"actor type without actor", set("actor_token_type", proviso.TokenTypeJWT), proviso.CodeRequestMalformed, "invalid_request", 400},
		{"actor without its type", set("actor_token", "x.y.z"), proviso.CodeRequestMalformed, "invalid_request", 400},
		{"no audience", without("audience"), proviso.CodeTargetMissing, "invalid_target", 400},
		{"two audiences", set("audience", "read-tenant-data", "debug"), proviso.CodeTargetMultiple, "invalid_target", 400},
		{"a resource", set("resource", "https://deploy.acme.example"), proviso.CodeTargetUnknown, "invalid_target", 400},
		{"an unknown grant", set("audience", "no-such-grant"), proviso.CodeTargetUnknown, "invalid_target", 400},
		{"a scope that the grant hasn't", set("scope", "read write"), proviso.CodeScopeNotAllowed, "invalid_scope", 400},
		{"a malformed scope", set("scope", "read  write"), proviso.CodeScopeNotAllowed, "invalid_scope", 400},
		{"a certificate of a token's grant", set("requested_token_type", proviso.TokenTypeX509), proviso.CodeTokenTypeMismatch, "invalid_request", 400},
		{"a refresh token", set("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), proviso.CodeTokenTypeUnsupported, "invalid_request", 400},
		{"details that are no list", set("authorization_details", `{"type":"proviso_intent"}`), proviso.CodeContextMalformed, "invalid_authorization_details", 400},
		{"details of another type", set("authorization_details", `[{"type":"payment"}]`), proviso.CodeContextMalformed, "invalid_authorization_details", 400},
		{"a declared fact", set("authorization_details", `[{"type":"proviso_intent","ticket_approved":true}]`), proviso.CodeContextReservedKey, "invalid_request", 400},
		{"a declared branch", set("authorization_details", `[{"type":"proviso_intent","branch":"main"}]`), proviso.CodeContextReservedKey, "invalid_request", 400},
		{"an annotation that is a number", set("authorization_details", `[{"type":"proviso_intent","annotation":7}]`), proviso.CodeContextMalformed, "invalid_authorization_details", 400},
		{"an annotation with a newline", set("authorization_details", `[{"type":"proviso_intent","annotation":"a\nb"}]`), proviso.CodeContextMalformed, "invalid_authorization_details", 400},
		{"a lifetime of minus five", set("authorization_details", `[{"type":"proviso_intent","requested_ttl":-5}]`), proviso.CodeTTLOutOfRange, "invalid_request", 400},
		{"a lifetime of null", set("authorization_details", `[{"type":"proviso_intent","requested_ttl":null}]`), proviso.CodeTTLMalformed, "invalid_request", 400},
		{"details with a member twice", set("authorization_details", `[{"type":"proviso_intent","purpose":"a","purpose":"b"}]`), proviso.CodeContextMalformed, "invalid_authorization_details", 400},
		{"details without end", set("authorization_details", strings.Repeat("[", 5000)), proviso.CodeLimitsContextSize, "invalid_request", 400},
		{"too many parameters", func(v url.Values) {
			for i := range 40 {
				v.Set(fmt.Sprintf("p%d", i), "x")
			}
		}, proviso.CodeLimitsParams, "invalid_request", 400},
		{"a body without end", set("padding", strings.Repeat("x", 80<<10)), proviso.CodeLimitsBodySize, "invalid_request", 413},
		{"a token without end", set("subject_token", strings.Repeat("x", 40<<10)), proviso.CodeLimitsTokenSize, "invalid_request", 400},
		{"a token that is none", set("subject_token", "hello"), proviso.CodeJWTMalformed, "invalid_request", 400},
	} {
		form := goodForm(t, w)
		c.change(form)
		status, header, answer := post(t, w, formType, form.Encode())
		if status != c.status || answer.Code != c.code || answer.Error != c.oauth {
			t.Errorf("%s: got %d %s %s (%s), want %d %s %s", c.name, status, answer.Error, answer.Code, answer.Description, c.status, c.oauth, c.code)
		}
		if header.Get("Cache-Control") != "no-store" || header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: the refusal may be cached, or is not JSON: %v", c.name, header)
		}
	}
}

func TestTokenRefusesOtherKindsOfRequests(t *testing.T) {
	w := newTestWorld(t, io.Discard)
	body := goodForm(t, w).Encode()
	for _, c := range []struct {
		name, contentType string
		headers           []string
		status            int
		code              proviso.Code
	}{
		{"JSON", "application/json", nil, 415, proviso.CodeContentType},
		{"no type", "", nil, 415, proviso.CodeContentType},
		{"two types", formType, []string{"Content-Type", formType}, 415, proviso.CodeContentType},
		{"another charset", formType + "; charset=utf-16", nil, 415, proviso.CodeContentType},
		{"compressed", formType, []string{"Content-Encoding", "gzip"}, 415, proviso.CodeContentEncoding},
		{"client authentication", formType, []string{"Authorization", "Basic eDp5"}, 401, proviso.CodeClientAuthUnsupported},
		{"two proofs", formType, []string{"DPoP", "a", "DPoP", "b"}, 400, proviso.CodeDPoPProof},
		{"a proof that is none", formType, []string{"DPoP", "a.b.c"}, 400, proviso.CodeDPoPProof},
	} {
		if status, _, answer := post(t, w, c.contentType, body, c.headers...); status != c.status || answer.Code != c.code {
			t.Errorf("%s: got %d %s (%s), want %d %s", c.name, status, answer.Code, answer.Description, c.status, c.code)
		}
	}
	for _, c := range []struct {
		name, body string
		code       proviso.Code
	}{
		{"nothing", "", proviso.CodeRequestMalformed},
		{"a bad percent sign", body + "&a=%zz", proviso.CodeRequestMalformed},
		{"semicolons", strings.ReplaceAll(body, "&", ";"), proviso.CodeRequestMalformed},
		{"grant_type twice", body + "&grant_type=x", proviso.CodeRequestDuplicateParam},
		{"an unknown parameter twice", body + "&x=1&x=2", proviso.CodeRequestDuplicateParam},
		{"one parameter in two spellings", body + "&sub%6Aect_token=x", proviso.CodeRequestDuplicateParam},
		{"thousands of nothing", body + strings.Repeat("&", 5000), proviso.CodeLimitsParams},
		{"JSON", `{"grant_type":"x"}`, proviso.CodeRequestMalformed},
	} {
		if status, _, answer := post(t, w, formType, c.body); status != 400 || answer.Code != c.code {
			t.Errorf("%s: got %d %s (%s), want %s", c.name, status, answer.Code, answer.Description, c.code)
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodHead} {
		req := made(http.NewRequestWithContext(t.Context(), method, w.url+"/token", strings.NewReader(body)))(t)
		req.Header.Set("Content-Type", formType)
		resp := made(http.DefaultClient.Do(req))(t)
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d", method, resp.StatusCode)
		}
	}
	resp := made(http.Get(w.url + "/token?" + body))(t)
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET /token: got %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
	resp = made(http.Post(w.url+"/token?x=1", formType, strings.NewReader(body)))(t)
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a query string: got %d", resp.StatusCode)
	}
	// None of these used the token up: nothing was decided.
	if status, _, answer := post(t, w, formType, body); status != http.StatusOK {
		t.Errorf("the good request after all of them: got %d %s", status, answer.Description)
	}
}

// One token, a thousand copies that arrive together: one credential.
func TestOneOfAThousandCopiesWins(t *testing.T) {
	w := newTestWorld(t, io.Discard)
	body := goodForm(t, w).Encode()
	const copies = 1000
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, codes := 0, map[proviso.Code]int{}
	transport := &http.Transport{MaxConnsPerHost: 200, MaxIdleConnsPerHost: 200}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	begin := make(chan struct{})
	for range copies {
		wg.Go(func() {
			<-begin
			resp, err := client.Post(w.url+"/token", formType, strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			var answer proviso.TokenError
			data, _ := io.ReadAll(resp.Body)
			mu.Lock()
			defer mu.Unlock()
			if resp.StatusCode == http.StatusOK {
				won++
			} else if json.Unmarshal(data, &answer) == nil {
				codes[answer.Code]++
			}
		})
	}
	close(begin)
	wg.Wait()
	// On a machine that is too busy to decide in time, that is the refusal.
	if won != 1 || codes[proviso.CodeReplay]+codes[proviso.CodePolicyTimeout] != copies-1 {
		t.Fatalf("%d copies of one token got a credential, 1 may; the others: %v", won, codes)
	}
}

// A stock OAuth client does the exchange, a stock OIDC library accepts the
// result, and neither knows of Proviso.
func TestStockLibraries(t *testing.T) {
	w := newTestWorld(t, io.Discard)
	config := externalaccount.Config{
		Audience:             "read-tenant-data",
		SubjectTokenType:     proviso.TokenTypeJWT,
		TokenURL:             w.url + "/token",
		SubjectTokenSupplier: jobToken{w, t},
	}
	source := made(externalaccount.NewTokenSource(t.Context(), config))(t)
	token := made(source.Token())(t)
	provider := made(oidc.NewProvider(t.Context(), w.url))(t)
	verified := made(provider.VerifierContext(t.Context(), &oidc.Config{ClientID: worldAudience, SupportedSigningAlgs: []string{"ES256"}}).Verify(t.Context(), token.AccessToken))(t)
	if verified.Subject != "job:github:acme:741200456" {
		t.Errorf("the token's subject is %q", verified.Subject)
	}
}

type jobToken struct {
	w *world
	t *testing.T
}

func (j jobToken) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return j.w.github.Token(lab.Job{Commit: j.w.signed}, j.w.url)
}

// The answer is written by hand; the type that clients read it with is held
// against every byte of it.
func TestAnswerIsATokenResponse(t *testing.T) {
	w := newTestWorld(t, io.Discard)
	form := goodForm(t, w)
	form.Set("authorization_details", `[{"type":"proviso_intent","purpose":"to \"test\" <b>","requested_ttl":5}]`)
	resp := made(http.PostForm(w.url+"/token", form))(t)
	defer resp.Body.Close()
	data := made(io.ReadAll(resp.Body))(t)
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var answer proviso.TokenResponse
	noError(t, decoder.Decode(&answer))
	if answer.TokenType != "Bearer" || answer.Scope != "read" || answer.ExpiresIn < 290 || answer.ExpiresIn > 300 ||
		len(answer.AuthorizationDetails) != 1 || answer.AuthorizationDetails[0].Purpose != `to "test" <b>` ||
		answer.Proviso.Credential.Kind != "jwt" || answer.Proviso.Credential.Audience != worldAudience {
		t.Errorf("the answer is not what was granted: %+v", answer)
	}
	receipt := made(audit.ParseReceipt(answer.Proviso.Receipt))(t)
	summary := made(audit.VerifyReceipt(receipt, w.broker.log.VerifierKey()))(t)
	if summary.Decision != answer.Proviso.Decision || summary.Credential != answer.Proviso.Credential.ID {
		t.Errorf("the receipt is of decision %s, credential %s", summary.Decision, summary.Credential)
	}
}

// The seed's policies and the attacks come out as they must; and of all the
// tokens that were sent or issued meanwhile, none is in a log line, a metric,
// or the record, whatever the log's level.
func TestNoSecretIsKept(t *testing.T) {
	var log lockedBuffer
	w := newTestWorld(t, &log)
	var secrets []string
	for _, act := range acts(w) {
		for _, s := range act.scenes {
			p, err := w.play(t.Context(), s)
			if err != nil {
				t.Error(err)
			}
			if p == nil {
				continue
			}
			secrets = append(secrets, p.token)
			if p.answer != nil {
				secrets = append(secrets, p.answer.AccessToken)
			}
		}
	}
	secrets = append(secrets, w.tickets.Bearer(), w.oncall.Bearer())
	places := map[string]string{"the log": log.String()}
	operations := recordResponse(w.broker.server.OperationsHandler(), "/metrics")
	places["the metrics"] = operations
	var entries strings.Builder
	for s, err := range audit.Search(t.Context(), w.broker.db, audit.Query{}) {
		noError(t, err)
		entries.WriteString(s.Document.String())
	}
	places["the record"] = entries.String()
	for where, text := range places {
		if len(text) < 500 {
			t.Errorf("%s is too short to have been looked at: %q", where, text)
		}
		for _, secret := range secrets {
			parts := strings.Split(secret, ".")
			if last := parts[len(parts)-1]; last != "" && strings.Contains(text, last) {
				t.Errorf("%s holds a token's signature, or a bearer", where)
			}
		}
	}
	if !strings.Contains(operations, `proviso_exchanges_total{code="policy_denied",grant="deploy-production",result="refused",stage="policy"} 2`) {
		t.Errorf("the metrics do not count the refusals:\n%s", operations)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// recordResponse asks a handler directly.
func recordResponse(h http.Handler, path string) string {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec.Body.String()
}
