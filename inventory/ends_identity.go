package inventory

import (
	"regexp"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

// identify says of each federated path what the job's token will say. The
// facts are the platforms' documentation of their tokens (2026); a platform
// whose subject is made of ids that no file holds has * in their place.
func (s *subject) identify(repo repository) {
	for _, p := range s.paths {
		p.Repository = repo.slug
	}
	federated := s.pathsWhere(func(p *Path) bool { return p.Credential.Kind == Federated && p.Job != compositeJob })
	for _, p := range federated {
		id := &JobIdentity{Identity: trust.Identity{Claims: make(map[string][]string)}}
		switch s.file.CI {
		case GitHub, Forgejo:
			s.githubIdentity(id, p, repo)
		case GitLab:
			s.gitlabIdentity(id, p, repo)
		case CircleCI:
			id.Issuer, id.Chosen = "https://oidc.circleci.com/*", true
			id.Claims["sub"] = []string{"org/*/project/*/user/*"}
			if repo.slug != "" {
				id.Claims["oidc.circleci.com/vcs-origin"] = []string{repo.host + "/" + repo.slug}
			}
		case Buildkite:
			id.Issuer, id.Chosen = trust.BuildkiteIssuer, true
			id.Claims["sub"] = []string{"organization:*:pipeline:*:ref:*:commit:*:step:*"}
		case Bitbucket:
			id.Issuer, id.Chosen = "https://api.bitbucket.org/2.0/workspaces/*", true
			id.Claims["sub"] = []string{"{*}:*"}
		case Azure:
			id.Issuer, id.Audiences = "https://vstoken.dev.azure.com/*", []string{"api://AzureADTokenExchange"}
			id.Claims["sub"] = []string{"p://*", "sc://*"}
		default:
			continue // a projected volume, a plugin: whose token it is can't be told
		}
		id.Targets = s.targets(p)
		p.Identity = id
	}
}

// githubIdentity fills in what GitHub and Forgejo sign. Subjects stand in both
// forms: by names, and with the ids that repositories have since 2026-07-15.
func (s *subject) githubIdentity(id *JobIdentity, p *Path, repo repository) {
	id.Chosen = true
	switch {
	case s.file.CI == Forgejo && repo.host != "":
		id.Issuer = "https://" + repo.host + "/api/actions"
	case s.file.CI == Forgejo:
	case repo.host == "" || repo.host == "github.com":
		id.Issuer = trust.GitHubIssuer
	case strings.HasSuffix(repo.host, ".ghe.com"):
		id.Issuer = "https://token.actions." + repo.host
	default:
		id.Issuer = "https://" + repo.host + "/_services/token"
	}
	slug := firstOf(repo.slug, "*/*")
	owner, name, _ := strings.Cut(slug, "/")
	f := s.workflow()
	var rests, refs []string
	for _, e := range p.Reach.Events {
		r, ref := s.subjectOf(e, f.events[e])
		rests, refs = append(rests, r...), append(refs, ref...)
	}
	if env := p.Reach.Environment; env != "" {
		if strings.Contains(env, "${{") {
			env = "*"
		}
		id.Claims["environment"] = []string{env}
		rests = []string{"environment:" + strings.ReplaceAll(env, ":", "%3A")}
	} else {
		id.Absent = append(id.Absent, "environment")
	}
	if len(rests) == 0 {
		rests, refs = []string{"*"}, []string{"*"}
	}
	slices.Sort(rests)
	for _, rest := range slices.Compact(rests) {
		id.Claims["sub"] = append(id.Claims["sub"], "repo:"+slug+":"+rest, "repo:"+owner+"@*/"+name+"@*:"+rest)
	}
	slices.Sort(refs)
	id.Claims["ref"] = slices.Compact(refs)
	id.Claims["repository"], id.Claims["repository_owner"] = []string{slug}, []string{owner}
	inner := strings.TrimPrefix(strings.TrimPrefix(s.file.File, repoOf(s.file.File)), "/")
	id.Claims["job_workflow_ref"] = []string{slug + "/" + inner + "@*"}
	if _, called := f.events["workflow_call"]; !called {
		id.Claims["workflow_ref"] = id.Claims["job_workflow_ref"]
	}
	if !slices.Contains(p.Reach.Events, "workflow_call") && len(p.Reach.Events) > 0 {
		id.Claims["event_name"] = slices.Sorted(slices.Values(p.Reach.Events))
	}
	switch p.Runner.Kind {
	case RunnerHosted:
		id.Claims["runner_environment"] = []string{"github-hosted"}
	case RunnerSelfHosted:
		id.Claims["runner_environment"] = []string{"self-hosted"}
	}
	if aud := s.githubAudience(p, slug, owner); aud != "" {
		id.Audiences = []string{aud}
	}
}

// subjectOf gives the ends of the subject, and the refs, that an event can bring.
func (s *subject) subjectOf(event string, settings *node) (rests, refs []string) {
	ref := func(list ...string) {
		for _, r := range list {
			refs = append(refs, r)
			rests = append(rests, "ref:"+r)
		}
	}
	switch event {
	case "push":
		branches, tags := refPatterns(s.strs(s.get(settings, "branches"))), refPatterns(s.strs(s.get(settings, "tags")))
		for _, b := range branches {
			ref("refs/heads/" + b)
		}
		for _, t := range tags {
			ref("refs/tags/" + t)
		}
		if len(branches) == 0 && (len(tags) == 0 || s.get(settings, "branches-ignore") != nil) {
			ref("refs/heads/*")
		}
		if len(tags) == 0 && (len(branches) == 0 || s.get(settings, "tags-ignore") != nil) {
			ref("refs/tags/*")
		}
	case "pull_request":
		return []string{"pull_request"}, []string{"refs/pull/*/merge", "refs/heads/*"}
	case "pull_request_target", "pull_request_review", "pull_request_review_comment":
		ref("refs/heads/*")
		rests = append(rests, "pull_request")
	case "release", "create", "registry_package", "workflow_dispatch":
		ref("refs/heads/*", "refs/tags/*")
	case "merge_group":
		ref("refs/heads/gh-readonly-queue/*")
	case "workflow_call":
		return []string{"*"}, []string{"*"}
	default: // schedule, workflow_run, issue_comment, ...: the default branch, whichever that is
		ref("refs/heads/*")
	}
	return rests, refs
}

var filterSigns = regexp.MustCompile(`\*\*?|\[[^\]]*\]\+?|\?|\+`)

// refPatterns turns the branch filters of a workflow into patterns; an exclusion takes nothing away here.
func refPatterns(filters []string) []string {
	var out []string
	for _, f := range filters {
		if !strings.HasPrefix(f, "!") {
			out = append(out, filterSigns.ReplaceAllString(f, "*"))
		}
	}
	return out
}

// githubAudience gives the audience that a known action asks for; "" when it isn't known.
func (s *subject) githubAudience(p *Path, slug, owner string) string {
	st := s.stepOf(p)
	if st == nil {
		return ""
	}
	switch st.action() {
	case "aws-actions/configure-aws-credentials":
		return plain(firstOf(st.input("audience"), "sts.amazonaws.com"))
	case "google-github-actions/auth":
		if a := st.input("audience"); a != "" {
			return plain(a)
		}
		if p := plain(st.input("workload_identity_provider")); p != "" {
			return "https://iam.googleapis.com/" + p
		}
	case "azure/login":
		return plain(firstOf(st.input("audience"), "api://AzureADTokenExchange"))
	case "hashicorp/vault-action":
		if a := st.input("jwtGithubAudience"); a != "" {
			return plain(a)
		}
		if slug != "*/*" {
			return "https://github.com/" + owner
		}
	case "octo-sts/action":
		return plain(firstOf(st.input("audience"), "octo-sts.dev"))
	}
	return ""
}

// plain gives a value without placeholders, "" when it has one.
func plain(v string) string {
	if strings.Contains(v, "${{") || strings.Contains(v, "$") {
		return ""
	}
	return strings.TrimSpace(v)
}

// stepOf gives the step of a path in a workflow, one without a name by its line; nil when the path is the whole job's.
func (s *subject) stepOf(p *Path) *flowStep {
	if p.Step == "" && p.ExposedVia == "permissions: id-token" {
		return nil
	}
	var found *flowStep
	for _, job := range s.workflow().jobs {
		for _, st := range job.steps {
			if job.id == p.Job && st.label == p.Step && st.line <= p.Line {
				found = st
			}
		}
	}
	return found
}

// gitlabIdentity fills in what GitLab signs.
func (s *subject) gitlabIdentity(id *JobIdentity, p *Path, repo repository) {
	if repo.host != "" && repo.host != "github.com" && repo.host != "bitbucket.org" { // a mirror's origin is no GitLab
		id.Issuer = "https://" + repo.host
	}
	slug := firstOf(repo.slug, "*")
	id.Claims["project_path"] = []string{slug}
	if i := strings.LastIndexByte(repo.slug, '/'); i > 0 {
		id.Claims["namespace_path"] = []string{repo.slug[:i]}
	}
	id.Claims["sub"] = []string{"project_path:" + slug + ":ref_type:branch:ref:*", "project_path:" + slug + ":ref_type:tag:ref:*"}
	if env := p.Reach.Environment; env != "" && !strings.Contains(env, "$") {
		id.Claims["environment"] = []string{env}
	} else if env == "" {
		id.Absent = append(id.Absent, "environment")
	}
	_, name, _ := strings.Cut(strings.TrimPrefix(p.Credential.Name, "oidc:"), ":")
	for _, root := range s.documents() {
		for _, at := range []*node{s.at(root, p.Job, "id_tokens", name, "aud"), s.at(root, "default", "id_tokens", name, "aud")} {
			if list := s.strs(at); len(list) > 0 && len(id.Audiences) == 0 && !strings.Contains(strings.Join(list, ""), "$") {
				id.Audiences = list
			}
		}
	}
	id.Chosen = len(id.Audiences) == 0
}

var (
	roleARN      = regexp.MustCompile(`arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]+`)
	poolProvider = regexp.MustCompile(`workloadIdentityPools/[A-Za-z0-9-]+/providers/[A-Za-z0-9-]+`)
	accountEmail = regexp.MustCompile(`[a-z0-9-]+@[a-z0-9.-]+\.iam\.gserviceaccount\.com`)
	vaultLogin   = regexp.MustCompile(`auth/([A-Za-z0-9_/-]+)/login\b[^\n]*\brole=["']?([A-Za-z0-9_.-]+)`)
	grantOption  = regexp.MustCompile(`\bproviso (?:exec|token)\b[^\n]*--grant[= ]["']?([A-Za-z0-9_.-]+)`)
)

// targets gives the names that the step, or the job, of a path gives its targets.
func (s *subject) targets(p *Path) []string {
	var out []string
	collect := func(text string) {
		out = append(out, roleARN.FindAllString(text, 20)...)
		out = append(out, poolProvider.FindAllString(text, 20)...)
		out = append(out, accountEmail.FindAllString(text, 20)...)
		for _, m := range vaultLogin.FindAllStringSubmatch(text, 20) {
			out = append(out, "vault:"+m[1]+"/"+m[2])
		}
		for _, m := range grantOption.FindAllStringSubmatch(text, 20) {
			out = append(out, "grant:"+m[1])
		}
	}
	if p.Resource.Name != unknown {
		collect(p.Resource.Name)
	}
	if p.Resource.Kind == "broker/proviso" && p.Resource.Name != unknown {
		out = append(out, "grant:"+p.Resource.Name)
	}
	if s.file.CI == GitHub || s.file.CI == Forgejo {
		if st := s.stepOf(p); st != nil {
			for _, v := range st.with {
				collect(v.text)
			}
			collect(s.str(st.run))
			switch st.action() {
			case "hashicorp/vault-action":
				if role := plain(st.input("role")); role != "" {
					out = append(out, "vault:"+firstOf(plain(st.input("path")), "jwt")+"/"+role)
				}
			case "octo-sts/action":
				if scope, who := plain(st.input("scope")), plain(st.input("identity")); scope != "" && who != "" {
					out = append(out, "octo-sts:"+scope+"/"+who)
				}
			}
		}
	} else {
		for _, root := range s.documents() {
			s.scalars(s.at(root, p.Job), func(_ string, n *node) { collect(n.Value) })
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// names reports whether a job gives a trust's target as the one that it wants.
func names(p *Path, t *trust.Trust) bool {
	if !sameFamily(p, t) && p.Resource.Kind != "oidc/issuer" {
		return false
	}
	for _, target := range p.Identity.Targets {
		switch t.Kind {
		case trust.AWSRole:
			if target == t.Target.Name || strings.HasPrefix(target, "arn:") && !strings.HasPrefix(t.Target.Name, "arn:") && lastOf(target) == lastOf(t.Target.Name) {
				return true
			}
		case trust.GCPProvider:
			if target == t.Target.Name {
				return true
			}
		case trust.GCPBinding:
			account, _, ok := strings.Cut(target, "@")
			if ok && (target == t.Target.Name || account == t.Target.Name) {
				return true
			}
		case trust.VaultRole:
			if name, ok := strings.CutPrefix(target, "vault:"); ok && (name == t.Target.Name || !strings.Contains(t.Target.Name, "/") && lastOf(name) == t.Target.Name) {
				return true
			}
		case trust.OctoSTS:
			if target == "octo-sts:"+t.Target.Name {
				return true
			}
		case trust.ProvisoGrant:
			if target == "grant:"+t.Target.Name {
				return true
			}
		case trust.AzureCredential, trust.Kubernetes, trust.KubernetesRole: // a job names them by ids, or not at all
		}
	}
	return false
}

// lastOf gives what stands behind the last slash.
func lastOf(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }
