package document

import (
	"math"
	"strconv"
	"unicode/utf16"
)

// AppendCanonical appends v as RFC 8785 writes it. An absent value appends
// nothing.
func AppendCanonical(dst []byte, v Value) []byte { return appendValue(dst, &v) }

// appendValue takes a pointer: a Value is large, and a document has many.
func appendValue(dst []byte, v *Value) []byte {
	switch v.kind {
	case Null:
		return append(dst, "null"...)
	case Bool:
		return strconv.AppendBool(dst, v.bits == 1)
	case Int:
		return strconv.AppendInt(dst, int64(v.bits), 10)
	case Float:
		return appendNumber(dst, math.Float64frombits(v.bits))
	case String:
		return AppendString(dst, v.text)
	case Array:
		dst = append(dst, '[')
		items := v.Items()
		for i := range items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, &items[i])
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		fields := v.Fields()
		for i := range fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendString(dst, fields[i].Name)
			dst = append(dst, ':')
			dst = appendValue(dst, &fields[i].Value)
		}
		return append(dst, '}')
	default: // absent
		return dst
	}
}

// String gives v in canonical JSON, for messages and tests.
func (v Value) String() string { return string(AppendCanonical(nil, v)) }

// MarshalJSON gives v in canonical JSON; absent is null, since a caller that
// marshals it has already made room for it.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.kind == Absent {
		return []byte("null"), nil
	}
	return AppendCanonical(nil, v), nil
}

const hexDigits = "0123456789abcdef"

// plain are the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 256; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// AppendString appends s as a JSON string with RFC 8785's escapes: the two
// character escapes where JSON has them, \u00xx for other control characters,
// nothing else.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if plain[c] {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// appendNumber writes f as ECMAScript's Number::toString does, which RFC 8785
// section 3.2.2.3 prescribes.
func appendNumber(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, '0') // also for -0
	}
	abs := math.Abs(f)
	if abs >= 1e-6 && abs < wholeBelow {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	// Go writes at least two digits of exponent, ECMAScript as few as needed.
	if n := len(dst); dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

func utf16Units(s string) []uint16 { return utf16.Encode([]rune(s)) }
