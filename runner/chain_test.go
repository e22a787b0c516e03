package runner

import (
	"encoding/binary"
	"testing"
)

// The cache of verified chains is bounded: the oldest goes first.
func TestChainCacheIsBounded(t *testing.T) {
	key := func(n int) (k [32]byte) {
		binary.BigEndian.PutUint64(k[:], uint64(n))
		return k
	}
	var c chainCache
	for i := range maxChains + 10 {
		c.put(key(i), verifiedChain{id: "x"})
		c.put(key(i), verifiedChain{id: "y"}) // known already
	}
	if len(c.known) != maxChains || len(c.ring) != maxChains {
		t.Errorf("%d entries, %d names", len(c.known), len(c.ring))
	}
	if _, ok := c.get(key(9)); ok {
		t.Error("the oldest stayed")
	}
	if v, ok := c.get(key(10)); !ok || v.id != "x" {
		t.Error("a newer one went")
	}
}
