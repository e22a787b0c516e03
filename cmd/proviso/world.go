package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/proviso-ci/proviso/examples/policies"
	"github.com/proviso-ci/proviso/gate"
	"github.com/proviso-ci/proviso/lab"
)

// world is the lab that demo and dev play in: every other party of a pipeline,
// on real sockets, and a real broker between them, built from a configuration
// file that lies in the world's directory for people to read.
type world struct {
	dir     string
	github  *lab.Issuer
	gitlab  *lab.Issuer
	runners *lab.SPIFFE
	rogue   *lab.SPIFFE // a trust domain that nobody configured
	tickets *lab.Records
	oncall  *lab.Records
	repo    *lab.Repository
	signed  string // commits on main
	bare    string // an unsigned one on main
	release string // a signed one on release/1.2

	url      string // the broker's
	gate     *gate.Gate
	resource *lab.Resource
	broker   *running
	config   *Config
	closers  []func() error
}

// Names that the demo's files and scenes share.
const (
	worldAudience = "https://deploy.acme.example"
	worldDomain   = "runners.acme.example"
	trustedRunner = "/region/us-west-2/runner/trusted-runner-1"
	strayRunner   = "/region/eu-north-1/runner/lab-runner-9"
)

// newWorld starts everything. The broker listens on address; ":0" of loopback
// picks a port.
func newWorld(ctx context.Context, address string, logger *slog.Logger) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "proviso-"); err != nil {
		return nil, err
	}
	w.onClose(func() error { return os.RemoveAll(w.dir) })
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	w.url = "http://" + listener.Addr().String()
	if err := w.startParties(ctx); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	file, err := w.writeFiles(listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if w.config, _, err = readConfig(file); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if w.broker, err = start(ctx, w.config, logger); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan error, 1)
	go func() { stopped <- w.broker.server.Serve(serving, listener) }()
	w.onClose(func() error { cancel(); return errors.Join(<-stopped, w.broker.close()) })
	return w, w.startResource(serving)
}

// startParties starts everybody but the broker.
func (w *world) startParties(ctx context.Context) (err error) {
	if w.github, err = lab.NewIssuer(lab.GitHub, lab.IssuerOptions{}); err != nil {
		return err
	}
	w.onClose(w.github.Close)
	if w.gitlab, err = lab.NewIssuer(lab.GitLab, lab.IssuerOptions{}); err != nil {
		return err
	}
	w.onClose(w.gitlab.Close)
	if w.runners, err = lab.NewSPIFFE(worldDomain, "", lab.SPIFFEOptions{}); err != nil {
		return err
	}
	w.onClose(w.runners.Close)
	w.runners.Serve(trustedRunner)
	if w.rogue, err = w.runners.Impostor(); err != nil {
		return err
	}
	w.onClose(w.rogue.Close)
	if w.tickets, err = lab.NewRecords(lab.RecordsOptions{}); err != nil {
		return err
	}
	w.onClose(w.tickets.Close)
	w.tickets.Approve("CHG-42", "critical", "robin")
	if w.oncall, err = lab.NewRecords(lab.RecordsOptions{}); err != nil {
		return err
	}
	w.onClose(w.oncall.Close)
	w.oncall.OnCall("dana-deployer", time.Now().Add(time.Hour))
	w.oncall.OnCall("sam-sleeper", time.Time{})
	return w.startRepository(ctx)
}

// startRepository makes a repository with a signed and an unsigned commit.
func (w *world) startRepository(ctx context.Context) (err error) {
	dir := filepath.Join(w.dir, "git")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if w.repo, err = lab.NewRepository(ctx, dir); err != nil {
		return err
	}
	w.onClose(w.repo.Close)
	dana, err := w.repo.NewPerson(ctx, "Dana Deployer", "dana@acme.example", true)
	if err != nil {
		return err
	}
	if w.bare, err = w.repo.Commit(ctx, lab.Commit{Message: "An unsigned change"}); err != nil {
		return err
	}
	if w.signed, err = w.repo.Commit(ctx, lab.Commit{Message: "A signed change", Signer: dana}); err != nil {
		return err
	}
	w.release, err = w.repo.Commit(ctx, lab.Commit{Branch: "release/1.2", Message: "A signed backport", Signer: dana})
	return err
}

// writeFiles writes what an operator would: the configuration, the policies,
// the bearers of the systems that the broker asks.
func (w *world) writeFiles(listen string) (string, error) {
	for name, secret := range map[string]string{"tickets.bearer": w.tickets.Bearer(), "oncall.bearer": w.oncall.Bearer()} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(secret), 0o600); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(w.dir, "policy")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := copyPolicies(dir); err != nil {
		return "", err
	}
	var text strings.Builder
	err := template.Must(template.New("").Parse(worldConfig)).Execute(&text, map[string]string{
		"Listen": listen, "URL": w.url, "GitHub": w.github.URL(), "GitLab": w.gitlab.URL(), "Bundle": w.runners.BundleFile(),
		"Tickets": w.tickets.URL(), "OnCall": w.oncall.URL(), "Repository": w.repo.Dir(), "Signers": w.repo.AllowedSigners(),
		"Zone": officeZone(time.Now()), "Domain": worldDomain, "Audience": worldAudience,
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(w.dir, "proviso.yaml")
	return file, os.WriteFile(file, []byte(text.String()), 0o644)
}

// copyPolicies writes the seed's six policies word for word, and one that
// fails, for the scene in which it does.
func copyPolicies(dir string) error {
	files, err := fs.Glob(policies.Files, "seed/*.rego")
	if err != nil {
		return err
	}
	for _, name := range files {
		data, err := policies.Files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "broken.rego"), []byte(brokenPolicy), 0o644)
}

// brokenPolicy compiles, and fails when it is asked: two rules disagree.
const brokenPolicy = `package broken

level := "high" if input.context.branch == "main"

level := "low" if input.context.environment == "production"

allow if level == "high"
`

// officeZone names a zone in which it is late morning now, so that a policy
// with office hours can be played at any hour. The clock itself is real.
func officeZone(now time.Time) string {
	offset := 11 - now.UTC().Hour() // 11:xx there
	if offset > 12 {
		offset -= 24
	}
	if offset < -12 {
		offset += 24
	}
	if offset == 0 {
		return "UTC"
	}
	return fmt.Sprintf("Etc/GMT%+d", -offset) // POSIX: the sign is the other way round
}

// startResource starts the protected service with the gate in front of it.
func (w *world) startResource(ctx context.Context) (err error) {
	var guarded http.Handler // made once the resource's own URL is known, which DPoP proofs must name
	w.resource, err = lab.NewResource(lab.ResourceOptions{Guard: func(service http.Handler) http.Handler {
		guarded = service
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { guarded.ServeHTTP(rw, r) })
	}})
	if err != nil {
		return err
	}
	w.onClose(w.resource.Close)
	w.gate, err = gate.New(gate.Config{Issuer: w.url, Audience: worldAudience, Origin: w.resource.URL(), DPoPNonce: "never"}, gate.Options{})
	if err != nil {
		return err
	}
	w.gate.Start(ctx)
	w.onClose(func() error { w.gate.Close(); return nil })
	guarded = w.gate.Middleware(guarded)
	return nil
}

func (w *world) onClose(f func() error) { w.closers = append(w.closers, f) }

func (w *world) close() error {
	var err error
	for i := len(w.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, w.closers[i]())
	}
	w.closers = nil
	return err
}

// worldConfig is the broker's configuration in the lab. It differs from a real
// one in what is on loopback, and in nothing else.
const worldConfig = `server:
  listen: {{.Listen}}
  url: {{.URL}}
store: data
log: {level: error, format: text}
issuers:
  - name: github
    platform: github
    url: {{.GitHub}}
    allow_private: true                          # the lab is on loopback
    require: {repository_owner_id: "61200123"}   # acme-ship, whatever it is called tomorrow
    tenant: acme
    role: ci-cd-pipeline
    events: [push, workflow_dispatch]
  - name: gitlab
    platform: gitlab
    url: {{.GitLab}}
    allow_private: true
    tenant: globex
    role: ci-cd-pipeline
    events: [push]
runners:
  - name: fleet
    trust_domain: {{.Domain}}
    bundle: {file: {{.Bundle}}}
    path: /region/{region}/runner/{id}
facts:
  git:
    dir: mirrors
    repositories:
      - {issuer: github, repository_id: "741200456", url: "file://{{.Repository}}"}
    allowed_signers: {{.Signers}}
  http:
    - name: tickets
      url: {{.Tickets}}/{intent.ticket_id}
      allow_private: true
      bearer_file: tickets.bearer
      keys:
        ticket_approved: {pointer: /status, equals: approved}   # a fact, whatever the job says
    - name: rota
      url: {{.OnCall}}/{identity.actor}
      allow_private: true
      bearer_file: oncall.bearer
      keys:
        on_call: {pointer: /on_call}
policy: {dir: policy, zone: {{.Zone}}}
grants:
  deploy-production:
    resource: {service: shipping, environment: production, tenant: acme}
    policy: deployment_approval
    runner: optional
    credential: {kind: jwt, audience: {{.Audience}}, scope: [deploy, rollback]}
  deploy-critical:
    resource: {service: critical, environment: production, tenant: acme}
    policy: ticket_approval
    runner: optional
    credential: {kind: jwt, audience: {{.Audience}}, scope: [deploy]}
  read-tenant-data:
    resource: {service: orders, environment: production, tenant: acme}
    policy: tenant_isolation
    runner: none
    credential: {kind: jwt, audience: {{.Audience}}, scope: [read]}
  deploy-from-fleet:
    resource: {service: shipping, environment: production, tenant: acme}
    policy: runner_trust
    credential: {kind: jwt, audience: {{.Audience}}, scope: [deploy]}
  debug:
    resource: {service: orders-database, environment: production, tenant: acme}
    policy: debug_access
    runner: optional
    credential: {kind: jwt, audience: {{.Audience}}, scope: [read]}
    max_ttl: 30m
  hotfix:
    resource: {service: shipping, environment: production, tenant: acme}
    policy: hotfix_annotation
    runner: optional
    credential: {kind: jwt, audience: {{.Audience}}, scope: [deploy]}
  broken:
    resource: {service: shipping, environment: production, tenant: acme}
    policy: broken
    runner: none
    credential: {kind: jwt, audience: {{.Audience}}, scope: [deploy]}
`
