package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var assigned = regexp.MustCompile(`^(?:export )?([A-Za-z_]\w*)=`)

// clash refuses commands before a script that reads, from its environment, a
// variable of a name that they set for themselves.
func clash(before []string, script string, own []string) error {
	for _, c := range before {
		m := assigned.FindStringSubmatch(c)
		if m == nil || strings.ToLower(m[1]) != m[1] {
			continue // names in capitals are there for the script, or for its tools
		}
		mine := false
		for _, n := range own {
			mine = mine || n == m[1]
		}
		if !mine && variable(m[1]).MatchString(script) && !regexp.MustCompile(`(^|[\s;&|(])(`+m[1]+`=|(read|for|local|declare|export)( -\w+)* (\w+ )*`+m[1]+`\b)`).MatchString(script) {
			return fmt.Errorf("the script reads a variable %s of its environment, and the commands of the patch have one of that name", m[1])
		}
	}
	return nil
}

// readsFile finds uses of a variable as the name of a file: the platform has
// written the value into one.
func readsFile(name, script string) bool {
	ref := `"?\$\{?` + regexp.QuoteMeta(name) + `\b`
	return fileName.MatchString(name) ||
		regexp.MustCompile(`(^|[\s;&|(])(cat|cp|mv|source|\.|chmod|install|ssh-add|dos2unix|head|tail)( +-\S+| +[0-7]{3,4})* +`+ref).MatchString(script) ||
		regexp.MustCompile(`<\s*`+ref+`|(--[a-z-]*(file|netrc|kubeconfig)[ =]|\s-i |(^|[\s="'])@)`+ref).MatchString(script)
}

var fileName = regexp.MustCompile(`(?i)(_FILE|KUBECONFIG|NETRC)$`)

// intoFile leaves the value of a secret in a file that a variable names.
func (d *draft) intoFile(variable, field string) []string {
	return []string{variable + `="$(mktemp)"`, "export " + variable, `trap 'rm -f "$` + variable + `"' EXIT`,
		`vault kv get -mount=ci -field=` + field + ` ` + d.secretPath() + ` > "$` + variable + `"`}
}

// fetchedFile is how a value comes just in time into a file.
func (d *draft) fetchedFile(variable string) *takeover {
	t := d.fetched(variable)
	script := d.fetchScript()
	t.before = append(append([]string{stopAtOnce}, script[:3]...), append(d.intoFile(variable, "value"), script[4])...)
	d.note("The commands read the value from a file: put the file's content into the secrets manager (value=@FILE in place of value=-).")
	return t
}

var (
	trapOf  = regexp.MustCompile(`^\s*trap '(.*)' EXIT$`)
	itsTrap = regexp.MustCompile(`^(\s*)trap (?:'([^']*)'|(\w+)) ([A-Z0-9 ]+)$`)
	anyTrap = regexp.MustCompile(`(^|[\s;&|({])trap\s`)
)

// keepTrap puts what a takeover cleans up into the traps that the script sets
// itself, which would take its place.
func (t *takeover) keepTrap(lines [][]string) error {
	ours := ""
	for _, c := range t.before {
		if m := trapOf.FindStringSubmatch(c); m != nil {
			ours = m[1]
		}
	}
	for i, line := range lines {
		if ours == "" || len(line) == 0 || !anyTrap.MatchString(strings.Join(line, "\n")) {
			continue
		}
		m := itsTrap.FindStringSubmatch(line[0])
		if len(line) > 1 { // of a list, whose entries stay as they are
			m = nil
		}
		switch {
		case m == nil:
			return fmt.Errorf("the script has a trap of its own, and what the patch cleans up would stay: %s", oneLine(strings.TrimSpace(line[0])))
		case slices.Contains(strings.Fields(m[4]), "EXIT") || slices.Contains(strings.Fields(m[4]), "0"):
			lines[i] = []string{m[1] + "trap '" + m[2] + m[3] + "; " + ours + "' " + m[4]}
		}
	}
	return nil
}
