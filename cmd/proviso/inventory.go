package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/report"
)

// inventoryFlags are the flags of `proviso inventory`.
type inventoryFlags struct {
	output   string
	all      bool
	maxBytes int64
	quiet    bool
	findings findingFlags
}

// newInventoryCommand reads the pipelines of a tree and prints their access paths.
func newInventoryCommand() *cobra.Command {
	var f inventoryFlags
	cmd := &cobra.Command{
		Use:   "inventory [DIR|FILE ...]",
		Short: "List every access path of a tree of pipelines",
		Long: `inventory reads the pipeline definitions below the given directories (the
current one when none is given) and prints which job reaches which resource,
with which credential, and who can make it run.

It executes nothing, opens nothing outside of the given directories, and prints
no value of a secret. What it can't see it names: under "files" what could not
be read, under "unresolved" what is defined elsewhere.

Findings say what should be changed; docs/findings.md explains each rule. To
start with an estate that has many: --write-baseline FILE once, then
--baseline FILE --fail-on high in CI, so that only new ones stop a build.

Exit codes: 0 done, 1 a finding reaches --fail-on, 2 misuse.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			return runInventory(cmd, args, f)
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", strings.Join(report.Formats, ", ")+" (json by docs/schema/inventory.schema.json)")
	cmd.Flags().BoolVar(&f.all, "all", false, "print the whole tree, not only what fits a screen")
	cmd.Flags().Int64Var(&f.maxBytes, "max-bytes", 0, "size of the largest file that is read (default 4 MiB)")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	f.findings.register(cmd)
	return cmd
}

// runInventory scans and prints.
func runInventory(cmd *cobra.Command, roots []string, f inventoryFlags) error {
	if !slices.Contains(report.Formats, f.output) {
		return fmt.Errorf("--output is %q; it can be %s", f.output, strings.Join(report.Formats, ", "))
	}
	now := time.Now()
	files, err := f.findings.read(roots, now)
	if err != nil {
		return err
	}
	var docs []*inventory.Inventory
	for _, root := range roots {
		opt := inventory.Options{MaxBytes: f.maxBytes}
		if !f.quiet && isTerminal(cmd.ErrOrStderr()) {
			opt.Progress = progressOn(cmd.ErrOrStderr(), root)
		}
		inv, err := inventory.Scan(cmd.Context(), root, opt)
		if err != nil {
			return err
		}
		if err := inventory.Check(cmd.Context(), inv, root, inventory.Options{MaxBytes: f.maxBytes}); err != nil {
			return err
		}
		docs = append(docs, inv)
	}
	inv := inventory.Merge(docs)
	if err := f.findings.settle(cmd.ErrOrStderr(), inv, files, now); err != nil {
		return err
	}
	if err := printInventory(cmd.OutOrStdout(), inv, f); err != nil {
		return err
	}
	return f.findings.failure(inv, files)
}

// printInventory writes the document in the asked form.
func printInventory(w io.Writer, inv *inventory.Inventory, f inventoryFlags) error {
	if f.output != "text" {
		r := report.Report{Inventory: inv, Version: version()}
		return r.Write(w, f.output)
	}
	opt := report.TextOptions{}
	opt.Colour = isTerminal(w) && os.Getenv("NO_COLOR") == ""
	if f.all {
		opt.Lines = -1
	}
	if err := report.Text(w, inv, opt); err != nil {
		return err
	}
	return report.Findings(w, inv, opt)
}

// progressOn says how far a scan is, at most five times a second, once it takes longer than one.
func progressOn(w io.Writer, root string) func(done, total int) {
	start := time.Now()
	last := start
	return func(done, total int) {
		now := time.Now()
		switch {
		case done == total:
			if last != start {
				fmt.Fprintf(w, "\r%s\r", strings.Repeat(" ", 70))
			}
		case now.Sub(start) > time.Second && now.Sub(last) > 200*time.Millisecond:
			last = now
			fmt.Fprintf(w, "\r%-70.70s", fmt.Sprintf("%s: %d of %d files", root, done, total))
		}
	}
}
