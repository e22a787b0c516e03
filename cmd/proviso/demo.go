package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
)

func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Play the whole flow and the main attacks in a lab of real parts, and verify every receipt",
		Long: `Starts a lab on loopback (CI issuers that sign like GitHub and GitLab, a SPIFFE
authority, a ticket system and a rota, a git repository with signed and unsigned
commits, the broker, a gate and a resource behind it), plays the seed's six
policies and the main attacks, and prints what was asked, decided and why. Then
it verifies all receipts and the whole log offline, with the log's public key
alone. Nothing is left behind. The exit code is 0 only if everything came out
as it must.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

func runDemo(ctx context.Context, out io.Writer) (err error) {
	begun := time.Now()
	w, err := newWorld(ctx, "127.0.0.1:0", newLogger(LogConfig{Level: "error", Format: "text"}))
	if err != nil {
		return refused(err)
	}
	defer func() {
		if closeErr := w.close(); closeErr != nil && err == nil {
			err = refused(closeErr)
		}
	}()
	p := newPage(out)
	fmt.Fprintf(out, "A broker at %s, CI issuers that sign like GitHub and GitLab, runners with\n", w.url)
	fmt.Fprintf(out, "SPIFFE identities, a ticket system, a rota, a git repository, and a resource behind a gate.\n")
	fmt.Fprintf(out, "Each line is one request of a CI job: what it asked for, what the broker decided, and why.\n")
	var receipts []*proviso.TokenResponse
	var failures error
	granted, refusals := 0, 0
	for _, act := range acts(w) {
		p.heading(act.title)
		for _, s := range act.scenes {
			performed, err := w.play(ctx, s)
			failures = errors.Join(failures, err)
			if performed == nil {
				continue
			}
			p.scene(performed, err)
			if performed.answer != nil {
				receipts = append(receipts, performed.answer)
				granted++
			} else {
				refusals++
			}
			if performed.afterwards.asked != "" {
				refusals++
			}
		}
	}
	verified, err := w.verify(ctx, receipts)
	if err != nil {
		failures = errors.Join(failures, err)
	}
	p.heading("The record")
	fmt.Fprintf(out, "  %s\n", verified)
	if failures != nil {
		return refused(fmt.Errorf("not everything came out as it must:\n%w", failures))
	}
	fmt.Fprintf(out, "\n%d granted, %d refused, each as it must be, in %.1f s.\n", granted, refusals, time.Since(begun).Seconds())
	fmt.Fprintf(out, "Next: proviso dev keeps this lab running and prints commands to try.\n")
	return nil
}

// verify checks every receipt and the whole log with the public key alone.
func (w *world) verify(ctx context.Context, receipts []*proviso.TokenResponse) (string, error) {
	key := w.broker.log.VerifierKey()
	var known audit.Known
	for _, r := range receipts {
		receipt, err := audit.ParseReceipt(r.Proviso.Receipt)
		if err != nil {
			return "a receipt can't be read", err
		}
		if _, err := audit.VerifyReceipt(receipt, key); err != nil {
			return "a receipt does not verify", err
		}
		known.Receipts = append(known.Receipts, receipt)
	}
	dir := filepath.Join(w.dir, "log")
	if _, err := audit.Export(ctx, w.broker.db, dir); err != nil {
		return "the log could not be exported", err
	}
	report, err := audit.VerifyLog(ctx, audit.DirSource(dir), key, known)
	if err != nil {
		return "the log does not verify", err
	}
	return fmt.Sprintf(`Every request has an entry in the log, also every refusal, and every grant a receipt.
  %d receipts and the whole log of %d entries verified offline, with the log's public key alone:
  %s`, len(receipts), report.Size, key), nil
}

// page prints the demo's table: what was asked, what was decided, why.
type page struct {
	out   io.Writer
	color bool
	width int
}

const (
	askedWidth = 44
	pageWidth  = 102
)

func newPage(out io.Writer) *page {
	return &page{out: out, color: isTerminal(out), width: pageWidth}
}

// isTerminal reports whether out is a terminal that may be coloured
// (https://no-color.org).
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p *page) paint(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *page) heading(title string) {
	fmt.Fprintf(p.out, "\n%s\n", p.paint("1", title))
}

// scene prints one request; a failure of the demo itself is marked.
func (p *page) scene(s *performance, failure error) {
	if s.scene.title != "" {
		fmt.Fprintf(p.out, "  %s\n", p.paint("4", s.scene.title))
	}
	word := p.paint("32", "granted")
	if s.answer == nil {
		word = p.paint("33", "refused")
	}
	if failure != nil {
		word = p.paint("31", "WRONG! ")
	}
	p.row(s.scene.asked, word, s.why())
	if a := s.afterwards; a.asked != "" {
		p.row(a.asked, p.paint("33", "refused"), a.why)
	}
}

// row prints what was asked, what was decided, and why, as wide as they may be.
func (p *page) row(asked, word, reason string) {
	why := wrap(reason, p.width-askedWidth-14)
	lines := wrap(asked, askedWidth-2)
	for i := range max(len(why), len(lines)) {
		left, right, decided := "", "", "       "
		if i < len(lines) {
			left = lines[i]
		}
		if i < len(why) {
			right = why[i]
		}
		if i == 0 {
			decided = word
		}
		line := "    " + left + strings.Repeat(" ", askedWidth-utf8.RuneCountInString(left)) + decided + "  " + right
		fmt.Fprintln(p.out, strings.TrimRight(line, " "))
	}
}

// why says in a few words why it came out so.
func (s *performance) why() string {
	var parts []string
	switch {
	case s.answer != nil:
		c := s.answer.Proviso.Credential
		bound := ""
		if s.answer.TokenType == "DPoP" {
			bound = ", bound to the job's key"
		}
		parts = append(parts, fmt.Sprintf("token for %s: %s, %d min%s", strings.TrimPrefix(c.Audience, "https://"),
			strings.ReplaceAll(s.answer.Scope, " ", ", "), (s.answer.ExpiresIn+1)/60, bound))
	case s.refusal != nil && len(s.refusal.Reasons) > 0:
		for _, r := range s.refusal.Reasons {
			parts = append(parts, r.Message)
		}
	case s.refusal != nil:
		parts = append(parts, fmt.Sprintf("%s: %s", s.refusal.Code, s.refusal.Description))
	}
	if s.then != "" {
		parts = append(parts, s.then)
	}
	return strings.Join(parts, "; ")
}

// wrap breaks a text into lines of at most width characters, at spaces.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
