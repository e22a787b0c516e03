package pass

import "time"

func lint(payload []byte, c *Claims, maxTTL time.Duration) error { return nil }

// ValidScope holds one word of a scope to RFC 6749 section 3.3: printable ASCII
// without space, quote and backslash.
func ValidScope(word string) bool {
	for i := 0; i < len(word); i++ {
		if c := word[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return word != ""
}

func validScope(words []string) bool {
	for _, w := range words {
		if !ValidScope(w) {
			return false
		}
	}
	return len(words) > 0
}
