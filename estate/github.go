package estate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Listing is what an API says an organisation has.
type Listing struct {
	Repositories []Repository `json:"repositories"`
	// Archived counts repositories that were left out because nothing runs in them.
	Archived int `json:"archived"`
}

// GitHub lists the repositories of an organisation, or of a user.
type GitHub struct {
	// Org is the organisation's name.
	Org string
	// API is the address of the REST API; "" is https://api.github.com, and for
	// an Enterprise Server https://HOST/api/v3.
	API string
	// Token may read the organisation's repositories; the zero value sees only public ones.
	Token Token
	// TokenFrom names where the token came from, for messages.
	TokenFrom string
	// Say gets sentences about waits; nil is silence.
	Say func(string)
	// Clock is for tests; the zero value is time itself.
	Clock Clock
}

var ownerName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-_.]{0,98}[A-Za-z0-9_])?$`)

// githubRepository are the members of an answer that are used.
type githubRepository struct {
	FullName      string `json:"full_name"`
	CloneURL      string `json:"clone_url"`
	DefaultBranch string `json:"default_branch"`
	PushedAt      string `json:"pushed_at"`
	Archived      bool   `json:"archived"`
	Disabled      bool   `json:"disabled"`
}

// List asks for all pages.
func (g *GitHub) List(ctx context.Context) (*Listing, error) {
	if !ownerName.MatchString(g.Org) {
		return nil, fmt.Errorf("estate: %q is no name of a GitHub organisation", shown(g.Org))
	}
	a, err := newAPI("GitHub", first(g.API, "https://api.github.com"), g.Say, g.Clock)
	if err != nil {
		return nil, err
	}
	a.tokenFrom = first(g.TokenFrom, "the environment")
	a.header.Set("Accept", "application/vnd.github+json")
	a.header.Set("X-GitHub-Api-Version", "2022-11-28")
	if g.Token.set() {
		a.header.Set("Authorization", "Bearer "+g.Token.value)
	}
	web := githubWeb(a.base)
	for _, kind := range []string{"orgs", "users"} {
		at := a.base.JoinPath(kind, g.Org, "repos")
		at.RawQuery = "per_page=100&sort=full_name"
		out, err := listed(ctx, a, at, web, func(r *githubRepository) (string, string, bool) {
			stamp := ""
			if r.PushedAt != "" {
				stamp = r.PushedAt + " " + r.DefaultBranch
			}
			return r.CloneURL, stamp, r.Archived || r.Disabled
		})
		if out != nil || err != nil {
			return out, err
		} // else the name is a user's
	}
	return nil, fmt.Errorf("estate: GitHub knows no organisation or user %s, or the token of %s may not see it", g.Org, a.tokenFrom)
}

// listed reads all pages of a listing; nil when the server knows nothing of the
// name. read gives the address of a repository, its stamp, and whether nothing runs in it.
func listed[T any](ctx context.Context, a *api, at, web *url.URL, read func(*T) (clone, stamp string, idle bool)) (*Listing, error) {
	out := &Listing{}
	err := a.pages(ctx, at, func(body []byte) error {
		list, err := decode[T](a, body)
		for i := range list {
			clone, stamp, idle := read(&list[i])
			if idle {
				out.Archived++
			} else if err := out.add(web, clone, stamp); err != nil {
				return err
			}
		}
		return err
	})
	var status *statusError
	switch {
	case errors.As(err, &status) && status.status == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return out, nil
}

// githubWeb gives the host that clones come from.
func githubWeb(api *url.URL) *url.URL {
	web := *api
	web.Path = ""
	web.Host = strings.TrimPrefix(web.Host, "api.")
	return &web
}

// add takes one repository of an API's answer. Its address must be on the
// host that the API belongs to: an answer must not send the token elsewhere.
func (l *Listing) add(web *url.URL, clone, stamp string) error {
	u, err := url.Parse(clone)
	if err != nil || !sameOrigin(u, web) || u.User != nil {
		return fmt.Errorf("estate: a repository's address is %q, which is not on %s: %w", shown(clone), web.Host, errElsewhere)
	}
	r, err := parseURL(clone, false)
	if err != nil {
		return err
	}
	r.Stamp = stamp
	if l.Repositories = append(l.Repositories, r); len(l.Repositories) > maxList {
		return fmt.Errorf("estate: more than %d repositories", maxList)
	}
	return nil
}
