package report

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// graph is the picture of an inventory for formats that stand still: pipelines
// on the left, credentials in the middle, resources on the right.
type graph struct {
	// nodes of the three layers, worst first.
	pipelines, credentials, resources []*graphNode
	// uses lead from a pipeline to a credential, opens from a credential to a resource.
	uses, opens []*graphEdge
	// grain says what one pipeline node is: "job", "file", "directory" or "system".
	grain string
	// left is the number of paths that the bound left out.
	left int
}

// graphNode is a pipeline, a credential or a resource.
type graphNode struct {
	id    string // p1, c1, r1: never made of a name
	label []string
	kind  inventory.Kind // of a credential
	trust inventory.Trust
	paths int
}

// graphEdge joins two nodes of neighbouring layers.
type graphEdge struct {
	from, to *graphNode
	kind     inventory.Kind
	trust    inventory.Trust
	paths    int
}

// grains are the sizes of a pipeline node, finest first.
var grains = []struct {
	name string
	of   func(*inventory.Path) []string
}{
	{"job", func(p *inventory.Path) []string { return []string{p.File, p.Job} }},
	{"file", func(p *inventory.Path) []string { return []string{p.File} }},
	{"directory", func(p *inventory.Path) []string { return []string{topDirectory(p.File)} }},
	{"system", func(p *inventory.Path) []string { return []string{string(p.CI)} }},
}

// topDirectory gives the part of a file's name that tells repositories of an estate apart.
func topDirectory(file string) string {
	dir := path.Dir(file)
	for _, own := range []string{"/.github/", "/.gitlab/", "/.circleci/", "/.buildkite/", "/.woodpecker/", "/.forgejo/", "/.gitea/"} {
		if i := strings.Index("/"+dir+"/", own); i >= 0 {
			return strings.Trim(dir[:max(i-1, 0)], "/") + "/"
		}
	}
	return strings.TrimSuffix(dir, ".") + "/"
}

// graphOf draws an inventory with at most limit edges: first with a node for
// each job, else coarser, and when even that is too much, only the worst paths.
func graphOf(inv *inventory.Inventory, limit int) *graph {
	paths := make([]*inventory.Path, 0, len(inv.Paths))
	for i := range inv.Paths {
		paths = append(paths, &inv.Paths[i])
	}
	slices.SortStableFunc(paths, func(a, b *inventory.Path) int { return cmp.Compare(b.Risk(), a.Risk()) })
	var g *graph
	for _, grain := range grains {
		if g = drawGraph(paths, grain.name, grain.of); len(g.uses)+len(g.opens) <= limit {
			return g
		}
	}
	// Binary search for the most paths that fit: fewer paths never have more edges.
	of := grains[len(grains)-1]
	lo, hi := 0, len(paths)
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if t := drawGraph(paths[:mid], of.name, of.of); len(t.uses)+len(t.opens) <= limit {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	g = drawGraph(paths[:lo], of.name, of.of)
	g.left = len(paths) - lo
	return g
}

// drawGraph makes the nodes and edges of paths.
func drawGraph(paths []*inventory.Path, grain string, pipelineOf func(*inventory.Path) []string) *graph {
	g := &graph{grain: grain}
	index := make(map[string]*graphNode)
	edges := make(map[string]*graphEdge)
	node := func(layer *[]*graphNode, prefix string, p *inventory.Path, label ...string) *graphNode {
		key := prefix + "\x00" + string(p.Credential.Kind) + "\x00" + strings.Join(label, "\x00")
		if prefix != "c" {
			key = prefix + "\x00" + strings.Join(label, "\x00")
		}
		n := index[key]
		if n == nil {
			n = &graphNode{id: fmt.Sprintf("%s%d", prefix, len(*layer)+1), label: label, kind: p.Credential.Kind, trust: p.Reach.Trust}
			index[key] = n
			*layer = append(*layer, n)
		}
		n.paths++
		n.trust = widest(n.trust, p.Reach.Trust)
		return n
	}
	edge := func(list *[]*graphEdge, from, to *graphNode, p *inventory.Path) {
		key := from.id + " " + to.id + " " + string(p.Credential.Kind)
		e := edges[key]
		if e == nil {
			e = &graphEdge{from: from, to: to, kind: p.Credential.Kind, trust: p.Reach.Trust}
			edges[key] = e
			*list = append(*list, e)
		}
		e.paths++
		e.trust = widest(e.trust, p.Reach.Trust)
	}
	for _, p := range paths {
		cred := []string{p.Credential.Name}
		if p.Credential.Source != "" {
			cred = append(cred, "from "+p.Credential.Source)
		}
		from := node(&g.pipelines, "p", p, pipelineOf(p)...)
		c := node(&g.credentials, "c", p, cred...)
		to := node(&g.resources, "r", p, p.Resource.Kind, p.Resource.Name)
		edge(&g.uses, from, c, p)
		edge(&g.opens, c, to, p)
	}
	return g
}

// widest gives the reach that more people have.
func widest(a, b inventory.Trust) inventory.Trust {
	if trustRank(b) < trustRank(a) {
		return b
	}
	return a
}

// note says what the picture leaves out; "" when it is whole.
func (g *graph) note() string {
	var parts []string
	if g.grain != "job" {
		parts = append(parts, "each pipeline node is a "+g.grain+", because a node for each job would not be readable")
	}
	if g.left > 0 {
		parts = append(parts, plural(g.left, "path")+" of less weight left out; the HTML page and the JSON have all")
	}
	return strings.Join(parts, "; ")
}

// kindWords are the kinds of credential for people.
var kindWords = map[inventory.Kind]string{
	inventory.StaticSecret: "static secret", inventory.Federated: "federated identity", inventory.PlatformToken: "platform token",
	inventory.Ambient: "ambient identity", inventory.ServiceConnection: "service connection",
}

// shorten bounds a label, so that one name can't stretch a picture.
func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
