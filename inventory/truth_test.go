package inventory

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Truth: for every pipeline below testdata/truth a file beside it, with the
// ending .want, says which access paths a careful person finds in it. The
// expectations were written from the conventions (docs/inventory.md, "What a
// path is") and the platforms' documentation, never from what the readers
// print. A line is
//
//	job | step | kind name | resource kind and part of its name | trust | line
//
// kind is static, federated, platform, ambient or connection; a name that ends
// with ~ is an identifier. The name of a resource is a part of it, or all behind an =. The line is given by a text that stands on it,
// "#2" behind it is the second such line. A further field "perm=..." is the
// effective permission. A leading ? allows a path without asking for it; "!"
// begins a part that has to be reported as unresolved: ! kind | part of the name.

// expected is one expected path.
type expected struct {
	job, step      string
	kind           Kind
	name           string
	nature         Nature
	resKind        string
	resName        string
	trust          Trust
	line           int
	perm           string
	allowed        bool
	unresolvedKind string
}

var truthKinds = map[string]Kind{"static": StaticSecret, "federated": Federated, "platform": PlatformToken, "ambient": Ambient, "connection": ServiceConnection}

// readTruth reads the expectations of one pipeline.
func readTruth(t *testing.T, file string) []expected {
	t.Helper()
	pipeline, err := os.ReadFile(strings.TrimSuffix(file, ".want"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := decodeText(pipeline)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text, "\n")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []expected
	for s, n := bufio.NewScanner(strings.NewReader(string(raw))), 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		w, err := truthLine(line, lines)
		if err != nil {
			t.Fatalf("%s:%d: %v", file, n, err)
		}
		out = append(out, w)
	}
	return out
}

func truthLine(line string, text []string) (expected, error) {
	var w expected
	rest, allowed := strings.CutPrefix(line, "? ")
	w.allowed = allowed
	fields := strings.Split(rest, "|")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	if kind, ok := strings.CutPrefix(fields[0], "! "); ok {
		w.unresolvedKind = kind
		if len(fields) > 1 {
			w.name = fields[1]
		}
		return w, nil
	}
	if len(fields) < 6 {
		return w, fmt.Errorf("expected six fields, found %d in %q", len(fields), line)
	}
	kind, name, _ := strings.Cut(fields[2], " ")
	w.job, w.step, w.kind, w.name = fields[0], fields[1], truthKinds[kind], name
	if w.kind == "" {
		return w, fmt.Errorf("%q is no kind of a credential", kind)
	}
	if w.nature = NatureCredential; strings.HasSuffix(w.name, "~") {
		w.name, w.nature = strings.TrimSuffix(w.name, "~"), NatureIdentifier
	}
	w.resKind, w.resName, _ = strings.Cut(fields[3], " ")
	switch fields[4] {
	case "fork":
		w.trust = ForkReachable
	case "protected":
		w.trust = Protected
	case "unknown":
		w.trust = TrustUnknown
	default:
		return w, fmt.Errorf("%q is no trust", fields[4])
	}
	for _, f := range fields[6:] {
		if p, ok := strings.CutPrefix(f, "perm="); ok {
			w.perm = p
		}
	}
	anchor, nth := fields[5], 1
	if i := strings.LastIndex(anchor, "#"); i > 0 {
		if _, err := fmt.Sscanf(anchor[i:], "#%d", &nth); err == nil {
			anchor = strings.TrimSpace(anchor[:i])
		}
	}
	found := 0
	for i, l := range text {
		if strings.Contains(l, anchor) {
			if found++; found == nth {
				w.line = i + 1
			}
		}
	}
	if w.line == 0 || found > 1 && !strings.Contains(fields[5], "#") {
		return w, fmt.Errorf("%q stands on %d lines of the pipeline", fields[5], found)
	}
	return w, nil
}

// score counts how well paths fit to expectations.
type score struct {
	files, want, found, kind, nature, resource, reach, perm, perms, line, printed, wrong, unresolved, unresolvedFound int
}

func (s *score) add(o score) {
	s.files += o.files
	s.want += o.want
	s.found += o.found
	s.kind += o.kind
	s.nature += o.nature
	s.resource += o.resource
	s.reach += o.reach
	s.perm += o.perm
	s.perms += o.perms
	s.line += o.line
	s.printed += o.printed
	s.wrong += o.wrong
	s.unresolved += o.unresolved
	s.unresolvedFound += o.unresolvedFound
}

// isCalled reports whether a resource has the expected name: a part of it, or all of it behind an =.
func isCalled(name, want string) bool {
	if whole, ok := strings.CutPrefix(want, "="); ok {
		return name == whole
	}
	return strings.Contains(name, want)
}

func percent(a, b int) float64 {
	if b == 0 {
		return 100
	}
	return 100 * float64(a) / float64(b)
}

// judge compares the paths of one file with its expectations and says what differs.
func judge(paths []Path, unresolved []Unresolved, want []expected) (s score, notes []string) {
	s.files, s.printed = 1, len(paths)
	taken := make([]bool, len(paths))
	match := func(w expected, exact bool) int {
		for i, p := range paths {
			if !taken[i] && p.Job == w.job && p.Step == w.step && p.Credential.Name == w.name && (!exact || p.Credential.Kind == w.kind) {
				return i
			}
		}
		return -1
	}
	for _, w := range want {
		if w.unresolvedKind != "" {
			s.unresolved++
			if slices.ContainsFunc(unresolved, func(u Unresolved) bool {
				return u.Kind == w.unresolvedKind && strings.Contains(u.Name, w.name)
			}) {
				s.unresolvedFound++
			} else {
				notes = append(notes, fmt.Sprintf("not reported as unresolved: %s %s", w.unresolvedKind, w.name))
			}
			continue
		}
		i := match(w, true)
		if i < 0 {
			i = match(w, false)
		}
		if i >= 0 {
			taken[i] = true
		}
		if w.allowed {
			if i >= 0 {
				s.printed-- // neither right nor wrong
			}
			continue
		}
		s.want++
		if i < 0 {
			notes = append(notes, fmt.Sprintf("missed: line %d %s / %s: %s %s", w.line, w.job, w.step, w.kind, w.name))
			continue
		}
		s.found++
		p := paths[i]
		check := func(ok bool, n *int, what string, got, want any) {
			if ok {
				*n++
			} else {
				notes = append(notes, fmt.Sprintf("%s of %s / %s %s: %v, expected %v", what, w.job, w.step, w.name, got, want))
			}
		}
		check(p.Credential.Kind == w.kind, &s.kind, "kind", p.Credential.Kind, w.kind)
		check(w.kind != StaticSecret || p.Credential.Nature == w.nature, &s.nature, "nature", p.Credential.Nature, w.nature)
		check(w.resKind == "*" || p.Resource.Kind == w.resKind && isCalled(p.Resource.Name, w.resName), &s.resource, "resource", p.Resource, w.resKind+" "+w.resName)
		check(p.Reach.Trust == w.trust, &s.reach, "reach", p.Reach.Trust, w.trust)
		check(p.Line == w.line, &s.line, "line", p.Line, w.line)
		if w.perm != "" {
			s.perms++
			check(p.Permission == w.perm, &s.perm, "permission", p.Permission, w.perm)
		}
	}
	for i, p := range paths {
		if !taken[i] {
			s.wrong++
			notes = append(notes, fmt.Sprintf("too much: line %d %s / %s: %s %s %s", p.Line, p.Job, p.Step, p.Credential.Kind, p.Credential.Name, p.Credential.Nature))
		}
	}
	return s, notes
}

// TestTruth holds the readers to the truth files, and prints the numbers that the inventory promises.
func TestTruth(t *testing.T) {
	const root = "testdata/truth"
	scores := make(map[CI]*score)
	pipelines := 0
	cases, err := filepath.Glob(root + "/*/*")
	if err != nil || len(cases) < 40 {
		t.Fatalf("%d cases below %s, at least 40 are promised (%v)", len(cases), root, err)
	}
	for _, dir := range cases {
		inv, err := Scan(context.Background(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, ".want") {
				return err
			}
			rel, err := filepath.Rel(dir, strings.TrimSuffix(p, ".want"))
			if err != nil {
				return err
			}
			seen++
			s := judgeFile(t, inv, filepath.ToSlash(rel), p, CI(filepath.Base(filepath.Dir(dir))))
			ci := CI(filepath.Base(filepath.Dir(dir)))
			if scores[ci] == nil {
				scores[ci] = &score{}
			}
			scores[ci].add(s)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if seen == 0 {
			t.Errorf("%s has no expectations", dir)
		}
		pipelines += seen
	}
	if len(scores) != 15 {
		t.Errorf("truth for %d systems, 15 are read", len(scores))
	}
	reportTruth(t, scores, pipelines)
}

// judgeFile compares one pipeline. The promise is in percent, because it is about
// files that nobody here has seen; in our own ones each difference is a fault.
func judgeFile(t *testing.T, inv *Inventory, rel, wantFile string, ci CI) score {
	t.Helper()
	i := slices.IndexFunc(inv.Files, func(f File) bool { return f.File == rel })
	if i < 0 {
		t.Errorf("%s was not recognised as a pipeline", wantFile)
	} else if inv.Files[i].CI != ci {
		t.Errorf("%s was taken for %s", wantFile, inv.Files[i].CI)
	} else if broken := strings.Contains(wantFile, "/broken/"); broken != (inv.Files[i].Status == StatusPartly) {
		t.Errorf("%s has the status %q: %s", wantFile, inv.Files[i].Status, inv.Files[i].Detail)
	}
	var paths []Path
	for _, p := range inv.Paths {
		if p.File == rel {
			paths = append(paths, p)
		}
	}
	var open []Unresolved
	for _, u := range inv.Unresolved {
		if u.File == rel {
			open = append(open, u)
		}
	}
	s, notes := judge(paths, open, readTruth(t, wantFile))
	for _, n := range notes {
		t.Errorf("%s: %s", strings.TrimSuffix(wantFile, ".want"), n)
	}
	return s
}

// reportTruth prints the numbers per system.
func reportTruth(t *testing.T, scores map[CI]*score, pipelines int) {
	var all score
	t.Logf("%-24s %5s %5s %7s %6s %6s %6s %6s %6s %6s", "system", "files", "paths", "recall", "kind", "false", "reach", "nature", "where", "line")
	row := func(name string, s *score) {
		recall, kind, wrong, reach := percent(s.found, s.want), percent(s.kind, s.found), percent(s.wrong, max(s.printed, 1)), percent(s.reach, s.found)
		t.Logf("%-24s %5d %5d %6.1f%% %5.1f%% %5.1f%% %5.1f%% %5.1f%% %5.1f%% %5.1f%%", name, s.files, s.want, recall, kind, wrong, reach, percent(s.nature, s.found), percent(s.resource, s.found), percent(s.line, s.found))
	}
	for _, ci := range sortedKeys(stringKeys(scores)) {
		row(ci, scores[CI(ci)])
		all.add(*scores[CI(ci)])
	}
	row("all", &all)
	t.Logf("%d pipelines, %d of %d unresolved parts reported", pipelines, all.unresolvedFound, all.unresolved)
}

func stringKeys(m map[CI]*score) map[string]*score {
	out := make(map[string]*score, len(m))
	for k, v := range m {
		out[string(k)] = v
	}
	return out
}

// The measure itself must be able to fail: each kind of mistake is counted.
func TestJudgeCountsMistakes(t *testing.T) {
	want := func(line string) expected {
		w, err := truthLine(line, []string{"jobs:", "  a: $TOKEN"})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	right := Path{Line: 2, Job: "a", Credential: Credential{Kind: StaticSecret, Name: "TOKEN", Nature: NatureCredential}, Resource: Resource{"registry/npm", "x"}, Reach: Reach{Trust: Protected}}
	w := want("a | | static TOKEN | registry/npm | protected | $TOKEN")
	if s, notes := judge([]Path{right}, nil, []expected{w}); s.found != 1 || s.kind != 1 || s.reach != 1 || s.line != 1 || s.wrong != 0 || len(notes) != 0 {
		t.Errorf("a right path is scored %+v: %v", s, notes)
	}
	for name, change := range map[string]func(*Path){
		"kind":     func(p *Path) { p.Credential.Kind = Ambient },
		"nature":   func(p *Path) { p.Credential.Nature = NatureIdentifier },
		"resource": func(p *Path) { p.Resource.Kind = "registry/pypi" },
		"reach":    func(p *Path) { p.Reach.Trust = ForkReachable },
		"line":     func(p *Path) { p.Line = 1 },
		"missed":   func(p *Path) { p.Job = "b" },
	} {
		p := right
		change(&p)
		if _, notes := judge([]Path{p}, nil, []expected{w}); len(notes) == 0 || !strings.HasPrefix(notes[0], name) {
			t.Errorf("a mistake in %s is noted as %q", name, notes)
		}
	}
	if s, _ := judge([]Path{right, right}, nil, []expected{w}); s.wrong != 1 {
		t.Errorf("a path too much is counted %d times", s.wrong)
	}
	if s, _ := judge(nil, nil, []expected{want("! include | x")}); s.unresolved != 1 || s.unresolvedFound != 0 {
		t.Errorf("an include that is not reported: %+v", s)
	}
	if _, err := truthLine("a | | static TOKEN | registry/npm | protected | jobs", []string{"jobs", "jobs"}); err == nil {
		t.Error("an anchor on two lines was accepted")
	}
}
