package lab_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/proviso-ci/proviso/lab"
)

const broker = "https://broker.acme.example"

// rsaKey is shared: making one takes as long as the rest of a test.
var rsaKey = sync.OnceValues(func() (*lab.Key, error) { return lab.NewKey("RS256") })

func newIssuer(t *testing.T, p lab.Platform) *lab.Issuer {
	t.Helper()
	key := need[*lab.Key](t)(rsaKey())
	return must[*lab.Issuer](t)(lab.NewIssuer(p, lab.IssuerOptions{Keys: []*lab.Key{key}}))
}

var platforms = map[lab.Platform]string{ // and the payload that its tokens are shaped after
	lab.GitHub: "github-actions", lab.GitLab: "gitlab-ci", lab.Buildkite: "buildkite", lab.CircleCI: "circleci",
	lab.Bitbucket: "bitbucket-pipelines", lab.AzureDevOps: "azure-devops", lab.Jenkins: "jenkins", lab.HCPTerraform: "hcp-terraform",
	lab.CloudBuild: "google-cloud-build", lab.Codefresh: "codefresh", lab.Semaphore: "semaphore", lab.Spacelift: "spacelift",
	lab.Forgejo: "forgejo-actions", lab.Harness: "harness",
}

// A stock OIDC library discovers each issuer and accepts its tokens.
func TestStockLibraryAcceptsEveryPlatform(t *testing.T) {
	for p := range platforms {
		t.Run(string(p), func(t *testing.T) {
			i := newIssuer(t, p)
			provider, err := oidc.NewProvider(t.Context(), i.URL())
			if err != nil {
				t.Fatal(err)
			}
			token := need[string](t)(i.Token(lab.Job{}, broker))
			fixed := map[lab.Platform]string{
				lab.AzureDevOps: "api://AzureADTokenExchange", lab.Semaphore: i.URL(), lab.Spacelift: strings.TrimPrefix(i.URL(), "http://"),
			}
			want := broker
			if f, ok := fixed[p]; ok {
				want = f
			}
			if _, err := provider.Verifier(&oidc.Config{ClientID: want}).Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
			if _, err := provider.Verifier(&oidc.Config{ClientID: "somebody else"}).Verify(t.Context(), token); err == nil {
				t.Error("a token for one audience was accepted for another")
			}
		})
	}
}

// The claims have the names and the types of the collected payloads.
func TestClaimsHaveThePlatformsShape(t *testing.T) {
	dir := sharedClaims(t)
	if dir == "" {
		return
	}
	optional := map[string]bool{ // in the payload, not always in a job's token
		"build_id": true, "cluster_id": true, "queue_id": true, "sub127": true,
	}
	for p, file := range platforms {
		t.Run(string(p), func(t *testing.T) {
			want, got := map[string]any{}, map[string]any{}
			data, err := os.ReadFile(filepath.Join(dir, file+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &want); err != nil {
				t.Fatal(err)
			}
			claims, err := json.Marshal(newIssuer(t, p).Claims(lab.Job{}, broker))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(claims, &got); err != nil {
				t.Fatal(err)
			}
			for name, value := range want {
				g, ok := got[name]
				if !ok && !optional[name] {
					t.Errorf("claim %s is missing", name)
				} else if ok && reflect.TypeOf(g) != reflect.TypeOf(value) {
					t.Errorf("claim %s is a %T, the platform's is a %T", name, g, value)
				}
			}
			for name := range got {
				if _, ok := want[name]; !ok {
					t.Errorf("claim %s is invented", name)
				}
			}
		})
	}
}

// sharedClaims finds the collected payloads beside the checkout, or "".
func sharedClaims(t *testing.T) string {
	dir := os.Getenv("PROVISO_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "claims")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Logf("the payloads are not here (%v): nothing was compared", err)
		return ""
	}
	return dir
}

func TestJobVariants(t *testing.T) {
	for _, c := range []struct {
		name     string
		platform lab.Platform
		job      lab.Job
		want     map[string]any
	}{
		{"github pull request", lab.GitHub, lab.Job{Event: "pull_request", Environment: "-"}, map[string]any{
			"sub": "repo:acme-ship/shipping-service:pull_request", "ref": "refs/pull/17/merge", "base_ref": "main", "ref_protected": "false"}},
		{"github pull_request_target looks like main", lab.GitHub, lab.Job{Event: "pull_request_target", Environment: "-"}, map[string]any{
			"ref": "refs/heads/main", "event_name": "pull_request_target"}},
		{"github tag", lab.GitHub, lab.Job{Tag: "v1", Environment: "-"}, map[string]any{"ref": "refs/tags/v1", "ref_type": "tag", "sub": "repo:acme-ship/shipping-service:ref:refs/tags/v1"}},
		{"gitlab fork", lab.GitLab, lab.Job{Event: "pull_request", Fork: true}, map[string]any{
			"pipeline_source": "merge_request_event", "project_id": "999666", "job_project_id": "741200456", "ref_protected": "false"}},
		{"circleci fork", lab.CircleCI, lab.Job{Fork: true}, map[string]any{"oidc.circleci.com/vcs-origin": "github.com/mallory/shipping-service"}},
		{"terraform plan", lab.HCPTerraform, lab.Job{Event: "pull_request"}, map[string]any{"terraform_run_phase": "plan"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newIssuer(t, c.platform).Claims(c.job, broker)
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s is %v, want %v", name, got[name], want)
				}
			}
		})
	}
}

func TestRotationKeepsOldTokensGoodUntilRetired(t *testing.T) {
	i := newIssuer(t, lab.GitHub)
	old := need[string](t)(i.Token(lab.Job{}, broker))
	if err := i.Rotate(); err != nil {
		t.Fatal(err)
	}
	fresh := need[string](t)(i.Token(lab.Job{}, broker))
	accepted := func(token string) bool {
		provider := need[*oidc.Provider](t)(oidc.NewProvider(t.Context(), i.URL()))
		_, err := provider.Verifier(&oidc.Config{ClientID: broker}).Verify(t.Context(), token)
		return err == nil
	}
	if !accepted(old) || !accepted(fresh) {
		t.Error("after a rotation both keys are good")
	}
	i.Retire()
	if accepted(old) || !accepted(fresh) {
		t.Error("after retirement only the new key is good")
	}
}

func TestForgeriesAreWhatTheySay(t *testing.T) {
	i := newIssuer(t, lab.GitHub)
	other := need[*lab.Key](t)(lab.NewKey("ES256"))
	verifier := need[*oidc.Provider](t)(oidc.NewProvider(t.Context(), i.URL())).Verifier(&oidc.Config{ClientID: broker})
	for name, edit := range map[string]lab.Edit{
		"alg none":        lab.Unsigned(),
		"key confusion":   lab.KeyConfusion(),
		"another key":     lab.SignedBy(other),
		"another issuer":  lab.Claim("iss", "https://elsewhere.example"),
		"expired":         lab.Claim("exp", time.Now().Add(-time.Hour).Unix()),
		"no expiry":       lab.NoClaim("exp"),
		"no audience":     lab.NoClaim("aud"),
		"unknown algorit": lab.Header("alg", "XS256"),
	} {
		token := need[string](t)(i.Token(lab.Job{}, broker, edit))
		if _, err := verifier.Verify(t.Context(), token); err == nil {
			t.Errorf("%s: a stock library accepted it", name)
		}
	}
	// Any bytes can be signed: here a claim named twice.
	raw := need[string](t)(i.Key().Sign([]byte(`{"alg":"RS256","kid":"`+i.Key().ID+`"}`), []byte(`{"sub":"good","sub":"evil"}`)))
	payload := need[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1]))
	if string(payload) != `{"sub":"good","sub":"evil"}` {
		t.Errorf("payload is %s", payload)
	}
}

func TestFaults(t *testing.T) {
	elsewhere := newIssuer(t, lab.GitHub)
	for _, c := range []struct {
		name string
		f    lab.Faults
		kind string // of document to look at
		want string // in "status contentType body", or "error"
	}{
		{"down", lab.Faults{Down: true}, "jwks", "error"},
		{"status", lab.Faults{Status: 500}, "jwks", "500 application/json"},
		{"redirect", lab.Faults{Redirect: elsewhere.JWKSURL()}, "jwks", "302"},
		{"not JSON", lab.Faults{NotJSON: true}, "discovery", "200 text/html <!doctype"},
		{"issuer", lab.Faults{Issuer: "https://evil.example"}, "discovery", `"issuer":"https://evil.example"`},
		{"jwks_uri", lab.Faults{JWKSURI: "http://10.0.0.1/"}, "discovery", `"jwks_uri":"http://10.0.0.1/"`},
		{"private key", lab.Faults{PrivateKey: true}, "jwks", `"d":"`},
		{"wrong use", lab.Faults{WrongUse: true}, "jwks", `"use":"enc"`},
		{"symmetric", lab.Faults{Symmetric: true}, "jwks", `"kty":"oct"`},
		{"twice", lab.Faults{DuplicateName: true}, "jwks", `{"keys":[],"keys":[`},
		{"empty", lab.Faults{Empty: true}, "jwks", `{"keys":[]}`},
		{"many", lab.Faults{ManyKeys: 3}, "jwks", `"kid":"key-2"`},
		{"only the other", lab.Faults{Only: "discovery", Status: 500}, "jwks", "200 application/json"},
		{"drip", lab.Faults{Drip: time.Microsecond}, "jwks", "200 application/json {\"keys\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(t, lab.GitHub)
			i.SetFaults(c.f)
			url := i.JWKSURL()
			if c.kind == "discovery" {
				url = i.URL() + "/.well-known/openid-configuration"
			}
			if got := look(t.Context(), url); !strings.Contains(got, c.want) {
				t.Errorf("got %.200s, want %s in it", got, c.want)
			}
			i.SetFaults(lab.Faults{})
			if got := look(t.Context(), url); !strings.HasPrefix(got, "200 application/json") {
				t.Errorf("after the fault it answers %.100s", got)
			}
		})
	}
	t.Run("huge and times", func(t *testing.T) {
		i := newIssuer(t, lab.GitHub)
		i.SetFaults(lab.Faults{Huge: 1 << 20, Times: 1})
		if n := len(look(t.Context(), i.JWKSURL())); n < 1<<20 {
			t.Errorf("the body has %d bytes", n)
		}
		if n := len(look(t.Context(), i.JWKSURL())); n > 4096 {
			t.Errorf("the second body has %d bytes, the fault was for one answer", n)
		}
		if i.Fetches("jwks") != 2 {
			t.Errorf("%d fetches were counted", i.Fetches("jwks"))
		}
	})
	t.Run("delay ends with the caller", func(t *testing.T) {
		i := newIssuer(t, lab.GitHub)
		i.SetFaults(lab.Faults{Delay: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if got := look(ctx, i.JWKSURL()); got != "error" {
			t.Errorf("got %s", got)
		}
	})
}

// look gives "status contentType body" of a URL, redirects not followed.
func look(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "error"
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return "error"
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "error"
	}
	return resp.Status[:3] + " " + resp.Header.Get("Content-Type") + " " + string(body)
}

// The platforms' own token endpoints want the run's request token, in their own
// way, and only while the run lasts.
func TestTokenEndpointsWantTheRequestToken(t *testing.T) {
	i := newIssuer(t, lab.GitHub)
	run := i.Start(lab.Job{})
	env := map[string]string{}
	for _, kv := range need[[]string](t)(run.Environment(broker)) {
		name, value, _ := strings.Cut(kv, "=")
		env[name] = value
	}
	ask := func(bearer string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["ACTIONS_ID_TOKEN_REQUEST_URL"]+"&audience=x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask("wrong"); got != 401 {
		t.Errorf("a wrong request token gets %d", got)
	}
	if got := ask(run.Secret()); got != 200 || len(run.Minted()) != 1 {
		t.Errorf("the right one gets %d, %d tokens", got, len(run.Minted()))
	}
	run.End()
	if got := ask(run.Secret()); got != 401 {
		t.Errorf("after the job's end it gets %d", got)
	}
}
