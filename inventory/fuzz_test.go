package inventory

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzNames are the names under which a text reaches each reader.
var fuzzNames = []string{".github/workflows/a.yml", ".forgejo/workflows/a.yml", "action.yml", ".gitlab-ci.yml", ".circleci/config.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", ".buildkite/pipeline.yml",
	"Jenkinsfile", "t.yaml", ".drone.yml", ".woodpecker.yml", ".travis.yml", "cloudbuild.yaml", "buildspec.yml"}

// FuzzScan holds what every scan promises, whatever the file says: it ends,
// no reader fails, lines lie inside of the file, and nothing has an empty name.
func FuzzScan(f *testing.F) {
	err := filepath.WalkDir("testdata/truth", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".want") {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for i, n := range fuzzNames {
			if pathLooksLike(p, n) {
				f.Add(uint8(i), text)
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name uint8, text []byte) {
		dir := t.TempDir()
		file := fuzzNames[int(name)%len(fuzzNames)]
		full := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, text, 0o644); err != nil {
			t.Fatal(err)
		}
		inv, err := Scan(t.Context(), dir, Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		lines := 1 + strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + strings.Count(string(text), "\u0085") + strings.Count(string(text), "\u2028") + strings.Count(string(text), "\u2029")
		if strings.IndexByte(string(text), 0) >= 0 || !utf8.Valid(text) {
			lines = len(text) + 1 // another encoding
		}
		for _, f := range inv.Files {
			if strings.Contains(f.Detail, "the reader failed") {
				t.Errorf("%s: %s", f.File, f.Detail)
			}
		}
		for _, p := range inv.Paths {
			if p.Line < 1 || p.Line > lines {
				t.Errorf("line %d of a file with %d lines: %+v", p.Line, lines, p)
			}
			if p.Credential.Name == "" || p.Resource.Kind == "" || p.Resource.Name == "" || p.Reach.Trust == "" || p.Runner.Kind == "" || p.ID == "" {
				t.Errorf("a path with a hole: %+v", p)
			}
		}
		for _, u := range inv.Unresolved {
			if u.Line < 1 || u.Line > lines || u.Kind == "" || u.Why == "" {
				t.Errorf("an unresolved part with a hole, or on line %d of %d: %+v", u.Line, lines, u)
			}
		}
	})
}

// pathLooksLike reports whether a file of the truth is a seed for a name: the directories of the truth are the systems.
func pathLooksLike(p, name string) bool {
	ci, sure := pathCI(name)
	parts := strings.Split(filepath.ToSlash(p), "/")
	if len(parts) < 3 {
		return false
	}
	switch name {
	case "action.yml":
		return strings.HasSuffix(p, "action.yml")
	case "t.yaml":
		return parts[2] == string(Tekton) || parts[2] == string(Argo)
	}
	return (sure || ci != "") && parts[2] == string(ci)
}

// FuzzShell holds that reading a script ends, and that its lines lie inside of it.
func FuzzShell(f *testing.F) {
	for _, s := range []string{"a=$(b `c $d` <<E\nx\nE\n)", "echo \"${A:-${B:-$(c)}}\" | docker login -u x --password-stdin", "cat <<'E' > f && x\n$A\nE\n", "$env:X = \"y\"; %A%", "if [ -n \"$A\" ]; then b; fi", "a <<A <<-B\nA\n\tB\n", "\\\n\\", "${", "$(", "`", "'", "<<"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Count(s, "\n")
		for _, c := range parseShell(s) {
			if c.line < 0 || c.line > lines {
				t.Errorf("a command on line %d of %d", c.line, lines)
			}
		}
		for _, u := range readScript(s, map[string][]string{"A": {"B"}, "B": {}}).uses {
			if u.line < 0 || u.line > lines+1 || u.name == "" {
				t.Errorf("the use %+v in %d lines", u, lines)
			}
		}
	})
}

// FuzzExpr and FuzzGroovy hold that the parsers end on any text.
func FuzzExpr(f *testing.F) {
	for _, s := range []string{"secrets.A || secrets['B']", "fromJSON('[\"a\"]')[0]", "!(a == 'b' && c)", "format('{0}{1}', matrix.a, b)", "((((", "a.b.*.c", "'it''s'", "1e9 != -0x1"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		e := parseExpr(s)
		e.each(func(*expr) bool { return true })
		e.eval(func(string) (string, bool) { return "x", true }, nil)
		candidates(e, matrixValues{"a": {"b"}})
		placeholders("${{" + s)
	})
}

func FuzzGroovy(f *testing.F) {
	for _, s := range []string{"pipeline { agent any; stages { stage('a') { steps { sh 'b' } } } }", "a(b: c, d: [e: \"${f.g()}\"]) { it -> h }", "def x(y) { return y ?: 'z' }", "/* // */ '''\n''' $/a/$ ~/b/", "withCredentials([string(credentialsId: 'a', variable: 'B')]) { sh \"\"\"$B\"\"\" }", "{{{{[[[(("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := 1 + strings.Count(s, "\n")
		var walk func([]*gCall, int)
		walk = func(calls []*gCall, depth int) {
			for _, c := range calls {
				if c.line < 0 || c.line > lines {
					t.Errorf("a call on line %d of %d", c.line, lines)
				}
				if depth < 50 {
					walk(c.body, depth+1)
				}
			}
		}
		walk(parseGroovy(s), 0)
	})
}
