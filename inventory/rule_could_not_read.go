package inventory

// ruleCouldNotRead describes the finding that readers make; see couldNotRead.
var ruleCouldNotRead = Rule{
	Name:       "could-not-read",
	Title:      "A part of the estate that this inventory doesn't show",
	What:       "A file is binary, too large, broken at a line, nested too deeply, a symbolic link out of the tree, or expands without end. What could be read of it is in the inventory; access paths in the rest are not.",
	Remedy:     "Correct the file, or look at it by hand.",
	References: []string{visibility, nistGoals},
}
