package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// raw sends bytes over a connection of their own and gives what comes back
// until the broker closes it, or until the time is over.
func (s *site) raw(text string, within time.Duration) (answer string, closed bool) {
	s.t.Helper()
	conn := made(net.Dial("tcp", s.address))(s.t)
	defer conn.Close()
	noError(s.t, conn.SetDeadline(time.Now().Add(within)))
	if _, err := io.WriteString(conn, text); err != nil {
		return "", true
	}
	data, err := io.ReadAll(conn)
	return string(data), err == nil || !strings.Contains(err.Error(), "timeout")
}

// Who sends slowly is cut off in time, and takes nobody's place meanwhile.
func TestSlowCallersAreCutOff(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{server: "limits: {request_time: 1s, requests: 2}"})
	s.serve()
	head := "POST /token HTTP/1.1\r\nHost: proviso\r\nContent-Type: " + formType + "\r\n"
	var wg sync.WaitGroup
	for _, c := range []struct{ name, text, status string }{
		{"nothing", "", ""},
		{"half a request line", "POST /tok", ""},
		{"headers without end", head + "X-A: b\r\n", ""},
		{"a body that doesn't come", head + "Content-Length: 4000\r\n\r\ngrant_type=", "408"},
		{"half a body", head + "Content-Length: 40\r\n\r\n" + strings.Repeat("a", 20), "408"},
		{"half a chunk", head + "Transfer-Encoding: chunked\r\n\r\nff\r\nabc", "400"},
	} {
		for range 3 { // more than the places that there are
			wg.Go(func() {
				begun := time.Now()
				answer, closed := s.raw(c.text, 20*time.Second)
				if took := time.Since(begun); !closed || took > 10*time.Second {
					t.Errorf("%s: the connection was open for %s", c.name, took)
				}
				if status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " "); status != c.status && !(c.status == "" && (status == "" || status == "408" || status == "400")) {
					t.Errorf("%s: got %q, want %q", c.name, answer, c.status)
				}
			})
		}
	}
	for range 4 {
		if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
			t.Errorf("a good request beside slow ones: %s", r)
		}
	}
	wg.Wait()
}

// More requests at once than the broker may work on are told to come back, at
// once and with a time; the token of such a request is not used.
func TestTooManyAtOnce(t *testing.T) {
	t.Parallel()
	k := newTickets(t)
	s := newSite(t, plan{server: "limits: {requests: 1}", sections: k.facts(), grants: deployOnly + ticketGrant,
		policies: map[string]string{"open.rego": openPolicy, "ticket.rego": ticketPolicy}})
	s.serve()
	first := make(chan reply, 1)
	go func() {
		first <- s.ask(exchangeForm(s.token(lab.Job{}), "change", "authorization_details", ticketIntent))
	}()
	k.wait(t)
	form := exchangeForm(s.token(lab.Job{}), "deploy")
	r := s.ask(form)
	if r.status != http.StatusServiceUnavailable || r.refused.Code != proviso.CodeOverloaded || r.header.Get("Retry-After") != "1" {
		t.Errorf("the second request: %s, Retry-After %q", r, r.header.Get("Retry-After"))
	}
	if status, _ := s.get("/healthz"); status != http.StatusOK {
		t.Errorf("a broker that works is said to be unhealthy: %d", status)
	}
	close(k.free)
	if r := <-first; r.granted == nil {
		t.Errorf("the first request: %s", r)
	}
	if r := s.ask(form); r.granted == nil {
		t.Errorf("the second request, once more: %s", r)
	}
}

// Connections beyond the bound wait; they don't break those that are there.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{server: "limits: {connections: 2}"})
	s.serve()
	var held []net.Conn
	for range 2 {
		conn := made(net.Dial("tcp", s.address))(t)
		defer conn.Close()
		_, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: proviso\r\n\r\n")
		noError(t, err)
		resp := made(http.ReadResponse(bufio.NewReader(conn), nil))(t)
		_ = resp.Body.Close()
		held = append(held, conn)
	}
	if answer, _ := s.raw("GET /healthz HTTP/1.1\r\nHost: proviso\r\nConnection: close\r\n\r\n", 300*time.Millisecond); answer != "" {
		t.Errorf("a third connection got %q", answer)
	}
	_ = held[0].Close()
	if answer, _ := s.raw("GET /healthz HTTP/1.1\r\nHost: proviso\r\nConnection: close\r\n\r\n", 20*time.Second); !strings.HasPrefix(answer, "HTTP/1.1 200") {
		t.Errorf("after one was closed: %q", answer)
	}
}

// A request whose length or end two servers could read differently gives no
// credential, and nothing after it on its connection is read as a request.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	s.serve()
	body := func() string { return exchangeForm(s.token(lab.Job{}), "deploy").Encode() }
	second := "GET /healthz HTTP/1.1\r\nHost: proviso\r\n\r\n"
	chunked := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text) }
	head := "POST /token HTTP/1.1\r\nHost: proviso\r\nContent-Type: " + formType + "\r\n"
	for _, c := range []struct {
		name    string
		request func(body string) string
	}{
		{"two lengths", func(b string) string {
			return head + fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n\r\n%s", len(b), b)
		}},
		{"a length with a sign", func(b string) string { return head + fmt.Sprintf("Content-Length: +%d\r\n\r\n%s", len(b), b) }},
		{"a negative length", func(b string) string { return head + "Content-Length: -1\r\n\r\n" + b }},
		{"a list of lengths", func(b string) string {
			return head + fmt.Sprintf("Content-Length: %d, %d\r\n\r\n%s", len(b), len(b), b)
		}},
		{"a length and chunks", func(b string) string {
			return head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", len(b), chunked(b))
		}},
		{"chunks alone", func(b string) string { return head + "Transfer-Encoding: chunked\r\n\r\n" + chunked(b) }},
		{"chunks twice", func(b string) string {
			return head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b)
		}},
		{"an encoding of another name", func(b string) string { return head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked(b) }},
		{"chunks and identity", func(b string) string { return head + "Transfer-Encoding: identity, chunked\r\n\r\n" + chunked(b) }},
		{"a space before the colon", func(b string) string { return head + fmt.Sprintf("Content-Length : %d\r\n\r\n%s", len(b), b) }},
		{"a folded header", func(b string) string {
			return head + fmt.Sprintf("X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: %d\r\nContent-Length: 0\r\n\r\n%s", len(b), b)
		}},
		{"a NUL in a header", func(b string) string {
			return head + fmt.Sprintf("X-A: b\x00\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
		}},
		{"no host", func(b string) string {
			return strings.Replace(head, "Host: proviso\r\n", "", 1) + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(b), b)
		}},
		{"two hosts", func(b string) string {
			return head + fmt.Sprintf("Host: other\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
		}},
		{"another version", func(b string) string {
			return strings.Replace(head, "HTTP/1.1", "HTTP/3.0", 1) + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(b), b)
		}},
	} {
		answer, closed := s.raw(c.request(body())+second, 20*time.Second)
		if strings.Contains(answer, "access_token") || strings.Contains(answer, " 200 OK") || !closed || !strings.HasPrefix(answer, "HTTP/1.1 ") {
			t.Errorf("%s: closed %v, got %q", c.name, closed, answer)
		}
	}
	if answer, _ := s.raw(head+fmt.Sprintf("X-Long: %s\r\n\r\n", strings.Repeat("a", 64<<10)), 20*time.Second); !strings.HasPrefix(answer, "HTTP/1.1 431") {
		t.Errorf("a header without end: %q", answer)
	}
	good := body()
	if answer, _ := s.raw(head+fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(good), good), 20*time.Second); !strings.Contains(answer, "access_token") {
		t.Errorf("a plain request over the same kind of connection: %q", answer)
	}
	if n := s.metric("proviso_log_entries"); n != "3" {
		t.Errorf("the record has %s entries, want the good request's and those of the two with chunks, which HTTP itself took", n)
	}
}

// One issuer's jobs can't take the whole broker: beyond its rate they are told
// to come back. Others, and a stranger who only names the issuer, don't count.
func TestIssuersHaveARate(t *testing.T) {
	t.Parallel()
	other := made(lab.NewIssuer(lab.GitHub, lab.IssuerOptions{Keys: []*lab.Key{made(labKey())(t)}}))(t)
	t.Cleanup(func() { _ = other.Close() })
	s := newSite(t, plan{server: "limits: {issuer_rate: 0.01}",
		issuers: fmt.Sprintf("  - {name: other, platform: github, url: %q, allow_private: true, require: {repository_owner_id: \"61200123\"}, role: ci, events: [push]}\n", other.URL())})
	b, _ := s.serve()
	forged := s.ask(exchangeForm(s.token(lab.Job{}, lab.Unsigned()), "deploy"))
	if forged.refused.Code != proviso.CodeJWTAlgNotAllowed {
		t.Errorf("a forged token: %s", forged)
	}
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Errorf("within the rate: %s", r)
	}
	r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy"))
	if r.status != http.StatusTooManyRequests || r.refused.Code != proviso.CodeRateLimited || r.header.Get("Retry-After") == "" {
		t.Errorf("beyond the rate: %s", r)
	}
	if r := s.ask(exchangeForm(made(other.Token(lab.Job{}, s.url))(t), "deploy")); r.granted == nil {
		t.Errorf("another issuer's job: %s", r)
	}
	// Nor can one good token fill the record: beyond the rate its refusals have a
	// budget, and what is beyond that is counted.
	before, asked := b.log.Status().Size, int64(0)
	for form := exchangeForm(s.token(lab.Job{}), "deploy"); b.broker.Unrecorded() == 0 && asked < 20_000; asked++ {
		s.ask(form)
	}
	recorded, unrecorded := b.log.Status().Size-before, b.broker.Unrecorded()
	if recorded+unrecorded != asked || unrecorded != 1 || recorded < 100 {
		t.Errorf("of %d refusals of a hasty job %d are in the record and %d are counted", asked, recorded, unrecorded)
	}
}

// What can't be read as a request is refused like everything else: with a
// decision's id, under which the record has the code and nothing that was sent.
func TestMalformedRequestsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	b, _ := s.serve()
	wanted := map[string]string{}
	for _, form := range []url.Values{
		{},
		{"subject_token": {"hello"}},
		exchangeForm("", "deploy"),
		exchangeForm("hello", ""),
		exchangeForm("hello", "deploy", "authorization_details", `[{"type":"proviso_intent","branch":"hello"}]`),
		exchangeForm("hello", "deploy", "scope", "hello  hello"),
		{"grant_type": {"hello"}},
		{"subject_token": {"hello", "hello"}},
		{"hello": {strings.Repeat("hello", 20_000)}},
	} {
		r := s.ask(form)
		if r.granted != nil || r.refused.Decision == "" || r.refused.Stage != proviso.StageRequest {
			t.Errorf("%.80v: %s, decision %q", form, r, r.refused.Decision)
		}
		wanted[r.refused.Decision] = string(r.refused.Code)
	}
	resp := made(s.client.Get(s.url + "/token"))(t)
	var answer proviso.TokenError
	noError(t, json.NewDecoder(resp.Body).Decode(&answer))
	noError(t, resp.Body.Close())
	wanted[answer.Decision] = string(proviso.CodeMethod)
	resp = made(s.client.Post(s.url+"/runner/join", "text/plain", strings.NewReader("hello")))(t)
	answer = proviso.TokenError{}
	noError(t, json.NewDecoder(resp.Body).Decode(&answer))
	noError(t, resp.Body.Close())
	wanted[answer.Decision] = string(proviso.CodeContentType)
	if len(wanted) != 11 || b.log.Status().Size != 11 {
		t.Errorf("%d decisions for 11 requests, and %d entries", len(wanted), b.log.Status().Size)
	}
	for decision, code := range wanted {
		_, found := cli(t, "audit", "search", "--store", s.dir+"/data", "--decision", decision, "--output", "json")
		if strings.Count(found, "\n") != 1 || !strings.Contains(found, `"code":"`+code+`"`) || strings.Contains(found, "hello") {
			t.Errorf("decision %s, %s, is in the record as %s", decision, code, found)
		}
	}
}

// A broker that can remember no more used tokens gives nothing, forgets none, and
// writes one outcome for one request. The same token is good when there is room.
func TestNoRoomForUsedTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	b, _ := s.serve()
	used := exchangeForm(s.token(lab.Job{}), "deploy")
	if r := s.ask(used); r.granted == nil {
		t.Fatalf("with room: %s", r)
	}
	b.db.LimitKeys(1)
	form := exchangeForm(s.token(lab.Job{}), "deploy")
	r := s.ask(form)
	if r.status != http.StatusServiceUnavailable || r.refused.Code != proviso.CodeReplayStoreFull || r.header.Get("Retry-After") != "30" {
		t.Errorf("without room: %s", r)
	}
	if r := s.ask(used); r.refused.Code != proviso.CodeReplay {
		t.Errorf("a used token: %s", r)
	}
	b.db.LimitKeys(2)
	if r := s.ask(form); r.granted == nil {
		t.Errorf("with room again: %s", r)
	}
	if got := s.decisions(); len(got) != 4 || got[1] != r.refused.Decision {
		t.Errorf("the record has %q for four requests", got)
	}
}

// Strangers can't fill the record: beyond their budget their refusals are
// counted and answered, and not written.
func TestStrangersCantFillTheRecord(t *testing.T) {
	t.Parallel()
	const workers, each = 8, 100
	s := newSite(t, plan{})
	b, _ := s.serve()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if r := s.ask(exchangeForm("a.b.c", "deploy")); r.status != http.StatusBadRequest || r.refused.Decision == "" {
					t.Errorf("a stranger got %s", r)
				}
			}
		})
	}
	wg.Wait()
	recorded, unrecorded := b.log.Status().Size, b.broker.Unrecorded()
	if recorded+unrecorded != workers*each || unrecorded == 0 {
		t.Errorf("of %d refusals %d are in the record and %d are counted", workers*each, recorded, unrecorded)
	}
	if counted := s.metric("proviso_unrecorded_refusals_total"); counted != fmt.Sprint(unrecorded) {
		t.Errorf("the metrics count %s, the broker %d", counted, unrecorded)
	}
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Errorf("a job after them: %s", r)
	}
}
