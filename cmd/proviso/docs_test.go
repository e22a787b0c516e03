package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// page reads a page of the documentation, from the root of the repository.
func readPage(t *testing.T, name string) string {
	t.Helper()
	return string(made(os.ReadFile(filepath.Join("../..", name)))(t))
}

// marked gives the rows of the table between a page's marks, cell by cell,
// without the two lines of its head.
func marked(t *testing.T, page, mark string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "<!-- "+mark+" -->\n")
	text, _, closed := strings.Cut(rest, "<!-- end -->")
	if !ok || !closed {
		t.Fatalf("the page has no table marked %q", mark)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// block is a fenced part of a page: the words after the fence, and the text.
type block struct{ info, text string }

var fence = regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$")

func blocks(page string) (out []block) {
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// playPage goes through the code blocks of a page in their order. play gives what
// a block has to show, and how many commands it ran for that, of which the page
// has at least so many. With -update the page gets what they print.
func playPage(t *testing.T, name string, atLeast int, play func(b block) (shown string, commands int)) {
	t.Helper()
	rest, commands := readPage(t, name), 0
	var next strings.Builder
	for _, b := range blocks(rest) {
		before, after, _ := strings.Cut(rest, "```"+b.info+"\n"+b.text)
		shown, ran := play(b)
		commands += ran
		if !*update {
			if diff := cmp.Diff(b.text, shown); diff != "" {
				t.Errorf("%s shows (-) and the program prints (+):\n%s", name, diff)
			}
		}
		next.WriteString(before + "```" + b.info + "\n" + shown)
		rest = after
	}
	if commands < atLeast {
		t.Errorf("only %d commands were run", commands)
	}
	if *update {
		noError(t, os.WriteFile(filepath.Join("../..", name), []byte(next.String()+rest), 0o644))
	}
}

// The pages that operators read by are held against a running broker: the
// metrics that it serves, the files that it keeps, and the answers at its limits.
func TestOperatorsPageIsTrue(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/operate.md")
	s := newSite(t, plan{grants: deployOnly + strings.NewReplacer("deploy: {", "eddsa: {", "kind: jwt", "kind: jwt, algorithm: EdDSA").Replace(deployOnly)})
	s.serve()
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Fatal(r)
	}

	t.Run("metrics", func(t *testing.T) {
		var listed []string
		for _, row := range marked(t, page, "metrics") {
			listed = append(listed, strings.Trim(row[0], "`"))
		}
		_, text := s.get("/metrics")
		var served []string
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (proviso_\w+) `).FindAllStringSubmatch(text, -1) {
			served = append(served, m[1])
		}
		slices.Sort(listed)
		slices.Sort(served)
		if diff := cmp.Diff(served, listed); diff != "" || len(served) < 10 {
			t.Errorf("docs/operate.md does not list what /metrics serves (-served +listed):\n%s", diff)
		}
		for _, name := range regexp.MustCompile(`\bproviso_[a-z_]+`).FindAllString(page, -1) {
			if !slices.Contains(served, name) {
				t.Errorf("docs/operate.md names %s, which /metrics doesn't serve", name)
			}
		}
	})

	t.Run("files", func(t *testing.T) {
		time := regexp.MustCompile(`[0-9]{8}T[0-9]{6}Z`)
		kept := map[string]bool{}
		root := filepath.Join(s.dir, "data")
		noError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				name, _ := filepath.Rel(root, path)
				kept[time.ReplaceAllString(name, "TIME")] = true
			}
			return err
		}))
		listed := map[string]bool{}
		for _, row := range marked(t, page, "files of the store") {
			listed[strings.Trim(row[0], "`")] = true
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(kept)), slices.Sorted(maps.Keys(listed))); diff != "" {
			t.Errorf("docs/operate.md does not list the files of the store (-kept +listed):\n%s", diff)
		}
	})

	t.Run("limits", func(t *testing.T) {
		text := ""
		for _, row := range marked(t, page, "limits") {
			text += strings.Join(row, " ") + "\n"
		}
		long := func(n int) string { return strings.Repeat("a", n) }
		many := exchangeForm(s.token(lab.Job{}), "deploy")
		for i := range 40 {
			many.Set(fmt.Sprint("p", i), "x")
		}
		for _, c := range []struct {
			bound string
			reply reply
			code  proviso.Code
		}{
			{"64 KiB 413", s.ask(exchangeForm(s.token(lab.Job{}), "deploy", "padding", long(64<<10))), proviso.CodeLimitsBodySize},
			{"32 400", s.ask(many), proviso.CodeLimitsParams},
			{"16 KiB 400", s.ask(exchangeForm(long(16<<10+1), "deploy")), proviso.CodeLimitsTokenSize},
			{"16 KiB, 4 levels 400", s.ask(exchangeForm(s.token(lab.Job{}), "deploy", "authorization_details", `["`+long(16<<10)+`"]`)), proviso.CodeLimitsContextSize},
			{"1024 bytes 400", s.ask(exchangeForm(s.token(lab.Job{}), "deploy", "authorization_details", `[{"type":"proviso_intent","purpose":"`+long(1025)+`"}]`)), proviso.CodeContextMalformed},
			{"64 400", s.ask(exchangeForm(s.token(lab.Job{}), "deploy", "scope", strings.TrimSpace(strings.Repeat("a ", 65)))), proviso.CodeScopeNotAllowed},
		} {
			if line := fmt.Sprintf("%s `%s`", c.bound, c.code); c.reply.refused.Code != c.code || !strings.Contains(text, line) {
				t.Errorf("the table has to say %q, and the broker says %s", line, c.reply)
			}
		}
	})
}

// Every configuration that a page shows is one that the program takes, with
// nothing in it that it would warn of beyond what the page says.
func TestPagesShowConfigurationsThatWork(t *testing.T) {
	seen := 0
	for _, name := range []string{"README.md", "docs/operate.md", "docs/quickstart.md"} {
		for _, b := range blocks(readPage(t, name)) {
			if !strings.HasPrefix(b.info, "yaml") {
				continue
			}
			var err error
			switch {
			case strings.HasPrefix(b.text, "server:"):
				_, _, err = parseConfig(name, []byte(b.text))
			case strings.HasPrefix(b.text, "listen:"):
				file := filepath.Join(t.TempDir(), "gate.yaml")
				noError(t, os.WriteFile(file, []byte(b.text), 0o600))
				_, err = readGateConfig(file)
			default:
				continue
			}
			seen++
			if err != nil {
				t.Errorf("%s shows a file that the program refuses: %v\n%s", name, err, b.text)
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d files were found: this test looks at nothing", seen)
	}
}

// What the README shows is a whole broker: its configuration with its policy
// would start, and the one thing to think about is the one that it says.
func TestReadmesBrokerWorks(t *testing.T) {
	dir := t.TempDir()
	var config string
	for _, b := range blocks(readPage(t, "README.md")) {
		switch {
		case strings.HasPrefix(b.text, "server:"):
			config = b.text
		case b.info == "rego":
			noError(t, os.MkdirAll(filepath.Join(dir, "policy"), 0o755))
			noError(t, os.WriteFile(filepath.Join(dir, "policy", "production.rego"), []byte(b.text), 0o600))
		}
	}
	said, ok := checked(t, dir, config)
	if !ok || !strings.Contains(said, "ok: 1 issuer, 0 trust domains, 1 grant") || strings.Count(said, "finding: ") != 1 {
		t.Errorf("config check says of the README's broker:\n%s", said)
	}
}

// Every link within the documentation leads to a page, and to a heading of it.
func TestLinksLeadSomewhere(t *testing.T) {
	pages := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"}
	noError(t, filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			pages = append(pages, strings.TrimPrefix(filepath.ToSlash(path), "../../"))
		}
		return err
	}))
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchor := regexp.MustCompile("[^a-z0-9 _-]")
	links := 0
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(readPage(t, page), ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links to %s, which isn't there", page, m[1])
				continue
			}
			found := anchor == ""
			if !found {
				for _, h := range heading.FindAllStringSubmatch(readPage(t, target), -1) {
					found = found || strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor
				}
			}
			if !found {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links were found", links)
	}
}

// The page of the issuance cycle names the calls of the flow in the order in
// which the code makes them, and all of those that do something: whoever changes
// the flow changes the page with it.
func TestIssuanceCycleIsTheCode(t *testing.T) {
	page, code := readPage(t, "docs/issuance-cycle.md"), readPage(t, "broker/exchange.go")
	_, body, _ := strings.Cut(code, "func (b *Broker) Exchange(")
	var named, called []string
	for _, m := range regexp.MustCompile("`([A-Za-z]+\\.[A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		named = append(named, m[1])
	}
	for _, m := range regexp.MustCompile(`\b(?:b|grant)\.((?:Identities|Runners|Policies|Facts|Offer)\.\w+)\(|\b((?:b|grant|rules|warrant)\.[a-zA-Z]\w*)\(`).FindAllStringSubmatch(body, -1) {
		called = append(called, m[1]+m[2])
	}
	if diff := cmp.Diff(called, named); diff != "" || len(called) < 10 {
		t.Errorf("docs/issuance-cycle.md does not tell the flow (-code +page):\n%s", diff)
	}
}
