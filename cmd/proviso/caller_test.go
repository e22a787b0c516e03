package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/runner"
	"github.com/proviso-ci/proviso/server"
)

const callerGrants = `  renew: {policy: workload, runner: none, callers: [prod], resource: {tenant: acme}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  also: {policy: workload, callers: [prod], credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy], within: [runner]}}
  held: {policy: workload, runner: bound, callers: [prod], credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
  jobs: {policy: open, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}
`

const workloadPolicy = `package workload

allow if {
	input.identity.kind == "spiffe"
	input.identity.role == "deployer"
	input.identity.tenant == "acme"
	input.identity.issuer == "spiffe://prod.acme.example"
	input.identity.subject == "spiffe://prod.acme.example/ns/prod/sa/deployer"
	input.identity.attributes.ns == "prod"
	not input.runner
}
`

// plant is a site where deployed workloads ask beside the jobs of a fleet.
type plant struct {
	*site
	fleet, prod *lab.SPIFFE
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{}
	p.fleet = made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = p.fleet.Close() })
	p.prod = made(lab.NewSPIFFE("prod.acme.example", "", lab.SPIFFEOptions{}))(t)
	t.Cleanup(func() { _ = p.prod.Close() })
	p.site = newSite(t, plan{https: true, grants: callerGrants,
		policies: map[string]string{"open.rego": openPolicy, "workload.rego": workloadPolicy},
		sections: `runners:
  - {name: fleet, trust_domain: runners.acme.example, bundle: {file: ` + p.fleet.BundleFile() + `}, path: "/runner/{id}"}
  - name: prod
    trust_domain: prod.acme.example
    bundle: {file: ` + p.prod.BundleFile() + `}
    callers: [{path: "/ns/{ns}/sa/deployer", tenant: acme, role: deployer}]`})
	return p
}

func (p *plant) svid(of *lab.SPIFFE, path string) string {
	return made(of.JWTSVID(path, p.url, lab.Claim("jti", made(lab.NewKey("ES256"))(p.t).ID)))(p.t)
}

// subject is a request of a workload with its JWT-SVID as subject_token.
func subject(svid, grant string, more ...string) url.Values {
	return exchangeForm(svid, grant, append([]string{"subject_token_type", proviso.TokenTypeJWTSVID}, more...)...)
}

// asClient is a request of an OAuth client for itself.
func asClient(grant string, more ...string) url.Values {
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {grant}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return form
}

const deployerPath = "/ns/prod/sa/deployer"

// A good SVID makes nobody a caller: neither a runner, nor a workload that the
// configuration doesn't name, nor one whose trust domain the grant doesn't name.
func TestSVIDsThatAreNoCallers(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serve()
	impostor := made(p.prod.Impostor())(t)
	t.Cleanup(func() { _ = impostor.Close() })
	own := p.svid(p.prod, deployerPath)
	x509 := made(p.prod.X509SVID(deployerPath))(t)
	runnersCert := made(p.fleet.X509SVID("/runner/one"))(t)
	id := p.prod.ID(deployerPath)
	spiffe := []string{"client_assertion_type", proviso.ClientAssertionSPIFFE, "client_assertion"}
	for _, c := range []struct {
		name   string
		cert   *tls.Certificate
		form   url.Values
		code   proviso.Code
		stage  proviso.Stage
		status int
	}{
		{"a runner", nil, subject(p.svid(p.fleet, "/runner/one"), "renew"), runner.CodeCallerUnknown, proviso.StageJob, 400},
		{"a runner by its certificate", &runnersCert, asClient("renew", "client_id", p.fleet.ID("/runner/one")), runner.CodeCallerUnknown, proviso.StageJob, 400},
		{"another workload", nil, subject(p.svid(p.prod, "/ns/prod/sa/web"), "renew"), runner.CodeCallerUnknown, proviso.StageJob, 400},
		{"a longer path", nil, subject(p.svid(p.prod, deployerPath+"/x"), "renew"), runner.CodeCallerUnknown, proviso.StageJob, 400},
		{"an impostor", nil, subject(p.svid(impostor, deployerPath), "renew"), proviso.CodeJWTUnknownKID, proviso.StageRunner, 400},
		{"an impostor as a client", nil, asClient("renew", append(spiffe, p.svid(impostor, deployerPath))...), proviso.CodeJWTUnknownKID, proviso.StageRunner, 401},
		{"for somebody else", nil, subject(made(p.prod.JWTSVID(deployerPath, "https://vault.example"))(t), "renew"), proviso.CodeAudMismatch, proviso.StageRunner, 400},
		{"a grant for jobs", nil, subject(own, "jobs"), broker.CodeCallerNotAllowed, proviso.StageJob, 400},
		{"another namespace", nil, subject(p.svid(p.prod, "/ns/test/sa/deployer"), "renew"), proviso.CodePolicyDenied, proviso.StagePolicy, 400},
		{"a copy where a key is wanted", nil, subject(own, "held"), broker.CodeRunnerUnbound, proviso.StageRunner, 400},
		{"a job's token as an SVID", nil, subject(p.token(lab.Job{}), "renew"), proviso.CodeSubInvalid, proviso.StageRunner, 400},
		{"an SVID as a job's token", nil, exchangeForm(own, "renew"), proviso.CodeIssuerUnknown, proviso.StageJob, 400},
		{"a job's token and nothing else", nil, exchangeForm(p.token(lab.Job{}), "renew"), proviso.CodePolicyDenied, proviso.StagePolicy, 400},
		{"with a runner", nil, subject(own, "renew", "actor_token", own, "actor_token_type", proviso.TokenTypeJWT), proviso.CodeRequestMalformed, proviso.StageRequest, 400},
		{"with another's certificate", &runnersCert, subject(own, "renew"), proviso.CodeActorMismatch, proviso.StageRunner, 400},
		{"a client without a proof", nil, asClient("renew"), server.CodeClientAuthMissing, proviso.StageRequest, 401},
		{"a client that says who it is", nil, asClient("renew", "client_id", id), server.CodeClientAuthMissing, proviso.StageRequest, 401},
		{"a certificate without client_id", &x509, asClient("renew"), server.CodeClientAuthMissing, proviso.StageRequest, 401},
		{"a certificate and another client_id", &x509, asClient("renew", "client_id", id+"2"), runner.CodeClientMismatch, proviso.StageRunner, 401},
		{"a JWT-SVID and another client_id", nil, asClient("renew", append(spiffe, own, "client_id", id+"2")...), runner.CodeClientMismatch, proviso.StageRunner, 401},
		{"another assertion type", nil, asClient("renew", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion", own), proviso.CodeClientAuthUnsupported, proviso.StageRequest, 401},
		{"a type without an assertion", nil, asClient("renew", "client_assertion_type", proviso.ClientAssertionSPIFFE), proviso.CodeRequestMalformed, proviso.StageRequest, 400},
		{"a secret", nil, asClient("renew", "client_secret", "s3cret", "client_id", id), proviso.CodeClientAuthUnsupported, proviso.StageRequest, 401},
		{"a client with a subject", nil, asClient("renew", append(spiffe, own, "subject_token", own)...), proviso.CodeRequestMalformed, proviso.StageRequest, 400},
	} {
		r := made(p.askWith(p.holding(c.cert), c.form))(t)
		if r.granted != nil || r.refused.Code != c.code || r.refused.Stage != c.stage || r.status != c.status {
			t.Errorf("%s: %s, want %d %s at %s", c.name, r, c.status, c.code, c.stage)
		}
		if strings.Contains(r.refused.Description, own[len(own)/2:]) {
			t.Errorf("%s: the refusal quotes the SVID", c.name)
		}
	}
}

// A deployed workload without a job asks at the same door, under the same
// policy: with its JWT-SVID as subject_token, or as an OAuth client that
// authenticates by its SVID of either kind.
func TestWorkloadAsksForItself(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	b, _ := p.serve()
	svid, x509 := p.svid(p.prod, deployerPath), made(p.prod.X509SVID(deployerPath))(t)
	id := p.prod.ID(deployerPath)
	assertion := []string{"client_assertion_type", proviso.ClientAssertionSPIFFE, "client_assertion"}
	get := func(what string, cert *tls.Certificate, form url.Values, code proviso.Code) {
		t.Helper()
		r := made(p.askWith(p.holding(cert), form))(t)
		switch {
		case code != "" && (r.granted != nil || r.refused.Code != code):
			t.Errorf("%s: %s, want %s", what, r, code)
		case code != "":
		case r.granted == nil:
			t.Errorf("%s: %s", what, r)
		default:
			if claims := payload(t, r.granted.AccessToken); claims["sub"] != id || claims["act"] != nil {
				t.Errorf("%s: the token is %v's", what, claims["sub"])
			}
		}
	}
	get("its JWT-SVID", nil, subject(svid, "renew"), "")
	get("the same again", nil, subject(svid, "renew"), proviso.CodeReplay)
	get("the same as a client", nil, asClient("renew", append(assertion, svid)...), proviso.CodeReplay)
	get("the same for another grant", nil, subject(svid, "also"), "")
	get("another one", nil, subject(p.svid(p.prod, deployerPath), "renew"), "")
	get("as a client", nil, asClient("renew", append(assertion, p.svid(p.prod, deployerPath), "client_id", id)...), "")
	for range 2 { // nothing is repeated: each handshake is a proof of its own
		get("by mutual TLS", &x509, asClient("renew", "client_id", id), "")
		get("by mutual TLS where the key is wanted", &x509, asClient("held", "client_id", id), "")
	}
	get("by both", &x509, subject(p.svid(p.prod, deployerPath), "renew"), "")

	// A ban is of a SPIFFE ID, whoever has it: nothing new is proof enough.
	noError(t, b.broker.Fleet.Ban(t.Context(), id, "it was taken over"))
	get("banned, by a new JWT-SVID", nil, subject(p.svid(p.prod, deployerPath), "renew"), fleet.CodeRunnerBanned)
	get("banned, as a client", nil, asClient("renew", append(assertion, p.svid(p.prod, deployerPath))...), fleet.CodeRunnerBanned)
	get("banned, by mutual TLS", &x509, asClient("held", "client_id", id), fleet.CodeRunnerBanned)
	noError(t, b.broker.Fleet.Unban(t.Context(), id, "it was not"))
	get("no longer banned", nil, subject(p.svid(p.prod, deployerPath), "renew"), "")
}

// The commands ask for a workload that runs no job when they are told to, by its
// SVID of either kind; what comes without a job and without being told is nobody.
func TestCommandsAskForAWorkload(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serve()
	ca := p.write("web.pem", string(p.web.PEM()))
	run := func(socket string, args ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, said bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "proviso", append([]string{args[0], "--broker", p.url, "--ca", ca}, args[1:]...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + p.dir}
		if socket != "" {
			cmd.Env = append(cmd.Env, "SPIFFE_ENDPOINT_SOCKET="+socket)
		}
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), said.String()
	}
	socket := p.prod.Socket()
	for _, c := range []struct {
		name, path, socket string
		args               []string
		code               int
		says               string
	}{
		{"a workload that nobody may be", "/ns/prod/sa/web", socket, []string{"token", "--grant", "renew", "--workload", "x509"}, exitRefused, "caller_unknown"},
		{"a grant for jobs", deployerPath, socket, []string{"token", "--grant", "jobs", "--workload", "x509"}, exitRefused, "caller_not_allowed"},
		{"policy says no", "/ns/test/sa/deployer", socket, []string{"token", "--grant", "renew", "--workload", "jwt"}, exitRefused, "policy_denied"},
		{"a copy where the key is wanted", deployerPath, socket, []string{"token", "--grant", "held", "--workload", "jwt"}, exitRefused, "--workload x509"},
		{"nobody said so", deployerPath, socket, []string{"token", "--grant", "renew"}, exitMisuse, "let it ask for itself: --workload x509"},
		{"nobody knows the socket", deployerPath, "", []string{"token", "--grant", "renew", "--workload", "x509"}, exitMisuse, "--workload x509: SPIFFE_ENDPOINT_SOCKET is not set"},
		{"a kind that there isn't", deployerPath, socket, []string{"token", "--grant", "renew", "--workload", "auto"}, exitMisuse, "write jwt or x509"},
		{"with a runner", deployerPath, socket, []string{"token", "--grant", "renew", "--workload", "jwt", "--runner", "jwt"}, exitMisuse, "leave --runner"},
		{"a process that nobody registered", "", socket, []string{"token", "--grant", "renew", "--workload", "x509"}, exitRefused, "knows no identity"},
	} {
		if p.prod.Serve(); c.path != "" {
			p.prod.Serve(c.path)
		}
		code, stdout, stderr := run(c.socket, c.args...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: %d, want %d and %q: %s%s", c.name, code, c.code, c.says, stdout, stderr)
		}
	}
	p.prod.Serve(deployerPath)
	for _, args := range [][]string{
		{"token", "--grant", "renew", "--workload", "x509"},
		{"token", "--grant", "held", "--workload", "x509"},
		{"token", "--grant", "renew", "--workload", "jwt"},
		{"token", "--grant", "renew", "--workload", "x509", "--scope", "deploy"},
	} {
		code, stdout, stderr := run(socket, args...)
		if code != exitDone {
			t.Errorf("%v: %d %s", args, code, stderr)
			continue
		}
		if sub := payload(t, strings.TrimSpace(stdout))["sub"]; sub != p.prod.ID(deployerPath) {
			t.Errorf("%v: the token is %v's", args, sub)
		}
	}
	code, stdout, stderr := run(socket, "exec", "--grant", "also", "--workload", "x509", "--file", "token", "--", "sh", "-c", `cut -d. -f1 "$PROVISO_TOKEN_FILE" | cut -c1-3`)
	if code != exitDone || stdout != "eyJ\n" || !strings.Contains(stderr, "renewed while CMD runs") {
		t.Errorf("exec: %d %s%s", code, stdout, stderr)
	}
}

// The runner of a job may authenticate as the OAuth client that sends the job's token.
func TestRunnerAuthenticatesAsClient(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serve()
	id := p.fleet.ID("/runner/one")
	assertion := []string{"client_assertion_type", proviso.ClientAssertionSPIFFE, "client_assertion", p.svid(p.fleet, "/runner/one")}
	cert := made(p.fleet.X509SVID("/runner/one"))(t)
	for _, c := range []struct {
		name   string
		cert   *tls.Certificate
		more   []string
		status int
	}{
		{"by a JWT-SVID", nil, append(assertion, "client_id", id), http.StatusOK},
		{"by mutual TLS", &cert, []string{"client_id", id}, http.StatusOK},
		{"as somebody else", &cert, []string{"client_id", id + "2"}, http.StatusUnauthorized},
		{"as somebody without a proof", nil, []string{"client_id", id}, http.StatusUnauthorized},
		{"with two proofs", nil, append(assertion, "actor_token", assertion[3], "actor_token_type", proviso.TokenTypeJWT), http.StatusBadRequest},
	} {
		if r := made(p.askWith(p.holding(c.cert), exchangeForm(p.token(lab.Job{}), "jobs", c.more...)))(t); r.status != c.status {
			t.Errorf("%s: %s, want %d", c.name, r, c.status)
		}
	}
}

// payload reads a token's claims without believing them.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("this is no JWT")
	}
	var claims map[string]any
	noError(t, json.Unmarshal(made(base64.RawURLEncoding.DecodeString(parts[1]))(t), &claims))
	return claims
}
