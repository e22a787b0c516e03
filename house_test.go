package proviso_test

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules of the house, held by tests so that nobody has to remember them.

const module = "github.com/proviso-ci/proviso"

// floors lists the packages from the roof to the ground: a package may import
// those below it, never one above or beside itself.
var floors = [][]string{
	{"cmd/proviso", "bench"},
	{"lab", "examples/policies"}, // for demo, dev and tests; nothing below may lean on it
	{"server", "report", "estate"},
	{"broker"},
	{"policy"},
	{"facts", "credential", "client", "agent"},
	{"gate", "runner", "fleet", "plan", "evidence"},
	{"identity", "audit", "pass", "inventory"},
	{"store", "internal/keyset", "trust"},
	{"internal/jose"},
	{"."},
	{"internal/document"},
}

// forbidden adds what the floors alone don't say, with the reason.
var forbidden = []struct{ who, what, why string }{
	{"gate", "broker", "customers link the gate: it must bring nothing that decides"},
	{"gate", "policy", "customers link the gate: it must bring nothing that decides"},
	{"gate", "credential", "customers link the gate: it must bring nothing that mints"},
	{"policy", "credential", "who decides can't mint"},
	{"policy", "pass", "who decides can't sign"},
	{"audit", "identity", "the record knows no domain: it must outlive every change of it"},
	{"audit", "policy", "the record is outside of policy's reach"},
	{"inventory", "internal/jose", "the inventory reads files; it has no business with tokens"},
}

// onlyIn names the one package that may import a library, with the reason.
var onlyIn = []struct {
	library string
	who     []string
	why     string
}{
	{"github.com/open-policy-agent/opa", []string{"policy", "bench"}, "one place knows how Rego is evaluated"},
	{"github.com/spiffe/go-spiffe", []string{"runner", "client", "agent", "lab"}, "one place believes an SVID; client, agent and lab are the other end of it"},
	{"github.com/hashicorp/hcl", []string{"trust"}, "one place reads Terraform, with bounds on what a file may cost"},
	{"github.com/google/go-tpm", []string{"runner", "evidence"}, "one place believes a TPM, one makes it speak"},
	{"modernc.org/sqlite", []string{"store", "bench"}, "one place knows how things are stored"},
	{"github.com/goccy/go-yaml", []string{"cmd/proviso", "bench"}, "only the command reads the configuration file"},
	{"github.com/spf13/cobra", []string{"cmd/proviso", "bench"}, "only the command has a command line"},
	{"github.com/zricethezav/gitleaks/v8/config", []string{"inventory"}, "one place sees values of secrets, and keeps none"},
	{"github.com/zricethezav/gitleaks/v8/detect", []string{}, "its rules are used as data; its detector reads archives and watches files"},
	{"net/http/httptest", []string{}, "a test's server is a test's matter"},
}

type goFile struct {
	path, dir string // relative to the repository's root
	syntax    *ast.File
	lines     int
	test      bool
}

func TestImportsPointDown(t *testing.T) {
	floor := map[string]int{}
	for i, names := range floors {
		for _, n := range names {
			floor[n] = i
		}
	}
	for _, f := range goFiles(t) {
		from, known := floor[f.dir]
		if !known && !f.test {
			t.Errorf("%s: package %s has no floor; give it one in house_test.go", f.path, f.dir)
			continue
		}
		for _, imp := range importsOf(f) {
			for _, rule := range onlyIn {
				if !f.test && strings.HasPrefix(imp, rule.library) && !slices.Contains(rule.who, f.dir) {
					t.Errorf("%s imports %s, which only %v may: %s", f.path, imp, rule.who, rule.why)
				}
			}
			if f.test || (imp != module && !strings.HasPrefix(imp, module+"/")) {
				continue
			}
			to := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			if to == "" {
				to = "."
			}
			if below, ok := floor[to]; !ok || below <= from {
				t.Errorf("%s (%s) imports %s: imports point down the floors of house_test.go", f.path, f.dir, to)
			}
			for _, rule := range forbidden {
				if rule.who == f.dir && rule.what == to {
					t.Errorf("%s imports %s: %s", f.path, to, rule.why)
				}
			}
		}
	}
}

// longFiles may be longer than the budget, each with its reason.
var longFiles = map[string]string{}

func TestFilesAndFunctionsFitTheEye(t *testing.T) {
	const maxFile, maxFunction = 600, 80
	longFunctions := map[string]string{
		"broker/exchange.go:Exchange": "the flow reads in one function, top to bottom",
	}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		if _, ok := longFiles[f.path]; !ok && f.lines > maxFile {
			t.Errorf("%s has %d lines, at most %d: would you know your room in it?", f.path, f.lines, maxFile)
		}
		fset := token.NewFileSet()
		syntax, err := parser.ParseFile(fset, f.path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if _, ok := longFunctions[f.path+":"+fn.Name.Name]; !ok && n > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d", f.path, fn.Name.Name, n, maxFunction)
			}
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	comments := map[string]string{}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		if f.syntax.Doc != nil && len(f.syntax.Doc.Text()) > len(comments[f.dir]) {
			comments[f.dir] = f.syntax.Doc.Text()
		} else if _, ok := comments[f.dir]; !ok {
			comments[f.dir] = ""
		}
		for _, bad := range []string{"util", "common", "core", "base", "types", "models", "pkg", "helpers"} {
			if filepath.Base(f.dir) == bad {
				t.Errorf("%s: a package called %q says nothing of what it owns", f.path, bad)
			}
		}
	}
	sentence := regexp.MustCompile(`[.:!?](\s|$)`)
	for dir, text := range comments {
		if n := len(sentence.FindAllString(text, -1)); n < 4 {
			t.Errorf("package %s: its comment has %d sentences, at least 4 say what it owns and what it promises", dir, n)
		}
	}
}

// No key, and no path of anybody's machine, may sit in the tree.
func TestNoSecretsAndNoForeignPaths(t *testing.T) {
	private := regexp.MustCompile(`-----BEGIN ([A-Z]+ )*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{60,}`)
	paths := regexp.MustCompile(`(^|[^a-zA-Z0-9_.])/(work|root|home)/[a-z]`)
	walk(t, func(path string, data []byte) {
		if private.Match(data) {
			t.Errorf("%s holds a private key", path)
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".md") {
			if m := paths.Find(data); m != nil && !strings.Contains(path, "testdata") && !strings.HasPrefix(path, "inventory/") {
				t.Errorf("%s names a path of one machine: %q", path, m)
			}
		}
	})
}

func TestTestsDontSleepOrSkip(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			switch {
			case x != nil && x.Name == "time" && sel.Sel.Name == "Sleep" && !usesSynctest(f):
				t.Errorf("%s sleeps: a sleep is a flake; use testing/synctest, a clock, or wait for the thing itself", f.path)
			case sel.Sel.Name == "Skip" || sel.Sel.Name == "Skipf" || sel.Sel.Name == "SkipNow":
				if x != nil && (x.Name == "t" || x.Name == "b") {
					t.Errorf("%s skips: a skipped check can't fail", f.path)
				}
			}
			return true
		})
	}
}

func usesSynctest(f goFile) bool { return slices.Contains(importsOf(f), "testing/synctest") }

func importsOf(f goFile) []string {
	var out []string
	for _, imp := range f.syntax.Imports {
		out = append(out, strings.Trim(imp.Path.Value, `"`))
	}
	return out
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	walk(t, func(path string, data []byte) {
		if !strings.HasSuffix(path, ".go") || strings.Contains(path, "testdata/") || strings.HasPrefix(path, "tools/") || strings.HasPrefix(path, "peers/") {
			return
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), path, data, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for s := bufio.NewScanner(strings.NewReader(string(data))); s.Scan(); {
			lines++
		}
		files = append(files, goFile{path, filepath.ToSlash(filepath.Dir(path)), syntax, lines, strings.HasSuffix(path, "_test.go")})
	})
	if len(files) < 10 {
		t.Fatalf("only %d Go files were found: this test looks at nothing", len(files))
	}
	return files
}

func walk(t *testing.T, visit func(path string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") && name != ".ci" || name == "bin" || name == "node_modules" || name == "data") {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(path), data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every direct dependency has its line with a reason, and every line its
// dependency.
func TestDependenciesHaveReasons(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t([^ ]+) v[^ ]+$`).FindAllStringSubmatch(string(mod), -1) {
		direct[m[1]] = true
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z][^|]*\.[^|]*) \| [^|]{10,} \|$`).FindAllStringSubmatch(string(page), -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			listed[name] = true
		}
	}
	for name := range direct {
		if !listed[name] {
			t.Errorf("docs/dependencies.md has no line for %s: why do we need it?", name)
		}
	}
	for name := range listed {
		if !direct[name] {
			t.Errorf("docs/dependencies.md has a line for %s, which go.mod does not require directly", name)
		}
	}
	if len(direct) < 10 {
		t.Fatalf("only %d dependencies were found: this test looks at nothing", len(direct))
	}
}
