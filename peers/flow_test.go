package peers

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	spireDomain = "spire.acme.example"
	runnerPath  = "/region/us-west-2/runner/builder-1"
)

// fleet is the runners' section for SPIRE's trust domain.
func fleet(bundle string) string {
	return fmt.Sprintf("  - {name: fleet, trust_domain: %s, bundle: %s, path: \"/region/{region}/runner/{id}\"}", spireDomain, bundle)
}

// runnerOf reads who the credential says ran the job.
func runnerOf(claims map[string]any) string {
	act, _ := claims["act"].(map[string]any)
	sub, _ := act["sub"].(string)
	return sub
}

// A job on a machine with a real SPIRE agent gets a credential that names the
// runner, by a JWT-SVID and by mutual TLS; a machine of another SPIRE with the
// same trust domain's name, and one without an identity, get nothing.
func TestTheFlowWithSPIRE(t *testing.T) {
	s := newSpire(t, spireDomain)
	s.register(runnerPath)
	b := newBroker(t, fleet("{file: bundle.json}"), "", fleetGrants, withFile("bundle.json", s.bundle()))
	want := "spiffe://" + spireDomain + runnerPath
	for _, how := range []string{"jwt", "x509"} {
		if got := runnerOf(b.granted(s.agentSocket, "deploy", how)); got != want {
			t.Errorf("%s: the credential names the runner %q, want %q", how, got, want)
		}
	}

	impostor := newSpire(t, spireDomain)
	impostor.register(runnerPath)
	b.refused(impostor.agentSocket, "deploy", "jwt", "runner")
	if _, messages, err := b.exchange(impostor.agentSocket, "deploy", "x509"); err == nil {
		t.Errorf("a machine of another authority got a credential by mutual TLS: %s", messages)
	}
	b.refused("", "deploy", "none", "runner")
}

// While one long command runs, its runner's SVID rotates and SPIRE restarts;
// the command's credential is renewed all the same, each time with an SVID of
// the moment.
func TestRotationDuringALongExec(t *testing.T) {
	s := newSpire(t, spireDomain)
	s.register(runnerPath)
	b := newBroker(t, fleet("{file: bundle.json}"), "", fleetGrants, withFile("bundle.json", s.bundle()))
	first := s.serial()

	// The command prints a line for each new token that it finds in its file.
	cmd := b.job(s.agentSocket, "exec", "--grant", "short", "--runner", "x509", "--file", "token", "--", "sh", "-c",
		`last=; while :; do now=$(cat "$PROVISO_TOKEN_FILE"); if [ "$now" != "$last" ]; then echo "$now"; last=$now; fi; sleep 0.2; done`)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var said strings.Builder
	cmd.Stderr = &said
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	tokens := make(chan string, 256)
	go func() {
		defer close(tokens)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			tokens <- lines.Text()
		}
	}()
	next := func() map[string]any {
		t.Helper()
		select {
		case token, ok := <-tokens:
			if !ok {
				t.Fatalf("exec ended: %s\nthe broker says:\n%s", said.String(), b.process.output())
			}
			return claimsOf(t, token)
		case <-time.After(60 * time.Second):
			t.Fatalf("no new credential for a minute: %s\nthe broker says:\n%s", said.String(), b.process.output())
		}
		return nil
	}
	next()
	restarted := false
	for deadline := time.Now().Add(3 * svidTTL); time.Now().Before(deadline); {
		next()
		if !restarted && s.serial() != first {
			s.restart()
			restarted = true
		}
	}
	if !restarted || s.serial() == first {
		t.Fatal("the SVID has not rotated: this test has looked at nothing")
	}
	// What comes now was asked for after the restart, with a later SVID.
	for len(tokens) > 0 {
		next()
	}
	if got := runnerOf(next()); !strings.HasSuffix(got, runnerPath) {
		t.Errorf("after rotation and restart the credential names %q", got)
	}
	if hashes := b.evidence(); len(hashes) < 2 {
		t.Errorf("the record knows %d SVIDs of the runner, want at least 2: %v", len(hashes), hashes)
	}
}

// serial is the serial number of the workload's X.509-SVID at this moment.
func (s *spire) serial() string {
	s.t.Helper()
	dir := shortDir(s.t)
	if out, err := s.fetch("x509", "-write", dir); err != nil {
		return string(out) // between stop and start nobody answers
	}
	data, err := os.ReadFile(filepath.Join(dir, "svid.0.pem"))
	must(s.t, err)
	block, _ := pem.Decode(data)
	if block == nil {
		s.t.Fatalf("SPIRE wrote no certificate: %s", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	must(s.t, err)
	return cert.SerialNumber.String()
}
