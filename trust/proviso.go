package trust

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// provisoFile reads the issuers and the grants of a Proviso configuration: each
// grant can be asked for by the jobs of each issuer, and policy decides.
func (s *scan) provisoFile(f *file) {
	for _, doc := range f.docs {
		grants := get(doc, "grants")
		if grants == nil || grants.Kind != yaml.MappingNode || get(doc, "server") == nil {
			continue
		}
		for i := 0; i+1 < len(grants.Content); i += 2 {
			for _, iss := range list(get(doc, "issuers")) {
				s.provisoGrant(f.name, grants.Content[i], grants.Content[i+1], iss, texts(get(doc, "server", "url")))
			}
		}
	}
}

// provisoGrant records one grant for one issuer.
func (s *scan) provisoGrant(file string, name, grant, issuer *node, audiences []string) {
	t := Trust{File: file, Line: name.Line, Kind: ProvisoGrant, Target: Target{"broker/proviso", name.Value}, Issuer: strings.TrimSuffix(text(get(issuer, "url")), "/")}
	// A platform whose tokens have an audience of their own is configured with it.
	t.Audiences = audiences
	if a := text(get(issuer, "audience")); a != "" {
		t.Audiences = []string{a}
	}
	if p := text(get(issuer, "platform")); p == "azure-devops" || p == "semaphore" || p == "spacelift" || p == "codefresh" {
		t.Audiences = nil
	}
	if require := get(issuer, "require"); require != nil && require.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(require.Content); i += 2 {
			c := Condition{Claim: require.Content[i].Value, Match: Exact, Values: texts(require.Content[i+1]), Line: require.Content[i].Line}
			for j, v := range c.Values {
				if strings.HasSuffix(v, "/*") {
					c.Match, c.Values[j] = Glob, v
				}
			}
			t.add(c)
		}
	}
	if events := get(issuer, "events"); events != nil {
		t.add(Condition{Claim: "event_name", Match: Exact, Values: texts(events), Line: events.Line})
	}
	if p := get(grant, "policy"); p != nil {
		t.Gives = []string{"what policy " + text(p) + " allows"}
		t.Conditions = append(t.Conditions, Condition{Match: Expression, Values: []string{"policy " + text(p)}, Line: p.Line})
	}
	s.add(t)
}
