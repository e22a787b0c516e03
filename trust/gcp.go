package trust

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// gcpProvider is a provider of a workload identity pool, wherever it is written.
type gcpProvider struct {
	file, pool, name  string
	line, issuerLine  int
	issuer            string
	audiences         []string
	audienceLine      int
	mapping           map[string]string // attribute.x, google.subject -> an expression over assertion
	condition         string
	conditionLine     int
	disabled, unknown bool
}

// attributes reads the mapping into what each attribute stands for: the name of a claim, "" for anything computed.
func (p *gcpProvider) claim(attribute string) string {
	return memberOf("assertion")(strings.TrimSpace(p.mapping[attribute]))
}

// gcpProvider records the trust of a provider.
func (s *scan) gcpProvider(p gcpProvider) {
	if p.disabled {
		return
	}
	t := Trust{File: p.file, Line: p.line, Kind: GCPProvider, Issuer: strings.TrimSuffix(p.issuer, "/"), PoolID: p.pool,
		Target: Target{"cloud/gcp", "workloadIdentityPools/" + firstOf(p.pool, "unknown") + "/providers/" + firstOf(p.name, "unknown")}}
	// Without allowed audiences only the provider's own full name is taken, which no other party asks for.
	t.Audiences, t.AudienceLine = p.audiences, p.audienceLine
	t.gcpClaims(p)
	if p.unknown {
		t.open(p.line, "the mapping of attributes can't be told from the files")
	}
	s.add(t)
}

// gcpClaims adds the condition of a provider.
func (t *Trust) gcpClaims(p gcpProvider) {
	if strings.TrimSpace(p.condition) == "" {
		return
	}
	claims := memberOf("assertion")
	attrs := memberOf("attribute")
	for _, c := range celConditions(p.condition, p.conditionLine, func(ref string) string {
		if ref == "google.subject" {
			return firstOf(p.claim("google.subject"), "google.subject")
		}
		if a := attrs(ref); a != "" {
			return firstOf(p.claim("attribute."+a), "attribute."+a)
		}
		return claims(ref)
	}) {
		t.add(c)
	}
}

// gcpFile reads exports of providers: one, a list, or {"workloadIdentityPoolProviders": [...]}.
func (s *scan) gcpFile(f *file) {
	for _, doc := range f.docs {
		eachMap(doc, func(n *node) {
			issuer := get(n, "oidc", "issuerUri")
			if issuer == nil {
				return
			}
			p := gcpProvider{file: f.name, line: n.Line, issuer: text(issuer), issuerLine: issuer.Line, mapping: make(map[string]string),
				audiences: texts(get(n, "oidc", "allowedAudiences")), condition: text(get(n, "attributeCondition")), disabled: text(get(n, "disabled")) == "true"}
			if c := get(n, "attributeCondition"); c != nil {
				p.conditionLine = c.Line
			}
			if m := poolProvider.FindStringSubmatch(text(get(n, "name"))); m != nil {
				p.pool, p.name = m[1], m[2]
			} else {
				p.name = firstOf(text(get(n, "name")), stem(f.name))
			}
			if m := get(n, "attributeMapping"); m != nil && m.Kind == yaml.MappingNode {
				for i := 0; i+1 < len(m.Content); i += 2 {
					p.mapping[m.Content[i].Value] = text(m.Content[i+1])
				}
			}
			s.mapProvider(p)
		})
	}
}

var (
	poolProvider = regexp.MustCompile(`workloadIdentityPools/([^/]+)/providers/([^/]+)`)
	// poolMember matches who of a pool is meant: principal://.../subject/S, principalSet://.../attribute.A/V, .../group/G, .../*
	poolMember = regexp.MustCompile(`^(principal|principalSet)://iam\.googleapis\.com/(.*?)/(subject/.+|attribute\.[A-Za-z0-9_]+/.*|group/.+|\*)$`)
	poolName   = regexp.MustCompile(`workloadIdentityPools/([^/]+)$`)
)

// mapProvider records a provider and keeps its mapping for the bindings.
func (s *scan) mapProvider(p gcpProvider) {
	s.mu.Lock()
	s.providers = append(s.providers, p)
	s.mu.Unlock()
	s.gcpProvider(p)
}

// gcpBinding is a member of a role, wherever it is written.
type gcpBinding struct {
	file, target, role, member string
	line                       int
}

// gcpPolicy reads exported IAM policies: {"bindings": [{"role", "members"}]}.
func (s *scan) gcpPolicy(f *file) {
	for _, doc := range f.docs {
		eachMap(doc, func(n *node) {
			role := text(get(n, "role"))
			for _, m := range list(get(n, "members")) {
				if strings.HasPrefix(text(m), "principal") && role != "" {
					s.bind(gcpBinding{file: f.name, target: stem(f.name), role: role, member: text(m), line: m.Line})
				}
			}
		})
	}
}

// bind keeps a binding until all providers are known.
func (s *scan) bind(b gcpBinding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = append(s.bound, b)
}

// bindings records the trusts of bindings: what the provider of the pool asks for, and what the binding adds.
func (s *scan) bindings() {
	for _, b := range s.bound {
		m := poolMember.FindStringSubmatch(b.member)
		if m == nil {
			continue
		}
		pool := ""
		if n := poolName.FindStringSubmatch(m[2]); n != nil {
			pool = n[1]
		} else if hole(m[2]) {
			pool = m[2]
		}
		providers := s.providersOf(pool)
		if len(providers) == 0 {
			s.gcpBound(b, gcpProvider{}, m[3], pool)
		}
		for _, p := range providers {
			s.gcpBound(b, p, m[3], pool)
		}
	}
}

// providersOf gives the providers of a pool, by its id.
func (s *scan) providersOf(pool string) []gcpProvider {
	var out []gcpProvider
	for _, p := range s.providers {
		if pool != "" && p.pool == pool {
			out = append(out, p)
		}
	}
	return out
}

func (s *scan) gcpBound(b gcpBinding, p gcpProvider, who, pool string) {
	if p.disabled {
		return
	}
	t := Trust{File: b.file, Line: b.line, Kind: GCPBinding, Issuer: strings.TrimSuffix(p.issuer, "/"), Target: Target{"cloud/gcp", b.target}, Gives: []string{b.role},
		Audiences: p.audiences, AudienceLine: b.line, PoolID: pool}
	if p.file == "" {
		t.open(b.line, "the provider of the pool is in none of the files")
	}
	t.gcpClaims(p)
	for i := range t.Conditions {
		t.Conditions[i].Inherited = true
	}
	kind, value, _ := strings.Cut(who, "/")
	switch kind {
	case "*":
	case "subject":
		t.add(Condition{Claim: firstOf(p.claim("google.subject"), "sub"), Match: Exact, Values: []string{value}, Line: b.line})
	case "group":
		t.add(Condition{Claim: firstOf(p.claim("google.groups"), "google.groups"), Match: Exact, Values: []string{value}, Line: b.line})
	default:
		claim := p.claim(kind)
		if name := strings.TrimPrefix(kind, "attribute."); claim == "" && p.mapping[kind] == "" && claimBounds[name] != (claimBounds[""]) {
			claim = name // the usual name for the usual claim
		}
		if claim == "" {
			t.add(Condition{Match: Expression, Values: []string{kind + " == " + value}, Line: b.line})
		} else {
			t.add(Condition{Claim: claim, Match: Exact, Values: []string{value}, Line: b.line})
		}
	}
	s.add(t)
}
