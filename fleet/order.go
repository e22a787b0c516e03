package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/store"
)

// Order is what an operator wants of the fleet. It comes from the broker's own
// machine: over a socket that only the broker's user reaches, or from a command
// that has opened the store while no broker runs.
type Order struct {
	// Do is token, list, ban, unban, reattest or forget-bundle.
	Do string `json:"do"`
	// Values are those of the runners' path, for token: {"id": "r1", "region": "eu"}.
	Values map[string]string `json:"values,omitempty"`
	// TTL is the join token's life in seconds.
	TTL int64 `json:"ttl,omitempty"`
	// Name is a runner's SPIFFE ID, ENTRY/ID, or the last segment of its SPIFFE ID;
	// for forget-bundle a trust domain.
	Name   string `json:"name,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Answer is what came of an order. Token is a secret.
type Answer struct {
	Name    string         `json:"name,omitempty"`
	Token   string         `json:"token,omitempty"`
	Rekeyed bool           `json:"rekeyed,omitempty"` // the machine may come with another key
	Expires time.Time      `json:"expires,omitzero"`
	Runners []store.Runner `json:"runners,omitempty"`
}

// Obey carries out an order. name composes the SPIFFE ID of a runner of the own
// fleet; it is nil where there is none.
func (f *Fleet) Obey(ctx context.Context, o Order, name func(values map[string]string) (string, error)) (Answer, error) {
	switch o.Do {
	case "list":
		runners, err := f.List(ctx)
		return Answer{Runners: runners}, err
	case "forget-bundle":
		return Answer{Name: o.Name}, f.ForgetBundle(ctx, o.Name, o.Reason)
	case "token":
		if name == nil {
			return Answer{}, fmt.Errorf("this broker has no fleet: give it a section trust_domain, and an entry of runners with bundle: {own: true}")
		}
		id, err := name(o.Values)
		if err != nil {
			return Answer{}, err
		}
		token, expires, err := f.NewToken(ctx, id, time.Duration(o.TTL)*time.Second)
		return Answer{Name: id, Token: token, Expires: expires}, err
	case "ban", "unban", "reattest":
		return f.restand(ctx, o)
	}
	return Answer{}, fmt.Errorf("%q is no order", o.Do)
}

// restand carries out an order about how a runner stands.
func (f *Fleet) restand(ctx context.Context, o Order) (Answer, error) {
	name, err := f.find(o.Name)
	if err != nil {
		return Answer{}, err
	}
	answer := Answer{Name: name}
	switch o.Do {
	case "ban":
		err = f.Ban(ctx, name, o.Reason)
	case "unban":
		err = f.Unban(ctx, name, o.Reason)
	case "reattest":
		answer.Rekeyed, err = f.Reattest(ctx, name, o.Reason)
	}
	return answer, err
}

// find gives the full name: as it is given where it is one, also of a runner that
// nobody has heard of, so that it can be banned before it comes.
func (f *Fleet) find(name string) (string, error) {
	if strings.Contains(name, "/") {
		if len(name) > 2048 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", fmt.Errorf("%q is no runner's name", name)
		}
		return name, nil
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	var found []string
	for full := range f.known {
		if name != "" && strings.HasSuffix(full, "/"+name) {
			found = append(found, full)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%q: %w", name, errUnknown)
	}
	return "", fmt.Errorf("%q is the name of %d runners; write one of them in full: %s", name, len(found), strings.Join(found[:min(len(found), 5)], ", "))
}
