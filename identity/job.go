package identity

import (
	"maps"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
)

// Job is a proved identity. Only [Verifier.Verify] makes one and, for a workload
// that asks for itself, package runner; the zero Job proves nothing. It can't be changed.
type Job struct{ j *job }

type job struct {
	identity Identity
	document document.Value
	claims   document.Value

	issuer    string
	hash      [32]byte
	jti, jkt  string
	replay    string
	replayKey [32]byte

	issued, expires time.Time
}

// none stands for the zero Job, so that no method needs to look.
var none job

func (j Job) get() *job {
	if j.j == nil {
		return &none
	}
	return j.j
}

// IsZero reports whether the Job proves nothing.
func (j Job) IsZero() bool { return j.j == nil }

// Identity gives input.identity as a struct, which is the caller's own.
func (j Job) Identity() Identity {
	id := j.get().identity
	id.PullRequest, id.Protected = copied(id.PullRequest), copied(id.Protected)
	id.Attributes = maps.Clone(id.Attributes)
	return id
}

func copied(b *bool) *bool {
	if b == nil {
		return nil
	}
	c := *b
	return &c
}

// Document gives input.identity without the raw claims.
func (j Job) Document() document.Value { return j.get().document }

// Claims gives the token's payload as it was signed.
func (j Job) Claims() document.Value { return j.get().claims }

// Issuer is the issuer's name in the configuration.
func (j Job) Issuer() string { return j.get().issuer }

// TokenHash is the SHA-256, in hexadecimal, of the signed bytes of the token:
// how the token is called in logs and in the record.
func (j Job) TokenHash() string {
	if j.j == nil {
		return ""
	}
	return j.j.tokenHash()
}

// JTI is the token's own identifier, "" if it has none.
func (j Job) JTI() string { return j.get().jti }

// Replay gives how a second use of the token is recognised: the mode (ReplayJTI,
// ReplayToken or ReplayOff) and, unless it is off, the key of this token. The
// key must not be forgotten before Expires.
func (j Job) Replay() (mode string, key [32]byte) { return j.get().replay, j.get().replayKey }

// IssuedAt is the token's iat.
func (j Job) IssuedAt() time.Time { return j.get().issued }

// Expires is the token's exp. It is taken until then and not a moment longer.
func (j Job) Expires() time.Time { return j.get().expires }

// Confirmation is the thumbprint of the key that the token is bound to, "" if it
// is bound to none: cnf.jkt (RFC 7800 and RFC 9449), or the key that its audience
// names (proviso.KeyedAudience). The exchange must come with a proof of that key.
func (j Job) Confirmation() string { return j.get().jkt }

// String names the job for logs; it holds no secret.
func (j Job) String() string {
	if j.IsZero() {
		return "no job"
	}
	return j.j.issuer + " token " + j.j.tokenHash()[:16]
}
