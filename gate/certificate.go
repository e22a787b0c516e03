package gate

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/proviso-ci/proviso"
)

// CertificateHeader is how a TLS-terminating proxy hands on the client's
// certificate. The proxy must set or remove the header on every request, or
// clients write it themselves.
type CertificateHeader struct {
	// Header is its name, as X-Client-Cert.
	Header string `yaml:"header,omitempty"`
	// Encoding is how the certificate is written:
	//   url-pem     nginx: proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
	//   base64-der  Caddy: header_up X-Client-Cert {tls_client_certificate_der_base64}; Traefik's passTLSClientCert
	//   rfc9440     Client-Cert: :MIIB...:
	Encoding string `yaml:"encoding,omitempty"`
}

const (
	encodingURLPEM    = "url-pem"
	encodingBase64DER = "base64-der"
	encodingRFC9440   = "rfc9440"
)

func (c CertificateHeader) validate(proxies bool) []Problem {
	if c == (CertificateHeader{}) {
		return nil
	}
	var out []Problem
	if !isToken68(c.Header) || strings.ContainsAny(c.Header, "/+=") {
		out = append(out, problem("client_certificate.header", "%q is not the name of a header", c.Header))
	}
	if c.Encoding != encodingURLPEM && c.Encoding != encodingBase64DER && c.Encoding != encodingRFC9440 {
		out = append(out, problem("client_certificate.encoding", "%q is not url-pem, base64-der or rfc9440", c.Encoding))
	}
	if !proxies {
		out = append(out, problem("client_certificate", "the header of whom? name the proxy's address in proxies"))
	}
	return out
}

const maxCertificateHeader = 16 << 10

// clientCertificate is the certificate that the client proved: in this
// connection's handshake, or in the proxy's. Behind a configured proxy the
// handshake's certificate is the proxy's own and never the client's.
func (g *Gate) clientCertificate(r *http.Request) (*x509.Certificate, *proviso.Refusal) {
	if g.cfg.ClientCertificate.Header == "" || !g.trusted(r) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !g.trusted(r) {
			return r.TLS.PeerCertificates[0], nil
		}
		return nil, nil
	}
	values := r.Header[textproto.CanonicalMIMEHeaderKey(g.cfg.ClientCertificate.Header)]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil, nil
	}
	if len(values) > 1 || len(values[0]) > maxCertificateHeader {
		return nil, refuse(CodeProxyHeaders, "the proxy's client certificate header is there more than once, or too long")
	}
	cert, err := g.cfg.ClientCertificate.decode(values[0])
	if err != nil {
		return nil, refuse(CodeProxyHeaders, "the proxy's client certificate header is not a certificate in %s", g.cfg.ClientCertificate.Encoding).Because(err)
	}
	return cert, nil
}

func (c CertificateHeader) decode(s string) (*x509.Certificate, error) {
	switch c.Encoding {
	case encodingURLPEM:
		text, err := url.PathUnescape(s)
		if err != nil {
			return nil, err
		}
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
			return nil, errors.New("not exactly one PEM block")
		}
		return x509.ParseCertificate(block.Bytes)
	case encodingRFC9440:
		inner, ok := strings.CutPrefix(s, ":")
		inner, end := strings.CutSuffix(inner, ":")
		if !ok || !end {
			return nil, errors.New("not an RFC 8941 byte sequence")
		}
		s = inner
	}
	der, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// trusted reports whether the connection comes from a configured proxy.
func (g *Gate) trusted(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, p := range g.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
