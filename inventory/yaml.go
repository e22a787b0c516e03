package inventory

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of the YAML layer. Aliases are followed, not copied, so a "billion
// laughs" file costs nothing to parse; visits bounds what walking it may cost.
const (
	maxVisits  = 400_000
	maxDepth   = 120
	maxRepairs = 24
	maxNesting = 400 // brackets or indents; the parser itself recurses
)

// problem is a place in a file that could not be read.
type problem struct {
	line int
	why  string
}

// view reads the nodes of one file: it follows aliases, applies merge keys
// (the key "<<"), and counts visits. A view is used by one goroutine.
type view struct {
	visits    int
	exhausted bool
}

// deref follows aliases.
func (v *view) deref(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode && i < 8; i++ {
		n = n.Alias
	}
	if n != nil && n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		return n.Content[0]
	}
	return n
}

// spend counts visits and reports whether any are left.
func (v *view) spend(n int) bool {
	v.visits += n
	if v.visits > maxVisits {
		v.exhausted = true
		return false
	}
	return true
}

// pairs gives the keys and values of a mapping with merge keys applied: what
// stands in the mapping itself wins over what is merged into it, and earlier
// merges win over later ones. Anything but a mapping has no pairs.
func (v *view) pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(k, val *yaml.Node) bool) {
		n = v.deref(n)
		if n == nil || n.Kind != yaml.MappingNode || !v.spend(len(n.Content)) {
			return
		}
		merged := false
		for i := 0; i+1 < len(n.Content); i += 2 {
			if isMerge(n.Content[i]) {
				merged = true
				continue
			}
			if !yield(n.Content[i], v.deref(n.Content[i+1])) {
				return
			}
		}
		if merged {
			seen := make(map[string]bool)
			for i := 0; i+1 < len(n.Content); i += 2 {
				seen[n.Content[i].Value] = true
			}
			v.mergedPairs(n, seen, 0, yield)
		}
	}
}

// mergedPairs yields what the merge keys of n add to what is seen already.
func (v *view) mergedPairs(n *yaml.Node, seen map[string]bool, depth int, yield func(k, val *yaml.Node) bool) bool {
	if depth > 16 {
		v.exhausted = true
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if !isMerge(n.Content[i]) {
			continue
		}
		from := v.deref(n.Content[i+1])
		if from == nil {
			continue
		}
		list := []*yaml.Node{from}
		if from.Kind == yaml.SequenceNode {
			list = from.Content
		}
		for _, m := range list {
			if m = v.deref(m); m == nil || m.Kind != yaml.MappingNode {
				continue
			}
			if !v.spend(len(m.Content)) {
				return false
			}
			for j := 0; j+1 < len(m.Content); j += 2 {
				k := m.Content[j]
				if isMerge(k) || seen[k.Value] {
					continue
				}
				seen[k.Value] = true
				if !yield(k, v.deref(m.Content[j+1])) {
					return false
				}
			}
			if !v.mergedPairs(m, seen, depth+1, yield) {
				return false
			}
		}
	}
	return true
}

func isMerge(k *yaml.Node) bool { return k.Value == "<<" && (k.Tag == "!!merge" || k.Style == 0) }

// get gives the value of a key, nil when there is none. The last of two equal keys counts.
func (v *view) get(n *yaml.Node, key string) *yaml.Node {
	n = v.deref(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	merged := false
	for i := len(n.Content) - 2; i >= 0; i -= 2 {
		k := n.Content[i]
		if k.Value == key && k.Kind == yaml.ScalarNode {
			return v.deref(n.Content[i+1])
		}
		merged = merged || isMerge(k)
	}
	if !merged {
		return nil
	}
	var found *yaml.Node
	for k, val := range v.pairs(n) {
		if k.Value == key {
			found = val
		}
	}
	return found
}

// at follows a path of keys.
func (v *view) at(n *yaml.Node, keys ...string) *yaml.Node {
	for _, k := range keys {
		if n = v.get(n, k); n == nil {
			return nil
		}
	}
	return n
}

// key gives the key node of a key, for its line; nil when there is none.
func (v *view) key(n *yaml.Node, key string) *yaml.Node {
	for k := range v.pairs(n) {
		if k.Value == key {
			return k
		}
	}
	return nil
}

// items gives the elements of a sequence; a single value is a sequence of itself, nil is empty.
func (v *view) items(n *yaml.Node) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		n = v.deref(n)
		if n == nil || !v.spend(1) {
			return
		}
		if n.Kind != yaml.SequenceNode {
			if n.Kind != yaml.ScalarNode || n.Tag != "!!null" {
				yield(n)
			}
			return
		}
		if !v.spend(len(n.Content)) {
			return
		}
		for _, c := range n.Content {
			if !yield(v.deref(c)) {
				return
			}
		}
	}
}

// flat gives the elements of a sequence with nested sequences opened, as GitLab and Buildkite read scripts.
func (v *view) flat(n *yaml.Node) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) { v.flatten(n, 0, yield) }
}

func (v *view) flatten(n *yaml.Node, depth int, yield func(*yaml.Node) bool) bool {
	if depth > 10 {
		return true
	}
	for c := range v.items(n) {
		if c == nil {
			continue
		}
		if c.Kind == yaml.SequenceNode {
			if !v.flatten(c, depth+1, yield) {
				return false
			}
			continue
		}
		if !yield(c) {
			return false
		}
	}
	return true
}

// str gives the text of a scalar, "" for anything else.
func (v *view) str(n *yaml.Node) string {
	n = v.deref(n)
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// strs gives the texts of a scalar or of a list of scalars.
func (v *view) strs(n *yaml.Node) []string {
	var out []string
	for c := range v.flat(n) {
		if s := v.str(c); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// isMap, isList and isScalar look at the kind of a node behind aliases.
func (v *view) isMap(n *yaml.Node) bool {
	n = v.deref(n)
	return n != nil && n.Kind == yaml.MappingNode
}

func (v *view) isList(n *yaml.Node) bool {
	n = v.deref(n)
	return n != nil && n.Kind == yaml.SequenceNode
}

func (v *view) isScalar(n *yaml.Node) bool {
	n = v.deref(n)
	return n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null"
}

// isTrue reports whether a scalar says yes in any of YAML 1.1's spellings.
func (v *view) isTrue(n *yaml.Node) bool {
	switch strings.ToLower(v.str(n)) {
	case "true", "yes", "on", "1":
		return true
	}
	return false
}

// scalars visits every scalar below n with the key that it stands under.
func (v *view) scalars(n *yaml.Node, visit func(key string, s *yaml.Node)) {
	v.walk(n, "", 0, visit)
}

func (v *view) walk(n *yaml.Node, key string, depth int, visit func(string, *yaml.Node)) {
	n = v.deref(n)
	if n == nil || depth > maxDepth || !v.spend(1) {
		return
	}
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag != "!!null" {
			visit(key, n)
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			v.walk(c, key, depth+1, visit)
		}
	case yaml.MappingNode:
		for k, val := range v.pairs(n) {
			v.walk(val, k.Value, depth+1, visit)
		}
	}
}

// lineAt gives the line of an offset in a scalar's value. Only literal blocks
// keep their line breaks; for the others the caller looks the word up.
func lineAt(n *yaml.Node, offset int) int {
	if n.Style&yaml.LiteralStyle != 0 && offset <= len(n.Value) {
		return n.Line + 1 + strings.Count(n.Value[:offset], "\n")
	}
	return n.Line
}

// isBlock reports whether a scalar is a literal block, whose lines can be counted.
func isBlock(n *yaml.Node) bool { return n.Style&yaml.LiteralStyle != 0 }

var errorLine = regexp.MustCompile(`line (\d+)`)

// parseYAML reads all documents of a text. A broken line is blanked and the
// rest read again, so that one mistake, or one line of a template language,
// does not hide the file; every blanked line is a problem.
func parseYAML(text string) (docs []*yaml.Node, problems []problem) {
	if line, ok := tooDeep(text); ok {
		return nil, []problem{{line, "the nesting is deeper than " + strconv.Itoa(maxNesting) + " levels"}}
	}
	docs, err := decodeAll(text)
	if err == nil {
		return docs, nil
	}
	lines := strings.Split(text, "\n")
	blanked := make(map[int]bool)
	for range maxRepairs {
		why := strings.TrimPrefix(err.Error(), "yaml: ")
		at := 0
		if m := errorLine.FindStringSubmatch(why); m != nil {
			at, _ = strconv.Atoi(m[1])
			why = strings.TrimPrefix(why, m[0]+": ")
		}
		fixed := repair(lines, blanked, at, why)
		if fixed == 0 {
			break
		}
		problems = append(problems, problem{fixed, why})
		var next []*yaml.Node
		if next, err = decodeAll(strings.Join(lines, "\n")); err == nil {
			return next, problems
		}
		docs = next
	}
	return docs, append(problems, problem{firstLine(err), "the rest of the file is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")})
}

// firstLine gives the line that an error of the parser names, 1 when it names none.
func firstLine(err error) int {
	if m := errorLine.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		return max(n, 1)
	}
	return 1
}

// What a template language leaves in a file: a line of nothing but actions, and a value that begins with one.
var (
	templateLine  = regexp.MustCompile(`^(\{\{[^{}]*\}\}\s*)+$`)
	templateValue = regexp.MustCompile(`^(\s*(?:- )*(?:[\w./"'-]+:\s+)|\s*-\s+)(\{\{.*\}\}.*?)\s*$`)
)

var templateAction = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// unquoteActions makes the quotes of actions inside of a quoted value others than its own.
func unquoteActions(l string) string {
	if !strings.Contains(l, "{{") {
		return l
	}
	var b strings.Builder
	last := 0
	for _, m := range templateAction.FindAllStringIndex(l, -1) {
		action := l[m[0]:m[1]]
		if strings.Count(b.String()+l[last:m[0]], `"`)%2 == 1 {
			action = strings.ReplaceAll(action, `"`, "'")
		}
		b.WriteString(l[last:m[0]] + action)
		last = m[1]
	}
	return b.String() + l[last:]
}

// repair changes one thing in lines for an error at a line, and says which line it changed; 0 when it gives up.
func repair(lines []string, blanked map[int]bool, at int, why string) int {
	if name, ok := strings.CutPrefix(why, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		for i, l := range lines {
			if j := strings.Index(l, "*"+name); j >= 0 && !strings.HasPrefix(strings.TrimSpace(l), "#") {
				lines[i] = l[:j] + "unresolved_" + l[j+1:]
				return i + 1
			}
		}
		return 0
	}
	changed := 0
	for i, l := range lines {
		if t := strings.TrimLeft(l, " \t"); len(t) < len(l) && strings.Contains(l[:len(l)-len(t)], "\t") {
			lines[i] = strings.ReplaceAll(l[:len(l)-len(t)], "\t", "  ") + t
			changed = i + 1
		} else if strings.HasPrefix(t, "{%") || strings.HasPrefix(t, "{{-") || strings.HasPrefix(t, "<%") || templateLine.MatchString(t) {
			lines[i] = ""
			changed = i + 1
		} else if m := templateValue.FindStringSubmatch(l); m != nil {
			lines[i] = m[1] + "'" + strings.ReplaceAll(m[2], "'", "''") + "'"
			changed = i + 1
		} else if fixed := unquoteActions(l); fixed != l {
			lines[i], changed = fixed, i+1
		}
	}
	if changed > 0 {
		return changed
	}
	// The parser names the line where it noticed; the mistake may stand one line above or below.
	for _, n := range []int{at, at + 1, at - 1, at + 2, at - 2} {
		if n >= 1 && n <= len(lines) && !blanked[n] && strings.TrimSpace(lines[n-1]) != "" {
			blanked[n] = true
			indent := len(lines[n-1]) - len(strings.TrimLeft(lines[n-1], " "))
			lines[n-1] = strings.Repeat(" ", indent) + "#"
			return n
		}
	}
	return 0
}

// decodeAll reads documents until the end or the first error.
func decodeAll(text string) (docs []*yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: the parser failed: %v", r)
		}
	}()
	dec := yaml.NewDecoder(strings.NewReader(text))
	for len(docs) < 2000 {
		var doc yaml.Node
		if err := dec.Decode(&doc); err != nil {
			if errors.Is(err, io.EOF) {
				return docs, nil
			}
			return docs, err
		}
		if doc.Kind == yaml.DocumentNode && len(doc.Content) > 0 {
			docs = append(docs, doc.Content[0])
		}
	}
	return docs, nil
}

// tooDeep looks for nesting that would cost the recursive parser too much, before it starts.
func tooDeep(text string) (line int, deep bool) {
	flow, line := 0, 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\n':
			line++
			if i+2*maxNesting < len(text) && strings.TrimLeft(text[i+1:i+1+2*maxNesting], " -") == "" {
				return line, true
			}
		case '[', '{':
			if flow++; flow > maxNesting {
				return line, true
			}
		case ']', '}':
			flow = max(flow-1, 0)
		}
	}
	return 0, false
}
