package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testedPackages are the directories of the packages that the threat model names.
var testedPackages = map[string]string{"proviso": ".", "jose": "internal/jose", "keyset": "internal/keyset", "document": "internal/document"}

// Each promise of the threat model names the tests that hold it, and each of
// them exists; the promises are numbered without a gap.
func TestEachPromiseHasItsTest(t *testing.T) {
	page := readPage(t, "docs/threat-model.md")
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	sources := map[string]string{}
	exists := func(pkg, name string) bool {
		dir, ok := testedPackages[pkg]
		if !ok {
			dir = pkg
		}
		if sources[dir] == "" {
			for _, file := range made(filepath.Glob(filepath.Join("../..", dir, "*_test.go")))(t) {
				sources[dir] += string(made(os.ReadFile(file))(t))
			}
		}
		return strings.Contains(sources[dir], "\nfunc "+name+"(")
	}
	promises := 0
	for line := range strings.Lines(page) {
		tests := named.FindAllStringSubmatch(line, -1)
		for _, m := range tests {
			if !exists(m[1], m[2]) {
				t.Errorf("docs/threat-model.md names %s.%s, which doesn't exist", m[1], m[2])
			}
		}
		if number, _, ok := strings.Cut(strings.TrimPrefix(line, "| P"), " |"); ok && strings.HasPrefix(line, "| P") {
			promises++
			if n, err := strconv.Atoi(number); err != nil || n != promises {
				t.Errorf("promise %d has the number %q", promises, number)
			}
			if len(tests) == 0 {
				t.Errorf("nothing holds promise %d: %s", promises, line)
			}
		}
	}
	if promises < 40 {
		t.Errorf("only %d promises were found", promises)
	}
}
