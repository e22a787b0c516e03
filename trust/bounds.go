package trust

import (
	"regexp"
	"strings"
)

// The issuers that many customers of a platform share, or that tell by their
// URL which platform they belong to (vendors' documentation, 2026).
const (
	GitHubIssuer    = "https://token.actions.githubusercontent.com"
	GitLabIssuer    = "https://gitlab.com"
	BuildkiteIssuer = "https://agent.buildkite.com"
	CircleCIIssuer  = "https://oidc.circleci.com"
)

// Platform tells which CI platform signs the tokens of an issuer: "github",
// "gitlab", "circleci", "buildkite", "bitbucket", "azure-devops", "forgejo",
// "jenkins"; "" for anybody else.
func (t *Trust) Platform() string {
	iss := strings.ToLower(t.Issuer)
	switch {
	case strings.HasPrefix(iss, GitHubIssuer), strings.Contains(iss, "token.actions.") && strings.Contains(iss, ".ghe.com"), strings.HasSuffix(iss, "/_services/token"):
		return "github"
	case strings.HasPrefix(iss, GitLabIssuer), strings.Contains(iss, "://gitlab."):
		return "gitlab"
	case strings.HasPrefix(iss, CircleCIIssuer):
		return "circleci"
	case strings.HasPrefix(iss, BuildkiteIssuer):
		return "buildkite"
	case strings.HasPrefix(iss, "https://api.bitbucket.org/"):
		return "bitbucket"
	case strings.HasPrefix(iss, "https://vstoken.dev.azure.com/"):
		return "azure-devops"
	case strings.HasSuffix(iss, "/api/actions"):
		return "forgejo"
	}
	for _, c := range t.Conditions {
		for _, v := range c.Values {
			switch {
			case c.Claim == "sub" && strings.HasPrefix(v, "project_path:"), c.Claim == "project_path", c.Claim == "namespace_path", c.Claim == "project_id":
				return "gitlab"
			case c.Claim == "sub" && strings.HasPrefix(v, "organization:"), c.Claim == "pipeline_slug":
				return "buildkite"
			case t.Issuer == "" && (c.Claim == "sub" && strings.HasPrefix(v, "repo:") || c.Claim == "repository_owner_id"):
				return "github"
			}
		}
	}
	return ""
}

// SharedIssuer reports whether strangers get tokens of the same issuer.
func (t *Trust) SharedIssuer() bool {
	iss := strings.TrimSuffix(strings.ToLower(t.Issuer), "/")
	return iss == GitHubIssuer || iss == GitLabIssuer || iss == BuildkiteIssuer || iss == CircleCIIssuer || iss == "" && t.Platform() == "github"
}

// Bounds says how narrowly a trust names who may come.
type Bounds struct {
	// Tenant is set when owner, group or organization is one; Project when the
	// repository or the pipeline is; Part when a ref, an environment or a workflow is.
	Tenant, Project, Part bool
	// IDs is set when tenant or project are named by something that nobody else can get.
	IDs bool
	// OldSubject is the condition on a subject of GitHub that names owner and repository without their ids.
	OldSubject *Condition
	// ByName is the condition that names tenant or project by a name.
	ByName *Condition
	// Open is a condition whose pattern ends within a name: acme* takes acme-evil.
	Open *Condition
	// OpenTenant says that strangers can choose a name that Open takes.
	OpenTenant bool
	// PullRequests is the condition that takes pull requests by name.
	PullRequests *Condition
	// Opaque is set when a part of the conditions can't be read: nothing can be said of what is missing.
	Opaque bool
}

// claimBounds says what a claim by itself names, on the platforms that have it.
var claimBounds = map[string]struct{ tenant, project, part, id bool }{
	"repository_owner_id": {tenant: true, id: true}, "repository_id": {tenant: true, project: true, id: true},
	"repository_owner": {tenant: true}, "repository": {tenant: true, project: true},
	"enterprise_id": {tenant: true, id: true}, "enterprise": {tenant: true},
	"job_workflow_ref": {tenant: true, part: true}, "workflow_ref": {tenant: true, project: true, part: true}, "job_workflow_sha": {part: true},
	"environment": {part: true}, "ref": {part: true}, "ref_protected": {part: true}, "workflow": {part: true}, "environment_protected": {part: true},
	"base_ref": {}, "head_ref": {}, "ref_path": {part: true}, "deployment_tier": {part: true}, "ci_config_ref_uri": {tenant: true, project: true, part: true},
	"namespace_id": {tenant: true, id: true}, "project_id": {tenant: true, project: true, id: true},
	"namespace_path": {tenant: true}, "project_path": {tenant: true, project: true},
	"organization_id": {tenant: true, id: true}, "pipeline_id": {tenant: true, project: true, id: true},
	"organization_slug": {tenant: true}, "pipeline_slug": {project: true}, "build_branch": {part: true}, "build_tag": {part: true}, "step_key": {part: true},
	"oidc.circleci.com/project-id": {tenant: true, project: true, id: true}, "oidc.circleci.com/org-id": {tenant: true, id: true},
	"oidc.circleci.com/context-ids": {part: true}, "oidc.circleci.com/vcs-ref": {part: true}, "oidc.circleci.com/vcs-origin": {project: true},
	"workspaceUuid": {tenant: true, id: true}, "repositoryUuid": {tenant: true, project: true, id: true}, "deploymentEnvironmentUuid": {part: true},
	"org_id": {tenant: true, id: true}, "prj_id": {tenant: true, id: true}, "def_id": {tenant: true, project: true, id: true}, "rpo_ref": {part: true},
}

// Bounds reads the conditions of a trust. An issuer that belongs to one tenant names the tenant.
func (t *Trust) Bounds() Bounds {
	var b Bounds
	switch t.Platform() {
	case "circleci", "bitbucket", "azure-devops":
		if !t.SharedIssuer() {
			b.Tenant, b.IDs = true, true
		}
	case "github":
		b.Tenant = t.Issuer != "" && !t.SharedIssuer()
	case "gitlab", "forgejo":
		b.Tenant = t.Issuer != "" && !t.SharedIssuer()
	}
	for i := range t.Conditions {
		c := &t.Conditions[i]
		if c.Not || c.AbsentPasses {
			continue
		}
		if c.Match == Expression || c.Claim == "" {
			b.Opaque = true
			continue
		}
		if c.Claim == "sub" {
			b.subject(t, c)
			continue
		}
		b.claim(c)
	}
	for i := range t.Conditions { // a name beside an id is only for the reader
		c := &t.Conditions[i]
		if known := claimBounds[c.Claim]; known.id && !c.Not && !c.AbsentPasses && b.Tenant {
			b.ByName, b.OldSubject = nil, nil
		}
	}
	return b
}

// claim reads a condition on a claim other than sub.
func (b *Bounds) claim(c *Condition) {
	known, ok := claimBounds[c.Claim]
	if !ok {
		return
	}
	for _, v := range c.Values {
		if hole(v) {
			continue // named elsewhere; it is something all the same
		}
		if c.Match == Regex {
			if start, end := tiedEnds(v); !start || !end {
				b.open(c, (known.tenant || known.project) && !start)
			}
			v = globOf(v)
		}
		if c.Match != Exact && strings.Trim(v, "*?") == "" {
			return // takes anything
		}
		if c.Match != Exact && (known.tenant || known.project) {
			head, _, _ := strings.Cut(v, "*")
			slash := strings.Contains(head, "/")
			if !strings.HasSuffix(head, "/") && head != v && !strings.HasSuffix(head, "@") {
				b.open(c, !slash)
			}
			if head != v && known.project && !known.part {
				b.Tenant = b.Tenant || slash
				b.name(c, known.id)
				return
			}
		}
	}
	b.Tenant = b.Tenant || known.tenant
	b.Project = b.Project || known.project
	b.Part = b.Part || known.part
	if known.tenant || known.project {
		b.name(c, known.id)
	}
}

// name remembers what names tenant or project.
func (b *Bounds) name(c *Condition, id bool) {
	if id {
		b.IDs = true
	} else if b.ByName == nil {
		b.ByName = c
	}
}

func (b *Bounds) open(c *Condition, tenant bool) {
	if b.Open == nil {
		b.Open, b.OpenTenant = c, tenant
	}
}

var (
	githubSubject    = regexp.MustCompile(`^repo:([^/:]*)(?:/([^:]*))?(?::(.*))?$`)
	gitlabSubject    = regexp.MustCompile(`^project_path:([^:]*)(?::(.*))?$`)
	buildkiteSubject = regexp.MustCompile(`^organization:([^:]*)(?::pipeline:([^:]*))?(?::(.*))?$`)
	circleSubject    = regexp.MustCompile(`^org/([^/]*)(?:/project/([^/]*))?(?:/(.*))?$`)
)

// subject reads a condition on sub. All alternatives count: the widest decides.
func (b *Bounds) subject(t *Trust, c *Condition) {
	tenant, project, part := true, true, true
	for _, v := range c.Values {
		if c.Match == Regex {
			if start, end := tiedEnds(v); !start || !end {
				b.open(c, !start)
			}
			v = globOf(v)
		}
		te, pr, pa := b.oneSubject(t, c, v)
		tenant, project, part = tenant && te, project && pr, part && pa
	}
	if len(c.Values) == 0 {
		return
	}
	b.Tenant, b.Project, b.Part = b.Tenant || tenant, b.Project || project, b.Part || part
}

// oneSubject reads one subject: does it name a tenant, a project, a part of it?
func (b *Bounds) oneSubject(t *Trust, c *Condition, v string) (tenant, project, part bool) {
	if hole(v) {
		b.Opaque = true
		v = starHoles.ReplaceAllString(v, "x") // what is named elsewhere is named
	}
	exact := c.Match == Exact
	whole := func(s string) bool { return s != "" && (exact || !strings.ContainsAny(s, "*?")) }
	if m := githubSubject.FindStringSubmatch(v); m != nil {
		owner, repo, rest := m[1], m[2], m[3]
		tenant = whole(owner) && strings.Contains(v, "/")
		project = tenant && whole(repo) && strings.Count(v, ":") > 1
		part = project && rest != "" && rest != "pull_request" && (exact || strings.Trim(rest, "*?") != "" && rest != "ref:*" && rest != "environment:*" && rest != "ref:refs/heads/*" && rest != "ref:refs/*")
		if !exact && !tenant && strings.Trim(owner, "*?") != "" && !b.ids(owner) {
			b.open(c, true)
		} else if !exact && tenant && !project && strings.Trim(repo, "*?") != "" && !b.ids(repo) {
			b.open(c, false)
		}
		if rest == "pull_request" && b.PullRequests == nil {
			b.PullRequests = c
		}
		if tenant && b.OldSubject == nil && t.githubDotCom() && !strings.Contains(owner, "@") {
			b.OldSubject = c
		}
		b.IDs = b.IDs || strings.Contains(owner, "@")
		return tenant, project, part
	}
	if m := gitlabSubject.FindStringSubmatch(v); m != nil {
		path, rest := m[1], m[2]
		head, _, _ := strings.Cut(path, "*")
		project = whole(path) && strings.Contains(path, "/")
		tenant = project || strings.Contains(head, "/")
		part = project && strings.Contains(rest, "ref:") && !strings.HasSuffix(rest, ":ref:*")
		if !project && head != path && head != "" && !strings.HasSuffix(head, "/") {
			b.open(c, !strings.Contains(head, "/"))
		}
		if tenant {
			b.name(c, false)
		}
		return tenant, project, part
	}
	if m := buildkiteSubject.FindStringSubmatch(v); m != nil {
		tenant, project = whole(m[1]), whole(m[2])
		part = project && strings.Contains(m[3], "ref:") && !strings.HasPrefix(m[3], "ref:*")
		if tenant {
			b.name(c, false)
		}
		return tenant, project, part
	}
	if m := circleSubject.FindStringSubmatch(v); m != nil {
		tenant, project = whole(m[1]), whole(m[2])
		b.IDs = b.IDs || tenant
		return tenant, project, project && strings.Contains(m[3], "vcs-ref/")
	}
	if exact && v != "" {
		return true, true, true // somebody's own template: one subject is one subject
	}
	named := strings.Trim(v, "*?") != ""
	return named, named && !strings.HasSuffix(v, "*"), named && !strings.HasSuffix(v, "*")
}

// ids reports whether a part of a subject is ended by an id: acme@61200123/*, not acme*.
func (b *Bounds) ids(s string) bool { return strings.Contains(s, "@") }

var starHoles = regexp.MustCompile(`\$\{[^}]*\}`)

// githubDotCom reports whether the issuer gives subjects with ids since 2026-07-15; Enterprise Server does not.
func (t *Trust) githubDotCom() bool {
	return t.Issuer == "" || strings.HasPrefix(strings.ToLower(t.Issuer), GitHubIssuer) || strings.HasSuffix(strings.ToLower(t.Issuer), ".ghe.com")
}

// tiedEnds reports whether a pattern is tied to the start and to the end of a value.
func tiedEnds(p string) (start, end bool) {
	return strings.HasPrefix(p, "^") || strings.HasPrefix(p, `\A`), strings.HasSuffix(p, "$") && !strings.HasSuffix(p, `\$`) || strings.HasSuffix(p, `\z`)
}

var regexWild = regexp.MustCompile(`\.[*+]\??|\[[^\]]*\][*+]?|\\[wd][*+]?|\([^)]*\)[*+?]?`)

// globOf gives the pattern with * that says about what a regular expression does: enough to see what it names.
func globOf(re string) string {
	start, end := tiedEnds(re)
	s := strings.TrimPrefix(strings.TrimPrefix(re, "^"), `\A`)
	s = strings.TrimSuffix(strings.TrimSuffix(s, "$"), `\z`)
	if in, ok := strings.CutPrefix(s, "(?:"); ok && strings.HasSuffix(in, ")") && !strings.Contains(in, "(") {
		s = in[:len(in)-1]
	}
	if !start {
		s = "*" + s
	}
	if !end {
		s += "*"
	}
	s = regexWild.ReplaceAllString(s, "*")
	return strings.NewReplacer(`\.`, ".", `\/`, "/", `\-`, "-", `\@`, "@").Replace(s)
}
