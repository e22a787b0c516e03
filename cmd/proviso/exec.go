package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
)

// execution is what `proviso exec` was told.
type execution struct {
	asking
	env, file string
	keep      []string
}

func newExecCommand() *cobra.Command {
	var x execution
	cmd := &cobra.Command{
		Use:   "exec --grant NAME [flags] -- CMD [ARG...]",
		Short: "Run a command with a credential that lives as long as it",
		Long: `Exec finds the job's own token on the CI platform and the runner's SVID at the
SPIFFE Workload API, asks the broker for a grant, and runs CMD with what it
gets. Signals reach CMD, CMD's exit code is exec's (128+n if signal n ended it),
and afterwards no file is left.

CMD finds the token in PROVISO_TOKEN (or the variable named by --env), or, with
--file, in a file that is named by PROVISO_TOKEN_FILE. Prefer the file: it is in
memory where the machine allows it, readable by its owner alone, and replaced in
one step when two thirds of the credential's life are over, for as long as CMD
runs. A process reads its variables once, so those can't be renewed. --file NAME
makes it in a private directory, --file ./PATH exactly there.

With --x509 CMD finds a client certificate in PROVISO_CERT_FILE and its key in
PROVISO_KEY_FILE; with --dpop the key of the token's binding in
PROVISO_DPOP_KEY_FILE, which with --machine-key is that file itself: without
--dpop CMD isn't told of the machine's key. PROVISO_DECISION names the decision
in the record.

To renew, exec needs a fresh job token. GitHub, Forgejo, Buildkite, CircleCI,
Azure DevOps, Google Cloud Build and Codefresh give one whenever asked. GitLab,
Bitbucket, Jenkins, HCP Terraform, Semaphore, Spacelift and Harness give one for
the whole job: exec says when the credential ends, and it ends then.

A deployed workload, which runs no job, asks for itself with --workload, by its own
SVID: x509 renews as often as it is needed, jwt when the Workload API has a new one.

CMD does not get the job's token, nor the variables with which one can be had
(ACTIONS_ID_TOKEN_REQUEST_TOKEN, SYSTEM_ACCESSTOKEN, BUILDKITE_AGENT_ACCESS_TOKEN
and others; exec names those that it withholds). Whoever has them can ask for
every grant of the job, and CMD was given one. This stops accidents, such as a
tool that prints its environment; it can't stop a program that looks into its
parents. --keep-env=NAME leaves one, --keep-env leaves all.

Exit codes: CMD's own; 1 if no credential was granted; 2 for a command line or a
pipeline that has to be corrected, and if CMD is not there (nothing is asked
then). On GitHub and Forgejo the token is masked in the job's log.`,
		Example: `  proviso exec --grant deploy-production --file token -- ./deploy.sh
  proviso exec --grant debug --purpose debug --ttl 15m -- psql "host=db"
  proviso exec --grant cluster --x509 -- sh -c 'kubectl --client-certificate "$PROVISO_CERT_FILE" --client-key "$PROVISO_KEY_FILE" apply -f .'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("the command to run is missing: proviso exec --grant NAME -- CMD [ARG...]")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return x.run(cmd, args)
		},
	}
	x.flags(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows CMD is CMD's
	f.StringVar(&x.env, "env", envCredential, "the variable in which CMD finds the token")
	f.StringVar(&x.file, "file", "", "put the credential into a file instead: NAME in a private directory, or a PATH with a slash")
	f.StringSliceVar(&x.keep, "keep-env", nil, "leave CMD these variables of the job's token; without a name, all")
	f.BoolVar(&x.dpop, "dpop", false, "bind the token to a key made for it (RFC 9449): a copy of the token alone is then useless")
	f.BoolVar(&x.x509, "x509", false, "ask for a client certificate, for a key made here")
	f.Lookup("keep-env").NoOptDefVal = "*"
	return cmd
}

// run is the whole life of an execution: nothing is asked before CMD is known
// to exist, nothing is left after it has ended.
func (x *execution) run(cmd *cobra.Command, args []string) error {
	stderr := cmd.ErrOrStderr()
	if cmd.Flags().Changed("env") && x.file != "" {
		return errors.New("--env and --file are two places for one token; choose one")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("%w; nothing was asked for", err)
	}
	hideMemory()
	signals := catchSignals()
	defer signals.stop()
	// Not the command's own context: once CMD runs, a signal is CMD's.
	ctx := signals.before(context.WithoutCancel(cmd.Context()))

	k, err := x.open(ctx, stderr)
	if err != nil {
		return x.failed(stderr, signals, err, true)
	}
	defer k.close()
	resp, err := k.ask(ctx)
	if err != nil {
		return x.failed(stderr, signals, err, false)
	}
	granted := time.Now()
	mask(stderr, resp)
	d, err := k.deliver(resp, x.env, x.file)
	if err != nil {
		return refused(fmt.Errorf("the credential has no place: %w", err))
	}
	env, withheld := childEnvironment(os.Environ(), x.keep, x.variable, d.env)
	k.announce(resp, d, withheld)

	c := &child{path: path, args: args, env: env}
	code, err := c.run(signals, func(ctx context.Context) { k.keepAlive(ctx, d, resp, granted) })
	if cleanErr := d.close(); cleanErr != nil {
		say(stderr, "a file of the credential could not be removed: %v", cleanErr)
	}
	switch {
	case err != nil:
		return &exitError{exitMisuse, fmt.Errorf("CMD can't be run: %w", err)}
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}

// failed ends an execution whose CMD never ran.
func (x *execution) failed(stderr io.Writer, signals *signalCatcher, err error, opening bool) error {
	if s := signals.caught(); s != 0 {
		say(stderr, "interrupted before CMD ran")
		return &exitError{code: 128 + int(s)}
	}
	if none := new(client.NoTokenError); opening && !errors.As(err, &none) {
		return err
	}
	return &exitError{code: x.complain(stderr, err)}
}

// announce says what was granted, in one or two lines without a secret.
func (k *asker) announce(resp *proviso.TokenResponse, d *delivery, withheld []string) {
	ends := time.Now().Add(time.Duration(resp.ExpiresIn) * time.Second)
	var how string
	switch {
	case !d.renewable():
		how = "; a variable can't be renewed: use --file if CMD may run longer"
	case !k.renewable():
		how = fmt.Sprintf("; %s gives one token per job, so it can't be renewed: ask for a longer --ttl if CMD may run longer", k.source.Title())
	default:
		how = "; renewed while CMD runs"
	}
	scope := ""
	if resp.Scope != "" {
		scope = " (" + resp.Scope + ")"
	}
	k.note("%s granted%s until %s%s; decision %s", k.grant, scope, ends.UTC().Format("15:04:05Z"), how, resp.Proviso.Decision)
	if len(withheld) > 0 {
		k.note("withheld from CMD: %v", withheld)
	}
}
