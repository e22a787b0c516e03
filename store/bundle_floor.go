package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// BundleFloor is the newest bundle of a trust domain that was ever taken from a
// source: none that is older may follow it.
type BundleFloor struct {
	Sequence int64
	Keys     [32]byte // hash of the keys that the sequence stands for
	Seen     time.Time
}

// BundleFloor gives a trust domain's; false where there is none.
func (db *DB) BundleFloor(ctx context.Context, domain, source string) (f BundleFloor, known bool, err error) {
	var keys []byte
	var seen int64
	err = db.read.QueryRowContext(ctx, "SELECT sequence, keys, seen FROM bundle_floor WHERE domain = ? AND source = ?", domain, source).Scan(&f.Sequence, &keys, &seen)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return f, false, nil
	case err == nil && len(keys) != len(f.Keys):
		err = errors.New("it is damaged")
	}
	if err != nil {
		return f, false, fmt.Errorf("the sequence of the bundle of %s can't be read: %w", domain, err)
	}
	f.Keys, f.Seen = [32]byte(keys), time.Unix(seen, 0)
	return f, true, nil
}

// RaiseBundleFloor keeps a newer one, durably. It never lowers what is there.
func (db *DB) RaiseBundleFloor(ctx context.Context, domain, source string, f BundleFloor) error {
	t, err := db.Begin()
	if err != nil {
		return err
	}
	defer t.Rollback()
	if _, err := db.conn.ExecContext(context.WithoutCancel(ctx), `INSERT INTO bundle_floor (domain, source, sequence, keys, seen) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (domain, source) DO UPDATE SET sequence = excluded.sequence, keys = excluded.keys, seen = excluded.seen WHERE excluded.sequence > sequence`,
		domain, source, f.Sequence, f.Keys[:], f.Seen.Unix()); err != nil {
		return fmt.Errorf("the sequence of the bundle of %s can't be kept: %w", domain, err)
	}
	return t.Commit()
}

// HasBundleFloor reports whether there is one for a trust domain, of any source.
func (db *DB) HasBundleFloor(ctx context.Context, domain string) (has bool, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM bundle_floor WHERE domain = ?)", domain).Scan(&has)
	return has, err
}

// ForgetBundleFloor forgets all of a trust domain.
func (t *Tx) ForgetBundleFloor(domain string) error {
	return t.exec("DELETE FROM bundle_floor WHERE domain = ?", domain)
}
