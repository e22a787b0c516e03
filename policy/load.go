package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/proviso-ci/proviso"
)

// What a directory may hold. The bounds are far above any use and keep a
// mistaken path (a home, a checkout with its dependencies) from being read.
const (
	maxFiles     = 5000
	maxEntries   = 50_000
	maxFileBytes = 1 << 20
	maxAllBytes  = 32 << 20
	maxDepth     = 16
)

// file is one file as it was read: a module, a module of tests, or data.
type file struct {
	path    string // below the directory, with slashes
	content string
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.rego") }
func (f file) isData() bool { return path.Base(f.path) == "data.json" }

// tree is what was read from a directory: the files in the order of their
// paths, and what was left aside.
type tree struct {
	files   []file
	ignored []string
}

func (t tree) sort() {
	slices.SortFunc(t.files, func(a, b file) int { return strings.Compare(a.path, b.path) })
}

// digest covers every path and every byte that can have an influence on a
// decision or on an activation: modules, data and tests.
func (t tree) digest() string { return digestOf(t.files) }

// digestOf hashes paths and contents with their lengths, so that no two lists
// of files give the same bytes.
func digestOf(files []file) string {
	h := sha256.New()
	var n [8]byte
	put := func(s string) {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		_, _ = h.Write(n[:]) // a hash takes everything
		_, _ = io.WriteString(h, s)
	}
	for _, f := range files {
		put(f.path)
		put(f.content)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// readTree reads all modules and data below dir. It never follows a link out of
// the directory, opens nothing but regular files, and skips names that begin
// with a dot and folders called testdata. Links between files inside the
// directory work, as a mounted Kubernetes ConfigMap has them.
func readTree(dir string) (tree, Problems) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return tree{}, Problems{{Code: CodeFile, Message: "the directory of policies can't be opened: " + cause(err),
			Hint: "policy.dir names a directory that the broker may read"}}
	}
	defer root.Close()
	r := reader{root: root}
	r.folder(".", 0)
	if len(r.problems) > 0 {
		return tree{}, r.problems
	}
	r.out.sort()
	return r.out, nil
}

type reader struct {
	root     *os.Root
	out      tree
	problems Problems
	entries  int
	bytes    int
	full     bool
}

func (r *reader) fail(name string, code proviso.Code, hint, format string, args ...any) {
	r.problems = append(r.problems, Problem{Code: code, File: name, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (r *reader) folder(name string, depth int) {
	if depth > maxDepth {
		r.fail(name, proviso.CodePolicySize, "", "folders are nested deeper than %d", maxDepth)
		return
	}
	f, err := r.root.Open(name)
	if err != nil {
		r.fail(name, CodeFile, "", "the folder can't be opened: %s", cause(err))
		return
	}
	entries, err := f.ReadDir(maxEntries + 1)
	f.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		r.fail(name, CodeFile, "", "the folder can't be read: %s", cause(err))
		return
	}
	for _, e := range entries {
		if r.entries++; r.entries > maxEntries && !r.full {
			r.full = true
			r.fail("", proviso.CodePolicySize, "policy.dir should hold policies only", "the directory has more than %d entries", maxEntries)
		}
		if r.full {
			return
		}
		r.entry(path.Join(name, e.Name()), e, depth)
	}
}

func (r *reader) entry(name string, e fs.DirEntry, depth int) {
	base := path.Base(name)
	if strings.HasPrefix(base, ".") || base == "testdata" && e.IsDir() {
		return
	}
	linked := e.Type()&fs.ModeSymlink != 0
	info, err := r.root.Stat(name) // fails for a link that leads out
	switch {
	case err != nil && linked:
		r.fail(name, CodeFile, "put the file itself here", "a link that leads out of the directory of policies, or nowhere, is not followed")
	case err != nil:
		r.fail(name, CodeFile, "", "the file can't be read: %s", cause(err))
	case info.IsDir() && linked:
		r.fail(name, CodeFile, "put the folder itself here", "a linked folder is not followed")
	case info.IsDir():
		r.folder(name, depth+1)
	case !wanted(base):
		r.out.ignored = append(r.out.ignored, name)
	case !info.Mode().IsRegular():
		r.fail(name, CodeFile, "", "this is not a regular file")
	default:
		r.file(name)
	}
}

// wanted reports whether a file can be part of a revision.
func wanted(base string) bool { return strings.HasSuffix(base, ".rego") || base == "data.json" }

func (r *reader) file(name string) {
	if len(r.out.files) >= maxFiles {
		r.full = true
		r.fail("", proviso.CodePolicySize, "", "the directory has more than %d policy files", maxFiles)
		return
	}
	f, err := r.root.Open(name)
	if err != nil {
		r.fail(name, CodeFile, "", "the file can't be opened: %s", cause(err))
		return
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		r.fail(name, CodeFile, "", "the file can't be read: %s", cause(err))
		return
	}
	if r.bytes += len(data); len(data) > maxFileBytes || r.bytes > maxAllBytes {
		r.full = true
		r.fail(name, proviso.CodePolicySize, "", "policies take at most %d KiB a file and %d MiB in all", maxFileBytes>>10, maxAllBytes>>20)
		return
	}
	if !utf8.Valid(data) {
		r.fail(name, CodeFile, "save it as UTF-8", "the file is not UTF-8 text")
		return
	}
	r.out.files = append(r.out.files, file{name, string(data)})
}

// cause leaves the path out of a file system error: the problem names it, below
// the directory.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
