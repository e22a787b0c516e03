package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// An issuer that is down, after it was up: its last good keys serve, and the
// metrics say that they get older.
func TestIssuerOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	b, _ := s.serve()
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Fatalf("before the outage: %s", r)
	}
	// In this order: where the keys are is asked anew only after a failure, so an
	// issuer that becomes somebody else is not noticed as the first.
	for _, fault := range []struct {
		name   string
		faults lab.Faults
	}{
		{"down", lab.Faults{Down: true}}, {"an error", lab.Faults{Status: 500}}, {"a login page", lab.Faults{NotJSON: true}},
		{"somebody else", lab.Faults{Issuer: "https://evil.example"}}, {"no keys", lab.Faults{Empty: true, Status: 404}},
	} {
		name := fault.name
		s.github.SetFaults(fault.faults)
		b.identities.Refresh(t.Context())
		if status := b.identities.Status()[0].Keys; status.Failure == nil || !status.Usable {
			t.Errorf("%s: the refresh failed with %v, the keys are usable: %v", name, status.Failure, status.Usable)
		}
		if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
			t.Errorf("%s: %s", name, r)
		}
	}
	if age := s.metric(`proviso_issuer_keys_age_seconds{issuer="github"}`); age == "absent" || age == "-1" {
		t.Errorf("the age of the keys is %s", age)
	}
	s.github.SetFaults(lab.Faults{})
	b.identities.Refresh(t.Context())
	if status := b.identities.Status()[0].Keys; status.Failure != nil {
		t.Errorf("after the outage: %v", status.Failure)
	}
}

// faulty is an issuer that misbehaves from the beginning, and what its jobs get.
type faulty struct {
	name   string
	faults lab.Faults
	status int
	code   proviso.Code
}

// Each way in which an issuer's discovery and keys can be wrong refuses its
// jobs at the stage job, with its own code, and never gives a credential; the
// other issuers' jobs notice nothing. What the operator's network looks like is
// in no answer.
func TestIssuersThatMisbehave(t *testing.T) {
	t.Parallel()
	var visits atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	t.Cleanup(elsewhere.Close)
	cases := []faulty{
		{"is down", lab.Faults{Down: true}, 503, proviso.CodeDiscoveryUnavailable},
		{"answers with an error", lab.Faults{Status: 500}, 503, proviso.CodeDiscoveryUnavailable},
		{"answers too late", lab.Faults{Delay: time.Minute}, 503, proviso.CodeDiscoveryUnavailable},
		{"answers a byte at a time", lab.Faults{Drip: 200 * time.Millisecond}, 503, proviso.CodeDiscoveryUnavailable},
		{"redirects", lab.Faults{Redirect: elsewhere.URL}, 503, proviso.CodeDiscoveryRedirect},
		{"redirects for its keys", lab.Faults{Redirect: elsewhere.URL, Only: "jwks"}, 503, proviso.CodeDiscoveryRedirect},
		{"says that it is somebody else", lab.Faults{Issuer: "https://evil.example"}, 503, proviso.CodeDiscoveryIssuerMismatch},
		{"sends us elsewhere for keys", lab.Faults{JWKSURI: "https://evil.example/jwks"}, 503, proviso.CodeJWKSURINotAllowed},
		{"sends us to the metadata service", lab.Faults{JWKSURI: "http://169.254.169.254/latest"}, 503, proviso.CodeJWKSURINotAllowed},
		{"never ends", lab.Faults{Huge: 8 << 20}, 503, proviso.CodeDiscoveryMalformed},
		{"shows a login page", lab.Faults{NotJSON: true}, 503, proviso.CodeDiscoveryMalformed},
		{"has a member twice", lab.Faults{DuplicateName: true}, 503, "jwks_malformed"},
		{"publishes a private key", lab.Faults{PrivateKey: true}, 503, proviso.CodeJWKSPrivateKey},
		{"has two keys under one name", lab.Faults{DuplicateKID: true}, 503, proviso.CodeJWKSDuplicateKID},
		{"has two hundred keys", lab.Faults{ManyKeys: 200}, 503, proviso.CodeJWKSTooManyKeys},
		{"has no keys", lab.Faults{Empty: true}, 400, proviso.CodeJWTUnknownKID},
		{"has a weak key", lab.Faults{WeakKey: true}, 400, proviso.CodeJWTUnknownKID},
		{"has an encryption key", lab.Faults{WrongUse: true}, 400, proviso.CodeJWTKeyUse},
	}
	var issuers strings.Builder
	parties := make([]*lab.Issuer, len(cases))
	for i, c := range cases {
		parties[i] = made(lab.NewIssuer(lab.GitHub, lab.IssuerOptions{Keys: []*lab.Key{made(labKey())(t)}}))(t)
		t.Cleanup(func() { _ = parties[i].Close() })
		parties[i].SetFaults(c.faults)
		fmt.Fprintf(&issuers, "  - {name: bad-%d, platform: github, url: %q, allow_private: true, require: {repository_owner_id: \"61200123\"}, role: ci, events: [push]}\n", i, parties[i].URL())
	}
	s := newSite(t, plan{server: "limits: {request_time: 2s}", issuers: issuers.String()})
	s.serve()
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			token, err := parties[i].Token(lab.Job{}, s.url)
			if err != nil {
				t.Error(err)
				return
			}
			r := s.ask(exchangeForm(token, "deploy"))
			if r.granted != nil || r.status != c.status || r.refused.Code != c.code || r.refused.Stage != proviso.StageJob {
				t.Errorf("an issuer that %s: got %s, want %d %s at job", c.name, r, c.status, c.code)
			}
			for _, inner := range []string{"127.0.0.1", "169.254", "10.0.0.7", "evil.example", "dial", "lookup"} {
				if strings.Contains(r.refused.Description, inner) {
					t.Errorf("an issuer that %s: the answer tells a stranger of %s: %s", c.name, inner, r.refused.Description)
				}
			}
		})
	}
	wg.Wait()
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Errorf("a good issuer's job beside them: %s", r)
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
	if n := s.metric("proviso_log_entries"); n != fmt.Sprint(len(cases)+1) {
		t.Errorf("the record has %s entries, want one for each of %d requests", n, len(cases)+1)
	}
}

// A key that is rotated under load refuses nobody, neither on the day when the
// new one signs nor on the day when the old one is withdrawn.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	s.serve()
	const workers, each = 8, 18
	var wg sync.WaitGroup
	var granted atomic.Int64
	// An issuer withdraws a key when no token that it signed is on its way any more.
	var onTheWay sync.RWMutex
	ask := func() bool {
		onTheWay.RLock()
		defer onTheWay.RUnlock()
		token, err := s.github.Token(lab.Job{}, s.url)
		if err != nil {
			t.Error(err)
			return false
		}
		r := s.ask(exchangeForm(token, "deploy"))
		if r.granted == nil {
			t.Errorf("after %d grants: %s", granted.Load(), r)
		}
		return r.granted != nil
	}
	for range workers {
		wg.Go(func() {
			for range each {
				if !ask() {
					return
				}
				switch granted.Add(1) {
				case workers * each / 3:
					if err := s.github.Rotate(); err != nil {
						t.Error(err)
					}
				case workers * each * 2 / 3:
					onTheWay.Lock()
					s.github.Retire()
					onTheWay.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if n := granted.Load(); n != workers*each {
		t.Errorf("%d of %d requests were granted", n, workers*each)
	}
}
