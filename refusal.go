package proviso

import (
	"errors"
	"fmt"
	"strings"
)

// Stage is the step of the flow that refused.
type Stage string

// The stages, in the order of the flow.
const (
	StageRequest    Stage = "request"    // the form, its parameters, the grant's name
	StageJob        Stage = "job"        // who asks: the CI platform's token
	StageRunner     Stage = "runner"     // where it runs: the runner's own evidence
	StageFacts      Stage = "facts"      // what else is true
	StagePolicy     Stage = "policy"     // may it
	StageRecord     Stage = "record"     // the durable decision, and "once"
	StageCredential Stage = "credential" // what it gets
)

// Refusal is a "no": every error that leaves the flow is one.
//
// Public is for the caller: what was expected, what was found, what to do. It
// never holds a token, a key, or another tenant's names. Err is the cause for
// the operator's log and may name internal addresses; it never reaches the
// caller. Reasons are the failed conditions of a policy.
type Refusal struct {
	Stage   Stage
	Code    Code
	Public  string
	Reasons []Reason
	Err     error
}

// Reason is one condition of a policy that did not hold.
type Reason struct {
	// Message is the sentence for people: "branch is release/1.2, policy wants main".
	Message string `json:"message"`
	// Path is the input value concerned, as "context.branch"; absent when the condition is about none.
	Path string `json:"path,omitempty"`
	// Found is the value as it was, in JSON; absent when the value was absent.
	Found string `json:"found,omitempty"`
	// Wanted is what the policy wanted, in its own words.
	Wanted string `json:"wanted,omitempty"`
	// Rule and Line say where in the policy the condition stands.
	Rule string `json:"rule,omitempty"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Refuse makes a refusal. public may use fmt verbs.
func Refuse(stage Stage, code Code, public string, args ...any) *Refusal {
	return &Refusal{Stage: stage, Code: code, Public: fmt.Sprintf(public, args...)}
}

// Because adds the cause for the operator's log, and returns r.
func (r *Refusal) Because(err error) *Refusal {
	r.Err = err
	return r
}

// Error says everything, cause included: it is for logs, not for callers.
func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refused at %s (%s): %s", r.Stage, r.Code, r.Public)
	if r.Err != nil {
		fmt.Fprintf(&b, ": %v", r.Err)
	}
	return b.String()
}

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// AsRefusal gives the refusal in err. An error that is none becomes a fault of
// our own side at the given stage: an error is never a "yes", and its text is
// not for the caller.
func AsRefusal(err error, stage Stage, code Code) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Stage: stage, Code: code, Err: err,
		Public: "the broker could not complete this step; its operator finds the cause in the log under this decision id"}
}
