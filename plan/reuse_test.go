package plan

import (
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/inventory"
)

// role is a role of Terraform's that GitHub's jobs of some subjects assume.
func role(name, subjects string) string {
	return `
data "aws_iam_policy_document" "` + name + `" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = ["arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringLike"
      variable = "token.actions.githubusercontent.com:sub"
      values   = ["` + subjects + `"]
    }
  }
}

resource "aws_iam_role" "` + name + `" {
  name               = "` + name + `"
  assume_role_policy = data.aws_iam_policy_document.` + name + `.json
}
`
}

// A role that takes the jobs already is used; one that takes others, or not all
// of them, is not, and of two no plan chooses.
func TestExistingTrustsAreUsed(t *testing.T) {
	const workflow = "name: d\non: {push: {branches: [main]}}\njobs:\n  d:\n    runs-on: ubuntu-latest\n    permissions: {contents: read}\n    steps:\n      - uses: aws-actions/configure-aws-credentials@v4\n        with:\n          aws-access-key-id: ${{ secrets.AWS_ACCESS_KEY_ID }}\n          aws-secret-access-key: ${{ secrets.AWS_SECRET_ACCESS_KEY }}\n          aws-region: eu-central-1\n"
	for name, c := range map[string]struct {
		roles string
		used  string // the role, "" for none
		note  string
		broad bool
	}{
		"none":                    {"", "", "", false},
		"exactly this branch":     {role("deploy", "repo:acme/shop:ref:refs/heads/main"), "deploy", "", false},
		"with ids":                {role("deploy", "repo:acme@61200123/shop@700100:ref:refs/heads/main"), "deploy", "", false},
		"all of the repository":   {role("deploy", "repo:acme/shop:*"), "deploy", "takes other branches", true},
		"all of the organisation": {role("deploy", "repo:acme/*"), "", "those of other repositories too", false},
		"everybody":               {role("deploy", "*"), "", "those of other repositories too", false},
		"another repository":      {role("deploy", "repo:acme/other:ref:refs/heads/main"), "", "", false},
		"another branch":          {role("deploy", "repo:acme/shop:ref:refs/heads/release"), "", "", false},
		"an environment":          {role("deploy", "repo:acme/shop:environment:production"), "", "", false},
		"two of them":             {role("one", "repo:acme/shop:ref:refs/heads/main") + role("two", "repo:acme/shop:ref:refs/heads/main"), "", "These take the jobs already: one (roles.tf:3), two (roles.tf:28)", false},
	} {
		dir := t.TempDir()
		put(t, dir, ".github/workflows/d.yml", workflow)
		put(t, dir, ".git/config", "[remote \"origin\"]\n\turl = https://github.com/acme/shop.git\n")
		put(t, dir, "roles.tf", c.roles)
		inv := scan(t, dir)
		if err := inventory.Check(t.Context(), inv, dir, inventory.Options{}); err != nil {
			t.Fatal(err)
		}
		p, err := Make(t.Context(), []Tree{{Dir: dir, Inventory: inv}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		it := p.Items[0]
		switch {
		case c.used == "" && it.Reuse != nil:
			t.Errorf("%s: %+v is used", name, it.Reuse)
		case c.used == "" && len(it.Trust.Files) == 0:
			t.Errorf("%s: no trust was written", name)
		case c.used != "" && (it.Reuse == nil || it.Reuse.Target != c.used || it.Reuse.Broad != c.broad):
			t.Errorf("%s: %+v", name, it.Reuse)
		case c.used != "" && (len(it.Trust.Files) > 0 || len(p.Foundations) > 0 || p.Text("trust/variables.tf") != ""):
			t.Errorf("%s: trust was written beside the one that there is: %v", name, it.Trust.Files)
		}
		if !strings.Contains(strings.Join(it.Notes, "\n"), c.note) {
			t.Errorf("%s: %q; want %q", name, it.Notes, c.note)
		}
		if it.Patch == nil {
			t.Errorf("%s: no patch: %+v", name, it.Manual)
		}
		if c.roles != "" && c.used == "" && c.note == "" && !strings.Contains(p.Foundations[0].Why, "roles.tf:") {
			t.Errorf("%s: nobody is told that the account trusts the issuer already: %s", name, p.Foundations[0].Why)
		}
	}
}
