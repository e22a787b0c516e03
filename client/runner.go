package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// SocketVariable names the SPIFFE Workload API's socket, as unix:///path.
const SocketVariable = "SPIFFE_ENDPOINT_SOCKET"

const workloadTimeout = 10 * time.Second

// RunnerToken gets the runner's JWT-SVID for the broker from the SPIFFE
// Workload API: the broker reads it as actor_token.
func RunnerToken(ctx context.Context, socket, audience string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, workloadTimeout)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}, workloadapi.WithAddr(socket))
	if err != nil {
		return "", workloadError(socket, err)
	}
	return svid.Marshal(), nil
}

// RunnerCertificate is the runner's X.509-SVID, for the TLS handshake with the
// broker. It follows the Workload API's rotation until Close.
type RunnerCertificate struct{ source *workloadapi.X509Source }

// OpenRunnerCertificate waits, not long, for the first SVID.
func OpenRunnerCertificate(ctx context.Context, socket string) (*RunnerCertificate, error) {
	wait, cancel := context.WithTimeout(ctx, workloadTimeout)
	defer cancel()
	addr := workloadapi.WithAddr(socket)
	// A source goes on asking whoever refuses it; one question first tells why.
	if _, err := workloadapi.FetchX509SVID(wait, addr); err != nil {
		return nil, workloadError(socket, err)
	}
	source, err := workloadapi.NewX509Source(wait, workloadapi.WithClientOptions(addr))
	if err != nil {
		return nil, workloadError(socket, err)
	}
	return &RunnerCertificate{source}, nil
}

// Certificate gives the SVID of this moment, for Config.Certificate.
func (r *RunnerCertificate) Certificate() (*tls.Certificate, error) {
	svid, err := r.source.GetX509SVID()
	if err != nil {
		return nil, fmt.Errorf("the runner's X.509-SVID: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// Close stops following the rotation.
func (r *RunnerCertificate) Close() error { return r.source.Close() }

func workloadError(socket string, err error) error {
	why := err
	switch {
	case status.Code(err) == codes.PermissionDenied:
		why = errors.New("it knows no identity for this process; register this runner's workload (uid, path) with its SPIFFE authority")
	case status.Code(err) == codes.Unavailable:
		why = errors.New("nobody answers there")
	}
	return fmt.Errorf("the runner has no SVID: the SPIFFE Workload API at %s: %w", socket, why)
}
