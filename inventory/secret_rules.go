package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
	leaks "github.com/zricethezav/gitleaks/v8/config"
)

// The rules of gitleaks, which know the credentials of some two hundred
// vendors, come as data: its package config holds them as one text. Only that
// text is used, and an engine of our own, because its detector would bring
// readers of archives and a file watcher into a broker, and because a pipeline
// definition is judged with what is known of it: ciphertext of the platform,
// variables, examples. docs/decisions has the numbers.

// leakRule is one rule of gitleaks.
type leakRule struct {
	ID          string       `toml:"id"`
	Regex       string       `toml:"regex"`
	Entropy     float64      `toml:"entropy"`
	SecretGroup int          `toml:"secretGroup"`
	Path        string       `toml:"path"`
	Keywords    []string     `toml:"keywords"`
	Allowlists  []*leakAllow `toml:"allowlists"`

	once  sync.Once
	match *regexp.Regexp // compiled when a keyword is met for the first time
}

// leakAllow says what is no secret although a rule matches it.
type leakAllow struct {
	Regexes   []string `toml:"regexes"`
	Target    string   `toml:"regexTarget"` // "" is the secret, else "match" or "line"
	Stopwords []string `toml:"stopwords"`
	Paths     []string `toml:"paths"`
	Condition string   `toml:"condition"`

	once  sync.Once
	match []*regexp.Regexp
}

// ownForms are rules that this package has in a better form for pipelines.
var ownForms = set("generic-api-key", "private-key", "jwt", "hashicorp-tf-password", "kubernetes-secret-yaml", "nuget-config-password")

// publicForm reports whether a rule is about an identifier, which may be public.
func publicForm(id string) bool {
	for _, end := range []string{"-client-id", "-access-id", "-user-api-id", "-public-key", "-pub-key", "-pub-api-key"} {
		if strings.HasSuffix(id, end) {
			return true
		}
	}
	return false
}

// leakRules reads the rules once; the text is part of the program, so what is wrong with it is a defect of the build.
var leakRules = sync.OnceValue(func() (rules struct {
	list  []*leakRule
	allow *leakAllow
}) {
	var doc struct {
		Allow leakAllow   `toml:"allowlist"`
		Rules []*leakRule `toml:"rules"`
	}
	if err := toml.Unmarshal([]byte(leaks.DefaultConfig), &doc); err != nil {
		panic(fmt.Sprintf("inventory: the rules of gitleaks can't be read: %v", err))
	}
	rules.allow = &doc.Allow
	for _, r := range doc.Rules {
		if r.Regex != "" && r.Path == "" && len(r.Keywords) > 0 && !ownForms[r.ID] && !publicForm(r.ID) {
			rules.list = append(rules.list, r)
		}
	}
	return rules
})

// loose reports whether a rule guesses by the name in front of a value, rather
// than by a form that only such values have.
func (r *leakRule) loose() bool { return strings.HasPrefix(r.Regex, `(?i)[\w.-]{0,50}?`) }

func (r *leakRule) compiled() *regexp.Regexp {
	r.once.Do(func() { r.match = regexp.MustCompile(r.Regex) })
	return r.match
}

// leakLines is how many lines a rule looks at: some forms have the name on one and the value on the next.
const leakLines = 2

// findLeaks applies the rules to the lines that hold one of their words.
func findLeaks(ci CI, text string, words *wordFilter, add func(from, to int, what, key string, sev Severity)) {
	rules := leakRules()
	low := ""
	for _, r := range rules.list {
		for _, word := range r.Keywords {
			if !words.perhaps(word) {
				continue
			}
			if low == "" {
				low = lowerASCII(text)
			}
			for at := 0; at < len(low); {
				i := strings.Index(low[at:], word)
				if i < 0 {
					break
				}
				start, end := lineAround(text, at+i)
				at = end
				for range leakLines - 1 {
					if n := strings.IndexByte(text[end:min(len(text), end+maxSecretLine)], '\n'); n >= 0 {
						end += n + 1
					}
				}
				r.search(ci, text, start, end, rules.allow, add)
			}
		}
	}
}

// search looks for the rule in a part of the text.
func (r *leakRule) search(ci CI, text string, start, end int, global *leakAllow, add func(from, to int, what, key string, sev Severity)) {
	for _, m := range r.compiled().FindAllStringSubmatchIndex(text[start:end], 8) {
		from, to := r.secret(m)
		if from < 0 || to <= from {
			continue
		}
		secret, match := text[start+from:start+to], text[start+m[0]:start+m[1]]
		first, last := lineAround(text, start+from)
		line := text[first:last]
		switch {
		case r.Entropy > 0 && entropy(secret) <= r.Entropy,
			isPlaceholder(secret), isVariable(secret), encrypted(ci, text, start+from),
			r.loose() && !looksRandom(secret),
			global.allows(secret, match, line), r.allowed(secret, match, line):
			continue
		}
		sev := SeverityHigh
		if r.loose() || strings.HasPrefix(r.ID, "curl-") {
			sev = SeverityMedium
		}
		add(start+from, start+to, "a value of the form "+r.ID, "", sev)
	}
}

// secret gives where the value itself is in a match: the named group, else the first that took part, else all of it.
func (r *leakRule) secret(m []int) (from, to int) {
	if g := 2 * r.SecretGroup; g > 0 && g+1 < len(m) {
		return m[g], m[g+1]
	}
	for g := 2; g+1 < len(m); g += 2 {
		if m[g] >= 0 && m[g+1] > m[g] {
			return m[g], m[g+1]
		}
	}
	return m[0], m[1]
}

func (r *leakRule) allowed(secret, match, line string) bool {
	for i := range r.Allowlists {
		if r.Allowlists[i].allows(secret, match, line) {
			return true
		}
	}
	return false
}

// allows reports whether the list names the value. Lists that are about paths
// say nothing here: a pipeline definition is none of the files they mean.
func (a *leakAllow) allows(secret, match, line string) bool {
	if a.Condition == "AND" && len(a.Paths) > 0 {
		return false
	}
	a.once.Do(func() {
		for _, r := range a.Regexes {
			a.match = append(a.match, regexp.MustCompile(r))
		}
	})
	target := secret
	switch a.Target {
	case "match":
		target = match
	case "line":
		target = line
	}
	low := strings.ToLower(secret)
	return slices.ContainsFunc(a.match, func(r *regexp.Regexp) bool { return r.MatchString(target) }) ||
		slices.ContainsFunc(a.Stopwords, func(w string) bool { return strings.Contains(low, strings.ToLower(w)) })
}

// isVariable reports whether a value is put in at run time, whatever the system calls it.
func isVariable(v string) bool {
	return strings.Contains(v, "${") || strings.Contains(v, "$(") || strings.Contains(v, "{{") || strings.Contains(v, "<<") || strings.HasPrefix(v, "$") || strings.Contains(v, ":$")
}

// lowerASCII lowers letters without changing any offset, as strings.ToLower may.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
