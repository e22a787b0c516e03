// Package policy answers the fourth question of every exchange: may it, and how
// narrowly? It is the one place that knows Rego.
//
// A grant names a Rego package: "policy: production" is data.production. Three
// of its rules are read. allow must be exactly true. deny, if there is one, is a
// set of messages, and must be empty. limits, if there is one, is an object
// that narrows what is granted: ttl (seconds), scope (a list), approvals (a
// number). Everything else is a "no": an undefined allow, an error, a conflict, a
// value of another type, a member of limits that nobody knows, a decision that
// takes too long. A policy can be written in today's Rego or in the syntax from
// before version 1.0; each file is read as what it is.
//
// Policies come from one directory: all .rego files, data.json files (that of a
// folder a/b is data.a.b), and *_test.rego files, which never take part in a
// decision. A directory becomes a [revision] as a whole or not at all. It has
// to compile, with every reference to input checked against the input's schema;
// to call no function that reaches out or gives different answers to the same
// question; to pass the lints, its own tests, and the canaries, inputs that
// nobody may ever allow. If it doesn't, the revision before it stays, and
// Status, the log and the metrics say so. A request holds one [Policy], which is
// one package of one revision, from its first step to its last.
//
// A fact that could not be found out is absent, and absence never allows: where
// a policy reads a fact in a place in which its absence would help (under "not",
// in deny), and the fact is absent, the answer is "no", whatever the policy
// says.
//
// A refusal says which conditions failed, with the value that was found and the
// value that was wanted, worked out from the policy's own text, so that a
// policy needs no messages. See explain.go.
//
// Nothing in this package can mint, sign or write: a [Verdict] is what the next
// stage needs, and only Decide makes one.
package policy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso"
)

// Config is the "policy" section of the configuration file.
type Config struct {
	// Dir is the directory of policies.
	Dir string `yaml:"dir" json:"dir"`
	// Zone is the time zone of context.time, as "Europe/Berlin". Without it the
	// times that policies see are UTC.
	Zone string `yaml:"zone,omitempty" json:"zone,omitempty"`
	// Timeout bounds one decision. Default 1s, at most 10s: it is for
	// policies that never end, not for slow ones, and a machine under load must
	// not turn into refusals.
	Timeout time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
}

func (c Config) timeout() time.Duration {
	if c.Timeout <= 0 {
		return time.Second
	}
	return min(c.Timeout, 10*time.Second)
}

// Options are what the rest of the program gives. Zero fields have defaults.
type Options struct {
	// Log gets a line when a revision becomes active, and an error when one
	// can't. Default slog.Default().
	Log *slog.Logger
	// Now is the clock of Status. Default time.Now.
	Now func() time.Time
	// Facts are members of context that the configuration of package facts adds
	// to those that every broker has, with their JSON type (string, boolean,
	// number, integer, object, array; "" is any). Policies may read them.
	Facts map[string]string
	// Interval is how often Watch looks at the directory. Default 2s.
	Interval time.Duration
}

// Engine holds the revision that decides, and replaces it as a whole. Its
// methods may be called at the same time.
type Engine struct {
	cfg    Config
	opt    Options
	active atomic.Pointer[revision]
	status atomic.Pointer[Status] // replaced as a whole, by whoever holds mu

	mu   sync.Mutex        // one activation at a time; guards what follows
	seen string            // digest of the last tree that was tried
	need []string          // packages without which nothing becomes active
	past map[string]uint64 // when each digest became active first
}

// maxPast bounds the memory of earlier revisions.
const maxPast = 1000

// Status says what decides, and whether the directory holds something that
// can't.
type Status struct {
	Revision uint64    `json:"revision"`
	Digest   string    `json:"digest"`
	Since    time.Time `json:"since"`
	Packages int       `json:"packages"`
	// Tests is how many of the policies' own tests passed.
	Tests    int      `json:"tests"`
	Warnings Problems `json:"warnings,omitempty"`
	// Ignored are files that are no part of a revision.
	Ignored []string `json:"ignored,omitempty"`
	// Rejected is set while the directory holds policies that did not become
	// active: since when, and why. The revision above still decides.
	Rejected *Rejected `json:"rejected,omitempty"`
}

// Rejected says that the newest policies are not those that decide.
type Rejected struct {
	Since    time.Time    `json:"since"`
	Digest   string       `json:"digest,omitempty"`
	Code     proviso.Code `json:"code"`
	Problems Problems     `json:"problems"`
}

// Open loads the directory and activates it. Policies with errors are an error:
// a broker doesn't start without a policy to ask.
func Open(cfg Config, opt Options) (*Engine, error) {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Interval <= 0 {
		opt.Interval = 2 * time.Second
	}
	if cfg.Zone != "" {
		if _, err := time.LoadLocation(cfg.Zone); err != nil {
			return nil, proviso.Refuse(proviso.StagePolicy, CodeFile, "policy.zone: there is no time zone %q; write one as Europe/Berlin", clip(cfg.Zone, 60)).Because(err)
		}
	}
	e := &Engine{cfg: cfg, opt: opt, past: map[string]uint64{}}
	e.status.Store(&Status{})
	if err := e.Reload(context.Background()); err != nil {
		return nil, err
	}
	return e, nil
}

// Check loads a directory and gives all its problems, warnings too, without
// activating anything: for "proviso policy check" and for a pipeline.
func Check(ctx context.Context, cfg Config, opt Options) (Problems, error) {
	t, problems := readTree(cfg.Dir)
	if len(problems) > 0 {
		return problems.sorted(), problems.refusal(cfg.Dir)
	}
	rev, problems := build(ctx, t, cfg, opt.Facts)
	if rev != nil {
		return rev.warnings, nil
	}
	return problems, problems.refusal(cfg.Dir)
}

// Test runs the policies' own tests and gives each result.
func Test(ctx context.Context, cfg Config, opt Options) ([]TestResult, error) {
	t, problems := readTree(cfg.Dir)
	if len(problems) > 0 {
		return nil, problems.refusal(cfg.Dir)
	}
	prog, problems := compile(t, opt.Facts)
	if prog == nil {
		return nil, problems.refusal(cfg.Dir)
	}
	results, problems := prog.test(ctx)
	return results, problems.refusal(cfg.Dir)
}

// Reload reads the directory and activates it if it is another one than the
// active one and valid. Otherwise the active revision stays, and the error says
// why.
func (e *Engine) Reload(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	t, problems := readTree(e.cfg.Dir)
	return e.try(ctx, t, problems)
}

// try activates t, or keeps what is active. e.mu is held.
func (e *Engine) try(ctx context.Context, t tree, problems Problems) error {
	digest := t.digest()
	if len(problems) > 0 {
		digest = ""
	}
	e.seen = digest
	old := e.active.Load()
	if old != nil && digest == old.digest {
		if now := e.Status(); now.Rejected != nil {
			now.Rejected = nil
			e.status.Store(&now)
			e.opt.Log.Info("the directory of policies holds the active policies again", "revision", old.number, "digest", old.digest)
		}
		return nil
	}
	var rev *revision
	if len(problems) == 0 {
		rev, problems = build(ctx, t, e.cfg, e.opt.Facts)
	}
	if rev != nil {
		if missing := e.missing(rev); len(missing) > 0 {
			rev, problems = nil, missing
		}
	}
	if rev == nil {
		return e.reject(digest, problems)
	}
	rev.number, rev.at = 1, e.opt.Now()
	if old != nil {
		rev.number = old.number + 1
	}
	e.active.Store(rev)
	if before, again := e.past[rev.digest]; again {
		// Somebody put them back, or an old copy came back by itself: who reads the log knows which.
		e.opt.Log.Warn("these policies were active before and had been replaced", "revision", rev.number, "digest", rev.digest, "before", before)
	}
	if len(e.past) < maxPast {
		e.past[rev.digest] = rev.number
	}
	e.status.Store(&Status{Revision: rev.number, Digest: rev.digest, Since: rev.at, Packages: len(rev.packages),
		Tests: rev.tests, Warnings: rev.warnings, Ignored: rev.ignored})
	e.opt.Log.Info("policies are active", "revision", rev.number, "digest", rev.digest, "packages", len(rev.packages), "tests", rev.tests, "warnings", len(rev.warnings))
	return nil
}

// Require names packages that grants are guarded by. From now on a revision
// without one of them does not become active.
func (e *Engine) Require(packages []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.need = slices.Clone(packages)
}

// missing finds what a revision lacks. e.mu is held.
func (e *Engine) missing(rev *revision) (out Problems) {
	for _, name := range e.need {
		if _, err := rev.find(name); err != nil {
			out = append(out, Problem{Code: proviso.CodePolicyMissing,
				Message: fmt.Sprintf("no package %s with a rule allow is left, and a grant is guarded by it", name),
				Hint:    "change the grant first, or keep the package"})
		}
	}
	return out
}

func (e *Engine) reject(digest string, problems Problems) error {
	err := problems.refusal(e.cfg.Dir)
	if err == nil { // can't be: build gives a revision or an error
		err = proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyError, "the policies can't be used").Because(errNotLoaded)
	}
	refusal := proviso.AsRefusal(err, proviso.StagePolicy, proviso.CodePolicyError)
	status := e.Status()
	since := e.opt.Now()
	if status.Rejected != nil {
		since = status.Rejected.Since
	}
	status.Rejected = &Rejected{Since: since, Digest: digest, Code: refusal.Code, Problems: problems.Errors()}
	e.status.Store(&status)
	if e.active.Load() != nil {
		e.opt.Log.Error("the directory of policies changed and can't be used; the older policies still decide",
			"revision", status.Revision, "active", status.Digest, "rejected", digest, "code", refusal.Code, "since", since, "error", refusal.Err)
	}
	return err
}

// For gives one package of the active revision. The refusal is policy_missing
// where there is none.
func (e *Engine) For(pkg string) (*Policy, error) {
	rev := e.active.Load()
	if rev == nil {
		return nil, proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyMissing, "no policies are loaded").Because(errNotLoaded)
	}
	return rev.find(pkg)
}

// Packages lists the packages that grants can name, sorted.
func (e *Engine) Packages() []string {
	rev := e.active.Load()
	if rev == nil {
		return nil
	}
	var out []string
	for _, name := range packageNames(rev.program.modules) {
		if _, ok := rev.packages[name]; ok {
			out = append(out, name)
		}
	}
	return out
}

// Status gives the state for doctor, readiness, metrics and the console.
func (e *Engine) Status() Status { return *e.status.Load() }

// Watch looks at the directory every Interval and activates what changed, until
// ctx ends. A change counts once it has been the same twice, so that a directory
// in the middle of being written is not taken for a new revision.
func (e *Engine) Watch(ctx context.Context) {
	ticker := time.NewTicker(e.opt.Interval)
	defer ticker.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			last = e.look(ctx, last)
		}
	}
}

// look compares the directory with what was seen before, and gives its digest.
func (e *Engine) look(ctx context.Context, last string) string {
	t, problems := readTree(e.cfg.Dir)
	now := t.digest()
	if len(problems) > 0 {
		now = fmt.Sprintf("unreadable: %s", problems.Error())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if now == last && now != e.seen && ctx.Err() == nil {
		// The error is in the log and in Status; there is nobody here to give it to.
		_ = e.try(ctx, t, problems)
		e.seen = now
	}
	return now
}
