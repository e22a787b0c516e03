package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxID is the longest SPIFFE ID: 2048 bytes (SPIFFE-ID section 2.3).
const maxID = 2048

// template is a parsed path template: one element per path segment.
type template []segment

type segment struct {
	literal  string
	variable string // when set, the segment is a variable
}

// parseTemplate reads "/region/{region}/runner/{id}". A variable is a whole
// segment: templates that match a part of one are how "runner-1" and "runner-1-evil"
// become the same thing.
func parseTemplate(text string) (template, error) {
	t, err := parsePath(text)
	if err == nil && !t.has("id") {
		err = fmt.Errorf("must name {id}, which becomes input.runner.id")
	}
	return t, err
}

// parsePath reads a template that needs no variable: a caller's.
func parsePath(text string) (template, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("must begin with a slash, as /region/{region}/runner/{id}")
	}
	var t template
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text[1:], "/") {
		name, isVariable := strings.CutPrefix(part, "{")
		if !isVariable {
			if err := spiffeid.ValidatePathSegment(part); err != nil {
				return nil, fmt.Errorf("segment %q: letters, digits, dots, dashes and underscores, or one {name}", part)
			}
			t = append(t, segment{literal: part})
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		if !closed || !isName(name) {
			return nil, fmt.Errorf("segment %q: a name in braces is a whole segment of lower-case letters, digits and underscores", part)
		}
		if seen[name] {
			return nil, fmt.Errorf("names {%s} twice", name)
		}
		seen[name] = true
		t = append(t, segment{variable: name})
	}
	return t, nil
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c == '_' && i > 0 || c >= '0' && c <= '9' && i > 0) {
			return false
		}
	}
	return s != ""
}

// match compares a SPIFFE ID's path with the template, segment by segment, and
// calls bind for every variable. It checks the segments' characters again, so
// that it is safe on any string.
func (t template) match(path string, bind func(name, value string)) bool {
	if len(path) > maxID {
		return false
	}
	for _, want := range t {
		var part string
		if !strings.HasPrefix(path, "/") {
			return false
		}
		part, path = path[1:], ""
		if i := strings.IndexByte(part, '/'); i >= 0 {
			part, path = part[:i], part[i:]
		}
		if want.variable == "" {
			if part != want.literal {
				return false
			}
			continue
		}
		if !isValue(part) {
			return false
		}
		bind(want.variable, part)
	}
	return path == ""
}

// isValue says what a variable may stand for: SPIFFE's characters, and a letter,
// digit or underscore first, so that no value is "...", or an option
// ("-f") to whatever reads it later.
func isValue(s string) bool {
	if s == "" || s[0] == '.' || s[0] == '-' {
		return false
	}
	return spiffeid.ValidatePathSegment(s) == nil
}

// overlaps reports whether some path matches both templates, and so could be
// read in two ways.
func (t template) overlaps(other template) bool {
	if len(t) != len(other) {
		return false
	}
	for i := range t {
		if t[i].variable == "" && other[i].variable == "" && t[i].literal != other[i].literal {
			return false
		}
	}
	return true
}

func (t template) has(variable string) bool {
	for _, s := range t {
		if s.variable == variable {
			return true
		}
	}
	return false
}

// Variables are the names in the braces of the entry's first template.
func (c Config) Variables() []string {
	var names []string
	for _, text := range c.templates()[:min(1, len(c.templates()))] {
		t, _ := parseTemplate(text) // checked by Check
		for _, s := range t {
			if s.variable != "" {
				names = append(names, s.variable)
			}
		}
	}
	return names
}

// Expand writes the path of a runner by the entry's first template: every
// variable needs a value, and every value is one segment that the template
// reads back as it was.
func (c Config) Expand(values map[string]string) (string, error) {
	names := c.Variables()
	for name := range values {
		if !slices.Contains(names, name) {
			return "", fmt.Errorf("the runners' path has no {%s}; it has %s", name, strings.Join(names, ", "))
		}
	}
	path := c.templates()[0]
	for _, name := range names {
		if values[name] == "" {
			return "", fmt.Errorf("{%s} of the runners' path %s has no value", name, c.templates()[0])
		}
		if !isValue(values[name]) {
			return "", fmt.Errorf("{%s} can't be %s: it is one segment of a SPIFFE ID's path, of letters, digits, dots, dashes and underscores, and begins with a letter, a digit or an underscore", name, quoted(values[name]))
		}
		path = strings.Replace(path, "{"+name+"}", values[name], 1)
	}
	if len(path) > maxID/2 {
		return "", fmt.Errorf("the path has %d bytes, at most %d", len(path), maxID/2)
	}
	return path, nil
}

// IsSegment reports whether a text can be one segment of a runner's path.
func IsSegment(s string) bool { return len(s) <= 100 && isValue(s) }
