package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("PROVISO_TEST_OPEN"); dir != "" {
		db, err := Open(dir) // the second process of TestOneProcess
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		db.Close()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func mustOpen(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func keyOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

// put claims keys and commits them with one entry behind what is there.
func put(t testing.TB, db *DB, expires time.Time, keys ...string) (fresh []bool) {
	t.Helper()
	last, err := db.LastBatch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, k := range keys {
		ok, err := tx.Claim(keyOf(k), expires)
		if err != nil {
			t.Fatal(err)
		}
		fresh = append(fresh, ok)
	}
	if err := tx.Append(Batch{First: last.Size, Size: last.Size + 1, Note: []byte("note"), Entries: []byte("entry")}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return fresh
}

var later = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string
	}{
		"a second opening": {func(t *testing.T, dir string) { mustOpen(t, dir) }, "in use by another process"},
		"a schema from the future": {func(t *testing.T, dir string) {
			mustOpen(t, dir).Close()
			execSQL(t, dir, "PRAGMA user_version = 99")
		}, "schema version 99"},
		"another program's database": {func(t *testing.T, dir string) {
			execSQL(t, dir, "CREATE TABLE mine (x)")
		}, "another program's database"},
		"a file that is no database": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "can't be opened"},
		"a directory that is a file": {func(t *testing.T, dir string) {
			if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "directory can't be made"},
		"torn replay keys": {func(t *testing.T, dir string) {
			mustOpen(t, dir).Close()
			execSQL(t, dir, "INSERT INTO claim VALUES (1, x'0102')")
		}, "replay keys is torn"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, dir)
			db, err := Open(dir)
			if err == nil {
				db.Close()
				t.Fatal("the store was opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %q, it should speak of %q", err, c.want)
			}
		})
	}
}

func execSQL(t *testing.T, dir, text string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

// Another process can't open the store, and can when this one is done with it.
func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	second := func() (string, error) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "PROVISO_TEST_OPEN="+dir)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := second(); err == nil || !strings.Contains(out, "in use by another process") {
		t.Errorf("a second process opened the store: %q, %v", out, err)
	}
	db.Close()
	if out, err := second(); err != nil {
		t.Errorf("the next process can't open the store: %q", out)
	}
}

func TestFilesAreForTheOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	db := mustOpen(t, dir)
	put(t, db, later, "a")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key is claimed once: in one transaction, in the next, after a restart.
func TestClaimOnce(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	if got := put(t, db, later, "a", "b", "a"); !got[0] || !got[1] || got[2] {
		t.Errorf("in one transaction: %v", got)
	}
	if got := put(t, db, later.Add(time.Hour), "b", "c"); got[0] || !got[1] {
		t.Errorf("in the next transaction: %v", got)
	}
	db.Close()
	db = mustOpen(t, dir)
	if got := put(t, db, later, "a", "b", "c", "d"); got[0] || got[1] || got[2] || !got[3] {
		t.Errorf("after a restart: %v", got)
	}
	if n := db.KeyCount(); n != 4 {
		t.Errorf("%d keys are kept, 4 were claimed", n)
	}
}

// Whichever part of a commit can't be written: it is an error before anything is
// durable, and nothing of the commit is there. A part that failed unnoticed would
// be a credential without its record, or a token that is good twice.
func TestAPartThatCantBeWritten(t *testing.T) {
	for _, table := range []string{"batch", "tile", "claim", "revocation"} {
		t.Run(table, func(t *testing.T) {
			db := mustOpen(t, t.TempDir())
			put(t, db, later, "before")
			exec := func(text string) {
				if _, err := db.conn.ExecContext(context.Background(), text); err != nil {
					t.Fatal(err)
				}
			}
			write := func() error {
				tx, err := db.Begin()
				if err != nil {
					return err
				}
				defer tx.Rollback()
				if _, err := tx.Claim(keyOf("a"), later); err != nil {
					return err
				}
				if err := tx.Revoke(Revocation{ID: "a", Kind: "jwt", Decision: "d", Expires: later, Revoked: later}); err != nil {
					return err
				}
				if err := tx.Append(Batch{First: 1, Size: 2, Note: []byte("note"), Entries: []byte("entry"), Tiles: []Tile{{Level: 0, Number: 0, Data: []byte("hash")}}}); err != nil {
					return err
				}
				return tx.Commit()
			}
			exec("CREATE TRIGGER full BEFORE INSERT ON " + table + " BEGIN SELECT RAISE(ABORT, 'it is full'); END")
			if err := write(); err == nil || !strings.Contains(err.Error(), "it is full") {
				t.Errorf("a commit whose %s can't be written: %v", table, err)
			}
			last, err := db.LastBatch(context.Background())
			if gone, _ := db.Revoked(context.Background(), "a"); err != nil || last.Size != 1 || db.KeyCount() != 1 || gone {
				t.Errorf("of a commit that failed there is: size %d, %d keys, revoked %v (%v)", last.Size, db.KeyCount(), gone, err)
			}
			exec("DROP TRIGGER full")
			if err := write(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// Keys are forgotten here only after the disk has forgotten them.
func TestSweepThatFails(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	put(t, db, later, "a")
	if _, err := db.conn.ExecContext(context.Background(), "CREATE TRIGGER full BEFORE DELETE ON claim BEGIN SELECT RAISE(ABORT, 'it is full'); END"); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Sweep(later.Add(time.Hour), 100); n != 0 || err == nil || db.KeyCount() != 1 {
		t.Errorf("a sweep that could not write forgot %d keys and left %d: %v", n, db.KeyCount(), err)
	}
}

// A claim that wasn't committed was never made.
func TestRollbackGivesKeysBack(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := tx.Claim(keyOf("a"), later); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := tx.Commit(); err == nil {
		t.Error("keys were committed without an entry")
	}
	if _, err := tx.Claim(keyOf("x"), later); err == nil {
		t.Error("a transaction went on after its end")
	}
	tx.Rollback()
	if got := put(t, db, later, "a"); !got[0] {
		t.Error("a key of a transaction that failed is used up")
	}
}

// A full store forgets no key for a new one, and says that it is full.
func TestClaimsAreBounded(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	db.LimitKeys(3)
	put(t, db, later, "a", "b")
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if tx.Room(2) || !tx.Room(1) {
		t.Error("two of three keys are used, and there is room for two more, or none for one")
	}
	if ok, err := tx.Claim(keyOf("c"), later); !ok || err != nil {
		t.Errorf("the last key: %v %v", ok, err)
	}
	if ok, err := tx.Claim(keyOf("d"), later); ok || !errors.Is(err, ErrKeysFull) {
		t.Errorf("one key more than there is room for: %v %v", ok, err)
	}
	for _, used := range []string{"a", "c"} {
		if ok, err := tx.Claim(keyOf(used), later); ok || err != nil || !tx.Claimed(keyOf(used)) {
			t.Errorf("a used key in a full store: %v %v", ok, err)
		}
	}
	if tx.Claimed(keyOf("d")) {
		t.Error("a key that could not be claimed is used")
	}
}

func TestClaimRefusesExpiriesItCantKeep(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if ok, err := tx.Claim(keyOf("a"), at); ok || err == nil {
			t.Errorf("a key that expires at %v was claimed", at)
		}
	}
}

// Keys are forgotten some time after they have expired, a few at a time, and
// none a second earlier.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	for i := range 10 {
		put(t, db, later, "old-"+strconv.Itoa(i))
	}
	put(t, db, later.Add(time.Hour), "new")
	for _, at := range []time.Time{later.Add(-time.Hour), later.Add(-time.Second), later} {
		if n, err := db.Sweep(at, 100); n != 0 || err != nil {
			t.Fatalf("at %v %d keys were forgotten that expire at %v (%v)", at, n, later, err)
		}
	}
	after := later.Add(2 * step * time.Second)
	if !db.SweepDue(after) {
		t.Error("there are expired keys, and no sweep is due")
	}
	for left := 10; left > 0; left -= 5 {
		if n, err := db.Sweep(after, 5); n != 5 || err != nil {
			t.Fatalf("a sweep of 5 forgot %d (%v)", n, err)
		}
	}
	if n, err := db.Sweep(after, 5); n != 0 || err != nil || db.SweepDue(after) {
		t.Errorf("after all were forgotten a sweep forgot %d (%v)", n, err)
	}
	for range 2 {
		if db.KeyCount() != 1 {
			t.Fatalf("%d keys are left, the new one should be", db.KeyCount())
		}
		if got := put(t, db, later.Add(time.Hour), "new"); got[0] {
			t.Error("the key that has not expired was forgotten")
		}
		db.Close()
		db = mustOpen(t, dir)
	}
}

func TestBatches(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	ctx := context.Background()
	for range 5 {
		put(t, db, later)
	}
	for _, c := range []struct{ from, to, first, count int64 }{{0, 5, 0, 5}, {2, 4, 2, 2}, {4, 9, 4, 1}, {5, 9, 0, 0}} {
		got, err := db.Batches(ctx, c.from, c.to, 1<<20)
		if err != nil || int64(len(got)) != c.count || (c.count > 0 && (got[0].First != c.first || string(got[0].Entries) != "entry")) {
			t.Errorf("batches %d to %d: %v, %v", c.from, c.to, got, err)
		}
	}
	if got, err := db.Batches(ctx, 0, 5, 1); err != nil || len(got) != 1 {
		t.Errorf("a reader that takes one byte got %d batches (%v)", len(got), err)
	}
	if last, err := db.LastBatch(ctx); err != nil || last.Size != 5 || string(last.Note) != "note" {
		t.Errorf("the last batch is %v (%v)", last, err)
	}
}

func TestRevocation(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	ctx := context.Background()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two", "one"} {
		if err := tx.Revoke(Revocation{id, "jwt", "decision", later, later.Add(-time.Minute), "reason of " + id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"one": true, "two": true, "three": false} {
		if got, err := db.Revoked(ctx, id); got != want || err != nil {
			t.Errorf("revoked(%s) = %v (%v)", id, got, err)
		}
	}
	if got, err := db.Revocations(ctx, later.Add(-time.Second)); err != nil || len(got) != 2 || !got[0].Expires.Equal(later) {
		t.Errorf("revocations: %v (%v)", got, err)
	}
	if got, err := db.Revocations(ctx, later); err != nil || len(got) != 0 {
		t.Errorf("revocations of expired credentials: %v (%v)", got, err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenReadOnly(dir); err == nil {
		t.Error("a store that isn't there was opened")
	}
	db := mustOpen(t, dir)
	put(t, db, later)
	look := func(path string) {
		t.Helper()
		ro, err := OpenReadOnly(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		if last, err := ro.LastBatch(context.Background()); err != nil || last.Size != 1 {
			t.Errorf("the reader sees %d entries (%v)", last.Size, err)
		}
		if _, err := ro.Begin(); err == nil {
			t.Error("a reader can write")
		}
	}
	look(dir) // while a writer has it
	db.Close()
	look(dir)
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(backup, data, 0o400); err != nil {
		t.Fatal(err)
	}
	look(backup)
}

// After a full disk the store is as it was, and one may go on; what an unknown
// error left on the disk nobody knows.
func TestInDoubt(t *testing.T) {
	db := mustOpen(t, t.TempDir())
	ctx := context.Background()
	put(t, db, later)
	if _, err := db.conn.ExecContext(ctx, "PRAGMA max_page_count = 20"); err != nil {
		t.Fatal(err)
	}
	fill := func() error {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.Claim(keyOf("full"), later); err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, 0, 1<<18)
		for i := range 1 << 13 {
			k := keyOf(strconv.Itoa(i))
			noise = append(noise, k[:]...)
		}
		return errors.Join(tx.Append(Batch{First: 1, Size: 2, Note: []byte("n"), Entries: noise}), tx.Commit())
	}
	if err := fill(); err == nil || InDoubt(err) {
		t.Fatalf("on a full disk the error is %v", err)
	}
	if _, err := db.conn.ExecContext(ctx, "PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if err := fill(); err != nil {
		t.Errorf("with room on the disk again: %v", err)
	}

	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	garbage, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	if _, err := garbage.Exec("CREATE TABLE t (x)"); !InDoubt(err) {
		t.Errorf("%v doesn't leave doubt", err)
	}
	if InDoubt(errors.New("something else")) || InDoubt(nil) {
		t.Error("errors that aren't SQLite's leave doubt about the disk")
	}
}
