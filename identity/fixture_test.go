package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

const broker = "https://broker.acme.example"

// made is the iat of every payload in testdata/claims; the tests' clock stands
// half a minute later.
const made = 1795426200

func clock() time.Time { return time.Unix(made+30, 0) }

// claimSet is a payload that tests edit.
type claimSet map[string]any

// with gives a copy in which the given claims are set; nil removes one.
func (c claimSet) with(pairs ...any) claimSet {
	out := maps.Clone(c)
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i].(string)
		if pairs[i+1] == nil {
			delete(out, name)
			continue
		}
		out[name] = pairs[i+1]
	}
	return out
}

func (c claimSet) json(t testing.TB) []byte {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// payload reads a file of testdata/claims, keeping integers as they are.
func payload(t testing.TB, name string) claimSet {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "claims", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.UseNumber()
	var c claimSet
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// signer is one RSA key for all tests of the package.
var signer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

const testKID = "test-key-1"

func sign(t testing.TB, c claimSet) string { return signBytes(t, c.json(t)) }

func signBytes(t testing.TB, claims []byte) string {
	t.Helper()
	compact, err := jose.Sign(signer(), jose.RS256, testKID, "JWT", claims)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// keyFile writes a key set with the public halves and gives its path.
func keyFile(t testing.TB, keys map[string]crypto.PublicKey) string {
	t.Helper()
	var list []*jose.Key
	for kid, pub := range keys {
		k, err := jose.NewKey(kid, jose.RS256, pub)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, k)
	}
	set, err := jose.NewKeySet(list...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, set.AppendJSON(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// confs is a sound configuration of each platform for the payloads' example.
func confs() map[string]IssuerConfig {
	one := func(platform, url string, require ...string) IssuerConfig {
		c := IssuerConfig{Name: platform, Platform: platform, URL: url, Tenant: "acme", Role: "ci-cd-pipeline"}
		for i := 0; i < len(require); i += 2 {
			if c.Require == nil {
				c.Require = map[string]Values{}
			}
			c.Require[require[i]] = Values{require[i+1]}
		}
		return c
	}
	jenkins := one("jenkins", "https://jenkins.acme.example/oidc")
	generic := one("generic", "https://ci.acme.example/", "org", "acme")
	generic.Claims = map[string]string{"run_id": "/build/id", "repository": "repo", "branch": "branch", "event": "trigger", "protected": "locked"}
	generic.Events = []string{"push"}
	return map[string]IssuerConfig{
		"github":             one("github", "https://token.actions.githubusercontent.com", "repository_owner_id", "61200123"),
		"gitlab":             one("gitlab", "https://gitlab.acme.example"),
		"forgejo":            one("forgejo", "https://forge.acme.example/api/actions"),
		"buildkite":          one("buildkite", "https://agent.buildkite.com", "organization_id", "018f2c11-1b7a-4d5e-9f00-0a1b2c3d4e5f"),
		"circleci":           one("circleci", "https://oidc.circleci.com/org/6f1f6c1a-0c2e-4f7b-9d3a-2b1c0d9e8f70", circle+"vcs-origin", "github.com/acme-ship/*"),
		"bitbucket":          one("bitbucket", "https://api.bitbucket.org/2.0/workspaces/acme-ship/pipelines-config/identity/oidc", "workspaceUuid", "{2f6b1c7e-90ad-4e51-8c3f-7a1d5b9e0c42}"),
		"azure-devops":       one("azure-devops", "https://vstoken.dev.azure.com/b3a2c1d0-e9f8-4a7b-8c6d-5e4f3a2b1c0d"),
		"jenkins":            jenkins,
		"codefresh":          one("codefresh", "https://oidc.codefresh.io", "account_id", "64e1f2a3b4c5d6e7f8091a2b"),
		"semaphore":          one("semaphore", "https://acme-ship.semaphoreci.com", "org_id", "9b8c7d6e-5f4a-4b3c-8d2e-1f0a9b8c7d6e"),
		"harness":            one("harness", "https://app.harness.io/ng/api/oidc/account/Zk1xQ9vTRb2mYp7LwE4n5g"),
		"hcp-terraform":      one("hcp-terraform", "https://app.terraform.io", "terraform_organization_id", "org-Kd82hTqWz4mNpB7x"),
		"spacelift":          one("spacelift", "https://acme-ship.app.spacelift.io", "spaceId", "production-01KQ2W3E4R5T6Y7U8I9O0P1A2S"),
		"google-cloud-build": one("google-cloud-build", "https://accounts.google.com", "sub", "108812345678901234567"),
		"generic":            generic,
	}
}

// example is a payload of each platform that confs takes.
func example(t testing.TB, platform string) claimSet {
	t.Helper()
	switch platform {
	case "generic":
		return claimSet{"iss": "https://ci.acme.example/", "sub": "job 7", "aud": broker, "iat": made, "exp": made + 300,
			"org": "acme", "build": map[string]any{"id": "7"}, "repo": "acme/app", "branch": "main", "trigger": "push", "locked": true}
	case "bitbucket", "circleci": // their examples carry the platform's default audience
		return payload(t, map[string]string{"bitbucket": "bitbucket-pipelines", "circleci": "circleci"}[platform]).with("aud", broker)
	case "github", "forgejo":
		return payload(t, platform+"-actions")
	case "gitlab":
		return payload(t, "gitlab-ci")
	}
	return payload(t, platform)
}

// newVerifier makes a Verifier whose issuers' keys are in a file.
func newVerifier(t testing.TB, list ...IssuerConfig) *Verifier {
	t.Helper()
	file := keyFile(t, map[string]crypto.PublicKey{testKID: signer().Public()})
	for i := range list {
		list[i].JWKSFile = file
	}
	v, err := New(list, Options{Audience: broker, Now: clock})
	if err != nil {
		t.Fatalf("the test's configuration is not accepted:\n%v", err)
	}
	t.Cleanup(v.Close)
	return v
}

// verify signs a payload and lets v judge it.
func verify(t testing.TB, v *Verifier, c claimSet) (Job, error) {
	t.Helper()
	return v.Verify(context.Background(), sign(t, c))
}

// codeOf gives a refusal's code; "" for none. A refusal must be fit for people.
func codeOf(t testing.TB, job Job, err error) proviso.Code {
	t.Helper()
	if err == nil {
		if job.IsZero() {
			t.Error("neither a job nor a refusal")
		}
		return ""
	}
	var r *proviso.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("not a refusal: %v", err)
	}
	if !job.IsZero() {
		t.Errorf("a job came with the refusal %v", err)
	}
	if r.Stage != proviso.StageJob || r.Code == "" || r.Public == "" || strings.ContainsAny(r.Public, "\n\r\x00\x1b") || len(r.Public) > 2000 {
		t.Errorf("not fit for people: stage %q, code %q, public %q", r.Stage, r.Code, r.Public)
	}
	return r.Code
}

// public is what the caller is told.
func public(err error) string { return proviso.AsRefusal(err, "", "").Public }

func wantCode(t testing.TB, job Job, err error, want proviso.Code) {
	t.Helper()
	if got := codeOf(t, job, err); got != want {
		t.Errorf("code %q, want %q (%v)", got, want, err)
	}
}

// admitted runs the checks that come after the signature, for tests that try
// thousands of payloads.
func admitted(t testing.TB, v *Verifier, url string, doc document.Value) (Job, error) {
	t.Helper()
	i := v.issuers[url]
	if i == nil {
		t.Fatalf("no issuer %s", url)
	}
	return i.admit(&jose.Token{Claims: doc}, clock())
}
