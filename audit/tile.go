package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

// The layout of C2SP tlog-tiles.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	hashSize   = tlog.HashSize

	// maxEntry is what the two bytes before an entry in a bundle can count.
	maxEntry = math.MaxUint16

	entriesLevel = -1 // of a resource that is an entry bundle
)

// resource names what a tiled log serves besides its checkpoint: a tile of
// hashes, or a bundle of entries.
type resource struct {
	level  int // entriesLevel for a bundle
	number int64
	width  int // 1 to 256; less than 256 is written as .p/width
}

const checkpointPath = "checkpoint"

// path spells the resource as tlog-tiles does.
func (r resource) path() string {
	var b strings.Builder
	b.WriteString("tile/")
	if r.level == entriesLevel {
		b.WriteString("entries/")
	} else {
		fmt.Fprintf(&b, "%d/", r.level)
	}
	text := strconv.FormatInt(r.number, 10)
	for len(text)%3 != 0 {
		text = "0" + text
	}
	for ; len(text) > 3; text = text[3:] {
		b.WriteString("x" + text[:3] + "/")
	}
	b.WriteString(text)
	if r.width < tileWidth {
		fmt.Fprintf(&b, ".p/%d", r.width)
	}
	return b.String()
}

// parseResource reads a path back. It takes exactly the spelling that path
// writes, so no path of a request can name anything else.
func parseResource(path string) (resource, bool) {
	r := resource{width: tileWidth}
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > 64 {
		return resource{}, false
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return resource{}, false
	}
	if level == "entries" {
		r.level = entriesLevel
	} else if n, err := strconv.Atoi(level); err == nil && n <= 63 {
		r.level = n
	} else {
		return resource{}, false
	}
	if number, width, partial := strings.Cut(rest, ".p/"); partial {
		n, err := strconv.Atoi(width)
		if err != nil || n < 1 || n >= tileWidth {
			return resource{}, false
		}
		rest, r.width = number, n
	}
	for part := range strings.SplitSeq(rest, "/") {
		n, err := strconv.Atoi(strings.TrimPrefix(part, "x"))
		if err != nil || n < 0 || n > 999 || r.number > math.MaxInt64/tileWidth/1000 {
			return resource{}, false
		}
		r.number = r.number*1000 + int64(n)
	}
	// Signs, missing zeros and misplaced marks don't survive being spelled again.
	return r, r.path() == path
}

// in reports how wide the tile that r is part of is in a tree of the given
// size; 0 if the tree has none.
func (r resource) in(size int64) int {
	if r.level > 0 {
		if r.level*tileHeight > 62 {
			return 0
		}
		size >>= r.level * tileHeight
	}
	start := r.number * tileWidth
	return int(max(0, min(size-start, tileWidth)))
}

// hashesOf splits a tile into its hashes.
func hashesOf(data []byte) []tlog.Hash {
	out := make([]tlog.Hash, len(data)/hashSize)
	for i := range out {
		copy(out[i][:], data[i*hashSize:])
	}
	return out
}

// appendBundled appends an entry with its length before it.
func appendBundled(dst, entry []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(entry)))
	return append(dst, entry...)
}

var errTornBundle = errors.New("a bundle of entries ends within an entry")

// nextEntry splits the first entry off a bundle.
func nextEntry(bundle []byte) (entry, rest []byte, err error) {
	if len(bundle) < 2 {
		return nil, nil, errTornBundle
	}
	n := int(binary.BigEndian.Uint16(bundle))
	if len(bundle)-2 < n {
		return nil, nil, errTornBundle
	}
	return bundle[2 : 2+n], bundle[2+n:], nil
}

// newTiles gives the tiles to write when a log has grown from old to e: those
// of level 0 that are full now, and of each higher level what has changed.
func newTiles(old int64, e *edge) []store.Tile {
	var out []store.Tile
	for n := old / tileWidth; n < e.size/tileWidth; n++ {
		out = append(out, e.tile(0, n, tileWidth))
	}
	for level := 1; level*tileHeight < len(e.levels); level++ {
		before, now := old>>(level*tileHeight), e.size>>(level*tileHeight)
		for n := before / tileWidth; before < now; n++ {
			end := min(now, (n+1)*tileWidth)
			out = append(out, e.tile(level, n, int(end-n*tileWidth)))
			before = end
		}
	}
	return out
}

// tile spells out a tile that lies within the edge.
func (e *edge) tile(level int, number int64, width int) store.Tile {
	w := &e.levels[level*tileHeight]
	data := make([]byte, 0, width*hashSize)
	for i := range int64(width) {
		h := w.at(number*tileWidth + i)
		data = append(data, h[:]...)
	}
	return store.Tile{Level: level, Number: number, Data: data}
}
