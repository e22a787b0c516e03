package trust

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// awsStatement is one statement of a trust policy, wherever it is written.
type awsStatement struct {
	line       int
	effect     string
	actions    []string
	federated  []string
	conditions []awsCondition
}

// awsCondition is one key under one operator.
type awsCondition struct {
	op, key string
	values  []string
	line    int
}

// awsFile reads trust policies in JSON, or roles in CloudFormation: every
// mapping that has statements with the action.
func (s *scan) awsFile(f *file) {
	for _, doc := range f.docs {
		roles := make(map[*node]string) // by their trust policy
		eachMap(doc, func(n *node) {
			name := firstOf(text(get(n, "Arn")), text(get(n, "RoleName")))
			if p := get(n, "AssumeRolePolicyDocument"); p != nil {
				roles[p] = name
			}
			for i := 0; i+1 < len(n.Content); i += 2 { // CloudFormation: the logical name is the key
				v := deref(n.Content[i+1])
				if p := get(v, "Properties", "AssumeRolePolicyDocument"); p != nil {
					roles[p] = firstOf(cfnText(get(v, "Properties", "RoleName")), n.Content[i].Value)
				}
			}
		})
		named := make(map[*node]bool)
		for p, name := range roles {
			if p.Kind == yaml.ScalarNode { // the API gives the document as an encoded text
				continue
			}
			named[p] = true
			s.awsPolicy(f.name, name, awsStatements(p), nil)
		}
		eachMap(doc, func(n *node) {
			if get(n, "Statement") != nil && !named[n] {
				s.awsPolicy(f.name, awsName(f.name), awsStatements(n), nil)
			}
		})
	}
}

// cfnText gives the text of a scalar, or of a !Sub.
func cfnText(n *node) string {
	if t := text(n); t != "" && (n.Tag == "!Ref" || n.Tag == "!ImportValue") {
		return "${" + t + "}"
	}
	return text(n)
}

// awsName names a role by its file: deploy-trust.json is the role deploy.
func awsName(name string) string {
	base := stem(name)
	for _, tail := range []string{"-trust-policy", "_trust_policy", "-trust", "_trust", "-assume-role-policy", "-policy"} {
		if short, ok := strings.CutSuffix(base, tail); ok && short != "" {
			return short
		}
	}
	return base
}

// awsStatements reads the statements of a policy.
func awsStatements(policy *node) []awsStatement {
	var out []awsStatement
	for _, n := range list(get(policy, "Statement")) {
		n = deref(n)
		if !isMap(n) {
			continue
		}
		st := awsStatement{line: n.Line, effect: firstOf(text(get(n, "Effect")), "Allow"), actions: texts(get(n, "Action"))}
		for _, p := range list(get(n, "Principal", "Federated")) {
			st.federated = append(st.federated, cfnText(deref(p)))
		}
		cond := get(n, "Condition")
		if cond != nil {
			for i := 0; i+1 < len(cond.Content); i += 2 {
				keys := deref(cond.Content[i+1])
				if !isMap(keys) {
					continue
				}
				for j := 0; j+1 < len(keys.Content); j += 2 {
					c := awsCondition{op: cond.Content[i].Value, key: keys.Content[j].Value, line: keys.Content[j].Line}
					for _, v := range list(keys.Content[j+1]) {
						c.values = append(c.values, cfnText(deref(v)))
					}
					if vs := list(keys.Content[j+1]); len(vs) == 1 {
						c.line = vs[0].Line
					}
					st.conditions = append(st.conditions, c)
				}
			}
		}
		out = append(out, st)
	}
	return out
}

// awsPolicy records one trust for each statement that takes web identities.
// issuers says which issuer a provider's ARN in the same files stands for.
func (s *scan) awsPolicy(file, role string, statements []awsStatement, issuers func(string) (string, []string)) {
	denies := 0
	for _, st := range statements {
		if strings.EqualFold(st.effect, "Deny") {
			denies = st.line
		}
	}
	for _, st := range statements {
		if !strings.EqualFold(st.effect, "Allow") || !st.takesWebIdentity() {
			continue
		}
		for _, provider := range st.providers() {
			t := Trust{File: file, Line: st.line, Kind: AWSRole, Target: Target{"cloud/aws", role}}
			var accepted []string
			t.Issuer, accepted = awsIssuer(provider, st, issuers)
			for _, c := range st.conditions {
				t.awsCondition(c)
			}
			if len(t.Audiences) == 0 && t.condition("aud") == nil {
				t.Audiences = accepted // the provider takes no others
				t.NoAudience = len(accepted) == 0
			}
			if denies > 0 {
				t.open(denies, "a statement with the effect Deny takes something away that isn't evaluated")
			}
			if hole(role) {
				t.open(st.line, "the name of the role can't be told from the files: "+role)
			}
			s.add(t)
		}
	}
}

func (st *awsStatement) takesWebIdentity() bool {
	for _, a := range st.actions {
		if overlap(strings.ToLower(a), "sts:assumerolewithwebidentity") {
			return true
		}
	}
	return false
}

// providers gives the OIDC providers of a statement; SAML's and Cognito's are no CI's.
func (st *awsStatement) providers() []string {
	var out []string
	for _, p := range st.federated {
		if !strings.Contains(p, ":saml-provider/") && p != "cognito-identity.amazonaws.com" {
			out = append(out, p)
		}
	}
	return out
}

// awsIssuer tells the issuer of a provider: by its ARN, by the files, or by the keys of the conditions.
func awsIssuer(provider string, st awsStatement, issuers func(string) (string, []string)) (string, []string) {
	if issuers != nil {
		if url, audiences := issuers(provider); url != "" {
			return url, audiences
		}
	}
	if _, url, ok := strings.Cut(provider, "oidc-provider/"); ok && !hole(url) {
		return "https://" + strings.TrimPrefix(url, "https://"), nil
	}
	for _, c := range st.conditions {
		if i := strings.LastIndexByte(c.key, ':'); i > 0 && !hole(c.key) && !strings.HasPrefix(c.key, "aws:") && !strings.HasPrefix(c.key, "sts:") {
			return "https://" + strings.TrimPrefix(c.key[:i], "https://"), nil
		}
	}
	return "", nil
}

// awsCondition reads one condition. Keys of AWS itself (aws:SourceIp) are no claims of the token.
func (t *Trust) awsCondition(c awsCondition) {
	claim := c.key
	if i := strings.LastIndexByte(claim, ':'); i >= 0 {
		claim = claim[i+1:]
	}
	out := Condition{Claim: claim, Values: c.values, Line: c.line, Match: Exact}
	op := c.op
	if rest, ok := strings.CutPrefix(op, "ForAllValues:"); ok {
		op, out.AbsentPasses = rest, true // true for an empty set: a token without the claim passes
	}
	op = strings.TrimPrefix(op, "ForAnyValue:")
	if rest, ok := strings.CutSuffix(op, "IfExists"); ok {
		op, out.AbsentPasses = rest, true
	}
	switch {
	case strings.HasPrefix(c.key, "aws:") || strings.HasPrefix(c.key, "sts:"):
		t.open(c.line, "the condition "+c.key+" is about more than the token")
		return
	case op == "Null":
		return // asks only whether it is there
	case op == "StringEquals":
	case op == "StringEqualsIgnoreCase":
		t.open(c.line, "a comparison that ignores the case is taken as an exact one")
	case op == "StringLike", op == "ArnLike":
		out.Match = Glob
	case op == "StringNotEquals", op == "StringNotEqualsIgnoreCase":
		out.Not = true
	case op == "StringNotLike":
		out.Not, out.Match = true, Glob
	default:
		out.Match = Expression
		out.Values = []string{c.op + " " + strings.Join(c.values, ", ")}
	}
	t.add(out)
}

// firstOf gives the first of its arguments that is not empty.
func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
