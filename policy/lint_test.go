package policy

import (
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
)

// What compiles and can't be meant. who is the condition that keeps the other
// lints quiet.
func TestLint(t *testing.T) {
	const who = "\tinput.identity.role == \"ci\"\n"
	rule := func(cond string) string { return "allow if {\n" + who + "\t" + cond + "\n}\n" }
	for _, c := range []struct {
		name, rules string
		code        proviso.Code
		warning     bool
		line        int
		words       string
	}{
		{"default true", "default allow := true\n\n" + rule("true"), CodeLintAllow, false, 3, "default of allow is true"},
		{"default true, old", "default allow = true\n\nallow { input.identity.role == \"ci\" }\n", CodeLintAllow, false, 3, "default of allow is true"},
		{"unconditional", "allow := true\n", CodeLintAllow, false, 3, "without a condition"},
		{"unconditional body", "allow if true\n", CodeLintAllow, false, 3, "without a condition"},
		{"unconditional else", "allow if {\n" + who + "} else := true\n", CodeLintAllow, false, 5, "without a condition"},
		{"text", "allow := \"yes\" if {\n" + who + "}\n", CodeLintAllow, false, 3, "allow is a string"},
		{"number by default", "default allow := 0\n\n" + rule("true"), CodeLintAllow, false, 3, "allow is a number"},
		{"a set", "allow contains \"x\" if {\n" + who + "}\n", CodeLintAllow, false, 3, "a function, a set or an object"},
		{"a function", "allow(x) if x == 1\n", CodeLintAllow, false, 3, "a function, a set or an object"},
		{"an object", "allow[x] := true if {\n\tx := input.identity.role\n}\n", CodeLintAllow, false, 3, "a function, a set or an object"},
		{"deny is a boolean", rule("true") + "\ndeny if input.context.freeze\n", CodeLintAllow, false, 8, "not a set of messages"},
		{"deny is a boolean, old", "allow { input.identity.role == \"ci\" }\n\ndeny { input.context.freeze }\n", CodeLintAllow, false, 5, "not a set of messages"},
		{"deny is an object", rule("true") + "\ndeny[msg] if msg := \"x\"\n", CodeLintAllow, false, 8, "not a set of messages"},
		{"deny is a function", rule("true") + "\ndeny(x) if x == 1\n", CodeLintAllow, false, 8, "deny is a function"},
		{"deny holds a number", rule("true") + "\ndeny contains 5 if input.context.freeze\n", CodeLintAllow, false, 8, "deny holds a number"},
		{"limits misspelt", rule("true") + "\nlimits := {\"tll\": 5}\n", CodeLintAllow, false, 8, "limits has a member \"tll\""},
		{"limits misspelt, computed", rule("true") + "\nlimits := {\"tll\": input.context.requested_ttl}\n", CodeLintAllow, false, 8, "limits has a member \"tll\""},
		{"limits of another type", rule("true") + "\nlimits := {\"ttl\": \"15m\"}\n", CodeLintAllow, false, 8, "limits.ttl is a string"},
		{"limits zero", rule("true") + "\nlimits := {\"ttl\": 0}\n", CodeLintAllow, false, 8, "whole number from 1"},
		{"time without zero", rule(`input.context.time >= "9:00"`), CodeLintTime, false, 5, "wrong order"},
		{"time with seconds", rule(`input.context.time <= "17:00:00"`), CodeLintTime, false, 5, "HH:MM"},
		{"time in a variable", rule("now := input.context.time\n\tnow < \"24:00\""), CodeLintTime, false, 6, "HH:MM"},
		{"date", rule(`input.context.date != "24.12.2026"`), CodeLintTime, false, 5, "YYYY-MM-DD"},
		{"weekday", rule(`input.context.weekday != "sunday"`), CodeLintEnum, false, 5, "Monday, Tuesday"},
		{"weekday in a list", rule(`input.context.weekday in {"Mon", "Tuesday"}`), CodeLintEnum, false, 5, `never "Mon"`},
		{"attestation", rule(`input.runner.attestation == "spiffe"`), CodeLintEnum, false, 5, "spiffe-x509"},
		{"part of an id", rule(`startswith(input.runner.id, "trusted-")`), proviso.CodePolicyLintWildcardID, false, 5, "identifier"},
		{"regex on an id", rule("regex.match(`^12`, input.identity.repository_id)"), proviso.CodePolicyLintWildcardID, false, 5, "identifier"},
		{"glob on a tenant", rule(`glob.match("acme*", [], input.identity.tenant)`), proviso.CodePolicyLintWildcardID, false, 5, "identifier"},
		{"a star that is text", rule(`input.identity.repository == "acme/*"`), proviso.CodePolicyLintWildcardID, false, 5, "compares text as it is"},
		{"lower", rule(`lower(input.identity.repository) == "acme/shop"`), proviso.CodePolicyLintCasefold, false, 5, "two different names become equal"},
		{"upper of a branch", rule(`upper(input.context.branch) == "MAIN"`), proviso.CodePolicyLintCasefold, false, 5, "upper changes the case"},
		{"lower in a variable", rule("r := input.identity.repository\n\tlower(r) == \"a/b\""), proviso.CodePolicyLintCasefold, false, 6, "lower changes the case"},
		{"regex without case", rule("regex.match(`(?i)^acme/shop$`, input.identity.repository)"), proviso.CodePolicyLintCasefold, false, 5, "for one"},
		{"regex without anchors", rule("regex.match(`acme/shop`, input.identity.repository)"), CodeLintPattern, false, 5, "longer texts"},
		{"regex with one anchor", rule("regex.match(`^acme/`, input.identity.repository)"), CodeLintPattern, false, 5, "longer texts"},
		{"regex with anchors around two", rule("regex.match(`^acme/shop|acme/pay$`, input.identity.repository)"), CodeLintPattern, false, 5, "longer texts"},
		{"broken regex", rule("regex.match(`^(`, input.context.branch)"), CodeLintPattern, false, 5, "no regular expression"},
		{"glob without delimiter", rule(`glob.match("acme/*", [], input.identity.repository)`), CodeLintPattern, true, 5, "below"},
		{"beginning without end", rule(`startswith(input.identity.repository, "acme")`), CodeLintPattern, true, 5, "other letters"},
		{"end without beginning", rule(`endswith(input.context.branch, "main")`), CodeLintPattern, true, 5, "other letters"},
		{"anywhere", rule(`contains(input.identity.subject, "acme/shop")`), CodeLintPattern, true, 5, "anywhere"},
		{"annotation", rule(`contains(input.context.annotation, "approved")`), CodeLintDeclared, true, 5, "NOT approved"},
		{"declared alone", "allow if input.intent.purpose == \"debug\"\n", CodeLintDeclared, true, 3, "nothing in this rule says who may"},
		{"declared and the clock", "allow if {\n\tinput.context.purpose == \"debug\"\n\tinput.context.time > \"09:00\"\n}\n", CodeLintDeclared, true, 3, "(purpose)"},
		{"untested", rule("true"), CodeLintUntested, true, 1, "no tests"},
		{"regoallow", "regoallow {\n\tinput.identity.role == \"ci\"\n}\n", CodeLintAllow, true, 3, "regoallow is not read"},
		{"alow", "alow if {\n" + who + "}\n", CodeLintAllow, true, 3, "alow is not read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := check(t, map[string]string{"p.rego": "package p\n\n" + c.rules})
			for _, p := range problems {
				if p.Code == c.code && p.Warning == c.warning && p.Line == c.line && strings.Contains(p.String(), c.words) {
					return
				}
			}
			t.Errorf("want %s at line %d with %q, got\n%v", c.code, c.line, c.words, problems)
		})
	}
}

// What is right gets no problem but the missing tests.
func TestLintIsQuiet(t *testing.T) {
	for _, cond := range []string{
		`input.context.time >= "09:00"`, `input.context.date < "2026-12-24"`, `input.context.weekday in {"Saturday", "Sunday"}`,
		`startswith(input.identity.repository, "acme/")`, "regex.match(`^(acme/shop|acme/pay)$`, input.identity.repository)",
		"regex.match(`\\Arelease/[0-9]+\\z`, input.context.branch)", `glob.match("release/*", ["/"], input.context.branch)`,
		`lower(input.context.purpose) == "debug"`, `input.runner.id in {"r-1", "r-2"}`, `count(input.context.scope) <= 1`,
	} {
		for _, p := range check(t, map[string]string{"p.rego": "package p\n\nallow if {\n\tinput.identity.role == \"ci\"\n\t" + cond + "\n}\n"}) {
			if p.Code != CodeLintUntested {
				t.Errorf("%s: %v", cond, p)
			}
		}
	}
}

// A package that would say yes to somebody whom nobody knows doesn't become
// active.
func TestCanaries(t *testing.T) {
	for name, rules := range map[string]string{
		"an empty input":   "allow if not input.identity.tenant == \"evil\"\n",
		"who declares":     "allow if input.context.requested_ttl <= 30\n",
		"the time of day":  "allow if input.context.time >= \"09:00\"\n",
		"any job":          "allow if input.identity.kind == \"job\"\n",
		"any tenant's job": "allow if input.identity.tenant != \"evil\"\n",
		"count of nothing": "allow if count({x | x := input.context.scope[_]; x == \"admin\"}) == 0\n",
	} {
		t.Run(name, func(t *testing.T) {
			problems := check(t, map[string]string{"p.rego": "package p\n\n" + rules})
			if len(problems) == 0 || problems[0].Code != proviso.CodePolicyCanary || problems[0].Line != 3 || !strings.Contains(problems[0].Message, "package p allows") {
				t.Errorf("%v", problems)
			}
		})
	}
}

func TestPolicysOwnTests(t *testing.T) {
	for _, c := range []struct {
		name, test string
		code       proviso.Code
		words      string
	}{
		{"a test that fails", "test_x if data.production.allow with input as {}\n", proviso.CodePolicyTests, "the test test_x failed: it is not true"},
		{"a test that fails with an error", "test_x if to_number(\"a\") == 1\n", proviso.CodePolicyTests, "strconv"},
		{"a test of a misspelt field", "test_x if not data.production.allow with input.identity.rolle as \"x\"\n", CodeTypeCheck, "did you mean input.identity.role?"},
		{"a test of a rule that isn't there", "test_x if data.production.alow == true\n", proviso.CodePolicyTests, "not true"},
		{"a test that never ends", "test_x if {\n\txs := split(\"" + strings.Repeat("a,", 300) + "\", \",\")\n\tcount([1 | xs[_]; xs[_]; xs[_]; xs[_]]) == 0\n}\n", proviso.CodePolicyTests, "test_x failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(Config{Dir: dirOf(t, map[string]string{"p.rego": goodPolicy, "p_test.rego": "package production_test\n\n" + c.test})}, Options{Log: silent})
			refused(t, err, c.code, c.words)
		})
	}
	e := open(t, dirOf(t, map[string]string{"p.rego": goodPolicy, "p_test.rego": "package production_test\n\ntest_x if data.production.allow with input.identity.role as \"ci\"\n\ntodo_test_y if false\n"}))
	if s := e.Status(); s.Tests != 1 || len(s.Warnings) != 1 {
		t.Errorf("%+v", s)
	}
	// Tests are no part of a decision.
	if got := e.Packages(); len(got) != 1 || got[0] != "production" {
		t.Errorf("packages %v", got)
	}
}
