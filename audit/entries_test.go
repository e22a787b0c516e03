package audit

import (
	"os"
	"slices"
	"testing"
)

// Entries gives every entry of a copy in order, and stops with an error where
// the copy ends before its checkpoint, is torn, or is no log at all.
func TestEntries(t *testing.T) {
	count := func(src Source) (n int64, err error) {
		for s, bad := range Entries(t.Context(), src) {
			if bad != nil {
				return n, bad
			}
			if s.Index != n || s.Decision == "" {
				t.Fatalf("entry %d came as %d: %+v", n, s.Index, s)
			}
			n++
		}
		return n, nil
	}
	fresh := export(t)
	if n, err := count(DirSource(fresh(t).dir)); n != 700 || err != nil {
		t.Errorf("%d entries, %v", n, err)
	}
	for name, c := range map[string]struct {
		tamper func(x *exported)
		before int64
	}{
		"a whole bundle gone":  {func(x *exported) { os.Remove(x.file(resource{entriesLevel, 1, tileWidth})) }, 256},
		"the last of a bundle": {func(x *exported) { x.bundle(0, func(l [][]byte) [][]byte { return l[:255] }) }, 255},
		"the last entry torn":  {func(x *exported) { x.tear(resource{entriesLevel, 2, 188}, 1) }, 699},
		"an entry that is no JSON": {func(x *exported) {
			x.bundle(1, func(l [][]byte) [][]byte { return slices.Replace(l, 44, 45, []byte("{")) })
		}, 300},
		"no checkpoint":         {func(x *exported) { os.Remove(x.dir + "/checkpoint") }, 0},
		"a checkpoint of words": {func(x *exported) { os.WriteFile(x.dir+"/checkpoint", []byte("a\nb\nc\n"), 0o600) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			x := fresh(t)
			c.tamper(x)
			n, err := count(DirSource(x.dir))
			if err == nil || n != c.before {
				t.Errorf("%d entries and %v, want an error behind %d", n, err, c.before)
			}
		})
	}
	for range Entries(t.Context(), DirSource(fresh(t).dir)) {
		break // a reader that has enough
	}
}
