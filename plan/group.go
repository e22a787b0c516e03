package plan

import (
	"cmp"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// group is the paths of one item, before anything is known about it.
type group struct {
	repo   *repository
	ci     inventory.CI
	method *method
	names  []string
	ids    []string
	paths  []*inventory.Path
}

// grouper puts together what goes away together: one name for one method in
// one repository, and the halves of a pair.
type grouper struct {
	groups      []*group
	index       map[groupKey]*group
	at          map[groupSpot]*group // the group that a step belongs to
	labels      map[groupSpot][]string
	known       map[*repository]map[string]bool // credentials, which are no identifiers elsewhere
	fetched     int
	identifiers int
}

type groupKey struct {
	repo   *repository
	ci     inventory.CI
	method *method
	name   string
}

type groupSpot struct {
	repo            *repository
	method          *method
	file, job, step string
}

func groupPaths(trees []Tree, repos repositories) *grouper {
	g := &grouper{index: make(map[groupKey]*group), at: make(map[groupSpot]*group), labels: make(map[groupSpot][]string), known: make(map[*repository]map[string]bool)}
	for ti := range trees {
		t := &trees[ti]
		for pi := range t.Inventory.Paths {
			p := &t.Inventory.Paths[pi]
			switch {
			case p.Credential.Kind != inventory.StaticSecret:
			case vaulted(p):
				g.fetched++
			default:
				repo := repos.of(t, p.File)
				if repo.name == "" && repositoryName.MatchString(p.Repository) {
					repo.name = p.Repository
				}
				g.add(repo, p)
			}
		}
	}
	g.groups = slices.DeleteFunc(g.groups, func(g *group) bool { return len(g.paths) == 0 })
	g.addLabels()
	for _, one := range g.groups {
		slices.Sort(one.names)
		slices.Sort(one.ids)
		slices.SortStableFunc(one.paths, func(a, b *inventory.Path) int {
			return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(a.ID, b.ID))
		})
	}
	slices.SortStableFunc(g.groups, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.repo.tree.Dir, b.repo.tree.Dir), strings.Compare(a.repo.dir, b.repo.dir), strings.Compare(strings.Join(a.names, " "), strings.Join(b.names, " ")), strings.Compare(a.method.name, b.method.name), strings.Compare(string(a.ci), string(b.ci)))
	})
	return g
}

// add puts one path into its group.
func (g *grouper) add(repo *repository, p *inventory.Path) {
	m := methodFor(p)
	at := groupSpot{repo, m, p.File, p.Job, p.Step}
	if p.Credential.Nature == inventory.NatureIdentifier {
		g.labels[at] = append(g.labels[at], p.Credential.Name)
		return
	}
	key := groupKey{repo, p.CI, m, p.Credential.Name}
	one, half := g.index[key], g.at[at]
	pairs := m.pairs && halves(p)
	switch {
	case pairs && half != nil && one == nil:
		one = half
	case pairs && half != nil && one != half:
		g.unite(half, one)
		one = half
	case one == nil:
		one = &group{repo: repo, ci: p.CI, method: m}
		g.groups = append(g.groups, one)
	}
	if g.index[key] = one; pairs || !m.pairs {
		g.at[at] = one
	}
	if !slices.Contains(one.names, p.Credential.Name) {
		one.names = append(one.names, p.Credential.Name)
	}
	one.paths = append(one.paths, p)
	if g.known[repo] == nil {
		g.known[repo] = make(map[string]bool)
	}
	g.known[repo][p.Credential.Name] = true
}

// halves reports whether a path is one of several values of one credential. On
// Jenkins a binding of AWS is the whole of it, and a stage is no step.
func halves(p *inventory.Path) bool {
	variable, env := strings.CutPrefix(p.ExposedVia, "environment: ")
	return p.CI != inventory.Jenkins || strings.EqualFold(strings.TrimSuffix(p.ExposedVia, "Binding"), "string") || env && (slices.Contains(awsKeyNames, variable) || !strings.Contains(p.Resource.Kind, "aws"))
}

// unite makes one group of two that turn out to be halves of one secret.
func (g *grouper) unite(into, from *group) {
	for _, n := range from.names {
		g.index[groupKey{from.repo, from.ci, from.method, n}] = into
	}
	for at, other := range g.at {
		if other == from {
			g.at[at] = into
		}
	}
	into.names, into.paths = append(into.names, from.names...), append(into.paths, from.paths...)
	from.names, from.paths = nil, nil
}

// addLabels gives the identifiers to the groups that they stand beside.
func (g *grouper) addLabels() {
	seen := make(map[string]bool)
	for at, names := range g.labels {
		for _, n := range names {
			if g.known[at.repo][n] {
				continue
			}
			seen[at.repo.tree.Dir+"\x00"+at.repo.dir+"\x00"+n] = true
			if one := g.at[at]; one != nil && !slices.Contains(one.ids, n) {
				one.ids = append(one.ids, n)
			}
		}
	}
	g.identifiers = len(seen)
}

// nameTail are last words of a secret's name that say what it is, not what it is for.
var nameTail = []string{"ACCESS", "KEY", "ID", "SECRET", "TOKEN", "PASSWORD", "API", "PAT", "CREDENTIALS", "CREDENTIAL", "JSON", "B64", "BASE64", "URL", "AUTH", "SA"}

// stem is what a secret is for, by its name.
func stem(names []string) string {
	words := strings.Split(slug(names[0]), "-")
	for len(words) > 1 && slices.Contains(nameTail, strings.ToUpper(words[len(words)-1])) {
		words = words[:len(words)-1]
	}
	return strings.Join(words, "-")
}

// nameGroups gives each group an id: short where that is unique.
func nameGroups(gs []*group) map[*group]string {
	ids := make(map[*group]string)
	taken := make(map[string]int)
	short := func(g *group) string { return trimDash(slug(g.repo.label()) + "-" + slug(stem(g.names))) }
	count := make(map[string]int)
	for _, g := range gs {
		count[short(g)]++
	}
	for _, g := range gs {
		id := short(g)
		if count[id] > 1 {
			id = trimDash(slug(g.repo.label()) + "-" + slug(g.names[0]) + "-" + g.method.name)
		}
		if taken[id]++; taken[id] > 1 {
			id += "-" + digits(taken[id])
		}
		ids[g] = id
	}
	return ids
}

func trimDash(s string) string {
	s = strings.Trim(s, "-")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = "x-" + s
	}
	return strings.Trim(s, "-")
}
