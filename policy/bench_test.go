package policy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/proviso-ci/proviso/facts"
)

const benchInput = `{"identity":{"kind":"job","issuer":"https://token.actions.githubusercontent.com","platform":"github","subject":"repo:acme/shop:ref:refs/heads/main","tenant":"tenant-1","role":"ci-cd-pipeline","repository":"acme/shop","repository_id":"1","owner_id":"2","ref":"refs/heads/main","ref_type":"branch","branch":"main","commit":"0123456789abcdef0123456789abcdef01234567","event":"push","workflow":"deploy","run_id":"5","run_attempt":1,"actor":"ann","actor_id":"7","pull_request":false},"resource":{"service":"shipping","environment":"production","tenant":"acme"},"context":{"time":"12:30","weekday":"Monday","date":"2026-11-23","timestamp":"2026-11-23T12:30:00+01:00","zone":"Europe/Berlin","branch":"main","commit":"0123456789abcdef0123456789abcdef01234567","commit_signed":true,"environment":"production","service":"shipping","purpose":"deploy"},"intent":{"purpose":"deploy"},"origin":{"time":{"source":"fact:clock"}}}`

func engineOf(t testing.TB, n int) *Engine {
	t.Helper()
	return open(t, dirOf(t, manyPackages(n)))
}

// BenchmarkDecide is a whole decision, from the document that package facts
// assembled to the verdict, with 10 and with 1,000 packages loaded; and beside
// it what OPA costs by itself: one prepared query over an input that was
// parsed before, and over a map.
func BenchmarkDecide(b *testing.B) {
	in := facts.Recorded(input(b, benchInput))
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("packages=%d", n), func(b *testing.B) {
			p, err := engineOf(b, n).For("p1")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if v, err := p.Decide(context.Background(), in); !v.Allowed() {
					b.Fatal(err)
				}
			}
		})
	}
	seed := open(b, seedDir)
	b.Run("seed", func(b *testing.B) {
		p, _ := seed.For("deployment_approval")
		b.ReportAllocs()
		for b.Loop() {
			if v, err := p.Decide(context.Background(), in); !v.Allowed() {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare/parsed", func(b *testing.B) { bare(b, seed, true) })
	b.Run("bare/map", func(b *testing.B) { bare(b, seed, false) })
}

// bare is OPA's own API with nothing around it.
func bare(b *testing.B, e *Engine, parsed bool) {
	text, err := os.ReadFile(filepath.Join(seedDir, "deployment_approval.rego"))
	if err != nil {
		b.Fatal(err)
	}
	p, _ := e.For("deployment_approval")
	q, err := rego.New(rego.Query("data.deployment_approval.allow"), rego.Compiler(p.revision.program.compiler), rego.StrictBuiltinErrors(true)).PrepareForEval(context.Background())
	if err != nil {
		b.Fatal(err, len(text))
	}
	term := termOf(input(b, benchInput))
	asMap, err := anyOf(benchInput)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		option := rego.EvalParsedInput(term.Value)
		if !parsed {
			option = rego.EvalInput(asMap)
		}
		rs, err := q.Eval(context.Background(), option)
		if err != nil || !rs.Allowed() {
			b.Fatal(err)
		}
	}
}

// BenchmarkInput is the document as OPA's value: what is read, and all of it.
func BenchmarkInput(b *testing.B) {
	v := input(b, benchInput)
	p, _ := open(b, seedDir).For("deployment_approval")
	for name, pk := range map[string]*picker{"read": p.picker, "all": newPicker(facts.Needs{All: true})} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pk.pick(v)
			}
		})
	}
}

// BenchmarkRefuse is a refusal with its explanation.
func BenchmarkRefuse(b *testing.B) {
	e := open(b, hardenedDir)
	p, _ := e.For("deployment_approval")
	in := facts.Recorded(input(b, `{"identity":{"role":"dev","pull_request":true},"context":{"branch":"dev","time":"18:00","weekday":"Sunday"}}`))
	b.ReportAllocs()
	for b.Loop() {
		if v, _ := p.Decide(context.Background(), in); v.Allowed() {
			b.Fatal("allowed")
		}
	}
}

// BenchmarkActivate is everything between a changed directory and the revision
// that decides: parse, compile, check, test, canaries.
func BenchmarkActivate(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("packages=%d", n), func(b *testing.B) {
			dir := dirOf(b, manyPackages(n))
			for b.Loop() {
				if _, err := Open(Config{Dir: dir}, Options{Log: silent}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A decision costs as much with 1,000 packages as with 10.
func TestCostDoesNotGrowWithPackages(t *testing.T) {
	in := facts.Recorded(input(t, benchInput))
	cost := func(p *Policy) time.Duration {
		start := time.Now()
		for range 50 {
			if v, err := p.Decide(context.Background(), in); !v.Allowed() {
				t.Fatal(err)
			}
		}
		return time.Since(start) / 50
	}
	few, _ := engineOf(t, 10).For("p1")
	many, _ := engineOf(t, 1000).For("p1")
	// By turns, so that what else runs on the machine hits both alike.
	a, b := time.Hour, time.Hour
	for range 200 {
		a, b = min(a, cost(few)), min(b, cost(many))
	}
	t.Logf("10 packages %v, 1,000 packages %v, ratio %.2f", a, b, float64(b)/float64(a))
	if b > a*3/2 {
		t.Errorf("a decision costs %v with 10 packages and %v with 1,000", a, b)
	}
}

// A whole decision, with the input put into OPA's form, costs about what OPA's
// own prepared query costs over an input that was put into it before.
func TestDecideCostsAsTheBareQuery(t *testing.T) {
	e := open(t, seedDir)
	p, _ := e.For("deployment_approval")
	q, err := rego.New(rego.Query("data.deployment_approval.allow"), rego.Compiler(p.revision.program.compiler), rego.StrictBuiltinErrors(true)).PrepareForEval(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	in, term := facts.Recorded(input(t, benchInput)), termOf(input(t, benchInput))
	cost := func(one func()) time.Duration {
		start := time.Now()
		for range 50 {
			one()
		}
		return time.Since(start) / 50
	}
	ours, bare := time.Hour, time.Hour
	for range 200 {
		ours = min(ours, cost(func() {
			if v, err := p.Decide(context.Background(), in); !v.Allowed() {
				t.Fatal(err)
			}
		}))
		bare = min(bare, cost(func() {
			if rs, err := q.Eval(context.Background(), rego.EvalParsedInput(term.Value)); err != nil || !rs.Allowed() {
				t.Fatal(err)
			}
		}))
	}
	t.Logf("Decide %v, the bare query %v, ratio %.2f", ours, bare, float64(ours)/float64(bare))
	if ours > bare*2 {
		t.Errorf("Decide costs %v, OPA's prepared query alone %v", ours, bare)
	}
}
