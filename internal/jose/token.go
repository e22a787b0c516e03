package jose

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"unicode"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Profile says what one use of a token takes. The zero Profile takes tokens of
// at most 16 KiB without typ.
type Profile struct {
	// MaxBytes is the longest compact token; 0 means 16 KiB.
	MaxBytes int
	// Typ are the accepted types, "" for a token without typ. They are media
	// types whose "application/" may be left out, and compare without regard to
	// ASCII case (RFC 7515 section 4.1.9, RFC 2045 section 5.1), so "JWT",
	// "jwt" and "application/jwt" are one type. Empty means only "".
	Typ []string
	// AllowJWK takes, and demands, a public key in the header: DPoP proofs.
	AllowJWK bool
	// IgnoreUnknown ignores header members that no registered meaning is known
	// of, as RFC 7515 section 4 demands. It is for tokens of strangers, whose
	// platforms may add a member any day; without it such a token is refused.
	// What could change how a token is read is refused in either case.
	IgnoreUnknown bool
}

// DefaultMaxBytes is the longest token that is looked at unless a profile says
// otherwise. The longest known job tokens have about 4 KiB.
const DefaultMaxBytes = 16 << 10

// Token is a parsed token. Nothing in it is verified until Verify returned nil.
type Token struct {
	Header Header
	Claims document.Value // an object

	signed []byte // header.payload, as sent
	sig    []byte
	hash   [sha256.Size]byte
}

// Header is what a header may say.
type Header struct {
	Alg Alg    // never empty, always Known
	Kid string // "" if absent
	Typ string // as sent, "" if absent
	JWK *Key   // only with Profile.AllowJWK
	// Ignored names the members that were present and have no influence, x5t
	// among them. A JWT-SVID, for one, must have none.
	Ignored []string
}

// Parse reads a compact token. It verifies nothing.
func Parse(compact string, p Profile) (*Token, error) {
	t, payload, err := open(compact, p)
	if err != nil {
		return nil, err
	}
	if t.Claims, err = readObject(payload, "payload"); err != nil {
		return nil, err
	}
	return t, nil
}

// open reads all of a token but its claims.
func open(compact string, p Profile) (t *Token, payload []byte, err error) {
	most := p.MaxBytes
	if most == 0 {
		most = DefaultMaxBytes
	}
	if len(compact) > most {
		return nil, nil, refuse(proviso.CodeLimitsTokenSize, "the token has %d bytes, at most %d are taken", len(compact), most)
	}
	dot1, dot2, err := segments(compact)
	if err != nil {
		return nil, nil, err
	}
	// One buffer for the token's bytes and its decoded segments.
	buf := make([]byte, len(compact), 2*len(compact))
	copy(buf, compact)
	text := buf[:len(compact):len(compact)]
	t = &Token{signed: text[:dot2:dot2]}
	header, buf, err := decodeSegment(buf, text[:dot1], "header")
	if err != nil {
		return nil, nil, err
	}
	payload, buf, err = decodeSegment(buf, text[dot1+1:dot2], "payload")
	if err != nil {
		return nil, nil, err
	}
	t.sig, _, err = decodeSegment(buf, text[dot2+1:], "signature")
	if err != nil {
		return nil, nil, err
	}
	if t.Header, err = readHeader(header, p); err != nil {
		return nil, nil, err
	}
	// After the header, so that "none" is called by its name.
	if len(t.sig) == 0 {
		return nil, nil, refuse(proviso.CodeJWTMalformed, "the token's signature is empty")
	}
	t.hash = sha256.Sum256(t.signed)
	return t, payload, nil
}

// SignedHash is the SHA-256 of the signed bytes, header and payload. It is the
// same for all spellings of one token, and is what a replay key is made of.
func (t *Token) SignedHash() [32]byte { return t.hash }

func segments(compact string) (dot1, dot2 int, err error) {
	dot1 = strings.IndexByte(compact, '.')
	dot2 = strings.LastIndexByte(compact, '.')
	if dot1 < 0 || dot1 == dot2 {
		return 0, 0, refuse(proviso.CodeJWTMalformed, "a token has three segments with a dot between them; fewer were found")
	}
	switch strings.Count(compact[dot1+1:dot2], ".") {
	case 0:
		return dot1, dot2, nil
	case 2:
		return 0, 0, refuse(proviso.CodeJWTIsJWE, "the token has five segments, so it is encrypted; only signed tokens are taken")
	}
	return 0, 0, refuse(proviso.CodeJWTMalformed, "a token has three segments with a dot between them; more were found")
}

var strictBase64 = base64.RawURLEncoding.Strict()

// decodeSegment appends the decoded segment to buf. encoding/base64 skips line
// breaks even when it is strict, so they are looked for first.
func decodeSegment(buf, segment []byte, name string) (decoded, rest []byte, err error) {
	if bytes.IndexByte(segment, '\n') >= 0 || bytes.IndexByte(segment, '\r') >= 0 {
		return nil, nil, refuse(proviso.CodeJWTMalformed, "the token's %s has a line break in it; remove it", name)
	}
	start := len(buf)
	buf, err = strictBase64.AppendDecode(buf, segment)
	if err != nil {
		return nil, nil, refuse(proviso.CodeJWTMalformed, "the token's %s is not canonical base64url without padding", name)
	}
	return buf[start:len(buf):len(buf)], buf, nil
}

// readObject reads one JSON object whose top-level names nobody can confuse.
func readObject(data []byte, name string) (document.Value, error) {
	v, err := document.Parse(data, document.Limits{Bytes: len(data)})
	switch {
	case errors.Is(err, document.ErrDuplicate):
		return v, refuse(proviso.CodeJWTDuplicateMember, "the token's %s names a member twice, so two readers would read different tokens", name)
	case err != nil:
		return v, refuse(proviso.CodeJWTMalformed, "the token's %s is not acceptable: %v", name, err)
	case v.Kind() != document.Object:
		return v, refuse(proviso.CodeJWTMalformed, "the token's %s is a JSON %s, not an object", name, v.Kind())
	}
	if a, b, found := ambiguous(v.Fields()); found {
		return v, refuse(proviso.CodeJWTAmbiguousMember, "the token's %s has members %s and %s, which a reader that ignores case takes for one",
			name, shown(a), shown(b))
	}
	return v, nil
}

// ambiguous finds two names that are equal under simple case folding.
// Duplicates are already refused, so names that are all lower-case ASCII, as
// nearly all tokens have them, need no comparison.
func ambiguous(fields []document.Field) (a, b string, found bool) {
	for i := range fields {
		if !isPlainName(fields[i].Name) {
			return ambiguousFolded(fields)
		}
	}
	return "", "", false
}

func isPlainName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

func ambiguousFolded(fields []document.Field) (a, b string, found bool) {
	seen := make(map[string]string, len(fields))
	for _, f := range fields {
		key := strings.Map(smallestFold, f.Name)
		if other, dup := seen[key]; dup {
			return other, f.Name, true
		}
		seen[key] = f.Name
	}
	return "", "", false
}

// smallestFold gives one rune for all that are equal under simple folding.
func smallestFold(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	return least
}

// headerMeaning says of the registered header parameters that Proviso does not
// read what they would do, which is why their presence refuses the token.
var headerMeaning = map[string]string{
	"jku": "names an address to get the key from", "x5u": "names an address to get the key from",
	"jwk": "brings its own key", "x5c": "brings its own key",
	"crit": "demands an extension", "b64": "changes what is signed",
	"cty": "says that another token lies inside", "zip": "compresses",
	"enc": "encrypts", "epk": "encrypts", "apu": "encrypts", "apv": "encrypts", "iv": "encrypts", "tag": "encrypts",
	"p2s": "encrypts", "p2c": "encrypts",
	"iss": "repeats a claim", "sub": "repeats a claim", "aud": "repeats a claim",
	"url": "is for ACME", "nonce": "is for ACME", "ppt": "is for PASSporT", "svt": "adds another token",
}

func readHeader(data []byte, p Profile) (Header, error) {
	var h Header
	v, err := readObject(data, "header")
	if err != nil {
		return h, err
	}
	var jwk document.Value
	for _, f := range v.Fields() {
		text, isText := f.Value.Text()
		switch f.Name {
		case "alg":
			h.Alg = Alg(text)
		case "kid":
			h.Kid = text
		case "typ":
			h.Typ = text
		case "x5t", "x5t#S256":
			// Thumbprints of the key's certificate, which GitHub and Azure send.
			// They are a second name of the key; kid is the one that is used.
			h.Ignored = append(h.Ignored, f.Name)
		case "jwk":
			if p.AllowJWK {
				jwk = f.Value
				continue
			}
			fallthrough
		default:
			if err := unread(f.Name, p); err != nil {
				return h, err
			}
			h.Ignored = append(h.Ignored, f.Name)
			continue
		}
		if !isText || text == "" {
			return h, refuse(proviso.CodeJWTMalformed, "the token's header member %s is not a text", f.Name)
		}
	}
	if !h.Alg.Known() {
		if h.Alg == "" {
			return h, refuse(proviso.CodeJWTAlgNotAllowed, "the token's header names no algorithm")
		}
		return h, refuse(proviso.CodeJWTAlgNotAllowed, "the token's algorithm %s is not taken; signatures with a public key are", shown(string(h.Alg)))
	}
	if len(h.Kid) > maxKID {
		return h, refuse(proviso.CodeJWTMalformed, "the token's kid has %d bytes, at most %d are taken", len(h.Kid), maxKID)
	}
	if !p.takesTyp(h.Typ) {
		return h, refuse(proviso.CodeJWTTyp, "the token's typ is %s, which is not what is taken here: %s", shown(h.Typ), quotedList(p.Typ))
	}
	if p.AllowJWK {
		if h.JWK, err = headerKey(jwk, h.Alg); err != nil {
			return h, err
		}
	}
	return h, nil
}

func unread(name string, p Profile) error {
	if why, registered := headerMeaning[name]; registered {
		return refuse(proviso.CodeJWTHeaderNotAllowed, "the token's header has a member %s, which %s; it is not taken", name, why)
	}
	if !p.IgnoreUnknown {
		return refuse(proviso.CodeJWTHeaderNotAllowed, "the token's header has a member %s, which is not known here", shown(name))
	}
	return nil
}

func (p Profile) takesTyp(typ string) bool {
	if len(p.Typ) == 0 {
		return typ == ""
	}
	for _, want := range p.Typ {
		if equalASCIIFold(bareType(want), bareType(typ)) {
			return true
		}
	}
	return false
}

// bareType leaves out "application/" where nothing after it has a slash, as a
// recipient adds it (RFC 7515 section 4.1.9).
func bareType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && equalASCIIFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}

// equalASCIIFold is not strings.EqualFold, for which K (U+212A) is a k.
func equalASCIIFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lowerASCII(a[i]) != lowerASCII(b[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func quotedList(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	var b bytes.Buffer
	for i, n := range names {
		if i > 0 {
			b.WriteString(" or ")
		}
		if n == "" {
			b.WriteString("none")
			continue
		}
		b.WriteString(shown(n))
	}
	return b.String()
}
