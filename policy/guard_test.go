package policy

import (
	"context"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
)

// A fact is a guard by whatever way the policy reads it: a variable that stands
// for context, a function that gets it, a key that is computed, a search.
func TestAbsenceNeverAllowsByAnotherName(t *testing.T) {
	const helpers = `
frozen(ctx) if ctx.freeze

calm(name, value) if name != "freeze"

calm(name, value) if value == false

checks.frozen if input.context.freeze
`
	for name, condition := range map[string]string{
		"a variable":                 "c := input.context\n\tnot c.freeze",
		"a variable, unified":        "c = input.context\n\tnot c.freeze",
		"a variable for all":         "i := input\n\tnot i.context.freeze",
		"a function":                 "not frozen(input.context)",
		"a default value":            "c := input.context\n\tobject.get(c, \"freeze\", false) == false",
		"a default value, by a path": "object.get(input, [\"context\", \"freeze\"], false) == false",
		"a computed key":             "key := \"freeze\"\n\tnot input.context[key]",
		"what the keys lack":         "not \"freeze\" in object.keys(input.context)",
		"every":                      "every k, v in input.context { calm(k, v) }",
		"a walk":                     "count([1 | walk(input.context, [p, true]); p == [\"freeze\"]]) == 0",
		"a filter":                   "object.filter(input.context, [\"freeze\"]) == {}",
		"a computed rule":            "name := \"frozen\"\n\tnot data.production.checks[name]",
	} {
		t.Run(name, func(t *testing.T) {
			p := onePolicy(t, "production", map[string]string{"p.rego": "package production\n" + helpers + "\nallow if {\n\tinput.identity.role == \"ci\"\n\t" + condition + "\n}\n"})
			_, err := p.Decide(context.Background(), facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{"branch":"main"}}`)))
			refused(t, err, proviso.CodePolicyDenied, "the policy allows only where it is known")
		})
	}
}

// The safe side has a bound: a variable whose members are named is followed
// exactly, and what it reads where it has to hold is no guard.
func TestGuardsFollowVariables(t *testing.T) {
	rules := "package production\n\nallow if {\n\tc := input.context\n\tc.on_call == true\n}\n\nallow if {\n\tc := input.context\n\tc.branch == \"main\"\n\tnot c.tag\n}\n"
	p := onePolicy(t, "production", map[string]string{"p.rego": rules})
	if len(p.guards) != 1 || p.guards[0] != "context.tag" {
		t.Errorf("guards: %v", p.guards)
	}
	v, err := p.Decide(context.Background(), facts.Recorded(input(t, `{"identity":{"role":"ci"},"context":{"branch":"main"}}`)))
	if !v.Allowed() {
		t.Error(err)
	}
}
