package identity

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
)

// TestRows: every row says everything that a row has to say.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range table {
		if seen[p.name] || p.title == "" || len(p.issuers) == 0 || p.audience.ask == "" || len(p.algorithms) == 0 {
			t.Errorf("%s: a row has one name, a title, issuers, how to ask, algorithms", p.name)
		}
		seen[p.name] = true
		if p != &generic && (len(p.job) == 0) == (p.noJob == "") {
			t.Errorf("%s: either claims that only a job has, or what stands for them", p.name)
		}
		if p.strictest() == shared && len(p.pins) == 0 && p != &generic {
			t.Errorf("%s: a shared issuer without claims to pin", p.name)
		}
		if p.replay != ReplayJTI && p.replay != ReplayToken || p.maxAge != 10*time.Minute || p.maxLife < 30*time.Minute {
			t.Errorf("%s: replay %q, max age %v, max life %v", p.name, p.replay, p.maxAge, p.maxLife)
		}
		for _, e := range slices.Concat(p.events.allow, p.events.outside, p.events.known) {
			if slices.Contains(p.events.pull, e) {
				t.Errorf("%s: %s is a pull request and something else", p.name, e)
			}
		}
		for _, e := range p.events.allow {
			if slices.Contains(p.events.outside, e) {
				t.Errorf("%s: %s is allowed by default, though outsiders cause it", p.name, e)
			}
		}
		for _, f := range p.fields {
			cl, ok := targets[f.to]
			if !ok || f.class != cl {
				t.Errorf("%s: no member %s", p.name, f.to)
			}
		}
	}
}

// TestTargets: every member that can be mapped is one of the struct's.
func TestTargets(t *testing.T) {
	for to, cl := range targets {
		id := Identity{}
		switch cl {
		case truth, count:
		default:
			*id.slot(to) = "x"
			got := id.Document().At(strings.Split(to, ".")...)
			if s, _ := got.Text(); s != "x" {
				t.Errorf("%s fills %s", to, id.Document())
			}
		}
	}
}

// TestDocumentIsTheStruct: for every member, and for none.
func TestDocumentIsTheStruct(t *testing.T) {
	var full Identity
	fill(reflect.ValueOf(&full).Elem(), "x")
	for _, id := range []Identity{full, {Kind: "k", Issuer: "i", Platform: "p", Audience: "a"}} {
		data, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		sameDocument(t, id.Document(), data)
	}
	if n := strings.Count(full.Document().String(), ":"); n != 30+4+1 {
		t.Errorf("%d members, want 30, the 4 of platform_runner and the one of attributes", n)
	}
}

func fill(v reflect.Value, path string) {
	for i := range v.NumField() {
		f := v.Field(i)
		name := path + "." + v.Type().Field(i).Name
		switch f.Kind() {
		case reflect.String:
			f.SetString(name)
		case reflect.Int:
			f.SetInt(3)
		case reflect.Pointer:
			f.Set(reflect.ValueOf(new(bool)))
		case reflect.Struct:
			fill(f, name)
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"ns": name}))
		default:
			panic("what to put into " + name)
		}
	}
}

// TestEveryMemberIsExplained: the comments are the documentation.
func TestEveryMemberIsExplained(t *testing.T) {
	for _, file := range []string{"identity.go", "config.go"} {
		syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			typ, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := typ.Type.(*ast.StructType); ok && (typ.Name.Name == "Identity" || typ.Name.Name == "IssuerConfig") {
				for _, f := range s.Fields.List {
					if f.Doc == nil || f.Tag == nil || !strings.Contains(f.Tag.Value, "json:") {
						t.Errorf("%s.%s has no comment or no name on the wire", typ.Name.Name, f.Names[0].Name)
					}
				}
			}
			return true
		})
	}
}

// TestAgreement: two claims that say the same thing differently refuse the
// token, on every platform that says something twice.
func TestAgreement(t *testing.T) {
	for _, tc := range []struct {
		platform string
		edit     []any
		code     proviso.Code
	}{
		{"gitlab", []any{"job_project_id", "1"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"job_project_path", "mallory/app"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"job_namespace_id", "1"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"job_project_id", 40217}, ""},
		{"gitlab", []any{"job_project_id", nil, "job_project_path", nil, "job_namespace_id", nil, "job_namespace_path", nil}, ""},
		{"gitlab", []any{"job_project_id", []string{"40217"}}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"ref", "other"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"ref_type", "tag"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"ref_path", nil}, ""},
		{"gitlab", []any{"sub", "project_path:mallory/app:ref_type:branch:ref:main"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"sub", "project_path:acme-ship/shipping-service-x:ref:main"}, proviso.CodeClaimsInconsistent},
		{"gitlab", []any{"sub", "project_path:acme-ship/shipping-service"}, ""},
		{"gitlab", []any{"sub", "custom"}, ""},
		{"gitlab", []any{"pipeline_source", "parent_pipeline"}, CodeEventNotAllowed},
		{"gitlab", []any{"pipeline_source", "api"}, CodeEventNotAllowed},
		{"gitlab", []any{"job_config", map[string]any{"url": 7}}, proviso.CodeClaimType},
		{"gitlab", []any{"job_config", "x"}, ""},
		{"gitlab", []any{"pipeline_id", nil}, CodeNotAJob},

		{"forgejo", []any{"sub", "repo:acme-ship-17/shipping-service-205:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent},
		{"forgejo", []any{"sub", "repo:mallory/shipping-service:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent},
		{"forgejo", []any{"head_ref", "x"}, proviso.CodeClaimsInconsistent},

		{"buildkite", []any{"sub", "organization:acme-ship:pipeline:other:ref:refs/heads/main"}, proviso.CodeClaimsInconsistent},
		{"buildkite", []any{"sub", "018f2c12-2c8b-4e6f-a011-1b2c3d4e5f60"}, ""},
		{"buildkite", []any{"build_branch", "mallory:main"}, CodeEventNotAllowed},
		{"buildkite", []any{"build_commit", "HEAD"}, ""},
		{"buildkite", []any{"build_commit", "main"}, proviso.CodeTemplateValue},
		{"buildkite", []any{"build_source", "trigger_job"}, CodeEventNotAllowed},
		{"buildkite", []any{"job_id", nil}, CodeNotAJob},

		{"circleci", []any{circle + "org-id", "7f1f6c1a-0c2e-4f7b-9d3a-2b1c0d9e8f70", "sub", "x"}, proviso.CodeClaimsInconsistent},
		{"circleci", []any{"sub", "org/6f1f6c1a-0c2e-4f7b-9d3a-2b1c0d9e8f70/project/1/user/2"}, proviso.CodeClaimsInconsistent},
		{"circleci", []any{circle + "vcs-ref", "refs/pull/7/head"}, CodeEventNotAllowed},
		{"circleci", []any{circle + "ssh-rerun", "maybe"}, proviso.CodeClaimType},
		{"circleci", []any{circle + "vcs-origin", "github.com/acme-ship-evil/app"}, CodeClaimMismatch},
		{"circleci", []any{circle + "vcs-origin", "github.com/acme-ship/x/../app"}, CodeClaimMismatch},

		{"bitbucket", []any{"sub", "{5b0c2d1e-4f3a-4b6c-9d8e-7f6a5b4c3d2e}:{other}"}, proviso.CodeClaimsInconsistent},
		{"bitbucket", []any{"stepUuid", nil}, CodeNotAJob},

		{"azure-devops", []any{"org_id", "a3a2c1d0-e9f8-4a7b-8c6d-5e4f3a2b1c0d"}, proviso.CodeClaimsInconsistent},
		{"azure-devops", []any{"rpo_ref", "refs/pull/7/merge"}, CodeEventNotAllowed},
		{"azure-devops", []any{"rpo_id", "5b0c2d1e-4f3a-4b6c-9d8e-7f6a5b4c3d2e"}, ""},

		{"codefresh", []any{"sub", "account:1:pipeline:2"}, proviso.CodeClaimsInconsistent},
		{"codefresh", []any{"scm_pull_request_target_branch", "main"}, CodeEventNotAllowed},

		{"semaphore", []any{"sub", nil, "org_id", "9b8c7d6e-5f4a-4b3c-8d2e-1f0a9b8c7d6e"}, ""},
		{"semaphore", []any{"job_type", nil}, CodeClaimMissing},
		{"semaphore", []any{"pr", "15"}, CodeEventNotAllowed},
		{"semaphore", []any{"ref_type", "pull_request"}, CodeEventNotAllowed},
		{"semaphore", []any{"ref_type", "tag"}, proviso.CodeClaimsInconsistent},
		{"semaphore", []any{"job_type", "debug_project_job"}, CodeEventNotAllowed},
		{"semaphore", []any{"prj_id", nil}, CodeClaimMissing},

		{"harness", []any{"account_id", "other", "sub", "x"}, proviso.CodeClaimsInconsistent},
		{"harness", []any{"sub", "account/other:org/default"}, proviso.CodeClaimsInconsistent},
		{"harness", []any{"context", "CONNECTOR_TEST"}, CodeEventNotAllowed},
		{"harness", []any{"context", nil}, CodeClaimMissing},

		{"hcp-terraform", []any{"sub", "organization:acme-ship:project:Logistics Prod:workspace:shipping-prod:run_phase:plan"}, proviso.CodeClaimsInconsistent},
		{"hcp-terraform", []any{"sub", "organization:acme-ship:workspace:shipping-prod:run_phase:apply"}, ""},
		{"hcp-terraform", []any{"sub", "organization:acme-ship:workspace:other:run_phase:apply"}, proviso.CodeClaimsInconsistent},

		{"spacelift", []any{"sub", "space:production-01KQ2W3E4R5T6Y7U8I9O0P1A2S:stack:shipping-infra:run_type:TRACKED:scope:read"}, proviso.CodeClaimsInconsistent},
		{"spacelift", []any{"runType", "TASK"}, CodeEventNotAllowed},

		{"google-cloud-build", []any{"azp", "208812345678901234567"}, proviso.CodeAZPMismatch},
		{"google-cloud-build", []any{"azp", nil}, ""},
		{"google-cloud-build", []any{"email_verified", false}, proviso.CodeClaimsInconsistent},
		{"google-cloud-build", []any{"sub", "208812345678901234567"}, CodeClaimMismatch},

		{"generic", []any{"build", nil}, CodeNotAJob},
		{"generic", []any{"build", map[string]any{"id": ""}}, CodeNotAJob},
		{"generic", []any{"trigger", "pull_request"}, CodeEventNotAllowed},
		{"generic", []any{"trigger", nil}, CodeClaimMissing},
		{"generic", []any{"branch", "refs/heads/../x"}, proviso.CodeTemplateValue},
		{"generic", []any{"org", "other"}, CodeClaimMismatch},
	} {
		conf := confs()[tc.platform]
		v := newVerifier(t, conf)
		job, err := admitted(t, v, conf.URL, documentOf(t, example(t, tc.platform).with(tc.edit...)))
		if got := codeOf(t, job, err); got != tc.code {
			t.Errorf("%s %v: code %q, want %q (%v)", tc.platform, tc.edit, got, tc.code, err)
		}
	}
}

// TestPullRequestsHaveNoBranch: also where the operator lets them in and the
// platform names the branch that they are for, or a fork's of the same name.
func TestPullRequestsHaveNoBranch(t *testing.T) {
	for _, tc := range []struct {
		platform string
		events   []string
		edit     []any
	}{
		{"github", []string{"pull_request_target"}, []any{"event_name", "pull_request_target"}},
		{"github", []string{"pull_request"}, []any{"event_name", "pull_request", "ref", "main"}},
		{"gitlab", []string{"merge_request_event"}, []any{"pipeline_source", "merge_request_event"}},
		{"semaphore", []string{"pipeline_job", "pull_request"}, []any{"pr", "7"}},
		{"codefresh", []string{"pull_request"}, []any{"scm_pull_request_target_branch", "main"}},
		{"buildkite", []string{"pull_request"}, []any{"build_branch", "mallory:main"}},
		{"circleci", []string{"pull_request"}, []any{circle + "vcs-ref", "refs/pull/7/head"}},
		{"generic", []string{"merge_request"}, []any{"trigger", "merge_request"}},
	} {
		conf := confs()[tc.platform]
		conf.Events = tc.events
		v := newVerifier(t, conf)
		job, err := admitted(t, v, conf.URL, documentOf(t, example(t, tc.platform).with(tc.edit...)))
		if codeOf(t, job, err) != "" {
			t.Errorf("%s: %v", tc.platform, err)
			continue
		}
		id := job.Identity()
		if !isTrue(id.PullRequest) || id.Branch+id.Tag+id.RefType != "" || id.Protected != nil || id.Ref != "" && !strings.HasPrefix(id.Ref, "refs/pull/") {
			t.Errorf("%s: %s", tc.platform, job.Document())
		}
	}
	// Before 18.4 GitLab doesn't say where a merge request's job runs.
	conf := confs()["gitlab"]
	conf.Events = []string{"merge_request_event"}
	v := newVerifier(t, conf)
	job, err := verify(t, v, example(t, "gitlab").with("pipeline_source", "merge_request_event", "job_project_id", nil))
	wantCode(t, job, err, CodeClaimMissing)
}

// TestReferences: ref, ref_type, branch and tag say the same, from whichever of
// them the platform gives.
func TestReferences(t *testing.T) {
	conf := confs()["generic"]
	conf.Claims = map[string]string{"run_id": "/build/id", "ref": "ref", "ref_type": "type", "branch": "branch", "tag": "tag"}
	conf.Events = nil
	v := newVerifier(t, conf)
	for _, tc := range []struct {
		ref, kind, branch, tag string
		want                   string // ref type branch tag
		code                   proviso.Code
	}{
		{"refs/heads/main", "", "", "", "refs/heads/main branch main ", ""},
		{"refs/heads/a/b", "branch", "a/b", "", "refs/heads/a/b branch a/b ", ""},
		{"refs/heads/main", "tag", "", "", "", proviso.CodeClaimsInconsistent},
		{"refs/heads/main", "", "other", "", "", proviso.CodeClaimsInconsistent},
		{"refs/heads/main", "", "", "v1", "", proviso.CodeClaimsInconsistent},
		{"refs/tags/v1", "tag", "", "v1", "refs/tags/v1 tag  v1", ""},
		{"refs/tags/v1", "branch", "", "", "", proviso.CodeClaimsInconsistent},
		{"refs/tags/v1", "", "main", "", "", proviso.CodeClaimsInconsistent},
		{"main", "", "", "", "main   ", ""},
		{"main", "branch", "", "", "refs/heads/main branch main ", ""},
		{"v1", "tag", "", "", "refs/tags/v1 tag  v1", ""},
		{"main", "release", "", "", "main   ", ""},
		{"", "", "main", "", "refs/heads/main branch main ", ""},
		{"", "", "", "v1", "refs/tags/v1 tag  v1", ""},
		{"", "", "main", "v1", "", proviso.CodeClaimsInconsistent},
		{"", "branch", "", "", "   ", ""},
		{"refs/notes/x", "branch", "x", "", "refs/notes/x   ", ""},
		{"refs/pull/1/merge", "", "", "", "", CodeEventNotAllowed},
		{"refs/merge-requests/1/head", "", "", "", "", CodeEventNotAllowed},
	} {
		job, err := admitted(t, v, conf.URL, documentOf(t, example(t, "generic").with("ref", tc.ref, "type", tc.kind, "branch", tc.branch, "tag", tc.tag)))
		if got := codeOf(t, job, err); got != tc.code {
			t.Errorf("%+v: code %q (%v)", tc, got, err)
			continue
		}
		id := job.Identity()
		if got := strings.Join([]string{id.Ref, id.RefType, id.Branch, id.Tag}, " "); err == nil && got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

// TestForms: which URLs are whose.
func TestForms(t *testing.T) {
	for _, tc := range []struct {
		platform, url string
		tenancy       tenancy
		known         bool
	}{
		{"github", "https://token.actions.githubusercontent.com", shared, true},
		{"github", "https://token.actions.githubusercontent.com/acme", shared, true},
		{"github", "https://token.actions.acme.ghe.com", named, true},
		{"github", "https://ghes.acme.example:8443/_services/token", own, true},
		{"github", "https://ghes.acme.example/_services/token/", shared, false},
		{"github", "https://token.actions.githubusercontent.com/a/b", shared, false},
		{"github", "https://evil.example/token.actions.githubusercontent.com", shared, false},
		{"gitlab", "https://gitlab.com", shared, true},
		{"gitlab", "https://gitlab.acme.example/gitlab", own, true},
		{"circleci", "https://oidc.circleci.com/org/6f1f6c1a-0c2e-4f7b-9d3a-2b1c0d9e8f70", own, true},
		{"circleci", "https://oidc.circleci.com", shared, true},
		{"spacelift", "https://acme.app.spacelift.io", named, true},
		{"semaphore", "https://ci.acme.example", own, true},
		{"harness", "https://app.harness.io/ng/api/oidc/account/Zk1xQ9vTRb2mYp7LwE4n5g", own, true},
		{"harness", "https://app.harness.io/ng/api/oidc/account/", shared, false},
		{"forgejo", "https://codeberg.org/api/actions", shared, true},
		{"generic", "https://x.example", shared, true},
		{"generic", "https://x.example/", shared, true},
		{"generic", "https://x.example/a/", shared, true},
	} {
		got, known := platformNamed(tc.platform).tenancyOf(tc.url)
		if known != tc.known || known && got != tc.tenancy {
			t.Errorf("%s %s: %v %v", tc.platform, tc.url, got, known)
		}
	}
}
