package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/proviso-ci/proviso/inventory"
)

// fewFindings is how many findings fit below a tree that fits a screen.
const fewFindings = 6

// Findings prints findings for people, the worst first: what is wrong,
// where, and what to write instead; then what was put aside, and what changed.
func Findings(w io.Writer, inv *inventory.Inventory, opt TextOptions) error {
	t := &textTree{out: new(bytes.Buffer), opt: opt.defaults(inv)}
	list := slices.Clone(inv.Findings)
	slices.SortStableFunc(list, func(a, b inventory.Finding) int {
		if inv.Since != nil && inv.Since.IsNew(&a) != inv.Since.IsNew(&b) {
			return map[bool]int{true: -1, false: 1}[inv.Since.IsNew(&a)]
		}
		return moreSevere(a, b)
	})
	if t.opt.Height > 0 {
		t.findingsOnScreen(list, inv.Since)
	} else {
		show := len(list)
		if t.opt.Lines >= 0 {
			show = min(show, fewFindings)
		}
		for i := range list[:show] {
			t.finding(&list[i], inv.Since != nil && inv.Since.IsNew(&list[i]))
		}
		if more := len(list) - show; more > 0 {
			fmt.Fprintf(t.out, "\n… and %s (--all prints every one).\n", plural(more, "more finding"))
		}
	}
	t.aside(inv.Suppressed)
	if inv.Since != nil {
		t.changes(inv.Since)
	}
	_, err := w.Write(t.out.Bytes())
	return err
}

// findingsOnScreen prints one line for each of the worst, as many as fit.
func (t *textTree) findingsOnScreen(list []inventory.Finding, since *inventory.Diff) {
	lines := t.opt.findingLines()
	show := min(len(list), lines)
	if show < len(list) {
		show = max(show-1, 0)
	}
	for i := range list[:show] {
		f := &list[i]
		word := string(f.Severity)
		if since != nil && since.IsNew(f) {
			word += ", new"
		}
		head := t.paint(severityColour(f.Severity), pad(word, 9)) + " " + pad(f.Rule, 24) + " "
		fmt.Fprintf(t.out, "%s%s\n", head, tail(fmt.Sprintf("%s:%d", f.File, f.Line), max(t.opt.Width-35, 10)))
	}
	if lines > 0 && show < len(list) {
		fmt.Fprintf(t.out, "… and %s (--all prints every one, with what to do)\n", plural(len(list)-show, "more finding"))
	}
}

func severityColour(s inventory.Severity) string {
	return map[inventory.Severity]string{inventory.SeverityCritical: "31;1", inventory.SeverityHigh: "31", inventory.SeverityMedium: "33"}[s]
}

// finding prints one.
func (t *textTree) finding(f *inventory.Finding, isNew bool) {
	colour := severityColour(f.Severity)
	word := string(f.Severity)
	if isNew {
		word += ", new"
	}
	head := t.paint(colour, word) + "  " + printable(f.Rule)
	fmt.Fprintf(t.out, "\n%s  %s:%d\n", head, printable(f.File), f.Line)
	for _, line := range wrap(printable(f.Message), t.opt.Width-4) {
		fmt.Fprintf(t.out, "    %s\n", line)
	}
	for i, line := range wrap("Fix: "+printable(f.Fix), t.opt.Width-4) {
		if f.Fix != "" || i > 0 {
			fmt.Fprintf(t.out, "    %s\n", line)
		}
	}
}

// aside says what was put aside: nothing is hidden without a word.
func (t *textTree) aside(list []inventory.Suppressed) {
	if len(list) == 0 {
		return
	}
	by := make(map[string]int)
	for _, s := range list {
		by[s.By]++
	}
	var parts []string
	if n := by["baseline"]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d by the baseline", n))
	}
	if n := by["ignore"]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d by an ignore", n))
	}
	fmt.Fprintf(t.out, "\nPut aside: %s.\n", strings.Join(parts, ", "))
}

// changes sums up a comparison.
func (t *textTree) changes(d *inventory.Diff) {
	if d.Empty() {
		fmt.Fprintln(t.out, "\nNothing changed since then.")
		return
	}
	fmt.Fprintln(t.out)
	for _, line := range wrap(fmt.Sprintf("Since then: %s new, %d gone, %d changed; %s new, %d gone, %d of another severity.",
		plural(len(d.NewPaths), "access path"), len(d.GonePaths), len(d.ChangedPaths), plural(len(d.NewFindings), "finding"), len(d.GoneFindings), len(d.ChangedFindings)), t.opt.Width) {
		fmt.Fprintln(t.out, line)
	}
}

// wrap breaks a sentence into lines of at most width columns.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
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
