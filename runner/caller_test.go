package runner_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/runner"
)

const deployer = "spiffe://" + domain + "/ns/prod/sa/deployer"

func withCaller(c runner.Caller) func(*runner.Config) {
	c.Path = "/ns/{ns}/sa/deployer"
	return func(cfg *runner.Config) { cfg.Callers = []runner.Caller{c} }
}

// A caller's JWT-SVID is held to the replay mode and the age that are configured.
func TestCallersJWTSVID(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	svid := func(change func(c map[string]any)) string {
		claims := a.claims()
		claims["sub"] = deployer
		change(claims)
		return a.token(claims, nil)
	}
	for _, c := range []struct {
		name   string
		caller runner.Caller
		change func(c map[string]any)
		code   proviso.Code
		mode   string
	}{
		{"as agents make it", runner.Caller{}, func(map[string]any) {}, "", identity.ReplayToken},
		{"by a jti that isn't there", runner.Caller{Replay: "jti"}, func(map[string]any) {}, proviso.CodeJTIMissing, ""},
		{"by its jti", runner.Caller{Replay: "jti"}, func(c map[string]any) { c["jti"] = "7" }, "", identity.ReplayJTI},
		{"by nothing", runner.Caller{Replay: "off"}, func(map[string]any) {}, "", identity.ReplayOff},
		{"young enough", runner.Caller{MaxAge: time.Minute}, func(map[string]any) {}, "", identity.ReplayToken},
		{"too old", runner.Caller{MaxAge: time.Minute}, func(c map[string]any) { c["iat"] = frozen.Add(-2 * time.Minute).Unix() }, identity.CodeTokenTooOld, ""},
		{"of no known age", runner.Caller{MaxAge: time.Minute}, func(c map[string]any) { delete(c, "iat") }, proviso.CodeIatMissing, ""},
	} {
		v := a.verifier(withCaller(c.caller))
		job, err := v.Caller(t.Context(), runner.Evidence{JWTSVID: svid(c.change)})
		if c.code != "" {
			var r *proviso.Refusal
			if !errors.As(err, &r) || r.Code != c.code || r.Stage != proviso.StageJob {
				t.Errorf("%s: %v, want %s", c.name, err, c.code)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		mode, _ := job.Replay()
		id := job.Identity()
		if mode != c.mode || id.Subject != deployer || id.Attributes["ns"] != "prod" || id.Attestation != runner.AttestationJWT || job.Issuer() != "fleet" {
			t.Errorf("%s: mode %q, %+v", c.name, mode, id)
		}
	}
}

// A caller's JWT-SVID that names a key asks the exchange for its proof.
func TestCallersKey(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	claims := a.claims()
	claims["sub"], claims["cnf"] = deployer, map[string]any{"jkt": "abc"}
	job, err := a.verifier(withCaller(runner.Caller{})).Caller(t.Context(), runner.Evidence{JWTSVID: a.token(claims, nil)})
	if err != nil || job.Confirmation() != "abc" {
		t.Errorf("%q, %v", job.Confirmation(), err)
	}
}

// A caller is no runner, and a runner no caller, although one authority vouches
// for both.
func TestCallersAndRunnersAreApart(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier(withCaller(runner.Caller{}))
	_, err := verify(v, runner.Evidence{Certificates: []*x509.Certificate{a.leaf(deployer)}})
	wantRefusal(t, err, runner.CodeRunnerPath, "template of a runner")
	_, err = v.Caller(t.Context(), runner.Evidence{Certificates: []*x509.Certificate{a.leaf(goodID)}})
	var r *proviso.Refusal
	if !errors.As(err, &r) || r.Code != runner.CodeCallerUnknown {
		t.Errorf("a runner asks for itself: %v", err)
	}
	if _, err := v.Caller(t.Context(), runner.Evidence{}); !errors.As(err, &r) || r.Code != runner.CodeCallerUnknown {
		t.Errorf("nobody asks for itself: %v", err)
	}
	if job, err := v.Caller(t.Context(), runner.Evidence{Certificates: []*x509.Certificate{a.leaf(deployer)}}); err != nil || job.Identity().Attestation != runner.AttestationX509 {
		t.Errorf("the caller: %v", err)
	}
}

func TestCallerConfigProblems(t *testing.T) {
	for name, c := range map[string]struct {
		callers []runner.Caller
		path    string
	}{
		"no path":         {[]runner.Caller{{}}, "[0].callers[0].path"},
		"a bad path":      {[]runner.Caller{{Path: "/ns/../x"}}, "[0].callers[0].path"},
		"runners' paths":  {[]runner.Caller{{Path: "/region/eu/runner/special"}}, "[0].callers[0].path"},
		"any path":        {[]runner.Caller{{Path: "/{a}/{b}/{c}/{d}"}}, "[0].callers[0].path"},
		"two for one":     {[]runner.Caller{{Path: "/ns/{ns}/sa/x"}, {Path: "/ns/prod/sa/{sa}"}}, "[0].callers[1].path"},
		"a replay mode":   {[]runner.Caller{{Path: "/x", Replay: "never"}}, "[0].callers[0].replay"},
		"a negative time": {[]runner.Caller{{Path: "/x", MaxAge: -1}}, "[0].callers[0].max_age"},
	} {
		problems := runner.Check([]runner.Config{{Name: "fleet", TrustDomain: domain, Bundle: runner.Bundle{File: "b.json"}, Path: "/region/{region}/runner/{id}", Callers: c.callers}})
		if len(problems) != 1 || problems[0].Path != c.path {
			t.Errorf("%s: got %v, want one problem at %s", name, problems, c.path)
		}
	}
	if p := runner.Check([]runner.Config{{Name: "prod", TrustDomain: domain, Bundle: runner.Bundle{File: "b.json"}, Callers: []runner.Caller{{Path: "/x"}}}}); len(p) > 0 {
		t.Errorf("callers without runners: %v", p)
	}
}
