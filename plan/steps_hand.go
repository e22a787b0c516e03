package plan

import (
	"regexp"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// checksOut finds what fetches a repository by the controller's own credential.
var checksOut = regexp.MustCompile(`^(git|checkout|GitSCM|scm|userRemoteConfigs)\b`)

// byExposure says what to do where what hands the secret on takes no token, nil
// where the general steps fit.
func (d *draft) byExposure(p *inventory.Path) []string {
	via, rest, _ := strings.Cut(p.ExposedVia, ":")
	switch jenkins := p.CI == inventory.Jenkins; {
	case via == "imagePullSecrets":
		return []string{"The cluster's nodes pull the image with it, before anything of the job runs: let them pull by their own identity (ECR, Artifact Registry, ACR), or mirror the image to where they can."}
	case cluster(p.CI) && via == "workspace" && d.method.name == "aws":
		return []string{"Bind the workspace" + oneLine(rest) + " to projected: with a serviceAccountToken (audience sts.amazonaws.com) and a config map in place of the secret; the config map's file config names role_arn and web_identity_token_file, and the task reads it as AWS_CONFIG_FILE."}
	case cluster(p.CI) && via == "workspace" && d.method.fetch:
		return []string{"Bind the workspace" + oneLine(rest) + " to emptyDir: {} in place of the secret, and begin the task with a step that writes its files: proviso token and vault kv get, as the patches do for volumes. The task's own file has its steps."}
	case cluster(p.CI) && via == "secrets of the service account":
		return []string{"Take the secret out of the service account's list, and log in within the step that needs it: proviso token --grant " + d.item.ID + " and vault kv get, as in the patches."}
	case jenkins && checksOut.MatchString(via):
		return []string{"Check out with a GitHub App's credential (plugin GitHub Branch Source): its tokens live an hour, and open what the App is installed for. Elsewhere a deploy key that can only read."}
	case jenkins && (via == "registryCredentialsId" || strings.HasPrefix(via, "docker.withRegistry")):
		return []string{"Leave the id out of " + oneLine(via) + ", and log in by sh before it: bind the id token (credential proviso) with withCredentials, read the value as in the patches, and pipe it to docker login --password-stdin; docker logout at the end.", "For a public image, or one that the agent's machine pulls by its own identity, no login is needed."}
	case jenkins && strings.HasPrefix(via, "configFileProvider"):
		return []string{"A managed file of the controller holds it: keep the file's content in the secrets manager, and write the file in the sh step that reads it, as the patches do for file()."}
	}
	return nil
}

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
	if steps := d.byExposure(p); steps != nil {
		return append(steps, "Remove "+name+" there, and plan again: it is then no item any more.")
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
