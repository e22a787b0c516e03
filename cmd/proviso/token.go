package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
)

// tokenOrder is what `proviso token` was told.
type tokenOrder struct {
	asking
	output, env string
	csr         string
	verifyOnly  bool
}

func newTokenCommand() *cobra.Command {
	var o tokenOrder
	cmd := &cobra.Command{
		Use:   "token --grant NAME [flags]",
		Short: "Print a credential for a grant",
		Long: `Token asks the broker for a grant and prints the credential, and nothing else, on
standard output; notes and refusals go to standard error. On GitHub and Forgejo
the token is masked in the job's log first.

A deployed workload, which runs no job, asks for itself with --workload.

Prefer exec: it gives a credential to one command, renews it while that runs,
and leaves nothing behind. What token prints is yours to keep safe.`,
		Example: `  TOKEN=$(proviso token --grant deploy-production)
  curl -H "$(proviso token --grant deploy-production --output header)" https://deploy.acme.example/deploy -X POST
  proviso token --grant client-certificate --csr request.pem > chain.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "token", "token, json (the whole answer, also of a refusal), env (a line for a shell to eval), header (an Authorization header)")
	f.StringVar(&o.env, "env", envCredential, "the variable of --output env")
	f.StringVar(&o.csr, "csr", "", "certificate request in PEM, for a grant that certifies a key of yours")
	f.BoolVar(&o.verifyOnly, "verify-only", false, "ask for real, print what was decided, and throw the credential away")
	return cmd
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (o *tokenOrder) run(cmd *cobra.Command) error {
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	switch {
	case !variableName.MatchString(o.env):
		return fmt.Errorf("--env %q is no name of a variable", o.env)
	case o.output != "token" && o.output != "json" && o.output != "env" && o.output != "header":
		return fmt.Errorf("--output %q: write token, json, env or header", o.output)
	}
	k, err := o.open(cmd.Context(), stderr)
	if none := new(client.NoTokenError); errors.As(err, &none) {
		return &exitError{code: o.complain(stderr, err)}
	} else if err != nil {
		return err
	}
	defer k.close()
	if o.csr != "" {
		if k.req.CSR, err = os.ReadFile(o.csr); err != nil {
			return fmt.Errorf("--csr: %w", err)
		}
		k.req.RequestedTokenType = proviso.TokenTypeX509
	}
	resp, err := k.ask(cmd.Context())
	if err != nil {
		refusal := new(client.RefusedError)
		if o.output == "json" && errors.As(err, &refusal) {
			if err := json.NewEncoder(stdout).Encode(refusal.Answer); err != nil {
				return err
			}
			return &exitError{code: exitRefused}
		}
		return &exitError{code: o.complain(stderr, err)}
	}
	if o.verifyOnly {
		return o.report(stdout, resp)
	}
	mask(stderr, resp)
	k.note("%s granted until %s; decision %s", k.grant, time.Now().Add(life(resp)).UTC().Format("15:04:05Z"), resp.Proviso.Decision)
	return o.print(stdout, resp)
}

func (o *tokenOrder) print(w io.Writer, resp *proviso.TokenResponse) error {
	var err error
	switch o.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		err = e.Encode(resp)
	case "env":
		_, err = fmt.Fprintf(w, "export %s='%s'\n", o.env, strings.ReplaceAll(resp.AccessToken, "'", `'\''`))
	case "header":
		if resp.TokenType == "N_A" {
			return errors.New("a certificate goes into no header")
		}
		_, err = fmt.Fprintf(w, "Authorization: %s %s\n", resp.TokenType, resp.AccessToken)
	default:
		_, err = fmt.Fprintf(w, "%s\n", strings.TrimSuffix(resp.AccessToken, "\n"))
	}
	return err
}

// report prints what was decided, without the credential.
func (o *tokenOrder) report(w io.Writer, resp *proviso.TokenResponse) error {
	if o.output == "json" {
		resp.AccessToken = ""
		return o.print(w, resp)
	}
	c := resp.Proviso.Credential
	var err error
	for _, row := range [][2]string{
		{"granted", o.grant}, {"decision", resp.Proviso.Decision}, {"kind", c.Kind}, {"id", c.ID}, {"audience", c.Audience},
		{"scope", resp.Scope}, {"life", life(resp).String()},
	} {
		if row[1] != "" && err == nil {
			_, err = fmt.Fprintf(w, "%-10s %s\n", row[0], client.Printable(row[1]))
		}
	}
	return err
}
