//go:build linux

package inventory

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// A named pipe with the name of a pipeline would block whoever opens it.
func TestANamedPipeIsNotOpened(t *testing.T) {
	dir := plant(t, nil)
	if err := syscall.Mkfifo(filepath.Join(dir, ".gitlab-ci.yml"), 0o644); err != nil {
		t.Fatal(err)
	}
	inv := scanOn(t, dir, Options{})
	if f, ok := unread(inv, ".gitlab-ci.yml"); !ok || !strings.Contains(f.Message, "not a regular file") {
		t.Errorf("the finding is %+v", f)
	}
}

// A directory and a file that may not be opened are findings; what lies beside is read.
func TestWhatMayNotBeOpenedIsSaid(t *testing.T) {
	dir := plant(t, map[string]string{"shut/.travis.yml": "script: echo $SHUT_TOKEN\n", "locked/.drone.yml": "kind: pipeline\n"})
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "shut"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "locked/.drone.yml"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "shut"), 0o755) })
	if os.Geteuid() == 0 {
		// Root may open everything: the walk, which this goroutine does, looks with another user's rights.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
			t.Fatal(errno)
		}
		defer func() { _, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 0, 0, 0) }()
	}
	tr, files, err := openTree(dir, Options{MaxBytes: 1000, MaxFiles: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.dir.Close()
	if len(tr.blind) != 1 || tr.blind[0].File != "shut" || !strings.Contains(tr.blind[0].Message, "permission denied") {
		t.Errorf("what the walk could not look at: %+v", tr.blind)
	}
	if len(files) != 2 {
		t.Errorf("files: %v", files)
	}
	if res, _ := tr.readFile("locked/.drone.yml", false); res == nil || res.file.Status != StatusUnreadable || !strings.Contains(res.file.Detail, "permission denied") {
		t.Errorf("a file without permission: %+v", res)
	}
}
