package identity

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// labConf configures an issuer of the lab, which stands on this machine and is
// therefore held to the platform's strictest rules.
func labConf(t *testing.T, iss *lab.Issuer) IssuerConfig {
	t.Helper()
	p := platformNamed(string(iss.Platform()))
	claims := iss.Claims(lab.Job{}, broker)
	conf := IssuerConfig{Name: p.name, Platform: p.name, URL: iss.URL(), AllowPrivate: true, Tenant: "acme", Require: map[string]Values{}}
	for _, name := range p.pins {
		if s, ok := claims[name].(string); ok {
			conf.Require[name] = Values{s}
		}
	}
	for _, d := range p.demands {
		conf.Require[d.claim] = Values{"github.com/acme-ship/*"}
	}
	if p == &codefresh {
		conf.Audience = broker // the lab's lets jobs choose, as newer ones do
	}
	return conf
}

// TestEveryPlatformOverHTTP: fourteen issuers on real sockets sign as the
// platforms do, are discovered, and their jobs are told who they are; the same
// jobs are refused as pull requests wherever the platform can tell.
func TestEveryPlatformOverHTTP(t *testing.T) {
	key, err := lab.NewKey("RS256")
	if err != nil {
		t.Fatal(err)
	}
	var issuers []*lab.Issuer
	var list []IssuerConfig
	for _, p := range table {
		if p == &generic {
			continue
		}
		iss, err := lab.NewIssuer(lab.Platform(p.name), lab.IssuerOptions{Keys: []*lab.Key{key}, Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		defer iss.Close()
		issuers, list = append(issuers, iss), append(list, labConf(t, iss))
	}
	v, err := New(list, Options{Audience: broker, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	v.Start(context.Background())
	for _, iss := range issuers {
		name := string(iss.Platform())
		compact, err := iss.Token(lab.Job{}, broker)
		if err != nil {
			t.Fatal(err)
		}
		job, err := v.Verify(context.Background(), compact)
		if codeOf(t, job, err) != "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		id := job.Identity()
		if id.Platform != name || id.Tenant != "acme" || id.Issuer != iss.URL() || id.Branch != "" && id.Branch != "main" {
			t.Errorf("%s: %s", name, job.Document())
		}
		if !platformNamed(name).events.tellsPulls || name == "azure-devops" || name == "codefresh" {
			continue // the lab's job of a pull request doesn't show on these
		}
		compact, err = iss.Token(lab.Job{Event: "pull_request", HeadBranch: "patch", Environment: "-"}, broker)
		if err != nil {
			t.Fatal(err)
		}
		job, err = v.Verify(context.Background(), compact)
		if got := codeOf(t, job, err); got != CodeEventNotAllowed && got != CodeClaimMismatch {
			t.Errorf("%s: a pull request gets code %q", name, got)
		}
	}
	for _, st := range v.Status() {
		if !st.Keys.Usable || st.Keys.Failure != nil || len(st.Keys.Keys) != 1 {
			t.Errorf("%s: %+v", st.Name, st.Keys)
		}
	}
}

// TestRotationRefusesNobody: a thousand jobs over HTTPS while the issuer changes
// its key ten times, at once and without notice, and withdraws the old one when
// its last tokens have expired.
func TestRotationRefusesNobody(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return clock().Add(time.Duration(ahead.Load())) }
	ca, err := lab.NewCA("Acme")
	if err != nil {
		t.Fatal(err)
	}
	first, err := lab.NewKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	iss, err := lab.NewIssuer(lab.GitHub, lab.IssuerOptions{TLS: ca, Keys: []*lab.Key{first}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	defer iss.Close()
	conf := labConf(t, iss)
	conf.Algorithms = []string{"ES256"}
	conf.CAFile = "ca.pem"
	dir := t.TempDir()
	if err := ca.WriteFile(filepath.Join(dir, conf.CAFile)); err != nil {
		t.Fatal(err)
	}
	v, err := New([]IssuerConfig{conf}, Options{Audience: broker, Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()

	tokens := func(n int) (out []string) {
		for range n {
			compact, err := iss.Token(lab.Job{}, broker)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, compact)
		}
		return out
	}
	var served atomic.Int64
	for range 10 {
		batch := tokens(50) // of the old key
		if err := iss.Rotate(); err != nil {
			t.Fatal(err)
		}
		batch = append(batch, tokens(50)...) // of a key that nobody has seen yet
		var all sync.WaitGroup
		for part := range slices.Chunk(batch, 13) {
			all.Go(func() {
				for _, compact := range part {
					if _, err := v.Verify(context.Background(), compact); err != nil {
						t.Errorf("refused: %v", err)
						continue
					}
					served.Add(1)
				}
			})
		}
		all.Wait()
		ahead.Add(int64(6 * time.Minute)) // the old key's tokens have expired
		iss.Retire()
	}
	if served.Load() != 1000 {
		t.Errorf("%d of 1000 jobs were served", served.Load())
	}
	if n := iss.Fetches("jwks"); n > 40 {
		t.Errorf("the issuer was asked for its keys %d times", n)
	}
	stranger, err := lab.NewKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	compact, err := iss.Token(lab.Job{}, broker, lab.SignedBy(stranger))
	if err != nil {
		t.Fatal(err)
	}
	job, err := v.Verify(context.Background(), compact)
	wantCode(t, job, err, proviso.CodeJWTSignature)
}

// TestFaultsOfTheIssuerAreOurs: a job whose issuer can't be asked is told so,
// without anything that the network said.
func TestFaultsOfTheIssuerAreOurs(t *testing.T) {
	key, err := lab.NewKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	iss, err := lab.NewIssuer(lab.GitHub, lab.IssuerOptions{Keys: []*lab.Key{key}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer iss.Close()
	iss.SetFaults(lab.Faults{Status: 500})
	conf := labConf(t, iss)
	conf.Algorithms = []string{"ES256"}
	v, err := New([]IssuerConfig{conf}, Options{Audience: broker, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	compact, err := iss.Token(lab.Job{}, broker)
	if err != nil {
		t.Fatal(err)
	}
	job, err := v.Verify(context.Background(), compact)
	wantCode(t, job, err, proviso.CodeDiscoveryUnavailable)
	if r := proviso.AsRefusal(err, "", ""); strings.Contains(r.Public, "127.0.0.1") || r.Err == nil {
		t.Errorf("public %q, cause %v", r.Public, r.Err)
	}
}
