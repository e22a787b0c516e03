package main

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
	"github.com/proviso-ci/proviso/server"
	"github.com/proviso-ci/proviso/store"
)

func newServeCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Run the broker with a configuration file, until SIGTERM or SIGINT. It then
stops taking requests, finishes those that have begun, and exits 0.

The policy directory is read again when it changes; everything else needs a
restart. proviso config check says what is wrong without starting.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, warnings, err := readConfig(file)
			if err != nil {
				return err
			}
			logger := newLogger(config.Log)
			tuneMemory()
			for _, w := range warnings {
				logger.Warn("configuration", "finding", w)
			}
			if err := config.wrong(config.checkFiles()); err != nil {
				return err
			}
			b, err := start(cmd.Context(), config, logger)
			if wrong := new(configErrors); errors.As(err, &wrong) {
				return wrong
			} else if err != nil {
				return refused(err)
			}
			if err := errors.Join(b.server.Run(cmd.Context()), b.close()); err != nil {
				return refused(err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "proviso.yaml", "the configuration file")
	return cmd
}

// tuneMemory trades memory for CPU: a broker's heap is a few megabytes of keys
// and policies, and requests leave garbage of the same size in a blink. The
// collector runs when the heap has grown fivefold, and more often above 256 MiB.
// GOGC and GOMEMLIMIT still have the last word.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(256 << 20)
	}
}

// running is a broker whose parts are joined; its server isn't listening yet.
type running struct {
	config *Config
	logger *slog.Logger
	db     *store.DB
	log    *audit.Log

	domain     *credential.Domain // the broker's own trust domain; nil without one
	identities *identity.Verifier
	parts      broker.Parts
	broker     *broker.Broker
	server     *server.Server
	closers    []func() error
}

// start builds every part in the order of the flow and joins them. Whatever
// can't be built keeps the broker from starting: there is no half of it.
func start(ctx context.Context, c *Config, logger *slog.Logger) (_ *running, err error) {
	r := &running{config: c, logger: logger, parts: broker.Parts{Logger: logger}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.onClose(func() error { cancel(); return nil })
	for _, build := range []func(context.Context) error{r.openRecord, r.openDomain, r.openEvidence, r.openFlow} {
		if err := build(background); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// openRecord opens what must outlive a restart.
func (r *running) openRecord(ctx context.Context) (err error) {
	if r.db, err = store.Open(r.config.Store); err != nil {
		return err
	}
	r.onClose(r.db.Close)
	r.log, err = audit.Open(ctx, r.db, audit.Config{Origin: r.config.origin(), Broker: version(), Logger: r.logger})
	if err != nil {
		return err
	}
	r.onClose(r.log.Close)
	r.parts.Audit = r.log
	r.parts.Fleet, err = fleet.Open(ctx, r.db, r.log, nil)
	return err
}

// openEvidence opens who asks, where it runs, what else is true, may it.
func (r *running) openEvidence(ctx context.Context) (err error) {
	c := r.config
	if r.identities, err = identity.New(c.Issuers, identity.Options{Audience: c.Server.URL, Log: r.logger}); err != nil {
		return err
	}
	r.identities.Start(ctx)
	r.onClose(func() error { r.identities.Close(); return nil })
	r.parts.Identities = r.identities
	if r.parts.Runners, err = runner.New(c.runnerConfigs(), runner.Options{Audience: c.Server.URL, Log: r.logger, Own: r.ownBundle(), Store: r.db}); err != nil {
		return err
	}
	r.parts.Runners.Start(ctx)
	r.onClose(func() error { r.parts.Runners.Close(); return nil })
	zone, err := time.LoadLocation(c.Policy.Zone)
	if err != nil {
		return err
	}
	gatherer, err := facts.New(c.Facts, facts.Options{Zone: zone, Log: r.logger, UserAgent: "proviso/" + version()})
	if err != nil {
		return err
	}
	r.onClose(func() error { gatherer.Close(); return nil })
	r.parts.Facts = gatherer
	if r.parts.Policies, err = policy.Open(c.Policy, policy.Options{Log: r.logger, Facts: gatherer.Keys()}); err != nil {
		return err
	}
	if err := c.wrong(c.checkPackages(r.parts.Policies)); err != nil {
		return err
	}
	r.parts.Policies.Require(c.packages())
	go r.parts.Policies.Watch(ctx)
	return nil
}

// openFlow opens what a job gets, and joins the flow and its face.
func (r *running) openFlow(ctx context.Context) error {
	c := r.config
	keys, err := pass.OpenKeyring(filepath.Join(c.Store, "keys"), c.Keys, nil)
	if err != nil {
		return err
	}
	go keys.Run(ctx, func(err error) { r.logger.Error("signing keys", "error", err) })
	authority, err := credential.OpenAuthority(filepath.Join(c.Store, "ca"), c.CA, nil)
	if err != nil {
		return err
	}
	minter, err := credential.New(credential.Options{Issuer: c.Server.URL, Keys: keys, Authority: authority, Domain: r.domain})
	if err != nil {
		return err
	}
	grants, err := r.openGrants(minter)
	if err != nil {
		return err
	}
	if err := r.openEnrolment(minter); err != nil {
		return err
	}
	tracer, flush, err := newTracer(ctx, c.Telemetry, r.logger)
	if err != nil {
		return err
	}
	r.onClose(func() error { flush(); return nil })
	r.parts.Tracer = tracer
	r.parts.Proofs = pass.NewProofChecker(pass.ProofConfig{Nonce: pass.NonceAtStart, Stage: proviso.StageRequest})
	r.parts.IssuerRate = c.Server.WithDefaults().Limits.IssuerRate
	if r.broker, err = broker.New(r.parts, grants, append(c.issuerNames(), r.parts.Runners.CallerEntries()...)); err != nil {
		return err
	}
	metrics := server.NewMetrics(version())
	measure(metrics, r.broker, r.log, r.parts.Policies, r.identities)
	r.server, err = server.New(c.Server, server.Parts{
		Broker: r.broker, Workloads: len(r.parts.Runners.CallerEntries()) > 0, JWKS: keys.JWKS, Algorithms: algorithmNames(), CA: authority.CertificatePEM, Bundle: r.publishedBundle(),
		Log: audit.Handler(r.db, false), Entries: audit.Handler(r.db, true), Proofs: r.parts.Proofs,
		Challenge: r.parts.Runners.Challenge,
		Ready:     func() error { return r.log.Status().Err },
		Logger:    r.logger, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	return r.serveFleet(ctx, minter)
}

func (r *running) openGrants(minter *credential.Minter) (map[string]*broker.Grant, error) {
	grants := map[string]*broker.Grant{}
	for name, config := range r.config.Grants {
		grant, err := broker.NewGrant(name, config, minter)
		if err != nil {
			return nil, err
		}
		grants[name] = grant
	}
	return grants, nil
}

func (r *running) onClose(f func() error) { r.closers = append(r.closers, f) }

// close ends the parts in the reverse order of their beginning.
func (r *running) close() error {
	var err error
	for i := len(r.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, r.closers[i]())
	}
	r.closers = nil
	return err
}

// origin names the log: configured, or made of the broker's host.
func (c *Config) origin() string {
	if c.Audit.Origin != "" {
		return c.Audit.Origin
	}
	u, err := url.Parse(c.Server.URL)
	if err != nil {
		return "proviso/log"
	}
	return u.Host + "/log"
}

func (c *Config) issuerNames() []string {
	names := make([]string, len(c.Issuers))
	for i := range c.Issuers {
		names[i] = c.Issuers[i].Name
	}
	return names
}

func algorithmNames() []string {
	var names []string
	for _, a := range pass.Algorithms {
		names = append(names, string(a))
	}
	return names
}
