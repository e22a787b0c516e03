package broker

import (
	"context"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/runner"
)

// Request is a well-formed request for a credential: what a caller declares and
// shows. Nothing in it is believed yet, except that the caller holds the key of
// the TLS client certificate, which the handshake has proved.
type Request struct {
	SubjectToken string          // the job's token
	Workload     bool            // there is no job: who asks is what Evidence proves
	ClientID     string          // the SPIFFE ID that Evidence must be of; "" is any
	ClientAuth   bool            // Evidence came as an OAuth client's authentication
	Evidence     runner.Evidence // what the runner shows
	Grant        string          // the name of what is asked for
	Scope        []string        // asked for; nil asks for all that the grant has
	Intent       proviso.Intent
	// RequestedType is the wished token type of RFC 8693; empty is the grant's.
	RequestedType string
	// CSR is the request for a certificate, PEM.
	CSR []byte
	// Proof is the DPoP proof, empty without one, and URL what it must be for.
	Proof, URL string
}

// Issued is a granted request.
type Issued struct {
	Decision   string
	Credential credential.Credential
	Receipt    []byte // JSON, as audit.ParseReceipt reads it
}

// Exchange is the flow. Each stage takes what the stage before it produced, so
// the order below is the only one that compiles; each refusal ends it. The
// record is open before anything is believed, and is closed on every way out.
func (b *Broker) Exchange(ctx context.Context, req Request) (_ *Issued, err error) {
	ctx, rec := b.open(ctx, req)
	defer b.end(ctx, rec, &err)

	// 1. Who asks. Nothing about grants is said to somebody who isn't a job.
	ctx = rec.stage(ctx, proviso.StageJob)
	job, err := b.who(ctx, req)
	if err != nil {
		return nil, rec.learnStranger(err)
	}
	rec.learnJob(job)
	if err := b.admit(job); err != nil {
		return nil, err
	}
	grant, err := b.find(req)
	if err != nil {
		return nil, err
	}
	rec.learnGrant(grant)
	holder, err := b.holder(req, job)
	if err != nil {
		return nil, err
	}

	// 2. Where it runs: the runner is a party of its own, bound to the job.
	ctx = rec.stage(ctx, proviso.StageRunner)
	req.Evidence.Key = holder.JKT
	run, err := b.where(ctx, req, job)
	if err != nil {
		return nil, err
	}
	rec.learnRunner(run)
	if err := b.standing(run); err != nil {
		return nil, err
	}
	run = grant.counted(run)
	if err := grant.accepts(job, run); err != nil {
		return nil, err
	}

	// 3. What else is true. One revision of the policy is fixed here: what it
	// reads is what is gathered, and it is what decides.
	ctx = rec.stage(ctx, proviso.StageFacts)
	rules, err := b.Policies.For(grant.Policy)
	if err != nil {
		return nil, err
	}
	rec.learnPolicy(rules)
	known, err := b.Facts.Gather(ctx, facts.Asked{
		Job: job, Runner: run, Resource: grant.Resource, Intent: req.Intent, Scope: req.Scope,
	}, rules.Needs())
	if err != nil {
		return nil, err
	}
	rec.learnFacts(known)

	// 4. May it, how narrowly, why.
	ctx = rec.stage(ctx, proviso.StagePolicy)
	verdict, err := rules.Decide(ctx, known)
	if err != nil {
		return nil, err
	}
	rec.learnVerdict(verdict)
	if err := approved(verdict); err != nil {
		return nil, err
	}

	// 5. The decision becomes durable, once only, and with it the exact terms of
	// one credential. Before this line nothing can be minted.
	ctx = rec.stage(ctx, proviso.StageRecord)
	terms, err := b.plan(ctx, rec, req, holder, grant, job, run, verdict)
	if err != nil {
		return nil, err
	}
	warrant, err := b.commit(ctx, rec, job, grant, verdict, terms)
	if err != nil {
		return nil, err
	}

	// 6. Exactly what the warrant says.
	ctx = rec.stage(ctx, proviso.StageCredential)
	minted, err := grant.Offer.Mint(ctx, warrant, credential.Material{CSR: req.CSR})
	if err != nil {
		return nil, err
	}

	// 7. Proof for the holder that the record has it.
	receipt, err := warrant.AppendReceipt(make([]byte, 0, 5<<10))
	if err != nil {
		return nil, err
	}
	return &Issued{Decision: rec.entry.Decision, Credential: minted, Receipt: receipt}, nil
}
