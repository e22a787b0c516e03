package facts

import (
	"fmt"
	"maps"
	"net/netip"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// HTTPConfig is one system that answers GET with JSON.
type HTTPConfig struct {
	// Name is how origin, logs and messages call the source. Unique.
	Name string `yaml:"name" json:"name"`
	// URL with places for values, as
	// https://tickets.acme.example/issue/{intent.ticket_id}. Places can be plain
	// values of identity, runner and resource, which are verified or configured, and
	// intent.ticket_id, intent.action and intent.purpose, which the job declares. A place is in the
	// path or is a query parameter's value. Plain HTTP is taken to loopback addresses only.
	URL string `yaml:"url" json:"url"`
	// Headers are sent with every question. Secrets don't belong here.
	Headers map[string]string `yaml:"headers,omitempty" json:"headers,omitempty"`
	// BearerFile holds the token that is sent as "Authorization: Bearer ...". It
	// is read for every question, so that it can be rotated.
	BearerFile string `yaml:"bearer_file,omitempty" json:"bearer_file,omitempty"`
	// SecretHeader is the header that gets the file's content as it is, instead
	// of Authorization, as PRIVATE-TOKEN.
	SecretHeader string `yaml:"secret_header,omitempty" json:"secret_header,omitempty"`
	// CAFile has the authorities (PEM) of the server's certificate. Default: the system's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// AllowPrivate lets the host have a private or loopback address.
	AllowPrivate bool `yaml:"allow_private,omitempty" json:"allow_private,omitempty"`
	// Timeout of one question. Default 2s.
	Timeout time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// Cache is how long an answer serves further requests; its age is in origin.
	// Default: not at all.
	Cache time.Duration `yaml:"cache,omitempty" json:"cache,omitempty"`
	// MaxBytes of an answer. Default 262144.
	MaxBytes int `yaml:"max_bytes,omitempty" json:"max_bytes,omitempty"`
	// Keys of context that the source fills: ticket_approved, on_call (which is
	// identity.on_call too), freeze, ticket.NAME, approvals.NAME, provenance.NAME, or
	// names of your own.
	Keys map[string]KeyConfig `yaml:"keys" json:"keys"`
}

// KeyConfig says how one key's value is taken from an answer.
type KeyConfig struct {
	// Pointer is the JSON pointer (RFC 6901) to the value, as /fields/status/name.
	Pointer string `yaml:"pointer" json:"pointer"`
	// Type that the value must have: string, boolean, number, list or object.
	// Nothing is converted: a value of another type is no value. Default: boolean for ticket_approved,
	// on_call and freeze, object for ticket, approvals and provenance, else string.
	Type string `yaml:"type,omitempty" json:"type,omitempty"`
	// Equals makes the key a boolean: whether the value is exactly this text,
	// number or boolean.
	Equals any `yaml:"equals,omitempty" json:"equals,omitempty"`
	// OneOf makes the key a boolean: whether the value is one of these texts.
	OneOf []string `yaml:"one_of,omitempty" json:"one_of,omitempty"`
	// Exists makes the key a boolean: true says whether there is a value that is
	// not null, false whether there is none.
	Exists *bool `yaml:"exists,omitempty" json:"exists,omitempty"`
}

// knownFacts are the keys of context with a meaning of their own that HTTP
// sources can fill, with their types.
var knownFacts = map[string]string{
	"ticket_approved": "boolean", "on_call": "boolean", "freeze": "boolean",
	"ticket": "object", "approvals": "object", "provenance": "object",
}

// Limits of what a key's value may be.
const (
	maxText = 4 << 10
	maxList = 256
)

func sortedKeys(m map[string]KeyConfig) []string { return slices.Sorted(maps.Keys(m)) }

// checkHTTP checks all sources together: a key belongs to one of them.
func checkHTTP(configs []HTTPConfig, bad func(path, message string, args ...any)) {
	names := map[string]bool{"clock": true, "job": true, "git": true}
	owner := map[string]string{} // of keys, and of the objects that dotted keys are in
	for i, c := range configs {
		at := func(path string) string { return fmt.Sprintf("http[%d].%s", i, path) }
		switch {
		case !isFactName(c.Name):
			bad(at("name"), "is %q: write lower-case letters, digits, _ or -", c.Name)
		case names[c.Name]:
			bad(at("name"), "is %q, which is another source's name", c.Name)
		}
		names[c.Name] = true
		checkURL(c, at("url"), bad)
		for name, value := range c.Headers {
			switch textproto.CanonicalMIMEHeaderKey(name) {
			case "Authorization", "Cookie", "Proxy-Authorization":
				bad(at("headers."+name), "is for secrets: put it into bearer_file, and name the header in secret_header")
			case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Accept-Encoding":
				bad(at("headers."+name), "is the transport's own")
			}
			if !isHeader(name) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				bad(at("headers."+name), "is no header of printable ASCII")
			}
		}
		if c.SecretHeader != "" && (c.BearerFile == "" || !isHeader(c.SecretHeader)) {
			bad(at("secret_header"), "needs bearer_file, and is a header's name")
		}
		if c.Timeout < 0 || c.Timeout > 30*time.Second {
			bad(at("timeout"), "is %s; write a time up to 30s", c.Timeout)
		}
		if c.Cache < 0 || c.Cache > maxHTTPCache {
			bad(at("cache"), "is %s; write a time up to %s: a decision on old facts is no decision", c.Cache, maxHTTPCache)
		}
		if c.MaxBytes < 0 || c.MaxBytes > maxHTTPBytes {
			bad(at("max_bytes"), "is %d; at most %d", c.MaxBytes, maxHTTPBytes)
		}
		if len(c.Keys) == 0 {
			bad(at("keys"), "is missing: the source would fill nothing")
		}
		for _, name := range sortedKeys(c.Keys) {
			checkKey(name, c.Keys[name], at("keys."+name), bad)
			top, _, nested := strings.Cut(name, ".")
			mine := fmt.Sprintf("%s, %t", c.Name, nested)
			if o, taken := owner[top]; taken && (o != mine || !nested) {
				bad(at("keys."+name), "is filled twice: an object belongs to one source, whole or by its members")
			}
			owner[top] = mine
		}
	}
}

func checkURL(c HTTPConfig, at string, bad func(path, message string, args ...any)) {
	t, err := parseTemplate(c.URL, "https", "http")
	if err != nil {
		bad(at, "%v", err)
		return
	}
	if u, err := url.Parse(t.parts[0].literal); err == nil && u.Scheme == "http" {
		ip, err := netip.ParseAddr(u.Hostname())
		if (err != nil || !ip.IsLoopback()) && u.Hostname() != "localhost" {
			bad(at, "is plain HTTP to another machine; use https")
		}
	}
}

func checkKey(name string, k KeyConfig, at string, bad func(path, message string, args ...any)) {
	top, member, nested := strings.Cut(name, ".")
	if !isFactName(top) || nested && !isFactName(member) || strings.Contains(name, "-") {
		bad(at, "is no key: write lower-case letters, digits and _, with one dot at most")
		return
	}
	known := knownFacts[top]
	if known == "" && (slices.Contains(factKeys, top) || slices.Contains(grantKeys, top) || slices.Contains(intentKeys, top)) {
		bad(at, "is a key that the broker fills itself, or the job declares")
	}
	if nested && known != "" && known != "object" {
		bad(at, "has members, and %s is a %s", top, known)
	}
	if err := checkPointer(k.Pointer); err != nil {
		bad(at+".pointer", "is %q: %v", k.Pointer, err)
	}
	tests := 0
	for _, set := range []bool{k.Equals != nil, len(k.OneOf) > 0, k.Exists != nil} {
		if set {
			tests++
		}
	}
	if tests > 1 {
		bad(at, "has several of equals, one_of and exists; one of them says what is true")
	}
	if tests == 1 && k.Type != "" && k.Type != "boolean" {
		bad(at+".type", "is %s, and equals, one_of and exists make a boolean", k.Type)
	}
	switch k.Equals.(type) {
	case nil, string, bool, int, int64, uint64, float64:
	default:
		bad(at+".equals", "is neither text, number nor boolean")
	}
	switch k.Type {
	case "", "string", "boolean", "number", "list", "object":
	default:
		bad(at+".type", "is %q: string, boolean, number, list or object", k.Type)
	}
	if kind := newJSONKey(name, k).kind; !nested && known != "" && kind != known {
		bad(at, "makes a %s, and context.%s is a %s", kind, name, known)
	}
}

func isFactName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

func isHeader(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isPlain(c) || c == '~' {
			return false
		}
	}
	return s != ""
}

// jsonKey takes one key's value from an answer.
type jsonKey struct {
	name    string
	pointer []string
	kind    string // the JSON type of the result: string, boolean, number, array, object
	test    func(v document.Value) (bool, bool)
}

func newJSONKey(name string, c KeyConfig) jsonKey {
	k := jsonKey{name: name, kind: c.Type, pointer: splitPointer(c.Pointer)}
	switch {
	case c.Exists != nil:
		k.kind, k.test = "boolean", func(v document.Value) (bool, bool) {
			return (!v.IsAbsent() && v.Kind() != document.Null) == *c.Exists, true
		}
	case c.Equals != nil:
		want := scalar(c.Equals)
		k.kind, k.test = "boolean", func(v document.Value) (bool, bool) {
			return sameScalar(v, want), !v.IsAbsent() && v.Kind() != document.Null
		}
	case len(c.OneOf) > 0:
		k.kind, k.test = "boolean", func(v document.Value) (bool, bool) {
			text, ok := v.Text()
			return slices.Contains(c.OneOf, text), ok
		}
	case c.Type == "list":
		k.kind = "array"
	case c.Type == "":
		if k.kind = knownFacts[name]; k.kind == "" {
			k.kind = "string"
		}
	}
	return k
}

// value reads the key. No value, null, "" and a value of another type are all
// none: nothing is converted, because "false" is a true text in many languages.
func (k jsonKey) value(doc document.Value) (document.Value, *Absence) {
	v := follow(doc, k.pointer)
	if k.test != nil {
		truth, ok := k.test(v)
		if !ok {
			return document.Value{}, unavailable("its answer has nothing at the configured place", nil)
		}
		return document.BoolOf(truth), nil
	}
	ok := false
	switch k.kind {
	case "string":
		text, is := v.Text()
		ok = is && text != "" && len(text) <= maxText
	case "boolean":
		_, ok = v.Truth()
	case "number":
		_, ok = v.Number()
	case "array":
		ok = v.Kind() == document.Array && len(v.Items()) <= maxList && !slices.ContainsFunc(v.Items(), func(i document.Value) bool {
			return i.Kind() == document.Object || i.Kind() == document.Array || i.Kind() == document.Null
		})
	case "object":
		ok = v.Kind() == document.Object && len(document.AppendCanonical(nil, v)) <= maxText
	}
	if !ok {
		return document.Value{}, &Absence{Code: proviso.CodeEnrichmentUnavailable, Why: "its answer has no usable " + k.kind + " at the configured place",
			Err: fmt.Errorf("found %s", v.Kind())}
	}
	return v, nil
}

func scalar(v any) document.Value {
	switch x := v.(type) {
	case string:
		return document.StringOf(x)
	case bool:
		return document.BoolOf(x)
	case int:
		return document.IntOf(int64(x))
	case int64:
		return document.IntOf(x)
	case uint64:
		return document.IntOf(int64(x))
	case float64:
		return document.FloatOf(x)
	}
	return document.Value{}
}

func sameScalar(a, b document.Value) bool {
	if x, ok := a.Number(); ok {
		y, ok := b.Number()
		return ok && x == y
	}
	if x, ok := a.Text(); ok {
		y, ok := b.Text()
		return ok && x == y
	}
	x, ok := a.Truth()
	y, ok2 := b.Truth()
	return ok && ok2 && x == y
}

// checkPointer checks a JSON pointer (RFC 6901 section 3).
func checkPointer(p string) error {
	if p != "" && p[0] != '/' {
		return fmt.Errorf("a JSON pointer begins with a slash, as /fields/status")
	}
	for i := range len(p) {
		if p[i] == '~' && (i+1 == len(p) || p[i+1] != '0' && p[i+1] != '1') {
			return fmt.Errorf("~ stands only in ~0 (for ~) and ~1 (for /)")
		}
	}
	return nil
}

var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

func splitPointer(p string) []string {
	if p == "" {
		return nil
	}
	tokens := strings.Split(p, "/")[1:]
	for i, t := range tokens {
		tokens[i] = unescapePointer.Replace(t)
	}
	return tokens
}

// follow evaluates a JSON pointer (RFC 6901 section 4); absent if there is nothing.
func follow(v document.Value, tokens []string) document.Value {
	for _, t := range tokens {
		switch v.Kind() {
		case document.Object:
			v = v.Get(t)
		case document.Array:
			i, err := strconv.Atoi(t)
			if err != nil || strconv.Itoa(i) != t || i < 0 || i >= len(v.Items()) {
				return document.Value{}
			}
			v = v.Items()[i]
		default:
			return document.Value{}
		}
	}
	return v
}
