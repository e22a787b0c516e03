package audit

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/klauspost/compress/s2"
)

// sql alters the store behind the log's back.
func (l *testLog) sql(text string, args ...any) {
	l.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(l.dir, store.FileName)+"?_pragma=busy_timeout(10000)")
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(text, args...); err != nil {
		l.t.Fatal(err)
	}
}

// alter changes the bundle of the commit that begins with entry first.
func (l *testLog) alter(first int64, edit func([]byte) []byte) {
	l.t.Helper()
	got, err := l.db.Batches(ctx, first, first+1, 1)
	if err != nil || len(got) != 1 {
		l.t.Fatal(got, err)
	}
	l.sql("UPDATE batch SET entries = ? WHERE first = ?", s2.EncodeSnappy(nil, edit(got[0].Entries)), got[0].First)
}

// alterText flips a bit in the last entry of a bundle, in the name of the issuer.
func alterText(bundle []byte) []byte {
	i := bytes.LastIndex(bundle, []byte("github"))
	bundle[i] ^= 1
	return bundle
}

// exported is a log of 700 entries as an auditor has it: a directory.
type exported struct {
	t      testing.TB
	dir    string
	vkey   string
	signer note.Signer // which the auditor hasn't
	size   int64
}

const exportedSize = 700

// export gives copies of one log.
func export(t *testing.T) func(t testing.TB) *exported {
	l := newLog(t)
	l.fillTo(exportedSize)
	dir := t.TempDir()
	if n, err := Export(ctx, l.db, dir); err != nil || n != exportedSize {
		t.Fatalf("exported %d entries: %v", n, err)
	}
	return func(t testing.TB) *exported {
		x := &exported{t, t.TempDir(), l.VerifierKey(), l.signer, l.Status().Size}
		if err := os.CopyFS(x.dir, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		return x
	}
}

func (x *exported) verify(known Known) error {
	_, err := VerifyLog(ctx, DirSource(x.dir), x.vkey, known)
	return err
}

func (x *exported) file(r resource) string {
	return filepath.Join(x.dir, filepath.FromSlash(r.path()))
}

// bundle rewrites one bundle of entries.
func (x *exported) bundle(number int64, edit func([][]byte) [][]byte) {
	x.t.Helper()
	r := resource{level: entriesLevel, number: number}
	r.width = r.in(x.size)
	data, err := os.ReadFile(x.file(r))
	if err != nil {
		x.t.Fatal(err)
	}
	list, _ := split(data)
	var out []byte
	for _, e := range edit(list) {
		out = appendBundled(out, e)
	}
	if err := os.WriteFile(x.file(r), out, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// rebuildTiles makes all hash tiles anew from the entries, as somebody would
// who altered the entries and knows the format, but not the key.
func (x *exported) rebuildTiles() tree {
	x.t.Helper()
	e := &edge{}
	var tiles []store.Tile
	for n := int64(0); ; n++ {
		r := resource{entriesLevel, n, tileWidth}
		data, err := os.ReadFile(x.file(r))
		if err != nil {
			matches, _ := filepath.Glob(x.file(r) + ".p/*")
			if len(matches) == 0 {
				break
			}
			data, _ = os.ReadFile(matches[0])
		}
		old := e.size
		list, _ := split(data)
		for _, entry := range list {
			e.add(tlog.RecordHash(entry))
		}
		tiles = append(tiles, newTiles(old, e)...)
	}
	if e.size%tileWidth != 0 {
		tiles = append(tiles, e.tile(0, e.size/tileWidth, int(e.size%tileWidth)))
	}
	for _, t := range tiles {
		r := resource{t.Level, t.Number, len(t.Data) / hashSize}
		os.MkdirAll(filepath.Dir(x.file(r)), 0o700)
		if err := os.WriteFile(x.file(r), t.Data, 0o600); err != nil {
			x.t.Fatal(err)
		}
	}
	e.seal()
	return tree{e.size, e.root()}
}

// sign writes a checkpoint as whoever has the log's key can.
func (x *exported) sign(t tree) {
	x.t.Helper()
	signed, err := signCheckpoint(x.signer, t)
	if err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "checkpoint"), signed, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func flip(list [][]byte, i int) [][]byte {
	list[i][len(list[i])/2] ^= 1
	return list
}

func swap(list [][]byte, i, j int) [][]byte {
	list[i], list[j] = list[j], list[i]
	return list
}

// Whatever is done to an exported log, the verifier names the first entry.
func TestTamperedExport(t *testing.T) {
	fresh := export(t)
	for name, c := range map[string]struct {
		tamper func(x *exported)
		code   proviso.Code
		index  int64
	}{
		"a byte of the first entry": {func(x *exported) { x.bundle(0, func(l [][]byte) [][]byte { return flip(l, 0) }) }, proviso.CodeEntryHash, 0},
		"a byte in the middle":      {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return flip(l, 44) }) }, proviso.CodeEntryHash, 300},
		"a byte of the last entry":  {func(x *exported) { x.bundle(2, func(l [][]byte) [][]byte { return flip(l, 187) }) }, proviso.CodeEntryHash, 699},
		"an entry taken out":        {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return slices.Delete(l, 44, 45) }) }, proviso.CodeChainGap, 300},
		"three entries taken out":   {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return slices.Delete(l, 44, 47) }) }, proviso.CodeChainGap, 300},
		"the last of a bundle":      {func(x *exported) { x.bundle(0, func(l [][]byte) [][]byte { return l[:255] }) }, proviso.CodeTruncated, 255},
		"two entries exchanged":     {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return swap(l, 44, 50) }) }, proviso.CodeChainOrder, 300},
		"neighbours exchanged":      {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return swap(l, 44, 45) }) }, proviso.CodeChainOrder, 300},
		"an entry put in": {func(x *exported) {
			x.bundle(1, func(l [][]byte) [][]byte { return slices.Insert(l, 44, []byte("{}")) })
		}, proviso.CodeEntryHash, 300},
		"an entry twice":            {func(x *exported) { x.bundle(1, func(l [][]byte) [][]byte { return slices.Insert(l, 44, l[43]) }) }, proviso.CodeChainDup, 300},
		"an entry added at the end": {func(x *exported) { x.bundle(2, func(l [][]byte) [][]byte { return append(l, l[0]) }) }, proviso.CodeTornTail, 700},
		"the last entry gone":       {func(x *exported) { x.bundle(2, func(l [][]byte) [][]byte { return l[:187] }) }, proviso.CodeTruncated, 699},
		"the last entry torn":       {func(x *exported) { x.tear(resource{entriesLevel, 2, 188}, 1) }, proviso.CodeTruncated, 699},
		"a whole bundle gone":       {func(x *exported) { os.Remove(x.file(resource{entriesLevel, 1, tileWidth})) }, proviso.CodeTruncated, 256},
		"a hash of a tile":          {func(x *exported) { x.flipByte(resource{0, 1, tileWidth}, 44*32+3) }, proviso.CodeEntryHash, 300},
		"a hash higher up":          {func(x *exported) { x.flipByte(resource{1, 0, 2}, 32) }, proviso.CodeProof, 256},
		"a tile gone":               {func(x *exported) { os.Remove(x.file(resource{1, 0, 2})) }, proviso.CodeProof, 0},
		"an entry and all tiles": {func(x *exported) {
			x.bundle(1, func(l [][]byte) [][]byte { return replaceGrant(l, 44) })
			x.rebuildTiles()
		}, proviso.CodeEntryHash, 0},
		"the checkpoint's root": {func(x *exported) {
			x.editCheckpoint(func(s string) string { return strings.Replace(s, "=\n\n", "A\n\n", 1) })
		}, proviso.CodeSignature, -1},
		"the checkpoint's size": {func(x *exported) {
			x.editCheckpoint(func(s string) string { return strings.Replace(s, "\n700\n", "\n699\n", 1) })
		}, proviso.CodeSignature, -1},
		"no signature": {func(x *exported) { x.editCheckpoint(func(s string) string { return s[:strings.Index(s, "\n\n")+2] }) }, proviso.CodeCheckpointFormat, -1},
		"no note":      {func(x *exported) { x.editCheckpoint(func(string) string { return "hello" }) }, proviso.CodeCheckpointFormat, -1},
		"a huge note": {func(x *exported) {
			x.editCheckpoint(func(s string) string { return s + strings.Repeat("— x y\n", 5000) })
		}, proviso.CodeCheckpointFormat, -1},
		"signed with another key": {func(x *exported) {
			skey, _, _ := note.GenerateKey(rand.Reader, origin)
			x.signer, _ = note.NewSigner(skey)
			x.sign(x.rebuildTiles())
		}, proviso.CodeSignature, -1},
		"recorded before the entry in front": {func(x *exported) {
			x.bundle(1, func(l [][]byte) [][]byte {
				l[44] = bytes.Replace(l[44], []byte(`"recorded":1`), []byte(`"recorded":`), 1)
				return l
			})
			x.sign(x.rebuildTiles())
		}, proviso.CodeTimeOrder, 300},
		"no entry at all, but signed": {func(x *exported) {
			x.bundle(1, func(l [][]byte) [][]byte { l[44] = []byte("{"); return l })
			x.sign(x.rebuildTiles())
		}, proviso.CodeEntryHash, 300},
	} {
		t.Run(name, func(t *testing.T) {
			x := fresh(t)
			if err := x.verify(Known{}); err != nil {
				t.Fatal(err)
			}
			c.tamper(x)
			wantFinding(t, x.verify(Known{}), c.code, c.index)
		})
	}
}

func replaceGrant(list [][]byte, i int) [][]byte {
	list[i] = bytes.Replace(list[i], []byte("refused"), []byte("allowed"), 1)
	return list
}

func (x *exported) tear(r resource, bytes int64) {
	info, err := os.Stat(x.file(r))
	if err == nil {
		err = os.Truncate(x.file(r), info.Size()-bytes)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *exported) flipByte(r resource, at int) {
	data, err := os.ReadFile(x.file(r))
	if err != nil {
		x.t.Fatal(err)
	}
	data[at] ^= 1
	if err := os.WriteFile(x.file(r), data, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func (x *exported) editCheckpoint(edit func(string) string) {
	path := filepath.Join(x.dir, "checkpoint")
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(edit(string(data))), 0o600)
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// In a store the checkpoint of each commit is there, so that also who rewrites
// the tiles is caught at the commit.
func TestTamperedStore(t *testing.T) {
	rewrite := func(first int64, edit func([]byte) []byte) func(l *testLog) {
		return func(l *testLog) { l.alter(first, edit) }
	}
	for name, c := range map[string]struct {
		tamper func(l *testLog)
		code   proviso.Code
		index  int64
	}{
		"an altered entry, tile and all": {rewrite(3, alterText), proviso.CodeEntryHash, 3},
		"an entry under a full tile": {func(l *testLog) {
			l.fillTo(300)
			l.alter(100, alterText)
		}, proviso.CodeEntryHash, -2},
		"a commit taken away": {func(l *testLog) { l.sql("DELETE FROM batch WHERE first = 3") }, proviso.CodeChainGap, 3},
		"commits exchanged":   {func(l *testLog) { l.exchange(2, 4) }, proviso.CodeEntryHash, 2},
		"a commit closed up": {func(l *testLog) {
			l.sql("DELETE FROM batch WHERE first = 3")
			l.sql("UPDATE batch SET first = 3 WHERE first = 4")
		}, proviso.CodeTornTail, 4},
		"a commit that is torn":     {rewrite(3, func(b []byte) []byte { return b[:len(b)-5] }), proviso.CodeTornTail, 3},
		"a commit with two entries": {rewrite(3, func(b []byte) []byte { return append(b, b...) }), proviso.CodeTornTail, 4},
		"a commit that is noise":    {func(l *testLog) { l.sql("UPDATE batch SET entries = x'ff00ff' WHERE first = 3") }, proviso.CodeEntryHash, 3},
		"a commit's checkpoint": {func(l *testLog) {
			l.sql("UPDATE batch SET note = CAST(replace(CAST(note AS TEXT), '4', '5') AS BLOB) WHERE first = 3")
		}, proviso.CodeSignature, 3},
		"the last checkpoint": {func(l *testLog) { l.sql("UPDATE batch SET note = x'00' WHERE first = 4") }, proviso.CodeCheckpointFormat, -1},
		"an older last checkpoint": {func(l *testLog) {
			l.sql("UPDATE batch SET note = (SELECT note FROM batch WHERE first = 2) WHERE first = 4")
		}, proviso.CodeTornTail, 3},
		"a tile taken away": {func(l *testLog) { l.fillTo(300); l.sql("DELETE FROM tile WHERE id = 0") }, proviso.CodeProof, 0},
		"the end taken away, but for a tile": {func(l *testLog) {
			l.fillTo(600)
			l.sql("DELETE FROM batch WHERE first >= 300")
		}, proviso.CodeRollback, -2},
		"signed anew from some commit on": {func(l *testLog) {
			l.close()
			os.Remove(filepath.Join(l.dir, KeyFile))
			other := newLog(l.t)
			data, _ := os.ReadFile(filepath.Join(other.dir, KeyFile))
			os.WriteFile(filepath.Join(l.dir, KeyFile), data, 0o600)
			l.db, _ = store.Open(l.dir)
			l.Log = other.Log
			for _, first := range []int64{3, 4} {
				b, _ := l.db.Batches(ctx, first, first+1, 1)
				signed, _ := signCheckpoint(other.signer, tree{b[0].Size, tlog.Hash{}})
				l.sql("UPDATE batch SET note = ? WHERE first = ?", signed, first)
			}
		}, proviso.CodeSignature, 3},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			vkey := l.VerifierKey()
			for _, k := range []string{"a", "b", "c", "d", "e"} {
				l.mustCommit(k)
			}
			c.tamper(l)
			_, err := VerifyLog(ctx, StoreSource(l.db), vkey, Known{})
			if c.index == -2 { // it depends on how the entries fell into commits
				var f *Finding
				if !errors.As(err, &f) || f.Code != c.code || f.Index < 0 {
					t.Errorf("the verifier says %v, want %s", err, c.code)
				}
				return
			}
			wantFinding(t, err, c.code, c.index)
		})
	}
}

func (l *testLog) exchange(a, b int64) {
	l.sql("UPDATE batch SET entries = CASE first WHEN ?1 THEN (SELECT entries FROM batch WHERE first = ?2) ELSE (SELECT entries FROM batch WHERE first = ?1) END WHERE first IN (?1, ?2)", a, b)
}

// What a log has signed before, it can't take back, even with its own key.
func TestKnownFromBefore(t *testing.T) {
	l := newLog(t)
	var checkpoints [][]byte
	var receipts []Receipt
	for range 40 {
		l.fill(5)
		w := l.mustCommit(NewDecision(l.clock.now))
		r, err := w.Receipt()
		if err != nil {
			t.Fatal(err)
		}
		last, err := l.db.LastBatch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		checkpoints, receipts = append(checkpoints, last.Note), append(receipts, r)
	}
	all := Known{checkpoints, receipts}
	fresh := func() *exported {
		x := &exported{t, t.TempDir(), l.VerifierKey(), l.signer, l.Status().Size}
		if _, err := Export(ctx, l.db, x.dir); err != nil {
			t.Fatal(err)
		}
		return x
	}
	for name, c := range map[string]struct {
		tamper func(x *exported)
		known  Known
		code   proviso.Code
		index  int64
	}{
		"a fork, seen by a receipt": {func(x *exported) {
			x.bundle(0, func(l [][]byte) [][]byte { return replaceResult(l, 101) })
			x.sign(x.rebuildTiles())
		}, Known{Receipts: receipts}, proviso.CodeFork, 101},
		"a fork, seen by checkpoints": {func(x *exported) {
			x.bundle(0, func(l [][]byte) [][]byte { return replaceResult(l, 100) })
			x.sign(x.rebuildTiles())
		}, Known{Checkpoints: checkpoints}, proviso.CodeFork, 96},
		"an alteration without the key, seen by checkpoints": {func(x *exported) {
			x.bundle(0, func(l [][]byte) [][]byte { return replaceResult(l, 100) })
			x.rebuildTiles()
		}, Known{Checkpoints: checkpoints}, proviso.CodeEntryHash, 96},
		"two signed trees of one size": {func(x *exported) {}, Known{Checkpoints: append(slices.Clone(checkpoints), forked(t, l, 60))}, proviso.CodeFork, -1},
		"a rollback": {func(x *exported) {
			x.bundle(0, func(l [][]byte) [][]byte { return l[:200] })
			x.sign(x.rebuildTiles())
		}, all, proviso.CodeRollback, 200},
		"an empty log":        {func(x *exported) { os.Remove(filepath.Join(x.dir, "checkpoint")) }, all, proviso.CodeRollback, 0},
		"no log":              {func(x *exported) { os.Remove(filepath.Join(x.dir, "checkpoint")) }, Known{}, proviso.CodeTruncated, -1},
		"a forged checkpoint": {func(x *exported) {}, Known{Checkpoints: [][]byte{bytes.Replace(checkpoints[3], []byte("\n24\n"), []byte("\n25\n"), 1)}}, proviso.CodeSignature, -1},
		"a forged receipt":    {func(x *exported) {}, Known{Receipts: []Receipt{{Entry: []byte("{}"), Index: receipts[0].Index, Proof: receipts[0].Proof}}}, proviso.CodeProof, 5},
	} {
		t.Run(name, func(t *testing.T) {
			x := fresh()
			if err := x.verify(all); err != nil {
				t.Fatal(err)
			}
			c.tamper(x)
			wantFinding(t, x.verify(c.known), c.code, c.index)
		})
	}
	report, err := VerifyLog(ctx, StoreSource(l.db), l.VerifierKey(), all)
	if err != nil || report.Size != 240 || report.Allowed != 40 || report.Refused != 200 || report.Known != 80 || report.Origin != origin {
		t.Errorf("the report is %+v (%v)", report, err)
	}
}

func replaceResult(list [][]byte, i int) [][]byte {
	list[i] = bytes.Replace(list[i], []byte(`"issuer":"github"`), []byte(`"issuer":"gitlab"`), 1)
	return list
}

// forked is a checkpoint that the log's key signs over another history.
func forked(t *testing.T, l *testLog, size int64) []byte {
	signed, err := signCheckpoint(l.signer, tree{size, tlog.RecordHash([]byte("another history"))})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Others may sign a checkpoint beside the log.
func TestWitnessedCheckpoint(t *testing.T) {
	x := export(t)(t)
	skey, _, err := note.GenerateKey(rand.Reader, "witness.test")
	if err != nil {
		t.Fatal(err)
	}
	witness, _ := note.NewSigner(skey)
	x.editCheckpoint(func(s string) string {
		v, _ := newVerifier(x.vkey)
		n, err := note.Open([]byte(s), note.VerifierList(v))
		if err != nil {
			t.Fatal(err)
		}
		both, err := note.Sign(n, witness)
		if err != nil {
			t.Fatal(err)
		}
		return string(both)
	})
	if err := x.verify(Known{}); err != nil {
		t.Error(err)
	}
	if _, err := VerifyLog(ctx, DirSource(x.dir), "nonsense", Known{}); err == nil {
		t.Error("a key that is none was taken")
	}
}

func TestVerifyOverHTTP(t *testing.T) {
	l := newLog(t)
	l.fillTo(300)
	for entries, want := range map[bool]bool{true: true, false: false} {
		server := httptest.NewServer(http.StripPrefix("/log", Handler(l.db, entries)))
		report, err := VerifyLog(ctx, HTTPSource(server.URL+"/log/", server.Client()), l.VerifierKey(), Known{})
		server.Close()
		if (err == nil) != want || want && report.Size != 300 {
			t.Errorf("with entries %v: %+v, %v", entries, report, err)
		}
	}
}

// The layout grows with the log, and an export with it.
func TestExportAgain(t *testing.T) {
	l := newLog(t)
	dir := t.TempDir()
	if _, err := Export(ctx, l.db, dir); err == nil {
		t.Error("an empty log was exported")
	}
	for _, size := range []int64{1, 100, 256, 300, 513} {
		l.fillTo(size)
		if n, err := Export(ctx, l.db, dir); n != size || err != nil {
			t.Fatalf("exported %d entries of %d: %v", n, size, err)
		}
		if r, err := VerifyLog(ctx, DirSource(dir), l.VerifierKey(), Known{}); err != nil || r.Size != size {
			t.Fatalf("verified %d entries of %d: %v", r.Size, size, err)
		}
	}
	// A tree of 513 as the specification lays it out.
	for _, path := range []string{"checkpoint", "tile/0/000", "tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2", "tile/entries/000", "tile/entries/001", "tile/entries/002.p/1"} {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Error(err)
		}
	}
}
