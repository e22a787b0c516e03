package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
)

// JSON writes a document, a struct, as docs/schema/inventory.schema.json
// describes it: the bytes that package json gives with an indent of two. They
// are written element by element of the document's lists, because the inventory
// of a whole estate in one buffer, and once more indented, is most of the
// memory that a scan needs.
func JSON(w io.Writer, document any) error {
	v := reflect.Indirect(reflect.ValueOf(document))
	j := &jsonWriter{out: bufio.NewWriterSize(w, 64<<10)}
	j.enc = json.NewEncoder(&j.compact)
	j.enc.SetEscapeHTML(false)
	j.text("{")
	written := false
	for i := range v.NumField() {
		name, rest, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		f := v.Field(i)
		if name == "-" || strings.Contains(rest, "omitempty") && empty(f) {
			continue
		}
		if written {
			j.text(",")
		}
		written = true
		j.text("\n  \"" + name + "\": ")
		if f.Kind() == reflect.Slice && f.Len() > 0 {
			j.list(f)
		} else {
			j.value(f, 1)
		}
	}
	if written {
		j.text("\n")
	}
	j.text("}\n")
	if j.err != nil {
		return j.err
	}
	return j.out.Flush()
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	if v.Kind() == reflect.Slice || v.Kind() == reflect.Map {
		return v.Len() == 0
	}
	return v.Kind() != reflect.Struct && v.IsZero()
}

// jsonWriter writes the parts of a document; the first error stops it.
type jsonWriter struct {
	out               *bufio.Writer
	enc               *json.Encoder
	compact, indented bytes.Buffer
	err               error
}

func (j *jsonWriter) text(s string) {
	if j.err == nil {
		_, j.err = j.out.WriteString(s)
	}
}

// list writes a list of the document with each element for itself.
func (j *jsonWriter) list(v reflect.Value) {
	j.text("[")
	for i := 0; i < v.Len() && j.err == nil; i++ {
		if i > 0 {
			j.text(",")
		}
		j.text("\n    ")
		j.value(v.Index(i), 2)
	}
	j.text("\n  ]")
}

// value writes one value that stands at a depth.
func (j *jsonWriter) value(v reflect.Value, depth int) {
	j.compact.Reset()
	if v.CanAddr() {
		v = v.Addr() // spares a copy of each path
	}
	if err := j.enc.Encode(v.Interface()); err != nil && j.err == nil {
		j.err = err
	}
	if j.err != nil {
		return
	}
	j.indented.Reset()
	indent(&j.indented, bytes.TrimSuffix(j.compact.Bytes(), []byte("\n")), depth)
	_, j.err = j.out.Write(j.indented.Bytes())
}

// indent spreads compact JSON over lines. Package json checks what it indents
// byte by byte, although it has just written it.
func indent(dst *bytes.Buffer, src []byte, depth int) {
	for i := 0; i < len(src); i++ {
		switch c := src[i]; c {
		case '"':
			end := i + 1
			for src[end] != '"' {
				if src[end] == '\\' {
					end++
				}
				end++
			}
			dst.Write(src[i : end+1])
			i = end
		case '{', '[':
			dst.WriteByte(c)
			if src[i+1] == '}' || src[i+1] == ']' {
				i++
				dst.WriteByte(src[i])
				continue
			}
			depth++
			newLine(dst, depth)
		case '}', ']':
			depth--
			newLine(dst, depth)
			dst.WriteByte(c)
		case ',':
			dst.WriteByte(c)
			newLine(dst, depth)
		case ':':
			dst.WriteString(": ")
		default:
			dst.WriteByte(c)
		}
	}
}

// newLine begins a line at a depth.
func newLine(dst *bytes.Buffer, depth int) {
	dst.WriteByte('\n')
	for range depth {
		dst.WriteString("  ")
	}
}
