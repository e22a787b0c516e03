package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

// Source is a copy of a log that VerifyLog reads: a store, an exported
// directory, or tiles over HTTP. Nothing that comes from it is believed.
type Source struct {
	// checkpoint reads the newest signed checkpoint, and how many entries the copy
	// claims to have under it, -1 if it doesn't say; fs.ErrNotExist if there is none.
	checkpoint func(ctx context.Context) (note []byte, size int64, err error)
	// tile reads a hash tile; nil if the copy holds none.
	tile func(ctx context.Context, r resource) ([]byte, error)
	// groups reads entries in order, some at a time, beginning with the group that
	// should hold the given index; none if the copy ends before it.
	groups func(ctx context.Context, from, size int64) ([]group, error)
}

// group is some consecutive entries as a copy has them. What it claims of
// itself and what it holds may differ.
type group struct {
	first, size int64  // it claims to hold the indexes first to size-1
	bundle      []byte // its entries, each with its length before it
	note        []byte // the checkpoint that was signed with them, if the copy has it
	damaged     bool   // the bundle can't be read
}

// StoreSource reads a log in its store. It has the checkpoint of each commit,
// so that a verification can name what was altered to within one commit, also
// where the hash tiles were altered to match.
func StoreSource(db *store.DB) Source {
	return Source{
		checkpoint: func(ctx context.Context) ([]byte, int64, error) {
			last, err := db.LastBatch(ctx)
			if err == nil && last.Size == 0 {
				err = fs.ErrNotExist
			}
			return last.Note, last.Size, err
		},
		tile: func(ctx context.Context, r resource) ([]byte, error) {
			return db.TileData(ctx, r.level, r.number)
		},
		groups: func(ctx context.Context, from, size int64) ([]group, error) {
			batches, err := db.Batches(ctx, from, size, readBytes)
			var out []group
			for _, b := range batches {
				out = append(out, group{b.First, b.Size, b.Entries, b.Note, b.Damaged})
			}
			return out, err
		},
	}
}

// DirSource reads a log that Export wrote, or any C2SP tlog-tiles directory.
func DirSource(dir string) Source {
	return pathSource(func(_ context.Context, path string, limit int64) ([]byte, error) {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readAll(f, limit)
	})
}

// HTTPSource reads a log over HTTP, below the given URL; client may be nil.
func HTTPSource(url string, client *http.Client) Source {
	if client == nil {
		client = http.DefaultClient
	}
	return pathSource(func(ctx context.Context, path string, limit int64) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/"+path, nil)
		if err != nil {
			return nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
			return readAll(res.Body, limit)
		case http.StatusNotFound:
			return nil, fs.ErrNotExist
		default:
			return nil, fmt.Errorf("%s answered %s", req.URL.Redacted(), res.Status)
		}
	})
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than the %d bytes that there can be", limit)
	}
	return data, err
}

// maxBundle is what the entries of one tile can have at most.
const maxBundle = tileWidth * (2 + maxEntry)

// pathSource reads a log by the paths of tlog-tiles.
func pathSource(read func(ctx context.Context, path string, limit int64) ([]byte, error)) Source {
	get := func(ctx context.Context, r resource, limit int64) ([]byte, error) {
		data, err := read(ctx, r.path(), limit)
		if errors.Is(err, fs.ErrNotExist) && r.width < tileWidth {
			// A partial resource may have been replaced by the full one, whose
			// beginning it is.
			full := r
			full.width = tileWidth
			data, err = read(ctx, full.path(), limit)
			data = r.clip(data)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s can't be read: %w", r.path(), err)
		}
		return data, nil
	}
	return Source{
		checkpoint: func(ctx context.Context) ([]byte, int64, error) {
			note, err := read(ctx, checkpointPath, maxNote)
			return note, -1, err
		},
		tile: func(ctx context.Context, r resource) ([]byte, error) {
			return get(ctx, r, tileWidth*hashSize)
		},
		groups: func(ctx context.Context, from, size int64) ([]group, error) {
			r := resource{level: entriesLevel, number: from / tileWidth}
			r.width = r.in(size)
			data, err := get(ctx, r, maxBundle)
			if data == nil || err != nil {
				return nil, err
			}
			first := r.number * tileWidth
			return []group{{first: first, size: first + int64(r.width), bundle: data}}, nil
		},
	}
}

// clip cuts what came in place of a narrower resource. What is torn stays torn.
func (r resource) clip(data []byte) []byte {
	if r.level != entriesLevel {
		return data[:min(len(data), r.width*hashSize)]
	}
	rest := data
	for range r.width {
		var err error
		if _, rest, err = nextEntry(rest); err != nil {
			return data
		}
	}
	return data[:len(data)-len(rest)]
}

// read gives the text of one resource of a log's current tree from its store,
// as long as asked for; fs.ErrNotExist for what the tree doesn't have.
func read(ctx context.Context, db *store.DB, r resource, size int64) ([]byte, error) {
	if r.in(size) < r.width {
		return nil, fs.ErrNotExist
	}
	first := r.number * tileWidth
	switch {
	case r.level == entriesLevel:
		var out []byte
		err := eachEntry(ctx, db, first, first+int64(r.width), func(_ int64, entry []byte) error {
			out = appendBundled(out, entry)
			return nil
		})
		return out, err
	case r.level == 0 && r.in(size) < tileWidth: // not stored: see store's schema
		var out []byte
		err := eachEntry(ctx, db, first, first+int64(r.width), func(_ int64, entry []byte) error {
			h := tlog.RecordHash(entry)
			out = append(out, h[:]...)
			return nil
		})
		return out, err
	}
	data, err := db.TileData(ctx, r.level, r.number)
	if err == nil && len(data) < r.width*hashSize {
		err = fmt.Errorf("the hash tile %s is missing or too short", r.path())
	}
	if err != nil {
		return nil, err
	}
	return data[:r.width*hashSize], nil
}
