package plan

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// TextOptions say how the report for a terminal looks.
type TextOptions struct {
	// All prints every item with all of its steps; else what fits a screen is printed.
	All bool
	// Lines is the height that is filled; 0 is 44.
	Lines int
	// Width is the number of columns; 0 is 110.
	Width int
	// Colour is for terminals.
	Colour bool
}

// WriteText prints the plan for people: the waves, what is in each, and what
// is to be done first.
func (p *Plan) WriteText(w io.Writer, opt TextOptions) error {
	if opt.Lines <= 0 {
		opt.Lines = 44
	}
	if opt.Width <= 0 {
		opt.Width = 110
	}
	t := &textPlan{opt: opt, plan: p}
	t.head()
	if p.BurnDown != nil {
		t.burnDown()
	}
	t.done()
	t.waves()
	t.foot()
	_, err := io.WriteString(w, t.out.String())
	return err
}

type textPlan struct {
	out  strings.Builder
	opt  TextOptions
	plan *Plan
	used int
}

// small reports whether every line counts: then the counts of waves stand for what is left out.
func (t *textPlan) small() bool { return !t.opt.All && t.opt.Lines < 32 }

func (t *textPlan) line(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if utf8.RuneCountInString(s) > t.opt.Width && !t.opt.All {
		s = string([]rune(s)[:t.opt.Width-1]) + "…"
	}
	fmt.Fprintln(&t.out, strings.TrimRight(s, " "))
	t.used++
}

// wrapped prints a sentence over as many lines as it needs, behind a head: what
// says whether a secret can go is never cut.
func (t *textPlan) wrapped(head, sentence string) {
	room := max(t.opt.Width-utf8.RuneCountInString(head), 20)
	line := ""
	for _, word := range strings.Fields(sentence) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			t.line("%s%s", head, line)
			head, line = strings.Repeat(" ", utf8.RuneCountInString(head)), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	t.line("%s%s", head, line)
}

func (t *textPlan) bold(s string) {
	if t.opt.Colour {
		s = "\x1b[1m" + s + "\x1b[0m"
	}
	fmt.Fprintln(&t.out, s)
	t.used++
}

func (t *textPlan) head() {
	s := t.plan.Summary
	if s.Secrets == 0 {
		t.line("%s: no static secret is used by any pipeline.", oneLine(strings.Join(t.plan.called, ", ")))
		return
	}
	t.wrapped("", fmt.Sprintf("%s: %s in %s. A patch changes %d of the places, %d are changed by hand.", oneLine(strings.Join(t.plan.called, ", ")), plural(s.Secrets, "static secret"), plural(s.Places, "place"), s.Patched, s.Manual))
	if s.NoneBetter > 0 {
		t.line("For %s nothing better exists at the target: fenced in, or handed out by Proviso.", plural(s.NoneBetter, "secret"))
	}
	if s.Identifiers > 0 {
		t.line("%s kept like secrets: plain variables will do.", plural(s.Identifiers, "identifier"))
	}
	if s.Fetched > 0 {
		t.line("%s a secrets manager at run time already: make the values dynamic there.", map[bool]string{true: "1 place asks", false: digits(s.Fetched) + " places ask"}[s.Fetched == 1])
	}
	for i, f := range t.plan.Foundations {
		if t.small() {
			t.line("First, once: %s", plural(len(t.plan.Foundations), "foundation"))
			break
		}
		if i == 0 {
			t.line("")
			t.bold("First, once:")
		}
		if more := len(t.plan.Foundations) - i; i >= 5 && more > 1 && !t.opt.All {
			t.line("  … and %d more", more)
			break
		}
		t.line("  %s (for %s)", oneLine(f.Title), plural(len(f.NeededBy), "item"))
	}
}

func (t *textPlan) burnDown() {
	t.line("")
	b := t.plan.BurnDown
	t.bold(fmt.Sprintf("%-28s %8s %8s %10s %10s", "Burn-down", "secrets", "places", "federated", "outsiders"))
	show := func(pt Point) {
		t.line("  %-26s %8d %8d %10d %10d", tail(oneLine(pt.Name), 26), pt.Secrets, pt.Places, pt.Federated, pt.Outsiders)
	}
	for _, pt := range b.Points {
		show(pt)
	}
	for _, pt := range b.Left {
		show(pt)
	}
	if n := len(b.Gone) + len(b.New); n > 0 {
		t.line("  gone: %d (%s)   new: %d (%s)", len(b.Gone), few(b.Gone), len(b.New), few(b.New))
	}
}

func few(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	if len(list) > 3 {
		return strings.Join(list[:3], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}

// waves prints each wave with its items; where not all fit, the first of each.
func (t *textPlan) waves() {
	items := 0
	for _, w := range t.plan.Waves {
		items += len(w.Items)
	}
	room := t.opt.Lines - t.used - 4 - 3*len(t.plan.Waves)
	if t.small() {
		room = t.opt.Lines - t.used - 6 - len(t.plan.Waves)
	}
	for i, w := range t.plan.Waves {
		if !t.small() || i == 0 {
			t.line("")
		}
		t.bold(fmt.Sprintf("Wave %d: %s (%d)", w.Number, w.Title, len(w.Items)))
		show := len(w.Items)
		if !t.opt.All && items > room {
			show = max(min(show, room/(len(t.plan.Waves)-i)), 1)
		}
		for _, id := range w.Items[:show] {
			t.item(t.plan.Item(id))
		}
		if more := len(w.Items) - show; more > 0 && !t.small() {
			t.line("  … and %d more", more)
		}
		room -= show
	}
}

// item prints one line, or with All everything.
func (t *textPlan) item(it *Item) {
	what := "by hand"
	switch {
	case it.Patch != nil && len(it.Manual) == 0:
		what = "patch"
	case it.Patch != nil:
		what = "patch + hand"
	}
	where := fmt.Sprintf("%s:%d", it.Places[0].File, it.Places[0].Line)
	width := max(t.opt.Width-76, 20)
	if t.opt.Width < 100 && !t.opt.All {
		t.line("  %-26s %-9s risk %3d  %-12s %s", tail(it.ID, 26), it.Method, it.Risk, what, tail(oneLine(where), max(t.opt.Width-62, 12)))
		return
	}
	t.line("  %-28s %-10s risk %3d effort %2d  %-12s %s", tail(it.ID, 28), it.Method, it.Risk, it.Effort, what, tail(oneLine(where), width))
	if !t.opt.All {
		return
	}
	t.line("      %s", oneLine(strings.Join(it.Secrets, ", "))+": "+it.Replacement)
	t.line("      %s", it.Why)
	if it.Trust != nil {
		t.line("      trust:    %s %s", it.Trust.Summary, strings.Join(it.Trust.Files, " "))
	}
	if it.Grant != nil {
		t.line("      grant:    %s guarded by %s", it.Grant.Name, it.Grant.Package)
	}
	t.steps("prepare:", it.Prepare)
	if it.Patch != nil {
		t.line("      patch:    git apply %s (+%d -%d in %s)", it.Patch.File, it.Patch.Added, it.Patch.Removed, oneLine(strings.Join(it.Patch.Changes, ", ")))
	}
	for _, m := range it.Manual {
		t.line("      by hand:  %s:%d: %s", oneLine(m.File), m.Line, m.Why)
		for _, s := range m.Steps {
			t.line("                - %s", s)
		}
	}
	if it.Record != nil {
		t.line("      record:   %s; refused %s", it.Standing, times(it.Record.Refused))
	}
	t.line("      both:     %d days, and until %s", it.DualRun.Days, it.DualRun.Until)
	t.line("                watch %s", strings.Join(it.DualRun.Watch, "; "))
	t.steps("proof:", it.Proof)
	t.steps("end:", it.Deletion)
	for _, n := range it.Notes {
		t.line("      note:     %s", n)
	}
}

func (t *textPlan) steps(name string, steps []Step) {
	for _, s := range steps {
		t.line("      %-9s %s", name, s.Do)
		if s.Command != "" {
			t.line("                  %s", oneLine(s.Command))
		}
		name = ""
	}
}

func (t *textPlan) foot() {
	if len(t.plan.Items) == 0 {
		return
	}
	t.line("")
	if n := len(t.plan.Variables); n > 0 {
		t.line("%s asked for that no file could tell: --set NAME=VALUE, or in the written files.", map[bool]string{true: "1 value is", false: digits(n) + " values are"}[n == 1])
	}
	if !t.opt.All {
		t.wrapped("", "--all shows every step; --only "+t.plan.Items[0].ID+" one item; --write DIR writes patches, grants, policies and trust.")
	}
}

// tail cuts a text from its front.
func tail(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return "…" + string(r[len(r)-width+1:])
	}
	return s
}
