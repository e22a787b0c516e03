package pass

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// The authentication schemes that carry a pass.
const (
	SchemeBearer = "Bearer" // RFC 6750, also for tokens bound to a certificate (RFC 8705 section 3)
	SchemeDPoP   = "DPoP"   // RFC 9449 section 7.1
)

// KeySource finds the issuer's key for a token's header. A keyset.Source's Key
// has this shape, and so has a Keyring's.
type KeySource func(ctx context.Context, kid string, alg jose.Alg) (*jose.Key, error)

// VerifierConfig says whose passes are accepted.
type VerifierConfig struct {
	// Issuer is the token's iss, byte for byte. It must be set.
	Issuer string
	// Keys must be set.
	Keys KeySource
	// Proofs checks DPoP proofs. Without it a token bound to a DPoP key is
	// refused, since nothing could prove the key.
	Proofs *ProofChecker
	// Skew is how far clocks may differ; 0 means 10 s, more than MaxSkew is an error.
	Skew time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Verifier checks passes. It may be used by many goroutines.
type Verifier struct{ cfg VerifierConfig }

// NewVerifier makes a Verifier.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("pass: a verifier needs the issuer whose tokens it accepts")
	case cfg.Keys == nil:
		return nil, errors.New("pass: a verifier needs a source of keys")
	case cfg.Skew < 0 || cfg.Skew > MaxSkew:
		return nil, errors.New("pass: the clock skew is at most 30s")
	}
	if cfg.Skew == 0 {
		cfg.Skew = 10 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Verifier{cfg}, nil
}

// Presented is how a token came to a resource.
type Presented struct {
	Token  string
	Scheme string // SchemeBearer or SchemeDPoP
	// Proof is the DPoP header, and Method and URL are the request it is for, the
	// URL as the client sees it: never from a header that a client chooses.
	Proof, Method, URL string
	// Certificate is the one that the client proved in the TLS handshake, or nil.
	Certificate *x509.Certificate
}

// Wanted is what a resource demands of a token.
type Wanted struct {
	// Audience is the resource's own name. It must be set: a verifier without an
	// audience accepts what was meant for everybody else (CVE-2024-5798).
	Audience string
	// Scope are the words that the token must all have.
	Scope []string
}

// Access is a verified pass. Only Verify and Inspect make one.
type Access struct{ claims Claims }

// IsZero reports that nothing was verified.
func (a Access) IsZero() bool { return a.claims.ID == "" }

// Claims gives what the token says; its slices are not to be changed.
func (a Access) Claims() Claims { return a.claims }

// Subject is the job's stable name.
func (a Access) Subject() string { return a.claims.Subject }

// ID is the credential's id, as in the record.
func (a Access) ID() string { return a.claims.ID }

// Runner is the SPIFFE ID of the runner, or "".
func (a Access) Runner() string { return a.claims.Actor }

// Expires is when the access ends.
func (a Access) Expires() time.Time { return a.claims.Expires }

// Scope gives the words of the scope.
func (a Access) Scope() []string { return a.claims.Scope }

// Has reports whether the scope has the word.
func (a Access) Has(scope string) bool { return slices.Contains(a.claims.Scope, scope) }

// Decision is the id of the decision in the broker's record, Grant the grant's name.
func (a Access) Decision() string { return a.detail("decision") }

// Grant is the name of the grant.
func (a Access) Grant() string { return a.detail("grant") }

func (a Access) detail(name string) string {
	text, _ := a.claims.Proviso.Get(name).Text()
	return text
}

// Verify checks everything: the token, that it is for this resource, that its
// holder proved the key it is bound to, and its scope. The error is a
// *proviso.Refusal.
func (v *Verifier) Verify(ctx context.Context, p Presented, want Wanted) (Access, error) {
	if want.Audience == "" {
		return Access{}, refuse(proviso.CodeConfigAudienceMissing, "this resource has no audience configured, so it accepts no token")
	}
	a, err := v.Inspect(ctx, p.Token)
	if err != nil {
		return Access{}, err
	}
	if a.claims.Audience != want.Audience {
		return Access{}, refuse(proviso.CodeAudMismatch, "the token is for %q, and this resource is %q; ask the broker for the grant of this resource", a.claims.Audience, want.Audience)
	}
	if err := v.checkBinding(&a.claims, p); err != nil {
		return Access{}, err
	}
	for _, s := range want.Scope {
		if !a.Has(s) {
			return Access{}, refuse(CodeScopeInsufficient, "the token's scope is %q, and this needs %q; ask the broker for that scope", strings.Join(a.claims.Scope, " "), s)
		}
	}
	return a, nil
}

// Inspect checks signature, type, issuer and times of a token, and not who
// shows it nor where. It is for the issuer's own introspection and revocation;
// a resource that used it would accept stolen tokens.
func (v *Verifier) Inspect(ctx context.Context, token string) (Access, error) {
	t, err := jose.Parse(token, jose.Profile{MaxBytes: MaxBytes, Typ: []string{Typ}})
	if err != nil {
		return Access{}, refusalOf(err)
	}
	if t.Header.Typ != Typ { // jose compares media types; this one has one spelling
		return Access{}, refuse(proviso.CodeJWTTyp, "the token's typ is not exactly %s", Typ)
	}
	if !slices.Contains(Algorithms, t.Header.Alg) {
		return Access{}, refuse(proviso.CodeJWTAlgNotAllowed, "the token is signed with %s; Proviso signs with ES256 or EdDSA", t.Header.Alg)
	}
	// The issuer is compared before its keys are looked for, so that a stranger's
	// token costs no look-up.
	if iss, _ := t.Claims.Get("iss").Text(); iss != v.cfg.Issuer {
		return Access{}, refuse(proviso.CodeIssuerUnknown, "the token's issuer is not %s", v.cfg.Issuer)
	}
	key, err := v.cfg.Keys(ctx, t.Header.Kid, t.Header.Alg)
	if err != nil {
		return Access{}, refusalOf(err)
	}
	if err := t.Verify(key); err != nil {
		return Access{}, refusalOf(err)
	}
	c, err := readClaims(t.Claims)
	if err != nil {
		return Access{}, err
	}
	if err := v.checkTimes(&c); err != nil {
		return Access{}, err
	}
	return Access{c}, nil
}

func (v *Verifier) checkTimes(c *Claims) error {
	now := v.cfg.Now()
	switch {
	case !now.Before(c.Expires.Add(v.cfg.Skew)):
		return refuse(proviso.CodeTokenExpired, "the token expired at %s; ask the broker for a new one", c.Expires.UTC().Format(time.RFC3339))
	case c.IssuedAt.After(now.Add(v.cfg.Skew)):
		return refuse(proviso.CodeIatFuture, "the token was issued at %s, which is in the future here; compare the clocks", c.IssuedAt.UTC().Format(time.RFC3339))
	case !c.Expires.After(c.IssuedAt) || c.Expires.Sub(c.IssuedAt) > MaxTTL:
		return refuse(proviso.CodeTokenLifetime, "the token's lifetime is not between 1 second and %v", MaxTTL)
	}
	return nil
}

// readClaims takes each claim in its one type. A claim that isn't known is
// ignored, so that a gate outlives the broker's next version (RFC 7519 section 4).
func readClaims(o document.Value) (c Claims, err error) {
	for _, m := range []struct {
		name string
		to   *string
	}{{"iss", &c.Issuer}, {"sub", &c.Subject}, {"aud", &c.Audience}, {"jti", &c.ID}, {"client_id", &c.ClientID}} {
		text, ok := o.Get(m.name).Text()
		if !ok || text == "" {
			return c, refuse(proviso.CodeClaimType, "the token's %s is not a text; every one of Proviso's tokens has one", m.name)
		}
		*m.to = text
	}
	var present bool
	if c.Expires, present, err = jose.Time(o, "exp"); err != nil || !present {
		return c, timeRefusal(err, proviso.CodeExpMissing, "exp")
	}
	if c.IssuedAt, present, err = jose.Time(o, "iat"); err != nil || !present {
		return c, timeRefusal(err, proviso.CodeIatMissing, "iat")
	}
	if c.Scope, err = readScope(o.Get("scope")); err != nil {
		return c, err
	}
	if c.Confirmation, err = readConfirmation(o.Get("cnf")); err != nil {
		return c, err
	}
	if act := o.Get("act"); !act.IsAbsent() {
		text, ok := act.Get("sub").Text()
		if !ok || text == "" || len(act.Fields()) != 1 {
			return c, refuse(proviso.CodeClaimType, "the token's act is not an object with only a sub")
		}
		c.Actor = text
	}
	c.Details, c.Proviso = o.Get("authorization_details"), o.Get("proviso")
	if k := c.Details.Kind(); k != document.Absent && k != document.Array {
		return c, refuse(proviso.CodeClaimType, "the token's authorization_details is not an array")
	}
	if k := c.Proviso.Kind(); k != document.Absent && k != document.Object {
		return c, refuse(proviso.CodeClaimType, "the token's proviso is not an object")
	}
	return c, nil
}

func timeRefusal(err error, missing proviso.Code, name string) error {
	if err != nil {
		return refusalOf(err)
	}
	return refuse(missing, "the token has no %s", name)
}

func readScope(v document.Value) ([]string, error) {
	if v.IsAbsent() {
		return nil, nil
	}
	text, ok := v.Text()
	words := strings.Split(text, " ")
	if !ok || !validScope(words) {
		return nil, refuse(proviso.CodeClaimType, "the token's scope is not words with one space between them")
	}
	return words, nil
}

// readConfirmation refuses a cnf that it does not understand: to ignore it
// would make a bound token a bearer token.
func readConfirmation(v document.Value) (c Confirmation, err error) {
	if v.IsAbsent() {
		return c, nil
	}
	fields := v.Fields()
	if len(fields) == 1 {
		text, _ := fields[0].Value.Text()
		switch {
		case !isThumbprint(text):
		case fields[0].Name == "jkt":
			return Confirmation{JKT: text}, nil
		case fields[0].Name == "x5t#S256":
			return Confirmation{X5TS256: text}, nil
		}
	}
	return c, refuse(proviso.CodeTokenBinding, "the token is bound to a key in a way that is not known here (cnf has neither only jkt nor only x5t#S256)")
}

// isThumbprint reports whether s is a SHA-256 in canonical base64url.
func isThumbprint(s string) bool {
	if len(s) != 43 {
		return false
	}
	var sum [33]byte
	n, err := base64.RawURLEncoding.Strict().Decode(sum[:], []byte(s))
	return err == nil && n == sha256.Size
}

// checkBinding demands the proof of the key that the token is bound to, and of
// that key only.
func (v *Verifier) checkBinding(c *Claims, p Presented) error {
	switch {
	case p.Scheme != SchemeBearer && p.Scheme != SchemeDPoP:
		return refuse(proviso.CodeTokenBinding, "a token is shown as Bearer or as DPoP")
	case c.Confirmation.JKT != "":
		if p.Scheme != SchemeDPoP {
			return refuse(proviso.CodeTokenBinding, "the token is bound to a DPoP key, so it is no bearer token; show it as DPoP with a proof of the key")
		}
		if v.cfg.Proofs == nil {
			return refuse(proviso.CodeTokenBinding, "the token is bound to a DPoP key, and this resource can't check DPoP proofs")
		}
		_, err := v.cfg.Proofs.Check(p.Proof, ProofRequest{Method: p.Method, URL: p.URL, Token: p.Token, Thumbprint: c.Confirmation.JKT})
		return err
	case p.Scheme == SchemeDPoP || p.Proof != "":
		return refuse(proviso.CodeTokenBinding, "the token is not bound to a DPoP key, but was shown with DPoP")
	case c.Confirmation.X5TS256 != "":
		if p.Certificate == nil {
			return refuse(proviso.CodeTokenBinding, "the token is bound to a client certificate, and none was shown in the TLS handshake")
		}
		if !equal(CertificateThumbprint(p.Certificate), c.Confirmation.X5TS256) {
			return refuse(proviso.CodeTokenBinding, "the token is bound to another client certificate than the one shown")
		}
	}
	return nil
}

// CertificateThumbprint is a certificate's x5t#S256 (RFC 8705 section 3.1).
func CertificateThumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func refuse(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(StageAccess, code, public, args...)
}

// refusalOf makes a refusal of what jose or a key source said. An error that
// says nothing to the caller is that there is no key now.
func refusalOf(err error) error { return jose.Refusal(err, StageAccess, proviso.CodeJWKSStale) }
