package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
)

// resolvePaths makes relative file names relative to the configuration's directory.
func (c *Config) resolvePaths(dir string) {
	resolve := func(names ...*string) {
		for _, name := range names {
			if *name != "" && !filepath.IsAbs(*name) {
				*name = filepath.Join(dir, *name)
			}
		}
	}
	resolve(&c.Store, &c.Policy.Dir, &c.Server.TLS.Cert, &c.Server.TLS.Key)
	for i := range c.Issuers {
		resolve(&c.Issuers[i].JWKSFile, &c.Issuers[i].CAFile)
	}
	for i := range c.Runners {
		c.Runners[i].ResolvePaths(dir)
	}
	c.Facts.ResolvePaths(dir)
}

// check asks each part what is wrong with its section. It reads no other file
// and connects to nothing.
func (c *Config) check() []problem {
	var out []problem
	add := func(path, message string, args ...any) {
		out = append(out, problem{path: path, message: fmt.Sprintf(message, args...)})
	}
	for _, p := range c.Server.Validate() {
		add("server."+p.Path, "%s", p.Message)
	}
	if host, _, err := net.SplitHostPort(c.Server.Operations); err == nil && !isLoopback(host) {
		out = append(out, problem{"server.operations", fmt.Sprintf("is %s, beyond loopback: whoever reaches it reads the record and the metrics, without authentication", c.Server.Operations), true})
	}
	if c.Store == "" {
		add("store", "is missing; write the directory of what must outlive a restart, as ./data")
	} else if strings.Contains(c.Store, "://") {
		add("store", "%q is a URL; this version keeps its store in a directory", c.Store)
	}
	if len(c.Issuers) == 0 {
		add("issuers", "is empty: nobody could ask for anything; name the CI platform whose jobs may ask")
	}
	problems, findings := identity.Check(c.Issuers, c.Server.URL)
	for _, p := range problems {
		add(p.Path, "%s", p.Message)
	}
	for _, p := range findings {
		out = append(out, problem{p.Path, p.Message, true})
	}
	out = append(out, c.checkDomain()...)
	for _, p := range runner.Check(c.runnerConfigs()) {
		add("runners"+p.Path, "%s", p.Message)
	}
	out = append(out, c.checkCallers()...)
	for i, r := range c.Runners {
		if r.Platform != nil && r.Platform.Issuer != "" && !slices.Contains(c.issuerNames(), r.Platform.Issuer) {
			add(fmt.Sprintf("runners[%d].platform.issuer", i), "is %q, and no issuer has that name: nobody's word would count", r.Platform.Issuer)
		}
	}
	for _, p := range facts.Check(c.Facts) {
		add("facts."+p.Path, "%s", p.Message)
	}
	for _, p := range c.Keys.Validate() {
		add("keys."+p.Path, "%s", p.Message)
	}
	for _, p := range c.CA.Validate() {
		add("ca."+p.Path, "%s", p.Message)
	}
	if c.Facts.Git != nil {
		for i, r := range c.Facts.Git.Repositories {
			if r.Issuer != "" && !slices.Contains(c.issuerNames(), r.Issuer) {
				add(fmt.Sprintf("facts.git.repositories[%d].issuer", i), "is %q, and no issuer has that name: its jobs would have no commit facts", r.Issuer)
			}
		}
	}
	out = append(out, c.checkPolicy()...)
	out = append(out, c.checkGrants()...)
	out = append(out, c.checkTelemetry()...)
	return out
}

// isLoopback reports whether a host is this machine alone.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (c *Config) checkPolicy() []problem {
	var out []problem
	if c.Policy.Dir == "" {
		out = append(out, problem{path: "policy.dir", message: "is missing; write the directory of the Rego that guards the grants, as ./policy"})
	}
	if _, err := time.LoadLocation(c.Policy.Zone); err != nil || strings.EqualFold(c.Policy.Zone, "local") {
		out = append(out, problem{path: "policy.zone", message: fmt.Sprintf("%q is not a time zone; write a name as Europe/Berlin or UTC", c.Policy.Zone)})
	}
	if c.Policy.Zone == "" {
		out = append(out, problem{"policy.zone", "is missing, so context.time is UTC; write the zone that your policies' hours are meant in", true})
	}
	return out
}

func (c *Config) checkGrants() []problem {
	var out []problem
	if len(c.Grants) == 0 {
		out = append(out, problem{path: "grants", message: "is empty: there is nothing to ask for; name at least one grant"})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Grants)) {
		g := c.Grants[name]
		for _, p := range g.Validate(name) {
			out = append(out, problem{path: strings.TrimSuffix("grants."+name+"."+p.Path, "."), message: p.Message})
		}
		for i, from := range g.Callers {
			if j := slices.IndexFunc(c.Runners, func(r runner.Config) bool { return r.Name == from }); j < 0 || len(c.Runners[j].Callers) == 0 {
				out = append(out, problem{path: fmt.Sprintf("grants.%s.callers[%d]", name, i), message: fmt.Sprintf("is %q, and no entry under runners has that name and callers", from)})
			}
		}
		for i, from := range g.RunnerFrom {
			if !slices.Contains(c.runnerNames(), from) {
				out = append(out, problem{path: fmt.Sprintf("grants.%s.runner_from[%d]", name, i), message: fmt.Sprintf("is %q, and no entry under runners has that name", from)})
			}
		}
		if g.Runner != "none" && g.Runner != "optional" && len(c.Runners) == 0 {
			out = append(out, problem{path: "grants." + name + ".runner", message: "is required, and nothing is configured under runners: nobody could get this grant; configure one, or write runner: none"})
		}
		if g.Runner == "none" || g.Runner == "optional" {
			out = append(out, problem{"grants." + name + ".runner", fmt.Sprintf("is %s: a stolen job token works on any machine", g.Runner), true})
		}
	}
	return out
}

// checkCallers finds what callers and issuers must not have in common, and what
// deserves a thought.
func (c *Config) checkCallers() []problem {
	var out []problem
	for i, r := range c.Runners {
		if len(r.Callers) > 0 && slices.Contains(c.issuerNames(), r.Name) {
			out = append(out, problem{path: fmt.Sprintf("runners[%d].name", i), message: fmt.Sprintf("is %q, which is an issuer's name too: credentials name who asked by it", r.Name)})
		}
		for j, caller := range r.Callers {
			if caller.Replay == identity.ReplayOff {
				out = append(out, problem{fmt.Sprintf("runners[%d].callers[%d].replay", i, j),
					"a JWT-SVID may be used any number of times until it expires; leave replay out, or let the workload ask by mutual TLS", true})
			}
		}
	}
	return out
}

// runnerNames lists what a grant's runner_from may name.
func (c *Config) runnerNames() []string {
	var names []string
	for _, r := range c.Runners {
		names = append(names, r.Name)
	}
	return names
}

func (c *Config) checkTelemetry() []problem {
	var out []problem
	if c.Telemetry.Sample < 0 || c.Telemetry.Sample > 1 {
		out = append(out, problem{path: "telemetry.sample", message: fmt.Sprintf("is %v; write a share above 0, up to 1", c.Telemetry.Sample)})
	}
	if o := c.Telemetry.OTLP; o != "" && !strings.HasPrefix(o, "http://") && !strings.HasPrefix(o, "https://") {
		out = append(out, problem{path: "telemetry.otlp", message: fmt.Sprintf("%q is not a URL; write one as http://127.0.0.1:4318", o)})
	}
	if _, ok := logLevels[c.Log.Level]; !ok {
		out = append(out, problem{path: "log.level", message: fmt.Sprintf("is %q; write debug, info, warn or error", c.Log.Level)})
	}
	if f := c.Log.Format; f != "" && f != "json" && f != "text" {
		out = append(out, problem{path: "log.format", message: fmt.Sprintf("is %q; write json or text", f)})
	}
	return out
}

// checkFiles lets each part read the files that its section names. It connects
// to nothing, and changes nothing.
func (c *Config) checkFiles() []problem {
	var out []problem
	identities, err := identity.New(c.Issuers, identity.Options{Audience: c.Server.URL, Log: quiet})
	if err == nil {
		identities.Close()
	}
	out = append(out, problemsIn(err, "issuers")...)
	verifier, err := runner.New(c.runnerConfigs(), runner.Options{Audience: c.Server.URL, Log: quiet, Own: c.emptyBundle()})
	if err == nil {
		verifier.Close()
	}
	out = append(out, problemsIn(err, "runners")...)
	gatherer, err := facts.New(c.Facts, facts.Options{Log: quiet})
	if err == nil {
		gatherer.Close()
	}
	out = append(out, problemsIn(err, "facts")...)
	if _, err := os.ReadDir(c.Policy.Dir); err != nil {
		out = append(out, problem{path: "policy.dir", message: fmt.Sprintf("can't be read: %v; write the directory of the Rego that guards the grants", err)})
	}
	if c.Server.TLS.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Server.TLS.Cert, c.Server.TLS.Key); err != nil {
			out = append(out, problem{path: "server.tls", message: fmt.Sprintf("can't be used: %v; write PEM files of one certificate chain, leaf first, and its key", err)})
		}
	}
	return out
}

// problemsIn takes a part's error apart into problems with their paths.
func problemsIn(err error, section string) []problem {
	switch e := err.(type) { //nolint:errorlint // the parts return these, and joined ones are taken apart below
	case nil:
		return nil
	case identity.Problems:
		var out []problem
		for _, p := range e {
			out = append(out, problem{path: p.Path, message: p.Message})
		}
		return out
	case runner.Problem:
		return []problem{{path: "runners" + e.Path, message: e.Message}}
	case facts.Problem:
		return []problem{{path: "facts." + e.Path, message: e.Message}}
	case interface{ Unwrap() []error }: // errors.Join
		var out []problem
		for _, one := range e.Unwrap() {
			out = append(out, problemsIn(one, section)...)
		}
		return out
	}
	return []problem{{path: section, message: err.Error()}}
}

// checkPolicies prints what is to be said of the policies, and fails where the
// broker would not start with them.
func (c *Config) checkPolicies(ctx context.Context, out io.Writer) error {
	gatherer, err := facts.New(c.Facts, facts.Options{Log: quiet})
	if err != nil {
		return err
	}
	defer gatherer.Close()
	options := policy.Options{Facts: gatherer.Keys(), Log: quiet}
	problems, err := policy.Check(ctx, c.Policy, options)
	for _, p := range problems {
		fmt.Fprintf(out, "policy: %s\n", p)
	}
	if err != nil {
		return errors.New("the policies can't be activated")
	}
	engine, err := policy.Open(c.Policy, options)
	if err != nil {
		return err
	}
	return c.wrong(c.checkPackages(engine))
}

// checkPackages finds the grants whose policy isn't there.
func (c *Config) checkPackages(engine *policy.Engine) []problem {
	var out []problem
	for _, name := range slices.Sorted(maps.Keys(c.Grants)) {
		pkg := c.Grants[name].Policy
		if _, err := engine.For(pkg); err != nil {
			out = append(out, problem{path: "grants." + name + ".policy", message: fmt.Sprintf(
				"is %q, and no package of that name has a rule allow; %s has %s", pkg, c.Policy.Dir, atMost(engine.Packages(), 20))})
		}
	}
	return out
}

// packages lists the packages that grants are guarded by.
func (c *Config) packages() []string {
	var out []string
	for _, g := range c.Grants {
		out = append(out, g.Policy)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func atMost(names []string, n int) string {
	if len(names) > n {
		return strings.Join(names[:n], ", ") + fmt.Sprintf(" and %d more", len(names)-n)
	}
	return strings.Join(names, ", ")
}

// noSuchCommand refuses what is no subcommand. Without it, help would be printed
// and the exit code be 0.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q; %s --help lists them", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func newConfigCommand() *cobra.Command {
	parent := &cobra.Command{
		Use: "config", Short: "Look at a configuration", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var file string
	check := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with a configuration and its policies, without starting",
		Long: `Reads the configuration and the policies that it names, and says what would keep
the broker from starting (exit 1), and what works but deserves a thought
(exit 0). It connects to nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, warnings, err := readConfig(file)
			out := cmd.OutOrStdout()
			for _, w := range warnings {
				fmt.Fprintf(out, "finding: %s\n", w)
			}
			if err != nil {
				return refused(err)
			}
			if err := config.wrong(config.checkFiles()); err != nil {
				return refused(err)
			}
			if err := config.checkPolicies(cmd.Context(), out); err != nil {
				return refused(err)
			}
			fmt.Fprintf(out, "ok: %s, %s, %s\n", many(len(config.Issuers), "issuer"), many(len(config.Runners), "trust domain"), many(len(config.Grants), "grant"))
			return nil
		},
	}
	check.Flags().StringVarP(&file, "config", "c", "proviso.yaml", "the configuration file")
	parent.AddCommand(check)
	return parent
}
