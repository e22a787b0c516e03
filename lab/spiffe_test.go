package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/proviso-ci/proviso/lab"
)

func newSPIFFE(t *testing.T) *lab.SPIFFE {
	t.Helper()
	s := must[*lab.SPIFFE](t)(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))
	s.Serve("/region/us-west-2/runner/trusted-runner-1")
	return s
}

func newClient(t *testing.T, s *lab.SPIFFE) *workloadapi.Client {
	t.Helper()
	return must[*workloadapi.Client](t)(workloadapi.New(t.Context(), workloadapi.WithAddr(s.Socket())))
}

// go-spiffe's own client gets SVIDs and bundles, and they hold against each other.
func TestWorkloadAPIWithItsOwnClient(t *testing.T) {
	s := newSPIFFE(t)
	c := newClient(t, s)
	want := "spiffe://runners.acme.example/region/us-west-2/runner/trusted-runner-1"

	x := need[*workloadapi.X509Context](t)(c.FetchX509Context(t.Context()))
	svid := x.DefaultSVID()
	if svid.ID.String() != want {
		t.Errorf("the X.509-SVID is for %s", svid.ID)
	}
	if id, _, err := x509svid.Verify(svid.Certificates, x.Bundles); err != nil || id != svid.ID {
		t.Errorf("the bundle says %v %v", id, err)
	}

	j := need[*jwtsvid.SVID](t)(c.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: broker}))
	bundle := need[*spiffebundle.Bundle](t)(spiffebundle.Load(svid.ID.TrustDomain(), s.BundleFile()))
	if got, err := jwtsvid.ParseAndValidate(j.Marshal(), bundle, []string{broker}); err != nil || got.ID != svid.ID {
		t.Errorf("the bundle file says %v", err)
	}
	if _, err := c.ValidateJWTSVID(t.Context(), j.Marshal(), broker); err != nil {
		t.Error(err)
	}
	if _, err := c.ValidateJWTSVID(t.Context(), j.Marshal(), "somebody else"); err == nil {
		t.Error("validated for another audience")
	}
	if set := need[*x509bundle.Set](t)(c.FetchX509Bundles(t.Context())); set.Len() != 1 {
		t.Errorf("%d bundles", set.Len())
	}
}

func TestWorkloadAPIRefuses(t *testing.T) {
	s := newSPIFFE(t)
	conn := must[*grpc.ClientConn](t)(grpc.NewClient("unix://"+strings.TrimPrefix(s.Socket(), "unix://"), grpc.WithTransportCredentials(insecure.NewCredentials())))
	_, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchJWTSVID(t.Context(), &workload.JWTSVIDRequest{Audience: []string{"x"}})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("without the metadata the answer is %v", err)
	}
	s.Serve()
	if _, err := newClient(t, s).FetchX509SVID(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a workload that nobody knows gets %v", err)
	}
}

// A source sees a rotation without asking again.
func TestRotationIsStreamed(t *testing.T) {
	s := newSPIFFE(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	source := must[*workloadapi.X509Source](t)(workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(s.Socket()))))
	before := need[*x509svid.SVID](t)(source.GetX509SVID())
	if err := s.RotateAuthorities(); err != nil {
		t.Fatal(err)
	}
	for {
		now := need[*x509svid.SVID](t)(source.GetX509SVID())
		if !now.Certificates[0].Equal(before.Certificates[0]) {
			b := need[*x509bundle.Bundle](t)(source.GetX509BundleForTrustDomain(now.ID.TrustDomain()))
			if len(b.X509Authorities()) != 2 {
				t.Errorf("after a rotation the bundle has %d roots, want both", len(b.X509Authorities()))
			}
			return
		}
		if err := source.WaitUntilUpdated(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFederatedBundlesAreHandedOut(t *testing.T) {
	a := newSPIFFE(t)
	b := must[*lab.SPIFFE](t)(lab.NewSPIFFE("partner.example", "", lab.SPIFFEOptions{}))
	a.Federate(b)
	b.Federate(a) // both ways, and nobody waits for the other
	x := need[*workloadapi.X509Context](t)(newClient(t, a).FetchX509Context(t.Context()))
	if x.Bundles.Len() != 2 {
		t.Errorf("%d bundles", x.Bundles.Len())
	}
}

func TestBundleEndpointsInBothProfiles(t *testing.T) {
	s := newSPIFFE(t)
	td := spiffeid.RequireTrustDomainFromString(s.TrustDomain())
	own := need[*spiffebundle.Bundle](t)(s.Bundle())
	ca := need[*lab.CA](t)(lab.NewCA("web"))

	web := need[string](t)(s.BundleEndpoint(ca))
	got, err := federation.FetchBundle(t.Context(), td, web, federation.WithWebPKIRoots(ca.Pool()))
	http.DefaultClient.CloseIdleConnections()
	if err != nil || !got.Equal(own) {
		t.Errorf("https_web: %v", err)
	}
	auth := need[string](t)(s.BundleEndpoint(nil))
	got, err = federation.FetchBundle(t.Context(), td, auth, federation.WithSPIFFEAuth(own, spiffeid.RequireFromString(s.BundleEndpointID())))
	if err != nil || !got.Equal(own) {
		t.Errorf("https_spiffe: %v", err)
	}
	s.SetFaults(lab.Faults{Status: 500})
	if _, err := federation.FetchBundle(t.Context(), td, web, federation.WithWebPKIRoots(ca.Pool())); err == nil {
		t.Error("a broken endpoint gave a bundle")
	}
}

// An impostor of the same name is known to no bundle.
func TestImpostor(t *testing.T) {
	s := newSPIFFE(t)
	impostor := must[*lab.SPIFFE](t)(s.Impostor())
	cert := need[tls.Certificate](t)(impostor.X509SVID("/region/us-west-2/runner/trusted-runner-1"))
	bundle := need[*spiffebundle.Bundle](t)(s.Bundle())
	if _, _, err := x509svid.Verify([]*x509.Certificate{cert.Leaf}, bundle); err == nil {
		t.Error("the impostor's SVID was accepted")
	}
	token := need[string](t)(impostor.JWTSVID("/x", broker))
	if _, err := jwtsvid.ParseAndValidate(token, bundle, []string{broker}); err == nil {
		t.Error("the impostor's JWT-SVID was accepted")
	}
}

// Each flaw can be made, and those that go-spiffe checks are refused by it.
func TestFlaws(t *testing.T) {
	s := newSPIFFE(t)
	bundle := need[*spiffebundle.Bundle](t)(s.Bundle())
	tolerated := map[lab.Flaw]bool{lab.NoPath: true, lab.NoSignature: true, lab.CodeSigning: true} // threats: M12
	for _, flaw := range lab.X509Flaws() {
		cert := need[tls.Certificate](t)(s.RogueX509SVID("/ci/job", flaw))
		_, _, err := x509svid.Verify([]*x509.Certificate{cert.Leaf}, bundle)
		if err == nil && !tolerated[flaw] {
			t.Errorf("%s: accepted", flaw)
		}
	}
	if _, err := s.RogueX509SVID("/ci/job", "none"); err == nil {
		t.Error("an unknown flaw was made")
	}
}

func TestBundleFileIsRewrittenAtEachChange(t *testing.T) {
	dir := t.TempDir()
	s := must[*lab.SPIFFE](t)(lab.NewSPIFFE("runners.acme.example", dir, lab.SPIFFEOptions{}))
	td := spiffeid.RequireTrustDomainFromString(s.TrustDomain())
	for _, step := range []struct {
		do    func() error
		roots int
		seq   uint64
	}{
		{func() error { return nil }, 1, 1},
		{s.RotateAuthorities, 2, 2},
		{s.RetireAuthorities, 1, 3},
		{func() error { return s.SetSequence(1) }, 1, 1},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		b := need[*spiffebundle.Bundle](t)(spiffebundle.Load(td, s.BundleFile()))
		if seq, _ := b.SequenceNumber(); len(b.X509Authorities()) != step.roots || seq != step.seq {
			t.Errorf("%d roots, sequence %d, want %d and %d", len(b.X509Authorities()), seq, step.roots, step.seq)
		}
	}
}

func TestLongSocketPathIsRefusedWithAReason(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.NewSPIFFE("a.example", dir, lab.SPIFFEOptions{}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
	if _, err := lab.NewSPIFFE("NOT A DOMAIN", "", lab.SPIFFEOptions{}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
