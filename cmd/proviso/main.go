// Command proviso is the whole system in one binary: the broker (serve), its
// enforcement point (gate), the client that runs inside a job (exec, token),
// the tool that reads an estate's pipelines (inventory), and the tools of the
// people who run it (config check, doctor, audit, policy, demo, dev).
//
// Each command is one small file here. This package is the only reader of the
// configuration file and the only place that builds the parts and joins them;
// the parts never see each other's configuration.
//
// Exit codes are part of the contract: 0 done, 1 refused or findings, 2 misuse.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Exit codes (design: the command line's contract).
const (
	exitDone    = 0
	exitRefused = 1
	exitMisuse  = 2
)

// exitError carries an exit code with, or without, something left to say.
type exitError struct {
	code int
	err  error // nil: everything has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// refused ends a command with exit code 1.
func refused(err error) error { return &exitError{exitRefused, err} }

// run executes the command line and gives the exit code. What a command
// returns without an exit code of its own is misuse: a flag, an argument, a
// configuration that can't be.
func run(ctx context.Context, args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitMisuse
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(root.ErrOrStderr(), "proviso: %v\n", err)
	return code
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "proviso",
		Short: "Every access of a pipeline: asked for, proved, decided, limited, recorded",
		Long: `Proviso takes static secrets out of CI/CD. A job shows its platform's OIDC token,
its runner shows its own evidence, the broker finds out what else is true, Rego
decides, and only then a scoped, short-lived credential is issued, with a
receipt from a log that nobody can alter.

Start with:  proviso demo     (plays the whole flow and the main attacks)
             proviso dev      (keeps the demo's lab running, to try things)`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(commands()...)
	return root
}
