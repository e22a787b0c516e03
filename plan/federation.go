package plan

import (
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// federation is what a target has to know about who signs the item's identity:
// the CI platform, or Proviso. Its texts are templates.
type federation struct {
	id       string // "github", "gitlab", "proviso": names resources
	title    string
	url      string // the issuer
	audience string // what the job asks for, unless the target has a fixed one
	subjects []string
	like     bool // a subject has a wildcard
	// claims are conditions besides the subject, for targets that can read them.
	claims [][2]string
}

// nobody ends a subject that no token has: an empty list means different things
// to different targets.
const nobody = ":nobody-until-a-branch-or-an-environment-is-named"

// host is the issuer without its scheme: AWS' name of it.
func (f *federation) host() string {
	return strings.TrimPrefix(strings.TrimPrefix(f.url, "http://"), "https://") // the lab's Proviso, on loopback
}

// federation says who vouches for the item's jobs.
func (d *draft) federation() *federation {
	if d.item.Via == ViaProviso {
		return d.throughProviso()
	}
	switch d.item.CI {
	case inventory.GitHub, inventory.Forgejo:
		return d.actionsFederation()
	case inventory.GitLab:
		return d.gitlabFederation()
	default:
		return d.otherFederation()
	}
}

// otherFederation is that of the platforms with a subject of their own form.
func (d *draft) otherFederation() *federation {
	i := d.p.issuer(d)
	f := &federation{id: strings.ReplaceAll(i.platform, "-", "_"), title: i.platform, url: i.url, audience: d.p.broker()}
	switch d.item.CI {
	case inventory.Azure:
		f.audience = entraAudience // the platform has no other
		f.subjects = []string{d.p.ask("subject", "azure-devops "+d.item.Repository, "The sub of the tokens that the pipeline of "+d.item.Repository+" gets without a service connection.", "decode one: its payload's sub")}
		d.note("An Azure pipeline's token doesn't say what triggered the run: limit who can start it (branch control, approvals), or use --route proviso, where policy sees the branch.")
		return f
	case inventory.Jenkins:
		_, sub := d.anchor()
		f.subjects, f.audience = []string{sub}, d.targetAudience()
		return f
	case inventory.Tekton, inventory.Argo:
		_, sub := d.anchor()
		f.id, f.title = "kubernetes", "the pipelines' cluster"
		f.subjects, f.audience = []string{sub}, d.targetAudience()
		d.note("Whoever may make pods with this service account in its namespace gets the same: give the pipelines one of their own, and let nobody else make pods there.")
		return f
	default:
	}
	id := d.repositoryID()
	switch d.item.CI {
	case inventory.CircleCI:
		org := strings.TrimPrefix(i.url, "https://oidc.circleci.com/org/")
		f.audience = org
		// The second form of the token, which says where the code is from: builds of forks have another origin.
		head := "org/" + org + "/project/" + id + "/user/*/vcs-origin/"
		for _, s := range d.trusts {
			if d.repo.sure && s.kind != "environment" {
				f.subjects = append(f.subjects, head+d.repo.host+"/"+d.item.Repository+"/vcs-ref/"+strings.TrimPrefix(s.claim(), "ref:"))
			}
		}
		if f.like = true; len(f.subjects) == 0 {
			f.subjects = []string{head + nobody}
		}
		d.note("CircleCI can't tell a run from a person on the machine (rerun with SSH); policy can, by --route proviso.")
	case inventory.Buildkite:
		slugs := d.p.ask("buildkite_pipeline", d.item.Repository, "The organisation and pipeline of "+d.item.Repository+" on Buildkite, as organization:ORG:pipeline:PIPELINE.", "the pipeline's URL: buildkite.com/ORG/PIPELINE")
		f.audience = "sts.amazonaws.com"
		for _, s := range d.trusts {
			if s.kind == "branch" {
				f.subjects = append(f.subjects, slugs+":ref:refs/heads/"+s.name+":commit:*")
			}
		}
		if len(f.subjects) == 0 {
			f.subjects = []string{slugs + nobody}
		}
		f.like = true
		d.note("Buildkite's branch is what the build was started for; whoever can start builds by the API chooses it.")
	case inventory.Bitbucket:
		f.audience = d.p.ask("bitbucket_audience", d.item.Repository, "The audience of Bitbucket's tokens for "+d.item.Repository+".", "Repository settings, OpenID Connect, Audience")
		env := d.p.ask("bitbucket_environment", d.item.Repository, "The UUID of the deployment environment of "+d.item.Repository+" that may use the credential.", "Repository settings, OpenID Connect, the list of environments")
		f.subjects, f.like = []string{id + ":" + env + ":*"}, true
		d.note("Bitbucket's subject has no branch: restrict the deployment environment to one (Repository settings, Deployments).")
	default:
		f.subjects = []string{d.p.ask("subject", f.id+" "+d.item.Repository, "The exact sub of the job's tokens of "+d.item.Repository+" on "+f.id+".", "decode one token of the job: its payload's sub")}
	}
	return f
}

// entraAudience is what Entra expects in tokens of others.
const entraAudience = "api://AzureADTokenExchange"

// targetAudience is what a job writes into a token for the target, where the
// target doesn't say otherwise.
func (d *draft) targetAudience() string {
	switch d.method.name {
	case "aws":
		return "sts.amazonaws.com"
	case "azure":
		return entraAudience
	case "vault":
		return d.audience()
	}
	return d.p.broker()
}

// throughProviso is Proviso's own token: its subject is the repository by its
// immutable id, its audience the one grant. Branch and event were policy's matter.
func (d *draft) throughProviso() *federation {
	i := d.p.issuer(d)
	f := &federation{id: "proviso", title: "Proviso", url: d.p.broker(), audience: d.audience()}
	if d.namedByGrant() {
		f.subjects = []string{grantSubject + d.item.ID}
	} else {
		f.subjects = []string{"job:" + i.name + ":" + d.tenant() + ":" + d.repositoryID()}
	}
	return f
}

// actionsFederation is GitHub's or Forgejo's. The first part of sub has two
// forms (repositories that were created, renamed or transferred after 15 July
// 2026 carry ids in it), and only one of them is ever right: it is asked for.
func (d *draft) actionsFederation() *federation {
	name := d.item.Repository
	i := d.p.issuer(d)
	f := &federation{id: strings.ReplaceAll(i.name, "-", "_"), title: i.name, url: i.url, audience: "sts.amazonaws.com"}
	what := "How the sub of tokens of " + name + " begins: repo:OWNER@OWNER_ID/NAME@REPOSITORY_ID if it was created, renamed or transferred after 15 July 2026 or has opted in; else repo:" + name + "."
	how := "gh api repos/" + name + ` --jq '"repo:\(.owner.login)@\(.owner.id)/\(.name)@\(.id)"' (the form with ids); a token's sub, where in doubt`
	prefix := d.p.ask("subject", name, what, how)
	for _, s := range d.trusts {
		f.subjects = append(f.subjects, prefix+":"+s.claim())
		f.like = f.like || !s.exact
	}
	if len(f.subjects) == 0 {
		f.subjects = []string{prefix + nobody}
	}
	f.claims = [][2]string{{"repository_id", d.repositoryID()}}
	return f
}

// gitlabFederation is GitLab's: the subject names the project and the ref.
func (d *draft) gitlabFederation() *federation {
	i := d.p.issuer(d)
	f := &federation{id: strings.ReplaceAll(i.name, "-", "_"), title: i.name, url: i.url, audience: i.url}
	for _, s := range d.trusts {
		kind := s.kind
		name := s.name
		if kind == "environment" { // GitLab's sub has none
			kind, name = "branch", d.repo.branch
		}
		f.subjects = append(f.subjects, "project_path:"+d.item.Repository+":ref_type:"+kind+":ref:"+name)
		f.like = f.like || !s.exact
	}
	if len(f.subjects) == 0 {
		f.subjects = []string{"project_path:" + d.item.Repository + nobody}
	}
	f.claims = [][2]string{{"project_id", d.repositoryID()}, {"ref_protected", "true"}}
	return f
}

// exact are the subjects without a wildcard; others is how many have one.
func (f *federation) exact() (out []string, others int) {
	for _, s := range f.subjects {
		if strings.Contains(s, "*") {
			others++
		} else {
			out = append(out, s)
		}
	}
	return out, others
}
