package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/store"
)

func newAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify, search and export the record of decisions",
	}
	cmd.AddCommand(newAuditVerifyCommand(), newAuditSearchCommand(), newAuditExportCommand(), newAuditKeyCommand())
	return cmd
}

func newAuditVerifyCommand() *cobra.Command {
	var key, logAt string
	var receipts, checkpoints []string
	var output string
	cmd := &cobra.Command{
		Use:   "verify --key KEY [--log DIR|URL] [--receipt FILE]... [--checkpoint FILE]...",
		Short: "Prove a receipt, or the whole log, with the log's public key alone",
		Long: `With receipts only, proves of each that its decision is in the log that the key
signed. With a log (a directory that proviso audit export wrote, a broker's
store, or the URL of its operations listener's /log) recomputes all of it from
its entries, and holds it against the receipts and earlier checkpoints that you
have kept. The first entry that was altered, removed or forked is named.

A receipt's file may be the receipt itself or the whole answer of /token. The
exit code is 0 when everything verifies, 1 when something doesn't.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if key == "" {
				return errors.New("--key is missing: the log's public key, as proviso audit key prints it; get it from somebody you trust, not from the log")
			}
			if logAt == "" && len(receipts) == 0 {
				return errors.New("there is nothing to verify: give --receipt FILE or --log DIR")
			}
			known, err := readKnown(receipts, checkpoints)
			if err != nil {
				return err
			}
			return verifyAll(cmd.Context(), cmd.OutOrStdout(), logAt, key, known, output == "json")
		},
	}
	cmd.Flags().StringVar(&key, "key", os.Getenv("PROVISO_LOG_KEY"), "the log's public key (or PROVISO_LOG_KEY)")
	cmd.Flags().StringVar(&logAt, "log", "", "an exported log, a broker's store, or the URL of a log")
	cmd.Flags().StringArrayVar(&receipts, "receipt", nil, "a receipt, or an answer of /token; - is standard input")
	cmd.Flags().StringArrayVar(&checkpoints, "checkpoint", nil, "a checkpoint that was kept from earlier")
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

// readKnown reads what an auditor has kept.
func readKnown(receipts, checkpoints []string) (audit.Known, error) {
	var known audit.Known
	for _, name := range receipts {
		data, err := readBounded(name)
		if err != nil {
			return known, err
		}
		var answer proviso.TokenResponse
		if json.Unmarshal(data, &answer) == nil && len(answer.Proviso.Receipt) > 0 {
			data = answer.Proviso.Receipt
		}
		receipt, err := audit.ParseReceipt(data)
		if err != nil {
			return known, refused(fmt.Errorf("%s: %w", name, err))
		}
		known.Receipts = append(known.Receipts, receipt)
	}
	for _, name := range checkpoints {
		data, err := readBounded(name)
		if err != nil {
			return known, err
		}
		known.Checkpoints = append(known.Checkpoints, data)
	}
	return known, nil
}

const maxReadBytes = 4 << 20

func readBounded(name string) ([]byte, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxReadBytes+1))
	if err == nil && len(data) > maxReadBytes {
		err = fmt.Errorf("%s is over %d MiB", name, maxReadBytes>>20)
	}
	return data, err
}

func verifyAll(ctx context.Context, out io.Writer, logAt, key string, known audit.Known, asJSON bool) error {
	var proved []audit.Summary
	for _, r := range known.Receipts {
		s, err := audit.VerifyReceipt(r, key)
		if err != nil {
			return refused(err)
		}
		proved = append(proved, s)
	}
	var report *audit.Report
	if logAt != "" {
		source, done, err := openLog(ctx, logAt)
		if err != nil {
			return err
		}
		r, err := audit.VerifyLog(ctx, source, key, known)
		if err = errors.Join(err, done()); err != nil {
			return refused(err)
		}
		report = &r
	}
	if asJSON {
		return json.NewEncoder(out).Encode(map[string]any{"receipts": proved, "log": report})
	}
	for _, s := range proved {
		fmt.Fprintf(out, "proved: decision %s is entry %d of the log: %s\n", s.Decision, s.Index, describe(s))
	}
	if report != nil {
		fmt.Fprintf(out, "proved: the log %s of %d entries (%d allowed, %d refused, %d noted) from %s to %s is what its key signed",
			report.Origin, report.Size, report.Allowed, report.Refused, report.Noted, day(report.First), day(report.Last))
		if report.Known > 0 {
			fmt.Fprintf(out, ", and agrees with the %d receipts and checkpoints from before", report.Known)
		}
		fmt.Fprintln(out)
	}
	return nil
}

// openLog finds out what kind of log a place is.
func openLog(ctx context.Context, at string) (audit.Source, func() error, error) {
	if strings.HasPrefix(at, "http://") || strings.HasPrefix(at, "https://") {
		return audit.HTTPSource(strings.TrimSuffix(at, "/"), &http.Client{Timeout: time.Minute}), func() error { return nil }, nil
	}
	if _, err := os.Stat(filepath.Join(at, audit.VKeyFile)); err == nil {
		db, err := store.OpenReadOnly(at)
		if err != nil {
			return audit.Source{}, nil, refused(err)
		}
		return audit.StoreSource(db), db.Close, nil
	}
	if _, err := os.Stat(at); err != nil {
		return audit.Source{}, nil, err
	}
	return audit.DirSource(at), func() error { return nil }, nil
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// describe says in one line what an entry is about.
func describe(s audit.Summary) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", day(s.Time), s.Result)
	if s.Code != "" {
		fmt.Fprintf(&b, " (%s)", s.Code)
	}
	fmt.Fprintf(&b, " grant %s", s.Grant)
	for _, part := range []struct{ name, value string }{
		{"issuer", s.Issuer}, {"repository", s.Repository}, {"actor", s.Actor}, {"runner", s.SPIFFEID}, {"credential", s.Credential},
	} {
		if part.value != "" {
			fmt.Fprintf(&b, " %s %s", part.name, part.value)
		}
	}
	return b.String()
}

func newAuditSearchCommand() *cobra.Command {
	var q audit.Query
	var dir, since, code, output string
	cmd := &cobra.Command{
		Use:   "search --store DIR",
		Short: "Find decisions in a broker's store",
		Long: `Prints the decisions that fit, the oldest first, one a line; with --output json
the whole entries. It reads the store of a broker that may be running.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.From, err = sinceTime(since); err != nil {
				return err
			}
			q.Code = proviso.Code(code)
			db, err := store.OpenReadOnly(dir)
			if err != nil {
				return refused(err)
			}
			defer db.Close()
			for s, err := range audit.Search(cmd.Context(), db, q) {
				if err != nil {
					return refused(err)
				}
				if output == "json" {
					fmt.Fprintln(cmd.OutOrStdout(), s.Document.String())
				} else {
					fmt.Fprintf(cmd.OutOrStdout(), "%d %s %s\n", s.Index, s.Decision, describe(s))
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "store", "data", "the broker's store")
	flags.StringVar(&since, "since", "", "only what was recorded in this time, as 24h")
	flags.StringVar(&q.Decision, "decision", "", "a decision's id")
	flags.StringVar(&q.Issuer, "issuer", "", "an issuer's name in the configuration")
	flags.StringVar(&q.Repository, "repository", "", "a repository's name")
	flags.StringVar(&q.Grant, "grant", "", "a grant's name")
	flags.StringVar(&q.Result, "result", "", "allowed, refused or noted")
	flags.StringVar(&code, "code", "", "a refusal's code")
	flags.StringVar(&q.Actor, "actor", "", "who triggered the job")
	flags.StringVar(&q.SPIFFEID, "runner", "", "a runner's SPIFFE ID")
	flags.StringVar(&q.Credential, "credential", "", "a credential's id")
	flags.StringVar(&output, "output", "text", "text or json")
	return cmd
}

// sinceTime reads a time back from now; empty is the beginning.
func sinceTime(since string) (time.Time, error) {
	if since == "" {
		return time.Time{}, nil
	}
	d, err := time.ParseDuration(since)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since is a time back from now, as 24h: %w", err)
	}
	return time.Now().Add(-d), nil
}

func newAuditExportCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "export --store DIR OUT",
		Short: "Write the log as static files (C2SP tlog-tiles), for an auditor or a web server",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			db, err := store.OpenReadOnly(dir)
			if err != nil {
				return refused(err)
			}
			defer db.Close()
			n, err := audit.Export(cmd.Context(), db, args[0])
			if err != nil {
				return refused(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d entries in %s\n", n, args[0])
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "store", "data", "the broker's store")
	return cmd
}

func newAuditKeyCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "key --store DIR",
		Short: "Print the log's public key: what an auditor needs, and all of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := os.ReadFile(filepath.Join(dir, audit.VKeyFile))
			if err != nil {
				return refused(fmt.Errorf("no log's public key is in %s; is it a broker's store? %w", dir, err))
			}
			_, err = cmd.OutOrStdout().Write(key)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "store", "data", "the broker's store")
	return cmd
}
