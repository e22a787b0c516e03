package audit

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/store"
)

// child is the life of the test's second process: it issues, in its way, until
// somebody stops it. It prints what it got once it has it, as a client would
// hold a credential.
func child(role, dir string) int {
	db, err := store.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := Open(context.Background(), db, Config{Origin: origin})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch role {
	case "load":
		loop(32, 1<<30, func() { issue(l) })
	case "full disk":
		return fullDisk(l)
	}
	return 0
}

// issue commits one decision and prints the warrant that it gave.
func issue(l *Log) error {
	key := randomKey()
	e, terms := sampleEntry(), sampleTerms()
	w, err := l.Commit(context.Background(), e, Once{Key: key, Expires: time.Now().Add(time.Hour)}, terms)
	if err != nil {
		return err
	}
	if _, err := w.Redeem(); err != nil {
		return err
	}
	// One write, so that a line is there whole or not at all.
	_, err = fmt.Fprintf(os.Stdout, "%s %d %x\n", w.Decision(), w.grant.outcome.index, key)
	return err
}

// fullDisk issues until the disk takes no more, and once more when it does.
func fullDisk(l *Log) int {
	limit := func(bytes uint64) {
		var r syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r)
		r.Cur = min(bytes, r.Max)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	for range 20 {
		if err := issue(l); err != nil {
			fmt.Fprintln(os.Stderr, "with room on the disk:", err)
			return 1
		}
	}
	limit(300 << 10)
	failed := 0
	for range 300 {
		err := issue(l)
		var r *proviso.Refusal
		if err != nil && (!errors.As(err, &r) || r.Code != proviso.CodeAuditUnavailable) {
			fmt.Fprintln(os.Stderr, "on a full disk:", err)
			return 1
		}
		if err != nil {
			failed++
		}
	}
	limit(1 << 40)
	fmt.Fprintf(os.Stderr, "failed %d\n", failed)
	for range 20 {
		if err := issue(l); err != nil {
			fmt.Fprintln(os.Stderr, "with room on the disk again:", err)
			return 1
		}
	}
	return 0
}

type printed struct {
	decision string
	index    int64
	key      [32]byte
}

func readPrinted(t *testing.T, line string) printed {
	t.Helper()
	var p printed
	var key string
	if _, err := fmt.Sscanf(line, "%s %d %s", &p.decision, &p.index, &key); err != nil {
		t.Fatalf("the child printed %q: %v", line, err)
	}
	raw, err := hex.DecodeString(key)
	if err != nil || len(raw) != 32 {
		t.Fatalf("the child printed %q: %v", line, err)
	}
	copy(p.key[:], raw)
	return p
}

func startChild(t *testing.T, role, dir string) (*exec.Cmd, *bufio.Scanner, *strings.Builder) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "PROVISO_TEST_CHILD="+role, "PROVISO_TEST_DIR="+dir)
	stderr := &strings.Builder{}
	c.Stderr = stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewScanner(out), stderr
}

// allRecorded holds what a process was given against what is on the disk.
func allRecorded(t *testing.T, dir string, got []printed) {
	t.Helper()
	db, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	l, err := Open(ctx, db, Config{Origin: origin})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := VerifyLog(ctx, StoreSource(db), l.VerifierKey(), Known{}); err != nil {
		t.Fatal(err)
	}
	recorded := map[string]int64{}
	for s, err := range Search(ctx, db, Query{Result: resultAllowed}) {
		if err != nil {
			t.Fatal(err)
		}
		recorded[s.Decision] = s.Index
	}
	loop(32, len(got), func() func() {
		next := make(chan printed, len(got))
		for _, p := range got {
			next <- p
		}
		return func() {
			p := <-next
			if index, ok := recorded[p.decision]; !ok || index != p.index {
				t.Errorf("decision %s was given out as entry %d, and the log has it at %d (%v)", p.decision, p.index, index, ok)
			}
			_, err := l.Commit(ctx, sampleEntry(), Once{Key: p.key, Expires: time.Now().Add(time.Hour)}, sampleTerms())
			wantCode(t, err, proviso.StageRecord, proviso.CodeReplay)
		}
	}())
}

// Killed in the middle of a load of commits, several times over: each warrant
// that somebody holds is in the log, and no replay key buys a second one.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var got []printed
	for round := range 4 {
		c, lines, stderr := startChild(t, "load", dir)
		for n := 0; lines.Scan(); n++ {
			got = append(got, readPrinted(t, lines.Text()))
			if n == 150+200*round {
				c.Process.Kill()
			}
		}
		c.Wait()
		if stderr.Len() > 0 {
			t.Fatal(stderr)
		}
	}
	if len(got) < 1000 {
		t.Fatalf("only %d warrants were printed", len(got))
	}
	allRecorded(t, dir, got)
}

// While the disk is full nothing is issued, when it isn't the log goes on by
// itself, and nothing that was issued is missing.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	c, lines, stderr := startChild(t, "full disk", dir)
	var got []printed
	for lines.Scan() {
		got = append(got, readPrinted(t, lines.Text()))
	}
	var failed int
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	_, summary, ok := strings.Cut(stderr.String(), "failed ")
	if _, err := fmt.Sscan(summary, &failed); !ok || err != nil || failed < 20 {
		t.Fatalf("the disk was never full: %s", stderr)
	}
	if len(got) != 340-failed {
		t.Errorf("%d warrants were given, and %d of 340 commits failed", len(got), failed)
	}
	allRecorded(t, dir, got)
}
