package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

var ruleSystemToken = Rule{
	Name:  "system-token-exposed",
	Title: "The build service's token is handed to scripts",
	What: "Azure Pipelines keeps its job token from scripts unless they ask for it. `persistCredentials: true` leaves it in the git configuration for all later steps, and `env: X: $(System.AccessToken)` gives it to a script. " +
		"The token acts as the project's (or the collection's) build service, which in many organisations may read every repository, push, and queue builds.",
	Remedy:     "Limit the job authorization scope to the project and to the repositories that the pipeline names, hand the token only to the one task that needs it, and push with `git -c http.extraheader` in that step rather than with persisted credentials.",
	References: []string{pipelineAccess, credHygiene, nistGoals},
	Systems:    []CI{Azure},
	check:      checkSystemToken,
}

var (
	persistTrue  = regexp.MustCompile(`(?i)^\s*-?\s*persistCredentials:\s*["']?true`)
	mappedToken  = regexp.MustCompile(`(?i)^\s*([A-Za-z_][A-Za-z0-9_]*)\s*:\s*["']?\$\(System\.AccessToken\)`)
	commentStart = regexp.MustCompile(`^\s*#`)
)

func checkSystemToken(s *subject) {
	text := s.text()
	if !strings.Contains(strings.ToLower(text), "persistcredentials") && !strings.Contains(strings.ToLower(text), "system.accesstoken") {
		return
	}
	for i, line := range strings.Split(text, "\n") {
		if commentStart.MatchString(line) {
			continue
		}
		at := s.nearest(i+1, PlatformToken)
		f := found{line: i + 1, paths: at}
		if len(at) > 0 {
			f.job, f.step = at[0].Job, at[0].Step
		}
		if persistTrue.MatchString(line) {
			f.severity, f.about = SeverityMedium, "persistCredentials"
			f.message = "The checkout leaves the job's token in the git configuration, where every later step of the job can take it."
			f.fix = "Remove persistCredentials; give the token to the one step that pushes."
			s.report(f)
		} else if m := mappedToken.FindStringSubmatch(line); m != nil {
			f.severity, f.about = SeverityLow, m[1]
			f.message = fmt.Sprintf("A step gets the job's token as %s: it acts as the build service of the project.", m[1])
			f.fix = "Keep it to the step that needs it, and limit the job authorization scope."
			s.report(f)
		}
	}
}

// nearest gives the path of a kind that stands on a line, or closely above or below it; nil when there is none.
func (s *subject) nearest(line int, kind Kind) []*Path {
	for _, p := range s.paths {
		if p.Credential.Kind == kind && p.Line >= line-2 && p.Line <= line+2 {
			return []*Path{p}
		}
	}
	return nil
}
