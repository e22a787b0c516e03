package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/proviso-ci/proviso/facts"
)

const (
	schemaFile = "../docs/policy-input.schema.json"
	manualFile = "../docs/policy-input.md"
)

// The manual and the schema of the input are the Go types and their comments:
// this test writes them with -update, and fails when they differ.
func TestInputManualIsGenerated(t *testing.T) {
	comments := fieldComments(t, "../facts", "../identity")
	schema := inputSchema(nil)
	describeSchema(schema, inputType, comments)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		t.Fatal(err)
	}
	generated(t, schemaFile, out.Bytes())

	manual, err := os.ReadFile(manualFile)
	if err != nil {
		t.Fatal(err)
	}
	text := between(t, string(manual), "input", inputTables(comments))
	text = between(t, text, "functions", functionTables())
	generated(t, manualFile, []byte(text))
}

func generated(t *testing.T, name string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the Go types say (%v); run: go test ./policy -run Manual -update", name, err)
	}
}

// between replaces what stands between the two marks of a generated part.
func between(t *testing.T, text, name, content string) string {
	t.Helper()
	begin, end := "<!-- generated: "+name+" -->\n", "<!-- end: "+name+" -->"
	head, rest, ok := strings.Cut(text, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks for %s", manualFile, name)
	}
	return head + begin + content + end + tail
}

// fieldComments reads the comment of every struct field, by "Type.Field".
func fieldComments(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), dir+"/"+e.Name(), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						text := field.Doc.Text() + field.Comment.Text()
						for _, name := range field.Names {
							out[f.Name.Name+"."+spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
						}
					}
				}
				return true
			})
		}
	}
	return out
}

func commentOf(f inputField, comments map[string]string) string {
	pkg := f.owner.PkgPath()[strings.LastIndex(f.owner.PkgPath(), "/")+1:]
	text := comments[pkg+"."+f.owner.Name()+"."+f.goes]
	// A Go comment begins with the field's Go name; here it has another.
	if rest, ok := strings.CutPrefix(text, f.goes); ok && rest != "" && strings.ContainsAny(rest[:1], " :,") {
		return f.name + rest
	}
	return text
}

func describeSchema(schema map[string]any, typ reflect.Type, comments map[string]string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	props, _ := schema["properties"].(map[string]any)
	if typ.Kind() != reflect.Struct || props == nil {
		return
	}
	for _, f := range inputFields(typ) {
		p := props[f.name].(map[string]any)
		if c := commentOf(f, comments); c != "" {
			p["description"] = c
		}
		describeSchema(p, f.typ, comments)
	}
}

// inputTables is one table for each part of the input.
func inputTables(comments map[string]string) string {
	var b strings.Builder
	for _, part := range inputFields(inputType) {
		typ := part.typ
		for typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		fmt.Fprintf(&b, "### input.%s\n\n%s\n\n", part.name, commentOf(part, comments))
		if typ.Kind() == reflect.Map {
			typ = typ.Elem()
			b.WriteString("For each key of context:\n\n")
		}
		b.WriteString("| field | type | from | meaning |\n|---|---|---|---|\n")
		tableRows(&b, part.name, "", typ, comments)
		b.WriteString("\n")
	}
	return b.String()
}

// tableRows writes a row for each field, those of nested objects after theirs.
func tableRows(b *strings.Builder, part, above string, typ reflect.Type, comments map[string]string) {
	for _, f := range inputFields(typ) {
		name := above + f.name
		path := part + "." + name
		kind := kindOf(f.typ)
		if w := words[path]; len(w) > 0 {
			kind = "one of " + strings.Join(w, ", ")
		}
		if f, ok := textFormats[path]; ok {
			kind = "string, " + f.shape
		}
		if _, opts, _ := strings.Cut(jsonTag(f), ","); !strings.Contains(opts, "omitempty") && !strings.Contains(opts, "omitzero") {
			kind += ", always there"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, kind, sourceOf(part, f.name), strings.ReplaceAll(commentOf(f, comments), "|", `\|`))
		inner := f.typ
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			tableRows(b, part, name+".", inner, comments)
		}
	}
}

func jsonTag(f inputField) string {
	field, _ := f.owner.FieldByName(f.goes)
	return field.Tag.Get("json")
}

func kindOf(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Slice:
		return "list of " + kindOf(t.Elem()) + "s"
	case reflect.Map, reflect.Struct:
		return "object"
	case reflect.Interface:
		return "any value"
	}
	return t.Kind().String()
}

// sourceOf says whose word a value is.
func sourceOf(part, key string) string {
	switch {
	case part == "intent" || part == "context" && declared[key]:
		return "the request"
	case part == "resource" || part == "context" && key == "service":
		return "the grant"
	case part == "context" && key == "environment":
		return "the grant, or the job's token"
	case part == "runner":
		return "the runner's evidence"
	case part == "identity" && key != "on_call" || part == "context" && jobKeys[key]:
		return "the job's token"
	case part == "origin":
		return "the broker"
	case slices.Contains([]string{"time", "weekday", "date", "timestamp", "zone"}, key):
		return "the broker's clock"
	case strings.HasPrefix(key, "commit_"):
		return "the broker's mirror of the repository"
	}
	return "a source of facts"
}

func functionTables() string {
	var b strings.Builder
	on := slices.DeleteFunc(slices.Sorted(slices.Values(builtinsOn)), func(s string) bool { return strings.HasPrefix(s, "internal.") })
	b.WriteString("On: `" + strings.Join(on, "` `") + "`\n\n| off | why | instead |\n|---|---|---|\n")
	for _, o := range builtinsOff {
		name := o.prefix
		if strings.HasSuffix(name, ".") {
			name += "*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, o.why, o.instead)
	}
	b.WriteString("\n")
	return b.String()
}

// The published schema takes what package facts assembles and what the examples
// have, and refuses what isn't typed.
func TestSchemaJudgesInputs(t *testing.T) {
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("input.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("input.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, valid := range map[string]bool{
		`{}`:                                       true,
		`{"context":{"time":"09:00"}}`:             true,
		`{"context":{"requested_ttl":30}}`:         true,
		`{"identity":{"claims":{"x":[1]}}}`:        true,
		`{"resource":{"labels":{"a":"b"}}}`:        true,
		`{"context":{"time":"9:00"}}`:              false,
		`{"context":{"time":"0:00"}}`:              false,
		`{"context":{"requested_ttl":null}}`:       false,
		`{"context":{"requested_ttl":"30"}}`:       false,
		`{"context":{"commit_signed":"true"}}`:     false,
		`{"identity":{"tenant":null}}`:             false,
		`{"identity":{"brnch":"main"}}`:            false,
		`{"context":{"weekday":"monday"}}`:         false,
		`{"something":{}}`:                         false,
		`{"resource":{"labels":{"a":1}}}`:          false,
		`{"runner":{"attestation":"self-signed"}}`: false,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); (err == nil) != valid {
			t.Errorf("%s: %v, want valid %v", text, err, valid)
		}
	}
}

// Whose word a value is, is said of every key of context as facts says it.
func TestEveryKeyOfContextHasASource(t *testing.T) {
	for _, f := range inputFields(reflect.TypeFor[facts.Context]()) {
		if sourceOf("context", f.name) == "a source of facts" && !slices.Contains([]string{"ticket_approved", "ticket", "approvals", "on_call", "freeze", "provenance"}, f.name) {
			t.Errorf("context.%s: nobody has said where it comes from", f.name)
		}
	}
}
