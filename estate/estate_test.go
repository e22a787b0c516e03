package estate_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/estate"
	"github.com/proviso-ci/proviso/lab"
)

const (
	tokenValue = "ghp_thisTokenMustNeverBeSeenAnywhere0001"
	workflow   = "on: push\njobs:\n  release:\n    runs-on: ubuntu-latest\n    steps:\n      - run: npm publish\n        env:\n          NODE_AUTH_TOKEN: ${{ secrets.NPM_TOKEN }}\n"
)

func wantYAML(base string) bool { return strings.HasSuffix(base, ".yml") }

// world is a forge and an estate that fetches from it, with a clock whose waits pass at once and are written down.
type world struct {
	forge *lab.Forge
	token estate.Token
	waits []time.Duration
	said  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	forge, err := lab.NewForge(t.Context(), t.TempDir(), tokenValue)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forge.Close() })
	token, err := estate.NewToken(tokenValue + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return &world{forge: forge, token: token}
}

func (w *world) add(t *testing.T, name string, files map[string]string) {
	t.Helper()
	if err := w.forge.AddRepository(t.Context(), name, files); err != nil {
		t.Fatal(err)
	}
}

func (w *world) clock() estate.Clock {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return estate.Clock{Now: func() time.Time { return now }, Wait: func(ctx context.Context, d time.Duration) error {
		w.waits = append(w.waits, d)
		now = now.Add(d)
		return ctx.Err()
	}}
}

func (w *world) github() *estate.GitHub {
	return &estate.GitHub{Org: "acme", API: w.forge.GitHubAPI(), Token: w.token, TokenFrom: "GITHUB_TOKEN", Clock: w.clock(), Say: func(s string) { w.said = append(w.said, s) }}
}

func (w *world) gitlab() *estate.GitLab {
	return &estate.GitLab{Group: "acme", API: w.forge.GitLabAPI(), Token: w.token, TokenFrom: "GITLAB_TOKEN", Clock: w.clock()}
}

func (w *world) estate(cache string) *estate.Estate {
	host := strings.TrimPrefix(w.forge.URL(), "http://")
	return &estate.Estate{Cache: cache, Name: "test", Want: wantYAML, Tokens: map[string]estate.HostToken{host: {Token: w.token}}}
}

// filesOf lists the files of a result without the host.
func filesOf(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			_, rel, _ = strings.Cut(filepath.ToSlash(rel), "/")
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnOrganisationIsFetchedWholly(t *testing.T) {
	w := newWorld(t)
	w.forge.PerPage(2)
	for i := range 5 {
		w.add(t, fmt.Sprintf("acme/app%d", i), map[string]string{".github/workflows/ci.yml": workflow, "main.go": "package main\n", "deep/er/x.yml": "a: 1\n"})
	}
	w.add(t, "other/app", map[string]string{".github/workflows/ci.yml": workflow})
	w.forge.Archive("acme/app4")
	e := w.estate(t.TempDir())
	res, err := e.Gather(t.Context(), w.github().List)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 4 {
		want = append(want, fmt.Sprintf("acme/app%d/.github/workflows/ci.yml", i), fmt.Sprintf("acme/app%d/deep/er/x.yml", i))
	}
	if got := filesOf(t, res.Root); !slices.Equal(got, want) {
		t.Errorf("the tree holds %q, expected %q", got, want)
	}
	if res.Repositories != 4 || res.Fetched != 4 || len(res.Failures) != 0 {
		t.Errorf("the result is %+v", res)
	}
	data, err := os.ReadFile(filepath.Join(res.Root, strings.ReplaceAll(strings.TrimPrefix(w.forge.URL(), "http://"), ":", "_"), "acme/app0/.github/workflows/ci.yml"))
	origin, _ := os.ReadFile(filepath.Join(res.Root, nameOf(w, "acme/app0"), ".git", "config"))
	if !strings.Contains(string(origin), `url = "`+w.forge.URL()+`/acme/app0.git"`) {
		t.Errorf("the tree says of its origin %q", origin)
	}
	if err != nil || string(data) != workflow {
		t.Errorf("the file is %q, %v", data, err)
	}
}

func TestAGroupOfGitLabIsFetchedWithItsSubgroups(t *testing.T) {
	w := newWorld(t)
	w.forge.PerPage(1)
	w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
	w.add(t, "acme/team/tool", map[string]string{"b.yml": "b: 1\n"})
	res, err := w.estate(t.TempDir()).Gather(t.Context(), w.gitlab().List)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := filesOf(t, res.Root), []string{"acme/app/a.yml", "acme/team/tool/b.yml"}; !slices.Equal(got, want) {
		t.Errorf("the tree holds %q, expected %q", got, want)
	}
}

func TestLimitsAreObeyed(t *testing.T) {
	reset := time.Date(2026, 3, 1, 12, 10, 0, 0, time.UTC).Unix()
	for _, c := range []struct {
		name   string
		answer lab.ForgeAnswer
		wait   time.Duration
	}{
		{"primary", lab.ForgeAnswer{Status: 403, Header: map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": fmt.Sprint(reset)}, Body: `{"message":"API rate limit exceeded"}`}, 10*time.Minute + time.Second},
		{"429 with a number", lab.ForgeAnswer{Status: 429, Header: map[string]string{"Retry-After": "42"}}, 43 * time.Second},
		{"429 with a date", lab.ForgeAnswer{Status: 429, Header: map[string]string{"Retry-After": "Sun, 01 Mar 2026 12:02:00 GMT"}}, 2*time.Minute + time.Second},
		{"secondary with a time", lab.ForgeAnswer{Status: 403, Header: map[string]string{"Retry-After": "5"}, Body: `{"message":"You have exceeded a secondary rate limit"}`}, 6 * time.Second},
		{"secondary without", lab.ForgeAnswer{Status: 403, Body: `{"message":"You have exceeded a secondary rate limit. Please wait"}`}, time.Minute},
		{"429 without", lab.ForgeAnswer{Status: 429}, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
			w.forge.Script("/repos", c.answer)
			l, err := w.github().List(t.Context())
			if err != nil || len(l.Repositories) != 1 {
				t.Fatalf("listed %+v, %v", l, err)
			}
			if len(w.waits) != 1 || w.waits[0] != c.wait {
				t.Errorf("waited %v, expected %v", w.waits, c.wait)
			}
			if len(w.said) != 1 || !strings.Contains(w.said[0], "limits the rate") {
				t.Errorf("said %q", w.said)
			}
		})
	}
}

func TestFaultsOfTheServerAreTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
	w.forge.Script("/repos", lab.ForgeAnswer{Faults: lab.Faults{Down: true}}, lab.ForgeAnswer{Status: 500}, lab.ForgeAnswer{Status: 502})
	if l, err := w.github().List(t.Context()); err != nil || len(l.Repositories) != 1 {
		t.Fatalf("listed %+v, %v", l, err)
	}
	if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(w.waits, want) {
		t.Errorf("waited %v, expected %v", w.waits, want)
	}
}

// Each answer that can't be believed ends the listing with a sentence; none of them is a shorter estate.
func TestAnswersThatCantBeBelievedAreRefused(t *testing.T) {
	loop := func(w *world) lab.ForgeAnswer {
		return lab.ForgeAnswer{Status: 200, Header: map[string]string{"Link": `<` + w.forge.GitHubAPI() + `/orgs/acme/repos?per_page=100&sort=full_name>; rel="next"`}, Body: "[]"}
	}
	limit := lab.ForgeAnswer{Status: 429, Header: map[string]string{"Retry-After": "7200"}}
	for _, c := range []struct {
		name, says string
		answers    func(w *world) []lab.ForgeAnswer
	}{
		{"a wrong token", "does not accept the token of GITHUB_TOKEN", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 401, Body: `{"message":"Bad credentials"}`}}
		}},
		{"no right", "does not let the token of GITHUB_TOKEN list this (Resource not accessible)", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 403, Body: `{"message":"Resource not accessible"}`}}
		}},
		{"nobody of that name", "knows no organisation or user acme", func(*world) []lab.ForgeAnswer { return []lab.ForgeAnswer{{Status: 404}, {Status: 404}} }},
		{"another host", "leads to another host", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Faults: lab.Faults{Redirect: "http://localhost:1/api/v3/orgs/acme/repos"}}}
		}},
		{"the next page elsewhere", "leads to another host", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 200, Header: map[string]string{"Link": `<http://localhost:1/x>; rel="next"`}, Body: "[]"}}
		}},
		{"a page that is its own next", "listing never ends", func(w *world) []lab.ForgeAnswer { return []lab.ForgeAnswer{loop(w)} }},
		{"a login page", "instead of JSON", func(*world) []lab.ForgeAnswer { return []lab.ForgeAnswer{{Faults: lab.Faults{NotJSON: true}}} }},
		{"an object", "not the list of repositories", func(*world) []lab.ForgeAnswer { return []lab.ForgeAnswer{{Status: 200, Body: `{"a":1}`}} }},
		{"half a list", "not the list of repositories", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 200, Body: `[{"clone_url":"htt`}}
		}},
		{"a huge page", "more than 16777216 bytes", func(*world) []lab.ForgeAnswer {
			return slices.Repeat([]lab.ForgeAnswer{{Faults: lab.Faults{Huge: 17 << 20}, Body: "[]"}}, 6)
		}},
		{"a server that stays down", "502 Bad Gateway (6 tries)", func(*world) []lab.ForgeAnswer { return slices.Repeat([]lab.ForgeAnswer{{Status: 502}}, 6) }},
		{"a limit of two hours", "asks to wait 2h0m1s", func(*world) []lab.ForgeAnswer { return []lab.ForgeAnswer{limit} }},
		{"a repository elsewhere", "leads to another host", func(*world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 200, Body: `[{"full_name":"acme/app","clone_url":"http://localhost:1/acme/app.git"}]`}}
		}},
		{"a repository with a password", "leads to another host", func(w *world) []lab.ForgeAnswer {
			return []lab.ForgeAnswer{{Status: 200, Body: `[{"full_name":"acme/app","clone_url":"` + strings.Replace(w.forge.URL(), "//", "//u:p@", 1) + `/acme/app.git"}]`}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
			w.forge.Script("/repos", c.answers(w)...)
			l, err := w.github().List(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("listed %+v; the error is %v, expected one with %q", l, err, c.says)
			}
			if strings.Contains(err.Error(), tokenValue) {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
}

func TestAddressesAreChecked(t *testing.T) {
	for _, c := range []struct{ api, org, says string }{
		{"http://git.acme.example/api/v3", "acme", "not https"},
		{"https://user:pass@git.acme.example/api/v3", "acme", "holds a user"},
		{"nothing", "acme", "is no URL"},
		{"https://git.acme.example/api/v3?x=1", "acme", "a query"},
		{"https://git.acme.example/api/v3", "../../user", "no name of a GitHub organisation"},
	} {
		_, err := (&estate.GitHub{Org: c.org, API: c.api}).List(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %s: %v, expected %q", c.api, c.org, err, c.says)
		}
	}
	if _, err := (&estate.GitLab{Group: "acme/../x?y"}).List(t.Context()); err == nil || !strings.Contains(err.Error(), "no path of a GitLab group") {
		t.Errorf("a group that is no path: %v", err)
	}
	if _, err := estate.NewToken("abc\ndef"); err == nil || strings.Contains(err.Error(), "abc") {
		t.Errorf("a token of two lines: %v", err)
	}
}

func TestListsAreChecked(t *testing.T) {
	ok, err := estate.ParseList("repos.txt", []byte("# all of them\nhttps://git.example/team/app.git\n\nssh://git@git.example:2222/team/tool  # theirs\n"), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(ok) != 2 || ok[0].Name != "git.example/team/app" || ok[1].Name != "git.example_2222/team/tool" {
		t.Errorf("the list is %+v", ok)
	}
	for _, c := range []struct{ line, says string }{
		{"", "names no repository"},
		{"/srv/git/app.git", "is no URL"},
		{"git@github.com:acme/app.git", "is no URL"},
		{"file:///srv/git/app.git", "--allow-file-urls"},
		{"http://git.example/team/app.git", "plain http"},
		{"https://user:secret@git.example/team/app.git", "holds a user or a password"},
		{"https://token@git.example/team/app.git", "holds a user or a password"},
		{"ext::sh -c touch% /tmp/x", "the transport ext"},
		{"git://git.example/team/app", "the transport git"},
		{"https://git.example/team/app.git\nhttps://git.example/team/app/inner.git", "lies inside of"},
		{"https://git.example/team/app.git\nhttps://git.example/team/app", "there twice, first on line 1"},
		{"https://git.example/", "names no repository that could be a directory"},
		{"https://git.example/a/.git/b", "names no repository that could be a directory"},
	} {
		if _, err := estate.ParseList("repos.txt", []byte(c.line), false); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, expected %q", c.line, err, c.says)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error repeats the password: %v", c.line, err)
		}
	}
}

func TestARunGoesOnWhereItStopped(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.add(t, fmt.Sprintf("acme/app%d", i), map[string]string{"a.yml": "a: 1\n"})
	}
	cache := t.TempDir()
	e := w.estate(cache)
	e.Workers = 1
	ctx, cancel := context.WithCancel(t.Context())
	e.Progress = func(done, _ int, _ string) {
		if done == 2 {
			cancel()
		}
	}
	if _, err := e.Gather(ctx, w.github().List); !errors.Is(err, context.Canceled) {
		t.Fatalf("the interrupted run gives %v", err)
	}
	before := len(w.forge.Asked())
	res, err := w.estate(cache).Gather(t.Context(), func(context.Context) (*estate.Listing, error) {
		t.Error("the listing was asked for again")
		return nil, errors.New("no")
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Repositories != 3 || res.Resumed != 2 || res.Fetched != 1 {
		t.Errorf("the result is %+v", res)
	}
	for _, path := range w.forge.Asked()[before:] {
		if !strings.Contains(path, "app2") {
			t.Errorf("%s was asked for again", path)
		}
	}
}

func TestWhatDidNotChangeIsNotFetchedAgain(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/same", map[string]string{"a.yml": "a: 1\n"})
	w.add(t, "acme/other", map[string]string{"a.yml": "a: 1\n", "old.yml": "o: 1\n"})
	w.add(t, "acme/gone", map[string]string{"a.yml": "a: 1\n"})
	cache := t.TempDir()
	if _, err := w.estate(cache).Gather(t.Context(), w.github().List); err != nil {
		t.Fatal(err)
	}
	w.add(t, "acme/other", map[string]string{"a.yml": "a: 2\n"})
	w.forge.Pushed("acme/other", "2026-02-02T00:00:00Z")
	w.forge.Archive("acme/gone")
	before := len(w.forge.Asked())
	res, err := w.estate(cache).Gather(t.Context(), w.github().List)
	if err != nil {
		t.Fatal(err)
	}
	if res.Unchanged != 1 || res.Fetched != 1 {
		t.Errorf("the result is %+v", res)
	}
	for _, path := range w.forge.Asked()[before:] {
		if strings.Contains(path, "same") {
			t.Errorf("%s was asked for again", path)
		}
	}
	if got, want := filesOf(t, res.Root), []string{"acme/other/a.yml", "acme/same/a.yml"}; !slices.Equal(got, want) {
		t.Errorf("the tree holds %q, expected %q: neither a deleted file nor a repository that is gone", got, want)
	}
}

func TestABadRepositoryIsNamedAndTheOthersAreFetched(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/good", map[string]string{"a.yml": "a: 1\n"})
	w.add(t, "acme/bad", map[string]string{"a.yml": "a: 1\n"})
	w.add(t, "acme/linked", map[string]string{"link.yml": "symlink:../../../../etc/passwd", "b.yml": "b: 1\n"})
	w.forge.Script("acme/bad.git", slices.Repeat([]lab.ForgeAnswer{{Status: 404, Body: "gone"}}, 4)...)
	res, err := w.estate(t.TempDir()).Gather(t.Context(), w.github().List)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := filesOf(t, res.Root), []string{"acme/good/a.yml", "acme/linked/b.yml"}; !slices.Equal(got, want) {
		t.Errorf("the tree holds %q, expected %q", got, want)
	}
	var kinds []string
	for _, f := range res.Failures {
		kinds = append(kinds, f.Kind)
		if strings.Contains(f.Why, tokenValue) {
			t.Errorf("a failure holds the token: %s", f.Why)
		}
	}
	if !slices.Equal(kinds, []string{"repository", "symbolic link"}) {
		t.Errorf("the failures are %+v", res.Failures)
	}
}

// A repository is bounded in size and in time, and what is over is named.
func TestARepositoryIsBounded(t *testing.T) {
	w := newWorld(t)
	noise := make([]byte, 3<<20)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(noise)
	w.add(t, "acme/big", map[string]string{"a.yml": hex.EncodeToString(noise)})
	w.add(t, "acme/small", map[string]string{"a.yml": "a: 1\n"})
	e := w.estate(t.TempDir())
	e.MaxBytes = 1 << 20
	res, err := e.Gather(t.Context(), w.github().List)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failures) != 1 || res.Failures[0].Repository != nameOf(w, "acme/big") || !strings.Contains(res.Failures[0].Why, "larger than the bound") || res.Repositories != 1 {
		t.Errorf("the result is %+v", res)
	}
	w.forge.Script("acme/small.git", lab.ForgeAnswer{Faults: lab.Faults{Delay: time.Minute}})
	e = w.estate(t.TempDir())
	e.Timeout = 300 * time.Millisecond
	if _, err := e.Gather(t.Context(), w.github().List); err == nil || !strings.Contains(err.Error(), "longer than the bound") {
		t.Errorf("slow repositories give %v", err)
	}
}

func nameOf(w *world, name string) string {
	return strings.ReplaceAll(strings.TrimPrefix(w.forge.URL(), "http://"), ":", "_") + "/" + name
}

// Trees can be made by hand: a name that leads out of the directory is named and not written.
func TestNamesThatLeadOutAreNotWritten(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/evil", map[string]string{"a.yml": "a: 1\n"})
	dir := w.forge.Dir("acme/evil")
	run := func(stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	id := run("a: 1\n", "hash-object", "-w", "--stdin")
	raw, _ := hex.DecodeString(id)
	tree := ""
	for _, name := range []string{"..\\up.yml", "C:x.yml", "good.yml"} {
		tree += "100644 " + name + "\x00" + string(raw)
	}
	inner := run("100644 out.yml\x00"+string(raw), "hash-object", "-t", "tree", "-w", "--stdin", "--literally")
	rawInner, _ := hex.DecodeString(inner)
	tree = "40000 ..\x00" + string(rawInner) + "40000 .git\x00" + string(rawInner) + tree
	commit := run("", "commit-tree", "-m", "x", run(tree, "hash-object", "-t", "tree", "-w", "--stdin", "--literally"))
	run("", "update-ref", "refs/heads/main", commit)
	res, err := w.estate(t.TempDir()).Gather(t.Context(), w.github().List)
	if err != nil {
		t.Fatal(err)
	}
	if got := filesOf(t, res.Root); !slices.Equal(got, []string{"acme/evil/good.yml"}) || len(res.Failures) != 4 {
		t.Errorf("the tree holds %q, the failures are %+v", got, res.Failures)
	}
}

// The token is in no file of the cache; git's configuration of the user and its hooks change nothing.
func TestTheTokenStaysInMemoryAndGitReadsNoConfiguration(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
	home := t.TempDir()
	mark := filepath.Join(home, "mark")
	t.Setenv("HOME", home)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
	t.Setenv("GIT_CONFIG_VALUE_0", "touch "+mark)
	t.Setenv("GIT_SSH_COMMAND", "touch "+mark)
	t.Setenv("GIT_TRACE", mark)
	t.Setenv("GIT_TEMPLATE_DIR", home)
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = "+w.forge.URL()+"\n[credential]\n\thelper = !touch "+mark+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache := t.TempDir()
	if _, err := w.estate(cache).Gather(t.Context(), w.github().List); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("git ran something of the user's configuration")
	}
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + tokenValue))
	err := filepath.WalkDir(cache, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte(tokenValue)) || bytes.Contains(data, []byte(basic)) {
			t.Errorf("%s holds the token", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", w.token, w.token, w.token, w.token); strings.Contains(s, tokenValue) {
		t.Error("a token prints its value")
	}
	if data, err := json.Marshal(map[string]any{"token": w.token}); err != nil || strings.Contains(string(data), tokenValue) {
		t.Errorf("a token encodes to %s, %v", data, err)
	}
}

func TestTwoRunsOfOneEstateDontMeet(t *testing.T) {
	w := newWorld(t)
	w.add(t, "acme/app", map[string]string{"a.yml": "a: 1\n"})
	cache := t.TempDir()
	_, err := w.estate(cache).Gather(t.Context(), func(ctx context.Context) (*estate.Listing, error) {
		if _, err := w.estate(cache).Gather(ctx, w.github().List); err == nil || !strings.Contains(err.Error(), "another run") {
			t.Errorf("a second run at the same time gives %v", err)
		}
		return w.github().List(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
}
