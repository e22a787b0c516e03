package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
)

const asCI = `{"identity":{"role":"ci"}}`

// endless is a policy that a given annotation keeps busy for hours.
const endless = "package production\n\nallow if {\n\tinput.identity.role == \"ci\"\n\txs := split(input.context.annotation, \"\")\n\tcount([1 | xs[_]; xs[_]; xs[_]; xs[_]; xs[_]]) > 0\n}\n"

func decide(t testing.TB, files map[string]string, in string, absent ...facts.Absence) (Verdict, error) {
	t.Helper()
	return onePolicy(t, "production", files).Decide(context.Background(), facts.Recorded(input(t, in), absent...))
}

// Everything but an allow of exactly true and an empty deny is a refusal, with
// the code that says which.
func TestDecideRefuses(t *testing.T) {
	for _, c := range []struct {
		name, rules, input string
		code               proviso.Code
		words              string
	}{
		{"undefined", "allow if input.context.branch == \"main\"", asCI, proviso.CodePolicyDenied, "branch is absent"},
		{"false", "default allow := false\n\nallow if input.context.branch == \"main\"", asCI, proviso.CodePolicyDenied, "branch is absent"},
		{"an empty input", "allow if input.identity.role == \"ci\"", `{}`, proviso.CodePolicyDenied, "identity.role is absent"},
		{"an input that is a list", "allow if input.identity.role == \"ci\"", `[1]`, proviso.CodePolicyDenied, "identity.role is absent"},
		{"text", "allow := x if x := input.identity.role", asCI, proviso.CodePolicyResultType, "allow is a string"},
		{"a number", "allow := count(input.identity)", asCI, proviso.CodePolicyResultType, "allow is a number"},
		{"null", "allow := x if x := input.context.annotation", `{"context":{"annotation":null}}`, proviso.CodePolicyResultType, "allow is null"},
		{"an object", "allow := input.identity if input.identity.role == \"ci\"", asCI, proviso.CodePolicyResultType, "allow is an object"},
		{"a set", "allow contains input.identity.role", asCI, proviso.CodePolicyResultType, "allow is a set"},
		{"a conflict", "allow if input.identity.role == \"ci\"\n\nallow := false if input.identity.role != \"x\"", asCI, proviso.CodePolicyError, "eval_conflict_error"},
		{"a conflict in a helper", "allow if x == 1\n\nx := 1 if input.identity.role == \"ci\"\n\nx := 2 if input.identity.role != \"x\"", asCI, proviso.CodePolicyError, "eval_conflict_error"},
		{"an error of a function", "allow if to_number(input.identity.role) == 5", asCI, proviso.CodePolicyError, "to_number"},
		{"an error under not", "allow if not to_number(input.identity.role) == 5", asCI, proviso.CodePolicyError, "to_number"},
		{"an error in deny", "allow if input.identity.role == \"ci\"\n\ndeny contains \"x\" if to_number(input.identity.role) == 5", asCI, proviso.CodePolicyError, "to_number"},
		{"an error in limits", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": to_number(input.identity.role)}", asCI, proviso.CodePolicyError, "to_number"},
		{"denied", "allow if input.identity.role == \"ci\"\n\ndeny contains \"no deployments today\" if input.identity.role == \"ci\"", asCI, proviso.CodePolicyDenied, "no deployments today"},
		{"deny holds a number", "allow if input.identity.role == \"ci\"\n\ndeny contains x if x := count(input.identity)", asCI, proviso.CodePolicyResultType, "deny holds a number"},
		{"deny is true", "allow if input.identity.role == \"ci\"\n\ndeny if input.identity.role == \"ci\"", asCI, proviso.CodePolicyResultType, "deny is a boolean"},
		{"deny is undefined", "allow if input.identity.role == \"ci\"\n\ndeny := {\"x\"} if input.identity.role == \"dev\"", asCI, proviso.CodePolicyResultType, "deny is undefined"},
		{"deny is a list", "allow if input.identity.role == \"ci\"\n\ndeny := []", asCI, proviso.CodePolicyResultType, "deny is an array"},
		{"limits undefined", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": 5} if input.context.branch == \"main\"", asCI, proviso.CodePolicyResultType, "limits has no value"},
		{"limits is a number", "allow if input.identity.role == \"ci\"\n\nlimits := 5", asCI, proviso.CodePolicyResultType, "limits is a number"},
		{"limits has an unknown member", "allow if input.identity.role == \"ci\"\n\nlimits := {\"tll\": 5}", asCI, proviso.CodePolicyResultType, `"tll"`},
		{"limits.ttl is text", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": \"5m\"}", asCI, proviso.CodePolicyResultType, "limits.ttl is a string"},
		{"limits.ttl is negative", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": -5}", asCI, proviso.CodePolicyResultType, "whole number"},
		{"limits.ttl is a fraction", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": 0.5}", asCI, proviso.CodePolicyResultType, "whole number"},
		{"limits.ttl in milliseconds", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": 90000000}", asCI, proviso.CodePolicyResultType, "whole number"},
		{"limits.scope is text", "allow if input.identity.role == \"ci\"\n\nlimits := {\"scope\": \"deploy\"}", asCI, proviso.CodePolicyResultType, "limits.scope is a string"},
		{"limits.scope holds two in one", "allow if input.identity.role == \"ci\"\n\nlimits := {\"scope\": [\"a b\"]}", asCI, proviso.CodePolicyResultType, "no scope"},
		{"limits.scope holds a number", "allow if input.identity.role == \"ci\"\n\nlimits := {\"scope\": [5]}", asCI, proviso.CodePolicyResultType, "no scope"},
		{"limits.approvals is zero", "allow if input.identity.role == \"ci\"\n\nlimits := {\"approvals\": 0}", asCI, proviso.CodePolicyResultType, "limits.approvals is 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := decide(t, map[string]string{"p.rego": "package production\n\n" + c.rules + "\n"}, c.input)
			if v.Allowed() {
				t.Error("allowed")
			}
			refused(t, err, c.code, c.words)
			no := proviso.AsRefusal(err, "", "")
			if strings.Contains(no.Public, "to_number") || strings.Contains(no.Public, "rego") {
				t.Errorf("the job reads of the policy's inside: %s", no.Public)
			}
		})
	}
	p := onePolicy(t, "production", map[string]string{"p.rego": goodPolicy})
	if _, err := p.Decide(context.Background(), facts.Known{}); err == nil {
		t.Error("nothing was asked, and allowed")
	}
}

func TestDecideAllows(t *testing.T) {
	for _, c := range []struct {
		name, rules string
		want        Limits
	}{
		{"allow alone", "allow if input.identity.role == \"ci\"", Limits{}},
		{"with an empty deny", "allow if input.identity.role == \"ci\"\n\ndeny contains \"x\" if input.identity.role == \"dev\"", Limits{}},
		{"with limits", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": 900, \"scope\": [\"deploy\"], \"approvals\": 2}", Limits{TTL: 15 * time.Minute, Scope: []string{"deploy"}, Approvals: 2}},
		{"with no scope at all", "allow if input.identity.role == \"ci\"\n\nlimits := {\"scope\": []}", Limits{Scope: []string{}}},
		{"with a set of scopes", "allow if input.identity.role == \"ci\"\n\nlimits := {\"scope\": {\"b\", \"a\"}}", Limits{Scope: []string{"a", "b"}}},
		{"with a computed limit", "allow if input.identity.role == \"ci\"\n\nlimits := {\"ttl\": count(input.identity) * 60}", Limits{TTL: time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := decide(t, map[string]string{"p.rego": "package production\n\n" + c.rules + "\n"}, asCI)
			if err != nil || !v.Allowed() {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, v.Limits()); diff != "" {
				t.Error(diff)
			}
			if v.Package() != "production" || v.Revision() != 1 || !strings.HasPrefix(v.Digest(), "sha256:") {
				t.Errorf("%s %d %s", v.Package(), v.Revision(), v.Digest())
			}
		})
	}
	if (Verdict{}).Allowed() {
		t.Error("the zero verdict allows")
	}
}

// A policy that never ends is a refusal after Timeout, and one whose request
// ends earlier stops with it.
func TestDecideEnds(t *testing.T) {
	p := onePolicy(t, "production", map[string]string{"p.rego": endless})
	in := facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{"annotation":"`+strings.Repeat("x", 400)+`"}}`))

	p.timeout = Config{}.timeout()
	start := time.Now()
	_, err := p.Decide(context.Background(), in)
	refused(t, err, proviso.CodePolicyTimeout, "did not come to a decision within 1s")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.timeout = time.Hour
	_, err = p.Decide(ctx, in)
	refused(t, err, proviso.CodePolicyTimeout, context.Canceled.Error())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// The explanation of a policy that is slow to explain stops, and says so.
func TestExplanationEnds(t *testing.T) {
	rules := "package production\n\nallow if {\n\tinput.identity.role == \"x\"\n\txs := split(input.context.annotation, \"\")\n\tcount([1 | xs[_]; xs[_]; xs[_]; xs[_]; xs[_]]) == 0\n}\n"
	p := onePolicy(t, "production", map[string]string{"p.rego": rules})
	p.patience = explainTime
	_, err := p.Decide(context.Background(), facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{"annotation":"`+strings.Repeat("x", 400)+`"}}`)))
	no := proviso.AsRefusal(err, "", "")
	if no.Code != proviso.CodePolicyDenied || len(no.Reasons) < 2 || no.Reasons[0].Message != "identity.role is ci, policy wants x" {
		t.Fatalf("%v", err)
	}
	if last := no.Reasons[len(no.Reasons)-1]; !strings.Contains(last.Message, "stopped after 250ms") {
		t.Errorf("%+v", no.Reasons)
	}
}

// Absence never allows: where a policy reads a fact under "not", in deny, or in
// any other place where its absence helps, and it is absent, the answer is no.
func TestAbsenceNeverAllows(t *testing.T) {
	const ci = "\tinput.identity.role == \"ci\"\n"
	down := facts.Absence{Key: "context.ticket", Source: "jira", Why: "the source jira did not answer in time"}
	for _, c := range []struct {
		name, rules string
		guards      []string
		known       string // with it the policy allows
		absent      []facts.Absence
	}{
		{"not", "allow if {\n" + ci + "\tnot input.context.freeze\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"not, with a comparison", "allow if {\n" + ci + "\tnot input.context.freeze == true\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"deny", "allow if {\n" + ci + "}\n\ndeny contains \"frozen\" if input.context.freeze", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a helper under not", "allow if {\n" + ci + "\tnot frozen\n}\n\nfrozen if input.context.freeze", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a helper with a default", "default frozen := false\n\nfrozen if input.context.freeze\n\nallow if {\n" + ci + "\tfrozen == false\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a default of true", "default open := true\n\nopen := false if input.context.freeze\n\nallow if {\n" + ci + "\topen\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"an else", "allow if {\n" + ci + "\topen\n}\n\nopen := false if input.context.freeze\nelse := true if input.identity.role == \"ci\"", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a count of nothing", "allow if {\n" + ci + "\tcount(problems) == 0\n}\n\nproblems contains \"frozen\" if input.context.freeze", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a comprehension", "allow if {\n" + ci + "\tcount([1 | input.context.freeze == true]) == 0\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a default value", "allow if {\n" + ci + "\tobject.get(input.context, \"freeze\", false) == false\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"allow says false", "allow := false if input.context.freeze\n\nallow := true if {\n" + ci + "\tobject.get(input.context, \"freeze\", false) == false\n}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"allow says false, and nothing else does", "allow := false if input.context.freeze\n\nallow := true if {\n" + ci + "}", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"three times not", "allow if {\n" + ci + "\tnot a\n}\n\na if not b\n\nb if not input.context.freeze", []string{"context.freeze"}, `{"freeze":false}`, nil},
		{"a default in the place of a fact", "default open := true\n\nopen := input.context.on_call\n\nallow if {\n" + ci + "\topen\n}", []string{"context.on_call"}, `{"on_call":true}`, nil},
		{"or, under not", "import rego.v2\n\nallow if {\n" + ci + "\tnot (input.context.freeze or input.context.on_call)\n}", []string{"context.freeze", "context.on_call"}, `{"freeze":false,"on_call":false}`, nil},
		{"a source that failed", "allow if {\n" + ci + "\tnot input.context.ticket.blocked\n}", []string{"context.ticket"}, `{"ticket":{"blocked":false}}`, []facts.Absence{down}},
		{"limits by a fact", "default limits := {\"ttl\": 3600}\n\nlimits := {\"ttl\": 60} if input.context.freeze\n\nallow if {\n" + ci + "}", []string{"context.freeze"}, `{"freeze":false}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := onePolicy(t, "production", map[string]string{"p.rego": "package production\n\n" + c.rules + "\n"})
			if diff := cmp.Diff(c.guards, p.guards); diff != "" {
				t.Errorf("guards:\n%s", diff)
			}
			with := input(t, `{"identity":{"role":"ci"},"context":`+c.known+`}`)
			if v, err := p.Decide(context.Background(), facts.Recorded(with)); !v.Allowed() {
				t.Errorf("with the fact: %v", err)
			}
			_, err := p.Decide(context.Background(), facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{}}`), c.absent...))
			refused(t, err, proviso.CodePolicyDenied, "the policy allows only where it is known")
			no := proviso.AsRefusal(err, "", "")
			if len(no.Reasons) == 0 || !slices.Contains(c.guards, no.Reasons[0].Path) {
				t.Errorf("%+v", no.Reasons)
			}
		})
	}
}

// What is read where it has to hold is no guard: a source that is down refuses
// only where its fact is needed.
func TestAbsenceOfWhatIsNotNeeded(t *testing.T) {
	rules := "package production\n\nallow if input.identity.role == \"ci\"\n\nallow if {\n\tinput.context.commit_signed\n\tsigned == true\n\tnot input.context.tag\n}\n\ndefault signed := false\n\nsigned if input.context.ticket_approved\n"
	p := onePolicy(t, "production", map[string]string{"p.rego": rules})
	if diff := cmp.Diff([]string{"context.tag"}, p.guards); diff != "" {
		t.Error(diff)
	}
	v, err := p.Decide(context.Background(), facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{}}`), facts.Absence{Key: "context.commit_signed", Source: "git", Why: "down"}))
	if !v.Allowed() {
		t.Error(err)
	}
}

// Needs is what a package reads: of its own rules and of all that they use.
func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		name, rules string
		want        facts.Needs
	}{
		{"its own", "allow if {\n\tinput.identity.role == \"a\"\n\tinput.context.time < \"17:00\"\n}", facts.Needs{Paths: []string{"context.time", "identity.role"}}},
		{"a helper's", "allow if data.lib.ok", facts.Needs{Paths: []string{"context.ticket.status"}}},
		{"a function's argument", "allow if data.lib.is(input.context.branch)", facts.Needs{Paths: []string{"context.branch"}}},
		{"a whole object as an argument", "allow if data.lib.main(input.context)", facts.Needs{Paths: []string{"context"}}},
		{"deny and limits", "allow if input.identity.role == \"a\"\n\ndeny contains \"x\" if input.context.freeze\n\nlimits := {\"ttl\": input.context.requested_ttl}", facts.Needs{Paths: []string{"context.freeze", "context.requested_ttl", "identity.role"}}},
		{"under not, in a comprehension, in every", "allow if {\n\tnot input.context.freeze\n\tcount([x | x := input.context.scope[_]]) == 1\n\tevery s in input.intent.scope { s == input.identity.role }\n}", facts.Needs{Paths: []string{"context.freeze", "context.scope", "identity.role", "intent.scope"}}},
		{"through an import", "import input.context as c\n\nallow if c.branch == \"main\"", facts.Needs{Paths: []string{"context.branch"}}},
		{"through a variable", "allow if {\n\tc := input.context\n\tc.branch == \"main\"\n\tc.tag == \"x\"\n}", facts.Needs{Paths: []string{"context.branch", "context.tag"}}},
		{"through a variable that goes on", "allow if {\n\tc := input.context\n\tc.branch == \"main\"\n\tdata.lib.main(c)\n}", facts.Needs{Paths: []string{"context"}}},
		{"a dynamic key", "allow if {\n\tk := input.identity.role\n\tinput.context[k] == \"main\"\n}", facts.Needs{Paths: []string{"context", "identity.role"}}},
		{"everything", "allow if count(input) == 5", facts.Needs{All: true}},
		{"everything, by name", "allow if {\n\tk := input.identity.role\n\tinput[k].x == 1\n}", facts.Needs{All: true}},
		{"walk", "allow if {\n\twalk(input, [_, v])\n\tv == 1\n}", facts.Needs{All: true}},
		{"with", "allow if data.lib.ok with input.context.ticket as input.context.annotation", facts.Needs{Paths: []string{"context.annotation", "context.ticket"}}},
		{"claims only when read", "allow if input.identity.claims.x == 1", facts.Needs{Paths: []string{"identity.claims.x"}}},
		{"a key with a dot", "allow if input.resource.labels[\"a.b\"] == \"1\"", facts.Needs{Paths: []string{"resource.labels"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := onePolicy(t, "production", map[string]string{
				"p.rego":   "package production\n\n" + c.rules + "\n",
				"lib.rego": "package lib\n\nok if input.context.ticket.status == \"done\"\n\nis(b) if b == \"main\"\n\nmain(c) if c.branch == \"main\"\n\nunused if input.context.commit_signed\n",
			})
			if diff := cmp.Diff(c.want, p.Needs()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A package sees of an input what it reads, and decides as if it saw all.
func TestPickedInputDecidesAlike(t *testing.T) {
	for _, e := range []*Engine{open(t, seedDir), open(t, hardenedDir)} {
		for _, name := range e.Packages() {
			p, _ := e.For(name)
			whole := *p
			whole.picker = newPicker(facts.Needs{All: true})
			for _, in := range sampleInputs() {
				v := input(t, in)
				a, b := p.evaluate(context.Background(), v, nil), whole.evaluate(context.Background(), v, nil)
				if fmt.Sprint(a) != fmt.Sprint(b) {
					t.Errorf("%s on %s: %v, with the whole input %v", name, in, a, b)
				}
			}
		}
	}
}

func sampleInputs() []string {
	const full = `{"identity":{"role":"ci-cd-pipeline","tenant":"acme","on_call":true,"pull_request":false},"runner":{"id":"trusted-runner-1","region":"us-west-2","trust_domain":"runners.acme.example","attestation":"spiffe-x509"},"resource":{"tenant":"acme"},"context":{"branch":"main","commit_signed":true,"commit_on_branch":true,"environment":"production","time":"12:30","weekday":"Monday","service":"critical","ticket_approved":true,"ticket":{"service":"critical"},"requested_ttl":10,"purpose":"debug","action":"deploy_hotfix","annotation":"approved by ticket OPS-7","ticket_id":"OPS-7","freeze":false}}`
	out := []string{`{}`, full}
	for _, cut := range []string{`"role":"ci-cd-pipeline",`, `"tenant":"acme",`, `"id":"trusted-runner-1",`, `"commit_signed":true,`, `"requested_ttl":10,`, `,"freeze":false`} {
		out = append(out, strings.Replace(full, cut, "", 1))
	}
	return out
}
