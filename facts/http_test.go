package facts_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/lab"
)

// server answers fixed texts by path, and remembers who asked.
type server struct {
	url      string
	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // by path; "" for all others
	asked    []*http.Request
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{handlers: map[string]http.HandlerFunc{}}
	hs := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(hs.Close)
	s.url = hs.URL
	return s
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	h := s.handlers[r.URL.EscapedPath()]
	if h == nil {
		h = s.handlers[""]
	}
	s.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (s *server) handle(path string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
}

func (s *server) answer(path, body string) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		fmt.Fprint(w, body)
	})
}

func (s *server) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.asked...)
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

func tickets(s *server, edits ...func(*facts.HTTPConfig)) facts.Config {
	c := facts.HTTPConfig{Name: "tickets", URL: s.url + "/issue/{intent.ticket_id}", AllowPrivate: true, Timeout: 5 * time.Second,
		Keys: map[string]facts.KeyConfig{
			"ticket_approved": {Pointer: "/fields/status/name", Equals: "Approved"},
			"ticket.service":  {Pointer: "/fields/service"},
			"ticket.votes":    {Pointer: "/fields/votes", Type: "number"},
		}}
	for _, e := range edits {
		e(&c)
	}
	return facts.Config{HTTP: []facts.HTTPConfig{c}}
}

const approved = `{"fields":{"status":{"name":"Approved"},"service":"shipping","votes":3}}`

func ticketAsked(t testing.TB, id string) facts.Asked {
	return facts.Asked{Job: jobOf(t, lab.Job{}), Resource: shipping, Intent: proviso.Intent{TicketID: id}}
}

func TestTicket(t *testing.T) {
	s := newServer(t)
	s.answer("/issue/OPS-1", approved)
	s.answer("/issue/OPS-2", strings.Replace(approved, "Approved", "NOT Approved", 1))
	g := newGatherer(t, tickets(s))
	k := gather(t, g, ticketAsked(t, "OPS-1"), "context.ticket_approved", "context.ticket")
	wantValue(t, k, "true", "context", "ticket_approved")
	wantValue(t, k, `{"service":"shipping","votes":3}`, "context", "ticket")
	wantValue(t, k, `{"age":0,"source":"fact:tickets"}`, "origin", "ticket_approved")
	wantValue(t, k, `{"age":0,"source":"fact:tickets"}`, "origin", "ticket")
	k = gather(t, g, ticketAsked(t, "OPS-2"), "context.ticket_approved")
	wantValue(t, k, "false", "context", "ticket_approved")
	if !k.Input().At("context", "ticket").IsAbsent() {
		t.Error("a key that the policy doesn't read was filled")
	}
}

// Only what the policy reads is asked for.
func TestNothingIsAskedThatPolicyDoesNotRead(t *testing.T) {
	s := newServer(t)
	s.answer("", approved)
	g := newGatherer(t, tickets(s))
	k := gather(t, g, ticketAsked(t, "OPS-1"), "context.branch", "identity", "intent.ticket_id")
	if n := len(s.requests()); n != 0 || len(k.Absent()) != 0 {
		t.Errorf("%d requests, %v absent", n, k.Absent())
	}
}

// on_call is a fact of context and a part of the identity, as the seed's policy reads it.
func TestOnCall(t *testing.T) {
	s := newServer(t)
	s.answer("", `{"user":"dana","on":true}`)
	c := facts.Config{HTTP: []facts.HTTPConfig{{Name: "rota", URL: s.url + "/{identity.actor}", AllowPrivate: true,
		Keys: map[string]facts.KeyConfig{"on_call": {Pointer: "/on"}}}}}
	for _, path := range []string{"identity.on_call", "context.on_call", "identity"} {
		k := gather(t, newGatherer(t, c), ticketAsked(t, ""), path)
		wantValue(t, k, "true", "context", "on_call")
		wantValue(t, k, "true", "identity", "on_call")
	}
	s.answer("", `{"on":"true"}`) // a text is no boolean
	k := gather(t, newGatherer(t, c), ticketAsked(t, ""), "identity.on_call")
	if len(k.Absent()) != 1 || k.Absent()[0].Key != "identity.on_call" {
		t.Errorf("absent: %+v", k.Absent())
	}
	if v := k.Input().At("identity", "on_call"); !v.IsAbsent() {
		t.Errorf("identity.on_call is %s", v)
	}
}

// A source that fails in any way leaves its facts absent, says why in words
// that are fit for a job's log, and changes nothing else.
func TestMisbehavingSource(t *testing.T) {
	const secret = "internal-detail-10.1.2.3"
	var elsewhere *server
	write := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	const json = "application/json"
	cases := map[string]struct {
		h    http.HandlerFunc
		word string
	}{
		"not found":   {write(404, json, secret), "doesn't know"},
		"forbidden":   {write(403, json, secret), "no usable answer"},
		"error":       {write(500, json, secret), "no usable answer"},
		"no content":  {write(204, json, ""), "no usable answer"},
		"redirect":    {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.url, http.StatusFound) }, "no usable answer"},
		"login page":  {write(200, "text/html", "<html>"+secret), "no usable answer"},
		"no type":     {write(200, "", approved), "no usable answer"},
		"broken JSON": {write(200, json, `{"fields":`), "no usable answer"},
		"twice":       {write(200, json, `{"fields":{"status":{"name":"Rejected"},"status":{"name":"Approved"}}}`), "no usable answer"},
		"bytes after": {write(200, json, approved+approved), "no usable answer"},
		"empty":       {write(200, json, ""), "no usable answer"},
		"a list":      {write(200, json, `[1]`), "nothing at the configured place"},
		"null":        {write(200, json, `{"fields":{"status":{"name":null}}}`), "nothing at the configured place"},
		"too long":    {write(200, json, `{"x":"`+strings.Repeat("a", 300<<10)+`"}`), "too long"},
		"too deep":    {write(200, json, strings.Repeat("[", 100)+strings.Repeat("]", 100)), "no usable answer"},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			write(200, json, approved)(w, nil)
		}, "no usable answer"},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "could not be reached in time"},
		"hangs half-way": {func(w http.ResponseWriter, r *http.Request) {
			write(200, json, `{"fields":`)(w, r)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "broke off"},
		"closes": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "could not be reached"},
		"length of a lie": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			write(200, json, approved)(w, r)
		}, "broke off"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			elsewhere = newServer(t)
			elsewhere.answer("", approved)
			s.handle("", c.h)
			var log bytes.Buffer
			g, err := facts.New(tickets(s, func(c *facts.HTTPConfig) { c.Timeout = 300 * time.Millisecond }), facts.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			k := gather(t, g, ticketAsked(t, "OPS-1"), "context.ticket_approved", "context.branch")
			wantAbsent(t, k, "ticket_approved", proviso.CodeEnrichmentUnavailable, c.word)
			wantValue(t, k, `"main"`, "context", "branch")
			if n := len(elsewhere.requests()); n > 0 {
				t.Error("a redirect was followed")
			}
			if strings.Contains(k.Absent()[0].Why, "127.0.0.1") || strings.Contains(k.Absent()[0].Why, secret) {
				t.Errorf("the job reads %q", k.Absent()[0].Why)
			}
			if !strings.Contains(log.String(), "a fact could not be found out") || strings.Contains(log.String(), secret) {
				t.Errorf("the log says %q", log.String())
			}
		})
	}
}

// A server that is not there at all.
func TestSourceIsDown(t *testing.T) {
	s := newServer(t)
	hs := httptest.NewServer(nil)
	s.url = hs.URL
	hs.Close()
	k := gather(t, newGatherer(t, tickets(s)), ticketAsked(t, "OPS-1"), "context.ticket_approved")
	wantAbsent(t, k, "ticket_approved", proviso.CodeEnrichmentUnavailable, "could not be reached")
}

// Without allow_private a private address is refused when it is dialled,
// whatever its name says.
func TestPrivateAddressIsNotDialled(t *testing.T) {
	s := newServer(t)
	s.answer("", approved)
	for _, address := range []string{s.url, strings.Replace(s.url, "127.0.0.1", "localhost", 1)} {
		k := gather(t, newGatherer(t, tickets(s, func(c *facts.HTTPConfig) {
			c.AllowPrivate, c.URL = false, address+"/issue/{intent.ticket_id}"
		})), ticketAsked(t, "OPS-1"), "context.ticket_approved")
		wantAbsent(t, k, "ticket_approved", proviso.CodeEnrichmentUnavailable, "could not be reached")
	}
	if len(s.requests()) > 0 {
		t.Error("the server was asked")
	}
}

// The deadline is for all sources together, and one slow source takes nothing
// away from the others.
func TestSlowSourceAmongOthers(t *testing.T) {
	slow, fast := newServer(t), newServer(t)
	slow.handle("", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	fast.answer("", `{"frozen":false}`)
	c := tickets(slow, func(c *facts.HTTPConfig) { c.Timeout = 500 * time.Millisecond })
	c.Timeout = 200 * time.Millisecond
	c.HTTP = append(c.HTTP, facts.HTTPConfig{Name: "calendar", URL: fast.url + "/", AllowPrivate: true, Keys: map[string]facts.KeyConfig{"freeze": {Pointer: "/frozen"}}})
	start := time.Now()
	k := gather(t, newGatherer(t, c), ticketAsked(t, "OPS-1"), "context")
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
	wantAbsent(t, k, "ticket_approved", proviso.CodeEnrichmentUnavailable, "time")
	wantValue(t, k, "false", "context", "freeze")
}

// A declared value becomes one harmless part of a URL, or the source isn't asked.
func TestDeclaredValuesInURLs(t *testing.T) {
	s := newServer(t)
	s.answer("", approved)
	g := newGatherer(t, tickets(s))
	for _, id := range []string{"", "../../admin", "OPS-1/approve", "OPS-1?x", "OPS 1", "%2e%2e", "OPS-1\n", strings.Repeat("A", 500)} {
		k := gather(t, g, ticketAsked(t, id), "context.ticket_approved")
		wantAbsent(t, k, "ticket_approved", proviso.CodeTemplateValue, "intent.ticket_id")
	}
	if n := len(s.requests()); n != 0 {
		t.Errorf("the system was asked %d times", n)
	}
}

// The bearer is read anew for every question, and stands in no log and no message.
func TestBearer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first-secret-value\n")
	s := newServer(t)
	s.answer("", approved)
	var log bytes.Buffer
	make := func(edits ...func(*facts.HTTPConfig)) *facts.Gatherer {
		t.Helper()
		g, err := facts.New(tickets(s, append(edits, func(c *facts.HTTPConfig) { c.BearerFile = file })...), facts.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	g := make()
	gather(t, g, ticketAsked(t, "OPS-1"), "context.ticket_approved")
	put("second-secret-value")
	gather(t, g, ticketAsked(t, "OPS-1"), "context.ticket_approved")
	gather(t, make(func(c *facts.HTTPConfig) { c.SecretHeader = "PRIVATE-TOKEN" }), ticketAsked(t, "OPS-1"), "context.ticket_approved")
	asked := s.requests()
	if len(asked) != 3 || asked[0].Header.Get("Authorization") != "Bearer first-secret-value" || asked[1].Header.Get("Authorization") != "Bearer second-secret-value" ||
		asked[2].Header.Get("Private-Token") != "second-secret-value" || asked[2].Header.Get("Authorization") != "" {
		t.Errorf("%d requests with other headers", len(asked))
	}
	for _, bad := range []string{"", "two words-secret", "line-secret\nline-secret"} {
		put(bad)
		k := gather(t, g, ticketAsked(t, "OPS-1"), "context.ticket_approved")
		wantAbsent(t, k, "ticket_approved", proviso.CodeEnrichmentUnavailable, "could not be asked")
		if _, err := facts.New(tickets(s, func(c *facts.HTTPConfig) { c.BearerFile = file }), facts.Options{Log: quiet}); err == nil || strings.Contains(err.Error(), "secret\n") {
			t.Errorf("a broken secret file at the start: %v", err)
		}
	}
	if len(s.requests()) != 3 {
		t.Error("the system was asked without its secret")
	}
	if strings.Contains(log.String(), "secret-value") || strings.Contains(log.String(), "line-secret") {
		t.Errorf("the log has the secret: %s", log.String())
	}
}

// Answers are cached by URL as long as configured, with their age; failures are
// not; and what is asked at the same time is asked once.
func TestCache(t *testing.T) {
	s := newServer(t)
	s.answer("", approved)
	at := now
	clock := sync.Mutex{}
	g, err := facts.New(tickets(s, func(c *facts.HTTPConfig) { c.Cache = time.Minute }), facts.Options{Log: quiet,
		Now: func() time.Time { clock.Lock(); defer clock.Unlock(); return at }})
	if err != nil {
		t.Fatal(err)
	}
	later := func(d time.Duration) { clock.Lock(); defer clock.Unlock(); at = at.Add(d) }
	ask := func(id string) facts.Known { return gather(t, g, ticketAsked(t, id), "context.ticket_approved") }
	ask("OPS-1")
	later(30 * time.Second)
	k := ask("OPS-1")
	wantValue(t, k, `{"age":30,"source":"fact:tickets"}`, "origin", "ticket_approved")
	ask("OPS-2")
	if n := len(s.requests()); n != 2 {
		t.Errorf("%d questions, want one per ticket", n)
	}
	later(31 * time.Second)
	wantValue(t, ask("OPS-1"), `{"age":0,"source":"fact:tickets"}`, "origin", "ticket_approved")
	if n := len(s.requests()); n != 3 {
		t.Errorf("%d questions, want another one after a minute", n)
	}
	s.handle("", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	ask("OPS-3")
	s.answer("", approved)
	wantValue(t, ask("OPS-3"), "true", "context", "ticket_approved")
}

func TestQuestionsAtTheSameTimeAreOne(t *testing.T) {
	s := newServer(t)
	begun, release := make(chan struct{}, 100), make(chan struct{})
	s.handle("", func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, approved)
	})
	g := newGatherer(t, tickets(s, func(c *facts.HTTPConfig) { c.Cache = time.Minute }))
	asked := ticketAsked(t, "OPS-1")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			wantValue(t, gather(t, g, asked, "context.ticket_approved"), "true", "context", "ticket_approved")
		})
	}
	<-begun
	close(release)
	all.Wait()
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d questions", n)
	}
}

// Values keep their types; nothing is converted.
func TestKeyTypes(t *testing.T) {
	s := newServer(t)
	s.answer("", `{"s":"text","e":"","b":true,"n":1.5,"i":3,"l":["a",1,true],"o":{"x":1},"nested":[[1]],"null":null,"falsy":false}`)
	for name, c := range map[string]struct {
		key  facts.KeyConfig
		want string // "" = absent
	}{
		"string":              {facts.KeyConfig{Pointer: "/s"}, `"text"`},
		"empty string":        {facts.KeyConfig{Pointer: "/e"}, ""},
		"number as string":    {facts.KeyConfig{Pointer: "/i"}, ""},
		"boolean":             {facts.KeyConfig{Pointer: "/b", Type: "boolean"}, "true"},
		"false":               {facts.KeyConfig{Pointer: "/falsy", Type: "boolean"}, "false"},
		"text as boolean":     {facts.KeyConfig{Pointer: "/s", Type: "boolean"}, ""},
		"number":              {facts.KeyConfig{Pointer: "/n", Type: "number"}, "1.5"},
		"list":                {facts.KeyConfig{Pointer: "/l", Type: "list"}, `["a",1,true]`},
		"nested list":         {facts.KeyConfig{Pointer: "/nested", Type: "list"}, ""},
		"object":              {facts.KeyConfig{Pointer: "/o", Type: "object"}, `{"x":1}`},
		"null":                {facts.KeyConfig{Pointer: "/null"}, ""},
		"nothing":             {facts.KeyConfig{Pointer: "/nothing"}, ""},
		"item":                {facts.KeyConfig{Pointer: "/l/0"}, `"a"`},
		"equals":              {facts.KeyConfig{Pointer: "/s", Equals: "text"}, "true"},
		"equals not":          {facts.KeyConfig{Pointer: "/s", Equals: "Text"}, "false"},
		"equals number":       {facts.KeyConfig{Pointer: "/i", Equals: uint64(3)}, "true"},
		"equals text of it":   {facts.KeyConfig{Pointer: "/i", Equals: "3"}, "false"},
		"equals boolean":      {facts.KeyConfig{Pointer: "/b", Equals: true}, "true"},
		"equals nothing":      {facts.KeyConfig{Pointer: "/nothing", Equals: "x"}, ""},
		"one of":              {facts.KeyConfig{Pointer: "/s", OneOf: []string{"a", "text"}}, "true"},
		"one of not":          {facts.KeyConfig{Pointer: "/s", OneOf: []string{"a"}}, "false"},
		"one of, no text":     {facts.KeyConfig{Pointer: "/i", OneOf: []string{"3"}}, ""},
		"exists":              {facts.KeyConfig{Pointer: "/s", Exists: yes()}, "true"},
		"exists not":          {facts.KeyConfig{Pointer: "/nothing", Exists: yes()}, "false"},
		"exists null":         {facts.KeyConfig{Pointer: "/null", Exists: yes()}, "false"},
		"must not exist":      {facts.KeyConfig{Pointer: "/nothing", Exists: no()}, "true"},
		"must not exist, but": {facts.KeyConfig{Pointer: "/s", Exists: no()}, "false"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGatherer(t, facts.Config{HTTP: []facts.HTTPConfig{{Name: "x", URL: s.url + "/", AllowPrivate: true, Keys: map[string]facts.KeyConfig{"mine": c.key}}}})
			k := gather(t, g, ticketAsked(t, ""), "context.mine")
			wantValue(t, k, c.want, "context", "mine")
			if (len(k.Absent()) == 0) != (c.want != "") {
				t.Errorf("absent: %+v", k.Absent())
			}
			if len(g.Keys()) != 1 || g.Keys()["mine"] == "" || g.Keys()["mine"] == "list" {
				t.Errorf("keys for the type check: %v", g.Keys())
			}
		})
	}
}

func TestConfigProblems(t *testing.T) {
	key := map[string]facts.KeyConfig{"mine": {Pointer: "/x"}}
	good := func() facts.HTTPConfig {
		return facts.HTTPConfig{Name: "tickets", URL: "https://t.example/", Keys: key}
	}
	keyed := func(name string, k facts.KeyConfig) func(*facts.HTTPConfig) {
		return func(c *facts.HTTPConfig) { c.Keys = map[string]facts.KeyConfig{name: k} }
	}
	for name, c := range map[string]struct {
		change func(c *facts.HTTPConfig)
		path   string
	}{
		"no name":            {func(c *facts.HTTPConfig) { c.Name = "" }, "http[0].name"},
		"reserved name":      {func(c *facts.HTTPConfig) { c.Name = "git" }, "http[0].name"},
		"no URL":             {func(c *facts.HTTPConfig) { c.URL = "" }, "http[0].url"},
		"plain HTTP":         {func(c *facts.HTTPConfig) { c.URL = "http://t.example/" }, "http[0].url"},
		"host from a value":  {func(c *facts.HTTPConfig) { c.URL = "https://{runner.region}.example/" }, "http[0].url"},
		"secret header":      {func(c *facts.HTTPConfig) { c.Headers = map[string]string{"authorization": "Bearer x"} }, "http[0].headers.authorization"},
		"host header":        {func(c *facts.HTTPConfig) { c.Headers = map[string]string{"Host": "x"} }, "http[0].headers.Host"},
		"header injection":   {func(c *facts.HTTPConfig) { c.Headers = map[string]string{"X-A": "b\r\nC: d"} }, "http[0].headers.X-A"},
		"long timeout":       {func(c *facts.HTTPConfig) { c.Timeout = time.Hour }, "http[0].timeout"},
		"long cache":         {func(c *facts.HTTPConfig) { c.Cache = time.Hour }, "http[0].cache"},
		"huge answers":       {func(c *facts.HTTPConfig) { c.MaxBytes = 1 << 30 }, "http[0].max_bytes"},
		"no keys":            {func(c *facts.HTTPConfig) { c.Keys = nil }, "http[0].keys"},
		"secret_header only": {func(c *facts.HTTPConfig) { c.SecretHeader = "X" }, "http[0].secret_header"},
		"shadows a fact":     {keyed("branch", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.branch"},
		"shadows git":        {keyed("commit_signed", facts.KeyConfig{Pointer: "/x", Type: "boolean"}), "http[0].keys.commit_signed"},
		"shadows the grant":  {keyed("environment", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.environment"},
		"shadows the intent": {keyed("annotation", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.annotation"},
		"member of a fact":   {keyed("time.zone", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.time.zone"},
		"member of boolean":  {keyed("on_call.x", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.on_call.x"},
		"two dots":           {keyed("a.b.c", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.a.b.c"},
		"capitals":           {keyed("Mine", facts.KeyConfig{Pointer: "/x"}), "http[0].keys.Mine"},
		"other type":         {keyed("ticket_approved", facts.KeyConfig{Pointer: "/x", Type: "string"}), "http[0].keys.ticket_approved"},
		"unknown type":       {keyed("mine", facts.KeyConfig{Pointer: "/x", Type: "date"}), "http[0].keys.mine.type"},
		"pointer":            {keyed("mine", facts.KeyConfig{Pointer: "x"}), "http[0].keys.mine.pointer"},
		"two tests":          {keyed("mine", facts.KeyConfig{Pointer: "/x", Equals: "a", Exists: yes()}), "http[0].keys.mine"},
		"test of a type":     {keyed("mine", facts.KeyConfig{Pointer: "/x", Equals: "a", Type: "string"}), "http[0].keys.mine.type"},
		"equals a list":      {keyed("mine", facts.KeyConfig{Pointer: "/x", Equals: []any{"a"}}), "http[0].keys.mine.equals"},
	} {
		t.Run(name, func(t *testing.T) {
			hc := good()
			c.change(&hc)
			problems := facts.Check(facts.Config{HTTP: []facts.HTTPConfig{hc}})
			if len(problems) != 1 || problems[0].Path != c.path || problems[0].Message == "" {
				t.Errorf("got %v, want one problem at %s", problems, c.path)
			}
			if _, err := facts.New(facts.Config{HTTP: []facts.HTTPConfig{hc}}, facts.Options{Log: quiet}); err == nil {
				t.Error("New took it")
			}
		})
	}
	if p := facts.Check(facts.Config{HTTP: []facts.HTTPConfig{good()}}); len(p) > 0 {
		t.Error(p)
	}
	other := good()
	other.Name = "other"
	if p := facts.Check(facts.Config{HTTP: []facts.HTTPConfig{good(), other}}); len(p) != 1 || p[0].Path != "http[1].keys.mine" {
		t.Errorf("one key of two sources: %v", p)
	}
	if p := facts.Check(facts.Config{Timeout: time.Hour}); len(p) != 1 || p[0].Path != "timeout" {
		t.Error(p)
	}
}

// The lab's systems, over HTTPS under an authority from a file.
func TestOverTLS(t *testing.T) {
	ca, err := lab.NewCA("acme")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	caFile, bearer := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "bearer")
	if err := ca.WriteFile(caFile); err != nil {
		t.Fatal(err)
	}
	records, err := lab.NewRecords(lab.RecordsOptions{TLS: ca})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = records.Close() })
	if err := os.WriteFile(bearer, []byte(records.Bearer()), 0o600); err != nil {
		t.Fatal(err)
	}
	records.Approve("OPS-1", "shipping", "lee")
	c := facts.Config{HTTP: []facts.HTTPConfig{{Name: "tickets", URL: records.URL() + "/{intent.ticket_id}", AllowPrivate: true, BearerFile: "bearer", CAFile: "ca.pem",
		Keys: map[string]facts.KeyConfig{"ticket.service": {Pointer: "/service"}, "ticket.id": {Pointer: "/id", Exists: yes()}}}}}
	c.ResolvePaths(dir)
	k := gather(t, newGatherer(t, c), ticketAsked(t, "OPS-1"), "context.ticket")
	wantValue(t, k, `"shipping"`, "context", "ticket", "service")
	c.HTTP[0].CAFile = "" // the system's authorities don't know the lab's
	k = gather(t, newGatherer(t, c), ticketAsked(t, "OPS-1"), "context.ticket")
	if !k.Input().At("context", "ticket").IsAbsent() || len(k.Absent()) == 0 {
		t.Error("an unknown authority was believed")
	}
}
