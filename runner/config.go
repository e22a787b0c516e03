package runner

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// Config is one entry of runners: a trust domain whose workloads may be runners,
// or evidence of another kind.
type Config struct {
	// Name is how grants, logs and messages call this entry. Unique.
	Name string `yaml:"name" json:"name"`
	// TrustDomain is the SPIFFE trust domain, as "runners.acme.example". Every
	// domain has exactly one entry: two would let one speak for the other.
	TrustDomain string `yaml:"trust_domain,omitempty" json:"trust_domain,omitempty"`
	// Bundle says where the domain's keys come from.
	Bundle Bundle `yaml:"bundle,omitempty" json:"bundle,omitzero"`
	// Path is the template that a runner's SPIFFE path must match, as
	// "/region/{region}/runner/{id}". A name in braces stands for exactly one
	// path segment; {id} is required and becomes input.runner.id, {region}
	// input.runner.region, any other name a member of input.runner.attributes.
	Path string `yaml:"path,omitempty" json:"path,omitempty"`
	// Paths are further templates; the first that matches counts.
	Paths []string `yaml:"paths,omitempty" json:"paths,omitempty"`
	// Environment becomes input.runner.environment: self-hosted (the default) or hosted.
	Environment string `yaml:"environment,omitempty" json:"environment,omitempty"`
	// Region becomes input.runner.region where no template names one.
	Region string `yaml:"region,omitempty" json:"region,omitempty"`
	// Attributes are fixed members of input.runner.attributes.
	Attributes map[string]string `yaml:"attributes,omitempty" json:"attributes,omitempty"`
	// Bind names the variable of the templates ("id", say) that is also the CI
	// platform's own identifier of the runner: GitLab's runner_id, Buildkite's
	// agent_id. A job whose token names another runner is then refused, and one
	// whose token names this one makes input.runner.bound true.
	Bind string `yaml:"bind,omitempty" json:"bind,omitempty"`
	// MaxX509Lifetime bounds notAfter - notBefore of an X.509-SVID. Default 24h.
	MaxX509Lifetime time.Duration `yaml:"max_x509_lifetime,omitempty" json:"max_x509_lifetime,omitempty"`
	// MaxJWTLifetime bounds what is left of a JWT-SVID when it is shown, and
	// exp - iat where it has an iat. Default 1h.
	MaxJWTLifetime time.Duration `yaml:"max_jwt_lifetime,omitempty" json:"max_jwt_lifetime,omitempty"`

	// Callers are workloads of this domain that may ask for themselves, without a
	// job. Nobody may unless listed.
	Callers []Caller `yaml:"callers,omitempty" json:"callers,omitempty"`

	EvidenceConfig `yaml:",inline"`
}

// Bundle is the source of a trust domain's keys: a file, a bundle endpoint or the
// Workload API, and never two of them, because bundles are never merged. The
// trust domain that the keys are believed for is the entry's own, whatever a
// bundle says.
type Bundle struct {
	// File is a bundle in SPIFFE's format: a JWK set with spiffe_sequence. It is
	// read again when it changes. A bundle that is malformed, or whose sequence
	// is lower than the last one's, is refused loudly and the last good one
	// stays, for max_stale. Beside url with the profile https_spiffe it is the
	// bundle that the endpoint is known by at first; no SVID is verified with it.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
	// Own says that the trust domain is the broker's own, of the section
	// trust_domain: its keys are known without a file.
	Own bool `yaml:"own,omitempty" json:"own,omitempty"`
	// URL is the trust domain's bundle endpoint (SPIFFE Federation section 5),
	// as https://spire.partner.example:8443. It is asked as often as the bundle's
	// refresh hint says, at most every 10 seconds and at least every hour.
	// Redirects are not followed.
	URL string `yaml:"url,omitempty" json:"url,omitempty"`
	// Profile says how the endpoint proves itself: https_web, by a certificate of
	// the web for the URL's host, or https_spiffe, by an X.509-SVID.
	Profile string `yaml:"profile,omitempty" json:"profile,omitempty"`
	// EndpointSPIFFEID is the SPIFFE ID that an endpoint of the profile
	// https_spiffe must show. In the trust domain of this entry it needs file, to
	// begin with; in another one, that domain must have an entry of its own here.
	EndpointSPIFFEID string `yaml:"endpoint_spiffe_id,omitempty" json:"endpoint_spiffe_id,omitempty"`
	// CAFile has the certificates (PEM) that vouch for the host of an endpoint of
	// the profile https_web, in the place of the system's. Neither ever vouches
	// for an SVID.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// AllowPrivate lets the endpoint have a private or loopback address. Without
	// it the broker doesn't connect to one, whatever a name resolves to.
	AllowPrivate bool `yaml:"allow_private,omitempty" json:"allow_private,omitempty"`
	// WorkloadAPI is the address of a SPIFFE Workload API that knows the domain,
	// as unix:///run/spire/agent.sock: the domain's own agent, or that of a domain
	// which federates with it. The broker needs an entry there as a workload.
	// Changes come as they happen.
	WorkloadAPI string `yaml:"workload_api,omitempty" json:"workload_api,omitempty"`
	// MaxStale is how long the last good bundle serves when its source gives none
	// that can be taken: after that the domain's SVIDs are refused, until it does.
	// 1m to 168h, by default 24h.
	MaxStale time.Duration `yaml:"max_stale,omitempty" json:"max_stale,omitempty"`
}

// Words of Bundle.Profile.
const (
	profileWeb    = "https_web"
	profileSPIFFE = "https_spiffe"
)

// Bounds of Bundle.MaxStale.
const (
	shortestStale = time.Minute
	longestStale  = 7 * 24 * time.Hour
	defaultStale  = 24 * time.Hour
)

// ResolvePaths makes relative file names relative to dir.
func (c *Config) ResolvePaths(dir string) {
	for _, name := range []*string{&c.Bundle.File, &c.Bundle.CAFile} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(dir, *name)
		}
	}
	c.resolve(dir)
}

// Problem is one thing wrong with the configuration. Path begins below
// "runners", as "[0].trust_domain".
type Problem struct {
	Path, Message string
}

func (p Problem) Error() string { return "runners" + p.Path + " " + p.Message }

// Check finds what is wrong with a configuration without reading any file.
func Check(configs []Config) []Problem {
	var problems []Problem
	names, domains := map[string]int{}, map[string]int{}
	for i, cfg := range configs {
		bad := func(path, text string, args ...any) {
			problems = append(problems, Problem{fmt.Sprintf("[%d]%s", i, path), fmt.Sprintf(text, args...)})
		}
		if cfg.Name == "" {
			bad(".name", "is missing: it is how grants and logs call this entry")
		} else if j, dup := names[cfg.Name]; dup {
			bad(".name", "%q is the name of runners[%d] too", cfg.Name, j)
		}
		names[cfg.Name] = i
		if cfg.Environment != "" && cfg.Environment != "self-hosted" && cfg.Environment != "hosted" {
			bad(".environment", "is %q: self-hosted or hosted", cfg.Environment)
		}
		if cfg.checkEvidence(bad) {
			continue
		}
		td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
		switch {
		case err != nil:
			bad(".trust_domain", "%q is no trust domain's name: write it as runners.acme.example", cfg.TrustDomain)
		case td.Name() != cfg.TrustDomain:
			bad(".trust_domain", "write the bare name, %s", td.Name())
		}
		if j, dup := domains[cfg.TrustDomain]; dup {
			bad(".trust_domain", "%s is configured in runners[%d] too; give one entry several paths instead", cfg.TrustDomain, j)
		}
		domains[cfg.TrustDomain] = i
		checkBundle(cfg, func(td spiffeid.TrustDomain) bool {
			return slices.ContainsFunc(configs, func(c Config) bool { return c.TrustDomain == td.Name() })
		}, bad)
		if cfg.MaxX509Lifetime < 0 {
			bad(".max_x509_lifetime", "is negative")
		}
		if cfg.MaxJWTLifetime < 0 {
			bad(".max_jwt_lifetime", "is negative")
		}
		checkTemplates(cfg, bad)
		checkCallers(cfg, bad)
	}
	return problems
}

// checkBundle checks where a bundle comes from. known says which trust domains
// are configured.
func checkBundle(cfg Config, known func(spiffeid.TrustDomain) bool, bad func(path, text string, args ...any)) {
	b := cfg.Bundle
	switch {
	case b.Own && (b.URL != "" || b.WorkloadAPI != "" || b.File != ""):
		bad(".bundle.own", "is set beside another source: the keys of the broker's own trust domain come from nowhere else")
	case b.URL != "" && b.WorkloadAPI != "":
		bad(".bundle", "has url and workload_api: one source alone, because bundles are never merged")
	case b.File != "" && b.WorkloadAPI != "":
		bad(".bundle", "has file and workload_api: one source alone, because bundles are never merged")
	case !b.Own && b.File == "" && b.URL == "" && b.WorkloadAPI == "":
		bad(".bundle", "names no source: nothing can be verified without the trust domain's keys; write file, url, workload_api or own")
	}
	if b.MaxStale != 0 && (b.MaxStale < shortestStale || b.MaxStale > longestStale) {
		bad(".bundle.max_stale", "is %s; write a time from %s to %s", b.MaxStale, shortestStale, longestStale)
	}
	if b.WorkloadAPI != "" {
		if u, err := url.Parse(b.WorkloadAPI); err != nil || u.Scheme != "unix" || workloadapi.ValidateAddress(b.WorkloadAPI) != nil {
			bad(".bundle.workload_api", "%q is no address of a Workload API on this machine; write one as unix:///run/spire/agent.sock", b.WorkloadAPI)
		}
	}
	if b.URL != "" {
		checkEndpoint(cfg, known, bad)
		return
	}
	for _, m := range []struct {
		name string
		set  bool
	}{{"profile", b.Profile != ""}, {"endpoint_spiffe_id", b.EndpointSPIFFEID != ""}, {"ca_file", b.CAFile != ""}, {"allow_private", b.AllowPrivate}} {
		if m.set {
			bad(".bundle."+m.name, "belongs to a bundle endpoint, and there is no url; remove it")
		}
	}
}

func checkEndpoint(cfg Config, known func(spiffeid.TrustDomain) bool, bad func(path, text string, args ...any)) {
	b := cfg.Bundle
	u, err := url.Parse(b.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Contains(b.URL, "#") {
		bad(".bundle.url", "%q is no bundle endpoint; write its URL as https://spire.partner.example:8443, without user name and fragment", b.URL)
	}
	switch b.Profile {
	case profileWeb:
		if b.EndpointSPIFFEID != "" {
			bad(".bundle.endpoint_spiffe_id", "belongs to the profile https_spiffe; remove it, or change the profile")
		}
		if b.File != "" {
			bad(".bundle.file", "stands beside a url of the profile https_web, which needs none: bundles are never merged; remove it")
		}
		return
	case profileSPIFFE:
	default:
		bad(".bundle.profile", "is %q; write https_web if the endpoint's certificate is one of the web, https_spiffe if it is an X.509-SVID", b.Profile)
		return
	}
	if b.CAFile != "" {
		bad(".bundle.ca_file", "belongs to the profile https_web; an X.509-SVID is verified with a bundle; remove it")
	}
	id, err := spiffeid.FromString(b.EndpointSPIFFEID)
	switch own := err == nil && id.TrustDomain().Name() == cfg.TrustDomain; {
	case err != nil || id.Path() == "":
		bad(".bundle.endpoint_spiffe_id", "%q is no SPIFFE ID of an endpoint; write the one that it shows, as spiffe://partner.example/spire/server", b.EndpointSPIFFEID)
	case own && b.File == "":
		bad(".bundle.file", "is missing: the endpoint proves itself by an SVID of this very domain, which can be verified at first only with a bundle that you bring")
	case !own && b.File != "":
		bad(".bundle.file", "is a bundle of %s, and the endpoint proves itself in %s; remove it", cfg.TrustDomain, id.TrustDomain().Name())
	case !own && !known(id.TrustDomain()):
		bad(".bundle.endpoint_spiffe_id", "is in the trust domain %s, which has no entry here to be verified by", id.TrustDomain().Name())
	}
}

func checkTemplates(cfg Config, bad func(path, text string, args ...any)) {
	if cfg.Path == "" && len(cfg.Paths) == 0 && len(cfg.Callers) == 0 {
		bad(".path", "is missing: without a template no path is a runner's; write /region/{region}/runner/{id}")
	}
	var parsed []template
	names := slices.Sorted(maps.Keys(cfg.Attributes))
	for i, text := range cfg.templates() {
		where := ".path"
		if cfg.Path == "" {
			where = fmt.Sprintf(".paths[%d]", i)
		} else if i > 0 {
			where = fmt.Sprintf(".paths[%d]", i-1)
		}
		t, err := parseTemplate(text)
		if err != nil {
			bad(where, "%q %v", text, err)
			continue
		}
		if cfg.Region != "" && t.has("region") {
			bad(".region", "is fixed, and %q names {region} too", text)
		}
		for _, name := range names {
			if t.has(name) && name != "id" && name != "region" {
				bad(".attributes."+name, "is fixed, and %q names {%s} too", text, name)
			}
		}
		if cfg.Bind != "" && !t.has(cfg.Bind) {
			bad(".bind", "names {%s}, which %q has not", cfg.Bind, text)
		}
		if slices.ContainsFunc(parsed, t.overlaps) {
			bad(where, "%q and an earlier template match the same paths, which would make them ambiguous", text)
		}
		parsed = append(parsed, t)
	}
	for _, name := range names {
		if name == "id" || name == "region" || !isName(name) {
			bad(".attributes."+name, "an attribute's name is lower-case letters, digits and underscores, and neither id nor region")
		}
	}
}

// templates gives all templates, those of Path first.
func (c Config) templates() []string {
	if c.Path == "" {
		return c.Paths
	}
	return append([]string{c.Path}, c.Paths...)
}
