package runner

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/proviso-ci/proviso/internal/keyset"
)

// EvidenceStatus is the state of an entry of another kind than a trust domain.
type EvidenceStatus struct {
	Name, Kind string
	// Found says by what such evidence is verified.
	Found string
	// Problem is why some of it, or all, would be refused now; nil if nothing is.
	Problem error
}

// EvidenceStatus reports every entry of another kind, in the order of the
// configuration.
func (v *Verifier) EvidenceStatus() []EvidenceStatus {
	out := make([]EvidenceStatus, len(v.states))
	for i, s := range v.states {
		out[i] = EvidenceStatus{Name: s.name, Kind: s.kind}
		out[i].Found, out[i].Problem = s.look(v.now())
	}
	return out
}

// state is how an entry is asked how it is.
type state struct {
	name, kind string
	look       func(now time.Time) (string, error)
}

// tell adds an entry to those that can be asked.
func (v *Verifier) tell(e entry, kind string, look func(now time.Time) (string, error)) {
	v.states = append(v.states, state{e.name, kind, look})
}

// keysState is the state of an issuer's keys.
func keysState(keys *keyset.Source) func(time.Time) (string, error) {
	return func(time.Time) (string, error) {
		st := keys.Status()
		found := fmt.Sprintf("%s of %s", count(len(st.Keys), "key"), st.Issuer)
		if st.Fixed {
			found += ", from a file"
		}
		for _, p := range st.Problems {
			found += "\nnot used: " + p
		}
		switch {
		case st.Failure != nil && st.Usable:
			return found, fmt.Errorf("%w\nwhat was fetched before serves until %s", st.Failure, stamp(st.Stale))
		case st.Failure != nil:
			return found, st.Failure
		case !st.Usable:
			return found, errors.New("no key of this issuer can be used")
		}
		return found, nil
	}
}

// certificatesState says until when certificates are good: the first that ends
// counts. what names them.
func certificatesState(what string, certs []*x509.Certificate, now time.Time) (string, error) {
	var first time.Time
	for _, c := range certs {
		if err := validAt(now, c.NotBefore, c.NotAfter); err != nil {
			return "", fmt.Errorf("%s: the certificate %q is good from %s to %s only; get the current one", what, c.Subject.CommonName, stamp(c.NotBefore), stamp(c.NotAfter))
		}
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return fmt.Sprintf("%s until %s", what, stamp(first)), nil
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
