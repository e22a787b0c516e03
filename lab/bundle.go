package lab

import (
	"crypto/tls"
	"net/http"
	"time"
)

// BundleEndpoint starts an endpoint of the trust domain's bundle (SPIFFE
// Federation section 5) and gives its URL. With a CA it follows the profile
// https_web, without one https_spiffe: the endpoint then shows an X.509-SVID
// for /bundle-endpoint, whose ID is BundleEndpointID.
func (s *SPIFFE) BundleEndpoint(web *CA) (string, error) {
	conf, err := web.serverTLS()
	if err != nil {
		return "", err
	}
	if conf == nil {
		conf = &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				s.mu.Lock()
				oldest := s.cas[0] // the one that its readers know
				s.mu.Unlock()
				cert, err := s.x509SVID(oldest, "/bundle-endpoint", nil)
				return &cert, err
			},
		}
	}
	e, err := serve(http.HandlerFunc(s.serveBundle), conf)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, e)
	return e.url + "/bundle", nil
}

// BundleEndpointID is the SPIFFE ID of an https_spiffe endpoint.
func (s *SPIFFE) BundleEndpointID() string { return s.ID("/bundle-endpoint") }

// SetFaults makes the bundle endpoints misbehave; the zero value ends it.
func (s *SPIFFE) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// SetSequence sets the bundle's sequence number, also backwards, and writes the
// bundle file again.
func (s *SPIFFE) SetSequence(n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence = n - 1
	return s.writeBundle()
}

// SetRefreshHint changes what the bundle asks its readers for.
func (s *SPIFFE) SetRefreshHint(d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.RefreshHint = d
	return s.writeBundle()
}

func (s *SPIFFE) serveBundle(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	f := s.faults
	b, err := s.bundle()
	s.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	data, err := b.Marshal()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if !f.concerns("bundle") {
		f = Faults{}
	}
	f.answer(w, r, data)
}
