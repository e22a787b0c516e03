package plan

import (
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
func burnDown(trees []Tree, p *Plan, since []Earlier) *BurnDown {
	if len(since) == 0 {
		return nil
	}
	b := &BurnDown{Points: []Point{}, Gone: []string{}, New: []string{}, Left: []Point{}}
	var before map[string]bool
	for _, e := range since {
		pt, names := count(e.Name, []*inventory.Inventory{e.Inventory})
		b.Points, before = append(b.Points, pt), names
	}
	var invs []*inventory.Inventory
	for i := range trees {
		invs = append(invs, trees[i].Inventory)
	}
	now, names := count("now", invs)
	b.Points = append(b.Points, now)
	for n := range before {
		if !names[n] {
			b.Gone = append(b.Gone, oneLine(n))
		}
	}
	for n := range names {
		if !before[n] {
			b.New = append(b.New, oneLine(n))
		}
	}
	slices.Sort(b.Gone)
	slices.Sort(b.New)
	left := now
	for _, w := range p.Waves {
		for _, id := range w.Items {
			it := p.Item(id)
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

// count counts one time; names are "repository: secret".
func count(name string, invs []*inventory.Inventory) (Point, map[string]bool) {
	pt := Point{Name: name}
	names := make(map[string]bool)
	for _, inv := range invs {
		for i := range inv.Paths {
			p := &inv.Paths[i]
			switch {
			case p.Credential.Kind == inventory.Federated:
				pt.Federated++
			case p.Credential.Kind == inventory.StaticSecret && p.Credential.Nature != inventory.NatureIdentifier && !vaulted(p):
				pt.Places++
				if p.Reach.Trust == inventory.ForkReachable {
					pt.Outsiders++
				}
				repo := inventory.RepositoryOf(p.File)
				if repo == "" {
					repo = "."
				}
				names[repo+": "+p.Credential.Name] = true
			}
		}
	}
	pt.Secrets = len(names)
	return pt, names
}
