package runner

import (
	"encoding/hex"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// skew is how far in the future a JWT-SVID's iat and nbf may lie, for clocks
// that differ. Its exp gets no leeway: an agent renews an SVID long before.
const skew = 30 * time.Second

// jwtProfile takes the header parameters alg, kid and typ, and no other: an
// SVID's header "MUST NOT" hold more (JWT-SVID section 2), jku and jwk least of all.
var jwtProfile = jose.Profile{MaxBytes: 8 << 10, Typ: []string{"", "JWT", "JOSE"}}

// verifyJWT verifies a JWT-SVID (JWT-SVID sections 2 to 4). Proviso's own strict
// verifier is the gate here, on the identifiers and keys that go-spiffe read;
// go-spiffe's is the second opinion of the tests, because it accepts an SVID
// for 60 seconds after its end, without a path, with any further audience and any header.
func (v *Verifier) verifyJWT(compact string, now time.Time) (attested, error) {
	token, err := jose.Parse(compact, jwtProfile)
	if err != nil {
		return attested{}, fromJOSE(err)
	}
	if t := token.Header.Typ; t != "" && t != "JWT" && t != "JOSE" {
		return attested{}, refuse(proviso.CodeJWTTyp, "a JWT-SVID's typ is JWT, JOSE or absent")
	}
	if len(token.Header.Ignored) > 0 {
		return attested{}, refuse(proviso.CodeJWTHeaderNotAllowed, "a JWT-SVID's header has alg, kid and typ only; this one has %s too", quoted(token.Header.Ignored[0]))
	}
	if token.Header.Kid == "" {
		return attested{}, refuse(proviso.CodeJWTKIDMissing, "the JWT-SVID's header names no key (kid)")
	}
	id, err := subject(token.Claims)
	if err != nil {
		return attested{}, err
	}
	d, err := v.domainOf(id)
	if err != nil {
		return attested{}, err
	}
	b, err := d.source.usable()
	if err != nil {
		return attested{}, err
	}
	key := b.jwtKey(token.Header.Kid, token.Header.Alg)
	if key == nil {
		return attested{}, refuse(proviso.CodeJWTUnknownKID, "the bundle of trust domain %s has no JWT authority for the kid and alg of this JWT-SVID; "+
			"either it was issued by somebody else, or the bundle here is old", id.TrustDomain().Name())
	}
	if err := token.Verify(key); err != nil {
		return attested{}, fromJOSE(err)
	}
	if err := audience(token.Claims, v.audience); err != nil {
		return attested{}, err
	}
	expires, err := lifetime(token.Claims, now, d.cfg.MaxJWTLifetime)
	if err != nil {
		return attested{}, err
	}
	names, err := keyOf(token.Claims)
	if err != nil {
		return attested{}, err
	}
	hash := token.SignedHash()
	issued, _, _ := jose.Time(token.Claims, "iat") // lifetime has judged it
	return attested{domain: d, id: id, kind: AttestationJWT, names: names, hash: hex.EncodeToString(hash[:]), digest: hash, claims: token.Claims, issued: issued, expires: expires}, nil
}

func refuse(code proviso.Code, public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(proviso.StageRunner, code, public, args...)
}

func fromJOSE(err error) error {
	var je *jose.Error
	if errors.As(err, &je) {
		return refuse(je.Code, "the JWT-SVID was refused: %s", je.Msg)
	}
	return refuse(proviso.CodeSVIDInvalid, "the JWT-SVID was refused").Because(err)
}

// subject reads sub as a SPIFFE ID that names a workload.
func subject(claims document.Value) (spiffeid.ID, error) {
	text, _ := claims.Get("sub").Text()
	return parseSubject(text)
}

func parseSubject(text string) (spiffeid.ID, error) {
	id, err := spiffeid.FromString(text)
	if err != nil || len(text) > maxID {
		return spiffeid.ID{}, refuse(proviso.CodeSubInvalid, "the JWT-SVID's sub is no SPIFFE ID").Because(err)
	}
	if id.Path() == "" {
		return spiffeid.ID{}, refuse(proviso.CodeSubInvalid, "the JWT-SVID names the trust domain %s itself and no workload in it: sub has a path", id.TrustDomain().Name())
	}
	return id, nil
}

// audience wants exactly one audience, this broker: whoever else is named could
// show the SVID here as its own.
func audience(claims document.Value, want string) error {
	aud := claims.Get("aud")
	one := aud
	if aud.IsAbsent() {
		return refuse(proviso.CodeAudMissing, "the JWT-SVID has no aud; ask for one with the audience %s", want)
	}
	if aud.Kind() == document.Array {
		switch len(aud.Items()) {
		case 0:
			return refuse(proviso.CodeAudMissing, "the JWT-SVID's aud is empty; ask for one with the audience %s", want)
		case 1:
			one = aud.Items()[0]
		default:
			return refuse(proviso.CodeAudMultiple, "the JWT-SVID has %d audiences; any of them could have sent it here, so ask for one with the audience %s alone", len(aud.Items()), want)
		}
	}
	text, ok := one.Text()
	if !ok {
		return refuse(proviso.CodeAudInvalid, "the JWT-SVID's aud is %s; a text or a list of one is expected", one.Kind())
	}
	if text != want {
		return refuse(proviso.CodeAudMismatch, "the JWT-SVID is for %s; ask for one with the audience %s", quoted(text), want)
	}
	return nil
}

// lifetime judges exp, nbf and iat, and gives the end.
func lifetime(claims document.Value, now time.Time, longest time.Duration) (time.Time, error) {
	exp, present, err := jose.Time(claims, "exp")
	if err != nil {
		return time.Time{}, fromJOSE(err)
	}
	if !present {
		return time.Time{}, refuse(proviso.CodeExpMissing, "the JWT-SVID has no exp")
	}
	if !now.Before(exp) {
		return time.Time{}, refuse(proviso.CodeTokenExpired, "the JWT-SVID expired at %s, it is %s; fetch a fresh one", stamp(exp), stamp(now))
	}
	if exp.Sub(now) > longest {
		return time.Time{}, refuse(proviso.CodeTokenLifetime, "the JWT-SVID is valid for %s more, at most %s is taken here; issue shorter ones", exp.Sub(now).Round(time.Second), longest)
	}
	nbf, present, err := jose.Time(claims, "nbf")
	if err != nil {
		return time.Time{}, fromJOSE(err)
	}
	if present && nbf.Sub(now) > skew {
		return time.Time{}, refuse(proviso.CodeNbfFuture, "the JWT-SVID is valid only from %s, it is %s; check the clocks", stamp(nbf), stamp(now))
	}
	iat, present, err := jose.Time(claims, "iat")
	if err != nil {
		return time.Time{}, fromJOSE(err)
	}
	if present && iat.Sub(now) > skew {
		return time.Time{}, refuse(proviso.CodeIatFuture, "the JWT-SVID was issued at %s, it is %s; check the clocks", stamp(iat), stamp(now))
	}
	if present && exp.Sub(iat) > longest {
		return time.Time{}, refuse(proviso.CodeTokenLifetime, "the JWT-SVID lives for %s, at most %s is taken here; issue shorter ones", exp.Sub(iat), longest)
	}
	return exp, nil
}

// keyOf reads the key that a JWT-SVID is bound to (cnf.jkt, RFC 7800). Agents make
// bearers; an SVID that says more is held to it.
func keyOf(claims document.Value) (string, error) {
	cnf := claims.Get("cnf")
	if cnf.IsAbsent() {
		return "", nil
	}
	jkt, _ := cnf.Get("jkt").Text()
	if jkt == "" || len(cnf.Fields()) != 1 {
		return "", refuse(proviso.CodeCnfMismatch, "the JWT-SVID is bound to a key in a way that isn't known here; its cnf must have jkt, the key's SHA-256 thumbprint, alone")
	}
	return jkt, nil
}

// quoted shows a caller's own text back, bounded and without control characters.
func quoted(s string) string {
	const most = 100
	out := make([]rune, 0, most)
	for _, r := range s {
		if len(out) == most {
			out = append(out, '…')
			break
		}
		if r < 0x20 || r == 0x7f || r == '"' {
			r = '?'
		}
		out = append(out, r)
	}
	return `"` + string(out) + `"`
}
