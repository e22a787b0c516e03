package facts

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// allowedSigner is one line of an allowed signers file (ssh-keygen(1), ALLOWED
// SIGNERS): these principals may sign with this key, for these namespaces, in
// this time.
type allowedSigner struct {
	principals    []string // patterns; a leading ! excludes
	namespaces    []string // patterns; nil: any
	after, before time.Time
	key           ssh.PublicKey
	blob          string // the key's wire form
	line          int
}

// Bounds of an allowed signers file.
const (
	maxSignersFile = 4 << 20
	maxSignersLine = 32 << 10
	maxSigners     = 50_000
)

// parseAllowedSigners reads ssh-keygen's format, and nothing that it doesn't
// wholly understand: one bad line refuses the file, because a line that is
// skipped may be the one that said "no longer".
//
// Three things differ from ssh-keygen. A time without Z is UTC, not the local
// zone of whichever machine reads it. cert-authority is refused: Proviso verifies keys, not SSH
// certificates. A principal that matches everybody ("*") is refused: it would
// let its key sign in any name.
func parseAllowedSigners(data []byte) ([]allowedSigner, error) {
	if len(data) > maxSignersFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxSignersFile)
	}
	var signers []allowedSigner
	n := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		n++
		text := strings.Trim(strings.TrimSuffix(string(line), "\r"), " \t")
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := parseSigner(text)
		if err != nil {
			return nil, fmt.Errorf("line %d %w", n, err)
		}
		s.line = n
		if signers = append(signers, s); len(signers) > maxSigners {
			return nil, fmt.Errorf("has more than %d signers", maxSigners)
		}
	}
	return signers, nil
}

func parseSigner(text string) (s allowedSigner, err error) {
	if len(text) > maxSignersLine {
		return s, fmt.Errorf("is longer than %d bytes", maxSignersLine)
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return s, errors.New("holds a control character")
		}
	}
	principals, rest, err := word(text)
	if err != nil {
		return s, err
	}
	if s.principals, err = patterns(principals, "principal"); err != nil {
		return s, err
	}
	first, after, err := optionsWord(rest)
	if err != nil {
		return s, err
	}
	if !isKeyType(first) {
		if err := s.options(first); err != nil {
			return s, err
		}
		if first, after, err = word(after); err != nil {
			return s, err
		}
		if !isKeyType(first) {
			return s, errors.New("has no key type where one is expected: principals, options, key type, key")
		}
	}
	encoded, _, err := word(after)
	if err != nil {
		return s, err
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return s, errors.New("has a key that is no base64")
	}
	if s.key, err = ssh.ParsePublicKey(blob); err != nil {
		return s, errors.New("has a key that can't be read")
	}
	if s.key.Type() != first || !bytes.Equal(s.key.Marshal(), blob) {
		return s, fmt.Errorf("says %s and has a key of type %s", first, s.key.Type())
	}
	s.blob = string(blob)
	if !s.after.IsZero() && !s.before.IsZero() && !s.after.Before(s.before) {
		return s, errors.New("is valid at no time: valid-after is not before valid-before")
	}
	return s, nil
}

// isKeyType reports whether a word names a kind of key. Anything else in its
// place is options.
func isKeyType(s string) bool {
	for _, prefix := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// word takes the next word, which may stand in double quotes as a whole.
func word(s string) (w, rest string, err error) {
	s = strings.TrimLeft(s, " \t")
	if s == "" {
		return "", "", errors.New("ends too early: principals, options, key type, key")
	}
	if s[0] == '"' {
		w, rest, ok := strings.Cut(s[1:], `"`)
		if !ok {
			return "", "", errors.New("has a quote without its end")
		}
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return "", "", errors.New("has text right after a quote")
		}
		return w, rest, nil
	}
	end := strings.IndexAny(s, " \t")
	if end < 0 {
		end = len(s)
	}
	if strings.Contains(s[:end], `"`) {
		return "", "", errors.New("has a quote inside a word")
	}
	return s[:end], s[end:], nil
}

// optionsWord takes the next word, in which quotes may hold blanks.
func optionsWord(s string) (w, rest string, err error) {
	s = strings.TrimLeft(s, " \t")
	quoted := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return s[:i], s[i:], nil
		}
	}
	if quoted {
		return "", "", errors.New("has a quote without its end")
	}
	if s == "" {
		return "", "", errors.New("ends too early: principals, options, key type, key")
	}
	return s, "", nil
}

// options reads namespaces="git,file",valid-after="...",valid-before="...".
func (s *allowedSigner) options(text string) error {
	seen := map[string]bool{}
	for text != "" {
		end, quoted := len(text), false
		for i := range len(text) {
			if text[i] == '"' {
				quoted = !quoted
			}
			if text[i] == ',' && !quoted {
				end = i
				break
			}
		}
		if end == 0 || end == len(text)-1 { // a comma first or last
			return errors.New("has an empty option")
		}
		option := text[:end]
		text = strings.TrimPrefix(text[end:], ",")
		name, value, hasValue := strings.Cut(option, "=")
		name = strings.ToLower(name)
		if seen[name] {
			return fmt.Errorf("has the option %s twice", clip(name))
		}
		seen[name] = true
		if hasValue {
			if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' || strings.Contains(value[1:len(value)-1], `"`) {
				return fmt.Errorf("has the option %s without quotes around its value", clip(name))
			}
			value = value[1 : len(value)-1]
		}
		if err := s.option(name, value, hasValue); err != nil {
			return err
		}
	}
	return nil
}

func (s *allowedSigner) option(name, value string, hasValue bool) (err error) {
	switch {
	case name == "cert-authority" && !hasValue:
		return errors.New("is a cert-authority: SSH certificates are not taken, list the keys themselves")
	case name == "namespaces" && hasValue:
		s.namespaces, err = patterns(value, "namespace")
	case name == "valid-after" && hasValue:
		s.after, err = signerTime(value)
	case name == "valid-before" && hasValue:
		s.before, err = signerTime(value)
	default:
		return fmt.Errorf("has the option %q; known are namespaces, valid-after and valid-before", clip(name))
	}
	return err
}

// signerTime reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with or without Z.
func signerTime(text string) (time.Time, error) {
	digits := strings.TrimSuffix(text, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) == len(layout) {
			if t, err := time.Parse(layout, digits); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("has the time %q: YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS is expected, with Z for UTC", clip(text))
}

func patterns(text, what string) ([]string, error) {
	list := strings.Split(text, ",")
	positive := false
	for _, p := range list {
		bare := strings.TrimPrefix(p, "!")
		if bare == "" {
			return nil, fmt.Errorf("has an empty %s", what)
		}
		if strings.Trim(bare, "*?@.") == "" && what == "principal" {
			return nil, fmt.Errorf("has the principal %q, which is anybody; name who may sign with this key", clip(p))
		}
		positive = positive || bare == p
	}
	if !positive {
		return nil, fmt.Errorf("has a ! before every %s, so it allows nobody", what)
	}
	return list, nil
}

// matchList matches a text with a list of patterns: one has to match, and none
// of those with a ! may (PATTERNS in ssh_config(5)).
func matchList(list []string, text string) bool {
	matched := false
	for _, p := range list {
		if negated, ok := strings.CutPrefix(p, "!"); ok {
			if matchPattern(negated, text) {
				return false
			}
			continue
		}
		matched = matched || matchPattern(p, text)
	}
	return matched
}

// matchPattern matches * with any text and ? with any byte, in time that is
// bounded by the product of the lengths.
func matchPattern(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// validAt reports whether the line holds at a time.
func (s *allowedSigner) validAt(t time.Time) bool {
	return (s.after.IsZero() || !t.Before(s.after)) && (s.before.IsZero() || t.Before(s.before))
}
