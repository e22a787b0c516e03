package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/pass"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LW9mLXRoZS1qb2I.c2lnbmF0dXJl"

// broker is a small token endpoint on a real socket. It answers with each of
// the given handlers in turn, the last one for ever.
func broker(t *testing.T, handlers ...http.HandlerFunc) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := min(int(n.Add(1)), len(handlers)) - 1
		handlers[i](w, r)
	}))
	t.Cleanup(s.Close)
	return s, &n
}

func reply(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

const good = `{"access_token":"aaa.bbb.ccc","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer",` +
	`"expires_in":600,"scope":"deploy","proviso":{"decision":"d1","receipt":{"n":1},"credential":{"kind":"jwt","id":"j1","audience":"https://deploy","expires":1795426800}}}`

func changed(old, repl string) string {
	if !strings.Contains(good, old) {
		panic(old)
	}
	return strings.Replace(good, old, repl, 1)
}

func newClient(t *testing.T, conf Config) *Client {
	t.Helper()
	c, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var ask = Request{Grant: "deploy-production", SubjectToken: secret}

func TestBrokerURLMustBeSafe(t *testing.T) {
	for raw, ok := range map[string]bool{
		"https://proviso.example":        true,
		"https://proviso.example/sub/":   true,
		"http://127.0.0.1:8080":          true,
		"http://[::1]:8080":              true,
		"http://localhost:8080":          true,
		"":                               false,
		"http://proviso.example":         false,
		"http://10.0.0.1":                false,
		"http://127.0.0.1.evil.example":  false,
		"ftp://127.0.0.1":                false,
		"https://user:pw@proviso":        false,
		"https://proviso.example?x=1":    false,
		"https://proviso.example/#x":     false,
		"proviso.example":                false,
		"https://":                       false,
		"http://localhost.evil.example/": false,
	} {
		if _, err := New(Config{BrokerURL: raw}); (err == nil) != ok {
			t.Errorf("%q: %v", raw, err)
		} else if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: the error shows a password: %v", raw, err)
		}
	}
	if _, err := New(Config{BrokerURL: "http://127.0.0.1:1", Certificate: func() (*tls.Certificate, error) { return nil, nil }}); err == nil {
		t.Error("a client certificate over plain HTTP was accepted")
	}
}

func TestExchangeSendsWhatRFC8693Wants(t *testing.T) {
	var got url.Values
	var header http.Header
	s, _ := broker(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/sub/token" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		_ = r.ParseForm()
		got, header = r.PostForm, r.Header
		reply(200, good)(w, r)
	})
	c := newClient(t, Config{BrokerURL: s.URL + "/sub/"})
	resp, err := c.Exchange(t.Context(), Request{
		Grant: "g", SubjectToken: secret, ActorToken: "svid", Scope: []string{"deploy", "rollback"}, CSR: []byte("csr"),
		RequestedTokenType: proviso.TokenTypeAccessToken, Intent: proviso.Intent{Action: "deploy", TicketID: "OPS-1", RequestedTTL: 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": secret,
		"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "actor_token": "svid",
		"actor_token_type": "urn:ietf:params:oauth:token-type:jwt", "audience": "g", "scope": "deploy rollback", "csr": "csr",
		"requested_token_type":  proviso.TokenTypeAccessToken,
		"authorization_details": `[{"type":"proviso_intent","action":"deploy","ticket_id":"OPS-1","requested_ttl":10}]`,
	} {
		if got.Get(name) != want || len(got[name]) != 1 {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 10 || header.Get("Content-Type") != "application/x-www-form-urlencoded" || header.Get("Authorization") != "" {
		t.Errorf("%d parameters, header %v", len(got), header)
	}
	if resp.AccessToken != "aaa.bbb.ccc" || resp.ExpiresIn != 600 || resp.Proviso.Decision != "d1" || string(resp.Proviso.Receipt) != `{"n":1}` ||
		resp.Proviso.Credential.Expires != 1795426800 || resp.Proviso.Credential.ID != "j1" {
		t.Errorf("%+v", resp)
	}
	// Nothing that wasn't asked is sent.
	if _, err := c.Exchange(t.Context(), ask); err != nil || len(got) != 4 {
		t.Errorf("%v, sent %v", err, got)
	}
	for _, r := range []Request{{SubjectToken: secret}, {Grant: "g"}} {
		if _, err := c.Exchange(t.Context(), r); err == nil {
			t.Error("a request without grant or token was sent")
		}
	}
}

// A "yes" that is not what was asked for is none.
func TestBadAnswersAreRefused(t *testing.T) {
	big := `{"x":"` + strings.Repeat("x", maxAnswer) + `"}`
	for name, c := range map[string]struct {
		body string
		req  Request
	}{
		"no token":             {changed(`"aaa.bbb.ccc"`, `""`), ask},
		"token with a space":   {changed(`aaa.bbb.ccc`, `aaa bbb`), ask},
		"token with a newline": {changed(`aaa.bbb.ccc`, `aaa\nbbb`), ask},
		"no kind":              {changed(`"issued_token_type"`, `"issued"`), ask},
		"another kind":         {good, Request{Grant: "g", SubjectToken: secret, RequestedTokenType: proviso.TokenTypeX509}},
		"another token type":   {changed(`"Bearer"`, `"mac"`), ask},
		"no life":              {changed(`600`, `0`), ask},
		"negative life":        {changed(`600`, `-5`), ask},
		"endless life":         {changed(`600`, `99999999`), ask},
		"life as text":         {changed(`600`, `"600"`), ask},
		"no decision":          {changed(`"decision":"d1",`, ``), ask},
		"wider scope":          {changed(`"scope":"deploy"`, `"scope":"deploy admin"`), Request{Grant: "g", SubjectToken: secret, Scope: []string{"deploy"}}},
		"named twice":          {changed(`"token_type"`, `"access_token":"x","token_type"`), ask},
		"another case":         {changed(`"access_token"`, `"Access_Token"`), ask},
		"not JSON":             {"token", ask},
		"a list":               {"[" + good + "]", ask},
		"trailing bytes":       {good + "x", ask},
		"too long":             {big, ask},
		"a certificate":        {changed(`urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer"`, proviso.TokenTypeX509+`","token_type":"N_A"`), ask},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := broker(t, reply(200, c.body))
			resp, err := newClient(t, Config{BrokerURL: s.URL}).Exchange(t.Context(), c.req)
			if err == nil {
				t.Fatalf("accepted: %+v", resp)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "aaa") || n.Load() != 1 {
				t.Errorf("asked %d times: %v", n.Load(), err)
			}
		})
	}
}

func TestRefusalKeepsEveryWord(t *testing.T) {
	s, n := broker(t, reply(400, `{"error":"invalid_request","error_description":"no","decision":"d7","stage":"policy","code":"policy_denied",`+
		`"reasons":[{"message":"branch is release, policy wants main","path":"context.branch","found":"\"release\"","wanted":"main","line":3}]}`))
	_, err := newClient(t, Config{BrokerURL: s.URL}).Exchange(t.Context(), ask)
	refused := new(RefusedError)
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	a := refused.Answer
	if refused.Status != 400 || a.Error != "invalid_request" || a.Decision != "d7" || a.Stage != proviso.StagePolicy || a.Code != proviso.CodePolicyDenied ||
		len(a.Reasons) != 1 || a.Reasons[0].Wanted != "main" || a.Reasons[0].Line != 3 || n.Load() != 1 {
		t.Errorf("%+v, asked %d times", a, n.Load())
	}
	for _, word := range []string{"policy", "policy_denied", "d7"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in %q", word, err)
		}
	}
}

func TestRedirectIsNeverFollowed(t *testing.T) {
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	defer thief.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s, n := broker(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, status) })
		if _, err := newClient(t, Config{BrokerURL: s.URL}).Exchange(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "redirect") {
			t.Errorf("%d: %v", status, err)
		}
		if n.Load() != 1 || stolen.Load() != 0 {
			t.Errorf("%d: asked %d times, the other host %d", status, n.Load(), stolen.Load())
		}
	}
}

// After the request was sent and no answer of the broker came, the token is not
// sent again.
func TestUnknownOutcomeIsNotRepeated(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"connection breaks": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"answer breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "500")
			w.WriteHeader(200)
			_, _ = w.Write([]byte(`{"a`))
		},
		"gateway's page": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(502)
			_, _ = w.Write([]byte("<html>bad gateway"))
		},
		"gateway's 503": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(503)
			_, _ = w.Write([]byte("<html>"))
		},
		"gateway's own JSON": reply(503, `{"message":"no upstream"}`, "Retry-After", "0"),
		"time is over":       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a body without end": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"headers without end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
			w.WriteHeader(200)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := broker(t, func(w http.ResponseWriter, r *http.Request) { _ = r.ParseForm(); h(w, r) })
			_, err := newClient(t, Config{BrokerURL: s.URL, Timeout: 300 * time.Millisecond}).Exchange(t.Context(), ask)
			if unknown := new(UnknownOutcomeError); !errors.As(err, &unknown) {
				t.Errorf("%v", err)
			}
			if n.Load() != 1 {
				t.Errorf("the token was sent %d times", n.Load())
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the error shows the token")
			}
		})
	}
}

func TestAskAgainOnlyWhenTheBrokerSaysWhen(t *testing.T) {
	overloaded := `{"error":"server_error","code":"overloaded","stage":"request"}`
	for name, c := range map[string]struct {
		first http.HandlerFunc
		asked int32
		ok    bool
	}{
		"429 with Retry-After":    {reply(429, `{"error":"rate_limited"}`, "Retry-After", "0"), 2, true},
		"503 with Retry-After":    {reply(503, overloaded, "Retry-After", "0"), 2, true},
		"503 with a date":         {reply(503, overloaded, "Retry-After", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)), 2, true},
		"503 without":             {reply(503, overloaded), 1, false},
		"503 with a bad one":      {reply(503, overloaded, "Retry-After", "soon"), 1, false},
		"503 beyond patience":     {reply(503, overloaded, "Retry-After", "3600"), 1, false},
		"400 with Retry-After":    {reply(400, `{"error":"invalid_request"}`, "Retry-After", "0"), 1, false},
		"500 of the broker":       {reply(500, `{"error":"server_error"}`), 1, false},
		"404: there is no broker": {reply(404, `{"message":"not found"}`), 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := broker(t, c.first, reply(200, good))
			_, err := newClient(t, Config{BrokerURL: s.URL, Patience: 2 * time.Second}).Exchange(t.Context(), ask)
			if (err == nil) != c.ok || n.Load() != c.asked {
				t.Errorf("asked %d times, want %d: %v", n.Load(), c.asked, err)
			}
		})
	}
	t.Run("not for ever", func(t *testing.T) {
		s, n := broker(t, reply(503, overloaded, "Retry-After", "0"))
		_, err := newClient(t, Config{BrokerURL: s.URL}).Exchange(t.Context(), ask)
		if refused := new(RefusedError); !errors.As(err, &refused) || n.Load() != maxAttempts {
			t.Errorf("asked %d times: %v", n.Load(), err)
		}
	})
}

// Nobody listens, then somebody does: nothing was sent, so asking again is safe.
func TestConnectionRefusedIsTriedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var tries atomic.Int32
	c := newClient(t, Config{BrokerURL: "http://" + addr, Now: time.Now})
	tr := c.http.Transport.(*http.Transport)
	dial := tr.DialContext
	var s *http.Server
	var served sync.WaitGroup
	tr.DialContext = func(ctx context.Context, network, a string) (net.Conn, error) {
		if tries.Add(1) == 2 { // the broker comes up between the first and the second attempt
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return nil, err
			}
			s = &http.Server{Handler: reply(200, good)}
			served.Go(func() { _ = s.Serve(l) })
		}
		return dial(ctx, network, a)
	}
	if _, err := c.Exchange(ctx, ask); err != nil || tries.Load() != 2 {
		t.Errorf("%d tries: %v", tries.Load(), err)
	}
	cancel()
	_ = s.Close()
	served.Wait()
}

func TestPlainHTTPDialsLoopbackOnly(t *testing.T) {
	tr := newTransport(true)
	if _, err := tr.DialContext(t.Context(), "tcp", "192.0.2.1:80"); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("%v", err)
	}
	if tr.Proxy != nil {
		t.Error("plain HTTP would go through a proxy")
	}
}

func TestDPoP(t *testing.T) {
	prover, err := pass.NewProver()
	if err != nil {
		t.Fatal(err)
	}
	var proofs []string
	bound := changed(`"Bearer"`, `"DPoP"`)
	s, _ := broker(t, func(w http.ResponseWriter, r *http.Request) {
		proofs = append(proofs, r.Header.Get("DPoP"))
		reply(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n1")(w, r)
	}, func(w http.ResponseWriter, r *http.Request) {
		proofs = append(proofs, r.Header.Get("DPoP"))
		reply(200, bound)(w, r)
	})
	c := newClient(t, Config{BrokerURL: s.URL, Prover: prover})
	if _, err := c.Exchange(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	if len(proofs) != 2 || proofs[0] == proofs[1] {
		t.Fatalf("%d proofs", len(proofs))
	}
	for i, nonce := range []string{"", "n1"} {
		token, err := jose.Parse(proofs[i], jose.Profile{Typ: []string{pass.ProofTyp}, AllowJWK: true})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := token.Claims.Get("nonce").Text()
		htu, _ := token.Claims.Get("htu").Text()
		if got != nonce || htu != s.URL+"/token" {
			t.Errorf("proof %d: nonce %q, htu %q", i, got, htu)
		}
	}
	// A broker that forgets to bind is refused.
	s, _ = broker(t, reply(200, good))
	if _, err := newClient(t, Config{BrokerURL: s.URL, Prover: prover}).Exchange(t.Context(), ask); err == nil {
		t.Error("asked for a bound token, accepted a bearer token")
	}
	// One that demands a nonce without end is asked once more, not for ever.
	s, n := broker(t, reply(400, `{"error":"use_dpop_nonce"}`, "DPoP-Nonce", "n1"))
	if _, err := newClient(t, Config{BrokerURL: s.URL, Prover: prover}).Exchange(t.Context(), ask); err == nil || n.Load() != 2 {
		t.Errorf("asked %d times: %v", n.Load(), err)
	}
}

func TestReceiptIsChecked(t *testing.T) {
	s, _ := broker(t, reply(200, good))
	var seen string
	c := newClient(t, Config{BrokerURL: s.URL, CheckReceipt: func(r *proviso.TokenResponse) error {
		seen = string(r.Proviso.Receipt)
		return errors.New("not in the log")
	}})
	if resp, err := c.Exchange(t.Context(), ask); err == nil || resp != nil || seen != `{"n":1}` {
		t.Errorf("%v %v, receipt %s", resp, err, seen)
	}
}

func TestCertificateMustBeForTheCallersKey(t *testing.T) {
	ca, err := lab.NewCA("ca")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.ClientCertificate("job")
	if err != nil {
		t.Fatal(err)
	}
	request := func(key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := cert.PrivateKey.(*ecdsa.PrivateKey)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw})) + string(ca.PEM())
	answerWith := func(chain string) string {
		quoted, _ := json.Marshal(chain)
		return fmt.Sprintf(`{"access_token":%s,"issued_token_type":%q,"token_type":"N_A","expires_in":60,"proviso":{"decision":"d","credential":{"kind":"x509"}}}`, quoted, proviso.TokenTypeX509)
	}
	for name, c := range map[string]struct {
		chain string
		csr   []byte
		ok    bool
	}{
		"own key":     {chain, request(own), true},
		"another key": {chain, request(other), false},
		"no request":  {chain, nil, false},
		"no chain":    {"not PEM", request(own), false},
		"a key":       {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", request(own), false},
		"rubbish":     {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", request(own), false},
		"tail":        {chain + "x", request(own), false},
	} {
		s, _ := broker(t, reply(200, answerWith(c.chain)))
		_, err := newClient(t, Config{BrokerURL: s.URL}).Exchange(t.Context(), Request{Grant: "g", SubjectToken: secret, CSR: c.csr, RequestedTokenType: proviso.TokenTypeX509})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The broker's certificate must hold, and the runner's is shown.
func TestMutualTLS(t *testing.T) {
	ca, err := lab.NewCA("web")
	if err != nil {
		t.Fatal(err)
	}
	spiffe, err := lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spiffe.Close() }()
	spiffe.Serve("/runner/1")
	var shown string
	cert, err := ca.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = ""
		if len(r.TLS.PeerCertificates) > 0 {
			shown = r.TLS.PeerCertificates[0].URIs[0].String()
		}
		reply(200, good)(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	defer s.Close()

	if _, err := newClient(t, Config{BrokerURL: s.URL, Patience: time.Millisecond}).Exchange(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("a server that nobody certified: %v", err)
	}
	runner, err := OpenRunnerCertificate(t.Context(), spiffe.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = runner.Close() }()
	c := newClient(t, Config{BrokerURL: s.URL, RootCAs: ca.Pool(), Certificate: runner.Certificate})
	if _, err := c.Exchange(t.Context(), ask); err != nil || shown != "spiffe://runners.acme.example/runner/1" {
		t.Errorf("shown %q: %v", shown, err)
	}
	token, err := RunnerToken(t.Context(), spiffe.Socket(), "https://broker")
	if err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("JWT-SVID: %v", err)
	}
	spiffe.Serve()
	if _, err := RunnerToken(t.Context(), spiffe.Socket(), "https://broker"); err == nil || !strings.Contains(err.Error(), "register") {
		t.Errorf("unknown workload: %v", err)
	}
	if _, err := OpenRunnerCertificate(t.Context(), spiffe.Socket()); err == nil || !strings.Contains(err.Error(), "register") {
		t.Errorf("unknown workload: %v", err)
	}
	if _, err := RunnerToken(t.Context(), "unix:///nowhere/at/all.sock", "https://broker"); err == nil || !strings.Contains(err.Error(), "nobody answers") {
		t.Errorf("no socket: %v", err)
	}
}

func TestBackoffIsBoundedAndSpread(t *testing.T) {
	for n := 1; n < 20; n++ {
		full := min(500*time.Millisecond<<(n-1), 8*time.Second)
		if d := backoff(min(n, 10)); d < full/2 && n <= 10 || d > 8*time.Second {
			t.Errorf("pause %d is %v", n, d)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if sleep(ctx, time.Hour) {
			t.Error("slept on after the end")
		}
		if !sleep(t.Context(), time.Hour) {
			t.Error("did not sleep")
		}
	})
}

func TestPrintable(t *testing.T) {
	for in, bad := range map[string]string{
		"a\nb":                        "\n",
		"\x1b[31mred":                 "\x1b",
		"::add-mask::x":               "::add",
		"  ::set-env name=x::y":       "::set",
		"##[command]rm":               "##[",
		"##vso[task.setvariable]x":    "##vso",
		"ab\u202egnp.exe":             "\u202e",
		"x\u2028y":                    "\u2028",
		strings.Repeat("long", 10000): strings.Repeat("long", 600),
		"bad \xff utf8":               "\xff",
		"c1 \u009b31m":                "\u009b",
	} {
		if got := Printable(in); strings.Contains(got, bad) {
			t.Errorf("%q became %q", in, got)
		}
	}
	if got := Printable("branch is release/1.2, policy wants main (ü)"); got != "branch is release/1.2, policy wants main (ü)" {
		t.Errorf("%q", got)
	}
}
