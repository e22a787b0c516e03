package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

var rulePersistedToken = Rule{
	Name:  "persisted-token",
	Title: "A token stays on disk for code that isn't trusted",
	What: "actions/checkout leaves the job's token (or the one it was given) on disk for later steps, unless `persist-credentials: false`. It is reported where that matters: the job runs code of a pull request with a token that can write, " +
		"it installs packages whose scripts could read the token while it can write, or it uploads the whole workspace as an artifact. Version 6 keeps the token outside of the workspace, which helps against the last of the three only.",
	Remedy:     "Set `persist-credentials: false`, and hand the token to the one step that pushes.",
	References: []string{credHygiene, poisonedPipeline, nistBuild},
	Systems:    []CI{GitHub, Forgejo},
	check:      checkPersistedToken,
}

// installs matches commands that run scripts of packages.
var installs = regexp.MustCompile(`(?m)^\s*(sudo )?(npm (ci|i|install)\b|yarn( install)?\s*$|pnpm (i|install)\b|pip3? install|python3? -m pip install|poetry install|bundle install|composer install|cargo (build|test|install)|\./gradlew|mvn |make\b)`)

func checkPersistedToken(s *subject) {
	if !s.mentions("/checkout") {
		return
	}
	for _, job := range s.workflow().jobs {
		for _, st := range job.steps {
			if strings.HasSuffix(st.action(), "/checkout") && !strings.EqualFold(st.input("persist-credentials"), "false") {
				s.persisted(job, st)
				break // one finding for a job says it
			}
		}
	}
}

// persisted looks for what in a job could take the token that a checkout leaves.
func (s *subject) persisted(job *flowJob, at *flowStep) {
	token := s.tokenOf(job.id)
	if token == nil {
		return
	}
	given := at.input("token") != "" || at.input("ssh-key") != ""
	strong := given || writes(token.Permission) && !strings.HasPrefix(token.Permission, "default")
	report := func(sev Severity, why string) {
		s.report(found{
			line: at.line, job: job.id, step: at.label, severity: sev, about: "checkout", paths: []*Path{token},
			message: fmt.Sprintf("The checkout of job %s leaves a token (%s) on disk, and %s.", job.id, firstOf(map[bool]string{true: "the one it is given"}[given], token.Permission), why),
			fix:     "Set persist-credentials: false.",
		})
	}
	if fork := s.forkCheckout(job); fork != nil && (given || writes(token.Permission)) && token.Reach.Trust != Protected && privileged(token.Reach.Events) {
		if run := s.runsCode(job, fork); run != nil {
			report(SeverityHigh, stepWords(run)+" runs code of a pull request")
			return
		}
	}
	if up := uploadsAll(job); up != nil && !strings.HasSuffix(at.uses, "@v6") {
		report(severityOf(token).within(SeverityLow, SeverityMedium), stepWords(up)+" uploads the whole workspace, .git with it")
		return
	}
	if !strong {
		return
	}
	for _, st := range job.steps {
		if st.run != nil && installs.MatchString(s.str(st.run)) {
			report(SeverityLow, stepWords(st)+" runs scripts of packages")
			return
		}
	}
}

// uploadsAll gives a step that uploads the workspace itself.
func uploadsAll(job *flowJob) *flowStep {
	for _, st := range job.steps {
		if !strings.HasSuffix(st.action(), "/upload-artifact") || strings.EqualFold(st.input("include-hidden-files"), "false") {
			continue
		}
		// Since version 4.4 hidden files are left out unless they are asked for.
		hidden := strings.EqualFold(st.input("include-hidden-files"), "true") || strings.Contains(st.uses, "@v1") || strings.Contains(st.uses, "@v2") || strings.Contains(st.uses, "@v3")
		switch strings.TrimSpace(st.input("path")) {
		case ".", "./", "*", "**", "./*", "${{ github.workspace }}":
			if hidden {
				return st
			}
		}
	}
	return nil
}
