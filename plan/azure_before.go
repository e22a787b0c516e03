package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// before puts a step before the first of a list that uses the secret: it leaves
// what takes the secret's place in a secret variable of the job, and the steps
// name that one. It has a name of its own, so that nothing falls back to the old secret.
func (f azureFile) before(l azureSteps, d *draft) error {
	secret := d.item.Secrets[0]
	variable := "JIT_" + upper(secret)
	taken := func() bool {
		return slices.ContainsFunc(f.text, func(s string) bool { return strings.Contains(s, variable) })
	}
	if taken() { // one secret for two targets: an item each
		variable = "JIT_" + upper(d.item.ID)
	}
	if taken() {
		return no(l.steps[0], "the pipeline has a variable %s of its own", variable)
	}
	commands, err := f.valueOf(l.steps[0], d)
	if err != nil {
		return err
	}
	condition, err := f.sameCondition(l.steps)
	if err != nil {
		return err
	}
	for _, n := range l.steps {
		if err := f.rename(n, variable, d); err != nil {
			return err
		}
	}
	list := &scriptList{f.doc, l.list, l.list}
	line, blanks, err := list.dash(slices.Index(l.list.Content, l.steps[0]))
	if err != nil {
		return err
	}
	step := []string{"- bash: |"}
	for _, c := range slices.Concat([]string{stopAtOnce}, commands, []string{
		`if [ "${value//$'\n'/}" != "$value" ]; then echo "a value of several lines can't be a secret variable" >&2; exit 1; fi`,
		`echo "##vso[task.setvariable variable=` + variable + `;issecret=true]${value//'%'/%AZP25}"`}) {
		step = append(step, "    "+c)
	}
	step = append(step, "  displayName: "+quoted(secret+" just in time, as policy allows"))
	if condition != "" {
		step = append(step, "  condition: "+condition)
	}
	step = append(step, "  env:", "    SYSTEM_ACCESSTOKEN: $(System.AccessToken)")
	for i := range step {
		step[i] = blanks + step[i]
	}
	f.insertBefore(line, step...)
	d.note("What is asked for is in a secret variable of the job for the steps behind the one that asks: no other step names it. The agent needs a bash.")
	return nil
}

// valueOf are commands that leave in $value what takes the secret's place.
func (f azureFile) valueOf(n *yaml.Node, d *draft) ([]string, error) {
	give := azureToken
	if d.through() {
		d.provisoURL()
		give = "proviso token --grant " + d.item.ID
	}
	switch {
	case d.method.fetch:
		d.provisoURL()
		d.shared("VAULT_ADDR", vaultAddress)
		return append(d.fetchScript(), azureMask), nil
	case d.method.name == "azure":
		return []string{`value="$(` + give + `)"`}, nil
	case d.method.name == "vault":
		t, err := d.login(azureToken)
		if err != nil {
			return nil, err
		}
		return []string{strings.Replace(t.before[1], "VAULT_TOKEN=", "value=", 1)}, nil
	}
	return nil, no(n, "for this step of Azure Pipelines there are steps, and no patch")
}

// rename has a step name another variable.
func (f azureFile) rename(n *yaml.Node, variable string, d *draft) error {
	if err := f.block(n, "the step"); err != nil {
		return err
	}
	from, to, err := f.extent(n)
	if err != nil {
		return err
	}
	macro := regexp.MustCompile(`\$\(` + regexp.QuoteMeta(d.item.Secrets[0]) + `\)`)
	mapped := f.mappedAs(n, d.item.Secrets)
	for at := from; at < to; at++ {
		with := f.text[at]
		if d.method.name == "azure" {
			var ok bool
			if with, ok = azureLogin(with, macro, mapped); !ok {
				return &whyNot{at + 1, "the client secret is used by something else than az login, which a token can't stand in for"}
			}
		}
		if with = macro.ReplaceAllLiteralString(with, "$("+variable+")"); with != f.text[at] {
			f.edits.put(at, at+1, with)
		}
	}
	return nil
}

// mappedAs are the variables of a step's environment that hold the secret.
func (f azureFile) mappedAs(n *yaml.Node, secrets []string) (out []string) {
	env := value(n, "env")
	for i := 0; env != nil && i+1 < len(env.Content); i += 2 {
		if f.uses(env.Content[i+1], secrets) {
			out = append(out, env.Content[i].Value)
		}
	}
	return out
}

// azureLogin has az log in with a token where a line hands it the secret; false
// where the line does something else with it.
func azureLogin(line string, macro *regexp.Regexp, mapped []string) (string, bool) {
	refs := []string{macro.String()}
	for _, m := range mapped {
		refs = append(refs, `\$env:`+m+`\b`, `%`+m+`%`, `\$\{?`+m+`\b\}?`)
	}
	ref := `(["']?(?:` + strings.Join(refs, "|") + `)["']?)`
	if m := regexp.MustCompile(`^(.*\baz login\b.*? )(?:-p|--password)(?: +|=)` + ref + `(.*)$`).FindStringSubmatch(line); m != nil {
		return m[1] + "--federated-token " + m[2] + m[3], true
	}
	entry := slices.ContainsFunc(mapped, func(m string) bool {
		return strings.HasPrefix(strings.TrimSpace(line), m+":") && !slices.Contains(handedOn, m)
	})
	return line, entry || !regexp.MustCompile(ref).MatchString(line)
}

// sameCondition gives the condition that all steps have as it is written: where
// one can run without the others, the value would be asked for in vain.
func (f azureFile) sameCondition(steps []*yaml.Node) (string, error) {
	written := ""
	for i, n := range steps {
		key, val := find(n, "condition")
		s := ""
		if key != nil {
			at, _, err := f.oneLineEntry(key, val)
			if err != nil {
				return "", err
			}
			end, _ := f.valueEnd(val)
			s = f.text[at][byteAt(f.text[at], val.Column-1):end]
		}
		if i > 0 && s != written {
			return "", no(n, "steps that use the secret have different conditions, and one that fetches the value for both would ask where policy may refuse")
		}
		written = s
	}
	return written, nil
}

// extent gives the lines of an entry of a list.
func (f azureFile) extent(n *yaml.Node) (from, to int, err error) {
	from, dashed, err := f.keyLine(n.Content[0])
	if err != nil {
		return 0, 0, err
	}
	if !dashed {
		return 0, 0, no(n, "the step does not begin on the line of its dash")
	}
	in := strings.Repeat(" ", n.Content[0].Column-1)
	for to = from + 1; to < len(f.text) && (strings.TrimSpace(f.text[to]) == "" || strings.HasPrefix(f.text[to], in)); {
		to++
	}
	return from, to, nil
}
