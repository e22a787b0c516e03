package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

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

// entryVersion is the version of the entry's format, its member "version".
const entryVersion = 1

// Decision is the type of an entry that answers a request.
const Decision = "decision"

// Entry is the record of one decision. The caller fills in what it has learned
// when it closes the record; a member that is empty is left out of the log.
// Whether the decision was "allowed" or "refused" is not a member: Commit
// writes the one, Refuse the other.
type Entry struct {
	// Type is Decision when empty; Note takes other words for other events.
	Type string
	// Decision is the decision's id, made by NewDecision when the request came in.
	Decision string
	// Parent is the decision that this one continues (a renewal, a delegation).
	Parent string
	// Time is when the decision was taken by the broker's clock, kept to the
	// millisecond. When it was recorded the log adds by itself.
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

	// Broker is the broker's version; the log's Config.Broker when empty.
	Broker string

	short bool // the input is left out, its hash stays
}

// SetRefusal fills in why a request was refused. The cause in r.Err is for the
// operator's own log: it isn't recorded.
func (e *Entry) SetRefusal(r *proviso.Refusal) {
	e.Stage, e.Code, e.Message, e.Reasons = r.Stage, r.Code, r.Public, r.Reasons
}

// shorten leaves out what may be long, so that a refusal is always recorded.
func (e *Entry) shorten() {
	e.short = true
	e.Context, e.Identity, e.Runner, e.Intent, e.Limits = document.Value{}, document.Value{}, document.Value{}, document.Value{}, document.Value{}
	if len(e.Reasons) > 16 {
		e.Reasons = e.Reasons[:16]
	}
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

// decisionDigits are Crockford's base32 as ULIDs use it: an id sorts as its
// number does, and no two of its characters look alike.
const decisionDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewDecision makes the id of a decision, spelled as a ULID: 26 characters that
// sort by time, made of 48 bits of milliseconds and 80 bits of randomness.
func NewDecision(now time.Time) string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16)
	rand.Read(id[6:])
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var text [26]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = decisionDigits[lo&31]
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
	var ms int64
	for i := range len(id) {
		n := strings.IndexByte(decisionDigits, id[i])
		if n < 0 {
			return time.Time{}, false
		}
		if i < 10 {
			ms = ms<<5 | int64(n)
		}
	}
	return time.UnixMilli(ms), true
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
		a.quote(v)
	}
}

// quote writes a string. Some come from outsiders as they sent them: what is no
// UTF-8 must not make the entry, and with it the log, unreadable as JSON.
func (a *appender) quote(v string) {
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	a.b = document.AppendString(a.b, v)
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
		a.quote(v)
	}
	a.b = append(a.b, ']')
}

func (a *appender) value(n string, v document.Value) {
	if !v.IsAbsent() {
		a.name(n)
		a.b = document.AppendCanonical(a.b, v)
	}
}

// What an entry says in its member "result".
const (
	resultAllowed = "allowed"
	resultRefused = "refused"
	resultNoted   = "noted"
)

// recordedDigits stand where the time of recording will be written, which is
// known only when the entry's turn has come. It has as many digits as a time in
// milliseconds has until the year 2286.
const recordedDigits = "0000000000000"

// appendEntry appends e in canonical JSON: with terms as allowed, with a code
// as refused, else as noted. It returns where the digits of the time of
// recording stand. The order of the lines is the canonical order of the names.
func appendEntry(dst []byte, e *Entry, terms *Terms) (entry []byte, recorded int) {
	refused := terms == nil && e.Code != ""
	early := e.Input.IsAbsent() // what the input would hold stands by itself
	a := &appender{b: dst}
	a.open()
	a.text("actor", e.Actor)
	a.attestation(e.Attestation)
	a.text("broker", e.Broker)
	if refused {
		a.text("code", string(e.Code))
	}
	if early {
		a.value("context", e.Context)
	}
	if terms != nil {
		a.terms(terms)
	}
	a.text("decision", e.Decision)
	a.text("evidence_hash", e.EvidenceHash)
	a.text("grant", e.Grant)
	if early {
		a.value("identity", e.Identity)
	} else {
		a.input(e)
	}
	if early {
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
	a.policy(e.Policy)
	if refused {
		a.reasons(e.Reasons)
	}
	a.name("recorded")
	recorded = len(a.b)
	a.b = append(a.b, recordedDigits...)
	switch {
	case terms != nil:
		a.text("result", resultAllowed)
	case refused:
		a.text("result", resultRefused)
	default:
		a.text("result", resultNoted)
	}
	if early {
		a.value("runner", e.Runner)
	}
	a.text("spiffe_id", e.SPIFFEID)
	if refused {
		a.text("stage", string(e.Stage))
	}
	a.number("time", e.Time.UnixMilli())
	a.text("token_hash", e.TokenHash)
	a.text("type", e.Type)
	a.number("version", entryVersion)
	a.close()
	return a.b, recorded
}

// input writes the input and its hash, or the hash alone where an entry would
// be too long with the input.
func (a *appender) input(e *Entry) {
	start := len(a.b)
	a.name("input")
	value := len(a.b)
	a.b = document.AppendCanonical(a.b, e.Input)
	sum := sha256.Sum256(a.b[value:])
	if e.short {
		a.b = a.b[:start]
	}
	a.name("input_hash")
	a.b = append(a.b, '"')
	a.b = hex.AppendEncode(a.b, sum[:])
	a.b = append(a.b, '"')
}

func (a *appender) attestation(t Attestation) {
	if t == (Attestation{}) {
		return
	}
	a.name("attestation")
	a.open()
	if t.Age > 0 {
		a.number("age", int64(t.Age/time.Second))
	}
	a.text("status", t.Status)
	a.close()
}

func (a *appender) policy(p Policy) {
	if p == (Policy{}) {
		return
	}
	a.name("policy")
	a.open()
	a.text("digest", p.Digest)
	a.text("package", p.Package)
	a.text("revision", p.Revision)
	a.close()
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
	a.name("credential")
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
