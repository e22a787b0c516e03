package audit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	proviso "github.com/proviso-ci/proviso"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxNote bounds a signed checkpoint: room for dozens of witnesses.
const maxNote = 64 << 10

// tree is a state of the log that somebody vouches for.
type tree struct {
	size int64
	root tlog.Hash
}

// signCheckpoint signs a C2SP tlog-checkpoint.
func signCheckpoint(signer note.Signer, t tree) ([]byte, error) {
	return note.Sign(&note.Note{Text: checkpointText(signer.Name(), t)}, signer)
}

func checkpointText(origin string, t tree) string {
	return origin + "\n" + strconv.FormatInt(t.size, 10) + "\n" + t.root.String() + "\n"
}

// newVerifier reads a public key as signed notes spell it.
func newVerifier(vkey string) (note.Verifier, error) {
	v, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		return nil, fmt.Errorf("%q is not the public key of a log: it looks like NAME+HASH+KEY, and stands in the file %s beside the log's store", vkey, VKeyFile)
	}
	return v, nil
}

// openCheckpoint verifies a signed checkpoint and reads it. Signatures of
// others, as of witnesses, may stand beside the log's own; they count for
// nothing here.
func openCheckpoint(text []byte, v note.Verifier) (tree, *Finding) {
	if len(text) > maxNote {
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint has %d bytes, at most %d are read", len(text), maxNote)
	}
	n, err := note.Open(text, note.VerifierList(v))
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		return tree{}, found(proviso.CodeSignature, -1, "the checkpoint is signed, but not by the key %s", v.Name())
	case errors.As(err, &invalid):
		return tree{}, found(proviso.CodeSignature, -1, "the checkpoint does not bear the signature of the key %s: it was altered, or signed with another key", v.Name())
	case err != nil:
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint is not a signed note")
	}
	return parseCheckpoint(n.Text, v.Name())
}

// parseCheckpoint reads a checkpoint's text, which the log signed: what is
// wrong with it now is not somebody else's doing, and is refused all the same.
func parseCheckpoint(text, origin string) (tree, *Finding) {
	lines := strings.SplitN(text, "\n", 4)
	if len(lines) < 4 || lines[3] != "" {
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint does not have the three lines origin, size, and root hash")
	}
	if lines[0] != origin {
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint is of the log %q, not of %q", lines[0], origin)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint's size is not a number")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil || root.String() != lines[2] {
		return tree{}, found(proviso.CodeCheckpointFormat, -1, "the checkpoint's root hash is not 32 bytes in base64")
	}
	return tree{size, root}, nil
}

// Finding is what a verification has found to be wrong.
type Finding struct {
	Code proviso.Code
	// Index is the first entry that is concerned, -1 where the finding is about
	// none in particular. Last is the last that may be; mostly the same.
	Index, Last int64
	Text        string
}

// ExitCode is the exit code of a program that found this.
func (f *Finding) ExitCode() int { return 1 }

func found(code proviso.Code, index int64, text string, args ...any) *Finding {
	return &Finding{Code: code, Index: index, Last: index, Text: fmt.Sprintf(text, args...)}
}

// Error says which entry is concerned, and what is wrong.
func (f *Finding) Error() string {
	switch {
	case f.Index < 0:
		return fmt.Sprintf("%s: %s", f.Code, f.Text)
	case f.Index == f.Last:
		return fmt.Sprintf("%s at entry %d: %s", f.Code, f.Index, f.Text)
	default:
		return fmt.Sprintf("%s within entries %d to %d: %s", f.Code, f.Index, f.Last, f.Text)
	}
}
