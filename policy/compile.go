package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/proviso-ci/proviso"
)

// program is all modules of a revision, compiled together once. Nothing in it
// changes after compile has returned, so requests share it without locks.
type program struct {
	compiler  *ast.Compiler
	store     storage.Store
	txn       storage.Transaction // for reading; the store is never written again
	data      ast.Object
	modules   []module // decisions, in the order of their paths
	tests     []module
	packages  map[string][]string // paths of the modules of each package
	content   map[string]string   // of modules and data, by path
	dataFiles []file
	// source is the modules as their authors wrote them, names resolved and
	// variables made unique, but conditions still whole. Explanations walk it.
	source map[string]*ast.Module
	index  map[string][]*ast.Rule // the rules in source, by their path
	schema *ast.SchemaSet
}

// compile parses, checks and compiles the files of a tree.
func compile(t tree, extraFacts map[string]string) (*program, Problems) {
	p := &program{packages: map[string][]string{}, content: map[string]string{}, source: map[string]*ast.Module{}, index: map[string][]*ast.Rule{}, schema: schemaSet(extraFacts)}
	var problems Problems
	for _, f := range t.files {
		p.content[f.path] = f.content
		if f.isData() {
			p.dataFiles = append(p.dataFiles, f)
			continue
		}
		m, bad := parse(f)
		if len(bad) == 0 {
			bad = checkModule(m, extraFacts)
		}
		problems = append(problems, bad...)
		if f.isTest() {
			p.tests = append(p.tests, m)
		} else {
			p.modules = append(p.modules, m)
			p.packages[m.name] = append(p.packages[m.name], m.path)
		}
	}
	data, bad := dataDocument(t.files)
	if problems = append(problems, bad...); len(problems) > 0 {
		return nil, problems
	}
	p.data = data
	p.store = inmem.NewFromASTObject(data)
	txn, err := p.store.NewTransaction(context.Background())
	if err != nil {
		return nil, Problems{{Code: proviso.CodePolicyError, Message: "the store of policy data doesn't open: " + err.Error()}}
	}
	p.txn = txn
	p.compiler = p.newCompiler().
		WithPathConflictsCheck(storage.NonEmpty(context.Background(), p.store, p.txn)).
		WithStageAfterID(ast.StageRewriteTemplateStrings, ast.CompilerStageDefinition{
			Name: "KeepSource", MetricName: "keep_source", Stage: p.keepSource})
	p.compiler.Compile(syntaxOf(p.modules))
	if p.compiler.Failed() {
		return nil, p.compileProblems(p.compiler.Errors, p.modules)
	}
	return p, nil
}

// newCompiler gives a compiler with everything that a policy is checked for.
func (p *program) newCompiler() *ast.Compiler {
	return ast.NewCompiler().
		WithCapabilities(capabilities(ast.RegoV1)).
		WithSchemas(p.schema).
		WithUseTypeCheckAnnotations(true).
		WithEnablePrintStatements(false).
		SetErrorLimit(20)
}

func (p *program) keepSource(c *ast.Compiler) *ast.Error {
	for _, f := range p.modules {
		m := c.Modules[f.path].Copy()
		p.source[f.path] = m
		for _, rule := range m.Rules {
			at := rule.Ref().GroundPrefix().String()
			p.index[at] = append(p.index[at], rule)
		}
	}
	return nil
}

func syntaxOf(ms []module) map[string]*ast.Module {
	out := make(map[string]*ast.Module, len(ms))
	for _, m := range ms {
		out[m.path] = m.syntax
	}
	return out
}

// checkModule looks at what the parser allows and Proviso does not.
func checkModule(m module, extraFacts map[string]string) Problems {
	problems := checkBuiltins(m)
	name := m.name
	switch {
	case name == "":
		problems = append(problems, m.problem(CodeTypeCheck, m.syntax.Package.Location,
			"use letters, digits, _ and - in each part", "a grant can't name the package %s", m.syntax.Package.Path))
	case name == "system" || strings.HasPrefix(name, "system."):
		problems = append(problems, m.problem(proviso.CodePolicyScope, m.syntax.Package.Location,
			"use another name", "the package %s would configure OPA itself; here it has no effect, and no policy reaches the record", name))
	}
	problems = append(problems, checkWith(m, extraFacts)...)
	if m.old {
		// Today's Rego refuses these by itself; the older syntax let them through.
		opts := ast.RegoCheckOptions{NoDuplicateImports: true, NoRootDocumentOverrides: true, NoDeprecatedBuiltins: true}
		for _, e := range ast.CheckRegoV1WithOptions(m.syntax, opts) {
			problems = append(problems, m.problem(CodeTypeCheck, e.Location, "", "%s", e.Message))
		}
	}
	return problems
}

// checkWith finds misspelt fields in "with input.identity.rolle as ...", which
// the type checker doesn't look at: such a test would test nothing.
func checkWith(m module, extraFacts map[string]string) Problems {
	var out Problems
	ast.WalkWiths(m.syntax, func(w *ast.With) bool {
		ref, ok := w.Target.Value.(ast.Ref)
		if !ok || !ref[0].Equal(ast.InputRootDocument) {
			return false
		}
		path := constantPath(ref[1:])
		for i := range path {
			names, free := fieldsAt(path[:i])
			if free {
				break
			}
			if _, extra := extraFacts[path[i]]; extra && i == 1 && path[0] == "context" {
				break
			}
			if !slices.Contains(names, path[i]) {
				owner, hint := strings.Join(append([]string{"input"}, path[:i]...), "."), ""
				if near := nearest(path[i], names); near != "" {
					hint = fmt.Sprintf("did you mean %s.%s?", owner, near)
				}
				out = append(out, m.problem(CodeTypeCheck, w.Location, hint, "%s has no field %s", owner, path[i]))
				break
			}
		}
		return false
	})
	return out
}

func (p *program) compileProblems(list ast.Errors, modules []module) Problems {
	var out Problems
	for _, e := range list {
		m := module{}
		if e.Location != nil {
			if i := slices.IndexFunc(modules, func(m module) bool { return m.path == e.Location.File }); i >= 0 {
				m = modules[i]
			}
		}
		msg, hint := compileHint(e)
		q := m.problem(CodeTypeCheck, e.Location, hint, "%s", msg)
		if e.Location != nil && q.File == "" {
			q.File = e.Location.File
		}
		out = append(out, q)
	}
	return out
}

// compileHint puts the compiler's words plainly where that is possible.
func compileHint(e *ast.Error) (message, hint string) {
	var detail *ast.RefErrInvalidDetail
	if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok {
		detail = d
	}
	switch {
	case detail != nil && detail.Pos > 0 && detail.Pos < len(detail.Ref):
		owner := detail.Ref[:detail.Pos].String()
		field := strings.Trim(detail.Ref[detail.Pos].Value.String(), `"`)
		var names []string
		for _, v := range detail.OneOf {
			names = append(names, strings.Trim(v.String(), `"`))
		}
		if len(names) == 0 {
			return fmt.Sprintf("%s has no fields, so it has no %s", owner, field), ""
		}
		slices.Sort(names)
		hint = owner + " has: " + strings.Join(names, ", ")
		if near := nearest(field, names); near != "" {
			hint = fmt.Sprintf("did you mean %s.%s? %s", owner, near, hint)
		}
		return fmt.Sprintf("%s has no field %s", owner, field), hint
	case strings.HasPrefix(e.Message, "match error"):
		hint = "the two sides have different types, so they are never equal"
	case strings.Contains(e.Message, "is unsafe"):
		hint = "the variable gets no value in this rule: a misspelt name, or input. is missing before it"
	case e.Code == ast.RecursionErr:
		hint = "a rule may not use itself, not even by way of another rule"
	}
	msg := strings.ReplaceAll(strings.TrimSpace(e.Message), "\n", "; ")
	if e.Details != nil {
		var lines []string
		for _, l := range e.Details.Lines() {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "^") {
				lines = append(lines, l)
			}
		}
		if len(lines) > 0 && e.Code != ast.ParseErr {
			msg += " (" + clip(strings.Join(lines, "; "), 300) + ")"
		}
	}
	return msg, hint
}

// nearest gives the name that differs from word in few letters, "" if none does.
func nearest(word string, names []string) string {
	best, at := len(word)/3+2, ""
	for _, n := range names {
		if d := distance(word, n); d < best {
			best, at = d, n
		}
	}
	return at
}

// distance counts the letters to insert, remove or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// errNotLoaded is never seen by a caller of Open: an Engine has a revision.
var errNotLoaded = errors.New("no policies are loaded")
