package main

import (
	"crypto/tls"
	"os"
	"os/exec"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
)

const boundGrants = `  one: {policy: open, runner: bound, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  two: {policy: open, runner: bound, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  any: {policy: open, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  key: {policy: keyed, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  own: {policy: open, runner_from: [fleet], credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
`

// yard is a site with two trust domains of runners.
type yard struct {
	*site
	fleet, partner *lab.SPIFFE
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{}
	y.fleet = made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = y.fleet.Close() })
	y.partner = made(lab.NewSPIFFE("partner.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = y.partner.Close() })
	y.site = newSite(t, plan{https: true, grants: boundGrants,
		policies: map[string]string{"open.rego": openPolicy, "keyed.rego": "package keyed\n\nallow if input.runner.binding == \"key\"\n"},
		sections: `runners:
  - {name: fleet, trust_domain: runners.acme.example, bundle: {file: ` + y.fleet.BundleFile() + `}, path: "/runner/{id}"}
  - {name: partner, trust_domain: partner.example, bundle: {file: ` + y.partner.BundleFile() + `}, path: "/runner/{id}"}`})
	return y
}

// try asks for a grant as a runner would, and compares the answer's code; "" is
// a credential.
func (y *yard) try(what string, cert *tls.Certificate, token, grant string, code proviso.Code, stage proviso.Stage, more ...string) {
	y.t.Helper()
	r := made(y.askWith(y.holding(cert), exchangeForm(token, grant, more...)))(y.t)
	switch {
	case code == "" && r.granted == nil:
		y.t.Errorf("%s: %s, want a credential", what, r)
	case code != "" && (r.granted != nil || r.refused.Code != code || r.refused.Stage != stage):
		y.t.Errorf("%s: %s, want %s at %s", what, r, code, stage)
	}
}

// A captured job token is useless on another attested runner: once it was used,
// no other runner gets anything for it, of any grant; and one that names its
// runner's key never works anywhere else.
func TestCapturedJobTokenOnAnotherRunner(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.serve()
	own, thief := made(y.fleet.X509SVID("/runner/own"))(t), made(y.fleet.X509SVID("/runner/thief"))(t)
	token := y.token(lab.Job{})
	y.try("the job's own runner", &own, token, "one", "", "")
	y.try("the same grant, elsewhere", &thief, token, "one", proviso.CodeRunnerJobMismatch, proviso.StageRunner)
	y.try("another grant, elsewhere", &thief, token, "two", proviso.CodeRunnerJobMismatch, proviso.StageRunner)
	y.try("another grant that wants less", nil, token, "any", proviso.CodeRunnerJobMismatch, proviso.StageRunner,
		"actor_token", made(y.fleet.JWTSVID("/runner/thief", y.url))(t), "actor_token_type", proviso.TokenTypeJWT)
	y.try("another grant, on its own runner", &own, token, "two", "", "")
	y.try("the same grant again", &own, token, "two", proviso.CodeReplay, proviso.StageRecord)

	keyed := y.github
	mine := made(keyed.Token(lab.Job{}, proviso.KeyedAudience(y.url, runner.KeyThumbprint(own.Leaf))))(t)
	y.try("first of all elsewhere", &thief, mine, "one", proviso.CodeCnfMismatch, proviso.StageJob)
	y.try("without a runner", nil, mine, "any", proviso.CodeCnfMismatch, proviso.StageJob)
	y.try("with a copied JWT-SVID", nil, mine, "any", proviso.CodeCnfMismatch, proviso.StageJob,
		"actor_token", made(y.fleet.JWTSVID("/runner/own", y.url))(t), "actor_token_type", proviso.TokenTypeJWT)
	y.try("on the runner whose key it names", &own, mine, "key", "", "")
	y.try("a token without a key where policy wants one", &own, y.token(lab.Job{}), "key", proviso.CodePolicyDenied, proviso.StagePolicy)
	bad := made(keyed.Token(lab.Job{}, y.url+"#jkt=short"))(t)
	y.try("an audience that names no key", &own, bad, "one", proviso.CodeAudMismatch, proviso.StageJob)
}

// The reverse: evidence that was captured is useless with another job's token. A
// JWT-SVID can be copied, and ties nothing; a certificate can't be shown without
// its key at all.
func TestCapturedEvidenceWithAnotherJob(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.serve()
	captured := []string{"actor_token", made(y.fleet.JWTSVID("/runner/own", y.url))(t), "actor_token_type", proviso.TokenTypeJWT}
	y.try("a JWT-SVID beside another job's token", nil, y.token(lab.Job{}), "one", broker.CodeRunnerUnbound, proviso.StageRunner, captured...)
	thief := made(y.fleet.X509SVID("/runner/thief"))(t)
	y.try("beside the thief's own certificate", &thief, y.token(lab.Job{}), "one", proviso.CodeActorMismatch, proviso.StageRunner, captured...)
	y.try("where no binding is wanted", nil, y.token(lab.Job{}), "any", "", "", captured...)
}

// A grant names the trust domains whose runners it takes.
func TestGrantTakesRunnersOfItsDomains(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.serve()
	own, foreign := made(y.fleet.X509SVID("/runner/one"))(t), made(y.partner.X509SVID("/runner/one"))(t)
	y.try("its own fleet", &own, y.token(lab.Job{}), "own", "", "")
	y.try("the partner's runner of the same id", &foreign, y.token(lab.Job{}), "own", broker.CodeRunnerEntry, proviso.StageRunner)
	y.try("where the partner counts", &foreign, y.token(lab.Job{}), "any", "", "")
}

// A grant that names whose runners it takes, and wants none, is for a job that
// shows none too, though its platform says a word about the machine: policy sees
// no runner then. A runner that is shown has to be of those.
func TestOptionalRunnersOfNamedEntries(t *testing.T) {
	t.Parallel()
	fleet, partner := made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t), made(lab.NewSPIFFE("partner.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _, _ = fleet.Close(), partner.Close() })
	const credential = `credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}` + "\n"
	y := &yard{fleet: fleet, partner: partner}
	y.site = newSite(t, plan{https: true,
		policies: map[string]string{"shown.rego": "package shown\n\nallow if input.runner.attestation == \"spiffe-x509\"\n", "absent.rego": "package absent\n\nallow if {\n\tinput.identity.role == \"ci\"\n\tnot input.runner\n}\n",
			"word.rego": "package word\n\nallow if input.runner.attestation == \"platform\"\n"},
		grants: `  absent: {policy: absent, runner: optional, runner_from: [fleet], ` + credential + `  shown: {policy: shown, runner: optional, runner_from: [fleet], ` + credential +
			`  word: {policy: word, runner: optional, runner_from: [hosted], ` + credential + `  anybody: {policy: word, runner: optional, ` + credential +
			`  wanted: {policy: absent, runner_from: [fleet], assurance: 1, ` + credential,
		sections: `runners:
  - {name: fleet, trust_domain: runners.acme.example, bundle: {file: ` + fleet.BundleFile() + `}, path: "/runner/{id}"}
  - {name: partner, trust_domain: partner.example, bundle: {file: ` + partner.BundleFile() + `}, path: "/runner/{id}"}
  - {name: hosted, platform: {issuer: github, environments: [self-hosted, hosted]}}`})
	y.serve()
	own, foreign := made(fleet.X509SVID("/runner/one"))(t), made(partner.X509SVID("/runner/one"))(t)
	y.try("no runner where one is wanted", nil, y.token(lab.Job{}), "wanted", proviso.CodeRunnerRequired, proviso.StageRunner)
	y.try("another domain's runner where none need be", &foreign, y.token(lab.Job{}), "absent", broker.CodeRunnerEntry, proviso.StageRunner)
	y.try("another domain's runner beside a policy that wants one", &foreign, y.token(lab.Job{}), "shown", broker.CodeRunnerEntry, proviso.StageRunner)
	y.try("no runner, and policy wants one", nil, y.token(lab.Job{}), "shown", proviso.CodePolicyDenied, proviso.StagePolicy)
	y.try("a shown runner where the platform's word is named", &own, y.token(lab.Job{}), "word", broker.CodeRunnerEntry, proviso.StageRunner)
	y.try("no runner", nil, y.token(lab.Job{}), "absent", "", "")
	y.try("a runner", &own, y.token(lab.Job{}), "shown", "", "")
	y.try("the platform's word where it is named", nil, y.token(lab.Job{}), "word", "", "")
	y.try("the platform's word where nothing is named", nil, y.token(lab.Job{}), "anybody", "", "")
}

// proviso exec --runner x509 asks for a job's token that serves with the key of
// the runner's X.509-SVID alone, where the platform lets it.
func TestExecBindsTheJobToTheRunnersKey(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.serve()
	y.fleet.Serve("/runner/own")
	ca := y.write("web.pem", string(y.web.PEM()))
	job := y.github.Start(lab.Job{})
	cmd := exec.CommandContext(t.Context(), "proviso", "exec", "--grant", "key", "--runner", "x509", "--ca", ca, "--broker", y.url, "--", "true")
	cmd.Env = append(os.Environ(), made(job.Environment(y.url))(t)...)
	cmd.Env = append(cmd.Env, "SPIFFE_ENDPOINT_SOCKET="+y.fleet.Socket())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
