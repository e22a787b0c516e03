package identity

import (
	"fmt"
	"strings"
	"time"

	proviso "github.com/proviso-ci/proviso"
)

// ClockSkew is how far ahead of our clock a token's iat and nbf may lie. Expiry
// has no leeway: an expired token is expired.
const ClockSkew = 60 * time.Second

// How a job's token is recognised when it comes a second time.
const (
	ReplayJTI   = "jti"   // by issuer and jti; a token without jti is refused
	ReplayToken = "token" // by the hash of what was signed
	ReplayOff   = "off"   // not at all
)

// IssuerConfig is one entry under issuers: an OIDC issuer of a CI platform whose
// jobs may ask this broker. Everything is exact: no value is a pattern, apart
// from the trailing "/*" that require describes.
type IssuerConfig struct {
	// Name is how logs, metrics and the record call this issuer: letters, digits
	// and dashes, unique.
	Name string `yaml:"name" json:"name"`
	// Platform says which rules the tokens follow: github, gitlab, forgejo,
	// buildkite, circleci, bitbucket, azure-devops, jenkins, codefresh,
	// semaphore, harness, hcp-terraform, spacelift, google-cloud-build or generic.
	// docs/platforms.md has a section on each.
	Platform string `yaml:"platform" json:"platform"`
	// URL is the issuer, exactly as it stands in the tokens' iss. Keys are found
	// by OpenID Connect Discovery below it, unless jwks_url or jwks_file is set.
	URL string `yaml:"url" json:"url"`
	// Require pins claims: each one named must be in the token and have the value,
	// or one of the values. A value that ends in "/*" takes any one further
	// segment, so "github.com/acme/*" takes github.com/acme/app and neither
	// github.com/acme-evil/app nor github.com/acme/app/x. A claim inside of
	// another is written as a JSON pointer: "/kubernetes.io/namespace". An issuer
	// that a platform's customers share must be pinned to your tenant by one of
	// the platform's immutable identifiers.
	Require map[string]Values `yaml:"require,omitempty" json:"require,omitempty"`
	// Tenant becomes identity.tenant for all jobs of this issuer. Set this or
	// tenant_claim; with neither, the jobs have no tenant.
	Tenant string `yaml:"tenant,omitempty" json:"tenant,omitempty"`
	// TenantClaim names the claim that becomes identity.tenant. A token without
	// it is refused. Prefer an immutable identifier.
	TenantClaim string `yaml:"tenant_claim,omitempty" json:"tenant_claim,omitempty"`
	// Role becomes identity.role for all jobs of this issuer, as "ci-cd-pipeline".
	Role string `yaml:"role,omitempty" json:"role,omitempty"`
	// Events is the allow-list of triggers, in the platform's own words, and
	// replaces the platform's default. On platforms whose tokens name no trigger
	// for an ordinary job, ordinary jobs are always taken and the list adds the
	// special kinds that are refused otherwise.
	Events []string `yaml:"events,omitempty" json:"events,omitempty"`
	// Algorithms are the accepted signature algorithms; RS256 alone by default.
	Algorithms []string `yaml:"algorithms,omitempty" json:"algorithms,omitempty"`
	// Replay says how a token is recognised that comes a second time: jti, token
	// (the hash of what was signed, for platforms without jti) or off. The
	// platform's default is the right one.
	Replay string `yaml:"replay,omitempty" json:"replay,omitempty"`
	// MaxAge is how long after its iat a token is taken, whatever its exp says;
	// 10m by default, 24h at most.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
	// Audience is the audience of the platform's tokens, where the platform and
	// not the job decides it, if your installation's differs from the default.
	// Where a newer version of such a platform lets jobs choose, put the
	// broker's own URL here: that is better. Not allowed for other platforms.
	Audience string `yaml:"audience,omitempty" json:"audience,omitempty"`
	// JWKSURL is where the keys are, if the issuer has no discovery document.
	JWKSURL string `yaml:"jwks_url,omitempty" json:"jwks_url,omitempty"`
	// JWKSFile is a file with the issuer's keys, for an issuer that the broker
	// can't reach. Nothing is fetched; a new key needs a new file.
	JWKSFile string `yaml:"jwks_file,omitempty" json:"jwks_file,omitempty"`
	// Claims maps members of identity to claims, as {run_id: build, repository:
	// /project/path}. It makes up the platform generic, which must map run_id to
	// a claim that only a job's token has, and adds to jenkins what its claim
	// templates send.
	Claims map[string]string `yaml:"claims,omitempty" json:"claims,omitempty"`
	// AllowPrivate lets the issuer have a private or loopback address, for your
	// own GitLab, GitHub Enterprise Server or Jenkins. Without it the broker
	// doesn't connect to such an address, whatever a name resolves to.
	AllowPrivate bool `yaml:"allow_private,omitempty" json:"allow_private,omitempty"`
	// CAFile has the certificates (PEM) that vouch for the issuer's host, in the
	// place of the system's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
}

// Values is one text or a list of texts.
type Values []string

// UnmarshalYAML reads one text or a list of them. A number is refused rather
// than written as text, because YAML has several spellings for one number.
func (v *Values) UnmarshalYAML(unmarshal func(any) error) error {
	var raw any
	if err := unmarshal(&raw); err != nil {
		return err
	}
	list, isList := raw.([]any)
	if !isList {
		list = []any{raw}
	}
	*v = make(Values, 0, len(list))
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return fmt.Errorf("%v is not a text; write it in quotes: %q", item, fmt.Sprint(item))
		}
		*v = append(*v, s)
	}
	return nil
}

// Codes of configuration problems that the shared vocabulary had no word for.
const (
	CodeConfigIssuerUnpinned proviso.Code = "config_issuer_unpinned" // config: a shared issuer without a tenant's immutable identifier
	CodeConfigIssuer         proviso.Code = "config_issuer"          // config: any other value of an issuer that can't be used
)

// Problem is one thing that is wrong with the configuration, or, as a finding,
// allowed but weaker than it could be.
type Problem struct {
	// Path is where: "issuers[1].require.repository_owner_id".
	Path string
	// Code is the cause.
	Code proviso.Code
	// Message says what is wrong and what to write instead.
	Message string
}

func (p Problem) Error() string { return p.Path + ": " + p.Message }

// Problems are all that was found, in the order of the configuration.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}
