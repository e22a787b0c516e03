// Command bench says what Proviso costs, as ratios within one run on one
// machine: `make bench`. Absolute numbers of two machines, or of two days on
// one, can't be compared; a ratio of two measurements side by side can.
//
// It starts the real broker (the binary that was built, durable, with its
// record) and a no-op HTTP server as separate processes, loads both with the
// same generator from this process, and reads from the kernel what CPU time
// each of them used. The other parts of an exchange (RS256, ES256, a prepared
// OPA query, a row of a group-committed SQLite transaction) are measured bare,
// by their libraries, under the same load in the same run.
//
// The claims that it checks are the project's own floors: an exchange costs at
// most 1.5 times the sum of its parts; the rate under load is at least 60 % of
// what that CPU cost allows; the own trust domain's authority signs SVIDs at 70 %
// or more of the bare rate; p99 is under 4 times p50; a thousand grants and
// policies cost less than 20 % more than ten; memory, start and binary stay
// small. A claim that doesn't hold is printed as such, and the exit code is 1.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

func main() {
	proviso := flag.String("proviso", "bin/proviso", "the binary to measure")
	seconds := flag.Int("seconds", 4, "how long each load runs")
	profile := flag.String("profile", "", "also write a CPU profile of the broker under load to this file, and end there")
	estate := flag.Bool("inventory", false, "measure the inventory alone")
	child := flag.String("child", "", "internal: run as this child process")
	flag.Parse()
	if *child != "" {
		fmt.Fprintln(os.Stderr, servePart(*child))
		os.Exit(2)
	}
	if *estate {
		var c claims
		if err := measureInventory(context.Background(), *proviso, &c); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(2)
		}
		os.Exit(min(c.failed, 1))
	}
	if *profile != "" {
		if err := profileBroker(context.Background(), *proviso, *profile, time.Duration(*seconds)*time.Second); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(2)
		}
		return
	}
	ok, err := run(context.Background(), *proviso, time.Duration(*seconds)*time.Second)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// claims collects what was claimed and what was found.
type claims struct{ failed int }

func (c *claims) check(what string, found, limit float64, unit string, holds bool) {
	verdict := "holds"
	if !holds {
		verdict = "DOES NOT HOLD"
		c.failed++
	}
	fmt.Printf("  %-58s %9.2f %-6s limit %9.2f   %s\n", what, found, unit, limit, verdict)
}

func run(ctx context.Context, proviso string, d time.Duration) (bool, error) {
	fmt.Printf("%d cores, %s, load of %s each, 64 connections from a separate process\n", runtime.NumCPU(), runtime.Version(), d)
	var c claims

	world, err := newWorld(ctx, proviso)
	if err != nil {
		return false, err
	}
	defer world.close()

	fmt.Println("What the parts cost, bare, under the same load (CPU)")
	parts, err := measureParts(ctx, world, d)
	if err != nil {
		return false, err
	}
	fmt.Printf("  %-58s %9.1f us\n\n", "sum of the parts", parts)

	fmt.Println("One whole exchange, durable and recorded")
	base, err := world.cheapest(ctx, shape{grants: 10}, d)
	if err != nil {
		return false, err
	}
	base.print()
	possible := 1e6 / base.cpu * float64(runtime.NumCPU()) // if the load itself were free
	c.check("CPU of an exchange : sum of its parts", base.cpu/parts, 1.5, "x", base.cpu/parts <= 1.5)
	shared := 1e6 / (base.cpu + base.loadCPU) * float64(runtime.NumCPU())
	c.check("rate : what the CPU cost allows beside the generator", base.rate/shared, 0.6, "x", base.rate/shared >= 0.6)
	fmt.Printf("  (the CPU cost alone would allow %.0f a second; the generator uses %.0f us of the same cores for each)\n", possible, base.loadCPU)
	c.check("p99 : p50", base.p99/base.p50, 4, "x", base.p99 < 4*base.p50)
	c.check("resident memory", base.rss, 150, "MB", base.rss < 150)
	c.check("start to first answer", base.start.Seconds(), 1, "s", base.start < time.Second)
	info, err := os.Stat(proviso)
	if err != nil {
		return false, err
	}
	size := float64(info.Size()) / (1 << 20)
	c.check("binary", size, 80, "MB", size < 80)

	fmt.Printf("\nThe X.509-SVIDs of %d agents\n", fleetSize)
	share, each, err := measureAuthority()
	if err != nil {
		return false, err
	}
	fmt.Printf("  %-58s %9.1f us\n", "one, linted and signed", float64(each.Nanoseconds())/1e3)
	c.check("rate : bare rate of x509.CreateCertificate (P-256)", share, 0.7, "x", share >= 0.7)

	fmt.Println("\nThe runner's evidence")
	if err := measureRunner(ctx, &c, base.cpu); err != nil {
		return false, err
	}

	fmt.Println("\nA thousand grants, each with a policy package of its own")
	many, err := world.cheapest(ctx, shape{grants: 1000}, d)
	if err != nil {
		return false, err
	}
	many.print()
	c.check("CPU with 1,000 : CPU with 10", many.cpu/base.cpu, 1.2, "x", many.cpu < 1.2*base.cpu)

	if err := inventoryApart(ctx, proviso, &c); err != nil {
		return false, err
	}

	if c.failed > 0 {
		fmt.Printf("\n%d claims do not hold\n", c.failed)
	} else {
		fmt.Println("\nevery claim holds")
	}
	return c.failed == 0, nil
}

// inventoryApart measures the inventory from a process of its own: what the kernel
// calls a command's peak of memory is never less than that of who started it,
// and this one holds all the job tokens.
func inventoryApart(ctx context.Context, proviso string, c *claims) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-inventory", "-proviso", proviso)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err = cmd.Run(); cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1 {
		c.failed++ // it has printed which claim
		return nil
	}
	return err
}

// profileBroker drives a broker and fetches its CPU profile meanwhile.
func profileBroker(ctx context.Context, proviso, file string, d time.Duration) error {
	world, err := newWorld(ctx, proviso)
	if err != nil {
		return err
	}
	defer world.close()
	if world.operations, err = freeAddress(); err != nil {
		return err
	}
	fetched := make(chan error, 1)
	world.loaded = func() {
		go func() {
			fetched <- download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", world.operations, int(d.Seconds())-1), file)
		}()
	}
	o, err := world.load(ctx, shape{grants: 10}, d)
	if err != nil {
		return err
	}
	o.print()
	return <-fetched
}
