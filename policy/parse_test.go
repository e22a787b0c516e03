package policy

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// What the author of a broken module reads: one problem per mistake, at its
// line, in the words of the syntax that was meant.
func TestParseProblems(t *testing.T) {
	for _, c := range []struct {
		name, source string
		line, column int
		message      string
		hint         string
	}{
		{"conditions on one line, old", "package p\n\nallow { input.identity.role == \"a\" input.identity.tenant == \"b\" }\n", 3, 36, "two conditions stand on one line", "its own line"},
		{"conditions on one line, new", "package p\n\nallow if { input.identity.role == \"a\" input.identity.tenant == \"b\" }\n", 3, 39, "two conditions stand on one line", "its own line"},
		{"no package", "allow if true\n", 1, 1, "no package line", "package production"},
		{"an empty file", "", 0, 0, "no package line", "package production"},
		{"if is missing among new rules", "package p\n\nallow if input.identity.role == \"a\"\n\nhelper { input.identity.role == \"a\" }\n", 5, 1, "the word if is missing", "allow if"},
		{"typographic quotes", "package p\n\nallow { input.identity.role == “a” }\n", 3, 32, "typographic quotes", "straight"},
		{"single quotes", "package p\n\nallow if input.identity.role == 'a'\n", 3, 33, "single quotes", "double quotes"},
		{"an open bracket", "package p\n\nallow if {\n\tinput.identity.role == \"a\"\n", 5, 0, "ends inside a rule", "bracket"},
		{"no rule", "package p\n\nallow true\n", 3, 1, "not a rule", "name if"},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := check(t, map[string]string{"p.rego": c.source})
			if len(problems) == 0 {
				t.Fatal("no problem")
			}
			p := problems[0]
			if p.Code != proviso.CodePolicyParse || p.File != "p.rego" || p.Line != c.line || c.column > 0 && p.Column != c.column ||
				!strings.Contains(p.Message, c.message) || !strings.Contains(p.Hint, c.hint) {
				t.Errorf("got %+v", p)
			}
			if p.Line > 0 && p.Line <= strings.Count(c.source, "\n") && p.Source != strings.Split(c.source, "\n")[p.Line-1] {
				t.Errorf("the line is shown as %q", p.Source)
			}
		})
	}
}

// A file in today's Rego with a mistake must never be read as the older syntax,
// in which "if" is a name and the rule before it unconditional.
func TestNewSyntaxIsNeverReadAsOld(t *testing.T) {
	for _, source := range []string{
		"package p\n\nallow := true if { input.identity.role == \"a\" }\n\nhelper { true }\n",
		"package p\n\nallow := true\nif { input.identity.role == \"a\" }\n\nhelper { true }\n",
		"package p\n\nallow = true if { input.identity.role == \"a\" } else := false if { true }\n\nx { 1 == 1 }\n",
		"package p\n\nallow := true\nif(x) { x == 1 }\n",
	} {
		m, problems := parse(file{"p.rego", source})
		if len(problems) == 0 {
			for _, r := range m.syntax.Rules {
				if ruleName(r) == "allow" && alwaysTrue(r.Body) {
					t.Errorf("allow became unconditional:\n%s\nread as\n%s", source, m.syntax)
				}
			}
		}
	}
}

func TestBothSyntaxes(t *testing.T) {
	for _, c := range []struct {
		name, source string
		old          bool
	}{
		{"new", "package p\n\nallow if input.identity.role == \"a\"\n", false},
		{"old", "package p\n\nallow { input.identity.role == \"a\" }\n", true},
		{"old with in", "package p\n\nallow { input.identity.role in [\"a\"] }\n", true},
		{"old with imports", "package p\n\nimport future.keywords.if\nimport future.keywords.in\n\nallow if input.identity.role in [\"a\"]\n\nhelper { true }\n", true},
		{"announced as new", "package p\n\nimport rego.v1\n\nallow if input.identity.role == \"a\"\n", false},
		{"version 2", "package p\n\nimport rego.v2\n\nallow if input.identity.role == \"a\" or input.identity.role == \"b\"\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, problems := parse(file{"p.rego", c.source})
			if len(problems) > 0 || m.old != c.old {
				t.Fatalf("old %v, %v", m.old, problems)
			}
			p := onePolicy(t, "p", map[string]string{"p.rego": c.source})
			if out, _ := p.Simulate(context.Background(), input(t, `{"identity":{"role":"a"}}`)); !out.Allowed {
				t.Errorf("%+v", out)
			}
		})
	}
}

// In the older syntax a rule could be called input; it would hide what was verified.
func TestOldSyntaxCantShadowInput(t *testing.T) {
	problems := check(t, map[string]string{"p.rego": "package p\n\ninput = {\"identity\": {\"role\": \"a\"}} { true }\n\nallow { input.identity.role == \"a\" }\n"})
	if len(problems.Errors()) == 0 || !strings.Contains(problems[0].Message, "shadow") {
		t.Errorf("%v", problems)
	}
}

// A misspelt field of the input is an error that names the right ones.
func TestTypeCheck(t *testing.T) {
	for _, c := range []struct{ condition, message, hint string }{
		{`input.identity.brnch == "main"`, "input.identity has no field brnch", "did you mean input.identity.branch?"},
		{`input.context.commit_singed == true`, "input.context has no field commit_singed", "did you mean input.context.commit_signed?"},
		{`input.identiy.role == "a"`, "input has no field identiy", "did you mean input.identity?"},
		{`input.context.branch == 5`, "match error", "never equal"},
		{`inptu.context.branch == "main"`, "unsafe", "misspelt"},
		{`startswith(input.context.requested_ttl, "1")`, "invalid argument", ""},
		{`data.lib.missing_function(1)`, "undefined function", ""},
		{`allow`, "recursive", "may not use itself"},
	} {
		problems := check(t, map[string]string{"p.rego": "package p\n\nallow if {\n\t" + c.condition + "\n}\n"})
		if len(problems) == 0 {
			t.Errorf("%s: no problem", c.condition)
			continue
		}
		p := problems[0]
		if p.Code != CodeTypeCheck || p.Line < 3 || !strings.Contains(p.Message, c.message) || !strings.Contains(p.Hint, c.hint) {
			t.Errorf("%s: %+v", c.condition, p)
		}
	}
}

// Claims, labels and configured facts have names that Proviso doesn't know.
func TestTypeCheckLeavesFree(t *testing.T) {
	prog, problems := compile(treeOf(map[string]string{"p.rego": "package p\n\nallow if {\n\tinput.identity.claims.anything.deep == 5\n\tinput.resource.labels.team == \"a\"\n\tinput.context.change_window == \"open\"\n}\n"}),
		map[string]string{"change_window": "string"})
	if prog == nil {
		t.Error(problems)
	}
	if _, problems := compile(treeOf(map[string]string{"p.rego": "package p\n\nallow if input.context.change_window == \"open\"\n"}), nil); len(problems) == 0 {
		t.Error("a fact that nobody configured is no error")
	}
}

// Functions that reach out, or differ from call to call, are off, also as the
// target of "with", and the problem says what to use instead.
func TestCapabilities(t *testing.T) {
	for _, c := range []struct{ call, name, instead string }{
		{`http.send({"method": "get", "url": "http://127.0.0.1/"}).status_code == 200`, "http.send", "facts"},
		{`net.lookup_ip_addr("example.com") == set()`, "net.lookup_ip_addr", "facts"},
		{`opa.runtime().env.HOME == "x"`, "opa.runtime", ""},
		{`time.now_ns() > 0`, "time.now_ns", "input.context.time"},
		{`rand.intn("a", 5) == 1`, "rand.intn", ""},
		{`uuid.rfc4122("a") == "x"`, "uuid.rfc4122", ""},
		{`io.jwt.decode(input.context.annotation)[1].sub == "x"`, "io.jwt.decode", "input.identity"},
		{`trace("x")`, "trace", "print"},
		{`count(numbers.range(1, 1000000000)) > 0`, "numbers.range", ""},
		{`startswith("a", "b") with startswith as http.send`, "http.send", "facts"},
		{`1 == 1 with http.send as {"x": 1}`, "http.send", "facts"},
	} {
		problems := check(t, map[string]string{"p.rego": "package p\n\nallow if {\n\tinput.identity.role == \"a\"\n\t" + c.call + "\n}\n"})
		if len(problems) == 0 {
			t.Errorf("%s: no problem", c.call)
			continue
		}
		p := problems[0]
		if p.Code != proviso.CodePolicyCapability || p.Line != 5 || !strings.Contains(p.Message, c.name+" is off: ") || !strings.Contains(p.Hint, c.instead) {
			t.Errorf("%s: %+v", c.call, p)
		}
	}
	// In tests too: a test must not reach out either.
	problems := check(t, map[string]string{"p.rego": goodPolicy, "p_test.rego": "package production_test\n\ntest_a if http.send({}).ok\n"})
	if len(problems.Errors()) == 0 || problems[0].Code != proviso.CodePolicyCapability {
		t.Errorf("%v", problems)
	}
}

// Every function of OPA was looked at: it is on, or off with a reason of its
// own. A new version of OPA that brings another one fails here.
func TestEveryBuiltinIsDecided(t *testing.T) {
	decided := "all any cast_array cast_boolean cast_null cast_object cast_set cast_string re_match set_diff" // deprecated, refused by the parser or the check above
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		on := slices.Contains(builtinsOn, b.Name)
		off := slices.ContainsFunc(builtinsOff, func(o struct{ prefix, why, instead string }) bool {
			return strings.HasPrefix(b.Name, o.prefix) && o.why != ""
		})
		switch {
		case on && b.Nondeterministic:
			t.Errorf("%s is on and gives different answers to the same question", b.Name)
		case !on && !off && !slices.Contains(strings.Fields(decided), b.Name):
			t.Errorf("nobody has decided about %s", b.Name)
		}
	}
	for _, name := range builtinsOn {
		if !knownBuiltins[name] {
			t.Errorf("%s is on and unknown to OPA", name)
		}
	}
}
