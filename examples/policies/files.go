// Package policies carries the example policies, so that the demo can play the
// very files that people read. seed holds the six policies of the article that
// Proviso starts from, word for word in Rego's older syntax; hardened holds the
// same six as we would write them today. Each has cases and tests beside it,
// which this module's tests run. Copy them; nothing imports them but the demo.
package policies

import "embed"

// Files are the policies below seed.
//
//go:embed seed/*.rego
var Files embed.FS
