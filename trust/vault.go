package trust

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// vaultRole is a role of a JWT auth method, wherever it is written.
type vaultRole struct {
	file, mount, name, issuer string
	line                      int
	policies                  []string
	audiences                 []string
	audienceLine              int
	subject                   string
	subjectLine               int
	claims                    []vaultClaim
	glob                      bool
	kind                      string // role_type
	opaque                    bool
}

type vaultClaim struct {
	name   string
	values []string
	line   int
}

// vaultRole records the trust of a role. A role for people (role_type oidc) is none of a pipeline's.
func (s *scan) vaultRole(r vaultRole) {
	if r.kind == "oidc" {
		return
	}
	t := Trust{File: r.file, Line: r.line, Kind: VaultRole, Target: Target{"secrets-manager/vault", firstOf(r.name, "unknown")}, Issuer: strings.TrimSuffix(r.issuer, "/"), Gives: r.policies,
		Audiences: r.audiences, AudienceLine: r.audienceLine}
	if r.mount != "" && !hole(r.mount) {
		t.Target.Name = strings.Trim(r.mount, "/") + "/" + t.Target.Name
	}
	t.NoAudience = len(r.audiences) == 0
	if r.subject != "" {
		t.add(Condition{Claim: "sub", Match: Exact, Values: []string{r.subject}, Line: r.subjectLine})
	}
	for _, c := range r.claims {
		m := Exact
		if r.glob {
			m = Glob
		}
		t.add(Condition{Claim: strings.TrimPrefix(c.name, "/"), Match: m, Values: c.values, Line: c.line})
	}
	if r.opaque {
		t.open(r.line, "the bound claims can't be told from the files")
		t.add(Condition{Match: Expression, Values: []string{"bound_claims"}, Line: r.line})
	}
	s.add(t)
}

// vaultFile reads a role as `vault write` takes it, or as `vault read -format=json` gives it.
func (s *scan) vaultFile(f *file) {
	for _, doc := range f.docs {
		eachMap(doc, func(n *node) {
			if get(n, "user_claim") == nil || get(n, "bound_claims") == nil && get(n, "bound_subject") == nil && get(n, "bound_audiences") == nil && get(n, "role_type") == nil {
				return
			}
			r := vaultRole{file: f.name, line: n.Line, name: firstOf(text(get(n, "role_name")), text(get(n, "name")), stem(f.name)), kind: text(get(n, "role_type")),
				policies: append(texts(get(n, "token_policies")), texts(get(n, "policies"))...), audiences: texts(get(n, "bound_audiences")),
				subject: text(get(n, "bound_subject")), glob: text(get(n, "bound_claims_type")) == "glob"}
			if a := get(n, "bound_audiences"); a != nil {
				r.audienceLine = a.Line
			}
			if sub := get(n, "bound_subject"); sub != nil {
				r.subjectLine = sub.Line
			}
			if claims := get(n, "bound_claims"); claims != nil && claims.Kind == yaml.MappingNode {
				for i := 0; i+1 < len(claims.Content); i += 2 {
					r.claims = append(r.claims, vaultClaim{claims.Content[i].Value, texts(claims.Content[i+1]), claims.Content[i].Line})
				}
			}
			s.vaultRole(r)
		})
	}
}
