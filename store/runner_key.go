package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// MaxRunnerKeys bounds the machines whose keys are remembered. The oldest make
// place for new ones: a machine that is forgotten is refused until it is
// launched again, never believed with another key.
const MaxRunnerKeys = 1 << 20

// RunnerKey is the key that a machine came with.
type RunnerKey struct {
	Key [32]byte
	// Opened is since when the next key that the machine comes with counts in the
	// place of this one, because an operator has said so; zero else.
	Opened time.Time
}

// RunnerKey gives the key that a machine came with first, if it ever did.
func (db *DB) RunnerKey(ctx context.Context, machine [32]byte) (k RunnerKey, known bool, err error) {
	var b []byte
	var opened sql.NullInt64
	err = db.read.QueryRowContext(ctx, "SELECT key, opened FROM runner_key WHERE machine = ?", machine[:]).Scan(&b, &opened)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return k, false, nil
	case err != nil:
		return k, false, fmt.Errorf("a machine's key can't be read: %w", err)
	case len(b) != len(k.Key):
		return k, false, errors.New("a machine's key in the store is damaged")
	}
	if k.Key = [32]byte(b); opened.Valid {
		k.Opened = time.Unix(opened.Int64, 0)
	}
	return k, true, nil
}

// BindRunnerKey gives a machine its key, durably, and returns the one that it
// has: of two that come at the same time, the first counts. name is what an
// operator calls the machine, ENTRY/ID.
func (db *DB) BindRunnerKey(ctx context.Context, machine, key [32]byte, name string, now time.Time) ([32]byte, error) {
	t, err := db.Begin()
	if err != nil {
		return [32]byte{}, err
	}
	defer t.Rollback()
	ctx = context.WithoutCancel(ctx) // a transaction is ended, not abandoned
	for _, s := range []struct {
		text string
		args []any
	}{
		{`INSERT INTO runner_key (machine, key, first, name) VALUES (?, ?, ?, ?) ON CONFLICT (machine) DO UPDATE SET
			key = excluded.key, first = excluded.first, name = excluded.name, opened = NULL WHERE opened IS NOT NULL`, []any{machine[:], key[:], now.Unix(), name}},
		{"DELETE FROM runner_key WHERE machine IN (SELECT machine FROM runner_key ORDER BY first LIMIT max(0, (SELECT count(*) FROM runner_key) - ?))", []any{MaxRunnerKeys}},
	} {
		if _, err := db.conn.ExecContext(ctx, s.text, s.args...); err != nil {
			return [32]byte{}, fmt.Errorf("a machine's key can't be kept: %w", err)
		}
	}
	var b []byte
	if err := db.conn.QueryRowContext(ctx, "SELECT key FROM runner_key WHERE machine = ?", machine[:]).Scan(&b); err != nil {
		return [32]byte{}, fmt.Errorf("a machine's key can't be read: %w", err)
	}
	if len(b) != 32 {
		return [32]byte{}, errors.New("a machine's key in the store is damaged")
	}
	return [32]byte(b), t.Commit()
}

// HasRunnerKey reports whether a machine of this name ever came with a key.
func (db *DB) HasRunnerKey(ctx context.Context, name string) (has bool, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM runner_key WHERE name = ?)", name).Scan(&has)
	return has, err
}

// OpenRunnerKey lets the machine of this name come with another key.
func (t *Tx) OpenRunnerKey(name string, now time.Time) error {
	return t.exec("UPDATE runner_key SET opened = ? WHERE name = ?", now.Unix(), name)
}
