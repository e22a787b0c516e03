package plan

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names come from pipelines that anybody may have written. Each language that
// is generated has one function here, and nothing reaches a file except
// through it.

// oneLine makes a text safe to stand in prose and behind a comment sign: no
// control character, no line break of any alphabet, no direction mark, and not
// endless.
func oneLine(s string) string { return bounded(s, 200) }

// bounded is oneLine for texts of another length.
func bounded(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteRune('…')
			break
		}
		switch {
		case r == utf8.RuneError, unicode.IsControl(r), r == '\u2028', r == '\u2029', unicode.Is(unicode.Cf, r):
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quoted gives a JSON string: valid in YAML's double quotes, in Rego and in JSON.
func quoted(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(strings.ToValidUTF8(s, "?")) // a string can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// hcl gives a string of Terraform: a template marker in it stays text.
func hcl(s string) string {
	q := quoted(s)
	q = strings.ReplaceAll(q, "${", "$${")
	return strings.ReplaceAll(q, "%{", "%%{")
}

// sh gives a word of a POSIX shell.
func sh(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if r == 0 {
			return -1
		}
		return r
	}, s)
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=-]+$`)

// code gives a text between backticks for Markdown.
func code(s string) string {
	return "`" + strings.ReplaceAll(oneLine(s), "`", "'") + "`"
}

// prose gives a text for Markdown outside of backticks: nothing in it is markup.
func prose(s string) string {
	s = markup.ReplaceAllString(oneLine(s), `\$0`)
	return underscore.ReplaceAllString(s, `$1\_$2`) // those inside of a word are no markup
}

var (
	markup     = regexp.MustCompile("[\\\\`*{}\\[\\]<>#|~]")
	underscore = regexp.MustCompile(`(^|[^A-Za-z0-9])_|_($|[^A-Za-z0-9])`)
)

// slug makes a name of letters, digits and dashes, for files, grants and roles.
func slug(s string) string {
	s = strings.Trim(notSlug.ReplaceAllString(strings.ToLower(s), "-"), "-")
	if len(s) > 48 {
		s = strings.Trim(s[:48], "-")
	}
	return s
}

// snake makes a name of letters, digits and underscores that begins with a letter.
func snake(s string) string {
	s = strings.ReplaceAll(slug(s), "-", "_")
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		s = "x" + s
	}
	return s
}

// upper makes a name of a variable in a shell or in a platform's settings.
func upper(s string) string { return strings.ToUpper(snake(s)) }

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// variableName is what every platform takes as the name of a secret.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,99}$`)

// controllerID is what ids of credentials on Jenkins usually are.
var controllerID = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_ ./@:-]{0,99}$`)

// credentialID is what variables of Azure Pipelines and secrets of Kubernetes usually are.
var credentialID = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)

// repositoryName is "owner/name" or "group/subgroup/project".
var repositoryName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
