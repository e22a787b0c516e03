package store

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// The first key that a machine comes with is its only one, also of two that
// come at the same time, and also after a restart.
func TestRunnerKey(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	machine, now := keyOf("machine"), time.Now()
	if _, known, err := db.RunnerKey(t.Context(), machine); known || err != nil {
		t.Fatalf("before it came: %v, %v", known, err)
	}
	var wg sync.WaitGroup
	got := make([][32]byte, 8)
	for i := range got {
		wg.Go(func() {
			key, err := db.BindRunnerKey(t.Context(), machine, keyOf(string(rune('a'+i))), "ec2/i-1", now)
			if err != nil {
				t.Error(err)
			}
			got[i] = key
		})
	}
	wg.Wait()
	for _, key := range got {
		if key != got[0] {
			t.Fatal("two keys are both the first")
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, dir)
	if k, known, err := db.RunnerKey(t.Context(), machine); !known || err != nil || k != (RunnerKey{Key: got[0]}) {
		t.Errorf("after a restart: %x %v %v", k, known, err)
	}
	bind := func(key string) [32]byte {
		t.Helper()
		bound, err := db.BindRunnerKey(t.Context(), machine, keyOf(key), "ec2/i-1", now)
		if err != nil {
			t.Error(err)
		}
		return bound
	}
	if bind("thief") != got[0] {
		t.Error("another key took its place")
	}

	// The operator allows another key: the next one counts, and only that.
	for name, want := range map[string]bool{"ec2/i-1": true, "ec2/i-2": false} {
		if has, err := db.HasRunnerKey(t.Context(), name); has != want || err != nil {
			t.Errorf("%s came with a key: %v, %v", name, has, err)
		}
	}
	for _, name := range []string{"ec2/i-2", "ec2/i-1"} {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tx.OpenRunnerKey(name, now), tx.Commit()); err != nil {
			t.Fatal(err)
		}
		if k, _, _ := db.RunnerKey(t.Context(), machine); k.Opened.IsZero() != (name == "ec2/i-2") {
			t.Errorf("after %s was allowed another key: %+v", name, k)
		}
	}
	if bind("new") != keyOf("new") || bind("thief") != keyOf("new") {
		t.Error("not the first key after the operator's word is the machine's")
	}
}
