// Package fleet is the standing of runners: who may join the broker's own fleet
// by a join token, who has joined, and who is banned. It owns the tables
// join_token and runner of the store and what is known of them in memory; it
// verifies no evidence and mints nothing, which the packages runner and
// credential do.
//
// A runner is called by its name here: its SPIFFE ID or, where its evidence
// gives none, ENTRY/ID as it is in the configuration. Runners of foreign trust
// domains can be banned too; they only can't join.
//
// # What holds
//
// A join token is worth one join: it is used up in the transaction that makes
// the join's decision durable, and whoever comes second, at the same instant or
// after a restart, is refused. The store has its hash only. A ban is durable,
// and recorded in the log in the same transaction, before the command that
// ordered it returns; from then on no exchange, join or renewal of the runner
// is granted. What was issued to a runner before its newest join, or before it
// was told to join again, is worth nothing afterwards: two machines are never
// one runner for longer than it takes to notice.
package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/time/rate"
)

// Refusals that only this package can raise, all at stage runner.
const (
	// CodeRunnerBanned: the runner's evidence is good, and somebody has banned it.
	CodeRunnerBanned proviso.Code = "runner_banned" // 400 invalid_request
	// CodeRunnerMustJoin: the runner has to join before anything is issued to it.
	CodeRunnerMustJoin proviso.Code = "runner_must_join" // 400 invalid_request
	// CodeRunnerSuperseded: the evidence was issued before the runner's newest join.
	CodeRunnerSuperseded proviso.Code = "runner_superseded" // 400 invalid_request
	// CodeRunnerJoined: the runner has joined, and joins again only when told to.
	CodeRunnerJoined proviso.Code = "runner_joined" // 400 invalid_request
	// CodeJoinToken: the join token is not one, was used, or has expired.
	CodeJoinToken proviso.Code = "join_token" // 400 invalid_request
	// CodeFleetFull: there are MaxRunners runners.
	CodeFleetFull proviso.Code = "fleet_full" // 503 server_error
)

// Bounds.
const (
	// MaxRunners bounds the runners that are known, and with it the memory that
	// they take, about 200 bytes each.
	MaxRunners = 1 << 20
	// MaxTokenLife bounds a join token's: it is typed or copied soon, or leaks.
	MaxTokenLife = 7 * 24 * time.Hour
	// DefaultTokenLife is a join token's unless somebody says otherwise.
	DefaultTokenLife = 10 * time.Minute

	maxReason = 500 // bytes

	// A machine that starts two hundred workloads has their SVIDs without waiting,
	// and one SVID in wrong hands doesn't fill the record.
	svidsPerSecond = 2
	svidsBurst     = 200
)

// TokenPrefix begins every join token, so that scanners find one that leaked.
const TokenPrefix = "proviso_join_"

// Fleet is the standing of all runners. It may be used by many goroutines.
type Fleet struct {
	db  *store.DB
	log *audit.Log
	now func() time.Time

	changing sync.Mutex // one change at a time, from reading a row to writing it
	mu       sync.RWMutex
	known    map[string]store.Runner
	paces    map[string]*pace // of those in known
}

// Open reads who is known.
func Open(ctx context.Context, db *store.DB, log *audit.Log, now func() time.Time) (*Fleet, error) {
	if now == nil {
		now = time.Now
	}
	rows, err := db.Runners(ctx)
	if err != nil {
		return nil, fmt.Errorf("the runners can't be read: %w", err)
	}
	f := &Fleet{db: db, log: log, now: now, known: make(map[string]store.Runner, len(rows)), paces: make(map[string]*pace)}
	for _, r := range rows {
		f.known[r.Name] = r
	}
	return f, nil
}

// Get gives what is known of a runner.
func (f *Fleet) Get(name string) (store.Runner, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	r, ok := f.known[name]
	return r, ok
}

// List gives all runners that are known, by name.
func (f *Fleet) List(ctx context.Context) ([]store.Runner, error) { return f.db.Runners(ctx) }

// Admits refuses a runner whose evidence, issued at the given time, is worth
// nothing: it is banned, has to join first, or has joined again since. A runner
// that nobody has heard of is admitted: most prove themselves by other means.
// A zero time is evidence that doesn't say when it was issued.
func (f *Fleet) Admits(name string, issued time.Time) error {
	r, known := f.Get(name)
	switch {
	case !known:
		return nil
	case !r.Banned.IsZero():
		return banned(r)
	case r.MustJoin:
		return refuse(CodeRunnerMustJoin, "the runner %s has to join again before anything is issued to it: give its agent a new join token", name)
	case !issued.IsZero() && issued.Before(r.ValidFrom):
		return refuse(CodeRunnerSuperseded, "the runner %s has joined again at %s, and this evidence was issued before; if that was not you, tell the broker's operator",
			name, r.ValidFrom.UTC().Format(time.RFC3339))
	}
	return nil
}

// pace bounds what a runner asks for itself apart from what it asks for its
// workloads: a job that asks its agent again and again must not keep it from renewing.
type pace struct{ own, workloads *rate.Limiter }

// Paced bounds how often a runner of the fleet may ask for SVIDs, its own or its
// workloads': each answer is an entry of the record, which nobody removes.
func (f *Fleet) Paced(name string, own bool) error {
	f.mu.Lock()
	p := f.paces[name]
	if _, known := f.known[name]; p == nil && known {
		p = &pace{rate.NewLimiter(svidsPerSecond, svidsBurst), rate.NewLimiter(svidsPerSecond, svidsBurst)}
		f.paces[name] = p
	}
	f.mu.Unlock()
	if p == nil || own && p.own.AllowN(f.now(), 1) || !own && p.workloads.AllowN(f.now(), 1) {
		return nil
	}
	return proviso.Refuse(proviso.StageRequest, proviso.CodeRateLimited,
		"the runner %s asks for more than %d SVIDs a second; try again in a second, and if its agent has no reason to, look at what runs there", name, svidsPerSecond)
}

func banned(r store.Runner) error {
	why := ""
	if r.Reason != "" {
		why = ": " + r.Reason
	}
	return refuse(CodeRunnerBanned, "the runner %s was banned at %s%s; nothing is issued to it or through it until the ban is lifted",
		r.Name, r.Banned.UTC().Format(time.RFC3339), why)
}

func refuse(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRunner, code, public, args...)
}

// NewToken makes a join token for a runner of the own trust domain. Only the
// caller ever sees it.
func (f *Fleet) NewToken(ctx context.Context, name string, life time.Duration) (token string, expires time.Time, err error) {
	if life == 0 {
		life = DefaultTokenLife
	}
	if life < time.Second || life > MaxTokenLife {
		return "", time.Time{}, fmt.Errorf("a join token lives for 1s to %v, not for %v", MaxTokenLife, life)
	}
	if r, known := f.Get(name); known && !r.Banned.IsZero() {
		return "", time.Time{}, fmt.Errorf("%s is banned; lift the ban first (proviso runner unban)", name)
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	now := f.now()
	// Whole seconds, rounded up, so that a token of a second lives for one.
	expires = now.Add(life + time.Second - 1).Truncate(time.Second)
	k := store.JoinToken{Hash: sha256.Sum256([]byte(token)), Runner: name, Made: now, Expires: expires}
	entry := f.event("join-token", name, fmt.Sprintf("a join token was made, good until %s", expires.UTC().Format(time.RFC3339)))
	return token, expires, f.log.NoteWith(ctx, entry, func(tx *store.Tx) error { return tx.AddJoinToken(k) })
}

// Ticket is a join token that can still be used.
type Ticket struct{ token store.JoinToken }

// Runner is the SPIFFE ID that the token gives, Expires its end, and Hash what
// the record may know of it.
func (t Ticket) Runner() string     { return t.token.Runner }
func (t Ticket) Expires() time.Time { return t.token.Expires }
func (t Ticket) Hash() [32]byte     { return t.token.Hash }

// Ticket finds a join token. That it is unknown, used or over is one answer:
// somebody who guesses learns nothing.
func (f *Fleet) Ticket(ctx context.Context, token string) (Ticket, error) {
	no := refuse(CodeJoinToken, "this join token is unknown, was used before, or has expired: each is good for one join; let the operator make a new one (proviso runner token create)")
	if !strings.HasPrefix(token, TokenPrefix) || len(token) > 100 {
		return Ticket{}, no
	}
	k, found, err := f.db.FindJoinToken(ctx, sha256.Sum256([]byte(token)))
	switch {
	case err != nil:
		return Ticket{}, proviso.Refuse(proviso.StageRunner, proviso.CodeInternal, "the broker can't read its join tokens; its operator finds the cause in the log").Because(err)
	case !found || !k.Used.IsZero() || !f.now().Before(k.Expires):
		return Ticket{}, no
	}
	return Ticket{k}, nil
}

// Joining is a join on its way: what has to be written with its decision.
type Joining struct {
	f      *Fleet
	row    store.Runner
	ticket *Ticket
	again  string
}

// Again names the permission to join once more that an operator gave with
// Reattest, or by lifting a ban: what was shown for an earlier join may then be
// shown again, once. "" without one.
func (j *Joining) Again() string { return j.again }

// Join prepares the join of a runner, by a ticket or (nil) by evidence that the
// caller has verified. A runner that joined before joins again by a token, which
// somebody made for it, or when it was told to; evidence alone, which any
// process on the machine may be able to get, joins once.
//
// What was issued before is worth nothing from the join on. Times are known to
// the second, so Join waits for the next one where there is something before.
func (f *Fleet) Join(ctx context.Context, name, evidence string, ticket *Ticket) (*Joining, error) {
	old, known := f.Get(name)
	now := f.now()
	row := store.Runner{Name: name, Joined: now, Evidence: evidence, ValidFrom: now.Truncate(time.Second)}
	switch {
	case !known:
		f.mu.RLock()
		full := len(f.known) >= MaxRunners
		f.mu.RUnlock()
		if full {
			return nil, refuse(CodeFleetFull, "the broker knows as many runners as it can; tell its operator")
		}
		return &Joining{f: f, row: row, ticket: ticket}, nil
	case !old.Banned.IsZero():
		return nil, banned(old)
	case ticket == nil && !old.MustJoin && (now.Before(old.Expires) || old.Evidence != evidence):
		return nil, refuse(CodeRunnerJoined, "%s has joined by %s, and its SVID is good until %s: by evidence it joins once; let the operator allow it again (proviso runner reattest)",
			name, old.Evidence, old.Expires.UTC().Format(time.RFC3339))
	}
	again := ""
	if old.MustJoin {
		again = old.Joined.UTC().Format(time.RFC3339Nano)
	}
	row.ValidFrom = now.Truncate(time.Second).Add(time.Second)
	wait := time.NewTimer(row.ValidFrom.Sub(now))
	defer wait.Stop()
	select {
	case <-wait.C:
		return &Joining{f: f, row: row, ticket: ticket, again: again}, nil
	case <-ctx.Done():
		return nil, proviso.AsRefusal(ctx.Err(), proviso.StageRunner, proviso.CodeInternal)
	}
}

// Write gives what the decision's transaction writes besides; expires is the end
// of the SVID. It uses the token up.
func (j *Joining) Write(expires time.Time) func(*store.Tx) error {
	j.row.Renewed, j.row.Expires = j.row.Joined, expires
	row, ticket, now := j.row, j.ticket, j.f.now()
	return func(tx *store.Tx) error {
		if ticket != nil {
			if err := tx.UseJoinToken(ticket.token.Hash, now); err != nil {
				return err
			}
		}
		return tx.JoinRunner(row)
	}
}

// Done takes the join over once it is durable. A ban that came in between stays.
func (j *Joining) Done() {
	j.f.mu.Lock()
	defer j.f.mu.Unlock()
	if old := j.f.known[j.row.Name]; !old.Banned.IsZero() {
		j.row.Banned, j.row.Reason, j.row.MustJoin = old.Banned, old.Reason, true
	}
	j.f.known[j.row.Name] = j.row
}

// Renewed gives what a renewal's transaction writes besides.
func (f *Fleet) Renewed(name string, expires time.Time) func(*store.Tx) error {
	now := f.now()
	return func(tx *store.Tx) error { return tx.TouchRunner(name, now, expires) }
}

// RenewalDone takes a renewal over once it is durable.
func (f *Fleet) RenewalDone(name string, expires time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, known := f.known[name]; known {
		r.Renewed, r.Expires = f.now(), expires
		f.known[name] = r
	}
}

// Ban keeps a runner from everything. When the ban is lifted it has to join
// again, if it was here that it joined: what it held may be in other hands.
func (f *Fleet) Ban(ctx context.Context, name, reason string) error {
	return f.change(ctx, name, "runner-banned", reason, func(r *store.Runner) error {
		r.Banned, r.Reason = f.now(), reason
		r.MustJoin = r.MustJoin || !r.Joined.IsZero()
		return nil
	})
}

// Unban lifts a ban.
func (f *Fleet) Unban(ctx context.Context, name, reason string) error {
	return f.change(ctx, name, "runner-unbanned", reason, func(r *store.Runner) error {
		if r.Banned.IsZero() {
			return fmt.Errorf("%s is not banned", name)
		}
		r.Banned, r.Reason = time.Time{}, ""
		return nil
	})
}

// Reattest ends what was issued to a runner, and lets it join again. A machine
// whose evidence counts only with the key that it keeps (docs/runners.md) may
// come with another key then, also if it never joined here; rekeyed says so.
func (f *Fleet) Reattest(ctx context.Context, name, reason string) (rekeyed bool, err error) {
	r, known := f.Get(name)
	machine := name
	if known && !r.Joined.IsZero() {
		_, machine, _ = strings.Cut(r.Evidence, "/")
	}
	if rekeyed, err = f.db.HasRunnerKey(ctx, machine); err != nil {
		return false, fmt.Errorf("the machines' keys can't be read: %w", err)
	}
	if !known && !rekeyed {
		return false, fmt.Errorf("%s: %w", name, errUnknown)
	}
	return rekeyed, f.changeWith(ctx, name, "runner-reattest", reason, func(r *store.Runner) error {
		switch {
		case !r.Banned.IsZero():
			return fmt.Errorf("%s is banned; lift the ban first (proviso runner unban)", name)
		case r.Joined.IsZero() && !rekeyed:
			return fmt.Errorf("%s never joined here: its own authority attests it", name)
		}
		r.MustJoin = !r.Joined.IsZero()
		return nil
	}, func(tx *store.Tx) error {
		if !rekeyed {
			return nil
		}
		return tx.OpenRunnerKey(machine, f.now())
	})
}

// ForgetBundle lets a trust domain's bundle begin with a lower sequence than was
// ever seen here: its authority was made anew. A broker that runs goes by what it
// has seen until it is started again.
func (f *Fleet) ForgetBundle(ctx context.Context, domain, reason string) error {
	has, err := f.db.HasBundleFloor(ctx, domain)
	if err != nil {
		return fmt.Errorf("the bundles' sequences can't be read: %w", err)
	}
	if !has {
		return fmt.Errorf("no sequence of a bundle of %q is remembered; write the trust domain as runners[].trust_domain has it", domain)
	}
	if err := oneLine(reason); err != nil {
		return err
	}
	return f.log.NoteWith(ctx, f.event("bundle-forgotten", "spiffe://"+domain, reasonOf(reason)), func(tx *store.Tx) error { return tx.ForgetBundleFloor(domain) })
}

func oneLine(reason string) error {
	if len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("a reason is one line of at most %d bytes", maxReason)
	}
	return nil
}

func reasonOf(reason string) string { return cmp.Or(reason, "no reason was given") }

var errUnknown = errors.New("no runner of this name is known; proviso runner list shows them")

// change writes a runner's row and the event that says so, in one transaction,
// and then knows it.
func (f *Fleet) change(ctx context.Context, name, event, reason string, edit func(*store.Runner) error) error {
	return f.changeWith(ctx, name, event, reason, edit, func(*store.Tx) error { return nil })
}

// changeWith is change with more in the transaction.
func (f *Fleet) changeWith(ctx context.Context, name, event, reason string, edit func(*store.Runner) error, more func(*store.Tx) error) error {
	if err := oneLine(reason); err != nil {
		return err
	}
	f.changing.Lock()
	defer f.changing.Unlock()
	r, known := f.Get(name)
	if !known && event == "runner-unbanned" {
		return fmt.Errorf("%s: %w", name, errUnknown)
	}
	r.Name = name
	if err := edit(&r); err != nil {
		return err
	}
	write := func(tx *store.Tx) error { return errors.Join(tx.SetStanding(r), more(tx)) }
	if err := f.log.NoteWith(ctx, f.event(event, name, reasonOf(reason)), write); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[name] = r
	return nil
}

// event is what the log says of a change.
func (f *Fleet) event(kind, name, message string) *audit.Entry {
	now := f.now()
	return &audit.Entry{Type: kind, Decision: audit.NewDecision(now), Time: now, SPIFFEID: name, Message: message}
}
