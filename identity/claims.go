package identity

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Causes that the shared vocabulary had no word for.
const (
	CodeClaimMissing    proviso.Code = "claim_missing"     // 400 invalid_request: a claim that must be there isn't
	CodeClaimMismatch   proviso.Code = "claim_mismatch"    // 400 invalid_request: a pinned claim has another value
	CodeNotAJob         proviso.Code = "not_a_job"         // 400 invalid_request: the issuer's token, but not a job's
	CodeEventNotAllowed proviso.Code = "event_not_allowed" // 400 invalid_request: the trigger is on no allow-list
	CodeTokenTooOld     proviso.Code = "token_too_old"     // 400 invalid_request: older than the issuer's max_age, though not expired
)

func refuse(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageJob, code, public, args...)
}

// class is a form that a claim's value must have before it may become part of
// the identity. Values end up in policies, file names, URLs, logs and web pages:
// what no honest platform sends is refused here, so that nobody further down
// has to think of it.
type class uint8

const (
	text   class = iota // a name that people choose: printable, one line
	ident               // an identifier; integers are written as text
	repo                // a repository: a path or a URL
	gitRef              // a git reference or its short name
	commit              // a commit's hash
	word                // a platform's own word, for a trigger or a kind
	truth               // true or false, also as text
	count               // a small integer from 1, also as text
)

// classes say what is taken: how long, and in words. The longest real values
// are workflow references and composite subjects.
var classes = [...]struct {
	max  int
	want string
}{
	text:   {1024, "one line of printable characters without line breaks, control or direction characters, and without a \"..\" path segment"},
	ident:  {256, "letters, digits and . _ - : / @ { } without a \"..\" path segment"},
	repo:   {512, "a path or URL of letters, digits and . _ - ~ : / @ + % without empty, \".\" or \"..\" segments"},
	gitRef: {512, "a git reference name as git check-ref-format takes it"},
	commit: {64, "a commit's hash, 40 or 64 hexadecimal digits in lower case"},
	word:   {64, "letters, digits and . _ -"},
	truth:  {5, "true or false"},
	count:  {9, "an integer from 1"},
}

// takes reports whether s has the form of c.
func (c class) takes(s string) bool {
	if len(s) > classes[c].max {
		return false
	}
	switch c {
	case text:
		return isLine(s) && !hasDotSegment(s)
	case ident:
		return consists(s, "._-:/@{}") && !hasDotSegment(s)
	case repo:
		return isRepository(s)
	case gitRef:
		return isRefName(s)
	case commit:
		return isHash(s)
	case word:
		return consists(s, "._-")
	default: // flag and number look at truth and count
		return false
	}
}

// consists reports whether s has only ASCII letters, digits and others.
func consists(s, others string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c-'0' > 9 && (c|0x20)-'a' > 25 && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

// isLine refuses what changes how a line is read: control characters, line and
// paragraph separators, direction overrides and other invisible characters,
// private and unassigned code points, and spaces other than the plain one.
func isLine(s string) bool {
	if s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return isPrintable(s[i:])
		}
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func isPrintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// hasDotSegment finds "..", alone or between slashes, also backslashes.
func hasDotSegment(s string) bool {
	for i := 0; ; {
		n := strings.Index(s[i:], "..")
		if n < 0 {
			return false
		}
		at := i + n
		before := at == 0 || s[at-1] == '/' || s[at-1] == '\\'
		after := at+2 == len(s) || s[at+2] == '/' || s[at+2] == '\\'
		if before && after {
			return true
		}
		i = at + 1
	}
}

func isRepository(s string) bool {
	if !consists(s, "._-~:/@+%") {
		return false
	}
	if _, rest, isURL := strings.Cut(s, "://"); isURL {
		s = rest
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// isRefName follows git-check-ref-format(1), with --allow-onelevel, and takes
// only printable characters beyond ASCII.
func isRefName(s string) bool {
	if s == "@" || s[0] == '-' || strings.HasSuffix(s, ".") || strings.Contains(s, "..") || strings.Contains(s, "@{") {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			if !isPrintable(s[i:]) {
				return false
			}
			break
		}
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return false
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

func isHash(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c-'0' > 9 && c-'a' > 5 {
			return false
		}
	}
	return true
}

// claims reads the payload of a token whose signature has been verified. It
// keeps the first thing that is wrong; what is read after that doesn't matter,
// so rows read without looking at errors.
type claims struct {
	doc    document.Value
	issuer string // URL, verified
	key    string // that the audience names, "" for none
	bad    *proviso.Refusal
}

func (c *claims) refuse(code proviso.Code, public string, args ...any) {
	if c.bad == nil {
		c.bad = refuse(code, public, args...)
	}
}

// claimName is where a claim lies: a name at the top, or names from object to
// object when the configuration gave a JSON pointer (RFC 6901).
type claimName struct {
	shown string   // as the operator wrote it
	path  []string // nil for a name at the top
}

func (n claimName) in(doc document.Value) document.Value {
	if n.path == nil {
		return doc.Get(n.shown)
	}
	return doc.At(n.path...)
}

func topLevel(name string) claimName { return claimName{shown: name} }

// parseClaimName reads a claim's name or, if it begins with a slash, a pointer.
func parseClaimName(s string) claimName {
	if !strings.HasPrefix(s, "/") {
		return topLevel(s)
	}
	path := strings.Split(s[1:], "/")
	for i, p := range path {
		path[i] = strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
	}
	return claimName{shown: s, path: path}
}

// has reports whether the claim has a value; null and "" are none.
func has(v document.Value) bool {
	s, isText := v.Text()
	return !v.IsAbsent() && v.Kind() != document.Null && (!isText || s != "")
}

// str reads a claim as a text of the given class; absent, null and "" are "".
func (c *claims) str(name string, cl class) string { return c.value(topLevel(name), cl) }

func (c *claims) value(name claimName, cl class) string {
	v := name.in(c.doc)
	switch v.Kind() {
	case document.Absent, document.Null:
		return ""
	case document.String:
		s, _ := v.Text()
		if s == "" || cl.takes(s) {
			return s
		}
		c.refuse(proviso.CodeTemplateValue, "the token's claim %s has the value %s, which isn't taken: %s is",
			name.shown, quote(v), classes[cl].want)
		return ""
	case document.Int:
		if n, _ := v.Integer(); cl == ident && n >= 0 {
			return strconv.FormatInt(n, 10)
		}
		fallthrough
	default:
		c.wrongType(name, v, cl)
		return ""
	}
}

func (c *claims) wrongType(name claimName, v document.Value, cl class) {
	c.refuse(proviso.CodeClaimType, "the token's claim %s is %s, which isn't taken: %s is", name.shown, quote(v), classes[cl].want)
}

// flag reads a boolean, also when it was sent as "true" or "false"; nil when
// there is none.
func (c *claims) flag(name claimName) *bool {
	v := name.in(c.doc)
	b, ok := v.Truth()
	switch s, isText := v.Text(); {
	case ok:
	case v.IsAbsent(), v.Kind() == document.Null, isText && s == "":
		return nil
	case isText && (s == "true" || s == "false"):
		b = s == "true"
	default:
		c.wrongType(name, v, truth)
		return nil
	}
	return &b
}

// number reads a small count, also when it was sent as text; 0 when there is
// none.
func (c *claims) number(name claimName) int {
	v := name.in(c.doc)
	n, ok := v.Integer()
	if s, isText := v.Text(); isText && s != "" {
		parsed, err := strconv.ParseInt(s, 10, 32)
		// One spelling only: "01", "+1" and " 1" are somebody's invention.
		n, ok = parsed, err == nil && strconv.FormatInt(parsed, 10) == s
	} else if !has(v) {
		return 0
	}
	if !ok || n < 1 || n > 999_999_999 {
		c.wrongType(name, v, count)
		return 0
	}
	return int(n)
}

// equal refuses unless both claims have the same value, where both are there.
func (c *claims) equal(a, b string) {
	va, vb := c.doc.Get(a), c.doc.Get(b)
	if !has(va) || !has(vb) {
		return
	}
	sa, okA := scalar(va)
	sb, okB := scalar(vb)
	if !okA || !okB || sa != sb {
		c.refuse(proviso.CodeClaimsInconsistent, inconsistent, a, quote(va), b, quote(vb))
	}
}

// disagree refuses because two claims that say the same thing differ.
func (c *claims) disagree(a, valueA, b, valueB string) {
	c.refuse(proviso.CodeClaimsInconsistent, inconsistent, a, quoted(valueA), b, quoted(valueB))
}

const inconsistent = "two claims of the token disagree: %s is %s, but %s is %s; such a token is not taken. " +
	"If the platform is right to send it, tell the broker's operator"

// subject refuses a sub that begins like the platform's default form but
// doesn't go on as that form, composed of the other claims, would. Nothing is
// ever taken out of sub: the composed text is compared with it, byte by byte.
// separator is what stands between the parts of the default form.
func (c *claims) subject(beginning, separator string, forms ...[]string) {
	sub := c.str("sub", text)
	if !strings.HasPrefix(sub, beginning) {
		return // customised by the platform's administrators, which is their right
	}
	for _, form := range forms {
		if rest, ok := follows(sub, form); ok && (rest == "" || strings.HasPrefix(rest, separator)) {
			return
		}
	}
	c.disagree("sub", sub, "its default form, made of this token's claims,", strings.Join(forms[0], ""))
}

// follows reports whether s begins with the parts, one after the other, and
// gives the rest.
func follows(s string, parts []string) (rest string, ok bool) {
	for _, p := range parts {
		if !strings.HasPrefix(s, p) {
			return "", false
		}
		s = s[len(p):]
	}
	return s, true
}

// scalar gives a claim's value as pins compare it; ok is false for objects,
// arrays and fractions, which equal nothing.
func scalar(v document.Value) (s string, ok bool) {
	switch v.Kind() {
	case document.String:
		return v.Text()
	case document.Int:
		n, _ := v.Integer()
		return strconv.FormatInt(n, 10), true
	case document.Bool:
		b, _ := v.Truth()
		return strconv.FormatBool(b), true
	default:
		return "", false
	}
}

// quote shows a value of the verified payload to people: bounded, on one line,
// with everything that isn't plain text escaped.
func quote(v document.Value) string {
	if s, ok := scalar(v); ok {
		if v.Kind() == document.String {
			return quoted(s)
		}
		return s
	}
	switch v.Kind() {
	case document.Array:
		return "a list"
	case document.Float:
		return "a number with a fraction"
	case document.Absent:
		return "absent"
	default:
		return "a JSON " + v.Kind().String()
	}
}

func quoted(s string) string {
	const most = 120
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "... (" + strconv.Itoa(len(s)) + " bytes)"
}
