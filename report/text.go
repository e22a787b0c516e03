package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/proviso-ci/proviso/inventory"
)

// TextOptions say how the terminal report looks.
type TextOptions struct {
	// Width is the number of columns; 0 is 110.
	Width int
	// Height is the number of lines of the screen, which tree, sums and findings
	// fit into together with the prompt that follows; 0 is no screen: a pipe.
	Height int
	// Lines bounds the tree where there is no screen; 0 is 42, a negative number
	// is no bound for anything.
	Lines int
	// Colour is for terminals.
	Colour bool
}

// textGroup is one credential for one resource, in all the places that use it.
type textGroup struct {
	res   inventory.Resource
	cred  inventory.Credential
	trust inventory.Trust
	jobs  map[string]bool
	first *inventory.Path
	files map[string]bool
}

// Lines that the parts take on a screen besides the tree: the head, the sums
// of five kinds, what was not seen, the count of findings, and the prompt.
const (
	headLines    = 2
	sumLines     = 7
	tailLines    = 3
	promptLines  = 1
	lowScreen    = 30 // below, findings are only counted
	narrowScreen = 100
	flatTree     = 18 // with fewer lines, the heads of a tree would be most of it
)

// defaults fills in what is not set.
func (opt TextOptions) defaults(inv *inventory.Inventory) TextOptions {
	if opt.Width <= 0 {
		opt.Width = 110
	}
	switch {
	case opt.Lines < 0:
		opt.Height = 0
	case opt.Height > 0:
		last := tailLines + endLines(inv)
		if len(inv.Suppressed) > 0 {
			last += 2
		}
		if inv.Since != nil {
			last += 3
		}
		opt.Lines = max(opt.Height-headLines-sumLines-last-promptLines-opt.findingLines(), 3)
	case opt.Lines == 0:
		opt.Lines = 42
	}
	return opt
}

// findingLines is how many lines of a screen the findings get.
func (opt TextOptions) findingLines() int {
	if opt.Height < lowScreen {
		return 0
	}
	return opt.Height / 8
}

// Text prints the inventory for people: a tree of what is reached, with
// what, and who can make it happen, worst first; then the sums.
func Text(w io.Writer, inv *inventory.Inventory, opt TextOptions) error {
	t := &textTree{out: new(bytes.Buffer), opt: opt.defaults(inv)}
	systems := make(map[inventory.CI]int)
	for _, f := range inv.Files {
		systems[f.CI]++
	}
	sums := fmt.Sprintf("%s of %s, %s", plural(len(inv.Files), "pipeline file"), plural(len(systems), "CI system"), plural(len(inv.Paths), "access path"))
	fmt.Fprintf(t.out, "%s: %s\n\n", tail(inv.Root, max(t.opt.Width-utf8.RuneCountInString(sums)-2, 10)), sums)
	t.tree(groupsOf(inv))
	t.sums(inv)
	_, err := w.Write(t.out.Bytes())
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// groups puts together the paths of one credential to one resource. The job's
// own tokens are one group each, for they are everywhere.
func groupsOf(inv *inventory.Inventory) []*textGroup {
	type key struct {
		kind, name, cred string
		ck               inventory.Kind
	}
	index := make(map[key]*textGroup)
	var out []*textGroup
	for i := range inv.Paths {
		p := &inv.Paths[i]
		k := key{p.Resource.Kind, p.Resource.Name, p.Credential.Name, p.Credential.Kind}
		if p.Credential.Nature == inventory.NatureIdentifier {
			k.kind, k.name = "identifiers kept as secrets", ""
		}
		g := index[k]
		if g == nil {
			g = &textGroup{res: p.Resource, cred: p.Credential, trust: p.Reach.Trust, first: p, jobs: make(map[string]bool), files: make(map[string]bool)}
			g.res.Kind = k.kind
			index[k] = g
			out = append(out, g)
		}
		g.jobs[p.File+"\x00"+p.Job] = true
		g.files[p.File] = true
		if trustRank(p.Reach.Trust) < trustRank(g.trust) {
			g.trust, g.first = p.Reach.Trust, p
		}
	}
	return out
}

func trustRank(t inventory.Trust) int {
	return slices.Index([]inventory.Trust{inventory.ForkReachable, inventory.TrustUnknown, inventory.Protected}, t)
}

// kindOrder is the order in which kinds are shown: what to get rid of first.
var kindOrder = []inventory.Kind{inventory.StaticSecret, inventory.ServiceConnection, inventory.Ambient, inventory.Federated, inventory.PlatformToken}

func kindRank(k inventory.Kind) int {
	return slices.Index(kindOrder, k)
}

// worse orders groups: what an outsider reaches first, static before federated, many places before few.
func worse(a, b *textGroup) int {
	if x, y := a.cred.Nature == inventory.NatureIdentifier, b.cred.Nature == inventory.NatureIdentifier; x != y {
		return map[bool]int{true: 1, false: -1}[x]
	}
	if c := kindRank(a.cred.Kind) - kindRank(b.cred.Kind); c != 0 && (kindRank(a.cred.Kind) == 4 || kindRank(b.cred.Kind) == 4) {
		return c
	}
	if c := trustRank(a.trust) - trustRank(b.trust); c != 0 {
		return c
	}
	if c := kindRank(a.cred.Kind) - kindRank(b.cred.Kind); c != 0 {
		return c
	}
	if c := len(b.jobs) - len(a.jobs); c != 0 {
		return c
	}
	return strings.Compare(a.cred.Name, b.cred.Name)
}

// textTree prints groups as a tree.
type textTree struct {
	out *bytes.Buffer
	opt TextOptions
}

// tree prints one branch per kind of resource. When not all fits, every
// branch shows its worst entries and says how many it has.
func (t *textTree) tree(groups []*textGroup) {
	byKind := make(map[string][]*textGroup)
	for _, g := range groups {
		byKind[g.res.Kind] = append(byKind[g.res.Kind], g)
	}
	kinds := slices.Sorted(maps.Keys(byKind))
	for _, k := range kinds {
		slices.SortStableFunc(byKind[k], worse)
	}
	slices.SortStableFunc(kinds, func(a, b string) int {
		if (a == "identifiers kept as secrets") != (b == "identifiers kept as secrets") {
			return map[bool]int{true: 1, false: -1}[a == "identifiers kept as secrets"]
		}
		if c := worse(byKind[a][0], byKind[b][0]); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	left := t.opt.Lines
	switch {
	case left < 0:
		left = 1 << 30
	case left < flatTree && len(groups) > 0:
		t.flat(groups, left)
		return
	}
	shown, more := shares(kinds, byKind, left)
	for i, k := range kinds[:len(shown)] {
		list := byKind[k]
		head := t.paint("1", pad(k, min(utf8.RuneCountInString(k), t.opt.Width-20)))
		if shown[i] < len(list) {
			head += fmt.Sprintf("  (%d of %d)", shown[i], len(list))
		}
		fmt.Fprintln(t.out, head)
		for j, g := range list[:shown[i]] {
			branch := "├─ "
			if j == shown[i]-1 {
				branch = "└─ "
			}
			t.entry(branch, g, g.res.Name)
		}
	}
	if more > 0 {
		rest := kinds[len(shown):]
		fmt.Fprintln(t.out, pad(fmt.Sprintf("… and %s of resource: %s", plural(more, "more kind"), strings.Join(rest, ", ")), t.opt.Width))
	}
	fmt.Fprintln(t.out)
}

// shares divides the lines among the kinds of resource: each has its head and
// its worst entry, and what is left goes round, so that no kind hides another.
func shares(kinds []string, byKind map[string][]*textGroup, lines int) (shown []int, more int) {
	fit := len(kinds)
	if 2*fit > lines {
		fit = max((lines-1)/2, 1)
		more = len(kinds) - fit
		lines--
	}
	shown = make([]int, fit)
	lines -= fit
	for gave := true; gave && lines > 0; {
		gave = false
		for i := range shown {
			if lines > 0 && shown[i] < len(byKind[kinds[i]]) {
				shown[i]++
				lines--
				gave = true
			}
		}
	}
	return shown, more
}

// flat prints the worst without a tree, for a screen on which a tree has no room.
func (t *textTree) flat(groups []*textGroup, left int) {
	slices.SortStableFunc(groups, worse)
	show := len(groups)
	if show > left {
		show = left - 1
	}
	for _, g := range groups[:show] {
		name := g.res.Kind
		if g.res.Name != "unknown" {
			name = g.res.Kind + " " + g.res.Name
		}
		t.entry("", g, name)
	}
	if more := len(groups) - show; more > 0 {
		fmt.Fprintf(t.out, "… and %s (--all)\n", plural(more, "more credential"))
	}
	fmt.Fprintln(t.out)
}

// entry prints one credential. A narrow screen has no room for the place.
func (t *textTree) entry(branch string, g *textGroup, target string) {
	name := g.cred.Name
	if g.cred.Source != "" {
		name += " (" + g.cred.Source + ")"
	}
	if target == "unknown" {
		target = "?"
	}
	const kindWidth, trustWidth = 10, 14
	if t.opt.Width < narrowScreen {
		jobs := "×" + fmt.Sprint(len(g.jobs))
		room := t.opt.Width - utf8.RuneCountInString(branch) - kindWidth - trustWidth - 6 - 4
		fmt.Fprintf(t.out, "%s%s %s %s %s %s\n", branch, pad(name, room/2), pad(target, room-room/2), pad(shortKind(g.cred.Kind), kindWidth), t.trust(g.trust, trustWidth), pad(jobs, 6))
		return
	}
	count := plural(len(g.jobs), "job")
	if n := len(g.files); n > 1 {
		count += fmt.Sprintf(" in %d files", n)
	}
	line := branch + pad(name, t.opt.Width*30/100) + " " + pad(target, t.opt.Width*20/100) + " " + pad(shortKind(g.cred.Kind), kindWidth) + " "
	rest := pad(count, 20) + " "
	room := t.opt.Width - utf8.RuneCountInString(line) - trustWidth - 1 - utf8.RuneCountInString(rest)
	fmt.Fprintf(t.out, "%s%s %s%s\n", line, t.trust(g.trust, trustWidth), rest, tail(fmt.Sprintf("%s:%d", g.first.File, g.first.Line), max(room, 1)))
}

func shortKind(k inventory.Kind) string {
	switch k {
	case inventory.StaticSecret:
		return "static"
	case inventory.PlatformToken:
		return "platform"
	case inventory.ServiceConnection:
		return "connection"
	case inventory.Federated, inventory.Ambient:
	}
	return string(k)
}

func (t *textTree) trust(tr inventory.Trust, width int) string {
	text := pad(strings.ReplaceAll(string(tr), "_", " "), width)
	switch tr {
	case inventory.ForkReachable:
		return t.paint("31", text)
	case inventory.Protected:
		return t.paint("32", text)
	default:
		return t.paint("33", text)
	}
}

func (t *textTree) paint(code, s string) string {
	if !t.opt.Colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// pad cuts or fills a text to a width; what is cut ends with an ellipsis.
func pad(s string, width int) string {
	s = printable(s)
	n := utf8.RuneCountInString(s)
	if n > width {
		r := []rune(s)
		return string(r[:max(width-1, 0)]) + "…"
	}
	return s + strings.Repeat(" ", width-n)
}

// tail cuts a text from its front.
func tail(s string, width int) string {
	s = printable(s)
	if r := []rune(s); len(r) > width {
		return "…" + string(r[len(r)-width+1:])
	}
	return s
}

// printable drops control characters: names come from files that anybody may have written.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e || r == 0x2066 {
			return -1
		}
		return r
	}, s)
}

// sums prints the table of kinds against reach, and what could not be seen.
func (t *textTree) sums(inv *inventory.Inventory) {
	count := make(map[inventory.Kind]map[inventory.Trust]int)
	for i := range inv.Paths {
		p := &inv.Paths[i]
		if p.Credential.Nature == inventory.NatureIdentifier {
			continue
		}
		if count[p.Credential.Kind] == nil {
			count[p.Credential.Kind] = make(map[inventory.Trust]int)
		}
		count[p.Credential.Kind][p.Reach.Trust]++
	}
	fmt.Fprintf(t.out, "%-20s %15s %10s %10s %8s\n", "credential", "fork reachable", "unknown", "protected", "all")
	for _, k := range kindOrder {
		c := count[k]
		all := c[inventory.ForkReachable] + c[inventory.TrustUnknown] + c[inventory.Protected]
		fmt.Fprintf(t.out, "%-20s %15d %10d %10d %8d\n", strings.ReplaceAll(string(k), "_", " "), c[inventory.ForkReachable], c[inventory.TrustUnknown], c[inventory.Protected], all)
	}
	unread := 0
	for _, f := range inv.Files {
		if f.Status != inventory.StatusRead {
			unread++
		}
	}
	if unread+len(inv.Unresolved) > 0 {
		fmt.Fprintf(t.out, "\nNot seen: %s not wholly read, %s defined elsewhere (json has them).\n", plural(unread, "file"), plural(len(inv.Unresolved), "part"))
	}
	t.ends(inv)
	if len(inv.Findings) == 0 {
		return
	}
	by := make(map[inventory.Severity]int)
	for _, f := range inv.Findings {
		by[f.Severity]++
	}
	fmt.Fprintf(t.out, "Findings:")
	sep := " "
	for _, s := range []inventory.Severity{inventory.SeverityCritical, inventory.SeverityHigh, inventory.SeverityMedium, inventory.SeverityLow, inventory.SeverityInfo} {
		if by[s] > 0 {
			fmt.Fprintf(t.out, "%s%d %s", sep, by[s], s)
			sep = ", "
		}
	}
	fmt.Fprintln(t.out)
}
