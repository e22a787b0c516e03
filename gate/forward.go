package gate

import (
	"net/http"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

// The values of Config.Proxy.
const (
	proxyNginx     = "nginx"
	proxyForwarded = "forwarded"
)

const headerPrefix = "X-Proviso-"

// original is the request that a proxy asks about.
type original struct{ method, path, query string }

// ForwardAuth answers a proxy's sub-requests: 200 when the original request may
// pass, with
//
//	X-Proviso-Subject   the job's stable name
//	X-Proviso-Decision  the decision in the broker's record
//	X-Proviso-Grant     the grant's name
//	X-Proviso-Scope     the token's scope
//	X-Proviso-Runner    the runner's SPIFFE ID, empty when there is none
//	X-Proviso-Token     the token's id (jti)
//
// All of them are always set, so that a proxy that copies them overwrites what
// a client sent under those names.
func (g *Gate) ForwardAuth() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, want, refusal := g.forward(r)
		if refusal != nil {
			g.answer(w, r, refusal, want, true)
			return
		}
		h := w.Header()
		for _, m := range []struct{ name, value string }{{"Subject", a.Subject()}, {"Decision", a.Decision()}, {"Grant", a.Grant()},
			{"Scope", strings.Join(a.Scope(), " ")}, {"Runner", a.Runner()}, {"Token", a.ID()}} {
			h.Set(headerPrefix+m.name, quotable(m.value))
		}
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
	})
}

func (g *Gate) forward(r *http.Request) (a pass.Access, want pass.Wanted, refusal *proviso.Refusal) {
	if !g.trusted(r) {
		return a, want, refuse(CodeProxyUntrusted, "this gate answers its configured proxies only")
	}
	o, refusal := g.original(r)
	if refusal != nil {
		return a, want, refusal
	}
	clean, err := cleanPath(o.path)
	if err != nil {
		return a, want, refuse(CodePathAmbiguous, "the path can be read in more than one way; ask for it without empty or dot segments, path parameters and encoded slashes")
	}
	rule, ok := g.rules.find(o.method, clean)
	if !ok {
		return a, want, refuse(CodeRouteUnmatched, "no rule allows this method and path")
	}
	want = pass.Wanted{Audience: rule.Audience, Scope: rule.Scope}
	a, refusal = g.admit(r, o.method, o.path, o.query, want)
	return a, want, refusal
}

// original reads what the configured proxy says, and nothing that another
// proxy would say: those headers come from the client.
func (g *Gate) original(r *http.Request) (o original, refusal *proviso.Refusal) {
	uriHeader, methodHeader := "X-Original-Uri", "X-Original-Method"
	if g.cfg.Proxy == proxyForwarded {
		uriHeader, methodHeader = "X-Forwarded-Uri", "X-Forwarded-Method"
		if host := r.Header["X-Forwarded-Host"]; g.cfg.Origin != "" && !(len(host) == 1 && g.sameHost(host[0])) {
			return o, refuse(CodeProxyHeaders, "the proxy asks for another host than this gate's origin")
		}
	}
	uri, method := r.Header[uriHeader], r.Header[methodHeader]
	if len(uri) != 1 || len(method) != 1 || !isMethod(method[0]) {
		return o, refuse(CodeProxyHeaders, "the proxy must describe the original request in exactly one %s and one %s header", uriHeader, methodHeader)
	}
	o.method = method[0]
	o.path, o.query, _ = strings.Cut(uri[0], "?")
	return o, nil
}

func (g *Gate) sameHost(host string) bool {
	_, own, _ := strings.Cut(g.cfg.Origin, "://")
	return strings.EqualFold(host, own)
}
