package document

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Errors that callers tell apart. Both are wrapped with a position.
var (
	// ErrDuplicate: an object names a member twice.
	ErrDuplicate = errors.New("a member is named twice")
	// ErrLimit: the text is larger or deeper than the caller allows.
	ErrLimit = errors.New("over the limit")
)

// Limits bound what Parse takes. Zero fields mean the defaults.
type Limits struct {
	Bytes   int // of text; default 64 KiB
	Depth   int // of nesting; default 16
	Members int // values of any kind in all; default 4,096
}

const maxSafeInteger = 1<<53 - 1 // RFC 7493 section 2.2

// Parse reads one JSON text. The returned values share memory with a copy of
// data, never with data itself. The error says what was expected and at which
// byte; it never quotes a value, which may be secret.
func Parse(data []byte, lim Limits) (Value, error) {
	if lim.Bytes == 0 {
		lim.Bytes = 64 << 10
	}
	if lim.Depth == 0 {
		lim.Depth = 16
	}
	if lim.Members == 0 {
		lim.Members = 4096
	}
	if len(data) > lim.Bytes {
		return Value{}, fmt.Errorf("JSON text of %d bytes, at most %d are taken: %w", len(data), lim.Bytes, ErrLimit)
	}
	if !utf8.Valid(data) {
		return Value{}, errors.New("JSON text is not valid UTF-8")
	}
	p := parser{text: string(data), depth: lim.Depth, members: lim.Members}
	p.space()
	v, err := p.value()
	if err != nil {
		return Value{}, err
	}
	p.space()
	if p.at < len(p.text) {
		return Value{}, p.fail("the end of the text")
	}
	return v, nil
}

type parser struct {
	text    string
	at      int
	depth   int // left
	members int // left
	guessed bool
}

func (p *parser) fail(want string) error {
	if p.at >= len(p.text) {
		return fmt.Errorf("JSON text ends at byte %d where %s was expected", p.at, want)
	}
	return fmt.Errorf("malformed JSON at byte %d: expected %s", p.at, want)
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) literal(word string, v Value) (Value, error) {
	if !strings.HasPrefix(p.text[p.at:], word) {
		return Value{}, p.fail("a value")
	}
	p.at += len(word)
	return v, nil
}

func (p *parser) value() (Value, error) {
	if p.members--; p.members < 0 {
		return Value{}, fmt.Errorf("JSON text has too many values: %w", ErrLimit)
	}
	if p.at >= len(p.text) {
		return Value{}, p.fail("a value")
	}
	switch c := p.text[p.at]; c {
	case '{', '[':
		if p.depth--; p.depth < 0 {
			return Value{}, fmt.Errorf("JSON text is nested too deeply at byte %d: %w", p.at, ErrLimit)
		}
		p.at++
		read := p.array
		if c == '{' {
			read = p.object
		}
		v, err := read()
		p.depth++
		return v, err
	case '"':
		s, err := p.str()
		return Value{kind: String, text: s}, err
	case 't':
		return p.literal("true", Value{kind: Bool, bits: 1})
	case 'f':
		return p.literal("false", Value{kind: Bool})
	case 'n':
		return p.literal("null", Value{kind: Null})
	default:
		return p.number()
	}
}

func (p *parser) object() (Value, error) {
	var fields []Field
	p.space()
	if p.take('}') {
		return Value{kind: Object}, nil
	}
	for {
		p.space()
		if p.at >= len(p.text) || p.text[p.at] != '"' {
			return Value{}, p.fail("a member's name")
		}
		start := p.at
		name, err := p.str()
		if err != nil {
			return Value{}, err
		}
		p.space()
		if !p.take(':') {
			return Value{}, p.fail("a colon")
		}
		p.space()
		v, err := p.value()
		if err != nil {
			return Value{}, err
		}
		if fields == nil {
			fields = make([]Field, 0, p.room())
		}
		fields = append(fields, Field{name, v})
		p.space()
		if p.take(',') {
			continue
		}
		if p.take('}') {
			return finishObject(fields, start)
		}
		return Value{}, p.fail("a comma or the end of the object")
	}
}

// room guesses how many members an object has: the first one of a text, which
// has nearly all of them, by its commas.
func (p *parser) room() int {
	if p.guessed {
		return 4
	}
	p.guessed = true
	return min(strings.Count(p.text[p.at:], ",")+1, 64)
}

func finishObject(fields []Field, at int) (Value, error) {
	sortFields(fields)
	for i := 1; i < len(fields); i++ {
		if fields[i].Name == fields[i-1].Name {
			return Value{}, fmt.Errorf("malformed JSON in the object that ends after byte %d: %w", at, ErrDuplicate)
		}
	}
	return objectOf(fields), nil
}

func (p *parser) array() (Value, error) {
	var list []Value
	p.space()
	if p.take(']') {
		return Value{kind: Array}, nil
	}
	for {
		p.space()
		v, err := p.value()
		if err != nil {
			return Value{}, err
		}
		list = append(list, v)
		p.space()
		if p.take(',') {
			continue
		}
		if p.take(']') {
			return arrayOf(list), nil
		}
		return Value{}, p.fail("a comma or the end of the array")
	}
}

// str reads a string; the quote is at p.at. Without escapes the result shares
// the text's memory.
func (p *parser) str() (string, error) {
	p.at++
	start := p.at
	text := p.text
	for i := start; i < len(text); i++ {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		p.at = i
		switch c {
		case '"':
			p.at++
			return text[start:i], nil
		case '\\':
			return p.escaped(start)
		}
		return "", p.fail("no control character in a string")
	}
	p.at = len(text)
	return "", p.fail("the end of the string")
}

func (p *parser) escaped(start int) (string, error) {
	var b strings.Builder
	b.WriteString(p.text[start:p.at])
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return b.String(), nil
		case c < 0x20:
			return "", p.fail("no control character in a string")
		case c != '\\':
			b.WriteByte(c)
			p.at++
			continue
		}
		p.at++
		if p.at >= len(p.text) {
			break
		}
		esc := p.text[p.at]
		if i := strings.IndexByte(`"\/bfnrt`, esc); i >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[i])
			p.at++
			continue
		}
		if esc != 'u' {
			return "", p.fail("one of JSON's escapes")
		}
		r, err := p.unicodeEscape()
		if err != nil {
			return "", err
		}
		b.WriteRune(r)
	}
	return "", p.fail("the end of the string")
}

// unicodeEscape reads uXXXX, or a pair of surrogates; p.at is at the u.
func (p *parser) unicodeEscape() (rune, error) {
	unit, ok := p.hex4()
	if !ok {
		return 0, p.fail("four hexadecimal digits")
	}
	r := rune(unit)
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if p.take('\\') && p.at < len(p.text) && p.text[p.at] == 'u' {
		if low, ok := p.hex4(); ok {
			if pair := utf16.DecodeRune(r, rune(low)); pair != unicode.ReplacementChar {
				return pair, nil
			}
		}
	}
	return 0, p.fail("a pair of surrogates")
}

func (p *parser) hex4() (uint16, bool) {
	if p.at+5 > len(p.text) {
		return 0, false
	}
	var n uint16
	for _, c := range []byte(p.text[p.at+1 : p.at+5]) {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint16(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint16(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint16(c-'A'+10)
		default:
			return 0, false
		}
	}
	p.at += 5
	return n, true
}

func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}

func (p *parser) number() (Value, error) {
	start := p.at
	negative := p.take('-')
	first := p.at
	if !p.digits() {
		return Value{}, p.fail("a value")
	}
	if p.text[first] == '0' && p.at-first > 1 {
		return Value{}, p.fail("no leading zero in a number")
	}
	whole := true
	if p.take('.') {
		whole = false
		if !p.digits() {
			return Value{}, p.fail("digits after the point")
		}
	}
	if p.take('e') || p.take('E') {
		whole = false
		if !p.take('+') {
			p.take('-')
		}
		if !p.digits() {
			return Value{}, p.fail("digits in the exponent")
		}
	}
	text := p.text[start:p.at]
	if !whole {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return Value{}, fmt.Errorf("the number at byte %d is out of range", start)
		}
		v := FloatOf(f)
		if v.IsAbsent() {
			return Value{}, p.beyond(start)
		}
		return v, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxSafeInteger || n < -maxSafeInteger {
		return Value{}, p.beyond(start)
	}
	if n == 0 && negative {
		return FloatOf(0), nil
	}
	return IntOf(n), nil
}

func (p *parser) beyond(start int) error {
	return fmt.Errorf("the integer at byte %d is beyond 2^53-1, which not every reader keeps exactly", start)
}
