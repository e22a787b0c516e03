package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/store"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, test, explain and replay policies, without a broker",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicyCheckCommand(), newPolicyTestCommand(), newPolicyExplainCommand(), newPolicyReplayCommand())
	return cmd
}

// policySource says which policies a command looks at: a directory, or those of
// a broker's configuration, which also says what facts there are.
type policySource struct{ dir, config string }

func (s *policySource) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.dir, "dir", "", "the directory of the policies")
	cmd.Flags().StringVarP(&s.config, "config", "c", "", "take the directory, and the facts that policies may read, from a broker's configuration")
}

// openOr takes the directory also without its flag, as opa does.
func (s *policySource) openOr(args []string) (policy.Config, policy.Options, error) {
	if len(args) == 1 && s.dir == "" {
		s.dir = args[0]
	} else if len(args) == 1 {
		return policy.Config{}, policy.Options{}, errors.New("the directory of the policies is named twice")
	}
	return s.open()
}

func (s *policySource) open() (policy.Config, policy.Options, error) {
	options := policy.Options{Log: quiet}
	if (s.dir == "") == (s.config == "") {
		return policy.Config{}, options, errors.New("say which policies: either --dir DIR or --config FILE")
	}
	if s.dir != "" {
		return policy.Config{Dir: s.dir}, options, nil
	}
	config, _, err := readConfig(s.config)
	if err != nil {
		return policy.Config{}, options, refused(err)
	}
	gatherer, err := facts.New(config.Facts, facts.Options{Log: quiet})
	if err != nil {
		return policy.Config{}, options, refused(err)
	}
	defer gatherer.Close()
	options.Facts = gatherer.Keys()
	return config.Policy, options, nil
}

func newPolicyCheckCommand() *cobra.Command {
	var source policySource
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Say what would keep the policies from becoming active, and what deserves a thought",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, options, err := source.openOr(args)
			if err != nil {
				return err
			}
			problems, err := policy.Check(cmd.Context(), config, options)
			for _, p := range problems {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
			if err != nil || len(problems.Errors()) > 0 {
				return refused(fmt.Errorf("the policies in %s can't become active", config.Dir))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ok: the policies in %s would become active\n", config.Dir)
			return nil
		},
	}
	source.flags(cmd)
	return cmd
}

func newPolicyTestCommand() *cobra.Command {
	var source policySource
	cmd := &cobra.Command{
		Use:   "test [DIR]",
		Short: "Run the policies' own tests (*_test.rego)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, options, err := source.openOr(args)
			if err != nil {
				return err
			}
			results, err := policy.Test(cmd.Context(), config, options)
			if err != nil {
				return refused(err)
			}
			failed := 0
			for _, r := range results {
				word := "ok    "
				if !r.Passed {
					word = "FAILED"
					failed++
				}
				line := fmt.Sprintf("%s %s.%s  %s:%d %s", word, r.Package, r.Name, r.File, r.Line, r.Error)
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(line, " "))
			}
			if failed > 0 {
				return refused(fmt.Errorf("%d of %d tests failed", failed, len(results)))
			}
			if len(results) == 0 {
				return refused(fmt.Errorf("there are no tests in %s; a policy without a test is a hope", config.Dir))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s passed\n", many(len(results), "test"))
			return nil
		},
	}
	source.flags(cmd)
	return cmd
}

func newPolicyExplainCommand() *cobra.Command {
	var source policySource
	var pkg, input, output string
	cmd := &cobra.Command{
		Use:   "explain --package NAME --input FILE",
		Short: "Say what a policy decides about an input, and why",
		Long: `Asks a policy about an input document (docs/policy-input.md), or about the input
of a recorded decision as proviso audit search --output json prints it. It prints
every condition that fails, with the value found and the value wanted. Nothing
that it says can be used to mint.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, options, err := source.open()
			if err != nil {
				return err
			}
			data, err := readBounded(input)
			if err != nil {
				return err
			}
			doc, err := document.Parse(data, document.Limits{Bytes: maxReadBytes, Members: 100_000})
			if err != nil {
				return fmt.Errorf("%s: %w", input, err)
			}
			if recorded := doc.Get("input"); !recorded.IsAbsent() {
				if name, ok := doc.At("policy", "package").Text(); ok && pkg == "" {
					pkg = name
				}
				doc = recorded
			}
			engine, err := policy.Open(config, options)
			if err != nil {
				return refused(err)
			}
			p, err := engine.For(pkg)
			if err != nil {
				return refused(err)
			}
			outcome, err := p.Simulate(cmd.Context(), doc)
			if err != nil {
				return refused(err)
			}
			return printOutcome(cmd.OutOrStdout(), outcome, output == "json")
		},
	}
	source.flags(cmd)
	cmd.Flags().StringVar(&pkg, "package", "", "the Rego package; a recorded decision names its own")
	cmd.Flags().StringVar(&input, "input", "-", "the input document, or a recorded decision; - is standard input")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func printOutcome(out io.Writer, o policy.Outcome, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(out).Encode(o); err != nil {
			return err
		}
	} else if o.Allowed {
		fmt.Fprintf(out, "allowed by %s (%s)\n", o.Package, o.Digest)
	} else {
		fmt.Fprintf(out, "refused by %s (%s): %s\n%s", o.Package, o.Digest, o.Public, policy.Text(o.Detail))
		if o.Fault != "" {
			fmt.Fprintf(out, "  %s\n", o.Fault)
		}
	}
	if !o.Allowed {
		return &exitError{code: exitRefused}
	}
	return nil
}

func newPolicyReplayCommand() *cobra.Command {
	var source policySource
	var dir, since string
	cmd := &cobra.Command{
		Use:   "replay --store DIR",
		Short: "Put recorded decisions before other policies, and say what would change",
		Long: `Reads the recorded decisions of a broker's store and asks the given policies about
each recorded input. It prints the decisions that would come out otherwise; the
exit code is 1 if there are any. The store is only read; nothing is decided anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, options, err := source.open()
			if err != nil {
				return err
			}
			engine, err := policy.Open(config, options)
			if err != nil {
				return refused(err)
			}
			query := audit.Query{}
			if query.From, err = sinceTime(since); err != nil {
				return err
			}
			db, err := store.OpenReadOnly(dir)
			if err != nil {
				return refused(err)
			}
			defer db.Close()
			return replay(cmd.Context(), cmd.OutOrStdout(), engine, db, query)
		},
	}
	source.flags(cmd)
	cmd.Flags().StringVar(&dir, "store", "data", "the broker's store")
	cmd.Flags().StringVar(&since, "since", "", "only what was recorded in this time, as 24h")
	return cmd
}

// replay counts only decisions that a policy made: those with an input.
func replay(ctx context.Context, out io.Writer, engine *policy.Engine, db *store.DB, query audit.Query) error {
	asked, changed := 0, 0
	for s, err := range audit.Search(ctx, db, query) {
		if err != nil {
			return refused(err)
		}
		input := s.Document.Get("input")
		pkg, _ := s.Document.At("policy", "package").Text()
		if input.IsAbsent() || s.Type != "decision" {
			continue
		}
		asked++
		stage, _ := s.Document.Get("stage").Text()
		was := s.Result == "allowed" || stage == string(proviso.StageRecord) || stage == string(proviso.StageCredential) // refused after the policy had said yes
		p, err := engine.For(pkg)
		if err != nil {
			changed++
			fmt.Fprintf(out, "%s %s: the package %s is gone, so it would be refused\n", s.Decision, describe(s), pkg)
			continue
		}
		outcome, err := p.Simulate(ctx, input)
		if err != nil {
			return refused(err)
		}
		if outcome.Allowed == was {
			continue
		}
		changed++
		word := "would be refused"
		if outcome.Allowed {
			word = "would be allowed"
		}
		fmt.Fprintf(out, "%s %s: %s\n%s", s.Decision, describe(s), word, policy.Text(outcome.Detail))
	}
	fmt.Fprintf(out, "%s replayed, %d would come out otherwise\n", many(asked, "decision"), changed)
	if changed > 0 {
		return &exitError{code: exitRefused}
	}
	return nil
}
