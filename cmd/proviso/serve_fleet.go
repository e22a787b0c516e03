package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/runner"
)

// ownRunners is the entry of runners for the broker's own trust domain; nil
// without one.
func (c *Config) ownRunners() *runner.Config {
	for i := range c.Runners {
		if c.Runners[i].Bundle.Own {
			return &c.Runners[i]
		}
	}
	return nil
}

// runnerConfigs are the entries of runners as they are verified: a workload on
// the machine of a runner of the own fleet proves that runner.
func (c *Config) runnerConfigs() []runner.Config {
	all := slices.Clone(c.Runners)
	for i := range all {
		if !all[i].Bundle.Own {
			continue
		}
		templates := slices.Clone(all[i].Paths)
		if all[i].Path != "" {
			templates = append([]string{all[i].Path}, templates...)
		}
		for _, text := range templates {
			all[i].Paths = append(slices.Clip(all[i].Paths), text+"/workload/{workload}")
		}
	}
	return all
}

// checkDomain finds what doesn't fit between the trust domain, its runners and
// the grants that issue SVIDs.
func (c *Config) checkDomain() []problem {
	var out []problem
	add := func(path, message string, args ...any) {
		out = append(out, problem{path: path, message: fmt.Sprintf(message, args...)})
	}
	for _, p := range c.TrustDomain.Validate() {
		add("trust_domain."+p.Path, "%s", p.Message)
	}
	for _, p := range c.Fleet.Validate() {
		add("fleet."+p.Path, "%s", p.Message)
	}
	var taken []string
	for i, r := range c.Runners {
		at := fmt.Sprintf("runners[%d].", i)
		switch own := !c.TrustDomain.IsZero() && r.TrustDomain == c.TrustDomain.Name; {
		case r.Bundle.Own && c.TrustDomain.IsZero():
			add(at+"bundle.own", "is set, and the section trust_domain is missing: the broker has no trust domain of its own")
		case r.Bundle.Own && !own:
			add(at+"trust_domain", "is %q, and the broker's own trust domain is %q", r.TrustDomain, c.TrustDomain.Name)
		case own && !r.Bundle.Own:
			add(at+"bundle", "is of the broker's own trust domain, whose keys come from nowhere else: write bundle: {own: true}")
		}
		if r.Bundle.Own {
			taken = append(taken, r.Path)
			taken = append(taken, r.Paths...)
		}
	}
	if c.Fleet.TTL != 0 || c.Fleet.JWTTTL != 0 || len(c.Fleet.Evidence) > 0 {
		if c.ownRunners() == nil {
			add("fleet", "is set, and no entry of runners has bundle: {own: true}: there is no fleet")
		}
	}
	for i, kind := range c.Fleet.Evidence {
		if evidence.Type(kind) == "" {
			continue // said by the section itself
		}
		if !slices.ContainsFunc(c.Runners, func(r runner.Config) bool { return r.Kind() == kind }) {
			add(fmt.Sprintf("fleet.evidence[%d]", i), "is %q, and no entry of runners takes it: nothing could be verified; add one with %s: {...}", kind, kind)
		}
	}
	for name, g := range c.Grants {
		_, path, ok := strings.Cut(strings.TrimPrefix(g.Credential.URI, "spiffe://"), "/")
		if !strings.HasSuffix(g.Credential.Kind, "-svid") || !ok {
			continue
		}
		for _, reserved := range append(taken, endpointPath) {
			if reserved != "" && meets(path, strings.TrimPrefix(reserved, "/")) {
				add("grants."+name+".credential.uri", "can become the name of a runner or of the broker itself (%s): a job could pass for one; give jobs a path of their own, as /job/{issuer}/{repository_id}", reserved)
			}
		}
	}
	return out
}

// meets reports whether some path fits both templates, or lies below the second.
func meets(a, b string) bool {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	if len(as) < len(bs) {
		return false
	}
	for i, s := range bs {
		if !strings.Contains(s, "{") && !strings.Contains(as[i], "{") && s != as[i] {
			return false
		}
	}
	return true
}

// openDomain opens the broker's own trust domain, if it has one.
func (r *running) openDomain(ctx context.Context) (err error) {
	if r.config.TrustDomain.IsZero() {
		return nil
	}
	if r.domain, err = credential.OpenDomain(filepath.Join(r.config.Store, "domain"), r.config.TrustDomain, nil); err != nil {
		return err
	}
	go r.domain.Run(ctx, func(err error) { r.logger.Error("the trust domain's keys", "error", err) })
	return nil
}

// emptyBundle stands for the own trust domain's keys where nothing is opened.
func (c *Config) emptyBundle() func() []byte {
	if c.TrustDomain.IsZero() {
		return nil
	}
	return func() []byte { return []byte(`{"keys":[],"spiffe_sequence":1}`) }
}

// ownBundle is the bundle for the entry of the own trust domain; nil without one.
func (r *running) ownBundle() func() []byte {
	if r.domain == nil {
		return nil
	}
	return r.domain.Bundle
}

// publishedBundle is what the server publishes; nil without a trust domain.
func (r *running) publishedBundle() func() ([]byte, time.Duration) {
	if r.domain == nil {
		return nil
	}
	return func() ([]byte, time.Duration) { return r.domain.Bundle(), r.domain.RefreshHint() }
}

// openEnrolment makes what the fleet's runners get.
func (r *running) openEnrolment(minter *credential.Minter) (err error) {
	if own := r.config.ownRunners(); own != nil {
		r.parts.Enrolment, err = broker.NewEnrolment(r.config.Fleet, *own, minter)
	}
	return err
}

// serveFleet starts what the fleet has beside the door: the operator's socket
// and the bundle's endpoint.
func (r *running) serveFleet(ctx context.Context, minter *credential.Minter) error {
	if err := r.serveAdmin(ctx); err != nil {
		return err
	}
	if r.domain == nil || r.config.TrustDomain.BundleListen == "" {
		return nil
	}
	e := &endpoint{ctx: ctx, broker: r.broker, id: r.domain.ID(endpointPath)}
	var err error
	if e.offer, err = minter.RunnerOffer("x509-svid", endpointLife); err != nil {
		return err
	}
	if _, err := e.certificate(nil); err != nil {
		return fmt.Errorf("the bundle endpoint's SVID: %w", err)
	}
	return r.background(ctx, "bundle endpoint", func(ctx context.Context) error {
		return r.server.ServeBundle(ctx, r.config.TrustDomain.BundleListen, e.certificate)
	})
}

// background runs something until the broker is closed, and waits for it then.
func (r *running) background(ctx context.Context, what string, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := serve(ctx); err != nil {
			r.logger.Error(what, "error", err)
		}
	}()
	r.onClose(func() error { cancel(); <-ended; return nil })
	return nil
}

// adminSocket is where a running broker takes orders.
func (c *Config) adminSocket() string { return filepath.Join(c.Store, "admin.sock") }

const maxSocketPath = 103 // of sockaddr_un, on every Unix

func (r *running) serveAdmin(ctx context.Context) error {
	path := r.config.adminSocket()
	if len(path) > maxSocketPath {
		r.logger.Warn("the path of the operator's socket is too long; proviso runner works only while the broker is stopped", "path", path, "at_most", maxSocketPath)
		return nil
	}
	// The store's lock says that nobody else serves here: what lies there is left over.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	var name func(map[string]string) (string, error)
	if r.parts.Enrolment != nil {
		name = r.parts.Enrolment.Name
	}
	return r.background(ctx, "the operator's socket", func(ctx context.Context) error { return r.server.ServeAdmin(ctx, listener, name) })
}

// The bundle endpoint's SVID.
const (
	endpointPath = "/bundle-endpoint"
	endpointLife = time.Hour
)

// endpoint keeps the SVID of the bundle endpoint fresh.
type endpoint struct {
	ctx    context.Context
	broker *broker.Broker
	offer  *credential.Offer
	id     string

	mu      sync.Mutex
	current *tls.Certificate
}

// certificate gives the SVID of the moment; a new one from half of its life on.
func (e *endpoint) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current != nil && time.Until(e.current.Leaf.NotAfter) > endpointLife/2 {
		return e.current, nil
	}
	fresh, err := e.issue()
	if err != nil && e.current != nil && time.Now().Before(e.current.Leaf.NotAfter) {
		return e.current, nil // the record is away for a moment; the log says so
	} else if err != nil {
		return nil, err
	}
	e.current = fresh
	return fresh, nil
}

func (e *endpoint) issue() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
	defer cancel()
	got, err := e.broker.EndpointSVID(ctx, e.offer, e.id, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(got.Credential.Reveal()))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key, Leaf: leaf}, nil
}
