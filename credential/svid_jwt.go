package credential

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
)

// Kind jwt-svid: a JWT-SVID of the broker's own trust domain, for the grant's
// one audience. It is a bearer token: whoever holds it is it, so it lives shortly.
var jwtSVIDKind = kind{
	name:  "jwt-svid",
	takes: []string{"uri", "audience"},
	check: func(c Config) []Problem {
		out := checkSVID(c)
		if why := badAudience(c.Audience); why != "" {
			out = append(out, problem("audience", "%s", why))
		}
		return out
	},
	prepare: func(m *Minter, o *Offer) error {
		x, err := m.svidOffer(o)
		if err != nil {
			return err
		}
		o.plan, o.mint = x.planJWT, x.mintJWT
		return nil
	},
}

// badAudience says why a text is no audience, or "".
func badAudience(s string) string {
	if s == "" || len(s) > 255 || !isPrintableASCII(s) || strings.Contains(s, " ") {
		return "a token needs exactly one audience of at most 255 plain characters: write the resource's URL"
	}
	return ""
}

func (o *svidOffer) planJWT(_ context.Context, r *PlanRequest, t *audit.Terms) error {
	if len(r.CSR) > 0 {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeCSRRejected, "this grant gives a token, which certifies no key; leave out the csr")
	}
	id, err := o.name(r)
	if err != nil {
		return err
	}
	t.ID, t.Subject, t.Audience = newID(), id, o.cfg.Audience
	if len(o.id.parts) == 0 { // a runner says whom its token is for
		if why := badAudience(r.Audience); why != "" {
			return proviso.Refuse(proviso.StageCredential, proviso.CodeAudInvalid, "%s", why)
		}
		t.Audience = r.Audience
	}
	return nil
}

func (o *svidOffer) mintJWT(_ context.Context, t *audit.Terms, _ Material) (Credential, error) {
	if o.cfg.Audience != "" && t.Audience != o.cfg.Audience || len(t.Names) > 0 || t.KeyHash != "" || t.CSRHash != "" || len(t.Scope) > 0 {
		return Credential{}, mismatch("the recorded terms are not those of this grant's JWT-SVID")
	}
	token, err := o.domain.signJWT(t)
	if err != nil {
		return Credential{}, err
	}
	return Credential{
		Info:      proviso.CredentialInfo{Kind: t.Kind, ID: t.ID, Audience: t.Audience, Expires: t.Expires.Unix()},
		TokenType: "N_A", IssuedTokenType: proviso.TokenTypeJWT, IssuedAt: t.NotBefore, secret: token,
	}, nil
}

// signJWT signs the JWT-SVID of the terms (JWT-SVID section 3): its claims are
// read back and held to the terms before they meet a key.
func (d *Domain) signJWT(t *audit.Terms) (string, error) {
	k, err := d.signing(d.set.Load().jwt)
	if err != nil {
		return "", err
	}
	payload := document.AppendCanonical(nil, document.ObjectOf(
		document.Member("aud", document.ListOf(document.StringOf(t.Audience))),
		document.Member("exp", document.IntOf(t.Expires.Unix())),
		document.Member("iat", document.IntOf(t.NotBefore.Unix())),
		document.Member("jti", document.StringOf(t.ID)),
		document.Member("sub", document.StringOf(t.Subject))))
	if err := d.lintJWT(payload, t); err != nil {
		return "", fault("the JWT-SVID is not what the terms say", err)
	}
	token, err := k.jwt.Sign(payload)
	if err != nil {
		return "", fault("the JWT-SVID can't be signed", err)
	}
	return token, nil
}

func (d *Domain) lintJWT(payload []byte, t *audit.Terms) error {
	c, err := document.Parse(payload, document.Limits{Bytes: 4 << 10, Depth: 2, Members: 8})
	if err != nil {
		return err
	}
	subject, _ := c.Get("sub").Text()
	id, _ := c.Get("jti").Text()
	issued, _ := c.Get("iat").Integer()
	expires, _ := c.Get("exp").Integer()
	audience := c.Get("aud").Items()
	switch {
	case !bytes.Equal(document.AppendCanonical(nil, c), payload) || len(c.Fields()) != 5:
		return errors.New("lint members: not the five claims in canonical form")
	case subject != t.Subject || checkSPIFFEID(subject, d.Name()) != nil:
		return errors.New("lint subject: not the recorded SPIFFE ID of this trust domain")
	case len(audience) != 1 || badAudience(t.Audience) != "":
		return errors.New("lint audience: not exactly one")
	case id != t.ID || len(id) != 32:
		return errors.New("lint id: not the recorded one")
	case issued != t.NotBefore.Unix() || expires != t.Expires.Unix() || expires <= d.now().Unix() || expires-issued > int64(keepKeys.Seconds()):
		return errors.New("lint lifetime: not the recorded one, or over")
	}
	if text, _ := audience[0].Text(); text != t.Audience {
		return errors.New("lint audience: not the recorded one")
	}
	return nil
}
