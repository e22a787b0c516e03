package pass

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/internal/jose"
)

func TestKeysAreMadeAtFirstStartForTheirOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "keys")
	c := newClock()
	k, err := OpenKeyring(dir, KeyringConfig{}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v", info.Mode())
	}
	files := keyFiles(t, dir)
	if len(files) != 2 {
		t.Fatalf("files %v, want one key for each algorithm", files)
	}
	for _, f := range files {
		if info, _ := os.Stat(filepath.Join(dir, f)); info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	again, err := OpenKeyring(dir, KeyringConfig{}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range Algorithms {
		a, b := testSigner(t, k, string(alg)).Key(), testSigner(t, again, string(alg)).Key()
		if !a.Equal(b) {
			t.Errorf("%s: a restart changed the key", alg)
		}
		if a.KeyID() != a.Thumbprint() {
			t.Errorf("%s: kid %q is not the RFC 7638 thumbprint", alg, a.KeyID())
		}
	}
}

func keyFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAKeyThatOthersMayHaveIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir, key string){
		"file readable by the group": func(t *testing.T, _, key string) { must(t, os.Chmod(key, 0o640)) },
		"file readable by all":       func(t *testing.T, _, key string) { must(t, os.Chmod(key, 0o604)) },
		"directory open to others":   func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o755)) },
		"symbolic link": func(t *testing.T, dir, key string) {
			elsewhere := filepath.Join(t.TempDir(), "key.pem")
			must(t, os.Rename(key, elsewhere))
			must(t, os.Symlink(elsewhere, key))
		},
		"a directory of that name": func(t *testing.T, dir, key string) {
			must(t, os.Remove(key))
			must(t, os.Mkdir(key, 0o600))
		},
		"not a key": func(t *testing.T, _, key string) { must(t, os.WriteFile(key, []byte("hello\n"), 0o600)) },
		"empty":     func(t *testing.T, _, key string) { must(t, os.WriteFile(key, nil, 0o600)) },
		"too large": func(t *testing.T, _, key string) { must(t, os.WriteFile(key, make([]byte, 1<<20), 0o600)) },
		"two keys": func(t *testing.T, _, key string) {
			must(t, os.WriteFile(key, append(read(t, key), read(t, key)...), 0o600))
		},
		"text before it": func(t *testing.T, _, key string) {
			must(t, os.WriteFile(key, append([]byte("x\n"), read(t, key)...), 0o600))
		},
		"wrong algorithm": func(t *testing.T, dir, key string) { swap(t, dir) },
		"another curve": func(t *testing.T, _, key string) {
			p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			must(t, err)
			data, err := MarshalPrivateKey(p384)
			must(t, err)
			must(t, os.WriteFile(key, data, 0o600))
		},
		"a name without time": func(t *testing.T, dir, key string) { must(t, os.Rename(key, filepath.Join(dir, "pass-es256-x.pem"))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			c := newClock()
			if _, err := OpenKeyring(dir, KeyringConfig{}, c.now); err != nil {
				t.Fatal(err)
			}
			key := filepath.Join(dir, keyFiles(t, dir)[1]) // eddsa sorts first, es256 second
			secret := string(read(t, key))
			spoil(t, dir, key)
			_, err := OpenKeyring(dir, KeyringConfig{}, c.now)
			if err == nil {
				t.Fatal("it was taken")
			}
			if body := strings.Split(secret, "\n")[1]; strings.Contains(err.Error(), body) {
				t.Error("the error quotes the key")
			}
		})
	}
}

func TestAKeyOfAnotherUserIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	c := newClock()
	_, err := OpenKeyring(dir, KeyringConfig{}, c.now)
	must(t, err)
	key := filepath.Join(dir, keyFiles(t, dir)[0])
	if err := os.Chown(key, os.Geteuid()+1000, -1); err != nil {
		t.Log("only root can give a file away, so nothing is shown here:", err)
		return
	}
	if _, err := OpenKeyring(dir, KeyringConfig{}, c.now); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("opened with %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

// swap exchanges the contents of the two keys.
func swap(t *testing.T, dir string) {
	files := keyFiles(t, dir)
	a, b := filepath.Join(dir, files[0]), filepath.Join(dir, files[1])
	da, db := read(t, a), read(t, b)
	must(t, os.WriteFile(a, db, 0o600))
	must(t, os.WriteFile(b, da, 0o600))
}

func TestKeysAreNeverReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	must(t, WriteSecret(dir, "a.pem", []byte("one")))
	if err := WriteSecret(dir, "a.pem", []byte("two")); err == nil {
		t.Fatal("an existing file was replaced")
	}
	if got := string(read(t, filepath.Join(dir, "a.pem"))); got != "one" {
		t.Errorf("the file says %q", got)
	}
	if files := keyFiles(t, dir); len(files) != 1 {
		t.Errorf("a temporary file was left: %v", files)
	}
}

func TestWhatACrashLeftIsRemovedAtStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	c := newClock()
	must(t, WriteSecret(dir, ".new-123", []byte("half a key")))
	_, err := OpenKeyring(dir, KeyringConfig{}, c.now)
	must(t, err)
	if slices.Contains(keyFiles(t, dir), ".new-123") {
		t.Error("half a key is still there")
	}
}

// The promise of rotation: whoever keeps /jwks for as long as its max-age says
// never meets a token whose key it doesn't have, and no token outlives the
// publication of its key. 90 days are played in steps of an hour or less.
func TestRotationRefusesNoToken(t *testing.T) {
	const rotate, maxAge = 10 * 24 * time.Hour, time.Hour
	dir := filepath.Join(t.TempDir(), "keys")
	c := newClock()
	k, err := OpenKeyring(dir, KeyringConfig{Rotate: rotate, MaxAge: maxAge}, c.now)
	must(t, err)
	type token struct {
		kid     string
		expires time.Time
	}
	var alive []token
	cached, fetched := publishedKIDs(t, k), c.now()
	used, most := map[string]bool{}, 0
	for hours := 0; hours < 90*24; hours++ {
		c.advance(59 * time.Minute)
		if hours%7 != 3 { // a broker that was down at times
			must(t, k.Maintain())
		}
		published := publishedKIDs(t, k)
		most = max(most, len(published))
		if c.now().Sub(fetched) > maxAge {
			cached, fetched = published, c.now()
		}
		for _, alg := range Algorithms {
			kid := testSigner(t, k, string(alg)).Key().KeyID()
			used[kid] = true
			if !slices.Contains(cached, kid) {
				t.Fatalf("hour %d: a cache of %v does not know the key that signs now", hours, c.now().Sub(fetched))
			}
			alive = append(alive, token{kid, c.now().Add(MaxTTL)})
		}
		alive = slices.DeleteFunc(alive, func(t token) bool { return t.expires.Before(c.now()) })
		for _, a := range alive {
			if !slices.Contains(published, a.kid) {
				t.Fatalf("hour %d: the key of a token that lives until %v is not published", hours, a.expires)
			}
		}
	}
	if len(used) < 2*9 || len(used) > 2*10 {
		t.Errorf("%d keys signed in 90 days with rotation every 10", len(used))
	}
	if most != 4 || len(keyFiles(t, dir)) > 4 {
		t.Errorf("%d keys published at once, files %v; old keys must go", most, keyFiles(t, dir))
	}
}

func publishedKIDs(t *testing.T, k *Keyring) []string {
	t.Helper()
	body, _ := k.JWKS()
	set, err := jose.ParseKeySet(body, Algorithms)
	must(t, err)
	if p := set.Problems(); len(p) > 0 {
		t.Fatalf("our own key set has problems: %v", p)
	}
	var kids []string
	for _, key := range set.Keys() {
		kids = append(kids, key.KeyID())
	}
	return kids
}

func TestAStoppedBrokerComesBackWithAKeyThatOthersKnow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	c := newClock()
	k, err := OpenKeyring(dir, KeyringConfig{}, c.now)
	must(t, err)
	old := testSigner(t, k, "ES256").Key()
	c.advance(400 * 24 * time.Hour) // far beyond the rotation
	k, err = OpenKeyring(dir, KeyringConfig{}, c.now)
	must(t, err)
	if !testSigner(t, k, "ES256").Key().Equal(old) {
		t.Error("a key signs that nobody's copy of /jwks can have")
	}
	c.advance(time.Hour)
	must(t, k.Maintain())
	if testSigner(t, k, "ES256").Key().Equal(old) {
		t.Error("the overdue rotation did not happen")
	}
}

func TestAClockSetBackSignsNothing(t *testing.T) {
	c := newClock()
	k := testKeyring(t, c)
	c.advance(-time.Hour)
	if _, err := k.Signer(jose.ES256); err == nil {
		t.Error("a key signed before its time")
	}
}

func TestUnknownAlgorithmSignsNothing(t *testing.T) {
	k := testKeyring(t, newClock())
	for _, alg := range []jose.Alg{"", "none", jose.RS256, "es256"} {
		if _, err := k.Signer(alg); err == nil {
			t.Errorf("a signer for %q", alg)
		}
	}
}

func TestRunEndsAndReports(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k, err := OpenKeyring(dir, KeyringConfig{MaxAge: time.Minute}, nil)
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	k.tick = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	reported := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx, func(err error) {
			select {
			case reported <- err:
			case <-ctx.Done():
			}
		})
	}()
	if err := <-reported; err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("reported %v", err)
	}
	cancel()
	<-done
	if _, err := k.Signer(jose.ES256); err != nil {
		t.Errorf("a failed maintenance stopped the signing: %v", err)
	}
}

func TestKeyringConfigProblems(t *testing.T) {
	for _, test := range []struct {
		cfg  KeyringConfig
		path string
	}{
		{KeyringConfig{}, ""},
		{KeyringConfig{Rotate: time.Hour}, ""},
		{KeyringConfig{Rotate: 30 * time.Minute}, "rotate"},
		{KeyringConfig{Rotate: 9000 * time.Hour}, "rotate"},
		{KeyringConfig{MaxAge: time.Second}, "max_age"},
		{KeyringConfig{MaxAge: 48 * time.Hour}, "max_age"},
		{KeyringConfig{Rotate: time.Hour, MaxAge: time.Hour}, "max_age"},
		{KeyringConfig{MaxAge: -time.Minute}, "max_age"},
	} {
		var got string
		for _, p := range test.cfg.Validate() {
			got = p.Path
		}
		if got != test.path {
			t.Errorf("%+v: problem at %q, want %q", test.cfg, got, test.path)
		}
	}
	if _, err := OpenKeyring(t.TempDir(), KeyringConfig{Rotate: 1}, nil); err == nil {
		t.Error("a keyring was opened with a bad configuration")
	}
}
