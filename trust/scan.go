package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Options are the settings of a scan. The zero value is ready for use.
type Options struct {
	// MaxBytes is the largest file that is read; 0 is 1 MiB. A larger one that
	// names itself a trust policy is reported.
	MaxBytes int64
	// MaxFiles bounds the number of files looked at; 0 is one million.
	MaxFiles int
	// Workers is the number of files read at the same time; 0 is GOMAXPROCS.
	Workers int
}

const (
	defaultMaxBytes = 1 << 20
	defaultMaxFiles = 1_000_000
	// maxTerraform bounds one Terraform file: its parser recurses.
	maxTerraform = 512 << 10
)

// Found is what a scan found.
type Found struct {
	Trusts   []Trust
	Problems []Problem
}

var skipDirs = []string{".git", "node_modules", ".terraform", ".hg", ".svn", "__pycache__", ".venv", ".tox"}

// Scan reads the trust policies below root, which may be one file. It fails
// only when root can't be read or ctx ends.
func Scan(ctx context.Context, root string, opt Options) (*Found, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = defaultMaxBytes
	}
	if opt.MaxFiles <= 0 {
		opt.MaxFiles = defaultMaxFiles
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	s := &scan{root: root, opt: opt}
	modules, files, err := s.walk()
	if err != nil {
		return nil, err
	}
	s.dirs = make(map[string]*directory, len(modules))
	var jobs []func()
	for dir, names := range modules {
		d := &directory{name: dir, files: names}
		s.dirs[dir] = d
		jobs = append(jobs, func() { s.safely(dir, func() { s.survey(d) }) })
	}
	for _, name := range files {
		jobs = append(jobs, func() { s.safely(name, func() { s.file(name) }) })
	}
	if err := s.run(ctx, jobs); err != nil {
		return nil, err
	}
	jobs = nil
	for _, d := range s.roots() {
		jobs = append(jobs, func() { s.safely(d.name, func() { s.instance(d, nil).evaluate() }) })
	}
	if err := s.run(ctx, jobs); err != nil {
		return nil, err
	}
	s.bindings()
	s.roles()
	for i := range s.found.Trusts {
		s.found.Trusts[i].finish()
	}
	order(s.found.Trusts)
	slices.SortFunc(s.found.Problems, func(a, b Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return &s.found, nil
}

// scan is one scan.
type scan struct {
	root string
	opt  Options
	dirs map[string]*directory // of Terraform files
	// calls counts the calls of modules.
	calls atomic.Int64

	mu    sync.Mutex
	found Found
	// What is joined at the end: bindings with the providers of their pool, role bindings with the users of an issuer.
	providers []gcpProvider
	bound     []gcpBinding
	rbac      []rbacFile
	users     []user
}

// run does the jobs in parallel, until ctx ends.
func (s *scan) run(ctx context.Context, jobs []func()) error {
	work := make(chan func())
	var wg sync.WaitGroup
	for range min(s.opt.Workers, max(len(jobs), 1)) {
		wg.Go(func() {
			for job := range work {
				job()
			}
		})
	}
	defer wg.Wait()
	defer close(work)
	for _, job := range jobs {
		select {
		case work <- job:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// safely runs the reader of a file; one that fails is said, not hidden.
func (s *scan) safely(name string, read func()) {
	defer func() {
		if p := recover(); p != nil {
			s.problem(name, 1, fmt.Sprintf("the reader failed on this file: %v", p))
		}
	}()
	read()
}

func (s *scan) add(list ...Trust) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.Trusts = append(s.found.Trusts, list...)
}

func (s *scan) problem(file string, line int, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found.Problems = append(s.found.Problems, Problem{file, max(line, 1), why})
}

// walk lists Terraform files by their directory, which is a module, and all other candidates.
func (s *scan) walk() (modules map[string][]string, files []string, err error) {
	modules = make(map[string][]string)
	sort := func(rel string) {
		switch {
		case strings.HasSuffix(rel, ".tf"), strings.HasSuffix(rel, ".tofu"), strings.HasSuffix(rel, ".tfvars"):
			modules[path.Dir(rel)] = append(modules[path.Dir(rel)], rel)
		case candidate(rel):
			files = append(files, rel)
		}
	}
	info, err := os.Stat(s.root)
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %s can't be scanned: %w", s.root, err)
	}
	if !info.IsDir() {
		name := filepath.Base(s.root)
		s.root = filepath.Dir(s.root)
		sort(name)
		return modules, files, nil
	}
	seen := 0
	err = filepath.WalkDir(s.root, func(p string, d fs.DirEntry, failed error) error {
		switch {
		case failed != nil && p == s.root:
			return failed
		case failed != nil:
			return nil //nolint:nilerr // a directory that can't be read hides its files; there is nothing to say about them
		case d.IsDir() && p != s.root && slices.Contains(skipDirs, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil // a link may lead out of the tree; what it leads to inside is met by itself
		}
		if seen++; seen > s.opt.MaxFiles {
			return fs.SkipAll
		}
		if rel, err := filepath.Rel(s.root, p); err == nil {
			sort(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %s can't be scanned: %w", s.root, err)
	}
	return modules, files, nil
}

// candidate reports whether a file can hold a trust by its name.
func candidate(rel string) bool {
	switch base := path.Base(rel); {
	case base == "package-lock.json", base == "composer.lock", strings.HasSuffix(base, ".tfstate"):
		return false
	case strings.HasSuffix(base, ".json"), strings.HasSuffix(base, ".yaml"), strings.HasSuffix(base, ".yml"), strings.HasSuffix(base, ".bicep"), strings.HasSuffix(base, ".template"):
		return true
	}
	return false
}

var errTooLarge = errors.New("too large")

// buffers hold files while they are read; nearly all of them are no trusts, and no text is made of those.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// read gives the text of a file, at most limit bytes of it with errTooLarge; "" when wanted, if set, doesn't want it.
func (s *scan) read(rel string, limit int64, wanted func(data []byte) bool) (string, error) {
	f, err := os.Open(filepath.Join(s.root, filepath.FromSlash(rel)))
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	b, _ := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return "", err
	}
	if wanted != nil && !wanted(b.Bytes()) {
		return "", nil
	}
	text := strings.ReplaceAll(strings.TrimPrefix(b.String(), "\ufeff"), "\r\n", "\n")
	if int64(b.Len()) > limit {
		return text, errTooLarge
	}
	return text, nil
}

// marks are texts that a file of each form must hold.
var marks = []struct {
	name  string
	words []string
	read  func(*scan, *file)
}{
	{"an AWS trust policy", []string{"AssumeRoleWithWebIdentity"}, (*scan).awsFile},
	{"a Google workload identity provider", []string{"issuerUri"}, (*scan).gcpFile},
	{"a Google IAM policy", []string{"iam.googleapis.com/", "principal"}, (*scan).gcpPolicy},
	{"an Azure federated credential", []string{"issuer", "subject", "audience"}, (*scan).azureFile},
	{"a JWT role of Vault", []string{"user_claim"}, (*scan).vaultFile},
	{"a Kubernetes authentication configuration", []string{"AuthenticationConfiguration", "jwt"}, (*scan).kubernetesFile},
	{"a Kubernetes role binding", []string{"roleRef", "subjects", "rbac.authorization.k8s.io"}, (*scan).rbacFile},
	{"a Proviso configuration", []string{"issuers:", "grants:", "policy:"}, (*scan).provisoFile},
}

// marked reports whether a file holds the marks of any form.
func marked(data []byte) bool {
	for i := range marks {
		holds := true
		for _, w := range marks[i].words {
			holds = holds && bytes.Contains(data, []byte(w))
		}
		if holds {
			return true
		}
	}
	return false
}

// file is one file that is not Terraform.
type file struct {
	name, text string
	docs       []*node
	parsed     bool
}

// file reads one file by what it holds.
func (s *scan) file(rel string) {
	wanted := marked
	if strings.HasSuffix(rel, ".sts.yaml") {
		wanted = nil // by its name
	}
	content, err := s.read(rel, s.opt.MaxBytes, wanted)
	if err != nil && !errors.Is(err, errTooLarge) {
		return // an unreadable file hides what it is; there is nothing to say about it
	}
	large := err != nil
	f := &file{name: rel, text: content}
	if strings.HasSuffix(rel, ".sts.yaml") {
		if s.usable(f, "an octo-sts policy", large) {
			s.octoSTS(f)
		}
		return
	}
	for _, m := range marks {
		holds := true
		for _, w := range m.words {
			holds = holds && strings.Contains(content, w)
		}
		if !holds {
			continue
		}
		if !s.usable(f, m.name, large) {
			return
		}
		m.read(s, f)
	}
}

// usable parses a file that holds the marks of a form; what is wrong with it is said.
func (s *scan) usable(f *file, what string, large bool) bool {
	switch {
	case large:
		s.problem(f.name, 1, fmt.Sprintf("this looks like %s and is larger than the limit of %d bytes", what, s.opt.MaxBytes))
		return false
	case strings.ContainsRune(f.text, 0) || !utf8.ValidString(f.text):
		s.problem(f.name, 1, fmt.Sprintf("this looks like %s and is no UTF-8 text", what))
		return false
	case f.parsed:
		return true
	case strings.HasSuffix(f.name, ".bicep"):
		return true
	}
	f.parsed = true
	docs, p := parseYAML(f.text)
	f.docs = docs
	if p != nil {
		s.problem(f.name, p.Line, fmt.Sprintf("this looks like %s, and %s", what, p.Why))
	}
	return len(docs) > 0
}

// stem gives the name of a file without its directory and its ending.
func stem(name string) string {
	base := path.Base(name)
	if i := strings.IndexByte(base, '.'); i > 0 {
		base = base[:i]
	}
	return base
}
