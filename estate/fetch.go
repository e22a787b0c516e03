package estate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds of one repository.
const (
	maxTreeList = 64 << 20  // of the list of its files
	maxFiles    = 20_000    // definitions that are written
	maxFile     = 4 << 20   // bytes of one, as package inventory reads it
	maxWritten  = 256 << 20 // bytes of all
)

// fetched is what one repository gave.
type fetched struct {
	Commit   string    `json:"commit"`
	Stamp    string    `json:"stamp,omitempty"`
	URL      string    `json:"url"`
	Files    int       `json:"files"`
	At       time.Time `json:"at"`
	Failures []Failure `json:"failures,omitempty"`
}

// blob is a file of a commit.
type blob struct{ id, path string }

// fetch brings the definitions of one repository into the tree: the commit and
// the directories first, without any content, then the wanted files at once. A
// server that can't leave content out sends all of it, within the bound.
func (e *Estate) fetch(ctx context.Context, r Repository, known *fetched) (*fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout())
	defer cancel()
	g := &git{dir: filepath.Join(e.dir, "git", filepath.FromSlash(r.Name)+".git"), home: filepath.Join(e.dir, "home"), url: r.URL, maxBytes: e.maxBytes()}
	if t, ok := e.Tokens[hostOf(r.URL)]; ok {
		g.token, g.user = t.Token, first(t.User, "x-access-token")
	}
	if _, err := os.Stat(filepath.Join(g.dir, "HEAD")); err != nil {
		if err := os.MkdirAll(filepath.Dir(g.dir), 0o700); err != nil {
			return nil, err
		}
		if _, err := g.run(ctx, 4<<10, "", "init", "-q", "--bare"); err != nil {
			return nil, err
		}
	}
	if _, err := g.run(ctx, 4<<10, "", "fetch", "-q", "--depth=1", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "origin", "+HEAD:refs/proviso/head"); err != nil {
		if errors.Is(err, errTooLarge) {
			_ = os.RemoveAll(g.dir) // half of it is of no use
		}
		return nil, err
	}
	head, err := g.run(ctx, 4<<10, "", "rev-parse", "--verify", "refs/proviso/head")
	if err != nil {
		return nil, err
	}
	got := &fetched{Commit: strings.TrimSpace(string(head)), Stamp: r.Stamp, URL: r.URL, At: e.clock().Now().UTC()}
	if known != nil && known.Commit == got.Commit && known.URL == r.URL && e.hasTree(r) {
		got.Files, got.Failures = known.Files, known.Failures
		return got, nil
	}
	list, err := g.run(ctx, maxTreeList, "", "ls-tree", "-r", "-z", "--full-tree", "refs/proviso/head")
	if err != nil {
		return nil, err
	}
	blobs := e.wanted(r, list, got)
	return got, e.write(ctx, g, r, blobs, got)
}

// wanted picks the files that can be definitions out of a listing of a commit.
func (e *Estate) wanted(r Repository, list []byte, got *fetched) []blob {
	var out []blob
	fail := func(name, kind, why string) {
		if len(got.Failures) < 100 {
			got.Failures = append(got.Failures, Failure{r.Name, shown(name), kind, why})
		}
	}
	for _, entry := range bytes.Split(list, []byte{0}) {
		meta, name, ok := strings.Cut(string(entry), "\t")
		fields := strings.Fields(meta)
		if !ok || len(fields) != 3 || !e.Want(path.Base(name)) {
			continue
		}
		switch {
		case fields[0] == "120000":
			fail(name, "symbolic link", "a symbolic link in a repository is not followed")
		case fields[1] != "blob":
		case !safePath(name):
			fail(name, "file name", "the name could lead out of the directory, and was not written")
		case len(out) >= maxFiles:
			fail(name, "too many files", fmt.Sprintf("only the first %d files were taken", maxFiles))
			return out
		default:
			out = append(out, blob{fields[2], name})
		}
	}
	return out
}

// write fetches the content of the files and puts them into the tree, first
// beside it: a run that is interrupted leaves the tree of the last one.
func (e *Estate) write(ctx context.Context, g *git, r Repository, blobs []blob, got *fetched) (err error) {
	fresh := filepath.Join(e.dir, "new", filepath.FromSlash(r.Name))
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o700)); err != nil {
		return err
	}
	if len(blobs) > 0 {
		var ids strings.Builder
		for _, b := range blobs {
			ids.WriteString(b.id + "\n")
		}
		_, err := g.run(ctx, 4<<10, ids.String(), "fetch", "-q", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--stdin", "origin")
		var failed *gitError
		switch {
		case errors.Is(err, errTooLarge):
			_ = os.RemoveAll(g.dir)
			return err
		case err != nil && !errors.As(err, &failed): // a server that doesn't hand out single files has sent them before
			return err
		}
		if blobs, err = e.fitting(ctx, g, r, blobs, ids.String(), got); err != nil {
			return err
		}
		ids.Reset()
		for _, b := range blobs {
			ids.WriteString(b.id + "\n")
		}
		content, err := g.run(ctx, maxWritten+maxTreeList, ids.String(), "cat-file", "--batch")
		if err != nil {
			return err
		}
		root, err := os.OpenRoot(fresh)
		if err != nil {
			return err
		}
		if err := errors.Join(writeBlobs(root, content, blobs, got), root.Close()); err != nil {
			return err
		}
	}
	if err := sayOrigin(fresh, r.URL); err != nil {
		return err
	}
	to := e.treeOf(r)
	if err := errors.Join(os.RemoveAll(to), os.MkdirAll(filepath.Dir(to), 0o700)); err != nil {
		return err
	}
	return os.Rename(fresh, to)
}

// sayOrigin writes whose files these are, as a clone does: who reads the tree
// looks for the remote there. No git ever runs in it.
func sayOrigin(dir, url string) error {
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ".git", "config"), []byte("[remote \"origin\"]\n\turl = \""+url+"\"\n"), 0o600)
}

// fitting leaves out files that are too large, each with its name.
func (e *Estate) fitting(ctx context.Context, g *git, r Repository, blobs []blob, ids string, got *fetched) ([]blob, error) {
	sizes, err := g.run(ctx, maxTreeList, ids, "cat-file", "--batch-check=%(objectname) %(objectsize)")
	if err != nil {
		return nil, err
	}
	var out []blob
	var sum int64
	for i, line := range strings.Split(strings.TrimSpace(string(sizes)), "\n") {
		id, text, _ := strings.Cut(line, " ")
		if i >= len(blobs) || id != blobs[i].id {
			return nil, errors.New("git cat-file answers something else than it was asked for")
		}
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("git cat-file does not have %s", shown(blobs[i].path))
		}
		switch sum += size; {
		case size > maxFile, sum > maxWritten:
			sum -= size
			if len(got.Failures) < 100 {
				got.Failures = append(got.Failures, Failure{r.Name, shown(blobs[i].path), "large file", fmt.Sprintf("it has %d bytes; one file may have %d, all of a repository %d", size, int64(maxFile), int64(maxWritten))})
			}
		default:
			out = append(out, blobs[i])
		}
	}
	return out, nil
}

// writeBlobs takes the answer of cat-file apart: "id blob size\n" content "\n".
func writeBlobs(root *os.Root, content []byte, blobs []blob, got *fetched) error {
	in := bufio.NewReader(bytes.NewReader(content))
	for _, b := range blobs {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("git cat-file ended early at %s", shown(b.path))
		}
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != b.id || fields[1] != "blob" {
			return fmt.Errorf("git cat-file does not have %s", shown(b.path))
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil || size > int64(len(content)) {
			return fmt.Errorf("git cat-file says a size of %q", shown(fields[2]))
		}
		if err := writeFile(root, b.path, io.LimitReader(in, size)); err != nil {
			return err
		}
		if _, err := in.Discard(1); err != nil {
			return fmt.Errorf("git cat-file ended early behind %s", shown(b.path))
		}
		got.Files++
	}
	return nil
}

// writeFile writes below root; os.Root refuses every way out, also by a link.
func writeFile(root *os.Root, name string, content io.Reader) error {
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
