// Package store keeps what the broker must not forget: the audit log with its
// tiles and checkpoints, the replay keys of used tokens, and what was revoked.
// It is one SQLite database in a directory of its own, written by one process:
// a second one that opens the directory gets an error, not a torn log.
//
// A commit is durable when it returns (write-ahead log, synchronous=FULL). There
// is one write transaction at a time, and readers that never wait for it.
// Package store knows tables and nothing of their meaning: what a hash or a
// checkpoint is, package audit knows.
//
// # What a commit costs
//
// The requests that arrive together share one transaction, and a transaction
// costs what it makes SQLite write in pages of 4 KiB. So the tables are laid
// out to be appended to: the entries of one commit are one row, and their
// replay keys are one more. Which keys are used up is asked in memory, from a
// set that Open reads back from those rows. A unique index on keys, which are
// random, would dirty a page of its own for each of them: half the cost of the
// commit. The rows are what is durable; the set is never ahead of them, since a
// key joins it for good only when its transaction is.
//
// # What is not here
//
// There is no row for each credential that lives. That it was issued, to whom
// and until when is in the log, which is searched by time; only a credential
// that was ended before its time needs a row, and few are. Kinds that somebody
// else must be told to end will need a table of their own.
//
// # The directory
//
//	proviso.db   the database, with -wal and -shm beside it: back up all three
//	             together, or with SQLite's own backup
//	lock         held by the process that has the store open
//	log.key      made by package audit: the log's identity
//
// All files are for the owner alone.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
)

// FileName is the database's name in the store's directory.
const FileName = "proviso.db"

// DB is an open store. Its methods may be called from any goroutine.
type DB struct {
	dir  string
	lock *os.File // held while the store is open; nil when read-only

	read *sql.DB // a few connections that can't write

	// writing is held from Begin to the end of the transaction. It guards conn,
	// the prepared statements, used, and packed.
	writing sync.Mutex
	write   *sql.DB // nil when read-only
	conn    *sql.Conn
	stmts   statements
	used    claims
	maxKeys int // MaxKeys, unless LimitKeys set another
	packed  []byte

	keyCount atomic.Int64 // of used
}

// Open opens the store in directory dir, and makes it if there is none.
func Open(dir string) (_ *DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the store's directory can't be made: %w", err)
	}
	db := &DB{dir: dir, maxKeys: MaxKeys}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	if db.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, FileName)
	if err := createFile(path); err != nil {
		return nil, err
	}
	if err := SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("the store's directory can't be made: %w", err)
	}
	if db.write, err = connect(path, 1, url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
		"cache_size(-8192)", "wal_autocheckpoint(1000)",
	}}); err != nil {
		return nil, err
	}
	if err = migrate(db.write); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if db.conn, err = db.write.Conn(ctx); err != nil {
		return nil, err
	}
	if db.stmts, err = prepare(ctx, db.conn); err != nil {
		return nil, err
	}
	if db.read, err = connect(path, 4, readOnly); err != nil {
		return nil, err
	}
	if db.used, err = db.loadClaims(ctx); err != nil {
		return nil, err
	}
	db.keyCount.Store(int64(len(db.used.keys)))
	return db, nil
}

var readOnly = url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)", "query_only(1)"}}

// OpenReadOnly opens the store in directory dir for reading, also while a
// broker writes it, or a copy of its database file by itself.
func OpenReadOnly(path string) (*DB, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("there is no store to read: %w", err)
	} else if info.IsDir() {
		path = filepath.Join(path, FileName)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("there is no store to read: %w", err)
	}
	q := readOnly
	if _, err := os.Stat(path + "-wal"); errors.Is(err, os.ErrNotExist) {
		// A database that was closed, or a copy of one: nobody writes it, and a
		// reader could not make the files that it would need to watch a writer.
		q = url.Values{"immutable": {"1"}, "mode": {"ro"}, "_pragma": {"query_only(1)"}}
	}
	read, err := connect(path, 2, q)
	if err != nil {
		return nil, err
	}
	db := &DB{dir: filepath.Dir(path), read: read}
	if err := checkSchema(read); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// Dir is the store's directory.
func (db *DB) Dir() string { return db.dir }

// Close ends the store, after the transaction that is under way.
func (db *DB) Close() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	var errs []error
	if db.read != nil {
		errs = append(errs, db.read.Close())
	}
	if db.conn != nil {
		db.stmts.close()
		errs = append(errs, db.conn.Close())
		db.conn = nil
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Close())
		db.lock = nil
	}
	return errors.Join(errs...)
}

func connect(path string, conns int, q url.Values) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	c.SetMaxOpenConns(conns)
	c.SetMaxIdleConns(conns)
	if err := c.Ping(); err != nil {
		c.Close()
		return nil, fmt.Errorf("the store %s can't be opened: %w", path, err)
	}
	return c, nil
}

// createFile makes an empty database file for the owner alone, and makes its
// name durable: SQLite would go by the process' umask.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("the store's file can't be made: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Primary result codes of SQLite (https://www.sqlite.org/rescode.html).
const (
	codeBusy   = 5
	codeLocked = 6
	codeNoMem  = 7
	codeIOErr  = 10
	codeFull   = 13

	codeIOErrWrite = codeIOErr | 3<<8
)

// InDoubt reports whether, after a transaction that failed with err, nobody
// knows what the disk holds: a kernel that failed to sync may have dropped the
// pages, and says nothing of it when it is asked again. After a full disk, or a
// lock that somebody else holds, the database is as it was.
func InDoubt(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case codeBusy, codeLocked, codeNoMem, codeFull:
		return false
	}
	return e.Code() != codeIOErrWrite
}
