package credential

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/pass"
)

func benchMinter(b *testing.B) *Minter {
	dir := filepath.Join(b.TempDir(), "keys")
	keys, err := pass.OpenKeyring(dir, pass.KeyringConfig{}, nil)
	must(b, err)
	ca, err := OpenAuthority(dir, CAConfig{}, nil)
	must(b, err)
	m, err := New(Options{Issuer: testIssuer, Keys: keys, Authority: ca})
	must(b, err)
	return m
}

// BenchmarkPlan is what stands on the way of every exchange before its record.
func BenchmarkPlan(b *testing.B) {
	o, err := benchMinter(b).Offer("deploy-production", jwtConfig(), time.Minute)
	must(b, err)
	r := testRequest()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Plan(context.Background(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCertificate is a rehearsal, its lint, and the real signature.
func BenchmarkCertificate(b *testing.B) {
	m := benchMinter(b)
	o, err := m.Offer("deploy-production", certConfig(), time.Minute)
	must(b, err)
	r := certRequest(b, ecKey(b))
	for b.Loop() {
		terms, err := o.Plan(context.Background(), r)
		must(b, err)
		req, err := readCSR(r.CSR)
		must(b, err)
		if _, err := m.opt.Authority.issue(&terms, req.public); err != nil {
			b.Fatal(err)
		}
	}
}
