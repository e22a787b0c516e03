package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Markdown writes the plan for people who work it off: PLAN.md.
func (p *Plan) Markdown() string {
	var b strings.Builder
	s := p.Summary
	fmt.Fprintf(&b, "# The way out of static secrets\n\nMade by `proviso plan`. %s, used in %s: a patch changes %d of them, %d are changed by hand.\n",
		plural(s.Secrets, "static secret"), plural(s.Places, "place"), s.Patched, s.Manual)
	if s.NoneBetter > 0 {
		fmt.Fprintf(&b, "For %d nothing better exists at the target.\n", s.NoneBetter)
	}
	b.WriteString("\nWork from top to bottom: the foundation first, then wave by wave. Each item says what to\nprepare, which patch to apply (PLAN is the directory of this file), how long to keep the\nold secret, how to prove that it is out of use, and how to end it.\n")
	if len(p.Variables) > 0 {
		b.WriteString("\n## What no file could tell\n\nEverything that needs one of these refuses to work until it is set. `--set NAME=VALUE` writes\nit into all files.\n\n| name | what | where to find it |\n|---|---|---|\n")
		for _, v := range p.Variables {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", code(v.Name), prose(v.What), strings.ReplaceAll(code(v.How), "|", `\|`))
		}
	}
	if len(p.Foundations) > 0 {
		b.WriteString("\n## Foundation: once, before the items\n\n")
		for _, f := range p.Foundations {
			fmt.Fprintf(&b, "- **%s** (%s): %s\n", prose(f.Title), prose(f.Why), codes(f.Files))
		}
	}
	for _, w := range p.Waves {
		fmt.Fprintf(&b, "\n## Wave %d: %s\n\n%s\n", w.Number, prose(w.Title), prose(upperFirst(w.Why))+".")
		for _, id := range w.Items {
			p.Item(id).markdown(&b)
		}
	}
	p.markdownDone(&b)
	if p.BurnDown != nil {
		b.WriteString("\n## Burn-down\n\n| | secrets | places | federated | outsiders reach |\n|---|---|---|---|---|\n")
		for _, pt := range append(append([]Point{}, p.BurnDown.Points...), p.BurnDown.Left...) {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", prose(pt.Name), pt.Secrets, pt.Places, pt.Federated, pt.Outsiders)
		}
	}
	return b.String()
}

func codes(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, code(s))
	}
	return strings.Join(out, ", ")
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// opens says what the secret is for.
func (it *Item) opens() string {
	if it.Resource.Name == "" || it.Resource.Name == "unknown" {
		return it.Resource.Kind
	}
	return it.Resource.Kind + " (" + it.Resource.Name + ")"
}

// markdown writes one item.
func (it *Item) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s of %s, for %s: %s\n\n*%s.*\n\n", it.ID, codes(it.Secrets), prose(it.Repository), prose(it.opens()), prose(it.Replacement), prose(it.Why))
	for _, pl := range it.Places {
		how := "by hand"
		if pl.Patched {
			how = "patched"
		}
		fmt.Fprintf(b, "- %s job %s (%s)\n", code(fmt.Sprintf("%s:%d", pl.File, pl.Line)), code(pl.Job), how)
	}
	n := 0
	step := func(format string, args ...any) {
		n++
		fmt.Fprintf(b, "%d. %s\n", n, fmt.Sprintf(format, args...))
	}
	b.WriteString("\n")
	if len(it.DependsOn) > 0 {
		step("Foundation: %s.", codes(it.DependsOn))
	}
	if it.Trust != nil {
		step("Trust: %s", strings.TrimSpace(prose(it.Trust.Summary)+" "+codes(it.Trust.Files)))
	}
	if it.Grant != nil {
		when := "the patch asks for it"
		switch {
		case it.Grant.Now:
		case slices.Contains([]string{"aws", "gcp", "azure", "vault"}, it.Method):
			when = "optional: for the day on which policy is to decide this access too"
		default:
			when = "optional: a gate that the job can ask first, for the record; nothing enforces it"
		}
		step("Grant and policy for Proviso (%s): %s", when, codes(it.Grant.Files))
	}
	for _, s := range it.Prepare {
		step("%s", s.markdown())
	}
	if it.Patch != nil {
		where := "the repository"
		if it.Directory != "" {
			where = code(it.Directory)
		}
		step("Apply the patch (+%d −%d), in %s: %s", it.Patch.Added, it.Patch.Removed, where, code("git apply PLAN/"+it.Patch.File))
	}
	for _, m := range it.Manual {
		step("By hand at %s, because %s.", code(fmt.Sprintf("%s:%d", m.File, m.Line)), prose(strings.TrimSuffix(m.Why, ".")))
		for _, s := range m.Steps {
			fmt.Fprintf(b, "   - %s\n", prose(s))
		}
	}
	step("Both ways stay open for %d days, and until %s. Watch: %s. Back: %s", it.DualRun.Days, prose(it.DualRun.Until), prose(strings.Join(it.DualRun.Watch, "; ")), prose(it.DualRun.Back))
	for _, s := range it.Proof {
		step("Proof: %s", s.markdown())
	}
	for _, s := range it.Deletion {
		step("End: %s", s.markdown())
	}
	for _, s := range it.Notes {
		fmt.Fprintf(b, "\n> %s\n", prose(s))
	}
}

func (s Step) markdown() string {
	if s.Command == "" {
		return prose(s.Do)
	}
	return prose(s.Do) + " " + code(s.Command)
}
