// Package document holds JSON values that were read strictly and are written
// canonically: the one form in which claims, facts and policy input travel, so
// that what was verified, what was decided on and what was recorded are the
// same bytes.
//
// Reading follows RFC 8259 restricted by I-JSON (RFC 7493), and is stricter
// than any library's default: names are exact, a name that occurs twice is an
// error (two readers would take different ones), text is valid UTF-8 without
// lone surrogates, nothing follows the value, and depth and size are bounded.
// Integers beyond 2^53-1 are refused, because two readers would round them
// differently.
//
// Writing follows RFC 8785 (JSON Canonicalization Scheme): names sorted by
// UTF-16 code units, no white space, shortest numbers.
//
// A Value can't be changed once it is made. The zero Value is "absent": it is
// not a JSON value, an Object drops it, and it is how a policy sees undefined.
package document

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Kind says which of JSON's types a Value has.
type Kind uint8

// The kinds. Int and Float are both JSON numbers; a number that was written
// without fraction and exponent is an Int.
const (
	Absent Kind = iota
	Null
	Bool
	Int
	Float
	String
	Array
	Object
)

var kindNames = [...]string{"absent", "null", "boolean", "integer", "number", "string", "array", "object"}

// String gives the kind's name as people write it.
func (k Kind) String() string { return kindNames[k] }

// Value is one immutable JSON value, or absent.
type Value struct {
	kind Kind
	bits uint64 // Bool, Int, Float
	text string // String
	sub  *inside
}

// inside is what an array or an object holds; nil when that is nothing. It is
// apart so that a Value is small: nearly all are scalars, and all are copied.
type inside struct {
	list   []Value
	fields []Field // sorted as RFC 8785 says, names unique
}

func arrayOf(list []Value) Value {
	if len(list) == 0 {
		return Value{kind: Array}
	}
	return Value{kind: Array, sub: &inside{list: list}}
}

// objectOf takes fields that are sorted and unique.
func objectOf(fields []Field) Value {
	if len(fields) == 0 {
		return Value{kind: Object}
	}
	return Value{kind: Object, sub: &inside{fields: fields}}
}

// Field is one member of an object.
type Field struct {
	Name  string
	Value Value
}

// Constructors. They copy nothing, so the caller gives its slices away.

// StringOf makes a string; the empty string is absent, as everywhere in
// Proviso's input: a platform's "" says that there is none. Bytes that are not
// UTF-8, as a commit's author may have them, become U+FFFD, because JSON can't
// hold them and what is recorded must be readable.
func StringOf(s string) Value {
	if s == "" {
		return Value{}
	}
	return textOf(s)
}

func textOf(s string) Value {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return Value{kind: String, text: s}
}

// BoolOf makes a boolean.
func BoolOf(b bool) Value {
	v := Value{kind: Bool}
	if b {
		v.bits = 1
	}
	return v
}

// IntOf makes an integer; beyond 2^53-1 it is absent, since readers would round
// it differently. Write such a number as a string.
func IntOf(n int64) Value {
	if n > maxSafeInteger || n < -maxSafeInteger {
		return Value{}
	}
	return Value{kind: Int, bits: uint64(n)}
}

// FloatOf makes a number. NaN and infinities are absent, JSON has none; so are
// numbers that would be written as an integer beyond 2^53-1.
func FloatOf(f float64) Value {
	if abs := math.Abs(f); !(abs <= maxSafeInteger || abs >= wholeBelow) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: Float, bits: math.Float64bits(f)}
}

// wholeBelow is where ECMAScript begins to write numbers with an exponent.
const wholeBelow = 1e21

// ListOf makes an array; absent elements are dropped.
func ListOf(vs ...Value) Value {
	return arrayOf(slices.DeleteFunc(vs, func(v Value) bool { return v.kind == Absent }))
}

// StringsOf makes an array of strings; an empty list is absent.
func StringsOf(ss []string) Value {
	if len(ss) == 0 {
		return Value{}
	}
	vs := make([]Value, len(ss))
	for i, s := range ss {
		vs[i] = textOf(s)
	}
	return arrayOf(vs)
}

// ObjectOf makes an object; absent members are dropped. Of two members with one
// name the first stays: callers name their members in source code, or come from
// Parse, which refuses duplicates.
func ObjectOf(fields ...Field) Value {
	fields = slices.DeleteFunc(fields, func(f Field) bool { return f.Value.kind == Absent })
	sortFields(fields)
	fields = slices.CompactFunc(fields, func(a, b Field) bool { return a.Name == b.Name })
	return objectOf(fields)
}

// Member makes a Field.
func Member(name string, v Value) Field { return Field{name, v} }

// Kind gives the value's kind.
func (v Value) Kind() Kind { return v.kind }

// IsAbsent reports whether there is no value.
func (v Value) IsAbsent() bool { return v.kind == Absent }

// Text gives a string's text.
func (v Value) Text() (string, bool) { return v.text, v.kind == String }

// Truth gives a boolean.
func (v Value) Truth() (value, ok bool) { return v.bits == 1, v.kind == Bool }

// Integer gives an integer.
func (v Value) Integer() (int64, bool) { return int64(v.bits), v.kind == Int }

// Number gives an integer or a float as a float.
func (v Value) Number() (float64, bool) {
	switch v.kind {
	case Int:
		return float64(int64(v.bits)), true
	case Float:
		return math.Float64frombits(v.bits), true
	default:
		return 0, false
	}
}

// Items gives an array's elements, not to be changed.
func (v Value) Items() []Value {
	if v.sub == nil {
		return nil
	}
	return v.sub.list
}

// Fields gives an object's members in canonical order, not to be changed.
func (v Value) Fields() []Field {
	if v.sub == nil {
		return nil
	}
	return v.sub.fields
}

// Get gives the member with exactly this name, absent if there is none or v is
// no object.
func (v Value) Get(name string) Value {
	fields := v.Fields()
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return Value{}
}

// At follows names from object to object.
func (v Value) At(path ...string) Value {
	for _, name := range path {
		v = v.Get(name)
	}
	return v
}

// With gives a copy of the object v in which the given members are set; an
// absent value removes its member.
func (v Value) With(fields ...Field) Value {
	out := make([]Field, 0, len(v.Fields())+len(fields))
	out = append(out, fields...)
	for _, f := range v.Fields() {
		if !slices.ContainsFunc(fields, func(g Field) bool { return g.Name == f.Name }) {
			out = append(out, f)
		}
	}
	return ObjectOf(out...)
}

// sortKey stands for a field while names are sorted: moving it is cheap, and its
// first eight bytes decide most comparisons.
type sortKey struct {
	head uint64
	at   int
}

// sortFields orders fields as RFC 8785 wants; fields with one name keep their
// order.
func sortFields(fields []Field) {
	if slices.IsSortedFunc(fields, compareNames) {
		return
	}
	var room [64]sortKey
	keys := room[:0]
	for i := range fields {
		if !isBelowSurrogates(fields[i].Name) {
			slices.SortStableFunc(fields, compareNames)
			return
		}
		keys = append(keys, sortKey{headOf(fields[i].Name), i})
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		if c := cmp.Compare(a.head, b.head); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(fields[a.at].Name, fields[b.at].Name), a.at-b.at)
	})
	permute(fields, keys)
}

func headOf(name string) uint64 {
	var b [8]byte
	copy(b[:], name)
	return binary.BigEndian.Uint64(b[:])
}

// permute puts fields[keys[i].at] at i, cycle by cycle, so that each moves once.
func permute(fields []Field, keys []sortKey) {
	for i := range keys {
		if keys[i].at == i {
			continue
		}
		first := fields[i]
		hole := i
		for keys[hole].at != i {
			from := keys[hole].at
			fields[hole] = fields[from]
			keys[hole].at = hole
			hole = from
		}
		fields[hole] = first
		keys[hole].at = hole
	}
}

// compareNames orders names by UTF-16 code units (RFC 8785 section 3.2.3). It
// differs from the order of bytes only where a name has characters beyond the
// basic plane beside ones above the surrogates.
func compareNames(a, b Field) int {
	if isBelowSurrogates(a.Name) && isBelowSurrogates(b.Name) {
		return strings.Compare(a.Name, b.Name)
	}
	return slices.Compare(utf16Units(a.Name), utf16Units(b.Name))
}

func isBelowSurrogates(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0xED { // UTF-8 lead byte of U+D000 and above
			return false
		}
	}
	return true
}
