package trust

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// awsRole reads the trust policy of an aws_iam_role.
func (m *module) awsRole(b *hclsyntax.Block) {
	if b.Type != "resource" || b.Labels[0] != "aws_iam_role" {
		return
	}
	a := b.Body.Attributes["assume_role_policy"]
	if a == nil {
		return
	}
	name := firstOf(m.str(b.Body, "name"), m.str(b.Body, "name_prefix"), b.Labels[1])
	statements, ok := m.statements(a.Expr, 0)
	if !ok {
		r := b.Range()
		source := m.within(a.Expr.Range())
		if strings.Contains(source, "WebIdentity") || strings.Contains(source, "oidc") {
			t := Trust{File: r.Filename, Line: r.Start.Line, Kind: AWSRole, Target: Target{"cloud/aws", name}}
			t.open(a.SrcRange.Start.Line, "the trust policy can't be told from the files: "+m.source(a.Expr))
			t.add(Condition{Match: Expression, Values: []string{m.source(a.Expr)}, Line: a.SrcRange.Start.Line})
			m.s.add(t)
		}
		return
	}
	m.s.awsPolicy(b.TypeRange.Filename, name, statements, m.issuerOf)
}

// statements gives the statements of an expression: a data source of the
// module with the lines of its blocks, or a JSON text.
func (m *module) statements(e hclsyntax.Expression, depth int) ([]awsStatement, bool) {
	if t, ok := e.(*hclsyntax.ScopeTraversalExpr); ok && t.Traversal.RootName() == "data" {
		path := steps(t.Traversal)
		if len(path) > 2 && path[1] == "aws_iam_policy_document" && path[len(path)-1] == "json" {
			b := m.blocks["data.aws_iam_policy_document."+path[2]]
			if b == nil || depth > 8 {
				return nil, false
			}
			return m.document(b, depth), true
		}
	}
	text, ok := scalar(m.value(e))
	if !ok || !strings.Contains(text, "{") {
		return nil, false
	}
	docs, problem := parseYAML(text)
	if problem != nil || len(docs) != 1 || !isMap(docs[0]) {
		return nil, false
	}
	out := awsStatements(docs[0])
	find := m.finder(e.Range())
	for i := range out { // the text has lost its lines: they are where its words stand
		first := 0
		for j := range out[i].conditions {
			c := &out[i].conditions[j]
			c.line = find(append(slices.Clone(c.values), c.key[strings.LastIndexByte(c.key, ':')+1:]+`"`)...)
			if first == 0 || c.line < first {
				first = c.line
			}
		}
		out[i].line = find(append(out[i].federated, "sts:AssumeRoleWithWebIdentity")...)
	}
	return out, true
}

// finder looks up the line of a value within a range of the source.
func (m *module) finder(r hcl.Range) func(...string) int {
	text := m.within(r)
	return func(words ...string) int {
		for _, w := range words {
			w, _, _ = strings.Cut(holesAsStars(w), "*")
			if i := strings.Index(text, w); len(w) > 3 && i >= 0 {
				return r.Start.Line + strings.Count(text[:i], "\n")
			}
		}
		return r.Start.Line
	}
}

// document reads an aws_iam_policy_document.
func (m *module) document(b *hclsyntax.Block, depth int) []awsStatement {
	var out []awsStatement
	for _, name := range []string{"source_policy_documents", "override_policy_documents"} {
		if a := b.Body.Attributes[name]; a != nil {
			if t, ok := a.Expr.(*hclsyntax.TupleConsExpr); ok {
				for _, e := range t.Exprs {
					more, _ := m.statements(e, depth+1)
					out = append(out, more...)
				}
			}
		}
	}
	blocks, dynamic := blocksOf(b.Body, "statement")
	for _, st := range blocks {
		s := awsStatement{line: st.TypeRange.Start.Line, effect: firstOf(m.str(st.Body, "effect"), "Allow"), actions: m.strs(st.Body, "actions")}
		principals, _ := blocksOf(st.Body, "principals")
		for _, p := range principals {
			if m.str(p.Body, "type") == "Federated" {
				s.federated = append(s.federated, m.strs(p.Body, "identifiers")...)
			}
		}
		conditions, some := blocksOf(st.Body, "condition")
		for _, c := range conditions {
			s.conditions = append(s.conditions, awsCondition{op: m.str(c.Body, "test"), key: m.str(c.Body, "variable"), values: m.strs(c.Body, "values"), line: line(c, "values")})
		}
		if some {
			s.conditions = append(s.conditions, awsCondition{op: "dynamic", key: "dynamic", values: []string{"condition"}, line: s.line})
		}
		out = append(out, s)
	}
	if dynamic {
		out = append(out, awsStatement{line: b.TypeRange.Start.Line, effect: "Allow", actions: []string{"sts:AssumeRoleWithWebIdentity"}, federated: []string{"${dynamic statement}"},
			conditions: []awsCondition{{op: "dynamic", key: "dynamic", values: []string{"statement"}, line: b.TypeRange.Start.Line}}})
	}
	return out
}

// issuerOf tells the issuer behind a provider of the module, and the audiences that it takes.
func (m *module) issuerOf(provider string) (string, []string) {
	key, ok := strings.CutPrefix(provider, "${")
	if !ok {
		return "", nil
	}
	key = strings.TrimSuffix(strings.TrimSuffix(key, "}"), ".arn")
	key, _, _ = strings.Cut(key, "[")
	parts := strings.Split(key, ".")
	n := 2
	if parts[0] == "data" {
		n = 3
	}
	if len(parts) < n {
		return "", nil
	}
	owner, b := m.find(strings.Join(parts[:n], "."))
	if b == nil || parts[n-2] != "aws_iam_openid_connect_provider" {
		return "", nil
	}
	url := owner.str(b.Body, "url")
	if hole(url) || url == "" {
		return "", nil
	}
	return "https://" + strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/"), owner.strs(b.Body, "client_id_list")
}
