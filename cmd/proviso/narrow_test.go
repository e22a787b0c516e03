package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// What a policy narrows is narrow all the way to the credential, and stands in
// the record: a lifetime below the grant's and the wish's, a scope cut to the
// policy's words. A policy that wants an approval gives nothing, because nobody
// can approve here.
func TestPolicyNarrowsTheCredential(t *testing.T) {
	t.Parallel()
	guarded := func(policy string) string {
		return "  " + policy + `: {policy: ` + policy + `, runner: none, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy, rollback]}, max_ttl: 30m}` + "\n"
	}
	const allow = "\n\nallow if input.identity.role == \"ci\"\n\n"
	s := newSite(t, plan{grants: guarded("brief") + guarded("narrow") + guarded("nothing") + guarded("asks"), policies: map[string]string{
		"brief.rego":   "package brief" + allow + "limits := {\"ttl\": 120}\n",
		"narrow.rego":  "package narrow" + allow + "limits := {\"scope\": [\"deploy\", \"destroy\"]}\n",
		"nothing.rego": "package nothing" + allow + "limits := {\"scope\": [\"destroy\"]}\n",
		"asks.rego":    "package asks" + allow + "limits := {\"approvals\": 2}\n",
	}})
	s.serve()
	wish := []string{"authorization_details", `[{"type":"proviso_intent","requested_ttl":20}]`}

	r := s.ask(exchangeForm(s.token(lab.Job{}), "brief", wish...))
	if r.granted == nil || r.granted.ExpiresIn > 120 || r.granted.ExpiresIn < 60 {
		t.Errorf("a policy of two minutes gave %s: %+v", r, r.granted)
	}
	_, found := cli(t, "audit", "search", "--store", s.dir+"/data", "--grant", "brief", "--output", "json")
	if !strings.Contains(found, `"limits":{"ttl":120}`) {
		t.Errorf("the record of it has no limits: %s", found)
	}
	r = s.ask(exchangeForm(s.token(lab.Job{}), "narrow", wish...))
	if r.granted == nil || r.granted.ExpiresIn <= 120 || !slices.Equal(strings.Fields(r.granted.Scope), []string{"deploy"}) {
		t.Errorf("a policy of one word gave %s: %+v", r, r.granted)
	}
	for _, refused := range []struct {
		name, grant string
		more        []string
		stage       proviso.Stage
		code        proviso.Code
	}{
		{"more than the policy's scope", "narrow", []string{"scope", "rollback"}, proviso.StageCredential, proviso.CodeScopeNotAllowed},
		{"a policy that leaves no scope", "nothing", nil, proviso.StageCredential, proviso.CodeScopeNotAllowed},
		{"a policy that wants approvals", "asks", nil, proviso.StagePolicy, proviso.CodePolicyDenied},
	} {
		r := s.ask(exchangeForm(s.token(lab.Job{}), refused.grant, refused.more...))
		if r.granted != nil || r.refused.Stage != refused.stage || r.refused.Code != refused.code {
			t.Errorf("%s: %s", refused.name, r)
		}
	}
}
