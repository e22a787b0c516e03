// Package agent is the small program on a runner's machine: it joins the
// broker's own fleet, keeps the runner's SVID fresh, and serves the SPIFFE
// Workload API to the jobs on that machine. It owns what a machine knows of
// itself: its keys, its state directory, its socket, and which process there is
// which workload.
//
// # The runner and its workloads
//
// The agent's own SVID names the runner, and renews itself. No job ever gets
// it: a workload gets an SVID of its own, RUNNER/workload/NAME, with a key of its
// own, which proves to the broker that it runs on that runner and renews
// nothing. Both are renewed before half of their life is over, each time with a
// new key; while the broker is away what is there serves until it ends.
//
// # Who calls
//
// A caller is who the kernel says that it is when it connects: user, group,
// process (SO_PEERCRED). Its program is looked up through that very process,
// never through its number, and is compared as a file, not as a name. A caller
// that fits no workload gets PermissionDenied, and is logged. Programs of one
// user can pass for each other (they may trace one another): the user is the
// boundary, the program narrows it.
//
// # What it keeps
//
// Keys are in memory and, for the runner's own, in files that only the agent's
// user may read, so that a restart needs no new join, and a machine that proves
// itself by a key stays the same machine. Nothing that the
// broker or a caller sends is believed before it was checked; no token or key is
// in a log line or an error.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/proviso-ci/proviso/evidence"
)

// Config is the agent's file.
type Config struct {
	// Broker is the broker's URL, https. TLS has to end at the broker itself: the
	// agent shows its SVID there.
	Broker string `yaml:"broker"`
	// CA is a PEM file with the authorities that certify the broker's door,
	// instead of the system's.
	CA string `yaml:"ca,omitempty"`
	// State is the agent's directory; it is made if it isn't there. The runner's
	// key lies in keys below it, for the agent's user alone.
	State string `yaml:"state"`
	// Socket is the path of the Workload API's socket, by default sock/agent.sock
	// below State. Jobs find it by the variable
	// SPIFFE_ENDPOINT_SOCKET=unix://PATH.
	Socket string `yaml:"socket,omitempty"`
	// JoinTokenFile holds the join token of "proviso runner token create". It is
	// read when the agent has no SVID, and can be replaced while the agent runs.
	JoinTokenFile string `yaml:"join_token_file,omitempty"`
	// Evidence joins by what the machine can show, without a token.
	Evidence Evidence `yaml:"evidence,omitempty"`
	// Workloads are who gets an SVID on this machine.
	Workloads []Workload `yaml:"workloads"`
}

// Evidence is what the machine can show of itself.
type Evidence struct {
	// Kind is a name that the broker's fleet.evidence has, as kubernetes.
	Kind string `yaml:"kind,omitempty"`
	// File holds the evidence; it is read at each join. Without it the agent gets
	// the evidence from the machine: its TPM, its cloud's metadata service, the
	// pod's projected token.
	File string `yaml:"file,omitempty"`
}

// Workload is one kind of process on the machine. A process is the workload if
// every selector that is set fits it; one has to be set.
type Workload struct {
	// Name is the last segment of the SPIFFE ID, as ci.
	Name string `yaml:"name"`
	// UID is the user that the process runs as.
	UID *int64 `yaml:"uid,omitempty"`
	// GID is the primary group that the process runs as.
	GID *int64 `yaml:"gid,omitempty"`
	// Path is the program's file. With UID it tells proviso exec from what else
	// the user runs; it is no boundary between programs of one user.
	Path string `yaml:"path,omitempty"`
}

// Problem is one thing that is wrong with a configuration.
type Problem struct{ Path, Message string }

const maxWorkloads = 64

var workloadName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)

// Validate says what is wrong, without touching a file.
func (c Config) Validate() []Problem {
	var out []Problem
	add := func(path, format string, args ...any) {
		out = append(out, Problem{path, fmt.Sprintf(format, args...)})
	}
	if u, err := url.Parse(c.Broker); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		add("broker", "%q is not the URL of a broker; write it as https://proviso.example.com, without a path", c.Broker)
	}
	if c.State == "" {
		add("state", "is missing; write the agent's directory, as /var/lib/proviso-runner")
	}
	if n := len(c.socketPath()); n > maxSocketPath {
		add("socket", "has %d bytes, and a Unix socket's path has at most %d", n, maxSocketPath)
	}
	switch {
	case c.Evidence.Kind == "" && c.Evidence.File != "":
		add("evidence", "needs the kind of what is in the file")
	case c.Evidence.Kind != "" && c.Evidence.File == "" && !evidence.IsKind(c.Evidence.Kind):
		add("evidence.kind", "%q is nothing that the agent can get from the machine; name a file, or write one of %s", c.Evidence.Kind, strings.Join(evidence.Kinds, ", "))
	}
	if c.Evidence.Kind != "" && c.JoinTokenFile != "" {
		add("evidence", "is set beside join_token_file: a machine joins by one of them")
	}
	if len(c.Workloads) == 0 || len(c.Workloads) > maxWorkloads {
		add("workloads", "has %d entries; write 1 to %d: nobody else gets an SVID", len(c.Workloads), maxWorkloads)
	}
	seen := map[string]bool{}
	for i, w := range c.Workloads {
		at := fmt.Sprintf("workloads[%d].", i)
		switch {
		case !workloadName.MatchString(w.Name):
			add(at+"name", "%q is not one segment of a SPIFFE ID; write letters, digits, dots, dashes and underscores, as ci", w.Name)
		case seen[w.Name]:
			add(at+"name", "%q is there twice", w.Name)
		}
		seen[w.Name] = true
		if w.UID == nil && w.GID == nil && w.Path == "" {
			add(at+"uid", "is missing, as are gid and path: every process of the machine would be this workload")
		}
		for name, n := range map[string]*int64{"uid": w.UID, "gid": w.GID} {
			if n != nil && (*n < 0 || *n > 1<<32-2) {
				add(at+name, "%d is no number of a user or a group", *n)
			}
		}
		if w.Path != "" && (!filepath.IsAbs(w.Path) || filepath.Clean(w.Path) != w.Path) {
			add(at+"path", "%q is not the whole path of a program; write it as /usr/local/bin/proviso", w.Path)
		}
	}
	return out
}

const maxSocketPath = 103 // sockaddr_un, with its final zero, on every Unix

func (c Config) socketPath() string {
	if c.Socket != "" {
		return c.Socket
	}
	return filepath.Join(c.State, "sock", "agent.sock")
}

// Agent is one agent. Run runs it.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	broker *brokerClient

	// The rest belongs to mu. What is held is replaced, never changed.
	mu        sync.Mutex
	own       *svid            // the runner's; nil before it has joined
	workloads map[string]*svid // by name
	trust     *bundle          // nil before the first
	refused   error            // the broker says no: nothing is given out
	tokens    map[string]jwt   // JWT-SVIDs by workload and audience
	changed   chan struct{}    // closed at each change, then replaced

	callersLog *rate.Limiter // of log lines that callers bring about
	unsaid     atomic.Int64

	wake       chan struct{} // there is something to do before its time
	tokenSlots chan struct{}
	usedToken  [32]byte // hash of the join token that was tried last
}

// New makes an agent of a valid configuration.
func New(cfg Config, logger *slog.Logger) (*Agent, error) {
	if problems := cfg.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %s", problems[0].Path, problems[0].Message)
	}
	a := &Agent{cfg: cfg, log: logger, now: time.Now, workloads: map[string]*svid{}, tokens: map[string]jwt{},
		changed: make(chan struct{}), callersLog: rate.NewLimiter(1, 20), wake: make(chan struct{}, 1), tokenSlots: make(chan struct{}, maxTokenRequests)}
	var err error
	if a.broker, err = newBrokerClient(cfg.Broker, cfg.CA); err != nil {
		return nil, err
	}
	if err := a.loadState(); err != nil {
		return nil, err
	}
	return a, nil
}

// Run joins if it has to, rotates, and serves the Workload API until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := listen(a.cfg.socketPath())
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- a.serve(ctx, listener) }()
	rotated := make(chan struct{})
	go func() { defer close(rotated); a.rotate(ctx) }()
	a.log.Info("serving the Workload API", "socket", "unix://"+a.cfg.socketPath(), "workloads", len(a.cfg.Workloads))
	select {
	case err = <-served:
		cancel()
	case <-ctx.Done():
		err = <-served
	}
	<-rotated
	return err
}

// notify wakes all who wait for a change. Called with mu held.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

var errNoEvidence = errors.New("the agent has no SVID and nothing to join with; write the join token of \"proviso runner token create\" into join_token_file")
