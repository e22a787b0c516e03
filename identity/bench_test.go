package identity

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// cpu reports the processor time of the whole process per operation: on a busy
// machine wall time says little.
func cpu(b *testing.B, run func()) {
	b.Helper()
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	b.ReportAllocs()
	before, n := used(), 0
	for b.Loop() {
		run()
		n++
	}
	b.ReportMetric(float64(used()-before)/float64(n), "cpu-ns/op")
}

// The whole way from a compact token to an identity, beside its parts: the bare
// RSA verification, the parsing, and this package's own checks.
func BenchmarkVerify(b *testing.B) {
	v := newVerifier(b, confs()["github"])
	claims := example(b, "github").with("repo_property_tier", "critical", "repo_property_pci", "true")
	compact := sign(b, claims)
	ctx := context.Background()
	tok, err := jose.Parse(compact, profile)
	if err != nil {
		b.Fatal(err)
	}
	key, err := jose.NewKey(testKID, jose.RS256, signer().Public())
	if err != nil {
		b.Fatal(err)
	}
	i := v.issuers["https://token.actions.githubusercontent.com"]

	b.Run("token to job", func(b *testing.B) {
		cpu(b, func() {
			if _, err := v.Verify(ctx, compact); err != nil {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(len(compact)), "token-bytes")
	})
	b.Run("bare signature", func(b *testing.B) {
		cpu(b, func() {
			if err := tok.Verify(key); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("parse", func(b *testing.B) {
		cpu(b, func() {
			if _, err := jose.Parse(compact, profile); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("checks and identity", func(b *testing.B) {
		cpu(b, func() {
			if _, err := i.admit(tok, clock()); err != nil {
				b.Fatal(err)
			}
		})
	})
}

// What a flood of rubbish costs: the cheap checks come first.
func BenchmarkRefuse(b *testing.B) {
	v := newVerifier(b, confs()["github"])
	ctx := context.Background()
	for name, compact := range map[string]string{
		"unknown issuer":   sign(b, example(b, "gitlab")),
		"not a token":      "rubbish",
		"a stranger's kid": mustSign(b, "other", example(b, "github")),
	} {
		b.Run(name, func(b *testing.B) {
			cpu(b, func() {
				if _, err := v.Verify(ctx, compact); err == nil {
					b.Fatal("taken")
				}
			})
		})
	}
}

func mustSign(b *testing.B, kid string, c claimSet) string {
	s, err := jose.Sign(signer(), jose.RS256, kid, "JWT", c.json(b))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

var sink document.Value

func BenchmarkDocument(b *testing.B) {
	v := newVerifier(b, confs()["github"])
	job, err := verify(b, v, example(b, "github"))
	if err != nil {
		b.Fatal(err)
	}
	id := job.Identity()
	cpu(b, func() { sink = id.Document() })
}
