package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// spire is a real SPIRE: one server and one agent on this machine, with their
// state in a folder, so that both can be stopped and started again.
type spire struct {
	t           *testing.T
	bin, dir    string
	domain      string
	port        string // of the server
	bundlePort  string // of its bundle endpoint
	federates   []federation
	server      *program
	agent       *program
	joinToken   string
	agentSocket string
}

// federation is another trust domain that the server fetches the bundle of.
type federation struct {
	Domain, URL string
	// EndpointID is the SPIFFE ID of an https_spiffe endpoint; empty is https_web.
	EndpointID string
}

const (
	agentTTL = "2m"
	svidTTL  = 24 * time.Second // the agent rotates at half of it
)

var spireServerConf = template.Must(template.New("server").Parse(`server {
  bind_address = "127.0.0.1"
  bind_port = "{{.Port}}"
  socket_path = "{{.Dir}}/server.sock"
  trust_domain = "{{.Domain}}"
  data_dir = "{{.Dir}}/server"
  log_level = "WARN"
  ca_ttl = "1h"
  default_x509_svid_ttl = "5m"
  default_jwt_svid_ttl = "1m"
  federation {
    bundle_endpoint {
      address = "127.0.0.1"
      port = {{.BundlePort}}
    }
{{range .Federates}}    federates_with "{{.Domain}}" {
      bundle_endpoint_url = "{{.URL}}"
{{if .EndpointID}}      bundle_endpoint_profile "https_spiffe" {
        endpoint_spiffe_id = "{{.EndpointID}}"
      }
{{else}}      bundle_endpoint_profile "https_web" {}
{{end}}    }
{{end}}  }
}
plugins {
  DataStore "sql" {
    plugin_data {
      database_type = "sqlite3"
      connection_string = "{{.Dir}}/server/datastore.sqlite3"
    }
  }
  KeyManager "disk" {
    plugin_data {
      keys_path = "{{.Dir}}/server/keys.json"
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
}
`))

var spireAgentConf = template.Must(template.New("agent").Parse(`agent {
  data_dir = "{{.Dir}}/agent"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = "{{.Port}}"
  socket_path = "{{.Dir}}/agent.sock"
  trust_domain = "{{.Domain}}"
  trust_bundle_path = "{{.Dir}}/bootstrap.pem"
{{if .JoinToken}}  join_token = "{{.JoinToken}}"
{{end}}}
plugins {
  KeyManager "disk" {
    plugin_data {
      directory = "{{.Dir}}/agent"
    }
  }
  NodeAttestor "join_token" {
    plugin_data {}
  }
  WorkloadAttestor "unix" {
    plugin_data {}
  }
}
`))

// newSpire starts a server and an agent of a trust domain.
func newSpire(t *testing.T, domain string, federates ...federation) *spire {
	t.Helper()
	s := &spire{t: t, bin: spireBinaries(t), dir: shortDir(t), domain: domain,
		port: freePort(t), bundlePort: freePort(t), federates: federates}
	s.agentSocket = "unix://" + filepath.Join(s.dir, "agent.sock")
	for _, d := range []string{"server", "agent"} {
		must(t, os.MkdirAll(filepath.Join(s.dir, d), 0o700))
	}
	s.startServer()
	must(t, os.WriteFile(filepath.Join(s.dir, "bootstrap.pem"), s.ctl("bundle", "show"), 0o600))
	var token struct{ Value string }
	must(t, json.Unmarshal(s.ctl("token", "generate", "-ttl", "600", "-output", "json"), &token))
	s.joinToken = token.Value
	s.startAgent()
	return s
}

// spireBinaries gives the folder of spire-server and spire-agent.
func spireBinaries(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PROVISO_SPIRE")
	if dir == "" {
		t.Fatal("PROVISO_SPIRE names no folder with spire-server and spire-agent: run these tests with `make peers-test`")
	}
	return dir
}

func (s *spire) startServer() {
	s.t.Helper()
	s.server = s.run("spire-server", "server.conf", spireServerConf)
	s.await("the server", func() bool {
		return exec.Command(filepath.Join(s.bin, "spire-server"), "healthcheck", "-socketPath", filepath.Join(s.dir, "server.sock")).Run() == nil
	}, s.server)
}

func (s *spire) startAgent() {
	s.t.Helper()
	s.agent = s.run("spire-agent", "agent.conf", spireAgentConf)
	s.joinToken = "" // it is good once; from now on the agent's own SVID speaks for it
	s.await("the agent", func() bool {
		return exec.Command(filepath.Join(s.bin, "spire-agent"), "healthcheck", "-socketPath", filepath.Join(s.dir, "agent.sock")).Run() == nil
	}, s.agent)
}

// restart stops both and starts them again, as an upgrade does.
func (s *spire) restart() {
	s.t.Helper()
	s.agent.stop()
	s.server.stop()
	s.startServer()
	s.startAgent()
}

func (s *spire) run(name, file string, conf *template.Template) *program {
	s.t.Helper()
	var text bytes.Buffer
	must(s.t, conf.Execute(&text, map[string]any{"Dir": s.dir, "Port": s.port, "BundlePort": s.bundlePort,
		"Domain": s.domain, "Federates": s.federates, "JoinToken": s.joinToken}))
	path := filepath.Join(s.dir, file)
	must(s.t, os.WriteFile(path, text.Bytes(), 0o600))
	return startProgram(s.t, exec.Command(filepath.Join(s.bin, name), "run", "-config", path))
}

// ctl runs a command of spire-server's administration.
func (s *spire) ctl(args ...string) []byte {
	s.t.Helper()
	args = append(args, "-socketPath", filepath.Join(s.dir, "server.sock"))
	cmd := exec.Command(filepath.Join(s.bin, "spire-server"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("spire-server %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

// register gives the processes of this user an identity.
func (s *spire) register(path string, federatesWith ...string) {
	s.t.Helper()
	var agents struct {
		Agents []struct {
			ID struct {
				TrustDomain string `json:"trust_domain"`
				Path        string `json:"path"`
			} `json:"id"`
		} `json:"agents"`
	}
	must(s.t, json.Unmarshal(s.ctl("agent", "list", "-output", "json"), &agents))
	if len(agents.Agents) != 1 {
		s.t.Fatalf("%d agents have joined, want 1", len(agents.Agents))
	}
	a := agents.Agents[0].ID
	args := []string{"entry", "create", "-parentID", "spiffe://" + a.TrustDomain + a.Path, "-spiffeID", "spiffe://" + s.domain + path,
		"-selector", fmt.Sprintf("unix:uid:%d", os.Getuid()), "-x509SVIDTTL", fmt.Sprint(int(svidTTL.Seconds())), "-jwtSVIDTTL", "60"}
	for _, td := range federatesWith {
		args = append(args, "-federatesWith", "spiffe://"+td)
	}
	s.ctl(args...)
	s.await("the agent's first SVID for "+path, func() bool {
		out, err := s.fetch("x509")
		return err == nil && bytes.Contains(out, []byte(s.domain+path))
	}, s.agent)
}

// fetch asks the Workload API by SPIRE's own client.
func (s *spire) fetch(kind string, args ...string) ([]byte, error) {
	args = append([]string{"api", "fetch", kind, "-socketPath", filepath.Join(s.dir, "agent.sock")}, args...)
	return exec.Command(filepath.Join(s.bin, "spire-agent"), args...).CombinedOutput()
}

// bundle is the trust domain's bundle in SPIFFE's format.
func (s *spire) bundle() []byte { return s.ctl("bundle", "show", "-format", "spiffe") }

// await waits for something that another program does.
func (s *spire) await(what string, done func() bool, p *program) {
	s.t.Helper()
	await(s.t, what, done, p)
}

func await(t *testing.T, what string, done func() bool, p *program) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-p.ended:
			t.Fatalf("%s: its program ended:\n%s", what, p.output())
		case <-ctx.Done():
			t.Fatalf("%s did not come within 90 s; the program says:\n%s", what, p.output())
		case <-tick.C:
		}
	}
}

// program is a process whose output is kept.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	text  bytes.Buffer
}

func startProgram(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	go func() { _ = cmd.Wait(); close(p.ended) }()
	t.Cleanup(p.stop)
	return p
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// stop asks the process to end, and makes it.
func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// shortDir is a temporary folder whose path leaves room for a Unix socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peers")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	return port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
