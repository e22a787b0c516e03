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

// release lets the shell read the variables that Groovy has put in so far. Within
// a shell's single quotes they are text, so the quotes close around each.
func (s *shellStrings) release(names []string) (*shellStrings, error) {
	if !s.groovy {
		return s, nil
	}
	out := *s
	out.shell, out.written = nil, nil
	var quote, last rune
	var outer []rune // the quotes around each bracket that is open: $( begins anew in them
	until, quotedDoc := "", false
	for i, line := range s.shell {
		var b strings.Builder
		here := until != ""
		word, skip := true, false // a word begins here; the next character is escaped
		comment := false
		runes := []rune(line)
		for k := 0; k < len(runes); k++ {
			r := runes[k]
			if int(r) >= firstMark && int(r-firstMark) < len(s.marks) {
				name, err := released(s.marks[r-firstMark], names)
				switch {
				case err != nil:
					return nil, err
				case name == "":
					b.WriteRune(r)
				case here && quotedDoc:
					return nil, fmt.Errorf("a here-document with a quoted end holds the value, and no shell puts one in there")
				case here || quote == '"':
					b.WriteString("${" + name + "}")
				case quote == '\'':
					if k > 0 && runes[k-1] == '\'' { // the quotes have just begun
						trim := strings.TrimSuffix(b.String(), "'")
						b.Reset()
						b.WriteString(trim)
					} else {
						b.WriteByte('\'')
					}
					b.WriteString(`"${` + name + `}"`)
					if k+1 < len(runes) && runes[k+1] == '\'' { // and end here
						k, quote = k+1, 0
					} else {
						b.WriteByte('\'')
					}
				default:
					b.WriteString(`"${` + name + `}"`)
				}
				word, skip = false, false
				continue
			}
			b.WriteRune(r)
			switch {
			case here || comment:
			case skip:
				skip = false
			case r == '\\' && quote != '\'':
				skip = true
			case quote != '\'' && r == '(' && (last == '$' || quote == 0):
				outer, quote = append(outer, quote), 0
			case quote == 0 && r == ')' && len(outer) > 0:
				outer, quote = outer[:len(outer)-1], outer[len(outer)-1]
			case quote != 0:
				if r == quote {
					quote = 0
				}
			case r == '\'' || r == '"':
				quote = r
			case r == '#' && word:
				comment = true
			}
			last = r
			word = r == ' ' || r == '\t' || r == ';' || r == '('
		}
		switch m := heredoc.FindStringSubmatch(line); {
		case here && strings.TrimSpace(line) == until:
			until = ""
		case !here && !comment && m != nil && !strings.Contains(line, "<<<"):
			until, quotedDoc = m[2], m[1] != ""
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
		if regexp.MustCompile(`(^|\W)` + n + `($|\W)`).MatchString(mark) {
			return "", fmt.Errorf("Groovy does something with the value before it writes it into the command: %s", oneLine(mark))
		}
	}
	return "", nil
}
