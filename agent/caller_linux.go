package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// SO_PEERPIDFD and pidfd_send_signal have these numbers on every architecture
// that Proviso is built for; where the kernel knows them not, it says so.
const (
	soPeerPIDFD     = 77
	pidfdSendSignal = 424
)

// identify asks the kernel who is at the other end of a connection.
//
// The process is held by its directory in /proc, opened now: it goes on meaning
// this process, and nothing once it has ended, even when its number is given to
// another. That the directory is the one of who connected, and not of somebody
// who got the number in between, is known by the process' own descriptor from
// the socket: it is asked after the directory was opened whether its process
// still lives. Kernels before 6.5 have no such descriptor; there the directory
// must belong to the user who connected.
func identify(conn *net.UnixConn) (*caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &caller{}
	pidfd := -1
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		c.pid, c.uid, c.gid = cred.Pid, cred.Uid, cred.Gid
		if n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, soPeerPIDFD); err == nil {
			pidfd = n
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if pidfd >= 0 {
		defer func() { _ = syscall.Close(pidfd) }()
	}
	if c.pid <= 0 {
		return nil, errors.New("the caller's process is not of this PID namespace")
	}
	if c.proc, err = os.Open("/proc/" + strconv.Itoa(int(c.pid))); err != nil {
		return nil, fmt.Errorf("the caller has gone: %w", err)
	}
	if err := c.confirm(pidfd); err != nil {
		_ = c.proc.Close()
		return nil, err
	}
	return c, nil
}

func (c *caller) confirm(pidfd int) error {
	if pidfd >= 0 {
		if _, _, errno := syscall.RawSyscall6(pidfdSendSignal, uintptr(pidfd), 0, 0, 0, 0, 0); errno == syscall.ESRCH {
			return errors.New("the caller has gone")
		} else if errno == 0 || errno == syscall.EPERM { // EPERM: it lives, and is another user's
			return nil
		}
	}
	info, err := c.proc.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != c.uid {
		return errors.New("the caller's process belongs to another user than it connected as")
	}
	return nil
}

// program gives the file of the program that the caller runs now, and its name
// for the log.
func (c *caller) program() (os.FileInfo, string, error) {
	exe := fmt.Sprintf("/proc/self/fd/%d/exe", c.proc.Fd())
	info, err := os.Stat(exe)
	if err != nil {
		return nil, "", err
	}
	name, err := os.Readlink(exe)
	return info, name, err
}

// alive reports whether the caller still runs.
func (c *caller) alive() bool {
	_, err := os.Lstat(fmt.Sprintf("/proc/self/fd/%d/exe", c.proc.Fd()))
	return err == nil || errors.Is(err, os.ErrPermission)
}
