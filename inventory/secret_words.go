package inventory

// wordFilter says of most words that a text can't hold them, after one look at
// the text: the secret rules have some four hundred words, and searching a file
// for each was more than reading it. It remembers which groups of three bytes
// stand in the text, whatever their case; a word of which one is missing isn't
// there. It may say "perhaps" of a word that isn't there, never the reverse.
type wordFilter [1 << 10]uint64

// fill notes the groups of a text.
func (w *wordFilter) fill(text string) {
	if len(text) < 3 {
		return
	}
	a, b := fold(text[0]), fold(text[1])
	for i := 2; i < len(text); i++ {
		c := fold(text[i])
		h := group(a, b, c)
		w[h>>6] |= 1 << (h & 63)
		a, b = b, c
	}
}

// perhaps reports whether a word may stand in the text; shorter ones than a group always may.
func (w *wordFilter) perhaps(word string) bool {
	for i := 2; i < len(word); i++ {
		h := group(fold(word[i-2]), fold(word[i-1]), fold(word[i]))
		if w[h>>6]&(1<<(h&63)) == 0 {
			return false
		}
	}
	return true
}

// fold makes letters lower case. That it takes some other bytes for each other only makes the filter say "perhaps".
func fold(c byte) uint32 { return uint32(c | 0x20) }

// group gives the place of three bytes.
func group(a, b, c uint32) uint16 { return uint16((a<<16 | b<<8 | c) * 0x9E3779B1 >> 16) }
