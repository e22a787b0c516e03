package inventory

import (
	_ "embed"
	"slices"
	"strings"
	"sync"
)

//go:embed tables/actions.tbl
var actionsTable string

// consumerRow is one line of a table: what an action, orb, pipe, plugin or task does with credentials.
type consumerRow struct {
	res      Resource
	known    bool // false: it is known to take no credential
	nameFrom []string
	secrets  []string
	labels   []string
	fed      []string // inputs, "always", or input=value
	unless   []string
	ambient  string // input=value
	as       string
	gives    string
	fetch    []string
	source   string
	derived  []string // inputs that may hold the result of an exchange
	push     string
	conn     []string // inputs that name a service connection
	env      []string // variables of the surroundings that it takes by default
	fedName  string   // of the identity token, where a row fixes it
}

// table finds rows by name: exact, or by the longest prefix before a star.
type table struct {
	exact    map[string]*consumerRow
	prefixes []tablePrefix
}

type tablePrefix struct {
	prefix string
	row    *consumerRow
}

// parseTable reads a table. A line that is not of the form is a mistake of this program.
func parseTable(text string) *table {
	t := &table{exact: make(map[string]*consumerRow)}
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		row := &consumerRow{known: len(f) > 1 && f[1] != "-"}
		if row.known {
			row.res.Kind, row.res.Name, _ = strings.Cut(f[1], "=")
		}
		for _, field := range f[min(2, len(f)):] {
			key, val, ok := strings.Cut(field, ":")
			if !ok {
				panic("inventory: a table has the field " + field + " without a colon")
			}
			row.set(key, val)
		}
		name := strings.ToLower(f[0])
		if p, ok := strings.CutSuffix(name, "*"); ok {
			t.prefixes = append(t.prefixes, tablePrefix{p, row})
		} else {
			t.exact[name] = row
		}
	}
	slices.SortStableFunc(t.prefixes, func(a, b tablePrefix) int { return len(b.prefix) - len(a.prefix) })
	return t
}

func (row *consumerRow) set(key, val string) {
	list := strings.Split(val, ",")
	switch key {
	case "name":
		row.nameFrom = list
	case "secret":
		row.secrets = list
	case "id":
		row.labels = list
	case "fed":
		row.fed = list
	case "fed-derived":
		row.derived = list
	case "unless":
		row.unless = list
	case "ambient":
		row.ambient = val
	case "as":
		row.as = val
	case "gives":
		row.gives = val
	case "fetch":
		row.fetch = list
	case "fetch-env":
	case "source":
		row.source = val
	case "push":
		row.push = val
	case "conn":
		row.conn = list
	case "env":
		row.env = list
	case "token":
		row.fedName = val
	default:
		panic("inventory: a table has the unknown field " + key)
	}
}

// find gives the row of a name, nil when there is none.
func (t *table) find(name string) *consumerRow {
	name = strings.ToLower(name)
	if row, ok := t.exact[name]; ok {
		return row
	}
	for _, p := range t.prefixes {
		if strings.HasPrefix(name, p.prefix) {
			return p.row
		}
	}
	return nil
}

var actionRows = sync.OnceValue(func() *table { return parseTable(actionsTable) })

// findAction gives the row of a `uses:`, without its version and, on Forgejo, without the host that it is loaded from.
func findAction(uses string) *consumerRow {
	return actionRows().find(actionName(uses))
}

// actionName cuts version and host from a `uses:`.
func actionName(uses string) string {
	name, _, _ := strings.Cut(strings.TrimSpace(uses), "@")
	if i := strings.Index(name, "://"); i >= 0 && !strings.HasPrefix(name, "docker://") {
		name = name[i+3:]
		if j := strings.IndexByte(name, '/'); j >= 0 {
			name = name[j+1:]
		}
	}
	return name
}

// inputUse says what an input of a known consumer is for; get gives the text of an input.
func (row *consumerRow) inputUse(key string, get func(string) string) use {
	u := use{res: row.resource(get)}
	if forgeInputs[strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(key))] && deploys(u.res.Kind) {
		return use{res: Resource{"vcs/github", ""}, nature: NatureCredential, sure: true} // to tell the pull request what was deployed
	}
	for _, s := range row.secrets {
		if strings.EqualFold(s, key) {
			u.nature, u.sure = NatureCredential, true
			return u
		}
	}
	for _, s := range row.labels {
		if strings.EqualFold(s, key) {
			u.nature = NatureIdentifier
			return u
		}
	}
	u.nature = natureOf(key)
	return u
}

// forgeInputs are inputs, in lower case, that take a token of the forge, whatever else the action is for.
var forgeInputs = set("repotoken", "githubtoken")

// deploys reports whether a resource is where things run.
func deploys(kind string) bool {
	return family(kind) == "cloud" || family(kind) == "paas" || family(kind) == "k8s"
}

// resource gives what the consumer talks to with these inputs.
func (row *consumerRow) resource(get func(string) string) Resource {
	res := row.res
	for _, in := range row.nameFrom {
		v := strings.TrimSpace(get(in))
		if v == "" {
			continue
		}
		first, _, _ := strings.Cut(v, "\n")
		if res.Kind == "registry/container" {
			if host, _, _ := strings.Cut(first, "/"); (in == "repo" || in == "image" || in == "tags") && !strings.Contains(host, ".") {
				return Resource{res.Kind, "docker.io"} // an image without a host
			}
			if r := imageRegistry(first); r.Name != "" && !strings.Contains(first, "${{") {
				return r
			}
		}
		res.Name = oneLine(first)
		break
	}
	return res
}

// federates reports whether the consumer exchanges the identity token with these inputs.
func (row *consumerRow) federates(get func(string) string) bool {
	for _, in := range row.unless {
		if get(in) != "" {
			return false
		}
	}
	for _, f := range row.fed {
		if f == "always" {
			return true
		}
		if in, want, ok := strings.Cut(f, "="); ok {
			if strings.EqualFold(get(in), want) {
				return true
			}
		} else if get(f) != "" {
			return true
		}
	}
	return false
}

// isAmbient reports whether the consumer asks for the machine's identity.
func (row *consumerRow) isAmbient(get func(string) string) bool {
	in, want, ok := strings.Cut(row.ambient, "=")
	return ok && strings.EqualFold(get(in), want)
}
