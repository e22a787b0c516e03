package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks a database file as a store of Proviso ("PRVS"), so that
// a wrong path is an error and not another program's file with our tables in it.
const applicationID = 0x50525653

// versionOf reads the version of the schema and says how many there are. A
// schema from the future is refused: an older program would write what the
// newer one doesn't expect.
func versionOf(db *sql.DB) (have int, files []string, err error) {
	if files, err = fs.Glob(migrations, "migrations/*.sql"); err != nil {
		return 0, nil, err
	}
	var app, objects int
	if err := db.QueryRow("PRAGMA user_version").Scan(&have); err != nil {
		return 0, nil, fmt.Errorf("the store can't be read: %w", err)
	}
	if err := db.QueryRow("PRAGMA application_id").Scan(&app); err != nil {
		return 0, nil, fmt.Errorf("the store can't be read: %w", err)
	}
	if err := db.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return 0, nil, fmt.Errorf("the store can't be read: %w", err)
	}
	if objects > 0 && app != applicationID {
		return 0, nil, fmt.Errorf("%s is another program's database: give Proviso a directory of its own", FileName)
	}
	if have > len(files) {
		return 0, nil, fmt.Errorf("the store has schema version %d and this program knows versions up to %d: run the newer program, or restore an older backup", have, len(files))
	}
	return have, files, nil
}

// checkSchema refuses a store that this program can't read.
func checkSchema(db *sql.DB) error {
	have, files, err := versionOf(db)
	if err == nil && have < len(files) {
		err = fmt.Errorf("the store has schema version %d, and this program reads version %d: start the broker once, which brings it up to date", have, len(files))
	}
	return err
}

// migrate brings the schema to the newest version, each step in a transaction
// of its own.
func migrate(db *sql.DB) error {
	have, files, err := versionOf(db)
	if err != nil {
		return err
	}
	for i, name := range files[have:] {
		version := have + i + 1
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != version {
			return fmt.Errorf("migration %s should be number %d", name, version)
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if err := apply(db, version, string(text)); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

func apply(db *sql.DB, version int, text string) error {
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	text += fmt.Sprintf(";\nPRAGMA user_version = %d;\nPRAGMA application_id = %d;", version, applicationID)
	if _, err := tx.Exec(text); err != nil {
		return err
	}
	return tx.Commit()
}
