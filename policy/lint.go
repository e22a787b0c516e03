package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// lint looks for what compiles and can't be meant. Errors keep a revision from
// becoming active; warnings are told.
func lint(p *program, packages map[string]*Policy) Problems {
	var out Problems
	for _, m := range p.modules {
		l := linter{prog: p, module: m}
		for _, rule := range p.source[m.path].Rules {
			l.rule(rule)
		}
		out = append(out, l.problems...)
	}
	tested := packageNames(p.tests)
	for _, name := range packageNames(p.modules) {
		l := linter{prog: p, module: p.modules[slices.IndexFunc(p.modules, func(m module) bool { return m.name == name })]}
		if pol := packages[name]; pol == nil {
			l.helpersOnly(name)
		} else {
			l.allowDeclared(pol)
			if !slices.ContainsFunc(tested, func(t string) bool { return t == name || t == name+"_test" }) {
				l.warn(CodeLintUntested, l.module.syntax.Package.Location, "write a file "+strings.TrimSuffix(l.module.path, ".rego")+"_test.rego with rules test_...",
					"package %s has no tests", name)
			}
		}
		out = append(out, l.problems...)
	}
	return out
}

type linter struct {
	prog     *program
	module   module
	problems Problems
}

func (l *linter) fail(code proviso.Code, loc *ast.Location, hint, format string, args ...any) {
	l.problems = append(l.problems, l.module.problem(code, loc, hint, format, args...))
}

func (l *linter) warn(code proviso.Code, loc *ast.Location, hint, format string, args ...any) {
	p := l.module.problem(code, loc, hint, format, args...)
	p.Warning = true
	l.problems = append(l.problems, p)
}

// rule checks one rule and its else chain.
func (l *linter) rule(rule *ast.Rule) {
	switch ruleName(rule) {
	case "allow":
		l.allow(rule)
	case "deny":
		l.deny(rule)
	case "limits":
		l.limits(rule)
	}
	for r := rule; r != nil; r = r.Else {
		sc := newScope(r, nil)
		l.conditions(r, sc)
	}
}

// allow must be true, false or undefined, and never true by itself.
func (l *linter) allow(rule *ast.Rule) {
	const hint = "write: default allow := false, and allow if { conditions }"
	loc := rule.Location
	if len(rule.Head.Args) > 0 || rule.Head.RuleKind() == ast.MultiValue || len(rule.Head.Ref()) > 1 {
		l.fail(CodeLintAllow, loc, hint, "allow is a function, a set or an object here; it must be true or false")
		return
	}
	for r := rule; r != nil; r = r.Else {
		value := r.Head.Value
		if value == nil {
			continue
		}
		b, isBool := value.Value.(ast.Boolean)
		switch {
		case ast.IsConstant(value.Value) && !isBool:
			l.fail(CodeLintAllow, r.Location, hint, "allow is %s here; it must be true or false", typeName(value))
		case r.Default && bool(b):
			l.fail(CodeLintAllow, r.Location, hint, "the default of allow is true: everything that no rule forbids would be allowed")
		case !r.Default && bool(b) && alwaysTrue(r.Body):
			l.fail(CodeLintAllow, r.Location, hint, "allow is true without a condition: everything would be allowed")
		}
	}
}

func alwaysTrue(body ast.Body) bool {
	for _, e := range body {
		t, ok := e.Terms.(*ast.Term)
		if !ok || e.Negated || len(e.With) > 0 || !ast.IsConstant(t.Value) || isFalse(t) {
			return false
		}
	}
	return true
}

// deny must be a set of messages that is always there.
func (l *linter) deny(rule *ast.Rule) {
	const hint = `write: deny contains "the reason" if { conditions }`
	kind := rule.Head.RuleKind()
	switch {
	case len(rule.Head.Args) > 0:
		l.fail(CodeLintAllow, rule.Location, hint, "deny is a function here; it must be a set of messages")
	case kind == ast.MultiValue && len(rule.Head.Ref()) > 1:
		l.fail(CodeLintAllow, rule.Location, hint, "deny is an object of sets here; it must be a set of messages")
	case kind == ast.MultiValue:
		if k := rule.Head.Key; k != nil && ast.IsConstant(k.Value) {
			if _, text := k.Value.(ast.String); !text {
				l.fail(CodeLintAllow, rule.Location, hint, "deny holds %s here; it must hold messages", typeName(k))
			}
		}
	case rule.Default || alwaysTrue(rule.Body) && isSet(rule.Head.Value) && rule.Else == nil:
	default:
		l.fail(CodeLintAllow, rule.Location, hint, "deny is not a set of messages here; where its conditions don't hold it would be undefined")
	}
	if rule.Default && !isSet(rule.Head.Value) {
		l.fail(CodeLintAllow, rule.Location, hint, "the default of deny is %s; it must be a set", typeName(rule.Head.Value))
	}
}

func isSet(t *ast.Term) bool {
	if t == nil {
		return false
	}
	switch t.Value.(type) {
	case ast.Set, *ast.SetComprehension:
		return true
	}
	return false
}

// limits that are spelt out are read now, not in the first request.
func (l *linter) limits(rule *ast.Rule) {
	const hint = `write: limits := {"ttl": 900, "scope": ["deploy"]}`
	if len(rule.Head.Args) > 0 || rule.Head.RuleKind() == ast.MultiValue {
		l.fail(CodeLintAllow, rule.Location, hint, "limits is a function or a set here; it must be an object")
		return
	}
	for r := rule; r != nil; r = r.Else {
		v := r.Head.Value
		if v == nil || len(rule.Head.Ref()) > 1 {
			continue // limits.ttl := 900, which only the whole object can be judged by
		}
		if ast.IsConstant(v.Value) {
			if _, err := parseLimits(v); err != nil {
				l.fail(CodeLintAllow, r.Location, hint, "%v", err)
			}
			continue
		}
		if obj, ok := v.Value.(ast.Object); ok {
			obj.Foreach(func(k, _ *ast.Term) {
				if name, ok := k.Value.(ast.String); ok && name != "ttl" && name != "scope" && name != "approvals" {
					l.fail(CodeLintAllow, r.Location, hint, "limits has a member %s; it may have ttl (seconds), scope (a list) and approvals (a number)", k)
				}
			})
		}
	}
}

// helpersOnly: a package without allow is fine, unless a name looks like it.
func (l *linter) helpersOnly(name string) {
	for _, m := range l.prog.modules {
		if m.name != name {
			continue
		}
		for _, rule := range m.syntax.Rules {
			n := ruleName(rule)
			if strings.HasSuffix(n, "allow") || distance(n, "allow") == 1 {
				at := linter{prog: l.prog, module: m}
				at.warn(CodeLintAllow, rule.Location, "did you mean allow?", "package %s has no rule called allow, so no grant can name it; %s is not read", name, n)
				l.problems = append(l.problems, at.problems...)
			}
		}
	}
}

// allowDeclared warns of a rule of allow in which nothing says who may.
func (l *linter) allowDeclared(p *Policy) {
	for _, rule := range l.prog.compiler.GetRulesExact(packageRef(p.name).Append(ast.StringTerm("allow"))) {
		if rule.Default {
			continue
		}
		r := l.prog.reachOf([]*ast.Rule{rule})
		if r.all || len(r.paths) == 0 {
			continue
		}
		var own []string
		verified := false
		for path := range r.paths {
			part, key, _ := strings.Cut(path, ".")
			key, _, _ = strings.Cut(key, ".")
			if part == "identity" || part == "runner" || part == "context" && !declared[key] && !surroundings[key] {
				verified = true
			}
			if part == "intent" || part == "context" && declared[key] {
				own = append(own, shortPath(path))
			}
		}
		if verified || len(own) == 0 {
			continue
		}
		slices.Sort(own)
		at := linter{prog: l.prog, module: l.moduleOf(rule)}
		at.warn(CodeLintDeclared, rule.Location, "add a condition on input.identity, input.runner or a checked fact, as input.context.ticket_approved == true",
			"nothing in this rule says who may: it rests on what the request itself declares (%s), and anybody can declare it", strings.Join(own, ", "))
		l.problems = append(l.problems, at.problems...)
	}
}

// surroundings are facts that are the same whoever asks, and the grant's words.
var surroundings = map[string]bool{"time": true, "weekday": true, "date": true, "timestamp": true, "zone": true, "service": true, "environment": true, "freeze": true}

func (l *linter) moduleOf(rule *ast.Rule) module {
	for _, m := range l.prog.modules {
		if m.path == rule.Location.File {
			return m
		}
	}
	return l.module
}

// inputPath gives the path in the input that a term is, following variables;
// "" if it is none.
func (sc *scope) inputPath(t *ast.Term) string {
	for range 8 {
		v, ok := t.Value.(ast.Var)
		if !ok || sc.origin[v] == nil {
			break
		}
		t = sc.origin[v]
	}
	ref, ok := t.Value.(ast.Ref)
	if !ok || len(ref) < 2 {
		return ""
	}
	path := constantPath(ref[1:])
	if head, ok := ref[0].Value.(ast.Var); ok && sc.origin[head] != nil {
		if base := sc.inputPath(sc.origin[head]); base != "" {
			return joinPath(base, strings.Join(path, "."))
		}
		return ""
	}
	if !ref[0].Equal(ast.InputRootDocument) || len(path) != len(ref)-1 {
		return ""
	}
	return strings.Join(path, ".")
}

func describePath(path string) string { return fmt.Sprintf("input.%s", path) }
