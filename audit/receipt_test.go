package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	proviso "github.com/proviso-ci/proviso"
	"golang.org/x/mod/sumdb/tlog"
)

func TestReceipt(t *testing.T) {
	l := newLog(t)
	l.fill(300)
	w := l.mustCommit("a")
	l.fill(300)
	fresh, err := w.Receipt()
	if err != nil {
		t.Fatal(err)
	}
	later, err := Prove(ctx, l.db, fresh.Index)
	if err != nil {
		t.Fatal(err)
	}
	if direct, err := w.AppendReceipt(nil); err != nil || !bytes.Equal(direct, fresh.AppendJSON(nil)) {
		t.Errorf("written at once the receipt is\n%s\nnot\n%s (%v)", direct, fresh.AppendJSON(nil), err)
	}
	var indented any
	if err := json.Unmarshal(fresh.AppendJSON(nil), &indented); err != nil {
		t.Fatal(err)
	}
	pretty, _ := json.MarshalIndent(indented, "", "  ")
	read := func(data []byte) Receipt {
		t.Helper()
		r, err := ParseReceipt(data)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for name, r := range map[string]Receipt{"at once": fresh, "later": later, "through JSON": read(fresh.AppendJSON(nil)), "printed nicely": read(pretty)} {
		s, err := VerifyReceipt(r, l.VerifierKey())
		if err != nil || s.Decision != w.Decision() || s.Result != "allowed" || s.Credential != "id-a" || s.Grant != "grant-a" || s.Index != 300 || s.Expires.IsZero() || s.Recorded.IsZero() {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	isCanonical(t, fresh.Entry)
	// Every entry can be proved, also the oldest.
	for _, index := range []int64{0, 1, 255, 256, 511, 512, 600} {
		r, err := Prove(ctx, l.db, index)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyReceipt(r, l.VerifierKey()); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
	}
	for _, index := range []int64{-1, 601} {
		if _, err := Prove(ctx, l.db, index); err == nil {
			t.Errorf("entry %d was proved", index)
		}
	}
}

func TestReceiptRefused(t *testing.T) {
	l, other := newLog(t), newLog(t)
	l.fill(20)
	w := l.mustCommit("a")
	good, err := w.Receipt()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func(r *Receipt) {
		return func(r *Receipt) {
			if !strings.Contains(r.Proof, old) {
				t.Fatalf("the proof has no %q", old)
			}
			r.Proof = strings.Replace(r.Proof, old, new, 1)
		}
	}
	hash := strings.Split(good.Proof, "\n")[2]
	for name, c := range map[string]struct {
		edit func(r *Receipt)
		vkey string
		code proviso.Code
	}{
		"an altered entry":        {func(r *Receipt) { r.Entry = []byte(strings.Replace(string(r.Entry), "deploy", "delete", 1)) }, "", proviso.CodeProof},
		"another index":           {func(r *Receipt) { r.Index = 19; replace("index 20\n", "index 19\n")(r) }, "", proviso.CodeProof},
		"two indexes":             {func(r *Receipt) { r.Index = 19 }, "", proviso.CodeProof},
		"an index beyond":         {func(r *Receipt) { r.Index = 99; replace("index 20\n", "index 99\n")(r) }, "", proviso.CodeProof},
		"a negative index":        {func(r *Receipt) { r.Index = -1; replace("index 20\n", "index -1\n")(r) }, "", proviso.CodeProof},
		"an index with a zero":    {replace("index 20\n", "index 020\n"), "", proviso.CodeProof},
		"an altered hash":         {replace(hash, strings.ToLower(hash)), "", proviso.CodeProof},
		"a hash with spare bits":  {replace(hash, hash[:42]+string(hash[42]+1)+"="), "", proviso.CodeProof},
		"a hash too many":         {replace(hash, hash+"\n"+hash), "", proviso.CodeProof},
		"a hash too few":          {replace(hash+"\n", ""), "", proviso.CodeProof},
		"no hash at all":          {replace(hash, "hash"), "", proviso.CodeProof},
		"a thousand hashes":       {replace(hash, strings.Repeat(hash+"\n", 1000)+hash), "", proviso.CodeProof},
		"another header":          {replace("@v1", "@v2"), "", proviso.CodeProof},
		"no checkpoint":           {func(r *Receipt) { r.Proof = r.Proof[:strings.Index(r.Proof, "\n\n")] }, "", proviso.CodeProof},
		"no index":                {replace("index 20\n", ""), "", proviso.CodeProof},
		"nothing":                 {func(r *Receipt) { r.Proof = "" }, "", proviso.CodeProof},
		"too much":                {func(r *Receipt) { r.Proof += strings.Repeat("x", maxProof) }, "", proviso.CodeProof},
		"another size":            {replace("\n21\n", "\n22\n"), "", proviso.CodeSignature},
		"another log's key":       {func(*Receipt) {}, other.VerifierKey(), proviso.CodeSignature},
		"a checkpoint of no form": {replace("— ", "- "), "", proviso.CodeCheckpointFormat},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			c.edit(&r)
			if c.vkey == "" {
				c.vkey = l.VerifierKey()
			}
			_, err := VerifyReceipt(r, c.vkey)
			f, ok := err.(*Finding)
			if !ok || f.Code != c.code {
				t.Errorf("the verifier says %v, want %s", err, c.code)
			}
		})
	}
	if _, err := VerifyReceipt(good, "nonsense"); err == nil {
		t.Error("a key that is none was taken")
	}
	if _, err := VerifyReceipt(good, l.VerifierKey()); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "{}", "[]", "null", `{"entry":{},"index":1}`, `{"entry":{},"index":"1","proof":""}`, `{"entry":[],"index":1,"proof":"p"}`,
		`{"entry":{},"index":1,"index":1,"proof":"p"}`, `{"entry":{},"index":1,"proof":"p","more":1}`, `{"entry":{},"index":1.5,"proof":"p"}`} {
		if _, err := ParseReceipt([]byte(text)); err == nil {
			t.Errorf("%s was read as a receipt", text)
		}
	}
}

// Opaque extra data may stand in a proof; it counts for nothing.
func TestProofWithExtraData(t *testing.T) {
	l := newLog(t)
	l.fill(3)
	r, err := l.mustCommit("a").Receipt()
	if err != nil {
		t.Fatal(err)
	}
	r.Proof = strings.Replace(r.Proof, "index", "extra bm90aGluZw==\nindex", 1)
	if _, err := VerifyReceipt(r, l.VerifierKey()); err != nil {
		t.Error(err)
	}
}

func TestConsistency(t *testing.T) {
	l := newLog(t)
	var notes [][]byte
	for _, size := range []int64{1, 2, 7, 255, 256, 257, 600} {
		l.fillTo(size)
		last, err := l.db.LastBatch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, last.Note)
	}
	v, _ := newVerifier(l.VerifierKey())
	for _, earlier := range notes {
		at, _ := openCheckpoint(earlier, v)
		latest, proof, err := ProveConsistency(ctx, l.db, at.size)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyConsistency(earlier, latest, proof, l.VerifierKey()); err != nil {
			t.Errorf("from size %d: %v", at.size, err)
		}
		if at.size < 600 {
			wantFinding(t, VerifyConsistency(latest, earlier, proof, l.VerifierKey()), proviso.CodeRollback, at.size)
			wantFinding(t, VerifyConsistency(earlier, forked(t, l, 600), proof, l.VerifierKey()), proviso.CodeProof, -1)
		}
	}
	wantFinding(t, VerifyConsistency(notes[6], forked(t, l, 600), nil, l.VerifierKey()), proviso.CodeFork, -1)
	for _, size := range []int64{-1, 0, 601} {
		if _, _, err := ProveConsistency(ctx, l.db, size); err == nil {
			t.Errorf("consistency with %d entries was proved", size)
		}
	}
}

// sharedVectors finds vectors that others have written, which are not part of
// this repository.
func sharedVectors(t *testing.T, path string) []string {
	t.Helper()
	dir := os.Getenv("PROVISO_SHARED")
	for up := ".."; dir == ""; up = filepath.Join(up, "..") {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			dir = filepath.Join(up, "..", "shared")
		} else if len(up) > 60 {
			break
		}
	}
	var files []string
	filepath.WalkDir(filepath.Join(dir, "vectors", path), func(file string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(file) == ".json" {
			files = append(files, file)
		}
		return err
	})
	if len(files) == 0 {
		if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
			t.Fatalf("no vectors at %s", path)
		}
		t.Logf("NOT TESTED: there are no vectors %s; PROVISO_SHARED names their folder", path)
	}
	return files
}

func TestMerkleVectors(t *testing.T) {
	type vector struct {
		LeafIdx, TreeSize, Size1, Size2 uint64
		Root, Root1, Root2, LeafHash    string
		Proof                           []string
		Desc                            string
		WantErr                         bool
	}
	// Our hashes have 32 bytes by type. A stand-in of another length becomes one of
	// its own; where there is none at all, reading it has failed.
	read := func(path string) (v vector, proof, hashes []tlog.Hash, err error) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &v)
		}
		if err != nil {
			t.Fatal(err)
		}
		parse := func(texts ...string) (out []tlog.Hash) {
			for _, text := range texts {
				h, bad := tlog.ParseHash(text)
				if bad != nil {
					h = sha256.Sum256([]byte(text))
				}
				if text == "" {
					err = bad
				}
				out = append(out, h)
			}
			return out
		}
		if proof = parse(v.Proof...); v.TreeSize > 0 {
			return v, proof, parse(v.Root, v.LeafHash), err
		}
		return v, proof, parse(v.Root1, v.Root2), err
	}
	n := 0
	for _, path := range sharedVectors(t, "merkle/testdata/inclusion") {
		v, proof, h, err := read(path)
		if err == nil {
			err = tlog.CheckRecord(proof, int64(v.TreeSize), h[0], int64(v.LeafIdx), h[1])
		}
		if n++; (err != nil) != v.WantErr {
			t.Errorf("%s: %v, want an error: %v", path, err, v.WantErr)
		}
	}
	for _, path := range sharedVectors(t, "merkle/testdata/consistency") {
		v, proof, h, err := read(path)
		if f := consistent(tree{int64(v.Size1), h[0]}, tree{int64(v.Size2), h[1]}, proof); err == nil && f != nil {
			err = f
		}
		if n++; (err != nil) != v.WantErr {
			t.Errorf("%s: %v, want an error: %v", path, err, v.WantErr)
		}
	}
	t.Logf("%d vectors", n)
}

func FuzzReceipt(f *testing.F) {
	l := newLog(f)
	l.fill(20)
	good, err := l.mustCommit("a").Receipt()
	if err != nil {
		f.Fatal(err)
	}
	vkey := l.VerifierKey()
	f.Add(good.AppendJSON(nil))
	f.Add([]byte(`{"entry":{},"index":0,"proof":"c2sp.org/tlog-proof@v1\nindex 0\n\n"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseReceipt(data)
		if err != nil {
			return
		}
		if _, err := VerifyReceipt(r, vkey); err == nil && string(r.Entry) != string(good.Entry) {
			t.Errorf("a receipt of an entry that was never recorded was taken: %s", data)
		}
		again, err := ParseReceipt(r.AppendJSON(nil))
		if err != nil || string(again.AppendJSON(nil)) != string(r.AppendJSON(nil)) {
			t.Errorf("a receipt changes when it is written and read: %v", err)
		}
	})
}

// A checkpoint has one spelling, and is of one log, also where the signature holds.
func TestSignedCheckpointsThatAreNone(t *testing.T) {
	l := newLog(t)
	l.fill(3)
	v, err := newVerifier(l.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	root := l.durable.Load().root().String()
	sign := func(text string) []byte {
		signed, err := note.Sign(&note.Note{Text: text}, l.signer)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	if got, f := openCheckpoint(sign(origin+"\n3\n"+root+"\n"), v); f != nil || got.size != 3 {
		t.Errorf("a good checkpoint: %v", f)
	}
	for name, text := range map[string]string{
		"of another log":                    "other.example/log\n3\n" + root + "\n",
		"with a line more":                  origin + "\n3\n" + root + "\nextension\n",
		"without a root":                    origin + "\n3\n",
		"of a size with a sign":             origin + "\n+3\n" + root + "\n",
		"of a size with a zero":             origin + "\n03\n" + root + "\n",
		"of a negative size":                origin + "\n-3\n" + root + "\n",
		"with a short root":                 origin + "\n3\nAAAA\n",
		"with another spelling of the root": origin + "\n3\n" + root[:42] + string(root[42]+1) + "=\n",
	} {
		if _, f := openCheckpoint(sign(text), v); f == nil || f.Code != proviso.CodeCheckpointFormat {
			t.Errorf("a checkpoint %s: %v", name, f)
		}
	}
	long := sign(origin + "\n3\n" + root + "\n")
	long = append(long, strings.Repeat("— witness.example AAAAAAAAAAAA\n", maxNote/20)...)
	if _, f := openCheckpoint(long, v); f == nil || f.Code != proviso.CodeCheckpointFormat {
		t.Errorf("a checkpoint without end: %v", f)
	}
}

func FuzzCheckpoint(f *testing.F) {
	l := newLog(f)
	l.fill(3)
	last, err := l.db.LastBatch(ctx)
	if err != nil {
		f.Fatal(err)
	}
	v, _ := newVerifier(l.VerifierKey())
	want, finding := openCheckpoint(last.Note, v)
	if finding != nil {
		f.Fatal(finding)
	}
	f.Add(last.Note)
	f.Add([]byte(origin + "\n3\nAAAA\n\n— " + origin + " AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, f := openCheckpoint(data, v); f == nil && got != want {
			t.Errorf("a checkpoint was taken that the log didn't sign: %s", data)
		}
		text, _, _ := strings.Cut(string(data), "\n\n")
		if got, f := parseCheckpoint(text+"\n", origin); f == nil && checkpointText(origin, got) != text+"\n" {
			t.Errorf("a checkpoint has two spellings: %q", text)
		}
	})
}

func FuzzResource(f *testing.F) {
	for _, path := range []string{"tile/0/000", "tile/63/x999/x001/234.p/255", "tile/entries/x001/000", "tile/0/../0", "tile/0/+01"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if r, ok := parseResource(path); ok && (r.path() != path || r.number < 0 || r.width < 1 || r.width > tileWidth) {
			t.Errorf("%q was read as %+v", path, r)
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add(appendBundled(appendBundled(nil, []byte("a")), []byte("bc")))
	f.Add([]byte{0, 9, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		list, torn := split(data)
		var again []byte
		for _, e := range list {
			again = appendBundled(again, e)
		}
		if !torn && string(again) != string(data) || torn && !strings.HasPrefix(string(data), string(again)) {
			t.Errorf("%x becomes %x", data, again)
		}
	})
}
