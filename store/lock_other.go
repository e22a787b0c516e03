//go:build !unix

package store

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock two brokers could write one log.
func lockFile(string) (*os.File, error) {
	return nil, errors.New("the embedded store needs a Unix system: on this one it can't keep a second process out")
}
