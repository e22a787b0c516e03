package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/proviso-ci/proviso/pass"
)

// Rule says what requests under a path need.
type Rule struct {
	// Path is a prefix of whole segments: /api is for /api and /api/x, not for
	// /apix. Of all rules that fit, those with the longest path decide alone.
	Path string `yaml:"path,omitempty"`
	// Methods are the methods that the rule is for, or "*" for all. A method that
	// no rule of the path has is refused; there is no falling back to a shorter path.
	Methods []string `yaml:"methods,omitempty"`
	// Audience is the resource's name in its tokens. It must be set.
	Audience string `yaml:"audience,omitempty"`
	// Scope are the words that the token must all have.
	Scope []string `yaml:"scope,omitempty"`
}

// ruleSet has the rules sorted by the length of their paths, longest first.
type ruleSet []Rule

func newRuleSet(rules []Rule) (ruleSet, []Problem) {
	var out []Problem
	for i, r := range rules {
		at := func(member string) string { return fmt.Sprintf("rules[%d].%s", i, member) }
		if clean, err := cleanPath(r.Path); err != nil || clean != r.Path || r.Path != "/" && strings.HasSuffix(r.Path, "/") {
			out = append(out, problem(at("path"), "%q is not a plain path without a slash at its end, as /api", r.Path))
		}
		if r.Audience == "" {
			out = append(out, problem(at("audience"), "no audience: the rule would accept what was meant for others"))
		}
		if len(r.Methods) == 0 {
			out = append(out, problem(at("methods"), `no methods: write them, or ["*"] for all`))
		}
		for j, m := range r.Methods {
			if m != "*" && !isMethod(m) {
				out = append(out, problem(fmt.Sprintf("rules[%d].methods[%d]", i, j), "%q is not a method in upper case", m))
			}
		}
		for j, s := range r.Scope {
			if !pass.ValidScope(s) {
				out = append(out, problem(fmt.Sprintf("rules[%d].scope[%d]", i, j), "%q is empty or has a space, quote or backslash", s))
			}
		}
		for j, other := range rules[:i] {
			if other.Path == r.Path && overlap(other.Methods, r.Methods) {
				out = append(out, problem(at("methods"), "rules[%d] has the same path and a method of this one; only one can decide", j))
			}
		}
	}
	sorted := slices.Clone(rules)
	slices.SortStableFunc(sorted, func(a, b Rule) int { return len(b.Path) - len(a.Path) })
	return sorted, out
}

func overlap(a, b []string) bool {
	for _, m := range a {
		if m == "*" || slices.Contains(b, m) || slices.Contains(b, "*") {
			return true
		}
	}
	return false
}

func isMethod(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'A' && c <= 'Z' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// find gives the rule for a clean path.
func (rs ruleSet) find(method, path string) (Rule, bool) {
	for i, r := range rs {
		if !under(path, r.Path) {
			continue
		}
		for _, same := range rs[i:] {
			if same.Path == r.Path && (slices.Contains(same.Methods, method) || slices.Contains(same.Methods, "*")) {
				return same, true
			}
		}
		return Rule{}, false
	}
	return Rule{}, false
}

func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || prefix == "/" || rest[0] == '/')
}

var errAmbiguous = errors.New("another server may read this path differently")

// cleanPath decodes a request path in the one way that every server agrees on,
// and refuses all paths on which they differ: empty and dot segments, encoded
// slashes, dots, backslashes and percent signs, path parameters, and bytes that
// are no text. OPA's Envoy plugin (CVE-2026-26205) and many others were passed
// by with such paths.
func cleanPath(raw string) (string, error) {
	if raw == "" || raw[0] != '/' || len(raw) > 8<<10 {
		return "", errAmbiguous
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) {
				return "", errAmbiguous
			}
			hi, lo := unhex(raw[i+1]), unhex(raw[i+2])
			if hi < 0 || lo < 0 {
				return "", errAmbiguous
			}
			c = byte(hi<<4 | lo)
			if c < 0x20 || c == 0x7f || strings.IndexByte(`/\%;?#.`, c) >= 0 {
				return "", errAmbiguous
			}
			i += 2
		} else if c <= 0x20 || c >= 0x7f || strings.IndexByte("\"<>\\^`{|};#?", c) >= 0 {
			return "", errAmbiguous
		}
		b.WriteByte(c)
	}
	path := b.String()
	if !utf8.ValidString(path) {
		return "", errAmbiguous
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		if s == "." || s == ".." || s == "" && i < len(segments)-1 {
			return "", errAmbiguous
		}
	}
	return path, nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
