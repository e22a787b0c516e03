package inventory

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

var ruleTrustAnyone = Rule{
	Name:  "trust-anyone",
	Title: "Everybody on the platform can use it",
	What: "The issuer is shared by all customers of a CI platform (GitHub, GitLab.com, Buildkite), and no condition names an owner, a group or an organization: none at all, `*`, or `repo:*`. " +
		"Anybody with a free account runs a job of their own and gets what this trust gives. It is reported for the part of a chain that gives something: a pool or a cluster that only authenticates is one step lower.",
	Remedy:     "Name the repository by its id (`repository_id`, `project_id`, `pipeline_id`), and the environment or the branch; where the target only compares subjects, the whole subject.",
	References: []string{accessManagement, pipelineAccess, systemConfig, nistGoals, nistDeploy},
}

func checkTrustAnyone(v *trustView) {
	b := v.bounds
	if b.Tenant || b.Opaque || b.Open != nil || !v.t.SharedIssuer() || v.absentPasses() {
		return
	}
	sev := severity(ForkReachable, v.weight())
	if v.authenticatesOnly() {
		sev = sev.shift(-2)
	}
	line, what := v.t.Line, "no condition says whose"
	if c := v.t.Condition("sub"); c != nil {
		line, what = v.at(c), "the subject "+values(c)+" takes anybody's"
	}
	v.report(line, sev, "anyone",
		fmt.Sprintf("%s accepts tokens of %s, which signs for everybody there, and %s.", v.name(), v.t.Issuer, what),
		"Add a condition that names the repository by its id, and the environment or branch.")
}

// absentPasses reports whether the subject is asked for in a way that a token without it passes.
func (v *trustView) absentPasses() bool {
	for i := range v.t.Conditions {
		if c := &v.t.Conditions[i]; c.AbsentPasses && c.Claim != "aud" {
			return true
		}
	}
	return false
}

var ruleTrustOwner = Rule{
	Name:  "trust-whole-owner",
	Title: "Every repository of an owner can use it",
	What: "The conditions name an owner, a group or an organization, and no repository: `repo:acme/*`, `repository_owner`, `namespace_path`, or every project of a CircleCI organization. " +
		"The weakest repository decides: a forgotten experiment, a repository that an outside collaborator can push to, one that anybody in the company can create.",
	Remedy:     "Name the repositories, by id. Where it must be all of them, name at least the reusable workflow (`job_workflow_ref`) that alone may use it, or a protected environment.",
	References: []string{accessManagement, pipelineAccess, nistGoals, nistDeploy},
}

func checkTrustOwner(v *trustView) {
	b := v.bounds
	if !b.Tenant || b.Project || b.Opaque || b.Open != nil {
		return
	}
	sev := severity(TrustUnknown, v.weight())
	if b.Part || v.authenticatesOnly() {
		sev = sev.shift(-1) // a workflow or an environment is named, in each of them
	}
	line, what := v.t.Line, "every project of that issuer"
	if c := v.t.Condition("sub", "repository_owner_id", "repository_owner", "namespace_id", "namespace_path", "project_path", "organization_id", "organization_slug", "repository"); c != nil {
		line, what = v.at(c), "every repository with "+c.Claim+" "+values(c)
	}
	v.report(line, sev, "owner", fmt.Sprintf("%s lets in %s.%s", v.name(), what, v.users()), "Name the repositories that need it, by their ids.")
}

var ruleTrustAnyRef = Rule{
	Name:  "trust-any-ref",
	Title: "Every branch, pull request and workflow of a repository can use it",
	What: "The conditions name a repository and nothing of it: no branch, no tag, no environment, no workflow (`repo:acme/shop:*`). " +
		"Whoever may push any branch writes a workflow on it and gets what production gets, without a review: branch protection guards main, not the trust.",
	Remedy:     "Name an environment with required reviewers and a branch rule, or the protected branch, or the workflow: `repo:acme/shop:environment:production`.",
	References: []string{flowControl, accessManagement, pipelineAccess, nistGoals, nistDeploy},
}

func checkTrustAnyRef(v *trustView) {
	b := v.bounds
	if !b.Project || b.Part || b.Opaque || b.Open != nil || b.PullRequests != nil || v.authenticatesOnly() {
		return
	}
	line, what := v.t.Line, "names a repository and nothing of it"
	if c := v.t.Condition("sub", "repository_id", "repository", "project_id", "project_path", "pipeline_id", "pipeline_slug"); c != nil {
		line, what = v.at(c), "names "+c.Claim+" "+values(c)+" and neither a branch nor an environment of it"
	}
	v.report(line, severity(Protected, v.weight()), "any ref", fmt.Sprintf("%s %s.%s", v.name(), what, v.users()), "Add the environment or the branch that may use it.")
}

var ruleTrustPullRequests = Rule{
	Name:  "trust-pull-requests",
	Title: "Pull requests can use it",
	What: "The subject of pull requests (`repo:acme/shop:pull_request`) is accepted. Code that nobody has reviewed yet runs with it: everybody who can open a pull request from a branch of the repository, and on platforms or settings that give forks a token everybody at all. " +
		"Such a trust should open what a stranger may have.",
	Remedy:     "Use another role for pull requests that can only read what is public anyway, or run the part that needs access after the merge.",
	References: []string{poisonedPipeline, flowControl, pipelineAccess, nistBuild},
}

func checkTrustPullRequests(v *trustView) {
	c := v.bounds.PullRequests
	if c == nil || v.bounds.Open != nil || c.Inherited {
		return
	}
	var subjects []string
	for _, s := range c.Values {
		if strings.HasSuffix(s, ":pull_request") {
			subjects = append(subjects, s)
		}
	}
	v.report(c.Line, severity(Protected, v.weight()), "pull_request", fmt.Sprintf("%s can be used by pull requests (%s): code that nobody has reviewed.%s", v.name(), listOf(subjects), v.users()),
		"Take the subject out, and give pull requests a role of their own that only reads.")
}

var ruleTrustOpenPattern = Rule{
	Name:       "trust-open-pattern",
	Title:      "A pattern takes more names than it shows",
	What:       "A pattern ends within a name, or a regular expression isn't tied to both ends: `repo:acme*` takes acme-evil, which anybody can register; `repo:acme/shop*` takes shop-playground; `matches('acme/shop')` takes evil/acme/shop-x, because it only has to be found somewhere.",
	Remedy:     "Close the name: `repo:acme/shop:ref:refs/heads/main` instead of `repo:acme/shop*`; tie regular expressions with ^ and $; better, compare ids exactly.",
	References: []string{accessManagement, pipelineAccess, systemConfig, nistGoals},
}

func checkTrustOpenPattern(v *trustView) {
	c := v.bounds.Open
	if c == nil || c.Inherited {
		return
	}
	reach, what := TrustUnknown, "takes longer names too, which the same owner can make"
	pinned := v.bounds.Tenant && v.bounds.IDs
	if v.bounds.OpenTenant && !pinned {
		reach, what = ForkReachable, "takes longer names too, which anybody can register"
	}
	kind := "pattern"
	if c.Match == trust.Regex {
		kind, what = "regular expression", "isn't tied to both ends: it "+strings.Replace(what, "takes longer names too", "takes every name that holds it", 1)
	}
	sev := severity(reach, v.weight())
	if c.Claim != "sub" && !isNameClaim(c.Claim) {
		sev = severity(Protected, v.weight()) // a part of something that is named elsewhere
	}
	v.report(c.Line, sev, c.Claim, fmt.Sprintf("%s: the %s %s over %s %s.", v.name(), kind, values(c), c.Claim, what), "Close the name, or tie the expression with ^ and $; better, compare the id exactly.")
}

// isNameClaim reports whether a claim names a tenant or a project.
func isNameClaim(claim string) bool {
	for _, c := range repositoryClaims {
		if c == claim {
			return true
		}
	}
	return strings.HasSuffix(claim, "_slug") || strings.HasSuffix(claim, "_id")
}
