package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	yamlast "github.com/goccy/go-yaml/ast"
	yamlparser "github.com/goccy/go-yaml/parser"

	"github.com/proviso-ci/proviso/identity"
)

// yamlFile is a file of YAML as it was read: exactly one mapping, in plain YAML
// without anchors and tags, so that what a reader sees is what there is.
type yamlFile struct {
	name string
	root *yamlast.MappingNode
}

// decode reads a file strictly into a struct: an unknown key, a value of another
// type, a time without a unit are problems with their places, all of them at
// once.
func decode(name string, data []byte, into any) (*yamlFile, error) {
	if line, deep := nestedTooDeep(data); deep {
		return nil, &configErrors{name, []string{fmt.Sprintf("%s:%d:1: is nested deeper than any key of this file; write one key on a line", name, line)}}
	}
	tree, err := yamlparser.ParseBytes(data, 0)
	if err != nil {
		return nil, yamlError(name, err)
	}
	if len(tree.Docs) != 1 {
		return nil, &configErrors{name, []string{name + ":1:1: one YAML document is expected, this has " + strconv.Itoa(len(tree.Docs))}}
	}
	root, ok := tree.Docs[0].Body.(*yamlast.MappingNode)
	if !ok {
		return nil, &configErrors{name, []string{name + ":1:1: keys with values are expected, as store: ./data"}}
	}
	d := &yamlFile{name, root}
	s := &shape{yamlFile: d}
	s.mapping(root, reflect.TypeOf(into).Elem(), "")
	if len(s.problems) > 0 {
		sortByPlace(s.problems)
		return nil, &configErrors{name, s.problems}
	}
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(into); err != nil {
		return nil, yamlError(name, err)
	}
	return d, nil
}

// nestedTooDeep finds the line of a file that nests without end: the parser's time
// grows with the square of the depth. No key of ours lies deeper than ten.
func nestedTooDeep(data []byte) (line int, deep bool) {
	const maxOpen, maxIndent = 64, 256
	open := 0
	for text := range bytes.Lines(data) {
		line++
		if len(text)-len(bytes.TrimLeft(text, " -?\t")) > maxIndent {
			return line, true
		}
		for _, c := range text {
			switch c {
			case '[', '{':
				open++
			case ']', '}':
				open = max(0, open-1)
			}
			if open > maxOpen {
				return line, true
			}
		}
	}
	return line, false
}

// yamlError turns the parser's error into one line of ours with its place.
func yamlError(name string, err error) error {
	var located yaml.Error
	if errors.As(err, &located) && located.GetToken() != nil {
		at := located.GetToken().Position
		return &configErrors{name, []string{fmt.Sprintf("%s:%d:%d: %s", name, at.Line, at.Column, strings.TrimSpace(located.GetMessage()))}}
	}
	return &configErrors{name, []string{name + ":1:1: " + err.Error()}}
}

// place gives file:line:column of a path as "grants.deploy.max_ttl": of the
// value, of the key of what holds values, and of the nearest key that is there
// where the path itself isn't.
func (d *yamlFile) place(path string) string {
	line, column := 1, 1
	var node yamlast.Node = d.root
	for path != "" {
		path = strings.TrimPrefix(path, ".")
		switch n := node.(type) {
		case *yamlast.MappingNode:
			pair := longestKey(n, path)
			if pair == nil {
				return d.at(line, column)
			}
			path, node = path[len(keyText(pair)):], pair.Value
			line, column = position(pair.Key)
		case *yamlast.SequenceNode:
			index, rest, _ := strings.Cut(strings.TrimPrefix(path, "["), "]")
			i, err := strconv.Atoi(index)
			if err != nil || i < 0 || i >= len(n.Values) {
				return d.at(line, column)
			}
			path, node = rest, n.Values[i]
			line, column = position(node)
		default:
			return d.at(line, column)
		}
	}
	switch node.(type) {
	case *yamlast.MappingNode, *yamlast.SequenceNode:
	default:
		line, column = position(node)
	}
	return d.at(line, column)
}

func (d *yamlFile) at(line, column int) string {
	return fmt.Sprintf("%s:%d:%d", d.name, line, column)
}

// longestKey finds the pair whose key begins a path. Names of grants and claims
// may have dots in them.
func longestKey(n *yamlast.MappingNode, path string) (found *yamlast.MappingValueNode) {
	for _, pair := range n.Values {
		key := keyText(pair)
		rest, ok := strings.CutPrefix(path, key)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') && (found == nil || len(key) > len(keyText(found))) {
			found = pair
		}
	}
	return found
}

func keyText(pair *yamlast.MappingValueNode) string {
	if s, ok := pair.Key.(*yamlast.StringNode); ok {
		return s.Value
	}
	return pair.Key.GetToken().Value
}

// position gives the line and column of a node; a block mapping's own token is
// the colon of its first pair, so it is that pair's key that counts.
func position(node yamlast.Node) (line, column int) {
	if m, ok := node.(*yamlast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		node = m.Values[0].Key
	}
	at := node.GetToken().Position
	return at.Line, at.Column
}

// shape holds a document against the types that it is to be read into.
type shape struct {
	*yamlFile
	problems []string
}

func (s *shape) wrong(node yamlast.Node, path, format string, args ...any) {
	line, column := position(node)
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + " " + text
	}
	s.problems = append(s.problems, s.at(line, column)+": "+text)
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	valuesType   = reflect.TypeFor[identity.Values]()
)

// value checks one value.
func (s *shape) value(node yamlast.Node, t reflect.Type, path string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Interface {
		return // its package says what may stand there
	}
	switch n := node.(type) {
	case *yamlast.AnchorNode, *yamlast.AliasNode, *yamlast.TagNode, *yamlast.MergeKeyNode:
		s.wrong(node, path, "is an anchor, an alias or a tag, which are not read here; write the value itself")
	case *yamlast.NullNode:
		s.wrong(node, path, "has no value; write one, or remove the key")
	case *yamlast.MappingNode:
		if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			s.wrong(node, path, "has keys of its own, and must be %s", wanted(t))
			return
		}
		s.mapping(n, t, path)
	case *yamlast.SequenceNode:
		if t.Kind() != reflect.Slice {
			s.wrong(node, path, "is a list, and must be %s", wanted(t))
			return
		}
		for i, item := range n.Values {
			s.value(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		if t == valuesType { // one text, or a list of them
			t = t.Elem()
		}
		if !fits(node, t) {
			s.wrong(node, path, "is %s, and must be %s", found(node), wanted(t))
		}
	}
}

// mapping checks the keys of a struct or a map, and what they hold.
func (s *shape) mapping(n *yamlast.MappingNode, t reflect.Type, path string) {
	at := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	known := map[string]reflect.Type{}
	if t.Kind() == reflect.Struct {
		known = membersOf(t)
	}
	for _, pair := range n.Values {
		key := keyText(pair)
		if _, plain := pair.Key.(*yamlast.StringNode); !plain {
			s.wrong(pair.Key, at(key), "is a key that is no text; write it in quotes")
			continue
		}
		if t.Kind() == reflect.Map {
			s.value(pair.Value, t.Elem(), at(key))
			continue
		}
		member, ok := known[key]
		if !ok {
			s.wrong(pair.Key, at(key), "is no key that there is%s", s.instead(key, path, known))
			continue
		}
		s.value(pair.Value, member, at(key))
	}
}

// instead names the keys that there are, the likeliest one first.
func (s *shape) instead(key, path string, known map[string]reflect.Type) string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if near(key, name) {
			return "; did you mean " + name + "?"
		}
	}
	where := path
	if where == "" {
		where = "the file"
	}
	return fmt.Sprintf("; %s has %s", where, strings.Join(names, ", "))
}

// near reports whether one word is probably the other, mistyped: one letter
// more, fewer or different, two neighbours exchanged, or a plural.
func near(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 || len(b) < 3 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) < len(b) {
		return a[i:] == b[i+1:]
	}
	return i+1 >= len(a) || a[i+1:] == b[i+1:] || a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}

// membersOf gives the keys of a struct in YAML, with those of inlined structs.
func membersOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			for name, member := range membersOf(f.Type) {
				out[name] = member
			}
		case f.IsExported() && name != "" && name != "-":
			out[name] = f.Type
		}
	}
	return out
}

// fits reports whether a plain value can be read as a type, without any
// conversion: 0777 is no text, "5" no number, 15 no time.
func fits(node yamlast.Node, t reflect.Type) bool {
	switch n := node.(type) {
	case *yamlast.StringNode, *yamlast.LiteralNode:
		if t == durationType {
			text, ok := node.(*yamlast.StringNode)
			if !ok {
				return false
			}
			_, err := time.ParseDuration(text.Value)
			return err == nil
		}
		return t.Kind() == reflect.String
	case *yamlast.BoolNode:
		return t.Kind() == reflect.Bool
	case *yamlast.IntegerNode:
		if _, huge := n.Value.(string); huge {
			return false
		}
		return t != durationType && (reflect.Zero(t).CanInt() || reflect.Zero(t).CanFloat())
	case *yamlast.FloatNode:
		return reflect.Zero(t).CanFloat()
	}
	return false
}

// wanted says in words what a type is.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a time with its unit, as 30s, 15m or 24h"
	case t == valuesType:
		return "a text or a list of texts"
	case t.Kind() == reflect.String:
		return "a text; write it in quotes"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case reflect.Zero(t).CanInt():
		return "a whole number"
	case reflect.Zero(t).CanFloat():
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list, as [a, b]"
	}
	return "keys with values, as {key: value}"
}

// found says what stands there.
func found(node yamlast.Node) string {
	text := node.GetToken().Value
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	switch node.(type) {
	case *yamlast.StringNode, *yamlast.LiteralNode:
		return fmt.Sprintf("the text %q", text)
	case *yamlast.BoolNode:
		return text
	}
	return "the number " + text
}
