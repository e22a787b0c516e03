package identity

import (
	"crypto"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	proviso "github.com/proviso-ci/proviso"
)

// TestProblems: each mistake is found, with its place and what to write instead.
func TestProblems(t *testing.T) {
	for _, tc := range []struct {
		name     string
		platform string
		edit     func(*IssuerConfig)
		path     string
		code     proviso.Code
		says     string
	}{
		{"no name", "github", func(c *IssuerConfig) { c.Name = "" }, "name", CodeConfigIssuer, "letters, digits and dashes"},
		{"a name with a space", "github", func(c *IssuerConfig) { c.Name = "git hub" }, "name", CodeConfigIssuer, `"git hub"`},
		{"no platform", "github", func(c *IssuerConfig) { c.Platform = "" }, "platform", CodeConfigIssuer, "github, gitlab, forgejo"},
		{"a platform that isn't known", "github", func(c *IssuerConfig) { c.Platform = "gihub" }, "platform", CodeConfigIssuer, `"gihub" is not a platform`},
		{"no url", "github", func(c *IssuerConfig) { c.URL = "" }, "url", proviso.CodeConfigIssuerURL, "https://token.actions.githubusercontent.com"},
		{"not a url", "github", func(c *IssuerConfig) { c.URL = "::" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"another scheme", "github", func(c *IssuerConfig) { c.URL = "ftp://token.actions.githubusercontent.com" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"plain http", "gitlab", func(c *IssuerConfig) { c.URL = "http://gitlab.acme.example" }, "url", proviso.CodeConfigIssuerURL, "https://"},
		{"plain http on this machine without leave", "gitlab", func(c *IssuerConfig) { c.URL = "http://127.0.0.1:1" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"a query", "gitlab", func(c *IssuerConfig) { c.URL += "/?x=y" }, "url", proviso.CodeConfigIssuerWildcard, ""},
		{"a fragment", "gitlab", func(c *IssuerConfig) { c.URL += "#x" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"a user", "gitlab", func(c *IssuerConfig) { c.URL = "https://x@gitlab.acme.example" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"upper case", "gitlab", func(c *IssuerConfig) { c.URL = "https://GitLab.acme.example" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"a wildcard", "circleci", func(c *IssuerConfig) { c.URL = "https://oidc.circleci.com/org/*" }, "url", proviso.CodeConfigIssuerWildcard, "one exact URL"},
		{"a trailing slash", "github", func(c *IssuerConfig) { c.URL += "/" }, "url", proviso.CodeConfigIssuerURL, "GitHub Actions"},
		{"another platform's issuer", "github", func(c *IssuerConfig) { c.URL = "https://gitlab.com" }, "url", proviso.CodeConfigIssuerURL, "https://HOST/_services/token"},
		{"a look-alike", "github", func(c *IssuerConfig) { c.URL = "https://token.actions.githubusercontent.com.evil.example" }, "url", proviso.CodeConfigIssuerURL, ""},
		{"Entra's issuer", "azure-devops", func(c *IssuerConfig) {
			c.URL = "https://login.microsoftonline.com/0a1b2c3d-4e5f-4061-8273-94a5b6c7d8e9/v2.0"
		}, "url", proviso.CodeConfigIssuerURL, ""},
		{"CircleCI's organisation by name", "circleci", func(c *IssuerConfig) { c.URL = "https://oidc.circleci.com/org/acme" }, "url", proviso.CodeConfigIssuerURL, "UUID"},

		{"a shared issuer without a pin", "github", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuerUnpinned, "repository_owner_id"},
		{"pinned by a name", "github", func(c *IssuerConfig) { c.Require = map[string]Values{"repository_owner": {"acme-ship"}} }, "require", CodeConfigIssuerUnpinned, "repository_owner_id"},
		{"pinned by a pattern", "github", func(c *IssuerConfig) { c.Require = map[string]Values{"repository_owner_id": {"612/*"}} }, "require", CodeConfigIssuerUnpinned, ""},
		{"an enterprise's slug without a pin", "github", func(c *IssuerConfig) { c.URL += "/acme"; c.Require = nil }, "require", CodeConfigIssuerUnpinned, ""},
		{"gitlab.com without a pin", "gitlab", func(c *IssuerConfig) { c.URL = "https://gitlab.com" }, "require", CodeConfigIssuerUnpinned, "namespace_id"},
		{"codeberg.org without a pin", "forgejo", func(c *IssuerConfig) { c.URL = "https://codeberg.org/api/actions" }, "require", CodeConfigIssuerUnpinned, ""},
		{"Buildkite without a pin", "buildkite", func(c *IssuerConfig) { c.Require = map[string]Values{"organization_slug": {"acme"}} }, "require", CodeConfigIssuerUnpinned, "organization_id"},
		{"Bitbucket without a pin", "bitbucket", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuerUnpinned, "workspaceUuid"},
		{"Google without a pin", "google-cloud-build", func(c *IssuerConfig) { c.Require = map[string]Values{"email": {"a@b"}} }, "require", CodeConfigIssuerUnpinned, "sub"},
		{"HCP Terraform without a pin", "hcp-terraform", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuerUnpinned, ""},
		{"Codefresh without a pin", "codefresh", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuerUnpinned, ""},
		{"CircleCI's root issuer without a pin", "circleci", func(c *IssuerConfig) { c.URL = "https://oidc.circleci.com" }, "require", CodeConfigIssuerUnpinned, "org-id"},
		{"CircleCI without the origin", "circleci", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuer, "vcs-origin"},
		{"generic without a pin", "generic", func(c *IssuerConfig) { c.Require = nil }, "require", CodeConfigIssuerUnpinned, ""},
		{"a platform on this machine without a pin", "github", func(c *IssuerConfig) {
			c.URL, c.AllowPrivate, c.Require = "http://127.0.0.1:8081", true, nil
		}, "require", CodeConfigIssuerUnpinned, ""},
		{"no values", "github", func(c *IssuerConfig) { c.Require["ref"] = Values{} }, "require.ref", CodeConfigIssuer, "no value"},
		{"an empty value", "github", func(c *IssuerConfig) { c.Require["ref"] = Values{""} }, "require.ref", CodeConfigIssuer, "empty"},
		{"anything", "github", func(c *IssuerConfig) { c.Require["ref"] = Values{"*"} }, "require.ref", CodeConfigIssuer, "pattern"},
		{"anything below nothing", "github", func(c *IssuerConfig) { c.Require["ref"] = Values{"/*"} }, "require.ref", CodeConfigIssuer, "empty"},
		{"a pattern", "github", func(c *IssuerConfig) { c.Require["repository"] = Values{"acme-*"} }, "require.repository", CodeConfigIssuer, "pattern"},

		{"two tenants", "github", func(c *IssuerConfig) { c.TenantClaim = "repository_owner_id" }, "tenant_claim", CodeConfigIssuer, "keep one"},
		{"a tenant with a line break", "github", func(c *IssuerConfig) { c.Tenant = "a\nb" }, "tenant", CodeConfigIssuer, ""},
		{"a role with a control character", "github", func(c *IssuerConfig) { c.Role = "a\x00" }, "role", CodeConfigIssuer, ""},

		{"an event that is none", "github", func(c *IssuerConfig) { c.Events = []string{"push", "pull*"} }, "events[1]", CodeConfigIssuer, "exact words"},
		{"an empty event", "github", func(c *IssuerConfig) { c.Events = []string{""} }, "events[0]", CodeConfigIssuer, ""},
		{"events of a platform without", "bitbucket", func(c *IssuerConfig) { c.Events = []string{"push"} }, "events", CodeConfigIssuer, "leave events out"},
		{"events of a service account", "google-cloud-build", func(c *IssuerConfig) { c.Events = []string{"push"} }, "events", CodeConfigIssuer, ""},
		{"an event claim without events", "generic", func(c *IssuerConfig) { c.Events = nil }, "events", CodeConfigIssuer, "[push, schedule]"},

		{"an audience where jobs choose", "github", func(c *IssuerConfig) { c.Audience = "x" }, "audience", CodeConfigIssuer, broker},
		{"an algorithm that doesn't exist", "github", func(c *IssuerConfig) { c.Algorithms = []string{"RS256", "none"} }, "algorithms[1]", CodeConfigIssuer, `"none"`},
		{"a secret key's algorithm", "github", func(c *IssuerConfig) { c.Algorithms = []string{"HS256"} }, "algorithms[0]", CodeConfigIssuer, "public key"},
		{"a replay mode", "github", func(c *IssuerConfig) { c.Replay = "never" }, "replay", CodeConfigIssuer, "jti, token or off"},
		{"an age without a unit", "github", func(c *IssuerConfig) { c.MaxAge = 10 }, "max_age", CodeConfigIssuer, "10m"},
		{"two days", "github", func(c *IssuerConfig) { c.MaxAge = 48 * time.Hour }, "max_age", CodeConfigIssuer, "24h"},

		{"keys twice", "github", func(c *IssuerConfig) { c.JWKSURL, c.JWKSFile = "https://x.example/jwks", "jwks.json" }, "jwks_file", CodeConfigIssuer, "keep one"},
		{"keys over plain http", "github", func(c *IssuerConfig) { c.JWKSURL = "http://x.example/jwks" }, "jwks_url", proviso.CodeConfigIssuerURL, "https://"},
		{"authorities for a file", "github", func(c *IssuerConfig) { c.JWKSFile, c.CAFile = "jwks.json", "ca.pem" }, "ca_file", CodeConfigIssuer, "leave ca_file out"},

		{"claims of a known platform", "github", func(c *IssuerConfig) { c.Claims = map[string]string{"branch": "x"} }, "claims", CodeConfigIssuer, "leave claims out"},
		{"a member that isn't", "generic", func(c *IssuerConfig) { c.Claims["tenant"] = "org" }, "claims.tenant", CodeConfigIssuer, "repository_id"},
		{"a claim without a name", "generic", func(c *IssuerConfig) { c.Claims["branch"] = "" }, "claims.branch", CodeConfigIssuer, "/job/name"},
		{"no discriminator", "generic", func(c *IssuerConfig) { delete(c.Claims, "run_id") }, "claims", CodeConfigIssuer, "run_id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := confs()[tc.platform]
			tc.edit(&conf)
			problems, _ := Check([]IssuerConfig{conf}, broker)
			if !slices.ContainsFunc(problems, func(p Problem) bool {
				return p.Path == "issuers[0]."+tc.path && p.Code == tc.code && strings.Contains(p.Message, tc.says)
			}) {
				t.Errorf("no problem at %s with code %s and %q among:\n%v", tc.path, tc.code, tc.says, problems)
			}
			if _, err := New([]IssuerConfig{conf}, Options{Audience: broker}); err == nil {
				t.Error("a Verifier was made")
			}
		})
	}
}

func TestSoundConfigurations(t *testing.T) {
	for name, conf := range confs() {
		if problems, _ := Check([]IssuerConfig{conf}, broker); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
	problems, _ := Check(slices.Collect(maps.Values(confs())), broker)
	if len(problems) > 0 {
		t.Errorf("all together: %v", problems)
	}
	v, err := New(slices.Collect(maps.Values(confs())), Options{Audience: broker})
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	// The line that the documentation shows for an own instance.
	if problems, _ := Check([]IssuerConfig{{Name: "ghes", Platform: "github", URL: "https://ghes.acme.example/_services/token", AllowPrivate: true}}, broker); len(problems) > 0 {
		t.Error(problems)
	}
}

func TestOneBrokerManyIssuers(t *testing.T) {
	a, b := confs()["github"], confs()["github"]
	problems, _ := Check([]IssuerConfig{a, b}, broker)
	if len(problems) != 2 || problems[0].Code != proviso.CodeConfigDuplicateIssuer || problems[1].Code != proviso.CodeConfigDuplicateIssuer ||
		problems[1].Path != "issuers[1].url" || !strings.Contains(problems[1].Message, "tenant_claim") {
		t.Errorf("the same issuer twice: %v", problems)
	}
	problems, _ = Check([]IssuerConfig{a}, "")
	if len(problems) != 1 || problems[0].Code != proviso.CodeConfigAudienceMissing {
		t.Errorf("no audience: %v", problems)
	}
	if _, err := New(nil, Options{}); err == nil {
		t.Error("a Verifier without an audience was made")
	}
	// Every mistake is told at once.
	a.Role, a.Replay, a.URL = "\x00", "x", "http://x"
	_, err := New([]IssuerConfig{a}, Options{Audience: broker})
	var all Problems
	if !errors.As(err, &all) || len(all) != 3 || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three problems, got: %v", err)
	}
}

// TestFindings: what is allowed but weak is told.
func TestFindings(t *testing.T) {
	for _, tc := range []struct {
		name     string
		platform string
		edit     func(*IssuerConfig)
		path     string // "" = no finding at all
		says     string
	}{
		{"none", "github", func(*IssuerConfig) {}, "", ""},
		{"replay off", "github", func(c *IssuerConfig) { c.Replay = ReplayOff }, "replay", "any number of times"},
		{"a long age", "github", func(c *IssuerConfig) { c.MaxAge = 2 * time.Hour }, "max_age", "2h0m0s"},
		{"an hour", "github", func(c *IssuerConfig) { c.MaxAge = time.Hour }, "", ""},
		{"an own instance without a pin", "gitlab", func(*IssuerConfig) {}, "require", "every job"},
		{"an own instance with a pin", "gitlab", func(c *IssuerConfig) { c.Require = map[string]Values{"namespace_id": {"8812"}} }, "", ""},
		{"a named issuer without a pin", "spacelift", func(c *IssuerConfig) { c.Require = nil }, "require", "taken over|take over"},
		{"pull requests", "github", events("push", "pull_request"), "events[1]", "read-only"},
		{"pull requests from anywhere", "github", events("pull_request_target"), "events[0]", "read-only"},
		{"comments", "github", events("issue_comment"), "events[0]", "review"},
		{"plans", "hcp-terraform", events("plan"), "events[0]", "review"},
		{"API builds", "buildkite", events("webhook", "api"), "events[1]", "review"},
		{"SSH reruns", "circleci", events("ssh_rerun"), "events[0]", "review"},
		{"a misspelt event", "github", events("workflow-dispatch"), "events[0]", "spelt right"},
		{"another documented event", "github", events("release"), "", ""},
		{"a tenant by name", "github", func(c *IssuerConfig) { c.Tenant, c.TenantClaim = "", "repository_owner" }, "tenant_claim", "rename"},
		{"a tenant by identifier", "github", func(c *IssuerConfig) { c.Tenant, c.TenantClaim = "", "repository_owner_id" }, "", ""},
		{"no triggers", "jenkins", func(c *IssuerConfig) { c.Require = map[string]Values{"sub": {"x"}} }, "events", "pull requests"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := confs()[tc.platform]
			tc.edit(&conf)
			problems, findings := Check([]IssuerConfig{conf}, broker)
			if len(problems) > 0 {
				t.Fatalf("problems: %v", problems)
			}
			if tc.path == "" {
				if len(findings) > 0 {
					t.Errorf("findings: %v", findings)
				}
				return
			}
			if !slices.ContainsFunc(findings, func(p Problem) bool {
				return p.Path == "issuers[0]."+tc.path && slices.ContainsFunc(strings.Split(tc.says, "|"), func(s string) bool { return strings.Contains(p.Message, s) })
			}) {
				t.Errorf("no finding at %s with %q among: %v", tc.path, tc.says, findings)
			}
		})
	}
}

// TestTheManual reads the configuration as people write it.
func TestTheManual(t *testing.T) {
	const text = `
name: github
platform: github
url: https://token.actions.githubusercontent.com
require: {repository_owner_id: "61200123", repository: [acme-ship/*, acme-ops/infra]}
tenant: acme
role: ci-cd-pipeline
events: [push, workflow_dispatch, schedule]
algorithms: [RS256]
replay: jti
max_age: 10m
`
	var conf IssuerConfig
	if err := yaml.UnmarshalWithOptions([]byte(text), &conf, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if conf.MaxAge != 10*time.Minute || !slices.Equal(conf.Require["repository_owner_id"], Values{"61200123"}) ||
		!slices.Equal(conf.Require["repository"], Values{"acme-ship/*", "acme-ops/infra"}) {
		t.Errorf("read as %+v", conf)
	}
	if problems, findings := Check([]IssuerConfig{conf}, broker); len(problems)+len(findings) > 0 {
		t.Errorf("%v %v", problems, findings)
	}
	for _, bad := range []string{"require: {repository_owner_id: 61200123}", "require: {a: [1]}", "require: {a: {b: c}}", "require: {a: true}"} {
		if err := yaml.UnmarshalWithOptions([]byte(bad), &conf, yaml.Strict()); err == nil || !strings.Contains(err.Error(), "write it in quotes") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestKeyFiles: a file that can't be used is told at the start.
func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("empty.json", "")
	write("not.pem", "hello")
	for _, tc := range []struct {
		edit func(*IssuerConfig)
		says string
	}{
		{func(c *IssuerConfig) { c.JWKSFile = "missing.json" }, "missing.json"},
		{func(c *IssuerConfig) { c.JWKSFile = "empty.json" }, "empty.json"},
		{func(c *IssuerConfig) { c.CAFile = "missing.pem" }, "missing.pem"},
		{func(c *IssuerConfig) { c.CAFile = "not.pem" }, "no PEM certificate"},
	} {
		conf := confs()["github"]
		tc.edit(&conf)
		if _, err := New([]IssuerConfig{conf}, Options{Audience: broker, Dir: dir}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want %q", err, tc.says)
		}
	}
	good := keyFile(t, map[string]crypto.PublicKey{testKID: signer().Public()})
	conf := confs()["github"]
	conf.JWKSFile = filepath.Base(good)
	if _, err := New([]IssuerConfig{conf}, Options{Audience: broker, Dir: filepath.Dir(good)}); err != nil {
		t.Error(err)
	}
}

// TestTenantClaim: one issuer, several tenants, told apart by a claim.
func TestTenantClaim(t *testing.T) {
	conf := confs()["github"]
	conf.Tenant, conf.TenantClaim = "", "repository_owner_id"
	conf.Require["repository_owner_id"] = Values{"61200123", "7"}
	v := newVerifier(t, conf)
	for _, owner := range []string{"61200123", "7"} {
		job, err := verify(t, v, example(t, "github").with("repository_owner_id", owner, "sub", "custom"))
		wantCode(t, job, err, "")
		if job.Identity().Tenant != owner {
			t.Errorf("tenant %q, want %q", job.Identity().Tenant, owner)
		}
	}
	conf.TenantClaim = "enterprise"
	v = newVerifier(t, conf)
	job, err := verify(t, v, example(t, "github").with("enterprise", nil))
	wantCode(t, job, err, CodeClaimMissing)
}

// TestFixedAudience: where the platform decides, exactly its own is taken, and
// the identity says so; the broker's own, where an installation can, is better.
func TestFixedAudience(t *testing.T) {
	for _, platform := range []string{"azure-devops", "codefresh", "semaphore", "spacelift"} {
		conf := confs()[platform]
		v := newVerifier(t, conf)
		job, err := verify(t, v, example(t, platform))
		wantCode(t, job, err, "")
		if job.Identity().Audience != AudiencePlatform {
			t.Errorf("%s: audience %q", platform, job.Identity().Audience)
		}
		job, err = verify(t, v, example(t, platform).with("aud", broker))
		wantCode(t, job, err, proviso.CodeAudMismatch)

		conf.Audience = broker
		v = newVerifier(t, conf)
		job, err = verify(t, v, example(t, platform).with("aud", broker))
		wantCode(t, job, err, "")
		if job.Identity().Audience != AudienceBroker {
			t.Errorf("%s: audience %q", platform, job.Identity().Audience)
		}
		job, err = verify(t, v, example(t, platform))
		wantCode(t, job, err, proviso.CodeAudMismatch)
	}
}

// TestAlgorithms: only what is configured is taken.
func TestAlgorithms(t *testing.T) {
	conf := confs()["github"]
	conf.Algorithms = []string{"ES256", "PS256"}
	v := newVerifier(t, conf)
	job, err := verify(t, v, example(t, "github"))
	wantCode(t, job, err, proviso.CodeJWTAlgNotAllowed)
	if !strings.Contains(public(err), "RS256; from this issuer only ES256 or PS256 is taken") {
		t.Error(err)
	}
}
