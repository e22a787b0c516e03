package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("PROVISO_TEST_CHILD"); role != "" {
		os.Exit(child(role, os.Getenv("PROVISO_TEST_DIR")))
	}
	goleak.VerifyTestMain(m)
}

const origin = "proviso.test/log"

// clock is a clock that a test sets, and can stop the writer with.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	reached chan struct{} // non-nil: told that somebody asks
	release chan struct{} // and when to answer
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	reached, release := c.reached, c.release
	c.reached, c.release = nil, nil
	now := c.now
	c.mu.Unlock()
	if reached != nil {
		close(reached)
		<-release
	}
	return now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// hold stops the next who asks for the time, which is the writer with a batch
// in its hands.
func (c *clock) hold() (reached, release chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reached, c.release = make(chan struct{}), make(chan struct{})
	return c.reached, c.release
}

// testLog is a log in a directory of its own, that can be closed and opened again.
type testLog struct {
	*Log
	t     testing.TB
	dir   string
	clock *clock
	db    *store.DB
	cfg   Config
}

func newLog(t testing.TB) *testLog {
	l := &testLog{t: t, dir: t.TempDir(), clock: newClock()}
	l.cfg = Config{Origin: origin, Broker: "test", Now: l.clock.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	l.open()
	t.Cleanup(l.close)
	return l
}

func (l *testLog) open() {
	l.t.Helper()
	var err error
	if l.db, err = store.Open(l.dir); err != nil {
		l.t.Fatal(err)
	}
	if l.Log, err = Open(context.Background(), l.db, l.cfg); err != nil {
		l.db.Close()
		l.t.Fatal(err)
	}
}

func (l *testLog) close() {
	if l.Log != nil {
		l.Close()
		l.db.Close()
		l.Log = nil
	}
}

func (l *testLog) reopen() {
	l.t.Helper()
	l.close()
	l.open()
}

func keyOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func (l *testLog) once(key string) Once {
	return Once{Key: keyOf(key), Expires: l.clock.now.Add(time.Hour)}
}

var ctx = context.Background()

// entry is a small decision.
func (l *testLog) entry(grant string) *Entry {
	return &Entry{Decision: NewDecision(l.clock.now), Time: l.clock.now, Grant: grant, Issuer: "github",
		TokenHash: "ab12", Input: text("branch", "main", "grant", grant)}
}

func (l *testLog) terms(id string) Terms {
	return Terms{ID: id, Kind: "jwt", Audience: "https://deploy.test", Subject: "job", Scope: []string{"deploy"},
		NotBefore: l.clock.now, Expires: l.clock.now.Add(10 * time.Minute)}
}

// mustCommit records an allowed decision.
func (l *testLog) mustCommit(name string) *Warrant {
	l.t.Helper()
	w, err := l.Commit(ctx, l.entry("grant-"+name), l.once(name), l.terms("id-"+name))
	if err != nil {
		l.t.Fatal(err)
	}
	return w
}

// fill records n decisions, in commits of different sizes.
func (l *testLog) fill(n int) {
	l.t.Helper()
	before := l.Status().Size
	for n > 0 {
		size := min(n, 1+(n*7)%23)
		var wg sync.WaitGroup
		for i := range size {
			wg.Go(func() {
				e := l.entry(fmt.Sprintf("grant-%d", n-i))
				e.SetRefusal(proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyDenied, "no"))
				if err := l.Refuse(ctx, e); err != nil {
					l.t.Error(err)
				}
			})
		}
		wg.Wait()
		n -= size
		before += int64(size)
	}
	if l.Status().Size != before {
		l.t.Fatalf("the log has %d entries, %d were recorded", l.Status().Size, before)
	}
}

// entries reads the log back.
func (l *testLog) entries() []Summary {
	l.t.Helper()
	var out []Summary
	for s, err := range Search(ctx, l.db, Query{}) {
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func (l *testLog) verify() Report {
	l.t.Helper()
	r, err := VerifyLog(ctx, StoreSource(l.db), l.VerifierKey(), Known{})
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func wantCode(t testing.TB, err error, stage proviso.Stage, code proviso.Code) {
	t.Helper()
	var r *proviso.Refusal
	if !errors.As(err, &r) || r.Stage != stage || r.Code != code {
		t.Errorf("the error is %v, want a refusal at %s with code %s", err, stage, code)
	} else if len(r.Public) < 20 {
		t.Errorf("the refusal says only %q to people", r.Public)
	}
}

// found compares a finding's code and entry.
func wantFinding(t testing.TB, err error, code proviso.Code, index int64) {
	t.Helper()
	var f *Finding
	if !errors.As(err, &f) {
		t.Errorf("the verifier says %v, want %s at entry %d", err, code, index)
		return
	}
	if f.Code != code || f.Index != index {
		t.Errorf("the verifier found %v, want %s at entry %d", f, code, index)
	}
}

// isCanonical reports whether an entry is what reading and writing it gives.
func isCanonical(t testing.TB, entry []byte) {
	t.Helper()
	v, err := document.Parse(entry, entryLimits)
	if err != nil {
		t.Fatalf("%s is not JSON: %v", entry, err)
	}
	if again := document.AppendCanonical(nil, v); !slices.Equal(again, entry) {
		t.Errorf("not canonical:\n%s\nshould be\n%s", entry, again)
	}
}
