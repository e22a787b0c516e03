package trust

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"

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

// directory is a directory of Terraform files, which is a module.
type directory struct {
	name  string
	files []string
	// interesting is set when its text has a word of a trust, wanted when it or a module that it calls has.
	interesting, wanted bool
	calls               []string // the directories of the modules of the same tree that it calls

	once sync.Once
	code *code // kept of modules that are called: each caller needs it
}

// code is a directory with its files parsed.
type code struct {
	texts   map[string]string // by file
	blocks  map[string]*hclsyntax.Block
	kinds   map[string][]*hclsyntax.Block // resources and data by type
	locals  map[string]hclsyntax.Expression
	outputs map[string]hclsyntax.Expression
	tfvars  map[string]hclsyntax.Expression
}

// module is a directory that is evaluated: by itself, or with what a caller gives it.
type module struct {
	*code
	dir    *directory
	s      *scan
	values map[string]cty.Value // of locals, variables and outputs that are evaluated
	busy   map[string]bool
	depth  int
	each   map[string]cty.Value // each.key and each.value of the instance

	// parent calls this module, with these arguments, for this element of its for_each.
	parent   *module
	args     map[string]hclsyntax.Expression
	argsEach map[string]cty.Value
	children map[string]*module // for their outputs, by name
}

// interesting are words of which a module without any has no trust.
var interesting = []string{"WebIdentity", "workload_identity", "federated_identity_credential", "jwt_auth_backend", "principalSet://", "principal://", "oidc"}

// survey looks through the Terraform files of one directory, and keeps none of
// them: few have a trust, or call a module that has.
func (s *scan) survey(d *directory) {
	slices.Sort(d.files)
	for _, name := range d.files {
		_, _ = s.read(name, maxTerraform, func(data []byte) bool { // an unreadable file hides what it is; there is nothing to say about it
			has := slices.ContainsFunc(interesting, func(w string) bool { return bytes.Contains(data, []byte(w)) })
			if len(data) > maxTerraform {
				if has {
					s.problem(name, 1, fmt.Sprintf("the Terraform file is larger than the limit of %d bytes", maxTerraform))
				}
				return false
			}
			d.interesting = d.interesting || has
			for _, c := range localSource.FindAllSubmatch(data, -1) {
				d.calls = append(d.calls, path.Join(d.name, string(c[1])))
			}
			return false
		})
	}
}

// evaluate reads the trusts of a module, and of those that it calls.
func (m *module) evaluate() {
	for _, read := range []func(*module, *hclsyntax.Block){0: (*module).awsRole, 1: (*module).gcpProvider, 2: (*module).gcpMember, 3: (*module).azure, 4: (*module).vault} {
		for _, kind := range sortedKeys(m.kinds) {
			for _, b := range m.kinds[kind] {
				m.instances(b, read)
			}
		}
	}
	m.callModules()
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// parsed reads the files of a directory and parses them.
func (s *scan) parsed(d *directory) *code {
	c := &code{
		texts: make(map[string]string), blocks: make(map[string]*hclsyntax.Block), kinds: make(map[string][]*hclsyntax.Block),
		locals: make(map[string]hclsyntax.Expression), outputs: make(map[string]hclsyntax.Expression), tfvars: make(map[string]hclsyntax.Expression),
	}
	for _, name := range d.files {
		if content, err := s.read(name, maxTerraform, nil); err == nil {
			c.texts[name] = content
			s.parse(c, name, content)
		}
	}
	return c
}

// parse reads one file of a directory.
func (s *scan) parse(c *code, name, content string) {
	if line := tooDeep(content); line > 0 {
		s.problem(name, line, fmt.Sprintf("the nesting is deeper than %d levels", maxNesting))
		return
	}
	if line := tooLong(content); line > 0 {
		s.problem(name, line, "an expression is longer than a parser should follow")
		return
	}
	f, diags := hclsyntax.ParseConfig([]byte(content), name, hcl.InitialPos)
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			line := 1
			if d.Subject != nil {
				line = d.Subject.Start.Line
			}
			s.problem(name, line, "the Terraform file is broken here: "+d.Summary)
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
				c.tfvars[k] = a.Expr
			}
		}
		return
	}
	for _, b := range body.Blocks {
		switch {
		case b.Type == "locals":
			for k, a := range b.Body.Attributes {
				c.locals[k] = a.Expr
			}
		case (b.Type == "resource" || b.Type == "data") && len(b.Labels) == 2:
			key := b.Labels[0] + "." + b.Labels[1]
			if b.Type == "data" {
				key = "data." + key
			}
			c.blocks[key] = b
			kind := key[:strings.LastIndexByte(key, '.')]
			c.kinds[kind] = append(c.kinds[kind], b)
		case b.Type == "output" && len(b.Labels) == 1 && b.Body.Attributes["value"] != nil:
			c.outputs[b.Labels[0]] = b.Body.Attributes["value"].Expr
		case (b.Type == "variable" || b.Type == "module") && len(b.Labels) == 1:
			c.blocks[b.Type+"."+b.Labels[0]] = b
			c.kinds[b.Type] = append(c.kinds[b.Type], b)
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

// within gives the text of a range. What is broken has ranges that end before
// they begin: they are empty, or go to the end of the file.
func (c *code) within(r hcl.Range) string {
	text := c.texts[r.Filename]
	from, to := min(r.Start.Byte, len(text)), min(r.End.Byte, len(text))
	if to == 0 {
		to = len(text)
	}
	return text[from:max(from, to)]
}

// source gives the source of an expression as a value that can't be told.
func (m *module) source(e hclsyntax.Expression) string {
	text := m.within(e.Range())
	if text != "" {
		text = strings.Join(strings.Fields(text), " ")
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
