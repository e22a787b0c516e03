package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var rulePrintedSecret = Rule{
	Name:       "printed-secret",
	Title:      "A secret is printed",
	What:       "A script prints a secret, or its whole environment, to the job's log. Platforms mask the exact value only: its base64 or JSON form, a part of it, or one line of a key is printed in clear, and logs are read by more people, kept for longer, and copied to more places than secrets.",
	Remedy:     "Don't print it. To see whether a secret is set, test it: `[ -n \"$TOKEN\" ] && echo set`.",
	References: []string{credHygiene, visibility, nistBuild},
	check:      checkPrintedSecret,
}

// prints are commands that write their arguments to the log.
var prints = set("echo", "printf", "write-host", "write-output", "write-information", "print")

// quietName matches what prints no value: the name alone, a default, the length, a test.
var quietName = regexp.MustCompile(`\$\{#|\$\{[A-Za-z0-9_]+:?[+]`)

func checkPrintedSecret(s *subject) {
	if s.file.CI == Jenkins || len(s.paths) == 0 || !s.mentions("echo", "printf", "printenv", "Write-", "env") {
		return
	}
	if s.file.CI == GitHub || s.file.CI == Forgejo {
		s.printedInWorkflow()
		return
	}
	names := make(map[string][]*Path)
	for _, p := range s.paths {
		if isSecret(p) && isEnvName(p.Credential.Name) {
			names[p.Credential.Name] = append(names[p.Credential.Name], p)
		}
	}
	if len(names) == 0 {
		return
	}
	for _, root := range s.documents() {
		s.scalars(root, func(_ string, n *node) {
			if !strings.ContainsAny(n.Value, "$%") || !strings.Contains(n.Value, "echo") && !strings.Contains(n.Value, "print") && !strings.Contains(n.Value, "Write-") {
				return
			}
			s.printedIn(n, n.Value, "", "", func(name string) []*Path { return names[name] })
		})
	}
}

// printedInWorkflow looks at the scripts of a workflow with what each step has in its environment.
func (s *subject) printedInWorkflow() {
	f := s.workflow()
	for _, job := range f.jobs {
		for _, st := range job.steps {
			if st.run == nil {
				continue
			}
			env := make(map[string]string)
			for _, list := range [][]flowValue{f.env, job.env, st.env} {
				for _, v := range list {
					env[v.name] = v.text
				}
			}
			text, holes := namedHoles(s.str(st.run))
			s.printedIn(st.run, text, job.id, st.label, func(name string) []*Path {
				value, ok := holes[name]
				if !ok {
					value = env[name]
				}
				return s.secretsIn(job.id, value)
			})
		}
	}
}

// namedHoles puts variables in the place of the placeholders of a script, so that it can be read as shell.
func namedHoles(text string) (string, map[string]string) {
	holes := make(map[string]string)
	var b strings.Builder
	last := 0
	for i, p := range placeholders(text) {
		name := fmt.Sprintf("__H%d", i)
		holes[name] = text[p.start:p.end]
		b.WriteString(text[last:p.start] + "${" + name + "}" + strings.Repeat("\n", strings.Count(text[p.start:p.end], "\n")))
		last = p.end
	}
	return b.String() + text[last:], holes
}

// secretsIn gives the paths of a job for the secrets that a text with placeholders names.
func (s *subject) secretsIn(job, text string) []*Path {
	if !strings.Contains(text, "secrets") {
		return nil
	}
	return s.pathsWhere(func(p *Path) bool {
		return p.Job == job && isSecret(p) && (strings.Contains(text, "toJSON(secrets") && p.Credential.Name == "*" || containsWord(text, "secrets."+p.Credential.Name))
	})
}

// printedIn reports the commands of a script that print a secret. secrets gives the paths behind a variable.
func (s *subject) printedIn(n *node, text, job, step string, secrets func(string) []*Path) {
	commands := parseShell(text)
	piped := make(map[*command]bool)
	for _, c := range commands {
		if c.from != nil {
			piped[c.from] = true
		}
	}
	for _, c := range commands {
		if !prints[strings.ToLower(c.name())] || piped[c] || c.to != "" || c.subst {
			continue
		}
		line := strings.Join(c.words[1:], " ")
		if strings.Contains(line, "add-mask::") || strings.Contains(line, "##vso[task.setvariable") || strings.Contains(line, "::set-output") || quietName.MatchString(line) {
			continue
		}
		for _, v := range shellVars(line) {
			paths := secrets(v.name)
			if len(paths) == 0 {
				continue
			}
			p := paths[0]
			where := job
			if where == "" {
				where = p.Job
			}
			at := s.lineIn(n, -1, p.Credential.Name)
			if isBlock(n) {
				at = n.Line + 1 + c.line
			}
			s.report(found{
				line: at, job: where, step: step, severity: severityOf(paths...).within(SeverityMedium, SeverityHigh), about: p.Credential.Name, paths: slices.Clone(paths),
				message: fmt.Sprintf("Job %s prints the secret %s to its log (%s).", where, p.Credential.Name, c.name()),
				fix:     "Remove the command; to check that a secret is set, test whether it is empty.",
			})
		}
	}
}
