package agent

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// connectAndEnd makes the test's own program a process that connects to a
// socket, says so, and ends.
const connectAndEnd = "PROVISO_AGENT_TEST_CONNECT"

func TestMain(m *testing.M) {
	if path := os.Getenv(connectAndEnd); path != "" {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_, err = io.WriteString(conn, "hello")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0) // the connection waits in the kernel, its process is gone
	}
	os.Exit(m.Run())
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// door opens a socket and keeps what it refuses.
func door(t *testing.T) (d *doorkeeper, path string, refused chan error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "agent.sock")
	refused = make(chan error, 1024)
	d = &doorkeeper{UnixListener: must[*net.UnixListener](t)(listen(path)), users: map[uint32]int{}, refused: func(err error) { refused <- err }}
	t.Cleanup(func() { _ = d.Close() })
	return d, path, refused
}

func number(n int) *int64 { return new(int64(n)) }

// Who calls is what the kernel says: user, group, and the file of the program.
func TestACallerIsWhoTheKernelSays(t *testing.T) {
	d, path, _ := door(t)
	client := must[net.Conn](t)(net.Dial("unix", path))
	defer client.Close()
	conn := must[net.Conn](t)(d.Accept())
	defer conn.Close()
	c := conn.(*knownConn).caller
	if int(c.pid) != os.Getpid() || int(c.uid) != os.Getuid() || int(c.gid) != os.Getgid() {
		t.Fatalf("%+v", c)
	}
	self := must[string](t)(os.Executable())
	link := filepath.Join(t.TempDir(), "link")
	copied := filepath.Join(t.TempDir(), filepath.Base(self))
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, must[[]byte](t)(os.ReadFile(self)), 0o755); err != nil {
		t.Fatal(err)
	}
	uid, gid, other := number(os.Getuid()), number(os.Getgid()), number(os.Getuid()+1)
	for what, test := range map[string]struct {
		w  Workload
		is bool
	}{
		"its user":                     {Workload{UID: uid}, true},
		"its group":                    {Workload{GID: gid}, true},
		"its program":                  {Workload{Path: self}, true},
		"its program, by a link":       {Workload{Path: link}, true},
		"all of them":                  {Workload{UID: uid, GID: gid, Path: self}, true},
		"another user":                 {Workload{UID: other}, false},
		"another group":                {Workload{GID: other}, false},
		"another user, its program":    {Workload{UID: other, Path: self}, false},
		"its user, a copy":             {Workload{UID: uid, Path: copied}, false},
		"its user, another program":    {Workload{UID: uid, Path: "/bin/sh"}, false},
		"its user, a file that is not": {Workload{UID: uid, Path: copied + ".not"}, false},
		"its user, a directory":        {Workload{UID: uid, Path: t.TempDir()}, false},
	} {
		if is, err := c.is(test.w); is != test.is || is && err != nil {
			t.Errorf("%s: %v %v", what, is, err)
		}
	}
}

// A process that has ended is nobody, whoever gets its number next.
func TestACallerThatIsGoneIsNobody(t *testing.T) {
	d, path, refused := door(t)
	child := exec.Command(must[string](t)(os.Executable()))
	child.Env = append(os.Environ(), connectAndEnd+"="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	client := must[net.Conn](t)(net.Dial("unix", path)) // the one who comes after it
	defer client.Close()
	conn := must[net.Conn](t)(d.Accept())
	defer conn.Close()
	if int(conn.(*knownConn).caller.pid) != os.Getpid() {
		t.Error("the dead process was let in")
	}
	select {
	case err := <-refused:
		if !strings.Contains(err.Error(), "gone") {
			t.Error(err)
		}
	default:
		t.Error("nothing was said of the dead process")
	}

	// One that ends after it was let in is no workload any more.
	cat := exec.Command("cat")
	stdin := must[io.WriteCloser](t)(cat.StdinPipe())
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	c := &caller{pid: int32(cat.Process.Pid), uid: uint32(os.Getuid()), proc: must[*os.File](t)(os.Open(fmt.Sprintf("/proc/%d", cat.Process.Pid)))}
	defer c.proc.Close()
	w := Workload{UID: number(os.Getuid())}
	if is, err := c.is(w); !is || err != nil {
		t.Errorf("while it lives: %v %v", is, err)
	}
	_ = stdin.Close()
	_ = cat.Wait()
	if is, _ := c.is(w); is {
		t.Error("a process that has ended is a workload")
	}
}

// One user's connections are bounded, and those that end make room.
func TestOneUserCantTakeAllConnections(t *testing.T) {
	d, path, refused := door(t)
	accepted := make(chan net.Conn, 2*maxConnectionsOfAUser)
	go func() {
		for {
			conn, err := d.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	var clients, servers []net.Conn
	for range maxConnectionsOfAUser {
		clients = append(clients, must[net.Conn](t)(net.Dial("unix", path)))
		servers = append(servers, <-accepted)
	}
	extra := must[net.Conn](t)(net.Dial("unix", path))
	if err := <-refused; !strings.Contains(err.Error(), "no more are taken") {
		t.Error(err)
	}
	if _, err := extra.Read(make([]byte, 1)); err == nil {
		t.Error("one too many was let in")
	}
	_ = servers[0].Close()
	_ = servers[0].Close() // twice counts once
	clients = append(clients, must[net.Conn](t)(net.Dial("unix", path)))
	servers = append(servers, <-accepted)
	for _, c := range append(clients, servers...) {
		_ = c.Close()
	}
	_ = d.Close()
	for conn := range accepted {
		_ = conn.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all != 0 || len(d.users) != 0 {
		t.Errorf("%d connections are still counted, of %v", d.all, d.users)
	}
}

// The socket is not opened where somebody else could put another in its place,
// nor over something that isn't a left-over socket.
func TestWhereTheSocketIsOpened(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(filepath.Join(open, "agent.sock")); err == nil || !strings.Contains(err.Error(), "could replace") {
		t.Errorf("a directory for all: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(filepath.Join(dir, "file")); err == nil {
		t.Error("over a file")
	}
	path := filepath.Join(dir, "agent.sock")
	first := must[*net.UnixListener](t)(listen(path))
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("over an agent: %v", err)
	}
	first.SetUnlinkOnClose(false)
	_ = first.Close()
	second := must[*net.UnixListener](t)(listen(path)) // what a killed agent left
	_ = second.Close()
}

func TestConfigurationsThatCantBe(t *testing.T) {
	good := Config{Broker: "https://proviso.example.com", State: "/var/lib/proviso-runner", Workloads: []Workload{{Name: "ci", UID: number(1001)}}}
	if problems := good.Validate(); len(problems) > 0 {
		t.Fatal(problems)
	}
	for path, spoil := range map[string]func(*Config){
		"broker":            func(c *Config) { c.Broker = "http://proviso.example.com" },
		"state":             func(c *Config) { c.State, c.Socket = "", "/run/a.sock" },
		"socket":            func(c *Config) { c.Socket = "/" + strings.Repeat("x", 103) },
		"evidence":          func(c *Config) { c.Evidence.File = "document" },
		"evidence.kind":     func(c *Config) { c.Evidence.Kind = "word of mouth" },
		"workloads":         func(c *Config) { c.Workloads = nil },
		"workloads[0].name": func(c *Config) { c.Workloads[0].Name = "a/b" },
		"workloads[1].name": func(c *Config) { c.Workloads = append(c.Workloads, c.Workloads[0]) },
		"workloads[0].uid":  func(c *Config) { c.Workloads[0].UID = nil },
		"workloads[0].gid":  func(c *Config) { c.Workloads[0].GID = number(-1) },
		"workloads[0].path": func(c *Config) { c.Workloads[0].Path = "bin/proviso" },
	} {
		c := good
		c.Workloads = append([]Workload{}, good.Workloads...)
		spoil(&c)
		if problems := c.Validate(); len(problems) != 1 || problems[0].Path != path {
			t.Errorf("%s: %v", path, problems)
		}
	}
}

// Every SVID is renewed before half of its life is over.
func TestRenewedBeforeHalf(t *testing.T) {
	for _, life := range []int64{1, 1e9, 5e9, 3600e9, 86400e9} {
		for range 100 {
			if after := renewAfter(durationOf(life)); after*2 >= durationOf(life) && life > 1 || after < durationOf(life)*3/10 {
				t.Fatalf("of %s it is renewed after %s", durationOf(life), after)
			}
		}
	}
}

func durationOf(n int64) time.Duration { return time.Duration(n) }
