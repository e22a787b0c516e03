package identity

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/jose"
)

// Bounds of the configuration.
const (
	maxConfiguredAge = 24 * time.Hour
	longAge          = time.Hour // longer is a finding
)

// Check looks at a configuration without connecting to anything. A problem
// keeps the broker from starting; a finding is told and lived with.
func Check(issuers []IssuerConfig, audience string) (problems, findings Problems) {
	_, problems, findings = checkAll(issuers, audience)
	return problems, findings
}

// checker looks at one issuer's configuration and makes the checked form of it.
type checker struct {
	conf     IssuerConfig
	row      *platform
	tenancy  tenancy
	path     string
	out      *issuer
	problems Problems
	findings Problems
}

func checkAll(confs []IssuerConfig, audience string) (out []*issuer, problems, findings Problems) {
	if audience == "" {
		problems = append(problems, Problem{"server.url", proviso.CodeConfigAudienceMissing,
			"the broker has no URL, and so job tokens no audience to carry; write the address under which jobs reach it"})
	}
	names, urls := map[string]int{}, map[string]int{}
	for i, conf := range confs {
		c := &checker{conf: conf, path: fmt.Sprintf("issuers[%d]", i), out: &issuer{broker: audience, conf: conf}}
		c.check()
		if first, dup := names[conf.Name]; dup {
			c.problem(proviso.CodeConfigDuplicateIssuer, "name", "issuers[%d] has the name %s already; give each its own", first, quoted(conf.Name))
		}
		if first, dup := urls[conf.URL]; dup {
			c.problem(proviso.CodeConfigDuplicateIssuer, "url", "issuers[%d] has this url already; a token could not say which of the two it is for. "+
				"Write one entry, list all tenants' identifiers under require, and tell them apart with tenant_claim", first)
		}
		names[conf.Name], urls[conf.URL] = i, i
		problems = append(problems, c.problems...)
		findings = append(findings, c.findings...)
		out = append(out, c.out)
	}
	return out, problems, findings
}

func (c *checker) problem(code proviso.Code, field, message string, args ...any) {
	c.problems = append(c.problems, Problem{c.at(field), code, fmt.Sprintf(message, args...)})
}

func (c *checker) wrong(field, message string, args ...any) {
	c.problem(CodeConfigIssuer, field, message, args...)
}

func (c *checker) finding(field, message string, args ...any) {
	c.findings = append(c.findings, Problem{c.at(field), CodeConfigIssuer, fmt.Sprintf(message, args...)})
}

func (c *checker) at(field string) string { return c.path + "." + field }

func (c *checker) check() {
	if !isName(c.conf.Name) {
		c.wrong("name", "%s is not a name; write letters, digits and dashes, at most 64, as github-acme", quoted(c.conf.Name))
	}
	c.row = platformNamed(c.conf.Platform)
	if c.row == nil {
		c.wrong("platform", "%s is not a platform; write one of %s", quoted(c.conf.Platform), strings.Join(PlatformNames(), ", "))
		return
	}
	c.out.name, c.out.row, c.out.url, c.out.role = c.conf.Name, c.row, c.conf.URL, c.conf.Role
	c.checkURL()
	c.checkKeys()
	c.checkClaims()
	c.checkRequire()
	c.checkTenant()
	c.checkEvents()
	c.checkAudience()
	c.checkAlgorithms()
	c.checkReplay()
}

func isName(s string) bool { return s != "" && len(s) <= 64 && consists(s, "-_") }

// checkURL finds out who can get a token of this issuer.
func (c *checker) checkURL() {
	raw := c.conf.URL
	if strings.ContainsAny(raw, "*?{}") {
		c.problem(proviso.CodeConfigIssuerWildcard, "url", "an issuer is one exact URL; write each issuer as an entry of its own")
		return
	}
	u, err := url.Parse(raw)
	if raw == "" || err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Host != strings.ToLower(u.Host) ||
		u.Scheme != "https" && u.Scheme != "http" {
		c.problem(proviso.CodeConfigIssuerURL, "url", "%s is not an issuer; write it as the tokens' iss has it: %s", quoted(raw), c.row.forms())
		return
	}
	loopback := isLoopback(u.Hostname())
	if u.Scheme == "http" && !(loopback && c.conf.AllowPrivate) {
		c.problem(proviso.CodeConfigIssuerURL, "url", "an issuer's keys must not travel over plain HTTP; write https://")
		return
	}
	var known bool
	if c.tenancy, known = c.row.tenancyOf("https" + strings.TrimPrefix(raw, u.Scheme)); !known {
		// An imitation on this machine, for tests and demonstrations: it may have
		// any form, and is held to the strictest rules of the platform.
		if c.tenancy = c.row.strictest(); !loopback || !c.conf.AllowPrivate {
			c.problem(proviso.CodeConfigIssuerURL, "url", "%s is not an issuer of %s; its issuers look like %s", quoted(raw), c.row.title, c.row.forms())
		}
	}
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c *checker) checkKeys() {
	if c.conf.JWKSURL != "" && c.conf.JWKSFile != "" {
		c.wrong("jwks_file", "jwks_url is set too; keep one of them")
	}
	if raw := c.conf.JWKSURL; raw != "" {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
			u.Scheme != "https" && !(u.Scheme == "http" && c.conf.AllowPrivate && isLoopback(u.Hostname())) {
			c.problem(proviso.CodeConfigIssuerURL, "jwks_url", "%s is not the address of a key set; write an https:// URL", quoted(raw))
		}
	}
	if c.conf.JWKSFile != "" && c.conf.CAFile != "" {
		c.wrong("ca_file", "with the keys in jwks_file nothing is fetched; leave ca_file out")
	}
}

// checkClaims makes the fields: the row's, and what the operator maps.
func (c *checker) checkClaims() {
	c.out.fields = slices.Clone(c.row.fields)
	if len(c.conf.Claims) > 0 && !c.row.open {
		c.wrong("claims", "the claims of %s are known; leave claims out. A policy reads others as input.identity.claims", c.row.title)
		return
	}
	for _, to := range slices.Sorted(maps.Keys(c.conf.Claims)) {
		at, name := "claims."+to, c.conf.Claims[to]
		if _, ok := targets[to]; !ok {
			c.wrong(at, "%s is not a member of identity that can be mapped; those are %s", quoted(to), strings.Join(slices.Sorted(maps.Keys(targets)), ", "))
			continue
		}
		if name == "" || name == "/" {
			c.wrong(at, "write the claim's name, or a JSON pointer as /job/name")
			continue
		}
		// What is mapped to tell jobs and triggers apart has to be there.
		needed := to == "event" || to == "run_id" && c.row == &generic
		c.out.fields = append(c.out.fields, from(name, to, needed))
	}
	for _, name := range c.row.job {
		c.out.job = append(c.out.job, topLevel(name))
	}
	if c.row == &generic {
		if run := c.conf.Claims["run_id"]; run != "" {
			c.out.job = append(c.out.job, parseClaimName(run))
		} else {
			c.wrong("claims", "map run_id to a claim that only a job's token has, so that the issuer's other tokens are refused: {run_id: ...}")
		}
	}
}

// checkRequire makes the pins.
func (c *checker) checkRequire() {
	pinned := false
	for _, name := range slices.Sorted(maps.Keys(c.conf.Require)) {
		values, at := c.conf.Require[name], "require."+name
		if len(values) == 0 {
			c.wrong(at, "no value would be accepted; write the wanted value, or leave the claim out")
		}
		exact := true
		for _, v := range values {
			body, isPattern := strings.CutSuffix(v, "/*")
			exact = exact && !isPattern
			switch {
			case v == "" || isPattern && body == "":
				c.wrong(at, "an empty value can't be required; write the wanted value")
			case strings.Contains(body, "*"):
				c.wrong(at, "%s is a pattern; values are exact, apart from a trailing /* for one more segment", quoted(v))
			}
		}
		if exact && slices.Contains(c.row.pins, name) || c.row == &generic && exact {
			pinned = true
		}
		c.out.pins = append(c.out.pins, pin{claim: parseClaimName(name), values: values})
	}
	for _, d := range c.row.demands {
		if _, ok := c.conf.Require[d.claim]; !ok {
			c.wrong("require", "name the claim %s: %s", d.claim, d.why)
		}
	}
	switch {
	case pinned:
	case c.row == &generic:
		c.problem(CodeConfigIssuerUnpinned, "require", "pin at least one claim to an exact value: of an issuer that isn't known nobody can say who gets its tokens")
	case c.tenancy == shared:
		c.problem(CodeConfigIssuerUnpinned, "require", "anybody can get a token of %s; pin one of %s to your own exact value", c.conf.URL, strings.Join(c.row.pins, ", "))
	case c.tenancy == named && len(c.row.pins) > 0:
		c.finding("require", "this issuer is found by a name that somebody else could take over one day; pin one of %s", strings.Join(c.row.pins, ", "))
	case len(c.conf.Require) == 0:
		c.finding("require", "every job of this issuer may ask; if not all of its users are yours, pin a claim")
	}
}

func (c *checker) checkTenant() {
	c.out.tenant = c.conf.Tenant
	if c.conf.Tenant != "" && !text.takes(c.conf.Tenant) {
		c.wrong("tenant", "%s can't be a tenant; write one line of text", quoted(c.conf.Tenant))
	}
	if c.conf.Role != "" && !text.takes(c.conf.Role) {
		c.wrong("role", "%s can't be a role; write one line of text", quoted(c.conf.Role))
	}
	name := c.conf.TenantClaim
	if name == "" {
		return
	}
	if c.conf.Tenant != "" {
		c.wrong("tenant_claim", "tenant is set too; keep one of them")
	}
	c.out.tenantClaim = parseClaimName(name)
	_, required := c.conf.Require[name]
	if !required && !slices.Contains(c.row.pins, name) && c.row != &generic {
		c.finding("tenant_claim", "%s is neither pinned under require nor an immutable identifier of %s (%s); whoever may rename the one may change the tenant",
			name, c.row.title, strings.Join(c.row.pins, ", "))
	}
}

func (c *checker) checkEvents() {
	rule := c.row.events
	_, mapped := c.conf.Claims["event"]
	names := rule.named() || mapped
	c.out.events = rule.allow
	if len(c.conf.Events) == 0 {
		if mapped {
			c.wrong("events", "claims maps event, so say which events may ask, as [push, schedule]")
		} else if !names {
			c.finding("events", "the tokens don't say what started a job, so pull requests and hand-started jobs may ask too")
		}
		return
	}
	if !names {
		c.wrong("events", "the tokens of %s don't say what started a job; leave events out", c.row.title)
		return
	}
	c.out.events = c.conf.Events
	for i, name := range c.conf.Events {
		at := fmt.Sprintf("events[%d]", i)
		switch {
		case name == "" || !word.takes(name):
			c.wrong(at, "%s is not an event; events are exact words, as %s", quoted(name), strings.Join(append(rule.allow, rule.pull...), ", "))
		case slices.Contains(rule.pull, name):
			c.finding(at, "jobs of pull requests may ask, and their code may be anybody's; give them read-only grants, with a policy on identity.pull_request")
		case slices.Contains(rule.outside, name):
			c.finding(at, "%s can be caused, or its code chosen, without anybody's review; keep it from grants that matter with a policy on identity.event", name)
		case !mapped && !rule.knows(name):
			c.finding(at, "%s is not an event that %s is known to send; is it spelt right?", quoted(name), c.row.title)
		}
	}
}

func (c *checker) checkAudience() {
	c.out.audience = c.out.broker
	if c.row.audience.fixed == nil {
		if c.conf.Audience != "" {
			c.wrong("audience", "jobs of %s choose the audience, and it must be this broker's own (%s); leave audience out", c.row.title, c.out.broker)
		}
		return
	}
	c.out.audience = c.row.audience.fixed(c.conf.URL)
	if c.conf.Audience != "" {
		c.out.audience = c.conf.Audience
	}
	c.out.audienceFixed = c.out.audience != c.out.broker
}

func (c *checker) checkAlgorithms() {
	c.out.algorithms = c.row.algorithms
	if len(c.conf.Algorithms) == 0 {
		return
	}
	c.out.algorithms = nil
	for i, name := range c.conf.Algorithms {
		alg := jose.Alg(name)
		if !alg.Known() {
			c.wrong(fmt.Sprintf("algorithms[%d]", i), "%s is not an algorithm that is taken; write RS256, or another signature with a public key", quoted(name))
		}
		c.out.algorithms = append(c.out.algorithms, alg)
	}
}

func (c *checker) checkReplay() {
	c.out.replay = c.row.replay
	switch c.conf.Replay {
	case "":
	case ReplayJTI, ReplayToken:
		c.out.replay = c.conf.Replay
	case ReplayOff:
		c.out.replay = ReplayOff
		c.finding("replay", "a token may be used any number of times until it expires; whoever reads it in a log can use it too. Leave replay out")
	default:
		c.wrong("replay", "%s is not a way to recognise a token; write jti, token or off", quoted(c.conf.Replay))
	}
	c.out.maxAge = c.row.maxAge
	if age := c.conf.MaxAge; age != 0 {
		c.out.maxAge = age
		switch {
		case age < time.Minute || age > maxConfiguredAge:
			c.wrong("max_age", "%v is not between 1m and 24h; write %v", age, c.row.maxAge)
		case age > longAge:
			c.finding("max_age", "a token is good for %v after it was made; let jobs exchange it sooner, and write at most %v", age, longAge)
		}
	}
}
