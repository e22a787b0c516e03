package peers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The keys of SPIRE's trust domain reach the broker in every way that it knows:
// by the agent's Workload API, and by the server's bundle endpoint, which shows
// an SVID of the very domain. They follow when SPIRE's authority gets a new key.
func TestBundlesOfSPIRE(t *testing.T) {
	s := newSpire(t, spireDomain)
	s.register(runnerPath)
	endpoint := fmt.Sprintf("{url: \"https://127.0.0.1:%s\", profile: https_spiffe, endpoint_spiffe_id: \"spiffe://%s/spire/server\", file: bundle.json, allow_private: true}", s.bundlePort, spireDomain)
	for _, source := range []struct{ name, bundle string }{
		{"Workload API", fmt.Sprintf("{workload_api: %q}", s.agentSocket)},
		{"bundle endpoint", endpoint},
	} {
		t.Run(source.name, func(t *testing.T) {
			b := newBroker(t, fleet(source.bundle), "", fleetGrants, withFile("bundle.json", s.bundle()))
			for _, how := range []string{"jwt", "x509"} {
				await(t, "a credential by "+how, func() bool {
					token, _, err := b.exchange(s.agentSocket, "deploy", how)
					return err == nil && strings.HasSuffix(runnerOf(claimsOf(t, token)), runnerPath)
				}, b.process)
			}
		})
	}
}

// SPIRE fetches the bundle of the broker's own trust domain, by both profiles,
// and hands it to its workloads; a workload of SPIRE's verifies a JWT-SVID that
// the broker issued to a job.
func TestSPIREFederatesWithProviso(t *testing.T) {
	const own = "ci.acme.example"
	bundlePort := freePort(t)
	sections := fmt.Sprintf("trust_domain: {name: %s, refresh_hint: 10s, bundle_listen: \"127.0.0.1:%s\"}", own, bundlePort)
	grants := `  identity: {policy: anyone, runner: none, resource: {service: mesh}, credential: {kind: jwt-svid, audience: "mesh", uri: "spiffe://ci.acme.example/job/{issuer}/{repository_id}"}, max_ttl: 5m}`
	b := newBroker(t, "  []", sections, grants, withFile("policy/anyone.rego", []byte("package anyone\n\nallow if input.identity.role == \"ci\"\n")))

	token, messages, err := b.exchange("", "identity", "none")
	if err != nil {
		t.Fatalf("no JWT-SVID: %v\n%s\n%s", err, messages, b.process.output())
	}
	for _, profile := range []struct {
		name string
		with federation
	}{
		{"https_spiffe", federation{Domain: own, URL: "https://127.0.0.1:" + bundlePort, EndpointID: "spiffe://" + own + "/bundle-endpoint"}},
		{"https_web", federation{Domain: own, URL: b.url + "/spiffe/bundle"}},
	} {
		t.Run(profile.name, func(t *testing.T) {
			if profile.with.EndpointID == "" {
				// SPIRE trusts the web's authorities for this profile: here, the lab's.
				t.Setenv("SSL_CERT_FILE", b.ca)
			}
			s := newSpire(t, spireDomain)
			if profile.with.EndpointID != "" {
				s.ctl("bundle", "set", "-id", "spiffe://"+own, "-format", "spiffe", "-path", b.write("own.json", string(b.bundle())))
			}
			s.federate(profile.with)
			await(t, "the broker's bundle at SPIRE", func() bool {
				return bytes.Contains(s.ctl("bundle", "list", "-format", "spiffe"), []byte(own))
			}, s.server)
			s.register("/mesh/peer", own)
			out, err := exec.Command(filepath.Join(s.bin, "spire-agent"), "api", "validate", "jwt", "-audience", "mesh", "-svid", token,
				"-socketPath", filepath.Join(s.dir, "agent.sock")).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("spiffe://"+own+"/job/github/")) {
				t.Errorf("SPIRE's Workload API doesn't take the broker's JWT-SVID: %v\n%s\nthe server says:\n%s", err, out, s.server.output())
			}
			out, err = exec.Command(filepath.Join(s.bin, "spire-agent"), "api", "validate", "jwt", "-audience", "somebody-else", "-svid", token,
				"-socketPath", filepath.Join(s.dir, "agent.sock")).CombinedOutput()
			if err == nil {
				t.Errorf("an SVID for another audience was taken: %s", out)
			}
		})
	}
}

// bundle reads the broker's bundle, as an operator does who hands it over.
func (b *broker) bundle() []byte {
	b.t.Helper()
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(b.ca)
	must(b.t, err)
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get(b.url + "/spiffe/bundle")
	must(b.t, err)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	must(b.t, err)
	if resp.StatusCode != http.StatusOK {
		b.t.Fatalf("/spiffe/bundle: %s: %s", resp.Status, data)
	}
	return data
}

// federate starts the server again with a relationship in its configuration.
func (s *spire) federate(f federation) {
	s.t.Helper()
	s.federates = append(s.federates, f)
	s.restart()
}

// What SPIRE issued is kept for the ordinary tests, where somebody asks for it:
// PROVISO_RECORD names the folder.
func TestRecord(t *testing.T) {
	dir := os.Getenv("PROVISO_RECORD")
	if dir == "" {
		dir = t.TempDir() // recorded all the same, so that recording doesn't rot
	}
	s := newSpire(t, spireDomain)
	s.register(runnerPath)
	svid := shortDir(t)
	if out, err := s.fetch("x509", "-write", svid); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	certificate, err := os.ReadFile(filepath.Join(svid, "svid.0.pem"))
	must(t, err)
	out, err := exec.Command(filepath.Join(s.bin, "spire-agent"), "api", "fetch", "jwt", "-audience", "https://proviso.acme.example",
		"-socketPath", filepath.Join(s.dir, "agent.sock"), "-output", "json").Output()
	must(t, err)
	for name, data := range map[string][]byte{"bundle.json": s.bundle(), "x509-svid.pem": certificate, "jwt-svid.txt": []byte(jwtIn(t, out) + "\n")} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
}

// jwtIn finds the token in what SPIRE's client prints.
func jwtIn(t *testing.T, out []byte) string {
	t.Helper()
	for _, word := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune("\" \n\t,:{}[]", r) }) {
		if strings.Count(word, ".") == 2 && strings.HasPrefix(word, "eyJ") {
			return word
		}
	}
	t.Fatalf("SPIRE printed no token: %s", out)
	return ""
}
