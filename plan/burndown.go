package plan

import (
	"cmp"
	"slices"

	"github.com/proviso-ci/proviso/inventory"
)

// Earlier is an inventory from before, with its name (a file, a date).
type Earlier struct {
	Name      string
	Inventory *inventory.Inventory
}

// BurnDown says how many static secrets there were, and are.
type BurnDown struct {
	// Points are oldest first; the last is now.
	Points []Point `json:"points"`
	// Gone were there in the last earlier inventory and are no more; New is the reverse.
	Gone []string `json:"gone"`
	New  []string `json:"new"`
	// Left is what is left after each wave, if it is done: "after wave 1", ...
	Left []Point `json:"left"`
}

// Point is a count at one time.
type Point struct {
	Name string `json:"name"`
	// Secrets are distinct secrets of a repository, Places the paths that use them.
	Secrets int `json:"secrets"`
	Places  int `json:"places"`
	// Federated are paths with an exchanged identity, Outsiders static paths that a fork reaches.
	Federated int `json:"federated"`
	Outsiders int `json:"outsiders"`
}

// burnDown counts then, now and after each wave.
func (p *planner) burnDown() *BurnDown {
	if len(p.opt.Since) == 0 {
		return nil
	}
	b := &BurnDown{Points: []Point{}, Gone: []string{}, New: []string{}, Left: []Point{}}
	var before map[string]string
	for _, e := range p.opt.Since {
		old := Tree{Inventory: e.Inventory}
		if len(p.trees) == 1 {
			old.Dir = p.trees[0].Dir // for the name of its root
		}
		b.Points, before = append(b.Points, Point{}), make(map[string]string)
		p.count(&b.Points[len(b.Points)-1], e.Name, []Tree{old}, before)
	}
	now, names := Point{}, make(map[string]string)
	p.count(&now, "now", p.trees, names)
	b.Points = append(b.Points, now)
	for key, n := range before {
		if _, there := names[key]; !there {
			b.Gone = append(b.Gone, oneLine(n))
		}
	}
	for key, n := range names {
		if _, there := before[key]; !there {
			b.New = append(b.New, oneLine(n))
		}
	}
	slices.Sort(b.Gone)
	slices.Sort(b.New)
	left := now
	for _, w := range p.plan.Waves {
		for _, id := range w.Items {
			it := p.plan.Item(id)
			left.Secrets -= len(it.Secrets)
			left.Places -= len(it.Places)
			for _, pl := range it.Places {
				if pl.Reach.Trust == inventory.ForkReachable {
					left.Outsiders--
				}
				if it.Via != ViaPlatform && it.Via != ViaNone {
					left.Federated++
				}
			}
		}
		left.Name = "after wave " + digits(w.Number)
		left.Secrets = max(left.Secrets, 0)
		b.Left = append(b.Left, left)
	}
	return b
}

// count counts one time; names are "repository: secret", by what tells them apart.
func (p *planner) count(pt *Point, name string, trees []Tree, names map[string]string) {
	pt.Name = name
	for ti := range trees {
		t := &trees[ti]
		for i := range t.Inventory.Paths {
			path := &t.Inventory.Paths[i]
			switch {
			case path.Credential.Kind == inventory.Federated:
				pt.Federated++
			case path.Credential.Kind == inventory.StaticSecret && path.Credential.Nature != inventory.NatureIdentifier && !vaulted(path):
				pt.Places++
				if path.Reach.Trust == inventory.ForkReachable {
					pt.Outsiders++
				}
				repo := inventory.RepositoryOf(path.File)
				names[repo+": "+path.Credential.Name] = cmp.Or(repo, p.rootName(t, path)) + ": " + path.Credential.Name
			}
		}
	}
	pt.Secrets = len(names)
}

// rootName is what people call a root that is a repository itself.
func (p *planner) rootName(t *Tree, path *inventory.Path) string {
	r := p.repos.of(t, path.File)
	return cmp.Or(r.name, path.Repository, r.label())
}
