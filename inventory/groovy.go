package inventory

import (
	"strings"
)

// A tolerant reader of Groovy, enough for Jenkins pipelines: it finds calls
// with their arguments and closures, and assignments, with lines. It runs
// nothing and knows no types; what it can't read it skips.

// gCall is a call, a definition or a block: name(args) { body }.
type gCall struct {
	name string // dotted: "docker.withRegistry"; "" is a bare block
	args []gArg
	body []*gCall
	line int
	// assign is the name that the value is assigned to: X = name(args).
	assign string
	// isDef is a definition of a function with this name.
	isDef bool
	// text is the condition of an if, the raw text between its parentheses.
	text string
	// params are the names that a definition or a closure gives its arguments.
	params []gParam
}

// gParam is a parameter with its default, when that is a literal.
type gParam struct{ name, def string }

// gArg is an argument, or an entry of a map; key is "" for a positional one.
type gArg struct {
	key string
	val gValue
}

// gValue is a value: a string, a list or map, a call, or something else.
type gValue struct {
	str   string
	isStr bool
	gstr  bool // it has ${} that Groovy fills in
	ident string
	list  []gArg // of a list or a map
	call  *gCall
	line  int
	parts []gValue // of a concatenation or a choice
	asked bool     // it is what a choice asks, not one of its answers
}

// gTok is a token.
type gTok struct {
	kind byte // i identifier, s string, g string with interpolation, n number, p punctuation, l line end, e end
	text string
	line int
}

// maxGroovyTokens bounds a file.
const maxGroovyTokens = 400_000

// gLexer cuts Groovy into tokens without comments.
type gLexer struct {
	s    string
	i    int
	line int
	out  []gTok
}

func lexGroovy(s string) []gTok {
	l := &gLexer{s: s, line: 1}
	for l.i < len(l.s) && len(l.out) < maxGroovyTokens {
		l.next()
	}
	return append(l.out, gTok{'e', "", l.line})
}

func (l *gLexer) emit(kind byte, text string, line int) {
	l.out = append(l.out, gTok{kind, text, line})
}

func (l *gLexer) next() {
	c := l.s[l.i]
	rest := l.s[l.i:]
	switch {
	case c == '\n':
		l.emit('l', "\n", l.line)
		l.line++
		l.i++
	case c == ' ' || c == '\t' || c == '\r' || c == '\f':
		l.i++
	case strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "#!"):
		for l.i < len(l.s) && l.s[l.i] != '\n' {
			l.i++
		}
	case strings.HasPrefix(rest, "/*"):
		end := strings.Index(rest[2:], "*/")
		if end < 0 {
			end = len(rest) - 4
		}
		l.line += strings.Count(rest[:max(end+4, 0)], "\n")
		l.i = min(l.i+max(end+4, 2), len(l.s))
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
		l.str(rest[:3], c == '"')
	case c == '"' || c == '\'':
		l.str(rest[:1], c == '"')
	case strings.HasPrefix(rest, "$/"):
		l.dollarSlash()
	case c == '/' && l.regexStart():
		l.slashy()
	case c == '\\':
		l.i++
	case isWordByte(c) && (c < '0' || c > '9') || c == '$' || c >= 0x80:
		start := l.i
		for l.i < len(l.s) && (isWordByte(l.s[l.i]) || l.s[l.i] == '$' || l.s[l.i] >= 0x80) {
			l.i++
		}
		l.emit('i', l.s[start:l.i], l.line)
	case c >= '0' && c <= '9':
		start := l.i
		for l.i < len(l.s) && isWordByte(l.s[l.i]) {
			l.i++
		}
		l.emit('n', l.s[start:l.i], l.line)
	default:
		l.emit('p', string(c), l.line)
		l.i++
	}
}

// str reads a quoted string. A backslash before a dollar keeps the variable
// for the shell, which is where these strings usually go: it is dropped.
func (l *gLexer) str(quote string, interpolated bool) {
	line := l.line
	var b strings.Builder
	l.i += len(quote)
	for l.i < len(l.s) {
		if strings.HasPrefix(l.s[l.i:], quote) {
			l.i += len(quote)
			break
		}
		c := l.s[l.i]
		if c == '\n' {
			if len(quote) == 1 {
				break // an unclosed string ends with its line
			}
			l.line++
		}
		if c == '\\' && l.i+1 < len(l.s) {
			switch e := l.s[l.i+1]; e {
			case '\n':
				l.line++
				b.WriteString("\\\n")
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case '$', '\\', '"', '\'':
				b.WriteByte(e)
			default:
				b.WriteByte(c)
				b.WriteByte(e)
			}
			l.i += 2
			continue
		}
		b.WriteByte(c)
		l.i++
	}
	kind := byte('s')
	if interpolated && strings.Contains(b.String(), "$") {
		kind = 'g'
	}
	l.emit(kind, b.String(), line)
}

func (l *gLexer) dollarSlash() {
	line := l.line
	end := strings.Index(l.s[l.i+2:], "/$")
	if end < 0 {
		l.emit('p', "$", l.line)
		l.i++
		return
	}
	text := l.s[l.i+2 : l.i+2+end]
	l.line += strings.Count(text, "\n")
	l.i += end + 4
	l.emit('g', text, line)
}

// regexStart tells a slashy string from a division by what stands before it.
func (l *gLexer) regexStart() bool {
	if len(l.out) == 0 {
		return false
	}
	t := l.out[len(l.out)-1]
	if t.kind == 'p' && strings.Contains("(,=~[{:!&|?", t.text) || t.kind == 'i' && t.text == "return" {
		end := strings.IndexAny(l.s[l.i+1:], "/\n")
		return end >= 0 && l.s[l.i+1+end] == '/'
	}
	return false
}

func (l *gLexer) slashy() {
	start := l.i + 1
	for l.i++; l.i < len(l.s) && l.s[l.i] != '/' && l.s[l.i] != '\n'; l.i++ {
		if l.s[l.i] == '\\' {
			l.i++
		}
	}
	l.emit('s', l.s[min(start, len(l.s)):min(l.i, len(l.s))], l.line)
	l.i = min(l.i+1, len(l.s))
}

// gParser turns tokens into calls.
type gParser struct {
	t     []gTok
	i     int
	depth int
}

// parseGroovy reads a file.
func parseGroovy(s string) []*gCall {
	p := &gParser{t: lexGroovy(s)}
	var out []*gCall
	for p.peek().kind != 'e' {
		before := p.i
		out = append(out, p.block()...)
		if p.isPunct("}") || p.i == before {
			p.i++ // a brace too many
		}
	}
	return out
}

func (p *gParser) peek() gTok { return p.t[min(p.i, len(p.t)-1)] }

func (p *gParser) at(n int) gTok { return p.t[min(p.i+n, len(p.t)-1)] }

func (p *gParser) isPunct(s string) bool {
	t := p.peek()
	return t.kind == 'p' && t.text == s
}

func (p *gParser) newlines() {
	for p.peek().kind == 'l' {
		p.i++
	}
}

// block reads statements up to a closing brace, which it leaves.
func (p *gParser) block() []*gCall {
	var out []*gCall
	if p.depth++; p.depth > 150 {
		p.i = len(p.t) - 1
	}
	defer func() { p.depth-- }()
	for {
		t := p.peek()
		switch {
		case t.kind == 'e', t.kind == 'p' && t.text == "}":
			return out
		case t.kind == 'l', t.kind == 'p' && t.text == ";":
			p.i++
		default:
			before := p.i
			out = append(out, p.statement()...)
			if p.i == before {
				p.i++
			}
		}
	}
}

// statement reads one statement and gives its calls.
func (p *gParser) statement() []*gCall {
	if p.isPunct("{") {
		c := &gCall{line: p.peek().line}
		p.closure(c)
		return []*gCall{c}
	}
	if p.isPunct("@") { // an annotation: @Library('x') _
		p.i++
		if p.peek().kind == 'i' {
			c := p.call()
			c.name = "@" + c.name
			for p.peek().kind == 'i' && p.peek().text == "_" {
				p.i++
			}
			return []*gCall{c}
		}
		return nil
	}
	if p.peek().kind != 'i' {
		return p.result(p.expression(), "")
	}
	if p.caseLabel() {
		return nil
	}
	// def name(...) { }, Type name = value, name = value
	if c := p.definition(); c != nil {
		return []*gCall{c}
	}
	if out, ok := p.assignment(); ok {
		return out
	}
	word := p.peek().text
	return p.result(p.expressionOrCommand(), word)
}

// caseLabel skips the label of a switch, behind which statements go on.
func (p *gParser) caseLabel() bool {
	switch word := p.peek().text; {
	case word == "default" && p.at(1).kind == 'p' && p.at(1).text == ":":
	case word == "case":
	default:
		return false
	}
	for !p.isPunct(":") && p.peek().kind != 'l' && p.peek().kind != 'e' {
		p.i++
	}
	if p.isPunct(":") {
		p.i++
	}
	return true
}

// result gives the calls of a statement, and the value that a function gives
// back by it: what it returns, or what its last statement is.
func (p *gParser) result(v gValue, word string) []*gCall {
	out := v.calls()
	if word == "return" || len(out) == 0 && v.isStr || len(v.parts) > 1 {
		out = append(out, &gCall{name: "return", text: word, line: v.line, args: []gArg{{val: v}}})
	}
	return out
}

// definition reads "def name(params) { body }".
func (p *gParser) definition() *gCall {
	i := 0
	for p.at(i).kind == 'i' && i < 4 {
		i++
	}
	if i < 2 || p.at(i).kind != 'p' || p.at(i).text != "(" {
		return nil
	}
	switch p.t[p.i].text {
	case "return", "new", "else", "if", "throw", "assert", "in", "case":
		return nil
	}
	// Find the closing parenthesis; a brace behind it makes a definition.
	depth, j := 0, i
	for ; p.at(j).kind != 'e'; j++ {
		if t := p.at(j); t.kind == 'p' && t.text == "(" {
			depth++
		} else if t.kind == 'p' && t.text == ")" {
			if depth--; depth == 0 {
				break
			}
		}
	}
	k := j + 1
	for p.at(k).kind == 'l' {
		k++
	}
	if p.at(k).kind != 'p' || p.at(k).text != "{" || p.t[p.i].text != "def" && i < 2 {
		return nil
	}
	c := &gCall{name: p.at(i - 1).text, line: p.at(i - 1).line, isDef: true, params: p.params(i+1, j)}
	p.i += k
	params := c.params
	p.closure(c)
	c.params = params
	return c
}

// params reads the names of parameters between two tokens: [Type] name [= default], ...
func (p *gParser) params(from, to int) []gParam {
	var out []gParam
	name, def, depth, given := "", "", 0, false
	for n := from; n <= to && n-from < 300; n++ {
		t := p.at(n)
		switch {
		case n == to, t.kind == 'p' && t.text == "," && depth == 0:
			if name != "" {
				out = append(out, gParam{name, def})
			}
			name, def, given = "", "", false
		case t.kind == 'p' && strings.Contains("([<{", t.text):
			depth++
		case t.kind == 'p' && strings.Contains(")]>}", t.text):
			depth--
		case t.kind == 'p' && t.text == "=":
			given = true
		case t.kind == 'i' && !given && depth == 0:
			name = t.text
		case t.kind == 's' && given && depth == 0:
			def = t.text
		}
	}
	return out
}

// assignment reads "[def|Type] name[.name] = value".
func (p *gParser) assignment() ([]*gCall, bool) {
	i, name := 0, ""
	for p.at(i).kind == 'i' && i < 8 {
		name = p.at(i).text
		i++
		for p.at(i).kind == 'p' && p.at(i).text == "." && p.at(i+1).kind == 'i' {
			name += "." + p.at(i+1).text
			i += 2
		}
		if t := p.at(i); t.kind == 'p' && t.text == "[" && p.at(i+1).kind == 's' && p.at(i+2).text == "]" {
			name += "." + p.at(i+1).text
			i += 3
		}
	}
	if name == "" || p.at(i).kind != 'p' || p.at(i).text != "=" || p.at(i+1).kind == 'p' && (p.at(i+1).text == "=" || p.at(i+1).text == "~") {
		return nil, false
	}
	line := p.peek().line
	p.i += i + 1
	p.newlines()
	v := p.expressionOrCommand()
	head := &gCall{name: "=", assign: name, line: line, args: []gArg{{val: v}}}
	return append([]*gCall{head}, v.calls()...), true
}

// calls gives the calls inside of a value.
func (v gValue) calls() []*gCall {
	var out []*gCall
	if v.call != nil {
		out = append(out, v.call)
	}
	for _, part := range v.parts {
		out = append(out, part.calls()...)
	}
	for _, a := range v.list {
		out = append(out, a.val.calls()...)
	}
	return out
}

// closure reads { params -> statements } into a call.
func (p *gParser) closure(c *gCall) {
	p.i++ // {
	// Parameters: identifiers and commas up to an arrow.
	for j := 0; j < 30; j++ {
		t := p.at(j)
		if t.kind == 'p' && t.text == "-" && p.at(j+1).kind == 'p' && p.at(j+1).text == ">" {
			c.params = p.params(0, j)
			p.i += j + 2
			break
		}
		if t.kind != 'i' && t.kind != 'l' && !(t.kind == 'p' && (t.text == "," || t.text == ":" || t.text == "=")) {
			break
		}
	}
	c.body = p.block()
	if p.isPunct("}") {
		p.i++
	}
}
