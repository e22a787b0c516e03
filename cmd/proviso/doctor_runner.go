package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/client"
	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/runner"
)

// shown is what this machine has of evidence, and the job that runs on it.
type shown struct {
	chain []*x509.Certificate // of the X.509-SVID
	svid  string              // the JWT-SVID for the broker
}

// runner says which evidence this machine has of itself: what the Workload API
// gives this process and until when, and what else there is.
func (d *doctor) runner(ctx context.Context, audience string) shown {
	var s shown
	socket := os.Getenv(client.SocketVariable)
	if socket == "" {
		d.say("runner", nil, "%s is not set: a grant that requires a runner would be refused%s", client.SocketVariable, elsewhere(ctx))
		return s
	}
	if cert, err := client.OpenRunnerCertificate(ctx, socket); err != nil {
		d.say("runner's X.509-SVID", err, "")
	} else {
		s.chain, err = chainOf(cert)
		_ = cert.Close() // it was read once
		d.say("runner's X.509-SVID", err, "%s", describeChain(s.chain))
	}
	if audience == "" {
		return s
	}
	svid, err := client.RunnerToken(ctx, socket, audience)
	if err != nil {
		d.say("runner's JWT-SVID", err, "")
		return s
	}
	token, err := jose.Parse(svid, jose.Profile{Typ: []string{"", "JWT", "JOSE"}})
	if err != nil {
		d.say("runner's JWT-SVID", fmt.Errorf("the Workload API at %s gave one that the broker would refuse: %w", socket, err), "")
		return s
	}
	s.svid = svid
	id, _ := token.Claims.Get("sub").Text()
	expires, _, err := jose.Time(token.Claims, "exp")
	d.say("runner's JWT-SVID", err, "%s, for %s, until %s (%s)", id, audience, expires.UTC().Format(time.RFC3339), left(expires))
	return s
}

// elsewhere says what a machine without a SPIFFE identity has.
func elsewhere(ctx context.Context) string {
	kind := evidence.Find(ctx)
	if kind == "" {
		return ""
	}
	return fmt.Sprintf("\nthis machine has evidence of the kind %s, which proviso exec --evidence %s shows", kind, kind)
}

func chainOf(cert *client.RunnerCertificate) ([]*x509.Certificate, error) {
	pair, err := cert.Certificate()
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("the Workload API gave an X.509-SVID without a certificate")
	}
	return chain, nil
}

func describeChain(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	leaf := chain[0]
	var names []string
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	return fmt.Sprintf("%s, until %s (%s), issued by %q, %s in its chain", strings.Join(names, " and "),
		leaf.NotAfter.UTC().Format(time.RFC3339), left(leaf.NotAfter), leaf.Issuer.CommonName, many(len(chain), "certificate"))
}

// left says how long something is still good.
func left(end time.Time) string {
	if d := time.Until(end).Truncate(time.Second); d > 0 {
		return d.String() + " left"
	}
	return "expired"
}

// asRunner holds this machine's evidence against a broker's configuration: what
// the broker would make of it, and which grants would take it. Policies are not
// asked; they want a job.
func (d *doctor) asRunner(ctx context.Context, file string) {
	config, _, err := readConfig(file)
	if d.say("configuration", err, "%s", file); err != nil {
		return
	}
	verifier, err := runner.New(config.runnerConfigs(), runner.Options{Audience: config.Server.URL, Log: quiet, Own: config.emptyBundle()})
	if err != nil {
		d.say("runners", err, "")
		return
	}
	defer verifier.Close()
	verifier.Refresh(ctx)
	d.domains(verifier)
	d.kinds(verifier)
	s := d.runner(ctx, config.Server.URL)
	job := d.itsJob(ctx, config)
	for _, e := range []struct {
		what string
		ev   runner.Evidence
	}{
		{"as mutual TLS", runner.Evidence{Certificates: s.chain}},
		{"as actor_token", runner.Evidence{JWTSVID: s.svid}},
	} {
		if !e.ev.IsZero() {
			d.verdict(ctx, config, verifier, e.what, e.ev, job)
		}
	}
	d.machine(ctx, config, verifier, job)
}

// domains says of each trust domain whether its SVIDs can be verified.
func (d *doctor) domains(verifier *runner.Verifier) {
	for _, s := range verifier.Status() {
		sequence := "without a sequence"
		if s.Sequence >= 0 {
			sequence = fmt.Sprintf("sequence %d", s.Sequence)
		}
		err := s.Problem
		if err != nil && !s.Usable {
			err = fmt.Errorf("%w\nno SVID of this domain would be taken; its bundle comes from %s", err, s.Source)
		}
		d.say("trust domain "+s.TrustDomain, err, "%d X.509 and %d JWT authorities (bundle %s, from %s; the last good one serves for %s)",
			s.X509Authorities, s.JWTAuthorities, sequence, s.Source, s.MaxStale)
	}
}

// kinds says of each entry of another kind of evidence by what it is verified.
func (d *doctor) kinds(verifier *runner.Verifier) {
	for _, s := range verifier.EvidenceStatus() {
		err := s.Problem
		if err != nil {
			err = fmt.Errorf("%w\nevidence that needs it would be refused", err)
		}
		d.say("evidence "+s.Name, err, "%s: %s", s.Kind, s.Found)
	}
}

// machine holds what the machine can show beside SPIFFE against the
// configuration, made over a challenge of this process in the place of the broker's.
func (d *doctor) machine(ctx context.Context, config *Config, verifier *runner.Verifier, job identity.Job) {
	kind := evidence.Find(ctx)
	if named := os.Getenv("PROVISO_EVIDENCE"); named != "" && named != "auto" {
		kind = named
	}
	if kind == "" {
		return
	}
	if !slices.ContainsFunc(config.Runners, func(r runner.Config) bool { return r.Kind() == kind }) {
		d.say("as "+kind, nil, "this machine has it, and no entry of runners takes it")
		return
	}
	key, err := provedKey(os.Getenv("PROVISO_MACHINE_KEY"))
	if err != nil {
		d.say("machine's key", err, "")
		return
	}
	challenge, _ := verifier.Challenge()
	made, err := evidence.Make(ctx, kind, config.Server.URL, challenge, key)
	if err != nil {
		d.say("as "+kind, err, "")
		return
	}
	ev := runner.Evidence{Other: map[string]string{kind: made.Text}, Key: key}
	d.verdict(ctx, config, verifier, "as "+kind, ev, job)
}

// provedKey gives the thumbprint of the key that the machine's requests prove; ""
// without a file.
func provedKey(file string) (thumbprint string, err error) {
	if file == "" {
		return "", nil
	}
	if _, err := os.Stat(file); err != nil { // it isn't made here
		return "", err
	}
	held, err := machineKey(file)
	if err != nil {
		return "", err
	}
	key, err := jose.NewKey("", jose.ES256, held.Public())
	if err != nil {
		return "", err
	}
	return key.Thumbprint(), nil
}

// itsJob gives the verified job, if this machine runs one of a configured issuer:
// what ties a runner to its job can be told only then.
func (d *doctor) itsJob(ctx context.Context, config *Config) identity.Job {
	source, err := client.Find(client.Lookup{Audience: config.Server.URL, Platform: os.Getenv("PROVISO_CI")})
	if err != nil {
		d.say("job", nil, "none runs here, so what ties it to the runner can't be told")
		return identity.Job{}
	}
	token, err := source.Token(ctx)
	if err != nil {
		d.say("job", err, "")
		return identity.Job{}
	}
	identities, err := identity.New(config.Issuers, identity.Options{Audience: config.Server.URL, Log: quiet})
	if err != nil {
		d.say("job", err, "")
		return identity.Job{}
	}
	defer identities.Close()
	job, err := identities.Verify(ctx, token)
	d.say("job", plain(err), "%s, of the issuer %s%s", source.Title(), job.Issuer(), saysOfRunner(job))
	return job
}

// saysOfRunner is the platform's word about the machine.
func saysOfRunner(job identity.Job) string {
	said := job.Identity().PlatformRunner
	var parts []string
	for _, p := range []struct{ name, value string }{{"runner", said.ID}, {"environment", said.Environment}, {"cluster", said.Cluster}, {"queue", said.Queue}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if len(parts) == 0 {
		return "; its token says nothing of the machine"
	}
	return "; its token says: " + strings.Join(parts, ", ")
}

// verdict says what the broker of a configuration would make of evidence.
func (d *doctor) verdict(ctx context.Context, config *Config, verifier *runner.Verifier, what string, ev runner.Evidence, job identity.Job) {
	run, err := verifier.Verify(ctx, ev, job)
	if errors.Is(err, runner.ErrNoKeyMemory) {
		d.say(what, nil, "genuine, and of a machine that is ours; which key it came with first only the broker knows")
		return
	}
	if err != nil {
		d.say(what, plain(err), "")
		return
	}
	binding := run.Binding()
	if binding == "" {
		binding = "nothing ties a job to it"
	} else {
		binding = "bound to the job by " + binding
	}
	found := fmt.Sprintf("the runner %s of %s, by %s with assurance %d; %s", run.ID(), run.Name(), run.Attestation(), run.Assurance(), binding)
	if run.Region() != "" {
		found += "; region " + run.Region()
	}
	for _, name := range slices.Sorted(maps.Keys(config.Grants)) {
		err := config.Grants[name].Accepts(job, run)
		var r *proviso.Refusal
		if errors.As(err, &r) && r.Code == broker.CodeRunnerUnbound && job.IsZero() && len(ev.Certificates) > 0 {
			found += fmt.Sprintf("\ngrant %s would take it, with a job whose token comes over its connection", name)
			continue
		}
		if err != nil {
			found += fmt.Sprintf("\ngrant %s would refuse it: %v", name, plain(err))
			continue
		}
		found += fmt.Sprintf("\ngrant %s would take it", name)
	}
	d.say(what, nil, "%s", found)
}

// plain is a refusal as a sentence, with its code.
func plain(err error) error {
	var r *proviso.Refusal
	if errors.As(err, &r) {
		return fmt.Errorf("refused (%s): %s", r.Code, r.Public)
	}
	return err
}
