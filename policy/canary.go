package policy

import (
	"context"
	"fmt"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// canary is an input that no package may ever allow, whatever it guards.
type canary struct {
	name  string
	input document.Value
}

// canaries are asked of every package before a revision becomes active. Each
// lacks somebody who could be allowed, so a policy that says yes to one would
// say yes to everybody.
var canaries = func() []canary {
	text, obj := document.StringOf, document.ObjectOf
	m := document.Member
	intent := obj(m("action", text("canary")), m("purpose", text("canary")), m("annotation", text("canary")),
		m("ticket_id", text("CANARY-1")), m("requested_ttl", document.IntOf(1)), m("scope", document.StringsOf([]string{"canary"})))
	facts := intent.With(m("time", text("12:00")), m("weekday", text("Wednesday")), m("date", text("2026-01-07")),
		m("timestamp", document.IntOf(1767783600)), m("zone", text("UTC")))
	nobody := obj(m("kind", text("job")), m("issuer", text("https://canary.invalid")), m("platform", text("canary")),
		m("tenant", text("canary")), m("role", text("canary")), m("repository", text("canary/canary")),
		m("branch", text("canary")), m("pull_request", document.BoolOf(true)))
	return []canary{
		{"the empty input", obj()},
		{"an input with nothing but what a request declares", obj(m("intent", intent), m("context", intent))},
		{"an input with the time of day and no identity", obj(m("intent", intent), m("context", facts))},
		{"an unknown tenant's job from a pull request", obj(m("intent", intent), m("context", facts), m("identity", nobody))},
	}
}()

// runCanaries asks them all of every package.
func runCanaries(ctx context.Context, rev *revision) Problems {
	var out Problems
	for _, p := range rev.packages {
		for _, c := range canaries {
			d := p.evaluate(ctx, c.input, nil)
			at := p.rules[0].Location
			problem := Problem{Code: proviso.CodePolicyCanary, File: at.File, Line: at.Row}
			switch {
			case d.allowed():
				problem.Message = fmt.Sprintf("package %s allows %s", p.name, c.name)
				problem.Hint = "name who may: compare input.identity (or input.runner, input.resource) with something"
			case d.fault != nil && d.fault.Code == proviso.CodePolicyTimeout:
				problem.Message = fmt.Sprintf("package %s comes to no decision about %s within %v", p.name, c.name, p.timeout)
			default:
				continue
			}
			out = append(out, problem)
			break
		}
	}
	return out
}
