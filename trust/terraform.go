package trust

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Bounds of a module: what an attacker's file may cost.
const (
	maxInstances = 64       // of one resource with for_each or count
	maxValue     = 64 << 10 // size of one value
	maxDepth     = 48       // of values that depend on each other
	maxUnary     = 64       // ! or - in a row: the parser recurses
	maxTernary   = 2000
)

// module is a directory of Terraform files.
type module struct {
	s      *scan
	texts  map[string]string // by file
	blocks map[string]*hclsyntax.Block
	kinds  map[string][]*hclsyntax.Block // resources and data by type
	locals map[string]hclsyntax.Expression
	values map[string]cty.Value // of locals and variables that are evaluated
	input  map[string]cty.Value // of terraform.tfvars
	busy   map[string]bool
	depth  int
	each   map[string]cty.Value // each.key and each.value of the instance
}

// interesting are words of which a module without any has no trust.
var interesting = []string{"WebIdentity", "workload_identity", "federated_identity_credential", "jwt_auth_backend", "principalSet://", "principal://", "oidc"}

// module reads the Terraform files of one directory.
func (s *scan) module(dir string, files []string) {
	m := &module{s: s, texts: make(map[string]string), blocks: make(map[string]*hclsyntax.Block), kinds: make(map[string][]*hclsyntax.Block),
		locals: make(map[string]hclsyntax.Expression), values: make(map[string]cty.Value), input: make(map[string]cty.Value), busy: make(map[string]bool)}
	slices.Sort(files)
	wanted := false
	for _, name := range files {
		content, err := s.read(name, maxTerraform, nil)
		has := slices.ContainsFunc(interesting, func(w string) bool { return strings.Contains(content, w) })
		switch {
		case errors.Is(err, errTooLarge):
			if has {
				s.problem(name, 1, fmt.Sprintf("the Terraform file is larger than the limit of %d bytes", maxTerraform))
			}
			continue
		case err != nil:
			continue
		}
		m.texts[name] = content
		wanted = wanted || has
	}
	if !wanted {
		return
	}
	for _, name := range files {
		if content, ok := m.texts[name]; ok {
			m.parse(name, content)
		}
	}
	for _, read := range []func(*module, *hclsyntax.Block){0: (*module).awsRole, 1: (*module).gcpProvider, 2: (*module).gcpMember, 3: (*module).azure, 4: (*module).vault} {
		for _, kind := range sortedKeys(m.kinds) {
			for _, b := range m.kinds[kind] {
				m.instances(b, read)
			}
		}
	}
	m.calls(dir)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// parse reads one file into the module.
func (m *module) parse(name, content string) {
	if line := tooDeep(content); line > 0 {
		m.s.problem(name, line, fmt.Sprintf("the nesting is deeper than %d levels", maxNesting))
		return
	}
	if line := tooLong(content); line > 0 {
		m.s.problem(name, line, "an expression is longer than a parser should follow")
		return
	}
	f, diags := hclsyntax.ParseConfig([]byte(content), name, hcl.InitialPos)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			line := 1
			if d.Subject != nil {
				line = d.Subject.Start.Line
			}
			m.s.problem(name, line, "the Terraform file is broken here: "+d.Summary)
			break
		}
	}
	if f == nil {
		return
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return
	}
	if strings.HasSuffix(name, ".tfvars") {
		if base := path.Base(name); base == "terraform.tfvars" || strings.HasSuffix(base, ".auto.tfvars") {
			for k, a := range body.Attributes {
				m.input[k] = m.value(a.Expr)
			}
		}
		return
	}
	for _, b := range body.Blocks {
		switch {
		case b.Type == "locals":
			for k, a := range b.Body.Attributes {
				m.locals[k] = a.Expr
			}
		case (b.Type == "resource" || b.Type == "data") && len(b.Labels) == 2:
			key := b.Labels[0] + "." + b.Labels[1]
			if b.Type == "data" {
				key = "data." + key
			}
			m.blocks[key] = b
			m.kinds[key[:strings.LastIndexByte(key, '.')]] = append(m.kinds[key[:strings.LastIndexByte(key, '.')]], b)
		case (b.Type == "variable" || b.Type == "module") && len(b.Labels) == 1:
			m.blocks[b.Type+"."+b.Labels[0]] = b
			m.kinds[b.Type] = append(m.kinds[b.Type], b)
		}
	}
}

// tooLong gives the line of a chain of operators over which the parser would recurse too deeply.
func tooLong(content string) int {
	unary, ternary, line := 0, 0, 1
	for i := 0; i < len(content); i++ {
		switch content[i] {
		case '\n':
			line++
		case '!', '-':
			if unary++; unary > maxUnary && (i+1 == len(content) || content[i] == '!' || !strings.Contains(content[max(0, i-maxUnary):i+1], "---")) {
				return line
			}
			continue
		case ' ', '\t':
			continue
		case '?':
			if ternary++; ternary > maxTernary {
				return line
			}
		}
		unary = 0
	}
	return 0
}

// instances reads a block once, or once for each element of for_each that is known.
func (m *module) instances(b *hclsyntax.Block, read func(*module, *hclsyntax.Block)) {
	m.each = nil
	attr := b.Body.Attributes["for_each"]
	if attr == nil {
		read(m, b)
		return
	}
	v := m.value(attr.Expr)
	if v.IsNull() || !v.IsKnown() || !v.CanIterateElements() {
		read(m, b)
		return
	}
	n := 0
	for it := v.ElementIterator(); it.Next(); n++ {
		if n == maxInstances {
			m.s.problem(b.TypeRange.Filename, attr.SrcRange.Start.Line, fmt.Sprintf("for_each has more than %d elements; only these were looked at", maxInstances))
			break
		}
		k, e := it.Element()
		if v.Type().IsSetType() {
			k = e
		}
		m.each = map[string]cty.Value{"key": k, "value": e}
		read(m, b)
	}
	m.each = nil
}

// str gives the text of an attribute; what can't be evaluated is ${...} of its source.
func (m *module) str(b *hclsyntax.Body, name string) string {
	a := b.Attributes[name]
	if a == nil {
		return ""
	}
	v := m.value(a.Expr)
	if s, ok := scalar(v); ok {
		return s
	}
	if v.IsNull() && v.IsKnown() {
		return ""
	}
	return m.source(a.Expr)
}

// source gives the source of an expression as a value that can't be told.
func (m *module) source(e hclsyntax.Expression) string {
	r := e.Range()
	text := m.texts[r.Filename]
	if r.End.Byte <= len(text) && r.Start.Byte < r.End.Byte {
		text = strings.Join(strings.Fields(text[r.Start.Byte:r.End.Byte]), " ")
		text = strings.NewReplacer("${", "", "}", "", `"`, "").Replace(text)
	} else {
		text = "expression"
	}
	if len(text) > 80 {
		text = text[:80]
	}
	return "${" + text + "}"
}

// strs gives the texts of an attribute that is a list, with the line of each where they are written out.
func (m *module) strs(b *hclsyntax.Body, name string) []string {
	a := b.Attributes[name]
	if a == nil {
		return nil
	}
	return m.list(a.Expr)
}

func (m *module) list(e hclsyntax.Expression) []string {
	if t, ok := e.(*hclsyntax.TupleConsExpr); ok {
		var out []string
		for _, item := range t.Exprs {
			out = append(out, m.list(item)...)
		}
		return out
	}
	v := m.value(e)
	if s, ok := scalar(v); ok {
		return []string{s}
	}
	if v.IsNull() && v.IsKnown() {
		return nil
	}
	if !v.IsKnown() || !v.CanIterateElements() || v.Type().IsObjectType() || v.Type().IsMapType() {
		return []string{m.source(e)}
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, item := it.Element()
		if s, ok := scalar(item); ok {
			out = append(out, s)
		} else {
			out = append(out, m.source(e))
		}
	}
	return out
}

// line gives the line of an attribute, that of the block when it isn't there.
func line(b *hclsyntax.Block, attr string) int {
	if a := b.Body.Attributes[attr]; a != nil {
		return a.SrcRange.Start.Line
	}
	return b.TypeRange.Start.Line
}

// blocksOf gives the blocks of a type in a body, those of `dynamic` too.
func blocksOf(b *hclsyntax.Body, kind string) (out []*hclsyntax.Block, dynamic bool) {
	for _, c := range b.Blocks {
		switch {
		case c.Type == kind:
			out = append(out, c)
		case c.Type == "dynamic" && len(c.Labels) == 1 && c.Labels[0] == kind:
			dynamic = true
		}
	}
	return out, dynamic
}

// calls records calls of modules that hand over what looks like a trust: what they make of it can't be seen.
func (m *module) calls(dir string) {
	for _, b := range m.kinds["module"] {
		source := m.str(b.Body, "source")
		r := b.Range()
		text := m.texts[r.Filename]
		end := min(b.CloseBraceRange.End.Byte, len(text))
		body := text[r.Start.Byte:end]
		if !strings.Contains(body, "repo:") && !strings.Contains(body, "token.actions.githubusercontent.com") && !strings.Contains(source, "oidc") {
			continue
		}
		t := Trust{File: r.Filename, Line: r.Start.Line, Kind: AWSRole, Target: Target{"unknown", "module " + b.Labels[0]}}
		for _, name := range []string{"oidc_subjects", "subjects", "oidc_fully_qualified_subjects", "oidc_subjects_with_wildcards", "oidc_wildcard_subjects"} {
			for _, v := range m.strs(b.Body, name) {
				if !strings.Contains(v, ":") || !strings.HasPrefix(v, "repo:") && strings.Contains(source, "github-oidc") {
					v = "repo:" + v
				}
				t.add(Condition{Claim: "sub", Match: Glob, Values: []string{v}, Line: line(b, name)})
			}
		}
		t.open(r.Start.Line, "the module "+firstOf(source, dir)+" isn't read: what it makes of these values can't be seen")
		t.add(Condition{Match: Expression, Values: []string{"module " + source}, Line: r.Start.Line})
		m.s.add(t)
	}
}
