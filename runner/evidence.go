package runner

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// Refusals of evidence that is no SVID. What is wrong with a JWT has the codes
// that every JWT has.
const (
	// CodeEvidenceMalformed: it can't be read, or could be read in two ways.
	CodeEvidenceMalformed proviso.Code = "evidence_malformed" // 400 invalid_request
	// CodeEvidenceSignature: the signature doesn't hold.
	CodeEvidenceSignature proviso.Code = "evidence_signature" // 400 invalid_request
	// CodeEvidenceSigner: whoever signed is nobody who is believed here.
	CodeEvidenceSigner proviso.Code = "evidence_signer" // 400 invalid_request
	// CodeEvidencePin: it is genuine, and of a machine that isn't ours: another
	// account, project, subscription, service account.
	CodeEvidencePin proviso.Code = "evidence_not_ours" // 400 invalid_request
	// CodeEvidenceStale: it was made too long ago.
	CodeEvidenceStale proviso.Code = "evidence_stale" // 400 invalid_request
	// CodeEvidenceKey: the request proves no key, or not the evidence's.
	CodeEvidenceKey proviso.Code = "evidence_key" // 400 invalid_request
	// CodeEvidenceStatus: the verifier that signed it doesn't affirm the machine.
	CodeEvidenceStatus proviso.Code = "evidence_status" // 400 invalid_request
	// CodeEvidencePCR: the machine's measured software is not what is expected.
	CodeEvidencePCR proviso.Code = "evidence_pcr" // 400 invalid_request
)

// maxEvidence bounds one piece of evidence that is no JWT.
const maxEvidence = 32 << 10

// EvidenceConfig is evidence of a further kind. An entry of runners is either a
// trust domain, or has exactly one of these.
type EvidenceConfig struct {
	// AWS takes instance identity documents of EC2.
	AWS *AWSConfig `yaml:"aws,omitempty" json:"aws,omitempty"`
	// GCP takes instance identity tokens of Compute Engine.
	GCP *GCPConfig `yaml:"gcp,omitempty" json:"gcp,omitempty"`
	// Azure takes attested documents of Azure's virtual machines.
	Azure *AzureConfig `yaml:"azure,omitempty" json:"azure,omitempty"`
	// Kubernetes takes projected service-account tokens of a cluster.
	Kubernetes *KubernetesConfig `yaml:"kubernetes,omitempty" json:"kubernetes,omitempty"`
	// Platform takes the CI platform's own word about the runner, which is in the
	// job's token.
	Platform *PlatformConfig `yaml:"platform,omitempty" json:"platform,omitempty"`
	// TPM takes quotes of enrolled TPMs.
	TPM *TPMConfig `yaml:"tpm,omitempty" json:"tpm,omitempty"`
	// Attestation takes signed results of an attestation verifier.
	Attestation *AttestationConfig `yaml:"attestation,omitempty" json:"attestation,omitempty"`
}

// kindConfig is what the configuration of each kind can do.
type kindConfig interface {
	kind() string
	check(bad badFunc)
	files() []*string
	open(v *Verifier, e entry) error // adds the entry to its kind
}

// badFunc takes a problem at a path below the kind's key, as ".accounts".
type badFunc func(path, text string, args ...any)

// set gives the kinds that are configured; an entry has exactly one.
func (c *EvidenceConfig) set() []kindConfig {
	var out []kindConfig
	if c.AWS != nil {
		out = append(out, c.AWS)
	}
	if c.GCP != nil {
		out = append(out, c.GCP)
	}
	if c.Azure != nil {
		out = append(out, c.Azure)
	}
	if c.Kubernetes != nil {
		out = append(out, c.Kubernetes)
	}
	if c.Platform != nil {
		out = append(out, c.Platform)
	}
	if c.TPM != nil {
		out = append(out, c.TPM)
	}
	if c.Attestation != nil {
		out = append(out, c.Attestation)
	}
	return out
}

// Kind is the kind of evidence that the entry takes, as "aws"; "" for a trust
// domain's.
func (c Config) Kind() string {
	for _, k := range c.set() {
		return k.kind()
	}
	return ""
}

// checkEvidence checks an entry that is evidence of a further kind, and reports
// whether it is one.
func (c Config) checkEvidence(bad badFunc) bool {
	kinds := c.set()
	if len(kinds) == 0 {
		return false
	}
	if len(kinds) > 1 {
		bad("."+kinds[1].kind(), "is beside %s: an entry is one kind of evidence; write two entries", kinds[0].kind())
	}
	if c.TrustDomain != "" {
		bad(".trust_domain", "is beside %s: an entry is a trust domain or another kind of evidence; write two entries", kinds[0].kind())
	}
	for _, k := range kinds {
		k.check(func(path, text string, args ...any) { bad("."+k.kind()+path, text, args...) })
	}
	for _, name := range slices.Sorted(maps.Keys(c.Attributes)) {
		if !isName(name) {
			bad(".attributes."+name, "an attribute's name is lower-case letters, digits and underscores")
		}
	}
	return true
}

// entry is what all kinds take from their configuration entry.
type entry struct {
	name, environment, region string
	attributes                map[string]string
}

func newEntry(cfg Config) entry {
	e := entry{cfg.Name, cfg.Environment, cfg.Region, cfg.Attributes}
	if e.environment == "" {
		e.environment = "self-hosted"
	}
	return e
}

// finding gives a Finding of this entry. What was found can't be covered by
// what is configured: the operator's attributes give way.
func (e entry) finding(id, region string, found map[string]string) (Finding, error) {
	attributes := maps.Clone(e.attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	for name, value := range found {
		if value != "" {
			attributes[name] = value
		}
	}
	if region == "" {
		region = e.region
	}
	for what, value := range map[string]string{"identifier": id, "region": region} {
		if value != "" && !isValue(value) {
			return Finding{}, refuse(CodeEvidenceMalformed, "the evidence's %s %s has other characters than letters, digits, dots, dashes and underscores", what, quoted(value))
		}
	}
	if id == "" {
		return Finding{}, refuse(CodeEvidenceMalformed, "the evidence names no machine")
	}
	return Finding{Name: e.name, ID: id, Region: region, Environment: e.environment, Attributes: attributes}, nil
}

// openEvidence opens the entries of further kinds.
func (v *Verifier) openEvidence(configs []Config) (problems []error) {
	for i, cfg := range configs {
		for _, k := range cfg.set() {
			if err := k.open(v, newEntry(cfg)); err != nil {
				path := fmt.Sprintf("[%d].%s", i, k.kind())
				if in := new(fileError); errors.As(err, &in) {
					path += "." + in.member
				}
				problems = append(problems, Problem{path, err.Error()})
			}
		}
	}
	return problems
}

// verifyEntry verifies a piece of evidence as one entry of the configuration
// wants it, all of it: no entry relies on what another one looked at.
type verifyEntry func(context.Context, Shown) (Finding, error)

// addEntry adds an entry to its kind. The first entry that a piece of evidence
// belongs to decides.
func (v *Verifier) addEntry(kind string, verify verifyEntry) {
	if v.entries[kind] == nil {
		v.kinds = append(v.kinds, Kind{Name: kind, Verify: func(ctx context.Context, shown Shown) (Finding, error) {
			return verifyAny(ctx, v.entries[kind], shown)
		}})
	}
	v.entries[kind] = append(v.entries[kind], verify)
}

func verifyAny(ctx context.Context, entries []verifyEntry, shown Shown) (Finding, error) {
	if len(shown.Text) > maxEvidence {
		return Finding{}, refuse(proviso.CodeLimitsTokenSize, "the evidence has %d bytes, at most %d are taken", len(shown.Text), maxEvidence)
	}
	var first *elsewhere
	for _, verify := range entries {
		f, err := verify(ctx, shown)
		other := new(elsewhere)
		if !errors.As(err, &other) {
			return f, err
		}
		if first == nil || first.Code == CodeEvidenceMalformed { // of another form says less than of another machine
			first = other
		}
	}
	return Finding{}, first.Refusal
}

// elsewhere refuses evidence that doesn't belong to an entry, and may belong to
// another one: it is of another account, issuer or machine.
type elsewhere struct{ *proviso.Refusal }

func (e *elsewhere) Unwrap() error { return e.Refusal }

func notHere(code proviso.Code, public string, args ...any) *elsewhere {
	return &elsewhere{refuse(code, public, args...)}
}

// because adds the cause for the operator's log.
func (e *elsewhere) because(err error) error {
	e.Err = err
	return e
}

// fileError says which member of a kind's configuration names a bad file.
type fileError struct {
	member string
	err    error
}

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

// readCertificates reads certificates from a file.
func readCertificates(member, path string) ([]*x509.Certificate, error) {
	data, err := readFile(path, maxBundle)
	if err != nil {
		return nil, &fileError{member, err}
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, &fileError{member, fmt.Errorf("%s holds a %s; certificates are wanted", path, block.Type)}
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &fileError{member, fmt.Errorf("%s: %w", path, err)}
		}
		if err := checkStrength(cert.PublicKey); err != nil {
			return nil, &fileError{member, fmt.Errorf("%s: %w", path, err)}
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, &fileError{member, fmt.Errorf("%s holds no certificate in PEM", path)}
	}
	return out, nil
}

// KeySource is where the keys of an issuer of tokens lie.
type KeySource struct {
	// JWKSFile is a file with the issuer's JWK set, for an issuer that can't be
	// reached; a new file needs a restart.
	JWKSFile string `yaml:"jwks_file,omitempty" json:"jwks_file,omitempty"`
	// JWKSURL is where the keys lie, if the issuer's discovery document doesn't say.
	JWKSURL string `yaml:"jwks_url,omitempty" json:"jwks_url,omitempty"`
	// CAFile holds the authorities of the issuer's own TLS certificate, instead
	// of the system's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// AllowPrivate lets the issuer be in a private network or on this machine.
	AllowPrivate bool `yaml:"allow_private,omitempty" json:"allow_private,omitempty"`
}

func (k *KeySource) files() []*string { return []*string{&k.JWKSFile, &k.CAFile} }

func (k *KeySource) check(bad badFunc) {
	if k.JWKSFile != "" && (k.JWKSURL != "" || k.CAFile != "" || k.AllowPrivate) {
		bad(".jwks_file", "is beside jwks_url, ca_file or allow_private, which are about fetching the keys; write one or the other")
	}
	if k.JWKSURL != "" {
		if u, err := url.Parse(k.JWKSURL); err != nil || u.Host == "" || u.Scheme != "https" && !isLoopback(u.Hostname()) {
			bad(".jwks_url", "%q is no https URL", k.JWKSURL)
		}
	}
}

// open makes the source of an issuer's keys.
func (k *KeySource) open(v *Verifier, issuer string, algorithms []jose.Alg) (*keyset.Source, error) {
	if k.JWKSFile != "" {
		data, err := readFile(k.JWKSFile, maxBundle)
		if err != nil {
			return nil, &fileError{"jwks_file", err}
		}
		set, err := jose.ParseKeySet(data, algorithms)
		if err != nil {
			return nil, &fileError{"jwks_file", fmt.Errorf("%s: %w", k.JWKSFile, err)}
		}
		return keyset.Fixed(issuer, set, false), nil
	}
	cfg := keyset.Config{Issuer: issuer, JWKSURL: k.JWKSURL, Algorithms: algorithms, AllowPrivate: k.AllowPrivate, Now: v.now, Log: v.log}
	for _, raw := range []string{issuer, k.JWKSURL} {
		if u, err := url.Parse(raw); err == nil && k.AllowPrivate && isLoopback(u.Hostname()) {
			cfg.AllowLoopback = true
		}
	}
	if k.CAFile != "" {
		certs, err := readCertificates("ca_file", k.CAFile)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			cfg.RootCAs.AddCert(c)
		}
	}
	source, err := keyset.New(cfg)
	if err != nil {
		return nil, err
	}
	v.closers = append(v.closers, source.Close)
	v.issuers = append(v.issuers, source)
	return source, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// resolve makes the file names of the entry's kind absolute.
func (c *EvidenceConfig) resolve(dir string) {
	if c.AWS != nil {
		for region, name := range c.AWS.Regions {
			if name != "" && !filepath.IsAbs(name) {
				c.AWS.Regions[region] = filepath.Join(dir, name)
			}
		}
	}
	for _, k := range c.set() {
		for _, name := range k.files() {
			if *name != "" && !filepath.IsAbs(*name) {
				*name = filepath.Join(dir, *name)
			}
		}
	}
}

// needPins demands at least one value, and none that would be everybody.
func needPins(bad badFunc, path, why string, values []string) {
	if len(values) == 0 {
		bad(path, "is missing: %s", why)
	}
	for i, value := range values {
		if value == "" || strings.ContainsAny(value, "*?") {
			bad(fmt.Sprintf("%s[%d]", path, i), "is %q: pins are exact, write each value out", value)
		}
	}
}

// text reads a member of signed JSON that must be a text.
func text(doc document.Value, what string, path ...string) (string, error) {
	value := doc.At(path...)
	s, ok := value.Text()
	if !ok || s == "" {
		return "", refuse(CodeEvidenceMalformed, "%s has no text %s", what, strings.Join(path, "."))
	}
	return s, nil
}
