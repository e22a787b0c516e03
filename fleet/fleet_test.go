package fleet

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	r1 = "spiffe://ci.acme.example/region/eu/runner/r1"
	r2 = "spiffe://ci.acme.example/region/eu/runner/r2"
)

// yard is a fleet over a real store and a real log, with a clock that can be set.
type yard struct {
	*Fleet
	t     *testing.T
	dir   string
	db    *store.DB
	audit *audit.Log
	ahead atomic.Int64 // of the real time
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir()}
	y.open()
	t.Cleanup(y.close)
	return y
}

func (y *yard) clock() time.Time { return time.Now().Add(time.Duration(y.ahead.Load())) }

func (y *yard) open() {
	y.t.Helper()
	var err error
	y.db, err = store.Open(y.dir)
	y.must(err)
	y.audit, err = audit.Open(context.Background(), y.db, audit.Config{Origin: "proviso.acme.example/log"})
	y.must(err)
	y.Fleet, err = Open(context.Background(), y.db, y.audit, y.clock)
	y.must(err)
}

func (y *yard) reattest(name, reason string, rekeyed bool) {
	y.t.Helper()
	got, err := y.Reattest(context.Background(), name, reason)
	y.must(err)
	if got != rekeyed {
		y.t.Errorf("%s may come with another key: %v", name, got)
	}
}

func (y *yard) close() {
	_ = y.audit.Close()
	_ = y.db.Close()
}

func (y *yard) must(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// commit makes a join durable as the broker does.
func (y *yard) commit(j *Joining) error {
	now := y.clock()
	id := audit.NewDecision(now)
	_, err := y.audit.Commit(context.Background(), &audit.Entry{Decision: id, Time: now},
		audit.Once{Off: true, With: j.Write(now.Add(time.Hour)), Again: "joined before"},
		audit.Terms{ID: id, Kind: "x509-svid", NotBefore: now, Expires: now.Add(time.Hour)})
	if err == nil {
		j.Done()
	}
	return err
}

// join lets a runner join by a new token.
func (y *yard) join(name string) {
	y.t.Helper()
	token, _, err := y.NewToken(context.Background(), name, time.Minute)
	y.must(err)
	ticket, err := y.Ticket(context.Background(), token)
	y.must(err)
	j, err := y.Join(context.Background(), name, "join-token", &ticket)
	y.must(err)
	y.must(y.commit(j))
}

func wantCode(t *testing.T, what string, err error, code proviso.Code) {
	t.Helper()
	var r *proviso.Refusal
	switch {
	case code == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case code == "":
	case !errors.As(err, &r) || r.Code != code || r.Public == "" || strings.Contains(r.Public, "%!"):
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestAJoinTokenIsWorthOneJoin(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	token, expires, err := y.NewToken(ctx, r1, time.Minute)
	y.must(err)
	if left := time.Until(expires); left < 59*time.Second || left > 61*time.Second || !strings.HasPrefix(token, TokenPrefix) {
		t.Errorf("%s: %s", token, left)
	}
	for _, bad := range []string{"", TokenPrefix, token + "A", token[:len(token)-1], strings.ToUpper(token), strings.TrimPrefix(token, TokenPrefix), TokenPrefix + strings.Repeat("A", 200)} {
		_, err := y.Ticket(ctx, bad)
		wantCode(t, "a token that isn't one", err, CodeJoinToken)
	}
	first, err := y.Ticket(ctx, token)
	y.must(err)
	second, err := y.Ticket(ctx, token) // before the first has used it up
	y.must(err)
	if first.Runner() != r1 || !first.Expires().Equal(expires) {
		t.Errorf("%+v", first)
	}
	a, err := y.Join(ctx, r1, "join-token", &first)
	y.must(err)
	b, err := y.Join(ctx, r1, "join-token", &second)
	y.must(err)
	y.must(y.commit(a))
	wantCode(t, "the second with the same token", y.commit(b), proviso.CodeReplay)
	_, err = y.Ticket(ctx, token)
	wantCode(t, "a used token", err, CodeJoinToken)
	y.close()
	y.open()
	_, err = y.Ticket(ctx, token)
	wantCode(t, "a used token after a restart", err, CodeJoinToken)

	late, _, err := y.NewToken(ctx, r2, time.Second)
	y.must(err)
	ticket, err := y.Ticket(ctx, late)
	y.must(err)
	j, err := y.Join(ctx, r2, "join-token", &ticket)
	y.must(err)
	y.ahead.Store(int64(3 * time.Second))
	_, err = y.Ticket(ctx, late)
	wantCode(t, "an expired token", err, CodeJoinToken)
	wantCode(t, "a token that expired on the way", y.commit(j), proviso.CodeReplay)
	for _, life := range []time.Duration{-time.Second, time.Millisecond, MaxTokenLife + time.Second} {
		if _, _, err := y.NewToken(ctx, r2, life); err == nil {
			t.Errorf("a token of %s was made", life)
		}
	}
	// The token is nowhere in the store.
	y.close()
	files, err := filepath.Glob(filepath.Join(y.dir, "*"))
	y.must(err)
	for _, name := range files {
		data, err := os.ReadFile(name)
		y.must(err)
		if bytes.Contains(data, []byte(token)) || bytes.Contains(data, []byte(late)) {
			t.Errorf("%s holds a join token", name)
		}
	}
	y.open()
}

func TestWhoIsAdmitted(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	admits := func(what, name string, issued time.Time, code proviso.Code) {
		t.Helper()
		wantCode(t, what, y.Admits(name, issued), code)
	}
	admits("a stranger", r2, y.clock(), "")
	old := y.clock().Add(-time.Minute)
	y.join(r1)
	admits("what was issued before the join", r1, old, CodeRunnerSuperseded)
	admits("what was issued since", r1, y.clock(), "")
	admits("what doesn't say when", r1, time.Time{}, "")

	y.must(y.Ban(ctx, r1, "taken over"))
	admits("a banned runner", r1, y.clock(), CodeRunnerBanned)
	_, _, err := y.NewToken(ctx, r1, time.Minute)
	if err == nil {
		t.Error("a token was made for a banned runner")
	}
	y.close()
	y.open()
	admits("a banned runner after a restart", r1, y.clock(), CodeRunnerBanned)
	if _, err := y.Reattest(ctx, r1, ""); err == nil {
		t.Error("a banned runner was told to join")
	}
	y.must(y.Unban(ctx, r1, ""))
	admits("after the ban", r1, y.clock(), CodeRunnerMustJoin)
	if err := y.Unban(ctx, r1, ""); err == nil {
		t.Error("a ban was lifted that wasn't there")
	}
	held := y.clock()
	y.join(r1)
	admits("after the new join", r1, y.clock(), "")
	admits("what it held before", r1, held.Truncate(time.Second), CodeRunnerSuperseded)
	y.reattest(r1, "a new disk", false)
	admits("told to join again", r1, y.clock(), CodeRunnerMustJoin)

	// A runner of another trust domain, which never joined here.
	foreign := "spiffe://runners.acme.example/runner/7"
	y.must(y.Ban(ctx, foreign, ""))
	admits("a foreign runner", foreign, y.clock(), CodeRunnerBanned)
	if _, err := y.Reattest(ctx, foreign, ""); err == nil {
		t.Error("a foreign runner was told to join")
	}
	y.must(y.Unban(ctx, foreign, ""))
	admits("a foreign runner after its ban", foreign, y.clock(), "")
	for _, reason := range []string{"two\nlines", strings.Repeat("x", 501), "\xff"} {
		if err := y.Ban(ctx, r1, reason); err == nil {
			t.Errorf("the reason %q was taken", reason)
		}
	}
}

// One SVID in wrong hands must not fill the record, and a job that asks its agent
// again and again must not keep the runner from renewing.
func TestARunnerIsPaced(t *testing.T) {
	y := newYard(t)
	y.join(r1)
	y.join(r2)
	for i := range svidsBurst {
		if err := y.Paced(r1, false); err != nil {
			t.Fatalf("the SVID %d of a machine's workloads: %v", i, err)
		}
	}
	refused := 0
	for range 100 {
		if err := y.Paced(r1, false); err != nil {
			wantCode(t, "beyond the pace", err, proviso.CodeRateLimited)
			refused++
		}
	}
	if refused < 90 { // some of the real time passes
		t.Errorf("only %d of 100 were refused", refused)
	}
	y.must(y.Paced(r1, true))
	y.must(y.Paced(r2, false))
	y.ahead.Add(int64(time.Minute))
	y.must(y.Paced(r1, false))
	if err := y.Paced("spiffe://ci.acme.example/nobody", true); err != nil || len(y.paces) != 2 {
		t.Errorf("a name that isn't known: %v, %d are remembered", err, len(y.paces))
	}
}

// A ban that comes while a join is on its way is not lost, neither in memory nor
// on the disk.
func TestABanWinsOverAJoin(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	token, _, err := y.NewToken(ctx, r1, time.Minute)
	y.must(err)
	ticket, err := y.Ticket(ctx, token)
	y.must(err)
	j, err := y.Join(ctx, r1, "join-token", &ticket)
	y.must(err)
	y.must(y.Ban(ctx, r1, "in between"))
	y.must(y.commit(j))
	wantCode(t, "in memory", y.Admits(r1, y.clock()), CodeRunnerBanned)
	y.close()
	y.open()
	wantCode(t, "on the disk", y.Admits(r1, y.clock()), CodeRunnerBanned)
	y.must(y.Unban(ctx, r1, ""))
	wantCode(t, "after the ban", y.Admits(r1, y.clock()), CodeRunnerMustJoin)
}

// By evidence a runner joins once: whoever else can get the same evidence on the
// machine is not the runner.
func TestEvidenceJoinsOnce(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	join := func(evidence string) error {
		j, err := y.Join(ctx, r1, evidence, nil)
		if err == nil {
			err = y.commit(j)
		}
		return err
	}
	y.must(join("aws/ec2/i-1"))
	wantCode(t, "again", join("aws/ec2/i-1"), CodeRunnerJoined)
	y.ahead.Store(int64(2 * time.Hour)) // its SVID has ended
	wantCode(t, "other evidence of the same name", join("kubernetes/cluster/p1"), CodeRunnerJoined)
	y.must(join("aws/ec2/i-1"))
	y.reattest(r1, "", false)
	y.must(join("kubernetes/cluster/p1"))
	y.must(y.Ban(ctx, r1, ""))
	wantCode(t, "banned", join("kubernetes/cluster/p1"), CodeRunnerBanned)
}

// A machine whose evidence counts only with its key may come with another one
// when an operator says so: by the name that it joined as, or by that of its
// evidence where it never joined. A ban isn't lifted by it.
func TestAnotherKey(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	machine, key := [32]byte{1}, [32]byte{2}
	_, err := y.db.BindRunnerKey(ctx, machine, key, "ec2/i-1", y.clock())
	y.must(err)
	opened := func(what string, want bool) {
		t.Helper()
		if k, known, err := y.db.RunnerKey(ctx, machine); err != nil || !known || k.Opened.IsZero() == want {
			t.Errorf("%s: %+v %v %v", what, k, known, err)
		}
	}
	for _, name := range []string{"ec2/i-2", "vms/i-1"} {
		if _, err := y.Reattest(ctx, name, ""); !errors.Is(err, errUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	y.must(y.Ban(ctx, "ec2/i-1", ""))
	if _, err := y.Reattest(ctx, "ec2/i-1", ""); err == nil {
		t.Error("a banned machine was allowed another key")
	}
	opened("nobody's word", false)
	y.must(y.Unban(ctx, "ec2/i-1", ""))
	y.reattest("ec2/i-1", "a new disk", true)
	opened("its own name", true)
	y.must(y.Admits("ec2/i-1", y.clock())) // it never joined, so it needn't again

	_, err = y.db.BindRunnerKey(ctx, machine, key, "ec2/i-1", y.clock())
	y.must(err)
	j, err := y.Join(ctx, r1, "aws/ec2/i-1", nil)
	y.must(err)
	if j.Again() != "" {
		t.Errorf("a first join by the permission %q", j.Again())
	}
	y.must(y.commit(j))
	y.reattest(r1, "", true)
	opened("the name that it joined as", true)
	wantCode(t, "until it joins", y.Admits(r1, y.clock()), CodeRunnerMustJoin)
	j, err = y.Join(ctx, r1, "aws/ec2/i-1", nil)
	y.must(err)
	again := j.Again()
	y.must(y.commit(j))
	y.reattest(r1, "", true)
	j, err = y.Join(ctx, r1, "aws/ec2/i-1", nil)
	y.must(err)
	if again == "" || j.Again() == again {
		t.Errorf("two permissions are both called %q", again)
	}
}

func TestOrders(t *testing.T) {
	y := newYard(t)
	ctx := context.Background()
	y.join(r1)
	y.join("spiffe://ci.acme.example/region/us/runner/r1")
	for what, o := range map[string]Order{
		"two of that name":    {Do: "ban", Name: "r1"},
		"nobody of that name": {Do: "ban", Name: "r9"},
		"no name":             {Do: "ban"},
		"half a name":         {Do: "ban", Name: "1"},
		"a name with a line":  {Do: "ban", Name: "a/b\nc"},
		"nobody's ban":        {Do: "unban", Name: "spiffe://ci.acme.example/x"},
		"no such order":       {Do: "promote", Name: r1},
		"a fleet without any": {Do: "token", Values: map[string]string{"id": "r1"}},
	} {
		if answer, err := y.Obey(ctx, o, nil); err == nil {
			t.Errorf("%s: %+v", what, answer)
		}
	}
	answer, err := y.Obey(ctx, Order{Do: "ban", Name: r1, Reason: "lost"}, nil)
	y.must(err)
	if answer.Name != r1 {
		t.Errorf("%+v", answer)
	}
	answer, err = y.Obey(ctx, Order{Do: "list"}, nil)
	if err != nil || len(answer.Runners) != 2 || answer.Runners[0].Reason != "lost" || answer.Runners[0].Banned.IsZero() || answer.Runners[1].Evidence != "join-token" {
		t.Errorf("%+v %v", answer, err)
	}
}
