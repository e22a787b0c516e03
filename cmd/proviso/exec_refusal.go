package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
)

// complain tells people why there is no credential, and gives the exit code: 1
// for a "no" and for everything that isn't a "yes", 2 when the pipeline's file
// has to be corrected first.
func (a *asking) complain(w io.Writer, err error) int {
	refusal, none := new(client.RefusedError), new(client.NoTokenError)
	switch {
	case errors.As(err, &refusal):
		a.complainRefusal(w, refusal)
	case errors.As(err, &none):
		for i, line := range strings.Split(err.Error(), "\n") {
			if i == 0 {
				say(w, "%s", line)
			} else {
				fmt.Fprintf(w, "  %s\n", client.Printable(line))
			}
		}
		if os.Getenv(client.SocketVariable) != "" {
			fmt.Fprintf(w, "  If this is a deployed workload and no job, let it ask for itself: --workload x509\n")
		}
		return exitMisuse
	default:
		say(w, "%s was not granted: %v", a.grant, err)
	}
	return exitRefused
}

func (a *asking) complainRefusal(w io.Writer, e *client.RefusedError) {
	r := e.Answer
	stage, code := string(r.Stage), string(r.Code)
	if stage == "" {
		stage = "the broker"
	}
	if code == "" {
		code = r.Error
	}
	say(w, "%s was refused at stage %s (%s)", a.grant, stage, code)
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-11s %s\n", label, client.Printable(text))
		}
	}
	if r.Description != "" && len(r.Reasons) == 0 {
		line("why", r.Description)
	}
	for _, reason := range r.Reasons {
		line("failed", sentence(reason))
	}
	line("decision", r.Decision)
	line("what to do", remedy(r.Stage, r.Code, a))
}

// sentence says one failed condition; the broker's own words if it has some.
func sentence(r proviso.Reason) string {
	text := r.Message
	if text == "" {
		found := r.Found
		if found == "" {
			found = "absent"
		}
		text = fmt.Sprintf("%s is %s, the policy wants %s", r.Path, found, r.Wanted)
	}
	if r.File != "" && r.Line > 0 {
		text += fmt.Sprintf(" (%s:%d)", r.File, r.Line)
	}
	return text
}

// remedies say what a developer can do, for the causes that one meets.
var remedies = map[proviso.Code]string{
	proviso.CodeTargetUnknown:         "check the name after --grant; the broker's operator knows which grants there are",
	proviso.CodeScopeNotAllowed:       "ask for less with --scope, or leave it out to get what the grant gives",
	proviso.CodeTTLOutOfRange:         "ask for less time with --ttl",
	proviso.CodeAudMismatch:           "let the job ask for a token whose audience is the broker's own URL (--broker, or --audience if that differs)",
	proviso.CodeAudMultiple:           "let the job's token have one audience, the broker",
	proviso.CodeTokenExpired:          "ask sooner after the job gets its token, or use a platform's endpoint that gives fresh ones",
	proviso.CodeReplay:                "each job token buys one credential per grant: ask once in a job and hand the credential on, or let another job ask",
	proviso.CodeRunnerJobMismatch:     "the job's token and the runner's evidence name different machines; run the job where its token was made",
	proviso.CodeAuditUnavailable:      "nothing is issued while the broker can't record; tell its operator and run the job again later",
	proviso.CodeOverloaded:            "run the job again in a moment",
	proviso.CodeRateLimited:           "run the job again in a moment",
	proviso.CodeTokenTypeMismatch:     "the grant gives another kind of credential; add or leave out --x509",
	proviso.CodeCSRRejected:           "the grant gives another kind of credential; add or leave out --x509",
	proviso.CodeIssuerUnknown:         "the broker does not know this CI platform's issuer; its operator adds it under issuers",
	proviso.CodeEnrichmentUnavailable: "a source of facts did not answer; run the job again when it does",
}

func remedy(stage proviso.Stage, code proviso.Code, a *asking) string {
	if code == proviso.CodeReplay && a.workload != "" {
		return "each JWT-SVID buys one credential per grant: ask by mutual TLS (--workload x509)"
	}
	if text, ok := remedies[code]; ok {
		return text
	}
	switch stage {
	case proviso.StageRequest:
		return "correct the command line; see proviso exec --help"
	case proviso.StageJob:
		if a.workload != "" {
			return "the broker's operator says which workloads may ask for themselves (runners[].callers), and for what (callers of the grant)"
		}
		return "the broker does not accept this job's token; which jobs it accepts (repository, branch, event) is in its configuration of the issuer"
	case proviso.StageRunner:
		if a.workload != "" {
			return "ask with the SVID that the broker's operator has in mind for this workload, by mutual TLS (--workload x509) if the grant wants its key proved"
		}
		if os.Getenv(client.SocketVariable) == "" || a.runner == "none" {
			return "run the job on a runner with a SPIFFE identity, and let " + client.SocketVariable + " name its Workload API's socket"
		}
		return "run the job on a runner that the grant accepts"
	case proviso.StageFacts:
		return "a fact could not be found out; run the job again when its source answers"
	case proviso.StagePolicy:
		return "change what failed and run the job again; the policy's owner can look up the decision by its id"
	case proviso.StageRecord, proviso.StageCredential:
		return "tell the broker's operator the decision's id and run the job again later"
	}
	return "tell the broker's operator"
}
