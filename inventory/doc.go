// Package inventory reads the pipeline definitions of a tree of repositories
// and lists their access paths: which job reaches which resource, with which
// credential, who can make it run, and what replaces the credential.
//
// # What a path is
//
// An access path is (file, job, step) -> resource, with a credential, under a
// reach, on a runner. A credential is one of five kinds:
//
//	static_secret       a long-lived value that the platform, a vault or Kubernetes holds
//	federated           the job's identity token, exchanged at the target
//	platform_token      the token that the CI platform gives to every job
//	ambient             what the machine that runs the job is allowed to do
//	service_connection  a named connection whose credential only the server knows
//
// A value is classified by what consumes it, not by what it is called: keys
// named AWS_* that go to an S3-compatible host are not AWS keys, and a
// variable named GITHUB_TOKEN may hold a personal token. An ARN, an account
// number or a user name that is kept as a secret is an identifier: its path
// has that nature. A reference is declared at one scope and exposed to all
// below it, so a secret in the environment of a job is one path of the job
// (without a step), and a secret in the environment of a workflow is one path
// of each of its jobs. There is one path per credential, job and step.
//
// # What reach is
//
// Reach answers one question: can an outsider make the job run while this
// credential is populated? fork_reachable is yes by the file alone; protected
// needs write access or an approval; unknown is decided outside of the file.
// reach_*.go hold the rules of each platform.
//
// # What is never done
//
// Nothing is executed, nothing outside of the given tree is opened, and no
// value of a secret is printed. What can't be read is a file with the status
// "could not read" and a position; what can't be known is "unknown"; what is
// defined elsewhere (a remote include, a shared library, a name computed at
// run time) is an entry of Unresolved. Nothing is left out silently.
//
// # How it works
//
// Scan walks the tree, recognises files by path and content, and gives each to
// the reader of its platform (parse_*.go). A reader walks the YAML nodes (or,
// for Jenkins, Groovy tokens) with their lines, resolves scopes, and asks the
// consumer tables (consumer_*.go) what a value is used for. What needs more
// than one file (a reusable workflow and its callers, a workflow_run and the
// workflow it follows) is joined at the end, in join.go. What a reader looks at
// besides its own file it notes (looks.go), so that an earlier result can count
// again while all of that is unchanged (keep.go).
package inventory
