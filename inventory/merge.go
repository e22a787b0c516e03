package inventory

import (
	"path"
	"slices"
	"strings"
)

// Merge makes one document of the inventories of several roots and joins both
// ends of each federation in it. One is given back as it is; with more, the
// names of files begin with their root.
func Merge(docs []*Inventory) *Inventory {
	if len(docs) == 1 {
		docs[0].connect()
		return docs[0]
	}
	out := &Inventory{Version: Version, Files: []File{}, Paths: []Path{}, Findings: []Finding{}, Unresolved: []Unresolved{}}
	var roots []string
	for _, d := range docs {
		roots = append(roots, d.Root)
		in := func(name string) string { return path.Join(d.Root, name) }
		ids := make(map[string]string, len(d.Paths))
		for _, f := range d.Files {
			f.File = in(f.File)
			out.Files = append(out.Files, f)
		}
		for _, p := range d.Paths {
			old := p.ID
			p.File = in(p.File)
			p.ID = p.id()
			ids[old] = p.ID
			out.Paths = append(out.Paths, p)
		}
		for _, u := range d.Unresolved {
			u.File = in(u.File)
			out.Unresolved = append(out.Unresolved, u)
		}
		for _, f := range d.Findings {
			f.File = in(f.File)
			f.ID = stableID("finding", d.Root, f.ID) // two roots may have a file of the same name
			f.Paths = slices.Clone(f.Paths)
			for i, id := range f.Paths {
				if n, ok := ids[id]; ok {
					f.Paths[i] = n
				}
			}
			out.Findings = append(out.Findings, f)
		}
		for _, t := range d.Trusts {
			t.File = in(t.File)
			t.ID = stableID("trust", d.Root, t.ID)
			out.Trusts = append(out.Trusts, t)
		}
	}
	out.Root = strings.Join(roots, ", ")
	out.sortDocument()
	out.number()
	out.connect()
	return out
}
