package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/gate"
)

// gateConfig is the file of `proviso gate`: where it listens, and what a gate
// needs to know.
type gateConfig struct {
	// Listen is where the web server's sub-requests come in: loopback, or a
	// network that only the web server reaches.
	Listen      string `yaml:"listen"`
	gate.Config `yaml:",inline"`
}

func newGateCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "gate",
		Short: "Check Proviso's tokens for a web server (nginx auth_request, Caddy and Traefik forward-auth)",
		Long: `Answers a web server's sub-requests: may this request pass? The gate checks the
token offline with the keys that the broker publishes; what it can't check it
refuses. A gate's file names the issuer, the proxies whose headers are believed,
and rules by path and method; docs/operate.md has one for nginx.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := readGateConfig(file)
			if err != nil {
				return err
			}
			logger := newLogger(LogConfig{})
			g, err := gate.New(config.Config, gate.Options{Log: logger})
			if err != nil {
				return refused(err)
			}
			g.Start(cmd.Context())
			defer g.Close()
			mux := http.NewServeMux()
			mux.Handle("/", g.ForwardAuth())
			mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
			mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
				if err := g.Ready(); err != nil {
					logger.Warn("not ready", "error", err)
					http.Error(w, "not ready: the gate's log says why", http.StatusServiceUnavailable)
					return
				}
				fmt.Fprintln(w, "ready")
			})
			listener, err := net.Listen("tcp", config.Listen)
			if err != nil {
				return refused(fmt.Errorf("can't listen on %s: %w", config.Listen, err))
			}
			logger.Info("gate is serving", "listen", listener.Addr().String(), "issuer", config.Issuer)
			return serveUntil(cmd.Context(), listener, mux)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "gate.yaml", "the gate's file")
	return cmd
}

func readGateConfig(file string) (*gateConfig, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("can't read the gate's file: %w", err)
	}
	var c gateConfig
	d, err := decode(file, data, &c)
	if err != nil {
		return nil, err
	}
	if c.Listen == "" {
		return nil, &configErrors{file, []string{file + ":1:1: listen is missing; write where the web server asks, as 127.0.0.1:9000"}}
	}
	var problems []string
	for _, p := range c.Validate() {
		problems = append(problems, d.place(p.Path)+": "+p.Path+" "+p.Message)
	}
	if len(problems) > 0 {
		sortByPlace(problems)
		return nil, &configErrors{file, problems}
	}
	return &c, nil
}

// serveUntil serves until ctx ends, and then finishes what has begun.
func serveUntil(ctx context.Context, listener net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(listener) }()
	select {
	case err := <-failed:
		return refused(err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.Shutdown(drain); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return refused(err)
	}
	return nil
}
