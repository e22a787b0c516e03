package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/proviso-ci/proviso/internal/document"
)

// seedOracle says in Go what each of the seed's policies says, for input of any
// shape, with Rego's order of types (null < boolean < number < string).
var seedOracle = map[string]func(at func(path string) document.Value) bool{
	"deployment_approval": func(at func(string) document.Value) bool {
		time, ok := at("context.time").Text()
		return is(at("identity.role"), "ci-cd-pipeline") && is(at("context.branch"), "main") && yes(at("context.commit_signed")) &&
			is(at("context.environment"), "production") && ok && time >= "09:00" && time <= "17:00"
	},
	"ticket_approval": func(at func(string) document.Value) bool {
		return is(at("context.service"), "critical") && yes(at("context.ticket_approved")) && is(at("identity.role"), "ci-cd-pipeline")
	},
	"runner_trust": func(at func(string) document.Value) bool {
		return (is(at("runner.id"), "trusted-runner-1") || is(at("runner.id"), "trusted-runner-2")) && is(at("runner.region"), "us-west-2")
	},
	"debug_access": func(at func(string) document.Value) bool {
		ttl := at("context.requested_ttl")
		n, number := ttl.Number()
		small := number && n <= 30 || ttl.Kind() == document.Null || ttl.Kind() == document.Bool
		return yes(at("identity.on_call")) && small && is(at("context.purpose"), "debug")
	},
	"hotfix_annotation": func(at func(string) document.Value) bool {
		text, ok := at("context.annotation").Text()
		return is(at("context.action"), "deploy_hotfix") && ok && strings.Contains(text, "approved by ticket")
	},
	"tenant_isolation": func(at func(string) document.Value) bool {
		a, b := at("identity.tenant"), at("resource.tenant")
		return !a.IsAbsent() && !b.IsAbsent() && sameJSON(a, b)
	},
}

func is(v document.Value, want string) bool { s, ok := v.Text(); return ok && s == want }
func yes(v document.Value) bool             { b, ok := v.Truth(); return ok && b }
func sameJSON(a, b document.Value) bool     { return termOf(a).Equal(termOf(b)) }

// Whatever the input is: no panic, no "yes" but what the policy says, a refusal
// has a reason, and no reason holds a control character.
func FuzzInput(f *testing.F) {
	for _, text := range append(sampleInputs(), `[]`, `null`, `{"identity":[]}`, `{"context":{"time":null,"annotation":5}}`,
		`{"identity":{"tenant":{}},"resource":{"tenant":{}}}`, "{\"context\":{\"annotation\":\"\\u202e\\n\"}}", `{"runner":{"id":["trusted-runner-1"]}}`) {
		f.Add(text)
	}
	var policies []*Policy
	for _, e := range []*Engine{open(f, seedDir), open(f, hardenedDir)} {
		for _, name := range e.Packages() {
			p, _ := e.For(name)
			policies = append(policies, p)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := document.Parse([]byte(text), document.Limits{})
		if err != nil {
			return
		}
		for i, p := range policies {
			out, _ := p.Simulate(context.Background(), v)
			at := func(path string) document.Value { return v.At(strings.Split(path, ".")...) }
			if i < 6 && out.Code != "policy_error" && out.Allowed != seedOracle[p.name](at) {
				t.Errorf("%s allows %v on %s", p.name, out.Allowed, text)
			}
			if out.Allowed && i >= 6 && !seedOracle[p.name](at) && p.name != "runner_trust" && p.name != "hotfix_annotation" {
				t.Errorf("the hardened %s allows what the seed doesn't: %s", p.name, text)
			}
			if !out.Allowed && out.Code == "policy_denied" && len(out.Reasons) == 0 {
				t.Errorf("%s refuses without a reason: %s", p.name, text)
			}
			for _, r := range append(out.Reasons, out.Detail...) {
				if strings.ContainsFunc(r.Message+r.Found+r.Wanted, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) || !utf8.ValidString(r.Message) {
					t.Errorf("%s: %q", p.name, r.Message)
				}
			}
		}
	})
}

// Whatever a module is: no panic and no hang, and what becomes active allows
// nobody who is nobody.
func FuzzModule(f *testing.F) {
	for _, dir := range []string{seedDir, hardenedDir} {
		files, _ := filepath.Glob(filepath.Join(dir, "*.rego"))
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	for _, text := range []string{
		"package p\n\nallow := true if { input.identity.role == \"a\" }\n\nhelper { true }\n",
		"package p\n\ndefault allow := true\n", "package p\nallow { true }\n", "package p\nallow = input\n", "package p\nallow[x] { x := input.identity.role }\n",
		"package p\n\nimport rego.v2\n\nallow if input.identity.role == \"a\" or input.identity.role == \"b\"\n",
		"package p\n\nallow if { some x in input.context.scope; every y in x { y } }\n\ndeny contains $\"a {x}\" if x := 1\n", "package system.log\n",
		"package p\n\nallow if count([1 | walk(input, _)]) > 3\n\nlimits.ttl := 5\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || !utf8.ValidString(text) {
			return
		}
		rev, problems := build(context.Background(), treeOf(map[string]string{"p.rego": text}), Config{}, nil)
		if rev == nil {
			if len(problems.Errors()) == 0 || problems.refusal("x") == nil || problems.Error() == "" {
				t.Errorf("refused without a problem:\n%s", text)
			}
			return
		}
		for _, p := range rev.packages {
			for _, c := range canaries {
				if out, _ := p.Simulate(context.Background(), c.input); out.Allowed {
					t.Errorf("%s is allowed by\n%s", c.name, text)
				}
			}
		}
	})
}

// cond is a condition whose meaning is known without Rego.
type cond struct {
	text   string // %s is the path
	path   string
	values []string // JSON that the input may have there; "" is absent
	good   []string // those for which the condition holds
}

var conds = []cond{
	{`%s == "main"`, "context.branch", []string{"", `"main"`, `"dev"`}, []string{`"main"`}},
	{`"ci" == %s`, "identity.role", []string{"", `"ci"`, `"dev"`}, []string{`"ci"`}},
	{`%s == true`, "context.commit_signed", []string{"", "true", "false"}, []string{"true"}},
	{`%s`, "context.ticket_approved", []string{"", "true", "false"}, []string{"true"}},
	{`not %s`, "context.freeze", []string{"true", "false"}, []string{"false"}},
	{`%s <= 30`, "context.requested_ttl", []string{"", "10", "30", "31"}, []string{"10", "30"}},
	{`%s >= "09:00"`, "context.time", []string{"", `"08:59"`, `"12:00"`}, []string{`"12:00"`}},
	{`%s in {"r-1", "r-2"}`, "runner.id", []string{"", `"r-1"`, `"r-2"`, `"r-3"`}, []string{`"r-1"`, `"r-2"`}},
	{`not %s in {"wipe"}`, "context.action", []string{`"wipe"`, `"deploy"`}, []string{`"deploy"`}},
	{`startswith(%s, "acme/")`, "identity.repository", []string{"", `"acme/x"`, `"globex/x"`}, []string{`"acme/x"`}},
	{`%s != "acme"`, "identity.tenant", []string{"", `"acme"`, `"globex"`}, []string{`"globex"`}},
	{`"deploy" in %s`, "context.scope", []string{"", `[]`, `["deploy"]`, `["a","b"]`}, []string{`["deploy"]`}},
	{`count(%s) == 2`, "intent.scope", []string{"", `[]`, `["a"]`, `["a","b"]`}, []string{`["a","b"]`}},
	{"x := %s\n\tlower(x) == \"eu\"", "runner.region", []string{"", `"EU"`, `"us"`}, []string{`"EU"`}},
	{`is_debug(%s)`, "context.purpose", []string{"", `"debug"`, `"fun"`}, []string{`"debug"`}},
}

// Of a policy of several conditions exactly those are told that don't hold, and
// who puts them right is allowed: nothing is left out, nothing is made up.
func TestReasonsAreExactAndEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "conditions")
		picked := rapid.Permutation(conds).Draw(t, "which")[:n]
		helper := rapid.Bool().Draw(t, "helper")
		var body []string
		values := map[string]string{}
		failing := map[string]bool{}
		for _, c := range picked {
			body = append(body, fmt.Sprintf(c.text, "input."+c.path))
			v := rapid.SampledFrom(c.values).Draw(t, c.path)
			values[c.path] = v
			if !slices.Contains(c.good, v) {
				failing[c.path] = true
			}
		}
		rules := "package p\n\nallow if {\n\t" + strings.Join(body, "\n\t") + "\n}\n"
		if helper {
			rules = "package p\n\nallow if ok\n\nok if {\n\t" + strings.Join(body, "\n\t") + "\n}\n"
		}
		prog, problems := compile(treeOf(map[string]string{"p.rego": rules + "\nis_debug(x) if x == \"debug\"\n"}), nil)
		if prog == nil {
			t.Fatalf("%s\n%v", rules, problems)
		}
		p, err := prog.policy("p")
		if err != nil {
			t.Fatal(err)
		}
		p.revision, p.timeout, p.patience = &revision{program: prog}, Config{Timeout: 1 << 40}.timeout(), 1<<40
		out := p.simulate(context.Background(), inputOf(t, values), nil)
		if out.Allowed != (len(failing) == 0) {
			t.Fatalf("allowed %v, failing %v\n%s", out.Allowed, failing, rules)
		}
		told := map[string]bool{}
		for _, r := range out.Detail {
			told[r.Path] = true
		}
		for _, c := range picked {
			if failing[c.path] != told[c.path] {
				t.Fatalf("%s fails %v, told %v: %v\n%s", c.path, failing[c.path], told[c.path], messages(out.Detail), rules)
			}
			if told[c.path] {
				values[c.path] = c.good[0]
			}
		}
		if len(told) > len(failing) {
			t.Fatalf("told %v, failing %v", told, failing)
		}
		if after := p.simulate(context.Background(), inputOf(t, values), nil); !after.Allowed {
			t.Fatalf("still refused: %v", messages(after.Reasons))
		}
	})
}

func inputOf(t *rapid.T, values map[string]string) document.Value {
	root := document.ObjectOf()
	for path, text := range values {
		if text == "" {
			continue
		}
		v, err := document.Parse([]byte(text), document.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		root, _ = merge(root, nest(v, strings.Split(path, ".")), nil)
	}
	return root
}
