package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// TestClaimRefusals edits one thing of a good GitHub token and wants exactly one
// refusal.
func TestClaimRefusals(t *testing.T) {
	v := newVerifier(t, confs()["github"])
	good := example(t, "github")
	year := 365 * 24 * 3600
	for _, tc := range []struct {
		name string
		edit []any
		code proviso.Code
		says string // part of the public text
	}{
		{"good", nil, "", ""},
		{"no exp", []any{"exp", nil}, proviso.CodeExpMissing, "never expire"},
		{"exp as text", []any{"exp", "1795426500"}, proviso.CodeExpInvalid, "exp"},
		{"exp with a fraction", []any{"exp", 1795426500.5}, proviso.CodeExpInvalid, "exp"},
		{"exp far away", []any{"exp", 9_000_000_000_000}, proviso.CodeExpInvalid, "exp"},
		{"expired a second ago", []any{"exp", made + 29}, proviso.CodeTokenExpired, "1s ago"},
		{"expires this second", []any{"exp", made + 30}, proviso.CodeTokenExpired, "0s ago"},
		{"expires next second", []any{"exp", made + 31}, "", ""},
		{"no iat", []any{"iat", nil}, proviso.CodeIatMissing, "iat"},
		{"iat as text", []any{"iat", "1795426200"}, proviso.CodeClaimType, "iat"},
		{"iat null", []any{"iat", document.Value{}}, proviso.CodeClaimType, "iat"},
		{"iat at the edge of the skew", []any{"iat", made + 90}, "", ""},
		{"iat beyond the skew", []any{"iat", made + 91}, proviso.CodeIatFuture, "1m1s ahead"},
		{"nbf ten minutes back, as GitHub has it", []any{"nbf", made - 600}, "", ""},
		{"no nbf", []any{"nbf", nil}, "", ""},
		{"nbf at the edge of the skew", []any{"nbf", made + 90}, "", ""},
		{"nbf beyond the skew", []any{"nbf", made + 91}, proviso.CodeNbfFuture, "in 1m1s"},
		{"a year to live", []any{"exp", made + year}, proviso.CodeTokenLifetime, "1h0m0s"},
		{"expires before it was made", []any{"iat", made + 60, "exp", made + 50}, proviso.CodeTokenLifetime, "lives for"},
		{"ten minutes old", []any{"iat", made + 30 - 600, "exp", made + 60}, "", ""},
		{"older than max_age", []any{"iat", made + 30 - 601, "exp", made + 60}, CodeTokenTooOld, "10m0s (max_age)"},

		{"no aud", []any{"aud", nil}, proviso.CodeAudMissing, "&audience=" + broker},
		{"empty aud", []any{"aud", ""}, proviso.CodeAudMissing, "no aud"},
		{"null aud", []any{"aud", document.Value{}}, proviso.CodeAudMissing, "no aud"},
		{"empty list", []any{"aud", []string{}}, proviso.CodeAudMissing, "no aud"},
		{"another aud", []any{"aud", "sts.amazonaws.com"}, proviso.CodeAudMismatch, `is "sts.amazonaws.com", and must be "` + broker + `"`},
		{"aud with a slash more", []any{"aud", broker + "/"}, proviso.CodeAudMismatch, ""},
		{"aud in upper case", []any{"aud", strings.ToUpper(broker)}, proviso.CodeAudMismatch, ""},
		{"one in a list", []any{"aud", []string{broker}}, "", ""},
		{"two", []any{"aud", []string{broker, "sts.amazonaws.com"}}, proviso.CodeAudMultiple, "2 audiences"},
		{"twice the same", []any{"aud", []string{broker, broker}}, proviso.CodeAudMultiple, "2 audiences"},
		{"aud a number", []any{"aud", 7}, proviso.CodeAudInvalid, "must be one text"},
		{"aud an object", []any{"aud", map[string]any{broker: true}}, proviso.CodeAudInvalid, ""},
		{"a number in the list", []any{"aud", []any{broker, 7}}, proviso.CodeAudInvalid, ""},

		{"no run_id", []any{"run_id", nil}, CodeNotAJob, "run_id"},
		{"empty run_id", []any{"run_id", ""}, CodeNotAJob, "run_id"},
		{"run_id null", []any{"run_id", document.Value{}}, CodeNotAJob, "run_id"},

		{"another tenant", []any{"repository_owner_id", "999"}, CodeClaimMismatch, `repository_owner_id is "999"`},
		{"the tenant as a number", []any{"repository_owner_id", 61200123}, "", ""},
		{"the tenant as a fraction", []any{"repository_owner_id", 61200123.5}, CodeClaimMismatch, ""},
		{"the tenant in a list", []any{"repository_owner_id", []string{"61200123"}}, CodeClaimMismatch, "a list"},
		{"no tenant", []any{"repository_owner_id", nil}, CodeClaimMissing, "repository_owner_id"},

		{"no sub", []any{"sub", nil}, proviso.CodeSubInvalid, "absent"},
		{"empty sub", []any{"sub", ""}, proviso.CodeSubInvalid, ""},
		{"sub a number", []any{"sub", 7}, proviso.CodeSubInvalid, ""},
		{"sub with a line break", []any{"sub", "repo:a/b:x\nadmin"}, proviso.CodeSubInvalid, `\nadmin`},

		{"no jti", []any{"jti", nil}, proviso.CodeJTIMissing, "jti"},
		{"empty jti", []any{"jti", ""}, proviso.CodeJTIMissing, "jti"},
		{"jti a number", []any{"jti", 7}, proviso.CodeJTIInvalid, "jti"},
		{"jti with a control character", []any{"jti", "a\x1b[2Jb"}, proviso.CodeJTIInvalid, "jti"},

		{"no repository_id", []any{"repository_id", nil}, CodeClaimMissing, "repository_id"},
		{"no event", []any{"event_name", nil}, CodeClaimMissing, "event_name"},
		{"an event in another case", []any{"event_name", "Push"}, CodeEventNotAllowed, `"Push"; this broker takes jobs started by push, schedule, workflow_dispatch`},
		{"issue comment", []any{"event_name", "issue_comment"}, CodeEventNotAllowed, ""},
		{"workflow_run", []any{"event_name", "workflow_run"}, CodeEventNotAllowed, ""},

		{"a push with a head_ref", []any{"head_ref", "patch-1"}, proviso.CodeClaimsInconsistent, "head_ref"},
		{"a push with a base_ref", []any{"base_ref", "main"}, proviso.CodeClaimsInconsistent, "base_ref"},
		{"a push of a pull request's reference", []any{"ref", "refs/pull/1/merge"}, proviso.CodeClaimsInconsistent, "event_name"},
		{"a branch that is a tag", []any{"ref", "refs/tags/v1"}, proviso.CodeClaimsInconsistent, "ref_type"},
		{"another owner's repository", []any{"repository", "mallory/shipping-service", "sub", "x"}, proviso.CodeClaimsInconsistent, "repository_owner"},
		{"sub names another repository", []any{"sub", "repo:acme-ship/other:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent, "sub"},
		{"sub names a longer repository", []any{"sub", "repo:acme-ship/shipping-service-2:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent, "sub"},
		{"sub with other ids", []any{"sub", "repo:acme-ship@61200123/shipping-service@1:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent, "sub"},
		{"a customised sub", []any{"sub", "repository_id:741200456:environment:production"}, "", ""},
		{"a customised sub that only begins alike", []any{"sub", "repository_owner:mallory"}, "", ""},

		{"bound to a key", []any{"cnf", map[string]any{"jkt": strings.Repeat("a", 43)}}, "", ""},
		{"bound to a key of unknown kind", []any{"cnf", map[string]any{"x5t#S256": strings.Repeat("a", 43)}}, proviso.CodeClaimType, "cnf"},
		{"bound to two keys", []any{"cnf", map[string]any{"jkt": strings.Repeat("a", 43), "kid": "k"}}, proviso.CodeClaimType, "cnf"},
		{"bound to nothing", []any{"cnf", document.Value{}}, proviso.CodeClaimType, "cnf"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			job, err := verify(t, v, good.with(tc.edit...))
			wantCode(t, job, err, tc.code)
			if err != nil && !strings.Contains(public(err), tc.says) {
				t.Errorf("public text %q lacks %q", public(err), tc.says)
			}
		})
	}
}

// TestNothingUnverifiedIsRepeated: until the signature holds, a refusal quotes
// nothing of the payload, whatever stage it comes from.
func TestNothingUnverifiedIsRepeated(t *testing.T) {
	v := newVerifier(t, confs()["github"])
	const canary = "canary7f3a"
	forged := example(t, "github").with("repository", canary, "sub", canary, "aud", canary, canary, canary)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(key crypto.Signer, kid, typ string, c claimSet) string {
		s, err := jose.Sign(key, jose.RS256, kid, typ, c.json(t))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	genuine := sign(t, forged)
	for _, tc := range []struct {
		name, token string
		code        proviso.Code
	}{
		{"unknown issuer", signed(stranger, testKID, "JWT", forged.with("iss", "https://"+canary)), proviso.CodeIssuerUnknown},
		{"issuer with a slash more", signed(stranger, testKID, "JWT", forged.with("iss", "https://token.actions.githubusercontent.com/")), proviso.CodeIssuerUnknown},
		{"issuer in upper case", signed(stranger, testKID, "JWT", forged.with("iss", "HTTPS://token.actions.githubusercontent.com")), proviso.CodeIssuerUnknown},
		{"issuer a list", signed(stranger, testKID, "JWT", forged.with("iss", []string{"https://token.actions.githubusercontent.com"})), proviso.CodeIssuerUnknown},
		{"no issuer", signed(stranger, testKID, "JWT", forged.with("iss", nil)), proviso.CodeIssuerUnknown},
		{"a stranger's key under our kid", signed(stranger, testKID, "JWT", forged), proviso.CodeJWTSignature},
		{"an unknown kid", signed(stranger, "other", "JWT", forged), proviso.CodeJWTUnknownKID},
		{"no kid", signed(stranger, "", "JWT", forged), proviso.CodeJWTKIDMissing},
		{"a DPoP proof", signed(stranger, testKID, "dpop+jwt", forged), proviso.CodeJWTTyp},
		{"an access token", signed(signer(), testKID, "at+jwt", forged), proviso.CodeJWTTyp},
		{"cut off", genuine[:len(genuine)-6], proviso.CodeJWTSignature},
		{"with a line break", genuine + "\n", proviso.CodeJWTMalformed},
		{"a megabyte", genuine + strings.Repeat("A", 1<<20), proviso.CodeLimitsTokenSize},
		{"nothing", "", proviso.CodeJWTMalformed},
		{"duplicate claim", resigned(t, `{"iss":"x","iss":"`+canary+`"}`), proviso.CodeJWTDuplicateMember},
		{"claims that differ by case", resigned(t, `{"sub":"x","SUB":"`+canary+`"}`), proviso.CodeJWTAmbiguousMember},
		{"PS256 by an RS256 key", psSigned(t, forged), proviso.CodeJWTAlgNotAllowed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			job, err := v.Verify(context.Background(), tc.token)
			wantCode(t, job, err, tc.code)
			if strings.Contains(err.Error(), canary) {
				t.Errorf("a value of an unverified token is repeated: %v", err)
			}
		})
	}
}

func resigned(t *testing.T, claims string) string { return signBytes(t, []byte(claims)) }

func psSigned(t *testing.T, c claimSet) string {
	s, err := jose.Sign(signer(), jose.PS256, testKID, "JWT", c.json(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestUnknownIssuerCostsNoConnection: the issuer of an unverified token is
// compared, never visited.
func TestUnknownIssuerCostsNoConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	visited := make(chan struct{}, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			visited <- struct{}{}
			c.Close()
		}
	}()
	v := newVerifier(t, confs()["github"])
	job, err := verify(t, v, example(t, "github").with("iss", "http://"+l.Addr().String()))
	wantCode(t, job, err, proviso.CodeIssuerUnknown)
	l.Close()
	select {
	case <-visited:
		t.Error("the broker connected to the issuer that an unverified token named")
	default:
	}
}

// TestPinsAreSilent: what would have been taken names other tenants, so it is
// not told.
func TestPinsAreSilent(t *testing.T) {
	conf := confs()["github"]
	conf.Require["repository_owner_id"] = Values{"61200123", "424242"}
	v := newVerifier(t, conf)
	_, err := verify(t, v, example(t, "github").with("repository_owner_id", "1"))
	for _, secret := range conf.Require["repository_owner_id"] {
		if strings.Contains(public(err), secret) {
			t.Errorf("the refusal names the tenant %s: %v", secret, err)
		}
	}
	job, err := verify(t, v, example(t, "github").with("repository_owner_id", "424242"))
	wantCode(t, job, err, "")
}

func TestPinPatterns(t *testing.T) {
	p := pin{values: []string{"exact", "github.com/acme/*"}}
	for value, want := range map[string]bool{
		"exact": true, "exact2": false, "github.com/acme/app": true,
		"github.com/acme": false, "github.com/acme/": false, "github.com/acme/a/b": false, "github.com/acme-evil/app": false,
		"xgithub.com/acme/app": false, "github.com/acme/..": false, "github.com/acme/.": false, "github.com/acme/*": true, "": false,
	} {
		if got := p.matches(value); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// TestReplayKeys: one token has one key however it is spelt, another token has
// another, and what two issuers call by one jti are two.
func TestReplayKeys(t *testing.T) {
	github, buildkite := confs()["github"], confs()["buildkite"]
	off := confs()["gitlab"]
	off.Replay = ReplayOff
	v := newVerifier(t, github, buildkite, off, confs()["azure-devops"])
	replay := func(c claimSet) (string, [32]byte) {
		t.Helper()
		job, err := verify(t, v, c)
		wantCode(t, job, err, "")
		return job.Replay()
	}
	gh, bk := example(t, "github"), example(t, "buildkite")

	mode, a := replay(gh)
	_, again := replay(gh.with("exp", made+200))
	_, other := replay(gh.with("jti", "another"))
	if mode != ReplayJTI || a != again || a == other {
		t.Errorf("jti mode: mode %q, the same jti gives one key %v, another gives another %v", mode, a == again, a != other)
	}
	if _, other := replay(example(t, "azure-devops").with("jti", gh["jti"])); a == other {
		t.Error("two issuers' tokens with one jti are taken for one token")
	}
	mode, b := replay(bk)
	_, again = replay(bk)
	_, other = replay(bk.with("jti", "7d0f6d0e-2c53-4f0c-9a2d-5b1b8b0c9f3e", "iat", made+1))
	if mode != ReplayToken || b != again || b == other || b == a {
		t.Errorf("token mode: mode %q, %v %v %v", mode, b == again, b != other, b != a)
	}
	if mode, key := replay(example(t, "gitlab")); mode != ReplayOff || key != [32]byte{} {
		t.Errorf("off: mode %q, key %x", mode, key)
	}
	job, _ := verify(t, v, gh)
	if job.JTI() != gh["jti"] || job.Issuer() != "github" || len(job.TokenHash()) != 64 || !job.IssuedAt().Equal(time.Unix(made, 0)) ||
		!job.Expires().Equal(time.Unix(made+300, 0)) || job.Confirmation() != "" {
		t.Errorf("job: %q %q %q %v %v %q", job.JTI(), job.Issuer(), job.TokenHash(), job.IssuedAt(), job.Expires(), job.Confirmation())
	}
}

// TestTokenModeIgnoresTheSignature: a valid ECDSA token has a second valid
// signature; both are one token.
func TestTokenModeIgnoresTheSignature(t *testing.T) {
	v := newVerifier(t, confs()["buildkite"])
	compact := sign(t, example(t, "buildkite"))
	one, err := v.Verify(context.Background(), compact)
	if err != nil {
		t.Fatal(err)
	}
	head := compact[:strings.LastIndexByte(compact, '.')+1]
	tok, err := jose.Parse(head+base64.RawURLEncoding.EncodeToString(make([]byte, 256)), profile)
	if err != nil {
		t.Fatal(err)
	}
	two, err := v.issuers["https://agent.buildkite.com"].admit(tok, clock())
	if err != nil {
		t.Fatal(err)
	}
	_, a := one.Replay()
	_, b := two.Replay()
	if a != b || one.TokenHash() != two.TokenHash() {
		t.Error("the replay key depends on the signature's bytes")
	}
}

func TestConfirmation(t *testing.T) {
	v := newVerifier(t, confs()["github"])
	jkt := "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	job, err := verify(t, v, example(t, "github").with("cnf", map[string]any{"jkt": jkt}))
	wantCode(t, job, err, "")
	if job.Confirmation() != jkt {
		t.Errorf("confirmation %q", job.Confirmation())
	}
}

// TestKeyedAudience: a job may ask for a token that is worth nothing without the
// proof of a key. That is so where jobs choose the audience, and for this broker.
func TestKeyedAudience(t *testing.T) {
	jkt, other := strings.Repeat("a", 42)+"E", strings.Repeat("b", 42)+"E"
	v := newVerifier(t, confs()["github"], confs()["azure-devops"])
	for _, tc := range []struct {
		name, platform string
		edit           []any
		code           proviso.Code
		key            string
	}{
		{"a key", "github", []any{"aud", proviso.KeyedAudience(broker, jkt)}, "", jkt},
		{"the same key twice", "github", []any{"aud", proviso.KeyedAudience(broker, jkt), "cnf", map[string]any{"jkt": jkt}}, "", jkt},
		{"two keys", "github", []any{"aud", proviso.KeyedAudience(broker, jkt), "cnf", map[string]any{"jkt": other}}, proviso.CodeCnfMismatch, ""},
		{"another broker's", "github", []any{"aud", proviso.KeyedAudience(broker+".evil.example", jkt)}, proviso.CodeAudMismatch, ""},
		{"no thumbprint", "github", []any{"aud", proviso.KeyedAudience(broker, "")}, proviso.CodeAudMismatch, ""},
		{"a short thumbprint", "github", []any{"aud", proviso.KeyedAudience(broker, jkt[1:])}, proviso.CodeAudMismatch, ""},
		{"a thumbprint in another spelling", "github", []any{"aud", proviso.KeyedAudience(broker, jkt[:42]+"F")}, proviso.CodeAudMismatch, ""},
		{"where the platform chooses", "azure-devops", []any{"aud", proviso.KeyedAudience("api://AzureADTokenExchange", jkt)}, proviso.CodeAudMismatch, ""},
		{"this broker's, where the platform chooses", "azure-devops", []any{"aud", proviso.KeyedAudience(broker, jkt)}, proviso.CodeAudMismatch, ""},
	} {
		job, err := verify(t, v, example(t, tc.platform).with(tc.edit...))
		if codeOf(t, job, err) != tc.code || job.Confirmation() != tc.key {
			t.Errorf("%s: bound to %q, %v", tc.name, job.Confirmation(), err)
		}
	}
}

// TestAzureRepositories: what isn't an identifier of Azure's own is a name, and
// no policy may take it for something that can't be taken over.
func TestAzureRepositories(t *testing.T) {
	v := newVerifier(t, confs()["azure-devops"])
	const id = "0a3d5b1e-6c0f-4f0e-9d2b-5b1b8b0c9f3e"
	for given, want := range map[string]string{
		id: id, strings.ToUpper(id): strings.ToUpper(id),
		"acme/app": "", id + "a": "", id[1:]: "", strings.Replace(id, "-", "_", 1): "", "-" + id[1:8] + "a" + id[9:]: "",
		strings.Replace(id, "a", "g", 1): "",
	} {
		job, err := verify(t, v, example(t, "azure-devops").with("rpo_id", given))
		wantCode(t, job, err, "")
		if got := job.Identity().RepositoryID; got != want {
			t.Errorf("of rpo_id %q: repository_id %q, want %q", given, got, want)
		}
	}
}

// TestZeroJob: the zero Job proves nothing and does no harm.
func TestZeroJob(t *testing.T) {
	var j Job
	if !j.IsZero() || j.Issuer() != "" || j.TokenHash() != "" || j.JTI() != "" || !j.Document().IsAbsent() || !j.Claims().IsAbsent() ||
		j.Confirmation() != "" || !j.Expires().IsZero() || !j.IssuedAt().IsZero() || j.Identity().Kind != "" || j.String() != "no job" {
		t.Error("the zero Job says something")
	}
	if mode, _ := j.Replay(); mode != "" {
		t.Errorf("replay mode %q", mode)
	}
}

// TestIdentityIsACopy: a caller that changes what it got changes nothing else.
func TestIdentityIsACopy(t *testing.T) {
	v := newVerifier(t, confs()["github"])
	job, err := verify(t, v, example(t, "github"))
	wantCode(t, job, err, "")
	id := job.Identity()
	*id.PullRequest, *id.Protected = true, false
	if again := job.Identity(); *again.PullRequest || !*again.Protected {
		t.Error("the job changed")
	}
}
