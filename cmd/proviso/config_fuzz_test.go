package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

// FuzzConfig: whatever stands in a configuration file, reading it ends, and
// every problem has its line and column.
func FuzzConfig(f *testing.F) {
	good, err := os.ReadFile("testdata/config/good.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good))
	bad, err := os.ReadFile("testdata/config/bad.txt")
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(bad), "\n\n= ") {
		if lines := strings.Split(block, "\n"); len(lines) > 2 && strings.HasPrefix(lines[1], "< ") {
			old, change := strings.ReplaceAll(lines[1][2:], `\n`, "\n"), strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(lines[2], ">"), " "), `\n`, "\n")
			f.Add(strings.Replace(string(good), old, change, 1))
		}
	}
	for _, text := range []string{"", "a", "- a", "a: &x b\nc: *x", "a: !!str b", "<<: {a: b}", "a: |\n  b", strings.Repeat("{a: ", 200), strings.Repeat("[", 1000), "? a\n: b", "\xff\xfe", "a: b\n---\nc: d", "%YAML 1.1\n---\na: b", "\x00", "server: {listen: \"\x1b[2J\"}"} {
		f.Add(text)
	}
	place := regexp.MustCompile(`(?m)^fuzz\.yaml:[0-9]+:[0-9]+: `)
	f.Fuzz(func(t *testing.T, text string) {
		c, _, err := parseConfig("fuzz.yaml", []byte(text))
		if err == nil {
			if c.Store == "" || len(c.Grants) == 0 || len(c.Issuers) == 0 {
				t.Errorf("a broker would start with %q", text)
			}
			return
		}
		wrong := new(configErrors)
		if !errors.As(err, &wrong) || len(wrong.problems) == 0 {
			t.Fatalf("%v says nothing of a place", err)
		}
		for _, p := range wrong.problems {
			if !place.MatchString(p) {
				t.Errorf("a problem without its place: %q", p)
			}
		}
	})
}
