package inventory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// What bad input gets: a file with a status, a finding with a place, and a scan that goes on.

// plant writes files below a new directory. Beside them stands a good
// pipeline, whose one path every scan must still find.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files = mergeFiles(files, map[string]string{"good/.travis.yml": "language: go\nscript: npm publish --token $NPM_TOKEN\n"})
	for name, text := range files {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mergeFiles(a, b map[string]string) map[string]string {
	out := make(map[string]string, len(a)+len(b))
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// scanOn scans and checks that the good pipeline was read all the same.
func scanOn(t *testing.T, dir string, opt Options) *Inventory {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	inv, err := Scan(ctx, dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(inv.Paths, func(p Path) bool { return p.File == "good/.travis.yml" && p.Credential.Name == "NPM_TOKEN" }) {
		t.Error("the scan did not go on: the good pipeline beside is not read")
	}
	return inv
}

func fileOf(inv *Inventory, name string) File {
	for _, f := range inv.Files {
		if f.File == name {
			return f
		}
	}
	return File{}
}

// unread gives the finding "could not read" of a file.
func unread(inv *Inventory, name string) (Finding, bool) {
	for _, f := range inv.Findings {
		if f.Rule == "could-not-read" && f.File == name {
			return f, true
		}
	}
	return Finding{}, false
}

func TestBadFilesAreFindingsWithAPlace(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		status     Status
		line       int
		why        string
	}{
		"broken YAML":           {".circleci/config.yml", "version: 2.1\njobs:\n  a: {docker: [\n  b: c\n", StatusPartly, 0, ""},
		"a tab":                 {"bitbucket-pipelines.yml", "pipelines:\n  default:\n    - step:\n\tname: x\n", StatusPartly, 4, ""},
		"a zero byte":           {".gitlab-ci.yml", "a:\n  script:\n    - echo\x00\n", StatusUnreadable, 3, "binary"},
		"control bytes":         {".drone.yml", "kind: pipeline\n\xff\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f", StatusUnreadable, 2, "binary"},
		"odd UTF-16":            {".travis.yml", "\xff\xfea", StatusUnreadable, 1, "odd number"},
		"brackets without end":  {"azure-pipelines.yml", "trigger: [main]\nsteps: " + strings.Repeat("[", 5000), StatusUnreadable, 2, "nesting"},
		"indents without end":   {".github/workflows/a.yml", "on: push\njobs:\n" + deepMap(900), StatusUnreadable, 802, "nesting"},
		"an unknown anchor":     {".woodpecker.yml", "steps:\n  a:\n    image: x\n    settings: *nowhere\n", StatusPartly, 4, "unknown anchor"},
		"version of CircleCI":   {".circleci/config.yml", "version: 9\njobs:\n  build:\n    docker: [{image: x}]\n    steps: [checkout]\n", StatusPartly, 1, "version 9"},
		"version of CodeBuild":  {"buildspec.yml", "version: 7\nphases:\n  build:\n    commands: [make]\n", StatusPartly, 1, "version 7"},
		"version of Tekton":     {"task.yaml", "apiVersion: tekton.dev/v9\nkind: Task\nmetadata: {name: a}\nspec:\n  steps: [{name: a, image: b}]\n", StatusPartly, 1, "version tekton.dev/v9"},
		"version of Argo":       {"wf.yaml", "apiVersion: argoproj.io/v2\nkind: Workflow\nmetadata: {name: a}\nspec: {templates: []}\n", StatusPartly, 1, "version argoproj.io/v2"},
		"a program of Starlark": {".woodpecker.star", "def main(ctx):\n  return []\n", StatusUnsupported, 0, "program"},
	} {
		t.Run(name, func(t *testing.T) {
			inv := scanOn(t, plant(t, map[string]string{c.file: c.text}), Options{})
			f := fileOf(inv, c.file)
			if f.Status != c.status || !strings.Contains(f.Detail, c.why) || c.line > 0 && f.Line != c.line {
				t.Errorf("status %q, line %d, %q; expected %q, line %d, %q", f.Status, f.Line, f.Detail, c.status, c.line, c.why)
			}
			if c.status == StatusUnsupported {
				return // it is an entry of Unresolved instead
			}
			finding, ok := unread(inv, c.file)
			if !ok || finding.Line < 1 || !strings.Contains(finding.Message, "could not read") || finding.Fix == "" {
				t.Errorf("the finding is %+v", finding)
			}
			if c.line > 0 && finding.Line != c.line {
				t.Errorf("the finding points at line %d, expected %d", finding.Line, c.line)
			}
		})
	}
}

func deepMap(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	return b.String()
}

func TestALargeFileIsNotRead(t *testing.T) {
	dir := plant(t, map[string]string{".gitlab-ci.yml": "a: {script: [make]}\n" + strings.Repeat("# filler\n", 200)})
	inv := scanOn(t, dir, Options{MaxBytes: 1000})
	if f := fileOf(inv, ".gitlab-ci.yml"); f.Status != StatusUnreadable || !strings.Contains(f.Detail, "more than the limit of 1000") {
		t.Errorf("a file over the limit: %+v", f)
	}
}

func TestTooManyFilesAreSaid(t *testing.T) {
	dir := plant(t, map[string]string{"a.txt": "", "b.txt": "", "z/.travis.yml": "script: echo $X_TOKEN\n"})
	inv, err := Scan(t.Context(), dir, Options{MaxFiles: 3})
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := unread(inv, "z/.travis.yml"); !ok || !strings.Contains(f.Message, "limit of 3 files") {
		t.Errorf("what was not looked at is not said: %+v", inv.Findings)
	}
}

// A few hundred bytes of aliases stand for billions of nodes: they must cost
// neither memory nor time, in any reader.
func TestAliasesWithoutEnd(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("x0: &x0 [\"echo $A_TOKEN\", \"echo $B_TOKEN\"]\n")
	for i := 1; i < 40; i++ {
		refs := strings.Repeat("*x"+string(rune('0'+(i-1)/10))+string(rune('0'+(i-1)%10))+", ", 9)
		if i == 1 {
			refs = strings.Repeat("*x0, ", 9)
		}
		n := string(rune('0'+i/10)) + string(rune('0'+i%10))
		laughs.WriteString("x" + n + ": &x" + n + " [" + strings.TrimSuffix(refs, ", ") + "]\n")
	}
	for file, tail := range map[string]string{
		".github/workflows/a.yml":      "on: push\njobs: {a: {runs-on: *x39, steps: *x39, env: {A: *x39}}}\n",
		".forgejo/workflows/a.yml":     "on: push\njobs: {a: {runs-on: x, steps: [{run: a, with: {a: *x39}}]}}\n",
		".gitlab-ci.yml":               "a: {script: *x39, rules: *x39, tags: *x39}\n",
		".circleci/config.yml":         "version: 2.1\njobs: {build: {docker: [{image: a}], steps: *x39}}\nworkflows: {a: {jobs: *x39}}\n",
		"azure-pipelines.yml":          "steps: *x39\nvariables: *x39\n",
		"bitbucket-pipelines.yml":      "pipelines: {default: [{step: {script: *x39}}]}\n",
		".buildkite/pipeline.yml":      "steps: [{command: *x39, label: a, plugins: *x39}]\n",
		"tekton.yaml":                  "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: a}\nspec: {steps: *x39, volumes: *x39}\n",
		"argo.yaml":                    "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {templates: *x39}\n",
		".drone.yml":                   "kind: pipeline\nsteps: *x39\n",
		".woodpecker.yml":              "steps: {a: {image: b, commands: *x39, settings: {a: *x39}}}\n",
		".travis.yml":                  "script: *x39\nnotifications: *x39\ndeploy: *x39\n",
		"cloudbuild.yaml":              "steps: [{name: a, args: *x39, secretEnv: *x39}]\n",
		"buildspec.yml":                "version: 0.2\nphases: {build: {commands: *x39}}\n",
		".github/workflows/self.yml":   "on: push\njobs: &j {a: *j}\n",
		".circleci/x/config.yml":       "version: 2.1\ncommands: {a: {steps: [a]}, b: {steps: [c, c, c, c]}, c: {steps: [b, b, b, b]}}\njobs: {build: {docker: [{image: a}], steps: [a, b]}}\nworkflows: {w: {jobs: [build]}}\n",
		".gitlab-ci/merge.yml":         "a: &a\n  <<: *a\n  script: [make]\nb: &b\n  <<: [*a, *a, *b]\n  script: [make]\n",
		"deep/templates/pipelines.yml": "parameters: [{name: s, type: stepList, default: *x39}]\nsteps:\n  - ${{ if true }}: *x39\n",
	} {
		t.Run(file, func(t *testing.T) {
			inv := scanOn(t, plant(t, map[string]string{file: laughs.String() + tail}), Options{})
			if f := fileOf(inv, file); f.File != "" && f.Status == "" {
				t.Errorf("no status: %+v", f)
			}
			if len(inv.Paths) > 5000 {
				t.Errorf("%d paths from a file of two kilobytes", len(inv.Paths))
			}
		})
	}
}

// Functions of a Jenkinsfile are read where they are called. Some that call each
// other twice would double the work with each, and some that call themselves have no end.
func TestFunctionsWithoutEnd(t *testing.T) {
	var b strings.Builder
	b.WriteString("node('x') { f0() }\ndef again() { again(); withCredentials([string(credentialsId: 'inner', variable: 'T')]) { again() } }\n")
	for i := range 40 {
		fmt.Fprintf(&b, "def f%d() {\n  f%d()\n  f%d()\n}\n", i, i+1, i+1)
	}
	b.WriteString("def f40() { again() }\n")
	for i := range 60 { // closures under names, one in the other
		fmt.Fprintf(&b, "def c%d = {\n", i)
	}
	inv := scanOn(t, plant(t, map[string]string{"Jenkinsfile": b.String()}), Options{})
	f := fileOf(inv, "Jenkinsfile")
	if f.Status != StatusPartly || !strings.Contains(f.Detail, "bound of this reader") {
		t.Errorf("the file has the status %q: %s", f.Status, f.Detail)
	}
	if !slices.ContainsFunc(inv.Paths, func(p Path) bool { return p.Credential.Name == "inner" }) {
		t.Error("the credential at the end of the calls was not found")
	}
}

func TestNothingOutsideOfTheTreeIsRead(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "outside.yml")
	if err := os.WriteFile(secret, []byte("leak:\n  script: echo $OUTSIDE_TOKEN\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := plant(t, map[string]string{
		"include/.gitlab-ci.yml":             "include:\n  - local: /link/outside.yml\n  - local: ../../../../../../../../" + filepath.ToSlash(secret) + "\n  - local: /link/*.yml\n  - local: /link/**.yml\na: {script: [make]}\n",
		"use/.github/workflows/a.yml":        "on: push\njobs:\n  a:\n    runs-on: x\n    steps: [{uses: ./link}, {uses: ./../../../../../../../etc}]\n  b: {uses: ./link/outside.yml}\n",
		"az/azure-pipelines.yml":             "trigger: [main]\nsteps:\n  - template: link/outside.yml\n  - template: /../../../../outside.yml\n",
		"loop/.circleci/config.yml/x.yml":    "",
		"inside/target/.gitlab-ci.yml":       "a: {script: [npm publish --token $INSIDE_TOKEN]}\n",
		"named/weird\n$(touch x)/.drone.yml": "kind: pipeline\nname: a\nsteps: [{name: b, image: c, environment: {X: {from_secret: y}}}]\n",
	})
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	link(secret, ".gitlab-ci.yml")
	link("nowhere/at/all", ".travis.yml")
	link(".drone.yml", ".drone.yml")
	link(outside, "include/link")
	link(outside, "use/link")
	link(outside, "az/link")
	link("..", "inside/up")
	link("target/.gitlab-ci.yml", "inside/.gitlab-ci.yml")
	inv := scanOn(t, dir, Options{})
	for _, p := range inv.Paths {
		if strings.Contains(p.Credential.Name, "OUTSIDE") {
			t.Errorf("a path from outside of the tree: %+v", p)
		}
	}
	for name, why := range map[string]string{".gitlab-ci.yml": "out of the scanned tree", ".travis.yml": "leads nowhere", ".drone.yml": "circle"} {
		if f, ok := unread(inv, name); !ok || !strings.Contains(f.Message, why) {
			t.Errorf("%s: the finding is %q, expected %q in it", name, f.Message, why)
		}
	}
	for _, name := range []string{"local: /link/outside.yml", "./link", "./link/outside.yml", "link/outside.yml"} {
		if !slices.ContainsFunc(inv.Unresolved, func(u Unresolved) bool { return u.Name == name }) {
			t.Errorf("%s is not reported as unresolved", name)
		}
	}
	n := 0
	for _, p := range inv.Paths {
		if p.Credential.Name == "INSIDE_TOKEN" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("a file and a link to it inside of the tree gave %d paths", n)
	}
	if _, err := os.Stat("x"); err == nil {
		t.Error("a name was executed")
	}
}

// A link as the root of the scan is the directory that it leads to.
func TestALinkedRootIsScanned(t *testing.T) {
	dir := plant(t, nil)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	scanOn(t, link, Options{})
}

func TestLoopsOfIncludesEnd(t *testing.T) {
	inv := scanOn(t, plant(t, map[string]string{
		"gl/.gitlab-ci.yml":          "include: [{local: /a.yml}, {local: /.gitlab-ci.yml}]\nx: {extends: [y], script: [npm publish --token $GL_TOKEN]}\ny: {extends: x}\nz: {script: [!reference [z, script]]}\n",
		"gl/a.yml":                   "include: [{local: /b.yml}]\n",
		"gl/b.yml":                   "include: [{local: /a.yml}]\nb: {script: [echo $B_TOKEN]}\n",
		"gh/.github/workflows/a.yml": "on: {workflow_call: {}, push: {}}\njobs:\n  a: {uses: ./.github/workflows/b.yml, needs: [b]}\n  b: {uses: ./.github/workflows/a.yml, needs: [a]}\n",
		"gh/.github/workflows/b.yml": "on: workflow_call\njobs:\n  a: {uses: ./.github/workflows/a.yml}\n",
		"gh/act/action.yml":          "runs:\n  using: composite\n  steps: [{uses: ./act}]\n",
		"gh/.github/workflows/c.yml": "on: push\njobs: {c: {runs-on: ubuntu-latest, steps: [{uses: ./act}]}}\n",
		"az/azure-pipelines.yml":     "trigger: [main]\nvariables: [{template: v.yml}]\nsteps: [{template: azure-pipelines.yml}]\n",
		"az/v.yml":                   "variables: [{template: v.yml}, {group: g}]\n",
		"cc/.circleci/config.yml":    "version: 2.1\ncommands: {a: {steps: [b]}, b: {steps: [a]}}\njobs: {j: {docker: [{image: x}], steps: [a]}}\nworkflows: {w: {jobs: [{j: {requires: [j]}}]}}\n",
		"jk/Jenkinsfile":             "def a() { b() }\ndef b() { a() }\nnode { a() }\n",
	}), Options{})
	for _, f := range inv.Files {
		if f.Status == StatusUnreadable {
			t.Errorf("%s: %s", f.File, f.Detail)
		}
	}
	if !slices.ContainsFunc(inv.Paths, func(p Path) bool { return p.Credential.Name == "GL_TOKEN" }) {
		t.Error("a job of a configuration that includes itself is lost")
	}
}

// The same pipeline in other encodings gives the same path on the same line.
func TestEncodings(t *testing.T) {
	text := "# \u00fcber\nlanguage: go\nscript:\n  - npm publish --token $ENC_TOKEN\n"
	utf16File := func(big bool) string {
		units := append([]uint16{0xFEFF}, utf16.Encode([]rune(text))...)
		var b strings.Builder
		for _, u := range units {
			if big {
				b.Write([]byte{byte(u >> 8), byte(u)})
			} else {
				b.Write([]byte{byte(u), byte(u >> 8)})
			}
		}
		return b.String()
	}
	for name, raw := range map[string]string{
		"UTF-8": text, "UTF-8 with a mark": "\xef\xbb\xbf" + text, "CRLF": strings.ReplaceAll(text, "\n", "\r\n"),
		"UTF-16 little": utf16File(false), "UTF-16 big": utf16File(true), "Latin-1": strings.ReplaceAll(text, "\u00fc", "\xfc"),
		"no end of line": strings.TrimSuffix(text, "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			inv := scanOn(t, plant(t, map[string]string{".travis.yml": raw}), Options{})
			if !slices.ContainsFunc(inv.Paths, func(p Path) bool { return p.Credential.Name == "ENC_TOKEN" && p.Line == 4 }) {
				t.Errorf("paths: %+v, files: %+v", inv.Paths, inv.Files)
			}
		})
	}
}

// Files without anything in them, and documents of the wrong shape, are read and give nothing.
func TestEmptyAndMisshapenFiles(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "---\n...\n---\n", "null\n", "~", "[]\n", "- a\n- b\n", "just words\n", "{}\n", "a\n: b\n", "? [a]\n: b\n", "1: 2\ntrue: {null: [~]}\n",
		"on: {}\njobs: []\n", "on: [1, {a: b}]\njobs: {a: 1, b: [], c: {steps: {}}, d: {steps: [1, [], {run: []}], env: [], runs-on: {group: {}}, needs: {}, strategy: 1}}\n",
		"jobs: {a: {uses: {}, secrets: [], with: 3}}\non: push\n", "steps: 3\npipelines: 4\nstages: 5\nphases: []\nworkflows: 6\npipeline: 7\n", "version: 2.1\norbs: []\njobs: {a: []}\nworkflows: {w: {jobs: [{a: []}, 3, [b]]}}\n",
		"pipelines: {default: {step: []}, branches: [a], custom: {a: [{step: {script: {}}}]}}\n", "steps: [1, a, [b], {command: {}}, {plugins: 3}, {group: a, steps: 4}]\n",
		"kind: pipeline\nsteps: {a: 1, b: {settings: 3}}\ntrigger: 3\n", "steps: [{name: [], args: {}, secretEnv: {}, env: {}}]\navailableSecrets: [1]\n",
		"include: [1, [a], {local: []}]\na: {script: {}, extends: {}, rules: {}, variables: [], id_tokens: [], secrets: 3, needs: 3, trigger: [], environment: []}\n",
		"phases: {build: {commands: {a: {}}}, x: 3}\nenv: [a]\nversion: []\n", "apiVersion: tekton.dev/v1\nkind: Pipeline\nspec: {tasks: {a: b}, params: 3}\n", "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: [1]\n",
	} {
		files := make(map[string]string)
		for _, name := range []string{".github/workflows/a.yml", ".forgejo/workflows/a.yml", "x/action.yml", ".gitlab-ci.yml", ".circleci/config.yml", "azure-pipelines.yml", "bitbucket-pipelines.yml", ".buildkite/pipeline.yml", "Jenkinsfile", "t.yaml", ".drone.yml", ".woodpecker.yml", ".travis.yml", "cloudbuild.yaml", "buildspec.yml"} {
			files[name] = text
		}
		inv := scanOn(t, plant(t, files), Options{})
		for _, f := range inv.Files {
			if strings.Contains(f.Detail, "the reader failed") {
				t.Errorf("%s failed on %q: %s", f.File, text, f.Detail)
			}
		}
	}
}

// Each call of a loaded function looks over the loaded file: calls without end of
// a large one are not followed, and that is said.
func TestCallsOfLoadedFunctionsHaveABound(t *testing.T) {
	root := t.TempDir()
	step := "def go(id) {\n  withCredentials([string(credentialsId: id, variable: 'T')]) {\n    sh 'npm publish'\n  }\n}\n"
	calls := "node {\n  def lib = load 'lib.groovy'\n" + strings.Repeat("  lib.go('npm')\n", 100) + "}\n"
	for rel, text := range map[string]string{"lib.groovy": step + strings.Repeat("// a long file\n", 100_000) + "return this\n", "Jenkinsfile": calls} {
		if err := writeTree(root, rel, text); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := Scan(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	followed := slices.ContainsFunc(inv.Paths, func(p Path) bool { return p.File == "Jenkinsfile" && p.Credential.Name == "npm" })
	said := slices.ContainsFunc(inv.Unresolved, func(u Unresolved) bool { return u.File == "Jenkinsfile" && u.Kind == "loaded file" })
	if !followed || !said {
		t.Errorf("the first calls are followed: %v; that others are not is said: %v", followed, said)
	}
}
