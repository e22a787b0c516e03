package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

// Policy is one package of one revision. It never changes: a request that holds
// it is decided by this revision from its first to its last step, whatever is
// activated meanwhile.
type Policy struct {
	name     string
	digest   string
	revision *revision
	timeout  time.Duration
	patience time.Duration // for one explanation

	// The three rules that are read, each compiled to a query of its own; nil
	// where the package doesn't define the rule.
	allow, deny, limits ast.Body

	needs  facts.Needs
	picker *picker
	guards []string    // see guard.go
	rules  []*ast.Rule // allow, as written, for explanations
}

// Package gives the package's name as grants write it.
func (p *Policy) Package() string { return p.name }

// Digest covers the package, every package it uses and the data it reads.
func (p *Policy) Digest() string { return p.digest }

// Revision counts the activations since the broker started, from 1.
func (p *Policy) Revision() uint64 { return p.revision.number }

// Needs says which parts of the input the package reads.
func (p *Policy) Needs() facts.Needs { return p.needs }

// Verdict is a "yes": it exists only where policy allowed. The zero Verdict
// allows nothing; a "no" is an error.
type Verdict struct {
	policy *Policy
	limits Limits
}

// Allowed is false for the zero Verdict alone.
func (v Verdict) Allowed() bool { return v.policy != nil }

// Limits are how narrow the yes is.
func (v Verdict) Limits() Limits { return v.limits }

// Package, Digest and Revision say which policy decided.
func (v Verdict) Package() string { return v.policy.name }

// Digest is the digest of the policy that decided.
func (v Verdict) Digest() string { return v.policy.digest }

// Revision is the revision that decided.
func (v Verdict) Revision() uint64 { return v.policy.revision.number }

// Decide asks the package. The error is always a *proviso.Refusal:
// policy_denied with the conditions that failed, policy_timeout, policy_error,
// or policy_result_type where the policy gave something else than it must.
func (p *Policy) Decide(ctx context.Context, known facts.Known) (Verdict, error) {
	if known.IsZero() {
		return Verdict{}, proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyError, "policy %s was asked about nothing", p.name)
	}
	d := p.evaluate(ctx, known.Input(), known.Absent())
	switch {
	case d.fault != nil:
		return Verdict{}, d.fault
	case !d.allowed():
		return Verdict{}, p.explain(ctx, known.Input(), known.Absent(), d).refusal(p)
	}
	return Verdict{policy: p, limits: d.limits}, nil
}

// decision is what evaluating a package came to: a fault, a denial or a yes.
type decision struct {
	fault  *proviso.Refusal // policy_error, policy_timeout, policy_result_type
	allow  bool
	deny   []string
	unsafe []facts.Absence // facts that are absent where absence would allow
	limits Limits
}

func (d decision) allowed() bool {
	return d.fault == nil && d.allow && len(d.deny) == 0 && len(d.unsafe) == 0
}

// evaluate is the one way to a decision, for requests and for simulations.
func (p *Policy) evaluate(ctx context.Context, input document.Value, absent []facts.Absence) (d decision) {
	ev := p.begin(ctx, p.picker.pick(input))
	defer ev.end()

	allow, no := ev.ask(p.allow, "allow")
	if no != nil {
		return decision{fault: no}
	}
	if allow != nil {
		b, ok := allow.Value.(ast.Boolean)
		if !ok {
			return decision{fault: p.resultType("allow is %s, it must be true or false", typeName(allow))}
		}
		d.allow = bool(b)
	}
	if p.deny != nil {
		set, no := ev.ask(p.deny, "deny")
		if no != nil {
			return decision{fault: no}
		}
		if d.deny, no = p.denials(set); no != nil {
			return decision{fault: no}
		}
	}
	if !d.allowed() {
		return d
	}
	if d.unsafe = p.unguarded(input, absent); len(d.unsafe) > 0 || p.limits == nil {
		return d
	}
	v, no := ev.ask(p.limits, "limits")
	if no != nil {
		return decision{fault: no}
	}
	limits, err := parseLimits(v)
	if err != nil {
		return decision{fault: p.resultType("%v", err)}
	}
	d.limits = limits
	return d
}

func (p *Policy) resultType(format string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyResultType, "policy %s gave a result that is no decision: %s; its author has to correct it",
		p.name, fmt.Sprintf(format, args...))
}

// denials reads deny: a set of messages and nothing else.
func (p *Policy) denials(t *ast.Term) ([]string, *proviso.Refusal) {
	if t == nil {
		return nil, p.resultType("deny is undefined, it must be a set of messages")
	}
	set, ok := t.Value.(ast.Set)
	if !ok {
		return nil, p.resultType("deny is %s, it must be a set of messages", typeName(t))
	}
	out := make([]string, 0, set.Len())
	for _, e := range set.Slice() {
		s, ok := e.Value.(ast.String)
		if !ok {
			return nil, p.resultType("deny holds %s, it must hold messages", typeName(e))
		}
		out = append(out, string(s))
	}
	return out, nil
}

// typeName names a value's type with its article.
func typeName(t *ast.Term) string {
	if t == nil {
		return "undefined"
	}
	switch t.Value.(type) {
	case ast.Null:
		return "null"
	case ast.Boolean:
		return "a boolean"
	case ast.Number:
		return "a number"
	case ast.String:
		return "a string"
	case *ast.Array:
		return "an array"
	case ast.Object:
		return "an object"
	case ast.Set:
		return "a set"
	}
	return "a value of an unknown type"
}

// evaluation is one decision's use of the engine: one input, one deadline.
type evaluation struct {
	policy *Policy
	ctx    context.Context
	input  *ast.Term
	cancel topdown.Cancel
	timer  *time.Timer
	stop   func() bool
}

// noMetrics is shared: OPA would otherwise make a set of timers for each query.
var noMetrics = metrics.NoOp()

func (p *Policy) begin(ctx context.Context, input *ast.Term) *evaluation {
	ev := &evaluation{policy: p, ctx: ctx, input: input, cancel: topdown.NewCancel()}
	ev.timer = time.AfterFunc(p.timeout, ev.cancel.Cancel)
	if ctx.Done() != nil {
		ev.stop = context.AfterFunc(ctx, ev.cancel.Cancel)
	}
	return ev
}

func (ev *evaluation) end() {
	ev.timer.Stop()
	if ev.stop != nil {
		ev.stop()
	}
}

// ask evaluates one of the three rules; nil is "undefined".
func (ev *evaluation) ask(body ast.Body, rule string) (*ast.Term, *proviso.Refusal) {
	result, err := ev.run(body)
	if err == nil {
		return result, nil
	}
	p := ev.policy
	if topdown.IsCancel(err) {
		if ctxErr := ev.ctx.Err(); ctxErr != nil {
			err = ctxErr
		}
		return nil, proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyTimeout, "policy %s did not come to a decision within %v", p.name, p.timeout).
			Because(fmt.Errorf("%s: %w", rule, err))
	}
	return nil, proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyError, "policy %s failed while it was evaluated; its author finds the place in the broker's log", p.name).
		Because(fmt.Errorf("%s: %w", rule, err))
}

// result is the variable that holds a query's answer.
const result = ast.Var("result")

// errTwoResults can't happen for a complete rule, whose conflict OPA reports
// by itself; it is an error all the same, never the first of the two.
var errTwoResults = errors.New("the rule has more than one value")

func (ev *evaluation) run(body ast.Body) (out *ast.Term, err error) {
	defer func() {
		// A panic in the evaluator is a "no" to this request, not the end of the broker.
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("the evaluator panicked: %v", r)
		}
	}()
	prog := ev.policy.revision.program
	q := topdown.NewQuery(body).
		WithCompiler(prog.compiler).
		WithStore(prog.store).
		WithTransaction(prog.txn).
		WithInput(ev.input).
		WithCancel(ev.cancel).
		WithMetrics(noMetrics).
		WithStrictBuiltinErrors(true)
	err = q.Iter(ev.ctx, func(qr topdown.QueryResult) error {
		if out != nil {
			return errTwoResults
		}
		out = qr[result]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
