package inventory

import (
	"strconv"
	"strings"
)

// expr is a parsed expression of GitHub Actions (and, with the same grammar,
// of Azure Pipelines templates): a small tree that keeps the case of names,
// which the names of secrets need.
type expr struct {
	op   exprOp
	name string  // of a variable, property, function or string literal
	args []*expr // operands, arguments, or the receiver of a property
}

type exprOp uint8

const (
	opVar   exprOp = iota // name
	opProp                // args[0].name
	opIndex               // args[0][args[1]]
	opStar                // args[0].*
	opCall                // name(args...)
	opString
	opNumber
	opBool
	opNull
	opNot
	opAnd
	opOr
	opEq
	opNe
	opCompare // <, <=, >, >=
)

// exprParser is a recursive descent over tokens; it never fails, what it can't read it skips.
type exprParser struct {
	s     string
	i     int
	depth int
}

// parseExpr reads an expression without its ${{ }}.
func parseExpr(s string) *expr {
	p := &exprParser{s: s}
	return p.or()
}

func (p *exprParser) space() {
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.i]) >= 0 {
		p.i++
	}
}

func (p *exprParser) eat(tok string) bool {
	p.space()
	if strings.HasPrefix(p.s[p.i:], tok) {
		p.i += len(tok)
		return true
	}
	return false
}

func (p *exprParser) or() *expr {
	if p.depth++; p.depth > 60 {
		p.i = len(p.s)
		return &expr{op: opNull}
	}
	defer func() { p.depth-- }()
	l := p.and()
	for p.eat("||") {
		l = &expr{op: opOr, args: []*expr{l, p.and()}}
	}
	return l
}

func (p *exprParser) and() *expr {
	l := p.compare()
	for p.eat("&&") {
		l = &expr{op: opAnd, args: []*expr{l, p.compare()}}
	}
	return l
}

func (p *exprParser) compare() *expr {
	l := p.unary()
	for {
		switch {
		case p.eat("=="):
			l = &expr{op: opEq, args: []*expr{l, p.unary()}}
		case p.eat("!="):
			l = &expr{op: opNe, args: []*expr{l, p.unary()}}
		case p.eat("<="), p.eat(">="), p.eat("<"), p.eat(">"):
			l = &expr{op: opCompare, args: []*expr{l, p.unary()}}
		default:
			return l
		}
	}
}

func (p *exprParser) unary() *expr {
	p.space()
	not := 0
	for p.i < len(p.s) && p.s[p.i] == '!' && !strings.HasPrefix(p.s[p.i:], "!=") {
		not++
		p.i++
		p.space()
	}
	e := p.postfix()
	if not%2 == 1 {
		return &expr{op: opNot, args: []*expr{e}}
	}
	return e
}

func (p *exprParser) postfix() *expr {
	e := p.primary()
	for {
		p.space()
		switch {
		case p.eat("."):
			if p.eat("*") {
				e = &expr{op: opStar, args: []*expr{e}}
				continue
			}
			name := p.ident()
			if name == "" {
				return e
			}
			e = &expr{op: opProp, name: name, args: []*expr{e}}
		case p.eat("["):
			if p.eat("*") {
				p.eat("]")
				e = &expr{op: opStar, args: []*expr{e}}
				continue
			}
			ix := p.or()
			p.eat("]")
			e = &expr{op: opIndex, args: []*expr{e, ix}}
		default:
			return e
		}
	}
}

func (p *exprParser) primary() *expr {
	p.space()
	if p.i >= len(p.s) {
		return &expr{op: opNull}
	}
	switch c := p.s[p.i]; {
	case c == '(':
		p.i++
		e := p.or()
		p.eat(")")
		return e
	case c == '\'':
		return &expr{op: opString, name: p.quoted()}
	case c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.':
		start := p.i
		for p.i++; p.i < len(p.s) && (isWordByte(p.s[p.i]) || p.s[p.i] == '.'); p.i++ {
		}
		return &expr{op: opNumber, name: p.s[start:p.i]}
	}
	name := p.ident()
	if name == "" {
		p.i++ // a byte of no known token; go on behind it
		return &expr{op: opNull}
	}
	switch strings.ToLower(name) {
	case "true", "false":
		return &expr{op: opBool, name: strings.ToLower(name)}
	case "null":
		return &expr{op: opNull}
	}
	if p.eat("(") {
		call := &expr{op: opCall, name: strings.ToLower(name)}
		for p.space(); p.i < len(p.s) && p.s[p.i] != ')'; p.space() {
			before := p.i
			call.args = append(call.args, p.or())
			if !p.eat(",") && p.i == before {
				p.i++
			}
		}
		p.eat(")")
		return call
	}
	return &expr{op: opVar, name: name}
}

// quoted reads a string in single quotes, in which ” is one quote.
func (p *exprParser) quoted() string {
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		if p.s[p.i] == '\'' {
			if p.i+1 >= len(p.s) || p.s[p.i+1] != '\'' {
				p.i++
				break
			}
			p.i++
		}
		b.WriteByte(p.s[p.i])
	}
	return b.String()
}

func (p *exprParser) ident() string {
	start := p.i
	for p.i < len(p.s) && (isWordByte(p.s[p.i]) || p.s[p.i] == '-') {
		p.i++
	}
	return p.s[start:p.i]
}

// path gives the dotted name of a chain of properties, with its last name in
// its own case: "secrets.Deploy_Key", "github.event.pull_request.head.sha". Literal indexes count as
// properties. "" is anything else.
func (e *expr) path() string {
	switch e.op {
	case opVar:
		return e.name
	case opProp:
		if base := e.args[0].path(); base != "" {
			return base + "." + e.name
		}
	case opIndex:
		if base := e.args[0].path(); base != "" && e.args[1].op == opString {
			return base + "." + e.args[1].name
		}
	case opStar:
		if base := e.args[0].path(); base != "" {
			return base + ".*"
		}
	}
	return ""
}

// each visits e and all its parts, parents first; visit returns false to stay out of the parts.
func (e *expr) each(visit func(*expr) bool) {
	if e == nil || !visit(e) {
		return
	}
	for _, a := range e.args {
		a.each(visit)
	}
}

// strings gives all string literals in e, except those that are compared with something.
func (e *expr) literals() []string {
	var out []string
	e.each(func(x *expr) bool {
		switch x.op {
		case opString:
			out = append(out, x.name)
		case opEq, opNe, opCompare:
			return false
		case opCall:
			return x.name == "format" || x.name == "fromjson" || x.name == "join"
		}
		return true
	})
	return out
}

// placeholder is one ${{ ... }} in a text.
type placeholder struct {
	start, end int // of the whole, with its braces
	body       string
}

// placeholders finds all ${{ }} of a text; an opening without an end reaches to the end of the line.
func placeholders(s string) []placeholder {
	var out []placeholder
	for from := 0; ; {
		i := strings.Index(s[from:], "${{")
		if i < 0 {
			return out
		}
		i += from
		end := closing(s, i+3)
		out = append(out, placeholder{i, min(end+2, len(s)), s[i+3 : end]})
		from = min(end+2, len(s))
	}
}

// closing finds the }} that ends an expression, with quotes respected.
func closing(s string, i int) int {
	quoted := false
	for ; i < len(s); i++ {
		switch {
		case s[i] == '\'':
			quoted = !quoted
		case !quoted && s[i] == '}' && i+1 < len(s) && s[i+1] == '}':
			return i
		case s[i] == '\n' && quoted:
			quoted = false
		}
	}
	return len(s)
}

// truth is a value of three-valued logic: what a condition says when only some of its names are known.
type truth int8

const (
	maybe truth = iota
	yes
	no
)

func (t truth) not() truth {
	switch t {
	case yes:
		return no
	case no:
		return yes
	}
	return maybe
}

func both(a, b truth) truth {
	switch {
	case a == no || b == no:
		return no
	case a == yes && b == yes:
		return yes
	}
	return maybe
}

func either(a, b truth) truth {
	switch {
	case a == yes || b == yes:
		return yes
	case a == no && b == no:
		return no
	}
	return maybe
}

// value is what a part of a condition evaluates to; known is false when only a run can tell.
type value struct {
	text  string
	known bool
	truth truth
}

// lookup gives the value of a name such as "github.event_name" in an assumed run.
type lookup func(path string) (text string, known bool)

// eval evaluates a condition for an assumed run. hook may decide a part by its form before its operands are looked at.
func (e *expr) eval(names lookup, hook func(*expr) truth) value {
	if hook != nil {
		if t := hook(e); t != maybe {
			return value{truth: t, known: true, text: strconv.FormatBool(t == yes)}
		}
	}
	switch e.op {
	case opString, opNumber:
		return known(e.name)
	case opBool:
		return known(e.name)
	case opNull:
		return known("")
	case opNot:
		return ofTruth(e.args[0].eval(names, hook).truth.not())
	case opAnd:
		l := e.args[0].eval(names, hook)
		if l.truth == no {
			return l
		}
		r := e.args[1].eval(names, hook)
		if l.truth == yes {
			return r
		}
		return ofTruth(both(l.truth, r.truth))
	case opOr:
		l := e.args[0].eval(names, hook)
		if l.truth == yes {
			return l
		}
		r := e.args[1].eval(names, hook)
		if l.truth == no {
			return r
		}
		return ofTruth(either(l.truth, r.truth))
	case opEq, opNe:
		l, r := e.args[0].eval(names, hook), e.args[1].eval(names, hook)
		if !l.known || !r.known {
			return value{}
		}
		same := strings.EqualFold(l.text, r.text)
		return ofTruth(truthOf(same == (e.op == opEq)))
	case opCall:
		return e.call(names, hook)
	case opVar, opProp, opIndex:
		if text, ok := names(e.path()); ok {
			return known(text)
		}
	}
	return value{}
}

// call evaluates the functions that guards are made of.
func (e *expr) call(names lookup, hook func(*expr) truth) value {
	arg := func(i int) value {
		if i < len(e.args) {
			return e.args[i].eval(names, hook)
		}
		return value{}
	}
	switch e.name {
	case "always":
		return known("true")
	case "contains", "startswith", "endswith":
		a, b := arg(0), arg(1)
		if len(e.args) == 2 && e.args[0].op == opCall && e.args[0].name == "fromjson" && len(e.args[0].args) == 1 {
			a = e.args[0].args[0].eval(names, hook)
			b.text = `"` + b.text + `"`
		}
		if !a.known || !b.known {
			return value{}
		}
		x, y := strings.ToLower(a.text), strings.ToLower(b.text)
		switch e.name {
		case "contains":
			return ofTruth(truthOf(strings.Contains(x, y)))
		case "startswith":
			return ofTruth(truthOf(strings.HasPrefix(x, y)))
		}
		return ofTruth(truthOf(strings.HasSuffix(x, y)))
	}
	return value{}
}

func known(s string) value {
	return value{text: s, known: true, truth: truthOf(s != "" && s != "false" && s != "0")}
}

func ofTruth(t truth) value {
	return value{truth: t, known: t != maybe, text: map[truth]string{yes: "true", no: "false"}[t]}
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}
