package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// scriptUse is a variable that a script reads without having set it itself.
type scriptUse struct {
	name string // the variable
	line int    // from 0, in the script
	use  use    // what the command does with it; zero when unknown
	at   int    // the line of the command
	// slot is true when the command takes the value as a credential or an
	// identifier at this very place, false when it merely mentions it.
	slot bool
}

// actor is a command that acts with an identity that the script does not name: the cloud identity of the job or of its runner.
type actor struct {
	family string // "aws", "gcp", "azure", "docker", "k8s", "npm", "pypi", "cargo", "sigstore", ...
	line   int
	res    Resource
	via    string
}

// exchange is a command that trades an identity token, or asks for one.
type exchange struct {
	line  int
	res   Resource
	token string // the variable that holds the token, "" when the platform hands it over
	via   string
}

// fetched is a value that a command reads from a secrets manager.
type fetched struct {
	name, source string
	line         int
	res          Resource // the manager
	family       string   // whose identity reads it: "aws", "gcp", "azure", "vault", "buildkite", ...
	use          use      // what it is for, when the variable that takes it tells
}

// fetchedUse is a use of a variable that holds a value which a script, this one or an earlier one, read from a secrets manager.
type fetchedUse struct {
	name, source string
	line         int
	use          use
}

// fetchedMark begins what a variable stands for that holds a fetched value: the mark, the source, a zero byte, the value's name.
const fetchedMark = "\x00fetched:"

// mark is what a variable stands for that holds the value.
func (f fetched) mark() string { return fetchedMark + f.source + "\x00" + f.name }

// facts are what a script does that an inventory wants to know.
type facts struct {
	uses      []scriptUse
	actors    []actor
	exchanges []exchange
	fetched   []fetched
	held      []fetchedUse
	// exported are variables that the script hands to later steps, and what they are made of.
	exported map[string][]string
	// sets are variables that the script sets for itself and for scripts in the same shell.
	sets map[string][]string
	// handedOn are variables that the script puts into its environment under another name, where a
	// command may take them that doesn't name them: export TF_VAR_password=$DB_PASSWORD; terraform apply.
	handedOn []scriptUse
	// addresses are variables that the script makes an address or a plain word of.
	addresses map[string]string
}

// scriptReader reads one script.
type scriptReader struct {
	script string
	facts  *facts
	// alias says what a variable is made of: other variables, or nothing (it is derived or literal).
	alias map[string][]string
	outer map[string][]string // of the surroundings, which alias shadows
	text  map[string]string   // of variables that hold an address
	plain map[string]string   // of variables that hold a plain word
	seen  map[scriptUse]bool
	// endpoint is set when AWS commands of the script talk to another host.
	endpoint string
	// inner is how many values were fetched before the substitutions of the command that is read: X=$(aws ssm ...).
	inner int
	at    int // the line of the command that is read
	depth int // of scripts inside of commands
}

// readScript finds what a script uses. alias are the variables of the
// surroundings that stand for others: an env entry KEY: $OTHER is
// {"KEY": {"OTHER"}}; a variable with a literal value is {"KEY": {}}.
func readScript(script string, alias map[string][]string) *facts {
	return readScriptIn(script, alias, nil)
}

// readScriptIn is readScript in an environment that sets variables to literals.
func readScriptIn(script string, alias map[string][]string, literals map[string]string) *facts {
	r := &scriptReader{script: script, facts: &facts{}, seen: make(map[scriptUse]bool), text: make(map[string]string)}
	if !worthReading(script) {
		return r.facts
	}
	r.alias, r.outer = make(map[string][]string), alias
	r.plain = make(map[string]string)
	for name, text := range literals {
		r.plain[name] = plainText(text)
		if text = r.addressText(text); text != "" {
			r.text[name] = text
		}
	}
	for _, c := range parseShell(script) {
		r.command(c)
	}
	return r.facts
}

// worthReading skips scripts that neither use a variable nor call a tool that acts with an ambient identity.
func worthReading(s string) bool {
	if strings.ContainsAny(s, "$%") {
		return true
	}
	for _, w := range actorHints {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

var actorHints = []string{"aws", "gcloud", "gsutil", "bq ", "az ", "docker", "kubectl", "helm", "publish", "push", "upload", "cosign", "terraform", "vault", "buildkite-agent", "cdk", "sam ", "oidc", "op ", "login", "ssh", "scp", "deploy", "release", "git@", "skaffold", "pulumi", "serverless", "sls", "firebase", "gh "}

// command reads one command: assignments first, then what it consumes, then what it merely mentions.
func (r *scriptReader) command(c *command) {
	r.at = c.line
	if !c.subst {
		defer func() { r.inner = len(r.facts.fetched) }()
	}
	for _, a := range c.assigns {
		r.assign(c, a)
	}
	switch c.name() {
	case "":
		return
	case "read":
		for _, w := range c.positional(1, "-p", "-d", "-n", "-t", "-u", "-a") {
			r.alias[w], r.plain[w] = nil, ""
		}
		return
	case "for", "select":
		r.alias[c.arg(1)], r.plain[c.arg(1)] = nil, ""
	case "[", "[[", "test":
		return // to ask whether a variable is set is not to use it
	case "unset", "set", "shopt", "declare", "local", "export", "readonly", "typeset":
		return
	case "echo", "printf", "cat", "tee", "write-host", "Write-Host", "write-output", "Write-Output", "add-content", "Add-Content", "out-file":
		if r.handOver(c) {
			return
		}
	}
	for i := 1; i < len(c.words); i++ {
		c.words[i] = r.withAddresses(c.words[i])
	}
	slots := consume(c)
	for _, s := range slots.values {
		s.use.res.Name = r.withPlain(s.use.res.Name)
		r.value(c, s.text, c.line, s.use)
		r.valueOfFile(s.text, c.line, s.use)
	}
	r.writes(c)
	for _, a := range slots.actors {
		a.line, a.res.Name = c.line, r.withPlain(a.res.Name)
		if a.family == "aws" && r.endpoint != "" {
			a.family, a.res = "s3-compatible", Resource{"storage/s3-compatible", r.endpoint}
		}
		r.facts.actors = append(r.facts.actors, a)
	}
	for _, x := range slots.exchanges {
		x.line = c.line
		for _, v := range shellVars(x.token) {
			if names := r.resolve(v.name); len(names) > 0 {
				x.token = names[0]
			}
		}
		x.token = strings.Trim(x.token, "${}\"")
		r.facts.exchanges = append(r.facts.exchanges, x)
	}
	for _, f := range slots.fetched {
		f.line, f.name, f.res.Name = c.line, r.withPlain(f.name), r.withPlain(f.res.Name)
		if c.gets != "" { // $x = Get-Secret ...
			f.use = f.use.or(envUse(c.gets))
			r.alias[c.gets] = []string{f.mark()}
		}
		r.facts.fetched = append(r.facts.fetched, f)
	}
	r.rest(c, slots.tool)
	r.nested(c)
}

// assign reads NAME=value: in a shell of its own it defines a variable, before a command it is what the command gets.
func (r *scriptReader) assign(c *command, a assign) {
	if len(c.words) > 0 {
		switch c.words[0] {
		case "export", "set", "declare", "local", "readonly", "setx":
		default:
			for _, v := range shellVars(a.raw) {
				r.mention(v.name, a.line, envUse(a.name), envUse(a.name).known())
			}
			return
		}
	}
	made := r.madeOf(a.raw)
	if len(c.words) > 0 && !strings.ContainsAny(a.raw, "`") && !strings.Contains(a.raw, "$(") {
		eachVar(a.raw, func(name string, below int) {
			for _, n := range r.resolve(name) {
				if !strings.HasPrefix(n, fetchedMark) {
					r.facts.handedOn = append(r.facts.handedOn, scriptUse{name: n, line: a.line + below, at: r.at, use: envUse(a.name)})
				}
			}
		})
	}
	if a.name == "AWS_ENDPOINT_URL" || a.name == "AWS_ENDPOINT_URL_S3" {
		r.endpoint = a.raw
	}
	if a.name == "AWS_WEB_IDENTITY_TOKEN_FILE" {
		r.valueOfFile(a.raw, a.line, secretUse("cloud/aws", "")) // the SDK exchanges what is in it
	}
	u := knownEnv(a.name)
	if u.nature == NatureCredential && len(c.words) > 0 {
		r.value(c, a.raw, a.line, u) // export TOOL_TOKEN=$OTHER: the tool takes it by that name
	}
	if strings.Contains(a.raw, "$(") || strings.Contains(a.raw, "`") {
		for i := r.inner; i < len(r.facts.fetched); i++ {
			f := &r.facts.fetched[i]
			if made = append(made, f.mark()); !f.use.known() {
				f.use = f.use.or(envUse(a.name))
			}
		}
	}
	if before, ok := r.before(a.name); ok && c.maybe {
		for _, n := range before {
			if !slices.Contains(made, n) {
				made = append(made, n) // it may keep what it had
			}
		}
	}
	r.alias[a.name] = made
	text, plain := r.addressText(a.raw), plainText(a.raw)
	if c.maybe {
		plain = "" // or what it had
	}
	if text != "" || plain != "" || r.text[a.name] != "" || r.plain[a.name] != "" {
		r.text[a.name], r.plain[a.name] = text, plain
		if r.facts.addresses == nil {
			r.facts.addresses = make(map[string]string)
		}
		r.facts.addresses[a.name] = firstOf(text, plain)
	}
	if r.facts.sets == nil {
		r.facts.sets = make(map[string][]string)
	}
	r.facts.sets[a.name] = made
}

// before gives what a variable stands for before an assignment: what this
// script or its surroundings gave it, or itself where the platform sets it.
func (r *scriptReader) before(name string) ([]string, bool) {
	if to, ok := r.alias[name]; ok {
		return to, true
	}
	if to, ok := r.outer[name]; ok {
		return to, true
	}
	return []string{name}, strings.HasPrefix(name, "CI_")
}

// madeOf gives the variables that a value is made of. A value that a command
// computes is made of what it reads only when the command passes it through.
func (r *scriptReader) madeOf(raw string) []string {
	out := []string{}
	if i := strings.Index(raw, "$("); i >= 0 && !isAzureMacro(raw[i:]) || strings.Contains(raw, "`") {
		for _, w := range []string{"aws ", "curl", "gcloud", "az ", "vault ", "jq -n", "op ", "buildkite-agent", "kubectl", "git ", "date", "http"} {
			if strings.Contains(raw, w) {
				return out
			}
		}
	}
	for _, v := range shellVars(raw) {
		out = append(out, r.resolve(v.name)...)
	}
	return out
}

// resolve gives the variables behind a name: itself when the script and its surroundings don't set it.
func (r *scriptReader) resolve(name string) []string {
	if to, ok := r.alias[name]; ok {
		return to
	}
	if to, ok := r.outer[name]; ok {
		return to
	}
	return []string{name}
}

// value records the variables of a text that a command takes as a credential or identifier.
func (r *scriptReader) value(c *command, text string, line int, u use) {
	eachVar(text, func(name string, below int) {
		if below += line; c.lines != nil {
			below = c.lineOf(name)
		}
		if at := c.stdinLine(name); at > 0 {
			below = at
		}
		r.mention(name, below, u, true)
	})
}

// stdinLine gives the line of a variable that stands in the here-document of a command and nowhere else in it; 0 for others.
func (c *command) stdinLine(name string) int {
	if c.stdin == "" || !strings.Contains(c.stdin, "\n") || strings.Contains(c.text(), name) {
		return 0
	}
	at := 0
	eachVar(c.stdin, func(n string, below int) {
		if n == name && at == 0 {
			at = c.line + 1 + below
		}
	})
	return at
}

// eachVar visits the variables of a text with the number of lines above each.
func eachVar(text string, visit func(name string, below int)) {
	below, last := 0, 0
	for _, v := range shellVars(text) {
		below += strings.Count(text[last:v.start], "\n")
		last = v.start
		visit(v.name, below)
	}
}

// mention records one variable.
func (r *scriptReader) mention(name string, line int, u use, slot bool) {
	made := r.resolve(name)
	for _, n := range made {
		if strings.HasPrefix(n, fetchedMark) {
			r.holds(n, line, u, slot)
			continue
		}
		s := scriptUse{name: n, line: line, at: r.at, use: u, slot: slot}
		if len(made) > 1 && natureOf(n) == NatureIdentifier {
			s.use.nature = NatureIdentifier // the user name in user:password
		}
		if !r.seen[s] {
			r.seen[s] = true
			r.facts.uses = append(r.facts.uses, s)
		}
	}
}

// holds records a use of a variable that holds a fetched value.
func (r *scriptReader) holds(mark string, line int, u use, slot bool) {
	if !slot && !u.known() {
		u = use{}
	}
	source, name, _ := strings.Cut(strings.TrimPrefix(mark, fetchedMark), "\x00")
	h := fetchedUse{name, source, line, u}
	if !slices.Contains(r.facts.held, h) {
		r.facts.held = append(r.facts.held, h)
	}
}

// rest records what the command mentions beyond its known slots, with the resource of the tool when it has one.
func (r *scriptReader) rest(c *command, tool use) {
	line := c.line
	for i, w := range c.words {
		if strings.IndexByte(w, '$') < 0 && strings.IndexByte(w, '%') < 0 {
			continue
		}
		at, files := c.wordLine(i), fileNames(c, w)
		eachVar(w, func(name string, below int) {
			if !files[name] {
				r.mention(name, at+below, tool, false)
			}
		})
	}
	eachVar(c.stdin, func(name string, below int) { r.mention(name, line+1+below, tool, false) })
}

// setsVariable matches how a script of Azure Pipelines begins to hand a value on.
var setsVariable = regexp.MustCompile(`(?i)##vso\[task\.setvariable variable=`)

// handOver reads commands that print: values for later steps ($GITHUB_ENV,
// $BASH_ENV, ##vso), and files that hold a credential (~/.npmrc, ~/.ssh/id_rsa).
func (r *scriptReader) handOver(c *command) bool {
	text := strings.Join(c.words[1:], " ")
	if c.stdin != "" {
		text += "\n" + c.stdin
	}
	to := c.to
	if c.name() == "tee" && c.from != nil && len(c.from.words) > 0 {
		text = strings.Join(c.from.words[1:], " ") + "\n" + c.from.stdin
	}
	if c.name() == "tee" || strings.EqualFold(c.name(), "add-content") || strings.EqualFold(c.name(), "out-file") {
		to += " " + c.text()
	}
	if at := setsVariable.FindStringIndex(text); at != nil {
		rest := text[at[1]:]
		if end := strings.IndexAny(rest, ";]"); end > 0 {
			r.export(rest[:end], rest[end:])
			for _, v := range shellVars(rest[end:]) {
				r.mention(v.name, c.line, use{via: "task.setvariable"}.or(envUse(rest[:end])), false)
			}
			return true
		}
	}
	if strings.Contains(to, "GITHUB_ENV") || strings.Contains(to, "BASH_ENV") || strings.Contains(to, "GITHUB_OUTPUT") || strings.Contains(to, "dotenv") {
		// echo "export X=\$Y" >> $BASH_ENV: the variable is read when the file is.
		for _, l := range strings.FieldsFunc(strings.ReplaceAll(text, "\\$", "$"), func(b rune) bool { return b == '\n' || b == ';' }) {
			l = strings.TrimSpace(l)
			for _, p := range []string{"-e ", "-n ", "export "} {
				l = strings.TrimSpace(strings.TrimPrefix(l, p))
			}
			if name, ok := assignment(l); ok {
				r.export(name, l[len(name)+1:])
				if u := knownEnv(name); u.nature == NatureCredential {
					r.value(c, l[len(name)+1:], c.line, u)
				}
				if strings.Contains(to, "BASH_ENV") {
					r.alias[name] = r.madeOf(l[len(name)+1:])
				}
			}
		}
		// The values are still mentioned here: a secret that is put into the environment is exposed.
		for _, v := range shellVars(text) {
			if !strings.HasSuffix(v.name, "_ENV") && v.name != "GITHUB_OUTPUT" {
				r.mention(v.name, c.line, use{via: c.name() + " to " + strings.Trim(strings.TrimSpace(to), "${}\"")}, false)
			}
		}
		return true
	}
	return false
}

// export records a variable for later steps.
func (r *scriptReader) export(name, value string) {
	if r.facts.exported == nil {
		r.facts.exported = make(map[string][]string)
	}
	r.facts.exported[name] = r.madeOf(value)
}
