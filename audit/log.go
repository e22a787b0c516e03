package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/note"
)

// Config is what a log needs to know. Only Origin must be set.
type Config struct {
	// Origin names the log in its checkpoints and its key: the log's URL
	// without the scheme, as "proviso.acme.example/log". It can't change later.
	Origin string
	// Broker is the program's version, for entries that name none.
	Broker string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// MaxQueue bounds the requests that wait for the disk; 4,096 when 0. One
	// more is refused at once as "overloaded".
	MaxQueue int
	// KeyGrace is how long a replay key is kept after its token has expired, for
	// clocks that disagree; 10 minutes when 0.
	KeyGrace time.Duration
	// Logger gets what an operator must know of; nil is slog.Default.
	Logger *slog.Logger
}

// Log is the open log of one store. Its methods may be called from any
// goroutine; one goroutine of its own does all the writing.
type Log struct {
	db     *store.DB
	cfg    Config
	signer note.Signer
	vkey   string

	queue   chan *request
	stop    chan struct{} // closed by Close: what is queued is still written
	stopped chan struct{} // closed by the writer as its last act
	closing sync.Once

	durable atomic.Pointer[edge] // sealed: the tree as the disk has it
	failed  atomic.Pointer[error]

	// The rest is the writer's own.
	note     []byte // the newest checkpoint
	recorded int64  // time of the newest entry: no later one has an earlier time
	buffer   []byte // for a batch's entries
	unsure   bool   // a commit failed: ask the disk what it has before the next
}

// request is one entry on its way to the disk.
type request struct {
	entry Entry  // the writer's own copy
	terms *Terms // nil unless the entry says "allowed"
	once  Once
	with  func(*store.Tx) error // of a note

	body     []byte // entry in canonical JSON, without the time of recording
	recorded int    // where the time of recording stands in body

	refused *proviso.Refusal // set by the writer when the entry can't be "allowed"

	state atomic.Int32
	done  chan outcome // of capacity 1
}

// States of a request: whoever moves it on from queued decides whether it is
// written.
const (
	queued int32 = iota
	taken
	abandoned
)

type outcome struct {
	err      *proviso.Refusal
	recorded bool // err is in the log, in the place of the decision
	index    int64
	edge     *edge  // sealed at the batch
	note     []byte // the batch's checkpoint
}

// Recorded is a refusal that the log has already, under the decision's id and in
// its place: whoever gets one has nothing left to record.
type Recorded struct{ *proviso.Refusal }

// Unwrap gives the refusal.
func (r *Recorded) Unwrap() error { return r.Refusal }

// Open opens the log that is in db, or begins one. It checks that the newest
// checkpoint is the log's own and fits the entries at the log's end; for the
// whole log there is VerifyLog. The caller closes the log before db.
func Open(ctx context.Context, db *store.DB, cfg Config) (*Log, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxQueue == 0 {
		cfg.MaxQueue = 4096
	}
	if cfg.KeyGrace == 0 {
		cfg.KeyGrace = 10 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	last, err := db.LastBatch(ctx)
	if err != nil {
		return nil, fmt.Errorf("the audit log can't be read: %w", err)
	}
	l := &Log{db: db, cfg: cfg,
		queue: make(chan *request, cfg.MaxQueue), stop: make(chan struct{}), stopped: make(chan struct{})}
	if l.signer, l.vkey, err = loadKey(db.Dir(), cfg.Origin, last.Size == 0); err != nil {
		return nil, err
	}
	if err := l.load(ctx, last); err != nil {
		return nil, err
	}
	go l.write()
	return l, nil
}

// load reads the right edge and holds it against the newest checkpoint.
func (l *Log) load(ctx context.Context, last store.Batch) error {
	e, recorded, err := readEdge(ctx, l.db, last.Size)
	if err == nil && last.Size > 0 {
		v, verr := newVerifier(l.vkey)
		if verr != nil {
			return verr
		}
		t, finding := openCheckpoint(last.Note, v)
		switch {
		case finding != nil:
			err = finding
		case t.size != last.Size || t.root != e.root():
			err = found(proviso.CodeEntryHash, -1, "the entries and tiles at the log's end don't add up to its signed checkpoint")
		}
	}
	if err != nil {
		return fmt.Errorf("the audit log in %s is damaged, and nothing is added to a damaged log: run 'proviso audit verify' on it to learn where, keep it as evidence, and restore a backup: %w", l.db.Dir(), err)
	}
	l.note, l.recorded = last.Note, recorded
	l.durable.Store(e)
	return nil
}

// VerifierKey is the log's public key, as signed notes spell it: what an
// auditor needs, and all of it.
func (l *Log) VerifierKey() string { return l.vkey }

// Close writes what was handed in and refuses what comes later.
func (l *Log) Close() error {
	l.closing.Do(func() { close(l.stop) })
	<-l.stopped
	return nil
}

// Status is the state of the log for health checks and metrics.
type Status struct {
	Size    int64 // entries
	Waiting int   // requests that wait for the disk
	Keys    int   // replay keys that are kept
	// Err is why the log takes nothing more until the broker is restarted.
	Err error
}

// Status reports the log's state.
func (l *Log) Status() Status {
	s := Status{Size: l.durable.Load().size, Waiting: len(l.queue), Keys: l.db.KeyCount()}
	if err := l.failed.Load(); err != nil {
		s.Err = *err
	}
	return s
}

// Commit records e as allowed under terms and claims once, durably, and then
// gives the warrant. Where the key was used before, or can't be claimed, e is
// recorded as refused, and that is returned as a *Recorded; others that are
// written at the same time don't notice.
//
// If ctx ends first, Commit returns an error and there will be no warrant: an
// entry that had not yet been taken up is not written at all, one that had been
// is in the log as allowed. The caller records the end with Refuse either way,
// under the same decision id and a context of its own.
func (l *Log) Commit(ctx context.Context, e *Entry, once Once, terms Terms) (*Warrant, error) {
	r := &request{entry: *e, terms: new(terms.clone()), once: once}
	r.entry.Code = ""
	switch {
	case r.entry.Mode != "" && r.entry.Mode != Enforce:
		return nil, unavailable(fmt.Errorf("a decision in mode %q can't give a warrant", r.entry.Mode))
	case !once.Off && (once.Key == [32]byte{} || once.Expires.IsZero()):
		return nil, unavailable(errors.New("a commit has to name its replay key, or say that it has none"))
	case terms.ID == "" || terms.Kind == "" || !terms.Expires.After(terms.NotBefore):
		return nil, unavailable(errors.New("the terms name no credential with a lifetime"))
	}
	out, err := l.submit(ctx, r)
	if err != nil {
		return nil, err
	}
	w := &Warrant{}
	w.grant = &granted{self: w, terms: *r.terms, decision: r.entry.Decision, body: r.body, outcome: out}
	return w, nil
}

// Refuse records e as refused, durably. Its code must be set; SetRefusal does it.
func (l *Log) Refuse(ctx context.Context, e *Entry) error {
	r := &request{entry: *e}
	if r.entry.Code == "" {
		return unavailable(errors.New("a refusal has to have a code"))
	}
	_, err := l.submit(ctx, r)
	return err
}

// Note records e as an event that is no answer to a request. Its Type must be
// set, and is not Decision; Message says what happened.
func (l *Log) Note(ctx context.Context, e *Entry) error {
	return l.NoteWith(ctx, e, nil)
}

// Revoke ends a credential before it expires, and records e with it, as Note
// does: the two are durable together.
func (l *Log) Revoke(ctx context.Context, e *Entry, r store.Revocation) error {
	return l.NoteWith(ctx, e, func(tx *store.Tx) error { return tx.Revoke(r) })
}

// NoteWith records e as Note does, in one transaction with what the function
// writes: an event and its effect are durable together, or neither is. An error
// of the function fails whatever is written at the same time.
func (l *Log) NoteWith(ctx context.Context, e *Entry, with func(*store.Tx) error) error {
	r := &request{entry: *e, with: with}
	r.entry.Code = ""
	if r.entry.Type == "" || r.entry.Type == Decision {
		return unavailable(errors.New("an event has to have a type of its own"))
	}
	_, err := l.submit(ctx, r)
	return err
}

// submit hands r to the writer and waits for it to become durable.
func (l *Log) submit(ctx context.Context, r *request) (outcome, error) {
	if r.entry.Type == "" {
		r.entry.Type = Decision
	}
	if r.entry.Mode == "" {
		r.entry.Mode = Enforce
	}
	if r.entry.Broker == "" {
		r.entry.Broker = l.cfg.Broker
	}
	if n := len(r.entry.Decision); n == 0 || n > 64 {
		return outcome{}, unavailable(errors.New("the entry has no decision id, or one that nobody made here"))
	}
	if err := ctx.Err(); err != nil {
		return outcome{}, unavailable(err)
	}
	// Most of the work on an entry is done here, so that callers share it.
	if err := r.serialise(); err != nil {
		return outcome{}, err
	}
	r.done = make(chan outcome, 1)
	select {
	case <-l.stop:
		return outcome{}, unavailable(errClosed)
	default:
	}
	select {
	case l.queue <- r:
	default:
		return outcome{}, proviso.Refuse(proviso.StageRecord, proviso.CodeOverloaded,
			"more requests wait to be recorded than the broker takes; try again in a few seconds").Because(fmt.Errorf("%d entries wait for the disk", cap(l.queue)))
	}
	select {
	case out := <-r.done:
		return settled(out)
	case <-ctx.Done():
		r.state.CompareAndSwap(queued, abandoned)
		return outcome{}, unavailable(ctx.Err())
	case <-l.stopped:
		// The writer answered everything that it found; perhaps also this.
		select {
		case out := <-r.done:
			return settled(out)
		default:
			return outcome{}, unavailable(errClosed)
		}
	}
}

func settled(out outcome) (outcome, error) {
	switch {
	case out.err == nil:
		return out, nil
	case out.recorded:
		return outcome{}, &Recorded{out.err}
	}
	return outcome{}, out.err
}

// serialise writes the body, without the input if it is too long with it. An
// allowed decision that doesn't fit into the record is not taken.
func (r *request) serialise() error {
	r.body, r.recorded = appendEntry(make([]byte, 0, 3<<10), &r.entry, r.terms)
	long, text := len(r.body) > maxEntry, utf8.Valid(r.body)
	if text && !long {
		return nil
	}
	if r.terms != nil && long {
		return proviso.Refuse(proviso.StageRecord, proviso.CodeLimitsContextSize,
			"the record of this decision has %d bytes, and at most %d fit: let the job's token or the grant's policy bring fewer facts", len(r.body), maxEntry)
	}
	if r.terms != nil {
		return unavailable(errors.New("the decision's input is not valid UTF-8"))
	}
	r.entry.shorten()
	r.body, r.recorded = appendEntry(r.body[:0], &r.entry, nil)
	if len(r.body) <= maxEntry {
		return nil
	}
	return unavailable(fmt.Errorf("the entry has %d bytes even without its input", len(r.body)))
}

var errClosed = errors.New("the log is closed")

func unavailable(err error) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRecord, proviso.CodeAuditUnavailable,
		"the decision could not be recorded, and nothing is issued without its record; try again, and tell the broker's operator if it stays so").Because(err)
}
