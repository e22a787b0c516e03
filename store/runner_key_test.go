package store

import (
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
			key, err := db.BindRunnerKey(t.Context(), machine, keyOf(string(rune('a'+i))), now)
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
	if key, known, err := db.RunnerKey(t.Context(), machine); !known || err != nil || key != got[0] {
		t.Errorf("after a restart: %v, %v", known, err)
	}
	if key, err := db.BindRunnerKey(t.Context(), machine, keyOf("thief"), now); err != nil || key != got[0] {
		t.Errorf("another key later: %v", err)
	}
	if err := db.ForgetRunnerKey(machine); err != nil {
		t.Fatal(err)
	}
	if _, known, _ := db.RunnerKey(t.Context(), machine); known {
		t.Error("forgotten, and known")
	}
}
