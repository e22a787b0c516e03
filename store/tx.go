package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"
)

// Tx is the one write transaction. It is used by one goroutine and ends with
// Commit or Rollback; until then nobody else can write.
type Tx struct {
	db      *DB
	claimed pending // keys of this transaction, not yet durable
	done    bool
}

// Batch is what one group commit adds to the log.
type Batch struct {
	First, Size int64  // indexes First to Size-1
	Entries     []byte // each with its length before it
	Note        []byte // the signed checkpoint of Size
	Tiles       []Tile
	// Damaged is set by Batches where the entries can't be unpacked.
	Damaged bool
}

// Tile is one hash tile, as full as it is.
type Tile struct {
	Level  int
	Number int64
	Data   []byte
}

// Revocation ends a credential before it expires.
type Revocation struct {
	ID       string // the credential's: jti, or serial number
	Kind     string
	Decision string // that issued it
	Expires  time.Time
	Revoked  time.Time
	Reason   string
}

type statements struct {
	begin, commit, rollback, batch, tile, claim, oldClaims, dropClaims, revoke *sql.Stmt
}

func prepare(ctx context.Context, c *sql.Conn) (s statements, err error) {
	for _, p := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.batch, "INSERT INTO batch (first, size, note, entries) VALUES (?, ?, ?, ?)"},
		{&s.tile, "INSERT INTO tile (id, data) VALUES (?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"},
		{&s.claim, "INSERT INTO claim (id, keys) VALUES (?, ?)"},
		{&s.oldClaims, "SELECT id, keys FROM claim WHERE id < ? ORDER BY id LIMIT ?"},
		{&s.dropClaims, "DELETE FROM claim WHERE id <= ?"},
		{&s.revoke, "INSERT INTO revocation (id, kind, decision, expires, revoked, reason) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"},
	} {
		if *p.to, err = c.PrepareContext(ctx, p.text); err != nil {
			s.close()
			return s, err
		}
	}
	return s, nil
}

func (s *statements) close() {
	for _, p := range []*sql.Stmt{s.begin, s.commit, s.rollback, s.batch, s.tile, s.claim, s.oldClaims, s.dropClaims, s.revoke} {
		if p != nil {
			p.Close()
		}
	}
}

var (
	errReadOnly = errors.New("the store is closed, or was opened for reading only")
	errDone     = errors.New("the transaction has ended")
)

// Begin starts the write transaction, after the one before has ended.
func (db *DB) Begin() (*Tx, error) {
	db.writing.Lock()
	if db.conn == nil {
		db.writing.Unlock()
		return nil, errReadOnly
	}
	if _, err := db.stmts.begin.Exec(); err != nil {
		db.writing.Unlock()
		return nil, err
	}
	return &Tx{db: db}, nil
}

// Append adds a batch to the log, and writes the keys claimed so far.
func (t *Tx) Append(b Batch) error {
	if t.done {
		return errDone
	}
	s := &t.db.stmts
	t.db.packed = pack(t.db.packed, b.Entries)
	if _, err := s.batch.Exec(b.First, b.Size, b.Note, t.db.packed); err != nil {
		return err
	}
	for _, tile := range b.Tiles {
		if _, err := s.tile.Exec(tileID(tile.Level, tile.Number), tile.Data); err != nil {
			return err
		}
	}
	return t.claimed.write(s.claim, b.First)
}

// Revoke writes down that a credential was ended; the first time counts.
func (t *Tx) Revoke(r Revocation) error {
	if t.done {
		return errDone
	}
	_, err := t.db.stmts.revoke.Exec(r.ID, r.Kind, r.Decision, r.Expires.Unix(), r.Revoked.UnixMilli(), r.Reason)
	return err
}

// Commit ends the transaction: durably or, with an error, not at all, except
// where InDoubt says of the error that nobody knows.
func (t *Tx) Commit() error {
	if t.done {
		return errDone
	}
	if t.claimed.unwritten() {
		t.Rollback()
		return errors.New("keys were claimed without an entry to claim them for")
	}
	if _, err := t.db.stmts.commit.Exec(); err != nil {
		t.Rollback()
		return err
	}
	t.db.used.settle(&t.claimed)
	t.db.keyCount.Store(int64(len(t.db.used.keys)))
	t.end()
	return nil
}

func (t *Tx) end() {
	t.done = true
	t.db.writing.Unlock()
}

// Rollback undoes the transaction; after its end it does nothing.
func (t *Tx) Rollback() {
	if t.done {
		return
	}
	// SQLite has rolled back by itself where this fails.
	_, _ = t.db.stmts.rollback.Exec()
	t.end()
}

// MaxEntries bounds the entries of one batch in bytes.
const MaxEntries = 32 << 20

// pack compresses the entries of a commit, in Snappy's block format. Entries
// that were made together are alike: four fifths and more of what the disk
// would have to take twice, once for the write-ahead log, need not be written.
// It reuses dst.
func pack(dst, entries []byte) []byte {
	if n := s2.MaxEncodedLen(len(entries)); cap(dst) < n {
		dst = make([]byte, n)
	}
	return s2.EncodeSnappy(dst[:cap(dst)], entries)
}

var errPacked = errors.New("the entries can't be unpacked: they were altered on the disk")

func unpack(packed []byte) ([]byte, error) {
	n, err := s2.DecodedLen(packed)
	if err != nil || n > MaxEntries {
		return nil, errPacked
	}
	entries, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, errPacked
	}
	return entries, nil
}

func tileID(level int, number int64) int64 { return int64(level)<<56 | number }

// LastBatch reads the newest commit without its entries; an empty log has none,
// and its Size is 0.
func (db *DB) LastBatch(ctx context.Context) (Batch, error) {
	var b Batch
	err := db.read.QueryRowContext(ctx, "SELECT first, size, note FROM batch ORDER BY first DESC LIMIT 1").Scan(&b.First, &b.Size, &b.Note)
	if errors.Is(err, sql.ErrNoRows) {
		return Batch{}, nil
	}
	return b, err
}

// Batches reads whole commits in order: from the one that holds entry from (or,
// if none does, the first behind it) to the one that holds entry to-1, but no
// more than have about maxBytes of entries, and at least one if there is one.
// It leaves no transaction open, so a slow reader holds nobody up.
func (db *DB) Batches(ctx context.Context, from, to int64, maxBytes int) ([]Batch, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT first, size, note, entries FROM batch
		WHERE first >= coalesce((SELECT max(first) FROM batch WHERE first <= ?1), ?1) AND first < ?2 ORDER BY first`, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Batch
	for n := 0; n < maxBytes && rows.Next(); {
		var b Batch
		if err := rows.Scan(&b.First, &b.Size, &b.Note, &b.Entries); err != nil {
			return nil, err
		}
		if b.Size <= from {
			continue
		}
		n += len(b.Entries)
		if b.Entries, err = unpack(b.Entries); err != nil {
			b.Entries, b.Damaged = nil, true
		}
		n += len(b.Entries)
		out = append(out, b)
	}
	return out, rows.Err()
}

// TileData reads a hash tile as full as it was written; nil when there is none.
func (db *DB) TileData(ctx context.Context, level int, number int64) ([]byte, error) {
	var data []byte
	err := db.read.QueryRowContext(ctx, "SELECT data FROM tile WHERE id = ?", tileID(level, number)).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hash tile %d/%d can't be read: %w", level, number, err)
	}
	return data, nil
}

// Revocations reads what was revoked and has not expired by now, the oldest first.
func (db *DB) Revocations(ctx context.Context, now time.Time) ([]Revocation, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT id, kind, decision, expires, revoked, reason FROM revocation WHERE expires > ? ORDER BY revoked", now.Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Revocation
	for rows.Next() {
		var r Revocation
		var expires, revoked int64
		if err := rows.Scan(&r.ID, &r.Kind, &r.Decision, &expires, &revoked, &r.Reason); err != nil {
			return nil, err
		}
		r.Expires, r.Revoked = time.Unix(expires, 0), time.UnixMilli(revoked)
		out = append(out, r)
	}
	return out, rows.Err()
}

// Revoked reports whether a credential was ended before it expired.
func (db *DB) Revoked(ctx context.Context, id string) (bool, error) {
	var n int
	err := db.read.QueryRowContext(ctx, "SELECT count(*) FROM revocation WHERE id = ?", id).Scan(&n)
	return n > 0, err
}
