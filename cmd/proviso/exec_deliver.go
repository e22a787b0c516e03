package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
)

// Variables that CMD gets. Besides the token itself they name files.
const (
	envCredential     = "PROVISO_TOKEN"
	envCredentialFile = "PROVISO_TOKEN_FILE"
	envCertFile       = "PROVISO_CERT_FILE"
	envKeyFile        = "PROVISO_KEY_FILE"
	envProofKeyFile   = "PROVISO_DPOP_KEY_FILE"
	envDecision       = "PROVISO_DECISION"
)

// delivery is where CMD finds its credential: a variable, or files that are
// replaced in one step when the credential is renewed and removed at the end.
type delivery struct {
	variable string // the token's variable; "" when it is in a file
	file     string // the token's or the certificate's file
	env      []string
	remove   []string // paths to remove at the end, directories with all they hold
	unlock   func()
}

// deliver prepares the places and puts the first credential there.
func (k *asker) deliver(resp *proviso.TokenResponse, variable, path string) (d *delivery, err error) {
	d = &delivery{unlock: func() {}, env: []string{envDecision + "=" + resp.Proviso.Decision}}
	defer func() {
		if err != nil {
			_ = d.close() // err is why, and says more
		}
	}()
	if path == "" && !k.dpop && !k.x509 && k.machineKey == "" {
		d.variable = variable
		d.env = append(d.env, variable+"="+resp.AccessToken)
		return d, nil
	}
	dir := ""
	if !strings.ContainsRune(path, filepath.Separator) || k.dpop {
		if dir, d.unlock, err = privateDir(); err != nil {
			return d, err
		}
		d.remove = append(d.remove, dir)
	}
	if k.x509 {
		return d, d.certificate(k, resp, dir, path)
	}
	switch {
	case k.machineKey != "" && k.dpop:
		keyFile, err := filepath.Abs(k.machineKey) // no copy: it is the machine's, and outlives CMD
		if err != nil {
			return d, err
		}
		d.env = append(d.env, envProofKeyFile+"="+keyFile)
	case k.machineKey != "":
		k.note("the credential is bound to the machine's key, which CMD is not given: --dpop names its file in %s", envProofKeyFile)
	case k.dpop:
		key, err := k.keyPEM()
		if err != nil {
			return d, err
		}
		keyFile := filepath.Join(dir, "dpop.key")
		if err := writeNew(keyFile, key); err != nil {
			return d, err
		}
		d.env = append(d.env, envProofKeyFile+"="+keyFile)
	}
	if path == "" {
		d.variable = variable
		d.env = append(d.env, variable+"="+resp.AccessToken)
		return d, nil
	}
	d.file = path
	if !strings.ContainsRune(path, filepath.Separator) {
		d.file = filepath.Join(dir, path)
	}
	if d.file, err = filepath.Abs(d.file); err != nil {
		return d, err
	}
	if err := writeNew(d.file, []byte(resp.AccessToken)); err != nil {
		return d, err
	}
	d.remove = append(d.remove, d.file)
	d.env = append(d.env, envCredentialFile+"="+d.file)
	return d, nil
}

// certificate puts a chain and its key into a directory: the private one, or
// one that the caller names and that must not exist yet.
func (d *delivery) certificate(k *asker, resp *proviso.TokenResponse, dir, path string) error {
	switch {
	case dir == "":
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		d.remove = append(d.remove, path)
		dir = path
	case path != "":
		dir = filepath.Join(dir, path)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	key, err := k.keyPEM()
	if err != nil {
		return err
	}
	d.file = filepath.Join(dir, "tls.crt")
	keyFile := filepath.Join(dir, "tls.key")
	d.env = append(d.env, envCertFile+"="+d.file, envKeyFile+"="+keyFile)
	return errors.Join(writeNew(keyFile, key), writeNew(d.file, []byte(resp.AccessToken)))
}

// renewable reports whether CMD can see another credential. A process reads its
// environment once, so a variable can't be renewed.
func (d *delivery) renewable() bool { return d.file != "" }

// replace puts a renewed credential into the file. A reader sees the old one or
// the new one, never a part, and never a file that isn't there.
func (d *delivery) replace(credential string) error {
	next := d.file + "." + rand.Text()[:8]
	if err := writeNew(next, []byte(credential)); err != nil {
		return err
	}
	if err := os.Rename(next, d.file); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}

// close removes everything.
func (d *delivery) close() error {
	var errs []error
	for _, path := range d.remove {
		errs = append(errs, os.RemoveAll(path))
	}
	d.remove = nil
	d.unlock()
	return errors.Join(errs...)
}

// writeNew writes a file that only its owner can read, and that wasn't there: a
// name in a place that others can write to may be a link to somewhere else.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

const privatePrefix = "proviso-exec-"

// privateDir makes a directory that only its owner can enter, in memory if the
// machine has such a place. It stays locked while this process lives: what a
// process that was killed has left there is found by its missing lock, and
// removed by the next one.
func privateDir() (dir string, unlock func(), err error) {
	var errs []error
	for _, base := range privateBases() {
		sweep(base, time.Now())
		dir, err := os.MkdirTemp(base, privatePrefix) // 0700
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lock, err := os.Open(dir)
		if err == nil {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			errs = append(errs, err, os.Remove(dir))
			continue
		}
		return dir, func() { _ = lock.Close() }, nil
	}
	return "", nil, fmt.Errorf("there is no place for a private directory: %w", errors.Join(errs...))
}

// privateBases lists where to try: memory first, so that no disk keeps a token.
func privateBases() []string {
	bases := []string{"/dev/shm", os.TempDir()}
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		bases = append([]string{run}, bases...)
	}
	return bases
}

// sweep removes what killed processes of this user have left. A directory that
// is seconds old may be about to be locked, so it stays.
func sweep(base string, now time.Time) {
	left, _ := filepath.Glob(filepath.Join(base, privatePrefix+"*")) // its one error is a bad pattern
	for _, dir := range left {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || now.Sub(info.ModTime()) < 10*time.Second {
			continue
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
			continue
		}
		lock, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

// childEnvironment is CMD's: this process's own, without the job's token and
// what can get one. Who holds those can buy every grant of the job, which is
// more than CMD was given. It is hygiene and no wall: a program that wants to
// can look into its parents' environment. keep lists variables that stay, "*"
// all of them.
func childEnvironment(environ, keep []string, tokenVariable string, add []string) (env, withheld []string) {
	replaced := map[string]bool{}
	for _, kv := range add {
		name, _, _ := strings.Cut(kv, "=")
		replaced[name] = true
	}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case replaced[name]:
		case client.IsTokenVariable(name, tokenVariable) && !slices.Contains(keep, "*") && !slices.Contains(keep, name):
			withheld = append(withheld, name)
		default:
			env = append(env, kv)
		}
	}
	return append(env, add...), withheld
}

// mask tells GitHub's and Forgejo's runner to hide a token in the job's log,
// which may be public. The runner reads the command from either stream and
// prints nothing of it; standard output belongs to CMD.
func mask(stderr io.Writer, resp *proviso.TokenResponse) {
	if os.Getenv("GITHUB_ACTIONS") == "true" && resp.IssuedTokenType != proviso.TokenTypeX509 {
		fmt.Fprintf(stderr, "::add-mask::%s\n", resp.AccessToken)
	}
}
