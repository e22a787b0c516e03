package policy

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// exactIDs are identifiers: equal or not, never similar.
var exactIDs = words2set(`identity.tenant identity.issuer identity.owner_id identity.repository_id identity.actor_id
	identity.run_id identity.workflow_id identity.job_id identity.role runner.id runner.trust_domain resource.tenant`)

// names have parts, and an owner at one end; parts of them can be compared with care.
var names = words2set(`identity.repository identity.subject identity.ref identity.branch identity.tag identity.workflow
	identity.job_workflow identity.environment identity.actor runner.spiffe_id runner.region resource.name resource.service
	resource.environment context.branch context.tag context.ref context.commit context.commit_signer context.service
	context.environment`)

func words2set(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}

// conditions checks every call in a rule.
func (l *linter) conditions(r *ast.Rule, sc *scope) {
	own := *r
	own.Else = nil // has a scope of its own
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			if t, ok := x.Terms.([]*ast.Term); ok {
				l.operation(t, x.Location, sc)
			}
			if every, ok := x.Terms.(*ast.Every); ok {
				sc.learn(every.Body)
			}
		case ast.Call:
			l.operation(x, x[0].Location, sc)
		case *ast.ArrayComprehension:
			sc.learn(x.Body)
		case *ast.SetComprehension:
			sc.learn(x.Body)
		}
		return false
	}).Walk(&own)
}

func (l *linter) operation(t []*ast.Term, loc *ast.Location, sc *scope) {
	op, args := t[0].Value.String(), t[1:]
	if loc == nil {
		loc = t[0].Location
	}
	switch {
	case isComparison(op) && len(args) == 2:
		l.comparison(op, sc.inputPath(args[0]), args[1], loc)
		l.comparison(op, sc.inputPath(args[1]), args[0], loc)
	case op == "internal.member_2":
		path := sc.inputPath(args[0])
		if path != "" && ast.IsConstant(args[1].Value) {
			eachMember(args[1], func(_, v *ast.Term) bool { l.comparison("equal", path, v, loc); return true })
		}
	case (op == "lower" || op == "upper") && len(args) >= 1:
		if path := sc.inputPath(args[0]); exactIDs[path] || names[path] {
			l.fail(proviso.CodePolicyLintCasefold, loc, "compare it as it is: the platforms give identifiers in one spelling",
				"%s changes the case of %s: two different names become equal", op, describePath(path))
		}
	default:
		l.pattern(op, args, loc, sc)
	}
}

// comparison checks a value of the input that is compared with a constant.
func (l *linter) comparison(op, path string, constant *ast.Term, loc *ast.Location) {
	s, isText := constant.Value.(ast.String)
	if path == "" || !isText {
		return
	}
	text := string(s)
	if f, ok := textFormats[path]; ok && !regexp.MustCompile(f.pattern).MatchString(text) {
		l.fail(CodeLintTime, loc, "write it as "+f.shape, "%s is compared with %q as text, which gives a wrong order", describePath(path), clip(text, 40))
	}
	equality := op == "equal" || op == "eq" || op == "neq"
	if list, ok := words[path]; ok && equality && !slices.Contains(list, text) {
		l.fail(CodeLintEnum, loc, "it is one of "+strings.Join(list, ", "), "%s is never %q", describePath(path), clip(text, 40))
	}
	if equality && (exactIDs[path] || names[path]) && strings.Contains(text, "*") {
		l.fail(proviso.CodePolicyLintWildcardID, loc, "name each one, or use glob.match on a name",
			"== compares text as it is: %s is never %q", describePath(path), clip(text, 60))
	}
}

// pattern checks the functions that find one text in another.
func (l *linter) pattern(op string, args []*ast.Term, loc *ast.Location, sc *scope) {
	at, with := 0, 1
	switch op {
	case "startswith", "endswith", "contains", "strings.any_prefix_match", "strings.any_suffix_match":
	case "regex.match":
		at, with = 1, 0
	case "glob.match":
		at, with = 2, 0
	default:
		return
	}
	if len(args) <= max(at, with) {
		return
	}
	path := sc.inputPath(args[at])
	if path == "" {
		return
	}
	if exactIDs[path] {
		l.fail(proviso.CodePolicyLintWildcardID, loc, "compare it with ==, or with in and a list",
			"%s looks for a part of %s, which is an identifier: others that look like it would match", op, describePath(path))
		return
	}
	texts := constants(args[with])
	for _, text := range texts {
		l.patternText(op, path, text, args, loc)
	}
}

func (l *linter) patternText(op, path, text string, args []*ast.Term, loc *ast.Location) {
	named := names[path]
	switch op {
	case "regex.match":
		re, err := syntax.Parse(text, syntax.Perl)
		switch {
		case err != nil:
			l.fail(CodeLintPattern, loc, "", "the pattern %s is no regular expression: %v", quote(text, 60), err)
		case named && strings.Contains(text, "(?i"):
			l.fail(proviso.CodePolicyLintCasefold, loc, "leave (?i) out", "the pattern takes two different names of %s for one", describePath(path))
		case named && !(anchored(re, syntax.OpBeginText) && anchored(re, syntax.OpEndText)):
			l.fail(CodeLintPattern, loc, "write ^(...)$ around the whole pattern",
				"the pattern %s also matches longer texts around what it names", quote(text, 60))
		}
	case "glob.match":
		if named && strings.Contains(text, "*") && strings.Contains(text, "/") && !strings.Contains(args[1].String(), `"/"`) {
			l.warn(CodeLintPattern, loc, `write ["/"] as the second argument`, "without / as delimiter the * of %s also matches what is below", quote(text, 60))
		}
	case "startswith", "strings.any_prefix_match":
		if named && text != "" && isWord(text[len(text)-1]) {
			l.warn(CodeLintPattern, loc, `end it with the separator, as "acme/"`, "%s may also go on with other letters after %s", describePath(path), quote(text, 60))
		}
	case "endswith", "strings.any_suffix_match":
		if named && text != "" && isWord(text[0]) {
			l.warn(CodeLintPattern, loc, "begin it with the separator", "%s may also have other letters before %s", describePath(path), quote(text, 60))
		}
	case "contains":
		switch {
		case named:
			l.warn(CodeLintPattern, loc, "compare the whole name, or its beginning", "%s may hold %s anywhere", describePath(path), quote(text, 60))
		case strings.HasSuffix(path, ".annotation"):
			l.warn(CodeLintDeclared, loc, "check the fact: input.context.ticket_approved == true",
				"an annotation is the request's own text: %s passes too", quote("NOT "+text, 60))
		}
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// constants gives the texts that a term spells out.
func constants(t *ast.Term) []string {
	if s, ok := t.Value.(ast.String); ok {
		return []string{string(s)}
	}
	var out []string
	if ast.IsConstant(t.Value) {
		eachMember(t, func(_, v *ast.Term) bool {
			if s, ok := v.Value.(ast.String); ok {
				out = append(out, string(s))
			}
			return true
		})
	}
	return out
}

// anchored reports whether every text that re matches begins (ends) where the
// whole text does. In ^a|b$ only the first alternative begins there.
func anchored(re *syntax.Regexp, end syntax.Op) bool {
	switch re.Op {
	case end:
		return true
	case syntax.OpCapture:
		return anchored(re.Sub[0], end)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return !anchored(s, end) })
	case syntax.OpConcat:
		if len(re.Sub) == 0 {
			return false
		}
		if end == syntax.OpBeginText {
			return anchored(re.Sub[0], end)
		}
		return anchored(re.Sub[len(re.Sub)-1], end)
	}
	return false
}
