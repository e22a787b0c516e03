package runner_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
	"github.com/proviso-ci/proviso/store"
)

// evidence is a verifier with one entry of a further kind, and a clock.
type evidence struct {
	*runner.Verifier
	t   testing.TB
	now time.Time
}

func newEvidence(t testing.TB, configs ...runner.Config) *evidence {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	e := &evidence{t: t, now: frozen}
	e.Verifier, err = runner.New(configs, runner.Options{Audience: broker, Now: func() time.Time { return e.now }, Log: quiet, Store: db})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func (e *evidence) show(kind, text, key string) (runner.Runner, error) {
	return e.Attest(context.Background(), kind, text, key)
}

func (e *evidence) challenge() string {
	nonce, _ := e.Challenge()
	return nonce
}

func newCloud(t testing.TB, m lab.Machine) *lab.Cloud {
	t.Helper()
	c, err := lab.NewCloud(lab.CloudOptions{Machine: m, Now: func() time.Time { return frozen }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keySet(t testing.TB, keys ...*lab.Key) string {
	t.Helper()
	var list []any
	for _, k := range keys {
		list = append(list, k.JWK())
	}
	data, err := json.Marshal(map[string]any{"keys": list})
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "jwks.json", data)
}

func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Thumbprints of keys that a request proves.
var machineKey, thiefKey = thumbprint("machine"), thumbprint("thief")

func thumbprint(of string) string {
	sum := sha256.Sum256([]byte(of))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// refusal is one way in which evidence can be bad.
type refusal struct {
	name, text, key string
	code            proviso.Code
	word            string
}

func (e *evidence) refuses(t *testing.T, kind string, cases []refusal) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := e.show(kind, c.text, c.key)
			wantRefusal(t, err, c.code, c.word, c.text)
		})
	}
}

// with gives a copy of claims with one changed; nil removes it.
func with(claims map[string]any, name string, value any) map[string]any {
	out := maps.Clone(claims)
	if value == nil {
		delete(out, name)
	} else {
		out[name] = value
	}
	return out
}

var ec2 = lab.Machine{ID: "i-0123456789abcdef0", Owner: "123456789012", Zone: "eu-central-1a", Launched: frozen.Add(-2 * time.Minute)}

func awsConfig(t testing.TB, c *lab.Cloud, regions ...string) runner.Config {
	files := map[string]string{}
	for _, r := range regions {
		files[r] = write(t, r+".pem", ok(c.Region(r))(t).PEM())
	}
	return runner.Config{Name: "builders", EvidenceConfig: runner.EvidenceConfig{AWS: &runner.AWSConfig{Accounts: []string{ec2.Owner}, Regions: files}}}
}

func TestAWSRefused(t *testing.T) {
	c := newCloud(t, ec2)
	e := newEvidence(t, awsConfig(t, c, "eu-central-1", "us-west-2"))
	good := c.AWSClaims(ec2)
	doc := func(claims map[string]any, how lab.CMS) string { return ok(c.AWS(claims, how))(t) }
	stranger := newCloud(t, ec2) // whoever makes certificates with the same names
	twice := func() string {
		s := ok(c.Region("eu-central-1"))(t)
		return ok(lab.CMS{}.Sign([]byte(`{"accountId":"999999999999","accountId":"123456789012"}`), s.Key, s.Certificate))(t)
	}
	otherRegion := func() string { // genuine, and of another region's signer
		s := ok(c.Region("us-west-2"))(t)
		content := ok(json.Marshal(good))(t)
		return ok(lab.CMS{}.Sign(content, s.Key, s.Certificate))(t)
	}
	whole := doc(good, lab.CMS{})
	other := ok(json.Marshal(with(good, "instanceId", "i-0fffffffffffffff0")))(t)
	e.refuses(t, "aws", []refusal{
		{"no key", whole, "", runner.CodeEvidenceKey, "only with a key"},
		{"another account", doc(with(good, "accountId", "999999999999"), lab.CMS{}), machineKey, runner.CodeEvidencePin, "999999999999"},
		{"a region that is not configured", doc(with(good, "region", "ap-east-1"), lab.CMS{}), machineKey, runner.CodeEvidenceSigner, "nobody whose certificate"},
		{"signed by another region", otherRegion(), machineKey, runner.CodeEvidenceSigner, "us-west-2"},
		{"signed by a stranger", ok(stranger.AWS(good, lab.CMS{}))(t), machineKey, runner.CodeEvidenceSigner, "nobody whose certificate"},
		{"launched long ago", doc(with(good, "pendingTime", "2026-11-23T09:44:59Z"), lab.CMS{}), machineKey, runner.CodeEvidenceStale, "never brought a key"},
		{"launched tomorrow", doc(with(good, "pendingTime", "2026-11-24T10:00:00Z"), lab.CMS{}), machineKey, runner.CodeEvidenceStale, "check the clocks"},
		{"no launch", doc(with(good, "pendingTime", nil), lab.CMS{}), machineKey, runner.CodeEvidenceMalformed, "pendingTime"},
		{"no instance", doc(with(good, "instanceId", nil), lab.CMS{}), machineKey, runner.CodeEvidenceMalformed, "instanceId"},
		{"an account that is a number", doc(with(good, "accountId", 123456789012), lab.CMS{}), machineKey, runner.CodeEvidenceMalformed, "accountId"},
		{"an instance like a path", doc(with(good, "instanceId", "../i-1"), lab.CMS{}), machineKey, runner.CodeEvidenceMalformed, "other characters"},
		{"a member twice", twice(), machineKey, runner.CodeEvidenceMalformed, "one way only"},
		{"no base64", "!" + whole, machineKey, runner.CodeEvidenceMalformed, "not base64"},
		{"cut off", base64.StdEncoding.EncodeToString(ok(base64.StdEncoding.DecodeString(strings.ReplaceAll(whole, "\n", "")))(t)[:400]), machineKey, runner.CodeEvidenceMalformed, "cut off"},
		{"bytes after it", doc(good, lab.CMS{Trailing: []byte{5, 0}}), machineKey, runner.CodeEvidenceMalformed, "something follows"},
		{"too long", strings.Repeat("A", 40<<10), machineKey, proviso.CodeLimitsTokenSize, "at most"},
		{"empty", "", machineKey, runner.CodeEvidenceMalformed, "cut off"},
		{"detached", doc(good, lab.CMS{Detached: true}), machineKey, runner.CodeEvidenceMalformed, "not in it"},
		{"another document in it", doc(good, lab.CMS{OtherText: other}), machineKey, runner.CodeEvidenceSignature, "another one"},
		{"another document in it, no attributes", doc(good, lab.CMS{OtherText: other, Plain: true}), machineKey, runner.CodeEvidenceSignature, "not the signer's"},
		{"two signers", doc(good, lab.CMS{SignedTwice: true}), machineKey, runner.CodeEvidenceMalformed, "several signers"},
		{"SHA-1", doc(good, lab.CMS{SHA1: true}), machineKey, proviso.CodeJWTAlgNotAllowed, "rsa2048"},
		{"a document and no signature", base64.StdEncoding.EncodeToString(ok(json.Marshal(good))(t)), machineKey, runner.CodeEvidenceMalformed, "can't be read"},
		{"a JWT", "eyJhbGciOiJub25lIn0.e30.", machineKey, runner.CodeEvidenceMalformed, "not base64"},
	})
}

// A machine's document is a copy for whoever has read it. Its first key, soon
// after the launch, is the machine's; nobody else's counts ever after.
func TestAWSReplayed(t *testing.T) {
	c := newCloud(t, ec2)
	e := newEvidence(t, awsConfig(t, c, "eu-central-1"))
	doc := ok(c.AWS(c.AWSClaims(ec2), lab.CMS{}))(t)
	r, err := e.show("aws", doc, machineKey)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":2,"attestation":"aws","attributes":{"account":"123456789012","architecture":"arm64","image":"ami-0abcdef1234567890",` +
		`"instance_type":"c7g.large","zone":"eu-central-1a"},"bound":false,"environment":"self-hosted","id":"i-0123456789abcdef0","region":"eu-central-1"}`
	if got := r.Document().String(); got != want {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	if r.Name() != "builders" || r.Assurance() != 2 || len(r.EvidenceHash()) != 64 || !r.Expires().Equal(frozen.Add(time.Hour)) {
		t.Errorf("%+v", r)
	}
	_, err = e.show("aws", doc, thiefKey)
	wantRefusal(t, err, runner.CodeEvidenceKey, "another key before", doc)
	e.now = frozen.Add(100 * 24 * time.Hour) // the key is remembered for the machine's life
	if _, err := e.show("aws", doc, machineKey); err != nil {
		t.Error("the machine itself:", err)
	}
	// Another machine's document, copied and never brought by it: too late.
	late := ok(c.AWS(c.AWSClaims(lab.Machine{ID: "i-0aaaaaaaaaaaaaaa0", Owner: ec2.Owner, Zone: ec2.Zone, Launched: frozen}), lab.CMS{}))(t)
	_, err = e.show("aws", late, thiefKey)
	wantRefusal(t, err, runner.CodeEvidenceStale, "relaunch")
}

func TestGCP(t *testing.T) {
	m := lab.Machine{ID: "4520031799277581759", Owner: "acme-build", Zone: "europe-west3-a", Launched: frozen.Add(-time.Hour)}
	c := newCloud(t, m)
	e := newEvidence(t, runner.Config{Name: "gce", EvidenceConfig: runner.EvidenceConfig{GCP: &runner.GCPConfig{
		Projects: []string{"acme-build"}, Zones: []string{"europe-west3-a"}, ServiceAccounts: []string{"runner@acme-build.iam.gserviceaccount.com"},
		KeySource: runner.KeySource{JWKSFile: keySet(t, c.Google())}}}})
	good := c.GCPClaims(m, broker)
	sign := func(claims map[string]any) string { return ok(c.GCP(claims))(t) }
	r, err := e.show("gcp", sign(good), "")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":2,"attestation":"gcp","attributes":{"instance_name":"runner-1","project":"acme-build","project_number":"739419398126",` +
		`"service_account":"runner@acme-build.iam.gserviceaccount.com","zone":"europe-west3-a"},"bound":false,"environment":"self-hosted","id":"4520031799277581759","region":"europe-west3"}`
	if got := r.Document().String(); got != want {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	machine := func(name string, value any) map[string]any {
		ce := good["google"].(map[string]any)["compute_engine"].(map[string]any)
		return with(good, "google", map[string]any{"compute_engine": with(ce, name, value)})
	}
	stranger := ok(lab.NewKey("RS256"))(t)
	alike := ok(lab.NewKey("RS256"))(t)
	alike.ID = c.Google().ID
	e.refuses(t, "gcp", []refusal{
		{"another project", sign(machine("project_id", "evil-build")), "", runner.CodeEvidencePin, "evil-build"},
		{"another zone", sign(machine("zone", "europe-west3-b")), "", runner.CodeEvidencePin, "europe-west3-b"},
		{"another service account", sign(with(good, "email", "other@acme-build.iam.gserviceaccount.com")), "", runner.CodeEvidencePin, "other@"},
		{"no service account", sign(with(good, "email", nil)), "", runner.CodeEvidencePin, "service account"},
		{"an unverified one", sign(with(good, "email_verified", "true")), "", runner.CodeEvidenceMalformed, "not verified"},
		{"the standard format", sign(with(good, "google", nil)), "", runner.CodeEvidenceMalformed, "format=full"},
		{"a number for a machine", sign(machine("instance_id", 4520031799277)), "", runner.CodeEvidenceMalformed, "instance_id"},
		{"for another broker", sign(with(good, "aud", "https://other.example")), "", proviso.CodeAudMismatch, "other.example"},
		{"for two", sign(with(good, "aud", []string{broker, "https://other.example"})), "", proviso.CodeAudMultiple, "2 audiences"},
		{"for nobody", sign(with(good, "aud", nil)), "", proviso.CodeAudMissing, broker},
		{"another issuer", sign(with(good, "iss", "https://accounts.google.com.evil.example")), "", proviso.CodeIssuerUnknown, "not configured"},
		{"expired", sign(with(good, "exp", frozen.Unix())), "", proviso.CodeTokenExpired, "expired"},
		{"an exp that is text", sign(with(good, "exp", "2099")), "", proviso.CodeExpInvalid, "exp"},
		{"no exp", sign(with(good, "exp", nil)), "", proviso.CodeExpMissing, "exp"},
		{"no iat", sign(with(good, "iat", nil)), "", proviso.CodeIatMissing, "iat"},
		{"old", sign(with(with(good, "iat", frozen.Add(-2*time.Hour).Unix()), "exp", frozen.Add(time.Hour).Unix())), "", runner.CodeEvidenceStale, "2h0m0s ago"},
		{"from the future", sign(with(good, "iat", frozen.Add(time.Hour).Unix())), "", proviso.CodeIatFuture, "clocks"},
		{"a stranger's key", ok(stranger.Token(good))(t), "", proviso.CodeJWTUnknownKID, "kid"},
		{"a stranger's key under Google's name", ok(alike.Token(good))(t), "", proviso.CodeJWTSignature, "signature"},
		{"alg none", "eyJhbGciOiJub25lIn0." + strings.Split(sign(good), ".")[1] + ".", "", proviso.CodeJWTAlgNotAllowed, "none"},
		{"alg HS256", ok(c.Google().Sign([]byte(`{"alg":"HS256","kid":"x"}`), ok(json.Marshal(good))(t)))(t), "", proviso.CodeJWTAlgNotAllowed, "HS256"},
		{"another alg", ok(c.Google().Sign([]byte(`{"alg":"RS384","kid":"`+c.Google().ID+`"}`), ok(json.Marshal(good))(t)))(t), "", proviso.CodeJWTAlgNotAllowed, "RS384"},
		{"no JWT", "x", "", proviso.CodeJWTMalformed, "segments"},
	})
}

func TestKubernetes(t *testing.T) {
	key := ok(lab.NewKey("RS256"))(t)
	const issuer = "https://oidc.cluster.acme.example/id/1"
	e := newEvidence(t, runner.Config{Name: "cluster", Region: "eu-1", EvidenceConfig: runner.EvidenceConfig{Kubernetes: &runner.KubernetesConfig{
		Issuer: issuer, ServiceAccounts: []string{"ci/runner"}, Cluster: "build-1", KeySource: runner.KeySource{JWKSFile: keySet(t, key)}}}})
	pod := map[string]any{"namespace": "ci", "serviceaccount": map[string]any{"name": "runner", "uid": "7a7a"},
		"pod": map[string]any{"name": "runner-0", "uid": "5b5b"}, "node": map[string]any{"name": "node-3", "uid": "9c9c"}}
	good := map[string]any{"iss": issuer, "aud": []string{broker}, "sub": "system:serviceaccount:ci:runner", "iat": frozen.Unix(),
		"nbf": frozen.Unix(), "exp": frozen.Add(time.Hour).Unix(), "jti": "1", "kubernetes.io": pod}
	sign := func(claims map[string]any) string { return ok(key.Token(claims))(t) }
	r, err := e.show("kubernetes", sign(good), "")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":2,"attestation":"kubernetes","attributes":{"cluster":"build-1","namespace":"ci","node":"node-3","pod":"runner-0","pod_uid":"5b5b","service_account":"runner"},` +
		`"bound":false,"environment":"self-hosted","id":"ci.runner-0","region":"eu-1"}`
	if got := r.Document().String(); got != want {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	k8s := func(name string, value any) string { return sign(with(good, "kubernetes.io", with(pod, name, value))) }
	e.refuses(t, "kubernetes", []refusal{
		{"another service account", sign(with(with(good, "sub", "system:serviceaccount:ci:default"), "kubernetes.io", with(pod, "serviceaccount", map[string]any{"name": "default"}))),
			"", runner.CodeEvidencePin, "ci/default"},
		{"another namespace", sign(with(with(good, "sub", "system:serviceaccount:dev:runner"), "kubernetes.io", with(pod, "namespace", "dev"))), "", runner.CodeEvidencePin, "dev/runner"},
		{"sub and claim apart", k8s("namespace", "dev"), "", runner.CodeEvidenceMalformed, "another in kubernetes.io"},
		{"bound to no pod", k8s("pod", nil), "", runner.CodeEvidenceMalformed, "pod.name"},
		{"a pod without uid", k8s("pod", map[string]any{"name": "runner-0"}), "", runner.CodeEvidenceMalformed, "pod.uid"},
		{"a secret of the old kind", sign(with(good, "kubernetes.io", nil)), "", runner.CodeEvidenceMalformed, "projected"},
		{"for the API server", sign(with(good, "aud", []string{"https://kubernetes.default.svc"})), "", proviso.CodeAudMismatch, "kubernetes.default.svc"},
		{"another cluster", sign(with(good, "iss", "https://oidc.cluster.acme.example/id/2")), "", proviso.CodeIssuerUnknown, "not configured"},
		{"expired", sign(with(good, "exp", frozen.Add(-time.Second).Unix())), "", proviso.CodeTokenExpired, "expired"},
		{"not yet valid", sign(with(good, "nbf", frozen.Add(time.Hour).Unix())), "", proviso.CodeNbfFuture, "clocks"},
		{"old", sign(with(good, "iat", frozen.Add(-time.Hour).Unix())), "", runner.CodeEvidenceStale, "1h0m0s ago"},
	})
}

// The platform's word about the runner counts where nothing better is shown,
// and is worth level 1.
func TestPlatform(t *testing.T) {
	job := jobOf(t, lab.Job{RunnerID: "4471"})
	conf := func(p runner.PlatformConfig) runner.Config {
		return runner.Config{Name: "gitlab-runners", EvidenceConfig: runner.EvidenceConfig{Platform: &p}}
	}
	for name, c := range map[string]struct {
		conf runner.PlatformConfig
		want string
	}{
		"pinned by id":                           {runner.PlatformConfig{Issuer: "gitlab", IDs: []string{"4471"}}, `"id":"4471"`},
		"pinned by environment":                  {runner.PlatformConfig{Issuer: "gitlab", Environments: []string{"self-hosted"}}, `"environment":"self-hosted"`},
		"another runner":                         {runner.PlatformConfig{Issuer: "gitlab", IDs: []string{"4472"}}, ""},
		"hosted ones only":                       {runner.PlatformConfig{Issuer: "gitlab", Environments: []string{"hosted"}}, ""},
		"a cluster, and the platform names none": {runner.PlatformConfig{Issuer: "gitlab", Clusters: []string{"c"}}, ""},
		"another platform's word":                {runner.PlatformConfig{Issuer: "buildkite", IDs: []string{"4471"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEvidence(t, conf(c.conf))
			r, err := e.Verify(t.Context(), runner.Evidence{}, job)
			if err != nil || r.IsZero() != (c.want == "") || !strings.Contains(r.Document().String(), c.want) {
				t.Errorf("%s, %v", r.Document(), err)
			}
			if !r.IsZero() && (r.Assurance() != 1 || r.Bound() || r.Attestation() != "platform" || r.EvidenceHash() != job.TokenHash() || !r.Expires().Equal(job.Expires())) {
				t.Errorf("%+v", r)
			}
		})
	}
	e := newEvidence(t, conf(runner.PlatformConfig{Issuer: "gitlab", IDs: []string{"4471"}}))
	if r, err := e.Verify(t.Context(), runner.Evidence{}, identity.Job{}); err != nil || !r.IsZero() {
		t.Errorf("without a job: %v, %v", r, err)
	}
	_, err := e.show("platform", "self-hosted", "")
	wantRefusal(t, err, proviso.CodeTokenTypeUnsupported, "platform")
}

var azureVM = lab.Machine{ID: "8f1b0bb6-7d2c-4f5e-9d3a-0a1b2c3d4e5f", Owner: "11111111-2222-3333-4444-555555555555"}

func azureConfig(t testing.TB, c *lab.Cloud) runner.Config {
	return runner.Config{Name: "vms", EvidenceConfig: runner.EvidenceConfig{Azure: &runner.AzureConfig{
		Subscriptions: []string{azureVM.Owner}, Roots: write(t, "roots.pem", c.Root().PEM())}}}
}

func azureEvidence(t testing.TB, challenge, signature string) string {
	t.Helper()
	return string(ok(json.Marshal(map[string]string{"challenge": challenge, "signature": signature}))(t))
}

func TestAzure(t *testing.T) {
	c := newCloud(t, azureVM)
	e := newEvidence(t, azureConfig(t, c))
	show := func(t *testing.T, key string, edit func(claims map[string]any, how *lab.CMS)) (string, error) {
		challenge := e.challenge()
		claims, how := c.AzureClaims(azureVM, runner.AzureNonce(broker, challenge, key)), lab.CMS{}
		if edit != nil {
			edit(claims, &how)
		}
		text := azureEvidence(t, challenge, ok(c.AzureDocument(claims, how))(t))
		_, err := e.show("azure", text, key)
		return text, err
	}
	challenge := e.challenge()
	text := azureEvidence(t, challenge, ok(c.AzureDocument(c.AzureClaims(azureVM, runner.AzureNonce(broker, challenge, machineKey)), lab.CMS{}))(t))
	_, err := e.show("azure", text, thiefKey)
	wantRefusal(t, err, runner.CodeNonceInvalid, "the key that the request proves", text)
	r, err := e.show("azure", text, machineKey)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"assurance":3,"attestation":"azure","attributes":{"sku":"server","subscription":"` + azureVM.Owner + `"},"bound":false,"environment":"self-hosted","id":"` + azureVM.ID + `"}`
	if got := r.Document().String(); got != want {
		t.Errorf("document\n got %s\nwant %s", got, want)
	}
	_, err = e.show("azure", text, machineKey)
	wantRefusal(t, err, runner.CodeNonceUsed, "answered before", text)
	if _, err := show(t, "", nil); err != nil {
		t.Error("without a key:", err)
	}
	at := func(created, expires time.Time) map[string]any {
		const form = "01/02/06 15:04:05 -0000"
		return map[string]any{"createdOn": created.Format(form), "expiresOn": expires.Format(form)}
	}
	other := ok(lab.NewCloudSigner("evil.example", c.Root(), frozen, false))(t)
	lookalike := ok(lab.NewCloudSigner("metadata.azure.com.evil.example", c.Root(), frozen, false))(t)
	selfMade := ok(lab.NewCloudSigner("metadata.azure.com", nil, frozen, false))(t)
	signedBy := func(s *lab.CloudSigner, chain ...*x509.Certificate) func(map[string]any, *lab.CMS) string {
		return func(claims map[string]any, how *lab.CMS) string {
			how.Definite, how.Certificates = true, append([]*x509.Certificate{s.Certificate}, chain...)
			return ok(how.Sign(ok(json.Marshal(claims))(t), s.Key, s.Certificate))(t)
		}
	}
	for _, c := range []struct {
		name string
		code proviso.Code
		word string
		edit func(claims map[string]any, how *lab.CMS)
	}{
		{"another subscription", runner.CodeEvidencePin, "99999999", func(m map[string]any, _ *lab.CMS) {
			m["subscriptionId"] = "99999999-2222-3333-4444-555555555555"
		}},
		{"another nonce", runner.CodeNonceInvalid, "not made over this challenge", func(m map[string]any, _ *lab.CMS) { m["nonce"] = "1234567890" }},
		{"no nonce", runner.CodeNonceInvalid, "not made over this challenge", func(m map[string]any, _ *lab.CMS) { delete(m, "nonce") }},
		{"expired", runner.CodeEvidenceStale, "expired", func(m map[string]any, _ *lab.CMS) { m["timeStamp"] = at(frozen.Add(-7*time.Hour), frozen) }},
		{"old", runner.CodeEvidenceStale, "5m0s ago", func(m map[string]any, _ *lab.CMS) {
			m["timeStamp"] = at(frozen.Add(-5*time.Minute), frozen.Add(time.Hour))
		}},
		{"from the future", runner.CodeEvidenceStale, "clocks", func(m map[string]any, _ *lab.CMS) {
			m["timeStamp"] = at(frozen.Add(time.Hour), frozen.Add(2*time.Hour))
		}},
		{"times of another form", runner.CodeEvidenceMalformed, "documented form", func(m map[string]any, _ *lab.CMS) {
			m["timeStamp"] = map[string]any{"createdOn": "2026-11-23T10:00:00Z", "expiresOn": "2026-11-23T16:00:00Z"}
		}},
		{"no machine", runner.CodeEvidenceMalformed, "vmId", func(m map[string]any, _ *lab.CMS) { delete(m, "vmId") }},
		{"no certificate", runner.CodeEvidenceSigner, "does not bring", func(_ map[string]any, how *lab.CMS) { how.Certificates = []*x509.Certificate{c.Root().Certificate} }},
		{"another document in it", runner.CodeEvidenceSignature, "another one", func(_ map[string]any, how *lab.CMS) { how.OtherText = []byte("{}") }},
		{"SHA-1", proviso.CodeJWTAlgNotAllowed, "SHA-256", func(_ map[string]any, how *lab.CMS) { how.SHA1 = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := show(t, machineKey, c.edit)
			wantRefusal(t, err, c.code, c.word, text)
		})
	}
	for name, c := range map[string]struct {
		sign func(map[string]any, *lab.CMS) string
		word string
	}{
		"another name of the same root":   {signedBy(other), "evil.example"},
		"a name that begins like Azure's": {signedBy(lookalike), "evil.example"},
		"Azure's name, and no chain":      {signedBy(selfMade), "no valid chain"},
		"Azure's certificate beside it":   {signedBy(selfMade, c.Azure().Certificate, c.Root().Certificate), "no valid chain"},
		"Azure's certificate before it":   {signedBy(&lab.CloudSigner{Certificate: selfMade.Certificate, Key: selfMade.Key}, c.Azure().Certificate), "no valid chain"},
		"another's signature, Azure's name": {func(m map[string]any, how *lab.CMS) string {
			return signedBy(&lab.CloudSigner{Certificate: c.Azure().Certificate, Key: other.Key})(m, how)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			challenge := e.challenge()
			text := azureEvidence(t, challenge, c.sign(cloudClaims(challenge), &lab.CMS{}))
			_, err := e.show("azure", text, "")
			code := runner.CodeEvidenceSigner
			if c.word == "" {
				code, c.word = runner.CodeEvidenceSignature, "not the signer's"
			}
			wantRefusal(t, err, code, c.word, text)
		})
	}
	challenge = e.challenge()
	good := ok(c.AzureDocument(c.AzureClaims(azureVM, runner.AzureNonce(broker, challenge, "")), lab.CMS{}))(t)
	foreign := newEvidence(t, azureConfig(t, c)).challenge()
	e.refuses(t, "azure", []refusal{
		{"no challenge", azureEvidence(t, "x", good), "", runner.CodeNonceInvalid, "was not given out"},
		{"another broker's challenge", azureEvidence(t, foreign, good), "", runner.CodeNonceInvalid, "was not given out"},
		{"a member more", `{"challenge":"x","signature":"y","z":"1"}`, "", runner.CodeEvidenceMalformed, "exactly the members"},
		{"a member twice", `{"challenge":"x","challenge":"y","signature":"z"}`, "", runner.CodeEvidenceMalformed, "can't be read"},
		{"the bare signature", good, "", runner.CodeEvidenceMalformed, "can't be read"},
	})
	e.now = frozen.Add(2 * time.Minute)
	_, err = e.show("azure", azureEvidence(t, challenge, good), "")
	wantRefusal(t, err, runner.CodeNonceExpired, "could be answered until")
}

// cloudClaims are those of a good document over a challenge, without a key.
func cloudClaims(challenge string) map[string]any {
	const form = "01/02/06 15:04:05 -0000"
	return map[string]any{"nonce": runner.AzureNonce(broker, challenge, ""), "vmId": azureVM.ID, "subscriptionId": azureVM.Owner,
		"timeStamp": map[string]any{"createdOn": frozen.Format(form), "expiresOn": frozen.Add(time.Hour).Format(form)}}
}
