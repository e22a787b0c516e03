package lab

import (
	"strconv"
	"strings"
)

// The platforms besides GitHub, Forgejo and GitLab.

func buildkiteClaims(j Job, _ string) map[string]any {
	c := map[string]any{
		"sub":               "organization:" + j.Owner + ":pipeline:" + j.Repository + ":ref:" + j.ref() + ":commit:" + j.Commit + ":step:deploy",
		"organization_slug": j.Owner, "pipeline_slug": j.Repository, "build_number": j.Run,
		"build_branch": j.refName(), "build_commit": j.Commit, "step_key": "deploy",
		"job_id": uuid("job", strconv.Itoa(j.Run)), "agent_id": uuid("agent", j.RunnerID), "build_source": "webhook",
		"runner_environment": j.runnerEnvironment("self-hosted", "buildkite-hosted"),
		// Optional claims, which the job has to ask for.
		"organization_id": uuid("org", j.Owner), "pipeline_id": uuid("pipeline", j.slug()),
		"cluster_name": "production", "queue_key": "deploy", "agent_tag:queue": "deploy",
	}
	if j.Tag != "" {
		c["build_tag"] = j.Tag
	}
	if j.Event == "schedule" {
		c["build_source"] = "schedule"
	}
	return c
}

func circleciClaims(j Job, _ string) map[string]any {
	org, project := uuid("org", j.Owner), uuid("project", j.slug())
	origin := "github.com/" + j.slug()
	if j.Fork {
		origin = "github.com/mallory/" + j.Repository
	}
	const ns = "oidc.circleci.com/"
	return map[string]any{
		"sub":              "org/" + org + "/project/" + project + "/user/" + uuid("user", j.Actor) + "/vcs-origin/" + origin + "/vcs-ref/" + j.ref(),
		ns + "context-ids": []string{uuid("context", j.Environment)}, ns + "job-id": uuid("job", strconv.Itoa(j.Run)),
		ns + "org-id": org, ns + "project-id": project, ns + "pipeline-id": uuid("pipeline", strconv.Itoa(j.Run)),
		ns + "pipeline-definition-id": uuid("definition", j.slug()), ns + "workflow-id": uuid("workflow", strconv.Itoa(j.Run)),
		ns + "ssh-rerun": false, ns + "vcs-origin": origin, ns + "vcs-ref": j.ref(),
	}
}

func bitbucketClaims(j Job, _ string) map[string]any {
	braces := func(kind, name string) string { return "{" + uuid(kind, name) + "}" }
	c := map[string]any{
		"workspaceUuid": braces("workspace", j.Owner), "repositoryUuid": braces("repository", j.slug()),
		"pipelineUuid": braces("pipeline", strconv.Itoa(j.Run)), "stepUuid": braces("step", strconv.Itoa(j.Run)),
		"branchName": j.Branch, "accountUuid": braces("workspace", j.Owner),
	}
	sub := c["repositoryUuid"].(string)
	if j.Environment != "" {
		c["deploymentEnvironmentUuid"] = braces("environment", j.Environment)
		sub += ":" + c["deploymentEnvironmentUuid"].(string)
	}
	c["sub"] = sub + ":" + c["stepUuid"].(string)
	return c
}

func azureClaims(j Job, _ string) map[string]any {
	return map[string]any{
		"sub":    "p://" + j.Owner + "/Logistics/" + j.Repository + "-" + j.Workflow,
		"org_id": uuid("org", j.Owner), "prj_id": uuid("project", j.slug()), "def_id": "117",
		"rpo_id": j.slug(), "rpo_uri": "https://github.com/" + j.slug(), "rpo_ver": j.Commit, "rpo_ref": j.ref(),
		"run_id": strconv.Itoa(20000 + j.Run),
	}
}

func jenkinsClaims(j Job, issuer string) map[string]any {
	return map[string]any{
		"sub":          strings.TrimSuffix(issuer, "/oidc") + "/job/logistics/job/" + j.Repository + "/job/" + j.refName() + "/",
		"build_number": j.Run,
	}
}

func terraformClaims(j Job, _ string) map[string]any {
	phase := "apply"
	if j.pullRequest() {
		phase = "plan"
	}
	workspace := "organization:" + j.Owner + ":project:Logistics Prod:workspace:" + j.Repository
	return map[string]any{
		"sub":                       workspace + ":run_phase:" + phase,
		"terraform_organization_id": "org-" + uuid("org", j.Owner)[:16], "terraform_organization_name": j.Owner,
		"terraform_project_id": "prj-" + uuid("project", j.Owner)[:16], "terraform_project_name": "Logistics Prod",
		"terraform_workspace_id": "ws-" + uuid("workspace", j.slug())[:16], "terraform_workspace_name": j.Repository,
		"terraform_full_workspace": workspace, "terraform_run_id": "run-" + uuid("run", strconv.Itoa(j.Run))[:16],
		"terraform_run_phase": phase,
	}
}

func cloudBuildClaims(j Job, _ string) map[string]any {
	const account = "108812345678901234567"
	return map[string]any{
		"azp": account, "sub": account, "email_verified": true,
		"email": j.Repository + "@" + j.Owner + "-prod.iam.gserviceaccount.com",
	}
}

func codefreshClaims(j Job, _ string) map[string]any {
	account := strings.ReplaceAll(uuid("account", j.Owner), "-", "")[:24]
	pipeline := strings.ReplaceAll(uuid("pipeline", j.slug()), "-", "")[:24]
	url := "https://github.com/" + j.slug()
	return map[string]any{
		"sub":        "account:" + account + ":pipeline:" + pipeline + ":scm_repo_url:" + url + ":scm_user_name:" + j.Actor + ":scm_ref:" + j.refName(),
		"account_id": account, "account_name": j.Owner, "pipeline_id": pipeline, "pipeline_name": "logistics/" + j.Repository,
		"workflow_id": strings.ReplaceAll(uuid("workflow", strconv.Itoa(j.Run)), "-", "")[:24], "scm_user_name": j.Actor,
		"scm_repo_url": url, "scm_ref": j.refName(), "runner_environment": j.runnerEnvironment("hybrid", "cloud"),
		"platform_url": "https://g.codefresh.io", "sid": randomID(),
	}
}

func semaphoreClaims(j Job, _ string) map[string]any {
	c := map[string]any{
		"sub":    "org:" + j.Owner + ":project:" + uuid("project", j.slug()) + ":repo:" + j.Repository + ":ref_type:" + j.refType() + ":ref:" + j.ref(),
		"org_id": uuid("org", j.Owner), "prj_id": uuid("project", j.slug()), "wf_id": uuid("workflow", strconv.Itoa(j.Run)),
		"ppl_id": uuid("pipeline", strconv.Itoa(j.Run)), "job_id": uuid("job", strconv.Itoa(j.Run)), "repo": j.Repository, "repo_slug": j.slug(),
		"actor": "", "tag": j.Tag, "ref": j.ref(), "ref_type": j.refType(), "branch": j.Branch, "pr": "", "pr_branch": "",
		"job_type": "pipeline_job", "trg": "h:f-i:f",
	}
	if j.pullRequest() {
		c["ref_type"], c["pr"], c["pr_branch"] = "pull-request", "17", "feature"
	}
	return c
}

func spaceliftClaims(j Job, _ string) map[string]any {
	kind, scope := "TRACKED", "write"
	if j.pullRequest() {
		kind, scope = "PROPOSED", "read"
	}
	space := j.Environment + "-01KQ2W3E4R5T6Y7U8I9O0P1A2S"
	return map[string]any{
		"sub":     "space:" + space + ":stack:" + j.Repository + ":run_type:" + kind + ":scope:" + scope,
		"spaceId": space, "callerType": "stack", "callerId": j.Repository, "runType": kind,
		"runId": uuid("run", strconv.Itoa(j.Run)), "scope": scope,
	}
}

func harnessClaims(j Job, issuer string) map[string]any {
	account := issuer[strings.LastIndex(issuer, "/")+1:]
	return map[string]any{
		"sub":        "account/" + account + ":org/default:project/logistics",
		"account_id": account, "organization_id": "default", "project_id": "logistics", "pipeline_id": j.Repository + "_" + j.Workflow,
		"environment_id": j.Environment, "environment_type": "Production", "connector_id": "account.prodBroker",
		"connector_name": "prod-broker", "service_id": j.Repository, "service_name": j.Repository,
		"triggered_by_name": j.Actor, "trigger_by_email": j.Actor + "@acme.example", "stage_type": "Deployment",
		"step_type": "Run", "context": "PIPELINE_EXECUTION",
	}
}
