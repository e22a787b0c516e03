package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/proviso-ci/proviso/inventory"
)

// editor changes the jobs of one pipeline of a platform.
type editor interface {
	change(job string, d *draft) error
}

// openOther reads a pipeline of a platform other than GitHub.
func openOther(ci inventory.CI, text string) (editor, *doc, error) {
	var e editor
	if ci == inventory.Jenkins {
		f, err := openJenkins(text)
		if err != nil {
			return nil, nil, err
		}
		return f, f.doc, nil
	}
	if cluster(ci) {
		d, err := parseDocs(text)
		if err != nil {
			return nil, nil, err
		}
		return kubeFile{d, ci}, d, nil
	}
	d, err := parseDoc(text)
	switch ci {
	case inventory.GitLab:
		e = gitlabFile{d}
	case inventory.Bitbucket:
		e = bitbucketFile{d}
	case inventory.CircleCI:
		e = circleFile{d}
	case inventory.Buildkite:
		e = buildkiteFile{d}
	case inventory.Azure:
		e = azureFile{d}
	default:
		return nil, nil, fmt.Errorf("no pattern of %s is known that a patch could follow without guessing", ci)
	}
	return e, d, err
}

// scriptList is a list of commands, one an entry, run by one shell.
type scriptList struct {
	d    *doc
	key  *yaml.Node
	list *yaml.Node
}

func (d *doc) script(n *yaml.Node, name string) (*scriptList, error) {
	key, list := find(n, name)
	if key == nil {
		return nil, no(n, "the job has no %s of its own", name)
	}
	if err := d.own(list, name); err != nil {
		return nil, err
	}
	if list.Kind != yaml.SequenceNode || list.Style&yaml.FlowStyle != 0 || len(list.Content) == 0 {
		return nil, no(list, "%s is not written as one command a line", name)
	}
	return &scriptList{d, key, list}, nil
}

// dash gives the line of an entry's dash and the blanks before it.
func (s *scriptList) dash(i int) (line int, blanks string, err error) {
	n := s.list.Content[i]
	line = n.Line
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 && n.Kind == yaml.ScalarNode && n.Anchor == "" || n.Kind == yaml.MappingNode || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		text := s.d.text[line-1]
		trim := strings.TrimLeft(text, " ")
		if strings.HasPrefix(trim, "- ") {
			return line, text[:len(text)-len(trim)], nil
		}
	}
	return 0, "", no(n, "an entry of the list does not begin on the line of its dash")
}

// before inserts commands before an entry, as one of several lines.
func (s *scriptList) before(i int, commands ...string) error {
	line, blanks, err := s.dash(i)
	if err != nil {
		return err
	}
	out := []string{blanks + "- |"}
	for _, c := range commands {
		out = append(out, blanks+"  "+c)
	}
	s.d.insertBefore(line, out...)
	return nil
}

// drop removes the entries that a pattern fits wholly.
func (s *scriptList) drop(pattern *regexp.Regexp) error {
	for i, n := range s.list.Content {
		if n.Kind == yaml.ScalarNode && pattern.MatchString(strings.TrimSpace(n.Value)) {
			line, _, err := s.dash(i)
			if err != nil {
				return err
			}
			if strings.Contains(strings.TrimRight(n.Value, "\n"), "\n") {
				return no(n, "the command goes over several lines")
			}
			s.d.edits.put(line-1, line)
		}
	}
	return nil
}

// first gives the first entry that names a variable, -1 when none does.
func (s *scriptList) first(names ...string) int {
	return slices.IndexFunc(s.list.Content, func(n *yaml.Node) bool {
		found := false
		walkScalars(n, 0, func(c *yaml.Node) {
			for _, name := range names {
				found = found || variable(name).MatchString(c.Value)
			}
		})
		return found
	})
}

// variable finds a variable of a shell by its name.
func variable(name string) *regexp.Regexp {
	return regexp.MustCompile(`\$\{?` + regexp.QuoteMeta(name) + `\b`)
}

// usedIn lists the keys of a mapping below which a variable is named.
func usedIn(n *yaml.Node, names []string) (out []string) {
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		hit := false
		walkScalars(n.Content[i+1], 0, func(c *yaml.Node) {
			for _, name := range names {
				hit = hit || variable(name).MatchString(c.Value)
			}
		})
		if hit {
			out = append(out, n.Content[i].Value)
		}
	}
	return out
}

// awsExport is a command that hands keys to the AWS tools.
func awsExport(secrets []string) *regexp.Regexp {
	var names []string
	for _, s := range secrets {
		names = append(names, regexp.QuoteMeta(s))
	}
	return regexp.MustCompile(`^export (AWS_ACCESS_KEY_ID|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN)="?\$\{?(` + strings.Join(names, "|") + `)\}?"?$`)
}

// awsCommands assume the role with the token in a variable, or with Proviso's.
func (d *draft) awsCommands(token string) []string {
	if d.through() {
		d.provisoURL()
		return d.awsLogin("proviso token --grant " + d.item.ID)
	}
	return d.awsLogin(`printf '%s' "` + token + `"`)
}

// awsLogin assumes the role with the token that a command prints.
func (d *draft) awsLogin(give string) []string {
	return append(d.awsRole(),
		`AWS_WEB_IDENTITY_TOKEN_FILE="$(mktemp)"`,
		"export AWS_WEB_IDENTITY_TOKEN_FILE",
		`trap 'rm -f "$AWS_WEB_IDENTITY_TOKEN_FILE"' EXIT`,
		give+` > "$AWS_WEB_IDENTITY_TOKEN_FILE"`)
}

// awsRole names the role for the AWS tools, which assume it with the token in
// AWS_WEB_IDENTITY_TOKEN_FILE. The keys are unset: the tools would take them first
// while they still exist.
func (d *draft) awsRole() []string {
	return []string{
		stopAtOnce,
		"unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN",
		`export AWS_ROLE_ARN="` + d.role() + `" AWS_ROLE_SESSION_NAME=` + d.item.ID,
	}
}

const masksLittle = "This platform masks only what it holds itself: see that no command of the job prints the value."

// fetchCommands leave the value in the variable that a script has read so far, or
// in the file that it names.
func (d *draft) fetchCommands(script string) ([]string, error) {
	d.note(masksLittle)
	name := d.item.Secrets[0]
	t := d.fetched(name)
	if d.item.CI == inventory.GitLab && readsFile(name, script) {
		t = d.fetchedFile(name)
	}
	if err := clash(t.before, script, t.names); err != nil {
		return nil, err
	}
	return t.before, t.keepTrap([][]string{strings.Split(script, "\n")})
}

// handedOn are variables that the tools of the clouds and of Vault read by themselves.
var handedOn = []string{"ARM_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "VAULT_TOKEN", "GOOGLE_CREDENTIALS"}

// dropHandOn takes entries out of a mapping that hand a secret to the tools.
func (d *doc) dropHandOn(key, m *yaml.Node, secrets []string) (dropped bool, err error) {
	whole := regexp.MustCompile("^" + reference(secrets) + "$")
	var names []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		switch v := text(m.Content[i+1]); {
		case !whole.MatchString(v):
		case !slices.Contains(handedOn, m.Content[i].Value):
			return false, no(m.Content[i], "the secret is handed on as %s", oneLine(m.Content[i].Value))
		default:
			names = append(names, m.Content[i].Value)
		}
	}
	return len(names) > 0, d.dropEntries(key, m, names...)
}

// take changes the commands of a list; placed says that the commands before are there already.
func (s *scriptList) take(t *takeover, placed bool) (bool, error) {
	for i, n := range s.list.Content {
		if n.Kind != yaml.ScalarNode {
			continue
		}
		_, blanks, err := s.dash(i)
		if err != nil {
			return placed, err
		}
		sh, err := s.d.shell(n, len(blanks))
		if err != nil {
			if t.named(n.Value) {
				return placed, err
			}
			continue
		}
		done, err := sh.take(t, !placed)
		if err != nil {
			return placed, err
		}
		placed = placed || done
	}
	return placed, nil
}

// namesKey reports whether a command names an AWS key or the item's secrets.
func namesKey(n *yaml.Node, secrets []string) bool {
	found := false
	walkScalars(n, 0, func(c *yaml.Node) {
		for _, name := range append([]string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}, secrets...) {
			found = found || strings.Contains(c.Value, name)
		}
	})
	return found
}

func find1(n *yaml.Node, name string) *yaml.Node {
	k, _ := find(n, name)
	return k
}

// addIndented puts lines before a key, at its indentation.
func (d *doc) addIndented(key *yaml.Node, with ...string) error {
	at, dashed, err := d.keyLine(key)
	if err != nil || dashed {
		return no(key, "%s does not begin its line", oneLine(key.Value))
	}
	for i := range with {
		with[i] = indent(key) + with[i]
	}
	d.edits.put(at, at, with...)
	return nil
}
