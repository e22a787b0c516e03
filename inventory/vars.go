package inventory

import "strings"

// varRef is a variable that a text mentions.
type varRef struct {
	name  string
	start int
}

// shellVars finds the variables of a text in the notations of POSIX shells
// ($X, ${X}, ${X:-...}), PowerShell ($env:X) and cmd (%X%). Escaped dollars
// are no variables; positional parameters have no names.
func shellVars(s string) []varRef {
	var out []varRef
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '$':
			if n, end := dollarVar(s, i); n != "" {
				if !isSwitch(s[end:]) {
					out = append(out, varRef{n, i})
				}
				if s[i+1] != '{' {
					i = end - 1
				} else {
					i += 1 + len(n) // the rest may hold further variables: ${A:-$B}
				}
			}
		case '%':
			end := i + 1
			for end < len(s) && isWordByte(s[end]) {
				end++
			}
			if end < len(s) && s[end] == '%' && end-i > 2 && s[i+1] > '9' {
				out = append(out, varRef{s[i+1 : end], i})
				i = end
			}
		}
	}
	return out
}

// isSwitch reports whether what follows the name of a variable is a default
// that shows it to be a switch: ${VERIFY_CERT:-false}.
func isSwitch(rest string) bool {
	for _, op := range []string{":-", "-", ":=", "="} {
		if word, ok := strings.CutPrefix(rest, op); ok {
			word, _, ok = strings.Cut(word, "}")
			return ok && (strings.EqualFold(word, "true") || strings.EqualFold(word, "false"))
		}
	}
	return false
}

// dollarVar reads the variable at s[i] == '$'; end is behind its name or closing brace.
func dollarVar(s string, i int) (name string, end int) {
	j := i + 1
	if j >= len(s) {
		return "", j
	}
	brace := s[j] == '{'
	if brace {
		j++
		if j < len(s) && (s[j] == '!' || s[j] == '#') {
			j++
		}
	}
	if len(s) > j+4 && strings.EqualFold(s[j:j+4], "env:") {
		j += 4
	}
	k := j
	for k < len(s) && isWordByte(s[k]) {
		k++
	}
	if k == j || s[j] >= '0' && s[j] <= '9' {
		return "", k
	}
	if brace {
		if k < len(s) && s[k] == '}' {
			return s[j:k], k + 1
		}
		if k < len(s) && strings.IndexByte(":-+?=#%/^,@[", s[k]) >= 0 {
			return s[j:k], k
		}
		return "", k
	}
	return s[j:k], k
}

// macros finds $(Name) of Azure Pipelines: names with letters, digits, dots, dashes, underscores.
func macros(s string) []varRef {
	var out []varRef
	for from := 0; ; {
		i := strings.Index(s[from:], "$(")
		if i < 0 {
			return out
		}
		i += from
		j := i + 2
		for j < len(s) && (isWordByte(s[j]) || s[j] == '.' || s[j] == '-') {
			j++
		}
		if j < len(s) && s[j] == ')' && j > i+2 {
			out = append(out, varRef{s[i+2 : j], i})
		}
		from = i + 2
	}
}

// between finds the trimmed texts between two marks: "<<" and ">>", "{{" and "}}".
func between(s, open, shut string) []varRef {
	var out []varRef
	for from := 0; ; {
		i := strings.Index(s[from:], open)
		if i < 0 {
			return out
		}
		i += from
		j := strings.Index(s[i+len(open):], shut)
		if j < 0 {
			return out
		}
		out = append(out, varRef{strings.TrimSpace(s[i+len(open) : i+len(open)+j]), i})
		from = i + len(open) + j + len(shut)
	}
}
