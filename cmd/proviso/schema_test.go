package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	modulePath  = "github.com/proviso-ci/proviso"
	schemaFile  = "../../docs/schema/config.schema.json"
	operateFile = "../../docs/operate.md"
)

// fieldComments reads the comments of every struct's fields in the packages
// that have a part of the configuration: they are its manual.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, dir := range []string{"cmd/proviso", "server", "broker", "policy", "facts", "credential", "runner", "identity", "pass", "gate", "agent"} {
		for _, file := range made(filepath.Glob(filepath.Join("../..", dir, "*.go")))(t) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			syntax := made(parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments))(t)
			ast.Inspect(syntax, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				fields, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, f := range fields.Fields.List {
					text := f.Doc.Text()
					if text == "" {
						text = f.Comment.Text()
					}
					for _, name := range f.Names {
						comments[modulePath+"/"+dir+"."+spec.Name.Name+"."+name.Name] = strings.TrimSpace(text)
					}
				}
				return true
			})
		}
	}
	return comments
}

// schemaOf generates the JSON schema of a configuration file.
func schemaOf(t *testing.T, config any, title string) *jsonschema.Schema {
	t.Helper()
	comments := fieldComments(t)
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", DoNotReference: true, Anonymous: true, ExpandedStruct: true,
		Namer: func(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }, // several are called Config
		LookupComment: func(t reflect.Type, field string) string {
			if t.PkgPath() == "main" {
				return comments[modulePath+"/cmd/proviso."+t.Name()+"."+field]
			}
			return comments[t.PkgPath()+"."+t.Name()+"."+field]
		},
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			switch t {
			case durationType:
				return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`, Examples: []any{"15m"}}
			case valuesType:
				text := &jsonschema.Schema{Type: "string"}
				return &jsonschema.Schema{OneOf: []*jsonschema.Schema{text, {Type: "array", Items: text}}}
			}
			return nil
		},
	}
	s := r.Reflect(config)
	s.Title = title
	return s
}

// The schema that editors use, and the reference in docs/operate.md, are what
// the Go types and their comments say.
func TestSchemaAndReferenceAreGenerated(t *testing.T) {
	schema := schemaOf(t, &Config{}, "Proviso: the broker's configuration")
	data := append(made(json.MarshalIndent(schema, "", "  "))(t), '\n')
	if bytes.Contains(data, []byte(`"description": ""`)) {
		t.Error("a key of the schema has no description")
	}
	generated(t, schemaFile, func([]byte) []byte { return data })
	generated(t, operateFile, func(page []byte) []byte {
		page = between(t, page, "configuration", reference(t, schema))
		return between(t, page, "gate's file", table(t, schemaOf(t, &gateConfig{}, ""), ""))
	})
	generated(t, "../../docs/fleet.md", func(page []byte) []byte {
		return between(t, page, "agent's file", table(t, schemaOf(t, &runnerConfig{}, ""), ""))
	})
}

// generated holds a file to what it should be, or writes it with -update.
func generated(t *testing.T, file string, want func(now []byte) []byte) {
	t.Helper()
	now, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if next := want(now); *update {
		noError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		noError(t, os.WriteFile(file, next, 0o644))
	} else if diff := cmp.Diff(string(now), string(next)); diff != "" {
		t.Errorf("%s is not what the Go types say; go test ./cmd/proviso -update writes it:\n%s", filepath.Base(file), diff)
	}
}

// between replaces what stands between the marks of a page.
func between(t *testing.T, page []byte, mark, text string) []byte {
	t.Helper()
	begin, end := []byte("<!-- generated: "+mark+" -->\n"), []byte("<!-- end -->")
	head, rest, ok := bytes.Cut(page, begin)
	_, tail, closed := bytes.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("the page has no place for what is generated: %s", begin)
	}
	return bytes.Join([][]byte{head, begin, []byte(text), end, tail}, nil)
}

// reference writes one section of Markdown for each section of the file.
func reference(t *testing.T, s *jsonschema.Schema) string {
	var b strings.Builder
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		section := pair.Value
		fmt.Fprintf(&b, "\n#### `%s`\n\n%s\n", pair.Key, section.Description)
		switch {
		case section.Items != nil:
			section = section.Items
			fmt.Fprint(&b, "\nA list; each entry has\n")
		case open(section) != nil:
			section = open(section)
			fmt.Fprint(&b, "\nKeys are names; each has\n")
		}
		if section.Properties != nil && section.Properties.Len() > 0 {
			fmt.Fprintf(&b, "\n%s", table(t, section, ""))
		}
	}
	return b.String() + "\n"
}

// open gives the schema of a map's values, nil for a struct.
func open(s *jsonschema.Schema) *jsonschema.Schema {
	if s.AdditionalProperties == nil || s.AdditionalProperties == jsonschema.FalseSchema || s.AdditionalProperties == jsonschema.TrueSchema {
		return nil
	}
	if data, err := json.Marshal(s.AdditionalProperties); err != nil || string(data) == "false" || string(data) == "true" {
		return nil
	}
	return s.AdditionalProperties
}

// table writes the keys of one mapping, and of those inside of it.
func table(t *testing.T, s *jsonschema.Schema, prefix string) string {
	var b strings.Builder
	b.WriteString("| key | value | meaning |\n|---|---|---|\n")
	rows(t, &b, s, prefix)
	return b.String()
}

func rows(t *testing.T, b *strings.Builder, s *jsonschema.Schema, prefix string) {
	required := map[string]bool{}
	for _, name := range s.Required {
		required[name] = true
	}
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		name, v := prefix+pair.Key, pair.Value
		var kind string
		inner := v
		switch {
		case v.Pattern != "":
			kind = "time"
		case v.OneOf != nil:
			kind = "text or list"
		case v.Items != nil && v.Items.Properties == nil:
			kind = "list"
		case v.Items != nil:
			kind, inner, name = "list", v.Items, name+"[]"
		case open(v) != nil:
			kind = "by name"
			if inner = open(v); inner.Properties != nil {
				name += ".NAME"
			}
		case v.Properties != nil:
			kind = "keys"
		default:
			kind = map[string]string{"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "": "text, number or boolean"}[v.Type]
		}
		if required[pair.Key] {
			kind += ", required"
		}
		if v.Description == "" {
			t.Errorf("%s has no comment, and so no meaning", name)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, kind, cell(v.Description))
		if inner.Properties != nil {
			rows(t, b, inner, name+".")
		}
	}
}

// cell makes a comment fit for a table: indented lines keep their breaks.
func cell(text string) string {
	var b strings.Builder
	for i, line := range strings.Split(text, "\n") {
		switch {
		case i == 0:
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			b.WriteString("<br>")
		default:
			b.WriteString(" ")
		}
		b.WriteString(strings.TrimSpace(line))
	}
	return strings.ReplaceAll(b.String(), "|", "\\|")
}

// validate holds a YAML text against the shipped schema, as an editor does.
func validate(t *testing.T, text string) error {
	t.Helper()
	raw := made(os.Open(schemaFile))(t)
	t.Cleanup(func() { _ = raw.Close() })
	c := validator.NewCompiler()
	noError(t, c.AddResource("config.schema.json", made(validator.UnmarshalJSON(raw))(t)))
	schema := made(c.Compile("config.schema.json"))(t)
	asJSON := made(yaml.YAMLToJSON([]byte(text)))(t)
	return schema.Validate(made(validator.UnmarshalJSON(bytes.NewReader(asJSON)))(t))
}

// What an editor says by the schema, the broker says too: the good
// configuration passes, and no mistake of shape does.
func TestSchemaAgreesWithTheBroker(t *testing.T) {
	good := string(made(os.ReadFile("testdata/config/good.yaml"))(t))
	if err := validate(t, good); err != nil {
		t.Errorf("the good configuration: %v", err)
	}
	for _, c := range []struct{ old, change string }{
		{"store: data", "stores: data"},
		{"store: data", "store: [data]"},
		{"credential: {kind: jwt", "credential: {knid: jwt"},
		{`"61200123"}`, `61200123}`},
		{"max_ttl: 15m", "max_ttl: 15"},
		{"max_ttl: 15m", "max_ttl: soon"},
		{"connections: 4096", `connections: "4096"`},
		{"connections: 4096", "connections: 40.5"},
		{"events: [push]", "events: push"},
		{"    platform: github\n", ""},
		{"  url: https://proviso.acme.example\n", ""},
	} {
		text := strings.Replace(good, c.old, c.change, 1)
		if validate(t, text) == nil {
			t.Errorf("%q for %q passes the schema", c.change, c.old)
		}
		if _, _, err := parseConfig("proviso.yaml", []byte(text)); err == nil {
			t.Errorf("%q for %q starts a broker", c.change, c.old)
		}
	}
}
