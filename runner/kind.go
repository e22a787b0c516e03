package runner

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
)

// Kind is a further kind of evidence: an instance document, a quote, a cluster's
// token. Its Verify gets the evidence that a request sent under its name, and
// believes nothing that it has not verified. An error is a *proviso.Refusal;
// any other becomes one.
type Kind struct {
	// Name is the value of input.runner.attestation, as "aws".
	Name   string
	Verify func(ctx context.Context, shown Shown) (Finding, error)
}

// Shown is one piece of evidence as a request shows it.
type Shown struct {
	// Text is the evidence as it was sent.
	Text string
	// Key is the RFC 7638 thumbprint of the key that the request proves: its
	// DPoP key, or that of a joining agent's certificate request. "" without one.
	Key string
	// Job is who asks; zero outside of an exchange.
	Job identity.Job
}

// Finding is what a Kind proved. ID, Hash and Expires must be set.
type Finding struct {
	// Name of the configuration entry that accepted the runner; the kind's own
	// name if it is empty.
	Name string
	// ID and Region become input.runner.id and region.
	ID, Region string
	// Environment is self-hosted or hosted.
	Environment string
	// Assurance is how much the evidence proves; see Runner.Assurance.
	Assurance int
	// Attributes become input.runner.attributes.
	Attributes map[string]string
	// Key is the thumbprint of the key that the evidence is tied to, if it is
	// Shown.Key; "" if the evidence serves whoever has it.
	Key string
	// Bound: the evidence names the job, or the job's token the evidence.
	Bound bool
	// Hash is the SHA-256 of the evidence in hex, for the record.
	Hash string
	// Expires is when the evidence ends.
	Expires time.Time
}

// Attest verifies one piece of evidence outside of an exchange: an agent's that
// joins a fleet. kind is a name of Config's kinds, as "aws"; key is the
// thumbprint of the key that the agent has proved to hold, "" without one. What
// needs a job ("platform") proves nothing here and is refused.
func (v *Verifier) Attest(ctx context.Context, kind, evidence, key string) (Runner, error) {
	return v.Verify(ctx, Evidence{Other: map[string]string{kind: evidence}, Key: key}, identity.Job{})
}

// verifyOthers verifies the evidence of further kinds. Beside an SVID it has to
// name the same runner, and can only take away: the end is the earlier one.
func (v *Verifier) verifyOthers(ctx context.Context, ev Evidence, job identity.Job, r Runner) (Runner, error) {
	for _, name := range slices.Sorted(maps.Keys(ev.Other)) {
		i := slices.IndexFunc(v.kinds, func(k Kind) bool { return k.Name == name })
		if i < 0 {
			return Runner{}, refuse(proviso.CodeTokenTypeUnsupported, "evidence of the kind %s is not taken here", quoted(name))
		}
		f, err := v.kinds[i].Verify(ctx, Shown{Text: ev.Other[name], Key: ev.Key, Job: job})
		if err != nil {
			return Runner{}, proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeInternal)
		}
		// A job's token that names the key which the evidence is tied to, and which
		// the request proves: neither works beside another one's.
		keyed := f.Key != "" && f.Key == ev.Key && f.Key == job.Confirmation()
		if f.ID == "" || f.Hash == "" || !v.now().Before(f.Expires) {
			return Runner{}, refuse(proviso.CodeInternal, "the evidence of the kind %s proved nothing", quoted(name))
		}
		switch {
		case r.IsZero():
			r = f.runner(name, keyed)
		case r.id != f.ID:
			return Runner{}, refuse(proviso.CodeActorMismatch, "the evidence names the runners %s and %s: a request has one runner", quoted(r.id), quoted(f.ID))
		case f.Expires.Before(r.expires):
			r.expires = f.Expires
		}
	}
	return r, nil
}

func (f Finding) runner(kind string, keyed bool) Runner {
	binding := ""
	switch {
	case f.Bound:
		binding = BindingPlatform
	case keyed:
		binding = BindingKey
	}
	r := Runner{name: cmp.Or(f.Name, kind), id: f.ID, region: f.Region, attestation: kind, assurance: f.Assurance,
		binding: binding, tied: f.Key != "", hash: f.Hash, expires: f.Expires}
	var attributes []document.Field
	for name, value := range f.Attributes {
		attributes = append(attributes, document.Member(name, document.StringOf(value)))
	}
	r.doc = r.document(f.Environment, attributes)
	return r
}

// document gives input.runner.
func (r Runner) document(environment string, attributes []document.Field) document.Value {
	var more document.Value
	if len(attributes) > 0 {
		more = document.ObjectOf(attributes...)
	}
	return document.ObjectOf(
		document.Member("assurance", document.IntOf(int64(r.assurance))),
		document.Member("attestation", document.StringOf(r.attestation)),
		document.Member("attributes", more),
		document.Member("binding", document.StringOf(r.binding)),
		document.Member("bound", document.BoolOf(r.Bound())),
		document.Member("environment", document.StringOf(environment)),
		document.Member("id", document.StringOf(r.id)),
		document.Member("region", document.StringOf(r.region)),
		document.Member("spiffe_id", document.StringOf(r.spiffeID)),
		document.Member("trust_domain", document.StringOf(r.trustDomain)),
	)
}
