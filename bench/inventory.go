package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// The inventory is measured as a user runs it: the whole command, from the
// start of the process to the last byte of JSON. It reads the pipelines, runs
// all rules over them, the search for secrets among them, reads the trust
// policies, joins both ends, and writes the document. Estates have 1,000, 4,000
// and 16,000 pipelines of all systems, which are the project's own truth files,
// copied, and in each repository a trust policy that names it. The same files
// are parsed by the bare YAML library in this process: what the command costs
// above that is ours.

// pipelineFile is one of the project's own pipelines.
type pipelineFile struct {
	path string // below its repository
	text []byte
}

// measureInventory prints what an inventory costs, and checks the claims.
func measureInventory(ctx context.Context, proviso string, c *claims) error {
	fmt.Println("\nThe whole command `proviso inventory -o json`: reading, rules, trusts, joining, JSON (15 systems, the project's own pipelines, copied)")
	own, err := ownPipelines("inventory/testdata/truth")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "proviso-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var perThousand []float64
	var memory float64
	for _, n := range []int{1000, 4000, 16000} {
		estate := filepath.Join(dir, fmt.Sprint(n))
		if err := plantEstate(estate, own, n); err != nil {
			return err
		}
		cpu, rss, err := runInventory(ctx, proviso, estate)
		if err != nil {
			return err
		}
		perThousand = append(perThousand, cpu.Seconds()/float64(n)*1000)
		if n == 1000 {
			memory = float64(rss) / 1024
		}
		fmt.Printf("  %6d files   %8.2f CPU s   %6.3f CPU s per 1,000   %4d MB at most\n", n, cpu.Seconds(), perThousand[len(perThousand)-1], rss/1024)
	}
	first, again, err := runKept(ctx, proviso, filepath.Join(dir, "4000"), filepath.Join(dir, "kept"))
	if err != nil {
		return err
	}
	fmt.Printf("  with --cache, 4,000 files: the first scan %.2f CPU s, the next one, with nothing changed, %.2f\n", first.Seconds(), again.Seconds())
	bare, err := parseBare(filepath.Join(dir, "4000"))
	if err != nil {
		return err
	}
	c.check("1,000 pipelines, the whole command", perThousand[0], 1, "CPU s", perThousand[0] <= 1)
	c.check("a file among 16,000, as a ratio to one among 4,000", perThousand[2]/perThousand[1], 1.3, "x", perThousand[2] <= 1.3*perThousand[1])
	c.check("memory for 1,000 pipelines", memory, 100, "MB", memory <= 100)
	c.check("a scan of 4,000 unchanged files, as a ratio to one without results", again.Seconds()/(perThousand[1]*4), 0.75, "x", again.Seconds() <= 0.75*perThousand[1]*4)
	fmt.Printf("  the whole command over 4,000 files costs %.1f times what the bare YAML library needs for them\n", perThousand[1]*4/bare.Seconds())
	return nil
}

// ownPipelines reads the truth files with their paths in the repository that they stand for.
func ownPipelines(root string) ([]pipelineFile, error) {
	var out []pipelineFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".want") {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(p)
		out = append(out, pipelineFile{rel, text})
		return err
	})
	if err == nil && len(out) < 40 {
		err = fmt.Errorf("only %d pipelines below %s: run this in the repository's root", len(out), root)
	}
	return out, err
}

// repositoryTrust lets the jobs of one repository into a role.
const repositoryTrust = `{"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
  "Principal": {"Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"},
  "Condition": {"StringEquals": {"token.actions.githubusercontent.com:aud": "sts.amazonaws.com"},
    "StringLike": {"token.actions.githubusercontent.com:sub": "repo:acme/%s:*"}}}]}
`

// plantRepository writes what a repository has beside its pipelines: its name, and who may take its role.
func plantRepository(dir string) error {
	name := filepath.Base(dir)
	for file, text := range map[string]string{
		".git/config":      "[remote \"origin\"]\n\turl = https://github.com/acme/" + name + "\n",
		"infra/trust.json": fmt.Sprintf(repositoryTrust, name),
	} {
		full := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plantEstate copies the pipelines until there are n.
func plantEstate(dir string, own []pipelineFile, n int) error {
	for i := range n {
		f := own[i%len(own)]
		repository := filepath.Join(dir, fmt.Sprintf("repository-%d", i/len(own)))
		if i%len(own) == 0 {
			if err := plantRepository(repository); err != nil {
				return err
			}
		}
		full := filepath.Join(repository, f.path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, append(bytes.Clone(f.text), fmt.Sprintf("\n# %d\n", i)...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// runKept scans an estate with results kept: the first scan, which has none, and the next.
func runKept(ctx context.Context, proviso, dir, cache string) (first, again time.Duration, err error) {
	if first, _, err = runInventoryOnce(ctx, proviso, dir, "--cache", cache); err != nil {
		return 0, 0, err
	}
	again, _, err = runInventory(ctx, proviso, dir, "--cache", cache)
	return first, again, err
}

// runInventory runs the command twice and gives the cheaper run: CPU time, and the largest memory in KB.
func runInventory(ctx context.Context, proviso, dir string, flags ...string) (cpu time.Duration, rss int64, err error) {
	for range 2 {
		used, most, err := runInventoryOnce(ctx, proviso, dir, flags...)
		if err != nil {
			return 0, 0, err
		}
		if cpu == 0 || used < cpu {
			cpu = used
		}
		rss = max(rss, most)
	}
	return cpu, rss, nil
}

func runInventoryOnce(ctx context.Context, proviso, dir string, flags ...string) (cpu time.Duration, rss int64, err error) {
	cmd := exec.CommandContext(ctx, proviso, append([]string{"inventory", "--quiet", "--output", "json", dir}, flags...)...) //nolint:gosec // our own binary and flags
	cmd.Stdout = io.Discard
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) { // 1 is findings
		return 0, 0, fmt.Errorf("proviso inventory: %w: %s", err, said.String())
	}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		rss = ru.Maxrss
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), rss, nil
}

// parseBare parses the YAML files of an estate with the library alone, and gives the CPU time.
func parseBare(dir string) (time.Duration, error) {
	before := ownCPU()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".yml") && !strings.HasSuffix(p, ".yaml") {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var doc yaml.Node
			if dec.Decode(&doc) != nil {
				return nil //nolint:nilerr // the end, or a part that isn't YAML: both are read up to here
			}
		}
	})
	return ownCPU() - before, err
}
