package lab

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Forge is a small GitHub and a small GitLab behind one port of plain HTTP on
// 127.0.0.1: their listings of an organisation's repositories, page by page,
// and git's own smart HTTP server for the repositories themselves. With a
// token it answers nobody else. Its answers can be told to go wrong, one after
// the other.
type Forge struct {
	dir     string
	server  *server
	backend *cgi.Handler
	token   string

	mu      sync.Mutex
	repos   []forgeRepository
	perPage int
	scripts map[string][]ForgeAnswer
	asked   []string
}

type forgeRepository struct {
	name     string // owner/name
	archived bool
	pushed   string
	clone    string // another address than the real one
}

// ForgeAnswer is one answer that is not the usual one.
type ForgeAnswer struct {
	Status int
	Header map[string]string
	Body   string
	// Faults are those of every part of the lab.
	Faults Faults
}

// NewForge starts a forge that keeps its repositories below dir. A token that
// is not empty is demanded by the API and by git.
func NewForge(ctx context.Context, dir, token string) (*Forge, error) {
	f := &Forge{dir: dir, token: token, perPage: 100, scripts: make(map[string][]ForgeAnswer)}
	exe, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("lab: git: %w", err)
	}
	f.backend = &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"), Dir: dir, Logger: silent,
		Env: append(gitEnvironment(dir), "GIT_PROJECT_ROOT="+dir, "GIT_HTTP_EXPORT_ALL=1"), InheritEnv: []string{"PATH"},
	}
	f.server, err = serve(http.HandlerFunc(f.serve), nil)
	return f, err
}

// Close ends the server; the repositories stay.
func (f *Forge) Close() error { return f.server.Close() }

// URL is the address of the web pages and of git.
func (f *Forge) URL() string { return f.server.url }

// GitHubAPI and GitLabAPI are the addresses of the APIs.
func (f *Forge) GitHubAPI() string { return f.server.url + "/api/v3" }

// GitLabAPI is the address of GitLab's API.
func (f *Forge) GitLabAPI() string { return f.server.url + "/api/v4" }

// PerPage sets how many repositories a page holds.
func (f *Forge) PerPage(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.perPage = n
}

// Script tells the forge to answer requests whose path contains a text with
// these answers, one after the other, before it behaves again.
func (f *Forge) Script(contains string, answers ...ForgeAnswer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scripts[contains] = append(f.scripts[contains], answers...)
}

// Asked gives the paths that were asked for, in their order.
func (f *Forge) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// AddRepository makes a repository "owner/name" of plain files, or gives an
// existing one another commit.
func (f *Forge) AddRepository(ctx context.Context, name string, files map[string]string) error {
	dir := filepath.Join(f.dir, name+".git")
	if _, err := os.Stat(dir); err != nil {
		if err := f.git(ctx, "", nil, "init", "-q", "--bare", "-b", "main", dir); err != nil {
			return err
		}
		for _, key := range []string{"uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"} {
			if err := f.git(ctx, dir, nil, "config", key, "true"); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.repos = append(f.repos, forgeRepository{name: name, pushed: "2026-01-01T00:00:00Z"})
		f.mu.Unlock()
	}
	var in bytes.Buffer
	fmt.Fprintf(&in, "commit refs/heads/main\ncommitter lab <lab@acme.example> 1767225600 +0000\ndata 6\nChange\n")
	in.WriteString("deleteall\n")
	for _, path := range slices.Sorted(maps.Keys(files)) {
		mode := "100644"
		content, link := strings.CutPrefix(files[path], "symlink:")
		if link {
			mode = "120000"
		}
		fmt.Fprintf(&in, "M %s inline %s\ndata %d\n%s\n", mode, path, len(content), content)
	}
	in.WriteString("\n")
	return f.git(ctx, dir, in.Bytes(), "fast-import", "--quiet", "--force")
}

// Pushed says when a repository was last pushed to; Archive closes it; Move
// makes the listing name another address for it.
func (f *Forge) Pushed(name, when string) {
	f.change(name, func(r *forgeRepository) { r.pushed = when })
}

// Archive makes a repository an archive.
func (f *Forge) Archive(name string) {
	f.change(name, func(r *forgeRepository) { r.archived = true })
}

// Move makes the listing name another address.
func (f *Forge) Move(name, clone string) {
	f.change(name, func(r *forgeRepository) { r.clone = clone })
}

func (f *Forge) change(name string, set func(*forgeRepository)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.repos {
		if f.repos[i].name == name {
			set(&f.repos[i])
		}
	}
}

// Dir gives the bare repository's directory, for tests that write odd objects.
func (f *Forge) Dir(name string) string { return filepath.Join(f.dir, name+".git") }

func (f *Forge) git(ctx context.Context, dir string, stdin []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, gitEnvironment(f.dir), bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: git %s: %w: %s", args[0], err, out)
	}
	return nil
}

// serve answers one request.
func (f *Forge) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.URL.Path)
	var answer *ForgeAnswer
	for contains, list := range f.scripts {
		if strings.Contains(r.URL.Path, contains) && len(list) > 0 {
			answer, f.scripts[contains] = &list[0], list[1:]
			break
		}
	}
	f.mu.Unlock()
	if answer != nil {
		answer.write(w, r)
		return
	}
	if f.token != "" && !f.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
		return
	}
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/api/v3/orgs/") || strings.HasPrefix(path, "/api/v3/users/"):
		f.github(w, r)
	case strings.HasPrefix(path, "/api/v4/groups/"):
		f.gitlab(w, r)
	case strings.Contains(path, ".git/"):
		b := *f.backend // one per request: Stderr is not for sharing
		b.Stderr = new(bytes.Buffer)
		b.ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// allowed looks for the token in each of its forms.
func (f *Forge) allowed(r *http.Request) bool {
	_, basic, _ := r.BasicAuth()
	return r.Header.Get("Authorization") == "Bearer "+f.token || r.Header.Get("PRIVATE-TOKEN") == f.token || basic == f.token
}

func (a *ForgeAnswer) write(w http.ResponseWriter, r *http.Request) {
	if a.Status == 0 {
		a.Faults.answer(w, r, []byte(a.Body))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for k, v := range a.Header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write([]byte(a.Body))
}

// github lists as GET /orgs/ORG/repos does.
func (f *Forge) github(w http.ResponseWriter, r *http.Request) {
	owner := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v3/"), "/")[1]
	list := f.page(w, r, owner, func(repo forgeRepository) any {
		return map[string]any{"full_name": repo.name, "clone_url": f.cloneURL(repo), "default_branch": "main", "pushed_at": repo.pushed, "archived": repo.archived, "private": true}
	})
	if list == nil || !strings.HasPrefix(r.URL.Path, "/api/v3/orgs/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"Not Found"}`))
		return
	}
	Faults{}.answer(w, r, list)
}

// gitlab lists as GET /groups/GROUP/projects does.
func (f *Forge) gitlab(w http.ResponseWriter, r *http.Request) {
	group := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/api/v4/groups/"), "/projects")
	list := f.page(w, r, group, func(repo forgeRepository) any {
		return map[string]any{"path_with_namespace": repo.name, "http_url_to_repo": f.cloneURL(repo), "archived": repo.archived, "empty_repo": false}
	})
	if list == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"404 Group Not Found"}`))
		return
	}
	Faults{}.answer(w, r, list)
}

func (f *Forge) cloneURL(repo forgeRepository) string {
	if repo.clone != "" {
		return repo.clone
	}
	return f.server.url + "/" + repo.name + ".git"
}

// page gives one page of an owner's repositories and sets the Link header.
func (f *Forge) page(w http.ResponseWriter, r *http.Request, owner string, row func(forgeRepository) any) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []any
	for _, repo := range f.repos {
		if strings.HasPrefix(repo.name, owner+"/") {
			all = append(all, row(repo))
		}
	}
	if all == nil {
		return nil
	}
	n, _ := strconv.Atoi(r.URL.Query().Get("page"))
	n = max(n, 1)
	from, to := min((n-1)*f.perPage, len(all)), min(n*f.perPage, len(all))
	if to < len(all) {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(n+1))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next", <%s>; rel="first"`, f.server.url, r.URL.EscapedPath(), q.Encode(), f.server.url))
	}
	return append([]any{}, all[from:to]...)
}
