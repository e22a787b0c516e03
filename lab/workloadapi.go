package lab

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// workloadAPI serves the SPIFFE Workload API on a Unix socket: X.509- and
// JWT-SVIDs, bundles, validation, and a new message on each stream whenever
// something changes.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	authority *SPIFFE
	path      string
	grpc      *grpc.Server
	done      chan struct{}
}

// maxSocketPath is what sockaddr_un holds on every Unix, with its final zero.
const maxSocketPath = 103

func serveWorkloadAPI(s *SPIFFE, path string) (*workloadAPI, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("lab: %s is %d bytes long, and a Unix socket's path has at most %d: give a shorter directory, or none", path, len(path), maxSocketPath)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // every process of the machine is a workload
		_ = l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	a := &workloadAPI{authority: s, path: path, done: make(chan struct{})}
	a.grpc = grpc.NewServer(grpc.UnaryInterceptor(a.guardUnary), grpc.StreamInterceptor(a.guardStream))
	workload.RegisterSpiffeWorkloadAPIServer(a.grpc, a)
	go func() {
		defer close(a.done)
		_ = a.grpc.Serve(l) // nothing but close ends it
	}()
	return a, nil
}

func (a *workloadAPI) close() {
	a.grpc.Stop()
	<-a.done
	_ = os.Remove(a.path)
}

// guard demands the metadata that no browser and no forwarded request can send
// by accident (Workload API section 3).
func guard(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func (a *workloadAPI) guardUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := guard(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (a *workloadAPI) guardStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := guard(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// view is the authority at one moment.
type view struct {
	served  []string
	changed <-chan struct{}
	x509    map[string][]byte // DER authorities by trust domain ID
	jwt     map[string][]byte // key sets by trust domain ID
}

func (a *workloadAPI) view() (view, error) {
	s := a.authority
	s.mu.Lock()
	v := view{served: s.served, changed: s.changed, x509: map[string][]byte{}, jwt: map[string][]byte{}}
	others := []*SPIFFE{s}
	for _, o := range s.federated {
		others = append(others, o)
	}
	s.mu.Unlock()
	for _, o := range others { // one lock at a time: two domains may federate with each other
		b, err := o.Bundle()
		if err != nil {
			return view{}, err
		}
		var der []byte
		for _, c := range b.X509Authorities() {
			der = append(der, c.Raw...)
		}
		v.x509[o.td.IDString()] = der
		keys, err := b.JWTBundle().Marshal()
		if err != nil {
			return view{}, fmt.Errorf("lab: %w", err)
		}
		v.jwt[o.td.IDString()] = keys
	}
	return v, nil
}

func (v view) allowed() error {
	if len(v.served) == 0 {
		return status.Error(codes.PermissionDenied, "no identity issued")
	}
	return nil
}

// watch sends a message now and at each change, until the caller goes.
func (a *workloadAPI) watch(ctx context.Context, send func(view) error) error {
	for {
		v, err := a.view()
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := v.allowed(); err != nil {
			return err
		}
		if err := send(v); err != nil {
			return err
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return a.watch(stream.Context(), func(v view) error {
		own := a.authority.td.IDString()
		resp := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
		for td, der := range v.x509 {
			if td != own {
				resp.FederatedBundles[td] = der
			}
		}
		for _, id := range v.served {
			cert, err := a.authority.X509SVID(id[len(own):])
			if err != nil {
				return status.Error(codes.Unavailable, err.Error())
			}
			key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
			if err != nil {
				return status.Error(codes.Unavailable, err.Error())
			}
			resp.Svids = append(resp.Svids, &workload.X509SVID{SpiffeId: id, X509Svid: cert.Leaf.Raw, X509SvidKey: key, Bundle: v.x509[own]})
		}
		return stream.Send(resp)
	})
}

func (a *workloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return a.watch(stream.Context(), func(v view) error {
		return stream.Send(&workload.X509BundlesResponse{Bundles: v.x509})
	})
}

func (a *workloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return a.watch(stream.Context(), func(v view) error {
		return stream.Send(&workload.JWTBundlesResponse{Bundles: v.jwt})
	})
}

func (a *workloadAPI) FetchJWTSVID(_ context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if len(req.Audience) == 0 {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	v, err := a.view()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if err := v.allowed(); err != nil {
		return nil, err
	}
	resp := &workload.JWTSVIDResponse{}
	for _, id := range v.served {
		if req.SpiffeId != "" && req.SpiffeId != id {
			continue
		}
		token, err := a.authority.jwtSVID(id, req.Audience, nil)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		resp.Svids = append(resp.Svids, &workload.JWTSVID{SpiffeId: id, Svid: token})
	}
	if len(resp.Svids) == 0 {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	return resp, nil
}

func (a *workloadAPI) ValidateJWTSVID(_ context.Context, req *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	if req.Audience == "" || req.Svid == "" {
		return nil, status.Error(codes.InvalidArgument, "audience and svid must be specified")
	}
	v, err := a.view()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	bundles := jwtbundle.NewSet()
	for td, keys := range v.jwt {
		b, err := jwtbundle.Parse(spiffeid.RequireTrustDomainFromString(td), keys)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		bundles.Add(b)
	}
	svid, err := jwtsvid.ParseAndValidate(req.Svid, bundles, []string{req.Audience})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: svid.ID.String()}, nil // claims are optional
}
