package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/lab"
)

// docs/fleet.md is a fleet that works: its sections are a broker's, its file is
// an agent's, and its commands are run in the order of the page. Only what no
// two places have alike is put in: addresses, directories, the jobs' user.
func TestFleetPageWorks(t *testing.T) {
	t.Parallel()
	var sections, file, mesh string
	var commands []string
	for _, b := range blocks(readPage(t, "docs/fleet.md")) {
		switch {
		case strings.HasPrefix(b.text, "trust_domain:"):
			sections = b.text
		case strings.HasPrefix(b.text, "# runner.yaml"):
			file = b.text
		case strings.HasPrefix(b.text, "grants:"):
			mesh = strings.TrimPrefix(b.text, "grants:\n")
		case b.info == "sh":
			for line := range strings.Lines(b.text) {
				commands = append(commands, strings.TrimSpace(line))
			}
		}
	}
	grants := `  deploy: {policy: production, resource: {service: shipping}, credential: {kind: jwt, audience: "https://deploy.acme.example", scope: [deploy]}}` + "\n"
	f := &ownFleet{site: newSite(t, plan{https: true, sections: sections, grants: grants + mesh,
		policies: map[string]string{"production.rego": strings.Replace(openPolicy, "package open", "package production", 1)}})}
	f.machine = filepath.Join(f.dir, "machine")
	f.write("web.pem", string(f.web.PEM()))
	f.write("deploy.sh", "#!/bin/sh\necho deployed\n")
	noError(t, os.Chmod(filepath.Join(f.dir, "deploy.sh"), 0o755))
	f.spawn()

	program := made(filepath.EvalSymlinks(made(exec.LookPath("proviso"))(t)))(t)
	place := func(text string) string {
		for old, is := range map[string]string{
			"https://proviso.acme.example": f.url, "/var/lib/proviso-runner": f.machine,
			"uid: 1001": fmt.Sprintf("uid: %d", os.Getuid()), "/usr/local/bin/proviso": program,
		} {
			text = strings.ReplaceAll(text, old, is)
		}
		return text
	}
	f.write("runner.yaml", "ca: web.pem\n"+place(file))
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+f.dir, "PROVISO_URL="+f.url, "SSL_CERT_FILE="+filepath.Join(f.dir, "web.pem"))
	var agent *exec.Cmd
	ran := 0
	for _, line := range commands {
		line = place(line)
		if name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok && strings.HasPrefix(line, "export ") {
			env = append(env, name+"="+value)
			continue
		}
		cmd := exec.Command("sh", "-c", "exec "+line)
		cmd.Dir, cmd.Env = f.dir, env
		ran++
		if strings.HasPrefix(line, "proviso runner run") {
			agent = cmd
			log := &lockedBuffer{}
			cmd.Stderr = log
			noError(t, cmd.Start())
			t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
			eventually(t, "the agent has joined", func() bool { return strings.Contains(log.String(), "/workload/ci") })
			continue
		}
		if strings.HasPrefix(line, "proviso exec") {
			cmd.Env = append(cmd.Env, made(f.github.Start(lab.Job{}).Environment(f.url))(t)...)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		wanted := map[string]string{"proviso exec": "(?m)^deployed$", "proviso runner list": "runner-1 +good +join-token", "proviso runner ban": "is banned", "proviso runner unban": "no longer banned"}
		for prefix, says := range wanted {
			if strings.HasPrefix(line, prefix) && !regexp.MustCompile(says).Match(out) {
				t.Errorf("%s says %s", line, out)
			}
		}
	}
	if ran < 7 || agent == nil {
		t.Errorf("only %d commands were run", ran)
	}
}
