package identity

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const platformsPage = "../docs/platforms.md"

var rowBlock = regexp.MustCompile(`(?s)<!-- row ([a-z-]+) -->\n(.*?)<!-- end -->`)

// TestPlatformsPage: the page has a section on every platform, and what it says
// of a row is what the row says.
func TestPlatformsPage(t *testing.T) {
	data, err := os.ReadFile(platformsPage)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	want := rowBlock.ReplaceAllStringFunc(string(data), func(block string) string {
		name := rowBlock.FindStringSubmatch(block)[1]
		p := platformNamed(name)
		if p == nil || seen[name] {
			t.Errorf("no such row, or two blocks: %s", name)
			return block
		}
		seen[name] = true
		return "<!-- row " + name + " -->\n" + describe(p) + "<!-- end -->"
	})
	for _, p := range table {
		if !seen[p.name] {
			t.Errorf("%s has no section", p.name)
		}
	}
	if *update {
		if err := os.WriteFile(platformsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(data) {
		t.Error("docs/platforms.md differs from the table; run go test ./identity -run TestPlatformsPage -update")
	}
}

// describe writes a row as people read it.
func describe(p *platform) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", name, fmt.Sprintf(format, args...))
	}
	b.WriteString("| `platform: " + p.name + "` | |\n|---|---|\n")
	var forms []string
	for _, f := range p.issuers {
		forms = append(forms, code(f.form)+map[tenancy]string{own: " (one tenant's)", named: " (one tenant's, by name)", shared: " (shared)"}[f.tenancy])
	}
	line("issuer", "%s", strings.Join(forms, "<br>"))
	if len(p.pins) > 0 {
		line("pin one of", "%s", codes(p.pins))
	}
	for _, d := range p.demands {
		line("pin always", "%s", code(d.claim))
	}
	if p.audience.fixed == nil {
		line("audience", "the broker's URL")
	} else {
		line("audience", "fixed by the platform: %s", code(p.audience.fixed(p.issuers[0].form)))
	}
	if len(p.job) > 0 {
		line("only a job has", "%s", codes(p.job))
	} else if p.noJob != "" {
		line("only a job has", "%s", p.noJob)
	} else {
		line("only a job has", "what `run_id` is mapped to")
	}
	line("a second use is recognised by", "%s", map[string]string{ReplayJTI: "`jti`", ReplayToken: "what was signed"}[p.replay])
	switch e := p.events; {
	case e.silent:
		line("events", "none for an ordinary job; refused unless named: %s", codes(append(append([]string{}, e.pull...), e.outside...)))
	case len(e.allow) > 0:
		line("events", "%s; refused unless named: all others", codes(e.allow))
	case p.open:
		line("events", "only if `event` is mapped")
	default:
		line("events", "the token names none")
	}
	var maps []string
	for _, f := range p.fields {
		maps = append(maps, code(f.to)+" from "+code(f.claim.shown))
	}
	if len(maps) > 0 {
		line("identity", "%s", strings.Join(maps, ", "))
	}
	return b.String()
}

func code(s string) string { return "`" + s + "`" }

func codes(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = code(s)
	}
	return strings.Join(out, ", ")
}
