package runner

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config is one trust domain whose workloads may be runners.
type Config struct {
	// Name is how grants, logs and messages call this entry. Unique.
	Name string `yaml:"name" json:"name"`
	// TrustDomain is the SPIFFE trust domain, as "runners.acme.example". Every
	// domain has exactly one entry: two would let one speak for the other.
	TrustDomain string `yaml:"trust_domain" json:"trust_domain"`
	// Bundle says where the domain's keys come from.
	Bundle Bundle `yaml:"bundle" json:"bundle"`
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
}

// Bundle is the source of a trust domain's keys. Exactly one member is set.
type Bundle struct {
	// File is a bundle in SPIFFE's format: a JWK set with spiffe_sequence. It is
	// read again when it changes. A bundle that is malformed, or whose sequence
	// is lower than the last one's, is refused loudly and the last good one stays.
	File string `yaml:"file,omitempty" json:"file,omitempty"`
	// Own says that the trust domain is the broker's own, of the section
	// trust_domain: its keys are known without a file.
	Own bool `yaml:"own,omitempty" json:"own,omitempty"`
}

// member is the name of the member that is set.
func (b Bundle) member() string {
	if b.Own {
		return "own"
	}
	return "file"
}

// ResolvePaths makes relative file names relative to dir.
func (c *Config) ResolvePaths(dir string) {
	if c.Bundle.File != "" && !filepath.IsAbs(c.Bundle.File) {
		c.Bundle.File = filepath.Join(dir, c.Bundle.File)
	}
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
			bad(".name", "is missing: it is how grants and logs call this trust domain")
		} else if j, dup := names[cfg.Name]; dup {
			bad(".name", "%q is the name of runners[%d] too", cfg.Name, j)
		}
		names[cfg.Name] = i
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
		switch {
		case cfg.Bundle.File == "" && !cfg.Bundle.Own:
			bad(".bundle.file", "is missing: nothing can be verified without the trust domain's keys")
		case cfg.Bundle.File != "" && cfg.Bundle.Own:
			bad(".bundle.own", "is set beside another source: the keys of the broker's own trust domain come from nowhere else")
		}
		if cfg.Environment != "" && cfg.Environment != "self-hosted" && cfg.Environment != "hosted" {
			bad(".environment", "is %q: self-hosted or hosted", cfg.Environment)
		}
		if cfg.MaxX509Lifetime < 0 {
			bad(".max_x509_lifetime", "is negative")
		}
		if cfg.MaxJWTLifetime < 0 {
			bad(".max_jwt_lifetime", "is negative")
		}
		checkTemplates(cfg, bad)
	}
	return problems
}

func checkTemplates(cfg Config, bad func(path, text string, args ...any)) {
	if cfg.Path == "" && len(cfg.Paths) == 0 {
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
