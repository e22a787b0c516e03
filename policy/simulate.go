package policy

import (
	"context"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

// Outcome is what a policy would say to an input: for "proviso policy test",
// explain and replay, and for an AuthZEN answer. It is a description: nothing
// that mints takes one, only a Verdict of Decide.
type Outcome struct {
	Allowed bool `json:"allowed"`
	// Code is policy_denied, or the fault; empty when allowed.
	Code proviso.Code `json:"code,omitempty"`
	// Public is the sentence for the job.
	Public string `json:"public,omitempty"`
	// Reasons is what the job would read, Detail what the log would have.
	Reasons []proviso.Reason `json:"reasons,omitempty"`
	Detail  []proviso.Reason `json:"detail,omitempty"`
	Limits  Limits           `json:"limits,omitzero"`
	// Package, Digest and Revision say which policy it was.
	Package  string `json:"package"`
	Digest   string `json:"digest"`
	Revision uint64 `json:"revision"`
	// Fault is the cause of an outcome that is no decision, for the author.
	Fault string `json:"fault,omitempty"`
}

// Simulate asks the package about any input. The error is the context's alone;
// whatever the policy does is an Outcome.
func (p *Policy) Simulate(ctx context.Context, input document.Value) (Outcome, error) {
	out := p.simulate(ctx, input, nil)
	return out, ctx.Err()
}

func (p *Policy) simulate(ctx context.Context, input document.Value, absent []facts.Absence) Outcome {
	out := Outcome{Package: p.name, Digest: p.digest, Revision: p.Revision()}
	d := p.evaluate(ctx, input, absent)
	switch {
	case d.fault != nil:
		out.Code, out.Public = d.fault.Code, d.fault.Public
		if d.fault.Err != nil {
			out.Fault = d.fault.Err.Error()
		}
	case !d.allowed():
		e := p.explain(ctx, input, absent, d)
		out.Code, out.Reasons, out.Detail = proviso.CodePolicyDenied, e.reasons(true), e.reasons(false)
		out.Public = e.summary(out.Reasons)
	default:
		out.Allowed, out.Limits = true, d.limits
	}
	return out
}
