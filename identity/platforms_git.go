package identity

import "strings"

// Platforms that host the repository too: they know the commit, the reference
// and what triggered the job.

var github = platform{
	name: "github", title: "GitHub Actions",
	issuers: []issuerForm{
		{"https://token.actions.githubusercontent.com", shared},
		// An enterprise's slug can be changed and taken over, so it is as little a
		// tenant as an organisation's name is.
		{"https://token.actions.githubusercontent.com/SLUG", shared},
		{"https://token.actions.SLUG.ghe.com", named},
		{"https://HOST/_services/token", own},
	},
	pins:       []string{"repository_owner_id", "repository_id", "enterprise_id"},
	audience:   audienceRule{ask: "add &audience=AUDIENCE to ACTIONS_ID_TOKEN_REQUEST_URL, or call core.getIDToken(\"AUDIENCE\")"},
	job:        []string{"run_id"},
	replay:     ReplayJTI,
	maxAge:     10 * minute,
	maxLife:    hour, // documented: 5 minutes
	algorithms: rs256,
	events: eventRule{
		claim: "event_name", tellsPulls: true,
		allow: []string{"push", "schedule", "workflow_dispatch"},
		pull:  []string{"pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment"},
		outside: []string{"issue_comment", "issues", "workflow_run", "discussion", "discussion_comment", "fork", "watch",
			"gollum", "check_run", "check_suite", "status", "label", "milestone"},
		known: []string{"release", "repository_dispatch", "deployment", "deployment_status", "create", "delete", "merge_group",
			"page_build", "public", "registry_package", "branch_protection_rule", "workflow_call"},
	},
	fields: append(actionsFields[:len(actionsFields):len(actionsFields)],
		from("job_workflow_ref", "job_workflow", may),
		from("environment", "environment", may),
		from("check_run_id", "job_id", may),
		from("runner_environment", "platform_runner.environment", may),
	),
	agree: func(c *claims, id *Identity) {
		agreeActions(c, id)
		owner := c.str("repository_owner", text)
		name := strings.TrimPrefix(id.Repository, owner+"/")
		c.subject("repo:", ":",
			[]string{"repo:", id.Repository},
			[]string{"repo:", owner, "@", id.OwnerID, "/", name, "@", id.RepositoryID})
	},
}

// forgejo has GitHub's vocabulary, with identifiers of its own instance and
// without jti. Names may hold a dash, so its newer sub (owner-1/name-2) is
// ambiguous; nothing is read from it.
var forgejo = platform{
	name: "forgejo", title: "Forgejo Actions",
	issuers: []issuerForm{
		{"https://codeberg.org/api/actions", shared},
		{"https://HOST/api/actions", own},
	},
	pins:       []string{"repository_owner_id", "repository_id"},
	audience:   audienceRule{ask: "add &audience=AUDIENCE to ACTIONS_ID_TOKEN_REQUEST_URL"},
	job:        []string{"run_id"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    2 * hour, // documented: 1 hour
	algorithms: rs256,
	events: eventRule{
		claim: "event_name", tellsPulls: true,
		allow:   []string{"push", "schedule", "workflow_dispatch"},
		pull:    []string{"pull_request", "pull_request_target", "pull_request_review", "pull_request_review_comment", "pull_request_comment"},
		outside: []string{"issue_comment", "issues", "workflow_run", "fork", "watch", "gollum"},
		known:   []string{"release", "create", "delete", "repository_dispatch", "registry_package", "workflow_call"},
	},
	fields: actionsFields,
	agree: func(c *claims, id *Identity) {
		agreeActions(c, id)
		owner := c.str("repository_owner", text)
		name := strings.TrimPrefix(id.Repository, owner+"/")
		c.subject("repo:", ":",
			[]string{"repo:", id.Repository},
			[]string{"repo:", owner, "-", id.OwnerID, "/", name, "-", id.RepositoryID})
	},
}

// actionsFields are what GitHub and Forgejo sign alike.
var actionsFields = []field{
	from("repository", "repository", must),
	from("repository_id", "repository_id", must),
	from("repository_owner_id", "owner_id", must),
	from("ref", "ref", must),
	from("ref_type", "ref_type", may),
	from("ref_protected", "protected", may),
	from("sha", "commit", may),
	from("event_name", "event", must),
	from("workflow_ref", "workflow", may),
	from("workflow", "workflow", may),
	from("run_id", "run_id", must),
	from("run_attempt", "run_attempt", may),
	from("actor", "actor", may),
	from("actor_id", "actor_id", may),
}

// agreeActions: the owner's name begins the repository's, and only pull
// requests have a head and a base. A "push" with a head_ref is no push.
func agreeActions(c *claims, id *Identity) {
	owner := c.str("repository_owner", text)
	if owner != "" && !strings.HasPrefix(id.Repository, owner+"/") {
		c.disagree("repository", id.Repository, "repository_owner", owner)
	}
	if isTrue(id.PullRequest) || id.Event == "merge_group" {
		return
	}
	for _, name := range []string{"head_ref", "base_ref"} {
		if v := c.str(name, gitRef); v != "" {
			c.disagree("event_name", id.Event, name, v)
		}
	}
}

var gitlab = platform{
	name: "gitlab", title: "GitLab CI/CD",
	issuers: []issuerForm{
		{"https://gitlab.com", shared},
		{"https://HOST/PATH", own},
	},
	pins:     []string{"namespace_id", "project_id", "job_namespace_id", "job_project_id"},
	audience: audienceRule{ask: "set aud: AUDIENCE under id_tokens in .gitlab-ci.yml"},
	job:      []string{"job_id", "pipeline_id"},
	replay:   ReplayJTI,
	maxAge:   10 * minute,
	// exp follows the job's timeout, which may be set as high as a month.
	maxLife:    31 * day,
	algorithms: rs256,
	events: eventRule{
		claim: "pipeline_source", tellsPulls: true,
		allow: []string{"push", "schedule", "web"},
		pull:  []string{"merge_request_event", "external_pull_request_event"},
		// A child pipeline may belong to a merge request's, and a trigger token or
		// another project's pipeline chooses what runs here.
		outside: []string{"external", "chat", "parent_pipeline", "pipeline", "trigger"},
		known: []string{"api", "webide", "ondemand_dast_scan", "ondemand_dast_validation", "security_orchestration_policy",
			"container_registry_push", "duo_workflow"},
	},
	fields: []field{
		from("project_path", "repository", must),
		from("project_id", "repository_id", must),
		from("namespace_id", "owner_id", must),
		from("ref_path", "ref", may),
		from("ref_type", "ref_type", may),
		from("ref_protected", "protected", may),
		from("sha", "commit", may),
		from("pipeline_source", "event", must),
		from("ci_config_ref_uri", "workflow", may),
		from("/job_config/url", "job_workflow", may),
		from("environment", "environment", may),
		from("pipeline_id", "run_id", must),
		from("job_id", "job_id", must),
		from("user_login", "actor", may),
		from("user_id", "actor_id", may),
		from("runner_id", "platform_runner.id", may),
		from("runner_environment", "platform_runner.environment", may),
	},
	settle: func(c *claims, id *Identity) {
		short := c.str("ref", gitRef)
		switch id.RefType {
		case "branch":
			id.Branch = short
		case "tag":
			id.Tag = short
		}
	},
	// In a merge request's pipeline project_*, namespace_* and ref* describe the
	// source, which may be anybody's fork that calls its branch main; job_* say
	// where the job runs. Instances before 18.4 have no job_*: there a merge
	// request's origin can't be known, so it is refused also where the
	// configuration allows the event.
	agree: func(c *claims, id *Identity) {
		for _, what := range []string{"project_id", "project_path", "namespace_id", "namespace_path"} {
			c.equal(what, "job_"+what)
		}
		if isTrue(id.PullRequest) && !has(c.doc.Get("job_project_id")) {
			c.refuse(CodeClaimMissing, "the token of this merge request has no job_project_id, so it can't be told from a fork's; GitLab 18.4 and later send it")
		}
		c.subject("project_path:", ":", []string{"project_path:", id.Repository})
	},
}
