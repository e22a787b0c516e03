package runner_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

func attestationConfig(c runner.AttestationConfig) runner.Config {
	return runner.Config{Name: "tees", EvidenceConfig: runner.EvidenceConfig{Attestation: &c}}
}

func wrapped(t testing.TB, challenge, result string) string {
	t.Helper()
	return string(ok(json.Marshal(map[string]string{"challenge": challenge, "result": result}))(t))
}

func TestEAR(t *testing.T) {
	key := ok(lab.NewKey("ES256"))(t)
	e := newEvidence(t, attestationConfig(runner.AttestationConfig{Keys: keySet(t, key), Verifier: "https://verifier.acme.example"}))
	claims := func(challenge, thumbprint string) map[string]any {
		nonce := proviso.EvidenceNonce(broker, challenge, thumbprint)
		return map[string]any{"eat_profile": "tag:ietf.org,2026:rats/ear#03", "iat": frozen.Unix(), "sub": "enclave-7",
			"ear_verifier_id": map[string]any{"developer": "https://verifier.acme.example", "build": "1.0"},
			"eat_nonce":       base64.RawURLEncoding.EncodeToString(nonce[:]),
			"submods":         map[string]any{"cpu": map[string]any{"ear_status": "affirming"}, "kernel": map[string]any{"ear_status": "affirming"}}}
	}
	sign := func(c map[string]any) string { return ok(key.Token(c))(t) }
	challenge := e.challenge()
	good := claims(challenge, machineKey)
	r, err := e.show("attestation", wrapped(t, challenge, sign(good)), machineKey)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":4,"attestation":"attestation","attributes":{"verifier":"https://verifier.acme.example"},"bound":false,"environment":"self-hosted","id":"enclave-7"}`
	if got := r.Document().String(); got != want || !r.Expires().Equal(frozen.Add(10*time.Minute)) {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	_, err = e.show("attestation", wrapped(t, challenge, sign(good)), machineKey)
	wantRefusal(t, err, runner.CodeNonceUsed, "answered before")

	stranger := ok(lab.NewKey("ES256"))(t)
	fresh := func(edit func(map[string]any)) string {
		challenge := e.challenge()
		c := claims(challenge, "")
		edit(c)
		return wrapped(t, challenge, sign(c))
	}
	status := func(word any) func(map[string]any) {
		return func(c map[string]any) {
			c["submods"] = map[string]any{"cpu": map[string]any{"ear_status": "affirming"}, "kernel": map[string]any{"ear_status": word}}
		}
	}
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	e.refuses(t, "attestation", []refusal{
		{"a warning", fresh(status("warning")), "", runner.CodeEvidenceStatus, "warning"},
		{"contraindicated", fresh(status("contraindicated")), "", runner.CodeEvidenceStatus, "contraindicated"},
		{"none", fresh(status("none")), "", runner.CodeEvidenceStatus, "none"},
		{"a status that is a number", fresh(status(2)), "", runner.CodeEvidenceStatus, "nothing"},
		{"the older draft's name of it", fresh(set("submods", map[string]any{"cpu": map[string]any{"ear.status": "affirming"}})), "", runner.CodeEvidenceStatus, "cpu"},
		{"nothing appraised", fresh(set("submods", map[string]any{})), "", runner.CodeEvidenceMalformed, "submods"},
		{"another profile", fresh(set("eat_profile", "tag:github.com,2023:veraison/ear")), "", runner.CodeEvidenceMalformed, "eat_profile"},
		{"another verifier", fresh(set("ear_verifier_id", map[string]any{"developer": "https://evil.example"})), "", runner.CodeEvidenceSigner, "evil.example"},
		{"no nonce", fresh(set("eat_nonce", nil)), "", runner.CodeNonceInvalid, "not made over this challenge"},
		{"another nonce", fresh(set("eat_nonce", "AAAAAAAAAAAAAAAA")), "", runner.CodeNonceInvalid, "not made over this challenge"},
		{"no challenge", sign(claims("", "")), "", runner.CodeNonceMissing, "challenge"},
		{"bound to a key that isn't proved", fresh(set("cnf", map[string]any{"jkt": thiefKey})), "", runner.CodeEvidenceKey, "cnf"},
		{"bound to a key that can't be read", fresh(set("cnf", map[string]any{"kid": "1"})), "", runner.CodeEvidenceKey, "can't be read"},
		{"old", fresh(set("iat", frozen.Add(-10*time.Minute).Unix())), "", runner.CodeEvidenceStale, "10m0s ago"},
		{"expired", fresh(set("exp", frozen.Unix())), "", proviso.CodeTokenExpired, "expired"},
		{"no machine", fresh(set("sub", nil)), "", runner.CodeEvidenceMalformed, "sub"},
		{"a stranger's", wrapped(t, e.challenge(), ok(stranger.Token(claims("", "")))(t)), "", proviso.CodeJWTUnknownKID, "kid"},
		{"a member more", `{"challenge":"x","result":"y","z":"1"}`, "", runner.CodeEvidenceMalformed, "exactly the members"},
		{"wrapped twice", wrapped(t, e.challenge(), "{}"), "", runner.CodeEvidenceMalformed, "no JWT"},
	})
}

// A result that is bound to the machine's key needs no challenge; one that is
// bound to nothing works for whoever copies it, and says so.
func TestEARWithoutNonce(t *testing.T) {
	key := ok(lab.NewKey("ES256"))(t)
	machine := ok(lab.NewKey("ES256"))(t)
	e := newEvidence(t, attestationConfig(runner.AttestationConfig{Keys: keySet(t, key), Verifier: "veraison", Profile: "tag:github.com,2023:veraison/ear",
		Nonce: "optional", ID: "submods.vm.name"}))
	claims := map[string]any{"eat_profile": "tag:github.com,2023:veraison/ear", "iat": frozen.Unix(), "ear.verifier-id": map[string]any{"developer": "veraison"},
		"submods": map[string]any{"vm": map[string]any{"ear.status": "affirming", "name": "vm-1"}}}
	r, err := e.show("attestation", ok(key.Token(claims))(t), "")
	if err != nil || r.Assurance() != 2 || r.ID() != "vm-1" {
		t.Errorf("bound to nothing: %s, %v", r.Document(), err)
	}
	jwk := machine.JWK()
	required := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, jwk["x"], jwk["y"])
	sum := sha256.Sum256([]byte(required))
	claims["cnf"] = map[string]any{"jwk": jwk}
	r, err = e.show("attestation", ok(key.Token(claims))(t), base64.RawURLEncoding.EncodeToString(sum[:]))
	if err != nil || r.Assurance() != 4 {
		t.Errorf("bound to the machine's key: %s, %v", r.Document(), err)
	}
	_, err = e.show("attestation", ok(key.Token(claims))(t), thiefKey)
	wantRefusal(t, err, runner.CodeEvidenceKey, "doesn't prove that key")
	delete(claims, "cnf")
	claims["eat_nonce"] = "AAAAAAAAAAAAAAAA" // one that is there must be ours
	_, err = e.show("attestation", ok(key.Token(claims))(t), "")
	wantRefusal(t, err, runner.CodeNonceMissing, "challenge")
}

// dsse signs a statement as in-toto's tools do.
func dsse(t testing.TB, key *ecdsa.PrivateKey, kind string, statement any) string {
	t.Helper()
	payload, isBytes := statement.([]byte)
	if !isBytes {
		payload = ok(json.Marshal(statement))(t)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload))
	sig := ok(ecdsa.SignASN1(rand.Reader, key, sum[:]))(t)
	return string(ok(json.Marshal(map[string]any{"payloadType": kind, "payload": payload, "signatures": []any{map[string]any{"keyid": "anything", "sig": sig}}}))(t))
}

func TestInToto(t *testing.T) {
	const kind = "application/vnd.in-toto+json"
	key, stranger := ok(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), ok(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	point := ok(key.PublicKey.Bytes())(t)
	keys := write(t, "keys.json", ok(json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "v",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:])}}}))(t))
	e := newEvidence(t, attestationConfig(runner.AttestationConfig{Format: "in-toto", Keys: keys, Verifier: "https://verifier.acme.example",
		Properties: []string{"SLSA_BUILD_LEVEL_3"}, Resource: "pkg:oci/runner-image"}))
	predicate := map[string]any{"verifier": map[string]any{"id": "https://verifier.acme.example"}, "timeVerified": frozen.Add(-time.Minute).Format(time.RFC3339),
		"resourceUri": "pkg:oci/runner-image", "verificationResult": "PASSED", "verifiedLevels": []string{"SLSA_BUILD_LEVEL_3"}}
	good := map[string]any{"_type": "https://in-toto.io/Statement/v1", "subject": []any{map[string]any{"name": "runner-7", "digest": map[string]any{"sha256": "00"}}},
		"predicateType": "https://slsa.dev/verification_summary/v1", "predicate": predicate}
	r, err := e.show("attestation", dsse(t, key, kind, good), "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Assurance() != 2 || r.ID() != "runner-7" || !r.Expires().Equal(frozen.Add(9*time.Minute)) {
		t.Errorf("%s until %s", r.Document(), r.Expires())
	}
	says := func(name string, value any) string {
		return dsse(t, key, kind, with(good, "predicate", with(predicate, name, value)))
	}
	stale := frozen.Add(-10 * time.Minute).Format(time.RFC3339)
	e.refuses(t, "attestation", []refusal{
		{"failed", says("verificationResult", "FAILED"), "", runner.CodeEvidenceStatus, "FAILED"},
		{"no result", says("verificationResult", nil), "", runner.CodeEvidenceStatus, "PASSED"},
		{"a lower level", says("verifiedLevels", []string{"SLSA_BUILD_LEVEL_1"}), "", runner.CodeEvidenceStatus, "SLSA_BUILD_LEVEL_3"},
		{"another resource", says("resourceUri", "pkg:oci/other"), "", runner.CodeEvidencePin, "pkg:oci/other"},
		{"another verifier", says("verifier", map[string]any{"id": "https://evil.example"}), "", runner.CodeEvidenceSigner, "evil.example"},
		{"old", says("timeVerified", stale), "", runner.CodeEvidenceStale, "10m0s ago"},
		{"from the future", says("timeVerified", "2026-11-24T00:00:00Z"), "", runner.CodeEvidenceStale, "clocks"},
		{"no time", says("timeVerified", "yesterday"), "", runner.CodeEvidenceMalformed, "RFC 3339"},
		{"two subjects", dsse(t, key, kind, with(good, "subject", []any{map[string]any{"name": "a"}, map[string]any{"name": "b"}})), "", runner.CodeEvidenceMalformed, "exactly one"},
		{"another predicate", dsse(t, key, kind, with(good, "predicateType", "https://slsa.dev/provenance/v1")), "", runner.CodeEvidenceMalformed, "provenance"},
		{"a result that names no resource", dsse(t, key, kind, with(good, "predicateType", "https://in-toto.io/attestation/svr/v0.2")), "", runner.CodeEvidencePin, "no resource"},
		{"another statement", dsse(t, key, kind, with(good, "_type", "https://in-toto.io/Statement/v0.1")), "", runner.CodeEvidenceMalformed, "v0.1"},
		{"another payload", dsse(t, key, "application/json", good), "", runner.CodeEvidenceMalformed, "application/json"},
		{"a member twice", dsse(t, key, kind, []byte(`{"_type":"a","_type":"b"}`)), "", runner.CodeEvidenceMalformed, "one way only"},
		{"a stranger's", dsse(t, stranger, kind, good), "", runner.CodeEvidenceSignature, "no key"},
		{"unsigned", strings.Replace(dsse(t, key, kind, good), `"signatures":[`, `"signatures":[],"x":[`, 1), "", runner.CodeEvidenceMalformed, "0 signatures"},
		{"signed as another type", strings.Replace(dsse(t, key, "application/vnd.in-toto+jsom", good), "jsom", "json", 1), "", runner.CodeEvidenceSignature, "no key"},
		{"a JWT", "eyJhbGciOiJFUzI1NiJ9.e30.AA", "", runner.CodeEvidenceMalformed, "no DSSE"},
	})
	plain := newEvidence(t, attestationConfig(runner.AttestationConfig{Format: "in-toto", Keys: keys, Verifier: "https://verifier.acme.example", Properties: []string{"MEASURED_BOOT"}}))
	r, err = plain.show("attestation", dsse(t, key, kind, with(with(good, "predicateType", "https://in-toto.io/attestation/svr/v0.2"), "predicate",
		map[string]any{"verifier": map[string]any{"id": "https://verifier.acme.example"}, "timeCreated": frozen.Format(time.RFC3339), "properties": []string{"MEASURED_BOOT"}})), "")
	if err != nil || r.ID() != "runner-7" {
		t.Errorf("a simple verification result: %s, %v", r.Document(), err)
	}
}
