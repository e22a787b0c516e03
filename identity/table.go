package identity

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/jose"
)

// platform is one row of the claims table: everything that Proviso knows of a
// CI platform's tokens. docs/platforms.md says where each fact comes from and
// what the row can't know.
type platform struct {
	name  string // in the configuration
	title string // for people

	// issuers are the forms of the platform's issuer URLs; the first that fits
	// says who can get a token of that issuer.
	issuers []issuerForm
	// pins are claims that name a tenant or something of a tenant's for good.
	// require must pin one of them when strangers share the issuer.
	pins []string
	// demands are claims that require must name in any case.
	demands []demand

	audience audienceRule
	// job are claims that only a job's token has. Without any, noJob says what
	// stands for it.
	job   []string
	noJob string
	// noSubject: administrators can remove sub from the token.
	noSubject bool

	// jwksURL is where the keys are, if not on the issuer's own host.
	jwksURL string
	// kidIsNoKey: a kid names something that outlives its key.
	kidIsNoKey bool

	replay string
	// maxAge is the default for how long after iat a token is taken. Platforms
	// that give a job its token at the start are no exception: exchange first.
	maxAge time.Duration
	// maxLife bounds exp minus iat. It is what the platform documents, and more
	// is a sign that the token is something else.
	maxLife    time.Duration
	algorithms []jose.Alg

	events eventRule
	fields []field
	// open: administrators decide which claims there are, so the configuration
	// may map more of them.
	open bool
	// askClaims tells a job's author how to get claims that are optional.
	askClaims string

	// settle fills what needs more than one claim; agree compares claims that
	// say the same. Either may be nil.
	settle func(*claims, *Identity)
	agree  func(*claims, *Identity)
}

// tenancy says who can get a token of an issuer.
type tenancy uint8

const (
	// own: one tenant runs the issuer, or its URL holds the tenant's immutable
	// identifier.
	own tenancy = iota
	// named: one tenant's issuer, found by a name that can be given up and taken
	// over by somebody else. A pin is advised.
	named
	// shared: any customer of the platform. A pin is demanded.
	shared
)

// issuerForm is a form of issuer URLs. HOST, SLUG, UUID, ACCOUNT and /PATH
// stand for what they say; everything else is literal.
type issuerForm struct {
	form    string
	tenancy tenancy
}

// demand is a claim that require must name, with the reason.
type demand struct{ claim, why string }

// audienceRule says how a platform's audience comes about.
type audienceRule struct {
	// fixed gives the audience of an issuer's tokens where the platform decides
	// it; nil where the job chooses. In both cases there is exactly one: no
	// platform of this table makes it impossible to have one only.
	fixed func(issuer string) string
	// ask tells a job's author how to get a token with the wanted audience.
	ask string
}

// eventRule says how a platform names what started a job, and which starts run
// code that a trusted person has let in.
type eventRule struct {
	// claim is where the event stands. Without claim, settle may set one.
	claim string
	// silent: an ordinary job has no event; settle sets one for the traps, and
	// names in the configuration widen to those.
	silent bool
	// tellsPulls: the token of a pull request's job can be told from others.
	tellsPulls bool
	// allow is the default allow-list.
	allow []string
	// pull are the events of pull and merge requests.
	pull []string
	// outside are other events that somebody without write access can cause, or
	// in which a person sits at the machine.
	outside []string
	// known are further events that the platform documents.
	known []string
}

// named reports whether the platform's tokens tell anything about triggers.
func (e eventRule) named() bool { return e.claim != "" || e.silent || len(e.allow) > 0 }

func (e eventRule) knows(name string) bool {
	return slices.Contains(e.allow, name) || slices.Contains(e.pull, name) ||
		slices.Contains(e.outside, name) || slices.Contains(e.known, name)
}

// field is one mapping from a claim to a member of Identity, whose class is in
// targets. Of two mappings to one member the first that has a value counts.
type field struct {
	to    string // the member's name in the policy's input
	class class  // of the member, from targets
	claim claimName
	must  bool // its absence refuses the token
}

const (
	must = true
	may  = false
)

// from maps a claim, or what lies at a JSON pointer, to a member.
func from(claim, to string, needed bool) field {
	return field{to: to, class: targets[to], claim: parseClaimName(claim), must: needed}
}

// targets are the members of Identity that a mapping may fill, with their class.
var targets = map[string]class{
	"repository": repo, "repository_id": ident, "owner_id": ident,
	"ref": gitRef, "ref_type": word, "branch": gitRef, "tag": gitRef, "commit": commit,
	"event": word, "pull_request": truth, "protected": truth,
	"workflow": text, "workflow_id": ident, "job_workflow": text, "environment": text,
	"run_id": ident, "run_attempt": count, "job_id": ident,
	"actor": text, "actor_id": ident,
	"platform_runner.id": ident, "platform_runner.environment": text,
	"platform_runner.cluster": ident, "platform_runner.queue": ident,
}

// table holds the rows, in the order of the documentation.
var table = []*platform{
	&github, &gitlab, &forgejo,
	&buildkite, &circleci, &bitbucket, &azureDevOps, &jenkins, &codefresh, &semaphore, &harness,
	&hcpTerraform, &spacelift, &cloudBuild, &generic,
}

func platformNamed(name string) *platform {
	for _, p := range table {
		if p.name == name {
			return p
		}
	}
	return nil
}

// PlatformNames lists what IssuerConfig.Platform may say.
func PlatformNames() []string {
	names := make([]string, len(table))
	for i, p := range table {
		names[i] = p.name
	}
	return names
}

// Common values of rows.
const (
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
)

var rs256 = []jose.Alg{jose.RS256}

// matches reports whether url has this form.
func (f issuerForm) matches(url string) bool { return formPatterns[f.form].MatchString(url) }

// formPatterns are the forms of all rows as anchored patterns, made once.
var formPatterns = func() map[string]*regexp.Regexp {
	parts := strings.NewReplacer(
		"HOST", `[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?`,
		"UUID", `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
		"SLUG", `[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?`,
		"ACCOUNT", `[A-Za-z0-9_-]+`,
		"/PATH", `(?:/[A-Za-z0-9._~%-]+)*`,
	)
	patterns := map[string]*regexp.Regexp{}
	for _, p := range table {
		for _, f := range p.issuers {
			patterns[f.form] = regexp.MustCompile(`\A` + parts.Replace(regexp.QuoteMeta(f.form)) + `\z`)
		}
	}
	return patterns
}()

// tenancyOf says who can get a token of this issuer, if the URL has a form of
// the platform's.
func (p *platform) tenancyOf(url string) (tenancy, bool) {
	for _, f := range p.issuers {
		if f.matches(url) {
			return f.tenancy, true
		}
	}
	return shared, false
}

// strictest is the tenancy that an issuer of unknown form is treated as.
func (p *platform) strictest() tenancy {
	t := own
	for _, f := range p.issuers {
		t = max(t, f.tenancy)
	}
	return t
}

func (p *platform) forms() string {
	forms := make([]string, len(p.issuers))
	for i, f := range p.issuers {
		forms[i] = f.form
	}
	return strings.Join(forms, " or ")
}
