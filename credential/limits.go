package credential

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
)

const withinRunner = "runner"

// planLifetime takes the shortest of all bounds, in whole seconds.
func (o *Offer) planLifetime(r *PlanRequest, t *audit.Terms) error {
	now := o.m.opt.Now().Truncate(time.Second)
	ttl := o.maxTTL
	if r.AskedTTL < 0 || r.LimitTTL < 0 {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeTTLOutOfRange, "a lifetime can't be negative")
	}
	if r.AskedTTL > 0 {
		ttl = min(ttl, r.AskedTTL)
	}
	if r.LimitTTL > 0 {
		ttl = min(ttl, r.LimitTTL)
	}
	if o.within {
		if r.RunnerExpires.IsZero() {
			return proviso.Refuse(proviso.StageCredential, proviso.CodeConstraintRequired,
				"this grant's credential lives no longer than the runner's evidence, and there is none; let the runner show its SVID")
		}
		ttl = min(ttl, r.RunnerExpires.Sub(now))
	}
	ttl = ttl.Truncate(time.Second)
	if ttl < time.Second {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeTokenLifetime, "nothing is left of the credential's lifetime after all limits; renew the runner's evidence and ask again")
	}
	t.NotBefore, t.Expires = now, now.Add(ttl)
	return nil
}

// planScope takes what was asked, or all of the grant, and cuts it by policy.
func (o *Offer) planScope(r *PlanRequest, t *audit.Terms) error {
	for _, s := range r.AskedScope {
		if !slices.Contains(o.cfg.Scope, s) {
			return proviso.Refuse(proviso.StageCredential, proviso.CodeScopeNotAllowed,
				"this grant has no scope %q; it has %s", shorten(s), list(o.cfg.Scope))
		}
	}
	t.ScopeAsked = r.AskedScope
	// In the grant's order, each word once, so that equal scopes are equal texts.
	for _, s := range o.cfg.Scope {
		if (len(r.AskedScope) == 0 || slices.Contains(r.AskedScope, s)) && (r.LimitScope == nil || slices.Contains(r.LimitScope, s)) {
			t.Scope = append(t.Scope, s)
		}
	}
	if len(o.cfg.Scope) > 0 && len(t.Scope) == 0 {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeScopeNotAllowed,
			"policy leaves nothing of the scope: it allows %s", list(r.LimitScope))
	}
	return nil
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// newID makes a credential's id: 128 random bits in hex, which is also what a
// certificate's serial number is made of (RFC 5280 section 4.1.2.2).
func newID() string {
	var b [16]byte
	for b[0] == 0 { // so that a serial and its hex have one spelling, and it isn't zero
		rand.Read(b[:])
	}
	return hex.EncodeToString(b[:])
}
