package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Secrets in clear in the pipeline definitions themselves. Three ways: the
// documented forms of secretFormats anywhere in the text, comments too, the
// rules of gitleaks (secret_rules.go), and random-looking literals behind a key
// that says "secret". A value is never
// kept: what leaves this file is its form, its length, its line, and four hex
// digits of its hash, which tell two values apart and are too few to try
// guesses against.

// secretFind is one value in clear, without the value.
type secretFind struct {
	what     string
	line     int
	key      string // the name that it stands behind, when known
	length   int
	mark     string // four hex digits of the SHA-256
	severity Severity
}

// span is where a value stands, so that it is reported once.
type span struct{ from, to int }

// findSecrets looks through one file.
func findSecrets(ci CI, text string) []secretFind {
	var out []secretFind
	var taken []span
	add := func(from, to int, what, key string, sev Severity) {
		for _, t := range taken {
			if from < t.to && to > t.from {
				return
			}
		}
		taken = append(taken, span{from, to})
		sum := sha256.Sum256([]byte(text[from:to]))
		out = append(out, secretFind{what: what, line: 1 + strings.Count(text[:from], "\n"), key: key, length: to - from, mark: hex.EncodeToString(sum[:2]), severity: sev})
	}
	var words wordFilter
	words.fill(text)
	for i := range secretFormats {
		f := &secretFormats[i]
		for _, w := range f.words {
			if words.perhaps(w) {
				f.search(ci, text, w, add)
			}
		}
	}
	findLeaks(ci, text, &words, add)
	for _, v := range secretValues(text) {
		if !encrypted(ci, text, v.from) {
			add(v.from, v.to, "a random value behind a name that says secret", v.key, SeverityMedium)
		}
	}
	slices.SortFunc(out, func(a, b secretFind) int { return a.line - b.line })
	return out
}

// search looks for one format on the lines that hold a word.
func (f *secretFormat) search(ci CI, text, word string, add func(from, to int, what, key string, sev Severity)) {
	for at := 0; at < len(text); {
		i := strings.Index(text[at:], word)
		if i < 0 {
			return
		}
		start, end := lineAround(text, at+i)
		at = end
		if word == "://" && strings.IndexByte(text[start:end], '@') < 0 {
			continue
		}
		for _, m := range f.match.FindAllStringSubmatchIndex(text[start:end], 8) {
			from, to := start+m[0], start+m[1]
			if len(m) > 2 && m[2] >= 0 {
				from, to = start+m[2], start+m[3]
			}
			switch {
			case f.loose && isPlaceholder(text[from:to]), encrypted(ci, text, from),
				word == "://" && localURL(text[start+m[0]:start+m[1]]),
				word == "PRIVATE KEY" && !keyFollows(text[to:]):
				continue
			}
			add(from, to, f.name, "", f.severity)
		}
	}
}

// maxSecretLine bounds how much of a line is searched at once.
const maxSecretLine = 2000

// lineAround gives the line of an offset, or of a very long line the part around it.
func lineAround(text string, at int) (start, end int) {
	start = max(strings.LastIndexByte(text[:at], '\n')+1, at-maxSecretLine)
	end = len(text)
	if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
		end = at + i + 1
	}
	return start, min(end, at+maxSecretLine)
}

// keyFollows reports whether a PEM header is followed by the body of a key: a
// script that tests for the header holds none.
func keyFollows(rest string) bool {
	body := 0
	for _, line := range strings.Split(rest, "\n")[:min(8, strings.Count(rest, "\n")+1)] {
		line = strings.Trim(line, " \t\"'\\n")
		if pemLine.MatchString(line) {
			body++
		}
	}
	return body > 0
}

var pemLine = regexp.MustCompile(`^[A-Za-z0-9+/=]{40,}`)

// isPlaceholder reports whether a value is an example rather than a secret:
// vendors' examples, words such as "example", runs and counts, too little variety.
func isPlaceholder(v string) bool {
	low := strings.ToLower(v)
	for _, w := range []string{"example", "placeholder", "changeme", "change_me", "redacted", "dummy", "your_", "your-", "yourtoken", "xxxx", "0000000", "1111111", "123456789", "abcdefgh", "aaaaaaa", "****", "......", "fake", "password", "passwd", "secret", "_here", "test", "sample", "notreal", "not-real", "deadbeef", "eyjzdwiioiixmjm0nty3odkwi" /* the subject of every manual's JWT */} {
		if strings.Contains(low, w) {
			return true
		}
	}
	return entropy(v) < 2.8
}

// localURL reports whether a URL with a password points to the machine itself or to a service of the job, or holds a variable.
func localURL(url string) bool {
	host := url[strings.LastIndexByte(url, '@')+1:]
	if !strings.Contains(host, ".") || strings.HasPrefix(host, "127.") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".internal") || strings.Contains(host, "example.") || strings.HasSuffix(host, ".test") {
		return true
	}
	pass := url[strings.Index(url, "://")+3 : strings.LastIndexByte(url, '@')]
	_, pass, _ = strings.Cut(pass, ":")
	return strings.ContainsAny(pass, "%") || !strings.ContainsAny(pass, "0123456789")
}

// encrypted reports whether a value at an offset is ciphertext that its
// platform can publish: Travis `secure:`, a Drone secret, the KMS ciphertext of
// Cloud Build, SOPS.
func encrypted(ci CI, text string, at int) bool {
	start := strings.LastIndexByte(text[:at], '\n') + 1
	line := text[start:]
	if i := strings.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	if strings.Contains(line, "secure:") || strings.Contains(line, "ENC[") || strings.Contains(line, "$ANSIBLE_VAULT") {
		return true
	}
	before := text[max(0, start-400):start]
	switch ci {
	case Travis:
		return strings.Contains(before, "secure:") && !strings.Contains(before[strings.LastIndex(before, "secure:"):], "\n\n") && !strings.Contains(line, ": ")
	case Drone:
		return strings.Contains(before, "kind: secret")
	case CloudBuild:
		return strings.Contains(before, "kmsKeyName") || strings.Contains(line, "CiQA")
	}
	return false
}

// entropy gives the Shannon entropy of a text in bits for each character.
func entropy(s string) float64 {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	h := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}

// secretValue is a literal behind a key.
type secretValue struct {
	key      string
	from, to int
}

// secretValues gives the random-looking literals of a text whose key says that
// they are secret: `key: value`, `KEY=value` and `"key": "value"`, one word each.
func secretValues(text string) []secretValue {
	var out []secretValue
	for i := 1; i < len(text) && len(out) < 400; i++ {
		if text[i] != ':' && text[i] != '=' {
			continue
		}
		from, to := literalAfter(text, i+1)
		if to-from < 16 || to-from > 200 || !looksRandom(text[from:to]) {
			continue
		}
		key, at := keyBefore(text, i)
		if key == "value" || key == "default" {
			key = nameAbove(text, at)
		}
		if secretKey(key) && !isPlaceholder(text[from:to]) {
			out = append(out, secretValue{key, from, to})
			i = to
		}
	}
	return out
}

// literalAfter gives the word that begins behind a separator, when it ends as a value ends.
func literalAfter(text string, i int) (from, to int) {
	for i < len(text) && text[i] == ' ' {
		i++
	}
	if i < len(text) && (text[i] == '"' || text[i] == '\'') {
		i++
	}
	from = i
	for i < len(text) && (isWordByte(text[i]) || strings.IndexByte("+/=.~!@#^&-", text[i]) >= 0) {
		i++
	}
	if i < len(text) && strings.IndexByte(" \n\r\t\"',;\\", text[i]) < 0 {
		return from, from
	}
	return from, i
}

// keyBefore gives the name in front of a separator and where it begins.
func keyBefore(text string, i int) (string, int) {
	end := i
	for end > 0 && (text[end-1] == ' ' || text[end-1] == '"' || text[end-1] == '\'') {
		end--
	}
	start := end
	for start > 0 && end-start < 60 && (isWordByte(text[start-1]) || text[start-1] == '.' || text[start-1] == '-') {
		start--
	}
	return strings.TrimLeft(text[start:end], "-."), start
}

// nameAbove gives the `name:` of the line above a `value:`.
func nameAbove(text string, at int) string {
	lines := strings.Split(text[max(0, at-200):at], "\n")
	for i := len(lines) - 2; i >= 0 && i >= len(lines)-3; i-- {
		if _, name, ok := strings.Cut(lines[i], "name:"); ok {
			return strings.Trim(name, " \"'")
		}
	}
	return ""
}

// publicKeys are names of values that look random and are no secret.
var publicKeys = regexp.MustCompile(`(?i)(public|pub_?key|fingerprint|sha\d*|md5|checksum|digest|hash|integrity|commit|cache|client_?id|app_?id|tenant|account|project|subscription|uuid|guid|thumbprint|(^|[_.-])id$|name$|path$|file$|url$|arn$|version|secretname|key_?id|key_?ref|vault|encrypted|ciphertext|kms|search)`)

// secretKey reports whether a key says that its value is a secret, and not the name or the fingerprint of one.
func secretKey(key string) bool {
	if key == "" || !looksSecret(key) || publicKeys.MatchString(key) {
		return false
	}
	// A lone "key" names a step, a cache, an entry of a map.
	tokens := nameTokens(key)
	last := tokens[len(tokens)-1]
	return last != "KEY" || len(tokens) > 1 && keyWords[tokens[len(tokens)-2]]
}

// keyWords make a "key" a secret one.
var keyWords = set("API", "SECRET", "ACCESS", "PRIVATE", "AUTH", "SIGNING", "SIGN", "ENCRYPTION", "LICENSE", "DEPLOY", "SERVICE", "ACCOUNT", "STORAGE", "MASTER", "APP", "APPLICATION", "HMAC")

var (
	uuidForm = regexp.MustCompile(`(?i)^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	hexForm  = regexp.MustCompile(`(?i)^[0-9a-f]{20,}$`)
)

// looksRandom reports whether a literal is more than words: letters and digits
// mixed as no name mixes them, and enough entropy for its length.
func looksRandom(v string) bool {
	if uuidForm.MatchString(v) {
		return true
	}
	if hexForm.MatchString(v) {
		return entropy(v) >= 3.0
	}
	if strings.Contains(v, "/") && strings.Contains(v, ".") || strings.Contains(v, "::") || strings.HasPrefix(v, "refs/") {
		return false // a path, a name of a module
	}
	var lower, upper, digit, changes int
	last := byte(0)
	for i := range len(v) {
		class := byte('-')
		switch c := v[i]; {
		case c >= 'a' && c <= 'z':
			lower++
			class = 'a'
		case c >= 'A' && c <= 'Z':
			upper++
			class = 'A'
		case c >= '0' && c <= '9':
			digit++
			class = '0'
		}
		if class != last {
			changes++
		}
		last = class
	}
	if digit == 0 || lower+upper == 0 {
		return false
	}
	// Words joined by dashes change class rarely; random text at nearly every second place.
	return entropy(v) >= 3.5 && changes*3 >= len(v)
}
