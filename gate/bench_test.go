package gate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/pass"
)

// BenchmarkGateRatio says what a request through the middleware costs in bare
// ES256 verifications: for a bearer token, and for one with a DPoP proof, which
// is a second signature. They take turns, and the quickest turns count.
func BenchmarkGateRatio(b *testing.B) {
	i := newIssuer(b)
	g := i.gate(resourceConfig())
	h := g.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	p := newProver(b, i)
	bearer, bound := i.token(nil), i.token(func(c *pass.Claims) { c.Confirmation.JKT = p.Thumbprint() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	sum := sha256.Sum256([]byte("x"))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	must(b, err)
	send := func(authorization, proof string) {
		r := httptest.NewRequest("GET", "/v1/deploy", nil)
		r.Header.Set("Authorization", authorization)
		if proof != "" {
			r.Header.Set("DPoP", proof)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("status %d %s", w.Code, w.Body)
		}
	}
	const turn = 20
	best := [3]time.Duration{time.Hour, time.Hour, time.Hour}
	for b.Loop() {
		var proofs [turn]string
		for j := range proofs {
			proofs[j], err = p.Proof("GET", testOrigin+"/v1/deploy", bound, "")
			must(b, err)
		}
		for k, f := range []func(j int){
			func(int) { ecdsa.VerifyASN1(&key.PublicKey, sum[:], sig) },
			func(int) { send("Bearer "+bearer, "") },
			func(j int) { send("DPoP "+bound, proofs[j]) },
		} {
			start := time.Now()
			for j := range turn {
				f(j)
			}
			best[k] = min(best[k], time.Since(start))
		}
	}
	b.ReportMetric(float64(best[1])/float64(best[0]), "bearer-x-bare")
	b.ReportMetric(float64(best[2])/float64(best[0]), "dpop-x-bare")
	b.ReportMetric(float64(best[0])/turn, "bare-ns")
	b.ReportMetric(0, "ns/op")
}
