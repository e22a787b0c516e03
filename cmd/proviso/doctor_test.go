package main

import (
	"bytes"
	"os"
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
