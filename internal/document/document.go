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
	"math"
	"slices"
	"strings"
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
	kind   Kind
	bits   uint64 // Bool, Int, Float
	text   string // String
	list   []Value
	fields []Field // Object: sorted as RFC 8785 says, names unique
}

// Field is one member of an object.
type Field struct {
	Name  string
	Value Value
}

// Constructors. They copy nothing, so the caller gives its slices away.

// StringOf makes a string; the empty string is absent, as everywhere in
// Proviso's input: a platform's "" says that there is none.
func StringOf(s string) Value {
	if s == "" {
		return Value{}
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

// IntOf makes an integer.
func IntOf(n int64) Value { return Value{kind: Int, bits: uint64(n)} }

// FloatOf makes a number; NaN and infinities are absent, JSON has none.
func FloatOf(f float64) Value {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Value{}
	}
	return Value{kind: Float, bits: math.Float64bits(f)}
}

// ListOf makes an array; absent elements are dropped.
func ListOf(vs ...Value) Value {
	return Value{kind: Array, list: slices.DeleteFunc(vs, func(v Value) bool { return v.kind == Absent })}
}

// StringsOf makes an array of strings; an empty list is absent.
func StringsOf(ss []string) Value {
	if len(ss) == 0 {
		return Value{}
	}
	vs := make([]Value, len(ss))
	for i, s := range ss {
		vs[i] = Value{kind: String, text: s}
	}
	return Value{kind: Array, list: vs}
}

// ObjectOf makes an object; absent members are dropped. Of two members with one
// name the first stays: callers name their members in source code, or come from
// Parse, which refuses duplicates.
func ObjectOf(fields ...Field) Value {
	fields = slices.DeleteFunc(fields, func(f Field) bool { return f.Value.kind == Absent })
	sortFields(fields)
	fields = slices.CompactFunc(fields, func(a, b Field) bool { return a.Name == b.Name })
	return Value{kind: Object, fields: fields}
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
	}
	return 0, false
}

// Items gives an array's elements, not to be changed.
func (v Value) Items() []Value { return v.list }

// Fields gives an object's members in canonical order, not to be changed.
func (v Value) Fields() []Field { return v.fields }

// Get gives the member with exactly this name, absent if there is none or v is
// no object.
func (v Value) Get(name string) Value {
	for i := range v.fields {
		if v.fields[i].Name == name {
			return v.fields[i].Value
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
	out := make([]Field, 0, len(v.fields)+len(fields))
	out = append(out, fields...)
	for _, f := range v.fields {
		if !slices.ContainsFunc(fields, func(g Field) bool { return g.Name == f.Name }) {
			out = append(out, f)
		}
	}
	return ObjectOf(out...)
}

func sortFields(fields []Field) {
	if !slices.IsSortedFunc(fields, compareNames) {
		slices.SortStableFunc(fields, compareNames)
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
