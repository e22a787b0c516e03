package audit

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func TestHandler(t *testing.T) {
	l := newLog(t)
	get := func(method, path string, entries bool) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(method, "/", nil)
		req.URL.Path = path
		Handler(l.db, entries).ServeHTTP(w, req)
		return w
	}
	if w := get("GET", "/checkpoint", true); w.Code != http.StatusNotFound {
		t.Errorf("an empty log has a checkpoint: %d", w.Code)
	}
	l.fillTo(300)
	for _, c := range []struct {
		method, path string
		entries      bool
		status, size int
		cache        string
	}{
		{"GET", "/tile/entries/000", false, 404, 0, ""}, // not for everybody
		{"GET", "/tile/entries/001.p/44", false, 404, 0, ""},
		{"POST", "/checkpoint", false, 405, 0, ""},
		{"DELETE", "/tile/0/000", true, 405, 0, ""},
		{"GET", "/", true, 404, 0, ""},
		{"GET", "/tile/0/002", true, 404, 0, ""},
		{"GET", "/tile/0/001", true, 404, 0, ""},      // not full yet
		{"GET", "/tile/0/001.p/45", true, 404, 0, ""}, // not so wide yet
		{"GET", "/tile/2/000", true, 404, 0, ""},
		{"GET", "/tile/63/000.p/1", true, 404, 0, ""},
		{"GET", "/tile/64/000", true, 404, 0, ""},
		{"GET", "/tile/00/000", true, 404, 0, ""},
		{"GET", "/tile/0/0", true, 404, 0, ""},
		{"GET", "/tile/0/000.p/256", true, 404, 0, ""},
		{"GET", "/tile/0/000.p/0", true, 404, 0, ""},
		{"GET", "/tile/0/000.p/01", true, 404, 0, ""},
		{"GET", "/tile/0/x000/000", true, 404, 0, ""},
		{"GET", "/tile/0/../../log.key", true, 404, 0, ""},
		{"GET", "/tile/0/-01", true, 404, 0, ""},
		{"GET", "/tile/0/x999/x999/x999/x999/x999/x999/999", true, 404, 0, ""},
		{"GET", "/../log.key", true, 404, 0, ""},
		{"GET", "/log.key", true, 404, 0, ""},
		{"GET", "/checkpoint", false, 200, -1, "no-cache"},
		{"HEAD", "/checkpoint", false, 200, -1, "no-cache"},
		{"GET", "/tile/0/000", false, 200, 8192, "public"},
		{"GET", "/tile/0/000.p/3", false, 200, 96, "public"}, // what it was once
		{"GET", "/tile/0/001.p/44", false, 200, 44 * 32, "public"},
		{"GET", "/tile/1/000.p/1", false, 200, 32, "public"},
		{"GET", "/tile/entries/001.p/44", true, 200, -1, "private"},
	} {
		w := get(c.method, c.path, c.entries)
		if w.Code != c.status || (c.size > 0 && w.Body.Len() != c.size) || !strings.Contains(w.Header().Get("Cache-Control"), c.cache) {
			t.Errorf("%s %s: %d, %d bytes, %v", c.method, c.path, w.Code, w.Body.Len(), w.Header())
		}
		if c.status != 200 && strings.Contains(w.Body.String(), "PRIVATE") {
			t.Errorf("%s %s gives %s", c.method, c.path, w.Body)
		}
	}
	if w := get("GET", "/checkpoint", false); !strings.HasPrefix(w.Body.String(), origin+"\n300\n") {
		t.Errorf("the checkpoint is %s", w.Body)
	}
	l.db.Close()
	if w := get("GET", "/checkpoint", false); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "sql") {
		t.Errorf("without a store: %d %s", w.Code, w.Body)
	}
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]resource{
		"tile/0/000": {0, 0, 256}, "tile/2/001.p/1": {2, 1, 1}, "tile/0/x001/x234/067": {0, 1234067, 256},
		"tile/entries/x001/000.p/255": {entriesLevel, 1000, 255},
	} {
		if got, ok := parseResource(path); !ok || got != want || want.path() != path {
			t.Errorf("%s is read as %+v and written as %s", path, got, want.path())
		}
	}
	// The specification's example: a tree of 70,000.
	for r, want := range map[resource]int{{level: 0, number: 272}: 256, {level: 0, number: 273}: 112, {level: 0, number: 274}: 0, {level: 1}: 256, {level: 1, number: 1}: 17, {level: 2}: 1, {level: 3}: 0} {
		if got := r.in(70_000); got != want {
			t.Errorf("%+v is %d wide in a tree of 70,000, want %d", r, got, want)
		}
	}
}

func TestSearch(t *testing.T) {
	l := newLog(t)
	start := l.clock.now
	var decisions []string
	for i := range 600 {
		l.clock.set(start.Add(time.Duration(i) * time.Minute))
		e := l.entry([]string{"deploy", "read"}[i%2])
		e.Issuer = []string{"github", "gitlab", "jenkins"}[i%3]
		e.Input = text("repository", "decoy")
		if i%5 == 0 {
			e.Input = e.Input.At("none")
			e.Identity = text("repository", "acme/shipping")
		}
		e.SetRefusal(proviso.Refuse(proviso.StagePolicy, proviso.CodePolicyDenied, "no"))
		if err := l.Refuse(ctx, e); err != nil {
			t.Fatal(err)
		}
		decisions = append(decisions, e.Decision)
	}
	l.mustCommit("last")
	for name, c := range map[string]struct {
		q    Query
		want int
	}{
		"everything": {Query{}, 601}, "a grant": {Query{Grant: "deploy"}, 300}, "an issuer": {Query{Issuer: "gitlab"}, 200},
		"a repository": {Query{Repository: "acme/shipping"}, 120}, "a word that is elsewhere": {Query{Repository: "decoy"}, 0},
		"allowed": {Query{Result: "allowed"}, 1}, "a code": {Query{Code: proviso.CodePolicyDenied}, 600}, "a credential": {Query{Credential: "id-last"}, 1},
		"from": {Query{From: start.Add(500 * time.Minute)}, 101}, "to": {Query{To: start.Add(10 * time.Minute)}, 10},
		"an hour of it": {Query{From: start.Add(100 * time.Minute), To: start.Add(160 * time.Minute), Grant: "deploy"}, 30},
		"nothing":       {Query{From: start.Add(1000 * time.Hour)}, 0}, "another person": {Query{Actor: "nobody"}, 0},
	} {
		n, last := 0, int64(-1)
		for s, err := range Search(ctx, l.db, c.q) {
			if err != nil || s.Index <= last {
				t.Fatalf("%s: entry %d behind %d: %v", name, s.Index, last, err)
			}
			n, last = n+1, s.Index
		}
		if n != c.want {
			t.Errorf("%s: %d entries, want %d", name, n, c.want)
		}
	}
	for i, id := range decisions {
		if i%97 == 0 {
			if got, err := Find(ctx, l.db, id); err != nil || len(got) != 1 || got[0].Decision != id || got[0].Index != int64(i) {
				t.Errorf("decision %d: %v, %v", i, got, err)
			}
		}
	}
	if got, err := Find(ctx, l.db, NewDecision(start)); err != nil || len(got) != 0 {
		t.Errorf("a decision that was never taken: %v, %v", got, err)
	}
	if got, err := Find(ctx, l.db, "nonsense"); err != nil || len(got) != 0 {
		t.Errorf("no decision at all: %v, %v", got, err)
	}
	for range Search(ctx, l.db, Query{}) {
		break // a reader may stop at any time
	}
}

// dirTiles reads the tiles of an exported log for package tlog, which checks
// each of them against the root.
type dirTiles struct{ dir string }

func (d dirTiles) Height() int                     { return tileHeight }
func (d dirTiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (d dirTiles) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, t := range tiles {
		one, err := os.ReadFile(filepath.Join(d.dir, filepath.FromSlash(resource{t.L, t.N, t.W}.path())))
		if err != nil {
			return nil, err
		}
		data = append(data, one)
	}
	return data, nil
}

// Another reader of the format finds every entry where it should be.
func TestAnotherReaderAgrees(t *testing.T) {
	l := newLog(t)
	l.fillTo(700)
	dir := t.TempDir()
	if _, err := Export(ctx, l.db, dir); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := os.ReadFile(filepath.Join(dir, checkpointPath))
	if err != nil {
		t.Fatal(err)
	}
	v, _ := note.NewVerifier(l.VerifierKey())
	n, err := note.Open(checkpoint, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(n.Text, "\n")
	root, err := tlog.ParseHash(lines[2])
	if err != nil || lines[0] != origin || lines[1] != "700" {
		t.Fatalf("the checkpoint is %q (%v)", lines, err)
	}
	reader := tlog.TileHashReader(tlog.Tree{N: 700, Hash: root}, dirTiles{dir})
	for s, err := range Search(ctx, l.db, Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if s.Index%37 != 0 && s.Index != 699 {
			continue
		}
		path, err := tlog.ProveRecord(700, s.Index, reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(path, 700, root, s.Index, tlog.RecordHash([]byte(s.Document.String()))); err != nil {
			t.Errorf("entry %d: %v", s.Index, err)
		}
	}
}
