package credential

import (
	"context"
	"errors"

	"github.com/proviso-ci/proviso/audit"
)

// Kind x509: a client certificate for a key of the caller's.
var x509Kind = kind{
	name:  "x509",
	takes: []string{"uri", "dns", "common_name"},
	check: func(Config) []Problem { return nil },
	prepare: func(m *Minter, o *Offer) error {
		if m.opt.Authority == nil {
			return errors.New("kind: this broker has no certificate authority")
		}
		o.plan = func(context.Context, *PlanRequest, *audit.Terms) error { return errors.New("not yet") }
		o.mint = func(context.Context, *audit.Terms, Material) (Credential, error) {
			return Credential{}, errors.New("not yet")
		}
		return nil
	},
}

// Authority is the embedded certificate authority.
type Authority struct{}
