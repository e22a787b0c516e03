package report_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/plan"
	"github.com/proviso-ci/proviso/report"
	"github.com/proviso-ci/proviso/trust"
)

// browser is a real Chromium without a window. All that it complains about and
// asks for is written down.
type browser struct {
	ctx context.Context

	mu       sync.Mutex
	said     []string // of the console: errors, and violations of the page's policy
	requests []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	binary := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil && binary == "" {
			binary = p
		}
	}
	if binary == "" {
		t.Fatal("there is no Chromium on this machine; make system installs it")
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.WindowSize(1280, 900), chromedp.WSURLReadTimeout(2*time.Minute), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancelAllocator := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancelAllocator)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	err := chromedp.Listen(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventConsoleAPICalled:
			b.said = append(b.said, "console: "+string(e.Type))
		case *runtime.EventExceptionThrown:
			b.said = append(b.said, fmt.Sprintf("exception: %+v", e.ExceptionDetails))
		case *log.EventEntryAdded:
			b.said = append(b.said, "log: "+e.Entry.Text)
		case *network.EventRequestWillBeSent:
			b.requests = append(b.requests, e.Request.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, enable := range []func() error{
		func() error { _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); return err },
		func() error { _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); return err },
	} {
		if err := enable(); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// open shows a page, and waits until its script is ready.
func (b *browser) open(t *testing.T, name string) {
	t.Helper()
	b.do(t, chromedp.Navigate("about:blank"), chromedp.Navigate("file://"+name), chromedp.WaitReady(chromedp.CSS(`html[data-ready="yes"]`)))
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// eval runs a script and gives its value.
func eval[T any](t *testing.T, b *browser, script string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return v
}

// set fills in a field of the filters as a person does: the value, then the event.
func (b *browser) set(t *testing.T, id, value string) {
	t.Helper()
	event := "change"
	if id == "q" {
		event = "input"
	}
	if !eval[bool](t, b, fmt.Sprintf(`(() => { const e = document.getElementById(%q); e.value = %q; e.dispatchEvent(new Event(%q)); return e.value === %q; })()`, id, value, event, value)) {
		t.Errorf("the field %s has no value %q", id, value)
	}
}

// quiet checks that the page has neither complained nor asked for anything but itself.
func (b *browser) quiet(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.said {
		t.Errorf("the browser says: %s", s)
	}
	for _, r := range b.requests {
		if !strings.HasPrefix(r, "file://") && r != "about:blank" {
			t.Errorf("the page asks for %s", r)
		}
	}
	b.said, b.requests = nil, nil
}

// pageOf writes the page of an inventory into a file.
func pageOf(t *testing.T, inv *inventory.Inventory, p *plan.Plan) string {
	t.Helper()
	var out bytes.Buffer
	if err := (&report.Report{Inventory: inv, Plan: p, Version: "test"}).Write(&out, "html"); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// scanned reads a tree with its findings and its plan.
func scanned(t *testing.T, root string) (*inventory.Inventory, *plan.Plan) {
	t.Helper()
	inv, err := inventory.Scan(t.Context(), root, inventory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := inventory.Check(t.Context(), inv, root, inventory.Options{}); err != nil {
		t.Fatal(err)
	}
	p, err := plan.Make(t.Context(), []plan.Tree{{Dir: root, Inventory: inv}}, plan.Options{Route: plan.Direct})
	if err != nil {
		t.Fatal(err)
	}
	return inv, p
}

const truth = "../inventory/testdata/truth"

func TestThePageInABrowser(t *testing.T) {
	b := newBrowser(t)
	t.Run("filters work on the graph and on the tables", func(t *testing.T) { pageFilters(t, b) })
	t.Run("the graph is steered with the keyboard", func(t *testing.T) { pageKeyboard(t, b) })
	t.Run("every table is drawn", func(t *testing.T) { pageTables(t, b) })
	t.Run("hostile names stay text", func(t *testing.T) { pageHostile(t, b) })
	t.Run("two thousand paths stay readable", func(t *testing.T) { pageLarge(t, b) })
	t.Run("an empty inventory says so", func(t *testing.T) { pageEmpty(t, b) })
	t.Run("the policy of the page stops a script", func(t *testing.T) { pagePolicy(t, b) })
}

// pageFilters sets each filter and compares what is left with what the inventory has.
func pageFilters(t *testing.T, b *browser) {
	inv, p := scanned(t, truth)
	b.open(t, pageOf(t, inv, p))
	first := inv.Paths[0]
	for _, c := range []struct {
		id, value string
		keep      func(*inventory.Path) bool
	}{
		{"f-kind", "federated", func(p *inventory.Path) bool { return p.Credential.Kind == inventory.Federated }},
		{"f-kind", "identifier", func(p *inventory.Path) bool { return p.Credential.Nature == inventory.NatureIdentifier }},
		{"f-trust", "fork_reachable", func(p *inventory.Path) bool { return p.Reach.Trust == inventory.ForkReachable }},
		{"f-rkind", first.Resource.Kind, func(p *inventory.Path) bool {
			return p.Resource.Kind == first.Resource.Kind || strings.HasPrefix(p.Resource.Kind, first.Resource.Kind+"/")
		}},
		{"f-ci", "gitlab-ci", func(p *inventory.Path) bool { return p.CI == inventory.GitLab }},
		{"q", "npm_token", func(p *inventory.Path) bool { return p.Credential.Name == "NPM_TOKEN" }},
	} {
		want := 0
		kinds := map[string]bool{}
		for i := range inv.Paths {
			if c.keep(&inv.Paths[i]) {
				want++
				kinds["k-"+string(inv.Paths[i].Credential.Kind)] = true
			}
		}
		if want == 0 || want == len(inv.Paths) {
			t.Fatalf("%s %s keeps %d of %d paths: this test looks at nothing", c.id, c.value, want, len(inv.Paths))
		}
		b.set(t, c.id, c.value)
		got := eval[int](t, b, "shown.length")
		rows := eval[int](t, b, `document.querySelectorAll("#panel-paths tbody tr:not(.detail)").length`)
		inGraph := eval[int](t, b, `(() => { const s = new Set(); for (const r of rowList) if (r.kind !== "head" && r.column === 0) for (const p of r.node.paths) s.add(p.n); return s.size; })()`)
		if c.id == "q" {
			if got < want || got > 4*want {
				t.Errorf("the search %s shows %d paths, expected %d or some more", c.value, got, want)
			}
			want = got
		}
		if got != want || rows != min(want, 100) || inGraph != want {
			t.Errorf("%s %s: %d paths, %d rows, %d in the graph; expected %d", c.id, c.value, got, rows, inGraph, want)
		}
		edges := eval[[]string](t, b, `[...new Set([...document.querySelectorAll("#graph .edges path")].map(e => e.classList[1]))]`)
		for _, e := range edges {
			if c.id != "q" && !kinds[e] {
				t.Errorf("%s %s: the graph has an edge %s", c.id, c.value, e)
			}
		}
		if status := eval[string](t, b, `document.getElementById("status").textContent`); !strings.HasPrefix(status, fmt.Sprint(want, " of ")) {
			t.Errorf("%s %s: the status says %q", c.id, c.value, status)
		}
		b.do(t, chromedp.Click(chromedp.CSS("#reset")))
		if got := eval[int](t, b, "shown.length"); got != len(inv.Paths) {
			t.Errorf("after a reset %d of %d paths are shown", got, len(inv.Paths))
		}
	}
	b.quiet(t)
}

// pageKeyboard selects a box without a mouse.
func pageKeyboard(t *testing.T, b *browser) {
	inv, p := scanned(t, truth)
	b.open(t, pageOf(t, inv, p))
	if n := eval[int](t, b, `document.querySelectorAll("#graph [tabindex='0']").length`); n != 1 {
		t.Errorf("the graph has %d stops for the Tab key, expected one", n)
	}
	eval[bool](t, b, `document.querySelector("#graph [tabindex='0']").focus(), true`)
	press := func(keys ...string) {
		for _, k := range keys {
			eval[bool](t, b, fmt.Sprintf(`document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: %q, bubbles: true}))||true`, k))
		}
	}
	press("ArrowRight", "End", "ArrowUp")
	label := eval[string](t, b, `document.activeElement.getAttribute("aria-label") || ""`)
	if !strings.Contains(label, "path") {
		t.Fatalf("the focus is on %q", label)
	}
	if opened := eval[string](t, b, `document.activeElement.getAttribute("aria-expanded") || ""`); opened == "true" {
		press(" ", " ") // closes and opens a group; the focus stays
		if now := eval[string](t, b, `document.activeElement.getAttribute("aria-label") || ""`); now != label {
			t.Errorf("after closing and opening, the focus is on %q instead of %q", now, label)
		}
		press("ArrowDown")
	}
	press("Enter")
	if chips := eval[int](t, b, `document.querySelectorAll("#chips .chip").length`); chips != 1 {
		t.Errorf("%d chips name the selection, expected one", chips)
	}
	if all, some := len(inv.Paths), eval[int](t, b, "shown.length"); some == 0 || some >= all {
		t.Errorf("the selection shows %d of %d paths", some, all)
	}
	if focus := eval[string](t, b, `document.activeElement.getAttribute("role") || ""`); focus != "button" {
		t.Errorf("after the selection the focus is on a %q", focus)
	}
	b.quiet(t)
}

// pageTables looks at each tab, with an expanded row.
func pageTables(t *testing.T, b *browser) {
	inv, p := scanned(t, truth)
	inv.Suppressed = []inventory.Suppressed{{Finding: inv.Findings[0], By: "ignore", Reason: "accepted in OPS-12", Expires: "2027-01-31"}}
	inv.Findings = inv.Findings[1:]
	federated := slices.IndexFunc(inv.Paths, func(p inventory.Path) bool { return p.Credential.Kind == inventory.Federated })
	inv.Paths[federated].Live = &inventory.Live{Grant: "deploy-shop", LastUsed: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Uses: 7}
	inv.Trusts = []trust.Trust{{ID: "trust-1", File: "trust.json", Line: 3, Kind: trust.AWSRole, Target: trust.Target{Kind: "cloud/aws", Name: "arn:aws:iam::123456789012:role/x"}, Issuer: "https://token.actions.githubusercontent.com",
		Conditions: []trust.Condition{{Claim: "sub", Match: trust.Glob, Values: []string{"repo:acme/shop:*"}}}}}
	inv.Edges = []inventory.Edge{{Path: inv.Paths[federated].ID, Trust: "trust-1", Can: trust.Yes}}
	b.open(t, pageOf(t, inv, p))
	for tab, want := range map[string]string{
		"paths": inv.Paths[0].Resource.Kind, "findings": "Fix:", "plan": "Deletion", "gaps": "Defined where this scan could not look", "aside": "accepted in OPS-12", "trusts": "✓ " + inv.Paths[federated].File,
	} {
		eval[bool](t, b, fmt.Sprintf(`document.getElementById("tab-%s").click() || true`, tab))
		text := eval[string](t, b, fmt.Sprintf(`document.getElementById("panel-%s").textContent`, tab))
		if !strings.Contains(text, want) && tab != "paths" || len(text) < 100 {
			t.Errorf("the tab %s shows %d characters without %q", tab, len(text), want)
		}
	}
	eval[bool](t, b, `document.getElementById("tab-paths").click() || true`)
	eval[bool](t, b, `document.querySelector("#panel-paths td button").click() || true`)
	if text := eval[string](t, b, `document.querySelector("#panel-paths tr.detail:not([hidden])").textContent`); !strings.Contains(text, "How it gets there") {
		t.Errorf("the details say %q", text)
	}
	b.set(t, "q", "served by proviso")
	if got := eval[int](t, b, "shown.length"); got != 1 {
		t.Errorf("%d paths are shown as served by Proviso, expected one", got)
	}
	unnamed := eval[[]string](t, b, `[...document.querySelectorAll("button, select, input")].filter(e => !(e.textContent || e.getAttribute("aria-label") || e.labels && e.labels.length)).map(e => e.outerHTML)`)
	if len(unnamed) > 0 {
		t.Errorf("controls without a name: %q", unnamed)
	}
	b.quiet(t)
}

// hostile are names that try to be something else.
var hostile = []string{
	`</script><script>window.hacked=1</script>`, `<img src=x onerror="window.hacked=1">`, `"><svg onload=window.hacked=1>`, `javascript:window.hacked=1`,
	`{{.Root}} ${window.hacked=1}`, `<!-- --><script>`, "line\u2028separator\u2029", "\u202eright to left", `]]><style>*{display:none}</style>`, `' onclick='window.hacked=1`,
}

func hostileInventory() *inventory.Inventory {
	inv := &inventory.Inventory{Version: 1, Root: hostile[0], Files: []inventory.File{}, Findings: []inventory.Finding{}, Unresolved: []inventory.Unresolved{}}
	for i, h := range hostile {
		id := fmt.Sprintf("path-%016x", i)
		inv.Files = append(inv.Files, inventory.File{File: h + ".yml", CI: inventory.GitHub, Status: inventory.StatusUnreadable, Detail: h})
		inv.Paths = append(inv.Paths, inventory.Path{
			ID: id, File: h + ".yml", Line: 1, CI: inventory.GitHub, Job: h, Step: h, Credential: inventory.Credential{Kind: inventory.StaticSecret, Name: h, Nature: inventory.NatureCredential, Source: h},
			Resource: inventory.Resource{Kind: "registry/" + h, Name: h}, Permission: h, ExposedVia: h, Reach: inventory.Reach{Trust: inventory.ForkReachable, Events: []string{h}, Environment: h},
			Runner: inventory.Runner{Kind: "hosted", Labels: []string{h}}, Migration: h,
		})
		inv.Findings = append(inv.Findings, inventory.Finding{ID: "finding-" + id, Rule: "fork-reachable-secret", Severity: inventory.SeverityHigh, File: h + ".yml", Line: 1, Job: h, Step: h, Message: h, Fix: h, Paths: []string{id}, References: []string{h}})
		inv.Unresolved = append(inv.Unresolved, inventory.Unresolved{File: h, Line: 1, CI: inventory.GitHub, Kind: h, Name: h, Why: h})
	}
	return inv
}

func pageHostile(t *testing.T, b *browser) {
	b.open(t, pageOf(t, hostileInventory(), nil))
	for _, tab := range []string{"findings", "gaps", "paths"} {
		eval[bool](t, b, fmt.Sprintf(`document.getElementById("tab-%s").click() || true`, tab))
		eval[bool](t, b, `[...document.querySelectorAll("#panels button")].forEach(e => e.click()) || true`)
		b.open(t, pageOf(t, hostileInventory(), nil))
	}
	if eval[bool](t, b, `window.hacked !== undefined || document.querySelectorAll("img, #graph svg svg, main script, main style").length > 0`) {
		t.Error("a name became markup")
	}
	if got := eval[string](t, b, `document.querySelector(".root").textContent`); got != hostile[0] {
		t.Errorf("the root is shown as %q", got)
	}
	if got := eval[bool](t, b, fmt.Sprintf(`[...document.querySelectorAll("#panel-paths strong")].some(e => e.textContent === %q)`, hostile[1])); !got {
		t.Error("the name of a secret is not shown as it is")
	}
	b.quiet(t)
}

// largeInventory is an estate of 120 repositories.
func largeInventory(n int) *inventory.Inventory {
	inv := &inventory.Inventory{Version: 1, Root: "estate", Files: []inventory.File{}, Paths: []inventory.Path{}, Findings: []inventory.Finding{}, Unresolved: []inventory.Unresolved{}}
	kinds := []inventory.Kind{inventory.StaticSecret, inventory.Federated, inventory.PlatformToken, inventory.Ambient, inventory.ServiceConnection}
	trusts := []inventory.Trust{inventory.Protected, inventory.TrustUnknown, inventory.ForkReachable}
	for i := range n {
		file := fmt.Sprintf("github.com/acme/service-%03d/.github/workflows/release.yml", i%120)
		inv.Paths = append(inv.Paths, inventory.Path{
			ID: fmt.Sprintf("path-%016x", i), File: file, Line: 10 + i%50, CI: inventory.GitHub, Job: fmt.Sprintf("job-%d", i%7),
			Credential: inventory.Credential{Kind: kinds[i%5], Name: fmt.Sprintf("CREDENTIAL_%d", i%233)}, Resource: inventory.Resource{Kind: fmt.Sprintf("registry/kind-%d", i%37), Name: fmt.Sprintf("resource-%d.example", i%411)},
			ExposedVia: "step env", Reach: inventory.Reach{Trust: trusts[i%11%3], Events: []string{"push"}}, Runner: inventory.Runner{Kind: "hosted", Labels: []string{"ubuntu-latest"}},
		})
	}
	return inv
}

func pageLarge(t *testing.T, b *browser) {
	b.open(t, pageOf(t, largeInventory(2000), nil))
	if rows := eval[int](t, b, "rowList.length"); rows < 30 || rows > 90 {
		t.Errorf("the graph has %d boxes", rows)
	}
	if covered := eval[[]int](t, b, `[0, 1, 2].map(c => { const s = new Set(); for (const r of rowList) if (r.column === c && r.kind !== "head") for (const p of r.node.paths) s.add(p.n); return s.size; })`); !slices.Equal(covered, []int{2000, 2000, 2000}) {
		t.Errorf("the columns stand for %v of 2000 paths", covered)
	}
	if rows := eval[int](t, b, `document.querySelectorAll("#panel-paths tbody tr:not(.detail)").length`); rows != 100 {
		t.Errorf("the table has %d rows at first, expected 100", rows)
	}
	before := eval[int](t, b, "rowList.length")
	eval[bool](t, b, `[...document.querySelectorAll("#graph .more")].at(-1).dispatchEvent(new MouseEvent("click", {bubbles: true})) || true`)
	if after := eval[int](t, b, "rowList.length"); after <= before {
		t.Errorf("the box that says more shows %d boxes after %d", after, before)
	}
	if took := eval[float64](t, b, `(() => { const t = performance.now(); drawGraph(); return performance.now() - t; })()`); took > 5000 {
		t.Errorf("the graph takes %.0f ms to draw", took)
	}
	b.quiet(t)
}

func pageEmpty(t *testing.T, b *browser) {
	inv := largeInventory(0)
	b.open(t, pageOf(t, inv, nil))
	if got := eval[string](t, b, `document.getElementById("graph").textContent`); got != "No access path was found in what was read." {
		t.Errorf("the graph of nothing says %q", got)
	}
	b.quiet(t)
}

// pagePolicy makes sure that quiet can fail, and that the policy holds: a
// script that gets into the page is stopped and complained about.
func pagePolicy(t *testing.T, b *browser) {
	b.open(t, pageOf(t, largeInventory(3), nil))
	b.quiet(t)
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	eval[bool](t, b, `(() => { const s = document.createElement("script"); s.textContent = "window.hacked = 1"; document.body.append(s); return true; })()`)
	eval[bool](t, b, fmt.Sprintf(`new Promise(done => { const i = new Image(); i.onerror = () => done(true); i.onload = () => done(false); i.src = %q; document.body.append(i); })`, server.URL+"/x.png"))
	server.Close()
	if eval[bool](t, b, "window.hacked === 1") {
		t.Error("an inline script ran")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) < 2 {
		t.Errorf("the browser says %q, expected a complaint about the script and one about the image", b.said)
	}
	if asked {
		t.Error("the page could load an image from the network")
	}
	b.said, b.requests = nil, nil
}
