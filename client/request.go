package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
)

// form writes the request as RFC 8693 section 2.1 wants it.
func (r Request) form() (url.Values, error) {
	if r.Grant == "" {
		return nil, errors.New("the grant's name is missing")
	}
	form := url.Values{"audience": {r.Grant}}
	switch {
	case r.ClientID != "" && (r.SubjectToken != "" || r.ActorToken != ""):
		return nil, errors.New("a workload that asks for itself by mutual TLS sends no token")
	case r.ClientID != "":
		form.Set("grant_type", proviso.GrantTypeClientCredentials)
		form.Set("client_id", r.ClientID)
	case r.SubjectToken == "":
		return nil, errors.New("the job's token is missing")
	default:
		form.Set("grant_type", proviso.GrantTypeTokenExchange)
		form.Set("subject_token", r.SubjectToken)
		form.Set("subject_token_type", cmp.Or(r.SubjectTokenType, proviso.TokenTypeJWT))
	}
	if r.ActorToken != "" {
		form.Set("actor_token", r.ActorToken)
		form.Set("actor_token_type", cmp.Or(r.ActorTokenType, proviso.TokenTypeJWT))
	}
	if len(r.Scope) > 0 {
		form.Set("scope", strings.Join(r.Scope, " "))
	}
	if len(r.CSR) > 0 {
		form.Set("csr", string(r.CSR))
	}
	if r.RequestedTokenType != "" {
		form.Set("requested_token_type", r.RequestedTokenType)
	}
	intent := r.Intent
	intent.Type = proviso.IntentType
	if intent == (proviso.Intent{Type: proviso.IntentType}) {
		return form, nil
	}
	details, err := json.Marshal([]proviso.Intent{intent})
	if err != nil {
		return nil, fmt.Errorf("the intent can't be written: %w", err)
	}
	form.Set("authorization_details", string(details))
	return form, nil
}

// backoff gives the pause before attempt n+1: half a second and doubling, at
// most eight seconds, each between half and all of it, so that a thousand jobs
// that were refused together do not come back together.
func backoff(n int) time.Duration {
	d := min(500*time.Millisecond<<(n-1), 8*time.Second)
	return d/2 + rand.N(d/2) // #nosec G404 -- so that jobs come apart; no secret
}

// sleep waits for d, or until ctx ends; it reports whether the time is over.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
