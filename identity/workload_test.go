package identity

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Only what verifies SVIDs may say that one was verified.
func TestOnlyRunnerMakesWorkloads(t *testing.T) {
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "identity.OfWorkload(") {
			return err
		}
		if found++; filepath.Base(filepath.Dir(path)) != "runner" {
			t.Errorf("%s makes a workload's identity; package runner verifies SVIDs, and nobody else", path)
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("found %d places: %v", found, err)
	}
}

// One JWT-SVID has one replay key, whatever its issuer's entry is called, and
// keys of different trust domains and modes never meet.
func TestWorkloadReplayKeys(t *testing.T) {
	base := Workload{Entry: "prod", TrustDomain: "spiffe://a.example", ID: "spiffe://a.example/x", Hash: [32]byte{1}, JTI: "1",
		Replay: ReplayToken, Issued: time.Unix(1, 0), Expires: time.Unix(2, 0)}
	key := func(change func(w *Workload)) [32]byte {
		w := base
		change(&w)
		mode, k := OfWorkload(w).Replay()
		if mode != w.Replay {
			t.Errorf("mode %q", mode)
		}
		return k
	}
	same := key(func(*Workload) {})
	if key(func(w *Workload) { w.Entry = "renamed" }) != same {
		t.Error("a renamed entry gives the same token another chance")
	}
	seen := map[[32]byte]string{same: "the first"}
	for name, change := range map[string]func(w *Workload){
		"another token":        func(w *Workload) { w.Hash[0] = 2 },
		"another trust domain": func(w *Workload) { w.TrustDomain = "spiffe://b.example" },
		"by jti":               func(w *Workload) { w.Replay = ReplayJTI },
		"by another jti":       func(w *Workload) { w.Replay, w.JTI = ReplayJTI, "2" },
	} {
		k := key(change)
		if other := seen[k]; other != "" {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[k] = name
	}
	id := OfWorkload(base).Identity()
	if id.Kind != KindSPIFFE || id.Subject != base.ID || id.Issuer != base.TrustDomain || id.Platform != PlatformSPIFFE {
		t.Errorf("%+v", id)
	}
}
