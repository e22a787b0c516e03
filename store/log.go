package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Tx is the one write transaction. It ends with Commit or Rollback.
type Tx struct {
	tx *sql.Tx
}

// Begin starts the write transaction; it waits for the one before to end.
func (db *DB) Begin(ctx context.Context) (*Tx, error) {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	return &Tx{tx}, nil
}

// Commit makes the transaction durable before it returns.
func (t *Tx) Commit() error { return t.tx.Commit() }

// Rollback undoes the transaction; after Commit it does nothing.
func (t *Tx) Rollback() error { return t.tx.Rollback() }

// Claim writes a replay key, and reports false if it is there already.
func (t *Tx) Claim(key [32]byte, expires time.Time) (bool, error) {
	res, err := t.tx.Exec("INSERT INTO replay (key, expires) VALUES (?, ?) ON CONFLICT DO NOTHING", key[:], expires.Unix())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// PutEntry appends an entry of the log.
func (t *Tx) PutEntry(idx int64, body []byte) error {
	_, err := t.tx.Exec("INSERT INTO entry (idx, body) VALUES (?, ?)", idx, body)
	return err
}

// PutTile writes a hash tile over its shorter self.
func (t *Tx) PutTile(level int, n int64, data []byte) error {
	_, err := t.tx.Exec("INSERT INTO tile (level, n, data) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data", level, n, data)
	return err
}

// PutCheckpoint replaces the checkpoint.
func (t *Tx) PutCheckpoint(size int64, note []byte) error {
	_, err := t.tx.Exec("INSERT INTO checkpoint (id, size, note) VALUES (1, ?, ?) ON CONFLICT DO UPDATE SET size = excluded.size, note = excluded.note", size, note)
	return err
}

// Checkpoint reads the newest checkpoint; a log that was never written has none.
func (db *DB) Checkpoint(ctx context.Context) (size int64, note []byte, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT size, note FROM checkpoint WHERE id = 1").Scan(&size, &note)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	return size, note, err
}

// Tile reads a hash tile as long as it is now.
func (db *DB) Tile(ctx context.Context, level int, n int64) ([]byte, error) {
	var data []byte
	err := db.read.QueryRowContext(ctx, "SELECT data FROM tile WHERE level = ? AND n = ?", level, n).Scan(&data)
	if err != nil {
		return nil, fmt.Errorf("tile %d/%d: %w", level, n, err)
	}
	return data, nil
}
