package audit

import (
	"bytes"
	"encoding/base64"
	"math/bits"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// edge is the right edge of the tree: of each level, the newest hashes of full
// subtrees. It is all that the writer needs to append, to fill tiles, and to
// prove what it has just appended, so none of the three reads anything.
//
// Hashes are only ever added behind what is there, so a copy of an edge stays
// what it was while the original grows. That is how a failed commit is undone
// (the writer goes on from the copy), and how proofs are made while the next
// batch is under way.
type edge struct {
	size   int64
	levels []window // levels[l]: subtrees of 2^l entries
	// spine[l] is the hash of the rightmost subtree of level l, from the lowest
	// level on where that subtree isn't full. It is there after seal; its last is
	// the root.
	spine []tlog.Hash
}

// window is a stretch of one level: hashes number base, base+1, ...
type window struct {
	base  int64
	nodes []tlog.Hash
}

// A window keeps between keep and 2*keep hashes once there are as many. It has
// to reach back over the batch to be proved and over the tile to be filled.
const keep = tileWidth + maxBatch

func (w *window) push(h tlog.Hash) {
	if len(w.nodes) == 2*keep {
		// A new array: copies of the edge still read the old one.
		w.base += keep
		w.nodes = append(make([]tlog.Hash, 0, 2*keep), w.nodes[keep:]...)
	}
	w.nodes = append(w.nodes, h)
}

func (w *window) end() int64 { return w.base + int64(len(w.nodes)) }

func (w *window) at(n int64) tlog.Hash { return w.nodes[n-w.base] }

// clone gives an edge to go on with while e stays as it is.
func (e *edge) clone() *edge {
	return &edge{size: e.size, levels: append(make([]window, 0, len(e.levels)+2), e.levels...)}
}

// add appends the hash of an entry.
func (e *edge) add(h tlog.Hash) {
	e.size++
	for l := 0; ; l++ {
		if l == len(e.levels) {
			e.levels = append(e.levels, window{})
		}
		w := &e.levels[l]
		w.push(h)
		if w.end()%2 == 1 {
			return
		}
		h = tlog.NodeHash(w.at(w.end()-2), h)
	}
}

// load sets level (a multiple of 8) to what its rightmost tile holds, and with
// it the levels up to the next tile. Lower tiles are loaded before higher ones.
func (e *edge) load(level int, base int64, hashes []tlog.Hash) {
	for l := level; l < level+tileHeight; l++ {
		for len(e.levels) <= l {
			e.levels = append(e.levels, window{})
		}
		e.levels[l] = window{base: base, nodes: hashes}
		above := make([]tlog.Hash, 0, len(hashes)/2)
		for i := 0; i+1 < len(hashes); i += 2 {
			above = append(above, tlog.NodeHash(hashes[i], hashes[i+1]))
		}
		base, hashes = base/2, above
	}
}

// seal computes the spine, and with it the root. An edge is sealed once, when
// its last entry was added.
func (e *edge) seal() {
	if e.size == 0 {
		return
	}
	full := bits.TrailingZeros64(uint64(e.size)) // up to this level the spine is of full subtrees
	last := (e.size - 1) >> full
	h := e.levels[full].at(last)
	e.spine = append(make([]tlog.Hash, full, len(e.levels)+1), h)
	for l := full; last > 0; l, last = l+1, last/2 {
		if last%2 == 1 {
			h = tlog.NodeHash(e.levels[l].at(last-1), h)
		}
		e.spine = append(e.spine, h)
	}
}

// root is the tree's hash (RFC 6962 section 2.1); e is sealed.
func (e *edge) root() tlog.Hash {
	if e.size == 0 {
		h, _ := tlog.TreeHash(0, nil)
		return h
	}
	return e.spine[len(e.spine)-1]
}

// path gives the audit path (RFC 6962 section 2.1.1) of one of the newest
// entries, from its sibling upwards; e is sealed.
func (e *edge) path(index int64) []tlog.Hash {
	out := make([]tlog.Hash, 0, len(e.spine))
	for l, last := 0, e.size-1; last > 0; l, last = l+1, last/2 {
		switch sibling := index ^ 1; {
		case (sibling+1)<<l <= e.size:
			out = append(out, e.levels[l].at(sibling))
		case sibling == last:
			out = append(out, e.spine[l])
		}
		index /= 2
	}
	return out
}

const proofHeader = "c2sp.org/tlog-proof@v1"

// appendProof appends a C2SP tlog-proof of an entry with the given audit path in
// the tree of the checkpoint. The lines end with newline, which is "\n", or its
// escape where the proof is written into a JSON string: nothing else in a proof
// needs one.
func appendProof(dst []byte, index int64, path []tlog.Hash, checkpoint []byte, newline string) []byte {
	dst = append(dst, proofHeader...)
	dst = append(dst, newline...)
	dst = append(dst, "index "...)
	dst = strconv.AppendInt(dst, index, 10)
	dst = append(dst, newline...)
	for i := range path {
		dst = base64.StdEncoding.AppendEncode(dst, path[i][:])
		dst = append(dst, newline...)
	}
	dst = append(dst, newline...)
	for line := range bytes.SplitAfterSeq(checkpoint, []byte("\n")) {
		if n := len(line); n > 0 && line[n-1] == '\n' {
			dst = append(append(dst, line[:n-1]...), newline...)
		} else {
			dst = append(dst, line...)
		}
	}
	return dst
}
