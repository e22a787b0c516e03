package gate

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

func forwardConfig(proxy string) Config {
	return Config{Origin: testOrigin, DPoPNonce: "never", Proxy: proxy, Proxies: []string{"127.0.0.1"}, Rules: []Rule{
		{Path: "/api", Methods: []string{"GET", "HEAD"}, Audience: testAudience, Scope: []string{"read"}},
		{Path: "/api", Methods: []string{"POST"}, Audience: testAudience, Scope: []string{"deploy"}},
		{Path: "/api/admin", Methods: []string{"POST"}, Audience: testAudience, Scope: []string{"admin"}},
		{Path: "/other", Methods: []string{"*"}, Audience: "https://other.example"},
	}}
}

// forward sends one sub-request, as a proxy at loopback would.
func forward(g *Gate, h header) *http.Response {
	r := httptest.NewRequest("GET", "http://127.0.0.1/", nil)
	r.RemoteAddr = "127.0.0.1:5555"
	if from := h[":from"]; from != nil {
		r.RemoteAddr = from[0]
	}
	for name, values := range h {
		if name != ":from" {
			r.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	w := httptest.NewRecorder()
	g.ForwardAuth().ServeHTTP(w, r)
	return w.Result()
}

func fromNginx(method, uri string, more header) header {
	h := header{"X-Original-Method": {method}, "X-Original-URI": {uri}}
	for name, values := range more {
		h[name] = values
	}
	return h
}

func TestForwardAuthSaysWhoItIs(t *testing.T) {
	i := newIssuer(t)
	res := forward(i.gate(forwardConfig("nginx")), fromNginx("GET", "/api/status?x=1", bearer(i.token(nil))))
	if res.StatusCode != 200 {
		body, _ := read(t, res)
		t.Fatalf("status %d %s", res.StatusCode, body)
	}
	for name, want := range map[string]string{"Subject": "job:github:acme:61200123", "Decision": "01KAV7Q3S5C3M4GQ4Z7Z1V2W3X", "Grant": "deploy-production", "Scope": "deploy read",
		"Runner": "spiffe://runners.acme.example/r-17", "Token": "6f1c0a9d3f7b4f0c8a1e5d2b9c3a7e11"} {
		if got := res.Header.Get("X-Proviso-" + name); got != want {
			t.Errorf("X-Proviso-%s is %q, want %q", name, got, want)
		}
	}
	// What is absent is empty, not missing: the proxy overwrites what a client sent.
	res = forward(i.gate(forwardConfig("nginx")), fromNginx("POST", "/other", bearer(i.token(func(c *pass.Claims) { c.Actor, c.Scope, c.Audience = "", nil, "https://other.example" }))))
	for _, name := range []string{"X-Proviso-Runner", "X-Proviso-Scope"} {
		if values, ok := res.Header[name]; !ok || values[0] != "" {
			t.Errorf("%s is %q", name, values)
		}
	}
}

func TestForwardAuthRefusals(t *testing.T) {
	i := newIssuer(t)
	nginx, forwarded := i.gate(forwardConfig("nginx")), i.gate(forwardConfig("forwarded"))
	token := bearer(i.token(nil))
	fwd := func(method, uri, host string) header {
		return header{"X-Forwarded-Method": {method}, "X-Forwarded-Uri": {uri}, "X-Forwarded-Host": {host}, "Authorization": token["Authorization"]}
	}
	with := func(h header, name string, values ...string) header { h[name] = values; return h }
	for name, test := range map[string]struct {
		gate   *Gate
		header header
		status int
		code   proviso.Code
	}{
		"read":                           {nginx, fromNginx("GET", "/api/x", token), 200, ""},
		"deploy":                         {nginx, fromNginx("POST", "/api/x", token), 200, ""},
		"from the other family":          {forwarded, fwd("GET", "/api/x", "deploy.acme.example"), 200, ""},
		"host in capitals":               {forwarded, fwd("GET", "/api/x", "Deploy.acme.example"), 200, ""},
		"no token":                       {nginx, fromNginx("GET", "/api/x", nil), 401, CodeTokenMissing},
		"malformed is no 400":            {nginx, fromNginx("GET", "/api/x", header{"Authorization": {"Bearer"}}), 401, CodeAuthorizationMalformed},
		"no rule for the path":           {nginx, fromNginx("GET", "/", token), 403, CodeRouteUnmatched},
		"a neighbour of a path":          {nginx, fromNginx("GET", "/apix", token), 403, CodeRouteUnmatched},
		"path in capitals":               {nginx, fromNginx("GET", "/API/x", token), 403, CodeRouteUnmatched},
		"no rule for the method":         {nginx, fromNginx("DELETE", "/api/x", token), 403, CodeRouteUnmatched},
		"no falling back to a shorter":   {nginx, fromNginx("GET", "/api/admin/x", token), 403, CodeRouteUnmatched},
		"more scope on a longer path":    {nginx, fromNginx("POST", "/api/admin", token), 403, pass.CodeScopeInsufficient},
		"another audience":               {nginx, fromNginx("GET", "/other/x", token), 401, proviso.CodeAudMismatch},
		"traversal":                      {nginx, fromNginx("GET", "/api/../admin", token), 403, CodePathAmbiguous},
		"traversal, encoded":             {nginx, fromNginx("GET", "/api/%2e%2e/admin", token), 403, CodePathAmbiguous},
		"double slash":                   {nginx, fromNginx("GET", "//api/x", token), 403, CodePathAmbiguous},
		"whole URL":                      {nginx, fromNginx("GET", "http://evil.example/api/x", token), 403, CodePathAmbiguous},
		"empty path":                     {nginx, fromNginx("GET", "", token), 403, CodePathAmbiguous},
		"method in lower case":           {nginx, fromNginx("get", "/api/x", token), 403, CodeProxyHeaders},
		"no method":                      {nginx, header{"X-Original-URI": {"/api/x"}, "Authorization": token["Authorization"]}, 403, CodeProxyHeaders},
		"no path":                        {nginx, header{"X-Original-Method": {"GET"}, "Authorization": token["Authorization"]}, 403, CodeProxyHeaders},
		"two paths":                      {nginx, with(fromNginx("GET", "/api/x", token), "X-Original-URI", "/api/x", "/api/admin"), 403, CodeProxyHeaders},
		"two methods":                    {nginx, with(fromNginx("GET", "/api/x", token), "X-Original-Method", "GET", "POST"), 403, CodeProxyHeaders},
		"the other family's headers":     {nginx, fwd("GET", "/api/x", "deploy.acme.example"), 403, CodeProxyHeaders},
		"nginx's headers elsewhere":      {forwarded, fromNginx("GET", "/api/x", token), 403, CodeProxyHeaders},
		"another host":                   {forwarded, fwd("GET", "/api/x", "evil.example"), 403, CodeProxyHeaders},
		"two hosts":                      {forwarded, with(fwd("GET", "/api/x", ""), "X-Forwarded-Host", "deploy.acme.example", "evil.example"), 403, CodeProxyHeaders},
		"no host":                        {forwarded, header{"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/api/x"}, "Authorization": token["Authorization"]}, 403, CodeProxyHeaders},
		"from a stranger":                {nginx, with(fromNginx("GET", "/api/x", token), ":from", "10.0.0.1:1"), 403, CodeProxyUntrusted},
		"from IPv6 loopback":             {nginx, with(fromNginx("GET", "/api/x", token), ":from", "[::1]:1"), 403, CodeProxyUntrusted},
		"from no address":                {nginx, with(fromNginx("GET", "/api/x", token), ":from", ""), 403, CodeProxyUntrusted},
		"a client's path beside nginx's": {nginx, with(fromNginx("POST", "/api/admin", token), "X-Forwarded-Uri", "/api/x"), 403, pass.CodeScopeInsufficient},
		"token in the original's query":  {nginx, fromNginx("GET", "/api/x?access_token=y", token), 401, CodeAuthorizationMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			res := forward(test.gate, test.header)
			body, a := read(t, res)
			if res.StatusCode != test.status || a.Code != string(test.code) {
				t.Errorf("status %d %s, want %d %s", res.StatusCode, body, test.status, test.code)
			}
			if test.status != 200 && res.Header.Get("X-Proviso-Subject") != "" {
				t.Error("a refusal names a subject")
			}
			if (test.status == 401) != strings.Contains(res.Header.Get("WWW-Authenticate"), "Bearer") && test.code != pass.CodeScopeInsufficient {
				t.Errorf("WWW-Authenticate %q", res.Header.Get("WWW-Authenticate"))
			}
		})
	}
}

func TestDPoPThroughAProxyIsForTheOriginal(t *testing.T) {
	i := newIssuer(t)
	g := i.gate(forwardConfig("nginx"))
	p := newProver(t, i)
	token := i.token(func(c *pass.Claims) { c.Confirmation.JKT = p.Thumbprint() })
	ask := func(method, url, askedMethod, askedURI string) *http.Response {
		proof, err := p.Proof(method, url, token, "")
		must(t, err)
		return forward(g, fromNginx(askedMethod, askedURI, header{"Authorization": {"DPoP " + token}, "DPoP": {proof}}))
	}
	if res := ask("POST", testOrigin+"/api/x", "POST", "/api/x?y=1"); res.StatusCode != 200 {
		body, _ := read(t, res)
		t.Errorf("status %d %s", res.StatusCode, body)
	}
	wantRefusal(t, ask("GET", testOrigin+"/api/x", "POST", "/api/x"), 401, proviso.CodeDPoPProof, "DPoP")
	wantRefusal(t, ask("POST", testOrigin+"/api/y", "POST", "/api/x"), 401, proviso.CodeDPoPProof, "DPoP")
	wantRefusal(t, ask("POST", "http://127.0.0.1/api/x", "POST", "/api/x"), 401, proviso.CodeDPoPProof, "DPoP")
}

func TestRuleProblems(t *testing.T) {
	good := Rule{Path: "/api", Methods: []string{"GET"}, Audience: "a"}
	edit := func(change func(r *Rule)) []Rule {
		r := good
		change(&r)
		return []Rule{r}
	}
	for name, test := range map[string]struct {
		rules []Rule
		paths string
	}{
		"good":               {[]Rule{good, {Path: "/", Methods: []string{"*"}, Audience: "a"}, {Path: "/api", Methods: []string{"POST"}, Audience: "b"}}, ""},
		"no path":            {edit(func(r *Rule) { r.Path = "" }), "rules[0].path"},
		"relative":           {edit(func(r *Rule) { r.Path = "api" }), "rules[0].path"},
		"slash at the end":   {edit(func(r *Rule) { r.Path = "/api/" }), "rules[0].path"},
		"dots":               {edit(func(r *Rule) { r.Path = "/api/../x" }), "rules[0].path"},
		"encoded":            {edit(func(r *Rule) { r.Path = "/%61pi" }), "rules[0].path"},
		"pattern":            {edit(func(r *Rule) { r.Path = "/api/{id}" }), "rules[0].path"},
		"no audience":        {edit(func(r *Rule) { r.Audience = "" }), "rules[0].audience"},
		"no methods":         {edit(func(r *Rule) { r.Methods = nil }), "rules[0].methods"},
		"lower case":         {edit(func(r *Rule) { r.Methods = []string{"GET", "post"} }), "rules[0].methods[1]"},
		"scope":              {edit(func(r *Rule) { r.Scope = []string{"a", "b c"} }), "rules[0].scope[1]"},
		"twice":              {[]Rule{good, good}, "rules[1].methods"},
		"star and another":   {[]Rule{good, {Path: "/api", Methods: []string{"*"}, Audience: "a"}}, "rules[1].methods"},
		"another, then star": {[]Rule{{Path: "/api", Methods: []string{"*"}, Audience: "a"}, good}, "rules[1].methods"},
	} {
		_, problems := newRuleSet(test.rules)
		var paths []string
		for _, p := range problems {
			paths = append(paths, p.Path)
		}
		if got := strings.Join(paths, " "); got != test.paths {
			t.Errorf("%s: problems at %q, want %q", name, got, test.paths)
		}
	}
}

func TestPathsThatTwoServersMayReadDifferently(t *testing.T) {
	for in, want := range map[string]string{"/": "/", "/a": "/a", "/a/": "/a/", "/a/b.c": "/a/b.c", "/%41": "/A", "/a%20b": "/a b", "/%C3%BC": "/ü", "/...": "/...", "/.well-known/x": "/.well-known/x",
		"/a:b@c!$&'()*+,=-_~": "/a:b@c!$&'()*+,=-_~"} {
		if got, err := cleanPath(in); got != want || err != nil {
			t.Errorf("%q is read as %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "a", "*", "//", "//a", "/a//b", "/a/./b", "/./a", "/a/..", "/..", "/.", "/a/../b", "/%2e%2e/a", "/%2E/a", "/a%2e", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a;b", "/a;jsessionid=1/b",
		"/a%3bb", "/a%00", "/a%0a", "/a%7f", "/a%252f", "/a%25", "/a%", "/a%2", "/a%zz", "/a b", "/a\tb", "/a\x00", "/ü", "/%ff", "/%C3", "/%c0%ae", "/a#b", "/a?b", "/a%3fb", "/a%23b", `/a"b`, "/a<b", "/{a}", "/a|b", "/a^b", "/a`b",
		"http://h/a", "/" + strings.Repeat("a", 9000)} {
		if got, err := cleanPath(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

// What is let through is read alike by the ways in which servers normalise: by
// net/url, by path.Clean, with and without decoding first.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"/api/x", "/api/%2e%2e/x", "/a;b", "//a", "/%41", "/a/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		clean, err := cleanPath(raw)
		if err != nil {
			return
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("net/url refuses %q", raw)
		}
		once, err := url.PathUnescape(raw)
		if err != nil || u.Path != clean || once != clean || u.RawQuery != "" {
			t.Fatalf("%q: read as %q, net/url reads %q", raw, clean, u.Path)
		}
		if normal := path.Clean(clean); normal != clean && normal+"/" != clean {
			t.Fatalf("%q: read as %q, a server may serve %q", raw, clean, normal)
		}
		if twice, err := url.PathUnescape(clean); err != nil || twice != clean {
			t.Fatalf("%q decodes twice, to %q", raw, twice)
		}
		if strings.ContainsAny(clean, "\\;\x00") || strings.Contains(strings.ToLower(raw), "%2f") {
			t.Fatalf("%q was let through", raw)
		}
	})
}
