package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
)

// What has not all that a record needs gives no warrant, and leaves no trace.
func TestCommitRefuses(t *testing.T) {
	l := newLog(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		edit  func(*Entry, *Once, *Terms)
		code  proviso.Code
		stays bool
	}{
		"no replay key":             {edit: func(_ *Entry, o *Once, _ *Terms) { *o = Once{} }, code: proviso.CodeAuditUnavailable},
		"a key without an expiry":   {edit: func(_ *Entry, o *Once, _ *Terms) { o.Expires = time.Time{} }, code: proviso.CodeAuditUnavailable},
		"an expiry without a key":   {edit: func(_ *Entry, o *Once, _ *Terms) { o.Key = [32]byte{} }, code: proviso.CodeAuditUnavailable},
		"a simulation":              {edit: func(e *Entry, _ *Once, _ *Terms) { e.Mode = Simulate }, code: proviso.CodeAuditUnavailable},
		"a replay of history":       {edit: func(e *Entry, _ *Once, _ *Terms) { e.Mode = Replay }, code: proviso.CodeAuditUnavailable},
		"no decision id":            {edit: func(e *Entry, _ *Once, _ *Terms) { e.Decision = "" }, code: proviso.CodeAuditUnavailable},
		"a decision id without end": {edit: func(e *Entry, _ *Once, _ *Terms) { e.Decision = strings.Repeat("x", 65) }, code: proviso.CodeAuditUnavailable},
		"an input that is no text":  {edit: func(e *Entry, _ *Once, _ *Terms) { e.Input = text("\xff", "x") }, code: proviso.CodeAuditUnavailable},
		"no credential id":          {edit: func(_ *Entry, _ *Once, t *Terms) { t.ID = "" }, code: proviso.CodeAuditUnavailable},
		"no kind":                   {edit: func(_ *Entry, _ *Once, t *Terms) { t.Kind = "" }, code: proviso.CodeAuditUnavailable},
		"no lifetime":               {edit: func(_ *Entry, _ *Once, t *Terms) { t.Expires = t.NotBefore }, code: proviso.CodeAuditUnavailable},
		"a caller that has left":    {ctx: ended, code: proviso.CodeAuditUnavailable},
		"facts without end": {edit: func(e *Entry, _ *Once, _ *Terms) { e.Input = text("x", strings.Repeat("long ", 20_000)) },
			code: proviso.CodeLimitsContextSize},
		"a key that expires in ten thousand years": {edit: func(_ *Entry, o *Once, _ *Terms) { o.Expires = o.Expires.AddDate(10_000, 0, 0) },
			code: proviso.CodeReplayStore, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			before := l.Status().Size
			e, once, terms := l.entry("g"), l.once(name), l.terms("id")
			if c.edit != nil {
				c.edit(e, &once, &terms)
			}
			if c.ctx == nil {
				c.ctx = ctx
			}
			w, err := l.Commit(c.ctx, e, once, terms)
			if w != nil {
				t.Error("there is a warrant")
			}
			wantCode(t, err, proviso.StageRecord, c.code)
			if wrote := l.Status().Size > before; wrote != c.stays {
				t.Errorf("an entry was written: %v, want %v", wrote, c.stays)
			}
			if said := errors.As(err, new(*Recorded)); said != c.stays {
				t.Errorf("the refusal says that it is recorded: %v, want %v", said, c.stays)
			}
		})
	}
	wantCode(t, l.Refuse(ctx, l.entry("g")), proviso.StageRecord, proviso.CodeAuditUnavailable)    // no code
	wantCode(t, l.Note(ctx, l.entry("g")), proviso.StageRecord, proviso.CodeAuditUnavailable)      // no type
	wantCode(t, l.Note(ctx, &Entry{Type: "x"}), proviso.StageRecord, proviso.CodeAuditUnavailable) // no id
	l.verify()
}

// A refusal is recorded however long it is.
func TestRefuseIsRecordedWhole(t *testing.T) {
	l := newLog(t)
	e := l.entry("g")
	e.Input = text("x", strings.Repeat("long ", 20_000))
	e.SetRefusal(proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyDenied, "no"))
	for range 100 {
		e.Reasons = append(e.Reasons, proviso.Reason{Message: strings.Repeat("because ", 100)})
	}
	if err := l.Refuse(ctx, e); err != nil {
		t.Fatal(err)
	}
	got := l.entries()[0]
	if hash, ok := got.Document.Get("input_hash").Text(); !ok || len(hash) != 64 || !got.Document.Get("input").IsAbsent() || got.Code != proviso.CodePolicyDenied {
		t.Errorf("the record is %v", got.Document)
	}
}

// What outsiders send can't make the log unreadable.
func TestHostileTextIsRecorded(t *testing.T) {
	l := newLog(t)
	for _, hostile := range []string{"\xff\xfe", "\x00\x1f\u2028\"\\", `","result":"allowed`, strings.Repeat("x", 3*maxEntry), "\xed\xa0\x80"} {
		e := l.entry(hostile)
		e.JTI, e.Actor, e.Input = hostile, hostile, e.Input.With(document.Member("x", document.StringOf(hostile)))
		e.SetRefusal(&proviso.Refusal{Stage: proviso.StageRequest, Code: proviso.CodeTargetUnknown, Public: hostile, Reasons: []proviso.Reason{{Message: hostile}}})
		if err := l.Refuse(ctx, e); err != nil && len(hostile) < maxEntry {
			t.Errorf("%.20q: %v", hostile, err)
		}
	}
	l.reopen()
	if r := l.verify(); r.Allowed != 0 || r.Refused != 4 {
		t.Errorf("the report is %+v", r)
	}
	for _, s := range l.entries() {
		isCanonical(t, []byte(s.Document.String()))
	}
}

// A replay whose record would be too long is still recorded.
func TestLongReplayIsRecorded(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	for _, extra := range []int{0, 100, 200, 300} {
		e := l.entry("g")
		e.Grant = strings.Repeat("g", maxEntry-900+extra)
		_, err := l.Commit(ctx, e, l.once("a"), Terms{ID: "x", Kind: "k", NotBefore: l.clock.now, Expires: l.clock.now.Add(time.Second)})
		var r *proviso.Refusal
		if !errors.As(err, &r) || r.Code != proviso.CodeReplay && r.Code != proviso.CodeLimitsContextSize {
			t.Errorf("with %d bytes more: %v", extra, err)
		}
	}
	l.verify()
}

// A log can be verified while it is written.
func TestVerifyWhileWriting(t *testing.T) {
	l := newLog(t)
	l.fill(300)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				l.fill(40)
			}
		}
	}()
	for range 8 {
		ro, err := store.OpenReadOnly(l.dir)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := VerifyLog(ctx, StoreSource(ro), l.VerifierKey(), Known{}); err != nil || r.Size < 300 {
			t.Errorf("%+v, %v", r, err)
		}
		ro.Close()
	}
	close(stop)
	<-done
}

// Of a thousand simultaneous copies of one token exactly one gets a warrant, the
// others are refused as replays, and all of them are recorded.
func TestThousandCopies(t *testing.T) {
	l := newLog(t)
	const copies = 1000
	start := make(chan struct{})
	var mu sync.Mutex
	var warrants []*Warrant
	replays := 0
	var wg sync.WaitGroup
	for range copies {
		wg.Go(func() {
			e, terms := l.entry("g"), l.terms("id")
			<-start
			w, err := l.Commit(ctx, e, l.once("the one token"), terms)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				warrants = append(warrants, w)
				return
			}
			wantCode(t, err, proviso.StageRecord, proviso.CodeReplay)
			replays++
		})
	}
	// Others come at the same time, and don't notice.
	for i := range 50 {
		wg.Go(func() {
			<-start
			name := string(rune('a' + i))
			if _, err := l.Commit(ctx, l.entry("other"), l.once(name), l.terms(name)); err != nil {
				t.Errorf("a token of its own: %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if len(warrants) != 1 || replays != copies-1 {
		t.Fatalf("%d of %d copies got a warrant, %d were refused as replays", len(warrants), copies, replays)
	}
	allowed, refused := 0, 0
	for _, s := range l.entries() {
		switch {
		case s.Grant != "g":
		case s.Result == "allowed" && s.Credential == "id" && s.Decision == warrants[0].Decision():
			allowed++
		case s.Result == "refused" && s.Code == proviso.CodeReplay && s.Credential == "" && s.Document.Get("stage").String() == `"record"`:
			refused++
		}
	}
	if allowed != 1 || refused != copies-1 {
		t.Errorf("the log has %d allowed and %d refused entries of %d copies", allowed, refused, copies)
	}
	if r := l.verify(); r.Allowed != 51 || r.Refused != copies-1 {
		t.Errorf("the verifier counts %+v", r)
	}
}

// Neither a restart nor time lets a key be used again before it has expired.
func TestReplayAfterRestart(t *testing.T) {
	l := newLog(t)
	once := l.once("a")
	l.mustCommit("a")
	for _, d := range []time.Duration{0, 30 * time.Minute, 59*time.Minute + 59*time.Second} {
		l.clock.set(newClock().now.Add(d))
		l.reopen()
		l.sweep()
		_, err := l.Commit(ctx, l.entry("g"), once, l.terms("id"))
		wantCode(t, err, proviso.StageRecord, proviso.CodeReplay)
	}
	// Long after it has expired it is forgotten. The token is refused for its
	// own age then, before anybody asks here.
	l.clock.set(newClock().now.Add(2 * time.Hour))
	l.mustCommit("b")
	l.reopen()
	if n := l.Status().Keys; n != 1 {
		t.Errorf("%d keys are kept, one has not expired", n)
	}
}

// A store that is full of keys refuses, with one entry, and forgets nothing: the
// same token is taken as soon as there is room.
func TestFullOfKeys(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	for _, room := range []int{1, 2, 3} { // for the token, for its runner too, but not for "once"
		l.db.LimitKeys(room)
		once, before := l.once("b"), l.Status().Size
		once.Carried = Carried{Token: [32]byte{1}, With: [32]byte{2}, Expires: once.Expires}
		_, err := l.Commit(ctx, l.entry("g"), once, l.terms("id"))
		wantCode(t, err, proviso.StageRecord, proviso.CodeReplayStoreFull)
		if !errors.As(err, new(*Recorded)) || l.Status().Size != before+1 {
			t.Errorf("with room for %d keys: %v, and %d entries", room, err, l.Status().Size-before)
		}
	}
	l.db.LimitKeys(4)
	once := l.once("b")
	once.Carried = Carried{Token: [32]byte{1}, With: [32]byte{2}, Expires: once.Expires}
	if _, err := l.Commit(ctx, l.entry("g"), once, l.terms("id")); err != nil {
		t.Errorf("with room: %v", err)
	}
	_, err := l.Commit(ctx, l.entry("g"), l.once("a"), l.terms("id"))
	wantCode(t, err, proviso.StageRecord, proviso.CodeReplay)
	l.verify()
}

// A token is taken from the runner that it came with first, for every grant, and
// from no other, also after a restart.
func TestCarriedByOneRunner(t *testing.T) {
	l := newLog(t)
	from := func(grant string, runner byte) Once {
		once := l.once(grant)
		once.Carried = Carried{Token: [32]byte{1}, With: [32]byte{2, runner}, Expires: once.Expires}
		return once
	}
	for _, grant := range []string{"a", "b"} {
		if _, err := l.Commit(ctx, l.entry("g"), from(grant, 1), l.terms("id")); err != nil {
			t.Errorf("grant %s from its runner: %v", grant, err)
		}
		l.reopen()
		_, err := l.Commit(ctx, l.entry("g"), from("on another "+grant, 2), l.terms("id"))
		wantCode(t, err, proviso.StageRunner, proviso.CodeRunnerJobMismatch)
	}
	if r := l.verify(); r.Allowed != 2 || r.Refused != 2 {
		t.Errorf("the record has %+v", r)
	}
}

// Once is given up by name only, and then really.
func TestOnceOff(t *testing.T) {
	l := newLog(t)
	for range 2 {
		if _, err := l.Commit(ctx, l.entry("g"), Once{Off: true}, l.terms("id")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOverloaded(t *testing.T) {
	l := newLog(t)
	l.close()
	l.cfg.MaxQueue = 4
	l.open()
	reached, release := l.clock.hold()
	const callers = maxBatch + 100
	errs := make(chan error, callers)
	go func() {
		_, err := l.Commit(ctx, l.entry("g"), l.once("first"), l.terms("id"))
		errs <- err
	}()
	<-reached // the writer is busy with one
	for i := range callers - 1 {
		go func() {
			_, err := l.Commit(ctx, l.entry("g"), l.once(time.Duration(i).String()), l.terms("id"))
			errs <- err
		}()
	}
	for range callers - 1 - 4 { // no one waits for these
		wantCode(t, <-errs, proviso.StageRecord, proviso.CodeOverloaded)
	}
	close(release)
	for range 5 {
		if err := <-errs; err != nil {
			t.Errorf("who was in the queue was refused: %v", err)
		}
	}
	if n := l.Status().Size; n != 5 {
		t.Errorf("%d entries were written", n)
	}
}

// A caller that gives up gets no warrant. What the writer had not taken up is
// not written; what it had is in the record, and its key is used up.
func TestCallerGivesUp(t *testing.T) {
	l := newLog(t)
	reached, release := l.clock.hold()
	commit := func(c context.Context, name string) chan error {
		done := make(chan error)
		go func() {
			w, err := l.Commit(c, l.entry(name), l.once(name), l.terms(name))
			if w != nil {
				t.Error("there is a warrant")
			}
			done <- err
		}()
		return done
	}
	c, cancel := context.WithCancel(ctx)
	taken := commit(c, "taken")
	<-reached
	waiting := commit(c, "waiting")
	for l.Status().Waiting == 0 {
		runtime.Gosched()
	}
	cancel()
	for _, done := range []chan error{taken, waiting} {
		err := <-done
		wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the cause is not named: %v", err)
		}
	}
	close(release)
	l.mustCommit("after")
	var grants []string
	for _, s := range l.entries() {
		grants = append(grants, s.Grant)
	}
	if strings.Join(grants, " ") != "taken grant-after" {
		t.Errorf("the log has %v", grants)
	}
	_, err := l.Commit(ctx, l.entry("g"), l.once("taken"), l.terms("id"))
	wantCode(t, err, proviso.StageRecord, proviso.CodeReplay)
	l.mustCommit("waiting")
}

func TestClosedLogTakesNothing(t *testing.T) {
	l := newLog(t)
	log, e, once, terms := l.Log, l.entry("g"), l.once("a"), l.terms("id")
	l.mustCommit("before")
	l.close()
	_, err := log.Commit(ctx, e, once, terms)
	wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	l.open()
	l.mustCommit("a")
}

// Without a store there is no record, and so there is nothing.
func TestStoreGone(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	l.db.Close()
	_, err := l.Commit(ctx, l.entry("g"), l.once("b"), l.terms("id"))
	wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
	l.reopen()
	l.mustCommit("b")
}

// After a write of which nobody knows what it left on the disk, the log takes
// nothing more until it is opened again and has verified itself.
func TestLogInDoubtStopsForGood(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	path := filepath.Join(t.TempDir(), store.FileName)
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, doubt := store.OpenReadOnly(path)
	if !store.InDoubt(doubt) {
		t.Fatalf("%v should leave doubt", doubt)
	}
	l.reopen() // the writer has nothing in its hands
	l.fail(doubt)
	for range 2 {
		_, err := l.Commit(ctx, l.entry("g"), l.once("b"), l.terms("id"))
		wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
	}
	if l.Status().Err == nil {
		t.Error("the status doesn't say so")
	}
	l.reopen()
	l.mustCommit("b")
	l.verify()
}

// A failed commit that turns out to be on the disk after all is not built on.
func TestDivergedStoreIsNoticed(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	l.reopen() // the writer has nothing in its hands
	l.fail(errors.New("the disk is full"))
	tx, err := l.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Append(store.Batch{First: 1, Size: 2, Note: []byte("x"), Entries: []byte("y")}), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	_, err = l.Commit(ctx, l.entry("g"), l.once("b"), l.terms("id"))
	wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
	if l.Status().Err == nil {
		t.Error("the log goes on")
	}
}

func TestClockThatIsOff(t *testing.T) {
	l := newLog(t)
	l.mustCommit("a")
	e, once, terms := l.entry("g"), l.once("b"), l.terms("id")
	l.clock.set(time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC))
	_, err := l.Commit(ctx, e, once, terms)
	wantCode(t, err, proviso.StageRecord, proviso.CodeAuditUnavailable)
	// A clock that goes back makes the times of recording stand still.
	l.clock.set(newClock().now.Add(-time.Hour))
	l.mustCommit("b")
	l.reopen()
	l.mustCommit("c")
	l.verify()
	for _, s := range l.entries() {
		if !s.Recorded.Equal(newClock().now) {
			t.Errorf("entry %d was recorded at %v", s.Index, s.Recorded)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(l *testLog)
		want   string
	}{
		"no key":             {func(l *testLog) { os.Remove(filepath.Join(l.dir, KeyFile)) }, "is missing, and the log has entries"},
		"a key that is none": {func(l *testLog) { os.WriteFile(filepath.Join(l.dir, KeyFile), []byte("PRIVATE+KEY+secret"), 0o600) }, "is not a signed note's private key"},
		"another key": {func(l *testLog) {
			other := newLog(l.t)
			data, _ := os.ReadFile(filepath.Join(other.dir, KeyFile))
			os.WriteFile(filepath.Join(l.dir, KeyFile), data, 0o600)
		}, "is damaged"},
		"another origin":                  {func(l *testLog) { l.cfg.Origin = "other.test/log" }, "keeps its origin for life"},
		"an altered entry":                {func(l *testLog) { l.alter(2, alterText) }, "don't add up to its signed checkpoint"},
		"an entry taken away":             {func(l *testLog) { l.sql("DELETE FROM batch WHERE first = 1") }, "the entries 1 to 1 are missing"},
		"a tile taken away":               {func(l *testLog) { l.fillTo(600); l.sql("DELETE FROM tile WHERE id >> 56 = 1") }, "hash tile tile/1/000.p/2 is missing"},
		"a torn commit":                   {func(l *testLog) { l.alter(2, func(b []byte) []byte { return b[:len(b)-1] }) }, "ends within this one"},
		"a commit that can't be unpacked": {func(l *testLog) { l.sql("UPDATE batch SET entries = x'ffffff' WHERE first = 2") }, "can't be unpacked"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			for _, k := range []string{"a", "b", "c"} {
				l.mustCommit(k)
			}
			c.damage(l)
			l.close()
			db, err := store.Open(l.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			log, err := Open(ctx, db, l.cfg)
			if err == nil {
				log.Close()
				t.Fatal("the log was opened")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("the error is %q, it should speak of %q", err, c.want)
			}
		})
	}
}

func TestKeyIsForTheOwner(t *testing.T) {
	l := newLog(t)
	info, err := os.Stat(filepath.Join(l.dir, KeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v (%v)", info.Mode(), err)
	}
	vkey, err := os.ReadFile(filepath.Join(l.dir, VKeyFile))
	if err != nil || strings.TrimSpace(string(vkey)) != l.VerifierKey() || !strings.HasPrefix(l.VerifierKey(), origin+"+") {
		t.Errorf("the public key file has %q (%v)", vkey, err)
	}
	before := l.VerifierKey()
	l.reopen()
	if l.VerifierKey() != before {
		t.Error("the key has changed")
	}
}

// A log goes on where it was, at sizes around the borders of tiles.
func TestReopenAtTileBorders(t *testing.T) {
	l := newLog(t)
	for _, size := range []int64{1, 255, 256, 257, 511, 512, 700, 768} {
		l.fillTo(size)
		l.reopen()
		w := l.mustCommit(time.Duration(size).String())
		r, err := w.Receipt()
		if err != nil {
			t.Fatal(err)
		}
		if s, err := VerifyReceipt(r, l.VerifierKey()); err != nil || s.Index != size {
			t.Errorf("the receipt at size %d: %v, %v", size, s.Index, err)
		}
	}
	if r := l.verify(); r.Size != 769 {
		t.Errorf("the log has %d entries", r.Size)
	}
}

func (l *testLog) fillTo(size int64) { l.fill(int(size - l.Status().Size)) }

func TestNoteAndRevoke(t *testing.T) {
	l := newLog(t)
	w := l.mustCommit("a")
	e := &Entry{Type: "revocation", Decision: NewDecision(l.clock.now), Parent: w.Decision(), Time: l.clock.now, Actor: "mira", Message: "the runner was taken over"}
	err := l.Revoke(ctx, e, store.Revocation{ID: "id-a", Kind: "jwt", Decision: w.Decision(), Expires: l.clock.now.Add(time.Hour), Revoked: l.clock.now, Reason: e.Message})
	if err != nil {
		t.Fatal(err)
	}
	if gone, err := l.db.Revoked(ctx, "id-a"); !gone || err != nil {
		t.Errorf("the credential is revoked: %v (%v)", gone, err)
	}
	got := l.entries()[1]
	if got.Type != "revocation" || got.Result != "noted" || got.Parent != w.Decision() || got.Message != e.Message {
		t.Errorf("recorded was %v", got.Document)
	}
	isCanonical(t, []byte(got.Document.String()))
}

func TestWarrantIsUsedOnce(t *testing.T) {
	l := newLog(t)
	w := l.mustCommit("a")
	copied := &Warrant{grant: w.grant} // what a careless copy would be
	for name, bad := range map[string]*Warrant{"nil": nil, "the zero warrant": {}, "a copy": copied} {
		if _, err := bad.Redeem(); !errors.Is(err, ErrNoWarrant) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	redeemed := 0
	for range 100 {
		wg.Go(func() {
			terms, err := w.Redeem()
			mu.Lock()
			defer mu.Unlock()
			if err == nil && terms.ID == "id-a" {
				redeemed++
			} else if !errors.Is(err, ErrRedeemed) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if redeemed != 1 {
		t.Errorf("the warrant was redeemed %d times", redeemed)
	}
	if _, err := (&Warrant{}).Receipt(); !errors.Is(err, ErrNoWarrant) {
		t.Errorf("the zero warrant has a receipt (%v)", err)
	}
	if _, err := (&Warrant{}).AppendReceipt(nil); !errors.Is(err, ErrNoWarrant) {
		t.Errorf("the zero warrant has a receipt (%v)", err)
	}
}

// What a caller changes after Commit doesn't change what was permitted.
func TestWarrantKeepsItsTerms(t *testing.T) {
	l := newLog(t)
	terms := l.terms("id")
	w, err := l.Commit(ctx, l.entry("g"), l.once("a"), terms)
	if err != nil {
		t.Fatal(err)
	}
	terms.Scope[0] = "everything"
	got, err := w.Redeem()
	if err != nil || got.Scope[0] != "deploy" {
		t.Errorf("the terms are %v (%v)", got, err)
	}
	if s := l.entries()[0]; s.Document.At("credential", "scope").String() != `["deploy"]` {
		t.Errorf("recorded was %v", s.Document)
	}
}
