package plan

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// variablesPackage is the Rego package of what no file could tell.
const variablesPackage = "proviso_plan_variables"

// policy writes the Rego that guards the item's grant, and its tests. It lets
// in the jobs that used the secret and nobody else: this repository by its
// immutable id, these triggers, these branches or environments.
func (d *draft) policy(file, pkg string) (body, tests string) {
	conds, good := d.conditions(file)
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n# In place of %s. Made by proviso plan; the ids are in variables.rego.\npackage %s\n\nimport data.%s as variables\n\ndefault allow := false\n\nallow if {\n",
		"Guards the grant "+d.item.ID+" for "+oneLine(d.item.Repository)+".", oneLine(strings.Join(d.item.Secrets, ", ")), pkg, variablesPackage)
	for _, c := range conds {
		fmt.Fprintf(&b, "\t%s\n", c)
	}
	if !bySubject(d.item.CI) {
		b.WriteString("\ttrusted\n")
	}
	b.WriteString("}\n")
	for _, s := range d.policyTrusts() {
		fmt.Fprintf(&b, "\n# %s\n", oneLine(s.say()))
		for _, line := range s.rego(d.item.CI) {
			b.WriteString(line + "\n")
		}
	}
	if files := d.workflowFiles(); len(files) > 0 {
		fmt.Fprintf(&b, "\n# The pipelines that used the secret, whatever the repository is called.\nknown_workflow if {\n\tsome file in {%s}\n\tendswith(split(input.identity.workflow, \"@\")[0], file)\n}\n", quotedList(files))
	}
	if len(d.trusts) == 0 && !bySubject(d.item.CI) {
		b.WriteString("\n# No branch and no environment could be read from the files. Until you name one here,\n# nobody is let in.\ntrusted if false\n")
	}
	b.WriteString("\nlimits := {\"ttl\": 900}\n")
	return b.String(), d.policyTests(pkg, good)
}

// policyTrusts are the branches and environments that a policy compares; what a
// subject names by itself needs none.
func (d *draft) policyTrusts() []subject {
	if bySubject(d.item.CI) {
		return nil
	}
	return d.trusts
}

// conditions are what every request must meet, and an input that meets it.
func (d *draft) conditions(file string) (conds []string, good map[string]map[string]any) {
	platform := platformOf(d.item.CI)
	member, id := d.anchor()
	d.p.use(file, id)
	d.p.use("policy/variables.rego", id)
	identity := map[string]any{"platform": platform, member: anchored(id, testID), "tenant": d.tenant(), "role": "ci-cd-pipeline"}
	good = map[string]map[string]any{"identity": identity, "resource": {"tenant": d.tenant()}, "context": {}}
	conds = []string{
		"input.identity.platform == " + quoted(platform),
		`input.identity.role == "ci-cd-pipeline"`,
		"input.identity." + member + " == " + regoText(id),
		"input.identity.tenant == input.resource.tenant",
	}
	switch d.item.CI {
	case inventory.GitHub, inventory.Forgejo:
		events := d.policyEvents()
		conds = append(conds, "input.identity.pull_request == false", "input.identity.event in {"+quotedList(events)+"}")
		identity["pull_request"], identity["event"] = false, events[0]
	case inventory.GitLab:
		conds = append(conds, "input.identity.pull_request == false", "input.identity.protected == true")
		identity["pull_request"], identity["protected"] = false, true
	default:
	}
	if files := d.workflowFiles(); len(files) > 0 {
		conds = append(conds, "known_workflow")
		identity["workflow"] = "owner/name" + files[0] + "@refs/heads/main"
	}
	if trusts := d.policyTrusts(); len(trusts) > 0 {
		trusts[0].satisfy(d.item.CI, good)
	}
	return conds, good
}

// testID is the value that tests give to each variable.
const testID = "4711"

// anchored is a template with one value in the place of each variable.
func anchored(template, value string) string {
	return render(template, func(s string) string { return s }, func(string) string { return value })
}

// regoText is a template as an expression of Rego.
func regoText(template string) string {
	if m := inTemplate.FindStringSubmatch(template); m != nil && m[0] == template {
		return "variables." + m[1]
	}
	var names []string
	form := render(template, func(s string) string { return strings.ReplaceAll(s, "%", "%%") }, func(name string) string {
		names = append(names, "variables."+name)
		return "%s"
	})
	return "sprintf(" + quoted(form) + ", [" + strings.Join(names, ", ") + "])"
}

// policyEvents are the triggers that the item's jobs have and that no outsider starts.
func (d *draft) policyEvents() []string {
	var out []string
	for _, p := range d.group.paths {
		for _, e := range p.Reach.Events {
			if slices.Contains([]string{"push", "schedule", "workflow_dispatch", "release"}, e) && !slices.Contains(out, e) {
				out = append(out, e)
			}
		}
	}
	if len(out) == 0 {
		out = []string{"push"}
	}
	slices.Sort(out)
	return out
}

// rego is one way to be trusted.
func (s subject) rego(ci inventory.CI) []string {
	field := map[string]string{"environment": "input.identity.environment", "branch": "input.context.branch", "tag": "input.context.tag"}[s.kind]
	if s.exact {
		return []string{"trusted if " + field + " == " + quoted(s.name)}
	}
	head := strings.TrimSuffix(s.name, "*")
	if head == "" {
		return []string{"trusted if is_string(" + field + ")"}
	}
	return []string{"trusted if regex.match(" + quoted("^"+regexp.QuoteMeta(head)+"[^/]*$") + ", " + field + ")"}
}

// satisfy fills in what the subject wants.
func (s subject) satisfy(_ inventory.CI, in map[string]map[string]any) {
	name := strings.TrimSuffix(s.name, "*")
	if !s.exact {
		name += "1"
	}
	switch s.kind {
	case "environment":
		in["identity"]["environment"] = name
	default:
		in["context"][s.kind] = name
	}
}

// policyTests shows one request that is let in, and that each condition is needed.
func (d *draft) policyTests(pkg string, good map[string]map[string]any) string {
	member, anchor := d.anchor()
	var b strings.Builder
	fmt.Fprintf(&b, "package %s_test\n\nimport data.%s as policy\n\ngood := {\n", pkg, pkg)
	var paths []string
	for _, part := range slices.Sorted(maps.Keys(good)) {
		var members []string
		for _, k := range slices.Sorted(maps.Keys(good[part])) {
			v := fmt.Sprint(good[part][k])
			if s, ok := good[part][k].(string); ok {
				v = quoted(s)
			}
			members = append(members, quoted(k)+": "+v)
			paths = append(paths, "/"+part+"/"+k)
		}
		fmt.Fprintf(&b, "\t%s: {%s},\n", quoted(part), strings.Join(members, ", "))
	}
	var id, unset string
	for _, m := range inTemplate.FindAllStringSubmatch(anchor, -1) {
		id += " with data." + variablesPackage + "." + m[1] + " as " + quoted(testID)
		unset += " with data." + variablesPackage + "." + m[1] + ` as ""`
	}
	id, unset = strings.TrimSpace(id), strings.TrimSpace(unset)
	b.WriteString("}\n\n")
	if len(d.trusts) == 0 && !bySubject(d.item.CI) {
		fmt.Fprintf(&b, "test_nobody_until_a_branch_is_named if not policy.allow with input as good %s\n", id)
		return b.String()
	}
	fmt.Fprintf(&b, "test_the_job_is_let_in if policy.allow with input as good %s\n\n", id)
	fmt.Fprintf(&b, "test_each_condition_is_needed if {\n\tevery path in [%s] {\n\t\tnot policy.allow with input as json.patch(good, [{\"op\": \"remove\", \"path\": path}]) %s\n\t}\n}\n\n", quotedList(paths), id)
	fmt.Fprintf(&b, "test_another_repository if {\n\tnot policy.allow with input as json.patch(good, [{\"op\": \"replace\", \"path\": \"/identity/%s\", \"value\": %s}]) %s\n}\n\n", member, quoted(anchored(anchor, "4712")), id)
	fmt.Fprintf(&b, "test_another_tenant if {\n\tnot policy.allow with input as json.patch(good, [{\"op\": \"replace\", \"path\": \"/identity/tenant\", \"value\": \"other\"}]) %s\n}\n", id)
	if d.item.CI == inventory.GitHub {
		fmt.Fprintf(&b, "\ntest_a_pull_request if {\n\tnot policy.allow with input as json.patch(good, [{\"op\": \"replace\", \"path\": \"/identity/pull_request\", \"value\": true}]) %s\n}\n", id)
	}
	fmt.Fprintf(&b, "\ntest_nobody_while_the_id_is_not_set if not policy.allow with input as good %s\n", unset)
	return b.String()
}

func quotedList(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, quoted(s))
	}
	return strings.Join(out, ", ")
}

// variablesRego is the one place in which policies ask. An empty value lets
// nobody in, and the test beside it keeps the policies from becoming active.
func (p *planner) variablesRego() {
	const file = "policy/variables.rego"
	var b, t strings.Builder
	fmt.Fprintf(&b, "# What no file of the repositories could tell: set each value once, here.\n# While one is empty its policy lets nobody in, and `proviso config check` and\n# `proviso policy test` name it.\npackage %s\n", variablesPackage)
	fmt.Fprintf(&t, "package %s_test\n\nimport data.%s as variables\n", variablesPackage, variablesPackage)
	found := false
	for _, key := range sortedKeys(p.vars) {
		v := p.vars[key]
		if !slices.Contains(v.In, file) {
			continue
		}
		found = true
		fmt.Fprintf(&b, "\n# %s\n# Find it: %s\n%s := %s\n", oneLine(v.What), oneLine(v.How), key, quoted(v.Value))
		fmt.Fprintf(&t, "\ntest_variable_%s_is_set if variables.%s != \"\"\n", key, key)
	}
	if found {
		p.file(file, b.String(), false)
		p.file("policy/variables_test.rego", t.String(), false)
	}
}
