package facts

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// urlTemplate is a checked URL with places for values, as
// "https://tickets.acme.example/issue/{intent.ticket_id}?fields=status".
//
// A place is one whole path segment, one whole value of a query parameter, or a
// part of either; never of the scheme, host, port or of a parameter's name, so no value
// chooses whom the broker talks to. A value is percent-encoded and limited in
// characters on top of that: values go into a language with separators, and
// systems behind proxies decode more than once.
type urlTemplate struct {
	parts []templatePart
}

type templatePart struct {
	literal string
	path    []string // "intent", "ticket_id"; nil for a literal
	slashes bool     // a repository's name in a path: its slashes separate segments
}

// Limits of a value in a URL.
const maxTemplateValue = 200

// parseTemplate checks a URL template. schemes are those that it may have.
func parseTemplate(text string, schemes ...string) (*urlTemplate, error) {
	t := &urlTemplate{}
	var example strings.Builder // the URL with every place filled harmlessly
	rest := text
	for rest != "" {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			open = len(rest)
		}
		if literal := rest[:open]; literal != "" {
			if strings.ContainsAny(literal, "}\\ \t\r\n") {
				return nil, fmt.Errorf("has a character that a URL has not: %q", literal)
			}
			t.parts = append(t.parts, templatePart{literal: literal})
			example.WriteString(literal)
		}
		rest = rest[open:]
		if rest == "" {
			break
		}
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return nil, fmt.Errorf("has a { without its }")
		}
		part, err := parsePlace(rest[1:end])
		if err != nil {
			return nil, err
		}
		if where := example.String(); !strings.Contains(strings.TrimPrefix(afterScheme(where), "/"), "/") {
			return nil, fmt.Errorf("has {%s} before the path: no value may choose the host", rest[1:end])
		} else if query := strings.LastIndexByte(where, '?'); query >= 0 && strings.LastIndexAny(where, "&?") > strings.LastIndexByte(where, '=') {
			return nil, fmt.Errorf("has {%s} as a parameter's name: only its value can be a place", rest[1:end])
		} else if query >= 0 {
			part.slashes = false
		}
		t.parts = append(t.parts, part)
		example.WriteString("x")
		rest = rest[end+1:]
	}
	u, err := url.Parse(example.String())
	if err != nil || u.Host == "" && u.Scheme != "file" {
		return nil, fmt.Errorf("is no absolute URL")
	}
	if u.User != nil {
		return nil, fmt.Errorf("has a password or user in it; use the file for secrets")
	}
	if u.Fragment != "" || strings.Contains(text, "#") {
		return nil, fmt.Errorf("has a fragment, which is never sent")
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return t, nil
		}
	}
	return nil, fmt.Errorf("has the scheme %q; allowed is %s", u.Scheme, strings.Join(schemes, " or "))
}

func afterScheme(s string) string {
	if _, after, ok := strings.Cut(s, "://"); ok {
		return after
	}
	return ""
}

// places are the values that a template can name. All are verified except the
// intent's. None can hold a slash but repository.
var places = map[string]bool{
	"identity.repository": true, "identity.repository_id": true, "identity.owner_id": true, "identity.branch": true,
	"identity.tag": true, "identity.commit": true, "identity.environment": true, "identity.tenant": true,
	"identity.actor": true, "identity.actor_id": true, "identity.run_id": true, "identity.run_attempt": true,
	"identity.job_id": true, "identity.workflow_id": true, "identity.platform": true, "identity.event": true,
	"runner.id": true, "runner.region": true, "runner.trust_domain": true,
	"resource.name": true, "resource.service": true, "resource.environment": true, "resource.tenant": true, "resource.kind": true,
	"intent.ticket_id": true, "intent.action": true, "intent.purpose": true,
}

func parsePlace(name string) (templatePart, error) {
	if !places[name] {
		return templatePart{}, fmt.Errorf("names {%s}, which is no value for a URL; there are the plain values of identity, runner and resource, and intent.ticket_id, intent.action, intent.purpose", name)
	}
	return templatePart{path: strings.Split(name, "."), slashes: name == "identity.repository"}, nil
}

// expand fills the template in. The error is an Absence's cause: a value is
// missing, or has characters that don't belong into a URL.
func (t *urlTemplate) expand(values func(path ...string) document.Value) (string, *Absence) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.path == nil {
			b.WriteString(p.literal)
			continue
		}
		name := strings.Join(p.path, ".")
		v := values(p.path...)
		text, ok := v.Text()
		if n, isInt := v.Integer(); isInt {
			text, ok = strconv.FormatInt(n, 10), true
		}
		if !ok {
			return "", &Absence{Code: proviso.CodeTemplateValue, Why: "it is asked about " + name + ", which this request doesn't have"}
		}
		encoded, ok := encodeValue(text, p.slashes)
		if p.path[0] == "intent" {
			ok = ok && isDeclarable(text)
		}
		if !ok {
			return "", &Absence{Code: proviso.CodeTemplateValue, Why: "it is asked about " + name + ", whose value has characters or a length that are not put into a URL"}
		}
		b.WriteString(encoded)
	}
	return b.String(), nil
}

// encodeValue percent-encodes a value as one path segment or query value (with
// slashes: as several). Letters, digits and "-._~ @+:#=" are taken; dot segments,
// empty segments, percent signs, control characters and anything beyond ASCII are not.
func encodeValue(value string, slashes bool) (string, bool) {
	if value == "" || len(value) > maxTemplateValue {
		return "", false
	}
	segments := []string{value}
	if slashes {
		segments = strings.Split(value, "/")
	}
	for i, s := range segments {
		if s == "" || strings.Trim(s, ".") == "" {
			return "", false
		}
		for j := range len(s) {
			if c := s[j]; !isPlain(c) && !strings.ContainsRune(" @+:#=/", rune(c)) || c >= 0x80 {
				return "", false
			}
		}
		if strings.Contains(s, "..") {
			return "", false
		}
		segments[i] = strings.ReplaceAll(url.QueryEscape(s), "+", "%20") // in a path "+" is a plus
	}
	return strings.Join(segments, "/"), true
}

// isDeclarable says what a declared value may look like in a URL: a ticket's
// number, an action's name. Nothing that any system reads as a separator.
func isDeclarable(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isPlain(c) || c == '~' {
			return false
		}
	}
	return s != "" && s[0] != '.' && s[0] != '-'
}

func isPlain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// values gives the lookup for templates: verified values and, under "intent",
// declared ones.
func (a Asked) values() func(path ...string) document.Value {
	return func(path ...string) document.Value {
		switch path[0] {
		case "identity":
			return a.Job.Document().Get(path[1])
		case "runner":
			return a.Runner.Document().Get(path[1])
		case "resource":
			return a.Resource.document().Get(path[1])
		case "intent":
			return IntentDocument(a.Intent, nil).Get(path[1])
		}
		return document.Value{}
	}
}
