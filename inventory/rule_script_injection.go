package inventory

import (
	"fmt"
	"regexp"
	"slices"
)

var ruleScriptInjection = Rule{
	Name:  "script-injection",
	Title: "Text of a stranger becomes part of a script beside credentials",
	What: "An expression such as `${{ github.event.issue.title }}` stands in a script. The platform replaces it before the shell reads the script, so a title, a branch name or a comment that holds shell syntax is run. " +
		"Only values that an outsider writes are reported, and only in jobs that hold a credential which the same outsider can make run.",
	Remedy:     "Hand the value over in the environment of the step (`env: TITLE: ${{ github.event.issue.title }}`) and use it as `\"$TITLE\"`: the shell then sees data, not syntax.",
	References: []string{poisonedPipeline, credHygiene, nistBuild},
	Systems:    []CI{GitHub, Forgejo},
	check:      checkScriptInjection,
}

// strangersText matches names of values that somebody without write access writes freely.
var strangersText = regexp.MustCompile(`github\.event\.(issue|discussion|pull_request)\.(title|body)|github\.event\.(comment|review|review_comment)\.body|github\.event\.pull_request\.head\.(ref|label|repo\.default_branch)|github\.head_ref|github\.event\.pages\.[^.]*\.page_name|github\.event\.(head_commit|commits[^.]*)\.(message|author\.(name|email))|github\.event\.workflow_run\.(head_branch|head_commit\.(message|author\.(name|email))|display_title)`)

func checkScriptInjection(s *subject) {
	if !s.mentions("github.event.", "github.head_ref") {
		return
	}
	for _, job := range s.workflow().jobs {
		held := s.strangersReach(job.id)
		for _, st := range job.steps {
			n, text := s.script(st)
			for _, hole := range placeholders(text) {
				name := strangersText.FindString(hole.body)
				if name == "" || len(held) == 0 {
					continue
				}
				s.report(found{
					line: s.lineIn(n, hole.start, name), job: job.id, step: st.label, severity: worst(severityOf(held...), SeverityMedium), about: name, paths: held,
					message: fmt.Sprintf("The script takes %s as text, and who writes it can run commands in job %s, which holds %s.", name, job.id, heldWords(held)),
					fix:     "Pass the value through env: and use the variable in quotation marks.",
				})
			}
		}
	}
}

// strangersReach gives the credentials of a job that are populated when an
// outsider makes it run, and that are worth taking.
func (s *subject) strangersReach(job string) []*Path {
	return slices.DeleteFunc(s.jobPaths(job), func(p *Path) bool {
		return p.Reach.Trust != ForkReachable || p.Credential.Nature == NatureIdentifier ||
			p.Credential.Kind == PlatformToken && (p.Step != "" || !writes(p.Permission) || !privileged(p.Reach.Events))
	})
}

// heldWords says what credentials are held.
func heldWords(paths []*Path) string {
	_, words := forkCodeSeverity(paths, true)
	return words
}
