package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
)

// GrantConfig is one entry of "grants": something that can be asked for.
type GrantConfig struct {
	// Resource is what the credential is for, in the operator's words; policy
	// sees it as input.resource.
	Resource facts.Resource `yaml:"resource,omitempty"`
	// Policy is the Rego package that guards the grant: "production" is
	// data.production, "teams.shipping" is data.teams.shipping. Required.
	Policy string `yaml:"policy"`
	// Runner says whether the runner must prove itself: required (the default),
	// bound, optional or none. With bound it must be tied to the job, too
	// (input.runner.binding); docs/runners.md says what that proves. With optional a
	// job that shows no runner is left to the policy, which sees no input.runner; one
	// that is shown has to hold. With none a runner's evidence is refused: whoever
	// sends it expects it to count.
	Runner string `yaml:"runner,omitempty"`
	// RunnerFrom names the entries under runners that the runner may be of, so
	// that a partner's trust domain doesn't count for everything. Without it all
	// of them may. One of another entry that is shown is refused, with optional too;
	// the CI platform's word, which nobody shows, counts as none.
	RunnerFrom []string `yaml:"runner_from,omitempty"`
	// Assurance is the least input.runner.assurance that counts as proof, 1 to 4;
	// docs/runners.md says what each level withstands. Default 2, so that the CI
	// platform's word about the machine is no proof unless a grant says 1. Only
	// with runner: required.
	Assurance int `yaml:"assurance,omitempty"`
	// Callers are the entries under runners whose callers may ask for this grant
	// without a job. Nobody may unless named.
	Callers []string `yaml:"callers,omitempty"`
	// Credential is what the job gets.
	Credential credential.Config `yaml:"credential"`
	// MaxTTL bounds the credential's life: 1s to 24h, by default 15m.
	MaxTTL time.Duration `yaml:"max_ttl,omitempty"`
}

// Words of GrantConfig.
const (
	required = "required"
	bound    = "bound"
	optional = "optional"
	none     = "none"

	defaultAssurance = 2
)

// CodeRunnerAssurance: the runner proved itself, and the grant wants stronger
// evidence.
const CodeRunnerAssurance proviso.Code = "runner_assurance" // 400 invalid_request

// Grant is a checked GrantConfig under its name.
type Grant struct {
	Name     string
	Resource facts.Resource
	Policy   string
	Offer    *credential.Offer

	demands
}

// demands are a grant's on who asks, and from where.
type demands struct {
	runner    string
	from      []string // entries that the runner may be of; nil is all
	assurance int
	callers   []string
}

// Problem is one thing that is wrong with a grant's configuration.
type Problem struct {
	Path    string // below the grant, as "credential.kind"
	Message string
}

// Validate checks a grant's configuration by itself.
func (c GrantConfig) Validate(name string) []Problem {
	var problems []Problem
	add := func(path, format string, args ...any) {
		problems = append(problems, Problem{path, fmt.Sprintf(format, args...)})
	}
	if !isName(name) {
		add("", "%q is not a name for a grant: use letters, digits, '-', '_' and '.', at most 100", name)
	}
	if c.Policy == "" {
		add("policy", "is missing: a grant without a policy would be guarded by nothing; name a Rego package")
	}
	if !slices.Contains([]string{"", required, bound, optional, none}, c.Runner) {
		add("runner", "is %q; write required, bound, optional or none", c.Runner)
	}
	if len(c.RunnerFrom) > 0 && c.Runner == none {
		add("runner_from", "names runners that may be shown, and runner is none; remove one of the two")
	}
	switch {
	case c.Assurance < 0 || c.Assurance > 4:
		add("assurance", "is %d; write a level from 1 to 4", c.Assurance)
	case c.Assurance != 0 && c.Runner != "" && c.Runner != required && c.Runner != bound:
		add("assurance", "is the least proof of a runner that is required, and runner is %s; write runner: required, or compare input.runner.assurance in the policy", c.Runner)
	}
	for _, p := range c.Credential.Validate() {
		add("credential."+p.Path, "%s", p.Message)
	}
	if c.MaxTTL < 0 || c.MaxTTL > pass.MaxTTL {
		add("max_ttl", "is %s; write a lifetime up to 24h, as 15m", c.MaxTTL)
	}
	return problems
}

// NewGrant makes a grant of a valid configuration.
func NewGrant(name string, c GrantConfig, minter *credential.Minter) (*Grant, error) {
	if problems := c.Validate(name); len(problems) > 0 {
		return nil, fmt.Errorf("grants.%s.%s %s", name, problems[0].Path, problems[0].Message)
	}
	offer, err := minter.Offer(name, c.Credential, c.MaxTTL)
	if err != nil {
		return nil, err
	}
	if c.Resource.Name == "" {
		c.Resource.Name = name
	}
	return &Grant{Name: name, Resource: c.Resource, Policy: c.Policy, Offer: offer, demands: c.demands()}, nil
}

func (c GrantConfig) demands() demands {
	return demands{runner: cmp.Or(c.Runner, required), from: c.RunnerFrom, callers: c.Callers,
		assurance: cmp.Or(c.Assurance, defaultAssurance)}
}

// Accepts says what the grant would say of a runner, before any policy: nil if it
// would do. It is for doctor; the flow asks the grant.
func (c GrantConfig) Accepts(job identity.Job, run runner.Runner) error {
	d := c.demands()
	return d.accepts(job, d.counted(run))
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// Refusals that only a grant's demand on the runner raises.
const (
	// CodeRunnerUnbound: the runner proved itself, and nothing ties the job to it.
	CodeRunnerUnbound proviso.Code = "runner_unbound" // 400 invalid_request
	// CodeRunnerEntry: the runner proved itself in a trust domain, or by a kind of
	// evidence, that this grant doesn't take.
	CodeRunnerEntry proviso.Code = "runner_entry" // 400 invalid_request
	// CodeCallerNotAllowed: who asks is a workload without a job, and the grant
	// isn't for it.
	CodeCallerNotAllowed proviso.Code = "caller_not_allowed" // 400 invalid_request
)

// counted gives the runner that counts for the grant. The CI platform's word,
// which comes with every job's token and which nobody sent, is nothing to a grant
// that names other entries: its job has shown no runner, and is refused only
// where one is wanted. A runner that was shown is never passed over.
func (g demands) counted(run runner.Runner) runner.Runner {
	if run.Attestation() == runner.AttestationPlatform && len(g.from) > 0 && !slices.Contains(g.from, run.Name()) {
		return runner.Runner{}
	}
	return run
}

// accepts holds the grant's demands on who asks and on the runner. A workload
// that asks for itself is proved by its own SVID and has no runner; where the
// grant wants a job that is bound, it has to hold the SVID's key.
func (g demands) accepts(job identity.Job, run runner.Runner) error {
	if id := job.Identity(); id.Kind == identity.KindSPIFFE {
		switch {
		case !slices.Contains(g.callers, job.Issuer()):
			return proviso.Refuse(proviso.StageJob, CodeCallerNotAllowed,
				"this grant is given to jobs, and not to workloads of %s that ask for themselves; the grant names under callers whose may", job.Issuer())
		case g.runner == bound && id.Attestation != runner.AttestationX509 && job.Confirmation() == "":
			return proviso.Refuse(proviso.StageRunner, CodeRunnerUnbound,
				"this grant is given only to who holds the key of its evidence, and a JWT-SVID serves whoever has it: ask by mutual TLS with the X.509-SVID")
		}
		return nil
	}
	wanted := g.runner == required || g.runner == bound
	switch {
	case wanted && run.IsZero():
		return proviso.Refuse(proviso.StageRunner, proviso.CodeRunnerRequired,
			"this grant is given only to a job whose runner proves itself, and no runner's evidence was sent: send its JWT-SVID as actor_token, or its X.509-SVID as TLS client certificate")
	case !run.IsZero() && len(g.from) > 0 && !slices.Contains(g.from, run.Name()):
		return proviso.Refuse(proviso.StageRunner, CodeRunnerEntry,
			"this grant takes runners of %s, and this one is of %s", strings.Join(g.from, ", "), run.Name())
	case g.runner == bound && !run.Bound():
		return proviso.Refuse(proviso.StageRunner, CodeRunnerUnbound,
			"this grant is given only to a job that is tied to its runner, and nothing ties this job's token to this runner's evidence (%s): send the token over mutual TLS with the runner's X.509-SVID, or with a key that both name", run.Attestation())
	case wanted && run.Assurance() < g.assurance:
		return proviso.Refuse(proviso.StageRunner, CodeRunnerAssurance,
			"this grant wants a runner proved with assurance %d or more, and this one's evidence (%s) has %d: send stronger evidence", g.assurance, run.Attestation(), run.Assurance())
	case g.runner == none && !run.IsZero() && run.Attestation() != runner.AttestationPlatform: // which nobody sent
		return proviso.Refuse(proviso.StageRunner, proviso.CodeRunnerNotAllowed,
			"this grant takes no runner's evidence, and some was sent: leave it out, or have the grant changed to runner: optional")
	}
	return nil
}

// approved holds the policy's demand for approvals. Nobody can approve yet, so
// a policy that wants an approval allows nothing.
func approved(v policy.Verdict) error {
	if n := v.Limits().Approvals; n > 0 {
		return proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyDenied,
			"policy wants the approval of %d people, and this broker has no way to give one yet", n)
	}
	return nil
}
