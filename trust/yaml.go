package trust

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a YAML or JSON node with its line.
type node = yaml.Node

const (
	maxNesting = 200
	maxVisits  = 200_000
)

var yamlLine = regexp.MustCompile(`line (\d+)`)

// parseYAML reads all documents of a text, which may be JSON.
func parseYAML(text string) (docs []*node, err *Problem) {
	if line := tooDeep(text); line > 0 {
		return nil, &Problem{Line: line, Why: fmt.Sprintf("the nesting is deeper than %d levels", maxNesting)}
	}
	if strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") || strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "[") {
		text = strings.ReplaceAll(text, "\t", " ") // JSON may be indented with tabs, YAML may not
	}
	defer func() {
		if r := recover(); r != nil {
			err = &Problem{Line: 1, Why: fmt.Sprintf("the YAML parser failed: %v", r)}
		}
	}()
	for dec := yaml.NewDecoder(strings.NewReader(text)); len(docs) < 500; {
		var doc node
		if e := dec.Decode(&doc); errors.Is(e, io.EOF) {
			break
		} else if e != nil {
			p := &Problem{Line: 1, Why: strings.TrimPrefix(e.Error(), "yaml: ")}
			if m := yamlLine.FindStringSubmatch(p.Why); m != nil {
				p.Line, _ = strconv.Atoi(m[1])
			}
			return docs, p
		}
		if len(doc.Content) > 0 {
			docs = append(docs, doc.Content[0])
		}
	}
	return docs, nil
}

// tooDeep gives the line where brackets or indents are nested deeper than a recursive parser should go; 0 when nowhere.
func tooDeep(text string) int {
	depth, line := 0, 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\n':
			line++
			if i+2*maxNesting < len(text) && strings.TrimLeft(text[i+1:i+1+2*maxNesting], " -") == "" {
				return line
			}
		case '[', '{', '(':
			if depth++; depth > maxNesting {
				return line
			}
		case ']', '}', ')':
			depth = max(depth-1, 0)
		}
	}
	return 0
}

// deref follows an alias.
func deref(n *node) *node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode && i < 8; i++ {
		n = n.Alias
	}
	return n
}

// get gives the value of a key, nil when there is none.
func get(n *node, keys ...string) *node {
	for _, key := range keys {
		n = deref(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var found *node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				found = n.Content[i+1]
			}
		}
		n = found
	}
	return deref(n)
}

// text gives a scalar's text, "" for anything else.
func text(n *node) string {
	if n = deref(n); n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// list gives the elements of a sequence; a scalar is a list of itself.
func list(n *node) []*node {
	n = deref(n)
	switch {
	case n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*node{n}
}

// texts gives the texts of a scalar or of a list of scalars.
func texts(n *node) []string {
	var out []string
	for _, c := range list(n) {
		if s := text(c); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// isMap reports whether a node is a mapping.
func isMap(n *node) bool {
	n = deref(n)
	return n != nil && n.Kind == yaml.MappingNode
}

// eachMap visits every mapping below n, at most maxVisits nodes.
func eachMap(n *node, visit func(*node)) { walkMaps(n, 0, new(int), visit) }

func walkMaps(n *node, depth int, visits *int, visit func(*node)) {
	n = deref(n)
	if *visits++; n == nil || depth > maxNesting || *visits > maxVisits {
		return
	}
	if n.Kind == yaml.MappingNode {
		visit(n)
	}
	for _, c := range n.Content {
		walkMaps(c, depth+1, visits, visit)
	}
}
