package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

// Version is the version of the document. A reader of another version must refuse it.
const Version = 1

// Inventory is the document that Scan makes: what was read, what was found,
// and what could not be seen. Its JSON form is docs/schema/inventory.schema.json.
type Inventory struct {
	Version int `json:"version"`
	// Root is the directory that file names are relative to, as it was given.
	Root string `json:"root"`
	// Files are all pipeline definitions that were met, read or not.
	Files []File `json:"files"`
	// Paths are ordered by file, line, job, step and credential.
	Paths []Path `json:"paths"`
	// Findings are what should be changed.
	Findings []Finding `json:"findings"`
	// Unresolved is what is defined where this scan could not look.
	Unresolved []Unresolved `json:"unresolved"`
	// Trusts are the other ends of federations: what clouds, vaults, clusters and brokers accept.
	Trusts []trust.Trust `json:"trusts,omitempty"`
	// Edges join federated paths with the trusts that they can use, or name.
	Edges []Edge `json:"edges,omitempty"`
	// Suppressed are findings that a baseline or an ignore put aside.
	Suppressed []Suppressed `json:"suppressed,omitempty"`
	// Since is the comparison with an earlier inventory, when one was asked for.
	Since *Diff `json:"since,omitempty"`
}

// CI is a CI system.
type CI string

// The systems that are read.
const (
	GitHub     CI = "github-actions"
	Forgejo    CI = "forgejo-gitea-actions"
	GitLab     CI = "gitlab-ci"
	CircleCI   CI = "circleci"
	Azure      CI = "azure-pipelines"
	Bitbucket  CI = "bitbucket-pipelines"
	Buildkite  CI = "buildkite"
	Jenkins    CI = "jenkins"
	Tekton     CI = "tekton"
	Argo       CI = "argo-workflows"
	Drone      CI = "drone"
	Woodpecker CI = "woodpecker"
	Travis     CI = "travis-ci"
	CloudBuild CI = "google-cloud-build"
	CodeBuild  CI = "aws-codebuild"
)

// Status says how much of a file was read.
type Status string

// The states of a file.
const (
	StatusRead        Status = "read"
	StatusPartly      Status = "partly read"    // a part is broken; Detail and Line say where
	StatusUnreadable  Status = "could not read" // nothing of it could be used
	StatusUnsupported Status = "not analysable" // a program that generates a pipeline, such as Starlark
)

// File is one pipeline definition.
type File struct {
	File   string `json:"file"`
	CI     CI     `json:"ci"`
	Status Status `json:"status"`
	// Detail says why a file was not read, or not wholly; Line says where, 0 when it is the whole file.
	Detail string `json:"detail,omitempty"`
	Line   int    `json:"line,omitempty"`
	// Hash is the SHA-256 of the content, for incremental scans.
	Hash string `json:"sha256,omitempty"`
}

// Path is one access path.
type Path struct {
	// ID is stable: it depends on file, job, step, credential and resource, not on the line.
	ID   string `json:"id"`
	File string `json:"file"`
	Line int    `json:"line"`
	CI   CI     `json:"ci"`
	Job  string `json:"job"`
	// Step is its name, else its `uses`, else its id; absent when the whole job is meant, or the step has none of them:
	// two such steps of a job are two paths, which their lines tell apart.
	Step       string     `json:"step,omitempty"`
	Credential Credential `json:"credential"`
	Resource   Resource   `json:"resource"`
	// Permission is the effective scopes of a platform token.
	Permission string `json:"permission,omitempty"`
	// ExposedVia says how the credential comes to the job: "workflow env", "step with: password", ...
	ExposedVia string `json:"exposed_via"`
	Reach      Reach  `json:"reach"`
	Runner     Runner `json:"runner"`
	// Migration is what to use in its place; absent where nothing better is known.
	Migration string `json:"migration,omitempty"`
	// Repository is the owner and the name of the repository, where the tree tells (.git/config).
	Repository string `json:"repository,omitempty"`
	// Identity is what the token of a federated path says, as far as the file tells.
	Identity *JobIdentity `json:"identity,omitempty"`
	// Live is set when a running Proviso serves the path already.
	Live *Live `json:"live,omitempty"`
}

// Kind is the kind of a credential.
type Kind string

// The five kinds.
const (
	StaticSecret      Kind = "static_secret"
	Federated         Kind = "federated"
	PlatformToken     Kind = "platform_token"
	Ambient           Kind = "ambient"
	ServiceConnection Kind = "service_connection"
)

// Nature tells a credential from an identifier that is kept like one.
type Nature string

// The two natures.
const (
	NatureCredential Nature = "credential"
	NatureIdentifier Nature = "identifier"
)

// Credential is what a job shows to the resource. It never holds a value.
type Credential struct {
	Kind Kind `json:"kind"`
	// Name is the secret's, variable's or connection's; "context:NAME" and
	// "group:NAME" are sets; "*" is all secrets; "oidc:github" is an identity
	// token; "unknown" is a name that only a run can
	// tell; where a part of it is known, the rest stands as the file writes it: "APP_${{ inputs.target }}_KEY".
	Name   string `json:"name"`
	Nature Nature `json:"nature,omitempty"`
	// Source is where a static value comes from when it is not the CI platform: "vault", "azure-key-vault:NAME", "kubernetes", ...
	Source string `json:"source,omitempty"`
}

// Resource is what is reached. Kind is "cloud/aws", "registry/npm", ...; both are "unknown" rather than absent.
type Resource struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Trust is who can make a job run with its credential populated.
type Trust string

// The three answers.
const (
	ForkReachable Trust = "fork_reachable" // an outsider, by the file alone
	Protected     Trust = "protected"      // needs write access or an approval
	TrustUnknown  Trust = "unknown"        // decided outside of the file
)

// Reach is the answer and the events that it follows from.
type Reach struct {
	Trust Trust `json:"trust"`
	// Events are the platform's own names: "push", "pull_request_target", "schedule", ...
	Events []string `json:"events"`
	// Environment is the deployment environment whose rules, outside of the file, guard the job.
	Environment string `json:"environment,omitempty"`
}

// Runner is the machine that runs the job.
type Runner struct {
	// Kind is "hosted", "self-hosted" or "unknown".
	Kind   string   `json:"kind"`
	Labels []string `json:"labels"`
}

// The kinds of a runner.
const (
	RunnerHosted     = "hosted"
	RunnerSelfHosted = "self-hosted"
	RunnerUnknown    = "unknown"
)

// Severity orders findings.
type Severity string

// The severities, highest first.
const (
	SeverityCritical Severity = "critical"
	SeverityHigh     Severity = "high"
	SeverityMedium   Severity = "medium"
	SeverityLow      Severity = "low"
	SeverityInfo     Severity = "info"
)

// Finding is something that should be changed.
type Finding struct {
	// ID is stable, for baselines; Rule names the rule: "fork-reachable-secret".
	ID       string   `json:"id"`
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Job      string   `json:"job,omitempty"`
	Step     string   `json:"step,omitempty"`
	// Message says what is wrong here; Fix says what to write instead.
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
	// Paths are the ids of the access paths concerned.
	Paths []string `json:"paths,omitempty"`
	// References are the controls that it concerns: "CICD-SEC-6", "NIST SP 800-204D 5.1.1", ...
	References []string `json:"references,omitempty"`
}

// Unresolved is a part of a definition that lies outside of what was scanned.
type Unresolved struct {
	File string `json:"file"`
	Line int    `json:"line"`
	// CI is absent for what is no pipeline, such as a repository that could not be fetched.
	CI  CI     `json:"ci,omitempty"`
	Job string `json:"job,omitempty"`
	// Kind is "reusable workflow", "include", "template", "orb", "shared library", "secret name", ...
	Kind string `json:"kind"`
	// Name is what is missing, as the file names it.
	Name string `json:"name"`
	// Why says what could not be seen because of it.
	Why string `json:"why"`
}

// unknown stands for what can't be known from the file.
const unknown = "unknown"

// id makes the stable id of a path.
func (p *Path) id() string {
	return stableID("path", p.File, p.Job, p.Step, string(p.Credential.Kind), p.Credential.Name, p.Resource.Kind, p.Resource.Name)
}

// stableID hashes its parts; the separator can't occur in a line of text.
func stableID(prefix string, parts ...string) string {
	return prefix + "-" + stableDigest(parts...)[:16]
}

func stableDigest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// sortDocument puts the document in its canonical order, so that two scans of the same tree print the same bytes.
func (inv *Inventory) sortDocument() {
	slices.SortFunc(inv.Files, func(a, b File) int { return strings.Compare(a.File, b.File) })
	slices.SortStableFunc(inv.Paths, func(a, b Path) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if c := strings.Compare(a.Job, b.Job); c != 0 {
			return c
		}
		if c := strings.Compare(a.Step, b.Step); c != 0 {
			return c
		}
		return strings.Compare(a.Credential.Name, b.Credential.Name)
	})
	slices.SortStableFunc(inv.Unresolved, func(a, b Unresolved) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	slices.SortStableFunc(inv.Findings, func(a, b Finding) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
}
