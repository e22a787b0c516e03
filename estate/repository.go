package estate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"strings"
)

// Repository is one repository of an estate.
type Repository struct {
	// Name is "host/owner/name": where its files stand in the tree.
	Name string `json:"name"`
	// URL is what git fetches. It holds no token.
	URL string `json:"url"`
	// Stamp changes whenever the repository does, where the API says so; "" is unknown.
	Stamp string `json:"stamp,omitempty"`
}

// Failure is a repository, or a part of one, that could not be fetched.
type Failure struct {
	Repository string `json:"repository"`
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Why        string `json:"why"`
}

// Token is a secret for one API and its git host. It prints as a word.
type Token struct{ value string }

// NewToken refuses what can't be a header's value.
func NewToken(value string) (Token, error) {
	value = strings.TrimSpace(value)
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return Token{}, errors.New("estate: the token holds characters that no token has; it was cut or joined with something")
	}
	return Token{value}, nil
}

// String hides the value from every kind of print.
func (t Token) String() string { return "(token)" }

// GoString hides it from %#v.
func (t Token) GoString() string { return "(token)" }

// set reports whether there is a token at all.
func (t Token) set() bool { return t.value != "" }

// maxList bounds how many repositories one list may name.
const maxList = 100_000

// ParseList reads a file of git URLs, one a line; # begins a comment. file://
// and local paths are refused unless allowFiles is set. name is for messages.
func ParseList(name string, data []byte, allowFiles bool) ([]Repository, error) {
	var out []Repository
	seen := make(map[string]int)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		repo, err := parseURL(text, allowFiles)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if first, ok := seen[strings.ToLower(repo.Name)]; ok {
			return nil, fmt.Errorf("%s:%d: %s is there twice, first on line %d", name, n, repo.Name, first)
		}
		seen[strings.ToLower(repo.Name)] = n
		if out = append(out, repo); len(out) > maxList {
			return nil, fmt.Errorf("%s:%d: more than %d repositories; split the list", name, n, maxList)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no repository; write one URL a line, as https://git.example/team/app.git", name)
	}
	if err := notNested(out); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// notNested refuses a repository whose directory would lie inside of another's.
func notNested(list []Repository) error {
	names := make(map[string]bool, len(list))
	for _, r := range list {
		names[r.Name] = true
	}
	for _, r := range list {
		for dir := path.Dir(r.Name); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				return fmt.Errorf("%s lies inside of %s; fetch them in two runs", r.Name, dir)
			}
		}
	}
	return nil
}

// parseURL checks a git URL and names its repository.
func parseURL(text string, allowFiles bool) (Repository, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return Repository{}, fmt.Errorf("%q is no URL; write https://host/owner/name.git", shown(text))
	}
	if u.User != nil {
		if _, secret := u.User.Password(); secret || u.Scheme != "ssh" {
			return Repository{}, errors.New("the URL holds a user or a password; take it out and set the token in the environment instead")
		}
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return Repository{}, fmt.Errorf("%q has a query or a fragment; a git URL has none", shown(text))
	}
	switch u.Scheme {
	case "https", "ssh":
		if u.Host == "" {
			return Repository{}, fmt.Errorf("%q names no host", shown(text))
		}
	case "http":
		if !loopback(u) {
			return Repository{}, fmt.Errorf("%q is plain http, which anybody on the way can read and change; write https", shown(text))
		}
	case "file":
		if !allowFiles {
			return Repository{}, fmt.Errorf("%q is a local path; --allow-file-urls permits that", shown(text))
		}
	default:
		return Repository{}, fmt.Errorf("%q has the transport %s; https and ssh are known", shown(text), u.Scheme)
	}
	name, err := treeName(u)
	if err != nil {
		return Repository{}, err
	}
	return Repository{Name: name, URL: u.String()}, nil
}

// treeName gives the directory of a repository in the tree: host and path,
// which must not lead out of it.
func treeName(u *url.URL) (string, error) {
	host := u.Host
	if host == "" {
		host = "local"
	}
	host = strings.ReplaceAll(host, ":", "_")
	name := path.Join(host, strings.TrimSuffix(strings.Trim(path.Clean("/"+u.Path), "/"), ".git"))
	if !safePath(name) || !strings.Contains(name, "/") {
		return "", fmt.Errorf("%q names no repository that could be a directory", shown(u.Path))
	}
	return name, nil
}

// safePath reports whether a name from outside is a plain relative path: no
// way up, no .git, nothing that another system reads differently.
func safePath(name string) bool {
	if name == "" || len(name) > 1024 || !filepath.IsLocal(name) || path.Clean(name) != name {
		return false
	}
	for _, part := range strings.Split(name, "/") {
		if strings.EqualFold(part, ".git") || len(part) > 255 || strings.ContainsFunc(part, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' || r == ':' }) {
			return false
		}
	}
	return true
}

// loopback reports whether a URL points to this machine by its address.
func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return ip != nil && ip.IsLoopback() || u.Hostname() == "localhost"
}

// shown makes a text of a server or a file fit for a message: bounded, and without control characters.
func shown(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if r := []rune(strings.TrimSpace(s)); len(r) > 160 {
		return string(r[:159]) + "…"
	}
	return strings.TrimSpace(s)
}
