package runner

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// GCPConfig takes the identity tokens that Compute Engine's metadata server
// gives a machine (format=full), for this broker as audience.
type GCPConfig struct {
	// Projects are the ids of the projects whose machines are ours. Required:
	// anybody's machine gets a good token from Google.
	Projects []string `yaml:"projects" json:"projects"`
	// Zones, if there are any, are the only ones, as europe-west3-a.
	Zones []string `yaml:"zones,omitempty" json:"zones,omitempty"`
	// Instances, if there are any, are the numeric ids of the only machines.
	Instances []string `yaml:"instances,omitempty" json:"instances,omitempty"`
	// ServiceAccounts, if there are any, are the e-mail addresses of the only
	// service accounts that the machine may run as.
	ServiceAccounts []string `yaml:"service_accounts,omitempty" json:"service_accounts,omitempty"`
	// MaxAge is how old a token may be. Default 1h: the metadata server gives the
	// same token again until it is nearly over.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`

	KeySource `yaml:",inline"`
}

const (
	googleIssuer = "https://accounts.google.com"
	googleJWKS   = "https://www.googleapis.com/oauth2/v3/certs"
)

func (c *GCPConfig) kind() string { return AttestationGCP }

func (c *GCPConfig) check(bad badFunc) {
	needPins(bad, ".projects", "every machine of every customer gets such a token; write the ids of your own projects", c.Projects)
	for _, list := range []struct {
		path   string
		values []string
	}{{".zones", c.Zones}, {".instances", c.Instances}, {".service_accounts", c.ServiceAccounts}} {
		if len(list.values) > 0 {
			needPins(bad, list.path, "", list.values)
		}
	}
	checkAge(bad, c.MaxAge, time.Hour)
	c.KeySource.check(bad)
}

// checkAge wants an age between a second and the most that makes sense.
func checkAge(bad badFunc, age, most time.Duration) {
	if age < 0 || age > most {
		bad(".max_age", "is %s; write a time up to %s", age, most)
	}
}

func (c *GCPConfig) open(v *Verifier, e entry) error {
	source := c.KeySource
	if source.JWKSFile == "" && source.JWKSURL == "" {
		source.JWKSURL = googleJWKS // Google's discovery names another host than the issuer's
	}
	algorithms := []jose.Alg{jose.RS256}
	keys, err := source.open(v, googleIssuer, algorithms)
	if err != nil {
		return err
	}
	s := &statement{what: "the GCP identity token", issuer: googleIssuer, audience: v.audience, algorithms: algorithms,
		keys: keys, maxAge: cmp.Or(c.MaxAge, time.Hour), needExp: true}
	v.tell(e, c.kind(), keysState(keys))
	v.addBearer(AttestationGCP, s, func(claims document.Value) (Finding, error) { return c.admit(e, claims) })
	return nil
}

// admit holds the claims against the pins. A token of the standard format names
// no machine, only a service account, which can be used from anywhere.
func (c *GCPConfig) admit(e entry, claims document.Value) (Finding, error) {
	const what = "the GCP identity token"
	machine := claims.At("google", "compute_engine")
	if machine.Kind() != document.Object {
		return Finding{}, refuse(CodeEvidenceMalformed, "%s names no machine; ask the metadata server for it with format=full", what)
	}
	project, err := text(machine, what, "project_id")
	if err != nil {
		return Finding{}, err
	}
	zone, err := text(machine, what, "zone")
	if err != nil {
		return Finding{}, err
	}
	instance, err := text(machine, what, "instance_id")
	if err != nil {
		return Finding{}, err
	}
	email, _ := claims.Get("email").Text()
	if verified, ok := claims.Get("email_verified").Truth(); email != "" && (!ok || !verified) {
		return Finding{}, refuse(CodeEvidenceMalformed, "%s has an e-mail address that is not verified", what)
	}
	for _, pin := range []struct {
		what, value string
		ours        []string
		always      bool
	}{
		{"project", project, c.Projects, true}, {"zone", zone, c.Zones, false},
		{"instance", instance, c.Instances, false}, {"service account", email, c.ServiceAccounts, false},
	} {
		if (pin.always || len(pin.ours) > 0) && !slices.Contains(pin.ours, pin.value) {
			return Finding{}, notHere(CodeEvidencePin, "%s is genuine, and its %s %s is none that this broker's operator configured", what, pin.what, quoted(pin.value))
		}
	}
	found := map[string]string{"project": project, "zone": zone, "service_account": email}
	found["instance_name"], _ = machine.Get("instance_name").Text()
	if n, ok := machine.Get("project_number").Integer(); ok {
		found["project_number"] = strconv.FormatInt(n, 10)
	}
	// europe-west3-a is a zone of the region europe-west3.
	return e.finding(instance, zone[:max(strings.LastIndexByte(zone, '-'), 0)], found)
}
