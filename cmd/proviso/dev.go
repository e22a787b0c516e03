package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/lab"
)

func newDevCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Keep the demo's lab running and print commands to try",
		Long: `Starts the demo's lab and keeps it running until Ctrl-C. It writes what a CI
platform would give a job into a file, prints commands that use it, and shows the
broker's log. Everything is in one temporary directory and goes with it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDev(cmd.Context(), cmd.OutOrStdout(), listen)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "where the broker listens, on loopback")
	return cmd
}

func runDev(ctx context.Context, out io.Writer, listen string) error {
	w, err := newWorld(ctx, listen, newLogger(LogConfig{Level: "info", Format: "text"}))
	if err != nil {
		return refused(err)
	}
	jobs := map[string]lab.Job{
		"main.env":    {Commit: w.signed},
		"release.env": {Commit: w.release, Branch: "release/1.2"},
		"fork.env":    {Commit: w.signed, Event: "pull_request_target", Fork: true, HeadBranch: "evil"},
	}
	for name, job := range jobs {
		if err := w.writeJob(name, job); err != nil {
			return errors.Join(refused(err), w.close())
		}
	}
	self, err := os.Executable()
	if err != nil {
		self = "proviso"
	}
	fmt.Fprint(out, strings.NewReplacer(
		"{dir}", w.dir, "{url}", w.url, "{proviso}", self, "{resource}", w.resource.URL(),
		"{socket}", w.runners.Socket(), "{store}", w.config.Store,
	).Replace(devText))
	<-ctx.Done()
	return w.close()
}

// writeJob writes the variables that GitHub would set for a job, and the
// broker's URL, as a file for a shell.
func (w *world) writeJob(name string, job lab.Job) error {
	env, err := w.github.Start(job).Environment(w.url)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, line := range append(env, "PROVISO_URL="+w.url) {
		key, value, _ := strings.Cut(line, "=")
		if key == "GITHUB_ACTIONS" {
			// A terminal is no job's log: nothing there acts on ::add-mask::.
			key, value = "PROVISO_CI", string(lab.GitHub)
		}
		fmt.Fprintf(&b, "export %s='%s'\n", key, value)
	}
	return os.WriteFile(filepath.Join(w.dir, name), []byte(b.String()), 0o600)
}

const devText = `The lab is running; Ctrl-C ends it. In another terminal:

  # 1. Be a job on main, and use a credential for one command
  . {dir}/main.env
  {proviso} exec --grant deploy-production -- sh -c 'curl -s -X POST -H "Authorization: Bearer $PROVISO_TOKEN" {resource}/deploy'

  # 2. Be a job on a release branch, and read why not
  (. {dir}/release.env; {proviso} token --grant deploy-production)

  # 3. Be a fork's pull request
  (. {dir}/fork.env; {proviso} token --grant read-tenant-data)

  # 4. Prove the runner too: its SVID comes from the Workload API
  SPIFFE_ENDPOINT_SOCKET={socket} {proviso} token --grant deploy-from-fleet --verify-only

  # 5. Be on call, for ten minutes
  {proviso} token --grant debug --purpose debug --ttl 10m --verify-only

  # 6. Keep the whole answer, and prove it with the log's public key alone
  {proviso} token --grant read-tenant-data --output json > {dir}/answer.json
  {proviso} audit verify --key "$({proviso} audit key --store {store})" --receipt {dir}/answer.json --log {store}

  # 7. Who got what
  {proviso} audit search --store {store}

  # 8. Change a policy while the broker runs: its log says when the new one decides, or why not
  ${EDITOR:-vi} {dir}/policy/deployment_approval.rego

The configuration is {dir}/proviso.yaml, the policies are in {dir}/policy.
The broker's log follows.

`
