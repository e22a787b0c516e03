package audit

import (
	"strings"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
)

// fullEntry has every member set.
func fullEntry() (*Entry, *Terms) {
	at := time.Date(2026, 11, 24, 10, 0, 0, 123_000_000, time.UTC)
	e := &Entry{
		Decision: "01KAV9J0000000000000000000", Parent: "01KAV9HZZZ0000000000000000", Time: at, Mode: Enforce, Type: Decision,
		Grant: "deploy-production", Issuer: "github", TokenHash: "aa", JTI: "j-1", Actor: "mira <m@acme.example>",
		SPIFFEID: "spiffe://a/b", EvidenceHash: "bb", Attestation: Attestation{"spiffe-x509", 90 * time.Second},
		Input:    text("branch", "main", "ümlaut", "€", "\U0001F600", "beyond", "\uFB33", "below"),
		Identity: text("subject", "s"), Runner: text("id", "r"), Intent: text("action", "deploy"), Context: text("time", "10:00"),
		Limits: text("ttl", "60"), Policy: Policy{"production", "r1", "sha256:cc"},
		Stage: proviso.StagePolicy, Code: proviso.CodePolicyDenied, Message: "no, \"because\"\n",
		Reasons: []proviso.Reason{{Message: "m", Path: "context.branch", Found: `"x"`, Wanted: `"main"`, Rule: "allow", File: "p.rego", Line: 7}, {Message: "n"}},
		Broker:  "v1",
	}
	return e, &Terms{ID: "id", Kind: "x509", Audience: "aud", Subject: "sub", ScopeAsked: []string{"a", "b"}, Scope: []string{"a"},
		NotBefore: at, Expires: at.Add(10 * time.Minute), JKT: "jkt", X5T: "x5t", KeyHash: "kh", CSRHash: "ch", Names: []string{"dns:a"}, Claims: text("act", "r")}
}

// Entries are written by hand, so the order of members, the escapes and the
// commas are held against a writer that sorts.
func TestEntriesAreCanonical(t *testing.T) {
	for name, edit := range map[string]func(*Entry, **Terms){
		"allowed":              func(*Entry, **Terms) {},
		"refused":              func(_ *Entry, t **Terms) { *t = nil },
		"refused early":        func(e *Entry, t **Terms) { *t, e.Input = nil, text() },
		"refused, no input":    func(e *Entry, t **Terms) { *t = nil; e.Input = e.Input.At("absent") },
		"refused, input short": func(e *Entry, t **Terms) { *t, e.short = nil, true },
		"noted":                func(e *Entry, t **Terms) { *t, e.Code, e.Type = nil, "", "revocation" },
		"bare":                 func(e *Entry, t **Terms) { *t = nil; *e = Entry{Decision: "x", Type: Decision, Time: e.Time} },
		"allowed, bare":        func(e *Entry, t **Terms) { *t = &Terms{ID: "x", Kind: "jwt", NotBefore: e.Time, Expires: e.Time} },
	} {
		t.Run(name, func(t *testing.T) {
			e, terms := fullEntry()
			edit(e, &terms)
			body, at := appendEntry(nil, e, terms)
			if !strings.HasPrefix(string(body[at:]), recordedDigits) {
				t.Fatalf("the time of recording isn't where it is said to be: %s", body[at:])
			}
			copy(body[at:], "1764000000000")
			isCanonical(t, body)
		})
	}
}

func TestEntryText(t *testing.T) {
	e, terms := fullEntry()
	e.Input = text("branch", "main")
	body, _ := appendEntry(nil, e, terms)
	const want = `{"actor":"mira <m@acme.example>","attestation":{"age":90,"status":"spiffe-x509"},"broker":"v1",` +
		`"credential":{"audience":"aud","claims":{"act":"r"},"csr_hash":"ch","expires":1795515000,"id":"id","jkt":"jkt","key_hash":"kh","kind":"x509","names":["dns:a"],"not_before":1795514400,"scope":["a"],"scope_asked":["a","b"],"subject":"sub","ttl":600,"x5t":"x5t"},` +
		`"decision":"01KAV9J0000000000000000000","evidence_hash":"bb","grant":"deploy-production","input":{"branch":"main"},"input_hash":"6461b20cebcb7034bd8b13089d21a90cf5ce300bd7d74eb625c7a342cf6ccdac","issuer":"github","jti":"j-1","limits":{"ttl":"60"},"mode":"enforce","parent":"01KAV9HZZZ0000000000000000",` +
		`"policy":{"digest":"sha256:cc","package":"production","revision":"r1"},"recorded":0000000000000,"result":"allowed","spiffe_id":"spiffe://a/b","time":1795514400123,"token_hash":"aa","type":"decision","version":1}`
	if string(body) != want {
		t.Errorf("the entry is\n%s\nwant\n%s", body, want)
	}
}

func TestDecisionIDs(t *testing.T) {
	at := time.Date(2026, 11, 24, 10, 0, 0, 123_000_000, time.UTC)
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		when := at.Add(time.Duration(i) * time.Millisecond)
		id := NewDecision(when)
		back, ok := DecisionTime(id)
		if len(id) != 26 || !ok || !back.Equal(when) || id <= last || seen[id] {
			t.Fatalf("%q of %v gives %v", id, when, back)
		}
		seen[id], last = true, id
	}
	for _, bad := range []string{"", "x", strings.Repeat("U", 26), strings.Repeat("Z", 26), strings.Repeat("0", 27), "01kav9j0000000000000000000"} {
		if _, ok := DecisionTime(bad); ok {
			t.Errorf("%q was read as a decision's id", bad)
		}
	}
}

// An entry of the usual size is written in less than 10 microseconds and
// without a single allocation.
func TestSerialisingAllocatesNothing(t *testing.T) {
	e, terms := sampleEntry(), sampleTerms()
	buf := make([]byte, 0, 8<<10)
	if n := testing.AllocsPerRun(100, func() { appendEntry(buf, e, &terms) }); n > 0 {
		t.Errorf("an entry takes %v allocations", n)
	}
}
