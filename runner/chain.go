package runner

import (
	"sync"
	"time"
)

// verifiedChain is what a certificate chain proved once and for all: the leaf's
// SPIFFE ID, and the time in which every certificate of the chain is valid.
type verifiedChain struct {
	id            string
	from, through time.Time
}

// chainCache remembers which certificate chains a bundle has verified, so that
// a kept-alive connection costs one signature verification in all. Only what
// can't change is remembered: names, key use, signatures. Time is judged on
// every use, and the cache goes with its bundle, so no chain outlives the
// authority that it was verified by.
type chainCache struct {
	mu    sync.Mutex
	known map[[32]byte]verifiedChain
	ring  [][32]byte // the keys of known, oldest at next once it is full
	next  int
}

// maxChains bounds the cache: one entry per live SVID. 8,192 of them are 2 MB.
const maxChains = 8192

func (c *chainCache) get(key [32]byte) (verifiedChain, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.known[key]
	return v, ok
}

func (c *chainCache) put(key [32]byte, v verifiedChain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[[32]byte]verifiedChain{}
	}
	if _, ok := c.known[key]; ok {
		return
	}
	if len(c.ring) < maxChains {
		c.ring = append(c.ring, key)
	} else {
		delete(c.known, c.ring[c.next])
		c.ring[c.next] = key
		c.next = (c.next + 1) % maxChains
	}
	c.known[key] = v
}
