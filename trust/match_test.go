package trust

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Accepts says yes only to what can be, no only to what can't, and unknown to the rest.
func TestAccepts(t *testing.T) {
	job := Identity{
		Audiences: []string{"sts.amazonaws.com"},
		Claims: map[string][]string{
			"sub":        {"repo:acme/shop:ref:refs/heads/main", "repo:acme@*/shop@*:ref:refs/heads/main"},
			"repository": {"acme/shop"}, "ref": {"refs/heads/main"}, "branchy": {"refs/heads/*"},
		},
		Absent: []string{"environment"},
	}
	one := func(claim string, m Match, values ...string) Trust {
		return Trust{Conditions: []Condition{{Claim: claim, Match: m, Values: values}}}
	}
	with := func(tr Trust, change func(*Trust)) Trust { change(&tr); return tr }
	for name, c := range map[string]struct {
		trust Trust
		want  Answer
	}{
		"no condition":              {Trust{}, Yes},
		"exact":                     {one("repository", Exact, "acme/shop"), Yes},
		"another repository":        {one("repository", Exact, "acme/other"), No},
		"one of several":            {one("repository", Exact, "acme/other", "acme/shop"), Yes},
		"a star is no pattern":      {one("repository", Exact, "acme/*"), No},
		"glob":                      {one("sub", Glob, "repo:acme/*"), Yes},
		"glob of another owner":     {one("sub", Glob, "repo:evil/*"), No},
		"letter case counts":        {one("repository", Exact, "Acme/shop"), No},
		"subject with ids":          {one("sub", Exact, "repo:acme@61200123/shop@700100200:ref:refs/heads/main"), Yes},
		"subject with other ids":    {one("sub", Exact, "repo:acme@61200123/other@700100200:ref:refs/heads/main"), No},
		"another branch":            {one("sub", Exact, "repo:acme/shop:ref:refs/heads/next"), No},
		"a branch of many":          {one("branchy", Exact, "refs/heads/next"), Yes},
		"regex":                     {one("repository", Regex, "^acme/sh.p$"), Yes},
		"regex finds":               {one("repository", Regex, "shop"), Yes},
		"regex of another":          {one("repository", Regex, "^evil/"), No},
		"regex over many":           {one("branchy", Regex, "^refs/heads/release-[0-9]+$"), Unknown},
		"regex that rules it out":   {one("branchy", Regex, `^refs/tags/v[0-9]+\.[0-9]+$`), No},
		"regex with alternatives":   {one("branchy", Regex, "^refs/tags/x$|^refs/heads/zz-[0-9]+$"), Unknown},
		"broken regex":              {one("repository", Regex, "("), Unknown},
		"unknown claim":             {one("repository_id", Exact, "7"), Unknown},
		"absent claim":              {one("environment", Exact, "production"), No},
		"absent claim may pass":     {with(one("environment", Exact, "production"), func(t *Trust) { t.Conditions[0].AbsentPasses = true }), Yes},
		"turned around":             {with(one("repository", Exact, "acme/shop"), func(t *Trust) { t.Conditions[0].Not = true }), No},
		"turned around, another":    {with(one("repository", Exact, "acme/other"), func(t *Trust) { t.Conditions[0].Not = true }), Yes},
		"turned around, one of all": {with(one("branchy", Exact, "refs/heads/main"), func(t *Trust) { t.Conditions[0].Not = true }), Yes},
		"expression":                {one("", Expression, "attribute.x == 'y'"), Unknown},
		"audience":                  {Trust{Audiences: []string{"sts.amazonaws.com"}}, Yes},
		"another audience":          {Trust{Audiences: []string{"https://vault.acme.example"}}, No},
		"a hole that fits":          {one("repository", Exact, "${var.org}/shop"), Unknown},
		"a hole that can't fit":     {one("repository", Exact, "${var.org}/other"), No},
		"no counts before unknown":  {with(one("repository_id", Exact, "7"), func(t *Trust) { t.add(Condition{Claim: "repository", Match: Exact, Values: []string{"acme/other"}}) }), No},
		"unresolved part":           {with(one("repository", Exact, "acme/shop"), func(t *Trust) { t.open(1, "a Deny") }), Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.trust.Accepts(job)
			if got.Answer != c.want {
				t.Errorf("%s, want %s: %+v", got.Answer, c.want, got.Why)
			}
			if got.Answer != Yes && len(got.Why) == 0 {
				t.Error("it doesn't say why")
			}
		})
	}
}

// overlap agrees with trying: a text that both patterns match is an overlap, and patterns without stars overlap only when they can be equal.
func TestOverlap(t *testing.T) {
	glob := func(p string) *regexp.Regexp {
		p = regexp.QuoteMeta(p)
		return regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(p) + "$")
	}
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.StringMatching(`[ab*?]{0,6}`).Draw(t, "a")
		b := rapid.StringMatching(`[ab*?]{0,6}`).Draw(t, "b")
		text := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "text")
		both := glob(a).MatchString(text) && glob(b).MatchString(text)
		if got := overlap(a, b); both && !got {
			t.Fatalf("%q and %q both match %q, and don't overlap", a, b, text)
		}
		if !strings.ContainsAny(b, "*?") && overlap(a, b) != glob(a).MatchString(b) {
			t.Fatalf("%q against the text %q: %v", a, b, overlap(a, b))
		}
		if overlap(a, b) != overlap(b, a) {
			t.Fatalf("%q and %q overlap one way only", a, b)
		}
	})
}

// The part of CEL that is read, and what is not.
func TestConditionsInCEL(t *testing.T) {
	for expr, want := range map[string]string{
		`assertion.repository == "acme/shop"`:                                                   `repository exact [acme/shop]`,
		`"acme" == assertion['repository_owner']`:                                               `repository_owner exact [acme]`,
		`assertion.ref in ['refs/heads/main', "refs/heads/next"]`:                               `ref exact [refs/heads/main refs/heads/next]`,
		`(assertion.ref == 'a' || assertion.ref == 'b') && has(assertion.sub)`:                  `ref exact [a b]`,
		`assertion.repository.startsWith("acme/") && !(assertion.event_name == "pull_request")`: `repository glob [acme/*]; event_name exact [pull_request] not`,
		`assertion.sub.matches(r"^repo:acme/")`:                                                 `sub regex [^repo:acme/]`,
		`assertion.repository == 'a' || assertion.ref == 'b'`:                                   ` expression [assertion.repository == 'a' || assertion.ref == 'b']`,
		`assertion.repository == "acme/" + "shop"`:                                              ` expression [assertion.repository == "acme/" + "shop"]`,
		`true`:                             ``,
		`assertion.ref == 'a&&b||c'`:       `ref exact [a&&b||c]`,
		`size(assertion.repository) > 3`:   ` expression [size(assertion.repository) > 3]`,
		`assertion.ref != "refs/heads/x"`:  `ref exact [refs/heads/x] not`,
		strings.Repeat("!", 9000) + "true": ` expression [an expression of more than 8 KiB]`,
	} {
		var got []string
		for _, c := range celConditions(expr, 1, memberOf("assertion")) {
			s := c.Claim + " " + string(c.Match) + " [" + strings.Join(c.Values, " ") + "]"
			if c.Not {
				s += " not"
			}
			got = append(got, s)
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%.80s\n got %s\nwant %s", expr, strings.Join(got, "; "), want)
		}
	}
}

// What names a tenant, a project and a part of it, in subjects of every platform.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		issuer string
		c      Condition
		want   string
	}{
		"old subject":             {GitHubIssuer, Condition{Claim: "sub", Match: Exact, Values: []string{"repo:acme/shop:ref:refs/heads/main"}}, "tenant project part old"},
		"subject with ids":        {GitHubIssuer, Condition{Claim: "sub", Match: Exact, Values: []string{"repo:acme@1/shop@2:environment:prod"}}, "tenant project part ids"},
		"old subject, own server": {"https://ghes.acme.example/_services/token", Condition{Claim: "sub", Match: Exact, Values: []string{"repo:acme/shop:environment:prod"}}, "tenant project part"},
		"any":                     {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"*"}}, ""},
		"any repo":                {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:*"}}, ""},
		"open owner":              {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme*"}}, "open stranger"},
		"open repo":               {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme/shop*"}}, "tenant old open"},
		"owner":                   {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme/*"}}, "tenant old"},
		"owner by id":             {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme@1/*"}}, "tenant ids"},
		"the widest decides":      {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme/shop:environment:prod", "repo:acme/shop:*"}}, "tenant project old"},
		"pull requests":           {GitHubIssuer, Condition{Claim: "sub", Match: Exact, Values: []string{"repo:acme/shop:pull_request"}}, "tenant project old pr"},
		"every branch":            {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme/shop:ref:refs/heads/*"}}, "tenant project old"},
		"release branches":        {GitHubIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"repo:acme/shop:ref:refs/heads/release-*"}}, "tenant project part old"},
		"loose regex":             {GitHubIssuer, Condition{Claim: "repository", Match: Regex, Values: []string{"acme/shop"}}, "name open stranger"},
		"regex with an open end":  {GitHubIssuer, Condition{Claim: "sub", Match: Regex, Values: []string{"^repo:acme/shop:"}}, "tenant project old open"},
		"tight regex":             {GitHubIssuer, Condition{Claim: "sub", Match: Regex, Values: []string{"^repo:acme/shop:ref:refs/tags/v[0-9]+$"}}, "tenant project part old"},
		"repository id":           {GitHubIssuer, Condition{Claim: "repository_id", Match: Exact, Values: []string{"7"}}, "tenant project ids"},
		"gitlab project":          {GitLabIssuer, Condition{Claim: "sub", Match: Exact, Values: []string{"project_path:acme/shop:ref_type:branch:ref:main"}}, "tenant project part name"},
		"gitlab group":            {GitLabIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"project_path:acme/*:ref_type:branch:ref:main"}}, "tenant name"},
		"gitlab open group":       {GitLabIssuer, Condition{Claim: "project_path", Match: Glob, Values: []string{"acme*"}}, "name open stranger"},
		"buildkite":               {BuildkiteIssuer, Condition{Claim: "sub", Match: Glob, Values: []string{"organization:acme:pipeline:shop:*"}}, "tenant project name"},
		"circleci, own issuer":    {CircleCIIssuer + "/org/0a1b", Condition{Claim: "sub", Match: Glob, Values: []string{"org/0a1b/project/*"}}, "tenant ids"},
		"somebody's template":     {"https://jenkins.acme.example/oidc", Condition{Claim: "sub", Match: Exact, Values: []string{"https://jenkins.acme.example/job/shop/"}}, "tenant project part"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := Trust{Issuer: c.issuer, Conditions: []Condition{c.c}}
			b := tr.Bounds()
			var got []string
			for _, p := range []struct {
				name string
				is   bool
			}{{"tenant", b.Tenant}, {"project", b.Project}, {"part", b.Part}, {"ids", b.IDs}, {"name", b.ByName != nil}, {"old", b.OldSubject != nil}, {"open", b.Open != nil}, {"stranger", b.OpenTenant}, {"pr", b.PullRequests != nil}} {
				if p.is {
					got = append(got, p.name)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), c.want)
			}
		})
	}
}
