package plan

import (
	"regexp"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// checksOut finds what fetches a repository by the controller's own credential.
var checksOut = regexp.MustCompile(`^(git|checkout|GitSCM|scm|userRemoteConfigs)\b`)

// leaveOut says how a step or a job leaves pull requests out, as the scan reads it.
func leaveOut(ci inventory.CI) []string {
	how := map[inventory.CI]string{
		inventory.GitHub:  "Give the step or the job: if: github.event_name != 'pull_request'.",
		inventory.Forgejo: "Give the step or the job: if: github.event_name != 'pull_request'.",
		inventory.Azure:   "Give the step: condition: and(succeeded(), ne(variables['Build.Reason'], 'PullRequest')); or write pr: none where the pipeline is for no pull request.",
		inventory.GitLab:  `Begin the job's rules with: - if: $CI_PIPELINE_SOURCE == "merge_request_event", when: never.`,
		inventory.Jenkins: "Give the stage: when { not { changeRequest() } }.",
	}[ci]
	if how == "" {
		how = "Move the step into a job of its own that no pull request starts."
	}
	return []string{how, "Plan again: there is a patch then, or another reason."}
}

// handSteps say what a person does for a place without a patch.
func (d *draft) handSteps(p *inventory.Path) []string {
	name := oneLine(p.Credential.Name)
	switch d.method.name {
	case "inherit":
		return []string{"Read on.workflow_call.secrets of the called workflow.", "Write secrets: with those names in place of secrets: inherit.", "Scan again: each of them is then an item of its own."}
	case "all":
		return []string{"Name the secrets that the step needs, each by itself.", "Scan again: each of them is then an item of its own."}
	case "unknown":
		return []string{"Find the names that the expression can have.", "Write one job or step for each, or pass the name's value by an environment.", "Scan again."}
	case "gitlab-registry":
		return []string{`Log in with: echo "$CI_REGISTRY_PASSWORD" | docker login -u "$CI_REGISTRY_USER" --password-stdin "$CI_REGISTRY"`, "Remove " + name + " from the job."}
	}
	var out []string
	switch {
	case strings.HasPrefix(p.Credential.Name, "group:"):
		return []string{"List what the group holds (az pipelines variable-group list --group-name), and map each secret that the job needs in the step that needs it (env: X: $(X)).",
			"Plan again: each mapped secret is then an item of its own, with its patch.", "Once no step of the job reads a value of the group, remove the line - group: from the pipeline."}
	case strings.HasPrefix(p.Credential.Name, "context:"):
		return []string{"List the names in the context (circleci context show): each that the job's commands name is an item of its own, with its patch.",
			"Once none is left, remove the context from the job in the workflow, and plan again."}
	case p.CI == inventory.GitHub:
		out = append(out, "Give the job permissions: id-token: write, beside what it has.")
	case p.CI == inventory.GitLab:
		out = append(out, "Give the job an id_tokens: entry with the audience that the target trusts.")
	case p.CI == inventory.Azure && d.method.name == "azure":
		out = append(out, "Use AzureCLI@2 with a service connection by workload identity federation (Project settings, Service connections); addSpnToEnvironment gives its idToken to the script.")
	case p.CI == inventory.Jenkins && checksOut.MatchString(p.ExposedVia):
		return []string{"Check out with a GitHub App's credential (plugin GitHub Branch Source) in place of " + name + ": its tokens live an hour and open what the App is installed for. Elsewhere: a deploy key that can only read.",
			"Remove " + name + " from the pipeline, and plan again: it is then no item any more."}
	case p.CI == inventory.Jenkins:
		out = append(out, "Add an id-token credential of the OpenID Connect Provider plugin, and bind it with withCredentials in place of "+name+".")
	case p.CI == inventory.Tekton || p.CI == inventory.Argo:
		out = append(out, "Mount a projected service-account token with the target's audience in place of the secret.")
	case !issues(p.CI):
		out = append(out, "This platform signs no identity for its jobs: run the job on a runner with an identity of its own (SPIFFE), or move the pipeline to a platform that does.")
	}
	switch {
	case d.method.name == "aws" && issues(p.CI):
		out = append(out, "Assume the role of the trust configuration with the job's token (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE), and unset the keys.")
	case d.method.name == "gcp" && issues(p.CI):
		out = append(out, "Make a credential configuration for the provider (gcloud iam workload-identity-pools create-cred-config), and set GOOGLE_APPLICATION_CREDENTIALS to it.")
	case d.method.name == "azure" && issues(p.CI):
		out = append(out, "Log in with az login --service-principal --federated-token and the job's token.")
	case d.method.name == "vault" && issues(p.CI):
		out = append(out, "Log in with vault write auth/jwt/login role="+d.item.ID+" jwt=- and the job's token.")
	case d.item.Via == ViaProviso && issues(p.CI):
		out = append(out, "Log in before the command that needs it, with proviso and vault on the runner: VAULT_TOKEN=\"$(proviso token --grant "+d.item.ID+" | vault write -field=token auth/proviso/login role="+d.item.ID+" jwt=-)\"; export VAULT_TOKEN.",
			"Read the value into the variable or the file that the command reads so far: vault kv get -mount=ci -field=value "+d.secretPath()+".")
	case d.method.direct && issues(p.CI):
		out = append(out, oneLine(d.method.title))
	}
	return append(out, "Remove "+name+" from the job, and plan again: it is then no item any more.")
}
