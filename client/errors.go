package client

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso"
)

// RefusedError is the broker's "no". [proviso.TokenError] has a member named
// error and so can't be an error itself.
type RefusedError struct {
	Status int
	Answer proviso.TokenError
}

// Error says stage, code, sentence and decision in one line.
func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString("refused")
	if e.Answer.Stage != "" {
		fmt.Fprintf(&b, " at %s", e.Answer.Stage)
	}
	fmt.Fprintf(&b, " (%s)", e.Answer.Error)
	if e.Answer.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Answer.Code)
	}
	if e.Answer.Description != "" {
		fmt.Fprintf(&b, ": %s", e.Answer.Description)
	}
	if e.Answer.Decision != "" {
		fmt.Fprintf(&b, " [decision %s]", e.Answer.Decision)
	}
	return Printable(b.String())
}

// UnknownOutcomeError says that the request left and no answer of the broker
// came: a credential may have been issued that nobody holds.
type UnknownOutcomeError struct {
	Broker string
	Err    error
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("no usable answer from %s (%v); the request had been sent, so the job's token may be used up and is not sent again", e.Broker, e.Err)
}

// Unwrap gives the cause.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// unsentError says that nothing left this machine.
type unsentError struct {
	broker  string
	mayPass bool
	err     error
}

func (e *unsentError) Error() string {
	return fmt.Sprintf("the broker at %s can't be reached: %v; nothing was sent", e.broker, e.err)
}

func (e *unsentError) Unwrap() error { return e.err }

// notBrokerError says that what answered is no broker, and so issued nothing.
type notBrokerError struct{ what string }

func (e *notBrokerError) Error() string { return e.what }

// Printable makes foreign text harmless for a terminal and for a CI platform
// that reads commands from a job's log: one line, no control or direction
// characters, none of the markers ("##[", "##vso[", "::" at a word's start)
// with which GitHub, Forgejo and Azure DevOps begin a command.
func Printable(s string) string {
	const limit = 2000
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + " ..."
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r', r == 0x2028, r == 0x2029:
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xfffd:
			return -1
		case r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			return -1
		}
		return r
	}, s)
	s = strings.ReplaceAll(s, "##", "# #")
	if strings.HasPrefix(strings.TrimLeft(s, " "), "::") {
		s = strings.Replace(s, "::", ": :", 1)
	}
	return s
}
