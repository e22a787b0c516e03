package facts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// mirror is the broker's own bare copy of the parts of one repository that jobs
// have named: their branches and tags, nothing else. It is read and filled by the
// git binary in an environment that takes nothing from the machine (gitEnv).
type mirror struct {
	dir    string
	url    string
	sha256 bool // the repository's object format
	secret []string
	cfg    *gitSettings

	making sync.Mutex // one git init at a time; guards made
	made   bool

	mu      sync.Mutex // guards what follows, never while a git runs
	refs    map[string]*refState
	commits map[string]*commit // by id: immutable, so never out of date
	order   []string           // of commits, oldest first
	within  map[string]string  // ref + commit -> the ref's tip at which it was seen
}

// refState is what is known of one branch or tag.
type refState struct {
	tip     string    // object id; "" if the repository has no such ref
	fetched time.Time // when the tip was asked for; zero: never
	running chan struct{}
	failed  error
	tried   time.Time // by the real clock
}

// gitSettings are what all mirrors share.
type gitSettings struct {
	binary   string
	dir      string
	wait     time.Duration // of one fetch
	maxBytes int64
	now      func() time.Time
	log      *slog.Logger
	closing  chan struct{} // closed: ends fetches, which outlive the request that began them
}

// Bounds of the mirrors' memory.
const (
	maxCommits   = 4096
	maxRefs      = 4096
	fetchPause   = 250 * time.Millisecond // between two fetches of one ref
	maxGitOutput = 8 << 20
)

// Errors that say what git could not do. Their details are for the log.
var (
	errTooLarge  = errors.New("the repository is larger than the mirror may be")
	errFetch     = errors.New("git could not fetch")
	errNoCommit  = errors.New("the mirror has no such commit")
	errNotCommit = errors.New("the object is no commit")
)

func newMirror(cfg *gitSettings, url string, wide bool, secret []string) *mirror {
	format := "sha1"
	if wide {
		format = "sha256"
	}
	name := sha256.Sum256([]byte(format + "\n" + url))
	return &mirror{dir: filepath.Join(cfg.dir, hex.EncodeToString(name[:16])+".git"), url: url, sha256: wide, secret: secret, cfg: cfg,
		refs: map[string]*refState{}, commits: map[string]*commit{}, within: map[string]string{}}
}

// gitEnv is the whole environment of every git that runs: no configuration of
// the system or a user, no prompt, no helper, no hook, no replaced or lazily
// fetched objects, and one transport.
func (m *mirror) gitEnv() []string {
	protocol := "https"
	switch {
	case strings.HasPrefix(m.url, "file:"):
		protocol = "file"
	case strings.HasPrefix(m.url, "http:"):
		protocol = "http" // loopback only; checked with the configuration
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + m.cfg.dir, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=" + protocol, "GIT_PROTOCOL_FROM_USER=0",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_OPTIONAL_LOCKS=0",
	}
	for _, name := range []string{"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	settings := []string{
		"core.hooksPath", os.DevNull, "core.fsmonitor", "false", "core.askPass", "", "credential.helper", "",
		"http.followRedirects", "false", "http.lowSpeedLimit", "1000", "http.lowSpeedTime", "30",
		"gc.auto", "0", "maintenance.auto", "false", "fetch.recurseSubmodules", "false", "submodule.recurse", "false",
		"transfer.bundleURI", "false", "fetch.writeCommitGraph", "false", "protocol.version", "2",
	}
	settings = append(settings, m.secret...)
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(settings)/2))
	for i := 0; i < len(settings); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	return env
}

// secretSettings gives git's settings for a token and a CA, through the
// environment: a command line can be read by everybody on the machine.
func secretSettings(user, token, caFile string) []string {
	var out []string
	if token != "" {
		basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + token))
		out = append(out, "http.extraHeader", "Authorization: Basic "+basic)
	}
	if caFile != "" {
		out = append(out, "http.sslCAInfo", caFile)
	}
	return out
}

// git runs one command in the mirror. Its output is bounded, and the whole
// process group ends with the context.
func (m *mirror) git(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, m.cfg.binary, append([]string{"--git-dir=" + m.dir}, args...)...) //nolint:gosec // git itself, configured; names of refs are checked and come after --end-of-options
	cmd.Env = m.gitEnv()
	cmd.Dir = m.cfg.dir
	cmd.Stdin = strings.NewReader(stdin)
	out, errs := &bounded{limit: maxGitOutput}, &bounded{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case out.over:
		return nil, fmt.Errorf("git %s wrote more than %d bytes", args[0], maxGitOutput)
	case err != nil:
		return out.buf.Bytes(), &gitError{args[0], err, strings.TrimSpace(errs.buf.String())}
	}
	return out.buf.Bytes(), nil
}

// gitError is a failed git command, for the log.
type gitError struct {
	command string
	err     error
	said    string
}

func (e *gitError) Error() string { return fmt.Sprintf("git %s: %v: %s", e.command, e.err, e.said) }
func (e *gitError) Unwrap() error { return e.err }

// exitCode gives a command's exit code, -1 if it didn't run or was killed.
func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// bounded keeps the first bytes of an output and swallows the rest.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.buf.Len(); len(p) > room {
		b.over = true
		b.buf.Write(p[:room])
	} else {
		b.buf.Write(p)
	}
	return len(p), nil
}

// tip gives the object id that a ref points to and when that was asked, not
// longer than maxAge ago and not before the given moment. It fetches if it has to;
// requests that come together share one fetch, which outlives those who give up.
func (m *mirror) tip(ctx context.Context, ref string, maxAge time.Duration, notBefore time.Time) (tip string, at time.Time, err error) {
	for {
		m.mu.Lock()
		st := m.state(ref)
		if age := m.cfg.now().Sub(st.fetched); !st.fetched.IsZero() && age < maxAge && !st.fetched.Before(notBefore) {
			tip, at = st.tip, st.fetched
			m.mu.Unlock()
			return tip, at, nil
		}
		// Somebody just asked: who asks again at once waits, so that a stream of
		// commits that are on no branch doesn't become a stream of fetches.
		pause := fetchPause - time.Since(st.tried)
		if st.running == nil && (st.tried.IsZero() || pause <= 0) {
			st.running, st.tried, pause = make(chan struct{}), time.Now(), 0
			go m.refresh(context.WithoutCancel(ctx), ref, st)
		}
		running := st.running
		if running == nil && st.failed != nil {
			err = st.failed
			m.mu.Unlock()
			return "", time.Time{}, err
		}
		m.mu.Unlock()
		if running == nil {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
				return "", time.Time{}, ctx.Err()
			}
		}
		select {
		case <-running:
			m.mu.Lock()
			tip, at, err = st.tip, st.fetched, st.failed
			m.mu.Unlock()
			if err != nil {
				return "", time.Time{}, err
			}
			if !at.Before(notBefore) { // else it had begun too early for us
				return tip, at, nil
			}
		case <-ctx.Done():
			return "", time.Time{}, ctx.Err()
		}
	}
}

// state gives what is known of a ref; mu is held.
func (m *mirror) state(ref string) *refState {
	st := m.refs[ref]
	if st == nil {
		if len(m.refs) >= maxRefs {
			m.forgetRefs()
		}
		st = &refState{}
		m.refs[ref] = st
	}
	return st
}

// forgetRefs drops what is known of refs that nobody fetches now.
func (m *mirror) forgetRefs() {
	for ref, st := range m.refs {
		if st.running == nil {
			delete(m.refs, ref)
		}
	}
	clear(m.within)
}

// refresh fetches one ref and tells those who wait.
func (m *mirror) refresh(ctx context.Context, ref string, st *refState) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.cfg.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	at := m.cfg.now() // the age counts from the question
	tip, err := m.fetch(ctx, ref)
	m.mu.Lock()
	defer m.mu.Unlock()
	if st.failed = err; err == nil {
		st.tip, st.fetched = tip, at
	} else {
		m.cfg.log.Warn("a repository's mirror could not be brought up to date", "url", m.url, "ref", ref, "error", err)
	}
	close(st.running)
	st.running = nil
}

// fetch makes the mirror if there is none, fetches one ref into it, and reads
// where it points.
func (m *mirror) fetch(ctx context.Context, ref string) (tip string, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.wait)
	defer cancel()
	if err := m.make(ctx); err != nil {
		return "", err
	}
	limited, stop := m.watchSize(ctx)
	_, err = m.git(limited, "", "fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
		"--no-recurse-submodules", "--end-of-options", m.url, "+"+ref+":"+local(ref))
	stop()
	if errors.Is(err, errTooLarge) {
		return "", err
	}
	if err != nil {
		// "couldn't find remote ref" is an answer, not a failure; only the remote's
		// own list tells it from the failures that look alike.
		if gone, lsErr := m.isGone(ctx, ref); lsErr == nil && gone {
			_, _ = m.git(ctx, "", "update-ref", "-d", local(ref))
			return "", nil
		}
		return "", fmt.Errorf("%w: %w", errFetch, err)
	}
	out, err := m.git(ctx, "", "rev-parse", "--verify", "--quiet", "--end-of-options", local(ref)+"^{commit}")
	tip = strings.TrimSpace(string(out))
	if err != nil || !isObjectID(tip) {
		return "", errors.Join(errFetch, errors.New("the ref names no commit"), err)
	}
	return tip, nil
}

// isGone asks the remote whether it has the ref.
func (m *mirror) isGone(ctx context.Context, ref string) (bool, error) {
	out, err := m.git(ctx, "", "ls-remote", "--quiet", "--refs", "--end-of-options", m.url, ref)
	return err == nil && len(bytes.TrimSpace(out)) == 0, err
}

// local is where a ref is kept: apart from what git itself would follow.
func local(ref string) string { return "refs/proviso/" + strings.TrimPrefix(ref, "refs/") }

// make makes the bare repository, elsewhere first, so that a half-made one is
// never taken for a whole one.
func (m *mirror) make(ctx context.Context) error {
	m.making.Lock()
	defer m.making.Unlock()
	if m.made {
		return nil
	}
	if _, err := os.Stat(filepath.Join(m.dir, "HEAD")); err == nil {
		m.made = true
		return nil
	}
	if err := os.MkdirAll(m.cfg.dir, 0o700); err != nil {
		return err
	}
	half, err := os.MkdirTemp(m.cfg.dir, "new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(half) }()
	format := "sha1"
	if m.sha256 {
		format = "sha256"
	}
	empty := newMirror(m.cfg, m.url, m.sha256, nil)
	empty.dir = half
	if _, err := empty.git(ctx, "", "init", "--quiet", "--bare", "--template=", "--object-format="+format); err != nil {
		return err
	}
	if err := os.Rename(half, m.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	m.made = true
	return nil
}

// watchSize ends the context when the mirror grows over its bound. git has no
// limit of its own for what it receives.
func (m *mirror) watchSize(ctx context.Context) (context.Context, func()) {
	limited, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			if treeSize(m.dir) > m.cfg.maxBytes {
				cancel(errTooLarge)
				return
			}
			select {
			case <-limited.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return limited, func() {
		over := errors.Is(context.Cause(limited), errTooLarge) || treeSize(m.dir) > m.cfg.maxBytes
		cancel(nil)
		<-done
		if over {
			m.dropHalfPacks()
		}
	}
}

// dropHalfPacks removes what a killed git left half received.
func (m *mirror) dropHalfPacks() {
	for _, pattern := range []string{"tmp_pack_*", "tmp_idx_*", "tmp_rev_*"} {
		found, _ := filepath.Glob(filepath.Join(m.dir, "objects", "pack", pattern))
		for _, name := range found {
			_ = os.Remove(name)
		}
	}
}

func treeSize(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil // what disappears meanwhile doesn't count
	})
	return total
}

// load reads commit objects by their ids, raw, and parses them.
func (m *mirror) load(ctx context.Context, ids ...string) ([]*commit, error) {
	out := make([]*commit, len(ids))
	var missing []string
	m.mu.Lock()
	for i, id := range ids {
		if out[i] = m.commits[id]; out[i] == nil {
			missing = append(missing, id)
		}
	}
	m.mu.Unlock()
	if len(missing) == 0 {
		return out, nil
	}
	raw, err := m.git(ctx, strings.Join(missing, "\n")+"\n", "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if out[i] != nil {
			continue
		}
		var body []byte
		if body, raw, err = nextObject(raw, id); err != nil {
			return nil, err
		}
		if out[i], err = parseCommit(id, body); err != nil {
			return nil, err
		}
	}
	m.remember(out)
	return out, nil
}

func (m *mirror) remember(commits []*commit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range commits {
		if m.commits[c.id] != nil {
			continue
		}
		if len(m.order) >= maxCommits {
			delete(m.commits, m.order[0])
			m.order = m.order[1:]
		}
		m.commits[c.id], m.order = c, append(m.order, c.id)
	}
}

// nextObject takes one object from the output of cat-file --batch.
func nextObject(out []byte, id string) (body, rest []byte, err error) {
	line, rest, ok := bytes.Cut(out, []byte("\n"))
	fields := strings.Fields(string(line))
	switch {
	case !ok || len(fields) < 2 || fields[0] != id:
		return nil, nil, fmt.Errorf("git cat-file answered something else than was asked")
	case fields[1] == "missing":
		return nil, nil, errNoCommit
	case len(fields) != 3 || fields[1] != "commit":
		return nil, nil, errNotCommit
	}
	n, err := strconv.Atoi(fields[2])
	if err != nil || n < 0 || n >= len(rest) || rest[n] != '\n' {
		return nil, nil, fmt.Errorf("git cat-file answered something else than was asked")
	}
	return rest[:n], rest[n+1:], nil
}

// contains reports whether the commit can be reached from the ref's tip.
func (m *mirror) contains(ctx context.Context, ref, tip, id string) (bool, error) {
	if tip == id {
		return true, nil
	}
	key := ref + " " + id
	m.mu.Lock()
	known := m.within[key] == tip
	m.mu.Unlock()
	if known {
		return true, nil
	}
	_, err := m.git(ctx, "", "merge-base", "--is-ancestor", "--end-of-options", id, tip)
	if err == nil {
		m.mu.Lock()
		if len(m.within) >= maxCommits {
			clear(m.within)
		}
		m.within[key] = tip
		m.mu.Unlock()
		return true, nil
	}
	if exitCode(err) == 1 {
		return false, nil
	}
	return false, err
}

// merged lists the commits that a merge brought in: those that can be reached
// from it but not from its first parent, itself not among them. more says that
// there are more than limit.
func (m *mirror) merged(ctx context.Context, c *commit, limit int) (ids []string, more bool, err error) {
	if len(c.parents) < 2 {
		return nil, false, nil
	}
	out, err := m.git(ctx, "", "rev-list", "--max-count="+strconv.Itoa(limit+2), c.id, "^"+c.parents[0])
	if err != nil {
		return nil, false, err
	}
	for _, id := range strings.Fields(string(out)) {
		if isObjectID(id) && id != c.id {
			ids = append(ids, id)
		}
	}
	return ids, len(ids) > limit, nil
}
