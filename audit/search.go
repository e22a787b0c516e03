package audit

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
)

// Query says which entries Search gives. An empty field asks for nothing.
type Query struct {
	From, To   time.Time // of recording; To is not included
	Decision   string
	Type       string
	Issuer     string
	Repository string
	Grant      string
	Result     string // allowed, refused, noted
	Code       proviso.Code
	Actor      string
	SPIFFEID   string
	Credential string
}

// slack is by how much the time in a decision's id, when the request came in,
// and the time of its recording may differ and Find still look there first.
const slack = 15 * time.Minute

// errStop ends a reading that has found what it looked for.
var errStop = errors.New("enough")

// Search gives the entries that fit a query, the oldest first. It reads the
// part of the log that the times leave over, a piece at a time, and keeps no
// more than a piece in memory.
func Search(ctx context.Context, db *store.DB, q Query) iter.Seq2[Summary, error] {
	return func(yield func(Summary, error) bool) {
		last, err := db.LastBatch(ctx)
		from := int64(0)
		if err == nil && !q.From.IsZero() {
			from, err = firstAt(ctx, db, last.Size, q.From.UnixMilli())
		}
		if err == nil {
			err = q.scan(ctx, db, from, last.Size, func(s Summary) bool { return yield(s, nil) })
		}
		if err != nil {
			yield(Summary{}, err)
		}
	}
}

// Find gives the entries of one decision: mostly one, and more where a caller
// gave up or a credential was ended.
func Find(ctx context.Context, db *store.DB, decision string) ([]Summary, error) {
	at, ok := DecisionTime(decision)
	if !ok {
		return nil, nil
	}
	for _, q := range []Query{{From: at.Add(-slack), To: at.Add(slack), Decision: decision}, {Decision: decision}} {
		var out []Summary
		for s, err := range Search(ctx, db, q) {
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

func (q Query) scan(ctx context.Context, db *store.DB, from, to int64, visit func(Summary) bool) error {
	// The text of an entry that fits holds each of these; most entries are
	// passed over without being read as JSON.
	var needles [][]byte
	for _, text := range []string{q.Decision, q.Type, q.Issuer, q.Repository, q.Grant, q.Result, string(q.Code), q.Actor, q.SPIFFEID, q.Credential} {
		if text != "" {
			needles = append(needles, document.AppendString(nil, text))
		}
	}
	err := eachEntry(ctx, db, from, to, func(index int64, entry []byte) error {
		for _, n := range needles {
			if !bytes.Contains(entry, n) {
				return nil
			}
		}
		s, err := summarise(index, entry)
		if err != nil {
			return err
		}
		if !q.To.IsZero() && !s.Recorded.Before(q.To) {
			return errStop
		}
		if q.fits(s) && !visit(s) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (q Query) fits(s Summary) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return (q.From.IsZero() || !s.Recorded.Before(q.From)) && (q.To.IsZero() || s.Recorded.Before(q.To)) &&
		is(q.Decision, s.Decision) && is(q.Type, s.Type) && is(q.Issuer, s.Issuer) && is(q.Repository, s.Repository) &&
		is(q.Grant, s.Grant) && is(q.Result, s.Result) && is(string(q.Code), string(s.Code)) && is(q.Actor, s.Actor) &&
		is(q.SPIFFEID, s.SPIFFEID) && is(q.Credential, s.Credential)
}

// firstAt finds the first entry that was recorded at the given time or later.
// The log keeps the times of recording in order, so it asks a few entries only.
func firstAt(ctx context.Context, db *store.DB, size, ms int64) (int64, error) {
	lo, hi := int64(0), size
	for lo < hi {
		mid := lo + (hi-lo)/2
		var at time.Time
		err := eachEntry(ctx, db, mid, mid+1, func(index int64, entry []byte) error {
			s, err := summarise(index, entry)
			at = s.Recorded
			return err
		})
		if err != nil {
			return 0, err
		}
		if at.UnixMilli() < ms {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}
