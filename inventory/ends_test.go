package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

const (
	githubTrust = `{"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
  "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"},
  "Condition": {"StringLike": {"token.actions.githubusercontent.com:aud": "AUD", "token.actions.githubusercontent.com:sub": "SUB"}}}]}`
	githubJob = `on:
  EVENT
permissions: {}
jobs:
  deploy:
    runs-on: ubuntu-latest
    ENVIRONMENT
    permissions:
      id-token: write
    steps:
      - name: log in
        uses: aws-actions/configure-aws-credentials@v5
        with:
          role-to-assume: arn:aws:iam::123456789012:role/ci/deploy
          aws-region: eu-central-1
`
	originOf = "[core]\n\tbare = false\n[remote \"upstream\"]\n\turl = https://github.com/elsewhere/x\n[remote \"origin\"]\n\turl = %s\n"
)

// edgesOf prints the edges of a document, one a line.
func edgesOf(inv *Inventory) string {
	paths := make(map[string]*Path)
	for i := range inv.Paths {
		paths[inv.Paths[i].ID] = &inv.Paths[i]
	}
	trusts := make(map[string]string)
	for _, t := range inv.Trusts {
		trusts[t.ID] = t.Target.Name
	}
	var out []string
	for _, e := range inv.Edges {
		line := fmt.Sprintf("%s %s %s", paths[e.Path].Job, e.Can, trusts[e.Trust])
		if e.Named {
			line += " named"
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// What a job of GitHub can assume follows from its repository, its events, its
// environment and the audience that its step asks for.
func TestEdgesOfGitHub(t *testing.T) {
	for name, c := range map[string]struct {
		event, environment, sub, aud string
		origin                       string // "" is a tree without .git/config
		want                         string
	}{
		"the branch":                {event: "push: {branches: [main]}", sub: "repo:acme/shop:ref:refs/heads/main", want: "deploy yes deploy named"},
		"the subject with ids":      {event: "push: {branches: [main]}", sub: "repo:acme@61200123/shop@700100200:ref:refs/heads/main", want: "deploy yes deploy named"},
		"a branch of a filter":      {event: "push: {branches: ['release/**']}", sub: "repo:acme/shop:ref:refs/heads/release/1.2", want: "deploy yes deploy named"},
		"any branch":                {event: "push:", sub: "repo:acme/shop:ref:refs/heads/main", want: "deploy yes deploy named"},
		"a tag":                     {event: "push: {tags: ['v*']}", sub: "repo:acme/shop:ref:refs/tags/v*", want: "deploy yes deploy named"},
		"the environment":           {event: "push: {branches: [main]}", environment: "environment: production", sub: "repo:acme/shop:environment:production", want: "deploy yes deploy named"},
		"a release":                 {event: "release: {types: [published]}", sub: "repo:acme/shop:ref:refs/tags/v1", want: "deploy yes deploy named"},
		"a pull request":            {event: "pull_request:", sub: "repo:acme/shop:pull_request", want: "deploy yes deploy named"},
		"another branch":            {event: "push: {branches: [main]}", sub: "repo:acme/shop:ref:refs/heads/next", want: "deploy no deploy named"},
		"a branch for a tag":        {event: "push: {tags: ['v*']}", sub: "repo:acme/shop:ref:refs/heads/main", want: "deploy no deploy named"},
		"branch, and environment":   {event: "push: {branches: [main]}", environment: "environment: production", sub: "repo:acme/shop:ref:refs/heads/main", want: "deploy no deploy named"},
		"another environment":       {event: "push: {branches: [main]}", environment: "environment: staging", sub: "repo:acme/shop:environment:production", want: "deploy no deploy named"},
		"a computed environment":    {event: "push: {branches: [main]}", environment: "environment: ${{ inputs.where }}", sub: "repo:acme/shop:environment:production", want: "deploy yes deploy named"},
		"a pull request on main":    {event: "pull_request:", sub: "repo:acme/shop:ref:refs/heads/main", want: "deploy no deploy named"},
		"another repository":        {event: "push: {branches: [main]}", sub: "repo:acme/other:*", want: "deploy no deploy named"},
		"another owner":             {event: "push: {branches: [main]}", sub: "repo:evil/shop:*", want: "deploy no deploy named"},
		"another audience":          {event: "push: {branches: [main]}", sub: "repo:acme/shop:*", aud: "https://vault.acme.example", want: "deploy no deploy named"},
		"nobody's repository":       {event: "push: {branches: [main]}", sub: "repo:acme/shop:*", origin: "-", want: "deploy unknown deploy named"},
		"nobody's, another branch":  {event: "push: {branches: [main]}", sub: "repo:acme/shop:ref:refs/heads/next", origin: "-", want: "deploy no deploy named"},
		"an origin with a password": {event: "push: {branches: [main]}", sub: "repo:acme/shop:*", origin: "https://x:hunter2@github.com/acme/shop.git", want: "deploy yes deploy named"},
	} {
		t.Run(name, func(t *testing.T) {
			origin := c.origin
			if origin == "" {
				origin = "git@github.com:acme/shop.git"
			}
			if c.aud == "" {
				c.aud = "sts.amazonaws.com"
			}
			files := []txtar.File{
				{Name: ".github/workflows/deploy.yml", Data: []byte(strings.NewReplacer("EVENT", c.event, "    ENVIRONMENT\n", indented(c.environment)).Replace(githubJob))},
				{Name: "infra/deploy-trust.json", Data: []byte(strings.NewReplacer("SUB", c.sub, "AUD", c.aud).Replace(githubTrust))},
			}
			if origin != "-" {
				files = append(files, txtar.File{Name: ".git/config", Data: fmt.Appendf(nil, originOf, origin)})
			}
			inv := inspect(t, &txtar.Archive{Files: files})
			if got := edgesOf(inv); got != c.want {
				t.Errorf("got %q, want %q: %+v", got, c.want, inv.Edges)
			}
			refused := slices.ContainsFunc(inv.Findings, func(f Finding) bool { return f.Rule == ruleTrustRefuses.Name })
			if refused != strings.Contains(c.want, " no ") {
				t.Errorf("refused by a finding: %v", refused)
			}
			for _, p := range inv.Paths {
				if strings.Contains(fmt.Sprintf("%+v", p), "hunter2") {
					t.Error("the password of the origin is in the document")
				}
			}
		})
	}
}

func indented(s string) string {
	if s == "" {
		return ""
	}
	return "    " + s + "\n"
}

// A branch that a filter excludes is none that the token can name.
func TestExcludedBranches(t *testing.T) {
	if got := refPatterns([]string{"main", "!next", "release/**", "v[12].x"}); !slices.Equal(got, []string{"main", "release/*", "v*.x"}) {
		t.Errorf("got %q", got)
	}
}

// A job can use what it doesn't name, too: it may ask for any audience.
func TestEdgesThatNobodyAskedFor(t *testing.T) {
	inv := inspect(t, txtar.Parse([]byte(`
-- .git/config --
[remote "origin"]
	url = https://github.com/acme/shop
-- .github/workflows/test.yml --
on: [pull_request]
jobs:
  attest:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - uses: actions/attest@v3
-- infra/pr-trust.json --
`+strings.NewReplacer("SUB", "repo:acme/shop:*", "AUD", "sts.amazonaws.com").Replace(githubTrust)+"\n")))
	if got := edgesOf(inv); got != "attest yes pr" {
		t.Errorf("got %q", got)
	}
}

// Pipelines and infrastructure in trees of their own are joined, and their
// names stay apart.
func TestEdgesOverSeveralRoots(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"shop/.git/config":                  fmt.Sprintf(originOf, "ssh://git@github.com:22/acme/shop.git"),
		"shop/.github/workflows/deploy.yml": strings.NewReplacer("EVENT", "push: {branches: [main]}", "    ENVIRONMENT\n", "").Replace(githubJob),
		"infra/deploy-trust.json":           strings.NewReplacer("SUB", "repo:acme/shop:*", "AUD", "sts.amazonaws.com").Replace(githubTrust),
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var docs []*Inventory
	for _, name := range []string{"shop", "infra"} {
		dir := filepath.Join(root, name)
		inv, err := Scan(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(t.Context(), inv, dir, Options{}); err != nil {
			t.Fatal(err)
		}
		docs = append(docs, inv)
	}
	inv := Merge(docs)
	if got := edgesOf(inv); got != "deploy yes deploy named" {
		t.Fatalf("got %q", got)
	}
	found := false
	for _, f := range inv.Findings {
		found = found || f.Rule == ruleTrustAnyRef.Name && f.File == filepath.ToSlash(filepath.Join(root, "infra", "deploy-trust.json"))
	}
	if !found {
		t.Error("the finding doesn't say in which root its file is")
	}
	before := len(inv.Findings)
	if inv.connect(); len(inv.Findings) != before || edgesOf(inv) != "deploy yes deploy named" {
		t.Error("joining twice isn't the same as joining once")
	}
}

// The other systems and the other targets.
func TestEdgesOfOthers(t *testing.T) {
	for name, c := range map[string]struct{ files, want string }{
		"GitLab with its audience": {`
-- .git/config --
[remote "origin"]
	url = https://gitlab.com/acme/shop.git
-- .gitlab-ci.yml --
deploy:
  id_tokens:
    AWS: {aud: sts.amazonaws.com}
  script:
    - aws sts assume-role-with-web-identity --role-arn arn:aws:iam::123456789012:role/gl --web-identity-token "$AWS"
-- gl.json --
{"Role": {"RoleName": "gl", "AssumeRolePolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
 "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/gitlab.com"},
 "Condition": {"StringEquals": {"gitlab.com:aud": "sts.amazonaws.com"}, "StringLike": {"gitlab.com:sub": "project_path:acme/shop:ref_type:branch:ref:*"}}}]}}}
`, "deploy yes gl named"},
		"GitLab with another audience": {`
-- .git/config --
[remote "origin"]
	url = https://gitlab.com/acme/shop.git
-- .gitlab-ci.yml --
deploy:
  id_tokens:
    AWS: {aud: https://aws.acme.example}
  script:
    - aws sts assume-role-with-web-identity --role-arn arn:aws:iam::123456789012:role/gl --web-identity-token "$AWS"
-- gl.json --
{"Role": {"RoleName": "gl", "AssumeRolePolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
 "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/gitlab.com"},
 "Condition": {"StringEquals": {"gitlab.com:aud": "sts.amazonaws.com"}}}]}}}
`, "deploy no gl named"},
		"GitLab's group elsewhere": {`
-- .git/config --
[remote "origin"]
	url = https://gitlab.acme.example/acme/shop.git
-- .gitlab-ci.yml --
deploy:
  id_tokens:
    AWS: {aud: sts.amazonaws.com}
  script: [make]
-- gl.json --
{"Role": {"RoleName": "gl", "AssumeRolePolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
 "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/gitlab.com"}}]}}}
`, ""},
		"Vault, octo-sts, Google and Proviso by their names": {`
-- .git/config --
[remote "origin"]
	url = https://github.com/acme/shop
-- .github/workflows/all.yml --
on: {push: {branches: [main]}}
jobs:
  all:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - name: vault
        uses: hashicorp/vault-action@v3
        with: {url: https://vault.acme.example, method: jwt, role: shop, path: github, jwtGithubAudience: https://vault.acme.example, secrets: secret/data/x y}
      - name: sts
        uses: octo-sts/action@v1
        with: {scope: acme/shop, identity: release}
      - name: google
        uses: google-github-actions/auth@v3
        with: {workload_identity_provider: projects/1/locations/global/workloadIdentityPools/ci/providers/github, service_account: deploy@acme.iam.gserviceaccount.com}
      - name: broker
        run: proviso token --grant deploy
-- .github/chainguard/release.sts.yaml --
issuer: https://token.actions.githubusercontent.com
subject: repo:acme/shop:ref:refs/heads/main
permissions: {contents: write}
-- vault.tf --
resource "vault_jwt_auth_backend" "gh" {
  path               = "github"
  oidc_discovery_url = "https://token.actions.githubusercontent.com"
}
resource "vault_jwt_auth_backend_role" "shop" {
  backend         = vault_jwt_auth_backend.gh.path
  role_name       = "shop"
  role_type       = "jwt"
  user_claim      = "sub"
  bound_audiences = ["https://vault.acme.example"]
  bound_claims    = { repository = "acme/shop" }
}
-- gcp.tf --
resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = "ci"
  workload_identity_pool_provider_id = "github"
  attribute_mapping                  = { "google.subject" = "assertion.sub", "attribute.repository" = "assertion.repository" }
  attribute_condition                = "assertion.repository_owner == 'acme'"
  oidc { issuer_uri = "https://token.actions.githubusercontent.com" }
}
resource "google_service_account_iam_member" "deploy" {
  service_account_id = "projects/acme/serviceAccounts/deploy@acme.iam.gserviceaccount.com"
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/attribute.repository/acme/shop"
}
-- proviso.yaml --
server: {url: https://proviso.acme.example}
issuers: [{name: github, platform: github, url: https://token.actions.githubusercontent.com, events: [push]}]
policy: {dir: policy}
grants:
  deploy: {policy: production}
  other: {policy: other}
`, "all unknown deploy named; all unknown other; all yes acme/shop/release named; all yes deploy@acme.iam.gserviceaccount.com named; all yes github/shop named; all yes workloadIdentityPools/ci/providers/github named"},
		"systems that sign nothing alike": {`
-- .circleci/config.yml --
version: 2.1
jobs:
  deploy:
    docker: [{image: cimg/base:current}]
    steps:
      - run: aws sts assume-role-with-web-identity --role-arn arn:aws:iam::123456789012:role/x --web-identity-token "$CIRCLE_OIDC_TOKEN"
workflows:
  w: {jobs: [deploy]}
-- trust.json --
` + strings.NewReplacer("SUB", "repo:acme/shop:*", "AUD", "sts.amazonaws.com").Replace(githubTrust) + "\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inv := inspect(t, txtar.Parse([]byte(c.files)))
			if diff := cmp.Diff(c.want, edgesOf(inv)); diff != "" {
				t.Errorf("(-want +got)\n%s\n%+v", diff, inv.Edges)
			}
		})
	}
}

// A document that has not all edges says so, and no rule takes what is left
// out for what is not there.
func TestEdgesBeyondTheBound(t *testing.T) {
	files := "-- .git/config --\n[remote \"origin\"]\n\turl = https://github.com/acme/shop\n-- .github/workflows/w.yml --\non: [push]\njobs:\n"
	for _, job := range []string{"a", "b"} {
		files += "  " + job + ":\n    runs-on: ubuntu-latest\n    permissions: {id-token: write}\n    steps: [{run: make}]\n"
	}
	for _, name := range []string{"one", "two"} {
		files += "-- " + name + "-trust.json --\n" + strings.NewReplacer("SUB", "repo:acme/shop:*", "AUD", "sts.amazonaws.com").Replace(githubTrust) + "\n"
	}
	inv := inspect(t, txtar.Parse([]byte(files)))
	cut := func() (out []Unresolved) {
		for _, u := range inv.Unresolved {
			if u.Kind == KindEdges {
				out = append(out, u)
			}
		}
		return out
	}
	unused := func() int {
		return len(slices.DeleteFunc(slices.Clone(inv.Findings), func(f Finding) bool { return f.Rule != ruleTrustUnused.Name }))
	}
	if inv.connectUpTo(4); len(inv.Edges) != 4 || len(cut()) != 0 {
		t.Fatalf("%s, and of all edges some are left out: %+v", edgesOf(inv), cut())
	}
	for range 2 { // joining again doesn't say it twice
		inv.connectUpTo(3)
		if got := cut(); len(inv.Edges) != 3 || len(got) != 1 || got[0].Name != "1 edge" || got[0].Job != "b" || got[0].File != ".github/workflows/w.yml" || !strings.Contains(got[0].Why, "more than 3 pairs") {
			t.Fatalf("%s; said: %+v", edgesOf(inv), got)
		}
	}
	if inv.connectUpTo(0); len(inv.Edges) != 0 || unused() != 0 {
		t.Errorf("%d trusts are called unused, whose edges were left out", unused())
	}
	if inv.connect(); len(inv.Edges) != 4 || len(cut()) != 0 {
		t.Errorf("%s; said of a whole document: %+v", edgesOf(inv), cut())
	}
}

// A trust of which not even the issuer is known says nothing of jobs that don't name it.
func TestEdgesOfAnUnknownIssuer(t *testing.T) {
	inv := inspect(t, txtar.Parse([]byte(`
-- .git/config --
[remote "origin"]
	url = https://github.com/acme/shop
-- .github/workflows/w.yml --
on: {push: {branches: [main]}}
jobs:
  asks:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - uses: hashicorp/vault-action@v3
        with: {url: https://vault.acme.example, method: jwt, role: shop, secrets: secret/data/x y}
  other:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps: [{run: make}]
-- vault.tf --
resource "vault_jwt_auth_backend_role" "shop" {
  backend      = var.backend
  role_name    = "shop"
  role_type    = "jwt"
  user_claim   = "sub"
  bound_claims = var.claims
}
`)))
	if len(inv.Trusts) != 1 || inv.Trusts[0].Issuer != "" || inv.Trusts[0].Platform() != "" {
		t.Fatalf("this is meant to be a trust of an unknown issuer: %+v", inv.Trusts)
	}
	if got := edgesOf(inv); got != "asks unknown shop named" {
		t.Errorf("got %q", got)
	}
}

// The origin of a clone names its repository; what isn't one names none.
func TestRemotes(t *testing.T) {
	for url, want := range map[string]repository{
		"https://github.com/acme/shop.git":         {"github.com", "acme/shop"},
		"https://x:y@github.com/acme/shop":         {"github.com", "acme/shop"},
		"git@github.com:acme/shop.git":             {"github.com", "acme/shop"},
		"ssh://git@gitlab.acme.example:2222/a/b/c": {"gitlab.acme.example", "a/b/c"},
		"acme/shop":                                 {"", "acme/shop"},
		"https://dev.azure.com/acme/p/_git/shop":    {"dev.azure.com", "acme/p/_git/shop"},
		"file:///srv/git/shop.git":                  {},
		"/srv/git/shop.git":                         {},
		"../shop":                                   {},
		"https://github.com/":                       {},
		"https://github.com/acme/shop;rm -rf $HOME": {},
		"C:\\repos\\shop":                           {},
	} {
		if got := parseRemote(url); got != want && !(want.slug == "" && got.slug == "") {
			t.Errorf("%q is %+v, want %+v", url, got, want)
		}
	}
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(outside, fmt.Appendf(nil, originOf, "https://github.com/acme/outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "linked", ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "linked", ".git", "config")); err != nil {
		t.Fatal(err)
	}
	if got := newRepositories(root, "").of("linked"); got.slug != "" {
		t.Errorf("a link out of the tree was followed: %+v", got)
	}
	if got := newRepositories(root, "acme/named").of("linked/.github"); got.slug != "acme/named" {
		t.Errorf("the name that was given is %+v", got)
	}
}
