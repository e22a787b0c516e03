package inventory

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf16"
	"unicode/utf8"
)

// source is the text of one file with its lines.
type source struct {
	// path is relative to the root of the scan, with slashes.
	path string
	// repo is the directory of the repository that the file is part of, relative to the root; "" is the root.
	repo string
	text string
	hash string
	// starts are the offsets of the lines in text; made on first use.
	starts []int
	// searched counts the bytes that find has looked at.
	searched int
}

// readError says that a file can't be read as text, and where.
type readError struct {
	line int
	why  string
}

func (e *readError) Error() string { return e.why }

// readSource reads a file. It refuses what is not a regular file (a named pipe
// would never end), what is larger than limit, and what is not text. dir
// follows no symbolic link that leads out of it, on any part of the path.
func readSource(dir *os.Root, path string, limit int64) (*source, error) {
	name := filepath.FromSlash(path)
	info, err := dir.Stat(name)
	if err != nil {
		return nil, &readError{why: cantOpen(dir, name, err)}
	}
	if !info.Mode().IsRegular() {
		return nil, &readError{why: "this is not a regular file"}
	}
	if info.Size() > limit {
		return nil, &readError{why: fmt.Sprintf("the file has %d bytes, more than the limit of %d", info.Size(), limit)}
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &readError{why: cantOpen(dir, name, err)}
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, &readError{why: "this is not a regular file any more"}
	}
	raw, err := readAll(f, info.Size(), limit)
	if err != nil {
		return nil, &readError{why: "the file can't be read: " + unwrapPath(err)}
	}
	if int64(len(raw)) > limit {
		return nil, &readError{why: fmt.Sprintf("the file has more than the limit of %d bytes", limit)}
	}
	text, err := decodeText(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return &source{path: path, text: text, hash: hex.EncodeToString(sum[:])}, nil
}

// readAll reads a file to its end, at most one byte beyond the limit; size is what it is said to have.
func readAll(f io.Reader, size, limit int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(size, limit)) + bytes.MinRead) // so much that the buffer needn't grow to notice the end
	_, err := b.ReadFrom(io.LimitReader(f, limit+1))
	return b.Bytes(), err
}

// cantOpen says why a file can't be opened; a symbolic link out of the tree is named as one.
func cantOpen(dir *os.Root, name string, err error) string {
	if strings.Contains(err.Error(), "escapes") {
		return "this is a symbolic link out of the scanned tree; it was not followed"
	}
	if info, lerr := dir.Lstat(name); lerr == nil && info.Mode()&os.ModeSymlink != 0 {
		if errors.Is(err, syscall.ELOOP) {
			return "this is a symbolic link that leads in a circle"
		}
		return "this is a symbolic link that leads nowhere"
	}
	return "the file can't be opened: " + unwrapPath(err)
}

// unwrapPath drops the absolute path from an error of package os.
func unwrapPath(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// decodeText turns the bytes of a file into UTF-8 text: UTF-8 with or without
// a byte order mark, UTF-16 with one, and Latin-1 as a last resort when the
// file has no other sign of being binary.
func decodeText(raw []byte) (string, error) {
	switch {
	case bytes.HasPrefix(raw, []byte{0xEF, 0xBB, 0xBF}):
		raw = raw[3:]
	case bytes.HasPrefix(raw, []byte{0xFF, 0xFE}), bytes.HasPrefix(raw, []byte{0xFE, 0xFF}):
		return decodeUTF16(raw)
	}
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		return "", &readError{line: 1 + bytes.Count(raw[:i], []byte{'\n'}), why: "the file is binary: it holds a zero byte"}
	}
	if utf8.Valid(raw) {
		return strings.ReplaceAll(string(raw), "\r\n", "\n"), nil
	}
	var b strings.Builder
	control := 0
	for i, c := range raw {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != 0x1B && c != '\f' {
			if control++; control > 8 {
				return "", &readError{line: 1 + bytes.Count(raw[:i], []byte{'\n'}), why: "the file is binary: it is neither UTF-8 nor plain text"}
			}
		}
		b.WriteRune(rune(c))
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n"), nil
}

// decodeUTF16 reads UTF-16 with a byte order mark.
func decodeUTF16(raw []byte) (string, error) {
	big := raw[0] == 0xFE
	raw = raw[2:]
	if len(raw)%2 != 0 {
		return "", &readError{line: 1, why: "the file begins like UTF-16 but has an odd number of bytes"}
	}
	units := make([]uint16, len(raw)/2)
	for i := range units {
		if big {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		} else {
			units[i] = uint16(raw[2*i+1])<<8 | uint16(raw[2*i])
		}
	}
	return strings.ReplaceAll(string(utf16.Decode(units)), "\r\n", "\n"), nil
}

// index fills starts.
func (s *source) index() {
	if s.starts != nil {
		return
	}
	s.starts = append(make([]int, 0, 1+strings.Count(s.text, "\n")), 0)
	for i := 0; i < len(s.text); i++ {
		if s.text[i] == '\n' {
			s.starts = append(s.starts, i+1)
		}
	}
}

// line gives the text of a line, counted from 1; "" when there is none.
func (s *source) line(n int) string {
	s.index()
	if n < 1 || n > len(s.starts) {
		return ""
	}
	end := len(s.text)
	if n < len(s.starts) {
		end = s.starts[n] - 1
	}
	return s.text[s.starts[n-1]:end]
}

// find gives the first line from line on, at most span lines further, that
// holds the word; else line itself. Folded and quoted scalars lose their line
// breaks in YAML, so the place of a reference is looked up in the text.
func (s *source) find(line, span int, word string) int {
	s.index()
	if word == "" || line < 1 || line > len(s.starts) {
		return line
	}
	last := min(line+span, len(s.starts))
	from, end := s.starts[line-1], len(s.text)
	if last < len(s.starts) {
		end = s.starts[last]
	}
	if s.searched += end - from; s.searched > maxSearched {
		return line // a file of this kind has no place to point at; the scalar's beginning is near enough
	}
	at := wordAt(s.text[from:end], word)
	if at < 0 {
		return line
	}
	return line + strings.Count(s.text[from:from+at], "\n")
}

// maxSearched bounds how many bytes of one file are searched for the places of references.
const maxSearched = 64 << 20

// containsWord reports whether word stands in text with no letter, digit or underscore around it.
func containsWord(text, word string) bool { return wordAt(text, word) >= 0 }

// wordAt gives the place of a word, -1 when it isn't there.
func wordAt(text, word string) int {
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return -1
		}
		i += from
		end := i + len(word)
		if (i == 0 || !isWordByte(text[i-1]) || !isWordByte(word[0])) && (end == len(text) || !isWordByte(text[end])) {
			return i
		}
		from = i + 1
	}
}

// isWordByte reports whether c can be part of a variable's name.
func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
