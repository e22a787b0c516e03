package policy

import (
	"path"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso/internal/document"
)

// dataLimits bound one data.json; the bound of the whole directory is in load.go.
var dataLimits = document.Limits{Bytes: maxFileBytes, Depth: 32, Members: 500_000}

// dataDocument puts all data.json together: that of a folder a/b stands at
// data.a.b. It is read as strictly as everything else: a member that is named
// twice is an error, here and between two files.
func dataDocument(files []file) (ast.Object, Problems) {
	rootDoc := document.ObjectOf()
	var problems Problems
	for _, f := range files {
		if !f.isData() {
			continue
		}
		v, err := document.Parse([]byte(f.content), dataLimits)
		if err != nil {
			problems = append(problems, Problem{Code: CodeFile, File: f.path, Message: err.Error(), Hint: "data.json holds one JSON object"})
			continue
		}
		if v.Kind() != document.Object {
			problems = append(problems, Problem{Code: CodeFile, File: f.path, Message: "data.json holds one JSON object, this is " + v.Kind().String()})
			continue
		}
		merged, ok := merge(rootDoc, v, dataRoot(f.path))
		if !ok {
			problems = append(problems, Problem{Code: CodeFile, File: f.path, Message: "a value of this file stands at a path that another data.json has too"})
			continue
		}
		rootDoc = merged
	}
	return termOf(rootDoc).Value.(ast.Object), problems
}

// dataRoot gives the path in data at which a file's object stands.
func dataRoot(name string) []string {
	if dir := path.Dir(name); dir != "." {
		return strings.Split(dir, "/")
	}
	return nil
}

// merge gives into with the object v at the path at; objects are united, any
// other value that both have makes it fail.
func merge(into, v document.Value, at []string) (document.Value, bool) {
	if len(at) > 0 {
		v = document.ObjectOf(document.Member(at[0], nest(v, at[1:])))
	}
	fields := make([]document.Field, 0, len(v.Fields()))
	for _, f := range v.Fields() {
		old := into.Get(f.Name)
		switch {
		case old.IsAbsent():
		case old.Kind() == document.Object && f.Value.Kind() == document.Object:
			united, ok := merge(old, f.Value, nil)
			if !ok {
				return into, false
			}
			f.Value = united
		default:
			return into, false
		}
		fields = append(fields, f)
	}
	return into.With(fields...), true
}

func nest(v document.Value, at []string) document.Value {
	for i := len(at) - 1; i >= 0; i-- {
		v = document.ObjectOf(document.Member(at[i], v))
	}
	return v
}

// termOf gives a document as OPA's own value, without a detour over maps: that
// conversion costs more than the policy.
// Absent is nil.
func termOf(v document.Value) *ast.Term {
	switch v.Kind() {
	case document.Null:
		return ast.NullTerm()
	case document.Bool:
		b, _ := v.Truth()
		return ast.InternedTerm(b)
	case document.Int:
		n, _ := v.Integer()
		return ast.InternedTerm(n)
	case document.Float:
		f, _ := v.Number()
		return ast.FloatNumberTerm(f)
	case document.String:
		s, _ := v.Text()
		return ast.StringTerm(s)
	case document.Array:
		items := v.Items()
		terms := make([]*ast.Term, len(items))
		for i := range items {
			terms[i] = termOf(items[i])
		}
		return ast.ArrayTerm(terms...)
	case document.Object:
		fields := v.Fields()
		pairs := make([][2]*ast.Term, len(fields))
		for i := range fields {
			pairs[i] = [2]*ast.Term{ast.StringTerm(fields[i].Name), termOf(fields[i].Value)}
		}
		return ast.ObjectTerm(pairs...)
	}
	return nil
}
