package agent

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// Bounds of a call.
const (
	maxMessage       = 64 << 10 // a JWT-SVID to validate is the longest that is sent
	maxStreams       = 64       // of a connection
	maxTokens        = 1024     // JWT-SVIDs that are kept
	maxTokenRequests = 16       // that wait for the broker at once
	maxAudience      = 255
)

// serve serves the SPIFFE Workload API until ctx ends.
func (a *Agent) serve(ctx context.Context, listener *net.UnixListener) error {
	d := &doorkeeper{UnixListener: listener, users: map[uint32]int{}, refused: func(err error) {
		a.warn("a connection to the Workload API was closed", "error", err)
	}}
	server := grpc.NewServer(grpc.Creds(peers{}), grpc.UnaryInterceptor(a.guardUnary), grpc.StreamInterceptor(a.guardStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(16<<10), grpc.ConnectionTimeout(5*time.Second))
	workload.RegisterSpiffeWorkloadAPIServer(server, &workloadAPI{agent: a})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	err := server.Serve(d)
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// warn logs what a caller brought about: so much of it that nobody can fill the
// operator's log, and the number of what was left out.
func (a *Agent) warn(message string, args ...any) {
	if !a.callersLog.Allow() {
		a.unsaid.Add(1)
		return
	}
	if n := a.unsaid.Swap(0); n > 0 {
		args = append(args, "left_out_before", n)
	}
	a.log.Warn(message, args...)
}

// guard demands the metadata that no browser and no forwarded request can send
// by accident (Workload API section 3), and knows the caller.
func (a *Agent) guard(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return nil, status.Error(codes.InvalidArgument, "security header missing from request")
	}
	if _, err := callerOf(ctx); err != nil {
		return nil, err
	}
	return ctx, nil
}

func callerOf(ctx context.Context) (*caller, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*caller); ok {
			return c, nil
		}
	}
	return nil, status.Error(codes.PermissionDenied, "the caller is not known")
}

func (a *Agent) guardUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := a.guard(ctx)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (a *Agent) guardStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if _, err := a.guard(stream.Context()); err != nil {
		return err
	}
	return next(srv, stream)
}

// view is what one caller may see at one moment.
type view struct {
	names   []string // of its workloads, in the configuration's order
	svids   []*svid
	own     *svid
	trust   *bundle
	changed <-chan struct{}
}

var (
	errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")
	errNotReady   = status.Error(codes.Unavailable, "the agent has no SVID from its broker yet; it goes on trying")
)

// view finds the caller's workloads. A stranger is told nothing, and logged.
func (a *Agent) view(ctx context.Context, method string) (*view, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{}
	for _, w := range a.cfg.Workloads {
		is, err := c.is(w)
		if err != nil {
			a.warn("a caller of the Workload API can't be told", "workload", w.Name, "pid", c.pid, "uid", c.uid, "error", err)
		} else if is {
			v.names = append(v.names, w.Name)
		}
	}
	if len(v.names) == 0 {
		_, program, _ := c.program()
		a.warn("an unregistered process asked for an SVID", "method", method, "pid", c.pid, "uid", c.uid, "gid", c.gid, "program", program)
		return nil, errNoIdentity
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	v.own, v.trust, v.changed = a.own, a.trust, a.changed
	if a.refused != nil {
		if no := new(refusal); errors.As(a.refused, &no) {
			return nil, status.Errorf(codes.PermissionDenied, "no identity issued: %s", no.text)
		}
	}
	if v.own == nil || v.trust == nil || !now.Before(v.own.cert.NotAfter) {
		return v, errNotReady
	}
	for _, name := range v.names {
		if s := a.workloads[name]; s != nil && now.Before(s.cert.NotAfter) {
			v.svids = append(v.svids, s)
		}
	}
	if len(v.svids) < len(v.names) {
		return v, errNotReady
	}
	return v, nil
}

// workloadAPI is the service.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	agent *Agent
}

// watch sends a message now and at each change of what this caller sees, until
// it goes or is no workload any more.
func (w *workloadAPI) watch(ctx context.Context, method string, same func(a, b *view) bool, send func(*view) error) error {
	var last *view
	for {
		v, err := w.agent.view(ctx, method)
		if err != nil {
			return err
		}
		if last == nil || !same(last, v) {
			if err := send(v); err != nil {
				return err
			}
			last = v
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func sameX509(a, b *view) bool { return bytes.Equal(a.trust.x509, b.trust.x509) }
func sameJWT(a, b *view) bool  { return bytes.Equal(a.trust.jwt, b.trust.jwt) }

func (w *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	same := func(a, b *view) bool { return slices.Equal(a.svids, b.svids) && sameX509(a, b) }
	return w.watch(stream.Context(), "FetchX509SVID", same, func(v *view) error {
		resp := &workload.X509SVIDResponse{}
		for _, s := range v.svids {
			key, err := x509.MarshalPKCS8PrivateKey(s.key)
			if err != nil {
				return status.Error(codes.Internal, "the key can't be written")
			}
			resp.Svids = append(resp.Svids, &workload.X509SVID{SpiffeId: s.id.String(), X509Svid: s.cert.Raw, X509SvidKey: key, Bundle: v.trust.x509})
		}
		return stream.Send(resp)
	})
}

func (w *workloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return w.watch(stream.Context(), "FetchX509Bundles", sameX509, func(v *view) error {
		return stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{v.trust.domain.IDString(): v.trust.x509}})
	})
}

func (w *workloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return w.watch(stream.Context(), "FetchJWTBundles", sameJWT, func(v *view) error {
		return stream.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{v.trust.domain.IDString(): v.trust.jwt}})
	})
}

func (w *workloadAPI) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	v, err := w.agent.view(ctx, "FetchJWTSVID")
	if err != nil {
		return nil, err
	}
	// Each of several audiences could show the token to the others as its own.
	plain := func(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) }
	if len(req.Audience) != 1 || req.Audience[0] == "" || len(req.Audience[0]) > maxAudience || !plain(req.Audience[0]) {
		return nil, status.Error(codes.InvalidArgument, "exactly one audience must be specified")
	}
	resp := &workload.JWTSVIDResponse{}
	for i, name := range v.names {
		if req.SpiffeId != "" && req.SpiffeId != v.svids[i].id.String() {
			continue
		}
		token, err := w.agent.token(ctx, v.own, name, req.Audience[0])
		if err != nil {
			return nil, err
		}
		resp.Svids = append(resp.Svids, &workload.JWTSVID{SpiffeId: token.id, Svid: token.token})
	}
	if len(resp.Svids) == 0 {
		return nil, errNoIdentity
	}
	return resp, nil
}

// token gives a JWT-SVID of a workload: the one that is there while it is young,
// or a new one; the old one to its end where the broker can't be asked.
func (a *Agent) token(ctx context.Context, own *svid, name, audience string) (jwt, error) {
	key := name + "\x00" + audience
	a.mu.Lock()
	have, ok := a.tokens[key]
	a.mu.Unlock()
	now := a.now()
	if ok && now.Before(have.fetchAt) {
		return have, nil
	}
	select {
	case a.tokenSlots <- struct{}{}:
		defer func() { <-a.tokenSlots }()
	case <-ctx.Done():
		return jwt{}, status.FromContextError(ctx.Err()).Err()
	}
	fresh, err := a.broker.fetchJWT(ctx, own, name, audience, now)
	if no := new(refusal); errors.As(err, &no) {
		a.log.Error("a JWT-SVID was refused", "workload", name, "error", a.noteRefusal(err))
		return jwt{}, status.Errorf(codes.PermissionDenied, "no identity issued: %s", no.text)
	} else if err != nil {
		a.log.Error("a JWT-SVID can't be fetched", "workload", name, "error", err)
		if ok && now.Before(have.expires) {
			return have, nil
		}
		return jwt{}, status.Error(codes.Unavailable, "the broker can't be asked for a JWT-SVID now")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own != own && a.own == nil {
		return jwt{}, errNoIdentity // it was lost meanwhile
	}
	if len(a.tokens) >= maxTokens {
		maps.DeleteFunc(a.tokens, func(_ string, t jwt) bool { return !now.Before(t.fetchAt) })
		if len(a.tokens) >= maxTokens {
			clear(a.tokens)
		}
	}
	a.tokens[key] = fresh
	return fresh, nil
}

func (w *workloadAPI) ValidateJWTSVID(ctx context.Context, req *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	v, err := w.agent.view(ctx, "ValidateJWTSVID")
	if err != nil {
		return nil, err
	}
	if req.Audience == "" || req.Svid == "" {
		return nil, status.Error(codes.InvalidArgument, "audience and svid must be specified")
	}
	got, err := jwtsvid.ParseAndValidate(req.Svid, v.trust.parsed.JWTBundle(), []string{req.Audience})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the JWT-SVID is not valid for this audience in the agent's trust domain")
	}
	claims, err := structpb.NewStruct(got.Claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the JWT-SVID's claims can't be given")
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: got.ID.String(), Claims: claims}, nil
}
