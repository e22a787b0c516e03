package audit

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso/store"
)

// Once is the claim of a commit to be the only one with its key.
type Once struct {
	// Key is a hash over everything that may happen once only. The log never
	// sees what it was made of.
	Key [32]byte
	// Expires is when the token behind the key has surely expired: the key is
	// kept at least until then. It must be set.
	Expires time.Time
	// Off gives up "once", for an issuer whose replay mode is off by name. A
	// zero Once is an error, so that nobody gives it up by forgetting it.
	Off bool
	// With writes more into the transaction that makes the decision durable. If
	// it gives store.ErrGone, what it wanted to use up was used before, and the
	// decision is recorded as a replay; any other error is one of the store.
	With func(*store.Tx) error
	// Again is the sentence for who comes a second time, where it isn't a job.
	Again string
	// Carried says with whom the token came. The zero value says nothing.
	Carried Carried
}

// Carried ties a token to whom it came with: the first that buys something with
// it is the only one that ever does.
type Carried struct {
	// Token is a hash that names the token, and With one of the token together
	// with whom it came with.
	Token, With [32]byte
	// Expires is when the token has surely expired.
	Expires time.Time
}

func (c Carried) isZero() bool { return c.Token == [32]byte{} }

// Warrant is a recorded permission to mint exactly one credential. Only
// Log.Commit makes one that is worth anything; the zero Warrant redeems
// nothing. It is used by pointer: a copy has no life of its own.
type Warrant struct {
	_      noCopy
	grant  *granted // nil in the zero Warrant and after nothing was committed
	redeem atomic.Bool
}

// granted is what Commit knows of a durable entry.
type granted struct {
	self     *Warrant // the one warrant that may redeem it: a copy is not it
	terms    Terms
	decision string
	body     []byte // the entry as it was written
	outcome  outcome
}

// Errors of Redeem. They mean a mistake in the program that holds the warrant.
var (
	ErrNoWarrant = errors.New("this warrant was not made by a committed decision")
	ErrRedeemed  = errors.New("this warrant was redeemed before; it permits one credential")
)

// Redeem gives up the terms, once.
func (w *Warrant) Redeem() (Terms, error) {
	if w == nil || w.grant == nil || w.grant.self != w {
		return Terms{}, ErrNoWarrant
	}
	if w.redeem.Swap(true) {
		return Terms{}, ErrRedeemed
	}
	return w.grant.terms, nil
}

// Decision is the id of the recorded decision.
func (w *Warrant) Decision() string {
	if w == nil || w.grant == nil {
		return ""
	}
	return w.grant.decision
}

// Receipt proves that the decision is in the log. It may be asked for at any
// time and any number of times.
func (w *Warrant) Receipt() (Receipt, error) {
	if w == nil || w.grant == nil {
		return Receipt{}, ErrNoWarrant
	}
	out := &w.grant.outcome
	return Receipt{
		Entry: w.grant.body,
		Index: out.index,
		Proof: string(appendProof(nil, out.index, out.edge.path(out.index), out.note, "\n")),
	}, nil
}

// AppendReceipt appends the receipt as JSON, and makes nothing else on the way.
func (w *Warrant) AppendReceipt(dst []byte) ([]byte, error) {
	if w == nil || w.grant == nil {
		return dst, ErrNoWarrant
	}
	out := &w.grant.outcome
	dst = append(dst, `{"entry":`...)
	dst = append(dst, w.grant.body...)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendInt(dst, out.index, 10)
	dst = append(dst, `,"proof":"`...)
	dst = appendProof(dst, out.index, out.edge.path(out.index), out.note, `\n`)
	return append(dst, '"', '}'), nil
}

// noCopy makes go vet's copylocks check complain about a copied Warrant.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
