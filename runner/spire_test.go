package runner_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/runner"
)

// What a real SPIRE issued, recorded by `make peers-test` (peers/, TestRecord):
// its SVIDs are taken while they last, and nothing of them afterwards, for
// another audience, or under another authority of the same name.
func TestWhatSPIREIssued(t *testing.T) {
	const td = "spire.acme.example"
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile("testdata/spire/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	block, _ := pem.Decode(read("x509-svid.pem"))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	evidence := map[string]runner.Evidence{
		"x509": {Certificates: []*x509.Certificate{leaf}},
		"jwt":  {JWTSVID: strings.TrimSpace(string(read("jwt-svid.txt")))},
	}
	config := runner.Config{Name: "spire", TrustDomain: td, Bundle: runner.Bundle{File: "testdata/spire/bundle.json"}, Path: "/region/{region}/runner/{id}"}
	while := leaf.NotBefore.Add(20 * time.Second) // both were fetched in the same seconds
	for kind, ev := range evidence {
		r, err := verify(newVerifier(t, while, config), ev)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if r.ID() != "builder-1" || r.Region() != "us-west-2" || r.SPIFFEID() != "spiffe://"+td+"/region/us-west-2/runner/builder-1" {
			t.Errorf("%s: it is %q in %q, %s", kind, r.ID(), r.Region(), r.SPIFFEID())
		}
		if _, err := verify(newVerifier(t, while.Add(time.Hour), config), ev); err == nil {
			t.Errorf("%s: taken an hour later", kind)
		}
		other := config
		other.Bundle.File = newAuthority(t, td, while).file
		if _, err := verify(newVerifier(t, while, other), ev); err == nil {
			t.Errorf("%s: taken under another authority of the same name", kind)
		}
	}
	elsewhere, err := runner.New([]runner.Config{config}, runner.Options{Audience: "https://other.acme.example", Now: func() time.Time { return while }, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	_, err = verify(elsewhere, evidence["jwt"])
	wantRefusal(t, err, proviso.CodeAudMismatch, "aud")
}
