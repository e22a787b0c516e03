package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Mode says what a decision was made for.
type Mode string

// The modes. Only Enforce gives a warrant.
const (
	Enforce  Mode = "enforce"
	Simulate Mode = "simulate"
	Replay   Mode = "replay"
)

// Entry is the record of one decision. The caller fills in what it has learned
// when it closes the record; a member that is empty is left out of the log.
// Whether the decision was "allowed" or "refused" is not a member: Commit
// writes the one, Refuse the other.
type Entry struct {
	// Decision is the decision's id, made by NewDecision when the request came in.
	Decision string
	// Parent is the decision that this one continues (a renewal, a delegation).
	Parent string
	// Time is the broker's clock, kept to the millisecond.
	Time time.Time
	// Mode is Enforce when empty.
	Mode Mode

	Grant  string // the name that was asked for, as it was asked
	Issuer string // the issuer's name in the configuration
	// TokenHash is the hex SHA-256 of the job token's signed bytes; JTI its id.
	TokenHash string
	JTI       string
	// Actor is the person who triggered the job, as the platform's token says.
	Actor string
	// SPIFFEID names the runner, EvidenceHash is the hex SHA-256 of what proved it.
	SPIFFEID     string
	EvidenceHash string
	Attestation  Attestation

	// Input is the whole policy input as it was decided on. It holds identity,
	// runner, intent and context, so those four are written by themselves only
	// where a request was refused before there was an input.
	Input    document.Value
	Identity document.Value
	Runner   document.Value
	Intent   document.Value
	Context  document.Value
	// Limits are what policy narrowed.
	Limits document.Value
	Policy Policy

	// Stage, Code, Message and Reasons say why a request was refused. Commit
	// ignores them.
	Stage   proviso.Stage
	Code    proviso.Code
	Message string
	Reasons []proviso.Reason

	// Broker is the broker's version; Open's configuration fills it in when empty.
	Broker string
}

// Attestation is what is known of the runner's machine.
type Attestation struct {
	Status string        // absent when nothing was attested
	Age    time.Duration // since it was attested; 0 is unknown
}

// Policy names the policy that decided, exactly.
type Policy struct {
	Package  string
	Revision string
	Digest   string
}

// Terms are what a warrant permits, exactly: a credential is minted from its
// Terms and from nothing else.
type Terms struct {
	ID       string // jti, or serial number in hex
	Kind     string // "jwt", "x509"
	Audience string
	Subject  string
	// ScopeAsked is what the job wished for, Scope what it gets.
	ScopeAsked []string
	Scope      []string
	// NotBefore and Expires bound the credential; both are kept to the second.
	NotBefore time.Time
	Expires   time.Time
	// JKT is the thumbprint of the DPoP key the credential is bound to (RFC
	// 9449), X5T that of the client certificate (RFC 8705); empty when unbound.
	JKT string
	X5T string
	// KeyHash is the hex SHA-256 of the certified public key, CSRHash of the
	// request that brought it.
	KeyHash string
	CSRHash string
	// Names are the names in a certificate: "dns:...", "uri:...", "email:...".
	Names []string
	// Claims are further members of the credential, word for word as signed.
	Claims document.Value
}

// TTL is the lifetime.
func (t Terms) TTL() time.Duration { return t.Expires.Sub(t.NotBefore) }

// crockford is base32 as ULIDs use it: it sorts as its bytes do, and no two
// letters look alike.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewDecision makes the id of a decision: 26 characters that sort by time, 48
// bits of milliseconds and 80 bits of randomness, spelled as a ULID.
func NewDecision(now time.Time) string {
	// 130 bits are written for 128: two zero bits lead, so that the time is in
	// the first ten characters.
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:])
	var text [26]byte
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	for i := 25; i >= 0; i-- {
		text[i] = digits[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(text[:])
}

// DecisionTime reads the time out of a decision's id.
func DecisionTime(id string) (time.Time, bool) {
	if len(id) != 26 || id[0] > '7' {
		return time.Time{}, false
	}
	raw, err := crockford.DecodeString("000000" + id[:10])
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0}, raw...)[len(raw)+1-8:]))), true
}

// appender writes the members of one JSON object; the caller names them in
// canonical order.
type appender struct {
	b     []byte
	first bool
}

func (a *appender) open()  { a.b = append(a.b, '{'); a.first = true }
func (a *appender) close() { a.b = append(a.b, '}'); a.first = false }

// name starts a member. Names are plain ASCII from this file.
func (a *appender) name(n string) {
	if !a.first {
		a.b = append(a.b, ',')
	}
	a.first = false
	a.b = append(a.b, '"')
	a.b = append(a.b, n...)
	a.b = append(a.b, '"', ':')
}

func (a *appender) text(n, v string) {
	if v != "" {
		a.name(n)
		a.b = document.AppendString(a.b, v)
	}
}

func (a *appender) number(n string, v int64) {
	a.name(n)
	a.b = strconv.AppendInt(a.b, v, 10)
}

func (a *appender) list(n string, vs []string) {
	if len(vs) == 0 {
		return
	}
	a.name(n)
	for i, v := range vs {
		a.b = append(a.b, "[,"[min(i, 1)])
		a.b = document.AppendString(a.b, v)
	}
	a.b = append(a.b, ']')
}

func (a *appender) value(n string, v document.Value) {
	if !v.IsAbsent() {
		a.name(n)
		a.b = document.AppendCanonical(a.b, v)
	}
}

// appendEntry appends e in canonical JSON: as allowed when there are terms, as
// refused when there are none.
func appendEntry(dst []byte, e *Entry, terms *Terms) []byte {
	a := &appender{b: dst}
	a.open()
	a.text("actor", e.Actor)
	if e.Attestation != (Attestation{}) {
		a.name("attestation")
		a.open()
		if e.Attestation.Age > 0 {
			a.number("age", int64(e.Attestation.Age/time.Second))
		}
		a.text("status", e.Attestation.Status)
		a.close()
	}
	a.text("broker", e.Broker)
	if terms == nil {
		a.text("code", string(e.Code))
	}
	if e.Input.IsAbsent() {
		a.value("context", e.Context)
	}
	if terms != nil {
		a.name("credential")
		a.terms(terms)
	}
	a.text("decision", e.Decision)
	a.text("evidence_hash", e.EvidenceHash)
	a.text("grant", e.Grant)
	if e.Input.IsAbsent() {
		a.value("identity", e.Identity)
	} else {
		a.name("input")
		start := len(a.b)
		a.b = document.AppendCanonical(a.b, e.Input)
		sum := sha256.Sum256(a.b[start:])
		a.name("input_hash")
		a.b = append(a.b, '"')
		a.b = hex.AppendEncode(a.b, sum[:])
		a.b = append(a.b, '"')
	}
	if e.Input.IsAbsent() {
		a.value("intent", e.Intent)
	}
	a.text("issuer", e.Issuer)
	a.text("jti", e.JTI)
	a.value("limits", e.Limits)
	if terms == nil {
		a.text("message", e.Message)
	}
	a.text("mode", string(e.Mode))
	a.text("parent", e.Parent)
	if e.Policy != (Policy{}) {
		a.name("policy")
		a.open()
		a.text("digest", e.Policy.Digest)
		a.text("package", e.Policy.Package)
		a.text("revision", e.Policy.Revision)
		a.close()
	}
	if terms == nil {
		a.reasons(e.Reasons)
		a.text("result", "refused")
	} else {
		a.text("result", "allowed")
	}
	if e.Input.IsAbsent() {
		a.value("runner", e.Runner)
	}
	a.text("spiffe_id", e.SPIFFEID)
	if terms == nil {
		a.text("stage", string(e.Stage))
	}
	a.number("time", e.Time.UnixMilli())
	a.text("token_hash", e.TokenHash)
	a.text("type", "decision")
	a.number("version", 1)
	a.close()
	return a.b
}

func (a *appender) reasons(rs []proviso.Reason) {
	if len(rs) == 0 {
		return
	}
	a.name("reasons")
	a.b = append(a.b, '[')
	for i, r := range rs {
		if i > 0 {
			a.b = append(a.b, ',')
		}
		a.open()
		a.text("file", r.File)
		a.text("found", r.Found)
		if r.Line > 0 {
			a.number("line", int64(r.Line))
		}
		a.text("message", r.Message)
		a.text("path", r.Path)
		a.text("rule", r.Rule)
		a.text("wanted", r.Wanted)
		a.close()
	}
	a.b = append(a.b, ']')
}

func (a *appender) terms(t *Terms) {
	a.open()
	a.text("audience", t.Audience)
	a.value("claims", t.Claims)
	a.text("csr_hash", t.CSRHash)
	a.number("expires", t.Expires.Unix())
	a.text("id", t.ID)
	a.text("jkt", t.JKT)
	a.text("key_hash", t.KeyHash)
	a.text("kind", t.Kind)
	a.list("names", t.Names)
	a.number("not_before", t.NotBefore.Unix())
	a.list("scope", t.Scope)
	a.list("scope_asked", t.ScopeAsked)
	a.text("subject", t.Subject)
	a.number("ttl", int64(t.TTL()/time.Second))
	a.text("x5t", t.X5T)
	a.close()
}

// clone copies what a caller could still change while the writer has it.
func (t Terms) clone() Terms {
	t.Scope = slices.Clone(t.Scope)
	t.ScopeAsked = slices.Clone(t.ScopeAsked)
	t.Names = slices.Clone(t.Names)
	return t
}
