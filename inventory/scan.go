package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Options are the settings of a scan. The zero value is ready for use.
type Options struct {
	// MaxBytes is the largest file that is read; 0 is 4 MiB. A larger one is reported.
	MaxBytes int64
	// MaxFiles bounds the number of files looked at; 0 is one million.
	MaxFiles int
	// Workers is the number of files read at the same time; 0 is GOMAXPROCS.
	Workers int
	// Progress, when set, is told how many files of how many are done. It is
	// called from one goroutine at a time.
	Progress func(done, total int)
	// Repository is the repository that the root is a copy of, as owner/name or
	// as a URL, where the tree doesn't say (no .git/config).
	Repository string
	// Keep holds the results of earlier scans; nil reads everything anew.
	Keep *Keep
}

const (
	defaultMaxBytes = 4 << 20
	defaultMaxFiles = 1_000_000
)

// skipDirs hold no pipelines of the tree itself.
var skipDirs = set(".git", "node_modules", ".terraform", ".hg", ".svn", "__pycache__", ".venv", ".tox")

// Scan reads every pipeline definition below root, which may also be a single
// file. It fails only when root itself can't be read or ctx ends: what is
// wrong with a file is said in the document.
func Scan(ctx context.Context, root string, opt Options) (*Inventory, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.MaxFiles <= 0 {
		opt.MaxFiles = defaultMaxFiles
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	t, files, err := openTree(root, opt)
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.dir.Close() }()
	results := make([]*result, len(files))
	if err := t.readAll(ctx, files, results, opt); err != nil {
		return nil, err
	}
	inv := &Inventory{Version: Version, Root: filepath.ToSlash(root), Files: []File{}, Paths: []Path{}, Findings: []Finding{}, Unresolved: []Unresolved{}}
	join(results)
	paths := 0
	for _, r := range results {
		if r != nil {
			paths += len(r.paths)
		}
	}
	inv.Files, inv.Paths = make([]File, 0, len(results)), make([]Path, 0, paths) // paths are large: grown, they would be copied again and again
	for _, r := range results {
		if r == nil {
			continue
		}
		inv.Files = append(inv.Files, r.file)
		inv.Paths = append(inv.Paths, r.paths...)
		inv.Unresolved = append(inv.Unresolved, r.unresolved...)
		inv.Findings = append(inv.Findings, r.findings...)
	}
	inv.Findings = append(inv.Findings, t.blind...)
	inv.sortDocument()
	inv.number()
	return inv, nil
}

// number gives the paths their ids. Two encrypted values without a name are
// alike in all that an id is made of; the later one says which it is.
func (inv *Inventory) number() {
	seen := make(map[string]int, len(inv.Paths))
	for i := range inv.Paths {
		p := &inv.Paths[i]
		p.ID = p.id()
		if seen[p.ID]++; seen[p.ID] > 1 {
			p.ID += fmt.Sprintf("-%d", seen[p.ID])
		}
	}
}

// tree is what is scanned: a directory, its files, and a small cache of files that others refer to.
type tree struct {
	root string
	dir  *os.Root // root, opened: nothing outside of it can be reached through it; nil when there is none
	// blind is what the walk could not look at.
	blind []Finding
	// above is the absolute directory of root in slashes: part of what a file
	// is recognised by, so that a scan of one file or of a subdirectory sees
	// the same systems as a scan of the whole.
	above string
	opt   Options

	mu     sync.Mutex
	cached map[string]*parsed
	order  []string // of cached, oldest first
	// claimed are files that others include, and which those are: they are read as part of them, not by themselves.
	claimed map[string][]string
	// parts are those that were claimed before the second pass.
	parts map[string]bool
	// hashes are those of files that were read.
	hashes map[string]string
}

// parsed is a file that another one refers to.
type parsed struct {
	src      *source
	docs     []*node
	problems []problem
	err      error
	once     sync.Once
}

// maxCached bounds how many referenced files are kept parsed.
const maxCached = 256

func newTree(root string, opt Options) *tree {
	return &tree{root: root, opt: opt, cached: make(map[string]*parsed), claimed: make(map[string][]string), hashes: make(map[string]string)}
}

// openTree lists the candidates below root.
func openTree(root string, opt Options) (*tree, []string, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, nil, fmt.Errorf("inventory: %s can't be scanned: %w", root, err)
	}
	t := newTree(root, opt)
	var files []string
	if !info.IsDir() {
		t.root = filepath.Dir(root)
		files = []string{filepath.Base(root)}
	}
	if abs, err := filepath.Abs(t.root); err == nil {
		t.above = filepath.ToSlash(abs)
	}
	if t.dir, err = os.OpenRoot(t.root); err != nil {
		return nil, nil, fmt.Errorf("inventory: %s can't be scanned: %w", t.root, err)
	}
	if info.IsDir() {
		if files, err = t.walk(); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(files)
	return t, files, nil
}

// errTooMany ends a walk at the bound of files.
var errTooMany = errors.New("too many files")

// walk lists the candidates. It follows no symbolic link to a directory; a
// link to a file is listed, and readSource decides whether it stays inside.
// What can't be looked at is a finding.
func (t *tree) walk() ([]string, error) {
	var files []string
	seen := 0
	// Opened paths are resolved part by part; a walk, which follows no link but
	// its own root, is cheaper by plain names.
	base, err := filepath.EvalSymlinks(t.root)
	if err != nil {
		return nil, fmt.Errorf("inventory: %s can't be scanned: %w", t.root, err)
	}
	err = filepath.WalkDir(base, func(full string, d fs.DirEntry, err error) error {
		p, rerr := filepath.Rel(base, full)
		if rerr != nil {
			return rerr
		}
		p = filepath.ToSlash(p)
		if err != nil {
			if p == "." {
				return err
			}
			t.blind = append(t.blind, couldNotRead(File{File: p, Detail: "the directory can't be opened: " + unwrapPath(err)}))
			return nil
		}
		if d.IsDir() {
			if p != "." && skipDirs[d.Name()] {
				return fs.SkipDir
			}
			return nil
		}
		if seen++; seen > t.opt.MaxFiles {
			t.blind = append(t.blind, couldNotRead(File{File: p, Detail: fmt.Sprintf("the tree has more than the limit of %d files; this one and those behind it were not looked at", t.opt.MaxFiles)}))
			return errTooMany
		}
		if !candidate(d.Name()) || d.Type()&fs.ModeSymlink != 0 && t.linksToCandidate(p) {
			return nil
		}
		files = append(files, p)
		return nil
	})
	if err != nil && !errors.Is(err, errTooMany) {
		return nil, fmt.Errorf("inventory: %s can't be scanned: %w", t.root, err)
	}
	return files, nil
}

// linksToCandidate reports whether a symbolic link leads to a file that the
// walk meets by itself: it would be read twice.
func (t *tree) linksToCandidate(p string) bool {
	if info, err := t.dir.Stat(p); err != nil || !info.Mode().IsRegular() {
		return false
	}
	target, err := filepath.EvalSymlinks(filepath.Join(t.root, filepath.FromSlash(p)))
	return err == nil && candidate(target)
}

// readAll reads the files in parallel: first all that stand alone, then those
// that may be parts of another (GitLab's includes), when it is known which are.
func (t *tree) readAll(ctx context.Context, files []string, results []*result, opt Options) error {
	var mu sync.Mutex
	done := 0
	step := func() {
		if opt.Progress != nil {
			mu.Lock()
			done++
			opt.Progress(done, len(files))
			mu.Unlock()
		}
	}
	var later []int
	pass := func(indexes []int, second bool) error {
		work := make(chan int)
		var wg sync.WaitGroup
		for range min(opt.Workers, max(len(indexes), 1)) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range work {
					r, wait := t.readFile(files[i], second)
					if wait {
						mu.Lock()
						later = append(later, i)
						mu.Unlock()
						continue
					}
					results[i] = r
					step()
				}
			}()
		}
		var err error
	feed:
		for _, i := range indexes {
			select {
			case work <- i:
			case <-ctx.Done():
				err = ctx.Err()
				break feed
			}
		}
		close(work)
		wg.Wait()
		return err
	}
	all := make([]int, len(files))
	for i := range all {
		all[i] = i
	}
	if err := pass(all, false); err != nil {
		return err
	}
	slices.Sort(later)
	t.parts = make(map[string]bool, len(t.claimed))
	for rel := range t.claimed {
		t.parts[rel] = true
	}
	if err := pass(later, true); err != nil {
		return err
	}
	t.settleClaims(results)
	return nil
}

// settleClaims makes parts of the configurations that turned out to be included
// by another one. Of two that include each other the later one stands.
func (t *tree) settleClaims(results []*result) {
	part := make(map[string]bool)
	for _, r := range results {
		if r == nil || r.file.CI != GitLab {
			continue
		}
		if slices.ContainsFunc(t.claimed[r.file.File], func(by string) bool { return by != r.file.File && !part[by] }) {
			part[r.file.File] = true
			*r = result{file: partOfAnother(r.file)}
		}
	}
}

// partOfAnother is the entry of a file that is read as part of the one that includes it.
func partOfAnother(f File) File {
	return File{File: f.File, CI: f.CI, Status: StatusRead, Detail: "read as part of the file that includes it", Hash: f.Hash}
}

// result is what one file gave.
type result struct {
	file       File
	paths      []Path
	unresolved []Unresolved
	findings   []Finding
	link       links
	failed     bool // the reader did
}

// readFile reads one file; nil when it is no pipeline definition. wait asks to
// be called again in the second pass, when every root has claimed its parts.
func (t *tree) readFile(rel string, second bool) (res *result, wait bool) {
	full := t.above + "/" + rel
	src, err := t.read(rel)
	if err != nil {
		ci, sure := pathCI(full)
		if !sure {
			return nil, false
		}
		f := File{File: rel, CI: ci, Status: StatusUnreadable, Detail: err.Error()}
		var re *readError
		if errors.As(err, &re) {
			f.Line = re.line
		}
		return &result{file: f, findings: []Finding{couldNotRead(f)}}, false
	}
	t.hashed(rel, src.hash)
	old := t.opt.Keep.of(rel, src.hash)
	ci, known := old.system()
	if !known {
		ci = recognise(full, src.text)
	}
	if ci == "" {
		t.opt.Keep.put(rel, &kept{Hash: src.hash}, known)
		return nil, false
	}
	if ci == GitLab && !second && !isGitLabRoot(rel) {
		return nil, true
	}
	if second && t.parts[rel] {
		t.opt.Keep.put(rel, &kept{Hash: src.hash, CI: ci}, known)
		return &result{file: partOfAnother(File{File: rel, CI: ci, Hash: src.hash})}, false
	}
	if res = old.again(t); res != nil {
		t.opt.Keep.put(rel, old, true)
		return res, false
	}
	src.repo = repoOf(rel)
	looks := &looks{tree: t, file: rel}
	res = t.parse(src, ci, looks)
	if !res.failed {
		t.opt.Keep.keepResult(src, ci, looks, res)
	}
	return res, false
}

// parse gives the file to its reader. A reader that fails is a file that could
// not be read, never the end of the scan.
func (t *tree) parse(src *source, ci CI, l *looks) (res *result) {
	f := File{File: src.path, CI: ci, Status: StatusRead, Hash: src.hash}
	defer func() {
		if p := recover(); p != nil {
			f.Status, f.Detail = StatusUnreadable, fmt.Sprintf("the reader failed on this file: %v", p)
			res = &result{file: f, findings: []Finding{couldNotRead(f)}, failed: true}
		}
	}()
	if strings.HasSuffix(src.path, ".star") || strings.HasSuffix(src.path, ".jsonnet") {
		f.Status, f.Detail = StatusUnsupported, "this is a program that generates the pipeline; export its output and scan that"
		return &result{file: f, unresolved: []Unresolved{{File: src.path, Line: 1, CI: ci, Kind: "generated pipeline", Name: src.path, Why: "the pipeline is made by a program, which is not run"}}}
	}
	r := &reader{src: src, ci: ci, tree: l}
	if ci == Jenkins {
		readJenkins(r)
	} else {
		docs, problems := parseYAML(src.text)
		r.problems = problems
		readers[ci](r, docs)
	}
	return r.result(f)
}

// readers are the readers of YAML files.
var readers map[CI]func(*reader, []*node)

// inTree gives the clean name of a file below the root; inside is false for one that leads out of it.
func inTree(rel string) (clean string, inside bool) {
	rel = strings.TrimPrefix(filepath.ToSlash(filepath.Clean(rel)), "./")
	return rel, rel != ".." && !strings.HasPrefix(rel, "../") && !filepath.IsAbs(rel)
}

// read gives the text of a file by its clean name.
func (t *tree) read(rel string) (*source, error) {
	if t.dir == nil {
		return nil, &readError{why: "there is no tree"}
	}
	return readSource(t.dir, rel, t.opt.MaxBytes)
}

// load gives a file by its clean name, parsed; nil when it can't be read.
func (t *tree) load(rel string) *parsed {
	t.mu.Lock()
	p := t.cached[rel]
	if p == nil {
		p = &parsed{}
		t.cached[rel] = p
		t.order = append(t.order, rel)
		if len(t.order) > maxCached {
			delete(t.cached, t.order[0])
			t.order = t.order[1:]
		}
	}
	t.mu.Unlock()
	p.once.Do(func() {
		p.src, p.err = t.read(rel)
		if p.err == nil {
			p.src.repo = repoOf(rel)
			p.docs, p.problems = parseYAML(p.src.text)
		}
	})
	if p.err != nil {
		return nil
	}
	return p
}

// claim marks a file as read as part of another one.
func (t *tree) claim(rel, by string) {
	t.mu.Lock()
	t.claimed[rel] = append(t.claimed[rel], by)
	t.mu.Unlock()
}

// match gives the files of the tree that a pattern with * and ** names, at most maxIncludes.
func (t *tree) match(pattern string) []string {
	dir := pattern
	if i := strings.IndexByte(pattern, '*'); i >= 0 {
		dir = path.Dir(pattern[:i] + "x")
	}
	if t.dir == nil || dir == ".." || strings.HasPrefix(dir, "../") {
		return nil
	}
	deep := strings.Contains(pattern, "**")
	suffix := pattern[strings.LastIndexByte(pattern, '*')+1:]
	var out []string
	dir = path.Clean(dir)
	_ = fs.WalkDir(t.dir.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can't be listed includes nothing; who names it finds it unreadable
		}
		if d.IsDir() {
			if p != dir && !deep {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, suffix) && len(out) < maxIncludes {
			out = append(out, p)
		}
		return nil
	})
	return out
}
