package server

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/lab"
)

// The door's certificate is renewed on disk by something else, at any moment,
// file by file: the door shows the last pair that fits together, and says it
// when that is not the newest.
func TestRenewedCertificates(t *testing.T) {
	ca, err := lab.NewCA("the web's")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := TLS{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	clock := time.Now()
	put := func(name, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(time.Hour) // file systems keep times as coarse as they like
		if err := os.Chtimes(name, clock, clock); err != nil {
			t.Fatal(err)
		}
	}
	pair := func() (cert, key []byte) {
		t.Helper()
		c, err := ca.ServerCertificate("localhost")
		if err != nil {
			t.Fatal(err)
		}
		if key, err = x509.MarshalPKCS8PrivateKey(c.PrivateKey); err != nil {
			t.Fatal(err)
		}
		return c.Certificate[0], key
	}
	firstCert, firstKey := pair()
	put(files.Cert, "CERTIFICATE", firstCert)
	put(files.Key, "PRIVATE KEY", firstKey)
	var log bytes.Buffer
	c, err := newReloadingCertificate(files, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	shows := func(what string, want []byte, says int) {
		t.Helper()
		now = now.Add(2 * certificateCheckEvery)
		got, err := c.get(nil)
		if err != nil || !bytes.Equal(got.Certificate[0], want) {
			t.Errorf("%s: the door shows another certificate than it should (%v)", what, err)
		}
		if n := strings.Count(log.String(), "can't be read"); n != says {
			t.Errorf("%s: the log says %d times that a renewal can't be read, want %d:\n%s", what, n, says, log.String())
		}
	}
	shows("nothing has changed", firstCert, 0)
	secondCert, secondKey := pair()
	put(files.Cert, "CERTIFICATE", secondCert)
	shows("the new certificate is there, its key isn't", firstCert, 1)
	shows("still not, and the log isn't flooded", firstCert, 1)
	put(files.Key, "PRIVATE KEY", secondKey)
	shows("both are there", secondCert, 1)
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * certificateSayEvery)
	shows("the key is gone", secondCert, 2)
	put(files.Key, "PRIVATE KEY", secondKey)
	thirdCert, thirdKey := pair()
	put(files.Key, "PRIVATE KEY", thirdKey)
	put(files.Cert, "CERTIFICATE", thirdCert)
	shows("a third pair", thirdCert, 2)
	now = now.Add(-2 * certificateCheckEvery) // shows adds as much again
	put(files.Cert, "CERTIFICATE", firstCert)
	put(files.Key, "PRIVATE KEY", firstKey)
	shows("not looked at twice in one interval", thirdCert, 2)

	for name, text := range map[string]string{files.Cert: "no certificate", files.Key: ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newReloadingCertificate(files, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), files.Cert) {
			t.Errorf("a start with a broken %s: %v", filepath.Base(name), err)
		}
	}
}
