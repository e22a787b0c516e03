package inventory

import (
	"regexp"
	"strings"
)

// What a script says of hosts. A command that talks to "$API/releases" says
// where only together with API="https://$HOST/api" and HOST=${X:-git.example.com}
// above it, or with an environment that sets them to a literal.

// plainHost matches a text that is a host, with or without a port and a path.
var plainHost = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?(/[\w./-]*)?$`)

// defaulted matches a variable with a default.
var defaulted = regexp.MustCompile(`\$\{(\w+):?-([\w.:/-]+)\}`)

// addressText gives the text of a value that is an address, with what is known put in; "" when it is none.
func (r *scriptReader) addressText(raw string) string {
	text := strings.Trim(strings.TrimSpace(raw), `"'`)
	if len(text) > 300 || strings.ContainsAny(text, "`\n ") || strings.Contains(text, "$(") {
		return ""
	}
	text = defaulted.ReplaceAllStringFunc(text, func(m string) string {
		g := defaulted.FindStringSubmatch(m)
		return firstOf(r.text[g[1]], g[2])
	})
	text = r.withAddresses(text)
	host, _, _ := strings.Cut(text, "/")
	if _, ok := platformHost(host); ok || strings.Contains(text, "://") || plainHost.MatchString(text) {
		return text
	}
	return ""
}

// addressHole matches a variable where an address begins: at the start of a word, behind @ and behind ://.
var addressHole = regexp.MustCompile(`(^|@|://)(\$\{(\w+)\}|\$(\w+))`)

// withAddresses puts the addresses that variables hold into a word.
func (r *scriptReader) withAddresses(word string) string {
	if len(r.text) == 0 || !strings.Contains(word, "$") {
		return word
	}
	return addressHole.ReplaceAllStringFunc(word, func(m string) string {
		g := addressHole.FindStringSubmatch(m)
		text := r.text[firstOf(g[3], g[4])]
		if text == "" || g[1] != "" && strings.Contains(text, "://") {
			return m
		}
		return g[1] + text
	})
}

// plainWord matches what names of secrets are written with.
var plainWord = regexp.MustCompile(`^[\w./+=@:-]{2,300}$`)

// plainText gives the text of a value that is a single word without variables; "" for any other.
func plainText(raw string) string {
	text := strings.Trim(strings.TrimSpace(raw), `"'`)
	if plainWord.MatchString(text) {
		return text
	}
	return ""
}

// withPlain puts the words that variables hold into the name of a secret: ID=prod/db; aws ... --secret-id "$ID".
func (r *scriptReader) withPlain(name string) string {
	if !strings.Contains(name, "$") {
		return name
	}
	vars := shellVars(name)
	for i := len(vars) - 1; i >= 0; i-- {
		v := vars[i]
		_, end := dollarVar(name, v.start)
		if whole := strings.HasPrefix(name[v.start:], "${") == (name[end-1] == '}'); whole && r.plain[v.name] != "" {
			name = name[:v.start] + r.plain[v.name] + name[end:]
		}
	}
	return name
}
