package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// brokersPackages are those whose code runs in a broker or a gate.
var brokersPackages = []string{"server", "broker", "policy", "facts", "fleet", "credential", "gate", "runner", "identity", "audit", "pass", "store",
	"internal/keyset", "internal/jose", "internal/document"}

// code is what a look at the source finds: what can remember something from
// one request to the next, and the constants.
type code struct {
	memories  map[string]bool   // package.Type.field
	all       map[string]bool   // every field and variable
	constants map[string]string // package.name and its expression
}

// readCode finds in a program's own source every field that outlives a request
// and changes: maps, lists and arrays of what a mutex guards, atomic pointers,
// pools.
func readCode(t *testing.T) code {
	t.Helper()
	c := code{map[string]bool{}, map[string]bool{}, map[string]string{}}
	for _, dir := range brokersPackages {
		for _, name := range made(filepath.Glob(filepath.Join("../..", dir, "*.go")))(t) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file := made(parser.ParseFile(token.NewFileSet(), name, nil, 0))(t)
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					c.fields(file.Name.Name+"."+n.Name.Name, n.Type)
				case *ast.ValueSpec:
					for i, id := range n.Names {
						c.all[file.Name.Name+"."+id.Name] = true
						if i < len(n.Values) {
							text := types.ExprString(n.Values[i])
							c.constants[file.Name.Name+"."+id.Name] = text
							if strings.HasPrefix(text, "sync.Pool{") || strings.HasPrefix(text, "sync.Map{") {
								c.memories[file.Name.Name+"."+id.Name] = true
							}
						}
					}
				}
				return true
			})
		}
	}
	return c
}

func (c code) fields(name string, spec ast.Expr) {
	s, ok := spec.(*ast.StructType)
	if !ok {
		return
	}
	guarded := name == "store.claims" // by the mutex of the DB that it is a part of
	for _, f := range s.Fields.List {
		kind := types.ExprString(f.Type)
		guarded = guarded || kind == "sync.Mutex" || kind == "sync.RWMutex"
	}
	for _, f := range s.Fields.List {
		kind := types.ExprString(f.Type)
		grows := strings.HasPrefix(kind, "map[") || strings.HasPrefix(kind, "[")
		for _, id := range f.Names {
			c.all[name+"."+id.Name] = true
		}
		if strings.HasPrefix(kind, "atomic.Pointer[") || kind == "sync.Map" || guarded && grows {
			for _, id := range f.Names {
				c.memories[name+"."+id.Name] = true
			}
		}
	}
}

// Every cache has a bound and a row: what can remember something from one
// request to the next is on the page, and each bound on it is the code's.
func TestCachesAreOnThePage(t *testing.T) {
	page, found := readPage(t, "docs/caches.md"), readCode(t)
	listed := map[string]bool{}
	name := regexp.MustCompile("`([a-z]+\\.[A-Za-z]+(?:\\.[A-Za-z]+)?)`")
	rows := append(marked(t, page, "caches"), marked(t, page, "no caches")...)
	for _, row := range rows {
		for _, m := range name.FindAllStringSubmatch(row[1], -1) {
			listed[m[1]] = true
		}
	}
	for _, memory := range slices.Sorted(maps.Keys(found.memories)) {
		if !listed[memory] {
			t.Errorf("%s can remember something from one request to the next, and has no row in docs/caches.md", memory)
		}
	}
	for _, memory := range slices.Sorted(maps.Keys(listed)) {
		if !found.all[memory] {
			t.Errorf("docs/caches.md has a row for %s, which is not in the code", memory)
		}
	}
	if len(found.memories) < 20 {
		t.Errorf("only %d memories were found: this test looks at nothing", len(found.memories))
	}
	bound := regexp.MustCompile("`([a-z]+\\.[A-Za-z]+) = ([^`]+)`")
	bounds := 0
	for _, row := range rows {
		for _, m := range bound.FindAllStringSubmatch(strings.Join(row, " | "), -1) {
			bounds++
			if found.constants[m[1]] != m[2] {
				t.Errorf("docs/caches.md says %s = %s, and the code %q", m[1], m[2], found.constants[m[1]])
			}
		}
	}
	if bounds < 12 {
		t.Errorf("docs/caches.md names %d bounds", bounds)
	}
}
