package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const provisoBinding = "string(credentialsId: 'proviso', variable: 'PROVISO_ID_TOKEN')"

// bind changes one binding and the commands that read its variables.
func (f *jenkinsFile) bind(b *bound, d *draft) error {
	fail := func(err error) error { return &whyNot{f.line(b.from), err.Error()} }
	if b.kind == bindsAWS && !d.through() {
		if err := f.bindRole(b, d); err != nil {
			return fail(err)
		}
		return nil
	}
	with, t, err := f.takeover(b, d)
	if err != nil {
		return fail(err)
	}
	used, err := f.commands(b, t)
	switch {
	case err != nil:
		return err
	case !used && b.env:
		return &whyNot{f.line(b.from), "no command names " + b.secret + ": a script or a tool reads it; bind the credential by withCredentials around the step that needs it, and plan again"}
	case !used:
		return &whyNot{f.line(b.from), "no command in the block names the variable"}
	}
	f.put(b, with)
	for _, l := range f.g.literals {
		if !t.all && l.from > b.scope[0] && l.to < b.scope[1] && f.shellStep(l) && !slices.ContainsFunc(t.names, func(n string) bool { return len(f.g.names(n, l.from, l.to)) > 0 }) {
			d.note("A command that reads %s without naming it (a script of the repository's) no longer finds it: name it there first.", oneLine(t.names[0]))
		}
	}
	return nil
}

// put writes another binding in the place of one, or none where an earlier
// item's patch has put the same there.
func (f *jenkinsFile) put(b *bound, with string) {
	c := change{b.from, b.to, with}
	if b.kind != bindsAgent && (with == "" || with == provisoBinding && !b.env && strings.Contains(f.g.text[b.start:b.scope[0]], provisoBinding)) {
		c.with = ""
		after := len(f.g.text) - len(strings.TrimLeft(f.g.text[c.to:], " \n"))
		before := len(strings.TrimRight(f.g.text[:c.from], " \n"))
		switch {
		case b.env:
		case f.g.text[after] == ',':
			c.to = len(f.g.text) - len(strings.TrimLeft(f.g.text[after+1:], " \n"))
		case f.g.text[before-1] == ',':
			c.from = before - 1
		}
	}
	f.changes = append(f.changes, c)
}

// bindRole lets the AWS tools of a block assume a role with the job's token:
// variables that they read by themselves, so that no command changes.
func (f *jenkinsFile) bindRole(b *bound, d *draft) error {
	for _, name := range awsKeyNames {
		for _, at := range f.g.names(name, b.scope[0], b.scope[1]) {
			if _, in := f.g.in(at); !f.g.comment(at) && !(b.env && (f.bindsKey(at) || in && f.g.around(at) >= 0 && f.g.word(f.g.around(at)) == "credentials")) {
				return fmt.Errorf("line %d names %s itself; with a role there is a session token beside the keys, which has to go along", f.line(at), name)
			}
		}
	}
	if b.secret != "" && len(d.halves()) == 1 {
		return fmt.Errorf("the other half of the key is not bound beside it")
	}
	role := d.role()
	if !roleARN.MatchString(role) {
		role = "${" + strings.TrimPrefix(role, "$") + "}"
	}
	switch {
	case b.env && b.secret == "AWS_SECRET_ACCESS_KEY":
		f.put(b, `AWS_ROLE_ARN = "`+role+`"`)
	case b.env && b.secret == "AWS_ACCESS_KEY_ID":
		f.put(b, "AWS_WEB_IDENTITY_TOKEN_FILE = credentials('"+d.jenkinsToken()+"')")
	case b.env, b.secret != "" && b.secret != "AWS_SECRET_ACCESS_KEY":
		f.put(b, "")
	default:
		f.changes = append(f.changes, change{b.start, b.start, `withEnv(["AWS_ROLE_ARN=` + role + `", "AWS_ROLE_SESSION_NAME=` + d.item.ID + `"]) { `}, change{b.scope[1], b.scope[1], " }"})
		f.put(b, "file(credentialsId: '"+d.jenkinsToken()+"', variable: 'AWS_WEB_IDENTITY_TOKEN_FILE')")
	}
	return nil
}

// bindsKey reports whether a variable of the AWS keys is bound by an environment block there.
func (f *jenkinsFile) bindsKey(at int) bool {
	line := f.g.text[at:]
	return keyBinding.MatchString(line[:strings.IndexByte(line, '\n')])
}

var keyBinding = regexp.MustCompile(`^AWS_\w+\s*=\s*credentials\(`)

// jenkinsToken is the id of the credential with the token for a target.
func (d *draft) jenkinsToken() string { return d.item.ID + "-token" }

// tokenFiles are the variables with the token for a target.
var tokenFiles = map[string]string{"gcp": "GCP_ID_TOKEN_FILE", "azure": "AZURE_FEDERATED_TOKEN_FILE", "vault": "VAULT_ID_TOKEN_FILE"}

// takeover gives the binding that takes the place, and what becomes of commands.
func (f *jenkinsFile) takeover(b *bound, d *draft) (with string, t *takeover, err error) {
	with = provisoBinding
	switch {
	case d.method.fetch:
		if t, err = d.jenkinsFetch(b); err != nil {
			return "", nil, err
		}
	case d.method.name == "k8s" && b.kind == bindsFile:
		t = &takeover{names: []string{b.secret}, keeps: true, change: leave, before: append([]string{stopAtOnce}, d.kubeconfig(b.secret)...)}
	case d.logsIn() || d.method.name == "aws":
		file := tokenFiles[d.method.name]
		if !d.through() {
			with = "file(credentialsId: '" + d.jenkinsToken() + "', variable: '" + file + "')"
		}
		if t, err = d.login(`cat "$` + file + `"`); err != nil {
			return "", nil, err
		}
		if err := d.jenkinsLogin(b, t); err != nil {
			return "", nil, err
		}
	default:
		return "", nil, fmt.Errorf("for Jenkins there are steps, and no patch, for this")
	}
	t.before[0] = "set +x -e # nothing after a refusal, and no value in the log"
	if b.kind == bindsAgent {
		with = "withCredentials([" + provisoBinding + "])"
	}
	if b.env {
		if with = "PROVISO_ID_TOKEN = credentials('proviso')"; !d.asks {
			with = tokenFiles[d.method.name] + " = credentials('" + d.jenkinsToken() + "')"
		} else if f.bindsProviso(b) {
			with = ""
		}
		if d.asks {
			d.note("The token of an environment block is made when the block begins, and Proviso takes it for ten minutes (max_age): where a later stage needs it, bind it there with withCredentials.")
		}
	}
	return with, t, nil
}

// jenkinsLogin fits a login to a binding: commands name its variables.
func (d *draft) jenkinsLogin(b *bound, t *takeover) error {
	switch {
	case b.kind == bindsKey, b.kind == bindsAgent, b.both != "":
		return fmt.Errorf("the credential is bound as %s, which no login stands in for", b.kind)
	case b.kind == bindsPair && d.method.name == "azure":
		return fmt.Errorf("the application's id is a half of the credential: bind it as a text of its own, and plan again")
	}
	if b.secret != "" {
		t.readFrom(d.method.name, []string{b.secret})
	}
	switch d.method.name {
	case "gcp":
		if !d.through() { // the binding has put the token there already
			t.before = append([]string{""}, d.gcpConfiguration("$"+tokenFiles["gcp"])...)
		}
	case "azure":
		if !d.through() { // the binding has put the token there already
			t.before = []string{"", "unset ARM_CLIENT_SECRET AZURE_CLIENT_SECRET", `export ARM_USE_OIDC=true ARM_OIDC_TOKEN_FILE_PATH="$AZURE_FEDERATED_TOKEN_FILE"`}
		}
		if b.kind == bindsEntra {
			t.before = append(t.before, `export AZURE_CLIENT_ID="`+d.setting("CLIENT_ID", "the application's (client) id")+`" AZURE_TENANT_ID="`+d.setting("TENANT_ID", "the directory's (tenant) id")+`" AZURE_SUBSCRIPTION_ID="`+d.setting("SUBSCRIPTION_ID", "the subscription's id")+`"`)
		}
	}
	t.all = true
	return nil
}

// jenkinsFetch is how a value comes just in time into the variables of a binding.
func (d *draft) jenkinsFetch(b *bound) (*takeover, error) {
	if b.kind == bindsAWS || b.kind == bindsEntra {
		return nil, fmt.Errorf("the credential is bound as %s, and no value stands in for it", b.kind)
	}
	t := d.fetched(b.secret)
	t.names = slices.DeleteFunc([]string{b.secret, b.user, b.both}, func(n string) bool { return n == "" })
	script := d.fetchScript()
	t.before = append([]string{stopAtOnce}, script[:3]...)
	read := func(field string) string {
		return `vault kv get -mount=ci -field=` + field + ` ` + d.secretPath()
	}
	var after []string
	switch b.kind {
	case bindsFile:
		t.before = append(t.before, d.intoFile(b.secret, "value")...)
		d.note("The credential is a file: put its content into the secrets manager (value=@FILE in place of value=-).")
	case bindsKey:
		t.before = append(t.before, b.secret+`="$(mktemp)"`, "export "+b.secret, `trap 'rm -f "$`+b.secret+`"' EXIT`, `printf '%s\n' "$(`+read("value")+`)" > "$`+b.secret+`"`)
	case bindsAgent:
		t.before = append(t.before, script[3])
		after = []string{`eval "$(ssh-agent -s)" > /dev/null`, `trap 'ssh-agent -k > /dev/null' EXIT`, `printf '%s\n' "$value" | ssh-add -q -`, "unset value"}
		t.all = true
		d.note("The key goes into an agent of each command's own, and never into a file.")
	default:
		t.before = append(t.before, script[3])
		after = []string{"export " + b.secret + `="$value"`}
	}
	if b.user != "" {
		t.before = append(t.before, b.user+`="$(`+read("username")+`)"`, "export "+b.user)
		d.note("The credential is a user name and a secret: put the name into the secrets manager too (username=NAME beside value).")
	}
	t.before = append(append(t.before, script[4]), after...)
	if b.both != "" {
		t.before = append(t.before, "export "+b.both+`="$`+b.user+`:$`+b.secret+`"`)
	}
	d.note("Jenkins masks only what it holds itself, and prints each command of a shell (sh -x): the patched commands run without that.")
	return t, nil
}

// bindsProviso reports whether the environment of a scope has Proviso's token
// already: an earlier item's patch put it there.
func (f *jenkinsFile) bindsProviso(b *bound) bool {
	at := strings.Index(f.g.text[b.scope[0]:b.from], "PROVISO_ID_TOKEN = credentials(")
	if at < 0 {
		at = strings.Index(f.g.text[b.to:b.scope[1]], "PROVISO_ID_TOKEN = credentials(")
		return at >= 0 && f.g.around(b.to+at) == f.g.around(b.from)
	}
	return f.g.around(b.scope[0]+at) == f.g.around(b.from)
}

// commands changes the sh steps of a scope that read a binding's variables. Where
// none names them, the tools of the block find them by themselves: all are changed.
func (f *jenkinsFile) commands(b *bound, t *takeover) (used bool, err error) {
	scripts, err := f.named(b, t)
	if err != nil {
		return false, err
	}
	if b.env && t.all && f.g.holds("stage", b.scope) {
		return false, &whyNot{f.line(b.from), "an environment block gives the credential to every command of every stage: bind it by withCredentials around those that need it, and plan again"}
	}
	if t.all || len(scripts) == 0 && b.kind != bindsAgent && !(b.env && f.g.holds("stage", b.scope)) {
		if at, word := f.stranger(b.scope); word != "" {
			return false, &whyNot{f.line(at), fmt.Sprintf("%s in the block may need the credential too, and gets no commands of a shell", oneLine(word))}
		}
		for _, l := range f.g.literals {
			if l.from > b.scope[0] && l.to < b.scope[1] && f.shellStep(l) && !slices.Contains(scripts, l) {
				scripts = append(scripts, l)
			}
		}
		t.all = true
	}
	for _, l := range f.g.literals {
		if t.behind != nil && l.from > b.scope[1] && f.shellStep(l) && t.behind.MatchString(l.text(f.g.text)) {
			return false, &whyNot{f.line(l.from), "a command behind the block uses the login that the block left behind; with the job's identity each block logs in itself: move the command into it"}
		}
	}
	for _, l := range scripts {
		if err := f.script(l, t); err != nil {
			return false, &whyNot{f.line(l.from), err.Error()}
		}
	}
	return len(scripts) > 0, nil
}

// named lists the sh steps that name a variable of a binding.
func (f *jenkinsFile) named(b *bound, t *takeover) (scripts []literal, err error) {
	for _, v := range []string{b.secret, b.user, b.both} {
		if v == "" {
			continue
		}
		for _, at := range f.g.names(v, b.scope[0], b.scope[1]) {
			if f.g.comment(at) || at >= b.from && at < b.to {
				continue
			}
			l, ok := f.g.in(at)
			switch {
			case !ok, !f.shellStep(l):
				return nil, &whyNot{f.line(at), "the variable is read by Groovy itself, or by a step that is no shell"}
			case !slices.Contains(scripts, l):
				scripts = append(scripts, l)
			}
		}
	}
	return scripts, nil
}

// known are steps and words of Groovy that need no credential of the block.
var known = strings.Fields(`sh echo script dir if else for while switch try catch finally return stage steps withEnv withCredentials timeout retry
	catchError warnError error sleep timestamps ansiColor container parallel unstash stash archiveArtifacts junit fileExists readFile writeFile
	readJSON readYaml deleteDir cleanWs input string file usernamePassword sshUserPrivateKey usernameColonPassword case assert when expression not environment
	branch tag anyOf allOf changeRequest buildingTag triggeredBy beforeAgent unsuccessful cache wrap post always success failure unstable cleanup changed options when tools parameters environment label credentials
	docker.image inside trim split tokenize toLowerCase toUpperCase contains replaceAll replace stripIndent agent equals isEmpty startsWith endsWith size each add join println print lock`)

var called = regexp.MustCompile(`([A-Za-z_][\w.?]*)[ \t]*?(\(|\{|'|"|[ \t]\w+[ \t]*:[^:])`)

// stranger finds a call in a block that may need its credential.
func (f *jenkinsFile) stranger(scope [2]int) (at int, word string) {
	for _, m := range called.FindAllStringSubmatchIndex(f.g.text[scope[0]:scope[1]], -1) {
		at, word := scope[0]+m[2], f.g.text[scope[0]+m[2]:scope[0]+m[3]]
		last := word[strings.LastIndexAny(word, ".?")+1:]
		if !f.g.code[at] || slices.Contains(known, word) || slices.Contains(known, last) && word != last || f.argumentName(at, word) {
			continue
		}
		return at, word
	}
	return 0, ""
}

// argumentName reports whether a word is the name of an argument or a type, and no call.
func (f *jenkinsFile) argumentName(at int, word string) bool {
	rest := strings.TrimLeft(f.g.text[at+len(word):], " \t")
	return strings.HasPrefix(rest, ":") || word == "def" || word == "String" || word == "in" || word == "new"
}

var shellCall = regexp.MustCompile(`(?:^|[^\w.])sh\b\s*\(?\s*(?:\w+\s*:\s*(?:'[^'\n]*'|"[^"\n]*"|\w+)\s*,\s*)*(?:script\s*:\s*)?$`)

// shellStep reports whether a string is the command of an sh step.
func (f *jenkinsFile) shellStep(l literal) bool {
	before := f.g.text[max(0, l.from-300):l.from]
	m := shellCall.FindStringIndex(before)
	if m == nil {
		return false
	}
	at := max(0, l.from-300) + m[0] + strings.Index(before[m[0]:], "sh")
	return f.g.code[at]
}

// script puts commands before those of a step, and changes those that a login replaces.
func (f *jenkinsFile) script(l literal, t *takeover) error {
	if rest := strings.TrimLeft(f.g.text[l.to:], " "); strings.HasPrefix(rest, "+") {
		return fmt.Errorf("the command is put together from several strings; write it as one, and plan again")
	}
	written, err := commandText(l, f.g.text)
	if err != nil {
		return err
	}
	text, err := written.release(t.names)
	if err != nil {
		return err
	}
	out, _, err := t.result(text.shell)
	if err != nil {
		return err
	}
	if err := t.keepTrap(out); err != nil {
		return err
	}
	if strings.HasPrefix(text.shell[0], "#!") && !shellBang.MatchString(text.shell[0]) {
		return fmt.Errorf("the script is not a shell's: %s", oneLine(text.shell[0]))
	}
	f.changes = append(f.changes, change{l.from, l.to, text.with(t.before, out, f.indentOf(l, text.shell))})
	return nil
}

// indentOf gives the blanks before the lines of a command.
func (f *jenkinsFile) indentOf(l literal, lines []string) string {
	for _, s := range lines[1:] {
		if trim := strings.TrimLeft(s, " "); trim != "" {
			return s[:len(s)-len(trim)]
		}
	}
	line := f.g.text[strings.LastIndexByte(f.g.text[:l.from], '\n')+1 : l.from]
	return line[:len(line)-len(strings.TrimLeft(line, " "))] + "  "
}

// with writes a command with others before it.
func (s *shellStrings) with(before []string, out [][]string, in string) string {
	quote := map[bool]string{true: `"""`, false: "'''"}[s.groovy]
	var b strings.Builder
	b.WriteString(quote)
	first := 0
	if strings.HasPrefix(s.shell[0], "#!") || strings.TrimSpace(s.shell[0]) == "" && len(s.shell) > 1 {
		b.WriteString(s.written[0])
		first = 1
	}
	for _, c := range restore(before, s.shell, false) {
		b.WriteString("\n" + in + s.added(c))
	}
	for i := first; i < len(s.shell); i++ {
		switch {
		case out[i] == nil:
		case i == 0:
			b.WriteString("\n" + in + strings.TrimLeft(s.line(i, out[i][0]), " "))
		default:
			b.WriteString("\n" + s.line(i, out[i][0]))
		}
	}
	if len(s.shell) == 1 {
		b.WriteString("\n" + strings.TrimSuffix(in, "  "))
	}
	b.WriteString(quote)
	return b.String()
}
