package trust

import (
	"strings"
)

const maxExpression = 8 << 10

// celConditions reads the part of CEL that attribute conditions and claim
// validation rules are made of: comparisons of one claim with texts, joined by
// && and, for the same claim, by ||. Anything else is one Expression, which
// matches nothing and refuses nothing.
//
// claim turns a reference (assertion.repository, claims.sub) into the name of a
// claim; "" when it isn't one.
func celConditions(expr string, line int, claim func(string) string) []Condition {
	var out []Condition
	if len(expr) > maxExpression {
		return []Condition{{Match: Expression, Values: []string{"an expression of more than 8 KiB"}, Line: line}}
	}
	for _, part := range splitTop(expr, "&&") {
		alternatives := splitTop(part, "||")
		merged, ok := Condition{Line: line}, true
		for i, alt := range alternatives {
			c, known := celOne(alt, claim)
			if !known || i > 0 && (c.Claim != merged.Claim || c.Match != merged.Match || c.Not || merged.Not) {
				ok = false
				break
			}
			c.Values = append(merged.Values, c.Values...)
			merged = c
		}
		switch {
		case ok && merged.Claim == "": // true, or has(x)
		case ok:
			merged.Line = line
			out = append(out, merged)
		case len(alternatives) == 1 && strings.HasPrefix(strings.TrimSpace(part), "(") && inner(part) != "":
			out = append(out, celConditions(inner(part), line, claim)...)
		default:
			out = append(out, Condition{Match: Expression, Values: []string{strings.Join(strings.Fields(part), " ")}, Line: line})
		}
	}
	return out
}

// inner gives what stands in the parentheses around a whole expression, "" when there are none.
func inner(s string) string {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "(") {
		return ""
	}
	depth := 0
	for i, in := range topLevel(s) {
		if in {
			continue // within a text
		}
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 && i < len(s)-1 {
				return ""
			}
		}
	}
	if depth != 0 || len(s) < 2 {
		return ""
	}
	return s[1 : len(s)-1]
}

// topLevel says for each byte whether it stands within a text.
func topLevel(s string) []bool {
	out := make([]bool, len(s))
	var quote byte
	for i := 0; i < len(s); i++ {
		out[i] = quote != 0
		switch {
		case quote != 0 && s[i] == '\\':
			if i++; i < len(s) {
				out[i] = true
			}
		case quote != 0 && s[i] == quote:
			quote = 0
		case quote == 0 && (s[i] == '"' || s[i] == '\''):
			quote = s[i]
		}
	}
	return out
}

// splitTop cuts an expression at an operator that stands in no text and no brackets.
func splitTop(s, op string) []string {
	var out []string
	quoted := topLevel(s)
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		if quoted[i] {
			continue
		}
		switch s[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		}
		if depth == 0 && strings.HasPrefix(s[i:], op) {
			out = append(out, s[start:i])
			start = i + len(op)
			i = start - 1
		}
	}
	return append(out, s[start:])
}

// celOne reads one comparison.
func celOne(s string, claim func(string) string) (Condition, bool) {
	s = strings.TrimSpace(s)
	for in := inner(s); in != ""; in = inner(s) {
		if len(splitTop(in, "&&"))+len(splitTop(in, "||")) > 2 {
			return Condition{}, false
		}
		s = strings.TrimSpace(in)
	}
	switch {
	case s == "true", strings.HasPrefix(s, "has(") && strings.HasSuffix(s, ")"):
		return Condition{}, true
	case strings.HasPrefix(s, "!"):
		c, ok := celOne(s[1:], claim)
		c.Not = !c.Not
		return c, ok && c.Claim != ""
	}
	for _, op := range []string{"==", "!="} {
		if parts := splitTop(s, op); len(parts) == 2 {
			left, right := strings.TrimSpace(parts[0]), strings.TrimSpace(parts[1])
			if _, ok := literal(left); ok {
				left, right = right, left
			}
			v, ok := literal(right)
			name := claim(left)
			return Condition{Claim: name, Match: Exact, Values: []string{v}, Not: op == "!="}, ok && name != ""
		}
	}
	if parts := splitTop(s, " in "); len(parts) == 2 {
		values, ok := literals(parts[1])
		name := claim(strings.TrimSpace(parts[0]))
		return Condition{Claim: name, Match: Exact, Values: values}, ok && name != ""
	}
	for call, match := range map[string]Match{"startsWith": Glob, "endsWith": Glob, "contains": Glob, "matches": Regex} {
		left, arg, ok := strings.Cut(s, "."+call+"(")
		if !ok || !strings.HasSuffix(arg, ")") {
			continue
		}
		v, ok := literal(strings.TrimSuffix(arg, ")"))
		name := claim(strings.TrimSpace(left))
		switch call {
		case "startsWith":
			v += "*"
		case "endsWith":
			v = "*" + v
		case "contains":
			v = "*" + v + "*"
		}
		return Condition{Claim: name, Match: match, Values: []string{v}}, ok && name != ""
	}
	return Condition{}, false
}

// literal reads a text or a word such as true or 123.
func literal(s string) (string, bool) {
	s = strings.TrimSpace(s)
	raw := strings.HasPrefix(s, "r'") || strings.HasPrefix(s, `r"`)
	if raw {
		s = s[1:]
	}
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		in := s[1 : len(s)-1]
		if raw {
			return in, true
		}
		if strings.IndexByte(in, s[0]) >= 0 && !strings.Contains(in, `\`) {
			return "", false // two texts and something between
		}
		return strings.NewReplacer(`\\`, `\`, `\'`, "'", `\"`, `"`).Replace(in), true
	}
	if s == "true" || s == "false" || s != "" && strings.Trim(s, "0123456789") == "" {
		return s, true
	}
	return "", false
}

// literals reads a list of texts.
func literals(s string) ([]string, bool) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "[") || !strings.HasSuffix(s, "]") {
		return nil, false
	}
	var out []string
	for _, item := range splitTop(s[1:len(s)-1], ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		v, ok := literal(item)
		if !ok {
			return nil, false
		}
		out = append(out, v)
	}
	return out, len(out) > 0
}

// memberOf makes a function for celConditions: claims below one of the names,
// as assertion.x, assertion['x'] or assertion["x"].
func memberOf(names ...string) func(string) string {
	return func(s string) string {
		for _, n := range names {
			rest, ok := strings.CutPrefix(s, n)
			if !ok {
				continue
			}
			if rest, ok = strings.CutPrefix(rest, "."); ok && rest != "" && !strings.ContainsAny(rest, " ()[]+?:") {
				return rest
			}
			if strings.HasPrefix(s[len(n):], "[") && strings.HasSuffix(s, "]") {
				if v, ok := literal(s[len(n)+1 : len(s)-1]); ok {
					return v
				}
			}
		}
		return ""
	}
}
