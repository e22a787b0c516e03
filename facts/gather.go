package facts

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/runner"
)

// Options are what the configuration file doesn't hold.
type Options struct {
	// Zone is the policy's time zone; nil is UTC.
	Zone *time.Location
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// Log gets what happens to sources; nil is slog.Default.
	Log *slog.Logger
	// UserAgent is what HTTP sources see; "" is "proviso".
	UserAgent string
}

// Asked is one exchange as far as it has come.
type Asked struct {
	// Job and Runner are verified. The zero Runner is "none".
	Job    identity.Job
	Runner runner.Runner
	// Resource is the grant's.
	Resource Resource
	// Intent and Scope are declared.
	Intent proviso.Intent
	Scope  []string
}

// Gatherer finds facts out. It can be used by many goroutines.
type Gatherer struct {
	zone     *time.Location
	zoneName document.Value
	now      func() time.Time
	log      *slog.Logger
	timeout  time.Duration
	sources  []source
	extra    map[string]string
}

// source is one place to ask. ask returns by the deadline of its context; what
// it doesn't know it reports as an Absence per key.
type source struct {
	name string
	// reads are the input paths that this source can fill, as
	// "context.ticket_approved"; it is asked only if the policy reads one.
	reads []string
	ask   func(ctx context.Context, asked Asked, wanted func(key string) bool) answer
	close func()
}

// answer is what a source found out.
type answer struct {
	facts   []fact
	absent  []Absence
	remarks []Remark
}

// fact is one value of context, with the moment from which its age counts.
type fact struct {
	source string
	key    string // of context; "ticket.status" is a member of the object ticket
	value  document.Value
	at     time.Time
}

const defaultTimeout = 5 * time.Second

// Gather finds out what the policy needs and assembles its whole input. It
// never fails because of a source: what could not be found out is absent, and
// Known says why. The error is a *proviso.Refusal: no job, or the caller is gone.
func (g *Gatherer) Gather(ctx context.Context, asked Asked, needs Needs) (Known, error) {
	if asked.Job.IsZero() {
		return Known{}, proviso.Refuse(proviso.StageFacts, proviso.CodeInternal, "facts were asked for before the job was verified")
	}
	now := g.now()
	found := g.ask(ctx, asked, needs)
	if err := ctx.Err(); err != nil {
		return Known{}, proviso.Refuse(proviso.StageFacts, proviso.CodeEnrichmentUnavailable,
			"the request ended before everything was found out that the policy reads; try again").Because(err)
	}
	return Known{input: g.assemble(asked, needs, now, found.facts), absent: found.absent, remarks: found.remarks}, nil
}

// ask asks the needed sources at the same time.
func (g *Gatherer) ask(ctx context.Context, asked Asked, needs Needs) answer {
	var needed []*source
	for i := range g.sources {
		if slices.ContainsFunc(g.sources[i].reads, needs.Reads) {
			needed = append(needed, &g.sources[i])
		}
	}
	if len(needed) == 0 {
		return answer{}
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	answers := make([]chan answer, len(needed))
	for i, s := range needed {
		answers[i] = make(chan answer, 1) // so that nobody is left behind who wants to send
		go func() { answers[i] <- g.askOne(ctx, s, asked, needs) }()
	}
	var all answer
	for i, s := range needed {
		var a answer
		select {
		case a = <-answers[i]:
		case <-ctx.Done():
			select {
			case a = <-answers[i]: // it came together with the deadline
			default:
				a = answer{absent: s.nothing(needs, proviso.CodeEnrichmentUnavailable, "did not answer in time", ctx.Err())}
			}
		}
		all.facts = append(all.facts, a.facts...)
		all.absent = append(all.absent, a.absent...)
		all.remarks = append(all.remarks, a.remarks...)
	}
	all.absent = onCallAsRead(all.absent, needs)
	for _, a := range all.absent {
		g.log.Warn("a fact could not be found out", "key", a.Key, "source", a.Source, "code", a.Code, "why", a.Why, "error", a.Err)
	}
	slices.SortStableFunc(all.absent, func(a, b Absence) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// onCallAsRead reports an absent on_call under the path, or both paths, that the
// policy reads it by.
func onCallAsRead(absent []Absence, needs Needs) []Absence {
	i := slices.IndexFunc(absent, func(a Absence) bool { return a.Key == "context.on_call" })
	if i < 0 || !needs.Reads("identity.on_call") {
		return absent
	}
	other := absent[i]
	other.Key = "identity.on_call"
	if !needs.Reads("context.on_call") {
		absent[i] = other
		return absent
	}
	return append(absent, other)
}

// askOne keeps a source's panic from being more than an absence.
func (g *Gatherer) askOne(ctx context.Context, s *source, asked Asked, needs Needs) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = answer{absent: s.nothing(needs, proviso.CodeEnrichmentUnavailable, "failed inside the broker", fmt.Errorf("panic: %v", p))}
		}
	}()
	return s.ask(ctx, asked, func(key string) bool {
		return needs.Reads("context."+key) || key == "on_call" && needs.Reads("identity.on_call")
	})
}

// nothing reports every needed key of a source as absent for one cause.
func (s *source) nothing(needs Needs, code proviso.Code, why string, err error) []Absence {
	var out []Absence
	for _, path := range s.reads {
		if needs.Reads(path) && path != "identity.on_call" || path == "context.on_call" && needs.Reads("identity.on_call") {
			out = append(out, Absence{Key: path, Source: s.name, Code: code, Why: "the source " + s.name + " " + why, Err: err})
		}
	}
	return out
}

// assemble puts the input together. Keys are written in canonical order as far
// as possible, so that sorting finds nothing to do.
func (g *Gatherer) assemble(asked Asked, needs Needs, now time.Time, found []fact) document.Value {
	job := asked.Job.Document()
	intent := IntentDocument(asked.Intent, asked.Scope)
	b := contextBuilder{
		now:    now,
		fields: make([]document.Field, 0, staticKeys+len(found)),
		origin: make([]document.Field, 0, staticKeys+len(found)),
	}
	b.known(now.In(g.zone), g.zoneName, job, asked.Job.IssuedAt(), asked.Resource, intent)
	onCall := b.found(found)

	who := job
	var more []document.Field
	if !onCall.IsAbsent() {
		more = append(more, document.Member("on_call", onCall))
	}
	if needs.Reads("identity.claims") {
		more = append(more, document.Member("claims", asked.Job.Claims()))
	}
	if len(more) > 0 {
		who = job.With(more...)
	}
	return document.ObjectOf(
		document.Member("context", document.ObjectOf(b.fields...)),
		document.Member("identity", who),
		document.Member("intent", intent),
		document.Member("origin", document.ObjectOf(b.origin...)),
		document.Member("resource", asked.Resource.document()),
		document.Member("runner", asked.Runner.Document()),
	)
}

// contextBuilder writes context and origin side by side, so that no key can be
// in one and not in the other.
type contextBuilder struct {
	now            time.Time
	fields, origin []document.Field
}

var (
	fromGrant  = document.ObjectOf(document.Member("source", document.StringOf("grant")))
	fromIntent = document.ObjectOf(document.Member("source", document.StringOf("intent")))
	fromClock  = originOf("clock", 0)
)

func originOf(source string, age time.Duration) document.Value {
	// An answer from the future is a clock that runs ahead; it is not fresher than now.
	seconds := max(0, int64(age/time.Second))
	return document.ObjectOf(
		document.Member("age", document.IntOf(seconds)),
		document.Member("source", document.StringOf("fact:"+source)),
	)
}

func (b *contextBuilder) add(name string, v document.Value, origin document.Value) {
	if !v.IsAbsent() {
		b.fields = append(b.fields, document.Member(name, v))
		b.origin = append(b.origin, document.Member(name, origin))
	}
}

// staticKeys is how many keys context has without any source.
const staticKeys = 18

// known adds what is known without asking: the clock, the job's token, the
// grant, and what was declared. The keys come in canonical order, so that sorting finds
// nothing to do.
func (b *contextBuilder) known(local time.Time, zone, job document.Value, issued time.Time, r Resource, intent document.Value) {
	var buf [40]byte
	stamp := string(local.AppendFormat(buf[:0], time.RFC3339))
	date, clock := stamp[:len("2006-01-02")], stamp[len("2006-01-02T"):len("2006-01-02T15:04")]
	fromJob := originOf("job", b.now.Sub(issued))
	environment, fromEnvironment := document.StringOf(r.Environment), fromGrant
	if r.Environment == "" {
		environment, fromEnvironment = job.Get("environment"), fromJob
	}
	b.add("action", intent.Get("action"), fromIntent)
	b.add("annotation", intent.Get("annotation"), fromIntent)
	b.add("branch", job.Get("branch"), fromJob)
	b.add("commit", job.Get("commit"), fromJob)
	b.add("date", document.StringOf(date), fromClock)
	b.add("environment", environment, fromEnvironment)
	b.add("event", job.Get("event"), fromJob)
	b.add("purpose", intent.Get("purpose"), fromIntent)
	b.add("ref", job.Get("ref"), fromJob)
	b.add("requested_ttl", intent.Get("requested_ttl"), fromIntent)
	b.add("scope", intent.Get("scope"), fromIntent)
	b.add("service", document.StringOf(r.Service), fromGrant)
	b.add("tag", job.Get("tag"), fromJob)
	b.add("ticket_id", intent.Get("ticket_id"), fromIntent)
	b.add("time", document.StringOf(clock), fromClock)
	b.add("timestamp", document.StringOf(stamp), fromClock)
	b.add("weekday", document.StringOf(local.Weekday().String()), fromClock)
	b.add("zone", zone, fromClock)
}

// found adds what the sources found out, and gives on_call, which is a part of
// the identity too. A dotted key becomes a member of an object; the object's
// age is that of its oldest part.
func (b *contextBuilder) found(found []fact) (onCall document.Value) {
	type object struct {
		name, source string
		fields       []document.Field
		at           time.Time
	}
	var objects []*object
	for _, f := range found {
		name, member, nested := strings.Cut(f.key, ".")
		if !nested {
			b.add(name, f.value, originOf(f.source, b.now.Sub(f.at)))
			if name == "on_call" {
				onCall = f.value
			}
			continue
		}
		i := slices.IndexFunc(objects, func(o *object) bool { return o.name == name })
		if i < 0 {
			objects = append(objects, &object{name: name, source: f.source, at: f.at})
			i = len(objects) - 1
		}
		objects[i].fields = append(objects[i].fields, document.Member(member, f.value))
		if f.at.Before(objects[i].at) {
			objects[i].at = f.at
		}
	}
	for _, o := range objects {
		b.add(o.name, document.ObjectOf(o.fields...), originOf(o.source, b.now.Sub(o.at)))
	}
	return onCall
}

// Keys gives the keys that the configured sources add to context beside those
// of Input, each with its JSON type, for the policies' type check.
func (g *Gatherer) Keys() map[string]string { return g.extra }

// Close ends fetches that are under way and idle connections. What is gathered
// afterwards is absent.
func (g *Gatherer) Close() {
	for _, s := range g.sources {
		s.close()
	}
}
