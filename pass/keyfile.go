package pass

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/jose"
)

// A key's file is named after its algorithm and the time it signs from:
// pass-es256-20261124T034100Z.pem. It holds one PKCS #8 block.
const fromLayout = "20060102T150405Z"

func filePrefix(alg jose.Alg) string { return "pass-" + strings.ToLower(string(alg)) + "-" }

const maxKeyFile = 16 << 10

// leftover begins the name of a file that is being written.
const leftover = ".new-"

// removeLeftovers deletes what a crash left half written. It runs at start, when
// nobody else writes into the directory.
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), leftover) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// WriteSecret writes a file that only its owner may read, whole or not at all:
// into a temporary name, synced, renamed, and the directory synced. It never
// replaces a file.
func WriteSecret(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkPrivate(dir, true); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, leftover+"*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // its bytes are synced under another name, or worthless
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	// Link, not rename: of two processes that start at once, one gets an error
	// instead of both having a different key under one name.
	target := filepath.Join(dir, name)
	err = os.Link(f.Name(), target)
	if err != nil && !errors.Is(err, os.ErrExist) {
		// A file system without hard links: the next best is to look first.
		if _, missing := os.Lstat(target); errors.Is(missing, os.ErrNotExist) {
			err = os.Rename(f.Name(), target)
		}
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// ReadSecret reads a file that only its owner may read, and refuses any other.
func ReadSecret(path string) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := privateMode(path, info, false); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is larger than a key", path)
	}
	return data, err
}

func checkPrivate(path string, dir bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return privateMode(path, info, dir)
}

func privateMode(path string, info os.FileInfo, dir bool) error {
	want := "0600"
	if dir {
		want = "0700"
	}
	if dir != info.IsDir() || !dir && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not what it should be: a plain file or directory of mode %s", path, want)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%s has mode %#o, so others than its owner may use it; chmod it to %s, and replace the keys if others had access", path, perm, want)
	}
	return ownedByUs(path, info)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadKeys reads all keys of one algorithm, oldest first.
func loadKeys(dir string, alg jose.Alg) ([]*signingKey, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(dir, true); err != nil {
		return nil, err
	}
	var keys []*signingKey
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filePrefix(alg))
		if !ok {
			continue
		}
		path := filepath.Join(dir, e.Name())
		stamp, ok := strings.CutSuffix(rest, ".pem")
		from, err := time.Parse(fromLayout, stamp)
		if !ok || err != nil {
			return nil, fmt.Errorf("%s is named like a signing key, but not %sYYYYMMDDThhmmssZ.pem", path, filePrefix(alg))
		}
		key, err := readKey(path, alg, from)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b *signingKey) int { return a.from.Compare(b.from) })
	return keys, nil
}

func readKey(path string, alg jose.Alg, from time.Time) (*signingKey, error) {
	data, err := ReadSecret(path)
	if err != nil {
		return nil, err
	}
	private, err := ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, err := newSigningKey(private, alg, from, filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// ParsePrivateKey reads one PEM block of PKCS #8, and nothing beside it.
func ParsePrivateKey(data []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 ||
		!bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, errors.New("not exactly one PEM block PRIVATE KEY (PKCS #8)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PRIVATE KEY block is not PKCS #8") // the cause may quote the key
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("the PRIVATE KEY block holds a key that can't sign")
	}
	return private, nil
}

// KeptKey gives the key that a machine keeps in a file: the one that is there, else
// a new one on P-256, which write puts there.
func KeptKey(path string, write func(data []byte) error) (crypto.Signer, error) {
	data, err := ReadSecret(path)
	switch {
	case err == nil:
		key, err := ParsePrivateKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return key, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	key, err := generate(jose.ES256)
	if err != nil {
		return nil, err
	}
	if data, err = MarshalPrivateKey(key); err != nil {
		return nil, err
	}
	if err := write(data); err != nil {
		return nil, fmt.Errorf("a new key can't be kept: %w", err)
	}
	return key, nil
}

// MarshalPrivateKey writes what ParsePrivateKey reads.
func MarshalPrivateKey(private crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func createKey(dir string, alg jose.Alg, from time.Time) (*signingKey, error) {
	private, err := generate(alg)
	if err != nil {
		return nil, err
	}
	data, err := MarshalPrivateKey(private)
	if err != nil {
		return nil, err
	}
	// The name has whole seconds, so that is what the key signs from.
	from = from.UTC().Truncate(time.Second)
	name := filePrefix(alg) + from.Format(fromLayout) + ".pem"
	if err := WriteSecret(dir, name, data); err != nil {
		return nil, fmt.Errorf("a new signing key can't be kept: %w", err)
	}
	return newSigningKey(private, alg, from, name)
}

func generate(alg jose.Alg) (crypto.Signer, error) {
	if alg == jose.EdDSA {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func removeKey(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}
