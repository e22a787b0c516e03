package identity

import "strings"

// Services that build what lies elsewhere. Most know little of what triggered
// a job, and say so by silence.

var buildkite = platform{
	name: "buildkite", title: "Buildkite",
	issuers:    []issuerForm{{"https://agent.buildkite.com", shared}},
	pins:       []string{"organization_id", "pipeline_id", "cluster_id"},
	audience:   audienceRule{ask: "buildkite-agent oidc request-token --audience AUDIENCE --claim organization_id,pipeline_id"},
	askClaims:  "ask for it with --claim organization_id,pipeline_id",
	job:        []string{"job_id"},
	replay:     ReplayToken,
	maxAge:     10 * minute, // the job itself chooses the token's lifetime, so only the age counts
	maxLife:    day,
	algorithms: rs256,
	events: eventRule{
		claim: "build_source",
		allow: []string{"webhook", "schedule", "ui"},
		pull:  []string{"pull_request"}, // not Buildkite's word: see settle
		// Whoever has an API token, or another pipeline, chooses branch and commit.
		outside: []string{"api", "trigger_job"},
	},
	fields: []field{
		from("organization_id", "owner_id", may),
		from("pipeline_slug", "workflow", must),
		from("pipeline_id", "workflow_id", may),
		from("build_source", "event", must),
		from("build_id", "run_id", may),
		from("build_number", "run_id", must),
		from("job_id", "job_id", must),
		from("agent_id", "platform_runner.id", may),
		from("runner_environment", "platform_runner.environment", may),
		from("cluster_id", "platform_runner.cluster", may),
		from("queue_id", "platform_runner.queue", may),
	},
	settle: func(c *claims, id *Identity) {
		// A commit that isn't known yet is called HEAD until an agent resolved it.
		if s, _ := c.doc.Get("build_commit").Text(); s != "HEAD" {
			id.Commit = c.str("build_commit", commit)
		}
		// With "Prefix third-party fork branch names" a fork's main is
		// somebody:main. A colon can't be in a branch's name.
		if s, _ := c.doc.Get("build_branch").Text(); strings.Contains(s, ":") {
			id.Event = "pull_request"
			return
		}
		if id.Tag = c.str("build_tag", gitRef); id.Tag == "" {
			id.Branch = c.str("build_branch", gitRef)
		}
	},
	agree: func(c *claims, id *Identity) {
		c.subject("organization:", ":", []string{"organization:", c.str("organization_slug", text), ":pipeline:", id.Workflow})
	},
}

const circle = "oidc.circleci.com/"

var circleci = platform{
	name: "circleci", title: "CircleCI",
	issuers: []issuerForm{
		{"https://oidc.circleci.com/org/UUID", own},
		{"https://oidc.circleci.com", shared},
	},
	pins: []string{circle + "org-id", circle + "project-id"},
	// A build of a fork's pull request carries the project-id of the repository
	// that it is for; only the origin tells the fork.
	demands:  []demand{{circle + "vcs-origin", "builds of forked pull requests get tokens with your project-id, and only vcs-origin tells them apart; write the repository, or OWNER/* for all of an owner's, as github.com/acme/*"}},
	audience: audienceRule{ask: `circleci run oidc get --claims '{"aud":"AUDIENCE"}'; the tokens in CIRCLE_OIDC_TOKEN have your organisation's audience, which others accept too`},
	// Audit log streaming gets tokens from the same issuer with the same audience.
	job:        []string{circle + "job-id"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    2 * hour, // documented: 1 hour
	algorithms: rs256,
	events: eventRule{
		silent:  true,
		pull:    []string{"pull_request"},
		outside: []string{"ssh_rerun"},
	},
	fields: []field{
		from(circle+"vcs-origin", "repository", may),
		from(circle+"project-id", "repository_id", must),
		from(circle+"org-id", "owner_id", must),
		from(circle+"vcs-ref", "ref", may),
		from(circle+"pipeline-definition-id", "workflow_id", may),
		from(circle+"pipeline-id", "run_id", may),
		from(circle+"job-id", "job_id", must),
	},
	settle: func(c *claims, id *Identity) {
		if isTrue(c.flag(topLevel(circle + "ssh-rerun"))) {
			id.Event = "ssh_rerun" // a person has a shell in this job
		}
	},
	agree: func(c *claims, id *Identity) {
		c.issuerEnds("/org/", circle+"org-id", id.OwnerID)
		c.subject("org/", "/", []string{"org/", id.OwnerID, "/project/", id.RepositoryID})
	},
}

var bitbucket = platform{
	name: "bitbucket", title: "Bitbucket Pipelines",
	// The URL holds the workspace's slug, which can be given up and taken over.
	issuers:    []issuerForm{{"https://api.bitbucket.org/2.0/workspaces/SLUG/pipelines-config/identity/oidc", shared}},
	pins:       []string{"workspaceUuid", "repositoryUuid"},
	audience:   audienceRule{ask: "list AUDIENCE, and nothing else, under oidc: audiences: in bitbucket-pipelines.yml"},
	job:        []string{"pipelineUuid", "stepUuid"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    day,
	algorithms: rs256,
	fields: []field{
		from("repositoryUuid", "repository_id", must),
		from("workspaceUuid", "owner_id", must),
		from("branchName", "branch", may),
		from("deploymentEnvironmentUuid", "environment", may),
		from("deploymentEnvironment", "environment", may),
		from("pipelineUuid", "run_id", must),
		from("stepUuid", "job_id", must),
	},
	agree: func(c *claims, id *Identity) {
		c.subject("{", ":",
			[]string{id.RepositoryID, ":", id.JobID},
			[]string{id.RepositoryID, ":", id.Environment, ":", id.JobID})
	},
}

var azureDevOps = platform{
	name: "azure-devops", title: "Azure DevOps Pipelines",
	// Tokens that Entra issues for a service connection are Entra's; ask for one
	// without a service connection.
	issuers: []issuerForm{{"https://vstoken.dev.azure.com/UUID", own}},
	pins:    []string{"org_id", "prj_id"},
	audience: audienceRule{
		fixed: func(string) string { return "api://AzureADTokenExchange" },
		ask:   "POST to SYSTEM_OIDCREQUESTURI without a serviceConnectionId",
	},
	job:        []string{"run_id", "def_id"},
	replay:     ReplayJTI,
	maxAge:     10 * minute,
	maxLife:    hour, // documented: 10 minutes
	algorithms: rs256,
	events: eventRule{
		silent: true, tellsPulls: true,
		pull: []string{"pull_request"},
		// Such a token opens the service connection's cloud account.
		outside: []string{"service_connection"},
	},
	fields: []field{
		from("rpo_uri", "repository", may),
		from("org_id", "owner_id", must),
		from("rpo_ref", "ref", may),
		from("rpo_ver", "commit", may),
		from("def_id", "workflow_id", must),
		from("run_id", "run_id", must),
	},
	settle: func(c *claims, id *Identity) {
		// A repository elsewhere has its name for an identifier; only Azure Repos
		// give an immutable one.
		if s := c.str("rpo_id", ident); isUUID(s) {
			id.RepositoryID = s
		}
		if strings.HasPrefix(c.str("sub", text), "sc://") {
			id.Event = "service_connection"
		}
	},
	agree: func(c *claims, id *Identity) { c.issuerEnds("/", "org_id", id.OwnerID) },
}

var jenkins = platform{
	name: "jenkins", title: "Jenkins (OpenID Connect Provider plugin)",
	issuers:  []issuerForm{{"https://HOST/PATH", own}},
	audience: audienceRule{ask: "set the audience of the id token credential to AUDIENCE"},
	// The same credential used outside of a build gives a token too.
	job:        []string{"build_number"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    day,
	algorithms: rs256,
	kidIsNoKey: true, // it is the credential's, which keeps it when it gets a new key
	events:     eventRule{pull: commonPulls},
	open:       true, // claim templates
	fields: []field{
		from("build_number", "run_id", must),
	},
}

var codefresh = platform{
	name: "codefresh", title: "Codefresh",
	issuers: []issuerForm{{"https://oidc.codefresh.io", shared}},
	pins:    []string{"account_id", "pipeline_id"},
	audience: audienceRule{
		fixed: func(string) string { return "https://g.codefresh.io" },
		ask:   "get it from the obtain-oidc-id-token step, for the audience AUDIENCE",
	},
	job:        []string{"workflow_id"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    hour, // documented: 5 minutes
	algorithms: rs256,
	events: eventRule{
		// Not claims of the token: Codefresh documents which claims each kind of
		// trigger brings, and settle names the kind.
		tellsPulls: true,
		allow:      []string{"push", "cron", "manual"},
		pull:       []string{"pull_request"},
	},
	fields: []field{
		from("scm_repo_url", "repository", may),
		from("account_id", "owner_id", must),
		from("scm_ref", "ref", may), // a branch or a tag: it doesn't say which
		from("pipeline_name", "workflow", may),
		from("pipeline_id", "workflow_id", must),
		from("workflow_id", "run_id", must),
		from("initiator", "actor", may),
		from("scm_user_name", "actor", may),
		from("runner_environment", "platform_runner.environment", may),
	},
	settle: func(c *claims, id *Identity) {
		switch {
		case has(c.doc.Get("scm_pull_request_target_branch")):
			id.Event = "pull_request"
		case has(c.doc.Get("initiator")):
			id.Event = "manual"
		case id.Ref != "":
			id.Event = "push"
		default:
			id.Event = "cron"
		}
	},
	agree: func(c *claims, id *Identity) {
		c.subject("account:", ":", []string{"account:", id.OwnerID, ":pipeline:", id.WorkflowID})
	},
}

var semaphore = platform{
	name: "semaphore", title: "Semaphore",
	issuers: []issuerForm{
		{"https://SLUG.semaphoreci.com", named},
		{"https://HOST", own},
	},
	pins: []string{"org_id", "prj_id"},
	audience: audienceRule{
		fixed: func(issuer string) string { return issuer },
		ask:   "use SEMAPHORE_OIDC_TOKEN, whose audience is your organisation's URL",
	},
	job:        []string{"job_id"},
	noSubject:  true, // the organisation's claim filter can remove it
	replay:     ReplayJTI,
	maxAge:     10 * minute,
	maxLife:    25 * hour, // documented: 24 hours
	algorithms: rs256,
	events: eventRule{
		claim: "job_type", tellsPulls: true,
		allow:   []string{"pipeline_job"},
		pull:    []string{"pull_request"},                                        // not Semaphore's word: pr and ref_type say it
		outside: []string{"debug_job", "debug_project_job", "project_debug_job"}, // a person has a shell in it
	},
	fields: []field{
		from("repo_slug", "repository", may),
		from("prj_id", "repository_id", must),
		from("org_id", "owner_id", may),
		from("ref", "ref", may), // branch is the target's for a pull request; ref never lies
		from("job_type", "event", must),
		from("wf_id", "run_id", may),
		from("job_id", "job_id", must),
		from("actor", "actor_id", may),
	},
	settle: func(c *claims, id *Identity) {
		kind := c.str("ref_type", word)
		switch {
		case strings.HasPrefix(kind, "pull"), has(c.doc.Get("pr")):
			id.PullRequest = yes()
		case kind != "":
			id.RefType = kind
		}
	},
}

// harness rests on third parties' accounts. Its REST interface lets whoever may
// call it fill in the custom claims, so they prove less than others' do.
var harness = platform{
	name: "harness", title: "Harness",
	issuers:    []issuerForm{{"https://HOST/ng/api/oidc/account/ACCOUNT", own}},
	pins:       []string{"account_id"},
	audience:   audienceRule{ask: "set the audience of the OIDC connector to AUDIENCE"},
	job:        []string{"pipeline_id"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    day,
	algorithms: rs256,
	events: eventRule{
		claim: "context",
		allow: []string{"PIPELINE_EXECUTION"},
	},
	fields: []field{
		from("account_id", "owner_id", must),
		from("pipeline_id", "workflow_id", must),
		from("environment_id", "environment", may),
		from("context", "event", must),
		from("triggered_by_name", "actor", may),
	},
	agree: func(c *claims, id *Identity) {
		c.issuerEnds("/account/", "account_id", id.OwnerID)
		c.subject("account/", ":", []string{"account/", id.OwnerID})
	},
}
