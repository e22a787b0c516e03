package policy

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso"
)

// Text gives reasons as people read them, in a terminal or a job's log: the
// conditions of one way to be allowed together, the nearest way first, each
// with its place in the policy.
//
//	branch is release/1.2, policy wants main               production.rego:6
//	time is 18:40, policy wants at most 17:00              production.rego:10
func Text(reasons []proviso.Reason) string {
	var b strings.Builder
	last := ""
	width := 0
	for _, r := range reasons {
		width = max(width, min(len([]rune(r.Message)), 76))
	}
	for i, r := range reasons {
		if way := wayOf(r.Rule); way != last {
			if strings.Contains(way, "(way ") {
				if i > 0 {
					b.WriteByte('\n')
				}
				fmt.Fprintf(&b, "%s:\n", heading(way))
			}
			last = way
		}
		fmt.Fprintf(&b, "  %-*s", width, clean(r.Message, 600))
		if r.File != "" {
			fmt.Fprintf(&b, "  %s:%d", r.File, r.Line)
		}
		if chain, _, nested := cutLast(r.Rule, " <- "); nested {
			fmt.Fprintf(&b, " (%s)", chain)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// heading turns `allow "hotfix" (way 2 of 3)` into words.
func heading(way string) string {
	rule, n, _ := strings.Cut(way, " (way ")
	n = strings.TrimSuffix(n, ")")
	text := "way " + n + " to be allowed"
	if _, title, ok := strings.Cut(rule, " "); ok {
		text += ", " + title
	}
	return text
}

// wayOf is the last part of a rule's chain: the way to be allowed.
func wayOf(rule string) string {
	if _, last, ok := cutLast(rule, " <- "); ok {
		return last
	}
	return rule
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
