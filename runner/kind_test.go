package runner_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/runner"
)

// Further kinds of evidence come in by one door, alone or beside an SVID, and
// prove nothing by being unknown, failing or expired.
func TestFurtherKinds(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	plain := runner.Finding{ID: "trusted-runner-1", Region: "eu-1", Environment: "hosted", Assurance: 2, Attributes: map[string]string{"account": "42"},
		Hash: strings.Repeat("ab", 32), Expires: frozen.Add(10 * time.Minute)}
	found, failure := plain, error(nil)
	v, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Now: func() time.Time { return frozen }, Log: quiet,
		Kinds: []runner.Kind{{Name: "cloud", Verify: func(_ context.Context, shown runner.Shown) (runner.Finding, error) {
			if shown.Text != "document" {
				return runner.Finding{}, proviso.Refuse(proviso.StageRunner, proviso.CodeSVIDInvalid, "no document")
			}
			return found, failure
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	show := func(kind, evidence string, leaf *x509.Certificate) (runner.Runner, error) {
		ev := runner.Evidence{Other: map[string]string{kind: evidence}}
		if leaf != nil {
			ev.Certificates = []*x509.Certificate{leaf}
		}
		return verify(v, ev)
	}
	r, err := show("cloud", "document", nil)
	want := `{"assurance":2,"attestation":"cloud","attributes":{"account":"42"},"bound":false,"environment":"hosted","id":"trusted-runner-1","region":"eu-1"}`
	if err != nil || r.Document().String() != want || r.IsZero() || r.Name() != "cloud" {
		t.Errorf("alone: %s, %v", r.Document(), err)
	}
	r, err = show("cloud", "document", a.leaf(goodID))
	if err != nil || r.Attestation() != runner.AttestationX509 || !r.Expires().Equal(plain.Expires) {
		t.Errorf("beside an SVID: %s until %s, %v", r.Attestation(), r.Expires(), err)
	}
	_, err = show("cloud", "document", a.leaf(goodID+"2"))
	wantRefusal(t, err, proviso.CodeActorMismatch, "one runner")
	_, err = show("cloud", "rubbish", nil)
	wantRefusal(t, err, proviso.CodeSVIDInvalid, "no document")
	_, err = show("quantum", "document", nil)
	wantRefusal(t, err, proviso.CodeTokenTypeUnsupported, "quantum")
	for name, f := range map[string]runner.Finding{"nothing": {}, "expired": {ID: "x", Hash: "y", Expires: frozen}, "no hash": {ID: "x", Expires: plain.Expires}} {
		found = f
		_, err = show("cloud", "document", nil)
		wantRefusal(t, err, proviso.CodeInternal, "proved nothing")
		if err == nil {
			t.Error(name)
		}
	}
	failure = errors.New("10.1.2.3 is down")
	_, err = show("cloud", "document", nil)
	var refusal *proviso.Refusal
	if !errors.As(err, &refusal) || strings.Contains(refusal.Public, "10.1.2.3") {
		t.Errorf("a failure: %v", err)
	}
}
