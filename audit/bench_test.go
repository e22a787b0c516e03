package audit

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
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
	terms := sampleTerms()
	entries := make([]*Entry, 512) // no two alike: the store compresses them
	for i := range entries {
		entries[i] = sampleEntry()
	}
	body, _ := appendEntry(nil, entries[0], &terms)
	commit := func() {
		e, terms := entries[rand.IntN(len(entries))], terms
		terms.ID = NewDecision(time.Now())
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
	bare := bareShare(b, n/64) // as many rows: the index grows, and costs more as it does
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
