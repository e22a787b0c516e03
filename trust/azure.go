package trust

import (
	"regexp"
	"strings"
)

// azureCredential records a federated credential of an application or a managed identity.
func (s *scan) azureCredential(file, target string, line int, issuer string, subject Condition, audiences []string, audienceLine int) {
	t := Trust{File: file, Line: line, Kind: AzureCredential, Target: Target{"cloud/azure", target}, Issuer: strings.TrimSuffix(issuer, "/"), Audiences: audiences, AudienceLine: audienceLine}
	// A credential without audiences is refused by Azure; a file that leaves them out gets the default.
	if len(audiences) == 0 {
		t.Audiences = []string{"api://AzureADTokenExchange"}
	}
	if len(subject.Values) > 0 {
		t.add(subject)
	}
	s.add(t)
}

// azureFile reads what the CLI lists or takes: mappings with issuer, subject
// and audiences; and resources of ARM templates and Bicep.
func (s *scan) azureFile(f *file) {
	if strings.HasSuffix(f.name, ".bicep") {
		s.bicep(f)
		return
	}
	for _, doc := range f.docs {
		eachMap(doc, func(n *node) {
			name := firstOf(text(get(n, "name")), stem(f.name))
			if p := get(n, "properties"); p != nil && get(p, "issuer") != nil && get(p, "subject") != nil {
				return // visited by itself, below; the name stands here
			}
			issuer, subject := get(n, "issuer"), get(n, "subject")
			if !strings.HasPrefix(text(issuer), "https://") || subject == nil || get(n, "audiences") == nil {
				return
			}
			aud := get(n, "audiences")
			s.azureCredential(f.name, name, n.Line, text(issuer), Condition{Claim: "sub", Match: Exact, Values: []string{text(subject)}, Line: subject.Line}, texts(aud), aud.Line)
		})
	}
}

var (
	bicepCredential = regexp.MustCompile(`(?m)^\s*resource\s+(\w+)\s+'Microsoft\.(ManagedIdentity/userAssignedIdentities|Graph/applications)/federatedIdentityCredentials@[^']*'`)
	bicepField      = regexp.MustCompile(`(?m)^\s*(name|issuer|subject|parent)\s*:\s*(?:'([^'\n]*)'|([A-Za-z_][\w.]*))`)
	bicepAudience   = regexp.MustCompile(`(?s)audiences\s*:\s*\[([^\]]*)\]`)
	bicepText       = regexp.MustCompile(`'([^'\n]*)'`)
)

// bicep reads credentials whose fields are texts; a name or ${...} stays as it is.
func (s *scan) bicep(f *file) {
	at := bicepCredential.FindAllStringSubmatchIndex(f.text, 500)
	for i, m := range at {
		end := len(f.text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		block := f.text[m[0]:min(end, m[0]+8<<10)]
		line := 1 + strings.Count(f.text[:m[0]], "\n") + strings.Count(block[:len(block)-len(strings.TrimLeft(block, "\n"))], "\n")
		fields := make(map[string]string)
		subjectLine := line
		for _, g := range bicepField.FindAllStringSubmatchIndex(block, 50) {
			key := block[g[2]:g[3]]
			if _, ok := fields[key]; ok {
				continue
			}
			if g[4] >= 0 {
				fields[key] = block[g[4]:g[5]]
			} else {
				fields[key] = "${" + block[g[6]:g[7]] + "}"
			}
			if key == "subject" {
				subjectLine = 1 + strings.Count(f.text[:m[0]+g[2]], "\n")
			}
		}
		var audiences []string
		if a := bicepAudience.FindStringSubmatch(block); a != nil {
			for _, v := range bicepText.FindAllStringSubmatch(a[1], 10) {
				audiences = append(audiences, v[1])
			}
		}
		target := firstOf(strings.Trim(fields["parent"], "${}"), fields["name"], f.text[m[2]:m[3]])
		s.azureCredential(f.name, target, line, fields["issuer"], Condition{Claim: "sub", Match: Exact, Values: []string{fields["subject"]}, Line: subjectLine}, audiences, line)
	}
}

var flexible = regexp.MustCompile(`^claims\['([^']+)'\]\s+(eq|matches)\s+'([^']*)'$`)

// azureExpression reads a claims matching expression: claims['sub'] matches 'repo:acme/*' and claims['x'] eq 'y'.
func azureExpression(expr string, line int) []Condition {
	var out []Condition
	for _, part := range strings.Split(expr, " and ") {
		part = strings.TrimSpace(part)
		m := flexible.FindStringSubmatch(part)
		if m == nil {
			out = append(out, Condition{Match: Expression, Values: []string{part}, Line: line})
			continue
		}
		c := Condition{Claim: m[1], Match: Exact, Values: []string{m[3]}, Line: line}
		if m[2] == "matches" {
			c.Match = Glob
		}
		out = append(out, c)
	}
	return out
}
