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

// isFileName reports whether the variable that begins at word[i] names a file: it
// follows a slash of a path on this machine. What follows a host may be a secret.
func isFileName(word string, i int) bool {
	if i < 1 || word[i-1] != '/' || strings.HasSuffix(word[:i], "//") {
		return false
	}
	before := word[:i]
	if j := strings.LastIndexAny(before, "=:"); j >= 0 && !strings.Contains(before, "://") {
		before = before[j+1:]
	}
	if strings.ContainsAny(before, "$@ ?") || strings.Contains(before, "://") {
		return false
	}
	first, _, _ := strings.Cut(before, "/")
	return first == "" || first == "." || first == ".." || first == "~" || !strings.Contains(first, ".")
}

// fileNames gives the variables of a word that only name a file in it.
func fileNames(c *command, word string) map[string]bool {
	switch c.name() {
	case "sed", "gsed", "perl", "awk", "gawk":
		return nil // s/this/$THAT/
	}
	var out map[string]bool
	for _, v := range shellVars(word) {
		file := isFileName(word, v.start)
		if out == nil && file {
			out = make(map[string]bool)
		}
		if before, seen := out[v.name]; out != nil {
			out[v.name] = file && (before || !seen)
		}
	}
	return out
}
