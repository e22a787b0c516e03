package runner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso"
)

// file is a bundle on disk, or of the broker's own authority. It is looked at
// when the bundle is asked for, at most once per interval: whoever comes first
// after that reads it, and nobody waits for them.
type file struct {
	to    *source
	name  string
	read  func() ([]byte, error)
	every time.Duration

	next atomic.Int64 // Unix nanoseconds of the next look

	mu  sync.Mutex
	raw []byte // as it was read last, good or bad; nil to look at it again
}

func newFile(to *source, path string, every time.Duration) *file {
	return newReadable(to, "the file "+path, func() ([]byte, error) { return readFile(path, maxBundle) }, every)
}

func newReadable(to *source, name string, read func() ([]byte, error), every time.Duration) *file {
	f := &file{to: to, name: name, read: read, every: every}
	f.next.Store(to.now().Add(every).UnixNano())
	return f
}

func (f *file) String() string { return f.name }

func (f *file) look() {
	now := f.to.now().UnixNano()
	if due := f.next.Load(); now >= due && f.next.CompareAndSwap(due, now+int64(f.every)) {
		_ = f.reload() // said in the log and in the status; the last good bundle serves
	}
}

func (f *file) run(context.Context) {}

func (f *file) refresh(context.Context) error { return f.reload() }

func (f *file) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := f.read()
	if err != nil {
		f.raw = nil
		return f.to.fail(err)
	}
	if f.raw != nil && bytes.Equal(data, f.raw) {
		return f.unchanged()
	}
	f.raw = data
	if err = f.to.take(data); err != nil && codeOf(err) == proviso.CodeBundleSharedKey {
		f.raw = nil // looked at again: the other bundle may change
	}
	return err
}

// unchanged: the file says what it said before, which was good or wasn't.
func (f *file) unchanged() error {
	f.to.mu.Lock()
	defer f.to.mu.Unlock()
	if f.to.problem == nil {
		f.to.confirm()
	}
	return f.to.problem
}

// readFile reads a regular file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}
