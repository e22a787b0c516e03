package inventory

import "strings"

// command is one simple command of a shell script: words without their
// quotes, variables as they were written. The parser is tolerant: it reads
// POSIX shell, most of bash, and enough of PowerShell and cmd to find commands,
// variables and assignments. It never expands or runs anything.
type command struct {
	line    int      // from 0, in the script
	words   []string // the command and its arguments
	assigns []assign // NAME=value in front, or the arguments of export, set, env
	stdin   string   // here-document or here-string
	from    *command // the command whose output is piped into this one
	to      string   // file that the output is redirected to
	lines   []int    // of the words, counted from the last one; nil when all stand on the command's line
	subst   bool     // it stands inside of $( )
	maybe   bool     // it stands inside of an if or a case
	closes  bool     // it is the end of a { group }
	gets    string   // the variable that takes its output in PowerShell: $x = command
}

// assign is NAME=value. raw is the value as written, with substitutions.
type assign struct {
	name, raw string
	line      int
}

// name gives the command's name without its directory, skipping wrappers such as sudo.
func (c *command) name() string {
	words := c.words
	for len(words) > 0 {
		w := words[0]
		if i := strings.LastIndexAny(w, `/\`); i >= 0 && i+1 < len(w) {
			w = w[i+1:]
		}
		switch w = strings.TrimSuffix(w, ".exe"); w {
		case "sudo", "time", "nohup", "exec", "command", "retry", "call", "@call", "&", "xvfb-run", "then", "do", "else", "!", "{", "builtin", "npx", "pnpx", "bunx", "dbus-run-session", "winpty":
			words = words[1:]
			for len(words) > 0 && strings.HasPrefix(words[0], "-") {
				words = words[1:]
			}
			continue
		case "timeout", "nice":
			words = words[min(2, len(words)):]
			continue
		}
		c.words = words
		return strings.TrimPrefix(w, "@")
	}
	return ""
}

// lineOf gives the line of the first word that names a variable: long commands go on over many lines.
func (c *command) lineOf(name string) int {
	if c.lines == nil {
		return c.line
	}
	skipped := len(c.lines) - len(c.words) // words that were cut from the front
	for i, w := range c.words {
		if at := wordAt(w, name); at >= 0 && i+skipped >= 0 {
			return c.lines[i+skipped] + strings.Count(w[:at], "\n")
		}
	}
	return c.line
}

// wordLine gives the line of the i-th word.
func (c *command) wordLine(i int) int {
	if i += len(c.lines) - len(c.words); c.lines != nil && i >= 0 {
		return c.lines[i]
	}
	return c.line
}

// arg gives the i-th word, "" when there is none.
func (c *command) arg(i int) string {
	if i < len(c.words) {
		return c.words[i]
	}
	return ""
}

// text gives the command as one line.
func (c *command) text() string { return strings.Join(c.words, " ") }

// option gives the value of the first of the given options: "-p v", "--password v", "--password=v", "-pv" for one letter.
func (c *command) option(names ...string) (string, bool) {
	for i := 1; i < len(c.words); i++ {
		w := c.words[i]
		for _, n := range names {
			if w == n {
				return c.arg(i + 1), true
			}
			if v, ok := strings.CutPrefix(w, n); ok && v != "" {
				if v[0] == '=' || v[0] == ':' {
					return v[1:], true
				}
				if len(n) == 2 && n[0] == '-' && n[1] != '-' && (v[0] == '$' || v[0] == '"') {
					return v, true
				}
			}
		}
	}
	return "", false
}

// has reports whether one of the words stands in the command.
func (c *command) has(words ...string) bool {
	for _, w := range c.words {
		for _, x := range words {
			if w == x {
				return true
			}
		}
	}
	return false
}

// positional gives the words that are neither options nor the values of the given options.
func (c *command) positional(from int, valued ...string) []string {
	var out []string
	for i := from; i < len(c.words); i++ {
		w := c.words[i]
		if strings.HasPrefix(w, "-") && w != "-" {
			for _, v := range valued {
				if w == v {
					i++
					break
				}
			}
			continue
		}
		out = append(out, w)
	}
	return out
}

// shellParser cuts a script into commands.
type shellParser struct {
	s     string
	i     int
	line  int
	depth int
	ifs   int // how many of if and case are open
	out   []*command
	// heredocs are the delimiters whose bodies follow the current line.
	heredocs []heredoc
	groups   []int // where the open { groups } begin in out
}

type heredoc struct {
	end  string
	trim bool
	to   *command
}

// parseShell cuts a script into its commands, in order; commands inside of $( ) come before the one that holds them.
func parseShell(script string) []*command {
	p := &shellParser{s: script}
	p.list(0)
	return p.out
}

// list reads commands until the end, or until the closing byte of a substitution.
func (p *shellParser) list(stop byte) {
	var prev *command
	for p.i < len(p.s) {
		c := p.command(stop)
		if c != nil {
			c.from, c.maybe = prev, p.ifs > 0
			c.subst = stop != 0
			p.out = append(p.out, c)
		}
		piped := prev
		prev = nil
		if p.i >= len(p.s) {
			return
		}
		switch b := p.s[p.i]; {
		case b == stop:
			p.i++
			return
		case b == '\n':
			p.i++
			p.line++
			p.bodies()
			if c == nil {
				prev = piped // a pipe at the end of its line goes on with the next
			}
		case b == '|' && !strings.HasPrefix(p.s[p.i:], "||"):
			p.i++
			if p.i < len(p.s) && p.s[p.i] == '&' {
				p.i++
			}
			prev = c
		default: // ; & && || ( ) and what else can't begin a word
			p.i++
		}
	}
}

// command reads one simple command; nil when there is none before the next separator.
func (p *shellParser) command(stop byte) *command {
	c := &command{line: p.line}
	leading := true
	defer func() { p.closeGroup(c) }()
	for p.i < len(p.s) {
		switch b := p.s[p.i]; b {
		case ' ', '\t', '\r':
			p.i++
			continue
		case '\\':
			if p.i+1 < len(p.s) && p.s[p.i+1] == '\n' {
				p.i += 2
				p.line++
				continue
			}
		case '#':
			for p.i < len(p.s) && p.s[p.i] != '\n' {
				p.i++
			}
			continue
		case '\n', ';', '|', '&', ')', '(':
			if b == '&' && p.i+1 < len(p.s) && p.s[p.i+1] == '>' {
				p.i++
				continue
			}
			return c.finish()
		case '>', '<':
			p.redirect(c)
			continue
		}
		if stop != 0 && p.s[p.i] == stop {
			return c.finish()
		}
		before := p.i
		if len(c.words) == 0 {
			c.line = p.line
		}
		line := p.line
		w, raw := p.word(stop)
		if p.i == before {
			p.i++
			continue
		}
		if p.i < len(p.s) && (p.s[p.i] == '>' || p.s[p.i] == '<') && len(w) == 1 && w[0] >= '0' && w[0] <= '9' {
			continue // 2>/dev/null
		}
		if leading {
			if name, ok := assignment(raw); ok {
				c.assigns = append(c.assigns, assign{name, w[len(name)+1:], line})
				continue
			}
			if isShellKeyword(w) {
				switch w {
				case "{":
					p.groups = append(p.groups, len(p.out))
				case "}":
					c.closes = len(p.groups) > 0
				case "if", "case":
					p.ifs++
				case "fi", "esac":
					p.ifs = max(p.ifs-1, 0)
				}
				continue
			}
		}
		leading = false
		if line != c.line && c.lines == nil {
			for range c.words {
				c.lines = append(c.lines, c.line)
			}
		}
		if c.words = append(c.words, w); c.lines != nil || line != c.line {
			c.lines = append(c.lines, line)
		}
	}
	return c.finish()
}

// closeGroup gives the file that a { group } is redirected to, to its commands.
func (p *shellParser) closeGroup(c *command) {
	if !c.closes || len(p.groups) == 0 {
		return
	}
	begin := p.groups[len(p.groups)-1]
	p.groups = p.groups[:len(p.groups)-1]
	for _, x := range p.out[begin:] {
		if x.to == "" {
			x.to = c.to
		}
	}
}

// finish reads the arguments of export and its kin as assignments, and drops empty commands.
func (c *command) finish() *command {
	if len(c.words) == 0 && len(c.assigns) == 0 {
		return nil
	}
	if len(c.words) > 0 {
		switch c.words[0] {
		case "export", "declare", "local", "readonly", "typeset", "set", "SET", "env", "setx", "setenv":
			rest := c.words[:0:0]
			for i, w := range c.words[1:] {
				if name, ok := assignment(w); ok {
					c.assigns = append(c.assigns, assign{name, w[len(name)+1:], c.line})
				} else if c.words[0] == "setenv" && i == 0 && len(c.words) > 2 {
					c.assigns = append(c.assigns, assign{w, c.words[2], c.line})
					return c
				} else if c.words[0] == "env" && !strings.HasPrefix(w, "-") {
					rest = c.words[i+1:]
					break
				}
			}
			if c.words[0] == "env" && len(rest) > 0 {
				c.words = rest
			}
		}
		// PowerShell: $X = value, $env:X = value
		if w := c.words[0]; strings.HasPrefix(w, "$") && c.arg(1) == "=" {
			name := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(w, "$"), "env:"), "Env:")
			c.assigns = append(c.assigns, assign{name, strings.Join(c.words[2:], " "), c.line})
			c.words, c.gets = c.words[2:], name
		}
	}
	return c
}

// assignment reports whether a word is NAME=value or NAME+=value, and gives the name.
func assignment(w string) (string, bool) {
	i := 0
	for i < len(w) && isWordByte(w[i]) {
		i++
	}
	if i == 0 || i >= len(w) || w[0] >= '0' && w[0] <= '9' || w[i] != '=' {
		return "", false
	}
	return w[:i], true
}

func isShellKeyword(w string) bool {
	switch w {
	case "if", "then", "else", "elif", "fi", "do", "done", "while", "until", "case", "esac", "!", "{", "}", "function", "trap":
		return true
	}
	return false
}

// word reads one word: w is its text without quotes, raw begins the same up to an equals sign.
func (p *shellParser) word(stop byte) (w, raw string) {
	var b strings.Builder
	start := p.i
	for p.i < len(p.s) {
		if stop == '`' && p.s[p.i] == stop {
			return b.String(), p.s[start:p.i]
		}
		switch c := p.s[p.i]; c {
		case ' ', '\t', '\r', '\n', ';', '|', '&', '>', '<', ')', '(':
			if c == '(' && b.Len() > 0 || c == ')' && stop == 0 && strings.Count(b.String(), "(") > strings.Count(b.String(), ")") {
				b.WriteByte(c)
				p.i++
				continue
			}
			return b.String(), p.s[start:p.i]
		case '\'':
			p.single(&b)
		case '"':
			p.double(&b)
		case '`':
			p.backtick(&b)
		case '\\':
			p.i++
			if p.i < len(p.s) {
				if p.s[p.i] == '\n' {
					p.line++
				} else {
					if p.s[p.i] == '$' || isWordByte(p.s[p.i]) || p.s[p.i] == '\\' {
						b.WriteByte('\\')
					}
					b.WriteByte(p.s[p.i])
				}
				p.i++
			}
		case '$':
			p.dollar(&b)
		default:
			b.WriteByte(c)
			p.i++
		}
	}
	return b.String(), p.s[start:p.i]
}

func (p *shellParser) single(b *strings.Builder) {
	for p.i++; p.i < len(p.s) && p.s[p.i] != '\''; p.i++ {
		if p.s[p.i] == '\n' {
			p.line++
		}
		b.WriteByte(p.s[p.i])
	}
	p.i = min(p.i+1, len(p.s))
}

func (p *shellParser) double(b *strings.Builder) {
	for p.i++; p.i < len(p.s) && p.s[p.i] != '"'; {
		switch c := p.s[p.i]; c {
		case '\\':
			if p.i+1 < len(p.s) {
				if p.s[p.i+1] == '\n' {
					p.line++
				}
				if p.s[p.i+1] == '$' || isWordByte(p.s[p.i+1]) {
					b.WriteByte('\\') // "$NAME\n": the escape is no part of the name
				}
				b.WriteByte(p.s[p.i+1])
			}
			p.i = min(p.i+2, len(p.s)) // a script may end in the middle of an escape
		case '$':
			p.dollar(b)
		case '`':
			p.backtick(b)
		default:
			if c == '\n' {
				p.line++
			}
			b.WriteByte(c)
			p.i++
		}
	}
	p.i = min(p.i+1, len(p.s))
}

// dollar copies a variable, and reads the commands of a substitution.
func (p *shellParser) dollar(b *strings.Builder) {
	rest := p.s[p.i:]
	switch {
	case strings.HasPrefix(rest, "$((") || strings.HasPrefix(rest, "$(") && p.depth > 12:
		b.WriteString("$(")
		p.i += 2
	case strings.HasPrefix(rest, "$(") && isAzureMacro(rest):
		end := strings.IndexByte(rest, ')')
		b.WriteString(rest[:end+1])
		p.i += end + 1
	case strings.HasPrefix(rest, "$("):
		start := p.i
		p.substitution(2, ')')
		b.WriteString(p.s[start:min(p.i, len(p.s))])
	case strings.HasPrefix(rest, "${"):
		end := matchBrace(rest)
		p.line += strings.Count(rest[:end], "\n")
		b.WriteString(rest[:end])
		p.i += end
	default:
		b.WriteByte('$')
		p.i++
	}
}

// isAzureMacro reports whether "$(Name)" is a macro of Azure Pipelines or Tekton rather than a command.
func isAzureMacro(s string) bool {
	i := 2
	for i < len(s) && (isWordByte(s[i]) || s[i] == '.' || s[i] == '-') {
		i++
	}
	if i == 2 || i >= len(s) || s[i] != ')' {
		return false
	}
	name := s[2:i]
	return strings.ContainsAny(name, "._") || name[0] >= 'A' && name[0] <= 'Z' || strings.ToLower(name) != name
}

// substitution reads the commands between skip bytes from here and the closing byte.
func (p *shellParser) substitution(skip int, stop byte) {
	p.i += skip
	p.depth++
	held := p.heredocs
	p.heredocs = nil
	p.list(stop)
	p.heredocs = held
	p.depth--
}

func (p *shellParser) backtick(b *strings.Builder) {
	if p.depth > 12 || strings.IndexByte(p.s[p.i+1:], '`') < 0 || strings.HasPrefix(p.s[p.i:], "`\n") {
		// A lone backtick at the end of a line continues it in PowerShell.
		if strings.HasPrefix(p.s[p.i:], "`\n") {
			p.i++
			p.line++
		}
		p.i++
		return
	}
	start := p.i
	p.substitution(1, '`')
	b.WriteString(p.s[start:min(p.i, len(p.s))])
}

// matchBrace gives the length of ${...} with nested braces; an open one ends with its line.
func matchBrace(s string) int {
	depth := 0
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '\n':
			return i
		}
	}
	return len(s)
}

// redirect reads >file, <file, <<EOF, <<<word, <(cmd) and 2>&1.
func (p *shellParser) redirect(c *command) {
	rest := p.s[p.i:]
	switch {
	case strings.HasPrefix(rest, "<<<"):
		p.i += 3
		p.blanks()
		c.stdin, _ = p.word(0)
	case strings.HasPrefix(rest, "<<"):
		p.i += 2
		trim := p.i < len(p.s) && p.s[p.i] == '-'
		if trim {
			p.i++
		}
		p.blanks()
		if end, _ := p.word(0); end != "" {
			p.heredocs = append(p.heredocs, heredoc{end, trim, c})
		} else {
			p.i = min(p.i+1, len(p.s))
		}
	case strings.HasPrefix(rest, "<(") || strings.HasPrefix(rest, ">("):
		start := p.i
		p.substitution(2, ')')
		if c.words = append(c.words, p.s[start:min(p.i, len(p.s))]); c.lines != nil {
			c.lines = append(c.lines, p.line)
		}
	default:
		out := rest[0] == '>'
		for p.i < len(p.s) && strings.IndexByte("<>&", p.s[p.i]) >= 0 {
			p.i++
		}
		p.blanks()
		if w, _ := p.word(0); out {
			c.to = w
		} else if w != "" {
			c.stdin = w
		}
	}
}

func (p *shellParser) blanks() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t') {
		p.i++
	}
}

// bodies reads the here-documents that begin on the line that just ended.
func (p *shellParser) bodies() {
	for _, h := range p.heredocs {
		var b strings.Builder
		for p.i < len(p.s) {
			end := strings.IndexByte(p.s[p.i:], '\n')
			line := p.s[p.i:]
			if end >= 0 {
				line = line[:end]
			}
			p.i = min(p.i+len(line)+1, len(p.s))
			p.line++
			if strings.TrimSpace(line) == h.end {
				break
			}
			b.WriteString(line)
			b.WriteByte('\n')
		}
		if h.to != nil {
			h.to.stdin = b.String()
		}
	}
	p.heredocs = p.heredocs[:0]
}
