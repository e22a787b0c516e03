package lab

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// Faults is how a part of the lab misbehaves. The zero value behaves. Several
// faults can be set at once; the first that ends an answer wins, in the order
// of the fields.
type Faults struct {
	// Only limits the faults to one kind of document: "discovery", "jwks",
	// "token" (a platform's own token endpoint), "bundle" or "record" (a ticket,
	// an on-call entry); "" means all of them.
	Only string
	// Times limits the faults to so many answers of an issuer; 0 means always.
	Times int

	Down     bool          // the connection is closed without an answer
	Delay    time.Duration // before the first byte
	Status   int           // this status and a body that names an internal address
	Redirect string        // 302 to this URL
	Huge     int           // the body goes on for so many bytes
	Drip     time.Duration // between two bytes of the body
	NotJSON  bool          // an HTML page with status 200
	Type     string        // another Content-Type

	// In discovery documents.
	Issuer  string // says that it is somebody else
	JWKSURI string // sends the reader elsewhere for keys

	// In key sets.
	DuplicateKID  bool // another key under the same name, listed second
	ReusedKID     bool // another key under the same name, instead of the good one
	PrivateKey    bool // with the private half
	WrongUse      bool // "use": "enc"
	NoKID         bool
	WeakKey       bool // RSA with 1,024 bits
	Symmetric     bool // an "oct" key beside the good one
	DuplicateName bool // a JSON member named twice
	Empty         bool // no key at all
	ManyKeys      int  // so many keys
}

// concerns reports whether the faults apply to a kind of document.
func (f Faults) concerns(kind string) bool { return f.Only == "" || f.Only == kind }

// answer writes a document, or what the faults make of it.
func (f Faults) answer(w http.ResponseWriter, r *http.Request, document any) {
	if f.Down {
		panic(http.ErrAbortHandler) // net/http closes the connection and says nothing
	}
	if f.Delay > 0 && !wait(r.Context(), f.Delay) {
		return
	}
	contentType := "application/json"
	if f.Type != "" {
		contentType = f.Type
	}
	w.Header().Set("Content-Type", contentType)
	switch {
	case f.Status != 0:
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(`{"error":"backend http://10.0.0.7:8500 is not reachable"}`))
		return
	case f.Redirect != "":
		http.Redirect(w, r, f.Redirect, http.StatusFound)
		return
	case f.NotJSON:
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>Please log in</title>"))
		return
	}
	body, ok := document.([]byte)
	if !ok {
		var err error
		if body, err = json.Marshal(document); err != nil {
			http.Error(w, "lab: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	f.write(w, r, body)
}

func (f Faults) write(w http.ResponseWriter, r *http.Request, body []byte) {
	out := http.NewResponseController(w)
	switch {
	case f.Huge > 0:
		pad := make([]byte, 32<<10)
		for i := range pad {
			pad[i] = ' '
		}
		for sent := 0; sent < f.Huge && r.Context().Err() == nil; sent += len(pad) {
			if _, err := w.Write(pad); err != nil {
				return
			}
		}
		_, _ = w.Write(body)
	case f.Drip > 0:
		for i := range body {
			if _, err := w.Write(body[i : i+1]); err != nil || out.Flush() != nil || !wait(r.Context(), f.Drip) {
				return
			}
		}
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
}
