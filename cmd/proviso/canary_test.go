package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// canaries are the secrets of one broker's life: what is in none of them may be
// looked for in everything that the broker says or keeps.
type canaries struct {
	t    *testing.T
	s    *site
	sent map[string]string // a part of a secret, and what it is of
	said strings.Builder   // all answers, without the credentials in them
}

// secret adds a token's claims and signature, or a text without dots whole.
func (c *canaries) secret(what, text string) string {
	parts := strings.Split(text, ".")
	for i, p := range parts {
		if len(p) >= 16 && (i > 0 || len(parts) == 1) { // a header says only how it is signed
			c.sent[p] = what
		}
	}
	return text
}

// token makes a job's token, which is a secret.
func (c *canaries) token(edits ...lab.Edit) string {
	return c.secret("a job's token", c.s.token(lab.Job{}, edits...))
}

// short makes another platform's token, of few claims: it fits where texts fit.
func (c *canaries) short() string {
	return c.secret("a short token", made(made(labKey())(c.t).Sign([]byte(`{"alg":"ES256"}`), fmt.Appendf(nil, `{"jti":"canary-%d"}`, len(c.sent))))(c.t))
}

// do sends a request and keeps what came, but for the credential itself.
func (c *canaries) do(method, path, contentType, body string, headers ...string) *proviso.TokenResponse {
	c.t.Helper()
	req := made(http.NewRequestWithContext(c.t.Context(), method, c.s.url+path, strings.NewReader(body)))(c.t)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp := made(c.s.client.Do(req))(c.t)
	defer resp.Body.Close()
	text := string(made(io.ReadAll(resp.Body))(c.t))
	var granted *proviso.TokenResponse
	if path == "/token" && resp.StatusCode == http.StatusOK {
		granted = &proviso.TokenResponse{}
		noError(c.t, json.Unmarshal([]byte(text), granted))
		c.secret("a credential", granted.AccessToken)
		text = strings.Replace(text, granted.AccessToken, "", 1)
	}
	fmt.Fprintf(&c.said, "%s %v %s\n", resp.Status, resp.Header, text)
	return granted
}

func (c *canaries) ask(form url.Values) *proviso.TokenResponse {
	c.t.Helper()
	return c.do(http.MethodPost, "/token", formType, form.Encode())
}

// find looks for every canary in a text.
func (c *canaries) find(where, text string) {
	c.t.Helper()
	if len(text) == 0 {
		c.t.Errorf("%s is empty: nothing was looked at", where)
	}
	for part, what := range c.sent {
		if strings.Contains(text, part) {
			c.t.Errorf("%s holds %s: %.24s...", where, what, part)
		}
	}
}

// Tokens in every place where a caller could put them by mistake or on purpose,
// a source that repeats its bearer, credentials, private keys: none of them is in
// an answer, the log at its loudest, the metrics, a trace, a profile, a search,
// an export, or a byte of the store.
func TestCanariesStayInside(t *testing.T) {
	t.Parallel()
	traces := newCollector(t)
	const bearer = "canary-bearer-of-the-tickets-5f1e"
	echo := newEcho(t)
	s := newSite(t, plan{
		sections: "telemetry: {otlp: \"" + traces.url + "\"}\nlog: {level: debug}\nfacts:\n  http:\n" +
			"    - {name: tickets, url: \"" + echo + "/{intent.ticket_id}\", allow_private: true, bearer_file: tickets.bearer, keys: {ticket_approved: {pointer: /status, equals: approved}}}\n",
		grants:   deployOnly + ticketGrant,
		policies: map[string]string{"open.rego": openPolicy, "ticket.rego": ticketPolicy},
	})
	s.write("tickets.bearer", bearer)
	p := s.spawn()
	c := &canaries{t: t, s: s, sent: map[string]string{}}
	c.secret("a source's bearer", bearer)

	if c.ask(exchangeForm(c.token(), "deploy")) == nil {
		t.Fatalf("a good request was refused:\n%s", c.said.String())
	}
	used := c.token()
	c.ask(exchangeForm(used, "deploy"))
	c.ask(exchangeForm(used, "deploy"))
	for _, ticket := range []string{"500", "html", "slow-json", "approved"} {
		c.ask(exchangeForm(c.token(), "change", "authorization_details", `[{"type":"proviso_intent","ticket_id":"`+ticket+`"}]`))
	}
	for _, edit := range []lab.Edit{lab.Unsigned(), lab.KeyConfusion(), lab.Claim("aud", "https://evil.example"), lab.Claim("event_name", "pull_request"),
		lab.NoClaim("exp"), lab.Claim("repository_owner_id", "1"), lab.Header("kid", "unknown"), lab.Claim("iss", "https://evil.example")} {
		c.ask(exchangeForm(c.token(edit), "deploy"))
	}
	good := c.token()
	for _, name := range []string{"grant_type", "subject_token_type", "actor_token", "actor_token_type", "audience", "resource", "scope", "requested_token_type",
		"csr", "client_id", "client_secret", "authorization_details", "no_such_parameter"} {
		c.ask(exchangeForm(good, "deploy", name, c.token()))
		c.ask(exchangeForm(good, "deploy", name, c.token(), "actor_token_type", proviso.TokenTypeJWT))
		c.ask(exchangeForm(c.token(), "deploy", name, c.short()))
		twice := exchangeForm(good, "deploy")
		twice[name] = append(twice[name], c.token(), c.token())
		c.ask(twice)
	}
	for _, member := range []string{"type", "purpose", "annotation", "action", "ticket_id", "requested_ttl", "no_such_member"} {
		c.ask(exchangeForm(c.token(), "deploy", "authorization_details", fmt.Sprintf(`[{"type":"proviso_intent",%q:%q}]`, member, c.token())))
		c.ask(exchangeForm(c.token(), "deploy", "authorization_details", fmt.Sprintf(`[{"type":"proviso_intent",%q:"as %s"}]`, member, c.short())))
		c.ask(exchangeForm(c.token(), "deploy", "authorization_details", fmt.Sprintf(`[{"type":"proviso_intent",%q:"x"}]`, c.token())))
	}
	c.ask(url.Values{c.token(): {c.token()}})
	form := exchangeForm(c.token(), "deploy").Encode()
	for _, r := range []struct {
		method, path, contentType, body string
		headers                         []string
	}{
		{"GET", "/token?" + form, "", "", nil},
		{"POST", "/token?" + form, formType, form, nil},
		{"POST", "/token/" + c.token(), formType, form, nil},
		{"PUT", "/token", formType, form, nil},
		{c.short(), "/token", formType, form, nil},
		{"POST", "/token", formType, form + strings.Repeat("&"+c.short()+"=x", 2), nil},
		{"POST", "/token", "application/json", `{"subject_token":"` + c.token() + `"}`, nil},
		{"POST", "/token", formType + "; charset=" + c.token(), form, nil},
		{"POST", "/token", formType, form + "&%zz=" + c.token(), nil},
		{"POST", "/token", formType, strings.Repeat(form, 60), nil},
		{"POST", "/token", formType, form, []string{"Authorization", "Bearer " + c.token()}},
		{"POST", "/token", formType, form, []string{"DPoP", c.token()}},
		{"POST", "/token", formType, form, []string{"Content-Encoding", c.token()}},
		{"GET", "/jwks?token=" + c.token(), "", "", nil},
		{"GET", "/log/" + c.token(), "", "", nil},
		{"GET", "/" + c.token(), "", "", []string{"Cookie", "a=" + c.token(), "User-Agent", c.token(), "Referer", c.token()}},
	} {
		c.do(r.method, r.path, r.contentType, r.body, r.headers...)
	}

	keys := 0
	noError(t, filepath.WalkDir(filepath.Join(s.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "key") || strings.HasSuffix(path, ".vkey") {
			return err
		}
		for _, line := range regexp.MustCompile(`[A-Za-z0-9+/=]{40,}`).FindAllString(string(made(os.ReadFile(path))(t)), -1) {
			keys++
			c.sent[line] = "the private key in " + filepath.Base(path)
		}
		return nil
	}))
	if keys < 4 || len(c.sent) < 150 {
		t.Fatalf("only %d lines of private keys and %d canaries: this test looks at nothing", keys, len(c.sent))
	}
	c.find("an answer", c.said.String())
	for _, page := range []string{"/metrics", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/log/checkpoint"} {
		_, text := s.get(page)
		c.find(page, text)
	}
	_, found := cli(t, "audit", "search", "--store", s.dir+"/data", "--output", "json")
	c.find("the search", found)
	if strings.Count(found, "\n") < 20 {
		t.Errorf("the record has only %d entries", strings.Count(found, "\n"))
	}
	code, said := cli(t, "audit", "export", "--store", s.dir+"/data", s.dir+"/export")
	if code != exitDone {
		t.Errorf("the export: %s", said)
	}
	_, said = cli(t, "doctor", "--config", s.file)
	c.find("doctor", said)
	p.signal(syscall.SIGTERM)
	p.ended(30 * time.Second)
	c.find("the log", p.log.String())
	_, sent := traces.received()
	c.find("the traces", sent)
	for _, dir := range []string{"data", "export"} {
		noError(t, filepath.WalkDir(filepath.Join(s.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() != "lock" && !strings.Contains(strings.TrimPrefix(path, s.dir), "key") {
				c.find(d.Name(), string(made(os.ReadFile(path))(t)))
			}
			return err
		}))
	}
}

// newEcho is a ticket system that answers with what it was asked with, the
// bearer too, in several forms that are no good answer, and in one that is.
func newEcho(t *testing.T) (url string) {
	t.Helper()
	return serveText(t, func(w http.ResponseWriter, r *http.Request) {
		secret := r.Header.Get("Authorization")
		switch strings.TrimPrefix(r.URL.Path, "/") {
		case "500":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, secret)
		case "html":
			_, _ = io.WriteString(w, "<html>"+secret)
		case "approved":
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"status": "approved", "you_sent": secret})
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"status": secret})
		}
	})
}
