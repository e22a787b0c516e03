package estate

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
)

// GitLab lists the projects of a group and of the groups below it.
type GitLab struct {
	// Group is the group's full path: "acme" or "acme/payments".
	Group string
	// API is the address of the REST API; "" is https://gitlab.com/api/v4.
	API string
	// Token has the scope read_api, and read_repository for private projects.
	Token Token
	// TokenFrom names where the token came from, for messages.
	TokenFrom string
	// Say gets sentences about waits; nil is silence.
	Say func(string)
	// Clock is for tests; the zero value is time itself.
	Clock Clock
}

var groupPath = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,20}$`)

// gitlabProject are the members of an answer that are used. Its
// last_activity_at is no stamp: it is renewed once an hour at most.
type gitlabProject struct {
	Path      string `json:"path_with_namespace"`
	CloneURL  string `json:"http_url_to_repo"`
	Archived  bool   `json:"archived"`
	EmptyRepo bool   `json:"empty_repo"`
}

// List asks for all pages.
func (g *GitLab) List(ctx context.Context) (*Listing, error) {
	if !groupPath.MatchString(g.Group) {
		return nil, fmt.Errorf("estate: %q is no path of a GitLab group", shown(g.Group))
	}
	a, err := newAPI("GitLab", first(g.API, "https://gitlab.com/api/v4"), g.Say, g.Clock)
	if err != nil {
		return nil, err
	}
	a.tokenFrom = first(g.TokenFrom, "the environment")
	if g.Token.set() {
		a.header.Set("PRIVATE-TOKEN", g.Token.value)
	}
	web := *a.base
	web.Path = ""
	at := *a.base
	at.Path = a.base.Path + "/groups/" + g.Group + "/projects"
	at.RawPath = a.base.EscapedPath() + "/groups/" + url.PathEscape(g.Group) + "/projects"
	at.RawQuery = "include_subgroups=true&with_shared=false&per_page=100&order_by=id&sort=asc"
	out, err := listed(ctx, a, &at, &web, func(p *gitlabProject) (string, string, bool) {
		return p.CloneURL, "", p.Archived || p.EmptyRepo
	})
	if out == nil && err == nil {
		err = fmt.Errorf("estate: GitLab knows no group %s, or the token of %s may not see it", g.Group, a.tokenFrom)
	}
	return out, err
}
