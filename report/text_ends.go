package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/trust"
)

// endLines says how many lines the other ends of federations take below the sums.
func endLines(inv *inventory.Inventory) int {
	n := 0
	if len(inv.Trusts) > 0 {
		n++
	}
	if edgesLeftOut(inv) != "" {
		n++
	}
	if slices.ContainsFunc(inv.Paths, func(p inventory.Path) bool { return p.Live != nil }) {
		n++
	}
	return n
}

// edgesLeftOut says how many edges the document lacks, "" when it has all.
func edgesLeftOut(inv *inventory.Inventory) string {
	for i := range inv.Unresolved {
		if u := &inv.Unresolved[i]; u.Kind == inventory.KindEdges {
			return u.Name
		}
	}
	return ""
}

// ends sums up what the other ends of federations accept, and what a running
// Proviso serves; with --all it says of each job what it can use.
func (t *textTree) ends(inv *inventory.Inventory) {
	if len(inv.Trusts) > 0 {
		best := make(map[string]trust.Answer)
		for _, e := range inv.Edges {
			if was := best[e.Trust]; was == "" || e.Can == trust.Yes || e.Can == trust.Unknown && was == trust.No {
				best[e.Trust] = e.Can
			}
		}
		count := make(map[trust.Answer]int)
		for _, a := range best {
			count[a]++
		}
		fmt.Fprintf(t.out, "Trusts: %d, of which jobs here can use %d, perhaps %d more; refused by name: %d; unused: %d.\n",
			len(inv.Trusts), count[trust.Yes], count[trust.Unknown], count[trust.No], len(inv.Trusts)-len(best))
	}
	if left := edgesLeftOut(inv); left != "" {
		fmt.Fprintf(t.out, "Left out: %s, so \"unused\" is too high; scan fewer trees at once.\n", printable(left))
	}
	live, uses, last := 0, 0, time.Time{}
	for i := range inv.Paths {
		if l := inv.Paths[i].Live; l != nil {
			live, uses = live+1, uses+l.Uses
			if l.LastUsed.After(last) {
				last = l.LastUsed
			}
		}
	}
	if live > 0 {
		fmt.Fprintf(t.out, "Proviso serves %s already: used %s, last on %s.\n", plural(live, "path"), plural(uses, "time"), last.UTC().Format(time.DateOnly))
	}
	if t.opt.Lines < 0 {
		t.edges(inv)
	}
}

// edges prints what each job can use.
func (t *textTree) edges(inv *inventory.Inventory) {
	paths := make(map[string]*inventory.Path, len(inv.Paths))
	for i := range inv.Paths {
		paths[inv.Paths[i].ID] = &inv.Paths[i]
	}
	trusts := make(map[string]*trust.Trust, len(inv.Trusts))
	for i := range inv.Trusts {
		trusts[inv.Trusts[i].ID] = &inv.Trusts[i]
	}
	byJob := make(map[string][]*inventory.Edge)
	for i := range inv.Edges {
		e := &inv.Edges[i]
		if p := paths[e.Path]; p != nil && trusts[e.Trust] != nil {
			key := p.File + " " + p.Job
			byJob[key] = append(byJob[key], e)
		}
	}
	if len(byJob) > 0 {
		fmt.Fprintln(t.out, "\nWhat each job can use")
	}
	for _, job := range slices.Sorted(maps.Keys(byJob)) {
		fmt.Fprintln(t.out, t.paint("1", printable(job)))
		for i, e := range byJob[job] {
			branch := "├─ "
			if i == len(byJob[job])-1 {
				branch = "└─ "
			}
			tr := trusts[e.Trust]
			colour := map[trust.Answer]string{trust.Yes: "32", trust.No: "31", trust.Unknown: "33"}[e.Can]
			fmt.Fprintf(t.out, "%s%s %s %s %s:%d\n", branch, t.paint(colour, pad(string(e.Can), 8)), pad(string(tr.Kind), 27), pad(tr.Target.Name, 34), printable(tr.File), tr.Line)
			if len(e.Why) > 0 {
				indent := strings.Repeat(" ", 12)
				if branch == "├─ " {
					indent = "│" + indent[1:]
				}
				for _, line := range wrap(printable(strings.Join(e.Why, "; ")), t.opt.Width-len(indent)) {
					fmt.Fprintln(t.out, indent+line)
				}
			}
		}
	}
}
