package inventory

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The filter must never hide a word that is there, in any case and at any
// place: it would hide a secret.
func TestTheWordFilterHidesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringN(1, 12, -1).Draw(t, "word")
		text := rapid.StringN(0, 40, -1).Draw(t, "before") + word + rapid.StringN(0, 40, -1).Draw(t, "after")
		for _, text := range []string{text, strings.ToUpper(text), lowerASCII(text)} {
			var words wordFilter
			words.fill(text)
			for _, word := range []string{word, lowerASCII(word)} {
				if strings.Contains(lowerASCII(text), lowerASCII(word)) && !words.perhaps(word) {
					t.Fatalf("%q is hidden in %q", word, text)
				}
			}
		}
	})
	for _, r := range leakRules().list {
		for _, word := range r.Keywords {
			var words wordFilter
			if words.fill("x" + strings.ToUpper(word)); !words.perhaps(word) {
				t.Errorf("%q of %s is hidden", word, r.ID)
			}
		}
	}
}

// It must also be of use: nearly no word of the rules passes on a text that has none of them.
func TestTheWordFilterSparesSearches(t *testing.T) {
	text := strings.Repeat("steps:\n  - run: make build && make test # nothing else\n", 50)
	var words wordFilter
	words.fill(text)
	all, passed := 0, []string{}
	for _, r := range leakRules().list {
		for _, word := range r.Keywords {
			if all++; len(word) > 2 && words.perhaps(word) && !strings.Contains(text, word) {
				passed = append(passed, word)
			}
		}
	}
	slices.Sort(passed)
	if all < 150 || len(passed) > 3 {
		t.Errorf("%d of %d words pass: %q", len(passed), all, passed)
	}
}
