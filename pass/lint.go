package pass

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/proviso-ci/proviso"
)

// members are all that a payload may have, in canonical order.
var members = [...]string{"act", "aud", "authorization_details", "client_id", "cnf", "exp", "iat", "iss", "jti", "proviso", "scope", "sub"}

const (
	memberAct = iota
	memberAud
	memberDetails
	memberClientID
	memberCnf
	memberExp
	memberIat
	memberIss
	memberJTI
	memberProviso
	memberScope
	memberSub
)

// lint reads a finished payload as a stranger would, and refuses it unless it
// says what c says and what a pass may say at all. It shares no code with the
// writer, nor with package document: that is its worth. It refuses for our own
// faults, so its words are for the operator.
func lint(payload []byte, c *Claims, maxTTL time.Duration) error {
	if n := encodedLen(payload); n > MaxBytes {
		return lintRefusal("the token would have %d bytes, at most %d are taken", n, MaxBytes)
	}
	if !utf8.Valid(payload) {
		return lintRefusal("the payload is not UTF-8")
	}
	var found [len(members)][]byte
	if err := split(payload, &found); err != nil {
		return err
	}
	if c.ClientID != c.Subject {
		return lintRefusal("client_id is not sub")
	}
	names := [...]struct {
		member int
		want   string
	}{{memberAud, c.Audience}, {memberClientID, c.ClientID}, {memberIss, c.Issuer}, {memberJTI, c.ID}, {memberSub, c.Subject}}
	for _, n := range names {
		if !isName(n.want) || !isQuoted(found[n.member], n.want) {
			return lintRefusal("%s is no plain name, or not what the warrant says", members[n.member])
		}
	}
	if err := lintHolder(&found, c); err != nil {
		return err
	}
	if err := lintScope(found[memberScope], c.Scope); err != nil {
		return err
	}
	exp, iat := number(found[memberExp]), number(found[memberIat])
	if exp != c.Expires.Unix() || iat != c.IssuedAt.Unix() || c.Expires.Nanosecond()|c.IssuedAt.Nanosecond() != 0 {
		return lintRefusal("exp or iat are not the warrant's whole seconds")
	}
	if ttl := time.Duration(exp-iat) * time.Second; ttl < time.Second || ttl > maxTTL || ttl > MaxTTL {
		return lintRefusal("a lifetime of %v, where at most %v is allowed", ttl, min(maxTTL, MaxTTL))
	}
	if d, p := found[memberDetails], found[memberProviso]; d != nil && d[0] != '[' || p != nil && p[0] != '{' {
		return lintRefusal("authorization_details is no array, or proviso no object")
	}
	return nil
}

// lintHolder: act has only sub, cnf only one key.
func lintHolder(found *[len(members)][]byte, c *Claims) error {
	if (found[memberAct] != nil) != (c.Actor != "") || (found[memberCnf] != nil) != !c.Confirmation.IsZero() {
		return lintRefusal("act or cnf is there without, or missing with, what the warrant says")
	}
	if c.Actor != "" && !(isName(c.Actor) && strings.HasPrefix(c.Actor, "spiffe://") && isObject(found[memberAct], "sub", c.Actor)) {
		return lintRefusal("act doesn't name the runner's SPIFFE ID, and that alone")
	}
	switch jkt, x5t := c.Confirmation.JKT, c.Confirmation.X5TS256; {
	case jkt != "" && x5t != "":
		return lintRefusal("the warrant binds to two keys")
	case jkt != "" && !(isThumbprint(jkt) && isObject(found[memberCnf], "jkt", jkt)),
		x5t != "" && !(isThumbprint(x5t) && isObject(found[memberCnf], "x5t#S256", x5t)):
		return lintRefusal("cnf doesn't name the key that the warrant binds to")
	}
	return nil
}

func lintScope(value []byte, words []string) error {
	if (value != nil) != (len(words) > 0) {
		return lintRefusal("scope is there without, or missing with, what the warrant says")
	}
	if value == nil {
		return nil
	}
	inner, ok := unquote(value)
	for i, w := range words {
		if i > 0 {
			ok = ok && len(inner) > 0 && inner[0] == ' '
			inner = inner[min(1, len(inner)):]
		}
		ok = ok && ValidScope(w) && len(inner) >= len(w) && string(inner[:len(w)]) == w
		inner = inner[min(len(w), len(inner)):]
	}
	if !ok || len(inner) > 0 {
		return lintRefusal("scope is not the warrant's words with one space between them")
	}
	return nil
}

func lintRefusal(detail string, args ...any) error {
	return proviso.Refuse(proviso.StageCredential, CodePassLint,
		"the broker refused to sign this token, because it is not what was decided; its operator finds the cause in the log").Because(fmt.Errorf(detail, args...))
}

// split finds the members of the object. A name that isn't in the list, that
// comes twice or out of order, an escape in a name, or anything that isn't
// compact JSON, is refused.
func split(payload []byte, found *[len(members)][]byte) error {
	if len(payload) < 2 || payload[0] != '{' {
		return lintRefusal("the payload is no object")
	}
	next := 0
	for rest := payload[1:]; ; rest = rest[1:] {
		end := valueEnd(rest)
		if end < 0 || rest[0] != '"' || end >= len(rest) || rest[end] != ':' {
			return lintRefusal("the payload is not compact JSON")
		}
		for next < len(members) && members[next] != string(rest[1:end-1]) {
			next++
		}
		if next == len(members) {
			return lintRefusal("unexpected member %s, or one out of order", rest[:end])
		}
		rest = rest[end+1:]
		if end = valueEnd(rest); end < 0 || end >= len(rest) {
			return lintRefusal("the value of %s is not compact JSON", members[next])
		}
		found[next] = rest[:end]
		next++
		rest = rest[end:]
		if rest[0] == '}' && len(rest) == 1 {
			return nil
		}
		if rest[0] != ',' || len(rest) == 1 {
			return lintRefusal("something follows the value of %s", members[next-1])
		}
	}
}

// valueEnd is where the compact JSON value at the start of b ends, or -1. It
// looks at brackets and texts only; what is inside was written by package
// document.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] < 0x20 {
					return -1
				}
				if b[i] == '\\' {
					i++
				}
			}
			if i >= len(b) {
				return -1
			}
		case c == '{' || c == '[':
			depth++
			continue
		case c == '}' || c == ']':
			depth--
		case c <= ' ':
			return -1
		case depth > 0:
			continue
		case c >= '0' && c <= '9':
			if i+1 < len(b) && b[i+1] >= '0' && b[i+1] <= '9' {
				continue
			}
		default: // a literal or a sign never stands at the top of a pass
			return -1
		}
		if depth < 0 {
			return -1
		}
		if depth == 0 {
			return i + 1
		}
	}
	return -1
}

func unquote(value []byte) ([]byte, bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

// isQuoted reports whether value is the JSON text want, which needs no escapes.
func isQuoted(value []byte, want string) bool {
	inner, ok := unquote(value)
	return ok && string(inner) == want
}

// isObject reports whether value is an object with this one member.
func isObject(value []byte, name, want string) bool {
	rest, ok := bytes.CutPrefix(value, []byte(`{"`))
	rest, ok2 := bytes.CutPrefix(rest, []byte(name))
	rest, ok3 := bytes.CutPrefix(rest, []byte(`":`))
	rest, ok4 := bytes.CutSuffix(rest, []byte(`}`))
	return ok && ok2 && ok3 && ok4 && isQuoted(rest, want)
}

// number reads digits, or gives -1.
func number(value []byte) int64 {
	if len(value) == 0 || len(value) > 12 || value[0] == '0' {
		return -1
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// encodedLen bounds the token: header and signature have 300 bytes at most.
func encodedLen(payload []byte) int { return 300 + base64.RawURLEncoding.EncodedLen(len(payload)) }

// isName: what stands in trust policies and logs is plain ASCII of bounded length.
func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= 0x20 || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// ValidScope holds one word of a scope to RFC 6749 section 3.3: printable ASCII
// without space, quote and backslash.
func ValidScope(word string) bool {
	for i := 0; i < len(word); i++ {
		if c := word[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return word != ""
}

func validScope(words []string) bool {
	for _, w := range words {
		if !ValidScope(w) {
			return false
		}
	}
	return len(words) > 0
}
