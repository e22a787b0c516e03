package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// githubLike are 36 claims of the size that GitHub sends.
const githubLike = `{"jti":"0b0f3c1e-8f5a-4a57-b5a2-2d1f3c4b5a69","sub":"repo:acme/shipping:environment:production","actor":"octocat","actor_id":"583231","aud":"https://proviso.acme.example","base_ref":"","check_run_id":"41234567890","enterprise":"acme","enterprise_id":"12345",` +
	`"environment":"production","environment_node_id":"EN_kwDOABCDEF4ABCDEF","event_name":"push","exp":1790000300,"head_ref":"","iat":1790000000,"iss":"https://token.actions.githubusercontent.com",` +
	`"job_workflow_ref":"acme/shipping/.github/workflows/deploy.yml@refs/heads/main","job_workflow_sha":"0f1e2d3c4b5a69788796a5b4c3d2e1f001234567",` +
	`"nbf":1789999400,"ref":"refs/heads/main","ref_protected":"true","ref_type":"branch","repository":"acme/shipping","repository_id":"712345678","repository_owner":"acme","repository_owner_id":"61200123",` +
	`"repository_visibility":"private","run_attempt":"1","run_id":"9876543210","run_number":"1042","runner_environment":"self-hosted","sha":"0f1e2d3c4b5a69788796a5b4c3d2e1f001234567",` +
	`"workflow":"deploy","workflow_ref":"acme/shipping/.github/workflows/deploy.yml@refs/heads/main","workflow_sha":"0f1e2d3c4b5a69788796a5b4c3d2e1f001234567","x":"y"}`

func rsaKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The whole of an RS256 token, beside the bare signature in the same run: the
// difference is what reading strictly costs.
func BenchmarkRS256(b *testing.B) {
	private := rsaKey(b)
	compact, err := jose.Sign(private, jose.RS256, "38826b17-6a30-5f9b-b169-8beb8202f723", "JWT", []byte(githubLike))
	if err != nil {
		b.Fatal(err)
	}
	key, err := jose.NewKey("38826b17-6a30-5f9b-b169-8beb8202f723", jose.RS256, private.Public())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare", func(b *testing.B) {
		digest := sha256.Sum256([]byte(githubLike))
		sig, err := rsa.SignPKCS1v15(nil, private, crypto.SHA256, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, digest[:], sig) != nil {
				b.Fatal("refused")
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.SetBytes(int64(len(compact)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jose.Parse(compact, jose.Profile{Typ: []string{"JWT"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			token, err := jose.Parse(compact, jose.Profile{Typ: []string{"JWT"}})
			if err != nil {
				b.Fatal(err)
			}
			if err := token.Verify(key); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkES256(b *testing.B) {
	private := ecKey(b, elliptic.P256())
	signer, err := jose.NewSigner(private, jose.ES256, "k", "at+jwt", false)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare sign", func(b *testing.B) {
		digest := sha256.Sum256([]byte(githubLike))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ecdsa.SignASN1(rand.Reader, private, digest[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := signer.Sign([]byte(githubLike)); err != nil {
				b.Fatal(err)
			}
		}
	})
	compact, err := signer.Sign([]byte(githubLike))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			token, err := jose.Parse(compact, jose.Profile{Typ: []string{"at+jwt"}})
			if err != nil {
				b.Fatal(err)
			}
			if err := token.Verify(signer.Key()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	data := []byte(githubLike)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := document.Parse(data, document.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
