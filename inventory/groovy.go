package inventory

import (
	"strings"
)

// A tolerant reader of Groovy, enough for Jenkins pipelines: it finds calls
// with their arguments and closures, and assignments, with lines. It runs
// nothing and knows no types; what it can't read it skips.

// gCall is a call, a definition or a block: name(args) { body }.
type gCall struct {
	of   string // the object in front of a step: steps.sh
	name string // dotted: "docker.withRegistry"; "" is a bare block
	args []gArg
	body []*gCall
	line int
	// assign is the name that the value is assigned to: X = name(args).
	assign string
	// isDef is a definition of a function with this name.
	isDef bool
	// text is the condition of an if, the raw text between its parentheses.
	text string
	// params are the names that a definition or a closure gives its arguments.
	params []gParam
}

// gParam is a parameter with its default, when that is a literal.
type gParam struct{ name, def string }

// gArg is an argument, or an entry of a map; key is "" for a positional one.
type gArg struct {
	key string
	val gValue
}

// gValue is a value: a string, a list or map, a call, or something else.
type gValue struct {
	str   string
	isStr bool
	gstr  bool // it has ${} that Groovy fills in
	ident string
	list  []gArg // of a list or a map
	call  *gCall
	line  int
	parts []gValue // of a concatenation or a choice
	asked bool     // it is what a choice asks, not one of its answers
}

// gParser turns tokens into calls.
type gParser struct {
	t     []gTok
	i     int
	depth int
}

// parseGroovy reads a file.
func parseGroovy(s string) []*gCall {
	p := &gParser{t: lexGroovy(s)}
	var out []*gCall
	for p.peek().kind != 'e' {
		before := p.i
		out = append(out, p.block()...)
		if p.isPunct("}") || p.i == before {
			p.i++ // a brace too many
		}
	}
	return out
}

func (p *gParser) peek() gTok { return p.t[min(p.i, len(p.t)-1)] }

func (p *gParser) at(n int) gTok { return p.t[min(p.i+n, len(p.t)-1)] }

func (p *gParser) isPunct(s string) bool {
	t := p.peek()
	return t.kind == 'p' && t.text == s
}

func (p *gParser) newlines() {
	for p.peek().kind == 'l' {
		p.i++
	}
}

// block reads statements up to a closing brace, which it leaves.
func (p *gParser) block() []*gCall {
	var out []*gCall
	if p.depth++; p.depth > 150 {
		p.i = len(p.t) - 1
	}
	defer func() { p.depth-- }()
	for {
		t := p.peek()
		switch {
		case t.kind == 'e', t.kind == 'p' && t.text == "}":
			return out
		case t.kind == 'l', t.kind == 'p' && t.text == ";":
			p.i++
		default:
			before := p.i
			out = append(out, p.statement()...)
			if p.i == before {
				p.i++
			}
		}
	}
}

// statement reads one statement and gives its calls.
func (p *gParser) statement() []*gCall {
	if p.isPunct("{") {
		c := &gCall{line: p.peek().line}
		p.closure(c)
		return []*gCall{c}
	}
	if p.isPunct("@") { // an annotation: @Library('x') _
		p.i++
		if p.peek().kind == 'i' {
			c := p.call()
			c.name = "@" + c.name
			for p.peek().kind == 'i' && p.peek().text == "_" {
				p.i++
			}
			return []*gCall{c}
		}
		return nil
	}
	if p.peek().kind != 'i' {
		return p.result(p.expression(), "")
	}
	if p.caseLabel() {
		return nil
	}
	// def name(...) { }, Type name = value, name = value
	if c := p.definition(); c != nil {
		return []*gCall{c}
	}
	if out, ok := p.assignment(); ok {
		return out
	}
	word := p.peek().text
	return p.result(p.expressionOrCommand(), word)
}

// caseLabel skips the label of a switch, behind which statements go on.
func (p *gParser) caseLabel() bool {
	switch word := p.peek().text; {
	case word == "default" && p.at(1).kind == 'p' && p.at(1).text == ":":
	case word == "case":
	default:
		return false
	}
	for !p.isPunct(":") && p.peek().kind != 'l' && p.peek().kind != 'e' {
		p.i++
	}
	if p.isPunct(":") {
		p.i++
	}
	return true
}

// result gives the calls of a statement, and the value that a function gives
// back by it: what it returns, or what its last statement is.
func (p *gParser) result(v gValue, word string) []*gCall {
	out := v.calls()
	if word == "return" || len(out) == 0 && v.isStr || len(v.parts) > 1 {
		out = append(out, &gCall{name: "return", text: word, line: v.line, args: []gArg{{val: v}}})
	}
	return out
}

// definition reads "def name(params) { body }".
func (p *gParser) definition() *gCall {
	i := 0
	for p.at(i).kind == 'i' && i < 4 {
		i++
	}
	if i < 2 || p.at(i).kind != 'p' || p.at(i).text != "(" {
		return nil
	}
	switch p.t[p.i].text {
	case "return", "new", "else", "if", "throw", "assert", "in", "case":
		return nil
	}
	// Find the closing parenthesis; a brace behind it makes a definition.
	depth, j := 0, i
	for ; p.at(j).kind != 'e'; j++ {
		if t := p.at(j); t.kind == 'p' && t.text == "(" {
			depth++
		} else if t.kind == 'p' && t.text == ")" {
			if depth--; depth == 0 {
				break
			}
		}
	}
	k := j + 1
	for p.at(k).kind == 'l' {
		k++
	}
	if p.at(k).kind != 'p' || p.at(k).text != "{" || p.t[p.i].text != "def" && i < 2 {
		return nil
	}
	c := &gCall{name: p.at(i - 1).text, line: p.at(i - 1).line, isDef: true, params: p.params(i+1, j)}
	p.i += k
	params := c.params
	p.closure(c)
	c.params = params
	return c
}

// params reads the names of parameters between two tokens: [Type] name [= default], ...
func (p *gParser) params(from, to int) []gParam {
	var out []gParam
	name, def, depth, given := "", "", 0, false
	for n := from; n <= to && n-from < 300; n++ {
		t := p.at(n)
		switch {
		case n == to, t.kind == 'p' && t.text == "," && depth == 0:
			if name != "" {
				out = append(out, gParam{name, def})
			}
			name, def, given = "", "", false
		case t.kind == 'p' && strings.Contains("([<{", t.text):
			depth++
		case t.kind == 'p' && strings.Contains(")]>}", t.text):
			depth--
		case t.kind == 'p' && t.text == "=":
			given = true
		case t.kind == 'i' && !given && depth == 0:
			name = t.text
		case t.kind == 's' && given && depth == 0:
			def = t.text
		}
	}
	return out
}

// assignment reads "[def|Type] name[.name] = value".
func (p *gParser) assignment() ([]*gCall, bool) {
	i, name := 0, ""
	for p.at(i).kind == 'i' && i < 8 {
		name = p.at(i).text
		i++
		for p.at(i).kind == 'p' && p.at(i).text == "." && p.at(i+1).kind == 'i' {
			name += "." + p.at(i+1).text
			i += 2
		}
		if t := p.at(i); t.kind == 'p' && t.text == "[" && p.at(i+1).kind == 's' && p.at(i+2).text == "]" {
			name += "." + p.at(i+1).text
			i += 3
		}
	}
	if name == "" || p.at(i).kind != 'p' || p.at(i).text != "=" || p.at(i+1).kind == 'p' && (p.at(i+1).text == "=" || p.at(i+1).text == "~") {
		return nil, false
	}
	line := p.peek().line
	p.i += i + 1
	p.newlines()
	v := p.expressionOrCommand()
	head := &gCall{name: "=", assign: name, line: line, args: []gArg{{val: v}}}
	return append([]*gCall{head}, v.calls()...), true
}

// calls gives the calls inside of a value.
func (v gValue) calls() []*gCall {
	var out []*gCall
	if v.call != nil {
		out = append(out, v.call)
	}
	for _, part := range v.parts {
		out = append(out, part.calls()...)
	}
	for _, a := range v.list {
		out = append(out, a.val.calls()...)
	}
	return out
}

// closure reads { params -> statements } into a call.
func (p *gParser) closure(c *gCall) {
	p.i++ // {
	// Parameters: identifiers and commas up to an arrow.
	for j := 0; j < 30; j++ {
		t := p.at(j)
		if t.kind == 'p' && t.text == "-" && p.at(j+1).kind == 'p' && p.at(j+1).text == ">" {
			c.params = p.params(0, j)
			p.i += j + 2
			break
		}
		if t.kind != 'i' && t.kind != 'l' && !(t.kind == 'p' && (t.text == "," || t.text == ":" || t.text == "=")) {
			break
		}
	}
	c.body = p.block()
	if p.isPunct("}") {
		p.i++
	}
}

// gSteps are steps that no other object has as a method: classes of a library
// call them by the pipeline that they were given, steps.sh or this.script.withCredentials.
var gSteps = set("sh", "bat", "powershell", "pwsh", "withCredentials", "withEnv", "withVault", "withAWS", "withSecrets", "withAzureKeyvault", "sshagent", "configFileProvider", "configFile", "httpRequest", "emailext", "slackSend",
	"withKubeConfig", "withMaven", "withSonarQubeEnv", "usernamePassword", "usernameColonPassword", "sshUserPrivateKey", "gitUsernamePassword", "publishChecks", "githubNotify", "checkout")

// plainStep cuts the object in front of a step.
func plainStep(name string) (step, of string) {
	at := strings.LastIndexByte(name, '.')
	for _, of := range []string{".docker.withRegistry", ".openshift.withCluster"} {
		if before, ok := strings.CutSuffix(name, of); ok && before[0] >= 'a' && !strings.Contains(before, ".") {
			return of[1:], before
		}
	}
	if at < 1 || !gSteps[name[at+1:]] || name[0] < 'a' && name[0] != '_' || strings.Count(name[:at], ".") > 2 {
		return name, ""
	}
	return name[at+1:], name[:at]
}
