package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/gate"
	"github.com/proviso-ci/proviso/lab"
)

// stop ends a broker as an operator does.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.ended(30 * time.Second); code != exitDone {
		p.t.Fatalf("the broker ended with %d: %s", code, p.log.String())
	}
}

// What docs/operate.md says of a restored backup is so: the directory that was
// copied while the broker was stopped starts and verifies; a token that was used
// before the backup stays used, one that was used after it is unknown to it; and
// whoever kept a newer checkpoint or receipt notices that the record has forked.
func TestARestoredBackup(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	data, backup := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "backup")
	before, after := exchangeForm(s.token(lab.Job{}), "deploy"), exchangeForm(s.token(lab.Job{}), "deploy")
	p := s.spawn()
	if r := s.ask(before); r.granted == nil {
		t.Fatal(r)
	}
	p.stop()
	noError(t, os.CopyFS(backup, os.DirFS(data)))
	p = s.spawn()
	lost := s.ask(after)
	if lost.granted == nil {
		t.Fatal(lost)
	}
	if code, said := cli(t, "audit", "export", "--store", data, s.dir+"/kept"); code != exitDone {
		t.Fatal(said)
	}
	p.stop()

	noError(t, os.RemoveAll(data))
	noError(t, os.Rename(backup, data))
	for _, name := range []string{"log.key", "keys", "ca"} { // os.CopyFS keeps no modes; cp -a does
		noError(t, filepath.WalkDir(filepath.Join(data, name), func(path string, d os.DirEntry, err error) error {
			if err == nil {
				err = os.Chmod(path, map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()])
			}
			return err
		}))
	}
	p = s.spawn()
	if r := s.ask(before); r.refused.Code != proviso.CodeReplay {
		t.Errorf("a token that was used before the backup: %s", r)
	}
	if r := s.ask(after); r.granted == nil {
		t.Errorf("a token that was used after the backup: %s; the page says that it is unknown", r)
	}
	vkey := filepath.Join(data, "log.vkey")
	if code, said := cli(t, "audit", "verify", "--key", vkey, "--log", data); code != exitDone {
		t.Errorf("the restored record does not verify by itself: %s", said)
	}
	if code, said := cli(t, "audit", "verify", "--key", vkey, "--log", data, "--checkpoint", s.dir+"/kept/checkpoint"); code != exitRefused {
		t.Errorf("nobody notices that the record has forked (%d): %s", code, said)
	}
	s.write("answer.json", string(lost.granted.Proviso.Receipt))
	if code, said := cli(t, "audit", "verify", "--key", vkey, "--log", data, "--receipt", s.dir+"/answer.json"); code != exitRefused {
		t.Errorf("a receipt of what is lost agrees with the restored record (%d): %s", code, said)
	}
	p.stop()
}

// What docs/operate.md says of stolen signing keys is so: with the directory
// moved away the broker makes new ones, the gate finds them by the first new
// token, and nothing that the old ones signed is taken from then on.
func TestStolenKeysAreReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	p := s.spawn()
	g := made(gate.New(gate.Config{Issuer: s.url, Audience: "https://deploy.acme.example"}, gate.Options{}))(t)
	defer g.Close()
	guarded := g.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	visit := func(token string) int {
		r := httptest.NewRequest(http.MethodPost, "https://deploy.acme.example/deploy", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		guarded.ServeHTTP(w, r)
		return w.Code
	}
	ask := func() string {
		t.Helper()
		r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy"))
		if r.granted == nil {
			t.Fatal(r)
		}
		return r.granted.AccessToken
	}
	old := ask()
	if status := visit(old); status != http.StatusOK {
		t.Fatalf("the gate answers a good credential with %d", status)
	}
	p.stop()
	noError(t, os.Rename(filepath.Join(s.dir, "data/keys"), filepath.Join(s.dir, "stolen")))
	p = s.spawn()
	// The gate asks for unknown keys at once, and then not for a while.
	if status := visit(ask()); status != http.StatusOK {
		t.Errorf("the gate answers a credential of the new key with %d", status)
	}
	if status := visit(old); status != http.StatusUnauthorized {
		t.Errorf("the gate answers a credential of the stolen key with %d", status)
	}
	p.stop()
}

// A store of a newer program is refused with what to do, and not touched.
func TestAnOlderProgramRefusesANewerStore(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	s.spawn().stop()
	name := filepath.Join(s.dir, "data/proviso.db")
	data := made(os.ReadFile(name))(t)
	data[63] = 99 // PRAGMA user_version, a big-endian number at offset 60 (SQLite file format, section 1.3)
	noError(t, os.WriteFile(name, data, 0o600))
	for _, args := range [][]string{{"serve", "--config", s.file}, {"audit", "search", "--store", filepath.Join(s.dir, "data")}} {
		code, said := cli(t, args...)
		if code == exitDone || !strings.Contains(said, "the store has schema version 99 and this program knows versions up to") || !strings.Contains(said, "run the newer program") {
			t.Errorf("%v ended with %d: %s", args, code, said)
		}
	}
	if now := made(os.ReadFile(name))(t); string(now) != string(data) {
		t.Error("a program that refuses a store has changed it")
	}
}
