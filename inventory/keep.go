package inventory

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"unicode/utf8"
)

// Keep holds, between scans of one tree, what each file gave. Every file is
// still read and hashed; what is saved is the work on it. A result counts again
// only when the file has the same content, every look of its reader at the rest
// of the tree finds what it found (package file looks.go), the program is the
// same to the byte, and the tree stands in the same place. Its findings count
// again only when besides the paths, which other files can change, are the same.
// Whatever is in doubt is read anew: a stale result would be a path that nobody sees.
//
// A nil Keep keeps nothing.
type Keep struct {
	name string // of the file
	key  string // of the program and the options
	old  map[string]record

	mu  sync.Mutex
	now map[string]*kept
	// same counts the files of this scan whose result counted again.
	same int
}

// record is the line of one file: three pieces of JSON, which are decoded only
// when they are asked for, and written again as they are.
type record struct {
	head []byte // a kept
	// result is a keptResult; empty for a part of another file, which has none of its own.
	result []byte
	// found is a keptFindings, what the rules said.
	found []byte
}

// kept is what a scan keeps of one file.
type kept struct {
	Hash string `json:"sha256"`
	// CI is the system that the file was recognised as; "" is no pipeline.
	CI      CI       `json:"ci,omitempty"`
	Asked   []asked  `json:"asked,omitempty"`
	Claimed []string `json:"claimed,omitempty"`
	// Seen is the digest of what the rules saw; "" when it is not kept what they said.
	Seen string `json:"seen,omitempty"`

	result, found []byte
}

// keptResult is a result before join, which depends on all files.
type keptResult struct {
	File       File         `json:"file"`
	Paths      []Path       `json:"paths,omitempty"`
	Unresolved []Unresolved `json:"unresolved,omitempty"`
	Findings   []Finding    `json:"findings,omitempty"`
	Link       links        `json:"link"`
}

// keptFindings is what rules said of a file, and the identity of each of its paths.
type keptFindings struct {
	Findings   []Finding      `json:"findings,omitempty"`
	Identities []*JobIdentity `json:"identities,omitempty"`
}

// maxKept bounds the file of results.
const maxKept = 2 << 30

// OpenKeep opens the results of earlier scans of a root, which a directory
// holds that only this user may write. Results that are of another program, or
// damaged, are no results. The error is about the directory.
func OpenKeep(dir, root string, opt Options) (*Keep, error) {
	above, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	program, err := programDigest()
	if err != nil {
		return nil, err
	}
	key := stableDigest("results 1", program, filepath.ToSlash(above), strconv.FormatInt(opt.MaxBytes, 10))
	k := &Keep{name: filepath.Join(dir, stableDigest(above)[:32]+".results"), key: key, now: make(map[string]*kept)}
	k.old = k.load()
	return k, nil
}

// private refuses a directory of somebody else, or one that others may write:
// who writes results decides which paths are seen.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(owner.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("inventory: %s has the mode %v; results are kept only in a directory that is yours and that nobody else can write (chmod go-w)", dir, info.Mode().Perm())
	}
	return nil
}

// programDigest names the program: rules and readers change with it.
var programDigest = sync.OnceValues(func() (string, error) {
	name, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
})

// load reads the file of results: a line with the key and the digest of what
// follows, then a line for each file: its name, quoted, and its record, with tabs between.
func (k *Keep) load() map[string]record {
	info, err := os.Stat(k.name)
	if err != nil || info.Size() > maxKept {
		return nil
	}
	data, err := os.ReadFile(k.name)
	if err != nil {
		return nil
	}
	head, rest, _ := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(rest)
	if string(head) != k.key+" "+hex.EncodeToString(sum[:]) {
		return nil
	}
	out := make(map[string]record, bytes.Count(rest, []byte("\n")))
	for line := range bytes.Lines(rest) {
		parts := bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		name, err := strconv.Unquote(string(parts[0]))
		if len(parts) != 4 || err != nil {
			return nil
		}
		out[name] = record{parts[1], parts[2], parts[3]}
	}
	return out
}

// of gives what is kept of a file with this content, nil when nothing is.
func (k *Keep) of(rel, hash string) *kept {
	if k == nil {
		return nil
	}
	r, ok := k.old[rel]
	e := &kept{result: r.result, found: r.found}
	if !ok || json.Unmarshal(r.head, e) != nil || e.Hash != hash {
		return nil
	}
	return e
}

// put keeps what this scan has of a file.
func (k *Keep) put(rel string, e *kept, again bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now[rel] = e
	if again {
		k.same++
	}
}

// system gives what the file was recognised as; known is false when nothing is kept.
func (e *kept) system() (ci CI, known bool) {
	if e == nil {
		return "", false
	}
	return e.CI, true
}

// again gives the result of an earlier scan when it is still right; nil when the file has to be read.
func (e *kept) again(t *tree) *result {
	if e == nil || len(e.result) == 0 || !t.still(e.Asked) {
		return nil
	}
	var r keptResult
	if json.Unmarshal(e.result, &r) != nil {
		return nil
	}
	for _, rel := range e.Claimed {
		t.claim(rel, r.File.File)
	}
	return &result{file: r.File, paths: r.Paths, unresolved: r.Unresolved, findings: r.Findings, link: r.Link}
}

// keepResult keeps what a reader made of a file. What JSON would change is not kept.
func (k *Keep) keepResult(src *source, ci CI, l *looks, r *result) {
	if k == nil {
		return
	}
	k.put(src.path, &kept{
		Hash: src.hash, CI: ci, Asked: l.asked, Claimed: l.claimed,
		result: encode(keptResult{r.file, r.paths, r.unresolved, r.findings, r.link}),
	}, false)
}

// encode gives JSON that decodes to the same value, nil when it would not: a
// text that is no UTF-8 comes back as another.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil || bytes.Contains(data, []byte(`\ufffd`)) {
		return nil
	}
	return data
}

// seenBy digests all that the rules look at.
func seenBy(s *subject, repo repository) string {
	data := encode(struct {
		File       File
		Host, Slug string
		Paths      []*Path
	}{s.file, repo.host, repo.slug, s.paths})
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// settled takes the findings of an earlier scan when the rules would see the
// same; if not, store keeps the new ones.
func (k *Keep) settled(s *subject, repo repository) (done bool, store func()) {
	nothing := func() {}
	if k == nil || s.file.Hash == "" {
		return false, nothing
	}
	k.mu.Lock()
	e := k.now[s.file.File]
	k.mu.Unlock()
	seen := seenBy(s, repo)
	if e == nil || e.Hash != s.file.Hash || seen == "" {
		return false, nothing
	}
	if e.Seen == seen {
		var f keptFindings
		if json.Unmarshal(e.found, &f) == nil && len(f.Identities) == len(s.paths) {
			s.findings = append(s.findings, f.Findings...)
			for i, p := range s.paths {
				p.Repository, p.Identity = repo.slug, f.Identities[i]
			}
			return true, nothing
		}
	}
	return false, func() {
		e.Seen, e.found = "", nil
		if s.failed || s.src == nil || s.src.hash != e.Hash { // it has changed since it was scanned
			return
		}
		f := keptFindings{Findings: s.findings, Identities: make([]*JobIdentity, len(s.paths))}
		for i, p := range s.paths {
			f.Identities[i] = p.Identity
		}
		if e.found = encode(f); e.found != nil {
			e.Seen = seen
		}
	}
}

// Same gives how many files of the scan had not changed, and of how many.
func (k *Keep) Same() (same, of int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.same, len(k.now)
}

// Save writes what the scan has, in one step. Results of files that are gone go with them.
func (k *Keep) Save() (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tmp, err := os.CreateTemp(filepath.Dir(k.name), ".results-")
	if err != nil {
		return fmt.Errorf("inventory: results can't be kept: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("inventory: results can't be kept: %w", errors.Join(err, tmp.Close(), os.Remove(tmp.Name())))
		}
	}()
	head := len(k.key) + 1 + sha256.Size*2 + 1
	if _, err := tmp.Seek(int64(head), io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(tmp, sum), 1<<20)
	for _, name := range sortedKeys(k.now) {
		if !utf8.ValidString(name) {
			continue
		}
		e := k.now[name]
		head, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, _ = w.WriteString(strconv.Quote(name)) // a writer's error comes from Flush
		for _, part := range [][]byte{head, e.result, e.found} {
			_ = w.WriteByte('\t')
			_, _ = w.Write(part)
		}
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if _, err := tmp.WriteAt([]byte(k.key+" "+hex.EncodeToString(sum.Sum(nil))+"\n"), 0); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), k.name)
}
