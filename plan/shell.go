package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// takeover says how the commands of a job change when its identity takes the
// place of a secret: what comes before the first command that needs it, and
// what becomes of commands that name it.
type takeover struct {
	names  []string // the secrets, and variables that hold them
	before []string
	// change gives another command in the place of one; "" drops it, false
	// leaves it as it is.
	change func(command string) (string, bool)
	// keeps: commands that name the secret stay, because they find it where it was.
	keeps bool
	// loose: the shell goes on after a failure, unless its script says otherwise.
	loose bool
	// all: every command may need it.
	all bool
	// behind are tools that would miss, in later shells, the login that a dropped command left.
	behind *regexp.Regexp
	// gone are files that dropped commands made: nothing may need them any more.
	gone map[string]bool
}

// stopAtOnce begins the commands of a patch: nothing runs after a refusal.
const stopAtOnce = "set -e # nothing after a refusal"

// leave changes no command.
func leave(string) (string, bool) { return "", false }

// named reports whether a command names one of the secrets.
func (t *takeover) named(command string) bool {
	for _, n := range t.names {
		if variable(n).MatchString(command) || strings.Contains(command, "$("+n+")") {
			return true
		}
	}
	return false
}

// shellText is a script of one value in a pipeline, in lines of the file.
type shellText struct {
	d    *doc
	head string // what stands before a script on its line: "  - ", "  bash: "
	in   string // blanks before its lines in block form
	at   int    // the line of head
	text []string
	form yaml.Style // LiteralStyle: the text stands below, from line at+1
}

// shell takes a script apart. column is where its key or its dash stands, from 0.
func (d *doc) shell(val *yaml.Node, column int) (*shellText, error) {
	at := val.Line - 1
	switch {
	case val.Kind != yaml.ScalarNode:
		return nil, no(val, "the script is no text")
	case val.Anchor != "" || d.aliased[val]:
		return nil, no(val, "the script is an anchor, which other places use too")
	case val.Style&yaml.FoldedStyle != 0:
		return nil, no(val, "the script is folded (>), so that its lines are not the lines of the file")
	case byteAt(d.text[at], val.Column-1) < 0:
		return nil, no(val, "the parser and the file disagree about a line")
	}
	s := &shellText{d: d, at: at, head: d.text[at][:byteAt(d.text[at], val.Column-1)], in: strings.Repeat(" ", column+2)}
	if val.Style&yaml.LiteralStyle != 0 {
		s.form = yaml.LiteralStyle
		s.text = strings.Split(strings.TrimRight(val.Value, "\n"), "\n")
		for i, line := range s.text {
			if at+1+i >= len(d.text) || strings.TrimLeft(d.text[at+1+i], " ") != strings.TrimLeft(line, " ") {
				return nil, no(val, "the parser and the file disagree about the script")
			}
			if line != "" && !strings.HasPrefix(line, " ") {
				s.in = d.text[at+1+i][:len(d.text[at+1+i])-len(line)]
			}
		}
		return s, nil
	}
	if _, ok := d.valueEnd(val); !ok || strings.Contains(val.Value, "\n") {
		return nil, no(val, "the script goes over several lines without a block")
	}
	s.text = []string{val.Value}
	return s, nil
}

// result is what a takeover leaves of a script's lines; nil lines are dropped.
func (t *takeover) result(lines []string) (out [][]string, touched bool, err error) {
	out = make([][]string, len(lines))
	defer func() {
		if err == nil && (touched || t.all) {
			err = clash(t.before, strings.Join(lines, "\n"), t.names)
		}
	}()
	for i, line := range lines {
		out[i] = []string{line}
		command := strings.TrimSpace(line)
		with, ok := t.change(command)
		switch {
		case !ok && t.named(command):
			if touched = true; !t.keeps {
				return nil, true, fmt.Errorf("a command uses the secret in a way that a login can't stand in for: %s", oneLine(command))
			}
		case !ok:
			for f := range t.gone {
				if strings.Contains(command, f) {
					return nil, true, fmt.Errorf("a command needs %s, which would not be there any more: %s", oneLine(f), oneLine(command))
				}
			}
		case with == "":
			out[i], touched = nil, true
		default:
			blanks := line[:len(line)-len(strings.TrimLeft(line, " "))]
			out[i], touched = []string{blanks + with}, true
		}
	}
	return out, touched, nil
}

// force changes the script, and puts the commands before it also where no
// command names the secret: its tools find it by themselves.
func (s *shellText) force(t *takeover) error {
	named := *t
	named.all = true
	_, err := s.take(&named, true)
	return err
}

// take changes the script. first says that the commands before go here when
// the script needs them; it reports whether they did.
func (s *shellText) take(t *takeover, first bool) (placed bool, err error) {
	if strings.Contains(strings.Join(s.text, "\n"), "\\\n") && t.named(strings.Join(s.text, "\n")) {
		for i, line := range s.text {
			if strings.HasSuffix(line, `\`) || i > 0 && strings.HasSuffix(s.text[i-1], `\`) {
				if t.named(line) {
					return false, &whyNot{s.at + 1, "a command that goes over several lines names the secret"}
				}
			}
		}
	}
	out, touched, err := t.result(s.text)
	if err == nil && (touched || t.all) {
		err = t.keepTrap(out)
	}
	switch {
	case err != nil:
		return false, &whyNot{s.at + 1, err.Error()}
	case !touched && !t.all:
		return false, nil
	}
	var before []string
	if first {
		before = t.before
		before = restore(before, s.text, t.loose)
	}
	if s.form == yaml.LiteralStyle {
		return first, s.block(before, out)
	}
	with := before
	if out[0] != nil {
		with = append(append([]string{}, before...), out[0]...)
	}
	switch {
	case len(with) == 0:
		if strings.TrimLeft(s.head, " ") != "- " {
			return false, &whyNot{s.at + 1, "nothing would be left of the script"}
		}
		s.d.edits.put(s.at, s.at+1)
	case len(with) == 1 && with[0] == s.text[0]: // unchanged
	default:
		lines := []string{s.head + "|"}
		for _, c := range with {
			lines = append(lines, s.in+c)
		}
		s.d.edits.put(s.at, s.at+1, lines...)
	}
	return first, nil
}

// block writes the changed lines of a script in block form.
func (s *shellText) block(before []string, out [][]string) error {
	from := s.at + 1
	if len(s.text) > 0 && strings.HasPrefix(s.text[0], "#!") {
		if !shellBang.MatchString(s.text[0]) {
			return &whyNot{s.at + 2, "the script is not a shell's: " + oneLine(s.text[0])}
		}
		from++
	}
	left := len(before)
	for i, with := range out {
		left += len(with)
		switch {
		case with == nil:
			s.d.edits.put(s.at+1+i, s.at+2+i)
		case with[0] != s.text[i]:
			s.d.edits.put(s.at+1+i, s.at+2+i, s.in+with[0])
		}
	}
	if left == 0 {
		return &whyNot{s.at + 1, "nothing would be left of the script"}
	}
	var lines []string
	for _, c := range before {
		lines = append(lines, s.in+c)
	}
	if len(lines) > 0 {
		s.d.edits.put(from, from, lines...)
	}
	return nil
}

// goesOn ends the commands before those of a shell that doesn't stop at a failure by itself.
const goesOn = "set +e # the script goes on after a failure, as before"

// bangStops reports whether the shell that a script names stops at the first failure.
func bangStops(first string) bool {
	return stopsAtOnce.MatchString(first)
}

// restore ends the commands before those of a script whose shell goes on after a
// failure: one that names its shell, or runs in a loose one.
func restore(before, script []string, loose bool) []string {
	bang := strings.HasPrefix(script[0], "#!")
	if len(script) < 2 || !loose && !bang || bang && bangStops(script[0]) || bang && stopsItself.MatchString(strings.TrimSpace(script[1])) || stopsItself.MatchString(strings.TrimSpace(script[0])) {
		return before
	}
	return append(slices.Clone(before), goesOn)
}

var stopsItself = regexp.MustCompile(`^set -[a-z]*e`)

var stopsAtOnce = regexp.MustCompile(`\s-[a-z]*e[a-z]*(\s|$)|errexit`)

var shellBang = regexp.MustCompile(`^#! ?(/usr)?/bin/(env (-S )?)?(ba|da|a|z|k)?sh( |$)`)

// logsIn reports whether a login by the job's token takes the secret's place.
func (d *draft) logsIn() bool {
	return slices.Contains([]string{"gcp", "azure", "vault"}, d.method.name)
}

// login is how a job's own token takes the place of a secret at a target that
// trusts it. give is a command that prints the platform's token for it.
func (d *draft) login(give string) (*takeover, error) {
	if d.through() {
		d.provisoURL()
		give = "proviso token --grant " + d.item.ID
	}
	t := &takeover{before: []string{stopAtOnce}, gone: make(map[string]bool)}
	t.readFrom(d.method.name, d.item.Secrets)
	switch d.method.name {
	case "aws":
		t.before = d.awsLogin(give)
		drop := awsExport(d.item.Secrets)
		t.change = func(c string) (string, bool) { return "", drop.MatchString(c) }
	case "gcp":
		t.before = append(t.before, d.gcpCommands(give)...)
		t.behind = gcpTools
	case "azure":
		t.before = append(t.before, azureCommands(give)...)
	case "vault":
		path := "jwt"
		if d.through() {
			path = "proviso"
		}
		d.shared("VAULT_ADDR", "the address of Vault or OpenBao")
		t.before = append(t.before, `VAULT_TOKEN="$(`+give+` | vault write -field=token auth/`+path+`/login role=`+d.item.ID+` jwt=-)"`, "export VAULT_TOKEN")
	default:
		return nil, fmt.Errorf("no login by the job's token is known for %s", d.method.name)
	}
	return t, nil
}

// readFrom says from which variables commands read the secret, and so which of them
// a login changes. What the login to AWS changes are exports, by the secret's own name.
func (t *takeover) readFrom(method string, names []string) {
	t.names = names
	switch method {
	case "gcp":
		t.change = gcpChanges(names, t.gone)
	case "azure":
		t.change = azureChanges(names)
	case "vault":
		t.change = vaultChanges(names)
	}
}

// fetched is how a value comes just in time, into the variables that the
// commands have read so far.
func (d *draft) fetched(variables ...string) *takeover {
	t := &takeover{names: append(slices.Clone(variables), d.item.Secrets...), keeps: true, change: leave}
	t.before = append([]string{stopAtOnce}, d.fetchScript()...)
	for _, v := range variables {
		t.before = append(t.before, "export "+v+`="$value"`)
	}
	d.provisoURL()
	d.shared("VAULT_ADDR", vaultAddress)
	return t
}

// vaultAddress says what the setting VAULT_ADDR holds.
const vaultAddress = "the address of the secrets manager (Vault or OpenBao)"

// providerName says what the setting of a pool's provider holds.
const providerName = "the provider's full name: projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"

// gcpCommands leave a configuration of the tools that names the token's file in
// the place of the key: no secret is in it.
func (d *draft) gcpCommands(give string) []string {
	made := d.gcpConfiguration("$login/token")
	return slices.Insert(made, 2, give+` > "$login/token"`)
}

// gcpConfiguration writes the configuration for a token that is in a file already.
func (d *draft) gcpConfiguration(file string) []string {
	provider := d.setting("PROVIDER", providerName)
	account := d.setting("ACCOUNT", "the service account's e-mail address")
	return []string{
		`login="$(mktemp -d)"`,
		`trap 'rm -rf "$login"' EXIT`,
		`printf '{"type": "external_account", "audience": "//iam.googleapis.com/%s", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": "https://sts.googleapis.com/v1/token", "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/%s:generateAccessToken", "credential_source": {"file": "%s"}}' "` + provider + `" "` + account + `" "` + file + `" > "$login/config.json"`,
		`export GOOGLE_APPLICATION_CREDENTIALS="$login/config.json" CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE="$login/config.json"`,
	}
}

// reference matches a variable in the forms that scripts have for it.
func reference(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, regexp.QuoteMeta(n))
	}
	return `"?\$[{(]?(?:` + strings.Join(out, "|") + `)[})]?"?`
}

// gcpChanges drop what wrote the key to a file and logged in with it.
func gcpChanges(secrets []string, files map[string]bool) func(string) (string, bool) {
	ref := reference(secrets)
	write := regexp.MustCompile(`^(?:echo|printf (?:'%s'|"%s"|%s)) (?:-n )?` + ref + `(?: ?\| ?base64 (?:-d|-di|--decode|-D))? ?> ?("?[\w./${}-]+"?)$`)
	docker := regexp.MustCompile(`^(?:echo|cat|printf '?%s'?) \S+ ?\| ?docker login -u _json_key --password-stdin (\S+)$`)
	return func(c string) (string, bool) {
		if m := write.FindStringSubmatch(c); m != nil {
			files[strings.Trim(m[1], `"`)] = true
			return "", true
		}
		mine := regexp.MustCompile(ref).MatchString(c)
		for f := range files {
			mine = mine || strings.Contains(c, f)
		}
		switch m := docker.FindStringSubmatch(c); {
		case !mine:
			return "", false
		case m != nil && plainWord.MatchString(m[1]):
			return "gcloud auth print-access-token | docker login -u oauth2accesstoken --password-stdin " + m[1], true
		case strings.HasPrefix(c, "gcloud auth activate-service-account "), gcpExport.MatchString(c), removal.MatchString(c):
			return "", true
		}
		return "", false
	}
}

var (
	gcpTools  = regexp.MustCompile(`(^|[\s;&|(])(gcloud|gsutil|bq)\s`)
	gcpExport = regexp.MustCompile(`^export (GOOGLE_APPLICATION_CREDENTIALS|GOOGLE_CREDENTIALS|CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE)=\S+$`)
	removal   = regexp.MustCompile(`^rm (-f )?\S+$`)
)

// azureCommands leave the token where the Azure CLI, the SDKs and Terraform look for it.
func azureCommands(give string) []string {
	return []string{
		"unset ARM_CLIENT_SECRET AZURE_CLIENT_SECRET",
		`AZURE_FEDERATED_TOKEN_FILE="$(mktemp)"`,
		`trap 'rm -f "$AZURE_FEDERATED_TOKEN_FILE"' EXIT`,
		give + ` > "$AZURE_FEDERATED_TOKEN_FILE"`,
		`export AZURE_FEDERATED_TOKEN_FILE ARM_USE_OIDC=true ARM_OIDC_TOKEN_FILE_PATH="$AZURE_FEDERATED_TOKEN_FILE"`,
	}
}

// azureChanges let az log in with the token, and drop what handed the secret on.
func azureChanges(secrets []string) func(string) (string, bool) {
	ref := reference(secrets)
	login := regexp.MustCompile(`^(.*\baz login\b.*?) (?:-p|--password)(?: +|=)` + ref + `(.*)$`)
	export := regexp.MustCompile(`^export (ARM_CLIENT_SECRET|AZURE_CLIENT_SECRET)=` + ref + `$`)
	return func(c string) (string, bool) {
		if m := login.FindStringSubmatch(c); m != nil {
			return m[1] + ` --federated-token "$(cat "$AZURE_FEDERATED_TOKEN_FILE")"` + m[2], true
		}
		return "", export.MatchString(c)
	}
}

// vaultChanges drop logins by the old token or AppRole.
func vaultChanges(secrets []string) func(string) (string, bool) {
	ref := regexp.MustCompile(reference(secrets))
	return func(c string) (string, bool) {
		return "", ref.MatchString(c) && (vaultLogin.MatchString(c) || vaultExport.MatchString(c))
	}
}

var (
	vaultLogin  = regexp.MustCompile(`^(export )?(VAULT_TOKEN="?\$\()?(vault|bao) (login|write) [^|;&]*$`)
	vaultExport = regexp.MustCompile(`^export VAULT_TOKEN=\S+$`)
)
