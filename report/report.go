package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/plan"
)

// Report is what there is to show. Only Inventory must be set.
type Report struct {
	Inventory *inventory.Inventory
	// Plan is the way out of static secrets, for the page; nil when there is none.
	Plan *plan.Plan
	// Version is that of the program, for SARIF and the page's foot.
	Version string
}

// Formats are the names that Write knows, as the command line spells them.
var Formats = []string{"text", "json", "html", "sarif", "csv", "mermaid", "dot"}

// Write writes the report in a format other than text, which has options of its own.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "text":
		return Text(w, r.Inventory, TextOptions{})
	case "json":
		return JSON(w, r.Inventory)
	case "html":
		return r.HTML(w)
	case "sarif":
		return r.SARIF(w)
	case "csv":
		return CSV(w, r.Inventory)
	case "mermaid":
		return Mermaid(w, r.Inventory)
	case "dot":
		return DOT(w, r.Inventory)
	}
	return fmt.Errorf("there is no format %q; it can be %s", format, strings.Join(Formats, ", "))
}
