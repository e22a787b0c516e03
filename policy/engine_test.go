package policy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
)

const ciMay, devMay = "package production\n\nallow if input.identity.role == \"ci\"\n", "package production\n\nallow if input.identity.role == \"dev\"\n"

// who gives the role that the active policy allows.
func who(t testing.TB, e *Engine) string {
	t.Helper()
	p, err := e.For("production")
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"ci", "dev"} {
		if out, _ := p.Simulate(context.Background(), input(t, `{"identity":{"role":"`+role+`"}}`)); out.Allowed {
			return role
		}
	}
	return "nobody"
}

func TestMissingPackage(t *testing.T) {
	e := open(t, dirOf(t, map[string]string{"p.rego": goodPolicy, "lib.rego": "package lib\n\nok if input.identity.role == \"ci\"\n"}))
	for name, words := range map[string]string{"prodction": "did you mean production?", "lib": "no package with that name has a rule called allow", "": "no package", "data.production": "no package"} {
		_, err := e.For(name)
		refused(t, err, proviso.CodePolicyMissing, words)
		if no := proviso.AsRefusal(err, "", ""); strings.Contains(no.Public, "did you mean") {
			t.Errorf("the job learns of other policies: %s", no.Public)
		}
	}
}

// Each way in which a directory can turn bad keeps the revision before it,
// says so in the log and in Status, and is over when the directory is good again.
func TestBadPoliciesKeepTheOlderRevision(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		code             proviso.Code
	}{
		{"does not parse", "production.rego", "package production\n\nallow if {\n", proviso.CodePolicyParse},
		{"does not compile", "production.rego", "package production\n\nallow if x == 1\n", CodeTypeCheck},
		{"a misspelt field", "production.rego", "package production\n\nallow if input.identity.rolle == \"dev\"\n", CodeTypeCheck},
		{"reaches out", "production.rego", "package production\n\nallow if http.send({}).ok\n", proviso.CodePolicyCapability},
		{"a lint", "production.rego", "package production\n\nallow := true\n", CodeLintAllow},
		{"a test that fails", "production_test.rego", "package production_test\n\ntest_x if data.production.allow with input as {}\n", proviso.CodePolicyTests},
		{"a canary", "production.rego", "package production\n\nallow if input.context.time >= \"09:00\"\n", proviso.CodePolicyCanary},
		{"bad data", "data.json", "{", CodeFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := dirOf(t, map[string]string{"production.rego": ciMay})
			var text bytes.Buffer
			now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
			e, err := Open(Config{Dir: dir}, Options{Log: slog.New(slog.NewTextHandler(&text, nil)), Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			before := e.Status()
			write(t, dir, c.file, c.text)
			for range 2 {
				refused(t, e.Reload(context.Background()), c.code, c.file)
				now = now.Add(time.Hour)
			}
			s := e.Status()
			if who(t, e) != "ci" || s.Digest != before.Digest || s.Revision != 1 {
				t.Errorf("%s may, status %+v", who(t, e), s)
			}
			if r := s.Rejected; r == nil || r.Code != c.code || len(r.Problems) == 0 || r.Since.Hour() != 12 {
				t.Errorf("rejected %+v", r)
			}
			if !strings.Contains(text.String(), "level=ERROR") || !strings.Contains(text.String(), "the older policies still decide") || !strings.Contains(text.String(), string(c.code)) {
				t.Errorf("the log says\n%s", text.String())
			}
			if err := os.Remove(filepath.Join(dir, c.file)); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "production.rego", ciMay)
			if err := e.Reload(context.Background()); err != nil || e.Status().Rejected != nil {
				t.Errorf("%v, %+v", err, e.Status())
			}
		})
	}
}

// Policies that were replaced and come back decide, and the log says so.
func TestOlderPoliciesComeBackLoudly(t *testing.T) {
	dir := dirOf(t, map[string]string{"production.rego": ciMay})
	var text bytes.Buffer
	e, err := Open(Config{Dir: dir}, Options{Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for _, rego := range []string{devMay, ciMay} {
		if strings.Contains(text.String(), "level=WARN") {
			t.Errorf("too early:\n%s", text.String())
		}
		write(t, dir, "production.rego", rego)
		if err := e.Reload(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(text.String(), "were active before") || e.Status().Revision != 3 {
		t.Errorf("revision %d:\n%s", e.Status().Revision, text.String())
	}
}

// Watch takes over a change by itself, once it has been the same twice.
func TestWatch(t *testing.T) {
	dir := dirOf(t, map[string]string{"production.rego": ciMay})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		e := open(t, dir)
		done := make(chan struct{})
		go func() { e.Watch(ctx); close(done) }()

		write(t, dir, "production.rego", devMay)
		time.Sleep(3 * time.Second) // one look: the change may still be going on
		if got := who(t, e); got != "ci" {
			t.Errorf("after one look %s may", got)
		}
		time.Sleep(2 * time.Second)
		if got := who(t, e); got != "dev" || e.Status().Revision != 2 {
			t.Errorf("after two looks %s may, %+v", got, e.Status())
		}

		write(t, dir, "production.rego", "broken")
		time.Sleep(10 * time.Second)
		if s := e.Status(); who(t, e) != "dev" || s.Rejected == nil || s.Revision != 2 {
			t.Errorf("%s may, %+v", who(t, e), s)
		}
		write(t, dir, "production.rego", devMay)
		time.Sleep(10 * time.Second)
		if s := e.Status(); s.Rejected != nil || s.Revision != 2 {
			t.Errorf("%+v", s)
		}

		os.RemoveAll(dir)
		time.Sleep(10 * time.Second)
		if s := e.Status(); who(t, e) != "dev" || s.Rejected == nil {
			t.Errorf("without a directory: %+v", s)
		}
		cancel()
		<-done
	})
}

// A request is decided by one revision from its first to its last step, and
// requests go on while revisions change.
func TestRevisionsChangeUnderLoad(t *testing.T) {
	dir := dirOf(t, map[string]string{"production.rego": ciMay})
	e := open(t, dir)
	held, _ := e.For("production")
	var stop atomic.Bool
	var wg sync.WaitGroup
	ci := facts.Recorded(input(t, asCI))
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				p, err := e.For("production")
				if err != nil {
					t.Error(err)
					return
				}
				v, _ := p.Decide(context.Background(), ci)
				if want := p.Revision()%2 == 1; v.Allowed() != want {
					t.Errorf("revision %d allows %v", p.Revision(), v.Allowed())
					return
				}
			}
		})
	}
	for i := range 10 {
		write(t, dir, "production.rego", []string{devMay, ciMay}[i%2])
		if err := e.Reload(context.Background()); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if v, err := held.Decide(context.Background(), ci); !v.Allowed() || v.Revision() != 1 {
		t.Errorf("the revision that was held: %v", err)
	}
	if s := e.Status(); s.Revision != 11 {
		t.Errorf("%+v", s)
	}
}

func TestZone(t *testing.T) {
	dir := dirOf(t, map[string]string{"production.rego": ciMay})
	if _, err := Open(Config{Dir: dir, Zone: "Europe/Berlin"}, Options{Log: silent}); err != nil {
		t.Error(err)
	}
	_, err := Open(Config{Dir: dir, Zone: "Berlin"}, Options{Log: silent})
	refused(t, err, CodeFile, "Europe/Berlin")
}

// manyPackages gives n packages with a helper, a deny and six conditions each.
func manyPackages(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("team%d/p%d.rego", i%10, i)] = fmt.Sprintf(`package p%d

default allow := false

allow if {
	input.identity.role == "ci-cd-pipeline"
	input.context.branch == "main"
	input.context.commit_signed == true
	input.context.environment == "production"
	office_hours
	input.identity.tenant == "tenant-%d"
}

office_hours if {
	input.context.time >= "09:00"
	input.context.time <= "17:00"
}

limits := {"ttl": 900}
`, i, i)
	}
	return files
}
