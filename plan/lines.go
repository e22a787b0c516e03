package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// lines is a text file as lines without their ends, so that an edit of one
// line leaves every byte of the others as it was.
type lines struct {
	text    []string
	end     string // "\n" or "\r\n"
	lastEnd bool   // the last line ends like the others
	mark    string // a byte order mark before the first line
}

const byteOrderMark = "\ufeff"

// splitLines takes a file apart. What it would not put together again byte for
// byte is refused.
func splitLines(text string) (lines, error) {
	switch {
	case !utf8.ValidString(text):
		return lines{}, errors.New("the file is not UTF-8 text")
	case text == "":
		return lines{}, errors.New("the file is empty")
	}
	l := lines{end: "\n", lastEnd: strings.HasSuffix(text, "\n")}
	if rest, marked := strings.CutPrefix(text, byteOrderMark); marked {
		l.mark, text = byteOrderMark, rest
	}
	crlf := strings.Count(text, "\r\n")
	switch {
	case crlf == 0:
	case crlf == strings.Count(text, "\n"):
		l.end = "\r\n"
	default:
		return lines{}, errors.New("the file mixes two kinds of line ends")
	}
	if strings.Count(text, "\r") != crlf {
		return lines{}, errors.New("the file has a carriage return inside of a line")
	}
	if l.lastEnd {
		text = strings.TrimSuffix(text, l.end)
	}
	l.text = strings.Split(text, l.end)
	return l, nil
}

func (l lines) String() string {
	s := l.mark + strings.Join(l.text, l.end)
	if l.lastEnd {
		s += l.end
	}
	return s
}

// edit replaces the lines [from, to) by others; from == to inserts.
type edit struct {
	from, to int
	with     []string
}

// edits are changes of one file that don't overlap.
type edits []edit

// put adds a change. Insertions at one place keep the order in which they came.
func (es *edits) put(from, to int, with ...string) { *es = append(*es, edit{from, to, with}) }

// sorted gives the edits in the order of the file, or the two that overlap.
func (es edits) sorted() (edits, error) {
	out := slices.Clone(es)
	slices.SortStableFunc(out, func(a, b edit) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.to - b.to // what is inserted stands before what is replaced
	})
	// Two that say the same are one: two secrets of a pair lead to the same step.
	out = slices.CompactFunc(out, func(a, b edit) bool {
		return a.from == b.from && a.to == b.to && slices.Equal(a.with, b.with)
	})
	for i := 1; i < len(out); i++ {
		if out[i].from < out[i-1].to {
			return nil, fmt.Errorf("two changes meet at line %d", out[i].from+1)
		}
	}
	return out, nil
}

// apply gives the text with the edits made.
func (l lines) apply(es edits) (lines, error) {
	es, err := es.sorted()
	if err != nil {
		return lines{}, err
	}
	if len(es) > 0 && es[0].from == 0 && l.mark != "" {
		return lines{}, errors.New("the first line, which would change, has a byte order mark")
	}
	out := lines{end: l.end, lastEnd: l.lastEnd, mark: l.mark}
	if n := len(es); n > 0 && es[n-1].to == len(l.text) && !l.lastEnd {
		switch last := es[n-1]; {
		case last.from == last.to:
			return lines{}, errors.New("the file's last line has no end, and something would have to come behind it")
		case len(last.with) == 0:
			out.lastEnd = true // what is last now had an end
		}
	}
	at := 0
	for _, e := range es {
		if e.from < at || e.to > len(l.text) {
			return lines{}, fmt.Errorf("a change lies outside of the file, at line %d", e.from+1)
		}
		out.text = append(append(out.text, l.text[at:e.from]...), e.with...)
		at = e.to
	}
	out.text = append(out.text, l.text[at:]...)
	return out, nil
}

// diffContext is the number of unchanged lines around a change.
const diffContext = 3

// diff gives the edits as a unified diff of a file: what `git apply` reads.
// The edits must have been applied without an error.
func (l lines) diff(name string, es edits) (text string, added, removed int) {
	es, err := es.sorted()
	if err != nil || len(es) == 0 {
		return "", 0, 0
	}
	var b strings.Builder
	fmt.Fprintf(&b, "diff --git %s %s\n--- %s\n+++ %s\n", gitName("a/"+name), gitName("b/"+name), gitName("a/"+name), gitName("b/"+name))
	shift := 0
	for i := 0; i < len(es); {
		j := i + 1
		for j < len(es) && es[j].from-es[j-1].to <= 2*diffContext {
			j++
		}
		a, r := l.hunk(&b, es[i:j], shift)
		added, removed, shift = added+a, removed+r, shift+a-r
		i = j
	}
	return b.String(), added, removed
}

// hunk writes changes that lie close together; shift is what earlier hunks added.
func (l lines) hunk(b *strings.Builder, es edits, shift int) (added, removed int) {
	from := max(es[0].from-diffContext, 0)
	to := min(es[len(es)-1].to+diffContext, len(l.text))
	var body strings.Builder
	n := len(l.text)
	last := func(sign byte, s string, final bool) {
		body.WriteByte(sign)
		body.WriteString(s)
		if l.end == "\r\n" && (!final || l.lastEnd) {
			body.WriteByte('\r')
		}
		body.WriteByte('\n')
		if final && !l.lastEnd {
			body.WriteString("\\ No newline at end of file\n")
		}
	}
	at := from
	if from == 0 && at < es[0].from {
		last(' ', l.mark+l.text[0], n == 1)
		at++
	}
	for _, e := range es {
		for ; at < e.from; at++ {
			last(' ', l.text[at], at == n-1)
		}
		for ; at < e.to; at++ {
			last('-', l.text[at], at == n-1)
			removed++
		}
		for i, s := range e.with {
			last('+', s, e.to == n && i == len(e.with)-1)
			added++
		}
	}
	for ; at < to; at++ {
		last(' ', l.text[at], at == n-1)
	}
	old, now := to-from, to-from+added-removed
	fmt.Fprintf(b, "@@ -%s +%s @@\n%s", span(from, old), span(from+shift, now), body.String())
	return added, removed
}

// span is a hunk's place as diffs count: from 1, and a hunk without lines
// stands behind the line that it names.
func span(from, n int) string {
	if n == 0 {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, n)
}

// gitName quotes a file's name as git does.
func gitName(name string) string {
	for _, c := range []byte(name) {
		if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return cQuoted(name)
		}
	}
	return name
}

// cQuoted is git's quoting of names with unusual bytes.
func cQuoted(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(name) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
