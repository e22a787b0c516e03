package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

// appraise is the program that an operator puts on a machine to have it
// appraised: it asks the attestation verifier for a result over the nonce.
func appraise() {
	resp, err := http.Post(os.Getenv("APPRAISER")+"/ear?machine=enclave-7&nonce="+url.QueryEscape(os.Getenv("PROVISO_NONCE")), "text/plain", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(os.Stdout, resp.Body)
}

// attested is a fleet whose machines join by what they can show of themselves.
type attested struct {
	*ownFleet
	aws, gcp, azure *lab.Cloud
	tpm             *lab.TPM
	appraiser       *lab.Appraiser
	cluster         *lab.Key
}

const attestedSections = `trust_domain: {name: ci.acme.example}
fleet: {ttl: %[2]s, jwt_ttl: 30s, evidence: [aws, gcp, azure, kubernetes, tpm, attestation]}
runners:
  - {name: fleet, trust_domain: ci.acme.example, bundle: {own: true}, path: "/region/{region}/runner/{id}"}
  - {name: ec2, aws: {accounts: ["123456789012"], regions: {eu-central-1: eu.pem}}}
  - {name: gce, gcp: {projects: [acme-build], jwks_file: google.json}}
  - {name: vms, region: westeurope, azure: {subscriptions: [11111111-2222-3333-4444-555555555555], roots: roots.pem}}
  - {name: pods, region: build-1, kubernetes: {issuer: "https://cluster.acme.example", service_accounts: [ci/runner], jwks_file: cluster.json}}
  - {name: racks, region: cellar, tpm: {machines: machines.json}}
  - {name: tees, region: vault, attestation: {keys: appraiser.json, verifier: %[1]q}}
  - {name: images, region: floor, attestation: {format: in-toto, keys: appraiser.json, verifier: %[1]q, properties: [MEASURED_BOOT]}}
  - {name: github, platform: {issuer: github, environments: [self-hosted, hosted]}}
`

var (
	ec2 = lab.Machine{ID: "i-0123456789abcdef0", Owner: "123456789012", Zone: "eu-central-1a"}
	gce = lab.Machine{ID: "4520031799277581759", Owner: "acme-build", Zone: "europe-west3-a"}
	vm  = lab.Machine{ID: "8f1b0bb6-7d2c-4f5e-9d3a-0a1b2c3d4e5f", Owner: "11111111-2222-3333-4444-555555555555"}
)

func newAttestedFleet(t *testing.T, ttl string) *attested {
	t.Helper()
	a := &attested{ownFleet: &ownFleet{}, tpm: made(lab.NewTPM())(t), appraiser: made(lab.NewAppraiser(nil))(t), cluster: made(labKey())(t)}
	t.Cleanup(func() { _ = a.tpm.Close() })
	t.Cleanup(func() { _ = a.appraiser.Close() })
	for _, cloud := range []struct {
		of      **lab.Cloud
		machine lab.Machine
	}{{&a.aws, ec2}, {&a.gcp, gce}, {&a.azure, vm}} {
		cloud.machine.Launched = time.Now().Add(-time.Minute)
		made, err := lab.NewCloud(lab.CloudOptions{Machine: cloud.machine})
		noError(t, err)
		t.Cleanup(func() { _ = made.Close() })
		*cloud.of = made
	}
	a.site = newSite(t, plan{https: true, grants: ownGrants, sections: fmt.Sprintf(attestedSections, a.appraiser.URL(), ttl)})
	a.machine = a.dir
	for name, text := range map[string]string{"web.pem": string(a.web.PEM()), "eu.pem": string(made(a.aws.Region("eu-central-1"))(t).PEM()), "roots.pem": string(a.azure.Root().PEM()),
		"google.json": keySetOf(t, a.gcp.Google()), "cluster.json": keySetOf(t, a.cluster), "appraiser.json": keySetOf(t, a.appraiser.Key())} {
		a.write(name, text)
	}
	tpm := made(evidence.OpenTPM(a.tpm.Socket()))(t)
	a.write("machines.json", fmt.Sprintf(`[{"name": "builder-1", "ak": %q}]`, tpm.Key()))
	noError(t, tpm.Close())
	return a
}

// pod gives a projected token of a service account's pod.
func (a *attested) pod(account string) string {
	a.t.Helper()
	return made(a.cluster.Token(map[string]any{"iss": "https://cluster.acme.example", "aud": []string{a.url}, "sub": "system:serviceaccount:ci:" + account,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "kubernetes.io": map[string]any{"namespace": "ci",
			"serviceaccount": map[string]any{"name": account}, "pod": map[string]any{"name": "runner-0", "uid": "5b5b"}}}))(a.t)
}

// environment gives the variables by which a machine of a kind finds its evidence.
func (a *attested) environment() map[string][]string {
	a.t.Helper()
	return map[string][]string{
		"aws":        {evidence.MetadataVariable + "=" + a.aws.URL()},
		"gcp":        {evidence.MetadataVariable + "=" + a.gcp.URL()},
		"azure":      {evidence.MetadataVariable + "=" + a.azure.URL()},
		"kubernetes": {evidence.KubernetesVariable + "=" + a.write("pod.token", a.pod("runner")+"\n")},
		"tpm":        {evidence.TPMVariable + "=" + a.tpm.Socket()},
		"ear":        {evidence.AppraisalVariable + "=" + made(exec.LookPath("appraise"))(a.t), "APPRAISER=" + a.appraiser.URL()},
		"in-toto":    {evidence.AttestationVariable + "=" + a.write("statement.json", made(a.appraiser.Statement("runner-7", "MEASURED_BOOT"))(a.t))},
	}
}

// kindOf gives the kind of an environment's evidence.
func kindOf(name string) string {
	if name == "ear" || name == "in-toto" {
		return "attestation"
	}
	return name
}

// joining makes what an agent sends to join, for a key of its own.
func (a *attested) joining(t *testing.T, kind, broker string) map[string]string {
	t.Helper()
	csr, key := request(t)
	challenge := ""
	if evidence.NeedsChallenge(kind) {
		challenge = a.challenge(t)
	}
	named := made(jose.NewKey("", jose.ES256, key.Public()))(t)
	shown := made(evidence.Make(t.Context(), kind, broker, challenge, named.Thumbprint()))(t)
	return map[string]string{"kind": kind, "evidence": shown.Text, "csr": csr}
}

func (a *attested) challenge(t *testing.T) string {
	t.Helper()
	resp := made(a.client.Post(a.url+"/challenge", "", nil))(t)
	defer resp.Body.Close()
	doc := made(io.ReadAll(resp.Body))(t)
	_, rest, _ := strings.Cut(string(doc), `"attestation_challenge"`)
	return strings.Split(rest, `"`)[1]
}

// with gives a join with another member in the place of its own.
func with(body map[string]string, name, value string) map[string]string {
	out := map[string]string{}
	for n, v := range body {
		out[n] = v
	}
	out[name] = value
	return out
}

// No machine joins by evidence that isn't its own, isn't ours, or was shown before.
func TestWhatIsNoJoinByEvidence(t *testing.T) {
	a := newAttestedFleet(t, "1h")
	a.serve()
	for _, vars := range a.environment() {
		for _, v := range vars {
			name, value, _ := strings.Cut(v, "=")
			if name != evidence.MetadataVariable {
				t.Setenv(name, value)
			}
		}
	}
	of := func(cloud *lab.Cloud, machine lab.Machine) {
		t.Helper()
		t.Setenv(evidence.MetadataVariable, cloud.URL())
		machine.Launched = time.Now().Add(-time.Minute)
		cloud.Become(machine)
	}
	nobody := a.holding(nil)
	try := func(what string, body map[string]string, code proviso.Code) {
		t.Helper()
		status, answer := a.post(nobody, "/runner/join", body)
		if code == "" && status != 200 || code != "" && (status != 400 || answer.Code != code) {
			t.Errorf("%s: %d %+v, want %q", what, status, answer, code)
		}
		if code != "" && answer.Stage != string(proviso.StageRunner) {
			t.Errorf("%s: at stage %s", what, answer.Stage)
		}
	}
	other := func(m lab.Machine, owner string) lab.Machine { m.ID, m.Owner = m.ID[:len(m.ID)-1]+"9", owner; return m }
	anotherKey, _ := request(t)

	of(a.aws, other(ec2, "999999999999"))
	try("another account's document", a.joining(t, "aws", a.url), runner.CodeEvidencePin)
	of(a.aws, ec2)
	document := a.joining(t, "aws", a.url)
	try("a machine by its document", document, "")
	try("the same once more", document, fleet.CodeRunnerJoined)
	try("its document with another key", with(document, "csr", anotherKey), runner.CodeEvidenceKey)

	of(a.gcp, other(gce, "evil"))
	try("another project's token", a.joining(t, "gcp", a.url), runner.CodeEvidencePin)
	of(a.gcp, gce)
	try("a token for another broker", a.joining(t, "gcp", "https://other.example"), proviso.CodeAudMismatch)
	token := a.joining(t, "gcp", a.url)
	try("a machine by its token", token, "")
	try("a copy of its token, elsewhere", with(token, "csr", anotherKey), fleet.CodeRunnerJoined)
	try("a token as another kind", with(token, "kind", "kubernetes"), proviso.CodeIssuerUnknown)

	of(a.azure, other(vm, "99999999-2222-3333-4444-555555555555"))
	try("another subscription's document", a.joining(t, "azure", a.url), runner.CodeEvidencePin)
	of(a.azure, vm)
	captured := a.joining(t, "azure", a.url)
	try("a captured document, with another key", with(captured, "csr", anotherKey), runner.CodeNonceInvalid)
	try("a machine by its document", captured, "")
	try("the same once more", captured, runner.CodeNonceUsed)
	stale := strings.Replace(captured["evidence"], a.challengeIn(captured), strings.Repeat("A", len(a.challengeIn(captured))), 1)
	try("a document over nobody's challenge", with(captured, "evidence", stale), runner.CodeNonceInvalid)
	try("a document over another challenge", with(captured, "evidence", strings.Replace(captured["evidence"], a.challengeIn(captured), a.challenge(t), 1)), runner.CodeNonceInvalid)

	stranger := made(lab.NewTPM())(t)
	defer stranger.Close()
	quote := a.joining(t, "tpm", a.url)
	t.Setenv(evidence.TPMVariable, stranger.Socket())
	try("a TPM that nobody enrolled", a.joining(t, "tpm", a.url), runner.CodeEvidenceSigner)
	try("a captured quote, with another key", with(quote, "csr", anotherKey), runner.CodeNonceInvalid)
	try("a machine by its quote", quote, "")
	try("the same once more", quote, runner.CodeNonceUsed)

	t.Setenv(evidence.KubernetesVariable, a.write("other.token", a.pod("default")))
	try("another service account", a.joining(t, "kubernetes", a.url), runner.CodeEvidencePin)
	a.appraisals(t, try)
	try("the platform's word", with(token, "kind", "platform"), proviso.CodeTokenTypeUnsupported)
}

func (a *attested) challengeIn(body map[string]string) string {
	_, rest, _ := strings.Cut(body["evidence"], `"challenge":"`)
	return rest[:strings.IndexByte(rest, '"')]
}

// appraisals are refusals of an attestation verifier's results.
func (a *attested) appraisals(t *testing.T, try func(string, map[string]string, proviso.Code)) {
	t.Helper()
	result := a.joining(t, "attestation", a.url)
	anotherKey, _ := request(t)
	try("a result over this challenge, with another key", with(result, "csr", anotherKey), runner.CodeNonceInvalid)
	try("a machine by its result", result, "")
	try("the same once more", result, runner.CodeNonceUsed)
	liar := made(lab.NewAppraiser(nil))(t)
	defer liar.Close()
	for _, c := range []struct {
		name, text string
		code       proviso.Code
	}{
		{"a result over no challenge", made(a.appraiser.EAR("enclave-7", "", "affirming"))(t), runner.CodeNonceMissing},
		{"a warning", made(a.appraiser.EAR("enclave-7", "", "warning"))(t), runner.CodeEvidenceStatus},
		{"another verifier's result", made(liar.EAR("enclave-7", "", "affirming"))(t), proviso.CodeJWTUnknownKID},
		{"another verifier's statement", made(liar.Statement("runner-7", "MEASURED_BOOT"))(t), runner.CodeEvidenceSignature},
		{"a statement without the property", made(a.appraiser.Statement("runner-7"))(t), runner.CodeEvidenceStatus},
	} {
		try(c.name, with(result, "evidence", c.text), c.code)
	}
}

// machine is one whose agent joins by evidence.
type machine struct {
	*ownFleet
	id    string // the runner's SPIFFE ID
	agent *process
	first []byte // the agent's state after the join
}

func (m *machine) state() ([]byte, error) {
	return os.ReadFile(filepath.Join(m.machine, "state", "keys", "runner.pem"))
}

func (m *machine) joins() int { return strings.Count(m.agent.log.String(), `"msg":"joined"`) }

func (m *machine) order(do string) {
	m.t.Helper()
	name := m.id[strings.LastIndexByte(m.id, '/')+1:]
	if code, said := cli(m.t, "runner", do, name, "-c", m.file); code != exitDone {
		m.t.Fatalf("%s %s: %d: %s", do, m.id, code, said)
	}
}

// A machine joins by what it can show, and from then on is a runner like any
// other: its SVID is renewed, its jobs get theirs, it can be banned, and
// attested again.
func TestMachinesJoinByTheirEvidence(t *testing.T) {
	t.Parallel()
	a := newAttestedFleet(t, "20s")
	a.serve()
	var machines []*machine
	vars := a.environment()
	for name, id := range map[string]string{
		"aws": "eu-central-1/runner/" + ec2.ID, "gcp": "europe-west3/runner/" + gce.ID, "azure": "westeurope/runner/" + vm.ID,
		"kubernetes": "build-1/runner/ci.runner-0", "tpm": "cellar/runner/builder-1", "ear": "vault/runner/enclave-7", "in-toto": "floor/runner/runner-7",
	} {
		m := &machine{ownFleet: &ownFleet{site: a.site, machine: filepath.Join(a.dir, name)}, id: "spiffe://ci.acme.example/region/" + id}
		m.agent = m.launchAgent("evidence: {kind: "+kindOf(name)+"}", vars[name]...)
		machines = append(machines, m)
	}
	for _, m := range machines {
		m.waitForSVID()
		if svid := made(m.fetchX509())(t); svid.ID.String() != m.id+"/workload/ci" {
			t.Fatalf("%s: the workload is called %s", m.id, svid.ID)
		}
		m.first = made(m.state())(t)
		if code, said := m.exec("proviso"); code != 0 {
			t.Errorf("%s: a job on it: %d: %s", m.id, code, said)
		}
	}
	for _, m := range machines {
		eventually(t, m.id+" has another SVID", func() bool {
			now, err := m.state()
			return err == nil && !bytes.Equal(now, m.first)
		})
		if n := m.joins(); n != 1 {
			t.Errorf("%s joined %d times", m.id, n)
		}
	}
	for _, m := range machines {
		m.leavesAndComesBack()
	}
}

// leavesAndComesBack bans a machine that has joined, lifts the ban, and has the
// machine attested again.
func (m *machine) leavesAndComesBack() {
	t := m.t
	t.Helper()
	m.order("ban")
	if code, said := m.exec("proviso"); code != exitRefused {
		t.Errorf("%s: a job on a banned runner: %d: %s", m.id, code, said)
	}
	eventually(t, "the agent gives nothing out any more", func() bool {
		_, err := m.fetchX509()
		return status.Code(err) == codes.PermissionDenied
	})
	m.order("unban")
	eventually(t, m.id+" joins again by its evidence", func() bool { return m.joins() >= 2 })
	m.waitForSVID()
	held := made(workloadapi.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: m.url}, m.socket()))(t).Marshal()
	m.order("reattest")
	r := made(m.askWith(m.holding(nil), exchangeForm(m.token(lab.Job{}), "deploy", "actor_token", held, "actor_token_type", proviso.TokenTypeJWT)))(t)
	if r.granted != nil || !slices.Contains([]proviso.Code{fleet.CodeRunnerMustJoin, fleet.CodeRunnerSuperseded}, r.refused.Code) {
		t.Errorf("%s: what it held: %s", m.id, r)
	}
	m.hear()
	eventually(t, m.id+" is attested again", func() bool { return m.joins() >= 3 })
	m.waitForSVID()
	if code, said := m.exec("proviso"); code != 0 {
		t.Errorf("%s: a job on it afterwards: %d: %s\n%s", m.id, code, said, m.agent.log.String())
	}
	if strings.Contains(m.agent.log.String(), "eyJ") {
		t.Errorf("%s: a token is in the agent's log", m.id)
	}
}

// hear has the agent ask the broker for something that it doesn't have yet, so
// that it learns how its runner stands.
func (m *machine) hear() {
	_, _ = workloadapi.FetchJWTSVID(m.t.Context(), jwtsvid.Params{Audience: "https://other.example"}, m.socket()) // refused, or not
}

// AWS's document stays the same for a machine's life, so its key is what counts.
// A machine that kept its key joins again when its SVID has ended; one that lost
// it is let in again by one command, and nobody else is.
func TestAMachineThatLostItsKey(t *testing.T) {
	t.Parallel()
	a := newAttestedFleet(t, "5s")
	a.serve()
	env := a.environment()["aws"]
	a.machine = filepath.Join(a.dir, "ec2")
	const join = "evidence: {kind: aws}"
	keys := filepath.Join(a.machine, "state", "keys")
	again := func(lose func()) *process {
		t.Helper()
		lose()
		return a.launchAgent(join, env...)
	}
	stop := func(p *process) {
		t.Helper()
		p.signal(syscall.SIGTERM)
		if code := p.ended(30 * time.Second); code != exitDone {
			t.Fatalf("the agent ended with %d: %s", code, p.log.String())
		}
	}
	agent := again(func() {})
	a.waitForSVID()
	stop(agent)

	// Its SVID is lost, its key isn't: nobody has to do anything.
	agent = again(func() { noError(t, os.Remove(filepath.Join(keys, "runner.pem"))) })
	a.waitForSVID()
	stop(agent)

	// Its disk is new.
	agent = again(func() { noError(t, os.RemoveAll(keys)) })
	eventually(t, "the agent is told that the machine's key is another", func() bool { return strings.Contains(agent.log.String(), "evidence_key") })
	if code, said := cli(t, "runner", "reattest", ec2.ID, "--reason", "a new disk", "-c", a.file); code != exitDone || !strings.Contains(said, "has to join again, and may come with another key") {
		t.Errorf("%d: %s", code, said)
	}
	a.waitForSVID()

	// The permission is used up.
	thief := &ownFleet{site: a.site, machine: filepath.Join(a.dir, "thief")}
	robbed := thief.launchAgent(join, env...)
	eventually(t, "a copy of the document is refused", func() bool { return strings.Contains(robbed.log.String(), "evidence_key") })
	if svid, err := thief.fetchX509(); err == nil {
		t.Errorf("the thief is %s", svid.ID)
	}
	a.waitForSVID() // and the machine stays what it is
}

// A machine that shows its document with each job's request has a key, too, and
// needs no fleet to be allowed another one.
func TestAnotherKeyForAJobsMachine(t *testing.T) {
	k := newRacks(t)
	k.serve()
	k.job(t)
	machine := ec2
	machine.Launched = time.Now().Add(-time.Minute)
	k.cloud.Become(machine)
	ask := func(key string) (string, error) {
		k.job(t)
		return k.command("token", "--broker", k.url, "--grant", "any", "--evidence", "aws", "--machine-key", filepath.Join(k.dir, key))
	}
	for i, c := range []struct {
		key, says string // says of a refusal
	}{{"first", ""}, {"second", "proviso runner reattest"}, {"", ""}, {"second", ""}, {"first", "came with another key"}} {
		if c.key == "" {
			if code, said := cli(t, "runner", "reattest", "ec2/"+ec2.ID, "-c", k.file); code != exitDone || !strings.Contains(said, "ec2/"+ec2.ID+" may come with another key") {
				t.Errorf("%d: %s", code, said)
			}
			continue
		}
		said, err := ask(c.key)
		if (err == nil) != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("step %d, %s: %v %s", i, c.key, err, said)
		}
	}
}

// A join that has begun is counted among the requests that are worked on, and
// is finished before the broker ends.
func TestAJoinInFlightIsFinished(t *testing.T) {
	t.Parallel()
	asked, free := make(chan struct{}, 8), make(chan struct{})
	var keys, issuer string
	issuer = serveText(t, func(w http.ResponseWriter, r *http.Request) { // the cluster's, which takes its time
		asked <- struct{}{}
		select {
		case <-free:
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, keys)
	})
	key := made(labKey())(t)
	keys = keySetOf(t, key)
	f := &ownFleet{site: newSite(t, plan{https: true, grants: ownGrants, server: "drain: 30s", sections: `trust_domain: {name: ci.acme.example}
fleet: {evidence: [kubernetes]}
runners:
  - {name: fleet, trust_domain: ci.acme.example, bundle: {own: true}, path: "/region/{region}/runner/{id}"}
  - {name: pods, region: build-1, kubernetes: {issuer: "` + issuer + `", service_accounts: [ci/runner], jwks_url: "` + issuer + `/keys", allow_private: true}}
`})}
	p := f.spawn()
	token := made(key.Token(map[string]any{"iss": issuer, "aud": f.url, "sub": "system:serviceaccount:ci:runner", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": map[string]any{"name": "runner"}, "pod": map[string]any{"name": "p", "uid": "u"}}}))(t)
	csr, _ := request(t)
	client, joined := f.holding(nil), make(chan int, 1)
	go func() {
		code, answer := f.post(client, "/runner/join", map[string]string{"kind": "kubernetes", "evidence": token, "csr": csr})
		if code != 200 {
			t.Errorf("%d %+v", code, answer)
		}
		joined <- code
	}()
	<-asked
	eventually(t, "the join is counted", func() bool { return f.metric("proviso_exchanges_in_flight") == "1" })
	p.signal(syscall.SIGTERM)
	eventually(t, "the broker says that it drains", func() bool { code, _ := f.get("/readyz"); return code == 503 })
	close(free)
	<-joined
	if code := p.ended(20 * time.Second); code != exitDone {
		t.Errorf("the broker ended with %d: %s", code, p.log.String())
	}
}
