package trust

import (
	"path"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// octoSTS reads a trust policy of octo-sts: .github/chainguard/NAME.sts.yaml.
// Its patterns are tied to both ends by octo-sts itself.
func (s *scan) octoSTS(f *file) {
	for _, n := range f.docs {
		if !isMap(n) {
			s.problem(f.name, n.Line, "this looks like an octo-sts policy, and is no mapping")
			continue
		}
		// The target is the identity; which repository it stands in is known by the directory.
		t := Trust{File: f.name, Line: n.Line, Kind: OctoSTS, Target: Target{"vcs/github", stem(f.name)}, Issuer: strings.TrimSuffix(text(get(n, "issuer")), "/")}
		if repo := repositoryOf(f.name); repo != "" {
			t.Target.Name = repo + "/" + t.Target.Name
		}
		if p := get(n, "issuer_pattern"); p != nil {
			t.open(p.Line, "the issuer is a pattern: "+text(p))
			t.Conditions = append(t.Conditions, Condition{Claim: "iss", Match: Regex, Values: []string{tied(text(p))}, Line: p.Line})
		}
		if sub := get(n, "subject"); sub != nil {
			t.add(Condition{Claim: "sub", Match: Exact, Values: []string{text(sub)}, Line: sub.Line})
		}
		if p := get(n, "subject_pattern"); p != nil {
			t.add(Condition{Claim: "sub", Match: Regex, Values: []string{tied(text(p))}, Line: p.Line})
		}
		if a := get(n, "audience"); a != nil {
			t.add(Condition{Claim: "aud", Match: Exact, Values: []string{text(a)}, Line: a.Line})
		} else if p := get(n, "audience_pattern"); p != nil {
			t.add(Condition{Claim: "aud", Match: Regex, Values: []string{tied(text(p))}, Line: p.Line})
		} else {
			t.Audiences = []string{"octo-sts.dev"} // its own domain, by default
		}
		if claims := get(n, "claim_pattern"); claims != nil && claims.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(claims.Content); i += 2 {
				t.add(Condition{Claim: claims.Content[i].Value, Match: Regex, Values: []string{tied(text(claims.Content[i+1]))}, Line: claims.Content[i].Line})
			}
		}
		if perms := get(n, "permissions"); perms != nil && perms.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(perms.Content); i += 2 {
				t.Gives = append(t.Gives, perms.Content[i].Value+": "+text(perms.Content[i+1]))
			}
			sort.Strings(t.Gives)
		}
		s.add(t)
	}
}

// tied anchors a pattern as octo-sts does.
func tied(p string) string {
	if start, end := tiedEnds(p); p == "" || start && end {
		return p
	}
	return "^(?:" + strings.TrimSuffix(strings.TrimPrefix(p, "^"), "$") + ")$"
}

// repositoryOf gives the directory of the repository of a policy below .github.
func repositoryOf(name string) string {
	if i := strings.Index(name, ".github/"); i > 0 {
		return path.Clean(name[:i])
	}
	return ""
}
