package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// jenkinsFile is a Jenkinsfile. A credential is bound to a variable by
// withCredentials or by an environment block, and commands read the variable:
// the id token of the OpenID Connect Provider plugin is bound the same way in
// its place, and the commands fetch or exchange what they need.
type jenkinsFile struct {
	*doc
	g       *groovy
	changes []change
	done    bool
	err     error
}

// change puts another text between two places.
type change struct {
	from, to int
	with     string
}

func openJenkins(text string) (*jenkinsFile, error) {
	l, err := splitLines(text)
	if err != nil {
		return nil, err
	}
	g, ok := readGroovy(l.normal())
	if !ok {
		return nil, fmt.Errorf("a string or a comment of the Jenkinsfile has no end that could be found")
	}
	return &jenkinsFile{doc: &doc{lines: l}, g: g}, nil
}

// normal is the text with one kind of line ends.
func (l lines) normal() string { return strings.Join(l.text, "\n") + "\n" }

// change changes all places of the file at once: a stage can use what an outer block binds.
func (f *jenkinsFile) change(_ string, d *draft) error {
	if !f.done {
		f.done = true
		if f.err = f.all(d); f.err == nil {
			f.err = f.edit()
		}
	}
	return f.err
}

// all finds where the credential is bound, and changes that and the commands below it.
func (f *jenkinsFile) all(d *draft) error {
	if len(d.item.Secrets) != 1 {
		return fmt.Errorf("several credentials of the controller are used together")
	}
	id := d.item.Secrets[0]
	found := 0
	for _, l := range f.g.literals {
		if l.text(f.g.text) != id {
			continue
		}
		found++
		b, err := f.binding(l, d)
		if err != nil {
			return &whyNot{f.line(l.from), err.Error()}
		}
		if err := f.bind(b, d); err != nil {
			return err
		}
	}
	if found == 0 {
		return fmt.Errorf("the id of the credential is not written in the file as it is")
	}
	return nil
}

// line gives the line of a place, from 1.
func (f *jenkinsFile) line(at int) int { return 1 + strings.Count(f.g.text[:at], "\n") }

// bound is one place where a credential is bound to variables.
type bound struct {
	from, to     int    // the binding's text
	env          bool   // X = credentials('id')
	scope        [2]int // where the variables are seen
	secret, user string // the variables; both are empty for an AWS binding
}

var (
	stringBinding = regexp.MustCompile(`^string\(\s*(?:credentialsId:\s*['"][^'"]*['"],\s*variable:\s*['"](\w+)['"]|variable:\s*['"](\w+)['"],\s*credentialsId:\s*['"][^'"]*['"])\s*\)`)
	pairBinding   = regexp.MustCompile(`^usernamePassword\(([^()]*)\)`)
	awsBinding    = regexp.MustCompile(`^(?:\[\s*\$class:\s*['"]AmazonWebServicesCredentialsBinding['"],|aws\()([^()\[\]]*)[\])]`)
	pairUser      = regexp.MustCompile(`usernameVariable:\s*['"](\w+)['"]`)
	pairSecret    = regexp.MustCompile(`passwordVariable:\s*['"](\w+)['"]`)
	otherNames    = regexp.MustCompile(`(?:accessKeyVariable:\s*['"](\w+)['"])|(?:secretKeyVariable:\s*['"](\w+)['"])`)
	assignment    = regexp.MustCompile(`(\w+)\s*=\s*$`)
)

// binding reads the binding around a credential's id.
func (f *jenkinsFile) binding(l literal, d *draft) (*bound, error) {
	open := f.g.around(l.from)
	if open < 0 {
		return nil, fmt.Errorf("the credential is named in a way that no patch is known for")
	}
	if f.g.word(open) == "credentials" {
		return f.environment(open)
	}
	from := open - len(f.g.word(open))
	if f.g.text[open] == '[' {
		from = open
	}
	outer := f.g.around(from)
	for outer >= 0 && f.g.text[outer] == '[' {
		outer = f.g.around(outer)
	}
	if outer < 0 || f.g.word(outer) != "withCredentials" {
		return nil, fmt.Errorf("the credential is an argument of %s, which takes no identity token in its place", oneLine(f.step(open)))
	}
	b := &bound{from: from}
	rest := f.g.text[from:]
	if m := stringBinding.FindStringSubmatch(rest); m != nil {
		b.to, b.secret = from+len(m[0]), m[1]+m[2]
	} else if m := pairBinding.FindStringSubmatch(rest); m != nil && d.method.fetch {
		user, secret := pairUser.FindStringSubmatch(m[1]), pairSecret.FindStringSubmatch(m[1])
		if user == nil || secret == nil {
			return nil, fmt.Errorf("the binding doesn't name its variables")
		}
		b.to, b.user, b.secret = from+len(m[0]), user[1], secret[1]
	} else if m := awsBinding.FindStringSubmatch(rest); m != nil && d.method.name == "aws" {
		for _, n := range otherNames.FindAllStringSubmatch(m[1], -1) {
			if !slices.Contains(awsKeyNames, n[1]+n[2]) {
				return nil, fmt.Errorf("the keys are bound to %s, which the AWS tools don't read by themselves", n[1]+n[2])
			}
		}
		if strings.Contains(m[1], "roleArn") {
			return nil, fmt.Errorf("the binding assumes a role with the keys; that role's trust policy has to name the issuer in place of the user")
		}
		b.to = from + len(m[0])
	} else {
		return nil, fmt.Errorf("the credential is bound by %s, which no patch is known for", oneLine(f.step(open)))
	}
	if strings.Contains(f.g.text[b.from:b.to], "\n") {
		return nil, fmt.Errorf("the binding goes over several lines")
	}
	body := f.g.closes(outer)
	brace := body + len(f.g.text[body:]) - len(strings.TrimLeft(f.g.text[body:], " \n"))
	if body < 0 || brace >= len(f.g.text) || f.g.text[brace] != '{' || f.g.closes(brace) < 0 {
		return nil, fmt.Errorf("the block of withCredentials could not be found")
	}
	b.scope = [2]int{brace, f.g.closes(brace)}
	return b, nil
}

// step names what a bracket belongs to, for people.
func (f *jenkinsFile) step(open int) string {
	for at := open; at >= 0; at = f.g.around(at) {
		if w := f.g.word(at); w != "" {
			return w
		}
		if f.g.text[at] != '[' {
			break
		}
	}
	return strings.TrimSpace(f.g.text[strings.LastIndexByte(f.g.text[:open], '\n')+1 : open+1])
}

// environment reads X = credentials('id') of an environment block.
func (f *jenkinsFile) environment(open int) (*bound, error) {
	from := open - len("credentials")
	m := assignment.FindStringSubmatch(f.g.text[strings.LastIndexByte(f.g.text[:from], '\n')+1 : from])
	to := f.g.closes(open)
	block := f.g.around(from)
	if m == nil || to < 0 || block < 0 || f.g.word(block) != "environment" || strings.TrimSpace(f.g.text[to:to+strings.IndexByte(f.g.text[to:], '\n')]) != "" {
		return nil, fmt.Errorf("the credential is named in a way that no patch is known for")
	}
	parent := f.g.around(block)
	if parent < 0 || f.g.closes(parent) < 0 {
		return nil, fmt.Errorf("the block around the environment could not be found")
	}
	b := &bound{from: from - len(m[0]), to: to, env: true, secret: m[1], scope: [2]int{parent, f.g.closes(parent)}}
	for _, tail := range []string{"_USR", "_PSW"} {
		if len(f.g.names(b.secret+tail, b.scope[0], b.scope[1])) > 0 {
			return nil, fmt.Errorf("the credential is a user name and a password (%s%s), of which an environment block makes variables: bind it with withCredentials, and plan again", b.secret, tail)
		}
	}
	return b, nil
}

const provisoBinding = "string(credentialsId: 'proviso', variable: 'PROVISO_ID_TOKEN')"

// bind changes one binding and the commands that read its variables.
func (f *jenkinsFile) bind(b *bound, d *draft) error {
	with, t, err := f.takeover(b, d)
	if err != nil {
		return &whyNot{f.line(b.from), err.Error()}
	}
	used, err := f.commands(b, t)
	switch {
	case err != nil:
		return err
	case !used:
		return &whyNot{f.line(b.from), "no command in the block names the variable"}
	}
	f.changes = append(f.changes, change{b.from, b.to, with})
	return nil
}

// takeover gives the binding that takes the place, and what becomes of commands.
func (f *jenkinsFile) takeover(b *bound, d *draft) (with string, t *takeover, err error) {
	with = provisoBinding
	switch {
	case d.method.fetch:
		t = d.fetched(b.secret)
		t.names = []string{b.secret}
		if b.user != "" {
			t.names = append(t.names, b.user)
			t.before = slices.Insert(t.before, len(t.before)-2, b.user+`="$(vault kv get -mount=ci -field=username `+d.secretPath()+`)"`, "export "+b.user)
			d.note("The credential is a user name and a password: put the name into the secrets manager too (username=NAME beside value).")
		}
		d.note("Jenkins masks only what it holds itself, and prints each command of a shell (sh -x): the patched commands run without that.")
	case d.method.name == "aws" && !d.through():
		with = "file(credentialsId: '" + d.jenkinsToken() + "', variable: 'AWS_WEB_IDENTITY_TOKEN_FILE')"
		t = &takeover{all: true, change: leave, before: d.awsRole()}
	case d.through():
		if t, err = d.login(""); err != nil {
			return "", nil, err
		}
		t.all = true
	default:
		return "", nil, fmt.Errorf("for Jenkins there are steps, and no patch, for this (--route proviso has one)")
	}
	if b.secret == "" && d.method.name != "aws" {
		return "", nil, fmt.Errorf("the binding names no variable")
	}
	t.before[0] = "set +x -e # nothing after a refusal, and no value in the log"
	if b.env {
		with = "PROVISO_ID_TOKEN = credentials('proviso')"
		switch {
		case d.method.name == "aws":
			return "", nil, fmt.Errorf("an environment block makes other variables of keys than the AWS tools read")
		case f.bindsProviso(b):
			with = ""
		}
		d.note("The token of an environment block is made when the block begins, and Proviso takes it for ten minutes (max_age): where a later stage needs it, bind it there with withCredentials.")
	}
	return with, t, nil
}

// jenkinsToken is the id of the credential with the token for a target.
func (d *draft) jenkinsToken() string { return d.item.ID + "-token" }

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

// commands changes the sh steps of a scope that read a binding's variables.
func (f *jenkinsFile) commands(b *bound, t *takeover) (used bool, err error) {
	var places []int
	for _, v := range []string{b.secret, b.user} {
		if v != "" {
			places = append(places, f.g.names(v, b.scope[0], b.scope[1])...)
		}
	}
	var scripts []literal
	for _, l := range f.g.literals {
		if l.from > b.scope[0] && l.to < b.scope[1] && t.all && f.shellStep(l) {
			scripts = append(scripts, l)
		}
	}
	for _, at := range places {
		if f.g.comment(at) || at >= b.from && at < b.to {
			continue
		}
		l, ok := f.g.in(at)
		switch {
		case !ok, !f.shellStep(l):
			return false, &whyNot{f.line(at), "the variable is read by Groovy itself, or by a step that is no shell"}
		case !l.plain():
			return false, &whyNot{f.line(at), "Groovy writes the value into the command (double quotes); write the command in single quotes, so that the shell reads the variable, and plan again"}
		case !slices.Contains(scripts, l):
			scripts = append(scripts, l)
		}
	}
	for _, l := range scripts {
		if err := f.script(l, t); err != nil {
			return false, &whyNot{f.line(l.from), err.Error()}
		}
	}
	return len(scripts) > 0, nil
}

// shellStep reports whether a string is the command of an sh step.
func (f *jenkinsFile) shellStep(l literal) bool {
	before := strings.TrimRight(f.g.text[:l.from], " \n")
	if strings.HasSuffix(before, "script:") {
		before = strings.TrimRight(strings.TrimSuffix(before, "script:"), " \n")
	}
	if strings.HasSuffix(before, "(") {
		before = strings.TrimRight(before[:len(before)-1], " ")
	}
	at := len(before) - 2
	return strings.HasSuffix(before, "sh") && f.g.code[at] && (at == 0 || !isNameByte(before[at-1]) && before[at-1] != '.')
}

// script puts commands before those of a step, and changes those that a login replaces.
func (f *jenkinsFile) script(l literal, t *takeover) error {
	if !l.plain() {
		return fmt.Errorf("a command in double quotes is made by Groovy; write it in single quotes, and plan again")
	}
	text := l.text(f.g.text)
	lines := strings.Split(text, "\n")
	out, _, err := t.result(lines)
	if err != nil {
		return err
	}
	line := f.g.text[strings.LastIndexByte(f.g.text[:l.from], '\n')+1 : l.from]
	in := line[:len(line)-len(strings.TrimLeft(line, " "))] + "  "
	for _, s := range lines[1:] {
		if trim := strings.TrimLeft(s, " "); trim != "" {
			in = s[:len(s)-len(trim)]
			break
		}
	}
	var b strings.Builder
	b.WriteString("'''")
	first := 0
	if strings.HasPrefix(lines[0], "#!") {
		if !shellBang.MatchString(lines[0]) {
			return fmt.Errorf("the script is not a shell's: %s", oneLine(lines[0]))
		}
		b.WriteString(lines[0])
		first = 1
	} else if strings.TrimSpace(lines[0]) == "" && len(lines) > 1 {
		b.WriteString(lines[0])
		first = 1
	}
	for _, c := range t.before {
		b.WriteString("\n" + in + c)
	}
	for i := first; i < len(lines); i++ {
		switch {
		case out[i] == nil:
		case i == 0:
			b.WriteString("\n" + in + strings.TrimLeft(out[i][0], " "))
		default:
			b.WriteString("\n" + out[i][0])
		}
	}
	if len(lines) == 1 {
		b.WriteString("\n" + strings.TrimSuffix(in, "  "))
	}
	b.WriteString("'''")
	f.changes = append(f.changes, change{l.from, l.to, b.String()})
	return nil
}

// edit writes the changes as edits of lines.
func (f *jenkinsFile) edit() error {
	slices.SortFunc(f.changes, func(a, b change) int { return a.from - b.from })
	f.changes = slices.Compact(f.changes)
	for i := 1; i < len(f.changes); i++ {
		if f.changes[i].from < f.changes[i-1].to {
			return &whyNot{f.line(f.changes[i].from), "two bindings of the credential meet in one command"}
		}
	}
	for i := 0; i < len(f.changes); {
		from := strings.LastIndexByte(f.g.text[:f.changes[i].from], '\n') + 1
		var b strings.Builder
		at, end := from, from
		for ; i < len(f.changes) && (end == from || f.changes[i].from < end); i++ {
			c := f.changes[i]
			b.WriteString(f.g.text[at:c.from] + c.with)
			at = c.to
			end = at + strings.IndexByte(f.g.text[at:], '\n') + 1
		}
		b.WriteString(f.g.text[at : end-1])
		f.replace(f.line(from)-1, f.line(end)-1, b.String())
	}
	return nil
}

// replace puts edits for the lines of a text that differ from those of the file.
func (f *jenkinsFile) replace(from, to int, text string) {
	with := strings.Split(text, "\n")
	if strings.TrimSpace(text) == "" {
		f.edits.put(from, to)
		return
	}
	for from < to && len(with) > 0 && f.text[from] == with[0] {
		from, with = from+1, with[1:]
	}
	for from < to && len(with) > 0 && f.text[to-1] == with[len(with)-1] {
		to, with = to-1, with[:len(with)-1]
	}
	f.edits.put(from, to, with...)
}
