package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// bound is one place where a credential is bound to variables.
type bound struct {
	from, to int    // the binding's text
	env      bool   // X = credentials('id')
	scope    [2]int // where the variables are seen
	start    int    // where the statement begins, for one with a block
	kind     bindingKind
	secret   string // the variable with the value, or with the name of its file
	user     string // the variable with the user's name
	both     string // the variable of an environment block with name:value
}

// bindingKind is what a binding makes of a credential.
type bindingKind string

const (
	bindsText  bindingKind = "text"
	bindsPair  bindingKind = "pair"
	bindsFile  bindingKind = "file"
	bindsKey   bindingKind = "ssh key"
	bindsAgent bindingKind = "ssh agent"
	bindsAWS   bindingKind = "aws"
	bindsEntra bindingKind = "service principal"
)

// bindingKinds are the symbols and the class names of bindings, and the
// argument that names the variable with the secret.
var bindingKinds = map[string]struct {
	kind     bindingKind
	variable string
}{
	"string": {bindsText, "variable"}, "StringBinding": {bindsText, "variable"}, "usernameColonPassword": {bindsText, "variable"}, "UsernamePasswordBinding": {bindsText, "variable"},
	"usernamePassword": {bindsPair, "passwordVariable"}, "UsernamePasswordMultiBinding": {bindsPair, "passwordVariable"},
	"file": {bindsFile, "variable"}, "FileBinding": {bindsFile, "variable"},
	"sshUserPrivateKey": {bindsKey, "keyFileVariable"}, "SSHUserPrivateKeyBinding": {bindsKey, "keyFileVariable"},
	"aws": {bindsAWS, "secretKeyVariable"}, "AmazonWebServicesCredentialsBinding": {bindsAWS, "secretKeyVariable"},
	"kubeconfigFile": {bindsFile, "variable"}, "azureServicePrincipal": {bindsEntra, "clientSecretVariable"},
}

var assignment = regexp.MustCompile(`(\w+)\s*=\s*$`)

// binding reads the binding around a credential's id.
func (f *jenkinsFile) binding(at int, d *draft) (*bound, error) {
	if l, in := f.g.in(at); in {
		at = l.from
	}
	open := f.g.around(at)
	if open < 0 {
		return nil, fmt.Errorf("the id of the credential is kept in a variable of Groovy: write it into the binding, and plan again")
	}
	if f.g.word(open) == "credentials" {
		return f.environment(open, d)
	}
	outer := open
	for outer >= 0 && f.g.text[outer] == '[' {
		outer = f.g.around(outer)
	}
	if outer >= 0 && f.g.word(outer) == "sshagent" {
		return f.sshAgent(outer)
	}
	from := open - len(f.g.word(open))
	if f.g.text[open] == '[' {
		from = open
	}
	list := -1
	for outer = f.g.around(from); outer >= 0 && f.g.text[outer] == '['; outer = f.g.around(outer) {
		list = outer
	}
	if outer < 0 || f.g.word(outer) != "withCredentials" {
		if outer = f.kept(list); outer < 0 {
			return nil, fmt.Errorf("the credential is an argument of %s, which takes no identity token in its place", oneLine(f.step(open)))
		}
	}
	args, ok := f.arguments(open)
	name := f.g.word(open)
	if f.g.text[open] == '[' {
		name = args["$class"]
	}
	kind, known := bindingKinds[name]
	switch {
	case !known:
		return nil, fmt.Errorf("the credential is bound by %s, which no patch is known for", oneLine(f.step(open)))
	case !ok:
		return nil, fmt.Errorf("the arguments of the binding are not written as they are")
	}
	b := &bound{from: from, to: f.g.closes(open), kind: kind.kind, secret: args[kind.variable], user: args["usernameVariable"]}
	switch {
	case b.kind == bindsText && d.method.name == "aws" && !d.through() && slices.Contains(awsKeyNames, b.secret):
		b.kind = bindsAWS // a half of the key, under the name that the tools read
	case b.kind == bindsAWS:
		for _, n := range []string{args["accessKeyVariable"], args["secretKeyVariable"]} {
			if n != "" && !slices.Contains(awsKeyNames, n) {
				return nil, fmt.Errorf("the keys are bound to %s, which the AWS tools don't read by themselves", oneLine(n))
			}
		}
		if args["roleArn"] != "" {
			return nil, fmt.Errorf("the binding assumes a role with the keys; that role's trust policy has to name the issuer in place of the user")
		}
		b.secret = ""
	case b.kind == bindsEntra:
		if len(args) > 1 {
			return nil, fmt.Errorf("the binding gives its variables other names than the tools of Azure know")
		}
		b.secret = "AZURE_CLIENT_SECRET"
	case !variableName.MatchString(b.secret):
		return nil, fmt.Errorf("the binding doesn't name its variables")
	case args["passphraseVariable"] != "":
		return nil, fmt.Errorf("the key has a passphrase, which the patch would have to hand on: keep the key without one in the secrets manager, and fetch it by proviso exec")
	case b.kind == bindsFile && encodedFile.MatchString(strings.Join(d.item.Secrets, " ")+" "+b.secret):
		return nil, fmt.Errorf("the file is no text, and a secrets manager keeps it encoded: the commands have to decode it")
	}
	return b, f.blockOf(outer, b)
}

// kept gives the bracket of the one withCredentials that takes a list of bindings
// by its name, -1 when that can't be told.
func (f *jenkinsFile) kept(list int) int {
	if list < 0 {
		return -1
	}
	m := constant.FindStringSubmatch(f.g.text[strings.LastIndexByte(f.g.text[:list], '\n')+1 : list])
	if m == nil {
		return -1
	}
	open := -1
	for _, at := range f.g.names(m[1], 0, len(f.g.text)) {
		before, after := strings.TrimRight(f.g.text[:at], " "), strings.TrimLeft(f.g.text[at+len(m[1]):], " ")
		switch {
		case f.g.comment(at), at < list && at > list-len(m[0])-1:
		case open < 0 && at > list && strings.HasSuffix(before, "(") && f.g.word(len(before)-1) == "withCredentials" && strings.HasPrefix(after, ")"):
			open = len(before) - 1
		default:
			return -1
		}
	}
	return open
}

// encodedFile finds names of files that are no text.
var encodedFile = regexp.MustCompile(`(?i)jks|keystore|key-store|p12|pfx|pkcs12|keytab|\.zip|\.gpg`)

// blockOf finds the block of a statement with an argument list.
func (f *jenkinsFile) blockOf(open int, b *bound) error {
	b.start = len(strings.TrimRight(f.g.text[:open], " ")) - len(f.g.word(open))
	body := f.g.closes(open)
	if body < 0 {
		return fmt.Errorf("the block of %s could not be found", f.g.word(open))
	}
	brace := body + len(f.g.text[body:]) - len(strings.TrimLeft(f.g.text[body:], " \n"))
	if brace >= len(f.g.text) || f.g.text[brace] != '{' || f.g.closes(brace) < 0 {
		return fmt.Errorf("the block of %s could not be found", f.g.word(open))
	}
	b.scope = [2]int{brace, f.g.closes(brace)}
	return nil
}

// sshAgent reads sshagent(['id']) with its block.
func (f *jenkinsFile) sshAgent(open int) (*bound, error) {
	b := &bound{kind: bindsAgent, to: f.g.closes(open)}
	if b.to < 0 || !oneKey.MatchString(f.g.text[open:b.to]) {
		return nil, fmt.Errorf("sshagent takes several keys, or other arguments: give each key a block of its own, and plan again")
	}
	err := f.blockOf(open, b)
	b.from = b.start
	return b, err
}

var oneKey = regexp.MustCompile(`^\(\s*(credentials\s*:\s*)?(\[\s*)?(['"])[^'"$\\]+['"]\s*\]?\s*(,\s*ignoreMissing\s*:\s*\w+\s*)?\)$`)

var argument = regexp.MustCompile(`^\s*(?:(\$?\w+)\s*:\s*)?(?:'([^'\n\\]*)'|"((?:[^"\n\\$]|\$\{?[\w.]+\}?)*)"|([\w.]+))\s*(?:,|$)`)

// arguments reads the arguments of a call or a map that are written as they are.
func (f *jenkinsFile) arguments(open int) (args map[string]string, ok bool) {
	end := f.g.closes(open)
	if end < 0 {
		return nil, false
	}
	args = make(map[string]string)
	for rest := f.g.text[open+1 : end-1]; strings.TrimSpace(rest) != ""; {
		m := argument.FindStringSubmatch(rest)
		if m == nil {
			return args, false
		}
		args[m[1]] = m[2] + m[3] + m[4]
		rest = rest[len(m[0]):]
	}
	return args, true
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
	return "a list or a map that is kept for later"
}

var endOfLine = regexp.MustCompile(`^;?[ \t]*((//[^\n]*)?\n|})`)

// environment reads X = credentials('id') of an environment block.
func (f *jenkinsFile) environment(open int, d *draft) (*bound, error) {
	from := open - len("credentials")
	m := assignment.FindStringSubmatch(f.g.text[strings.LastIndexAny(f.g.text[:from], "\n{;")+1 : from])
	to := f.g.closes(open)
	block := f.g.around(from)
	if m == nil || to < 0 || block < 0 || f.g.word(block) != "environment" || !endOfLine.MatchString(f.g.text[to:]) {
		return nil, fmt.Errorf("the credential is not bound by X = credentials(ID) on a line of an environment block")
	}
	parent := f.g.around(block)
	if parent < 0 || f.g.closes(parent) < 0 {
		return nil, fmt.Errorf("the block around the environment could not be found")
	}
	if f.g.text[to] == ';' {
		to++
	}
	b := &bound{from: from - len(m[0]), to: to, env: true, kind: bindsText, secret: m[1], scope: [2]int{parent, f.g.closes(parent)}}
	switch {
	case d.method.name == "aws" && !d.through():
		if b.kind = bindsAWS; !slices.Contains(awsKeyNames, b.secret) {
			return nil, fmt.Errorf("an environment block makes %s of the key, which the AWS tools don't read by themselves", oneLine(b.secret))
		}
	case readsFile(b.secret, f.g.text[b.scope[0]:b.scope[1]]):
		if b.kind = bindsFile; encodedFile.MatchString(strings.Join(d.item.Secrets, " ") + " " + b.secret) {
			return nil, fmt.Errorf("the file is no text, and a secrets manager keeps it encoded: the commands have to decode it")
		}
	case len(f.g.names(b.secret+"_USR", b.scope[0], b.scope[1]))+len(f.g.names(b.secret+"_PSW", b.scope[0], b.scope[1])) > 0:
		// The block makes variables of a user's name and a password.
		if b.kind, b.user = bindsPair, b.secret+"_USR"; len(f.g.names(b.secret, b.to, b.scope[1])) > 0 {
			b.both = b.secret
		}
		b.secret += "_PSW"
	}
	return b, nil
}
