package plan

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// What no file can tell is a variable. A text that needs one is a template in
// which it stands as {{name}}; each language has its own form of it, and each
// refuses to work while it is not set.

// placeholder begins what `proviso config check` refuses by name.
const placeholder = "SET-ME:"

// ask makes a variable, or finds the one that was made for the same thing, and
// gives its place in a template.
func (p *planner) ask(prefix, about, what, how string) string {
	name := snake(prefix)
	if about != "" {
		name += "_" + strings.ReplaceAll(strings.Trim(notSlug.ReplaceAllString(strings.ToLower(about), "-"), "-"), "-", "_")
	}
	for n := 1; ; n++ {
		key := name
		if n > 1 {
			key += "_" + digits(n)
		}
		v := p.vars[key]
		if v == nil {
			p.vars[key] = &Variable{Name: key, What: what, How: how, Value: p.opt.Set[key], In: []string{}}
			return "{{" + key + "}}"
		}
		if v.What == what { // the sentence names what it is about
			return "{{" + key + "}}"
		}
	}
}

var inTemplate = regexp.MustCompile(`\{\{([a-z0-9_]+)\}\}`)

// use notes that a file asks for the variables of a template.
func (p *planner) use(file, template string) {
	for _, m := range inTemplate.FindAllStringSubmatch(template, -1) {
		if v := p.vars[m[1]]; v != nil && !slices.Contains(v.In, file) {
			v.In = append(v.In, file)
		}
	}
}

// render writes a template with a form for its variables and one for the text between.
func render(template string, text func(string) string, variable func(string) string) string {
	var b strings.Builder
	last := 0
	for _, m := range inTemplate.FindAllStringSubmatchIndex(template, -1) {
		b.WriteString(text(template[last:m[0]]))
		b.WriteString(variable(template[m[2]:m[3]]))
		last = m[1]
	}
	b.WriteString(text(template[last:]))
	return b.String()
}

// tf gives a template as a string of Terraform.
func (p *planner) tf(file, template string) string {
	p.use(file, template)
	if m := inTemplate.FindStringSubmatch(template); m != nil && m[0] == template {
		return "var." + m[1]
	}
	inner := func(s string) string { q := hcl(s); return q[1 : len(q)-1] }
	return `"` + render(template, inner, func(name string) string { return "${var." + name + "}" }) + `"`
}

// shell gives a template as a word of a shell script that checked its variables.
func (p *planner) shell(file, template string) string {
	p.use(file, template)
	inner := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace
	return `"` + render(template, inner, func(name string) string { return "${" + strings.ToUpper(name) + "}" }) + `"`
}

// heredoc gives a template for the body of an unquoted here-document.
func (p *planner) heredoc(file, template string) string {
	p.use(file, template)
	inner := strings.NewReplacer(`\`, `\\`, `$`, `\$`, "`", "\\`").Replace
	return render(template, inner, func(name string) string { return "${" + strings.ToUpper(name) + "}" })
}

// yamlText gives a template as a quoted string of YAML: the value where it is
// set, else a placeholder that no check lets through.
func (p *planner) yamlText(file, template string) string {
	p.use(file, template)
	return quoted(render(template, func(s string) string { return s }, func(name string) string {
		if v := p.vars[name]; v.Value != "" {
			return v.Value
		}
		return placeholder + name
	}))
}

// shellHead begins a script: it stops at the first failure, and asks for its
// variables before it does anything.
func (p *planner) shellHead(file, title string, templates ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# %s\n# Made by proviso plan. Read it before you run it.\nset -eu\n\n", oneLine(title))
	var names []string
	for _, t := range templates {
		p.use(file, t)
		for _, m := range inTemplate.FindAllStringSubmatch(t, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		v := p.vars[name]
		fmt.Fprintf(&b, "# %s\n# Find it: %s\n", oneLine(v.What), oneLine(v.How))
		if v.Value != "" {
			fmt.Fprintf(&b, "%s=%s\n", strings.ToUpper(name), sh(v.Value))
			continue
		}
		fmt.Fprintf(&b, ": \"${%s:?is not set, see the comment above it in this file}\"\n", strings.ToUpper(name))
	}
	if len(names) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

// variablesTF is the one place in which Terraform asks.
func (p *planner) variablesTF() string {
	const name = "trust/variables.tf"
	var b strings.Builder
	b.WriteString("# What no file of the repositories could tell. Nothing has a default: Terraform asks,\n# or refuses, until each is set (terraform.tfvars).\n")
	found := false
	for _, key := range slices.Sorted(maps.Keys(p.vars)) {
		v := p.vars[key]
		if !slices.ContainsFunc(v.In, func(f string) bool { return strings.HasSuffix(f, ".tf") }) {
			continue
		}
		found = true
		fmt.Fprintf(&b, "\nvariable %s {\n  type        = string\n  description = %s\n", hcl(key), hcl(v.What+" Find it: "+v.How))
		if v.Value != "" {
			fmt.Fprintf(&b, "  default     = %s\n", hcl(v.Value))
		}
		fmt.Fprintf(&b, "\n  validation {\n    condition     = can(regex(\"^[^*\\\\s]+$\", var.%s))\n    error_message = %s\n  }\n}\n", key, hcl("Set "+key+" to one value, without blanks and wildcards."))
		v.In = append(v.In, name)
	}
	if !found {
		return ""
	}
	return b.String()
}

// unusedValues are names of --set that no variable has.
func (p *planner) unusedValues() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(p.opt.Set)) {
		if p.vars[name] == nil {
			out = append(out, oneLine(name))
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// file adds a generated text to the plan.
func (p *planner) file(name, text string, executable bool) {
	p.files[name] = &File{Name: name, Text: text, Executable: executable}
}
