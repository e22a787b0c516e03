package audit

import (
	"context"
	"fmt"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

// ProveConsistency proves that the log's newest checkpoint, which it returns,
// continues the tree of an earlier one of the given size: nothing of it was
// altered or taken away. The hashes are those of RFC 6962 section 2.1.2.
func ProveConsistency(ctx context.Context, db *store.DB, earlier int64) (checkpoint []byte, proof []tlog.Hash, err error) {
	last, err := db.LastBatch(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the log can't be read: %w", err)
	}
	if earlier < 1 || earlier > last.Size {
		return nil, nil, fmt.Errorf("the log has %d entries, and can't prove anything about a tree of %d", last.Size, earlier)
	}
	proof, err = tlog.ProveTree(last.Size, earlier, storedHashes{ctx, db, last.Size})
	if err != nil {
		return nil, nil, fmt.Errorf("consistency with %d entries can't be proved: %w", earlier, err)
	}
	return last.Note, proof, nil
}

// VerifyConsistency checks such a proof between two checkpoints offline. The
// error is a *Finding unless vkey is no public key.
func VerifyConsistency(earlier, later []byte, proof []tlog.Hash, vkey string) error {
	v, err := newVerifier(vkey)
	if err != nil {
		return err
	}
	a, f := openCheckpoint(earlier, v)
	if f != nil {
		return f
	}
	b, f := openCheckpoint(later, v)
	if f != nil {
		return f
	}
	if f := consistent(a, b, proof); f != nil {
		return f
	}
	return nil
}

func consistent(a, b tree, proof []tlog.Hash) *Finding {
	switch {
	case b.size < a.size:
		return found(proviso.CodeRollback, b.size, "the later checkpoint is of %d entries, the earlier one of %d", b.size, a.size)
	case a.size == b.size && a.root != b.root:
		return found(proviso.CodeFork, -1, "the log has signed two trees of %d entries", a.size)
	case a.size == 0:
		return found(proviso.CodeProof, -1, "every tree continues the empty one: there is nothing to prove")
	case a.size == b.size && len(proof) == 0:
		return nil
	}
	if err := tlog.CheckTree(proof, b.size, b.root, a.size, a.root); err != nil {
		return found(proviso.CodeProof, -1, "the proof does not show that the tree of %d entries continues the one of %d", b.size, a.size)
	}
	return nil
}
