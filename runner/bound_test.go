package runner_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

// jobOf has a GitLab of the lab sign a job's token, and verifies it.
func jobOf(t testing.TB, job lab.Job, edits ...lab.Edit) identity.Job {
	t.Helper()
	gitlab, err := lab.NewIssuer(lab.GitLab, lab.IssuerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gitlab.Close() })
	claims := gitlab.Claims(job, broker)
	namespace, _ := claims["namespace_id"].(string)
	v, err := identity.New([]identity.IssuerConfig{{Name: "gitlab", Platform: "gitlab", URL: gitlab.URL(), AllowPrivate: true,
		Require: map[string]identity.Values{"namespace_id": {namespace}}, Tenant: "acme", Role: "ci-cd-pipeline", Algorithms: []string{"RS256"}}},
		identity.Options{Audience: broker})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	token, err := gitlab.Token(job, broker, edits...)
	if err != nil {
		t.Fatal(err)
	}
	verified, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return verified
}

// A job is bound to its runner when the platform says in the job's token which
// runner it gave the job to. Another good runner's evidence is then refused.
func TestBoundByThePlatform(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier(func(c *runner.Config) { c.Bind = "id" })
	job := jobOf(t, lab.Job{RunnerID: "4471"})
	show := func(id string) (runner.Runner, error) {
		return v.Verify(t.Context(), runner.Evidence{Certificates: []*x509.Certificate{a.leaf("spiffe://" + domain + "/region/eu/runner/" + id)}}, job)
	}
	r, err := show("4471")
	if err != nil || !r.Bound() || r.Binding() != runner.BindingPlatform || r.Document().Get("bound").String() != "true" {
		t.Errorf("the job's own runner: bound %t, %v", r.Bound(), err)
	}
	_, err = show("4472")
	wantRefusal(t, err, proviso.CodeRunnerJobMismatch, "4472")
	unbound := a.verifier() // without bind the two numbers mean nothing to each other
	r, err = unbound.Verify(t.Context(), runner.Evidence{JWTSVID: a.token(a.claims(), nil)}, job)
	if err != nil || r.Bound() || r.Binding() != "" {
		t.Errorf("bound %t, %v: nothing ties this job to a bearer's runner", r.Bound(), err)
	}
	r, err = unbound.Verify(t.Context(), runner.Evidence{Certificates: []*x509.Certificate{a.leaf(goodID)}}, job)
	if err != nil || r.Binding() != runner.BindingMTLS {
		t.Errorf("binding %q, %v: the connection ties them, and nothing more", r.Binding(), err)
	}
}

// A job's token that names the runner's key (cnf.jkt) is bound to the
// certificate that proves its possession, and to no other.
func TestBoundByKey(t *testing.T) {
	a := newAuthority(t, domain, time.Now())
	v := a.verifier()
	key := newECKey(t)
	jwk, err := jose.NewKey("", jose.ES256, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range []identity.Job{
		jobOf(t, lab.Job{}, lab.Claim("cnf", map[string]any{"jkt": jwk.Thumbprint()})),
		jobOf(t, lab.Job{}, lab.Claim("aud", proviso.KeyedAudience(broker, jwk.Thumbprint()))),
	} {
		if job.Confirmation() != jwk.Thumbprint() {
			t.Fatal("the job's token lost its key")
		}
		for want, leaf := range map[string]*x509.Certificate{runner.BindingKey: a.leafFor(goodID, &key.PublicKey), runner.BindingMTLS: a.leaf(goodID)} {
			r, err := v.Verify(t.Context(), runner.Evidence{Certificates: []*x509.Certificate{leaf}}, job)
			if err != nil || r.Binding() != want {
				t.Errorf("binding %q, want %q: %v", r.Binding(), want, err)
			}
		}
		r, err := v.Verify(t.Context(), runner.Evidence{JWTSVID: a.token(a.claims(), nil), Key: jwk.Thumbprint()}, job)
		if err != nil || r.Bound() {
			t.Errorf("a bearer names no key: bound %t, %v", r.Bound(), err)
		}
		claims := a.claims()
		claims["cnf"] = map[string]any{"jkt": jwk.Thumbprint()}
		r, err = v.Verify(t.Context(), runner.Evidence{JWTSVID: a.token(claims, nil), Key: jwk.Thumbprint()}, job)
		if err != nil || r.Binding() != runner.BindingKey || r.Assurance() != 3 {
			t.Errorf("both name the key that is proved: binding %q, %v", r.Binding(), err)
		}
	}
}

// A JWT-SVID that names a key serves only together with its proof.
func TestJWTSVIDThatNamesAKey(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier()
	for name, c := range map[string]struct {
		cnf    any
		proved string
	}{
		"no proof":            {map[string]any{"jkt": "abc"}, ""},
		"proof of another":    {map[string]any{"jkt": "abc"}, "abd"},
		"a certificate's key": {map[string]any{"x5t#S256": "abc"}, "abc"},
		"two keys":            {map[string]any{"jkt": "abc", "x5t#S256": "abc"}, "abc"},
		"an empty key":        {map[string]any{"jkt": ""}, ""},
		"no object":           {"abc", "abc"},
		"null":                {nil, ""},
	} {
		claims := a.claims()
		claims["cnf"] = c.cnf
		token := a.token(claims, nil)
		_, err := verify(v, runner.Evidence{JWTSVID: token, Key: c.proved})
		t.Log(name)
		wantRefusal(t, err, proviso.CodeCnfMismatch, "key", token)
	}
}

func BenchmarkVerify(b *testing.B) {
	a := newAuthority(b, domain, frozen)
	v := a.verifier()
	leaf := a.leaf(goodID)
	token := a.token(a.claims(), nil)
	var job identity.Job
	b.Run("x509 first time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Forget()
			if _, err := v.Verify(b.Context(), runner.Evidence{Certificates: []*x509.Certificate{leaf}}, job); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("x509 kept alive", func(b *testing.B) {
		b.ReportAllocs()
		ev := runner.Evidence{Certificates: []*x509.Certificate{leaf}}
		for b.Loop() {
			if _, err := v.Verify(b.Context(), ev, job); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("jwt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), runner.Evidence{JWTSVID: token}, job); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor: one ES256 signature", func(b *testing.B) {
		parsed, err := jose.Parse(token, jose.Profile{})
		if err != nil {
			b.Fatal(err)
		}
		key, err := jose.NewKey("", jose.ES256, &a.jwtKey.PublicKey)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := parsed.Verify(key); err != nil {
				b.Fatal(err)
			}
		}
	})
}
