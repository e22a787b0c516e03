package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

const evidenceGrants = `  any:    {policy: open, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  fresh:  {policy: open, assurance: 3, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  word:   {policy: open, assurance: 1, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  nobody: {policy: open, runner: none, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
`

// racks is a site whose runners prove themselves without SPIFFE.
type racks struct {
	*site
	cloud *lab.Cloud
	tpm   *lab.TPM
	keys  *lab.Key // of the cluster
}

func newRacks(t *testing.T) *racks {
	t.Helper()
	k := &racks{cloud: made(lab.NewCloud(lab.CloudOptions{}))(t), tpm: made(lab.NewTPM())(t), keys: made(labKey())(t)}
	t.Cleanup(func() { _ = k.cloud.Close() })
	t.Cleanup(func() { _ = k.tpm.Close() })
	k.site = newSite(t, plan{grants: evidenceGrants, sections: `runners:
  - {name: ec2, aws: {accounts: ["123456789012"], regions: {eu-central-1: eu.pem}}}
  - {name: gce, gcp: {projects: [acme-build], jwks_file: google.json}}
  - {name: vms, azure: {subscriptions: [11111111-2222-3333-4444-555555555555], roots: roots.pem}}
  - {name: pods, kubernetes: {issuer: "https://cluster.acme.example", service_accounts: [ci/runner], jwks_file: cluster.json}}
  - {name: racks, tpm: {machines: machines.json}}
  - {name: github, platform: {issuer: github, environments: [self-hosted, hosted]}}`})
	k.write("eu.pem", string(made(k.cloud.Region("eu-central-1"))(t).PEM()))
	k.write("roots.pem", string(k.cloud.Root().PEM()))
	k.write("google.json", keySetOf(t, k.cloud.Google()))
	k.write("cluster.json", keySetOf(t, k.keys))
	said, err := k.command("runner", "enroll", "--name", "builder-1", "--tpm", k.tpm.Socket())
	noError(t, err)
	k.write("machines.json", "["+said+"]")
	return k
}

func keySetOf(t *testing.T, key *lab.Key) string {
	return string(made(json.Marshal(map[string]any{"keys": []any{key.JWK()}}))(t))
}

// command runs a command of the program, and gives what it prints.
func (k *racks) command(args ...string) (string, error) {
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.Execute()
	return out.String(), err
}

// job sets the variables that a job finds on its platform.
func (k *racks) job(t *testing.T) {
	t.Helper()
	run := k.github.Start(lab.Job{})
	for _, v := range made(run.Environment(k.url))(t) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("PROVISO_METADATA_URL", k.cloud.URL())
	t.Setenv("PROVISO_TPM", k.tpm.Socket())
}

// Every kind of evidence that a machine can get by itself buys a credential by
// one flag, against a real broker, real sockets and a software TPM.
func TestMachinesShowTheirOwnEvidence(t *testing.T) {
	k := newRacks(t)
	k.serve()
	k.job(t)
	pod := map[string]any{"iss": "https://cluster.acme.example", "aud": []string{k.url}, "sub": "system:serviceaccount:ci:runner",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "kubernetes.io": map[string]any{"namespace": "ci",
			"serviceaccount": map[string]any{"name": "runner"}, "pod": map[string]any{"name": "runner-0", "uid": "5b5b"}}}
	t.Setenv("PROVISO_KUBERNETES_TOKEN", k.write("pod.token", made(k.keys.Token(pod))(t)+"\n"))
	key := filepath.Join(k.dir, "machine.key")
	ec2 := lab.Machine{ID: "i-0123456789abcdef0", Owner: "123456789012", Zone: "eu-central-1a", Launched: time.Now().Add(-time.Minute)}
	vm := lab.Machine{ID: "8f1b0bb6-7d2c-4f5e-9d3a-0a1b2c3d4e5f", Owner: "11111111-2222-3333-4444-555555555555"}
	for _, c := range []struct {
		name    string
		machine lab.Machine
		args    []string
		says    string // in what is printed, of a refusal; "" is a credential
	}{
		{"aws with the machine's key", ec2, []string{"--evidence", "aws", "--machine-key", key}, ""},
		{"aws again, with the same key", ec2, []string{"--evidence", "aws", "--machine-key", key}, ""},
		{"aws, the document on another machine", ec2, []string{"--evidence", "aws", "--machine-key", filepath.Join(k.dir, "thief.key")}, "another key before"},
		{"aws, another account", lab.Machine{ID: "i-1", Owner: "999999999999", Zone: "eu-central-1a", Launched: time.Now()}, []string{"--evidence", "aws", "--machine-key", key}, "999999999999"},
		{"gcp", lab.Machine{ID: "4520031799277581759", Owner: "acme-build", Zone: "europe-west3-a"}, []string{"--evidence", "gcp"}, ""},
		{"gcp, another project", lab.Machine{ID: "4520031799277581759", Owner: "evil", Zone: "europe-west3-a"}, []string{"--evidence", "gcp"}, "evil"},
		{"gcp is no fresh proof", lab.Machine{ID: "4520031799277581759", Owner: "acme-build", Zone: "europe-west3-a"}, []string{"--evidence", "gcp", "--grant", "fresh"}, "assurance 3 or more"},
		{"azure", vm, []string{"--evidence", "azure"}, ""},
		{"azure over a challenge is fresh", vm, []string{"--evidence", "azure", "--grant", "fresh", "--machine-key", key}, ""},
		{"kubernetes", vm, []string{"--evidence", "kubernetes"}, ""},
		{"tpm", vm, []string{"--evidence", "tpm", "--grant", "fresh"}, ""},
		{"whatever there is", vm, []string{"--evidence", "auto", "--grant", "fresh"}, ""},
		{"nothing, and the platform's word is no proof", vm, nil, "assurance 2 or more"},
		{"nothing, where the platform's word counts", vm, []string{"--grant", "word"}, ""},
		{"nothing, where no evidence is wanted", vm, []string{"--grant", "nobody"}, ""},
		{"evidence, where none is wanted", vm, []string{"--evidence", "tpm", "--grant", "nobody"}, "takes no runner's evidence"},
		{"aws without a key", vm, []string{"--evidence", "aws"}, "--machine-key"},
		{"a kind that there isn't", vm, []string{"--evidence", "quantum"}, "write auto, tpm"},
		{"two kinds of proof", vm, []string{"--evidence", "tpm", "--runner", "jwt"}, "leave one of them out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.job(t)
			k.cloud.Become(c.machine)
			args := append([]string{"token", "--broker", k.url, "--grant", "any"}, c.args...)
			said, err := k.command(args...)
			if err != nil {
				said += err.Error()
			}
			if (err == nil) != (c.says == "") || !strings.Contains(said, c.says) {
				t.Errorf("%v: %s", err, said)
			}
			if c.says == "" && !strings.Contains(said, "granted until") {
				t.Errorf("no credential: %s", said)
			}
		})
	}
	info := made(os.Stat(key))(t)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the machine's key has the mode %04o", info.Mode().Perm())
	}
}

// A command learns where the machine's key lies only if it is to use it, and
// there is no copy of it.
func TestAMachinesKeyStaysWhereItIs(t *testing.T) {
	k := newRacks(t)
	k.serve()
	key := filepath.Join(k.dir, "machine.key")
	for _, c := range []struct{ name, flag, prints, says string }{
		{"a command that isn't to use it", "", "key=.\n", "which CMD is not given"},
		{"a command that is", "--dpop", "key=" + key + ".\n", "granted"},
	} {
		k.job(t)
		args := []string{"exec", "--broker", k.url, "--grant", "fresh", "--evidence", "tpm", "--machine-key", key}
		if c.flag != "" {
			args = append(args, c.flag)
		}
		var stderr bytes.Buffer
		cmd := exec.Command("proviso", append(args, "--", "sh", "-c", `echo "key=$PROVISO_DPOP_KEY_FILE."; test -n "$PROVISO_TOKEN"`)...)
		cmd.Env, cmd.Stderr = append(os.Environ(), "XDG_RUNTIME_DIR="+k.dir), &stderr
		out, err := cmd.Output()
		if err != nil || string(out) != c.prints || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: %v: %s%s", c.name, err, out, stderr.String())
		}
	}
	if _, err := os.Stat(key); err != nil {
		t.Errorf("the machine's key is gone: %v", err)
	}
}

// The door names each kind's refusal with stage "runner", and publishes where
// challenges come from.
func TestEvidenceAtTheDoor(t *testing.T) {
	k := newRacks(t)
	k.serve()
	get := func(path string) (int, string) {
		resp := made(k.client.Get(k.url + path))(t)
		defer resp.Body.Close()
		return resp.StatusCode, string(made(io.ReadAll(resp.Body))(t))
	}
	if status, body := get("/.well-known/oauth-authorization-server"); status != 200 || !strings.Contains(body, `"challenge_endpoint": "`+k.url+`/challenge"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get("/challenge"); status != 405 {
		t.Errorf("a challenge by GET: %d", status)
	}
	document := made(k.cloud.AWS(k.cloud.AWSClaims(lab.Machine{ID: "i-1", Owner: "123456789012", Zone: "eu-central-1a", Launched: time.Now()}), lab.CMS{}))(t)
	for _, c := range []struct {
		name, kind, text string
		code             proviso.Code
	}{
		{"a captured document, without a key", proviso.TokenTypeAWS, document, runner.CodeEvidenceKey},
		{"a document as another kind", proviso.TokenTypeGCP, document, proviso.CodeJWTMalformed},
		{"rubbish", proviso.TokenTypeTPM, "{}", runner.CodeEvidenceMalformed},
		{"a kind that isn't configured", proviso.TokenTypeEvidence, "x", proviso.CodeTokenTypeUnsupported},
	} {
		r := k.ask(exchangeForm(k.token(lab.Job{}), "any", "actor_token", c.text, "actor_token_type", c.kind))
		if r.granted != nil || r.refused.Code != c.code || r.refused.Stage != proviso.StageRunner {
			t.Errorf("%s: %s, want %s", c.name, r, c.code)
		}
	}
}
