package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Receipt proves that an entry is in the log. As JSON it is
//
//	{"entry": {...}, "index": 73894, "proof": "c2sp.org/tlog-proof@v1\n..."}
//
// and it is checked with the log's public key and nothing else.
type Receipt struct {
	Entry json.RawMessage `json:"entry"` // canonical JSON
	Index int64           `json:"index"`
	Proof string          `json:"proof"` // a C2SP tlog-proof of Entry at Index
}

// AppendJSON appends the receipt as JSON, without encoding/json's second pass
// over the entry.
func (r Receipt) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"entry":`...)
	dst = append(dst, r.Entry...)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendInt(dst, r.Index, 10)
	dst = append(dst, `,"proof":`...)
	dst = document.AppendString(dst, r.Proof)
	return append(dst, '}')
}

// maxProof bounds the text of a proof: 63 hashes and a checkpoint.
const maxProof = maxNote + 8<<10

// ParseReceipt reads a receipt from JSON. White space and the order of members
// don't matter: the entry is brought back to its canonical form.
func ParseReceipt(data []byte) (Receipt, error) {
	limits := entryLimits
	limits.Bytes = 2 * (maxEntry + maxProof)
	v, err := document.Parse(data, limits)
	if err != nil {
		return Receipt{}, found(proviso.CodeProof, -1, "this is not a receipt: %v", err)
	}
	index, ok1 := v.Get("index").Integer()
	proof, ok2 := v.Get("proof").Text()
	entry := v.Get("entry")
	if !ok1 || !ok2 || entry.Kind() != document.Object || len(v.Fields()) != 3 {
		return Receipt{}, found(proviso.CodeProof, -1, "this is not a receipt: it has to have the members entry, index and proof, and no others")
	}
	return Receipt{Entry: document.AppendCanonical(nil, entry), Index: index, Proof: proof}, nil
}

// VerifyReceipt proves offline that a log has recorded the receipt's entry.
// The error is a *Finding unless vkey is no public key.
func VerifyReceipt(r Receipt, vkey string) (Summary, error) {
	v, err := newVerifier(vkey)
	if err != nil {
		return Summary{}, err
	}
	if _, f := r.check(v); f != nil {
		return Summary{}, f
	}
	return summarise(r.Index, r.Entry)
}

// checked is what a receipt proves: that the log has signed a tree with a leaf.
type checked struct {
	tree  tree
	index int64
	leaf  tlog.Hash
}

func (r Receipt) check(v note.Verifier) (checked, *Finding) {
	index, path, checkpoint, err := parseProof(r.Proof)
	if err != nil {
		return checked{}, found(proviso.CodeProof, -1, "the receipt's proof is not a tlog-proof: %v", err)
	}
	if index != r.Index {
		return checked{}, found(proviso.CodeProof, r.Index, "the receipt's proof is of entry %d", index)
	}
	t, f := openCheckpoint([]byte(checkpoint), v)
	if f != nil {
		return checked{}, f
	}
	leaf := tlog.RecordHash(r.Entry)
	if err := tlog.CheckRecord(path, t.size, t.root, index, leaf); err != nil {
		return checked{}, found(proviso.CodeProof, index, "the signed tree of %d entries does not hold this entry here: the entry or its proof was altered", t.size)
	}
	return checked{t, index, leaf}, nil
}

// parseProof reads a C2SP tlog-proof.
func parseProof(text string) (index int64, path tlog.RecordProof, checkpoint string, err error) {
	if len(text) > maxProof {
		return 0, nil, "", fmt.Errorf("it has %d bytes, at most %d are read", len(text), maxProof)
	}
	text, ok := strings.CutPrefix(text, proofHeader+"\n")
	if !ok {
		return 0, nil, "", fmt.Errorf("it does not begin with %q", proofHeader)
	}
	head, checkpoint, ok := strings.Cut(text, "\n\n")
	if !ok {
		return 0, nil, "", fmt.Errorf("it has no checkpoint")
	}
	lines := strings.Split(head, "\n")
	if strings.HasPrefix(lines[0], "extra ") { // opaque, and not authenticated
		lines = lines[1:]
	}
	if len(lines) == 0 || len(lines) > 64 {
		return 0, nil, "", fmt.Errorf("it has %d lines before the checkpoint", len(lines))
	}
	number, ok := strings.CutPrefix(lines[0], "index ")
	if index, err = strconv.ParseInt(number, 10, 64); !ok || err != nil || index < 0 || strconv.FormatInt(index, 10) != number {
		return 0, nil, "", fmt.Errorf("its index is not a number")
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return 0, nil, "", fmt.Errorf("a line of it is not a hash in base64")
		}
		path = append(path, h)
	}
	return index, path, checkpoint, nil
}

// Prove makes a receipt of an entry that was recorded before, from the log in
// its store. It reads as many tiles as the tree has levels of them.
func Prove(ctx context.Context, db *store.DB, index int64) (Receipt, error) {
	last, err := db.LastBatch(ctx)
	if err != nil {
		return Receipt{}, fmt.Errorf("the log can't be read: %w", err)
	}
	if index < 0 || index >= last.Size {
		return Receipt{}, fmt.Errorf("the log has no entry %d, it has %d entries", index, last.Size)
	}
	var entry []byte
	err = eachEntry(ctx, db, index, index+1, func(_ int64, e []byte) error {
		entry = bytes.Clone(e)
		return nil
	})
	if err != nil {
		return Receipt{}, err
	}
	path, err := tlog.ProveRecord(last.Size, index, storedHashes{ctx, db, last.Size})
	if err != nil {
		return Receipt{}, fmt.Errorf("entry %d can't be proved: %w", index, err)
	}
	return Receipt{entry, index, string(appendProof(nil, index, path, last.Note, "\n"))}, nil
}

// storedHashes reads hashes of the tree from tiles.
type storedHashes struct {
	ctx  context.Context
	db   *store.DB
	size int64
}

func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	tiles := map[resource][]byte{}
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		t := tlog.TileForIndex(tileHeight, x)
		r := resource{level: t.L, number: t.N}
		r.width = r.in(s.size)
		data, ok := tiles[r]
		if !ok {
			var err error
			if data, err = read(s.ctx, s.db, r, s.size); err != nil {
				return nil, err
			}
			tiles[r] = data
		}
		t.W = r.width
		var err error
		if out[i], err = tlog.HashFromTile(t, data, x); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Summary is an entry as it was read from the log or a receipt.
type Summary struct {
	Index    int64
	Type     string
	Decision string
	Parent   string
	Result   string // allowed, refused, noted
	Code     proviso.Code
	Message  string
	Grant    string
	Issuer   string
	// Repository is what the job's identity says of it.
	Repository string
	Actor      string
	SPIFFEID   string
	// Credential is the id of the credential that was permitted, Kind its kind.
	Credential string
	Kind       string
	Expires    time.Time // of the credential
	Time       time.Time // of the decision
	Recorded   time.Time
	// Document is the whole entry.
	Document document.Value
}

func summarise(index int64, entry []byte) (Summary, error) {
	v, err := document.Parse(entry, entryLimits)
	if err != nil {
		return Summary{}, found(proviso.CodeEntryHash, index, "this is not an entry: %v", err)
	}
	text := func(path ...string) string { s, _ := v.At(path...).Text(); return s }
	when := func(path ...string) time.Time {
		if ms, ok := v.At(path...).Integer(); ok {
			return time.UnixMilli(ms).UTC()
		}
		return time.Time{}
	}
	s := Summary{Index: index, Document: v,
		Type: text("type"), Decision: text("decision"), Parent: text("parent"), Result: text("result"), Code: proviso.Code(text("code")),
		Message: text("message"), Grant: text("grant"), Issuer: text("issuer"), Actor: text("actor"), SPIFFEID: text("spiffe_id"),
		Credential: text("credential", "id"), Kind: text("credential", "kind"), Time: when("time"), Recorded: when("recorded")}
	if s.Repository = text("input", "identity", "repository"); s.Repository == "" {
		s.Repository = text("identity", "repository")
	}
	if at, ok := v.At("credential", "expires").Integer(); ok {
		s.Expires = time.Unix(at, 0).UTC()
	}
	return s, nil
}
