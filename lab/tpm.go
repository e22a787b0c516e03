package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// TPM is a software TPM 2.0 (swtpm) on a Unix socket: every command of a real
// one, on no real hardware.
type TPM struct {
	socket string
	dir    string
	cmd    *exec.Cmd
	done   chan struct{}
	output bytes.Buffer
}

// NewTPM starts a TPM with fresh seeds. The program swtpm must be installed.
func NewTPM() (*TPM, error) {
	dir, err := os.MkdirTemp("", "lab-tpm-")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	t := &TPM{dir: dir, socket: filepath.Join(dir, "tpm.sock"), done: make(chan struct{})}
	t.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+t.socket,
		"--ctrl", "type=unixio,path="+filepath.Join(dir, "ctrl.sock"), "--flags", "not-need-init,startup-clear") // #nosec G204 -- our own paths
	t.cmd.Stdout, t.cmd.Stderr = &t.output, &t.output
	if err := t.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), os.RemoveAll(dir))
	}
	go func() {
		defer close(t.done)
		_ = t.cmd.Wait() // always killed
	}()
	for begun := time.Now(); time.Since(begun) < 10*time.Second; {
		// Bound isn't listening yet: only a connection shows it.
		if conn, err := net.Dial("unix", t.socket); err == nil {
			return t, conn.Close()
		}
		select {
		case <-t.done:
			return nil, errors.Join(fmt.Errorf("lab: swtpm ended: %s", t.output.String()), os.RemoveAll(dir))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil, errors.Join(errors.New("lab: swtpm doesn't answer"), t.Close())
}

// Socket is where the TPM answers.
func (t *TPM) Socket() string { return t.socket }

// Close ends the TPM and forgets its seeds.
func (t *TPM) Close() error {
	err := t.cmd.Process.Kill()
	<-t.done
	return errors.Join(err, os.RemoveAll(t.dir))
}
