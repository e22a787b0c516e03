package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// world is what a broker under load needs around it.
type world struct {
	binary string
	dir    string
	issuer *lab.Issuer
	// requests are whole HTTP requests, each with a job token of its own. Every
	// load starts a broker with an empty store, so they can be used again.
	requests [][]byte
	address  string
	// operations is the address of the operations listener, empty for none, and
	// loaded is called when a broker is about to be driven.
	operations string
	loaded     func()
}

// tokensMade bounds how many exchanges a load can have. Signing them takes
// a while, and is not measured.
const tokensMade = 20000

func newWorld(ctx context.Context, binary string) (*world, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "proviso-bench")
	if err != nil {
		return nil, err
	}
	issuer, err := lab.NewIssuer(lab.GitHub, lab.IssuerOptions{Life: time.Hour})
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	w := &world{binary: binary, dir: dir, issuer: issuer, address: address}
	fmt.Printf("signing %d job tokens ...\n", tokensMade)
	for range tokensMade {
		token, err := issuer.Token(lab.Job{}, "http://"+address)
		if err != nil {
			return nil, err
		}
		w.requests = append(w.requests, w.request(token))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return w, nil
}

func (w *world) close() {
	_ = w.issuer.Close()
	_ = os.RemoveAll(w.dir)
}

func (w *world) request(token string) []byte {
	form := url.Values{
		"grant_type":         {proviso.GrantTypeTokenExchange},
		"subject_token":      {token},
		"subject_token_type": {proviso.TokenTypeJWT},
		"audience":           {"grant-3"},
	}.Encode()
	return fmt.Appendf(nil, "POST /token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		w.address, len(form), form)
}

// next hands out each request once.
func (w *world) next() func() []byte {
	var i atomic.Int64
	return func() []byte {
		n := int(i.Add(1)) - 1
		if n >= len(w.requests) {
			return nil
		}
		return w.requests[n]
	}
}

// shape is what a broker under load is configured with.
type shape struct{ grants int }

// benchPolicy is the seed's first policy, without the clock, which the machine
// that runs this doesn't choose.
const benchPolicy = `package guard%d

allow if {
	input.identity.role == "ci-cd-pipeline"
	input.identity.repository_id == "741200456"
	input.context.branch == "main"
	input.context.environment == "production"
	input.context.time >= "00:00"
	input.context.time <= "23:59"
	input.resource.name == "grant-%d"
}
`

func (w *world) configure(s shape) (string, error) {
	dir, err := os.MkdirTemp(w.dir, "broker")
	if err != nil {
		return "", err
	}
	policies := filepath.Join(dir, "policy")
	if err := os.Mkdir(policies, 0o755); err != nil {
		return "", err
	}
	var c strings.Builder
	fmt.Fprintf(&c, `server:
  listen: %[1]s
  url: http://%[1]s
  operations: "%[3]s"
  limits: {issuer_rate: 1000000}
store: data
log: {level: error}
issuers:
  - name: github
    platform: github
    url: %[2]s
    allow_private: true
    require: {repository_owner_id: "61200123"}
    tenant: acme
    role: ci-cd-pipeline
    events: [push]
    max_age: 1h
policy: {dir: policy, zone: UTC}
grants:
`, w.address, w.issuer.URL(), w.operations)
	for i := range s.grants {
		fmt.Fprintf(&c, "  grant-%[1]d: {resource: {service: shipping, environment: production, tenant: acme}, policy: guard%[1]d, runner: none, credential: {kind: jwt, audience: \"https://deploy.example\", scope: [deploy]}}\n", i)
		name := filepath.Join(policies, fmt.Sprintf("guard%d.rego", i))
		if err := os.WriteFile(name, fmt.Appendf(nil, benchPolicy, i, i), 0o644); err != nil {
			return "", err
		}
	}
	file := filepath.Join(dir, "proviso.yaml")
	return file, os.WriteFile(file, []byte(c.String()), 0o644)
}

// cheapest loads a broker several times and gives the round that cost the least
// CPU, whole: rate and times are that round's own.
func (w *world) cheapest(ctx context.Context, s shape, d time.Duration) (best outcome, err error) {
	for round := range rounds {
		o, err := w.load(ctx, s, d)
		if err != nil {
			return outcome{}, err
		}
		if round == 0 || o.cpu < best.cpu {
			best = o
		}
	}
	return best, nil
}

// load starts a broker on an empty store and drives it.
func (w *world) load(ctx context.Context, s shape, d time.Duration) (outcome, error) {
	config, err := w.configure(s)
	if err != nil {
		return outcome{}, err
	}
	cmd, started, err := startProcess(ctx, w.address, w.binary, "serve", "-c", config)
	if err != nil {
		return outcome{}, err
	}
	defer stop(cmd)
	// The first requests fetch the issuer's keys, warm the caches, and bring the
	// heap to the size that it keeps: what a page costs when it is touched for the
	// first time differs between machines by a factor of fifty, and a broker pays
	// it once.
	next := w.next()
	warm := int64(6000)
	var warmed atomic.Int64
	if _, err := drive(ctx, cmd.Process.Pid, w.address, func() []byte {
		if warmed.Add(1) > warm {
			return nil
		}
		return next()
	}, 5*d); err != nil {
		return outcome{}, err
	}
	if w.loaded != nil {
		w.loaded()
	}
	o, err := drive(ctx, cmd.Process.Pid, w.address, next, d)
	o.start = started
	return o, err
}

// download fetches a URL into a file.
func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
