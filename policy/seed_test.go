package policy

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

const (
	seedDir     = "../examples/policies/seed"
	hardenedDir = "../examples/policies/hardened"
)

var silent = slog.New(slog.DiscardHandler)

func open(t testing.TB, dir string) *Engine {
	t.Helper()
	// The machine may be busy; what is slow is tested by itself.
	e, err := Open(Config{Dir: dir, Timeout: 10 * time.Second}, Options{Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func input(t testing.TB, text string) document.Value {
	t.Helper()
	v, err := document.Parse([]byte(text), document.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// The seed's six policies run word for word: each file is the article's text
// and a package line.
func TestSeedIsWordForWord(t *testing.T) {
	article := map[string]string{
		"deployment_approval": `allow { input.identity.role == "ci-cd-pipeline" input.context.branch == "main" input.context.commit_signed == true input.context.environment == "production" input.context.time >= "09:00" input.context.time <= "17:00" }`,
		"ticket_approval":     `allow { input.context.service == "critical" input.context.ticket_approved == true input.identity.role == "ci-cd-pipeline" }`,
		"tenant_isolation":    `allow { input.identity.tenant == input.resource.tenant }`,
		"runner_trust":        `allow { input.runner.id in ["trusted-runner-1", "trusted-runner-2"] input.runner.region == "us-west-2" }`,
		"debug_access":        `regoallow { input.identity.on_call == true input.context.requested_ttl <= 30 input.context.purpose == "debug" }`,
		"hotfix_annotation":   `regoallow { input.context.action == "deploy_hotfix" input.context.annotation != null contains(input.context.annotation, "approved by ticket") }`,
	}
	for name, text := range article {
		data, err := os.ReadFile(filepath.Join(seedDir, name+".rego"))
		if err != nil {
			t.Fatal(err)
		}
		want := "package " + name + " " + strings.TrimPrefix(text, "rego")
		if got := strings.Join(strings.Fields(string(data)), " "); got != want {
			t.Errorf("%s.rego is\n%s\nthe article has\n%s", name, got, want)
		}
	}
}

// Each of the six allows and refuses what it says, and says why.
func TestSeedDecides(t *testing.T) {
	e := open(t, seedDir)
	names := e.Packages()
	if len(names) != 6 {
		t.Fatalf("packages %v", names)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(seedDir, "cases", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var cases []struct {
			About   string
			Input   json.RawMessage
			Want    string
			Reasons []string
		}
		if err := json.Unmarshal(data, &cases); err != nil {
			t.Fatal(err)
		}
		allows, refuses := 0, 0
		for _, c := range cases {
			t.Run(name+"/"+c.About, func(t *testing.T) {
				p, err := e.For(name)
				if err != nil {
					t.Fatal(err)
				}
				verdict, err := p.Decide(context.Background(), facts.Recorded(input(t, string(c.Input))))
				out, _ := p.Simulate(context.Background(), input(t, string(c.Input)))
				if out.Allowed != verdict.Allowed() || verdict.Allowed() == (err != nil) {
					t.Errorf("Decide says %v, %v; Simulate says %v", verdict.Allowed(), err, out.Allowed)
				}
				if got := map[bool]string{true: "allow", false: "refuse"}[verdict.Allowed()]; got != c.Want {
					t.Errorf("got %s, want %s: %v", got, c.Want, err)
				}
				var reasons []string
				for _, r := range out.Reasons {
					reasons = append(reasons, r.Message)
					if r.File != name+".rego" || r.Line < 4 {
						t.Errorf("%q stands at %s:%d", r.Message, r.File, r.Line)
					}
				}
				if diff := cmp.Diff(c.Reasons, reasons); diff != "" && len(c.Reasons)+len(reasons) > 0 {
					t.Errorf("reasons (-want +got):\n%s", diff)
				}
			})
			if c.Want == "allow" {
				allows++
			} else {
				refuses++
			}
		}
		if allows == 0 || refuses < 3 {
			t.Errorf("%s: %d allow and %d refuse cases", name, allows, refuses)
		}
	}
}

// What the seed's expressions let through on input that isn't typed, and the
// hardened ones don't. Under Proviso such input can't come: it is typed.
func TestSeedReadLiterally(t *testing.T) {
	seed, hardened := open(t, seedDir), open(t, hardenedDir)
	for _, c := range []struct{ about, pkg, input string }{
		{"a lifetime of null is at most 30", "debug_access", `{"identity":{"on_call":true},"context":{"requested_ttl":null,"purpose":"debug"}}`},
		{"a lifetime of false is at most 30", "debug_access", `{"identity":{"on_call":true},"context":{"requested_ttl":false,"purpose":"debug"}}`},
		{"a lifetime of -5 is at most 30", "debug_access", `{"identity":{"on_call":true},"context":{"requested_ttl":-5,"purpose":"debug"}}`},
		{"0:00 lies in office hours", "deployment_approval", `{"identity":{"role":"ci-cd-pipeline","pull_request":false},"context":{"branch":"main","commit_signed":true,"commit_on_branch":true,"environment":"production","weekday":"Monday","time":"0:00","freeze":false}}`},
		{"1 lies in office hours", "deployment_approval", `{"identity":{"role":"ci-cd-pipeline","pull_request":false},"context":{"branch":"main","commit_signed":true,"commit_on_branch":true,"environment":"production","weekday":"Monday","time":"1","freeze":false}}`},
		{"two tenants of null are the same", "tenant_isolation", `{"identity":{"tenant":null,"pull_request":false},"resource":{"tenant":null}}`},
		{"NOT approved by ticket", "hotfix_annotation", `{"identity":{"role":"ci-cd-pipeline"},"context":{"action":"deploy_hotfix","annotation":"NOT approved by ticket","ticket_id":"OPS-7","ticket_approved":false}}`},
	} {
		for _, e := range []*Engine{seed, hardened} {
			p, err := e.For(c.pkg)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := p.Simulate(context.Background(), input(t, c.input))
			if want := e == seed; out.Allowed != want {
				t.Errorf("%s: %s allows %v, want %v: %v", c.about, map[bool]string{true: "the seed", false: "the hardened policy"}[want], out.Allowed, want, messages(out.Reasons))
			}
		}
	}
}

func TestHardenedHaveTestsAndNoWarnings(t *testing.T) {
	cfg := Config{Dir: hardenedDir}
	problems, err := Check(context.Background(), cfg, Options{})
	if err != nil || len(problems) > 0 {
		t.Errorf("%v\n%v", err, problems)
	}
	results, err := Test(context.Background(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	passed := map[string]int{}
	for _, r := range results {
		if !r.Passed {
			t.Errorf("%s.%s failed: %s", r.Package, r.Name, r.Error)
		}
		passed[strings.TrimSuffix(r.Package, "_test")]++
	}
	for _, name := range open(t, hardenedDir).Packages() {
		if passed[name] < 4 {
			t.Errorf("%s has %d tests", name, passed[name])
		}
	}
}

// The seed's own text gets the warnings that it deserves, and becomes active.
func TestSeedIsWarnedOf(t *testing.T) {
	problems, err := Check(context.Background(), Config{Dir: seedDir}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(problems, func(p Problem) bool { return p.Code == CodeLintDeclared && p.File == "hotfix_annotation.rego" }) {
		t.Errorf("nothing is said of an allow that rests on an annotation:\n%v", problems)
	}
	for _, p := range problems {
		if !p.Warning {
			t.Errorf("%v", p)
		}
	}
}
