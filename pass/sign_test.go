package pass

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

const testJKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" // RFC 9449 section 6.1

func payloadOf(t testing.TB, token string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	return data
}

func TestATokenSaysExactlyThis(t *testing.T) {
	c := newClock()
	k := testKeyring(t, c)
	s := testSigner(t, k, "ES256")
	claims := testClaims(c.now())
	claims.Confirmation.JKT = testJKT
	token, err := s.Sign(&claims, time.Hour)
	must(t, err)
	const want = `{"act":{"sub":"spiffe://runners.acme.example/region/eu-1/runner/r-17"},"aud":"https://deploy.acme.example",` +
		`"authorization_details":[{"action":"deploy","purpose":"release 1.2.3","type":"proviso_intent"}],` +
		`"client_id":"job:github:acme:61200123","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},` +
		`"exp":1795511700,"iat":1795510800,"iss":"https://proviso.acme.example","jti":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11",` +
		`"proviso":{"commit":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11aabbccdd","decision":"01KAV7Q3S5C3M4GQ4Z7Z1V2W3X","grant":"deploy-production",` +
		`"policy":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","ref":"refs/heads/main",` +
		`"repository_id":"61200123","run_id":"9876543210"},"scope":"deploy rollback","sub":"job:github:acme:61200123"}`
	if got := string(payloadOf(t, token)); got != want {
		t.Errorf("payload\n %s\nwant\n %s", got, want)
	}
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	must(t, err)
	if got, want := string(header), `{"alg":"ES256","kid":"`+s.Key().Thumbprint()+`","typ":"at+jwt"}`; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	o, err := document.Parse([]byte(want), document.Limits{})
	must(t, err)
	if o.String() != want {
		t.Error("the payload is not canonical JSON")
	}
}

func TestWhatIsAbsentIsLeftOut(t *testing.T) {
	c := newClock()
	claims := testClaims(c.now())
	claims.Actor, claims.Scope, claims.Details, claims.Proviso = "", nil, document.Value{}, document.Value{}
	token, err := testSigner(t, testKeyring(t, c), "EdDSA").Sign(&claims, time.Hour)
	must(t, err)
	const want = `{"aud":"https://deploy.acme.example","client_id":"job:github:acme:61200123","exp":1795511700,"iat":1795510800,` +
		`"iss":"https://proviso.acme.example","jti":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11","sub":"job:github:acme:61200123"}`
	if got := string(payloadOf(t, token)); got != want {
		t.Errorf("payload %s", got)
	}
}

// The last thing before a signature: claims that nobody decided never meet a key.
func TestTheLintRefusesClaims(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, spoil := range map[string]func(c *Claims){
		"no audience":              func(c *Claims) { c.Audience = "" },
		"no subject":               func(c *Claims) { c.Subject, c.ClientID = "", "" },
		"no issuer":                func(c *Claims) { c.Issuer = "" },
		"no id":                    func(c *Claims) { c.ID = "" },
		"no client":                func(c *Claims) { c.ClientID = "" },
		"another client":           func(c *Claims) { c.ClientID = "job:github:acme:1" },
		"long subject":             func(c *Claims) { c.Subject, c.ClientID = long, long },
		"space in the subject":     func(c *Claims) { c.Subject, c.ClientID = "a b", "a b" },
		"quote in the subject":     func(c *Claims) { c.Subject, c.ClientID = `a"b`, `a"b` },
		"backslash in the issuer":  func(c *Claims) { c.Issuer = `https://a\b` },
		"newline in the audience":  func(c *Claims) { c.Audience = "a\nb" },
		"umlaut in the audience":   func(c *Claims) { c.Audience = "https://münchen.example" },
		"no lifetime":              func(c *Claims) { c.Expires = c.IssuedAt },
		"negative lifetime":        func(c *Claims) { c.Expires = c.IssuedAt.Add(-time.Second) },
		"longer than the warrant":  func(c *Claims) { c.Expires = c.IssuedAt.Add(time.Hour + time.Second) },
		"fraction of a second":     func(c *Claims) { c.Expires = c.Expires.Add(time.Millisecond) },
		"fraction in iat":          func(c *Claims) { c.IssuedAt = c.IssuedAt.Add(time.Millisecond) },
		"zero times":               func(c *Claims) { c.IssuedAt, c.Expires = time.Time{}, time.Time{}.Add(time.Minute) },
		"actor is no SPIFFE ID":    func(c *Claims) { c.Actor = "runner-17" },
		"actor with a quote":       func(c *Claims) { c.Actor = `spiffe://a/"` },
		"two keys":                 func(c *Claims) { c.Confirmation = Confirmation{JKT: testJKT, X5TS256: testJKT} },
		"thumbprint too short":     func(c *Claims) { c.Confirmation.JKT = testJKT[:42] },
		"thumbprint not canonical": func(c *Claims) { c.Confirmation.JKT = testJKT[:42] + "J" },
		"x5t of another form":      func(c *Claims) { c.Confirmation.X5TS256 = "AB:CD" },
		"empty scope word":         func(c *Claims) { c.Scope = []string{"deploy", ""} },
		"scope word with space":    func(c *Claims) { c.Scope = []string{"deploy admin"} },
		"scope word with quote":    func(c *Claims) { c.Scope = []string{`deploy","admin`} },
		"details no array":         func(c *Claims) { c.Details = document.StringOf("deploy") },
		"proviso no object":        func(c *Claims) { c.Proviso = document.ListOf(document.StringOf("x")) },
		"too long":                 func(c *Claims) { c.Details = document.ListOf(document.StringOf(strings.Repeat("x", MaxBytes))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			s := testSigner(t, testKeyring(t, c), "ES256")
			claims := testClaims(c.now())
			if _, err := s.Sign(&claims, time.Hour); err != nil {
				t.Fatalf("the usual token: %v", err)
			}
			spoil(&claims)
			token, err := s.Sign(&claims, time.Hour)
			wantCode(t, err, CodePassLint)
			if token != "" {
				t.Error("a token came with the refusal")
			}
		})
	}
}

func TestNoTokenOutlivesADay(t *testing.T) {
	c := newClock()
	s := testSigner(t, testKeyring(t, c), "ES256")
	claims := testClaims(c.now())
	claims.Expires = claims.IssuedAt.Add(MaxTTL)
	_, err := s.Sign(&claims, 1000*time.Hour)
	must(t, err)
	claims.Expires = claims.Expires.Add(time.Second)
	_, err = s.Sign(&claims, 1000*time.Hour)
	wantCode(t, err, CodePassLint)
}

func wantCode(t testing.TB, err error, code proviso.Code) {
	t.Helper()
	var r *proviso.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %v, want a refusal with code %s", err, code)
	}
	if r.Code != code {
		t.Errorf("code %s (%v), want %s", r.Code, err, code)
	}
	if r.Public == "" || strings.Contains(r.Public, "%!") {
		t.Errorf("public text %q", r.Public)
	}
}

// The lint reads bytes: it finds what a fault of the writer could have made of
// good claims. Each line is the finished payload, changed in one place.
func TestTheLintRefusesBytes(t *testing.T) {
	c := newClock()
	claims := testClaims(c.now())
	claims.Confirmation.JKT = testJKT
	good := string(appendClaims(nil, &claims))
	if err := lint([]byte(good), &claims, time.Hour); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"unexpected member":      {`"aud":`, `"admin":true,"aud":`},
		"unexpected at the end":  {`"}`, `","zzz":1}`},
		"member twice":           {`"aud":"https://deploy.acme.example"`, `"aud":"https://deploy.acme.example","aud":"https://deploy.acme.example"`},
		"second aud later":       {`,"scope"`, `,"aud":"https://evil.example","scope"`},
		"out of order":           {`{"act":{"sub":"spiffe://runners.acme.example/region/eu-1/runner/r-17"},"aud":"https://deploy.acme.example"`, `{"aud":"https://deploy.acme.example","act":{"sub":"spiffe://runners.acme.example/region/eu-1/runner/r-17"}`},
		"name in another case":   {`"sub":"job`, `"Sub":"job`},
		"escaped name":           {`"aud":`, `"\u0061ud":`},
		"audience list":          {`"aud":"https://deploy.acme.example"`, `"aud":["https://deploy.acme.example"]`},
		"other audience":         {`deploy.acme.example"`, `deploy.acme.exampl3"`},
		"no audience":            {`"aud":"https://deploy.acme.example",`, ``},
		"other subject":          {`"sub":"job:github:acme:61200123"`, `"sub":"job:github:acme:61200124"`},
		"exp as text":            {`"exp":1795511700`, `"exp":"1795511700"`},
		"exp as float":           {`"exp":1795511700`, `"exp":1795511700.0`},
		"exp as power":           {`"exp":1795511700`, `"exp":17955117e2`},
		"exp later":              {`"exp":1795511700`, `"exp":1795511701`},
		"exp negative":           {`"exp":1795511700`, `"exp":-1`},
		"no exp":                 {`"exp":1795511700,`, ``},
		"iat null":               {`"iat":1795510800`, `"iat":null`},
		"more scope":             {`"scope":"deploy rollback"`, `"scope":"deploy rollback admin"`},
		"less scope":             {`"scope":"deploy rollback"`, `"scope":"deploy"`},
		"scope list":             {`"scope":"deploy rollback"`, `"scope":["deploy","rollback"]`},
		"two spaces":             {`"scope":"deploy rollback"`, `"scope":"deploy  rollback"`},
		"space at the end":       {`rollback"`, `rollback "`},
		"no scope":               {`"scope":"deploy rollback",`, ``},
		"other key":              {`"jkt":"0Z`, `"jkt":"1Z`},
		"x5t in place of jkt":    {`"jkt"`, `"x5t#S256"`},
		"second member in cnf":   {`iguA4I"}`, `iguA4I","kid":"x"}`},
		"no cnf":                 {`"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},`, ``},
		"other actor":            {`runner/r-17`, `runner/r-18`},
		"nested actor":           {`r-17"}`, `r-17","act":{}}`},
		"no actor":               {`"act":{"sub":"spiffe://runners.acme.example/region/eu-1/runner/r-17"},`, ``},
		"space":                  {`,"exp"`, `, "exp"`},
		"newline at the end":     {`61200123"}`, "61200123\"}\n"},
		"second object":          {`"job:github:acme:61200123"}`, `"job:github:acme:61200123"}{}`},
		"unclosed":               {`"sub":"job:github:acme:61200123"}`, `"sub":"job:github:acme:61200123"`},
		"unclosed text":          {`"sub":"job:github:acme:61200123"}`, `"sub":"job:github:acme:61200123}`},
		"comma at the end":       {`"job:github:acme:61200123"}`, `"job:github:acme:61200123",}`},
		"unbalanced":             {`"type":"proviso_intent"}]`, `"type":"proviso_intent"}]]`},
		"a literal":              {`"jti":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11"`, `"jti":true`},
		"line break in a text":   {`"purpose":"release`, "\"purpose\":\"rel\nease"},
		"details are a text":     {`[{"action":"deploy","purpose":"release 1.2.3","type":"proviso_intent"}]`, `"[]"`},
		"proviso is a text":      {`"proviso":{`, `"proviso":"{`},
		"not UTF-8":              {`"purpose":"release`, "\"purpose\":\"rel\xffase"},
		"an array":               {`{"act"`, `[{"act"`},
		"nothing":                {good, ``},
		"empty object":           {good, `{}`},
		"only a bracket":         {good, `{`},
		"a name without a value": {good, `{"act"`},
	} {
		t.Run(name, func(t *testing.T) {
			i := strings.LastIndex(good, change[0])
			if i < 0 {
				t.Fatalf("the payload has no %s", change[0])
			}
			bad := good[:i] + change[1] + good[i+len(change[0]):]
			wantCode(t, lint([]byte(bad), &claims, time.Hour), CodePassLint)
		})
	}
}

// Every byte of the payload that has a meaning is held: no single byte can be
// changed, save inside of the members that were written word for word from the
// recorded terms.
func TestTheLintHoldsEveryByte(t *testing.T) {
	c := newClock()
	claims := testClaims(c.now())
	claims.Details, claims.Proviso = document.Value{}, document.Value{}
	claims.Confirmation.X5TS256 = testJKT
	good := appendClaims(nil, &claims)
	for i := range good {
		for _, b := range []byte{0, ' ', '"', '\\', ',', ':', '{', '}', '[', ']', '0', '9', 'a', 'Z', 0x7f, 0x80, 0xff} {
			if good[i] == b {
				continue
			}
			bad := append([]byte(nil), good...)
			bad[i] = b
			if lint(bad, &claims, time.Hour) == nil {
				t.Errorf("byte %d changed from %q to %q: %s", i, good[i], b, bad)
			}
		}
		if lint(good[:i], &claims, time.Hour) == nil {
			t.Errorf("cut off at %d", i)
		}
	}
}

// The lint's own small reader agrees with package document: what it lets
// through is canonical JSON with the same claims.
func FuzzLint(f *testing.F) {
	c := newClock()
	claims := testClaims(c.now())
	f.Add(appendClaims(nil, &claims))
	f.Add([]byte(`{"act":{"sub":"x"},"aud":[1,{"a":"}"}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if lint(payload, &claims, time.Hour) != nil {
			return
		}
		o, err := document.Parse(payload, document.Limits{})
		if err != nil {
			return // inside of authorization_details and proviso the lint believes their writer
		}
		read, err := readClaims(o)
		if err != nil {
			t.Fatalf("the verifier refuses what the lint let through: %v", err)
		}
		if read.Audience != claims.Audience || read.Subject != claims.Subject || !read.Expires.Equal(claims.Expires) || len(read.Scope) != 2 || read.Actor != claims.Actor {
			t.Fatalf("the verifier reads %+v", read)
		}
	})
}
