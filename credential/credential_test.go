package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testIssuer   = "https://proviso.acme.example"
	testAudience = "https://deploy.acme.example"
	testRunner   = "spiffe://runners.acme.example/region/eu-1/runner/r-17"
	testJKT      = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	testX5T      = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0" // RFC 8705 section 3.1
)

// world is a minter with real keys, and a real log that gives warrants.
type world struct {
	t      *testing.T
	clock  atomic.Int64 // Unix nanoseconds; the log reads it beside the test
	keys   *pass.Keyring
	ca     *Authority
	log    *audit.Log
	minter *Minter
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.set(time.Date(2026, 11, 24, 9, 0, 0, 400e6, time.UTC))
	dir := t.TempDir()
	var err error
	w.keys, err = pass.OpenKeyring(filepath.Join(dir, "keys"), pass.KeyringConfig{}, w.now)
	w.must(err)
	w.ca, err = OpenAuthority(filepath.Join(dir, "keys"), CAConfig{}, w.now)
	w.must(err)
	w.minter, err = New(Options{Issuer: testIssuer, Keys: w.keys, Authority: w.ca, Now: w.now})
	w.must(err)
	return w
}

func (w *world) now() time.Time  { return time.Unix(0, w.clock.Load()).UTC() }
func (w *world) set(t time.Time) { w.clock.Store(t.UnixNano()) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) offer(cfg Config, maxTTL time.Duration) *Offer {
	w.t.Helper()
	o, err := w.minter.Offer("deploy-production", cfg, maxTTL)
	w.must(err)
	return o
}

// warrant records terms and gives the warrant for them.
func (w *world) warrant(terms audit.Terms) *audit.Warrant {
	w.t.Helper()
	if w.log == nil {
		db, err := store.Open(w.t.TempDir())
		w.must(err)
		w.log, err = audit.Open(context.Background(), db, audit.Config{Origin: "proviso.acme.example/log", Now: w.now})
		w.must(err)
		w.t.Cleanup(func() { w.must(w.log.Close()); w.must(db.Close()) })
	}
	warrant, err := w.log.Commit(context.Background(), &audit.Entry{Decision: audit.NewDecision(w.now()), Time: w.now(), Grant: "deploy-production"}, audit.Once{Off: true}, terms)
	w.must(err)
	return warrant
}

func text(s string) document.Value { return document.StringOf(s) }

func testJob() document.Value {
	return document.ObjectOf(
		document.Member("platform", text("github")), document.Member("tenant", text("acme")), document.Member("subject", text("repo:acme/shipping:ref:refs/heads/main")),
		document.Member("repository", text("acme/shipping")), document.Member("repository_id", text("61200123")), document.Member("ref", text("refs/heads/main")),
		document.Member("branch", text("main")), document.Member("commit", text("6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11aabbccdd")), document.Member("run_id", text("9876543210")),
		document.Member("actor", text("octocat")), document.Member("environment", text("production")))
}

func testRequest() PlanRequest {
	return PlanRequest{Decision: "01KAV7Q3S5C3M4GQ4Z7Z1V2W3X", Policy: "sha256:9f86", Issuer: "github", Job: testJob(), Runner: testRunner,
		Intent: proviso.Intent{Type: proviso.IntentType, Action: "deploy", Purpose: "release 1.2.3"}}
}

func jwtConfig() Config {
	return Config{Kind: "jwt", Audience: testAudience, Scope: []string{"deploy", "rollback", "read"}}
}

func wantCode(t testing.TB, err error, code proviso.Code) {
	t.Helper()
	var r *proviso.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %v, want a refusal with code %s", err, code)
	}
	if r.Code != code || r.Stage != proviso.StageCredential {
		t.Errorf("refusal %v, want code %s", err, code)
	}
	if r.Public == "" || strings.Contains(r.Public, "%!") {
		t.Errorf("public text %q", r.Public)
	}
}

func TestTheLifetimeIsTheShortestOfAll(t *testing.T) {
	const m = time.Minute
	for name, test := range map[string]struct {
		max, asked, limit, runner time.Duration
		within                    bool
		want                      time.Duration // 0 = refused
		code                      proviso.Code
	}{
		"grant alone":                      {max: 10 * m, want: 10 * m},
		"default of a grant":               {want: 15 * m},
		"asked for less":                   {max: 10 * m, asked: 5 * m, want: 5 * m},
		"asked for more":                   {max: 10 * m, asked: 60 * m, want: 10 * m},
		"policy allows less":               {max: 10 * m, limit: 3 * m, want: 3 * m},
		"policy allows more":               {max: 10 * m, limit: 60 * m, want: 10 * m},
		"policy less than asked":           {max: 10 * m, asked: 5 * m, limit: 3 * m, want: 3 * m},
		"asked less than policy":           {max: 10 * m, asked: 2 * m, limit: 3 * m, want: 2 * m},
		"runner's evidence ends":           {max: 10 * m, runner: 4 * m, within: true, want: 4 * m},
		"runner's evidence is long":        {max: 10 * m, runner: 40 * m, within: true, want: 10 * m},
		"runner's evidence, not in grant":  {max: 10 * m, runner: 4 * m, want: 10 * m},
		"fractions are cut":                {max: 10*m + 700*time.Millisecond, want: 10 * m},
		"runner's evidence is over":        {max: 10 * m, runner: -m, within: true, code: proviso.CodeTokenLifetime},
		"runner's evidence is almost over": {max: 10 * m, runner: 300 * time.Millisecond, within: true, code: proviso.CodeTokenLifetime},
		"no runner":                        {max: 10 * m, within: true, code: proviso.CodeConstraintRequired},
		"negative wish":                    {max: 10 * m, asked: -m, code: proviso.CodeTTLOutOfRange},
		"negative limit":                   {max: 10 * m, limit: -m, code: proviso.CodeTTLOutOfRange},
		"policy leaves less than 1 s":      {max: 10 * m, limit: time.Millisecond, code: proviso.CodeTokenLifetime},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := jwtConfig()
			if test.within {
				cfg.Within = []string{"runner"}
			}
			r := testRequest()
			r.AskedTTL, r.LimitTTL = test.asked, test.limit
			if test.runner == 0 {
				r.Runner = ""
			} else {
				r.RunnerExpires = w.now().Add(test.runner)
			}
			terms, err := w.offer(cfg, test.max).Plan(context.Background(), r)
			if test.code != "" {
				wantCode(t, err, test.code)
				return
			}
			w.must(err)
			// Whole seconds may cost up to one; never do they give any.
			if got := terms.TTL(); got > test.want || got < test.want-time.Second {
				t.Errorf("lifetime %v, want %v", got, test.want)
			}
			if terms.Expires.After(w.now().Add(test.want)) {
				t.Errorf("it expires %v after now", terms.Expires.Sub(w.now()))
			}
		})
	}
}

func TestTheScopeIsOnlyEverNarrowed(t *testing.T) {
	for name, test := range map[string]struct {
		grant, asked, limit []string
		want                string
		code                proviso.Code
	}{
		"all of the grant":             {grant: []string{"deploy", "read"}, want: "deploy read"},
		"less":                         {grant: []string{"deploy", "read"}, asked: []string{"read"}, want: "read"},
		"in the grant's order, once":   {grant: []string{"deploy", "read"}, asked: []string{"read", "deploy", "read"}, want: "deploy read"},
		"policy cuts":                  {grant: []string{"deploy", "read"}, limit: []string{"read"}, want: "read"},
		"policy can't add":             {grant: []string{"read"}, limit: []string{"read", "admin"}, want: "read"},
		"policy cuts what was asked":   {grant: []string{"deploy", "read"}, asked: []string{"deploy", "read"}, limit: []string{"read"}, want: "read"},
		"none in the grant":            {want: ""},
		"policy limits none":           {limit: []string{"x"}, want: ""},
		"more than the grant has":      {grant: []string{"read"}, asked: []string{"read", "admin"}, code: proviso.CodeScopeNotAllowed},
		"the grant has none":           {asked: []string{"read"}, code: proviso.CodeScopeNotAllowed},
		"in another case":              {grant: []string{"read"}, asked: []string{"Read"}, code: proviso.CodeScopeNotAllowed},
		"policy allows nothing":        {grant: []string{"read"}, limit: []string{}, code: proviso.CodeScopeNotAllowed},
		"policy allows another":        {grant: []string{"read"}, limit: []string{"deploy"}, code: proviso.CodeScopeNotAllowed},
		"policy cuts all that's asked": {grant: []string{"deploy", "read"}, asked: []string{"deploy"}, limit: []string{"read"}, code: proviso.CodeScopeNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := jwtConfig()
			cfg.Scope = test.grant
			r := testRequest()
			r.AskedScope, r.LimitScope = test.asked, test.limit
			terms, err := w.offer(cfg, 0).Plan(context.Background(), r)
			if test.code != "" {
				wantCode(t, err, test.code)
				return
			}
			w.must(err)
			if got := strings.Join(terms.Scope, " "); got != test.want {
				t.Errorf("scope %q, want %q", got, test.want)
			}
			if !slices.Equal(terms.ScopeAsked, test.asked) {
				t.Errorf("the terms say %q was asked", terms.ScopeAsked)
			}
		})
	}
}

func TestTheTokenIsBoundAsTheGrantSays(t *testing.T) {
	dpop, mtls, both := pass.Confirmation{JKT: testJKT}, pass.Confirmation{X5TS256: testX5T}, pass.Confirmation{JKT: testJKT, X5TS256: testX5T}
	for _, test := range []struct {
		binding string
		proved  pass.Confirmation
		want    pass.Confirmation
		refused bool
	}{
		{"", pass.Confirmation{}, pass.Confirmation{}, false},
		{"", dpop, dpop, false},
		{"", mtls, pass.Confirmation{}, false},
		{"offered", both, dpop, false},
		{"dpop", dpop, dpop, false},
		{"dpop", both, dpop, false},
		{"dpop", mtls, pass.Confirmation{}, true},
		{"dpop", pass.Confirmation{}, pass.Confirmation{}, true},
		{"mtls", mtls, mtls, false},
		{"mtls", both, mtls, false},
		{"mtls", dpop, pass.Confirmation{}, true},
		{"mtls", pass.Confirmation{}, pass.Confirmation{}, true},
		{"any", dpop, dpop, false},
		{"any", mtls, mtls, false},
		{"any", both, dpop, false},
		{"any", pass.Confirmation{}, pass.Confirmation{}, true},
	} {
		t.Run(fmt.Sprintf("%s %+v", test.binding, test.proved), func(t *testing.T) {
			w := newWorld(t)
			cfg := jwtConfig()
			cfg.Binding = test.binding
			r := testRequest()
			r.Holder = test.proved
			terms, err := w.offer(cfg, 0).Plan(context.Background(), r)
			if test.refused {
				wantCode(t, err, proviso.CodeConstraintRequired)
				return
			}
			w.must(err)
			if got := (pass.Confirmation{JKT: terms.JKT, X5TS256: terms.X5T}); got != test.want {
				t.Errorf("bound to %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestATokenIsWhatItsWarrantSays(t *testing.T) {
	w := newWorld(t)
	for _, alg := range []string{"", "EdDSA"} {
		cfg := jwtConfig()
		cfg.Algorithm = alg
		o := w.offer(cfg, 10*time.Minute)
		r := testRequest()
		r.AskedScope, r.Holder.JKT = []string{"deploy"}, testJKT
		terms, err := o.Plan(context.Background(), r)
		w.must(err)
		if len(terms.ID) != 32 || terms.Kind != "jwt" || terms.Audience != testAudience || terms.Subject != "job:github:acme:61200123" {
			t.Errorf("terms %+v", terms)
		}
		c, err := o.Mint(context.Background(), w.warrant(terms), Material{})
		w.must(err)
		v, err := pass.NewVerifier(pass.VerifierConfig{Issuer: testIssuer, Keys: w.keys.Key, Now: w.now})
		w.must(err)
		a, err := v.Inspect(context.Background(), c.Reveal())
		w.must(err)
		got := a.Claims()
		if got.ID != terms.ID || got.Subject != terms.Subject || got.ClientID != terms.Subject || got.Audience != testAudience || got.Issuer != testIssuer ||
			!got.Expires.Equal(terms.Expires) || !got.IssuedAt.Equal(terms.NotBefore) || got.Confirmation.JKT != testJKT || got.Actor != testRunner || !slices.Equal(got.Scope, []string{"deploy"}) {
			t.Errorf("claims %+v", got)
		}
		if got, want := got.Proviso.String(), `{"commit":"6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11aabbccdd","decision":"01KAV7Q3S5C3M4GQ4Z7Z1V2W3X","environment":"production",`+
			`"grant":"deploy-production","issuer":"github","policy":"sha256:9f86","ref":"refs/heads/main","repository":"acme/shipping","repository_id":"61200123","run_id":"9876543210","tenant":"acme"}`; got != want {
			t.Errorf("proviso %s", got)
		}
		if got, want := got.Details.String(), `[{"action":"deploy","purpose":"release 1.2.3","type":"proviso_intent"}]`; got != want {
			t.Errorf("authorization_details %s", got)
		}
		if c.TokenType != "DPoP" || c.IssuedTokenType != proviso.TokenTypeAccessToken || c.Info.ID != terms.ID || c.Info.Audience != testAudience ||
			c.Info.Expires != terms.Expires.Unix() || c.ExpiresIn(w.now()) != 600 || c.ExpiresIn(w.now().Add(time.Hour)) != 0 || c.Details.String() != got.Details.String() {
			t.Errorf("credential %+v", c)
		}
	}
}

func TestAWarrantGivesOneCredential(t *testing.T) {
	w := newWorld(t)
	o := w.offer(jwtConfig(), 0)
	terms, err := o.Plan(context.Background(), testRequest())
	w.must(err)
	warrant := w.warrant(terms)
	_, err = o.Mint(context.Background(), warrant, Material{})
	w.must(err)
	_, err = o.Mint(context.Background(), warrant, Material{})
	wantCode(t, err, CodeTermsMismatch)
	for name, none := range map[string]*audit.Warrant{"nil": nil, "zero": {}} {
		_, err = o.Mint(context.Background(), none, Material{})
		if err == nil {
			t.Errorf("a credential for the %s warrant", name)
		}
	}
}

// The terms were recorded; minting holds itself to them and to its own grant.
func TestTermsOfAnotherMakeAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(t *audit.Terms){
		"another kind":           func(t *audit.Terms) { t.Kind = "x509" },
		"another audience":       func(t *audit.Terms) { t.Audience = "https://other.example" },
		"longer than the grant":  func(t *audit.Terms) { t.Expires = t.Expires.Add(2 * time.Hour) },
		"a scope beyond":         func(t *audit.Terms) { t.Scope = []string{"deploy", "admin"} },
		"bound to two keys":      func(t *audit.Terms) { t.JKT, t.X5T = testJKT, testX5T },
		"bound to no thumbprint": func(t *audit.Terms) { t.JKT = "x" },
		"no subject":             func(t *audit.Terms) { t.Subject = "" },
		"an actor that is none": func(t *audit.Terms) {
			t.Claims = t.Claims.With(document.Member("act", document.ObjectOf(document.Member("sub", text("x")))))
		},
		"issued long ago, lives long": func(t *audit.Terms) { t.NotBefore = t.NotBefore.Add(-time.Hour) },
		"a certificate's members":     func(t *audit.Terms) { t.Names = []string{"uri:spiffe://x/y"} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			o := w.offer(jwtConfig(), time.Minute*10)
			terms, err := o.Plan(context.Background(), testRequest())
			w.must(err)
			spoil(&terms)
			c, err := o.Mint(context.Background(), w.warrant(terms), Material{})
			var r *proviso.Refusal
			if !errors.As(err, &r) || r.Code != CodeTermsMismatch && r.Code != pass.CodePassLint || c.Reveal() != "" {
				t.Errorf("minted %v, %v", c, err)
			}
		})
	}
}

func TestAWarrantThatRanOutMintsNothing(t *testing.T) {
	w := newWorld(t)
	o := w.offer(jwtConfig(), time.Minute)
	terms, err := o.Plan(context.Background(), testRequest())
	w.must(err)
	warrant := w.warrant(terms)
	w.set(w.now().Add(time.Minute))
	_, err = o.Mint(context.Background(), warrant, Material{})
	wantCode(t, err, CodeTermsMismatch)
}

func TestTheSubjectIsStableAndUnambiguous(t *testing.T) {
	job := func(pairs ...string) document.Value {
		var fields []document.Field
		for i := 0; i < len(pairs); i += 2 {
			fields = append(fields, document.Member(pairs[i], text(pairs[i+1])))
		}
		return document.ObjectOf(fields...)
	}
	for _, test := range []struct {
		template string
		issuer   string
		job      document.Value
		want     string // "" = refused
	}{
		{"", "github", testJob(), "job:github:acme:61200123"},
		{"", "ghes", testJob(), "job:ghes:acme:61200123"},
		{"", "github", job("repository_id", "1"), "job:github:-:1"},
		{"", "github", job("tenant", "-", "repository_id", "1"), "job:github:%2D:1"},
		{"", "jenkins", job("tenant", "acme", "repository", "https://ci.acme/job/a b/"), "job:jenkins:acme:name:https%3A//ci.acme/job/a%20b/"},
		{"", "gitlab", job("tenant", "a:b", "repository_id", "1"), "job:gitlab:a%3Ab:1"},
		{"", "gitlab", job("tenant", "acme", "repository", "1"), "job:gitlab:acme:name:1"}, // a name can't pass for an id
		{"", "bitbucket", job("tenant", "acme", "repository_id", "{8b0c}"), "job:bitbucket:acme:%7B8b0c%7D"},
		{"", "x", job("tenant", "ünï", "repository_id", "1"), "job:x:%C3%BCn%C3%AF:1"},
		{"", "x", job("tenant", "acme", "repository_id", "*"), "job:x:acme:%2A"},
		{"", "google", job("tenant", "acme", "subject", "1234567890"), ""}, // never from the raw subject by itself
		{"", "x", job("tenant", strings.Repeat("é", 50), "repository_id", "1"), ""},
		{"job:{issuer}:{tenant}:{subject}", "google", job("tenant", "acme", "subject", "1234567890"), "job:google:acme:1234567890"},
		{"grant:{grant}", "github", testJob(), "grant:deploy-production"},
		{"{issuer}:{repository_id}:env:{environment}", "github", testJob(), "github:61200123:env:production"},
		{"{issuer}:{repository_id}:env:{environment}", "github", job("repository_id", "1"), ""},
		{"{issuer}:{repository_id}:env:{environment}", "github", job("repository_id", "1", "environment", "a:env:production"), "github:1:env:a%3Aenv%3Aproduction"},
		{"{runner}@{issuer}", "github", testJob(), "spiffe%3A//runners.acme.example/region/eu-1/runner/r-17@github"},
	} {
		w := newWorld(t)
		cfg := jwtConfig()
		cfg.Subject = test.template
		r := testRequest()
		r.Issuer, r.Job = test.issuer, test.job
		terms, err := w.offer(cfg, 0).Plan(context.Background(), r)
		if test.want == "" {
			wantCode(t, err, proviso.CodeTemplateValue)
			continue
		}
		w.must(err)
		if terms.Subject != test.want {
			t.Errorf("%s: subject %q, want %q", test.template, terms.Subject, test.want)
		}
	}
}

func TestWhatIsAbsentIsNotInTheToken(t *testing.T) {
	w := newWorld(t)
	r := testRequest()
	r.Runner, r.Intent, r.Policy = "", proviso.Intent{Type: proviso.IntentType}, ""
	terms, err := w.offer(jwtConfig(), 0).Plan(context.Background(), r)
	w.must(err)
	if !terms.Claims.Get("act").IsAbsent() || !terms.Claims.Get("authorization_details").IsAbsent() || !terms.Claims.At("proviso", "policy").IsAbsent() {
		t.Errorf("claims %s", terms.Claims)
	}
	if terms.Claims.String() == "" || !terms.Claims.At("proviso", "actor").IsAbsent() {
		t.Errorf("claims %s: a person's name has no place in a token", terms.Claims)
	}
}

func TestATokenGrantTakesNoCSR(t *testing.T) {
	w := newWorld(t)
	r := testRequest()
	r.CSR = []byte("x")
	_, err := w.offer(jwtConfig(), 0).Plan(context.Background(), r)
	wantCode(t, err, proviso.CodeCSRRejected)
}

func TestNothingPrintsTheSecret(t *testing.T) {
	w := newWorld(t)
	o := w.offer(jwtConfig(), 0)
	terms, err := o.Plan(context.Background(), testRequest())
	w.must(err)
	c, err := o.Mint(context.Background(), w.warrant(terms), Material{})
	w.must(err)
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("minted", "credential", c, "pointer", &c)
	encoded, _ := json.Marshal(c)
	inside, _ := json.Marshal(struct{ C Credential }{c})
	for _, out := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c, c), fmt.Sprintf("%v %+v", &c, &c), logged.String(), string(encoded), string(inside)} {
		if secret := strings.Split(c.Reveal(), ".")[2]; strings.Contains(out, secret) {
			t.Errorf("the token is in %q", out)
		}
	}
}

func TestConfigProblems(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, test := range map[string]struct {
		cfg   Config
		paths string
	}{
		"a token":                    {jwtConfig(), ""},
		"a token with everything":    {Config{Kind: "jwt", Audience: "a", Algorithm: "EdDSA", Subject: "x:{grant}", Binding: "any", Within: []string{"runner"}}, ""},
		"a certificate":              {Config{Kind: "x509", URI: "spiffe://acme.example/job/{issuer}/{repository_id}"}, ""},
		"a certificate by DNS":       {Config{Kind: "x509", DNS: "{grant}.jobs.acme.example", CommonName: "{grant}"}, ""},
		"nothing":                    {Config{}, "kind"},
		"an unknown kind":            {Config{Kind: "ssh"}, "kind"},
		"kind in capitals":           {Config{Kind: "JWT", Audience: "a"}, "kind"},
		"no audience":                {Config{Kind: "jwt"}, "audience"},
		"long audience":              {Config{Kind: "jwt", Audience: long}, "audience"},
		"two audiences":              {Config{Kind: "jwt", Audience: "a b"}, "audience"},
		"scope with space":           {Config{Kind: "jwt", Audience: "a", Scope: []string{"ok", "a b"}}, "scope[1]"},
		"scope twice":                {Config{Kind: "jwt", Audience: "a", Scope: []string{"ok", "ok"}}, "scope[1]"},
		"empty scope":                {Config{Kind: "jwt", Audience: "a", Scope: []string{""}}, "scope[0]"},
		"algorithm":                  {Config{Kind: "jwt", Audience: "a", Algorithm: "RS256"}, "algorithm"},
		"binding":                    {Config{Kind: "jwt", Audience: "a", Binding: "none"}, "binding"},
		"within":                     {Config{Kind: "jwt", Audience: "a", Within: []string{"runner", "moon"}}, "within[1]"},
		"subject: unknown value":     {Config{Kind: "jwt", Audience: "a", Subject: "{annotation}"}, "subject"},
		"subject: actor":             {Config{Kind: "jwt", Audience: "a", Subject: "{issuer}:{actor}"}, "subject"},
		"subject: without issuer":    {Config{Kind: "jwt", Audience: "a", Subject: "job:{repository_id}"}, "subject"},
		"subject: raw subject":       {Config{Kind: "jwt", Audience: "a", Subject: "{subject}"}, "subject"},
		"subject: side by side":      {Config{Kind: "jwt", Audience: "a", Subject: "{issuer}{repository_id}"}, "subject"},
		"subject: open brace":        {Config{Kind: "jwt", Audience: "a", Subject: "job:{issuer"}, "subject"},
		"subject: close brace":       {Config{Kind: "jwt", Audience: "a", Subject: "job:issuer}"}, "subject"},
		"subject: braces crossed":    {Config{Kind: "jwt", Audience: "a", Subject: "}{"}, "subject"},
		"subject: space":             {Config{Kind: "jwt", Audience: "a", Subject: "a b"}, "subject"},
		"subject: wildcard":          {Config{Kind: "jwt", Audience: "a", Subject: "job:*:{grant}"}, "subject"},
		"subject: percent":           {Config{Kind: "jwt", Audience: "a", Subject: "job:%3A{grant}"}, "subject"},
		"jwt with a name":            {Config{Kind: "jwt", Audience: "a", URI: "spiffe://a/b"}, "uri"},
		"certificate with audience":  {Config{Kind: "x509", Audience: "a", Scope: []string{"x"}, URI: "spiffe://acme.example/x"}, "audience scope"},
		"certificate with binding":   {Config{Kind: "x509", Binding: "dpop", Subject: "x", Algorithm: "ES256", URI: "spiffe://acme.example/x"}, "algorithm subject binding"},
		"certificate without name":   {Config{Kind: "x509"}, "uri"},
		"certificate with two names": {Config{Kind: "x509", URI: "spiffe://a/b", DNS: "a.b"}, "uri"},
		"uri: no path":               {Config{Kind: "x509", URI: "spiffe://acme.example"}, "uri"},
		"uri: empty path":            {Config{Kind: "x509", URI: "spiffe://acme.example/"}, "uri"},
		"uri: value as host":         {Config{Kind: "x509", URI: "spiffe://{tenant}/{issuer}"}, "uri"},
		"uri: value in host":         {Config{Kind: "x509", URI: "spiffe://{grant}.acme.example/x"}, "uri"},
		"uri: host in capitals":      {Config{Kind: "x509", URI: "spiffe://Acme.example/x"}, "uri"},
		"uri: port":                  {Config{Kind: "x509", URI: "spiffe://acme.example:1/x"}, "uri"},
		"uri: user":                  {Config{Kind: "x509", URI: "spiffe://u@acme.example/x"}, "uri"},
		"uri: query":                 {Config{Kind: "x509", URI: "spiffe://acme.example/x?{grant}"}, "uri"},
		"uri: fragment":              {Config{Kind: "x509", URI: "spiffe://acme.example/x#y"}, "uri"},
		"uri: dots":                  {Config{Kind: "x509", URI: "spiffe://acme.example/../{grant}"}, "uri"},
		"uri: double slash":          {Config{Kind: "x509", URI: "spiffe://acme.example//{grant}"}, "uri"},
		"uri: slash at the end":      {Config{Kind: "x509", URI: "spiffe://acme.example/{grant}/"}, "uri"},
		"uri: escape":                {Config{Kind: "x509", URI: "spiffe://acme.example/%41/{grant}"}, "uri"},
		"uri: opaque":                {Config{Kind: "x509", URI: "urn:x:{grant}"}, "uri"},
		"uri: relative":              {Config{Kind: "x509", URI: "/x/{grant}"}, "uri"},
		"uri: without issuer":        {Config{Kind: "x509", URI: "spiffe://acme.example/{tenant}"}, "uri"},
		"dns: one label":             {Config{Kind: "x509", DNS: "{grant}"}, "dns"},
		"dns: wildcard":              {Config{Kind: "x509", DNS: "*.acme.example"}, "dns"},
		"dns: capitals":              {Config{Kind: "x509", DNS: "{grant}.Acme.example"}, "dns"},
		"dns: empty label":           {Config{Kind: "x509", DNS: "{grant}..example"}, "dns"},
		"dns: dash":                  {Config{Kind: "x509", DNS: "-{grant}.example"}, "dns"},
		"common name: comma":         {Config{Kind: "x509", DNS: "a.b", CommonName: "a,b"}, "common_name"},
		"common name: long":          {Config{Kind: "x509", DNS: "a.b", CommonName: strings.Repeat("x", 65)}, "common_name"},
	} {
		var paths []string
		for _, p := range test.cfg.Validate() {
			paths = append(paths, p.Path)
			if p.Message == "" || strings.Contains(p.Message, "%!") {
				t.Errorf("%s: message %q", name, p.Message)
			}
		}
		if got := strings.Join(paths, " "); got != test.paths {
			t.Errorf("%s: problems at %q, want %q", name, got, test.paths)
		}
	}
}

func TestAnOfferNeedsWhatItsKindNeeds(t *testing.T) {
	w := newWorld(t)
	bare, err := New(Options{Issuer: testIssuer})
	w.must(err)
	certificate := Config{Kind: "x509", URI: "spiffe://acme.example/{grant}"}
	for name, err := range map[string]error{
		"no keys":      second(bare.Offer("g", jwtConfig(), 0)),
		"no authority": second(bare.Offer("g", certificate, 0)),
		"bad config":   second(w.minter.Offer("g", Config{}, 0)),
		"ttl too long": second(w.minter.Offer("g", jwtConfig(), 25*time.Hour)),
		"ttl negative": second(w.minter.Offer("g", jwtConfig(), -time.Minute)),
		"ttl tiny":     second(w.minter.Offer("g", jwtConfig(), time.Millisecond)),
		"no issuer":    second(New(Options{})),
	} {
		if err == nil {
			t.Errorf("%s: an offer was made", name)
		} else if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := w.offer(certificate, 0).Kind(); got != "x509" {
		t.Errorf("kind %q", got)
	}
}

func second[T any](_ T, err error) error { return err }
