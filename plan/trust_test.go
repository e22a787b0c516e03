package plan

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclparse"
	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/trust"
)

// Every generated file is what its name says: Terraform parses, shells read the
// scripts, YAML is YAML.
func TestGeneratedFilesAreWellFormed(t *testing.T) {
	for _, route := range []Route{Direct, ThroughProviso} {
		for _, name := range fixtures {
			t.Run(string(route)+"/"+name, func(t *testing.T) {
				wellFormed(t, planOf(t, clone(t, name), Options{Route: route}))
			})
		}
	}
}

// wellFormed gives the generated files to the parsers of their languages.
func wellFormed(t *testing.T, p *Plan) {
	t.Helper()
	dir := write(t, p)
	blocks := make(map[string]string) // of one Terraform module: names must be unique
	for _, f := range p.Files {
		switch filepath.Ext(f.Name) {
		case ".tf":
			file, diags := hclparse.NewParser().ParseHCL([]byte(f.Text), f.Name)
			if diags.HasErrors() {
				t.Errorf("%s: %v\n%s", f.Name, diags, f.Text)
				continue
			}
			for _, b := range blocksOf(t, file) {
				if other, ok := blocks[b]; ok {
					t.Errorf("%s stands in %s and in %s", b, other, f.Name)
				}
				blocks[b] = f.Name
			}
		case ".sh":
			for _, shell := range []string{"bash", "sh"} {
				if out, err := exec.Command(shell, "-n", filepath.Join(dir, f.Name)).CombinedOutput(); err != nil {
					t.Errorf("%s -n %s: %v\n%s\n%s", shell, f.Name, err, out, f.Text)
				}
			}
			if !f.Executable {
				t.Errorf("%s is not executable", f.Name)
			}
		case ".yaml":
			var v any
			if err := yaml.Unmarshal([]byte(f.Text), &v); err != nil {
				t.Errorf("%s: %v\n%s", f.Name, err, f.Text)
			}
		}
	}
	for _, v := range p.Variables {
		if strings.ContainsAny(v.Name, "-./ ") || v.What == "" || v.How == "" {
			t.Errorf("the variable %q: %q, %q", v.Name, v.What, v.How)
		}
	}
}

// A script asks for its variables before it does anything.
func TestScriptsAskFirst(t *testing.T) {
	p := planOf(t, clone(t, "github"), Options{})
	dir := write(t, p)
	asked := 0
	for _, f := range p.Files {
		if !strings.HasSuffix(f.Name, ".sh") || !strings.Contains(f.Text, ":?") {
			continue
		}
		asked++
		cmd := exec.Command("sh", filepath.Join(dir, f.Name))
		cmd.Env = []string{"PATH=" + t.TempDir()} // nothing of it could run
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "is not set, see the comment above it") || strings.Contains(string(out), "not found") {
			t.Errorf("%s: %v: %s", f.Name, err, out)
		}
	}
	if asked < 5 {
		t.Errorf("only %d scripts ask for something", asked)
	}
}

// The values that a user of GitHub would set.
var githubValues = map[string]string{
	"subject_acme_shop": "repo:acme@61200123/shop@700100", "repository_id_acme_shop": "700100", "owner_id_github_acme": "61200123",
}

// The generated trust lets in the jobs that used the secret, in the form of the
// subject that the repository has, and nobody else: asked of package trust,
// which reads foreign Terraform.
func TestTrustIsExact(t *testing.T) {
	p := planOf(t, clone(t, "github"), Options{Set: githubValues, Broker: "https://proviso.acme.example"})
	dir := write(t, p)
	found, err := trust.Scan(t.Context(), filepath.Join(dir, "trust"), trust.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const issuer = trust.GitHubIssuer
	job := func(sub, aud string, claims ...string) trust.Identity {
		c := map[string][]string{"sub": {sub}, "repository_id": {"700100"}}
		for i := 0; i+1 < len(claims); i += 2 {
			c[claims[i]] = []string{claims[i+1]}
		}
		return trust.Identity{Issuer: issuer, Audiences: []string{aud}, Claims: c}
	}
	const repo = "repo:acme@61200123/shop@700100"
	audience := map[trust.Kind]string{trust.AWSRole: "sts.amazonaws.com", trust.AzureCredential: "api://AzureADTokenExchange", trust.VaultRole: "vault:shop-vault-role"}
	seen := make(map[trust.Kind]int)
	for i := range found.Trusts {
		tr := &found.Trusts[i]
		aud, ok := audience[tr.Kind]
		if !ok || tr.Issuer != issuer {
			continue
		}
		seen[tr.Kind]++
		if got := accepted(found, tr, job(repo+":ref:refs/heads/main", aud)); got != trust.Yes {
			t.Errorf("%s %s: the job itself: %s", tr.File, tr.Kind, got)
		}
		for what, id := range map[string]trust.Identity{
			"another branch":            job(repo+":ref:refs/heads/feature", aud),
			"a pull request":            job(repo+":pull_request", aud),
			"another repository":        job("repo:acme@61200123/other@9:ref:refs/heads/main", aud, "repository_id", "9"),
			"the name in the old form":  job("repo:acme/shop:ref:refs/heads/main", aud),
			"another owner of the name": job("repo:acme@666/shop@700100:ref:refs/heads/main", aud),
			"another audience":          job(repo+":ref:refs/heads/main", "https://github.com/acme"),
		} {
			if got := accepted(found, tr, id); got == trust.Yes {
				t.Errorf("%s %s accepts %s", tr.File, tr.Kind, what)
			}
		}
	}
	for kind := range audience {
		if seen[kind] == 0 {
			t.Errorf("no trust of kind %s was found in what was written", kind)
		}
	}
	for _, problem := range found.Problems {
		t.Errorf("package trust can't read what was written: %+v", problem)
	}
}

// accepted asks all parts of one target.
func accepted(found *trust.Found, tr *trust.Trust, id trust.Identity) trust.Answer {
	answer := tr.Accepts(id).Answer
	for i := range found.Trusts {
		other := &found.Trusts[i]
		if other.Kind == tr.Kind && other.Target == tr.Target && other.File == tr.File && other != tr {
			if a := other.Accepts(id).Answer; a == trust.Yes {
				return trust.Yes
			}
		}
	}
	return answer
}

// Names from pipelines break out of no generated file.
func TestHostileNamesStayNames(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"cat", "mktemp", "rm", "touch"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	for _, opt := range []Options{{}, {Route: ThroughProviso}} {
		dir := clone(t, "hostile")
		p := planOf(t, dir, opt)
		if len(p.Items) < 6 {
			t.Fatalf("only %d items", len(p.Items))
		}
		wellFormed(t, p)
		out := write(t, p)
		for _, f := range p.Files {
			if strings.Contains(f.Name, "..") || strings.ContainsAny(f.Name, "\n \"'$`;\\") {
				t.Errorf("a file is called %q", f.Name)
			}
			for _, line := range strings.Split(f.Text, "\n") {
				if strings.HasPrefix(strings.TrimSpace(line), "BREAKOUT") || strings.HasPrefix(line, "evil") {
					t.Errorf("%s: a name became a line of its own: %q", f.Name, line)
				}
			}
			if strings.HasSuffix(f.Name, ".sh") { // none of the names may run as a command
				cmd := exec.Command(shell, filepath.Join(out, f.Name))
				cmd.Dir = t.TempDir()
				cmd.Env = []string{"PATH=" + bin, "HOME=" + cmd.Dir, "TMPDIR=" + t.TempDir()}
				for _, v := range p.Variables {
					cmd.Env = append(cmd.Env, strings.ToUpper(v.Name)+"=x")
				}
				_ = cmd.Run() // aws and the others aren't there
				if left, _ := os.ReadDir(cmd.Dir); len(left) > 0 {
					t.Errorf("%s ran what stands in a name: %v", f.Name, left)
				}
			}
		}
		for _, it := range p.Items {
			if it.Patch != nil {
				git(t, dir, "apply", filepath.Join(out, it.Patch.File))
			}
		}
	}
}
