package inventory

import "strings"

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
		if hole := l.hole(interpolated); hole > 0 { // it may hold strings of its own
			l.line += strings.Count(l.s[l.i:l.i+hole], "\n")
			b.WriteString(l.s[l.i : l.i+hole])
			l.i += hole
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

// hole gives the length of a ${...} that holds a quote; 0 when none begins here, or it does not end on its line.
func (l *gLexer) hole(interpolated bool) int {
	if !interpolated || !strings.HasPrefix(l.s[l.i:], "${") {
		return 0
	}
	depth, quote, quoted := 0, byte(0), false
	for n := 1; l.i+n < len(l.s); n++ {
		switch c := l.s[l.i+n]; {
		case c == '\n':
			return 0
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote, quoted = c, true
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 && quoted {
				return n + 1
			} else if depth == 0 {
				return 0
			}
		}
	}
	return 0
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
