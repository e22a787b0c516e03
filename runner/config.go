package runner

import "time"

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
}
