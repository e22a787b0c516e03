package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/client"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
)

func newDoctorCommand() *cobra.Command {
	var file, brokerURL string
	var asRunner bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at everything that a broker, or a job, depends on, and say what is wrong",
		Long: `With --config, looks at what the broker of that file depends on: each issuer's
keys over the network, trust bundles, what other evidence of runners is verified
by, policies and their tests, the sources of facts, the store, the clock,
certificates. Without, looks at what a job depends on: where its CI platform's
token comes from, the runner's evidence, the broker.
With --runner and --config, on a runner's machine, says what that broker would
make of the runner's evidence, and which grants would take it. It changes nothing
and prints no secret. The exit code is 1 if something is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{out: cmd.OutOrStdout()}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			switch {
			case asRunner && file == "":
				return errors.New("--runner needs --config: the file of the broker that the runner's evidence is to be held against")
			case asRunner:
				d.asRunner(ctx, file)
			case file != "":
				d.broker(ctx, file)
			default:
				d.job(ctx, brokerURL)
			}
			if d.wrong > 0 {
				return refused(fmt.Errorf("%d of %d checks found something wrong", d.wrong, d.checks))
			}
			fmt.Fprintf(d.out, "\nall %d checks are well\n", d.checks)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "a broker's configuration file")
	cmd.Flags().BoolVar(&asRunner, "runner", false, "hold this machine's evidence against the broker's configuration")
	cmd.Flags().StringVar(&brokerURL, "broker", os.Getenv("PROVISO_URL"), "the broker's URL, for a job (or PROVISO_URL)")
	return cmd
}

// quiet keeps the parts' own log out of what doctor says.
var quiet = slog.New(slog.DiscardHandler)

// doctor prints one line for each check.
type doctor struct {
	out           io.Writer
	checks, wrong int
}

// say prints what a check found; err says that it is wrong.
func (d *doctor) say(what string, err error, found string, args ...any) {
	d.checks++
	word := "ok     "
	text := fmt.Sprintf(found, args...)
	if err != nil {
		d.wrong++
		word, text = "WRONG  ", err.Error()
	}
	fmt.Fprintf(d.out, "%s%-26s %s\n", word, what, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 34)))
}

func (d *doctor) broker(ctx context.Context, file string) {
	config, warnings, err := readConfig(file)
	d.say("configuration", err, "%s, %s (proviso config check prints them)", file, many(len(warnings), "finding"))
	if err != nil {
		return
	}
	d.issuers(ctx, config)
	d.runners(ctx, config)
	d.policies(ctx, config)
	if config.Facts.Git != nil {
		path, err := exec.LookPath("git")
		d.say("git", err, "%s", path)
	}
	d.store(config)
	d.certificate(config)
	d.door(ctx, config)
}

// issuers fetches every issuer's keys, as the broker would.
func (d *doctor) issuers(ctx context.Context, c *Config) {
	verifier, err := identity.New(c.Issuers, identity.Options{Audience: c.Server.URL, Log: quiet})
	if err != nil {
		d.say("issuers", err, "")
		return
	}
	defer verifier.Close()
	verifier.Refresh(ctx)
	for _, s := range verifier.Status() {
		err := s.Keys.Failure
		if err == nil && !s.Keys.Usable {
			err = errors.New("no key of this issuer can be used")
		}
		found := fmt.Sprintf("%s of %s", many(len(s.Keys.Keys), "key"), s.URL)
		for _, p := range s.Keys.Problems {
			found += "\nnot used: " + p
		}
		d.say("issuer "+s.Name, err, "%s", found)
	}
}

func (d *doctor) runners(ctx context.Context, c *Config) {
	if len(c.Runners) == 0 {
		return
	}
	verifier, err := runner.New(c.runnerConfigs(), runner.Options{Audience: c.Server.URL, Log: quiet, Own: c.emptyBundle()})
	if err != nil {
		d.say("trust bundles", err, "")
		return
	}
	defer verifier.Close()
	verifier.Refresh(ctx)
	d.domains(verifier)
	d.kinds(verifier)
}

func (d *doctor) policies(ctx context.Context, c *Config) {
	gatherer, err := facts.New(c.Facts, facts.Options{Log: quiet})
	d.say("facts", err, "%s", many(len(c.Facts.HTTP)+btoi(c.Facts.Git != nil), "source"))
	if err != nil {
		return
	}
	defer gatherer.Close()
	options := policy.Options{Facts: gatherer.Keys(), Log: quiet}
	problems, err := policy.Check(ctx, c.Policy, options)
	if err == nil && len(problems.Errors()) > 0 {
		err = problems.Errors()
	}
	if err == nil {
		err = d.packages(c, options)
	}
	d.say("policies", err, "%s, %s", c.Policy.Dir, many(len(problems.Warnings()), "warning"))
	if err != nil {
		return
	}
	results, err := policy.Test(ctx, c.Policy, options)
	d.say("policy tests", err, "%s", many(len(results), "test"))
}

// packages says which grant's policy isn't there.
func (d *doctor) packages(c *Config, options policy.Options) error {
	engine, err := policy.Open(c.Policy, options)
	if err != nil {
		return err
	}
	return c.wrong(c.checkPackages(engine))
}

// many counts things in words: "1 issuer", "2 issuers".
func many(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *doctor) store(c *Config) {
	info, err := os.Stat(c.Store)
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.say("store", nil, "%s isn't there yet; the broker makes it at its first start", c.Store)
		return
	case err == nil && !info.IsDir():
		err = fmt.Errorf("%s is not a directory", c.Store)
	case err == nil && info.Mode().Perm()&0o077 != 0:
		err = fmt.Errorf("%s is open to others (mode %04o), and holds signing keys: chmod 700 it", c.Store, info.Mode().Perm())
	}
	d.say("store", err, "%s", c.Store)
}

func (d *doctor) certificate(c *Config) {
	if c.Server.TLS.Cert == "" {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.Server.TLS.Cert, c.Server.TLS.Key)
	found := ""
	if err == nil {
		var leaf *x509.Certificate
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err == nil {
			left := time.Until(leaf.NotAfter).Truncate(time.Hour)
			found = fmt.Sprintf("valid until %s (%s)", leaf.NotAfter.UTC().Format(time.RFC3339), left)
			if left <= 0 {
				err = fmt.Errorf("expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
			}
		}
	}
	d.say("TLS certificate", err, "%s", found)
}

// door says whether a broker answers at the configured URL. One that isn't
// running is no fault: doctor is often asked before the first start.
func (d *doctor) door(ctx context.Context, c *Config) {
	status, err := readiness(ctx, c.Server.URL)
	var refusedDial *net.OpError
	if errors.As(err, &refusedDial) {
		d.say("broker", nil, "nothing answers at %s; that is as it should be if it isn't started", c.Server.URL)
		return
	}
	d.say("broker", err, "%s", status)
}

func readiness(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/readyz", nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s: its log says why", url, resp.Status)
	}
	// A clock that is off shows in the answer's date: tokens live for minutes.
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		if off := time.Since(date); off.Abs() > 30*time.Second {
			return "", fmt.Errorf("this machine's clock and that of %s differ by %s; tokens will be refused as too old or too new", url, off.Truncate(time.Second))
		}
	}
	return url + " is ready, and its clock agrees with this machine's", nil
}

// job looks at what a job depends on.
func (d *doctor) job(ctx context.Context, brokerURL string) {
	source, err := client.Find(client.Lookup{Audience: brokerURL, Platform: os.Getenv("PROVISO_CI")})
	if err != nil {
		d.say("job token", err, "")
	} else {
		_, err := source.Token(ctx)
		d.say("job token", err, "%s gives one; %s", source.Title(), map[bool]string{true: "exec can renew", false: "one for the whole job"}[source.Renewable()])
	}
	d.runner(ctx, brokerURL)
	if brokerURL == "" {
		d.say("broker", errors.New("its URL is not known: set PROVISO_URL, or give --broker"), "")
		return
	}
	status, err := readiness(ctx, brokerURL)
	d.say("broker", err, "%s", status)
}
