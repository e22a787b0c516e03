package gate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testAudience = "https://deploy.acme.example"

// issuer is a broker's public face: discovery, keys, and tokens for the test.
type issuer struct {
	t    testing.TB
	URL  string
	keys *pass.Keyring
	http *httptest.Server

	mu   sync.Mutex
	time time.Time
	down bool // answers nothing
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t: t, time: time.Now()}
	var err error
	i.keys, err = pass.OpenKeyring(filepath.Join(t.TempDir(), "keys"), pass.KeyringConfig{}, i.now)
	must(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		body, maxAge := i.keys.JWKS()
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(maxAge.Seconds())))
		w.Write(body)
	})
	i.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.isDown() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	i.URL = i.http.URL
	t.Cleanup(i.http.Close)
	return i
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (i *issuer) now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.time
}

func (i *issuer) advance(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.time = i.time.Add(d)
}

func (i *issuer) isDown() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.down
}

func (i *issuer) goDown() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = true
}

// token signs a usual token after change.
func (i *issuer) token(change func(c *pass.Claims)) string {
	i.t.Helper()
	now := i.now().Truncate(time.Second)
	c := pass.Claims{Issuer: i.URL, Subject: "job:github:acme:61200123", ClientID: "job:github:acme:61200123", Audience: testAudience, ID: "6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11",
		Scope: []string{"deploy", "read"}, IssuedAt: now, Expires: now.Add(15 * time.Minute), Actor: "spiffe://runners.acme.example/r-17",
		Proviso: document.ObjectOf(document.Member("decision", document.StringOf("01KAV7Q3S5C3M4GQ4Z7Z1V2W3X")), document.Member("grant", document.StringOf("deploy-production")))}
	if change != nil {
		change(&c)
	}
	s, err := i.keys.Signer(jose.ES256)
	must(i.t, err)
	token, err := s.Sign(&c, pass.MaxTTL)
	must(i.t, err)
	return token
}

// gate makes a gate that trusts the issuer; its clock is the issuer's.
func (i *issuer) gate(cfg Config) *Gate {
	i.t.Helper()
	cfg.Issuer = i.URL
	g, err := New(cfg, Options{Now: i.now})
	must(i.t, err)
	i.t.Cleanup(g.Close)
	return g
}

const testOrigin = "https://deploy.acme.example"

func resourceConfig() Config {
	return Config{Audience: testAudience, Scope: []string{"deploy"}, Origin: testOrigin, DPoPNonce: "never"}
}

// app is what stands behind the gate: it says whom it saw.
var app = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	a, ok := FromContext(r.Context())
	fmt.Fprintf(w, "%v %s %s", ok, a.Subject(), a.Decision())
})

type header map[string][]string

// ask sends one request through the middleware, without a socket.
func ask(g *Gate, method, target string, h header, change ...func(r *http.Request)) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for name, values := range h {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	g.Middleware(app).ServeHTTP(w, r)
	return w.Result()
}

func bearer(token string) header { return header{"Authorization": {"Bearer " + token}} }

type answer struct {
	Code, Error, Stage string
	Description        string `json:"error_description"`
}

func read(t testing.TB, res *http.Response) (body string, a answer) {
	t.Helper()
	data, err := io.ReadAll(res.Body)
	must(t, err)
	res.Body.Close()
	_ = json.Unmarshal(data, &a)
	return string(data), a
}

func wantRefusal(t testing.TB, res *http.Response, status int, code proviso.Code, challenge string) {
	t.Helper()
	body, a := read(t, res)
	if res.StatusCode != status || a.Code != string(code) {
		t.Errorf("status %d %s, want %d with code %s", res.StatusCode, body, status, code)
	}
	got := res.Header.Get("WWW-Authenticate")
	if challenge == "" != (got == "") || !strings.Contains(got, challenge) {
		t.Errorf("WWW-Authenticate %q, want %q in it", got, challenge)
	}
	if got != "" && !wellFormed.MatchString(got) {
		t.Errorf("WWW-Authenticate %q is not what RFC 6750 section 3 lets a header hold", got)
	}
	if res.Header.Get("Cache-Control") != "no-store" || len(res.Header["Www-Authenticate"]) > 1 {
		t.Errorf("header %v", res.Header)
	}
}

var wellFormed = regexp.MustCompile(`^(?:(?:Bearer|DPoP) (?:[a-z_]+="[ !#-\[\]-~]*"(?:, )?)+)+$`)

func TestAGoodTokenReachesTheResource(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	for _, scheme := range []string{"Bearer", "bearer", "BEARER"} {
		res := ask(g, "POST", "/v1/deploy", header{"Authorization": {scheme + " " + i.token(nil)}})
		body, _ := read(t, res)
		if res.StatusCode != 200 || body != "true job:github:acme:61200123 01KAV7Q3S5C3M4GQ4Z7Z1V2W3X" {
			t.Errorf("%s: status %d, %q", scheme, res.StatusCode, body)
		}
	}
}

func TestTheResourceSeesNoTokenAndBelievesNoClient(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	token := i.token(nil)
	h := bearer(token)
	h["X-Proviso-Subject"], h["x-proviso-decision"], h["Accept"] = []string{"admin"}, []string{"x"}, []string{"text/plain"}
	r := httptest.NewRequest("GET", "/", nil)
	for name, values := range h {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	called := false
	g.Middleware(http.HandlerFunc(func(w http.ResponseWriter, inner *http.Request) {
		called = true
		for name, values := range inner.Header {
			if strings.HasPrefix(name, "X-Proviso") || name == "Authorization" || strings.Contains(strings.Join(values, ""), token) {
				t.Errorf("the resource sees %s: %v", name, values)
			}
		}
		if inner.Header.Get("Accept") != "text/plain" {
			t.Error("another header is gone")
		}
	})).ServeHTTP(httptest.NewRecorder(), r)
	if !called || r.Header.Get("Authorization") == "" {
		t.Error("the resource was not called, or the caller's request was changed")
	}
}

// Everything that can be wrong with how a token is sent (RFC 6750 sections 2
// and 3): one answer each.
func TestAuthorizationThatIsRefused(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	good := i.token(nil)
	for name, test := range map[string]struct {
		target    string
		header    header
		status    int
		code      proviso.Code
		challenge string
	}{
		"nothing":                    {"/", nil, 401, CodeTokenMissing, `Bearer realm="proviso", scope="deploy"`},
		"empty":                      {"/", header{"Authorization": {""}}, 401, CodeTokenMissing, `DPoP algs="ES256 `},
		"Basic":                      {"/", header{"Authorization": {"Basic dXNlcjpwYXNz"}}, 401, CodeTokenMissing, "Bearer"},
		"Kelvin sign":                {"/", header{"Authorization": {"DPo\u212A " + good}}, 401, CodeTokenMissing, "Bearer"},
		"two headers":                {"/", header{"Authorization": {"Bearer " + good, "Bearer " + good}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"two in one":                 {"/", header{"Authorization": {"Bearer " + good + ", Bearer " + good}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"no token":                   {"/", header{"Authorization": {"Bearer"}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"two spaces":                 {"/", header{"Authorization": {"Bearer  " + good}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"tab":                        {"/", header{"Authorization": {"Bearer\t" + good}}, 401, CodeTokenMissing, "Bearer"},
		"space at the end":           {"/", header{"Authorization": {"Bearer " + good + " "}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"quoted":                     {"/", header{"Authorization": {`Bearer "` + good + `"`}}, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"token in the query":         {"/?access_token=" + good, nil, 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"in the query too":           {"/?x=1&access_token=x", bearer(good), 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"in the query, encoded":      {"/?%61ccess_token=x", bearer(good), 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"in the query, by semicolon": {"/?x;access_token=x", bearer(good), 400, CodeAuthorizationMalformed, `error="invalid_request"`},
		"not a token":                {"/", bearer("abc"), 401, proviso.CodeJWTMalformed, `Bearer realm="proviso", error="invalid_token"`},
		"expired":                    {"/", bearer(i.token(func(c *pass.Claims) { c.IssuedAt, c.Expires = c.IssuedAt.Add(-time.Hour), c.IssuedAt.Add(-time.Minute) })), 401, proviso.CodeTokenExpired, `error="invalid_token"`},
		"for another resource":       {"/", bearer(i.token(func(c *pass.Claims) { c.Audience = "https://other.example" })), 401, proviso.CodeAudMismatch, `error="invalid_token"`},
		"from another issuer":        {"/", bearer(i.token(func(c *pass.Claims) { c.Issuer = "https://other.example" })), 401, proviso.CodeIssuerUnknown, `error="invalid_token"`},
		"too little scope":           {"/", bearer(i.token(func(c *pass.Claims) { c.Scope = []string{"read"} })), 403, pass.CodeScopeInsufficient, `error="insufficient_scope", error_description=`},
		"plain token as DPoP":        {"/", header{"Authorization": {"DPoP " + good}}, 401, proviso.CodeTokenBinding, `DPoP algs=`},
		"two proofs":                 {"/", header{"Authorization": {"DPoP " + good}, "DPoP": {"a", "b"}}, 401, proviso.CodeDPoPProof, `error="invalid_dpop_proof"`},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefusal(t, ask(g, "GET", test.target, test.header), test.status, test.code, test.challenge)
		})
	}
}

func TestAMissingTokenMayBeOfEitherScheme(t *testing.T) {
	i := newIssuer(t)
	both := ask(i.gate(resourceConfig()), "GET", "/", nil).Header.Get("WWW-Authenticate")
	if both != `DPoP algs="ES256 EdDSA ES384 PS256 RS256", scope="deploy", Bearer realm="proviso", scope="deploy"` {
		t.Errorf("challenge %q", both)
	}
	cfg := resourceConfig()
	cfg.Origin = "" // no DPoP
	if got := ask(i.gate(cfg), "GET", "/", nil).Header.Get("WWW-Authenticate"); got != `Bearer realm="proviso", scope="deploy"` {
		t.Errorf("challenge %q", got)
	}
}

func newProver(t testing.TB, i *issuer) *pass.Prover {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p, err := pass.NewProverWithKey(key, jose.ES256, i.now)
	must(t, err)
	return p
}

func TestATokenBoundByDPoP(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	owner, thief := newProver(t, i), newProver(t, i)
	token := i.token(func(c *pass.Claims) { c.Confirmation.JKT = owner.Thumbprint() })
	send := func(method, target, proof string) *http.Response {
		h := header{"Authorization": {"DPoP " + token}}
		if proof != "" {
			h["DPoP"] = []string{proof}
		}
		return ask(g, method, target, h)
	}
	proof := func(p *pass.Prover, method, url string) string {
		s, err := p.Proof(method, url, token, "")
		must(t, err)
		return s
	}
	good := proof(owner, "POST", testOrigin+"/v1/deploy")
	if res := send("POST", "/v1/deploy?version=1.2.3", good); res.StatusCode != 200 {
		body, _ := read(t, res)
		t.Fatalf("status %d %s", res.StatusCode, body)
	}
	const dpop = "DPoP algs="
	wantRefusal(t, send("POST", "/v1/deploy", good), 401, proviso.CodeDPoPProof, dpop) // again
	wantRefusal(t, send("POST", "/v1/deploy", ""), 401, proviso.CodeDPoPProof, dpop)
	wantRefusal(t, send("POST", "/v1/deploy", proof(thief, "POST", testOrigin+"/v1/deploy")), 401, proviso.CodeTokenBinding, dpop)
	wantRefusal(t, send("GET", "/v1/deploy", proof(owner, "POST", testOrigin+"/v1/deploy")), 401, proviso.CodeDPoPProof, dpop)
	wantRefusal(t, send("POST", "/v1/other", proof(owner, "POST", testOrigin+"/v1/deploy")), 401, proviso.CodeDPoPProof, dpop)
	wantRefusal(t, send("POST", "/v1/deploy", proof(owner, "POST", "https://evil.example/v1/deploy")), 401, proviso.CodeDPoPProof, dpop)
	wantRefusal(t, ask(g, "POST", "/v1/deploy", bearer(token)), 401, proviso.CodeTokenBinding, "Bearer")
	// The Host header is the client's: it changes nothing.
	res := ask(g, "POST", "http://evil.example/v1/deploy", header{"Authorization": {"DPoP " + token}, "DPoP": {proof(owner, "POST", "http://evil.example/v1/deploy")}})
	wantRefusal(t, res, 401, proviso.CodeDPoPProof, dpop)
	cfg := resourceConfig()
	cfg.Origin = ""
	res = ask(i.gate(cfg), "POST", "/v1/deploy", header{"Authorization": {"DPoP " + token}, "DPoP": {proof(owner, "POST", testOrigin+"/v1/deploy")}})
	wantRefusal(t, res, 401, proviso.CodeTokenBinding, "Bearer")
}

func TestAFreshGateDemandsItsNonce(t *testing.T) {
	i := newIssuer(t)
	cfg := resourceConfig()
	cfg.DPoPNonce = ""
	g := i.gate(cfg)
	owner := newProver(t, i)
	token := i.token(func(c *pass.Claims) { c.Confirmation.JKT = owner.Thumbprint() })
	send := func(nonce string) *http.Response {
		proof, err := owner.Proof("GET", testOrigin+"/", token, nonce)
		must(t, err)
		return ask(g, "GET", "/", header{"Authorization": {"DPoP " + token}, "DPoP": {proof}})
	}
	res := send("")
	nonce := res.Header.Get("DPoP-Nonce")
	wantRefusal(t, res, 401, proviso.CodeDPoPNonce, `error="use_dpop_nonce"`)
	if res := send(nonce); nonce == "" || res.StatusCode != 200 {
		t.Errorf("with nonce %q: status %d", nonce, res.StatusCode)
	}
	i.advance(2 * time.Minute)
	if res := send(""); res.StatusCode != 200 {
		t.Errorf("later: status %d", res.StatusCode)
	}
}

func clientCert(t testing.TB) (*x509.Certificate, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "r-17"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Over a real handshake: the certificate is the one that the client proved.
func TestATokenBoundToACertificate(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	server := httptest.NewUnstartedServer(g.Middleware(app))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	cert, pair := clientCert(t)
	_, other := clientCert(t)
	token := i.token(func(c *pass.Claims) { c.Confirmation.X5TS256 = pass.CertificateThumbprint(cert) })
	for name, test := range map[string]struct {
		pairs []tls.Certificate
		want  int
	}{"its certificate": {[]tls.Certificate{pair}, 200}, "another": {[]tls.Certificate{other}, 401}, "none": {nil, 401}} {
		client := server.Client()
		transport := client.Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = test.pairs
		req, err := http.NewRequest("GET", server.URL, nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := transport.RoundTrip(req)
		must(t, err)
		body, a := read(t, res)
		if res.StatusCode != test.want || test.want != 200 && a.Code != string(proviso.CodeTokenBinding) {
			t.Errorf("%s: status %d %s", name, res.StatusCode, body)
		}
		transport.CloseIdleConnections()
	}
}

func TestACertificateInAHeaderIsBelievedFromTheProxyAlone(t *testing.T) {
	i := newIssuer(t)
	cert, _ := clientCert(t)
	other, _ := clientCert(t)
	token := i.token(func(c *pass.Claims) { c.Confirmation.X5TS256 = pass.CertificateThumbprint(cert) })
	from := func(addr string) func(r *http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
	handshake := func(c *x509.Certificate) func(r *http.Request) {
		return func(r *http.Request) { r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}} }
	}
	b64 := base64Of(cert.Raw)
	for name, test := range map[string]struct {
		encoding string
		values   []string
		change   []func(r *http.Request)
		status   int
		code     proviso.Code
	}{
		"DER from the proxy":               {"base64-der", []string{b64}, []func(*http.Request){from("10.0.0.5:1234")}, 200, ""},
		"DER from a mapped address":        {"base64-der", []string{b64}, []func(*http.Request){from("[::ffff:10.0.0.5]:1234")}, 200, ""},
		"PEM, escaped":                     {"url-pem", []string{escapedPEM(cert)}, []func(*http.Request){from("10.0.0.5:1234")}, 200, ""},
		"RFC 9440":                         {"rfc9440", []string{":" + b64 + ":"}, []func(*http.Request){from("10.0.0.5:1234")}, 200, ""},
		"from anybody":                     {"base64-der", []string{b64}, []func(*http.Request){from("10.0.0.6:1234")}, 401, proviso.CodeTokenBinding},
		"from no address":                  {"base64-der", []string{b64}, []func(*http.Request){from("@")}, 401, proviso.CodeTokenBinding},
		"another certificate":              {"base64-der", []string{base64Of(other.Raw)}, []func(*http.Request){from("10.0.0.5:1234")}, 401, proviso.CodeTokenBinding},
		"none":                             {"base64-der", nil, []func(*http.Request){from("10.0.0.5:1234")}, 401, proviso.CodeTokenBinding},
		"empty":                            {"base64-der", []string{""}, []func(*http.Request){from("10.0.0.5:1234")}, 401, proviso.CodeTokenBinding},
		"two":                              {"base64-der", []string{b64, b64}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"too long":                         {"base64-der", []string{strings.Repeat("A", 17<<10)}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"not base64":                       {"base64-der", []string{"!"}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"not a certificate":                {"base64-der", []string{"AAAA"}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"not escaped":                      {"url-pem", []string{"%zz"}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"not PEM":                          {"url-pem", []string{"x"}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"two PEM blocks":                   {"url-pem", []string{escapedPEM(cert) + escapedPEM(cert)}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"not a byte sequence":              {"rfc9440", []string{b64}, []func(*http.Request){from("10.0.0.5:1234")}, 403, CodeProxyHeaders},
		"the proxy's own handshake":        {"base64-der", nil, []func(*http.Request){from("10.0.0.5:1234"), handshake(cert)}, 401, proviso.CodeTokenBinding},
		"the client's handshake, directly": {"base64-der", nil, []func(*http.Request){from("10.9.9.9:1"), handshake(cert)}, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := resourceConfig()
			cfg.Proxies = []string{"10.0.0.5", "192.168.7.0/24"}
			cfg.ClientCertificate = CertificateHeader{Header: "x-client-cert", Encoding: test.encoding}
			h := bearer(token)
			if test.values != nil {
				h["X-Client-Cert"] = test.values
			}
			res := ask(i.gate(cfg), "GET", "/", h, test.change...)
			if test.status != 200 {
				body, a := read(t, res)
				if res.StatusCode != test.status || a.Code != string(test.code) {
					t.Errorf("status %d %s", res.StatusCode, body)
				}
			} else if res.StatusCode != 200 {
				body, _ := read(t, res)
				t.Errorf("status %d %s", res.StatusCode, body)
			}
		})
	}
}

func TestScopeOfAPart(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	get := func(h http.Handler, token string) *http.Response {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	if res := get(g.Middleware(g.RequireScope(app, "read")), i.token(nil)); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	wantRefusal(t, get(g.Middleware(g.RequireScope(app, "read", "admin")), i.token(nil)), 403, pass.CodeScopeInsufficient, `scope="read admin"`)
	wantRefusal(t, get(g.RequireScope(app, "read"), i.token(nil)), 401, CodeTokenMissing, "Bearer") // behind no gate
}

// An outage of the broker stops nobody until the keys are too old; then the
// gate says that it can't check, and still lets nobody through.
func TestTheGateChecksOfflineForABoundedTime(t *testing.T) {
	i := newIssuer(t)
	cfg := resourceConfig()
	cfg.MaxStale = 2 * time.Hour
	g := i.gate(cfg)
	if g.Ready() == nil {
		t.Error("ready before the first keys")
	}
	if res := ask(g, "GET", "/", bearer(i.token(nil))); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	must(t, g.Ready())
	i.goDown()
	i.advance(119 * time.Minute)
	if res := ask(g, "GET", "/", bearer(i.token(nil))); res.StatusCode != 200 {
		body, _ := read(t, res)
		t.Errorf("in the outage: status %d %s", res.StatusCode, body)
	}
	i.advance(2 * time.Minute)
	res := ask(g, "GET", "/", bearer(i.token(nil)))
	retry := res.Header.Get("Retry-After")
	wantRefusal(t, res, 503, proviso.CodeJWKSStale, "")
	if retry == "" {
		t.Error("no Retry-After")
	}
	if err := g.Ready(); err == nil {
		t.Error("ready with keys that are too old")
	}
}

func TestAnIssuerThatWasNeverReachedLetsNobodyIn(t *testing.T) {
	i := newIssuer(t)
	i.goDown()
	g := i.gate(resourceConfig())
	wantRefusal(t, ask(g, "GET", "/", bearer(i.token(nil))), 503, proviso.CodeDiscoveryUnavailable, "")
}

func TestStartFetchesBeforeTheFirstRequest(t *testing.T) {
	i := newIssuer(t)
	cfg := resourceConfig()
	cfg.JWKS = i.URL + "/jwks"
	g := i.gate(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g.Start(ctx)
	if res := ask(g, "GET", "/", bearer(i.token(nil))); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestKeysOfTheCallersOwn(t *testing.T) {
	i := newIssuer(t)
	cfg := resourceConfig()
	cfg.Issuer = i.URL
	refused := 0
	g, err := New(cfg, Options{Keys: i.keys.Key, Now: i.now, Refused: func(r *http.Request, refusal *proviso.Refusal) { refused++ }})
	must(t, err)
	g.Start(context.Background())
	defer g.Close()
	must(t, g.Ready())
	i.goDown()
	if res := ask(g, "GET", "/", bearer(i.token(nil))); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
	ask(g, "GET", "/", nil)
	if refused != 1 {
		t.Errorf("%d refusals were told", refused)
	}
}

func TestNoAnswerHoldsAToken(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(resourceConfig())
	token := i.token(func(c *pass.Claims) { c.Scope = nil })
	signature := token[strings.LastIndexByte(token, '.')+1:]
	for _, h := range []header{bearer(token), bearer(token + "x"), {"Authorization": {"DPoP " + token}}, {"Authorization": {"Bearer " + token, token}}} {
		res := ask(g, "GET", "/?access="+token, h)
		body, _ := read(t, res)
		if all := body + fmt.Sprint(res.Header); strings.Contains(all, signature) {
			t.Errorf("the token is in the answer: %s", all)
		}
	}
}

func TestConfigProblems(t *testing.T) {
	rule := Rule{Path: "/api", Methods: []string{"GET"}, Audience: "a"}
	for name, test := range map[string]struct {
		change func(c *Config)
		paths  string
	}{
		"good":                {func(c *Config) {}, ""},
		"issuer on loopback":  {func(c *Config) { c.Issuer = "http://127.0.0.1:1" }, ""},
		"no issuer":           {func(c *Config) { c.Issuer = "" }, "issuer"},
		"plain issuer":        {func(c *Config) { c.Issuer = "http://proviso.acme.example" }, "issuer"},
		"issuer with query":   {func(c *Config) { c.Issuer = "https://p.example/?x" }, "issuer"},
		"issuer with user":    {func(c *Config) { c.Issuer = "https://u@p.example" }, "issuer"},
		"not a URL":           {func(c *Config) { c.Issuer = "://" }, "issuer"},
		"plain keys":          {func(c *Config) { c.JWKS = "http://p.example/jwks" }, "jwks"},
		"no audience":         {func(c *Config) { c.Audience = "" }, "audience"},
		"origin with a path":  {func(c *Config) { c.Origin = "https://a.example/x" }, "origin"},
		"plain origin":        {func(c *Config) { c.Origin = "http://a.example" }, "origin"},
		"nonce":               {func(c *Config) { c.DPoPNonce = "sometimes" }, "dpop_nonce"},
		"proxy is a name":     {func(c *Config) { c.Proxies = []string{"10.0.0.1", "nginx"} }, "proxies[1]"},
		"proxy prefix":        {func(c *Config) { c.Proxies = []string{"10.0.0.1/99"} }, "proxies[0]"},
		"header of whom":      {func(c *Config) { c.ClientCertificate = CertificateHeader{"X-Cert", "rfc9440"} }, "client_certificate"},
		"header without name": {func(c *Config) { c.Proxies, c.ClientCertificate = []string{"::1"}, CertificateHeader{"", "rfc9440"} }, "client_certificate.header"},
		"header without form": {func(c *Config) { c.Proxies, c.ClientCertificate = []string{"::1"}, CertificateHeader{"X-Cert", ""} }, "client_certificate.encoding"},
		"scope":               {func(c *Config) { c.Scope = []string{"a b"} }, "scope[0]"},
		"stale for long":      {func(c *Config) { c.MaxStale = 1000 * time.Hour }, "max_stale"},
		"stale for minutes":   {func(c *Config) { c.MaxStale = time.Minute }, "max_stale"},
		"proxy without rules": {func(c *Config) { c.Proxy = "nginx" }, "rules"},
		"rules without proxy": {func(c *Config) { c.Rules = []Rule{rule} }, "proxy proxies"},
		"unknown proxy":       {func(c *Config) { c.Rules, c.Proxy, c.Proxies = []Rule{rule}, "apache", []string{"::1"} }, "proxy"},
		"rules":               {func(c *Config) { c.Rules, c.Proxy, c.Proxies = []Rule{rule}, "nginx", []string{"::1"} }, ""},
	} {
		c := resourceConfig()
		c.Issuer = "https://proviso.acme.example"
		test.change(&c)
		var paths []string
		for _, p := range c.Validate() {
			paths = append(paths, p.Path)
			if strings.Contains(p.Message, "%!") {
				t.Errorf("%s: %s", name, p.Message)
			}
		}
		if got := strings.Join(paths, " "); got != test.paths {
			t.Errorf("%s: problems at %q, want %q", name, got, test.paths)
		}
		if _, err := New(c, Options{}); (err != nil) != (test.paths != "") {
			t.Errorf("%s: New: %v", name, err)
		}
	}
	c := resourceConfig()
	c.Issuer, c.CA = "https://proviso.acme.example", filepath.Join(t.TempDir(), "none.pem")
	if _, err := New(c, Options{}); err == nil {
		t.Error("an authority's file that isn't there")
	}
	c.CA = "gate_test.go"
	if _, err := New(c, Options{}); err == nil {
		t.Error("an authority's file without a certificate")
	}
}

// Whatever stands in the headers and the query: an answer, and nobody comes in
// who didn't show the one good token in the one good way.
func FuzzAuthorization(f *testing.F) {
	i := newIssuer(f)
	g := i.gate(resourceConfig())
	good := i.token(nil)
	f.Add("Bearer "+good, "", "")
	f.Add("DPoP "+good, "x.y.z", "access_token=x")
	f.Add("bearer "+good+"=", "", "%61ccess_token")
	f.Fuzz(func(t *testing.T, authorization, proof, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		r.Header["Authorization"] = []string{authorization}
		if proof != "" {
			r.Header["Dpop"] = []string{proof}
		}
		w := httptest.NewRecorder()
		g.Middleware(app).ServeHTTP(w, r)
		switch w.Code {
		case 200:
			if len(authorization) != len("Bearer ")+len(good) || proof != "" {
				t.Fatalf("let in with %q %q", authorization, proof)
			}
		case 400, 401:
			if c := w.Header().Get("WWW-Authenticate"); c == "" || strings.ContainsAny(c, "\r\n") {
				t.Fatalf("challenge %q", c)
			}
		default:
			t.Fatalf("status %d", w.Code)
		}
	})
}
