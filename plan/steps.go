package plan

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// who are the jobs that the target trusts, in a sentence.
func (d *draft) who() string {
	switch {
	case cluster(d.item.CI):
		return "the service account that pipelines of " + oneLine(d.item.Repository) + " run as"
	case bySubject(d.item.CI):
		return oneLine(d.item.Repository) + ", by what its tokens are named after"
	}
	var out []string
	for _, s := range d.trusts {
		out = append(out, s.say())
	}
	if len(out) == 0 {
		return oneLine(d.item.Repository) + " (no branch could be read: nobody yet)"
	}
	return oneLine(d.item.Repository) + ", " + strings.Join(out, " or ")
}

// arn says where the role's name comes from.
func (d *draft) arn() string {
	return "terraform output -raw " + snake(d.item.ID) + "_role, in trust/"
}

// roleIs says what the setting of a role holds.
func (d *draft) roleIs() string {
	if d.item.Reuse != nil {
		return "the ARN of the role " + oneLine(d.item.Reuse.Target) + " (" + d.item.Reuse.where() + "), which takes these jobs already"
	}
	return "the ARN of the role that the trust configuration makes: " + d.arn()
}

// role gives the role as a pipeline writes it: a setting, or the ARN where a file has it.
func (d *draft) role() string {
	if r := d.item.Reuse; r != nil && roleARN.MatchString(r.Target) {
		return r.Target
	}
	return d.setting("ROLE", d.roleIs())
}

var roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$`)

// steps writes what a person does before and after the patch.
func (d *draft) steps() {
	d.settingSteps()
	d.dualRun()
	it := d.item
	if it.Grant != nil && it.Grant.Now {
		it.Proof = append(it.Proof, Step{"Proviso's own record: the grant is used by the jobs, and when last.", "proviso audit search --grant " + sh(it.ID) + " --result allowed --since " + digits(it.DualRun.Days*24) + "h"},
			Step{"Nobody was refused who should not have been.", "proviso audit search --grant " + sh(it.ID) + " --result refused --since " + digits(it.DualRun.Days*24) + "h"})
	}
	it.Proof = append(it.Proof, Step{"No pipeline names the secret any more: this finds nothing.", "proviso plan --only " + sh(it.Secrets[0]) + " ."})
	if d.method.seen != nil {
		it.Proof = append(it.Proof, d.method.seen(d)...)
	}
	it.Deletion = append(it.Deletion, d.platformDeletion()...)
	if d.method.ends != nil {
		it.Deletion = append(it.Deletion, d.method.ends(d)...)
	}
	if len(it.Identifiers) > 0 {
		var names []string
		for _, n := range it.Identifiers {
			names = append(names, oneLine(n))
		}
		d.note("%s beside it is no credential: keep it as a plain variable.", strings.Join(names, ", "))
	}
	if d.method.note != "" {
		d.note("%s", d.method.note)
	}
	if strings.Contains(d.method.title, "until") || d.method.none || d.item.Via == ViaProviso && d.method.target != nil && !d.method.direct && d.method.name != "k8s" {
		it.Prepare = append(it.Prepare, Step{"Put the value into the secrets manager: read it from a prompt, not from the command line.",
			"vault kv put -mount=ci " + sh(slug(d.repo.label())+"/"+secretWord(it.Secrets[0])) + " value=-"})
	}
}

func secretWord(name string) string {
	if variableName.MatchString(name) {
		return name
	}
	return slug(name)
}

// settingSteps set the variables that the patched pipeline reads.
func (d *draft) settingSteps() {
	for _, name := range sortedKeys(d.settings) {
		s := Step{Do: "Set " + name + ": " + d.settings[name] + "."}
		switch d.item.CI {
		case inventory.GitHub:
			s.Command = "gh variable set " + name + " --repo " + sh(d.item.Repository)
		case inventory.GitLab:
			s.Command = "glab variable set " + name + " --repo " + sh(d.item.Repository)
		case inventory.Azure:
			s.Do = "Set " + name + " among the variables of the pipeline, or in a group of it: " + d.settings[name] + "."
		case inventory.Buildkite:
			s.Do = "Set " + name + " in env of the pipeline or in the agents' environment hook: " + d.settings[name] + "."
		case inventory.CircleCI:
			s.Do = "Set " + name + " in Project Settings, Environment Variables: " + d.settings[name] + "."
		case inventory.Bitbucket:
			s.Do = "Set " + name + " among the Repository variables: " + d.settings[name] + "."
		case inventory.Jenkins:
			s.Do = "Set " + name + " among the global properties of Jenkins (Manage Jenkins, System): " + d.settings[name] + "."
		case inventory.Tekton, inventory.Argo:
			s.Do = "Set " + name + " in the ConfigMap proviso of the pipelines' namespace: " + d.settings[name] + "."
			s.Command = `kubectl patch configmap proviso --type=merge --patch='{"data": {"` + name + `": "VALUE"}}'`
		default:
		}
		d.item.Prepare = append(d.item.Prepare, s)
	}
	if d.item.CI == inventory.Jenkins && d.item.Patch != nil {
		d.item.Prepare = append(d.item.Prepare, d.jenkinsCredential())
	}
}

// jenkinsCredential says which credential the patched Jenkinsfile binds.
func (d *draft) jenkinsCredential() Step {
	kind, id, audience := "OpenID Connect id token", "proviso", "the URL of Proviso"
	if !d.asks {
		kind, id, audience = "OpenID Connect id token as file", d.jenkinsToken(), d.targetAudience()
	}
	if !d.asks && d.method.name == "gcp" { // what a provider of Google's takes where nothing else is written
		audience = "https://iam.googleapis.com/ and the provider's full name"
	}
	return Step{Do: "Add a credential of the kind " + kind + " (plugin OpenID Connect Provider) to the controller or to the folder, with the id " + id + " and the audience " + audience + "."}
}

// dualRun says how long both ways stay open. The pipeline itself never falls
// back: a fallback would hide the failure, and keep the secret in reach.
func (d *draft) dualRun() {
	rare := make(map[string]bool)
	days := 14
	for _, p := range d.group.paths {
		events := p.Reach.Events
		often := slices.Contains(events, "push") || slices.ContainsFunc(events, ofProposal)
		if !often && len(events) > 0 {
			rare[p.Job] = true
			days = 30
		}
	}
	r := DualRun{Days: days, Until: "each of the jobs has run once the new way", Watch: []string{}}
	if d.item.Via == ViaNone {
		r.Until = "the change by hand has run once in each of the jobs"
	}
	if len(rare) > 0 {
		r.Until += fmt.Sprintf("; %s only by a tag, a release, a schedule or by hand: start it once", runs(rare))
	}
	r.Back = "git revert of the patch: the secret is still in the settings. The pipeline itself never falls back, because that would hide the failure."
	r.Watch = append(r.Watch, "the first run of each job")
	if d.item.Grant != nil && d.item.Grant.Now {
		r.Watch = append(r.Watch, "refusals: proviso audit search --grant "+sh(d.item.ID)+" --result refused")
	}
	switch d.method.name {
	case "aws":
		r.Watch = append(r.Watch, "AssumeRoleWithWebIdentity in CloudTrail, denied and allowed")
	case "gcp":
		r.Watch = append(r.Watch, "the service account's Data Access audit log: principalSubject is the job's")
	case "azure":
		r.Watch = append(r.Watch, "the application's sign-in log: the credential type is federated")
	case "vault":
		r.Watch = append(r.Watch, "logins at auth/jwt in the audit device")
	}
	d.item.DualRun = r
}

func runs(jobs map[string]bool) string {
	names := sortedKeys(jobs)
	for i := range names {
		names[i] = oneLine(names[i])
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("%d more", len(names)-3))
	}
	verb := " run"
	if len(names) == 1 {
		verb = " runs"
	}
	return strings.Join(names, ", ") + verb
}

// platformDeletion takes the secret out of the CI platform's settings.
func (d *draft) platformDeletion() (out []Step) {
	repo := sh(d.item.Repository)
	var envs []string
	for _, p := range d.item.Places {
		if p.Environment != "" && safeRef(p.Environment) && !slices.Contains(envs, p.Environment) {
			envs = append(envs, p.Environment)
		}
	}
	for _, n := range d.item.Secrets {
		if strings.HasPrefix(n, "context:") || strings.HasPrefix(n, "group:") {
			out = append(out, Step{Do: "Remove the value from the set " + oneLine(n) + " in the platform's settings."})
			continue
		}
		switch {
		case d.item.CI == inventory.Jenkins:
			out = append(out, Step{Do: "Delete the credential " + oneLine(n) + " of the controller or the folder (Manage Jenkins, Credentials)."})
			continue
		case !variableName.MatchString(n) && !cluster(d.item.CI) && d.item.CI != inventory.Azure:
			out = append(out, Step{Do: "Delete " + oneLine(n) + " in the platform's settings."})
			continue
		}
		switch d.item.CI {
		case inventory.GitHub:
			out = append(out, Step{"Delete it where it is kept: in the repository,", "gh secret delete " + n + " --repo " + repo})
			for _, e := range envs {
				out = append(out, Step{"or in the environment,", "gh secret delete " + n + " --repo " + repo + " --env " + sh(e)})
			}
			if owner := d.repo.owner(); owner != "" {
				out = append(out, Step{"or in the organisation, once no other repository uses it.", "gh secret delete " + n + " --org " + sh(owner)})
			}
		case inventory.GitLab:
			out = append(out, Step{"Delete it where it is kept: in the project,", "glab variable delete " + n + " --repo " + repo}, Step{"or in the group.", "glab variable delete " + n + " --group " + sh(path.Dir(d.item.Repository))})
		case inventory.CircleCI:
			out = append(out, Step{Do: "Delete " + n + " in Project Settings, Environment Variables, or in its context (circleci context remove-secret)."})
		case inventory.Buildkite:
			out = append(out, Step{Do: "Delete " + n + " in the cluster's secrets, or in the agents' environment hook."})
		case inventory.Bitbucket:
			out = append(out, Step{Do: "Delete " + n + " in Repository, Deployment or Workspace variables."})
		case inventory.Azure:
			out = append(out, Step{Do: "Delete " + oneLine(n) + " in the pipeline's variables or its variable group (az pipelines variable-group variable delete)."})
		case inventory.Tekton, inventory.Argo:
			out = append(out, Step{Do: "Delete the Kubernetes secret that holds " + oneLine(n) + " (kubectl delete secret)."})
		default:
			out = append(out, Step{Do: "Delete " + n + " in the platform's settings."})
		}
	}
	return out
}
