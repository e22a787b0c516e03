package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// dotEdges bounds a DOT graph: dot takes minutes for many thousands of edges.
const dotEdges = 1500

// dotStyles tell the kinds of credential apart by colour and by line, so that a print without colour still says which is which.
var dotStyles = map[inventory.Kind]string{
	inventory.StaticSecret:      `color="#b3261e", style="bold"`,
	inventory.Federated:         `color="#1b6e3c", style="dashed"`,
	inventory.Ambient:           `color="#7a3fa0", style="dotted"`,
	inventory.PlatformToken:     `color="#5f6368", style="solid"`,
	inventory.ServiceConnection: `color="#1a5fb4", style="tapered"`,
}

// DOT writes the graph for Graphviz: `dot -Tsvg`.
func DOT(w io.Writer, inv *inventory.Inventory) error {
	g := graphOf(inv, dotEdges)
	out := new(bytes.Buffer)
	fmt.Fprintf(out, "digraph access_paths {\n  rankdir=LR; ranksep=1.6; nodesep=0.12; splines=true;\n")
	title := "Access paths of " + inv.Root
	if n := g.note(); n != "" {
		title += " (" + n + ")"
	}
	fmt.Fprintf(out, "  label=%s; labelloc=t; fontname=\"sans-serif\";\n", dotText(title))
	fmt.Fprintf(out, "  node [shape=box, fontname=\"sans-serif\", fontsize=10, height=0.2]; edge [arrowsize=0.5];\n")
	for _, n := range g.pipelines {
		shape := ""
		if n.trust == inventory.ForkReachable {
			shape = ", peripheries=2"
		}
		fmt.Fprintf(out, "  %s [label=%s%s];\n", n.id, dotText(strings.Join(n.label, "\n")), shape)
	}
	for _, n := range g.credentials {
		fmt.Fprintf(out, "  %s [label=%s, shape=oval, %s];\n", n.id, dotText(kindWords[n.kind]+"\n"+strings.Join(n.label, "\n")), strings.ReplaceAll(dotStyles[n.kind], "tapered", "solid"))
	}
	for _, n := range g.resources {
		fmt.Fprintf(out, "  %s [label=%s, shape=component];\n", n.id, dotText(strings.Join(n.label, "\n")))
	}
	layer := func(list []*graphNode) {
		out.WriteString("  {rank=same;")
		for _, n := range list {
			out.WriteString(" " + n.id + ";")
		}
		out.WriteString("}\n")
	}
	layer(g.pipelines)
	layer(g.credentials)
	layer(g.resources)
	for _, list := range [][]*graphEdge{g.uses, g.opens} {
		for _, e := range list {
			fmt.Fprintf(out, "  %s -> %s [%s, tooltip=%s];\n", e.from.id, e.to.id, dotStyles[e.kind], dotText(plural(e.paths, "path")+", "+strings.ReplaceAll(string(e.trust), "_", " ")))
		}
	}
	out.WriteString("}\n")
	_, err := w.Write(out.Bytes())
	return err
}

// dotText quotes a text for DOT: a backslash would begin an escape such as \N,
// and a quote would end the text and begin an attribute.
func dotText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		l = shorten(printable(l), 80)
		l = strings.ReplaceAll(l, `\`, `\\`)
		l = strings.ReplaceAll(l, `"`, `\"`)
		// dot reads entities such as &lt; inside of text; the ampersand itself is one.
		lines[i] = strings.ReplaceAll(l, "&", "&amp;")
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
