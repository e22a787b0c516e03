package audit

import (
	"encoding/binary"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// reference is a tree that keeps everything, as package tlog stores it.
type reference []tlog.Hash

func (r *reference) add(t testing.TB, n int64, h tlog.Hash) {
	t.Helper()
	hashes, err := tlog.StoredHashesForRecordHash(n, h, r)
	if err != nil {
		t.Fatal(err)
	}
	*r = append(*r, hashes...)
}

func (r *reference) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = (*r)[x]
	}
	return out, nil
}

func leaf(n int64) tlog.Hash {
	return tlog.RecordHash(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// The edge gives the roots, audit paths and tiles that package tlog computes
// from the whole tree, whatever the sizes of the batches.
func TestEdgeIsTheTree(t *testing.T) {
	var all reference
	e := &edge{}
	sizes := []int64{1, 1, 2, 3, 57, 1, 191, 256, 255, 1, 256, 256, 256, 7}
	for i := range 300 {
		sizes = append(sizes, int64(1+i*37%256))
	}
	tiles := map[[2]int64][]byte{}
	for _, batch := range sizes {
		old := e
		e = old.clone()
		for range batch {
			all.add(t, e.size, leaf(e.size))
			e.add(leaf(e.size))
		}
		e.seal()
		want, err := tlog.TreeHash(e.size, &all)
		if err != nil || e.root() != want {
			t.Fatalf("at size %d the root is %v, want %v (%v)", e.size, e.root(), want, err)
		}
		for index := old.size; index < e.size; index += 1 + batch/8 {
			path, err := tlog.ProveRecord(e.size, index, &all)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.path(index); len(got) != len(path) {
				t.Fatalf("path of %d in %d has %d hashes, want %d", index, e.size, len(got), len(path))
			}
			if err := tlog.CheckRecord(e.path(index), e.size, want, index, leaf(index)); err != nil {
				t.Fatalf("path of %d in %d: %v", index, e.size, err)
			}
		}
		for _, tile := range newTiles(old.size, e) {
			tiles[[2]int64{int64(tile.Level), tile.Number}] = tile.Data
		}
	}
	for at, data := range tiles {
		want, err := tlog.ReadTileData(tlog.Tile{H: tileHeight, L: int(at[0]), N: at[1], W: len(data) / hashSize}, &all)
		if err != nil || string(want) != string(data) {
			t.Errorf("tile %v differs from tlog's (%v)", at, err)
		}
	}
	if e.size < 1<<15 || len(tiles) < 1<<7 {
		t.Fatalf("only %d entries and %d tiles were looked at", e.size, len(tiles))
	}
}

// An old copy of an edge stays what it was, also when batches that were begun
// on top of it were thrown away.
func TestEdgeCopiesDontChange(t *testing.T) {
	e := &edge{}
	for range 700 {
		e.add(leaf(e.size))
	}
	e.seal()
	root, path := e.root(), e.path(699)
	for range 5 {
		lost := e.clone()
		for i := range int64(256) {
			lost.add(leaf(-i))
		}
		lost.seal()
	}
	next := e.clone()
	for range 256 {
		next.add(leaf(next.size))
	}
	next.seal()
	if e.root() != root || tlog.CheckRecord(path, 700, root, 699, leaf(699)) != nil || tlog.CheckRecord(e.path(699), 700, root, 699, leaf(699)) != nil {
		t.Error("the edge has changed under its copies")
	}
	if err := tlog.CheckRecord(next.path(955), 956, next.root(), 955, leaf(955)); err != nil {
		t.Error(err)
	}
}
