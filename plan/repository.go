package plan

import (
	"bufio"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// Tree is a scanned directory with its inventory.
type Tree struct {
	// Dir is where the files of the inventory are; "" when they are not here,
	// and no patch can be made.
	Dir       string
	Inventory *inventory.Inventory
}

// repository is one repository of a tree.
type repository struct {
	tree   *Tree
	dir    string // below the tree, with slashes; "" is the tree itself
	name   string // "owner/name"; "" when nothing says it
	host   string // of its remote
	branch string // the default branch
	sure   bool   // the repository itself says so
}

// label is what people call it.
func (r *repository) label() string {
	if r.name != "" {
		return path.Base(r.name)
	}
	dir := r.dir
	if dir == "" && r.tree.Dir != "" {
		if abs, err := filepath.Abs(r.tree.Dir); err == nil {
			dir = filepath.ToSlash(abs)
		}
	}
	if base := path.Base(dir); dir != "" && base != "." && base != "/" {
		return base
	}
	return "repository"
}

// owner is the first part of the name.
func (r *repository) owner() string {
	owner, _, _ := strings.Cut(r.name, "/")
	return owner
}

// below gives a file's name below the repository.
func (r *repository) below(file string) string {
	if r.dir == "" {
		return file
	}
	return strings.TrimPrefix(file, r.dir+"/")
}

// repositories finds the repository of each file, and reads each once.
type repositories map[string]*repository

// of gives the repository that a file belongs to: the nearest directory above
// it that is a clone, else the place that its platform gives it.
func (rs repositories) of(t *Tree, file string) *repository {
	dir := ""
	found := false
	if t.Dir != "" {
		for d := path.Dir(file); ; d = path.Dir(d) {
			if d == "/" || strings.HasPrefix(d, "..") {
				break
			}
			if _, err := os.Lstat(filepath.Join(t.Dir, filepath.FromSlash(d), ".git")); err == nil {
				dir, found = strings.TrimPrefix(d, "."), true
				break
			}
			if d == "." {
				break
			}
		}
	}
	if !found {
		dir = inventory.RepositoryOf(file)
	}
	key := t.Dir + "\x00" + dir
	if r, ok := rs[key]; ok {
		return r
	}
	r := &repository{tree: t, dir: dir, branch: "main"}
	if found {
		r.readGit(filepath.Join(t.Dir, filepath.FromSlash(dir), ".git"))
	}
	rs[key] = r
	return r
}

// maxGitFile bounds what is read of a clone's own files.
const maxGitFile = 1 << 20

var remoteURL = regexp.MustCompile(`^(?:[a-z+]+://(?:[^@/]*@)?|[^@/:]+@)([A-Za-z0-9.-]+)(?::[0-9]+)?[:/]+(.+?)(?:\.git)?/?$`)

// readGit takes name and default branch from a clone's configuration. What a
// URL holds before the host (a token, maybe) is dropped.
func (r *repository) readGit(git string) {
	if info, err := os.Lstat(git); err != nil || !info.IsDir() {
		return // a work tree's .git leads out of the tree
	}
	section := ""
	eachLine(filepath.Join(git, "config"), func(line string) {
		if strings.HasPrefix(line, "[") {
			section = line
			return
		}
		key, val, ok := strings.Cut(line, "=")
		if !ok || section != `[remote "origin"]` || strings.TrimSpace(key) != "url" {
			return
		}
		if m := remoteURL.FindStringSubmatch(strings.TrimSpace(val)); m != nil && repositoryName.MatchString(m[2]) {
			r.host, r.name, r.sure = strings.ToLower(m[1]), m[2], true
		}
	})
	for file, prefix := range map[string]string{"HEAD": "ref: refs/heads/", "refs/remotes/origin/HEAD": "ref: refs/remotes/origin/"} {
		eachLine(filepath.Join(git, filepath.FromSlash(file)), func(line string) {
			b, ok := strings.CutPrefix(line, prefix)
			if ok && plainWord.MatchString(b) && (file != "HEAD" || b == "main" || b == "master") {
				r.branch = b
			}
		})
	}
}

// eachLine reads a small regular file, without its blanks.
func eachLine(name string, visit func(string)) {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxGitFile {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		visit(strings.TrimSpace(s.Text()))
	}
}
