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

// RunnerKey gives the key that a machine came with first, if it ever did.
func (db *DB) RunnerKey(ctx context.Context, machine [32]byte) (key [32]byte, known bool, err error) {
	var b []byte
	err = db.read.QueryRowContext(ctx, "SELECT key FROM runner_key WHERE machine = ?", machine[:]).Scan(&b)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return key, false, nil
	case err != nil:
		return key, false, fmt.Errorf("a machine's key can't be read: %w", err)
	case len(b) != len(key):
		return key, false, errors.New("a machine's key in the store is damaged")
	}
	return [32]byte(b), true, nil
}

// BindRunnerKey gives a machine its key, durably, and returns the one that it
// has: of two that come at the same time, the first counts.
func (db *DB) BindRunnerKey(ctx context.Context, machine, key [32]byte, now time.Time) ([32]byte, error) {
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
		{"INSERT INTO runner_key (machine, key, first) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", []any{machine[:], key[:], now.Unix()}},
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

// ForgetRunnerKey lets a machine come with a new key, if it is launched again.
func (db *DB) ForgetRunnerKey(machine [32]byte) error {
	t, err := db.Begin()
	if err != nil {
		return err
	}
	defer t.Rollback()
	if _, err := db.conn.ExecContext(context.Background(), "DELETE FROM runner_key WHERE machine = ?", machine[:]); err != nil {
		return fmt.Errorf("a machine's key can't be forgotten: %w", err)
	}
	return t.Commit()
}
