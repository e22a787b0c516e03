package report

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io"

	"github.com/proviso-ci/proviso/inventory"
)

// The page is one file without a network: style, script and data are in it. Its
// Content-Security-Policy allows the one style and the one script by their
// hashes and nothing else, so that even a mistake in an escape could not run
// what a pipeline's author wrote into a name. The script builds the page with
// textContent only, from a block of data that no browser executes.

//go:embed page
var pageFiles embed.FS

// page is what the template needs.
type page struct {
	Policy string
	Style  template.CSS
	Script template.JS
	Root   string
	Foot   string
	Sums   []sumRow
	Data   *pageData
}

// sumRow is one kind of credential in the table at the top, which is also the legend.
type sumRow struct {
	Kind, Words                   string
	Fork, Unknown, Protected, All int
}

// HTML writes the page.
func (r *Report) HTML(w io.Writer) error {
	style, script, err := pageAssets()
	if err != nil {
		return err
	}
	tmpl, err := template.ParseFS(pageFiles, "page/page.html")
	if err != nil {
		return err
	}
	foot := "proviso"
	if r.Version != "" {
		foot += " " + r.Version
	}
	return tmpl.Execute(w, page{
		Policy: "default-src 'none'; script-src " + hashSource(script) + "; style-src " + hashSource(style) + "; base-uri 'none'; form-action 'none'",
		Style:  template.CSS(style), //nolint:gosec // our own file
		Script: template.JS(script), //nolint:gosec // our own file
		Root:   rootWords(r.Inventory.Root), Foot: foot, Sums: sumsOf(r.Inventory), Data: dataOf(r),
	})
}

// pageAssets gives the style and the script, each as one text.
func pageAssets() (style, script string, err error) {
	css, err := pageFiles.ReadFile("page/page.css")
	if err != nil {
		return "", "", err
	}
	script = "\"use strict\";\n"
	for _, name := range []string{"data", "filter", "graph", "table", "plan", "main"} {
		part, err := pageFiles.ReadFile("page/" + name + ".js")
		if err != nil {
			return "", "", err
		}
		script += string(part) + "\n"
	}
	return string(css), script, nil
}

// hashSource is the source expression of CSP for an inline text.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// sumsOf counts the paths by kind of credential and reach; identifiers are no credentials.
func sumsOf(inv *inventory.Inventory) []sumRow {
	var out []sumRow
	for _, k := range kindOrder {
		row := sumRow{Kind: string(k), Words: kindWords[k]}
		for i := range inv.Paths {
			p := &inv.Paths[i]
			if p.Credential.Kind != k || p.Credential.Nature == inventory.NatureIdentifier {
				continue
			}
			row.All++
			switch p.Reach.Trust {
			case inventory.ForkReachable:
				row.Fork++
			case inventory.Protected:
				row.Protected++
			default:
				row.Unknown++
			}
		}
		out = append(out, row)
	}
	return out
}

// rootWords names what was scanned.
func rootWords(root string) string {
	if root == "." {
		return "the current directory"
	}
	return printable(root)
}
