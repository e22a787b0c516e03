package runner

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// evidenceProfile is the form of evidence that is a JWT: of strangers, whose
// platforms may add to the header what has no influence.
var evidenceProfile = jose.Profile{Typ: []string{"JWT", ""}, IgnoreUnknown: true}

// statement is how a JWT that is evidence must be: who signs it, for whom, and
// how old it may be.
type statement struct {
	what       string // in messages: "the GCP identity token"
	issuer     string
	audience   string // "" where the kind has none
	algorithms []jose.Alg
	keys       *keyset.Source
	maxAge     time.Duration // since iat
	needExp    bool
}

// verified is a statement that holds.
type verified struct {
	claims  document.Value
	hash    string
	issued  time.Time
	expires time.Time
}

// verify verifies a compact JWT. What it says of itself before its signature
// was verified chooses only whether this entry is concerned at all.
func (s *statement) verify(ctx context.Context, compact string, now time.Time) (verified, error) {
	token, err := jose.Parse(compact, evidenceProfile)
	if err != nil {
		return verified{}, s.fromJOSE(err)
	}
	if iss, _ := token.Claims.Get("iss").Text(); s.issuer != "" && iss != s.issuer {
		return verified{}, notHere(proviso.CodeIssuerUnknown, "%s is of an issuer that is not configured for this kind of evidence", s.what)
	}
	if !slices.Contains(s.algorithms, token.Header.Alg) {
		return verified{}, refuse(proviso.CodeJWTAlgNotAllowed, "%s is signed with %s, which is not taken from its issuer", s.what, token.Header.Alg)
	}
	key, err := s.keys.Key(ctx, token.Header.Kid, token.Header.Alg)
	if err != nil {
		return verified{}, s.fromJOSE(err)
	}
	if err := token.Verify(key); err != nil {
		return verified{}, s.fromJOSE(err)
	}
	hash := token.SignedHash()
	out := verified{claims: token.Claims, hash: hex.EncodeToString(hash[:])}
	if s.audience != "" {
		if err := s.checkAudience(token.Claims); err != nil {
			return verified{}, err
		}
	}
	out.issued, out.expires, err = s.checkTimes(token.Claims, now)
	return out, err
}

func (s *statement) fromJOSE(err error) error {
	var je *jose.Error
	if errors.As(err, &je) {
		return refuse(je.Code, "%s was refused: %s", s.what, je.Msg).Because(je.Err)
	}
	return proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeDiscoveryUnavailable)
}

// checkAudience wants exactly one audience, this broker: whoever else is named
// could show the token here as its own.
func (s *statement) checkAudience(claims document.Value) error {
	one := claims.Get("aud")
	if one.Kind() == document.Array {
		if n := len(one.Items()); n != 1 {
			return refuse(proviso.CodeAudMultiple, "%s has %d audiences; ask for one with the audience %s alone", s.what, n, s.audience)
		}
		one = one.Items()[0]
	}
	switch text, ok := one.Text(); {
	case one.IsAbsent():
		return refuse(proviso.CodeAudMissing, "%s has no aud; ask for one with the audience %s", s.what, s.audience)
	case !ok:
		return refuse(proviso.CodeAudInvalid, "%s has an aud that is %s; a text or a list of one is expected", s.what, one.Kind())
	case text != s.audience:
		return refuse(proviso.CodeAudMismatch, "%s is for %s; ask for one with the audience %s", s.what, quoted(text), s.audience)
	}
	return nil
}

// checkTimes judges exp, nbf and iat. The evidence ends at its exp, or where it
// is too old to be taken again.
func (s *statement) checkTimes(claims document.Value, now time.Time) (issued, expires time.Time, err error) {
	exp, hasExp, errExp := jose.Time(claims, "exp")
	iat, hasIat, errIat := jose.Time(claims, "iat")
	nbf, hasNbf, errNbf := jose.Time(claims, "nbf")
	for _, err := range []error{errExp, errIat, errNbf} {
		if err != nil {
			return issued, expires, s.fromJOSE(err)
		}
	}
	switch {
	case !hasExp && s.needExp:
		return issued, expires, refuse(proviso.CodeExpMissing, "%s has no exp, so it would never expire", s.what)
	case !hasIat:
		return issued, expires, refuse(proviso.CodeIatMissing, "%s has no iat, so its age can't be known", s.what)
	case hasExp && !now.Before(exp):
		return issued, expires, refuse(proviso.CodeTokenExpired, "%s expired at %s, it is %s; get a fresh one", s.what, stamp(exp), stamp(now))
	case iat.Sub(now) > skew:
		return issued, expires, refuse(proviso.CodeIatFuture, "%s was issued at %s, it is %s; check the clocks", s.what, stamp(iat), stamp(now))
	case hasNbf && nbf.Sub(now) > skew:
		return issued, expires, refuse(proviso.CodeNbfFuture, "%s is valid only from %s, it is %s; check the clocks", s.what, stamp(nbf), stamp(now))
	case now.Sub(iat) >= s.maxAge:
		return issued, expires, refuse(CodeEvidenceStale, "%s was issued %s ago, at most %s is taken here; get a fresh one", s.what, now.Sub(iat).Round(time.Second), s.maxAge)
	}
	expires = iat.Add(s.maxAge)
	if hasExp && exp.Before(expires) {
		expires = exp
	}
	return iat, expires, nil
}

// addBearer adds a kind whose evidence is such a statement and nothing else:
// whoever holds a copy can show it, so it never proves more than assurance 2.
func (v *Verifier) addBearer(kind string, s *statement, admit func(claims document.Value) (Finding, error)) {
	v.addEntry(kind, func(ctx context.Context, shown Shown) (Finding, error) {
		token, err := s.verify(ctx, shown.Text, v.now())
		if err != nil {
			return Finding{}, err
		}
		f, err := admit(token.claims)
		f.Assurance, f.Hash, f.Expires = 2, token.hash, token.expires
		return f, err
	})
}
