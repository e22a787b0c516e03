package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// platformOf is the name that Proviso's configuration has for a CI platform.
func platformOf(ci inventory.CI) string {
	switch ci {
	case inventory.GitHub:
		return "github"
	case inventory.Forgejo:
		return "forgejo"
	case inventory.GitLab:
		return "gitlab"
	case inventory.Azure:
		return "azure-devops"
	case inventory.Bitbucket:
		return "bitbucket"
	case inventory.CloudBuild:
		return "google-cloud-build"
	case inventory.Tekton, inventory.Argo:
		return "generic" // the cluster's issuer, by a map of its claims
	default:
		return string(ci) // circleci, buildkite, jenkins
	}
}

// repositoryID asks for the platform's immutable id of the repository.
func (d *draft) repositoryID() string {
	about := d.item.Repository
	host := d.repo.host
	how := "the project's settings on the platform, or identity.repository_id in a decision of proviso audit search"
	switch d.item.CI {
	case inventory.GitHub:
		how = "gh api repos/" + about + " --jq .id"
	case inventory.GitLab:
		how = "glab api projects/:id --jq .id (in the clone), or Settings, General, Project ID"
	case inventory.CircleCI:
		how = "Project Settings, Overview, Project ID"
	case inventory.Bitbucket:
		how = "Repository settings, OpenID Connect, Repository UUID (with its braces)"
	case inventory.Buildkite:
		how = "Pipeline Settings, GraphQL API integration, the UUID"
	default:
	}
	if host != "" && host != "github.com" {
		about = host + "/" + about
	}
	return d.p.ask("repository_id", about, "The immutable id of the repository "+about+" on "+platformOf(d.item.CI)+".", how)
}

// audience names the one grant that a token of Proviso's is for, so that what
// trusts it can tell grants of one repository apart.
func (d *draft) audience() string {
	switch d.method.name {
	case "aws", "k8s", "gcp", "azure":
		return d.method.name + ":" + d.item.ID
	}
	if d.item.Via == ViaDirect && d.method.name != "vault" {
		return "gate:" + d.item.ID
	}
	return "vault:" + d.item.ID
}

// grant writes the grant, its policy and its tests.
func (d *draft) grant() {
	if d.item.Via != ViaProviso && d.item.Via != ViaDirect || !issues(d.item.CI) {
		return
	}
	g := &Grant{Name: d.item.ID, Package: "plan." + snake(d.item.ID), Now: d.item.Via == ViaProviso}
	yaml, rego, test := "proviso/grant-"+d.item.ID+".yaml", "policy/"+d.item.ID+".rego", "policy/"+d.item.ID+"_test.rego"
	d.p.file(yaml, d.grantHead()+"grants:\n"+d.grantYAML("  "), false)
	body, tests := d.policy(rego, g.Package)
	d.p.file(rego, body, false)
	d.p.file(test, tests, false)
	d.p.parts["grants"] = append(d.p.parts["grants"], d.grantYAML("  "))
	d.p.issuer(d)
	g.Files = []string{yaml, rego, test}
	d.item.Grant = g
}

func (d *draft) grantHead() string {
	when := "The patch asks for this grant."
	switch {
	case d.item.Via == ViaProviso:
	case strings.HasPrefix(d.audience(), "gate:"):
		when = "The target trusts the CI platform only, so nothing enforces this grant: ask it first in the job\n# (proviso token --verify-only --grant " + d.item.ID + "), and policy and record have each use."
	default:
		when = "For the day on which policy is to decide this access too; the patch of this plan goes to the target directly."
	}
	return fmt.Sprintf("# In place of %s in %s: a part of Proviso's configuration.\n# %s\n", oneLine(strings.Join(d.item.Secrets, ", ")), oneLine(d.item.Repository), when)
}

// environment is the one environment of all trusted jobs, "" if there are others.
func (d *draft) environment() string {
	if len(d.trusts) == 1 && d.trusts[0].kind == "environment" {
		return d.trusts[0].name
	}
	return ""
}

func (d *draft) grantYAML(in string) string {
	var b strings.Builder
	runner := "none"
	why := "hosted runners have no evidence of their own"
	if slices.ContainsFunc(d.item.Places, func(p Place) bool { return p.Runner == inventory.RunnerSelfHosted }) {
		runner, why = "optional", "make it required once the runners have an identity (SPIFFE)"
	}
	fmt.Fprintf(&b, "%s%s:\n", in, d.item.ID)
	fmt.Fprintf(&b, "%s  resource:\n%s    service: %s\n", in, in, quoted(slug(d.repo.label())))
	if env := d.environment(); env != "" {
		fmt.Fprintf(&b, "%s    environment: %s\n", in, quoted(env))
	}
	fmt.Fprintf(&b, "%s    tenant: %s\n%s    kind: %s\n", in, quoted(d.tenant()), in, quoted(oneLine(d.item.Resource.Kind)))
	fmt.Fprintf(&b, "%s  policy: %s\n%s  runner: %s # %s\n", in, "plan."+snake(d.item.ID), in, runner, why)
	subject := ""
	if d.namedByGrant() {
		subject = ", subject: " + quoted(grantSubject+d.item.ID)
	}
	fmt.Fprintf(&b, "%s  credential: {kind: jwt, audience: %s%s}\n%s  max_ttl: 15m\n", in, quoted(d.audience()), subject, in)
	return b.String()
}

// grantSubject begins the subject of credentials for jobs whose tokens hold no
// immutable id of a repository. Policy has found out which job asks; the target
// trusts what was decided for this one grant.
const grantSubject = "grant:"

func (d *draft) namedByGrant() bool { return bySubject(d.item.CI) || d.item.CI == inventory.Azure }

// anchor is what ties a request to the item's jobs: the member of identity, and
// the variable with the value that it must have.
func (d *draft) anchor() (member, variable string) {
	repo := d.item.Repository
	switch {
	case d.item.CI == inventory.Azure:
		return "workflow_id", d.p.ask("azure_pipeline", repo, "The number of the pipeline of "+repo+" in Azure DevOps (its definition id).", "the pipeline's URL: _build?definitionId=NUMBER; az pipelines list --query '[].[id,name]'")
	case d.item.CI == inventory.Jenkins:
		return "subject", d.p.ask("subject", "jenkins "+repo, "The sub of the tokens of the job of "+repo+" on Jenkins: the URL of the job, of a multibranch pipeline that of its branch "+d.repo.branch+".", "the job's page: JENKINS_URL/job/NAME/job/BRANCH/")
	case d.item.CI == inventory.CloudBuild:
		return "actor_id", d.p.ask("cloud_build_account", repo, "The numeric id of the service account that builds of "+repo+" run as, and nothing else does.", "gcloud iam service-accounts describe ACCOUNT --format='value(uniqueId)'")
	case cluster(d.item.CI):
		ns, account := d.serviceAccount()
		return "subject", "system:serviceaccount:" + ns + ":" + account
	}
	return "repository_id", d.repositoryID()
}

// serviceAccount asks for what the pods of a repository run as.
func (d *draft) serviceAccount() (namespace, account string) {
	repo := d.item.Repository
	return d.p.ask("pipeline_namespace", repo, "The namespace in which the pipelines of "+repo+" run.", "kubectl get pods --all-namespaces"),
		d.p.ask("pipeline_service_account", repo, "The service account of the pods that used the secrets of "+repo+": best one for nothing else.", "serviceAccountName of the run; else default, which is everybody's in the namespace")
}

// tenant is whose the repository is.
func (d *draft) tenant() string {
	if owner := d.repo.owner(); owner != "" {
		return owner
	}
	return "own"
}

// issuerPart is one issuer of the whole configuration. One issuer may serve
// several owners; then the token says which of them a job belongs to.
type issuerPart struct {
	name, platform, url string // url is a template
	pin, tenantClaim    string
	claims              string   // what a platform without rows of its own calls its claims
	owners, pins        []string // pins are templates
}

// issuer adds the platform's issuer to the whole configuration.
func (p *planner) issuer(d *draft) *issuerPart {
	owner := d.tenant()
	about := owner
	i := issuerPart{platform: platformOf(d.item.CI)}
	i.name = i.platform
	how := ""
	foreign := func(home string) bool { return d.repo.host != "" && d.repo.host != home }
	switch d.item.CI {
	case inventory.GitHub:
		i.url, i.pin, i.tenantClaim, how = "https://token.actions.githubusercontent.com", "repository_owner_id", "repository_owner", "gh api users/"+owner+" --jq .id"
		if foreign("github.com") {
			i.url, i.name = "https://"+d.repo.host+"/_services/token", i.name+"-"+slug(d.repo.host)
		}
	case inventory.Forgejo:
		i.url, i.pin, i.tenantClaim, how = "https://codeberg.org/api/actions", "repository_owner_id", "repository_owner", "the owner's page of the API: /api/v1/users/"+owner
		if foreign("codeberg.org") {
			i.url, i.name = "https://"+d.repo.host+"/api/actions", i.name+"-"+slug(d.repo.host)
		}
	case inventory.GitLab:
		i.url, i.pin, i.tenantClaim, how = "https://gitlab.com", "namespace_id", "namespace_path", "glab api namespaces/"+owner+" --jq .id"
		if foreign("gitlab.com") {
			i.url, i.name = "https://"+d.repo.host, i.name+"-"+slug(d.repo.host)
		}
	case inventory.CircleCI:
		i.url = "https://oidc.circleci.com/org/" + p.ask("circleci_organization", owner, "The id of the CircleCI organisation of "+owner+".", "Organization Settings, Overview, Organization ID")
		i.name += "-" + slug(owner)
		i.pin, how = "oidc.circleci.com/vcs-origin", ""
	case inventory.Buildkite:
		i.url, i.pin, i.tenantClaim, how = "https://agent.buildkite.com", "organization_id", "organization_slug", "Organization Settings, GraphQL API integration, the UUID"
	case inventory.Bitbucket:
		i.url, i.pin, how = "https://api.bitbucket.org/2.0/workspaces/"+slug(owner)+"/pipelines-config/identity/oidc", "workspaceUuid", "Repository settings, OpenID Connect, Workspace UUID (with its braces)"
		i.name += "-" + slug(owner)
	case inventory.Azure:
		i.url = "https://vstoken.dev.azure.com/" + p.ask("azure_devops_organization", owner, "The id of the Azure DevOps organisation of "+owner+".", "the issuer that a federated service connection shows")
		i.name += "-" + slug(owner)
	case inventory.Tekton, inventory.Argo:
		i.name = "kubernetes-" + slug(owner)
		i.url, i.pin, i.claims = "https://"+p.ask("kubernetes_issuer", owner, "The issuer of the cluster that runs the pipelines of "+owner+", without https://. Proviso and the clouds fetch its keys from there.", "kubectl get --raw /.well-known/openid-configuration | jq -r .issuer"), "/kubernetes.io/namespace", "{run_id: /kubernetes.io/pod/uid}"
	case inventory.CloudBuild:
		i.url, i.pin, how = "https://accounts.google.com", "sub", "gcloud iam service-accounts describe ACCOUNT --format='value(uniqueId)'"
	default:
		i.url = "https://" + p.ask(snake(i.platform)+"_issuer", owner, "The issuer of "+i.platform+" jobs of "+owner+", without https://.", "the platform's OpenID Connect page")
		i.name += "-" + slug(owner)
	}
	have := p.issuers[i.url]
	if have == nil {
		have = &i
		p.issuers[i.url] = have
	}
	if cluster(d.item.CI) {
		ns, _ := d.serviceAccount()
		have.pins = appendNew(have.pins, ns)
	}
	if !slices.Contains(have.owners, owner) {
		have.owners = append(have.owners, owner)
		switch {
		case cluster(d.item.CI):
		case have.platform == "circleci" && d.repo.sure:
			have.pins = append(have.pins, d.repo.host+"/"+owner+"/*") // builds of forks have another origin
		case have.pin != "":
			have.pins = append(have.pins, p.ask("owner_id", have.platform+" "+about, "The immutable id of the owner "+owner+" on "+have.platform+" ("+have.pin+").", how))
		}
	}
	return have
}

// yaml writes an issuer of the whole configuration.
func (i *issuerPart) yaml(p *planner, file string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n    platform: %s\n    url: %s\n", i.name, i.platform, p.yamlText(file, i.url))
	if i.pin != "" {
		var pins []string
		for _, t := range i.pins {
			pins = append(pins, p.yamlText(file, t))
		}
		fmt.Fprintf(&b, "    require: {%s: [%s]}\n", i.pin, strings.Join(pins, ", "))
	}
	if i.claims != "" {
		fmt.Fprintf(&b, "    claims: %s\n", i.claims)
	}
	if len(i.owners) == 1 || i.tenantClaim == "" {
		fmt.Fprintf(&b, "    tenant: %s\n", quoted(i.owners[0]))
	} else {
		fmt.Fprintf(&b, "    tenant_claim: %s\n", i.tenantClaim)
	}
	b.WriteString("    role: ci-cd-pipeline\n")
	if i.platform == "github" {
		b.WriteString("    events: [push, schedule, workflow_dispatch, release] # each policy takes only its own\n")
	}
	return b.String()
}

// configuration is a whole configuration of the broker with all grants of the plan.
func (p *planner) configuration() {
	const file = "proviso/proviso.yaml"
	if len(p.parts["grants"]) == 0 {
		return
	}
	url := p.broker()
	var b strings.Builder
	b.WriteString("# Proviso with the grants of this plan. `proviso config check -c proviso.yaml` names\n# what is still to be set. Where you run a broker already, take issuers and grants\n# over into its configuration, and policy/ into its directory of policies.\n")
	fmt.Fprintf(&b, "server:\n  listen: 127.0.0.1:8080 # plain HTTP on loopback only; behind it stands what ends TLS\n  url: %s\nstore: ./data\nissuers:\n", p.yamlText(file, url))
	for _, url := range sortedKeys(p.issuers) {
		b.WriteString(p.issuers[url].yaml(p, file))
	}
	b.WriteString("policy:\n  dir: ../policy\n  zone: UTC\ngrants:\n")
	for _, s := range p.parts["grants"] {
		b.WriteString(s)
	}
	p.file(file, b.String(), false)
}

// broker gives the URL of Proviso, for templates.
func (p *planner) broker() string {
	if p.opt.Broker != "" {
		return strings.TrimSuffix(p.opt.Broker, "/")
	}
	return "https://" + p.ask("proviso_host", "", "The host of Proviso's URL (server.url in its configuration), without https:// and without a slash at the end.", "server.url in its configuration; or --broker URL")
}

// workflowFiles are the pipelines that may ask, for platforms whose tokens name them.
func (d *draft) workflowFiles() (out []string) {
	if d.item.CI != inventory.GitHub {
		return nil
	}
	for _, j := range d.jobs() {
		f := "/" + d.repo.below(j.file)
		if path.Dir(f) == "/.github/workflows" && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}
