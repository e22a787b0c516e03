// Package report writes an inventory for those who read it: a tree for a
// terminal, one self-contained HTML page, JSON by the published schema, SARIF
// 2.1.0 for code scanning, CSV for spreadsheets, Mermaid and DOT for documents.
// It decides nothing and finds nothing: package inventory did that; here it is
// only ordered, bounded and drawn.
//
// Every name in an inventory comes from files that anybody may have written,
// so each writer owns the escape of its format and promises that a name stays
// text: no script in the page, no formula in the spreadsheet, no edge in the
// graph, no control sequence on the terminal. No writer sees the value of a
// secret, because the inventory holds none.
//
// What does not fit is said, never dropped silently: the tree and the graphs
// show the worst first and count what they leave out; JSON, CSV and the page
// hold everything. The same inventory gives the same bytes.
package report
