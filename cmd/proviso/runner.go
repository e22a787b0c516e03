package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/agent"
)

// runnerConfig is the file of `proviso runner run`.
type runnerConfig struct {
	agent.Config `yaml:",inline"`
	// Log is the agent's log on standard error.
	Log LogConfig `yaml:"log,omitempty"`
}

func newRunnerCommand() *cobra.Command {
	parent := &cobra.Command{
		Use: "runner", Short: "Run a runner's agent; let runners join, ban them", Args: noSuchCommand,
		Long: `The broker's own fleet: run is the agent on a runner's machine; the other commands
are the operator's, on the broker's machine. docs/fleet.md has a fleet in ten minutes.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	token := &cobra.Command{
		Use: "token", Short: "Make a join token", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	token.AddCommand(newJoinTokenCommand())
	bundle := &cobra.Command{
		Use: "bundle", Short: "Forget the sequence of a trust domain's bundle", Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	bundle.AddCommand(newForgetBundleCommand())
	parent.AddCommand(newAgentCommand(), newEnrollCommand(), token, bundle, newRunnerListCommand(),
		newStandingCommand("ban", "Give a runner nothing any more, from now on",
			`The ban is in the record and in force when the command ends: no exchange, join or
renewal of the runner is granted. What it holds already lives until it ends. A
runner of another trust domain can be banned too, by its SPIFFE ID.`),
		newStandingCommand("unban", "Lift a ban",
			`A runner of the broker's own fleet has to join again afterwards, with a new join
token: what it held may be in other hands.`),
		newStandingCommand("reattest", "End what a runner holds, and let it join again",
			`Its SVIDs are worth nothing from now on. It joins again with a new join token, or
by its evidence. A machine whose evidence counts only with the key that it keeps
(aws) may then come with another key, for as long after this as runners[].aws.max_age
says; also one that never joined, by its name ENTRY/ID: that is what a machine needs
that lost its key.`))
	return parent
}

func newAgentCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent: join, keep the SVID fresh, serve the SPIFFE Workload API",
		Long: `Runs on a runner's machine until SIGTERM or SIGINT. It joins the broker's fleet with
a join token or by evidence, renews the runner's SVID before half of its life,
and serves the SPIFFE Workload API on a Unix socket to the processes that its
file registers. Jobs find the socket by SPIFFE_ENDPOINT_SOCKET.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := readRunnerConfig(file)
			if err != nil {
				return err
			}
			a, err := agent.New(config.Config, newLogger(config.Log))
			if err != nil {
				return refused(err)
			}
			if err := a.Run(cmd.Context()); err != nil {
				return refused(err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "runner.yaml", "the agent's file")
	return cmd
}

func readRunnerConfig(file string) (*runnerConfig, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("can't read the agent's file: %w", err)
	}
	var c runnerConfig
	d, err := decode(file, data, &c)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(file)
	for _, name := range []*string{&c.CA, &c.State, &c.Socket, &c.JoinTokenFile, &c.Evidence.File} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(dir, *name)
		}
	}
	var problems []string
	for _, p := range c.Validate() {
		problems = append(problems, d.place(p.Path)+": "+p.Path+" "+p.Message)
	}
	if len(problems) > 0 {
		sortByPlace(problems)
		return nil, &configErrors{file, problems}
	}
	return &c, nil
}
