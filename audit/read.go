package audit

import (
	"context"
	"fmt"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

// readBytes is about how much of the log is read at once.
const readBytes = 1 << 20

// eachEntry calls visit for the entries from index from up to, not including,
// to. It reads the log in pieces and keeps one in memory. What is wrong with
// the pieces' order is a *Finding; an error of visit ends the reading.
func eachEntry(ctx context.Context, db *store.DB, from, to int64, visit func(index int64, entry []byte) error) error {
	for next := from; next < to; {
		batches, err := db.Batches(ctx, next, to, readBytes)
		if err != nil {
			return fmt.Errorf("the log can't be read: %w", err)
		}
		if len(batches) == 0 {
			return found(proviso.CodeTruncated, next, "the log ends before this entry")
		}
		for _, b := range batches {
			if next, err = eachOf(b, next, to, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachOf visits the entries of one commit, beginning with index next.
func eachOf(b store.Batch, next, to int64, visit func(index int64, entry []byte) error) (int64, error) {
	if b.First > next {
		return 0, found(proviso.CodeChainGap, next, "the entries %d to %d are missing", next, b.First-1)
	}
	if b.Size <= next {
		return 0, found(proviso.CodeChainDup, b.First, "two commits claim to hold the entries %d to %d", b.First, b.Size-1)
	}
	if b.Damaged {
		return 0, found(proviso.CodeEntryHash, b.First, "the entries %d to %d can't be unpacked: they were altered on the disk", b.First, b.Size-1)
	}
	rest := b.Entries
	for index := b.First; index < b.Size; index++ {
		var entry []byte
		var err error
		if entry, rest, err = nextEntry(rest); err != nil {
			return 0, found(proviso.CodeTornTail, index, "the commit that holds entries %d to %d ends within this one", b.First, b.Size-1)
		}
		if index < next || index >= to {
			continue
		}
		if err := visit(index, entry); err != nil {
			return 0, err
		}
	}
	if len(rest) > 0 {
		return 0, found(proviso.CodeChainDup, b.Size-1, "the commit that holds entries %d to %d holds more than these", b.First, b.Size-1)
	}
	return max(next, b.Size), nil
}

// readEdge reads the right edge of a log of the given size: the hashes of the
// entries behind the last full tile, and the last tile of each higher level.
func readEdge(ctx context.Context, db *store.DB, size int64) (*edge, int64, error) {
	e := &edge{size: size}
	if size == 0 {
		e.seal()
		return e, 0, nil
	}
	start := size / tileWidth * tileWidth
	leaves := make([]tlog.Hash, 0, tileWidth)
	var last []byte
	// From the last entry at least, for the time of its recording.
	err := eachEntry(ctx, db, min(start, size-1), size, func(index int64, entry []byte) error {
		if index >= start {
			leaves = append(leaves, tlog.RecordHash(entry))
		}
		last = append(last[:0], entry...)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	e.load(0, start, leaves)
	for level := 1; size>>(level*tileHeight) > 0; level++ {
		n := size >> (level * tileHeight)
		r := resource{level: level, number: n / tileWidth, width: int(n % tileWidth)}
		var data []byte
		if r.width > 0 {
			if data, err = db.TileData(ctx, level, r.number); err != nil {
				return nil, 0, err
			}
			if len(data) != r.width*hashSize {
				return nil, 0, found(proviso.CodeChainGap, -1, "the hash tile %s is missing or too short", r.path())
			}
		}
		e.load(level*tileHeight, n-int64(r.width), hashesOf(data))
	}
	e.seal()
	v, err := document.Parse(last, entryLimits)
	if err != nil {
		return nil, 0, found(proviso.CodeEntryHash, size-1, "the newest entry is not JSON")
	}
	recorded, _ := v.Get("recorded").Integer()
	return e, recorded, nil
}

// entryLimits are what the JSON of an entry may be at most.
var entryLimits = document.Limits{Bytes: maxEntry, Depth: 64, Members: maxEntry}
