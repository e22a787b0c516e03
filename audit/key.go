package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/proviso-ci/proviso/store"
	"golang.org/x/mod/sumdb/note"
)

// KeyFile is the name of the log's private key in the store's directory, in the
// text form of signed notes. Whoever has it can write another history under
// the log's name; who loses it has to begin a new log. VKeyFile, beside it, is
// the public key to hand to auditors.
const (
	KeyFile  = "log.key"
	VKeyFile = "log.vkey"
)

// loadKey reads the log's key, and makes one for a log that has no entries yet.
// It never makes one for a log that has: the log would have two identities.
func loadKey(dir, origin string, empty bool) (note.Signer, string, error) {
	path := filepath.Join(dir, KeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !empty {
			return nil, "", fmt.Errorf("the log's key %s is missing, and the log has entries that it signed: restore it from the backup", path)
		}
		skey, _, err := note.GenerateKey(rand.Reader, origin)
		if err != nil {
			return nil, "", fmt.Errorf("no key can be made for a log with the origin %q: %w", origin, err)
		}
		if err := writeDurably(path, []byte(skey+"\n"), 0o600); err != nil {
			return nil, "", fmt.Errorf("the log's key can't be kept: %w", err)
		}
		text = []byte(skey)
	} else if err != nil {
		return nil, "", fmt.Errorf("the log's key can't be read: %w", err)
	}
	skey := strings.TrimSpace(string(text))
	signer, err := note.NewSigner(skey)
	if err != nil {
		// The error of package note could quote the key.
		return nil, "", fmt.Errorf("%s is not a signed note's private key: restore it from the backup", path)
	}
	if signer.Name() != origin {
		return nil, "", fmt.Errorf("the log's key is of the origin %q and the configuration says %q: a log keeps its origin for life", signer.Name(), origin)
	}
	vkey, err := verifierKey(skey)
	if err != nil {
		return nil, "", err
	}
	vpath := filepath.Join(dir, VKeyFile)
	if have, err := os.ReadFile(vpath); err != nil || strings.TrimSpace(string(have)) != vkey {
		if err := writeDurably(vpath, []byte(vkey+"\n"), 0o644); err != nil {
			return nil, "", fmt.Errorf("the log's public key can't be written: %w", err)
		}
	}
	return signer, vkey, nil
}

// verifierKey derives the public key. NewSigner has checked skey.
func verifierKey(skey string) (string, error) {
	parts := strings.SplitN(skey, "+", 5) // PRIVATE KEY name hash key
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return "", errors.New("the log's key is not an Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(parts[2], public)
}

// writeDurably writes a file that is there whole or not at all.
func writeDurably(path string, data []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := errors.Join(tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return store.SyncDir(filepath.Dir(path))
}
