package audit

import (
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/tlog"
)

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func randomKey() (k [32]byte) {
	crand.Read(k[:])
	return k
}

func text(names ...string) document.Value {
	var fs []document.Field
	for i := 0; i < len(names); i += 2 {
		fs = append(fs, document.Member(names[i], document.StringOf(names[i+1])))
	}
	return document.ObjectOf(fs...)
}

// sampleEntry is a decision of the usual size, about 2 KiB.
func sampleEntry() *Entry {
	now := time.Now()
	random := func() string { k := randomKey(); return hex.EncodeToString(k[:]) }
	repo := "acme/" + random()[:8]
	commit := random()[:40]
	id := text("kind", "job", "issuer", "github", "platform", "github", "subject", "repo:"+repo+":environment:production", "tenant", "acme", "role", "ci-cd-pipeline",
		"repository", repo, "repository_id", strconv.Itoa(rand.IntN(1e9)), "owner_id", "61200123", "ref", "refs/heads/main", "ref_type", "branch", "branch", "main",
		"commit", commit, "event", "push", "workflow", repo+"/.github/workflows/deploy.yml@refs/heads/main",
		"job_workflow", repo+"/.github/workflows/deploy.yml@refs/heads/main", "environment", "production", "run_id", strconv.Itoa(rand.IntN(1e11)), "run_attempt", "1", "actor", "mira", "actor_id", "9912312")
	run := text("id", "runner-17", "region", "us-west-2", "spiffe_id", "spiffe://runners.acme.example/region/us-west-2/runner/runner-17", "trust_domain", "runners.acme.example", "attestation", "spiffe-jwt", "environment", "self-hosted")
	input := document.ObjectOf(document.Member("identity", id), document.Member("runner", run),
		document.Member("resource", text("name", "deploy-production", "service", "shipping", "environment", "production", "tenant", "acme")),
		document.Member("context", text("time", "10:32", "weekday", "Tuesday", "date", "2026-11-24", "zone", "Europe/Berlin", "branch", "main", "commit", commit, "service", "shipping", "environment", "production", "action", "deploy", "purpose", "release 4.12")),
		document.Member("intent", text("action", "deploy", "purpose", "release 4.12", "type", "proviso_intent")),
		document.Member("origin", text("time", "fact:clock", "weekday", "fact:clock", "date", "fact:clock", "branch", "fact:token", "commit", "fact:token", "service", "grant", "environment", "grant", "action", "intent", "purpose", "intent")))
	return &Entry{
		Decision: NewDecision(now), Time: now, Grant: "deploy-production", Issuer: "github",
		TokenHash: random(), JTI: random()[:32], Actor: "mira",
		SPIFFEID: "spiffe://runners.acme.example/region/us-west-2/runner/runner-17", EvidenceHash: random(),
		Attestation: Attestation{Status: "spiffe-jwt", Age: 90 * time.Second}, Input: input,
		Policy: Policy{"production", "a1b2c3d", "sha256:fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13"},
	}
}

func sampleTerms() Terms {
	now := time.Now()
	return Terms{ID: "01JD", Kind: "jwt", Audience: "https://deploy.acme.example", Subject: "repo:acme/shipping:environment:production",
		ScopeAsked: []string{"deploy"}, Scope: []string{"deploy"}, NotBefore: now, Expires: now.Add(10 * time.Minute),
		Claims: text("act", "spiffe://runners.acme.example/region/us-west-2/runner/runner-17", "grant", "deploy-production")}
}

func openBench(b testing.TB) *Log {
	db, err := store.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	l, err := Open(context.Background(), db, Config{Origin: "bench.example/log"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close(); db.Close() })
	return l
}

// loop runs f from the given number of goroutines, n times in all.
func loop(goroutines, n int, f func()) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
}

// bareRows is the floor: rows of a 32-byte unique key and a 600-byte body, 64 of
// them in a durable SQLite transaction. It returns a function that writes some
// transactions and tells the CPU time of one row.
func bareRows(b testing.TB) func(transactions int) time.Duration {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "bare.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE row (key BLOB PRIMARY KEY, body BLOB)"); err != nil {
		b.Fatal(err)
	}
	insert, err := db.Prepare("INSERT INTO row VALUES (?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { insert.Close() })
	body := make([]byte, 600)
	return func(transactions int) time.Duration {
		start := cpuTime()
		for range transactions {
			tx, err := db.Begin()
			if err != nil {
				b.Fatal(err)
			}
			in := tx.Stmt(insert)
			for range 64 {
				k := randomKey()
				if _, err := in.Exec(k[:], body); err != nil {
					b.Fatal(err)
				}
			}
			if err := tx.Commit(); err != nil {
				b.Fatal(err)
			}
		}
		return (cpuTime() - start) / time.Duration(64*transactions)
	}
}

// BenchmarkCommit measures a commit with its warrant and receipt, 64 at a time,
// against the bare row.
func BenchmarkCommit(b *testing.B) {
	l := openBench(b)
	ctx := context.Background()
	terms := sampleTerms()
	entries := make([]*Entry, 64) // jobs of 64 repositories, no two alike: the store compresses them
	for i := range entries {
		entries[i] = sampleEntry()
	}
	body, _ := appendEntry(nil, entries[0], &terms)
	answers := sync.Pool{New: func() any { return new([]byte) }} // as a server reuses its buffers
	commit := func() {
		e, terms := *entries[rand.IntN(len(entries))], terms
		token, evidence := randomKey(), randomKey()
		e.Decision = NewDecision(time.Now())
		e.TokenHash, e.EvidenceHash = hex.EncodeToString(token[:]), hex.EncodeToString(evidence[:])
		e.JTI, terms.ID = e.TokenHash[:32], e.Decision
		w, err := l.Commit(ctx, &e, Once{Key: randomKey(), Expires: time.Now().Add(time.Hour)}, terms)
		if err != nil {
			b.Fatal(err)
		}
		answer := answers.Get().(*[]byte)
		if *answer, err = w.AppendReceipt((*answer)[:0]); err != nil {
			b.Fatal(err)
		}
		answers.Put(answer)
	}
	bare := bareRows(b)
	loop(64, 6400, commit)
	bare(100)
	batches, rounds := countBatches(l), 0
	var spent, floor, took time.Duration
	for b.Loop() { // by turns, so that what else the machine does hits both
		start, cpu := time.Now(), cpuTime()
		loop(64, 6400, commit)
		spent += (cpuTime() - cpu) / 6400
		took += time.Since(start)
		floor += bare(100)
		rounds++
	}
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(rounds), "cpu-us/commit")
	b.ReportMetric(float64(floor.Nanoseconds())/1e3/float64(rounds), "cpu-us/bare-row")
	b.ReportMetric(float64(spent)/float64(floor), "ratio")
	b.ReportMetric(float64(6400*rounds)/took.Seconds(), "commits/s")
	b.ReportMetric(float64(6400*rounds)/float64(countBatches(l)-batches), "entries/batch")
	b.ReportMetric(float64(len(body)), "bytes/entry")
}

// BenchmarkCommitBesideWork is what a broker does: each request takes 200
// microseconds of CPU before it commits. The cost of a transaction is shared by
// those who come together, so it matters that they do.
func BenchmarkCommitBesideWork(b *testing.B) {
	const work = 200 * time.Microsecond
	for _, conns := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			l := openBench(b)
			terms, entries := sampleTerms(), make([]*Entry, 256)
			for i := range entries {
				entries[i] = sampleEntry()
			}
			rounds := burnRounds(work)
			var mu sync.Mutex
			var took []time.Duration
			exchange := func() {
				start := time.Now()
				burn(rounds)
				w, err := l.Commit(ctx, entries[rand.IntN(len(entries))], Once{Key: randomKey(), Expires: time.Now().Add(time.Hour)}, terms)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Receipt(); err != nil {
					b.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(start))
			}
			loop(conns, 1000, exchange)
			took = nil
			batches, n, start, cpu := countBatches(l), 0, time.Now(), cpuTime()
			for b.Loop() {
				loop(conns, 1000, exchange)
				n += 1000
			}
			spent := (cpuTime() - cpu) / time.Duration(n)
			slices.Sort(took)
			b.ReportMetric(float64((spent-work).Nanoseconds())/1e3, "cpu-us/commit")
			b.ReportMetric(float64(n)/time.Since(start).Seconds(), "exchanges/s")
			b.ReportMetric(float64(n)/float64(countBatches(l)-batches), "entries/batch")
			b.ReportMetric(float64(took[n/2].Microseconds())/1e3, "p50-ms")
			b.ReportMetric(float64(took[n*99/100].Microseconds())/1e3, "p99-ms")
		})
	}
}

func burn(rounds int) {
	var block [64]byte
	for range rounds {
		sum := sha256.Sum256(block[:])
		copy(block[:], sum[:])
	}
}

func burnRounds(d time.Duration) int {
	const probe = 200_000
	start := cpuTime()
	burn(probe)
	return int(float64(probe) * float64(d) / float64(cpuTime()-start))
}

// BenchmarkScale measures how commit, receipt and opening grow with the log.
// Each metric also stands as a ratio to the log of 10^4 entries. All three touch
// one hash, tile or row for each level of the tree: from 10^6 to 10^8 entries
// there are seven levels more of hashes, and one more of tiles.
func BenchmarkScale(b *testing.B) {
	first := map[string]float64{}
	for _, size := range []int64{1e4, 1e5, 1e6} {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			dir := b.TempDir()
			prefill(b, dir, size)
			for b.Loop() { // what counts is measured below, in CPU time
			}
			report := func(name string, v float64) {
				if first[name] == 0 {
					first[name] = v
				}
				b.ReportMetric(v, name)
				b.ReportMetric(v/first[name], name+"-ratio")
			}
			cpu := cpuTime()
			db, err := store.Open(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			l, err := Open(ctx, db, Config{Origin: origin})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			report("open-us", float64((cpuTime()-cpu).Nanoseconds())/1e3)

			entries, warrants := make([]*Entry, 256), make(chan *Warrant, 12800)
			for i := range entries {
				entries[i] = sampleEntry()
			}
			terms := sampleTerms()
			commit := func() {
				w, err := l.Commit(ctx, entries[rand.IntN(len(entries))], Once{Key: randomKey(), Expires: time.Now().Add(time.Hour)}, terms)
				if err != nil {
					b.Fatal(err)
				}
				warrants <- w
			}
			loop(64, 6400, commit)
			cpu = cpuTime()
			loop(64, 6400, commit)
			report("commit-us", float64((cpuTime()-cpu).Nanoseconds())/1e3/6400)
			cpu = cpuTime()
			bytes := 0
			for range 12800 {
				r, err := (<-warrants).Receipt()
				if err != nil {
					b.Fatal(err)
				}
				bytes = len(r.Proof)
			}
			report("receipt-us", float64((cpuTime()-cpu).Nanoseconds())/1e3/12800)
			report("proof-bytes", float64(bytes))
			cpu = cpuTime()
			for range 200 {
				if _, err := Prove(ctx, db, rand.Int64N(size)); err != nil {
					b.Fatal(err)
				}
			}
			report("old-receipt-us", float64((cpuTime()-cpu).Nanoseconds())/1e3/200)
		})
	}
}

// prefill writes a log of small entries, without waiting for the disk.
func prefill(b *testing.B, dir string, size int64) {
	db, err := store.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	signer, _, err := loadKey(dir, origin, true)
	if err != nil {
		b.Fatal(err)
	}
	e := &edge{}
	for e.size < size {
		old, next := e, e.clone()
		var bundle []byte
		for next.size < min(size, old.size+maxBatch) {
			entry := fmt.Appendf(nil, `{"decision":"%026d","recorded":%d,"result":"refused"}`, next.size, 1764000000000+next.size)
			next.add(tlog.RecordHash(entry))
			bundle = appendBundled(bundle, entry)
		}
		next.seal()
		signed, err := signCheckpoint(signer, tree{next.size, next.root()})
		if err != nil {
			b.Fatal(err)
		}
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(tx.Append(store.Batch{First: old.size, Size: next.size, Note: signed, Entries: bundle, Tiles: newTiles(old.size, next)}), tx.Commit()); err != nil {
			b.Fatal(err)
		}
		e = next
	}
}

func countBatches(l *Log) int {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(l.db.Dir(), store.FileName)+"?mode=ro")
	if err != nil {
		panic(err)
	}
	defer db.Close()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM batch").Scan(&n); err != nil {
		panic(fmt.Sprint(err))
	}
	return n
}

func BenchmarkSerialise(b *testing.B) {
	e, terms := sampleEntry(), sampleTerms()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = appendEntry(buf[:0], e, &terms)
	}
	b.SetBytes(int64(len(buf)))
}
