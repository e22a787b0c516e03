package inventory

import (
	"bufio"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// repository is where a definition belongs: on which host, under which name.
type repository struct {
	host, slug string // "" when it can't be told
}

// repositories finds out, from the configuration of git within the scanned
// tree, which repository a directory is a clone of. Nothing of git is run.
type repositories struct {
	root, named string
	mu          sync.Mutex
	known       map[string]repository
}

// newRepositories looks below root. named is what the root is called where its tree doesn't say.
func newRepositories(root, named string) *repositories {
	return &repositories{root: root, named: strings.Trim(named, "/"), known: make(map[string]repository)}
}

// of gives the repository of a directory, by the nearest .git above it within the tree.
func (r *repositories) of(dir string) repository {
	dir = path.Clean("/" + dir)[1:]
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.known[dir]; ok {
		return found
	}
	var found repository
	for d := dir; ; d = path.Dir(d) {
		if d == "." {
			d = ""
		}
		if found = remoteOf(filepath.Join(r.root, filepath.FromSlash(d))); found.slug != "" || d == "" {
			break
		}
	}
	if found.slug == "" && r.named != "" {
		found = parseRemote(r.named)
	}
	r.known[dir] = found
	return found
}

// maxGitConfig bounds what is read of a .git/config.
const maxGitConfig = 64 << 10

// remoteOf reads the remote "origin", else the first remote, of a clone.
func remoteOf(dir string) repository {
	name := filepath.Join(dir, ".git", "config")
	for _, p := range []string{filepath.Dir(name), name} { // neither may be a link out of the tree
		if info, err := os.Lstat(p); err != nil || info.Mode()&os.ModeSymlink != 0 {
			return repository{}
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return repository{}
	}
	defer func() { _ = f.Close() }() // it was only read
	var first repository
	section := ""
	for lines := bufio.NewScanner(io.LimitReader(f, maxGitConfig)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, url, ok := strings.Cut(line, "=")
		if !ok || strings.TrimSpace(key) != "url" || !strings.HasPrefix(section, `[remote `) {
			continue
		}
		found := parseRemote(strings.TrimSpace(url))
		if section == `[remote "origin"]` && found.slug != "" {
			return found
		}
		if first.slug == "" {
			first = found
		}
	}
	return first
}

var (
	remoteURL  = regexp.MustCompile(`^[a-z+]+://(?:[^@/]*@)?([^/:]+)(?::\d+)?/(.+)$`)
	remoteSCP  = regexp.MustCompile(`^(?:[^@/]+@)?([^/:]+):([^/].*)$`)
	remoteName = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$`)
)

// parseRemote reads the URL of a remote, or a plain owner/name. A user or a
// token in the URL is dropped, and a path of this machine is no name.
func parseRemote(url string) repository {
	host, slug := "", ""
	if m := remoteURL.FindStringSubmatch(url); m != nil {
		if host, slug = strings.ToLower(m[1]), m[2]; strings.HasPrefix(url, "file:") {
			return repository{}
		}
	} else if m := remoteSCP.FindStringSubmatch(url); m != nil {
		host, slug = strings.ToLower(m[1]), m[2]
	} else if !strings.HasPrefix(url, "/") && !strings.HasPrefix(url, ".") {
		slug = url
	}
	slug = strings.TrimSuffix(strings.Trim(slug, "/"), ".git")
	if !remoteName.MatchString(slug) {
		return repository{}
	}
	return repository{host: host, slug: slug}
}
