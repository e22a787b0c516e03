package agent

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/pass"
)

// stateFile holds the runner's key and SVID, so that a restart needs no join.
const stateFile = "runner.pem"

// machineFile holds the key that the machine joins with where its evidence counts
// only with one, each time the same: the broker remembers it.
const machineFile = "machine.pem"

// joinKey gives the key of the SVID that the runner joins for. It is made anew,
// but for evidence that is tied to the key that came with it first.
func (a *Agent) joinKey(kind string) (crypto.Signer, error) {
	if !evidence.NeedsKey(kind) {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	key, err := pass.KeptKey(filepath.Join(a.keys(), machineFile), func(data []byte) error {
		return pass.WriteSecret(a.keys(), machineFile, data)
	})
	if err != nil {
		return nil, fmt.Errorf("the machine's key: %w", err)
	}
	return key, nil
}

// keys is the directory that only the agent's user may enter. It lies below
// State, which others must be able to pass on their way to the socket.
func (a *Agent) keys() string { return filepath.Join(a.cfg.State, "keys") }

// loadState reads what an earlier run left. An SVID that has ended is nothing; a
// file that can't be what it was written as is an error, and not a new join: it
// may be a sign of something worse.
func (a *Agent) loadState() error {
	data, err := pass.ReadSecret(filepath.Join(a.keys(), stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte("-----BEGIN CERTIFICATE-----"))
	if at < 0 {
		return fmt.Errorf("%s in %s is not what the agent wrote; remove it and join anew", stateFile, a.keys())
	}
	key, err := pass.ParsePrivateKey(data[:at])
	if err != nil {
		return fmt.Errorf("%s in %s: %w; remove it and join anew", stateFile, a.keys(), err)
	}
	own, err := readSVID(data[at:], key, a.now())
	if err != nil {
		a.log.Warn("the SVID of an earlier run is not used", "error", err)
		return nil
	}
	a.log.Info("the SVID of an earlier run is used", "spiffe_id", own.id.String(), "until", own.cert.NotAfter)
	a.own = own
	return nil
}

// saveState writes the state in one step.
func (a *Agent) saveState(own *svid) error {
	key, err := pass.MarshalPrivateKey(own.key)
	if err != nil {
		return err
	}
	data := append(key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.cert.Raw})...)
	const next = ".next-" + stateFile
	if err := os.Remove(filepath.Join(a.keys(), next)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := pass.WriteSecret(a.keys(), next, data); err != nil {
		return fmt.Errorf("the runner's key can't be kept: %w", err)
	}
	return os.Rename(filepath.Join(a.keys(), next), filepath.Join(a.keys(), stateFile))
}

func (a *Agent) dropState() error {
	err := os.Remove(filepath.Join(a.keys(), stateFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
