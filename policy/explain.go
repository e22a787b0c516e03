package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

// How an explanation is worked out.
//
// A package's allow has one or more rules, and each is a way to be allowed. For
// each of them every condition of its body is evaluated by OPA itself, one by
// one, with the values that the conditions before it gave to the variables; so
// all conditions that failed are found, not only the first. A condition that
// failed is then put in words: the value that was found and the value that was
// wanted. A helper rule or function that failed is opened, and its own conditions
// are told instead, with the way that led there ("is_main <- allow").
//
// Only refusals are explained, within explainTime. The decision doesn't depend
// on it: it was made before, by one query.
//
// Two texts come out. Detail is for the operator's log. Reasons are for the job:
// they leave out what isn't the job's own, see redact.go.
const (
	explainTime    = 250 * time.Millisecond // by default
	explainQueries = 3000                   // a bound that doesn't depend on the machine
	explainDepth   = 8                      // helpers that call helpers
	explainWays    = 8                      // ways to be allowed that are told
	explainReasons = 40                     // conditions told in all
	explainEnvs    = 50                     // combinations of variables that are tried
)

// explanation is why a decision was no.
type explanation struct {
	policy *Policy
	denied []proviso.Reason // entries of deny
	ways   []way            // nearest first
	absent []proviso.Reason // facts that are missing where absence would allow
	cut    bool             // stopped before everything was looked at
}

// way is one rule of allow (or one else of it), and what kept it from holding.
type way struct {
	rule   *ast.Rule
	title  string
	failed []finding
	held   int
	like   []way // those that were joined into this one
	// foreign: the way is for somebody else than the job that asks.
	foreign bool
}

// finding is one condition that did not hold.
type finding struct {
	message string
	path    string
	found   string
	wanted  string
	// public replaces message and wanted for the job, where they would tell what
	// is not its own.
	public       string
	publicWanted string
	foreign      bool
	chain        []string // helper rules, innermost first
	absent       bool     // the value at path is not there
	loc          *ast.Location
}

// explainer works out one explanation.
type explainer struct {
	policy   *Policy
	prog     *program
	input    *ast.Term
	document document.Value
	absent   []facts.Absence
	ctx      context.Context
	cancel   topdown.Cancel
	deadline time.Time
	queries  int
	cut      bool
}

// explain says why d is no. It is never called for a yes.
func (p *Policy) explain(ctx context.Context, input document.Value, absent []facts.Absence, d decision) explanation {
	out := explanation{policy: p}
	x := &explainer{policy: p, prog: p.revision.program, input: p.picker.pick(input), document: input, absent: absent,
		ctx: ctx, cancel: topdown.NewCancel(), deadline: time.Now().Add(p.patience)}
	timer := time.AfterFunc(p.patience, x.cancel.Cancel)
	defer timer.Stop()
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, x.cancel.Cancel)()
	}
	for _, message := range d.deny {
		out.denied = append(out.denied, x.denial(message))
	}
	out.absent = x.unsafe(d.unsafe)
	if !d.allow {
		out.ways = x.ways()
	}
	out.cut = x.cut
	return out
}

// denial finds the rule of deny that gave a message, for its place.
func (x *explainer) denial(message string) proviso.Reason {
	r := proviso.Reason{Message: clean(message, 500), Rule: "deny"}
	for _, rule := range x.prog.sourceRules(packageRef(x.policy.name).Append(ast.StringTerm("deny"))) {
		if rule.Head.Key == nil {
			continue
		}
		sc := newScope(rule, nil)
		failed, envs := x.body(rule.Body, sc, []env{{}}, 0)
		if len(failed) > 0 {
			continue
		}
		for _, e := range envs {
			for _, v := range x.values(rule.Head.Key, e, 10) {
				if s, ok := v.Value.(ast.String); ok && string(s) == message {
					r.File, r.Line = rule.Location.File, rule.Location.Row
					return r
				}
			}
		}
	}
	return r
}

func (x *explainer) unsafe(missing []facts.Absence) []proviso.Reason {
	var out []proviso.Reason
	for _, a := range missing {
		name := shortPath(a.Key)
		out = append(out, proviso.Reason{Path: a.Key, Rule: "allow",
			Message: fmt.Sprintf("%s is absent: %s; the policy allows only where it is known", name, x.whyAbsent(a.Key)),
			Wanted:  "a known value"})
	}
	return out
}

// ways evaluates every rule of allow and sorts them, the nearest first: with
// the fewest failed conditions, and among those with the most that held.
func (x *explainer) ways() []way {
	var out []way
	for _, rule := range x.policy.rules {
		if rule.Default {
			continue
		}
		out = append(out, x.waysOf(rule, nil, nil, 0)...)
	}
	for i := range out {
		out[i].title = ruleTitle(out[i].rule)
		out[i].failed = x.oneAbsence(out[i].failed)
		out[i].foreign = slices.ContainsFunc(out[i].failed, func(f finding) bool { return f.foreign })
	}
	out = oneOfMany(out)
	slices.SortStableFunc(out, func(a, b way) int {
		if a.foreign != b.foreign {
			if b.foreign {
				return -1
			}
			return 1
		}
		if len(a.failed) != len(b.failed) {
			return len(a.failed) - len(b.failed)
		}
		return b.held - a.held
	})
	return out
}

// oneOfMany joins ways that each lack another value of the same thing and
// nothing else: "policy wants one of ci, release".
func oneOfMany(ways []way) []way {
	var out []way
	for _, w := range ways {
		i := slices.IndexFunc(out, func(o way) bool {
			if len(o.failed) != 1 || len(w.failed) != 1 || o.title+w.title != "" || !slices.Equal(o.failed[0].chain, w.failed[0].chain) {
				return false
			}
			_, ok := merged([]way{o, w})
			return ok
		})
		if i < 0 {
			w.like = []way{w}
			out = append(out, w)
			continue
		}
		out[i].like = append(out[i].like, w)
		f, ok := merged(out[i].like)
		if !ok {
			out[i].like = out[i].like[:len(out[i].like)-1]
			out = append(out, w)
			continue
		}
		out[i].failed = []finding{f}
	}
	return out
}

// oneAbsence tells once that a value is absent on which several conditions of
// a way rest, with all that is wanted of it.
func (x *explainer) oneAbsence(failed []finding) []finding {
	var out []finding
	for _, f := range failed {
		i := slices.IndexFunc(out, func(g finding) bool { return g.absent && f.absent && g.path == f.path && g.path != "" })
		if i < 0 {
			out = append(out, f)
			continue
		}
		first := &out[i]
		switch {
		case f.wanted == "" || f.wanted == "a value" || f.wanted == first.wanted:
			continue
		case first.wanted == "" || first.wanted == "a value":
			first.wanted = f.wanted
		default:
			first.wanted += " and " + f.wanted
		}
		text, _, _ := strings.Cut(first.message, "; policy wants ")
		first.message = text + "; policy wants " + first.wanted
	}
	return out
}

// ruleTitle is the title that the author gave the rule in its metadata.
func ruleTitle(rule *ast.Rule) string {
	for _, a := range rule.Annotations {
		if a.Title != "" {
			return clean(a.Title, 80)
		}
	}
	return ""
}

// Reasons for the job, in the order in which they should be read.
func (e explanation) reasons(public bool) []proviso.Reason {
	out := append(slices.Clone(e.denied), e.absent...)
	ways := e.ways
	if public {
		ways = ownWays(ways)
	}
	hidden := max(0, len(ways)-explainWays)
	ways = ways[:len(ways)-hidden]
	for i, w := range ways {
		rule := "allow"
		if w.title != "" {
			rule = fmt.Sprintf("allow %q", w.title)
		}
		if len(ways) > 1 {
			rule = fmt.Sprintf("%s (way %d of %d)", rule, i+1, len(ways))
		}
		for _, f := range w.failed {
			r := f.reason(rule, public)
			// A helper that two conditions use fails once, not twice.
			if !slices.ContainsFunc(out, func(q proviso.Reason) bool {
				return wayOf(q.Rule) == rule && q.Message == r.Message && q.File == r.File && q.Line == r.Line
			}) {
				out = append(out, r)
			}
		}
	}
	if len(out) > explainReasons {
		hidden++
		out = out[:explainReasons]
	}
	switch {
	case len(out) == 0 && len(e.ways) == 0 && e.policy != nil:
		out = append(out, proviso.Reason{Rule: "allow", Message: "no rule of the policy allows anything"})
	case e.cut:
		out = append(out, proviso.Reason{Rule: "allow", Message: fmt.Sprintf("the explanation stopped after %v; more conditions may have failed", e.policy.patience)})
	case hidden > 0:
		out = append(out, proviso.Reason{Rule: "allow", Message: "further ways to be allowed are not shown; these are the nearest"})
	}
	return out
}

func (f finding) reason(rule string, public bool) proviso.Reason {
	r := proviso.Reason{Message: f.message, Path: f.path, Found: f.found, Wanted: f.wanted, Rule: rule}
	if public && f.public != "" {
		r.Message, r.Wanted = f.public, f.publicWanted
	}
	if len(f.chain) > 0 {
		r.Rule = strings.Join(f.chain, " <- ") + " <- " + rule
	}
	if f.loc != nil {
		r.File, r.Line = f.loc.File, f.loc.Row
	}
	return r
}

// refusal is the "no" for the caller. Its error, for the log alone, has the
// explanation in full.
func (e explanation) refusal(p *Policy) *proviso.Refusal {
	reasons := e.reasons(true)
	no := proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyDenied, "%s", e.summary(reasons))
	no.Reasons = reasons
	return no.Because(&Denied{Package: p.name, Digest: p.digest, Revision: p.revision.number, Detail: e.reasons(false)})
}

// summary is one sentence: the first reason, and how many more there are.
func (e explanation) summary(reasons []proviso.Reason) string {
	if len(reasons) == 0 {
		return fmt.Sprintf("policy %s does not allow this", e.policy.name)
	}
	first := reasons[0]
	same := 0
	for _, r := range reasons[1:] {
		if wayOf(r.Rule) == wayOf(first.Rule) {
			same++
		}
	}
	switch {
	case same == 1:
		return fmt.Sprintf("policy %s does not allow this: %s (and one more condition)", e.policy.name, first.Message)
	case same > 1:
		return fmt.Sprintf("policy %s does not allow this: %s (and %d more conditions)", e.policy.name, first.Message, same)
	}
	return fmt.Sprintf("policy %s does not allow this: %s", e.policy.name, first.Message)
}

// Denied is the cause of a policy_denied refusal, for the operator: which policy
// it was, and every condition that failed, nothing left out.
type Denied struct {
	Package  string           `json:"package"`
	Digest   string           `json:"digest"`
	Revision uint64           `json:"revision"`
	Detail   []proviso.Reason `json:"detail"`
}

// Error gives it as text of several lines.
func (d *Denied) Error() string {
	return fmt.Sprintf("package %s, revision %d, %s\n%s", d.Package, d.Revision, d.Digest, Text(d.Detail))
}
