package lab

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"time"
)

// Flaw is one rule of the SPIFFE standards that an SVID breaks.
type Flaw string

// Flaws of X.509-SVIDs (X509-SVID sections 2 to 5).
const (
	TwoIDs        Flaw = "two URI names"
	NoID          Flaw = "no URI name"
	NoPath        Flaw = "no path"
	ForeignDomain Flaw = "the name of another trust domain"
	DotSegments   Flaw = "a path with .."
	Encoded       Flaw = "a path with percent-encoding"
	AuthorityLeaf Flaw = "a leaf that is an authority"
	SigningLeaf   Flaw = "a leaf that may sign certificates"
	NoSignature   Flaw = "a leaf that may not sign"
	ExpiredSVID   Flaw = "expired"
	FutureSVID    Flaw = "not valid yet"
	CodeSigning   Flaw = "for code signing only"
)

// X509Flaws lists the flaws that RogueX509SVID knows.
func X509Flaws() []Flaw {
	return []Flaw{TwoIDs, NoID, NoPath, ForeignDomain, DotSegments, Encoded, AuthorityLeaf, SigningLeaf, NoSignature, ExpiredSVID, FutureSVID, CodeSigning}
}

// RogueX509SVID signs an SVID that breaks one rule, with the domain's own key.
func (s *SPIFFE) RogueX509SVID(path string, flaw Flaw) (tls.Certificate, error) {
	now := s.opts.Now()
	uri := func(raw string) *url.URL { return &url.URL{Scheme: "spiffe", Host: s.td.Name(), Path: raw} }
	edit, ok := map[Flaw]func(*x509.Certificate){
		TwoIDs:        func(c *x509.Certificate) { c.URIs = append(c.URIs, uri(path+"/two")) },
		NoID:          func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"runner.acme.example"} },
		NoPath:        func(c *x509.Certificate) { c.URIs = []*url.URL{uri("")} },
		ForeignDomain: func(c *x509.Certificate) { c.URIs[0].Host = "elsewhere.example" },
		DotSegments:   func(c *x509.Certificate) { c.URIs = []*url.URL{uri("/ci/../admin")} },
		Encoded:       func(c *x509.Certificate) { c.URIs = []*url.URL{uri("/ci/a b")} }, // written as a%20b
		AuthorityLeaf: func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign },
		SigningLeaf:   func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		NoSignature:   func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment },
		ExpiredSVID:   func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour) },
		FutureSVID:    func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(time.Hour), now.Add(2*time.Hour) },
		CodeSigning:   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
	}[flaw]
	if !ok {
		return tls.Certificate{}, fmt.Errorf("lab: no X.509-SVID has the flaw %q", flaw)
	}
	return s.X509SVID(path, edit)
}
