package trust

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// Files that try to cost more than they should, or to lead astray: the scan
// ends quickly, says what it could not read, and still reads the good file
// beside them.
func TestHostileFiles(t *testing.T) {
	good := `{"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": "arn:aws:iam::1:oidc-provider/gitlab.com"}}]}`
	role := func(policy string) string {
		return "resource \"aws_iam_role\" \"x\" {\n  name = \"x\"\n  assume_role_policy = " + policy + "\n}\n# AssumeRoleWithWebIdentity\n"
	}
	doubling := "locals {\n  l0 = \"AssumeRoleWithWebIdentity AssumeRoleWithWebIdentity\"\n"
	for i := 1; i < 60; i++ {
		doubling += fmt.Sprintf("  l%d = \"${local.l%d}${local.l%d}\"\n", i, i-1, i-1)
	}
	doubling += "}\n" + role("local.l59")
	alias := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		alias += fmt.Sprintf("%c: &%c [%s]\n", 'a'+i, 'a'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c, ", 'a'+i-1), 9), ", "))
	}
	// Each of the modules a/m0, a/m0/m1, ... calls the next one sixty times.
	calls := ""
	for i := range 60 {
		calls += fmt.Sprintf("module \"m%d\" {\n  source = \"./m\"\n}\n", i)
	}
	for name, h := range map[string]struct{ file, text, want string }{
		"deep JSON":        {"deep.json", `"AssumeRoleWithWebIdentity"` + strings.Repeat("[", 100_000), "nesting is deeper"},
		"deep YAML":        {"deep.yaml", "AssumeRoleWithWebIdentity:\n" + strings.Repeat("- ", 50_000), "nesting is deeper"},
		"deep Terraform":   {"deep.tf", role(strings.Repeat("(", 100_000)), "nesting is deeper"},
		"unary Terraform":  {"unary.tf", role(strings.Repeat("!", 100_000) + "true"), "longer than a parser should follow"},
		"minus Terraform":  {"minus.tf", role(strings.Repeat("- ", 100_000) + "1"), "longer than a parser should follow"},
		"ternary":          {"ternary.tf", role(strings.Repeat("true ? 1 : ", 30_000) + "1"), "longer than a parser should follow"},
		"broken Terraform": {"broken.tf", role("jsonencode({"), "the Terraform file is broken here"},
		"doubling locals":  {"double.tf", doubling, ""},
		"circle":           {"circle.tf", "locals {\n  a = local.b\n  b = local.a\n}\n" + role("local.a"), ""},
		"loops in loops":   {"loops.tf", role("jsonencode([for a in range(1000) : [for b in range(1000) : [for c in range(1000) : a]]])"), ""},
		"many instances":   {"each.tf", "resource \"aws_iam_role\" \"x\" {\n  for_each = toset(split(\",\", \"" + strings.TrimSuffix(numbers(5000), ",") + "\"))\n  name = each.key\n  assume_role_policy = jsonencode(" + good + ")\n}\n", "for_each has more than 64 elements"},
		"width":            {"width.tf", role(`format("%999999999d", 1)`), ""},
		"aliases":          {"alias.yaml", alias + "l: AssumeRoleWithWebIdentity\nStatement: *l\n", ""},
		"binary":           {"binary.json", "AssumeRoleWithWebIdentity\x00\x01", "no UTF-8 text"},
		"large":            {"large.json", "AssumeRoleWithWebIdentity" + strings.Repeat(" ", 2<<20), "larger than the limit"},
		"large Terraform":  {"large.tf", "# AssumeRoleWithWebIdentity\n" + strings.Repeat("#\n", 300_000), "larger than the limit"},
		"broken YAML":      {"broken.yaml", "AssumeRoleWithWebIdentity: [\n", "this looks like an AWS trust policy"},
		"circle of calls":  {"a/circle.tf", "module \"a\" {\n  source = \"../a\"\n  x = module.a.y\n}\noutput \"y\" {\n  value = module.a.y\n}\n" + role("module.a.y"), ""},
		"calls of calls":   {"a/m/m/m/m/main.tf", calls, "too many calls of modules"},
		"cut off":          {"cut.tf", "# AssumeRoleWithWebIdentity\nresource \"aws_iam_role\" \"m\" {\n  name               = \"machine\"\n  assume_role_policy = jsonencode({ Statement ", "the Terraform file is broken here"},
		"octo list":        {".github/chainguard/x.sts.yaml", "- a\n", "is no mapping"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			files := []txtar.File{{Name: "bad/" + h.file, Data: []byte(h.text)}, {Name: "good/trust.json", Data: []byte(good)}}
			if name == "calls of calls" {
				for _, i := range []int{0, 1, 2, 3, 5} {
					files = append(files, txtar.File{Name: "bad/a" + strings.Repeat("/m", i) + "/main.tf", Data: []byte(h.text + role(`"AssumeRoleWithWebIdentity"`))})
				}
			}
			found := extract(t, &txtar.Archive{Files: files})
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			read := false
			for _, tr := range found.Trusts {
				read = read || tr.File == "good/trust.json"
			}
			if !read {
				t.Error("the good file beside it was not read")
			}
			said := ""
			for _, p := range found.Problems {
				said += fmt.Sprintf("%s:%d: %s\n", p.File, p.Line, p.Why)
			}
			if strings.Contains(said, "the reader failed") {
				t.Error(said)
			}
			if !strings.Contains(said, h.want) || h.want != "" && !strings.Contains(said, "bad/"+h.file) {
				t.Errorf("it says %q, and should say %q of %s", said, h.want, h.file)
			}
		})
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()
}

// A link out of the tree is not followed, and a root that isn't there is an error.
func TestTheTreeIsNotLeft(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "trust.json"), []byte(`{"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": "x"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link.json", "dir"} {
		target := filepath.Join(outside, "trust.json")
		if name == "dir" {
			target = outside
		}
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Scan(t.Context(), root, Options{})
	if err != nil || len(found.Trusts) != 0 {
		t.Errorf("%d trusts from outside, %v", len(found.Trusts), err)
	}
	if _, err := Scan(t.Context(), filepath.Join(root, "nowhere"), Options{}); err == nil {
		t.Error("a root that isn't there is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, outside, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context gives %v", err)
	}
}
