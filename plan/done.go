package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Use is what Proviso's record says of one grant.
type Use struct {
	Allowed int       `json:"allowed"`
	Refused int       `json:"refused"`
	First   time.Time `json:"first,omitzero"` // of the allowed ones
	Last    time.Time `json:"last,omitzero"`
}

// Add counts one decision of the record.
func (u *Use) Add(allowed bool, at time.Time) {
	if !allowed {
		u.Refused++
		return
	}
	u.Allowed++
	if u.First.IsZero() || at.Before(u.First) {
		u.First = at
	}
	if at.After(u.Last) {
		u.Last = at
	}
}

// standing says whether a grant is in use, and since when not: what was not
// used for as long as a dual run is no proof that the new way works today.
func (u *Use) standing(now time.Time, days int) string {
	if u.Allowed == 0 {
		return "the grant was never used, refused " + times(u.Refused)
	}
	last := u.Last.UTC().Format(time.DateOnly)
	if idle := int(now.Sub(u.Last).Hours() / 24); idle > days {
		return fmt.Sprintf("the grant was not used for %d days (%s before, last %s): nothing asks for it any more, or what asked is broken", idle, times(u.Allowed), last)
	}
	return fmt.Sprintf("the grant is in use: %s since %s, last %s", times(u.Allowed), u.First.UTC().Format(time.DateOnly), last)
}

// Done is a secret that the last earlier inventory had and that no pipeline
// names any more: what is left is its end.
type Done struct {
	ID         string   `json:"id"`
	Repository string   `json:"repository"`
	Secrets    []string `json:"secrets"`
	// Record is what Proviso's record says of the item's grant, when it was given.
	Record *Use `json:"record,omitempty"`
	// Ready is true when the record shows the new way used for as long as both
	// were to stay open.
	Ready bool `json:"ready"`
	// Verdict says why it is ready, or what is missing.
	Verdict string `json:"verdict"`
	// Proof asks the target, Deletion ends the secret.
	Proof    []Step `json:"proof"`
	Deletion []Step `json:"deletion"`
}

// done compares with the last earlier inventory.
func (p *planner) done(trees []Tree, now []*draft) {
	p.plan.Done = []Done{}
	if len(p.opt.Since) == 0 {
		return
	}
	old := Tree{Inventory: p.opt.Since[len(p.opt.Since)-1].Inventory}
	for _, t := range trees {
		if t.Inventory.Root == old.Inventory.Root || len(trees) == 1 {
			old.Dir = t.Dir // for the names of its repositories
		}
	}
	is := make(map[string]bool)
	for _, d := range now {
		is[d.item.ID] = true
	}
	for _, d := range p.drafts(groupPaths([]Tree{old}, p.repos).groups) {
		if is[d.item.ID] {
			continue
		}
		d.dualRun()
		one := Done{ID: d.item.ID, Repository: d.item.Repository, Secrets: d.item.Secrets, Proof: []Step{}, Deletion: append([]Step{}, d.platformDeletion()...)}
		if d.method.seen != nil {
			one.Proof = append(one.Proof, d.method.seen(d)...)
		}
		if d.method.ends != nil {
			one.Deletion = append(one.Deletion, d.method.ends(d)...)
		}
		one.judge(d, p.opt.Record, p.opt.Now())
		p.plan.Done = append(p.plan.Done, one)
	}
}

// judge says whether the secret can go. Only the record makes it ready: that a
// pipeline doesn't name a secret is no proof that the new way works.
func (o *Done) judge(d *draft, record map[string]*Use, now time.Time) {
	days := d.item.DualRun.Days
	switch use := record[o.ID]; {
	case d.item.Via != ViaProviso:
		o.Verdict = "no pipeline names it any more; the new way is not Proviso's, so its record can't tell: ask the target"
	case record == nil:
		o.Verdict = "no pipeline names it any more; give Proviso's record (--record) to see whether the new way is used"
	case use == nil || use.Allowed == 0:
		o.Verdict = "no pipeline names it any more, and the record has no use of the grant yet: wait for the first run, or find out who used it"
		o.Record = use
	default:
		o.Record = use
		ready := use.First.AddDate(0, 0, days)
		if o.Ready = !now.Before(ready); o.Ready {
			o.Verdict = "ready: " + use.standing(now, days)
			break
		}
		o.Verdict = use.standing(now, days) + ": both ways stay open until " + ready.UTC().Format(time.DateOnly)
	}
	if o.Record != nil && o.Record.Refused > 0 {
		o.Verdict += fmt.Sprintf("; it was refused %s: look at them first", times(o.Record.Refused))
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return digits(n) + " times"
}

// text prints what is left to be ended.
func (t *textPlan) done() {
	if len(t.plan.Done) == 0 {
		return
	}
	t.line("")
	t.bold(fmt.Sprintf("Out of the pipelines, to be ended (%d)", len(t.plan.Done)))
	show := t.plan.Done
	if !t.opt.All && len(show) > 6 {
		show = show[:6]
	}
	for _, o := range show {
		t.wrapped(fmt.Sprintf("  %-28s ", tail(o.ID, 28)), o.Verdict)
		if t.opt.All || o.Ready {
			t.steps("proof:", o.Proof)
			t.steps("end:", o.Deletion)
		}
	}
	if more := len(t.plan.Done) - len(show); more > 0 {
		t.line("  … and %d more", more)
	}
}

// markdownDone writes the same for PLAN.md.
func (p *Plan) markdownDone(b *strings.Builder) {
	if len(p.Done) == 0 {
		return
	}
	b.WriteString("\n## Out of the pipelines, to be ended\n")
	for _, o := range p.Done {
		fmt.Fprintf(b, "\n### %s\n\n%s of %s: %s.\n\n", o.ID, codes(o.Secrets), prose(o.Repository), prose(o.Verdict))
		for i, s := range slices.Concat(o.Proof, o.Deletion) {
			fmt.Fprintf(b, "%d. %s\n", i+1, s.markdown())
		}
	}
}
