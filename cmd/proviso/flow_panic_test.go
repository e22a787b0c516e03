package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// failing is a tracer that panics when a stage begins: a mistake of ours, anywhere.
type failing struct {
	noop.Tracer
	stage proviso.Stage
}

func (f failing) Start(ctx context.Context, name string, o ...trace.SpanStartOption) (context.Context, trace.Span) {
	if strings.HasSuffix(name, " "+string(f.stage)) {
		panic(errors.New("a mistake of ours"))
	}
	return f.Tracer.Start(ctx, name, o...)
}

// A panic inside the flow is a refusal like any other: an answer with a
// decision's id, an entry in the record, no credential, and the broker goes on.
// After the decision was recorded as allowed, a second entry takes it back.
func TestAPanicInTheFlowIsARecordedRefusal(t *testing.T) {
	t.Parallel()
	for _, stage := range []proviso.Stage{proviso.StageJob, proviso.StageRunner, proviso.StageFacts, proviso.StagePolicy, proviso.StageRecord, proviso.StageCredential} {
		t.Run(string(stage), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, plan{})
			b, log := s.serve()
			b.broker.Tracer = failing{stage: stage}
			before := b.log.Status().Size
			r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy"))
			if r.status != http.StatusServiceUnavailable || r.refused.Code != proviso.CodeInternal || r.refused.Stage != stage || r.refused.Decision == "" {
				t.Errorf("the answer is %s", r)
			}
			if strings.Contains(r.refused.Description, "mistake") {
				t.Errorf("the answer tells the cause: %s", r)
			}
			want := int64(1)
			if stage == proviso.StageCredential {
				want = 2 // allowed, and that nobody got anything
			}
			if got := b.log.Status().Size - before; got != want {
				t.Errorf("%d entries in the record, want %d", got, want)
			}
			if stage == proviso.StageCredential {
				_, found := cli(t, "audit", "search", "--store", s.dir+"/data", "--result", "refused", "--output", "json")
				if !strings.Contains(found, `"parent":"`+r.refused.Decision+`"`) || strings.Contains(found, `"decision":"`+r.refused.Decision+`"`) {
					t.Errorf("the entry that takes %s back is %s", r.refused.Decision, found)
				}
			}
			if lines := log.String(); !strings.Contains(lines, "a mistake of ours") || !strings.Contains(lines, r.refused.Decision) {
				t.Errorf("the operator's log lacks the cause:\n%s", lines)
			}
			b.broker.Tracer = nil
			if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
				t.Errorf("the next request: %s", r)
			}
		})
	}
}

// Noise of strangers can't keep the attempt of somebody with a good signature
// (here a pull request's job) out of the record.
func TestNoiseDoesNotHideAnAttempt(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	b, _ := s.serve()
	for range 20_000 {
		if s.ask(exchangeForm("a.b.c", "deploy")); b.broker.Unrecorded() > 0 {
			break
		}
	}
	// The budget gives back 50 a second: take what has come meanwhile, too.
	var attempts []string
	for range 20 {
		s.ask(exchangeForm("a.b.c", "deploy"))
		r := s.ask(exchangeForm(s.token(lab.Job{Event: "pull_request"}), "deploy"))
		if r.granted != nil {
			t.Fatalf("a pull request got %s", r)
		}
		attempts = append(attempts, r.refused.Decision)
	}
	// Nor can they keep a job of ours out of it: it has no budget but its issuer's rate.
	forged := exchangeForm(s.token(lab.Job{Event: "pull_request"}), "deploy")
	before := b.broker.Unrecorded()
	for range 20_000 {
		if s.ask(forged); b.broker.Unrecorded() > before {
			break
		}
	}
	for range 20 {
		s.ask(forged)
		r := s.ask(exchangeForm(s.token(lab.Job{}), "no-such-grant"))
		attempts = append(attempts, r.refused.Decision)
	}
	recorded := s.decisions()
	for _, d := range attempts {
		if !slices.Contains(recorded, d) {
			t.Errorf("the attempt %s is not in the record", d)
		}
	}
}
