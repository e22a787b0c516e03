package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// Reread reads one pipeline of a tree as if it said text: what `proviso plan`
// checks a patch with before anybody applies it. What the pipeline refers to is
// read from the tree as it is; a tree that isn't there gives what the text says
// by itself. ok is false when the text is no pipeline or can't be read wholly.
func Reread(root, file, text string) (paths []Path, ok bool) {
	decoded, err := decodeText([]byte(text))
	if err != nil {
		return nil, false
	}
	opt := Options{MaxBytes: defaultMaxBytes, MaxFiles: defaultMaxFiles}
	t := newTree(root, opt)
	if root == "" {
		t.root = filepath.Join("testdata", "no", "such", "tree")
	}
	if dir, err := os.OpenRoot(t.root); err == nil {
		t.dir = dir
		defer func() { _ = dir.Close() }() // it was only read
	}
	if abs, err := filepath.Abs(t.root); err == nil {
		t.above = filepath.ToSlash(abs)
	}
	ci := recognise(t.above+"/"+file, decoded)
	if ci == "" {
		return nil, false
	}
	hash := sha256.Sum256([]byte(text))
	res := t.parse(&source{path: file, text: decoded, hash: hex.EncodeToString(hash[:]), repo: repoOf(file)}, ci, &looks{tree: t, file: file})
	join([]*result{res})
	inv := &Inventory{Paths: res.paths}
	inv.sortDocument()
	inv.number()
	return inv.Paths, res.file.Status == StatusRead
}
