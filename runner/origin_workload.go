package runner

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workload is the SPIFFE Workload API: two streams, one of X.509 authorities and
// one of JWT authorities, on which changes come as they happen. Each message
// has the bundles of several trust domains; the source's own one is taken, and
// the others are not looked at.
type workload struct {
	to      *source
	address string

	ended atomic.Bool // by the broker, which is no failure

	mu   sync.Mutex
	x509 half[*x509bundle.Bundle]
	jwt  half[*jwtbundle.Bundle]
}

// half is one stream's part of the bundle.
type half[B any] struct {
	known  bool // a message came, ever
	open   bool // the stream stands
	bundle B    // nil if the last message had none of the trust domain
	failed error
}

func newWorkload(to *source, address string) *workload {
	return &workload{to: to, address: address}
}

func (w *workload) String() string { return "the Workload API at " + w.address }

func (w *workload) look() {}

// run watches until ctx ends. go-spiffe comes back after a failure, except where
// it thinks that it never can; then a new client tries.
func (w *workload) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { w.ended.Store(true) })()
	for ctx.Err() == nil {
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.address))
		if err != nil {
			_ = w.to.fail(unheard("%v: %v", w, err)) // said in the log and in the status
		} else {
			w.watch(ctx, client)
			_ = client.Close() // nothing depends on it any more
		}
		pause(ctx, shortestRefresh)
	}
}

// watch follows both streams until one of them ends for good.
func (w *workload) watch(ctx context.Context, client *workloadapi.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var both sync.WaitGroup
	for _, follow := range []func(){
		func() { _ = client.WatchX509Bundles(ctx, w) }, // the watcher has heard of the failure
		func() { _ = client.WatchJWTBundles(ctx, w) },
	} {
		both.Go(func() { defer cancel(); follow() })
	}
	both.Wait()
}

// OnX509BundlesUpdate makes workload go-spiffe's watcher, with its fellows.
func (w *workload) OnX509BundlesUpdate(set *x509bundle.Set) {
	b, _ := set.Get(w.to.domain)
	w.update(func() { w.x509 = half[*x509bundle.Bundle]{known: true, open: true, bundle: b} })
}

// OnX509BundlesWatchError hears of a stream that ended.
func (w *workload) OnX509BundlesWatchError(err error) {
	w.update(func() { w.x509.open, w.x509.failed = false, err })
}

// OnJWTBundlesUpdate is as OnX509BundlesUpdate.
func (w *workload) OnJWTBundlesUpdate(set *jwtbundle.Set) {
	b, _ := set.Get(w.to.domain)
	w.update(func() { w.jwt = half[*jwtbundle.Bundle]{known: true, open: true, bundle: b} })
}

// OnJWTBundlesWatchError is as OnX509BundlesWatchError. An agent that knows no
// JWT-SVIDs says so, and is no fault: the domain has no JWT authorities then.
func (w *workload) OnJWTBundlesWatchError(err error) {
	w.update(func() {
		if status.Code(err) == codes.Unimplemented {
			w.jwt = half[*jwtbundle.Bundle]{known: true, open: true}
			return
		}
		w.jwt.open, w.jwt.failed = false, err
	})
}

// update changes what is known, and tells the source.
func (w *workload) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	if !w.ended.Load() {
		_ = w.tell() // said in the log and in the status
	}
}

// tell hands over what both streams say. Called with mu held.
func (w *workload) tell() error {
	open := w.x509.open && w.jwt.open
	if w.to.live.Swap(open) && !open {
		w.to.confirm() // until now
	}
	for _, failed := range []error{w.x509.problem(), w.jwt.problem()} {
		if failed != nil {
			return w.to.fail(w.explain(failed))
		}
	}
	if !w.x509.known || !w.jwt.known {
		return nil // half a bundle is none
	}
	return w.hand(w.x509.bundle, w.jwt.bundle)
}

// hand gives the source both halves, nil for one that isn't there. With neither
// the trust domain is not vouched for any more, which ends it at once.
func (w *workload) hand(certs *x509bundle.Bundle, keys *jwtbundle.Bundle) error {
	if certs == nil && keys == nil {
		return w.to.withdraw(unheard("%v gives no bundle of %s: its SPIFFE authority doesn't federate with that trust domain", w, w.to.domain.Name()))
	}
	data, err := written(w.to.domain, certs, keys)
	if err != nil {
		return w.to.fail(malformed("%v", err))
	}
	return w.to.take(data)
}

func (h half[B]) problem() error {
	if h.open {
		return nil
	}
	return h.failed
}

// explain says what an operator can do about a stream that doesn't stand.
func (w *workload) explain(err error) error {
	switch {
	case status.Code(err) == codes.PermissionDenied:
		return unheard("%v knows no identity for the broker; register the broker as a workload there", w)
	case status.Code(err) == codes.Unavailable:
		return unheard("%v doesn't answer: %s", w, status.Convert(err).Message())
	}
	return unheard("%v: %v", w, err)
}

// written gives both halves in SPIFFE's format, so that they are read as
// strictly as any other bundle.
func written(td spiffeid.TrustDomain, certs *x509bundle.Bundle, keys *jwtbundle.Bundle) ([]byte, error) {
	b := spiffebundle.New(td)
	if certs != nil {
		b.SetX509Authorities(slices.Clone(certs.X509Authorities()))
	}
	if keys != nil {
		b.SetJWTAuthorities(keys.JWTAuthorities())
	}
	if b.Empty() {
		return []byte(`{"keys":[]}`), nil
	}
	return b.Marshal()
}

// refresh asks once, beside the streams.
func (w *workload) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.address))
	if err != nil {
		return w.to.fail(unheard("%v: %v", w, err))
	}
	defer func() { _ = client.Close() }()
	certs, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return w.to.fail(w.explain(err))
	}
	keys, err := client.FetchJWTBundles(ctx)
	if err != nil && status.Code(err) != codes.Unimplemented {
		return w.to.fail(w.explain(err))
	}
	x, _ := certs.Get(w.to.domain)
	var j *jwtbundle.Bundle
	if keys != nil {
		j, _ = keys.Get(w.to.domain)
	}
	return w.hand(x, j)
}
