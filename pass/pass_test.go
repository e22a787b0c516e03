package pass

import (
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/proviso-ci/proviso/internal/document"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testIssuer   = "https://proviso.acme.example"
	testAudience = "https://deploy.acme.example"
)

// testClock is a time that only the test moves.
type testClock struct{ t time.Time }

func (c *testClock) now() time.Time          { return c.t }
func (c *testClock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *testClock {
	return &testClock{time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)}
}

func testKeyring(t testing.TB, c *testClock) *Keyring {
	t.Helper()
	k, err := OpenKeyring(filepath.Join(t.TempDir(), "keys"), KeyringConfig{}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testClaims are those of a usual token.
func testClaims(now time.Time) Claims {
	text := document.StringOf
	return Claims{
		Issuer: testIssuer, Subject: "job:github:acme:61200123", ClientID: "job:github:acme:61200123", Audience: testAudience,
		ID: "6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11", Scope: []string{"deploy", "rollback"},
		IssuedAt: now.Truncate(time.Second), Expires: now.Truncate(time.Second).Add(15 * time.Minute),
		Actor: "spiffe://runners.acme.example/region/eu-1/runner/r-17",
		Details: document.ListOf(document.ObjectOf(document.Member("type", text("proviso_intent")), document.Member("action", text("deploy")),
			document.Member("purpose", text("release 1.2.3")))),
		Proviso: document.ObjectOf(document.Member("decision", text("01KAV7Q3S5C3M4GQ4Z7Z1V2W3X")), document.Member("grant", text("deploy-production")),
			document.Member("repository_id", text("61200123")), document.Member("run_id", text("9876543210")),
			document.Member("commit", text("6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11aabbccdd")), document.Member("ref", text("refs/heads/main")),
			document.Member("policy", text("sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"))),
	}
}

func testSigner(t testing.TB, k *Keyring, alg string) *Signer {
	t.Helper()
	for _, a := range Algorithms {
		if string(a) == alg {
			s, err := k.Signer(a)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatalf("no algorithm %s", alg)
	return nil
}
