package inventory

import (
	"maps"
	"strings"
)

// Scripts inside of commands: bash -c '...', ssh host '...', and what a shell reads as a here-document.

// writtenScript gives the script that a command writes to a file, and whether it
// runs it nowhere to be seen.
func (r *scriptReader) writtenScript(c *command) (text string, elsewhere bool) {
	file := c.to
	switch c.name() {
	case "cat":
	case "tee":
		file = c.arg(len(c.words) - 1)
	default:
		return "", false
	}
	if !strings.HasSuffix(file, ".sh") && !strings.HasSuffix(file, ".bash") || !strings.Contains(c.stdin, "\n") {
		return "", false
	}
	return unescaped(c.stdin), strings.Count(r.script, file[strings.LastIndexByte(file, '/')+1:]) < 2
}

// nested reads the script that a command hands to another shell. What that one
// sets stays there. On another machine, and in a container, another identity acts.
func (r *scriptReader) nested(c *command) {
	text, below, elsewhere := innerScript(c)
	if text == "" {
		text, elsewhere = r.writtenScript(c)
		below = c.line + 1
	}
	if !strings.ContainsAny(text, "$%") && elsewhere || !strings.Contains(text, " ") || r.depth > 3 {
		return
	}
	r.depth++
	alias, sets, actors, exchanges, fetched := maps.Clone(r.alias), r.facts.sets, len(r.facts.actors), len(r.facts.exchanges), len(r.facts.fetched)
	r.facts.sets = nil
	for _, sub := range parseShell(text) {
		sub.line += below
		for i := range sub.lines {
			sub.lines[i] += below
		}
		for i := range sub.assigns {
			sub.assigns[i].line += below
		}
		r.command(sub)
	}
	r.alias, r.facts.sets = alias, sets
	if elsewhere {
		r.facts.actors, r.facts.exchanges, r.facts.fetched = r.facts.actors[:actors], r.facts.exchanges[:exchanges], r.facts.fetched[:fetched]
	}
	r.depth--
}

// innerScript gives the script, the line above it, and whether it runs elsewhere.
func innerScript(c *command) (text string, below int, elsewhere bool) {
	name := c.name()
	switch name {
	case "bash", "sh", "zsh", "dash", "ash", "ksh", "sg", "su", "pwsh", "powershell":
	case "ssh", "docker", "podman", "kubectl", "oc", "docker-compose":
		elsewhere = true
	default:
		return "", 0, false
	}
	shell := !elsewhere
	for i, w := range c.words {
		switch {
		case shell && (w == "-Command" || len(w) > 1 && len(w) < 6 && w[0] == '-' && w[1] != '-' && strings.HasSuffix(w, "c")):
			return unescaped(c.arg(i + 1)), c.wordLine(i + 1), elsewhere
		case w == "bash" || w == "sh" || strings.HasSuffix(w, "/bash") || strings.HasSuffix(w, "/sh"):
			shell = true
		case name == "ssh" && i > 1 && i == len(c.words)-1 && c.stdin == "":
			return unescaped(w), c.wordLine(i), true
		}
	}
	if strings.Contains(c.stdin, "\n") && (name == "ssh" || !elsewhere) {
		return unescaped(c.stdin), c.line + 1, elsewhere
	}
	return "", 0, false
}

// unescaped gives a script as the inner shell sees it.
func unescaped(s string) string { return strings.ReplaceAll(s, `\$`, "$") }
