package policy

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso/facts"
)

// words lists the values that a field of the input can have, where they are
// few. A policy that compares the field with another word can't have meant it.
var words = map[string][]string{
	"context.weekday":    {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"},
	"identity.ref_type":  {"branch", "tag"},
	"identity.kind":      {"job", "person", "spiffe"},
	"identity.audience":  {"broker", "platform"},
	"runner.attestation": {"spiffe-x509", "spiffe-jwt", "aws", "gcp", "azure", "kubernetes", "platform", "tpm", "attestation"},
	"runner.binding":     {"mtls", "key", "platform"},
	"runner.environment": {"self-hosted", "hosted"},
}

// Patterns of text fields that policies compare as text.
var textFormats = map[string]struct{ pattern, shape string }{
	"context.time": {`^([01][0-9]|2[0-3]):[0-5][0-9]$`, `"HH:MM", as "09:00"`},
	"context.date": {`^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`, `"YYYY-MM-DD", as "2026-11-23"`},
}

// inputType is the one Go definition of what policies decide on.
var inputType = reflect.TypeFor[facts.Input]()

// inputSchema gives the JSON schema of a policy's input. extra are facts that
// the broker's configuration adds to context, by name, with their JSON type.
func inputSchema(extra map[string]string) map[string]any {
	s := schemaOf(inputType, "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "The input of a Proviso policy, version 1"
	props := s["properties"].(map[string]any)["context"].(map[string]any)["properties"].(map[string]any)
	for name, kind := range extra {
		if _, taken := props[name]; !taken {
			props[name] = typed(kind)
		}
	}
	return s
}

// typed is a schema of one JSON type; any other word is "anything".
func typed(kind string) map[string]any {
	switch kind {
	case "string", "boolean", "number", "integer", "object", "array":
		return map[string]any{"type": kind}
	}
	return map[string]any{}
}

// schemaOf maps a Go type to a JSON schema. at is the type's path in the input.
func schemaOf(t reflect.Type, at string) map[string]any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		s := typed("string")
		if w, ok := words[at]; ok {
			s["enum"] = w
		}
		if f, ok := textFormats[at]; ok {
			s["pattern"] = f.pattern
		}
		return s
	case reflect.Bool:
		return typed("boolean")
	case reflect.Int, reflect.Int64, reflect.Int32:
		return typed("integer")
	case reflect.Float64:
		return typed("number")
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), at+"[]")}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), at+".*")}
	case reflect.Struct:
		if fs := inputFields(t); len(fs) > 0 {
			props := map[string]any{}
			for _, f := range fs {
				props[f.name] = schemaOf(f.typ, joinPath(at, f.name))
			}
			return map[string]any{"type": "object", "additionalProperties": false, "properties": props}
		}
	}
	return map[string]any{}
}

func joinPath(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// inputField is one member of an object of the input.
type inputField struct {
	name  string
	typ   reflect.Type
	owner reflect.Type // the struct that declares it
	goes  string       // the Go field's name in owner
}

// inputFields lists the members of a struct; those of embedded structs are the
// struct's own, as in encoding/json.
func inputFields(t reflect.Type) []inputField {
	var out []inputField
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			out = append(out, inputFields(f.Type)...)
		case name == "" || name == "-":
		default:
			out = append(out, inputField{name, f.Type, t, f.Name})
		}
	}
	return out
}

// schemaSet hands the schema to OPA's type checker, which then knows every
// field of input: a misspelt one is an error that lists the right ones.
func schemaSet(extra map[string]string) *ast.SchemaSet {
	// OPA reads a schema as encoding/json would give it.
	text, err := json.Marshal(inputSchema(extra))
	if err != nil {
		panic("policy: the input's schema is not JSON: " + err.Error())
	}
	var raw any
	if err := json.Unmarshal(text, &raw); err != nil {
		panic("policy: the input's schema is not JSON: " + err.Error())
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, raw)
	return set
}

// fieldsAt lists the fields of the object at a path of the input; free is an
// object with names of its own, or no object.
func fieldsAt(path []string) (names []string, free bool) {
	t := inputType
	for _, name := range path {
		fs := inputFields(t)
		i := slices.IndexFunc(fs, func(f inputField) bool { return f.name == name })
		if i < 0 {
			return nil, true
		}
		for t = fs[i].typ; t.Kind() == reflect.Pointer; {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil, true
		}
	}
	for _, f := range inputFields(t) {
		names = append(names, f.name)
	}
	return names, false
}

// fieldKind gives the Go kind of a field of the input, Invalid if it is none.
func fieldKind(path string) reflect.Kind {
	t := inputType
	for _, name := range strings.Split(path, ".") {
		if t.Kind() != reflect.Struct {
			return reflect.Invalid
		}
		fs := inputFields(t)
		i := slices.IndexFunc(fs, func(f inputField) bool { return f.name == name })
		if i < 0 {
			return reflect.Invalid
		}
		for t = fs[i].typ; t.Kind() == reflect.Pointer; {
			t = t.Elem()
		}
	}
	return t.Kind()
}
