package runner_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/runner"
)

func TestPathTemplates(t *testing.T) {
	const fleet = "/region/{region}/runner/{id}"
	for _, c := range []struct {
		template, path string
		want           string // region/id, "" for no match
	}{
		{fleet, "/region/us-west-2/runner/trusted-runner-1", "us-west-2/trusted-runner-1"},
		{fleet, "/region/us-west-2/runner/a.b_c-d", "us-west-2/a.b_c-d"},
		{fleet, "/region//runner/x", ""},
		{fleet, "/region/eu/runner/", ""},
		{fleet, "/region/eu/runner", ""},
		{fleet, "/region/eu/runner/x/", ""},
		{fleet, "/region/eu/runner/x/y", ""},
		{fleet, "/region/eu/runner/..", ""},
		{fleet, "/region/../runner/x", ""},
		{fleet, "/region/eu/runner/%2e", ""},
		{fleet, "/region/eu/runner/x y", ""},
		{fleet, "/region/eu/runner/x\x00", ""},
		{fleet, "/region/eu/RUNNER/x", ""},
		{fleet, "region/eu/runner/x", ""},
		{fleet, "", ""},
		{fleet, "/region/eu/runner/-x", ""},
		{fleet, "/region/eu/runner/.hidden", ""},
		{"/{id}", "/x", "/x"},
		{"/ci/{pool}/{id}", "/ci/gpu/7", "/7"},
	} {
		got, matched, err := runner.MatchPath(c.template, c.path)
		if err != nil {
			t.Fatal(err)
		}
		if matched != (c.want != "") || matched && got["region"]+"/"+got["id"] != c.want {
			t.Errorf("%s against %q: %v %v, want %q", c.template, c.path, matched, got, c.want)
		}
	}
}

// Variables beside id and region, and the configuration's own attributes,
// become input.runner.attributes.
func TestAttributes(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	v := a.verifier(func(c *runner.Config) {
		c.Path, c.Paths = "/ci/{pool}/{id}", []string{"/region/{region}/runner/{id}"}
		c.Attributes = map[string]string{"owner": "platform"}
		c.Environment = "hosted"
	})
	for path, want := range map[string]string{
		"/ci/gpu/7":            `{"assurance":3,"attestation":"spiffe-x509","attributes":{"owner":"platform","pool":"gpu"},"bound":false,"environment":"hosted","id":"7","spiffe_id":"spiffe://` + domain + `/ci/gpu/7","trust_domain":"` + domain + `"}`,
		"/region/eu/runner/r1": `{"assurance":3,"attestation":"spiffe-x509","attributes":{"owner":"platform"},"bound":false,"environment":"hosted","id":"r1","region":"eu","spiffe_id":"spiffe://` + domain + `/region/eu/runner/r1","trust_domain":"` + domain + `"}`,
	} {
		r, err := verify(v, runner.Evidence{Certificates: []*x509.Certificate{a.leaf("spiffe://" + domain + path)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Document().String(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}

// Whatever is matched is a path of whole, harmless segments.
func FuzzPath(f *testing.F) {
	f.Add("/region/{region}/runner/{id}", "/region/eu/runner/1")
	f.Add("/{id}", "/../x")
	f.Add("/a/{id}/b", "/a/%2e%2e/b")
	f.Fuzz(func(t *testing.T, template, path string) {
		got, matched, err := runner.MatchPath(template, path)
		if err != nil || !matched {
			return
		}
		rebuilt := template
		for name, value := range got {
			if value == "" || strings.ContainsAny(value, "/%\\ {}") || strings.Trim(value, ".") == "" || value[0] == '-' {
				t.Fatalf("%s is bound to %q", name, value)
			}
			rebuilt = strings.ReplaceAll(rebuilt, "{"+name+"}", value)
		}
		if rebuilt != path || got["id"] == "" {
			t.Fatalf("%q matched %q as %v", template, path, got)
		}
	})
}

// sharedVectors finds the vectors that others wrote; "" if they aren't there.
func sharedVectors(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("PROVISO_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared")
	}
	dir = filepath.Join(dir, "vectors", "spiffe")
	if _, err := os.Stat(dir); err != nil {
		if os.Getenv("PROVISO_REQUIRE_SHARED") == "1" {
			t.Fatal(err)
		}
		t.Log("NOT TESTED: no SPIFFE vectors:", err)
		return ""
	}
	return dir
}

// The collected SPIFFE IDs, valid and not; a leaf's must have a path besides.
func TestSPIFFEIDCases(t *testing.T) {
	dir := sharedVectors(t)
	if dir == "" {
		return
	}
	data, err := os.ReadFile(filepath.Join(dir, "spiffe_id_cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Input, Path string
			Valid       bool
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 500 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	for _, c := range file.Cases {
		id, err := runner.SubjectID(c.Input)
		if want := c.Valid && c.Path != ""; (err == nil) != want || want && id != c.Input {
			t.Errorf("%q: %q, %v; want taken: %t", c.Input, id, err, want)
		}
	}
}

// go-spiffe's own certificates and bundles. Their leaves live for years and
// expired in 2025, so each is held against the rules for a leaf alone.
func TestGoSPIFFEVectors(t *testing.T) {
	dir := sharedVectors(t)
	if dir == "" {
		return
	}
	certs := filepath.Join(dir, "go-spiffe", "svid", "x509svid", "testdata")
	for name, want := range map[string]bool{
		"good-leaf-only.pem": true, "good-leaf-and-intermediate.pem": true, "good-cert-and-key.pem": true, "good-key-and-cert.pem": true,
		"wrong-leaf-ca-true.pem": false, "wrong-leaf-cert-sign.pem": false, "wrong-leaf-crl-sign.pem": false,
		"wrong-leaf-empty-id.pem": false, "wrong-leaf-no-digital-signature.pem": false,
	} {
		chain := readCertificates(t, filepath.Join(certs, name))
		if err := runner.CheckLeaf(chain[0]); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	bundles := filepath.Join(dir, "go-spiffe", "bundle", "spiffebundle", "testdata")
	for name, want := range map[string]struct {
		x509s, jwts int
		ok          bool
	}{
		"spiffebundle_valid_1.json":        {1, 1, true},
		"spiffebundle_valid_2.json":        {1, 6, true},
		"spiffebundle_valid_with_wit.json": {1, 2, true},
		"spiffebundle_no_keys.json":        {},
		"spiffebundle_missing_kid.json":    {},
		"spiffebundle_multiple_x509.json":  {},
	} {
		data, err := os.ReadFile(filepath.Join(bundles, name))
		if err != nil {
			t.Fatal(err)
		}
		x509s, jwts, err := runner.ParseBundle(domain, data)
		if (err == nil) != want.ok || x509s != want.x509s || want.ok && jwts != want.jwts {
			t.Errorf("%s: %d X.509 and %d JWT authorities, %v", name, x509s, jwts, err)
		}
	}
}

// The whole verification of go-spiffe's chain, with the clock where it was good.
func TestGoSPIFFEChainAtItsTime(t *testing.T) {
	dir := sharedVectors(t)
	if dir == "" {
		return
	}
	chain := readCertificates(t, filepath.Join(dir, "go-spiffe", "svid", "x509svid", "testdata", "good-leaf-and-intermediate.pem"))
	if len(chain) != 2 {
		t.Fatalf("%d certificates", len(chain))
	}
	at := chain[0].NotBefore.Add(time.Minute)
	a := newAuthority(t, "example.org", at)
	a.root = chain[1] // its intermediate is our trust anchor: the vectors hold no root
	doc := a.bundle(2)
	jwk, err := json.Marshal(joseKey(chain[1]))
	if err != nil {
		t.Fatal(err)
	}
	var key map[string]any
	if err := json.Unmarshal(jwk, &key); err != nil {
		t.Fatal(err)
	}
	doc["keys"] = []any{key}
	a.writeDocument(doc)
	v := a.verifier(func(c *runner.Config) { c.Path = "/{id}" })
	r, err := verify(v, runner.Evidence{Certificates: chain})
	if err != nil || r.ID() != "workload-1" {
		t.Errorf("got %q, %v", r.ID(), err)
	}
	late := newVerifier(t, chain[0].NotAfter.Add(time.Hour), func() runner.Config { c := a.config("fleet"); c.Path = "/{id}"; return c }())
	if _, err := verify(late, runner.Evidence{Certificates: chain}); err == nil {
		t.Error("taken after its end")
	}
}

func readCertificates(t *testing.T, name string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, cert)
		}
	}
	if len(chain) == 0 {
		t.Fatal(errors.New("no certificate in " + name))
	}
	return chain
}
