package plan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/inventory"
)

// at is a path of a fixture that needs no file.
func at(repo, job, secret, kind string, trust inventory.Trust) inventory.Path {
	return inventory.Path{ID: "path-" + job + secret, File: repo + "/.github/workflows/x.yml", Line: 1, CI: inventory.GitHub, Job: job, Step: "s",
		Credential: inventory.Credential{Kind: inventory.StaticSecret, Name: secret, Nature: inventory.NatureCredential},
		Resource:   inventory.Resource{Kind: kind, Name: "unknown"}, Reach: inventory.Reach{Trust: trust, Events: []string{"push"}}, Runner: inventory.Runner{Kind: inventory.RunnerHosted}}
}

func invOf(paths ...inventory.Path) *inventory.Inventory {
	return &inventory.Inventory{Version: 1, Root: "estate", Paths: paths}
}

func makeOf(t *testing.T, inv *inventory.Inventory, opt Options) *Plan {
	t.Helper()
	p, err := Make(t.Context(), []Tree{{Inventory: inv}}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What outsiders reach comes first; then what wins most for the work.
func TestOrder(t *testing.T) {
	p := makeOf(t, invOf(
		at("a", "chat", "SLACK_TOKEN", "notify/slack", inventory.Protected),
		at("a", "deploy", "AWS_SECRET_ACCESS_KEY", "cloud/aws", inventory.Protected),
		at("a", "publish", "PYPI_TOKEN", "registry/pypi", inventory.Protected),
		at("a", "label", "BOT_PAT", "vcs/github", inventory.ForkReachable),
		at("a", "call", "*", "reusable-workflow", inventory.Protected),
	), Options{})
	var got []string
	for _, it := range p.Items {
		got = append(got, it.Secrets[0])
	}
	if want := "BOT_PAT PYPI_TOKEN AWS_SECRET_ACCESS_KEY SLACK_TOKEN *"; strings.Join(got, " ") != want {
		t.Errorf("the order is %q, want %q", got, want)
	}
	for i, w := range p.Waves {
		if w.Number != i+1 || len(w.Items) != 1 {
			t.Errorf("wave %d: %v", w.Number, w.Items)
		}
	}
}

// One secret of several jobs is one item, the halves of a pair are one item,
// and the same name in two repositories is two that know of each other.
func TestGroups(t *testing.T) {
	p := makeOf(t, invOf(
		at("a", "one", "AWS_ACCESS_KEY_ID", "cloud/aws", inventory.Protected),
		at("a", "one", "AWS_SECRET_ACCESS_KEY", "cloud/aws", inventory.Protected),
		at("a", "two", "AWS_SECRET_ACCESS_KEY", "registry/ecr", inventory.Protected),
		at("a", "three", "AWS_SESSION", "cloud/aws", inventory.Protected),
		at("a", "two", "AWS_SESSION", "cloud/aws", inventory.Protected),
		at("b", "one", "AWS_SECRET_ACCESS_KEY", "cloud/aws", inventory.Protected),
	), Options{})
	if len(p.Items) != 2 {
		t.Fatalf("%d items", len(p.Items))
	}
	for _, it := range p.Items {
		shared := strings.Contains(strings.Join(it.Notes, " "), "also used by another")
		switch it.Directory {
		case "a":
			if len(it.Secrets) != 3 || len(it.Places) != 5 || !shared {
				t.Errorf("a: %v in %d places, %v", it.Secrets, len(it.Places), it.Notes)
			}
		case "b":
			if len(it.Secrets) != 1 || !shared {
				t.Errorf("b: %v, %v", it.Secrets, it.Notes)
			}
		}
	}
}

// A value that a secrets manager gives at run time is no item, and an
// identifier is none.
func TestWhatIsNoItem(t *testing.T) {
	fetched := at("a", "one", "shop/X", "unknown", inventory.Protected)
	fetched.Credential.Source = "vault"
	user := at("a", "one", "DOCKER_USER", "registry/container", inventory.Protected)
	user.Credential.Nature = inventory.NatureIdentifier
	p := makeOf(t, invOf(fetched, user), Options{})
	if len(p.Items) != 0 || p.Summary.Fetched != 1 || p.Summary.Identifiers != 1 {
		t.Errorf("%d items, %+v", len(p.Items), p.Summary)
	}
}

// Only the record makes an item ready to be ended, and only once both ways have
// been open long enough.
func TestProofOfDisuse(t *testing.T) {
	slack := at("a", "chat", "SLACK_TOKEN", "notify/slack", inventory.Protected)
	pypi := at("a", "publish", "PYPI_TOKEN", "registry/pypi", inventory.Protected)
	before := []Earlier{{"monday.json", invOf(slack, pypi)}}
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	day := func(n int) time.Time { return now.AddDate(0, 0, -n) }
	for _, c := range []struct {
		name   string
		record map[string]*Use
		ready  bool
		want   string
	}{
		{"no record", nil, false, "give Proviso's record"},
		{"never used", map[string]*Use{}, false, "no use of the grant yet"},
		{"only refused", map[string]*Use{"a-slack": {Refused: 3}}, false, "refused 3 times"},
		{"used for two days", map[string]*Use{"a-slack": {Allowed: 4, First: day(2), Last: day(1)}}, false, "both ways stay open until 2026-12-08"},
		{"used for two weeks", map[string]*Use{"a-slack": {Allowed: 9, First: day(14), Last: day(1)}}, true, "ready: the grant is in use: 9 times since 2026-11-12, last 2026-11-25"},
		{"not used for a month", map[string]*Use{"a-slack": {Allowed: 9, First: day(60), Last: day(31)}}, true, "ready: the grant was not used for 31 days (9 times before, last 2026-10-26)"},
		{"another grant", map[string]*Use{"b-slack": {Allowed: 9, First: day(30), Last: day(1)}}, false, "no use of the grant yet"},
	} {
		p := makeOf(t, invOf(), Options{Since: before, Record: c.record, Now: func() time.Time { return now }})
		var got *Done
		for i := range p.Done {
			if p.Done[i].ID == "a-slack" {
				got = &p.Done[i]
			} else if p.Done[i].Ready {
				t.Errorf("%s: %s is ready, and Proviso's record can't know", c.name, p.Done[i].ID)
			}
		}
		if got == nil || got.Ready != c.ready || !strings.Contains(got.Verdict, c.want) || len(got.Deletion) == 0 {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// The burn-down counts then, now, and what is left after each wave.
func TestBurnDown(t *testing.T) {
	slack := at("a", "chat", "SLACK_TOKEN", "notify/slack", inventory.Protected)
	pat := at("a", "label", "BOT_PAT", "vcs/github", inventory.ForkReachable)
	pypi := at("a", "publish", "PYPI_TOKEN", "registry/pypi", inventory.Protected)
	npm := at("a", "publish2", "NPM_TOKEN", "registry/npm", inventory.Protected)
	b := makeOf(t, invOf(slack, pat, npm), Options{Since: []Earlier{{"first", invOf(slack, pat, pypi)}}}).BurnDown
	if len(b.Points) != 2 || b.Points[0].Secrets != 3 || b.Points[1].Secrets != 3 || b.Points[1].Outsiders != 1 {
		t.Errorf("points %+v", b.Points)
	}
	if strings.Join(b.Gone, ",") != "a: PYPI_TOKEN" || strings.Join(b.New, ",") != "a: NPM_TOKEN" {
		t.Errorf("gone %q, new %q", b.Gone, b.New)
	}
	want := []int{2, 1, 0}
	for i, pt := range b.Left {
		if pt.Secrets != want[i] || pt.Outsiders != 0 {
			t.Errorf("%s: %+v", pt.Name, pt)
		}
	}
}

// A root that is the repository itself has a name in the burn-down: the
// repository's, or else the directory's; never a dot.
func TestBurnDownNamesTheRoot(t *testing.T) {
	dir := clone(t, "gitlab")
	now, then := scan(t, dir), scan(t, dir)
	now.Paths = slices.DeleteFunc(now.Paths, func(p inventory.Path) bool { return p.Credential.Name == "SLACK_TOKEN" })
	for _, named := range []bool{true, false} {
		want := filepath.Base(dir) + ": SLACK_TOKEN"
		if named {
			want = "acme/billing: SLACK_TOKEN"
		} else if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
			t.Fatal(err)
		}
		p, err := Make(t.Context(), []Tree{{Dir: dir, Inventory: now}}, Options{Since: []Earlier{{"then", then}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(p.BurnDown.Gone, ","); got != want {
			t.Errorf("gone %q, want %q", got, want)
		}
		now.Root = "."
		if p, err = Make(t.Context(), []Tree{{Dir: dir, Inventory: now}}, Options{}); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := p.WriteText(&b, TextOptions{}); err != nil || !strings.HasPrefix(b.String(), strings.TrimSuffix(want, "SLACK_TOKEN")) {
			t.Errorf("the text begins %q", b.String()[:40])
		}
		now.Root = then.Root
	}
}

// Proviso's URL is https, or this machine's: what the client would take.
func TestBrokerURLs(t *testing.T) {
	for url, ok := range map[string]bool{"https://proviso.acme.example": true, "http://127.0.0.1:8080": true, "http://localhost:8080/x": true, "http://[::1]:8080": true,
		"http://proviso.acme.example": false, "http://localhost.acme.example": false, "http://127.0.0.1.acme.example": false, "http://10.0.0.1:8080": false, "ftp://localhost": false} {
		if _, err := Make(t.Context(), nil, Options{Broker: url}); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// The text fits a screen, whatever the size of the estate.
func TestTextFitsAScreen(t *testing.T) {
	var paths []inventory.Path
	for _, n := range strings.Fields("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z") {
		paths = append(paths, at("a", "chat"+n, "SLACK_"+n, "notify/slack", inventory.Protected), at("a", "p"+n, "PYPI_"+n, "registry/pypi", inventory.Protected),
			at("a", "l"+n, "PAT_"+n, "vcs/github", inventory.ForkReachable), at("a", "aws"+n, "AWS_"+n, "cloud/aws", inventory.Protected))
	}
	p := makeOf(t, invOf(paths...), Options{Since: []Earlier{{"first", invOf(paths...)}}})
	var b strings.Builder
	if err := p.WriteText(&b, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if len(lines) > 50 {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
	for _, l := range lines {
		if len([]rune(l)) > 110 {
			t.Errorf("%d columns: %s", len([]rune(l)), l)
		}
	}
	b.Reset()
	if err := p.WriteText(&b, TextOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, it := range p.Items {
		if !strings.Contains(b.String(), it.ID) {
			t.Errorf("--all leaves out %s", it.ID)
		}
	}
}
