package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/proviso-ci/proviso/store"
)

// Export writes the log as a directory of C2SP tlog-tiles: what DirSource
// reads, and any web server can serve. A second export into the same directory
// adds what is new. The checkpoint comes last, so that the directory is a whole
// log at any time. It returns the number of entries.
func Export(ctx context.Context, db *store.DB, dir string) (int64, error) {
	last, err := db.LastBatch(ctx)
	if err != nil {
		return 0, fmt.Errorf("the log can't be read: %w", err)
	}
	if last.Size == 0 {
		return 0, errors.New("the log has no entry yet: there is nothing to export")
	}
	for _, level := range levelsOf(last.Size) {
		for r := (resource{level: level}); ; r.number++ {
			if r.width = r.in(last.Size); r.width == 0 {
				break
			}
			if err := exportOne(ctx, db, dir, r, last.Size); err != nil {
				return 0, err
			}
		}
	}
	if err := writeDurably(filepath.Join(dir, checkpointPath), last.Note, 0o600); err != nil {
		return 0, fmt.Errorf("the export failed: %w", err)
	}
	return last.Size, nil
}

// levelsOf lists the levels of a log's resources, bundles first.
func levelsOf(size int64) []int {
	levels := []int{entriesLevel, 0}
	for l := 1; size>>(l*tileHeight) > 0; l++ {
		levels = append(levels, l)
	}
	return levels
}

func exportOne(ctx context.Context, db *store.DB, dir string, r resource, size int64) error {
	path := filepath.Join(dir, filepath.FromSlash(r.path()))
	if _, err := os.Lstat(path); err == nil {
		return nil // what it says can't have changed
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the export failed: %w", err)
	}
	data, err := read(ctx, db, r, size)
	if err != nil {
		return fmt.Errorf("the export failed: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("the export failed: %w", err)
	}
	if err := writeDurably(path, data, 0o600); err != nil {
		return fmt.Errorf("the export failed: %w", err)
	}
	return nil
}
