package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
)

// record is the open record of one request. It learns what each stage proved,
// and is closed on every way out: by commit with a durable "allowed", or by
// close with a "refused".
type record struct {
	entry     audit.Entry
	at        proviso.Stage
	proved    bool // the caller is a job of a configured issuer
	committed bool // the decision is in the log as allowed
	grant     *Grant
	run       runner.Runner

	tracer trace.Tracer
	whole  trace.Span // of the request; nil without a tracer
	span   trace.Span // of the stage that runs now
}

// open opens the record. Without a tracer ctx stays as it is. A request's own
// trace context is not taken over: a caller could make the broker trace all that
// it sends.
func (b *Broker) open(ctx context.Context, req Request) (context.Context, *record) {
	now := b.Now()
	rec := &record{
		at:     proviso.StageRequest,
		tracer: b.Tracer,
		entry: audit.Entry{
			Decision: audit.NewDecision(now), Time: now, Mode: audit.Enforce,
			Grant: boundedName(req.Grant), Intent: facts.IntentDocument(req.Intent, req.Scope),
		},
	}
	if b.Tracer != nil {
		ctx, rec.whole = b.Tracer.Start(ctx, "exchange", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindServer),
			trace.WithAttributes(attribute.String("proviso.decision", rec.entry.Decision)))
	}
	return ctx, rec
}

// Malformed records the refusal of what came to a door of the broker and can't be
// read as a request: kind is the entry's type, empty at the door for jobs. Nobody
// is known, so it counts as a stranger's; nothing of what was sent is kept.
func (b *Broker) Malformed(ctx context.Context, kind string, refusal error) error {
	return b.close(ctx, b.openEntry(kind), refusal)
}

// openEntry opens the record of what is no exchange, or not yet one.
func (b *Broker) openEntry(kind string) *record {
	now := b.Now()
	return &record{at: proviso.StageRequest, entry: audit.Entry{Type: kind, Decision: audit.NewDecision(now), Time: now, Mode: audit.Enforce}}
}

// boundedName keeps a caller's text from swelling the record.
func boundedName(s string) string {
	if isName(s) {
		return s
	}
	return "(not a name)"
}

// stage marks where the flow is now. The marks become the refusal's stage where
// an error has none of its own, and the spans of a trace.
func (r *record) stage(ctx context.Context, s proviso.Stage) context.Context {
	r.at = s
	if r.tracer == nil {
		return ctx
	}
	if r.span != nil {
		r.span.End()
	}
	_, r.span = r.tracer.Start(ctx, "exchange "+string(s))
	return ctx // stages are siblings, not each other's parents
}

// endSpans ends the stage that ran last and the request. No span holds a
// caller's text: grants and issuers are names of the configuration.
func (r *record) endSpans(refusal *proviso.Refusal) {
	if r.tracer == nil {
		return
	}
	r.whole.SetAttributes(attribute.String("proviso.grant", r.grantName()), attribute.String("proviso.issuer", r.entry.Issuer))
	for _, span := range []trace.Span{r.span, r.whole} {
		if span == nil {
			continue // it went wrong before its first stage
		}
		if refusal != nil {
			span.SetAttributes(attribute.String("proviso.code", string(refusal.Code)))
			span.SetStatus(codes.Error, string(refusal.Code))
		}
		span.End()
	}
}

func (r *record) learnJob(job identity.Job) {
	id := job.Identity()
	r.proved = true
	r.entry.Issuer = job.Issuer()
	r.entry.TokenHash = job.TokenHash()
	r.entry.JTI = job.JTI()
	r.entry.Actor = id.Actor
	r.entry.Identity = job.Document()
	if id.Kind == identity.KindSPIFFE {
		r.entry.SPIFFEID, r.entry.EvidenceHash = id.Subject, job.TokenHash()
	}
}

// learnStranger keeps what a refused token whose signature holds says of itself:
// a fork's pull request, a job of another tenant. It is nobody's identity.
func (r *record) learnStranger(err error) error {
	var refused *identity.Refused
	if errors.As(err, &refused) {
		r.entry.Issuer = refused.Issuer
		r.entry.TokenHash = refused.Hash
		r.entry.Identity = document.ObjectOf(document.Member("claims", refused.Claims))
	}
	return err
}

func (r *record) learnGrant(g *Grant) { r.grant = g }

func (r *record) learnRunner(run runner.Runner) {
	if r.run = run; run.IsZero() {
		return
	}
	r.entry.SPIFFEID = run.SPIFFEID()
	r.entry.EvidenceHash = run.EvidenceHash()
	r.entry.Runner = run.Document()
}

func (r *record) learnPolicy(p *policy.Policy) {
	r.entry.Policy = audit.Policy{Package: p.Package(), Revision: strconv.FormatUint(p.Revision(), 10), Digest: p.Digest()}
}

func (r *record) learnFacts(known facts.Known) { r.entry.Input = known.Input() }

func (r *record) learnVerdict(v policy.Verdict) { r.entry.Limits = limitsDocument(v.Limits()) }

// limitsDocument is what policy narrowed, as the record keeps it.
func limitsDocument(l policy.Limits) document.Value {
	var fields []document.Field
	if l.Approvals > 0 {
		fields = append(fields, document.Member("approvals", document.IntOf(int64(l.Approvals))))
	}
	if l.Scope != nil {
		scope := make([]document.Value, len(l.Scope))
		for i, s := range l.Scope {
			scope[i] = document.StringOf(s)
		}
		fields = append(fields, document.Member("scope", document.ListOf(scope...)))
	}
	if l.TTL > 0 {
		fields = append(fields, document.Member("ttl", document.IntOf(int64(l.TTL/time.Second))))
	}
	if len(fields) == 0 {
		return document.Value{}
	}
	return document.ObjectOf(fields...)
}

// commit makes the decision durable together with its "once", and gives the
// permission to mint. A verdict can only come from a policy that allowed.
func (b *Broker) commit(ctx context.Context, rec *record, job identity.Job, grant *Grant, verdict policy.Verdict, terms audit.Terms) (*audit.Warrant, error) {
	if !verdict.Allowed() {
		return nil, proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyMissing, "no policy has allowed this")
	}
	claim := once(job, grant)
	claim.Carried = carried(job, rec.run)
	warrant, err := b.Audit.Commit(ctx, &rec.entry, claim, terms)
	rec.committed = err == nil
	return warrant, err
}

// once is the claim that a job's token buys one credential per grant.
func once(job identity.Job, grant *Grant) audit.Once {
	mode, key := job.Replay()
	if mode == identity.ReplayOff {
		return audit.Once{Off: true}
	}
	h := sha256.New()
	h.Write(key[:])
	h.Write([]byte(grant.Name))
	o := audit.Once{Expires: job.Expires()}
	h.Sum(o.Key[:0])
	return o
}

// carried ties a job's token to the runner that it came with first: a copy of it
// buys nothing on another runner, whatever that one proves of itself.
func carried(job identity.Job, run runner.Runner) audit.Carried {
	if run.IsZero() || run.Attestation() == runner.AttestationPlatform { // nobody showed anything
		return audit.Carried{}
	}
	c := audit.Carried{Expires: job.Expires()}
	c.Token = sha256.Sum256(fmt.Appendf(nil, "carried\n%s\n", job.TokenHash()))
	c.With = sha256.Sum256(fmt.Appendf(nil, "carried\n%s\n%q\n%q\n%q\n", job.TokenHash(), run.Name(), run.ID(), run.SPIFFEID()))
	return c
}

// end is deferred by whoever has opened a record: on every way out, a panic
// too, the record is closed, and what is returned is nil or a refusal. A way out
// by panic has returned nothing else.
func (b *Broker) end(ctx context.Context, rec *record, err *error) {
	if p := recover(); p != nil {
		*err = panicked(rec, p)
	}
	*err = b.close(ctx, rec, *err)
}

// close ends the record on the way out. What comes back is nil or a refusal
// that names its decision; a refusal that could not be recorded stays one.
func (b *Broker) close(ctx context.Context, rec *record, err error) error {
	if err == nil {
		rec.endSpans(nil)
		return nil
	}
	refusal := proviso.AsRefusal(err, rec.at, proviso.CodeInternal)
	rec.endSpans(refusal)
	answer := &Refused{Refusal: refusal, Decision: rec.entry.Decision, Grant: rec.grantName()}
	b.log(ctx, rec, refusal)
	if recorded := new(audit.Recorded); errors.As(err, &recorded) {
		return answer // one request, one outcome: Commit wrote it in the place of the decision
	}
	if limit := b.budget(rec, refusal); limit != nil && !limit.AllowN(b.Now(), 1) {
		b.unrecorded.Add(1)
		return answer
	}
	rec.entry.SetRefusal(refusal)
	if rec.committed {
		// The log says allowed, and nobody got anything: say so in an entry of
		// its own that names the first.
		rec.entry.Parent, rec.entry.Decision = rec.entry.Decision, audit.NewDecision(b.Now())
	}
	// The caller may be gone; the record of its refusal isn't its to cancel.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := b.Audit.Refuse(ctx, &rec.entry); err != nil {
		b.Logger.ErrorContext(ctx, "a refusal could not be recorded", "decision", rec.entry.Decision, "error", err)
	}
	return answer
}

const recordTimeout = 5 * time.Second

// panicked makes a refusal of a panic: the caller gets an answer, the record an
// entry, and the operator's log the place. Without it net/http would drop the
// connection and the request would have left no trace.
func panicked(rec *record, value any) error {
	return proviso.Refuse(rec.at, proviso.CodeInternal,
		"the broker failed inside this step; its operator finds the cause in the log under this decision id").
		Because(fmt.Errorf("panic: %v\n%s", value, debug.Stack()))
}

// budget bounds what the record takes of a caller that isn't a job of ours. Who
// has a good signature of a configured issuer (a fork's pull request, another
// tenant of a shared one) has a budget apart from who has nothing, so that noise
// can't hide an attempt. A job of ours is recorded, and what bounds it is its
// issuer's rate: whoever asks beyond that could fill the disk with one token.
func (b *Broker) budget(rec *record, refusal *proviso.Refusal) *rate.Limiter {
	switch {
	case rec.proved && refusal.Code == proviso.CodeRateLimited:
		return b.hasty
	case rec.proved:
		return nil
	case rec.entry.TokenHash != "":
		return b.outsiders
	}
	return b.strangers
}

func (r *record) grantName() string {
	if r.grant == nil {
		return ""
	}
	return r.grant.Name
}

// log tells the operator: faults of our own loudly, refusals as what they are.
func (b *Broker) log(ctx context.Context, rec *record, refusal *proviso.Refusal) {
	args := []any{"decision", rec.entry.Decision, "grant", rec.entry.Grant, "issuer", rec.entry.Issuer,
		"stage", refusal.Stage, "code", refusal.Code, "message", refusal.Public}
	if refusal.Err != nil {
		args = append(args, "error", refusal.Err)
	}
	if rec.committed || refusal.Code == proviso.CodeInternal || refusal.Code == proviso.CodeAuditUnavailable {
		b.Logger.ErrorContext(ctx, "a request failed", args...)
		return
	}
	b.Logger.InfoContext(ctx, "refused", args...)
}

// Refused is the "no" that leaves the flow: a refusal with its decision's id.
type Refused struct {
	*proviso.Refusal
	Decision string
	Grant    string // the configured grant, empty if there was none
}

// Error says everything, for the operator's log.
func (r *Refused) Error() string { return "decision " + r.Decision + ": " + r.Refusal.Error() }

// Unwrap gives the refusal.
func (r *Refused) Unwrap() error { return r.Refusal }

// who proves who asks: a job by its CI platform's token, or a workload without
// one by its SVID.
func (b *Broker) who(ctx context.Context, req Request) (identity.Job, error) {
	if !req.Workload {
		return b.Identities.Verify(ctx, req.SubjectToken)
	}
	job, err := b.Runners.Caller(ctx, req.Evidence)
	if err != nil {
		return identity.Job{}, err
	}
	id := job.Identity().Subject
	// A ban holds for whatever ran there.
	if err := b.svidStanding(id, job.IssuedAt(), len(req.Evidence.Certificates) > 0, false); err != nil {
		return identity.Job{}, err
	}
	return job, isClient(req, id)
}

// where proves the runner. A workload that asks for itself runs nothing.
func (b *Broker) where(ctx context.Context, req Request, job identity.Job) (runner.Runner, error) {
	if req.Workload {
		return runner.Runner{}, nil
	}
	run, err := b.Runners.Verify(ctx, req.Evidence, job)
	if err != nil {
		return runner.Runner{}, err
	}
	return run, isClient(req, run.SPIFFEID())
}

// isClient holds a client_id to the SVID (draft-ietf-oauth-spiffe-client-auth).
func isClient(req Request, id string) error {
	if req.ClientID == "" || req.ClientID == id {
		return nil
	}
	return proviso.Refuse(proviso.StageRunner, runner.CodeClientMismatch,
		"client_id is not the SPIFFE ID of the SVID that was shown; leave it out, or send the SVID's own")
}

// admit bounds how often one issuer's jobs may ask. It comes after the
// signature was verified: before, a stranger could use up an issuer's share.
func (b *Broker) admit(job identity.Job) error {
	if limiter := b.rates[job.Issuer()]; limiter != nil && !limiter.AllowN(b.Now(), 1) {
		return proviso.Refuse(proviso.StageRequest, proviso.CodeRateLimited,
			"the jobs of this issuer ask more often than the broker allows; try again in a second")
	}
	return nil
}

// find gives the grant that was asked for.
func (b *Broker) find(req Request) (*Grant, error) {
	grant := b.grants[req.Grant]
	if grant == nil {
		return nil, proviso.Refuse(proviso.StageRequest, proviso.CodeTargetUnknown,
			"there is no grant of the name in audience; the broker's configuration names them under grants")
	}
	if !issues(grant.Offer.Kind(), req.RequestedType) {
		return nil, proviso.Refuse(proviso.StageRequest, proviso.CodeTokenTypeMismatch,
			"this grant gives a credential of kind %s, which isn't the requested_token_type; leave requested_token_type out to get what the grant gives", grant.Offer.Kind())
	}
	return grant, nil
}

// issues reports whether a kind of credential is of the wished token type.
func issues(kind, tokenType string) bool {
	switch tokenType {
	case "":
		return true
	case proviso.TokenTypeX509:
		return kind == "x509" || kind == "x509-svid"
	case proviso.TokenTypeJWT:
		return kind == "jwt" || kind == "jwt-svid"
	default:
		return kind == "jwt"
	}
}

// holder gives the keys that the caller has proved. The proof is looked at only
// now: it takes a place in the memory of proofs, which isn't for strangers.
func (b *Broker) holder(req Request, job identity.Job) (pass.Confirmation, error) {
	var held pass.Confirmation
	if chain := req.Evidence.Certificates; len(chain) > 0 {
		held.X5TS256 = pass.CertificateThumbprint(chain[0])
	}
	if req.Proof != "" {
		jkt, err := b.Proofs.Check(req.Proof, pass.ProofRequest{Method: http.MethodPost, URL: req.URL})
		if err != nil {
			return pass.Confirmation{}, err
		}
		held.JKT = jkt
	}
	jkt := job.Confirmation()
	proved := jkt == "" || jkt == held.JKT
	if chain := req.Evidence.Certificates; !proved && len(chain) > 0 {
		proved = jkt == runner.KeyThumbprint(chain[0]) // by the handshake
	}
	if !proved {
		return pass.Confirmation{}, proviso.Refuse(proviso.StageJob, proviso.CodeCnfMismatch,
			"the job's token is bound to a key (cnf.jkt, or its audience), and the request does not prove that key: send a DPoP proof of it, or show its certificate in the TLS handshake")
	}
	return held, nil
}

// plan works out the exact terms of the credential: never wider than the grant,
// the policy and the wish.
func (b *Broker) plan(ctx context.Context, rec *record, req Request, holder pass.Confirmation, grant *Grant, job identity.Job, run runner.Runner, verdict policy.Verdict) (audit.Terms, error) {
	limits := verdict.Limits()
	ends := run.Expires()
	if req.Workload {
		ends = job.Expires() // of its SVID
	}
	return grant.Offer.Plan(ctx, credential.PlanRequest{
		Decision: rec.entry.Decision, Policy: verdict.Digest(),
		Issuer: job.Issuer(), Job: job.Document(),
		Runner: run.SPIFFEID(), RunnerExpires: ends,
		Intent:     req.Intent,
		AskedScope: req.Scope, AskedTTL: time.Duration(req.Intent.RequestedTTL) * time.Minute,
		LimitScope: limits.Scope, LimitTTL: limits.TTL,
		Holder: holder, CSR: req.CSR,
	})
}
