package runner

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"slices"
	"strconv"
	"time"

	"crypto"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// What an in-toto statement must say of itself.
const (
	inTotoPayload   = "application/vnd.in-toto+json"
	inTotoStatement = "https://in-toto.io/Statement/v1"
	predicateVSA    = "https://slsa.dev/verification_summary/v1"
	predicateSVR    = "https://in-toto.io/attestation/svr/v0.2"
)

const maxSignatures = 4

// inTotoKind takes in-toto statements in DSSE envelopes: who verified what of
// the machine that the statement's subject names. They have no nonce and no
// key, so a copy works until it is too old.
type inTotoKind struct {
	conf AttestationConfig
	entry
	keys []*jose.Key
	now  func() time.Time
}

func (k *inTotoKind) verify(_ context.Context, shown Shown) (Finding, error) {
	if shown.Text == "" || shown.Text[0] != '{' {
		return Finding{}, notHere(CodeEvidenceMalformed, "the attestation result is no DSSE envelope")
	}
	payload, err := k.open(shown.Text)
	if err != nil {
		return Finding{}, err
	}
	// Only what was signed is read from here on.
	doc, err := document.Parse(payload, document.Limits{Bytes: maxEvidence, Depth: 16, Members: 4096})
	if err != nil || doc.Kind() != document.Object {
		return Finding{}, refuse(CodeEvidenceMalformed, "the signed statement is no JSON object that can be read in one way only").Because(err)
	}
	id, made, err := k.admit(doc)
	if err != nil {
		return Finding{}, err
	}
	now := k.now()
	switch {
	case made.Sub(now) > skew:
		return Finding{}, refuse(CodeEvidenceStale, "the statement was made at %s, it is %s; check the clocks", stamp(made), stamp(now))
	case now.Sub(made) >= k.conf.MaxAge:
		return Finding{}, refuse(CodeEvidenceStale, "the statement was made %s ago, at most %s is taken here; have the machine verified anew", now.Sub(made).Round(time.Second), k.conf.MaxAge)
	}
	f, err := k.finding(id, "", map[string]string{"verifier": k.conf.Verifier})
	f.Assurance, f.Hash, f.Expires = 2, hashOf(string(payload)), made.Add(k.conf.MaxAge)
	return f, err
}

// open gives the bytes that a configured key has signed.
func (k *inTotoKind) open(envelope string) ([]byte, error) {
	doc, err := document.Parse([]byte(envelope), document.Limits{Bytes: maxEvidence, Depth: 4, Members: 64})
	if err != nil {
		return nil, refuse(CodeEvidenceMalformed, "the DSSE envelope can't be read: %v", err)
	}
	kind, _ := doc.Get("payloadType").Text()
	if kind == "" {
		return nil, notHere(CodeEvidenceMalformed, "the attestation result is no DSSE envelope")
	}
	if kind != inTotoPayload {
		return nil, refuse(CodeEvidenceMalformed, "the DSSE envelope holds %s; %s is expected", quoted(kind), inTotoPayload)
	}
	encoded, _ := doc.Get("payload").Text()
	payload, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(payload) == 0 {
		return nil, refuse(CodeEvidenceMalformed, "the DSSE envelope's payload is not canonical base64")
	}
	signatures := doc.Get("signatures").Items()
	if len(signatures) == 0 || len(signatures) > maxSignatures {
		return nil, refuse(CodeEvidenceMalformed, "the DSSE envelope has %d signatures; 1 to %d are expected", len(signatures), maxSignatures)
	}
	message := preAuthentication(kind, payload)
	for _, s := range signatures {
		encoded, _ := s.Get("sig").Text()
		sig, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil {
			return nil, refuse(CodeEvidenceMalformed, "a signature of the DSSE envelope is not canonical base64")
		}
		// The keyid is a hint that anybody can write: every key is tried.
		if slices.ContainsFunc(k.keys, func(key *jose.Key) bool { return signed(key, message, sig) }) {
			return payload, nil
		}
	}
	return nil, notHere(CodeEvidenceSignature, "no key of a configured verifier has signed the statement")
}

// preAuthentication is what DSSE signs: type and payload, each with its length
// before it, so that neither can be read as the other.
func preAuthentication(kind string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(kind)) + " " + kind + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// signed verifies a signature as DSSE's implementations make them.
func signed(key *jose.Key, message, sig []byte) bool {
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(public, message, sig)
	case *ecdsa.PublicKey:
		if public.Curve.Params().BitSize == 384 {
			sum := sha512.Sum384(message)
			return ecdsa.VerifyASN1(public, sum[:], sig)
		}
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(public, sum[:], sig)
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		return rsa.VerifyPSS(public, crypto.SHA256, sum[:], sig, nil) == nil
	}
	return false
}

// admit reads the statement: whose machine it is about, and when it was made.
func (k *inTotoKind) admit(doc document.Value) (id string, made time.Time, err error) {
	const what = "the statement"
	if kind, _ := doc.Get("_type").Text(); kind != inTotoStatement {
		return "", made, refuse(CodeEvidenceMalformed, "the signed payload is %s; %s is expected", quoted(kind), inTotoStatement)
	}
	subjects := doc.Get("subject").Items()
	if len(subjects) != 1 {
		return "", made, refuse(CodeEvidenceMalformed, "the statement is about %d subjects; exactly one machine is expected", len(subjects))
	}
	if id, err = text(subjects[0], what, "name"); err != nil {
		return "", made, err
	}
	predicate := doc.Get("predicate")
	if who, _ := predicate.At("verifier", "id").Text(); who != k.conf.Verifier {
		return "", made, notHere(CodeEvidenceSigner, "the statement is of the verifier %s, which is not the configured one", quoted(who))
	}
	when, has := "timeCreated", predicate.Get("properties")
	switch kind, _ := doc.Get("predicateType").Text(); kind {
	case predicateVSA:
		when, has = "timeVerified", predicate.Get("verifiedLevels")
		if result, _ := predicate.Get("verificationResult").Text(); result != "PASSED" {
			return "", made, refuse(CodeEvidenceStatus, "the verifier says %s; only PASSED is taken", quoted(result))
		}
		if about, _ := predicate.Get("resourceUri").Text(); k.conf.Resource != "" && about != k.conf.Resource {
			return "", made, refuse(CodeEvidencePin, "the statement is about the resource %s, which is not the configured one", quoted(about))
		}
	case predicateSVR:
		if k.conf.Resource != "" {
			return "", made, refuse(CodeEvidencePin, "the statement names no resource, and one is configured")
		}
	default:
		return "", made, refuse(CodeEvidenceMalformed, "the statement's predicate is %s; %s and %s are taken", quoted(kind), predicateVSA, predicateSVR)
	}
	for _, want := range k.conf.Properties {
		if !slices.ContainsFunc(has.Items(), func(v document.Value) bool { s, ok := v.Text(); return ok && s == want }) {
			return "", made, refuse(CodeEvidenceStatus, "the verifier does not say that the machine has the property %s", want)
		}
	}
	at, err := text(predicate, what, when)
	if err != nil {
		return "", made, err
	}
	if made, err = time.Parse(time.RFC3339, at); err != nil {
		return "", made, refuse(CodeEvidenceMalformed, "the statement's %s is no time of RFC 3339", when)
	}
	return id, made, nil
}

// readEvidence reads the object that carries evidence with its challenge:
// exactly the named members, all of them texts.
func readEvidence(raw string, names ...string) ([]string, error) {
	doc, err := document.Parse([]byte(raw), document.Limits{Bytes: maxEvidence, Depth: 3, Members: 64})
	if err != nil {
		return nil, refuse(CodeEvidenceMalformed, "the evidence can't be read: %v", err)
	}
	if doc.Kind() != document.Object || len(doc.Fields()) != len(names) {
		return nil, refuse(CodeEvidenceMalformed, "the evidence is a JSON object with exactly the members %v", names)
	}
	out := make([]string, len(names))
	for i, name := range names {
		if out[i], err = text(doc, "the evidence", name); err != nil {
			return nil, err
		}
	}
	return out, nil
}
