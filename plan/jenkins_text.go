package plan

import (
	"fmt"
	"regexp"
	"strings"
)

// shellStrings are the lines of a command in a Jenkinsfile: as they are written,
// and as the shell gets them. What Groovy puts into a string in double quotes
// stands in the shell's lines as one mark each.
type shellStrings struct {
	groovy  bool // in double quotes
	written []string
	shell   []string
	marks   []string
}

// firstMark is the first of the characters that stand for what Groovy puts in.
const firstMark = '\uE000'

// commandText takes a literal apart.
func commandText(l literal, text string) (*shellStrings, error) {
	s := &shellStrings{groovy: !l.plain(), written: strings.Split(l.text(text), "\n")}
	if !s.groovy {
		s.shell = strings.Split(l.text(text), "\n")
		return s, nil
	}
	for _, line := range s.written {
		out, err := s.decode(line)
		if err != nil {
			return nil, err
		}
		s.shell = append(s.shell, out)
	}
	return s, nil
}

var (
	groovyName   = regexp.MustCompile(`^\$[A-Za-z_]\w*(\.[A-Za-z_]\w*)*`)
	groovyEscape = regexp.MustCompile(`^\\(u+[0-9A-Fa-f]{4}|[0-7]{1,3}|.|$)`)
)

// decode gives a line of a string in double quotes as the shell gets it.
func (s *shellStrings) decode(line string) (string, error) {
	var b strings.Builder
	mark := func(raw string) {
		b.WriteRune(firstMark + rune(len(s.marks)))
		s.marks = append(s.marks, raw)
	}
	for i := 0; i < len(line); {
		rest := line[i:]
		if r := []rune(rest)[0]; r >= firstMark && r <= '\uF8FF' || len(s.marks) > 4000 {
			return "", fmt.Errorf("the command holds characters that no patch can tell from its own marks")
		}
		switch {
		case rest[0] == '\\':
			m := groovyEscape.FindString(rest)
			if len(m) == 2 && strings.ContainsRune(`$"'\`, rune(m[1])) {
				b.WriteByte(m[1])
			} else {
				mark(m)
			}
			i += len(m)
		case strings.HasPrefix(rest, "${"):
			end := expressionEnd(rest)
			if end < 0 {
				return "", fmt.Errorf("an expression of Groovy goes over several lines of the command")
			}
			mark(rest[:end])
			i += end
		case groovyName.MatchString(rest):
			m := groovyName.FindString(rest)
			mark(m)
			i += len(m)
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return b.String(), nil
}

// expressionEnd gives the length of ${...} at the head of a line, -1 when it doesn't end there.
func expressionEnd(s string) int {
	depth := 0
	var quote byte
	for i := 1; i < len(s); i++ {
		switch {
		case quote != 0 && s[i] == '\\':
			i++
		case quote != 0:
			if s[i] == quote {
				quote = 0
			}
		case s[i] == '\'' || s[i] == '"':
			quote = s[i]
		case s[i] == '{':
			depth++
		case s[i] == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// encode writes a line of the shell's as the literal has it.
func (s *shellStrings) encode(line string) string {
	if !s.groovy {
		return line
	}
	var b strings.Builder
	for _, r := range line {
		switch {
		case r >= firstMark && int(r-firstMark) < len(s.marks):
			b.WriteString(s.marks[r-firstMark])
		case r == '\\', r == '$':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return strings.ReplaceAll(b.String(), `"""`, `\"\"\"`)
}

// added writes a line that was not there before: Groovy takes backslashes away
// in both kinds of quotes.
func (s *shellStrings) added(line string) string {
	if s.groovy {
		return s.encode(line)
	}
	return strings.ReplaceAll(line, `\`, `\\`)
}

// line is the literal's text for a line of the shell's: as it was, where it was.
func (s *shellStrings) line(i int, shell string) string {
	if shell == s.shell[i] {
		return s.written[i]
	}
	out := s.encode(shell)
	if before, quoted := strings.CutSuffix(out, `"`); quoted && s.groovy && i > 0 && i == len(s.shell)-1 {
		return before + `\"` // the end of the literal follows
	}
	return out
}

var heredoc = regexp.MustCompile(`<<-?\s*(['"\\]?)([A-Za-z_]\w*)`)

// quoting follows what quotes of a shell a place stands in.
type quoting struct {
	quote, last         rune
	outer               []rune // the quotes around each bracket that is open: $( begins anew in them
	skip, word, comment bool   // the next character is escaped, a word begins, the line is over
}

func (q *quoting) line() { q.skip, q.word, q.comment, q.last = false, true, false, 0 }

func (q *quoting) next(r rune) {
	switch {
	case q.comment:
	case q.skip:
		q.skip = false
	case r == '\\' && q.quote != '\'':
		q.skip = true
	case q.quote != '\'' && r == '(' && (q.last == '$' || q.quote == 0):
		q.outer, q.quote = append(q.outer, q.quote), 0
	case q.quote == 0 && r == ')' && len(q.outer) > 0:
		q.outer, q.quote = q.outer[:len(q.outer)-1], q.outer[len(q.outer)-1]
	case q.quote != 0:
		if r == q.quote {
			q.quote = 0
		}
	case r == '\'' || r == '"':
		q.quote = r
	case r == '#' && q.word:
		q.comment = true
	}
	q.last = r
	q.word = strings.ContainsRune(" \t;(", r)
}

// release lets the shell read the variables that Groovy has put in so far. Within
// a shell's single quotes they are text, so the quotes close around each.
func (s *shellStrings) release(names []string) (*shellStrings, error) {
	if !s.groovy {
		return s, nil
	}
	out := *s
	out.shell, out.written = nil, nil
	var q quoting
	until, literally := "", false // of a here-document
	for i, line := range s.shell {
		var b strings.Builder
		q.line()
		here, runes := until != "", []rune(line)
		for k := 0; k < len(runes); k++ {
			r := runes[k]
			if int(r) < firstMark || int(r-firstMark) >= len(s.marks) {
				b.WriteRune(r)
				if !here {
					q.next(r)
				}
				continue
			}
			q.word, q.skip = false, false
			name, err := released(s.marks[r-firstMark], names)
			switch {
			case err != nil:
				return nil, err
			case name == "":
				b.WriteRune(r)
			case here && literally:
				return nil, fmt.Errorf("a here-document with a quoted end holds the value, and no shell puts one in there")
			case here || q.quote == '"':
				b.WriteString("${" + name + "}")
			case q.quote == 0:
				b.WriteString(`"${` + name + `}"`)
			default:
				before, begins := strings.CutSuffix(b.String(), "'")
				b.Reset()
				b.WriteString(before + map[bool]string{false: "'"}[begins] + `"${` + name + `}"`)
				if k+1 < len(runes) && runes[k+1] == '\'' { // the quotes end here
					k, q.quote = k+1, 0
				} else {
					b.WriteByte('\'')
				}
			}
		}
		switch m := heredoc.FindStringSubmatch(line); {
		case here && strings.TrimSpace(line) == until:
			until = ""
		case !here && !q.comment && m != nil && !strings.Contains(line, "<<<"):
			until, literally = m[2], m[1] != ""
		}
		out.shell = append(out.shell, b.String())
		out.written = append(out.written, s.line(i, b.String()))
	}
	return &out, nil
}

// released gives the variable that an expression of Groovy stands for, "" when
// it stands for another. What does more with the value can't be a shell's.
func released(mark string, names []string) (string, error) {
	inner := strings.TrimPrefix(strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(mark, "$"), "{"), "}")), "env.")
	for _, n := range names {
		if inner == n {
			return n, nil
		}
		if regexp.MustCompile(`(^|\W)` + regexp.QuoteMeta(n) + `($|\W)`).MatchString(mark) {
			return "", fmt.Errorf("something is done with the value before it stands in the command: %s", oneLine(mark))
		}
	}
	return "", nil
}
