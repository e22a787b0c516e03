package lab

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Appraiser is an attestation verifier (RFC 9334) that believes whatever machine
// asks it: it signs attestation results (EAR) over the nonce that it is given,
// and in-toto statements.
type Appraiser struct {
	*server
	key *Key
	now func() time.Time
}

// NewAppraiser starts a verifier, which gives results at POST /ear?machine=&nonce=.
// now is its clock; nil is time.Now.
func NewAppraiser(now func() time.Time) (*Appraiser, error) {
	if now == nil {
		now = time.Now
	}
	key, err := NewKey("ES256")
	if err != nil {
		return nil, err
	}
	a := &Appraiser{key: key, now: now}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ear", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		text, err := a.EAR(q.Get("machine"), q.Get("nonce"), "affirming")
		answerText(w, text, err)
	})
	a.server, err = serve(mux, nil)
	return a, err
}

// URL is what the verifier calls itself, and where it answers.
func (a *Appraiser) URL() string { return a.url }

// Key is what it signs with.
func (a *Appraiser) Key() *Key { return a.key }

// EAR gives a result for a machine. nonce is as eat_nonce wants it, "" for none.
func (a *Appraiser) EAR(machine, nonce, status string) (string, error) {
	claims := map[string]any{"eat_profile": "tag:ietf.org,2026:rats/ear#03", "iat": a.now().Unix(), "sub": machine,
		"ear_verifier_id": map[string]any{"developer": a.url, "build": "lab"},
		"submods":         map[string]any{"kernel": map[string]any{"ear_status": status}}}
	if nonce != "" {
		claims["eat_nonce"] = nonce
	}
	return a.key.Token(claims)
}

// Statement gives a simple verification result of in-toto for a machine, in a
// DSSE envelope.
func (a *Appraiser) Statement(machine string, properties ...string) (string, error) {
	const kind = "application/vnd.in-toto+json"
	payload, err := json.Marshal(map[string]any{"_type": "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"name": machine, "digest": map[string]any{"sha256": "00"}}},
		"predicateType": "https://in-toto.io/attestation/svr/v0.2",
		"predicate": map[string]any{"verifier": map[string]any{"id": a.url}, "timeCreated": a.now().UTC().Format(time.RFC3339),
			"properties": properties}})
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	sig, err := a.key.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	envelope, err := json.Marshal(map[string]any{"payloadType": kind, "payload": payload,
		"signatures": []any{map[string]any{"keyid": a.key.ID, "sig": sig}}})
	return string(envelope), err
}
