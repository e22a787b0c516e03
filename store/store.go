// Package store keeps what the broker must not forget: the entries and tiles
// of the audit log, the checkpoint, and the replay keys of used tokens. It is
// one SQLite database in a directory of its own, written by one process: a
// second one that opens the directory gets an error, not a torn log.
//
// Every commit is durable when it returns (write-ahead log, synchronous=FULL).
// There is one writer at a time, and readers that never wait for it. Package
// store knows the tables and nothing of their meaning: what a hash or a
// checkpoint is, package audit knows.
//
// The directory holds proviso.db with its -wal and -shm files, lock, and the
// keys that other packages put there. All files are for the owner alone (0600).
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// DB is an open store. Its methods may be called from any goroutine; there is
// one write transaction at a time.
type DB struct {
	dir   string
	write *sql.DB // one connection
	read  *sql.DB
	lock  *os.File // held for as long as the store is open; nil when read-only
}

const fileName = "proviso.db"

// Open opens the store in directory dir, and makes it if there is none.
func Open(dir string) (_ *DB, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the store's directory can't be made: %w", err)
	}
	db := &DB{dir: dir}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	if db.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, fileName)
	if err := createFile(path); err != nil {
		return nil, err
	}
	if db.write, err = open(path, "rw", 1); err != nil {
		return nil, err
	}
	if err = migrate(db.write); err != nil {
		return nil, err
	}
	if db.read, err = open(path, "ro", 4); err != nil {
		return nil, err
	}
	return db, nil
}

// Dir is the store's directory.
func (db *DB) Dir() string { return db.dir }

// Close ends the store. No transaction may be open.
func (db *DB) Close() error {
	var errs []error
	for _, c := range []*sql.DB{db.read, db.write} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Close())
	}
	return errors.Join(errs...)
}

func open(path, mode string, conns int) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)",
	}}
	if mode == "rw" {
		q.Set("_txlock", "immediate")
	} else {
		q["_pragma"] = []string{"busy_timeout(10000)", "query_only(1)"}
	}
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
	c.SetConnMaxIdleTime(0)
	if err := c.Ping(); err != nil {
		return nil, fmt.Errorf("the store %s can't be opened: %w", path, err)
	}
	return c, nil
}

// createFile makes an empty database file for the owner alone, and makes its
// name durable: SQLite would use the process' umask.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("the store's file can't be made: %w", err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema to the newest version, each step in its own
// transaction. A schema from the future is refused: an older program would
// write what the newer one doesn't expect.
func migrate(db *sql.DB) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var have int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("the store can't be read: %w", err)
	}
	if have > len(files) {
		return fmt.Errorf("the store has schema version %d, this program knows versions up to %d: run the newer program, or restore an older backup", have, len(files))
	}
	for i, name := range files[have:] {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "migrations/")[:4])
		if err != nil || n != have+i+1 {
			return fmt.Errorf("migration %s should be number %d", name, have+i+1)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if err := step(db, n, string(text)); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

func step(db *sql.DB, version int, text string) error {
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.Exec(text); err != nil {
		return err
	}
	if _, err := tx.Exec("PRAGMA user_version = " + strconv.Itoa(version)); err != nil {
		return err
	}
	return tx.Commit()
}
