package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// revision is everything that was activated together. It is never changed.
type revision struct {
	number   uint64
	at       time.Time
	digest   string
	program  *program
	packages map[string]*Policy
	warnings Problems
	ignored  []string
	tests    int // how many of the policies' own tests passed
}

// build makes a revision of a tree, or says why it can't become active. All
// checks are here: what build returns without an error may decide.
func build(ctx context.Context, t tree, cfg Config, extraFacts map[string]string) (*revision, Problems) {
	prog, problems := compile(t, extraFacts)
	if prog == nil {
		return nil, problems.sorted()
	}
	rev := &revision{program: prog, digest: t.digest(), packages: map[string]*Policy{}, ignored: t.ignored}
	names := packageNames(prog.modules)
	for _, name := range names {
		p, err := prog.policy(name)
		if err != nil {
			problems = append(problems, Problem{Code: CodeTypeCheck, Message: fmt.Sprintf("package %s can't be prepared: %v", name, err)})
			continue
		}
		if p != nil {
			p.revision, p.timeout, p.patience = rev, cfg.timeout(), explainTime
			rev.packages[name] = p
		}
	}
	problems = append(problems, lint(prog, rev.packages)...)
	if len(problems.Errors()) == 0 {
		tests, n := runTests(ctx, prog)
		problems = append(problems, tests...)
		rev.tests = n
	}
	if len(problems.Errors()) == 0 {
		problems = append(problems, runCanaries(ctx, rev)...)
	}
	problems = problems.sorted()
	if len(problems.Errors()) > 0 {
		return nil, problems
	}
	rev.warnings = problems
	prog.forget()
	return rev, nil
}

// forget lets go of what only an activation needs.
func (p *program) forget() {
	for i := range p.modules {
		p.modules[i].syntax = nil
	}
	p.tests, p.source, p.schema = nil, nil, nil
}

// packageNames lists the packages of the modules, each once, sorted.
func packageNames(ms []module) []string {
	var out []string
	for _, m := range ms {
		out = append(out, m.name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func packageRef(name string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument}
	for _, part := range strings.Split(name, ".") {
		ref = append(ref, ast.StringTerm(part))
	}
	return ref
}

// policy prepares one package; nil without an error for one that has no allow,
// whose rules only help others.
func (p *program) policy(name string) (*Policy, error) {
	pkg := packageRef(name)
	roots := map[string][]*ast.Rule{}
	for _, rule := range []string{"allow", "deny", "limits"} {
		roots[rule] = p.compiler.GetRulesExact(pkg.Append(ast.StringTerm(rule)))
	}
	if len(roots["allow"]) == 0 {
		return nil, nil
	}
	out := &Policy{name: name}
	var all []*ast.Rule
	for rule, body := range map[string]*ast.Body{"allow": &out.allow, "deny": &out.deny, "limits": &out.limits} {
		if len(roots[rule]) == 0 {
			continue
		}
		all = append(all, roots[rule]...)
		query := ast.NewBody(ast.Equality.Expr(ast.VarTerm(string(result)), ast.NewTerm(pkg.Append(ast.StringTerm(rule)))))
		compiled, err := p.compiler.QueryCompiler().Compile(query)
		if err != nil {
			return nil, err
		}
		*body = compiled
	}
	reach := p.reachOf(all)
	out.needs = reach.needs()
	out.picker = newPicker(out.needs)
	out.digest = digestOf(p.filesOf(name, reach))
	out.guards = p.guardsOf(pkg)
	out.rules = p.sourceRules(pkg.Append(ast.StringTerm("allow")))
	return out, nil
}

// filesOf lists the files that can have an influence on a package's decisions:
// its own modules, those of every rule it uses, and the data it reads.
func (p *program) filesOf(name string, r *reach) []file {
	used := map[string]bool{}
	for _, path := range p.packages[name] {
		used[path] = true
	}
	for rule := range r.rules {
		if rule.Location != nil {
			used[rule.Location.File] = true
		}
	}
	for _, f := range p.dataFiles {
		at := strings.Join(dataRoot(f.path), ".")
		if slices.ContainsFunc(r.data, func(path string) bool { return overlap(path, at) }) {
			used[f.path] = true
		}
	}
	var t tree
	for path := range used {
		t.files = append(t.files, file{path, p.content[path]})
	}
	t.sort()
	return t.files
}

// overlap reports whether one of two dotted paths contains the other.
func overlap(a, b string) bool {
	return a == "" || b == "" || a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// find gives a package that a grant names.
func (r *revision) find(name string) (*Policy, error) {
	if p, ok := r.packages[name]; ok {
		return p, nil
	}
	var names []string
	for n := range r.packages {
		names = append(names, n)
	}
	no := proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyMissing, "there is no policy %q; the broker's operator has to add it or to correct the grant", clip(name, 80))
	detail := "no package with that name has a rule called allow"
	if near := nearest(name, names); near != "" {
		detail += fmt.Sprintf("; did you mean %s?", near)
	}
	return nil, no.Because(fmt.Errorf("%s (revision %d, %s)", detail, r.number, r.digest))
}
