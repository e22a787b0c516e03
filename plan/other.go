package plan

import (
	"fmt"

	"github.com/proviso-ci/proviso/inventory"
)

// editor changes the jobs of one pipeline of a platform.
type editor interface {
	doc() *doc
	change(job string, d *draft) error
}

// openOther reads a pipeline of a platform other than GitHub.
func openOther(ci inventory.CI, text string) (editor, error) {
	return nil, fmt.Errorf("pipelines of %s are changed by hand", ci)
}
