package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/proviso-ci/proviso/inventory"
	wayout "github.com/proviso-ci/proviso/plan"
	"github.com/proviso-ci/proviso/report"
)

// inventoryFlags are the flags of `proviso inventory`.
type inventoryFlags struct {
	output   string
	all      bool
	maxBytes int64
	quiet    bool
	// repository names the tree's repository where it has no .git/config.
	repository string
	findings   findingFlags
	estate     estateFlags
	live       liveFlags
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

A whole estate is fetched first with --repos, --github-org or --gitlab-group:
only files that can be definitions, by a git that runs nothing, into a cache that
the next run goes on from. A token is read from GITHUB_TOKEN or GITLAB_TOKEN.

Exit codes: 0 done, 1 a finding reaches --fail-on, 2 misuse.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !f.estate.any() {
				args = []string{"."}
			}
			return runInventory(cmd, args, f)
		},
	}
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", strings.Join(report.Formats, ", ")+" (json by docs/schema/inventory.schema.json)")
	cmd.Flags().BoolVar(&f.all, "all", false, "print the whole tree, not only what fits a screen")
	cmd.Flags().Int64Var(&f.maxBytes, "max-bytes", 0, "size of the largest file that is read (default 4 MiB)")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	cmd.Flags().StringVar(&f.repository, "repository", "", "whose copy the tree is, as owner/name, where no .git/config in it says so")
	f.findings.register(cmd)
	f.estate.register(cmd)
	f.live.register(cmd)
	return cmd
}

// runInventory scans and prints.
func runInventory(cmd *cobra.Command, roots []string, f inventoryFlags) error {
	if !slices.Contains(report.Formats, f.output) {
		return fmt.Errorf("--output is %q; it can be %s", f.output, strings.Join(report.Formats, ", "))
	}
	now := time.Now()
	files, err := f.findings.read(roots, f.estate.any(), now)
	if err != nil {
		return err
	}
	record, err := f.live.read(cmd.Context())
	if err != nil {
		return err
	}
	var failures []inventory.Unresolved
	if f.estate.any() {
		fetched, missing, err := f.estate.gather(cmd, f.quiet)
		if err != nil {
			return refused(err)
		}
		roots, failures = append(roots, fetched...), missing
	}
	trees, err := scanTrees(cmd, roots, f.quiet, f.estate.keepDir, inventory.Options{MaxBytes: f.maxBytes, Repository: f.repository})
	if err != nil {
		return err
	}
	var docs []*inventory.Inventory
	for _, t := range trees {
		docs = append(docs, t.Inventory)
	}
	inv := inventory.Merge(docs)
	inv.Unresolved = append(inv.Unresolved, failures...)
	if record != nil {
		for _, n := range inv.MarkLive(record) {
			fmt.Fprintf(cmd.ErrOrStderr(), "proviso: %s\n", n)
		}
	}
	if err := f.findings.settle(cmd.ErrOrStderr(), inv, files, now); err != nil {
		return err
	}
	if err := printInventory(cmd, inv, trees, f); err != nil {
		return err
	}
	return f.findings.failure(inv, files)
}

// scanTrees reads trees and checks them. keepDir says where the results of
// earlier scans are, "" when none are kept.
func scanTrees(cmd *cobra.Command, roots []string, quiet bool, keepDir func() (string, error), opt inventory.Options) ([]wayout.Tree, error) {
	results, err := keepDir()
	if err != nil {
		return nil, err
	}
	var trees []wayout.Tree
	for _, root := range roots {
		one := opt
		if results != "" {
			if one.Keep, err = inventory.OpenKeep(results, root, opt); err != nil {
				return nil, err
			}
		}
		if !quiet && isTerminal(cmd.ErrOrStderr()) {
			one.Progress = progressOn(cmd.ErrOrStderr(), root)
		}
		inv, err := inventory.Scan(cmd.Context(), root, one)
		if err != nil {
			return nil, err
		}
		one.Progress = nil
		if err := inventory.Check(cmd.Context(), inv, root, one); err != nil {
			return nil, err
		}
		if one.Keep != nil {
			keepResults(cmd, one.Keep, quiet)
		}
		t := wayout.Tree{Dir: root, Inventory: inv}
		if info, err := os.Stat(root); err == nil && !info.IsDir() {
			t.Dir = filepath.Dir(root)
		}
		trees = append(trees, t)
	}
	return trees, nil
}

// keepResults writes what the next scan can use. That it can't be written costs the next scan its time, and this one nothing.
func keepResults(cmd *cobra.Command, k *inventory.Keep, quiet bool) {
	if err := k.Save(); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "proviso: %v\n", err)
	}
	if same, of := k.Same(); !quiet {
		fmt.Fprintf(cmd.ErrOrStderr(), "files: %d (unchanged %d, read anew %d)\n", of, same, of-same)
	}
}

// printInventory writes the document in the asked form. The page shows the
// plan too; a plan that can't be made is said, and the page is without it.
func printInventory(cmd *cobra.Command, inv *inventory.Inventory, trees []wayout.Tree, f inventoryFlags) error {
	w := cmd.OutOrStdout()
	if f.output != "text" {
		r := report.Report{Inventory: inv, Version: version()}
		if f.output == "html" {
			var err error
			if r.Plan, err = wayout.Make(cmd.Context(), trees, wayout.Options{Route: wayout.Direct}); err != nil {
				r.Plan = nil
				fmt.Fprintf(cmd.ErrOrStderr(), "proviso: the page has no plan: %v\n", err)
			}
		}
		return r.Write(w, f.output)
	}
	opt := report.TextOptions{Colour: isTerminal(w)}
	opt.Width, opt.Height = screen(w)
	if f.all {
		opt.Lines = -1
	}
	if err := report.Text(w, inv, opt); err != nil {
		return err
	}
	return report.Findings(w, inv, opt)
}

// screen gives the columns and lines of a terminal, 0 for what is none.
func screen(w io.Writer) (columns, lines int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
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
