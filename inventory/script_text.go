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
