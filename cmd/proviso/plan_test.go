package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/proviso-ci/proviso/policy"
)

// planFixture unpacks a fixture of package plan, with the remote that it names.
func planFixture(t *testing.T, name string) string {
	t.Helper()
	ar, err := txtar.ParseFile(filepath.Join("..", "..", "plan", "testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	remote, _, _ := strings.Cut(strings.TrimPrefix(string(ar.Comment), "remote: "), "\n")
	files := append(ar.Files, txtar.File{Name: ".git/config", Data: []byte("[remote \"origin\"]\n\turl = " + remote + "\n")},
		txtar.File{Name: ".git/HEAD", Data: []byte("ref: refs/heads/main\n")})
	for _, f := range files {
		full := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runCLI runs the command line in this process.
func runCLI(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err != nil {
		code = exitMisuse
		if e, ok := err.(*exitError); ok {
			code = e.code
		}
		errs.WriteString(err.Error())
	}
	return code, out.String(), errs.String()
}

var planFixtures = []string{"github", "shapes", "gitlab", "bitbucket", "circleci", "buildkite", "azure", "forgejo", "jenkins", "kube", "hostile"}

// The configuration that plan writes passes config check once its variables are
// set, and its policies load and pass their own tests; until then check names
// each variable, and no policy becomes active.
func TestPlannedGrantsAndPoliciesLoad(t *testing.T) {
	for _, name := range planFixtures {
		for _, route := range []string{"direct", "proviso"} {
			t.Run(name+"/"+route, func(t *testing.T) {
				dir := planFixture(t, name)
				open := filepath.Join(t.TempDir(), "open")
				if code, _, stderr := runCLI(t, "plan", dir, "--quiet", "--route", route, "--write", open); code != 0 {
					t.Fatal(stderr)
				}
				code, _, stderr := runCLI(t, "config", "check", "-c", filepath.Join(open, "proviso", "proviso.yaml"))
				if code != exitRefused || !strings.Contains(stderr, "is not set: write its value here") {
					t.Errorf("with open variables: exit %d, %s", code, stderr)
				}
				unsetPolicies(t, filepath.Join(open, "policy"))

				args := []string{"plan", dir, "--quiet", "--route", route, "--broker", "https://proviso.acme.example", "--write", filepath.Join(t.TempDir(), "set")}
				args = append(args, setAll(t, dir, route)...)
				if code, _, stderr := runCLI(t, args...); code != 0 {
					t.Fatal(stderr)
				}
				set := args[slices.Index(args, "--write")+1]
				if code, out, stderr := runCLI(t, "config", "check", "-c", filepath.Join(set, "proviso", "proviso.yaml")); code != 0 {
					t.Errorf("config check: exit %d\n%s\n%s", code, out, stderr)
				}
				if code, out, stderr := runCLI(t, "policy", "test", "--dir", filepath.Join(set, "policy")); code != 0 {
					t.Errorf("policy test: exit %d\n%s\n%s", code, out, stderr)
				}
				problems, err := policy.Check(t.Context(), policy.Config{Dir: filepath.Join(set, "policy")}, policy.Options{Log: quiet})
				if err != nil || len(problems) > 0 {
					t.Errorf("policy check says of generated policies: %v %v", err, problems)
				}
			})
		}
	}
}

// unsetPolicies expects that nothing becomes active, and that each open variable is named.
func unsetPolicies(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "variables.rego"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = policy.Open(policy.Config{Dir: dir}, policy.Options{Log: quiet})
	if err == nil {
		t.Fatal("policies with open variables became active")
	}
	_, out, _ := runCLI(t, "policy", "check", dir)
	for _, line := range strings.Split(string(text), "\n") {
		if name, ok := strings.CutSuffix(line, ` := ""`); ok && !strings.Contains(out, "test_variable_"+name+"_is_set") {
			t.Errorf("policy check doesn't name %s:\n%s", name, out)
		}
	}
}

// setAll gives a value to each variable of a plan.
func setAll(t *testing.T, dir, route string) []string {
	t.Helper()
	code, out, stderr := runCLI(t, "plan", dir, "--quiet", "--route", route, "--broker", "https://proviso.acme.example", "-o", "json")
	if code != 0 {
		t.Fatal(stderr)
	}
	var p struct {
		Variables []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, v := range p.Variables {
		value := "4711"
		if strings.HasPrefix(v.Name, "circleci") || strings.HasPrefix(v.Name, "azure_devops") || strings.Contains(v.Name, "owner_id_b") {
			value = "d9dbdb5c-0c8f-4b4e-9a54-3a2b0a2f8d10"
		}
		if strings.Contains(v.Name, "_issuer_") { // each is one of its own
			value = strings.ReplaceAll(v.Name, "_", "-") + ".example"
		}
		args = append(args, "--set", v.Name+"="+value)
	}
	return args
}

// The JSON form is what its schema says.
func TestPlanJSONIsByItsSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "docs", "schema", "plan.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range planFixtures {
		dir := planFixture(t, name)
		old := filepath.Join(t.TempDir(), "old.json")
		_, out, _ := runCLI(t, "inventory", "-q", "-o", "json", dir)
		if err := os.WriteFile(old, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out, stderr := runCLI(t, "plan", dir, "--quiet", "--since", old, "-o", "json")
		if code != 0 {
			t.Fatal(stderr)
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A plan from a written inventory is the plan of a scan; the directory of
// --write is never overwritten; what can't be is said.
func TestPlanCommand(t *testing.T) {
	dir := planFixture(t, "github")
	inv := filepath.Join(t.TempDir(), "inventory.json")
	_, out, _ := runCLI(t, "inventory", "-q", "-o", "json", dir)
	if err := os.WriteFile(inv, []byte(out), 0o644); err != nil {
		t.Fatal(err)
	}
	_, scanned, _ := runCLI(t, "plan", dir, "-q", "-o", "json")
	code, read, stderr := runCLI(t, "plan", "--inventory", inv, "-q", "-o", "json")
	if code != 0 || read != scanned {
		t.Errorf("the plan of the written inventory differs: exit %d %s", code, stderr)
	}
	record, broken := filepath.Join(t.TempDir(), "record"), filepath.Join(t.TempDir(), "broken")
	for name, text := range map[string]string{
		record: `{"type":"decision","result":"allowed","grant":"shop-slack-webhook","time":1764000000000}` + "\n\n" + `{"result":"refused","grant":"shop-slack-webhook","time":1764000000001}` + "\n",
		broken: "{\"result\":\"allowed\",\"time\":1}\nnothing\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, stderr := runCLI(t, "plan", dir, "-q", "--all", "--only", "SLACK_WEBHOOK_URL", "--record", record); code != 0 || !strings.Contains(out, "the grant was not used for ") || !strings.Contains(out, "(once before, last 2025-11-24)") || !strings.Contains(out, "refused once") {
		t.Errorf("with a record: exit %d %s %s", code, out, stderr)
	}
	target := filepath.Join(t.TempDir(), "plan")
	for i, want := range []int{exitDone, exitRefused} {
		if code, _, stderr := runCLI(t, "plan", dir, "-q", "--write", target); code != want {
			t.Errorf("--write, time %d: exit %d, %s", i+1, code, stderr)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"plan", dir, "--route", "sideways"}, `the route is "sideways"`},
		{[]string{"plan", dir, "--broker", "http://x"}, "it looks like https://"},
		{[]string{"plan", dir, "--set", "nonsense"}, "write NAME=VALUE"},
		{[]string{"plan", dir, "--set", "no_such=1"}, "there is no variable no_such"},
		{[]string{"plan", dir, "--record", broken}, "broken:2 is no entry of a record"},
		{[]string{"plan", dir, "--record", dir}, "--record: "},
		{[]string{"plan", dir, "--output", "pdf"}, "it can be text, json or markdown"},
		{[]string{"plan", dir, "--inventory", inv}, "choose one"},
		{[]string{"plan", "--inventory", filepath.Join(dir, "none.json")}, "no such file"},
		{[]string{"plan", filepath.Join(dir, "none")}, "can't be scanned"},
	} {
		code, _, stderr := runCLI(t, c.args...)
		if code != exitMisuse || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %q; want %q", c.args[2:], code, stderr, c.want)
		}
	}
}
