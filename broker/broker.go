// Package broker is the flow: what a request for access goes through, in the
// one order that there is.
//
//	request -> job -> runner -> facts -> decision -> warrant -> credential -> receipt
//
// Exchange, in exchange.go, reads from top to bottom, and the product of each
// stage is the argument of the next: a skipped or reordered stage does not
// compile. The record is opened before anything is believed and closed on every
// way out, refusals too. Nothing is minted without a warrant, and a warrant
// exists only once the decision is durably in the log (docs/issuance-cycle.md).
//
// The broker owns the grants: what can be asked for. Everything else it is
// given ready-made, by the command that read the configuration: the parts know
// nothing of each other, and the broker knows nothing of HTTP.
//
// Every error that leaves Exchange is a *proviso.Refusal with its stage and its
// code. Absence, error and timeout are refusals; there is no way to turn this
// off.
package broker

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
)

// Parts are what the flow is made of. All but Tracer and Enrolment are required.
type Parts struct {
	Identities *identity.Verifier
	Runners    *runner.Verifier
	Facts      *facts.Gatherer
	Policies   *policy.Engine
	Audit      *audit.Log
	Proofs     *pass.ProofChecker
	// Fleet is the standing of runners, Enrolment what those of the broker's own
	// trust domain get; nil where there is no such fleet.
	Fleet     *fleet.Fleet
	Enrolment *Enrolment
	Logger    *slog.Logger
	// Tracer makes a span for each stage; nil makes none.
	Tracer trace.Tracer
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// IssuerRate is how many verified requests a second each issuer may make,
	// with a burst of twice as many; 0 is no bound.
	IssuerRate float64
}

// Broker is one broker. It is safe for concurrent use.
type Broker struct {
	Parts
	grants map[string]*Grant
	rates  map[string]*rate.Limiter // by issuer; the map never changes
	// strangers bounds how many refusals of unproved callers are recorded: the
	// record is for accesses, and a stranger must not be able to fill its disk.
	strangers *rate.Limiter
	// outsiders is the same for those whose token is a configured issuer's, and
	// who are nevertheless no job of ours: each of their attempts has a name.
	outsiders *rate.Limiter
	// hasty is the same for jobs of ours that ask beyond their issuer's rate.
	hasty      *rate.Limiter
	unrecorded atomic.Int64
}

// Refusals of callers that are no job of ours, or whose issuer's rate is used
// up, are recorded up to this rate.
const (
	strangersPerSecond = 50
	strangersBurst     = 500
)

// New joins the parts. issuers names the configured issuers.
func New(parts Parts, grants map[string]*Grant, issuers []string) (*Broker, error) {
	if parts.Identities == nil || parts.Runners == nil || parts.Facts == nil || parts.Policies == nil ||
		parts.Audit == nil || parts.Proofs == nil || parts.Fleet == nil || parts.Logger == nil {
		return nil, errors.New("broker: a part of the flow is missing")
	}
	if parts.Now == nil {
		parts.Now = time.Now
	}
	b := &Broker{Parts: parts, grants: grants, rates: map[string]*rate.Limiter{},
		strangers: rate.NewLimiter(strangersPerSecond, strangersBurst),
		outsiders: rate.NewLimiter(strangersPerSecond, strangersBurst),
		hasty:     rate.NewLimiter(strangersPerSecond, strangersBurst)}
	if parts.IssuerRate > 0 {
		for _, name := range issuers {
			b.rates[name] = rate.NewLimiter(rate.Limit(parts.IssuerRate), int(2*parts.IssuerRate)+1)
		}
	}
	return b, nil
}

// Unrecorded counts the refusals that were counted only.
func (b *Broker) Unrecorded() int64 { return b.unrecorded.Load() }

// HasGrant reports whether a grant of this name is configured.
func (b *Broker) HasGrant(name string) bool { return b.grants[name] != nil }
