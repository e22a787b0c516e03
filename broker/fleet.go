package broker

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/runner"
)

// FleetConfig is the section "fleet" of the configuration: the runners of the
// broker's own trust domain, whose agents (proviso runner run) join here. The
// fleet exists where an entry of runners has the bundle {own: true}; the path of
// that entry is what its runners are called.
type FleetConfig struct {
	// TTL is the life of a runner's X.509-SVID: 5s to 24h, by default 1h. Its agent
	// renews it before half of that, so the broker may be away for the other half.
	TTL time.Duration `yaml:"ttl,omitempty"`
	// JWTTTL is the life of the JWT-SVIDs that jobs on the machine ask for: 5s to
	// 1h, by default 5m.
	JWTTTL time.Duration `yaml:"jwt_ttl,omitempty"`
	// Evidence names the kinds of evidence by which a runner may join without a
	// join token: aws, gcp, azure, kubernetes, tpm, attestation; each needs an entry
	// of that kind under runners. None by default. A runner joins by evidence once,
	// and again when its SVID has ended, or when somebody allows it.
	Evidence []string `yaml:"evidence,omitempty"`
}

func (c FleetConfig) withDefaults() FleetConfig {
	if c.TTL == 0 {
		c.TTL = time.Hour
	}
	if c.JWTTTL == 0 {
		c.JWTTTL = 5 * time.Minute
	}
	return c
}

// Validate checks the section by itself.
func (c FleetConfig) Validate() []Problem {
	c = c.withDefaults()
	var problems []Problem
	if c.TTL < 5*time.Second || c.TTL > pass.MaxTTL || c.TTL%time.Second != 0 {
		problems = append(problems, Problem{"ttl", fmt.Sprintf("is %s; write whole seconds from 5s to 24h, as 1h", c.TTL)})
	}
	if c.JWTTTL < 5*time.Second || c.JWTTTL > time.Hour || c.JWTTTL%time.Second != 0 {
		problems = append(problems, Problem{"jwt_ttl", fmt.Sprintf("is %s; write whole seconds from 5s to 1h, as 5m", c.JWTTTL)})
	}
	for i, kind := range c.Evidence {
		if !slices.Contains(joinKinds(), kind) {
			problems = append(problems, Problem{fmt.Sprintf("evidence[%d]", i), fmt.Sprintf("%q is no kind of evidence that a runner can join by; write %s", kind, strings.Join(joinKinds(), ", "))})
		}
	}
	return problems
}

// joinKinds are the kinds of evidence that prove a machine without a job.
func joinKinds() []string { return slices.Sorted(maps.Values(proviso.EvidenceKinds)) }

// workloadSegment stands between a runner's SPIFFE ID and the name of a workload
// on its machine. The runner's own SVID renews itself; a workload's never does,
// so that a job that holds one can't become the runner.
const workloadSegment = "/workload/"

// Enrolment issues to the runners of the own trust domain.
type Enrolment struct {
	domain    string // SPIFFE ID of the trust domain
	runners   runner.Config
	evidence  []string
	x509, jwt *credential.Offer
}

// NewEnrolment makes the fleet's side of a broker. runners is the entry of the
// own trust domain.
func NewEnrolment(c FleetConfig, runners runner.Config, minter *credential.Minter) (e *Enrolment, err error) {
	if problems := c.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("fleet.%s %s", problems[0].Path, problems[0].Message)
	}
	c = c.withDefaults()
	e = &Enrolment{domain: "spiffe://" + runners.TrustDomain, runners: runners, evidence: c.Evidence}
	if e.x509, err = minter.RunnerOffer("x509-svid", c.TTL); err != nil {
		return nil, err
	}
	e.jwt, err = minter.RunnerOffer("jwt-svid", c.JWTTTL)
	return e, err
}

// Name composes the SPIFFE ID of a runner of the own trust domain.
func (e *Enrolment) Name(values map[string]string) (string, error) {
	path, err := e.runners.Expand(values)
	if err != nil {
		return "", err
	}
	return e.domain + path, nil
}

// owns reports whether a SPIFFE ID is of the own trust domain.
func (e *Enrolment) owns(id string) bool { return e != nil && strings.HasPrefix(id, e.domain+"/") }

// standing refuses a runner that is banned, or whose evidence is worth nothing
// any more. A runner of the own trust domain has joined, or is none: an SVID of
// that domain under its name, from wherever, is not enough.
func (b *Broker) standing(run runner.Runner) error {
	switch {
	case run.IsZero():
		return nil
	case run.SPIFFEID() == "":
		return b.Fleet.Admits(run.Name()+"/"+run.ID(), run.Issued())
	}
	return b.svidStanding(run.SPIFFEID(), run.Issued(), run.Attestation() == runner.AttestationX509, b.Enrolment.owns(run.SPIFFEID()))
}

// svidStanding is the standing of who an SVID names: of the runner that a
// workload runs on, where that is what it names. mustJoin is set where nobody is
// admitted who didn't join.
func (b *Broker) svidStanding(id string, issued time.Time, certificate, mustJoin bool) error {
	if !b.Enrolment.owns(id) {
		return b.Fleet.Admits(id, issued)
	}
	name, _, isWorkload := strings.Cut(id, workloadSegment)
	if certificate && !issued.IsZero() {
		issued = issued.Add(pass.MaxSkew) // it was backdated by as much
	}
	if known, ok := b.Fleet.Get(name); (mustJoin || isWorkload) && (!ok || known.Joined.IsZero() && known.Banned.IsZero()) {
		return proviso.Refuse(proviso.StageRunner, fleet.CodeRunnerMustJoin, "no runner has joined as %s: give its agent a join token", name)
	}
	return b.Fleet.Admits(name, issued)
}

// Types of the entries that the fleet's two doors make.
const (
	RunnerJoin    = "runner-join"
	RunnerRenewal = "runner-renewal"
)

// JoinRequest is an agent's that has no SVID yet: a join token, or evidence of
// one of the kinds that the fleet takes.
type JoinRequest struct {
	Token          string
	Kind, Evidence string
	CSR            []byte
}

// RenewRequest is an agent's that shows its SVID as TLS client certificate. It
// wants a newer one; or, with a Workload, an SVID for that workload: for the key
// of the CSR or, with an Audience, a JWT-SVID.
type RenewRequest struct {
	Certificates []*x509.Certificate
	CSR          []byte
	Workload     string
	Audience     string
}

// Enrolled is what an agent gets.
type Enrolled struct {
	Decision   string
	SPIFFEID   string
	Credential credential.Credential
}

// Join is the other door to a credential: for runners, not for jobs. It has the
// order of Exchange, with the operator's join token or the fleet's configuration
// in the place of a policy.
func (b *Broker) Join(ctx context.Context, req JoinRequest) (_ *Enrolled, err error) {
	rec := b.openEntry(RunnerJoin)
	defer b.end(ctx, rec, &err)
	if b.Enrolment == nil {
		return nil, noFleet()
	}
	ctx = rec.stage(ctx, proviso.StageRunner)
	// What asks for a certificate at all proves its key first: it costs an
	// outsider as much as us, and a ticket is not looked up for less.
	key, err := credential.RequestKey(req.CSR)
	if err != nil {
		return nil, err
	}
	var joining *fleet.Joining
	var once audit.Once
	if req.Token != "" {
		joining, once, err = b.joinByToken(ctx, rec, req)
	} else {
		joining, once, err = b.joinByEvidence(ctx, rec, req, key)
	}
	if err != nil {
		return nil, err
	}
	return b.enrol(ctx, rec, b.Enrolment.x509, credential.PlanRequest{Runner: rec.entry.SPIFFEID, CSR: req.CSR}, enrolling{
		once: func(expires time.Time) audit.Once {
			once.With = joining.Write(expires)
			return once
		},
		durable: func(time.Time) { joining.Done() },
	})
}

const joinAgain = "this join token or evidence has already been used to join, and it is good for one join: let the operator make a new join token"

func (b *Broker) joinByToken(ctx context.Context, rec *record, req JoinRequest) (*fleet.Joining, audit.Once, error) {
	ticket, err := b.Fleet.Ticket(ctx, req.Token)
	if err != nil {
		return nil, audit.Once{}, err
	}
	rec.proved = true // the operator made it
	hash := ticket.Hash()
	rec.entry.SPIFFEID, rec.entry.EvidenceHash = ticket.Runner(), hex.EncodeToString(hash[:])
	rec.entry.Runner = joinDocument("join-token", ticket.Runner())
	joining, err := b.Fleet.Join(ctx, ticket.Runner(), "join-token", &ticket)
	return joining, audit.Once{Key: joinKey("join token", rec.entry.EvidenceHash), Expires: ticket.Expires(), Again: joinAgain}, err
}

func (b *Broker) joinByEvidence(ctx context.Context, rec *record, req JoinRequest, key string) (*fleet.Joining, audit.Once, error) {
	if !slices.Contains(b.Enrolment.evidence, req.Kind) {
		return nil, audit.Once{}, proviso.Refuse(proviso.StageRunner, proviso.CodeTokenTypeUnsupported,
			"a runner joins here by a join token%s", orBy(b.Enrolment.evidence))
	}
	run, err := b.Runners.Attest(ctx, req.Kind, req.Evidence, key)
	if err != nil {
		return nil, audit.Once{}, err
	}
	rec.proved = true
	rec.entry.EvidenceHash, rec.entry.Runner = run.EvidenceHash(), run.Document()
	if err := b.standing(run); err != nil {
		return nil, audit.Once{}, err
	}
	name, err := b.Enrolment.Name(valuesOf(b.Enrolment.runners, run))
	if err != nil {
		return nil, audit.Once{}, proviso.Refuse(proviso.StageRunner, proviso.CodeTemplateValue, "the evidence gives the runner no name in this fleet: %v", err)
	}
	rec.entry.SPIFFEID = name
	joining, err := b.Fleet.Join(ctx, name, req.Kind+"/"+run.Name()+"/"+run.ID(), nil)
	if err != nil {
		return nil, audit.Once{}, err
	}
	shown := run.EvidenceHash() + "\x00" + joining.Again()
	if run.Tied() {
		// Nobody else can show it; and some of it, as AWS's document, is all that
		// the machine ever has. Then the request for the certificate is what is used up.
		shown += "\x00" + string(req.CSR)
	}
	return joining, audit.Once{Key: joinKey(req.Kind, shown), Expires: run.Expires(), Again: joinAgain}, nil
}

func orBy(kinds []string) string {
	if len(kinds) == 0 {
		return ""
	}
	return " or by evidence of the kinds " + strings.Join(kinds, ", ")
}

func joinKey(kind, hash string) [32]byte {
	return sha256.Sum256([]byte("join\x00" + kind + "\x00" + hash))
}

// valuesOf gives what a runner's evidence says for the variables of the fleet's path.
func valuesOf(c runner.Config, run runner.Runner) map[string]string {
	values := map[string]string{}
	for _, name := range c.Variables() {
		switch name {
		case "id":
			values[name] = run.ID()
		case "region":
			values[name] = run.Region()
		default:
			values[name], _ = run.Document().At("attributes", name).Text()
		}
	}
	return values
}

func joinDocument(evidence, id string) document.Value {
	return document.ObjectOf(document.Member("attestation", document.StringOf(evidence)), document.Member("spiffe_id", document.StringOf(id)))
}

// Renew gives a runner that shows its SVID a newer one, or an SVID for a
// workload on its machine. The SVID that is shown names the runner; nothing in
// the request does.
func (b *Broker) Renew(ctx context.Context, req RenewRequest) (_ *Enrolled, err error) {
	rec := b.openEntry(RunnerRenewal)
	defer b.end(ctx, rec, &err)
	if b.Enrolment == nil {
		return nil, noFleet()
	}
	ctx = rec.stage(ctx, proviso.StageRunner)
	if len(req.Certificates) == 0 {
		return nil, proviso.Refuse(proviso.StageRunner, proviso.CodeRunnerRequired,
			"an agent renews with its SVID as TLS client certificate, and this request came without one; where TLS ends before the broker no agent can renew")
	}
	run, err := b.Runners.Verify(ctx, runner.Evidence{Certificates: req.Certificates}, identity.Job{})
	if err != nil {
		return nil, err
	}
	rec.proved = true
	rec.learnRunner(run)
	name := run.SPIFFEID()
	if !b.Enrolment.owns(name) || strings.Contains(name, workloadSegment) {
		return nil, proviso.Refuse(proviso.StageRunner, runner.CodeRunnerPath, "%s is not the SVID of an agent of this fleet: a workload's SVID renews nothing", name)
	}
	if err := b.standing(run); err != nil {
		return nil, err
	}
	own := req.Workload == ""
	if err := b.Fleet.Paced(name, own); err != nil {
		return nil, err
	}
	plan, offer := credential.PlanRequest{Runner: name, CSR: req.CSR}, b.Enrolment.x509
	if !own {
		if !runner.IsSegment(req.Workload) {
			return nil, proviso.Refuse(proviso.StageRequest, proviso.CodeTemplateValue, "a workload's name is one segment of a SPIFFE ID's path: letters, digits, dots, dashes and underscores, a letter or digit first")
		}
		plan.Runner = name + workloadSegment + req.Workload
	}
	if req.Audience != "" {
		if own {
			return nil, proviso.Refuse(proviso.StageRequest, proviso.CodeRequestMalformed, "a JWT-SVID is given to a workload, and none is named")
		}
		plan.Audience, offer = req.Audience, b.Enrolment.jwt
	}
	writes := enrolling{once: func(time.Time) audit.Once { return audit.Once{Off: true} }}
	if own {
		writes.once = func(expires time.Time) audit.Once {
			return audit.Once{Off: true, With: b.Fleet.Renewed(name, expires)}
		}
		writes.durable = func(expires time.Time) { b.Fleet.RenewalDone(name, expires) }
	}
	return b.enrol(ctx, rec, offer, plan, writes)
}

// EndpointSVID gives the broker's own bundle endpoint its SVID. It is recorded
// as everything is that the authority signs.
func (b *Broker) EndpointSVID(ctx context.Context, offer *credential.Offer, id string, csr []byte) (_ *Enrolled, err error) {
	rec := b.openEntry("endpoint-svid")
	rec.proved = true
	defer b.end(ctx, rec, &err)
	rec.entry.SPIFFEID = id
	return b.enrol(ctx, rec, offer, credential.PlanRequest{Runner: id, CSR: csr}, enrolling{once: func(time.Time) audit.Once { return audit.Once{Off: true} }})
}

// enrolling is what becomes of the fleet with an SVID that ends at a given time.
type enrolling struct {
	once    func(expires time.Time) audit.Once // what is written with the decision
	durable func(expires time.Time)            // is told once it is; nil needs nothing
}

// enrol has the last stages of Exchange: terms, record, warrant, credential.
func (b *Broker) enrol(ctx context.Context, rec *record, offer *credential.Offer, plan credential.PlanRequest, writes enrolling) (*Enrolled, error) {
	ctx = rec.stage(ctx, proviso.StageRecord)
	plan.Decision = rec.entry.Decision
	terms, err := offer.Plan(ctx, plan)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	// From here on the agent may leave: what is on the disk has to be in memory.
	ctx = context.WithoutCancel(ctx)
	warrant, err := b.Audit.Commit(ctx, &rec.entry, writes.once(terms.Expires), terms)
	if err != nil {
		return nil, err
	}
	rec.committed = true
	if writes.durable != nil {
		writes.durable(terms.Expires)
	}
	ctx = rec.stage(ctx, proviso.StageCredential)
	minted, err := offer.Mint(ctx, warrant, credential.Material{CSR: plan.CSR})
	if err != nil {
		return nil, err
	}
	return &Enrolled{Decision: rec.entry.Decision, SPIFFEID: plan.Runner, Credential: minted}, nil
}

func noFleet() error {
	return proviso.Refuse(proviso.StageRequest, proviso.CodeTargetUnknown,
		"this broker has no fleet of its own: its configuration has no entry under runners with bundle: {own: true}")
}
