package plan

import (
	"strings"
)

// What the maker of patches has to know of a Jenkinsfile's text: where strings
// and comments are, and which braces belong together. The rest is Groovy, which
// nobody reads without running it; what is unusual is left alone.

// literal is a string of Groovy.
type literal struct {
	from, to int // of the quotes
	quote    string
}

// text is what stands between the quotes.
func (l literal) text(s string) string { return s[l.from+len(l.quote) : l.to-len(l.quote)] }

// plain reports whether Groovy puts nothing into it.
func (l literal) plain() bool { return l.quote[0] == '\'' }

// groovy is a Jenkinsfile's text, taken apart.
type groovy struct {
	text     string
	code     []bool // bytes that are neither string nor comment
	literals []literal
}

// readGroovy finds strings and comments; false when one has no end.
func readGroovy(text string) (*groovy, bool) {
	g := &groovy{text: text, code: make([]bool, len(text))}
	for i := 0; i < len(text); {
		rest := text[i:]
		var end int
		switch {
		case strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "#!") && i == 0:
			if end = strings.IndexByte(rest, '\n'); end < 0 {
				end = len(rest)
			}
		case strings.HasPrefix(rest, "/*"):
			if end = strings.Index(rest[2:], "*/"); end < 0 {
				return nil, false
			}
			end += 4
		case strings.HasPrefix(rest, "'''"), strings.HasPrefix(rest, `"""`):
			if end = closing(rest, rest[:3]); end < 0 {
				return nil, false
			}
			g.literals = append(g.literals, literal{i, i + end, rest[:3]})
		case rest[0] == '\'', rest[0] == '"':
			if end = closing(rest, rest[:1]); end < 0 {
				return nil, false
			}
			g.literals = append(g.literals, literal{i, i + end, rest[:1]})
		case rest[0] == '/' && g.slashy(i):
			if end = closing(rest, "/"); end < 0 {
				return nil, false
			}
		default:
			g.code[i] = true
			i++
			continue
		}
		i += end
	}
	return g, true
}

// closing gives the length of a string with its quotes, -1 when it has no end.
func closing(s, quote string) int {
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return -1
		}
	}
	return -1
}

// slashy reports whether a slash begins a pattern rather than divides.
func (g *groovy) slashy(at int) bool {
	before := strings.TrimRight(g.text[:at], " ")
	return before != "" && strings.ContainsRune("~(,=[:", rune(before[len(before)-1])) && g.code[len(before)-1]
}

// closes gives the place behind the bracket that closes the one at a place, -1 when none does.
func (g *groovy) closes(at int) int {
	depth := 0
	for i := at; i < len(g.text); i++ {
		if !g.code[i] {
			continue
		}
		switch g.text[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// around gives the place of the innermost bracket that is open at a place, -1 when none is.
func (g *groovy) around(at int) int {
	depth := 0
	for i := at - 1; i >= 0; i-- {
		if !g.code[i] {
			continue
		}
		switch g.text[i] {
		case ')', ']', '}':
			depth++
		case '(', '[', '{':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return -1
}

// word gives the name that stands before a place: what a bracket belongs to.
func (g *groovy) word(at int) string {
	end := len(strings.TrimRight(g.text[:at], " "))
	from := end
	for from > 0 && (isNameByte(g.text[from-1]) || g.text[from-1] == '.') {
		from--
	}
	return g.text[from:end]
}

func isNameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// names lists the places at which a name stands as a word, in code and in strings, between two places.
func (g *groovy) names(name string, from, to int) (out []int) {
	for at := from; ; {
		i := strings.Index(g.text[at:to], name)
		if i < 0 {
			return out
		}
		i += at
		if (i == 0 || !isNameByte(g.text[i-1])) && (i+len(name) >= len(g.text) || !isNameByte(g.text[i+len(name)])) {
			out = append(out, i)
		}
		at = i + len(name)
	}
}

// in gives the string that holds a place.
func (g *groovy) in(at int) (literal, bool) {
	for _, l := range g.literals {
		if l.from <= at && at < l.to {
			return l, true
		}
	}
	return literal{}, false
}

// comment reports whether a place lies in a comment.
func (g *groovy) comment(at int) bool {
	_, inside := g.in(at)
	return !g.code[at] && !inside
}

// stage gives the name of the innermost stage around a place, "" when none is.
func (g *groovy) stage(at int) string {
	for open := g.around(at); open >= 0; open = g.around(open) {
		if g.text[open] != '{' {
			continue
		}
		before := strings.TrimRight(g.text[:open], " \n")
		if !strings.HasSuffix(before, ")") {
			continue
		}
		call := g.around(len(before) - 1)
		if call < 0 || g.word(call) != "stage" {
			continue
		}
		for _, l := range g.literals {
			if l.from > call && l.to < len(before) {
				return l.text(g.text)
			}
		}
	}
	return ""
}

// holds reports whether a word of code stands between two places.
func (g *groovy) holds(word string, scope [2]int) bool {
	for _, at := range g.names(word, scope[0], scope[1]) {
		if g.code[at] {
			return true
		}
	}
	return false
}
