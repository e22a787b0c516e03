package inventory

import "strings"

// call reads a dotted name with its arguments and closures.
func (p *gParser) call() *gCall {
	c := &gCall{line: p.peek().line}
	var name strings.Builder
	name.WriteString(p.peek().text)
	p.i++
	for {
		t := p.peek()
		if t.kind == 'p' && t.text == "?" && p.at(1).text == "." {
			p.i++
			t = p.peek()
		}
		if t.kind == 'p' && t.text == "." && (p.at(1).kind == 'i' || p.at(1).kind == 's') {
			name.WriteByte('.')
			name.WriteString(p.at(1).text)
			p.i += 2
			continue
		}
		break
	}
	c.name, c.of = plainStep(name.String())
	p.arguments(c)
	return c
}

// dotted takes n tokens of a dotted name.
func (p *gParser) dotted(n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(p.peek().text)
		p.i++
	}
	return b.String()
}

// arguments reads (args) and closures behind a name.
func (p *gParser) arguments(c *gCall) {
	if p.isPunct("(") {
		start := p.i
		p.i++
		c.args = p.list(")")
		if c.name == "if" || c.name == "while" {
			c.text = p.raw(start, p.i)
		} else if c.args == nil {
			c.args = []gArg{} // called, with nothing
		}
	}
	if p.brace() {
		p.closure(c)
	}
}

// brace reports whether a closure follows, also on the next line for what takes blocks.
func (p *gParser) brace() bool {
	if p.isPunct("{") {
		return true
	}
	i := 0
	for p.at(i).kind == 'l' {
		i++
	}
	if t := p.at(i); i > 0 && t.kind == 'p' && t.text == "{" {
		p.i += i
		return true
	}
	return false
}

// raw joins the tokens of a range, for conditions.
func (p *gParser) raw(from, to int) string {
	var b strings.Builder
	for i := from; i < to && i < len(p.t); i++ {
		t := p.t[i]
		switch t.kind {
		case 's', 'g':
			b.WriteString("'" + t.text + "'")
		case 'l':
			b.WriteByte(' ')
		default:
			if t.kind == 'i' && b.Len() > 0 && isWordByte(b.String()[b.Len()-1]) {
				b.WriteByte(' ')
			}
			b.WriteString(t.text)
		}
	}
	return b.String()
}

// list reads arguments, entries of a list or of a map, up to the closing mark.
func (p *gParser) list(end string) []gArg {
	var out []gArg
	for {
		p.newlines()
		t := p.peek()
		if t.kind == 'e' || t.kind == 'p' && (t.text == end || t.text == "}") {
			if t.kind == 'p' && t.text == end {
				p.i++
			}
			return out
		}
		if t.kind == 'p' && (t.text == "," || t.text == ";") {
			p.i++
			continue
		}
		before := p.i
		out = append(out, p.argument())
		if p.i == before {
			p.i++
		}
	}
}

// argument reads key: value, or a value.
func (p *gParser) argument() gArg {
	t := p.peek()
	if (t.kind == 'i' || t.kind == 's' || t.kind == 'g' || t.kind == 'n') && p.at(1).kind == 'p' && p.at(1).text == ":" && p.at(2).text != ":" {
		p.i += 2
		p.newlines()
		return gArg{t.text, p.expression()}
	}
	return gArg{"", p.expression()}
}

// operators join values; what they do doesn't matter, only what stands around them.
func (p *gParser) operator() bool {
	t := p.peek()
	if t.kind != 'p' {
		return false
	}
	return strings.Contains("+-*/%?:<>=!&|^~", t.text)
}

// nextLine goes on to the next line where it can only continue a choice: what no statement begins with.
func (p *gParser) nextLine(choice bool) bool {
	i := 0
	for p.at(i).kind == 'l' {
		i++
	}
	if t := p.at(i); i == 0 || t.kind != 'p' || t.text != "?" && !(t.text == ":" && choice) || p.at(i+1).text == "." {
		return false
	}
	p.i += i
	return true
}

// expression reads a value with its operators.
func (p *gParser) expression() gValue {
	v := p.primary()
	var parts []gValue
	choice := false // a ?: b, or a ? b : c: one of the parts, not all of them
	for p.operator() || p.nextLine(choice) {
		asks := false
		for p.operator() {
			if p.peek().text == "?" {
				choice, asks = true, p.at(1).text != ":"
			}
			p.i++
		}
		p.newlines()
		if t := p.peek(); t.kind == 'e' || t.kind == 'p' && strings.Contains(")]},;", t.text) {
			break
		}
		if parts == nil {
			parts = append(parts, v)
		}
		if asks { // what stands before the mark is no answer
			parts = []gValue{{parts: parts, line: parts[0].line, asked: true}}
		}
		before := p.i
		parts = append(parts, p.primary())
		if p.i == before {
			break
		}
	}
	if t := p.peek(); t.kind == 'i' && (t.text == "as" || t.text == "in" || t.text == "instanceof") {
		p.i++
		if parts == nil {
			parts = append(parts, v)
		}
		parts = append(parts, p.primary())
	}
	if parts == nil {
		return v
	}
	if choice {
		return gValue{parts: parts, line: parts[0].line}
	}
	return joinValues(parts)
}

// joinValues makes one value of the parts of an expression: strings and names that are added become one string with holes.
func joinValues(parts []gValue) gValue {
	out := gValue{parts: parts, line: parts[0].line}
	var b strings.Builder
	plain := true
	for _, v := range parts {
		switch {
		case v.isStr:
			b.WriteString(v.str)
			out.gstr = out.gstr || v.gstr
		case v.ident != "" && v.call == nil:
			b.WriteString("${" + v.ident + "}")
			out.gstr = true
		default:
			plain = false
		}
	}
	if plain {
		out.str, out.isStr = b.String(), true
	}
	return out
}

// primary reads one operand.
func (p *gParser) primary() gValue {
	if p.depth++; p.depth > 200 {
		p.i = len(p.t) - 1
	}
	defer func() { p.depth-- }()
	t := p.peek()
	v := gValue{line: t.line}
	switch {
	case t.kind == 's' || t.kind == 'g':
		p.i++
		v.str, v.isStr, v.gstr = t.text, true, t.kind == 'g'
		if p.isPunct(".") && p.at(1).kind == 'i' {
			c := &gCall{name: "." + p.at(1).text, line: t.line}
			p.i += 2
			p.arguments(c)
			return gValue{line: t.line, str: v.str, isStr: c.name == ".trim" || c.name == ".stripIndent" || c.name == ".toString", gstr: v.gstr, call: c}
		}
	case t.kind == 'i':
		if t.text == "new" {
			p.i++
			return p.primary()
		}
		c := p.call()
		v.ident = c.name
		if c.args != nil || c.body != nil {
			v.call = c
		}
		p.chained(&v)
	case t.kind == 'p' && t.text == "[":
		p.i++
		v.list = p.list("]")
		p.chained(&v)
	case t.kind == 'p' && t.text == "(":
		p.i++
		args := p.list(")")
		if len(args) == 1 {
			v = args[0].val
		} else {
			v.list = args
		}
		p.chained(&v)
	case t.kind == 'p' && t.text == "{":
		v.call = &gCall{line: t.line}
		p.closure(v.call)
	case t.kind == 'n':
		p.i++
	}
	return v
}

// chained reads .name(args) and [index] behind a value.
func (p *gParser) chained(v *gValue) {
	for {
		t := p.peek()
		i := 0
		for p.at(i).kind == 'l' {
			i++
		}
		if n := p.at(i); n.kind == 'p' && n.text == "?" && p.at(i+1).kind == 'p' && p.at(i+1).text == "." {
			i++
		}
		if n := p.at(i); n.kind == 'p' && n.text == "." && p.at(i+1).kind == 'i' {
			p.i += i + 1
			c := p.call()
			c.name = "." + c.name
			v.parts = append(v.parts, gValue{line: c.line, call: c})
			continue
		}
		if t.kind == 'p' && t.text == "[" {
			p.i++
			args := p.list("]")
			if len(args) == 1 && args[0].val.isStr && v.ident != "" {
				v.ident += "." + args[0].val.str
			}
			continue
		}
		return
	}
}

// expressionOrCommand reads an expression, or a call without parentheses: sh 'x', git url: 'y', credentialsId: 'z'.
func (p *gParser) expressionOrCommand() gValue {
	if p.peek().kind != 'i' {
		return p.expression()
	}
	// Look behind the dotted name, without reading it twice: nested calls would cost twice at each level.
	n := 1
	for p.at(n).kind == 'p' && p.at(n).text == "." && p.at(n+1).kind == 'i' {
		n += 2
	}
	t := p.at(n)
	startsArg := t.kind == 's' || t.kind == 'g' || t.kind == 'n' || t.kind == 'i' && t.text != "as" && t.text != "in" && t.text != "instanceof" ||
		t.kind == 'p' && t.text == "["
	if !startsArg {
		return p.expression()
	}
	c := &gCall{line: p.peek().line}
	c.name, c.of = plainStep(p.dotted(n))
	switch c.name {
	case "return", "def", "throw", "assert", "else", "final", "static", "private", "public", "import", "package":
		if c.name == "import" || c.name == "package" {
			for p.peek().kind != 'l' && p.peek().kind != 'e' {
				p.i++
			}
			return gValue{line: c.line}
		}
		return p.expressionOrCommand()
	}
	for {
		before := p.i
		c.args = append(c.args, p.argument())
		if p.i == before {
			break
		}
		if p.isPunct(",") {
			p.i++
			p.newlines()
			continue
		}
		break
	}
	if p.isPunct("{") {
		p.closure(c)
	}
	return gValue{line: c.line, ident: c.name, call: c}
}
