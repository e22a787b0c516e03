// Package plan turns an inventory of access paths into an ordered way out of
// static secrets. It owns the words of that way: an [Item] is one secret of one
// repository with all places that use it, a [Foundation] is trust that is set up
// once and that several items stand on, a wave is what can be done together.
//
// # What an item has
//
// The replacement by what the secret opens (method.go is the table, and says
// "none" where nothing better exists), a patch for the workflow, a grant and a
// Rego policy with tests for Proviso, the trust configuration of the target as
// Terraform and as commands, how long both ways stay open and what to watch, the
// proof that the old one is out of use, and the commands that delete it.
//
// # What is never done
//
// A patch never guesses. It is a set of edits of lines that the YAML parser
// pointed at, comments and formatting stay as they are, and before it is shown
// the patched text is scanned again: the static path must be gone, the new one
// must be there, and every other path must be as it was. Where that can't be
// had, the item says at which line and why, and lists the steps for a person.
//
// What no file can tell (account numbers, immutable identifiers) is a [Variable]:
// asked for in one place per language, and everything that needs it refuses to
// work until it is set. Nothing generated trusts more than the jobs that used
// the secret: exact repository, exact branch or environment, exact audience.
//
// Names in pipelines can be written by anybody. Each language that is generated
// has one function that quotes for it (quote.go), and names that a patch would
// have to repeat are compared with the platform's own grammar first.
//
// Nothing is executed, nobody is asked over the network, and nothing is written:
// the plan is a value, and its files are texts in it. What reads it back is
// docs/schema/plan.schema.json.
package plan
