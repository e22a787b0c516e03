package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// MaxKeys is how many replay keys are kept at once, a bound on memory (about 40
// bytes each) that no honest load comes near: 5,000 tokens a second that live
// an hour would.
const MaxKeys = 16 << 20

// ErrKeysFull: as many replay keys as may be kept have not expired. A claim is
// refused then, because the only other way is to forget one.
var ErrKeysFull = errors.New("the store of replay keys is full")

// keySize bytes of a key are kept. That two keys meet in them by chance, or are
// made to meet those of somebody else's token, takes 2^128 tries, and the worst
// that comes of it is a refusal.
const keySize = 16

type key [keySize]byte

// Keys of one commit are kept together by when they expire, in steps that are
// rounded up: a key lives up to one step longer than it must, never shorter.
const (
	step      = 5 * 60 // seconds
	firstBits = 39     // of claim.id for the index of the commit's first entry
)

func claimID(expiry, first int64) int64 { return expiry<<firstBits | first }

// claims is the set of keys that are used up, as the table claim has them. It
// is guarded by DB.writing.
type claims struct {
	keys   map[key]struct{}
	oldest int64 // no row of claim expires before this step
}

// pending are the keys of the transaction that is under way.
type pending struct {
	keys   map[key]struct{}
	rows   map[int64][]byte // by expiry, as they will be written
	queued int              // keys in rows
}

// Claim uses up a key, and reports false if it was used up before, also by this
// transaction. It is durable when the transaction is; the key is kept until
// expires has passed, and a little longer.
func (t *Tx) Claim(k [32]byte, expires time.Time) (bool, error) {
	if t.done {
		return false, errDone
	}
	expiry := (expires.Unix() + step - 1) / step
	if expiry <= 0 || expiry >= 1<<(63-firstBits) {
		return false, fmt.Errorf("a replay key that expires at %v can't be kept", expires)
	}
	short := key(k[:keySize])
	if _, used := t.db.used.keys[short]; used {
		return false, nil
	}
	if _, used := t.claimed.keys[short]; used {
		return false, nil
	}
	if !t.Room(1) {
		return false, ErrKeysFull
	}
	if t.claimed.keys == nil {
		t.claimed.keys, t.claimed.rows = map[key]struct{}{}, map[int64][]byte{}
	}
	t.claimed.keys[short] = struct{}{}
	t.claimed.rows[expiry] = append(t.claimed.rows[expiry], short[:]...)
	t.claimed.queued++
	return true, nil
}

// Room reports whether so many keys more can be claimed: for who claims several,
// all or none.
func (t *Tx) Room(keys int) bool {
	return len(t.db.used.keys)+len(t.claimed.keys)+keys <= t.db.maxKeys
}

// LimitKeys sets how many replay keys are kept at once, MaxKeys unless it is
// called. Keys that are there already stay, however many they are.
func (db *DB) LimitKeys(n int) {
	db.writing.Lock()
	defer db.writing.Unlock()
	db.maxKeys = n
}

// Claimed reports whether a key was used up, also by this transaction.
func (t *Tx) Claimed(k [32]byte) bool {
	short := key(k[:keySize])
	_, used := t.db.used.keys[short]
	_, here := t.claimed.keys[short]
	return used || here
}

func (p *pending) write(insert *sql.Stmt, first int64) error {
	for expiry, keys := range p.rows {
		if _, err := insert.Exec(claimID(expiry, first), keys); err != nil {
			return err
		}
	}
	p.queued = 0
	return nil
}

func (p *pending) unwritten() bool { return p.queued > 0 }

// settle takes over the keys of a transaction that became durable.
func (c *claims) settle(p *pending) {
	for k := range p.keys {
		c.keys[k] = struct{}{}
	}
	for expiry := range p.rows {
		c.oldest = min(c.oldest, expiry)
	}
}

// KeyCount is the number of replay keys that are kept. It waits for nothing,
// since health checks ask when the disk hangs.
func (db *DB) KeyCount() int { return int(db.keyCount.Load()) }

func (db *DB) loadClaims(ctx context.Context) (claims, error) {
	c := claims{keys: map[key]struct{}{}, oldest: 1 << 62}
	rows, err := db.read.QueryContext(ctx, "SELECT id, keys FROM claim ORDER BY id")
	if err != nil {
		return c, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var keys sql.RawBytes
		if err := rows.Scan(&id, &keys); err != nil {
			return c, err
		}
		if len(keys) == 0 || len(keys)%keySize != 0 {
			return c, fmt.Errorf("row %d of the replay keys is torn: restore the store from a backup, or wait with a new one until every token of today has expired", id)
		}
		c.oldest = min(c.oldest, id>>firstBits)
		for ; len(keys) > 0; keys = keys[keySize:] {
			c.keys[key(keys[:keySize])] = struct{}{}
		}
	}
	return c, rows.Err()
}

// SweepDue reports whether there are keys that expired before the given time.
func (db *DB) SweepDue(before time.Time) bool {
	db.writing.Lock()
	defer db.writing.Unlock()
	return db.used.oldest < before.Unix()/step
}

// Sweep forgets keys that expired before the given time, those of at most rows
// commits, so that nobody waits long for it. It is a transaction of its own.
func (db *DB) Sweep(before time.Time, rows int) (forgotten int, err error) {
	t, err := db.Begin()
	if err != nil {
		return 0, err
	}
	defer t.Rollback()
	limit := before.Unix() / step
	last, keys, err := t.expired(limit, rows)
	if err != nil {
		return 0, err
	}
	if last == 0 {
		db.used.oldest = max(db.used.oldest, limit)
		return 0, nil
	}
	if _, err := db.stmts.dropClaims.Exec(last); err != nil {
		return 0, err
	}
	// The set forgets after the disk did: it may be too large, never too small.
	if _, err := db.stmts.commit.Exec(); err != nil {
		return 0, err
	}
	for _, k := range keys {
		delete(db.used.keys, k)
	}
	db.used.oldest = max(db.used.oldest, last>>firstBits)
	db.keyCount.Store(int64(len(db.used.keys)))
	t.end()
	return len(keys), nil
}

// expired reads the oldest rows that expired before the step limit.
func (t *Tx) expired(limit int64, rows int) (last int64, keys []key, err error) {
	found, err := t.db.stmts.oldClaims.Query(claimID(limit, 0), rows)
	if err != nil {
		return 0, nil, err
	}
	defer found.Close()
	for found.Next() {
		var raw sql.RawBytes
		if err := found.Scan(&last, &raw); err != nil {
			return 0, nil, err
		}
		for ; len(raw) >= keySize; raw = raw[keySize:] {
			keys = append(keys, key(raw[:keySize]))
		}
	}
	return last, keys, found.Err()
}
