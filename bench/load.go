package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const connections = 64

// outcome is what one load measured.
type outcome struct {
	count    int
	cpu      float64 // microseconds of the server's CPU for each request
	loadCPU  float64 // microseconds of this process's CPU for each request
	rate     float64 // requests a second
	p50, p99 float64 // milliseconds
	rss      float64 // megabytes at the end
	start    time.Duration
}

func (o outcome) print() {
	fmt.Printf("  %d exchanges: %.0f us of CPU each, %.0f a second, p50 %.1f ms, p99 %.1f ms, %.0f MB resident\n",
		o.count, o.cpu, o.rate, o.p50, o.p99, o.rss)
}

// drive sends the requests over 64 kept-alive connections until time or
// requests run out. It speaks HTTP/1.1 by hand, so that the generator takes as
// little as it can of the cores that it shares with the server.
func drive(ctx context.Context, pid int, address string, next func() []byte, d time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		took     []time.Duration
		failure  atomic.Pointer[error]
		serverAt = cpuOf(pid)
		selfAt   = ownCPU()
		begun    = time.Now()
	)
	for range connections {
		wg.Go(func() {
			mine, err := worker(ctx, address, next)
			if err != nil {
				failure.CompareAndSwap(nil, &err)
				cancel()
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed := time.Since(begun)
	if err := failure.Load(); err != nil {
		return outcome{}, *err
	}
	if len(took) == 0 {
		return outcome{}, fmt.Errorf("no request was answered")
	}
	slices.Sort(took)
	n := float64(len(took))
	ms := func(q float64) float64 { return took[int(q*(n-1))].Seconds() * 1e3 }
	return outcome{
		count: len(took), cpu: (cpuOf(pid) - serverAt).Seconds() * 1e6 / n, loadCPU: (ownCPU() - selfAt).Seconds() * 1e6 / n,
		rate: n / elapsed.Seconds(), p50: ms(.5), p99: ms(.99), rss: residentOf(pid),
	}, nil
}

func worker(ctx context.Context, address string, next func() []byte) ([]time.Duration, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answers := bufio.NewReaderSize(conn, 16<<10)
	var took []time.Duration
	for ctx.Err() == nil {
		request := next()
		if request == nil {
			break
		}
		begun := time.Now()
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
		if err := readAnswer(answers); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

// readAnswer reads one answer with a Content-Length, and wants status 200.
func readAnswer(r *bufio.Reader) error {
	status, length := "", -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if status == "" {
			status = string(line)
		} else if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(value))
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer without a length: %s", status)
	}
	if !strings.Contains(status, " 200 ") {
		body, _ := io.ReadAll(io.LimitReader(r, int64(length)))
		return fmt.Errorf("%s: %s", status, body)
	}
	_, err := r.Discard(length)
	return err
}

// cpuOf is the CPU time, user and system, that a process has used.
func cpuOf(pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func residentOf(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kb) / 1024
		}
	}
	return 0
}

// startProcess starts a server and waits until it takes connections.
func startProcess(ctx context.Context, address string, argv ...string) (*exec.Cmd, time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var output bytes.Buffer
	cmd.Stderr = &output
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	for time.Since(begun) < 20*time.Second {
		if answers(address) {
			return cmd, time.Since(begun), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil, 0, fmt.Errorf("%s did not answer: %s", argv[0], output.String())
}

// answers asks for /readyz.
func answers(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(conn, "GET /readyz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", address)
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.Contains(line, " 200 ")
}

func stop(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

// freeAddress finds a port of loopback that is free now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
