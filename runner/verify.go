package runner

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
	"github.com/proviso-ci/proviso/store"
)

// Refusals that only this package can raise.
const (
	// CodeTrustDomainUnknown: the SVID's trust domain has no configuration here.
	CodeTrustDomainUnknown proviso.Code = "trust_domain_unknown" // 400 invalid_request
	// CodeRunnerPath: the SVID is good, but its path is not a runner's.
	CodeRunnerPath proviso.Code = "runner_path" // 400 invalid_request
)

// Defaults of Config and Options.
const (
	defaultX509Lifetime = 24 * time.Hour
	defaultJWTLifetime  = time.Hour
	defaultBundleCheck  = 2 * time.Second
)

// Options are what the configuration file doesn't hold.
type Options struct {
	// Audience is the one audience of a JWT-SVID: the broker's URL. Must be set.
	Audience string
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// Log gets what happens to bundles; nil is slog.Default.
	Log *slog.Logger
	// Kinds are further kinds of evidence beside SPIFFE's.
	Kinds []Kind
	// Store remembers which key a machine was first seen with, for evidence that
	// is only as good as that, and the highest sequence of each foreign bundle.
	// Without it such evidence is refused, and a restart forgets the sequences.
	Store *store.DB
	// BundleCheck is how often a bundle's file is looked at, at most. Default 2s.
	BundleCheck time.Duration
	// Own is the bundle of the broker's own trust domain as it is now, for the
	// entry whose bundle is {own: true}.
	Own func() []byte
	// EndpointCheck is how often a bundle endpoint is asked, at most, whatever
	// its bundle's hint says. Default 10s.
	EndpointCheck time.Duration
}

// Verifier verifies the evidence of runners. It can be used by many goroutines.
type Verifier struct {
	audience string
	now      func() time.Time
	domains  map[spiffeid.TrustDomain]*domain
	sources  []*source
	kinds    []Kind
	log      *slog.Logger

	challenges *challenges
	keys       *store.DB
	entries    map[string][]verifyEntry // of further kinds, in the configuration's order
	platform   []platformEntry
	states     []state
	issuers    []*keyset.Source // of tokens that are evidence
	closers    []func()

	adopting sync.Mutex // one bundle is compared with the others at a time
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// domain is one checked configuration entry.
type domain struct {
	cfg        Config
	source     *source
	templates  []template
	attributes []document.Field // the fixed ones
	callers    []caller
}

// attested is what one piece of evidence proved.
type attested struct {
	domain  *domain
	id      spiffeid.ID
	kind    string
	hash    string
	issued  time.Time // as the evidence says it; zero where it doesn't
	expires time.Time
	chain   *x509.Certificate // the leaf whose key the handshake proved; nil for a token
	names   string            // the thumbprint of the key that a JWT-SVID is bound to, "" for a bearer
	digest  [32]byte          // what hash says in hex
	claims  document.Value    // of a JWT-SVID
}

// New checks the configuration and reads every file that it names; nothing else
// is asked before Start. Its error joins one Problem for each thing that is wrong.
func New(configs []Config, opt Options) (*Verifier, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.BundleCheck == 0 {
		opt.BundleCheck = defaultBundleCheck
	}
	if opt.EndpointCheck == 0 {
		opt.EndpointCheck = shortestRefresh
	}
	var problems []error
	for _, p := range Check(configs) {
		problems = append(problems, p)
	}
	if opt.Audience == "" {
		problems = append(problems, Problem{"", "need the broker's URL, which is the audience of JWT-SVIDs"})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	v := &Verifier{audience: opt.Audience, now: opt.Now, domains: map[spiffeid.TrustDomain]*domain{}, kinds: slices.Clone(opt.Kinds),
		log: opt.Log, challenges: newChallenges(opt.Now), keys: opt.Store, entries: map[string][]verifyEntry{}}
	problems = append(problems, v.openEvidence(configs)...)
	for i, cfg := range configs {
		if cfg.TrustDomain == "" {
			continue
		}
		d := newDomain(cfg)
		td := spiffeid.RequireTrustDomainFromString(cfg.TrustDomain) // checked by Check
		where, err := v.open(d, td, opt)
		if err != nil {
			problems = append(problems, Problem{fmt.Sprintf("[%d].bundle%s", i, where), err.Error()})
			continue
		}
		v.domains[td] = d
		v.sources = append(v.sources, d.source)
	}
	if len(problems) > 0 {
		v.Close()
		return nil, errors.Join(problems...)
	}
	return v, nil
}

// open makes the source of a domain's bundle. A file is read at once: what is
// wrong with it keeps the broker from starting. An endpoint and the Workload API
// are not: a partner that is down must not keep anybody else out.
func (v *Verifier) open(d *domain, td spiffeid.TrustDomain, opt Options) (where string, err error) {
	s := &source{domain: td, name: d.cfg.Name, maxStale: d.cfg.Bundle.MaxStale, now: opt.Now, log: opt.Log, distinct: v.distinct}
	if d.source = s; !d.cfg.Bundle.Own {
		s.kept = opt.Store
	}
	switch b := d.cfg.Bundle; {
	case b.Own:
		if opt.Own == nil {
			return ".own", errors.New("is set, and this broker has no trust domain of its own; give it one in the section trust_domain")
		}
		f := newReadable(s, "the broker's own authority", func() ([]byte, error) { return opt.Own(), nil }, opt.BundleCheck)
		s.origin, where = f, ".own"
		err = f.reload()
	case b.WorkloadAPI != "":
		s.origin = newWorkload(s, b.WorkloadAPI)
	case b.URL != "":
		s.origin, err = newEndpoint(s, b, opt.EndpointCheck, func(td spiffeid.TrustDomain) (*bundle, error) {
			return v.domains[td].source.usable() // that it is configured was checked by Check
		})
		where = map[bool]string{true: ".ca_file", false: ".file"}[b.CAFile != ""]
	default:
		f := newFile(s, b.File, opt.BundleCheck)
		s.origin, where = f, ".file"
		err = f.reload()
	}
	return where, err
}

// Start keeps the bundles of endpoints and of the Workload API, and the keys of
// the issuers of other evidence, fresh until Close. One that can't be had is no error: SVIDs of its domain are refused
// until it can, and nothing else is.
func (v *Verifier) Start(ctx context.Context) {
	ctx, v.stop = context.WithCancel(ctx)
	for _, s := range v.sources {
		v.running.Go(func() { s.origin.run(ctx) })
	}
	for _, i := range v.issuers {
		i.Start(ctx)
	}
}

// Close ends what Start began, and what fetches the keys of further kinds.
func (v *Verifier) Close() {
	if v.stop != nil {
		v.stop()
	}
	v.running.Wait()
	for _, end := range v.closers {
		end()
	}
}

// Refresh asks every source for its bundle, and every issuer of other evidence for
// its keys, now and waits for all of them. How it went is in Status and
// EvidenceStatus.
func (v *Verifier) Refresh(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range v.sources {
		wg.Go(func() { _ = s.origin.refresh(ctx) }) // Status has the failure
	}
	for _, i := range v.issuers {
		wg.Go(func() { _ = i.Refresh(ctx) }) // EvidenceStatus has it
	}
	wg.Wait()
}

func newDomain(cfg Config) *domain {
	if cfg.MaxX509Lifetime == 0 {
		cfg.MaxX509Lifetime = defaultX509Lifetime
	}
	if cfg.MaxJWTLifetime == 0 {
		cfg.MaxJWTLifetime = defaultJWTLifetime
	}
	if cfg.Bundle.MaxStale == 0 {
		cfg.Bundle.MaxStale = defaultStale
	}
	if cfg.Environment == "" {
		cfg.Environment = "self-hosted"
	}
	d := &domain{cfg: cfg, callers: newCallers(cfg.Callers)}
	for _, text := range cfg.templates() {
		t, _ := parseTemplate(text) // checked by Check
		d.templates = append(d.templates, t)
	}
	for name, value := range cfg.Attributes {
		d.attributes = append(d.attributes, document.Member(name, document.StringOf(value)))
	}
	return d
}

// distinct refuses a bundle that shares a key with another trust domain's.
func (v *Verifier) distinct(s *source, fresh *bundle) error {
	v.adopting.Lock()
	defer v.adopting.Unlock()
	for _, other := range v.sources {
		if other == s {
			continue
		}
		if b := other.current.Load(); b != nil && b.sharesKeyWith(fresh) {
			return &bundleError{proviso.CodeBundleSharedKey,
				fmt.Sprintf("it holds a key that the bundle of %s holds too, so either domain could speak for the other", other.domain.Name())}
		}
	}
	return nil
}

// Verify verifies what a request shows of its runner. Without evidence it
// returns the zero Runner: whether a grant wants one is the grant's matter.
// Evidence that is shown and bad is always a refusal, even where none is wanted.
func (v *Verifier) Verify(ctx context.Context, ev Evidence, job identity.Job) (Runner, error) {
	if ev.IsZero() {
		return v.verifyPlatform(job)
	}
	if err := ctx.Err(); err != nil {
		return Runner{}, proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeInternal)
	}
	a, err := v.attest(ev)
	if err != nil {
		return Runner{}, err
	}
	var r Runner
	if a.domain != nil {
		if a.names != "" && a.names != ev.Key {
			return Runner{}, refuse(proviso.CodeCnfMismatch, "the JWT-SVID is bound to a key (cnf.jkt), and the request does not prove that key: send a DPoP proof of it")
		}
		if r, err = a.runner(job, ev.Key); err != nil {
			return Runner{}, err
		}
	}
	return v.verifyOthers(ctx, ev, job, r)
}

// attest verifies the SVIDs of a request. Two of them must be of one SPIFFE ID;
// the certificate, which can't be copied, is then what counts. Without any the
// domain is nil.
func (v *Verifier) attest(ev Evidence) (attested, error) {
	now := v.now()
	var all []attested
	if len(ev.Certificates) > 0 {
		a, err := v.verifyX509(ev.Certificates, now)
		if err != nil {
			return attested{}, err
		}
		all = append(all, a)
	}
	if ev.JWTSVID != "" {
		a, err := v.verifyJWT(ev.JWTSVID, now)
		if err != nil {
			return attested{}, err
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return attested{}, nil
	}
	strongest := all[0]
	for _, a := range all[1:] {
		if a.id != strongest.id {
			return attested{}, refuse(proviso.CodeActorMismatch, "the JWT-SVID names %s, the client certificate %s: a request has one runner", a.id, strongest.id)
		}
		if a.expires.Before(strongest.expires) {
			strongest.expires = a.expires
		}
		if a.issued.Before(strongest.issued) {
			strongest.issued = a.issued
		}
		strongest.names = a.names // its proof is wanted all the same
	}
	return strongest, nil
}

// domainOf finds the configuration of an ID's trust domain. The trust domain
// that an SVID claims chooses only which bundle it has to satisfy.
func (v *Verifier) domainOf(id spiffeid.ID) (*domain, error) {
	d := v.domains[id.TrustDomain()]
	if d == nil {
		return nil, refuse(CodeTrustDomainUnknown, "runners of the trust domain %s are not known here", quoted(id.TrustDomain().Name()))
	}
	return d, nil
}

// runner reads the path and makes the Runner.
func (a attested) runner(job identity.Job, proved string) (Runner, error) {
	cfg := a.domain.cfg
	r := Runner{name: cfg.Name, region: cfg.Region, spiffeID: a.id.String(), trustDomain: a.id.TrustDomain().Name(),
		attestation: a.kind, assurance: assuranceOf(a), hash: a.hash, issued: a.issued, expires: a.expires}
	var attributes []document.Field
	bindValue := ""
	for _, t := range a.domain.templates {
		attributes = slices.Clone(a.domain.attributes)
		matched := t.match(a.id.Path(), func(name, value string) {
			if name == cfg.Bind {
				bindValue = value
			}
			switch name {
			case "id":
				r.id = value
			case "region":
				r.region = value
			default:
				attributes = append(attributes, document.Member(name, document.StringOf(value)))
			}
		})
		if matched {
			break
		}
		r.id, r.region, bindValue = "", cfg.Region, ""
	}
	if r.id == "" {
		return Runner{}, refuse(CodeRunnerPath, "%s is a good SVID, but its path matches no template of a runner; "+
			"the operator configures them under runners[].path", quoted(a.id.String()))
	}
	var err error
	if r.binding, err = a.bindingTo(job, bindValue, proved); err != nil {
		return Runner{}, err
	}
	r.doc = r.document(cfg.Environment, attributes)
	return r, nil
}

// assuranceOf gives the level of a SPIFFE identity: whoever has a copy of a
// JWT-SVID can show it, and nobody without the key an X.509-SVID.
func assuranceOf(a attested) int {
	if a.chain != nil || a.names != "" {
		return 3
	}
	return 2
}

// bindingTo says by what job and runner are tied together, the strongest first.
// proved is the thumbprint of the key that the request proves by DPoP.
func (a attested) bindingTo(job identity.Job, bindValue, proved string) (string, error) {
	if job.IsZero() {
		return "", nil // an agent that joins a fleet
	}
	if a.domain.cfg.Bind != "" {
		switch said := job.Identity().PlatformRunner.ID; {
		case said == "" || bindValue == "":
		case said != bindValue:
			return "", refuse(proviso.CodeRunnerJobMismatch, "the CI platform gave this job to the runner %s, and the evidence is of %s", quoted(said), quoted(bindValue))
		default:
			return BindingPlatform, nil
		}
	}
	want := job.Confirmation()
	switch {
	case want != "" && a.chain != nil && want == KeyThumbprint(a.chain):
		return BindingKey, nil // the handshake has proved it
	case want != "" && a.names != "" && want == a.names && want == proved:
		return BindingKey, nil
	case a.chain != nil:
		return BindingMTLS, nil
	}
	return "", nil
}

// KeyThumbprint gives the RFC 7638 thumbprint of a certificate's key, "" if it
// is of a kind that has none.
func KeyThumbprint(cert *x509.Certificate) string {
	for _, alg := range []jose.Alg{jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.EdDSA} {
		if key, err := jose.NewKey("", alg, cert.PublicKey); err == nil {
			return key.Thumbprint()
		}
	}
	return ""
}

// Status reports every trust domain's state, in the order of the configuration.
func (v *Verifier) Status() []Status {
	out := make([]Status, len(v.sources))
	for i, s := range v.sources {
		out[i] = s.status()
	}
	return out
}
