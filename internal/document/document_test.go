package document

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What is not one strict JSON text is refused; the reason is a word of the
// error, and the error never quotes a value.
func TestParseRefusals(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "expected"},
		{"white space only", " \n", "expected"},
		{"two values", "1 2", "end of the text"},
		{"bytes after it", `{"a":1}x`, "end of the text"},
		{"NUL after it", "{}\x00", "end of the text"},
		{"byte order mark", "\uFEFF{}", "a value"},
		{"UTF-16", "\xfe\xff\x00{\x00}", "UTF-8"},
		{"not UTF-8", "\"\xff\"", "UTF-8"},
		{"overlong UTF-8", "\"\xc0\xaf\"", "UTF-8"},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", "UTF-8"},
		{"high surrogate alone", `"\ud800"`, "surrogates"},
		{"low surrogate alone", `"\udc00"`, "surrogates"},
		{"surrogates swapped", `"\udc00\ud800"`, "surrogates"},
		{"high surrogate and text", `"\ud800x"`, "surrogates"},
		{"high surrogate and escape", `"\ud800\n"`, "surrogates"},
		{"two high surrogates", `"\ud800\ud800"`, "surrogates"},
		{"escape cut off", `"\u12`, "hexadecimal"},
		{"escape not hexadecimal", `"\u12g4"`, "hexadecimal"},
		{"escape with a sign", `"\u+123"`, "hexadecimal"},
		{"unknown escape", `"\x41"`, "escapes"},
		{"backslash at the end", `"\`, "end of the string"},
		{"string not closed", `"abc`, "end of the string"},
		{"control character", "\"a\nb\"", "control"},
		{"control character after an escape", "\"\\n\x01\"", "control"},
		{"single quotes", `'a'`, "a value"},
		{"bare word", `yes`, "a value"},
		{"True", `True`, "a value"},
		{"nul", `nul`, "a value"},
		{"nullx", `nullx`, "end of the text"},
		{"NaN", `NaN`, "a value"},
		{"Infinity", `-Infinity`, "a value"},
		{"leading zero", `01`, "leading zero"},
		{"leading zero, negative", `-01`, "leading zero"},
		{"plus sign", `+1`, "a value"},
		{"minus alone", `-`, "a value"},
		{"point alone", `.5`, "a value"},
		{"point at the end", `1.`, "digits after the point"},
		{"exponent empty", `1e`, "exponent"},
		{"exponent with two signs", `1e+-2`, "exponent"},
		{"hexadecimal", `0x10`, "end of the text"},
		{"underscore", `1_000`, "end of the text"},
		{"out of range", `1e400`, "out of range"},
		{"integer of 2^53", `9007199254740992`, "2^53"},
		{"integer of -2^53", `-9007199254740992`, "2^53"},
		{"integer of 20 digits", `18446744073709551616`, "2^53"},
		{"integer in disguise", `1e20`, "2^53"},
		{"integer in disguise, with a point", `9007199254740993.0`, "2^53"},
		{"trailing comma in a list", `[1,]`, "a value"},
		{"trailing comma in an object", `{"a":1,}`, "member's name"},
		{"comma alone", `[,]`, "a value"},
		{"no comma", `[1 2]`, "comma"},
		{"no colon", `{"a" 1}`, "colon"},
		{"name without quotes", `{a:1}`, "member's name"},
		{"name a number", `{1:1}`, "member's name"},
		{"object not closed", `{"a":1`, "comma or the end"},
		{"list closed as an object", `[1}`, "comma or the end"},
		{"comment", `{}//`, "end of the text"},
		{"name twice", `{"a":1,"b":2,"a":1}`, "named twice"},
		{"name twice, once escaped", `{"a":1,"\u0061":2}`, "named twice"},
		{"name twice, within", `[{"x":{"a":1,"a":2}}]`, "named twice"},
		{"empty name twice", `{"":1,"":1}`, "named twice"},
		{"too deep", deep(17), "too deeply"},
		{"much too deep", strings.Repeat("[", 60000), "too deeply"},
		{"too deep in objects", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "too deeply"},
		{"too many values", "[" + strings.Repeat("1,", 5000) + "1]", "too many"},
		{"too long", `"` + strings.Repeat("a", 64<<10) + `"`, "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := Parse([]byte(tt.text), Limits{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v %v, want an error with %q", v, err, tt.want)
			}
			if !v.IsAbsent() {
				t.Error("a value beside the error")
			}
			if strings.HasPrefix(tt.want, "too") || tt.want == "at most" {
				if !errors.Is(err, ErrLimit) {
					t.Error("not ErrLimit")
				}
			}
			if (tt.want == "named twice") != errors.Is(err, ErrDuplicate) {
				t.Error("ErrDuplicate is for names only")
			}
		})
	}
	if _, err := Parse([]byte(`{"password":"hunter2",}`), Limits{}); strings.Contains(err.Error(), "hunter2") {
		t.Error("an error quotes a value")
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		` {"b":1,"a":[true,false,null]} `:     `{"a":[true,false,null],"b":1}`,
		`{}`:                                  `{}`,
		`[]`:                                  `[]`,
		`""`:                                  `""`,
		`-0`:                                  `0`,
		`-0.0`:                                `0`,
		`9007199254740991`:                    `9007199254740991`,
		`-9007199254740991`:                   `-9007199254740991`,
		`1E3`:                                 `1000`,
		`1e-7`:                                `1e-7`,
		`1e21`:                                `1e+21`,
		`0.000001`:                            `0.000001`,
		`"\u00e9\ud83d\ude00\/"`:              `"é😀/"`,
		`"\u0000\u001f\u007f\b\f\n\r\t\"\\"`:  `"\u0000\u001f` + "\x7f" + `\b\f\n\r\t\"\\"`,
		`{"\ufb33":1,"\ud83d\ude02":2,"z":3}`: "{\"z\":3,\"\U0001F602\":2,\"\uFB33\":1}", // by UTF-16 units
	} {
		v, err := Parse([]byte(text), Limits{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := v.String(); got != want {
			t.Errorf("%s is written %s, want %s", text, got, want)
		}
	}
}

// Sixty-five names and more take another way than a few.
func TestManyMembersAreSorted(t *testing.T) {
	for _, n := range []int{2, 11, 12, 13, 64, 65, 300} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("member%d", i*7919%n))
		}
		text := `{"` + strings.Join(names, `":1,"`) + `":1}`
		v, err := Parse([]byte(text), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		for i, f := range v.Fields() {
			if f.Name != names[i] {
				t.Fatalf("%d members: member %d is %s, want %s", n, i, f.Name, names[i])
			}
		}
		twice := strings.TrimSuffix(text, "}") + `,"` + names[n/2] + `":2}`
		if _, err := Parse([]byte(twice), Limits{}); !errors.Is(err, ErrDuplicate) {
			t.Errorf("%d members: a name twice: %v", n, err)
		}
	}
}

// What is absent stays absent, and what can't be written is never held.
func TestConstructors(t *testing.T) {
	for name, v := range map[string]Value{
		"empty string":        StringOf(""),
		"no strings":          StringsOf(nil),
		"NaN":                 FloatOf(math.NaN()),
		"infinity":            FloatOf(math.Inf(-1)),
		"integer beyond 2^53": IntOf(1 << 53),
		"least integer":       IntOf(math.MinInt64),
		"float beyond 2^53":   FloatOf(1e20),
		"zero Value":          {},
		"member of a text":    StringOf("a").Get("b"),
		"member not there":    ObjectOf(Member("a", IntOf(1))).At("a", "b", "c"),
	} {
		if !v.IsAbsent() || v.String() != "" {
			t.Errorf("%s is %s %q", name, v.Kind(), v)
		}
	}
	v := ObjectOf(Member("b", ListOf(Value{}, IntOf(1), StringOf(""))), Member("a", StringOf("")), Member("c", BoolOf(false)), Member("c", BoolOf(true)))
	if got := v.String(); got != `{"b":[1],"c":false}` {
		t.Errorf("written %s", got)
	}
	if got := v.With(Member("c", Value{}), Member("a", FloatOf(0.5))).String(); got != `{"a":0.5,"b":[1]}` {
		t.Errorf("with changes %s", got)
	}
	if v.String() != `{"b":[1],"c":false}` {
		t.Error("With changed the original")
	}
	if got := StringOf("bad\xffutf").String(); got != `"bad�utf"` {
		t.Errorf("invalid UTF-8 is written %s", got)
	}
	if b, err := (Value{}).MarshalJSON(); err != nil || string(b) != "null" {
		t.Errorf("absent as JSON: %s %v", b, err)
	}
}

// Each accessor answers for its own kind only: nothing is coerced.
func TestAccessors(t *testing.T) {
	v, err := Parse([]byte(`{"array":["x"],"boolean":true,"integer":7,"null":null,"number":0.5,"object":{"a":"b"},"string":"7"}`), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range v.Fields() {
		if f.Value.Kind().String() != f.Name {
			t.Errorf("%s is a %s", f.Name, f.Value.Kind())
		}
		_, text := f.Value.Text()
		truth, isTruth := f.Value.Truth()
		_, integer := f.Value.Integer()
		_, number := f.Value.Number()
		if text != (f.Name == "string") || isTruth != (f.Name == "boolean") || truth != isTruth || integer != (f.Name == "integer") ||
			number != (f.Name == "integer" || f.Name == "number") || (f.Value.Items() != nil) != (f.Name == "array") || (f.Value.Fields() != nil) != (f.Name == "object") {
			t.Errorf("%s answers as another kind", f.Name)
		}
	}
	if n, _ := v.Get("integer").Number(); n != 7 {
		t.Errorf("integer as a number: %v", n)
	}
	if got, _ := v.At("object", "a").Text(); got != "b" {
		t.Errorf("at object, a: %q", got)
	}
	if got := StringsOf([]string{"b", "a"}).String(); got != `["b","a"]` {
		t.Errorf("strings: %s", got)
	}
}

// A Value shares nothing with the bytes that it was read from.
func TestParseCopies(t *testing.T) {
	data := []byte(`{"name":"value"}`)
	v, err := Parse(data, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = 'x'
	}
	if v.String() != `{"name":"value"}` {
		t.Errorf("changed with its source: %s", v)
	}
}

// The number vectors of RFC 8785 appendix B.
func TestNumbersOfRFC8785(t *testing.T) {
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0", 0x8000000000000000: "0", 0x0000000000000001: "5e-324", 0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308", 0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992", 0xc340000000000000: "-9007199254740992", 0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22", 0x44b52d02c7e14af6: "1e+23", 0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000", 0x444b1ae4d6e2ef4f: "999999999999999900000", 0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7", 0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332", 0x41b3de4355555554: "333333333.33333325", 0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334", 0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333", 0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		if got := string(appendNumber(nil, math.Float64frombits(bits))); got != want {
			t.Errorf("%016x is written %s, want %s", bits, got, want)
		}
	}
}

// The vectors of RFC 8785's author. They are not part of this repository.
func TestJCSVectors(t *testing.T) {
	root := vectorsFolder(t)
	for _, name := range []string{"arrays", "french", "structures", "unicode", "values", "weird"} {
		read := func(path string) []byte {
			data, err := os.ReadFile(filepath.Join(root, "vectors", "jcs", "testdata", path))
			if err != nil {
				if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
					t.Fatalf("the vectors must be there: %v", err)
				}
				t.Logf("NOT TESTED, vectors are absent: %v", err)
				return nil
			}
			return data
		}
		input := read("input/" + name + ".json")
		if input == nil {
			return
		}
		v, err := Parse(input, Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := hex.DecodeString(strings.Join(strings.Fields(string(read("outhex/"+name+".txt"))), ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.String(); got != string(want) {
			t.Errorf("%s is written\n%s\nwant\n%s", name, got, want)
		}
	}
}

// vectorsFolder is PROVISO_SHARED, or the folder beside the checkout.
func vectorsFolder(t *testing.T) string {
	t.Helper()
	if root := os.Getenv("PROVISO_SHARED"); root != "" {
		return root
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(filepath.Dir(dir), "shared")
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

// FuzzParse: what is taken, encoding/json takes too and reads the same; it is
// written in one form, which is read and written again without change.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"b":[1,-2.5e3,null],"a":{"\u00e9":"\ud83d\ude00","":true}}`, `[]`, `"\n"`, `-0`, `1e20`, `{"a":1,"a":2}`, `[[[[]]]]`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Parse(data, Limits{})
		if err != nil {
			if !v.IsAbsent() {
				t.Fatal("a value beside an error")
			}
			return
		}
		text := AppendCanonical(nil, v)
		var theirs, ours any
		if err := json.Unmarshal(data, &theirs); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", data, err)
		}
		if err := json.Unmarshal(text, &ours); err != nil {
			t.Fatalf("written %q: %v", text, err)
		}
		if !reflect.DeepEqual(theirs, ours) {
			t.Fatalf("%q is written %q", data, text)
		}
		// Escapes written out may be longer than they were.
		again, err := Parse(text, Limits{Bytes: 6*len(data) + 16})
		if err != nil {
			t.Fatalf("%q can't be read again: %v", text, err)
		}
		if got := again.String(); got != string(text) {
			t.Fatalf("%q is written %q the second time", text, got)
		}
	})
}
