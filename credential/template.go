package credential

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// A template composes a credential's name from literal text and {placeholders}.
// Placeholders stand for verified values only; what a request declares has no
// placeholder. Values are written so that no value can look like another value
// or like the text around it (the abuse: a branch called "main:env:prod").
type template struct {
	text  string
	parts []part
	form  form
}

// part is literal text, or the name of a value.
type part struct{ literal, name string }

// form says how a value is written, and what is refused.
type form int

const (
	// formSubject: percent-encoding of everything but letters, digits and -._~/@
	// so the mapping is injective and ":" always separates.
	formSubject form = iota
	// formURI: a value is one path segment of RFC 3986 unreserved characters.
	// Anything else is refused rather than encoded, because resources compare
	// encoded names in different ways.
	formURI
	// formDNS: a value is one lower-case label.
	formDNS
	// formPlain: a value of a subject's common name: unreserved characters.
	formPlain
	// formSPIFFE: a value is one segment of a SPIFFE ID's path. Whatever is not
	// (a slash, "..", a percent sign) is refused: SPIFFE IDs know no encoding.
	formSPIFFE
)

// jobNames are the members of input.identity that a template may use. They are
// only unique within their issuer, so a template that uses one names {issuer}
// too: otherwise repository 61200123 of one forge is that of another.
var jobNames = []string{"platform", "tenant", "repository", "repository_id", "owner_id", "environment",
	"ref", "branch", "tag", "workflow", "run_id", "subject", "role"}

// otherNames are unique by themselves: the operator gave them, or the runner's own
// trust domain did.
var otherNames = []string{"issuer", "grant", "runner"}

func parseTemplate(text string, f form) (template, error) {
	t := template{text: text, form: f}
	for rest := text; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			t.parts = append(t.parts, part{literal: rest})
			break
		}
		if open > 0 {
			t.parts = append(t.parts, part{literal: rest[:open]})
		}
		end := strings.IndexByte(rest, '}')
		if end < open {
			return t, fmt.Errorf("%q has a { or } without its partner", text)
		}
		name := rest[open+1 : end]
		if !slices.Contains(jobNames, name) && !slices.Contains(otherNames, name) {
			return t, fmt.Errorf("%q names {%s}; there are %s", text, name, strings.Join(slices.Concat(otherNames, jobNames), ", "))
		}
		t.parts = append(t.parts, part{name: name})
		rest = rest[end+1:]
	}
	return t, t.check()
}

func (t template) check() error {
	issuer, job := false, ""
	for i, p := range t.parts {
		switch {
		case p.name == "issuer":
			issuer = true
		case slices.Contains(jobNames, p.name):
			job = p.name
		case p.name == "" && strings.ContainsAny(p.literal, "{}"):
			return fmt.Errorf("%q has a { or } without its partner", t.text)
		}
		if p.name != "" && i > 0 && t.parts[i-1].name != "" {
			return fmt.Errorf("%q puts two values side by side, which makes one pair of values look like another: put text between them", t.text)
		}
	}
	if job != "" && !issuer {
		return fmt.Errorf("%q names {%s}, which is unique only within its issuer: add {issuer}", t.text, job)
	}
	sample := t.write(func(string) string { return "x" })
	switch t.form {
	case formURI:
		return checkURI(t.text, sample, t.parts)
	case formSPIFFE:
		return checkSPIFFETemplate(t.text, sample, t.parts)
	case formDNS:
		return checkDNS(sample)
	case formSubject:
		if !isPrintableASCII(sample) || strings.ContainsAny(sample, ` "\*?%`) {
			return fmt.Errorf("%q: a subject is of letters, digits and -._~/@: so that it can stand in a trust policy", t.text)
		}
	case formPlain:
		if !isPrintableASCII(sample) || strings.ContainsAny(sample, `"\*?%,+<>;=#`) || len(sample) > 64 {
			return fmt.Errorf("%q: a common name has at most 64 plain characters (RFC 5280, ub-common-name)", t.text)
		}
	}
	return nil
}

// checkURI holds the template to an absolute URI whose authority is literal:
// a value in it would let a job choose the trust domain.
func checkURI(text, sample string, parts []part) error {
	u, err := url.Parse(sample)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Opaque != "" || u.Port() != "" || u.String() != sample || u.RawPath != "" {
		return fmt.Errorf("%q is not a plain absolute URI such as spiffe://acme.example/job/{issuer}/{repository_id}", text)
	}
	if len(parts) == 0 || !strings.HasPrefix(parts[0].literal, u.Scheme+"://"+u.Host+"/") || u.Host != strings.ToLower(u.Host) {
		return fmt.Errorf("%q: scheme and host are lower-case text without placeholders, a path follows", text)
	}
	return checkSegments(u.Path)
}

// checkSPIFFETemplate wants the trust domain as literal text, and every value as
// a whole segment: half of one is how "runner-1" and "runner-1-evil" become alike.
func checkSPIFFETemplate(text, sample string, parts []part) error {
	rest, ok := strings.CutPrefix(sample, "spiffe://")
	domain, _, _ := strings.Cut(rest, "/")
	if !ok || checkDomainName(domain) != nil || len(parts) == 0 || !strings.HasPrefix(parts[0].literal, "spiffe://"+domain+"/") {
		return fmt.Errorf("%q is not a SPIFFE ID whose trust domain is written out, as spiffe://ci.acme.example/job/{issuer}/{repository_id}", text)
	}
	for i, p := range parts {
		last := i == len(parts)-1
		if p.name != "" && (i == 0 || !strings.HasSuffix(parts[i-1].literal, "/") || !last && !strings.HasPrefix(parts[i+1].literal, "/")) {
			return fmt.Errorf("%q: {%s} must be a whole segment of the path", text, p.name)
		}
	}
	return checkSPIFFEID(sample, domain)
}

func checkSegments(path string) error {
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || !only(segment, isUnreserved) {
			return fmt.Errorf("the path %q has an empty or dot segment, or a character beyond letters, digits and -._~", path)
		}
	}
	return nil
}

// checkDNS holds name to lower-case labels (RFC 1123), without a wildcard.
func checkDNS(name string) error {
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || !only(l, isLabelChar) || l[0] == '-' || l[len(l)-1] == '-' {
			return fmt.Errorf("%q is not a DNS name of lower-case labels", name)
		}
	}
	if len(labels) < 2 || len(name) > 253 {
		return fmt.Errorf("%q is not a DNS name of two labels or more", name)
	}
	return nil
}

func (t template) write(value func(name string) string) string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.literal)
		if p.name != "" {
			b.WriteString(value(p.name))
		}
	}
	return b.String()
}

// expand gives the name. An absent value refuses: a name with a hole would be
// the name of everything that lacks the value.
func (t template) expand(v values) (string, error) {
	var refusal *proviso.Refusal
	out := t.write(func(name string) string {
		text := v.get(name)
		written, problem := t.form.write(text)
		if problem != "" && refusal == nil {
			refusal = proviso.Refuse(proviso.StageCredential, proviso.CodeTemplateValue,
				"the credential's name is %s, and the value of {%s} %s; name the credential by other values in the grant", t.text, name, problem)
		}
		return written
	})
	if refusal == nil && len(out) > t.form.limit() {
		refusal = proviso.Refuse(proviso.StageCredential, proviso.CodeTemplateValue,
			"the credential's name %s becomes longer than %d characters for this job", t.text, t.form.limit())
	}
	if refusal != nil {
		return "", refusal
	}
	return out, nil
}

// limit: AWS takes a sub of at most 255 characters; RFC 5280 bounds the others.
func (f form) limit() int {
	switch f {
	case formPlain:
		return 64
	case formSPIFFE:
		return maxSPIFFEID
	default:
		return 255
	}
}

func (f form) write(text string) (written, problem string) {
	switch {
	case text == "":
		return "", "is absent"
	case f == formSubject:
		return encodeSubject(text), ""
	case f == formDNS && (len(text) > 63 || !only(text, isLabelChar) || text[0] == '-' || text[len(text)-1] == '-'):
		return "", "is not one lower-case DNS label"
	case f == formSPIFFE && (text == "." || text == ".." || !only(text, isPathChar)):
		return "", "is not one segment of a SPIFFE ID: letters, digits, dots, dashes and underscores"
	case f != formDNS && (text == "." || text == ".." || !only(text, isUnreserved)):
		return "", "has characters beyond letters, digits and -._~"
	}
	return text, ""
}

// values are the verified values that templates draw from.
type values struct {
	issuer, grant, runner string
	job                   document.Value
}

func (v values) get(name string) string {
	switch name {
	case "issuer":
		return v.issuer
	case "grant":
		return v.grant
	case "runner":
		return v.runner
	}
	text, _ := v.job.Get(name).Text()
	return text
}

const upperHex = "0123456789ABCDEF"

// encodeSubject percent-encodes all but unreserved characters, "/" and "@".
func encodeSubject(s string) string {
	if only(s, isSubjectChar) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; isSubjectChar(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return b.String()
}

func only(s string, ok func(byte) bool) bool {
	for i := 0; i < len(s); i++ {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
func isUnreserved(c byte) bool {
	return isAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~' // RFC 3986 section 2.3
}
func isSubjectChar(c byte) bool { return isUnreserved(c) || c == '/' || c == '@' }
func isLabelChar(c byte) bool   { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' }

func isPrintableASCII(s string) bool {
	return only(s, func(c byte) bool { return c >= 0x20 && c < 0x7f })
}
