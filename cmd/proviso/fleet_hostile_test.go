package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// callWorkloadAPI is a program that asks the Workload API who it is: a process
// that a test runs as another user.
func callWorkloadAPI() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "https://db.acme.example"})
	if err != nil {
		fmt.Println(status.Code(err))
		return
	}
	fmt.Println(svid.ID)
}

// Callers that break the Workload API's rules, or only mean harm, get nothing,
// and nobody else loses anything by them.
func TestHostileCallersOfTheWorkloadAPI(t *testing.T) {
	t.Parallel()
	f := newOwnFleet(t, "1h", "")
	f.serveUntil()
	f.write("join.token", f.joinToken("r1"))
	agent := f.agent()
	socket := filepath.Join(f.machine, "agent.sock")
	conn := made(grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	defer conn.Close()
	api := workload.NewSpiffeWorkloadAPIClient(conn)
	good := metadata.Pairs("workload.spiffe.io", "true")
	ask := func(header metadata.MD, req *workload.JWTSVIDRequest) codes.Code {
		_, err := api.FetchJWTSVID(metadata.NewOutgoingContext(t.Context(), header), req)
		return status.Code(err)
	}
	one := &workload.JWTSVIDRequest{Audience: []string{"https://db.acme.example"}}
	for what, c := range map[string]struct {
		header metadata.MD
		req    *workload.JWTSVIDRequest
		want   codes.Code
	}{
		"a good call":        {good, one, codes.OK},
		"no header":          {nil, one, codes.InvalidArgument},
		"another value":      {metadata.Pairs("workload.spiffe.io", "True"), one, codes.InvalidArgument},
		"the header twice":   {metadata.Pairs("workload.spiffe.io", "true", "workload.spiffe.io", "true"), one, codes.InvalidArgument},
		"no audience":        {good, &workload.JWTSVIDRequest{}, codes.InvalidArgument},
		"an empty audience":  {good, &workload.JWTSVIDRequest{Audience: []string{""}}, codes.InvalidArgument},
		"a long audience":    {good, &workload.JWTSVIDRequest{Audience: []string{strings.Repeat("x", 256)}}, codes.InvalidArgument},
		"an unplain one":     {good, &workload.JWTSVIDRequest{Audience: []string{"two words"}}, codes.InvalidArgument},
		"a huge call":        {good, &workload.JWTSVIDRequest{Audience: []string{strings.Repeat("x", 1<<20)}}, codes.ResourceExhausted},
		"another's identity": {good, &workload.JWTSVIDRequest{Audience: one.Audience, SpiffeId: "spiffe://ci.acme.example/region/eu/runner/r1/workload/strangers"}, codes.PermissionDenied},
		"the runner's own":   {good, &workload.JWTSVIDRequest{Audience: one.Audience, SpiffeId: "spiffe://ci.acme.example/region/eu/runner/r1"}, codes.PermissionDenied},
	} {
		if got := ask(c.header, c.req); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	stream := made(api.FetchX509SVID(t.Context(), &workload.X509SVIDRequest{}))(t)
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a stream without the header: %v", err)
	}
	for what, svid := range map[string]string{"nothing": "", "no token": "x", "an unsigned token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzcGlmZmU6Ly9jaS5hY21lLmV4YW1wbGUvYSJ9."} {
		_, err := api.ValidateJWTSVID(metadata.NewOutgoingContext(t.Context(), good), &workload.ValidateJWTSVIDRequest{Audience: "a", Svid: svid})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("validation of %s: %v", what, err)
		}
	}

	// Noise, and a crowd of connections, from a user of the machine.
	noise := made(net.Dial("unix", socket))(t)
	_, _ = noise.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("\x00", 4096)))
	_, _ = io.Copy(io.Discard, noise) // until it is closed
	_ = noise.Close()
	var crowd []net.Conn
	for range 300 {
		if c, err := net.Dial("unix", socket); err == nil {
			crowd = append(crowd, c)
		}
	}
	if got := ask(good, one); got != codes.OK { // on its own connection, from before
		t.Errorf("in a crowd: %s", got)
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	eventually(t, "there is room after the crowd", func() bool { _, err := f.fetchX509(); return err == nil })
	f.otherUsersAreOthers(socket)
	select {
	case <-agent.exited:
		t.Error("the agent has ended")
	default:
	}
}

// otherUsersAreOthers: a process of another user is another workload, or none.
// Only root can be somebody else; elsewhere nothing is checked, and it is said.
func (f *ownFleet) otherUsersAreOthers(socket string) {
	t := f.t
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("only root can run a process as another user: not looked at")
		return
	}
	for _, dir := range []string{f.dir, filepath.Dir(f.dir)} {
		noError(t, os.Chmod(dir, 0o755))
	}
	program := filepath.Join(f.dir, "svid")
	noError(t, os.WriteFile(program, made(os.ReadFile(made(exec.LookPath("svid"))(t)))(t), 0o755))
	for user, want := range map[uint32]string{
		4711: "spiffe://ci.acme.example/region/eu/runner/r1/workload/strangers",
		4712: "PermissionDenied",
		0:    "PermissionDenied", // root, but with another program
	} {
		cmd := exec.Command(program)
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET=unix://"+socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("the user %d: %v %s, want %s", user, err, out, want)
		}
	}
}
