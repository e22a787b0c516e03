package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// doc is a pipeline with its nodes and its lines. Edits are only made where
// both agree: a key in block style at the column where the parser saw it.
type doc struct {
	lines
	root    *yaml.Node
	docs    []*yaml.Node        // of a file with several; the first is the root
	aliased map[*yaml.Node]bool // nodes that an alias stands for elsewhere
	edits   edits
}

// whyNot is the reason for which a place gets no patch.
type whyNot struct {
	line int
	why  string
}

func (w *whyNot) Error() string { return w.why }

func no(n *yaml.Node, format string, args ...any) error {
	line := 0
	if n != nil {
		line = n.Line
	}
	return &whyNot{line, fmt.Sprintf(format, args...)}
}

// parseDoc reads a pipeline of one YAML document.
func parseDoc(text string) (*doc, error) {
	d, err := parseDocs(text)
	if err == nil && len(d.docs) > 1 {
		return nil, errors.New("the file holds several YAML documents")
	}
	return d, err
}

// maxDocs bounds the documents of one file.
const maxDocs = 1000

// parseDocs reads a file of one or several YAML documents.
func parseDocs(text string) (*doc, error) {
	l, err := splitLines(text)
	if err != nil {
		return nil, err
	}
	if strings.Contains(text, "\t") {
		for _, s := range l.text {
			if strings.HasPrefix(strings.TrimLeft(s, " "), "\t") {
				return nil, errors.New("the file is indented with tabs")
			}
		}
	}
	d := &doc{lines: l, aliased: make(map[*yaml.Node]bool)}
	for dec := yaml.NewDecoder(bytes.NewReader([]byte(text))); len(d.docs) < maxDocs; {
		var root yaml.Node
		switch err := dec.Decode(&root); {
		case errors.Is(err, io.EOF) && len(d.docs) > 0:
			d.root = d.docs[0]
			return d, nil
		case err != nil:
			return nil, errors.New("the file is not valid YAML")
		case root.Kind != yaml.DocumentNode || len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode:
			return nil, errors.New("the file is not a mapping")
		}
		d.docs = append(d.docs, root.Content[0])
		d.noteAliases(root.Content[0], 0)
	}
	return nil, errors.New("the file holds too many YAML documents")
}

func (d *doc) noteAliases(n *yaml.Node, depth int) {
	if depth > 100 {
		return
	}
	if n.Kind == yaml.AliasNode {
		d.aliased[n.Alias] = true
		return
	}
	for _, c := range n.Content {
		d.noteAliases(c, depth+1)
	}
}

// find gives key and value of a mapping's own entry, nil when it has none.
func find(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name && n.Content[i].Kind == yaml.ScalarNode {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

func value(n *yaml.Node, name string) *yaml.Node {
	_, v := find(n, name)
	return v
}

// text gives a scalar's value, "" of anything else.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// own refuses a node that is shared with another place, or comes from one.
func (d *doc) own(n *yaml.Node, what string) error {
	switch {
	case n == nil:
		return errors.New(what + " is not there")
	case n.Kind == yaml.AliasNode:
		return no(n, "%s is the alias *%s, which other places use too", what, n.Value)
	case d.aliased[n]:
		return no(n, "%s is the anchor &%s, which other places use too", what, n.Anchor)
	}
	return nil
}

// block refuses a mapping that isn't written one key a line.
func (d *doc) block(n *yaml.Node, what string) error {
	if err := d.own(n, what); err != nil {
		return err
	}
	if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 {
		return no(n, "%s is not written as one key a line", what)
	}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Tag == "!!merge" || k.Value == "<<" {
			return no(k, "%s takes entries from an anchor (<<)", what)
		}
	}
	return nil
}

// indent gives the blanks before a column.
func indent(n *yaml.Node) string { return strings.Repeat(" ", n.Column-1) }

// keyLine gives the index of the line of a key that begins its line (behind
// blanks, or behind the dash of a list's entry).
func (d *doc) keyLine(key *yaml.Node) (at int, dashed bool, err error) {
	at = key.Line - 1
	if at < 0 || at >= len(d.text) || key.Column < 1 || key.Column-1 > len(d.text[at]) {
		return 0, false, no(key, "the parser and the file disagree about a line")
	}
	switch before := strings.TrimLeft(d.text[at][:key.Column-1], " "); {
	case before == "":
		return at, false, nil
	case strings.Trim(before, "- ") == "":
		return at, true, nil
	}
	return 0, false, no(key, "another entry stands on the same line as %s", oneLine(key.Value))
}

// oneLineEntry gives the line of an entry whose key and plain or quoted value
// stand on one line.
func (d *doc) oneLineEntry(key, val *yaml.Node) (at int, dashed bool, err error) {
	if at, dashed, err = d.keyLine(key); err != nil {
		return 0, false, err
	}
	switch {
	case val.Kind == yaml.AliasNode:
		return 0, false, no(val, "%s is the alias *%s", oneLine(key.Value), oneLine(val.Value))
	case val.Kind != yaml.ScalarNode || val.Line != key.Line || val.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return 0, false, no(key, "the value of %s is longer than its line", oneLine(key.Value))
	case val.Anchor != "":
		return 0, false, no(val, "%s has the anchor &%s", oneLine(key.Value), oneLine(val.Anchor))
	case strings.ContainsAny(val.Value, "\n"):
		return 0, false, no(key, "the value of %s is longer than its line", oneLine(key.Value))
	}
	// A quoted or plain scalar that goes on in the next line would be cut.
	if _, ok := d.valueEnd(val); !ok {
		return 0, false, no(key, "the value of %s is longer than its line", oneLine(key.Value))
	}
	return at, dashed, nil
}

// valueEnd gives the column (from 0) behind a scalar on its line.
func (d *doc) valueEnd(val *yaml.Node) (int, bool) {
	line := d.text[val.Line-1]
	// Columns count characters; the line is bytes.
	start := byteAt(line, val.Column-1)
	if start < 0 {
		return 0, false
	}
	rest := line[start:]
	switch val.Style & (yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle) {
	case yaml.SingleQuotedStyle:
		for i := 1; i < len(rest); i++ {
			if rest[i] == '\'' {
				if i+1 < len(rest) && rest[i+1] == '\'' {
					i++
					continue
				}
				return start + i + 1, true
			}
		}
		return 0, false
	case yaml.DoubleQuotedStyle:
		for i := 1; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case '"':
				return start + i + 1, true
			}
		}
		return 0, false
	default:
	}
	if !strings.HasPrefix(rest, val.Value) {
		return 0, false
	}
	return start + len(val.Value), true
}

// byteAt gives the offset of a character in a line, -1 when it has fewer.
func byteAt(line string, n int) int {
	for i := range line {
		if n == 0 {
			return i
		}
		n--
	}
	if n == 0 {
		return len(line)
	}
	return -1
}

// setValue writes another value in the place of a one-line one; what stands
// behind it (a comment) stays.
func (d *doc) setValue(key, val *yaml.Node, with string) error {
	at, _, err := d.oneLineEntry(key, val)
	if err != nil {
		return err
	}
	end, _ := d.valueEnd(val)
	start := byteAt(d.text[at], val.Column-1)
	d.edits.put(at, at+1, d.text[at][:start]+with+d.text[at][end:])
	return nil
}

// setEntry writes another key and value in the place of a one-line entry.
func (d *doc) setEntry(key, val *yaml.Node, name, with string) error {
	at, _, err := d.oneLineEntry(key, val)
	if err != nil {
		return err
	}
	end, _ := d.valueEnd(val)
	start := byteAt(d.text[at], key.Column-1)
	d.edits.put(at, at+1, d.text[at][:start]+name+": "+with+d.text[at][end:])
	return nil
}

// dropEntries removes one-line entries of a block mapping; when none is left,
// the mapping's own key goes too.
func (d *doc) dropEntries(mapKey, m *yaml.Node, names ...string) error {
	if err := d.block(m, oneLine(mapKey.Value)); err != nil {
		return err
	}
	drop := make(map[string]bool)
	for _, n := range names {
		if k, _ := find(m, n); k != nil {
			drop[n] = true
		}
	}
	if len(drop) == 0 {
		return nil
	}
	all := len(drop) == len(m.Content)/2
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if !drop[k.Value] {
			continue
		}
		at, dashed, err := d.oneLineEntry(k, v)
		if err != nil {
			return err
		}
		if dashed {
			return no(k, "%s stands behind the dash of its list", oneLine(k.Value))
		}
		d.edits.put(at, at+1)
	}
	if !all {
		return nil
	}
	at, dashed, err := d.keyLine(mapKey)
	switch {
	case err != nil:
		return err
	case dashed:
		return no(mapKey, "%s stands behind the dash of its list", oneLine(mapKey.Value))
	case m.Content[0].Line == mapKey.Line:
		return no(mapKey, "%s is not written as one key a line", oneLine(mapKey.Value))
	}
	d.edits.put(at, at+1)
	// Comments between the key and its first entry would be left without a home, and do no harm.
	return nil
}

// addEntry adds lines behind an entry of a block mapping, at its indentation.
func (d *doc) addEntry(behind *yaml.Node, with ...string) error {
	at, _, err := d.keyLine(behind)
	if err != nil {
		return err
	}
	for i := range with {
		with[i] = indent(behind) + with[i]
	}
	d.edits.put(at+1, at+1, with...)
	return nil
}

// insertBefore puts lines before the line on which a node begins, at an
// indentation; comments right above it stay with it.
func (d *doc) insertBefore(line int, with ...string) {
	at := line - 1
	for at > 0 && strings.HasPrefix(strings.TrimLeft(d.text[at-1], " "), "#") {
		at--
	}
	d.edits.put(at, at, with...)
}
