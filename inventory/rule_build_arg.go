package inventory

import (
	"fmt"
	"strings"
)

var ruleBuildArg = Rule{
	Name:       "secret-build-argument",
	Title:      "A secret becomes part of an image",
	What:       "A secret is passed to an image build as a build argument (`--build-arg`, `build-args:`). Build arguments are kept in the history of the image and in its provenance: whoever can pull the image reads the secret.",
	Remedy:     "Pass it as a build secret, which exists only while one instruction runs: `--secret id=token,env=TOKEN` (or the input `secrets:` of the action) and `RUN --mount=type=secret,id=token`.",
	References: []string{credHygiene, artifactIntegrity, nistBuild},
	check: func(s *subject) {
		for _, p := range s.buildArguments() {
			s.report(found{
				line: p.Line, job: p.Job, step: p.Step, severity: severityOf(p).within(SeverityMedium, SeverityCritical), about: p.Credential.Name, paths: []*Path{p},
				message: fmt.Sprintf("The secret %s is a build argument in job %s: it stays in the history of the image.", p.Credential.Name, p.Job),
				fix:     "Pass it with --secret and mount it in the instruction that needs it.",
			})
		}
	},
}

// buildArguments gives the paths whose value goes into an image.
func (s *subject) buildArguments() []*Path {
	if !s.mentions("build-arg", "build_arg", "buildArg") {
		return nil
	}
	var lines []argLine
	if s.file.CI == GitHub || s.file.CI == Forgejo {
		lines = s.stepArguments()
	} else {
		lines = s.textArguments()
	}
	return s.pathsWhere(func(p *Path) bool {
		via := strings.ToLower(p.ExposedVia)
		if !isSecret(p) || p.Job == compositeJob {
			return false // the caller of an action decides what its inputs hold
		}
		if strings.Contains(via, ": build-args") || strings.Contains(via, ": build_args") {
			return true
		}
		for _, l := range lines {
			if l.takes(p) {
				return true
			}
		}
		return false
	})
}

// argLine is one build argument: its text, and where it stands.
type argLine struct {
	job, text string
	line      int // when the job is not known
}

// takes reports whether the argument holds the secret of a path, by its name or by the variable that carries it.
func (l argLine) takes(p *Path) bool {
	if l.job != "" && l.job != p.Job || l.job == "" && (p.Line < l.line-8 || p.Line > l.line+8) {
		return false
	}
	names := []string{p.Credential.Name}
	if _, name, ok := strings.Cut(p.ExposedVia, "env: "); ok {
		names = append(names, name)
	}
	for _, n := range names {
		if containsWord(l.text, "secrets."+n) || containsWord(l.text, "$"+n) || strings.Contains(l.text, "${"+n+"}") || strings.Contains(l.text, "$("+n+")") {
			return true
		}
	}
	return false
}

// stepArguments gives the build arguments in the scripts of a workflow.
func (s *subject) stepArguments() []argLine {
	var out []argLine
	for _, job := range s.workflow().jobs {
		for _, st := range job.steps {
			out = append(out, argumentsIn(job.id, s.str(st.run))...)
		}
	}
	return out
}

// textArguments gives the build arguments of any other file by their lines.
func (s *subject) textArguments() []argLine {
	var out []argLine
	for i, line := range strings.Split(s.text(), "\n") {
		for _, a := range argumentsIn("", line) {
			a.line = i + 1
			out = append(out, a)
		}
	}
	return out
}

// argumentsIn cuts the values of --build-arg out of a script.
func argumentsIn(job, text string) []argLine {
	var out []argLine
	for {
		i := strings.Index(text, "--build-arg")
		if i < 0 {
			return out
		}
		text = text[i+len("--build-arg"):]
		arg, _, _ := strings.Cut(text, "\n")
		if j := strings.Index(arg, " --"); j >= 0 {
			arg = arg[:j]
		}
		out = append(out, argLine{job: job, text: arg})
	}
}
