package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/inventory"
)

// ignoreFile is looked for in each scanned directory.
const ignoreFile = ".proviso-ignore.yaml"

// findingFlags are the flags of `proviso inventory` that say which findings count.
type findingFlags struct {
	baseline      string
	writeBaseline string
	ignore        string
	noIgnore      bool
	since         string
	failOn        string
}

func (f *findingFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.baseline, "baseline", "", "set aside the findings that this file names")
	flags.StringVar(&f.writeBaseline, "write-baseline", "", "accept all findings of today: write them into this file")
	flags.StringVar(&f.ignore, "ignore-file", "", "ignores with a reason and an end (default "+ignoreFile+" in each directory that is named)")
	flags.BoolVar(&f.noIgnore, "no-ignore-file", false, "read no "+ignoreFile+": for trees of people you don't know (a fetched repository's own is never obeyed)")
	flags.StringVar(&f.since, "since", "", "compare with an earlier inventory (its JSON); only what is new counts for --fail-on")
	flags.StringVar(&f.failOn, "fail-on", "never", "exit with 1 when a finding is at least info, low, medium, high or critical")
}

// findingFiles is what the flags name, read.
type findingFiles struct {
	baseline  *inventory.Baseline
	ignores   []inventory.Ignore
	since     *inventory.Inventory
	threshold inventory.Severity // "" never fails
}

// read reads all files before a scan that may take minutes: a mistake in one of them is said at once.
func (f *findingFlags) read(roots []string, fetched bool, now time.Time) (files findingFiles, err error) {
	if f.failOn != "never" {
		var ok bool
		if files.threshold, ok = inventory.ParseSeverity(f.failOn); !ok {
			return files, fmt.Errorf("--fail-on is %q; write never, info, low, medium, high or critical", f.failOn)
		}
	}
	if f.ignore != "" && f.noIgnore {
		return files, errors.New("--ignore-file and --no-ignore-file can't both be")
	}
	if f.baseline != "" {
		data, err := readFile(f.baseline)
		if err != nil {
			return files, fmt.Errorf("--baseline: %w", err)
		}
		if files.baseline, err = inventory.ParseBaseline(f.baseline, data); err != nil {
			return files, err
		}
	}
	if f.since != "" {
		data, err := os.ReadFile(f.since) // an inventory of a large estate has any size
		if err != nil {
			return files, fmt.Errorf("--since: %w", err)
		}
		if files.since, err = inventory.Parse(f.since, data); err != nil {
			return files, err
		}
	}
	files.ignores, err = f.readIgnores(roots, fetched || len(roots) > 1, now)
	return files, err
}

// readIgnores reads the named file, or that of each directory that was named. A
// fetched repository has no say: it could silence its own findings in the report
// of somebody who doesn't know its people. With several trees the names of files
// begin with the directory, as in the document, and what a directory's own file
// ignores is in that directory.
func (f *findingFlags) readIgnores(roots []string, several bool, now time.Time) (out []inventory.Ignore, err error) {
	if f.ignore != "" {
		data, err := readFile(f.ignore)
		if err != nil {
			return nil, fmt.Errorf("--ignore-file: %w", err)
		}
		return inventory.ParseIgnores(f.ignore, data, now)
	}
	if f.noIgnore {
		return nil, nil
	}
	for _, root := range roots {
		name := filepath.Join(root, ignoreFile)
		if info, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() || !isDirectory(root) {
			continue // a link may lead out of the tree
		}
		data, err := readFile(name)
		if err != nil {
			return nil, err
		}
		list, err := inventory.ParseIgnores(name, data, now)
		if err != nil {
			return nil, err
		}
		for _, ig := range list {
			if several {
				if ig.File == "" {
					ig.File = "**"
				}
				ig.File = path.Join(filepath.ToSlash(root), ig.File)
			}
			out = append(out, ig)
		}
	}
	return out, nil
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// settle takes aside what is known, compares, and writes the baseline. What
// people should know of it goes to w.
func (f *findingFlags) settle(w io.Writer, inv *inventory.Inventory, files findingFiles, now time.Time) error {
	var notes []string
	inv.Suppressed, notes = inv.SetAside(files.baseline, files.ignores, now)
	for _, n := range notes {
		fmt.Fprintf(w, "proviso: %s\n", n)
	}
	if files.since != nil {
		inv.Since = inv.Compare(files.since)
	}
	if f.writeBaseline == "" {
		return nil
	}
	base := inventory.BaselineOf(inv)
	data, err := json.MarshalIndent(base, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.writeBaseline, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("--write-baseline: %w", err)
	}
	fmt.Fprintf(w, "proviso: %s accepted in %s\n", findingCount(len(base.Findings)), f.writeBaseline)
	return nil
}

// failure is the exit code's error: nil when no finding counts.
func (f *findingFlags) failure(inv *inventory.Inventory, files findingFiles) error {
	if files.threshold == "" || f.writeBaseline != "" {
		return nil
	}
	if n := inv.CountAtLeast(files.threshold); n > 0 {
		what := findingCount(n) + " of severity " + string(files.threshold) + " or higher"
		if inv.Since != nil {
			what += " that " + strings.TrimPrefix(f.since, "./") + " doesn't have"
		}
		return refused(errors.New(what))
	}
	return nil
}

func findingCount(n int) string {
	if n == 1 {
		return "1 finding"
	}
	return fmt.Sprintf("%d findings", n)
}
