package gate_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/proviso-ci/proviso/gate"
)

// A resource that only jobs with a grant for it may use.
func Example() {
	g, err := gate.New(gate.Config{
		Issuer:   "https://proviso.acme.example",
		Audience: "https://deploy.acme.example",
		Origin:   "https://deploy.acme.example", // lets tokens be bound to a DPoP key
		Scope:    []string{"read"},
	}, gate.Options{})
	if err != nil {
		log.Fatal(err)
	}
	g.Start(context.Background())
	defer g.Close()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		access, _ := gate.FromContext(r.Context())
		fmt.Fprintln(w, "hello,", access.Subject())
	})
	mux.Handle("POST /deploy", g.RequireScope(http.HandlerFunc(deploy), "deploy"))
	server := &http.Server{Addr: "127.0.0.1:8443", Handler: g.Middleware(mux)}
	log.Fatal(server.ListenAndServeTLS("tls.crt", "tls.key"))
}

func deploy(w http.ResponseWriter, r *http.Request) {
	access, _ := gate.FromContext(r.Context())
	log.Printf("deployment by %s under decision %s", access.Subject(), access.Decision())
}
