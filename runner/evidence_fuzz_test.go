package runner_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/proviso-ci/proviso"
	machine "github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

// What our reader of PKCS#7 takes, a library reads in the same way: ours is the
// stricter of two readings, never another one.
func FuzzCMS(f *testing.F) {
	s := ok(lab.NewCloudSigner("signer", nil, frozen, false))(f)
	for _, how := range []lab.CMS{{}, {Definite: true}, {Plain: true}, {Trailing: []byte{0}}, {SignedTwice: true}, {WrongOrder: true}, {DigestIsSignature: true, Definite: true}} {
		how.Time = frozen
		text := ok(how.Sign([]byte(`{"accountId":"123456789012"}`), s.Key, s.Certificate))(f)
		f.Add(ok(base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", "")))(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		content, err := runner.ReadCMS(data)
		if err != nil {
			return
		}
		if other, err := pkcs7.Parse(data); err == nil && string(other.Content) != string(content) {
			t.Fatalf("the library reads %q, ours %q", other.Content, content)
		}
	})
}

// The library agrees with our reader on what a cloud sends.
func TestCMSAgreesWithALibrary(t *testing.T) {
	s := ok(lab.NewCloudSigner("signer", nil, frozen, false))(t)
	for _, how := range []lab.CMS{{}, {Definite: true}, {Plain: true}} {
		how.Time = frozen
		text := ok(how.Sign([]byte("content"), s.Key, s.Certificate))(t)
		data := ok(base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", "")))(t)
		content, err := runner.VerifyCMS(data, s.Certificate)
		if err != nil || string(content) != "content" {
			t.Errorf("%+v: %q, %v", how, content, err)
		}
		other := ok(pkcs7.Parse(data))(t)
		other.Certificates = append(other.Certificates, s.Certificate)
		if err := other.Verify(); err != nil {
			t.Errorf("%+v: the library: %v", how, err)
		}
	}
	// What the library lets through, and ours doesn't: attributes that are signed
	// in another order than DER's are not the bytes that DER would make of them.
	for name, how := range map[string]lab.CMS{"bytes after it": {Trailing: []byte{1, 2, 3}}, "two signers": {SignedTwice: true}, "SHA-1": {SHA1: true}} {
		how.Time = frozen
		text := ok(how.Sign([]byte("content"), s.Key, s.Certificate))(t)
		if _, err := runner.VerifyCMS(ok(base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", "")))(t), s.Certificate); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// No evidence of a stranger is ever believed, or breaks its reader.
func FuzzEvidence(f *testing.F) {
	c := newCloud(f, ec2)
	key := ok(lab.NewKey("ES256"))(f)
	soft := ok(lab.NewTPM())(f)
	defer soft.Close()
	tpm := ok(machine.OpenTPM(soft.Socket()))(f)
	e := newEvidence(f, awsConfig(f, c, "eu-central-1"), azureConfig(f, c),
		runner.Config{Name: "gce", EvidenceConfig: runner.EvidenceConfig{GCP: &runner.GCPConfig{Projects: []string{"p"}, KeySource: runner.KeySource{JWKSFile: keySet(f, c.Google())}}}},
		attestationConfig(runner.AttestationConfig{Keys: keySet(f, key), Verifier: "v"}),
		tpmConfig(f, nil, map[string]any{"name": "b", "ak": tpm.Key()}))
	challenge := e.challenge()
	quote := ok(tpm.Quote(challenge, proviso.EvidenceNonce(broker, "another challenge", "")))(f)
	if err := tpm.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add("tpm", quote)
	f.Add("azure", azureEvidence(f, challenge, "MIIB"))
	f.Add("attestation", `{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"sig":"AA=="}]}`)
	f.Add("attestation", ok(key.Token(map[string]any{"iat": frozen.Unix(), "eat_profile": "x"}))(f))
	f.Add("gcp", ok(c.GCP(map[string]any{"iss": "https://accounts.google.com"}))(f))
	f.Add("aws", string(ok(json.Marshal("x"))(f)))
	f.Fuzz(func(t *testing.T, kind, text string) {
		if r, err := e.show(kind, text, machineKey); err == nil {
			t.Fatalf("believed: %s", r.Document())
		}
	})
}

// A TPM's structures come from a stranger, signed or not.
func FuzzTPMStructures(f *testing.F) {
	soft := ok(lab.NewTPM())(f)
	defer soft.Close()
	tpm := ok(machine.OpenTPM(soft.Socket()))(f)
	var q struct{ Quote, Signature []byte }
	if err := json.Unmarshal([]byte(ok(tpm.Quote("x", [32]byte{}))(f)), &q); err != nil {
		f.Fatal(err)
	}
	f.Add(q.Quote)
	f.Add(q.Signature)
	f.Add(ok(base64.StdEncoding.DecodeString(tpm.Key()))(f))
	if err := tpm.Close(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, data []byte) { runner.ReadTPM(data) })
}
