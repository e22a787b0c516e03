package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Known is what a verifier has kept from before. The more of it there is, the
// less a log that was rewritten under its own key can hide.
type Known struct {
	// Checkpoints were signed earlier by the log.
	Checkpoints [][]byte
	// Receipts were given out by the log.
	Receipts []Receipt
}

// Report is what a verification without a finding has looked at.
type Report struct {
	Origin      string
	Size        int64
	Root        string // hash, in base64
	Allowed     int64
	Refused     int64
	Noted       int64
	First, Last time.Time // of recording
	Known       int       // checkpoints and receipts from before that the log agrees with
}

// VerifyLog reads a whole log and recomputes all of it from its entries: their
// hashes, the tiles, the root, the time. It needs the public key of the log and
// nothing else. The error is a *Finding if the log is not what it was signed
// to be, and names the first entry concerned; any other error means that the
// log could not be read, and says nothing of it.
func VerifyLog(ctx context.Context, src Source, vkey string, known Known) (Report, error) {
	v, err := newVerifier(vkey)
	if err != nil {
		return Report{}, err
	}
	w := &walk{src: src, verifier: v, edge: &edge{}}
	if err := w.expect(known); err != nil {
		return Report{}, err
	}
	text, claimed, err := src.checkpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		if len(w.marks) > 0 {
			return Report{}, found(proviso.CodeRollback, 0, "the log is empty, and it once had %d entries", w.marks[len(w.marks)-1].size)
		}
		return Report{}, found(proviso.CodeTruncated, -1, "there is no checkpoint: this is no log, or one without an entry")
	} else if err != nil {
		return Report{}, fmt.Errorf("the log's checkpoint can't be read: %w", err)
	}
	signed, finding := openCheckpoint(text, v)
	if finding != nil {
		return Report{}, w.firstForeign(ctx, finding)
	}
	if err := w.all(ctx, signed); err != nil {
		return Report{}, err
	}
	if claimed >= 0 && claimed != signed.size {
		return Report{}, found(proviso.CodeTornTail, signed.size, "the log has %d entries, and its newest checkpoint is of %d", claimed, signed.size)
	}
	w.report.Origin, w.report.Size, w.report.Root = v.Name(), signed.size, signed.root.String()
	w.report.Known = len(known.Checkpoints) + len(known.Receipts)
	return w.report, nil
}

// walk is a verification under way.
type walk struct {
	src      Source
	verifier note.Verifier
	report   Report

	marks  []tree // trees that the log has signed before, by size
	leaves []mark // entries that the log has signed before, by index

	edge     *edge // of the entries so far
	good     int64 // up to here the log is what was once signed
	tile     []tlog.Hash
	tileNo   int64 // of tile, which is of level 0; valid if tile isn't nil
	recorded int64

	// suspect is the first disagreement with an earlier signature. Whether it is
	// a fork or an alteration shows when the end is known.
	suspect *Finding
}

type mark struct {
	index int64
	leaf  tlog.Hash
}

// expect takes what is known from before, after verifying it.
func (w *walk) expect(known Known) error {
	for i, text := range known.Checkpoints {
		t, f := openCheckpoint(text, w.verifier)
		if f != nil {
			f.Text = fmt.Sprintf("of the earlier checkpoints number %d is none: %s", i+1, f.Text)
			return f
		}
		w.marks = append(w.marks, t)
	}
	for i, r := range known.Receipts {
		p, f := r.check(w.verifier)
		if f != nil {
			f.Text = fmt.Sprintf("of the receipts number %d is none: %s", i+1, f.Text)
			return f
		}
		w.marks = append(w.marks, p.tree)
		w.leaves = append(w.leaves, mark{p.index, p.leaf})
	}
	slices.SortFunc(w.marks, func(a, b tree) int { return cmp.Compare(a.size, b.size) })
	slices.SortFunc(w.leaves, func(a, b mark) int { return cmp.Compare(a.index, b.index) })
	for i := 1; i < len(w.marks); i++ {
		if a, b := w.marks[i-1], w.marks[i]; a.size == b.size && a.root != b.root {
			return found(proviso.CodeFork, -1, "the log has signed two trees of %d entries: two of the earlier checkpoints and receipts contradict each other", a.size)
		}
	}
	return nil
}

// firstForeign narrows down from which entry on a log bears somebody else's
// signatures, where the copy has the checkpoint of each commit.
func (w *walk) firstForeign(ctx context.Context, f *Finding) error {
	for next := int64(0); f.Code == proviso.CodeSignature; {
		groups, err := w.src.groups(ctx, next, next+1)
		if err != nil || len(groups) == 0 || groups[0].note == nil {
			return f
		}
		for _, g := range groups {
			if _, bad := openCheckpoint(g.note, w.verifier); bad != nil {
				f.Index, f.Last = g.first, g.first
				return f
			}
			next = max(next+1, g.size)
		}
	}
	return f
}

func (w *walk) all(ctx context.Context, signed tree) error {
	if n := len(w.marks); n > 0 && w.marks[n-1].size > signed.size {
		f := found(proviso.CodeRollback, signed.size, "the log has %d entries, and had signed %d before: the later ones were taken away", signed.size, w.marks[n-1].size)
		f.Last = w.marks[n-1].size - 1
		return f
	}
	for w.edge.size < signed.size {
		groups, err := w.src.groups(ctx, w.edge.size, signed.size)
		if err != nil {
			return err
		}
		if len(groups) == 0 {
			f := found(proviso.CodeTruncated, w.edge.size, "the log ends before this entry, and its checkpoint is of %d entries", signed.size)
			f.Last = signed.size - 1
			return f
		}
		for _, g := range groups {
			if err := w.group(ctx, g, signed.size); err != nil {
				return err
			}
		}
	}
	if w.edge.size > signed.size {
		return found(proviso.CodeTornTail, signed.size, "the log goes on behind its checkpoint, which is of %d entries", signed.size)
	}
	return w.end(signed)
}

// end judges what was seen by the signature over all of it.
func (w *walk) end(signed tree) error {
	w.edge.seal()
	whole := w.edge.root() == signed.root
	switch {
	case w.suspect != nil && whole:
		w.suspect.Code = proviso.CodeFork
		return w.suspect
	case w.suspect != nil:
		return w.suspect
	case !whole:
		f := found(proviso.CodeEntryHash, w.good, "the entries don't add up to the signed root, and the tiles were altered with them: earlier checkpoints or receipts would narrow it down")
		f.Last = signed.size - 1
		return f
	}
	return nil
}

// group takes the next entries and everything that can be said of them so far.
func (w *walk) group(ctx context.Context, g group, size int64) error {
	next := w.edge.size
	switch {
	case g.first > next:
		f := found(proviso.CodeChainGap, next, "missing: the log goes on with entry %d", g.first)
		f.Last = g.first - 1
		return f
	case g.first < next || g.size <= g.first:
		return found(proviso.CodeChainDup, g.first, "the log holds this entry twice")
	}
	if g.damaged {
		f := found(proviso.CodeEntryHash, g.first, "altered: what holds these entries can't be unpacked")
		f.Last = g.size - 1
		return f
	}
	entries, torn := split(g.bundle)
	want, err := w.want(ctx, g.first, min(g.size, size))
	if err != nil {
		return err
	}
	leaves := make([]tlog.Hash, len(entries))
	for i, e := range entries {
		leaves[i] = tlog.RecordHash(e)
	}
	if f := w.compare(leaves, want, g); f != nil {
		return f
	}
	if n := g.first + int64(len(entries)); n < g.size {
		f := found(proviso.CodeTornTail, n, "torn: what should hold the entries %d to %d ends within this one", g.first, g.size-1)
		f.Last = g.size - 1
		return f
	} else if n > g.size || torn {
		return found(proviso.CodeTornTail, g.size, "what should hold the entries %d to %d goes on behind them", g.first, g.size-1)
	}
	old := w.edge.size
	for i, e := range entries {
		if err := w.entry(e, leaves[i]); err != nil {
			return err
		}
	}
	if err := w.signedThen(g); err != nil {
		return err
	}
	return w.tiles(ctx, old, size)
}

func split(bundle []byte) (entries [][]byte, torn bool) {
	for len(bundle) > 0 {
		e, rest, err := nextEntry(bundle)
		if err != nil {
			return entries, true
		}
		entries, bundle = append(entries, e), rest
	}
	return entries, false
}

// entry adds one entry and holds it against the receipts, the marks and the clock.
func (w *walk) entry(entry []byte, leaf tlog.Hash) error {
	index := w.edge.size
	for len(w.leaves) > 0 && w.leaves[0].index == index {
		if w.leaves[0].leaf != leaf {
			w.doubt(index, index, "a receipt proves that another entry stood here")
		}
		w.leaves = w.leaves[1:]
	}
	v, err := document.Parse(entry, entryLimits)
	if err != nil {
		return found(proviso.CodeEntryHash, index, "this is not an entry: %v", err)
	}
	w.edge.add(leaf)
	for len(w.marks) > 0 && w.marks[0].size <= w.edge.size {
		if t := w.marks[0]; t.size == w.edge.size && t.root != w.root() {
			w.doubt(w.good, index, fmt.Sprintf("the log has signed other entries before, in its checkpoint of size %d", t.size))
		} else if t.size == w.edge.size {
			w.good = t.size
		}
		w.marks = w.marks[1:]
	}
	recorded, ok := v.Get("recorded").Integer()
	if !ok || recorded < w.recorded {
		return found(proviso.CodeTimeOrder, index, "recorded at %v, before the entry in front of it", time.UnixMilli(recorded).UTC())
	}
	w.recorded = recorded
	w.count(v, time.UnixMilli(recorded).UTC())
	return nil
}

func (w *walk) root() tlog.Hash {
	e := w.edge.clone()
	e.seal()
	return e.root()
}

func (w *walk) count(v document.Value, at time.Time) {
	if w.report.First.IsZero() {
		w.report.First = at
	}
	w.report.Last = at
	switch result, _ := v.Get("result").Text(); result {
	case resultAllowed:
		w.report.Allowed++
	case resultRefused:
		w.report.Refused++
	default:
		w.report.Noted++
	}
}

func (w *walk) doubt(first, last int64, text string) {
	if w.suspect == nil {
		w.suspect = found(proviso.CodeEntryHash, first, "%s", text)
		w.suspect.Last = last
	}
}

// signedThen holds the entries so far against the checkpoint that was signed
// with the group. Its signature is looked at only if it says something else.
func (w *walk) signedThen(g group) error {
	if g.note == nil || w.suspect != nil {
		return nil //nolint:nilerr // a doubt is held already, and is told at the end
	}
	now := tree{w.edge.size, w.root()}
	if bytes.HasPrefix(g.note, []byte(checkpointText(w.verifier.Name(), now)+"\n")) {
		w.good = now.size
		return nil
	}
	if _, f := openCheckpoint(g.note, w.verifier); f != nil {
		f.Index, f.Last = g.first, g.size-1
		return f
	}
	w.doubt(g.first, g.size-1, "these entries, or the number of them, are not what was signed when they were written")
	return nil
}

// tiles holds the hash tiles that have become full, or that will not grow any
// more, against the entries.
func (w *walk) tiles(ctx context.Context, old, size int64) error {
	for _, t := range newTiles(old, w.edge) {
		r := resource{t.Level, t.Number, len(t.Data) / hashSize}
		if r.width < r.in(size) {
			continue
		}
		have, err := w.src.tile(ctx, r)
		if err != nil {
			return err
		}
		if len(have) > len(t.Data) {
			if !w.hasGrown(ctx, size) {
				return found(proviso.CodeRollback, w.edge.size, "the hash tile %s knows of entries behind the end of the log: they were taken away", r.path())
			}
			have = have[:len(t.Data)]
		}
		if bytes.Equal(have, t.Data) {
			continue
		}
		i := 0
		for ; (i+1)*hashSize <= len(have) && bytes.Equal(have[i*hashSize:(i+1)*hashSize], t.Data[i*hashSize:(i+1)*hashSize]); i++ {
		}
		span := int64(1) << (t.Level * tileHeight)
		f := found(proviso.CodeProof, (t.Number*tileWidth+int64(i))*span, "the hash tile %s is missing, or not the one that follows from the entries: no proof can be made from it", r.path())
		f.Last = f.Index + span - 1
		return f
	}
	return nil
}

// hasGrown reports whether the log has signed a larger tree since the
// verification began: somebody writes it meanwhile.
func (w *walk) hasGrown(ctx context.Context, size int64) bool {
	text, _, err := w.src.checkpoint(ctx)
	if err != nil {
		return false
	}
	now, f := openCheckpoint(text, w.verifier)
	return f == nil && now.size > size
}

// want reads what the tiles of level 0 say of the entries first to end-1; it
// may be less where the copy has no tile.
func (w *walk) want(ctx context.Context, first, end int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for i := first; i < end; i++ {
		if no := i / tileWidth; w.tile == nil || w.tileNo != no {
			r := resource{0, no, tileWidth}
			r.width = r.in(end)
			data, err := w.src.tile(ctx, r)
			if err != nil {
				return nil, err
			}
			if w.tile, w.tileNo = hashesOf(data), no; data == nil {
				w.tile = nil
				return out, nil
			}
		}
		if i%tileWidth >= int64(len(w.tile)) {
			return out, nil
		}
		out = append(out, w.tile[i%tileWidth])
	}
	return out, nil
}

// compare holds entries against the hashes that the tiles have for them, and
// says what happened to the first that differs.
func (w *walk) compare(have, want []tlog.Hash, g group) *Finding {
	i := 0
	for i < len(have) && i < len(want) && have[i] == want[i] {
		i++
	}
	if i == len(want) { // the tiles say no more
		return nil
	}
	at := g.first + int64(i)
	if i == len(have) {
		f := found(proviso.CodeTruncated, at, "missing: what should hold the entries %d to %d ends before it", g.first, g.size-1)
		f.Last = g.first + int64(len(want)) - 1
		return f
	}
	if to := slices.Index(want[i:], have[i]); to > 0 && (i+to >= len(have) || have[i+to] != want[i]) {
		f := found(proviso.CodeChainGap, at, "missing: entry %d stands in its place", at+int64(to))
		f.Last = at + int64(to) - 1
		return f
	}
	// The tile may know the entry from a place that is in another group.
	if other := slices.Index(w.tile, have[i]); other >= 0 {
		if other := w.tileNo*tileWidth + int64(other); other < at {
			return found(proviso.CodeChainDup, at, "entry %d stands here once more", other)
		} else {
			return found(proviso.CodeChainOrder, at, "entry %d stands here in its place", other)
		}
	}
	if slices.Contains(have[i+1:], want[i]) {
		return found(proviso.CodeEntryHash, at, "an entry was put in here that was never in the log")
	}
	return found(proviso.CodeEntryHash, at, "altered: its text is not what was recorded")
}
