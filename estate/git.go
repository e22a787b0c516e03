package estate

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// git runs the git binary for one repository.
type git struct {
	dir   string // the bare repository
	home  string // an empty directory: no file of a user is read
	url   string
	token Token
	user  string // of the token, as the platform wants it
	// maxBytes bounds the repository on the disk.
	maxBytes int64
}

var errTooLarge = errors.New("the repository is larger than the bound")

// env is the whole environment of every git that runs: no configuration of
// the system or of a user, no prompt, helper, hook, redirect or submodule, and
// the one transport of the URL. A token goes into a header, by the environment:
// a command line can be read by everybody on the machine.
func (g *git) env() []string {
	protocol, _, _ := strings.Cut(g.url, ":")
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.home, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "GIT_ALLOW_PROTOCOL=" + protocol, "GIT_PROTOCOL_FROM_USER=0",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_OPTIONAL_LOCKS=0", "GIT_LFS_SKIP_SMUDGE=1",
	}
	pass := []string{"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
	if protocol == "ssh" {
		env = append(env, "GIT_SSH_COMMAND=ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oUserKnownHostsFile="+filepath.Join(realHome(), ".ssh", "known_hosts"))
		pass = append(pass, "SSH_AUTH_SOCK")
	}
	for _, name := range pass {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	settings := []string{
		"core.hooksPath", os.DevNull, "core.fsmonitor", "false", "core.askPass", "", "credential.helper", "", "core.attributesFile", os.DevNull,
		"http.followRedirects", "false", "http.lowSpeedLimit", "1000", "http.lowSpeedTime", "30",
		"gc.auto", "0", "maintenance.auto", "false", "fetch.recurseSubmodules", "false", "submodule.recurse", "false",
		"transfer.bundleURI", "false", "fetch.writeCommitGraph", "false", "protocol.version", "2", "remote.origin.url", g.url,
	}
	if u, err := url.Parse(g.url); err == nil && g.token.set() && (u.Scheme == "https" || loopback(u)) {
		basic := base64.StdEncoding.EncodeToString([]byte(g.user + ":" + g.token.value))
		settings = append(settings, "http."+u.Scheme+"://"+u.Host+"/.extraHeader", "Authorization: Basic "+basic)
	}
	env = append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(len(settings)/2))
	for i := 0; i < len(settings); i += 2 {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i/2, settings[i]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i/2, settings[i+1]))
	}
	return env
}

// realHome is where a person's known_hosts is; only its hosts are used.
func realHome() string {
	dir, err := os.UserHomeDir()
	if err != nil {
		return os.DevNull
	}
	return dir
}

// run executes one git command. Its output is bounded; the whole process group
// ends with the context, and as soon as the repository outgrows its bound.
func (g *git) run(ctx context.Context, limit int64, stdin string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, "git", append([]string{"--git-dir=" + g.dir}, args...)...) //nolint:gosec // git itself; what comes from outside is in the environment or behind --end-of-options
	cmd.Env, cmd.Dir, cmd.Stdin = g.env(), g.home, strings.NewReader(stdin)
	out, errs := &bounded{limit: limit}, &bounded{limit: 4 << 10}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.watch(ctx, cancel)
	}()
	err := cmd.Run()
	over := g.size() > g.maxBytes
	cancel(nil)
	<-watched
	switch {
	case over || errors.Is(context.Cause(ctx), errTooLarge):
		return nil, errTooLarge
	case out.over:
		return nil, fmt.Errorf("git %s wrote more than %d bytes", args[0], limit)
	case err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return nil, context.DeadlineExceeded
	case err != nil:
		return nil, &gitError{args[0], gitSaid(errs.buf.String(), err)}
	}
	return out.buf.Bytes(), nil
}

// watch ends the command when the repository outgrows its bound.
func (g *git) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if g.size() > g.maxBytes {
				cancel(errTooLarge)
				return
			}
		}
	}
}

// size sums up the files of the repository.
func (g *git) size() int64 {
	var sum int64
	_ = filepath.WalkDir(g.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() { // git removes its temporary files while we look
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// gitError is a failed git command.
type gitError struct{ command, said string }

func (e *gitError) Error() string { return "git " + e.command + ": " + e.said }

// gitSaid takes the sentence that matters out of git's complaint.
func gitSaid(text string, err error) string {
	for _, line := range strings.Split(text, "\n") {
		if l, ok := strings.CutPrefix(line, "fatal: "); ok {
			return shown(l)
		}
	}
	if text = shown(text); text != "" {
		return text
	}
	return err.Error()
}

// bounded keeps the first bytes of an output and swallows the rest.
type bounded struct {
	buf   bytes.Buffer
	limit int64
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - int64(b.buf.Len()); int64(len(p)) > room {
		b.over = true
		b.buf.Write(p[:max(room, 0)])
	} else {
		b.buf.Write(p)
	}
	return len(p), nil
}
