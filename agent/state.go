package agent

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/proviso-ci/proviso/pass"
)

// stateFile holds the runner's key and SVID, so that a restart needs no join.
const stateFile = "runner.pem"

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
