package lab

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// Resource is a service worth protecting: it deploys, and it counts how often.
// What stands in front of it is a matter of its maker, as in production:
// [ResourceOptions.Guard] is gate's middleware, or another.
type Resource struct {
	server *server
	served atomic.Int64
}

// ResourceOptions are ready for use when zero: an open service, as before
// Proviso.
type ResourceOptions struct {
	// TLS serves HTTPS under this authority, and lets callers show a certificate
	// of any authority, which Guard may want; nil serves plain HTTP.
	TLS *CA
	// Guard wraps the service.
	Guard func(http.Handler) http.Handler
}

// NewResource starts a service with POST /deploy, POST /rollback and GET /.
func NewResource(o ResourceOptions) (*Resource, error) {
	r := &Resource{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /deploy", r.done("deployed"))
	mux.HandleFunc("POST /rollback", r.done("rolled back"))
	mux.HandleFunc("GET /{$}", r.done("healthy"))
	var h http.Handler = mux
	if o.Guard != nil {
		h = o.Guard(mux)
	}
	conf, err := o.TLS.serverTLS()
	if err != nil {
		return nil, err
	}
	if conf != nil {
		conf.ClientAuth = tls.RequestClientCert // shown, not believed: the guard checks it
	}
	r.server, err = serve(h, conf)
	return r, err
}

// URL is the service's address, without a final slash.
func (r *Resource) URL() string { return r.server.url }

// Served counts the requests that got through the guard.
func (r *Resource) Served() int { return int(r.served.Load()) }

// Close ends the service.
func (r *Resource) Close() error { return r.server.Close() }

func (r *Resource) done(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		n := r.served.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"status": what, "count": n, "path": req.URL.Path})
	}
}
