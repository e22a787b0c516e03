package facts_test

import (
	"errors"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/lab"
)

const broker = "https://proviso.acme.example"

var (
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
	now   = time.Now().Truncate(time.Second)
	// platform is shared: making an RSA key takes as long as many tests.
	platform = sync.OnceValues(func() (*lab.Issuer, error) { return lab.NewIssuer(lab.GitHub, lab.IssuerOptions{}) })
)

// jobOf has the lab's GitHub sign a job's token, and verifies it.
func jobOf(t testing.TB, job lab.Job, edits ...lab.Edit) identity.Job {
	t.Helper()
	github, err := platform()
	if err != nil {
		t.Fatal(err)
	}
	owner, _ := github.Claims(job, broker)["repository_owner_id"].(string)
	v, err := identity.New([]identity.IssuerConfig{{Name: "github", Platform: "github", URL: github.URL(), AllowPrivate: true,
		Require: map[string]identity.Values{"repository_owner_id": {owner}}, Tenant: "acme", Role: "ci-cd-pipeline",
		Events: []string{"push", "workflow_dispatch", "schedule"}, Algorithms: []string{"RS256"}}}, identity.Options{Audience: broker})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	token, err := github.Token(job, broker, edits...)
	if err != nil {
		t.Fatal(err)
	}
	verified, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return verified
}

func newGatherer(t testing.TB, c facts.Config) *facts.Gatherer {
	t.Helper()
	g, err := facts.New(c, facts.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func gather(t testing.TB, g *facts.Gatherer, asked facts.Asked, paths ...string) facts.Known {
	t.Helper()
	k, err := g.Gather(t.Context(), asked, facts.Needs{Paths: paths})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// wantAbsent checks that a key is absent from context and its absence explained.
func wantAbsent(t *testing.T, k facts.Known, key string, code proviso.Code, word string) {
	t.Helper()
	if v := k.Input().At("context", key); !v.IsAbsent() {
		t.Errorf("context.%s is %s, want it absent", key, v)
	}
	if v := k.Input().At("origin", key); !v.IsAbsent() {
		t.Errorf("origin.%s is %s for an absent value", key, v)
	}
	wantWhy(t, k, key, code, word)
}

func wantWhy(t *testing.T, k facts.Known, key string, code proviso.Code, word string) {
	t.Helper()
	for _, a := range k.Absent() {
		if a.Key == "context."+key {
			if a.Code != code || !strings.Contains(a.Why, word) {
				t.Errorf("%s: %s, %q; want %s naming %q (%v)", key, a.Code, a.Why, code, word, a.Err)
			}
			return
		}
	}
	t.Errorf("nothing says why context.%s is absent; there are %+v", key, k.Absent())
}

// wantRemark checks that a value that is there is explained.
func wantRemark(t *testing.T, k facts.Known, key string, code proviso.Code, word string) {
	t.Helper()
	for _, r := range k.Remarks() {
		if r.Key == "context."+key && r.Code == code && r.Why != "" && strings.Contains(r.Why, word) {
			return
		}
	}
	t.Errorf("no remark on context.%s with %s naming %q; there are %+v", key, code, word, k.Remarks())
}

func wantValue(t *testing.T, k facts.Known, want string, path ...string) {
	t.Helper()
	if got := k.Input().At(path...).String(); got != want {
		t.Errorf("%s is %s, want %s (absent: %+v)", strings.Join(path, "."), got, want, k.Absent())
	}
}

var shipping = facts.Resource{Name: "deploy", Service: "shipping", Environment: "production", Tenant: "acme", Labels: map[string]string{"tier": "1"}}

func TestWholeInput(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 7, 3, 7, 5, 0, 0, time.UTC) // 09:05 in Berlin's summer, a Friday
	g, err := facts.New(facts.Config{}, facts.Options{Zone: berlin, Now: func() time.Time { return at }, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	job := jobOf(t, lab.Job{Branch: "release/1.2"})
	k := gather(t, g, facts.Asked{Job: job, Resource: shipping, Scope: []string{"deploy"},
		Intent: proviso.Intent{Action: "deploy_hotfix", Purpose: "debug", Annotation: "approved by ticket", TicketID: "OPS-1", RequestedTTL: 30}})
	in := k.Input()
	want := `{"action":"deploy_hotfix","annotation":"approved by ticket","branch":"release/1.2","commit":` + in.At("identity", "commit").String() +
		`,"date":"2026-07-03","environment":"production","event":"push","purpose":"debug","ref":"refs/heads/release/1.2","requested_ttl":30,` +
		`"scope":["deploy"],"service":"shipping","ticket_id":"OPS-1","time":"09:05","timestamp":"2026-07-03T09:05:00+02:00","weekday":"Friday","zone":"Europe/Berlin"}`
	if got := in.Get("context").String(); got != want {
		t.Errorf("context\n got %s\nwant %s", got, want)
	}
	wantValue(t, k, `{"environment":"production","labels":{"tier":"1"},"name":"deploy","service":"shipping","tenant":"acme"}`, "resource")
	wantValue(t, k, `{"action":"deploy_hotfix","annotation":"approved by ticket","purpose":"debug","requested_ttl":30,"scope":["deploy"],"ticket_id":"OPS-1"}`, "intent")
	for key, source := range map[string]string{"time": "fact:clock", "weekday": "fact:clock", "branch": "fact:job", "commit": "fact:job",
		"service": "grant", "environment": "grant", "action": "intent", "requested_ttl": "intent", "scope": "intent"} {
		wantValue(t, k, `"`+source+`"`, "origin", key, "source")
		if age := in.At("origin", key, "age"); age.IsAbsent() == strings.HasPrefix(source, "fact:") {
			t.Errorf("origin.%s has the age %s", key, age)
		}
	}
	if c, o := in.Get("context").Fields(), in.Get("origin").Fields(); len(c) != len(o) {
		t.Errorf("%d keys of context, %d of origin", len(c), len(o))
	}
	if !in.Get("runner").IsAbsent() || !in.At("identity", "claims").IsAbsent() {
		t.Error("a runner or claims where there are none")
	}
	if in.Get("identity").String() != job.Document().String() {
		t.Error("the identity is not the job's")
	}
}

// What is not declared is absent, in context as in intent.
func TestAbsentIsAbsent(t *testing.T) {
	g := newGatherer(t, facts.Config{})
	k := gather(t, g, facts.Asked{Job: jobOf(t, lab.Job{Environment: "-"}), Intent: proviso.Intent{RequestedTTL: -5}})
	for _, path := range [][]string{{"context", "requested_ttl"}, {"context", "annotation"}, {"context", "service"}, {"context", "environment"},
		{"context", "commit_signed"}, {"context", "ticket_approved"}, {"context", "on_call"}, {"identity", "on_call"}, {"context", "scope"}, {"resource", "tenant"}} {
		if v := k.Input().At(path...); !v.IsAbsent() {
			t.Errorf("%v is %s", path, v)
		}
	}
	wantValue(t, k, "{}", "intent")
	if len(k.Absent()) > 0 {
		t.Errorf("nothing was asked for, and %+v is missing", k.Absent())
	}
}

// The environment is the grant's; the job's own stands in where the grant names
// none, and origin says so.
func TestEnvironment(t *testing.T) {
	g := newGatherer(t, facts.Config{})
	job := jobOf(t, lab.Job{Environment: "staging"})
	k := gather(t, g, facts.Asked{Job: job, Resource: shipping})
	wantValue(t, k, `"production"`, "context", "environment")
	wantValue(t, k, `"grant"`, "origin", "environment", "source")
	k = gather(t, g, facts.Asked{Job: job})
	wantValue(t, k, `"staging"`, "context", "environment")
	wantValue(t, k, `"fact:job"`, "origin", "environment", "source")
}

func TestClaimsOnlyWhenRead(t *testing.T) {
	g := newGatherer(t, facts.Config{})
	asked := facts.Asked{Job: jobOf(t, lab.Job{})}
	for path, want := range map[string]bool{"": true, "identity": true, "identity.claims": true, "identity.claims.sub": true, "identity.role": false, "context": false} {
		k := gather(t, g, asked, path)
		if got := !k.Input().At("identity", "claims").IsAbsent(); got != want {
			t.Errorf("a policy that reads %q has claims: %t", path, got)
		}
	}
	if k, err := g.Gather(t.Context(), asked, facts.Needs{All: true}); err != nil || k.Input().At("identity", "claims").IsAbsent() {
		t.Errorf("a policy that reads all has no claims: %v", err)
	}
	if k := gather(t, g, asked); !k.Input().At("identity", "claims").IsAbsent() {
		t.Error("a policy that reads nothing has claims")
	}
}

func TestNeedsReads(t *testing.T) {
	n := facts.Needs{Paths: []string{"context.ticket.status", "identity"}}
	for path, want := range map[string]bool{"context.ticket": true, "context.ticket.status": true, "context.ticket.owner": false, "context.ticket_approved": false,
		"identity.claims": true, "identityx": false, "context": true, "runner": false} {
		if got := n.Reads(path); got != want {
			t.Errorf("%s: %t", path, got)
		}
	}
}

func TestGatherWithoutJobIsRefused(t *testing.T) {
	_, err := newGatherer(t, facts.Config{}).Gather(t.Context(), facts.Asked{}, facts.Needs{})
	var r *proviso.Refusal
	if !errors.As(err, &r) || r.Stage != proviso.StageFacts {
		t.Errorf("got %v", err)
	}
}

// The struct Input defines the document: every member that Gather writes is one
// of its fields, with the field's type.
func TestInputHasTheShapeOfItsStruct(t *testing.T) {
	tickets := newServer(t)
	tickets.answer("/", `{"a":true,"t":"x"}`)
	g := newGatherer(t, facts.Config{HTTP: []facts.HTTPConfig{{Name: "tickets", URL: tickets.url + "/", AllowPrivate: true, Keys: map[string]facts.KeyConfig{
		"ticket_approved": {Pointer: "/a"}, "on_call": {Pointer: "/a"}, "freeze": {Pointer: "/a"}, "ticket.status": {Pointer: "/t"}}}}})
	k, err := g.Gather(t.Context(), facts.Asked{Job: jobOf(t, lab.Job{}), Resource: shipping, Scope: []string{"a"},
		Intent: proviso.Intent{Action: "a", Purpose: "p", Annotation: "n", TicketID: "t", RequestedTTL: 1}}, facts.Needs{All: true})
	if err != nil {
		t.Fatal(err)
	}
	sameShape(t, "input", k.Input(), reflect.TypeFor[facts.Input]())
}

func sameShape(t *testing.T, at string, v document.Value, typ reflect.Type) {
	t.Helper()
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	kinds := map[reflect.Kind]document.Kind{reflect.String: document.String, reflect.Bool: document.Bool, reflect.Int: document.Int,
		reflect.Struct: document.Object, reflect.Map: document.Object, reflect.Slice: document.Array}
	if typ.Kind() == reflect.Interface {
		return
	}
	if v.Kind() != kinds[typ.Kind()] {
		t.Errorf("%s is %s, its field is %s", at, v.Kind(), typ)
		return
	}
	for _, f := range v.Fields() {
		if typ.Kind() == reflect.Map {
			sameShape(t, at+"."+f.Name, f.Value, typ.Elem())
			continue
		}
		field, ok := fieldOf(typ, f.Name)
		if !ok {
			t.Errorf("%s.%s is no field of %s", at, f.Name, typ)
			continue
		}
		sameShape(t, at+"."+f.Name, f.Value, field)
	}
}

func fieldOf(typ reflect.Type, name string) (reflect.Type, bool) {
	for _, f := range reflect.VisibleFields(typ) {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name {
			return f.Type, true
		}
	}
	return nil, false
}

func TestRecorded(t *testing.T) {
	k := facts.Recorded(document.ObjectOf(), facts.Absence{Key: "context.x"})
	if k.IsZero() || len(k.Absent()) != 1 || !(facts.Known{}).IsZero() {
		t.Error("a recorded input is an input")
	}
}

func BenchmarkGather(b *testing.B) {
	g := newGatherer(b, facts.Config{})
	asked := facts.Asked{Job: jobOf(b, lab.Job{}), Resource: shipping, Scope: []string{"deploy"},
		Intent: proviso.Intent{Action: "deploy", Purpose: "release", RequestedTTL: 10}}
	needs := facts.Needs{Paths: []string{"context.branch", "context.environment", "context.time", "identity.role", "identity.tenant", "resource.tenant"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Gather(b.Context(), asked, needs); err != nil {
			b.Fatal(err)
		}
	}
}

// A commit that was looked at before costs no git and no signature again.
func BenchmarkGatherCommit(b *testing.B) {
	r := newRepo(b, "sha1")
	dana := newPerson(b)
	g := newGatherer(b, r.config("dana@acme.example "+dana.line+"\n"))
	asked := facts.Asked{Job: jobOf(b, lab.Job{Commit: r.onMain(made{sign: dana.sign})}), Resource: shipping}
	needs := facts.Needs{Paths: []string{"context.commit_signed"}}
	b.ReportAllocs()
	for b.Loop() {
		k, err := g.Gather(b.Context(), asked, needs)
		if err != nil || k.Input().At("context", "commit_signed").String() != "true" {
			b.Fatal(err, k.Absent())
		}
	}
}
