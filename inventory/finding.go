package inventory

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Check adds to an inventory what its rules find, what each job's identity
// token says, and the trust policies of the same tree. It runs after Scan, when
// the reach of every path is settled, and looks at each file once more: rules
// ask for things that are no access path, such as the code that a job checks
// out. Files are read again rather than kept, so that memory does not grow with
// the estate. root is the directory or the file that was scanned. Merge joins
// both ends, when all roots are one document.
//
// Check fails only when ctx ends. A rule that fails on a file is a finding
// "could not read", never the end of the scan.
func Check(ctx context.Context, inv *Inventory, root string, opt Options) error {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	dir := directoryOf(root)
	subjects := subjectsOf(inv)
	repos := newRepositories(dir, opt.Repository)
	rules := Rules()
	// One handle for all files; without it, rules that need only the paths still run.
	tree, err := os.OpenRoot(dir)
	if err == nil {
		defer func() { _ = tree.Close() }()
	}
	work := make(chan *subject)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range min(opt.Workers, max(len(subjects), 1)) {
		wg.Go(func() {
			for s := range work {
				s.examine(tree, repos, rules, opt)
				if opt.Progress != nil {
					mu.Lock()
					done++
					opt.Progress(done, len(subjects))
					mu.Unlock()
				}
			}
		})
	}
	err = feed(ctx, subjects, work)
	wg.Wait()
	if err != nil {
		return err
	}
	for _, s := range subjects {
		inv.Findings = append(inv.Findings, s.findings...)
	}
	if err := readTrusts(ctx, inv, root, opt); err != nil {
		return err
	}
	inv.sortDocument()
	return nil
}

// feed hands out the subjects until ctx ends.
func feed(ctx context.Context, subjects []*subject, work chan<- *subject) error {
	defer close(work)
	for _, s := range subjects {
		select {
		case work <- s:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// subject is one file as the rules see it.
type subject struct {
	view
	file File
	// paths are those of the file, in the order of the document.
	paths []*Path
	// src and docs are nil when the file can't be read (any more).
	src      *source
	docs     []*node
	parsed   bool
	flow     *flow // GitHub and Forgejo
	rule     *Rule
	findings []Finding
	ids      map[string]int
	failed   bool // a rule did
}

// subjectsOf groups the paths of an inventory by their file, also by files that are only included by another.
func subjectsOf(inv *Inventory) []*subject {
	byFile := make(map[string]*subject, len(inv.Files))
	var out []*subject
	add := func(f File) *subject {
		s := byFile[f.File]
		if s == nil {
			s = &subject{file: f}
			byFile[f.File] = s
			out = append(out, s)
		}
		return s
	}
	for _, f := range inv.Files {
		add(f)
	}
	for i := range inv.Paths {
		p := &inv.Paths[i]
		s := add(File{File: p.File, CI: p.CI})
		s.paths = append(s.paths, p)
	}
	return out
}

// examine runs the rules over the file, or takes what they said of it when they would see the same.
func (s *subject) examine(tree *os.Root, repos *repositories, rules []Rule, opt Options) {
	repo := repos.of(repoOf(s.file.File))
	done, store := opt.Keep.settled(s, repo)
	if done {
		return
	}
	s.open(tree, opt.MaxBytes)
	s.safely("identity", func() { s.identify(repo) })
	s.run(rules)
	store()
	s.close()
}

// open reads the text of the file; without it, rules that need only the paths still run.
func (s *subject) open(tree *os.Root, limit int64) {
	if tree == nil || s.file.Status == StatusUnsupported {
		return
	}
	if src, err := readSource(tree, s.file.File, limit); err == nil {
		s.src = src
	}
}

// close lets go of what only the rules needed.
func (s *subject) close() { s.src, s.docs, s.flow, s.view = nil, nil, nil, view{} }

// text gives the text of the file, "" when it can't be read.
func (s *subject) text() string {
	if s.src == nil {
		return ""
	}
	return s.src.text
}

// mentions reports whether any of the words stands in the text. Rules ask
// before they have the file parsed, which is what costs.
func (s *subject) mentions(words ...string) bool {
	text := s.text()
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// documents gives the YAML documents of the file, parsed on first use.
func (s *subject) documents() []*node {
	if !s.parsed && s.src != nil && s.file.CI != Jenkins {
		s.docs, _ = parseYAML(s.src.text)
	}
	s.parsed = true
	return s.docs
}

// run applies the rules one after the other.
func (s *subject) run(rules []Rule) {
	for i := range rules {
		r := &rules[i]
		if r.check == nil || len(r.Systems) > 0 && !slices.Contains(r.Systems, s.file.CI) {
			continue
		}
		s.rule = r
		s.safely("rule "+r.Name, func() { r.check(s) })
	}
}

// safely runs one rule; a rule that fails is said, not hidden.
func (s *subject) safely(what string, look func()) {
	defer func() {
		if p := recover(); p != nil {
			f := s.file
			f.Detail = fmt.Sprintf("the %s failed on this file: %v", what, p)
			s.findings = append(s.findings, couldNotRead(f))
			s.failed = true
		}
	}()
	look()
}

// found is what a rule says of one place.
type found struct {
	line      int
	job, step string
	severity  Severity
	// about is the credential, or what else tells this finding from others of
	// the rule in the same step: part of the id, never a line.
	about   string
	message string
	fix     string
	paths   []*Path
}

// report records a finding of the rule that is running.
func (s *subject) report(f found) {
	id := stableID("finding", s.rule.Name, s.file.File, f.job, f.step, f.about)
	if s.ids == nil {
		s.ids = make(map[string]int)
	}
	// The same thing twice in a step: the second is told from the first by its number.
	if s.ids[id]++; s.ids[id] > 1 {
		id = stableID("finding", s.rule.Name, s.file.File, f.job, f.step, f.about, strconv.Itoa(s.ids[id]))
	}
	out := Finding{
		ID: id, Rule: s.rule.Name, Severity: f.severity, File: s.file.File, Line: max(f.line, 1), Job: f.job, Step: f.step,
		Message: oneParagraph(f.message), Fix: oneParagraph(f.fix), References: slices.Clone(s.rule.References),
	}
	for _, p := range f.paths {
		out.Paths = append(out.Paths, p.ID)
	}
	s.findings = append(s.findings, out)
}

// oneParagraph keeps names of a file from breaking a sentence into lines.
func oneParagraph(s string) string {
	if !strings.ContainsAny(s, "\r\n\t") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// pathsWhere gives the paths of the file for which keep holds.
func (s *subject) pathsWhere(keep func(*Path) bool) []*Path {
	var out []*Path
	for _, p := range s.paths {
		if keep(p) {
			out = append(out, p)
		}
	}
	return out
}

// jobPaths gives the paths of a job.
func (s *subject) jobPaths(job string) []*Path {
	return s.pathsWhere(func(p *Path) bool { return p.Job == job })
}

// groupBy puts paths with the same key together, in the order of their first.
func groupBy(paths []*Path, key func(*Path) string) [][]*Path {
	index := make(map[string]int)
	var out [][]*Path
	for _, p := range paths {
		k := key(p)
		i, ok := index[k]
		if !ok {
			i = len(out)
			index[k] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], p)
	}
	return out
}

// namesOf gives the names of the credentials of paths, each once, sorted.
func namesOf(paths []*Path) []string {
	var out []string
	for _, p := range paths {
		out = append(out, p.Credential.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// listOf joins names for a sentence; of many only the first are named.
func listOf(names []string) string {
	const most = 4
	switch {
	case len(names) == 1:
		return names[0]
	case len(names) > most:
		return strings.Join(names[:most], ", ") + " and " + strconv.Itoa(len(names)-most) + " more"
	case len(names) == 0:
		return ""
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// verb gives the singular or the plural of a verb.
func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// isSecret reports whether a path carries a static value that is a credential.
func isSecret(p *Path) bool {
	return p.Credential.Kind == StaticSecret && p.Credential.Nature != NatureIdentifier
}
