package lab

import (
	"crypto/subtle"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Records is a system of a company that answers questions over HTTP with JSON
// and demands a bearer token: the ticket system and the on-call plan are two of
// it. GET {URL}/{name} gives the record of that name, or 404.
type Records struct {
	server *server
	bearer string

	mu      sync.Mutex // guards everything below
	records map[string]any
	faults  Faults
	asked   int
}

// RecordsOptions are ready for use when zero.
type RecordsOptions struct {
	// TLS serves HTTPS under this authority; nil serves plain HTTP.
	TLS *CA
	// Bearer is what callers must show; "" makes one.
	Bearer string
}

// NewRecords starts an empty system.
func NewRecords(o RecordsOptions) (*Records, error) {
	if o.Bearer == "" {
		o.Bearer = randomSecret()
	}
	s := &Records{bearer: o.Bearer, records: map[string]any{}}
	conf, err := o.TLS.serverTLS()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{name}", s.get)
	s.server, err = serve(mux, conf)
	return s, err
}

// URL is where records are asked for, without a final slash.
func (s *Records) URL() string { return s.server.url }

// Bearer is the token that callers must show.
func (s *Records) Bearer() string { return s.bearer }

// Close ends the system.
func (s *Records) Close() error { return s.server.Close() }

// Put sets a record to anything that has a JSON form; nil removes it.
func (s *Records) Put(name string, record any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if record == nil {
		delete(s.records, name)
		return
	}
	s.records[name] = record
}

// SetFaults makes the system misbehave from now on; the zero value ends it.
func (s *Records) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Asked counts the requests that showed the right bearer token.
func (s *Records) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *Records) get(w http.ResponseWriter, r *http.Request) {
	shown, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isBearer || subtle.ConstantTimeCompare([]byte(shown), []byte(s.bearer)) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	s.asked++
	record, found := s.records[r.PathValue("name")]
	f := s.faults
	s.mu.Unlock()
	if !f.concerns("record") {
		f = Faults{}
	}
	if !found && f == (Faults{}) {
		http.Error(w, "no such record", http.StatusNotFound)
		return
	}
	f.answer(w, r, record)
}

// Ticket is a record of a ticket system.
type Ticket struct {
	ID         string   `json:"id"`
	Status     string   `json:"status"` // open, approved, closed
	Approved   bool     `json:"approved"`
	ApprovedBy []string `json:"approved_by"`
	Service    string   `json:"service"`
	Summary    string   `json:"summary"`
}

// Approve puts an approved ticket for a service into a ticket system.
func (s *Records) Approve(id, service string, by ...string) {
	s.Put(id, Ticket{ID: id, Status: "approved", Approved: true, ApprovedBy: by, Service: service, Summary: "Ship " + service})
}

// Duty is a record of an on-call plan.
type Duty struct {
	Person string    `json:"person"`
	OnCall bool      `json:"on_call"`
	Until  time.Time `json:"until,omitzero"`
}

// OnCall puts a person on call until a time; the zero time means that the
// person isn't on call.
func (s *Records) OnCall(person string, until time.Time) {
	s.Put(person, Duty{Person: person, OnCall: !until.IsZero(), Until: until})
}
