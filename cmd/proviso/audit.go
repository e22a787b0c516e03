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
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
)

func newAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify, search and export the record of decisions",
		Args:  noSuchCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
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
			key, err := logKey("--key", key)
			if err != nil {
				return err
			}
			if err := isOutput(output); err != nil {
				return err
			}
			known, err := readKnown(receipts, checkpoints)
			if err != nil {
				return err
			}
			v, err := prove(cmd.Context(), logAt, key, known)
			switch {
			case err != nil && v.Finding == nil:
				return err
			case output == "json":
				if jsonErr := json.NewEncoder(cmd.OutOrStdout()).Encode(v); jsonErr != nil || err != nil {
					return &exitError{exitRefused, jsonErr}
				}
			case err != nil:
				return refused(err)
			default:
				v.print(cmd.OutOrStdout())
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", os.Getenv("PROVISO_LOG_KEY"), "the log's public key, or a file with it (or PROVISO_LOG_KEY)")
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

// verdict is what a verification came to, as programs read it.
type verdict struct {
	Receipts []provedEntry `json:"receipts,omitempty"`
	Log      *provedLog    `json:"log,omitempty"`
	Finding  *finding      `json:"finding,omitempty"`

	summaries []audit.Summary
}

// provedEntry is an entry that a receipt proves.
type provedEntry struct {
	Index    int64          `json:"index"`
	Decision string         `json:"decision"`
	Result   string         `json:"result"`
	Entry    document.Value `json:"entry"`
}

// provedLog is a log that is what its key signed.
type provedLog struct {
	Origin  string    `json:"origin"`
	Size    int64     `json:"size"`
	Root    string    `json:"root"`
	Allowed int64     `json:"allowed"`
	Refused int64     `json:"refused"`
	Noted   int64     `json:"noted"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	// Known counts what was kept from before that the log agrees with.
	Known int `json:"known"`
}

// finding is what is wrong, and from which entry to which.
type finding struct {
	Code    proviso.Code `json:"code"`
	First   int64        `json:"first"` // -1: about no entry in particular
	Last    int64        `json:"last"`
	Message string       `json:"message"`
}

// prove verifies what it was given. The error is an *audit.Finding where
// something is wrong, and is in the verdict too.
func prove(ctx context.Context, logAt, key string, known audit.Known) (v verdict, err error) {
	defer func() {
		if f := new(audit.Finding); errors.As(err, &f) {
			v = verdict{Finding: &finding{f.Code, f.Index, f.Last, f.Text}}
		}
	}()
	for _, r := range known.Receipts {
		s, err := audit.VerifyReceipt(r, key)
		if err != nil {
			return v, err
		}
		v.summaries = append(v.summaries, s)
		v.Receipts = append(v.Receipts, provedEntry{s.Index, s.Decision, s.Result, s.Document})
	}
	if logAt == "" {
		return v, nil
	}
	source, done, err := openLog(ctx, logAt)
	if err != nil {
		return v, err
	}
	r, err := audit.VerifyLog(ctx, source, key, known)
	if err = errors.Join(err, done()); err != nil {
		return v, err
	}
	v.Log = &provedLog{r.Origin, r.Size, r.Root, r.Allowed, r.Refused, r.Noted, r.First, r.Last, r.Known}
	return v, nil
}

func (v verdict) print(out io.Writer) {
	for _, s := range v.summaries {
		fmt.Fprintf(out, "proved: decision %s is entry %d of the log: %s\n", s.Decision, s.Index, describe(s))
	}
	if v.Log == nil {
		return
	}
	fmt.Fprintf(out, "proved: the log %s of %s (%d allowed, %d refused, %d noted) from %s to %s is what its key signed",
		v.Log.Origin, entries(v.Log.Size), v.Log.Allowed, v.Log.Refused, v.Log.Noted, day(v.Log.First), day(v.Log.Last))
	if v.Log.Known > 0 {
		fmt.Fprintf(out, ", and agrees with all receipts and checkpoints from before (%d)", v.Log.Known)
	}
	fmt.Fprintln(out)
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}

// openLog finds out what kind of log a place is.
func openLog(ctx context.Context, at string) (audit.Source, func() error, error) {
	if strings.HasPrefix(at, "http://") || strings.HasPrefix(at, "https://") {
		return audit.HTTPSource(strings.TrimSuffix(at, "/"), &http.Client{Timeout: time.Minute}), func() error { return nil }, nil
	}
	if _, err := os.Stat(filepath.Join(at, audit.VKeyFile)); err == nil {
		db, err := openStore(at)
		if err != nil {
			return audit.Source{}, nil, err
		}
		return audit.StoreSource(db), db.Close, nil
	}
	if _, err := os.Stat(at); err != nil {
		return audit.Source{}, nil, fmt.Errorf("there is no log: %w", err)
	}
	return audit.DirSource(at), func() error { return nil }, nil
}

// openStore opens a store to read it. A place without one is misuse, a store
// that can't be read is not.
func openStore(dir string) (*store.DB, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("there is no store: %w", err)
	}
	db, err := store.OpenReadOnly(dir)
	if err != nil {
		return nil, refused(err)
	}
	return db, nil
}

func isOutput(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("--output %q: write text or json", s)
	}
	return nil
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
	for _, part := range []struct{ name, value string }{
		{"grant", s.Grant}, {"issuer", s.Issuer}, {"repository", s.Repository}, {"actor", s.Actor}, {"runner", s.SPIFFEID}, {"credential", s.Credential},
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
			if err := isOutput(output); err != nil {
				return err
			}
			if !slices.Contains([]string{"", "allowed", "refused", "noted"}, q.Result) {
				return fmt.Errorf("--result %q: write allowed, refused or noted", q.Result)
			}
			q.Code = proviso.Code(code)
			db, err := openStore(dir)
			if err != nil {
				return err
			}
			defer db.Close()
			for s, err := range audit.Search(cmd.Context(), db, q) {
				if err != nil {
					return refused(err)
				}
				if output == "json" {
					fmt.Fprintln(cmd.OutOrStdout(), visible(s.Document.String()))
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

// visible escapes, in a JSON text, what a terminal would act on or not show:
// the record keeps what outsiders wrote, and RFC 8785 escapes no more than
// JSON must.
func visible(text string) string {
	hidden := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, "\\u%04x", unit)
		}
	}
	return b.String()
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
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("name one directory to write the log into")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			db, err := openStore(dir)
			if err != nil {
				return err
			}
			defer db.Close()
			n, err := audit.Export(cmd.Context(), db, args[0])
			if err != nil {
				return refused(err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s in %s\n", entries(n), args[0])
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
