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

// receiptCheck demands that an answer's receipt proves, under the log's public
// key, that exactly this credential was permitted for exactly this grant. key is
// the key itself, or a file that holds it.
func receiptCheck(key, grant string) (func(*proviso.TokenResponse) error, error) {
	if data, err := os.ReadFile(key); err == nil {
		key = strings.TrimSpace(string(data))
	} else if strings.Count(key, "+") < 2 {
		return nil, fmt.Errorf("--log-key is neither a log's public key (name+id+base64) nor a file with one: %w", err)
	}
	if _, err := note.NewVerifier(key); err != nil {
		return nil, errors.New("--log-key is no log's public key (name+id+base64)")
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
