package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// forwarded are the signals that belong to CMD.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT,
}

// signalCatcher takes signals from the start: before CMD runs they end the
// asking, from then on they are CMD's.
type signalCatcher struct {
	incoming chan os.Signal
	done     chan struct{}
	ended    sync.WaitGroup

	mu      sync.Mutex // guards everything below
	cancel  context.CancelFunc
	early   syscall.Signal       // the first that came before CMD ran
	forward func(syscall.Signal) // nil until CMD runs
}

func catchSignals() *signalCatcher {
	s := &signalCatcher{incoming: make(chan os.Signal, 16), done: make(chan struct{}), cancel: func() {}}
	signal.Notify(s.incoming, forwarded...)
	s.ended.Go(func() {
		for {
			select {
			case sig := <-s.incoming:
				s.handle(sig.(syscall.Signal))
			case <-s.done:
				return
			}
		}
	})
	return s
}

func (s *signalCatcher) handle(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.forward != nil:
		s.forward(sig)
	case sig == syscall.SIGINT, sig == syscall.SIGTERM, sig == syscall.SIGHUP, sig == syscall.SIGQUIT:
		if s.early == 0 {
			s.early = sig
		}
		s.cancel()
	}
}

// before gives a context that a signal ends as long as CMD doesn't run.
func (s *signalCatcher) before(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, s.cancel = context.WithCancel(ctx)
	return ctx
}

// caught gives the signal that came before CMD ran, or 0.
func (s *signalCatcher) caught() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.early
}

// begin starts CMD unless a signal has come first, and hands signals over in
// the same moment, so that none is lost between.
func (s *signalCatcher) begin(start func() (forward func(syscall.Signal), err error)) (syscall.Signal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.early != 0 {
		return s.early, nil
	}
	forward, err := start()
	s.forward = forward
	return 0, err
}

// release ends the forwarding: CMD is gone and its process id may be another's.
func (s *signalCatcher) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forward = func(syscall.Signal) {}
}

func (s *signalCatcher) stop() {
	signal.Stop(s.incoming)
	close(s.done)
	s.ended.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
}

// child is CMD.
type child struct {
	path      string
	args, env []string
}

// run runs CMD and, beside it, what ends with it. It gives CMD's exit code,
// 128+n if signal n ended it.
func (c *child) run(s *signalCatcher, beside func(context.Context)) (code int, err error) {
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	all.Go(func() {
		defer cancel()
		// The kernel ties CMD's life to the thread that started it (exec_child_linux.go).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		code, err = c.runHere(s, func() { all.Go(func() { beside(ctx) }) })
	})
	all.Wait()
	return code, err
}

func (c *child) runHere(s *signalCatcher, started func()) (int, error) {
	shared := hasForeground()
	cmd := &exec.Cmd{Path: c.path, Args: c.args, Env: c.env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, SysProcAttr: childAttributes(!shared)}
	early, err := s.begin(func() (func(syscall.Signal), error) {
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return func(sig syscall.Signal) { forwardSignal(cmd, sig, shared) }, nil
	})
	if err != nil {
		return 0, err
	}
	if early != 0 {
		return 128 + int(early), nil
	}
	started()
	err = cmd.Wait()
	s.release()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return 128 + int(status.Signal()), nil
	case ok:
		return status.ExitStatus(), nil
	}
	return 0, err
}

// forwardSignal sends a signal to CMD. Without a terminal CMD leads a process
// group of its own and all of it gets the signal, as a shell's children would
// from a keyboard. With one, CMD shares exec's group, and the terminal has sent
// the keyboard's signals to both already.
func forwardSignal(cmd *exec.Cmd, sig syscall.Signal, shared bool) {
	switch {
	case !shared:
		_ = syscall.Kill(-cmd.Process.Pid, sig) // gone already: nobody to tell
	case sig != syscall.SIGINT && sig != syscall.SIGQUIT && sig != syscall.SIGWINCH && sig != syscall.SIGCONT:
		_ = cmd.Process.Signal(sig)
	}
}

// hasForeground reports whether this process is in the foreground of a terminal.
func hasForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // no terminal, as in CI
	}
	defer func() { _ = tty.Close() }()
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), uintptr(syscall.TIOCGPGRP), uintptr(unsafe.Pointer(&group))) // #nosec G103 -- the form that ioctl has
	return errno == 0 && int(group) == syscall.Getpgrp()
}
