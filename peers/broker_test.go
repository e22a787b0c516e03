package peers

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/lab"
)

// broker is the real program with a configuration of its own, reached over TLS.
type broker struct {
	t       *testing.T
	bin     string
	dir     string
	url     string
	ca      string // file of the web's authority
	github  *lab.Issuer
	process *program
}

const brokerConfig = `server: {listen: "127.0.0.1:%[1]s", url: "https://127.0.0.1:%[1]s", tls: {cert: tls.crt, key: tls.key}}
store: data
issuers:
  - {name: github, platform: github, url: "%[2]s", require: {repository_owner_id: "61200123"}, tenant: acme, role: ci, events: [push], allow_private: true}
runners:
%[3]s
policy: {dir: policy, zone: UTC}
%[4]s
grants:
%[5]s`

// fleetGrants are open to the jobs of the fleet's runners.
const fleetGrants = `  deploy: {policy: fleet, runner: required, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}, max_ttl: 15m}
  short:  {policy: fleet, runner: required, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example"}, max_ttl: 3s}`

const fleetPolicy = `package fleet

allow if {
	input.identity.role == "ci"
	input.runner.region == "us-west-2"
}
`

// newBroker starts a broker. runners, sections and grants are YAML.
func newBroker(t *testing.T, runners, sections, grants string, files ...file) *broker {
	t.Helper()
	bin := os.Getenv("PROVISO_BINARY")
	if bin == "" {
		t.Fatal("PROVISO_BINARY names no proviso: run these tests with `make peers-test`")
	}
	b := &broker{t: t, bin: bin, dir: shortDir(t)}
	var err error
	b.github, err = lab.NewIssuer(lab.GitHub, lab.IssuerOptions{})
	must(t, err)
	t.Cleanup(func() { _ = b.github.Close() })
	web, err := lab.NewCA("the web's")
	must(t, err)
	b.ca = filepath.Join(b.dir, "web.pem")
	must(t, web.WriteFile(b.ca))
	cert, err := web.ServerCertificate()
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(t, err)
	port := freePort(t)
	b.url = "https://127.0.0.1:" + port
	b.write("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	b.write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	b.write("policy/fleet.rego", fleetPolicy)
	b.write("proviso.yaml", fmt.Sprintf(brokerConfig, port, b.github.URL(), runners, sections, grants))
	for _, f := range files {
		b.write(f.name, f.text)
	}
	b.start()
	return b
}

// file is a further file beside the configuration.
type file struct{ name, text string }

func withFile(name string, data []byte) file { return file{name, string(data)} }

func (b *broker) start() {
	b.t.Helper()
	cmd := exec.Command(b.bin, "serve", "--config", filepath.Join(b.dir, "proviso.yaml"))
	b.process = startProgram(b.t, cmd)
	await(b.t, "the broker", func() bool { return strings.Contains(b.process.output(), `"msg":"serving"`) }, b.process)
}

func (b *broker) write(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	must(b.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(b.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// job prepares `proviso` as a step of a GitHub job on a machine whose Workload
// API is at socket.
func (b *broker) job(socket string, args ...string) *exec.Cmd {
	b.t.Helper()
	run := b.github.Start(lab.Job{})
	b.t.Cleanup(run.End)
	env, err := run.Environment(b.url)
	must(b.t, err)
	cmd := exec.Command(b.bin, append(args[:1:1], append([]string{"--broker", b.url, "--ca", b.ca}, args[1:]...)...)...)
	cmd.Env = append(append(os.Environ(), env...), "SPIFFE_ENDPOINT_SOCKET="+socket)
	return cmd
}

// exchange gets one credential for a job, and gives both outputs.
func (b *broker) exchange(socket, grant, runner string) (stdout, stderr string, err error) {
	b.t.Helper()
	cmd := b.job(socket, "exec", "--grant", grant, "--runner", runner, "--", "sh", "-c", `printf %s "$PROVISO_TOKEN"`)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// granted wants a credential, and gives its claims.
func (b *broker) granted(socket, grant, runner string) map[string]any {
	b.t.Helper()
	token, messages, err := b.exchange(socket, grant, runner)
	if err != nil {
		b.t.Fatalf("exec --grant %s --runner %s: %v\n%s\nthe broker says:\n%s", grant, runner, err, messages, b.process.output())
	}
	return claimsOf(b.t, token)
}

// refused wants a refusal that says what.
func (b *broker) refused(socket, grant, runner, what string) {
	b.t.Helper()
	token, messages, err := b.exchange(socket, grant, runner)
	if err == nil {
		b.t.Fatalf("exec --grant %s --runner %s got a credential: %v", grant, runner, claimsOf(b.t, token))
	}
	if !strings.Contains(messages, what) {
		b.t.Errorf("the refusal doesn't say %q:\n%s", what, messages)
	}
}

// entries reads the record with the program that reads it for people.
func (b *broker) entries(args ...string) string {
	b.t.Helper()
	out, err := exec.Command(b.bin, append([]string{"audit"}, args...)...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("proviso audit %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// evidence lists the hashes of the runner's evidence in the record.
func (b *broker) evidence() []string {
	b.t.Helper()
	var hashes []string
	for line := range strings.Lines(b.entries("search", "--store", filepath.Join(b.dir, "data"), "--result", "allowed", "--output", "json")) {
		var e struct {
			Hash string `json:"evidence_hash"`
		}
		must(b.t, json.Unmarshal([]byte(line), &e))
		if e.Hash != "" && !slices.Contains(hashes, e.Hash) {
			hashes = append(hashes, e.Hash)
		}
	}
	return hashes
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("this is no token: %q", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var claims map[string]any
	must(t, json.Unmarshal(data, &claims))
	return claims
}
