package identity

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixture is a payload of testdata/claims and what becomes of it: an identity,
// kept in testdata/identity, or a refusal.
type fixture struct {
	file     string
	why      string // what is special about this case of the file; "" for the plain one
	platform string
	conf     func(*IssuerConfig)
	edit     []any // for claimSet.with
	code     proviso.Code
}

func events(names ...string) func(*IssuerConfig) {
	return func(c *IssuerConfig) { c.Events = names }
}

var fixtures = []fixture{
	{file: "github-actions", platform: "github"},
	{file: "github-actions-branch-push", platform: "github"},
	{file: "github-actions-immutable-sub", platform: "github"},
	{file: "github-actions-custom-properties", platform: "github"},
	{file: "github-actions-enterprise-slug-issuer", platform: "github", code: proviso.CodeIssuerUnknown},
	{file: "github-actions-enterprise-slug-issuer", why: "configured", platform: "github",
		conf: func(c *IssuerConfig) { c.URL += "/acme"; c.Require = map[string]Values{"enterprise_id": {"9912"}} }},
	{file: "github-actions-ghes", platform: "github", conf: func(c *IssuerConfig) { c.URL = "https://ghes.acme.example/_services/token"; c.Require = nil }},
	{file: "github-actions-pull-request", platform: "github", code: CodeEventNotAllowed},
	{file: "github-actions-pull-request", why: "allowed", platform: "github", conf: events("pull_request")},
	{file: "github-actions-pull-request-target", platform: "github", code: CodeEventNotAllowed},
	{file: "github-actions-pull-request-target", why: "allowed", platform: "github", conf: events("push", "pull_request_target")},
	{file: "github-actions-pull-request-closed", platform: "github", code: CodeEventNotAllowed},
	{file: "github-actions-pull-request-closed", why: "allowed", platform: "github", conf: events("pull_request")},

	{file: "gitlab-ci", platform: "gitlab"},
	{file: "gitlab-ci-policy-job", platform: "gitlab"},
	{file: "gitlab-ci-merge-request-from-fork", platform: "gitlab", code: CodeEventNotAllowed},
	{file: "gitlab-ci-merge-request-from-fork", why: "allowed", platform: "gitlab", conf: events("merge_request_event"), code: proviso.CodeClaimsInconsistent},

	{file: "forgejo-actions", platform: "forgejo"},
	{file: "forgejo-actions-legacy-sub", platform: "forgejo"},
	{file: "forgejo-actions-pull-request", platform: "forgejo", code: CodeEventNotAllowed},
	{file: "forgejo-actions-pull-request", why: "allowed", platform: "forgejo", conf: events("pull_request")},

	{file: "buildkite", platform: "buildkite"},
	{file: "buildkite-default-claims-null-step", platform: "buildkite", code: CodeClaimMissing},
	{file: "buildkite-subject-claim-pipeline-id", platform: "buildkite", code: CodeClaimMissing},
	{file: "buildkite-subject-claim-pipeline-id", why: "pinned by pipeline", platform: "buildkite",
		conf: func(c *IssuerConfig) {
			c.Require = map[string]Values{"pipeline_id": {"018f2c12-2c8b-4e6f-a011-1b2c3d4e5f60"}}
		}},
	{file: "buildkite-tag-via-api", platform: "buildkite", code: CodeClaimMissing},
	{file: "buildkite-tag-via-api", why: "organization asked for", platform: "buildkite",
		edit: []any{"organization_id", "018f2c11-1b7a-4d5e-9f00-0a1b2c3d4e5f"}, code: CodeEventNotAllowed},
	{file: "buildkite-tag-via-api", why: "allowed", platform: "buildkite", conf: events("api"),
		edit: []any{"organization_id", "018f2c11-1b7a-4d5e-9f00-0a1b2c3d4e5f"}},

	{file: "circleci", platform: "circleci", code: proviso.CodeAudMismatch},
	{file: "circleci", why: "own audience", platform: "circleci", edit: []any{"aud", broker}},
	{file: "circleci-v1-sub", platform: "circleci", edit: []any{"aud", broker}},
	{file: "circleci-audit-log-streaming-not-a-job", platform: "circleci", code: proviso.CodeAudMismatch},
	{file: "circleci-audit-log-streaming-not-a-job", why: "own audience", platform: "circleci", edit: []any{"aud", broker}, code: CodeNotAJob},
	{file: "circleci-custom-webhook-no-vcs", platform: "circleci", edit: []any{"aud", broker}, code: CodeClaimMissing},
	{file: "circleci-forked-pr", platform: "circleci", edit: []any{"aud", broker}, code: CodeClaimMismatch},
	{file: "circleci-ssh-rerun", platform: "circleci", edit: []any{"aud", broker}, code: CodeEventNotAllowed},
	{file: "circleci-ssh-rerun", why: "as text", platform: "circleci", edit: []any{"aud", broker, circle + "ssh-rerun", "true"}, code: CodeEventNotAllowed},
	{file: "circleci-ssh-rerun", why: "allowed", platform: "circleci", edit: []any{"aud", broker}, conf: events("ssh_rerun")},

	{file: "bitbucket-pipelines", platform: "bitbucket", code: proviso.CodeAudMismatch},
	{file: "bitbucket-pipelines", why: "own audience", platform: "bitbucket", edit: []any{"aud", broker}},
	{file: "bitbucket-pipelines-no-environment-multi-aud", platform: "bitbucket", code: proviso.CodeAudMultiple},
	{file: "bitbucket-pipelines-no-environment-multi-aud", why: "one audience in a list", platform: "bitbucket", edit: []any{"aud", []string{broker}}},

	{file: "azure-devops", platform: "azure-devops"},
	{file: "azure-devops-service-connection", platform: "azure-devops", code: CodeEventNotAllowed},
	{file: "azure-devops-service-connection", why: "allowed", platform: "azure-devops", conf: events("service_connection")},
	{file: "azure-devops-service-connection-entra-issuer", platform: "azure-devops", code: proviso.CodeIssuerUnknown},

	{file: "jenkins", platform: "jenkins"},
	{file: "jenkins-custom-claim-templates", platform: "jenkins", conf: func(c *IssuerConfig) {
		c.URL = "https://jenkins.acme.example/job/logistics/oidc"
		c.Claims = map[string]string{"branch": "branch", "commit": "commit", "workflow": "job", "platform_runner.id": "node"}
	}},
	{file: "jenkins-outside-build-global-token", platform: "jenkins", code: CodeNotAJob},

	{file: "codefresh", platform: "codefresh"},
	{file: "codefresh-manual-initiator", platform: "codefresh"},

	{file: "semaphore", platform: "semaphore"},
	{file: "semaphore-debug-job", platform: "semaphore", code: CodeEventNotAllowed},
	{file: "semaphore-debug-job", why: "allowed", platform: "semaphore", conf: events("pipeline_job", "debug_job")},
	{file: "semaphore-pull-request", platform: "semaphore", code: CodeEventNotAllowed},
	{file: "semaphore-pull-request", why: "allowed", platform: "semaphore", conf: events("pipeline_job", "pull_request")},

	{file: "harness", platform: "harness"},

	{file: "hcp-terraform", platform: "hcp-terraform"},
	{file: "hcp-terraform-plan", platform: "hcp-terraform", code: CodeEventNotAllowed},
	{file: "hcp-terraform-plan", why: "allowed", platform: "hcp-terraform", conf: events("plan", "apply")},
	{file: "hcp-terraform-module-test", platform: "hcp-terraform", code: CodeNotAJob},

	{file: "spacelift", platform: "spacelift"},
	{file: "spacelift-proposed-read", platform: "spacelift", code: CodeEventNotAllowed},
	{file: "spacelift-proposed-read", why: "allowed", platform: "spacelift", conf: events("PROPOSED")},

	{file: "google-cloud-build", platform: "google-cloud-build"},
}

// TestFixtures signs every payload that the platforms are known to send and
// compares what becomes of it with a golden identity or a refusal.
func TestFixtures(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range fixtures {
		seen[f.file] = true
		name := f.file
		if f.why != "" {
			name += " " + f.why
		}
		t.Run(name, func(t *testing.T) {
			conf := confs()[f.platform]
			if f.conf != nil {
				f.conf(&conf)
			}
			v := newVerifier(t, conf)
			job, err := verify(t, v, payload(t, f.file).with(f.edit...))
			wantCode(t, job, err, f.code)
			if err != nil || f.code != "" {
				return
			}
			golden(t, strings.ReplaceAll(name, " ", "-"), job)
		})
	}
	files, err := filepath.Glob("testdata/claims/*.json")
	if err != nil || len(files) != 14+31 {
		t.Fatalf("%d payloads, want 14 and 31 variants (%v)", len(files), err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".json"); !seen[name] {
			t.Errorf("no case for %s", name)
		}
	}
}

// TestTranscription: the payloads are those of the shared collection, where that
// is at hand.
func TestTranscription(t *testing.T) {
	shared := os.Getenv("PROVISO_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(shared, "claims")); err != nil {
		if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Log("the shared collection of payloads is not here, so nothing was compared")
		return
	}
	for _, pattern := range []string{"claims/*.json", "claims/variants/*.json"} {
		files, err := filepath.Glob(filepath.Join(shared, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join("testdata", "claims", filepath.Base(file)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not what testdata has (%v)", filepath.Base(file), err)
			}
		}
	}
}

func golden(t *testing.T, name string, job Job) {
	t.Helper()
	id := job.Identity()
	got, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	sameDocument(t, job.Document(), got)
	got = append(got, '\n')
	path := filepath.Join("testdata", "identity", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("identity differs from %s:\ngot  %s\nwant %s", path, got, want)
	}
}

// sameDocument holds that Document is the struct's JSON.
func sameDocument(t *testing.T, doc document.Value, structJSON []byte) {
	t.Helper()
	want, err := document.Parse(structJSON, document.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := doc.String(); got != want.String() {
		t.Errorf("Document is %s, the struct's JSON %s", got, want)
	}
}
