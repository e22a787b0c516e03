package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/lab"
)

const audience = "https://broker.acme.example"

var rsaKey = sync.OnceValues(func() (*lab.Key, error) { return lab.NewKey("RS256") })

func issuer(t *testing.T, p lab.Platform) *lab.Issuer {
	t.Helper()
	key, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	i, err := lab.NewIssuer(p, lab.IssuerOptions{Keys: []*lab.Key{key}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	return i
}

func environment(t *testing.T, run *lab.Run, more ...string) []string {
	t.Helper()
	env, err := run.Environment(audience)
	if err != nil {
		t.Fatal(err)
	}
	return append(env, more...)
}

// commands puts programs into PATH that print a token made beforehand, and
// write down how they were called.
func commands(t *testing.T, run *lab.Run) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	token, err := run.Token(audience)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"buildkite-agent", "circleci"} {
		script := fmt.Sprintf("#!/bin/sh\necho \"$0 $*\" >>%s/calls\necho %s\n", dir, token)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	return func() string {
		data, _ := os.ReadFile(filepath.Join(dir, "calls"))
		return strings.ReplaceAll(string(data), dir+"/", "")
	}
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(payload, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Each platform is found by its own variables, and its token is for the broker
// where the platform lets one choose.
func TestEveryPlatform(t *testing.T) {
	for _, p := range []lab.Platform{
		lab.GitHub, lab.GitLab, lab.Buildkite, lab.CircleCI, lab.Bitbucket, lab.AzureDevOps, lab.Jenkins, lab.HCPTerraform,
		lab.CloudBuild, lab.Codefresh, lab.Semaphore, lab.Spacelift, lab.Forgejo, lab.Harness,
	} {
		t.Run(string(p), func(t *testing.T) {
			i := issuer(t, p)
			run := i.Start(lab.Job{})
			calls := commands(t, run)
			s, err := Find(Lookup{Audience: audience, Environ: environment(t, run, "CI=true", "HOME=/nowhere")})
			if err != nil {
				t.Fatal(err)
			}
			if s.Platform() != string(p) {
				t.Errorf("taken for %s", s.Platform())
			}
			token, err := s.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			claims := claimsOf(t, token)
			if claims["iss"] != i.URL() {
				t.Errorf("the token is from %v", claims["iss"])
			}
			fixed := p == lab.AzureDevOps || p == lab.Semaphore || p == lab.Spacelift
			if got := fmt.Sprint(claims["aud"]); (strings.Trim(got, "[]") == audience) == fixed {
				t.Errorf("the token is for %s", got)
			}
			again := p == lab.GitHub || p == lab.Forgejo || p == lab.Buildkite || p == lab.CircleCI || p == lab.AzureDevOps || p == lab.CloudBuild || p == lab.Codefresh
			if s.Renewable() != again {
				t.Errorf("renewable: %v", s.Renewable())
			}
			want := map[lab.Platform]string{
				lab.Buildkite: "buildkite-agent oidc request-token --audience " + audience + " --claim organization_id,pipeline_id\n",
				lab.CircleCI:  "circleci run oidc get --claims {\"aud\":\"" + audience + "\"}\n",
			}[p]
			if got := calls(); got != want {
				t.Errorf("called %q, want %q", got, want)
			}
		})
	}
}

// A missing token is an error that names what was looked for and what to add.
func TestMissingTokenSaysWhatToAdd(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range []struct {
		env  []string
		want []string
	}{
		{[]string{"GITHUB_ACTIONS=true"}, []string{"GitHub Actions", "ACTIONS_ID_TOKEN_REQUEST_URL is not set", "permissions:\n      id-token: write", "fork"}},
		{[]string{"GITHUB_ACTIONS=true", "FORGEJO_ACTIONS=true"}, []string{"Forgejo Actions", "enable-openid-connect: true"}},
		{[]string{"GITLAB_CI=true"}, []string{"PROVISO_ID_TOKEN is not set", "id_tokens:\n      PROVISO_ID_TOKEN:\n        aud: " + audience}},
		{[]string{"BUILDKITE=true"}, []string{"BUILDKITE_AGENT_ACCESS_TOKEN"}},
		{[]string{"BUILDKITE=true", "BUILDKITE_AGENT_ACCESS_TOKEN=x"}, []string{"buildkite-agent gives no token"}},
		{[]string{"CIRCLECI=true"}, []string{"neither the command circleci nor"}},
		{[]string{"BITBUCKET_BUILD_NUMBER=1"}, []string{"BITBUCKET_STEP_OIDC_TOKEN is not set", "audiences:\n            - " + audience}},
		{[]string{"TF_BUILD=True"}, []string{"SYSTEM_ACCESSTOKEN: $(System.AccessToken)"}},
		{[]string{"JENKINS_URL=x"}, []string{"withCredentials", "'PROVISO_ID_TOKEN_FILE'"}},
		{[]string{"TFC_RUN_ID=x"}, []string{"TFC_WORKLOAD_IDENTITY_AUDIENCE to " + audience}},
		{[]string{"CF_BUILD_ID=x"}, []string{"CF_OIDC_REQUEST_URL is not set"}},
		{[]string{"SEMAPHORE=true"}, []string{"SEMAPHORE_OIDC_TOKEN is not set"}},
		{[]string{"TF_VAR_spacelift_run_id=x"}, []string{spaceliftFile}},
		{[]string{"HARNESS_BUILD_ID=x"}, []string{"PROVISO_ID_TOKEN is not set"}},
		{[]string{"BUILDER_OUTPUT=x", "GCE_METADATA_HOST=127.0.0.1:1"}, []string{"the metadata server can't be asked"}},
		{[]string{"BUILDER_OUTPUT=x", "GCE_METADATA_HOST=evil.example"}, []string{"not the metadata server of this machine"}},
		{[]string{"CI=true"}, []string{"none of", "GitHub Actions: GITHUB_ACTIONS=true", "Harness", "PROVISO_JOB_TOKEN_FILE", audience}},
		{[]string{"GITHUB_ACTIONS=false", "GITLAB_CI="}, []string{"none of"}},
		{[]string{"GITHUB_ACTIONS=true", "GITLAB_CI=true"}, []string{"more than one", "GitHub Actions", "GitLab", "--ci"}},
		{[]string{"PROVISO_JOB_TOKEN=x", "PROVISO_JOB_TOKEN_FILE=y"}, []string{"more than one"}},
		{[]string{"PROVISO_JOB_TOKEN_FILE=/nowhere"}, []string{"can't be read"}},
		{[]string{"PROVISO_JOB_TOKEN_COMMAND=echo oops >&2; exit 3"}, []string{"exit status 3: oops"}},
		{[]string{"PROVISO_JOB_TOKEN=not-a-token"}, []string{"no signed token"}},
		{[]string{"GITHUB_ACTIONS=true", "ACTIONS_ID_TOKEN_REQUEST_URL=http://10.0.0.1/x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=s3cr3t"}, []string{"https is required"}},
	} {
		s, err := Find(Lookup{Audience: audience, Environ: c.env})
		if err == nil {
			_, err = s.Token(t.Context())
		}
		if none := new(NoTokenError); !errors.As(err, &none) {
			t.Errorf("%v: %v", c.env, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %q is not in:\n%v", c.env, w, err)
			}
		}
		if strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "{{") {
			t.Errorf("%v: %v", c.env, err)
		}
	}
}

func TestPlatformByNameAndVariableByName(t *testing.T) {
	run := issuer(t, lab.GitLab).Start(lab.Job{})
	token, err := run.Token(audience)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GITHUB_ACTIONS=true", "GITLAB_CI=true", "DEPLOY_TOKEN=" + token}
	s, err := Find(Lookup{Audience: audience, Environ: env, Platform: "gitlab", Variable: "DEPLOY_TOKEN"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Token(t.Context()); err != nil || got != token {
		t.Errorf("%v", err)
	}
	// A file is read anew each time.
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, env := range [][]string{
		{"JENKINS_URL=x", "PROVISO_ID_TOKEN_FILE=" + path},
		{"PROVISO_JOB_TOKEN_FILE=" + path},
		{"PROVISO_JOB_TOKEN_COMMAND=cat " + path, "GITHUB_ACTIONS=true"}, // what is said explicitly wins
		{"PROVISO_JOB_TOKEN=" + token, "GITLAB_CI=true"},
	} {
		s, err := Find(Lookup{Audience: audience, Environ: env})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Token(t.Context()); err != nil || got != token {
			t.Errorf("%v: %v", env, err)
		}
	}
	for name, l := range map[string]Lookup{
		"unknown name":                  {Platform: "travis", Environ: env},
		"generic without its variables": {Platform: "generic", Environ: env},
		"both forms":                    {Platform: "gitlab", Environ: []string{"PROVISO_ID_TOKEN=" + token, "PROVISO_ID_TOKEN_FILE=" + path}},
	} {
		s, err := Find(l)
		if err == nil {
			_, err = s.Token(t.Context())
		}
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A token for somebody else stays here.
func TestTokenForAnotherAudienceIsNotSent(t *testing.T) {
	i := issuer(t, lab.GitLab)
	for name, edit := range map[string]lab.Edit{
		"another":  lab.Claim("aud", "https://vault.acme.example"),
		"several":  lab.Claim("aud", []string{audience, "https://vault.acme.example"}),
		"none":     lab.NoClaim("aud"),
		"an old":   lab.Claim("exp", time.Now().Add(-time.Minute).Unix()),
		"too long": lab.Claim("pad", strings.Repeat("x", maxTokenBytes)),
	} {
		token, err := i.Token(lab.Job{}, audience, edit)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Find(Lookup{Audience: audience, Environ: []string{"GITLAB_CI=true", "PROVISO_ID_TOKEN=" + token}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Token(t.Context()); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// On a platform with a fixed audience it is the broker's matter.
	run := issuer(t, lab.Semaphore).Start(lab.Job{})
	s, err := Find(Lookup{Audience: audience, Environ: environment(t, run)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Token(t.Context()); err != nil {
		t.Error(err)
	}
}

// The platform's endpoint is asked once more when it stumbles, and its request
// token goes nowhere else.
func TestTokenEndpoint(t *testing.T) {
	i := issuer(t, lab.GitHub)
	run := i.Start(lab.Job{})
	s, err := Find(Lookup{Audience: audience, Environ: environment(t, run)})
	if err != nil {
		t.Fatal(err)
	}
	i.SetFaults(lab.Faults{Only: "token", Status: 500, Times: 1})
	if _, err := s.Token(t.Context()); err != nil || i.Fetches("token") != 2 {
		t.Errorf("%d requests: %v", i.Fetches("token"), err)
	}
	var stolen string
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen = r.Header.Get("Authorization") }))
	defer thief.Close()
	for name, f := range map[string]lab.Faults{
		"redirect": {Redirect: thief.URL}, "no JSON": {NotJSON: true}, "huge": {Huge: 1 << 20}, "down": {Down: true},
	} {
		i.SetFaults(f)
		_, err := s.Token(t.Context())
		if err == nil || stolen != "" || strings.Contains(err.Error(), run.Secret()) {
			t.Errorf("%s: %v, stolen %q", name, err, stolen)
		}
	}
	i.SetFaults(lab.Faults{})
	run.End()
	if _, err := s.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "refuses this job") {
		t.Errorf("after the end: %v", err)
	}
}

func TestAudienceIsAppendedProperly(t *testing.T) {
	for raw, want := range map[string]string{
		"https://x/y?api-version=2.0":        "https://x/y?api-version=2.0&audience=https%3A%2F%2Fbroker.acme.example%3Fa%26b",
		"https://x/y":                        "https://x/y?audience=https%3A%2F%2Fbroker.acme.example%3Fa%26b",
		"https://x/y?audience=evil&z=1":      "https://x/y?audience=https%3A%2F%2Fbroker.acme.example%3Fa%26b&z=1",
		"http://127.0.0.1:9/y":               "http://127.0.0.1:9/y?audience=https%3A%2F%2Fbroker.acme.example%3Fa%26b",
		"http://pipelines.example/y":         "",
		"file:///etc/passwd":                 "",
		"":                                   "",
		"https://":                           "",
		"http://169.254.169.254/latest/meta": "",
	} {
		u, err := withQuery(raw, "audience", "https://broker.acme.example?a&b")
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%q: %v %v", raw, u, err)
		}
	}
}

// What a failing command says is shown, tokens in it are not.
func TestCommandsOutputShowsNoSecret(t *testing.T) {
	const bearer = "bk-secret-0123456789"
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"fatal: denied for " + bearer + " and " + secret + strings.Repeat("y", 40) + "\" >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "buildkite-agent"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	s, err := Find(Lookup{Audience: audience, Environ: []string{"BUILDKITE=true", "BUILDKITE_AGENT_ACCESS_TOKEN=" + bearer}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Token(t.Context())
	if err == nil || !strings.Contains(err.Error(), "fatal: denied for *** and ***") || strings.Contains(err.Error(), bearer) || strings.Contains(err.Error(), secret) {
		t.Errorf("%v", err)
	}
}

// Whatever can buy a credential is in the list of what CMD does not get.
func TestTokenVariables(t *testing.T) {
	for _, want := range []string{
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "BITBUCKET_STEP_OIDC_TOKEN", "BUILDKITE_AGENT_ACCESS_TOKEN",
		"CF_OIDC_REQUEST_TOKEN", "CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2", "DEPLOY_TOKEN", "DEPLOY_TOKEN_FILE", "PROVISO_ID_TOKEN",
		"PROVISO_JOB_TOKEN", "PROVISO_JOB_TOKEN_COMMAND", "PROVISO_JOB_TOKEN_FILE", "SEMAPHORE_OIDC_TOKEN", "SPACELIFT_OIDC_TOKEN",
		"SYSTEM_ACCESSTOKEN", "TFC_WORKLOAD_IDENTITY_TOKEN", "TFC_WORKLOAD_IDENTITY_TOKEN_PROVISO",
	} {
		if !IsTokenVariable(want, "DEPLOY_TOKEN") {
			t.Errorf("%s is missing", want)
		}
	}
	for _, harmless := range []string{"PATH", "SPIFFE_ENDPOINT_SOCKET", "PROVISO_URL", "PROVISO_TOKEN", "GITHUB_TOKEN", "DEPLOY_TOKEN", "_FILE"} {
		if IsTokenVariable(harmless, "") {
			t.Errorf("%s is withheld", harmless)
		}
	}
}

// The names are those of the broker's configuration.
func TestPlatformNames(t *testing.T) {
	want := []string{"github", "forgejo", "gitlab", "buildkite", "circleci", "bitbucket", "azure-devops", "jenkins", "hcp-terraform",
		"google-cloud-build", "codefresh", "semaphore", "spacelift", "harness", "generic"}
	if got := PlatformNames(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
