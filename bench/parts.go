package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"path/filepath"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	_ "modernc.org/sqlite" // the driver whose bare cost is measured
)

// measureParts gives the sum of what an exchange is made of, each part bare.
func measureParts(ctx context.Context, w *world, d time.Duration) (float64, error) {
	nothing, err := w.loadNothing(ctx, d)
	if err != nil {
		return 0, err
	}
	parts := []struct {
		name string
		cost func(context.Context) (float64, error)
	}{
		{"net/http handler that does nothing", func(context.Context) (float64, error) { return nothing.cpu, nil }},
		{"RS256 verification (RSA-2048, crypto/rsa)", verifyRS256},
		{"OPA prepared query, parsed input", evaluatePolicy},
		{"one row's share of a SQLite transaction of 64", func(ctx context.Context) (float64, error) { return insertRows(ctx, w.dir) }},
		{"ES256 signature (P-256, crypto/ecdsa)", signES256},
	}
	var sum float64
	for _, p := range parts {
		cost, err := p.cost(ctx)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("  %-58s %9.1f us\n", p.name, cost)
		sum += cost
	}
	return sum, nil
}

// cpuPer runs f n times, in five rounds, and gives the CPU microseconds of one
// run in the cheapest round.
func cpuPer(n int, f func() error) (float64, error) {
	best := 0.0
	for round := range 5 {
		at := ownCPU()
		for range n {
			if err := f(); err != nil {
				return 0, err
			}
		}
		if cost := (ownCPU() - at).Seconds() * 1e6 / float64(n); round == 0 || cost < best {
			best = cost
		}
	}
	return best, nil
}

func verifyRS256(context.Context) (float64, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("header.payload"))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return 0, err
	}
	return cpuPer(4000, func() error { return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) })
}

func signES256(context.Context) (float64, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("header.payload"))
	return cpuPer(4000, func() error { _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); return err })
}

func evaluatePolicy(ctx context.Context) (float64, error) {
	prepared, err := rego.New(
		rego.Query("data.guard3.allow"),
		rego.Module("guard.rego", fmt.Sprintf(benchPolicy, 3, 3)),
	).PrepareForEval(ctx)
	if err != nil {
		return 0, err
	}
	input, err := ast.InterfaceToValue(map[string]any{
		"identity": map[string]any{"role": "ci-cd-pipeline", "repository_id": "741200456", "tenant": "acme"},
		"context":  map[string]any{"branch": "main", "environment": "production", "time": "10:30"},
		"resource": map[string]any{"name": "grant-3"},
	})
	if err != nil {
		return 0, err
	}
	return cpuPer(4000, func() error {
		result, err := prepared.Eval(ctx, rego.EvalParsedInput(input))
		if err == nil && !result.Allowed() {
			err = fmt.Errorf("the policy said no")
		}
		return err
	})
}

func insertRows(ctx context.Context, dir string) (float64, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bare.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE row (id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, body BLOB NOT NULL)"); err != nil {
		return 0, err
	}
	insert, err := db.PrepareContext(ctx, "INSERT INTO row (key, body) VALUES (?, ?)")
	if err != nil {
		return 0, err
	}
	defer insert.Close()
	body := make([]byte, 600)
	key := make([]byte, 32)
	cost, err := cpuPer(40, func() error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		statement := tx.StmtContext(ctx, insert)
		for range 64 {
			_, _ = rand.Read(key)
			if _, err := statement.ExecContext(ctx, key, body); err != nil {
				return err
			}
		}
		return tx.Commit()
	})
	return cost / 64, err
}
