package gate

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/url"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// escapedPEM is nginx's $ssl_client_escaped_cert.
func escapedPEM(c *x509.Certificate) string {
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})))
}
