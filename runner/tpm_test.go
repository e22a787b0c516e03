package runner_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/proviso-ci/proviso"
	machine "github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

// newTPM starts a software TPM and gives its attestation key.
func newTPM(t testing.TB) (socket, key string) {
	t.Helper()
	soft := ok(lab.NewTPM())(t)
	t.Cleanup(func() { _ = soft.Close() })
	tpm := ok(machine.OpenTPM(soft.Socket()))(t)
	defer tpm.Close()
	return soft.Socket(), tpm.Key()
}

func quoteOf(t testing.TB, socket, challenge string, nonce [32]byte) string {
	t.Helper()
	tpm := ok(machine.OpenTPM(socket))(t)
	defer tpm.Close()
	return ok(tpm.Quote(challenge, nonce))(t)
}

func tpmConfig(t testing.TB, pcrs map[string][]string, machines ...map[string]any) runner.Config {
	return runner.Config{Name: "racks", EvidenceConfig: runner.EvidenceConfig{TPM: &runner.TPMConfig{
		Machines: write(t, "machines.json", ok(json.Marshal(machines))(t)), PCRs: pcrs}}}
}

const zeroPCR = "0000000000000000000000000000000000000000000000000000000000000000"

func TestTPM(t *testing.T) {
	socket, key := newTPM(t)
	other, otherKey := newTPM(t)
	machines := []map[string]any{{"name": "builder-1", "ak": key, "region": "rack-7", "attributes": map[string]string{"owner": "platform"}},
		{"name": "builder-2", "ak": otherKey, "pcrs": map[string][]string{"7": {strings.Repeat("ab", 32)}}}}
	e := newEvidence(t, tpmConfig(t, map[string][]string{"7": {strings.Repeat("11", 32), zeroPCR}}, machines...))
	fresh := func(socket, thumbprint string) string {
		challenge := e.challenge()
		return quoteOf(t, socket, challenge, proviso.EvidenceNonce(broker, challenge, thumbprint))
	}
	good := fresh(socket, machineKey)
	_, err := e.show("tpm", good, thiefKey)
	wantRefusal(t, err, runner.CodeNonceInvalid, "the key that the request proves", good)
	r, err := e.show("tpm", good, machineKey)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":4,"attestation":"tpm","attributes":{"owner":"platform"},"bound":false,"environment":"self-hosted","id":"builder-1","region":"rack-7"}`
	if got := r.Document().String(); got != want {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	_, err = e.show("tpm", good, machineKey)
	wantRefusal(t, err, runner.CodeNonceUsed, "answered before", good)
	_, err = e.show("tpm", fresh(other, ""), "")
	wantRefusal(t, err, runner.CodeEvidencePCR, "register 7")

	member := func(name string, value any) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(fresh(socket, "")), &m); err != nil {
			t.Fatal(err)
		}
		if value == nil {
			delete(m, name)
		} else {
			m[name] = value
		}
		return string(ok(json.Marshal(m))(t))
	}
	changed := func(name string, at int) string {
		var m map[string]any
		_ = json.Unmarshal([]byte(fresh(socket, "")), &m)
		b := ok(base64.StdEncoding.DecodeString(m[name].(string)))(t)
		b[(at+len(b))%len(b)] ^= 1
		m[name] = b
		return string(ok(json.Marshal(m))(t))
	}
	stranger, _ := newTPM(t)
	nonce := proviso.EvidenceNonce("https://other.example", "x", "")
	e.refuses(t, "tpm", []refusal{
		{"a TPM that isn't enrolled", fresh(stranger, ""), "", runner.CodeEvidenceSigner, "not enrolled"},
		{"another machine's name on it", member("ak", otherName(t, otherKey)), "", runner.CodeEvidenceSignature, "not the enrolled key's"},
		{"made for another broker", quoteOf(t, socket, e.challenge(), nonce), "", runner.CodeNonceInvalid, "for this broker"},
		{"no challenge", member("challenge", nil), "", runner.CodeNonceMissing, "challenge"},
		{"a challenge of one's own", member("challenge", strings.Repeat("A", 54)), "", runner.CodeNonceInvalid, "was not given out"},
		{"one bit of the quote changed", changed("quote", -1), "", runner.CodeEvidenceSignature, "not the enrolled key's"},
		{"one bit of the signature changed", changed("signature", -1), "", runner.CodeEvidenceSignature, "not the enrolled key's"},
		{"a signature of another algorithm", changed("signature", 1), "", runner.CodeEvidenceMalformed, "signature can't be read"},
		{"other registers than were quoted", member("pcrs", map[string]string{"7": zeroPCR}), "", runner.CodeEvidenceMalformed, "wasn't sent"},
		{"a register of one's own choice", member("pcrs", registersWith(t, socket, "9", strings.Repeat("ab", 32))), "", runner.CodeEvidencePCR, "not those that were quoted"},
		{"a register that there isn't", member("pcrs", map[string]string{"24": zeroPCR}), "", runner.CodeEvidenceMalformed, "0 to 23"},
		{"no quote", member("quote", nil), "", runner.CodeEvidenceMalformed, "missing"},
		{"a member more", member("extra", "x"), "", runner.CodeEvidenceMalformed, "extra"},
		{"a number", member("ak", 7), "", runner.CodeEvidenceMalformed, "another type"},
		{"a member twice", `{"ak":"a","ak":"b"}`, "", runner.CodeEvidenceMalformed, "one way only"},
		{"no JSON", "quote", "", runner.CodeEvidenceMalformed, "one way only"},
	})
	stale := fresh(socket, "")
	e.now = frozen.Add(2 * time.Minute)
	_, err = e.show("tpm", stale, "")
	wantRefusal(t, err, runner.CodeNonceExpired, "could be answered until")
}

// A machine that starts other software has other registers.
func TestTPMMeasuresTheMachine(t *testing.T) {
	socket, key := newTPM(t)
	e := newEvidence(t, tpmConfig(t, map[string][]string{"8": {zeroPCR}}, map[string]any{"name": "builder-1", "ak": key}))
	show := func() error {
		challenge := e.challenge()
		_, err := e.show("tpm", quoteOf(t, socket, challenge, proviso.EvidenceNonce(broker, challenge, "")), "")
		return err
	}
	if err := show(); err != nil {
		t.Fatal(err)
	}
	raw := ok(linuxudstpm.Open(socket))(t)
	sum := sha256.Sum256([]byte("another kernel"))
	_, err := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(8), Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]}}}}.Execute(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, show(), runner.CodeEvidencePCR, "started other software")
}

// Without registers in the configuration the quote says which machine it is.
func TestTPMWithoutPCRs(t *testing.T) {
	socket, key := newTPM(t)
	e := newEvidence(t, tpmConfig(t, nil, map[string]any{"name": "builder-1", "ak": key}))
	challenge := e.challenge()
	r, err := e.show("tpm", quoteOf(t, socket, challenge, proviso.EvidenceNonce(broker, challenge, "")), "")
	if err != nil || r.Assurance() != 3 {
		t.Errorf("%s, %v", r.Document(), err)
	}
}

// A key that would sign anything proves nothing, and isn't enrolled.
func TestTPMEnrolment(t *testing.T) {
	_, key := newTPM(t)
	area := ok(base64.StdEncoding.DecodeString(key))(t)
	loose := append([]byte(nil), area...)
	loose[5] &^= 1 // restricted is bit 16 of objectAttributes, after type and nameAlg
	good := map[string]any{"name": "b-1", "ak": key}
	for name, c := range map[string]struct {
		machines []map[string]any
		word     string
	}{
		"not restricted":     {[]map[string]any{{"name": "b-1", "ak": base64.StdEncoding.EncodeToString(loose)}}, "no attestation key"},
		"cut off":            {[]map[string]any{{"name": "b-1", "ak": base64.StdEncoding.EncodeToString(area[:40])}}, "not the public area"},
		"something after it": {[]map[string]any{{"name": "b-1", "ak": base64.StdEncoding.EncodeToString(append(area, 0))}}, "as a TPM writes it"},
		"no base64":          {[]map[string]any{{"name": "b-1", "ak": "!"}}, "base64"},
		"no name":            {[]map[string]any{{"ak": key}}, "needs a name"},
		"a name like a path": {[]map[string]any{{"name": "../b", "ak": key}}, "needs a name"},
		"the same key twice": {[]map[string]any{good, {"name": "b-2", "ak": key}}, "another machine's too"},
		"an unknown member":  {[]map[string]any{{"name": "b-1", "ak": key, "trusted": true}}, "no member"},
		"a bad register":     {[]map[string]any{{"name": "b-1", "ak": key, "pcrs": map[string][]string{"7": {"00"}}}}, "64 digits"},
		"nobody":             {[]map[string]any{}, "no list of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runner.New([]runner.Config{tpmConfig(t, nil, c.machines...)}, runner.Options{Audience: broker, Log: quiet})
			if err == nil || !strings.Contains(err.Error(), c.word) || !strings.Contains(err.Error(), "runners[0].tpm.machines") {
				t.Errorf("%v, want %q", err, c.word)
			}
		})
	}
}

func otherName(t testing.TB, key string) string {
	t.Helper()
	sum := sha256.Sum256(ok(base64.StdEncoding.DecodeString(key))(t))
	const hexDigits = "0123456789abcdef"
	out := []byte("000b")
	for _, b := range sum {
		out = append(out, hexDigits[b>>4], hexDigits[b&15])
	}
	return string(out)
}

func registersWith(t testing.TB, socket, number, value string) map[string]string {
	t.Helper()
	tpm := ok(machine.OpenTPM(socket))(t)
	defer tpm.Close()
	values := ok(tpm.Registers())(t)
	values[number] = value
	return values
}
