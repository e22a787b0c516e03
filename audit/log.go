package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Config is what a log needs to know. Only Origin must be set.
type Config struct {
	// Origin names the log in its checkpoints and its key: the log's URL
	// without the scheme, as "proviso.acme.example/log". It can't change later.
	Origin string
	// Broker is the program's version, for entries that name none.
	Broker string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Log is the open log of one store.
type Log struct {
	db  *store.DB
	cfg Config
	mu  sync.Mutex
	// TEMPORARY: the whole tree in memory, until the right edge is there.
	hashes []tlog.Hash
	size   int64
	signer note.Signer
	vkey   string
}

// Open opens the log that is in db, or begins one.
func Open(ctx context.Context, db *store.DB, cfg Config) (*Log, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	skey, vkey, err := note.GenerateKey(rand.Reader, cfg.Origin)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	_ = ed25519.PublicKeySize
	return &Log{db: db, cfg: cfg, signer: signer, vkey: vkey}, nil
}

// VerifierKey is the log's public key as a signed-note verifier key.
func (l *Log) VerifierKey() string { return l.vkey }

// Close ends the log: what was handed in is written, what comes later is refused.
func (l *Log) Close() error { return nil }

// Commit records e as allowed under terms, claims once, and gives the warrant
// when both are durable. A key that was used before is recorded as a refusal
// and returned as one (code replay).
func (l *Log) Commit(ctx context.Context, e *Entry, once Once, terms Terms) (*Warrant, error) {
	if !once.Off && once.Expires.IsZero() {
		return nil, unavailable(fmt.Errorf("a commit without replay key"))
	}
	terms = terms.clone()
	w, err := l.write(ctx, *e, &once, &terms)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Refuse records e as refused, durably.
func (l *Log) Refuse(ctx context.Context, e *Entry) error {
	_, err := l.write(ctx, *e, nil, nil)
	return err
}

func unavailable(err error) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRecord, proviso.CodeAuditUnavailable,
		"the decision could not be recorded, and nothing is issued without its record; try again, and tell the broker's operator if it stays so").Because(err)
}

func (l *Log) write(ctx context.Context, e Entry, once *Once, terms *Terms) (*Warrant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Mode == "" {
		e.Mode = Enforce
	}
	if e.Broker == "" {
		e.Broker = l.cfg.Broker
	}
	tx, err := l.db.Begin(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	defer tx.Rollback()
	var refusal error
	if once != nil && !once.Off {
		fresh, err := tx.Claim(once.Key, once.Expires)
		if err != nil {
			return nil, unavailable(err)
		}
		if !fresh {
			r := proviso.Refuse(proviso.StageRecord, proviso.CodeReplay, "this job token was used for this grant before; a token buys one credential: let the job ask its platform for a new one")
			e.Stage, e.Code, e.Message, terms, refusal = r.Stage, r.Code, r.Public, nil, r
		}
	}
	body := appendEntry(nil, &e, terms)
	if err := tx.PutEntry(l.size, body); err != nil {
		return nil, unavailable(err)
	}
	read := tlog.HashReaderFunc(func(ix []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(ix))
		for i, x := range ix {
			out[i] = l.hashes[x]
		}
		return out, nil
	})
	added, err := tlog.StoredHashes(l.size, body, read)
	if err != nil {
		return nil, unavailable(err)
	}
	l.hashes = append(l.hashes, added...)
	l.size++
	root, err := tlog.TreeHash(l.size, read)
	if err != nil {
		return nil, unavailable(err)
	}
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.cfg.Origin, l.size, root)}, l.signer)
	if err != nil {
		return nil, unavailable(err)
	}
	if err := tx.PutCheckpoint(l.size, checkpoint); err != nil {
		return nil, unavailable(err)
	}
	if err := tx.Commit(); err != nil {
		return nil, unavailable(err)
	}
	if refusal != nil || terms == nil {
		return nil, refusal
	}
	path, err := tlog.ProveRecord(l.size, l.size-1, read)
	if err != nil {
		return nil, unavailable(err)
	}
	w := &Warrant{}
	w.grant = &granted{self: w, terms: *terms, decision: e.Decision, proof: proofMaterial{body, l.size - 1, path, checkpoint}}
	return w, nil
}

// proofMaterial is what a receipt is made of.
type proofMaterial struct {
	entry      []byte
	index      int64
	path       []tlog.Hash
	checkpoint []byte
}

// Receipt proves that an entry is in the log. As JSON it is
// {"entry": {...}, "index": 73894, "proof": "c2sp.org/tlog-proof@v1\n..."}.
type Receipt struct {
	Entry json.RawMessage `json:"entry"`
	Index int64           `json:"index"`
	Proof string          `json:"proof"`
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

func (p *proofMaterial) receipt() (Receipt, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "c2sp.org/tlog-proof@v1\nindex %d\n", p.index)
	for _, h := range p.path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(p.checkpoint)
	return Receipt{Entry: p.entry, Index: p.index, Proof: b.String()}, nil
}
