package pass

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"
)

// The costs stand beside the bare cryptography they can't avoid, in one run, so
// that the ratio means the same on every machine.

func BenchmarkBareES256Sign(b *testing.B) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sum := sha256.Sum256([]byte("x"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	c := newClock()
	s := testSigner(b, testKeyring(b, c), "ES256")
	claims := testClaims(c.now())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(&claims, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignRatio says what a whole pass costs in bare ES256 signatures; the
// target is 1.15. The two take turns, and the quickest turns of each count, so
// that other work on the machine doesn't.
func BenchmarkSignRatio(b *testing.B) {
	c := newClock()
	s := testSigner(b, testKeyring(b, c), "ES256")
	claims := testClaims(c.now())
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sum := sha256.Sum256([]byte("x"))
	reportRatio(b, func() error { _, err := ecdsa.SignASN1(rand.Reader, key, sum[:]); return err },
		func() error { _, err := s.Sign(&claims, time.Hour); return err })
}

func reportRatio(b *testing.B, bare, whole func() error) {
	const turn = 20
	best := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		for i, f := range []func() error{bare, whole} {
			start := time.Now()
			for range turn {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			best[i] = min(best[i], time.Since(start))
		}
	}
	b.ReportMetric(float64(best[1])/float64(best[0]), "x-bare")
	b.ReportMetric(float64(best[0])/turn, "bare-ns")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkBareES256Verify(b *testing.B) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sum := sha256.Sum256([]byte("x"))
	sig, _ := ecdsa.SignASN1(rand.Reader, key, sum[:])
	b.ReportAllocs()
	for b.Loop() {
		if !ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig) {
			b.Fatal("not verified")
		}
	}
}

// BenchmarkVerifyRatio is the gate's half, without a target of its own.
func BenchmarkVerifyRatio(b *testing.B) {
	c := newClock()
	k := testKeyring(b, c)
	claims := testClaims(c.now())
	token, err := testSigner(b, k, "ES256").Sign(&claims, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	v, err := NewVerifier(VerifierConfig{Issuer: testIssuer, Keys: k.Key, Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sum := sha256.Sum256([]byte("x"))
	sig, _ := ecdsa.SignASN1(rand.Reader, key, sum[:])
	reportRatio(b, func() error { ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig); return nil }, func() error {
		_, err := v.Verify(context.Background(), Presented{Token: token, Scheme: SchemeBearer}, Wanted{Audience: testAudience})
		return err
	})
}

func BenchmarkVerify(b *testing.B) {
	c := newClock()
	k := testKeyring(b, c)
	claims := testClaims(c.now())
	token, err := testSigner(b, k, "ES256").Sign(&claims, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	v, err := NewVerifier(VerifierConfig{Issuer: testIssuer, Keys: k.Key, Now: c.now})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(context.Background(), Presented{Token: token, Scheme: SchemeBearer}, Wanted{Audience: testAudience}); err != nil {
			b.Fatal(err)
		}
	}
}
