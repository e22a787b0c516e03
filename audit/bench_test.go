package audit

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/store"
)

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func randomKey() (k [32]byte) {
	rand.Read(k[:])
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
	id := text("kind", "job", "issuer", "github", "platform", "github", "subject", "repo:acme/shipping:environment:production", "tenant", "acme", "role", "ci-cd-pipeline",
		"repository", "acme/shipping", "repository_id", "650123421", "owner_id", "61200123", "ref", "refs/heads/main", "ref_type", "branch", "branch", "main",
		"commit", "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", "event", "push", "workflow", "acme/shipping/.github/workflows/deploy.yml@refs/heads/main",
		"job_workflow", "acme/shipping/.github/workflows/deploy.yml@refs/heads/main", "environment", "production", "run_id", "11820349712", "run_attempt", "1", "actor", "mira", "actor_id", "9912312")
	run := text("id", "runner-17", "region", "us-west-2", "spiffe_id", "spiffe://runners.acme.example/region/us-west-2/runner/runner-17", "trust_domain", "runners.acme.example", "attestation", "spiffe-jwt", "environment", "self-hosted")
	input := document.ObjectOf(document.Member("identity", id), document.Member("runner", run),
		document.Member("resource", text("name", "deploy-production", "service", "shipping", "environment", "production", "tenant", "acme")),
		document.Member("context", text("time", "10:32", "weekday", "Tuesday", "date", "2026-11-24", "zone", "Europe/Berlin", "branch", "main", "commit", "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c", "service", "shipping", "environment", "production", "action", "deploy", "purpose", "release 4.12")),
		document.Member("intent", text("action", "deploy", "purpose", "release 4.12", "type", "proviso_intent")),
		document.Member("origin", text("time", "fact:clock", "weekday", "fact:clock", "date", "fact:clock", "branch", "fact:token", "commit", "fact:token", "service", "grant", "environment", "grant", "action", "intent", "purpose", "intent")))
	return &Entry{
		Decision: NewDecision(now), Time: now, Grant: "deploy-production", Issuer: "github",
		TokenHash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", JTI: "7d0f3d1c-2a1e-4a67-9b66-0a4c2f5d6e7f", Actor: "mira",
		SPIFFEID: "spiffe://runners.acme.example/region/us-west-2/runner/runner-17", EvidenceHash: "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
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

// bareShare measures the floor: one row (32-byte unique key, 600-byte body) of
// 64 in a durable SQLite transaction.
func bareShare(b testing.TB, transactions int) time.Duration {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "bare.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE row (key BLOB PRIMARY KEY, body BLOB)"); err != nil {
		b.Fatal(err)
	}
	insert, err := db.Prepare("INSERT INTO row VALUES (?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	defer insert.Close()
	body := make([]byte, 600)
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

// BenchmarkCommit measures a commit with its warrant and receipt, 64 at a time,
// against the bare row.
func BenchmarkCommit(b *testing.B) {
	l := openBench(b)
	ctx := context.Background()
	e, terms := sampleEntry(), sampleTerms()
	body, _ := appendEntry(nil, e, &terms)
	commit := func() {
		w, err := l.Commit(ctx, e, Once{Key: randomKey(), Expires: time.Now().Add(time.Hour)}, terms)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Receipt(); err != nil {
			b.Fatal(err)
		}
	}
	loop(64, 6400, commit)
	batches := countBatches(l)
	start, cpu := time.Now(), cpuTime()
	n := 0
	for b.Loop() {
		loop(64, 6400, commit)
		n += 6400
	}
	spent, took := (cpuTime()-cpu)/time.Duration(n), time.Since(start)
	bare := bareShare(b, 300)
	b.ReportMetric(float64(spent.Nanoseconds())/1e3, "cpu-us/commit")
	b.ReportMetric(float64(bare.Nanoseconds())/1e3, "cpu-us/bare-row")
	b.ReportMetric(float64(spent)/float64(bare), "ratio")
	b.ReportMetric(float64(n)/took.Seconds(), "commits/s")
	b.ReportMetric(float64(n)/float64(countBatches(l)-batches), "entries/batch")
	b.ReportMetric(float64(len(body)), "bytes/entry")
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
