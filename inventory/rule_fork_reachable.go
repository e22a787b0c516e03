package inventory

import (
	"fmt"
	"strings"
)

var ruleForkReachable = Rule{
	Name:  "fork-reachable-secret",
	Title: "A credential is there when a stranger makes the job run",
	What: "By the file alone, somebody without write access can make the job run while a secret, an identity token or a service connection is populated: `pull_request_target`, `issue_comment`, `issues`, `workflow_run` after a pull request, without a condition that keeps forks out. " +
		"One step that runs or prints something of the stranger's is then enough to lose the credential; title, branch name and comment are theirs too.",
	Remedy: "Use `pull_request`, where the platform withholds secrets from forks. Where the event is needed, add a condition to the job that an outsider can't meet " +
		"(`github.event.pull_request.head.repo.full_name == github.repository`), or an environment with required reviewers, and move the credential out of the job.",
	References: []string{poisonedPipeline, pipelineAccess, credHygiene, nistBuild},
	check:      checkForkReachable,
}

func checkForkReachable(s *subject) {
	open := s.pathsWhere(func(p *Path) bool {
		// The job's own token and the machine have rules of their own.
		return p.Reach.Trust == ForkReachable && p.Credential.Nature != NatureIdentifier && p.Credential.Kind != PlatformToken && p.Credential.Kind != Ambient
	})
	for _, group := range groupBy(open, func(p *Path) string { return p.Job + "\x00" + p.Step }) {
		first := group[0]
		s.report(found{
			line: first.Line, job: first.Job, step: first.Step, about: strings.Join(namesOf(group), ","), paths: group,
			// One more thing has to go wrong before it is lost: a step below the table.
			severity: severityOf(group...).shift(-1),
			message:  fmt.Sprintf("An outsider can make job %s run (%s) while it holds %s (%s).", first.Job, listOf(first.Reach.Events), heldWords(group), first.ExposedVia),
			fix:      "Take the credential out of this job, or keep outsiders out of it: the event pull_request, a condition on the head repository, or an environment with reviewers.",
		})
	}
}
