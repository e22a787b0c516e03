package pass

import (
	"strconv"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// Signer signs passes with one key, without a lock.
type Signer struct{ jose *jose.Signer }

// Key is the public half.
func (s *Signer) Key() *jose.Key { return s.jose.Key() }

// Sign lints c's bytes and signs them. maxTTL is what the warrant allows.
func (s *Signer) Sign(c *Claims, maxTTL time.Duration) (string, error) {
	var room [1 << 10]byte
	payload := appendClaims(room[:0], c)
	if err := lint(payload, c, maxTTL); err != nil {
		return "", err
	}
	token, err := s.jose.Sign(payload)
	if err != nil {
		return "", proviso.Refuse(proviso.StageCredential, CodeKeyring, "the token can't be signed").Because(err)
	}
	return token, nil
}

// appendClaims writes c in canonical JSON: the members stand in the order of
// RFC 8785 because they do so here, and an absent one is left out.
func appendClaims(b []byte, c *Claims) []byte {
	b = append(b, '{')
	if c.Actor != "" {
		b = append(b, `"act":{"sub":`...)
		b = append(document.AppendString(b, c.Actor), `},`...)
	}
	b = appendText(b, `"aud":`, c.Audience)
	if !c.Details.IsAbsent() {
		b = append(b, `"authorization_details":`...)
		b = append(document.AppendCanonical(b, c.Details), ',')
	}
	b = appendText(b, `"client_id":`, c.ClientID)
	switch {
	case c.Confirmation.JKT != "":
		b = append(b, `"cnf":{"jkt":`...)
		b = append(document.AppendString(b, c.Confirmation.JKT), `},`...)
	case c.Confirmation.X5TS256 != "":
		b = append(b, `"cnf":{"x5t#S256":`...)
		b = append(document.AppendString(b, c.Confirmation.X5TS256), `},`...)
	}
	b = append(b, `"exp":`...)
	b = strconv.AppendInt(b, c.Expires.Unix(), 10)
	b = append(b, `,"iat":`...)
	b = append(strconv.AppendInt(b, c.IssuedAt.Unix(), 10), ',')
	b = appendText(b, `"iss":`, c.Issuer)
	b = appendText(b, `"jti":`, c.ID)
	if !c.Proviso.IsAbsent() {
		b = append(b, `"proviso":`...)
		b = append(document.AppendCanonical(b, c.Proviso), ',')
	}
	if len(c.Scope) > 0 {
		b = append(b, `"scope":"`...)
		for i, s := range c.Scope {
			if i > 0 {
				b = append(b, ' ')
			}
			b = append(b, s...) // the lint holds each to RFC 6749's characters, which need no escape
		}
		b = append(b, `",`...)
	}
	b = appendText(b, `"sub":`, c.Subject)
	b[len(b)-1] = '}'
	return b
}

func appendText(b []byte, name, text string) []byte {
	b = append(b, name...)
	return append(document.AppendString(b, text), ',')
}
