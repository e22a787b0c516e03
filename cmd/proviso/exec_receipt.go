package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
)

// logKey reads a log's public key: the key itself, or a file that holds it.
func logKey(flag, key string) (string, error) {
	if data, err := os.ReadFile(key); err == nil {
		key = string(data)
	} else if strings.Count(key, "+") < 2 {
		return "", fmt.Errorf("%s is neither a log's public key (name+id+base64, as proviso audit key prints it) nor a file with one: %w", flag, err)
	}
	key = strings.TrimSpace(key)
	if _, err := note.NewVerifier(key); err != nil {
		return "", fmt.Errorf("%s is no log's public key (name+id+base64), as proviso audit key prints it", flag)
	}
	return key, nil
}

// receiptCheck demands that an answer's receipt proves, under the log's public
// key, that exactly this credential was permitted for exactly this grant. key is
// as logKey takes it.
func receiptCheck(key, grant string) (func(*proviso.TokenResponse) error, error) {
	key, err := logKey("--log-key", key)
	if err != nil {
		return nil, err
	}
	return func(resp *proviso.TokenResponse) error {
		receipt, err := audit.ParseReceipt(resp.Proviso.Receipt)
		if err != nil {
			return err
		}
		s, err := audit.VerifyReceipt(receipt, key)
		switch {
		case err != nil:
			return err
		case s.Decision != resp.Proviso.Decision || s.Result != "allowed":
			return fmt.Errorf("it is for decision %s (%s)", s.Decision, s.Result)
		case s.Grant != grant:
			return fmt.Errorf("it is for the grant %s", s.Grant)
		case s.Credential == "" || s.Credential != resp.Proviso.Credential.ID:
			return errors.New("it is for another credential")
		}
		return nil
	}, nil
}
