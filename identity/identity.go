package identity

import (
	"github.com/proviso-ci/proviso/internal/document"
)

// KindJob is the kind of an identity that a CI platform's token proved.
const KindJob = "job"

// What Identity.Audience says.
const (
	AudienceBroker   = "broker"   // the token was made for this broker and nobody else
	AudiencePlatform = "platform" // the platform gives every relying party the same audience
)

// Identity is input.identity: what a verified token proves about who asks, in
// the same words for every platform. A value that the platform doesn't give is
// absent, never "", 0 or false. Identifiers are strings, also where a platform
// sends numbers. Prefer the identifiers: names can be changed, and taken over
// by somebody else afterwards.
type Identity struct {
	// Kind says what kind of party asks: "job", or "spiffe" for a workload that
	// asks for itself with its SVID.
	Kind string `json:"kind"`
	// Issuer is the URL of the token's issuer, exactly as the token has it.
	Issuer string `json:"issuer"`
	// Platform is the CI platform: github, gitlab, buildkite, circleci,
	// bitbucket, azure-devops, jenkins, hcp-terraform, google-cloud-build,
	// codefresh, semaphore, spacelift, forgejo, harness or generic; spiffe for a
	// workload.
	Platform string `json:"platform"`
	// Audience is "broker" when the token was made for this broker alone, and
	// "platform" when the platform gives one audience to everybody: then any
	// other party that gets such a token could show it here.
	Audience string `json:"audience"`
	// Subject is the token's sub as it is. Its form differs between platforms,
	// organisations and repositories; show it, don't decide on it.
	Subject string `json:"subject,omitempty"`
	// Tenant is whose job this is, from the issuer's configuration: a constant,
	// or the claim that tenant_claim names.
	Tenant string `json:"tenant,omitempty"`
	// Role is the role that the issuer's configuration gives to its jobs.
	Role string `json:"role,omitempty"`
	// Repository is the repository's name as the platform writes it:
	// "owner/name", "group/subgroup/project", "host/owner/name" or a URL.
	Repository string `json:"repository,omitempty"`
	// RepositoryID is the platform's immutable identifier of the repository (of
	// the project, where the platform binds one repository to one project).
	RepositoryID string `json:"repository_id,omitempty"`
	// OwnerID is the immutable identifier of who owns the repository or
	// pipeline: organisation, group, workspace, account or space.
	OwnerID string `json:"owner_id,omitempty"`
	// Ref is the git reference, in full ("refs/heads/main") wherever the
	// platform says enough to write it in full. For a pull request it is a
	// reference of the request's own ("refs/pull/15/merge") or absent.
	Ref string `json:"ref,omitempty"`
	// RefType is "branch" or "tag"; absent for pull requests, and where the
	// platform doesn't say which it is.
	RefType string `json:"ref_type,omitempty"`
	// Branch is the branch's short name ("main"); absent unless ref_type is
	// "branch". A pull request has no branch here, also where the platform
	// claims the branch that the request is for: its code isn't the branch's.
	Branch string `json:"branch,omitempty"`
	// Tag is the tag's short name; absent unless ref_type is "tag".
	Tag string `json:"tag,omitempty"`
	// Commit is the commit's hash, in hexadecimal, that the platform checked out.
	Commit string `json:"commit,omitempty"`
	// Event is what started the job, in the platform's own word: push, schedule,
	// webhook, TRACKED, apply ... Absent where the token doesn't say.
	Event string `json:"event,omitempty"`
	// PullRequest is true when the job was started by a pull or merge request,
	// so that its code may be nobody's who is trusted; false when the platform
	// says what started the job and it was none; absent when it doesn't say.
	PullRequest *bool `json:"pull_request,omitempty"`
	// Workflow is the pipeline's definition by name: a workflow file with its
	// ref, a pipeline's slug, a workspace, a stack.
	Workflow string `json:"workflow,omitempty"`
	// WorkflowID is the platform's identifier of the pipeline's definition.
	WorkflowID string `json:"workflow_id,omitempty"`
	// JobWorkflow is the file that defines this job when that isn't the
	// pipeline's own: a reusable workflow with its ref, a policy's file.
	JobWorkflow string `json:"job_workflow,omitempty"`
	// Environment is the deployment environment that the platform admitted the
	// job to, after its own protection rules.
	Environment string `json:"environment,omitempty"`
	// RunID is the platform's identifier of the pipeline's run.
	RunID string `json:"run_id,omitempty"`
	// RunAttempt counts the attempts of one run from 1.
	RunAttempt int `json:"run_attempt,omitempty"`
	// JobID is the platform's identifier of the job within the run.
	JobID string `json:"job_id,omitempty"`
	// Actor is the name of the account that started the run.
	Actor string `json:"actor,omitempty"`
	// ActorID is the immutable identifier of that account.
	ActorID string `json:"actor_id,omitempty"`
	// Protected says whether the platform protects the branch or tag against
	// unreviewed change; absent when it doesn't say, and for pull requests.
	Protected *bool `json:"protected,omitempty"`
	// Attestation is how a workload proved itself: spiffe-x509 (with its key, by
	// mutual TLS) or spiffe-jwt (with a token). Absent for jobs.
	Attestation string `json:"attestation,omitempty"`
	// Attributes are the variables of the path by which a workload is known.
	// Absent for jobs.
	Attributes map[string]string `json:"attributes,omitempty"`
	// PlatformRunner is what the platform says about the machine. It is the
	// platform's word in the job's token, not the runner's own evidence, which
	// is input.runner.
	PlatformRunner PlatformRunner `json:"platform_runner,omitzero"`
}

// PlatformRunner is what a CI platform's token says about the machine that runs
// the job. Package runner compares it with the runner's own evidence.
type PlatformRunner struct {
	// ID is the platform's identifier of the runner or agent (GitLab's
	// runner_id, Buildkite's agent_id).
	ID string `json:"id,omitempty"`
	// Environment is "self-hosted" or "hosted" (by the platform); absent when
	// the platform doesn't say or says something else.
	Environment string `json:"environment,omitempty"`
	// Cluster and Queue are where the agent takes its jobs from (Buildkite).
	Cluster string `json:"cluster,omitempty"`
	Queue   string `json:"queue,omitempty"`
}

// IsZero reports whether the platform says nothing about the machine.
func (r PlatformRunner) IsZero() bool { return r == PlatformRunner{} }

// Document gives the identity as it stands in input.identity: the same as the
// struct's JSON. The raw claims are not in it.
func (id *Identity) Document() document.Value {
	// In canonical order and without what is absent, so that nothing is moved.
	d := members{make([]document.Field, 0, 30)}
	d.text("actor", id.Actor)
	d.text("actor_id", id.ActorID)
	d.text("attestation", id.Attestation)
	if len(id.Attributes) > 0 {
		d.add("attributes", textsDocument(id.Attributes))
	}
	d.text("audience", id.Audience)
	d.text("branch", id.Branch)
	d.text("commit", id.Commit)
	d.text("environment", id.Environment)
	d.text("event", id.Event)
	d.text("issuer", id.Issuer)
	d.text("job_id", id.JobID)
	d.text("job_workflow", id.JobWorkflow)
	d.text("kind", id.Kind)
	d.text("owner_id", id.OwnerID)
	d.text("platform", id.Platform)
	if !id.PlatformRunner.IsZero() {
		d.add("platform_runner", id.PlatformRunner.document())
	}
	d.truth("protected", id.Protected)
	d.truth("pull_request", id.PullRequest)
	d.text("ref", id.Ref)
	d.text("ref_type", id.RefType)
	d.text("repository", id.Repository)
	d.text("repository_id", id.RepositoryID)
	d.text("role", id.Role)
	if id.RunAttempt != 0 {
		d.add("run_attempt", document.IntOf(int64(id.RunAttempt)))
	}
	d.text("run_id", id.RunID)
	d.text("subject", id.Subject)
	d.text("tag", id.Tag)
	d.text("tenant", id.Tenant)
	d.text("workflow", id.Workflow)
	d.text("workflow_id", id.WorkflowID)
	return document.ObjectOf(d.fields...)
}

func (r PlatformRunner) document() document.Value {
	d := members{make([]document.Field, 0, 4)}
	d.text("cluster", r.Cluster)
	d.text("environment", r.Environment)
	d.text("id", r.ID)
	d.text("queue", r.Queue)
	return document.ObjectOf(d.fields...)
}

// members collects what is there of an object.
type members struct{ fields []document.Field }

func (m *members) add(name string, v document.Value) {
	m.fields = append(m.fields, document.Member(name, v))
}

func (m *members) text(name, s string) {
	if s != "" {
		m.add(name, document.StringOf(s))
	}
}

func (m *members) truth(name string, b *bool) {
	if b != nil {
		m.add(name, document.BoolOf(*b))
	}
}
