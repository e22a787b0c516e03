package runner

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
)

// Refusals of workloads that ask for themselves. They are of the stage job: it is
// who asks that is in question.
const (
	// CodeCallerUnknown: the SVID is good, and not of a workload that may ask.
	CodeCallerUnknown proviso.Code = "caller_unknown" // 400 invalid_request
	// CodeClientMismatch: client_id is another SPIFFE ID than the SVID's.
	CodeClientMismatch proviso.Code = "client_mismatch" // 401 invalid_client
)

// Caller are workloads of a trust domain that may ask for themselves, without a
// job: a controller, a service that renews its own credential. Policy sees them
// as input.identity with kind "spiffe". A grant is given to them only if it
// names their entry under callers.
type Caller struct {
	// Path is the template that the workload's SPIFFE path must match, as
	// "/ns/{ns}/sa/deployer". A name in braces stands for exactly one path
	// segment and becomes a member of input.identity.attributes. It must match no
	// path of a runner: what runs jobs can't ask for itself, or any job on it could.
	Path string `yaml:"path" json:"path"`
	// Tenant becomes input.identity.tenant.
	Tenant string `yaml:"tenant,omitempty" json:"tenant,omitempty"`
	// Role becomes input.identity.role, as "deployer".
	Role string `yaml:"role,omitempty" json:"role,omitempty"`
	// Replay says how a JWT-SVID is recognised that comes a second time: token
	// (the hash of what was signed; the default), jti (a JWT-SVID without one is
	// refused) or off. Agents keep a JWT-SVID and hand it out again for half of
	// its life, so with token a workload gets a grant once in that time; asking
	// by mutual TLS has nothing to repeat and no such bound.
	Replay string `yaml:"replay,omitempty" json:"replay,omitempty"`
	// MaxAge is how long after its iat a JWT-SVID is taken, whatever its exp
	// says. By default until it expires.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
}

// checkCallers checks the callers of one entry against each other and against
// its runners.
func checkCallers(cfg Config, bad func(path, text string, args ...any)) {
	var runners, parsed []template
	for _, text := range cfg.templates() {
		if t, err := parseTemplate(text); err == nil {
			runners = append(runners, t)
		}
	}
	for i, c := range cfg.Callers {
		where := fmt.Sprintf(".callers[%d]", i)
		t, err := parsePath(c.Path)
		switch {
		case c.Path == "":
			bad(where+".path", "is missing: write the SPIFFE path of who may ask, as /ns/prod/sa/deployer")
		case err != nil:
			bad(where+".path", "%q %v", c.Path, err)
		case slices.ContainsFunc(runners, t.overlaps):
			bad(where+".path", "%q matches paths of runners too: what runs jobs can't ask for itself, or any job on it could", c.Path)
		case slices.ContainsFunc(parsed, t.overlaps):
			bad(where+".path", "%q and an earlier caller match the same paths, which would make them ambiguous", c.Path)
		}
		parsed = append(parsed, t)
		if !slices.Contains([]string{"", identity.ReplayToken, identity.ReplayJTI, identity.ReplayOff}, c.Replay) {
			bad(where+".replay", "is %q; write token, jti or off", c.Replay)
		}
		if c.MaxAge < 0 {
			bad(where+".max_age", "is negative")
		}
	}
}

// caller is a checked Caller.
type caller struct {
	Caller
	template template
}

func newCallers(configs []Caller) []caller {
	var out []caller
	for _, c := range configs {
		t, _ := parsePath(c.Path) // checked by Check
		if c.Replay == "" {
			c.Replay = identity.ReplayToken
		}
		out = append(out, caller{c, t})
	}
	return out
}

// Caller verifies the SVID of a workload that asks for itself and gives its
// identity: the X.509-SVID of the TLS handshake, a JWT-SVID, or both, of one
// SPIFFE ID. That an SVID is good makes nobody a caller: its path must be one of
// a caller in the configuration, and a runner's never is.
func (v *Verifier) Caller(ctx context.Context, ev Evidence) (identity.Job, error) {
	if err := ctx.Err(); err != nil {
		return identity.Job{}, proviso.AsRefusal(err, proviso.StageJob, proviso.CodeInternal)
	}
	a, err := v.attest(ev)
	if err != nil {
		return identity.Job{}, err
	}
	if a.domain == nil {
		return identity.Job{}, proviso.Refuse(proviso.StageJob, CodeCallerUnknown,
			"a workload that asks for itself shows its SVID: a JWT-SVID, or its X.509-SVID as TLS client certificate; none was shown")
	}
	for _, c := range a.domain.callers {
		attributes := map[string]string{}
		if c.template.match(a.id.Path(), func(name, value string) { attributes[name] = value }) {
			return c.admit(a, attributes, v.now())
		}
	}
	return identity.Job{}, proviso.Refuse(proviso.StageJob, CodeCallerUnknown,
		"%s is a good SVID, but not of a workload that may ask for itself; the operator configures those under runners[].callers", quoted(a.id.String()))
}

// admit makes the identity of a caller.
func (c caller) admit(a attested, attributes map[string]string, now time.Time) (identity.Job, error) {
	w := identity.Workload{
		Entry: a.domain.cfg.Name, TrustDomain: a.id.TrustDomain().IDString(), ID: a.id.String(), Attestation: a.kind,
		Tenant: c.Tenant, Role: c.Role, Attributes: attributes, Claims: a.claims,
		Hash: a.digest, Key: a.names, Issued: a.issued, Expires: a.expires, Replay: identity.ReplayOff,
	}
	if a.kind == AttestationX509 {
		return identity.OfWorkload(w), nil // the handshake is new each time, and nobody can repeat it
	}
	no := func(code proviso.Code, text string, args ...any) (identity.Job, error) {
		return identity.Job{}, proviso.Refuse(proviso.StageJob, code, text, args...)
	}
	if c.MaxAge > 0 {
		if a.issued.IsZero() {
			return no(proviso.CodeIatMissing, "the JWT-SVID has no iat, so its age can't be known")
		}
		if age := now.Sub(a.issued); age > c.MaxAge {
			return no(identity.CodeTokenTooOld, "the JWT-SVID was made %s ago, and is taken for %s (max_age); fetch a fresh one", age.Round(time.Second), c.MaxAge)
		}
	}
	w.JTI, _ = a.claims.Get("jti").Text()
	if c.Replay == identity.ReplayJTI && w.JTI == "" {
		return no(proviso.CodeJTIMissing, "the JWT-SVID has no jti, by which a second use is recognised; let its authority write one, or have the broker's operator change replay")
	}
	w.Replay = c.Replay
	return identity.OfWorkload(w), nil
}

// CallerEntries lists the entries that have callers.
func (v *Verifier) CallerEntries() []string {
	var names []string
	for _, s := range v.sources {
		if d := v.domains[s.domain]; len(d.callers) > 0 {
			names = append(names, d.cfg.Name)
		}
	}
	return names
}
