package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// module is one parsed .rego file.
type module struct {
	file
	syntax *ast.Module
	// name of the package as a grant writes it: "production", "team.production".
	name string
	// old: written in the syntax from before Rego 1.0, without "if".
	old bool
}

// packageName gives "a.b" for data.a.b, "" if a part has no such spelling.
func packageName(ref ast.Ref) string {
	var parts []string
	for _, t := range ref[1:] {
		s, ok := t.Value.(ast.String)
		if !ok || !plainName.MatchString(string(s)) {
			return ""
		}
		parts = append(parts, string(s))
	}
	return strings.Join(parts, ".")
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// problem makes a Problem at loc in m.
func (m module) problem(code proviso.Code, loc *ast.Location, hint, format string, args ...any) Problem {
	p := Problem{Code: code, File: m.path, Message: fmt.Sprintf(format, args...), Hint: hint}
	if loc != nil {
		p.Line, p.Column = loc.Row, loc.Col
		p.Source = sourceLine(m.content, loc.Row)
	}
	return p
}

// sourceLine gives a line of the text, bounded.
func sourceLine(text string, line int) string {
	for i := 1; text != ""; i++ {
		l, rest, _ := strings.Cut(text, "\n")
		if i == line {
			return clip(strings.TrimRight(l, "\r"), 160)
		}
		text = rest
	}
	return ""
}

// Parsing for the two syntaxes. In the older one "in" is a keyword too, as the
// policies of its time that used it imported it; nothing else is added.
var (
	parseNew = ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities(ast.RegoV1), ProcessAnnotation: true}
	parseOld = ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: capabilities(ast.RegoV0), ProcessAnnotation: true, FutureKeywords: []string{"in"}}
)

// parse reads a module in today's Rego, and if it is none, in the older syntax.
//
// The fall back has a trap: the older syntax has no keyword "if", so it reads
//
//	allow := true if { input.x }
//
// as two rules, an unconditional allow and one that is called "if". A file in
// today's Rego with a mistake in another place would then allow everything. So
// a module counts as old only if none of its rules is called like a keyword.
func parse(f file) (module, Problems) {
	m := module{file: f}
	syntax, errNew := ast.ParseModuleWithOpts(f.path, f.content, parseNew)
	if errNew == nil && syntax != nil {
		m.syntax, m.name = syntax, packageName(syntax.Package.Path)
		return m, nil
	}
	syntax, errOld := ast.ParseModuleWithOpts(f.path, f.content, parseOld)
	if errOld == nil && syntax != nil && !rulesNamedLikeKeywords(syntax) {
		m.syntax, m.old, m.name = syntax, true, packageName(syntax.Package.Path)
		return m, nil
	}
	err := errNew
	if errOld != nil && meantOld(f.content) {
		err = errOld
	}
	if err == nil {
		return m, Problems{{Code: proviso.CodePolicyParse, File: f.path, Message: "the file holds no module", Hint: "begin it with a package line: package production"}}
	}
	return m, m.parseProblems(err)
}

func rulesNamedLikeKeywords(m *ast.Module) bool {
	found := false
	ast.WalkRules(m, func(r *ast.Rule) bool {
		name := ""
		if ref := r.Head.Ref(); len(ref) > 0 {
			name = strings.Trim(ref[0].Value.String(), `"`)
		}
		for _, n := range []string{name, string(r.Head.Name)} {
			switch n {
			case "if", "contains", "every", "in", "some", "and", "or":
				found = true
			}
		}
		return found
	})
	return found
}

var (
	newSyntax = regexp.MustCompile(`(?m)^import\s+(rego\.v[0-9]|future\.keywords)|^[^#\n]*\bif\b|^\s*[a-z_]\w*\s+contains\s`)
	oldSyntax = regexp.MustCompile(`(?m)^\s*[A-Za-z_][\w.]*(\[[^\]\n]*\]|\([^)\n]*\))?\s*(=[^={\n]+)?\{`)
)

// meantOld guesses which syntax the author of a module that is wrong in both
// had in mind, so that the messages are about that one.
func meantOld(source string) bool {
	return !newSyntax.MatchString(source) && oldSyntax.MatchString(source)
}

func (m module) parseProblems(err error) Problems {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return Problems{m.problem(proviso.CodePolicyParse, nil, "", "%s", err.Error())}
	}
	var out Problems
	for _, e := range list {
		msg, hint := parseHint(e.Message, m.content, e.Location)
		p := m.problem(proviso.CodePolicyParse, e.Location, hint, "%s", msg)
		if p.Line == 0 {
			p.Column = 0
		}
		if len(out) > 0 && out[len(out)-1].Line == p.Line {
			continue // one mistake makes the parser complain more than once
		}
		if out = append(out, p); len(out) == 10 {
			break
		}
	}
	return out
}

// parseHint puts the parser's words plainly where that is possible.
func parseHint(msg, source string, loc *ast.Location) (message, hint string) {
	line := ""
	if loc != nil {
		line = sourceLine(source, loc.Row)
	}
	switch {
	case strings.HasPrefix(msg, "package expected"), msg == "empty module":
		return "the module has no package line", "begin the file with: package production"
	case strings.Contains(line, "“") || strings.Contains(line, "”"):
		return "typographic quotes", `write straight quotes: "`
	case strings.Contains(line, "'") && strings.Contains(msg, "illegal token"):
		return "single quotes don't make a string", `write double quotes: "`
	case strings.Contains(msg, `expected \n or ; or }`):
		return "two conditions stand on one line, or something is left over after a condition", "give each condition its own line, or put ; between them"
	case strings.Contains(msg, "`if` keyword is required"):
		return "the word if is missing before the rule's body", "write: allow if { ... }"
	case strings.Contains(msg, "`contains` keyword is required"):
		return "the word contains is missing in a rule that makes a set", "write: deny contains message if { ... }"
	case strings.Contains(msg, "unexpected eof"):
		return "the file ends inside a rule", "a closing bracket is missing"
	case strings.Contains(msg, "var cannot be used for rule name"):
		return "this is not a rule", "a rule is written: name if { conditions }, or name := value"
	}
	return strings.TrimSpace(msg), ""
}

// clip shortens text to n runes' worth of bytes without cutting one in two.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	cut := n
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "…"
}
