package report

import (
	"bufio"
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
	// Lines bounds the tree so that it fits a screen; 0 is 42, a negative number is no bound.
	Lines int
	// Colour is for terminals.
	Colour bool
}

// textGroup is one credential for one resource, in all the places that use it.
type textGroup struct {
	res     inventory.Resource
	cred    inventory.Credential
	trust   inventory.Trust
	jobs    map[string]bool
	first   *inventory.Path
	files   map[string]bool
	present int
}

// Text prints the inventory for people: a tree of what is reached, with
// what, and who can make it happen, worst first; then the sums.
func Text(w io.Writer, inv *inventory.Inventory, opt TextOptions) error {
	if opt.Width <= 0 {
		opt.Width = 110
	}
	if opt.Lines == 0 {
		opt.Lines = 42
	}
	out := bufio.NewWriter(w)
	systems := make(map[inventory.CI]int)
	for _, f := range inv.Files {
		systems[f.CI]++
	}
	fmt.Fprintf(out, "%s: %s of %s, %s\n\n", inv.Root, plural(len(inv.Files), "pipeline file"), plural(len(systems), "CI system"), plural(len(inv.Paths), "access path"))
	t := &textTree{out: out, opt: opt}
	t.tree(groupsOf(inv))
	t.sums(inv)
	return out.Flush()
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
	out *bufio.Writer
	opt TextOptions
}

// tree prints one branch per kind of resource. When not all fits, every
// branch shows its worst entries and says how many there are more.
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
	if left < 0 {
		left = 1 << 30
	}
	each := max(1, (left-2*len(kinds))/max(len(kinds), 1))
	for i, k := range kinds {
		if left <= 2 && i < len(kinds)-1 {
			fmt.Fprintf(t.out, "… and %s more of resource: %s\n", plural(len(kinds)-i, "kind"), strings.Join(kinds[i:min(i+6, len(kinds))], ", "))
			break
		}
		list := byKind[k]
		fmt.Fprintln(t.out, t.paint("1", k))
		left--
		show := min(len(list), max(each, left-3*(len(kinds)-i)))
		if show < len(list) && show > 0 && show+1 == len(list) {
			show = len(list)
		}
		for j, g := range list[:show] {
			branch := "├─ "
			if j == len(list)-1 {
				branch = "└─ "
			}
			t.entry(branch, g)
			left--
		}
		if more := len(list) - show; more > 0 {
			fmt.Fprintf(t.out, "└─ … and %d more\n", more)
			left--
		}
	}
	fmt.Fprintln(t.out)
}

// entry prints one credential.
func (t *textTree) entry(branch string, g *textGroup) {
	where := fmt.Sprintf("%s:%d", g.first.File, g.first.Line)
	count := plural(len(g.jobs), "job")
	if n := len(g.files); n > 1 {
		count += fmt.Sprintf(" in %d files", n)
	}
	name := g.cred.Name
	if g.cred.Source != "" {
		name += " (" + g.cred.Source + ")"
	}
	target := g.res.Name
	if target == "unknown" {
		target = "?"
	}
	wide := t.opt.Width
	cols := []int{wide * 30 / 100, wide * 20 / 100, 10, 15}
	line := branch + pad(name, cols[0]) + " " + pad(target, cols[1]) + " " + pad(shortKind(g.cred.Kind), cols[2]) + " "
	rest := pad(count, 20) + " "
	room := wide - utf8.RuneCountInString(line) - cols[3] - utf8.RuneCountInString(rest) - 1
	fmt.Fprintf(t.out, "%s%s %s%s\n", line, t.trust(g.trust, cols[3]), rest, tail(where, max(room, 12)))
}

func shortKind(k inventory.Kind) string {
	switch k {
	case inventory.StaticSecret:
		return "static"
	case inventory.PlatformToken:
		return "platform"
	case inventory.ServiceConnection:
		return "connection"
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
	}
	return t.paint("33", text)
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
		fmt.Fprintf(t.out, "\nNot seen: %s not or only partly read, %s defined elsewhere (in the JSON under files and unresolved).\n", plural(unread, "file"), plural(len(inv.Unresolved), "part"))
	}
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
