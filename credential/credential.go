// Package credential is what a job gets: it plans a credential before the
// decision is recorded, and mints it afterwards, from the record and nothing
// else. One file holds one kind; the table in this file is the list of kinds.
//
// # Plan, then mint
//
// [Offer.Plan] composes the [audit.Terms]: the credential's id, name, audience,
// scope, holder and lifetime, each of them the narrowest of what was asked, what
// the grant has and what policy leaves. Asking for more than the grant has is a
// refusal, not a silent cut; what policy cuts is cut, and stands in the terms
// and in the answer. The broker records the terms and gets a warrant.
// [Offer.Mint] redeems the warrant and mints exactly its terms: a key or a
// request that is not the one in the terms is refused.
//
// # Rehearsal
//
// Nothing meets a real key before it was linted. A token's bytes are known
// before they are signed, so package pass lints those. A certificate is signed
// with a throwaway key first, read back as a stranger would, and linted; then
// the real key signs the same bytes, and they are compared once more.
//
// # Names
//
// Names come from templates over verified values, never from a request: a CSR
// that asks for another name is refused. The subject of a token is by default
//
//	job:<issuer>:<tenant>:<repository id>
//
// where <issuer> is the name of the CI issuer in the configuration, so that
// equal ids of two platforms stay apart; a tenant that is absent is "-"; and a
// platform without immutable ids gives name:<repository> in place of the id.
// Each part is percent-encoded but for letters, digits and -._~/@. It has no
// branch and no event: those are policy's matter, decided before there is a
// token. The platform's own sub is never a part of it unless a template says
// so, because jobs and repository admins can shape it on several platforms.
// Cloud trust policies compare it as it is; Google Cloud maps at most 127 bytes.
package credential

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/pass"
)

// Problem is one thing that is wrong in a configuration.
type Problem = pass.Problem

func problem(path, message string, args ...any) Problem {
	return Problem{Path: path, Message: fmt.Sprintf(message, args...)}
}

// Config is what a grant says about its credential: the section "credential".
type Config struct {
	// Kind is jwt, x509, x509-svid or jwt-svid. It must be set. The SVIDs are of
	// the broker's own SPIFFE trust domain (section trust_domain).
	Kind string `yaml:"kind,omitempty"`
	// Audience is the one resource that the credential is for, usually its URL.
	// jwt and jwt-svid: it must be set, and becomes aud. x509 and x509-svid: not
	// allowed.
	Audience string `yaml:"audience,omitempty"`
	// Scope are the words that the grant can give. A job may ask for fewer; a
	// job that asks for none gets all that policy leaves. jwt only.
	Scope []string `yaml:"scope,omitempty"`
	// Algorithm signs the token: ES256 (the default) or EdDSA. jwt only.
	Algorithm string `yaml:"algorithm,omitempty"`
	// Subject is the template of the token's sub. By default it is the job's
	// stable name: job:<issuer>:<tenant>:<repository id>. jwt only.
	Subject string `yaml:"subject,omitempty"`
	// Binding says which key the holder of the token must prove later:
	//   offered  the DPoP key, if the request proves one; otherwise nobody's (the default)
	//   dpop     a DPoP key; a request without a proof is refused
	//   mtls     the TLS client certificate; a request without one is refused
	//   any      the DPoP key, else the client certificate; without either, refused
	// jwt only: a certificate is bound to its key anyway.
	Binding string `yaml:"binding,omitempty"`
	// Within cuts the lifetime to what is left of other evidence: runner is the
	// runner's SVID. A job without that evidence is refused.
	Within []string `yaml:"within,omitempty"`
	// URI is the template of the certificate's one subject alternative name: of
	// URI and DNS exactly one must be set. x509 only. Example:
	//   uri: spiffe://proviso.acme.example/job/{issuer}/{repository_id}
	// For x509-svid and jwt-svid URI is the template of the SPIFFE ID, in the
	// broker's own trust domain, and must be set.
	URI string `yaml:"uri,omitempty"`
	// DNS is the template of that name as a DNS name. x509 only.
	DNS string `yaml:"dns,omitempty"`
	// CommonName is the template of the certificate's subject CN, for resources
	// that look at nothing else. By default the subject is empty. x509 only.
	CommonName string `yaml:"common_name,omitempty"`
}

// DefaultTTL is a grant's max_ttl unless it says otherwise.
const DefaultTTL = 15 * time.Minute

// PlanRequest is all that a credential can depend on.
type PlanRequest struct {
	Decision string // the decision's id
	Policy   string // the policy's digest
	// Issuer is the name of the job's issuer in the configuration, and Job the
	// verified identity, as in input.identity.
	Issuer string
	Job    document.Value
	// Runner is the SPIFFE ID of the verified runner, RunnerExpires the end of its
	// evidence; both zero when there is none.
	Runner        string
	RunnerExpires time.Time
	// Intent is what was declared and, now that it was allowed, granted.
	Intent proviso.Intent
	// AskedScope and AskedTTL are the caller's wish; empty and 0 ask for nothing.
	AskedScope []string
	AskedTTL   time.Duration
	// LimitScope and LimitTTL are policy's limits; nil and 0 are none.
	LimitScope []string
	LimitTTL   time.Duration
	// Holder are the keys that the caller proved in this request: that of its
	// DPoP proof, that of its TLS client certificate, both or none.
	Holder pass.Confirmation
	// CSR is a certificate signing request in PEM; kinds x509 and x509-svid need one.
	CSR []byte
	// Audience is whom a runner of the own trust domain wants a JWT-SVID for. A
	// job has no such wish: its audience is the grant's.
	Audience string
}

// Material is what minting needs besides the terms.
type Material struct {
	// CSR must be the one that was planned with.
	CSR []byte
}

// Credential is what the caller gets. Printing it prints no secret.
type Credential struct {
	Info proviso.CredentialInfo
	// TokenType is Bearer, DPoP or N_A; IssuedTokenType one of RFC 8693's.
	TokenType, IssuedTokenType string
	IssuedAt                   time.Time
	Scope                      []string
	// Details are the authorization_details as granted, an array or absent.
	Details document.Value

	secret string
}

// Reveal gives the credential itself: the token, or the PEM chain.
func (c Credential) Reveal() string { return c.secret }

// ExpiresIn is the lifetime that is left at now, in whole seconds.
func (c Credential) ExpiresIn(now time.Time) int64 { return max(0, c.Info.Expires-now.Unix()) }

func (c Credential) String() string { return fmt.Sprintf("%s credential %s", c.Info.Kind, c.Info.ID) }

// GoString keeps %#v from printing the secret.
func (c Credential) GoString() string { return c.String() }

// LogValue keeps slog from printing the secret.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON refuses: whoever wants the secret on the wire asks for it by name.
func (c Credential) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("a credential is not written as JSON; use Reveal")
}

// kind is one row of the table of kinds.
type kind struct {
	name string
	// takes are the members of Config that only some kinds have.
	takes []string
	// check finds what is wrong in the members that the kind takes.
	check func(c Config) []Problem
	// prepare checks what can be known at start, and gives the offer's halves.
	prepare func(m *Minter, o *Offer) error
}

var kinds = []kind{jwtKind, x509Kind, x509SVIDKind, jwtSVIDKind}

// Validate gives what is wrong, by the path of the member.
func (c Config) Validate() []Problem {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == c.Kind })
	if i < 0 {
		return []Problem{problem("kind", "%q is not a kind of credential; there are %s", c.Kind, kindNames())}
	}
	var out []Problem
	for _, m := range []struct {
		name string
		set  bool
	}{{"audience", c.Audience != ""}, {"scope", len(c.Scope) > 0}, {"algorithm", c.Algorithm != ""}, {"subject", c.Subject != ""},
		{"binding", c.Binding != ""}, {"uri", c.URI != ""}, {"dns", c.DNS != ""}, {"common_name", c.CommonName != ""}} {
		if m.set && !slices.Contains(kinds[i].takes, m.name) {
			out = append(out, problem(m.name, "a credential of kind %s has none; remove it", c.Kind))
		}
	}
	for j, w := range c.Within {
		if w != withinRunner {
			out = append(out, problem(fmt.Sprintf("within[%d]", j), "%q is no evidence that bounds a lifetime; there is runner", w))
		}
	}
	return append(out, kinds[i].check(c)...)
}

func kindNames() string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}

// Options are what minting needs of its surroundings.
type Options struct {
	// Issuer is Proviso's own URL.
	Issuer string
	// Keys sign tokens, Authority signs certificates. Without one, a grant of its
	// kind is an error at start.
	Keys      *pass.Keyring
	Authority *Authority
	// Domain issues SVIDs; nil without a trust domain of the broker's own.
	Domain *Domain
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Minter makes credentials of all kinds.
type Minter struct{ opt Options }

// New makes a Minter.
func New(opt Options) (*Minter, error) {
	if opt.Issuer == "" {
		return nil, fmt.Errorf("credential: the issuer's URL is missing")
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Minter{opt}, nil
}

// Offer is what one grant gives: its configuration, checked. It may be used by
// many goroutines.
type Offer struct {
	grant  string
	cfg    Config
	maxTTL time.Duration
	within bool // the runner's evidence bounds the lifetime
	m      *Minter

	plan func(ctx context.Context, r *PlanRequest, t *audit.Terms) error
	mint func(ctx context.Context, t *audit.Terms, material Material) (Credential, error)
}

// Offer checks a grant's credential. maxTTL 0 means DefaultTTL.
func (m *Minter) Offer(grant string, cfg Config, maxTTL time.Duration) (*Offer, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("grants.%s.credential.%s", grant, problems[0])
	}
	if maxTTL == 0 {
		maxTTL = DefaultTTL
	}
	if maxTTL < time.Second || maxTTL > pass.MaxTTL {
		return nil, fmt.Errorf("grants.%s.max_ttl: %v is not between 1s and %v; write 15m", grant, maxTTL, pass.MaxTTL)
	}
	o := &Offer{grant: grant, cfg: cfg, maxTTL: maxTTL, within: slices.Contains(cfg.Within, withinRunner), m: m}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == cfg.Kind })
	if err := kinds[i].prepare(m, o); err != nil {
		return nil, fmt.Errorf("grants.%s.credential.%w", grant, err)
	}
	return o, nil
}

// Kind is the kind of credential that the grant gives.
func (o *Offer) Kind() string { return o.cfg.Kind }

// Plan composes the terms of one credential, or refuses.
func (o *Offer) Plan(ctx context.Context, r PlanRequest) (audit.Terms, error) {
	t := audit.Terms{Kind: o.cfg.Kind}
	if err := o.planLifetime(&r, &t); err != nil {
		return audit.Terms{}, err
	}
	if err := o.planScope(&r, &t); err != nil {
		return audit.Terms{}, err
	}
	if err := o.plan(ctx, &r, &t); err != nil {
		return audit.Terms{}, err
	}
	return t, nil
}

// Mint redeems the warrant and makes the credential of its terms.
func (o *Offer) Mint(ctx context.Context, w *audit.Warrant, material Material) (Credential, error) {
	t, err := w.Redeem()
	if err != nil {
		return Credential{}, proviso.Refuse(proviso.StageCredential, CodeTermsMismatch, "nothing is minted without a recorded decision").Because(err)
	}
	now := o.m.opt.Now()
	if t.Kind != o.cfg.Kind || t.ID == "" || !t.Expires.After(now) || t.Expires.Sub(now) > o.maxTTL {
		return Credential{}, mismatch("the recorded terms are not of this grant, or have run out")
	}
	return o.mint(ctx, &t, material)
}

func mismatch(public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageCredential, CodeTermsMismatch, public, args...)
}
