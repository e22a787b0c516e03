package lab

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Platform names a CI platform as Proviso's configuration does.
type Platform string

// The platforms whose job tokens the lab signs.
const (
	GitHub       Platform = "github"
	GitLab       Platform = "gitlab"
	Buildkite    Platform = "buildkite"
	CircleCI     Platform = "circleci"
	Bitbucket    Platform = "bitbucket"
	AzureDevOps  Platform = "azure-devops"
	Jenkins      Platform = "jenkins"
	HCPTerraform Platform = "hcp-terraform"
	CloudBuild   Platform = "google-cloud-build"
	Codefresh    Platform = "codefresh"
	Semaphore    Platform = "semaphore"
	Spacelift    Platform = "spacelift"
	Forgejo      Platform = "forgejo"
	Harness      Platform = "harness"
)

// Job is what a lab issuer knows of a job, in words that no platform owns.
// Empty fields take the values of one running example: the shipping service of
// the organisation acme-ship, pushed to main, deploying to production.
type Job struct {
	Owner, OwnerID           string // organisation, group, workspace
	Repository, RepositoryID string // name without the owner
	Branch                   string
	Tag                      string // when set, the job runs for the tag
	Commit                   string
	Event                    string // push, pull_request, pull_request_target, schedule, workflow_dispatch
	HeadBranch               string // of a pull request
	Fork                     bool   // the pull request comes from another repository
	Environment              string // "-" means none
	Unprotected              bool   // the branch isn't protected
	Workflow                 string // its file's name without extension
	JobWorkflow              string // the reusable workflow that defines the job
	Run, Attempt             int
	Actor, ActorID           string
	RunnerID                 string // where the platform names it (GitLab, Buildkite)
	Hosted                   bool   // runs on the platform's own machines
}

func (j Job) filled() Job {
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&j.Owner, "acme-ship")
	fill(&j.OwnerID, "61200123")
	fill(&j.Repository, "shipping-service")
	fill(&j.RepositoryID, "741200456")
	fill(&j.Branch, "main")
	fill(&j.Commit, "4f1c9a7e2b6d8035c1e49af07d3b5c826e9f1a04")
	fill(&j.Event, "push")
	fill(&j.Environment, "production")
	fill(&j.Workflow, "deploy")
	fill(&j.JobWorkflow, "acme-ship/platform-workflows/.github/workflows/deploy.yml@refs/tags/v3.2.0")
	fill(&j.Actor, "dana-deployer")
	fill(&j.ActorID, "5500123")
	fill(&j.RunnerID, "4471")
	if j.Environment == "-" {
		j.Environment = ""
	}
	j.Run = cmp.Or(j.Run, 412)
	j.Attempt = cmp.Or(j.Attempt, 1)
	return j
}

func (j Job) pullRequest() bool { return strings.HasPrefix(j.Event, "pull_request") }

func (j Job) refType() string {
	if j.Tag != "" {
		return "tag"
	}
	return "branch"
}

func (j Job) refName() string { return cmp.Or(j.Tag, j.Branch) }

func (j Job) ref() string {
	switch {
	case j.Event == "pull_request":
		return "refs/pull/17/merge"
	case j.Tag != "":
		return "refs/tags/" + j.Tag
	}
	return "refs/heads/" + j.Branch
}

func (j Job) slug() string { return j.Owner + "/" + j.Repository }

func (j Job) runnerEnvironment(own, hosted string) string {
	if j.Hosted {
		return hosted
	}
	return own
}

// uuid derives a stable identifier from a name, in the form of a UUID, so that
// a repository keeps its identifier from job to job.
func uuid(kind, name string) string {
	h := uint64(14695981039346656037) // FNV-1a: no secret, only stable
	for _, c := range []byte(kind + ":" + name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	s := fmt.Sprintf("%016x%016x", h, h*0x9E3779B97F4A7C15)
	return s[:8] + "-" + s[8:12] + "-4" + s[13:16] + "-8" + s[17:20] + "-" + s[20:]
}

// platform is one row: how a platform's issuer looks and what it signs. The
// facts are the vendors' own documentation's.
type platform struct {
	path     string // of the issuer's URL
	life     time.Duration
	backdate time.Duration // how long nbf lies before iat; negative: no nbf
	jti      bool
	audience string // fixed by the platform; "" = the job chooses
	claims   func(j Job, issuer string) map[string]any
}

func rowOf(p Platform, j Job) (platform, error) {
	switch p {
	case GitHub:
		return platform{life: 5 * time.Minute, backdate: 10 * time.Minute, jti: true, claims: githubClaims}, nil
	case GitLab:
		return platform{life: time.Hour, backdate: 5 * time.Second, jti: true, claims: gitlabClaims}, nil
	case Buildkite:
		return platform{life: 5 * time.Minute, claims: buildkiteClaims}, nil
	case CircleCI:
		return platform{path: "/org/" + uuid("org", j.Owner), life: time.Hour, backdate: -1, claims: circleciClaims}, nil
	case Bitbucket:
		return platform{path: "/2.0/workspaces/" + j.Owner + "/pipelines-config/identity/oidc", life: time.Hour, backdate: -1, claims: bitbucketClaims}, nil
	case AzureDevOps:
		return platform{path: "/" + uuid("org", j.Owner), life: 10 * time.Minute, backdate: 10 * time.Minute, jti: true,
			audience: "api://AzureADTokenExchange", claims: azureClaims}, nil
	case Jenkins:
		return platform{path: "/oidc", life: time.Hour, backdate: -1, claims: jenkinsClaims}, nil
	case HCPTerraform:
		return platform{life: 2 * time.Hour, backdate: 5 * time.Second, jti: true, claims: terraformClaims}, nil
	case CloudBuild:
		return platform{life: time.Hour, backdate: -1, claims: cloudBuildClaims}, nil
	case Codefresh:
		return platform{life: 5 * time.Minute, backdate: -1, claims: codefreshClaims}, nil
	case Semaphore:
		return platform{life: 24 * time.Hour, jti: true, audience: "ISSUER", claims: semaphoreClaims}, nil
	case Spacelift:
		return platform{life: time.Hour, jti: true, audience: "HOST", claims: spaceliftClaims}, nil
	case Forgejo:
		return platform{path: "/api/actions", life: time.Hour, claims: forgejoClaims}, nil
	case Harness:
		return platform{path: "/ng/api/oidc/account/" + uuid("account", j.Owner)[:22], life: time.Hour, backdate: -1, claims: harnessClaims}, nil
	}
	return platform{}, fmt.Errorf("lab: no platform %q", p)
}

func githubClaims(j Job, _ string) map[string]any {
	sub := "repo:" + j.slug()
	switch { // the order is GitHub's: an environment wins, then a pull request
	case j.Environment != "":
		sub += ":environment:" + j.Environment
	case j.Event == "pull_request":
		sub += ":pull_request"
	default:
		sub += ":ref:" + j.ref()
	}
	c := actionsClaims(j, ".github", "deploy.yml")
	c["sub"] = sub
	c["repository_visibility"] = "private"
	c["workflow_sha"] = j.Commit
	c["job_workflow_ref"] = j.JobWorkflow
	c["job_workflow_sha"] = "b8d20f6a91c34e75d0a8f3b1627c9e54ad0c7f12"
	c["check_run_id"] = strconv.Itoa(56900112000 + j.Run)
	c["runner_environment"] = j.runnerEnvironment("self-hosted", "github-hosted")
	c["enterprise"], c["enterprise_id"] = "acme", "9912"
	if j.Environment != "" {
		c["environment"] = j.Environment
	}
	return c
}

func forgejoClaims(j Job, _ string) map[string]any {
	c := actionsClaims(j, ".forgejo", "deploy.yaml")
	c["sub"] = "repo:" + j.Owner + "-" + j.OwnerID + "/" + j.Repository + "-" + j.RepositoryID + ":ref:" + j.ref()
	return c
}

// actionsClaims are what GitHub and Forgejo sign alike: every value a string.
func actionsClaims(j Job, dir, file string) map[string]any {
	c := map[string]any{
		"ref": j.ref(), "ref_type": j.refType(), "ref_protected": strconv.FormatBool(!j.Unprotected && !j.pullRequest()),
		"sha": j.Commit, "repository": j.slug(), "repository_id": j.RepositoryID,
		"repository_owner": j.Owner, "repository_owner_id": j.OwnerID,
		"actor": j.Actor, "actor_id": j.ActorID, "event_name": j.Event,
		"head_ref": "", "base_ref": "",
		"workflow": j.Workflow, "workflow_ref": j.slug() + "/" + dir + "/workflows/" + file + "@" + j.ref(),
		"run_id": strconv.Itoa(19870012000 + j.Run), "run_number": strconv.Itoa(j.Run), "run_attempt": strconv.Itoa(j.Attempt),
	}
	if j.pullRequest() {
		c["head_ref"], c["base_ref"] = cmp.Or(j.HeadBranch, "feature"), j.Branch
	}
	return c
}

func gitlabClaims(j Job, issuer string) map[string]any {
	host := strings.TrimPrefix(strings.TrimPrefix(issuer, "https://"), "http://")
	source := map[string]string{"pull_request": "merge_request_event", "workflow_dispatch": "web"}
	event := cmp.Or(source[j.Event], j.Event)
	project, projectID := j.slug(), j.RepositoryID
	if j.Fork { // project_* name the source of the merge request, job_project_* where the job runs
		project, projectID = "mallory/"+j.Repository, "999666"
	}
	c := map[string]any{
		"namespace_id": j.OwnerID, "namespace_path": strings.Split(project, "/")[0],
		"project_id": projectID, "project_path": project,
		"job_project_id": j.RepositoryID, "job_project_path": j.slug(),
		"job_namespace_id": j.OwnerID, "job_namespace_path": j.Owner,
		"user_id": j.ActorID, "user_login": j.Actor, "user_email": j.Actor + "@acme.example", "user_access_level": "maintainer",
		"user_identities": []map[string]string{{"provider": "saml", "extern_uid": j.Actor + "@acme.example"}},
		"pipeline_id":     strconv.Itoa(1520000 + j.Run), "pipeline_source": event, "job_id": strconv.Itoa(9981000 + j.Run),
		"ref": j.refName(), "ref_type": j.refType(), "ref_path": "refs/heads/" + j.refName(),
		"ref_protected": strconv.FormatBool(!j.Unprotected && !j.Fork),
		"groups_direct": []string{j.Owner + "/deployers"},
		"job_source":    event, "runner_environment": j.runnerEnvironment("self-hosted", "gitlab-hosted"),
		"sha": j.Commit, "project_visibility": "private",
		"ci_config_ref_uri": host + "/" + j.slug() + "//.gitlab-ci.yml@refs/heads/" + j.refName(), "ci_config_sha": j.Commit,
		"sub": "project_path:" + project + ":ref_type:" + j.refType() + ":ref:" + j.refName(),
	}
	if n, err := strconv.Atoi(j.RunnerID); err == nil {
		c["runner_id"] = n // the one integer among strings
	}
	if j.Tag != "" {
		c["ref_path"] = "refs/tags/" + j.Tag
	}
	if j.Environment != "" {
		c["environment"], c["environment_protected"] = j.Environment, "true"
		c["deployment_tier"], c["environment_action"] = j.Environment, "start"
	}
	return c
}
