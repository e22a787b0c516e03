package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// ErrGone: what a transaction wanted to use up is not there, or was used up.
var ErrGone = errors.New("it is not there any more")

// JoinToken is a one-time permission to join, by its hash.
type JoinToken struct {
	Hash    [32]byte
	Runner  string // the SPIFFE ID that it gives
	Made    time.Time
	Expires time.Time
	Used    time.Time // zero until it was
}

// Runner is the row of one runner. A zero time is an absent one.
type Runner struct {
	Name      string    `json:"name"`
	Joined    time.Time `json:"joined,omitzero"`
	Evidence  string    `json:"evidence,omitempty"`
	ValidFrom time.Time `json:"valid_from,omitzero"`
	MustJoin  bool      `json:"must_join"`
	Renewed   time.Time `json:"renewed,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Banned    time.Time `json:"banned,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// AddJoinToken keeps a token's hash, and forgets tokens that expired a day ago.
func (t *Tx) AddJoinToken(k JoinToken) error {
	if err := t.exec("DELETE FROM join_token WHERE expires < ?", k.Made.Add(-24*time.Hour).Unix()); err != nil {
		return err
	}
	return t.exec("INSERT INTO join_token (hash, runner, made, expires) VALUES (?, ?, ?, ?)", k.Hash[:], k.Runner, k.Made.UnixMilli(), k.Expires.Unix())
}

// UseJoinToken uses a token up. Where it is not there, was used or has expired
// by now, the error is ErrGone: the rows that changed are counted, because a
// statement that changes none is no error of its own.
func (t *Tx) UseJoinToken(hash [32]byte, now time.Time) error {
	if t.done {
		return errDone
	}
	result, err := t.db.conn.ExecContext(context.Background(),
		"UPDATE join_token SET used = ? WHERE hash = ? AND used IS NULL AND expires > ?", now.UnixMilli(), hash[:], now.Unix())
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(ErrGone, err)
	}
	return nil
}

// JoinRunner writes that a runner has joined. A ban that it finds stays.
func (t *Tx) JoinRunner(r Runner) error {
	return t.exec(`INSERT INTO runner (name, joined, evidence, valid_from, must_join, renewed, expires) VALUES (?, ?, ?, ?, 0, ?, ?)
		ON CONFLICT DO UPDATE SET joined = excluded.joined, evidence = excluded.evidence, valid_from = excluded.valid_from,
		must_join = banned IS NOT NULL, renewed = excluded.renewed, expires = excluded.expires`,
		r.Name, orNull(r.Joined.UnixMilli(), r.Joined), r.Evidence, max(0, r.ValidFrom.Unix()), orNull(r.Renewed.UnixMilli(), r.Renewed), orNull(r.Expires.Unix(), r.Expires))
}

// SetStanding writes a runner's ban, or its end, and whether it has to join
// again. A join that it finds stays.
func (t *Tx) SetStanding(r Runner) error {
	return t.exec(`INSERT INTO runner (name, valid_from, must_join, banned, reason) VALUES (?, 0, ?, ?, ?)
		ON CONFLICT DO UPDATE SET must_join = excluded.must_join, banned = excluded.banned, reason = excluded.reason`,
		r.Name, r.MustJoin, orNull(r.Banned.UnixMilli(), r.Banned), r.Reason)
}

// TouchRunner notes a runner's newest SVID.
func (t *Tx) TouchRunner(name string, renewed, expires time.Time) error {
	return t.exec("UPDATE runner SET renewed = ?, expires = ? WHERE name = ?", renewed.UnixMilli(), expires.Unix(), name)
}

func (t *Tx) exec(statement string, args ...any) error {
	if t.done {
		return errDone
	}
	_, err := t.db.conn.ExecContext(context.Background(), statement, args...)
	return err
}

func orNull(n int64, at time.Time) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: !at.IsZero()} }

// FindJoinToken reads a token's row; false when there is none.
func (db *DB) FindJoinToken(ctx context.Context, hash [32]byte) (JoinToken, bool, error) {
	k := JoinToken{Hash: hash}
	var made, expires int64
	var used sql.NullInt64
	err := db.read.QueryRowContext(ctx, "SELECT runner, made, expires, used FROM join_token WHERE hash = ?", hash[:]).Scan(&k.Runner, &made, &expires, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return JoinToken{}, false, nil
	}
	k.Made, k.Expires, k.Used = time.UnixMilli(made), time.Unix(expires, 0), fromMilli(used)
	return k, err == nil, err
}

// Runners reads all runners, sorted by name.
func (db *DB) Runners(ctx context.Context) ([]Runner, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT name, joined, evidence, valid_from, must_join, renewed, expires, banned, reason FROM runner ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Runner
	for rows.Next() {
		var r Runner
		var joined, renewed, expires, banned sql.NullInt64
		var evidence, reason sql.NullString
		var from int64
		if err := rows.Scan(&r.Name, &joined, &evidence, &from, &r.MustJoin, &renewed, &expires, &banned, &reason); err != nil {
			return nil, err
		}
		r.Joined, r.Evidence, r.ValidFrom, r.Renewed, r.Banned, r.Reason = fromMilli(joined), evidence.String, time.Unix(from, 0), fromMilli(renewed), fromMilli(banned), reason.String
		if expires.Valid {
			r.Expires = time.Unix(expires.Int64, 0)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

func fromMilli(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMilli(n.Int64)
}
