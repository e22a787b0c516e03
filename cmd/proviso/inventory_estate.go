package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/estate"
	"github.com/proviso-ci/proviso/inventory"
)

// estateFlags are the flags of `proviso inventory` that fetch repositories from elsewhere.
type estateFlags struct {
	repos, githubOrg, gitlabGroup, api, cache string
	workers                                   int
	fileURLs                                  bool
}

func (f *estateFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.repos, "repos", "", "fetch the repositories of this file: one git URL a line, # begins a comment")
	flags.StringVar(&f.githubOrg, "github-org", "", "fetch all repositories of this GitHub organisation or user")
	flags.StringVar(&f.gitlabGroup, "gitlab-group", "", "fetch all projects of this GitLab group and of those below it")
	flags.StringVar(&f.api, "api-url", "", "the API of an own server: https://HOST/api/v3 (GitHub), https://HOST/api/v4 (GitLab)")
	flags.StringVar(&f.cache, "cache", "", "where fetched files and the results of scans are kept (default proviso/estate in the user's cache directory; a scan of directories keeps nothing without it)")
	flags.IntVar(&f.workers, "fetch-workers", 4, "how many repositories are fetched at the same time")
	flags.BoolVar(&f.fileURLs, "allow-file-urls", false, "let --repos name file:// URLs")
}

func (f *estateFlags) any() bool { return f.repos != "" || f.githubOrg != "" || f.gitlabGroup != "" }

// gather fetches what the flags name and gives the directory to scan, and what is missing.
func (f *estateFlags) gather(cmd *cobra.Command, quiet bool) (roots []string, missing []inventory.Unresolved, err error) {
	named := 0
	for _, s := range []string{f.repos, f.githubOrg, f.gitlabGroup} {
		if s != "" {
			named++
		}
	}
	if named > 1 {
		return nil, nil, errors.New("--repos, --github-org and --gitlab-group are three sources; name one, and merge with several runs")
	}
	if f.api != "" && f.repos != "" {
		return nil, nil, errors.New("--api-url is for --github-org and --gitlab-group; a list has URLs of its own")
	}
	e := &estate.Estate{Workers: f.workers, Want: wantedFile, Tokens: make(map[string]estate.HostToken)}
	if e.Cache, err = f.cacheDir(); err != nil {
		return nil, nil, err
	}
	p := fetchProgress{w: cmd.ErrOrStderr(), live: !quiet && isTerminal(cmd.ErrOrStderr()), quiet: quiet}
	e.Progress = p.done
	list, err := f.source(e, p.say)
	if err != nil {
		return nil, nil, err
	}
	p.name = e.Name
	res, err := e.Gather(cmd.Context(), list)
	p.clear()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, nil, fmt.Errorf("interrupted; the same command goes on where it stopped")
		}
		return nil, nil, err
	}
	if !quiet {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: repositories: %d (fetched %d, unchanged %d, from the interrupted run %d); not seen: %d\n", e.Name, res.Repositories, res.Fetched, res.Unchanged, res.Resumed, len(res.Failures))
	}
	for _, m := range res.Failures {
		file := m.Repository
		if m.Name != m.Repository {
			file += "/" + m.Name
		}
		missing = append(missing, inventory.Unresolved{File: file, Line: 1, Kind: m.Kind, Name: m.Name, Why: m.Why})
	}
	return []string{res.Root}, missing, nil
}

// source says who lists the repositories, and sets the token for their host.
func (f *estateFlags) source(e *estate.Estate, say func(string)) (func(context.Context) (*estate.Listing, error), error) {
	switch {
	case f.githubOrg != "":
		token, from, err := tokenFromEnv("GITHUB_TOKEN", "GH_TOKEN")
		if err != nil {
			return nil, err
		}
		host := strings.TrimPrefix(apiHost(f.api, "github.com"), "api.")
		e.Name, e.Tokens[host] = host+"/"+f.githubOrg, estate.HostToken{Token: token, User: "x-access-token"}
		return (&estate.GitHub{Org: f.githubOrg, API: f.api, Token: token, TokenFrom: from, Say: say}).List, nil
	case f.gitlabGroup != "":
		token, from, err := tokenFromEnv("GITLAB_TOKEN")
		if err != nil {
			return nil, err
		}
		host := apiHost(f.api, "gitlab.com")
		e.Name, e.Tokens[host] = host+"/"+f.gitlabGroup, estate.HostToken{Token: token, User: "oauth2"}
		return (&estate.GitLab{Group: f.gitlabGroup, API: f.api, Token: token, TokenFrom: from, Say: say}).List, nil
	}
	data, err := readFile(f.repos)
	if err != nil {
		return nil, fmt.Errorf("--repos: %w", err)
	}
	repos, err := estate.ParseList(f.repos, data, f.fileURLs)
	if err != nil {
		return nil, err
	}
	for host, names := range map[string][]string{"github.com": {"GITHUB_TOKEN", "GH_TOKEN"}, "gitlab.com": {"GITLAB_TOKEN"}} {
		token, _, err := tokenFromEnv(names...)
		if err != nil {
			return nil, err
		}
		e.Tokens[host] = estate.HostToken{Token: token, User: map[string]string{"github.com": "x-access-token", "gitlab.com": "oauth2"}[host]}
	}
	abs, err := filepath.Abs(f.repos)
	if err != nil {
		return nil, err
	}
	e.Name, e.Relist = "list "+abs, true
	return func(context.Context) (*estate.Listing, error) { return &estate.Listing{Repositories: repos}, nil }, nil
}

// tokenFromEnv reads the first variable that is set; without one only public repositories are seen.
func tokenFromEnv(names ...string) (estate.Token, string, error) {
	for _, n := range names {
		if v := os.Getenv(n); v != "" {
			t, err := estate.NewToken(v)
			if err != nil {
				return t, n, fmt.Errorf("%s: %w", n, err)
			}
			return t, n, nil
		}
	}
	return estate.Token{}, names[0] + " (not set)", nil
}

func apiHost(api, otherwise string) string {
	if u, err := url.Parse(api); err == nil && u.Host != "" {
		return strings.ToLower(u.Host)
	}
	return otherwise
}

func (f *estateFlags) cacheDir() (string, error) {
	if f.cache != "" {
		return f.cache, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no cache directory for this user: name one with --cache: %w", err)
	}
	return filepath.Join(dir, "proviso", "estate"), nil
}

// keepDir gives where results of scans are kept: beside what was fetched, and
// for directories of the user's own only where they said so.
func (f *estateFlags) keepDir() (string, error) {
	if f.cache == "" && !f.any() {
		return "", nil
	}
	dir, err := f.cacheDir()
	return filepath.Join(dir, "results"), err
}

// wantedFile reports whether a file can be a pipeline or the other end of a
// federation. Other JSON is left where it is: an estate is full of it.
func wantedFile(base string) bool {
	low := strings.ToLower(base)
	for _, end := range []string{".tf", ".tf.json", ".tofu", ".tfvars", ".bicep"} {
		if strings.HasSuffix(low, end) {
			return true
		}
	}
	return inventory.Candidate(base) || strings.HasSuffix(low, ".json") && (strings.Contains(low, "trust") || strings.Contains(low, "federat") || strings.Contains(low, "role"))
}

// fetchProgress says how far a fetch is.
type fetchProgress struct {
	w           io.Writer
	name        string
	live, quiet bool
	last        time.Time
	drawn       bool
}

// done is told of each repository; what is wrong with one is a line of its own.
func (p *fetchProgress) done(done, total int, note string) {
	if note != "" && !p.quiet {
		p.clear()
		fmt.Fprintf(p.w, "%s\n", note)
	}
	if now := time.Now(); p.live && now.Sub(p.last) > 200*time.Millisecond {
		p.last, p.drawn = now, true
		fmt.Fprintf(p.w, "\r%-70.70s", fmt.Sprintf("%s: %d of %d repositories", p.name, done, total))
	}
}

// say prints why it waits: nobody likes a program that stands still for ten minutes in silence.
func (p *fetchProgress) say(text string) {
	if !p.quiet {
		p.clear()
		fmt.Fprintln(p.w, text)
	}
}

func (p *fetchProgress) clear() {
	if p.drawn {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 70))
		p.drawn = false
	}
}
