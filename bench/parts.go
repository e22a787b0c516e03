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
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	_ "modernc.org/sqlite" // the driver whose bare cost is measured
)

// part is one thing that an exchange can't do without, bare: its library called
// directly, in the handler of a server that does nothing else. A part is
// measured under the same load as the broker, because a signature that costs
// 36 us on a machine at rest costs 60 among 64 busy connections; its cost is
// what its server uses more than the server that does nothing.
type part struct {
	key, name string
	// prepare gives what the handler calls.
	prepare func(dir string) (func() error, error)
}

var parts = []part{
	{"noop", "net/http handler that does nothing", func(string) (func() error, error) { return func() error { return nil }, nil }},
	{"rs256", "RS256 verification (RSA-2048, crypto/rsa)", verifyRS256},
	{"opa", "OPA prepared query, parsed input", evaluatePolicy},
	{"sqlite", "one row's share of a group-committed SQLite transaction", insertRows},
	{"es256", "ES256 signature (P-256, crypto/ecdsa)", signES256},
}

// rounds is how often everything is measured; of each the cheapest round counts,
// because a machine's other work can only make things dearer.
const rounds = 3

// measureParts gives the sum of what an exchange is made of, each part bare.
func measureParts(ctx context.Context, w *world, d time.Duration) (float64, error) {
	costs := make([]float64, len(parts))
	for round := range rounds {
		for i, p := range parts {
			o, err := w.loadPart(ctx, p.key, d/2)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", p.name, err)
			}
			if round == 0 || o.cpu < costs[i] {
				costs[i] = o.cpu
			}
		}
	}
	sum := costs[0]
	for i, p := range parts {
		cost := costs[i]
		if i > 0 {
			cost -= costs[0]
			sum += cost
		}
		fmt.Printf("  %-58s %9.1f us\n", p.name, cost)
	}
	return sum, nil
}

// loadPart drives the server of one part with the same requests as the broker.
func (w *world) loadPart(ctx context.Context, key string, d time.Duration) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	cmd, _, err := startProcess(ctx, w.address, "/usr/bin/env", "BENCH_LISTEN="+w.address, "BENCH_DIR="+w.dir, self, "-child", key)
	if err != nil {
		return outcome{}, err
	}
	defer stop(cmd)
	return drive(ctx, cmd.Process.Pid, w.address, func() []byte { return w.requests[0] }, d)
}

// servePart is the child process of one part.
func servePart(key string) error {
	for _, p := range parts {
		if p.key != key {
			continue
		}
		work, err := p.prepare(os.Getenv("BENCH_DIR"))
		if err != nil {
			return err
		}
		server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if err := work(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, _ = w.Write([]byte("{}"))
		})}
		l, err := net.Listen("tcp", os.Getenv("BENCH_LISTEN"))
		if err != nil {
			return err
		}
		return server.Serve(l)
	}
	return fmt.Errorf("there is no part %q", key)
}

func verifyRS256(string) (func() error, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte("header.payload"))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return nil, err
	}
	return func() error { return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) }, nil
}

func signES256(string) (func() error, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256([]byte("header.payload"))
	return func() error { _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); return err }, nil
}

func evaluatePolicy(string) (func() error, error) {
	prepared, err := rego.New(
		rego.Query("data.guard3.allow"),
		rego.Module("guard.rego", fmt.Sprintf(benchPolicy, 3, 3)),
	).PrepareForEval(context.Background())
	if err != nil {
		return nil, err
	}
	input, err := ast.InterfaceToValue(map[string]any{
		"identity": map[string]any{"role": "ci-cd-pipeline", "repository_id": "741200456", "tenant": "acme"},
		"context":  map[string]any{"branch": "main", "environment": "production", "time": "10:30"},
		"resource": map[string]any{"name": "grant-3"},
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		result, err := prepared.Eval(context.Background(), rego.EvalParsedInput(input))
		if err == nil && !result.Allowed() {
			err = errors.New("the policy said no")
		}
		return err
	}, nil
}

// insertRows commits durable rows of a unique key and 600 bytes; those that
// arrive together, at most 64, share a transaction.
func insertRows(dir string) (func() error, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bare.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, body BLOB NOT NULL)"); err != nil {
		return nil, err
	}
	insert, err := db.Prepare("INSERT INTO row (key, body) VALUES (?, ?)")
	if err != nil {
		return nil, err
	}
	waiting := make(chan chan error, connections)
	go func() {
		body, key := make([]byte, 600), make([]byte, 32)
		for first := range waiting {
			batch := []chan error{first}
			for len(batch) < connections && len(waiting) > 0 {
				batch = append(batch, <-waiting)
			}
			tx, err := db.Begin()
			for i := 0; err == nil && i < len(batch); i++ {
				_, _ = rand.Read(key)
				_, err = tx.Stmt(insert).Exec(key, body)
			}
			if err == nil {
				err = tx.Commit()
			}
			for _, done := range batch {
				done <- err
			}
		}
	}()
	return func() error {
		done := make(chan error, 1)
		waiting <- done
		return <-done
	}, nil
}
