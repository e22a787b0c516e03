package policy

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// shownOf gives an operand's values for a message.
func shownOf(o operand) string {
	var parts []string
	for i, v := range o.values {
		if i == 5 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, shown(v))
	}
	return strings.Join(parts, ", ")
}

// jsonText gives an operand's value as JSON, shortened.
func jsonText(o operand) string {
	if len(o.values) == 0 || o.constant {
		return ""
	}
	if len(o.values) == 1 {
		return jsonOf(o.values[0])
	}
	return jsonOf(ast.ArrayTerm(o.values...))
}

func jsonOf(t *ast.Term) string {
	if s, ok := t.Value.(ast.String); ok {
		return quote(string(s), 200)
	}
	if set, ok := t.Value.(ast.Set); ok {
		t = ast.ArrayTerm(set.Slice()...)
	}
	return clip(t.String(), 240)
}

var plainText = regexp.MustCompile(`^[A-Za-z0-9_./:@+-]{1,80}$`)

// shown is a value as a message shows it: short, on one line, and unlike any
// other value.
func shown(t *ast.Term) string {
	switch v := t.Value.(type) {
	case ast.String:
		s := string(v)
		if plainText.MatchString(s) && s != "true" && s != "false" && s != "null" && !(s[0] >= '0' && s[0] <= '9' && isNumber(s)) {
			return s
		}
		return quote(s, 60)
	case *ast.Array, ast.Set:
		if isEmpty(t) {
			return "empty"
		}
		var parts []string
		eachMember(t, func(_, e *ast.Term) bool {
			if len(parts) == 10 {
				parts = append(parts, "...")
				return false
			}
			parts = append(parts, shown(e))
			return true
		})
		return "[" + clip(strings.Join(parts, ", "), 300) + "]"
	}
	return clip(t.String(), 80)
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// quote shortens a text to n runes and writes it as a Go (and JSON) string:
// line breaks, control characters and those that turn the reading direction are
// escaped, so that no value can write into a log or a terminal.
func quote(s string, n int) string {
	if utf8.RuneCountInString(s) > n {
		s = string([]rune(s)[:n]) + "…"
	}
	return strconv.Quote(s)
}

// clean is free text from a policy or a value, shortened, on one line, with
// everything that could act on a terminal escaped. What is clean stays as it is.
func clean(s string, n int) string {
	if utf8.RuneCountInString(s) > n {
		s = string([]rune(s)[:n]) + "…"
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
