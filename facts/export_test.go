package facts

import (
	"strings"

	"github.com/proviso-ci/proviso/internal/document"
)

// Doors for tests outside of the package, which may import the lab.

// ExpandURL parses a template and fills it in.
func ExpandURL(template string, values map[string]string) (string, error) {
	t, err := parseTemplate(template, "https")
	if err != nil {
		return "", err
	}
	out, why := t.expand(func(path ...string) document.Value { return document.StringOf(values[strings.Join(path, ".")]) })
	if why != nil {
		return "", &whyError{*why}
	}
	return out, nil
}

type whyError struct{ Absence }

func (e *whyError) Error() string { return string(e.Code) + ": " + e.Why }

// ReadCommit parses a raw commit object and says what a signature would sign.
func ReadCommit(id string, raw []byte) (payload, signature []byte, err error) {
	c, err := parseCommit(id, raw)
	if err != nil {
		return nil, nil, err
	}
	return c.payload, c.signature, nil
}

// CommitID computes the id of raw commit bytes, in 40 or 64 digits.
func CommitID(raw []byte, digits int) string { return objectID(raw, digits) }

// ReadSigners counts the lines of an allowed signers file.
func ReadSigners(data []byte) (int, error) {
	s, err := parseAllowedSigners(data)
	return len(s), err
}

// MatchPrincipals matches a list of patterns, as "a@b,*@c,!x@c", with a text.
func MatchPrincipals(list, text string) bool { return matchList(strings.Split(list, ","), text) }

// MayDial reports whether an HTTP source may dial an address.
var MayDial = mayDial

// RefName reports whether git could have a branch of this name.
var RefName = isRefName

// Pointer evaluates a JSON pointer.
func Pointer(doc document.Value, pointer string) (document.Value, error) {
	if err := checkPointer(pointer); err != nil {
		return document.Value{}, err
	}
	return follow(doc, splitPointer(pointer)), nil
}
