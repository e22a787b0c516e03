package inventory

import (
	"fmt"

	"github.com/proviso-ci/proviso/trust"
)

var ruleTrustAbsent = Rule{
	Name:       "trust-passes-when-absent",
	Title:      "A condition holds when there is nothing to compare",
	What:       "`ForAllValues:` is true for a claim that isn't there, and `...IfExists` says so by its name. A condition on sub or aud written that way lets a token without the claim pass; as the only condition it is none. It is often the trace of an error that was made to go away.",
	Remedy:     "Use StringEquals or StringLike for claims that have one value.",
	References: []string{accessManagement, systemConfig, nistGoals},
}

func checkTrustAbsent(v *trustView) {
	for i := range v.t.Conditions {
		c := &v.t.Conditions[i]
		if !c.AbsentPasses || c.Inherited {
			continue
		}
		reach := TrustUnknown
		if c.Claim != "aud" && !v.bounds.Tenant && v.t.SharedIssuer() {
			reach = ForkReachable
		}
		v.report(c.Line, severity(reach, v.weight()), c.Claim, fmt.Sprintf("%s: the condition on %s (%s) also holds for a token that has no %s.", v.name(), c.Claim, values(c), c.Claim),
			"Write StringEquals, or StringLike where a pattern is needed.")
	}
}

var ruleTrustAudience = Rule{
	Name:       "trust-without-audience",
	Title:      "A token that was meant for somebody else is accepted",
	What:       "No audience is asked for. A job's token for another service (a package registry, a code scanner, a broker) is then good here too: whoever receives one can pass it on. On several platforms every tool in a job sees the token of the default audience.",
	Remedy:     "Ask for an audience that only this target uses: `sts.amazonaws.com` for AWS, the URL of the vault, `bound_audiences` for a role.",
	References: []string{accessManagement, systemConfig, credHygiene, nistGoals},
}

func checkTrustAudience(v *trustView) {
	if !v.t.NoAudience || v.t.Condition("aud") != nil || v.t.Kind == trust.KubernetesRole {
		return
	}
	v.report(v.t.AudienceLine, severity(TrustUnknown, v.weight()).shift(-1), "aud", fmt.Sprintf("%s asks for no audience: a token that a job got for another service is accepted.", v.name()), audienceFix(v.t))
}

// audienceFix says what to write, in the target's own words.
func audienceFix(t *trust.Trust) string {
	switch t.Kind {
	case trust.AWSRole:
		return `Add "StringEquals": {"<issuer>:aud": "sts.amazonaws.com"}.`
	case trust.VaultRole:
		return "Set bound_audiences to the URL of this vault, and ask for it in the job."
	case trust.Kubernetes:
		return "Set issuer.audiences to a name of this cluster."
	default:
		return "Name an audience that only this target uses."
	}
}

var ruleTrustOldSubject = Rule{
	Name:  "trust-old-subject",
	Title: "GitHub's subject by names, without ids",
	What: "Since 15 July 2026 GitHub signs `repo:OWNER@OWNER_ID/REPO@REPO_ID:...` for repositories that are created, renamed or transferred; older ones keep the form without ids until they opt in. " +
		"A trust that compares the old form refuses the repository on the day it is renamed, with an error that doesn't say why; and until then it trusts a name: who gets the name of an account that was given up gets the trust.",
	Remedy:     "Compare `repository_id` and `repository_owner_id` where the target can; else list both forms of the subject, and drop the old one after the repository has opted in.",
	References: []string{accessManagement, pipelineAccess, nistGoals},
}

func checkTrustOldSubject(v *trustView) {
	c := v.bounds.OldSubject
	if c == nil || c.Inherited {
		return
	}
	fix := "Compare repository_id and repository_owner_id as well, or add the subject with ids: repo:OWNER@OWNER_ID/REPO@REPO_ID:..."
	v.report(c.Line, severity(Protected, v.weight()).shift(-1), "sub", fmt.Sprintf("%s compares the subject %s by names: it refuses the repository once its subject has ids (new, renamed or transferred since 15 July 2026), and until then it trusts whoever holds the name.", v.name(), values(c)), fix)
}

var ruleTrustByName = Rule{
	Name:       "trust-by-name",
	Title:      "An owner or a repository is named by its name alone",
	What:       "The conditions name an owner, a group or a repository (`repository`, `repository_owner`, `project_path`, `organization_slug`, or a subject that is made of names) and no id of it. Names are given up, renamed and registered again by others; ids never are.",
	Remedy:     "Add the id beside the name: `repository_id` and `repository_owner_id` on GitHub, `project_id` and `namespace_id` on GitLab, `pipeline_id` and `organization_id` on Buildkite.",
	References: []string{accessManagement, pipelineAccess, nistGoals},
}

func checkTrustByName(v *trustView) {
	c := v.bounds.ByName
	if c == nil || c.Inherited || v.bounds.OldSubject != nil || v.bounds.IDs || !v.t.SharedIssuer() {
		return
	}
	v.report(c.Line, severity(Protected, v.weight()).shift(-1), c.Claim, fmt.Sprintf("%s names %s %s and no id: whoever holds the name after its owner has given it up holds the trust.", v.name(), c.Claim, values(c)),
		"Compare "+idFor(v.t.Platform())+" as well; an id is never given to somebody else.")
}

// idFor names the claims of a platform that hold ids.
func idFor(platform string) string {
	switch platform {
	case "gitlab":
		return "project_id"
	case "buildkite":
		return "pipeline_id"
	}
	return "repository_id"
}
