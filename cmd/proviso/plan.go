package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/inventory"
	wayout "github.com/proviso-ci/proviso/plan" // package plan; the tests here have a type of that name
)

// planFlags are the flags of `proviso plan`.
type planFlags struct {
	inventory, output, write, route, broker, record string
	since, only, set                                []string
	wave                                            int
	all, quiet                                      bool
	// repository names the tree's repository where it has no .git/config.
	repository string
	estate     estateFlags
}

// newPlanCommand turns an inventory into an ordered way out of static secrets.
func newPlanCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan [DIR ...]",
		Short: "Plan the way out of static secrets: patches, grants, policies, trust, in an order",
		Long: `Plan scans the given directories (the current one when none is given) as
inventory does, and says for each static secret what takes its place, in the
order of what is won for the work: the patch of the pipeline, the grant and the
policy for Proviso, the trust configuration of the target, how long both ways
stay open, the proof that the old one is out of use, and how to end it.

Nothing is changed. --write DIR writes PLAN.md, patches/, proviso/, policy/ and
trust/ into a new directory. A patch applies with git apply in its repository,
in the order of the plan; it is only made where a new scan of the patched text
shows that the static path is gone and nothing else changed. Where that can't be
had, the plan says why and lists the steps.

Trusts in the same trees (Terraform, trust policies, Vault's roles) are read, too:
a role that takes the jobs already is used, and no second one is written.

A whole estate is fetched first with --repos, --github-org or --gitlab-group, as
proviso inventory does, into the same cache.

What no file can tell (account numbers, ids) is asked for: --set NAME=VALUE, or
in the written files, which refuse to work until it is set.

Exit codes: 0 done, 1 what was asked for can't be written, 2 misuse.`,
		Example: `  proviso plan
  proviso plan --all --only NPM_TOKEN
  proviso plan --wave 1 --write plan-1
  proviso inventory -o json . > monday.json; proviso plan --since monday.json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return runPlan(cmd, args, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.inventory, "inventory", "", "take the inventory from a file (proviso inventory -o json) instead of scanning; run it where the scan was run")
	fl.StringVarP(&f.output, "output", "o", "text", "text, json (docs/schema/plan.schema.json) or markdown")
	fl.StringVar(&f.write, "write", "", "write all files into this directory, which must not exist yet or be empty")
	fl.StringVar(&f.route, "route", string(wayout.Direct), "whom targets trust that can trust either: direct (the CI platform's issuer) or proviso (policy decides and the record has each use)")
	fl.StringVar(&f.broker, "broker", os.Getenv("PROVISO_URL"), "Proviso's URL (default: the variable PROVISO_URL)")
	fl.StringArrayVar(&f.since, "since", nil, "an earlier inventory, for the burn-down; several, oldest first")
	fl.StringVar(&f.record, "record", "", "Proviso's record, for the proof of disuse: the broker's store, or a file that proviso audit search --output json wrote")
	fl.StringSliceVar(&f.only, "only", nil, "only these items, by id or by secret")
	fl.IntVar(&f.wave, "wave", 0, "only this wave")
	fl.StringArrayVar(&f.set, "set", nil, "NAME=VALUE of something that no file can tell")
	fl.BoolVar(&f.all, "all", false, "print every item with all its steps, not only what fits a screen")
	fl.StringVar(&f.repository, "repository", "", "whose copy the tree is, as owner/name, where no .git/config in it says so")
	f.estate.register(cmd)
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on standard error")
	return cmd
}

func runPlan(cmd *cobra.Command, roots []string, f planFlags) error {
	switch f.output {
	case "text", "json", "markdown":
	default:
		return fmt.Errorf("--output is %q; it can be text, json or markdown", f.output)
	}
	opt := wayout.Options{Route: wayout.Route(f.route), Broker: f.broker, Only: f.only, Wave: f.wave, Set: map[string]string{}}
	for _, s := range f.set {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" {
			return fmt.Errorf("--set %q: write NAME=VALUE", s)
		}
		opt.Set[name] = value
	}
	for _, name := range f.since {
		inv, err := inventoryFile(name)
		if err != nil {
			return fmt.Errorf("--since: %w", err)
		}
		opt.Since = append(opt.Since, wayout.Earlier{Name: filepath.Base(name), Inventory: inv})
	}
	if f.record != "" {
		var err error
		if opt.Record, err = grantUses(cmd.Context(), f.record); err != nil {
			return fmt.Errorf("--record: %w", err)
		}
	}
	trees, err := planTrees(cmd, roots, f)
	if err != nil {
		return err
	}
	p, err := wayout.Make(cmd.Context(), trees, opt)
	if err != nil {
		return err
	}
	if len(p.Items) == 0 && (len(f.only) > 0 || f.wave > 0) {
		cmd.PrintErrln("nothing is left of what was asked for with --only or --wave; proviso plan without them lists what there is")
	}
	if f.write != "" {
		if err := writePlan(f.write, p); err != nil {
			return err
		}
		cmd.PrintErrf("%d files are in %s; begin with %s\n", len(p.Files), f.write, filepath.Join(f.write, "PLAN.md"))
	}
	return printPlan(cmd.OutOrStdout(), p, f)
}

// planTrees scans, or reads an inventory.
func planTrees(cmd *cobra.Command, roots []string, f planFlags) ([]wayout.Tree, error) {
	if f.inventory != "" {
		if len(roots) > 0 || f.estate.any() {
			return nil, errors.New("--inventory and what is scanned (directories, --repos, --github-org, --gitlab-group) are two sources of one plan; choose one")
		}
		inv, err := inventoryFile(f.inventory)
		if err != nil {
			return nil, fmt.Errorf("--inventory: %w", err)
		}
		t := wayout.Tree{Inventory: inv}
		switch info, err := os.Stat(inv.Root); {
		case err == nil && info.IsDir():
			t.Dir = inv.Root
		case err == nil:
			t.Dir = filepath.Dir(inv.Root)
		case strings.Contains(inv.Root, ", "): // of several roots: names begin with theirs
			t.Dir = "."
		}
		return []wayout.Tree{t}, nil
	}
	switch {
	case f.estate.any():
		fetched, _, err := f.estate.gather(cmd, f.quiet) // what is missing it has said
		if err != nil {
			return nil, refused(err)
		}
		roots = append(roots, fetched...)
	case len(roots) == 0:
		roots = []string{"."}
	}
	return scanTrees(cmd, roots, f.quiet, f.estate.keepDir, inventory.Options{Repository: f.repository})
}

func printPlan(w io.Writer, p *wayout.Plan, f planFlags) error {
	switch f.output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(p)
	case "markdown":
		_, err := io.WriteString(w, p.Markdown())
		return err
	}
	opt := wayout.TextOptions{All: f.all, Colour: isTerminal(w) && os.Getenv("NO_COLOR") == ""}
	if opt.Width, opt.Lines = screen(w); opt.Lines > 0 {
		opt.Lines-- // for the prompt
	}
	return p.WriteText(w, opt)
}

// writePlan writes the files of a plan into a directory of their own. It
// overwrites nothing: somebody may have filled in what the files ask for.
func writePlan(dir string, p *wayout.Plan) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return refused(fmt.Errorf("%s is not empty; name a directory that isn't there yet, so that nothing that was filled in is lost", dir))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return refused(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return refused(err)
	}
	defer func() { _ = root.Close() }()
	for _, f := range p.Files {
		name := filepath.FromSlash(f.Name)
		mode := os.FileMode(0o644)
		if f.Executable {
			mode = 0o755
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return refused(err)
		}
		file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return refused(err)
		}
		_, err = io.WriteString(file, f.Text)
		if err = errors.Join(err, file.Close()); err != nil {
			return refused(err)
		}
	}
	return nil
}

// maxInventoryBytes bounds an inventory that was written as JSON.
const maxInventoryBytes = 512 << 20

// inventoryFile reads an inventory that was written as JSON.
func inventoryFile(name string) (*inventory.Inventory, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(file, maxInventoryBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInventoryBytes {
		return nil, fmt.Errorf("%s is over %d MiB", name, maxInventoryBytes>>20)
	}
	return inventory.Parse(filepath.Base(name), data)
}

// grantUses counts the decisions of each grant in Proviso's record: a broker's
// store, or entries that audit search printed, one a line.
func grantUses(ctx context.Context, name string) (map[string]*wayout.Use, error) {
	uses := make(map[string]*wayout.Use)
	add := func(grant, result string, at time.Time) {
		if grant == "" || result != "allowed" && result != "refused" {
			return
		}
		if uses[grant] == nil {
			uses[grant] = &wayout.Use{}
		}
		uses[grant].Add(result == "allowed", at)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		db, err := openStore(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = db.Close() }() // only read
		for s, err := range audit.Search(ctx, db, audit.Query{}) {
			if err != nil {
				return nil, err
			}
			add(s.Grant, s.Result, s.Time)
		}
		return uses, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxReadBytes)
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		var entry struct {
			Grant, Result string
			Time          int64 // milliseconds
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil || entry.Result == "" || entry.Time <= 0 {
			return nil, fmt.Errorf("%s:%d is no entry of a record, as proviso audit search --output json prints them", name, n)
		}
		add(entry.Grant, entry.Result, time.UnixMilli(entry.Time))
	}
	return uses, lines.Err()
}
