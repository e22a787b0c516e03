package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

// maxBatch bounds the entries of one transaction, and with it how long the
// first of them waits for the last.
const maxBatch = 256

// write is the writer: it takes what has come in together, makes it durable
// together, and does so again.
func (l *Log) write() {
	defer close(l.stopped)
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	batch := make([]*request, 0, maxBatch)
	for {
		select {
		case r := <-l.queue:
			batch = l.gather(append(batch[:0], r))
			shared, start := len(batch), time.Now()
			l.commit(batch)
			clear(batch[:cap(batch)]) // done with them: nothing here keeps them alive
			l.sweep()
			l.rest(shared, time.Since(start))
		case <-sweep.C:
			l.sweep()
		case <-l.stop:
			for len(l.queue) > 0 {
				l.commit(l.gather(batch[:0]))
			}
			return
		}
	}
}

// A commit costs about as much for one entry as for fifty. While requests come
// one by one each is written at once. When several have shared a commit there
// are more on the way, and the writer rests before the next one: in proportion
// to what the last one took, so that it spends a fixed part of the time at most,
// and never long enough for anybody to notice.
const (
	restFrom  = 4 // entries in the last commit
	restTimes = 3 // the time that it took
	restMost  = 4 * time.Millisecond
)

func (l *Log) rest(shared int, took time.Duration) {
	if shared < restFrom {
		return
	}
	t := time.NewTimer(min(took*restTimes, restMost))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stop:
	}
}

// gather adds what is waiting.
func (l *Log) gather(batch []*request) []*request {
	for len(batch) < maxBatch {
		select {
		case r := <-l.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit makes a batch durable and answers all who wait for it: with what they
// asked for, or, if anything fails, all of them with an error.
func (l *Log) commit(batch []*request) {
	batch = slices.DeleteFunc(batch, func(r *request) bool {
		return !r.state.CompareAndSwap(queued, taken) // nobody waits for it any more
	})
	if len(batch) == 0 {
		return
	}
	first := l.durable.Load().size
	next, signed, err := l.append(batch)
	if err != nil {
		l.fail(err)
		for _, r := range batch {
			r.done <- outcome{err: unavailable(err)}
		}
		return
	}
	for i, r := range batch {
		r.done <- outcome{err: r.refused, recorded: r.refused != nil, index: first + int64(i), edge: next, note: signed}
	}
}

// append writes a batch in one transaction. With an error nothing has changed,
// neither on the disk nor here, as far as anybody can know.
func (l *Log) append(batch []*request) (next *edge, signed []byte, err error) {
	if failed := l.failed.Load(); failed != nil {
		return nil, nil, *failed
	}
	tx, err := l.db.Begin()
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback()
	if err := l.confirm(); err != nil {
		return nil, nil, err
	}
	recorded := max(l.recorded, l.cfg.Now().UnixMilli())
	if digits := strconv.FormatInt(recorded, 10); len(digits) != len(recordedDigits) {
		return nil, nil, fmt.Errorf("the clock says %v: nothing is recorded under such a time", time.UnixMilli(recorded))
	}
	old := l.durable.Load()
	next = old.clone()
	l.buffer = l.buffer[:0]
	for _, r := range batch {
		if r.terms != nil {
			r.claim(tx)
		}
		if err := r.writeMore(tx); err != nil {
			return nil, nil, err
		}
		strconv.AppendInt(r.body[:r.recorded], recorded, 10) // in place
		next.add(tlog.RecordHash(r.body))
		l.buffer = appendBundled(l.buffer, r.body)
	}
	next.seal()
	if signed, err = signCheckpoint(l.signer, tree{next.size, next.root()}); err != nil {
		return nil, nil, err
	}
	if err := tx.Append(store.Batch{First: old.size, Size: next.size, Note: signed, Entries: l.buffer, Tiles: newTiles(old.size, next)}); err != nil {
		return nil, nil, err
	}
	if err := tx.Commit(); err != nil {
		return nil, nil, err
	}
	l.recorded, l.note = recorded, signed
	l.durable.Store(next)
	return next, signed, nil
}

// claim uses up the request's replay key. If that can't be, the request is
// recorded as refused in the same place; the rest of the batch goes on.
func (r *request) claim(tx *store.Tx) {
	alone, err := r.carry(tx)
	fresh := true
	if err == nil && alone && !r.once.Off {
		fresh, err = tx.Claim(r.once.Key, r.once.Expires)
	}
	switch {
	case err == nil && alone && fresh:
		return
	case err == nil && !alone:
		r.refused = proviso.Refuse(proviso.StageRunner, proviso.CodeRunnerJobMismatch,
			"this job's token was used on another runner before, and a token is taken from one runner alone: either it was copied, or the job has moved; let the job ask its platform for a new token")
	case err == nil:
		r.refused = r.replayed()
	case errors.Is(err, store.ErrKeysFull):
		r.refused = proviso.Refuse(proviso.StageRecord, proviso.CodeReplayStoreFull,
			"the broker holds as many used tokens as it can remember, and forgets none before it has expired; try again in a few minutes").Because(err)
	default:
		r.refused = proviso.Refuse(proviso.StageRecord, proviso.CodeReplayStore,
			"the broker could not keep this job token as used, and so it can't be used").Because(err)
	}
	r.refuse()
}

func (r *request) replayed() *proviso.Refusal {
	again := r.once.Again
	if again == "" {
		again = "this job token has already bought a credential of this grant, and it buys only one: let the job ask its platform for a new token"
	}
	return proviso.Refuse(proviso.StageRecord, proviso.CodeReplay, "%s", again)
}

// writeMore lets the caller's own rows join the transaction.
func (r *request) writeMore(tx *store.Tx) error {
	if r.with != nil {
		return r.with(tx)
	}
	if r.terms == nil || r.once.With == nil {
		return nil
	}
	err := r.once.With(tx)
	if errors.Is(err, store.ErrGone) {
		r.refused = r.replayed()
		r.refuse()
		return nil
	}
	return err
}

// refuse turns the request into the record of its refusal.
func (r *request) refuse() {
	r.terms = nil
	r.entry.SetRefusal(r.refused)
	if e := &r.entry; r.serialise() != nil {
		// Not even without its input: what identifies it always fits.
		r.entry = Entry{Type: e.Type, Decision: e.Decision, Time: e.Time, Mode: e.Mode, Stage: e.Stage, Code: e.Code}
		r.body, r.recorded = appendEntry(r.body[:0], &r.entry, nil)
	}
}

// carry holds a token to the one that it came with first. Both keys are used up
// in the transaction of the first credential, so that it needs no state of its own.
func (r *request) carry(tx *store.Tx) (alone bool, err error) {
	c := r.once.Carried
	if c.isZero() {
		return true, nil
	}
	if !tx.Claimed(c.Token) && !tx.Room(2) {
		return false, store.ErrKeysFull // half of it would tie the token to nobody
	}
	first, err := tx.Claim(c.Token, c.Expires)
	if err != nil || !first {
		return err == nil && tx.Claimed(c.With), err
	}
	return tx.Claim(c.With, c.Expires)
}

var errDiverged = errors.New("after a failed write the store holds another log than the one it confirmed")

// confirm makes sure, after a failed commit, that the disk holds what this log
// was told that it holds: a commit that failed may have succeeded.
func (l *Log) confirm() error {
	if !l.unsure {
		return nil
	}
	last, err := l.db.LastBatch(context.Background())
	if err != nil {
		return err
	}
	if last.Size != l.durable.Load().size || !bytes.Equal(last.Note, l.note) {
		return errDiverged
	}
	l.unsure = false
	l.cfg.Logger.Info("the audit log can be written again", "size", last.Size)
	return nil
}

// fail notes that a batch was not written. A full disk passes by itself; where
// nobody knows what the disk holds, the log takes nothing more until it is
// opened again and has verified itself.
func (l *Log) fail(err error) {
	if l.failed.Load() != nil {
		return
	}
	if store.InDoubt(err) || errors.Is(err, errDiverged) {
		err = fmt.Errorf("the audit log is closed until the broker is restarted and has verified it: %w", err)
		l.failed.Store(&err)
		l.cfg.Logger.Error("the audit log can't be trusted to hold what is written to it; nothing is issued until a restart", "error", err)
		return
	}
	if !l.unsure {
		l.cfg.Logger.Error("the audit log can't be written; nothing is issued until it can", "error", err)
	}
	l.unsure = true
}

// sweepRows is how many commits' replay keys are forgotten in one go.
const sweepRows = 64

// sweep forgets replay keys whose tokens have long expired, a few at a time:
// who comes in meanwhile waits for a few only.
func (l *Log) sweep() {
	before := l.cfg.Now().Add(-l.cfg.KeyGrace)
	if l.failed.Load() != nil || l.unsure || !l.db.SweepDue(before) {
		return
	}
	if _, err := l.db.Sweep(before, sweepRows); err != nil {
		l.fail(err)
	}
}
