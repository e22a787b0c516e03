package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
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
			b, err := start(cmd.Context(), config, logger)
			if err != nil {
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
// collector runs when the heap has grown fivefold, and long before 128 MiB are
// in use. GOGC and GOMEMLIMIT still have the last word.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(128 << 20)
	}
}

// running is a broker whose parts are joined; its server isn't listening yet.
type running struct {
	server  *server.Server
	broker  *broker.Broker
	db      *store.DB
	log     *audit.Log
	closers []func() error
}

// start builds every part in the order of the flow and joins them. Whatever
// can't be built keeps the broker from starting: there is no half of it.
func start(ctx context.Context, c *Config, logger *slog.Logger) (_ *running, err error) {
	r := &running{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.onClose(func() error { cancel(); return nil })

	// Where things outlive a restart.
	db, err := store.Open(c.Store)
	if err != nil {
		return nil, err
	}
	r.db = db
	r.onClose(db.Close)
	log, err := audit.Open(ctx, db, audit.Config{Origin: c.origin(), Broker: version(), Logger: logger})
	if err != nil {
		return nil, err
	}
	r.log = log
	r.onClose(log.Close)

	// Who asks, where it runs, what else is true, may it.
	identities, err := identity.New(c.Issuers, identity.Options{Audience: c.Server.URL, Log: logger})
	if err != nil {
		return nil, err
	}
	identities.Start(background)
	r.onClose(func() error { identities.Close(); return nil })
	runners, err := runner.New(c.Runners, runner.Options{Audience: c.Server.URL, Log: logger})
	if err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(c.Policy.Zone)
	if err != nil {
		return nil, err
	}
	gatherer, err := facts.New(c.Facts, facts.Options{Zone: zone, Log: logger, UserAgent: "proviso/" + version()})
	if err != nil {
		return nil, err
	}
	r.onClose(func() error { gatherer.Close(); return nil })
	policies, err := policy.Open(c.Policy, policy.Options{Log: logger, Facts: gatherer.Keys()})
	if err != nil {
		return nil, err
	}
	go policies.Watch(background)

	// What it gets.
	keys, err := pass.OpenKeyring(filepath.Join(c.Store, "keys"), c.Keys, nil)
	if err != nil {
		return nil, err
	}
	go keys.Run(background, func(err error) { logger.Error("signing keys", "error", err) })
	authority, err := credential.OpenAuthority(filepath.Join(c.Store, "ca"), c.CA, nil)
	if err != nil {
		return nil, err
	}
	minter, err := credential.New(credential.Options{Issuer: c.Server.URL, Keys: keys, Authority: authority})
	if err != nil {
		return nil, err
	}
	grants := map[string]*broker.Grant{}
	for name, config := range c.Grants {
		grant, err := broker.NewGrant(name, config, minter)
		if err != nil {
			return nil, err
		}
		if _, err := policies.For(grant.Policy); err != nil {
			return nil, fmt.Errorf("grants.%s.policy: %w", name, err)
		}
		grants[name] = grant
	}

	// The flow, and its face.
	tracer, flush, err := newTracer(ctx, c.Telemetry)
	if err != nil {
		return nil, err
	}
	r.onClose(func() error { flush(); return nil })
	proofs := pass.NewProofChecker(pass.ProofConfig{Nonce: pass.NonceAtStart, Stage: "request"})
	limits := c.Server.WithDefaults().Limits
	r.broker, err = broker.New(broker.Parts{
		Identities: identities, Runners: runners, Facts: gatherer, Policies: policies,
		Audit: log, Proofs: proofs, Logger: logger, Tracer: tracer, IssuerRate: limits.IssuerRate,
	}, grants, c.issuerNames())
	if err != nil {
		return nil, err
	}
	metrics := server.NewMetrics(version())
	measure(metrics, r.broker, log, policies, identities)
	r.server, err = server.New(c.Server, server.Parts{
		Broker: r.broker, JWKS: keys.JWKS, Algorithms: algorithmNames(), CA: authority.CertificatePEM,
		Log: audit.Handler(db, false), Entries: audit.Handler(db, true), Proofs: proofs,
		Ready:  func() error { return log.Status().Err },
		Logger: logger, Metrics: metrics,
	})
	return r, err
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
