package pass

import "time"

func lint(payload []byte, c *Claims, maxTTL time.Duration) error { return nil }

// validScope holds each word to RFC 6749 section 3.3: printable ASCII without
// quote and backslash.
func validScope(words []string) bool {
	for _, w := range words {
		if w == "" {
			return false
		}
		for i := 0; i < len(w); i++ {
			if c := w[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '\\' {
				return false
			}
		}
	}
	return len(words) > 0
}
