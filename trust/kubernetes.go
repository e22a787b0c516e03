package trust

import (
	"strings"
)

// kubernetesFile reads the issuers of an AuthenticationConfiguration.
func (s *scan) kubernetesFile(f *file) {
	for _, doc := range f.docs {
		if text(get(doc, "kind")) != "AuthenticationConfiguration" {
			continue
		}
		for _, n := range list(get(doc, "jwt")) {
			t := Trust{File: f.name, Line: n.Line, Kind: Kubernetes, Target: Target{"k8s/cluster", "the cluster of " + stem(f.name)}, Issuer: strings.TrimSuffix(text(get(n, "issuer", "url")), "/"),
				Audiences: texts(get(n, "issuer", "audiences"))}
			if a := get(n, "issuer", "audiences"); a != nil {
				t.AudienceLine = a.Line
			}
			t.NoAudience = len(t.Audiences) == 0
			for _, r := range list(get(n, "claimValidationRules")) {
				if claim := text(get(r, "claim")); claim != "" {
					t.add(Condition{Claim: claim, Match: Exact, Values: []string{text(get(r, "requiredValue"))}, Line: r.Line})
				} else if e := get(r, "expression"); e != nil {
					for _, c := range celConditions(text(e), e.Line, memberOf("claims")) {
						t.add(c)
					}
				}
			}
			s.kubernetesUser(&t, n)
			s.add(t)
		}
	}
}

// user is how an issuer's tokens become users of a cluster.
type user struct {
	trust  Trust
	prefix string
	claim  string // "" when it is computed
}

// kubernetesUser keeps how the tokens of an issuer are called.
func (s *scan) kubernetesUser(t *Trust, n *node) {
	u := user{trust: *t, prefix: text(get(n, "claimMappings", "username", "prefix")), claim: text(get(n, "claimMappings", "username", "claim"))}
	if e := text(get(n, "claimMappings", "username", "expression")); e != "" {
		// "prefix:" + claims.sub, or claims.sub alone
		parts := splitTop(e, "+")
		if len(parts) == 2 {
			u.prefix, _ = literal(parts[0])
			u.claim = memberOf("claims")(strings.TrimSpace(parts[1]))
		} else {
			u.claim = memberOf("claims")(strings.TrimSpace(e))
		}
	}
	s.mu.Lock()
	s.users = append(s.users, u)
	s.mu.Unlock()
}

// rbacFile is a file with role bindings.
type rbacFile struct {
	name string
	docs []*node
}

// rbacFile keeps a file until the issuers are known.
func (s *scan) rbacFile(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rbac = append(s.rbac, rbacFile{f.name, f.docs})
}

// roles records the bindings of users that come from a CI's issuer.
func (s *scan) roles() {
	if len(s.users) == 0 {
		return
	}
	for _, f := range s.rbac {
		for _, doc := range f.docs {
			kind := text(get(doc, "kind"))
			if kind != "ClusterRoleBinding" && kind != "RoleBinding" {
				continue
			}
			role := text(get(doc, "roleRef", "kind")) + " " + text(get(doc, "roleRef", "name"))
			if ns := text(get(doc, "metadata", "namespace")); ns != "" {
				role += " in " + ns
			}
			for _, sub := range list(get(doc, "subjects")) {
				for _, u := range s.users {
					s.roleOf(f.name, role, sub, u)
				}
			}
		}
	}
}

// roleOf records one subject of a binding, when a token of the issuer can be it.
func (s *scan) roleOf(file, role string, sub *node, u user) {
	name := text(get(sub, "name"))
	t := Trust{File: file, Line: sub.Line, Kind: KubernetesRole, Target: Target{"k8s/cluster", role}, Issuer: u.trust.Issuer, Audiences: u.trust.Audiences, AudienceLine: sub.Line,
		Conditions: append([]Condition{}, u.trust.Conditions...), NoAudience: u.trust.NoAudience}
	for i := range t.Conditions {
		t.Conditions[i].Inherited = true
	}
	switch {
	case text(get(sub, "kind")) == "Group" && name == "system:authenticated":
	case text(get(sub, "kind")) == "User" && u.claim != "" && strings.HasPrefix(name, u.prefix) && (u.prefix != "" || strings.Contains(name, "repo:") || strings.Contains(name, "project_path:")):
		t.add(Condition{Claim: u.claim, Match: Exact, Values: []string{strings.TrimPrefix(name, u.prefix)}, Line: sub.Line})
	default:
		return
	}
	s.add(t)
}
