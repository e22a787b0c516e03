//go:build !linux

package evidence

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"
)

func openTPM(string) (transport.TPMCloser, error) {
	return nil, errors.New("a TPM is read on Linux only")
}
