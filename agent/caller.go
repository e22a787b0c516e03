package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc/credentials"
)

// caller is the process at the other end of a connection.
type caller struct {
	pid      int32
	uid, gid uint32
	proc     *os.File // its directory in /proc
}

// AuthType is credentials.AuthInfo's.
func (c *caller) AuthType() string { return "unix-peer" }

// is reports whether the caller is a workload. It is asked at each call and not
// once for a connection: a process may have become another program since.
func (c *caller) is(w Workload) (bool, error) {
	if w.UID != nil && *w.UID != int64(c.uid) || w.GID != nil && *w.GID != int64(c.gid) {
		return false, nil
	}
	if w.Path == "" {
		return c.alive(), nil
	}
	wanted, err := os.Stat(w.Path)
	if err != nil {
		return false, fmt.Errorf("the program of the workload %s: %w", w.Name, err)
	}
	got, _, err := c.program()
	if err != nil {
		return false, fmt.Errorf("the caller's program can't be looked up (an agent that isn't root sees its own user's only): %w", err)
	}
	// The same file, not the same name: what a name means depends on the caller's
	// mounts, and a program that was replaced has its old name still.
	return os.SameFile(wanted, got), nil
}

// Bounds of the socket. A job that opens too many connections stands in its own
// user's way only.
const (
	maxConnections        = 1024
	maxConnectionsOfAUser = 128
)

// doorkeeper accepts connections and knows who each is.
type doorkeeper struct {
	*net.UnixListener
	refused func(error)

	mu    sync.Mutex
	all   int
	users map[uint32]int
}

// knownConn is a connection whose caller is known.
type knownConn struct {
	*net.UnixConn
	caller *caller
	once   sync.Once
	leave  func()
}

// Close lets go of the caller.
func (k *knownConn) Close() error {
	err := k.UnixConn.Close()
	k.once.Do(k.leave)
	return err
}

// Accept gives the next connection of a caller that the kernel knows.
func (d *doorkeeper) Accept() (net.Conn, error) {
	for {
		conn, err := d.AcceptUnix()
		if err != nil {
			return nil, err
		}
		c, err := identify(conn)
		if err == nil {
			if err = d.enter(c); err != nil {
				_ = c.proc.Close()
			}
		}
		if err != nil {
			_ = conn.Close()
			d.refused(err)
			continue
		}
		return &knownConn{UnixConn: conn, caller: c, leave: func() { d.left(c) }}, nil
	}
}

func (d *doorkeeper) enter(c *caller) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= maxConnections || d.users[c.uid] >= maxConnectionsOfAUser {
		return fmt.Errorf("the user %d has %d connections, of %d in all: no more are taken", c.uid, d.users[c.uid], d.all)
	}
	d.all++
	d.users[c.uid]++
	return nil
}

func (d *doorkeeper) left(c *caller) {
	_ = c.proc.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.users[c.uid]--; d.users[c.uid] == 0 {
		delete(d.users, c.uid)
	}
}

// listen opens the socket, for every user of the machine: who calls is judged,
// not who can. Its directory is the agent's own, so that nobody else can put a
// socket of theirs in its place.
func listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("the socket's directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 && info.Mode()&os.ModeSticky == 0 {
		return nil, fmt.Errorf("the socket's directory %s has mode %#o: others could replace the socket; chmod it to 0755", dir, perm)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there, and is no socket", path)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("somebody serves on %s already; stop that agent first", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o777); err != nil { // #nosec G302 -- every user may ask; who gets what is decided by peer credentials
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// peers are the gRPC transport credentials of the socket: no encryption, which a
// Unix socket doesn't need, and the kernel's word for who calls.
type peers struct{}

func (peers) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	k, ok := conn.(*knownConn)
	if !ok {
		return nil, nil, errors.New("a connection without a caller")
	}
	return conn, k.caller, nil
}

func (peers) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the agent is nobody's client")
}
func (peers) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}
func (peers) Clone() credentials.TransportCredentials { return peers{} }
func (peers) OverrideServerName(string) error         { return nil }
