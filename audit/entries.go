package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strconv"
	"strings"

	proviso "github.com/proviso-ci/proviso"
)

// Entries gives the entries of any copy of a log in order, as the copy has
// them: nothing is verified. It is for reports, where the reader holds no key;
// who needs to rely on an entry verifies the log, or a receipt.
func Entries(ctx context.Context, src Source) iter.Seq2[Summary, error] {
	return func(yield func(Summary, error) bool) {
		text, size, err := src.checkpoint(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			yield(Summary{}, errors.New("there is no checkpoint: this is no log, or one without an entry"))
			return
		}
		if err == nil && size < 0 {
			size, err = claimedSize(text)
		}
		for next := int64(0); err == nil && next < size; {
			var groups []group
			if groups, err = src.groups(ctx, next, size); err == nil && len(groups) == 0 {
				err = found(proviso.CodeTruncated, next, "the copy ends before this entry")
			}
			for _, g := range groups {
				if err != nil || g.first != next || g.damaged {
					break
				}
				entries, _ := split(g.bundle)
				for _, e := range entries {
					s, bad := summarise(next, e)
					if next++; bad != nil {
						err = bad
						break
					}
					if !yield(s, nil) {
						return
					}
				}
				if err == nil && next != g.size {
					err = found(proviso.CodeTruncated, next, "the copy has a piece that ends within this entry")
				}
			}
			if err == nil && len(groups) > 0 && (groups[0].first > next || groups[0].damaged) {
				err = found(proviso.CodeTruncated, next, "the copy can't be read from this entry on")
			}
		}
		if err != nil {
			yield(Summary{}, err)
		}
	}
}

// claimedSize reads the size that a checkpoint claims.
func claimedSize(note []byte) (int64, error) {
	lines := strings.SplitN(string(note), "\n", 3)
	if len(lines) == 3 {
		if n, err := strconv.ParseInt(lines[1], 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("the checkpoint has no size in its second line: %.60q", note)
}
