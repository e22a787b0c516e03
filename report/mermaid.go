package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// mermaidEdges bounds a Mermaid graph: renderers refuse more than 500 edges and 50,000 characters.
const mermaidEdges = 240

// mermaidLines are the arrows of the kinds of credential; they differ without colour too.
var mermaidLines = map[inventory.Kind]string{
	inventory.StaticSecret: "==>", inventory.Federated: "-.->", inventory.Ambient: "-.-o", inventory.PlatformToken: "-->", inventory.ServiceConnection: "--x",
}

// Mermaid writes the graph as a Mermaid flowchart, for a README or a wiki.
func Mermaid(w io.Writer, inv *inventory.Inventory) error {
	g := graphOf(inv, mermaidEdges)
	out := new(bytes.Buffer)
	fmt.Fprintf(out, "flowchart LR\n")
	if n := g.note(); n != "" {
		fmt.Fprintf(out, "  %%%% %s\n", n)
	}
	layer := func(name, title, open, end string, list []*graphNode, word func(*graphNode) string) {
		fmt.Fprintf(out, "  subgraph %s[\"%s\"]\n", name, title)
		for _, n := range list {
			fmt.Fprintf(out, "    %s%s\"%s\"%s\n", n.id, open, mermaidText(word(n)), end)
		}
		fmt.Fprintf(out, "  end\n")
	}
	layer("pipelines", "Pipelines", "[", "]", g.pipelines, func(n *graphNode) string {
		text := strings.Join(n.label, "\n")
		if n.trust == inventory.ForkReachable {
			text += "\n(fork reachable)"
		}
		return text
	})
	layer("credentials", "Credentials", "([", "])", g.credentials, func(n *graphNode) string { return strings.Join(n.label, "\n") + "\n" + kindWords[n.kind] })
	layer("resources", "Resources", "[[", "]]", g.resources, func(n *graphNode) string { return strings.Join(n.label, "\n") })
	for _, list := range [][]*graphEdge{g.uses, g.opens} {
		for _, e := range list {
			fmt.Fprintf(out, "  %s %s %s\n", e.from.id, mermaidLines[e.kind], e.to.id)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// mermaidText writes all but plain letters, digits and a few signs as Mermaid's
// entities (#35; is #): quotes, brackets, markup and directives stay text.
func mermaidText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		var b strings.Builder
		for _, r := range shorten(printable(l), 60) {
			switch {
			case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./-:@,", r):
				b.WriteRune(r)
			case r == '_':
				b.WriteRune(r)
			default:
				fmt.Fprintf(&b, "#%d;", r)
			}
		}
		lines[i] = b.String()
	}
	return strings.Join(lines, "<br/>")
}
