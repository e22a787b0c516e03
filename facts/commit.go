package facts

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's object ids; git itself refuses known collisions
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxCommit is the longest commit object that is read.
const maxCommit = 1 << 20

// commit is a commit object that was read strictly, from the bytes that its id
// is the hash of. Two readers can't take it for two commits: nothing occurs
// twice that git takes the first or the last of, and the order is git's own.
type commit struct {
	id        string
	parents   []string
	author    ident
	committer ident
	signature []byte // the value of gpgsig, unfolded; nil without one
	payload   []byte // what a signature signs: the object without its signatures

	good atomic.Pointer[goodVerdict] // the last good one, so that it is found once
}

// ident is an author or committer line.
type ident struct {
	name, email string
	at          time.Time
}

var errMalformed = errors.New("malformed commit object")

func badCommit(why string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(why, args...))
}

// isObjectID reports whether s is a full object id, SHA-1 or SHA-256.
func isObjectID(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// objectID computes a commit's id in the given length of hex digits.
func objectID(raw []byte, digits int) string {
	header := "commit " + strconv.Itoa(len(raw)) + "\x00"
	if digits == 64 {
		h := sha256.New()
		h.Write([]byte(header))
		h.Write(raw)
		return hex.EncodeToString(h.Sum(nil))
	}
	h := sha1.New() //nolint:gosec // as above
	h.Write([]byte(header))
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

// parseCommit reads the raw bytes of the commit id.
//
// The header of a commit is tree, parents, author, committer in this order,
// then optional lines, each with its continuations, which begin with a space.
// git-fsck forgives some things here and git's own readers differ about them (a
// second tree, a second author, a NUL in the message); here they are refused.
func parseCommit(id string, raw []byte) (*commit, error) {
	if len(raw) > maxCommit {
		return nil, badCommit("%d bytes, at most %d are read", len(raw), maxCommit)
	}
	if !isObjectID(id) || objectID(raw, len(id)) != id {
		return nil, badCommit("the bytes are not those that the id names")
	}
	if bytes.IndexByte(raw, 0) >= 0 {
		return nil, badCommit("holds a NUL byte")
	}
	end := bytes.Index(raw, []byte("\n\n"))
	if end < 0 {
		return nil, badCommit("has no empty line after its header")
	}
	if bytes.IndexByte(raw[:end], '\r') >= 0 {
		return nil, badCommit("has a carriage return in its header")
	}
	c := &commit{id: id, payload: make([]byte, 0, len(raw))}
	r := headerReader{rest: raw[:end+1]}
	if err := c.fixedHeader(&r); err != nil {
		return nil, err
	}
	if err := c.freeHeader(&r); err != nil {
		return nil, err
	}
	c.payload = append(c.payload, raw[end+1:]...)
	return c, nil
}

// headerReader gives a header's lines together with their continuations.
type headerReader struct {
	rest []byte
}

// next gives the next line: its name, its value with continuations unfolded,
// and its bytes as they are. ok is false at the end.
func (r *headerReader) next() (name string, value, line []byte, ok bool) {
	if len(r.rest) == 0 {
		return "", nil, nil, false
	}
	end := bytes.IndexByte(r.rest, '\n') + 1
	head := r.rest[:end-1]
	cut := bytes.IndexByte(head, ' ')
	if cut < 0 {
		cut = len(head)
	}
	name = string(head[:cut])
	if cut < len(head) {
		value = append(value, head[cut+1:]...)
	}
	for end < len(r.rest) && r.rest[end] == ' ' {
		more := bytes.IndexByte(r.rest[end:], '\n') + 1
		value = append(append(value, '\n'), r.rest[end+1:end+more-1]...)
		end += more
	}
	line, r.rest = r.rest[:end], r.rest[end:]
	return name, value, line, true
}

// fixedHeader reads tree, parents, author and committer.
func (c *commit) fixedHeader(r *headerReader) error {
	digits := len(c.id)
	name, value, line, _ := r.next()
	if name != "tree" || !isObjectID(string(value)) || len(value) != digits {
		return badCommit("does not begin with one tree")
	}
	c.payload = append(c.payload, line...)
	for {
		name, value, line, _ = r.next()
		if name != "parent" {
			break
		}
		if !isObjectID(string(value)) || len(value) != digits {
			return badCommit("has a parent that is no object id")
		}
		c.parents = append(c.parents, string(value))
		if len(c.parents) > 64 {
			return badCommit("has more than 64 parents")
		}
		c.payload = append(c.payload, line...)
	}
	var err error
	if name != "author" {
		return badCommit("has %q where the author is expected", clip(name))
	}
	if c.author, err = parseIdent(value); err != nil {
		return badCommit("author: %v", err)
	}
	c.payload = append(c.payload, line...)
	if name, value, line, _ = r.next(); name != "committer" {
		return badCommit("has %q where the committer is expected", clip(name))
	}
	if c.committer, err = parseIdent(value); err != nil {
		return badCommit("committer: %v", err)
	}
	c.payload = append(c.payload, line...)
	return nil
}

// freeHeader reads what follows: encoding, mergetag, signatures, and lines of
// other tools. The signatures (gpgsig, and gpgsig-sha256 for the other hash)
// are no part of what is signed.
func (c *commit) freeHeader(r *headerReader) error {
	seen := map[string]bool{}
	mine, other := "gpgsig", "gpgsig-sha256"
	if len(c.id) == 64 {
		mine, other = other, mine
	}
	for {
		name, value, line, ok := r.next()
		if !ok {
			return nil
		}
		if !isHeaderName(name) {
			return badCommit("has a header line without a name")
		}
		switch lower := strings.ToLower(name); {
		case lower == "tree" || lower == "parent" || lower == "author" || lower == "committer":
			return badCommit("names %s again", lower)
		case name == "mergetag": // one for each parent that is a signed tag
		case seen[lower]:
			return badCommit("has the header %q twice", clip(name))
		default:
			seen[lower] = true
		}
		switch name {
		case mine:
			if len(value) == 0 {
				return badCommit("has an empty signature")
			}
			c.signature = value
		case other:
		default:
			if strings.HasPrefix(strings.ToLower(name), "gpgsig") {
				return badCommit("has the header %q, which some readers take for a signature", clip(name))
			}
			c.payload = append(c.payload, line...)
		}
	}
}

func isHeaderName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// parseIdent reads "Name <email> 1795426200 +0100".
func parseIdent(line []byte) (ident, error) {
	text := string(line)
	if strings.ContainsAny(text, "\n") {
		return ident{}, errors.New("is continued")
	}
	name, rest, ok := strings.Cut(text, "<")
	if !ok {
		return ident{}, errors.New("has no e-mail address")
	}
	email, rest, ok := strings.Cut(rest, "> ")
	if !ok || strings.ContainsAny(name+email+rest, "<>") {
		return ident{}, errors.New("has no single e-mail address in angle brackets")
	}
	seconds, zone, ok := strings.Cut(rest, " ")
	if !ok || !isDecimal(seconds) || len(seconds) > 11 {
		return ident{}, errors.New("has no time in seconds")
	}
	if len(zone) != 5 || zone[0] != '+' && zone[0] != '-' || !isDecimal("1"+zone[1:]) {
		return ident{}, errors.New("has no time zone as +0100")
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return ident{}, errors.New("has no time in seconds")
	}
	return ident{name: strings.TrimSpace(name), email: email, at: time.Unix(n, 0).UTC()}, nil
}

// isDecimal reports whether s is a number without leading zeros.
func isDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s == "0" || s != "" && s[0] != '0'
}

// clip bounds what a message quotes of a stranger's bytes.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
