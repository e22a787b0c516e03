package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/store"
)

// order brings an operator's order to the broker: over its socket while it runs,
// else to its store, which then nobody else has open.
func (c *Config) order(ctx context.Context, o fleet.Order) (fleet.Answer, error) {
	answer, err := askAdmin(ctx, c.adminSocket(), o)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return answer, err
	}
	db, err := store.Open(c.Store)
	if err != nil {
		return fleet.Answer{}, err
	}
	defer db.Close()
	log, err := audit.Open(ctx, db, audit.Config{Origin: c.origin(), Broker: version(), Logger: quiet})
	if err != nil {
		return fleet.Answer{}, err
	}
	defer log.Close()
	f, err := fleet.Open(ctx, db, log, nil)
	if err != nil {
		return fleet.Answer{}, err
	}
	var name func(map[string]string) (string, error)
	if own := c.ownRunners(); own != nil {
		name = func(values map[string]string) (string, error) {
			path, err := own.Expand(values)
			return "spiffe://" + own.TrustDomain + path, err
		}
	}
	return f.Obey(ctx, o, name)
}

// askAdmin sends an order to a running broker.
func askAdmin(ctx context.Context, socket string, o fleet.Order) (answer fleet.Answer, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return answer, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://broker/fleet", bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return answer, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer, errors.New(strings.TrimSpace(string(data)))
	}
	return answer, json.Unmarshal(data, &answer)
}

// orderWith reads the broker's configuration and brings the order to it.
func orderWith(ctx context.Context, file string, o fleet.Order) (fleet.Answer, error) {
	config, _, err := readConfig(file)
	if err != nil {
		return fleet.Answer{}, err
	}
	answer, err := config.order(ctx, o)
	if err != nil {
		return answer, refused(err)
	}
	return answer, nil
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "proviso.yaml", "the broker's configuration file")
}

func newJoinTokenCommand() *cobra.Command {
	var file, id string
	var set map[string]string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token for one runner, good for one join",
		Long: `Prints a join token, and nothing else, on standard output. It is a secret: give it
to the agent of the machine that is to be the runner, which uses it up. Whoever
joins by it ends what an earlier machine of the same name holds.`,
		Args:    cobra.NoArgs,
		Example: "  proviso runner token create --id runner-1 --set region=eu --ttl 10m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if set == nil {
				set = map[string]string{}
			}
			if id != "" {
				set["id"] = id
			}
			if ttl < time.Second {
				return fmt.Errorf("--ttl %v: a token lives for at least a second", ttl)
			}
			answer, err := orderWith(cmd.Context(), file, fleet.Order{Do: "token", Values: set, TTL: int64((ttl + time.Second - 1) / time.Second)})
			if err != nil {
				return err
			}
			say(cmd.ErrOrStderr(), "for %s, good for one join until %s", answer.Name, answer.Expires.Local().Format("2006-01-02 15:04:05 MST"))
			fmt.Fprintln(cmd.OutOrStdout(), answer.Token)
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&id, "id", "", "the runner's id, {id} of the fleet's path")
	cmd.Flags().StringToStringVar(&set, "set", nil, "further values of the fleet's path, as region=eu")
	cmd.Flags().DurationVar(&ttl, "ttl", fleet.DefaultTokenLife, "how long the token can be used")
	return cmd
}

func newStandingCommand(do, short, long string) *cobra.Command {
	return newOrderCommand(do, do+" NAME", short, long+`

NAME is the last segment of the SPIFFE ID of a runner that proviso runner list
shows, or a whole SPIFFE ID, or ENTRY/ID of a runner with other evidence.`, func(answer fleet.Answer) string {
		done := map[string]string{"ban": "is banned", "unban": "is no longer banned", "reattest": "has to join again"}[do]
		switch isSPIFFE := strings.HasPrefix(answer.Name, "spiffe://"); {
		case answer.Rekeyed && isSPIFFE:
			done += ", and may come with another key"
		case answer.Rekeyed:
			done = "may come with another key"
		}
		return answer.Name + " " + done
	})
}

func newForgetBundleCommand() *cobra.Command {
	return newOrderCommand("forget-bundle", "forget TRUST_DOMAIN", "Let a trust domain's bundle begin anew",
		`A bundle whose sequence is lower than the highest that the broker ever saw is
refused, also after a restart: it may hold a key that was withdrawn since. A trust
domain whose authority was made anew begins with a low one. Ask its owner before
you say so. A broker that runs has to be started again afterwards.`, func(answer fleet.Answer) string {
			return "the sequence of " + answer.Name + "'s bundle is forgotten; a broker that runs goes by what it has seen until it is started again"
		})
}

// newOrderCommand makes a command that gives one order about its argument, with a
// reason for the record, and says what was done.
func newOrderCommand(do, use, short, long string, done func(fleet.Answer) string) *cobra.Command {
	var file, reason string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := orderWith(cmd.Context(), file, fleet.Order{Do: do, Name: args[0], Reason: reason})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), done(answer))
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&reason, "reason", "", "a line for the record")
	return cmd
}

func newRunnerListCommand() *cobra.Command {
	var file, output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the runners that joined, and those that are banned",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := isOutput(output); err != nil {
				return err
			}
			answer, err := orderWith(cmd.Context(), file, fleet.Order{Do: "list"})
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(answer.Runners)
			}
			printRunners(cmd.OutOrStdout(), answer.Runners, time.Now())
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&output, "output", "text", "text or json")
	return cmd
}

func printRunners(out io.Writer, runners []store.Runner, now time.Time) {
	if len(runners) == 0 {
		fmt.Fprintln(out, "no runner has joined, and none is banned")
		return
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "RUNNER\tSTATE\tJOINED BY\tSVID")
	for _, r := range runners {
		state := "good"
		switch {
		case !r.Banned.IsZero():
			state = "banned " + r.Banned.Local().Format("2006-01-02 15:04")
			if r.Reason != "" {
				state += ": " + r.Reason
			}
		case r.MustJoin:
			state = "must join again"
		case !r.Joined.IsZero() && now.After(r.Expires):
			state = "away"
		}
		svid := "none of ours"
		if !r.Expires.IsZero() {
			svid = "until " + r.Expires.Local().Format("2006-01-02 15:04:05")
		}
		by := r.Evidence
		if by == "" {
			by = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, state, by, svid)
	}
	_ = w.Flush() // a terminal that went away
}
