package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/lab"
)

// examine runs doctor in this process and gives what it says.
func examine(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newDoctorCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// doctor says of other evidence by what it is verified and whether that is
// current, and with --runner what the broker would make of what the machine has.
func TestDoctorLooksAtOtherEvidence(t *testing.T) {
	k := newRacks(t)
	for _, name := range []string{"SPIFFE_ENDPOINT_SOCKET", "GITHUB_ACTIONS", "PROVISO_KUBERNETES_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("PROVISO_METADATA_URL", k.cloud.URL())
	says := func(what string, ends bool, args []string, lines ...string) {
		t.Helper()
		said, err := examine(t, append(args, "--config", k.file)...)
		if (err == nil) != ends {
			t.Errorf("%s: it ends with %v", what, err)
		}
		for _, line := range lines {
			if !strings.Contains(said, line) {
				t.Errorf("%s: it doesn't say %q:\n%s", what, line, said)
			}
		}
		if strings.Contains(said, "eyJ") || strings.Contains(said, "MII") {
			t.Errorf("%s: it prints evidence:\n%s", what, said)
		}
	}
	says("keys from files", true, nil, "ok     evidence ec2               aws: 1 account; eu-central-1 until ", "ok     evidence gce               gcp: 1 key of https://accounts.google.com, from a file",
		"azure: 1 subscription; 1 authority's certificate until ", "ok     evidence pods ", "tpm: 1 machine enrolled, 0 of them", "assurance 1")

	text := string(made(os.ReadFile(k.file))(t))
	old := made(lab.NewCloud(lab.CloudOptions{Now: func() time.Time { return time.Now().Add(-2 * 365 * 24 * time.Hour) }}))(t)
	defer old.Close()
	k.write("old.pem", string(made(old.Region("eu-central-1"))(t).PEM()))
	google := serveText(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, keySetOf(t, k.cloud.Google()))
	})
	k.write("proviso.yaml", strings.NewReplacer("eu.pem", "old.pem", "jwks_file: google.json", "jwks_url: \""+google+"\", allow_private: true",
		"https://cluster.acme.example", "http://127.0.0.1:1", "jwks_file: cluster.json", "allow_private: true").Replace(text))
	says("keys from the network", false, nil, "ok     evidence gce               gcp: 1 key of https://accounts.google.com\n", "WRONG  evidence ec2               eu-central-1: the certificate ", "get the current one",
		"WRONG  evidence pods ", "connection refused", "evidence that needs it would be refused", "2 of ")
	k.write("proviso.yaml", text)

	runner := []string{"--runner"}
	t.Setenv("PROVISO_TPM", k.tpm.Socket())
	says("an enrolled TPM", true, runner, "as tpm", "the runner builder-1 of racks, by tpm with assurance 3", "grant fresh would take it", "grant nobody would refuse it")
	stranger := made(lab.NewTPM())(t)
	defer stranger.Close()
	t.Setenv("PROVISO_TPM", stranger.Socket())
	says("another TPM", false, runner, "WRONG  as tpm", "refused (evidence_signer): ")
	t.Setenv("PROVISO_EVIDENCE", "aws")
	k.cloud.Become(lab.Machine{ID: "i-1", Owner: "123456789012", Zone: "eu-central-1a", Launched: time.Now().Add(-48 * time.Hour)})
	says("a machine without its key", false, runner, "refused (evidence_key): ")
	t.Setenv("PROVISO_MACHINE_KEY", filepath.Join(k.dir, "machine.key"))
	says("a key that isn't there", false, runner, "WRONG  machine's key", "no such file")
	_ = made(machineKey(filepath.Join(k.dir, "machine.key")))(t)
	says("a machine with a key", true, runner, "ok     as aws", "which key it came with first only the broker knows")
	k.cloud.Become(lab.Machine{ID: "i-1", Owner: "999999999999", Zone: "eu-central-1a", Launched: time.Now()})
	says("another account's machine", false, runner, "refused (evidence_not_ours): ", "999999999999")
}

// doctor --runner says in words what a broker would make of this machine's
// evidence: which runner it is, which grants would take it, and why not.
func TestDoctorExplainsARunner(t *testing.T) {
	y := newYard(t)
	dir := made(os.MkdirTemp("", "wl"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	agent := made(lab.NewSPIFFE("runners.acme.example", dir, lab.SPIFFEOptions{X509Life: time.Hour}))(t)
	t.Cleanup(func() { _ = agent.Close() })
	text := string(made(os.ReadFile(y.file))(t))
	y.write("proviso.yaml", strings.Replace(text, y.fleet.BundleFile(), agent.BundleFile(), 1))
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", agent.Socket())
	t.Setenv("GITHUB_ACTIONS", "")
	wants := func(what, said string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(said, line) {
				t.Errorf("%s: it doesn't say %q:\n%s", what, line, said)
			}
		}
		if strings.Contains(said, "eyJ") {
			t.Errorf("%s: it prints a token:\n%s", what, said)
		}
	}
	said, err := examine(t, "--runner", "--config", y.file)
	wants("an agent that knows nobody", said, "WRONG  runner's X.509-SVID", "register this runner's workload")
	if err == nil {
		t.Error("it ends well")
	}
	agent.Serve("/runner/one")
	said, err = examine(t, "--runner", "--config", y.file)
	wants("a good runner", said, "ok     runner's X.509-SVID        spiffe://runners.acme.example/runner/one, until ", "left), issued by",
		"as mutual TLS", "the runner one of fleet, by spiffe-x509 with assurance 3", "none runs here",
		"grant any would take it", "grant one would take it, with a job whose token comes over its connection", "grant own would take it", "as actor_token", "by spiffe-jwt with assurance 2",
		"grant one would refuse it: refused (runner_unbound): ")
	if err != nil {
		t.Errorf("it ends with %v", err)
	}
	agent.Serve("/database/one")
	said, err = examine(t, "--runner", "--config", y.file)
	wants("what is no runner", said, "WRONG  as mutual TLS", "refused (runner_path): ", "matches no template of a runner")
	if err == nil {
		t.Error("it ends well")
	}
	y.write("proviso.yaml", strings.ReplaceAll(text, "runners.acme.example", "elsewhere.example"))
	said, _ = examine(t, "--runner", "--config", y.file)
	wants("another trust domain", said, `refused (trust_domain_unknown): runners of the trust domain "runners.acme.example" are not known here`)
	down := strings.Replace(text, "bundle: {file: "+y.partner.BundleFile()+"}", "bundle: {url: https://127.0.0.1:1/bundle, profile: https_web, allow_private: true}", 1)
	y.write("proviso.yaml", down)
	said, err = examine(t, "--runner", "--config", y.file)
	wants("a bundle endpoint that is down", said, "WRONG  trust domain partner.example", "connection refused", "no SVID of this domain would be taken")
	if err == nil {
		t.Error("it ends well")
	}
}
